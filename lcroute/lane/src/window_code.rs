//! Repair without requests: a sliding-window code over recent packets (random linear, as RFC 8681).
//!
//! ```text
//! repair symbol, the bytes of a chunk of kind 3:
//! first index 32 (low bits) | seed 16 | length of map 8 | map | symbol to the end
//! map: bit 7 of its first byte: packet `first` is in the sum, and so on upwards
//! symbol = sum over these packets of factor(seed, index) x (length 16 | payload | zeroes)
//! ```
//!
//! The receiver keeps recent packets and solves for missing ones. Bounds: [`RING`] packets,
//! [`MAX_ROWS`] waiting symbols, one symbol per packet on average.

use librecast::gf256::{Sum, add, add_times, inverse, multiply};
use librecast::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};

use crate::payload::{CHUNK_HEADER, put_symbol_header};

/// Bound of packets in a symbol. From adr/packets.md.
pub const MAX_SOURCES: usize = 128;
/// Bound of indices from the first to the last packet of a symbol. Chosen: half as many again.
pub const MAX_SPAN: u64 = 192;
/// Bytes of a symbol's header: index, seed, length of the bitmap.
const HEADER: usize = 4 + 2 + 1;
/// Bytes of the length in a symbol.
const LENGTH: usize = 2;
/// Bound of a symbol in bytes: no probed datagram is longer.
const MAX_SYMBOL: usize = 9_000;
/// Bound of the excess of a symbol's packet over the longest packet in its sum, in bytes.
pub const CODE_OVERHEAD: usize = CHUNK_HEADER + HEADER + MAX_SPAN as usize / 8 + LENGTH;
/// Indices that the decoder remembers: a power of two above [`MAX_SPAN`].
const RING: u64 = 256;
/// Bound of symbols in the decoder. Chosen.
const MAX_ROWS: usize = 96;
/// Bound of symbols accepted without packets between them.
const MAX_CREDIT: u32 = 128;
/// Time without a symbol after which the decoder is dropped.
const IDLE: Duration = Duration::from_secs(5);

/// Returns the factor of a packet in a symbol, never 0.
fn factor(seed: u16, index: u64) -> u8 {
    // the finalizer of MurmurHash3, over both
    let mut h = (index as u32) ^ u32::from(seed).wrapping_mul(0x9e37_79b1);
    h = (h ^ h >> 16).wrapping_mul(0x85eb_ca6b);
    h = (h ^ h >> 13).wrapping_mul(0xc2b2_ae35);
    h ^= h >> 16;
    // 1..=255
    (h % 255) as u8 + 1
}

/// Appends a chunk with a symbol over `sources`: not empty, indices rising within [`MAX_SPAN`].
pub fn put_symbol<'a>(
    packet: &mut BytesMut,
    seed: u16,
    sources: impl Iterator<Item = (u64, &'a [u8])> + Clone,
    sum: &mut Sum,
) {
    let (mut first, mut size, mut map) = (None, 0, [0_u8; MAX_SPAN as usize / 8]);
    let mut mapped = 0;
    for (index, payload) in sources.clone() {
        let at = index - *first.get_or_insert(index);
        size = size.max(LENGTH + payload.len());
        // less than the span
        if let Some(byte) = map.get_mut(at as usize / 8) {
            *byte |= 0x80 >> (at % 8);
            mapped = at as usize / 8 + 1;
        }
    }
    sum.begin(size);
    for (index, payload) in sources {
        let factor = factor(seed, index);
        let length = payload.len() as u16;
        sum.add(factor, 0, &length.to_be_bytes());
        sum.add(factor, LENGTH, payload);
    }
    put_symbol_header(packet, HEADER + mapped + size);
    packet.put_u32(first.unwrap_or(0) as u32);
    packet.put_u16(seed);
    packet.put_u8(mapped as u8);
    packet.put_slice(&map[..mapped]);
    packet.put_slice(sum.finish());
}

/// Decoder at the receiver.
#[derive(Debug)]
pub struct Decoder {
    ring: Vec<Slot>,
    /// Index after the newest one.
    end: u64,
    rows: Vec<Row>,
    spare: Vec<Row>,
    sum: Sum,
    credit: u32,
    received_at: Instant,
}

#[derive(Debug, Clone)]
struct Slot {
    payload: Option<Bytes>,
    /// Latest time at which it could have arrived: later ones did.
    since: Instant,
}

/// A symbol less its known packets: an equation of missing packets. No other row contains its
/// pivot, and it has no index before it.
#[derive(Debug)]
struct Row {
    pivot: u64,
    /// Factors by the low bits of the index.
    factors: [u8; RING as usize],
    symbol: Vec<u8>,
}

/// A packet recovered by solving.
#[derive(Debug, PartialEq, Eq)]
pub struct Solved {
    pub index: u64,
    pub payload: Bytes,
    /// Delay beyond its expected arrival.
    pub delay: Duration,
}

fn slot(index: u64) -> usize {
    // less than the ring
    (index % RING) as usize
}

impl Decoder {
    pub fn new(now: Instant) -> Self {
        Self {
            ring: vec![
                Slot {
                    payload: None,
                    since: now
                };
                RING as usize
            ],
            end: 0,
            rows: Vec::new(),
            spare: Vec::new(),
            sum: Sum::default(),
            credit: MAX_CREDIT,
            received_at: now,
        }
    }

    /// Whether no symbol has arrived for [`IDLE`].
    pub fn is_idle(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.received_at) > IDLE
    }

    /// Handles a packet; `solved` gets the packets that it makes solvable.
    pub fn source(&mut self, index: u64, payload: Bytes, now: Instant, solved: &mut Vec<Solved>) {
        self.credit = (self.credit + 1).min(MAX_CREDIT);
        self.advance(index, now);
        if index + RING < self.end || self.ring[slot(index)].payload.is_some() {
            return;
        }
        let mut again = Vec::new();
        for n in (0..self.rows.len()).rev() {
            let row = &mut self.rows[n];
            let factor = std::mem::take(&mut row.factors[slot(index)]);
            if factor != 0 {
                if !subtract(&mut row.symbol, factor, &payload) {
                    self.drop_row(n);
                } else if row.pivot == index {
                    again.push(self.rows.swap_remove(n));
                }
            }
        }
        self.ring[slot(index)].payload = Some(payload);
        again.into_iter().for_each(|row| self.insert(row));
        self.solve(now, solved);
    }

    /// Handles a symbol from packet `carrier`; `seen` tests for arrivals. An error: malformed.
    pub fn symbol(
        &mut self,
        bytes: &[u8],
        carrier: u64,
        seen: impl Fn(u64) -> bool,
        now: Instant,
        solved: &mut Vec<Solved>,
    ) -> Result<(), ()> {
        let (header, rest) = bytes.split_first_chunk::<HEADER>().ok_or(())?;
        let [f3, f2, f1, f0, s1, s0, mapped] = *header;
        let seed = u16::from_be_bytes([s1, s0]);
        let (map, symbol) = rest.split_at_checked(mapped.into()).ok_or(())?;
        let back = (carrier as u32).wrapping_sub(u32::from_be_bytes([f3, f2, f1, f0]));
        let first = carrier.checked_sub(back.into()).ok_or(())?;
        let bit = |n: &u64| map[*n as usize / 8] & 0x80 >> (n % 8) != 0;
        let span = map.len() as u64 * 8;
        let last = first + (0..span).rfind(bit).ok_or(())?;
        let sized = LENGTH < symbol.len() && symbol.len() <= MAX_SYMBOL;
        if !sized || span > MAX_SPAN || last >= carrier {
            return Err(());
        }
        self.received_at = now;
        if self.credit == 0 {
            return Ok(());
        }
        self.credit -= 1;
        self.advance(last, now);
        if first + RING < self.end {
            return Ok(());
        }
        let sources = || (0..span).filter(bit).map(|n| first + n);
        let known = |index: u64| self.ring[slot(index)].payload.is_some();
        let unknown = sources().filter(|index| !known(*index));
        let (missing, lost) = unknown.fold((0, 0), |(all, lost), index| {
            (all + 1, lost + u32::from(!seen(index)))
        });
        // packets from before the decoder existed are missing, but not lost
        if missing == 0 || missing > lost {
            return Ok(());
        }
        let mut row = self.spare.pop().unwrap_or_else(Row::new);
        row.begin(symbol);
        self.sum.begin(symbol.len());
        for index in sources() {
            let factor = factor(seed, index);
            match &self.ring[slot(index)].payload {
                Some(payload) => {
                    let length = payload.len() as u16;
                    self.sum.add(factor, 0, &length.to_be_bytes());
                    self.sum.add(factor, LENGTH, payload);
                }
                None => row.factors[slot(index)] = factor,
            }
        }
        add(&mut row.symbol, self.sum.finish());
        self.insert(row);
        self.solve(now, solved);
        Ok(())
    }

    /// Drops entries too far before `index`.
    fn advance(&mut self, index: u64, now: Instant) {
        let end = index + 1;
        if end <= self.end {
            return;
        }
        for fresh in self.end.max(end.saturating_sub(RING))..end {
            self.ring[slot(fresh)] = Slot {
                payload: None,
                since: now,
            };
        }
        self.end = end;
        for n in (0..self.rows.len()).rev() {
            if self.rows[n].pivot + RING < end {
                self.drop_row(n);
            }
        }
    }

    fn drop_row(&mut self, n: usize) {
        self.spare.push(self.rows.swap_remove(n));
    }

    /// Adds a row, and eliminates its pivot from all other rows.
    fn insert(&mut self, mut row: Row) {
        for other in &self.rows {
            row.eliminate(other);
        }
        let Some(pivot) = row.lowest(self.end) else {
            // linearly dependent
            self.spare.push(row);
            return;
        };
        row.pivot = pivot;
        row.scale(inverse(row.factors[slot(pivot)]));
        for other in &mut self.rows {
            other.eliminate(&row);
        }
        if self.rows.len() == MAX_ROWS {
            let oldest = (0..MAX_ROWS).min_by_key(|n| self.rows[*n].pivot);
            self.drop_row(oldest.unwrap_or(0));
        }
        self.rows.push(row);
    }

    /// Removes rows that contain only their pivot.
    fn solve(&mut self, now: Instant, solved: &mut Vec<Solved>) {
        for n in (0..self.rows.len()).rev() {
            if !self.rows[n].is_solved() {
                continue;
            }
            let row = &self.rows[n];
            let slot = &mut self.ring[slot(row.pivot)];
            let payload = row.symbol.split_first_chunk::<LENGTH>();
            let payload = payload.and_then(|(length, rest)| {
                let length = u16::from_be_bytes(*length);
                rest.get(..length.into()).filter(|p| !p.is_empty())
            });
            if let Some(payload) = payload {
                let payload = Bytes::copy_from_slice(payload);
                slot.payload = Some(payload.clone());
                solved.push(Solved {
                    index: row.pivot,
                    payload,
                    delay: now.saturating_duration_since(slot.since),
                });
            }
            self.drop_row(n);
        }
    }
}

impl Row {
    fn new() -> Self {
        Self {
            pivot: 0,
            factors: [0; RING as usize],
            symbol: Vec::new(),
        }
    }

    fn begin(&mut self, symbol: &[u8]) {
        self.factors = [0; RING as usize];
        self.symbol.clear();
        self.symbol.extend_from_slice(symbol);
    }

    /// Returns the lowest index with a factor, of the last before `end`.
    fn lowest(&self, end: u64) -> Option<u64> {
        (end.saturating_sub(RING)..end).find(|index| self.factors[slot(*index)] != 0)
    }

    fn is_solved(&self) -> bool {
        self.factors.iter().filter(|factor| **factor != 0).count() == 1
    }

    /// Eliminates the pivot of `other` from this row.
    fn eliminate(&mut self, other: &Self) {
        let factor = self.factors[slot(other.pivot)];
        if factor == 0 {
            return;
        }
        add_times(&mut self.factors, factor, &other.factors);
        if self.symbol.len() < other.symbol.len() {
            self.symbol.resize(other.symbol.len(), 0);
        }
        add_times(&mut self.symbol, factor, &other.symbol);
    }

    fn scale(&mut self, by: u8) {
        let both = self.factors.iter_mut().chain(&mut self.symbol);
        both.for_each(|byte| *byte = multiply(*byte, by));
    }
}

/// Subtracts a packet from a symbol; returns false if it does not fit.
fn subtract(symbol: &mut [u8], factor: u8, payload: &[u8]) -> bool {
    if symbol.len() < LENGTH + payload.len() {
        return false;
    }
    let length = payload.len() as u16;
    add_times(symbol, factor, &length.to_be_bytes());
    add_times(&mut symbol[LENGTH..], factor, payload);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::{Chunk, take};
    use librecast::random::Random;
    use proptest::prelude::*;

    fn payload(index: u64) -> Vec<u8> {
        let size = 1 + (index * 37 % 60) as usize;
        (0..size).map(|n| (index as usize * 7 + n) as u8).collect()
    }

    fn symbol(seed: u16, sources: &[u64]) -> Bytes {
        let payloads: Vec<_> = sources.iter().map(|i| (*i, payload(*i))).collect();
        let mut packet = BytesMut::new();
        let sources = payloads.iter().map(|(i, p)| (*i, &p[..]));
        put_symbol(&mut packet, seed, sources, &mut Sum::default());
        match take(&mut packet.freeze()) {
            Ok(Some(Chunk::Symbol(bytes))) => bytes,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn golden_bytes() {
        let mut packet = BytesMut::new();
        let sources = [(0x1_0000_0005_u64, b"ab".as_slice()), (0x1_0000_000e, b"c")];
        put_symbol(
            &mut packet,
            0x1234,
            sources.into_iter(),
            &mut Sum::default(),
        );
        let (a, b) = (factor(0x1234, 5), factor(0x1234, 0xe));
        assert_eq!((a, b), (220, 39));
        let mut golden = b"\xc0\x0d\0\0\0\x05\x12\x34\x02\x80\x40".to_vec();
        golden.extend([
            0,
            multiply(a, 2) ^ multiply(b, 1),
            multiply(a, b'a') ^ multiply(b, b'c'),
            multiply(a, b'b'),
        ]);
        assert_eq!(packet[..], golden);
    }

    /// Sends `sources` packets and a symbol over the last `window` after every `every`; `lost`
    /// decides on losses. Returns lost and recovered packets.
    fn run(sources: u64, window: usize, every: u64, mut lost: impl FnMut() -> bool) -> (u64, u64) {
        let now = Instant::now();
        let (mut decoder, mut solved) = (Decoder::new(now), Vec::new());
        let (mut sent, mut seen) = (Vec::new(), std::collections::BTreeSet::new());
        let (mut missing, mut index) = (0, 0);
        for n in 1..=sources {
            sent.push(index);
            if lost() {
                missing += 1;
            } else {
                seen.insert(index);
                decoder.source(index, payload(index).into(), now, &mut solved);
            }
            index += 1;
            if n % every == 0 {
                if !lost() {
                    let from = sent.len().saturating_sub(window);
                    let bytes = symbol(n as u16, &sent[from..]);
                    let seen = |index: u64| seen.contains(&index);
                    decoder
                        .symbol(&bytes, index, seen, now, &mut solved)
                        .unwrap();
                }
                index += 1;
            }
        }
        assert!(solved.iter().all(|s| s.payload == payload(s.index)));
        assert!(solved.iter().all(|s| !seen.contains(&s.index)));
        assert!(decoder.rows.len() + decoder.spare.len() < 2 * MAX_ROWS);
        (missing, solved.len() as u64)
    }

    fn random(percent: u64) -> impl FnMut() -> bool {
        let mut random = Random::new(1);
        move || random.below(100) < percent
    }

    #[test]
    fn what_was_lost_comes_back() {
        for (percent, every, share) in [(1, 16, 0.999), (5, 8, 0.99), (20, 2, 0.98)] {
            let (missing, solved) = run(20_000, 64, every, random(percent));
            let back = solved as f64 / missing as f64;
            println!("{percent} %: {solved} of {missing}");
            assert!(back > share, "{back} at {percent} %");
        }
    }

    #[test]
    fn too_much_loss_is_no_harm() {
        let (missing, solved) = run(5_000, 128, 4, random(50));
        assert!(missing > 2_000 && solved < missing);
    }

    #[test]
    fn a_late_packet_helps_as_well() {
        let now = Instant::now();
        let (mut decoder, mut solved) = (Decoder::new(now), Vec::new());
        decoder.advance(0, now);
        let bytes = symbol(3, &[1, 2]);
        decoder
            .symbol(&bytes, 3, |_| false, now, &mut solved)
            .unwrap();
        assert!(solved.is_empty());
        let later = now + Duration::from_millis(3);
        decoder.source(1, payload(1).into(), later, &mut solved);
        let back = Solved {
            index: 2,
            payload: payload(2).into(),
            delay: Duration::from_millis(3),
        };
        assert_eq!(solved, [back]);
    }

    #[test]
    fn symbols_cost_credit() {
        let now = Instant::now();
        let (mut decoder, mut solved) = (Decoder::new(now), Vec::new());
        for seed in 0..1_000 {
            let bytes = symbol(seed, &(0..128).collect::<Vec<_>>());
            decoder
                .symbol(&bytes, 128, |_| false, now, &mut solved)
                .unwrap();
        }
        assert_eq!(decoder.credit, 0);
        assert!(decoder.rows.len() <= MAX_ROWS);
    }

    proptest! {
        #[test]
        fn arbitrary_symbols_do_not_panic(
            symbols in prop::collection::vec((0_u64..600, prop::collection::vec(any::<u8>(), 0..60),
                0_u32..600, 0_u8..30, any::<bool>()), 1..60)) {
            let now = Instant::now();
            let (mut decoder, mut solved) = (Decoder::new(now), Vec::new());
            for (carrier, body, first, mapped, source) in symbols {
                if source {
                    decoder.source(carrier, body.into(), now, &mut solved);
                    continue;
                }
                let _ = decoder.symbol(&body, carrier, |_| false, now, &mut solved);
                let bytes = [&first.to_be_bytes()[..], &[1, 2, mapped], &body].concat();
                let _ = decoder.symbol(&bytes, carrier, |_| false, now, &mut solved);
                prop_assert!(decoder.rows.len() <= MAX_ROWS);
                // no row has the pivot of another
                for row in &decoder.rows {
                    let others = decoder.rows.iter().filter(|r| r.factors[slot(row.pivot)] != 0);
                    prop_assert_eq!(others.count(), 1);
                }
            }
        }

        #[test]
        fn as_many_symbols_as_losses_bring_all_back(
            lost in prop::collection::btree_set(0_u64..100, 1..20), seed: u16) {
            let now = Instant::now();
            let (mut decoder, mut solved) = (Decoder::new(now), Vec::new());
            for index in (0..100).filter(|index| !lost.contains(index)) {
                decoder.source(index, payload(index).into(), now, &mut solved);
            }
            let all: Vec<_> = (0..100).collect();
            // two more: random factors are dependent once in 255
            for n in 0..lost.len() as u16 + 2 {
                let bytes = symbol(seed.wrapping_add(n), &all);
                let seen = |index: u64| !lost.contains(&index);
                decoder.symbol(&bytes, 100 + u64::from(n), seen, now, &mut solved).unwrap();
            }
            let back: std::collections::BTreeSet<_> = solved.iter().map(|s| s.index).collect();
            prop_assert_eq!(back, lost);
        }
    }
}
