//! A socket for observers.

use std::io;

use librecast::packet;
use nix::libc;
use socket2::{Domain, Protocol, Socket, Type};

/// Opens a socket for frames of one interface and one protocol (`ETH_P_ALL`: outgoing ones too).
pub fn sniffer(interface: u32, protocol: libc::c_int) -> io::Result<Socket> {
    let wanted = Protocol::from(i32::from((protocol as u16).to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(wanted))?;
    packet::bind_protocol(&socket, Some(interface), protocol)?;
    Ok(socket)
}
