//! Symbols of one block, from sources that may be corrupt.
//!
//! Until a block decodes wrongly, one decoder takes the symbols of all servers. After that, each
//! source has its own: the source of a block with another hash is corrupt.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use librecast::coding::{CodingError, Decoder, Progress};

use crate::block::{BlockHash, BlockRef};

/// Most decoders of one block; each may hold twice the block.
const MAX_APART: usize = 4;
/// Divisor of a block's symbols: the part that is missing when a burst was a little too short.
const TAIL_FRACTION: u32 = 16;
/// Most sources known for a common decoder: two show that none was alone.
const MAX_KNOWN: usize = 2;

/// Sender of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    /// Source address of its packets.
    pub address: Ipv6Addr,
    /// Interface it came in by.
    pub interface: u32,
    /// The server's number in packets.
    pub server: u32,
}

/// Effect of a symbol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A new symbol; the block needs more.
    Kept,
    /// It had been received before.
    Duplicate,
    /// The block, verified; its source, if there was only one.
    Block(Vec<u8>, Option<Source>),
    /// The symbols decoded to another block and are dropped; their source, if there was only one.
    Forged(Option<Source>),
}

/// Collects the symbols of one block.
#[derive(Debug)]
pub struct Collector {
    block: BlockRef,
    symbols: u32,
    decoders: Decoders,
}

#[derive(Debug)]
enum Decoders {
    Common {
        decoder: Decoder,
        sources: BTreeSet<Source>,
    },
    Apart(BTreeMap<Source, Apart>),
}

#[derive(Debug)]
struct Apart {
    decoder: Decoder,
    trusted: bool,
}

impl Collector {
    /// Starts without symbols; `apart`: with a decoder for each source from the start.
    pub fn new(block: BlockRef, apart: bool) -> Result<Self, CodingError> {
        let decoder = Decoder::new(block.length as usize)?;
        Ok(Self {
            block,
            symbols: decoder.symbols(),
            decoders: if apart {
                Decoders::Apart(BTreeMap::new())
            } else {
                Decoders::Common {
                    decoder,
                    sources: BTreeSet::new(),
                }
            },
        })
    }

    /// Symbols in the decoder that has most.
    #[must_use]
    pub fn received(&self) -> u32 {
        match &self.decoders {
            Decoders::Common { decoder, .. } => decoder.received(),
            Decoders::Apart(all) => all
                .values()
                .map(|a| a.decoder.received())
                .max()
                .unwrap_or(0),
        }
    }

    /// Least number of symbols to come.
    #[must_use]
    pub fn missing(&self) -> u32 {
        self.symbols.saturating_sub(self.received())
    }

    /// Whether at most `lead` symbols, but less than half of all, are to come, or only a tail.
    #[must_use]
    pub fn is_ending(&self, lead: u32) -> bool {
        self.missing() <= lead.max(self.symbols / TAIL_FRACTION).min(self.symbols / 2)
    }

    /// Handles the symbol `esi` of `source`; a `trusted` one has sent whole blocks before.
    pub fn receive(
        &mut self,
        source: Source,
        trusted: bool,
        esi: u32,
        symbol: &[u8],
    ) -> Result<Outcome, CodingError> {
        let length = self.block.length as usize;
        let (decoder, alone) = match &mut self.decoders {
            Decoders::Common { decoder, sources } => {
                if sources.len() < MAX_KNOWN {
                    sources.insert(source);
                }
                let alone = (sources.len() == 1).then_some(source);
                (decoder, alone)
            }
            Decoders::Apart(all) => (
                &mut own(all, source, trusted, length)?.decoder,
                Some(source),
            ),
        };
        Ok(match decoder.receive(esi, symbol)? {
            Progress::Kept => Outcome::Kept,
            Progress::Duplicate => Outcome::Duplicate,
            Progress::Decoded(bytes) if BlockHash::of(&bytes) == self.block.hash => {
                Outcome::Block(bytes, alone)
            }
            Progress::Decoded(_) | Progress::Overfull => {
                self.start_over(source);
                Outcome::Forged(alone)
            }
        })
    }

    fn start_over(&mut self, source: Source) {
        if let Decoders::Apart(all) = &mut self.decoders {
            all.remove(&source);
        } else {
            self.decoders = Decoders::Apart(BTreeMap::new());
        }
    }
}

/// Returns the decoder of `source`. A new one replaces the one with fewest symbols, trusted ones
/// last: invented sources replace each other.
fn own(
    all: &mut BTreeMap<Source, Apart>,
    source: Source,
    trusted: bool,
    length: usize,
) -> Result<&mut Apart, CodingError> {
    if !all.contains_key(&source) && all.len() >= MAX_APART {
        let least = all
            .iter()
            .min_by_key(|(_, a)| (a.trusted, a.decoder.received()))
            .map(|(source, _)| *source);
        if let Some(least) = least {
            all.remove(&least);
        }
    }
    debug_assert!(all.len() <= MAX_APART, "decoders have a bound");
    match all.entry(source) {
        std::collections::btree_map::Entry::Occupied(found) => Ok(found.into_mut()),
        std::collections::btree_map::Entry::Vacant(free) => Ok(free.insert(Apart {
            decoder: Decoder::new(length)?,
            trusted,
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use librecast::coding::{Encoder, SYMBOL_SIZE};
    use std::net::Ipv6Addr;

    const LENGTH: usize = 20 * SYMBOL_SIZE;

    fn source(server: u32) -> Source {
        Source {
            address: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1),
            interface: 1,
            server,
        }
    }

    struct Honest {
        data: Vec<u8>,
        encoder: Encoder,
    }

    impl Honest {
        fn new() -> (Self, BlockRef) {
            let data: Vec<u8> = (0..LENGTH).map(|n| (n / 7) as u8).collect();
            let block = BlockRef::of(&data);
            let encoder = Encoder::new(data.clone()).unwrap();
            (Self { data, encoder }, block)
        }

        fn send(&mut self, to: &mut Collector, from: u32, trusted: bool, esi: u32) -> Outcome {
            let mut symbol = Vec::new();
            self.encoder.symbol(esi, &mut symbol).unwrap();
            to.receive(source(from), trusted, esi, &symbol).unwrap()
        }
    }

    fn forge(to: &mut Collector, from: u32, esi: u32) -> Outcome {
        to.receive(source(from), false, esi, &[7; SYMBOL_SIZE])
            .unwrap()
    }

    #[test]
    fn honest_servers_complete_each_other() {
        let (mut honest, block) = Honest::new();
        let mut collector = Collector::new(block, false).unwrap();
        for esi in 0..19 {
            assert_eq!(
                honest.send(&mut collector, esi % 3, false, esi),
                Outcome::Kept
            );
        }
        let last = honest.send(&mut collector, 1, false, 19);
        assert_eq!(last, Outcome::Block(honest.data, None));
    }

    #[test]
    fn a_lone_corrupt_source_is_named_and_one_of_several_when_they_are_told_apart() {
        let (mut honest, block) = Honest::new();
        let mut collector = Collector::new(block, false).unwrap();
        honest.send(&mut collector, 1, false, 0);
        for esi in 1..19 {
            assert_eq!(forge(&mut collector, 2, esi), Outcome::Kept);
        }
        assert_eq!(forge(&mut collector, 2, 19), Outcome::Forged(None));
        for esi in 0..19 {
            forge(&mut collector, 2, esi);
            honest.send(&mut collector, 1, false, esi);
        }
        let named = Outcome::Forged(Some(source(2)));
        assert_eq!(forge(&mut collector, 2, 19), named);
        let last = honest.send(&mut collector, 1, false, 19);
        assert_eq!(last, Outcome::Block(honest.data, Some(source(1))));
    }

    #[test]
    fn sources_invented_packet_by_packet_do_not_stop_a_trusted_server() {
        let (mut honest, block) = Honest::new();
        let mut collector = Collector::new(block, true).unwrap();
        let mut invented = 100;
        for esi in 0..20 {
            for _ in 0..50 {
                invented += 1;
                assert_eq!(forge(&mut collector, invented, esi), Outcome::Kept);
            }
            let outcome = honest.send(&mut collector, 1, true, esi);
            assert_eq!(matches!(outcome, Outcome::Block(..)), esi == 19);
        }
        assert!(matches!(&collector.decoders, Decoders::Apart(all) if all.len() <= MAX_APART));
    }

    #[test]
    fn bursts_of_an_unknown_server_get_through_invented_sources() {
        let (mut honest, block) = Honest::new();
        let mut collector = Collector::new(block, true).unwrap();
        let mut invented = 100;
        for esi in 0..20 {
            honest.send(&mut collector, 1, false, esi);
            for _ in 0..if esi % 4 == 3 { 50 } else { 0 } {
                invented += 1;
                forge(&mut collector, invented, 0);
            }
        }
        assert_eq!(collector.received(), 20);
    }
}
