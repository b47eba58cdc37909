//! The sockets of `mdns-sd`, which tell the interface of each datagram.
//!
//! With the published crate a socket of IPv6 takes the port of IPv4, too. So where another program
//! has that port for itself, as avahi can, `mdns-sd` would get none for IPv6 either.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ops::Deref;
use std::os::fd::AsRawFd;

use nix::libc;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};

/// A UDP socket that tells where each datagram came in.
#[derive(Debug)]
pub struct PktInfoUdpSocket {
    socket: Socket,
    domain: Domain,
}

/// The way of a datagram.
#[derive(Debug, Clone)]
pub struct PktInfo {
    /// Index of the interface.
    pub if_index: u64,
    /// The sender.
    pub addr_src: SocketAddr,
    /// The address to which it was sent.
    pub addr_dst: IpAddr,
}

impl PktInfoUdpSocket {
    /// Opens a socket of one family.
    ///
    /// # Errors
    /// The system's.
    pub fn new(domain: Domain) -> io::Result<Self> {
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        match domain {
            Domain::IPV4 => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?,
            _ => {
                socket.set_only_v6(true)?;
                setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
            }
        }
        Ok(Self { socket, domain })
    }

    /// Returns its family.
    #[must_use]
    pub fn domain(&self) -> Domain {
        self.domain
    }

    /// Receives a datagram; what `buffer` does not hold of it is lost.
    ///
    /// # Errors
    /// The system's; the datagram does not tell its way.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<(usize, PktInfo)> {
        let mut parts = [IoSliceMut::new(buffer)];
        let mut control = nix::cmsg_space!(libc::in6_pktinfo);
        let (fd, flags) = (self.socket.as_raw_fd(), MsgFlags::empty());
        let message = recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut control), flags)?;
        let mut way = None;
        for item in message.cmsgs()? {
            match item {
                ControlMessageOwned::Ipv4PacketInfo(info) => {
                    let to = Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr));
                    way = Some((i64::from(info.ipi_ifindex), IpAddr::from(to)));
                }
                ControlMessageOwned::Ipv6PacketInfo(info) => {
                    let to = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                    way = Some((i64::from(info.ipi6_ifindex), IpAddr::from(to)));
                }
                _ => {}
            }
        }
        let lacks = |what| io::Error::new(io::ErrorKind::NotFound, what);
        let (index, addr_dst) = way.ok_or_else(|| lacks("no interface of a datagram"))?;
        let source = message.address.as_ref().and_then(address_of);
        let info = PktInfo {
            if_index: u64::try_from(index).unwrap_or_default(),
            addr_src: source.ok_or_else(|| lacks("no sender of a datagram"))?,
            addr_dst,
        };
        Ok((message.bytes, info))
    }

    /// Returns another handle of the same socket.
    ///
    /// # Errors
    /// The system's.
    pub fn try_clone_std(&self) -> io::Result<std::net::UdpSocket> {
        Ok(self.socket.try_clone()?.into())
    }
}

/// Its options are those of any socket.
impl Deref for PktInfoUdpSocket {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        &self.socket
    }
}

fn address_of(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddrV4::from(*v4));
    let v6 = address.as_sockaddr_in6().map(|v6| SocketAddrV6::from(*v6));
    v4.map(SocketAddr::V4).or(v6.map(SocketAddr::V6))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_of_ipv6_needs_no_port_of_ipv4() {
        let alone = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = alone.local_addr().unwrap().port();
        let socket = PktInfoUdpSocket::new(Domain::IPV6).unwrap();
        socket.set_reuse_address(true).unwrap();
        let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
        socket.bind(&any.into()).unwrap();
        let other = PktInfoUdpSocket::new(Domain::IPV4).unwrap();
        let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
        assert!(other.bind(&any.into()).is_err());
    }

    #[test]
    fn a_datagram_tells_its_way() {
        for (domain, at) in [(Domain::IPV4, "127.0.0.1:0"), (Domain::IPV6, "[::1]:0")] {
            let socket = PktInfoUdpSocket::new(domain).unwrap();
            let at: SocketAddr = at.parse().unwrap();
            socket.bind(&at.into()).unwrap();
            let to = socket.local_addr().unwrap().as_socket().unwrap();
            let sender = std::net::UdpSocket::bind(at).unwrap();
            sender.send_to(b"hello", to).unwrap();
            let (length, info) = socket.recv(&mut [0; 9]).unwrap();
            assert_eq!((length, info.addr_dst), (5, at.ip()));
            assert_eq!(info.addr_src, sender.local_addr().unwrap());
            assert!(info.if_index > 0);
        }
    }
}
