//! Groups that this node announces: those of the configuration, and those that programs hold.

use std::collections::{BTreeMap, BTreeSet};

use librecast::cert::GroupPrefix;
use thiserror::Error;

/// Maximum number of announced prefixes, those of programs included: the bound of an advertisement.
pub const MAX_ANNOUNCED: usize = 64;

/// The reason for which a prefix is not announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AnnounceError {
    /// The certificate has no prefix that covers it.
    #[error("this node's certificate does not permit {0}")]
    NotPermitted(GroupPrefix),
    /// `MAX_ANNOUNCED` prefixes are announced already.
    #[error("{MAX_ANNOUNCED} prefixes are announced already")]
    Full,
}

/// Announced prefixes, with the number of programs that hold each.
#[derive(Debug, Default)]
pub struct Announcements {
    configured: BTreeSet<GroupPrefix>,
    by_programs: BTreeMap<GroupPrefix, u32>,
}

impl Announcements {
    /// Returns the announcements of the configuration.
    #[must_use]
    pub fn new(configured: &[GroupPrefix]) -> Self {
        let mut new = Self::default();
        new.configure(configured);
        new
    }

    /// Replaces the prefixes of the configuration.
    pub fn configure(&mut self, configured: &[GroupPrefix]) {
        self.configured = configured.iter().copied().collect();
    }

    /// Announces `prefix` for a program, if there is room and one of `permitted` covers it.
    pub fn announce(
        &mut self,
        prefix: GroupPrefix,
        permitted: &[GroupPrefix],
    ) -> Result<(), AnnounceError> {
        if !permitted.iter().any(|p| p.covers(&prefix)) {
            return Err(AnnounceError::NotPermitted(prefix));
        }
        let known = self.by_programs.contains_key(&prefix) || self.configured.contains(&prefix);
        if !known && self.all().len() >= MAX_ANNOUNCED {
            return Err(AnnounceError::Full);
        }
        *self.by_programs.entry(prefix).or_default() += 1;
        Ok(())
    }

    /// Releases `prefix` for a program that announced it.
    pub fn release(&mut self, prefix: GroupPrefix) {
        if let Some(programs) = self.by_programs.get_mut(&prefix) {
            *programs -= 1;
            if *programs == 0 {
                self.by_programs.remove(&prefix);
            }
        }
    }

    /// Returns all announced prefixes, each once.
    pub fn all(&self) -> Vec<GroupPrefix> {
        let all: BTreeSet<_> = self
            .configured
            .iter()
            .chain(self.by_programs.keys())
            .collect();
        all.into_iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(n: u16) -> GroupPrefix {
        format!("ff1e:{n:x}::/32").parse().unwrap()
    }

    #[test]
    fn an_announcement_lasts_as_long_as_one_program_holds_it() {
        let mut a = Announcements::new(&[prefix(1)]);
        let all = [GroupPrefix::ALL];
        for _ in 0..2 {
            a.announce(prefix(2), &all).unwrap();
            a.announce(prefix(1), &all).unwrap();
        }
        assert_eq!(a.all(), [prefix(1), prefix(2)]);
        a.release(prefix(2));
        assert_eq!(a.all(), [prefix(1), prefix(2)]);
        a.release(prefix(2));
        a.release(prefix(2));
        for _ in 0..2 {
            a.release(prefix(1));
        }
        assert_eq!(a.all(), [prefix(1)], "the configuration holds this one");
        a.configure(&[]);
        assert!(a.all().is_empty());
    }

    #[test]
    fn what_the_certificate_forbids_and_what_is_too_much_is_refused() {
        let mut a = Announcements::default();
        let permitted = ["ff1e:2::/32".parse().unwrap()];
        let refused = a.announce(prefix(1), &permitted).unwrap_err();
        assert!(
            refused
                .to_string()
                .contains("certificate does not permit ff1e:1::/32"),
            "{refused}"
        );
        assert!(
            a.announce("ff1e::/16".parse().unwrap(), &permitted)
                .is_err(),
            "wider"
        );
        a.announce("ff1e:2:3::/48".parse().unwrap(), &permitted)
            .unwrap();
        let all = [GroupPrefix::ALL];
        for n in 1..MAX_ANNOUNCED as u16 {
            a.announce(prefix(n), &all).unwrap();
        }
        assert!(a.announce(prefix(1_000), &all).is_err());
        a.announce(prefix(1), &all).unwrap();
        assert_eq!(a.all().len(), MAX_ANNOUNCED);
    }
}
