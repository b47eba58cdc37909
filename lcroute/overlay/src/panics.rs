//! What follows a panic of the WebRTC stack: it is told and counted, and who has caused it gets no link
//! for a while.
//!
//! Only who is proven to have sent what the stack panicked over is refused, or anybody who forges a
//! datagram could keep two honest nodes apart (docs/adr/0037).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use librecast::id::PeerId;
use tracing::{debug, warn};

use crate::envelope::Refusal;
use crate::fence::Panic;
use crate::overlay::{Overlay, untold};

/// How long the first refusal lasts, and the longest; each is twice the one before. One is remembered for
/// as long as the longest after its end.
pub(crate) const FIRST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(3_600);
/// Most peers remembered.
const MAX_SHUT_OUT: usize = 1_024;

/// Who is refused, and was lately.
#[derive(Debug, Default)]
pub(crate) struct ShutOut {
    rows: BTreeMap<PeerId, Row>,
}

#[derive(Debug)]
struct Row {
    until: Instant,
    lasted: Duration,
    /// It is over, and was told to be.
    over: bool,
}

impl ShutOut {
    /// Refuses a peer, for how long.
    fn add(&mut self, peer: PeerId, now: Instant) -> Duration {
        self.rows.retain(|_, row| now < row.until + LONGEST);
        let before = self.rows.get(&peer).map(|row| row.lasted);
        let lasted = before.map_or(FIRST, |lasted| (lasted * 2).min(LONGEST));
        if before.is_none() && self.rows.len() >= MAX_SHUT_OUT {
            let first = self.rows.iter().min_by_key(|(_, row)| row.until);
            if let Some(first) = first.map(|(peer, _)| *peer) {
                self.rows.remove(&first);
            }
        }
        let (until, over) = (now + lasted, false);
        let row = Row {
            until,
            lasted,
            over,
        };
        self.rows.insert(peer, row);
        lasted
    }

    fn holds(&self, peer: &PeerId, now: Instant) -> bool {
        self.rows.get(peer).is_some_and(|row| now < row.until)
    }

    /// When the next refusal ends.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let current = self.rows.values().filter(|row| !row.over);
        current.map(|row| row.until).min()
    }

    /// Those whose refusal has ended since this was asked before.
    fn ended(&mut self, now: Instant) -> Vec<PeerId> {
        let due = |row: &Row| !row.over && row.until <= now;
        let rows = self.rows.iter_mut().filter(|(_, row)| due(row));
        rows.map(|(peer, row)| {
            row.over = true;
            *peer
        })
        .collect()
    }
}

impl Overlay {
    /// The stack panicked in a connection with a peer; `proven`: over what that peer has sent.
    pub(crate) fn note_panic(
        &mut self,
        index: usize,
        (panic, proven): (&Panic, bool),
        now: Instant,
    ) {
        self.count("webrtc_panic");
        let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        // not at once again: what has happened may happen each time
        peer.failures = peer.failures.max(3);
        let name = peer.member.as_ref().map_or("?", |m| m.name.as_str());
        match self.panics_told.tell(now) {
            Some(left_out) => warn!(
                peer = %peer.id, name, refused = proven,
                "the WebRTC stack panicked, and the link has ended: {panic}{}", untold(left_out)
            ),
            None => debug!(peer = %peer.id, %panic, "the WebRTC stack panicked"),
        }
        if proven {
            let lasts = self.shut_out.add(peer.id, now);
            debug!(peer = %peer.id, ?lasts, "refused for a while");
        }
    }

    /// Whether a peer gets no link now for what it sent before.
    pub(crate) fn is_shut_out(&self, peer: &PeerId) -> bool {
        self.shut_out.holds(peer, self.now)
    }

    /// Those whose time is over may come back.
    pub(crate) fn end_refusals(&mut self, now: Instant) {
        let ended = self.shut_out.ended(now);
        if !ended.is_empty() {
            self.readmit(Refusal::Panicked, &|peer| ended.contains(peer), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use librecast::id::SecretKey;
    use proptest::prelude::*;

    fn peer(n: u16) -> PeerId {
        let mut seed = [1; 32];
        seed[..2].copy_from_slice(&n.to_be_bytes());
        SecretKey::from_seed(&seed).peer_id()
    }

    #[test]
    fn each_refusal_lasts_twice_as_long_as_the_one_before() {
        let mut now = Instant::now();
        let mut shut_out = ShutOut::default();
        let mut lasted = Vec::new();
        for _ in 0..8 {
            let lasts = shut_out.add(peer(1), now);
            assert!(shut_out.holds(&peer(1), now) && !shut_out.holds(&peer(2), now));
            assert_eq!(shut_out.deadline(), Some(now + lasts));
            assert!(shut_out.ended(now).is_empty());
            now += lasts;
            assert!(!shut_out.holds(&peer(1), now));
            assert_eq!(shut_out.ended(now), [peer(1)]);
            assert_eq!((shut_out.ended(now), shut_out.deadline()), (vec![], None));
            lasted.push(lasts.as_secs() / 60);
        }
        assert_eq!(lasted, [1, 2, 4, 8, 16, 32, 60, 60]);
        now += LONGEST;
        assert_eq!(shut_out.add(peer(1), now), FIRST, "long ago");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]

        #[test]
        fn the_list_stays_short(pauses in prop::collection::vec(0_u64..10, 1_200..1_300)) {
            let mut now = Instant::now();
            let mut shut_out = ShutOut::default();
            for (n, pause) in (0_u16..).zip(pauses) {
                now += Duration::from_millis(pause);
                shut_out.add(peer(n), now);
                prop_assert!(shut_out.rows.len() <= MAX_SHUT_OUT);
                prop_assert!(shut_out.holds(&peer(n), now), "the last one is in it");
            }
        }
    }
}
