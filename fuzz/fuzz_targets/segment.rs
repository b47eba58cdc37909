//! Two LANs of one segment: frames of hosts, and packets and messages of the other gateway.
#![no_main]

#[path = "../../lcroute/engine/tests/common/mod.rs"]
mod common;

use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::Rights;
use lcroute_engine::header::DataHeader;
use lcroute_engine::{
    Engine, LanFrame, LanIpv4, LanSettings, LocalInterfaceId, Neighbor, Output, SegmentFrame,
    SegmentSettings,
};
use lcroute_fuzz::pieces;
use libfuzzer_sys::fuzz_target;
use librecast::cert::SourcePrefix;
use librecast::ethernet::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, MacAddress};
use librecast::id::{LinkId, NodeAddresses};

const LAN: LocalInterfaceId = LocalInterfaceId(1);
const LINK: LinkId = LinkId(1);
/// Offset of the segment's number in a packet of a gateway.
const SEGMENT_AT: usize = 40;
/// Bytes of the segment's number.
const SEGMENT_LEN: usize = 12;

fn mac(n: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0, n])
}

fn settings(n: u8) -> LanSettings {
    LanSettings {
        prefixes: vec!["2001:db8::/64".parse().unwrap()],
        ipv4: Some(LanIpv4 {
            address: [192, 168, 1, n].into(),
            prefixes: vec![([192, 168, 1, n].into(), 24)],
        }),
        rate: 1_000_000,
        rate_out: 1_000_000,
        segment: Some(SegmentSettings {
            name: "home".into(),
            broadcast: 1_000_000,
            router: None,
            default_routers: Vec::new(),
            hosts: Vec::new(),
            programs: None,
        }),
        ..common::lan_settings(0, mac(n), [0xfe80, 0, 0, 0, 0, 0, 0, n.into()].into())
    }
}

/// The gateways of both LANs.
struct Gateways {
    engines: [Engine; 2],
    addresses: [NodeAddresses; 2],
    /// A packet of the second gateway for all, as it sent it.
    example: Option<Bytes>,
    sequence: u64,
    now: Instant,
}

impl Gateways {
    fn new() -> Self {
        let now = Instant::now();
        let rights = Rights {
            gateway: vec![SourcePrefix::ANY],
            segment: Some("home".into()),
            ..Rights::default()
        };
        let engine = |n: u8| {
            let (services, config) = common::restricted(n.into(), &rights);
            let member = config.member.clone();
            let mut engine = Engine::new(config, services, now);
            engine.handle_start(now);
            engine.set_lan(LAN, settings(n), now);
            (engine, member)
        };
        let [(mut first, of_first), (mut second, of_second)] = [1, 2].map(engine);
        let addresses = [of_first.addresses, of_second.addresses];
        for (engine, member) in [(&mut first, of_second), (&mut second, of_first)] {
            engine.handle_link_up(LINK, Neighbor { member }, now);
        }
        let mut gateways = Self {
            engines: [first, second],
            addresses,
            example: None,
            sequence: 1 << 20,
            now,
        };
        for _ in 0..40 {
            gateways.pass(Duration::from_millis(100));
        }
        // a host of the second LAN appears
        let arp = [
            &[0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 99, 192, 168, 1, 99][..],
            &[0, 0, 0, 0, 0, 0, 192, 168, 1, 99],
        ];
        gateways.frame(1, (mac(99), MacAddress::BROADCAST), ETHERTYPE_ARP, &arp.concat());
        gateways.pass(Duration::from_millis(100));
        assert!(gateways.example.is_some(), "both LANs are one");
        gateways
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        for n in 0..2 {
            let engine = &mut self.engines[n];
            if engine.next_timeout().is_some_and(|(at, _)| at <= self.now) {
                engine.handle_timeout(self.now);
            }
            self.settle(n);
        }
    }

    fn settle(&mut self, n: usize) {
        let mut told = 0;
        while let Some(output) = self.engines[n].poll_output() {
            told += 1;
            assert!(told < 10_000, "it says no end of things: {output:?}");
            let (other, now) = (1 - n, self.now);
            match output {
                Output::Control { message, .. } => {
                    self.engines[other].handle_control(LINK, &message, now);
                }
                Output::Data { header, packet, .. } => {
                    if n == 1 {
                        self.example.get_or_insert(packet.clone());
                    }
                    self.engines[other].handle_packet(LINK, &header, packet, now);
                }
                Output::Lan {
                    frame: LanFrame::Ethernet { from, payload, .. },
                    ..
                } => {
                    assert!(from.is_virtual() || from == mac(n as u8 + 1));
                    assert!(payload.len() <= 1_500);
                }
                _ => {}
            }
        }
    }

    fn frame(&mut self, n: usize, ends: (MacAddress, MacAddress), ethertype: u16, bytes: &[u8]) {
        let frame = SegmentFrame {
            source: ends.0,
            destination: ends.1,
            ethertype,
            payload: Bytes::copy_from_slice(bytes),
        };
        self.engines[n].handle_segment_frame(LAN, frame, self.now);
        self.settle(n);
    }

    /// The second gateway sends this to the first, or to all.
    fn inner(&mut self, to_all: bool, inner: &[u8]) {
        let Some(example) = self.example.clone() else {
            return;
        };
        let mut packet = example[..SEGMENT_AT + SEGMENT_LEN].to_vec();
        packet.extend(inner);
        packet[4..6].copy_from_slice(&((SEGMENT_LEN + inner.len()) as u16).to_be_bytes());
        let [first, second] = self.addresses;
        let mut root = second.origin;
        if !to_all {
            root = first.origin;
            packet[24..40].copy_from_slice(&Ipv6Addr::octets(&first.address));
        }
        self.sequence += 1;
        let header = DataHeader {
            root,
            ..common::header(second.origin, self.sequence)
        };
        self.engines[0].handle_packet(LINK, &header.encode(), packet.into(), self.now);
        self.settle(0);
    }
}

fuzz_target!(init: lcroute_fuzz::seeds::write("segment"), |data: &[u8]| {
    let mut gateways = Gateways::new();
    for piece in pieces(data).take(32) {
        let Some(([what, from, wait], bytes)) = piece.split_first_chunk() else {
            continue;
        };
        gateways.pass(Duration::from_millis(u64::from(*wait) * 3));
        let from = mac(*from);
        let to = gateways.engines[0].virtual_mac(LAN).unwrap_or_default();
        let all = MacAddress::BROADCAST;
        match what % 6 {
            0 => gateways.frame(0, (from, all), ETHERTYPE_ARP, bytes),
            1 => gateways.frame(0, (from, to), ETHERTYPE_IPV4, bytes),
            2 => gateways.frame(0, (from, to), ETHERTYPE_IPV6, bytes),
            3 => gateways.frame(0, (from, all), ETHERTYPE_IPV4, bytes),
            4 => gateways.inner(false, bytes),
            _ => gateways.inner(true, bytes),
        }
    }
});
