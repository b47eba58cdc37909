//! Fetching blocks, as a state machine: symbols in, memberships and verified blocks out.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use librecast::channel::{ChannelId, block_channel};
use librecast::coding::MAX_SYMBOLS;
use librecast::pacing::TokenBucket;

use super::collector::{Collector, Outcome};
use super::window::Window;
use crate::block::BlockRef;
use crate::packet::{Symbol, WIRE_SIZE};
use crate::record::Record;

/// A channel that brings nothing for so long is left and joined again; longer each time.
const SILENCE: Duration = Duration::from_millis(800);
const MAX_SILENCE: Duration = Duration::from_secs(8);
/// Between leaving and joining: the kernel must not take both together for no change at all.
const REJOIN: Duration = Duration::from_millis(100);
/// How often windows and silences are looked at.
const TICK: Duration = Duration::from_millis(50);
/// Servers whose sequence numbers are followed on one channel.
const MAX_STREAMS: usize = 8;
/// A larger gap is a server that has started anew.
const MAX_GAP: u32 = 1 << 16;
/// Symbols that must still be to come for a channel to be worth joining out of turn.
const WORTH_JOINING: u32 = MAX_SYMBOLS / 2;
/// Blocks half received that were put aside when the window shrank.
const MAX_PARKED: usize = 128;
/// A liar is not listened to for so long: not for ever, as somebody else may have sent under his address.
const BAN: Duration = Duration::from_secs(10);
const MAX_BANNED: usize = 64;
/// Sources that are known to have brought a whole block.
const MAX_TRUSTED: usize = 16;

/// Who a packet is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    /// Source address.
    pub address: Ipv6Addr,
    /// Interface it came in by.
    pub interface: u32,
    /// The number in its packets.
    pub server: u32,
}

/// What the shell is to do, or may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Join a channel.
    Join(ChannelId),
    /// Leave a channel.
    Leave(ChannelId),
    /// A wanted block, verified.
    Block {
        /// Which.
        block: BlockRef,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// This source has sent symbols that are not of the block; it is not listened to for a while.
    Liar(Source),
}

/// Counted packets.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    /// Symbols received on joined channels.
    pub symbols: u64,
    /// Symbols known to have been lost.
    pub lost: u64,
    /// Symbols received twice.
    pub duplicate: u64,
    /// Symbols of channels that are not, or no longer, joined.
    pub unwanted: u64,
    /// Symbols that contradict the channel they came on, or are from a source no longer listened to.
    pub refused: u64,
    /// Blocks that decoded to something else than what they should be.
    pub forged: u64,
}

/// Wanted blocks, and the channels joined for them.
#[derive(Debug)]
pub struct Fetch {
    window: Window,
    limit: Option<TokenBucket>,
    wanted: BTreeMap<u64, BlockRef>,
    order_of: HashMap<ChannelId, u64>,
    next_order: u64,
    active: BTreeMap<ChannelId, Active>,
    parked: BTreeMap<ChannelId, Collector>,
    being_sent: Vec<BeingSent>,
    /// Liars, until when.
    banned: BTreeMap<Source, Instant>,
    trusted: BTreeSet<Source>,
    /// Somebody has lied: symbols of different sources are no longer mixed.
    apart: bool,
    events: VecDeque<Event>,
    counters: Counters,
    next_tick: Instant,
    /// Blocks that whoever takes them has room for.
    room: usize,
}

/// A channel that somebody else has joined already.
#[derive(Debug, Clone, Copy)]
struct BeingSent {
    channel: ChannelId,
    /// Until then at least half of a block comes without a JOIN of ours.
    until: Instant,
}

#[derive(Debug)]
struct Active {
    block: BlockRef,
    collector: Collector,
    /// Joined, or left for a moment until then.
    rejoin_at: Option<Instant>,
    heard: Instant,
    silences: u32,
    /// Next expected sequence number of each server.
    streams: BTreeMap<Source, u32>,
}

impl Fetch {
    /// Nothing wanted. `limit` bits per second are not exceeded on average.
    #[must_use]
    pub fn new(window: Window, limit: Option<u64>, now: Instant) -> Self {
        Self {
            window,
            limit: limit.map(|rate| TokenBucket::new(rate, rate / 16, now)),
            wanted: BTreeMap::new(),
            order_of: HashMap::new(),
            next_order: 0,
            active: BTreeMap::new(),
            parked: BTreeMap::new(),
            being_sent: Vec::new(),
            banned: BTreeMap::new(),
            trusted: BTreeSet::new(),
            apart: false,
            events: VecDeque::new(),
            counters: Counters::default(),
            next_tick: now,
            room: usize::MAX,
        }
    }

    /// Wants a block; one that is wanted already is not wanted twice.
    pub fn want(&mut self, block: BlockRef) {
        let channel = block_channel(b"", &block.hash.0, 0);
        if self.order_of.contains_key(&channel) || self.active.contains_key(&channel) {
            return;
        }
        self.wanted.insert(self.next_order, block);
        self.order_of.insert(channel, self.next_order);
        self.next_order += 1;
    }

    /// Wants nothing any more, and leaves all channels.
    pub fn clear(&mut self) {
        self.wanted.clear();
        self.order_of.clear();
        self.parked.clear();
        for (channel, active) in std::mem::take(&mut self.active) {
            if active.rejoin_at.is_none() {
                self.events.push_back(Event::Leave(channel));
            }
        }
    }

    /// Blocks still to come.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.wanted.len() + self.active.len()
    }

    /// Channels held.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.active.len()
    }

    /// The window, for what it knows of loss.
    #[must_use]
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// Packets counted.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What the record says: channels that are being sent anyway, and how many may be held.
    pub fn set_record(&mut self, record: &Record, max_channels: usize, now: Instant) {
        let symbol_time = 8.0 * WIRE_SIZE as f64 / (f64::from(record.channel_rate) * 1e3);
        let spare = |left: u16| u32::from(left).saturating_sub(WORTH_JOINING);
        self.being_sent = record
            .sending
            .iter()
            .filter(|s| spare(s.left) > 0)
            .map(|s| BeingSent {
                channel: s.channel,
                until: now + Duration::from_secs_f64(symbol_time * f64::from(spare(s.left))),
            })
            .collect();
        self.window.set_max(max_channels);
    }

    /// No more blocks than these are fetched at once, whatever the window allows.
    pub fn set_room(&mut self, room: usize) {
        self.room = room;
    }

    /// A symbol came on `channel`; whether it was of any use.
    pub fn handle_symbol(
        &mut self,
        channel: ChannelId,
        source: Source,
        symbol: &Symbol<'_>,
        now: Instant,
    ) -> bool {
        let Some(active) = self.active.get_mut(&channel) else {
            self.counters.unwanted += 1;
            return false;
        };
        let fits = symbol.channel == channel && symbol.block_length == active.block.length;
        if !fits || self.banned.get(&source).is_some_and(|until| now < *until) {
            self.counters.refused += 1;
            return false;
        }
        self.counters.symbols += 1;
        active.heard = now;
        active.silences = 0;
        let lost = u64::from(active.follow(source, symbol.sequence));
        self.counters.lost += lost;
        self.window.on_packet(lost);
        let trusted = self.trusted.contains(&source);
        // length and id have been checked when the packet was parsed
        match active
            .collector
            .receive(source, trusted, symbol.esi, symbol.data)
        {
            Ok(Outcome::Kept) => true,
            Ok(Outcome::Block(bytes, from)) => {
                if let Some(from) = from
                    && self.trusted.len() < MAX_TRUSTED
                {
                    self.trusted.insert(from);
                }
                self.complete(channel, bytes, now);
                true
            }
            Ok(Outcome::Duplicate) => {
                self.counters.duplicate += 1;
                false
            }
            Ok(Outcome::Forged(liar)) => {
                self.forged(liar, now);
                false
            }
            Err(_) => false,
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        self.next_tick
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if now < self.next_tick {
            return;
        }
        self.next_tick = now + TICK;
        self.window.on_tick(now);
        self.shrink();
        self.toggle_silent(now);
        self.fill(now);
    }

    /// The next thing to do.
    pub fn poll_event(&mut self, now: Instant) -> Option<Event> {
        if self.events.is_empty() {
            self.fill(now);
        }
        self.events.pop_front()
    }

    fn complete(&mut self, channel: ChannelId, bytes: Vec<u8>, now: Instant) {
        if let Some(active) = self.active.remove(&channel) {
            self.events.push_back(Event::Leave(channel));
            self.events.push_back(Event::Block {
                block: active.block,
                bytes,
            });
            self.window.on_block();
            self.fill(now);
        }
    }

    /// Symbols of a block did not make the block: somebody has lied. If it can only have been one, he is not
    /// listened to for a while; else the sources are told apart from now on.
    fn forged(&mut self, liar: Option<Source>, now: Instant) {
        self.counters.forged += 1;
        let Some(liar) = liar else {
            self.apart = true;
            return;
        };
        self.trusted.remove(&liar);
        self.banned.retain(|_, until| now < *until);
        if self.banned.len() < MAX_BANNED {
            self.banned.insert(liar, now + BAN);
            self.events.push_back(Event::Liar(liar));
        }
    }

    /// Joins channels while the window and the limit have room: first what is being sent anyway.
    fn fill(&mut self, now: Instant) {
        while self.active.len() < self.window.size().min(self.room) && !self.wanted.is_empty() {
            if self.limit.as_mut().is_some_and(|l| !l.ready(now)) {
                return;
            }
            let order_of = &self.order_of;
            let fresh = self.being_sent.iter().filter(|s| s.until > now);
            let hot = fresh
                .filter_map(|s| order_of.get(&s.channel))
                .next()
                .copied();
            let first = self.wanted.first_key_value().map(|(order, _)| *order);
            let Some(block) = hot.or(first).and_then(|order| self.wanted.remove(&order)) else {
                return;
            };
            let channel = block_channel(b"", &block.hash.0, 0);
            self.order_of.remove(&channel);
            let parked = self.parked.remove(&channel).map(Ok);
            // lengths have been checked when the block's parent was parsed
            let Ok(collector) = parked.unwrap_or_else(|| Collector::new(block, self.apart)) else {
                continue;
            };
            if let Some(limit) = &mut self.limit {
                limit.spend(u64::from(collector.missing()) * WIRE_SIZE, now);
            }
            let active = Active {
                block,
                collector,
                rejoin_at: None,
                heard: now,
                silences: 0,
                streams: BTreeMap::new(),
            };
            self.active.insert(channel, active);
            self.events.push_back(Event::Join(channel));
        }
    }

    /// Leaves the channels that have brought least, until the window is kept; what they brought is kept.
    fn shrink(&mut self) {
        while self.active.len() > self.window.size() {
            let least = self
                .active
                .iter()
                .min_by_key(|(_, a)| a.collector.received())
                .map(|(c, _)| *c);
            let Some((channel, active)) = least.and_then(|c| self.active.remove_entry(&c)) else {
                return;
            };
            if active.rejoin_at.is_none() {
                self.events.push_back(Event::Leave(channel));
            }
            // it comes next again: orders of started blocks are never used twice
            let order = self
                .wanted
                .first_key_value()
                .map_or(self.next_order, |(o, _)| *o);
            let order = if order > 0 {
                order - 1
            } else {
                self.bump_orders()
            };
            self.next_order = self.next_order.max(order + 1);
            self.wanted.insert(order, active.block);
            self.order_of.insert(channel, order);
            if self.parked.len() < MAX_PARKED {
                self.parked.insert(channel, active.collector);
            }
        }
    }

    /// Makes room in front of the first wanted block.
    fn bump_orders(&mut self) -> u64 {
        const ROOM: u64 = 1 << 20;
        let moved = std::mem::take(&mut self.wanted);
        self.wanted = moved
            .into_iter()
            .map(|(order, block)| (order + ROOM, block))
            .collect();
        for order in self.order_of.values_mut() {
            *order += ROOM;
        }
        self.next_order += ROOM;
        ROOM - 1
    }

    fn toggle_silent(&mut self, now: Instant) {
        for (channel, active) in &mut self.active {
            if let Some(at) = active.rejoin_at {
                if now >= at {
                    active.rejoin_at = None;
                    active.heard = now;
                    self.events.push_back(Event::Join(*channel));
                }
                continue;
            }
            let patience = SILENCE
                .saturating_mul(1 << active.silences.min(8))
                .min(MAX_SILENCE);
            if now.saturating_duration_since(active.heard) >= patience {
                active.silences += 1;
                active.rejoin_at = Some(now + REJOIN);
                self.events.push_back(Event::Leave(*channel));
            }
        }
    }
}

impl Active {
    /// How many packets are missing before this one.
    fn follow(&mut self, source: Source, sequence: u32) -> u32 {
        let next = sequence.wrapping_add(1);
        if let Some(expected) = self.streams.get_mut(&source) {
            let gap = sequence.wrapping_sub(*expected);
            // a negative gap is a late packet: it has been counted as lost already, and is rare
            if gap < MAX_GAP {
                *expected = next;
                return gap;
            }
            if gap < u32::MAX - MAX_GAP {
                *expected = next;
            }
        } else if self.streams.len() < MAX_STREAMS {
            self.streams.insert(source, next);
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Sending;
    use crate::tree::Stream;
    use librecast::coding::{Encoder, SYMBOL_SIZE};

    fn source(n: u16) -> Source {
        Source {
            address: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n),
            interface: 1,
            server: n.into(),
        }
    }

    fn fetch(window: usize, now: Instant) -> Fetch {
        Fetch::new(Window::new(window, 128, now), None, now)
    }

    fn record(sending: &[(u64, u16)]) -> Record {
        let sending = sending.iter().map(|(channel, left)| Sending {
            channel: *channel,
            left: *left,
        });
        Record {
            server: 1,
            generation: 1,
            root: BlockRef::of(b"root"),
            metadata: Stream::default(),
            channel_rate: 10_000,
            total_rate: 0,
            max_channels: 128,
            authentication: Vec::new(),
            sending: sending.collect(),
        }
    }

    struct Feeder {
        channel: ChannelId,
        block: BlockRef,
        encoder: Encoder,
        sequence: u32,
    }

    impl Feeder {
        fn new(data: &[u8]) -> Self {
            let block = BlockRef::of(data);
            let channel = block_channel(b"", &block.hash.0, 0);
            Self {
                channel,
                block,
                encoder: Encoder::new(data.to_vec()).unwrap(),
                sequence: 0,
            }
        }

        fn send(&mut self, fetch: &mut Fetch, from: Source, esi: u32, now: Instant) {
            let mut data = Vec::new();
            self.encoder.symbol(esi, &mut data).unwrap();
            self.deliver(fetch, from, esi, &data, now);
        }

        fn deliver(
            &mut self,
            fetch: &mut Fetch,
            from: Source,
            esi: u32,
            data: &[u8],
            now: Instant,
        ) {
            let symbol = Symbol {
                server: from.server,
                sequence: self.sequence,
                channel: self.channel,
                block_length: self.block.length,
                esi,
                data,
            };
            self.sequence += 1;
            fetch.handle_symbol(self.channel, from, &symbol, now);
        }
    }

    fn events(fetch: &mut Fetch, now: Instant) -> Vec<Event> {
        std::iter::from_fn(|| fetch.poll_event(now)).collect()
    }

    #[test]
    fn a_block_is_joined_decoded_verified_and_left() {
        let now = Instant::now();
        let data = vec![3; 5 * SYMBOL_SIZE];
        let mut feeder = Feeder::new(&data);
        let mut fetch = fetch(8, now);
        fetch.want(feeder.block);
        fetch.want(feeder.block);
        assert_eq!(events(&mut fetch, now), [Event::Join(feeder.channel)]);
        for esi in 0..5 {
            feeder.send(&mut fetch, source(1), esi, now);
        }
        let done = Event::Block {
            block: feeder.block,
            bytes: data,
        };
        assert_eq!(
            events(&mut fetch, now),
            [Event::Leave(feeder.channel), done]
        );
        assert_eq!(fetch.missing(), 0);
        feeder.send(&mut fetch, source(1), 6, now);
        assert_eq!(fetch.counters().unwanted, 1);
    }

    #[test]
    fn losses_are_seen_in_the_sequence_of_each_server() {
        let now = Instant::now();
        let mut feeder = Feeder::new(&[3; 50 * SYMBOL_SIZE]);
        let mut fetch = fetch(8, now);
        fetch.want(feeder.block);
        events(&mut fetch, now);
        for (n, server) in [
            (0, 1),
            (1, 1),
            (4, 1),
            (1_000_000, 2),
            (1_000_003, 2),
            (3, 1),
        ] {
            feeder.sequence = n;
            feeder.send(&mut fetch, source(server), n % 50, now);
        }
        assert_eq!(fetch.counters().lost, 2 + 2);
    }

    #[test]
    fn what_is_being_sent_anyway_comes_first() {
        let now = Instant::now();
        let mut fetch = fetch(2, now);
        let blocks: Vec<Feeder> = (0..10).map(|n| Feeder::new(&[n; 100])).collect();
        for feeder in &blocks {
            fetch.want(feeder.block);
        }
        fetch.set_record(
            &record(&[
                (blocks[7].channel, 200),
                (99, 200),
                (blocks[5].channel, 100),
            ]),
            128,
            now,
        );
        let joined = events(&mut fetch, now);
        assert_eq!(
            joined,
            [
                Event::Join(blocks[7].channel),
                Event::Join(blocks[0].channel)
            ]
        );
    }

    #[test]
    fn a_lone_liar_is_named_and_the_block_comes_from_another() {
        let now = Instant::now();
        let data: Vec<u8> = (0..4 * SYMBOL_SIZE).map(|n| n as u8).collect();
        let mut feeder = Feeder::new(&data);
        let mut fetch = fetch(8, now);
        fetch.want(feeder.block);
        events(&mut fetch, now);
        for esi in 0..4 {
            feeder.deliver(&mut fetch, source(66), esi, &[9; SYMBOL_SIZE], now);
        }
        assert_eq!(events(&mut fetch, now), [Event::Liar(source(66))]);
        for esi in 0..4 {
            feeder.deliver(&mut fetch, source(66), esi, &[9; SYMBOL_SIZE], now);
            feeder.send(&mut fetch, source(1), esi, now);
        }
        assert!(
            matches!(&events(&mut fetch, now)[1], Event::Block { bytes, .. } if *bytes == data)
        );
        assert_eq!(fetch.counters().refused, 4);
    }

    #[test]
    fn a_liar_among_honest_servers_delays_but_does_not_stop() {
        let now = Instant::now();
        let data: Vec<u8> = (0..4 * SYMBOL_SIZE).map(|n| n as u8).collect();
        let mut feeder = Feeder::new(&data);
        let mut fetch = fetch(8, now);
        fetch.want(feeder.block);
        let mut seen = events(&mut fetch, now);
        for round in 0..20 {
            for esi in 0..4 {
                feeder.deliver(
                    &mut fetch,
                    source(1),
                    100 + round * 4 + esi,
                    &[9; SYMBOL_SIZE],
                    now,
                );
                feeder.send(&mut fetch, source(2), esi, now);
            }
            seen.extend(events(&mut fetch, now));
        }
        assert!(
            seen.iter()
                .any(|e| matches!(e, Event::Block { bytes, .. } if *bytes == data)),
            "{seen:?}"
        );
        assert!(
            !seen.contains(&Event::Liar(source(2))),
            "the honest one is not blamed"
        );
    }

    #[test]
    fn a_liar_is_heard_again_after_a_while_and_all_that_is_kept_of_liars_is_bounded() {
        let now = Instant::now();
        let mut feeder = Feeder::new(&[5; 100]);
        let mut fetch = fetch(8, now);
        fetch.want(feeder.block);
        events(&mut fetch, now);
        for n in 0..1_000 {
            feeder.deliver(&mut fetch, source(n), 0, &[9; SYMBOL_SIZE], now);
        }
        assert_eq!(events(&mut fetch, now).len(), MAX_BANNED);
        assert_eq!(fetch.banned.len(), MAX_BANNED);
        feeder.send(&mut fetch, source(1), 0, now);
        assert_eq!(events(&mut fetch, now), []);
        feeder.send(&mut fetch, source(1), 0, now + BAN);
        assert!(matches!(
            events(&mut fetch, now + BAN)[..],
            [Event::Leave(_), Event::Block { .. }]
        ));
    }

    #[test]
    fn a_silent_channel_is_left_and_joined_again() {
        let start = Instant::now();
        let feeder = Feeder::new(&[1; 10]);
        let mut fetch = fetch(8, start);
        fetch.want(feeder.block);
        let (mut now, mut seen) = (start, Vec::new());
        while now < start + Duration::from_secs(4) {
            fetch.handle_timeout(now);
            seen.extend(events(&mut fetch, now));
            now += Duration::from_millis(50);
        }
        let (join, leave) = (Event::Join(feeder.channel), Event::Leave(feeder.channel));
        assert_eq!(
            seen,
            [join.clone(), leave.clone(), join.clone(), leave, join]
        );
    }

    #[test]
    fn a_shrunk_window_keeps_what_has_come() {
        let now = Instant::now();
        let mut feeders: Vec<Feeder> = (0..4)
            .map(|n| Feeder::new(&[n; 10 * SYMBOL_SIZE]))
            .collect();
        let mut fetch = fetch(4, now);
        for feeder in &feeders {
            fetch.want(feeder.block);
        }
        events(&mut fetch, now);
        for (n, feeder) in feeders.iter_mut().enumerate() {
            for esi in 0..=n as u32 {
                feeder.send(&mut fetch, source(1), esi, now);
            }
        }
        fetch.set_record(&record(&[]), 1, now);
        fetch.handle_timeout(now);
        let left: Vec<Event> = feeders[..3]
            .iter()
            .map(|f| Event::Leave(f.channel))
            .collect();
        assert_eq!(events(&mut fetch, now), left);
        assert_eq!(fetch.missing(), 4);
        fetch.set_record(&record(&[]), 4, now);
        fetch.window = Window::new(4, 4, now);
        events(&mut fetch, now);
        for esi in 3..10 {
            feeders[2].send(&mut fetch, source(1), esi, now);
        }
        assert!(
            events(&mut fetch, now)
                .iter()
                .any(|e| matches!(e, Event::Block { .. }))
        );
    }

    #[test]
    fn the_limit_is_kept_on_average() {
        let start = Instant::now();
        let mut fetch = Fetch::new(Window::new(128, 128, start), Some(8_000_000), start);
        for n in 0..2_000_u32 {
            fetch.want(Feeder::new(&n.to_be_bytes().repeat(256 * 40)).block);
        }
        let (mut now, mut joined) = (start, 0);
        while now < start + Duration::from_secs(4) {
            fetch.handle_timeout(now);
            joined += events(&mut fetch, now).len();
            now += Duration::from_millis(50);
            fetch.active.clear();
        }
        let bytes = joined * 40 * 1_100;
        assert!(
            (3_800_000..4_700_000).contains(&bytes),
            "{bytes} in 4 s at 1 MB/s"
        );
    }
}
