//! Fetching blocks, as a state machine: symbols in, memberships and verified blocks out.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use librecast::bucket::TokenBucket;
use librecast::channel::{ChannelId, block_channel};
use librecast::coding::SYMBOL_SIZE;

use super::collector::{Collector, Outcome, Source};
use super::window::Window;
use crate::block::{BlockHash, BlockRef};
use crate::packet::{Symbol, WIRE_SIZE};
use crate::record::{MAX_SENDING, Record};

/// A channel that is silent for so long is left and joined again; doubled each time.
const SILENCE: Duration = Duration::from_millis(800);
/// Upper bound of that doubling.
const MAX_SILENCE: Duration = Duration::from_secs(8);
/// Between leaving and joining: the kernel must not take both together for no change at all.
const REJOIN: Duration = Duration::from_millis(100);
/// From a JOIN to its first symbol: the kernel's report takes some 10 ms, and a block gathers for 40.
const LEAD: Duration = Duration::from_millis(60);
/// How often windows and silences are looked at.
const TICK: Duration = Duration::from_millis(50);
/// Servers whose sequence numbers are followed on one channel.
const MAX_STREAMS: usize = 8;
/// A larger gap is a server that has started anew.
const MAX_GAP: u32 = 1 << 16;
/// Between two records of a busy server, at most.
const RECORDS: Duration = Duration::from_millis(100);
/// The same where the server has a long queue.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);
/// Blocks half received that were put aside when the window shrank.
const MAX_PARKED: usize = 128;
/// Symbols of a corrupt source are refused for so long: not for ever, as its address may have been forged.
const BAN: Duration = Duration::from_secs(10);
/// Corrupt sources remembered.
const MAX_BANNED: usize = 64;
/// Sources that are known to have brought a whole block.
const MAX_TRUSTED: usize = 16;

/// What the shell is to do, or may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Join a channel.
    Join(ChannelId),
    /// Leave a channel.
    Leave(ChannelId),
    /// A wanted block, verified.
    Block {
        /// Hash and length, which the bytes were checked against.
        block: BlockRef,
        /// At most 256 KiB.
        bytes: Vec<u8>,
    },
    /// This source has sent symbols that are not of the block; it is not listened to for a while.
    CorruptSource(Source),
}

/// Packets of blocks, by what came of them, and the blocks.
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
    /// Blocks that came whole.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Wanted blocks, and the channels joined for them.
#[derive(Debug)]
pub struct Fetch {
    /// The share's, or empty: channels are derived with it.
    key: Vec<u8>,
    window: Window,
    limit: Option<TokenBucket>,
    wanted: BTreeMap<u64, BlockRef>,
    order_of: HashMap<ChannelId, u64>,
    next_order: u64,
    /// Blocks are taken from here on, then from the first one: in the order of those who fetch the same.
    cursor: u64,
    /// The layer of the channels that are joined.
    layer: u8,
    active: BTreeMap<ChannelId, Active>,
    /// Of these, so many whose last symbols are coming: the next ones are joined meanwhile.
    ending: usize,
    /// Symbols of a channel that come between a JOIN and its first.
    lead: u32,
    parked: BTreeMap<BlockHash, Collector>,
    /// The server has more to send than it says.
    long_queue: bool,
    /// Channels to hold at most, if nobody else has joined them: more only wait at the server.
    own: usize,
    being_sent: Vec<BeingSent>,
    /// Corrupt sources, and until when their symbols are refused.
    banned: BTreeMap<Source, Instant>,
    trusted: BTreeSet<Source>,
    /// Somebody has lied: symbols of different sources are no longer mixed.
    apart: bool,
    events: VecDeque<Event>,
    counters: Counters,
    next_tick: Instant,
    /// Blocks that whoever takes them has room for.
    room: usize,
    /// Blocks that are still to be handed over.
    complete: usize,
}

/// A channel that somebody else has joined already.
#[derive(Debug, Clone, Copy)]
struct BeingSent {
    channel: ChannelId,
    /// Symbols that were still to come, at that moment.
    left: u16,
    at: Instant,
    symbol_time: Duration,
}

impl BeingSent {
    /// Whether three quarters of a block of `symbols` come without a JOIN of ours.
    fn is_worth_joining(&self, symbols: u32, now: Instant) -> bool {
        let left = u32::from(self.left);
        if left >= symbols {
            // not begun, and the next record says when it has
            return now < self.at + RECORDS;
        }
        let spare = left.saturating_sub(symbols * 3 / 4);
        now < self.at + self.symbol_time * spare
    }
}

#[derive(Debug)]
struct Active {
    block: BlockRef,
    order: u64,
    collector: Collector,
    /// Joined, or left for a moment until then.
    rejoin_at: Option<Instant>,
    last_activity: Instant,
    silences: u32,
    /// Its last symbols are coming.
    ending: bool,
    /// Next expected sequence number of each server.
    streams: BTreeMap<Source, u32>,
}

impl Fetch {
    /// Nothing wanted, of a share without key. `limit` bits per second are not exceeded on average.
    #[must_use]
    pub fn new(window: Window, limit: Option<u64>, now: Instant) -> Self {
        Self {
            key: Vec::new(),
            window,
            limit: limit.map(|rate| TokenBucket::new(rate, rate / 16, now)),
            wanted: BTreeMap::new(),
            order_of: HashMap::new(),
            next_order: 0,
            cursor: 0,
            layer: 0,
            active: BTreeMap::new(),
            ending: 0,
            lead: 0,
            parked: BTreeMap::new(),
            long_queue: false,
            own: usize::MAX,
            being_sent: Vec::new(),
            banned: BTreeMap::new(),
            trusted: BTreeSet::new(),
            apart: false,
            events: VecDeque::new(),
            counters: Counters::default(),
            next_tick: now,
            room: usize::MAX,
            complete: 0,
        }
    }

    /// The same for a share with a key.
    #[must_use]
    pub fn with_key(self, key: &[u8]) -> Self {
        let key = key.to_vec();
        Self { key, ..self }
    }

    /// Wants a block; one that is wanted already is not wanted twice.
    pub fn want(&mut self, block: BlockRef) {
        let channel = self.channel_of(block);
        if self.order_of.contains_key(&channel) || self.active.contains_key(&channel) {
            return;
        }
        self.wanted.insert(self.next_order, block);
        self.order_of.insert(channel, self.next_order);
        self.next_order += 1;
    }

    /// Wants nothing any more, and leaves all channels.
    pub fn clear(&mut self) {
        self.events.retain(|e| !matches!(e, Event::Block { .. }));
        self.complete = 0;
        self.wanted.clear();
        self.order_of.clear();
        self.parked.clear();
        self.ending = 0;
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

    /// Channels that are joined.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.active.len()
    }

    /// The window, for what it knows of loss.
    #[must_use]
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// Packets of blocks so far, by what came of them.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Counts from 0 again.
    pub fn reset_counters(&mut self) {
        self.counters = Counters::default();
    }

    /// What the record says: channels that are being sent anyway. No more than `max` channels of the normal rate
    /// are to be held, which may be less than one.
    pub fn set_record(&mut self, record: &Record, max: f64, now: Instant) {
        let rate = if self.layer == 0 {
            record.channel_rate
        } else {
            record.slow_rate
        };
        let packet_rate = |kilobits: u32| f64::from(kilobits.max(1)) * 1e3 / (8 * WIRE_SIZE) as f64;
        let symbol_time = Duration::from_secs_f64(1.0 / packet_rate(rate));
        // a server that has a queue needs no further joins to be busy
        self.lead = match record.total_rate {
            0 => (LEAD.as_secs_f64() * packet_rate(rate)) as u32,
            _ => 0,
        };
        self.being_sent.clear();
        for sending in &record.sending {
            if let Some(active) = self.active.get_mut(&sending.channel) {
                // its turn comes
                active.last_activity = now;
            } else {
                self.being_sent.push(BeingSent {
                    channel: sending.channel,
                    left: sending.left,
                    at: now,
                    symbol_time,
                });
            }
        }
        self.long_queue = record.sending.len() == MAX_SENDING;
        let channels = f64::from(record.total_rate) / f64::from(record.channel_rate.max(1));
        self.window
            .set_server_full((record.total_rate > 0).then_some(channels));
        // twice what it can send: it never has nothing to send, and others can join in time
        self.own = match record.total_rate {
            0 => usize::MAX,
            total => 2 * total.div_ceil(rate.max(1)) as usize + 2,
        };
        let slow = (record.slow_rate > 0)
            .then(|| f64::from(record.slow_rate) / f64::from(record.channel_rate));
        self.window
            .set_bounds(max, packet_rate(record.channel_rate), slow);
    }

    /// No more blocks than these are under way or still to be handed over, whatever the window allows.
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
        active.last_activity = now;
        active.silences = 0;
        let trusted = self.trusted.contains(&source);
        // length and id have been checked when the packet was parsed
        let outcome = active
            .collector
            .receive(source, trusted, symbol.esi, symbol.data);
        let is_new = outcome != Ok(Outcome::Duplicate);
        match active.follow(source, symbol.sequence) {
            None if is_new => {
                self.counters.lost = self.counters.lost.saturating_sub(1);
                self.window.on_overtaken(now);
            }
            gap => {
                // where somebody lies, he does not say how full the link is either
                let counts = trusted || !self.apart || self.trusted.is_empty();
                let lost = gap.filter(|_| counts).map_or(0, u64::from);
                self.counters.lost += lost;
                if self.window.on_packet(lost, now) {
                    self.next_tick = now;
                }
            }
        }
        match outcome {
            Ok(Outcome::Kept) => {
                if !active.ending && active.collector.is_ending(self.lead) {
                    active.ending = true;
                    self.ending += 1;
                }
                true
            }
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
            Ok(Outcome::Forged(source)) => {
                self.forged(source, now);
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

    /// Ends channels that are silent, adapts the window and joins further channels.
    pub fn handle_timeout(&mut self, now: Instant) {
        if now < self.next_tick {
            return;
        }
        self.next_tick = now + TICK;
        self.window.on_tick(now);
        self.choose_layer();
        self.shrink();
        self.toggle_silent(now);
        self.fill(now);
    }

    /// The next thing to do.
    pub fn poll_event(&mut self, now: Instant) -> Option<Event> {
        if self.events.is_empty() {
            self.fill(now);
        }
        let event = self.events.pop_front();
        self.complete -= usize::from(matches!(event, Some(Event::Block { .. })));
        event
    }

    fn complete(&mut self, channel: ChannelId, bytes: Vec<u8>, now: Instant) {
        if let Some(active) = self.take(channel) {
            self.complete += 1;
            self.counters.blocks += 1;
            self.counters.bytes += u64::from(active.block.length);
            self.events.push_back(Event::Leave(channel));
            self.events.push_back(Event::Block {
                block: active.block,
                bytes,
            });
            self.window.on_block();
            self.fill(now);
        }
    }

    fn take(&mut self, channel: ChannelId) -> Option<Active> {
        let active = self.active.remove(&channel)?;
        self.ending -= usize::from(active.ending);
        Some(active)
    }

    /// Channels that fill the window.
    fn busy(&self) -> usize {
        // blocks of which nothing more comes must not let others in without end
        self.active.len() - self.ending.min(self.active.len() / 2)
    }

    /// Symbols of a block did not make the block. If they came from one source, its symbols are refused for a while; else
    /// each source has a decoder of its own from now on.
    fn forged(&mut self, source: Option<Source>, now: Instant) {
        self.counters.forged += 1;
        let Some(source) = source else {
            self.apart = true;
            return;
        };
        self.trusted.remove(&source);
        self.banned.retain(|_, until| now < *until);
        if self.banned.len() < MAX_BANNED {
            self.banned.insert(source, now + BAN);
            self.events.push_back(Event::CorruptSource(source));
        }
    }

    fn channel_of(&self, block: BlockRef) -> ChannelId {
        block_channel(&self.key, &block.hash.0, self.layer)
    }

    /// Joins channels while the window and the limit have room.
    fn fill(&mut self, now: Instant) {
        while self.busy() < self.window.size_of_shared()
            && self.active.len() + self.complete < self.room
            && !self.wanted.is_empty()
        {
            if self.limit.as_mut().is_some_and(|l| !l.ready(now)) {
                return;
            }
            let own = self.busy() < self.own.min(self.window.size());
            let next = self
                .announced(now)
                .or_else(|| self.following().filter(|_| own));
            let Some(order) = next else {
                return;
            };
            self.begin(order, now);
        }
    }

    /// What will be sent anyway, that first which begins first.
    fn announced(&self, now: Instant) -> Option<u64> {
        self.being_sent.iter().find_map(|sent| {
            let order = self.order_of.get(&sent.channel)?;
            let symbols = self.wanted.get(order)?.length.div_ceil(SYMBOL_SIZE as u32);
            sent.is_worth_joining(symbols, now).then_some(*order)
        })
    }

    /// What follows the block that was taken last, and after the end the first one.
    fn following(&self) -> Option<u64> {
        let next = self.wanted.range(self.cursor..).next();
        next.or_else(|| self.wanted.first_key_value())
            .map(|(o, _)| *o)
    }

    fn begin(&mut self, order: u64, now: Instant) {
        let Some(block) = self.wanted.remove(&order) else {
            return;
        };
        self.cursor = order + 1;
        let channel = self.channel_of(block);
        self.order_of.remove(&channel);
        let parked = self.parked.remove(&block.hash).map(Ok);
        // lengths have been checked when the block's parent was parsed
        let Ok(collector) = parked.unwrap_or_else(|| Collector::new(block, self.apart)) else {
            return;
        };
        if let Some(limit) = &mut self.limit {
            limit.spend(u64::from(collector.missing()) * WIRE_SIZE, now);
        }
        let active = Active {
            block,
            order,
            collector,
            rejoin_at: None,
            last_activity: now,
            silences: 0,
            ending: false,
            streams: BTreeMap::new(),
        };
        self.active.insert(channel, active);
        self.events.push_back(Event::Join(channel));
    }

    /// Leaves the channels that have brought least, until the window is kept; what they brought is kept.
    fn shrink(&mut self) {
        while self.busy() > self.window.size_of_shared() {
            let least = self
                .active
                .iter()
                .min_by_key(|(_, a)| a.collector.received())
                .map(|(c, _)| *c);
            let Some(channel) = least else {
                return;
            };
            self.put_back(channel);
        }
    }

    /// Leaves a channel whose block is still wanted. It is the next to be taken.
    fn put_back(&mut self, channel: ChannelId) {
        let Some(active) = self.take(channel) else {
            return;
        };
        if active.rejoin_at.is_none() {
            self.events.push_back(Event::Leave(channel));
        }
        self.cursor = self.cursor.min(active.order);
        self.wanted.insert(active.order, active.block);
        self.order_of.insert(channel, active.order);
        if self.parked.len() < MAX_PARKED && active.collector.received() > 0 {
            self.parked.insert(active.block.hash, active.collector);
        }
    }

    /// Changes to the channels of the other layer when the window has become too small for those of this one, or too
    /// large. What has come is kept: it is the same blocks.
    fn choose_layer(&mut self) {
        let layer = u8::from(self.window.is_slow());
        if layer == self.layer {
            return;
        }
        for channel in self.active.keys().copied().collect::<Vec<_>>() {
            self.put_back(channel);
        }
        self.layer = layer;
        self.being_sent.clear();
        self.order_of = self
            .wanted
            .iter()
            .map(|(order, block)| (block_channel(&self.key, &block.hash.0, layer), *order))
            .collect();
    }

    fn toggle_silent(&mut self, now: Instant) {
        for (channel, active) in &mut self.active {
            if let Some(at) = active.rejoin_at {
                if now >= at {
                    active.rejoin_at = None;
                    active.last_activity = now;
                    self.events.push_back(Event::Join(*channel));
                }
                continue;
            }
            let patience = SILENCE
                .saturating_mul(1 << active.silences.min(8))
                .min(MAX_SILENCE);
            let patience = if self.long_queue && active.collector.received() == 0 {
                patience.max(QUEUE_TIMEOUT)
            } else {
                patience
            };
            if now.saturating_duration_since(active.last_activity) >= patience {
                active.silences += 1;
                active.rejoin_at = Some(now + REJOIN);
                self.events.push_back(Event::Leave(*channel));
            }
        }
    }
}

impl Active {
    /// How many packets are missing before this one; `None` if others have overtaken it, which counted it as lost.
    fn follow(&mut self, source: Source, sequence: u32) -> Option<u32> {
        let next = sequence.wrapping_add(1);
        if let Some(expected) = self.streams.get_mut(&source) {
            let gap = sequence.wrapping_sub(*expected);
            if gap > u32::MAX - MAX_GAP {
                return None;
            }
            *expected = next;
            return Some(if gap < MAX_GAP { gap } else { 0 });
        }
        if self.streams.len() < MAX_STREAMS {
            self.streams.insert(source, next);
        }
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

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
            slow_rate: 0,
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
    fn losses_are_seen_in_the_sequence_of_each_server_and_what_was_overtaken_is_not_lost() {
        let now = Instant::now();
        let mut feeder = Feeder::new(&[3; 50 * SYMBOL_SIZE]);
        let mut fetch = fetch(8, now);
        fetch.want(feeder.block);
        events(&mut fetch, now);
        let mut lost_after = |n, server, esi| {
            feeder.sequence = n;
            feeder.send(&mut fetch, source(server), esi, now);
            fetch.counters().lost
        };
        assert_eq!(
            [(0, 1), (1, 1), (4, 1)].map(|(n, s)| lost_after(n, s, n)),
            [0, 0, 2]
        );
        assert_eq!(
            [(u32::MAX - 1, 2), (1, 2)].map(|(n, s)| lost_after(n, s, n % 40)),
            [2, 4]
        );
        // the second time it is no more than twice the same
        assert_eq!([3, 3].map(|n| lost_after(n, 1, n)), [3, 3]);
    }

    #[test]
    fn once_somebody_has_lied_only_who_brought_a_block_says_what_is_lost() {
        let now = Instant::now();
        let mut fetch = fetch(8, now);
        let mut feeders = [3, 4].map(|n| Feeder::new(&[n; 4 * SYMBOL_SIZE]));
        feeders.iter().for_each(|f| fetch.want(f.block));
        events(&mut fetch, now);
        let [first, second] = &mut feeders;
        for esi in 0..4 {
            let (from, data) = (source(esi as u16 % 2), [esi as u8; SYMBOL_SIZE]);
            first.deliver(&mut fetch, from, esi, &data, now);
        }
        assert!(fetch.apart);
        (0..4).for_each(|esi| first.send(&mut fetch, source(1), esi, now));
        let before = fetch.counters().lost;
        for (from, gap) in [(0, 0), (1, 0), (0, 1_000), (1, 5)] {
            second.sequence += gap;
            second.send(&mut fetch, source(from), gap % 50, now);
        }
        // the gaps that the server itself left; the liar would have added as many
        assert_eq!(fetch.counters().lost, before + 1_000 + 1 + 5);
    }

    #[test]
    fn what_is_being_sent_anyway_comes_first() {
        let now = Instant::now();
        let mut fetch = fetch(2, now);
        let blocks: Vec<Feeder> = (0..10)
            .map(|n| Feeder::new(&[n; 200 * SYMBOL_SIZE]))
            .collect();
        for feeder in &blocks {
            fetch.want(feeder.block);
        }
        fetch.set_record(
            &record(&[
                (blocks[7].channel, 200),
                (99, 200),
                (blocks[5].channel, 100),
            ]),
            128.0,
            now,
        );
        // the second has begun too long ago; then on from the first, as its members will
        let joined = events(&mut fetch, now);
        assert_eq!(
            joined,
            [
                Event::Join(blocks[7].channel),
                Event::Join(blocks[8].channel)
            ]
        );
    }

    #[test]
    fn a_lone_corrupt_source_is_named_and_the_block_comes_from_another() {
        let now = Instant::now();
        let data: Vec<u8> = (0..4 * SYMBOL_SIZE).map(|n| n as u8).collect();
        let mut feeder = Feeder::new(&data);
        let mut fetch = fetch(8, now);
        fetch.want(feeder.block);
        events(&mut fetch, now);
        for esi in 0..4 {
            feeder.deliver(&mut fetch, source(66), esi, &[9; SYMBOL_SIZE], now);
        }
        assert_eq!(events(&mut fetch, now), [Event::CorruptSource(source(66))]);
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
    fn a_corrupt_source_among_others_delays_but_does_not_stop() {
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
            !seen.contains(&Event::CorruptSource(source(2))),
            "the honest one is not blamed"
        );
    }

    #[test]
    fn a_corrupt_source_is_taken_again_after_a_while_and_their_table_is_bounded() {
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
        fetch.set_record(&record(&[]), 1.0, now);
        fetch.handle_timeout(now);
        let left: Vec<Event> = feeders[..3]
            .iter()
            .map(|f| Event::Leave(f.channel))
            .collect();
        assert_eq!(events(&mut fetch, now), left);
        assert_eq!(fetch.missing(), 4);
        fetch.set_record(&record(&[]), 4.0, now);
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
    fn on_a_slow_link_the_same_blocks_come_on_slow_channels() {
        let mut now = Instant::now();
        let mut fetch = fetch(4, now);
        let mut feeder = Feeder::new(&[5; 40 * SYMBOL_SIZE]);
        fetch.want(feeder.block);
        assert_eq!(events(&mut fetch, now), [Event::Join(feeder.channel)]);
        for esi in 0..20 {
            feeder.send(&mut fetch, source(1), esi, now);
        }
        let slow = Record {
            slow_rate: 1_000,
            ..record(&[])
        };
        // a limit below one channel of the normal rate
        fetch.set_record(&slow, 0.5, now);
        now += TICK * 2;
        fetch.handle_timeout(now);
        let channel = block_channel(b"", &feeder.block.hash.0, 1);
        let changes = [Event::Leave(feeder.channel), Event::Join(channel)];
        assert_eq!(events(&mut fetch, now), changes);
        feeder.channel = channel;
        for esi in 20..40 {
            feeder.send(&mut fetch, source(1), esi, now);
        }
        let done = events(&mut fetch, now);
        assert!(matches!(&done[1], Event::Block { .. }), "{done:?}");
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
