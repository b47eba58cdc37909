//! Helpers of a station, as the caster's guest sees them: which routers its record names, and
//! whether listeners have places here.
//!
//! ```text
//!   serves ── a helper has room, and a listener ──> yields ── 45 s ──> releases listeners,
//!     ^                                               │               some each second
//!     └── no helper with room has a listener any more ┴───────────────────┘
//! ```
//! A caster that yields takes no further listener: its uplink carries one copy for each helper. A
//! helper that no listener reaches keeps none from the caster, whose record names both.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use lcroute_overlay::{Candidate, HelperOffer};
use librecast::cert::Member;
use librecast::id::PeerId;
use librecast_program::helper::{MAX_HELPERS, is_helper};

/// A router in a record.
pub type Named = (PeerId, Vec<Candidate>);

/// Routers of one record.
const IN_RECORD: usize = 4;
/// Places that a helper which was full must have before it is named again. Chosen: each change
/// makes the record anew.
const ROOM_AGAIN: u16 = 16;
/// Time with a helper after which listeners here are released. Chosen: until then each of them has
/// been told of the helper, which takes 30 s at most, and has a link with it.
const RELEASE_AFTER: Duration = Duration::from_secs(45);
/// Part of the listeners here that one look releases: all within some 20 looks.
const RELEASED_PART: usize = 16;

/// What a look at the helpers decides.
#[derive(Debug, PartialEq, Eq)]
pub struct Decision {
    /// The helpers that each record names, if there are any.
    pub records: Vec<Vec<Named>>,
    /// Whether each record names the caster as well, which takes listeners.
    pub serves: bool,
    /// Listeners here to be released.
    pub released: usize,
}

/// Helpers of a station.
#[derive(Debug, Default)]
pub struct Helpers {
    /// Helpers that were full, and have too few places since.
    full: BTreeSet<PeerId>,
    /// Since when one that has room has listeners.
    since: Option<Instant>,
}

impl Helpers {
    /// Decides by the offers of neighbours; `leaves`: links with listeners here.
    pub fn look<'a>(
        &mut self,
        offers: impl Iterator<Item = (&'a Member, &'a HelperOffer)>,
        leaves: usize,
        now: Instant,
    ) -> Decision {
        let mut invitations = BTreeSet::new();
        let mut helpers: Vec<_> = offers
            .filter(|(member, _)| is_helper(&member.labels))
            .collect();
        helpers.sort_unstable_by_key(|(member, _)| member.peer);
        // one token is one helper, however often it is started
        helpers.retain(|(member, _)| invitations.insert(member.invitation().copied()));
        helpers.truncate(MAX_HELPERS);
        self.full
            .retain(|peer| helpers.iter().any(|(member, _)| member.peer == *peer));
        let mut named = Vec::new();
        let mut is_reached = false;
        for (member, offer) in helpers {
            let least = match self.full.contains(&member.peer) {
                true => ROOM_AGAIN,
                false => 1,
            };
            if offer.room < least {
                self.full.insert(member.peer);
                continue;
            }
            self.full.remove(&member.peer);
            is_reached |= offer.leaves > 0;
            named.push((member.peer, offer.candidates.clone()));
        }
        if !is_reached {
            self.since = None;
            let helpers = named.chunks(IN_RECORD - 1);
            return Decision {
                records: helpers.map(<[_]>::to_vec).collect(),
                serves: true,
                released: 0,
            };
        }
        let since = *self.since.get_or_insert(now);
        let is_due = since + RELEASE_AFTER <= now;
        Decision {
            records: named.chunks(IN_RECORD).map(<[_]>::to_vec).collect(),
            serves: false,
            released: match is_due {
                true => leaves.div_ceil(RELEASED_PART),
                false => 0,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use librecast::cert::Chain;
    use librecast::id::SecretKey;
    use librecast::time::UnixTime;
    use librecast_program::helper;

    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

    fn chain(token: &librecast::cert::Token, key: u8) -> Chain {
        let key = SecretKey::from_seed(&[key; 32]).peer_id();
        token.join_ephemeral(key, "helper", NOW).unwrap()
    }

    fn member(name: &str, key: u8) -> Member {
        let token = helper::token(&[7; 32], name, Vec::new(), (NOW, RELEASE_AFTER)).unwrap();
        chain(&token, key).verify(&token.network(), NOW).unwrap()
    }

    fn offer(room: u16, leaves: u16) -> HelperOffer {
        HelperOffer {
            room,
            leaves,
            candidates: Vec::new(),
        }
    }

    /// Looks at helpers with this room each, one of which has a listener.
    fn look(helpers: &mut Helpers, offers: &[(Member, u16)], now: Instant) -> Decision {
        look_at(helpers, offers, 1, now)
    }

    fn look_at(
        helpers: &mut Helpers,
        offers: &[(Member, u16)],
        leaves: u16,
        now: Instant,
    ) -> Decision {
        let offers: Vec<_> = offers
            .iter()
            .map(|(m, room)| (m, offer(*room, leaves)))
            .collect();
        helpers.look(offers.iter().map(|(m, offer)| (*m, offer)), 100, now)
    }

    fn sizes(decision: &Decision) -> Vec<usize> {
        decision.records.iter().map(Vec::len).collect()
    }

    #[test]
    fn helpers_with_room_are_named_four_at_a_time_and_sixteen_in_all() {
        let (mut helpers, now) = (Helpers::default(), Instant::now());
        let none = look(&mut helpers, &[], now);
        assert_eq!(
            (none.records.len(), none.serves, none.released),
            (0, true, 0)
        );
        let all: Vec<_> = (1..=20).map(|n| (member(&format!("h{n}"), n), 9)).collect();
        let decided = look(&mut helpers, &all[..6], now);
        assert_eq!((sizes(&decided), decided.serves), (vec![4, 2], false));
        let decided = look(&mut helpers, &all, now);
        assert_eq!(sizes(&decided), [4; 4]);
        let named: BTreeSet<_> = decided.records.concat().into_iter().map(|n| n.0).collect();
        assert_eq!(named.len(), MAX_HELPERS);
    }

    #[test]
    fn one_that_was_full_waits_for_places_and_all_full_ones_leave_them_to_the_caster() {
        let (mut helpers, now) = (Helpers::default(), Instant::now());
        let (eve, dan) = (member("eve", 1), member("dan", 2));
        let mut decided = |rooms: [u16; 2]| {
            let offers = [(eve.clone(), rooms[0]), (dan.clone(), rooms[1])];
            let decided = look(&mut helpers, &offers, now);
            (decided.records.concat().len(), decided.serves)
        };
        assert_eq!(decided([1, 9]), (2, false));
        assert_eq!(decided([0, 9]), (1, false));
        assert_eq!(decided([15, 9]), (1, false));
        assert_eq!(decided([16, 0]), (1, false));
        assert_eq!(decided([0, 0]), (0, true));
        assert_eq!(decided([1, 16]), (1, false));
    }

    #[test]
    fn a_token_is_one_helper_and_other_members_are_none() {
        let (mut helpers, now) = (Helpers::default(), Instant::now());
        let twice = [(member("eve", 1), 9), (member("eve", 2), 9)];
        assert_eq!(sizes(&look(&mut helpers, &twice, now)), [1]);
        let seed = [7; 32];
        let caster = librecast::code::CodeKeys::text_token(
            &seed,
            SecretKey::from_seed(&seed),
            Vec::new(),
            NOW,
        );
        let caster = caster.unwrap();
        let caster = chain(&caster, 3).verify(&caster.network(), NOW).unwrap();
        assert!(look(&mut helpers, &[(caster, 9)], now).records.is_empty());
    }

    #[test]
    fn a_helper_that_no_listener_reaches_keeps_none_from_the_caster() {
        let (mut helpers, now) = (Helpers::default(), Instant::now());
        let eve = [(member("eve", 1), 9)];
        for at in [now, now + 2 * RELEASE_AFTER] {
            let decided = look_at(&mut helpers, &eve, 0, at);
            let expected = (vec![1], true, 0);
            let Decision {
                serves, released, ..
            } = decided;
            assert_eq!((sizes(&decided), serves, released), expected);
        }
        // with the caster, a record names three
        let six: Vec<_> = (1..=6).map(|n| (member(&format!("h{n}"), n), 9)).collect();
        assert_eq!(sizes(&look_at(&mut helpers, &six, 0, now)), [3, 3]);
        // the time counts from the first listener
        assert!(!look(&mut helpers, &eve, now).serves);
        let later = now + RELEASE_AFTER;
        assert_eq!(look(&mut helpers, &eve, later).released, 7);
        // it is not reached any more
        let decided = look_at(&mut helpers, &eve, 0, later);
        assert_eq!((decided.serves, decided.released), (true, 0));
    }

    #[test]
    fn listeners_here_are_released_once_they_know_of_a_helper() {
        let (mut helpers, now) = (Helpers::default(), Instant::now());
        let eve = [(member("eve", 1), 9)];
        assert_eq!(look(&mut helpers, &eve, now).released, 0);
        assert_eq!(look(&mut helpers, &eve, now + RELEASE_AFTER).released, 7);
        // the time counts from the last helper's return
        look(&mut helpers, &[], now + RELEASE_AFTER);
        let back = now + 2 * RELEASE_AFTER;
        assert_eq!(look(&mut helpers, &eve, back).released, 0);
        assert_eq!(look(&mut helpers, &eve, back + RELEASE_AFTER).released, 7);
    }
}
