//! Keys revoked by themselves, by their certifier, or by a key that the policy lets revoke. Kept on
//! disk with the revoking command, which agents repeat to agents that were away.
//!
//! Keys that the policy lists always find room. Of other keys, each listed key may have
//! [`MAX_OF_ONE`] revoked. Keys that it certified, and that revoke themselves, count too. So no key
//! can use up another's room.

use std::collections::BTreeMap;

use librecast::id::PeerId;
use serde::{Deserialize, Serialize};

/// Bound of revoked keys that the policy does not list, for each listed key.
pub const MAX_OF_ONE: usize = 256;

/// The keys under which a command is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Principal {
    /// The signer.
    pub operator: PeerId,
    /// The key that certified the signer, if a certificate came along.
    pub certifier: Option<PeerId>,
}

/// A key that is not trusted any more, and the revoking command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// The revoked key.
    pub key: PeerId,
    /// Only with this key's certificates; none: altogether.
    pub certifier: Option<PeerId>,
    /// The revoking command.
    pub revoking: RevokingCommand,
}

/// The command that revoked a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevokingCommand {
    /// The operator that signed it.
    pub by: PeerId,
    /// The listed key that is charged for it: his, or his certifier's.
    pub under: PeerId,
    /// Unix seconds until which agents repeat it to nodes that were away.
    pub not_after: u64,
    /// The command as it was signed.
    pub envelope: Vec<u8>,
}

impl Revocation {
    /// Returns whether it revokes this principal.
    #[must_use]
    pub fn covers(&self, principal: &Principal) -> bool {
        match self.certifier {
            None => self.key == principal.operator || Some(self.key) == principal.certifier,
            by => self.key == principal.operator && by == principal.certifier,
        }
    }
}

/// All revocations that an agent knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revocations(BTreeMap<(PeerId, Option<PeerId>), Kept>);

/// A revocation and its line in the file, cached: each write needs all, and encoding is slow.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    revoking: RevokingCommand,
    line: String,
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    key: PeerId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certifier: Option<PeerId>,
    by: PeerId,
    under: PeerId,
    not_after: u64,
    envelope: String,
}

impl Revocations {
    /// Stores or replaces a revocation; false without room. `listed`: the policy lists the key.
    pub fn add(&mut self, revocation: Revocation, listed: bool) -> bool {
        let Revocation {
            key,
            certifier,
            revoking,
        } = revocation;
        // a repetition may have a wider selector and a later end
        let again = self.0.contains_key(&(key, certifier));
        if !again && self.0.contains_key(&(key, None)) {
            return true;
        }
        if !again && !listed {
            let of_one = self
                .0
                .values()
                .filter(|k| k.revoking.under == revoking.under);
            if of_one.count() >= MAX_OF_ONE {
                return false;
            }
        }
        if certifier.is_none() {
            // implied from now on
            self.0
                .retain(|(other, by), _| *by != Some(key) && (*other != key || by.is_none()));
        }
        self.keep(key, certifier, revoking);
        true
    }

    fn keep(&mut self, key: PeerId, certifier: Option<PeerId>, revoking: RevokingCommand) {
        let line = Line {
            key,
            certifier,
            by: revoking.by,
            under: revoking.under,
            not_after: revoking.not_after,
            envelope: bs58::encode(&revoking.envelope).into_string(),
        };
        // plain texts and numbers never fail
        let line = serde_json::to_string(&line).unwrap_or_default() + "\n";
        self.0.insert((key, certifier), Kept { revoking, line });
    }

    /// Returns whether this principal is revoked.
    #[must_use]
    pub fn covers(&self, principal: &Principal) -> bool {
        let altogether = |key: &PeerId| self.0.contains_key(&(*key, None));
        let as_certified = (principal.operator, principal.certifier);
        altogether(&principal.operator)
            || principal.certifier.as_ref().is_some_and(altogether)
            || self.0.contains_key(&as_certified)
    }

    /// Returns all revoking commands.
    pub fn iter(&self) -> impl Iterator<Item = &RevokingCommand> {
        self.0.values().map(|kept| &kept.revoking)
    }

    /// Returns the file's content: JSON lines.
    #[must_use]
    pub fn encode(&self) -> String {
        self.0.values().map(|kept| kept.line.as_str()).collect()
    }

    /// Decodes the file's content; an error is the number of the bad line.
    pub fn decode(text: &str) -> Result<Self, usize> {
        let mut all = Self::default();
        for (n, line) in (1_usize..).zip(text.lines()) {
            let line: Line = serde_json::from_str(line).map_err(|_| n)?;
            let revoking = RevokingCommand {
                by: line.by,
                under: line.under,
                not_after: line.not_after,
                envelope: bs58::decode(&line.envelope).into_vec().map_err(|_| n)?,
            };
            all.keep(line.key, line.certifier, revoking);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;

    use super::*;

    fn key(n: u16) -> PeerId {
        let mut seed = [3; 32];
        seed[..2].copy_from_slice(&n.to_be_bytes());
        SecretKey::from_seed(&seed).peer_id()
    }

    fn revocation(n: u16, certifier: Option<u16>) -> Revocation {
        Revocation {
            key: key(n),
            certifier: certifier.map(key),
            revoking: RevokingCommand {
                by: key(99),
                under: key(certifier.unwrap_or(99)),
                not_after: 7,
                envelope: vec![1, 2, 3],
            },
        }
    }

    fn principal(operator: u16, certifier: Option<u16>) -> Principal {
        Principal {
            operator: key(operator),
            certifier: certifier.map(key),
        }
    }

    #[test]
    fn revocation_holds_as_far_as_who_says_it_may_say() {
        let mut all = Revocations::default();
        assert!(all.add(revocation(1, Some(5)), false));
        assert!(all.covers(&principal(1, Some(5))));
        assert!(!all.covers(&principal(1, Some(6))) && !all.covers(&principal(1, None)));
        assert!(all.add(revocation(6, None), false));
        assert!(all.covers(&principal(6, None)));
        assert!(all.covers(&principal(1, Some(6))), "with its certifier");
        assert_eq!(Revocations::decode(&all.encode()), Ok(all.clone()));
        let mut again = revocation(6, None);
        again.revoking.not_after = 8;
        assert!(all.add(again, false));
        assert_eq!(all.iter().count(), 2, "the same again is no other");
        let mut less = revocation(6, Some(5));
        less.revoking.not_after = 9;
        assert!(all.add(less, false) && all.iter().count() == 2);
        let revoking: Vec<u64> = all.iter().map(|revoking| revoking.not_after).collect();
        assert!(
            revoking.contains(&8) && !revoking.contains(&9),
            "who says less does not take its place"
        );
        let broken = all.encode() + "{\n";
        assert_eq!(Revocations::decode(&broken), Err(3));
    }

    #[test]
    fn holding_and_covering_are_the_same() {
        let names =
            || (1..4).flat_map(|o| [None, Some(1), Some(2), Some(3)].map(|c| principal(o, c)));
        for revoked in names() {
            let revocation = Revocation {
                key: revoked.operator,
                certifier: revoked.certifier,
                ..revocation(1, None)
            };
            let mut all = Revocations::default();
            assert!(all.add(revocation.clone(), true));
            for name in names() {
                assert_eq!(all.covers(&name), revocation.covers(&name), "{name:?}");
            }
        }
    }

    #[test]
    fn who_has_as_many_keys_revoked_as_he_may_takes_the_room_of_nobody_else() {
        let mut all = Revocations::default();
        let thief = 5;
        for n in 0..MAX_OF_ONE as u16 {
            assert!(all.add(revocation(1_000 + n, Some(thief)), false));
        }
        assert!(!all.add(revocation(1, Some(thief)), false));
        assert!(
            all.add(revocation(1_000, Some(thief)), false),
            "there already"
        );
        // after a restart as well
        let mut all = Revocations::decode(&all.encode()).unwrap();
        assert!(!all.add(revocation(1, Some(thief)), false));
        assert!(all.add(revocation(1, Some(6)), false), "of another");
        let of_thief = |all: &Revocations| all.iter().filter(|t| t.under == key(thief)).count();
        assert_eq!(of_thief(&all), MAX_OF_ONE);
        // revoked by the key itself
        let mut own = revocation(thief, None);
        own.revoking.under = key(thief);
        assert!(all.add(own, true), "a listed key");
        assert!(all.covers(&principal(1_000, Some(thief))));
        assert_eq!(of_thief(&all), 1, "the rest goes without saying");
    }
}
