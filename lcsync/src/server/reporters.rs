//! Who is a member of a channel, as far as reports tell.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

/// Reporters told apart per channel; beyond, a PART is answered by a question.
pub(super) const MAX_REPORTERS: usize = 64;

/// What a report says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// A change: somebody has joined.
    Joined,
    /// A current state: somebody is a member; the answer to a query.
    Confirmed,
    /// A report of version 1: either of both, and others who heard it say nothing.
    Version1,
}

/// Who has joined, by link-local address.
#[derive(Debug, Default)]
pub struct Reporters {
    known: BTreeSet<Ipv6Addr>,
    more: bool,
    version_1: bool,
}

impl Reporters {
    /// Whether `reporter` is new.
    pub fn add(&mut self, reporter: Ipv6Addr, evidence: Evidence) -> bool {
        self.version_1 |= evidence == Evidence::Version1;
        if self.known.contains(&reporter) {
            return false;
        }
        if self.known.len() == MAX_REPORTERS {
            self.more = true;
        } else {
            self.known.insert(reporter);
        }
        true
    }

    /// Whether there are hosts of version 1, who tell neither of each join nor of each leave.
    #[must_use]
    pub fn version_1(&self) -> bool {
        self.version_1
    }

    /// How many are known.
    #[must_use]
    pub fn count(&self) -> usize {
        self.known.len()
    }

    /// Those that are known.
    pub fn known(&self) -> impl Iterator<Item = Ipv6Addr> + '_ {
        self.known.iter().copied()
    }

    /// Whether there may be others.
    #[must_use]
    pub fn may_be_more(&self) -> bool {
        self.more || self.version_1
    }

    /// Whether these are not so many, as far as can be told.
    #[must_use]
    pub fn are_fewer_than(&self, receivers: usize) -> bool {
        !self.may_be_more() && self.known.len() < receivers
    }

    /// Takes one out; whether nobody is left, `None` if that is not known.
    pub fn remove(&mut self, reporter: Ipv6Addr) -> Option<bool> {
        self.known.remove(&reporter);
        match (self.known.is_empty(), self.may_be_more()) {
            (false, _) => Some(false),
            (true, false) => Some(true),
            (true, true) => None,
        }
    }
}
