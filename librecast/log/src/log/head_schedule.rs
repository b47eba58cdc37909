//! When this member's heads leave, and which of them.

use std::ops::Bound;

use librecast::random::Random;
use librecast::time::{Duration, Instant};

use super::SETTLE;
use crate::entry::AuthorId;
use crate::repair::Trickle;

/// Shortest time between two transmissions of all heads because a member's heads differ. Chosen.
const HEADS_AGAIN: Duration = Duration::from_secs(4);

/// Timer of heads, and the progress of a transmission of all heads.
#[derive(Debug)]
pub(super) struct HeadSchedule {
    trickle: Trickle,
    /// Digest of all heads; none after a change.
    digest: Option<u64>,
    /// All heads must leave: a member's heads differ.
    sends_all: bool,
    /// When a member's differing heads last made all heads leave.
    differed: Option<Instant>,
    /// Author of the last head sent, while heads leave in several packets.
    sent_until: Option<AuthorId>,
}

impl HeadSchedule {
    /// The schedule of a starting or returning member.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            trickle: Trickle::new(SETTLE, now),
            digest: None,
            sends_all: true,
            differed: None,
            sent_until: None,
        }
    }

    /// Makes all heads leave now, as this member may have been away.
    pub(super) fn come_back(&mut self, now: Instant) {
        (self.trickle, self.sends_all) = (Trickle::new(SETTLE, now), true);
    }

    /// Returns the digest of all heads; `compute` is called after a change.
    pub(super) fn digest(&mut self, compute: impl Fn() -> u64) -> u64 {
        let digest = self.digest.unwrap_or_else(&compute);
        debug_assert_eq!(digest, compute(), "a change was missed");
        self.digest = Some(digest);
        digest
    }

    pub(super) fn heads_changed(&mut self) {
        self.digest = None;
    }

    /// Makes the next heads leave soon, after news for other members.
    pub(super) fn reset(&mut self, now: Instant, random: &mut Random) {
        self.trickle.reset(now, random);
    }

    /// Notes heads of another member that equal this member's.
    pub(super) fn handle_equal(&mut self) {
        self.trickle.hear();
    }

    /// Notes heads of another member that differ.
    pub(super) fn handle_different(&mut self, now: Instant, random: &mut Random) {
        let lately = |at: Instant| now.saturating_duration_since(at) < HEADS_AGAIN;
        if !self.differed.is_some_and(lately) {
            (self.differed, self.sends_all) = (Some(now), true);
            self.trickle.reset(now, random);
        }
    }

    pub(super) fn sends_all(&self) -> bool {
        self.sends_all
    }

    /// Where a transmission of all heads in several packets continues.
    pub(super) fn goes_on_from(&self) -> Bound<AuthorId> {
        self.sent_until.map_or(Bound::Unbounded, Bound::Excluded)
    }

    /// Notes that all heads up to `until` were sent; `None`: all of them.
    pub(super) fn note_sent(&mut self, until: Option<AuthorId>) {
        self.sent_until = until;
        self.sends_all = until.is_some();
    }

    /// Makes the next heads follow soon, if not all of them have left.
    pub(super) fn go_on(&mut self, now: Instant) {
        if self.sends_all {
            self.trickle.go_on(now);
        }
    }

    pub(super) fn next_timeout(&self) -> Instant {
        self.trickle.next_timeout()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, random: &mut Random) -> bool {
        self.trickle.handle_timeout(now, random)
    }
}
