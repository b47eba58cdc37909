//! Packets for unit tests.

use std::net::Ipv6Addr;

#[path = "../tests/common/services.rs"]
mod services;

pub use services::*;

/// An IPv6 packet with hop limit 1.
pub fn packet_with(source: Ipv6Addr, to: Ipv6Addr, next_header: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next_header, 1]);
    packet.extend(source.octets());
    packet.extend(to.octets());
    packet.extend(payload);
    packet
}

/// A UDP datagram with an arbitrary checksum.
pub fn udp_packet(source: Ipv6Addr, to: Ipv6Addr, data: &[u8]) -> Vec<u8> {
    let mut udp = vec![0x12, 0x34, 0x12, 0x34];
    udp.extend((data.len() as u16 + 8).to_be_bytes());
    udp.extend([0xab, 0xcd]);
    udp.extend(data);
    packet_with(source, to, 17, &udp)
}

/// Any time; the only clock of the tests.
#[expect(clippy::disallowed_methods, reason = "virtual time needs a beginning")]
pub fn start() -> librecast::time::Instant {
    librecast::time::Instant::now()
}
