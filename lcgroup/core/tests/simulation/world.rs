//! Participants of one group on virtual time, with a log in memory, disks that keep the last
//! written state, and a model of the messages that each must show.

use std::collections::{BTreeMap, BTreeSet};

use lcgroup_core::{
    Append, Entry, Event, Founding, Group, Invitation, Log, NewEntry, Output, Standing, Taken, kind,
};
use librecast::id::{PeerId, SecretKey};
use librecast::random::Random;
use librecast::time::UnixTime;

pub const START: u64 = 1_800_000_000_000;
pub const DAY: u64 = 24 * 3_600_000;

/// A fault of a shell, which the checks must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    None,
    /// It publishes before it writes the state.
    WritesLate,
    /// Heads of commits are one above the entries that the owner has read.
    CountsTooMuch,
    /// `remove` is reported, but has no effect.
    DropsRemoval,
    /// Entries of this kind have a wrong byte.
    Spoils(u8),
}

/// The moment at which a participant crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    BeforeWrite,
    AfterWrite,
    AfterFirstAppend,
}

pub struct Participant {
    pub group: Option<Group>,
    pub disk: Vec<u8>,
    pub online: bool,
    /// Shown messages on disk: author, id.
    pub shown: BTreeMap<(PeerId, u64), Vec<u8>>,
    /// Shown in this run.
    run: BTreeSet<(PeerId, u64)>,
    pub events: Vec<String>,
    pub said: BTreeMap<u64, Vec<u8>>,
    restarts: u64,
    seed: u8,
    pub crash: Option<Crash>,
    pub crashes: usize,
    pub key: PeerId,
}

pub struct Stored {
    pub time: u64,
    pub entry: NewEntry,
}

/// Appends to the log of `who`; a gap, or another entry of the same number, is a fault.
pub fn keep(
    log: &mut Vec<Stored>,
    number: u32,
    stored: Stored,
    who: usize,
    faults: &mut Vec<String>,
) {
    match number as usize {
        n if n == log.len() + 1 => log.push(stored),
        n if n > log.len() => faults.push(format!("{who} left a gap before {n}")),
        n if log[n - 1].entry != stored.entry => {
            faults.push(format!("{who} wrote two entries {n}"));
        }
        _ => {}
    }
}

pub fn unix(milliseconds: u64) -> UnixTime {
    UnixTime::from_millis(milliseconds)
}

/// Returns the beginning of a group whose owner has this name.
pub fn founding(name: &str, topic: &str) -> Founding {
    Founding {
        key: SecretKey::from_seed(&[7; 32]),
        read_key: [8; 32].into(),
        topic: topic.to_owned(),
        name: name.to_owned(),
    }
}

pub struct World {
    pub now: u64,
    pub random: Random,
    pub logs: BTreeMap<PeerId, Vec<Stored>>,
    pub requests: Vec<Vec<u8>>,
    pub people: Vec<Participant>,
    pub defect: Defect,
    pub faults: Vec<String>,
    /// Share of requests that is lost.
    pub loss: f64,
    /// First number that the owner's log still has.
    pub first: u32,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut world = Self {
            now: START,
            random: Random::new(seed),
            logs: BTreeMap::new(),
            requests: Vec::new(),
            people: Vec::new(),
            defect: Defect::None,
            faults: Vec::new(),
            loss: 0.0,
            first: 1,
        };
        let seed = seed32(0, seed + 1_000);
        let group = Group::create(founding("owner", "test"), &seed, world.time()).unwrap();
        world.enter(group);
        world
    }

    pub fn enter(&mut self, group: Group) -> usize {
        let who = self.people.len();
        self.people.push(Participant {
            key: group.author_key().peer_id(),
            disk: Vec::new(),
            group: Some(group),
            online: true,
            shown: BTreeMap::new(),
            run: BTreeSet::new(),
            events: Vec::new(),
            said: BTreeMap::new(),
            restarts: 0,
            seed: who as u8,
            crash: None,
            crashes: 0,
        });
        self.settle(who);
        who
    }

    pub fn time(&self) -> UnixTime {
        unix(self.now)
    }

    pub fn group(&mut self, who: usize) -> &mut Group {
        self.people[who].group.as_mut().unwrap()
    }

    pub fn invite(&mut self, uses: u32) -> Invitation {
        let (now, expires) = (self.time(), self.now + 365 * DAY);
        let invitation = self.group(0).invite(uses, expires, now).unwrap();
        self.settle(0);
        invitation.encode().parse().unwrap()
    }

    pub fn join(&mut self, invitation: &Invitation) -> usize {
        let who = self.people.len();
        let name = format!("member {who}");
        let seed = seed32(who as u8, 0);
        let group = Group::join(invitation.clone(), &name, &seed, self.time()).unwrap();
        self.enter(group)
    }

    pub fn say(&mut self, who: usize, content: &[u8]) -> Option<u64> {
        let now = self.time();
        let group = self.people[who].group.as_mut()?;
        let id = group.say(content, now).ok()?;
        // it counts as sent once its state is written
        self.settle(who).then(|| {
            self.people[who].said.insert(id, content.to_vec());
            id
        })
    }

    pub fn remove(&mut self, who: usize) {
        let (key, now) = (self.people[who].key, self.time());
        if self.defect != Defect::DropsRemoval {
            let owner = self.people[0].group.as_mut();
            if let Some(Err(error)) = owner.map(|g| g.remove(&key, now)) {
                self.faults.push(format!("not removed: {error}"));
            }
        }
        self.settle(0);
    }

    /// Has the owner commit, or another one ask for a new leaf.
    pub fn refresh(&mut self, who: usize) {
        let now = self.time();
        self.group(who).refresh(now).unwrap();
        self.settle(who);
    }

    /// Polls, writes and publishes like a shell; returns whether the state was written.
    pub fn settle(&mut self, who: usize) -> bool {
        let person = &mut self.people[who];
        let Some(group) = person.group.as_mut() else {
            return false;
        };
        let (mut appends, mut requests) = (Vec::new(), Vec::new());
        while let Some(output) = group.poll_output() {
            match output {
                Output::Append(append) => appends.push(append),
                Output::Request(bytes) => requests.push(bytes),
                Output::Event(event) => {
                    if matches!(event, Event::RolledBack | Event::CannotFollow) {
                        self.faults.push(format!("{who}: {event:?}"));
                    }
                    person.events.push(format!("{event:?}"));
                    if let Event::NotCounted { author, id } | Event::SaidAgain { author, id } =
                        event
                        && !person.shown.contains_key(&(author, id))
                    {
                        let fault = format!("{who} is told of {id:x}, which it was not shown");
                        self.faults.push(fault);
                    }
                    if let Event::Message {
                        author,
                        id,
                        content,
                        ..
                    } = event
                    {
                        if !person.run.insert((author, id)) {
                            let fault = format!("{who} was shown {id:x} twice in one run");
                            self.faults.push(fault);
                        }
                        person.shown.insert((author, id), content.to_vec());
                    }
                }
            }
        }
        let id = group.id();
        self.first = group.keeps_from().unwrap_or(0).max(self.first);
        let changed = !(appends.is_empty() && requests.is_empty());
        let crash = if changed { person.crash.take() } else { None };
        let late = self.defect == Defect::WritesLate;
        if crash == Some(Crash::BeforeWrite) && !late {
            self.die(who);
            return false;
        }
        if !late {
            person.disk = group.state().unwrap().to_vec();
        }
        if crash == Some(Crash::AfterWrite) && !late {
            self.die(who);
            return true;
        }
        for request in requests {
            if !self.random.chance(self.loss) {
                self.requests.push(request);
            }
        }
        for (n, append) in appends.into_iter().enumerate() {
            self.publish(who, id, append);
            let dies = late && crash.is_some() || crash == Some(Crash::AfterFirstAppend) && n == 0;
            if dies {
                self.die(who);
                return !late;
            }
        }
        if late {
            let person = &mut self.people[who];
            person.disk = person.group.as_ref().unwrap().state().unwrap().to_vec();
        }
        true
    }

    fn publish(&mut self, who: usize, id: PeerId, append: Append) {
        let Append {
            log,
            number,
            mut entry,
        } = append;
        match (self.defect, &mut entry) {
            (Defect::CountsTooMuch, entry) => count_too_much(entry),
            (Defect::Spoils(spoiled), NewEntry::Body { kind, body }) if *kind == spoiled => {
                *body.last_mut().unwrap() ^= 1;
            }
            _ => {}
        }
        let author = match log {
            Log::Own => self.people[who].key,
            Log::Owner => id,
        };
        let time = self.now;
        let log_of_author = self.logs.entry(author).or_default();
        let stored = Stored { time, entry };
        keep(log_of_author, number, stored, who, &mut self.faults);
        self.group(who).handle_appended(log, number);
    }

    fn die(&mut self, who: usize) {
        let person = &mut self.people[who];
        person.group = None;
        person.online = false;
        person.crashes += 1;
    }

    /// Starts a participant from its disk.
    pub fn start(&mut self, who: usize) {
        let person = &mut self.people[who];
        person.restarts += 1;
        person.run.clear();
        person.online = true;
        if person.disk.is_empty() {
            return;
        }
        let seed = seed32(person.seed, person.restarts);
        let mut group = Group::restore(&person.disk, &seed).unwrap();
        let (own, id, owns) = (person.key, group.id(), group.group_key().is_some());
        // the length of a log on this host
        let length = |author| self.logs.get(&author).map_or(0, |log| log.len() as u32);
        group.handle_appended(Log::Own, length(own));
        if owns {
            group.handle_appended(Log::Owner, length(id));
        }
        person.group = Some(group);
        self.settle(who);
    }

    /// Feeds up to `most` entries of one author; returns their number.
    pub fn feed(&mut self, who: usize, author: &PeerId, most: usize) -> usize {
        let mut taken = 0;
        while taken < most {
            let now = self.now;
            let person = &mut self.people[who];
            let Some(group) = person.group.as_mut() else {
                return taken;
            };
            let wanted = group.wants(author);
            let next = wanted.unwrap_or(1);
            if *author == group.id() && wanted.is_some() && next < self.first {
                group.handle_gap(author, self.first - 1, unix(now));
                self.settle(who);
                continue;
            }
            let Some(stored) = self.logs.get(author).and_then(|l| l.get(next as usize - 1)) else {
                return taken;
            };
            let result = handle(group, *author, next, stored, now);
            self.settle(who);
            let group = self.people[who].group.as_ref();
            if result == Taken::Wait || group.is_none_or(|g| g.wants(author) == wanted) {
                return taken;
            }
            taken += 1;
        }
        taken
    }

    /// Passes all stored requests to the owner.
    pub fn hear_requests(&mut self) {
        for request in self.requests.clone() {
            let now = self.time();
            if let Some(group) = self.people[0].group.as_mut() {
                let _ = group.handle_request(&request, now);
                self.settle(0);
            }
        }
    }

    pub fn authors(&self) -> Vec<PeerId> {
        self.logs.keys().copied().collect()
    }

    /// Advances the time, and runs the timers.
    pub fn pass(&mut self, milliseconds: u64) {
        self.now += milliseconds;
        for who in 0..self.people.len() {
            let now = self.time();
            if let Some(group) = self.people[who].group.as_mut()
                && group.next_timeout().is_some_and(|due| due <= now)
            {
                group.handle_timeout(now);
                self.settle(who);
            }
        }
    }

    /// Brings all participants online and delivers every entry, until nothing changes.
    pub fn meet(&mut self) {
        for who in 0..self.people.len() {
            self.people[who].crash = None;
            if self.people[who].group.is_none() {
                self.start(who);
            }
            self.people[who].online = self.people[who].group.is_some();
        }
        for _ in 0..60 {
            let mut moved = 0;
            self.hear_requests();
            for who in 0..self.people.len() {
                for author in self.authors() {
                    moved += self.feed(who, &author, usize::MAX);
                }
            }
            self.pass(3_000);
            if moved == 0 {
                return;
            }
        }
        self.faults.push("it does not come to rest".to_owned());
    }

    /// Sends all waiting messages again, as a user would.
    pub fn resend_outboxes(&mut self) {
        for who in 0..self.people.len() {
            let now = self.time();
            if let Some(group) = self.people[who].group.as_mut() {
                let waiting: Vec<u64> = group.outbox().map(|(id, _)| id).collect();
                for id in waiting {
                    // fails for a removed member
                    let _ = group.resend(id, now);
                }
                self.settle(who);
            }
        }
    }

    pub fn is_member(&self, who: usize) -> bool {
        let group = self.people[who].group.as_ref();
        group.is_some_and(|group| group.standing() == Standing::Member)
    }

    /// Returns the number of a participant's events that begin so.
    pub fn told(&self, who: usize, what: &str) -> usize {
        let events = self.people[who].events.iter();
        events.filter(|event| event.starts_with(what)).count()
    }

    pub fn assert_faultless(&self) {
        assert_eq!(self.faults, Vec::<String>::new());
    }

    /// Checks that all members have one epoch, one secret, and one list of members.
    pub fn check_agreement(&mut self) {
        let members: Vec<usize> = (0..self.people.len())
            .filter(|w| self.is_member(*w))
            .collect();
        let mut views = BTreeSet::new();
        for who in members {
            let group = self.group(who);
            let mut members: Vec<_> = group.members().into_iter().map(|m| m.author).collect();
            members.sort();
            let secret = *group.export("test", b"").unwrap();
            views.insert((group.epoch(), secret, members));
        }
        if views.len() != 1 {
            let epochs: Vec<_> = views.iter().map(|view| view.0).collect();
            self.faults.push(format!("members are apart: {epochs:?}"));
        }
    }

    /// Checks that all messages of `authors` were shown to all `readers`.
    pub fn check_shown(&mut self, readers: &[usize], authors: &[usize]) {
        for reader in readers {
            for author in authors {
                if reader == author {
                    continue;
                }
                let key = self.people[*author].key;
                for (id, content) in &self.people[*author].said {
                    let shown = self.people[*reader].shown.get(&(key, *id));
                    if shown != Some(content) {
                        let fault = format!("{reader} misses {id:x} of {author}");
                        self.faults.push(fault);
                    }
                }
            }
        }
    }
}

/// Passes a stored entry to a group.
pub fn handle(group: &mut Group, author: PeerId, number: u32, stored: &Stored, now: u64) -> Taken {
    let entry = read(&stored.entry, author, number, stored.time);
    group.handle_entry(&entry, unix(now))
}

/// Returns an entry as it is read from the log of this author.
pub fn read(entry: &NewEntry, author: PeerId, number: u32, time: u64) -> Entry<'_> {
    // grants and revocations have kinds of the shell
    let (kind, body) = match entry {
        NewEntry::Body { kind, body } => (*kind, &body[..]),
        NewEntry::Grants(_) => (128, &[][..]),
    };
    Entry {
        author,
        number,
        time,
        kind,
        body,
    }
}

fn count_too_much(entry: &mut NewEntry) {
    let NewEntry::Body { kind, body } = entry else {
        return;
    };
    // a commit in one part: a part header of 12, version, number of heads, heads of 36 bytes
    if *kind != kind::COMMIT || body[8..12] != [0, 0, 0, 1] {
        return;
    }
    let heads = u16::from_be_bytes([body[13], body[14]]) as usize;
    for head in 0..heads {
        body[15 + head * 36 + 35] += 1;
    }
}

fn seed32(who: u8, restart: u64) -> [u8; 32] {
    let mut seed = [who; 32];
    seed[..8].copy_from_slice(&restart.to_be_bytes());
    seed[8] = 0xa5;
    seed
}
