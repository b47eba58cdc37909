//! The programs of a simulated host and its kernel: MLDv2 reports, answers to queries, and a program that watches
//! MLD (RFC 9777).

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use crate::mld::{Query, Record, RecordType};

/// A source filter as a kernel keeps it (RFC 9777 §4.2).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Joined {
    /// EXCLUDE mode: every source but those listed.
    pub exclude: bool,
    /// Those listed.
    pub sources: BTreeSet<Ipv6Addr>,
}

impl Joined {
    /// INCLUDE or EXCLUDE of these sources.
    #[must_use]
    pub fn new(exclude: bool, sources: BTreeSet<Ipv6Addr>) -> Self {
        Self { exclude, sources }
    }

    /// Every source.
    #[must_use]
    pub fn everything() -> Self {
        Self::new(true, BTreeSet::new())
    }

    /// Whether packets of this source are wanted.
    #[must_use]
    pub fn allows(&self, source: Ipv6Addr) -> bool {
        self.exclude != self.sources.contains(&source)
    }

    /// Whether it is no membership at all.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        !self.exclude && self.sources.is_empty()
    }

    fn list(&self) -> Vec<Ipv6Addr> {
        self.sources.iter().copied().collect()
    }
}

/// One membership and since when it is as it is.
#[derive(Debug, Clone)]
pub struct Membership<T> {
    /// The source filter.
    pub joined: Joined,
    /// When it became what it is.
    pub since: T,
}

/// What a kernel and its programs know. It outlives the daemon.
#[derive(Debug)]
pub struct Kernel<T> {
    memberships: BTreeMap<Ipv6Addr, Membership<T>>,
    /// What a program that watches MLD on `lc0` believes of the rest of the network.
    watched: BTreeMap<Ipv6Addr, Joined>,
}

impl<T> Default for Kernel<T> {
    fn default() -> Self {
        Self {
            memberships: BTreeMap::new(),
            watched: BTreeMap::new(),
        }
    }
}

impl<T> Kernel<T> {
    /// The membership in a group.
    #[must_use]
    pub fn membership(&self, group: Ipv6Addr) -> Option<&Membership<T>> {
        self.memberships.get(&group)
    }

    /// Whether a packet is for a program here.
    #[must_use]
    pub fn has_joined(&self, group: Ipv6Addr, source: Ipv6Addr) -> bool {
        let membership = self.memberships.get(&group);
        membership.is_some_and(|m| m.joined.allows(source))
    }

    /// Groups that programs here have joined.
    pub fn groups(&self) -> impl Iterator<Item = Ipv6Addr> {
        self.memberships.keys().copied()
    }

    /// Programs want something else: the records that tell the change (RFC 9777 §6.1).
    pub fn join(&mut self, group: Ipv6Addr, to: Joined, now: T) -> Vec<Record> {
        let from = self.memberships.get(&group).map(|m| m.joined.clone());
        let from = from.unwrap_or_default();
        let records = changes(group, &from, &to);
        if to.is_nothing() {
            self.memberships.remove(&group);
        } else if from != to {
            let membership = Membership {
                joined: to,
                since: now,
            };
            self.memberships.insert(group, membership);
        }
        records
    }

    /// The robustness repeat of the last change.
    #[must_use]
    pub fn repeat(&self, group: Ipv6Addr) -> Vec<Record> {
        let nothing = Joined::default();
        match self.memberships.get(&group) {
            Some(membership) => changes(group, &nothing, &membership.joined),
            None => changes(group, &Joined::everything(), &nothing),
        }
    }

    /// The answer to a query: current state.
    #[must_use]
    pub fn answer(&self, query: &Query) -> Vec<Record> {
        let record = |(group, m): (&Ipv6Addr, &Membership<T>)| {
            let kind = if m.joined.exclude {
                RecordType::ModeIsExclude
            } else {
                RecordType::ModeIsInclude
            };
            Record::new(kind, *group, m.joined.list())
        };
        match query.group {
            None => self.memberships.iter().map(record).collect(),
            Some(group) => {
                let membership = self.memberships.get(&group);
                membership
                    .map(|m| record((&group, m)))
                    .into_iter()
                    .collect()
            }
        }
    }

    /// A report came out of `lc0`: the watching program follows it.
    pub fn watch(&mut self, records: &[Record]) {
        for record in records {
            let state = self.watched.entry(record.group).or_default();
            follow(state, record);
            if state.is_nothing() {
                self.watched.remove(&record.group);
            }
        }
    }

    /// The daemon has gone, and what it reported with it.
    pub fn forget_reports(&mut self) {
        self.watched.clear();
    }

    /// Whether the watching program believes that somebody in the network wants `group` from `source`.
    #[must_use]
    pub fn sees_listener(&self, group: Ipv6Addr, source: Ipv6Addr) -> bool {
        let seen = self.watched.get(&group);
        seen.is_some_and(|joined| joined.allows(source))
    }

    /// Groups of which the watching program believes that somebody wants them.
    pub fn watched(&self) -> impl Iterator<Item = Ipv6Addr> {
        self.watched.keys().copied()
    }
}

fn changes(group: Ipv6Addr, from: &Joined, to: &Joined) -> Vec<Record> {
    let list = |s: &BTreeSet<Ipv6Addr>| s.iter().copied().collect::<Vec<_>>();
    if from.exclude != to.exclude {
        let kind = if to.exclude {
            RecordType::ChangeToExclude
        } else {
            RecordType::ChangeToInclude
        };
        return vec![Record::new(kind, group, to.list())];
    }
    let gone = list(&(&from.sources - &to.sources));
    let came = list(&(&to.sources - &from.sources));
    let (allow, block) = if to.exclude {
        (gone, came)
    } else {
        (came, gone)
    };
    [
        (RecordType::AllowNewSources, allow),
        (RecordType::BlockOldSources, block),
    ]
    .into_iter()
    .filter(|(_, sources)| !sources.is_empty())
    .map(|(kind, sources)| Record::new(kind, group, sources))
    .collect()
}

/// What a router on the link makes of a record (RFC 9777 §7.4).
fn follow(state: &mut Joined, record: &Record) {
    let listed: BTreeSet<_> = record.sources.iter().copied().collect();
    match record.kind {
        RecordType::ModeIsInclude | RecordType::ChangeToInclude => {
            *state = Joined::new(false, listed);
        }
        RecordType::ModeIsExclude | RecordType::ChangeToExclude => {
            *state = Joined::new(true, listed);
        }
        kind => {
            let allow = kind == RecordType::AllowNewSources;
            state.sources = if allow != state.exclude {
                &state.sources | &listed
            } else {
                &state.sources - &listed
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: Ipv6Addr = Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, 1);

    fn filter(exclude: bool, sources: &[u16]) -> Joined {
        let source = |n: &u16| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, *n);
        Joined::new(exclude, sources.iter().map(source).collect())
    }

    #[test]
    fn a_watcher_follows_every_change() {
        let filters = [
            filter(true, &[]),
            filter(false, &[1]),
            filter(false, &[1, 2]),
            filter(false, &[2, 3]),
            filter(true, &[1, 2]),
            filter(true, &[2, 3]),
            filter(false, &[]),
        ];
        let (mut kernel, mut watcher) = (Kernel::default(), Kernel::<usize>::default());
        for (at, to) in filters.iter().chain(filters.iter().rev()).enumerate() {
            let records = kernel.join(GROUP, to.clone(), at);
            watcher.watch(&records);
            for n in 0..5u16 {
                let source = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n);
                assert_eq!(kernel.has_joined(GROUP, source), to.allows(source));
                assert_eq!(
                    watcher.sees_listener(GROUP, source),
                    to.allows(source) && !to.is_nothing()
                );
            }
        }
        watcher.watch(&kernel.join(GROUP, Joined::default(), 99));
        assert_eq!(watcher.watched().count(), 0);
        assert_eq!(kernel.groups().count(), 0);
    }
}
