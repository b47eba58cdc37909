//! Nodes, packets and MLD messages for the tests of the whole engine.

#![allow(dead_code, reason = "each test program takes what it needs")]

use std::net::Ipv6Addr;
use std::time::Instant;

use lcroute_engine::{Config, Limits, Neighbor};
use librecast::cert::GroupPrefix;
use librecast::id::{NodeAddresses, OriginId};
use librecast::mld::{self, Record, RecordType};

/// What the kernel's reports come from.
pub const KERNEL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xbeef);

/// Any moment; the only clock that tests look at.
#[expect(clippy::disallowed_methods, reason = "virtual time needs a beginning")]
pub fn start() -> Instant {
    Instant::now()
}

pub fn addresses(n: u16) -> NodeAddresses {
    NodeAddresses {
        address: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 1, n),
        link_local: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 1, n),
        origin: OriginId(0x1_0000 + u64::from(n)),
    }
}

pub fn config(n: u16) -> Config {
    Config {
        own: addresses(n),
        incarnation: 1,
        mtu: 1280,
        link_scope_groups: vec![MDNS],
        may_send: vec![GroupPrefix::ALL],
        seed: 0xfeed + u64::from(n),
        limits: Limits::default(),
    }
}

pub fn neighbor(n: u16) -> Neighbor {
    let NodeAddresses {
        address,
        link_local,
        origin,
    } = addresses(n);
    Neighbor {
        origin,
        address,
        link_local,
        may_send: vec![GroupPrefix::ALL],
    }
}

pub const MDNS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);

pub fn group(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, n)
}

/// A UDP datagram with hop limit 1, as most programs send it.
pub fn udp(source: Ipv6Addr, to: Ipv6Addr, data: &[u8]) -> Vec<u8> {
    let len = data.len() as u16 + 8;
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(len.to_be_bytes());
    packet.extend([17, 1]);
    packet.extend(source.octets());
    packet.extend(to.octets());
    packet.extend([0x37, 0xa4, 0x37, 0xa4]);
    packet.extend(len.to_be_bytes());
    packet.extend([0xab, 0xcd]);
    packet.extend(data);
    packet
}

pub fn report(kind: RecordType, group: Ipv6Addr, sources: &[Ipv6Addr]) -> Vec<u8> {
    let record = Record::new(kind, group, sources.to_vec());
    mld::report_packets(KERNEL, &[record], 1280).remove(0)
}

pub fn join(group: Ipv6Addr) -> Vec<u8> {
    report(RecordType::ChangeToExclude, group, &[])
}

pub fn leave(group: Ipv6Addr) -> Vec<u8> {
    report(RecordType::ChangeToInclude, group, &[])
}
