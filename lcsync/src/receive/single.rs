//! Blocks that are joined one by one.

use std::collections::BTreeMap;

use librecast::channel::ChannelId;
use librecast::time::{Duration, Instant};

use super::collector::Collector;
use super::streams::Streams;
use crate::block::BlockRef;

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
    pub(super) block: BlockRef,
    pub(super) order: u64,
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
        block: BlockRef,
        order: u64,
        collector: Collector,
        repaired: bool,
        now: Instant,
    ) -> Self {
        Self {
            block,
            order,
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

    pub(super) fn contains(&self, channel: ChannelId) -> bool {
        self.by_channel.contains_key(&channel)
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
        let least = self.by_channel.iter().min_by_key(received);
        least.map(|(channel, _)| *channel)
    }

    /// Channels that fill the window.
    pub(super) fn busy(&self) -> usize {
        // blocks of which nothing more comes must not let in an unbounded number
        self.len() - self.ending.min(self.len() / 2)
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
