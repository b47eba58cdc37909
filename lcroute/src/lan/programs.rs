//! The gateway's own programs in a segment.
//!
//! ```text
//! program -> kernel -> interface -> wire  the kernel shows each outgoing frame to a packet socket
//! program <- kernel <- interface <- tap   a filter makes the frames of a tap arrive here
//! ```
//! The interface itself stays as it is. The tap lasts as long as its descriptor, and its filter
//! with it.

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::net::Ipv4Addr;

use lcroute_node::SegmentFrame;
use librecast::checksum::Sum;
use librecast::ethernet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, MacAddress};
use librecast::ipv4;
use librecast::packet;
use nix::libc;
use socket2::{Socket, Type};

use super::frame::{self, PACKETS_BUFFER};
use crate::netlink;
use crate::tun::{self, TAP_HEADERS};

/// Name of taps; the kernel adds a number.
const NAME: &str = "lcseg%d";

/// IGMP type of a query (RFC 9776 §4.1).
const IGMP_QUERY: u8 = 0x11;
/// Offset of the source in an IPv4 header (RFC 791 §3.1).
const IPV4_SOURCE: usize = 12;
/// Offset of the checksum in an IPv4 header.
const IPV4_CHECKSUM: usize = 10;

/// The ways to and from this host's own programs.
#[derive(Debug)]
pub struct Programs {
    tap: File,
    /// Frames that leave by the interface.
    pub outgoing: Socket,
    own: MacAddress,
}

impl Programs {
    /// Opens both ways at an interface with this Ethernet address. The error names what is missing.
    pub fn open(interface: u32, own: MacAddress) -> Result<Self, String> {
        let refused = |(what, e): (&str, io::Error)| match e.raw_os_error() {
            Some(libc::ENOENT | libc::EOPNOTSUPP) => format!("this kernel has no {what}: {e}"),
            _ => format!("{what}: {e}"),
        };
        let outgoing = || -> io::Result<Socket> {
            let filter = frame::outgoing_filter(None, own);
            let socket = packet::open(Type::RAW, &filter, PACKETS_BUFFER)?;
            packet::set_offload_header(&socket)?;
            packet::bind_protocol(&socket, Some(interface), libc::ETH_P_ALL)?;
            Ok(socket)
        };
        let outgoing = outgoing().map_err(|e| refused(("a packet socket", e)))?;
        let (tap, name) = tun::open_tap(NAME).map_err(|e| format!("a tap: {e}"))?;
        netlink::redirect(&name, own, interface, tun::ALIAS).map_err(refused)?;
        Ok(Self { tap, outgoing, own })
    }

    /// Reads frames for this virtual address, for groups and for all; none: reads nothing.
    pub fn set_virtual_mac(&self, mac: Option<MacAddress>) -> io::Result<()> {
        let filter = frame::outgoing_filter(mac, self.own);
        self.outgoing.attach_filter(&filter)
    }

    /// Gives the kernel a frame, as if it came from the wire.
    pub fn deliver(&self, to: MacAddress, ethertype: u16, packet: &[u8]) -> io::Result<()> {
        // from its own address: lcroute's sockets on the interface leave such frames out
        let ethernet = frame::ethernet(to, self.own, ethertype);
        let parts = [&[0; TAP_HEADERS][..], &ethernet, packet].map(IoSlice::new);
        (&self.tap).write_vectored(&parts).map(drop)
    }

    /// Whether this host takes in a frame for a LAN, as its address is its own or of a group.
    pub fn takes(&self, frame: &SegmentFrame) -> bool {
        let to = frame.destination;
        to == self.own || to.is_group() && frame.source != self.own
    }

    /// Asks this host, too, which groups its programs have joined.
    pub fn ask(&self, packet: &[u8]) -> io::Result<()> {
        let Some(to) = frame::group(packet) else {
            return Ok(());
        };
        match frame::is_ipv4(packet) {
            true => match igmp_query(packet) {
                Some(query) => self.deliver(to, ETHERTYPE_IPV4, &query),
                None => Ok(()),
            },
            false if frame::is_mld_query(packet) => self.deliver(to, ETHERTYPE_IPV6, packet),
            false => Ok(()),
        }
    }
}

/// An IGMP query from nobody: the kernel takes in no IPv4 packet from its own address.
fn igmp_query(packet: &[u8]) -> Option<Vec<u8>> {
    let header = ipv4::Header::read(packet).ok()?;
    let is_query = header.protocol == ipv4::IGMP && header.payload.first() == Some(&IGMP_QUERY);
    let length = packet.len().checked_sub(header.payload.len())?;
    let mut query = packet.to_vec();
    let head = query.get_mut(..length).filter(|_| is_query)?;
    head.get_mut(IPV4_SOURCE..IPV4_SOURCE + 4)?
        .copy_from_slice(&Ipv4Addr::UNSPECIFIED.octets());
    head.get_mut(IPV4_CHECKSUM..IPV4_CHECKSUM + 2)?.fill(0);
    let sum = !Sum::default().bytes(head).fold();
    head[IPV4_CHECKSUM..IPV4_CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
    Some(query)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_for_the_own_kernel_is_the_same_from_nobody() {
        let own = Ipv4Addr::new(192, 168, 1, 10);
        let envelope = ipv4::Envelope {
            source: own,
            destination: Ipv4Addr::new(224, 0, 0, 1),
            protocol: ipv4::IGMP,
            ttl: 1,
        };
        // a general query of version 3, and a report of version 2
        let query = [0x11, 100, 0xec, 0x11, 0, 0, 0, 0, 2, 125, 0, 0];
        let packet = ipv4::packet(&envelope, &query);
        let asked = igmp_query(&packet).unwrap();
        let header = ipv4::Header::read(&asked).unwrap();
        assert_eq!(header.source, Ipv4Addr::UNSPECIFIED);
        assert_eq!(header.payload, query);
        assert_eq!(asked[..10], packet[..10]);
        assert_eq!(Sum::default().bytes(&asked[..20]).fold(), 0xffff);
        let report = ipv4::packet(&envelope, &[0x16, 0, 0, 0, 224, 0, 23, 12]);
        assert_eq!(igmp_query(&report), None);
        assert_eq!(igmp_query(&[]), None);
    }
}
