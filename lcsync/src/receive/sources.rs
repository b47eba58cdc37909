//! Trust in the sources of symbols.

use std::collections::{BTreeMap, BTreeSet};

use librecast::time::{Duration, Instant};

use super::collector::Source;

/// Time for which a corrupt source is refused: not for ever, as its address may be forged.
pub(super) const BAN: Duration = Duration::from_secs(10);
/// Most corrupt sources stored; the one whose refusal ends first makes room.
const MAX_BANNED: usize = 64;
/// Most sources known to have sent a whole block.
const MAX_TRUSTED: usize = 16;

/// Sources that sent whole blocks, and corrupt ones.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// Corrupt sources, with the end of their refusal.
    banned: BTreeMap<Source, Instant>,
    trusted: BTreeSet<Source>,
    /// After a forgery: symbols of different sources are no longer mixed.
    apart: bool,
}

impl Sources {
    /// Whether the symbols of this source are dropped.
    pub(super) fn is_refused(&self, source: &Source, now: Instant) -> bool {
        self.banned.get(source).is_some_and(|until| now < *until)
    }

    /// Whether this source has sent a whole block.
    pub(super) fn is_trusted(&self, source: &Source) -> bool {
        self.trusted.contains(source)
    }

    /// Whether each source has a decoder of its own.
    pub(super) fn are_apart(&self) -> bool {
        self.apart
    }

    /// Gives each source a decoder of its own from now on.
    pub(super) fn keep_apart(&mut self) {
        self.apart = true;
    }

    /// Notes that this source has sent a whole block.
    pub(super) fn trust(&mut self, source: Source) {
        if self.trusted.len() < MAX_TRUSTED {
            self.trusted.insert(source);
        }
    }

    /// Refuses a corrupt source for a while.
    pub(super) fn refuse(&mut self, source: Source, now: Instant) {
        self.trusted.remove(&source);
        if self.banned.len() >= MAX_BANNED {
            let first = self.banned.iter().min_by_key(|(_, until)| **until);
            let first = first.map(|(source, _)| *source);
            first.and_then(|source| self.banned.remove(&source));
        }
        self.banned.insert(source, now + BAN);
    }

    /// Whether gaps of a source measure the link: after a forgery only those of trusted sources.
    pub(super) fn measures_link(&self, trusted: bool) -> bool {
        trusted || !self.apart || self.trusted.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn source(server: u32) -> Source {
        Source {
            address: Ipv6Addr::LOCALHOST,
            interface: 1,
            server,
        }
    }

    #[test]
    fn a_thousand_invented_sources_leave_a_bounded_table_of_the_last_ones() {
        let (mut sources, start) = (Sources::default(), Instant::now());
        let mut now = start;
        for n in 0..1_000 {
            now += Duration::from_millis(1);
            sources.refuse(source(n), now);
            assert!(sources.banned.len() <= MAX_BANNED);
        }
        let refused = |n: &u32| sources.is_refused(&source(*n), now);
        let last = 1_000 - MAX_BANNED as u32..1_000;
        assert_eq!(
            (0..1_000).filter(refused).collect::<Vec<_>>(),
            last.collect::<Vec<_>>()
        );
        assert!(!sources.is_refused(&source(999), now + BAN));
    }

    #[test]
    fn a_corrupt_source_loses_its_trust() {
        let (mut sources, now) = (Sources::default(), Instant::now());
        sources.trust(source(1));
        assert!(sources.is_trusted(&source(1)));
        sources.refuse(source(1), now);
        assert!(!sources.is_trusted(&source(1)));
    }
}
