//! Private prefixes: those of the configuration, with the secrets that programs give.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use lcroute_engine::{PrivatePrefix, Secret};
use librecast::cert::GroupPrefix;
use thiserror::Error;

/// All that the configuration makes private.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrivateKeys {
    /// Prefixes.
    pub prefixes: Vec<PrivatePrefix>,
    /// Segments.
    pub segments: Vec<SegmentKeys>,
}

/// A sealed segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentKeys {
    /// Its name.
    pub name: String,
    /// The first seals, all open. Empty: no packet of the segment leaves or enters this host.
    pub secrets: Vec<Secret>,
}

impl PrivateKeys {
    /// All prefixes at the node with this address, those of segments among them.
    #[must_use]
    pub fn prefixes(self, node: Ipv6Addr) -> Vec<PrivatePrefix> {
        let of_segment = |s: SegmentKeys| PrivatePrefix::of_segment(node, &s.name, s.secrets);
        let segments = self.segments.into_iter().map(of_segment);
        self.prefixes.into_iter().chain(segments).collect()
    }
}

/// The reason for which secrets of a program are not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum GiveError {
    /// Only the configuration makes a prefix private, so that it stays closed without secrets.
    #[error(
        "{0} is not private here: `[[private]]` with this prefix and without a keyfile in lcroute.toml, then `lcroute reload`"
    )]
    NotPrivate(GroupPrefix),
    /// The configuration has a key for it.
    #[error("{0} has a keyfile in lcroute.toml, which counts")]
    HasKeyfile(GroupPrefix),
}

/// Private prefixes, and their secrets.
#[derive(Debug, Default)]
pub struct PrivatePrefixes {
    configured: Vec<PrivatePrefix>,
    given: BTreeMap<GroupPrefix, Vec<Secret>>,
}

impl PrivatePrefixes {
    /// Returns the prefixes of the configuration.
    #[must_use]
    pub fn new(configured: Vec<PrivatePrefix>) -> Self {
        Self {
            configured,
            given: BTreeMap::new(),
        }
    }

    /// Replaces the configured prefixes. Secrets from programs stay if their prefix does.
    pub fn configure(&mut self, configured: Vec<PrivatePrefix>) {
        self.configured = configured;
        let configured = &self.configured;
        self.given
            .retain(|prefix, _| configured.iter().any(|c| c.prefix == *prefix));
    }

    /// Replaces a prefix's secrets from programs (none: removes); returns whether they changed.
    pub fn give(&mut self, prefix: GroupPrefix, secrets: Vec<Secret>) -> Result<bool, GiveError> {
        if secrets.is_empty() {
            return Ok(self.given.remove(&prefix).is_some());
        }
        let configured = self.configured.iter().find(|c| c.prefix == prefix);
        match configured {
            None => Err(GiveError::NotPrivate(prefix)),
            Some(c) if !c.secrets.is_empty() => Err(GiveError::HasKeyfile(prefix)),
            Some(_) if self.given.get(&prefix) == Some(&secrets) => Ok(false),
            Some(_) => {
                self.given.insert(prefix, secrets);
                Ok(true)
            }
        }
    }

    /// Returns all private prefixes.
    pub fn all(&self) -> Vec<PrivatePrefix> {
        let with_given = |configured: &PrivatePrefix| {
            let mut prefix = configured.clone();
            if prefix.secrets.is_empty() {
                let given = self.given.get(&prefix.prefix);
                prefix.secrets = given.cloned().unwrap_or_default();
            }
            prefix
        };
        self.configured.iter().map(with_given).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(n: u16) -> GroupPrefix {
        format!("ff1e:{n:x}::/32").parse().unwrap()
    }

    fn private(n: u16, secrets: &[u8]) -> PrivatePrefix {
        PrivatePrefix {
            prefix: prefix(n),
            secrets: secrets.iter().map(|s| Secret::new([*s; 32])).collect(),
            lans: false,
        }
    }

    #[test]
    fn programs_give_secrets_to_prefixes_that_the_configuration_closes() {
        let mut all = PrivatePrefixes::new(vec![private(1, &[]), private(2, &[7])]);
        let secrets = || vec![Secret::new([9; 32]), Secret::new([8; 32])];
        assert_eq!(
            all.give(prefix(3), secrets()),
            Err(GiveError::NotPrivate(prefix(3)))
        );
        assert_eq!(
            all.give(prefix(2), secrets()),
            Err(GiveError::HasKeyfile(prefix(2)))
        );
        all.give(prefix(1), secrets()).unwrap();
        assert_eq!(all.all(), [private(1, &[9, 8]), private(2, &[7])]);
        all.give(prefix(1), vec![Secret::new([5; 32])]).unwrap();
        all.configure(vec![private(1, &[])]);
        assert_eq!(
            all.all(),
            [private(1, &[5])],
            "a reload keeps what was given"
        );
        all.configure(vec![private(1, &[4])]);
        assert_eq!(all.all(), [private(1, &[4])], "a keyfile counts");
        all.configure(vec![private(1, &[])]);
        all.give(prefix(1), Vec::new()).unwrap();
        assert_eq!(all.all(), [private(1, &[])], "closed again");
    }

    #[test]
    fn a_prefix_that_the_configuration_drops_does_not_keep_its_secrets() {
        let mut all = PrivatePrefixes::new(vec![private(1, &[])]);
        all.give(prefix(1), vec![Secret::new([5; 32])]).unwrap();
        all.configure(Vec::new());
        all.configure(vec![private(1, &[])]);
        assert_eq!(all.all(), [private(1, &[])]);
    }
}
