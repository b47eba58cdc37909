//! Stretches of wanted blocks, and joined ones.

use std::collections::{BTreeMap, HashMap};

use librecast::channel::ChannelId;
use librecast::coding::CodingError;
use librecast::time::{Duration, Instant};

use super::collector::{Collector, Outcome, Source};
use super::single::{QUEUE_TIMEOUT, SILENCE};
use super::streams::Streams;
use crate::block::{BlockHash, BlockRef};
use crate::packet::Symbol;
use crate::stretch::{STRETCH, Span, Stretch};

/// Symbols behind a block until it gives way, for overtaken ones. Chosen: 30 ms at 240 Mbit/s.
const MAX_OVERTAKEN: u32 = 1_024;
/// Divisor of packets: a stretch that loses more is left. Chosen: a block of 256 then lacks four.
const LOSSY: u32 = 64;
/// Least lost packets for that: fewer may be chance. Chosen.
const MIN_LOST: u32 = 16;
/// Least packets for that: before, overtaking is not known. Chosen: two blocks.
const MIN_PASSED: u32 = 512;

/// Silence after which a fully sent stretch is left: overtaken packets arrive until then. Chosen.
const OVERTAKEN_SILENCE: Duration = Duration::from_millis(30);
/// The same for a stretch that can lack only its tail. Chosen: some turns of its channel.
const TAIL_SILENCE: Duration = Duration::from_millis(100);
/// Time for which an offer of stretches holds, as other servers' records may not repeat it.
const OFFER_TIME: Duration = Duration::from_secs(3);
/// Time without new stretches after one of which nothing came. Chosen.
const SILENT_TIME: Duration = Duration::from_secs(10);
/// Time without new stretches after a lossy one. Chosen: the window has judged the loss by then.
const LOSSY_TIME: Duration = Duration::from_secs(1);
/// Divisor of recent packets: stretches are joined if fewer are lost, one of each block.
const LOSSLESS: u64 = 256;
/// Packets that judging this loss needs: those of eight losses. Chosen.
const SOME_PACKETS: u64 = 8 * LOSSLESS;
/// Time after which packets count half. Chosen.
const HALF_LIFE: Duration = Duration::from_secs(1);

/// Whether stretches are likely to come whole.
#[derive(Debug)]
pub(super) struct Prospect {
    offered_until: Instant,
    silent_until: Instant,
    lossy_until: Instant,
    /// Recent packets: older ones count less.
    came: u64,
    lost: u64,
    halved: Instant,
}

impl Prospect {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            offered_until: now,
            silent_until: now,
            lossy_until: now,
            came: 0,
            lost: 0,
            halved: now,
        }
    }

    /// Notes a record that offers stretches.
    pub(super) fn offered(&mut self, now: Instant) {
        self.offered_until = now + OFFER_TIME;
    }

    /// Ends the offer, as a server does not send repair symbols.
    pub(super) fn withdrawn(&mut self, now: Instant) {
        self.offered_until = now;
    }

    /// Notes a stretch of which nothing came.
    pub(super) fn was_silent(&mut self, now: Instant) {
        self.silent_until = now + SILENT_TIME;
    }

    /// Notes a stretch that was left for its losses.
    pub(super) fn lost_much(&mut self, now: Instant) {
        self.lossy_until = now + LOSSY_TIME;
    }

    /// Counts a packet, and `lost` missing ones before it.
    pub(super) fn came(&mut self, lost: u64) {
        self.came += 1;
        self.lost += lost;
    }

    /// Counts a packet that counted as lost.
    pub(super) fn overtaken(&mut self) {
        self.came += 1;
        self.lost = self.lost.saturating_sub(1);
    }

    pub(super) fn on_tick(&mut self, now: Instant) {
        if now.saturating_duration_since(self.halved) >= HALF_LIFE {
            (self.came, self.lost, self.halved) = (self.came / 2, self.lost / 2, now);
        }
    }

    pub(super) fn is_offered(&self, now: Instant) -> bool {
        now < self.offered_until && now >= self.silent_until
    }

    pub(super) fn is_lossless(&self, now: Instant) -> bool {
        now >= self.lossy_until && self.lost * LOSSLESS <= self.came + SOME_PACKETS
    }
}

/// A stretch that can be joined while all its blocks are wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) channel: ChannelId,
    /// Order of its first block.
    pub(super) first: u64,
    /// Number of its blocks, which have consecutive orders.
    pub(super) blocks: u64,
}

/// All candidates, in the order of their blocks.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    all: Vec<Candidate>,
    by_channel: HashMap<ChannelId, usize>,
}

impl Candidates {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn add(&mut self, candidate: Candidate) {
        debug_assert!(
            self.all
                .last()
                .is_none_or(|last| last.first + last.blocks <= candidate.first),
            "candidates are in the order of their blocks"
        );
        self.by_channel.insert(candidate.channel, self.all.len());
        self.all.push(candidate);
    }

    /// Returns the one with the block of this order.
    pub(super) fn at(&self, order: u64) -> Option<Candidate> {
        let after = self.all.partition_point(|c| c.first <= order);
        let candidate = *self.all.get(after.checked_sub(1)?)?;
        (order < candidate.first + candidate.blocks).then_some(candidate)
    }

    /// Returns the one on this channel.
    pub(super) fn of(&self, channel: ChannelId) -> Option<Candidate> {
        self.by_channel.get(&channel).map(|n| self.all[*n])
    }
}

/// Returns the stretches of `leaves` with all blocks in `wanted`, and the index of each in
/// `wanted`, which has the same order.
pub(super) fn whole_stretches(
    leaves: &[BlockRef],
    wanted: &[BlockRef],
) -> impl Iterator<Item = (usize, Stretch)> {
    let mut next = 0;
    leaves.chunks(STRETCH).filter_map(move |chunk| {
        let first = next;
        while wanted.get(next).is_some_and(|block| chunk.contains(block)) {
            next += 1;
        }
        let stretch = Stretch::of(chunk)?;
        (wanted[first..next] == *stretch.blocks()).then_some((first, stretch))
    })
}

#[derive(Debug)]
enum Part {
    /// Nothing of it has come.
    Missing,
    Begun(Box<Collector>),
    /// It is whole, or no more of it is taken on this channel.
    Over,
}

/// A joined stretch.
#[derive(Debug)]
pub(super) struct Joined {
    stretch: Stretch,
    symbols: u32,
    /// Order of its first block.
    first: u64,
    parts: Vec<Part>,
    /// The block of the first received symbol: its rest comes last.
    begun_with: Option<usize>,
    streams: Streams,
    received: u32,
    overtaken: u32,
    pub(super) last_activity: Instant,
    /// Only its last symbols are to come.
    ending: bool,
}

/// Result of a symbol of a stretch.
#[derive(Debug)]
pub(super) struct Received {
    /// Effect on its block.
    pub(super) outcome: Outcome,
    /// The block.
    pub(super) block: BlockRef,
    /// A block that lost symbols and gives way.
    pub(super) given_up: Option<(u64, BlockRef, Collector)>,
}

impl Joined {
    pub(super) fn new(
        stretch: Stretch,
        first: u64,
        parked: &mut BTreeMap<BlockHash, Collector>,
        now: Instant,
    ) -> Self {
        let parts = stretch.blocks().iter().map(|block| {
            let collector = parked.remove(&block.hash);
            collector.map_or(Part::Missing, |c| Part::Begun(Box::new(c)))
        });
        Self {
            symbols: stretch.symbols(),
            parts: parts.collect(),
            stretch,
            first,
            begun_with: None,
            streams: Streams::default(),
            received: 0,
            overtaken: 0,
            last_activity: now,
            ending: false,
        }
    }

    /// Blocks to come.
    pub(super) fn missing(&self) -> usize {
        let over = |part: &&Part| !matches!(part, Part::Over);
        self.parts.iter().filter(over).count()
    }

    /// Blocks partly received.
    pub(super) fn begun(&self) -> usize {
        let begun = |part: &&Part| matches!(part, Part::Begun(_));
        self.parts.iter().filter(begun).count()
    }

    /// Silence after which it is left.
    fn longest_silence(&self, long_queue: bool) -> Duration {
        match self.passed() {
            0 if long_queue => QUEUE_TIMEOUT,
            _ if self.is_over() => OVERTAKEN_SILENCE,
            _ if self.is_in_tail() => TAIL_SILENCE,
            _ => SILENCE,
        }
    }

    /// Whether all of it has been sent to this host, received or not.
    fn is_over(&self) -> bool {
        self.streams.passed() >= self.symbols
    }

    /// Whether at most `lead` symbols, and less than half of all, are to come.
    fn is_ending(&self, lead: u32) -> bool {
        let left = self.symbols.saturating_sub(self.streams.passed());
        left <= lead.min(self.symbols / 2)
    }

    /// Symbols sent since it was joined.
    pub(super) fn passed(&self) -> u32 {
        self.streams.passed()
    }

    /// Whether it can lack only its tail.
    fn is_in_tail(&self) -> bool {
        self.streams.passed() >= self.symbols - self.symbols / 8
    }

    /// Whether the loss is so high that single blocks are better.
    pub(super) fn is_lossy(&self) -> bool {
        let lost = self.streams.passed().saturating_sub(self.received);
        // with overtaking, most of these still come
        let is_lost = lost > self.overtaken * 4;
        let known = self.streams.passed() >= MIN_PASSED;
        is_lost && known && lost >= MIN_LOST && lost > self.streams.passed() / LOSSY
    }

    pub(super) fn follow(&mut self, source: Source, sequence: u32) -> Option<u32> {
        self.received += 1;
        let gap = self.streams.follow(source, sequence);
        self.overtaken += u32::from(gap.is_none());
        gap
    }

    /// Whether the symbol of this number is the first of its block.
    pub(super) fn begins(&self, number: u32) -> bool {
        let part = self
            .stretch
            .span_at(number)
            .map(|span| &self.parts[span.index]);
        matches!(part, Some(Part::Missing))
    }

    /// Handles a symbol; begins no block without `room`. `None` if it is not of this stretch.
    pub(super) fn receive(
        &mut self,
        source: Source,
        trusted: bool,
        symbol: &Symbol<'_>,
        room: bool,
    ) -> Option<Result<Received, CodingError>> {
        let span = self.stretch.span_at(symbol.esi)?;
        let block = *self.stretch.blocks().get(span.index)?;
        if symbol.block_length != block.length {
            return None;
        }
        let received = |outcome, given_up| Received {
            outcome,
            block,
            given_up,
        };
        let part = &mut self.parts[span.index];
        if matches!(part, Part::Missing) && room {
            *part = match Collector::new(block, false) {
                Ok(collector) => Part::Begun(Box::new(collector)),
                Err(e) => return Some(Err(e)),
            };
            self.begun_with.get_or_insert(span.index);
        }
        let Part::Begun(collector) = part else {
            return Some(Ok(received(Outcome::Duplicate, None)));
        };
        let outcome = match collector.receive(source, trusted, symbol.esi - span.first, symbol.data)
        {
            Ok(outcome) => outcome,
            Err(e) => return Some(Err(e)),
        };
        if matches!(outcome, Outcome::Block(..)) {
            self.parts[span.index] = Part::Over;
        }
        let given_up = self.give_way(symbol.esi);
        Some(Ok(received(outcome, given_up)))
    }

    /// Returns a block that lacks symbols, of which none can be on the way at symbol `number`. The
    /// first block is excepted, as its rest comes last.
    fn give_way(&mut self, number: u32) -> Option<(u64, BlockRef, Collector)> {
        let behind =
            |span: &Span| (number + self.symbols - (span.first + span.symbols)) % self.symbols;
        let mut old = self.stretch.spans().filter(|span| {
            let begun = matches!(self.parts[span.index], Part::Begun(_));
            let began_with = self.begun_with == Some(span.index);
            let present = (span.first..span.first + span.symbols).contains(&number);
            begun
                && !began_with
                && !present
                && (MAX_OVERTAKEN..self.symbols / 2).contains(&behind(span))
        });
        let index = old.next().map(|span| span.index);
        drop(old);
        self.take(index?)
    }

    fn take(&mut self, index: usize) -> Option<(u64, BlockRef, Collector)> {
        match std::mem::replace(&mut self.parts[index], Part::Over) {
            Part::Begun(collector) => Some((
                self.first + index as u64,
                self.stretch.blocks()[index],
                *collector,
            )),
            _ => None,
        }
    }

    /// Returns the missing blocks: order, block, and received symbols.
    pub(super) fn rest(self) -> impl Iterator<Item = (u64, BlockRef, Option<Collector>)> {
        let blocks = self.stretch.blocks().to_vec();
        let orders = self.first..;
        orders
            .zip(blocks)
            .zip(self.parts)
            .filter_map(|((order, block), part)| match part {
                Part::Missing => Some((order, block, None)),
                Part::Begun(collector) => Some((order, block, Some(*collector))),
                Part::Over => None,
            })
    }
}

/// All joined stretches.
#[derive(Debug, Default)]
pub(super) struct JoinedStretches {
    by_channel: BTreeMap<ChannelId, Joined>,
    /// Stretches near their end.
    ending: usize,
}

impl JoinedStretches {
    pub(super) fn len(&self) -> usize {
        self.by_channel.len()
    }

    pub(super) fn contains(&self, channel: ChannelId) -> bool {
        self.by_channel.contains_key(&channel)
    }

    pub(super) fn get_mut(&mut self, channel: ChannelId) -> Option<&mut Joined> {
        self.by_channel.get_mut(&channel)
    }

    pub(super) fn insert(&mut self, channel: ChannelId, joined: Joined) {
        self.remove(channel);
        self.by_channel.insert(channel, joined);
    }

    pub(super) fn remove(&mut self, channel: ChannelId) -> Option<Joined> {
        let joined = self.by_channel.remove(&channel)?;
        self.ending -= usize::from(joined.ending);
        debug_assert!(
            self.ending <= self.by_channel.len(),
            "only joined stretches are near their end"
        );
        Some(joined)
    }

    /// Removes all.
    pub(super) fn take(&mut self) -> BTreeMap<ChannelId, Joined> {
        std::mem::take(self).by_channel
    }

    pub(super) fn channels(&self) -> Vec<ChannelId> {
        self.by_channel.keys().copied().collect()
    }

    /// Blocks to come.
    pub(super) fn missing(&self) -> usize {
        self.by_channel.values().map(Joined::missing).sum()
    }

    /// Blocks partly received.
    pub(super) fn begun(&self) -> usize {
        self.by_channel.values().map(Joined::begun).sum()
    }

    /// Stretches that fill the window.
    pub(super) fn busy(&self) -> usize {
        self.len() - self.ending.min(self.len().div_ceil(2))
    }

    /// Returns the channel of the one with fewest symbols sent.
    pub(super) fn least_passed(&self) -> Option<ChannelId> {
        let least = self.by_channel.iter().min_by_key(|(_, s)| s.passed());
        least.map(|(channel, _)| *channel)
    }

    /// Notes that a stretch needs at most `lead` more symbols, if it does.
    pub(super) fn note_end(&mut self, channel: ChannelId, lead: u32) {
        if let Some(joined) = self.by_channel.get_mut(&channel)
            && !joined.ending
            && joined.is_ending(lead)
        {
            joined.ending = true;
            self.ending += 1;
        }
    }

    /// Returns silent stretches, and whether something came of each.
    pub(super) fn silent(&self, long_queue: bool, now: Instant) -> Vec<(ChannelId, bool)> {
        let is_silent = |joined: &Joined| {
            let silence = now.saturating_duration_since(joined.last_activity);
            silence >= joined.longest_silence(long_queue)
        };
        let silent = self.by_channel.iter().filter(|(_, s)| is_silent(s));
        silent.map(|(c, s)| (*c, s.passed() > 0)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(n: u8) -> BlockRef {
        BlockRef::of(&[n; 9])
    }

    #[test]
    fn only_stretches_of_which_everything_is_wanted_are_candidates() {
        let leaves: Vec<BlockRef> = (0..STRETCH as u8 * 3 - 3).map(leaf).collect();
        let whole = |wanted: &[BlockRef]| -> Vec<usize> {
            whole_stretches(&leaves, wanted)
                .map(|(first, _)| first)
                .collect()
        };
        assert_eq!(whole(&leaves), [0, 16, 32]);
        let mut lacking = leaves.clone();
        lacking.remove(20);
        assert_eq!(whole(&lacking), [0, 31]);
        assert_eq!(whole(&leaves[1..]), [15, 31]);
        assert!(whole(&[]).is_empty() && whole(&[leaf(3)]).is_empty());
    }

    #[test]
    fn leaves_that_are_wanted_once_and_occur_again_do_no_harm() {
        let mut leaves: Vec<BlockRef> = (0..STRETCH as u8 * 2).map(leaf).collect();
        leaves[20] = leaf(0);
        let mut wanted = leaves.clone();
        wanted.remove(20);
        let firsts: Vec<usize> = whole_stretches(&leaves, &wanted).map(|(n, _)| n).collect();
        assert_eq!(firsts, [0]);
    }
}
