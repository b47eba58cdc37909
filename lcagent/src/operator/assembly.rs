//! Assembles one node's answer from segments in any order.

use std::collections::BTreeMap;

use librecast::wire::WireError;

use crate::acknowledgement::{Progress, ShortId};
use crate::answer::MAX_STREAM;
use crate::datagram::push_range;
use crate::record::Record;

/// Bytes behind a gap up to which segments are kept.
const REACH: u32 = 256 * 1024;

/// The received part of a stream.
#[derive(Debug, Default)]
pub struct Assembly {
    /// Bytes received without a gap.
    received: u32,
    /// Of them, the beginning of an incomplete record.
    pending: Vec<u8>,
    ahead: BTreeMap<u32, Vec<u8>>,
    whole: bool,
}

impl Assembly {
    /// Returns whether a segment has new bytes that can be kept.
    #[must_use]
    pub fn wants(&self, offset: u32, length: usize) -> bool {
        let end = u64::from(offset) + length as u64;
        !self.whole
            && end <= u64::from(MAX_STREAM)
            && end > u64::from(self.received)
            && offset <= self.received.saturating_add(REACH)
            && self.ahead.get(&offset).is_none_or(|a| a.len() < length)
    }

    /// Returns the number of bytes behind gaps.
    #[must_use]
    pub fn ahead_bytes(&self) -> usize {
        self.ahead.values().map(Vec::len).sum()
    }

    /// Returns the number of kept bytes, with those of incomplete records.
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        self.pending.len() + self.ahead_bytes()
    }

    /// Takes a verified segment that [`wants`](Self::wants) wants; returns newly whole records.
    pub fn take(&mut self, offset: u32, content: &[u8]) -> Result<Vec<Record>, WireError> {
        if offset > self.received {
            self.ahead.insert(offset, content.to_vec());
            return Ok(Vec::new());
        }
        self.append(offset, content);
        while let Some(entry) = self.ahead.first_entry() {
            if *entry.key() > self.received {
                break;
            }
            let (offset, content) = entry.remove_entry();
            self.append(offset, &content);
        }
        self.records()
    }

    /// Returns the progress, for an acknowledgement.
    #[must_use]
    pub fn progress(&self, node: ShortId) -> Progress {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for (from, content) in &self.ahead {
            // bounded by MAX_STREAM in `wants`
            let end = from + content.len() as u32;
            if !push_range(&mut ranges, *from, end) {
                break;
            }
        }
        Progress {
            node,
            received: self.received,
            ranges,
        }
    }

    /// Appends the new part of a segment that begins before `received`.
    fn append(&mut self, offset: u32, content: &[u8]) {
        let skip = (self.received - offset) as usize;
        let Some(fresh) = content.get(skip..) else {
            return;
        };
        self.pending.extend_from_slice(fresh);
        self.received += fresh.len() as u32;
    }

    fn records(&mut self) -> Result<Vec<Record>, WireError> {
        let (mut records, mut at) = (Vec::new(), 0);
        while !self.whole {
            let Some((length, record)) = Record::decode(&self.pending[at..])? else {
                break;
            };
            at += length;
            self.whole = record.as_ref().is_some_and(Record::is_last);
            records.extend(record);
        }
        self.pending.drain(..at);
        if self.whole {
            self.pending = Vec::new();
            self.ahead.clear();
        }
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stream(lines: usize) -> (Vec<Record>, Vec<u8>) {
        let mut records: Vec<Record> = (0..lines)
            .map(|n| Record::Stdout(vec![n as u8; n % 50]))
            .collect();
        records.push(Record::Done);
        let mut bytes = Vec::new();
        for record in &records {
            record.encode(&mut bytes).unwrap();
        }
        (records, bytes)
    }

    #[test]
    fn what_lies_too_far_ahead_is_not_kept() {
        let mut a = Assembly::default();
        assert!(a.wants(REACH, 1) && !a.wants(REACH + 1, 1));
        assert!(!a.wants(u32::MAX, 1_000));
        a.take(10, &[0; 10]).unwrap();
        assert!(!a.wants(10, 10), "there already");
        assert_eq!(a.ahead_bytes(), 10);
        let mut begun = Vec::new();
        Record::Stdout(vec![7; 3_000]).encode(&mut begun).unwrap();
        let mut a = Assembly::default();
        a.take(0, &begun[..2_000]).unwrap();
        assert_eq!((a.ahead_bytes(), a.kept_bytes()), (0, 2_000));
    }

    #[test]
    fn nothing_follows_the_last_record() {
        let (_, bytes) = stream(1);
        let mut a = Assembly::default();
        a.take(0, &bytes).unwrap();
        assert!(a.whole);
        assert!(!a.wants(bytes.len() as u32, 5));
    }

    proptest! {
        #[test]
        fn records_come_out_in_order_whatever_the_order_of_segments(
            lines in 0..60_usize,
            size in 1..200_usize,
            overlap in 0..50_usize,
            seed in any::<u64>(),
        ) {
            let (records, bytes) = stream(lines);
            let mut pieces: Vec<(usize, usize)> = (0..bytes.len())
                .step_by(size)
                .map(|from| (from.saturating_sub(overlap), (from + size).min(bytes.len())))
                .collect();
            let mut dice = librecast::random::Random::new(seed);
            for at in (1..pieces.len()).rev() {
                pieces.swap(at, dice.index(at + 1));
            }
            let mut a = Assembly::default();
            let mut out = Vec::new();
            for (from, to) in pieces {
                if a.wants(from as u32, to - from) {
                    out.extend(a.take(from as u32, &bytes[from..to]).unwrap());
                }
                let p = a.progress([0; 8]);
                prop_assert!(p.ranges.is_sorted() && p.ranges.iter().all(|r| r.0 < r.1));
            }
            prop_assert_eq!(out, records);
            prop_assert!(a.whole);
        }
    }
}
