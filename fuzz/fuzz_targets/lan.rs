//! Input of LAN hosts to one of two gateways: packets, mDNS, reports, invented or recorded PROBEs.
#![no_main]

#[path = "../../lcroute/engine/tests/common/mod.rs"]
mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use common::Rights;
use lcroute_engine::{Engine, LanFrame, LanIpv4, LanRole, LanSettings, Limits, LocalInterfaceId, Neighbor, Output};
use lcroute_fuzz::pieces;
use libfuzzer_sys::fuzz_target;
use librecast::cert::{GroupPrefix, SourcePrefix};
use librecast::ethernet::MacAddress;
use librecast::id::LinkId;
use librecast::ipv6::{Datagram, udp_packet};

const LAN: LocalInterfaceId = LocalInterfaceId(1);
const LINK: LinkId = LinkId(1);

fn mac(n: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0, n])
}

fn settings(n: u8) -> LanSettings {
    let mut groups = GroupPrefix::all_of("224.0.0.0/4").unwrap();
    groups.push(GroupPrefix::ALL);
    LanSettings {
        groups,
        prefixes: vec!["2001:db8::/64".parse().unwrap()],
        ipv4: Some(LanIpv4 {
            address: [192, 168, 1, n].into(),
            prefixes: vec![([192, 168, 1, n].into(), 24)],
        }),
        rate: 1_000_000,
        rate_out: 1_000_000,
        priority: 2 - n,
        reflect_mdns: true,
        advertise: true,
        ..common::lan_settings(0, mac(n), [0xfe80, 0, 0, 0, 0, 0, 0, n.into()].into())
    }
}

/// Gateway 1, which serves, and gateway 2.
struct Gateways {
    engines: [Engine; 2],
    recorded: Vec<Bytes>,
    now: Instant,
}

impl Gateways {
    fn new() -> Self {
        let now = Instant::now();
        let rights = Rights {
            gateway: vec![SourcePrefix::ANY],
            ..Rights::default()
        };
        let engine = |n: u8| {
            let (services, mut config) = common::restricted(n.into(), &rights);
            config.limits = Limits {
                groups: 20,
                flows: 10,
                ..Limits::default()
            };
            config.ipv4 = Some(lcroute_engine::Ipv4Config {
                network: "10.77.0.0/16".parse().unwrap(),
                kept: None,
                assigns: true,
            });
            let member = config.member.clone();
            let mut engine = Engine::new(config, services, now);
            engine.handle_start(now);
            engine.set_lan(LAN, settings(n), now);
            (engine, member)
        };
        let [(mut first, of_first), (mut second, of_second)] = [1, 2].map(engine);
        for (engine, member) in [(&mut first, of_second), (&mut second, of_first)] {
            engine.handle_link_up(LINK, Neighbor { member }, now);
        }
        let mut gateways = Self {
            engines: [first, second],
            recorded: Vec::new(),
            now,
        };
        for _ in 0..25 {
            gateways.pass(Duration::from_millis(100));
        }
        gateways
    }

    /// Advances time, and lets both exchange their PROBEs.
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
                Output::Lan {
                    frame: LanFrame::Probe(probe),
                    ..
                } => {
                    self.engines[other].handle_lan_probe(LAN, mac(1 + n as u8), &probe, now);
                    if n == 1 {
                        self.recorded.push(probe);
                    }
                }
                Output::Lan {
                    frame: LanFrame::Multicast(packet) | LanFrame::Link(packet),
                    ..
                } => {
                    let is_multicast = match packet[0] >> 4 {
                        4 => packet[16] >> 4 == 0xe,
                        version => version == 6 && packet[24] == 0xff,
                    };
                    assert!(is_multicast, "{packet:02x?}");
                }
                _ => {}
            }
        }
    }
}

fuzz_target!(init: lcroute_fuzz::seeds::write("lan"), |data: &[u8]| {
    let _ = Datagram::of_packet(data);
    let mut gateways = Gateways::new();
    for piece in pieces(data).take(32) {
        let Some(([what, from, wait], bytes)) = piece.split_first_chunk() else {
            continue;
        };
        // after a second's pause a gateway listens first
        gateways.pass(Duration::from_millis(u64::from(*wait) * 3));
        let (now, from) = (gateways.now, mac(*from));
        let engine = &mut gateways.engines[0];
        match what % 4 {
            0 => engine.handle_lan_packet(LAN, from, Bytes::copy_from_slice(bytes), now),
            1 => {
                let host = [0xfe80, 0, 0, 0, 0, 0, 0, 9].into();
                let packet = udp_packet(host, common::MDNS, (5_353, 255), bytes);
                engine.handle_lan_packet(LAN, from, packet.into(), now);
            }
            2 => engine.handle_lan_probe(LAN, from, bytes, now),
            // a recorded genuine one, changed or not
            _ => {
                let recorded = if what & 4 == 0 { gateways.recorded.first() } else { gateways.recorded.last() };
                let mut probe = recorded.map(|probe| probe.to_vec()).unwrap_or_default();
                probe.iter_mut().zip(bytes).for_each(|(old, new)| *old ^= new);
                engine.handle_lan_probe(LAN, from, &probe, now);
            }
        }
        gateways.settle(0);
        let role = gateways.engines[0].lans().remove(0).standing.role;
        assert_eq!(role, LanRole::Forwarder, "a host has made it stand by");
    }
});
