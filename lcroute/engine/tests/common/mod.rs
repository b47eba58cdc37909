//! Nodes, packets and MLD messages for the tests of the whole engine.

#![allow(dead_code, reason = "each test program takes what it needs")]

pub mod services;

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Instant;

use lcroute_engine::header::{DataHeader, HOP_LIMIT, Payload};
use lcroute_engine::topology::TopologyConfig;
use lcroute_engine::{
    CarrySettings, Config, Engine, LanSettings, Limits, Neighbor, Output, Services,
};
use librecast::cert::{GroupPrefix, Member};
use librecast::ethernet::MacAddress;
use librecast::id::{LinkId, NodeAddresses, OriginId};
use librecast::mld::{self, Record, RecordType};

pub use services::*;

/// Source of the kernel's reports.
pub const KERNEL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xbeef);

/// Any time; the only clock of the tests.
#[allow(
    clippy::disallowed_methods,
    reason = "virtual time needs a beginning; benches may read clocks"
)]
pub fn start() -> Instant {
    Instant::now()
}

pub fn addresses(n: u16) -> NodeAddresses {
    member(n).addresses
}

/// Node `n` with full rights.
pub fn member(n: u16) -> Member {
    static MEMBERS: LazyLock<Mutex<BTreeMap<u16, Member>>> = LazyLock::new(Mutex::default);
    let mut members = MEMBERS.lock().unwrap();
    let make = || {
        let services = TestServices::new(n);
        let credential = services.verify_chain(&services.chain()).unwrap();
        credential.member.clone()
    };
    members.entry(n).or_insert_with(make).clone()
}

pub fn services(n: u16) -> Arc<TestServices> {
    Arc::new(TestServices::new(n))
}

/// A node with less than full rights: its services and configuration.
pub fn restricted(n: u16, rights: &Rights) -> (Arc<TestServices>, Config) {
    let services = Arc::new(TestServices::with(n, rights));
    let credential = services.verify_chain(&services.chain()).unwrap();
    let config = Config {
        member: credential.member.clone(),
        chain: services.chain(),
        ..config(n)
    };
    (services, config)
}

pub fn engine(config: Config, now: Instant) -> Engine {
    let n = number(config.member.addresses.origin);
    Engine::new(config, services(n), now)
}

/// Runs a router with its neighbours on links 2, 3, ...; for them it is on link 1.
pub fn exchange(engine: &mut Engine, others: &mut [Engine], now: Instant) {
    for engine in others.iter_mut().chain([&mut *engine]) {
        if engine.next_timeout().is_some_and(|(at, _)| at <= now) {
            engine.handle_timeout(now);
        }
    }
    for (link, other) in (2..).map(LinkId).zip(others.iter_mut()) {
        while let Some(output) = other.poll_output() {
            if let Output::Control { message, .. } = output {
                engine.handle_control(link, &message, now);
            }
        }
    }
    while let Some(output) = engine.poll_output() {
        if let Output::Control { link, message } = output {
            others[link.0 as usize - 2].handle_control(LinkId(1), &message, now);
        }
    }
}

/// The number of a node.
pub fn number(origin: OriginId) -> u16 {
    let mut all = 1..;
    all.find(|n| addresses(*n).origin == origin).unwrap()
}

pub fn config(n: u16) -> Config {
    Config {
        member: member(n),
        incarnation: 1,
        mtu: 1280,
        link_scope_groups: vec![MDNS],
        chain: services(n).chain(),
        can_issue: false,
        transits: true,
        announce: Vec::new(),
        watch: Vec::new(),
        unicast: false,
        ipv4: None,
        private: Vec::new(),
        carry: CarrySettings::default(),
        topology: TopologyConfig::default(),
        seed: 0xfeed + u64::from(n),
        limits: Limits::default(),
    }
}

/// The header of a packet that a node sends on its own tree in its first run.
pub fn header(origin: OriginId, sequence: u64) -> DataHeader {
    DataHeader {
        payload: Payload::Ipv6,
        flags: 0,
        hop_limit: HOP_LIMIT,
        root: origin,
        origin,
        incarnation: 1,
        sequence,
    }
}

/// Settings of a LAN without addresses, for all groups in both directions.
pub fn lan_settings(lan: usize, mac: MacAddress, link_local: Ipv6Addr) -> LanSettings {
    LanSettings {
        name: format!("lan{lan}"),
        groups: vec![GroupPrefix::ALL],
        send: true,
        receive: true,
        prefixes: Vec::new(),
        mac,
        link_local,
        ipv4: None,
        mtu: 1_500,
        rate: 100_000_000,
        rate_out: 100_000_000,
        priority: 0,
        reflect_mdns: false,
        advertise: false,
        segment: None,
    }
}

pub fn neighbor(n: u16) -> Neighbor {
    Neighbor { member: member(n) }
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
