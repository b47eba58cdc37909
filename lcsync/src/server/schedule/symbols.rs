//! Order of a channel's symbols, without repetition. Source symbols come once, from a random start,
//! as they need no decoding, then repair symbols from a random id. A stretch repeats its source
//! symbols.

use std::collections::{BTreeMap, VecDeque};

use librecast::coding::MAX_ESI;
use librecast::random::Random;
use librecast::time::{Duration, Instant};

use crate::server::channel::Channel;

/// Time in which a channel that is joined again continues its sequence.
pub(super) const MEMORY: Duration = Duration::from_secs(5);
/// Most channels that can continue.
const MAX_REMEMBERED: usize = 8_192;

/// Position of a channel in its endless sequence of symbols.
#[derive(Debug, Clone, Copy)]
pub(super) struct Position {
    sequence: u32,
    /// First source symbol sent.
    start: u32,
    /// Source symbols sent since the start.
    source: u32,
    /// Next repair symbol; none of a stretch.
    repair: Option<u32>,
}

impl Position {
    /// Sequence number of the next symbol.
    pub(super) fn sequence(&self) -> u32 {
        self.sequence
    }

    /// Returns the id of the next symbol of a block of this length.
    pub(super) fn next(&mut self, symbols: u32) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        let id = match self.repair {
            Some(id) if self.source >= symbols => id,
            _ => {
                let id = (self.start + self.source) % symbols;
                self.source += 1;
                if self.repair.is_none() {
                    self.source %= symbols;
                }
                return id;
            }
        };
        self.repair = Some(if id >= MAX_ESI { symbols } else { id + 1 });
        id
    }
}

/// First symbols of a channel.
#[derive(Debug, Clone, Copy)]
pub(super) enum Start {
    /// Source symbols from a random one on, then repair symbols.
    Anywhere,
    /// Repair symbols.
    Repair,
    /// Source symbols from this one on, without end.
    Around(u32),
}

/// Start positions, and last positions of recently joined channels.
#[derive(Debug)]
pub(super) struct Positions {
    memory: BTreeMap<Channel, (Instant, Position)>,
    forgetting: VecDeque<(Instant, Channel)>,
    random: Random,
}

impl Positions {
    /// `seed` sets the random starts.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            memory: BTreeMap::new(),
            forgetting: VecDeque::new(),
            random: Random::new(seed),
        }
    }

    /// Returns the first position of a channel with this number of symbols.
    pub(super) fn begin(
        &mut self,
        channel: Channel,
        symbols: u32,
        start: Start,
        now: Instant,
    ) -> Position {
        self.forget(now);
        let remembered = self.memory.remove(&channel).map(|(_, position)| position);
        remembered.unwrap_or_else(|| {
            let fresh = self.fresh(symbols);
            match start {
                Start::Anywhere => fresh,
                Start::Repair => Position {
                    source: symbols,
                    ..fresh
                },
                Start::Around(start) => Position {
                    start: start % symbols,
                    repair: None,
                    ..fresh
                },
            }
        })
    }

    pub(super) fn remember(&mut self, channel: Channel, position: Position, now: Instant) {
        self.forget(now);
        if self.forgetting.len() < MAX_REMEMBERED {
            self.memory.insert(channel, (now, position));
            self.forgetting.push_back((now, channel));
        }
        debug_assert!(
            self.memory.len() <= self.forgetting.len(),
            "each position is forgotten in time"
        );
    }

    fn forget(&mut self, now: Instant) {
        while let Some((at, channel)) = self.forgetting.front().copied()
            && now.saturating_duration_since(at) > MEMORY
        {
            self.forgetting.pop_front();
            // it may have been stored again since
            if self
                .memory
                .get(&channel)
                .is_some_and(|(then, _)| *then == at)
            {
                self.memory.remove(&channel);
            }
        }
    }

    fn fresh(&mut self, symbols: u32) -> Position {
        let random = self.random.next();
        Position {
            sequence: 0,
            start: random as u32 % symbols,
            source: 0,
            repair: Some(symbols + ((random >> 32) as u32 % (MAX_ESI / 2))),
        }
    }
}
