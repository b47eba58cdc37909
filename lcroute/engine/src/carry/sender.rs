//! The side of a sender: measures its own flows' share of the uplink, and asks carriers.
//!
//! Units are asked for whole: a prefix that this node announces, cut into parts, or the /127 around
//! one group.
//!
//! ```text
//!            short, two copies and more          the part is announced by the carrier
//!    Free ------------------------------> Asked ---------------------------------------> Carried
//!     ^   a carrier is chosen                | 2 s, or a refusal: another one               | the announcement is gone
//!     +--------------------------------------+----------------------------------------------+
//! ```
//!
//! Parts of a unit with one copy are carried as well, while its link is full: see `paths`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv6Addr;
use std::sync::Arc;

use librecast::cert::GroupPrefix;
use librecast::id::OriginId;
use librecast::time::{Duration, Instant};

use super::choice::{Place, choose, detours};
use super::paths::{Paths, Progress, Shares};
use super::request::{Answer, CarryRequest, MAX_PARTS};
use super::{CarriedPart, CarryMessage, CarrySnapshot};
use crate::classify::{is_source_specific, scope};
use crate::config::{CarrySettings, Node};
use crate::graph::Graph;
use crate::lsdb::Database;
use crate::services::Services;

/// Own flows are measured this often.
const INTERVAL: Duration = Duration::from_secs(1);
/// The uplink counts as short for this long after the last second in which it was. Chosen: a sender
/// of files begins its next one with carriers.
const SHORT_FOR: Duration = Duration::from_secs(600);
/// A unit without traffic is given up after this time, as a flow is.
const IDLE: Duration = Duration::from_secs(60);
/// A carrier that does not announce a part within this time is passed over. Chosen: advertisements
/// need 50 ms.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// A router that refused, or whose announcement ended, is not asked for this long.
const REFUSED_FOR: Duration = Duration::from_secs(60);
/// A CARRY is repeated this often: three in a lease of the carrier.
const REPEAT: Duration = Duration::from_secs(20);
/// Parts of a prefix: four more bits. Channels of files are hashes, so parts are even.
const SPLIT_BITS: u8 = 4;
/// Most parts that a sender has at a time. Chosen: half of what one advertisement holds, if one
/// router carried all.
const MAX_OWN_PARTS: usize = 32;
/// Units whose copies are less than one part in this many of all copies too many are not asked for.
const LEAST_SHARE: u64 = 20;
/// The length of the prefix around a single group. A sender that announces a /128 keeps it.
const GROUP_LEN: u8 = 127;
/// A group is this node's flow if one byte in this many at most is of other senders.
const OTHERS_SHARE: u64 = 10;
/// The least rate of which copies count, in bits a second. Chosen: below, a CARRY costs as much.
const LEAST_RATE: u64 = 8_000;

/// The least rate of a unit that several paths are tried for, in bits a second. Chosen: below, a
/// full link has other causes.
const LEAST_PATH_RATE: u64 = 500_000;
/// The least rate of a unit that may be held back behind its link, in bits a second. Chosen.
const LEAST_STEADY_RATE: u64 = 1_000_000;
/// A rate is steady if it changed by less than this share of it for this long. Chosen: bulk data
/// that a far link holds back; a stream of its own rate brings no more over two paths, and stays on
/// one.
const STEADY_SHARE: u64 = 3;
const STEADY_FOR: Duration = Duration::from_secs(3);
/// Intervals of which several paths must bring more: those of a steady rate.
const RECENT: usize = 3;
/// Several paths that brought no more are not tried again for this long. Chosen.
const IN_VAIN_FOR: Duration = Duration::from_secs(600);

/// Bytes of this node to one group since the last measurement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwnFlow {
    /// The group.
    pub group: Ipv6Addr,
    /// Bytes of packets of this node, each once.
    pub bytes: u64,
    /// Bytes of all senders that went through this router, own ones included.
    pub all_bytes: u64,
    /// Neighbours to which each packet goes; empty: nobody wants the group, or no longer.
    pub neighbors: Vec<OriginId>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct SenderContext<'a> {
    /// This node.
    pub node: &'a Node,
    /// Parts and their announcers.
    pub database: &'a Database,
    /// The network.
    pub graph: &'a Arc<Graph>,
    /// The present time.
    pub now: Instant,
}

/// Multicast of programs of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sends {
    Nothing,
    Groups,
    /// Packets to groups, and this node announces prefixes: some packets may be of these.
    OwnPrefixes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No carrier is found.
    Free,
    /// It stays on the sender's own tree.
    Own,
    /// A CARRY is under way, since this time.
    Asked(OriginId, Instant),
    /// The carrier announces it.
    Carried(OriginId),
}

impl State {
    fn carrier(self) -> Option<OriginId> {
        match self {
            Self::Free | Self::Own => None,
            Self::Asked(carrier, _) | Self::Carried(carrier) => Some(carrier),
        }
    }
}

/// Groups that are asked for together.
#[derive(Debug)]
struct Unit {
    parts: BTreeMap<GroupPrefix, State>,
    /// Copies of a packet before anything was carried.
    copies: u64,
    /// Neighbours that joined, as of the last measurement.
    joined: BTreeSet<OriginId>,
    last_traffic: Instant,
    /// For a unit with one copy.
    paths: Option<Paths>,
}

impl Unit {
    fn new(
        parts: Vec<GroupPrefix>,
        measured: Measured,
        paths: Option<Paths>,
        now: Instant,
    ) -> Self {
        let copies = measured.copies();
        let state = if paths.is_some() {
            State::Own
        } else {
            State::Free
        };
        Self {
            parts: parts.into_iter().map(|part| (part, state)).collect(),
            copies,
            joined: measured.joined,
            last_traffic: now,
            paths,
        }
    }

    /// The state of a part without a carrier.
    fn released(&self) -> State {
        if self.paths.is_some() {
            State::Own
        } else {
            State::Free
        }
    }

    fn held(&self) -> Shares {
        let mut held = Shares::new();
        for state in self.parts.values() {
            *held.entry(state.carrier()).or_default() += 1;
        }
        held
    }
}

/// The last request to a carrier.
#[derive(Debug)]
struct Sent {
    parts: Vec<GroupPrefix>,
    at: Instant,
    /// Names the CARRY in the answer.
    id: u64,
}

/// Flows of one unit in the last interval.
#[derive(Debug, Default)]
struct Measured {
    /// Each packet once.
    bytes: u64,
    /// Each copy.
    copied: u64,
    joined: BTreeSet<OriginId>,
    /// Groups, and whether somebody wants them.
    groups: BTreeMap<Ipv6Addr, bool>,
}

impl Measured {
    /// Mean copies of a packet, rounded.
    fn copies(&self) -> u64 {
        (self.copied + self.bytes / 2)
            .checked_div(self.bytes)
            .unwrap_or(0)
    }
}

/// A unit in the last seconds.
#[derive(Debug)]
struct Recent {
    /// The rate that later ones are about the same as, and since when.
    steady: (u64, Instant),
    /// As [`Measured::groups`], of the last interval.
    groups: BTreeMap<Ipv6Addr, bool>,
    /// The newest last.
    progress: VecDeque<Progress>,
}

impl Recent {
    fn new(now: Instant) -> Self {
        Self {
            steady: (0, now),
            groups: BTreeMap::new(),
            progress: VecDeque::new(),
        }
    }

    fn add(&mut self, rate: u64, groups: BTreeMap<Ipv6Addr, bool>, now: Instant) -> Progress {
        let (known, since) = &mut self.steady;
        if rate < LEAST_STEADY_RATE || rate.abs_diff(*known) > *known / STEADY_SHARE {
            (*known, *since) = (rate, now);
        }
        // a group may begin and end within the interval
        let began = groups
            .keys()
            .filter(|group| !self.groups.contains_key(group));
        let wanted = self.groups.iter().filter(|(_, is_wanted)| **is_wanted);
        let before = wanted.map(|(group, _)| group);
        let is_wanted = |group: &&Ipv6Addr| groups.get(group).copied().unwrap_or(false);
        let done = before
            .chain(began)
            .filter(|group| !is_wanted(group))
            .count();
        let progress = Progress {
            rate,
            done: done as u64,
            seconds: 1,
        };
        self.groups = groups;
        self.progress.push_back(progress);
        if self.progress.len() > RECENT {
            self.progress.pop_front();
        }
        progress
    }

    fn is_steady(&self, now: Instant) -> bool {
        now >= self.steady.1 + STEADY_FOR
    }

    /// Returns the progress of the last seconds.
    fn progress(&self) -> Progress {
        let mut sum = Progress::default();
        self.progress.iter().for_each(|second| sum.add(*second));
        sum
    }
}

#[derive(Debug)]
pub(super) struct Sender {
    units: BTreeMap<GroupPrefix, Unit>,
    sent: BTreeMap<OriginId, Sent>,
    refused: BTreeMap<OriginId, (Instant, Option<Answer>)>,
    short_until: Option<Instant>,
    /// Units that one path is enough for, until this time.
    in_vain: BTreeMap<GroupPrefix, Instant>,
    /// Progress of units in the last seconds.
    recent: BTreeMap<GroupPrefix, Recent>,
    /// Neighbours whose links were full at the shell's last report.
    pressed: BTreeSet<OriginId>,
    measured_at: Instant,
    sequence: u32,
    /// Bits a second with all copies, and mean copies, of the last interval.
    latest: (u64, f64),
}

impl Sender {
    pub fn new(now: Instant) -> Self {
        Self {
            units: BTreeMap::new(),
            sent: BTreeMap::new(),
            refused: BTreeMap::new(),
            short_until: None,
            in_vain: BTreeMap::new(),
            recent: BTreeMap::new(),
            pressed: BTreeSet::new(),
            measured_at: now,
            sequence: 0,
            latest: (0, 0.0),
        }
    }

    /// The uplink is another: the next measurement decides whether it is short.
    pub fn forget_shortage(&mut self) {
        self.short_until = None;
    }

    pub fn set_pressed(&mut self, pressed: BTreeSet<OriginId>) {
        self.pressed = pressed;
    }

    /// When own flows are to be measured. A host has no timer that sends nothing, or that announces
    /// nothing and whose uplink has room as far as it knows.
    pub fn next_timeout(&self, settings: CarrySettings, sends: Sends) -> Option<Instant> {
        let has_parts = !self.units.is_empty() || !self.sent.is_empty();
        let may_be_short = settings.upload.is_some() || self.pressed.len() > 1;
        let sends = match sends {
            Sends::Nothing => false,
            Sends::Groups => may_be_short,
            Sends::OwnPrefixes => true,
        };
        (has_parts || sends).then_some(self.measured_at + INTERVAL)
    }

    /// Takes the flows of the last interval: whether the uplink is slow, and which units are asked
    /// for.
    pub fn measure(
        &mut self,
        settings: CarrySettings,
        flows: Vec<OwnFlow>,
        context: &SenderContext<'_>,
    ) {
        let now = context.now;
        let elapsed = now.saturating_duration_since(self.measured_at);
        self.measured_at = now;
        if elapsed > 2 * INTERVAL && self.units.is_empty() {
            // bytes of a long time do not show the present rate
            return;
        }
        let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let rate = |bytes: u64| bytes.saturating_mul(8_000) / millis.max(1);
        let mut measured: BTreeMap<GroupPrefix, Measured> = BTreeMap::new();
        let (mut bytes, mut copied) = (0, 0);
        for flow in flows {
            let copies = flow.neighbors.len() as u64;
            bytes += flow.bytes;
            copied += flow.bytes * copies;
            let Some(unit) = unit_of(&flow, context) else {
                continue;
            };
            let of_unit = measured.entry(unit).or_default();
            of_unit.bytes += flow.bytes;
            of_unit.copied += flow.bytes * copies;
            of_unit.groups.insert(flow.group, copies > 0);
            of_unit.joined.extend(flow.neighbors);
        }
        let copies = if bytes == 0 {
            0.0
        } else {
            copied as f64 / bytes as f64
        };
        self.latest = (rate(copied), copies);
        self.refused.retain(|_, (until, _)| *until > now);
        // as if nothing was carried: else the uplink would be short every other minute
        let (mut demand, mut too_many) = (0, 0);
        for (prefix, unit) in &measured {
            let before = self.units.get(prefix).map_or(0, |known| known.copies);
            let copies = unit.copies().max(before);
            demand += unit.bytes * copies;
            too_many += unit.bytes * copies.saturating_sub(1);
        }
        let is_short = rate(too_many) >= LEAST_RATE
            && match settings.upload {
                Some(upload) => rate(demand) > upload / 2,
                None => self.is_pressed(&measured),
            };
        if is_short {
            self.short_until = Some(now + SHORT_FOR);
        }
        // one copy that takes all of the uplink is no better off on two links
        let has_room = settings
            .upload
            .is_none_or(|upload| rate(demand) < upload / 5 * 4);
        self.recent
            .retain(|prefix, _| measured.contains_key(prefix));
        for (prefix, mut unit) in measured {
            let of_unit = rate(unit.bytes);
            let recent = self
                .recent
                .entry(prefix)
                .or_insert_with(|| Recent::new(now));
            let progress = recent.add(of_unit, std::mem::take(&mut unit.groups), now);
            let needs_paths = has_room && of_unit >= LEAST_PATH_RATE;
            let link = unit.joined.first().filter(|_| unit.joined.len() == 1);
            let link = link.filter(|link| recent.is_steady(now) || self.pressed.contains(link));
            let link = link.filter(|_| needs_paths);
            let paths = link.map(|link| Paths::new(*link, recent.progress(), now));
            self.note(prefix, unit, (too_many, progress), paths, now);
        }
        self.short_until = self.short_until.filter(|until| *until > now);
        self.forget(now);
    }

    /// Drops units that are no longer sent, and those that need no carriers.
    fn forget(&mut self, now: Instant) {
        let is_short = self.short_until.is_some();
        self.in_vain.retain(|_, until| *until > now);
        let in_vain = &mut self.in_vain;
        self.units.retain(|prefix, unit| {
            let paths = unit.paths.as_mut();
            if paths.is_some_and(|paths| paths.is_in_vain(now)) {
                in_vain.insert(*prefix, now + IN_VAIN_FOR);
                return false;
            }
            (is_short || unit.paths.is_some()) && unit.last_traffic + IDLE > now
        });
    }

    /// Several links that own flows go over are full at once: a full link alone is the far side's.
    fn is_pressed(&self, measured: &BTreeMap<GroupPrefix, Measured>) -> bool {
        let used: BTreeSet<_> = measured.values().flat_map(|unit| &unit.joined).collect();
        used.into_iter()
            .filter(|x| self.pressed.contains(x))
            .count()
            >= 2
    }

    /// A unit was measured: it is asked for if it has several copies while the uplink is slow, or
    /// one that needs several paths.
    fn note(
        &mut self,
        prefix: GroupPrefix,
        measured: Measured,
        (too_many, progress): (u64, Progress),
        paths: Option<Paths>,
        now: Instant,
    ) {
        let copies = measured.copies();
        let extra = measured.bytes * copies.saturating_sub(1);
        let counts = extra > 0 && extra >= too_many / LEAST_SHARE && self.short_until.is_some();
        if let Some(unit) = self.units.get_mut(&prefix) {
            unit.last_traffic = now;
            unit.copies = unit.copies.max(copies);
            unit.joined.extend(measured.joined);
            let held = unit.held();
            if let Some(paths) = &mut unit.paths {
                paths.measured(progress, &held, now);
            }
            if counts && unit.paths.take().is_some() {
                let own = unit
                    .parts
                    .values_mut()
                    .filter(|state| **state == State::Own);
                own.for_each(|state| *state = State::Free);
            }
            return;
        }
        let splits = prefix.prefix_len() < GROUP_LEN && !self.in_vain.contains_key(&prefix);
        let paths = paths.filter(|_| splits && !counts);
        if !counts && paths.is_none() {
            return;
        }
        let states = self.units.values().flat_map(|unit| unit.parts.values());
        let held = states.filter(|state| **state != State::Own).count();
        let parts = parts_of(prefix, MAX_OWN_PARTS.saturating_sub(held));
        if !parts.is_empty() {
            let unit = Unit::new(parts, measured, paths, now);
            self.units.insert(prefix, unit);
        }
    }

    /// Follows the link state, chooses carriers for parts without one, and sends what carriers do
    /// not know.
    pub fn ask(
        &mut self,
        context: &SenderContext<'_>,
        services: &dyn Services,
    ) -> Vec<CarryMessage> {
        self.follow(context);
        self.assign(context);
        self.spread(context);
        self.send(context, services)
    }

    /// Updates which parts are carried, by the link state.
    fn follow(&mut self, context: &SenderContext<'_>) {
        let now = context.now;
        let announced: BTreeMap<_, _> = context.database.announced().collect();
        let announces = |part: &GroupPrefix, router: OriginId| {
            let announced = announced.get(part);
            announced.is_some_and(|announced| announced.announcers.contains(&router))
        };
        for unit in self.units.values_mut() {
            let released = unit.released();
            for (part, state) in &mut unit.parts {
                let Some(carrier) = state.carrier() else {
                    continue;
                };
                *state = match *state {
                    _ if announces(part, carrier) => State::Carried(carrier),
                    State::Asked(_, at) if now < at + ANSWER_TIMEOUT => continue,
                    State::Free | State::Own => continue,
                    State::Asked(..) | State::Carried(_) => {
                        self.refused
                            .entry(carrier)
                            .or_insert((now + REFUSED_FOR, None));
                        released
                    }
                };
            }
        }
    }

    /// Parts of all units by carrier.
    fn held(&self) -> BTreeMap<OriginId, usize> {
        let mut held = BTreeMap::new();
        let states = self.units.values().flat_map(|unit| unit.parts.values());
        for carrier in states.filter_map(|state| state.carrier()) {
            *held.entry(carrier).or_default() += 1;
        }
        held
    }

    fn assign(&mut self, context: &SenderContext<'_>) {
        let mut held = self.held();
        for unit in self.units.values_mut() {
            let free = |state: &&mut State| **state == State::Free;
            let missing = unit.parts.values_mut().filter(free).count();
            let Some(first) = unit.parts.keys().next().filter(|_| missing > 0) else {
                continue;
            };
            let refused = &self.refused;
            let candidates = candidates(first, context).filter(|x| !refused.contains_key(x));
            let has_room = |x: &OriginId| held.get(x).is_none_or(|parts| *parts < MAX_PARTS);
            let candidates: Vec<_> = candidates.filter(has_room).collect();
            let carriers = unit.parts.values().filter_map(|state| state.carrier());
            let assigned: Vec<_> = carriers.collect();
            let place = Place {
                graph: context.graph,
                own: context.node.own,
                joined: &unit.joined,
            };
            let chosen = choose(&place, &candidates, &assigned, missing);
            let free = unit.parts.values_mut().filter(free);
            for (state, carrier) in free.zip(chosen) {
                let parts = held.entry(carrier).or_default();
                if *parts < MAX_PARTS {
                    *parts += 1;
                    *state = State::Asked(carrier, context.now);
                }
            }
        }
    }

    /// Gives parts to carriers behind other links than the full one.
    fn spread(&mut self, context: &SenderContext<'_>) {
        let mut of_all = self.held();
        for unit in self.units.values_mut() {
            let held = unit.held();
            let (Some(paths), Some((first, _))) = (&mut unit.paths, unit.parts.first_key_value())
            else {
                continue;
            };
            let mut moves = Vec::new();
            let used = paths.links(&held);
            if paths.may_ask() && (used.len() == 1 || used.is_subset(&self.pressed)) {
                let refused = &self.refused;
                let candidates = candidates(first, context)
                    .filter(|x| !refused.contains_key(x) && paths.is_open(*x))
                    .filter(|x| of_all.get(x).is_none_or(|parts| *parts < MAX_PARTS));
                let place = Place {
                    graph: context.graph,
                    own: context.node.own,
                    joined: &unit.joined,
                };
                let closed = self.pressed.union(&used).copied().collect();
                let found = detours(&place, &candidates.collect::<Vec<_>>(), &closed);
                moves = paths.spread(held.clone(), found);
            }
            if moves.is_empty() {
                moves.extend(paths.balance(&held, &self.pressed, context.now));
            }
            for (from, to) in moves {
                // one CARRY names the parts of all units
                if to.is_some_and(|to| of_all.get(&to).is_some_and(|parts| *parts >= MAX_PARTS)) {
                    continue;
                }
                let mut states = unit.parts.values_mut();
                if let Some(state) = states.find(|state| state.carrier() == from) {
                    *state = to.map_or(State::Own, |to| State::Asked(to, context.now));
                    if let Some(parts) = from.and_then(|from| of_all.get_mut(&from)) {
                        *parts -= 1;
                    }
                    if let Some(to) = to {
                        *of_all.entry(to).or_default() += 1;
                    }
                }
            }
        }
        debug_assert_eq!(
            of_all.values().sum::<usize>(),
            self.held().values().sum::<usize>(),
            "each move is counted"
        );
    }

    fn send(&mut self, context: &SenderContext<'_>, services: &dyn Services) -> Vec<CarryMessage> {
        let now = context.now;
        let mut wanted: BTreeMap<OriginId, Vec<GroupPrefix>> = BTreeMap::new();
        for (part, state) in self.units.values().flat_map(|unit| &unit.parts) {
            if let Some(carrier) = state.carrier() {
                wanted.entry(carrier).or_default().push(*part);
            }
        }
        // a carrier that needs no part any more gets one empty request
        for carrier in self.sent.keys() {
            wanted.entry(*carrier).or_default();
        }
        let mut messages = Vec::new();
        for (carrier, parts) in wanted {
            let known = self.sent.get(&carrier);
            if known.is_some_and(|sent| sent.parts == parts && now < sent.at + REPEAT) {
                continue;
            }
            debug_assert!(
                parts.len() <= MAX_PARTS,
                "a CARRY names all parts of its carrier, {carrier:?}"
            );
            self.sequence += 1;
            let request = CarryRequest {
                incarnation: context.node.config.incarnation,
                sequence: self.sequence,
                parts: parts.clone(),
            };
            let (bytes, id) = request.encode(carrier, |message| services.sign(message));
            messages.push(CarryMessage::Request(carrier, bytes));
            if parts.is_empty() {
                self.sent.remove(&carrier);
            } else {
                self.sent.insert(carrier, Sent { parts, at: now, id });
            }
        }
        messages
    }

    /// A carrier answered. True: it refused, and parts need another one.
    pub fn refused(&mut self, from: OriginId, id: u64, answer: Answer, now: Instant) -> bool {
        let is_answer = self.sent.get(&from).is_some_and(|sent| sent.id == id);
        if !is_answer || answer == Answer::Yes {
            return false;
        }
        let is_asked = |state: &State| matches!(state, State::Asked(x, _) if *x == from);
        let mut asking = self
            .units
            .values()
            .filter(|unit| unit.parts.values().any(is_asked));
        // a router without listeners may have some in a second
        if answer != Answer::NotJoined || !asking.all(|unit| unit.paths.is_some()) {
            self.refused.insert(from, (now + REFUSED_FOR, Some(answer)));
        }
        if answer == Answer::Full {
            // it may have taken some parts: the link state shows these
            return false;
        }
        for unit in self.units.values_mut() {
            let released = unit.released();
            let asked = unit.parts.values_mut().filter(|state| is_asked(state));
            if asked.map(|state| *state = released).count() > 0
                && let Some(paths) = &mut unit.paths
            {
                paths.decline(from);
            }
        }
        true
    }

    pub fn snapshot(&self, now: Instant) -> CarrySnapshot {
        let parts = || self.units.values().flat_map(|unit| &unit.parts);
        let carried = parts().filter_map(|(prefix, state)| match state {
            State::Carried(carrier) => Some(CarriedPart {
                prefix: *prefix,
                carrier: *carrier,
            }),
            _ => None,
        });
        let refusals = self.refused.iter().filter(|(_, (until, _))| *until > now);
        let (sent, copies) = self.latest;
        CarrySnapshot {
            sent,
            copies,
            is_short: self.short_until.is_some_and(|until| until > now),
            carried: carried.collect(),
            waiting: parts().filter(|(_, state)| **state == State::Free).count(),
            refusals: refusals.map(|(x, (_, answer))| (*x, *answer)).collect(),
            ..CarrySnapshot::default()
        }
    }
}

/// The unit that a flow belongs to: the longest prefix that this node announces around the group,
/// else the group's /127.
fn unit_of(flow: &OwnFlow, context: &SenderContext<'_>) -> Option<GroupPrefix> {
    let group = flow.group;
    if !may_be_carried(group) {
        return None;
    }
    let own = context.node.config.announce.iter();
    let own = own.filter(|prefix| prefix.contains(group));
    if let Some(prefix) = own.max_by_key(|prefix| prefix.prefix_len()) {
        let announced = context.database.announced();
        let mut of_prefix = announced.filter(|(announced, _)| *announced == prefix);
        // of several announcers the root alone asks
        let is_root = of_prefix.any(|(_, announced)| announced.root == context.node.own);
        return is_root.then_some(*prefix);
    }
    let others = flow.all_bytes.saturating_sub(flow.bytes);
    let prefix = GroupPrefix::around(group, GROUP_LEN)?;
    (others <= flow.all_bytes / OTHERS_SHARE).then_some(prefix)
}

/// Whether a group's tree may move: not one whose address names its tree, nor one that stays near.
pub(super) fn may_be_carried(group: Ipv6Addr) -> bool {
    !is_source_specific(group) && (5..=14).contains(&scope(group))
}

/// The parts of a unit, as many as there is room for: sixteen, four or one of a prefix, or the /127
/// itself.
fn parts_of(unit: GroupPrefix, room: usize) -> Vec<GroupPrefix> {
    let len = unit.prefix_len();
    if len == GROUP_LEN {
        return if room > 0 { vec![unit] } else { Vec::new() };
    }
    let mut bits = SPLIT_BITS.min(GROUP_LEN.saturating_sub(len));
    while bits > 0 && 1 << bits > room {
        bits -= 1;
    }
    if bits == 0 {
        return Vec::new();
    }
    let first = unit.addr().to_bits();
    let part = |n: u128| {
        let address = first | n << (128 - u32::from(len) - u32::from(bits));
        GroupPrefix::new(Ipv6Addr::from_bits(address), len + bits).ok()
    };
    (0..1 << bits).filter_map(part).collect()
}

/// Routers that may carry a part: reachable, no stub, permitted by their certificates.
fn candidates<'a>(
    part: &GroupPrefix,
    context: &SenderContext<'a>,
) -> impl Iterator<Item = OriginId> + use<'a> {
    let (part, own, graph) = (*part, context.node.own, context.graph);
    let routers = context.database.routers();
    let able =
        routers.filter(move |(x, router)| *x != own && router.is_reachable() && !graph.is_stub(*x));
    let permitted = able.filter(move |(_, router)| {
        let prefixes = &router.credential().member.prefixes;
        prefixes.iter().any(|prefix| prefix.covers(&part))
    });
    permitted.map(|(x, _)| x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    fn prefix(text: &str) -> GroupPrefix {
        text.parse().unwrap()
    }

    #[test]
    fn a_group_that_nobody_wants_any_more_counts_once() {
        let mut recent = Recent::new(start());
        let mut done = |groups: &[(u16, bool)]| {
            let group = |n| Ipv6Addr::new(0xff1e, 1, 0, 0, 0, 0, 0, n);
            let groups = groups.iter().map(|(n, is_wanted)| (group(*n), *is_wanted));
            recent.add(1_000, groups.collect(), start()).done
        };
        assert_eq!(done(&[(1, true), (2, true)]), 0);
        assert_eq!(done(&[(1, false), (2, true), (3, false)]), 2, "3 was short");
        assert_eq!(
            done(&[(1, false), (2, true), (3, false)]),
            0,
            "late packets"
        );
        assert_eq!(done(&[]), 1);
        assert_eq!(recent.progress().done, 3, "of the last three seconds");
    }

    #[test]
    fn a_prefix_is_cut_into_as_many_parts_as_there_is_room_for() {
        let unit = prefix("ff1e:1:2:3::/64");
        let parts = parts_of(unit, 32);
        assert_eq!(parts.len(), 16);
        assert_eq!(parts[0], prefix("ff1e:1:2:3::/68"));
        assert_eq!(parts[15], prefix("ff1e:1:2:3:f000::/68"));
        assert!(parts.iter().all(|part| unit.covers(part)));
        assert_eq!(parts_of(unit, 15).len(), 8);
        assert_eq!(
            parts_of(unit, 3),
            [prefix("ff1e:1:2:3::/65"), prefix("ff1e:1:2:3:8000::/65")]
        );
        assert_eq!(parts_of(unit, 1), []);
        // longer than /127 nothing is cut: a group that its sender announces alone stays there
        assert_eq!(parts_of(prefix("ff1e::8/125"), 32).len(), 4);
        assert_eq!(parts_of(prefix("ff1e::8/128"), 32), []);
        let group = prefix("ff1e::8/127");
        assert_eq!(parts_of(group, 1), [group]);
        assert_eq!(parts_of(group, 0), []);
    }

    #[test]
    fn groups_whose_tree_is_fixed_are_never_carried() {
        for group in ["ff3e::1", "ff02::fb", "ff01::1", "ff0f::1"] {
            assert!(!may_be_carried(group.parse().unwrap()), "{group}");
        }
        for group in ["ff1e::1", "ff05::1", "ff08::1"] {
            assert!(may_be_carried(group.parse().unwrap()), "{group}");
        }
    }
}
