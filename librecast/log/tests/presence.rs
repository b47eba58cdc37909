//! Presence of authors: visibility, checks, and lies.

#![allow(clippy::disallowed_methods, reason = "virtual time needs a beginning")]

use std::net::IpAddr;
use std::time::{Duration, Instant};

use librecast::id::SecretKey;
use librecast::time::UnixTime;
use librecast_log::*;

use crate::common::{BEGIN, EPOCH};

const DAY: u64 = 86_400_000;
const FAR: Duration = Duration::from_secs(20);

fn key(n: u8) -> SecretKey {
    SecretKey::from_seed(&[n; 32])
}

fn space() -> Space {
    Space::new(
        key(1).peer_id(),
        Some(ReadKey::new([9; 32])),
        Duration::ZERO,
    )
}

fn source(n: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, n])
}

struct World {
    now: Instant,
    owner: Log,
    writer: Log,
    reader: Log,
}

impl World {
    /// The owner has granted the writer's key; the reader has none, and watches.
    fn new() -> Self {
        let now = Instant::now();
        let log = |n| {
            let (space, keys) = (space(), vec![key(n)]);
            let seed = [n; 32];
            Log::new(Config { space, keys, seed }, now)
        };
        let mut world = Self {
            now: now + FAR,
            owner: log(1),
            writer: log(2),
            reader: log(3),
        };
        world.reader.watch_presence(true);
        world.grant(u32::MAX);
        world
    }

    fn grant(&mut self, last: u32) {
        let grant = Grant {
            author: key(2).peer_id(),
            not_before: 0,
            expires: (1 << 48) - 1,
            last,
        };
        let body = Grant::encode(&[grant]);
        let owner = self.owner.owner();
        let appended = self.owner.append(owner, GRANT_KIND, &body, BEGIN, self.now);
        appended.unwrap();
        for packet in packets(&mut self.owner) {
            for log in [&mut self.writer, &mut self.reader] {
                log.handle_packet(source(1), &packet, BEGIN, self.now);
            }
        }
        for log in [&mut self.owner, &mut self.writer, &mut self.reader] {
            while log.poll_output().is_some() {}
        }
    }

    fn author(&self) -> AuthorId {
        self.owner.space().author(&key(2).peer_id())
    }

    /// The packet with which the writer shows itself.
    fn shown(&mut self, body: &[u8], time: u64) -> Vec<u8> {
        let author = self.author();
        self.writer
            .show(author, body, UnixTime::from_millis(time))
            .unwrap();
        packets(&mut self.writer).remove(0)
    }

    /// Presence in a packet that the reader reports, by its own clock.
    fn seen(&mut self, packet: &[u8], time: u64) -> Vec<Vec<u8>> {
        let from = source(2);
        self.reader
            .handle_packet(from, packet, UnixTime::from_millis(time), self.now);
        let mut seen = Vec::new();
        while let Some(output) = self.reader.poll_output() {
            match output {
                Output::Event(Event::Presence { author, body }) => {
                    assert_eq!(author, self.owner.space().author(&key(2).peer_id()));
                    seen.push(body);
                }
                other => panic!("presence is neither kept nor passed on: {other:?}"),
            }
        }
        seen
    }

    fn drops(&self, name: &str) -> u64 {
        let drops = self.reader.drops().by_name();
        drops.get(name).copied().unwrap_or_default()
    }
}

fn packets(log: &mut Log) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    while let Some(output) = log.poll_output() {
        if let Output::Transmit(bytes) = output {
            packets.push(bytes);
        }
    }
    packets
}

/// A packet of this space with forged presence.
fn made_up(change: impl FnOnce(&mut Presence), packet: &[u8]) -> Vec<u8> {
    let Some(Packet::Presence(mut presence)) = decode_sealed(&space(), packet) else {
        panic!("no presence");
    };
    change(&mut presence);
    seal_packet(&space(), &Packet::Presence(presence), &[7; 24]).unwrap()
}

#[test]
fn an_author_is_seen_by_who_watches_and_each_packet_counts_once() {
    let mut world = World::new();
    let first = world.shown(b"here", EPOCH);
    let second = world.shown(b"there", EPOCH);
    assert_eq!(world.seen(&first, EPOCH), [b"here"]);
    assert_eq!(world.seen(&second, EPOCH), [b"there"]);
    assert_eq!(world.seen(&second, EPOCH), Vec::<Vec<u8>>::new());
    assert_eq!(world.seen(&first, EPOCH), Vec::<Vec<u8>>::new());
    assert_eq!(world.drops("duplicate"), 2);
    world.reader.watch_presence(false);
    let third = world.shown(b"gone", EPOCH);
    assert_eq!(world.seen(&third, EPOCH), Vec::<Vec<u8>>::new());
    assert_eq!(world.drops("not_watched"), 1);
}

#[test]
fn nobody_shows_another_and_who_tries_is_suspended() {
    let mut world = World::new();
    let honest = world.shown(b"here", EPOCH);
    for n in 1..=240 {
        let false_one = made_up(
            |p| (p.time, p.body) = (p.time + n, b"false".to_vec()),
            &honest,
        );
        assert_eq!(world.seen(&false_one, EPOCH), Vec::<Vec<u8>>::new());
    }
    // 32 of one address, and 200 of all addresses beyond that
    assert_eq!(world.drops("bad_signature"), 232);
    assert_eq!(world.drops("suspended"), 8);
    // the author's own packet, from elsewhere, is still taken
    let reader = &mut world.reader;
    reader.handle_packet(source(9), &honest, BEGIN, world.now);
    assert!(reader.poll_output().is_some());
    // a key without a grant has no presence
    let other = made_up(|p| p.author = AuthorId(5), &honest);
    assert_eq!(world.seen(&other, EPOCH), Vec::<Vec<u8>>::new());
    assert_eq!(world.drops("unknown_author"), 1);
    let [reader, author] = [key(3), key(2)].map(|key| space().author(&key.peer_id()));
    let refused = world.reader.show(reader, b"", BEGIN);
    assert_eq!(refused, Err(AppendError::NotGranted));
    let refused = world.reader.show(author, b"", BEGIN);
    assert_eq!(refused, Err(AppendError::NotOurs(author)));
    let refused = world.writer.show(author, &[0; MAX_PRESENCE + 1], BEGIN);
    assert_eq!(refused, Err(AppendError::LongPresence(MAX_PRESENCE + 1)));
}

#[test]
fn clocks_may_be_a_day_apart_and_what_was_recorded_before_does_not_count() {
    for (theirs, ours, counts) in [
        (EPOCH, EPOCH + DAY, true),
        (EPOCH + DAY, EPOCH, true),
        (EPOCH, EPOCH + DAY + 1, false),
        (EPOCH + DAY + 1, EPOCH, false),
    ] {
        let mut world = World::new();
        let packet = world.shown(b"here", theirs);
        assert_eq!(world.seen(&packet, ours).len(), usize::from(counts));
        assert_eq!(world.drops("wrong_time"), u64::from(!counts));
    }
    // a clock that goes back does not hide its author
    let mut world = World::new();
    let first = world.shown(b"one", EPOCH + 5_000);
    let second = world.shown(b"two", EPOCH);
    assert_eq!(world.seen(&first, EPOCH), [b"one"]);
    assert_eq!(world.seen(&second, EPOCH), [b"two"]);
}

#[test]
fn another_clock_is_told_to_who_watches_clocks_and_sticks_to_nobody() {
    let mut world = World::new();
    world.reader.watch_clocks(true);
    let ahead = world.shown(b"", EPOCH + 700 * DAY);
    let from = source(2);
    world.reader.handle_packet(from, &ahead, BEGIN, world.now);
    let told = Event::OtherClock {
        author: world.author(),
        time: EPOCH + 700 * DAY,
        body: Vec::new(),
    };
    assert_eq!(world.reader.poll_output(), Some(Output::Event(told)));
    let false_one = made_up(|p| p.time += 1, &ahead);
    world
        .reader
        .handle_packet(from, &false_one, BEGIN, world.now);
    assert_eq!(world.reader.poll_output(), None);
    // the clock was set
    let right = world.shown(b"here", EPOCH + 1);
    assert_eq!(world.seen(&right, EPOCH), [b"here"]);
}

#[test]
fn an_author_who_floods_is_seen_ten_times_and_then_five_times_a_second() {
    let mut world = World::new();
    let mut seen = 0;
    for n in 0..100 {
        let packet = world.shown(&[n], EPOCH);
        seen += world.seen(&packet, EPOCH).len();
    }
    assert_eq!((seen, world.drops("rate_limited")), (10, 90));
    world.now += Duration::from_secs(1);
    for n in 0..100 {
        let packet = world.shown(&[n], EPOCH);
        seen += world.seen(&packet, EPOCH).len();
    }
    assert_eq!(seen, 15);
}

#[test]
fn who_may_write_no_more_is_seen_no_more() {
    let mut world = World::new();
    let packet = world.shown(b"here", EPOCH);
    world.grant(0);
    assert_eq!(world.seen(&packet, EPOCH), Vec::<Vec<u8>>::new());
    assert_eq!(world.drops("not_granted"), 1);
    let author = world.author();
    let refused = world.writer.show(author, b"here", BEGIN);
    assert_eq!(refused, Err(AppendError::NotGranted));
}
