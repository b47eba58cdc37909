//! The kernel and programs of a simulated host: MLDv2 reports, answers to queries, and a program
//! that monitors MLD (RFC 9777).

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use crate::mld::{Query, Record, RecordType};

/// A kernel's source filter (RFC 9777 §4.2).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Joined {
    /// EXCLUDE mode: every source but the listed ones.
    pub exclude: bool,
    /// The listed sources.
    pub sources: BTreeSet<Ipv6Addr>,
}

impl Joined {
    /// Makes an INCLUDE or EXCLUDE filter of `sources`.
    pub fn new(exclude: bool, sources: BTreeSet<Ipv6Addr>) -> Self {
        Self { exclude, sources }
    }

    /// Makes a filter for every source.
    pub fn everything() -> Self {
        Self::new(true, BTreeSet::new())
    }

    /// Returns whether packets of this source are wanted.
    pub fn allows(&self, source: Ipv6Addr) -> bool {
        self.exclude != self.sources.contains(&source)
    }

    /// Returns whether it is not a membership at all.
    pub fn is_nothing(&self) -> bool {
        !self.exclude && self.sources.is_empty()
    }

    fn list(&self) -> Vec<Ipv6Addr> {
        self.sources.iter().copied().collect()
    }
}

/// A membership, and its last change.
#[derive(Debug, Clone)]
pub struct Membership<T> {
    /// The source filter.
    pub joined: Joined,
    /// The last change.
    pub since: T,
}

/// The state of a kernel and its programs. It outlives the daemon.
#[derive(Debug)]
pub struct Kernel<T> {
    memberships: BTreeMap<Ipv6Addr, Membership<T>>,
    /// The network's listeners, for a program that monitors MLD on `lc0`.
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
    /// Returns the membership in a group.
    pub fn membership(&self, group: Ipv6Addr) -> Option<&Membership<T>> {
        self.memberships.get(&group)
    }

    /// Returns whether a packet is for a program here.
    pub fn has_joined(&self, group: Ipv6Addr, source: Ipv6Addr) -> bool {
        let membership = self.memberships.get(&group);
        membership.is_some_and(|m| m.joined.allows(source))
    }

    /// Returns the groups that programs here have joined.
    pub fn groups(&self) -> impl Iterator<Item = Ipv6Addr> {
        self.memberships.keys().copied()
    }

    /// Changes a membership; returns the records that report the change (RFC 9777 §6.1).
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

    /// Returns the robustness repeat of the last change.
    #[must_use]
    pub fn repeat(&self, group: Ipv6Addr) -> Vec<Record> {
        let nothing = Joined::default();
        match self.memberships.get(&group) {
            Some(membership) => changes(group, &nothing, &membership.joined),
            None => changes(group, &Joined::everything(), &nothing),
        }
    }

    /// Returns the answer to a query: current state.
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

    /// Passes reports from `lc0` to the monitoring program.
    pub fn watch(&mut self, records: &[Record]) {
        for record in records {
            let state = self.watched.entry(record.group).or_default();
            follow(state, record);
            if state.is_nothing() {
                self.watched.remove(&record.group);
            }
        }
    }

    /// Drops the state of reports, as the daemon has gone.
    pub fn forget_reports(&mut self) {
        self.watched.clear();
    }

    /// Returns whether the monitoring program sees a listener of `group` and `source`.
    pub fn sees_listener(&self, group: Ipv6Addr, source: Ipv6Addr) -> bool {
        let seen = self.watched.get(&group);
        seen.is_some_and(|joined| joined.allows(source))
    }

    /// Returns groups with listeners for the monitoring program.
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

/// Applies a record like a router on the link (RFC 9777 §7.4).
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
