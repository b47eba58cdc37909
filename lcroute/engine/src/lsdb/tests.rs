//! Databases in a network of links with delay that come and go.

use std::collections::BTreeMap;

use librecast::cert::{CLOCK_SKEW, EPHEMERAL_FORGOTTEN_AFTER};
use librecast::mapped;
use librecast::simulated::Queue;
use librecast::time::UnixTime;
use librecast::wire::Reader;
use proptest::prelude::*;

use super::*;
use crate::config::Ipv4Config;
use crate::graph::{Tree, mix};
use crate::testing::{
    NOT_AFTER, Rights, TestServices, UNIX_START, chain, revocation, revocation_by_issuer, start,
};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

struct Node {
    database: Database,
    services: Arc<TestServices>,
    events: Vec<DatabaseEvent>,
    results: Vec<DropReason>,
}

struct Wire {
    ends: [usize; 2],
    delay: Duration,
}

/// A network. Links have one number at both ends.
struct Network {
    nodes: Vec<Node>,
    wires: BTreeMap<LinkId, Wire>,
    flying: Queue<Instant, (LinkId, usize, Message)>,
    now: Instant,
    next_link: u32,
    sent: u64,
    sent_bytes: u64,
    lsas: u64,
    /// LSAs are lost on these links; summaries are not.
    deaf: BTreeSet<LinkId>,
}

fn own(services: &TestServices, incarnation: u32) -> LocalRouter {
    LocalRouter {
        origin: services.origin(),
        peer: services.peer(),
        incarnation,
        chain: services.chain(),
        mtu: 1280,
        flags: FLAG_CORE,
        announced: BTreeSet::new(),
        lans: Vec::new(),
        ipv4: None,
    }
}

/// Checks that all IPv4 addresses of a network differ and have known owners.
fn assert_ipv4(network: &Network) -> Vec<Ipv4Addr> {
    let all = network.nodes.iter();
    let all: Vec<_> = all
        .map(|node| node.database.ipv4_address().unwrap())
        .collect();
    let mut distinct = all.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), all.len());
    for node in &network.nodes {
        for (at, address) in all.iter().enumerate() {
            let owner = node
                .database
                .lan_sources()
                .ipv4_owner(mapped::name(*address));
            assert_eq!(owner, Some(network.origin(at)));
        }
    }
    all
}

/// The same network with IPv4 addresses at its nodes; those of earlier runs, if any.
fn with_ipv4(nodes: u16, kept: impl Fn(u16) -> Option<Ipv4Addr>) -> Network {
    let mut network = Network::new(nodes);
    for at in 0..nodes {
        let services = Arc::new(TestServices::new(at));
        let own = LocalRouter {
            ipv4: Some(Ipv4Config {
                network: "10.77.0.0/16".parse().unwrap(),
                kept: kept(at),
                assigns: true,
            }),
            ..own(&services, 1)
        };
        let host: Arc<dyn Services> = Arc::<TestServices>::clone(&services);
        let database = Database::new(own, &Limits::default(), host, network.now);
        network.nodes[usize::from(at)].database = database;
    }
    network
}

#[test]
fn ipv4_addresses_of_twelve_that_were_copied_come_apart_and_the_lowest_keeps_its_own() {
    let same = Ipv4Addr::new(10, 77, 7, 7);
    let mut network = with_ipv4(12, |_| Some(same));
    for at in 0..12 {
        network.connect(at, (at + 1) % 12, 3);
    }
    network.run(Duration::from_secs(60));
    let all = assert_ipv4(&network);
    let lowest = (0..12).min_by_key(|at| network.origin(*at)).unwrap();
    assert_eq!(all[lowest], same);
}

#[test]
fn ipv4_addresses_stay_where_a_network_parts_and_heals() {
    let mut network = with_ipv4(8, |_| None);
    let mut across = Vec::new();
    for at in 0..8 {
        let link = network.connect(at, (at + 1) % 8, 3);
        if at == 3 || at == 7 {
            across.push(link);
        }
    }
    network.run(Duration::from_secs(20));
    let before = assert_ipv4(&network);
    across.into_iter().for_each(|link| network.cut(link));
    network.run(Duration::from_secs(20));
    network.connect(3, 4, 3);
    network.run(Duration::from_secs(20));
    assert_eq!(assert_ipv4(&network), before);
}

#[test]
fn a_new_node_has_an_ipv4_address_before_any_link_and_takes_nobodys() {
    let mut network = with_ipv4(1, |_| None);
    let address = network.nodes[0].database.ipv4_address();
    assert!(address.is_some());
    network.run(Duration::from_secs(10));
    assert_eq!(network.nodes[0].database.ipv4_address(), address);
    // both ways: of any two nodes one has the lower id
    for new in [0, 1] {
        let first = with_ipv4(2, |_| None).nodes[usize::from(new)]
            .database
            .ipv4_address();
        let mut network = with_ipv4(2, |at| first.filter(|_| at != new));
        network.connect(0, 1, 1);
        network.run(Duration::from_secs(10));
        let all = assert_ipv4(&network);
        assert_eq!(Some(all[1 - usize::from(new)]), first, "it was there first");
    }
}

fn node(services: TestServices, incarnation: u32, limits: &Limits, now: Instant) -> Node {
    let services = Arc::new(services);
    let own = own(&services, incarnation);
    let host: Arc<dyn Services> = Arc::<TestServices>::clone(&services);
    Node {
        database: Database::new(own, limits, host, now),
        services,
        events: Vec::new(),
        results: Vec::new(),
    }
}

impl Network {
    fn new(nodes: u16) -> Self {
        let now = start();
        let make = |n| node(TestServices::new(n), 1, &Limits::default(), now);
        Self {
            nodes: (0..nodes).map(make).collect(),
            wires: BTreeMap::new(),
            flying: Queue::default(),
            now,
            next_link: 0,
            sent: 0,
            sent_bytes: 0,
            lsas: 0,
            deaf: BTreeSet::new(),
        }
    }

    /// A ring, and links across.
    fn ring(nodes: u16) -> Self {
        let mut network = Self::new(nodes);
        let n = usize::from(nodes);
        for at in 0..n {
            network.connect(at, (at + 1) % n, 1 + at as u64);
            network.connect(at, (at + n / 3) % n, 2 + at as u64);
        }
        network
    }

    fn mesh(nodes: u16) -> Self {
        let mut network = Self::new(nodes);
        for a in 0..usize::from(nodes) {
            for b in 0..a {
                network.connect(a, b, 5);
            }
        }
        network
    }

    fn add(&mut self, services: TestServices) -> usize {
        let last = node(services, 1, &Limits::default(), self.now);
        self.nodes.push(last);
        self.nodes.len() - 1
    }

    fn restart(&mut self, at: usize, incarnation: u32) {
        self.cut_off(at);
        let services = TestServices::new(at as u16);
        self.nodes[at] = node(services, incarnation, &Limits::default(), self.now);
    }

    fn links_of(&self, at: usize) -> Vec<LinkId> {
        let here = |wire: &Wire| wire.ends.contains(&at);
        self.wires
            .iter()
            .filter(|(_, wire)| here(wire))
            .map(|(link, _)| *link)
            .collect()
    }

    fn connect(&mut self, a: usize, b: usize, delay_ms: u64) -> LinkId {
        self.connect_as(a, b, delay_ms, LinkStanding::Wanted)
    }

    fn connect_as(&mut self, a: usize, b: usize, delay_ms: u64, standing: LinkStanding) -> LinkId {
        let link = LinkId(self.next_link);
        self.next_link += 1;
        let delay = Duration::from_millis(delay_ms);
        self.wires.insert(
            link,
            Wire {
                ends: [a, b],
                delay,
            },
        );
        for (here, far) in [(a, b), (b, a)] {
            let origin = self.origin(far);
            let database = &mut self.nodes[here].database;
            database.link_up(link, origin, self.now);
            database.set_standing(link, standing, self.now);
            database.set_rtt(link, delay * 2, self.now);
        }
        self.flush(a);
        self.flush(b);
        link
    }

    fn cut(&mut self, link: LinkId) {
        let Some(wire) = self.wires.remove(&link) else {
            return;
        };
        for end in wire.ends {
            self.nodes[end].database.link_down(link, self.now);
            self.flush(end);
        }
    }

    fn cut_off(&mut self, at: usize) {
        for link in self.links_of(at) {
            self.cut(link);
        }
    }

    fn origin(&self, at: usize) -> OriginId {
        self.nodes[at].services.origin()
    }

    /// Sets the standing of a link at both ends.
    fn think(&mut self, link: LinkId, standing: LinkStanding) {
        for end in self.wires[&link].ends {
            let database = &mut self.nodes[end].database;
            database.set_standing(link, standing, self.now);
            self.flush(end);
        }
    }

    /// Number of the graph's links with `at` as an end.
    fn links_in_graph(&mut self, at: usize) -> usize {
        let origin = self.origin(at);
        self.nodes[at].database.graph().neighbors(origin).count()
    }

    fn flush(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.events.extend(node.database.take_events());
        for (link, message) in node.database.take_messages() {
            let wire = &self.wires[&link];
            let to = wire.ends[usize::from(wire.ends[0] == at)];
            self.sent += 1;
            let (message, bytes) = over_the_wire(&message);
            self.sent_bytes += bytes as u64;
            self.flying.push(self.now + wire.delay, (link, to, message));
        }
    }

    fn deliver(&mut self, link: LinkId, to: usize, message: Message) {
        let now = self.now;
        let node = &mut self.nodes[to];
        let result = match message {
            Message::Lsa(_) if self.deaf.contains(&link) => Ok(()),
            Message::Lsa(lsa) => {
                self.lsas += 1;
                node.database.handle_lsa(link, lsa.kind, &lsa.bytes, now)
            }
            Message::Summary(summary) => node.database.handle_summary(link, &summary, now),
        };
        node.results.extend(result.err());
        self.flush(to);
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let timer = (0..self.nodes.len())
                .filter_map(|at| Some((self.nodes[at].database.next_timeout()?, at)))
                .min();
            match (timer, self.flying.next_at()) {
                (timer, Some(due)) if due <= end && timer.is_none_or(|t| due <= t.0) => {
                    self.now = self.now.max(due);
                    let (_, (link, to, message)) = self.flying.pop(due).unwrap();
                    // messages on a cut wire are lost; no two wires have the same number
                    if self.wires.contains_key(&link) {
                        self.deliver(link, to, message);
                    }
                }
                (Some((when, at)), _) if when <= end => {
                    self.now = self.now.max(when);
                    self.nodes[at].database.handle_timeout(self.now);
                    self.flush(at);
                    let next = self.nodes[at].database.next_timeout();
                    assert!(
                        next.is_none_or(|next| next > self.now),
                        "a timer that is not stopped"
                    );
                }
                _ => break,
            }
        }
        self.now = end;
    }

    /// The sets of nodes that can reach each other by the wires.
    fn parts(&self) -> Vec<Vec<usize>> {
        let mut part: Vec<usize> = (0..self.nodes.len()).collect();
        for wire in self.wires.values() {
            let [a, b] = wire.ends.map(|end| part[end]);
            for p in &mut part {
                if *p == b {
                    *p = a;
                }
            }
        }
        let mut parts: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (at, part) in part.into_iter().enumerate() {
            parts.entry(part).or_default().push(at);
        }
        parts.into_values().collect()
    }

    /// Checks that nodes that can reach each other have the same state, that of the wires.
    fn assert_agreed(&mut self) {
        for part in self.parts() {
            let mut expected: Vec<OriginId> = part.iter().map(|&at| self.origin(at)).collect();
            expected.sort_unstable();
            let mut costs: BTreeMap<(OriginId, OriginId), u16> = BTreeMap::new();
            for (link, wire) in &self.wires {
                let [a, b] = wire.ends;
                if part.contains(&a) {
                    let cost = self.nodes[a]
                        .database
                        .flooding
                        .links
                        .get(link)
                        .unwrap()
                        .cost
                        .get();
                    let ends = [self.origin(a), self.origin(b)];
                    let key = (*ends.iter().min().unwrap(), *ends.iter().max().unwrap());
                    let least = costs.entry(key).or_insert(cost);
                    *least = cost.min(*least);
                }
            }
            let mut first = None;
            for &at in &part {
                let origin = self.origin(at);
                let database = &mut self.nodes[at].database;
                let graph = database.graph();
                let reachable: Vec<_> = graph.reachable(origin).collect();
                assert_eq!(reachable, expected, "node {at}");
                let known = database.routers().filter(|(_, r)| r.is_reachable());
                assert_eq!(known.map(|(o, _)| o).collect::<Vec<_>>(), expected);
                let mut links = BTreeMap::new();
                for &x in &expected {
                    for (to, cost) in graph.neighbors(x) {
                        links.insert((x.min(to), x.max(to)), cost);
                    }
                }
                assert_eq!(links, costs, "node {at}");
                let elected = database.rps.ranges().map(|range| range.elected);
                let tree = Tree::compute(&graph, elected[0].unwrap()).unwrap();
                let tree: Vec<_> = expected.iter().map(|&x| tree.parent(x)).collect();
                let announced = database.rps.prefixes().clone();
                let all = (database.store.sums(), elected, tree, announced);
                let first = first.get_or_insert_with(|| all.clone());
                assert!(*first == all, "node {at} differs");
            }
        }
    }

    /// Checks that an idle network sends nothing.
    fn assert_quiet(&mut self) {
        let before = self.sent;
        self.run(30 * MINUTE);
        assert_eq!(self.sent - before, 0, "messages at rest");
    }

    fn events(&mut self, at: usize) -> Vec<DatabaseEvent> {
        std::mem::take(&mut self.nodes[at].events)
    }

    fn router(&self, at: usize, of: usize) -> Option<&Router> {
        self.nodes[at].database.router(self.origin(of))
    }

    fn revoke(&mut self, at: usize, revocation: &[u8]) {
        let database = &mut self.nodes[at].database;
        database.add_revocation(revocation, self.now).unwrap();
        self.flush(at);
    }

    fn announce(&mut self, at: usize, prefixes: &[&str]) {
        let prefixes = prefixes.iter().map(|p| p.parse().unwrap()).collect();
        let now = self.now;
        self.nodes[at].database.set_announced(prefixes, now);
        self.flush(at);
    }
}

fn over_the_wire(message: &Message) -> (Message, usize) {
    let mut w = Writer::new();
    let copy = match message {
        Message::Lsa(lsa) => {
            lsa.encode(&mut w);
            Message::Lsa(Lsa::decode(&mut Reader::new(w.as_slice())).unwrap())
        }
        Message::Summary(summary) => {
            summary.encode(&mut w);
            Message::Summary(Summary::decode(&mut Reader::new(w.as_slice())).unwrap())
        }
    };
    assert_eq!(copy, *message);
    assert!(w.len() <= crate::control::MAX_MESSAGE - 3);
    (copy, w.len())
}

#[test]
fn a_network_agrees_and_then_is_quiet() {
    let mut network = Network::ring(24);
    // the first link is advertised at once, further ones with the next advertisement
    network.run(8 * SECOND);
    network.assert_agreed();
    network.run(10 * MINUTE);
    network.assert_agreed();
    for at in 0..24 {
        for slot in 0..GROUP_RANGES {
            let database = &network.nodes[at].database;
            let root = database.rp(slot).unwrap();
            let advertisement = database.router(root).unwrap().advertisement().unwrap();
            assert!(
                advertisement.is_candidate(slot),
                "a candidate for range {slot}"
            );
        }
        assert_eq!(network.nodes[at].results, [], "node {at}");
    }
    network.assert_quiet();
}

#[test]
fn each_lsa_goes_over_each_link_about_once() {
    let mut network = Network::ring(24);
    network.run(10 * MINUTE);
    let (sent, at) = (network.sent, 5);
    let links = network.wires.len() as u64;
    network.announce(at, &["ff1e:1::/32"]);
    network.run(MINUTE);
    // the announcement, and then the candidacy, over each link in one or both directions
    let sent = network.sent - sent;
    assert!(
        (2 * 23..=2 * 2 * links).contains(&sent),
        "{sent} messages, {links} links"
    );
    network.assert_agreed();
}

#[test]
fn a_router_with_many_new_links_gets_everything_once() {
    let mut network = Network::ring(24);
    let newcomer = network.add(TestServices::new(24));
    network.run(10 * MINUTE);
    let (sent, verified) = (
        network.sent,
        network.nodes[newcomer].services.verifications(),
    );
    for at in 0..8 {
        network.connect(newcomer, at, 20);
    }
    network.run(MINUTE);
    network.assert_agreed();
    let per_lsa = network.nodes[newcomer].services.verifications() - verified;
    // credential: chain and signature; advertisement: signature; neighbours verify new LSAs twice
    assert!(per_lsa < 24 * 3 + 4 * 8 + 40, "{per_lsa} verifications");
    let sent = network.sent - sent;
    // 48 LSAs to the newcomer; some changes at nine routers, flooded over 56 links
    assert!(sent < 48 + 8 * 10 + 40 * 2 * 56, "{sent} messages");
}

#[test]
fn a_lost_link_is_known_at_once_and_a_lost_router_leaves() {
    let mut network = Network::ring(12);
    network.run(10 * MINUTE);
    for at in 0..12 {
        network.events(at);
    }
    let lost = network.origin(3);
    network.cut_off(3);
    network.run(SECOND / 5);
    for at in (0..12).filter(|at| *at != 3) {
        assert!(!network.nodes[at].database.is_reachable(lost), "node {at}");
        let down = DatabaseEvent::RouterDown(lost);
        assert_eq!(network.events(at).iter().filter(|e| **e == down).count(), 1);
        assert_ne!(network.nodes[at].database.rp(0), Some(lost));
    }
    assert!(network.router(7, 3).is_some(), "it may come back");
    network.run(HOUR + SECOND);
    assert!(network.router(7, 3).is_none(), "forgotten");
    network.assert_agreed();
    network.connect(3, 4, 10);
    network.run(MINUTE);
    network.assert_agreed();
    assert!(network.router(7, 3).is_some());
    network.assert_quiet();
}

/// A node that is forgotten some minutes after it has gone.
fn ephemeral(n: u16, now: Instant) -> Node {
    let rights = Rights {
        invitation: Some((9, None)),
        ephemeral: true,
        ..Rights::default()
    };
    node(TestServices::with(n, &rights), 1, &Limits::default(), now)
}

#[test]
fn a_container_that_comes_back_as_another_node_each_time_leaves_nothing_behind() {
    let mut network = Network::new(7);
    for at in 0..6 {
        network.connect(at, (at + 1) % 6, 5);
    }
    network.connect(0, 4, 5);
    network.run(10 * MINUTE);
    // node 5 is away for a long time, and no ephemeral member
    network.cut_off(5);
    // six, the container, those that have gone since, and one that is about to be forgotten
    let most = 6 + 1 + EPHEMERAL_FORGOTTEN_AFTER.as_secs() as usize / 10 + 1;
    for run in 0..200 {
        network.cut_off(6);
        network.nodes[6] = ephemeral(100 + run, network.now);
        network.connect(6, usize::from(run % 5), 3);
        network.run(10 * SECOND);
        for at in 0..5 {
            let tables = network.nodes[at].database.tables();
            assert_eq!(tables.reachable, 6, "node {at} in run {run}");
            assert!(tables.routers <= most, "node {at} knows {tables:?}");
        }
    }
    network.cut_off(6);
    // not too early: a path that soon comes back costs nothing
    network.run(EPHEMERAL_FORGOTTEN_AFTER - 10 * SECOND);
    let last = TestServices::with(299, &Rights::default()).origin();
    assert!(network.nodes[0].database.router(last).is_some());
    network.run(20 * SECOND);
    for at in 0..5 {
        let tables = network.nodes[at].database.tables();
        assert_eq!((tables.routers, tables.reachable), (6, 5), "node {at}");
        assert!(network.router(at, 5).is_some(), "it is no ephemeral member");
    }
    // later no node passes on the forgotten ones
    network.connect(0, 3, 9);
    network.run(MINUTE);
    assert_eq!(network.nodes[0].database.tables().routers, 6);
    network.assert_quiet();
}

#[test]
fn an_ephemeral_member_is_known_as_long_as_a_path_leads_there() {
    let mut network = Network::new(4);
    network.nodes[3] = ephemeral(3, network.now);
    for at in 0..3 {
        network.connect(3, at, 5);
        network.connect(at, (at + 1) % 3, 5);
    }
    network.run(MINUTE);
    // one of three links stays for hours
    for link in network.links_of(3).into_iter().skip(1) {
        network.cut(link);
    }
    network.run(5 * HOUR);
    for at in 0..3 {
        assert!(network.router(at, 3).is_some_and(Router::is_reachable));
    }
    // a part of the network that was away finds it again
    network.cut_off(3);
    network.run(EPHEMERAL_FORGOTTEN_AFTER * 2);
    assert!(network.router(0, 3).is_none() && network.router(3, 0).is_some());
    network.connect(3, 1, 5);
    network.run(MINUTE);
    network.assert_agreed();
}

#[test]
fn a_router_that_came_during_a_partition_gets_all_lsas_after_it() {
    let mut network = Network::new(9);
    for (a, b) in [(0, 1), (1, 2), (2, 3), (4, 5), (5, 6), (6, 7)] {
        network.connect(a, b, 5);
    }
    let bridge = network.connect(3, 4, 30);
    network.run(MINUTE);
    network.assert_agreed();
    network.cut(bridge);
    network.run(MINUTE);
    // node 8 never saw the other part, and is not a neighbour of the bridge
    network.connect(8, 0, 5);
    network.run(MINUTE);
    network.assert_agreed();
    assert!(network.router(8, 6).is_none());
    network.connect(3, 4, 30);
    network.run(2 * MINUTE);
    network.assert_agreed();
    network.assert_quiet();
}

#[test]
fn after_a_merge_only_differences_travel() {
    let mut network = Network::ring(24);
    let far = network.add(TestServices::new(24));
    let link = network.connect(far, 0, 5);
    network.run(10 * MINUTE);
    network.cut(link);
    network.run(10 * MINUTE);
    let (sent, bytes) = (network.sent, network.sent_bytes);
    network.connect(far, 0, 5);
    network.run(SECOND / 2);
    network.assert_agreed();
    // two advertisements flooded, a summary each way; none of the 23 other routers' LSAs
    let (sent, bytes) = (network.sent - sent, network.sent_bytes - bytes);
    assert!(sent < 4 * 49 + 10, "{sent} messages");
    assert!(bytes < 60_000, "{bytes} bytes");
}

#[test]
fn a_link_is_advertised_while_it_is_wanted_and_not_when_it_retires() {
    let mut network = Network::ring(12);
    network.run(10 * MINUTE);
    let before = network.links_in_graph(0);
    let sent = network.sent;
    let link = network.connect_as(0, 6, 5, LinkStanding::Unwanted);
    network.run(MINUTE);
    // a trial: no advertisement is originated, not even for the other end
    assert_eq!((network.links_in_graph(0), network.sent), (before, sent));
    network.think(link, LinkStanding::Wanted);
    network.run(MINUTE);
    network.assert_agreed();
    assert_eq!(network.links_in_graph(0), before + 1);
    network.think(link, LinkStanding::Retiring);
    network.run(MINUTE);
    let graphs = [0, 3, 6].map(|at| network.nodes[at].database.graph().digest());
    assert_eq!(network.links_in_graph(0), before);
    assert_eq!(graphs, [graphs[0]; 3]);
    // the end of an unused link changes nothing
    let sent = network.sent;
    network.cut(link);
    network.run(MINUTE);
    assert_eq!(network.sent, sent);
}

#[test]
fn an_unwanted_link_is_advertised_where_nothing_else_leads() {
    let mut network = Network::new(2);
    network.connect_as(0, 1, 5, LinkStanding::Unwanted);
    network.run(MINUTE);
    network.assert_agreed();
    assert_eq!(network.links_in_graph(0), 1);
}

#[test]
fn only_the_loss_of_a_link_is_urgent() {
    let mut network = Network::ring(12);
    let link = network.connect(0, 6, 5);
    network.run(10 * MINUTE);
    let originated = |network: &Network| {
        let advertisement = network.router(3, 0).unwrap().advertisement().unwrap();
        (advertisement.links().count(), advertisement.is_urgent())
    };
    let (links, urgent) = originated(&network);
    assert!(!urgent, "links have come");
    network.think(link, LinkStanding::Retiring);
    network.run(MINUTE);
    network.cut(link);
    network.run(MINUTE);
    assert_eq!(originated(&network), (links - 1, false), "given up");
    let lost = network.links_of(0)[0];
    network.cut(lost);
    network.run(SECOND / 2);
    assert_eq!(originated(&network), (links - 2, true), "lost");
    network.announce(0, &["ff1e:1::/32"]);
    network.run(SECOND / 4);
    assert_eq!(
        originated(&network),
        (links - 2, true),
        "by who missed that, too"
    );
    network.run(2 * SECOND);
    network.announce(0, &[]);
    network.run(MINUTE);
    assert_eq!(originated(&network), (links - 2, false));
}

#[test]
fn an_lsa_that_is_not_urgent_crosses_a_link_once() {
    let mut network = Network::ring(30);
    network.run(10 * MINUTE);
    network.assert_agreed();
    let sent = network.sent;
    network.nodes[0].database.set_flags(0, network.now);
    network.flush(0);
    network.run(10 * MINUTE);
    network.assert_agreed();
    let (crossed, links) = (network.sent - sent, network.wires.len() as u64);
    // each link once; the originator and routers on slow paths sometimes send in both directions
    assert!(
        crossed >= links && crossed < links + links / 4,
        "{crossed} over {links}"
    );
}

#[test]
fn in_a_large_network_a_router_gets_each_lsa_about_once() {
    let mut network = Network::ring(80);
    network.run(10 * MINUTE);
    network.assert_agreed();
    let lsas = network.lsas;
    network.nodes[0].database.set_flags(0, network.now);
    network.flush(0);
    network.run(MINUTE);
    network.assert_agreed();
    let (crossed, links) = (network.lsas - lsas, network.wires.len() as u64);
    // the originator sends to all its neighbours
    assert!(
        links == 160 && (79..=79 + 4).contains(&crossed),
        "{crossed}"
    );
    network.assert_quiet();
}

#[test]
fn in_a_mesh_few_relays_flood_the_loss_of_a_router() {
    let mut network = Network::mesh(20);
    network.run(2 * MINUTE);
    network.assert_agreed();
    let lsas = network.lsas;
    network.cut_off(19);
    network.run(SECOND / 10);
    for at in 0..19 {
        let graph = network.nodes[at].database.graph();
        assert_eq!(graph.reachable(network.origin(at)).count(), 19);
        assert_eq!(network.links_in_graph(at), 18);
    }
    network.run(MINUTE);
    network.assert_agreed();
    // each floods the loss of a link to 18, and each of them to four; if all flooded to all, 6,000
    let crossed = network.lsas - lsas;
    assert!((19 * 18..19 * 18 * 6).contains(&crossed), "{crossed}");
}

#[test]
fn many_losses_of_one_moment_are_known_in_half_a_second() {
    let mut network = Network::mesh(20);
    network.run(2 * MINUTE);
    for link in network.links_of(0).into_iter().take(14) {
        network.cut(link);
        network.run(20 * MILLISECOND);
    }
    network.run(150 * MILLISECOND);
    let originated = network.router(19, 0).unwrap().advertisement().unwrap();
    assert_eq!(originated.links().count(), 5);
    network.run(MINUTE);
    network.assert_agreed();
}

#[test]
fn an_lsa_that_does_not_come_along_the_tree_is_named_in_ihave() {
    let mut network = Network::ring(80);
    network.run(10 * MINUTE);
    let at = 40;
    let links = network.nodes[at].database.flooding.links.iter();
    let on_tree =
        |(id, link): (LinkId, &LinkQueue)| (link.scope == pending::FloodScope::Tree).then_some(id);
    network.deaf = links.filter_map(on_tree).collect();
    assert!((1..4).contains(&network.deaf.len()), "{:?}", network.deaf);
    network.nodes[0].database.set_flags(0, network.now);
    network.flush(0);
    let is_known =
        |network: &Network, at: usize| !network.router(at, 0).unwrap().has_flag(FLAG_CORE);
    network.run(SECOND / 2);
    assert!(is_known(&network, 0) && !is_known(&network, at));
    network.run(5 * SECOND);
    assert!(is_known(&network, at));
    // also at nodes behind it
    network.assert_agreed();
}

#[test]
fn a_restarted_router_is_known_by_its_incarnation() {
    let mut network = Network::ring(8);
    network.run(MINUTE);
    network.events(5);
    network.restart(2, 2);
    network.connect(2, 3, 5);
    network.run(8 * SECOND);
    let origin = network.origin(2);
    let event = DatabaseEvent::Incarnation(origin, 2);
    assert!(network.events(5).contains(&event));
    network.assert_agreed();
}

#[test]
fn a_router_that_lost_its_number_jumps_above_it() {
    let mut network = Network::ring(8);
    network.restart(2, 7);
    network.connect(2, 3, 5);
    network.run(MINUTE);
    network.restart(2, 1);
    network.events(2);
    network.connect(2, 4, 5);
    network.connect(2, 6, 5);
    network.run(14 * SECOND);
    network.assert_agreed();
    let origin = network.origin(2);
    assert_eq!(network.nodes[2].database.incarnation(), 8);
    assert!(
        network
            .events(2)
            .contains(&DatabaseEvent::Incarnation(origin, 8))
    );
    let known = network.router(5, 2).unwrap().advertisement().unwrap();
    assert_eq!(known.incarnation(), 8);
    // the same incarnation again, with a lower sequence
    network.restart(2, 8);
    network.connect(2, 4, 5);
    network.run(14 * SECOND);
    network.assert_agreed();
    assert_eq!(network.nodes[2].database.incarnation(), 8);
    network.assert_quiet();
}

#[test]
fn two_hosts_with_one_key_do_not_flood_the_network() {
    let mut network = Network::ring(8);
    let twin = network.add(TestServices::new(3));
    network.connect(twin, 6, 5);
    network.run(MINUTE);
    let sent = network.sent;
    network.run(10 * MINUTE);
    let wires = network.wires.len() as u64;
    let each = (network.sent - sent) / (2 * wires);
    assert!(each < 3 * 10 * 60 / 5, "{each} messages over each link");
}

#[test]
fn a_revocation_spreads_and_blocks() {
    let mut network = Network::ring(10);
    network.run(MINUTE);
    let (origin, peer) = (network.origin(4), network.nodes[4].services.peer());
    let bytes = revocation(&peer, NOT_AFTER + 1_000_000);
    network.revoke(0, &bytes);
    for at in 0..10 {
        network.events(at);
    }
    network.run(SECOND);
    for at in (0..10).filter(|at| *at != 4) {
        assert!(network.router(at, 4).is_none(), "node {at}");
        assert!(network.nodes[at].database.is_revoked(&peer));
        let events = network.events(at);
        if at != 0 {
            assert!(events.contains(&DatabaseEvent::Revoked(peer, bytes.clone())));
            assert!(events.contains(&DatabaseEvent::RouterDown(origin)));
        }
    }
    network.cut_off(4);
    network.connect(4, 8, 5);
    network.run(MINUTE);
    assert!(network.router(8, 4).is_none());
    assert!(network.nodes[8].results.contains(&DropReason::Revoked));
    // a new node receives it, too
    network.restart(9, 2);
    network.connect(9, 1, 5);
    network.run(SECOND);
    assert!(network.nodes[9].database.is_revoked(&peer));
    // it expires with the last certificate that it concerns
    for node in &network.nodes {
        node.services
            .set_unix(UnixTime::from_secs(NOT_AFTER + 1_000_001));
    }
    network.run(2 * HOUR);
    assert!(!network.nodes[8].database.is_revoked(&peer));
}

#[test]
fn the_issuers_revocation_takes_all_its_members() {
    let mut network = Network::ring(6);
    network.run(MINUTE);
    let issuer = network.router(0, 1).unwrap().credential().keys[0];
    network.revoke(0, &revocation(&issuer, NOT_AFTER));
    assert_eq!(network.nodes[0].database.tables().routers, 1, "itself");
    assert_eq!(network.nodes[0].database.rp(1), Some(network.origin(0)));
}

#[test]
fn an_issuer_expels_nodes_and_no_issuer_nor_stands_in_the_networks_way() {
    let mut network = Network::ring(6);
    network.run(MINUTE);
    let issuer = network.router(0, 1).unwrap().credential().keys[0];
    let peer = network.nodes[4].services.peer();
    let now = network.now;
    let database = &mut network.nodes[0].database;
    // by an issuer, and valid for longer than the network's own
    let by_issuer = revocation_by_issuer(&issuer, NOT_AFTER + 9);
    database.add_revocation(&by_issuer, now).unwrap();
    assert_eq!(database.tables().routers, 6);
    let of_node = revocation_by_issuer(&peer, NOT_AFTER);
    database.add_revocation(&of_node, now).unwrap();
    assert_eq!(database.tables().routers, 5);
    let by_network = revocation(&issuer, NOT_AFTER);
    database.add_revocation(&by_network, now).unwrap();
    assert_eq!(database.tables().routers, 1, "itself");
}

#[test]
fn false_revocations_do_not_count() {
    let mut network = Network::ring(4);
    network.run(MINUTE);
    let peer = network.nodes[2].services.peer();
    let now = network.now;
    let mut bytes = revocation(&peer, NOT_AFTER).to_vec();
    bytes[40] ^= 1;
    let database = &mut network.nodes[0].database;
    assert!(database.add_revocation(&bytes, now).is_err());
    assert!(
        database
            .add_revocation(&revocation(&peer, UNIX_START - 1), now)
            .is_err()
    );
    let link = database.flooding.links.keys()[0];
    let good = revocation(&peer, NOT_AFTER);
    let mut w = Writer::new();
    w.u64(revocation_key(&peer, true))
        .u64(NOT_AFTER + 1)
        .put(&good);
    let lsa = w.into_vec();
    let result = database.handle_lsa(link, KIND_REVOCATION, &lsa, now);
    assert_eq!(result, Err(DropReason::BadLsa), "another version outside");
    assert!(!database.is_revoked(&peer));
}

#[test]
fn expired_certificates_leave_with_their_router_unless_renewed() {
    let mut network = Network::ring(6);
    let soon = Rights {
        not_after: UNIX_START + 1_000,
        ..Rights::default()
    };
    for at in [2, 4] {
        network.cut_off(at);
        let services = TestServices::with(at as u16, &soon);
        network.nodes[at] = node(services, 2, &Limits::default(), network.now);
        network.connect(at, 1, 5);
        network.connect(at, 5, 5);
    }
    network.run(MINUTE);
    network.assert_agreed();
    network.events(0);
    let renewed = chain(
        4,
        &Rights {
            not_before: UNIX_START + 500,
            ..Rights::default()
        },
    );
    let now = network.now;
    let database = &mut network.nodes[4].database;
    database.set_own_chain(renewed.clone(), now).unwrap();
    network.flush(4);
    network.run(SECOND);
    let changed = DatabaseEvent::CredentialChanged(network.origin(4));
    assert!(network.events(0).contains(&changed));
    let known = network.router(0, 4).unwrap();
    assert_eq!(known.credential_lsa().chain(), &renewed[..]);
    for node in &network.nodes {
        node.services
            .set_unix(UnixTime::from_secs(UNIX_START + 1_001 + CLOCK_SKEW));
    }
    network.run(HOUR);
    assert!(network.router(0, 2).is_none(), "expired");
    assert!(network.router(0, 4).is_some(), "renewed");
    let down = DatabaseEvent::RouterDown(network.origin(2));
    assert!(network.events(0).contains(&down));
}

#[test]
fn many_advertisements_of_one_router_wait_and_the_newest_wins() {
    let mut network = Network::ring(4);
    network.run(10 * SECOND);
    let services = TestServices::new(2);
    let origin = services.origin();
    let link = network.links_of(0)[0];
    let lsa = |sequence| {
        let content = network.nodes[2].database.origination.content(&[], vec![]);
        let version = Version::new(1, sequence);
        Advertisement::sign(origin, version, &content, &services).unwrap()
    };
    let lsas: Vec<Bytes> = (100..140).map(|n| lsa(n).bytes().clone()).collect();
    let now = network.now;
    let node = &mut network.nodes[0];
    let verified = node.services.verifications();
    let mut results = Vec::new();
    for bytes in &lsas {
        results.push(
            node.database
                .handle_lsa(link, KIND_ADVERTISEMENT, bytes, now),
        );
    }
    let limited = results
        .iter()
        .filter(|r| **r == Err(DropReason::FloodLimited))
        .count();
    assert!((24..=26).contains(&limited), "{limited}");
    assert!(node.services.verifications() - verified <= 16);
    let sequence = |node: &Node| {
        let router = node.database.router(origin).unwrap();
        router.advertisement().unwrap().sequence()
    };
    assert!(sequence(node) < 120);
    node.database.handle_timeout(now + 2 * SECOND);
    assert_eq!(sequence(node), 139, "the newest, not the next");
}

/// All LSAs of a database, each with its kind.
fn lsas(database: &Database) -> Vec<(u8, Bytes)> {
    let of_router = |router: &Router| {
        let advertisement = router.advertisement().unwrap().bytes().clone();
        let credential = router.credential_lsa().bytes().clone();
        [
            (KIND_CREDENTIAL, credential),
            (KIND_ADVERTISEMENT, advertisement),
        ]
    };
    let routers = database.routers();
    routers.flat_map(|(_, router)| of_router(router)).collect()
}

#[test]
fn what_is_not_newer_costs_no_signature() {
    let mut network = Network::ring(6);
    network.run(MINUTE);
    let now = network.now;
    let link = network.links_of(0)[0];
    let node = &mut network.nodes[0];
    let verified = node.services.verifications();
    for (kind, bytes) in lsas(&node.database) {
        assert_eq!(node.database.handle_lsa(link, kind, &bytes, now), Ok(()));
    }
    assert_eq!(node.services.verifications(), verified);
    assert_eq!(node.database.take_messages(), []);
}

#[test]
fn an_older_lsa_is_answered_with_ours() {
    let mut network = Network::ring(4);
    network.run(MINUTE);
    let (now, link) = (network.now, network.links_of(0)[0]);
    let old = {
        let content = network.nodes[2].database.origination.content(&[], vec![]);
        let services = TestServices::new(2);
        let version = Version::new(1, 1);
        Advertisement::sign(services.origin(), version, &content, &services).unwrap()
    };
    let newer = network
        .router(0, 2)
        .unwrap()
        .advertisement()
        .unwrap()
        .bytes()
        .clone();
    let database = &mut network.nodes[0].database;
    database
        .handle_lsa(link, KIND_ADVERTISEMENT, old.bytes(), now)
        .unwrap();
    let expected = Message::Lsa(Lsa {
        kind: KIND_ADVERTISEMENT,
        bytes: newer,
    });
    assert_eq!(database.take_messages(), [(link, expected)]);
}

#[test]
fn an_advertisement_waits_for_its_credential() {
    let now = start();
    let mut here = node(TestServices::new(1), 1, &Limits::default(), now);
    let mut far = node(TestServices::new(2), 1, &Limits::default(), now);
    let origin = far.services.origin();
    far.database.link_up(LinkId(9), here.services.origin(), now);
    far.database
        .set_standing(LinkId(9), LinkStanding::Wanted, now);
    far.database.set_rtt(LinkId(9), 5 * MILLISECOND, now);
    far.database.update();
    here.database.link_up(LinkId(9), origin, now);
    here.database.set_rtt(LinkId(9), 5 * MILLISECOND, now);
    here.database.take_messages();
    let router = far.database.router(origin).unwrap();
    let advertisement = router.advertisement().unwrap().bytes().clone();
    let credential = router.credential_lsa().bytes().clone();
    let database = &mut here.database;
    let mut forged = advertisement.to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let forged = Bytes::from(forged);
    for bytes in [&forged, &advertisement] {
        database
            .handle_lsa(LinkId(9), KIND_ADVERTISEMENT, bytes, now)
            .unwrap();
    }
    assert!(database.router(origin).is_none());
    assert_eq!(database.tables().orphans, 1);
    let result = database.handle_lsa(LinkId(9), KIND_CREDENTIAL, &credential, now);
    assert_eq!(
        result,
        Err(DropReason::ForgedLsa),
        "the first of two with one version"
    );
    database
        .handle_lsa(LinkId(9), KIND_ADVERTISEMENT, &advertisement, now)
        .unwrap();
    assert!(
        database
            .take_events()
            .contains(&DatabaseEvent::RouterUp(origin))
    );
}

#[test]
fn a_router_that_is_named_but_unknown_is_asked_for() {
    let mut network = Network::ring(4);
    network.run(5 * MINUTE);
    let (now, link, origin) = (network.now, network.links_of(0)[0], network.origin(2));
    let known = network.router(0, 2).unwrap().advertisement().unwrap();
    let mut links: Vec<_> = known.links().collect();
    links.push((OriginId(12_345), 10));
    links.sort_unstable();
    let content = network.nodes[2].database.origination.content(&[], links);
    let version = Version::new(1, 1_000);
    let services = TestServices::new(2);
    let lsa = Advertisement::sign(origin, version, &content, &services).unwrap();
    let database = &mut network.nodes[0].database;
    database
        .handle_lsa(link, KIND_ADVERTISEMENT, lsa.bytes(), now)
        .unwrap();
    database.take_messages();
    database.handle_timeout(now + 2 * SECOND);
    let ask = |m: &Message| matches!(m, Message::Summary(Summary::Digest { ask: true, .. }));
    let asked = database
        .take_messages()
        .iter()
        .filter(|(_, m)| ask(m))
        .count();
    assert_eq!(asked, 1);
}

#[test]
fn orphans_are_bounded_and_asked_for() {
    let now = start();
    let mut here = node(TestServices::new(1), 1, &Limits::default(), now);
    let database = &mut here.database;
    database.link_up(LinkId(1), OriginId(5), now);
    database.take_messages();
    let services = TestServices::new(2);
    let mut refused = 0;
    for n in 0..200 {
        let content = database.origination.content(&[], vec![]);
        let version = Version::new(1, 1);
        let lsa = Advertisement::sign(OriginId(n), version, &content, &services).unwrap();
        let result = database.handle_lsa(LinkId(1), KIND_ADVERTISEMENT, lsa.bytes(), now);
        refused += usize::from(result == Err(DropReason::UnknownRouter));
    }
    assert_eq!((database.tables().orphans, refused), (64, 136));
    let asks = |database: &mut Database| {
        let messages = database.take_messages();
        let ask = |m: &Message| matches!(m, Message::Summary(Summary::Digest { ask: true, .. }));
        messages.iter().filter(|(_, m)| ask(m)).count()
    };
    let mut asked = 0;
    for _ in 0..1_000 {
        let Some(at) = database.next_timeout().filter(|at| *at < now + 2 * MINUTE) else {
            break;
        };
        database.handle_timeout(at);
        asked += asks(database);
    }
    assert!((4..8).contains(&asked), "{asked}");
    assert_eq!(database.tables().orphans, 0);
}

#[test]
fn a_full_database_forgets_who_is_gone_longest() {
    let limits = Limits {
        routers: 4,
        ..Limits::default()
    };
    let mut network = Network::new(8);
    network.nodes[0] = node(TestServices::new(0), 1, &limits, network.now);
    let links: Vec<LinkId> = (1..4).map(|at| network.connect(0, at, 5)).collect();
    network.run(MINUTE);
    network.assert_agreed();
    network.connect(0, 4, 5);
    network.run(10 * SECOND);
    assert!(network.router(0, 4).is_none(), "full of reachable ones");
    assert!(network.nodes[0].results.contains(&DropReason::DatabaseFull));
    network.cut(links[1]);
    network.run(SECOND);
    network.cut(links[0]);
    network.run(2 * MINUTE);
    assert!(
        network.router(0, 4).is_some(),
        "asked again when there was room"
    );
    assert!(network.router(0, 2).is_none(), "gone longest");
    assert!(network.router(0, 1).is_some());
}

fn invited(n: u16, invitation: (u8, Option<u32>), renewed: bool) -> TestServices {
    let rights = Rights {
        invitation: Some(invitation),
        renewed,
        ..Rights::default()
    };
    TestServices::with(n, &rights)
}

/// A database with room for some routers, and a link to a neighbour that passes on credentials.
fn with_neighbor(routers: usize) -> (Node, Instant) {
    let limits = Limits {
        routers,
        ..Limits::default()
    };
    let now = start();
    let mut node = node(TestServices::new(0), 1, &limits, now);
    node.database
        .link_up(LinkId(1), TestServices::new(1).origin(), now);
    credential(&mut node, &TestServices::new(1), now).unwrap();
    (node, now)
}

fn credential(node: &mut Node, of: &TestServices, now: Instant) -> Result<(), DropReason> {
    let version = Version(u64::from(UNIX_START as u32) << 32);
    let lsa = CredentialLsa::sign(of.origin(), version, &of.chain(), of).unwrap();
    node.database
        .handle_lsa(LinkId(1), KIND_CREDENTIAL, lsa.bytes(), now)
}

fn has(node: &Node, of: &TestServices) -> bool {
    node.database.router(of.origin()).is_some()
}

#[test]
fn routers_of_one_token_push_out_none_that_came_by_another() {
    let (mut node, now) = with_neighbor(40);
    // honest nodes, away for a moment: certified by an issuer, and by two tokens
    let mut honest = vec![TestServices::new(2)];
    honest.extend((10..15).map(|n| invited(n, (1, None), false)));
    honest.extend((15..20).map(|n| invited(n, (2, None), true)));
    for of in &honest {
        credential(&mut node, of, now).unwrap();
    }
    // one token makes any number of nodes; some of them renewed
    let flood: Vec<_> = (100..200)
        .map(|n| invited(n, (3, None), n % 3 == 0))
        .collect();
    for of in &flood {
        credential(&mut node, of, now).unwrap();
    }
    assert!(honest.iter().all(|of| has(&node, of)));
    assert_eq!(node.database.tables().routers, 40);
    // a new node takes its room from the token with most routers
    for n in 20..25 {
        let new = invited(n, (1, None), false);
        credential(&mut node, &new, now).unwrap();
        assert!(has(&node, &new));
    }
    assert!(honest.iter().all(|of| has(&node, of)));
}

#[test]
fn reachable_routers_of_the_token_that_has_most_make_room_for_others_but_no_neighbour() {
    let limits = Limits {
        routers: 8,
        ..Limits::default()
    };
    let mut network = Network::new(8);
    for n in 0..8 {
        let services = invited(n, (3, None), false);
        network.nodes[usize::from(n)] = node(services, 1, &limits, network.now);
    }
    for at in 1..8 {
        network.connect(at - 1, at, 5);
    }
    network.run(MINUTE);
    let link = network.links_of(0)[0];
    let (now, database) = (network.now, &mut network.nodes[0].database);
    assert_eq!(database.tables().reachable, 8);
    let mut come = |of: TestServices| {
        let version = Version(u64::from(UNIX_START as u32) << 32);
        let lsa = CredentialLsa::sign(of.origin(), version, &of.chain(), &of).unwrap();
        let result = database.handle_lsa(link, KIND_CREDENTIAL, lsa.bytes(), now);
        assert_eq!(result.is_ok(), database.router(of.origin()).is_some());
        result
    };
    let full = Err(DropReason::DatabaseFull);
    assert_eq!(
        come(invited(50, (3, None), false)),
        full,
        "as many as it has"
    );
    assert_eq!(come(invited(51, (4, None), false)), Ok(()));
    for at in [0, 1] {
        assert!(network.router(0, at).is_some(), "itself, and its neighbour");
    }
}

#[test]
fn a_token_for_some_nodes_has_room_for_those_and_a_few_that_issuers_have_not_seen() {
    use super::store::NOT_YET_COUNTED;
    let (mut node, now) = with_neighbor(4_096);
    let token = (3, Some(2));
    let most = 2 + NOT_YET_COUNTED as u16;
    for n in 10..10 + most {
        credential(&mut node, &invited(n, token, false), now).unwrap();
    }
    let late = invited(100, token, false);
    let full = Err(DropReason::InvitationFull);
    assert_eq!(credential(&mut node, &late, now), full);
    // nor may a known router of another invitation change to this one
    let elsewhere = TestServices::new(101);
    credential(&mut node, &elsewhere, now).unwrap();
    let moved = invited(101, token, false);
    let lsa = CredentialLsa::sign(
        moved.origin(),
        Version(u64::MAX - 1),
        &moved.chain(),
        &moved,
    );
    let lsa = lsa.unwrap();
    let refused = node
        .database
        .handle_lsa(LinkId(1), KIND_CREDENTIAL, lsa.bytes(), now);
    assert_eq!(refused, full);
    // an issuer has counted this one
    let counted = invited(102, token, true);
    assert_eq!(credential(&mut node, &counted, now), Ok(()));
    // an expelled router leaves room
    let out = invited(10, token, false);
    let revoked = revocation(&out.peer(), NOT_AFTER);
    node.database.add_revocation(&revoked, now).unwrap();
    assert_eq!(
        credential(&mut node, &late, now),
        full,
        "the renewed one has its room"
    );
    let revoked = revocation(&invited(11, token, false).peer(), NOT_AFTER);
    node.database.add_revocation(&revoked, now).unwrap();
    assert_eq!(credential(&mut node, &late, now), Ok(()));
}

#[test]
fn forged_lsas_are_refused_and_cost_their_router_nothing() {
    let mut network = Network::ring(4);
    network.run(MINUTE);
    let (now, link) = (network.now, network.links_of(0)[0]);
    let stranger = TestServices::new(99);
    let origin = network.origin(2);
    let content = network.nodes[2].database.origination.content(&[], vec![]);
    let database = &mut network.nodes[0].database;
    for n in 1_000..1_100 {
        let version = Version::new(1, n);
        let forged = Advertisement::sign(origin, version, &content, &stranger).unwrap();
        let result = database.handle_lsa(link, KIND_ADVERTISEMENT, forged.bytes(), now);
        assert_eq!(result, Err(DropReason::ForgedLsa));
    }
    let honest = TestServices::new(2);
    let version = Version::new(1, 1_000);
    let lsa = Advertisement::sign(origin, version, &content, &honest).unwrap();
    let result = database.handle_lsa(link, KIND_ADVERTISEMENT, lsa.bytes(), now);
    assert_eq!(result, Ok(()));
}

#[test]
fn a_forged_advertisement_displaces_none_that_waits() {
    let mut network = Network::ring(4);
    network.run(MINUTE);
    let (now, links) = (network.now, network.links_of(0));
    let (honest, stranger) = (TestServices::new(2), TestServices::new(99));
    let origin = network.origin(2);
    let content = network.nodes[2].database.origination.content(&[], vec![]);
    let signed = |n, by: &TestServices| {
        let lsa = Advertisement::sign(origin, Version::new(1, n), &content, by).unwrap();
        lsa.bytes().clone()
    };
    let database = &mut network.nodes[0].database;
    let mut handle =
        |link, bytes: Bytes| database.handle_lsa(link, KIND_ADVERTISEMENT, &bytes, now);
    // changes come faster than the rate
    let waits = (1_000..1_100).find(|n| handle(links[1], signed(*n, &honest)).is_err());
    let waits = waits.unwrap();
    let forged = handle(links[0], signed(waits + 50, &stranger));
    assert_eq!(forged, Err(DropReason::FloodLimited));
    database.handle_timeout(now + 2 * SECOND);
    let kept = database.router(origin).unwrap().advertisement().unwrap();
    assert_eq!(kept.version(), Version::new(1, waits));
    let events = database.take_events();
    assert!(events.contains(&DatabaseEvent::Forged(links[0])));
    assert!(!events.contains(&DatabaseEvent::Forged(links[1])));
}

#[test]
fn a_forged_advertisement_displaces_none_of_a_router_that_is_not_known_yet() {
    let now = start();
    let mut here = node(TestServices::new(1), 1, &Limits::default(), now);
    let mut far = node(TestServices::new(2), 1, &Limits::default(), now);
    far.database.update();
    let origin = far.database.origination.router.origin;
    let router = far.database.router(origin).unwrap();
    let advertisement = router.advertisement().unwrap();
    let credential = router.credential_lsa().bytes().clone();
    let content = far.database.origination.content(&[], vec![]);
    let newer = Version::new(1, 1_000);
    let forged = Advertisement::sign(origin, newer, &content, &TestServices::new(99)).unwrap();
    let database = &mut here.database;
    for (link, lsa) in [
        (LinkId(8), advertisement.bytes()),
        (LinkId(9), forged.bytes()),
    ] {
        database.link_up(link, OriginId(u64::from(link.0)), now);
        database
            .handle_lsa(link, KIND_ADVERTISEMENT, lsa, now)
            .unwrap();
    }
    database
        .handle_lsa(LinkId(8), KIND_CREDENTIAL, &credential, now)
        .unwrap();
    let kept = database.router(origin).unwrap().advertisement().unwrap();
    assert_eq!(kept.version(), advertisement.version());
    assert!(
        database
            .take_events()
            .contains(&DatabaseEvent::Forged(LinkId(9)))
    );
}

#[test]
fn a_worse_placed_rp_gives_way_after_a_minute_and_takes_nothing_back() {
    // a chain: the ends are far from all nodes, the middle is near
    let mut network = Network::new(9);
    for at in 0..8 {
        network.connect(at, at + 1, 10);
    }
    network.run(5 * MINUTE);
    network.assert_agreed();
    let roots =
        |network: &Network| [0, 1, 2, 3].map(|slot| network.nodes[0].database.rp(slot).unwrap());
    let before = roots(&network);
    let middle: Vec<OriginId> = (2..=6).map(|at| network.origin(at)).collect();
    assert!(
        before.iter().all(|root| middle.contains(root)),
        "well measured"
    );
    // one root goes and comes back
    let gone = (0..9).find(|&at| network.origin(at) == before[0]).unwrap();
    let around: Vec<usize> = (0..9usize).filter(|&at| at.abs_diff(gone) == 1).collect();
    network.connect(around[0], around[1], 20);
    network.cut_off(gone);
    network.run(MINUTE);
    let between = roots(&network);
    assert_ne!(between[0], before[0]);
    for &at in &around {
        network.connect(gone, at, 10);
    }
    network.run(30 * SECOND);
    assert_eq!(roots(&network)[0], between[0], "sticky");
    network.run(5 * MINUTE);
    network.assert_agreed();
    network.assert_quiet();
}

#[test]
fn core_routers_become_rendezvous_points() {
    let mut network = Network::new(6);
    let plain = Rights {
        core: false,
        ..Rights::default()
    };
    for at in 0..6u16 {
        let services = if at == 5 {
            TestServices::new(5)
        } else {
            // the advertisement has the flag, but the certificate does not
            TestServices::with(at, &plain)
        };
        network.nodes[usize::from(at)] = node(services, 1, &Limits::default(), network.now);
    }
    for at in 0..4 {
        network.connect(at, at + 1, 5);
    }
    network.run(MINUTE);
    assert!(network.nodes[0].database.rp(0).is_some());
    network.connect(4, 5, 5);
    network.run(30 * SECOND);
    assert_ne!(network.nodes[0].database.rp(0), Some(network.origin(5)));
    network.run(2 * MINUTE);
    network.assert_agreed();
    for slot in 0..GROUP_RANGES {
        assert_eq!(network.nodes[0].database.rp(slot), Some(network.origin(5)));
    }
}

#[test]
fn announced_prefixes_have_one_root_and_stay_with_it() {
    let mut network = Network::new(8);
    let narrow = Rights {
        prefixes: vec!["ff1e:aaaa::/32".parse().unwrap()],
        ..Rights::default()
    };
    let services = TestServices::with(7, &narrow);
    network.nodes[7] = node(services, 1, &Limits::default(), network.now);
    for at in 0..7 {
        network.connect(at, at + 1, 5);
    }
    network.run(MINUTE);
    network.announce(1, &["ff1e:1::/32", "ff1e:1:2::/48"]);
    network.run(MINUTE);
    network.announce(5, &["ff1e:1::/32"]);
    network.announce(7, &["ff1e:aaaa:1::/48", "ff1e::/16"]);
    network.run(MINUTE);
    network.assert_agreed();
    let database = &network.nodes[3].database;
    let owner = |group: &str| {
        database
            .owner(group.parse().unwrap())
            .map(|(p, o)| (p.to_string(), o))
    };
    let (one, seven) = (network.origin(1), network.origin(7));
    assert_eq!(
        owner("ff1e:1::5"),
        Some(("ff1e:1::/32".into(), one)),
        "was there first"
    );
    assert_eq!(
        owner("ff1e:1:2::5"),
        Some(("ff1e:1:2::/48".into(), one)),
        "longest match"
    );
    assert_eq!(
        owner("ff1e:aaaa:1::5"),
        Some(("ff1e:aaaa:1::/48".into(), seven))
    );
    assert_eq!(owner("ff1e:9::1"), None, "outside its certificate");
    let slots = [0, 1, 2, 3].map(|slot| database.rp(slot).unwrap());
    assert!(slots.contains(&database.rp_of("ff1e:9::1".parse().unwrap()).unwrap()));
    let announced: Vec<_> = database.announced().collect();
    assert_eq!(announced.len(), 3);
    let mut both = vec![one, network.origin(5)];
    both.sort_unstable();
    assert_eq!(announced[0].1.announcers, both);
    // an honest router does not even originate an announcement that its certificate does not permit
    let originated = network.router(3, 7).unwrap().advertisement().unwrap();
    assert_eq!(originated.prefixes().len(), 1);
    network.announce(1, &[]);
    network.run(MINUTE);
    let database = &network.nodes[3].database;
    let owner = database.owner("ff1e:1:2::5".parse().unwrap()).unwrap();
    assert_eq!(owner.1, network.origin(5));
}

#[test]
fn announcements_outside_the_certificate_are_counted() {
    let mut network = Network::new(2);
    let narrow = Rights {
        prefixes: vec![],
        ..Rights::default()
    };
    network.nodes[1] = node(
        TestServices::with(1, &narrow),
        1,
        &Limits::default(),
        network.now,
    );
    let link = network.connect(0, 1, 5);
    network.run(SECOND);
    network.events(0);
    let mut content = network.nodes[1].database.origination.content(&[], vec![]);
    content.prefixes = vec![Announced {
        prefix: "ff1e::/16".parse().unwrap(),
        candidate: true,
    }];
    let services = &network.nodes[1].services;
    let version = Version::new(1, 50);
    let lsa = Advertisement::sign(network.origin(1), version, &content, &**services).unwrap();
    let now = network.now;
    let database = &mut network.nodes[0].database;
    database
        .handle_lsa(link, KIND_ADVERTISEMENT, lsa.bytes(), now)
        .unwrap();
    let dropped = DatabaseEvent::Dropped(DropReason::AnnouncementNotPermitted);
    assert!(database.take_events().contains(&dropped));
    assert_eq!(database.announced().count(), 0);
}

#[test]
fn two_links_to_one_neighbour_count_once_at_the_better_cost() {
    let mut network = Network::new(2);
    network.connect(0, 1, 40);
    let better = network.connect(0, 1, 5);
    network.run(MINUTE);
    network.assert_agreed();
    let cost = |network: &mut Network| {
        let origin = network.origin(0);
        let graph = network.nodes[0].database.graph();
        graph
            .neighbors(origin)
            .map(|(_, cost)| cost)
            .collect::<Vec<_>>()
    };
    assert_eq!(cost(&mut network), [120]);
    network.cut(better);
    network.run(MINUTE);
    assert_eq!(cost(&mut network), [912]);
}

#[test]
fn a_link_is_advertised_once_it_has_been_measured_or_cannot_be() {
    let limits = Limits::default();
    for measured in [Some(40), None] {
        let now = start();
        let mut here = node(TestServices::new(1), 1, &limits, now);
        let far = TestServices::new(2).origin();
        let database = &mut here.database;
        database.link_up(LinkId(9), far, now);
        database.set_standing(LinkId(9), LinkStanding::Wanted, now);
        let advertised = |database: &mut Database| {
            database.update();
            let own = database.router(database.origination.router.origin).unwrap();
            own.advertisement().and_then(|a| a.cost_to(far))
        };
        assert_eq!(advertised(database), None);
        if let Some(ms) = measured {
            database.set_rtt(LinkId(9), ms * MILLISECOND, now + 100 * MILLISECOND);
            assert_eq!(advertised(database), Some(405));
        } else {
            database.handle_timeout(now + 499 * MILLISECOND);
            assert_eq!(advertised(database), None);
            assert_eq!(database.next_timeout(), Some(now + 500 * MILLISECOND));
            database.handle_timeout(now + 500 * MILLISECOND);
            assert_eq!(advertised(database), Some(500));
        }
    }
}

#[test]
fn a_link_counts_when_both_ends_advertise_it_at_the_larger_cost() {
    let mut network = Network::new(3);
    let link = network.connect(0, 1, 5);
    network.connect(1, 2, 5);
    let now = network.now;
    network.nodes[0]
        .database
        .set_rtt(link, Duration::from_millis(3), now);
    network.run(MINUTE);
    let graph = network.nodes[2].database.graph();
    let cost = graph.neighbors(network.origin(0)).next().unwrap().1;
    assert_eq!(cost, 120, "10 ms, not 3");
}

#[derive(Debug, Clone)]
enum Step {
    Connect(usize, usize, u64),
    Cut(usize),
    Restart(usize),
    Announce(usize, u8),
    Wait(u64),
}

fn any_step(nodes: usize) -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..nodes, 0..nodes, 1u64..100).prop_map(|(a, b, d)| Step::Connect(a, b, d)),
        5 => any::<usize>().prop_map(Step::Cut),
        1 => (0..nodes).prop_map(Step::Restart),
        1 => (0..nodes, any::<u8>()).prop_map(|(at, n)| Step::Announce(at, n)),
        4 => prop_oneof![0u64..300, 0u64..20_000, Just(4_000_000)].prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn all_who_are_connected_agree_in_the_end(
        steps in (2usize..=30).prop_flat_map(|n| {
            (Just(n), prop::collection::vec(any_step(n), 1..100))
        }),
        seed: u64,
    ) {
        let (nodes, steps) = steps;
        let mut network = Network::new(nodes as u16);
        let mut incarnation = 1;
        // initial links
        for at in 1..nodes {
            network.connect(at, (mix(seed ^ at as u64) % at as u64) as usize, 1 + at as u64);
        }
        for step in steps {
            match step {
                Step::Connect(a, b, delay) if a != b => {
                    network.connect(a, b, delay);
                }
                Step::Cut(n) if !network.wires.is_empty() => {
                    let link = *network.wires.keys().nth(n % network.wires.len()).unwrap();
                    network.cut(link);
                }
                Step::Restart(at) => {
                    incarnation += 1;
                    // sometimes the number is lost
                    let number = if incarnation % 3 == 0 { 1 } else { incarnation };
                    network.restart(at, number);
                }
                Step::Announce(at, n) => {
                    network.announce(at, &[&format!("ff1e:{}::/32", n % 4)]);
                }
                Step::Wait(ms) => network.run(Duration::from_millis(ms)),
                _ => {}
            }
        }
        network.run(10 * MINUTE);
        network.assert_agreed();
        network.assert_quiet();
        network.assert_agreed();
    }

    #[test]
    fn nonsense_from_a_neighbour_never_panics(
        inputs in prop::collection::vec((0u8..5, prop::collection::vec(any::<u8>(), 0..200)), 1..50),
        flips in prop::collection::vec((any::<usize>(), any::<u8>()), 0..50),
    ) {
        let mut network = Network::ring(4);
        network.run(5 * MINUTE);
        let (now, link) = (network.now, network.links_of(0)[0]);
        let known = lsas(&network.nodes[1].database);
        let database = &mut network.nodes[0].database;
        let before = database.store.sums();
        for (kind, bytes) in inputs {
            let _ = database.handle_lsa(link, kind, &bytes, now);
            if let Ok(summary) = Summary::decode(&mut Reader::new(&bytes)) {
                let _ = database.handle_summary(link, &summary, now);
            }
        }
        for (at, flip) in flips {
            let (kind, bytes) = &known[at % known.len()];
            let mut bytes = bytes.to_vec();
            let position = at / known.len() % bytes.len();
            bytes[position] ^= flip | 1;
            let _ = database.handle_lsa(link, *kind, &bytes, now);
        }
        database.handle_timeout(now + MINUTE);
        prop_assert_eq!(database.store.sums(), before, "nothing of it was believed");
    }
}
