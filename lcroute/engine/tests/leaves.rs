//! Leaves on routers, under virtual time: their packets, bounds, and cost for the network.

use crate::common;
mod uplink;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Rights, addresses, config, group, join, neighbor, restricted, start, udp};
use lcroute_engine::control::{
    self, Audit, Element, LeafJoin, LeafOffer, RefusalReason, Routed, RoutedKind,
};
use lcroute_engine::lsdb::Lsa;
use lcroute_engine::{
    Config, DropReason, Engine, Leaf, LeafOutput, LeafState, Limits, LinkFault, LinkRefusal,
    Neighbor, Output, SourceFilter,
};
use librecast::cert::{GroupPrefix, Member};
use librecast::id::{LinkId, PeerId};
use librecast::mld::{self, Message, RecordType};
use librecast::random::Random;
use librecast::simulated::Queue;

/// Delay of every link, one way.
const DELAY: Duration = Duration::from_millis(10);
/// Interval of a program's packets.
const GAP: Duration = Duration::from_millis(20);
/// First number of leaves, and of their links at routers.
const FIRST_LEAF: u16 = 1_000;

/// The member data of a leaf that may join these groups, and with `uplink` ask.
fn leaf_member(n: u16, prefixes: &[&str], uplink: bool) -> Member {
    let rights = Rights {
        core: false,
        leaf: true,
        uplink,
        invitation: uplink.then_some((9, None)),
        prefixes: prefixes.iter().map(|p| p.parse().unwrap()).collect(),
        ..Rights::default()
    };
    restricted(n, &rights).1.member
}

/// One end of a link: a router, or a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Router(u16),
    Leaf(u16),
}

#[derive(Debug)]
enum Sent {
    Control(Bytes),
    Data(Bytes),
}

struct World {
    now: Instant,
    routers: BTreeMap<u16, Engine>,
    leaves: BTreeMap<u16, Leaf>,
    /// The other end of each link: (end, link there).
    links: BTreeMap<(End, LinkId), (End, LinkId)>,
    under_way: Queue<Instant, ((End, LinkId), Sent)>,
    next_link: u32,
    /// Packets received by leaves: leaf, number, time.
    heard: BTreeMap<u16, Vec<(u32, Instant)>>,
    /// Numbers received by programs on routers, by router.
    heard_at: BTreeMap<u16, BTreeSet<u32>>,
    /// Groups of reports into `lc0`, by router.
    reported: BTreeSet<(u16, Ipv6Addr)>,
    refused: Vec<(u16, Ipv6Addr, RefusalReason)>,
    /// Routers with which each leaf wants links.
    wanted: BTreeMap<u16, BTreeSet<PeerId>>,
    faults: Vec<(u16, LinkFault)>,
    /// Bytes of control messages between routers.
    routing_bytes: u64,
    /// Routers with links that are cut without notice.
    silent: BTreeSet<u16>,
    /// The last packet for programs on each router.
    last_at: BTreeMap<u16, Bytes>,
    uplink: bool,
}

impl World {
    fn new(routers: u16) -> Self {
        Self::with(routers, &Limits::default())
    }

    fn with(routers: u16, limits: &Limits) -> Self {
        let pairs = (1..=routers).flat_map(|a| (a + 1..=routers).map(move |b| (a, b)));
        Self::shaped(routers, &pairs.collect::<Vec<_>>(), limits)
    }

    fn shaped(routers: u16, pairs: &[(u16, u16)], limits: &Limits) -> Self {
        let now = start();
        let mut world = Self {
            now,
            routers: BTreeMap::new(),
            leaves: BTreeMap::new(),
            links: BTreeMap::new(),
            under_way: Queue::default(),
            next_link: 1,
            heard: BTreeMap::new(),
            heard_at: BTreeMap::new(),
            reported: BTreeSet::new(),
            refused: Vec::new(),
            wanted: BTreeMap::new(),
            faults: Vec::new(),
            routing_bytes: 0,
            silent: BTreeSet::new(),
            last_at: BTreeMap::new(),
            uplink: false,
        };
        for n in 1..=routers {
            let config = Config {
                limits: limits.clone(),
                ..config(n)
            };
            let mut engine = common::engine(config, now);
            engine.handle_start(now);
            world.routers.insert(n, engine);
        }
        for (a, b) in pairs {
            let (at_a, at_b) = world.link(End::Router(*a), End::Router(*b));
            world.router(*a).handle_link_up(at_a, neighbor(*b), now);
            world.router(*b).handle_link_up(at_b, neighbor(*a), now);
        }
        world.run(Duration::from_secs(15));
        world
    }

    fn link(&mut self, a: End, b: End) -> (LinkId, LinkId) {
        let (at_a, at_b) = (LinkId(self.next_link), LinkId(self.next_link + 1));
        self.next_link += 2;
        self.links.insert((a, at_a), (b, at_b));
        self.links.insert((b, at_b), (a, at_a));
        (at_a, at_b)
    }

    /// Adds a leaf with a link to each of these routers, in order.
    fn leaf(&mut self, n: u16, prefixes: &[&str], routers: &[u16]) {
        let n = FIRST_LEAF + n;
        self.leaves.insert(n, Leaf::new(n.into(), self.now));
        for router in routers {
            self.leaf_link(n, prefixes, *router);
        }
        self.flush();
    }

    fn leaf_link(&mut self, n: u16, prefixes: &[&str], router: u16) {
        let member = leaf_member(n, prefixes, self.uplink);
        let (at_leaf, at_router) = self.link(End::Leaf(n), End::Router(router));
        let engine = self.routers.get_mut(&router).unwrap();
        engine.handle_link_up(at_router, Neighbor { member }, self.now);
        let peer = common::member(router).peer;
        let leaf = self.leaves.get_mut(&n).unwrap();
        leaf.handle_link_up(at_leaf, peer, self.now);
    }

    fn router(&mut self, n: u16) -> &mut Engine {
        self.routers.get_mut(&n).unwrap()
    }

    fn leaf_mut(&mut self, n: u16) -> &mut Leaf {
        self.leaves.get_mut(&(FIRST_LEAF + n)).unwrap()
    }

    fn joins(&mut self, n: u16, g: Ipv6Addr) {
        let now = self.now;
        assert!(self.leaf_mut(n).join(g, SourceFilter::all(), now));
        self.flush();
    }

    /// Removes a router's links at both ends.
    fn kill(&mut self, router: u16) {
        self.routers.remove(&router);
        self.unlink(End::Router(router));
    }

    fn cut_off(&mut self, router: u16) {
        let now = self.now;
        let is_between = |(end, _): &(End, LinkId), (other, _): &(End, LinkId)| {
            *end == End::Router(router) && matches!(other, End::Router(_))
        };
        let links = self.links.iter();
        let cut: Vec<_> = links.filter(|(a, b)| is_between(a, b)).collect();
        let ends = cut.into_iter().flat_map(|(a, b)| [*a, *b]);
        for (end, link) in ends.collect::<Vec<_>>() {
            self.links.remove(&(end, link));
            let End::Router(n) = end else { unreachable!() };
            self.router(n).handle_link_down(link, now);
        }
        self.flush();
    }

    fn leaf_goes(&mut self, n: u16) {
        self.leaves.remove(&(FIRST_LEAF + n));
        self.unlink(End::Leaf(FIRST_LEAF + n));
    }

    fn unlink(&mut self, gone: End) {
        let now = self.now;
        let links = self.links.iter();
        let ends = links.filter(|((end, _), _)| *end == gone);
        for (end, link) in ends.map(|(_, other)| *other).collect::<Vec<_>>() {
            self.links.remove(&(end, link));
            match end {
                End::Router(n) => self.router(n).handle_link_down(link, now),
                End::Leaf(n) => self.leaf_mut(n - FIRST_LEAF).handle_link_down(link, now),
            }
        }
        self.flush();
    }

    fn say(&mut self, router: u16, g: Ipv6Addr, number: u32) {
        let packet = udp(addresses(router).address, g, &number.to_be_bytes());
        let engine = self.routers.get_mut(&router).unwrap();
        engine.handle_local_packet(packet.into(), self.now);
        self.flush();
    }

    fn send(&mut self, from: (End, LinkId), message: Sent) {
        if let Some(to) = self.links.get(&from) {
            let both = matches!((from.0, to.0), (End::Router(_), End::Router(_)));
            if let (true, Sent::Control(m)) = (both, &message) {
                self.routing_bytes += m.len() as u64;
            }
            self.under_way.push(self.now + DELAY, (*to, message));
        }
    }

    /// Handles the outputs of all routers and leaves.
    fn flush(&mut self) {
        for end in self.ends() {
            self.flush_end(end);
        }
    }

    fn ends(&self) -> Vec<End> {
        let routers = self.routers.keys().copied().map(End::Router);
        let leaves = self.leaves.keys().copied().map(End::Leaf);
        routers.chain(leaves).collect()
    }

    fn flush_end(&mut self, end: End) {
        match end {
            End::Router(n) => self.flush_router(n),
            End::Leaf(n) => self.flush_leaf(n),
        }
    }

    fn flush_router(&mut self, n: u16) {
        while let Some(output) = self.routers.get_mut(&n).and_then(Engine::poll_output) {
            match output {
                Output::Control { link, message } => {
                    self.send((End::Router(n), link), Sent::Control(message));
                }
                Output::Data {
                    links,
                    header,
                    packet,
                } => {
                    for link in links.iter() {
                        let message = [&header[..], &packet].concat().into();
                        self.send((End::Router(n), *link), Sent::Data(message));
                    }
                }
                Output::LinkFault { reason, .. } => self.faults.push((n, reason)),
                Output::LocalMld { packet } => {
                    if let Ok((_, Message::Report(records))) = mld::parse_packet(&packet) {
                        let groups = records.iter().map(|record| (n, record.group));
                        self.reported.extend(groups);
                    }
                }
                Output::Local { packet } => {
                    let number = u32::from_be_bytes(*packet.last_chunk().unwrap());
                    self.heard_at.entry(n).or_default().insert(number);
                    self.last_at.insert(n, packet);
                }
                _ => {}
            }
        }
    }

    fn flush_leaf(&mut self, n: u16) {
        while let Some(output) = self.leaves.get_mut(&n).and_then(Leaf::poll_output) {
            match output {
                LeafOutput::Control { link, message } => {
                    self.send((End::Leaf(n), link), Sent::Control(message));
                }
                LeafOutput::Data {
                    link,
                    header,
                    packet,
                } => {
                    let message = [&header[..], &packet].concat().into();
                    self.send((End::Leaf(n), link), Sent::Data(message));
                }
                LeafOutput::Packet { packet } => {
                    let number = packet.last_chunk::<4>().unwrap();
                    let heard = self.heard.entry(n - FIRST_LEAF).or_default();
                    heard.push((u32::from_be_bytes(*number), self.now));
                }
                LeafOutput::Refused { group, reason } => {
                    self.refused.push((n - FIRST_LEAF, group, reason));
                }
                LeafOutput::Wanted(routers) => {
                    self.wanted.insert(n, routers);
                }
                LeafOutput::LinkFault { .. } => panic!("{output:?}"),
            }
        }
    }

    fn timer(&self, end: End) -> Option<Instant> {
        match end {
            End::Router(n) => self.routers.get(&n)?.next_timeout().map(|(at, _)| at),
            End::Leaf(n) => self.leaves.get(&n)?.next_timeout(),
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        self.flush();
        let ends = self.ends().into_iter();
        // only an end that got something has a new timer, or outputs
        let mut timers: BTreeMap<End, Instant> = ends
            .filter_map(|end| Some((end, self.timer(end)?)))
            .collect();
        loop {
            let message = self.under_way.next_at();
            let timer = timers.values().copied().min();
            let next = message.into_iter().chain(timer).min();
            let Some(next) = next.filter(|at| *at <= end) else {
                break;
            };
            self.now = self.now.max(next);
            let touched = match self.under_way.pop(next) {
                Some((_, ((to, link), message))) => {
                    self.deliver(to, link, message);
                    vec![to]
                }
                None => self.handle_timers(&timers),
            };
            for end in touched {
                self.flush_end(end);
                match self.timer(end) {
                    Some(at) => timers.insert(end, at),
                    None => timers.remove(&end),
                };
            }
        }
        self.now = end;
    }

    /// Handles the timers that are due; returns their ends.
    fn handle_timers(&mut self, timers: &BTreeMap<End, Instant>) -> Vec<End> {
        let now = self.now;
        let due = timers.iter().filter(|(_, at)| **at <= now);
        let due: Vec<End> = due.map(|(end, _)| *end).collect();
        for end in &due {
            match end {
                End::Router(n) => self.routers.get_mut(n).unwrap().handle_timeout(now),
                End::Leaf(n) => self.leaves.get_mut(n).unwrap().handle_timeout(now),
            }
        }
        due
    }

    fn deliver(&mut self, end: End, link: LinkId, message: Sent) {
        let is_cut = |end: &End| matches!(end, End::Router(n) if self.silent.contains(n));
        let other = self.links.get(&(end, link)).map(|(other, _)| *other);
        if is_cut(&end) || other.is_none_or(|other| is_cut(&other)) {
            return;
        }
        match end {
            End::Router(n) => match (self.routers.get_mut(&n), message) {
                (Some(engine), Sent::Control(m)) => engine.handle_control(link, &m, self.now),
                (Some(engine), Sent::Data(m)) => engine.handle_data(link, m, self.now),
                (None, _) => {}
            },
            End::Leaf(n) => match (self.leaves.get_mut(&n), message) {
                (Some(leaf), Sent::Control(m)) => leaf.handle_control(link, &m, self.now),
                (Some(leaf), Sent::Data(m)) => leaf.handle_data(link, m, self.now),
                (None, _) => {}
            },
        }
    }

    /// A program on a router sends for this time; returns the number after the last.
    fn speak(&mut self, router: u16, g: Ipv6Addr, from: u32, time: Duration) -> u32 {
        let count = (time.as_millis() / GAP.as_millis()) as u32;
        for number in from..from + count {
            self.say(router, g, number);
            self.run(GAP);
        }
        from + count
    }

    fn numbers(&self, n: u16) -> Vec<u32> {
        let heard = self.heard.get(&n).into_iter().flatten();
        heard.map(|(number, _)| *number).collect()
    }

    /// The longest time between two packets from `from` on, in milliseconds.
    fn gap(&self, n: u16, from: u32) -> u128 {
        let heard = self.heard[&n].iter().filter(|(number, _)| *number >= from);
        let times: Vec<_> = heard.map(|(_, at)| *at).collect();
        let gaps = times.windows(2).map(|pair| (pair[1] - pair[0]).as_millis());
        gaps.max().unwrap()
    }

    fn joined_by_leaves(&self, router: u16) -> usize {
        let groups = self.routers[&router].snapshot().groups;
        groups.iter().filter(|group| group.leaves > 0).count()
    }

    fn dropped(&self, router: u16, reason: DropReason) -> u64 {
        self.routers[&router].dropped(reason)
    }
}

const ALL: &[&str] = &["ff1e::/16"];

#[test]
fn leaves_hear_what_they_join_from_every_router_and_from_their_own() {
    let mut world = World::new(4);
    for n in 0..8 {
        world.leaf(n, ALL, &[n % 4 + 1]);
        world.joins(n, group(1));
    }
    world.joins(7, group(2));
    world.run(Duration::from_secs(1));
    for (router, number) in [(1, 10), (2, 20), (4, 40)] {
        world.say(router, group(1), number);
        world.run(Duration::from_secs(1));
    }
    world.say(1, group(2), 99);
    world.run(Duration::from_secs(1));
    for n in 0..7 {
        assert_eq!(world.numbers(n), [10, 20, 40], "{n}");
    }
    assert_eq!(world.numbers(7), [10, 20, 40, 99]);
    // the end of a join, and of links
    let now = world.now;
    world.leaf_mut(0).part(group(1), now);
    world.leaf_goes(4);
    world.leaf_goes(7);
    world.run(Duration::from_secs(1));
    world.say(2, group(1), 50);
    world.run(Duration::from_secs(1));
    assert_eq!(world.numbers(0), [10, 20, 40]);
    assert_eq!(world.numbers(1), [10, 20, 40, 50]);
    for n in [1, 2, 3, 5, 6] {
        world.leaf_goes(n);
    }
    world.leaf_goes(0);
    world.run(Duration::from_secs(70));
    for router in world.routers.values() {
        let tables = router.tables();
        assert_eq!((tables.leaves, tables.join_states), (0, 0));
    }
}

#[test]
fn the_listeners_of_a_host_and_its_servers_hear_of_joins_of_leaves() {
    let mut world = World::new(2);
    world.leaf(0, ALL, &[1]);
    world.run(Duration::from_secs(1));
    // the server on router 2 sees joins in the report into its lc0
    let now = world.now;
    world.leaf_mut(0).join(group(1), SourceFilter::all(), now);
    world.run(Duration::from_secs(1));
    for router in [1, 2] {
        assert!(world.reported.contains(&(router, group(1))), "{router}");
    }
    // a program on the leaf's router receives the group as well, once
    world.joins_at(1, group(1));
    world.run(Duration::from_secs(1));
    world.say(2, group(1), 1);
    world.run(Duration::from_secs(1));
    assert_eq!(world.numbers(0), [1]);
}

#[test]
fn a_join_outside_of_the_certificate_is_refused_by_name() {
    let mut world = World::new(2);
    world.leaf(0, &["ff1e:5::/32"], &[1]);
    let inside: Ipv6Addr = "ff1e:5::1".parse().unwrap();
    world.joins(0, inside);
    world.joins(0, group(1));
    world.joins(0, "ff02::1234".parse().unwrap());
    world.run(Duration::from_secs(1));
    world.say(2, inside, 1);
    world.say(2, group(1), 2);
    world.run(Duration::from_secs(1));
    assert_eq!(world.numbers(0), [1]);
    let refused: Vec<_> = world.refused.iter().map(|(_, g, r)| (*g, *r)).collect();
    assert_eq!(refused.len(), 2);
    assert!(refused.contains(&(group(1), RefusalReason::NotPermitted)));
    assert_eq!(world.dropped(1, DropReason::LeafNotPermitted), 2);
    // none of it reached the network
    assert_eq!(world.routers[&2].snapshot().groups.len(), 1);
}

#[test]
fn a_leaf_that_speaks_is_heard_by_nobody() {
    let mut world = World::new(2);
    world.leaf(0, ALL, &[1]);
    world.leaf(1, ALL, &[1]);
    world.joins(1, group(1));
    world.run(Duration::from_secs(1));
    let (router, link) = world.router_link(0);
    let member = leaf_member(FIRST_LEAF, ALL, false);
    let packet = udp(member.addresses.address, group(1), &[0, 0, 0, 7]);
    let header = common::header(member.addresses.origin, 1);
    let message = [&header.encode()[..], &packet].concat();
    let engine = world.routers.get_mut(&router).unwrap();
    engine.handle_data(link, message.into(), world.now);
    world.run(Duration::from_secs(1));
    assert!(world.numbers(1).is_empty());
    assert_eq!(world.dropped(1, DropReason::LeafSent), 1);
    assert!(world.faults.is_empty(), "its link stays");
}

impl World {
    /// The first router of a leaf, and the link there.
    fn router_link(&self, n: u16) -> (u16, LinkId) {
        let of_leaf = |(end, _): &(End, LinkId)| *end == End::Leaf(FIRST_LEAF + n);
        let mut links = self.links.iter();
        let (_, (end, link)) = links.find(|(from, _)| of_leaf(from)).unwrap();
        let End::Router(router) = end else {
            unreachable!()
        };
        (*router, *link)
    }
}

#[test]
fn a_leaf_that_routes_loses_its_link_and_leaves_no_trace() {
    let chain = restricted(
        FIRST_LEAF,
        &Rights {
            core: false,
            leaf: true,
            ..Rights::default()
        },
    )
    .1
    .chain;
    let routing = [
        Element::Hello {
            incarnation: 1,
            salt: 2,
        },
        Element::Lsa(Lsa {
            kind: 1,
            bytes: chain,
        }),
        Element::Routed(Routed {
            destination: addresses(2).origin,
            source: addresses(FIRST_LEAF).origin,
            hop_limit: 64,
            kind: RoutedKind::Echo,
            payload: Bytes::from_static(b"hello"),
        }),
        Element::Audit(Audit::Digest(1)),
        Element::LeafOffer(LeafOffer {
            groups: 1,
            room: 1,
            ..LeafOffer::default()
        }),
    ];
    for element in routing {
        let mut world = World::new(2);
        let before = world.routers[&2].graph_digest();
        world.leaf(0, ALL, &[1]);
        world.run(Duration::from_secs(1));
        let (router, link) = world.router_link(0);
        let engine = world.routers.get_mut(&router).unwrap();
        for message in control::encode([&element]) {
            engine.handle_control(link, &message, world.now);
            engine.handle_control(link, &message, world.now);
        }
        world.run(Duration::from_secs(5));
        assert_eq!(world.faults, [(1, LinkFault::LeafRoutes)], "{element:?}");
        for router in world.routers.values() {
            assert_eq!(router.tables().routers, 2);
            assert_eq!(router.graph_digest(), before);
        }
    }
}

#[test]
fn what_one_leaf_may_ask_for_is_bounded() {
    let mut world = World::new(1);
    world.leaf(0, ALL, &[1]);
    world.run(Duration::from_secs(1));
    let (router, link) = world.router_link(0);
    let sends = |world: &mut World, elements: Vec<Element>| {
        let engine = world.routers.get_mut(&router).unwrap();
        for message in control::encode(&elements) {
            engine.handle_control(link, &message, world.now);
        }
        world.run(Duration::from_millis(50));
    };
    let joins = |g: Ipv6Addr, join| {
        let group = GroupPrefix::group(g);
        Element::LeafJoin(LeafJoin { group, join })
    };
    // 64 groups
    let many = (0..100).map(|n| joins(group(n), Some(SourceFilter::all())));
    sends(&mut world, many.collect());
    assert_eq!(world.routers[&1].snapshot().groups.len(), 64);
    assert_eq!(world.dropped(1, DropReason::JoinRefused), 36);
    sends(
        &mut world,
        (0..100).map(|n| joins(group(n), None)).collect(),
    );
    assert!(world.routers[&1].snapshot().groups.is_empty());
    world.run(Duration::from_secs(10));
    // 16 sources
    let sources = |n: u16| {
        let sources = (0..n).map(|n| addresses(1 + n % 2).address.segments()[7] ^ n);
        let sources = sources.map(|n| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 1, n));
        SourceFilter::include(sources)
    };
    sends(&mut world, vec![joins(group(1), sources(17))]);
    assert!(world.routers[&1].snapshot().groups.is_empty());
    sends(&mut world, vec![joins(group(1), sources(16))]);
    assert_eq!(world.routers[&1].snapshot().groups.len(), 1);
    // a prefix is not a group
    let prefix = Element::LeafJoin(LeafJoin {
        group: "ff1e::/16".parse().unwrap(),
        join: Some(SourceFilter::all()),
    });
    sends(&mut world, vec![prefix]);
    assert_eq!(world.routers[&1].snapshot().groups.len(), 1);
    // 128 changes at once, 32 a second
    let before = world.dropped(1, DropReason::JoinRefused);
    for _ in 0..100 {
        let turn = |n: u16| joins(group(2), n.is_multiple_of(2).then(SourceFilter::all));
        sends(&mut world, (0..8).map(turn).collect());
    }
    // 400 joins in 5 s: the burst and 160 pass
    let refused = world.dropped(1, DropReason::JoinRefused) - before;
    assert!((90..=140).contains(&refused), "{refused}");
}

#[test]
fn so_many_leaves_and_so_many_bits() {
    let limits = Limits {
        leaves: 3,
        leaf_bits_per_second: 1_000_000,
        ..Limits::default()
    };
    let mut world = World::with(1, &limits);
    for n in 0..4 {
        world.leaf(n, ALL, &[1]);
        world.joins(n, group(1));
    }
    assert_eq!(world.faults, [(1, LinkFault::LeavesFull)]);
    world.run(Duration::from_secs(1));
    let packet = udp(addresses(1).address, group(1), &[7; 1_000]);
    for _ in 0..1_000 {
        let engine = world.routers.get_mut(&1).unwrap();
        engine.handle_local_packet(packet.clone().into(), world.now);
        world.run(Duration::from_millis(10));
    }
    // 10 s of a megabit a second and the burst are 1,905,360 bytes: 605 packets to each of 3 leaves
    let heard: Vec<usize> = (0..3).map(|n| world.heard[&n].len()).collect();
    assert!(heard.iter().all(|n| (594..=616).contains(n)), "{heard:?}");
    assert!(!world.heard.contains_key(&3));
    let dropped = world.dropped(1, DropReason::LeafRate);
    assert_eq!(dropped, 3_000 - heard.iter().sum::<usize>() as u64);
    assert_eq!(world.dropped(1, DropReason::NoListener), 0);
}

#[test]
fn a_router_that_dies_costs_a_leaf_less_than_a_second_and_nothing_comes_twice() {
    let mut world = World::new(4);
    world.leaf(0, ALL, &[2, 3]);
    world.leaf(1, ALL, &[3, 2]);
    for n in 0..2 {
        world.joins(n, group(1));
    }
    world.run(Duration::from_secs(1));
    let next = world.speak(1, group(1), 0, Duration::from_secs(2));
    // no end has noticed yet
    world.silent.insert(2);
    let next = world.speak(1, group(1), next, Duration::from_millis(280));
    assert_eq!(world.leaf_mut(0).state(), LeafState::Active);
    let later = world.speak(1, group(1), next, Duration::from_millis(400));
    let peer = common::member(3).peer;
    assert_eq!(
        world.leaf_mut(0).active(),
        Some(peer),
        "the other brings it"
    );
    world.kill(2);
    world.speak(1, group(1), later, Duration::from_secs(3));
    for n in 0..2 {
        let numbers = world.numbers(n);
        let once: BTreeSet<_> = numbers.iter().collect();
        assert_eq!(once.len(), numbers.len(), "{n}: twice");
    }
    assert_eq!(world.numbers(1).len(), 284);
    let gap = world.gap(0, 50);
    assert!((300..=420).contains(&gap), "{gap} ms");
    assert_eq!(world.leaf_mut(0).state(), LeafState::Active);
}

#[test]
fn a_speaker_that_falls_silent_leaves_no_join_on_the_standby_link() {
    let mut world = World::new(3);
    world.leaf(0, ALL, &[2, 3]);
    world.joins(0, group(1));
    world.run(Duration::from_secs(1));
    let next = world.speak(1, group(1), 0, Duration::from_secs(1));
    let joins = |world: &World, router| world.joined_by_leaves(router);
    world.run(Duration::from_millis(400));
    assert_eq!(world.leaf_mut(0).state(), LeafState::Suspected);
    assert_eq!((joins(&world, 2), joins(&world, 3)), (1, 1));
    world.run(Duration::from_secs(5));
    assert_eq!(world.leaf_mut(0).state(), LeafState::Active);
    assert_eq!((joins(&world, 2), joins(&world, 3)), (1, 0));
    // packets flow again, over the former link, suspected and later
    let next = world.speak(1, group(1), next, Duration::from_secs(1));
    world.run(Duration::from_millis(600));
    let next = world.speak(1, group(1), next, Duration::from_secs(2));
    assert_eq!(world.leaf_mut(0).active(), Some(common::member(2).peer));
    assert_eq!((joins(&world, 2), joins(&world, 3)), (1, 0));
    let numbers = world.numbers(0);
    assert_eq!(numbers, (0..next).collect::<Vec<_>>());
}

#[test]
fn a_flow_that_ends_beside_another_one_puts_no_join_on_the_standby_link() {
    let mut world = World::new(3);
    world.leaf(0, ALL, &[2, 3]);
    world.joins(0, group(1));
    world.joins(0, group(2));
    world.run(Duration::from_secs(1));
    for number in 0..100 {
        world.say(1, group(2), 1_000 + number);
        world.say(1, group(1), number);
        world.run(GAP);
    }
    let mut next = 100;
    for _ in 0..50 {
        next = world.speak(1, group(1), next, 5 * GAP);
        assert_eq!(world.leaf_mut(0).state(), LeafState::Active);
        assert_eq!(world.joined_by_leaves(3), 0);
    }
    // the other one ends as well, and the first begins anew
    world.run(Duration::from_millis(400));
    assert_eq!(world.leaf_mut(0).state(), LeafState::Suspected);
    let now = world.now;
    world.leaf_mut(0).part(group(1), now);
    assert_eq!(world.leaf_mut(0).state(), LeafState::Active);
    world.run(Duration::from_secs(1));
    assert_eq!(world.joined_by_leaves(3), 0);
}

#[test]
fn a_slow_flow_beside_a_quick_one_delays_no_suspicion_and_causes_none() {
    let mut world = World::new(3);
    world.leaf(0, ALL, &[2, 3]);
    world.joins(0, group(1));
    world.joins(0, group(2));
    world.run(Duration::from_secs(1));
    let slow = |world: &mut World, number: u32| world.say(1, group(2), 10_000 + number);
    let mut next = 0;
    for number in 0..20 {
        slow(&mut world, number);
        next = world.speak(1, group(1), next, Duration::from_secs(2));
        assert_eq!(world.leaf_mut(0).state(), LeafState::Active);
    }
    // the quick one pauses: one suspicion, and the slow one ends it
    slow(&mut world, 20);
    world.run(Duration::from_secs(1));
    assert_eq!(world.leaf_mut(0).state(), LeafState::Suspected);
    for number in 21..24 {
        slow(&mut world, number);
        world.run(Duration::from_secs(1));
        assert_eq!(world.leaf_mut(0).state(), LeafState::Active);
        assert_eq!(world.joined_by_leaves(3), 0);
    }
    let next = world.speak(1, group(1), next, Duration::from_secs(1));
    world.silent.insert(2);
    world.speak(1, group(1), next, Duration::from_millis(700));
    assert_eq!(world.leaf_mut(0).active(), Some(common::member(3).peer));
}

#[test]
fn a_timer_that_comes_late_lets_waiting_packets_in_before_it_suspects() {
    const HELD_UP: Duration = Duration::from_secs(1);
    let mut world = World::new(3);
    world.leaf(0, ALL, &[2, 3]);
    world.joins(0, group(1));
    world.run(Duration::from_secs(1));
    let next = world.speak(1, group(1), 0, Duration::from_secs(1));
    // the process of the leaf got no time, and packets wait
    world.say(1, group(1), next);
    world.now += HELD_UP;
    let now = world.now;
    world.leaf_mut(0).handle_timeout(now);
    assert!(world.leaf_mut(0).next_timeout() <= Some(now));
    world.run(Duration::from_millis(200));
    assert_eq!(world.numbers(0).last(), Some(&next));
    assert_eq!(world.leaf_mut(0).state(), LeafState::Active);
    assert_eq!(world.joined_by_leaves(3), 0);
    // timers are always late, as in a tab that nobody sees, and nothing waits
    world.now += HELD_UP;
    let now = world.now;
    world.leaf_mut(0).handle_timeout(now);
    assert_eq!(world.leaf_mut(0).state(), LeafState::Active);
    world.leaf_mut(0).handle_timeout(now);
    assert_eq!(world.leaf_mut(0).state(), LeafState::Suspected);
}

#[test]
fn a_leaf_that_all_routers_refuse_says_why() {
    let now = start();
    let [a, b] = [2, 3].map(|n| common::member(n).peer);
    let mut leaf = Leaf::new(0, now);
    leaf.handle_router(a, true, now);
    assert_eq!(leaf.refusal(), None);
    assert!(!leaf.waits_for_room());
    leaf.handle_failure(a, Some(LinkRefusal::NoRoom), now);
    assert_eq!(leaf.refusal(), Some(LinkRefusal::NoRoom));
    // another one may have room
    leaf.handle_router(b, true, now);
    assert_eq!(leaf.refusal(), None);
    assert!(leaf.waits_for_room());
    leaf.handle_failure(b, Some(LinkRefusal::ClockDiffers), now);
    assert_eq!(leaf.refusal(), None);
    leaf.handle_failure(b, Some(LinkRefusal::NoRoom), now);
    assert_eq!(leaf.refusal(), Some(LinkRefusal::NoRoom));
    leaf.handle_failure(b, None, now);
    assert_eq!(leaf.refusal(), Some(LinkRefusal::NoRoom));
    leaf.handle_link_up(LinkId(1), b, now);
    assert_eq!(leaf.refusal(), None);
    assert!(!leaf.waits_for_room());
}

#[test]
fn a_leaf_without_a_link_hears_again_by_the_next_one() {
    let mut world = World::new(3);
    world.leaf(0, ALL, &[2]);
    world.joins(0, group(1));
    let next = world.speak(1, group(1), 0, Duration::from_secs(1));
    world.kill(2);
    assert_eq!(world.leaf_mut(0).state(), LeafState::Lost);
    let next = world.speak(1, group(1), next, Duration::from_secs(1));
    world.leaf_link(FIRST_LEAF, ALL, 3);
    world.speak(1, group(1), next, Duration::from_secs(1));
    assert_eq!(world.numbers(0).last(), Some(&149));
}

#[test]
fn the_nearer_router_becomes_the_active_one() {
    let mut world = World::new(3);
    world.leaf(0, ALL, &[2, 3]);
    world.joins(0, group(1));
    world.run(Duration::from_secs(1));
    let next = world.speak(1, group(1), 0, Duration::from_secs(1));
    let links: Vec<_> = world.links.keys().copied().collect();
    let of_leaf = links.iter().filter(|(end, _)| matches!(end, End::Leaf(_)));
    let of_leaf: Vec<_> = of_leaf.map(|(_, link)| *link).collect();
    let now = world.now;
    let leaf = world.leaf_mut(0);
    leaf.handle_link_rtt(of_leaf[0], Duration::from_millis(40), now);
    leaf.handle_link_rtt(of_leaf[1], Duration::from_millis(36), now);
    assert_eq!(leaf.active(), Some(common::member(2).peer));
    leaf.handle_link_rtt(of_leaf[1], Duration::from_millis(20), now);
    assert_eq!(leaf.active(), Some(common::member(3).peer));
    let next = world.speak(1, group(1), next, Duration::from_secs(2));
    assert_eq!(world.numbers(0), (0..next).collect::<Vec<_>>());
    assert_eq!(world.joined_by_leaves(2), 0);
}

#[test]
fn leaves_are_told_of_other_routers_and_of_nothing_else() {
    let mut world = World::new(6);
    world.leaf(0, ALL, &[1]);
    let (_, link) = world.router_link(0);
    let mut told: Vec<Vec<Element>> = Vec::new();
    let end = world.now + Duration::from_secs(65);
    while world.now < end {
        let messages = world.under_way.events();
        let to_leaf = messages.filter(|((end, _), _)| matches!(end, End::Leaf(_)));
        for (_, message) in to_leaf {
            let Sent::Control(message) = message else {
                panic!("{message:?}")
            };
            told.push(control::decode(message).unwrap());
        }
        world.run(DELAY);
    }
    assert_eq!(told.len(), 3, "at once and every 30 s; to {link:?}");
    let routers: BTreeSet<PeerId> = (2..=6).map(|n| common::member(n).peer).collect();
    for elements in told {
        let [Element::LeafOffer(offer)] = elements.as_slice() else {
            panic!("{elements:?}")
        };
        assert_eq!((offer.groups, offer.room), (64, 511));
        assert_eq!(offer.others.len(), 4);
        assert!(offer.others.iter().all(|other| routers.contains(other)));
    }
}

/// The network's cost of a joined group does not depend on the number of leaves.
#[test]
fn an_audience_costs_routers_what_one_leaf_a_router_does() {
    let bytes = |leaves: u16| {
        let mut world = World::new(5);
        let before = world.routing_bytes;
        for n in 0..leaves {
            world.leaf(n, ALL, &[n % 5 + 1, (n + 1) % 5 + 1]);
            world.joins(n, group(1));
        }
        let next = world.speak(1, group(1), 0, Duration::from_secs(2));
        for n in 0..leaves {
            assert!(world.numbers(n).contains(&(next - 1)), "{n}");
        }
        world.run(Duration::from_secs(100));
        world.routing_bytes - before
    };
    assert_eq!(bytes(5), bytes(100));
}

#[test]
fn leaves_that_come_and_go_leave_routers_as_the_model_says() {
    for seed in crate::seeds(0..20, 4) {
        let mut random = Random::new(seed);
        let mut world = World::new(3);
        // the joins of each leaf
        let mut model: BTreeMap<u16, BTreeSet<u16>> = BTreeMap::new();
        for step in 0..60_u16 {
            let n = random.below(8) as u16;
            match model.get_mut(&n) {
                None => {
                    let at = random.below(3) as u16;
                    world.leaf(n, ALL, &[at + 1, (at + 1) % 3 + 1]);
                    model.insert(n, BTreeSet::new());
                }
                Some(_) if random.chance(0.15) => {
                    world.leaf_goes(n);
                    model.remove(&n);
                }
                Some(joined) => {
                    let g = random.below(3) as u16;
                    let now = world.now;
                    if joined.remove(&g) {
                        world.leaf_mut(n).part(group(g), now);
                    } else {
                        joined.insert(g);
                        world.leaf_mut(n).join(group(g), SourceFilter::all(), now);
                    }
                    world.flush();
                }
            }
            world.run(Duration::from_millis(random.below(300)));
            if step % 10 == 9 {
                world.run(Duration::from_secs(6));
                world.heard.clear();
                for g in 0..3 {
                    let number = u32::from(step) << 8 | u32::from(g);
                    world.say(random.below(3) as u16 + 1, group(g), number);
                }
                world.run(Duration::from_secs(1));
                for (n, joined) in &model {
                    let mut heard = world.numbers(*n);
                    heard.sort_unstable();
                    let joined = joined.iter();
                    let due: Vec<_> = joined
                        .map(|g| u32::from(step) << 8 | u32::from(*g))
                        .collect();
                    assert_eq!(heard, due, "seed {seed}, step {step}, leaf {n}");
                }
            }
        }
    }
}

impl World {
    fn joins_at(&mut self, router: u16, g: Ipv6Addr) {
        let now = self.now;
        let packet = join(g).into();
        self.router(router).handle_local_packet(packet, now);
    }

    /// A router sends to these groups. Whether programs on all these routers receive all.
    fn hear(&mut self, routers: &[u16], from: u16, groups: std::ops::Range<u16>) -> bool {
        self.heard_at.clear();
        for n in groups.clone() {
            self.say(from, group(n), n.into());
        }
        self.run(Duration::from_secs(1));
        let said: BTreeSet<u32> = groups.map(u32::from).collect();
        routers.iter().all(|r| self.heard_at.get(r) == Some(&said))
    }
}

/// Groups of members, and the first group of leaves and other members.
const MEMBERS: std::ops::Range<u16> = 1..7;
const OTHERS: u16 = 1_000;

/// Leaves that each join as many groups as they may, all different.
fn greedy_leaves(world: &mut World, count: u16, router: u16) {
    for n in 0..count {
        world.leaf(n, ALL, &[router]);
        let now = world.now;
        for g in 0..64 {
            let group = group(OTHERS + n * 64 + g);
            world.leaf_mut(n).join(group, SourceFilter::all(), now);
        }
        world.flush();
    }
    world.run(Duration::from_secs(10));
}

#[test]
fn leaves_that_join_all_they_can_take_no_join_from_programs_of_their_router() {
    for routers in [2, 3] {
        let pairs = [(1, 2), (2, 3)];
        let pairs = &pairs[..usize::from(routers) - 1];
        let mut world = World::shaped(routers, pairs, &Limits::default());
        greedy_leaves(&mut world, 200, 1);
        assert_eq!(world.joined_by_leaves(1), 2_048);
        assert!(world.dropped(1, DropReason::LeafJoinLimited) > 0);
        for router in 1..=routers {
            assert_eq!(world.dropped(router, DropReason::JoinRefused), 0);
            MEMBERS.for_each(|n| world.joins_at(router, group(n)));
        }
        world.run(Duration::from_secs(1));
        let listeners: Vec<_> = (1..routers).collect();
        assert!(
            world.hear(&listeners, routers, MEMBERS),
            "{routers} routers"
        );
        assert!(world.hear(&[2], 1, MEMBERS), "{routers} routers");
        // a leaf with few joins gets room for all of them; the other leaves share the rest equally
        world.leaf(200, ALL, &[1]);
        MEMBERS.for_each(|n| world.joins(200, group(50 + n)));
        world.run(Duration::from_secs(1));
        MEMBERS.for_each(|n| world.say(2, group(50 + n), n.into()));
        world.run(Duration::from_secs(1));
        assert_eq!(
            world.numbers(200),
            MEMBERS.map(u32::from).collect::<Vec<_>>()
        );
        assert_eq!(world.joined_by_leaves(1), 2_048);
    }
}

#[test]
fn sources_that_leaves_invent_are_bounded_and_shared() {
    let mut world = World::new(2);
    let ssm = |n: u16| Ipv6Addr::new(0xff3e, 0, 0, 0, 0, 0, 0, n);
    let network = addresses(1).address.segments();
    let source = |n: u32| {
        let [a, b, c, ..] = network;
        Ipv6Addr::new(a, b, c, 0, 0, 1, (n >> 16) as u16, n as u16)
    };
    for n in 0..64 {
        world.leaf(n, &["ff3e::/16"], &[1]);
        let now = world.now;
        for g in 0..64 {
            let first = u32::from(n) << 10 | u32::from(g) << 4;
            let filter = SourceFilter::include((first..first + 16).map(source));
            world.leaf_mut(n).join(ssm(g), filter.unwrap(), now);
        }
        world.flush();
    }
    world.run(Duration::from_secs(10));
    let states = world.routers[&1].tables().join_states;
    assert!((900..=1_024).contains(&states), "{states}");
    // a leaf and a program that list an existing source receive it
    let speaker = addresses(2).address;
    let filter = SourceFilter::include([speaker]).unwrap();
    world.leaf(64, &["ff3e::/16"], &[1]);
    let now = world.now;
    world.leaf_mut(64).join(ssm(3), filter, now);
    let report = common::report(RecordType::AllowNewSources, ssm(0), &[speaker]);
    world.router(1).handle_local_packet(report.into(), now);
    world.run(Duration::from_secs(1));
    world.say(2, ssm(0), 6);
    world.say(2, ssm(3), 7);
    world.run(Duration::from_secs(1));
    assert_eq!(world.numbers(64), [7]);
    assert_eq!(world.heard_at[&1], BTreeSet::from([6]));
    let now = world.now;
    let report = common::report(RecordType::BlockOldSources, ssm(0), &[speaker]);
    world.router(1).handle_local_packet(report.into(), now);
    for n in 0..65 {
        world.leaf_goes(n);
    }
    world.run(Duration::from_secs(70));
    assert_eq!(world.routers[&1].tables().join_states, 0);
}

/// Changes of leaves that change all the time have a bound, and each leaf has its own part.
#[test]
fn leaves_that_change_all_the_time_leave_others_their_changes() {
    let mut world = World::new(2);
    for n in 0..64 {
        world.leaf(n, ALL, &[1]);
    }
    world.leaf(64, ALL, &[1]);
    let before = world.routing_bytes;
    for turn in 0..100_u16 {
        let now = world.now;
        for n in 0..64 {
            let leaf = world.leaf_mut(n);
            let g = |turn: u16| group(OTHERS + n * 512 + turn);
            (0..4).for_each(|k| leaf.part(g(turn.max(1) * 4 - 4 + k), now));
            (0..4).for_each(|k| {
                leaf.join(g(turn * 4 + k), SourceFilter::all(), now);
            });
        }
        if turn % 20 == 10 {
            world.joins(64, group(turn));
        }
        world.run(Duration::from_millis(100));
    }
    // 10 s: the burst and 512 a second; a join and its end are some 85 bytes
    let bytes = world.routing_bytes - before;
    assert!(bytes < (2_048 + 5_120) * 140, "{bytes}");
    let wanted = [10, 30, 50, 70, 90];
    for n in wanted {
        world.say(2, group(n), n.into());
    }
    world.run(Duration::from_secs(1));
    assert_eq!(world.numbers(64), wanted.map(u32::from));
}

/// Two members with ordinary certificates, behind one router, join as much as they can.
#[test]
fn members_that_join_all_they_can_take_no_join_from_others_behind_the_same_router() {
    let pairs = [(1, 2), (4, 2), (5, 2), (2, 3), (3, 6), (3, 7), (3, 8)];
    let mut world = World::shaped(8, &pairs, &Limits::default());
    for n in 0..16_300 {
        world.joins_at(1, group(OTHERS + n));
        world.joins_at(4, group(OTHERS + 20_000 + n));
    }
    world.run(Duration::from_secs(20));
    assert!(world.dropped(2, DropReason::JoinWithheld) > 0);
    for router in [2, 3, 5] {
        MEMBERS.for_each(|n| world.joins_at(router, group(n)));
    }
    world.run(Duration::from_secs(2));
    for router in 1..=8 {
        assert_eq!(world.dropped(router, DropReason::JoinRefused), 0);
    }
    assert!(world.hear(&[2, 3, 5], 6, MEMBERS));
    assert!(world.hear(&[2, 5], 3, MEMBERS));
    assert!(world.hear(&[2, 3], 5, MEMBERS));
    // when one ends its joins, the other's waiting ones are advertised
    let waiting = world.routers[&2].tables().refused;
    for n in 0..16_300 {
        let now = world.now;
        let packet = common::leave(group(OTHERS + n)).into();
        world.router(1).handle_local_packet(packet, now);
    }
    world.run(Duration::from_secs(20));
    assert!(waiting > 0);
    assert_eq!(world.routers[&2].tables().refused, 0);
}

/// A leaf of four routers; the first, its active one, loses its links with the others.
#[test]
fn a_leaf_leaves_a_router_without_neighbours_for_one_with_some() {
    let mut world = World::new(4);
    world.leaf(0, ALL, &[1, 2]);
    world.joins(0, group(1));
    world.run(Duration::from_secs(1));
    let peer = |n| common::member(n).peer;
    assert_eq!(world.leaf_mut(0).active(), Some(peer(1)));
    world.cut_off(1);
    world.run(Duration::from_secs(5));
    assert_eq!(world.leaf_mut(0).active(), Some(peer(2)));
    let wanted = &world.wanted[&FIRST_LEAF];
    assert!(
        wanted.contains(&peer(2)) && !wanted.contains(&peer(1)),
        "{wanted:?}"
    );
    assert_eq!(wanted.len(), 2, "another one takes its place");
    let next = world.speak(3, group(1), 0, Duration::from_secs(1));
    assert_eq!(world.numbers(0), (0..next).collect::<Vec<_>>());
}

#[test]
fn a_leaf_leaves_a_spare_router_and_loses_no_packet_by_it() {
    let mut world = World::new(3);
    world.leaf(0, ALL, &[1, 2]);
    world.joins(0, group(1));
    world.run(Duration::from_secs(1));
    let peer = |n| common::member(n).peer;
    let next = world.speak(1, group(1), 0, Duration::from_secs(1));
    assert_eq!(world.leaf_mut(0).active(), Some(peer(1)));
    let now = world.now;
    world.router(1).set_spare(true, now);
    let next = world.speak(1, group(1), next, Duration::from_secs(2));
    assert_eq!(world.leaf_mut(0).active(), Some(peer(2)));
    let wanted = &world.wanted[&FIRST_LEAF];
    assert_eq!(*wanted, BTreeSet::from([2, 3].map(peer)));
    assert_eq!(world.numbers(0), (0..next).collect::<Vec<_>>());
    assert_eq!(world.joined_by_leaves(1), 0);
}

#[test]
fn a_leaf_stays_with_a_router_without_neighbours_that_has_the_sender_or_if_all_are_so() {
    let mut world = World::new(2);
    world.leaf(0, ALL, &[1, 2]);
    world.joins(0, group(1));
    let peer = |n| common::member(n).peer;
    // the network has no other routers: both links stay
    world.cut_off(1);
    world.run(Duration::from_secs(5));
    assert_eq!(world.wanted[&FIRST_LEAF], BTreeSet::from([1, 2].map(peer)));
    let mut world = World::new(4);
    world.leaf(0, ALL, &[1, 2]);
    world.joins(0, group(1));
    world.run(Duration::from_secs(1));
    let next = world.speak(1, group(1), 0, Duration::from_secs(1));
    world.cut_off(1);
    let next = world.speak(1, group(1), next, Duration::from_secs(5));
    assert_eq!(world.numbers(0), (0..next).collect::<Vec<_>>());
    assert_eq!(world.leaf_mut(0).active(), Some(peer(1)));
    // until the flow ends
    world.run(Duration::from_secs(5));
    assert_eq!(world.leaf_mut(0).active(), Some(peer(2)));
}
