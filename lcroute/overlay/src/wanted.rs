//! Which links are wanted, and what becomes of the others.
//!
//! A peer is tried while it is wanted and present on some carrier. Who knocks at us is answered whether we
//! want it or not: the other side may. A link stays until one side closes it, wanted or not.

use std::collections::BTreeSet;
use librecast::time::Instant;

use librecast::id::PeerId;

use crate::event::{Event, LinkId, PeerState};
use crate::overlay::Overlay;
use crate::peer::{FAILS_AFTER, FAILS_AFTER_ATTEMPTS};

impl Overlay {
    /// The peers to which a link is to be made; before the first call there are none. A link to one
    /// that is not wanted any more stays up, and is not made anew when it ends.
    pub fn set_wanted(&mut self, wanted: BTreeSet<PeerId>, now: Instant) {
        self.observe(now);
        if self.stopped {
            return;
        }
        let before = std::mem::replace(&mut self.wanted, wanted);
        self.wanted.remove(&self.own);
        let dropped: Vec<_> = before.difference(&self.wanted).copied().collect();
        let added: Vec<_> = self.wanted.difference(&before).copied().collect();
        for id in dropped {
            if let Some(&index) = self.by_id.get(&id) {
                self.stop_trying(index);
            }
        }
        for id in added {
            if self.may_try(&id) {
                self.begin_trying(id, now);
            }
        }
        self.drain_dirty();
    }

    /// Ends a link that is not needed: says goodbye, so that the far side hears of it at once. It does not
    /// knock again unless it wants the link itself.
    pub fn close_gracefully(&mut self, link: LinkId, reason: &'static str, now: Instant) {
        self.observe(now);
        if let Some(&index) = self.by_link.get(&link) {
            self.end_link(index, reason, now);
            self.drain_dirty();
        }
    }

    /// Whether we look for a link to this peer, and know a way to tell it so.
    pub(crate) fn may_try(&self, id: &PeerId) -> bool {
        let refused = self.is_expelled(id) || self.is_shut_out(id);
        self.wanted.contains(id) && self.reach.knows(id) && !refused
    }

    /// A wanted peer can be reached: we knock, unless there is a link or an attempt.
    pub(crate) fn begin_trying(&mut self, id: PeerId, now: Instant) {
        let Some(index) = self.peer_index(id) else {
            return;
        };
        let Some(peer) = self.peers[index].as_mut() else {
            return;
        };
        if peer.up().is_some() {
            return;
        }
        if peer.link.is_none() {
            peer.failures = 0;
            self.knock_soon(index, now);
        } else {
            self.expect_link(index, now);
        }
    }

    /// A peer is not wanted any more, or cannot be reached: an attempt under way may end as it will.
    pub(crate) fn stop_trying(&mut self, index: usize) {
        if let Some(peer) = self.peers[index].as_mut() {
            (peer.retry_at, peer.keep_until) = (None, None);
            (peer.fails_at, peer.attempts) = (None, 0);
            self.mark_dirty(index);
        }
    }

    /// From now on the time runs within which a link should come to be.
    pub(crate) fn expect_link(&mut self, index: usize, now: Instant) {
        let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let open = peer.fails_at.is_none() && !self.failing.contains(&peer.id);
        if open && self.wanted.contains(&peer.id) {
            (peer.fails_at, peer.attempts) = (Some(now + FAILS_AFTER), 0);
            self.mark_dirty(index);
        }
    }

    /// An attempt has come to nothing.
    pub(crate) fn count_failure(&mut self, index: usize, now: Instant) {
        if let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut) {
            peer.attempts = peer.attempts.saturating_add(1);
            self.judge_failure(index, now);
        }
    }

    /// Tells that a wanted peer cannot be reached directly, once that has shown.
    pub(crate) fn judge_failure(&mut self, index: usize, now: Instant) {
        let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let late = peer.fails_at.is_some_and(|at| at <= now);
        let often = peer.fails_at.is_some() && peer.attempts >= FAILS_AFTER_ATTEMPTS;
        if !late && !often {
            return;
        }
        peer.fails_at = None;
        let id = peer.id;
        self.forget_failing();
        if self.failing.insert(id) {
            let (peer, failing) = (id, true);
            self.events
                .push_back(Event::DirectFailure { peer, failing });
        }
    }

    /// There is a link.
    pub(crate) fn count_success(&mut self, index: usize) {
        let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        (peer.fails_at, peer.attempts) = (None, 0);
        let (peer, failing) = (peer.id, false);
        if self.failing.remove(&peer) {
            self.events
                .push_back(Event::DirectFailure { peer, failing });
        }
    }

    /// Makes room in the set of those that were told to fail.
    fn forget_failing(&mut self) {
        if self.failing.len() < self.config.limits.peers {
            return;
        }
        let others = self.failing.iter().find(|id| !self.wanted.contains(id));
        if let Some(peer) = others.or(self.failing.first()).copied() {
            self.failing.remove(&peer);
            let failing = false;
            self.events
                .push_back(Event::DirectFailure { peer, failing });
        }
    }

    /// Forgets a peer that nobody needs: not wanted, no link, nothing to show.
    pub(crate) fn tidy(&mut self, index: usize) -> bool {
        let Some(peer) = self.peers.get(index).and_then(Option::as_ref) else {
            return false;
        };
        let busy = peer.link.is_some() || peer.waiting.is_some() || peer.silent_pair.is_some();
        let shown = peer.state == PeerState::Refused;
        let expected = peer.keep_until.is_some_and(|until| self.now < until);
        let id = peer.id;
        if busy || shown || expected || self.wanted.contains(&id) {
            return false;
        }
        self.forget(id);
        true
    }

    /// Links that are up or being made.
    pub(crate) fn link_count(&self) -> usize {
        let peers = self.peers.iter().flatten();
        peers.filter(|peer| peer.link.is_some()).count()
    }
}
