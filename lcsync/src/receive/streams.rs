//! Sequence numbers of servers on one channel.

use std::collections::BTreeMap;

use super::collector::Source;

/// Most servers followed on one channel.
const MAX_STREAMS: usize = 8;
/// Gap from which on a server has started anew.
const MAX_GAP: u32 = 1 << 16;

/// Next sequence number of each server.
#[derive(Debug, Default)]
pub(super) struct Streams(BTreeMap<Source, Stream>);

#[derive(Debug, Clone, Copy)]
struct Stream {
    first: u32,
    next: u32,
}

impl Streams {
    /// Returns the packets missing before this one; `None` for an overtaken one, counted as lost.
    pub(super) fn follow(&mut self, source: Source, sequence: u32) -> Option<u32> {
        let next = sequence.wrapping_add(1);
        let begun = Stream {
            first: sequence,
            next,
        };
        if let Some(stream) = self.0.get_mut(&source) {
            let gap = sequence.wrapping_sub(stream.next);
            if gap > u32::MAX - MAX_GAP {
                return None;
            }
            if gap < MAX_GAP {
                stream.next = next;
                return Some(gap);
            }
            *stream = begun;
        } else if self.0.len() < MAX_STREAMS {
            self.0.insert(source, begun);
        }
        Some(0)
    }

    /// Packets of the server that has sent most since its first received one, lost ones included.
    pub(super) fn passed(&self) -> u32 {
        let passed = self.0.values().map(|s| s.next.wrapping_sub(s.first));
        passed.max().unwrap_or(0)
    }
}
