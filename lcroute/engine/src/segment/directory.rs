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
//! For ten seconds after another LAN appears, no address becomes silent.
//! An address that answers on this LAN is local, whatever others claim. Nothing is sent unless a
//! host speaks: no table is synchronised.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv6Addr;

use librecast::bucket::{Bucket, Rate};
use librecast::ethernet::MacAddress;
use librecast::id::{LanId, OriginId};
use librecast::time::{Duration, Instant};

use crate::drops::DropReason;
use crate::table::Table;

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
/// Time after another LAN appears, or changes its gateway, in which no answer means nothing: that
/// gateway begins to serve, and trees grow. Chosen: as long as an address stays silent.
const FORMING_TIME: Duration = SILENT_TIME;
/// Time between the questions of a check: two to the known Ethernet address, one to all. Chosen.
const CHECK_STEPS: [Duration; 3] = [
    Duration::from_millis(150),
    Duration::from_millis(150),
    Duration::from_millis(200),
];
/// Time after a host's last word in which it counts as present. Chosen.
const FRESH: Duration = Duration::from_secs(5);
/// Silence after which packets to a host make this gateway check it. Chosen: as long as a kernel
/// believes an entry (RFC 4861 §10, REACHABLE_TIME).
const STALE: Duration = Duration::from_secs(30);
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
const MAX_ENTRIES: [usize; 3] = [1_024, 4_096, 4_096];
/// Most hosts that are checked after a LAN was split, the last heard first. Chosen: within
/// [`PROBE_RATE`], with three questions for each of those that are gone.
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

/// Messages of this LAN to all others: 20 a second, 300 at once. Chosen: a scan of a /24 passes.
const ASK_RATE: Rate = Rate::per_second(20, 300);
/// Questions of this gateway for hosts here. Chosen: a scan of a /24 passes.
const PROBE_RATE: Rate = Rate::per_second(200, 300);
/// Questions of this gateway for other LANs. Chosen.
const REMOTE_PROBE_RATE: Rate = Rate::per_second(50, 300);

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
    /// Tell all hosts that an address has the virtual Ethernet address now.
    Announce(Ipv6Addr),
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
    Local {
        mac: MacAddress,
        heard: Instant,
        check: Option<Check>,
    },
    Remote {
        lan: LanId,
        /// Its Ethernet address there, by which a host that moves here is known.
        mac: MacAddress,
        /// A later claim: used if the first ends.
        rival: Option<Claim>,
    },
}

impl State {
    /// Its index in [`MAX_ENTRIES`].
    fn class(&self) -> usize {
        match self {
            Self::Seeking(_) | Self::Silent => 0,
            Self::Local { .. } => 1,
            Self::Remote { .. } => 2,
        }
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
    /// Messages of each LAN that may make this gateway ask.
    intake: BTreeMap<LanId, Bucket>,
    asks: Bucket,
    probes: Bucket,
    remote_probes: Bucket,
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
            intake: BTreeMap::new(),
            asks: Bucket::full(now),
            probes: Bucket::full(now),
            remote_probes: Bucket::full(now),
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
            self.formed_at = now + FORMING_TIME;
            self.forget_silent();
        }
        self.intake.retain(|lan, _| self.lans.contains_key(lan));
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

    fn forget_silent(&mut self) {
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
                Some(State::Local { check, .. }) => *check = None,
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
            match self.state_mut(address) {
                Some(State::Local {
                    check: Some(check), ..
                }) => check.is_split = true,
                _ => {
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
            if let Some(State::Local { mac, heard, .. }) = self.state(address)
                && *heard >= at
            {
                let mac = *mac;
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

    /// Notes a use of an address.
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

    /// Sends a message to all LANs, if there are others, and within their rate.
    fn tell_all(&mut self, kind: Kind, address: Ipv6Addr, mac: MacAddress, now: Instant) -> bool {
        let is_admitted = !self.lans.is_empty() && self.asks.take(ASK_RATE, 1, now);
        if is_admitted {
            self.act(Action::Send(kind, address, mac, None));
        } else if !self.lans.is_empty() {
            self.act(Action::Drop(DropReason::SegmentStorm));
        }
        is_admitted
    }

    fn probe(&mut self, address: Ipv6Addr, to: Option<MacAddress>, for_here: bool, now: Instant) {
        let is_admitted = match for_here {
            true => self.probes.take(PROBE_RATE, 1, now),
            false => self.remote_probes.take(REMOTE_PROBE_RATE, 1, now),
        };
        self.act(match is_admitted {
            true => Action::Probe(address, to),
            false => Action::Drop(DropReason::SegmentStorm),
        });
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
        let local = || State::Local {
            mac,
            heard: now,
            check: None,
        };
        match self.state_mut(address) {
            Some(State::Local {
                mac: known,
                heard,
                check,
            }) => {
                (*known, *heard) = (mac, now);
                let passed = check.take();
                self.touch(address, now);
                if let Some(check) = passed {
                    self.set_wake(address, now + LOCAL_MEMORY);
                    self.pass(address, mac, check, now);
                }
            }
            Some(State::Seeking(seeking)) => {
                let lans = std::mem::take(&mut seeking.lans);
                self.put(address, local(), now + LOCAL_MEMORY, now);
                // all of them: one may have the address as well
                let is_told = self.tell_all(Kind::Here, address, mac, now);
                for lan in lans.into_iter().filter(|_| !is_told) {
                    self.act(Action::Send(Kind::Here, address, mac, Some(lan)));
                }
                self.act(Action::Settled(address, Some(Place::Here(mac))));
            }
            Some(State::Silent | State::Remote { .. }) | None => {
                self.put(address, local(), now + LOCAL_MEMORY, now);
                self.tell_all(Kind::Here, address, mac, now);
            }
        }
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
            // the host itself has moved here, and looks whether its address is free
            Some(State::Remote { mac, .. }) if *mac == asker.mac => {
                let mac = asker.mac;
                self.hear(Asker { mac, address }, now);
            }
            Some(State::Remote { .. }) => {
                self.touch(address, now);
                self.act(Action::Answer(address, asker));
            }
            Some(State::Silent) => {}
            Some(State::Local { mac, heard, check }) => {
                let is_fresh = now < *heard + FRESH || *mac == asker.mac;
                if let Some(check) = check {
                    add(&mut check.hosts, asker);
                } else if !is_fresh {
                    let check = Check {
                        hosts: vec![asker],
                        ..Check::default()
                    };
                    self.check(address, check, now);
                }
            }
            Some(State::Seeking(_)) | None => {
                self.seek_for_here(address, Some(asker), now);
            }
        }
    }

    /// The way of a packet of a host here. `is_far`: it is for another subnet.
    pub fn route(&mut self, address: Ipv6Addr, is_far: bool, now: Instant) -> Route {
        if let Some(mac) = self.of_programs(address) {
            return Route::To(Place::Here(mac));
        }
        if self.own.contains(&address) {
            return Route::Nobody;
        }
        match self.state(address) {
            Some(State::Remote { lan, .. }) => {
                let lan = *lan;
                self.touch(address, now);
                Route::To(Place::Lan(lan))
            }
            Some(State::Local { mac, .. }) => Route::To(Place::Here(*mac)),
            Some(State::Silent) => Route::Nobody,
            None if is_far => {
                let seeking = Seeking {
                    for_here: true,
                    is_far,
                    ..Seeking::default()
                };
                match self.put(address, State::Seeking(seeking), now, now) {
                    true => Route::Wait,
                    false => Route::Nobody,
                }
            }
            Some(State::Seeking(_)) | None => match self.seek_for_here(address, None, now) {
                true => Route::Wait,
                false => Route::Nobody,
            },
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
            self.probe(source, None, true, now);
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
            Some(State::Local { mac: known, .. }) if *known == mac => return Ok(()),
            // a program that only sends to groups has asked for nobody
            None => self.probe(source, Some(mac), false, now),
            Some(_) => {}
        }
        Err(DropReason::LanGatewayFrame)
    }

    /// Looks for an address, for a host or a packet of this LAN; `false`: there is no room.
    fn seek_for_here(&mut self, address: Ipv6Addr, asker: Option<Asker>, now: Instant) -> bool {
        if let Some(State::Seeking(seeking)) = self.state_mut(address) {
            if let Some(asker) = asker {
                add(&mut seeking.hosts, asker);
            }
            if !std::mem::replace(&mut seeking.for_here, true) {
                // so far only for another LAN
                self.set_wake(address, now + LOCAL_WAIT);
            }
            return true;
        }
        let seeking = Seeking {
            for_here: true,
            hosts: asker.into_iter().collect(),
            ..Seeking::default()
        };
        let is_kept = self.put(address, State::Seeking(seeking), now + LOCAL_WAIT, now);
        if is_kept {
            self.probe(address, None, true, now);
        }
        is_kept
    }

    /// Begins to check a host here.
    fn check(&mut self, address: Ipv6Addr, with: Check, now: Instant) {
        let for_here = with.lans.is_empty() && with.claim.is_none();
        let Some(State::Local { mac, check, .. }) = self.state_mut(address) else {
            return;
        };
        let mac = *mac;
        *check = Some(with);
        self.set_wake(address, now + CHECK_STEPS[0]);
        self.probe(address, Some(mac), for_here, now);
    }
}

/// Other LANs.
impl Directory {
    /// Whether another LAN may make this gateway ask its hosts once more.
    fn admit(&mut self, lan: LanId, now: Instant) -> bool {
        if !self.lans.contains_key(&lan) {
            return false;
        }
        let bucket = self.intake.entry(lan).or_insert_with(|| Bucket::full(now));
        let is_admitted = bucket.take(ASK_RATE, 1, now);
        if !is_admitted {
            self.act(Action::Drop(DropReason::SegmentStorm));
        }
        is_admitted
    }

    /// Another LAN asks for an address.
    pub fn handle_ask(&mut self, address: Ipv6Addr, lan: LanId, now: Instant) {
        let programs = self.of_programs(address);
        let is_mine = programs.is_none() && self.own.contains(&address);
        if is_mine || !self.admit(lan, now) {
            return;
        }
        if let Some(mac) = programs {
            return self.act(Action::Send(Kind::Here, address, mac, Some(lan)));
        }
        match self.state_mut(address) {
            Some(State::Local { mac, heard, check }) => match check {
                Some(check) => add(&mut check.lans, lan),
                None if now < *heard + FRESH => {
                    let mac = *mac;
                    self.act(Action::Send(Kind::Here, address, mac, Some(lan)));
                }
                None => {
                    let check = Check {
                        lans: vec![lan],
                        ..Check::default()
                    };
                    self.check(address, check, now);
                }
            },
            // its own LAN answers
            Some(State::Remote { .. }) => {}
            Some(State::Seeking(seeking)) => add(&mut seeking.lans, lan),
            Some(State::Silent) | None => {
                let seeking = Seeking {
                    lans: vec![lan],
                    ..Seeking::default()
                };
                if self.put(address, State::Seeking(seeking), now + AGAIN, now) {
                    self.probe(address, None, false, now);
                }
            }
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
        match self.state_mut(address) {
            Some(State::Seeking(seeking)) if seeking.asked => self.adopt(address, claim, now),
            Some(State::Seeking(seeking)) => {
                seeking.claim.get_or_insert(claim);
            }
            Some(State::Silent) => drop(self.remove(address)),
            Some(State::Remote { lan, mac, rival }) => {
                if *lan == claim.0 {
                    *mac = claim.1;
                } else {
                    *rival = Some(claim);
                }
            }
            Some(State::Local { .. }) => self.dispute(address, claim, now),
            None => self.seek_after_split(address, claim, now),
        }
    }

    /// Looks for an address of another LAN that hosts here may know from the time before a split.
    fn seek_after_split(&mut self, address: Ipv6Addr, claim: Claim, now: Instant) {
        if self.split.is_none() || !self.admit(claim.0, now) {
            return;
        }
        let seeking = Seeking {
            for_here: true,
            was_here: true,
            claim: Some(claim),
            ..Seeking::default()
        };
        if self.put(address, State::Seeking(seeking), now + LOCAL_WAIT, now) {
            self.probe(address, None, false, now);
        }
    }

    /// Another LAN claims an address that is local: the host here proves itself, or loses it.
    fn dispute(&mut self, address: Ipv6Addr, claim: Claim, now: Instant) {
        if let Some(State::Local {
            check: Some(check), ..
        }) = self.state_mut(address)
        {
            check.claim.get_or_insert(claim);
            return;
        }
        if !self.is_proven(address, claim.0, now) && self.admit(claim.0, now) {
            let check = Check {
                claim: Some(claim),
                ..Check::default()
            };
            self.check(address, check, now);
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
            && self.admit(lan, now)
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
            let rival = None;
            let state = State::Remote { lan, mac, rival };
            self.put(address, state, now + REMOTE_MEMORY, now);
        }
    }

    /// Takes over an address that nobody here has.
    fn adopt(&mut self, address: Ipv6Addr, (lan, mac): Claim, now: Instant) {
        let Some(State::Seeking(seeking)) = self.remove(address) else {
            return;
        };
        let rival = None;
        let state = State::Remote { lan, mac, rival };
        self.put(address, state, now + REMOTE_MEMORY, now);
        // it has moved here, and looks whether its address is free
        let has_moved = seeking.hosts.iter().any(|host| host.mac == mac);
        if has_moved {
            self.hear(Asker { mac, address }, now);
            return self.act(Action::Settled(address, Some(Place::Here(mac))));
        }
        if seeking.was_here {
            self.act(Action::Announce(address));
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
            Some(State::Local { mac, heard, check }) => {
                let place = Route::To(Place::Here(*mac));
                if check.is_none() && now >= *heard + STALE {
                    let check = Check {
                        sender: Some(from),
                        ..Check::default()
                    };
                    self.check(address, check, now);
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
            None => {
                let state = State::Seeking(Seeking::default());
                if !self.put(address, state, now + AGAIN, now) {
                    return Route::Nobody;
                }
                self.probe(address, None, false, now);
                Route::Wait
            }
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
            Some(State::Local { .. }) => {
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
            Some(State::Silent | State::Seeking(_)) | None => Ok(()),
        }
    }

    fn note_conflict(&mut self, address: Ipv6Addr, lan: LanId, now: Instant) {
        let has_room =
            self.conflicts.len() < MAX_CONFLICTS || self.conflicts.contains_key(&address);
        if has_room {
            self.conflicts.insert(address, (lan, now));
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
        wake.into_iter().chain(split).min()
    }

    /// Handles expired timers.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.tell_other_part(now);
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
            State::Local { check: Some(_), .. } => self.check_on(address, now),
            State::Local { heard, .. } => match *heard + LOCAL_MEMORY {
                until if now < until => self.set_wake(address, until),
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
        let Some(State::Seeking(seeking)) = self.state_mut(address) else {
            return;
        };
        let claim = seeking.claim.filter(|_| seeking.for_here);
        let (for_here, asked, again) = (seeking.for_here, seeking.asked, seeking.again);
        let is_far = seeking.is_far;
        if let Some(claim) = claim {
            return self.adopt(address, claim, now);
        }
        if for_here && !asked {
            seeking.asked = true;
            self.set_wake(address, now + AGAIN);
            self.tell_all(Kind::Ask, address, MacAddress::default(), now);
            return;
        }
        if !again {
            seeking.again = true;
            self.set_wake(address, now + ASK_TIME - AGAIN);
            if !is_far {
                self.probe(address, None, for_here, now);
            }
            if for_here {
                self.tell_all(Kind::Ask, address, MacAddress::default(), now);
            }
            return;
        }
        self.remove(address);
        if for_here && now >= self.formed_at {
            self.put(address, State::Silent, now + SILENT_TIME, now);
        }
        self.act(Action::Settled(address, None));
    }

    /// The next step of a check, or its failure.
    fn check_on(&mut self, address: Ipv6Addr, now: Instant) {
        let Some(State::Local {
            mac,
            check: Some(check),
            ..
        }) = self.state_mut(address)
        else {
            return;
        };
        check.step += 1;
        let (mac, step) = (*mac, check.step);
        let for_here = check.lans.is_empty() && check.claim.is_none();
        if let Some(wait) = CHECK_STEPS.get(step) {
            self.set_wake(address, now + *wait);
            let is_last = step + 1 == CHECK_STEPS.len();
            return self.probe(address, (!is_last).then_some(mac), for_here, now);
        }
        let Some(State::Local {
            check: Some(check), ..
        }) = self.remove(address)
        else {
            return;
        };
        self.fail(address, check, now);
    }

    /// A host here has not answered its check.
    fn fail(&mut self, address: Ipv6Addr, check: Check, now: Instant) {
        if let Some(lan) = check.sender {
            let mac = MacAddress::default();
            self.act(Action::Send(Kind::Gone, address, mac, Some(lan)));
        }
        let claim = check.claim.filter(|(lan, _)| self.lans.contains_key(lan));
        if let Some((lan, mac)) = claim {
            let rival = None;
            let state = State::Remote { lan, mac, rival };
            self.put(address, state, now + REMOTE_MEMORY, now);
            self.act(Action::Announce(address));
            self.tell_all(Kind::Gone, address, MacAddress::default(), now);
            self.act(Action::Settled(address, Some(Place::Lan(lan))));
        } else if check.is_split || !check.hosts.is_empty() {
            // hosts here did not answer: the other LANs are asked at once
            let seeking = Seeking {
                for_here: true,
                was_here: check.is_split,
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
            Some(State::Local { mac, .. }) => (Some(Place::Here(*mac)), false),
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

    /// LANs with their gateways.
    fn lans<const N: usize>(of: [(LanId, u64); N]) -> BTreeMap<LanId, OriginId> {
        of.map(|(lan, gateway)| (lan, OriginId(gateway))).into()
    }

    /// A directory with its time.
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
        assert_eq!(t.pass(Duration::from_secs(2)), []);
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
        assert_eq!(t.directory.route(address(9), false, t.now), Route::Nobody);
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
            Action::Announce(nine),
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
        assert_eq!(t.hear(9), [told(Kind::Here, 9, 9, None)]);
        assert_eq!(t.place(9), Some(Place::Here(mac(9))));
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
        assert_eq!(t.directory.route(address(10), false, t.now), Route::Nobody);
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
    fn idle_addresses_are_forgotten() {
        let mut t = Test::new();
        t.hear(1);
        t.adopt(9, A);
        t.pass(REMOTE_MEMORY / 2);
        t.directory.route(address(9), false, t.now);
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
        for seed in 0..20 {
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
                    5 if t.directory.route(address(n), n > 7_000, now) == Route::Wait => {
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
