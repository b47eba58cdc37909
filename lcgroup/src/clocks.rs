//! Presence bodies: clocks that differ from this host's by over a day, and refusals.
//!
//! ```text
//! 0                    | a host shows its clock; hosts whose clocks differ answer
//! 1                    | the answer
//! 2 | reason 8 | author 64 | time 64   | the owner refused this author's request of this time
//! ```

use std::collections::{BTreeMap, BTreeSet};

use lcgroup_core::RequestRefusal;
use librecast::id::PeerId;
use librecast::wire::{Reader, Writer};
use librecast_log::AuthorId;

/// Milliseconds of a day.
const DAY: u64 = 86_400_000;

/// The content of presence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// The author's clock.
    Clock,
    /// The author's clock, in answer to another clock.
    ClockToo,
    /// A refusal, the requesting author, and the time of its request.
    Refused(RequestRefusal, AuthorId, u64),
}

impl Shown {
    /// Encodes it.
    pub fn encode(self) -> Vec<u8> {
        let mut w = Writer::new();
        match self {
            Self::Clock => w.u8(0),
            Self::ClockToo => w.u8(1),
            // only refusals with a number are answered
            Self::Refused(reason, author, time) => {
                w.u8(2).u8(reason.number().unwrap_or(u8::MAX));
                w.u64(author.0).u64(time)
            }
        };
        w.into_vec()
    }

    /// Decodes it; none for a later version.
    pub fn decode(body: &[u8]) -> Option<Self> {
        let mut r = Reader::new(body);
        let shown = match r.u8().ok()? {
            0 => Self::Clock,
            1 => Self::ClockToo,
            2 => {
                let reason = RequestRefusal::of_number(r.u8().ok()?)?;
                Self::Refused(reason, AuthorId(r.u64().ok()?), r.u64().ok()?)
            }
            _ => return None,
        };
        r.finish().ok()?;
        Some(shown)
    }
}

/// Members' clocks that are known in this run.
#[derive(Debug, Default)]
pub struct Clocks {
    /// Clocks that differ, with the ms by which each is ahead of this host's.
    off: BTreeMap<PeerId, i64>,
    near: BTreeSet<PeerId>,
}

impl Clocks {
    /// Stores a member's clock; `ahead` is none if it agrees. Returns whether it differs anew.
    pub fn hear(&mut self, who: PeerId, ahead: Option<i64>) -> bool {
        match ahead {
            Some(ahead) => {
                self.near.remove(&who);
                self.off.insert(who, ahead).is_none()
            }
            None => {
                self.off.remove(&who);
                self.near.insert(who);
                false
            }
        }
    }

    /// A member whose clock shows that this host's is wrong, and the ms by which it is ahead: the
    /// owner if known, else the first of at least two, if more clocks differ than agree.
    pub fn judge(&self, owner: &[PeerId], is_owner: bool) -> Option<(PeerId, i64)> {
        if !is_owner {
            let known = owner.iter().find_map(|key| self.off.get_key_value(key));
            if known.is_some() || owner.iter().any(|key| self.near.contains(key)) {
                return known.map(|(who, ahead)| (*who, *ahead));
            }
        }
        let outvoted = self.off.len() >= 2 && self.off.len() > self.near.len();
        let first = self.off.iter().next().filter(|_| outvoted);
        first.map(|(who, ahead)| (*who, *ahead))
    }
}

/// Formats such as `40 days behind`, if another clock is `ahead` by these ms.
pub fn off_by(ahead: i64) -> String {
    let (days, way) = (
        (ahead.unsigned_abs() + DAY / 2) / DAY,
        if ahead > 0 { "behind" } else { "ahead of" },
    );
    match days {
        0 | 1 => format!("1 day {way}"),
        _ => format!("{days} days {way}"),
    }
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;

    use super::*;

    fn key(n: u8) -> PeerId {
        SecretKey::from_seed(&[n; 32]).peer_id()
    }

    #[test]
    fn presence_comes_back_from_its_bytes() {
        for shown in [
            Shown::Clock,
            Shown::ClockToo,
            Shown::Refused(RequestRefusal::UsedUp, AuthorId(7), 5),
        ] {
            let bytes = shown.encode();
            assert_eq!(Shown::decode(&bytes), Some(shown));
            assert_eq!(Shown::decode(&[&bytes[..], &[0]].concat()), None);
        }
        for other in [&[][..], &[3], &[2, 99, 0], &[2]] {
            assert_eq!(Shown::decode(other), None);
        }
    }

    #[test]
    fn the_owners_clock_decides_and_without_it_most_others_do() {
        let mut clocks = Clocks::default();
        assert!(clocks.hear(key(2), Some(5)) && !clocks.hear(key(2), Some(6)));
        assert_eq!(clocks.judge(&[key(1)], false), None, "one of two");
        assert_eq!(clocks.judge(&[key(2)], false), Some((key(2), 6)));
        assert_eq!(clocks.judge(&[key(2)], true), None, "one of two");
        clocks.hear(key(3), None);
        assert_eq!(clocks.judge(&[key(1)], false), None);
        clocks.hear(key(1), Some(-9));
        assert_eq!(clocks.judge(&[key(1)], false), Some((key(1), -9)));
        clocks.hear(key(1), None);
        clocks.hear(key(4), Some(6));
        clocks.hear(key(5), Some(6));
        assert_eq!(clocks.judge(&[key(1)], false), None);
        let outvoted = clocks.judge(&[key(9)], true);
        assert_eq!(outvoted.map(|(_, ahead)| ahead), Some(6));
    }

    #[test]
    fn a_difference_is_told_in_days() {
        let day = DAY as i64;
        assert_eq!(off_by(day + 1), "1 day behind");
        assert_eq!(off_by(40 * day - 9), "40 days behind");
        assert_eq!(off_by(-730 * day), "730 days ahead of");
    }
}
