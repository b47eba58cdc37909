//! What is sent next: budgets per JOIN, fixed rates per channel, fair turns, one limit over all.
//!
//! ```text
//!            JOIN          a place is free        K + 2 symbols sent      a quarter of K more
//! (nothing) ------> Waiting -------------> Burst ---------------> Trickle --------------> Asked
//!     ^                                      ^                                             | |
//!     |                                      +----------- answer, or another's JOIN -------+ |
//!     +-------------- last PART at any time; no answer within a second ---------------------+
//! ```
//!
//! A receiver that lost nothing leaves after the burst; the pause before the trickle lets its PART come in time.
//! One that vanished costs at most the burst and the trickle. Whoever needs more answers the question.
//!
//! Symbols of a channel never repeat: first the source symbols once around from a random start, because
//! receiving these costs no decoding, then repair symbols upwards from a random id.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use librecast::coding::{MAX_ESI, SYMBOL_SIZE};
use librecast::pacing::TokenBucket;

use crate::packet::WIRE_SIZE;

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
}

/// How fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// Bits per second of each channel, IP headers included.
    pub channel: u64,
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

/// Symbols beyond K in a burst: as many as decoding may need when nothing is lost.
const MARGIN: u32 = 2;
/// Longer than a PART takes from the receiver's decision to here (the kernel reports after some 10 ms).
const PAUSE: Duration = Duration::from_millis(20);
/// The trickle runs at a fraction of the channel's rate.
const TRICKLE: u32 = 4;
const MIN_TRICKLE: u32 = 16;
/// Evidence of a member holds for this many times K symbols, and this long.
const HARD_SYMBOLS: u32 = 4;
const HARD_TIME: Duration = Duration::from_secs(10);
/// A question is repeated once, then the channel is given up.
const ASK_AGAIN: Duration = Duration::from_millis(400);
const ASKS: u8 = 2;
/// A channel joined again within this time goes on where it stopped.
const MEMORY: Duration = Duration::from_secs(5);
/// Channels in a burst at once; the others wait their turn.
const MAX_BURSTS: usize = 128;
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

/// Joined channels and their turns.
#[derive(Debug)]
pub struct Schedule {
    turn: u32,
    /// Time a symbol takes at the channel's rate.
    symbol_time: Duration,
    bucket: Option<TokenBucket>,
    channels: BTreeMap<Channel, Sending>,
    turns: BTreeSet<(Instant, Channel)>,
    /// By ticket: those that wait longest come first.
    waiting: BTreeMap<u64, Channel>,
    next_ticket: u64,
    bursts: usize,
    memory: BTreeMap<Channel, (Instant, Position)>,
    forgetting: VecDeque<(Instant, Channel)>,
    random: u64,
    refused: u64,
}

#[derive(Debug)]
struct Sending {
    symbols: u32,
    reporters: Reporters,
    stage: Stage,
    position: Position,
    due: Instant,
    evidence_at: Instant,
    sent_on_evidence: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting { ticket: u64 },
    Burst { left: u32 },
    Trickle { left: u32 },
    Asked { times: u8 },
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
}

impl Reporters {
    /// Whether `reporter` is new.
    pub fn add(&mut self, reporter: Ipv6Addr) -> bool {
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

    /// Takes one out; whether nobody is left, `None` if that is not known.
    pub fn remove(&mut self, reporter: Ipv6Addr) -> Option<bool> {
        self.known.remove(&reporter);
        match (self.known.is_empty(), self.more) {
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
        let symbol_time =
            Duration::from_nanos(WIRE_SIZE * 8 * 1_000_000_000 / rates.channel.max(1));
        let turn = (TURN.as_nanos() / symbol_time.as_nanos().max(1)).clamp(1, MAX_TURN.into());
        // a turn may overdraw the bucket; its size decides how much goes out back to back
        let bucket = rates
            .total
            .map(|rate| TokenBucket::new(rate, (rate / 8 / 500).max(WIRE_SIZE), now));
        Self {
            turn: turn as u32,
            symbol_time,
            bucket,
            channels: BTreeMap::new(),
            turns: BTreeSet::new(),
            waiting: BTreeMap::new(),
            next_ticket: 0,
            bursts: 0,
            memory: BTreeMap::new(),
            forgetting: VecDeque::new(),
            random: seed,
            refused: 0,
        }
    }

    /// `reporter` is a member of `channel`, whose block is `length` bytes long.
    pub fn join(
        &mut self,
        channel: Channel,
        length: usize,
        reporter: Ipv6Addr,
        evidence: Evidence,
        now: Instant,
    ) {
        let Some(sending) = self.channels.get_mut(&channel) else {
            self.begin(channel, length.div_ceil(SYMBOL_SIZE) as u32, reporter, now);
            return;
        };
        let new = sending.reporters.add(reporter);
        sending.evidence_at = now;
        sending.sent_on_evidence = 0;
        let asked = matches!(sending.stage, Stage::Asked { .. });
        // hosts repeat each change: from a known reporter it is no new wish
        if asked || (new && evidence == Evidence::Joined) {
            self.start_burst(channel, now);
        }
    }

    /// `reporter` has left.
    pub fn part(&mut self, channel: Channel, reporter: Ipv6Addr, now: Instant) {
        let Some(sending) = self.channels.get_mut(&channel) else {
            return;
        };
        match sending.reporters.remove(reporter) {
            Some(true) => self.stop(channel, now),
            Some(false) => {}
            None => self.ask_at_next_turn(channel, now),
        }
    }

    /// Sends no more on `channel`: its block is gone.
    pub fn stop(&mut self, channel: Channel, now: Instant) {
        let Some(sending) = self.channels.remove(&channel) else {
            return;
        };
        self.turns.remove(&(sending.due, channel));
        match sending.stage {
            Stage::Burst { .. } => self.bursts -= 1,
            Stage::Waiting { ticket } => {
                self.waiting.remove(&ticket);
            }
            Stage::Trickle { .. } | Stage::Asked { .. } => {}
        }
        self.remember(channel, sending.position, now);
        self.promote(now);
    }

    /// Stops every channel that `gone` says is gone.
    pub fn stop_all(&mut self, gone: impl Fn(&Channel) -> bool, now: Instant) {
        let those: Vec<Channel> = self.channels.keys().filter(|c| gone(c)).copied().collect();
        for channel in those {
            self.stop(channel, now);
        }
    }

    /// Channels in their burst on an interface, with the symbols they have left.
    pub fn bursting(&self, interface: u32) -> impl Iterator<Item = (Ipv6Addr, u32)> + '_ {
        let all = Channel {
            interface,
            group: Ipv6Addr::UNSPECIFIED,
        }..=Channel {
            interface,
            group: Ipv6Addr::from(u128::MAX),
        };
        self.channels
            .range(all)
            .filter_map(|(channel, sending)| match sending.stage {
                Stage::Burst { left } => Some((channel.group, left)),
                _ => None,
            })
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

    /// When [`poll`](Self::poll) will have something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let (due, _) = self.turns.first()?;
        Some(
            self.bucket
                .as_ref()
                .map_or(*due, |b| b.ready_at().max(*due)),
        )
    }

    /// The next thing to do now.
    pub fn poll(&mut self, now: Instant) -> Option<Action> {
        loop {
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

    fn begin(&mut self, channel: Channel, symbols: u32, reporter: Ipv6Addr, now: Instant) {
        if self.channels.len() == MAX_CHANNELS || symbols == 0 {
            self.refused += 1;
            return;
        }
        let mut reporters = Reporters::default();
        reporters.add(reporter);
        let position = self
            .recall(channel, now)
            .unwrap_or_else(|| self.fresh_position(symbols));
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let sending = Sending {
            symbols,
            reporters,
            stage: Stage::Waiting { ticket },
            position,
            due: now,
            evidence_at: now,
            sent_on_evidence: 0,
        };
        self.channels.insert(channel, sending);
        self.waiting.insert(ticket, channel);
        self.promote(now);
    }

    /// A fresh budget, at once: the channel has its place already or takes one over the limit.
    fn start_burst(&mut self, channel: Channel, now: Instant) {
        let Some(sending) = self.channels.get_mut(&channel) else {
            return;
        };
        match &mut sending.stage {
            Stage::Waiting { .. } => {}
            Stage::Burst { left } => *left = sending.symbols + MARGIN,
            stage @ (Stage::Trickle { .. } | Stage::Asked { .. }) => {
                *stage = Stage::Burst {
                    left: sending.symbols + MARGIN,
                };
                self.bursts += 1;
                self.turns.remove(&(sending.due, channel));
                sending.due = now;
                self.turns.insert((now, channel));
            }
        }
    }

    /// Gives free places to those that wait longest.
    fn promote(&mut self, now: Instant) {
        while self.bursts < MAX_BURSTS {
            let Some((_, channel)) = self.waiting.pop_first() else {
                return;
            };
            let Some(sending) = self.channels.get_mut(&channel) else {
                continue;
            };
            sending.stage = Stage::Burst {
                left: sending.symbols + MARGIN,
            };
            self.bursts += 1;
            sending.due = now;
            self.turns.insert((now, channel));
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
        match sending.stage {
            Stage::Waiting { .. } => None,
            Stage::Burst { left } if !spent => {
                let count = left.min(self.turn);
                let pause = if left > count {
                    sending.stage = Stage::Burst { left: left - count };
                    Duration::ZERO
                } else {
                    sending.stage = Stage::Trickle {
                        left: (sending.symbols / 4).max(MIN_TRICKLE),
                    };
                    self.bursts -= 1;
                    PAUSE
                };
                let action = self.send(channel, count, 1, pause, now);
                self.promote(now);
                action
            }
            Stage::Trickle { left } if !spent && left > 0 => {
                let count = left.min(self.turn.div_ceil(8));
                sending.stage = Stage::Trickle { left: left - count };
                self.send(channel, count, TRICKLE, Duration::ZERO, now)
            }
            Stage::Burst { .. } => {
                self.bursts -= 1;
                let action = self.ask(channel, 1, now);
                self.promote(now);
                action
            }
            Stage::Trickle { .. } => self.ask(channel, 1, now),
            Stage::Asked { times } if times < ASKS => self.ask(channel, times + 1, now),
            Stage::Asked { .. } => {
                self.stop(channel, now);
                None
            }
        }
    }

    fn ask(&mut self, channel: Channel, times: u8, now: Instant) -> Option<Action> {
        let sending = self.channels.get_mut(&channel)?;
        sending.stage = Stage::Asked { times };
        sending.due = now + ASK_AGAIN;
        self.turns.insert((sending.due, channel));
        Some(Action::Ask { channel })
    }

    /// The next `count` symbols; the following turn comes after the time they take at `1/slower` of the rate.
    fn send(
        &mut self,
        channel: Channel,
        count: u32,
        slower: u32,
        pause: Duration,
        now: Instant,
    ) -> Option<Action> {
        let symbol_time = self.symbol_time;
        let sending = self.channels.get_mut(&channel)?;
        let sequence = sending.position.sequence;
        let ids = (0..count)
            .map(|_| sending.position.next(sending.symbols))
            .collect();
        sending.sent_on_evidence += count;
        let earliest = now.checked_sub(MAX_LAG).unwrap_or(now);
        sending.due = sending.due.max(earliest) + symbol_time * count * slower + pause;
        self.turns.insert((sending.due, channel));
        if let Some(bucket) = &mut self.bucket {
            bucket.spend(u64::from(count) * WIRE_SIZE, now);
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

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: Rates = Rates {
        channel: 20_000_000,
        total: None,
    };
    const BLOCK: usize = 256 * SYMBOL_SIZE;

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
        assert_eq!(ids.len(), 256 + 2 + 64);
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
        for _ in 0..1_000 {
            schedule.join(channel(9_999), BLOCK, host(1), Evidence::Joined, now);
            schedule.part(channel(9_999), host(1), now);
        }
        assert_eq!(schedule.waiting.len(), 0);
        schedule.join(channel(9_999), BLOCK, host(1), Evidence::Joined, now);
        schedule.part(channel(1), host(1), now);
        assert!(
            schedule
                .bursting(1)
                .any(|(group, _)| group == channel(9_999).group)
        );
    }

    #[test]
    fn the_burst_has_the_channels_rate() {
        let now = Instant::now();
        let mut schedule = Schedule::new(RATES, 1, now);
        schedule.join(channel(1), BLOCK, host(1), Evidence::Joined, now);
        let seen = run(&mut schedule, now, Duration::from_millis(100));
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
        assert_eq!(first + rest, 256 + 2 + 64);
    }

    #[test]
    fn another_hosts_join_extends_the_burst_with_new_symbols() {
        let now = Instant::now();
        let mut schedule = Schedule::new(RATES, 1, now);
        schedule.join(channel(1), BLOCK, host(1), Evidence::Joined, now);
        let mut all = ids(&run(&mut schedule, now, Duration::from_millis(50)));
        let then = now + Duration::from_millis(50);
        schedule.join(channel(1), BLOCK, host(2), Evidence::Joined, then);
        all.extend(ids(&run(&mut schedule, then, Duration::from_secs(60))));
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        assert!(all.len() > 256 + 64 + 100, "{}", all.len());
    }

    #[test]
    fn an_answer_to_the_question_brings_another_burst() {
        let now = Instant::now();
        let mut schedule = Schedule::new(RATES, 1, now);
        schedule.join(channel(1), BLOCK, host(1), Evidence::Joined, now);
        let (mut at, mut count, mut asked) = (now, 0, false);
        while !asked {
            match schedule.poll(at) {
                Some(Action::Symbols { ids, .. }) => count += ids.len(),
                Some(Action::Ask { .. }) => asked = true,
                None => at = schedule.poll_timeout().unwrap(),
            }
        }
        assert_eq!(count, 256 + 2 + 64);
        schedule.join(channel(1), BLOCK, host(1), Evidence::Confirmed, at);
        let more = ids(&run(&mut schedule, at, Duration::from_secs(60)));
        assert_eq!(more.len(), 256 + 2 + 64);
        assert!(more.iter().all(|id| *id >= 256), "repair symbols only");
    }

    #[test]
    fn channels_share_the_total_rate_fairly() {
        let now = Instant::now();
        let rates = Rates {
            total: Some(10_000_000),
            ..RATES
        };
        let mut schedule = Schedule::new(rates, 1, now);
        for n in 1..=10 {
            schedule.join(channel(n), BLOCK, host(1), Evidence::Joined, now);
        }
        let seen = run(&mut schedule, now, Duration::from_secs(1));
        let mut each = BTreeMap::new();
        for (_, action) in &seen {
            if let Action::Symbols { channel, ids, .. } = action {
                *each.entry(*channel).or_insert(0) += ids.len() as u64;
            }
        }
        let total: u64 = each.values().sum::<u64>() * WIRE_SIZE * 8;
        assert!(
            (9_500_000..=10_700_000).contains(&total),
            "{total} bits in a second"
        );
        let (least, most) = (each.values().min().unwrap(), each.values().max().unwrap());
        assert!(each.len() == 10 && most - least <= 32, "{each:?}");
    }

    #[test]
    fn a_flood_of_joins_is_bounded_and_everybody_gets_a_turn() {
        let now = Instant::now();
        let mut schedule = Schedule::new(RATES, 1, now);
        for n in 0..MAX_CHANNELS as u32 + 5 {
            let group = Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, (n >> 16) as u16, n as u16);
            schedule.join(
                Channel {
                    interface: 1,
                    group,
                },
                1024,
                host(1),
                Evidence::Joined,
                now,
            );
        }
        assert_eq!((schedule.joined(), schedule.refused()), (MAX_CHANNELS, 5));
        assert!(schedule.bursting(1).count() <= MAX_BURSTS);
        run(&mut schedule, now, Duration::from_secs(1_000));
        assert_eq!(schedule.joined(), 0);
    }

    #[test]
    fn more_reporters_than_are_told_apart_are_asked_not_forgotten() {
        let now = Instant::now();
        let mut schedule = Schedule::new(RATES, 1, now);
        for n in 0..MAX_REPORTERS as u16 + 3 {
            schedule.join(channel(1), BLOCK, host(n), Evidence::Joined, now);
        }
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
        let mut all = ids(&run(&mut schedule, now, Duration::from_millis(50)));
        schedule.part(channel(1), host(1), now);
        schedule.join(
            channel(1),
            BLOCK,
            host(1),
            Evidence::Joined,
            now + Duration::from_millis(80),
        );
        let then = now + Duration::from_millis(80);
        all.extend(ids(&run(&mut schedule, then, Duration::from_millis(50))));
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    }
}
