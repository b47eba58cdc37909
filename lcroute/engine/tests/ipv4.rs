//! IPv4 through engines: names inside, dotted addresses and packets unchanged outside.

use crate::common;

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{config, join, neighbor, start, udp};
use lcroute_engine::header::{DataHeader, HEADER_LEN, Payload};
use lcroute_engine::{Config, Engine, Ipv4Config, Output};
use librecast::checksum::Sum;
use librecast::id::LinkId;
use librecast::ipv4::{self, Envelope, Header};
use librecast::mld::{Message, Record, RecordType};
use librecast::{igmp, mapped};

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
const SSM: Ipv4Addr = Ipv4Addr::new(232, 1, 2, 3);

/// Engines in a line: 1 - 2 - 3. All except the given ones carry IPv4 for their hosts.
struct Line {
    engines: Vec<Engine>,
    /// Packets delivered to each host.
    local: Vec<Vec<Bytes>>,
    igmp: Vec<Vec<Message>>,
    now: Instant,
}

/// Links to the lower and the higher neighbour.
const DOWN: LinkId = LinkId(1);
const UP: LinkId = LinkId(2);

impl Line {
    fn new(without: &[u16], unicast: bool) -> Self {
        Self::with((without, &[]), unicast)
    }

    /// The same, with `mute` nodes that carry IPv4 without an address.
    fn with((without, mute): (&[u16], &[u16]), unicast: bool) -> Self {
        let now = start();
        let ipv4 = Ipv4Config {
            network: "10.77.0.0/16".parse().unwrap(),
            kept: None,
            assigns: true,
        };
        let make = |n| {
            let config = Config {
                ipv4: (!without.contains(&n)).then_some(Ipv4Config {
                    assigns: !mute.contains(&n),
                    ..ipv4
                }),
                unicast,
                link_scope_groups: vec![mapped::name(Ipv4Addr::new(224, 0, 0, 251))],
                ..config(n)
            };
            common::engine(config, now)
        };
        let mut line = Self {
            engines: (1..=3).map(make).collect(),
            local: vec![Vec::new(); 3],
            igmp: vec![Vec::new(); 3],
            now,
        };
        for engine in &mut line.engines {
            engine.handle_start(now);
        }
        for n in 1..3u16 {
            line.engine(n).handle_link_up(UP, neighbor(n + 1), now);
            line.engine(n + 1).handle_link_up(DOWN, neighbor(n), now);
        }
        line.after(Duration::from_secs(10));
        line
    }

    fn engine(&mut self, n: u16) -> &mut Engine {
        &mut self.engines[usize::from(n) - 1]
    }

    fn settle(&mut self) {
        let mut wire = VecDeque::new();
        loop {
            for at in 0..3 {
                while let Some(output) = self.engines[at].poll_output() {
                    match output {
                        Output::Local { packet } => self.local[at].push(packet),
                        Output::LocalMld { packet } if packet[0] >> 4 == 4 => {
                            let (source, message) = igmp::parse_packet(&packet).unwrap();
                            assert_eq!(source, mapped::name(Ipv4Addr::new(10, 77, 0, 1)));
                            self.igmp[at].push(message);
                        }
                        Output::Data { .. } | Output::Control { .. } => {
                            wire.push_back((at, output));
                        }
                        _ => {}
                    }
                }
            }
            let Some((from, output)) = wire.pop_front() else {
                return;
            };
            let far = |link| match link {
                UP => (from + 1, DOWN),
                _ => (from - 1, UP),
            };
            let now = self.now;
            match output {
                Output::Control { link, message } => {
                    let (to, link) = far(link);
                    self.engines[to].handle_control(link, &message, now);
                }
                Output::Data {
                    links,
                    header,
                    packet,
                } => {
                    for link in links.iter() {
                        let (to, link) = far(*link);
                        self.engines[to].handle_packet(link, &header, packet.clone(), now);
                    }
                }
                _ => {}
            }
        }
    }

    fn after(&mut self, time: Duration) {
        let end = self.now + time;
        self.settle();
        loop {
            let due = self
                .engines
                .iter()
                .filter_map(Engine::next_timeout)
                .map(|(at, _)| at);
            let Some(at) = due.min().filter(|at| *at <= end) else {
                break;
            };
            self.now = at.max(self.now);
            for engine in &mut self.engines {
                engine.handle_timeout(self.now);
            }
            self.settle();
        }
        self.now = end;
    }

    fn address(&self, n: u16) -> Ipv4Addr {
        let engine = &self.engines[usize::from(n) - 1];
        engine.ipv4_address().unwrap()
    }

    /// The kernel of a host sends an IGMP report.
    fn reports(&mut self, n: u16, kind: RecordType, group: Ipv4Addr, sources: &[Ipv4Addr]) {
        let sources = sources.iter().map(|s| mapped::name(*s)).collect();
        let record = Record::new(kind, mapped::name(group), sources);
        let kernel = self.engines[usize::from(n) - 1].ipv4_address();
        let kernel = kernel.unwrap_or(Ipv4Addr::UNSPECIFIED);
        let packet = igmp::report_packets(kernel, &[record], 1_280).remove(0);
        self.send(n, packet);
    }

    fn send(&mut self, n: u16, packet: Vec<u8>) {
        let now = self.now;
        self.engine(n).handle_local_packet(packet.into(), now);
        self.settle();
    }

    /// Packets that programs of a host received since the last call.
    fn got(&mut self, n: u16) -> Vec<Bytes> {
        std::mem::take(&mut self.local[usize::from(n) - 1])
    }

    fn dropped(&self, n: u16, reason: &str) -> u64 {
        let counters = self.engines[usize::from(n) - 1].counters();
        counters.drops.get(reason).copied().unwrap_or(0)
    }
}

fn stream(from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    ipv4::udp_packet(from, to, (5004, 1), b"a stream")
}

#[test]
fn a_program_hears_another_over_a_node_that_has_no_ipv4_itself() {
    let mut line = Line::new(&[2], false);
    line.reports(3, RecordType::ChangeToExclude, GROUP, &[]);
    line.after(Duration::from_secs(2));
    let packet = stream(line.address(1), GROUP);
    line.send(1, packet.clone());
    assert_eq!(
        line.got(3),
        std::slice::from_ref(&packet),
        "as it was sent, with its TTL"
    );
    assert!(line.got(2).is_empty());
    // a program that watches IGMP sees the JOIN, and the PART at once
    let joined = Record::new(RecordType::ChangeToExclude, mapped::name(GROUP), Vec::new());
    assert!(line.igmp[0].contains(&Message::Report(vec![joined])));
    assert!(line.igmp[1].is_empty(), "no word of IPv4 where it is off");
    line.reports(3, RecordType::ChangeToInclude, GROUP, &[]);
    line.after(Duration::from_secs(1));
    let left = Record::new(RecordType::ChangeToInclude, mapped::name(GROUP), Vec::new());
    assert!(line.igmp[0].contains(&Message::Report(vec![left])));
    line.send(1, packet);
    assert!(line.got(3).is_empty());
}

#[test]
fn a_node_that_takes_no_address_hears_and_does_not_send() {
    let mut line = Line::with((&[], &[3]), false);
    assert_eq!(line.engines[2].ipv4_address(), None);
    let record = |kind| Record::new(kind, mapped::name(GROUP), Vec::new());
    let of_nobody =
        |kind| igmp::report_packets(Ipv4Addr::UNSPECIFIED, &[record(kind)], 1_280).remove(0);
    line.send(3, of_nobody(RecordType::ChangeToExclude));
    line.after(Duration::from_secs(2));
    let packet = stream(line.address(1), GROUP);
    line.send(1, packet.clone());
    assert_eq!(line.got(3), std::slice::from_ref(&packet));
    line.reports(1, RecordType::ChangeToExclude, GROUP, &[]);
    line.after(Duration::from_secs(2));
    line.send(3, stream(Ipv4Addr::new(10, 77, 9, 9), GROUP));
    assert!(line.got(1).is_empty());
    line.send(3, of_nobody(RecordType::ChangeToInclude));
    line.after(Duration::from_secs(1));
    line.send(1, packet);
    assert!(line.got(3).is_empty());
}

#[test]
fn joins_before_the_address_came_end_with_the_leave_that_comes_after_it() {
    let mut line = Line::new(&[], false);
    let record = Record::new(RecordType::ChangeToExclude, mapped::name(GROUP), Vec::new());
    let early = igmp::report_packets(Ipv4Addr::UNSPECIFIED, &[record], 1_280).remove(0);
    line.send(3, early);
    line.after(Duration::from_secs(2));
    let packet = stream(line.address(1), GROUP);
    line.send(1, packet.clone());
    assert_eq!(line.got(3).len(), 1);
    line.reports(3, RecordType::ChangeToInclude, GROUP, &[]);
    line.after(Duration::from_secs(1));
    line.send(1, packet);
    assert!(line.got(3).is_empty());
}

#[test]
fn source_specific_groups_carry_their_sources_alone() {
    let mut line = Line::new(&[], false);
    let (one, two) = (line.address(1), line.address(2));
    line.reports(3, RecordType::AllowNewSources, SSM, &[one]);
    line.after(Duration::from_secs(2));
    line.send(1, stream(one, SSM));
    line.send(2, stream(two, SSM));
    assert_eq!(line.got(3), [stream(one, SSM)]);
    // version 2 has no sources
    let mut old = vec![0x16, 0, 0, 0];
    old.extend(Ipv4Addr::new(232, 9, 9, 9).octets());
    let sum = !Sum::default().bytes(&old).fold();
    old[2..4].copy_from_slice(&sum.to_be_bytes());
    let envelope = Envelope {
        source: line.address(3),
        destination: SSM,
        protocol: ipv4::IGMP,
        ttl: 1,
    };
    line.send(3, ipv4::packet_with_router_alert(&envelope, &old));
    line.after(Duration::from_secs(1));
    let groups = line.engines[2].local_groups();
    assert_eq!(groups, [mapped::name(SSM)]);
}

#[test]
fn sources_of_others_are_refused_here_and_there() {
    let mut line = Line::new(&[], false);
    line.reports(3, RecordType::ChangeToExclude, GROUP, &[]);
    line.after(Duration::from_secs(2));
    line.send(1, stream(line.address(2), GROUP));
    assert_eq!(line.dropped(1, "foreign_source"), 1);
    // a node that does not check: its own header, with another node's address
    line.send(1, stream(line.address(1), GROUP));
    line.got(3);
    let header = DataHeader {
        payload: Payload::Ipv4,
        ..common::header(common::addresses(1).origin, 77)
    };
    let (forged, now) = (stream(line.address(2), GROUP), line.now);
    line.engine(2)
        .handle_packet(DOWN, &header.encode(), forged.clone().into(), now);
    line.settle();
    assert_eq!(line.dropped(2, "forged_source"), 1);
    // a header and a packet that do not match
    let lying = DataHeader {
        payload: Payload::Ipv6,
        ..header
    };
    let bad = line.dropped(2, "bad_header");
    line.engine(2)
        .handle_packet(DOWN, &lying.encode(), forged.into(), now);
    assert_eq!(line.dropped(2, "bad_header"), bad + 1);
    assert!(line.got(3).is_empty());
}

#[test]
fn ipv6_does_not_reach_ipv4_groups_by_their_names() {
    let mut line = Line::new(&[], false);
    let name = mapped::name(GROUP);
    let own = common::addresses(1).address;
    line.send(1, udp(own, name, b"x"));
    line.send(1, join(name));
    assert_eq!(line.dropped(1, "reserved_group"), 2);
    assert!(line.engines[0].local_groups().is_empty());
    let broadcast = ipv4::udp_packet(line.address(1), Ipv4Addr::BROADCAST, (68, 1), b"x");
    line.send(1, broadcast);
    assert_eq!(line.dropped(1, "broadcast"), 1);
}

#[test]
fn where_it_is_off_nothing_of_ipv4_goes_in_or_comes_out() {
    let mut line = Line::new(&[1], true);
    assert!(line.engines[0].ipv4_address().is_none());
    line.reports(1, RecordType::ChangeToExclude, GROUP, &[]);
    line.reports(3, RecordType::ChangeToExclude, GROUP, &[]);
    line.after(Duration::from_secs(2));
    assert!(line.engines[0].local_groups().is_empty());
    let malformed = line.dropped(1, "malformed");
    line.send(1, stream(Ipv4Addr::new(10, 77, 9, 9), GROUP));
    assert_eq!(line.dropped(1, "malformed"), malformed + 1);
    line.send(2, stream(line.address(2), GROUP));
    assert!(line.got(1).is_empty());
    assert_eq!(line.got(3).len(), 1);
    assert!(line.igmp[0].is_empty());
}

#[test]
fn link_scope_groups_are_carried_where_they_are_listed() {
    let mut line = Line::new(&[], false);
    let mdns = Ipv4Addr::new(224, 0, 0, 251);
    line.reports(3, RecordType::ChangeToExclude, mdns, &[]);
    line.reports(
        3,
        RecordType::ChangeToExclude,
        Ipv4Addr::new(224, 0, 0, 252),
        &[],
    );
    line.after(Duration::from_secs(2));
    line.send(1, stream(line.address(1), mdns));
    assert_eq!(line.got(3).len(), 1);
    line.send(1, stream(line.address(1), Ipv4Addr::new(224, 0, 0, 252)));
    assert_eq!(line.dropped(1, "scope_not_carried"), 1);
}

/// Type, code and the second half of the second word of an ICMP error for the host.
fn icmp_error(packet: &[u8]) -> (u8, u8, u16) {
    let header = Header::read(packet).unwrap();
    assert_eq!(header.source, Ipv4Addr::new(10, 77, 0, 1));
    let icmp = header.payload;
    assert_eq!(Sum::default().bytes(icmp).fold(), 0xffff);
    (icmp[0], icmp[1], u16::from_be_bytes([icmp[6], icmp[7]]))
}

#[test]
fn unicast_goes_to_the_node_that_has_the_address() {
    let mut line = Line::new(&[], true);
    let (one, three) = (line.address(1), line.address(3));
    let to = |destination, bytes: usize| {
        let envelope = Envelope {
            source: one,
            destination,
            protocol: 6,
            ttl: 64,
        };
        ipv4::packet(&envelope, &vec![7; bytes])
    };
    line.send(1, to(three, 40));
    assert_eq!(line.got(3), [to(three, 40)]);
    line.send(1, to(Ipv4Addr::new(10, 77, 200, 200), 40));
    line.send(1, to(three, 1_300));
    let errors: Vec<_> = line
        .got(1)
        .iter()
        .map(|packet| icmp_error(packet))
        .collect();
    assert_eq!(errors, [(3, 0, 0), (3, 4, 1_280)]);
    let now = line.now;
    line.engine(3).set_unicast(false, now);
    line.after(Duration::from_secs(10));
    line.send(1, to(three, 40));
    assert_eq!(icmp_error(&line.got(1)[0]), (3, 13, 0));
    // from another node's address
    let forged = Envelope {
        source: line.address(2),
        destination: three,
        protocol: 6,
        ttl: 64,
    };
    line.send(1, ipv4::packet(&forged, b"x"));
    assert_eq!(line.dropped(1, "foreign_source"), 1);
    assert!(line.got(3).is_empty());
}

#[test]
fn a_message_says_what_is_behind_its_header() {
    let mut line = Line::new(&[], false);
    line.reports(2, RecordType::ChangeToExclude, GROUP, &[]);
    line.after(Duration::from_secs(2));
    let packet = stream(line.address(1), GROUP);
    let now = line.now;
    line.engine(1)
        .handle_local_packet(packet.clone().into(), now);
    let sent = std::iter::from_fn(|| line.engines[0].poll_output());
    let header = sent.filter_map(|output| match output {
        Output::Data { header, .. } => Some(header),
        _ => None,
    });
    let header: [u8; HEADER_LEN] = header.last().unwrap();
    assert_eq!(header[0], 0x14);
}
