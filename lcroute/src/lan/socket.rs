//! The packet sockets of one LAN.

use std::io::{self, IoSlice, Read};
use std::os::fd::{AsFd, BorrowedFd};

use bytes::Bytes;
use librecast::ethernet::MacAddress;
use librecast::packet;
use socket2::{Socket, Type};

use super::frame::{self, ETHERNET_LEN, Wanted};
use crate::tun::offload::{OFFLOAD_LEN, Offload};

/// What stands before a packet.
const HEAD: usize = OFFLOAD_LEN + ETHERNET_LEN;
/// The kernel gives datagrams of a flow as one of up to 64 KiB.
const LONGEST: usize = HEAD + 65_575;
/// Some 20 ms at 1 Gbit/s.
const PACKETS_BUFFER: usize = 4 << 20;
/// Reports of some 10,000 joins at once.
const CONTROL_BUFFER: usize = 4 << 20;

/// Both sockets of an interface: packets in and out, MLD and PROBEs in.
#[derive(Debug)]
pub struct LanSocket {
    packets: Socket,
    control: Socket,
    own: MacAddress,
    buffer: Vec<u8>,
}

impl LanSocket {
    /// Opens both on an interface with this Ethernet address; needs CAP_NET_RAW.
    pub fn open(interface: u32, own: MacAddress) -> io::Result<Self> {
        let open = |wanted, buffer| -> io::Result<Socket> {
            let socket = packet::open(Type::RAW, &frame::filter(wanted, own), buffer)?;
            packet::set_offload_header(&socket)?;
            packet::bind(&socket, Some(interface))?;
            Ok(socket)
        };
        let packets = open(Wanted::Packets, PACKETS_BUFFER)?;
        let control = open(Wanted::Control, CONTROL_BUFFER)?;
        packet::set_all_multicast(&packets, interface, true)?;
        Ok(Self {
            packets,
            control,
            own,
            buffer: vec![0; LONGEST],
        })
    }

    /// Descriptors for packets and for the rest.
    pub fn fds(&self) -> [BorrowedFd<'_>; 2] {
        [self.packets.as_fd(), self.control.as_fd()]
    }

    /// One frame of packets, with its sender; false: there is none now. A frame may hold several packets.
    pub fn read_packets(&mut self, each: &mut dyn FnMut(MacAddress, Bytes)) -> io::Result<bool> {
        read(&self.packets, &mut self.buffer, each)
    }

    /// The same for MLD and PROBEs.
    pub fn read_control(&mut self, each: &mut dyn FnMut(MacAddress, Bytes)) -> io::Result<bool> {
        read(&self.control, &mut self.buffer, each)
    }

    /// A packet for a group leaves with hop limit 1.
    pub fn inject(&mut self, packet: &Bytes) -> io::Result<()> {
        let mut packet = packet.to_vec();
        frame::set_hop_limit(&mut packet, 1);
        self.send_to_group(&packet)
    }

    /// A packet for a group leaves as it is.
    pub fn send_to_group(&self, packet: &[u8]) -> io::Result<()> {
        let group = frame::group(packet).filter(std::net::Ipv6Addr::is_multicast);
        let group = group.ok_or(io::ErrorKind::InvalidInput)?;
        self.send(MacAddress::of_group(group), packet)
    }

    /// A packet for one host leaves as it is.
    pub fn send(&self, to: MacAddress, packet: &[u8]) -> io::Result<()> {
        let ethernet = frame::ethernet(to, self.own);
        let parts = [
            IoSlice::new(&[0; OFFLOAD_LEN]),
            IoSlice::new(&ethernet),
            IoSlice::new(packet),
        ];
        self.packets.send_vectored(&parts).map(drop)
    }
}

fn read(
    mut socket: &Socket,
    buffer: &mut [u8],
    each: &mut dyn FnMut(MacAddress, Bytes),
) -> io::Result<bool> {
    let length = match socket.read(buffer) {
        Ok(length) => length,
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
            ) =>
        {
            return Ok(false);
        }
        Err(e) => return Err(e),
    };
    let frame = buffer.get_mut(..length).unwrap_or_default();
    let Some((head, packet)) = frame.split_at_mut_checked(HEAD) else {
        return Ok(true);
    };
    let (Some(offload), Some(from)) = (
        head.first_chunk::<OFFLOAD_LEN>(),
        frame::sender(&head[OFFLOAD_LEN..]),
    ) else {
        return Ok(true);
    };
    if let Ok(offload) = Offload::decode(*offload, ETHERNET_LEN as u16) {
        // what does not fit its header is dropped
        let _ = offload.unpack(packet, &mut |parts| each(from, parts.concat().into()));
    }
    Ok(true)
}
