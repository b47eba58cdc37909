//! The joins of one reporter for one group, and their changes by records.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use librecast::mld::{MAX_SOURCES, Record, RecordType};
use librecast::time::Instant;

use super::timing::Timing;
use crate::source_filter::SourceFilter;

/// The joins of one reporter for one group.
#[derive(Debug)]
pub enum Reporter {
    /// These sources, each until its timer expires; never empty.
    Include(BTreeMap<Ipv6Addr, Instant>),
    /// All sources except these, until the timer expires.
    Exclude {
        sources: BTreeSet<Ipv6Addr>,
        expires: Instant,
        /// False if the reporter listed more sources than are kept.
        exact: bool,
    },
}

/// The sources of a query that a record causes; empty: a group-specific query.
pub type Probe = Vec<Ipv6Addr>;

impl Reporter {
    pub fn filter(&self) -> Option<SourceFilter> {
        match self {
            Self::Include(sources) => SourceFilter::include(sources.keys().copied()),
            Self::Exclude { sources, .. } => Some(SourceFilter::exclude(sources.iter().copied())),
        }
    }

    /// Its size in the table: itself and its sources.
    pub fn size(&self) -> usize {
        1 + match self {
            Self::Include(sources) => sources.len(),
            Self::Exclude { sources, .. } => sources.len(),
        }
    }

    pub fn next_expiry(&self) -> Option<Instant> {
        match self {
            Self::Include(sources) => sources.values().min().copied(),
            Self::Exclude { expires, .. } => Some(*expires),
        }
    }

    /// The state after timers that have expired.
    pub fn at(mut self, now: Instant) -> Option<Self> {
        match &mut self {
            Self::Include(sources) => {
                sources.retain(|_, expires| *expires > now);
                (!sources.is_empty()).then_some(self)
            }
            Self::Exclude { expires, .. } => (*expires > now).then_some(self),
        }
    }

    fn include(sources: BTreeMap<Ipv6Addr, Instant>, expires: Instant) -> Option<Self> {
        match sources.len() {
            0 => None,
            n if n > MAX_SOURCES => Some(Self::everything(expires)),
            _ => Some(Self::Include(sources)),
        }
    }

    /// EXCLUDE{} in place of more sources than are kept.
    pub fn everything(expires: Instant) -> Self {
        Self::Exclude {
            sources: BTreeSet::new(),
            expires,
            exact: false,
        }
    }

    fn exclude(sources: BTreeSet<Ipv6Addr>, expires: Instant) -> Self {
        if sources.len() > MAX_SOURCES {
            return Self::everything(expires);
        }
        Self::Exclude {
            sources,
            expires,
            exact: true,
        }
    }

    /// Lowers the timers of listed sources; without a list, all timers.
    pub fn lower_sources(&mut self, listed: &[Ipv6Addr], at: Instant) {
        match self {
            _ if listed.is_empty() => self.lower(at),
            Self::Include(sources) => {
                let asked = sources.iter_mut().filter(|(s, _)| listed.contains(s));
                asked.for_each(|(_, expires)| *expires = at.min(*expires));
            }
            Self::Exclude { .. } => {}
        }
    }

    /// Lowers all timers: they expire soon, unless the reporter answers a query.
    pub fn lower(&mut self, at: Instant) {
        match self {
            Self::Include(sources) => sources.values_mut().for_each(|e| *e = at.min(*e)),
            Self::Exclude { expires, .. } => *expires = at.min(*expires),
        }
    }
}

/// The reporter's state after a record (RFC 9777 §7.4), and the query that it causes.
pub fn apply(
    state: Option<Reporter>,
    record: &Record,
    timing: &Timing,
    now: Instant,
) -> (Option<Reporter>, Option<Probe>) {
    use RecordType::{AllowNewSources, BlockOldSources, ChangeToInclude, ModeIsInclude};
    let expires = now + timing.listening_interval();
    let listed = record.sources.iter().copied();
    if record.kind.is_exclude() {
        if record.truncated {
            return (Some(Reporter::everything(expires)), None);
        }
        return (Some(Reporter::exclude(listed.collect(), expires)), None);
    }
    if record.truncated && record.kind != BlockOldSources {
        return (Some(Reporter::everything(expires)), None);
    }
    let timed = listed.clone().map(|s| (s, expires));
    match (state, record.kind) {
        (Some(Reporter::Include(mut sources)), ModeIsInclude | AllowNewSources) => {
            sources.extend(timed);
            (Reporter::include(sources, expires), None)
        }
        (Some(Reporter::Include(sources)), ChangeToInclude) => {
            change_to_include(sources, &record.sources, timing, now)
        }
        (Some(Reporter::Include(mut sources)), _) => {
            sources.retain(|s, _| !record.sources.contains(s));
            (Reporter::include(sources, expires), None)
        }
        (Some(exclude), AllowNewSources | BlockOldSources) => {
            change_exclude(exclude, record, timing, now)
        }
        (None, BlockOldSources) => (None, None),
        (None | Some(_), _) => (Reporter::include(timed.collect(), expires), None),
    }
}

/// TO_IN{B} in INCLUDE{A}. An empty B is a leave. Otherwise B may be a part of a split list, so A -
/// B is queried before it expires.
fn change_to_include(
    mut sources: BTreeMap<Ipv6Addr, Instant>,
    listed: &[Ipv6Addr],
    timing: &Timing,
    now: Instant,
) -> (Option<Reporter>, Option<Probe>) {
    if listed.is_empty() {
        return (None, None);
    }
    let mut missing = Vec::new();
    for (source, expires) in sources.iter_mut().filter(|(s, _)| !listed.contains(s)) {
        *expires = (now + timing.last_listener_time()).min(*expires);
        missing.push(*source);
    }
    let expires = now + timing.listening_interval();
    sources.extend(listed.iter().map(|s| (*s, expires)));
    (
        Reporter::include(sources, expires),
        (!missing.is_empty()).then_some(missing),
    )
}

/// ALLOW or BLOCK in EXCLUDE. Only the reporter knows which sources remain of an inexact list.
fn change_exclude(
    mut state: Reporter,
    record: &Record,
    timing: &Timing,
    now: Instant,
) -> (Option<Reporter>, Option<Probe>) {
    let block = record.kind == RecordType::BlockOldSources;
    match state {
        Reporter::Exclude {
            mut sources,
            expires,
            exact: true,
        } => {
            if block {
                sources.extend(&record.sources);
            } else {
                sources.retain(|s| !record.sources.contains(s));
            }
            (Some(Reporter::exclude(sources, expires)), None)
        }
        _ if block && !record.sources.is_empty() => {
            state.lower(now + timing.last_listener_time());
            (Some(state), Some(Vec::new()))
        }
        _ => (Some(state), None),
    }
}

/// The state of all untracked reporters together. As in RFC 9777 §7.4, none of them leaves before a
/// query stays unanswered.
pub fn apply_untracked(
    state: Option<Reporter>,
    record: &Record,
    timing: &Timing,
    now: Instant,
) -> (Option<Reporter>, Option<Probe>) {
    let expires = now + timing.listening_interval();
    if record.kind.is_exclude() || record.truncated {
        return (Some(Reporter::everything(expires)), None);
    }
    let listed = record.sources.iter().copied();
    match (state, record.kind) {
        (None, RecordType::BlockOldSources) => (None, None),
        (Some(mut state), RecordType::ChangeToInclude | RecordType::BlockOldSources) => {
            state.lower(now + timing.last_listener_time());
            if record.kind == RecordType::ChangeToInclude
                && let Reporter::Include(sources) = &mut state
            {
                sources.extend(listed.map(|s| (s, expires)));
            }
            (Some(state), Some(Vec::new()))
        }
        (Some(Reporter::Include(mut sources)), _) => {
            sources.extend(listed.map(|s| (s, expires)));
            (Reporter::include(sources, expires), None)
        }
        (Some(exclude), _) => (Some(exclude), None),
        (None, _) => (
            Reporter::include(listed.map(|s| (s, expires)).collect(), expires),
            None,
        ),
    }
}
