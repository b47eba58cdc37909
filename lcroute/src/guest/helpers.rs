//! Helpers of a station, as the caster's guest sees them: which routers its record names, and which
//! listeners have places here.
//!
//! ```text
//!   alone ── a helper has room ──> beside ── a listener reaches it ──> yields
//!     ^                              │                                   │
//!     └────────── no helper with room, or with room and listeners ───────┘
//! ```
//! While a helper is here, a listener leaves the caster once a helper brings it packets: the uplink
//! carries one copy for each helper. A caster that yields takes new ones once they have tried helpers:
//! some may reach none.

use std::collections::BTreeSet;

use lcroute_overlay::{Candidate, HelperOffer};
use librecast::cert::Member;
use librecast::id::PeerId;
use librecast_program::helper::{MAX_HELPERS, is_helper};

/// A router in a record.
pub type Named = (PeerId, Vec<Candidate>);

/// Helpers of one record, beside the caster.
const IN_RECORD: usize = 3;
/// Places that a helper which was full must have before it is named again. Chosen: each change
/// makes the record anew.
const ROOM_AGAIN: u16 = 16;

/// Place of the caster among its helpers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// No helper has room.
    Alone,
    /// A helper has room, and none that has reaches a listener.
    Beside,
    /// A helper with room has listeners: further ones go to helpers, if they can.
    Yields,
}

/// The result of a look at the helpers.
#[derive(Debug, PartialEq, Eq)]
pub struct Decision {
    /// Helpers with room, by record.
    pub records: Vec<Vec<Named>>,
    /// Whether listeners are to leave the caster for helpers: one is here, with room or without.
    pub spare: bool,
    /// Place of the caster.
    pub standing: Standing,
}

/// Helpers of a station.
#[derive(Debug, Default)]
pub struct Helpers {
    /// Helpers that were full, and have too few places since.
    full: BTreeSet<PeerId>,
}

impl Helpers {
    /// Decides by the offers of neighbours.
    pub fn look<'a>(
        &mut self,
        offers: impl Iterator<Item = (&'a Member, &'a HelperOffer)>,
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
        let spare = !helpers.is_empty();
        let (mut named, mut standing) = (Vec::new(), Standing::Alone);
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
            named.push((member.peer, offer.candidates.clone()));
            standing = match offer.leaves == 0 && standing != Standing::Yields {
                true => Standing::Beside,
                false => Standing::Yields,
            };
        }
        Decision {
            records: named.chunks(IN_RECORD).map(<[_]>::to_vec).collect(),
            spare,
            standing,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use librecast::cert::Chain;
    use librecast::id::SecretKey;
    use librecast::time::UnixTime;
    use librecast_program::helper;

    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

    fn chain(token: &librecast::cert::Token, key: u8) -> Chain {
        token.join_ephemeral(peer(key), "helper", NOW).unwrap()
    }

    fn peer(key: u8) -> PeerId {
        SecretKey::from_seed(&[key; 32]).peer_id()
    }

    fn member(name: &str, key: u8) -> Member {
        let ttl = Duration::from_secs(60);
        let token = helper::token(&[7; 32], name, Vec::new(), (NOW, ttl)).unwrap();
        chain(&token, key).verify(&token.network(), NOW).unwrap()
    }

    /// Looks at helpers with this room and this number of listeners each.
    fn look(helpers: &mut Helpers, offers: &[(Member, u16, u16)]) -> Decision {
        let offers = offers.iter().map(|(member, room, leaves)| {
            let offer = HelperOffer {
                room: *room,
                leaves: *leaves,
                candidates: Vec::new(),
            };
            (member, offer)
        });
        let offers: Vec<_> = offers.collect();
        helpers.look(offers.iter().map(|(member, offer)| (*member, offer)))
    }

    fn sizes(decision: &Decision) -> Vec<usize> {
        decision.records.iter().map(Vec::len).collect()
    }

    #[test]
    fn helpers_with_room_are_named_three_at_a_time_and_sixteen_in_all() {
        let mut helpers = Helpers::default();
        let none = look(&mut helpers, &[]);
        assert_eq!((none.records.len(), none.standing), (0, Standing::Alone));
        assert!(!none.spare);
        let all = (1..=20).map(|n| (member(&format!("h{n}"), n), 9, 1));
        let all: Vec<_> = all.collect();
        assert_eq!(sizes(&look(&mut helpers, &all[..5])), [3, 2]);
        let decided = look(&mut helpers, &all);
        assert_eq!(sizes(&decided), [3, 3, 3, 3, 3, 1]);
        let named: BTreeSet<_> = decided.records.concat().into_iter().map(|n| n.0).collect();
        assert_eq!(named.len(), MAX_HELPERS);
    }

    #[test]
    fn one_that_was_full_waits_for_places_and_all_full_ones_leave_them_to_the_caster() {
        let mut helpers = Helpers::default();
        let (eve, dan) = (member("eve", 1), member("dan", 2));
        let mut decided = |rooms: [u16; 2]| {
            let offers = [(eve.clone(), rooms[0], 1), (dan.clone(), rooms[1], 1)];
            let decided = look(&mut helpers, &offers);
            // also a full one keeps its listeners
            assert!(decided.spare);
            (decided.records.concat().len(), decided.standing)
        };
        assert_eq!(decided([1, 9]), (2, Standing::Yields));
        assert_eq!(decided([0, 9]), (1, Standing::Yields));
        assert_eq!(decided([15, 9]), (1, Standing::Yields));
        assert_eq!(decided([16, 0]), (1, Standing::Yields));
        assert_eq!(decided([0, 0]), (0, Standing::Alone));
        assert_eq!(decided([1, 16]), (1, Standing::Yields));
    }

    #[test]
    fn a_token_is_one_helper_and_other_members_are_none() {
        let mut helpers = Helpers::default();
        let twice = [(member("eve", 1), 9, 0), (member("eve", 2), 9, 0)];
        assert_eq!(sizes(&look(&mut helpers, &twice)), [1]);
        let seed = [7; 32];
        let caster = librecast::code::CodeKeys::text_token(
            &seed,
            SecretKey::from_seed(&seed),
            Vec::new(),
            NOW,
        );
        let caster = caster.unwrap();
        let caster = chain(&caster, 3).verify(&caster.network(), NOW).unwrap();
        let decided = look(&mut helpers, &[(caster, 9, 1)]);
        assert!(decided.records.is_empty() && !decided.spare);
    }

    #[test]
    fn the_caster_yields_while_a_helper_with_room_has_listeners() {
        let mut helpers = Helpers::default();
        let (eve, dan) = (member("eve", 1), member("dan", 2));
        let mut standing = |of_eve: (u16, u16), of_dan: (u16, u16)| {
            let eve = (eve.clone(), of_eve.0, of_eve.1);
            let dan = (dan.clone(), of_dan.0, of_dan.1);
            look(&mut helpers, &[eve, dan]).standing
        };
        assert_eq!(standing((9, 0), (9, 0)), Standing::Beside);
        assert_eq!(standing((9, 1), (9, 0)), Standing::Yields);
        assert_eq!(standing((9, 0), (9, 2)), Standing::Yields);
        // the one with listeners is full
        assert_eq!(standing((9, 0), (0, 1)), Standing::Beside);
        assert_eq!(standing((9, 0), (0, 0)), Standing::Beside);
    }
}
