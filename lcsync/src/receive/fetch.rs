//! Fetching of blocks, as a state machine: symbols in, memberships and verified blocks out.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv6Addr;

use librecast::bucket::TokenBucket;
use librecast::channel::{ChannelId, block_channel};
use librecast::time::{Duration, Instant};

use super::announced::{Announced, BeingSent, packet_rate};
use super::collector::{Collector, Outcome, Source};
use super::single::{Active, SingleBlocks, Toggled};
use super::sources::Sources;
use super::stretches::{Candidate, JoinedStretches, Prospect};
use super::wanted::{Next, Wanted, WantedBlocks};
use super::window::Window;
use crate::block::BlockRef;
use crate::carrying::{self, CarrierNumber, Carriers};
use crate::packet::{Symbol, WIRE_SIZE};
use crate::record::Record;
use crate::stretch::{OFFER_CHANNEL, REPAIR_LAYER, STRETCH, symbols_of};

/// Interval of checks of window and silences.
const TICK: Duration = Duration::from_millis(50);
/// A block that lacks fewer than its symbols divided by this is repaired, others are fetched anew.
/// Chosen.
const REPAIRED_FRACTION: u32 = 2;
/// Missing blocks up to which stretches are joined at once. Chosen: 16 MiB, 1 s at the first rate.
const FEW_BLOCKS: usize = 64;
/// Stretches in the window from which on they are joined. Chosen: one alone overloads slow links.
const MIN_STRETCHES: usize = 3;
/// Factor of the window's bound for stretches: 24 of them, 5.8 Gbit/s. Chosen.
const STRETCHED_WINDOW: f64 = 3.0;
/// Blocks of the content from which on they are divided among receivers. Chosen: 3 MiB.
const LEAST_DIVIDED: usize = 16;
/// Time for which carriers are awaited on an overlay before more than [`FIRST_BLOCKS`] are joined:
/// five records.
const CARRIERS_COME: Duration = Duration::from_millis(300);
const FIRST_BLOCKS: usize = 2;
/// Wanted blocks that are considered when they are divided. Chosen: eight runs of 64 carriers.
const MOST_CONSIDERED: usize = 512;
/// Blocks joined at carriers, all together, and of each carrier. Chosen.
const MOST_CARRIED: usize = 96;
const MOST_OF_CARRIER: usize = 16;
const LEAST_OF_CARRIER: usize = 2;
/// Most groups joined at once, without ending ones: kernels check each for every packet.
const MAX_GROUPS: usize = 128;
/// An action for the shell, or a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Join a channel.
    Join(ChannelId),
    /// Leave a channel.
    Leave(ChannelId),
    /// A wanted block, verified.
    Block {
        /// Hash and length of the bytes.
        block: BlockRef,
        /// At most 256 KiB.
        bytes: Vec<u8>,
    },
    /// This source sent symbols that are not of the block; it is refused for a while.
    CorruptSource(Source),
}

/// Counters of blocks and of their packets, by result.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    /// Symbols received on joined channels.
    pub symbols: u64,
    /// Symbols counted as lost.
    pub lost: u64,
    /// Symbols received twice.
    pub duplicate: u64,
    /// Symbols of channels that are not joined, or no longer.
    pub unwanted: u64,
    /// Symbols that contradict their channel, or come from a refused source.
    pub refused: u64,
    /// Blocks that decoded to other bytes.
    pub forged: u64,
    /// Whole blocks received.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The part of these bytes that other receivers have passed on.
    pub carried_bytes: u64,
}

/// The consumer of blocks.
#[derive(Debug)]
struct Consumer {
    /// Blocks for which it has room.
    room: usize,
    /// The largest room so far.
    most_room: usize,
    /// Whole blocks that wait for it.
    waiting: usize,
}

impl Consumer {
    /// Whether it takes blocks as fast as they come.
    fn keeps_up(&self) -> bool {
        self.room >= self.most_room - self.most_room / 4
    }
}

/// Wanted blocks, and the channels joined for them.
#[derive(Debug)]
pub struct Fetch {
    /// Key of the share, or empty; channels are derived with it.
    key: Vec<u8>,
    window: Window,
    limit: Option<TokenBucket>,
    wanted: WantedBlocks,
    /// The layer of the joined channels.
    layer: u8,
    blocks: SingleBlocks,
    stretches: JoinedStretches,
    prospect: Prospect,
    announced: Announced,
    sources: Sources,
    /// Other receivers that carry; none: the blocks are not divided.
    carriers: Option<Carriers>,
    /// Until then, few blocks are joined.
    few_until: Option<Instant>,
    /// Nothing more can be joined until something changes.
    divided: bool,
    consumer: Consumer,
    /// Channels in use and allowed when no more could be joined: until they change, none can.
    stalled: Option<(usize, usize)>,
    events: VecDeque<Event>,
    counters: Counters,
    next_tick: Instant,
}

impl Fetch {
    /// Wants nothing yet, of a share without key. `limit` bounds the mean bits per second.
    #[must_use]
    pub fn new(window: Window, limit: Option<u64>, now: Instant) -> Self {
        Self {
            key: Vec::new(),
            window,
            limit: limit.map(|rate| TokenBucket::new(rate, rate / 16, now)),
            wanted: WantedBlocks::default(),
            layer: 0,
            blocks: SingleBlocks::default(),
            stretches: JoinedStretches::default(),
            prospect: Prospect::new(now),
            announced: Announced::default(),
            sources: Sources::default(),
            carriers: None,
            few_until: None,
            divided: false,
            consumer: Consumer {
                room: usize::MAX,
                most_room: 0,
                waiting: 0,
            },
            stalled: None,
            events: VecDeque::new(),
            counters: Counters::default(),
            next_tick: now,
        }
    }

    /// Divides blocks with other receivers on an overlay. `own`: this host's number and width, if it
    /// carries.
    pub fn divide(&mut self, own: Option<(CarrierNumber, u8)>) {
        match &mut self.carriers {
            Some(carriers) => carriers.set_own(own),
            None => self.carriers = Some(Carriers::new(own)),
        }
        self.divided = false;
    }

    /// Sets the key of the share.
    #[must_use]
    pub fn with_key(self, key: &[u8]) -> Self {
        let key = key.to_vec();
        Self { key, ..self }
    }

    /// Wants a block, unless it is wanted already.
    pub fn want(&mut self, block: BlockRef) {
        self.want_at(block, None);
    }

    fn want_at(&mut self, block: BlockRef, position: Option<u32>) {
        let channel = self.channel_of(block);
        if self.wanted.order_of(channel).is_some() || self.blocks.has(&block.hash) {
            return;
        }
        (self.stalled, self.divided) = (None, false);
        self.wanted.add(block, channel, position);
    }

    /// Wants blocks, in order, of the content with these leaves, which may come in stretches.
    pub fn want_content(&mut self, blocks: &[BlockRef], leaves: &[BlockRef], now: Instant) {
        let first = self.wanted.next_order();
        let divides = leaves.len() >= LEAST_DIVIDED && self.carriers.is_some();
        let mut places = (0..).zip(leaves);
        for block in blocks {
            let mut find = || places.find(|(_, leaf)| *leaf == block);
            let at = divides.then(&mut find).flatten().map(|(at, _)| at);
            self.want_at(*block, at);
        }
        if divides {
            self.few_until = Some(now + CARRIERS_COME);
        }
        // some were wanted already, with other orders
        if self.wanted.next_order() - first == blocks.len() as u64 {
            self.wanted.add_stretches(first, leaves, blocks, &self.key);
        }
    }

    /// Forgets all wanted blocks, and leaves all channels.
    pub fn clear(&mut self) {
        self.events.retain(|e| !matches!(e, Event::Block { .. }));
        self.consumer.waiting = 0;
        self.wanted.clear();
        self.stalled = None;
        for channel in self.stretches.take().into_keys() {
            self.events.push_back(Event::Leave(channel));
        }
        for (channel, active) in self.blocks.take() {
            if active.is_joined() {
                self.events.push_back(Event::Leave(channel));
            }
        }
    }

    /// Blocks to come.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.wanted.len() + self.blocks.len() + self.stretches.missing()
    }

    /// Joined channels.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.blocks.len() + self.stretches.len()
    }

    /// Blocks that are partly received, or whole and waiting for the consumer.
    #[must_use]
    pub fn blocks_held(&self) -> usize {
        self.blocks.len() + self.consumer.waiting + self.stretches.begun()
    }

    /// The window, with its loss.
    #[must_use]
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// Counters of blocks and packets so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Sets all counters to 0.
    pub fn reset_counters(&mut self) {
        self.counters = Counters::default();
    }

    /// Takes the record of a server that is there: of a carrier, or of another.
    pub fn note_server(&mut self, record: &Record, address: Ipv6Addr, now: Instant) {
        let Some(carriers) = &mut self.carriers else {
            return;
        };
        match &record.carries {
            None => carriers.note_origin(now),
            Some(carries) => carriers.note(address, carries, now),
        }
    }

    /// Takes the channels that a record lists as sent. `max` bounds those of the normal rate, and
    /// may be below 1.
    pub fn set_record(&mut self, record: &Record, max: f64, now: Instant) {
        let rate = if self.layer == 0 {
            record.channel_rate
        } else {
            record.slow_rate
        };
        let symbol_time = Duration::from_secs_f64(1.0 / packet_rate(rate));
        self.announced = Announced::by(record, rate);
        self.stalled = None;
        for sending in &record.sending {
            if sending.channel == OFFER_CHANNEL {
                if usize::from(sending.left) == STRETCH {
                    self.prospect.offered(now);
                }
            } else if let Some(stretch) = self.stretches.get_mut(sending.channel) {
                stretch.last_activity = now;
            } else if let Some(active) = self.blocks.get_mut(sending.channel) {
                // its turn comes
                active.last_activity = now;
            } else {
                self.announced.being_sent.push(BeingSent {
                    channel: sending.channel,
                    left: sending.left,
                    at: now,
                    symbol_time: match self.wanted.candidate(sending.channel) {
                        Some(_) => symbol_time / STRETCH as u32,
                        None => symbol_time,
                    },
                });
            }
        }
        let channels = f64::from(record.total_rate) / f64::from(record.channel_rate.max(1));
        self.window
            .set_server_full((record.total_rate > 0).then_some(channels));
        let slow = (record.slow_rate > 0)
            .then(|| f64::from(record.slow_rate) / f64::from(record.channel_rate));
        let max = match self.is_stretching(now) {
            true => max * STRETCHED_WINDOW,
            false => max,
        };
        self.window
            .set_bounds(max, packet_rate(record.channel_rate), slow);
    }

    /// Whether stretches are joined where possible.
    fn is_stretching(&self, now: Instant) -> bool {
        // few blocks come in one burst, as fast as the first channels of a window
        let begins = self.wanted.len() <= FEW_BLOCKS;
        self.may_stretch(if begins { 1 } else { MIN_STRETCHES }, now)
    }

    /// Whether a server offers stretches, and the link carries this number without loss.
    fn may_stretch(&self, count: usize, now: Instant) -> bool {
        let suits = self.layer == 0 && !self.sources.are_apart() && self.limit.is_none();
        let promises = self.prospect.is_lossless(now) && self.window.suits_stretches(count);
        suits && !self.wanted.has_no_stretch() && self.prospect.is_offered(now) && promises
    }

    /// Bounds the blocks under way or waiting for the consumer, besides the window.
    pub fn set_room(&mut self, room: usize) {
        self.consumer.room = room;
        self.consumer.most_room = self.consumer.most_room.max(room);
    }

    /// Handles a symbol on `channel`; returns whether it was of use.
    pub fn handle_symbol(
        &mut self,
        channel: ChannelId,
        source: Source,
        symbol: &Symbol<'_>,
        now: Instant,
    ) -> bool {
        if self.stretches.contains(channel) {
            return self.handle_symbol_of_stretch(channel, source, symbol, now);
        }
        let Some(active) = self.blocks.get_mut(channel) else {
            self.counters.unwanted += 1;
            return false;
        };
        let fits = symbol.channel == channel && symbol.block_length == active.wanted.block.length;
        if !fits || self.sources.is_refused(&source, now) {
            self.counters.refused += 1;
            return false;
        }
        self.counters.symbols += 1;
        active.last_activity = now;
        active.silences = 0;
        let from = active.from;
        let trusted = self.sources.is_trusted(&source);
        // length and id were checked with the packet
        let outcome = active
            .collector
            .receive(source, trusted, symbol.esi, symbol.data);
        let is_new = outcome != Ok(Outcome::Duplicate);
        let gap = active.streams.follow(source, symbol.sequence);
        match (from, &mut self.carriers) {
            // its uplink is no measure of the link here
            (Some(number), Some(carriers)) => {
                let lost = gap.unwrap_or(0);
                carriers.came(number, lost, now);
                self.counters.lost += u64::from(lost);
            }
            _ => self.count(gap, is_new, trusted, now),
        }
        match outcome {
            Ok(Outcome::Kept) => {
                self.blocks.note_end(channel, self.announced.lead);
                true
            }
            Ok(Outcome::Block(bytes, from)) => {
                self.trust(from);
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

    /// Handles a symbol of a stretch.
    fn handle_symbol_of_stretch(
        &mut self,
        channel: ChannelId,
        source: Source,
        symbol: &Symbol<'_>,
        now: Instant,
    ) -> bool {
        let is_full = self.blocks_held() >= self.consumer.room;
        let trusted = self.sources.is_trusted(&source);
        let fits = symbol.channel == channel && !self.sources.is_refused(&source, now);
        let Some(stretch) = self.stretches.get_mut(channel) else {
            return false;
        };
        let room = !is_full || !stretch.begins(symbol.esi);
        let received = fits.then(|| stretch.receive(source, trusted, symbol, room));
        let Some(received) = received.flatten() else {
            self.counters.refused += 1;
            return false;
        };
        stretch.last_activity = now;
        self.counters.symbols += 1;
        let gap = stretch.follow(source, symbol.sequence);
        // overtaken ones may still come
        let (over, lossy) = (stretch.missing() == 0, stretch.is_lossy());
        let lead = self.announced.lead * STRETCH as u32;
        self.stretches.note_end(channel, lead);
        let Ok(received) = received else {
            return false;
        };
        let is_new = received.outcome != Outcome::Duplicate;
        self.count(gap, is_new, trusted, now);
        if let Some((order, block, collector)) = received.given_up {
            self.want_singly(order, block, Some(collector), now);
        }
        match received.outcome {
            Outcome::Kept => {}
            Outcome::Block(bytes, from) => {
                self.trust(from);
                self.hand_over(received.block, bytes);
            }
            Outcome::Duplicate => self.counters.duplicate += 1,
            Outcome::Forged(source) => self.forged(source, now),
        }
        if lossy {
            self.prospect.lost_much(now);
        }
        if over || lossy {
            self.end_stretch(channel, now);
            self.fill(now);
        }
        is_new
    }

    /// Counts a packet, `gap` packets after the last one of its source.
    fn count(&mut self, gap: Option<u32>, is_new: bool, trusted: bool, now: Instant) {
        if gap.is_none() && is_new {
            self.prospect.overtaken();
            self.counters.lost = self.counters.lost.saturating_sub(1);
            self.window.on_overtaken(now);
            return;
        }
        let counts = self.sources.measures_link(trusted);
        let lost = gap.filter(|_| counts).map_or(0, u64::from);
        self.counters.lost += lost;
        self.prospect.came(lost);
        if self.window.on_packet(lost, now) {
            self.next_tick = now;
        }
    }

    fn trust(&mut self, source: Option<Source>) {
        if let Some(source) = source {
            self.sources.trust(source);
        }
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) is due.
    #[must_use]
    pub fn next_timeout(&self) -> Instant {
        self.next_tick
    }

    /// Ends silent channels, adapts the window and joins further channels.
    pub fn handle_timeout(&mut self, now: Instant) {
        if now < self.next_tick {
            return;
        }
        self.next_tick = now + TICK;
        self.window.on_tick(now);
        self.prospect.on_tick(now);
        self.choose_layer(now);
        self.shrink(now);
        self.toggle_silent(now);
        self.pass_over(now);
        self.move_unbegun(now);
        self.end_silent_stretches(now);
        (self.stalled, self.divided) = (None, false);
        self.fill(now);
    }

    /// Returns the next event.
    pub fn poll_event(&mut self, now: Instant) -> Option<Event> {
        if self.events.is_empty() {
            self.fill(now);
        }
        let event = self.events.pop_front();
        self.consumer.waiting -= usize::from(matches!(event, Some(Event::Block { .. })));
        debug_assert!(
            self.consumer.waiting <= self.events.len(),
            "blocks wait among the events"
        );
        event
    }

    fn complete(&mut self, channel: ChannelId, bytes: Vec<u8>, now: Instant) {
        if let Some(active) = self.blocks.remove(channel) {
            self.events.push_back(Event::Leave(channel));
            match (active.from, &mut self.carriers) {
                (Some(_), _) => self.counters.carried_bytes += bytes.len() as u64,
                (None, Some(carriers)) if active.wanted.position.is_some() => {
                    carriers.own_came(now);
                }
                _ => {}
            }
            self.hand_over(active.wanted.block, bytes);
            self.divided = false;
            self.fill(now);
        }
    }

    fn hand_over(&mut self, block: BlockRef, bytes: Vec<u8>) {
        self.consumer.waiting += 1;
        self.counters.blocks += 1;
        self.counters.bytes += u64::from(block.length);
        self.events.push_back(Event::Block { block, bytes });
        self.window.on_block();
    }

    /// Leaves a stretch, and wants its missing blocks one by one.
    fn end_stretch(&mut self, channel: ChannelId, now: Instant) {
        let Some(stretch) = self.stretches.remove(channel) else {
            return;
        };
        self.events.push_back(Event::Leave(channel));
        for (order, block, collector) in stretch.rest() {
            self.want_singly(order, block, collector, now);
        }
    }

    /// Wants a block of a stretch by itself: on the repair channel, if it lacks little.
    fn want_singly(
        &mut self,
        order: u64,
        block: BlockRef,
        collector: Option<Collector>,
        now: Instant,
    ) {
        let lacking = collector.as_ref().map(Collector::missing);
        let lacks_little = lacking.is_some_and(|n| n < symbols_of(&block) / REPAIRED_FRACTION);
        let repairs = self.layer == 0 && !self.sources.are_apart() && self.prospect.is_offered(now);
        let channel = match lacks_little && repairs {
            true => block_channel(&self.key, &block.hash.0, REPAIR_LAYER),
            false => self.channel_of(block),
        };
        let wanted = Wanted {
            block,
            channel,
            position: None,
            tries: 0,
        };
        self.want_again(order, wanted, collector);
    }

    /// Wants a block again, on this channel, with its symbols so far.
    fn want_again(&mut self, order: u64, wanted: Wanted, collector: Option<Collector>) {
        (self.stalled, self.divided) = (None, false);
        self.wanted.add_again(order, wanted, collector);
    }

    /// Channels that fill the window.
    fn busy(&self) -> usize {
        self.blocks.busy() + self.stretches.busy() * STRETCH
    }

    /// Blocks under way or waiting for the consumer. Those of a stretch come one after the other: a
    /// consumer that keeps up takes half of them before the rest comes.
    fn under_way(&self) -> usize {
        let part = if self.consumer.keeps_up() { 2 } else { 1 };
        let in_stretches = self.stretches.missing().div_ceil(part);
        self.blocks.len() + self.consumer.waiting + in_stretches
    }

    /// Handles a block with a wrong hash. A single source of its symbols is refused for a while;
    /// else each source gets a decoder of its own.
    fn forged(&mut self, source: Option<Source>, now: Instant) {
        self.counters.forged += 1;
        let Some(source) = source else {
            self.sources.keep_apart();
            // only a whole block shows which source is corrupt
            for channel in self.blocks.repaired() {
                self.put_back(channel, false);
            }
            for channel in self.stretches.channels() {
                self.end_stretch(channel, now);
            }
            return;
        };
        self.sources.refuse(source, now);
        if let Some(carriers) = &mut self.carriers {
            carriers.refuse(source.address, now);
        }
        self.events.push_back(Event::CorruptSource(source));
    }

    fn channel_of(&self, block: BlockRef) -> ChannelId {
        block_channel(&self.key, &block.hash.0, self.layer)
    }

    /// Joins channels while the window and the limit have room.
    fn fill(&mut self, now: Instant) {
        if self.is_divided(now) {
            self.fill_divided(now);
            return;
        }
        let stretching = self.is_stretching(now);
        loop {
            let (busy, most) = (self.busy(), self.window.size_of_shared());
            let groups = self.blocks.busy() + self.stretches.len();
            let few = self.few_until.is_some_and(|until| now < until);
            let full = few && self.blocks.len() >= FIRST_BLOCKS
                || busy >= most
                || groups >= MAX_GROUPS
                || self.under_way() >= self.consumer.room;
            if full || self.wanted.is_empty() || self.stalled == Some((busy, most)) {
                return;
            }
            if self.limit.as_mut().is_some_and(|l| !l.ready(now)) {
                return;
            }
            let own = self.announced.own.min(self.window.size());
            let next = self.sent_anyway(stretching, now).map(|next| (next, most));
            let next = next.or_else(|| Some((self.wanted.following(stretching)?, own)));
            match next {
                Some((Next::Block(order), most)) if busy < most => self.begin(order, None, now),
                Some((Next::Stretch(candidate), most)) if busy + STRETCH <= most => {
                    self.begin_stretch(candidate, now);
                }
                _ => {
                    self.stalled = Some((busy, most));
                    return;
                }
            }
        }
    }

    /// Whether the next blocks are divided among this and other receivers.
    fn is_divided(&self, now: Instant) -> bool {
        let first = self.wanted.first().next();
        self.layer == 0
            && first.is_some_and(|(_, wanted)| wanted.position.is_some())
            && self.carriers.as_ref().is_some_and(|c| c.divides(now))
    }

    /// Joins blocks at their owners: own ones at the origin within the window, and others early, for
    /// their owners send as soon as they have them.
    fn fill_divided(&mut self, now: Instant) {
        let room = self.consumer.room.saturating_sub(self.under_way());
        let groups = self.blocks.len() + self.stretches.len();
        let few = self.few_until.is_some_and(|until| now < until);
        let most = if few { FIRST_BLOCKS } else { MAX_GROUPS };
        let places = most.saturating_sub(groups).min(room);
        let limited = self.limit.as_mut().is_some_and(|l| !l.ready(now));
        let Some(carriers) = self.carriers.as_mut().filter(|_| !self.divided && !limited) else {
            return;
        };
        self.divided = true;
        let own = self.announced.own.min(carriers.own_blocks()).max(1);
        let each =
            (MOST_CARRIED / carriers.count(now).max(1)).clamp(LEAST_OF_CARRIER, MOST_OF_CARRIER);
        let mut joined = self.blocks.by_source();
        let mut next = Vec::new();
        for (order, wanted) in self.wanted.first().take(MOST_CONSIDERED) {
            if next.len() == places {
                break;
            }
            let from = wanted
                .position
                .and_then(|position| carriers.source(position, wanted.tries, now));
            let count = joined.entry(from).or_default();
            if *count < from.map_or(own, |_| each) {
                if let Some(number) = from.filter(|_| *count == 0) {
                    carriers.asked(number, now);
                }
                *count += 1;
                next.push((order, from));
            }
        }
        for (order, from) in next {
            self.begin(order, from, now);
        }
    }

    /// Time for which others may await a block here before this receiver takes it from the origin.
    #[must_use]
    pub fn longest_awaited(&self) -> Duration {
        let patience = self
            .carriers
            .as_ref()
            .map_or(Duration::MAX, Carriers::patience);
        patience.saturating_mul(3) / 2
    }

    /// Takes a block from the origin that others await here: who waits for whom is no circle.
    pub fn take_over(&mut self, block: BlockRef, now: Instant) {
        let carried = self.blocks.carried().into_iter();
        let mut channels = carried.map(|(channel, _)| channel);
        let is_it = |fetch: &mut Self, channel| {
            let active = fetch.blocks.get_mut(channel);
            active.is_some_and(|a| a.wanted.block == block && a.collector.received() == 0)
        };
        if let Some(channel) = channels.find(|channel| is_it(self, *channel)) {
            self.put_back(channel, false);
        }
        if let Some(order) = self.wanted.order_of(self.channel_of(block)) {
            self.wanted.take_over(order);
            self.begin(order, None, now);
        }
    }

    /// Asks the next carriers for blocks that a carrier owes for too long.
    fn pass_over(&mut self, now: Instant) {
        let mut overdue: BTreeMap<CarrierNumber, bool> = BTreeMap::new();
        for (channel, number) in self.blocks.carried() {
            let Some(carriers) = &mut self.carriers else {
                return;
            };
            let is_overdue = overdue
                .entry(number)
                .or_insert_with(|| carriers.is_overdue(number, now));
            if *is_overdue {
                self.put_back(channel, true);
            }
        }
    }

    /// Asks the new owners of blocks for those of which nothing has come.
    fn move_unbegun(&mut self, now: Instant) {
        let Some(carriers) = &mut self.carriers else {
            return;
        };
        if !carriers.take_change() {
            return;
        }
        let moves = |active: &Active| {
            let position = active.wanted.position?;
            let divides = carriers.divides(now);
            let from = carriers.source(position, active.wanted.tries, now);
            (from.filter(|_| divides) != active.from).then_some(())
        };
        let unbegun = self.blocks.unbegun();
        let moved: Vec<ChannelId> = unbegun
            .filter_map(|(channel, a)| moves(a).map(|()| channel))
            .collect();
        for channel in moved {
            self.put_back(channel, false);
        }
    }

    /// Returns a wanted channel that is sent anyway, the first to begin first.
    fn sent_anyway(&self, stretching: bool, now: Instant) -> Option<Next> {
        // channels with other members cost the server nothing
        let may_follow = self.may_stretch(1, now);
        self.announced.being_sent.iter().find_map(|sent| {
            if let Some(candidate) = self.wanted.candidate(sent.channel) {
                let stretch = self.wanted.whole(candidate).filter(|_| may_follow)?;
                let next = Next::Stretch(candidate);
                return sent
                    .is_worth_joining(stretch.symbols(), now)
                    .then_some(next);
            }
            let order = self.wanted.order_of(sent.channel)?;
            // other receivers fetch single blocks; this one need not
            if stretching && self.wanted.stretch_at(order).is_some() {
                return None;
            }
            let symbols = symbols_of(&self.wanted.get(order)?.block);
            let next = Next::Block(order);
            sent.is_worth_joining(symbols, now).then_some(next)
        })
    }

    fn begin_stretch(&mut self, candidate: Candidate, now: Instant) {
        if let Some(joined) = self.wanted.take_stretch(candidate, now) {
            self.stretches.insert(candidate.channel, joined);
            self.events.push_back(Event::Join(candidate.channel));
        }
    }

    /// Joins a block at a carrier, or at servers.
    fn begin(&mut self, order: u64, from: Option<CarrierNumber>, now: Instant) {
        let Some((wanted, parked)) = self.wanted.take(order) else {
            return;
        };
        let block = wanted.block;
        let new = || Collector::new(block, self.sources.are_apart());
        // lengths were checked with the block's parent
        let Ok(collector) = parked.map_or_else(new, Ok) else {
            return;
        };
        if let Some(limit) = &mut self.limit {
            limit.spend(u64::from(collector.missing()) * WIRE_SIZE, now);
        }
        let channel = from.map_or(wanted.channel, |number| {
            carrying::channel(&self.key, &block.hash, number)
        });
        let repaired = from.is_none() && channel != self.channel_of(block);
        let active = Active::new(wanted, order, from, collector, repaired, now);
        self.blocks.insert(channel, active);
        self.events.push_back(Event::Join(channel));
    }

    /// Leaves the channels with fewest symbols until the window is kept; their symbols are kept.
    fn shrink(&mut self, now: Instant) {
        while self.busy() > self.window.size_of_shared() {
            if let Some(channel) = self.stretches.least_passed() {
                self.end_stretch(channel, now);
            } else if let Some(channel) = self.blocks.least_received() {
                self.put_back(channel, false);
            } else {
                return;
            }
        }
    }

    /// Leaves a channel and wants its block again, as the next one; of another carrier, if this one
    /// is `passed`.
    fn put_back(&mut self, channel: ChannelId, passed: bool) {
        let Some(active) = self.blocks.remove(channel) else {
            return;
        };
        if active.is_joined() {
            self.events.push_back(Event::Leave(channel));
        }
        let wanted = Wanted {
            channel: self.channel_of(active.wanted.block),
            tries: active.wanted.tries.saturating_add(passed.into()),
            ..active.wanted
        };
        self.want_again(active.order, wanted, Some(active.collector));
    }

    /// Changes the layer if the window is too small or too large for this one. Symbols are kept.
    fn choose_layer(&mut self, now: Instant) {
        let layer = u8::from(self.window.is_slow());
        if layer == self.layer {
            return;
        }
        for channel in self.blocks.channels() {
            self.put_back(channel, false);
        }
        for channel in self.stretches.channels() {
            self.end_stretch(channel, now);
        }
        self.layer = layer;
        self.announced.being_sent.clear();
        let channel = |block: BlockRef| block_channel(&self.key, &block.hash.0, layer);
        self.wanted.set_channels(channel);
    }

    fn end_silent_stretches(&mut self, now: Instant) {
        for (channel, came) in self.stretches.silent(self.announced.long_queue, now) {
            if !came {
                self.prospect.was_silent(now);
            }
            self.end_stretch(channel, now);
        }
    }

    fn toggle_silent(&mut self, now: Instant) {
        let mut unrepaired = Vec::new();
        for toggled in self.blocks.toggle_silent(self.announced.long_queue, now) {
            let event = match toggled {
                Toggled::JoinedAgain(channel) => Event::Join(channel),
                Toggled::Left { channel, repaired } => {
                    unrepaired.extend(repaired.then_some(channel));
                    Event::Leave(channel)
                }
            };
            self.events.push_back(event);
        }
        // the server that offered it is gone, or another one does not offer it
        for channel in unrepaired {
            self.prospect.withdrawn(now);
            self.put_back(channel, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::super::single::SILENCE;
    use super::super::sources::BAN;
    use super::*;
    use crate::record::Sending;
    use crate::stretch::Stretch;
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
            carries: None,
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
        // the second time, it counts at most twice the same
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
        assert!(fetch.sources.are_apart());
        (0..4).for_each(|esi| first.send(&mut fetch, source(1), esi, now));
        let before = fetch.counters().lost;
        for (from, gap) in [(0, 0), (1, 0), (0, 1_000), (1, 5)] {
            second.sequence += gap;
            second.send(&mut fetch, source(from), gap % 50, now);
        }
        // only the gaps of the server itself; the liar's would have been as many
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
        // the second began too long ago; then on from the first, as its members will
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
    fn a_corrupt_source_is_refused_and_taken_again_after_a_while() {
        let now = Instant::now();
        let mut feeder = Feeder::new(&[5; 100]);
        let mut fetch = fetch(8, now);
        fetch.want(feeder.block);
        events(&mut fetch, now);
        feeder.deliver(&mut fetch, source(1), 0, &[9; SYMBOL_SIZE], now);
        assert_eq!(events(&mut fetch, now), [Event::CorruptSource(source(1))]);
        feeder.send(&mut fetch, source(1), 0, now);
        assert_eq!(events(&mut fetch, now), []);
        let later = now + BAN;
        feeder.send(&mut fetch, source(1), 0, later);
        assert!(matches!(
            events(&mut fetch, later)[..],
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
            fetch.blocks.take();
        }
        let bytes = joined * 40 * 1_100;
        assert!(
            (3_800_000..4_700_000).contains(&bytes),
            "{bytes} in 4 s at 1 MB/s"
        );
    }

    /// A stretch of blocks of 20 symbols, and its leaves.
    struct Fed {
        channel: ChannelId,
        data: Vec<Vec<u8>>,
        leaves: Vec<BlockRef>,
        sequence: u32,
    }

    impl Fed {
        fn new() -> Self {
            let data: Vec<Vec<u8>> = (1..=STRETCH as u8)
                .map(|n| (0..20 * SYMBOL_SIZE).map(|at| n ^ at as u8).collect())
                .collect();
            let leaves: Vec<BlockRef> = data.iter().map(|d| BlockRef::of(d)).collect();
            let channel = Stretch::of(&leaves).unwrap().channel(b"");
            Self {
                channel,
                data,
                leaves,
                sequence: 0,
            }
        }

        /// A receiver that wants all of it, from a server that offers stretches.
        fn fetch(&self, now: Instant) -> Fetch {
            let mut fetch = fetch(16, now);
            fetch.want_content(&self.leaves, &self.leaves, now);
            fetch.set_record(&record(&[(OFFER_CHANNEL, STRETCH as u16)]), 128.0, now);
            fetch
        }

        fn send(&mut self, fetch: &mut Fetch, number: u32, now: Instant) -> bool {
            let block = number as usize / 20;
            let from = number as usize % 20 * SYMBOL_SIZE;
            let data = self.data[block][from..from + SYMBOL_SIZE].to_vec();
            self.deliver(fetch, number, self.leaves[block].length, &data, now)
        }

        fn deliver(
            &mut self,
            fetch: &mut Fetch,
            esi: u32,
            block_length: u32,
            data: &[u8],
            now: Instant,
        ) -> bool {
            let symbol = Symbol {
                server: 1,
                sequence: self.sequence,
                channel: self.channel,
                block_length,
                esi,
                data,
            };
            self.sequence += 1;
            fetch.handle_symbol(self.channel, source(1), &symbol, now)
        }

        fn symbols(&self) -> u32 {
            self.leaves.len() as u32 * 20
        }
    }

    fn blocks(events: &[Event]) -> usize {
        events
            .iter()
            .filter(|e| matches!(e, Event::Block { .. }))
            .count()
    }

    #[test]
    fn a_stretch_brings_its_blocks_by_one_join() {
        let now = Instant::now();
        let mut fed = Fed::new();
        let mut fetch = fed.fetch(now);
        assert_eq!(events(&mut fetch, now), [Event::Join(fed.channel)]);
        // joined in the middle
        let order = (70..fed.symbols()).chain(0..70);
        let mut all = Vec::new();
        for number in order {
            assert!(fed.send(&mut fetch, number, now));
            all.extend(events(&mut fetch, now));
        }
        assert_eq!(blocks(&all), STRETCH);
        let others: Vec<&Event> = all
            .iter()
            .filter(|e| !matches!(e, Event::Block { .. }))
            .collect();
        assert_eq!(others, [&Event::Leave(fed.channel)]);
        assert_eq!((fetch.missing(), fetch.channels()), (0, 0));
    }

    #[test]
    fn a_block_that_lacks_a_symbol_is_repaired_on_its_own_channel() {
        let now = Instant::now();
        let mut fed = Fed::new();
        let mut fetch = fed.fetch(now);
        events(&mut fetch, now);
        for number in 0..fed.symbols() {
            if number == 45 {
                fed.sequence += 1;
                continue;
            }
            fed.send(&mut fetch, number, now);
        }
        let lacking = fed.leaves[2];
        let repair = block_channel(b"", &lacking.hash.0, REPAIR_LAYER);
        assert_eq!(blocks(&events(&mut fetch, now)), STRETCH - 1);
        assert_eq!(fetch.channels(), 1, "what was overtaken may come");
        let then = now + TICK * 2;
        fetch.handle_timeout(then);
        let told = events(&mut fetch, then);
        assert_eq!(told, [Event::Leave(fed.channel), Event::Join(repair)]);
        let mut feeder = Feeder::new(&fed.data[2]);
        feeder.channel = repair;
        feeder.send(&mut fetch, source(1), 300, then);
        assert_eq!(blocks(&events(&mut fetch, then)), 1);
        assert_eq!(fetch.missing(), 0);
    }

    #[test]
    fn a_stretch_of_which_nothing_comes_is_fetched_block_by_block() {
        let now = Instant::now();
        let fed = Fed::new();
        let mut fetch = fed.fetch(now);
        events(&mut fetch, now);
        let then = now + SILENCE;
        fetch.handle_timeout(then);
        let told = events(&mut fetch, then);
        assert_eq!(told[0], Event::Leave(fed.channel));
        let single = |leaf: &BlockRef| Event::Join(block_channel(b"", &leaf.hash.0, 0));
        assert_eq!(told[1..], fed.leaves.iter().map(single).collect::<Vec<_>>());
    }

    #[test]
    fn without_an_offer_no_stretch_is_joined_and_none_on_a_link_that_loses() {
        let now = Instant::now();
        let fed = Fed::new();
        let mut silent = fetch(16, now);
        silent.want_content(&fed.leaves, &fed.leaves, now);
        silent.set_record(&record(&[]), 128.0, now);
        assert_eq!(events(&mut silent, now).len(), 16);
        let mut lossy = fed.fetch(now);
        lossy.prospect.came(9);
        assert_eq!(events(&mut lossy, now).len(), 16);
    }

    #[test]
    fn numbers_and_lengths_that_are_not_of_the_stretch_are_refused() {
        let now = Instant::now();
        let mut fed = Fed::new();
        let mut fetch = fed.fetch(now);
        events(&mut fetch, now);
        let (data, end) = ([0; SYMBOL_SIZE], fed.symbols());
        for (number, length) in [
            (end, 20 * 1_024),
            (u32::MAX, 20 * 1_024),
            (0, 1),
            (25, 19 * 1_024),
        ] {
            assert!(!fed.deliver(&mut fetch, number, length, &data, now));
        }
        assert_eq!(fetch.counters().refused, 4);
        assert_eq!(fetch.blocks_held(), 0);
    }

    #[test]
    fn a_corrupt_stretch_ends_and_its_blocks_come_one_by_one() {
        let now = Instant::now();
        let mut fed = Fed::new();
        let mut fetch = fed.fetch(now);
        events(&mut fetch, now);
        for number in 0..20 {
            fed.deliver(&mut fetch, number, 20 * 1_024, &[7; SYMBOL_SIZE], now);
        }
        assert_eq!(fetch.counters().forged, 1);
        let told = events(&mut fetch, now);
        assert!(told.contains(&Event::CorruptSource(source(1))), "{told:?}");
    }

    #[test]
    fn no_block_is_begun_that_nobody_has_room_for() {
        let now = Instant::now();
        let mut fed = Fed::new();
        let mut fetch = fed.fetch(now);
        events(&mut fetch, now);
        fetch.set_room(1);
        for number in 0..30 {
            fed.send(&mut fetch, number, now);
        }
        // the first is whole, and waits for the consumer
        assert_eq!((fetch.blocks_held(), fetch.missing()), (1, STRETCH - 1));
    }
}
