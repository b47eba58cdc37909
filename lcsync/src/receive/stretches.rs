//! Stretches whose blocks are all wanted, and those that are joined for them.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use librecast::channel::ChannelId;
use librecast::coding::CodingError;

use super::collector::{Collector, Outcome, Source};
use super::streams::Streams;
use crate::block::{BlockHash, BlockRef};
use crate::packet::Symbol;
use crate::stretch::{STRETCH, Span, Stretch};

/// A block is waited for until so many symbols behind it have come, as packets may overtake each other (chosen: 30 ms at 240
/// Mbit/s).
const MAX_OVERTAKEN: u32 = 1_024;
/// A stretch that has lost more than one of so many packets is given up: of 64, a block of 256 lacks four (chosen).
const LOSSY: u32 = 64;
/// Lost packets that this needs at least: fewer may be chance (chosen).
const MIN_LOST: u32 = 16;
/// Packets that this needs at least: before, it shows little whether some overtake others (chosen: two blocks).
const MIN_PASSED: u32 = 512;

/// Stretches are offered for so long after a record that says so: other servers' records may not.
const OFFER_TIME: Duration = Duration::from_secs(3);
/// A stretch of which nothing comes keeps from further ones for so long (chosen).
const SILENT_TIME: Duration = Duration::from_secs(10);
/// One that lost much does so for this time: the window has judged the loss by then (chosen).
const LOSSY_TIME: Duration = Duration::from_secs(1);
/// Of what came of late, less than one of so many packets is lost where stretches are joined: one of each block.
const LOSSLESS: u64 = 256;
/// A loss of eight packets says nothing yet (chosen).
const SOME_PACKETS: u64 = 8 * LOSSLESS;
/// What came earlier counts half after so long (chosen).
const HALF_LIFE: Duration = Duration::from_secs(1);

/// Whether stretches can be expected to come, and to come whole.
#[derive(Debug)]
pub(super) struct Prospect {
    offered_until: Instant,
    silent_until: Instant,
    lossy_until: Instant,
    /// Packets of late: older ones count less.
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

    /// A server's record says that it sends stretches.
    pub(super) fn offered(&mut self, now: Instant) {
        self.offered_until = now + OFFER_TIME;
    }

    /// A server does not send what one that offers stretches does.
    pub(super) fn withdrawn(&mut self, now: Instant) {
        self.offered_until = now;
    }

    /// Nothing came of a stretch.
    pub(super) fn was_silent(&mut self, now: Instant) {
        self.silent_until = now + SILENT_TIME;
    }

    /// A stretch was given up for its losses.
    pub(super) fn lost_much(&mut self, now: Instant) {
        self.lossy_until = now + LOSSY_TIME;
    }

    /// A packet came, and `lost` before it did not.
    pub(super) fn came(&mut self, lost: u64) {
        self.came += 1;
        self.lost += lost;
    }

    /// A packet came that counted as lost.
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

/// A stretch that can be joined as long as all its blocks are wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) channel: ChannelId,
    /// Order of its first block.
    pub(super) first: u64,
    /// Its blocks: their orders follow each other.
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
        self.by_channel.insert(candidate.channel, self.all.len());
        self.all.push(candidate);
    }

    /// The one that the block of this order is in.
    pub(super) fn at(&self, order: u64) -> Option<Candidate> {
        let after = self.all.partition_point(|c| c.first <= order);
        let candidate = *self.all.get(after.checked_sub(1)?)?;
        (order < candidate.first + candidate.blocks).then_some(candidate)
    }

    /// The one that is sent on this channel.
    pub(super) fn of(&self, channel: ChannelId) -> Option<Candidate> {
        self.by_channel.get(&channel).map(|n| self.all[*n])
    }
}

/// The stretches of `leaves` all blocks of which are among `wanted`, which is in the order of the leaves: where in it they
/// begin, and what they are.
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
    /// It is whole, or nothing more is taken of it here.
    Over,
}

/// A stretch that is joined.
#[derive(Debug)]
pub(super) struct Joined {
    stretch: Stretch,
    symbols: u32,
    /// Order of its first block.
    pub(super) first: u64,
    parts: Vec<Part>,
    /// The block that was being sent when the first symbol came: the rest of it comes last.
    begun_with: Option<usize>,
    streams: Streams,
    received: u32,
    overtaken: u32,
    pub(super) last_activity: Instant,
    /// Its last symbols are coming.
    pub(super) ending: bool,
}

/// What a symbol of a stretch was.
#[derive(Debug)]
pub(super) struct Received {
    /// What it did to its block.
    pub(super) outcome: Outcome,
    /// The block.
    pub(super) block: BlockRef,
    /// A block of which some was lost: it gives way.
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

    /// Blocks that are still to come.
    pub(super) fn missing(&self) -> usize {
        let over = |part: &&Part| !matches!(part, Part::Over);
        self.parts.iter().filter(over).count()
    }

    /// Blocks half received.
    pub(super) fn begun(&self) -> usize {
        let begun = |part: &&Part| matches!(part, Part::Begun(_));
        self.parts.iter().filter(begun).count()
    }

    /// Whether all of it has been sent to this host, whatever came of it.
    pub(super) fn is_over(&self) -> bool {
        self.streams.passed() >= self.symbols
    }

    /// Whether no more than `lead` symbols, and less than half of all, are still to come.
    pub(super) fn is_ending(&self, lead: u32) -> bool {
        let left = self.symbols.saturating_sub(self.streams.passed());
        left <= lead.min(self.symbols / 2)
    }

    /// Symbols that have been sent since it was joined.
    pub(super) fn passed(&self) -> u32 {
        self.streams.passed()
    }

    /// Whether only the tail of it can still be missing.
    pub(super) fn is_in_tail(&self) -> bool {
        self.streams.passed() >= self.symbols - self.symbols / 8
    }

    /// Whether so much is lost that its blocks are better fetched one by one.
    pub(super) fn is_lossy(&self) -> bool {
        let lost = self.streams.passed().saturating_sub(self.received);
        // where packets overtake each other, most of these still come
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

    /// Whether the symbol of this number is the first that comes of its block.
    pub(super) fn begins(&self, number: u32) -> bool {
        let part = self
            .stretch
            .span_at(number)
            .map(|span| &self.parts[span.index]);
        matches!(part, Some(Part::Missing))
    }

    /// Takes a symbol. Nothing of a further block is held unless there is `room`. `None` if it is not one of this stretch.
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

    /// A block that lacks some, and of which no more can be on the way when symbol `number` comes; not the one it began with,
    /// the rest of which comes last.
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

    /// What has not come of it: order, block, and what there is of that.
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
