//! lc0 of a guest, seen by its node: a TUN device in the program's namespace, or a socket pair to a
//! program of ours, where no namespace may be made.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use librecast::id::NodeAddresses;
use librecast::socket::{GUEST_FD, GUEST_INDEX};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, recv, send, setsockopt, socketpair, sockopt,
};

use crate::tun::Device;

/// Programs whose multicast goes through [`librecast::socket`], and so through a socket pair.
const OWN: [&str; 5] = ["lcsync", "lcradio", "lcstudio", "lcgroup", "lcagent"];
/// Bytes of packets that wait in the pair, each way. Chosen: a tenth of a second at 50 Mbit/s.
const BUFFER: usize = 1 << 20;
/// Bytes of a buffer for a packet: more than lc0's MTU.
const PACKET: usize = 2_048;

/// lc0.
#[derive(Debug)]
pub enum Interface {
    /// A device.
    Tun(Box<Device>),
    /// The guest's end of a pair, and the packets that found it full.
    Pair(OwnedFd, u64),
}

/// Returns whether the program works over a socket pair. Of lcroute, only the two sides of a token by
/// words do: other verbs have plain sockets.
pub fn is_own(program: &Command) -> bool {
    let name = Path::new(program.get_program()).file_name();
    let is_by_words = || {
        program
            .get_args()
            .any(|a| a == "--take" || a == "--token-fd")
    };
    name.is_some_and(|name| {
        OWN.iter().any(|own| name == *own) || name == "lcroute" && is_by_words()
    })
}

/// Makes a pair: the guest's end, and that of the program, which is told of it.
pub fn pair(command: &mut Command, addresses: &NodeAddresses) -> nix::Result<(Interface, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Datagram, None, flags)?;
    for end in [&ours, &theirs] {
        // the system may permit less
        let _ = setsockopt(end, sockopt::SndBuf, &BUFFER);
    }
    let (address, link_local) = (addresses.address, addresses.link_local);
    let value = format!("{},{address},{link_local}", theirs.as_raw_fd());
    command.env(GUEST_FD, value);
    Ok((Interface::Pair(ours, 0), theirs))
}

impl Interface {
    /// Reads what is there, and passes each packet on; returns false if there was nothing.
    pub fn read(&mut self, each: &mut impl FnMut(Bytes)) -> io::Result<bool> {
        let fd = match self {
            Self::Tun(device) => return device.read(each),
            Self::Pair(fd, _) => fd.as_raw_fd(),
        };
        let mut buffer = [0; PACKET];
        match recv(fd, &mut buffer, MsgFlags::MSG_DONTWAIT) {
            // the program has closed it: its end is told elsewhere
            Ok(0) | Err(Errno::EAGAIN | Errno::ECONNRESET) => Ok(false),
            Ok(length) => {
                each(Bytes::copy_from_slice(
                    buffer.get(..length).unwrap_or_default(),
                ));
                Ok(true)
            }
            Err(Errno::EINTR) => Ok(true),
            Err(e) => Err(e.into()),
        }
    }

    /// Writes a packet.
    pub fn write(&mut self, packet: &[u8]) -> io::Result<()> {
        match self {
            Self::Tun(device) => device.write(packet),
            Self::Pair(fd, lost) => {
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                send(fd.as_raw_fd(), packet, flags).map(drop).map_err(|e| {
                    *lost += 1;
                    e.into()
                })
            }
        }
    }

    /// Writes a packet with the next [`flush`](Self::flush) at the latest.
    pub fn queue(&mut self, packet: Bytes) {
        match self {
            Self::Tun(device) => device.queue(packet),
            // a full pair loses packets, as a full device does
            Self::Pair(..) => drop(self.write(&packet)),
        }
    }

    /// Writes what is queued.
    pub fn flush(&mut self) {
        if let Self::Tun(device) = self {
            device.flush();
        }
    }

    /// Returns the packets of programs that the kernel has dropped so far.
    pub fn overruns(&mut self) -> io::Result<u64> {
        match self {
            Self::Tun(device) => device.overruns(),
            // the program waits for room
            Self::Pair(..) => Ok(0),
        }
    }

    /// Returns its index, as the program sees it.
    pub fn index(&self) -> u32 {
        match self {
            Self::Tun(device) => device.index(),
            Self::Pair(..) => GUEST_INDEX,
        }
    }

    /// Returns the packets for the program that found no room.
    pub fn lost(&self) -> u64 {
        match self {
            Self::Tun(_) => 0,
            Self::Pair(_, lost) => *lost,
        }
    }
}

impl AsFd for Interface {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tun(device) => device.as_fd(),
            Self::Pair(fd, _) => fd.as_fd(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_carries_packets_both_ways_and_is_for_programs_of_ours() {
        let mut command = Command::new("/usr/bin/lcradio");
        assert!(is_own(&command) && !is_own(&Command::new("/usr/bin/ffmpeg")));
        let mut lcroute = Command::new("lcroute");
        assert!(!is_own(&lcroute) && is_own(lcroute.args(["join", "--take"])));
        let key = librecast::id::SecretKey::from_seed(&[7; 32]).peer_id();
        let addresses = NodeAddresses::derive(&key, &key);
        let (mut ours, theirs) = pair(&mut command, &addresses).unwrap();
        ours.queue(Bytes::from_static(b"in"));
        let mut buffer = [0; 8];
        assert_eq!(
            recv(theirs.as_raw_fd(), &mut buffer, MsgFlags::empty()),
            Ok(2)
        );
        send(theirs.as_raw_fd(), b"out", MsgFlags::empty()).unwrap();
        let mut read = Vec::new();
        assert!(ours.read(&mut |packet| read.push(packet)).unwrap());
        assert!(!ours.read(&mut |packet| read.push(packet)).unwrap());
        assert_eq!(read, [Bytes::from_static(b"out")]);
        // a program that takes nothing
        for _ in 0..10_000 {
            ours.queue(Bytes::from(vec![0; 1_280]));
        }
        assert!(ours.lost() > 0);
    }
}
