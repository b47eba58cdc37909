//! `lcgroup carry`: the program inside of the network of a group. It passes packets of the group
//! between lc0 and `lcgroup run`, and has no key of it.

use std::net::Ipv6Addr;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::{Duration, Instant};

use anyhow::Context;
use librecast_log_host::Network;
use librecast_program::cli::Exit;
use librecast_program::group_network::inherited;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, send};

/// Name of the interface.
const LC0: &str = "lc0";
/// Bytes of an address before a packet.
pub const SOURCE: usize = 16;
/// Bytes of a buffer for a packet: more than the MTU of lc0.
pub const MAX_PACKET: usize = 2_048;
/// Longest wait for packets: interfaces are looked at then.
const WAIT: Duration = Duration::from_secs(1);

/// Carries packets until `lcgroup run` ends.
///
/// # Errors
///
/// Those of the system.
pub fn run(packets: RawFd) -> anyhow::Result<Exit> {
    let packets = inherited(packets).context("--packets")?;
    let mut buffer = [0; MAX_PACKET];
    let length = recv(packets.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
    let address: Result<[u8; SOURCE], _> = buffer[..length].try_into();
    let group = Ipv6Addr::from(address.context("no address of a group")?);
    let mut network = Network::open(&[LC0.to_owned()], Instant::now())?;
    network.join(group);
    loop {
        network.look_at_interfaces(Instant::now())?;
        let mut fds: Vec<_> = network
            .fds()
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        fds.push(PollFd::new(packets.as_fd(), PollFlags::POLLIN));
        match poll(&mut fds, PollTimeout::try_from(WAIT)?) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
        let mut passed = Vec::with_capacity(SOURCE + MAX_PACKET);
        network.receive(|_, source, packet| {
            passed.clear();
            passed.extend_from_slice(&source.octets());
            passed.extend_from_slice(packet);
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            // a lost packet, which members repair
            let _ = send(packets.as_raw_fd(), &passed, flags);
        })?;
        loop {
            match recv(packets.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(0) | Err(Errno::ECONNRESET) => return Ok(Exit::Ok),
                Ok(length) => network.send(group, &buffer[..length]),
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}
