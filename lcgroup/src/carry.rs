//! `lcgroup carry`: the program inside of the network of a group. It passes packets of the group
//! between lc0 and `lcgroup run`, gives programs a part of lc0, and has no key of the group.
//!
//! ```text
//! lcgroup run                      lcgroup carry
//!   | -- address 128 ----------------> |   once: the multicast group
//!   | <- :: 128 | address, link-local  |   once: the addresses of lc0
//!   | -- packet ---------------------> |
//!   | <------ source 128 | packet ---- |
//!   | -- a descriptor ---------------> |   the hub's end of a program's pair
//! ```

use std::io::IoSliceMut;
use std::net::Ipv6Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use anyhow::Context;
use librecast::socket::GuestPair;
use librecast_log_host::Network;
use librecast_program::cli::Exit;
use librecast_program::group_network::inherited;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, recvmsg, send};

use crate::hub::{self, MAX_PACKET};

/// Name of the interface.
const LC0: &str = "lc0";
/// Bytes of an address before a packet.
pub const SOURCE: usize = 16;
/// Bytes of the message with the addresses of lc0.
pub const ADDRESSES: usize = 3 * SOURCE;
/// Longest wait for packets: interfaces are looked at then.
const WAIT: Duration = Duration::from_secs(1);

/// A message of `lcgroup run`.
enum Input {
    /// A packet for the group, of this length.
    Packet(usize),
    /// The hub's end of a program's pair.
    Port(OwnedFd),
}

/// Carries packets until `lcgroup run` ends.
pub fn run(packets: RawFd) -> anyhow::Result<Exit> {
    let packets = inherited(packets).context("--packets")?;
    let pair = GuestPair::take()?.context("`lcgroup carry` runs in a guest of lcroute alone")?;
    let (address, link_local) = (pair.address, pair.link_local);
    let ports = hub::start(pair.fd, link_local)?;
    let (port, fd) = hub::pair()?;
    ports.add(port);
    let own = GuestPair {
        fd,
        address,
        link_local,
    };
    own.set()?;
    let mut buffer = [0; MAX_PACKET];
    let length = recv(packets.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
    let group: Result<[u8; SOURCE], _> = buffer[..length].try_into();
    let group = Ipv6Addr::from(group.context("no address of a group")?);
    let addresses = [Ipv6Addr::UNSPECIFIED, address, link_local];
    let addresses = addresses.map(|address| address.octets()).concat();
    send(packets.as_raw_fd(), &addresses, MsgFlags::MSG_NOSIGNAL)?;
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
            match input(&packets, &mut buffer) {
                Ok(Some(Input::Packet(length))) => network.send(group, &buffer[..length]),
                Ok(Some(Input::Port(port))) => ports.add(port),
                Ok(None) | Err(Errno::ECONNRESET) => return Ok(Exit::Ok),
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

/// Reads a message; none: `lcgroup run` has ended.
fn input(packets: &OwnedFd, buffer: &mut [u8]) -> nix::Result<Option<Input>> {
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(packets.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    Ok(match (hub::descriptor(&message)?, message.bytes) {
        (Some(port), _) => Some(Input::Port(port)),
        (None, 0) => None,
        (None, length) => Some(Input::Packet(length)),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub mod tests {
    use std::sync::Arc;
    use std::thread;

    use librecast::ipv6::udp_packet;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;
    use crate::hub::{Lc0, MAX_PORTS};

    /// Enough on a busy machine.
    const LONG: Duration = Duration::from_secs(120);
    const OWN: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    const GROUP: Ipv6Addr = Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, 1);

    /// Returns lc0 of a hub whose ports a thread passes on, and the node's end.
    pub fn carried() -> (Lc0, OwnedFd) {
        let flags = SockFlag::SOCK_CLOEXEC;
        let node = socketpair(AddressFamily::Unix, SockType::Datagram, None, flags);
        let (node, hubs) = node.unwrap();
        let ports = hub::start(hubs, LINK_LOCAL).unwrap();
        let (packets, theirs) = hub::pair().unwrap();
        thread::spawn(move || {
            let mut buffer = [0; MAX_PACKET];
            loop {
                let mut fds = [PollFd::new(theirs.as_fd(), PollFlags::POLLIN)];
                poll(&mut fds, PollTimeout::NONE).unwrap();
                match input(&theirs, &mut buffer) {
                    Ok(Some(Input::Port(port))) => ports.add(port),
                    _ => return,
                }
            }
        });
        let lc0 = Lc0 {
            packets: Arc::new(packets),
            addresses: (OWN, LINK_LOCAL),
            run: 1,
        };
        (lc0, node)
    }

    /// Asserts that the node receives what a program sends by this port.
    pub fn assert_speaks(port: &OwnedFd, node: &OwnedFd) {
        let packet = udp_packet(OWN, GROUP, (7, 8), b"hello");
        send(port.as_raw_fd(), &packet, MsgFlags::empty()).unwrap();
        let mut buffer = [0; MAX_PACKET];
        let length = recv(node.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap();
        assert_eq!(buffer[..length], packet);
    }

    #[test]
    fn a_program_has_a_port_while_one_is_free_and_is_told_why_it_has_none() {
        let (lc0, node) = carried();
        let mut all: Vec<_> = (0..MAX_PORTS).map(|_| lc0.open().unwrap()).collect();
        assert_speaks(&all[MAX_PORTS - 1], &node);
        let e = lc0.open().unwrap_err().to_string();
        assert!(e.contains("are in use"), "{e}");
        // a program that ends makes room
        drop(all.pop());
        let until = Instant::now() + LONG;
        let again = loop {
            match lc0.open() {
                Ok(port) => break port,
                Err(e) => assert!(Instant::now() < until, "{e}"),
            }
        };
        assert_speaks(&again, &node);
        // nobody carries
        let (packets, theirs) = hub::pair().unwrap();
        let packets = Arc::new(packets);
        drop(theirs);
        let e = Lc0 { packets, ..lc0 }.open().unwrap_err().to_string();
        assert!(e.contains("takes no program now"), "{e}");
    }
}
