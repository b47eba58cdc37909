//! What is sent next: budgets per JOIN, fixed rates per channel, fair turns, one limit over all.
//!
//! ```text
//!            JOIN            40 ms later       a place is free        K symbols sent       a quarter of K more
//! (nothing) ------> Gathering ---------> Waiting -------------> Burst --------------> Trickle --------------> Asked
//!     ^                                     ^                    |                    |  ^                     | |
//!     |                                     |                    |                    |  +------ answer -------+ |
//!     |                                     +--------------------+-- another's JOIN --+--------------------------+
//!     +---------------------- last PART at any time; no answer within a second ----------------------------------+
//! ```
//!
//! Who joins after a burst has begun is owed what he missed of it, and that waits for its turn like everything else:
//! however many hosts join one channel, they get no more of the server than one.
//!
//! While a block gathers and waits, records announce it: whoever joins before it begins costs nothing.
//!
//! A place is free as long as everything due is sent in time: beyond what the link, the limit or the processor can
//! carry, channels wait in a queue that is fair between shares and between those who have joined, instead of all
//! becoming slower.
//!
//! A receiver that lost nothing leaves after the burst; the pause before the trickle lets its PART come in time.
//! One that vanished costs at most the burst and the trickle. Whoever needs more answers the question. How much more
//! than K members have needed lately lengthens the burst.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use librecast::bucket::TokenBucket;
use librecast::channel::{ChannelId, SharePrefix};
use librecast::coding::SYMBOL_SIZE;
use serde::{Deserialize, Serialize};

mod capacity;
mod need;
mod symbols;
#[cfg(test)]
mod tests;

use self::capacity::Capacity;
use self::need::Need;
use self::symbols::{Position, Positions};
use super::queue::{FairQueue, Ticket};
use super::reporters::{Evidence, Reporters};
use super::traffic::Traffic;
use crate::packet::WIRE_SIZE;
use crate::sealing::SEALED_WIRE_SIZE;

/// A group on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel {
    /// Index of the interface.
    pub interface: u32,
    /// The group.
    pub group: Ipv6Addr,
}

/// How fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// Bits per second of each channel, IP headers included.
    pub channel: u64,
    /// The same for channels of the slow layer.
    pub slow: u64,
    /// Bits per second over all channels.
    pub total: Option<u64>,
}

/// What the shell is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send these symbols of the channel's block.
    Symbols {
        /// Where.
        channel: Channel,
        /// Sequence number of the first; the others follow.
        sequence: u32,
        /// Encoding symbol ids.
        ids: Vec<u32>,
    },
    /// Send a group-specific query: is anybody still there?
    Ask {
        /// Where.
        channel: Channel,
    },
}

/// What is joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Bytes of the block.
    pub length: u32,
    /// 0: at the normal rate, 1: slowly.
    pub layer: u8,
    /// Hosts that are there and may want it, as far as is known.
    pub receivers: usize,
    /// It tells of other blocks.
    pub list: bool,
}

/// What holds for all channels of a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Terms {
    /// Bits per second over all of them.
    pub limit: Option<u64>,
    /// Whether packets are sealed, and so longer.
    pub sealed: bool,
}

/// A block that will be sent, or is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upcoming {
    /// Its group.
    pub group: Ipv6Addr,
    /// Symbols that will come without a further JOIN.
    pub left: u32,
    /// Not all have joined who are there.
    pub missed: bool,
}

/// How far a joined channel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Progress {
    /// Others may still join before it begins.
    Gathering,
    /// In the queue.
    Waiting,
    /// At full rate.
    Sending,
    /// All was sent; a little more, for who lost some.
    Trickling,
    /// Is anybody still there?
    Asked,
}

impl Progress {
    /// As users read it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gathering => "gathering",
            Self::Waiting => "waiting",
            Self::Sending => "sending",
            Self::Trickling => "trickling",
            Self::Asked => "asked",
        }
    }
}

/// A channel that has been joined.
#[derive(Debug)]
pub struct Joined<'a> {
    /// Where.
    pub channel: Channel,
    /// How far it is.
    pub progress: Progress,
    /// Symbols of its block.
    pub symbols: u32,
    /// Who has joined.
    pub reporters: &'a Reporters,
}

/// Symbols sent since the start, by what for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sent {
    /// In the burst of a block that nobody had joined for some seconds.
    pub first: u64,
    /// In further bursts, for who joined when the first was over.
    pub again: u64,
    /// For who joined while a burst was going on.
    pub late: u64,
    /// After bursts, for who needed more.
    pub trickle: u64,
}

impl Sent {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.first + self.again + self.late + self.trickle
    }
}

/// A block waits so long for others to join it: longer than a record and a JOIN in answer to it take.
const GATHER: Duration = Duration::from_millis(40);
/// Where others are known to be there: as long as that takes on links that are full.
const GATHER_MORE: Duration = Duration::from_millis(64);
/// Blocks of fewer symbols do not gather, nor are they repaired a few symbols at a time: what they cost is less than the time.
const MIN_GATHERED: u32 = 64;
const MIN_TRICKLE: u32 = 16;
/// Answers to questions that bring a trickle only; the next one a whole burst.
const TRICKLES: u8 = 2;
/// Evidence of a member holds for this many times K symbols, and this long.
const HARD_SYMBOLS: u32 = 4;
const HARD_TIME: Duration = Duration::from_secs(10);
/// A question is repeated once, then the channel is given up.
const ASK_AGAIN: Duration = Duration::from_millis(400);
const ASKS: u8 = 2;
/// Bursts at once: so many times the rate of a channel, and so many channels.
const MAX_BURSTS: u64 = 128;
const MAX_BURSTING: usize = 256;
/// Channels known at once; a JOIN beyond is dropped and counted.
const MAX_CHANNELS: usize = 65_536;
/// What a channel sends in one turn takes about this long at its rate.
const TURN: Duration = Duration::from_millis(7);
const MAX_TURN: u64 = 32;
/// A sender that was held up does not catch up on more than this.
const MAX_LAG: Duration = Duration::from_millis(20);
/// One that is so late takes on no more.
const BEHIND: Duration = Duration::from_millis(8);
/// Joined channels and their turns.
#[derive(Debug)]
pub struct Schedule {
    paces: [Pace; 2],
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
    capacity: Capacity,
    /// What members have needed on an interface and layer.
    needs: BTreeMap<(u32, u8), Need>,
    positions: Positions,
    refused: u64,
    sent: Sent,
    /// Of shares that something was sent of.
    traffic: BTreeMap<SharePrefix, Traffic>,
    joins: u64,
}

/// The rate of a layer.
#[derive(Debug, Clone, Copy)]
struct Pace {
    rate: u64,
    symbol_time: Duration,
    /// Symbols a turn.
    turn: u32,
}

impl Pace {
    fn new(rate: u64) -> Self {
        let symbol_time = Duration::from_nanos(WIRE_SIZE * 8 * 1_000_000_000 / rate.max(1));
        let turn = (TURN.as_nanos() / symbol_time.as_nanos().max(1)).clamp(1, MAX_TURN.into());
        Self {
            rate,
            symbol_time,
            turn: turn as u32,
        }
    }
}

/// The terms of a share, and how far they are kept.
#[derive(Debug)]
struct Kept {
    terms: Terms,
    bucket: Option<TokenBucket>,
    /// Bits per second of its bursts.
    load: u64,
}

impl Kept {
    /// Whether it sends as much as it may, and a little more, so that nothing is left unused.
    fn is_full(&self) -> bool {
        self.terms.limit.is_some_and(|l| self.load >= l + l / 10)
    }
}

#[derive(Debug)]
struct Sending {
    symbols: u32,
    layer: u8,
    reporters: Reporters,
    receivers: usize,
    list: bool,
    stage: Stage,
    position: Position,
    due: Instant,
    evidence_at: Instant,
    sent_on_evidence: u32,
    /// What its burst has beyond K.
    extra: u32,
    /// When the burst and the last symbols after it were sent, and how many there were by then.
    pauses: [Option<(Instant, u32)>; 6],
    /// When K symbols had been sent, until the first member leaves.
    whole_at: Option<Instant>,
    /// Symbols since the burst began, or since somebody joined after that.
    sent_in_burst: u32,
    /// Symbols that who joined last has missed, to be sent when it is his turn.
    owed: u32,
    /// What the present burst is for.
    burst: Burst,
    /// Who has joined last in the hope of a burst.
    hopeful: Ipv6Addr,
    /// Virtual time before which it has no further turn.
    next_turn: u64,
    /// Answers to questions since then.
    answers: u8,
}

/// For whom a burst is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Burst {
    First,
    Again,
    Late,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Gathering {
        until: Instant,
    },
    Waiting {
        ticket: Ticket,
    },
    Burst {
        left: u32,
    },
    /// `run` symbols come before the next pause.
    Trickle {
        left: u32,
        sent: u32,
        run: u32,
    },
    Asked {
        times: u8,
    },
}

impl Sending {
    /// How much longer than K its burst is. Lists are short, and who gets one later than others begins without them.
    fn extra_of(&self, need: Need) -> u32 {
        if self.list && self.receivers > 1 {
            self.symbols.div_ceil(2)
        } else {
            need.burst(self.symbols)
        }
    }
}

impl Schedule {
    /// Nothing joined. `seed` decides where symbols start.
    #[must_use]
    pub fn new(rates: Rates, seed: u64, now: Instant) -> Self {
        // a turn may overdraw the bucket; its size decides how much goes out back to back
        let bucket = rates.total.map(|rate| bucket_of(rate, now));
        Self {
            paces: [Pace::new(rates.channel), Pace::new(rates.slow)],
            bucket,
            terms: BTreeMap::new(),
            channels: BTreeMap::new(),
            turns: BTreeSet::new(),
            gathering: BTreeSet::new(),
            queue: FairQueue::default(),
            bursting: 0,
            load: 0,
            capacity: Capacity::new(now),
            needs: BTreeMap::new(),
            positions: Positions::new(seed),
            refused: 0,
            sent: Sent::default(),
            traffic: BTreeMap::new(),
            joins: 0,
        }
    }

    /// What holds for a share from now on.
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

    /// The limit of the share that `group` belongs to.
    #[must_use]
    pub fn limit_of(&self, group: Ipv6Addr) -> Option<u64> {
        let prefix = SharePrefix::of_group(group)?;
        self.terms.get(&prefix)?.terms.limit
    }

    fn kept(&mut self, channel: Channel) -> Option<&mut Kept> {
        self.terms.get_mut(&SharePrefix::of_group(channel.group)?)
    }

    /// Bytes of one of its packets, with IPv6 and UDP.
    fn wire_size(&mut self, channel: Channel) -> u64 {
        let sealed = self.kept(channel).is_some_and(|k| k.terms.sealed);
        if sealed { SEALED_WIRE_SIZE } else { WIRE_SIZE }
    }

    /// `reporter` is a member of `channel`.
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
        // hosts repeat each change: from a known reporter it is no new wish
        if new && evidence != Evidence::Confirmed {
            self.renew(channel, reporter, now);
        } else if asked {
            self.answered(channel, reporter, now);
        }
    }

    /// `reporter` has left.
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

    /// `reporter`, of version 1, has left (RFC 9777 §8.3.2).
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

    /// Sends no more on `channel`: its block is gone.
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
            Stage::Trickle { .. } | Stage::Asked { .. } => {}
        }
        self.positions.remember(channel, sending.position, now);
    }

    /// Stops every channel that `gone` says is gone.
    pub fn stop_all(&mut self, gone: impl Fn(&Channel) -> bool, now: Instant) {
        let those: Vec<Channel> = self.channels.keys().filter(|c| gone(c)).copied().collect();
        for channel in those {
            self.stop(channel, now);
        }
    }

    /// What comes next of the share that `root` belongs to, those first that have not begun; then what is in its burst.
    /// At most about `most` channels are looked at.
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
                    Stage::Trickle { .. } | Stage::Asked { .. } => return None,
                };
                Some(Upcoming {
                    group: channel.group,
                    left: left.min(sending.symbols),
                    missed: sending.reporters.are_fewer_than(sending.receivers),
                })
            })
    }

    /// The joined channels of a share on an interface.
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

    /// What was sent of a share, if anything was.
    #[must_use]
    pub fn traffic(&self, share: SharePrefix) -> Option<&Traffic> {
        self.traffic.get(&share)
    }

    /// What was sent of a share is of no interest any more.
    pub fn forget(&mut self, share: SharePrefix) {
        self.traffic.remove(&share);
    }

    fn traffic_of(&mut self, channel: Channel, now: Instant) -> Option<&mut Traffic> {
        let share = SharePrefix::of_group(channel.group)?;
        let traffic = self.traffic.entry(share);
        Some(traffic.or_insert_with(|| Traffic::new(now)))
    }

    /// Bits per second of all bursts, as far as there is room for them.
    #[must_use]
    pub fn load(&self) -> u64 {
        self.load.min(self.capacity().unwrap_or(u64::MAX))
    }

    /// Bits per second that can be sent, if more is asked for.
    #[must_use]
    pub fn capacity(&self) -> Option<u64> {
        self.capacity.measured()
    }

    /// Interfaces with joined channels.
    #[must_use]
    pub fn interfaces(&self) -> BTreeSet<u32> {
        self.channels.keys().map(|c| c.interface).collect()
    }

    /// Channels joined at the moment.
    #[must_use]
    pub fn joined(&self) -> usize {
        self.channels.len()
    }

    /// JOINs dropped because too many channels were joined.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// JOINs of channels since the start, each reporter's repeated ones not counted.
    #[must_use]
    pub fn joins(&self) -> u64 {
        self.joins
    }

    /// Joined channels that send at full rate now.
    #[must_use]
    pub fn bursting(&self) -> usize {
        self.bursting
    }

    /// Symbols sent since the start.
    #[must_use]
    pub fn sent(&self) -> Sent {
        self.sent
    }

    /// When [`poll`](Self::poll) will have something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let turn = self.turns.first().map(|(due, _)| {
            self.bucket
                .as_ref()
                .map_or(*due, |b| b.ready_at().max(*due))
        });
        let gathered = self.gathering.first().map(|(until, _)| *until);
        turn.into_iter().chain(gathered).min()
    }

    /// The next thing to do now.
    pub fn poll(&mut self, now: Instant) -> Option<Action> {
        loop {
            self.admit(now);
            let (due, channel) = *self.turns.first()?;
            if due > now || self.bucket.as_mut().is_some_and(|b| !b.ready(now)) {
                return None;
            }
            self.turns.pop_first();
            if let Some(action) = self.take_turn(channel, now) {
                return Some(action);
            }
        }
    }

    fn begin(
        &mut self,
        channel: Channel,
        wanted: Wanted,
        reporter: Ipv6Addr,
        evidence: Evidence,
        now: Instant,
    ) {
        let symbols = (wanted.length as usize).div_ceil(SYMBOL_SIZE) as u32;
        let layer = wanted.layer.min(1);
        if symbols == 0 || !self.make_room(channel, reporter, now) {
            self.refused += 1;
            return;
        }
        let mut reporters = Reporters::default();
        reporters.add(reporter, evidence);
        let position = self.positions.begin(channel, symbols, now);
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
            stage: Stage::Gathering { until },
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
        self.channels.insert(channel, sending);
        self.gathering.insert((until, channel));
    }

    /// Room for one more channel: the last in the queue gives way to who has had less.
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

    /// Takes in what has gathered, and begins what there is room for.
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
        let behind = self
            .turns
            .first()
            .is_some_and(|(due, _)| *due + BEHIND < now);
        self.capacity.look(behind, !self.queue.is_empty(), now);
        let total = self.bucket.as_ref().map(TokenBucket::rate);
        let limit = total.into_iter().chain(self.capacity()).min();
        // a little more than fits, so that nothing is left unused
        let fits = limit.map_or(u64::MAX, |limit| limit + limit / 10);
        let most = fits.min(MAX_BURSTS * self.paces[0].rate);
        while !behind && self.load < most && self.bursting < MAX_BURSTING {
            let terms = &self.terms;
            let full = |channel: &Channel| {
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
            // not before the pace of its last burst allows
            sending.due = sending.due.max(now);
            self.enter_burst(channel, left);
            if owed == 0
                && let Some(traffic) = self.traffic_of(channel, now)
            {
                traffic.begin_block();
            }
        }
    }

    fn need_of(&self, channel: Channel) -> Need {
        let sending = self.channels.get(&channel);
        let need = sending.and_then(|s| self.needs.get(&(channel.interface, s.layer)));
        need.copied().unwrap_or_default()
    }

    /// Somebody has joined who needs a whole burst, counted from now.
    fn renew(&mut self, channel: Channel, reporter: Ipv6Addr, now: Instant) {
        let need = self.need_of(channel);
        let Some(sending) = self.channels.get_mut(&channel) else {
            return;
        };
        let fresh = sending.symbols + sending.extra_of(need);
        match sending.stage {
            // who comes with the first symbols misses none
            Stage::Gathering { .. } | Stage::Waiting { .. } if sending.owed == 0 => return,
            Stage::Burst { .. } if sending.sent_in_burst == 0 && sending.owed == 0 => return,
            Stage::Gathering { .. } | Stage::Waiting { .. } => {
                sending.owed = fresh;
            }
            Stage::Burst { left } => sending.owed = fresh.saturating_sub(left),
            Stage::Trickle { .. } | Stage::Asked { .. } => {
                sending.owed = fresh;
                self.wait_for_rest(channel, now);
            }
        }
        if let Some(sending) = self.channels.get_mut(&channel) {
            (sending.sent_in_burst, sending.answers) = (0, 0);
            sending.hopeful = reporter;
        }
    }

    /// What is owed waits for its turn.
    fn wait_for_rest(&mut self, channel: Channel, now: Instant) {
        if let Some(sending) = self.channels.get_mut(&channel) {
            self.turns.remove(&(sending.due, channel));
            sending.stage = Stage::Gathering { until: now };
            self.gathering.insert((now, channel));
        }
    }

    /// The channel's turns begin, from when it is due.
    fn enter_burst(&mut self, channel: Channel, left: u32) {
        if let Some(sending) = self.channels.get_mut(&channel) {
            sending.stage = Stage::Burst { left };
            self.turns.insert((sending.due, channel));
            let rate = self.paces[usize::from(sending.layer)].rate;
            self.bursting += 1;
            self.load += rate;
            if let Some(kept) = self.kept(channel) {
                kept.load += rate;
            }
        }
    }

    fn leave_burst(&mut self, channel: Channel, layer: u8) {
        let rate = self.paces[usize::from(layer)].rate;
        self.bursting -= 1;
        self.load -= rate;
        if let Some(kept) = self.kept(channel) {
            kept.load -= rate;
        }
    }

    /// Somebody is still there: a little more, and if that was not enough, everything anew.
    fn answered(&mut self, channel: Channel, reporter: Ipv6Addr, now: Instant) {
        let Some(sending) = self.channels.get_mut(&channel) else {
            return;
        };
        if sending.owed > 0 {
            self.wait_for_rest(channel, now);
            return;
        }
        if sending.answers == TRICKLES {
            self.renew(channel, reporter, now);
            return;
        }
        sending.answers += 1;
        sending.stage = Stage::Trickle {
            left: trickle_of(sending.symbols),
            sent: trickle_of(sending.symbols),
            run: 0,
        };
        self.turns.remove(&(sending.due, channel));
        sending.due = now;
        self.turns.insert((now, channel));
    }

    /// The last member of a channel has all it needs: was the burst enough?
    fn learn(&mut self, channel: Channel, now: Instant) {
        let Some(sending) = self.channels.get(&channel) else {
            return;
        };
        let whole = sending.burst == Burst::First && sending.sent_in_burst >= sending.symbols;
        let ended = !matches!(
            sending.stage,
            Stage::Gathering { .. } | Stage::Waiting { .. }
        );
        if sending.symbols < MIN_GATHERED || sending.list || !whole || !ended {
            return;
        }
        let need = self
            .needs
            .entry((channel.interface, sending.layer))
            .or_default();
        // what was sent later cannot have been the reason to leave
        let mut pauses = sending.pauses.iter().flatten();
        let seen = pauses.find(|(at, _)| now.saturating_duration_since(*at) >= need.seen());
        match seen {
            Some((_, sent)) => need.needed(sending.symbols, *sent),
            None => need.was_enough(sending.symbols, sending.extra),
        }
    }

    fn ask_at_next_turn(&mut self, channel: Channel, now: Instant) {
        let Some(sending) = self.channels.get_mut(&channel) else {
            return;
        };
        if let Stage::Burst { .. } | Stage::Trickle { .. } = sending.stage {
            // time out the evidence: the next turn asks
            sending.evidence_at = now.checked_sub(HARD_TIME).unwrap_or(sending.evidence_at);
        }
    }

    fn take_turn(&mut self, channel: Channel, now: Instant) -> Option<Action> {
        let sending = self.channels.get_mut(&channel)?;
        let spent = sending.sent_on_evidence >= HARD_SYMBOLS * sending.symbols + MIN_TRICKLE
            || now.saturating_duration_since(sending.evidence_at) >= HARD_TIME;
        let pace = self.paces[usize::from(sending.layer)];
        let (layer, stage) = (sending.layer, sending.stage);
        let need = self.need_of(channel);
        let idle = self.bursting == 0;
        let sends = !spent && matches!(stage, Stage::Burst { .. } | Stage::Trickle { .. });
        if sends && let Some(at) = self.closed_until(channel, now) {
            // others go first meanwhile
            let sending = self.channels.get_mut(&channel)?;
            sending.due = at;
            self.turns.insert((at, channel));
            return None;
        }
        let sending = self.channels.get_mut(&channel)?;
        match stage {
            Stage::Gathering { .. } | Stage::Waiting { .. } => None,
            Stage::Burst { left } if !spent => {
                let count = left.min(pace.turn);
                let time = pace.symbol_time * count;
                if left > count {
                    sending.stage = Stage::Burst { left: left - count };
                } else if sending.owed > 0 {
                    self.leave_burst(channel, layer);
                    let action = self.send(channel, count, time, now);
                    self.wait_for_rest(channel, now);
                    return action;
                } else {
                    sending.stage = Stage::Trickle {
                        left: trickle_of(sending.symbols),
                        sent: 0,
                        run: 0,
                    };
                    self.leave_burst(channel, layer);
                    return self.send_and_pause(channel, count, time, now);
                }
                self.send(channel, count, time, now)
            }
            Stage::Trickle { left, sent, run } if !spent && left > 0 => {
                let run = match run {
                    // what is sent in vain takes nothing from others
                    0 if idle => need.step(sending.symbols, sent).max(sent).min(left),
                    0 => need.step(sending.symbols, sent).min(left),
                    run => run,
                };
                let count = run.min(pace.turn);
                let run = run - count;
                sending.stage = Stage::Trickle {
                    left: left - count,
                    sent: sent + count,
                    run,
                };
                let time = pace.symbol_time * count;
                if run > 0 {
                    return self.send(channel, count, time, now);
                }
                self.send_and_pause(channel, count, time, now)
            }
            Stage::Burst { left } => {
                sending.owed += left;
                self.leave_burst(channel, layer);
                self.ask(channel, 1, now)
            }
            Stage::Trickle { .. } => self.ask(channel, 1, now),
            Stage::Asked { times } if times < ASKS => self.ask(channel, times + 1, now),
            Stage::Asked { .. } => {
                self.stop(channel, now);
                None
            }
        }
    }

    /// When the share of a channel may send again, if it has sent what it may.
    fn closed_until(&mut self, channel: Channel, now: Instant) -> Option<Instant> {
        let bucket = self.kept(channel)?.bucket.as_mut()?;
        // a little later in any case, so that time goes on
        (!bucket.ready(now)).then(|| bucket.ready_at().max(now + Duration::from_micros(1)))
    }

    /// The same before a pause, in which PARTs come.
    fn send_and_pause(
        &mut self,
        channel: Channel,
        count: u32,
        time: Duration,
        now: Instant,
    ) -> Option<Action> {
        let pause = self.need_of(channel).pause();
        let action = self.send(channel, count, time + pause, now);
        let sending = self.channels.get_mut(&channel)?;
        sending.pauses.rotate_right(1);
        sending.pauses[0] = Some((now, sending.sent_in_burst));
        action
    }

    fn ask(&mut self, channel: Channel, times: u8, now: Instant) -> Option<Action> {
        let sending = self.channels.get_mut(&channel)?;
        sending.stage = Stage::Asked { times };
        sending.due = now + ASK_AGAIN;
        self.turns.insert((sending.due, channel));
        Some(Action::Ask { channel })
    }

    /// The next `count` symbols; the following turn comes after `time`.
    fn send(
        &mut self,
        channel: Channel,
        count: u32,
        time: Duration,
        now: Instant,
    ) -> Option<Action> {
        let wire = self.wire_size(channel);
        // the paces are those of packets that are not sealed
        let time = time * wire as u32 / WIRE_SIZE as u32;
        let sending = self.channels.get_mut(&channel)?;
        let sequence = sending.position.sequence();
        let ids = (0..count)
            .map(|_| sending.position.next(sending.symbols))
            .collect();
        sending.sent_on_evidence += count;
        let before = sending.sent_in_burst;
        sending.sent_in_burst += count;
        if sending.burst == Burst::First
            && (before..sending.sent_in_burst).contains(&(sending.symbols - 1))
        {
            sending.whole_at = Some(now);
        }
        *match (sending.stage, sending.burst) {
            (Stage::Trickle { sent: 1.., .. }, _) => &mut self.sent.trickle,
            (_, Burst::First) => &mut self.sent.first,
            (_, Burst::Again) => &mut self.sent.again,
            (_, Burst::Late) => &mut self.sent.late,
        } += u64::from(count);
        let bytes = u64::from(count) * wire;
        self.capacity.spend(bytes);
        let earliest = now.checked_sub(MAX_LAG).unwrap_or(now);
        sending.due = sending.due.max(earliest) + time;
        self.turns.insert((sending.due, channel));
        if let Some(bucket) = &mut self.bucket {
            bucket.spend(bytes, now);
        }
        if let Some(bucket) = self.kept(channel).and_then(|k| k.bucket.as_mut()) {
            bucket.spend(bytes, now);
        }
        if let Some(traffic) = self.traffic_of(channel, now) {
            traffic.add(count, wire, now);
        }
        Some(Action::Symbols {
            channel,
            sequence,
            ids,
        })
    }
}

/// A turn may overdraw the bucket; its size decides how much goes out back to back.
fn bucket_of(rate: u64, now: Instant) -> TokenBucket {
    TokenBucket::new(rate, (rate / 8 / 500).max(WIRE_SIZE), now)
}

/// Symbols that a trickle may have.
fn trickle_of(symbols: u32) -> u32 {
    (symbols / 4).max(MIN_TRICKLE)
}
