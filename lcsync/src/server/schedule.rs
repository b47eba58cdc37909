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
//!
//! Symbols of a channel never repeat: first the source symbols once around from a random start, because
//! receiving these costs no decoding, then repair symbols upwards from a random id.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use librecast::channel::SharePrefix;
use librecast::coding::{MAX_ESI, SYMBOL_SIZE};
use librecast::pacing::TokenBucket;

use super::queue::{FairQueue, Ticket};
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

/// What a report says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// A change: somebody has joined.
    Joined,
    /// A current state: somebody is a member; the answer to a query.
    Confirmed,
    /// A report of version 1: either of both, and others who heard it say nothing.
    Version1,
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
}

/// A block waits so long for others to join it: longer than a record and a JOIN in answer to it take.
const GATHER: Duration = Duration::from_millis(40);
/// Blocks of fewer symbols do not gather: to send one twice costs less than the time.
const MIN_GATHERED: u32 = 64;
/// Longer than a PART takes from the receiver's decision to here (some 10 ms until it tells its kernel, and 10 until that
/// reports).
const PAUSE: Duration = Duration::from_millis(32);
/// Between two symbols of a trickle at least: few are on their way in vain when the PART comes.
const TRICKLE_TIME: Duration = Duration::from_millis(4);
const MIN_TRICKLE: u32 = 16;
/// Answers to questions that bring a trickle only; the next one a whole burst.
const TRICKLES: u8 = 2;
/// Evidence of a member holds for this many times K symbols, and this long.
const HARD_SYMBOLS: u32 = 4;
const HARD_TIME: Duration = Duration::from_secs(10);
/// A question is repeated once, then the channel is given up.
const ASK_AGAIN: Duration = Duration::from_millis(400);
const ASKS: u8 = 2;
/// A channel joined again within this time goes on where it stopped.
const MEMORY: Duration = Duration::from_secs(5);
/// Bursts at once: so many times the rate of a channel, and so many channels.
const MAX_BURSTS: u64 = 128;
const MAX_BURSTING: usize = 256;
/// Channels known at once; a JOIN beyond is dropped and counted.
const MAX_CHANNELS: usize = 65_536;
const MAX_REMEMBERED: usize = 8_192;
/// Reporters told apart per channel; beyond, a PART is answered by a question.
const MAX_REPORTERS: usize = 64;
/// What a channel sends in one turn takes about this long at its rate.
const TURN: Duration = Duration::from_millis(7);
const MAX_TURN: u64 = 32;
/// A sender that was held up does not catch up on more than this.
const MAX_LAG: Duration = Duration::from_millis(20);
/// One that is so late takes on no more.
const BEHIND: Duration = Duration::from_millis(8);
/// What can be sent is measured over so long.
const MEASURE: Duration = Duration::from_millis(300);
/// A capacity beyond this is no limit.
const FORGOTTEN: u64 = 10_000_000_000;
/// By how much of K bursts become longer with each block of which members needed more, and shorter with each of
/// which they did not: so that about one in five gets more than it needs.
const LENGTHEN: f64 = 0.005;
const SHORTEN: f64 = 0.02;

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
    /// What bursts have beyond K on an interface and layer, as a share of K.
    extra: BTreeMap<(u32, u8), f64>,
    memory: BTreeMap<Channel, (Instant, Position)>,
    forgetting: VecDeque<(Instant, Channel)>,
    random: u64,
    refused: u64,
    sent: u64,
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
    stage: Stage,
    position: Position,
    due: Instant,
    evidence_at: Instant,
    sent_on_evidence: u32,
    /// Symbols since the burst began, or since somebody joined after that.
    sent_in_burst: u32,
    /// Symbols that who joined last has missed, to be sent when it is his turn.
    owed: u32,
    /// Who has joined last in the hope of a burst.
    hopeful: Ipv6Addr,
    /// Virtual time before which it has no further turn.
    next_turn: u64,
    /// Answers to questions since then.
    answers: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Gathering { until: Instant },
    Waiting { ticket: Ticket },
    Burst { left: u32 },
    Trickle { left: u32, sent: u32 },
    Asked { times: u8 },
}

/// Measures what can be sent, while there is more to send than that.
#[derive(Debug)]
struct Capacity {
    since: Instant,
    bytes: u64,
    behind: bool,
    /// Bits per second.
    measured: Option<u64>,
}

impl Capacity {
    /// Draws conclusions from time to time; `queue` says whether anything waits to be sent.
    fn look(&mut self, queue: bool, now: Instant) {
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed < MEASURE {
            return;
        }
        let rate = self.bytes as f64 * 8.0 / elapsed.as_secs_f64();
        // an interval with a pause in it is no measurement
        let whole = elapsed < MEASURE * 3;
        self.measured = if self.behind && queue && whole {
            Some(rate as u64)
        } else {
            self.measured.map(|m| m + m / 2).filter(|m| *m < FORGOTTEN)
        };
        (self.since, self.bytes, self.behind) = (now, 0, false);
    }
}

/// Where a channel is in its endless sequence of symbols.
#[derive(Debug, Clone, Copy)]
struct Position {
    sequence: u32,
    /// First source symbol sent.
    start: u32,
    /// Source symbols sent.
    source: u32,
    /// Next repair symbol.
    repair: u32,
}

/// Who has joined, by link-local address.
#[derive(Debug, Default)]
pub struct Reporters {
    known: BTreeSet<Ipv6Addr>,
    more: bool,
    version_1: bool,
}

impl Reporters {
    /// Whether `reporter` is new.
    pub fn add(&mut self, reporter: Ipv6Addr, evidence: Evidence) -> bool {
        self.version_1 |= evidence == Evidence::Version1;
        if self.known.contains(&reporter) {
            return false;
        }
        if self.known.len() == MAX_REPORTERS {
            self.more = true;
        } else {
            self.known.insert(reporter);
        }
        true
    }

    /// Whether there are hosts of version 1, who tell neither of each join nor of each leave.
    #[must_use]
    pub fn version_1(&self) -> bool {
        self.version_1
    }

    /// Takes one out; whether nobody is left, `None` if that is not known.
    pub fn remove(&mut self, reporter: Ipv6Addr) -> Option<bool> {
        self.known.remove(&reporter);
        match (self.known.is_empty(), self.more || self.version_1) {
            (false, _) => Some(false),
            (true, false) => Some(true),
            (true, true) => None,
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
            capacity: Capacity {
                since: now,
                bytes: 0,
                behind: false,
                measured: None,
            },
            extra: BTreeMap::new(),
            memory: BTreeMap::new(),
            forgetting: VecDeque::new(),
            random: seed,
            refused: 0,
            sent: 0,
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
        match sending.reporters.remove(reporter) {
            Some(true) => {
                self.learn(channel);
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
        self.remember(channel, sending.position, now);
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
                })
            })
    }

    /// Bits per second of all bursts, as far as there is room for them.
    #[must_use]
    pub fn load(&self) -> u64 {
        self.load.min(self.capacity().unwrap_or(u64::MAX))
    }

    /// Bits per second that can be sent, if more is asked for.
    #[must_use]
    pub fn capacity(&self) -> Option<u64> {
        self.capacity.measured
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
    pub fn sent(&self) -> u64 {
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
        let position = self
            .recall(channel, now)
            .unwrap_or_else(|| self.fresh_position(symbols));
        let gather = if symbols < MIN_GATHERED {
            Duration::ZERO
        } else {
            GATHER
        };
        let until = now + gather;
        let sending = Sending {
            symbols,
            layer,
            reporters,
            stage: Stage::Gathering { until },
            position,
            due: now,
            evidence_at: now,
            sent_on_evidence: 0,
            sent_in_burst: 0,
            owed: 0,
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
        self.capacity.behind |= behind;
        self.capacity.look(!self.queue.is_empty(), now);
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
            let extra = self.extra_of(channel);
            let Some(sending) = self.channels.get_mut(&channel) else {
                continue;
            };
            sending.next_turn = ticket.end();
            let left = match std::mem::take(&mut sending.owed) {
                0 => {
                    (sending.sent_in_burst, sending.answers) = (0, 0);
                    sending.symbols + extra
                }
                owed => owed,
            };
            // not before the pace of its last burst allows
            sending.due = sending.due.max(now);
            self.enter_burst(channel, left);
        }
    }

    /// Symbols beyond K that members have needed lately.
    fn extra_of(&self, channel: Channel) -> u32 {
        self.channels.get(&channel).map_or(0, |sending| {
            let extra = self.extra.get(&(channel.interface, sending.layer));
            (extra.copied().unwrap_or(0.0) * f64::from(sending.symbols)) as u32
        })
    }

    /// Somebody has joined who needs a whole burst, counted from now.
    fn renew(&mut self, channel: Channel, reporter: Ipv6Addr, now: Instant) {
        let extra = self.extra_of(channel);
        let Some(sending) = self.channels.get_mut(&channel) else {
            return;
        };
        let fresh = sending.symbols + extra;
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
            sent: 1,
        };
        self.turns.remove(&(sending.due, channel));
        sending.due = now;
        self.turns.insert((now, channel));
    }

    /// The last member of a channel has all it needs: was the burst enough?
    fn learn(&mut self, channel: Channel) {
        let Some(sending) = self.channels.get(&channel) else {
            return;
        };
        if sending.symbols < MIN_GATHERED || sending.sent_in_burst < sending.symbols {
            return;
        }
        let enough = match sending.stage {
            Stage::Burst { .. } => true,
            Stage::Trickle { sent, .. } => sent == 0,
            Stage::Asked { .. } => false,
            Stage::Gathering { .. } | Stage::Waiting { .. } => return,
        };
        let extra = self
            .extra
            .entry((channel.interface, sending.layer))
            .or_default();
        let change = if enough { -SHORTEN } else { LENGTHEN };
        *extra = (*extra + change).clamp(0.0, 1.0);
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
                let mut time = pace.symbol_time * count;
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
                    };
                    self.leave_burst(channel, layer);
                    time += PAUSE;
                }
                self.send(channel, count, time, now)
            }
            Stage::Trickle { left, sent } if !spent && left > 0 => {
                sending.stage = Stage::Trickle {
                    left: left - 1,
                    sent: sent + 1,
                };
                self.send(channel, 1, pace.symbol_time.max(TRICKLE_TIME), now)
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
        let sequence = sending.position.sequence;
        let ids = (0..count)
            .map(|_| sending.position.next(sending.symbols))
            .collect();
        sending.sent_on_evidence += count;
        sending.sent_in_burst += count;
        self.sent += u64::from(count);
        let bytes = u64::from(count) * wire;
        self.capacity.bytes += bytes;
        let earliest = now.checked_sub(MAX_LAG).unwrap_or(now);
        sending.due = sending.due.max(earliest) + time;
        self.turns.insert((sending.due, channel));
        if let Some(bucket) = &mut self.bucket {
            bucket.spend(bytes, now);
        }
        if let Some(bucket) = self.kept(channel).and_then(|k| k.bucket.as_mut()) {
            bucket.spend(bytes, now);
        }
        Some(Action::Symbols {
            channel,
            sequence,
            ids,
        })
    }

    fn remember(&mut self, channel: Channel, position: Position, now: Instant) {
        self.forget(now);
        if self.forgetting.len() < MAX_REMEMBERED {
            self.memory.insert(channel, (now, position));
            self.forgetting.push_back((now, channel));
        }
    }

    fn recall(&mut self, channel: Channel, now: Instant) -> Option<Position> {
        self.forget(now);
        self.memory.remove(&channel).map(|(_, position)| position)
    }

    fn forget(&mut self, now: Instant) {
        while let Some((at, channel)) = self.forgetting.front().copied()
            && now.saturating_duration_since(at) > MEMORY
        {
            self.forgetting.pop_front();
            // it may have been remembered anew since
            if self
                .memory
                .get(&channel)
                .is_some_and(|(then, _)| *then == at)
            {
                self.memory.remove(&channel);
            }
        }
    }

    fn fresh_position(&mut self, symbols: u32) -> Position {
        let random = self.next_random();
        Position {
            sequence: 0,
            start: random as u32 % symbols,
            source: 0,
            repair: symbols + ((random >> 32) as u32 % (MAX_ESI / 2)),
        }
    }

    /// SplitMix64: where symbols start has to differ between servers, not to be secret.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Position {
    fn next(&mut self, symbols: u32) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        if self.source < symbols {
            self.source += 1;
            return (self.start + self.source - 1) % symbols;
        }
        let id = self.repair;
        self.repair = if id >= MAX_ESI { symbols } else { id + 1 };
        id
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

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: Rates = Rates {
        channel: 20_000_000,
        slow: 2_000_000,
        total: None,
    };
    const BLOCK: Wanted = Wanted {
        length: 256 * SYMBOL_SIZE as u32,
        layer: 0,
    };

    fn channel(n: u16) -> Channel {
        Channel {
            interface: 1,
            group: Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, n),
        }
    }
    fn host(n: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n)
    }

    /// Everything that happens until `end`, with the times.
    fn run(schedule: &mut Schedule, from: Instant, end: Duration) -> Vec<(Duration, Action)> {
        let (mut now, mut seen) = (from, Vec::new());
        loop {
            while let Some(action) = schedule.poll(now) {
                seen.push((now - from, action));
            }
            match schedule.poll_timeout() {
                Some(at) if at <= from + end => now = at.max(now),
                _ => return seen,
            }
        }
    }

    fn ids(seen: &[(Duration, Action)]) -> Vec<u32> {
        seen.iter()
            .flat_map(|(_, a)| match a {
                Action::Symbols { ids, .. } => ids.clone(),
                Action::Ask { .. } => Vec::new(),
            })
            .collect()
    }

    fn asks(seen: &[(Duration, Action)]) -> usize {
        seen.iter()
            .filter(|(_, a)| matches!(a, Action::Ask { .. }))
            .count()
    }

    #[test]
    fn a_receiver_that_vanished_costs_a_quarter_more_and_two_questions() {
        let now = Instant::now();
        let mut schedule = Schedule::new(RATES, 1, now);
        schedule.join(channel(1), BLOCK, host(1), Evidence::Joined, now);
        let seen = run(&mut schedule, now, Duration::from_secs(100));
        let ids = ids(&seen);
        assert_eq!(ids.len(), 256 + 64);
        assert_eq!(
            ids.iter().collect::<BTreeSet<_>>().len(),
            ids.len(),
            "no symbol twice"
        );
        assert_eq!(
            ids[..256].iter().filter(|i| **i < 256).count(),
            256,
            "source symbols first"
        );
        assert_eq!(asks(&seen), 2);
        assert_eq!(schedule.joined(), 0);
    }

    #[test]
    fn whoever_joins_and_leaves_while_he_waits_is_forgotten() {
        let now = Instant::now();
        let mut schedule = Schedule::new(RATES, 1, now);
        for n in 0..MAX_BURSTS as u16 {
            schedule.join(channel(n + 1), BLOCK, host(1), Evidence::Joined, now);
        }
        let mut at = now + GATHER;
        schedule.poll(at);
        for _ in 0..1_000 {
            schedule.join(channel(9_999), BLOCK, host(1), Evidence::Joined, at);
            at += Duration::from_micros(10);
            schedule.poll(at + GATHER);
            schedule.part(channel(9_999), host(1), at);
        }
        assert_eq!(
            (schedule.queue.is_empty(), schedule.gathering.len()),
            (true, 0)
        );
        schedule.join(channel(9_999), BLOCK, host(1), Evidence::Joined, at);
        schedule.part(channel(1), host(1), at);
        schedule.poll(at + GATHER);
        let stage = schedule.channels[&channel(9_999)].stage;
        assert!(matches!(stage, Stage::Burst { .. }), "{stage:?}");
    }

    #[test]
    fn who_joins_while_a_block_gathers_costs_nothing() {
        let now = Instant::now();
        let mut schedule = Schedule::new(RATES, 1, now);
        schedule.join(channel(1), BLOCK, host(1), Evidence::Joined, now);
        assert_eq!(schedule.poll(now), None);
        let upcoming = Upcoming {
            group: channel(1).group,
            left: 256,
        };
        assert_eq!(
            schedule.upcoming(channel(0), 9).collect::<Vec<_>>(),
            [upcoming]
        );
        let later = now + GATHER / 2;
        schedule.join(channel(1), BLOCK, host(2), Evidence::Joined, later);
        let seen = run(&mut schedule, now, Duration::from_secs(100));
        assert_eq!(ids(&seen).len(), 256 + 64);
    }

    #[test]
    fn bursts_grow_to_what_members_need_and_shrink_again() {
        let mut now = Instant::now();
        let mut schedule = Schedule::new(RATES, 1, now);
        let mut last = |needed: u32, blocks: u16| {
            let mut trickled = 0;
            for n in 0..blocks {
                schedule.join(channel(n), BLOCK, host(1), Evidence::Joined, now);
                let mut sent = 0;
                while sent < needed {
                    match schedule.poll(now) {
                        Some(Action::Symbols { ids, .. }) => sent += ids.len() as u32,
                        Some(Action::Ask { channel }) => {
                            schedule.join(channel, BLOCK, host(1), Evidence::Confirmed, now);
                        }
                        None => now = schedule.poll_timeout().unwrap(),
                    }
                }
                if let Stage::Trickle { sent, .. } = schedule.channels[&channel(n)].stage {
                    trickled = sent;
                }
                schedule.part(channel(n), host(1), now);
                now += MEMORY * 2;
            }
            trickled
        };
        assert!(last(320, 1) > 60);
        let trickled = last(320, 200);
        assert!(trickled < 16, "{trickled} of 64 in the trickle");
        assert_eq!(last(256, 200), 0);
        assert!(last(320, 1) > 60, "long bursts have been forgotten");
    }

    #[test]
    fn the_burst_has_the_channels_rate() {
        let now = Instant::now();
        let mut schedule = Schedule::new(RATES, 1, now);
        schedule.join(channel(1), BLOCK, host(1), Evidence::Joined, now);
        let seen = run(&mut schedule, now, GATHER + Duration::from_millis(100));
        let bits = ids(&seen).len() as u64 * WIRE_SIZE * 8;
        assert!(
            (1_900_000..=2_200_000).contains(&bits),
            "{bits} bits in 0.1 s at 20 Mbit/s"
        );
    }

    #[test]
    fn nothing_is_sent_after_the_last_part() {
        let now = Instant::now();
        let mut schedule = Schedule::new(RATES, 1, now);
        for reporter in [1, 2] {
            schedule.join(channel(1), BLOCK, host(reporter), Evidence::Joined, now);
        }
        schedule.poll(now);
        schedule.part(channel(1), host(1), now);
        assert!(
            schedule.poll_timeout().is_some(),
            "the other one is still there"
        );
        schedule.part(channel(1), host(2), now);
        assert_eq!(schedule.poll_timeout(), None);
        assert_eq!(schedule.poll(now + Duration::from_secs(5)), None);
        assert_eq!(schedule.joined(), 0);
    }

    #[test]
    fn repeated_reports_of_one_host_do_not_renew_the_budget() {
        let now = Instant::now();
        let mut schedule = Schedule::new(RATES, 1, now);
        schedule.join(channel(1), BLOCK, host(1), Evidence::Joined, now);
        let first = ids(&run(&mut schedule, now, Duration::from_millis(60))).len();
        schedule.join(channel(1), BLOCK, host(1), Evidence::Joined, now);
        schedule.join(channel(1), BLOCK, host(1), Evidence::Confirmed, now);
        let then = now + Duration::from_millis(60);
        let rest = ids(&run(&mut schedule, then, Duration::from_secs(60))).len();
        assert_eq!(first + rest, 256 + 64);
    }

    #[test]
    fn another_hosts_join_extends_the_burst_with_new_symbols() {
        let now = Instant::now();
        let mut schedule = Schedule::new(RATES, 1, now);
        schedule.join(channel(1), BLOCK, host(1), Evidence::Joined, now);
        let mut all = ids(&run(&mut schedule, now, Duration::from_millis(140)));
        let then = now + Duration::from_millis(140);
        schedule.join(channel(1), BLOCK, host(2), Evidence::Joined, then);
        all.extend(ids(&run(&mut schedule, then, Duration::from_secs(60))));
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        assert!(all.len() > 256 + 64 + 100, "{}", all.len());
    }

    #[test]
    fn answers_bring_a_little_more_twice_and_then_everything_anew() {
        let now = Instant::now();
        let mut schedule = Schedule::new(RATES, 1, now);
        schedule.join(channel(1), BLOCK, host(1), Evidence::Joined, now);
        let (mut at, mut counts) = (now, vec![0]);
        while counts.len() < 6 {
            match schedule.poll(at) {
                Some(Action::Symbols { ids, .. }) => *counts.last_mut().unwrap() += ids.len(),
                Some(Action::Ask { channel }) => {
                    schedule.join(channel, BLOCK, host(1), Evidence::Confirmed, at);
                    counts.push(0);
                }
                None => at = schedule.poll_timeout().unwrap(),
            }
        }
        assert_eq!(counts[..5], [256 + 64, 64, 64, 256 + 64, 64]);
    }

    #[test]
    fn the_total_rate_is_kept_and_those_who_joined_share_it_fairly() {
        let now = Instant::now();
        let rates = Rates {
            total: Some(10_000_000),
            ..RATES
        };
        let mut schedule = Schedule::new(rates, 1, now);
        for n in 1..=30 {
            schedule.join(channel(n), BLOCK, host(1), Evidence::Joined, now);
        }
        for n in 101..=102 {
            schedule.join(channel(n), BLOCK, host(2), Evidence::Joined, now);
        }
        let seen = run(&mut schedule, now, GATHER + Duration::from_millis(1_500));
        let mut each = BTreeMap::new();
        for (_, action) in &seen {
            if let Action::Symbols { channel, ids, .. } = action {
                *each.entry(*channel).or_insert(0) += ids.len() as u64;
            }
        }
        let total: u64 = each.values().sum::<u64>() * WIRE_SIZE * 8;
        assert!(
            (14_250_000..=16_000_000).contains(&total),
            "{total} bits in a second and a half"
        );
        assert!(
            each[&channel(101)] >= 256 && each[&channel(102)] >= 256,
            "{each:?}"
        );
        assert!(each.len() <= 12, "one after the other: {each:?}");
        assert!(
            schedule
                .capacity()
                .is_some_and(|c| (9_000_000..11_000_000).contains(&c))
        );
    }

    #[test]
    fn a_flood_of_joins_is_bounded_and_everybody_gets_a_turn() {
        let now = Instant::now();
        let mut schedule = Schedule::new(RATES, 1, now);
        let small = Wanted {
            length: 1_024,
            layer: 0,
        };
        for n in 0..MAX_CHANNELS as u32 + 5 {
            let group = Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 1, (n >> 16) as u16, n as u16);
            let flood = Channel {
                interface: 1,
                group,
            };
            schedule.join(flood, small, host(1), Evidence::Joined, now);
        }
        assert_eq!((schedule.joined(), schedule.refused()), (MAX_CHANNELS, 5));
        schedule.poll(now);
        assert!(schedule.load <= MAX_BURSTS * RATES.channel + RATES.channel);
        // another one finds room, and is not the last
        schedule.join(channel(1), small, host(2), Evidence::Joined, now);
        assert_eq!((schedule.joined(), schedule.refused()), (MAX_CHANNELS, 6));
        let seen = run(&mut schedule, now, Duration::from_millis(50));
        let served = |(_, a): &(_, Action)| matches!(a, Action::Symbols { channel: c, .. } if *c == channel(1));
        assert!(seen.iter().any(served));
        run(&mut schedule, now, Duration::from_secs(1_000));
        assert_eq!(schedule.joined(), 0);
    }

    #[test]
    fn a_share_that_thousands_of_hosts_join_again_and_again_leaves_half_to_another() {
        let start = Instant::now();
        let rates = Rates {
            total: Some(100_000_000),
            ..RATES
        };
        let other = |n: u16| Channel {
            interface: 1,
            group: Ipv6Addr::new(0xff1e, 0, 0, 7, 0, 0, 0, n),
        };
        let mut schedule = Schedule::new(rates, 1, start);
        let (mut flood, mut flooded) = (0_u32, 0);
        let mut got = [0; 20];
        let served = |got: &[u32; 20]| got.iter().filter(|g| **g >= 256).count();
        let mut now = start;
        while served(&got) < got.len() {
            assert!(now < start + Duration::from_secs(2), "{flooded} {got:?}");
            // all of a share's channels, by a hundred thousand hosts a second
            for _ in 0..100 {
                flood += 1;
                let host = Ipv6Addr::from((0xfe80 << 112) + u128::from(flood));
                let at = channel((flood % 100) as u16 + 1);
                schedule.join(at, BLOCK, host, Evidence::Joined, now);
            }
            if now == start + GATHER * 10 {
                for n in 0..got.len() as u16 {
                    schedule.join(other(n), BLOCK, host(1), Evidence::Joined, now);
                }
            }
            while let Some(action) = schedule.poll(now) {
                let Action::Symbols { channel, ids, .. } = action else {
                    continue;
                };
                if channel.group.segments()[3] == 7 {
                    let n = channel.group.segments()[7];
                    got[usize::from(n)] += ids.len() as u32;
                    if got[usize::from(n)] >= 256 {
                        schedule.part(channel, host(1), now);
                    }
                } else {
                    flooded += ids.len();
                }
            }
            now += Duration::from_millis(1);
        }
        // 20 blocks at half of the rate are 0.92 s
        let took = now - start - GATHER * 10;
        assert!(took < Duration::from_millis(1_200), "{took:?}");
        assert!(schedule.load <= 120_000_000, "{}", schedule.load);
    }

    #[test]
    fn a_share_keeps_its_own_limit_and_holds_up_no_other() {
        let now = Instant::now();
        let mut schedule = Schedule::new(RATES, 1, now);
        let limited = Terms {
            limit: Some(8_000_000),
            sealed: true,
        };
        let other = |n: u16| Channel {
            interface: 1,
            group: Ipv6Addr::new(0xff1e, 0, 0, 7, 0, 0, 0, n),
        };
        let prefix = SharePrefix::of_group(channel(1).group).unwrap();
        schedule.set_terms(prefix, limited, now);
        for n in 0..40 {
            schedule.join(channel(n), BLOCK, host(1), Evidence::Joined, now);
            schedule.join(other(n), BLOCK, host(1), Evidence::Joined, now);
        }
        let (mut sent, mut others) = (0, 0);
        for (_, action) in run(&mut schedule, now, GATHER + Duration::from_secs(2)) {
            if let Action::Symbols { channel, ids, .. } = action {
                let other = channel.group.segments()[3] == 7;
                *(if other { &mut others } else { &mut sent }) += ids.len() as u64;
            }
        }
        let bits = sent * SEALED_WIRE_SIZE * 8;
        assert!((15_000_000..=17_000_000).contains(&bits), "{bits} in 2 s");
        assert!(others >= 40 * 256, "{others}");
        schedule.set_terms(prefix, Terms::default(), now);
        assert_eq!(schedule.limit_of(channel(1).group), None);
        let then = now + GATHER + Duration::from_secs(2);
        run(&mut schedule, then, Duration::from_secs(100));
        assert_eq!(schedule.joined(), 0);
    }

    #[test]
    fn slow_channels_run_slowly_and_leave_room_for_others() {
        let now = Instant::now();
        let mut schedule = Schedule::new(RATES, 1, now);
        let slow = Wanted { layer: 1, ..BLOCK };
        for n in 0..MAX_BURSTS as u16 {
            schedule.join(channel(1_000 + n), slow, host(1), Evidence::Joined, now);
            schedule.join(channel(n), BLOCK, host(2), Evidence::Joined, now);
        }
        let seen = run(&mut schedule, now, GATHER + Duration::from_millis(500));
        let sent = |first: u16| -> usize {
            seen.iter()
                .filter_map(|(_, a)| match a {
                    Action::Symbols { channel, ids, .. } => {
                        Some((channel.group.segments()[7], ids))
                    }
                    Action::Ask { .. } => None,
                })
                .filter(|(group, _)| (first..first + 1_000).contains(group))
                .map(|(_, ids)| ids.len())
                .sum()
        };
        let bits = sent(1_000) as u64 * WIRE_SIZE * 8 / u64::from(MAX_BURSTS as u16);
        assert!(
            (800_000..=1_200_000).contains(&bits),
            "{bits} bits in 0.5 s at 2 Mbit/s"
        );
        assert!(sent(0) >= 100 * 256, "{}", sent(0));
    }

    #[test]
    fn more_reporters_than_are_told_apart_are_asked_not_forgotten() {
        let now = Instant::now();
        let mut schedule = Schedule::new(RATES, 1, now);
        for n in 0..MAX_REPORTERS as u16 + 3 {
            schedule.join(channel(1), BLOCK, host(n), Evidence::Joined, now);
        }
        let now = now + GATHER;
        schedule.poll(now);
        for n in 0..MAX_REPORTERS as u16 + 2 {
            schedule.part(channel(1), host(n), now);
        }
        assert_eq!(schedule.joined(), 1);
        assert_eq!(
            asks(&run(&mut schedule, now, Duration::from_millis(300))),
            1
        );
    }

    #[test]
    fn a_channel_joined_again_soon_goes_on_where_it_stopped() {
        let now = Instant::now();
        let mut schedule = Schedule::new(RATES, 1, now);
        schedule.join(channel(1), BLOCK, host(1), Evidence::Joined, now);
        let mut all = ids(&run(&mut schedule, now, Duration::from_millis(70)));
        schedule.part(channel(1), host(1), now + Duration::from_millis(70));
        schedule.join(
            channel(1),
            BLOCK,
            host(1),
            Evidence::Joined,
            now + Duration::from_millis(80),
        );
        let then = now + Duration::from_millis(80);
        all.extend(ids(&run(&mut schedule, then, Duration::from_millis(70))));
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    }
}
