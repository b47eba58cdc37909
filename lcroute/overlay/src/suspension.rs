//! Suspension of peers whose messages made the WebRTC stack panic: they get no link for a while.
//!
//! Only a peer that provably sent the cause of the panic is suspended; otherwise forged datagrams
//! could keep two honest nodes apart (docs/adr/links.md).

use std::collections::BTreeMap;

use librecast::time::{Duration, Instant};

use librecast::id::PeerId;

/// Duration of the first suspension; each further one doubles it. Chosen.
pub(crate) const FIRST: Duration = Duration::from_secs(60);
/// Maximum duration of a suspension, and time for which it is remembered after its end. Chosen.
const LONGEST: Duration = Duration::from_secs(3_600);
/// Maximum number of remembered peers. Chosen.
const MAX_SUSPENDED: usize = 1_024;

/// Present and recent suspensions.
#[derive(Debug, Default)]
pub(crate) struct Suspensions {
    rows: BTreeMap<PeerId, Row>,
}

#[derive(Debug)]
struct Row {
    until: Instant,
    lasted: Duration,
    /// Whether its end was reported.
    over: bool,
}

impl Suspensions {
    pub(crate) fn add(&mut self, peer: PeerId, now: Instant) -> Duration {
        self.rows.retain(|_, row| now < row.until + LONGEST);
        let before = self.rows.get(&peer).map(|row| row.lasted);
        let lasted = before.map_or(FIRST, |lasted| (lasted * 2).min(LONGEST));
        if before.is_none() && self.rows.len() >= MAX_SUSPENDED {
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
        debug_assert!(
            self.rows.len() <= MAX_SUSPENDED,
            "the first to end gives way"
        );
        lasted
    }

    pub(crate) fn is_suspended(&self, peer: &PeerId, now: Instant) -> bool {
        self.rows.get(peer).is_some_and(|row| now < row.until)
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        let current = self.rows.values().filter(|row| !row.over);
        current.map(|row| row.until).min()
    }

    /// Returns the peers whose suspension has ended since the last call.
    pub(crate) fn ended(&mut self, now: Instant) -> Vec<PeerId> {
        let due = |row: &Row| !row.over && row.until <= now;
        let rows = self.rows.iter_mut().filter(|(_, row)| due(row));
        rows.map(|(peer, row)| {
            row.over = true;
            *peer
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::start;
    use librecast::id::SecretKey;
    use proptest::prelude::*;

    fn peer(n: u16) -> PeerId {
        let mut seed = [1; 32];
        seed[..2].copy_from_slice(&n.to_be_bytes());
        SecretKey::from_seed(&seed).peer_id()
    }

    #[test]
    fn each_suspension_lasts_twice_as_long_as_the_one_before() {
        let mut now = start();
        let mut suspensions = Suspensions::default();
        let mut lasted = Vec::new();
        for _ in 0..8 {
            let lasts = suspensions.add(peer(1), now);
            assert!(
                suspensions.is_suspended(&peer(1), now) && !suspensions.is_suspended(&peer(2), now)
            );
            assert_eq!(suspensions.deadline(), Some(now + lasts));
            assert!(suspensions.ended(now).is_empty());
            now += lasts;
            assert!(!suspensions.is_suspended(&peer(1), now));
            assert_eq!(suspensions.ended(now), [peer(1)]);
            assert_eq!(
                (suspensions.ended(now), suspensions.deadline()),
                (vec![], None)
            );
            lasted.push(lasts.as_secs() / 60);
        }
        assert_eq!(lasted, [1, 2, 4, 8, 16, 32, 60, 60]);
        now += LONGEST;
        assert_eq!(suspensions.add(peer(1), now), FIRST, "long ago");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]

        #[test]
        fn the_list_stays_short(pauses in prop::collection::vec(0_u64..10, 1_200..1_300)) {
            let mut now = start();
            let mut suspensions = Suspensions::default();
            for (n, pause) in (0_u16..).zip(pauses) {
                now += Duration::from_millis(pause);
                suspensions.add(peer(n), now);
                prop_assert!(suspensions.rows.len() <= MAX_SUSPENDED);
                prop_assert!(suspensions.is_suspended(&peer(n), now), "the last one is in it");
            }
        }
    }
}
