//! Messages that wait for the window: fair between flows, short, and fresh.
//!
//! Deficit round robin (Shreedhar and Varghese) over 256 buckets of flows; a flow is an origin and a
//! group, so a flood in one group leaves the others their latency. Nothing waits longer than the bound:
//! late messages are dropped from the head, where the newer ones gain most.

use std::collections::VecDeque;
use std::hash::Hasher as _;
use std::time::{Duration, Instant};

/// Buckets: flows that share one share its turn.
const BUCKETS: usize = 256;
/// Bytes that a flow may send in its turn.
const QUANTUM: usize = 1_500;
/// Bytes that may wait at any rate, and at most.
const LEAST_BYTES: usize = 64 * 1024;
const MOST_BYTES: usize = 8 << 20;
/// Where origin and group are: data header (docs/protocol.md), IPv6 header.
const ORIGIN: std::ops::Range<usize> = 12..20;
const GROUP: std::ops::Range<usize> = 32 + 24..32 + 40;

/// The queue of one link.
#[derive(Debug)]
pub(crate) struct FairQueue {
    seed: u64,
    bound: Duration,
    buckets: Vec<Bucket>,
    /// Buckets with something in them, in the order of their turns.
    turns: VecDeque<usize>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Bucket {
    messages: VecDeque<(Instant, Box<[u8]>)>,
    bytes: usize,
    deficit: usize,
}

/// What was dropped: late at the head, and to keep within the bound.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dropped {
    pub(crate) late: u64,
    pub(crate) overflow: u64,
}

impl FairQueue {
    pub(crate) fn new(seed: u64, bound: Duration) -> Self {
        Self {
            seed,
            bound,
            buckets: Vec::new(),
            turns: VecDeque::new(),
            bytes: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Queues a message; `rate` is that of the link in bytes a second.
    pub(crate) fn push(
        &mut self,
        parts: [&[u8]; 2],
        rate: f64,
        now: Instant,
        dropped: &mut Dropped,
    ) {
        if self.buckets.is_empty() {
            self.buckets.resize_with(BUCKETS, Bucket::default);
        }
        let most = ((rate * self.bound.as_secs_f64()) as usize).clamp(LEAST_BYTES, MOST_BYTES);
        let at = self.bucket_of(parts);
        let message = parts.concat().into_boxed_slice();
        let bucket = &mut self.buckets[at];
        if bucket.messages.is_empty() {
            bucket.deficit = 0;
            self.turns.push_back(at);
        }
        bucket.bytes += message.len();
        self.bytes += message.len();
        bucket.messages.push_back((now, message));
        self.drop_late(at, now, dropped);
        while self.bytes > most {
            // whoever fills the queue pays for it
            let longest = self.turns.iter().max_by_key(|at| self.buckets[**at].bytes);
            let Some(&longest) = longest else { break };
            self.take_head(longest);
            dropped.overflow += 1;
            self.retire(longest);
        }
    }

    /// The next message whose turn it is.
    pub(crate) fn pop(&mut self, now: Instant, dropped: &mut Dropped) -> Option<Box<[u8]>> {
        loop {
            let at = *self.turns.front()?;
            self.drop_late(at, now, dropped);
            let bucket = &mut self.buckets[at];
            let Some((_, head)) = bucket.messages.front() else {
                self.turns.pop_front();
                continue;
            };
            if bucket.deficit < head.len() {
                bucket.deficit += QUANTUM;
                self.turns.rotate_left(1);
                continue;
            }
            bucket.deficit -= head.len();
            let message = self.take_head(at);
            if self.buckets[at].messages.is_empty() {
                self.turns.pop_front();
            }
            return message;
        }
    }

    fn drop_late(&mut self, at: usize, now: Instant, dropped: &mut Dropped) {
        while let Some((since, _)) = self.buckets[at].messages.front()
            && now.saturating_duration_since(*since) > self.bound
        {
            self.take_head(at);
            dropped.late += 1;
        }
    }

    fn take_head(&mut self, at: usize) -> Option<Box<[u8]>> {
        let bucket = &mut self.buckets[at];
        let (_, message) = bucket.messages.pop_front()?;
        bucket.bytes -= message.len();
        self.bytes -= message.len();
        Some(message)
    }

    fn retire(&mut self, at: usize) {
        if self.buckets[at].messages.is_empty() {
            self.turns.retain(|turn| *turn != at);
        }
    }

    fn bucket_of(&self, parts: [&[u8]; 2]) -> usize {
        let mut head = [0; GROUP.end];
        let (first, second) = head.split_at_mut(parts[0].len().min(GROUP.end));
        first.copy_from_slice(&parts[0][..first.len()]);
        let rest = second.len().min(parts[1].len());
        second[..rest].copy_from_slice(&parts[1][..rest]);
        let mut hasher = std::hash::DefaultHasher::new();
        hasher.write_u64(self.seed);
        hasher.write(&head[ORIGIN]);
        hasher.write(&head[GROUP]);
        // the remainder is less than 256
        (hasher.finish() % BUCKETS as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(group: u8, size: usize) -> Vec<u8> {
        let mut message = vec![0; size.max(GROUP.end)];
        message[GROUP.start] = 0xff;
        message[GROUP.end - 1] = group;
        message
    }

    fn queue() -> (FairQueue, Instant, Dropped) {
        let bound = Duration::from_millis(20);
        (FairQueue::new(1, bound), Instant::now(), Dropped::default())
    }

    #[test]
    fn a_flood_leaves_others_their_turns() {
        let (mut q, now, mut dropped) = queue();
        for _ in 0..1_000 {
            q.push([&message(1, 1_200), &[]], 0.0, now, &mut dropped);
        }
        assert!(dropped.overflow > 900, "the flood pays for itself");
        let before = dropped;
        for _ in 0..4 {
            q.push([&message(2, 100), &[]], 0.0, now, &mut dropped);
        }
        let next: Vec<_> = (0..6).filter_map(|_| q.pop(now, &mut dropped)).collect();
        let mine = next.iter().filter(|m| m[GROUP.end - 1] == 2).count();
        assert_eq!(mine, 4, "within the first six");
        assert_eq!(dropped.late, before.late);
    }

    #[test]
    fn flows_share_by_bytes() {
        let (mut q, now, mut dropped) = queue();
        for _ in 0..40 {
            q.push([&message(1, 1_200), &[]], 0.0, now, &mut dropped);
            for _ in 0..4 {
                q.push([&message(2, 300), &[]], 1e9, now, &mut dropped);
            }
        }
        let mut bytes = [0; 3];
        for _ in 0..100 {
            let message = q.pop(now, &mut dropped).unwrap();
            bytes[usize::from(message[GROUP.end - 1])] += message.len();
        }
        assert!(bytes[1].abs_diff(bytes[2]) <= 3_000, "{bytes:?}");
    }

    #[test]
    fn what_is_late_is_dropped_from_the_head() {
        let (mut q, now, mut dropped) = queue();
        for n in 0..10 {
            let at = now + Duration::from_millis(n * 4);
            q.push([&[n as u8; 100], &[]], 1e9, at, &mut dropped);
        }
        let at = now + Duration::from_millis(40);
        let kept: Vec<_> = std::iter::from_fn(|| q.pop(at, &mut dropped)).collect();
        assert_eq!(
            kept.iter().map(|m| m[0]).collect::<Vec<_>>(),
            [5, 6, 7, 8, 9]
        );
        assert_eq!(
            dropped,
            Dropped {
                late: 5,
                overflow: 0
            }
        );
        assert!(q.is_empty() && q.bytes == 0);
    }

    #[test]
    fn the_bound_holds_for_any_sizes() {
        let (mut q, now, mut dropped) = queue();
        for n in 0..5_000_u32 {
            let body = vec![0; (n as usize * 7_919) % 9_000];
            q.push([&message(n as u8, 60), &body], 1e6, now, &mut dropped);
            assert!(q.bytes <= LEAST_BYTES);
        }
        while q.pop(now, &mut dropped).is_some() {}
        assert!(q.bytes == 0 && q.turns.is_empty());
        assert!(
            q.buckets
                .iter()
                .all(|b| b.bytes == 0 && b.messages.is_empty())
        );
    }
}
