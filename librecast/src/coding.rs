//! RaptorQ (RFC 6330) for blocks of up to [`MAX_SYMBOLS`] symbols of [`SYMBOL_SIZE`] bytes.
//!
//! The `raptorq` crate panics on a symbol of the wrong length or block, keeps all symbols, and
//! solves in full after each further one. This module checks all input first, bounds the kept
//! symbols, and tries a solve only when it is likely to succeed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use raptorq::{
    EncodingPacket, ObjectTransmissionInformation, PayloadId, SourceBlockDecoder,
    SourceBlockEncoder, SourceBlockEncodingPlan,
};
use thiserror::Error;

/// Bytes per symbol.
pub const SYMBOL_SIZE: usize = 1024;
/// Most source symbols of a block.
pub const MAX_SYMBOLS: u32 = 256;
/// Most bytes of a block: 256 KiB.
pub const MAX_BLOCK: usize = SYMBOL_SIZE * MAX_SYMBOLS as usize;
/// Encoding symbol ids are 24 bits wide (RFC 6330 §3.2).
pub const MAX_ESI: u32 = (1 << 24) - 1;

/// Bound of extra repair symbols: above it a dozen solves have failed, and the symbols cannot be of
/// one block.
const SPARE_REPAIR: usize = 64;
/// Symbols above K with each of which a solve is tried: one solve of 170 fails with K symbols, one
/// of 10,000 with one more. A failed solve costs less than a further symbol for each receiver.
const FIRST_SOLVES: u32 = 2;
/// Symbols between further tries.
const SOLVE_STEP: u32 = 4;

/// The reason why a block or symbol was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CodingError {
    /// A block is 1 byte to [`MAX_BLOCK`] long.
    #[error("block length {0} is not in 1..={MAX_BLOCK}")]
    BlockLength(usize),
    /// A symbol is exactly [`SYMBOL_SIZE`] long.
    #[error("symbol length {0} is not {SYMBOL_SIZE}")]
    SymbolLength(usize),
    /// An encoding symbol id above [`MAX_ESI`].
    #[error("encoding symbol id {0} is too large")]
    SymbolId(u32),
}

/// Returns K, the number of source symbols of a block of `length` bytes.
pub fn symbols_of(length: usize) -> Result<u32, CodingError> {
    if length == 0 || length > MAX_BLOCK {
        return Err(CodingError::BlockLength(length));
    }
    Ok(length.div_ceil(SYMBOL_SIZE) as u32)
}

fn config(symbols: u32) -> ObjectTransmissionInformation {
    let bytes = u64::from(symbols) * SYMBOL_SIZE as u64;
    ObjectTransmissionInformation::new(bytes, SYMBOL_SIZE as u16, 1, 1, 8)
}

/// Makes the symbols of one block. A source symbol costs a copy, the first repair symbol a solve.
pub struct Encoder {
    /// The block, padded with zeros to whole symbols.
    padded: Vec<u8>,
    symbols: u32,
    repair: Option<SourceBlockEncoder>,
}

impl Encoder {
    /// Makes an encoder of `block`.
    pub fn new(mut block: Vec<u8>) -> Result<Self, CodingError> {
        let symbols = symbols_of(block.len())?;
        block.resize(symbols as usize * SYMBOL_SIZE, 0);
        Ok(Self {
            padded: block,
            symbols,
            repair: None,
        })
    }

    /// Returns K, the number of source symbols of the block (RFC 6330 §5.1.2).
    pub fn symbols(&self) -> u32 {
        self.symbols
    }

    /// Appends the symbol `esi` to `out`.
    pub fn symbol(&mut self, esi: u32, out: &mut Vec<u8>) -> Result<(), CodingError> {
        if esi > MAX_ESI {
            return Err(CodingError::SymbolId(esi));
        }
        if esi < self.symbols {
            let start = esi as usize * SYMBOL_SIZE;
            out.extend_from_slice(&self.padded[start..start + SYMBOL_SIZE]);
            return Ok(());
        }
        let (padded, symbols) = (&self.padded, self.symbols);
        let encoder = self.repair.get_or_insert_with(|| {
            let plan = plan(symbols);
            SourceBlockEncoder::with_encoding_plan(0, &config(symbols), padded, &plan)
        });
        for packet in encoder.repair_packets(esi - symbols, 1) {
            out.extend_from_slice(packet.data());
        }
        Ok(())
    }
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Encoder of {} symbols", self.symbols)
    }
}

/// Returns the encoding plan for K. The most recent few are cached: nearly all blocks are full.
fn plan(symbols: u32) -> Arc<SourceBlockEncodingPlan> {
    static PLANS: Mutex<Vec<(u32, Arc<SourceBlockEncodingPlan>)>> = Mutex::new(Vec::new());
    /// Cached plans: of full blocks, and of the last ones of some files.
    const KEPT: usize = 8;
    let mut plans = PLANS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(at) = plans.iter().position(|(k, _)| *k == symbols) {
        let found = plans.remove(at);
        let plan = Arc::clone(&found.1);
        plans.push(found);
        return plan;
    }
    let plan = Arc::new(SourceBlockEncodingPlan::generate(symbols as u16));
    if plans.len() == KEPT {
        plans.remove(0);
    }
    plans.push((symbols, Arc::clone(&plan)));
    plan
}

/// The effect of a symbol on its block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// It was new; more are needed.
    Kept,
    /// It had been received before.
    Duplicate,
    /// Decoding fails with this many symbols: they cannot all be of this block.
    Overfull,
    /// The block. Only its hash shows whether it is the right one.
    Decoded(Vec<u8>),
}

/// Collects the symbols of one block until it can be decoded. Holds at most twice the block's size.
pub struct Decoder {
    length: usize,
    symbols: u32,
    /// Source symbols at their place in the block.
    padded: Vec<u8>,
    have: [u64; 4],
    source_count: u32,
    repair: BTreeMap<u32, Vec<u8>>,
    solve_at: u32,
}

impl Decoder {
    /// Makes a decoder for a block of `length` bytes.
    pub fn new(length: usize) -> Result<Self, CodingError> {
        let symbols = symbols_of(length)?;
        Ok(Self {
            length,
            symbols,
            padded: vec![0; symbols as usize * SYMBOL_SIZE],
            have: [0; 4],
            source_count: 0,
            repair: BTreeMap::new(),
            solve_at: symbols,
        })
    }

    /// Returns the number of different symbols kept.
    pub fn received(&self) -> u32 {
        self.source_count + self.repair.len() as u32
    }

    /// Returns K, the number of source symbols of the block (RFC 6330 §5.1.2).
    pub fn symbols(&self) -> u32 {
        self.symbols
    }

    /// Takes the symbol `esi`; decodes once there are enough.
    ///
    /// # Errors
    /// [`CodingError::SymbolLength`], [`CodingError::SymbolId`].
    pub fn receive(&mut self, esi: u32, symbol: &[u8]) -> Result<Progress, CodingError> {
        if symbol.len() != SYMBOL_SIZE {
            return Err(CodingError::SymbolLength(symbol.len()));
        }
        if esi > MAX_ESI {
            return Err(CodingError::SymbolId(esi));
        }
        if !self.keep(esi, symbol) {
            return Ok(Progress::Duplicate);
        }
        if self.source_count == self.symbols {
            let mut block = std::mem::take(&mut self.padded);
            block.truncate(self.length);
            return Ok(Progress::Decoded(block));
        }
        if self.repair.len() > self.symbols as usize + SPARE_REPAIR {
            return Ok(Progress::Overfull);
        }
        if self.received() < self.solve_at {
            return Ok(Progress::Kept);
        }
        let step = if self.received() < self.symbols + FIRST_SOLVES {
            1
        } else {
            SOLVE_STEP
        };
        self.solve_at = self.received() + step;
        Ok(self.solve().map_or(Progress::Kept, Progress::Decoded))
    }

    /// Returns whether `esi` was new.
    fn keep(&mut self, esi: u32, symbol: &[u8]) -> bool {
        if esi >= self.symbols {
            let std::collections::btree_map::Entry::Vacant(place) = self.repair.entry(esi) else {
                return false;
            };
            place.insert(symbol.to_vec());
            return true;
        }
        let (word, bit) = (esi as usize / 64, 1 << (esi % 64));
        // a decoder that has returned its block takes no more symbols
        if self.have[word] & bit != 0 || self.padded.is_empty() {
            return false;
        }
        self.have[word] |= bit;
        let start = esi as usize * SYMBOL_SIZE;
        self.padded[start..start + SYMBOL_SIZE].copy_from_slice(symbol);
        self.source_count += 1;
        true
    }

    fn solve(&self) -> Option<Vec<u8>> {
        let source = (0..self.symbols)
            .filter(|esi| self.have[*esi as usize / 64] & (1 << (esi % 64)) != 0)
            .map(|esi| {
                let start = esi as usize * SYMBOL_SIZE;
                let symbol = self.padded[start..start + SYMBOL_SIZE].to_vec();
                EncodingPacket::new(PayloadId::new(0, esi), symbol)
            });
        let repair = self
            .repair
            .iter()
            .map(|(esi, symbol)| EncodingPacket::new(PayloadId::new(0, *esi), symbol.clone()));
        let bytes = u64::from(self.symbols) * SYMBOL_SIZE as u64;
        let mut decoder = SourceBlockDecoder::new(0, &config(self.symbols), bytes);
        let mut block = decoder.decode(source.chain(repair))?;
        block.truncate(self.length);
        Some(block)
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Decoder with {} of {} symbols",
            self.received(),
            self.symbols
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block(length: usize) -> Vec<u8> {
        (0..length)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 7) as u8)
            .collect()
    }

    fn feed(encoder: &mut Encoder, decoder: &mut Decoder, esi: u32) -> Progress {
        let mut symbol = Vec::new();
        encoder.symbol(esi, &mut symbol).unwrap();
        decoder.receive(esi, &symbol).unwrap()
    }

    /// Feeds the ids until the block is decoded; returns the number used.
    fn decode(length: usize, ids: impl Iterator<Item = u32>) -> u32 {
        let data = block(length);
        let mut encoder = Encoder::new(data.clone()).unwrap();
        let mut decoder = Decoder::new(length).unwrap();
        for (n, esi) in ids.enumerate() {
            if let Progress::Decoded(out) = feed(&mut encoder, &mut decoder, esi) {
                assert_eq!(out, data);
                return n as u32 + 1;
            }
        }
        panic!("not decoded");
    }

    #[test]
    fn source_symbols_alone_suffice_in_any_order() {
        assert_eq!(decode(MAX_BLOCK, (100..256).chain(0..100)), 256);
        assert_eq!(decode(1, 0..1), 1);
        assert_eq!(decode(1025, [1, 0].into_iter()), 2);
    }

    #[test]
    fn repair_symbols_replace_lost_ones() {
        let lossy = (0..256).filter(|i| i % 20 != 3).chain(900_000..);
        assert!(decode(MAX_BLOCK, lossy) <= 256 + 2 + 4);
        assert!(decode(5_000, 1_000..) <= 5 + 2 + 4);
        assert!(decode(10, 70_000..) <= 1 + 2 + 4);
    }

    #[test]
    fn last_symbol_id_works() {
        assert!(decode(3_000, (0..=MAX_ESI).rev()) <= 3 + 2 + 4);
    }

    #[test]
    fn duplicates_are_not_counted() {
        let mut encoder = Encoder::new(block(4_096)).unwrap();
        let mut decoder = Decoder::new(4_096).unwrap();
        assert_eq!(feed(&mut encoder, &mut decoder, 1), Progress::Kept);
        assert_eq!(feed(&mut encoder, &mut decoder, 1), Progress::Duplicate);
        assert_eq!(feed(&mut encoder, &mut decoder, 9), Progress::Kept);
        assert_eq!(feed(&mut encoder, &mut decoder, 9), Progress::Duplicate);
        assert_eq!(decoder.received(), 2);
    }

    #[test]
    fn what_cannot_be_a_symbol_is_refused() {
        assert!(Encoder::new(Vec::new()).is_err());
        assert!(Encoder::new(vec![0; MAX_BLOCK + 1]).is_err());
        assert!(Decoder::new(0).is_err());
        assert!(Decoder::new(MAX_BLOCK + 1).is_err());
        let mut decoder = Decoder::new(10).unwrap();
        assert_eq!(
            decoder.receive(0, &[0; 10]),
            Err(CodingError::SymbolLength(10))
        );
        let symbol = [0; SYMBOL_SIZE];
        assert_eq!(
            decoder.receive(1 << 24, &symbol),
            Err(CodingError::SymbolId(1 << 24))
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn garbage_never_panics_and_stays_bounded(
            length in 1..=40 * SYMBOL_SIZE,
            ids in proptest::collection::vec((0..=MAX_ESI, any::<u8>()), 0..300),
        ) {
            let mut decoder = Decoder::new(length).unwrap();
            for (esi, byte) in ids {
                match decoder.receive(esi, &[byte; SYMBOL_SIZE]).unwrap() {
                    Progress::Overfull | Progress::Decoded(_) => break,
                    _ => {}
                }
                prop_assert!(decoder.received() as usize <= 2 * decoder.symbols() as usize + SPARE_REPAIR + 1);
            }
        }

        #[test]
        fn any_loss_pattern_decodes(length in 1..=MAX_BLOCK, lost in any::<u64>(), start in 300..MAX_ESI / 2) {
            let ids = (0..symbols_of(length).unwrap()).filter(|i| lost >> (i % 64) & 1 == 0);
            let needed = decode(length, ids.chain(start..));
            prop_assert!(needed <= symbols_of(length).unwrap() + 2 + 4);
        }
    }
}
