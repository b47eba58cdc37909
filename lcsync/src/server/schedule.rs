//! Order of sending: budgets per JOIN, fixed rates per channel, fair turns, one limit over all.
//!
//! ```text
//!            JOIN        40 ms later      a place is free     K symbols sent   K/4 more
//! (nothing) ----> Gathering -------> Waiting ---------> Burst ----------> Trickle ------> Asked
//!     ^                                 ^                 |                 |  ^           | |
//!     |                                 |                 |                 |  +- answer --+ |
//!     |                                 +-----------------+- another's JOIN +----------------+
//!     +-------------- last PART at any time; no answer within a second ----------------------+
//! ```
//!
//! A member that joins during a burst is owed the symbols that it missed, which wait for their turn
//! like all. So any number of hosts that join one channel gets no more than one host.
//!
//! While a block gathers and waits, records announce it: a JOIN before it begins costs nothing.
//!
//! A receiver that carries is joined for blocks that it has not got yet: they gather once they came.
//!
//! A place is free while everything due is sent in time. Beyond the capacity, channels wait in a
//! queue, fair between shares and between members, instead of all becoming slower.
//!
//! A stretch has no trickle: a member that lost symbols joins the repair channels of blocks. An
//! answer to the query about a stretch sends all of it once more.
//!
//! A receiver without losses leaves after the burst; its PART arrives in the pause before the
//! trickle. A receiver that vanished costs at most burst and trickle; one that needs more answers
//! the query. Recent needs beyond K lengthen the burst.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use librecast::bucket::TokenBucket;
use librecast::channel::{ChannelId, SharePrefix};
use librecast::time::{Duration, Instant};

mod capacity;
mod gate;
mod need;
mod sending;
mod symbols;
#[cfg(test)]
mod tests;
mod turns;

use self::capacity::Capacity;
use self::gate::Gate;
use self::need::{MIN_GATHERED, Need};
use self::sending::{Burst, Kept, Pace, Sending, Stage};
use self::symbols::{Positions, Start};
use super::channel::{Action, Channel, Joined, Progress, Rates, Sent, Terms, Upcoming, Wanted};
use super::queue::FairQueue;
use super::reporters::{Evidence, Reporters};
use super::traffic::Traffic;
use crate::packet::{SEALED_WIRE_SIZE, WIRE_SIZE};
use crate::stretch::{REPAIR_LAYER, STRETCH_LAYER};

/// Time for which a block gathers members: longer than a record and a JOIN in answer to it take.
const GATHER: Duration = Duration::from_millis(40);
/// The same where more receivers are known: their record and JOIN take that long on full links.
const GATHER_MORE: Duration = Duration::from_millis(64);
/// Most bursts of blocks, in rates of a channel. Chosen.
const MAX_BURSTS: u64 = 128;
/// Most bursts with stretches, in rates of a channel: 7.7 Gbit/s at 15 Mbit/s. Chosen.
const MAX_STRETCHED: u64 = 512;
/// Most channels in a burst at once. Chosen.
const MAX_BURSTING: usize = 256;
/// Most known channels; a JOIN beyond is dropped and counted.
const MAX_CHANNELS: usize = 65_536;
/// Delay of a due turn at which no further burst begins.
const BEHIND: Duration = Duration::from_millis(8);

/// Joined channels and their turns.
#[derive(Debug)]
pub struct Schedule {
    /// By layer; without stretches, the last one is unused.
    paces: [Pace; 4],
    bucket: Option<TokenBucket>,
    /// Shares with a limit of their own, or longer packets.
    terms: BTreeMap<SharePrefix, Kept>,
    channels: BTreeMap<Channel, Sending>,
    turns: BTreeSet<(Instant, Channel)>,
    gathering: BTreeSet<(Instant, Channel)>,
    queue: FairQueue,
    bursting: usize,
    /// Bits per second of all bursts.
    load: u64,
    /// The part of stretches in `load`.
    load_of_stretches: u64,
    capacity: Capacity,
    /// Interfaces that were held.
    gates: BTreeMap<u32, Gate>,
    /// Needs of members by interface and layer.
    needs: BTreeMap<(u32, u8), Need>,
    positions: Positions,
    refused: u64,
    sent: Sent,
    /// Traffic of shares that were sent.
    traffic: BTreeMap<SharePrefix, Traffic>,
    joins: u64,
}

impl Schedule {
    /// Makes a schedule without channels. `seed` sets their first symbols.
    #[must_use]
    pub fn new(rates: Rates, seed: u64, now: Instant) -> Self {
        // a turn may overdraw the bucket; its size bounds a burst back to back
        let bucket = rates.total.map(|rate| bucket_of(rate, now));
        Self {
            paces: paces_of(rates),
            bucket,
            terms: BTreeMap::new(),
            channels: BTreeMap::new(),
            turns: BTreeSet::new(),
            gathering: BTreeSet::new(),
            queue: FairQueue::default(),
            bursting: 0,
            load: 0,
            load_of_stretches: 0,
            capacity: Capacity::new(now),
            gates: BTreeMap::new(),
            needs: BTreeMap::new(),
            positions: Positions::new(seed),
            refused: 0,
            sent: Sent::default(),
            traffic: BTreeMap::new(),
            joins: 0,
        }
    }

    /// Changes rates and limit over all; bursts go on at the new ones.
    pub fn set_rates(&mut self, rates: Rates, now: Instant) {
        self.paces = paces_of(rates);
        self.bucket = rates.total.map(|rate| bucket_of(rate, now));
        (self.load, self.load_of_stretches) = (0, 0);
        self.terms.values_mut().for_each(|kept| kept.load = 0);
        self.gates.values_mut().for_each(|gate| gate.load = 0);
        for (channel, sending) in &self.channels {
            if !matches!(sending.stage, Stage::Burst { .. }) {
                continue;
            }
            let rate = self.paces[usize::from(sending.layer)].rate;
            self.load += rate;
            if sending.layer == STRETCH_LAYER {
                self.load_of_stretches += rate;
            }
            if let Some(gate) = self.gates.get_mut(&channel.interface) {
                gate.load += rate;
            }
            let share = SharePrefix::of_group(channel.group);
            if let Some(kept) = share.and_then(|share| self.terms.get_mut(&share)) {
                kept.load += rate;
            }
        }
        self.check();
    }

    /// Asserts that each channel waits in one place, and the bounds of bursts.
    fn check(&self) {
        debug_assert!(
            self.turns.len() + self.gathering.len() + self.queue.len() <= self.channels.len(),
            "a channel gathers, waits for a place, or has a turn"
        );
        debug_assert!(self.channels.len() <= MAX_CHANNELS, "channels have a bound");
        debug_assert!(self.bursting <= MAX_BURSTING, "bursts have a bound");
        debug_assert!(
            self.bursting > 0 || self.load == 0,
            "only bursts have a load: {}",
            self.load
        );
        debug_assert!(
            self.load_of_stretches <= self.load,
            "the load of stretches is a part of all"
        );
    }

    /// Holds the symbols of an interface back until then, as packets `wait` there; other interfaces go
    /// on.
    pub fn hold(&mut self, interface: u32, wait: Duration, until: Instant, now: Instant) {
        let (channels, paces) = (&self.channels, &self.paces);
        let gate = self.gates.entry(interface).or_insert_with(|| {
            let bursts = channels.iter().filter(|(channel, sending)| {
                channel.interface == interface && matches!(sending.stage, Stage::Burst { .. })
            });
            let load = bursts.map(|(_, s)| paces[usize::from(s.layer)].rate);
            Gate::new(load.sum(), now)
        });
        gate.hold(wait, until);
    }

    /// Whether more waits to be sent on an interface than leaves where it is held now and then.
    #[must_use]
    pub fn is_held(&self, interface: u32) -> bool {
        let gate = self.gates.get(&interface);
        gate.is_some_and(|gate| gate.capacity.measured().is_some())
    }

    /// Sets limit and sealing of a share.
    pub fn set_terms(&mut self, prefix: SharePrefix, terms: Terms, now: Instant) {
        let old = self.terms.remove(&prefix);
        if terms == Terms::default() {
            return;
        }
        let paces = self.paces;
        let bursts = self.channels.iter().filter(|(channel, sending)| {
            SharePrefix::of_group(channel.group) == Some(prefix)
                && matches!(sending.stage, Stage::Burst { .. })
        });
        let load = bursts.map(|(_, s)| paces[usize::from(s.layer)].rate).sum();
        let same = old.filter(|old| old.terms.limit == terms.limit);
        let bucket = match same {
            Some(old) => old.bucket,
            None => terms.limit.map(|rate| bucket_of(rate, now)),
        };
        let kept = Kept {
            terms,
            bucket,
            load,
        };
        self.terms.insert(prefix, kept);
    }

    /// Limit of the share of `group`.
    #[must_use]
    pub fn limit_of(&self, group: Ipv6Addr) -> Option<u64> {
        let prefix = SharePrefix::of_group(group)?;
        self.terms.get(&prefix)?.terms.limit
    }

    fn kept(&mut self, channel: Channel) -> Option<&mut Kept> {
        self.terms.get_mut(&SharePrefix::of_group(channel.group)?)
    }

    /// Bytes of a symbol packet of the channel, with IPv6 and UDP.
    fn wire_size(&mut self, channel: Channel) -> u64 {
        let sealed = self.kept(channel).is_some_and(|k| k.terms.sealed);
        if sealed { SEALED_WIRE_SIZE } else { WIRE_SIZE }
    }

    /// Notes that `reporter` is a member of `channel`.
    pub fn join(
        &mut self,
        channel: Channel,
        wanted: Wanted,
        reporter: Ipv6Addr,
        evidence: Evidence,
        now: Instant,
    ) {
        let Some(sending) = self.channels.get_mut(&channel) else {
            self.joins += 1;
            self.begin(channel, wanted, reporter, evidence, now);
            return;
        };
        let new = sending.reporters.add(reporter, evidence);
        sending.receivers = wanted.receivers;
        self.joins += u64::from(new);
        sending.evidence_at = now;
        sending.sent_on_evidence = 0;
        let asked = matches!(sending.stage, Stage::Asked { .. });
        // hosts repeat each change: that of a known reporter is not a new JOIN
        if new && evidence != Evidence::Confirmed {
            self.renew(channel, reporter, now);
        } else if asked {
            self.answered(channel, reporter, now);
        }
        self.check();
    }

    /// Notes that `reporter` has left.
    pub fn part(&mut self, channel: Channel, reporter: Ipv6Addr, now: Instant) {
        let Some(sending) = self.channels.get_mut(&channel) else {
            return;
        };
        if let Some(at) = sending.whole_at.take() {
            let key = (channel.interface, sending.layer);
            let need = self.needs.entry(key).or_default();
            need.left(now.saturating_duration_since(at));
        }
        match sending.reporters.remove(reporter) {
            Some(true) => {
                self.learn(channel, now);
                self.stop(channel, now);
            }
            Some(false) => {}
            None => self.ask_at_next_turn(channel, now),
        }
    }

    /// Notes that `reporter`, of MLDv1, has left (RFC 9777 §8.3.2).
    pub fn done(&mut self, channel: Channel, reporter: Ipv6Addr, now: Instant) {
        let sending = self.channels.get_mut(&channel);
        match sending.filter(|s| s.reporters.version_1()) {
            Some(sending) => {
                sending.reporters.remove(reporter);
                self.ask_at_next_turn(channel, now);
            }
            None => self.part(channel, reporter, now),
        }
    }

    /// Whether `channel` is joined.
    #[must_use]
    pub fn has(&self, channel: Channel) -> bool {
        self.channels.contains_key(&channel)
    }

    /// Begins to send on `channel`, whose block has come.
    pub fn came(&mut self, channel: Channel, now: Instant) {
        if let Some(sending) = self.channels.get_mut(&channel)
            && matches!(sending.stage, Stage::Awaited)
        {
            sending.stage = Stage::Gathering { until: now };
            sending.evidence_at = now;
            self.gathering.insert((now, channel));
        }
    }

    /// Stops sending on `channel`: its block is gone.
    pub fn stop(&mut self, channel: Channel, now: Instant) {
        let Some(sending) = self.channels.remove(&channel) else {
            return;
        };
        self.turns.remove(&(sending.due, channel));
        match sending.stage {
            Stage::Burst { .. } => self.leave_burst(channel, sending.layer),
            Stage::Gathering { until } => {
                self.gathering.remove(&(until, channel));
            }
            Stage::Waiting { ticket } => {
                self.queue.remove(channel, ticket);
            }
            Stage::Awaited | Stage::Trickle { .. } | Stage::Asked { .. } => {}
        }
        self.positions.remember(channel, sending.position, now);
        self.check();
    }

    /// Stops all channels for which `gone` is true.
    pub fn stop_all(&mut self, gone: impl Fn(&Channel) -> bool, now: Instant) {
        let those: Vec<Channel> = self.channels.keys().filter(|c| gone(c)).copied().collect();
        for channel in those {
            self.stop(channel, now);
        }
    }

    /// Returns channels to be sent of the share of `root`: first waiting ones, then those in a
    /// burst. It considers about `most` channels.
    pub fn upcoming(&self, root: Channel, most: usize) -> impl Iterator<Item = Upcoming> + '_ {
        let waiting = self.queue.of_share(root).take(most);
        let gathering = self.gathering.iter().map(|(_, channel)| channel);
        let turns = self.turns.iter().map(|(_, channel)| channel);
        let prefix = SharePrefix::of_group(root.group);
        let of_share = move |channel: &&Channel| {
            channel.interface == root.interface && SharePrefix::of_group(channel.group) == prefix
        };
        waiting
            .chain(gathering.chain(turns).take(most).filter(of_share))
            .filter_map(|channel| {
                let sending = self.channels.get(channel)?;
                let left = match sending.stage {
                    Stage::Gathering { .. } | Stage::Waiting { .. } if sending.owed > 0 => {
                        sending.owed
                    }
                    Stage::Gathering { .. } | Stage::Waiting { .. } => sending.symbols,
                    Stage::Burst { left } => left + sending.owed,
                    Stage::Awaited | Stage::Trickle { .. } | Stage::Asked { .. } => return None,
                };
                Some(Upcoming {
                    group: channel.group,
                    left: left.min(sending.symbols),
                    missed: sending.reporters.are_fewer_than(sending.receivers),
                })
            })
    }

    /// Joined channels of a share on an interface.
    pub fn joined_of(
        &self,
        share: SharePrefix,
        interface: u32,
    ) -> impl Iterator<Item = Joined<'_>> {
        let of = |channel| Channel {
            interface,
            group: share.group(channel),
        };
        let all = self.channels.range(of(ChannelId::MIN)..=of(ChannelId::MAX));
        all.map(|(channel, sending)| Joined {
            channel: *channel,
            progress: match sending.stage {
                Stage::Awaited => Progress::Awaited,
                Stage::Gathering { .. } => Progress::Gathering,
                Stage::Waiting { .. } => Progress::Waiting,
                Stage::Burst { .. } => Progress::Sending,
                Stage::Trickle { .. } => Progress::Trickling,
                Stage::Asked { .. } => Progress::Asked,
            },
            symbols: sending.symbols,
            reporters: &sending.reporters,
        })
    }

    /// Traffic of a share, if any.
    #[must_use]
    pub fn traffic(&self, share: SharePrefix) -> Option<&Traffic> {
        self.traffic.get(&share)
    }

    /// Drops the traffic counters of a share.
    pub fn forget(&mut self, share: SharePrefix) {
        self.traffic.remove(&share);
    }

    fn traffic_of(&mut self, channel: Channel, now: Instant) -> Option<&mut Traffic> {
        let share = SharePrefix::of_group(channel.group)?;
        let traffic = self.traffic.entry(share);
        Some(traffic.or_insert_with(|| Traffic::new(now)))
    }

    /// Bits per second of all bursts, at most the capacity.
    #[must_use]
    pub fn load(&self) -> u64 {
        let held: u64 = self.gates.values().map(|gate| gate.load).sum();
        let leaving: u64 = self.gates.values().map(Gate::leaving).sum();
        let load = self.load.saturating_sub(held) + leaving;
        load.min(self.capacity.measured().unwrap_or(u64::MAX))
    }

    /// Capacity in bits per second on an interface, while more waits to be sent.
    #[must_use]
    pub fn capacity(&self, interface: u32) -> Option<u64> {
        let gate = self.gates.get(&interface);
        let held = gate.and_then(|gate| gate.capacity.measured());
        held.into_iter().chain(self.capacity.measured()).min()
    }

    /// The least capacity of all interfaces.
    #[must_use]
    pub fn least_capacity(&self) -> Option<u64> {
        let held = self.gates.values();
        let held = held.filter_map(|gate| gate.capacity.measured());
        held.chain(self.capacity.measured()).min()
    }

    /// The last bits per second that left while more waited.
    #[must_use]
    pub fn last_capacity(&self) -> Option<u64> {
        let gates = self.gates.values().filter_map(|gate| gate.capacity.last());
        gates.chain(self.capacity.last()).min()
    }

    /// Interfaces with joined channels.
    #[must_use]
    pub fn interfaces(&self) -> BTreeSet<u32> {
        self.channels.keys().map(|c| c.interface).collect()
    }

    /// Joined channels.
    #[must_use]
    pub fn joined(&self) -> usize {
        self.channels.len()
    }

    /// JOINs that were dropped, as too many channels were joined.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// JOINs of channels since the start, without repetitions by a reporter.
    #[must_use]
    pub fn joins(&self) -> u64 {
        self.joins
    }

    /// Channels in a burst.
    #[must_use]
    pub fn bursting(&self) -> usize {
        self.bursting
    }

    /// Symbols sent since the start.
    #[must_use]
    pub fn sent(&self) -> Sent {
        self.sent
    }

    /// Returns when [`poll`](Self::poll) is due.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let turn = self
            .next_turn()
            .map(|(due, _)| self.bucket.as_ref().map_or(due, |b| b.ready_at().max(due)));
        let gathered = self.gathering.first().map(|(until, _)| *until);
        turn.into_iter().chain(gathered).min()
    }

    /// Returns the next action.
    pub fn poll(&mut self, now: Instant) -> Option<Action> {
        loop {
            self.admit(now);
            let (at, turn) = self.next_turn()?;
            if at > now || self.bucket.as_mut().is_some_and(|b| !b.ready(now)) {
                self.check();
                return None;
            }
            self.turns.remove(&turn);
            let (_, channel) = turn;
            if let Some(action) = self.take_turn(channel, now) {
                return Some(action);
            }
        }
    }

    /// Returns the next turn and its time: those of held interfaces wait, and keep their order.
    fn next_turn(&self) -> Option<(Instant, (Instant, Channel))> {
        let mut next: Option<(Instant, (Instant, Channel))> = None;
        for turn in &self.turns {
            let (due, channel) = *turn;
            if next.is_some_and(|(at, _)| at <= due) {
                break;
            }
            let gate = self.gates.get(&channel.interface);
            let at = gate.map_or(due, |gate| gate.opens(due));
            if next.is_none_or(|(earlier, _)| at < earlier) {
                next = Some((at, *turn));
            }
        }
        next
    }

    /// Measures what leaves; returns whether a turn is late where no interface is held.
    fn look_at_capacity(&mut self, now: Instant) -> bool {
        let mut behind = false;
        self.gates
            .values_mut()
            .for_each(|gate| gate.is_behind = false);
        for (_, channel) in self.turns.iter().take_while(|(due, _)| *due + BEHIND < now) {
            match self.gates.get_mut(&channel.interface) {
                Some(gate) => gate.is_behind = true,
                None => behind = true,
            }
        }
        self.capacity.look(behind, !self.queue.is_empty(), now);
        for (interface, gate) in &mut self.gates {
            let waits = self.queue.has_any_on(*interface);
            gate.capacity.look(gate.is_behind, waits, now);
        }
        behind
    }

    fn begin(
        &mut self,
        channel: Channel,
        wanted: Wanted,
        reporter: Ipv6Addr,
        evidence: Evidence,
        now: Instant,
    ) {
        let symbols = wanted.symbols;
        let layer = wanted.layer.min(STRETCH_LAYER);
        if symbols == 0 || !self.make_room(channel, reporter, now) {
            self.refused += 1;
            return;
        }
        let mut reporters = Reporters::default();
        reporters.add(reporter, evidence);
        let start = match layer {
            REPAIR_LAYER => Start::Repair,
            STRETCH_LAYER => Start::Around(wanted.start),
            _ => Start::Anywhere,
        };
        let position = self.positions.begin(channel, symbols, start, now);
        let gather = if symbols < MIN_GATHERED {
            Duration::ZERO
        } else if wanted.receivers > 1 {
            GATHER_MORE
        } else {
            GATHER
        };
        let until = now + gather;
        let sending = Sending {
            symbols,
            layer,
            reporters,
            receivers: wanted.receivers,
            list: wanted.list,
            blocks: wanted.blocks,
            stage: match wanted.absent {
                true => Stage::Awaited,
                false => Stage::Gathering { until },
            },
            position,
            due: now,
            evidence_at: now,
            sent_on_evidence: 0,
            extra: 0,
            pauses: [None; 6],
            whole_at: None,
            sent_in_burst: 0,
            owed: 0,
            burst: if position.sequence() == 0 {
                Burst::First
            } else {
                Burst::Again
            },
            hopeful: reporter,
            next_turn: 0,
            answers: 0,
        };
        let replaced = self.channels.insert(channel, sending);
        debug_assert!(replaced.is_none(), "a channel begins once");
        if !wanted.absent {
            self.gathering.insert((until, channel));
        }
        self.check();
    }

    /// Makes room for one more channel: the last in the queue stops, if its member has had more.
    fn make_room(&mut self, channel: Channel, reporter: Ipv6Addr, now: Instant) -> bool {
        if self.channels.len() < MAX_CHANNELS {
            return true;
        }
        let Some(its) = self.queue.last_before(channel, reporter) else {
            return false;
        };
        self.refused += 1;
        self.stop(its, now);
        true
    }

    /// Queues gathered channels, and begins bursts for which room is free.
    fn admit(&mut self, now: Instant) {
        while let Some((until, channel)) = self.gathering.first().copied()
            && until <= now
        {
            self.gathering.pop_first();
            if let Some(sending) = self.channels.get_mut(&channel) {
                let cost = match sending.owed {
                    0 => sending.symbols,
                    owed => owed,
                };
                let ticket = self
                    .queue
                    .push(channel, sending.hopeful, cost, sending.next_turn);
                sending.stage = Stage::Waiting { ticket };
            }
        }
        let behind = self.look_at_capacity(now);
        let total = self.bucket.as_ref().map(TokenBucket::rate);
        let limit = total.into_iter().chain(self.capacity.measured()).min();
        // a little more than fits, so that all of it is used
        let fits = limit.map_or(u64::MAX, |limit| limit + limit / 10);
        let rate = self.paces[0].rate;
        while !behind && self.bursting < MAX_BURSTING {
            let most = MAX_BURSTS * rate + self.load_of_stretches;
            if self.load >= most.min(MAX_STRETCHED * rate).min(fits) {
                return;
            }
            let (terms, gates) = (&self.terms, &self.gates);
            let full = |channel: &Channel| {
                let gate = gates.get(&channel.interface);
                if gate.is_some_and(Gate::is_full) {
                    return true;
                }
                let prefix = SharePrefix::of_group(channel.group);
                let kept = prefix.and_then(|p| terms.get(&p));
                kept.is_some_and(Kept::is_full)
            };
            let Some((ticket, channel)) = self.queue.pop(full) else {
                return;
            };
            let need = self.need_of(channel);
            let Some(sending) = self.channels.get_mut(&channel) else {
                continue;
            };
            sending.next_turn = ticket.end();
            if sending.layer == REPAIR_LAYER {
                sending.due = sending.due.max(now);
                self.enter_trickle(channel);
                continue;
            }
            let blocks = sending.blocks;
            let owed = std::mem::take(&mut sending.owed);
            let left = match owed {
                0 => {
                    (sending.sent_in_burst, sending.answers) = (0, 0);
                    sending.extra = sending.extra_of(need);
                    sending.symbols + sending.extra
                }
                owed => {
                    sending.burst = Burst::Late;
                    owed
                }
            };
            // the pace of its last burst still holds
            sending.due = sending.due.max(now);
            self.enter_burst(channel, left);
            if owed == 0
                && let Some(traffic) = self.traffic_of(channel, now)
            {
                traffic.begin_blocks(blocks);
            }
        }
    }
}

/// Returns the paces by layer.
fn paces_of(rates: Rates) -> [Pace; 4] {
    let stretch = rates.stretch.unwrap_or(rates.channel);
    [rates.channel, rates.slow, rates.channel, stretch].map(Pace::new)
}

/// A turn may overdraw the bucket; its size bounds a burst back to back.
fn bucket_of(rate: u64, now: Instant) -> TokenBucket {
    TokenBucket::new(rate, (rate / 8 / 500).max(WIRE_SIZE), now)
}
