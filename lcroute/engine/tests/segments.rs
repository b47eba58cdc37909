//! Segments under virtual time: hosts with ARP caches on LANs of several houses, gateways with
//! links between them. Hosts move, sleep and look for addresses; LANs are joined and split.

mod simulation;

use crate::common;
use crate::gateways::{self, LAN, WIRE, Wires, ms, secs};

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::services::Rights;
use lcroute_engine::header::DataHeader;
use lcroute_engine::{
    DropReason, HostPlace, LanFrame, LanIpv4, LanRole, LanSettings, PrivatePrefix, SECRET_LEN,
    Secret, SegmentFrame, SegmentProblem, SegmentPrograms, SegmentSettings, SegmentSnapshot,
};
use librecast::arp::{Arp, Operation};
use librecast::cert::SourcePrefix;
use librecast::ethernet::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, MacAddress};
use librecast::id::derive;
use librecast::ipv4::{self, Envelope, Header};
use librecast::ipv6::icmpv6_packet;
use librecast::mld::{Message, Record, RecordType};
use librecast::neighbor_discovery::Message::Advertisement;
use librecast::neighbor_discovery::{advertisement, parse_packet, solicitation, solicited_node};
use librecast::random::Random;
use librecast::{igmp, mapped};

const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
const ALL: Ipv4Addr = Ipv4Addr::BROADCAST;
const DIRECTED: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 255);
const SSDP: Ipv4Addr = Ipv4Addr::new(239, 255, 255, 250);
const MDNS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
/// UDP port of hosts: what arrives at a host's own address is answered.
const PORT: u16 = 5_004;
/// UDP port of a gateway's links.
const OWN_PORT: u16 = 40_000;

fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 1, last)
}

fn mac(kind: u8, n: usize) -> MacAddress {
    MacAddress([2, 0, 0, 0, kind, n as u8])
}

fn frame_of(
    source: MacAddress,
    destination: MacAddress,
    ethertype: u16,
    payload: impl Into<Bytes>,
) -> SegmentFrame {
    SegmentFrame {
        source,
        destination,
        ethertype,
        payload: payload.into(),
    }
}

#[derive(Debug)]
enum Event {
    Frame(usize, SegmentFrame),
    /// A gateway's own kernel sends a frame, or is given one.
    Inside(usize, SegmentFrame),
    Given(usize, SegmentFrame),
    /// A host asks once more.
    Retry(usize, Ipv4Addr, u8),
    /// A host forgets an Ethernet address if nobody confirmed it since.
    Forget(usize, Ipv4Addr, Instant),
}

/// A packet that a host received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Got {
    number: u64,
    from: Ipv4Addr,
    ttl: u8,
    at: Instant,
}

struct Host {
    mac: MacAddress,
    address: Ipv4Addr,
    /// None: it is nowhere, or asleep.
    lan: Option<usize>,
    /// Ethernet addresses, each with the time of its last confirmation (RFC 4861 §7.3).
    arp: BTreeMap<Ipv4Addr, (MacAddress, Instant)>,
    waiting: BTreeMap<Ipv4Addr, Vec<Bytes>>,
    joined: BTreeSet<Ipv4Addr>,
    got: Vec<Got>,
    answers: BTreeSet<u64>,
    /// MTUs of errors about its packets: fragmentation is needed (RFC 1191 §4).
    limits: Vec<u16>,
    looks_for: Option<(Ipv4Addr, bool)>,
    /// The gateway whose own kernel it is.
    inside: Option<usize>,
}

struct Lans {
    hosts: Vec<Host>,
    /// Time after which hosts ask again for a neighbour that nobody confirmed.
    stale: Duration,
    /// Packets of segments that left over links, by the gateway that sent or passed them on.
    carried: Vec<u64>,
    /// Neighbour discovery of gateways, for hosts elsewhere.
    discovery: Vec<(usize, SegmentFrame)>,
    /// Frames that each receiver loses, of a thousand.
    loss: u64,
    losses: Random,
}

type World = gateways::World<Lans>;

impl Wires for Lans {
    type Event = Event;

    fn mac(gateway: usize, lan: usize) -> MacAddress {
        mac(1, gateway * 8 + lan)
    }

    fn from_gateway(world: &mut World, gateway: usize, lan: usize, frame: LanFrame) {
        world.lan_output(gateway, lan, frame);
    }

    fn happen(world: &mut World, event: Event) {
        world.happen(event);
    }

    fn count(&mut self, gateway: usize, packet: &[u8]) {
        self.carried[gateway] += u64::from(packet[6] == 254);
    }
}

fn settings(gateway: usize, lan: usize) -> LanSettings {
    let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, lan as u16, gateway as u16 + 1);
    LanSettings {
        ipv4: Some(LanIpv4 {
            address: ip(200 + gateway as u8),
            prefixes: vec![(ip(200 + gateway as u8), 24)],
        }),
        segment: Some(SegmentSettings {
            name: "home".into(),
            broadcast: 5_000_000,
            router: None,
            default_routers: vec![IpAddr::V4(ROUTER)],
            hosts: Vec::new(),
            programs: None,
        }),
        ..common::lan_settings(lan, Lans::mac(gateway, lan), link_local)
    }
}

fn rights(segment: Option<&str>) -> Rights {
    Rights {
        gateway: vec![SourcePrefix::ANY],
        segment: segment.map(str::to_owned),
        ..Rights::default()
    }
}

/// Building a world.
impl World {
    /// A world with gateways on these LANs, all linked, each with the right to the segment.
    fn new(gateways: &[&[usize]]) -> Self {
        Self::with(gateways, &|_| Some("home"), &|_, _| true)
    }

    fn with(
        gateways: &[&[usize]],
        segment: &dyn Fn(usize) -> Option<&'static str>,
        linked: &dyn Fn(usize, usize) -> bool,
    ) -> Self {
        let lans = Lans {
            hosts: Vec::new(),
            stale: secs(2),
            carried: vec![0; gateways.len()],
            discovery: Vec::new(),
            loss: 0,
            losses: Random::new(7),
        };
        let on = gateways.iter().map(|lans| lans.to_vec()).collect();
        let mut world = Self::of(on, &|n| rights(segment(n)), lans);
        for n in 0..gateways.len() {
            world.boot(n, linked);
        }
        world.run(secs(5));
        world
    }

    fn boot(&mut self, n: usize, linked: &dyn Fn(usize, usize) -> bool) {
        let lans = self.gateways[n].lans.iter();
        let lans = lans.map(|lan| settings(n, *lan)).collect();
        self.start(n, lans);
        self.connect(n, linked);
        self.settle(n);
    }

    fn host(&mut self, lan: usize, address: Ipv4Addr) -> usize {
        self.host_of(lan, address, mac(2, self.lans.hosts.len()), None)
    }

    fn host_of(
        &mut self,
        lan: usize,
        address: Ipv4Addr,
        mac: MacAddress,
        inside: Option<usize>,
    ) -> usize {
        let n = self.lans.hosts.len();
        self.lans.hosts.push(Host {
            mac,
            address,
            lan: Some(lan),
            arp: BTreeMap::new(),
            waiting: BTreeMap::new(),
            joined: BTreeSet::new(),
            got: Vec::new(),
            answers: BTreeSet::new(),
            limits: Vec::new(),
            looks_for: None,
            inside,
        });
        self.announce(n);
        self.run(ms(100));
        n
    }

    /// The programs of a gateway itself, in the segment of its first LAN.
    fn programs(&mut self, gateway: usize) -> usize {
        let lan = self.gateways[gateway].lans[0];
        let own = settings(gateway, lan);
        let mut with_programs = own.clone();
        with_programs.segment.as_mut().unwrap().programs = Some(SegmentPrograms {
            addresses: vec![own.link_local],
            ports: vec![OWN_PORT],
        });
        self.does(gateway, |engine, now| {
            engine.set_lan(LAN, with_programs, now);
        });
        self.host_of(lan, own.ipv4.unwrap().address, own.mac, Some(gateway))
    }

    fn kill(&mut self, n: usize) {
        self.stop(n);
        (0..self.gateways.len()).for_each(|other| self.lose(other, n));
    }

    fn join_lans(&mut self, a: usize, b: usize) {
        self.wired.insert((a, b));
    }
}

/// Gateways.
impl World {
    fn lan_output(&mut self, n: usize, lan: usize, frame: LanFrame) {
        let own = Lans::mac(n, lan);
        let to_group = |payload: &[u8]| match Header::read(payload) {
            Ok(header) => (
                MacAddress::of_ipv4_group(header.destination),
                ETHERTYPE_IPV4,
            ),
            Err(_) => {
                let group = Ipv6Addr::from(*payload[24..].first_chunk::<16>().unwrap());
                (MacAddress::of_group(group), ETHERTYPE_IPV6)
            }
        };
        let frame = match frame {
            LanFrame::Ethernet {
                to,
                from,
                ethertype,
                payload,
            } => frame_of(from, to, ethertype, payload),
            LanFrame::Multicast(payload) | LanFrame::Link(payload) => {
                let (to, ethertype) = to_group(&payload);
                frame_of(own, to, ethertype, payload)
            }
            LanFrame::Probe(_) | LanFrame::Unicast(..) => return,
        };
        let inside = self
            .lans
            .hosts
            .iter()
            .position(|host| host.inside == Some(n));
        let query = igmp::parse_packet(&frame.payload);
        let is_query = matches!(query, Ok((_, Message::Query(_))));
        let to = frame.destination;
        let is_for_own = to == own || to.is_group() && (frame.source != own || is_query);
        if let Some(host) = inside.filter(|_| is_for_own) {
            self.push(self.now + WIRE, Event::Given(host, frame.clone()));
        }
        if to != own {
            self.push(self.now + WIRE, Event::Frame(lan, frame));
        }
    }

    fn segment(&mut self, n: usize) -> SegmentSnapshot {
        let mut lans = self.engine(n).lans();
        lans.remove(0).segment.unwrap()
    }

    fn place(&mut self, n: usize, address: Ipv4Addr) -> HostPlace {
        self.engine(n).where_is(LAN, address.into())
    }

    fn behind(&self, n: usize) -> HostPlace {
        HostPlace::Behind(self.gateways[n].services.peer())
    }

    fn dropped(&mut self, n: usize, reason: DropReason) -> u64 {
        self.engine(n).dropped(reason)
    }
}

/// Events.
impl World {
    fn happen(&mut self, event: Event) {
        match event {
            Event::Frame(lan, frame) => self.frame(lan, &frame),
            Event::Inside(n, frame) => {
                let virtual_mac = self.engine(n).virtual_mac(LAN);
                let to = frame.destination;
                if virtual_mac.is_some() && (to.is_group() || Some(to) == virtual_mac) {
                    self.sees(n, frame);
                }
            }
            Event::Given(host, frame) => match frame.ethertype {
                ETHERTYPE_ARP => self.host_arp(host, &frame),
                ETHERTYPE_IPV4 => self.host_packet(host, &frame),
                _ => {}
            },
            Event::Forget(host, address, asked) => {
                let arp = &mut self.lans.hosts[host].arp;
                if arp.get(&address).is_some_and(|(_, at)| *at < asked) {
                    arp.remove(&address);
                }
            }
            Event::Retry(host, address, left) => {
                let waits = self.lans.hosts[host].waiting.contains_key(&address);
                if waits && left > 0 {
                    self.ask(host, address);
                    let event = Event::Retry(host, address, left - 1);
                    self.push(self.now + secs(1), event);
                } else {
                    self.lans.hosts[host].waiting.remove(&address);
                }
            }
        }
    }

    /// The first LAN of a gateway has this frame.
    fn sees(&mut self, n: usize, frame: SegmentFrame) {
        self.does(n, |engine, now| {
            engine.handle_segment_frame(LAN, frame, now);
        });
    }

    fn frame(&mut self, lan: usize, frame: &SegmentFrame) {
        let SegmentFrame {
            source,
            destination: to,
            ethertype,
            ..
        } = *frame;
        self.frames += 1;
        if ethertype == ETHERTYPE_IPV6 && source.is_virtual() {
            self.lans.discovery.push((lan, frame.clone()));
        }
        for (n, interface) in self.hearing(lan, source) {
            if self.lans.losses.below(1_000) < self.lans.loss {
                continue;
            }
            let engine = self.engine(n);
            let virtual_mac = engine.virtual_mac(interface);
            if virtual_mac == Some(source) {
                // it sent the frame itself
                continue;
            }
            let own = settings(n, self.gateways[n].lans[usize::from(interface.0) - 1]).mac;
            let is_arp = ethertype == ETHERTYPE_ARP;
            let hears = to.is_group() || Some(to) == virtual_mac || is_arp && to == own;
            if hears {
                let frame = frame.clone();
                self.does(n, |engine, now| {
                    engine.handle_segment_frame(interface, frame, now);
                });
            }
        }
        for host in 0..self.lans.hosts.len() {
            let h = &self.lans.hosts[host];
            // a kernel hears nothing of what its own host sends
            let of_host = h.inside.map(|n| &self.gateways[n].engine);
            let of_host = of_host.and_then(|engine| engine.as_ref()?.virtual_mac(LAN));
            let hears = h.lan.is_some_and(|other| self.reaches(lan, other));
            let is_lost = self.lans.losses.below(1_000) < self.lans.loss;
            if hears
                && !is_lost
                && of_host != Some(source)
                && h.mac != source
                && (to.is_group() || to == h.mac)
            {
                match ethertype {
                    ETHERTYPE_ARP => self.host_arp(host, frame),
                    ETHERTYPE_IPV4 => self.host_packet(host, frame),
                    _ => {}
                }
            }
        }
    }
}

/// Hosts.
impl World {
    fn emit(&mut self, host: usize, to: MacAddress, ethertype: u16, payload: Bytes) {
        let Host {
            mac: from,
            lan,
            inside,
            ..
        } = self.lans.hosts[host];
        if let Some(lan) = lan {
            let frame = frame_of(from, to, ethertype, payload);
            if let Some(gateway) = inside {
                self.push(self.now + WIRE, Event::Inside(gateway, frame.clone()));
            }
            self.push(self.now + WIRE, Event::Frame(lan, frame));
        }
    }

    fn arp(&mut self, host: usize, to: MacAddress, arp: Arp) {
        self.emit(host, to, ETHERTYPE_ARP, arp.encode().into());
    }

    fn request(&mut self, host: usize, sender: Ipv4Addr, target: Ipv4Addr) {
        let arp = Arp::request(self.lans.hosts[host].mac, sender, target);
        self.arp(host, MacAddress::BROADCAST, arp);
    }

    fn announce(&mut self, host: usize) {
        let address = self.lans.hosts[host].address;
        self.request(host, address, address);
    }

    fn ask(&mut self, host: usize, target: Ipv4Addr) {
        self.request(host, self.lans.hosts[host].address, target);
    }

    fn is_free(&mut self, host: usize, address: Ipv4Addr) -> bool {
        self.lans.hosts[host].looks_for = Some((address, false));
        for _ in 0..3 {
            self.request(host, Ipv4Addr::UNSPECIFIED, address);
            self.run(secs(1));
        }
        let looked = self.lans.hosts[host].looks_for.take();
        !looked.unwrap().1
    }

    fn host_arp(&mut self, host: usize, frame: &SegmentFrame) {
        let arp = Arp::decode(&frame.payload).unwrap();
        let own = self.lans.hosts[host].address;
        let h = &mut self.lans.hosts[host];
        if let Some((wanted, found)) = &mut h.looks_for {
            let is_probe = arp.sender.is_unspecified() && arp.target == *wanted;
            *found |= arp.sender == *wanted || is_probe && arp.operation == Operation::Request;
            return;
        }
        let is_for_us = arp.target == own;
        if !arp.sender.is_unspecified() && (is_for_us || h.arp.contains_key(&arp.sender)) {
            h.arp.insert(arp.sender, (arp.sender_mac, self.now));
        }
        if let Some(waiting) = h.waiting.remove(&arp.sender) {
            h.arp.insert(arp.sender, (arp.sender_mac, self.now));
            for packet in waiting {
                self.emit(host, arp.sender_mac, ETHERTYPE_IPV4, packet);
            }
        }
        if is_for_us && arp.operation == Operation::Request && arp.sender != own {
            let reply = Arp {
                operation: Operation::Reply,
                sender_mac: self.lans.hosts[host].mac,
                sender: own,
                target_mac: arp.sender_mac,
                target: arp.sender,
            };
            self.arp(host, arp.sender_mac, reply);
        }
    }

    fn host_packet(&mut self, host: usize, frame: &SegmentFrame) {
        let header = Header::read(&frame.payload).unwrap();
        if let Ok((_, Message::Query(_))) = igmp::parse_packet(&frame.payload) {
            let joined: Vec<_> = self.lans.hosts[host].joined.iter().copied().collect();
            return joined
                .into_iter()
                .for_each(|group| self.report(host, group));
        }
        let h = &mut self.lans.hosts[host];
        let to = header.destination;
        let is_group = to == ALL || to == DIRECTED || h.joined.contains(&to) || to == MDNS;
        if let [3, 4, _, _, _, _, high, low, ..] = header.payload
            && header.protocol == ipv4::ICMP
            && to == h.address
        {
            return h.limits.push(u16::from_be_bytes([*high, *low]));
        }
        if header.protocol != ipv4::UDP || to != h.address && !is_group {
            return;
        }
        let (kind, number) = header.payload[8..].split_at(1);
        let number = u64::from_be_bytes(*number.first_chunk().unwrap());
        if kind == b"A" {
            h.answers.insert(number);
            if let Some((mac, at)) = h.arp.get_mut(&header.source)
                && *mac == frame.source
            {
                *at = self.now;
            }
            return;
        }
        h.got.push(Got {
            number,
            from: header.source,
            ttl: header.ttl,
            at: self.now,
        });
        if !is_group {
            self.say(host, header.source, (b"A", number));
        }
    }

    fn report(&mut self, host: usize, group: Ipv4Addr) {
        let record = Record::new(RecordType::ModeIsExclude, mapped::name(group), Vec::new());
        let from = self.lans.hosts[host].address;
        for packet in igmp::report_packets(from, &[record], 1_500) {
            let to = MacAddress::of_ipv4_group(igmp::ALL_IGMPV3_ROUTERS);
            self.emit(host, to, ETHERTYPE_IPV4, packet.into());
        }
    }

    fn join(&mut self, host: usize, group: Ipv4Addr) {
        self.lans.hosts[host].joined.insert(group);
        self.report(host, group);
        self.run(ms(500));
    }

    fn say(&mut self, host: usize, to: Ipv4Addr, (kind, number): (&[u8], u64)) {
        let data = [kind, &number.to_be_bytes()].concat();
        let packet = ipv4::udp_packet(self.lans.hosts[host].address, to, (PORT, 1), &data);
        self.send_packet(host, to, packet.into());
    }

    fn send_packet(&mut self, host: usize, to: Ipv4Addr, packet: Bytes) {
        // other subnets by the address for them, as their router redirects hosts
        let [a, b, c, _] = self.lans.hosts[host].address.octets();
        let is_near = to.octets()[..3] == [a, b, c];
        let hop = if is_near {
            to
        } else {
            Ipv4Addr::new(a, b, c, 250)
        };
        let to_group = match to {
            ALL | DIRECTED => Some(MacAddress::BROADCAST),
            _ if to.is_multicast() => Some(MacAddress::of_ipv4_group(to)),
            _ => self.known(host, hop),
        };
        let to = hop;
        if let Some(mac) = to_group {
            return self.emit(host, mac, ETHERTYPE_IPV4, packet);
        }
        let waiting = self.lans.hosts[host].waiting.entry(to).or_default();
        waiting.push(packet);
        if waiting.len() == 1 {
            self.ask(host, to);
            let event = Event::Retry(host, to, 3);
            self.push(self.now + secs(1), event);
        }
    }

    /// The Ethernet address of a neighbour; one that was not confirmed lately is asked again.
    fn known(&mut self, host: usize, to: Ipv4Addr) -> Option<MacAddress> {
        let (mac, at) = self.lans.hosts[host].arp.get(&to).copied()?;
        if self.now > at + self.lans.stale {
            let own = &self.lans.hosts[host];
            let arp = Arp::request(own.mac, own.address, to);
            self.arp(host, mac, arp);
            let event = Event::Forget(host, to, self.now);
            self.push(self.now + secs(1), event);
        }
        Some(mac)
    }

    fn send(&mut self, host: usize, to: Ipv4Addr) -> u64 {
        self.next += 1;
        self.say(host, to, (b"N", self.next));
        self.next
    }

    /// Sends the next number in a packet of this length, which nobody may fragment.
    fn send_long(&mut self, host: usize, to: Ipv4Addr, length: usize) -> u64 {
        self.next += 1;
        let mut data = [&b"N"[..], &self.next.to_be_bytes()].concat();
        data.resize(length - ipv4::HEADER_LEN - 8, 0);
        let packet = ipv4::udp_packet(self.lans.hosts[host].address, to, (PORT, 1), &data);
        self.send_packet(host, to, packet.into());
        self.next
    }

    /// Sends the next number, and returns whether it was answered within the time.
    fn ping(&mut self, host: usize, to: Ipv4Addr, time: Duration) -> bool {
        let number = self.send(host, to);
        self.run(time);
        self.lans.hosts[host].answers.contains(&number)
    }

    fn times(&self, host: usize, number: u64) -> usize {
        let got = self.lans.hosts[host].got.iter();
        got.filter(|got| got.number == number).count()
    }

    /// A host goes to another LAN, and announces itself there.
    fn move_host(&mut self, host: usize, lan: usize) {
        self.plug(host, lan);
        self.announce(host);
    }

    /// A host's cable goes into another switch: it forgets its neighbours, as kernels do.
    fn plug(&mut self, host: usize, lan: usize) {
        self.lans.hosts[host].lan = Some(lan);
        self.lans.hosts[host].arp.clear();
    }

    fn mac_of(&self, host: usize, address: Ipv4Addr) -> Option<MacAddress> {
        self.lans.hosts[host].arp.get(&address).map(|(mac, _)| *mac)
    }
}

/// A world of two LANs with a host on each: 20 and 30.
fn two_houses() -> (World, usize, usize) {
    let mut w = World::new(&[&[0], &[1]]);
    let (a, b) = (w.host(0, ip(20)), w.host(1, ip(30)));
    (w, a, b)
}

#[test]
fn hosts_of_two_houses_with_one_subnet_reach_each_other_under_their_own_addresses() {
    let (mut w, a, b) = two_houses();
    w.run(secs(10));
    assert!(w.ping(a, ip(30), ms(300)), "the first packet");
    assert!(w.ping(a, ip(30), ms(50)));
    assert!(w.ping(b, ip(20), ms(50)));
    let got = w.lans.hosts[b].got[0];
    assert_eq!((got.from, got.ttl), (ip(20), 1), "as it was sent");
    assert!(w.mac_of(a, ip(30)).unwrap().is_virtual());
    let behind = w.behind(1);
    assert_eq!(w.place(0, ip(30)), behind);
    assert_eq!(w.place(1, ip(30)), HostPlace::Here(w.lans.hosts[b].mac));
    let segment = w.segment(0);
    assert_eq!((segment.here, segment.elsewhere), (1, 1));
    assert_eq!(segment.problem, None);
    assert_eq!(segment.lans[0].prefixes, [(ip(0), 24)]);
    assert_eq!(segment.lans[0].rtt, Some(ms(12)), "by the advertised step");
}

#[test]
fn broadcast_and_groups_of_all_kinds_reach_their_listeners_once() {
    let (mut w, a, b) = two_houses();
    let source_specific = Ipv4Addr::new(232, 1, 2, 3);
    w.join(b, SSDP);
    w.join(b, source_specific);
    for to in [ALL, DIRECTED, MDNS, SSDP, source_specific] {
        let number = w.send(a, to);
        w.run(ms(500));
        assert_eq!(w.times(b, number), 1, "{to}");
        assert_eq!(w.lans.hosts[b].got.last().unwrap().from, ip(20), "{to}");
        assert_eq!(w.lans.hosts[b].got.last().unwrap().ttl, 1, "{to}");
    }
}

#[test]
fn a_lan_without_listeners_gets_nothing_of_a_group() {
    let mut w = World::new(&[&[0], &[1], &[2]]);
    let a = w.host(0, ip(20));
    let b = w.host(1, ip(30));
    w.host(2, ip(40));
    w.join(b, SSDP);
    w.run(secs(2));
    let before = w.lans.carried.clone();
    for _ in 0..20 {
        w.send(a, SSDP);
        w.run(ms(100));
    }
    assert_eq!(w.lans.hosts[b].got.len(), 20);
    assert_eq!(
        w.lans.carried[0] - before[0],
        20,
        "one copy, to the listener"
    );
    assert_eq!(w.lans.carried[1..], before[1..]);
}

#[test]
fn each_house_keeps_its_own_router_and_the_double_is_named() {
    let mut w = World::new(&[&[0], &[1]]);
    let a = w.host(0, ip(20));
    let ra = w.host(0, ROUTER);
    let rb = w.host(1, ROUTER);
    w.run(secs(2));
    assert!(w.ping(a, ROUTER, ms(500)));
    for _ in 0..40 {
        w.announce(rb);
        w.run(ms(20));
    }
    w.run(secs(2));
    assert_eq!(w.mac_of(a, ROUTER), Some(w.lans.hosts[ra].mac));
    assert!(w.ping(a, ROUTER, ms(500)));
    assert_eq!(w.lans.hosts[rb].got.len(), 0);
    let segment = w.segment(0);
    assert_eq!(segment.routers, [IpAddr::V4(ROUTER)]);
    assert_eq!(segment.conflicts, []);
    let place = HostPlace::Conflict(w.lans.hosts[ra].mac, w.gateways[1].services.peer());
    assert_eq!(w.place(0, ROUTER), place);
}

#[test]
fn a_doubled_host_is_named_and_a_third_lan_stays_with_the_first() {
    let mut w = World::new(&[&[0], &[1], &[2]]);
    let first = w.host(0, ip(20));
    let c = w.host(2, ip(40));
    w.run(secs(6));
    assert!(w.ping(c, ip(20), ms(500)));
    let second = w.host(1, ip(20));
    let near = w.host(1, ip(31));
    w.run(secs(2));
    let conflicts = w.segment(0).conflicts;
    assert_eq!(conflicts, [(ip(20).into(), w.gateways[1].services.peer())]);
    let conflicts = w.segment(1).conflicts;
    assert_eq!(conflicts, [(ip(20).into(), w.gateways[0].services.peer())]);
    assert!(w.ping(c, ip(20), ms(500)) && w.ping(near, ip(20), ms(500)));
    assert_eq!(w.lans.hosts[first].got.len(), 2);
    assert_eq!(w.lans.hosts[second].got.len(), 1);
    // one of both goes: the other is reached
    w.lans.hosts[first].lan = None;
    w.lans.hosts[c].arp.clear();
    w.run(secs(40));
    assert!((0..3).any(|_| w.ping(c, ip(20), secs(1))));
    assert_eq!(w.lans.hosts[second].got.len(), 2);
}

#[test]
fn a_host_that_moves_and_speaks_is_reached_from_everywhere_within_two_seconds() {
    let mut w = World::new(&[&[0], &[1], &[2]]);
    let a = w.host(0, ip(20));
    let mover = w.host(1, ip(30));
    let near = w.host(1, ip(31));
    let c = w.host(2, ip(40));
    for host in [a, near, c] {
        assert!(w.ping(host, ip(30), secs(1)));
    }
    // no cache of a host changes but by what gateways and hosts send
    w.move_host(mover, 0);
    w.run(secs(2));
    for host in [a, near, c] {
        assert!(w.ping(host, ip(30), ms(100)), "host {host}");
    }
    assert!(w.mac_of(near, ip(30)).unwrap().is_virtual());
    assert_eq!(w.mac_of(a, ip(30)), Some(w.lans.hosts[mover].mac));
    w.move_host(mover, 1);
    w.run(secs(2));
    for host in [a, near, c] {
        assert!(w.ping(host, ip(30), ms(100)), "host {host}, back");
    }
    assert_eq!(w.segment(0).conflicts, []);
}

#[test]
fn a_host_that_moves_without_a_word_is_found_by_those_who_ask() {
    let mut w = World::new(&[&[0], &[1]]);
    let a = w.host(0, ip(20));
    let mover = w.host(0, ip(30));
    assert!(w.ping(a, ip(30), ms(100)));
    w.run(secs(10));
    w.plug(mover, 1);
    w.lans.hosts[a].arp.clear();
    assert!(w.ping(a, ip(30), secs(3)));
}

#[test]
fn an_address_in_use_elsewhere_is_not_free_but_for_its_own_host() {
    let (mut w, a, newcomer) = two_houses();
    w.run(secs(6));
    assert!(!w.is_free(newcomer, ip(20)));
    assert!(w.is_free(newcomer, ip(99)));
    // it comes itself, and looks first
    w.plug(a, 1);
    assert!(w.is_free(a, ip(20)));
}

#[test]
fn nothing_is_sent_while_no_host_speaks() {
    let mut w = World::new(&[&[0], &[1], &[2]]);
    let a = w.host(0, ip(20));
    w.host(1, ip(30));
    assert!(w.ping(a, ip(30), secs(1)));
    w.run(secs(5));
    let before = w.lans.carried.clone();
    w.run(secs(60));
    assert_eq!(w.lans.carried, before);
    assert!(w.ping(a, ip(30), ms(50)), "and a pair stays");
}

#[test]
fn a_silent_host_is_asked_for_seldom_and_reached_again_once_it_speaks() {
    let (mut w, a, sleeper) = two_houses();
    w.lans.hosts[sleeper].lan = None;
    w.run(secs(10));
    let before = w.lans.carried[0];
    assert!(!w.ping(a, ip(30), secs(4)));
    assert!(
        w.lans.carried[0] - before <= 4,
        "{}",
        w.lans.carried[0] - before
    );
    assert_eq!(w.place(0, ip(30)), HostPlace::Nobody);
    w.move_host(sleeper, 1);
    w.run(ms(100));
    assert!(w.ping(a, ip(30), secs(1)));
}

#[test]
fn packets_to_a_host_that_is_gone_end_and_its_return_is_noticed() {
    let (mut w, a, b) = two_houses();
    assert!(w.ping(a, ip(30), secs(1)));
    w.lans.hosts[b].lan = None;
    w.run(secs(31));
    for _ in 0..20 {
        w.send(a, ip(30));
        w.run(ms(200));
    }
    assert_ne!(w.place(0, ip(30)), w.behind(1), "GONE came");
    w.move_host(b, 1);
    w.run(ms(100));
    assert!(w.ping(a, ip(30), secs(1)));
}

#[test]
fn address_servers_and_routers_of_one_house_stay_in_it() {
    let (mut w, a, b) = two_houses();
    w.join(b, SSDP);
    w.run(secs(2));
    let before = w.lans.carried[0];
    let from = w.lans.hosts[a].address;
    let vrrp = Envelope {
        source: from,
        destination: Ipv4Addr::new(224, 0, 0, 18),
        protocol: 112,
        ttl: 255,
    };
    let gateway = b"NT: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n";
    for (to, packet) in [
        (ALL, ipv4::udp_packet(from, ALL, (67, 64), &[0; 300])),
        (vrrp.destination, ipv4::packet(&vrrp, &[0; 20])),
        (SSDP, ipv4::udp_packet(from, SSDP, (1_900, 4), gateway)),
    ] {
        let dropped = w.dropped(0, DropReason::SegmentRouter);
        w.send_packet(a, to, packet.into());
        w.run(ms(200));
        assert_eq!(w.dropped(0, DropReason::SegmentRouter), dropped + 1, "{to}");
    }
    assert_eq!(w.lans.carried[0], before);
}

#[test]
fn a_node_without_the_label_speaks_for_no_lan() {
    let labels = |n| [Some("home"), None, Some("office")][n];
    let mut w = World::with(&[&[0], &[1], &[2]], &labels, &|_, _| true);
    let hosts = [0, 1, 2].map(|lan| w.host(lan, ip(20 + lan as u8)));
    for (from, to) in [(0, 1), (0, 2), (1, 0), (2, 0)] {
        assert!(
            !w.ping(hosts[from], ip(20 + to as u8), secs(2)),
            "{from} to {to}"
        );
    }
    let number = w.send(hosts[1], ALL);
    w.run(ms(500));
    assert_eq!(w.times(hosts[0], number), 0);
    assert_eq!(w.segment(0).problem, Some(SegmentProblem::Alone));
    for n in [1, 2] {
        let problem = SegmentProblem::NotPermitted("home".into());
        assert_eq!(w.segment(n).problem, Some(problem));
        assert_eq!(w.engine(n).virtual_mac(LAN), None);
    }
}

#[test]
fn a_forwarder_that_fails_is_replaced_and_no_host_asks_again() {
    let mut w = World::new(&[&[0], &[1], &[1]]);
    let a = w.host(0, ip(20));
    let b = w.host(1, ip(30));
    w.run(secs(3));
    assert!(w.ping(a, ip(30), secs(1)) && w.ping(b, ip(20), secs(1)));
    let is_forwarder =
        |w: &mut World, n: usize| w.engine(n).lans()[0].standing.role == LanRole::Forwarder;
    let (first, second) = if is_forwarder(&mut w, 1) {
        (1, 2)
    } else {
        (2, 1)
    };
    let virtual_mac = w.engine(first).virtual_mac(LAN);
    w.kill(first);
    let killed = w.now;
    let mut back = None;
    while back.is_none() && w.now < killed + secs(10) {
        if w.ping(a, ip(30), ms(100)) && w.ping(b, ip(20), ms(100)) {
            back = Some(w.now - killed);
        }
    }
    assert!(back.is_some_and(|back| back < secs(3)), "{back:?}");
    assert_eq!(w.engine(second).virtual_mac(LAN), virtual_mac);
}

#[test]
fn a_cable_between_two_lans_makes_no_storm_and_its_end_leaves_no_trace() {
    let (mut w, a, b) = two_houses();
    w.join(b, SSDP);
    assert!(w.ping(a, ip(30), secs(1)));
    for _ in 0..3 {
        w.join_lans(0, 1);
        let joined = w.now;
        let frames = w.frames;
        let mut sent = Vec::new();
        for _ in 0..40 {
            sent.push((w.send(a, ALL), w.now));
            sent.push((w.send(a, SSDP), w.now));
            w.run(ms(100));
        }
        for (number, at) in sent {
            let times = w.times(b, number);
            assert!((1..=2).contains(&times), "{times} times");
            assert!(
                times == 1 || at < joined + ms(2_500),
                "twice after {:?}",
                at - joined
            );
        }
        // what hosts send, and what gateways send to each other and to hosts
        assert!(w.frames - frames < 400, "{}", w.frames - frames);
        w.lans.hosts[a].arp.clear();
        assert!(w.ping(a, ip(30), secs(3)));
        assert_eq!(w.mac_of(a, ip(30)), Some(w.lans.hosts[b].mac));
        w.wired.clear();
        w.run(secs(5));
        w.lans.hosts[a].arp.clear();
        // the other side still takes a for its own, until it has asked
        let tries = |w: &mut World| (0..2).any(|_| w.ping(a, ip(30), secs(1)));
        assert!(tries(&mut w), "apart again");
        let number = w.send(a, ALL);
        w.run(ms(500));
        assert_eq!(w.times(b, number), 1);
    }
}

/// Pings each 100 ms until an answer comes; returns the time.
fn interruption(w: &mut World, host: usize, to: Ipv4Addr) -> Duration {
    let began = w.now;
    while !w.ping(host, to, ms(100)) && w.now < began + secs(60) {}
    w.now - began
}

#[test]
fn hosts_that_talk_go_on_when_a_cable_joins_their_lans_and_when_it_is_pulled() {
    let mut w = World::new(&[&[0], &[1], &[2]]);
    w.lans.stale = secs(40);
    let (a, b, c) = (w.host(0, ip(20)), w.host(1, ip(30)), w.host(2, ip(40)));
    let pairs = [
        (a, ip(30)),
        (b, ip(20)),
        (a, ip(40)),
        (b, ip(40)),
        (c, ip(20)),
        (c, ip(30)),
    ];
    for (host, to) in pairs {
        assert!(w.ping(host, to, secs(1)));
    }
    for round in 0..3 {
        for (joined, bound) in [(true, ms(2_500)), (false, ms(5_000))] {
            match joined {
                true => w.join_lans(0, 1),
                false => w.wired.clear(),
            }
            let began = w.now;
            let lasted = pairs.map(|(host, to)| interruption(&mut w, host, to));
            assert!(w.now - began < bound, "{round} {joined}: {lasted:?}");
            // until the gateways have settled
            while w.now < began + secs(8) {
                for (host, to) in pairs {
                    let lasted = interruption(&mut w, host, to);
                    assert!(
                        lasted < ms(1_500),
                        "{round} {joined} {host} {to}: {lasted:?}"
                    );
                }
            }
            // while they talk, and behind the use of a former address
            for second in 0..310 {
                w.run(ms(1_000));
                for (host, to) in pairs {
                    let answered = w.ping(host, to, ms(20));
                    assert!(answered, "{round} {joined} {second} {host} {to}");
                }
            }
        }
    }
}

#[test]
fn a_gateways_own_programs_are_in_the_segment_as_any_host() {
    for standby in [false, true] {
        let lans: &[&[usize]] = if standby {
            &[&[0], &[1], &[0]]
        } else {
            &[&[0], &[1]]
        };
        let mut w = World::new(lans);
        let insiders: Vec<_> = (0..lans.len()).map(|n| w.programs(n)).collect();
        let (a, b) = (w.host(0, ip(20)), w.host(1, ip(30)));
        w.run(secs(6));
        let all: Vec<_> = insiders.iter().copied().chain([a, b]).collect();
        let address = |w: &World, host: usize| w.lans.hosts[host].address;
        for from in &all {
            for to in all.iter().filter(|to| *to != from) {
                let to = address(&w, *to);
                assert!(w.ping(*from, to, ms(300)), "{from} {to} {standby}");
            }
        }
        for host in &all {
            w.join(*host, SSDP);
        }
        for from in &all {
            for group in [ALL, DIRECTED, MDNS, SSDP] {
                let number = w.send(*from, group);
                w.run(ms(300));
                for host in all.iter().filter(|host| *host != from) {
                    assert_eq!(w.times(*host, number), 1, "{from} {host} {group} {standby}");
                }
            }
        }
        // a gateway's own address is taken, and stays its own
        assert!(!w.is_free(b, ip(200)));
        let here = HostPlace::Here(settings(0, 0).mac);
        assert!(matches!(w.place(1, ip(200)), HostPlace::Behind(_)));
        if !standby {
            assert_eq!(w.place(0, ip(200)), here);
        }
        let thief = w.host(1, ip(200));
        w.run(secs(2));
        assert!(w.ping(a, ip(200), ms(300)));
        assert_eq!(w.times(thief, w.next), 0);
        // silence
        w.run(secs(5));
        let carried = w.lans.carried.clone();
        w.run(secs(60));
        assert_eq!(w.lans.carried, carried);
    }
}

#[test]
fn links_of_a_gateway_do_not_lead_through_its_segment() {
    let mut w = World::new(&[&[0], &[1]]);
    let (own, b) = (w.programs(0), w.host(1, ip(30)));
    assert!(w.ping(own, ip(30), secs(1)) && w.ping(b, ip(200), secs(1)));
    let datagram = |from, to, port| ipv4::udp_packet(from, to, (port, 64), b"DTLS data").into();
    w.send_packet(own, ip(30), datagram(ip(200), ip(30), OWN_PORT));
    w.send_packet(b, ip(200), datagram(ip(30), ip(200), OWN_PORT));
    w.run(secs(1));
    assert_eq!(w.dropped(0, DropReason::SegmentOwnLink), 2);
    // those of other hosts do
    w.send_packet(b, ip(200), datagram(ip(30), ip(200), OWN_PORT + 1));
    w.run(secs(1));
    assert_eq!(w.dropped(0, DropReason::SegmentOwnLink), 2);
}

#[test]
fn hosts_of_other_subnets_are_reached_by_an_address_for_them() {
    let mut w = World::new(&[&[0], &[1]]);
    let subnet = |n: usize, last: u8| Ipv4Addr::new(192, 168, n as u8 + 1, last);
    for n in 0..2 {
        let lan = settings(n, n);
        let routed = LanSettings {
            ipv4: Some(LanIpv4 {
                address: subnet(n, 200),
                prefixes: vec![(subnet(n, 200), 24)],
            }),
            segment: lan.segment.clone().map(|segment| SegmentSettings {
                router: Some(subnet(n, 250)),
                ..segment
            }),
            ..lan
        };
        w.does(n, |engine, now| engine.set_lan(LAN, routed, now));
    }
    w.run(secs(3));
    let a = w.host(0, subnet(0, 20));
    let b = w.host(1, subnet(1, 30));
    w.join(b, SSDP);
    assert!(w.ping(a, subnet(1, 30), secs(1)));
    assert!(w.ping(a, subnet(1, 30), ms(50)) && w.ping(b, subnet(0, 20), ms(50)));
    let virtual_mac = w.engine(0).virtual_mac(LAN);
    assert_eq!(w.mac_of(a, subnet(0, 250)), virtual_mac);
    let number = w.send(a, SSDP);
    w.run(ms(300));
    assert_eq!(w.times(b, number), 1);
    // of no LAN, and of no host
    for nobody in [subnet(7, 1), subnet(1, 99)] {
        assert!(!w.ping(a, nobody, secs(2)), "{nobody}");
    }
    assert!(w.dropped(0, DropReason::SegmentUnknownHost) >= 2);
    let nobody = w.host(0, subnet(0, 40));
    assert!(
        !w.is_free(nobody, subnet(0, 250)),
        "the address for them is taken"
    );
}

fn assert_groups_reach(w: &mut World, from: usize, host: usize) {
    for to in [ALL, SSDP] {
        let number = w.send(from, to);
        w.run(ms(500));
        assert_eq!(w.times(host, number), 1, "{to}");
    }
}

#[test]
fn two_lans_of_one_gateway_are_one_without_a_link() {
    let mut w = World::new(&[&[0, 1]]);
    let a = w.host(0, ip(20));
    let b = w.host(1, ip(30));
    w.join(b, SSDP);
    w.run(secs(3));
    assert!(w.ping(a, ip(30), secs(1)) && w.ping(b, ip(20), secs(1)));
    assert_groups_reach(&mut w, a, b);
}

#[test]
fn routers_between_carry_a_segment_without_taking_part() {
    let line = |a: usize, b: usize| a == 1 || b == 1;
    let labels = |n: usize| (n != 1).then_some("home");
    let mut w = World::with(&[&[0], &[2], &[1]], &labels, &line);
    let a = w.host(0, ip(20));
    let b = w.host(1, ip(30));
    w.join(b, SSDP);
    assert!(w.ping(a, ip(30), secs(1)));
    assert_groups_reach(&mut w, a, b);
}

#[test]
fn a_flood_of_questions_and_hosts_stays_within_bounds_and_cuts_no_running_pair() {
    let (mut w, a, _) = two_houses();
    let flooder = w.host(0, ip(66));
    assert!(w.ping(a, ip(30), secs(1)));
    let mut random = Random::new(7);
    let before = w.lans.carried[0];
    let began = w.now;
    let lan = settings(0, 0);
    let wide = LanSettings {
        ipv4: lan.ipv4.map(|ipv4| LanIpv4 {
            prefixes: vec![(ipv4.address, 16)],
            ..ipv4
        }),
        ..lan
    };
    w.does(0, |engine, now| engine.set_lan(LAN, wide, now));
    for round in 0..20_000_u64 {
        let any = |random: &mut Random| {
            Ipv4Addr::new(
                192,
                168,
                2 + random.below(200) as u8,
                random.below(255) as u8,
            )
        };
        let (sender, target) = (any(&mut random), any(&mut random));
        w.request(flooder, sender, target);
        if round % 1_000 == 0 {
            w.run(ms(50));
            assert!(w.ping(a, ip(30), ms(50)), "round {round}");
        }
    }
    w.run(ms(100));
    let segment = w.segment(0);
    assert!(
        segment.here <= 4_096 && segment.elsewhere <= 4_096,
        "{segment:?}"
    );
    let seconds = (w.now - began).as_secs() + 1;
    let told = w.lans.carried[0] - before;
    assert!(told <= 900 + 60 * seconds, "{told} in {seconds} s");
    assert!(w.dropped(0, DropReason::SegmentStorm) > 0);
    assert!(w.dropped(0, DropReason::SegmentFull) > 0);
}

#[test]
fn neighbour_discovery_is_answered_for_hosts_elsewhere() {
    let mut w = World::new(&[&[0], &[1]]);
    let [a, b] = [0xa, 0xb].map(|n| Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n));
    let (mac_a, mac_b) = (mac(3, 0), mac(3, 1));
    let all = MacAddress::of_group(librecast::mld::ALL_NODES);
    let said = frame_of(mac_b, all, ETHERTYPE_IPV6, advertisement(b, mac_b, None));
    w.sees(1, said);
    let to = MacAddress::of_group(solicited_node(b));
    let asked = solicitation(a, mac_a, b, false);
    let asked = frame_of(mac_a, to, ETHERTYPE_IPV6, asked);
    w.sees(0, asked);
    w.run(ms(200));
    let virtual_mac = w.engine(0).virtual_mac(LAN).unwrap();
    let answer = w
        .lans
        .discovery
        .iter()
        .find(|(lan, frame)| *lan == 0 && frame.destination == mac_a);
    let expected = Advertisement {
        target: b,
        mac: Some(virtual_mac),
    };
    assert_eq!(parse_packet(&answer.unwrap().1.payload), Ok(expected));
    // and a packet arrives with both addresses as they are
    let echo = icmpv6_packet(a, b, 64, &[128, 0, 0, 0, 0, 1, 0, 1]);
    let sent = frame_of(mac_a, virtual_mac, ETHERTYPE_IPV6, echo.clone());
    w.sees(0, sent);
    w.run(ms(50));
    let (lan, got) = w.lans.discovery.last().unwrap();
    assert_eq!(
        (*lan, got.destination, &got.payload[..]),
        (1, mac_b, &echo[..])
    );
    // the sender of a longer one learns the limit
    let long = icmpv6_packet(a, b, 64, &[&[128, 0, 0, 0][..], &[0; 1_500]].concat());
    let sent = frame_of(mac_a, virtual_mac, ETHERTYPE_IPV6, long);
    w.sees(0, sent);
    w.run(ms(50));
    let (lan, got) = w.lans.discovery.last().unwrap();
    let (kind, mtu) = (got.payload[40], &got.payload[44..48]);
    assert_eq!(
        (*lan, got.destination, kind, mtu),
        (0, mac_a, 2, &[0, 0, 5, 220][..])
    );
}

#[test]
fn packets_that_are_too_long_take_no_correction_from_another_host() {
    let mut w = World::new(&[&[0], &[1]]);
    let [a, b] = [20, 21].map(|n| w.host(0, ip(n)));
    w.run(secs(10));
    assert!(w.ping(a, ip(21), secs(1)));
    let virtual_mac = w.engine(0).virtual_mac(LAN).unwrap();
    let [from, to] = [0xa, 0xb].map(|n| Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n));
    let own = mac(3, 0);
    let group = MacAddress::of_group(solicited_node(to));
    let asked = solicitation(from, own, to, false);
    w.sees(0, frame_of(own, group, ETHERTYPE_IPV6, asked));
    w.run(ms(100));
    let before = w.lans.discovery.len();
    // a host with jumbo frames that heeds no error
    let long = icmpv6_packet(from, to, 64, &[&[128, 0, 0, 0][..], &[0; 8_000]].concat());
    for _ in 0..200 {
        w.sees(0, frame_of(own, virtual_mac, ETHERTYPE_IPV6, long.clone()));
    }
    // another one believes that its neighbour is elsewhere
    let now = w.now;
    w.lans.hosts[b].arp.insert(ip(20), (virtual_mac, now));
    w.send(b, ip(20));
    w.run(ms(50));
    assert_eq!(w.mac_of(b, ip(20)), Some(w.lans.hosts[a].mac));
    assert!(w.lans.discovery.len() >= before + 50, "all errors are told");
}

#[test]
fn a_host_with_jumbo_frames_learns_the_limit_of_each_path() {
    let (mut w, a, b) = two_houses();
    let near = w.host(0, ip(21));
    w.run(secs(10));
    assert!(w.ping(a, ip(21), secs(1)) && w.ping(a, ip(30), secs(1)));
    let number = w.send_long(a, ip(21), 9_000);
    w.run(ms(50));
    let limits = |w: &World| w.lans.hosts[a].limits.clone();
    assert_eq!((w.times(near, number), limits(&w)), (1, Vec::new()));
    // it heeds no error
    let long: Vec<_> = (0..200).map(|_| w.send_long(a, ip(30), 9_000)).collect();
    w.run(ms(50));
    assert!(long.iter().all(|number| w.times(b, *number) == 0));
    assert_eq!(w.dropped(0, DropReason::LanTooBig), 200);
    assert_eq!(limits(&w), [1_500; 50], "a burst, and no more");
    let number = w.send_long(a, ip(30), 1_500);
    w.run(ms(50));
    assert_eq!(w.times(b, number), 1);
    // the other house's LAN takes less
    let narrow = LanSettings {
        mtu: 1_400,
        ..settings(1, 1)
    };
    w.does(1, |engine, now| {
        engine.set_lan(LAN, narrow, now);
    });
    w.run(secs(6));
    assert!(w.ping(a, ip(30), secs(1)));
    w.lans.hosts[a].limits.clear();
    for (length, times, told) in [(1_500, 0, vec![1_400]), (1_400, 1, Vec::new())] {
        let number = w.send_long(a, ip(30), length);
        w.run(ms(100));
        let limits = std::mem::take(&mut w.lans.hosts[a].limits);
        assert_eq!((w.times(b, number), limits), (times, told), "{length}");
    }
}

/// A packet of a member to a gateway, or to the group of all, as its node sends it.
fn of_member(
    w: &World,
    n: usize,
    to: Option<usize>,
    inner: &[u8],
    sequence: u64,
) -> (DataHeader, Bytes) {
    let addresses = |n: usize| w.gateways[n].config.member.addresses;
    let from = addresses(n);
    let segment = derive(
        "lcroute 2026 segment",
        &[&from.address.octets()[..6], b"home"],
    );
    let number = u32::from_be_bytes(*segment.first_chunk().unwrap());
    let all = Ipv6Addr::from_bits(0xff15_6c63 << 96 | u128::from(number) << 64);
    let destination = to.map_or(all, |to| addresses(to).address);
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((12 + inner.len() as u16).to_be_bytes());
    packet.extend([254, 64]);
    packet.extend(from.address.octets());
    packet.extend(destination.octets());
    packet.extend(&segment[..12]);
    packet.extend(inner);
    let header = DataHeader {
        root: to.map_or(from.origin, |to| addresses(to).origin),
        ..common::header(from.origin, sequence)
    };
    (header, packet.into())
}

fn message(kind: u8, lan: u64, address: Ipv4Addr) -> Vec<u8> {
    let name = mapped::name(address).octets();
    [&[kind, 0, 2, 0, 0, 0, 9, 9][..], &lan.to_be_bytes(), &name].concat()
}

#[test]
fn members_gain_nothing_by_lies_in_a_segment() {
    // gateway 1 has the right to the segment, gateway 2 has none
    let labels = |n: usize| (n < 2).then_some("home");
    let mut w = World::with(&[&[0], &[1], &[2]], &labels, &|_, _| true);
    let a = w.host(0, ip(20));
    let near = w.host(0, ip(21));
    let b = w.host(1, ip(30));
    assert!(w.ping(a, ip(30), secs(1)) && w.ping(near, ip(20), secs(1)));
    let own_lan = w.engine(1).lans()[0].lan.0;
    let lan_of_a = w.engine(0).lans()[0].lan.0;
    let mut sequence = 1 << 30;
    let mut tell = |w: &mut World, n: usize, to_all: bool, inner: &[u8]| {
        sequence += 1;
        let to = (!to_all).then_some(0);
        let (header, packet) = of_member(w, n, to, inner, sequence);
        let link = w.gateways[0].links[&n];
        w.does(0, |engine, now| {
            engine.handle_packet(link, &header.encode(), packet, now);
        });
    };
    let udp = |from: Ipv4Addr, to: Ipv4Addr| {
        ipv4::udp_packet(from, to, (PORT, 4), b"N\0\0\0\0\0\0\x03\xe7")
    };
    for to_all in [true, false] {
        // no right to the segment
        let before = w.dropped(0, DropReason::SegmentNotPermitted);
        tell(&mut w, 2, to_all, &message(2, own_lan, ip(30)));
        let inner = udp(ip(66), if to_all { ALL } else { ip(20) });
        tell(&mut w, 2, to_all, &inner);
        // in the name of another gateway's LAN
        tell(&mut w, 1, to_all, &message(3, lan_of_a, ip(20)));
        assert_eq!(w.dropped(0, DropReason::SegmentNotPermitted), before + 3);
        // a host that answers here keeps its address
        for _ in 0..40 {
            tell(&mut w, 1, to_all, &message(2, own_lan, ip(20)));
        }
        w.run(secs(1));
        assert_eq!(w.mac_of(near, ip(20)), Some(w.lans.hosts[a].mac));
        assert!(w.ping(near, ip(20), ms(100)));
        // nor does anybody send in its name, or as a router
        let before = w.dropped(0, DropReason::SegmentConflict);
        let inner = udp(ip(20), if to_all { ALL } else { ip(21) });
        tell(&mut w, 1, to_all, &inner);
        assert_eq!(w.dropped(0, DropReason::SegmentConflict), before + 1);
        let before = w.dropped(0, DropReason::SegmentRouter);
        let dhcp = ipv4::udp_packet(
            ip(30),
            if to_all { ALL } else { ip(20) },
            (67, 64),
            &[0; 300],
        );
        tell(&mut w, 1, to_all, &dhcp);
        assert_eq!(w.dropped(0, DropReason::SegmentRouter), before + 1);
        // a source that no host of its LAN can have
        let before = w.dropped(0, DropReason::LanForeignSource);
        tell(
            &mut w,
            1,
            to_all,
            &udp(
                Ipv4Addr::new(10, 0, 0, 1),
                if to_all { ALL } else { ip(20) },
            ),
        );
        assert_eq!(w.dropped(0, DropReason::LanForeignSource), before + 1);
    }
    assert_eq!(
        w.lans.hosts[a]
            .got
            .iter()
            .filter(|got| got.number == 999)
            .count(),
        0
    );
    assert!(w.ping(a, ip(30), ms(100)) && w.ping(b, ip(20), ms(100)));
}

/// Hosts move and sleep, LANs are joined and split, gateways die and come back: no broadcast comes
/// more than twice, no host that is on a LAN is taken for remote there, and all ends well.
#[test]
fn whatever_happens_all_ends_well() {
    for seed in crate::seeds(0..6, 2) {
        let mut random = Random::new(seed);
        let mut below = |n: u64| random.below(n) as usize;
        let mut w = World::new(&[&[0], &[1], &[1], &[2]]);
        let hosts: Vec<_> = (0..6).map(|n| w.host(n % 3, ip(20 + n as u8))).collect();
        for _ in 0..25 {
            let host = hosts[below(6)];
            match below(6) {
                0 => w.move_host(host, below(3)),
                1 => w.lans.hosts[host].lan = None,
                2 => w.join_lans(0, 1 + below(2)),
                3 => w.wired.clear(),
                4 => {
                    let n = below(4);
                    if w.gateways[n].engine.is_some() {
                        w.kill(n);
                    } else {
                        w.boot(n, &|_, _| true);
                    }
                }
                _ => {
                    w.send(host, ip(20 + below(6) as u8));
                }
            }
            let number = w.send(hosts[below(6)], ALL);
            w.run(ms(50 + below(1_500) as u64));
            for host in &hosts {
                assert!(w.times(*host, number) <= 2, "seed {seed}");
            }
        }
        w.wired.clear();
        for n in 0..4 {
            if w.gateways[n].engine.is_none() {
                w.boot(n, &|_, _| true);
            }
        }
        w.run(secs(15));
        for (n, host) in hosts.iter().enumerate() {
            w.move_host(*host, n % 3);
            w.run(ms(700));
        }
        for (n, from) in hosts.iter().enumerate() {
            for to in (0..6).filter(|to| *to != n) {
                let address = ip(20 + to as u8);
                let reached = (0..3).any(|_| w.ping(*from, address, secs(1)));
                assert!(reached, "seed {seed}: {n} to {to}");
            }
            let number = w.send(*from, ALL);
            w.run(ms(300));
            let others = hosts.iter().filter(|other| **other != *from);
            others.for_each(|other| assert_eq!(w.times(*other, number), 1, "seed {seed}"));
        }
        for (n, host) in hosts.iter().enumerate() {
            let gateway = [0, 1, 3][n % 3];
            let place = w.place(gateway, w.lans.hosts[*host].address);
            assert!(
                !matches!(place, HostPlace::Behind(_)),
                "seed {seed}: {n}, {place:?}"
            );
        }
    }
}

#[test]
fn what_any_gateway_put_on_a_wire_is_never_read_again() {
    let mut w = World::new(&[&[0], &[1]]);
    let b = w.host(1, ip(30));
    let foreign = MacAddress::virtual_of([9, 9, 9]);
    let own = w.engine(0).virtual_mac(LAN).unwrap();
    let packet = ipv4::udp_packet(ip(77), ALL, (PORT, 4), b"N\0\0\0\0\0\0\x03\xe7");
    let states = |mac: MacAddress| Arp::request(mac, ip(77), ip(77));
    let all = MacAddress::BROADCAST;
    let frames = [
        frame_of(foreign, all, ETHERTYPE_IPV4, packet.clone()),
        frame_of(own, all, ETHERTYPE_IPV4, packet.clone()),
        frame_of(foreign, all, ETHERTYPE_ARP, states(mac(4, 0)).encode()),
        frame_of(mac(4, 0), all, ETHERTYPE_ARP, states(foreign).encode()),
    ];
    let before = (w.lans.carried[0], w.dropped(0, DropReason::LanGatewayFrame));
    for frame in frames {
        w.sees(0, frame);
    }
    w.run(secs(1));
    let after = (w.lans.carried[0], w.dropped(0, DropReason::LanGatewayFrame));
    assert_eq!(after, (before.0, before.1 + 4));
    assert_eq!(w.place(0, ip(77)), HostPlace::Unknown);
    assert_eq!(w.segment(0).problem, None, "a gateway that wakes up");
    w.run(secs(2));
    let again = frame_of(own, all, ETHERTYPE_IPV4, packet.clone());
    w.sees(0, again);
    assert_eq!(w.segment(0).problem, Some(SegmentProblem::Rival(own)));
    // the same of a host crosses
    let of_host = frame_of(mac(4, 0), all, ETHERTYPE_IPV4, packet);
    w.sees(0, of_host);
    w.run(ms(100));
    assert_eq!(w.times(b, 999), 1);
}

#[test]
fn a_sealed_segment_is_read_by_gateways_with_its_key_alone() {
    let mut w = World::new(&[&[0], &[1], &[2]]);
    let (a, b, c) = (w.host(0, ip(20)), w.host(1, ip(30)), w.host(2, ip(40)));
    let set = |w: &mut World, n: usize, secret: Option<u8>| {
        let node = w.gateways[n].services.addresses().address;
        let secrets = secret.map(|byte| vec![Secret::new([byte; SECRET_LEN])]);
        let private = secrets.map(|secrets| PrivatePrefix::of_segment(node, "home", secrets));
        w.does(n, |engine, now| {
            engine.set_private(private.into_iter().collect(), now);
        });
    };
    let peer = |w: &World, n: usize| w.gateways[n].services.peer();
    for n in [0, 1] {
        set(&mut w, n, Some(7));
    }
    let carried = w.lans.carried.clone();
    assert!(w.ping(a, ip(30), secs(1)) && w.ping(b, ip(20), secs(1)));
    for (group, joined) in [(ALL, false), (SSDP, true)] {
        if joined {
            w.join(b, group);
            w.join(c, group);
        }
        let number = w.send(a, group);
        w.run(ms(500));
        assert_eq!((w.times(b, number), w.times(c, number)), (1, 0), "{group}");
    }
    assert_eq!(w.lans.carried[..2], carried[..2], "nothing in clear");
    // one without a key, or with another: each side says it of the other
    for (key, reason) in [
        (None, DropReason::NotSealed),
        (Some(9), DropReason::NoGroupKey),
    ] {
        set(&mut w, 2, key);
        // those who were not found are asked for again
        w.run(secs(11));
        assert!(!w.ping(c, ip(20), secs(2)) && !w.ping(a, ip(40), secs(2)));
        assert!(w.dropped(2, DropReason::NoGroupKey) > 0 && w.dropped(0, reason) > 0);
        let problem = w.segment(2).problem;
        assert!(matches!(&problem, Some(SegmentProblem::NoKey(of)) if of.contains(&peer(&w, 0))));
        let of = vec![peer(&w, 2)];
        let expected = match key {
            None => SegmentProblem::InClear(of),
            Some(_) => SegmentProblem::NoKey(of),
        };
        assert_eq!(w.segment(0).problem, Some(expected));
    }
    set(&mut w, 2, Some(7));
    w.run(secs(11));
    assert!(w.ping(c, ip(20), secs(2)) && w.ping(a, ip(40), secs(2)));
    assert!(w.ping(c, ip(30), secs(2)));
    for n in 0..3 {
        assert_eq!(w.segment(n).problem, None, "{n}");
    }
}

/// A switch that drops the gateways' frames, or frames to them: hosts ask, and nothing comes.
#[test]
fn a_lan_that_drops_frames_of_gateways_is_named_until_one_arrives() {
    let (mut w, a, _) = two_houses();
    w.run(secs(6));
    assert!(w.ping(a, ip(30), secs(2)));
    assert_eq!(w.segment(0).problem, None);
    for _ in 0..10 {
        w.ask(a, ip(30));
        w.run(ms(100));
    }
    let mac = w.segment(0).virtual_mac;
    assert_eq!(w.segment(0).problem, Some(SegmentProblem::Unheard(mac)));
    assert!(w.ping(a, ip(30), secs(2)));
    assert_eq!(w.segment(0).problem, None);
}
