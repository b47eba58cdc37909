//! LANs behind gateways, under virtual time: hosts without lcroute, one or two gateways on each
//! LAN, links between all gateways. Gateways die, pause, lose links or their LAN, and come back.

use crate::common;
use crate::gateways::{self, LAN, WIRE, Wires, ms, secs};

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::services::Rights;
use common::{addresses, group, join, leave, udp};
use lcroute_engine::{
    Ipv4Config, LanFrame, LanIpv4, LanProblem, LanRole, LanSettings, LanSnapshot, LocalInterfaceId,
    Output, PrivatePrefix, SECRET_LEN, Secret,
};
use librecast::cert::{GroupPrefix, SourcePrefix};
use librecast::ethernet::MacAddress;
use librecast::ipv4::{self, Envelope, Header};
use librecast::ipv6::{Datagram, udp_packet};
use librecast::mld::{self, Message, Record, RecordType};
use librecast::random::Random;
use librecast::{igmp, mapped};

/// Addresses of the hosts of a LAN.
fn prefix(lan: usize) -> SourcePrefix {
    SourcePrefix::new(Ipv6Addr::new(0x2001, 0xdb8, lan as u16, 0, 0, 0, 0, 0), 64).unwrap()
}

fn host_address(lan: usize, host: usize) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, lan as u16, 0, 0, 0, 0, 0x100 + host as u16)
}

fn mac(lan: usize, n: u16) -> MacAddress {
    let [high, low] = n.to_be_bytes();
    MacAddress([2, 0, 0, lan as u8, high, low])
}

fn settings(lan: usize, gateway: usize) -> LanSettings {
    let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, lan as u16, 1, gateway as u16);
    LanSettings {
        prefixes: vec![prefix(lan)],
        ..common::lan_settings(lan, mac(lan, gateway as u16), link_local)
    }
}

/// All LANs have the same addresses.
fn host_ipv4(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 1, 100 + host as u8)
}

fn gateway_ipv4(gateway: usize) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 1, 10 + gateway as u8)
}

fn stream(n: u8) -> Ipv6Addr {
    mapped::name(Ipv4Addr::new(239, 1, 2, n))
}

fn settings_ipv4(lan: usize, gateway: usize) -> LanSettings {
    let mut groups = GroupPrefix::all_of("224.0.0.0/4").unwrap();
    groups.push(GroupPrefix::ALL);
    LanSettings {
        groups,
        ipv4: Some(LanIpv4 {
            address: gateway_ipv4(gateway),
            prefixes: vec![(gateway_ipv4(gateway), 24)],
        }),
        ..settings(lan, gateway)
    }
}

/// Source and destination of a packet, and the number in it.
fn read(packet: &[u8]) -> (Ipv6Addr, Ipv6Addr, Option<u64>) {
    let (source, group, data) = match Header::read(packet) {
        Ok(header) => {
            let names = [header.source, header.destination].map(mapped::name);
            (names[0], names[1], header.payload.get(8..))
        }
        Err(_) => {
            let address = |at| Ipv6Addr::from(*packet[at..].first_chunk::<16>().unwrap());
            (address(8), address(24), packet.get(48..))
        }
    };
    let number = data.and_then(|data| data.first_chunk::<8>());
    (source, group, number.map(|n| u64::from_be_bytes(*n)))
}

fn read_message(packet: &[u8]) -> Option<Message> {
    let ipv6 = mld::parse_packet(packet).ok();
    let message = ipv6.or_else(|| igmp::parse_packet(packet).ok());
    message.map(|(_, message)| message)
}

#[derive(Debug)]
enum Event {
    /// A frame on a LAN, from this Ethernet address.
    Frame(usize, MacAddress, Bytes),
    Report(usize, usize, Bytes),
}

#[derive(Default)]
struct Host {
    joined: BTreeSet<Ipv6Addr>,
    received: Vec<(u64, Instant)>,
    /// Sources of received packets.
    sources: BTreeSet<Ipv6Addr>,
}

/// Two hosts on each LAN.
struct Lans {
    hosts: Vec<Vec<Host>>,
    /// LANs between which a host that is not a gateway repeats multicast DNS.
    reflected: Option<(usize, usize)>,
    ipv4: bool,
    /// Frames from gateways for a LAN's hosts that stay on the link, without MLD.
    said: Vec<(usize, Bytes)>,
}

type World = gateways::World<Lans>;

impl Wires for Lans {
    type Event = Event;

    fn mac(gateway: usize, lan: usize) -> MacAddress {
        mac(lan, gateway as u16)
    }

    fn from_gateway(world: &mut World, gateway: usize, lan: usize, frame: LanFrame) {
        if let LanFrame::Multicast(packet) | LanFrame::Link(packet) = frame {
            let event = Event::Frame(lan, Self::mac(gateway, lan), packet);
            world.push(world.now + WIRE, event);
        }
    }

    fn happen(world: &mut World, event: Event) {
        match event {
            Event::Frame(lan, from, packet) => world.frame(lan, from, &packet),
            Event::Report(lan, host, packet) => {
                let from = mac(lan, 0x100 + host as u16);
                world.frame(lan, from, &packet);
            }
        }
    }
}

impl World {
    /// A world with this number of gateways on each LAN, and two hosts.
    fn new(gateways: &[usize]) -> Self {
        Self::with(gateways, false, &|_| vec![SourcePrefix::ANY])
    }

    /// The same with IPv4 on nodes and LANs.
    fn with_ipv4(gateways: &[usize]) -> Self {
        Self::with(gateways, true, &|_| vec![SourcePrefix::ANY])
    }

    /// The same with gateways that may send for hosts of these prefixes.
    fn with(gateways: &[usize], ipv4: bool, may: &dyn Fn(usize) -> Vec<SourcePrefix>) -> Self {
        let two = || vec![Host::default(), Host::default()];
        let lans = Lans {
            hosts: gateways.iter().map(|_| two()).collect(),
            reflected: None,
            ipv4,
            said: Vec::new(),
        };
        let on = gateways.iter().enumerate();
        let on = on.flat_map(|(lan, count)| vec![vec![lan]; *count]);
        let rights = |n| Rights {
            gateway: may(n),
            ..Rights::default()
        };
        let mut world = Self::of(on.collect(), &rights, lans);
        (0..world.gateways.len()).for_each(|n| world.boot(n));
        world
    }

    fn settings(&self, n: usize) -> LanSettings {
        let lan = self.gateways[n].lans[0];
        match self.lans.ipv4 {
            true => settings_ipv4(lan, n),
            false => settings(lan, n),
        }
    }

    fn boot(&mut self, n: usize) {
        self.gateways[n].config.ipv4 = self.lans.ipv4.then_some(Ipv4Config {
            network: "10.77.0.0/16".parse().unwrap(),
            kept: None,
            assigns: true,
        });
        self.start(n, vec![self.settings(n)]);
        self.connect(n, &|_, _| true);
        self.settle(n);
    }

    fn set_all(&mut self, change: &dyn Fn(&mut LanSettings)) {
        for n in 0..self.gateways.len() {
            let mut settings = self.settings(n);
            change(&mut settings);
            self.does(n, |engine, now| engine.set_lan(LAN, settings, now));
        }
    }

    fn kill(&mut self, n: usize) {
        self.stop(n);
        self.lose_links(n);
    }

    fn set_uplink(&mut self, n: usize, has_uplink: bool) {
        self.gateways[n].has_uplink = has_uplink;
        match has_uplink {
            true => self.connect(n, &|_, _| true),
            false => self.lose_links(n),
        }
    }

    /// Unplugs the gateway's cable, or plugs it in.
    fn set_carrier(&mut self, n: usize, running: bool) {
        self.gateways[n].on_lan = running;
        let now = self.now;
        if let Some(engine) = &mut self.gateways[n].engine {
            engine.set_lan_running(LAN, running, now);
        }
        self.settle(n);
    }

    fn lose_links(&mut self, n: usize) {
        for other in (0..self.gateways.len()).filter(|other| *other != n) {
            self.lose(n, other);
            self.lose(other, n);
        }
    }

    /// A program or the kernel of a gateway sends a packet.
    fn local(&mut self, n: usize, packet: impl Into<Bytes>) {
        self.does(n, |engine, now| {
            engine.handle_local_packet(packet.into(), now);
        });
    }

    /// The next PROBE of the first gateway on an interface.
    fn probe_of_the_first(&mut self, interface: LocalInterfaceId) -> Bytes {
        loop {
            let engine = self.gateways[0].engine.as_mut().unwrap();
            while let Some(output) = engine.poll_output() {
                if let Output::Lan {
                    interface: at,
                    frame: LanFrame::Probe(probe),
                    ..
                } = output
                    && at == interface
                {
                    return probe;
                }
            }
            let (at, _) = engine.next_timeout().unwrap();
            self.now = at.max(self.now);
            engine.handle_timeout(self.now);
        }
    }

    fn frame(&mut self, lan: usize, from: MacAddress, packet: &Bytes) {
        self.frames += 1;
        for (n, interface) in self.hearing(lan, from) {
            let packet = packet.clone();
            self.does(n, |engine, now| {
                engine.handle_lan_packet(interface, from, packet, now);
            });
        }
        let (source, group, number) = read(packet);
        if let Ok(header) = Header::read(packet)
            && header.payload.first() == Some(&0x11)
        {
            assert_ne!(header.payload[1], 0, "a query of version 1 to old hosts");
        }
        if group.segments()[0] == 0xff02 {
            let is_gateway = |n| from == mac(lan, n as u16);
            if mld::parse_packet(packet).is_err() && (0..self.gateways.len()).any(is_gateway) {
                self.lans.said.push((lan, packet.clone()));
            }
        }
        if let Some((a, b)) = self.lans.reflected.filter(|_| group == MDNS) {
            let reflector = |lan| mac(lan, 0x1ff);
            let to = if lan == a { b } else { a };
            if [a, b].contains(&lan) && from != reflector(lan) {
                let event = Event::Frame(to, reflector(to), packet.clone());
                self.push(self.now + ms(1), event);
            }
        }
        let lans = 0..self.lans.hosts.len();
        let reached: Vec<_> = lans.filter(|other| self.reaches(lan, *other)).collect();
        for lan in reached {
            for host in 0..self.lans.hosts[lan].len() {
                if mac(lan, 0x100 + host as u16) == from {
                    continue;
                }
                match read_message(packet) {
                    Some(Message::Query(query)) => {
                        let is_ipv4 = mapped::is_group_name(group);
                        self.answer(lan, host, (query.group, is_ipv4));
                    }
                    None if self.lans.hosts[lan][host].joined.contains(&group) => {
                        let host = &mut self.lans.hosts[lan][host];
                        host.received.push((number.unwrap(), self.now));
                        host.sources.insert(source);
                    }
                    _ => {}
                }
            }
        }
    }

    fn answer(&mut self, lan: usize, host: usize, (asked, ipv4): (Option<Ipv6Addr>, bool)) {
        let joined = self.lans.hosts[lan][host].joined.iter();
        let joined = joined.filter(|g| mapped::is_group_name(**g) == ipv4);
        let asked: Vec<_> = joined.filter(|g| asked.is_none_or(|a| a == **g)).collect();
        let record = |g: &&Ipv6Addr| Record::new(RecordType::ModeIsExclude, **g, Vec::new());
        let records: Vec<_> = asked.iter().map(record).collect();
        for packet in reports(lan, host, &records) {
            let event = Event::Report(lan, host, packet.into());
            self.push(self.now + ms(20), event);
        }
    }

    fn join(&mut self, lan: usize, host: usize, group: Ipv6Addr) {
        self.lans.hosts[lan][host].joined.insert(group);
        self.report(
            lan,
            host,
            Record::new(RecordType::ChangeToExclude, group, vec![]),
        );
    }

    fn leave(&mut self, lan: usize, host: usize, group: Ipv6Addr) {
        self.lans.hosts[lan][host].joined.remove(&group);
        self.report(
            lan,
            host,
            Record::new(RecordType::ChangeToInclude, group, vec![]),
        );
    }

    fn report(&mut self, lan: usize, host: usize, record: Record) {
        let packet: Bytes = reports(lan, host, &[record]).remove(0).into();
        for at in [Duration::ZERO, ms(400)] {
            let event = Event::Report(lan, host, packet.clone());
            self.push(self.now + at, event);
        }
    }

    /// A host sends the next number.
    fn send(&mut self, lan: usize, host: usize, group: Ipv6Addr) -> u64 {
        self.next += 1;
        let data = self.next.to_be_bytes();
        let packet = match mapped::ipv4(group) {
            Some(group) => ipv4::udp_packet(host_ipv4(host), group, (5_004, 4), &data),
            None => udp(host_address(lan, host), group, &data),
        };
        let from = mac(lan, 0x100 + host as u16);
        self.push(self.now, Event::Frame(lan, from, packet.into()));
        self.next
    }

    /// A host sends for this time, 50 times a second.
    fn stream(&mut self, lan: usize, host: usize, group: Ipv6Addr, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.send(lan, host, group);
            self.run(ms(20));
        }
    }

    fn received(&self, lan: usize, host: usize) -> Vec<u64> {
        self.lans.hosts[lan][host]
            .received
            .iter()
            .map(|(n, _)| *n)
            .collect()
    }

    /// Checks that no host has a duplicate.
    fn check_once(&self) {
        for (lan, hosts) in self.lans.hosts.iter().enumerate() {
            for (host, h) in hosts.iter().enumerate() {
                let mut seen = BTreeSet::new();
                let twice: Vec<_> = h
                    .received
                    .iter()
                    .filter(|(n, _)| !seen.insert(*n))
                    .collect();
                assert!(twice.is_empty(), "lan {lan} host {host}: {twice:?}");
            }
        }
    }

    fn check_all(&self, lan: usize, host: usize, first: u64) {
        let received: BTreeSet<_> = self.received(lan, host).into_iter().collect();
        let missing = (first..=self.next).find(|n| !received.contains(n));
        assert_eq!(
            (missing, received.first()),
            (None, Some(&first)),
            "LAN {lan}"
        );
    }

    fn lan(&self, n: usize) -> LanSnapshot {
        self.gateways[n].engine.as_ref().unwrap().lans().remove(0)
    }

    fn ipv4_address(&self, n: usize) -> Ipv4Addr {
        let engine = self.gateways[n].engine.as_ref().unwrap();
        engine.ipv4_address().unwrap()
    }

    fn forwarders(&self, lan: usize) -> Vec<usize> {
        let is_forwarder = |n: &usize| {
            let g = &self.gateways[*n];
            g.lans == [lan]
                && g.engine.is_some()
                && self.lan(*n).standing.role == LanRole::Forwarder
        };
        (0..self.gateways.len()).filter(is_forwarder).collect()
    }

    /// The longest time in which a host received nothing.
    fn gap(&self, lan: usize, host: usize, since: Instant) -> Duration {
        let received = &self.lans.hosts[lan][host].received;
        let times = received.iter().map(|(_, at)| *at).filter(|at| *at >= since);
        let times: Vec<_> = [since].into_iter().chain(times).chain([self.now]).collect();
        times.windows(2).map(|w| w[1] - w[0]).max().unwrap()
    }
}

/// The same world with an IPv6 group, and with an IPv4 group: all LANs have equal IPv4 addresses.
fn of_both_kinds(gateways: &[usize]) -> [(World, Ipv6Addr); 2] {
    let (ipv6, ipv4) = (World::new(gateways), World::with_ipv4(gateways));
    [(ipv6, group(1)), (ipv4, stream(1))]
}

fn reporter(lan: usize, host: usize) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, lan as u16, 2, host as u16)
}

/// Reports in the protocols of the groups.
fn reports(lan: usize, host: usize, records: &[Record]) -> Vec<Vec<u8>> {
    let mut packets = igmp::report_packets(host_ipv4(host), records, 1_280);
    let ipv6 = records.iter().filter(|r| !mapped::is_group_name(r.group));
    let ipv6: Vec<_> = ipv6.cloned().collect();
    packets.extend(mld::report_packets(reporter(lan, host), &ipv6, 1_280));
    packets
}

#[test]
fn a_host_of_one_lan_hears_a_host_of_another_and_nothing_flows_before_and_after() {
    let mut w = World::new(&[1, 1]);
    let g = group(1);
    w.run(secs(5));
    w.stream(0, 0, g, secs(3));
    assert_eq!(w.sent, 0, "nobody listens");
    w.join(1, 0, g);
    w.run(ms(100));
    let first = w.next + 1;
    w.stream(0, 0, g, secs(10));
    w.run(ms(100));
    w.check_all(1, 0, first);
    assert!(w.received(1, 0).is_sorted() && w.received(1, 1).is_empty());
    w.leave(1, 0, g);
    w.stream(0, 0, g, secs(2));
    let (sent, frames) = (w.sent, w.frames);
    w.stream(0, 0, g, secs(3));
    assert_eq!(w.sent, sent, "silence");
    assert!(w.frames - frames < 200, "on the LANs, too");
    w.check_once();
}

#[test]
fn first_packets_wait_for_a_listener_of_a_lan() {
    let mut w = World::new(&[1, 1]);
    w.run(secs(5));
    let number = w.send(0, 0, group(1));
    w.run(ms(300));
    w.join(1, 0, group(1));
    w.run(ms(500));
    assert_eq!(w.received(1, 0), [number]);
}

#[test]
fn one_source_of_a_lan_is_joined() {
    let mut w = World::new(&[1, 1, 1]);
    let g: Ipv6Addr = "ff3e::8000:1".parse().unwrap();
    w.run(secs(5));
    w.lans.hosts[1][0].joined.insert(g);
    let sources = vec![host_address(0, 1)];
    w.report(1, 0, Record::new(RecordType::AllowNewSources, g, sources));
    w.run(ms(100));
    w.send(0, 0, g);
    let wanted = w.send(0, 1, g);
    w.send(2, 0, g);
    w.run(ms(500));
    assert_eq!(w.received(1, 0), [wanted]);
}

#[test]
fn a_flood_of_joins_from_forged_addresses_is_held_back_and_joins_of_others_are_not() {
    let mut w = World::new(&[1, 1]);
    w.run(secs(5));
    let g = group(1);
    let flooder = mac(1, 0x101);
    for n in 0..2_500_u16 {
        let forged = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 9, 9, n);
        let record = Record::new(RecordType::ChangeToExclude, group(100 + n), vec![]);
        let report = mld::report_packets(forged, &[record], 1280).remove(0);
        w.push(w.now, Event::Frame(1, flooder, report.into()));
        w.run(Duration::from_micros(200));
    }
    w.join(1, 0, g);
    w.run(ms(100));
    let first = w.next + 1;
    w.stream(0, 0, g, secs(2));
    w.run(ms(100));
    w.check_all(1, 0, first);
    let drops = w.lan(1).counters;
    assert!(drops["lan_join_limited"] > 1_000, "{drops:?}");
}

#[test]
fn programs_of_a_gateway_and_hosts_of_its_lan_hear_each_other() {
    let mut w = World::new(&[1, 1]);
    let g = group(1);
    w.run(secs(5));
    // a program on lc0 of the first gateway
    w.local(0, join(g));
    w.join(0, 1, g);
    w.run(ms(100));
    let own = udp(addresses(1).address, g, &7u64.to_be_bytes());
    let now = w.now;
    let engine = w.gateways[0].engine.as_mut().unwrap();
    engine.handle_local_packet(own.into(), now);
    let mut local = 0;
    while let Some(output) = w.poll(0) {
        local += usize::from(matches!(output, Output::Local { .. }));
        w.handle_output(0, output);
    }
    assert_eq!(local, 0, "the kernel loops it back itself");
    w.run(ms(100));
    assert_eq!(w.received(0, 1), [7]);
    // and in the other direction
    let packet = udp(host_address(0, 0), g, &8u64.to_be_bytes());
    let now = w.now;
    let engine = w.gateways[0].engine.as_mut().unwrap();
    engine.handle_lan_packet(LAN, mac(0, 0x100), packet.into(), now);
    let mut outputs = std::iter::from_fn(|| engine.poll_output());
    assert!(outputs.any(|o| matches!(o, Output::Local { .. })));
    w.local(0, leave(g));
}

#[test]
fn groups_of_routers_stay_on_their_lan_at_any_scope() {
    let mut w = World::new(&[1, 1]);
    w.run(secs(5));
    for (group, carried) in [("ff0e::2", false), ("ff05::1:3", false), ("ff1e::2", true)] {
        let group = group.parse().unwrap();
        w.join(1, 0, group);
        w.run(ms(200));
        let number = w.send(0, 0, group);
        w.run(ms(200));
        assert_eq!(w.received(1, 0).contains(&number), carried, "{group}");
    }
}

#[test]
fn multicast_of_a_lan_that_ends_before_its_headers_do_is_counted() {
    let mut w = World::new(&[1, 1]);
    w.run(secs(5));
    let packet = udp(host_address(0, 0), stream(1), &7u64.to_be_bytes());
    let now = w.now;
    let engine = w.gateways[0].engine.as_mut().unwrap();
    for len in [0, 1, 39] {
        engine.handle_lan_packet(LAN, mac(0, 0x100), packet[..len].to_vec().into(), now);
    }
    assert_eq!(engine.dropped(lcroute_engine::DropReason::Malformed), 3);
}

#[test]
fn two_gateways_on_both_lans_carry_each_packet_once() {
    for (mut w, g) in of_both_kinds(&[2, 2]) {
        w.run(secs(8));
        for lan in 0..2 {
            assert_eq!(w.forwarders(lan).len(), 1);
            w.join(lan, 0, g);
        }
        let names = |w: &World| [0, 1, 2, 3].map(|n| w.lan(n).lan);
        let before = names(&w);
        assert!(before[0] == before[1] && before[2] == before[3] && before[0] != before[2]);
        w.run(ms(500));
        let first = w.next + 1;
        for _ in 0..1_500 {
            w.send(0, 1, g);
            w.send(1, 1, g);
            w.run(ms(40));
        }
        w.run(ms(200));
        assert_eq!(names(&w), before, "a LAN keeps its name");
        w.check_once();
        for lan in 0..2 {
            w.check_all(lan, 0, first);
        }
        // the forwarder reports the network's joins, but no host joins these
        for n in 0..4 {
            let mut listeners = w.lan(n).listeners;
            listeners.retain(|(group, _)| *group == g);
            assert_eq!(listeners, [(g, 1)], "{n}");
        }
    }
}

#[test]
fn a_forwarder_that_fails_is_replaced_within_three_seconds() {
    let worlds = (0..4).flat_map(|fault| of_both_kinds(&[2, 2]).map(|world| (fault, world)));
    for (fault, (mut w, g)) in worlds {
        w.run(secs(8));
        w.join(1, 0, g);
        w.run(ms(500));
        w.stream(0, 0, g, secs(2));
        for lan in [1, 0] {
            let forwarder = w.forwarders(lan)[0];
            let since = w.now;
            match fault {
                0 => w.kill(forwarder),
                1 => {
                    w.gateways[forwarder].paused = w.now + secs(6);
                    w.lose_links(forwarder);
                }
                2 => w.set_uplink(forwarder, false),
                _ => w.set_carrier(forwarder, false),
            }
            w.stream(0, 0, g, secs(8));
            let gap = w.gap(1, 0, since);
            assert!(gap < secs(3), "fault {fault} on LAN {lan}: {gap:?}");
            let others: Vec<_> = w
                .forwarders(lan)
                .into_iter()
                .filter(|n| *n != forwarder)
                .collect();
            assert_eq!(others.len(), 1, "fault {fault}");
            match fault {
                0 => w.boot(forwarder),
                1 | 2 => w.set_uplink(forwarder, true),
                _ => w.set_carrier(forwarder, true),
            }
            w.stream(0, 0, g, secs(8));
            assert_eq!(w.forwarders(lan).len(), 1, "fault {fault}");
            w.check_once();
        }
    }
}

#[test]
fn whatever_fails_all_ends_well() {
    for seed in crate::seeds(0..12, 3) {
        let mut random = Random::new(seed);
        let mut w = World::new(&[2, 2]);
        let g = group(1);
        w.run(secs(5));
        w.join(0, 0, g);
        w.join(1, 0, g);
        w.run(ms(500));
        for _ in 0..12 {
            let n = random.below(4) as usize;
            match random.below(4) {
                0 if w.gateways[n].engine.is_some() => w.kill(n),
                0 => w.boot(n),
                1 => {
                    let has = w.gateways[n].has_uplink;
                    w.set_uplink(n, !has);
                }
                2 => w.gateways[n].on_lan ^= true,
                _ => w.gateways[n].paused = w.now + ms(random.below(5_000)),
            }
            let time = ms(random.below(6_000));
            w.stream(random.below(2) as usize, 1, g, time);
        }
        for n in 0..4 {
            w.gateways[n].on_lan = true;
            w.gateways[n].paused = w.now;
            w.gateways[n].has_uplink = true;
            w.boot(n);
        }
        w.run(secs(15));
        let frames = w.frames;
        w.run(secs(1));
        assert!(w.frames - frames < 100, "seed {seed}: a storm");
        for lan in 0..2 {
            assert_eq!(w.forwarders(lan).len(), 1, "seed {seed}");
            let number = w.send(lan, 1, g);
            w.run(ms(500));
            for listening in 0..2 {
                let got = w
                    .received(listening, 0)
                    .iter()
                    .filter(|n| **n == number)
                    .count();
                assert_eq!(got, 1, "seed {seed}, LAN {lan} to {listening}");
            }
        }
    }
}

#[test]
fn a_lan_that_is_split_is_two_and_one_again() {
    let mut w = World::new(&[2, 1]);
    let g = group(1);
    w.run(secs(5));
    w.join(1, 0, g);
    w.run(ms(500));
    let forwarder = w.forwarders(0)[0];
    let other = 1 - forwarder;
    // a switch between them fails: the forwarder is alone
    w.gateways[forwarder].on_lan = false;
    w.stream(0, 0, g, secs(6));
    assert_eq!(w.forwarders(0), [0, 1]);
    assert_ne!(w.lan(forwarder).lan, w.lan(other).lan);
    let since = w.now;
    w.gateways[forwarder].on_lan = true;
    w.stream(0, 0, g, secs(4));
    assert_eq!(w.forwarders(0).len(), 1);
    assert_eq!(w.lan(forwarder).lan, w.lan(other).lan);
    assert!(w.gap(1, 0, since) < secs(1));
    // for a second at most both carry packets, as neither knows the other yet
    let settled = w.now - secs(3);
    let late = w.lans.hosts[1][0]
        .received
        .iter()
        .filter(|(_, at)| *at >= settled);
    let late: Vec<u64> = late.map(|(n, _)| *n).collect();
    assert_eq!(late.len(), late.iter().collect::<BTreeSet<_>>().len());
}

#[test]
fn lans_that_a_wire_joins_make_no_storm() {
    for (mut w, g) in of_both_kinds(&[1, 1]) {
        w.run(secs(8));
        w.join(0, 0, g);
        w.join(1, 0, g);
        w.run(secs(1));
        w.wired.insert((0, 1));
        w.run(secs(5));
        let frames = w.frames;
        let first = w.next + 1;
        w.stream(0, 1, g, secs(5));
        assert!(w.frames - frames < 600, "{g}: {}", w.frames - frames);
        w.run(secs(1));
        w.check_once();
        // over the wire
        w.check_all(1, 0, first);
        w.wired.clear();
        w.run(secs(5));
        let number = w.send(0, 1, g);
        w.run(secs(1));
        // over the network again
        assert_eq!(w.received(1, 0).last(), Some(&number), "{g}");
    }
}

#[test]
fn lans_whose_wire_is_cut_hear_each_other_again() {
    let mut w = World::new(&[1, 1]);
    let g = group(1);
    w.run(secs(5));
    for lan in 0..2 {
        w.join(lan, 0, g);
    }
    w.run(secs(1));
    w.wired.insert((0, 1));
    for _ in 0..100 {
        w.send(0, 1, g);
        w.send(1, 1, g);
        w.run(ms(20));
    }
    w.wired.clear();
    w.run(secs(3));
    for lan in 0..2 {
        let number = w.send(lan, 1, g);
        w.run(secs(1));
        assert_eq!(w.received(1 - lan, 0).last(), Some(&number));
    }
}

#[test]
fn listeners_of_two_lans_that_a_wire_joins_are_all_known_to_the_one_forwarder() {
    let mut w = World::new(&[1, 1, 1]);
    w.run(secs(5));
    for lan in 0..2 {
        w.join(lan, 0, group(2 + lan as u16));
    }
    w.run(secs(50));
    w.wired.insert((0, 1));
    w.run(secs(3));
    for lan in 0..2 {
        let number = w.send(2, 0, group(2 + lan as u16));
        w.run(secs(1));
        assert_eq!(w.received(lan, 0), [number]);
    }
}

#[test]
fn a_second_interface_on_one_lan_is_left_out_and_a_recorded_probe_does_that_to_none() {
    let mut w = World::new(&[1]);
    let second = LocalInterfaceId(2);
    let other = LanSettings {
        mac: mac(1, 0),
        ..settings(1, 0)
    };
    let engine = w.gateways[0].engine.as_mut().unwrap();
    engine.set_lan(second, other, w.now);
    w.run(secs(5));
    let roles = |w: &World| -> Vec<_> {
        let lans = w.gateways[0].engine.as_ref().unwrap().lans();
        lans.into_iter().map(|lan| lan.standing.role).collect()
    };
    assert_eq!(roles(&w), [LanRole::Forwarder; 2]);
    let hear = |w: &mut World, probe: &Bytes| {
        let engine = w.gateways[0].engine.as_mut().unwrap();
        engine.handle_lan_probe(second, mac(0, 0), probe, w.now);
        w.run(ms(10));
    };
    let recorded = w.probe_of_the_first(LAN);
    w.run(secs(2));
    hear(&mut w, &recorded);
    assert_eq!(roles(&w), [LanRole::Forwarder; 2]);
    let fresh = w.probe_of_the_first(LAN);
    hear(&mut w, &fresh);
    assert_eq!(roles(&w), [LanRole::Forwarder, LanRole::Off]);
}

fn question(lan: usize, host: usize, name: u16) -> (MacAddress, Bytes) {
    let mut message = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    // one label; an address; asks for unicast
    let [high, low] = name.to_be_bytes();
    message.extend([2, high, low, 0, 0, 28, 0x80, 1]);
    let packet = udp_packet(reporter(lan, host), MDNS, (5_353, 255), &message);
    (mac(lan, 0x100 + host as u16), packet.into())
}

const MDNS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);

#[test]
fn multicast_dns_goes_to_lans_that_reflect_it_once_and_from_their_gateways() {
    let mut w = World::new(&[2, 2, 1, 1]);
    w.set_all(&|s| s.reflect_mdns = s.name != "lan3");
    w.run(secs(5));
    for lan in [0, 1, 3] {
        w.join(lan, 0, MDNS);
    }
    w.run(secs(1));
    w.lans
        .said
        .retain(|(_, packet)| packet[24..40] == MDNS.octets());
    assert!(w.lans.said.is_empty());
    let (from, packet) = question(0, 1, 1);
    let again = (from, packet.clone());
    w.push(w.now, Event::Frame(0, from, packet));
    w.run(ms(100));
    w.push(w.now, Event::Frame(0, again.0, again.1));
    w.run(ms(100));
    let [(1, said)] = &w.lans.said[..] else {
        panic!(
            "nobody has joined on LAN 2, LAN 3 does not reflect: {:?}",
            w.lans.said
        );
    };
    let gateway = settings(1, w.forwarders(1)[0]).link_local;
    let (_, class) = said.split_last_chunk::<2>().unwrap();
    assert_eq!((said[7], class), (255, &[0, 1]));
    assert_eq!(said[8..24], gateway.octets());
    assert!(Datagram::of_packet(said).is_some());
    // and in the other direction
    let (from, packet) = question(1, 1, 2);
    w.push(w.now, Event::Frame(1, from, packet));
    w.run(ms(100));
    assert_eq!((w.lans.said.len(), w.lans.said[1].0), (2, 0));
}

#[test]
fn multicast_dns_that_another_reflector_brings_back_ends() {
    let mut w = World::new(&[1, 1]);
    w.set_all(&|s| s.reflect_mdns = true);
    w.run(secs(5));
    for lan in 0..2 {
        w.join(lan, 0, MDNS);
    }
    w.run(secs(1));
    w.lans.reflected = Some((0, 1));
    w.lans.said.clear();
    for name in 0..10 {
        let (from, packet) = question(0, 1, name);
        w.push(w.now, Event::Frame(0, from, packet));
        w.run(ms(200));
    }
    w.run(secs(10));
    assert!(w.lans.said.len() < 30, "{}", w.lans.said.len());
}

#[test]
fn multicast_dns_is_bounded_in_each_direction_and_neither_mutes_the_other() {
    let mut w = World::new(&[1, 1, 1, 1]);
    w.set_all(&|s| s.reflect_mdns = true);
    w.run(secs(5));
    w.join(0, 0, MDNS);
    w.run(secs(1));
    let said = |w: &World| {
        let here = w
            .lans
            .said
            .iter()
            .filter(|(lan, p)| *lan == 0 && p[24..40] == MDNS.octets());
        here.count()
    };
    // each of three LANs may send 400 at once, and one may receive as many
    for (lan, name) in (1..4).flat_map(|lan| (0..400).map(move |name| (lan, name))) {
        let (from, packet) = question(lan, 1, 1_000 * lan as u16 + name);
        w.push(w.now, Event::Frame(lan, from, packet));
    }
    w.run(ms(100));
    assert!((400..=440).contains(&said(&w)), "{}", said(&w));
    // a host beyond the rate does not silence other hosts
    w.run(secs(5));
    for name in 0..2_000 {
        let (from, packet) = question(0, 1, 10_000 + name);
        w.push(w.now, Event::Frame(0, from, packet));
    }
    w.run(ms(100));
    let before = said(&w);
    let (from, packet) = question(1, 1, 20_000);
    w.push(w.now, Event::Frame(1, from, packet));
    w.run(ms(100));
    assert_eq!(said(&w), before + 1);
}

#[test]
fn reports_cost_a_host_what_is_in_them() {
    let mut w = World::new(&[1]);
    w.run(secs(5));
    let records: Vec<_> = (0..60u16)
        .map(|n| Record::new(RecordType::ModeIsExclude, group(n), vec![]))
        .collect();
    let [packet] = &mld::report_packets(reporter(0, 1), &records, 1_500)[..] else {
        panic!("one report");
    };
    let packet = Bytes::from(packet.clone());
    for _ in 0..1_000 {
        let frame = Event::Frame(0, mac(0, 0x101), packet.clone());
        w.push(w.now, frame);
    }
    w.run(ms(10));
    let counters = w.lan(0).counters;
    // 1,256 bytes each
    assert!((200..=210).contains(&counters["mld"]), "{counters:?}");
    assert_eq!(counters["lan_join_limited"], 1_000 - counters["mld"]);
}

#[test]
fn hosts_without_a_router_are_given_addresses_that_are_heard_elsewhere() {
    let mut w = World::new(&[2, 1]);
    w.set_all(&|s| {
        if s.name == "lan0" {
            (s.prefixes, s.advertise) = (Vec::new(), true);
        }
    });
    w.run(secs(5));
    let [first, second] = [0, 1].map(|n| w.lan(n).prefixes);
    assert_eq!((first.len(), &first), (1, &second));
    let prefix: SourcePrefix = first[0].parse().unwrap();
    let told = |w: &World| {
        let to_all = |p: &Bytes| p[24..40] == mld::ALL_NODES.octets();
        let said = w.lans.said.iter().filter(|(lan, p)| *lan == 0 && to_all(p));
        said.map(|(_, p)| p.clone()).collect::<Vec<_>>()
    };
    let advertisement = told(&w).remove(0);
    let gateway = settings(0, w.forwarders(0)[0]).link_local;
    assert_eq!(advertisement[8..24], gateway.octets());
    assert_eq!(advertisement[80..96], prefix.addr().octets());
    // only from the forwarder: at once, after 16 s and after 32 s
    w.run(secs(60));
    assert_eq!(told(&w).len(), 3);
    let g = group(1);
    w.join(1, 0, g);
    w.run(ms(200));
    let address = Ipv6Addr::from_bits(prefix.addr().to_bits() | 0x99);
    let packet = udp(address, g, &7u64.to_be_bytes());
    let from = mac(0, 0x100);
    w.push(w.now, Event::Frame(0, from, packet.into()));
    w.run(ms(200));
    assert_eq!(w.received(1, 0), [7]);
    // the next forwarder uses the same prefix
    w.kill(w.forwarders(0)[0]);
    w.run(secs(5));
    assert_eq!(told(&w).len(), 4);
    assert_eq!(w.lan(w.forwarders(0)[0]).prefixes, first);
}

#[test]
fn two_lans_with_one_prefix_are_named_and_hear_others() {
    let mut w = World::new(&[1, 1, 1]);
    let g = group(1);
    let same = LanSettings {
        prefixes: vec![prefix(0)],
        ..settings(1, 1)
    };
    w.does(1, |engine, now| engine.set_lan(LAN, same, now));
    w.run(secs(5));
    for n in 0..2 {
        let clash = LanProblem::Clash(vec![prefix(0)]);
        assert_eq!(w.lan(n).standing.problem, Some(clash));
    }
    assert_eq!(w.lan(2).standing.problem, None);
    for lan in 1..3 {
        w.join(lan, 0, g);
    }
    w.run(ms(200));
    let number = w.send(0, 1, g);
    w.run(ms(200));
    assert_eq!((w.received(1, 0), w.received(2, 0)), (vec![], vec![number]));
}

#[test]
fn a_node_without_the_permission_carries_nothing_for_hosts() {
    let may = |n| match n {
        0 => Vec::new(),
        1 => vec![prefix(1)],
        _ => vec![prefix(7)],
    };
    let mut w = World::with(&[1, 1, 1], false, &may);
    let g = group(1);
    w.run(secs(5));
    for lan in 0..3 {
        w.join(lan, 0, g);
    }
    w.run(ms(500));
    w.stream(0, 1, g, ms(200));
    w.stream(2, 1, g, ms(200));
    w.run(ms(500));
    assert_eq!(w.sent, 0);
    assert!(w.lan(0).counters["lan_not_permitted"] > 0);
    assert!(w.lan(2).counters["lan_not_permitted"] > 0);
    let number = w.send(1, 1, g);
    w.run(ms(500));
    assert_eq!(w.received(0, 0).len(), 10, "its own LAN's");
    assert_eq!(w.received(2, 0).last(), Some(&number), "it may listen");
}

#[test]
fn a_private_prefix_keeps_away_from_lans_unless_they_are_let_in() {
    let mut w = World::new(&[1, 1]);
    let g = group(1);
    w.run(secs(5));
    w.join(1, 0, g);
    for lans in [false, true] {
        for gateway in &mut w.gateways {
            let private = PrivatePrefix {
                prefix: "ff1e::/16".parse().unwrap(),
                secrets: vec![Secret::new([7; SECRET_LEN])],
                lans,
            };
            let engine = gateway.engine.as_mut().unwrap();
            engine.set_private(vec![private], w.now);
        }
        w.run(ms(100));
        let of_host = w.send(0, 0, g);
        w.next += 1;
        let of_program = w.next;
        let packet = udp(addresses(1).address, g, &of_program.to_be_bytes());
        w.local(0, packet);
        w.run(ms(500));
        let all = [of_host, of_program];
        let expected: BTreeSet<_> = all.into_iter().filter(|_| lans).collect();
        let received: BTreeSet<_> = w.received(1, 0).into_iter().collect();
        assert_eq!(received, expected, "lans = {lans}");
    }
    let refused = &w.lan(1).counters;
    assert!(!refused.contains_key("not_sealed"), "{refused:?}");
}

#[test]
fn ipv4_hosts_of_two_lans_with_the_same_addresses_hear_each_other() {
    let mut w = World::with_ipv4(&[1, 1]);
    let g = stream(1);
    w.run(secs(8));
    w.stream(0, 0, g, secs(3));
    assert_eq!(w.sent, 0, "nobody listens");
    w.join(1, 0, g);
    w.join(1, 1, group(1));
    w.run(ms(100));
    let first = w.next + 1;
    w.stream(0, 0, g, secs(5));
    w.run(ms(100));
    w.check_all(1, 0, first);
    // both LANs have the same addresses: the gateway's address stands for its hosts
    let sender = mapped::name(w.ipv4_address(0));
    assert_eq!(w.lans.hosts[1][0].sources, BTreeSet::from([sender]));
    let number = w.send(0, 1, group(1));
    w.run(ms(500));
    assert_eq!(w.received(1, 1), [number], "IPv6 goes beside it");
    w.leave(1, 0, g);
    w.stream(0, 0, g, secs(2));
    let sent = w.sent;
    w.stream(0, 0, g, secs(3));
    assert_eq!(w.sent, sent, "silence");
    w.check_once();
    let lan = w.lan(0);
    assert_eq!(lan.standing.problem, None);
    assert!(lan.has_ipv4 && lan.prefixes.contains(&"192.168.1.10/24".into()));
}

#[test]
fn what_goes_into_a_lan_and_out_of_it_is_told_apart_byte_by_byte() {
    let mut w = World::with_ipv4(&[1, 1]);
    let g = Ipv4Addr::new(239, 1, 2, 1);
    w.run(secs(8));
    let own = w.ipv4_address(0);
    w.join(1, 0, stream(1));
    // a program of the gateway has joined, too
    let kernel = igmp::report_packets(
        own,
        &[Record::new(RecordType::ChangeToExclude, stream(1), vec![])],
        1_280,
    );
    w.local(0, kernel[0].clone());
    w.run(ms(200));
    let hears = |w: &mut World, packet: Vec<u8>| {
        let now = w.now;
        let engine = w.gateways[0].engine.as_mut().unwrap();
        engine.handle_lan_packet(LAN, mac(0, 0x100), packet.into(), now);
        std::iter::from_fn(|| engine.poll_output()).collect::<Vec<_>>()
    };
    let sent = ipv4::udp_packet(host_ipv4(0), g, (5_568, 4), b"universe");
    let outputs = hears(&mut w, sent);
    let of = |source| Bytes::from(ipv4::udp_packet(source, g, (5_568, 4), b"universe"));
    let over_links = outputs.iter().filter_map(|output| match output {
        Output::Data { packet, .. } => Some(packet),
        _ => None,
    });
    assert_eq!(over_links.collect::<Vec<_>>(), [&of(own)]);
    let for_programs = outputs.iter().filter_map(|output| match output {
        Output::Local { packet } => Some(packet),
        _ => None,
    });
    let router = Ipv4Addr::new(10, 77, 0, 1);
    assert_eq!(for_programs.collect::<Vec<_>>(), [&of(router)]);
    let counters = w.lan(0).counters;
    assert_eq!(counters["rx"], 1);
    // a fragment; TCP; from elsewhere; to a group of the link
    let mut part = ipv4::udp_packet(host_ipv4(0), g, (5_568, 4), b"universe");
    part[6] = 0x20;
    part[10..12].fill(0);
    let sum = librecast::checksum::Sum::default()
        .bytes(&part[..20])
        .fold();
    part[10..12].copy_from_slice(&(!sum).to_be_bytes());
    let envelope = Envelope {
        source: host_ipv4(0),
        destination: g,
        protocol: 6,
        ttl: 1,
    };
    let mdns = Ipv4Addr::new(224, 0, 0, 251);
    let long = vec![0; 1_473];
    for (packet, reason) in [
        (part, "lan_fragment"),
        (ipv4::packet(&envelope, &[0; 20]), "lan_not_udp"),
        (
            ipv4::udp_packet(Ipv4Addr::new(192, 168, 2, 1), g, (1, 1), b"x"),
            "lan_foreign_source",
        ),
        (
            ipv4::udp_packet(host_ipv4(0), g, (1, 1), &long),
            "lan_too_big",
        ),
    ] {
        let outputs = hears(&mut w, packet);
        assert!(outputs.is_empty(), "{reason}: {outputs:?}");
        assert_eq!(w.lan(0).counters[reason], 1, "{reason}");
    }
    assert!(hears(&mut w, ipv4::udp_packet(host_ipv4(0), mdns, (1, 1), b"x")).is_empty());
    // the gateway's program sends
    w.lans.hosts[0][0].sources.clear();
    w.join(0, 0, stream(1));
    w.run(ms(200));
    w.local(0, ipv4::udp_packet(own, g, (1, 9), &7u64.to_be_bytes()));
    w.run(ms(200));
    assert_eq!(w.received(0, 0), [7]);
    assert_eq!(
        w.lans.hosts[0][0].sources,
        BTreeSet::from([mapped::name(own)])
    );
}

#[test]
fn a_source_of_a_lan_is_joined_by_its_gateways_address() {
    let mut w = World::with_ipv4(&[1, 1, 1]);
    let g = mapped::name(Ipv4Addr::new(232, 1, 2, 3));
    w.run(secs(8));
    w.lans.hosts[1][0].joined.insert(g);
    let sources = vec![mapped::name(w.ipv4_address(0))];
    w.report(1, 0, Record::new(RecordType::AllowNewSources, g, sources));
    w.run(ms(100));
    let reported = [0, 1, 2].map(|n| w.lan(n).groups);
    assert_eq!(reported, [1, 0, 0], "only its LAN is to send");
    let wanted = w.send(0, 0, g);
    w.send(2, 0, g);
    w.run(ms(500));
    assert_eq!(w.received(1, 0), [wanted]);
}

#[test]
fn what_a_lan_lacks_for_ipv4_is_said() {
    let mut w = World::with_ipv4(&[1, 1]);
    let problem = |w: &World| w.lan(0).standing.problem;
    w.run(ms(500));
    assert_eq!(problem(&w), None, "nodes have their addresses at once");
    w.run(secs(8));
    w.join(0, 0, stream(1));
    w.run(ms(100));
    assert_eq!(w.lan(0).listeners, [(stream(1), 1)]);
    w.set_all(&|s| s.ipv4 = None);
    assert_eq!(problem(&w), Some(LanProblem::NoIpv4OnInterface));
    assert!(w.lan(0).listeners.is_empty() && !w.lan(0).has_ipv4);
    // an address appears: hosts are queried, and nothing else starts again
    w.set_all(&|_| {});
    w.run(ms(100));
    assert_eq!(
        (problem(&w), w.lan(0).listeners),
        (None, vec![(stream(1), 1)])
    );
    assert_eq!(w.lan(0).standing.role, LanRole::Forwarder);
    // with only IPv4 groups no IPv6 prefix is missing
    w.set_all(&|s| {
        s.prefixes.clear();
        s.groups = GroupPrefix::all_of("239.0.0.0/8").unwrap();
    });
    w.run(secs(5));
    assert_eq!(problem(&w), None);
    // nor with both kinds of groups and hosts with only IPv4
    w.set_all(&|s| s.prefixes.clear());
    w.run(secs(5));
    assert_eq!(problem(&w), None);
    w.set_all(&|s| {
        s.prefixes.clear();
        s.groups = vec![GroupPrefix::ALL];
    });
    w.run(secs(5));
    assert_eq!(problem(&w), Some(LanProblem::NoPrefix));
    w.lans.ipv4 = false;
    w.boot(0);
    w.lans.ipv4 = true;
    w.set_all(&|_| {});
    w.run(secs(5));
    assert_eq!(problem(&w), Some(LanProblem::Ipv4Off));
}

/// An IGMP message of a host outside of the world.
fn igmp_from(source: Ipv4Addr, to: Ipv4Addr, message: &[u8]) -> Bytes {
    let mut message = message.to_vec();
    let sum = librecast::checksum::Sum::default().bytes(&message).fold();
    message[2..4].copy_from_slice(&(!sum).to_be_bytes());
    let envelope = Envelope {
        source,
        destination: to,
        protocol: ipv4::IGMP,
        ttl: 1,
    };
    ipv4::packet_with_router_alert(&envelope, &message).into()
}

#[test]
fn a_switch_that_asks_has_the_word_and_is_answered_in_its_version() {
    let mut w = World::with_ipv4(&[1, 1]);
    w.run(secs(8));
    w.join(1, 0, stream(1));
    w.run(ms(100));
    let asks = |w: &mut World, from: [u8; 4], message: &[u8]| -> Vec<Bytes> {
        let packet = igmp_from(from.into(), igmp::ALL_SYSTEMS, message);
        let (now, mut said) = (w.now, Vec::new());
        let engine = w.gateways[0].engine.as_mut().unwrap();
        engine.handle_lan_packet(LAN, mac(0, 0x1fe), packet, now);
        for _ in 0..100 {
            while let Some(output) = w.poll(0) {
                if let Output::Lan {
                    frame: LanFrame::Link(packet),
                    ..
                } = &output
                {
                    said.push(packet.clone());
                }
                w.handle_output(0, output);
            }
            w.now += ms(20);
            let engine = w.gateways[0].engine.as_mut().unwrap();
            engine.handle_timeout(w.now);
        }
        said
    };
    let kinds = |said: &[Bytes]| -> Vec<u8> {
        let ours = said.iter().filter_map(|packet| Header::read(packet).ok());
        let igmp = ours.filter(|header| header.source == gateway_ipv4(0));
        igmp.map(|header| header.payload[0]).collect()
    };
    let version_3 = [0x11, 10, 0, 0, 0, 0, 0, 0, 2, 125, 0, 0];
    let version_2 = [0x11, 100, 0, 0, 0, 0, 0, 0];
    // from no address (RFC 4541), and from a higher address: answered, but no querier
    for from in [[0, 0, 0, 0], [192, 168, 1, 200]] {
        w.run(secs(2));
        let said = asks(&mut w, from, &version_3);
        assert!(kinds(&said).contains(&0x22), "{said:?}");
        assert_eq!(w.lan(0).ipv4_querier, None);
    }
    w.run(secs(2));
    let said = asks(&mut w, [192, 168, 1, 1], &version_2);
    let of = kinds(&said);
    assert!(of.contains(&0x16) && !of.contains(&0x22), "{of:?}");
    assert_eq!(w.lan(0).ipv4_querier, Some(Ipv4Addr::new(192, 168, 1, 1)));
    assert_eq!(w.lan(0).querier, None, "for IPv6 we ask");
    w.run(secs(60));
    assert_eq!(w.lan(0).ipv4_querier, Some(Ipv4Addr::new(192, 168, 1, 1)));
    // it is gone
    w.run(secs(260));
    assert_eq!(w.lan(0).ipv4_querier, None);
    let said = asks(&mut w, [0, 0, 0, 0], &version_3);
    assert!(kinds(&said).contains(&0x22), "{said:?}");
}

#[test]
fn hosts_of_old_versions_of_igmp_hear_and_leave() {
    let mut w = World::with_ipv4(&[1, 1]);
    w.run(secs(8));
    let listeners = |w: &World| w.lan(1).listeners.clone();
    let say = |w: &mut World, host: u8, to: [u8; 4], message: [u8; 8]| {
        let packet = igmp_from(Ipv4Addr::new(192, 168, 1, host), to.into(), &message);
        let event = Event::Frame(1, mac(1, 0x180 + u16::from(host)), packet);
        w.push(w.now, event);
        w.run(ms(50));
    };
    let group = [239, 1, 2, 1];
    let report = [0x16, 0, 0, 0, 239, 1, 2, 1];
    let leave = [0x17, 0, 0, 0, 239, 1, 2, 1];
    say(&mut w, 50, group, report);
    assert_eq!(listeners(&w), [(stream(1), 1)]);
    // another host suppresses its report after the first; it answers when the first leaves
    say(&mut w, 50, [224, 0, 0, 2], leave);
    say(&mut w, 51, group, report);
    w.run(secs(10));
    assert_eq!(listeners(&w), [(stream(1), 1)]);
    say(&mut w, 51, [224, 0, 0, 2], leave);
    w.run(secs(2));
    assert_eq!(listeners(&w), []);
    // version 1 leaves silently
    say(&mut w, 52, group, [0x12, 0, 0, 0, 239, 1, 2, 1]);
    assert_eq!(listeners(&w), [(stream(1), 1)]);
    w.run(secs(100));
    assert_eq!(listeners(&w), []);
    // without sources it joins no source-specific group
    say(&mut w, 50, [232, 1, 2, 3], [0x16, 0, 0, 0, 232, 1, 2, 3]);
    assert_eq!(listeners(&w), []);
}

#[test]
fn hosts_of_the_network_that_are_heard_on_a_lan_by_ipv4_are_not_sent_into_it() {
    let mut w = World::with_ipv4(&[1, 1]);
    w.run(secs(8));
    w.join(1, 0, stream(1));
    let other = w.ipv4_address(0);
    let packet = ipv4::udp_packet(other, Ipv4Addr::new(239, 1, 2, 1), (1, 1), b"by a wire");
    w.push(w.now, Event::Frame(1, mac(1, 0x1ff), packet.into()));
    w.run(secs(1));
    w.lans.hosts[1][0].received.clear();
    assert_eq!(w.lan(1).standing.problem, Some(LanProblem::OtherPath(1)));
    w.send(0, 0, stream(1));
    w.run(secs(1));
    assert!(w.received(1, 0).is_empty());
    assert_eq!(w.lan(1).counters["lan_other_path"], 1);
}
