//! The place of each address: on this LAN, behind another gateway, or nowhere.
//!
//! ```text
//!           a host asks             no reply in 50 ms: ASK       no HERE in 1 s
//! Unknown ─────────────> Seeking ───────────────────────> Seeking ──────> Silent, 10 s
//!    ^                     │ reply here        HERE from a LAN │
//!    │ 15 min              v                                   v
//!    ├─────────────────> Local <──────a host here says it──> Remote ── asked again: answered at once
//!    │                     │ HERE from elsewhere, or doubt     ^  │ GONE, 300 s, LAN unreachable
//!    │                     v                                   │  └──> Unknown
//!    └──no reply──── Local, checked for 500 ms ──no reply──────┘
//! ```
//! For ten seconds after another LAN appears, or this gateway begins to serve, no address becomes
//! silent. Nothing is sent unless a host speaks: no table is synchronised.
//!
//! - The own wire comes first: an address of [`Homes`] becomes remote only with its host.
//! - A question that was not asked has no answer: [`Budget`] pays for whole searches and checks. A
//!   claim without room for its check is dropped.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv6Addr;

use librecast::bucket::{Bucket, Rate};
use librecast::ethernet::MacAddress;
use librecast::id::{LanId, OriginId};
use librecast::time::{Duration, Instant};

use crate::drops::DropReason;
use crate::table::Table;

use super::budget::{Budget, Purpose};
use super::homes::Homes;
use super::message::Kind;
use super::neighbor::Asker;

/// Time for hosts here to answer before other LANs are asked. Chosen: a WLAN takes some 10 ms.
const LOCAL_WAIT: Duration = Duration::from_millis(50);
/// Time after which the other LANs, or the hosts here, are asked once more. Chosen.
const AGAIN: Duration = Duration::from_millis(300);
/// Time for an answer of another LAN. Chosen: hosts ask again after a second (RFC 1122 §2.3.2.1).
const ASK_TIME: Duration = Duration::from_secs(1);
/// Time for which an address without an answer is not asked for. Chosen.
const SILENT_TIME: Duration = Duration::from_secs(10);
/// Time after another LAN appears or a gateway begins to serve, in which no answer means nothing:
/// trees grow. Chosen: as long as an address stays silent.
const FORMING_TIME: Duration = SILENT_TIME;
/// Time between the questions of a check: two to the known Ethernet address, one to all. Chosen.
const CHECK_STEPS: [Duration; 3] = [
    Duration::from_millis(150),
    Duration::from_millis(150),
    Duration::from_millis(200),
];
/// Time after a host's last word in which it counts as present. Chosen.
const FRESH: Duration = Duration::from_secs(5);
/// Silence after which packets to a host make this gateway check it, and use after which hosts here
/// are asked once more for an address elsewhere. Chosen: as long as a kernel believes an entry
/// (RFC 4861 §10, REACHABLE_TIME).
const STALE: Duration = Duration::from_secs(30);
/// Pauses after which a new host here is stated to all once more, as messages and frames are lost.
/// Chosen: kernels ignore a second change of an entry within a second.
const TELL_AGAIN: [Duration; 2] = [Duration::from_millis(1_200), Duration::from_secs(4)];
/// Time after which a host that speaks is stated to all once more: doubles are found again. Chosen:
/// below [`CONFLICT_MEMORY`].
const RETELL: Duration = Duration::from_secs(240);
/// Silence after which a host here is forgotten. Chosen.
const LOCAL_MEMORY: Duration = Duration::from_secs(900);
/// Time without packets after which a host elsewhere is forgotten. Chosen.
const REMOTE_MEMORY: Duration = Duration::from_secs(300);
/// Time for which a conflict is shown after its last proof. Chosen.
const CONFLICT_MEMORY: Duration = Duration::from_secs(300);
/// Time after a proof in which the same claim needs no other. Chosen.
const CONFLICT_FRESH: Duration = Duration::from_secs(60);
/// Idle time after which an entry gives way in a full table. Chosen: a running pair stays.
const IDLE: Duration = Duration::from_secs(30);
/// Least time between two notes of an entry's use. Chosen: most packets change nothing.
const TOUCH: Duration = Duration::from_secs(1);

/// Most addresses of each class: asked for or silent, here, elsewhere. Chosen.
const MAX_ENTRIES: [usize; 3] = [2_048, 4_096, 4_096];
/// Most hosts that are checked after a LAN was split, the last heard first. Chosen: two /25.
const MAX_REVIEWED: usize = 256;
/// Time after a split in which the other part's hosts are announced here. Chosen: both gateways
/// notice it within three seconds.
const SPLIT_TIME: Duration = Duration::from_secs(10);
/// Time after which the other part is told of the hosts here: they have been checked.
const TELL_AFTER: Duration = Duration::from_millis(600);
/// Most conflicts that are shown. Chosen.
const MAX_CONFLICTS: usize = 64;
/// Most hosts, and most LANs, that wait for one address. Chosen.
const MAX_ASKERS: usize = 8;

/// Statements of this LAN to all others, HERE and GONE: 20 a second, 300 at once. Chosen: a /24.
const TELL_RATE: Rate = Rate::per_second(20, 300);

/// The place of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// This LAN, with this Ethernet address.
    Here(MacAddress),
    /// Another LAN.
    Lan(LanId),
}

/// The way of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// To this place.
    To(Place),
    /// It waits for [`Action::Settled`].
    Wait,
    /// Nobody has the address.
    Nobody,
}

/// An action for the owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Ask for an address on this LAN: the host with this Ethernet address, or all.
    Probe(Ipv6Addr, Option<MacAddress>),
    /// Answer a host with the virtual Ethernet address.
    Answer(Ipv6Addr, Asker),
    /// Tell all hosts that an address has the virtual Ethernet address now, or this host's.
    Announce(Ipv6Addr, Option<MacAddress>),
    /// Send a message to one LAN, or to all.
    Send(Kind, Ipv6Addr, MacAddress, Option<LanId>),
    /// Packets for an address wait no longer.
    Settled(Ipv6Addr, Option<Place>),
    /// Count a drop.
    Drop(DropReason),
}

/// A claim of another LAN, with the host's Ethernet address there.
type Claim = (LanId, MacAddress);

/// An address for which somebody waits.
#[derive(Debug, Default)]
struct Seeking {
    /// The other LANs have been asked.
    asked: bool,
    /// They, or the hosts here, have been asked twice.
    again: bool,
    /// A host or a packet of this LAN waits for it.
    for_here: bool,
    /// It lies in the subnet of another LAN: nobody here is asked.
    is_far: bool,
    /// It was here: hosts that know its Ethernet address learn that it is elsewhere now.
    was_here: bool,
    /// It was elsewhere, and is one of this LAN's routers.
    was_elsewhere: bool,
    hosts: Vec<Asker>,
    lans: Vec<LanId>,
    /// A claim that came before hosts here had their time.
    claim: Option<Claim>,
}

/// A check of a host here.
#[derive(Debug, Default)]
struct Check {
    /// Questions sent, up to the number of [`CHECK_STEPS`].
    step: usize,
    /// The LAN that claims the address.
    claim: Option<Claim>,
    hosts: Vec<Asker>,
    lans: Vec<LanId>,
    /// The LAN whose packets made the check necessary.
    sender: Option<LanId>,
    /// The LAN was split: a host that does not answer is perhaps in the other part.
    is_split: bool,
}

#[derive(Debug)]
enum State {
    Seeking(Seeking),
    Silent,
    Local(Local),
    Remote {
        lan: LanId,
        /// Its Ethernet address there, by which a host that moves here is known.
        mac: MacAddress,
        /// A later claim: used if the first ends.
        rival: Option<Claim>,
        /// When hosts here were last asked for it.
        asked: Instant,
    },
}

#[derive(Debug)]
struct Local {
    mac: MacAddress,
    heard: Instant,
    check: Option<Check>,
    /// It was elsewhere: hosts here may not know its Ethernet address yet.
    is_back: bool,
    /// Statements to all, up to the number of [`TELL_AGAIN`] and one, and the time of the last.
    told: usize,
    told_at: Instant,
}

impl State {
    /// Its index in [`MAX_ENTRIES`].
    fn class(&self) -> usize {
        match self {
            Self::Seeking(_) | Self::Silent => 0,
            Self::Local(_) => 1,
            Self::Remote { .. } => 2,
        }
    }
}

impl Local {
    /// The time until it is stated to all once more, or may be forgotten.
    fn pause(&self) -> Duration {
        let next = self
            .told
            .checked_sub(1)
            .and_then(|told| TELL_AGAIN.get(told));
        next.copied().unwrap_or(LOCAL_MEMORY)
    }
}

#[derive(Debug)]
struct Entry {
    state: State,
    /// Last use, within [`TOUCH`].
    used: Instant,
    wake: Instant,
}

/// A split of this LAN.
#[derive(Debug)]
struct Split {
    at: Instant,
    /// Hosts of which the other part has not been told.
    untold: Vec<Ipv6Addr>,
}

/// All addresses of one LAN of a segment.
#[derive(Debug)]
pub struct Directory {
    entries: Table<Ipv6Addr, Entry>,
    /// The entries of each class by their last use.
    ages: [BTreeSet<(Instant, Ipv6Addr)>; 3],
    wakes: BTreeSet<(Instant, Ipv6Addr)>,
    /// Addresses of the gateway itself: no host has them, and nobody takes them.
    own: Vec<Ipv6Addr>,
    /// Those of them whose programs take part, and their Ethernet address.
    programs: Option<(MacAddress, Vec<Ipv6Addr>)>,
    /// The other LANs, each with the gateway that serves it.
    lans: BTreeMap<LanId, OriginId>,
    /// The end of [`FORMING_TIME`].
    formed_at: Instant,
    split: Option<Split>,
    /// Doubled addresses, each with the other LAN and its last proof.
    conflicts: BTreeMap<Ipv6Addr, (LanId, Instant)>,
    homes: Homes,
    budget: Budget,
    tells: Bucket,
    actions: VecDeque<Action>,
}

impl Directory {
    /// Knows nobody.
    pub fn new(seed: u64, now: Instant) -> Self {
        Self {
            entries: Table::new(seed),
            ages: Default::default(),
            wakes: BTreeSet::new(),
            own: Vec::new(),
            programs: None,
            lans: BTreeMap::new(),
            formed_at: now,
            split: None,
            conflicts: BTreeMap::new(),
            homes: Homes::new(seed),
            budget: Budget::new(now),
            tells: Bucket::full(now),
            actions: VecDeque::new(),
        }
    }

    /// The next action.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Sets the addresses of the gateway itself; and those whose programs take part, with their
    /// Ethernet address.
    pub fn set_own(&mut self, own: Vec<Ipv6Addr>, programs: Option<(MacAddress, Vec<Ipv6Addr>)>) {
        for address in &own {
            self.remove(*address);
        }
        (self.own, self.programs) = (own, programs);
    }

    /// The addresses of this LAN.
    pub fn homes(&self) -> &Homes {
        &self.homes
    }

    /// Sets the LAN's default routers, by the gateway's own routing table.
    pub fn set_routers(&mut self, routers: Vec<Ipv6Addr>, now: Instant) {
        self.homes.set_routers(routers.clone());
        for router in routers {
            self.recall(router, now);
        }
    }

    /// Notes a router that a message on the wire has shown.
    pub fn note_router(&mut self, router: Ipv6Addr, now: Instant) {
        self.homes.note_router(router);
        self.recall(router, now);
    }

    /// Looks here for a router of this LAN that was taken for a host elsewhere.
    fn recall(&mut self, router: Ipv6Addr, now: Instant) {
        if matches!(self.state(router), Some(State::Remote { .. })) && self.homes.is_router(router)
        {
            let seeking = Seeking {
                for_here: true,
                asked: true,
                was_elsewhere: true,
                ..Seeking::default()
            };
            self.put(router, State::Seeking(seeking), now + AGAIN, now);
            self.probe(router, None);
        }
    }

    /// Gives an address away: a host elsewhere may have it, until one here states it.
    pub fn release(&mut self, address: Ipv6Addr) {
        self.homes.release(address);
        self.conflicts.remove(&address);
        if matches!(self.state(address), Some(State::Local(_) | State::Silent)) {
            self.remove(address);
        }
    }

    /// The Ethernet address of this host, if its programs take part under this address.
    fn of_programs(&self, address: Ipv6Addr) -> Option<MacAddress> {
        let (mac, addresses) = self.programs.as_ref()?;
        addresses.contains(&address).then_some(*mac)
    }

    /// Whether it is one of the other LANs.
    pub fn knows_lan(&self, lan: LanId) -> bool {
        self.lans.contains_key(&lan)
    }

    /// Sets the other LANs, each with its gateway: hosts of one that is gone are looked for again,
    /// and so are silent addresses after one has come.
    pub fn set_lans(&mut self, lans: BTreeMap<LanId, OriginId>, now: Instant) {
        if self.lans == lans {
            return;
        }
        let has_new = lans
            .iter()
            .any(|(lan, origin)| self.lans.get(lan) != Some(origin));
        self.lans = lans;
        if has_new {
            self.form(now);
        }
        self.budget.set_lans(&self.lans.keys().copied().collect());
        self.conflicts
            .retain(|_, (lan, _)| self.lans.contains_key(lan));
        for address in self.entries.sorted_keys() {
            if let Some(State::Remote { lan, .. }) = self.state(address)
                && !self.lans.contains_key(lan)
            {
                self.lose(address, now);
            }
        }
    }

    /// Another LAN has appeared, or this gateway begins to serve: asks again for silent addresses.
    pub fn form(&mut self, now: Instant) {
        self.formed_at = now + FORMING_TIME;
        for (_, address) in self.ages[0].clone() {
            if matches!(self.state(address), Some(State::Silent)) {
                self.remove(address);
            }
        }
    }

    /// Keeps the hosts here alone: another gateway serves the LAN.
    pub fn rest(&mut self) {
        self.split = None;
        for address in self.entries.sorted_keys() {
            match self.entries.get_mut(&address).map(|entry| &mut entry.state) {
                Some(State::Local(local)) => {
                    (local.check, local.told) = (None, TELL_AGAIN.len() + 1);
                }
                _ => drop(self.remove(address)),
            }
        }
        self.actions.clear();
    }

    /// The LAN was split, and another gateway has the other part: looks where the hosts are.
    pub fn review_hosts(&mut self, now: Instant) {
        let hosts = self.ages[1].iter().rev().take(MAX_REVIEWED);
        let hosts: Vec<_> = hosts.map(|(_, address)| *address).collect();
        self.split = Some(Split {
            at: now,
            untold: hosts.clone(),
        });
        for address in hosts {
            let Some(State::Local(local)) = self.state_mut(address) else {
                continue;
            };
            match &mut local.check {
                Some(check) => check.is_split = true,
                None => {
                    let check = Check {
                        is_split: true,
                        ..Check::default()
                    };
                    self.check(address, check, now);
                }
            }
        }
    }

    /// Tells the other part of a split LAN which hosts are here: hosts there may believe them on
    /// their own wire.
    fn tell_other_part(&mut self, now: Instant) {
        let Some(split) = self.split.as_mut() else {
            return;
        };
        let at = split.at;
        if now < at + TELL_AFTER {
            return;
        }
        for address in std::mem::take(&mut split.untold) {
            if let Some(State::Local(local)) = self.state(address)
                && local.heard >= at
            {
                let mac = local.mac;
                self.tell_all(Kind::Here, address, mac, now);
            }
        }
        self.split.take_if(|split| now >= split.at + SPLIT_TIME);
    }

    fn state(&self, address: Ipv6Addr) -> Option<&State> {
        self.entries.get(&address).map(|entry| &entry.state)
    }

    fn state_mut(&mut self, address: Ipv6Addr) -> Option<&mut State> {
        self.entries.get_mut(&address).map(|entry| &mut entry.state)
    }

    fn remove(&mut self, address: Ipv6Addr) -> Option<State> {
        let entry = self.entries.remove(&address)?;
        self.ages[entry.state.class()].remove(&(entry.used, address));
        self.wakes.remove(&(entry.wake, address));
        Some(entry.state)
    }

    /// Replaces the state of an address; `false`: its table is full of addresses in use.
    fn put(&mut self, address: Ipv6Addr, state: State, wake: Instant, now: Instant) -> bool {
        self.remove(address);
        let class = state.class();
        if self.ages[class].len() >= MAX_ENTRIES[class] && !self.evict(class, now) {
            self.actions
                .push_back(Action::Drop(DropReason::SegmentFull));
            return false;
        }
        self.ages[class].insert((now, address));
        self.wakes.insert((wake, address));
        let entry = Entry {
            state,
            used: now,
            wake,
        };
        self.entries.insert(address, entry);
        true
    }

    /// Makes room in a table: the address unused for the longest gives way, if it is idle.
    fn evict(&mut self, class: usize, now: Instant) -> bool {
        let Some((used, address)) = self.ages[class].first().copied() else {
            return false;
        };
        let is_silent = matches!(self.state(address), Some(State::Silent));
        let is_idle = is_silent || now >= used + IDLE;
        if is_idle {
            self.remove(address);
        }
        is_idle
    }

    fn touch(&mut self, address: Ipv6Addr, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&address)
            && now >= entry.used + TOUCH
        {
            let ages = &mut self.ages[entry.state.class()];
            ages.remove(&(entry.used, address));
            ages.insert((now, address));
            entry.used = now;
        }
    }

    fn set_wake(&mut self, address: Ipv6Addr, wake: Instant) {
        if let Some(entry) = self.entries.get_mut(&address) {
            self.wakes.remove(&(entry.wake, address));
            self.wakes.insert((wake, address));
            entry.wake = wake;
        }
    }

    fn act(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    /// States an address to all LANs, if there are others, and within the rate.
    fn tell_all(&mut self, kind: Kind, address: Ipv6Addr, mac: MacAddress, now: Instant) {
        if self.lans.is_empty() {
            return;
        }
        let is_admitted = self.tells.take(TELL_RATE, 1, now);
        self.act(match is_admitted {
            true => Action::Send(kind, address, mac, None),
            false => Action::Drop(DropReason::SegmentStorm),
        });
    }

    /// Asks all LANs for an address; its search has paid.
    fn ask_all(&mut self, address: Ipv6Addr) {
        if !self.lans.is_empty() {
            self.act(Action::Send(
                Kind::Ask,
                address,
                MacAddress::default(),
                None,
            ));
        }
    }

    /// Asks the hosts here; the search or check has paid.
    fn probe(&mut self, address: Ipv6Addr, to: Option<MacAddress>) {
        self.act(Action::Probe(address, to));
    }

    /// Counts a question for which there is no room, and returns whether there is.
    fn admitted(&mut self, is_admitted: bool) -> bool {
        if !is_admitted {
            self.act(Action::Drop(DropReason::SegmentStorm));
        }
        is_admitted
    }

    fn admit_host(&mut self, mac: MacAddress, now: Instant) -> bool {
        let is_admitted = self.budget.host(mac, now);
        self.admitted(is_admitted)
    }

    /// Whether another LAN may make this gateway ask so often.
    fn admit_lan(&mut self, lan: LanId, purpose: Purpose, questions: usize, now: Instant) -> bool {
        let is_admitted =
            self.lans.contains_key(&lan) && self.budget.lan(lan, purpose, questions as u64, now);
        self.admitted(is_admitted)
    }
}

/// Hosts of this LAN.
impl Directory {
    /// A host here states its address.
    pub fn hear(&mut self, host: Asker, now: Instant) {
        let Asker { mac, address } = host;
        if address.is_unspecified() || self.own.contains(&address) {
            return;
        }
        self.homes.note(address, mac, now);
        match self.state_mut(address) {
            Some(State::Local(local)) => {
                (local.mac, local.heard) = (mac, now);
                let passed = local.check.take();
                let is_due = now >= local.told_at + RETELL;
                let pause = local.pause();
                self.touch(address, now);
                if let Some(check) = passed {
                    self.set_wake(address, now + pause);
                    self.pass(address, mac, check, now);
                }
                if is_due {
                    self.state_here(address, now);
                }
            }
            Some(State::Seeking(seeking)) => {
                let lans = std::mem::take(&mut seeking.lans);
                let was_elsewhere = seeking.was_elsewhere;
                self.find_here(host, was_elsewhere, now);
                for lan in lans {
                    self.act(Action::Send(Kind::Here, address, mac, Some(lan)));
                }
                self.act(Action::Settled(address, Some(Place::Here(mac))));
            }
            Some(State::Remote { .. }) => self.find_here(host, true, now),
            Some(State::Silent) | None => self.find_here(host, false, now),
        }
    }

    /// A host is here that was not. `is_back`: hosts here may believe it elsewhere.
    fn find_here(&mut self, host: Asker, is_back: bool, now: Instant) {
        let Asker { mac, address } = host;
        let local = Local {
            mac,
            heard: now,
            check: None,
            is_back,
            told: 0,
            told_at: now,
        };
        self.put(address, State::Local(local), now + LOCAL_MEMORY, now);
        // one that states many addresses does so within its share
        if self.admit_host(mac, now) {
            self.state_here(address, now);
        }
    }

    /// States a host here to all LANs, one of which may have its address as well; and, if it was
    /// elsewhere, to all hosts.
    fn state_here(&mut self, address: Ipv6Addr, now: Instant) {
        let Some(State::Local(local)) = self.state_mut(address) else {
            return;
        };
        let (mac, is_back) = (local.mac, local.is_back);
        local.told = TELL_AGAIN.len().min(local.told) + 1;
        local.is_back &= local.told <= TELL_AGAIN.len();
        local.told_at = now;
        let (pause, is_checked) = (local.pause(), local.check.is_some());
        if !is_checked {
            self.set_wake(address, now + pause);
        }
        if is_back {
            self.act(Action::Announce(address, Some(mac)));
        }
        self.tell_all(Kind::Here, address, mac, now);
    }

    /// A host here has answered its check.
    fn pass(&mut self, address: Ipv6Addr, mac: MacAddress, check: Check, now: Instant) {
        let mut lans = check.lans;
        if let Some((lan, _)) = check.claim {
            self.note_conflict(address, lan, now);
            if !lans.contains(&lan) {
                lans.push(lan);
            }
        }
        for lan in lans {
            self.act(Action::Send(Kind::Here, address, mac, Some(lan)));
        }
    }

    /// A host here asks for an address.
    pub fn ask(&mut self, address: Ipv6Addr, asker: Asker, now: Instant) {
        if self.own.contains(&address) {
            return;
        }
        match self.state_mut(address) {
            // the host itself has moved here, and looks whether its address is free: a statement of
            // the address would tell it that it is not (RFC 5227 §2.1.1)
            Some(State::Remote { mac, .. }) if *mac == asker.mac => {
                let mac = asker.mac;
                self.homes.note(address, mac, now);
                self.find_here(Asker { mac, address }, false, now);
            }
            Some(State::Remote { .. }) => {
                self.use_remote(address, asker.mac, now);
                self.act(Action::Answer(address, asker));
            }
            Some(State::Silent) => {}
            Some(State::Local(local)) => {
                let is_fresh = now < local.heard + FRESH || local.mac == asker.mac;
                if let Some(check) = &mut local.check {
                    add(&mut check.hosts, asker);
                } else if !is_fresh && self.admit_host(asker.mac, now) {
                    let check = Check {
                        hosts: vec![asker],
                        ..Check::default()
                    };
                    self.check(address, check, now);
                }
            }
            Some(State::Seeking(_)) | None => {
                self.seek_for_here(address, (asker.mac, Some(asker)), false, now);
            }
        }
    }

    /// The way of a packet of the host here with this Ethernet address. `is_far`: it is for another
    /// subnet.
    pub fn route(&mut self, to: Ipv6Addr, is_far: bool, by: MacAddress, now: Instant) -> Route {
        if let Some(mac) = self.of_programs(to) {
            return Route::To(Place::Here(mac));
        }
        if self.own.contains(&to) {
            return Route::Nobody;
        }
        match self.state(to) {
            Some(State::Remote { lan, .. }) => {
                let lan = *lan;
                self.use_remote(to, by, now);
                Route::To(Place::Lan(lan))
            }
            Some(State::Local(local)) => Route::To(Place::Here(local.mac)),
            Some(State::Silent) => Route::Nobody,
            Some(State::Seeking(_)) | None => match self.seek_for_here(to, (by, None), is_far, now)
            {
                true => Route::Wait,
                false => Route::Nobody,
            },
        }
    }

    /// Notes the use of an address elsewhere by a host here. From time to time the hosts here are
    /// asked: one of them may have it, and have come back without a word.
    fn use_remote(&mut self, address: Ipv6Addr, by: MacAddress, now: Instant) {
        self.touch(address, now);
        if let Some(State::Remote { asked, .. }) = self.state_mut(address)
            && now >= *asked + STALE
        {
            *asked = now;
            if self.admit_host(by, now) {
                self.probe(address, None);
            }
        }
    }

    /// Whether a packet of a host here may leave: one that is elsewhere has to prove itself first.
    pub fn admit_from_here(
        &mut self,
        source: Ipv6Addr,
        mac: MacAddress,
        now: Instant,
    ) -> Result<(), DropReason> {
        if self.of_programs(source) == Some(mac) {
            return Ok(());
        }
        if self.own.contains(&source) {
            return Err(DropReason::LanGatewayFrame);
        }
        if let Some(State::Remote { .. }) = self.state(source) {
            if self.admit_host(mac, now) {
                self.probe(source, None);
            }
            return Err(DropReason::SegmentConflict);
        }
        Ok(())
    }

    /// Whether a packet of another gateway of this LAN is of its own programs: it is from an
    /// address that this gateway has here. Its other packets come from the network.
    pub fn admit_from_gateway(
        &mut self,
        source: Ipv6Addr,
        mac: MacAddress,
        now: Instant,
    ) -> Result<(), DropReason> {
        match self.state(source) {
            Some(State::Local(local)) if local.mac == mac => return Ok(()),
            Some(_) => {}
            // a program that only sends to groups has asked for nobody
            None => {
                if self.admit_host(mac, now) {
                    self.probe(source, Some(mac));
                }
            }
        }
        Err(DropReason::LanGatewayFrame)
    }

    /// Looks for an address, for a host of this LAN or its packet; `false`: there is no room.
    /// `is_far`: it lies in another subnet, and nobody here is asked.
    fn seek_for_here(
        &mut self,
        address: Ipv6Addr,
        (by, asker): (MacAddress, Option<Asker>),
        is_far: bool,
        now: Instant,
    ) -> bool {
        let wait = if is_far { Duration::ZERO } else { LOCAL_WAIT };
        let is_paid = match self.state_mut(address) {
            Some(State::Seeking(seeking)) => seeking.for_here,
            _ => false,
        };
        if !is_paid && !self.admit_host(by, now) {
            return false;
        }
        if let Some(State::Seeking(seeking)) = self.state_mut(address) {
            if let Some(asker) = asker {
                add(&mut seeking.hosts, asker);
            }
            if !std::mem::replace(&mut seeking.for_here, true) {
                // so far only for another LAN
                self.set_wake(address, now + wait);
            }
            return true;
        }
        let seeking = Seeking {
            for_here: true,
            is_far,
            hosts: asker.into_iter().collect(),
            ..Seeking::default()
        };
        let is_kept = self.put(address, State::Seeking(seeking), now + wait, now);
        if is_kept && !is_far {
            self.probe(address, None);
        }
        is_kept
    }

    /// Begins to check a host here; its questions are paid for.
    fn check(&mut self, address: Ipv6Addr, with: Check, now: Instant) {
        let Some(State::Local(local)) = self.state_mut(address) else {
            return;
        };
        let mac = local.mac;
        local.check = Some(with);
        self.set_wake(address, now + CHECK_STEPS[0]);
        self.probe(address, Some(mac));
    }
}

/// Other LANs.
impl Directory {
    /// Another LAN asks for an address.
    pub fn handle_ask(&mut self, address: Ipv6Addr, lan: LanId, now: Instant) {
        let programs = self.of_programs(address);
        let is_mine = programs.is_none() && self.own.contains(&address);
        if is_mine || !self.lans.contains_key(&lan) {
            return;
        }
        match self.state_mut(address) {
            _ if programs.is_some() => {
                let mac = programs.unwrap_or_default();
                self.act(Action::Send(Kind::Here, address, mac, Some(lan)));
            }
            Some(State::Local(local)) if local.check.is_none() && now < local.heard + FRESH => {
                let mac = local.mac;
                self.act(Action::Send(Kind::Here, address, mac, Some(lan)));
            }
            Some(State::Local(local)) => match &mut local.check {
                Some(check) => add(&mut check.lans, lan),
                None => {
                    let lans = vec![lan];
                    let check = Check {
                        lans,
                        ..Check::default()
                    };
                    self.check_for(address, check, (lan, Purpose::Search), now);
                }
            },
            // its own LAN answers
            Some(State::Remote { .. }) => {}
            Some(State::Seeking(seeking)) => add(&mut seeking.lans, lan),
            Some(State::Silent) | None => {
                let lans = vec![lan];
                let seeking = Seeking {
                    lans,
                    ..Seeking::default()
                };
                self.seek_for_lan(address, seeking, lan, now);
            }
        }
    }

    /// Looks for an address here, for another LAN; `false`: there is no room.
    fn seek_for_lan(
        &mut self,
        address: Ipv6Addr,
        seeking: Seeking,
        lan: LanId,
        now: Instant,
    ) -> bool {
        let wait = if seeking.for_here { LOCAL_WAIT } else { AGAIN };
        let is_kept = self.admit_lan(lan, Purpose::Search, 2, now)
            && self.put(address, State::Seeking(seeking), now + wait, now);
        if is_kept {
            self.probe(address, None);
        }
        is_kept
    }

    /// Checks a host here for another LAN, if its share has room for the whole check.
    fn check_for(
        &mut self,
        address: Ipv6Addr,
        check: Check,
        (lan, purpose): (LanId, Purpose),
        now: Instant,
    ) {
        if self.admit_lan(lan, purpose, CHECK_STEPS.len(), now) {
            self.check(address, check, now);
        }
    }

    /// Another LAN states that it has an address.
    pub fn handle_here(&mut self, address: Ipv6Addr, claim: Claim, now: Instant) {
        if self.of_programs(address).is_some() {
            return self.defend(address, claim.0, now);
        }
        if self.own.contains(&address) || !self.lans.contains_key(&claim.0) {
            return;
        }
        let is_kept = self.homes.keeps(address, claim.1);
        let is_router = self.homes.is_router(address);
        match self.state_mut(address) {
            Some(State::Local(_)) if !is_router => {
                self.dispute(address, claim, now);
            }
            // it is named, and changes nothing
            _ if is_kept => self.note_conflict(address, claim.0, now),
            Some(State::Local(_)) => {}
            Some(State::Seeking(seeking)) if seeking.asked => self.adopt(address, claim, now),
            Some(State::Seeking(seeking)) => {
                seeking.claim.get_or_insert(claim);
            }
            Some(State::Silent) => drop(self.remove(address)),
            Some(State::Remote {
                lan, mac, rival, ..
            }) => {
                if *lan == claim.0 {
                    *mac = claim.1;
                } else {
                    *rival = Some(claim);
                }
            }
            None => self.seek_former(address, claim, now),
        }
    }

    /// Looks for an address of another LAN that hosts here may know: from the time before a split,
    /// or before its host went there.
    fn seek_former(&mut self, address: Ipv6Addr, claim: Claim, now: Instant) {
        if self.split.is_none() && !self.homes.has(address) {
            return;
        }
        let seeking = Seeking {
            for_here: true,
            was_here: true,
            claim: Some(claim),
            ..Seeking::default()
        };
        self.seek_for_lan(address, seeking, claim.0, now);
    }

    /// Another LAN claims an address that is local: the host here proves itself, or loses it to its
    /// own host at another place.
    fn dispute(&mut self, address: Ipv6Addr, claim: Claim, now: Instant) {
        let is_proven = self.is_proven(address, claim.0, now);
        let Some(State::Local(local)) = self.state_mut(address) else {
            return;
        };
        if let Some(check) = &mut local.check {
            // one by its Ethernet address counts more than a packet
            let known = check.claim.filter(|(_, mac)| *mac != MacAddress::default());
            check.claim = known.or(Some(claim));
        } else if !is_proven {
            let check = Check {
                claim: Some(claim),
                ..Check::default()
            };
            self.check_for(address, check, (claim.0, Purpose::Dispute), now);
        }
    }

    /// Whether this double was proven a moment ago.
    fn is_proven(&self, address: Ipv6Addr, lan: LanId, now: Instant) -> bool {
        let proof = self.conflicts.get(&address);
        proof.is_some_and(|(known, at)| *known == lan && now < *at + CONFLICT_FRESH)
    }

    /// Another LAN claims an address of this host itself, which needs no proof.
    fn defend(&mut self, address: Ipv6Addr, lan: LanId, now: Instant) {
        if let Some(mac) = self.of_programs(address)
            && !self.is_proven(address, lan, now)
            && self.admit_lan(lan, Purpose::Dispute, 1, now)
        {
            self.note_conflict(address, lan, now);
            self.act(Action::Send(Kind::Here, address, mac, Some(lan)));
        }
    }

    /// Another LAN does not have an address any more.
    pub fn handle_gone(&mut self, address: Ipv6Addr, from: LanId, now: Instant) {
        self.conflicts
            .retain(|a, (lan, _)| (*a, *lan) != (address, from));
        match self.state_mut(address) {
            Some(State::Remote { lan, .. }) if *lan == from => self.lose(address, now),
            Some(State::Remote { rival, .. }) => {
                rival.take_if(|(lan, _)| *lan == from);
            }
            _ => {}
        }
    }

    /// Forgets the LAN of an address; a later claim takes its place.
    fn lose(&mut self, address: Ipv6Addr, now: Instant) {
        if let Some(State::Remote {
            rival: Some((lan, mac)),
            ..
        }) = self.remove(address)
            && self.lans.contains_key(&lan)
        {
            self.put_remote(address, (lan, mac), now);
        }
    }

    fn put_remote(&mut self, address: Ipv6Addr, (lan, mac): Claim, now: Instant) {
        self.conflicts.remove(&address);
        let state = State::Remote {
            lan,
            mac,
            rival: None,
            asked: now,
        };
        self.put(address, state, now + REMOTE_MEMORY, now);
    }

    /// Takes over an address that nobody here has.
    fn adopt(&mut self, address: Ipv6Addr, (lan, mac): Claim, now: Instant) {
        let Some(State::Seeking(seeking)) = self.remove(address) else {
            return;
        };
        self.put_remote(address, (lan, mac), now);
        // it has moved here, and looks whether its address is free
        let has_moved = seeking.hosts.iter().any(|host| host.mac == mac);
        if has_moved {
            self.hear(Asker { mac, address }, now);
            return self.act(Action::Settled(address, Some(Place::Here(mac))));
        }
        self.homes.forget(address);
        if seeking.was_here {
            self.act(Action::Announce(address, None));
            // a third LAN may still have it from here
            self.tell_all(Kind::Gone, address, MacAddress::default(), now);
        }
        for host in seeking.hosts {
            self.act(Action::Answer(address, host));
        }
        self.act(Action::Settled(address, Some(Place::Lan(lan))));
    }

    /// The way of another LAN's packet.
    pub fn route_here(&mut self, address: Ipv6Addr, from: LanId, now: Instant) -> Route {
        if let Some(mac) = self.of_programs(address) {
            return Route::To(Place::Here(mac));
        }
        match self.state(address) {
            _ if self.own.contains(&address) => Route::Nobody,
            Some(State::Local(local)) => {
                let place = Route::To(Place::Here(local.mac));
                if local.check.is_none() && now >= local.heard + STALE {
                    let check = Check {
                        sender: Some(from),
                        ..Check::default()
                    };
                    self.check_for(address, check, (from, Purpose::Search), now);
                }
                self.touch(address, now);
                place
            }
            Some(State::Remote { .. }) => {
                let mac = MacAddress::default();
                self.act(Action::Send(Kind::Gone, address, mac, Some(from)));
                Route::Nobody
            }
            Some(State::Silent) => Route::Nobody,
            Some(State::Seeking(_)) => Route::Wait,
            None => match self.seek_for_lan(address, Seeking::default(), from, now) {
                true => Route::Wait,
                false => Route::Nobody,
            },
        }
    }

    /// Whether a packet with this source may come in from a gateway of these LANs.
    pub fn admit_from(
        &mut self,
        source: Ipv6Addr,
        lans: &[LanId],
        now: Instant,
    ) -> Result<(), DropReason> {
        let conflict = Err(DropReason::SegmentConflict);
        match self.state(source) {
            _ if self.own.contains(&source) => {
                if let Some(lan) = lans.first() {
                    self.defend(source, *lan, now);
                }
                conflict
            }
            Some(State::Local(_)) => {
                if let Some(lan) = lans.first() {
                    self.dispute(source, (*lan, MacAddress::default()), now);
                }
                conflict
            }
            Some(State::Remote { lan, .. }) if !lans.contains(lan) => conflict,
            Some(State::Remote { .. }) => {
                self.touch(source, now);
                Ok(())
            }
            Some(State::Silent | State::Seeking(_)) | None if !self.homes.has(source) => Ok(()),
            None if !self.homes.is_router(source) => {
                // its own host is perhaps there: its Ethernet address shows it
                if let Some(lan) = lans.first() {
                    let seeking = Seeking {
                        for_here: true,
                        was_here: true,
                        ..Seeking::default()
                    };
                    self.seek_for_lan(source, seeking, *lan, now);
                }
                conflict
            }
            _ => conflict,
        }
    }

    /// Notes a doubled address. In a full list the LAN with most of them gives way with its oldest.
    fn note_conflict(&mut self, address: Ipv6Addr, lan: LanId, now: Instant) {
        self.conflicts.insert(address, (lan, now));
        if self.conflicts.len() > MAX_CONFLICTS {
            let mut counts = BTreeMap::<LanId, usize>::new();
            for (lan, _) in self.conflicts.values() {
                *counts.entry(*lan).or_default() += 1;
            }
            let most = counts.into_iter().max_by_key(|(_, count)| *count);
            let of_most = |(_, (lan, _)): &(&Ipv6Addr, &(LanId, Instant))| {
                most.is_some_and(|(most, _)| *lan == most)
            };
            let oldest = self.conflicts.iter().filter(of_most);
            let oldest = oldest.min_by_key(|(_, (_, at))| *at);
            if let Some(oldest) = oldest.map(|(address, _)| *address) {
                self.conflicts.remove(&oldest);
            }
        }
    }
}

/// Time.
impl Directory {
    /// The time of the next call of [`Self::handle_timeout`].
    pub fn next_timeout(&self) -> Option<Instant> {
        let split = self.split.as_ref().map(|split| match split.untold[..] {
            [] => split.at + SPLIT_TIME,
            _ => split.at + TELL_AFTER,
        });
        let wake = self.wakes.first().map(|(at, _)| *at);
        let named = self.budget.next_timeout();
        wake.into_iter().chain(split).chain(named).min()
    }

    /// Handles expired timers.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.tell_other_part(now);
        self.budget.handle_timeout(now);
        while let Some((at, address)) = self.wakes.first().copied()
            && at <= now
        {
            self.wake(address, now);
        }
        self.conflicts
            .retain(|_, (_, at)| now < *at + CONFLICT_MEMORY);
    }

    fn wake(&mut self, address: Ipv6Addr, now: Instant) {
        let Some(entry) = self.entries.get_mut(&address) else {
            return;
        };
        let used = entry.used;
        match &mut entry.state {
            State::Seeking(_) => self.seek_on(address, now),
            State::Silent => drop(self.remove(address)),
            State::Local(local) if local.check.is_some() => self.check_on(address, now),
            State::Local(local) => match local.heard + LOCAL_MEMORY {
                until if now < until => {
                    let is_due = local.pause() != LOCAL_MEMORY;
                    self.set_wake(address, until);
                    if is_due {
                        self.state_here(address, now);
                    }
                }
                _ => drop(self.remove(address)),
            },
            State::Remote { .. } => match used + REMOTE_MEMORY {
                until if now < until => self.set_wake(address, until),
                _ => drop(self.remove(address)),
            },
        }
    }

    /// The next step of a search.
    fn seek_on(&mut self, address: Ipv6Addr, now: Instant) {
        // no other LAN has a router of this one
        let is_router = self.homes.is_router(address);
        let Some(State::Seeking(seeking)) = self.state_mut(address) else {
            return;
        };
        let claim = seeking.claim.filter(|_| seeking.for_here);
        let (for_here, is_far) = (seeking.for_here, seeking.is_far);
        if let Some(claim) = claim {
            return self.adopt(address, claim, now);
        }
        if for_here && !seeking.asked {
            seeking.asked = true;
            self.set_wake(address, now + AGAIN);
            if !is_router {
                self.ask_all(address);
            }
            return;
        }
        if !seeking.again {
            seeking.again = true;
            self.set_wake(address, now + ASK_TIME - AGAIN);
            if !is_far {
                self.probe(address, None);
            }
            if for_here && !is_router {
                self.ask_all(address);
            }
            return;
        }
        self.remove(address);
        if for_here && now >= self.formed_at && !is_router {
            self.put(address, State::Silent, now + SILENT_TIME, now);
        }
        self.act(Action::Settled(address, None));
    }

    /// The next step of a check, or its failure.
    fn check_on(&mut self, address: Ipv6Addr, now: Instant) {
        let Some(State::Local(local)) = self.state_mut(address) else {
            return;
        };
        let (mac, Some(check)) = (local.mac, &mut local.check) else {
            return;
        };
        check.step += 1;
        let step = check.step;
        if let Some(wait) = CHECK_STEPS.get(step) {
            self.set_wake(address, now + *wait);
            let is_last = step + 1 == CHECK_STEPS.len();
            return self.probe(address, (!is_last).then_some(mac));
        }
        if let Some(State::Local(Local {
            check: Some(check), ..
        })) = self.remove(address)
        {
            self.fail(address, check, now);
        }
    }

    /// A host here has not answered its check.
    fn fail(&mut self, address: Ipv6Addr, check: Check, now: Instant) {
        if let Some(lan) = check.sender {
            let mac = MacAddress::default();
            self.act(Action::Send(Kind::Gone, address, mac, Some(lan)));
        }
        let claim = check.claim.filter(|(lan, _)| self.lans.contains_key(lan));
        let is_told = claim.is_some_and(|(_, mac)| mac != MacAddress::default());
        match claim.filter(|_| is_told) {
            Some((lan, mac)) if self.homes.keeps(address, mac) => {
                self.note_conflict(address, lan, now);
            }
            Some(claim) => {
                self.homes.forget(address);
                self.put_remote(address, claim, now);
                self.act(Action::Announce(address, None));
                self.tell_all(Kind::Gone, address, MacAddress::default(), now);
                return self.act(Action::Settled(address, Some(Place::Lan(claim.0))));
            }
            None => {}
        }
        // hosts here did not answer: the other LANs are asked at once
        if claim.is_some_and(|_| !is_told) || check.is_split || !check.hosts.is_empty() {
            let seeking = Seeking {
                for_here: true,
                was_here: check.is_split || claim.is_some(),
                hosts: check.hosts,
                ..Seeking::default()
            };
            self.put(address, State::Seeking(seeking), now, now);
        }
    }
}

/// Queries.
impl Directory {
    /// The place of an address, as far as it is known; whether a search ended without an answer.
    pub fn place(&self, address: Ipv6Addr) -> (Option<Place>, bool) {
        if let Some(mac) = self.of_programs(address) {
            return (Some(Place::Here(mac)), false);
        }
        match self.state(address) {
            Some(State::Local(local)) => (Some(Place::Here(local.mac)), false),
            Some(State::Remote { lan, .. }) => (Some(Place::Lan(*lan)), false),
            Some(State::Silent) => (None, true),
            Some(State::Seeking(_)) | None => (None, false),
        }
    }

    /// Doubled addresses, each with the other LAN.
    pub fn conflicts(&self) -> impl Iterator<Item = (Ipv6Addr, LanId)> {
        self.conflicts
            .iter()
            .map(|(address, (lan, _))| (*address, *lan))
    }

    /// The host here that asks for more addresses than its share.
    pub fn scanner(&self) -> Option<MacAddress> {
        self.budget.scanner()
    }

    /// Addresses elsewhere that are in use here.
    pub fn remotes(&self) -> impl Iterator<Item = Ipv6Addr> {
        self.ages[2].iter().map(|(_, address)| *address)
    }

    /// Number of addresses that are asked for, here, and elsewhere.
    pub fn counts(&self) -> [usize; 3] {
        [0, 1, 2].map(|class| self.ages[class].len())
    }
}

/// Adds one that waits, within bounds.
fn add<T: PartialEq>(list: &mut Vec<T>, one: T) {
    if list.len() < MAX_ASKERS && !list.contains(&one) {
        list.push(one);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use librecast::mapped;
    use librecast::random::Random;

    use super::*;
    use crate::testing::start;

    const A: LanId = LanId(1);
    const B: LanId = LanId(2);

    fn address(n: u16) -> Ipv6Addr {
        let [high, low] = n.to_be_bytes();
        mapped::name(Ipv4Addr::new(192, 168, high, low))
    }

    fn mac(n: u8) -> MacAddress {
        MacAddress([2, 0, 0, 0, 0, n])
    }

    fn host(n: u8) -> Asker {
        Asker {
            mac: mac(n),
            address: address(n.into()),
        }
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn lans<const N: usize>(of: [(LanId, u64); N]) -> BTreeMap<LanId, OriginId> {
        of.map(|(lan, gateway)| (lan, OriginId(gateway))).into()
    }

    struct Test {
        directory: Directory,
        now: Instant,
    }

    impl Test {
        fn new() -> Self {
            let mut directory = Directory::new(1, start());
            directory.set_lans(lans([(A, 1), (B, 2)]), start());
            let now = start() + FORMING_TIME;
            Self { directory, now }
        }

        fn actions(&mut self) -> Vec<Action> {
            std::iter::from_fn(|| self.directory.poll_action()).collect()
        }

        /// Lets this time pass; returns the actions.
        fn pass(&mut self, time: Duration) -> Vec<Action> {
            let end = self.now + time;
            while let Some(at) = self.directory.next_timeout().filter(|at| *at <= end) {
                self.now = at.max(self.now);
                self.directory.handle_timeout(self.now);
            }
            self.now = end;
            self.actions()
        }

        fn hear(&mut self, n: u8) -> Vec<Action> {
            self.directory.hear(host(n), self.now);
            self.actions()
        }

        /// A host is here for long: its address is the LAN's own, and nothing more is told.
        fn settle(&mut self, n: u8) {
            for _ in 0..2 {
                self.hear(n);
                self.pass(Duration::from_secs(10));
            }
            self.hear(n);
        }

        fn ask(&mut self, target: u8, by: u8) -> Vec<Action> {
            self.directory
                .ask(address(target.into()), host(by), self.now);
            self.actions()
        }

        fn claim(&mut self, n: u8, lan: LanId, by: u8) -> Vec<Action> {
            self.directory
                .handle_here(address(n.into()), (lan, mac(by)), self.now);
            self.actions()
        }

        fn place(&self, n: u8) -> Option<Place> {
            self.directory.place(address(n.into())).0
        }

        /// Makes an address remote.
        fn adopt(&mut self, n: u8, lan: LanId) {
            self.ask(n, 99);
            self.pass(ms(60));
            self.claim(n, lan, n);
            assert_eq!(self.place(n), Some(Place::Lan(lan)));
        }
    }

    fn told(kind: Kind, n: u8, by: u8, to: Option<LanId>) -> Action {
        let mac = if by == 0 {
            MacAddress::default()
        } else {
            mac(by)
        };
        Action::Send(kind, address(n.into()), mac, to)
    }

    #[test]
    fn a_question_is_for_this_lan_first_and_then_for_the_others() {
        let mut t = Test::new();
        let nine = address(9);
        assert_eq!(t.ask(9, 1), [Action::Probe(nine, None)]);
        assert_eq!(t.pass(ms(49)), []);
        assert_eq!(t.pass(ms(1)), [told(Kind::Ask, 9, 0, None)]);
        assert_eq!(t.ask(9, 2), [], "asked already");
        let expected = [
            Action::Answer(nine, host(1)),
            Action::Answer(nine, host(2)),
            Action::Settled(nine, Some(Place::Lan(A))),
        ];
        assert_eq!(t.claim(9, A, 9), expected);
        assert_eq!(t.ask(9, 3), [Action::Answer(nine, host(3))]);
    }

    #[test]
    fn a_claim_does_not_shorten_the_time_of_hosts_here() {
        let mut t = Test::new();
        t.ask(9, 1);
        assert_eq!(t.claim(9, A, 9), []);
        assert_eq!(t.place(9), None);
        assert_eq!(
            t.hear(9).last(),
            Some(&Action::Settled(address(9), Some(Place::Here(mac(9)))))
        );
        let again = [told(Kind::Here, 9, 9, None)];
        assert_eq!(t.pass(Duration::from_secs(2)), again, "one may be lost");
        // without a word of a host here, the claim counts at the end of that time
        t.ask(8, 1);
        t.claim(8, A, 8);
        t.pass(ms(50));
        assert_eq!(t.place(8), Some(Place::Lan(A)));
    }

    #[test]
    fn an_address_without_an_answer_is_left_alone_for_a_while() {
        let mut t = Test::new();
        t.ask(9, 1);
        let actions = t.pass(Duration::from_secs(2));
        let asked = actions
            .iter()
            .filter(|a| **a == told(Kind::Ask, 9, 0, None));
        assert_eq!(asked.count(), 2);
        assert_eq!(actions.last(), Some(&Action::Settled(address(9), None)));
        assert_eq!(t.directory.place(address(9)), (None, true));
        assert_eq!(t.ask(9, 1), []);
        assert_eq!(
            t.directory.route(address(9), false, mac(1), t.now),
            Route::Nobody
        );
        t.pass(SILENT_TIME);
        assert_eq!(t.ask(9, 1).len(), 1);
        // or until somebody says it
        t.pass(Duration::from_secs(2));
        t.claim(9, A, 9);
        assert_eq!(t.ask(9, 1).len(), 1);
    }

    #[test]
    fn no_answer_means_nothing_while_another_lan_begins_to_be_served() {
        let mut t = Test::new();
        let search = |t: &mut Test| {
            t.ask(9, 1);
            t.pass(Duration::from_secs(2));
            t.directory.place(address(9))
        };
        assert_eq!(search(&mut t), (None, true));
        // fewer LANs answer no more than before
        t.directory.set_lans(lans([(B, 2)]), t.now);
        assert_eq!(t.directory.place(address(9)), (None, true));
        for now in [[(A, 1), (B, 2)], [(A, 3), (B, 2)]] {
            t.directory.set_lans(lans(now), t.now);
            assert_eq!(search(&mut t), (None, false), "asked again at once");
            t.pass(FORMING_TIME);
            assert_eq!(search(&mut t), (None, true));
        }
    }

    #[test]
    fn a_claim_that_nobody_asked_for_changes_nothing() {
        let mut t = Test::new();
        assert_eq!(t.claim(9, A, 9), []);
        assert_eq!((t.place(9), t.directory.counts()), (None, [0; 3]));
        t.adopt(9, A);
        t.claim(9, B, 8);
        assert_eq!(t.place(9), Some(Place::Lan(A)), "the first stays");
        t.directory.handle_gone(address(9), B, t.now);
        t.directory.handle_gone(address(9), LanId(7), t.now);
        assert_eq!(t.place(9), Some(Place::Lan(A)));
    }

    #[test]
    fn a_host_here_that_answers_keeps_its_address_and_the_conflict_is_named_once() {
        let mut t = Test::new();
        t.hear(9);
        assert_eq!(t.claim(9, A, 8), [Action::Probe(address(9), Some(mac(9)))]);
        assert_eq!(t.hear(9), [told(Kind::Here, 9, 9, Some(A))]);
        assert_eq!(t.pass(Duration::from_secs(1)), []);
        assert_eq!(
            t.directory.conflicts().collect::<Vec<_>>(),
            [(address(9), A)]
        );
        assert_eq!(t.claim(9, A, 8), [], "proven a moment ago");
        t.pass(CONFLICT_FRESH);
        assert_eq!(t.claim(9, A, 8).len(), 1);
        t.hear(9);
        t.directory.handle_gone(address(9), A, t.now);
        assert_eq!(t.directory.conflicts().count(), 0);
    }

    #[test]
    fn a_host_that_is_gone_loses_its_address_within_half_a_second() {
        let mut t = Test::new();
        t.hear(9);
        t.claim(9, A, 9);
        let actions = t.pass(ms(500));
        let nine = address(9);
        let expected = [
            Action::Probe(nine, Some(mac(9))),
            Action::Probe(nine, None),
            Action::Announce(nine, None),
            told(Kind::Gone, 9, 0, None),
            Action::Settled(nine, Some(Place::Lan(A))),
        ];
        assert_eq!(actions, expected);
        assert_eq!(t.place(9), Some(Place::Lan(A)));
    }

    #[test]
    fn a_remote_host_that_speaks_here_is_local_and_the_others_learn_it() {
        let mut t = Test::new();
        t.adopt(9, A);
        let back = |n: u8| {
            let to_hosts = Action::Announce(address(n.into()), Some(mac(n)));
            [to_hosts, told(Kind::Here, n, n, None)]
        };
        assert_eq!(t.hear(9), back(9));
        assert_eq!(t.place(9), Some(Place::Here(mac(9))));
        assert_eq!(
            t.pass(Duration::from_secs(10)),
            [back(9), back(9)].concat(),
            "frames are lost"
        );
        // the same without an address of its own yet: it looks whether it is free
        t.adopt(8, A);
        let looks = Asker {
            mac: mac(8),
            address: Ipv6Addr::UNSPECIFIED,
        };
        t.directory.ask(address(8), looks, t.now);
        assert_eq!(t.actions(), [told(Kind::Here, 8, 8, None)]);
        assert_eq!(t.place(8), Some(Place::Here(mac(8))));
    }

    #[test]
    fn other_lans_get_answers_only_for_hosts_that_are_here_now() {
        let mut t = Test::new();
        t.hear(9);
        let ask_for = |t: &mut Test, n: u16, lan| {
            t.directory.handle_ask(address(n), lan, t.now);
            t.actions()
        };
        assert_eq!(ask_for(&mut t, 9, A), [told(Kind::Here, 9, 9, Some(A))]);
        t.pass(FRESH);
        assert_eq!(
            ask_for(&mut t, 9, A),
            [Action::Probe(address(9), Some(mac(9)))]
        );
        assert_eq!(t.hear(9), [told(Kind::Here, 9, 9, Some(A))]);
        assert_eq!(ask_for(&mut t, 8, B), [Action::Probe(address(8), None)]);
        assert_eq!(t.hear(8)[0], told(Kind::Here, 8, 8, None));
        assert_eq!(ask_for(&mut t, 7, LanId(3)), [], "no LAN of the segment");
        t.adopt(6, A);
        assert_eq!(ask_for(&mut t, 6, B), [], "its own LAN answers");
    }

    #[test]
    fn a_lan_that_is_gone_takes_its_hosts_along_and_a_later_claim_counts() {
        let mut t = Test::new();
        t.adopt(9, A);
        t.adopt(8, A);
        t.claim(8, B, 8);
        t.directory.set_lans(lans([(B, 2)]), t.now);
        assert_eq!(t.place(9), None);
        assert_eq!(t.place(8), Some(Place::Lan(B)));
        assert_eq!(t.claim(9, A, 9), []);
    }

    #[test]
    fn sources_are_those_of_their_own_lan() {
        let mut t = Test::new();
        t.hear(1);
        t.adopt(9, A);
        let conflict = Err(DropReason::SegmentConflict);
        let admit = |t: &mut Test, n: u16, lan| t.directory.admit_from(address(n), &[lan], t.now);
        assert_eq!(admit(&mut t, 9, A), Ok(()));
        assert_eq!(admit(&mut t, 9, B), conflict);
        assert_eq!(admit(&mut t, 7, B), Ok(()), "unknown");
        assert_eq!(admit(&mut t, 1, A), conflict);
        let checked = t.actions();
        assert_eq!(checked, [Action::Probe(address(1), Some(mac(1)))]);
        for _ in 0..1_000 {
            assert_eq!(admit(&mut t, 1, A), conflict);
        }
        assert_eq!(t.actions(), [], "one check");
        assert_eq!(
            t.directory.admit_from_here(address(9), mac(9), t.now),
            conflict
        );
        assert_eq!(
            t.directory.admit_from_here(address(1), mac(1), t.now),
            Ok(())
        );
    }

    #[test]
    fn nobody_takes_an_address_of_the_gateway() {
        let mut t = Test::new();
        t.directory.set_own(vec![address(10)], None);
        assert_eq!(t.hear(10), []);
        assert_eq!(t.ask(10, 1), []);
        assert_eq!(t.claim(10, A, 10), []);
        assert_eq!(
            t.directory.route(address(10), false, mac(1), t.now),
            Route::Nobody
        );
        assert_eq!(t.place(10), None);
    }

    #[test]
    fn a_standby_keeps_the_hosts_here_alone() {
        let mut t = Test::new();
        t.hear(1);
        t.adopt(9, A);
        t.ask(8, 1);
        t.directory.rest();
        assert_eq!(t.directory.counts(), [0, 1, 0]);
        assert_eq!(t.pass(Duration::from_secs(60)), []);
    }

    #[test]
    fn a_claim_without_room_for_its_check_is_dropped_and_the_host_here_stays() {
        let mut t = Test::new();
        for n in 9..=120 {
            t.hear(n);
        }
        // searches have a share of their own
        for n in 1_000..3_000 {
            for lan in [A, B] {
                t.directory.handle_ask(address(n), lan, t.now);
            }
        }
        t.actions();
        for n in (10..=120).rev() {
            t.claim(n, A, n);
        }
        assert_eq!(t.claim(9, A, 9), [Action::Drop(DropReason::SegmentStorm)]);
        t.pass(Duration::from_secs(1));
        assert_eq!(t.place(9), Some(Place::Here(mac(9))));
        // another LAN has its own share
        assert_eq!(t.claim(9, B, 9), [Action::Probe(address(9), Some(mac(9)))]);
    }

    #[test]
    fn what_another_lan_looks_for_leaves_room_for_the_searches_of_hosts_here() {
        let mut t = Test::new();
        for n in 1_000..6_000 {
            t.directory.route_here(address(n), A, t.now);
        }
        t.actions();
        for n in 9..100 {
            assert_eq!(t.ask(n, 1), [Action::Probe(address(n.into()), None)], "{n}");
        }
        let asked = t.pass(ms(60));
        assert!(asked.contains(&told(Kind::Ask, 99, 0, None)));
        t.directory.handle_ask(address(7), B, t.now);
        assert_eq!(
            t.actions(),
            [Action::Probe(address(7), None)],
            "or of a third LAN"
        );
    }

    #[test]
    fn a_host_that_scans_slows_itself_down_and_is_named() {
        let mut t = Test::new();
        for n in 1_000..2_000 {
            t.directory.ask(address(n), host(5), t.now);
        }
        assert_eq!(t.directory.scanner(), Some(mac(5)));
        t.actions();
        assert_eq!(t.ask(9, 5), [Action::Drop(DropReason::SegmentStorm)]);
        assert_eq!(t.ask(9, 6), [Action::Probe(address(9), None)]);
        assert!(t.pass(ms(50)).contains(&told(Kind::Ask, 9, 0, None)));
    }

    #[test]
    fn a_router_of_this_lan_is_never_served_from_elsewhere() {
        let mut t = Test::new();
        let one = address(1);
        t.adopt(1, A);
        // it becomes known while its address is served from elsewhere
        t.directory.set_routers(vec![one], t.now);
        assert_eq!(t.actions(), [Action::Probe(one, None)]);
        assert_eq!(t.place(1), None);
        let back = Action::Announce(one, Some(mac(1)));
        assert!(t.hear(1).contains(&back), "all hosts learn it");
        t.pass(Duration::from_secs(75) + LOCAL_MEMORY);
        t.ask(1, 5);
        for by in [1, 7] {
            assert_eq!(t.claim(1, A, by), []);
        }
        let asked = t.pass(Duration::from_secs(2));
        assert_eq!(asked[0], Action::Probe(one, None));
        assert_eq!(asked.last(), Some(&Action::Settled(one, None)));
        assert_eq!(asked.len(), 2, "no other LAN is asked");
        let conflicts: Vec<_> = t.directory.conflicts().collect();
        assert_eq!(conflicts, [(one, A)]);
        // it is asked for again at once, not after a time of silence
        assert_eq!(t.ask(1, 5), [Action::Probe(one, None)]);
    }

    #[test]
    fn an_address_of_this_lan_is_elsewhere_with_its_own_host_alone_or_as_the_user_says() {
        let mut t = Test::new();
        for n in [8, 9] {
            t.settle(n);
        }
        t.pass(LOCAL_MEMORY * 2);
        for n in [8, 9] {
            t.ask(n, 1);
            t.pass(ms(60));
            t.claim(n, A, 7);
            assert_eq!(t.place(n), None, "another host");
            let from = t.directory.admit_from(address(n.into()), &[A], t.now);
            assert_eq!(from, Err(DropReason::SegmentConflict));
        }
        assert_eq!(t.directory.conflicts().count(), 2);
        t.claim(8, A, 8);
        assert_eq!(t.place(8), Some(Place::Lan(A)), "it has moved");
        t.directory.release(address(9));
        assert_eq!(t.directory.conflicts().count(), 0);
        t.adopt(9, A);
    }

    #[test]
    fn a_host_that_is_silent_here_keeps_its_address_against_another_one() {
        let mut t = Test::new();
        t.settle(9);
        t.claim(9, A, 8);
        let actions = t.pass(Duration::from_secs(1));
        let told = |action: &Action| !matches!(action, Action::Probe(..));
        assert!(!actions.iter().any(told), "nothing changes: {actions:?}");
        assert_eq!(t.place(9), None);
        assert_eq!(t.directory.conflicts().count(), 1);
    }

    #[test]
    fn a_lan_that_claims_all_addresses_hides_no_conflict_with_another_one() {
        let mut t = Test::new();
        for n in 9..200 {
            t.settle(n);
        }
        t.pass(LOCAL_MEMORY * 2);
        t.claim(9, B, 7);
        for n in 10..200 {
            t.claim(n, A, 7);
        }
        let conflicts: Vec<_> = t.directory.conflicts().collect();
        assert_eq!(conflicts.len(), MAX_CONFLICTS);
        assert!(conflicts.contains(&(address(9), B)));
    }

    #[test]
    fn a_host_that_came_back_without_a_word_is_found_while_its_address_is_in_use() {
        let mut t = Test::new();
        t.adopt(9, A);
        let used = |t: &mut Test| {
            t.directory.route(address(9), false, mac(1), t.now);
            t.actions()
        };
        assert_eq!(used(&mut t), []);
        t.pass(STALE);
        assert_eq!(used(&mut t), [Action::Probe(address(9), None)]);
        assert_eq!(used(&mut t), []);
        assert_eq!(t.hear(9)[0], Action::Announce(address(9), Some(mac(9))));
    }

    #[test]
    fn a_double_is_found_again_while_its_hosts_speak() {
        let mut t = Test::new();
        t.settle(9);
        t.pass(RETELL);
        assert_eq!(t.hear(9), [told(Kind::Here, 9, 9, None)]);
        assert_eq!(t.hear(9), []);
    }

    #[test]
    fn no_answer_means_nothing_after_this_gateway_begins_to_serve() {
        let mut t = Test::new();
        let search = |t: &mut Test| {
            t.ask(9, 1);
            t.pass(Duration::from_secs(2));
            t.directory.place(address(9))
        };
        assert_eq!(search(&mut t), (None, true));
        t.directory.form(t.now);
        assert_eq!(search(&mut t), (None, false));
    }

    #[test]
    fn idle_addresses_are_forgotten() {
        let mut t = Test::new();
        t.hear(1);
        t.adopt(9, A);
        t.pass(REMOTE_MEMORY / 2);
        t.directory.route(address(9), false, mac(1), t.now);
        t.pass(REMOTE_MEMORY / 2 + ms(10));
        assert_eq!(t.place(9), Some(Place::Lan(A)), "in use");
        t.pass(LOCAL_MEMORY);
        assert_eq!(t.directory.counts(), [0; 3]);
        assert_eq!(t.directory.next_timeout(), None);
    }

    /// Whatever hosts and LANs do: bounds hold, all that waits is settled, and a host that answers
    /// is never taken for remote.
    #[test]
    fn random_events_keep_bounds_and_truth() {
        // all seeds with as many cases of property tests as `make test-all` has
        let cases = proptest::test_runner::Config::default().cases;
        for seed in 0..u64::from(cases / 12).clamp(1, 20) {
            let mut random = Random::new(seed);
            let mut t = Test::new();
            // hosts with even numbers below 100 are here, and answer
            let is_here = |n: u16| n < 100 && n.is_multiple_of(2);
            let mut waiting = BTreeSet::new();
            for _ in 0..20_000 {
                let n = match random.below(3) {
                    0 => random.below(8_000) as u16,
                    _ => random.below(100) as u16,
                };
                let lan = [A, B][random.below(2) as usize];
                let (now, by) = (t.now, host(random.below(100) as u8));
                match random.below(8) {
                    0 if is_here(n) => t.directory.hear(host(n as u8), now),
                    1 => t.directory.ask(address(n), by, now),
                    2 => t.directory.handle_ask(address(n), lan, now),
                    3 => t.directory.handle_here(
                        address(n),
                        (lan, mac(random.below(200) as u8)),
                        now,
                    ),
                    4 => t.directory.handle_gone(address(n), lan, now),
                    5 if t.directory.route(address(n), n > 7_000, by.mac, now) == Route::Wait => {
                        waiting.insert(address(n));
                    }
                    6 if t.directory.route_here(address(n), lan, now) == Route::Wait => {
                        waiting.insert(address(n));
                    }
                    _ => {}
                }
                let time = ms(random.below(40));
                let mut actions = t.actions();
                actions.extend(t.pass(time));
                for action in actions {
                    match action {
                        Action::Settled(address, _) => drop(waiting.remove(&address)),
                        Action::Probe(asked, _) => {
                            let here = (0..100).find(|n| is_here(*n) && address(*n) == asked);
                            if let Some(n) = here {
                                t.directory.hear(host(n as u8), t.now);
                            }
                        }
                        _ => {}
                    }
                }
                for (class, count) in t.directory.counts().into_iter().enumerate() {
                    assert!(count <= MAX_ENTRIES[class]);
                }
                assert!(t.directory.conflicts.len() <= MAX_CONFLICTS);
            }
            for action in t.pass(Duration::from_secs(2)) {
                if let Action::Settled(address, _) = action {
                    waiting.remove(&address);
                }
            }
            assert_eq!(waiting.len(), 0);
            for n in (0..100).filter(|n| is_here(*n)) {
                let place = t.directory.place(address(n)).0;
                assert!(
                    !matches!(place, Some(Place::Lan(_))),
                    "seed {seed}, host {n}"
                );
            }
        }
    }
}
