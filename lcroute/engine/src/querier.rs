//! The querier of a link: the groups and sources that its listeners have joined (RFC 9777 §6 and
//! §7). It tracks each reporter explicitly, so that a leave takes effect at once.
//!
//! ```text
//!             IS_IN ALLOW TO_IN {B}                     IS_EX TO_EX {B}
//!   (nothing) ---------------------> INCLUDE {sources} ----------------> EXCLUDE {sources}
//!       ^                            |  each with a timer <------------- one timer
//!       |  BLOCK of the last one,    |              IS_IN TO_IN {B}      |
//!       |  TO_IN {}, timers          |                                   |  TO_IN {}, timer
//!       +----------------------------+-----------------------------------+
//! ```
//!
//! On a LAN the querier with the lowest address asks (RFC 9777 §7.6.2), and the rest listens.

mod reporter;
mod timing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv6Addr;

use librecast::mld::{Query, Record, RecordType};
use librecast::time::{Duration, Instant};
use reporter::{Probe, Reporter, apply, apply_untracked};

use crate::drops::DropReason;
use crate::source_filter::{SourceFilter, merge};
use crate::table::Table;
use crate::timers::TimerKind;
use crate::traffic::Traffic;

pub use timing::Timing;

/// Stands for all reporters of a group that are not tracked individually.
pub const UNTRACKED: Ipv6Addr = Ipv6Addr::UNSPECIFIED;
/// Response time for which the kernel answers at once, with all groups in the fewest reports.
const AT_ONCE: Duration = Duration::from_millis(1);
/// Least time between general queries out of turn.
const MIN_QUERY_GAP: Duration = Duration::from_secs(1);
/// Reporters of all groups, and their listed sources, that are tracked individually: some 10 MB.
/// Hosts have any number of addresses, and groups times reporters times sources would be gigabytes.
/// Further reporters of a group count as [`UNTRACKED`].
const MAX_TRACKED: usize = 131_072;
/// Group-specific queries that wait for their repetition.
const MAX_PROBES: usize = 1_024;

#[derive(Debug)]
struct Group {
    reporters: BTreeMap<Ipv6Addr, Reporter>,
    /// The union of all reporters' filters.
    filter: Option<SourceFilter>,
    /// Time of its entry in the deadline list: not after its first timer. None: it has no entry.
    wake: Option<Instant>,
    traffic: Traffic,
}

impl Group {
    fn next_expiry(&self) -> Option<Instant> {
        self.reporters
            .values()
            .filter_map(Reporter::next_expiry)
            .min()
    }

    fn update_filter(&mut self) {
        let filters: Vec<_> = self
            .reporters
            .values()
            .filter_map(Reporter::filter)
            .collect();
        self.filter = merge(&filters);
    }
}

/// Bounds of a listener table.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Groups that listeners may join.
    pub groups: usize,
    /// Reporters of a group that are tracked individually.
    pub reporters: usize,
}

/// The querier and its listener table.
#[derive(Debug)]
pub struct Querier {
    configured: Timing,
    timing: Timing,
    groups: Table<Ipv6Addr, Group>,
    /// Another querier with a lower address, and the end of its presence.
    other: Option<(Ipv6Addr, Instant)>,
    room: Room,
    /// Reporters and their sources, of all groups.
    tracked: usize,
    /// One entry per group; it moves only when it expires, so that a refresh is free.
    deadlines: BTreeSet<(Instant, Ipv6Addr)>,
    /// Groups with changes since [`Self::take_changes`], and their earlier filters.
    changed: BTreeMap<Ipv6Addr, Option<SourceFilter>>,
    queries: Vec<Query>,
    next_general: Option<Instant>,
    last_general: Option<Instant>,
    startup_queries: u8,
    /// The next general query asks for answers at once.
    urgent: bool,
    /// Repetitions of specific queries.
    probes: VecDeque<(Instant, Ipv6Addr, Probe)>,
}

impl Querier {
    /// A querier that sends nothing before [`Self::start`].
    pub fn new(timing: Timing, room: Room, seed: u64) -> Self {
        Self {
            configured: timing,
            timing,
            other: None,
            groups: Table::new(seed),
            room,
            tracked: 0,
            deadlines: BTreeSet::new(),
            changed: BTreeMap::new(),
            queries: Vec::new(),
            next_general: None,
            last_general: None,
            startup_queries: 0,
            urgent: false,
            probes: VecDeque::new(),
        }
    }

    /// The interface is up: sends a general query at once, again soon, then in the usual interval.
    pub fn start(&mut self, now: Instant) {
        self.startup_queries = self.timing.robustness;
        self.urgent = true;
        self.send_general(now);
    }

    /// The interface is down, or another gateway serves it: sends no more queries.
    pub fn stop(&mut self) {
        (self.next_general, self.last_general) = (None, None);
        (self.startup_queries, self.urgent, self.other) = (0, false, None);
        self.timing = self.configured;
        self.queries.clear();
        self.probes.clear();
    }

    /// Another querier with a lower address, if present: this one is silent.
    pub fn other_querier(&self) -> Option<Ipv6Addr> {
        self.other.map(|(address, _)| address)
    }

    /// Handles a query of another host on the link. `own`: the source of this node's queries.
    pub fn handle_query(&mut self, from: Ipv6Addr, own: Ipv6Addr, query: &Query, now: Instant) {
        if query.group.is_none() {
            if from < own && self.other.is_none_or(|(known, _)| from <= known) {
                self.timing = self
                    .configured
                    .adopt(query.robustness, query.query_interval);
                self.other = Some((from, now + self.timing.other_querier_timeout()));
                self.next_general = None;
            }
            return;
        }
        // before a group ends, the querier asks, and others lower their timers (RFC 9777 §7.6.1)
        if self.other.is_some_and(|(known, _)| known == from)
            && !query.suppress_router_processing
            && let Some(group) = query.group
        {
            // it asks twice; a querier of version 2 may allow more time for answers
            let wait = self.timing.last_listener_time().max(query.max_response * 2);
            self.lower(group, &query.sources, now + wait);
        }
    }

    fn lower(&mut self, group: Ipv6Addr, sources: &[Ipv6Addr], at: Instant) {
        let Some(entry) = self.groups.get_mut(&group) else {
            return;
        };
        for reporter in entry.reporters.values_mut() {
            reporter.lower_sources(sources, at);
        }
        self.settle(group);
    }

    /// Sends a general query out of turn, as joins may have been missed: at most one in `gap`.
    pub fn query_again(&mut self, gap: Duration, now: Instant) {
        let Some(last) = self.last_general else {
            return;
        };
        let earliest = last + gap.max(MIN_QUERY_GAP);
        self.urgent = true;
        if earliest <= now {
            self.send_general(now);
        } else {
            self.next_general = Some(self.next_general.map_or(earliest, |at| at.min(earliest)));
        }
    }

    /// Handles a version 2 record of a carried group; `UNTRACKED`: no address.
    pub fn handle_record(
        &mut self,
        reporter: Ipv6Addr,
        record: &Record,
        now: Instant,
    ) -> Result<(), DropReason> {
        let timing = self.timing;
        let group = self.groups.get(&record.group);
        // a reporter that leaves, and was never tracked, may be among the untracked
        let leaves = matches!(
            record.kind,
            RecordType::ChangeToInclude | RecordType::BlockOldSources
        );
        let is_of_crowd = group.is_some_and(|group| {
            let reporters = &group.reporters;
            !reporters.contains_key(&reporter)
                && (reporters.len() >= self.room.reporters
                    || leaves && reporters.contains_key(&UNTRACKED))
        });
        if is_of_crowd || reporter == UNTRACKED {
            return self.transition(UNTRACKED, record.group, now, |state| {
                apply_untracked(state, record, &timing, now)
            });
        }
        self.transition(reporter, record.group, now, |state| {
            apply(state, record, &timing, now)
        })
    }

    /// A version 1 report counts as IS_EX{} (RFC 9777 §8.3.2).
    pub fn handle_v1_report(
        &mut self,
        reporter: Ipv6Addr,
        group: Ipv6Addr,
        now: Instant,
    ) -> Result<(), DropReason> {
        let record = Record::new(RecordType::ModeIsExclude, group, Vec::new());
        self.handle_record(reporter, &record, now)
    }

    /// Handles a version 1 Done: asks, as other hosts may have suppressed their reports. With
    /// another querier, that one asks (RFC 2710 §4, RFC 2236 §3).
    pub fn handle_v1_done(&mut self, reporter: Ipv6Addr, group: Ipv6Addr, now: Instant) {
        if self.other.is_some() {
            return;
        }
        let at = now + self.timing.last_listener_time();
        let group_known = self.groups.get(&group);
        let is_tracked = group_known.is_some_and(|g| g.reporters.contains_key(&reporter));
        let reporter = if is_tracked { reporter } else { UNTRACKED };
        // nothing can be refused without a new state
        let _ = self.transition(reporter, group, now, |state| {
            let mut state = state;
            let probe = state.as_mut().map(|s| {
                s.lower(at);
                Vec::new()
            });
            (state, probe)
        });
    }

    /// Applies `change` to the reporter's state, and updates all that depends on it.
    fn transition(
        &mut self,
        reporter: Ipv6Addr,
        group: Ipv6Addr,
        now: Instant,
        change: impl FnOnce(Option<Reporter>) -> (Option<Reporter>, Option<Probe>),
    ) -> Result<(), DropReason> {
        let known = self.groups.get_mut(&group);
        let reporters = known.as_ref().map_or(0, |g| g.reporters.len());
        let state = known.and_then(|g| g.reporters.remove(&reporter));
        let is_new = state.is_none();
        let before = state.as_ref().map_or(0, Reporter::size);
        self.tracked -= before;
        let (mut state, probe) = change(state);
        let after = state.as_ref().map_or(0, Reporter::size);
        let is_too_much = after > before && self.tracked + after > MAX_TRACKED;
        let reporter = if is_too_much {
            // rather too much is delivered than too little
            let expires = now + self.timing.listening_interval();
            state = Some(Reporter::everything(expires));
            UNTRACKED
        } else {
            reporter
        };
        let full = reporters == 0 && self.groups.len() >= self.room.groups;
        if is_new && state.is_some() && full {
            return Err(DropReason::GroupLimit);
        }
        if let Some(sources) = probe {
            self.probe(group, sources, now);
        }
        if state.is_some() || !is_new {
            self.store(group, reporter, state);
        }
        Ok(())
    }

    fn store(&mut self, group: Ipv6Addr, reporter: Ipv6Addr, state: Option<Reporter>) {
        let entry = self.groups.get_or_insert_with(group, || Group {
            reporters: BTreeMap::new(),
            filter: None,
            wake: None,
            traffic: Traffic::default(),
        });
        if let Some(state) = state {
            self.tracked += state.size();
            let replaced = entry.reporters.insert(reporter, state);
            self.tracked -= replaced.map_or(0, |replaced| replaced.size());
        }
        self.settle(group);
    }

    /// Updates filter and deadline after a change of reporters; removes an empty group.
    fn settle(&mut self, group: Ipv6Addr) {
        let Some(entry) = self.groups.get_mut(&group) else {
            return;
        };
        let before = entry.filter.take();
        entry.update_filter();
        if entry.filter != before {
            self.changed.entry(group).or_insert(before);
        }
        let (first, wake) = (entry.next_expiry(), entry.wake);
        // a later timer waits for the deadline that is there
        if first.is_some_and(|first| wake.is_some_and(|wake| wake <= first)) {
            return;
        }
        if let Some(wake) = wake {
            self.deadlines.remove(&(wake, group));
        }
        entry.wake = first;
        match first {
            Some(first) => {
                self.deadlines.insert((first, group));
            }
            None => {
                self.groups.remove(&group);
            }
        }
        debug_assert_eq!(
            self.deadlines.len(),
            self.groups.len(),
            "each group has one deadline"
        );
    }

    fn probe(&mut self, group: Ipv6Addr, sources: Probe, now: Instant) {
        if self.other.is_some() {
            return;
        }
        self.ask(group, sources.clone());
        if self.probes.len() < MAX_PROBES {
            let again = now + self.timing.last_listener_interval;
            debug_assert!(
                self.probes.back().is_none_or(|(at, ..)| *at <= again),
                "the first probe is repeated first"
            );
            self.probes.push_back((again, group, sources));
        }
    }

    fn ask(&mut self, group: Ipv6Addr, sources: Probe) {
        let response = self.timing.last_listener_interval;
        let query = query(&self.timing, response, Some(group), sources);
        self.queries.push(query);
    }

    fn send_general(&mut self, now: Instant) {
        let max_response = if self.urgent {
            AT_ONCE
        } else {
            self.timing.response_interval
        };
        let query = query(&self.timing, max_response, None, Vec::new());
        self.queries.push(query);
        self.urgent = false;
        self.last_general = Some(now);
        self.startup_queries = self.startup_queries.saturating_sub(1);
        let interval = if self.startup_queries > 0 {
            self.timing.startup_interval
        } else {
            self.timing.query_interval
        };
        self.next_general = Some(now + interval);
    }

    /// Handles expired timers.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.other.take_if(|(_, until)| *until <= now).is_some() {
            self.timing = self.configured;
            // its listeners answered early: a late answer to this querier would miss their timers
            self.urgent = true;
            self.send_general(now);
        }
        if self.next_general.is_some_and(|at| at <= now) {
            self.send_general(now);
        }
        while let Some((_, group, sources)) = self.probes.pop_front_if(|(at, ..)| *at <= now) {
            if self.groups.get(&group).is_some() {
                self.ask(group, sources);
            }
        }
        while let Some(&(at, group)) = self.deadlines.first()
            && at <= now
        {
            self.deadlines.pop_first();
            self.expire(group, now);
        }
    }

    fn expire(&mut self, group: Ipv6Addr, now: Instant) {
        let Some(entry) = self.groups.get_mut(&group) else {
            return;
        };
        let reporters = std::mem::take(&mut entry.reporters);
        self.tracked -= size(&reporters);
        entry.reporters = reporters
            .into_iter()
            .filter_map(|(r, state)| Some((r, state.at(now)?)))
            .collect();
        self.tracked += size(&entry.reporters);
        debug_assert!(
            entry.next_expiry().is_none_or(|at| at > now),
            "expired joins are gone"
        );
        // its deadline was taken out
        entry.wake = None;
        self.settle(group);
    }

    /// The time of the next call of [`Self::handle_timeout`].
    pub fn next_timeout(&self) -> Option<(Instant, TimerKind)> {
        let other = self.other.map(|(_, until)| until);
        let general = self.next_general.into_iter().chain(other).min();
        let general = general.map(|at| (at, TimerKind::GeneralQuery));
        let specific = self
            .probes
            .front()
            .map(|(at, ..)| (*at, TimerKind::SpecificQuery));
        let expiry = self
            .deadlines
            .first()
            .map(|(at, _)| (*at, TimerKind::ListenerExpiry));
        [general, specific, expiry].into_iter().flatten().min()
    }

    /// Forgets groups that are no longer carried.
    pub fn retain(&mut self, carried: impl Fn(Ipv6Addr) -> bool) {
        for group in self
            .groups
            .sorted_keys()
            .into_iter()
            .filter(|g| !carried(*g))
        {
            if let Some(entry) = self.groups.get_mut(&group) {
                self.tracked -= size(&entry.reporters);
                entry.reporters.clear();
            }
            self.settle(group);
        }
    }

    /// Queries to send, in order.
    pub fn take_queries(&mut self) -> Vec<Query> {
        std::mem::take(&mut self.queries)
    }

    /// Groups with changes since the last call, and their earlier filters.
    pub fn take_changes(&mut self) -> BTreeMap<Ipv6Addr, Option<SourceFilter>> {
        std::mem::take(&mut self.changed)
    }

    /// The union of all listeners' filters for a group.
    pub fn filter(&self, group: Ipv6Addr) -> Option<&SourceFilter> {
        self.groups.get(&group)?.filter.as_ref()
    }

    /// The counters of a group, if a listener has joined it from `source`.
    pub fn joined_traffic(&mut self, group: Ipv6Addr, source: Ipv6Addr) -> Option<&mut Traffic> {
        let entry = self.groups.get_mut(&group)?;
        entry
            .filter
            .as_ref()?
            .allows(source)
            .then_some(&mut entry.traffic)
    }

    /// The counters of a group.
    pub fn traffic(&self, group: Ipv6Addr) -> Option<&Traffic> {
        self.groups.get(&group).map(|g| &g.traffic)
    }

    /// All groups, in order.
    pub fn groups(&self) -> Vec<Ipv6Addr> {
        self.groups.sorted_keys()
    }

    /// Number of known reporters of a group: all untracked ones count as one.
    pub fn reporters(&self, group: Ipv6Addr) -> usize {
        self.groups.get(&group).map_or(0, |g| g.reporters.len())
    }

    pub(crate) fn len(&self) -> usize {
        self.groups.len()
    }

    /// Pending work besides the general query.
    pub fn pending(&self) -> usize {
        self.probes.len() + self.deadlines.len()
    }
}

fn size(reporters: &BTreeMap<Ipv6Addr, Reporter>) -> usize {
    reporters.values().map(Reporter::size).sum()
}

fn query(
    timing: &Timing,
    max_response: Duration,
    group: Option<Ipv6Addr>,
    sources: Vec<Ipv6Addr>,
) -> Query {
    Query {
        max_response,
        group,
        robustness: timing.robustness,
        query_interval: timing.query_interval,
        sources,
        ..Query::default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::start;
    use RecordType::{
        AllowNewSources as Allow, BlockOldSources as Block, ChangeToExclude as ToEx,
        ChangeToInclude as ToIn, ModeIsExclude as IsEx, ModeIsInclude as IsIn,
    };

    const HOST: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    const OTHER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
    const G: Ipv6Addr = Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, 1);

    fn source(n: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n)
    }

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    const FEW: Room = Room {
        groups: 4,
        reporters: 2,
    };

    struct Bench {
        querier: Querier,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            let now = start();
            let mut querier = Querier::new(Timing::HOST, FEW, 1);
            querier.start(now);
            Self { querier, now }
        }

        fn says(&mut self, who: Ipv6Addr, kind: RecordType, sources: &[u16]) -> &mut Self {
            let sources = sources.iter().map(|n| source(*n)).collect();
            let record = Record::new(kind, G, sources);
            self.querier.handle_record(who, &record, self.now).unwrap();
            self
        }

        fn after(&mut self, time: Duration) -> &mut Self {
            let end = self.now + time;
            while let Some((at, _)) = self.querier.next_timeout().filter(|(at, _)| *at <= end) {
                self.now = at.max(self.now);
                self.querier.handle_timeout(self.now);
            }
            self.now = end;
            self
        }

        fn include(&mut self, sources: &[u16]) -> &mut Self {
            let expected = SourceFilter::include(sources.iter().map(|n| source(*n)));
            assert_eq!(self.querier.filter(G), expected.as_ref());
            self
        }

        fn exclude(&mut self, sources: &[u16]) -> &mut Self {
            let expected = SourceFilter::exclude(sources.iter().map(|n| source(*n)));
            assert_eq!(self.querier.filter(G), Some(&expected));
            self
        }

        fn queries(&mut self) -> Vec<(Option<Ipv6Addr>, Vec<Ipv6Addr>, Duration)> {
            let queries = self.querier.take_queries();
            queries
                .into_iter()
                .map(|q| (q.group, q.sources, q.max_response))
                .collect()
        }
    }

    #[test]
    fn general_queries_at_once_then_at_start_up_then_in_the_usual_interval() {
        let mut b = Bench::new();
        assert_eq!(b.queries(), [(None, vec![], AT_ONCE)]);
        b.after(Duration::from_millis(31_249));
        assert!(b.queries().is_empty());
        b.after(Duration::from_millis(1));
        assert_eq!(
            b.queries(),
            [(None, vec![], Timing::HOST.response_interval)]
        );
        b.after(secs(125));
        assert_eq!(
            b.queries(),
            [(None, vec![], Timing::HOST.response_interval)]
        );
        b.after(secs(1250));
        assert_eq!(b.queries().len(), 10);
    }

    #[test]
    fn an_overflow_is_answered_once_a_second() {
        let mut b = Bench::new();
        b.queries();
        for _ in 0..100 {
            b.querier.query_again(Duration::ZERO, b.now);
            b.after(Duration::from_millis(10));
        }
        assert_eq!(b.queries(), [(None, vec![], AT_ONCE)]);
        b.after(secs(5));
        assert!(b.queries().is_empty());
        b.querier.query_again(Duration::ZERO, b.now);
        assert_eq!(b.queries(), [(None, vec![], AT_ONCE)]);
    }

    #[test]
    fn join_and_leave_take_effect_at_once() {
        let mut b = Bench::new();
        b.says(HOST, ToEx, &[]).exclude(&[]);
        assert_eq!(b.querier.take_changes(), BTreeMap::from([(G, None)]));
        b.says(HOST, ToEx, &[]).exclude(&[]);
        assert!(
            b.querier.take_changes().is_empty(),
            "the robustness repeat changes nothing"
        );
        b.says(HOST, ToIn, &[]).include(&[]);
        assert_eq!(
            b.querier.take_changes(),
            BTreeMap::from([(G, Some(SourceFilter::all()))])
        );
        assert_eq!((b.querier.len(), b.querier.pending()), (0, 0));
    }

    #[test]
    fn source_specific_join_and_leave() {
        let mut b = Bench::new();
        b.says(HOST, Allow, &[1]).include(&[1]);
        b.says(HOST, Allow, &[2]).include(&[1, 2]);
        b.says(HOST, Block, &[1]).include(&[2]);
        b.says(HOST, Block, &[2]).include(&[]);
        assert_eq!((b.querier.len(), b.querier.pending()), (0, 0));
    }

    #[test]
    fn modes_change_in_both_directions() {
        let mut b = Bench::new();
        b.says(HOST, ToEx, &[1]).exclude(&[1]);
        b.says(HOST, Block, &[2]).exclude(&[1, 2]);
        b.says(HOST, Allow, &[1]).exclude(&[2]);
        b.says(HOST, ToIn, &[3]).include(&[3]);
        b.says(HOST, ToEx, &[]).exclude(&[]);
        b.says(HOST, IsIn, &[4]).include(&[4]);
        b.says(HOST, IsEx, &[5]).exclude(&[5]);
    }

    #[test]
    fn one_of_two_reporters_may_leave() {
        let mut b = Bench::new();
        b.says(HOST, ToEx, &[1, 2])
            .says(OTHER, Allow, &[1])
            .exclude(&[2]);
        b.says(HOST, ToIn, &[]).include(&[1]);
        b.says(OTHER, Block, &[1]).include(&[]);
        assert_eq!(b.querier.len(), 0);
    }

    #[test]
    fn who_answers_no_query_is_forgotten() {
        let mut b = Bench::new();
        b.says(HOST, ToEx, &[]).says(OTHER, Allow, &[7]);
        b.after(secs(200)).says(OTHER, IsIn, &[7]);
        b.after(secs(59)).exclude(&[]);
        b.after(secs(1)).include(&[7]);
        b.after(secs(199)).include(&[7]);
        b.after(secs(1)).include(&[]);
        assert_eq!((b.querier.len(), b.querier.pending()), (0, 0));
    }

    #[test]
    fn who_answers_stays_for_ever() {
        let mut b = Bench::new();
        b.says(HOST, ToEx, &[]);
        b.querier.take_changes();
        for _ in 0..20 {
            b.after(secs(125)).says(HOST, IsEx, &[]).exclude(&[]);
        }
        assert!(b.querier.take_changes().is_empty());
    }

    #[test]
    fn split_lists_add_up_and_missing_sources_are_asked_for() {
        let mut b = Bench::new();
        b.queries();
        b.says(HOST, ToIn, &[1, 2])
            .says(HOST, ToIn, &[3])
            .include(&[1, 2, 3]);
        let ask = (
            Some(G),
            vec![source(1), source(2)],
            Timing::HOST.last_listener_interval,
        );
        assert_eq!(b.queries(), std::slice::from_ref(&ask));
        b.says(HOST, IsIn, &[1]);
        b.after(Duration::from_millis(1500));
        assert_eq!(b.queries(), [ask], "asked twice");
        b.after(secs(1)).include(&[1, 3]);
    }

    #[test]
    fn more_sources_than_kept_count_as_all() {
        let mut b = Bench::new();
        b.queries();
        let many: Vec<u16> = (1..=40).collect();
        let more: Vec<u16> = (41..=80).collect();
        b.says(HOST, IsIn, &many).include(&many);
        b.says(HOST, IsIn, &more).exclude(&[]);
        // some are left: only the reporter knows which remain
        b.says(HOST, Block, &many).exclude(&[]);
        assert_eq!(b.queries().len(), 1);
        b.says(HOST, IsIn, &more).include(&more);
        b.says(HOST, Allow, &many).exclude(&[]);
        b.says(HOST, Block, &many).says(HOST, Block, &more);
        b.after(Timing::HOST.last_listener_time()).include(&[]);
        assert_eq!(b.querier.len(), 0, "no answer: left");
    }

    #[test]
    fn truncated_records_never_deliver_less() {
        let mut b = Bench::new();
        for kind in [IsIn, ToIn, Allow, IsEx, ToEx] {
            let record = Record {
                truncated: true,
                ..Record::new(kind, G, vec![source(1)])
            };
            b.querier.handle_record(HOST, &record, b.now).unwrap();
            b.exclude(&[]);
            b.says(HOST, ToIn, &[]).include(&[]);
        }
    }

    #[test]
    fn version_1_joins_leave_after_being_asked() {
        let mut b = Bench::new();
        b.queries();
        b.querier.handle_v1_report(HOST, G, b.now).unwrap();
        b.exclude(&[]);
        b.querier.handle_v1_done(HOST, G, b.now);
        assert_eq!(
            b.queries(),
            [(Some(G), vec![], Timing::HOST.last_listener_interval)]
        );
        b.after(secs(1)).exclude(&[]);
        b.querier.handle_v1_report(HOST, G, b.now).unwrap();
        b.after(secs(5)).exclude(&[]);
        b.querier.handle_v1_done(HOST, G, b.now);
        b.after(secs(2)).include(&[]);
        b.querier.handle_v1_done(HOST, G, b.now);
        assert_eq!((b.querier.len(), b.querier.pending()), (0, 0));
    }

    #[test]
    fn groups_and_reporters_are_bounded() {
        let mut b = Bench::new();
        let join = |b: &mut Bench, who: u16, n: u16| {
            let group = Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, n);
            let who = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, who);
            b.querier
                .handle_record(who, &Record::new(ToEx, group, vec![]), b.now)
        };
        for n in 0..4 {
            assert!(join(&mut b, 1, n).is_ok());
        }
        assert_eq!(join(&mut b, 1, 4), Err(DropReason::GroupLimit));
        assert!(join(&mut b, 1, 0).is_ok(), "those inside may refresh");
        assert!(join(&mut b, 2, 0).is_ok());
        assert!(join(&mut b, 3, 0).is_ok() && join(&mut b, 4, 0).is_ok());
        assert_eq!((b.querier.len(), b.querier.reporters(group(0))), (4, 3));
    }

    fn group(n: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, n)
    }

    #[test]
    fn groups_times_reporters_times_sources_are_bounded() {
        let mut b = Bench::new();
        b.querier = Querier::new(
            Timing::LAN,
            Room {
                groups: 16_384,
                reporters: 64,
            },
            1,
        );
        b.querier.start(b.now);
        let sources: Vec<_> = (0..64).map(source).collect();
        let tracked = |b: &Bench| {
            let groups = b.querier.groups().into_iter();
            groups
                .map(|g| size(&b.querier.groups.get(&g).unwrap().reporters))
                .sum::<usize>()
        };
        for n in 0..4_000 {
            let who = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 1, n % 64);
            for kind in [IsEx, Block, IsIn] {
                let record = Record::new(kind, group(n), sources.clone());
                b.querier.handle_record(who, &record, b.now).unwrap();
            }
        }
        assert_eq!(tracked(&b), b.querier.tracked);
        // untracked reporters take an entry for each group
        assert!((MAX_TRACKED..MAX_TRACKED + 4_000).contains(&b.querier.tracked));
        assert_eq!(b.querier.len(), 4_000, "nobody is refused for that");
        assert_eq!(b.querier.filter(group(3_999)), Some(&SourceFilter::all()));
        b.querier.retain(|g| g == group(3_999));
        assert_eq!((b.querier.tracked, tracked(&b)), (1, 1));
        b.after(Timing::LAN.listening_interval() + secs(1));
        assert_eq!((b.querier.tracked, b.querier.len()), (0, 0));
    }

    #[test]
    fn of_a_crowd_nobody_is_cut_off_before_a_query_was_not_answered() {
        let host = |n: u16| Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n);
        let mut b = Bench::new();
        for n in 1..=10 {
            b.says(host(n), ToEx, &[]);
        }
        b.queries();
        // two are tracked, and leave at once
        b.says(host(1), ToIn, &[]).says(host(2), ToIn, &[]);
        assert_eq!(b.queries(), []);
        b.exclude(&[]);
        // an untracked one leaves: the rest is asked, and answers
        b.says(host(9), ToIn, &[]).exclude(&[]);
        let asked = (Some(G), vec![], Timing::HOST.last_listener_interval);
        assert_eq!(b.queries(), [asked]);
        b.after(Duration::from_millis(500));
        b.says(host(8), IsEx, &[]);
        b.after(secs(60)).exclude(&[]);
        // the last ones leave
        for n in 3..=10 {
            b.says(host(n), ToIn, &[]);
        }
        b.after(Timing::HOST.last_listener_time()).include(&[]);
        assert_eq!(b.querier.len(), 0);
    }

    #[test]
    fn sources_of_a_crowd_add_up() {
        let host = |n: u16| Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n);
        let mut b = Bench::new();
        b.says(host(1), Allow, &[1]).says(host(2), Allow, &[1]);
        b.says(host(3), Allow, &[3]).says(host(4), Allow, &[4]);
        b.include(&[1, 3, 4]);
        b.says(host(3), Block, &[3]).include(&[1, 3, 4]);
        b.says(host(4), IsIn, &[4]);
        b.after(Timing::HOST.last_listener_time()).include(&[1, 4]);
        b.says(host(5), ToEx, &[7]).exclude(&[]);
    }

    /// This querier is [`OTHER`]; [`HOST`] is lower.
    fn general(from: Ipv6Addr, b: &mut Bench, robustness: u8, interval: u64) {
        let mut query = query(&Timing::LAN, secs(1), None, Vec::new());
        (query.robustness, query.query_interval) = (robustness, secs(interval));
        b.querier.handle_query(from, OTHER, &query, b.now);
    }

    #[test]
    fn the_lowest_address_asks_and_its_values_count() {
        let now = start();
        let mut querier = Querier::new(Timing::LAN, FEW, 1);
        querier.start(now);
        let mut b = Bench { querier, now };
        assert_eq!(b.queries().len(), 1);
        let higher = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9);
        general(higher, &mut b, 2, 125);
        assert_eq!(b.querier.other_querier(), None, "it yields to us");
        general(HOST, &mut b, 2, 125);
        assert_eq!(b.querier.other_querier(), Some(HOST));
        b.says(HOST, ToEx, &[]);
        b.after(secs(200)).exclude(&[]);
        assert_eq!(b.queries(), [], "listeners are refreshed by its queries");
        // it is gone
        b.after(secs(60));
        assert_eq!(b.querier.other_querier(), None);
        assert!(!b.queries().is_empty());
        // intervals of hours are not accepted
        general(HOST, &mut b, 7, 30_000);
        b.after(secs(7 * 600 + 5));
        assert_eq!(b.querier.other_querier(), None);
    }

    #[test]
    fn a_group_ends_though_a_querier_with_long_intervals_is_gone() {
        let now = start();
        let querier = Querier::new(Timing::LAN, FEW, 1);
        let mut b = Bench { querier, now };
        b.querier.start(now);
        // two reporters, one of whom joins while the intervals are long
        b.says(OTHER, ToEx, &[]);
        general(HOST, &mut b, 7, 600);
        b.says(HOST, ToEx, &[]);
        general(HOST, &mut b, 2, 1);
        b.after(secs(60)).exclude(&[]);
        assert_eq!(b.querier.other_querier(), None);
        b.after(secs(7 * 600 + 5)).include(&[]);
        assert_eq!((b.querier.len(), b.querier.pending()), (0, 0));
    }

    #[test]
    fn nobody_is_lost_when_the_querier_is_gone() {
        let now = start();
        let mut querier = Querier::new(Timing::LAN, FEW, 1);
        querier.start(now);
        let mut b = Bench { querier, now };
        b.queries();
        general(HOST, &mut b, 2, 1);
        b.says(HOST, ToEx, &[]);
        b.after(secs(5)).exclude(&[]);
        let [(None, _, response)] = b.queries()[..] else {
            panic!("it asks once");
        };
        b.after(response).exclude(&[]).says(HOST, IsEx, &[]);
        b.after(Timing::LAN.query_interval).exclude(&[]);
    }

    #[test]
    fn who_does_not_ask_lowers_timers_when_the_querier_asks() {
        let now = start();
        let mut querier = Querier::new(Timing::LAN, FEW, 1);
        querier.start(now);
        let mut b = Bench { querier, now };
        general(HOST, &mut b, 2, 125);
        b.queries();
        b.says(OTHER, ToEx, &[]);
        let mut specific = query(&Timing::LAN, secs(1), Some(G), Vec::new());
        specific.suppress_router_processing = true;
        b.querier.handle_query(HOST, OTHER, &specific, b.now);
        b.after(secs(2)).exclude(&[]);
        specific.suppress_router_processing = false;
        let stranger = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 7);
        b.querier.handle_query(stranger, OTHER, &specific, b.now);
        b.after(secs(2)).exclude(&[]);
        b.querier.handle_query(HOST, OTHER, &specific, b.now);
        // twice the time that hosts may take to answer
        b.after(Duration::from_millis(1_900)).exclude(&[]);
        b.after(Duration::from_millis(100)).include(&[]);
        assert_eq!(b.queries(), [], "a query is answered to all who listen");
        // a host that leaves reports it to the querier
        b.querier.handle_v1_report(OTHER, G, b.now).unwrap();
        b.querier.handle_v1_done(OTHER, G, b.now);
        b.after(secs(10)).exclude(&[]);
        b.querier.handle_query(HOST, OTHER, &specific, b.now);
        b.after(secs(2)).include(&[]);
    }

    #[test]
    fn hosts_without_an_address_are_one_crowd() {
        let mut b = Bench::new();
        b.queries();
        b.says(UNTRACKED, ToEx, &[]).says(UNTRACKED, ToIn, &[]);
        b.exclude(&[]);
        let asked = (Some(G), vec![], Timing::HOST.last_listener_interval);
        assert_eq!(b.queries(), [asked], "another one may listen still");
        b.after(Timing::HOST.last_listener_time()).include(&[]);
    }

    #[test]
    fn groups_no_longer_carried_are_forgotten() {
        let mut b = Bench::new();
        b.says(HOST, ToEx, &[]);
        b.querier.take_changes();
        b.querier.retain(|g| g != G);
        assert_eq!(
            b.querier.take_changes(),
            BTreeMap::from([(G, Some(SourceFilter::all()))])
        );
        assert_eq!((b.querier.len(), b.querier.pending()), (0, 0));
    }

    /// The state of a host as RFC 9777 §6 describes it.
    #[derive(Debug, Clone, PartialEq)]
    struct Host {
        exclude: bool,
        sources: BTreeSet<u16>,
    }

    fn any_host() -> impl Strategy<Value = Host> {
        (any::<bool>(), prop::collection::btree_set(1u16..6, 0..5))
            .prop_map(|(exclude, sources)| Host { exclude, sources })
    }

    /// The records by which a host goes from one state to another (RFC 9777 §6.1).
    fn reports(from: &Host, to: &Host) -> Vec<(RecordType, Vec<u16>)> {
        let minus = |a: &BTreeSet<u16>, b: &BTreeSet<u16>| a.difference(b).copied().collect();
        match (from.exclude, to.exclude) {
            (false, true) => vec![(ToEx, to.sources.iter().copied().collect())],
            (true, false) => vec![(ToIn, to.sources.iter().copied().collect())],
            (false, false) => vec![
                (Allow, minus(&to.sources, &from.sources)),
                (Block, minus(&from.sources, &to.sources)),
            ],
            (true, true) => vec![
                (Allow, minus(&from.sources, &to.sources)),
                (Block, minus(&to.sources, &from.sources)),
            ],
        }
    }

    proptest! {
        #[test]
        fn follows_a_host_exactly(states in prop::collection::vec(any_host(), 1..20), twice: bool) {
            let mut b = Bench::new();
            let mut at = Host { exclude: false, sources: BTreeSet::new() };
            for next in states {
                for (kind, sources) in reports(&at, &next) {
                    b.says(HOST, kind, &sources);
                    if twice {
                        b.says(HOST, kind, &sources);
                    }
                }
                let listed: Vec<u16> = next.sources.iter().copied().collect();
                if next.exclude { b.exclude(&listed) } else { b.include(&listed) };
                at = next;
            }
            b.after(Timing::HOST.listening_interval());
            prop_assert_eq!((b.querier.len(), b.querier.pending()), (0, 0));
        }
    }
}
