//! The revocations that a node knows, stored in its state directory: one a line, as `lcx1...`.
//!
//! They must survive a restart: an expelled node could return through a node that has forgotten it.

use std::collections::BTreeMap;

use librecast::cert::Member;
use librecast::id::{NetworkId, PeerId};
use librecast::revocation::{MAX_REVOCATION, Revocation};
use librecast::text::{self, TextKind};
use librecast::time::UnixTime;

/// Maximum number of stored revocations. Expired ones are dropped first, and only then, as the
/// clock may be wrong; next those of issuers, then the ones that end first.
pub const MAX_REVOCATIONS: usize = 4_096;

/// The known revocations: one for each key.
#[derive(Debug, Clone, Default)]
pub struct Revocations(BTreeMap<PeerId, Revocation>);

impl Revocations {
    /// Parses the file's text; skips and counts lines that are damaged or of another network.
    pub fn parse(text: &str, network: &NetworkId, now: UnixTime) -> (Self, usize) {
        let (mut all, mut damaged) = (Self::default(), 0);
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            match parse(line, network) {
                Ok(revocation) => {
                    all.insert(revocation, now);
                }
                Err(_) => damaged += 1,
            }
        }
        (all, damaged)
    }

    /// Returns the file's text.
    pub fn text(&self) -> String {
        let line = |r: &Revocation| text(r) + "\n";
        self.iter().map(line).collect()
    }

    /// Adds a verified revocation; returns false if it changes nothing.
    pub fn add(&mut self, revocation: Revocation, now: UnixTime) -> bool {
        !is_over(&revocation, now) && self.insert(revocation, now)
    }

    fn insert(&mut self, revocation: Revocation, now: UnixTime) -> bool {
        match self.0.get(&revocation.key()) {
            Some(known) if strength(known) >= strength(&revocation) => return false,
            _ => self.0.insert(revocation.key(), revocation),
        };
        if self.0.len() > MAX_REVOCATIONS {
            self.0.retain(|_, r| !is_over(r, now));
        }
        if self.0.len() > MAX_REVOCATIONS {
            let first = self.iter().min_by_key(|r| (strength(r), r.key()));
            if let Some(key) = first.map(Revocation::key) {
                self.0.remove(&key);
            }
        }
        true
    }

    /// Returns whether `member` is expelled.
    #[must_use]
    pub fn expel(&self, member: &Member) -> bool {
        let mut keys = std::iter::once(&member.peer).chain(member.keys.iter());
        keys.any(|key| self.0.get(key).is_some_and(|r| r.expels(member)))
    }

    /// Returns all revocations, by key.
    pub fn iter(&self) -> impl Iterator<Item = &Revocation> {
        self.0.values()
    }
}

/// Returns whether no chain can depend on its key any more, even if clocks differ by a day.
pub(crate) fn is_over(revocation: &Revocation, now: UnixTime) -> bool {
    now > UnixTime::from_secs(revocation.until())
}

/// Returns the rank among revocations of one key: first by the network's key, then by their end.
fn strength(revocation: &Revocation) -> (bool, u64) {
    (revocation.is_by_network(), revocation.until())
}

/// Encodes a revocation as text.
pub fn text(revocation: &Revocation) -> String {
    text::encode(TextKind::Revocation, revocation.as_bytes()).to_string()
}

/// Parses text of [`text()`], and verifies it for `network`.
pub fn parse(text: &str, network: &NetworkId) -> Result<Revocation, String> {
    let bytes = text::decode(TextKind::Revocation, text, MAX_REVOCATION);
    let bytes = bytes.map_err(|e| e.to_string())?;
    let revocation = Revocation::decode(&bytes).map_err(|e| e.to_string())?;
    revocation.verify(network).map_err(|e| e.to_string())?;
    Ok(revocation)
}

#[cfg(test)]
mod tests {
    use librecast::cert::{Certificate, Grant, Kind};
    use librecast::id::SecretKey;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn network() -> SecretKey {
        SecretKey::from_seed(&[1; 32])
    }

    fn revocation(seed: u16, until: u64) -> Revocation {
        let mut bytes = [7; 32];
        bytes[..2].copy_from_slice(&seed.to_be_bytes());
        let key = SecretKey::from_seed(&bytes).peer_id();
        Revocation::by_network(&network(), key, UnixTime::from_secs(NOW), until).unwrap()
    }

    #[test]
    fn the_file_is_read_as_it_was_written_and_damage_costs_one_line() {
        let mut all = Revocations::default();
        for seed in 0..3 {
            assert!(all.add(revocation(seed, NOW + 5), UnixTime::from_secs(NOW)));
        }
        let network = network().peer_id();
        let (read, damaged) = Revocations::parse(&all.text(), &network, UnixTime::from_secs(NOW));
        assert_eq!((read.text(), damaged), (all.text(), 0));
        let text = all.text().replacen('A', "B", 1) + "\n0OIl\n";
        let (read, damaged) = Revocations::parse(&text, &network, UnixTime::from_secs(NOW));
        assert_eq!((read.iter().count(), damaged), (2, 2));
        let other = SecretKey::from_seed(&[2; 32]).peer_id();
        let (read, damaged) = Revocations::parse(&all.text(), &other, UnixTime::from_secs(NOW));
        assert_eq!((read.iter().count(), damaged), (0, 3));
    }

    #[test]
    fn only_what_is_new_changes_anything() {
        let mut all = Revocations::default();
        assert!(all.add(revocation(1, NOW + 5), UnixTime::from_secs(NOW)));
        assert!(!all.add(revocation(1, NOW + 5), UnixTime::from_secs(NOW)));
        assert!(
            !all.add(revocation(1, NOW + 4), UnixTime::from_secs(NOW)),
            "ends earlier"
        );
        assert!(all.add(revocation(1, NOW + 6), UnixTime::from_secs(NOW)));
        assert_eq!(all.iter().count(), 1);
        assert!(
            !all.add(revocation(2, NOW), UnixTime::from_secs(NOW + 1)),
            "over"
        );
    }

    #[test]
    fn a_clock_that_is_ahead_costs_none_while_there_is_room() {
        let mut all = Revocations::default();
        all.add(revocation(1, NOW + 5), UnixTime::from_secs(NOW));
        let ahead = NOW + 1_000;
        let (mut read, _) = Revocations::parse(
            &all.text(),
            &network().peer_id(),
            UnixTime::from_secs(ahead),
        );
        assert!(read.add(revocation(2, ahead + 5), UnixTime::from_secs(ahead)));
        assert_eq!(read.iter().count(), 2);
        for seed in 3..=MAX_REVOCATIONS as u16 + 2 {
            read.add(revocation(seed, ahead + 5), UnixTime::from_secs(ahead));
        }
        assert_eq!(read.iter().count(), MAX_REVOCATIONS);
        assert!(
            read.iter().all(|r| !is_over(r, UnixTime::from_secs(ahead))),
            "what is over went first"
        );
    }

    #[test]
    fn an_issuer_pushes_out_none_of_the_networks_key() {
        let issuer_key = SecretKey::from_seed(&[2; 32]);
        let grant = Grant::new("", (NOW, NOW + 1_000_000));
        let (id, subject) = (network().peer_id(), issuer_key.peer_id());
        let issuer = Certificate::sign(Kind::Issuer, id, subject, grant, &network()).unwrap();
        let mut all = Revocations::default();
        let own =
            Revocation::by_network(&network(), subject, UnixTime::from_secs(NOW), NOW + 5).unwrap();
        all.add(own.clone(), UnixTime::from_secs(NOW));
        for seed in 0..=MAX_REVOCATIONS as u16 {
            let key = revocation(seed, NOW).key();
            let until = NOW + 1_000;
            let made =
                Revocation::by_issuer(&issuer, &issuer_key, key, UnixTime::from_secs(NOW), until)
                    .unwrap();
            all.add(made, UnixTime::from_secs(NOW));
        }
        assert_eq!(all.iter().count(), MAX_REVOCATIONS);
        assert!(all.iter().any(|r| *r == own), "the issuer's own expulsion");
    }

    #[test]
    fn of_too_many_those_that_end_first_are_forgotten() {
        let mut all = Revocations::default();
        let most = MAX_REVOCATIONS as u16;
        for seed in 0..most {
            all.add(
                revocation(seed, NOW + 100 + u64::from(seed)),
                UnixTime::from_secs(NOW),
            );
        }
        all.add(revocation(most, NOW + 10_000), UnixTime::from_secs(NOW));
        assert_eq!(all.iter().count(), MAX_REVOCATIONS);
        let has = |seed| all.iter().any(|r| r.key() == revocation(seed, NOW).key());
        assert!(!has(0) && has(1) && has(most));
    }
}
