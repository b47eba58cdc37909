//! Keys of operators that are not obeyed any more: by their own word, by that of who certified them, or by a key that
//! the policy lets revoke. Kept on disk, with the command that said so: agents that were away are told it.

use librecast::id::PeerId;
use serde::{Deserialize, Serialize};

use crate::certificate::Certificate;

/// Most revocations that are kept.
pub const MAX_REVOKED: usize = 1_024;

/// One revocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// Whose key.
    pub key: PeerId,
    /// Only as far as this one has certified it; none: altogether.
    pub certifier: Option<PeerId>,
    /// Who has said so, and until when that is told on, in Unix seconds.
    pub told: Told,
}

/// The command that revoked a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Who signed it.
    pub by: PeerId,
    /// Unix seconds.
    pub not_after: u64,
    /// The datagram.
    pub envelope: Vec<u8>,
}

/// All revocations that an agent has heard of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revocations(Vec<Revocation>);

/// A line of the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    key: PeerId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certifier: Option<PeerId>,
    by: PeerId,
    not_after: u64,
    envelope: String,
}

impl Revocations {
    /// Keeps one, the last word where it was said before; false if there are [`MAX_REVOKED`] others.
    pub fn add(&mut self, revocation: Revocation) -> bool {
        let mut of_key = self.0.iter_mut().filter(|r| r.key == revocation.key);
        if let Some(there) = of_key.find(|r| r.certifier == revocation.certifier) {
            // said again, perhaps to more nodes and for longer
            there.told = revocation.told;
            return true;
        }
        if self.hold_altogether(&revocation.key) {
            return true;
        }
        if self.0.len() >= MAX_REVOKED {
            return false;
        }
        self.0.push(revocation);
        true
    }

    /// Whether an operator who comes with this certificate is revoked, or his certifier is.
    #[must_use]
    pub fn hold(&self, operator: &PeerId, certificate: Option<&Certificate>) -> bool {
        let certifier = certificate.map(|c| c.certifier);
        self.0.iter().any(|r| match r.certifier {
            None => r.key == *operator || Some(r.key) == certifier,
            by => r.key == *operator && by == certifier,
        })
    }

    fn hold_altogether(&self, key: &PeerId) -> bool {
        let mut all = self.0.iter();
        all.any(|r| r.key == *key && r.certifier.is_none())
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Revocation> {
        self.0.iter()
    }

    /// As they are kept on disk: JSON lines.
    #[must_use]
    pub fn encode(&self) -> String {
        let line = |r: &Revocation| {
            let line = Line {
                key: r.key,
                certifier: r.certifier,
                by: r.told.by,
                not_after: r.told.not_after,
                envelope: bs58::encode(&r.told.envelope).into_string(),
            };
            // plain texts and numbers: that always works
            serde_json::to_string(&line).unwrap_or_default() + "\n"
        };
        self.0.iter().map(line).collect()
    }

    /// Reads them; the number of the line that is none, if there is one.
    pub fn decode(text: &str) -> Result<Self, usize> {
        let mut all = Self::default();
        for (n, line) in (1..).zip(text.lines()) {
            let line: Line = serde_json::from_str(line).map_err(|_| n)?;
            let kept = all.add(Revocation {
                key: line.key,
                certifier: line.certifier,
                told: Told {
                    by: line.by,
                    not_after: line.not_after,
                    envelope: bs58::decode(&line.envelope).into_vec().map_err(|_| n)?,
                },
            });
            if !kept {
                return Err(n);
            }
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
            told: Told {
                by: key(99),
                not_after: 7,
                envelope: vec![1, 2, 3],
            },
        }
    }

    #[test]
    fn revocation_holds_as_far_as_who_says_it_may_say() {
        let by = |n: u16| {
            let mut seed = [3; 32];
            seed[..2].copy_from_slice(&n.to_be_bytes());
            let secret = SecretKey::from_seed(&seed);
            Certificate::sign(&secret, &key(1), 0, 1, &[]).unwrap()
        };
        let mut all = Revocations::default();
        assert!(all.add(revocation(1, Some(5))));
        assert!(all.hold(&key(1), Some(&by(5))));
        assert!(!all.hold(&key(1), Some(&by(6))) && !all.hold(&key(1), None));
        assert!(all.add(revocation(6, None)));
        assert!(all.hold(&key(6), None));
        assert!(all.hold(&key(1), Some(&by(6))), "with its certifier");
        assert_eq!(Revocations::decode(&all.encode()), Ok(all.clone()));
        let mut again = revocation(6, None);
        again.told.not_after = 8;
        assert!(all.add(again));
        assert_eq!(all.iter().count(), 2, "the same again is no other");
        assert_eq!(all.iter().last().unwrap().told.not_after, 8);
        let mut less = revocation(6, Some(5));
        less.told.not_after = 9;
        assert!(all.add(less) && all.iter().count() == 2);
        let told = all.iter().last().unwrap().told.not_after;
        assert_eq!(told, 8, "who says less does not take its place");
        let broken = all.encode() + "{\n";
        assert_eq!(Revocations::decode(&broken), Err(3));
    }

    #[test]
    fn their_number_is_bounded() {
        let mut all = Revocations::default();
        for n in 0..MAX_REVOKED as u16 {
            assert!(all.add(revocation(n, None)));
        }
        assert!(!all.add(revocation(MAX_REVOKED as u16, None)));
        assert!(all.add(revocation(0, None)), "there already");
    }
}
