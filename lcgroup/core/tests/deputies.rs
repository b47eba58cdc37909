//! Deputies on virtual time: an owner that is lost, hosts that are apart, a deputy that lies about
//! its uptime. Hosts copy logs to all hosts on their side, and present hosts show themselves.

use std::collections::{BTreeMap, BTreeSet};

use lcgroup_core::outside::{Expelled, NetworkOffice, NetworkSecret, network_seed};
use lcgroup_core::{
    DeviceInvitation, Entry, Event, Group, GroupError, Invitation, Log, NewEntry, Output, Standing,
    Taken, kind,
};
use librecast::cert::{Chain, Grant, Member, Token};
use librecast::code::CodeKeys;
use librecast::id::{PeerId, SecretKey};
use librecast::random::Random;
use librecast::time::UnixTime;

use crate::world::{START, Stored, founding, keep, read, unix};

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
/// Silence of the first deputy, in seconds; the second waits twice as long, and so on.
const AFTER: u32 = 3_600;

/// A log: the author key, and whether it is the office of this author.
type Name = (PeerId, bool);

struct Person {
    group: Option<Group>,
    disk: Vec<u8>,
    key: PeerId,
    side: u64,
    is_online: bool,
    /// Its host is gone for good.
    is_dead: bool,
    /// Entries on its disk.
    has: BTreeMap<Name, usize>,
    shown: BTreeSet<(PeerId, u64)>,
    said: BTreeSet<u64>,
    events: Vec<String>,
    restarts: u64,
    /// Somebody in office removed it once.
    was_removed: bool,
}

struct World {
    now: u64,
    random: Random,
    logs: BTreeMap<Name, Vec<Stored>>,
    requests: Vec<(u64, Vec<u8>)>,
    people: Vec<Person>,
    id: PeerId,
    faults: Vec<String>,
}

fn seed32(who: usize, restart: u64) -> [u8; 32] {
    let mut seed = [who as u8; 32];
    seed[..8].copy_from_slice(&restart.to_be_bytes());
    seed
}

impl World {
    fn new(seed: u64, members: usize) -> Self {
        let mut world = Self {
            now: START,
            random: Random::new(seed),
            logs: BTreeMap::new(),
            requests: Vec::new(),
            people: Vec::new(),
            id: founding("owner", "").key.peer_id(),
            faults: Vec::new(),
        };
        let seed = seed32(0, seed + 9);
        let group = Group::create(founding("owner", ""), &seed, world.time()).unwrap();
        world.enter(group, 0);
        let invitation = world.invite(0).unwrap();
        for _ in 1..members {
            world.join(&invitation, 0);
        }
        world.live(20, MINUTE);
        world
    }

    fn time(&self) -> UnixTime {
        unix(self.now)
    }

    fn group(&mut self, who: usize) -> &mut Group {
        self.people[who].group.as_mut().unwrap()
    }

    fn enter(&mut self, group: Group, side: u64) -> usize {
        self.people.push(Person {
            key: group.author_key().peer_id(),
            group: Some(group),
            disk: Vec::new(),
            side,
            is_online: true,
            is_dead: false,
            has: BTreeMap::new(),
            shown: BTreeSet::new(),
            said: BTreeSet::new(),
            events: Vec::new(),
            restarts: 0,
            was_removed: false,
        });
        let who = self.people.len() - 1;
        self.settle(who);
        who
    }

    fn invite(&mut self, who: usize) -> Result<Invitation, GroupError> {
        let (now, expires) = (self.time(), self.now + 5_000 * HOUR);
        let invitation = self.group(who).invite(100, expires, now)?;
        self.settle(who);
        Ok(invitation.encode().parse().unwrap())
    }

    fn join(&mut self, invitation: &Invitation, side: u64) -> usize {
        let seed = seed32(self.people.len(), 77);
        let name = format!("member {}", self.people.len());
        let group = Group::join(invitation.clone(), &name, &seed, self.time()).unwrap();
        self.enter(group, side)
    }

    fn join_device(&mut self, text: DeviceInvitation) -> usize {
        let laptop = Group::join_device(text, "laptop", &seed32(6, 77), self.time()).unwrap();
        let laptop = self.enter(laptop, 0);
        self.live(10, MINUTE);
        assert_eq!(self.standing(laptop), Some(Standing::Member));
        laptop
    }

    fn add_device(&mut self, of: usize) -> usize {
        let (now, expires) = (self.time(), self.now + HOUR);
        let text = self.group(of).invite_device(expires, now).unwrap();
        self.join_device(text.encode().parse().unwrap())
    }

    /// All of the first `n` members become deputies, in order.
    fn appoint(&mut self, n: usize) {
        for who in 1..=n {
            let (key, now) = (self.people[who].key, self.time());
            let after = AFTER * who as u32;
            self.group(0).add_deputy(&key, after, now).unwrap();
        }
        self.settle(0);
        self.live(10, MINUTE);
    }

    fn remove_deputy(&mut self, who: usize) {
        let (key, now) = (self.people[who].key, self.time());
        self.group(0).remove_deputy(&key, now).unwrap();
        self.settle(0);
    }

    fn say(&mut self, who: usize) -> Option<u64> {
        let now = self.time();
        let group = self.people[who].group.as_mut()?;
        let id = group.say(b"a word", now).ok()?;
        self.settle(who);
        self.people[who].said.insert(id);
        Some(id)
    }

    fn remove(&mut self, by: usize, who: usize) -> bool {
        let (key, now) = (self.people[who].key, self.time());
        let removed = self.people[by]
            .group
            .as_mut()
            .is_some_and(|g| g.remove(&key, now).is_ok());
        self.people[who].was_removed |= removed;
        self.settle(by);
        removed
    }

    /// Polls, writes and publishes like a shell.
    fn settle(&mut self, who: usize) {
        let person = &mut self.people[who];
        let Some(group) = person.group.as_mut() else {
            return;
        };
        let mut appends = Vec::new();
        while let Some(output) = group.poll_output() {
            match output {
                Output::Append(append) => appends.push(append),
                Output::Request(bytes) => self.requests.push((person.side, bytes)),
                Output::Event(event) => {
                    if matches!(event, Event::RolledBack | Event::CannotFollow) {
                        self.faults.push(format!("{who}: {event:?}"));
                    }
                    if let Event::Message { author, id, .. } = event {
                        person.shown.insert((author, id));
                    }
                    person.events.push(format!("{event:?}"));
                }
            }
        }
        for append in appends {
            let name = match append.log {
                Log::Own => (person.key, false),
                Log::Owner if group.group_key().is_some() => (self.id, false),
                Log::Owner => (person.key, true),
            };
            let log = self.logs.entry(name).or_default();
            let (time, entry) = (self.now, append.entry);
            let stored = Stored { time, entry };
            keep(log, append.number, stored, who, &mut self.faults);
            person.has.insert(name, log.len());
            group.handle_appended(append.log, append.number);
        }
    }

    fn stop(&mut self, who: usize) {
        let person = &mut self.people[who];
        if let Some(group) = person.group.take() {
            // as it was written with its last output
            person.disk = group.state().unwrap().to_vec();
        }
        person.is_online = false;
    }

    /// Stops the owner until the first deputy is in office.
    fn lose_owner(&mut self) {
        self.stop(0);
        self.live(90, MINUTE);
        assert_eq!(self.in_office(), [1]);
    }

    fn start(&mut self, who: usize) {
        let id = self.id;
        let person = &mut self.people[who];
        person.restarts += 1;
        let mut group = Group::restore(&person.disk, &seed32(who, person.restarts)).unwrap();
        assert_eq!(*group.state().unwrap(), person.disk);
        let has = |name: Name| person.has.get(&name).copied().unwrap_or(0) as u32;
        group.handle_appended(Log::Own, has((person.key, false)));
        let office = match group.group_key().is_some() {
            true => (id, false),
            false => (person.key, true),
        };
        group.handle_appended(Log::Owner, has(office));
        group.fall_behind();
        (person.group, person.is_online) = (Some(group), true);
        self.settle(who);
    }

    fn online(&self) -> Vec<usize> {
        let all = 0..self.people.len();
        all.filter(|who| self.people[*who].is_online).collect()
    }

    /// Hosts of one side copy all entries, and read them in any order.
    fn exchange(&mut self) {
        let online = self.online();
        for side in online
            .iter()
            .map(|w| self.people[*w].side)
            .collect::<BTreeSet<_>>()
        {
            let here: Vec<usize> = online
                .iter()
                .copied()
                .filter(|w| self.people[*w].side == side)
                .collect();
            let mut all: BTreeMap<Name, usize> = BTreeMap::new();
            for who in &here {
                for (name, n) in &self.people[*who].has {
                    let known = all.entry(*name).or_default();
                    *known = (*n).max(*known);
                }
            }
            for who in &here {
                self.people[*who].has.clone_from(&all);
            }
            for (_, request) in self.requests.iter().filter(|(from, _)| *from == side) {
                for who in &here {
                    let now = unix(self.now);
                    if let Some(group) = self.people[*who].group.as_mut() {
                        let _ = group.handle_request(request, now);
                    }
                }
            }
            for who in here {
                self.settle(who);
                self.read(who);
                if self.is_grant_ended(who) {
                    self.group(who).end_membership();
                    self.settle(who);
                }
                let now = self.time();
                let group = self.group(who);
                if group.is_behind() {
                    group.catch_up(now);
                    self.settle(who);
                }
            }
        }
    }

    /// Whether the grant of one that waits for a new leaf has ended, by the highest term that its
    /// host has: shells see it in the log.
    fn is_grant_ended(&self, who: usize) -> bool {
        if !matches!(self.standing(who), Some(Standing::Rejoining { .. })) {
            return false;
        }
        let person = &self.people[who];
        let mut latest = (0, u32::MAX);
        for (name, has) in &person.has {
            let mut term = 0;
            for stored in self.logs.get(name).into_iter().flatten().take(*has) {
                match &stored.entry {
                    NewEntry::Body { kind, body } if *kind == kind::TERM => {
                        term = u32::from_be_bytes(body[1..5].try_into().unwrap());
                    }
                    NewEntry::Grants(grants) if term >= latest.0 => {
                        let own = grants.iter().find(|(author, _)| *author == person.key);
                        latest = own.map_or(latest, |(_, last)| (term, *last));
                    }
                    _ => {}
                }
            }
        }
        latest.1 < u32::MAX
    }

    fn read(&mut self, who: usize) {
        loop {
            let mut any = false;
            let mut names: Vec<Name> = self.people[who].has.keys().copied().collect();
            for at in (1..names.len()).rev() {
                let other = self.random.index(at + 1);
                names.swap(at, other);
            }
            for name in names {
                let most = 1 + self.random.index(20);
                for _ in 0..most {
                    any |= self.read_one(who, name);
                }
            }
            if !any {
                return;
            }
        }
    }

    fn read_one(&mut self, who: usize, (author, is_office): Name) -> bool {
        let now = self.time();
        let has = self.people[who].has[&(author, is_office)];
        let Some(group) = self.people[who].group.as_mut() else {
            return false;
        };
        let wants = |group: &Group| match is_office {
            true => group.wants_office(&author),
            false => group.wants(&author),
        };
        let Some(number) = wants(group).filter(|n| *n as usize <= has) else {
            return false;
        };
        let stored = &self.logs[&(author, is_office)][number as usize - 1];
        let entry = read(&stored.entry, author, number, stored.time);
        let taken = match is_office {
            true => group.handle_office_entry(&entry, now),
            false => group.handle_entry(&entry, now),
        };
        let moved = wants(group) != Some(number);
        self.settle(who);
        taken != Taken::Wait && moved
    }

    /// Lets time pass: `steps` of this many ms.
    fn live(&mut self, steps: usize, ms: u64) {
        for _ in 0..steps {
            self.exchange();
            self.now += ms;
            let online = self.online();
            for who in &online {
                let now = self.time();
                self.group(*who).pass_uptime(ms, now);
                let group = self.group(*who);
                if group.next_timeout().is_some_and(|due| due <= now) {
                    group.handle_timeout(now);
                }
                self.settle(*who);
            }
            for who in &online {
                if self.group(*who).is_in_office() {
                    let (key, side) = (self.people[*who].key, self.people[*who].side);
                    for other in &online {
                        if other != who && self.people[*other].side == side {
                            let (other_key, now) = (self.people[*other].key, self.time());
                            self.group(*other).hear(&key, now);
                            // some of them answer
                            self.group(*who).hear(&other_key, now);
                        }
                    }
                }
            }
        }
        self.exchange();
    }

    /// All that are not dead meet, for long enough that new leaves are made.
    fn meet(&mut self) {
        for who in 0..self.people.len() {
            self.people[who].side = 0;
            if !self.people[who].is_dead && self.people[who].group.is_none() {
                self.start(who);
            }
        }
        self.live(80, 4 * MINUTE);
    }

    fn in_office(&self) -> Vec<usize> {
        let all = self.online().into_iter();
        all.filter(|w| {
            self.people[*w]
                .group
                .as_ref()
                .is_some_and(Group::is_in_office)
        })
        .collect()
    }

    fn standing(&self, who: usize) -> Option<Standing> {
        self.people[who].group.as_ref().map(Group::standing)
    }

    fn has_event(&self, who: usize, event: &str) -> bool {
        self.people[who]
            .events
            .iter()
            .any(|told| told.starts_with(event))
    }

    fn resend(&mut self) {
        for who in self.online() {
            let now = self.time();
            let group = self.group(who);
            let waiting: Vec<u64> = group.outbox().map(|(id, _)| id).collect();
            for id in waiting {
                let _ = group.resend(id, now);
            }
            self.settle(who);
        }
    }

    /// One is in office; all that nobody removed are members, of one epoch, secret and list.
    fn check(&mut self) {
        let mut faults = Vec::new();
        let in_office = self.in_office();
        if in_office.len() != 1 {
            faults.push(format!("in office: {in_office:?}"));
        }
        let mut views = BTreeMap::new();
        for who in self.online() {
            match self.standing(who) {
                Some(Standing::Member) => {
                    let group = self.group(who);
                    let mut members: Vec<_> = group.members();
                    members.sort_by_key(|member| member.author);
                    let secret = *group.export("test", b"").unwrap();
                    let seen = (group.epoch(), secret, members.len(), group.in_office());
                    views.entry(seen).or_insert_with(Vec::new).push(who);
                }
                Some(Standing::Joining) if who > 5 => {}
                Some(Standing::Removed)
                    if self.people[who].was_removed || self.has_event(who, "AdmissionLost") => {}
                other => faults.push(format!("{who} is {other:?}")),
            }
        }
        if views.len() != 1 {
            let views: Vec<_> = views
                .iter()
                .map(|(view, who)| (view.0, view.2, who))
                .collect();
            faults.push(format!("members are apart: {views:?}"));
        }
        // every commit is made in a term of its log, and no two logs have one term
        let mut terms: BTreeMap<u32, Name> = BTreeMap::new();
        for (name, log) in &self.logs {
            let mut term = (*name == (self.id, false)).then_some(0);
            for stored in log {
                let NewEntry::Body { kind, body } = &stored.entry else {
                    continue;
                };
                if *kind == kind::TERM {
                    let next = u32::from_be_bytes(body[1..5].try_into().unwrap());
                    if terms
                        .insert(next, *name)
                        .is_some_and(|other| other != *name)
                    {
                        faults.push(format!("two logs have term {next}"));
                    }
                    term = Some(next);
                }
                if *kind == kind::COMMIT && term.is_none() {
                    faults.push("a commit without a term".to_owned());
                }
            }
        }
        self.faults.extend(faults);
    }

    /// Every word of a member was shown to all members, but for those that were told that they
    /// changed sides or came later.
    fn check_words(&mut self) {
        let members: Vec<usize> = self.online();
        let members = members
            .into_iter()
            .filter(|w| self.standing(*w) == Some(Standing::Member));
        let members: Vec<usize> = members.collect();
        let mut faults = Vec::new();
        for reader in members
            .iter()
            .filter(|w| **w <= 5 && !self.has_event(**w, "BranchLost"))
        {
            for author in members.iter().filter(|author| *author != reader) {
                let key = self.people[*author].key;
                for id in &self.people[*author].said {
                    if !self.people[*reader].shown.contains(&(key, *id)) {
                        faults.push(format!("{reader} misses {id:x} of {author}"));
                    }
                }
            }
        }
        self.faults.extend(faults);
    }

    fn assert_faultless(&self, seed: u64) {
        assert_eq!(self.faults, Vec::<String>::new(), "seed {seed}");
    }

    fn assert_one_group(&mut self, seed: u64) {
        self.check();
        self.assert_faultless(seed);
    }

    fn assert_agreement(&mut self, seed: u64) {
        self.check_words();
        self.assert_one_group(seed);
    }
}

fn group_of(seed: u64) -> World {
    let mut world = World::new(seed, 6);
    for who in 0..6 {
        assert_eq!(world.standing(who), Some(Standing::Member), "{who}");
    }
    world.appoint(3);
    assert_eq!(world.in_office(), [0]);
    world
}

#[test]
fn a_lost_owner_costs_the_deputys_delay_and_the_group_adds_and_removes() {
    let mut world = group_of(1);
    for who in 0..6 {
        world.say(who).unwrap();
    }
    world.live(5, MINUTE);
    world.stop(0);
    world.people[0].is_dead = true;
    world.live(50, MINUTE);
    assert_eq!(world.in_office(), Vec::<usize>::new(), "before its time");
    assert!(matches!(world.invite(1), Err(GroupError::NotTheOwner)));
    world.live(15, MINUTE);
    assert_eq!(world.in_office(), [1]);
    let invitation = world.invite(1).unwrap();
    let newcomer = world.join(&invitation, 0);
    world.live(5, MINUTE);
    assert_eq!(world.standing(newcomer), Some(Standing::Member));
    assert!(world.remove(1, 5));
    world.live(5, MINUTE);
    assert_eq!(world.standing(5), Some(Standing::Removed));
    // the owner itself stays in the list, as its leaf marks it
    assert!(!world.remove(1, 0));
    for who in [1, 2, 3, 4, newcomer] {
        world.say(who).unwrap();
    }
    world.live(5, MINUTE);
    world.assert_agreement(1);
    let shown = |who: usize| world.people[who].shown.len();
    assert_eq!((shown(newcomer), shown(4)), (4, 9));
    assert!(!(1..5).any(|who| world.has_event(who, "BranchLost")));
    // a member that was away all the time finds its way, without a new leaf
    // and the second deputy follows the first
    world.stop(1);
    world.people[1].is_dead = true;
    world.live(200, MINUTE);
    assert_eq!(world.in_office(), [2]);
    world.assert_one_group(1);
}

#[test]
fn a_deputy_that_is_removed_as_a_member_keeps_no_office() {
    for seed in 0..4 {
        let mut world = group_of(seed);
        let keys: Vec<PeerId> = world.people.iter().map(|person| person.key).collect();
        let named = |world: &mut World, who: usize, deputy: usize| {
            let mut deputies = world.group(who).deputies().iter();
            deputies.any(|one| one.author == keys[deputy] && one.is_named())
        };
        // by the owner: at once, for all
        assert!(world.remove(0, 1));
        world.live(20, MINUTE);
        for who in [0, 2, 3, 4, 5] {
            assert!(!named(&mut world, who, 1), "{who} {seed}");
            assert!(named(&mut world, who, 2), "{who} {seed}");
        }
        // by another deputy: once the owner takes the office back
        world.stop(0);
        world.live(3 * 60, MINUTE);
        assert_eq!(world.in_office(), [2], "{seed}");
        assert!(world.remove(2, 3));
        world.live(20, MINUTE);
        world.start(0);
        world.live(20, MINUTE);
        world.stop(2);
        world.live(4 * 60, MINUTE);
        assert_eq!(world.in_office(), [0], "{seed}");
        for who in [0, 4, 5] {
            assert!(!named(&mut world, who, 3), "{who} {seed}");
            assert!(named(&mut world, who, 2), "{who} {seed}");
        }
        world.meet();
        world.assert_one_group(seed);
    }
}

#[test]
fn a_deputy_in_office_neither_removes_the_owner_nor_keeps_its_new_leaf_out() {
    let mut world = group_of(5);
    world.lose_owner();
    world.start(0);
    world.live(10, MINUTE);
    let (owner, now) = (world.people[0].key, world.time());
    assert_eq!(
        (world.in_office(), world.standing(0)),
        (vec![1], Some(Standing::Member))
    );
    let refused = [
        world.group(0).leave(),
        world.group(1).remove(&owner, now),
        world.group(1).remove_person(&owner, now),
    ];
    for refused in refused {
        assert!(matches!(refused, Err(GroupError::Owner)), "{refused:?}");
    }
    // nothing of that waits for the next commit, which has the owner's new keys
    world.group(0).refresh(now).unwrap();
    world.settle(0);
    world.remove(1, 5);
    world.meet();
    assert_eq!(world.standing(0), Some(Standing::Member));
    assert_eq!(world.group(2).members()[0].author, owner);
    world.assert_one_group(5);
}

#[test]
fn a_deputy_in_office_adds_a_device_of_its_own() {
    let mut world = group_of(6);
    world.lose_owner();
    let laptop = world.add_device(1);
    let (key, person) = (world.people[laptop].key, world.people[1].key);
    assert_eq!(world.group(2).person_of(&key), person);
    world.assert_faultless(6);
}

#[test]
fn a_device_whose_removal_was_asked_of_a_lost_owner_is_removed_by_the_deputy() {
    // asked by a member, and by the deputy itself
    for (of, is_restarted) in [(4, false), (4, true), (1, true)] {
        let mut world = group_of(7);
        let laptop = world.add_device(of);
        world.stop(0);
        let (key, now) = (world.people[laptop].key, world.time());
        world.group(of).remove_device(&key, now).unwrap();
        world.settle(of);
        world.people[laptop].was_removed = true;
        if is_restarted {
            world.stop(of);
            world.start(of);
        }
        world.live(90, MINUTE);
        assert_eq!(world.in_office(), [1]);
        assert_eq!(world.standing(laptop), Some(Standing::Removed), "{of}");
        // once, and nothing of it is said again
        let words = world.logs[&(world.people[of].key, false)].iter();
        let is_gone = |entry: &NewEntry| matches!(entry, NewEntry::Body { kind, .. } if *kind == kind::DEVICE_GONE);
        let asked = words.filter(|stored| is_gone(&stored.entry)).count();
        assert_eq!(asked, if of == 1 { 1 } else { 2 });
        world.meet();
        world.assert_one_group(7);
    }
}

#[test]
fn an_owner_that_was_only_away_follows_and_loses_nothing() {
    let mut world = group_of(2);
    let id = world.say(0).unwrap();
    world.stop(0);
    world.stop(4);
    world.live(90, MINUTE);
    assert_eq!(world.in_office(), [1]);
    let invitation = world.invite(1).unwrap();
    let newcomer = world.join(&invitation, 0);
    world.live(5, MINUTE);
    for who in [1, 2, 3, newcomer] {
        world.say(who).unwrap();
    }
    world.start(4);
    world.start(0);
    world.say(0).unwrap();
    world.say(4).unwrap();
    world.live(30, MINUTE);
    assert_eq!(world.in_office(), [1]);
    assert!(world.has_event(0, "StoodDown") && !world.has_event(0, "BranchLost"));
    assert!(!world.has_event(4, "BranchLost"));
    world.resend();
    world.live(10, MINUTE);
    world.assert_agreement(2);
    let _ = id;
    // the owner takes the office back when its deputy is silent, or when it is none any more
    world.remove_deputy(1);
    world.live(10, MINUTE);
    assert_eq!(world.in_office(), [0]);
    world.assert_one_group(2);
    assert!(world.remove(0, 5));
    world.live(5, MINUTE);
    assert_eq!(world.standing(5), Some(Standing::Removed));
    world.assert_one_group(2);
}

impl World {
    fn hand_over(&mut self, by: usize, to: usize) -> bool {
        let (key, now) = (self.people[to].key, self.time());
        let group = self.people[by].group.as_mut();
        let handed = group.is_some_and(|group| group.hand_over(&key, now).is_ok());
        self.settle(by);
        handed
    }
}

#[test]
fn an_owner_that_is_there_hands_over_at_once_and_gets_the_office_back() {
    for is_restarted in [false, true] {
        let mut world = group_of(8);
        let invitation = world.invite(0).unwrap();
        let newcomer = world.join(&invitation, 0);
        world.exchange();
        for bad in [0, 5] {
            assert!(!world.hand_over(0, bad), "{bad}");
        }
        assert!(!world.hand_over(1, 2), "it is not in office");
        assert!(world.hand_over(0, 2));
        assert_eq!(world.in_office(), Vec::<usize>::new());
        if is_restarted {
            world.stop(0);
            world.start(0);
        }
        world.say(0).unwrap();
        world.say(4).unwrap();
        world.live(3, MINUTE);
        assert_eq!(world.in_office(), [2]);
        // one that was about to be let in is a member
        assert_eq!(world.standing(newcomer), Some(Standing::Member));
        let newcomer = world.invite(2).unwrap();
        let newcomer = world.join(&newcomer, 0);
        world.live(5, MINUTE);
        assert_eq!(world.standing(newcomer), Some(Standing::Member));
        // from one deputy to another, and to the owner
        for (by, to) in [(2, 1), (1, 0)] {
            assert!(world.hand_over(by, to));
            world.live(3, MINUTE);
            assert_eq!(world.in_office(), [to]);
            world.say(by).unwrap();
        }
        assert!(world.remove(0, 5));
        world.live(120, MINUTE);
        // words that were on their way when the newcomer came
        world.resend();
        world.live(5, MINUTE);
        world.assert_agreement(8);
        assert!(!(0..8).any(|who| world.has_event(who, "BranchLost")));
    }
}

#[test]
fn one_that_does_not_take_over_in_time_does_not_later() {
    let mut world = group_of(9);
    world.stop(1);
    assert!(world.hand_over(0, 1));
    world.live(30, MINUTE);
    assert_eq!(world.in_office(), Vec::<usize>::new());
    assert!(matches!(world.invite(0), Err(GroupError::NotTheOwner)));
    // the owner goes on after the time of silence
    world.live(40, MINUTE);
    assert_eq!(world.in_office(), [0]);
    // or when it names another one
    world.stop(2);
    assert!(world.hand_over(0, 2));
    world.remove_deputy(2);
    assert_eq!(world.in_office(), [0]);
    world.start(2);
    world.start(1);
    world.live(30, MINUTE);
    assert_eq!(world.in_office(), [0]);
    for who in 0..6 {
        world.say(who).unwrap();
    }
    world.live(5, MINUTE);
    world.assert_agreement(9);
    assert!(!(0..6).any(|who| world.has_event(who, "BranchLost")));
}

#[test]
fn two_that_were_apart_and_both_committed_converge_and_no_word_is_lost_without_a_word() {
    let mut world = group_of(3);
    for who in [1, 3, 5] {
        world.people[who].side = 1;
    }
    world.live(90, MINUTE);
    assert_eq!(world.in_office(), [0, 1]);
    assert!(world.remove(0, 5));
    let invitation = world.invite(1).unwrap();
    let newcomer = world.join(&invitation, 1);
    world.live(10, MINUTE);
    assert_eq!(world.standing(newcomer), Some(Standing::Member));
    for who in 0..5 {
        world.say(who).unwrap();
    }
    world.live(5, MINUTE);
    world.meet();
    // the owner's side wins, as it stands first
    assert_eq!(world.in_office(), [0]);
    for who in [1, 3] {
        assert!(world.has_event(who, "BranchLost"), "{who}");
        assert_eq!(world.group(who).outbox().count(), 1, "{who}");
    }
    assert!(world.has_event(newcomer, "AdmissionLost"));
    assert_eq!(world.standing(5), Some(Standing::Removed));
    world.resend();
    world.live(10, MINUTE);
    world.assert_agreement(3);
}

#[test]
fn a_deputy_that_takes_over_before_its_time_is_refused_by_those_that_hear_the_owner() {
    let mut world = group_of(4);
    world.live(3, MINUTE);
    let now = world.time();
    // it claims years of silence, and goes on from an older commit
    world.people[1].side = 1;
    world.group(1).pass_uptime(1_000_000 * HOUR, now);
    world.settle(1);
    assert!(world.group(1).is_in_office());
    let now = world.time();
    world.group(0).refresh(now).unwrap();
    world.settle(0);
    world.live(3, MINUTE);
    for who in 0..6 {
        world.say(who).unwrap();
    }
    world.live(3, MINUTE);
    world.meet();
    world.resend();
    world.live(5, MINUTE);
    assert_eq!(world.in_office(), [0]);
    for who in 2..6 {
        assert!(!world.has_event(who, "BranchLost"), "{who}");
    }
    world.assert_agreement(4);
}

#[test]
fn an_owner_that_is_present_stays_in_office_whatever_terms_a_deputy_begins() {
    let mut world = group_of(6);
    world.live(80, MINUTE);
    // it claims years of silence, and the owner has committed nothing meanwhile
    let now = world.time();
    world.people[1].side = 1;
    world.group(1).pass_uptime(1_000_000 * HOUR, now);
    world.settle(1);
    assert!(world.group(1).is_in_office());
    world.remove(1, 5);
    world.people[1].side = 0;
    world.live(5, MINUTE);
    assert_eq!(world.in_office(), [0]);
    assert!(!world.has_event(0, "StoodDown"));
}

#[test]
fn in_a_group_of_two_the_owner_stays_in_office_while_its_host_is_up() {
    let mut world = World::new(8, 2);
    world.appoint(1);
    world.live(80, MINUTE);
    // the deputy hides for its time, and takes over
    world.people[1].side = 1;
    world.live(80, MINUTE);
    assert_eq!(world.in_office(), [0, 1]);
    world.people[1].side = 0;
    world.live(5, MINUTE);
    assert_eq!(world.in_office(), [0]);
    assert!(!world.has_event(0, "StoodDown"));
    world.meet();
    assert_eq!(world.standing(1), Some(Standing::Member));
}

#[test]
fn in_a_group_of_two_an_owner_whose_host_was_off_follows_its_deputy() {
    let mut world = World::new(9, 2);
    world.appoint(1);
    world.live(80, MINUTE);
    world.lose_owner();
    world.start(0);
    world.live(5, MINUTE);
    assert_eq!(world.in_office(), [1]);
    assert!(world.has_event(0, "StoodDown"));
}

#[test]
fn a_term_far_above_all_others_does_not_count() {
    let mut world = group_of(7);
    let bad = world.people[1].key;
    let mut body = vec![1];
    body.extend(0xffff_fffe_u32.to_be_bytes());
    body.push(0);
    body.extend(1_u32.to_be_bytes());
    body.extend(1_u64.to_be_bytes());
    let kind = kind::TERM;
    let log = world.logs.entry((bad, true)).or_default();
    let entry = NewEntry::Body { kind, body };
    log.push(Stored { time: START, entry });
    world.people[1].has.insert((bad, true), 1);
    world.exchange();
    world.stop(1);
    world.people[1].is_dead = true;
    world.live(5, MINUTE);
    assert_eq!(world.in_office(), [0]);
    // the office can still be handed over, taken over and taken back
    assert!(world.hand_over(0, 2));
    world.live(3, MINUTE);
    assert_eq!(world.in_office(), [2]);
    world.stop(2);
    world.live(80, MINUTE);
    assert_eq!(world.in_office(), [0]);
    assert!(world.remove(0, 5));
    world.live(5, MINUTE);
    assert_eq!(world.standing(5), Some(Standing::Removed));
    for who in [3, 4] {
        assert_eq!(world.standing(who), Some(Standing::Member), "{who}");
        assert!(!world.has_event(who, "BranchLost"), "{who}");
    }
}

#[test]
fn members_follow_a_deputy_that_begins_a_term_against_another_one() {
    let mut world = group_of(5);
    world.stop(0);
    world.people[0].is_dead = true;
    for who in [2, 4, 5] {
        world.people[who].side = 1;
    }
    world.live(200, MINUTE);
    assert_eq!(world.in_office(), [1, 2]);
    for who in 0..6 {
        world.people[who].side = 0;
    }
    world.live(30, MINUTE);
    // the first in the list begins a higher term from its own log
    assert_eq!(world.in_office(), [1]);
    for who in 1..6 {
        world.say(who).unwrap();
    }
    world.live(5, MINUTE);
    for who in [2, 4, 5] {
        assert!(world.has_event(who, "BranchLost"), "{who}");
    }
    assert!(!world.has_event(3, "BranchLost"));
    // now, and not after a day: what was said since reads at once
    world.assert_agreement(5);
    let shown = world.people[3].shown.len();
    assert_eq!(shown, 4);
}

/// Sides change, hosts sleep, the owner or a deputy may be lost, members come and go.
fn bad_weeks(seed: u64) -> World {
    let mut world = group_of(100 + seed);
    let dead = match seed % 3 {
        0 => Some(0),
        1 => Some(1),
        _ => None,
    };
    for step in 0..70 {
        let who = world.random.index(world.people.len());
        match world.random.below(10) {
            0 => {
                let sides = 1 + world.random.below(2);
                for who in 0..world.people.len() {
                    world.people[who].side = world.random.below(sides + 1);
                }
            }
            1 if world.people[who].is_online => world.stop(who),
            2 | 3 if !world.people[who].is_online && !world.people[who].is_dead => world.start(who),
            4..=6 if world.people[who].is_online => {
                world.say(who);
            }
            7 => {
                let in_office = world.in_office();
                if !in_office.is_empty() && world.people.len() < 12 {
                    let by = in_office[world.random.index(in_office.len())];
                    let side = world.people[by].side;
                    if let Ok(invitation) = world.invite(by) {
                        world.join(&invitation, side);
                    }
                }
            }
            8 if step > 30 && world.random.chance(0.3) => {
                if let Some(by) = world.in_office().pop() {
                    world.remove(by, 5);
                }
            }
            _ => {}
        }
        if step == 25
            && let Some(dead) = dead
        {
            world.stop(dead);
            world.people[dead].is_dead = true;
        }
        let minutes = 1 + world.random.below(20);
        world.live(3, minutes * MINUTE);
    }
    world.meet();
    for _ in 0..3 {
        world.resend();
        world.meet();
    }
    world.check();
    world.check_words();
    world
}

#[test]
fn bad_weeks_end_with_one_in_office_and_all_members_agreeing() {
    let seeds = option_env!("SEEDS").and_then(|seeds| seeds.parse().ok());
    // those from 11 on ended apart once, or lost a word
    let seeds: Vec<u64> = match seeds {
        Some(seeds) => (0..seeds).collect(),
        None => (0..4).chain([11, 13, 17, 22, 23, 42, 46, 87, 97]).collect(),
    };
    let (mut forks, mut terms) = (0, 0);
    for seed in &seeds {
        let world = bad_weeks(*seed);
        world.assert_faultless(*seed);
        forks += (0..6)
            .filter(|who| world.has_event(*who, "BranchLost"))
            .count();
        terms += (0..6)
            .filter(|who| world.has_event(*who, "TookOffice"))
            .count();
    }
    assert!(forks > 0 && terms > seeds.len() / 2, "{forks} {terms}");
}

// the network of a group's own

/// A group of this seed with two deputies, all of whose hosts know what its owner states.
fn network_of(seed: u64) -> World {
    let mut world = group_of(seed);
    world.state_networks();
    world
}

impl World {
    /// Has all that run make their statements on the network.
    fn state_networks(&mut self) {
        for who in self.online() {
            let now = self.time();
            self.group(who).state_network(now);
            self.settle(who);
        }
        self.live(3, MINUTE);
    }

    fn office(&mut self, who: usize) -> Option<NetworkOffice> {
        self.group(who).network_office()
    }

    fn expelled(&mut self, who: usize) -> Expelled {
        self.group(who).expelled_from_network()
    }
}

/// The network of all groups here, whose owner has one key.
fn network() -> PeerId {
    let seed = network_seed(&SecretKey::from_seed(&[7; 32]));
    CodeKeys::of_random(&seed).network().peer_id()
}

/// A member that this deputy lets into the network.
fn let_in(office: &NetworkOffice, node: u8, now: UnixTime) -> Member {
    let grant = Grant {
        core: true,
        ..Grant::new("", (now.as_secs(), now.as_secs() + 86_400))
    };
    let (certificate, line) = (&office.certificate, SecretKey::from_seed(&[99; 32]));
    let token = Token::invite_with(certificate, &office.key, line, grant.clone(), Vec::new());
    let named = Grant {
        name: "deputy".to_owned(),
        ..grant
    };
    let own = Chain::of_issuer(certificate.clone(), &office.key, named).unwrap();
    assert!(own.verify(&network(), now).unwrap().is_issuer());
    let node = SecretKey::from_seed(&[node; 32]).peer_id();
    let chain = token.unwrap().join(node, "node", now).unwrap();
    let chain = chain.renew_admitted("node", certificate, &office.key, now, 86_400 * 3_650);
    chain.unwrap().verify(&network(), now).unwrap()
}

#[test]
fn a_deputy_in_office_lets_others_into_the_groups_network_and_expels_them() {
    let mut world = network_of(8);
    for who in [0, 1, 2, 3] {
        assert!(world.office(who).is_none(), "nobody but a deputy in office");
    }
    let now = world.time();
    let line = world.group(0).open_invitations(now).remove(0);
    let line = line.secret.invitation().peer_id();
    world.lose_owner();
    let office = world.office(1).unwrap();
    let member = let_in(&office, 50, world.time());
    assert_eq!(member.keys.issuers, [office.key.peer_id()]);
    // its text has its own key, and the line of the lost owner leads nobody back
    world.invite(1).unwrap();
    let author = world.people[1].key;
    assert_eq!(world.group(1).text_owner().unwrap().peer_id(), author);
    let now = world.time();
    let own = world.group(1).open_invitations(now);
    assert_eq!((own.len(), world.expelled(1)), (1, Expelled::default()));
    assert!(world.remove(1, 3));
    world.live(5, MINUTE);
    let gone = world.people[3].key;
    let expected = Expelled {
        now: vec![line, gone],
        ended: Vec::new(),
    };
    assert_eq!(world.expelled(1), expected);
    // it is the same one after a restart
    world.stop(1);
    world.start(1);
    let again = world.office(1).unwrap();
    assert_eq!(again.key.peer_id(), office.key.peer_id());
    assert_eq!(world.expelled(1), expected);
    // it states nothing before it has the last word of others
    world.live(2, MINUTE);
    world.state_networks();
    // the owner is back, and expels by the deputy's line as well
    world.meet();
    let mine = own[0].secret.invitation().peer_id();
    world.remove_deputy(1);
    assert!(world.remove(0, 4));
    world.live(10, MINUTE);
    assert!(world.office(1).is_none());
    let expelled = world.expelled(0);
    assert!(expelled.now.contains(&mine) && expelled.now.contains(&line));
    assert!(expelled.now.contains(&world.people[4].key));
    world.assert_faultless(8);
}

#[test]
fn the_right_of_a_deputy_ends_in_the_network_and_a_new_one_has_another_key() {
    let mut world = network_of(9);
    world.stop(0);
    world.live(90, MINUTE);
    let first = world.office(1).unwrap().key.peer_id();
    world.meet();
    let key = world.people[1].key;
    world.remove_deputy(1);
    world.state_networks();
    assert_eq!(world.expelled(0).ended, [first]);
    // a member again in the list: the former key stays out
    let now = world.time();
    world.group(0).add_deputy(&key, AFTER, now).unwrap();
    world.settle(0);
    world.state_networks();
    assert_eq!(world.expelled(0).ended, [first]);
    world.lose_owner();
    let second = world.office(1).unwrap().key.peer_id();
    assert_ne!(second, first);
    // a removed member loses all at once
    world.meet();
    if world.in_office() != [0] {
        world.remove_deputy(1);
        world.live(5, MINUTE);
    }
    assert!(world.remove(0, 1));
    world.live(5, MINUTE);
    world.state_networks();
    let Expelled { now, ended } = world.expelled(0);
    assert!(now.contains(&first) && now.contains(&second) && now.contains(&key));
    assert!(!ended.contains(&first) && !ended.contains(&second));
    world.assert_faultless(9);
}

#[test]
fn nobody_but_the_owner_certifies_a_deputy() {
    let mut world = network_of(10);
    world.stop(0);
    world.live(90, MINUTE);
    let office = world.office(1).unwrap();
    // a deputy that lies says in its own office that another one is certified
    let own = SecretKey::from_seed(&[42; 32]);
    let grant = office.certificate.grant().clone();
    let kind = librecast::cert::Kind::Issuer;
    let key = world.people[2].key;
    let forged = librecast::cert::Certificate::sign(kind, network(), key, grant, &own).unwrap();
    let mut body = vec![1];
    body.extend_from_slice(key.public_key());
    body.extend_from_slice(&9_u32.to_be_bytes());
    body.extend_from_slice(forged.as_bytes());
    let (kind, office) = (kind::NETWORK_DEPUTY, (world.people[1].key, true));
    let number = world.logs[&office].len() as u32 + 1;
    let before = world.group(2).state().unwrap();
    let now = world.time();
    let entry = Entry {
        author: office.0,
        number,
        time: now.as_millis(),
        kind,
        body: &body,
    };
    assert_eq!(world.group(2).handle_office_entry(&entry, now), Taken::Done);
    let holds = |state: &[u8]| {
        let mut windows = state.windows(64);
        windows.any(|part| part == &forged.as_bytes()[..64])
    };
    let after = world.group(2).state().unwrap();
    assert!(!holds(&after) && after.len() <= before.len() + 64);
}

#[test]
fn a_text_for_a_device_leads_into_the_network_until_it_is_used() {
    let mut world = network_of(11);
    let secret = |text: &DeviceInvitation| {
        NetworkSecret(text.invitation.secret.clone())
            .invitation()
            .peer_id()
    };
    let open = |world: &mut World, who: usize| -> Vec<PeerId> {
        let now = world.time();
        let open = world.group(who).open_device_texts(now).into_iter();
        open.map(|open| open.secret.invitation().peer_id())
            .collect()
    };
    let text = |world: &mut World, who: usize| {
        let (now, expires) = (world.time(), world.now + HOUR);
        let group = world.group(who);
        let mut text = group.invite_device(expires, now).unwrap();
        group.lead_in(&mut text, now).unwrap();
        let text: DeviceInvitation = text.encode().parse().unwrap();
        assert!(text.invitation.outside);
        world.settle(who);
        world.live(3, MINUTE);
        text
    };
    let one = text(&mut world, 3);
    assert_eq!(open(&mut world, 0), [secret(&one)]);
    assert!(open(&mut world, 3).is_empty() && open(&mut world, 4).is_empty());
    // a person with many has two places, and others have theirs
    let many: Vec<_> = (0..5).map(|_| text(&mut world, 4)).collect();
    let places = open(&mut world, 0);
    assert_eq!(places.len(), 3);
    assert!(places.contains(&secret(&one)) && places.contains(&secret(&many[4])));
    let laptop = world.join_device(one.clone());
    assert!(!open(&mut world, 0).contains(&secret(&one)), "it was used");
    // the text by which a removed device came leads nobody back
    assert!(!world.expelled(0).now.contains(&secret(&one)));
    assert!(world.remove(0, laptop));
    world.live(5, MINUTE);
    assert!(world.expelled(0).now.contains(&secret(&one)));
    // garbage, and ends in the far future, are not texts
    for body in [vec![0; 9], vec![1; 200]] {
        let author = world.people[3].key;
        let number = world.group(0).wants(&author).unwrap();
        let now = world.time();
        let entry = Entry {
            author,
            number,
            time: now.as_millis(),
            kind: kind::DEVICE_TEXT,
            body: &body,
        };
        let taken = world.group(0).handle_entry(&entry, now);
        assert!(matches!(taken, Taken::Dropped(_)), "{taken:?}");
    }
}
