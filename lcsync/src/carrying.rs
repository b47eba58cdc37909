//! Receivers that pass on a share's blocks while they receive it: *carriers*, on overlays alone,
//! where each copy costs an uplink (docs/adr/lcsync.md).
//!
//! ```text
//! channel of the origin:   hash of the block, 64 bits
//! channel of a carrier:    number of the carrier, 16 bits | hash of the block, 48 bits
//! ```
//!
//! All who know the carriers derive the same owner of each block. The owner takes the block from
//! the origin, all others take it from the owner. So a carrier's channels are a prefix of their
//! own, and lcroute's tree of this prefix has its root at the carrier.

use std::cell::RefCell;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use librecast::channel::{CARRIER_BITS, ChannelId, block_channel, carrier_number};
use librecast::time::{Duration, Instant};

use crate::block::{BlockHash, BlockRef};

/// Most carriers of a share that count. Chosen: each is a run of groups, and a list in memory.
const MAX_CARRIERS: usize = 64;
/// Entries of a carrier in a run of owners: carriers down to an eighth of the widest own blocks.
const ENTRIES: u32 = 8;
/// Silence of a server that ends its part: ten records at five a second.
const GONE: Duration = Duration::from_secs(2);
/// Silence after which a carrier is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(30);
/// Least time that a carrier may be silent while it owes blocks.
const PATIENCE: Duration = Duration::from_secs(2);
/// The same in intervals between two of its own blocks.
const PATIENCE_FACTOR: u32 = 4;
/// Times in a row that a carrier may deliver nothing in time.
const MOST_MISSES: u8 = 2;
/// Time for which it owns nothing then.
const REST: Duration = Duration::from_secs(60);
/// Carriers that are asked for a block before the origin is. Chosen.
const MOST_TRIES: u8 = 3;

/// Time between two own blocks that is assumed before one has come. Chosen: 6 Mbit/s.
const FIRST_INTERVAL: Duration = Duration::from_millis(250);
/// Packets of carriers after which their loss is judged, and the divisor for the most.
const JUDGED_PACKETS: u64 = 1_000;
const MOST_LOST: u64 = 6;
/// Time for which blocks are not divided after that: links between carriers are full.
const LOSSY: Duration = Duration::from_secs(60);
/// Own blocks that are asked for at once. Chosen: the origin always has a next one.
const MOST_OWN: usize = 3;

/// Bits per second of the least width, and widths from one rate to the double.
const LEAST_RATE: f64 = 62_500.0;
const STEPS: u8 = 4;
/// Width of an uplink that was never full: as the widest.
pub const UNKNOWN_WIDTH: u8 = 1;

/// Number of a carrier: the same for all who see its address.
pub type CarrierNumber = u16;

/// Returns the channel on which a carrier passes a block on. `key`: that of the share, or empty.
#[must_use]
pub fn channel(key: &[u8], block: &BlockHash, carrier: CarrierNumber) -> ChannelId {
    let low = block_channel(key, &block.0, 0) & ((1 << CARRIER_BITS) - 1);
    u64::from(carrier) << CARRIER_BITS | low
}

/// Returns whether a channel is one of this carrier.
#[must_use]
pub fn is_of(channel: ChannelId, carrier: CarrierNumber) -> bool {
    channel >> CARRIER_BITS == u64::from(carrier)
}

/// The blocks that a carrier has, by their positions in the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// All before this one.
    pub below: u32,
    /// Bit n: the n-th after that one.
    pub after: u128,
}

impl Progress {
    fn has(&self, position: u32) -> bool {
        match position.checked_sub(self.below) {
            None => true,
            Some(0) => false,
            Some(at) => at <= u128::BITS && self.after >> (at - 1) & 1 == 1,
        }
    }
}

/// The part of a carrier's record that is its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Carries {
    /// Width of its uplink, at least [`UNKNOWN_WIDTH`].
    pub width: u8,
    /// The blocks that it has.
    pub progress: Progress,
}

/// The blocks of the content that a carrier has.
#[derive(Debug)]
pub struct Had {
    positions: BTreeMap<BlockHash, u32>,
    /// By position; of equal blocks, the first counts.
    has: Vec<bool>,
    below: usize,
}

impl Had {
    /// Has these leaves but the missing ones.
    #[must_use]
    pub fn new(leaves: &[BlockRef], missing: &BTreeSet<BlockHash>) -> Self {
        let mut positions = BTreeMap::new();
        let mut has = vec![true; leaves.len()];
        for (position, leaf) in (0..).zip(leaves) {
            if let Entry::Vacant(first) = positions.entry(leaf.hash) {
                first.insert(position);
                has[position as usize] = !missing.contains(&leaf.hash);
            }
        }
        let mut had = Self {
            positions,
            has,
            below: 0,
        };
        had.advance();
        had
    }

    /// Adds a block.
    pub fn add(&mut self, block: &BlockHash) {
        if let Some(position) = self.positions.get(block) {
            self.has[*position as usize] = true;
            self.advance();
        }
    }

    fn advance(&mut self) {
        let more = self.has[self.below..].iter().take_while(|has| **has);
        self.below += more.count();
    }

    /// Whether this is a block of the content that has not come.
    #[must_use]
    pub fn lacks(&self, block: &BlockHash) -> bool {
        let position = self.positions.get(block);
        position.is_some_and(|position| !self.has[*position as usize])
    }

    /// Returns it for records.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let after = self
            .has
            .iter()
            .skip(self.below + 1)
            .take(u128::BITS as usize);
        let bits = after.enumerate().map(|(n, has)| u128::from(*has) << n);
        Progress {
            below: u32::try_from(self.below).unwrap_or(u32::MAX),
            after: bits.sum(),
        }
    }
}

/// Another receiver that carries.
#[derive(Debug)]
struct Carrier {
    /// Its uplink as of its record.
    width: u8,
    /// The blocks that it has, as of its record.
    progress: Progress,
    /// When its last record came.
    heard_at: Instant,
    /// When a packet of a block came, or the first block was asked for.
    came_at: Instant,
    misses: u8,
    rests_until: Option<Instant>,
}

/// The carriers of a share, and the owners of its blocks.
#[derive(Debug)]
pub struct Carriers {
    /// This host's own number and width, if it carries.
    own: Option<(CarrierNumber, u8)>,
    others: BTreeMap<CarrierNumber, Carrier>,
    /// The largest width.
    widest: u8,
    /// When the last record of a server came that is none.
    origin_at: Option<Instant>,
    /// Time between the last two own blocks.
    interval: Duration,
    last_own: Option<Instant>,
    /// Packets of carriers since the last judgement, and lost ones before them.
    packets: u64,
    lost: u64,
    lossy_until: Option<Instant>,
    /// Owners are others than when this was last asked.
    has_changed: bool,
    /// Owners of the blocks of the last run.
    run: RefCell<Option<(u32, Vec<(CarrierNumber, u32)>)>>,
}

impl Carriers {
    /// Knows of none. `own`: this host carries under this number, with this width.
    #[must_use]
    pub fn new(own: Option<(CarrierNumber, u8)>) -> Self {
        Self {
            own,
            others: BTreeMap::new(),
            widest: UNKNOWN_WIDTH,
            origin_at: None,
            interval: Duration::ZERO,
            last_own: None,
            packets: 0,
            lost: 0,
            lossy_until: None,
            has_changed: false,
            run: RefCell::default(),
        }
    }

    /// Sets the width of this host's uplink.
    pub fn set_own(&mut self, own: Option<(CarrierNumber, u8)>) {
        if self.own != own {
            self.own = own;
            self.change();
        }
    }

    fn change(&mut self) {
        let widths = self.others.values().map(|c| c.width);
        let widest = widths.chain(self.own.map(|own| own.1)).max();
        self.widest = widest.unwrap_or(UNKNOWN_WIDTH);
        self.run.take();
        self.has_changed = true;
    }

    /// Whether blocks may have other owners than at the last call.
    pub fn take_change(&mut self) -> bool {
        std::mem::take(&mut self.has_changed)
    }

    /// Notes a record of a server that carries nothing.
    pub fn note_origin(&mut self, now: Instant) {
        self.origin_at = Some(now);
    }

    /// Notes a record of the carrier at `address`.
    pub fn note(&mut self, address: Ipv6Addr, carries: &Carries, now: Instant) {
        let Carries { width, progress } = *carries;
        let number = carrier_number(address);
        if self.own.is_some_and(|(own, _)| own == number) {
            return;
        }
        if let Some(known) = self.others.get_mut(&number) {
            (known.heard_at, known.progress) = (now, progress);
            if known.width != width {
                known.width = width;
                self.change();
            }
            return;
        }
        let silent = |c: &Carrier| now.saturating_duration_since(c.heard_at) >= FORGOTTEN;
        self.others.retain(|_, c| !silent(c));
        if self.others.len() < MAX_CARRIERS {
            let carrier = Carrier {
                width,
                progress,
                heard_at: now,
                came_at: now,
                misses: 0,
                rests_until: None,
            };
            self.others.insert(number, carrier);
            self.change();
        }
    }

    /// Number of other carriers that are there.
    #[must_use]
    pub fn count(&self, now: Instant) -> usize {
        let there = self.others.values().filter(|c| c.is_there(now));
        there.count()
    }

    /// Whether a server is there that carries nothing.
    fn has_origin(&self, now: Instant) -> bool {
        self.origin_at
            .is_some_and(|at| now.saturating_duration_since(at) < GONE)
    }

    /// Returns the carrier to ask for the block at this position of the content, after `tries`
    /// others; `None` for the origin.
    #[must_use]
    pub fn source(&self, position: u32, tries: u8, now: Instant) -> Option<CarrierNumber> {
        let has_origin = self.has_origin(now);
        if has_origin && tries >= MOST_TRIES {
            return None;
        }
        let own = self.own.map(|(own, _)| own);
        let owner = self.owner(position);
        let of_owner = self.others.get(&owner?).filter(|c| c.serves(now));
        if tries == 0 && of_owner.is_some_and(|c| c.has(position)) {
            return owner;
        }
        let by_mix = |numbers: &mut Vec<CarrierNumber>| {
            numbers.sort_unstable_by_key(|number| mix(*number, position));
        };
        // whoever has it spares the origin a second copy
        let there = self.others.iter().filter(|(_, c)| c.serves(now));
        let with_it = there.clone().filter(|(_, c)| c.has(position));
        let mut ranks: Vec<CarrierNumber> = with_it.map(|(number, _)| *number).collect();
        by_mix(&mut ranks);
        if ranks.is_empty() {
            if tries == 0 && (of_owner.is_some() || has_origin && owner == own) {
                return owner.filter(|_| owner != own);
            }
            let numbers = there.map(|(number, _)| *number);
            ranks = numbers.chain(own.filter(|_| has_origin)).collect();
            by_mix(&mut ranks);
            if let Some(at) = ranks.iter().position(|number| Some(*number) == owner) {
                ranks[..=at].rotate_right(1);
            }
        }
        let at = usize::from(tries).checked_rem(ranks.len())?;
        ranks.get(at).copied().filter(|number| own != Some(*number))
    }

    /// Returns the owner of a block. In each run every carrier has equally many entries; a narrow one
    /// leaves some of its own to the others, so that a width moves no other blocks.
    fn owner(&self, position: u32) -> Option<CarrierNumber> {
        let own = self.own.map(|own| own.0);
        let count = self.others.len() as u32 + u32::from(own.is_some());
        let length = count * ENTRIES;
        let run = position.checked_div(length)?;
        let mut last = self.run.borrow_mut();
        if last.as_ref().is_none_or(|(known, _)| *known != run) {
            let numbers = self.others.keys().copied().chain(own);
            let entries = numbers.flat_map(|number| (0..ENTRIES).map(move |nth| (number, nth)));
            let mut owners: Vec<(CarrierNumber, u32)> = entries.collect();
            owners.sort_unstable_by_key(|(number, nth)| mix(*number, run * ENTRIES + nth));
            *last = Some((run, owners));
        }
        let (_, owners) = last.as_ref()?;
        let (number, nth) = *owners.get((position % length) as usize)?;
        if nth < self.entries(number) {
            return Some(number);
        }
        let widest = self.others.keys().copied().chain(own);
        let widest = widest.filter(|number| self.entries(*number) == ENTRIES);
        widest.min_by_key(|number| mix(*number, position))
    }

    /// Entries of a carrier in each run, by its width.
    fn entries(&self, number: CarrierNumber) -> u32 {
        let width = match self.own {
            Some((own, width)) if own == number => width,
            _ => self.others.get(&number).map_or(UNKNOWN_WIDTH, |c| c.width),
        };
        match width {
            UNKNOWN_WIDTH => ENTRIES,
            // within a factor of 1.6 two are equal
            width => ENTRIES >> ((self.widest.saturating_sub(width) + 1) / STEPS).min(31),
        }
    }

    /// Notes that blocks are asked of a carrier of which none were.
    pub fn asked(&mut self, number: CarrierNumber, now: Instant) {
        if let Some(carrier) = self.others.get_mut(&number) {
            carrier.came_at = now;
        }
    }

    /// Notes a packet of a block from a carrier, before which some were lost.
    pub fn came(&mut self, number: CarrierNumber, lost: u32, now: Instant) {
        self.packets += 1;
        self.lost += u64::from(lost);
        if self.packets >= JUDGED_PACKETS {
            if self.lost > self.packets / MOST_LOST {
                self.lossy_until = Some(now + LOSSY);
                self.has_changed = true;
            }
            (self.packets, self.lost) = (0, 0);
        }
        if let Some(carrier) = self.others.get_mut(&number) {
            (carrier.came_at, carrier.misses) = (now, 0);
        }
    }

    /// Notes that a block of the origin is whole.
    pub fn own_came(&mut self, now: Instant) {
        if let Some(last) = self.last_own.replace(now) {
            let interval = now.saturating_duration_since(last);
            // one in eight, so that a single pause changes little
            self.interval = (self.interval * 7 + interval) / 8;
        }
    }

    /// Time that a carrier may be silent while it owes blocks.
    #[must_use]
    pub fn patience(&self) -> Duration {
        let interval = match self.last_own {
            Some(_) => self.interval,
            // each waits for its first block
            None => FIRST_INTERVAL * self.others.len() as u32,
        };
        PATIENCE.max(interval * PATIENCE_FACTOR)
    }

    /// Whether blocks are divided: others carry, and few of their packets are lost.
    pub fn divides(&self, now: Instant) -> bool {
        self.lossy_until.is_none_or(|until| now >= until) && self.count(now) > 0
    }

    /// Own blocks to ask for at once: the origin sends few at a time, and each sooner.
    #[must_use]
    pub fn own_blocks(&self) -> usize {
        match self.last_own {
            Some(_) => MOST_OWN,
            None => 1,
        }
    }

    /// Whether a carrier that owes blocks is to be passed over; notes it.
    pub fn is_overdue(&mut self, number: CarrierNumber, now: Instant) -> bool {
        let patience = self.patience();
        let Some(carrier) = self.others.get_mut(&number) else {
            return true;
        };
        if !carrier.is_there(now) {
            return true;
        }
        if now.saturating_duration_since(carrier.came_at) < patience {
            return false;
        }
        carrier.came_at = now;
        carrier.misses += 1;
        if carrier.misses >= MOST_MISSES {
            carrier.misses = 0;
            carrier.rests_until = Some(now + REST);
        }
        true
    }

    /// Passes over a carrier that has sent garbage.
    pub fn refuse(&mut self, address: Ipv6Addr, now: Instant) {
        if let Some(carrier) = self.others.get_mut(&carrier_number(address)) {
            carrier.rests_until = Some(now + REST);
        }
    }
}

impl Carrier {
    fn has(&self, position: u32) -> bool {
        self.progress.has(position)
    }

    fn is_there(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.heard_at) < GONE
    }

    fn serves(&self, now: Instant) -> bool {
        self.is_there(now) && self.rests_until.is_none_or(|until| now >= until)
    }
}

/// Mixes the bits of both (the finisher of splitmix64): order without a pattern, equal for all.
fn mix(number: CarrierNumber, salt: u32) -> u64 {
    let mut bits = u64::from(number) << 32 | u64::from(salt);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

/// Returns the width in records of a carrier that sends these bits per second at most.
fn width_of(rate: u64) -> u8 {
    let doublings = (rate as f64 / LEAST_RATE).log2().max(0.0);
    // at most 200
    UNKNOWN_WIDTH + 1 + (doublings * f64::from(STEPS)) as u8
}

/// The width of this carrier's uplink, from what it could send.
#[derive(Debug)]
pub struct Width {
    width: u8,
    /// The last look saw less.
    less: bool,
}

impl Default for Width {
    fn default() -> Self {
        let (width, less) = (UNKNOWN_WIDTH, false);
        Self { width, less }
    }
}

impl Width {
    /// Takes the bits per second that left at most, if more had waited; returns the width. One
    /// interval with less shows nothing.
    pub fn look(&mut self, rate: Option<u64>) -> u8 {
        let Some(seen) = rate.map(width_of) else {
            return self.width;
        };
        if self.width == UNKNOWN_WIDTH || seen > self.width {
            (self.width, self.less) = (seen, false);
        } else {
            let less = seen < self.width;
            if less && self.less {
                self.width = seen;
            }
            self.less = less;
        }
        self.width
    }
}
