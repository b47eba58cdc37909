//! Figures of a transfer: the last JSON document, and the lines of `--stats`.

use librecast::coding::SYMBOL_SIZE;
use serde_json::{Value, json};

use super::fetch::Counters;
use crate::opener::OpenDrops;
use crate::progress::human_bytes;

/// Counters from the first record to the last rename.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stats {
    /// Counters of blocks and of their packets, by result.
    pub symbols: Counters,
    /// Datagrams that were not opened.
    pub unopened: OpenDrops,
    /// Records refused because the trusted key has not signed them.
    pub untrusted: u64,
    /// Blocks of files that were present already.
    pub blocks_found: u64,
    /// Most channels held at once.
    pub channels: usize,
    /// Duration in seconds.
    pub seconds: f64,
}

impl Stats {
    /// Bytes of all received symbols, of use or not.
    #[must_use]
    pub fn received_bytes(&self) -> u64 {
        self.symbols.symbols * SYMBOL_SIZE as u64
    }

    /// Bits per second of blocks.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.symbols.bytes as f64 * 8.0 / self.seconds.max(1e-6)
    }

    /// Bytes of blocks that came from the sender.
    fn sender_bytes(&self) -> u64 {
        self.symbols
            .bytes
            .saturating_sub(self.symbols.carried_bytes)
    }

    /// Forged datagrams.
    fn forged(&self) -> u64 {
        self.symbols.forged + self.unopened.forged
    }

    /// Returns them for the last document.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "symbols": self.symbols.symbols, "lost": self.symbols.lost, "duplicate": self.symbols.duplicate,
            "unwanted": self.symbols.unwanted, "refused": self.symbols.refused, "forged": self.forged(),
            "malformed": self.unopened.malformed, "unknown_server": self.unopened.unknown_server,
            "untrusted_records": self.untrusted, "blocks_fetched": self.symbols.blocks,
            "blocks_found": self.blocks_found, "bytes": self.symbols.bytes, "received_bytes": self.received_bytes(),
            "sender_bytes": self.sender_bytes(), "others_bytes": self.symbols.carried_bytes,
            "channels": self.channels, "seconds": (self.seconds * 1e3).round() / 1e3,
            "rate_bps": self.rate() as u64,
        })
    }

    /// Returns them for users, a line each.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let Counters {
            symbols,
            lost,
            duplicate,
            unwanted,
            ..
        } = self.symbols;
        let of_all = 100.0 * lost as f64 / (symbols + lost).max(1) as f64;
        let refused = self.symbols.refused + self.unopened.malformed + self.unopened.unknown_server;
        vec![
            format!(
                "blocks:   {} fetched, {} found at DEST",
                self.symbols.blocks, self.blocks_found
            ),
            format!(
                "symbols:  {symbols} received, {lost} lost ({of_all:.1} %), {duplicate} twice, {unwanted} too late"
            ),
            format!(
                "refused:  {} forged, {refused} other packets, {} records without the trusted signature",
                self.forged(),
                self.untrusted
            ),
            format!(
                "bytes:    {} of blocks, {} of symbols",
                human_bytes(self.symbols.bytes),
                human_bytes(self.received_bytes())
            ),
            format!(
                "sources:  {} from the sender, {} from other receivers",
                human_bytes(self.sender_bytes()),
                human_bytes(self.symbols.carried_bytes)
            ),
            format!(
                "time:     {:.2} s, {:.1} Mbit/s, at most {} channels",
                self.seconds,
                self.rate() / 1e6,
                self.channels
            ),
        ]
    }
}
