//! ICMP errors about sent datagrams, from the socket's error queue.
//!
//! The kernel checks only that an ICMP error quotes a datagram from our port. Anyone with the
//! addresses of a link can forge one. Only the quote shows that it concerns a sent datagram: the
//! overlay checks that.

use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use lcroute_webrtc::Unreachable;
use nix::libc;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage, recvmsg,
};

use super::{Socket, plain};
use crate::drops::DropReason;

/// Most errors taken in one turn of the loop: bounds the time that a flood of them gets.
const BATCH: usize = 64;
/// Bytes read of a quoted datagram.
const QUOTED: usize = 64;
/// Bytes of control messages: `sock_extended_err` with the sender's address, packet information,
/// traffic class.
const CONTROL: usize = 512;

/// ICMP type Destination Unreachable (RFC 792).
const ICMP_UNREACHABLE: u8 = 3;
/// Its code for a closed port (RFC 792).
const ICMP_PORT_UNREACHABLE: u8 = 3;
/// ICMPv6 type Destination Unreachable (RFC 4443 §3.1).
const ICMPV6_UNREACHABLE: u8 = 1;
/// Its code for a closed port (RFC 4443 §3.1).
const ICMPV6_PORT_UNREACHABLE: u8 = 4;

impl Socket {
    /// Takes some of the pending ICMP errors: the rest makes `poll` return again.
    pub fn take_errors(&mut self, tell: &mut dyn FnMut(&Unreachable<'_>)) {
        let mut quoted = [0; QUOTED];
        let mut control = vec![0; CONTROL];
        for _ in 0..BATCH {
            let mut slices = [IoSliceMut::new(&mut quoted)];
            let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
            let fd = self.socket.as_raw_fd();
            let Ok(message) =
                recvmsg::<SockaddrStorage>(fd, &mut slices, Some(&mut control), flags)
            else {
                return;
            };
            let length = message.bytes.min(QUOTED);
            let remote = message.address.as_ref().and_then(address);
            let error = message
                .cmsgs()
                .ok()
                .and_then(|mut all| all.find_map(|m| icmp(&m)));
            let (Some(remote), Some(error)) = (remote, error) else {
                // from this host itself: a probe longer than the interface's MTU
                continue;
            };
            self.drops.count(DropReason::UdpIcmpError);
            if error.is_unreachable {
                tell(&Unreachable {
                    remote,
                    is_refusal: error.is_port && error.from.ip() == remote.ip(),
                    quoted: &quoted[..length],
                });
            }
        }
    }
}

/// An ICMP error with its sender.
struct Icmp {
    is_unreachable: bool,
    is_port: bool,
    from: SocketAddr,
}

fn icmp(message: &ControlMessageOwned) -> Option<Icmp> {
    let (error, from) = match message {
        ControlMessageOwned::Ipv4RecvErr(error, from) => {
            (error, SocketAddr::V4(SockaddrIn::from((*from)?).into()))
        }
        ControlMessageOwned::Ipv6RecvErr(error, from) => {
            (error, SocketAddr::V6(SockaddrIn6::from((*from)?).into()))
        }
        _ => return None,
    };
    let (unreachable, port) = match error.ee_origin {
        libc::SO_EE_ORIGIN_ICMP => (ICMP_UNREACHABLE, ICMP_PORT_UNREACHABLE),
        libc::SO_EE_ORIGIN_ICMP6 => (ICMPV6_UNREACHABLE, ICMPV6_PORT_UNREACHABLE),
        _ => return None,
    };
    let is_unreachable = error.ee_type == unreachable && error.ee_errno != libc::EMSGSIZE as u32;
    Some(Icmp {
        is_unreachable,
        is_port: is_unreachable && error.ee_code == port,
        from: plain(from),
    })
}

/// Returns the sender's address; IPv4 as plain IPv4.
fn address(from: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = || Some(SocketAddr::V4((*from.as_sockaddr_in()?).into()));
    let v6 = || Some(SocketAddr::V6((*from.as_sockaddr_in6()?).into()));
    v4().or_else(v6).map(plain)
}
