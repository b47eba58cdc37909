//! Detection of another host with this node's key: a state folder that was copied.

use lcroute_overlay::KeyConflict;
use librecast::time::{Duration, Instant};

/// Time for which a conflict is shown after a report. Chosen: peers ask both hosts once a minute.
const SHOWN_FOR: Duration = Duration::from_secs(300);
/// Interval at which a continuing conflict is logged. Chosen.
const LOGGED_EVERY: Duration = Duration::from_secs(3_600);

/// The last report, and its time.
#[derive(Debug, Default)]
pub(crate) struct KeyConflicts {
    last: Option<(KeyConflict, Instant)>,
    logged_at: Option<Instant>,
}

impl KeyConflicts {
    /// Stores a report, and logs it if it is new.
    pub(crate) fn note(&mut self, conflict: KeyConflict, now: Instant) {
        let place = conflict.place();
        let seen_by = conflict.seen_by;
        if self.is_to_be_logged(conflict, now) {
            tracing::error!(
                peer = %seen_by,
                "another host has this node's key: {place}; give one of the two a new one: `lcroute leave` there, then `lcroute join` with a new token"
            );
        }
    }

    fn is_to_be_logged(&mut self, conflict: KeyConflict, now: Instant) -> bool {
        let same = self
            .now(now)
            .is_some_and(|known| known.addresses == conflict.addresses);
        self.last = Some((conflict, now));
        let quiet = self.logged_at.is_some_and(|at| now < at + LOGGED_EVERY);
        if same && quiet {
            return false;
        }
        self.logged_at = Some(now);
        true
    }

    /// Returns the conflict, if it was reported within `SHOWN_FOR`.
    pub(crate) fn now(&self, now: Instant) -> Option<&KeyConflict> {
        let (conflict, seen) = self.last.as_ref()?;
        (now < *seen + SHOWN_FOR).then_some(conflict)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use librecast::id::SecretKey;

    use super::*;
    use crate::testing::start;

    #[test]
    fn a_conflict_is_logged_once_and_shown_while_it_goes_on() {
        let now = start();
        let conflict = |port| KeyConflict {
            addresses: vec![SocketAddr::from(([192, 0, 2, 1], port))],
            seen_by: SecretKey::from_seed(&[1; 32]).peer_id(),
        };
        let mut conflicts = KeyConflicts::default();
        assert_eq!(conflicts.now(now), None);
        assert!(conflicts.is_to_be_logged(conflict(1), now));
        assert!(!conflicts.is_to_be_logged(conflict(1), now + SHOWN_FOR / 2));
        assert!(
            conflicts.is_to_be_logged(conflict(2), now + SHOWN_FOR / 2),
            "another address"
        );
        let shown = conflicts.now(now + SHOWN_FOR).map(KeyConflict::place);
        assert_eq!(shown.as_deref(), Some("192.0.2.1:2"));
        assert_eq!(conflicts.now(now + SHOWN_FOR * 2), None);
    }
}
