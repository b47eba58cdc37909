//! Blocks that are joined one by one.

use std::collections::BTreeMap;

use librecast::channel::ChannelId;
use librecast::time::{Duration, Instant};

use super::collector::Collector;
use super::streams::Streams;
use super::wanted::Wanted;
use crate::block::BlockHash;
use crate::carrying::CarrierNumber;

/// Silence after which a channel is left and joined again; doubled each time.
pub(super) const SILENCE: Duration = Duration::from_millis(800);
/// Upper bound of that doubling.
const MAX_SILENCE: Duration = Duration::from_secs(8);
/// Time between leaving and joining, so that the kernel reports both.
const REJOIN: Duration = Duration::from_millis(100);
/// Silence after which a channel without any packet is left while the server has a long queue.
pub(super) const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);

/// A joined block.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) wanted: Wanted,
    pub(super) order: u64,
    /// The carrier that passes it on; none: it comes from servers.
    pub(super) from: Option<CarrierNumber>,
    pub(super) collector: Collector,
    /// Set while it is left for a moment: when it is joined again.
    rejoin_at: Option<Instant>,
    pub(super) last_activity: Instant,
    pub(super) silences: u32,
    /// Near its end: only last symbols are to come.
    ending: bool,
    /// On the block's repair channel.
    pub(super) repaired: bool,
    pub(super) streams: Streams,
}

impl Active {
    pub(super) fn new(
        wanted: Wanted,
        order: u64,
        from: Option<CarrierNumber>,
        collector: Collector,
        repaired: bool,
        now: Instant,
    ) -> Self {
        Self {
            wanted,
            order,
            from,
            collector,
            rejoin_at: None,
            last_activity: now,
            silences: 0,
            ending: false,
            repaired,
            streams: Streams::default(),
        }
    }

    /// Whether its channel is joined, and not left for a moment.
    pub(super) fn is_joined(&self) -> bool {
        self.rejoin_at.is_none()
    }

    /// Silence after which it is left for a moment.
    fn longest_silence(&self, long_queue: bool) -> Duration {
        let silence = SILENCE
            .saturating_mul(1 << self.silences.min(8))
            .min(MAX_SILENCE);
        match long_queue && self.collector.received() == 0 {
            true => silence.max(QUEUE_TIMEOUT),
            false => silence,
        }
    }
}

/// A change of a silent channel.
pub(super) enum Toggled {
    Left {
        channel: ChannelId,
        /// Whether it is a repair channel.
        repaired: bool,
    },
    JoinedAgain(ChannelId),
}

/// All joined blocks.
#[derive(Debug, Default)]
pub(super) struct SingleBlocks {
    by_channel: BTreeMap<ChannelId, Active>,
    /// Blocks near their end: further ones are joined meanwhile.
    ending: usize,
}

impl SingleBlocks {
    pub(super) fn len(&self) -> usize {
        self.by_channel.len()
    }

    pub(super) fn get_mut(&mut self, channel: ChannelId) -> Option<&mut Active> {
        self.by_channel.get_mut(&channel)
    }

    pub(super) fn insert(&mut self, channel: ChannelId, active: Active) {
        // two blocks have one channel only by design of their author: the later one counts
        self.remove(channel);
        self.by_channel.insert(channel, active);
    }

    pub(super) fn remove(&mut self, channel: ChannelId) -> Option<Active> {
        let active = self.by_channel.remove(&channel)?;
        debug_assert!(
            self.ending >= usize::from(active.ending),
            "each block near its end is counted once"
        );
        self.ending -= usize::from(active.ending);
        debug_assert!(
            self.ending <= self.by_channel.len(),
            "only joined blocks are near their end"
        );
        Some(active)
    }

    /// Whether this block is joined, on any channel.
    pub(super) fn has(&self, block: &BlockHash) -> bool {
        let mut all = self.by_channel.values();
        all.any(|a| a.wanted.block.hash == *block)
    }

    /// Number of blocks by source, those near their end aside.
    pub(super) fn by_source(&self) -> BTreeMap<Option<CarrierNumber>, usize> {
        let mut counts = BTreeMap::new();
        for active in self.by_channel.values().filter(|a| !a.ending) {
            *counts.entry(active.from).or_default() += 1;
        }
        counts
    }

    /// Divided blocks of which nothing has come.
    pub(super) fn unbegun(&self) -> impl Iterator<Item = (ChannelId, &Active)> {
        let all = self.by_channel.iter().map(|(channel, a)| (*channel, a));
        all.filter(|(_, a)| a.wanted.position.is_some() && a.collector.received() == 0)
    }

    /// Channels at carriers, with their carrier.
    pub(super) fn carried(&self) -> Vec<(ChannelId, CarrierNumber)> {
        let carried = self.by_channel.iter();
        carried
            .filter_map(|(channel, a)| Some((*channel, a.from?)))
            .collect()
    }

    /// Removes all.
    pub(super) fn take(&mut self) -> BTreeMap<ChannelId, Active> {
        std::mem::take(self).by_channel
    }

    pub(super) fn channels(&self) -> Vec<ChannelId> {
        self.by_channel.keys().copied().collect()
    }

    /// Returns the channels of blocks that are being repaired.
    pub(super) fn repaired(&self) -> Vec<ChannelId> {
        let repaired = self.by_channel.iter().filter(|(_, a)| a.repaired);
        repaired.map(|(channel, _)| *channel).collect()
    }

    /// Returns the channel with fewest symbols.
    pub(super) fn least_received(&self) -> Option<ChannelId> {
        let received = |(_, a): &(&ChannelId, &Active)| a.collector.received();
        let from_servers = self.by_channel.iter().filter(|(_, a)| a.from.is_none());
        let least = from_servers.min_by_key(received);
        least.map(|(channel, _)| *channel)
    }

    /// Channels that fill the window.
    pub(super) fn busy(&self) -> usize {
        let carried = self.by_channel.values().filter(|a| a.from.is_some());
        let of_servers = self.len() - carried.count();
        // blocks of which nothing more comes must not let in an unbounded number
        of_servers - self.ending.min(of_servers / 2)
    }

    /// Notes that a block needs at most `lead` more symbols, if it does.
    pub(super) fn note_end(&mut self, channel: ChannelId, lead: u32) {
        if let Some(active) = self.by_channel.get_mut(&channel)
            && !active.ending
            && active.collector.is_ending(lead)
        {
            active.ending = true;
            self.ending += 1;
        }
    }

    /// Leaves silent channels, and joins those again that were left a moment ago.
    pub(super) fn toggle_silent(&mut self, long_queue: bool, now: Instant) -> Vec<Toggled> {
        let mut toggled = Vec::new();
        for (channel, active) in &mut self.by_channel {
            if let Some(at) = active.rejoin_at {
                if now >= at {
                    active.rejoin_at = None;
                    active.last_activity = now;
                    toggled.push(Toggled::JoinedAgain(*channel));
                }
                continue;
            }
            // a carrier sends it once it has it; it is passed over if that takes too long
            if active.from.is_some() && active.collector.received() == 0 {
                continue;
            }
            let silence = now.saturating_duration_since(active.last_activity);
            if silence >= active.longest_silence(long_queue) {
                active.silences += 1;
                active.rejoin_at = Some(now + REJOIN);
                toggled.push(Toggled::Left {
                    channel: *channel,
                    repaired: active.repaired,
                });
            }
        }
        toggled
    }
}
