//! Sockets that hear one group on lcroute's interface.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use tokio::net::UdpSocket;

/// Opens a socket that has joined a group on the interface.
pub fn hear(interface: &str, group: SocketAddr) -> anyhow::Result<UdpSocket> {
    let index = nix::net::if_::if_nametoindex(interface)?;
    let socket = Socket::new(Domain::for_address(group), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    // excludes datagrams to other groups of this port
    match group.ip() {
        IpAddr::V6(address) => {
            let at = SocketAddrV6::new(address, group.port(), 0, index);
            socket.bind(&SocketAddr::from(at).into())?;
            socket.join_multicast_v6(&address, index)?;
        }
        IpAddr::V4(address) => {
            socket.bind(&group.into())?;
            socket.join_multicast_v4_n(&address, &InterfaceIndexOrAddress::Index(index))?;
        }
    }
    Ok(UdpSocket::from_std(socket.into())?)
}

/// Receives a datagram; waits for ever without a socket, or after an error.
pub async fn receive(socket: Option<&UdpSocket>, buffer: &mut [u8]) -> Option<(Ipv6Addr, usize)> {
    let Some(socket) = socket else {
        return std::future::pending().await;
    };
    match socket.recv_from(buffer).await {
        Ok((len, from)) => match from.ip() {
            IpAddr::V6(from) => Some((from, len)),
            IpAddr::V4(_) => None,
        },
        // probably the interface has gone, which the daemon reports
        Err(_) => std::future::pending().await,
    }
}
