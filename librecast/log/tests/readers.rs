//! Readers on virtual time: they ask on the asking group, and are answered on the history group.

#![allow(clippy::disallowed_methods, reason = "virtual time needs a beginning")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use librecast::id::SecretKey;
use librecast::random::Random;
use librecast::simulated::{Network, Path};
use librecast::time::UnixTime;
use librecast_log::*;

use crate::common::{EPOCH, SECOND, address, grant_up_to, path};

const READ_KEY: [u8; 32] = [9; 32];

fn key(n: usize) -> SecretKey {
    let mut seed = [0x5a; 32];
    seed[..8].copy_from_slice(&(n as u64).to_be_bytes());
    SecretKey::from_seed(&seed)
}

fn space() -> Space {
    let owner = key(0).peer_id();
    Space::new(owner, Some(ReadKey::new(READ_KEY)), Duration::ZERO)
}

struct Host {
    log: Log,
    role: Role,
    events: Vec<Event>,
}

type Payload = (usize, usize, Ipv6Addr, Vec<u8>);

/// Host 0 is the owner, host 1 another author, as many holders as given follow, then readers.
struct World {
    start: Instant,
    now: Instant,
    network: Network<Instant, usize, Payload>,
    hosts: Vec<Host>,
    groups: Groups,
    /// Packets and bytes sent to each group.
    sent: BTreeMap<Ipv6Addr, (usize, usize)>,
    /// Hosts that sent to a group.
    speakers: BTreeSet<(usize, Ipv6Addr)>,
    /// Loss of packets on the way to and from readers.
    uplink_loss: f64,
    random: Random,
}

impl World {
    fn new(holders: usize, path: Path, seed: u64) -> Self {
        let start = Instant::now();
        let mut world = Self {
            start,
            now: start,
            network: Network::new(path, seed),
            hosts: Vec::new(),
            groups: space().groups(),
            sent: BTreeMap::new(),
            speakers: BTreeSet::new(),
            uplink_loss: 0.0,
            random: Random::new(seed),
        };
        world.add(Role::Holder);
        world.add(Role::Member);
        for _ in 0..holders {
            world.add(Role::Holder);
        }
        world.run(4 * SECOND);
        world.grant(1);
        world
    }

    fn add(&mut self, role: Role) -> usize {
        let n = self.hosts.len();
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&(n as u64).to_be_bytes());
        let config = Config {
            space: space(),
            keys: vec![key(n)],
            seed,
        };
        let mut log = Log::new(config, self.now);
        log.set_role(role, self.now);
        let events = Vec::new();
        self.hosts.push(Host { log, role, events });
        n
    }

    fn add_readers(&mut self, count: usize) {
        for _ in 0..count {
            self.add(Role::Reader);
        }
    }

    fn readers(&self) -> Vec<usize> {
        let all = self.hosts.iter().enumerate();
        let readers = all.filter(|(_, host)| host.role == Role::Reader);
        readers.map(|(n, _)| n).collect()
    }

    fn time(&self) -> UnixTime {
        UnixTime::from_millis(EPOCH + (self.now - self.start).as_millis() as u64)
    }

    fn grant(&mut self, n: usize) {
        let grant = grant_up_to(key(n).peer_id(), u32::MAX);
        self.append(0, GRANT_KIND, &Grant::encode(&[grant]));
        self.run(4 * SECOND);
    }

    /// Adds a reader that may write, and has holders take what it writes.
    fn add_writer(&mut self) -> usize {
        let holders = self.hosts.iter_mut();
        let holders = holders.filter(|host| host.role == Role::Holder);
        holders.for_each(|host| host.log.take_from_readers());
        let writer = self.add(Role::Reader);
        self.grant(writer);
        writer
    }

    fn append(&mut self, n: usize, kind: u8, body: &[u8]) {
        let author = space().author(&key(n).peer_id());
        let (time, now) = (self.time(), self.now);
        let host = &mut self.hosts[n];
        host.log.append(author, kind, body, time, now).unwrap();
        self.settle(n);
    }

    /// The owner and the other author write so many entries each, ten a second.
    fn write(&mut self, count: u32) {
        for number in 0..count {
            for n in [0, 1] {
                let body = format!("{n}: entry {number}, as long as a line of captions may be");
                self.append(n, 16, body.as_bytes());
                self.run(SECOND / 20);
            }
        }
    }

    fn settle(&mut self, n: usize) {
        while let Some(output) = self.hosts[n].log.poll_output() {
            match output {
                Output::Transmit(bytes) => self.multicast(n, self.groups.live, &bytes),
                Output::TransmitTo(group, bytes) => self.multicast(n, group, &bytes),
                Output::Event(event) => self.hosts[n].events.push(event),
                Output::Store(_) => {}
            }
        }
    }

    fn multicast(&mut self, from: usize, group: Ipv6Addr, bytes: &[u8]) {
        let sent = self.sent.entry(group).or_default();
        *sent = (sent.0 + 1, sent.1 + bytes.len());
        self.speakers.insert((from, group));
        let is_asked = group == self.groups.asking;
        if is_asked && self.random.unit() < self.uplink_loss {
            return;
        }
        for to in 0..self.hosts.len() {
            if to != from {
                let payload = (from, to, group, bytes.to_vec());
                self.network.send(from, to, payload, self.now);
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let timer = self.hosts.iter().map(|host| host.log.next_timeout()).min();
            let next = [timer, self.network.next_timeout()];
            let next = next.into_iter().flatten().min().unwrap_or(end);
            if next > end {
                self.now = end;
                return;
            }
            self.now = next.max(self.now);
            let time = self.time();
            while let Some((from, to, group, bytes)) = self.network.poll(self.now) {
                let host = &mut self.hosts[to];
                if !host.log.joined_groups().any(|joined| joined == group) {
                    continue;
                }
                // readers ask from their router's address: the owner's
                let is_reader = self.hosts[from].role == Role::Reader;
                let source = address(if is_reader { 0 } else { from });
                let log = &mut self.hosts[to].log;
                log.handle_datagram(group, source, &bytes, time, self.now);
                self.settle(to);
            }
            for n in 0..self.hosts.len() {
                let log = &mut self.hosts[n].log;
                if log.next_timeout() <= self.now {
                    log.handle_timeout(time, self.now);
                    assert!(
                        log.next_timeout() > self.now,
                        "host {n} would turn for ever"
                    );
                    self.settle(n);
                }
            }
        }
    }

    fn entries(&self, n: usize) -> Vec<Entry> {
        let log = &self.hosts[n].log;
        let mut all = Vec::new();
        for author in log.authors() {
            let mut after = 0;
            while let Some(entry) = log.next_entry(author.author, after) {
                after = entry.number;
                all.push(entry.clone());
            }
        }
        all
    }

    fn assert_equal(&self) {
        let expected = self.entries(0);
        for n in 1..self.hosts.len() {
            let log = &self.hosts[n].log;
            let lacks: Vec<_> = log.authors().map(|a| (a.last, a.advertised)).collect();
            let (has, all) = (self.entries(n).len(), expected.len());
            assert_eq!(has, all, "host {n} has (last, advertised) {lacks:?}");
            assert_eq!(self.entries(n), expected, "host {n}");
        }
    }

    fn bytes(&self, group: Ipv6Addr) -> usize {
        self.sent.get(&group).map_or(0, |(_, bytes)| *bytes)
    }

    fn packets(&self, group: Ipv6Addr) -> usize {
        self.sent.get(&group).map_or(0, |(packets, _)| *packets)
    }

    fn dropped(&self, n: usize, name: &str) -> u64 {
        let drops = self.hosts[n].log.drops().by_name();
        drops.get(name).copied().unwrap_or_default()
    }

    /// Sends bytes to a group as a stranger with the read key does, through the owner's router.
    fn forge(&mut self, group: Ipv6Addr, bytes: &[u8]) {
        let (time, now) = (self.time(), self.now);
        for n in 0..self.hosts.len() {
            let log = &mut self.hosts[n].log;
            if log.joined_groups().any(|joined| joined == group) {
                log.handle_datagram(group, address(0), bytes, time, now);
                self.settle(n);
            }
        }
    }
}

#[test]
fn readers_that_come_late_have_all_and_nobody_else_notices() {
    for seed in 0..4 {
        let mut with = World::new(1, path(0.0), seed);
        with.write(50);
        let before = with.bytes(with.groups.live);
        with.run(20 * SECOND);
        let without = with.bytes(with.groups.live) - before;
        with.add_readers(20);
        let before = with.bytes(with.groups.live);
        with.run(20 * SECOND);
        with.assert_equal();
        let live = with.bytes(with.groups.live) - before;
        assert!(
            live <= without,
            "{live} bytes with readers, {without} without"
        );
        for n in with.readers() {
            let groups: Vec<_> = with.hosts[n].log.joined_groups().collect();
            assert_eq!(groups, [with.groups.live], "it leaves the history group");
            let speaks = |group| with.speakers.contains(&(n, group));
            assert!(!speaks(with.groups.live) && !speaks(with.groups.history));
        }
        // 20 readers that come together share the answers
        let (asked, told) = (
            with.packets(with.groups.asking),
            with.packets(with.groups.history),
        );
        assert!(
            (1..=40).contains(&asked) && told <= 40,
            "{asked} asked, {told} answers"
        );
    }
}

#[test]
fn what_readers_lose_comes_back_over_the_history_group() {
    for (seed, loss) in [(1, 0.05), (2, 0.2), (3, 0.4)] {
        let mut world = World::new(2, path(0.0), seed);
        world.add_readers(10);
        world.network = Network::new(path(loss), seed);
        world.uplink_loss = loss;
        world.write(40);
        // heads that show what the last packets had come once a minute
        world.run(240 * SECOND);
        world.assert_equal();
    }
}

#[test]
fn an_audience_at_rest_sends_nothing() {
    let mut world = World::new(0, path(0.0), 5);
    world.add_readers(50);
    world.write(20);
    world.run(20 * SECOND);
    let asked = world.packets(world.groups.asking);
    world.run(600 * SECOND);
    world.write(20);
    world.run(20 * SECOND);
    assert_eq!(world.packets(world.groups.asking), asked);
    world.assert_equal();
    // nor does the first packet of the live group make a reader ask again
    let silent = world.add(Role::Reader);
    world.hosts[silent].log.set_role(Role::Reader, world.now);
    world.run(10 * SECOND);
    let asked = world.packets(world.groups.asking);
    world.write(1);
    world.run(10 * SECOND);
    assert_eq!(world.packets(world.groups.asking), asked);
}

#[test]
fn a_request_of_a_reader_comes_to_the_owner() {
    let mut world = World::new(1, path(0.0), 6);
    let reader = world.add(Role::Reader);
    world.run(5 * SECOND);
    world.hosts[reader].log.request(b"why?").unwrap();
    world.settle(reader);
    world.run(SECOND);
    let request = Event::Request(b"why?".to_vec());
    assert!(world.hosts[0].events.contains(&request));
    // a member is not a holder
    assert!(!world.hosts[1].events.contains(&request));
    // requests of many readers through one router have the rate of all, not that of an address
    for n in 0..40_u8 {
        world.hosts[reader].log.request(&[n]).unwrap();
        world.settle(reader);
    }
    world.run(SECOND);
    assert_eq!(world.hosts[0].log.requests().count(), 41);
}

#[test]
fn who_asks_all_the_time_moves_the_history_group_and_no_other() {
    let mut world = World::new(0, path(0.0), 7);
    world.write(100);
    world.run(100 * SECOND);
    let live = world.bytes(world.groups.live);
    let owner = space().author(&key(0).peer_id());
    let ids = [owner, space().author(&key(1).peer_id()), AuthorId(99)];
    for n in 0..1_000_u64 {
        let wants = ids.map(|author| Want {
            author,
            first: 1,
            bitmap: vec![0xff; 32],
        });
        let mut nonce = [0; 24];
        nonce[..8].copy_from_slice(&n.to_be_bytes());
        let bytes = seal_packet(&space(), &Packet::Wants(wants.to_vec()), &nonce).unwrap();
        world.forge(world.groups.asking, &bytes);
        world.run(SECOND / 100);
    }
    // each entry at most once in 5 s
    let told = world.packets(world.groups.history);
    assert!(told <= 64 * 10 + 16, "{told} answers in 10 s");
    let entries: usize = world
        .entries(0)
        .iter()
        .map(|entry| entry.body.len() + 130)
        .sum();
    let most = entries * 3 * 5 / 4;
    let bytes = world.bytes(world.groups.history);
    assert!(
        bytes <= most,
        "{bytes} bytes, {most} are three times the log"
    );
    let since = world.bytes(world.groups.live) - live;
    assert!(since < 2_000, "{since} bytes on the live group");
}

#[test]
fn other_packets_on_the_asking_group_are_dropped_unread_and_nothing_counts_against_the_router() {
    let mut world = World::new(0, path(0.0), 8);
    world.write(5);
    let entry = world.entries(0).pop().unwrap();
    let mut false_entry = entry.clone();
    (false_entry.number, false_entry.signature) = (entry.number + 1, [0; 64]);
    for n in 0..200_u8 {
        let packet = match n % 2 {
            0 => Packet::Entries(vec![false_entry.clone()]),
            _ => Packet::Heads {
                asks_for_requests: true,
                digest: 0,
                heads: Vec::new(),
            },
        };
        let bytes = seal_packet(&space(), &packet, &[n; 24]).unwrap();
        world.forge(world.groups.asking, &bytes);
        world.forge(world.groups.asking, &bytes[..bytes.len() - 1]);
    }
    assert_eq!(world.dropped(0, "asked_badly"), 200);
    assert_eq!(world.dropped(0, "unsealed"), 200);
    assert_eq!(world.dropped(0, "bad_signature"), 0);
    assert_eq!(world.dropped(0, "suspended"), 0);
    // a member has joined neither group, and receives none of it
    assert_eq!(world.dropped(1, "asked_badly"), 0);
    let late = world.add(Role::Reader);
    world.run(10 * SECOND);
    assert_eq!(world.entries(late), world.entries(0));
}

#[test]
fn a_reader_without_a_holder_asks_each_minute_at_most_and_hears_what_is_live() {
    let mut world = World::new(0, path(0.0), 9);
    let owner = &mut world.hosts[0];
    owner.role = Role::Member;
    owner.log.set_role(Role::Member, world.now);
    let reader = world.add(Role::Reader);
    world.write(5);
    world.run(600 * SECOND);
    let asked = world.packets(world.groups.asking);
    assert!((10..30).contains(&asked), "{asked}");
    // entries before its start are missing, and its key has no grant
    assert!(world.entries(reader).len() <= world.entries(0).len());
    let author = space().author(&key(reader).peer_id());
    let (time, now) = (world.time(), world.now);
    let appended = world.hosts[reader].log.append(author, 16, b"x", time, now);
    assert_eq!(appended, Err(AppendError::NotGranted));
    // once there is one, it has all
    world.hosts[0].log.set_role(Role::Holder, world.now);
    world.run(90 * SECOND);
    world.assert_equal();
}

#[test]
fn what_a_reader_writes_comes_to_all_by_the_live_group() {
    for (seed, loss, holders) in [(1, 0.0, 0), (2, 0.05, 2), (3, 0.2, 1), (4, 0.4, 2)] {
        let mut world = World::new(holders, path(0.0), seed);
        let writers = [world.add_writer(), world.add_writer()];
        world.add_readers(3);
        world.run(10 * SECOND);
        world.network = Network::new(path(loss), seed);
        world.uplink_loss = loss;
        for number in 0..30 {
            for n in writers {
                world.append(n, 16, format!("{n}: caption {number}").as_bytes());
            }
            world.run(2 * SECOND);
        }
        world.run(240 * SECOND);
        world.assert_equal();
        assert_eq!(world.entries(writers[0]).len(), 3 + 60);
        for n in writers {
            let speaks = |group| world.speakers.contains(&(n, group));
            assert!(!speaks(world.groups.live) && !speaks(world.groups.history));
        }
        // once a head has shown it all, a writer at rest sends nothing
        let asked = world.packets(world.groups.asking);
        world.run(600 * SECOND);
        assert_eq!(world.packets(world.groups.asking), asked, "loss {loss}");
    }
}

#[test]
fn a_reader_that_was_cut_off_sends_what_it_wrote_once_it_is_back() {
    let mut world = World::new(0, path(0.0), 12);
    let writer = world.add_writer();
    world.uplink_loss = 1.0;
    for number in 0..50 {
        world.append(writer, 16, format!("caption {number}").as_bytes());
        world.run(SECOND / 10);
    }
    assert!(world.entries(0).len() < world.entries(writer).len());
    // it starts anew, with what is on its disk
    let seed = [9; 32];
    let config = Config {
        space: space(),
        keys: vec![key(writer)],
        seed,
    };
    let mut again = Log::new(config, world.now);
    for stored in world.hosts[writer].log.stored() {
        again.restore(stored, world.now);
    }
    again.set_role(Role::Reader, world.now);
    world.hosts[writer].log = again;
    world.uplink_loss = 0.0;
    world.run(60 * SECOND);
    world.assert_equal();
}

#[test]
fn who_repeats_or_forges_entries_of_a_reader_moves_nothing_on_the_live_group() {
    let mut world = World::new(0, path(0.0), 13);
    let writer = world.add_writer();
    world.run(10 * SECOND);
    world.append(writer, 16, b"a caption");
    world.run(100 * SECOND);
    let live = world.bytes(world.groups.live);
    let repeated = world.dropped(0, "duplicate");
    let mut all = world.entries(writer).into_iter();
    let entry = all.find(|entry| entry.body == b"a caption").unwrap();
    let mut forged = entry.clone();
    (forged.number, forged.signature) = (entry.number + 1, [0; 64]);
    let mut unknown = forged.clone();
    unknown.author = AuthorId(99);
    for n in 0..1_000_u64 {
        let all = [entry.clone(), forged.clone(), unknown.clone()];
        let mut nonce = [0; 24];
        nonce[..8].copy_from_slice(&n.to_be_bytes());
        let bytes = seal_packet(&space(), &Packet::Entries(all.to_vec()), &nonce).unwrap();
        world.forge(world.groups.asking, &bytes);
        world.run(SECOND / 100);
    }
    assert_eq!(world.dropped(0, "duplicate"), repeated + 1_000);
    assert_eq!(world.dropped(0, "unknown_author"), 1_000);
    // 64 at once, and 64 a second
    let checked = world.dropped(0, "bad_signature");
    assert!((64..=64 + 64 * 10).contains(&checked), "{checked}");
    assert_eq!(checked + world.dropped(0, "rate_limited"), 1_000);
    assert_eq!(world.dropped(0, "suspended"), 0);
    let since = world.bytes(world.groups.live) - live;
    assert!(since < 2_000, "{since} bytes on the live group");
    // nor does it silence the writer
    world.append(writer, 16, b"another one");
    world.run(10 * SECOND);
    world.assert_equal();
}
