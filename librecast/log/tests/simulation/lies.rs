//! A node with the read key, without a grant: it sends harmful packets from many addresses.

use std::collections::VecDeque;

use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Heads of unknown authors.
    UnknownAuthors,
    /// Heads beyond the last entry.
    Beyond,
    /// Heads of a member that has nothing.
    Low,
    /// Heads that name no author, of another digest.
    OtherDigest,
    /// Heads of the same digest as those of members.
    SameDigest,
    /// Heads that begin and end far behind all that was written.
    Floor,
    /// Heads with another hash.
    OtherHash,
    /// Entries without a signature, with numbers that other members request.
    Forged,
    /// Signed entries of other members once more.
    Replayed,
    /// Wants of everything.
    Wants,
    /// Requests that nobody can open.
    Requests,
    /// Heads that ask for requests, as the owner does.
    AsksForRequests,
}

pub const LIES: [Lie; 12] = [
    Lie::UnknownAuthors,
    Lie::Beyond,
    Lie::Low,
    Lie::OtherDigest,
    Lie::SameDigest,
    Lie::Floor,
    Lie::OtherHash,
    Lie::Forged,
    Lie::Replayed,
    Lie::Wants,
    Lie::Requests,
    Lie::AsksForRequests,
];

pub struct Liar {
    kinds: Vec<Lie>,
    addresses: usize,
    interval: Duration,
    next: Instant,
    told: usize,
    random: Random,
    entries: Vec<Entry>,
    digests: VecDeque<u64>,
    wanted: VecDeque<(AuthorId, u32)>,
    /// Bytes that it has sent.
    pub sent: usize,
}

impl Liar {
    /// Makes a liar with this number of packets a second, from this number of addresses.
    pub fn new(kinds: &[Lie], rate: u32, addresses: usize, now: Instant) -> Self {
        Self {
            kinds: kinds.to_vec(),
            addresses,
            interval: SECOND / rate,
            next: now,
            told: 0,
            random: Random::new(5),
            entries: Vec::new(),
            digests: VecDeque::new(),
            wanted: VecDeque::new(),
            sent: 0,
        }
    }

    pub fn next(&self) -> Instant {
        self.next
    }

    pub fn hear(&mut self, bytes: &[u8]) {
        match decode_sealed(&space(TTL), bytes) {
            Some(Packet::Entries(entries)) => {
                for entry in entries {
                    if !self.entries.contains(&entry) {
                        self.entries.push(entry);
                    }
                }
            }
            Some(Packet::Heads { digest, .. }) => self.digests.push_front(digest),
            Some(Packet::Wants(wants)) => {
                for want in wants {
                    let numbers = want.numbers().map(|number| (want.author, number));
                    self.wanted.extend(numbers);
                }
            }
            _ => {}
        }
        self.digests.truncate(2);
        let surplus = self.wanted.len().saturating_sub(64);
        self.wanted.drain(..surplus);
    }

    fn heads(&mut self, digest: u64, heads: Vec<Head>) -> Packet {
        Packet::Heads {
            asks_for_requests: false,
            digest,
            heads,
        }
    }

    fn heads_of_all(&mut self, head: impl Fn(AuthorId, u32) -> Head) -> Packet {
        let mut last: BTreeMap<AuthorId, u32> = BTreeMap::new();
        for entry in &self.entries {
            let known = last.entry(entry.author).or_default();
            *known = entry.number.max(*known);
        }
        let heads = last.into_iter().take(30);
        let heads = heads.map(|(id, last)| head(id, last));
        let heads = heads.collect();
        let digest = self.random.next();
        self.heads(digest, heads)
    }

    fn packet(&mut self, kind: Lie) -> Packet {
        let head = |author, first, last| Head {
            author,
            first,
            last,
            hash: [7; 16],
            in_conflict: false,
        };
        match kind {
            Lie::UnknownAuthors => {
                let heads = (0..20).map(|_| head(AuthorId(self.random.next()), 1, 9));
                let heads = heads.collect();
                let digest = self.random.next();
                self.heads(digest, heads)
            }
            Lie::Beyond => self.heads_of_all(|id, last| head(id, 1, last + 9_000)),
            Lie::Low => self.heads_of_all(|id, _| head(id, 1, 0)),
            Lie::OtherDigest => {
                let digest = self.random.next();
                self.heads(digest, Vec::new())
            }
            Lie::SameDigest => {
                let at = self.random.index(self.digests.len());
                let digest = self.digests.get(at).copied().unwrap_or(1);
                self.heads(digest, Vec::new())
            }
            Lie::Floor => self.heads_of_all(|id, last| head(id, last + 50, last + 99)),
            Lie::OtherHash => self.heads_of_all(|id, last| head(id, 1, last)),
            Lie::Forged => Packet::Entries(self.forged()),
            Lie::Replayed => {
                let count = self.entries.len().min(6);
                let of = |_| self.entries[self.random.index(self.entries.len())].clone();
                Packet::Entries((0..count).map(of).collect())
            }
            Lie::Wants => {
                let authors = self.entries.iter().map(|entry| entry.author);
                let authors: std::collections::BTreeSet<_> = authors.collect();
                let want = |author| Want {
                    author,
                    first: 1 + self.random.below(4) as u32 * 256,
                    bitmap: vec![0xff; 32],
                };
                Packet::Wants(authors.into_iter().take(20).map(want).collect())
            }
            Lie::Requests => Packet::Request(self.random.bytes(900)),
            Lie::AsksForRequests => Packet::Heads {
                asks_for_requests: true,
                digest: self.random.next(),
                heads: Vec::new(),
            },
        }
    }

    /// Entries with wanted numbers, and the last ones of all authors.
    fn forged(&mut self) -> Vec<Entry> {
        let mut entries = Vec::new();
        let last = self
            .entries
            .last()
            .map(|entry| (entry.author, entry.number));
        let wanted = self.wanted.drain(..).chain(last);
        for (author, number) in wanted.take(8) {
            entries.push(Entry {
                author,
                number,
                first: 1,
                time: EPOCH,
                kind: 16,
                previous: [1; 16],
                body: b"false".to_vec(),
                signature: [3; 64],
            });
        }
        entries
    }
}

impl World {
    /// Sends the liar's due packets.
    pub fn lie(&mut self) {
        while let Some(liar) = self.liar.as_mut().filter(|liar| liar.next <= self.now) {
            liar.next += liar.interval;
            let kind = liar.kinds[liar.told % liar.kinds.len()];
            let from = 10_000 + liar.told % liar.addresses;
            liar.told += 1;
            let packet = liar.packet(kind);
            let bytes = seal(&packet, &mut liar.random);
            liar.sent += bytes.len();
            for to in 0..self.members.len() {
                let payload = (from, to, bytes.clone());
                self.network.send(from, to, payload, self.now);
            }
        }
    }

    /// Bytes of lies.
    fn lied(&self) -> usize {
        self.liar.as_ref().map_or(0, |liar| liar.sent)
    }

    pub fn lies(&mut self, kinds: &[Lie], rate: u32, addresses: usize) {
        let mut liar = Liar::new(kinds, rate, addresses, self.now);
        for stored in &self.members[0].disk {
            if let Stored::Entry(entry) = stored {
                liar.entries.push(entry.clone());
            }
        }
        self.liar = Some(liar);
    }
}

/// Result of a run under lies.
#[derive(Debug)]
struct Outcome {
    /// Time until the member that was away had everything.
    back: Duration,
    /// Time until a member with nothing had everything.
    late: Duration,
    /// Bytes that members sent in a second while only the liar sent anything new.
    sent: usize,
    /// Bytes of lies in a second.
    lies: usize,
}

fn has_all(world: &World, n: usize, authors: usize) -> bool {
    (0..authors).all(|author| world.bodies(n, author).len() == world.bodies(author, author).len())
}

/// Time until a just started member has everything; caught up means it has the owner's log.
fn until_all(world: &mut World, n: usize, authors: usize) -> Duration {
    let (begin, mut caught_up) = (world.now, None);
    while world.now < begin + 600 * SECOND && (caught_up.is_none() || !has_all(world, n, authors)) {
        world.run(SECOND / 10);
        let at = world.members[n].log.caught_up_at();
        if caught_up.is_none() && at.is_some_and(|at| at <= world.now) {
            caught_up = Some(world.now - begin);
            assert_eq!(world.bodies(n, 0), world.bodies(0, 0), "{caught_up:?}");
        }
    }
    let caught_up = caught_up.unwrap();
    assert!(caught_up < 15 * SECOND, "{caught_up:?}");
    assert!(has_all(world, n, authors));
    let read = world.members[n].read.values().flatten();
    read.map(|(.., at)| *at).max().unwrap() - begin
}

/// One member is away while five authors write nine entries each, and comes back; another starts
/// for the first time. A liar sends all the time. In the end all members have the last entries.
fn under_lies(members: usize, loss: f64, kinds: &[Lie], rate: u32, addresses: usize) -> Outcome {
    let mut world = World::new(members, path(loss), 40);
    let (away, late) = (members - 2, members - 1);
    world.members[late].online = false;
    world.run(4 * SECOND);
    world.grant(1..5);
    world.run(6 * SECOND);
    world.members[away].online = false;
    for round in 0..9_u8 {
        for author in 0..5 {
            world.append(author, &[author as u8, round]);
        }
        world.run(SECOND / 2);
    }
    world.run(120 * SECOND);
    if !kinds.is_empty() {
        world.lies(kinds, rate, addresses);
    }
    // by then the lies have their full effect
    world.run(120 * SECOND);
    let (sent, lies) = (world.sent.1, world.lied());
    world.run(30 * SECOND);
    let (sent, lies) = ((world.sent.1 - sent) / 30, (world.lied() - lies) / 30);
    let disk = world.members[away].disk.clone();
    world.restart(away, disk);
    let back = until_all(&mut world, away, 5);
    world.run(20 * SECOND);
    world.restart(late, Vec::new());
    let late = until_all(&mut world, late, 5);
    for author in 0..5 {
        world.append(author, b"last words");
    }
    world.run(10 * SECOND);
    world.expect_equal(5);
    Outcome {
        back,
        late,
        sent,
        lies,
    }
}

/// Most bytes that all members send in a second. Measured: 8 members send 27 kB, 60 send 39 kB, if
/// a liar has filled the places for requests and requests everything.
const MOST_SENT: usize = 50_000;

#[test]
fn lies_keep_nothing_from_those_who_come_back() {
    for (rate, addresses) in [(4, 1), (10, 300), (100, 2_000)] {
        let outcome = under_lies(8, 0.05, &LIES, rate, addresses);
        println!("{rate} {outcome:?}");
        assert!(outcome.back < 10 * SECOND, "{outcome:?}");
        assert!(outcome.late < 10 * SECOND, "{outcome:?}");
        assert!(outcome.sent < MOST_SENT, "{outcome:?}");
    }
}

#[test]
fn heads_of_unknown_authors_and_forged_answers_keep_nothing_from_anybody() {
    for kinds in [[Lie::UnknownAuthors], [Lie::Forged], [Lie::SameDigest]] {
        let outcome = under_lies(8, 0.05, &kinds, 10, 1);
        println!("{kinds:?} {outcome:?}");
        assert!(outcome.back < 10 * SECOND, "{outcome:?}");
        assert!(outcome.late < 10 * SECOND, "{outcome:?}");
    }
}

/// Figures of docs/benchmarks.md: lies alone and together, by rate and size of group.
#[test]
#[ignore = "takes minutes"]
fn lies_of_every_kind_at_every_rate() {
    for (members, loss, rates) in [
        (8, 0.0, &[4, 10, 100][..]),
        (8, 0.2, &[4, 10, 100]),
        (60, 0.05, &[10]),
    ] {
        println!(
            "{members} members, loss {loss}: {:?}",
            under_lies(members, loss, &[], 1, 1)
        );
        for &rate in rates {
            let each = LIES.iter().map(std::slice::from_ref);
            for kinds in each.chain([&LIES[..]]) {
                let outcome = under_lies(members, loss, kinds, rate, 300);
                println!("{members} members, loss {loss}, {rate}/s, {kinds:?}: {outcome:?}");
                assert!(outcome.back < 20 * SECOND && outcome.late < 20 * SECOND);
                let Outcome { sent, lies, .. } = outcome;
                assert!(sent < MOST_SENT, "{sent} B/s because of {lies} B/s");
            }
        }
    }
}

#[test]
fn lies_make_no_author_append_before_it_has_what_others_have_of_it() {
    for kind in [Lie::SameDigest, Lie::Low, Lie::Forged, Lie::Replayed] {
        let mut world = World::new(4, path(0.05), 41);
        talk(&mut world, 2);
        let old = world.members[1].disk.clone();
        for n in 0..5_u8 {
            world.append(1, &[n]);
            world.run(SECOND);
        }
        world.lies(&[kind], 50, 1);
        world.run(5 * SECOND);
        world.restart(1, old);
        while world.append_as(1, 16, b"goes on") == Err(AppendError::Starting) {
            world.run(SECOND / 20);
        }
        world.run(5 * SECOND);
        world.expect_equal(4);
        assert_eq!(world.bodies(1, 1).len(), 10, "{kind:?}");
    }
}

#[test]
fn whoever_is_alone_with_a_liar_loses_nothing() {
    let mut world = World::new(4, path(0.0), 42);
    talk(&mut world, 2);
    world.members[3].online = false;
    for n in 0..9_u8 {
        world.append(1, &[n]);
        world.run(SECOND);
    }
    world.run(5 * SECOND);
    for n in 0..3 {
        world.members[n].online = false;
    }
    // it has the latest entry, and claims that the earlier ones are gone
    world.lies(&[Lie::Floor, Lie::Replayed], 10, 30);
    let liar = world.liar.as_mut().unwrap();
    liar.entries.retain(|entry| entry.number == 13);
    let disk = world.members[3].disk.clone();
    world.restart(3, disk);
    world.run(600 * SECOND);
    for n in 0..3 {
        let disk = world.members[n].disk.clone();
        world.restart(n, disk);
    }
    world.run(90 * SECOND);
    assert_eq!(world.bodies(3, 1), world.bodies(1, 1));
    assert_eq!(world.bodies(3, 1).len(), 13);
}
