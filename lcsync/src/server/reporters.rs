//! Members of a channel, as known from reports.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

/// Most known reporters of a channel; beyond, a PART causes a query.
pub(super) const MAX_REPORTERS: usize = 64;

/// Meaning of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// A change: the reporter has joined.
    Joined,
    /// A current state: the reporter is a member; an answer to a query.
    Confirmed,
    /// A report of MLDv1: either of both, and it suppresses reports of other members.
    Version1,
}

/// Members by link-local address.
#[derive(Debug, Default)]
pub struct Reporters {
    known: BTreeSet<Ipv6Addr>,
    more: bool,
    version_1: bool,
}

impl Reporters {
    /// Adds `reporter`; returns whether it is new.
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
        debug_assert!(self.known.len() <= MAX_REPORTERS, "reporters have a bound");
        true
    }

    /// Whether hosts of MLDv1 are members: they do not report every JOIN and PART.
    pub fn version_1(&self) -> bool {
        self.version_1
    }

    /// Number of known members.
    pub fn count(&self) -> usize {
        self.known.len()
    }

    /// Known members.
    pub fn known(&self) -> impl Iterator<Item = Ipv6Addr> + '_ {
        self.known.iter().copied()
    }

    /// Whether unknown members are possible.
    pub fn may_be_more(&self) -> bool {
        self.more || self.version_1
    }

    /// Whether the members are certainly fewer than `receivers`.
    pub fn are_fewer_than(&self, receivers: usize) -> bool {
        !self.may_be_more() && self.known.len() < receivers
    }

    /// Removes a member; returns whether none is left, `None` if that is unknown.
    pub fn remove(&mut self, reporter: Ipv6Addr) -> Option<bool> {
        self.known.remove(&reporter);
        match (self.known.is_empty(), self.may_be_more()) {
            (false, _) => Some(false),
            (true, false) => Some(true),
            (true, true) => None,
        }
    }
}
