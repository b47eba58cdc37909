//! MLD on a raw ICMPv6 socket.
//!
//! The kernel passes MLD reports to raw sockets only if the host has joined ff02::16 on the
//! interface (RFC 9777 §5.2.14). The socket receives only MLD.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::libc;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, sendmsg, setsockopt,
    sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::mld::ALL_MLDV2_ROUTERS;
use crate::received::Received;
use crate::socket_option::{drops_of, enlarge_receive_buffer, lost_since, set_option};

/// Query, MLDv1 report, MLDv1 done, MLDv2 report.
const MLD_TYPES: [u8; 4] = [130, 131, 132, 143];
/// Linux: `ICMPV6_FILTER` (RFC 3542 §3.2); a set bit blocks the type.
const ICMPV6_FILTER: libc::c_int = 1;
/// Router Alert for MLD in a hop-by-hop header (RFC 2711); the kernel fills in the next header.
const ROUTER_ALERT: [u8; 8] = [0, 0, 5, 2, 0, 0, 1, 0];
/// Bytes of the receive buffer: room for reports of 30,000 joins at once.
const RECEIVE_BUFFER: usize = 4 << 20;

/// A raw socket for MLD on many interfaces.
#[derive(Debug)]
pub struct MldSocket {
    socket: Socket,
    control: Vec<u8>,
    /// The kernel's count of messages lost by a full queue, as last seen.
    lost: u32,
}

impl MldSocket {
    /// Opens the socket; needs CAP_NET_RAW.
    pub fn open() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        // nothing passes before the filter is set
        set_option(&socket, libc::IPPROTO_ICMPV6, ICMPV6_FILTER, &mld_filter())?;
        set_option(
            &socket,
            libc::IPPROTO_IPV6,
            libc::IPV6_HOPOPTS,
            &ROUTER_ALERT,
        )?;
        socket.set_multicast_hops_v6(1)?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true)?;
        setsockopt(&socket, sockopt::RxqOvfl, &1)?;
        enlarge_receive_buffer(&socket, RECEIVE_BUFFER);
        Ok(Self {
            socket,
            control: nix::cmsg_space!(libc::in6_pktinfo, i32, u32),
            lost: 0,
        })
    }

    /// Starts to receive reports of this interface.
    pub fn watch(&self, interface: u32) -> io::Result<()> {
        match self.socket.join_multicast_v6(&ALL_MLDV2_ROUTERS, interface) {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => Ok(()),
            other => other,
        }
    }

    /// Stops receiving reports of this interface. An interface that is gone is not an error.
    pub fn unwatch(&self, interface: u32) {
        let _ = self
            .socket
            .leave_multicast_v6(&ALL_MLDV2_ROUTERS, interface);
    }

    /// Returns the next message, `None` if there is none or the call was interrupted.
    pub fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        let mut parts = [IoSliceMut::new(buffer)];
        let fd = self.socket.as_raw_fd();
        let flags = MsgFlags::MSG_DONTWAIT;
        let message = match recvmsg::<SockaddrIn6>(fd, &mut parts, Some(&mut self.control), flags) {
            Ok(message) => message,
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let mut received = Received {
            length: message.bytes,
            interface: 0,
            source: message.address.map_or(Ipv6Addr::UNSPECIFIED, |a| a.ip()),
            hop_limit: 0,
            lost: 0,
        };
        for control in message.cmsgs()? {
            match control {
                ControlMessageOwned::Ipv6PacketInfo(info) => received.interface = info.ipi6_ifindex,
                ControlMessageOwned::Ipv6HopLimit(hops) => {
                    received.hop_limit = u8::try_from(hops).unwrap_or(u8::MAX);
                }
                ControlMessageOwned::RxqOvfl(total) => {
                    received.lost = lost_since(&mut self.lost, total);
                }
                _ => {}
            }
        }
        Ok(Some(received))
    }

    /// Returns the messages lost since the last report, by this or a message.
    pub fn take_lost(&mut self) -> io::Result<u32> {
        Ok(lost_since(&mut self.lost, drops_of(&self.socket)?))
    }

    /// Sends a query (ICMPv6; the kernel fills in the checksum) with hop limit 1 and Router Alert.
    pub fn send(
        &self,
        interface: u32,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        icmpv6: &[u8],
    ) -> io::Result<()> {
        let info = libc::in6_pktinfo {
            ipi6_addr: libc::in6_addr {
                s6_addr: source.octets(),
            },
            ipi6_ifindex: interface,
        };
        let to = SockaddrIn6::from(SocketAddrV6::new(destination, 0, 0, interface));
        let control = [ControlMessage::Ipv6PacketInfo(&info)];
        let parts = [IoSlice::new(icmpv6)];
        let fd = self.socket.as_raw_fd();
        sendmsg(fd, &parts, &control, MsgFlags::MSG_DONTWAIT, Some(&to))?;
        Ok(())
    }
}

impl AsFd for MldSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Blocks everything but MLD.
fn mld_filter() -> [u32; 8] {
    let mut filter = [u32::MAX; 8];
    for kind in MLD_TYPES {
        filter[usize::from(kind / 32)] &= !(1 << (kind % 32));
    }
    filter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filter_passes_mld_and_nothing_else() {
        let filter = mld_filter();
        let passed: Vec<u8> = (0..=255)
            .filter(|k| filter[usize::from(k / 32)] & (1 << (k % 32)) == 0)
            .collect();
        assert_eq!(passed, MLD_TYPES);
    }
}
