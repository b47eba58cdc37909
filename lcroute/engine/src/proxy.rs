//! The listener proxy of an interface (RFC 9777 §6, the listener's side). It reports remote joins
//! into the interface as one more host. So unmodified programs that watch MLD see JOINs and PARTs.
//!
//! | cause | report |
//! |---|---|
//! | the merged filter of a group changed | state change at once, and once more within a second |
//! | a general query of this node or of a local program | current state of all groups, paced |
//! | a specific query | current state of that group, or of these sources |

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use librecast::mld::{MAX_SOURCES, Query, Record, RecordType};
use librecast::random::Random;
use librecast::time::{Duration, Instant};

use crate::drops::DropReason;
use crate::source_filter::SourceFilter;
use crate::table::Table;
use crate::timers::TimerKind;

/// Unsolicited Report Interval (RFC 9777 §9.11): longest time until a report is repeated.
const UNSOLICITED_REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Shortest time until a report is repeated, so that both are not lost together.
const EARLIEST_REPEAT: Duration = Duration::from_millis(200);
/// Current-state records per turn: 16 reports at the smallest MTU overflow no receive buffer.
const RECORDS_PER_TURN: usize = 960;
/// Interval of turns. Chosen.
const REPORT_INTERVAL: Duration = Duration::from_millis(20);
/// Least time between two answers to general queries.
const GENERAL_ANSWER_GAP: Duration = Duration::from_secs(1);

/// The repetition of a state change, for robustness.
#[derive(Debug)]
struct Repeat {
    at: Instant,
    mode_changed: bool,
    /// Sources that came or went.
    sources: BTreeSet<Ipv6Addr>,
}

#[derive(Debug, Default)]
struct Group {
    /// The last reported filter; `None`: left, only the repetition is missing.
    filter: Option<SourceFilter>,
    repeat: Option<Repeat>,
}

/// The subject of a query for a group.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    State,
    Sources(BTreeSet<Ipv6Addr>),
}

/// The proxy and its reports.
#[derive(Debug)]
pub struct Proxy {
    max_groups: usize,
    running: bool,
    groups: Table<Ipv6Addr, Group>,
    repeats: BTreeSet<(Instant, Ipv6Addr)>,
    asked: BTreeMap<Ipv6Addr, Asked>,
    next_turn: Option<Instant>,
    general_due: Option<Instant>,
    last_general: Option<Instant>,
    records: Vec<Record>,
    random: Random,
}

impl Proxy {
    /// A proxy that reports nothing before [`Self::start`].
    pub fn new(max_groups: usize, seed: u64) -> Self {
        Self {
            max_groups,
            running: false,
            groups: Table::new(seed),
            repeats: BTreeSet::new(),
            asked: BTreeMap::new(),
            next_turn: None,
            general_due: None,
            last_general: None,
            records: Vec::new(),
            random: Random::new(seed),
        }
    }

    /// The interface is up: joins are reported with the first general query.
    pub fn start(&mut self) {
        self.running = true;
    }

    /// Stops reports until [`Self::start`], but remembers joins.
    pub fn stop(&mut self) {
        self.running = false;
        self.asked.clear();
        self.repeats.clear();
        self.records.clear();
        (self.next_turn, self.general_due) = (None, None);
        for group in self.groups.sorted_keys() {
            if let Some(entry) = self.groups.get_mut(&group) {
                entry.repeat = None;
            }
            self.tidy(group);
        }
    }

    /// Sets the union of remote joins of `group`; `None`: nothing is joined.
    ///
    /// # Errors
    /// The proxy reports as many groups as the link's switches may have room for.
    pub fn set(
        &mut self,
        group: Ipv6Addr,
        filter: Option<SourceFilter>,
        now: Instant,
    ) -> Result<(), DropReason> {
        if self.groups.get(&group).is_none() {
            if filter.is_none() {
                return Ok(());
            }
            if self.groups.len() >= self.max_groups {
                return Err(DropReason::LanReportLimit);
            }
        }
        self.change(group, filter, now);
        Ok(())
    }

    fn change(&mut self, group: Ipv6Addr, filter: Option<SourceFilter>, now: Instant) {
        let entry = self.groups.get_or_insert_with(group, Group::default);
        let before = std::mem::replace(&mut entry.filter, filter);
        if before == entry.filter || !self.running {
            self.tidy(group);
            return;
        }
        let changes = changes(group, before.as_ref(), entry.filter.as_ref());
        let mut sources = BTreeSet::new();
        let mut mode_changed = false;
        if let Some(previous) = entry.repeat.take() {
            self.repeats.remove(&(previous.at, group));
            (sources, mode_changed) = (previous.sources, previous.mode_changed);
        }
        for change in &changes {
            match change.kind {
                RecordType::AllowNewSources | RecordType::BlockOldSources => {
                    sources.extend(&change.sources);
                }
                _ => mode_changed = true,
            }
        }
        let at = now
            + self
                .random
                .between(EARLIEST_REPEAT, UNSOLICITED_REPORT_INTERVAL);
        self.repeats.insert((at, group));
        entry.repeat = Some(Repeat {
            at,
            mode_changed,
            sources,
        });
        self.records.extend(changes);
    }

    /// Handles a query of this node's querier or of a local program. General queries are answered
    /// once a second at most; all queries of that second share the next answer.
    pub fn handle_query(&mut self, query: &Query, now: Instant) {
        match query.group {
            None => {
                let soonest = self
                    .last_general
                    .map_or(now, |last| last + GENERAL_ANSWER_GAP);
                self.general_due.get_or_insert(soonest.max(now));
            }
            Some(group) if self.groups.get(&group).is_some() => self.ask(group, query),
            Some(_) => {}
        }
    }

    fn ask_all(&mut self, now: Instant) {
        self.general_due = None;
        self.last_general = Some(now);
        for group in self.groups.sorted_keys() {
            self.asked.insert(group, Asked::State);
        }
    }

    fn ask(&mut self, group: Ipv6Addr, query: &Query) {
        let sources = query.sources.iter().copied();
        let whole = query.sources.is_empty() || query.truncated;
        match self.asked.get_mut(&group) {
            Some(Asked::State) => {}
            Some(Asked::Sources(asked)) if !whole && asked.len() < MAX_SOURCES => {
                asked.extend(sources);
            }
            None if !whole => {
                self.asked.insert(group, Asked::Sources(sources.collect()));
            }
            _ => {
                self.asked.insert(group, Asked::State);
            }
        }
    }

    /// Handles expired timers: repetitions, then the next part of the current state.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(at, group)) = self.repeats.first()
            && at <= now
        {
            self.repeats.pop_first();
            self.repeat(group);
        }
        if !self.running {
            return;
        }
        if self.general_due.is_some_and(|at| at <= now) {
            self.ask_all(now);
        }
        if self.next_turn.is_some_and(|at| at > now) {
            return;
        }
        self.next_turn = None;
        if !self.asked.is_empty() {
            self.report_current_state();
            self.next_turn = Some(now + REPORT_INTERVAL);
        }
    }

    fn repeat(&mut self, group: Ipv6Addr) {
        let Some(entry) = self.groups.get_mut(&group) else {
            return;
        };
        let Some(repeat) = entry.repeat.take() else {
            return;
        };
        let filter = entry.filter.as_ref();
        if repeat.mode_changed {
            self.records.push(mode_change(group, filter));
        } else {
            let allows = |s: &Ipv6Addr| filter.is_some_and(|f| f.allows(*s));
            let (allow, block) = repeat.sources.into_iter().partition(allows);
            self.records.extend(source_changes(group, allow, block));
        }
        self.tidy(group);
    }

    fn report_current_state(&mut self) {
        for _ in 0..RECORDS_PER_TURN {
            let Some((group, asked)) = self.asked.pop_first() else {
                break;
            };
            let filter = self.groups.get(&group).and_then(|g| g.filter.as_ref());
            self.records
                .extend(filter.and_then(|f| current_state(group, f, &asked)));
        }
    }

    fn tidy(&mut self, group: Ipv6Addr) {
        let unused = |g: &Group| g.filter.is_none() && g.repeat.is_none();
        if self.groups.get(&group).is_some_and(unused) {
            self.groups.remove(&group);
            self.asked.remove(&group);
        }
    }

    /// Records to report now, in order.
    pub fn take_records(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.records)
    }

    /// Groups that are reported, in order.
    pub fn groups(&self) -> Vec<Ipv6Addr> {
        self.groups.sorted_keys()
    }

    /// The time of the next call of [`Self::handle_timeout`].
    pub fn next_timeout(&self) -> Option<(Instant, TimerKind)> {
        let repeat = self
            .repeats
            .first()
            .map(|(at, _)| (*at, TimerKind::StateChangeRepeat));
        let general = self.general_due.filter(|_| self.running);
        let turn = [self.next_turn, general].into_iter().flatten().min();
        let turn = turn.map(|at| (at, TimerKind::CurrentStateReport));
        [repeat, turn].into_iter().flatten().min()
    }

    /// Number of groups.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Number of pending reports.
    pub fn pending(&self) -> usize {
        self.repeats.len() + self.asked.len()
    }
}

/// The records of a state change (RFC 9777 §6.1).
fn changes(
    group: Ipv6Addr,
    before: Option<&SourceFilter>,
    after: Option<&SourceFilter>,
) -> Vec<Record> {
    let none = SourceFilter::Include(Box::default());
    let (before, after) = (before.unwrap_or(&none), after.unwrap_or(&none));
    let minus = |a: &[Ipv6Addr], b: &[Ipv6Addr]| -> Vec<_> {
        a.iter().filter(|s| !b.contains(s)).copied().collect()
    };
    match (before, after) {
        (SourceFilter::Include(a), SourceFilter::Include(b)) => {
            source_changes(group, minus(b, a), minus(a, b))
        }
        (SourceFilter::Exclude(a), SourceFilter::Exclude(b)) => {
            source_changes(group, minus(a, b), minus(b, a))
        }
        (_, after) => vec![mode_change(group, Some(after))],
    }
}

fn mode_change(group: Ipv6Addr, filter: Option<&SourceFilter>) -> Record {
    let (kind, sources) = match filter {
        None => (RecordType::ChangeToInclude, Vec::new()),
        Some(SourceFilter::Include(list)) => (RecordType::ChangeToInclude, list.to_vec()),
        Some(SourceFilter::Exclude(list)) => (RecordType::ChangeToExclude, list.to_vec()),
    };
    Record::new(kind, group, sources)
}

fn source_changes(group: Ipv6Addr, allow: Vec<Ipv6Addr>, block: Vec<Ipv6Addr>) -> Vec<Record> {
    [
        (RecordType::AllowNewSources, allow),
        (RecordType::BlockOldSources, block),
    ]
    .into_iter()
    .filter(|(_, sources)| !sources.is_empty())
    .map(|(kind, sources)| Record::new(kind, group, sources))
    .collect()
}

/// The answer to a query (RFC 9777 §6.2): the whole state, or the joined ones of its sources.
fn current_state(group: Ipv6Addr, filter: &SourceFilter, asked: &Asked) -> Option<Record> {
    match (asked, filter) {
        (Asked::State, SourceFilter::Include(list)) => {
            Some(Record::new(RecordType::ModeIsInclude, group, list.to_vec()))
        }
        (Asked::State, SourceFilter::Exclude(list)) => {
            Some(Record::new(RecordType::ModeIsExclude, group, list.to_vec()))
        }
        (Asked::Sources(asked), filter) => {
            let wanted: Vec<_> = asked
                .iter()
                .filter(|s| filter.allows(**s))
                .copied()
                .collect();
            let answer = Record::new(RecordType::ModeIsInclude, group, wanted);
            (!answer.sources.is_empty()).then_some(answer)
        }
    }
}

#[cfg(test)]
mod tests {
    use RecordType::{
        AllowNewSources as Allow, BlockOldSources as Block, ChangeToExclude as ToEx,
        ChangeToInclude as ToIn, ModeIsExclude as IsEx, ModeIsInclude as IsIn,
    };

    use super::*;
    use crate::testing::start;

    const G: Ipv6Addr = Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, 1);

    fn source(n: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n)
    }

    fn include(sources: &[u16]) -> Option<SourceFilter> {
        SourceFilter::include(sources.iter().map(|n| source(*n)))
    }

    fn exclude(sources: &[u16]) -> Option<SourceFilter> {
        Some(SourceFilter::exclude(sources.iter().map(|n| source(*n))))
    }

    fn query(group: Option<Ipv6Addr>, sources: &[u16]) -> Query {
        Query {
            max_response: Duration::from_secs(1),
            group,
            suppress_router_processing: false,
            robustness: 2,
            query_interval: Duration::from_secs(125),
            sources: sources.iter().map(|n| source(*n)).collect(),
            truncated: false,
            version_1: false,
        }
    }

    struct Bench {
        proxy: Proxy,
        now: Instant,
    }

    type Seen = Vec<(RecordType, Vec<u16>)>;

    impl Bench {
        fn new() -> Self {
            let mut proxy = Proxy::new(usize::MAX, 1);
            proxy.start();
            Self {
                proxy,
                now: start(),
            }
        }

        fn records(&mut self) -> Seen {
            self.proxy.handle_timeout(self.now);
            let records = self.proxy.take_records();
            let number = |s: &Ipv6Addr| s.segments()[7];
            records
                .iter()
                .map(|r| (r.kind, r.sources.iter().map(number).collect()))
                .collect()
        }

        fn set(&mut self, filter: Option<SourceFilter>) -> Seen {
            self.proxy.set(G, filter, self.now).unwrap();
            self.records()
        }

        /// All records within `time`.
        fn after(&mut self, time: Duration) -> Seen {
            let end = self.now + time;
            let mut seen = Vec::new();
            while let Some((at, _)) = self.proxy.next_timeout().filter(|(at, _)| *at <= end) {
                self.now = at;
                seen.extend(self.records());
            }
            self.now = end;
            seen
        }

        fn ask(&mut self, query: &Query) -> Seen {
            self.proxy.handle_query(query, self.now);
            self.records()
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_join_is_reported_at_once_and_once_more() {
        let mut b = Bench::new();
        assert_eq!(b.set(exclude(&[])), [(ToEx, vec![])]);
        assert!(
            b.after(EARLIEST_REPEAT - Duration::from_millis(1))
                .is_empty()
        );
        assert_eq!(b.after(SECOND), [(ToEx, vec![])]);
        assert!(b.after(SECOND * 1000).is_empty());
        assert!(b.set(exclude(&[])).is_empty(), "no change, no report");
    }

    #[test]
    fn a_part_is_reported_at_once_and_once_more_and_leaves_nothing() {
        let mut b = Bench::new();
        b.set(exclude(&[]));
        b.after(SECOND);
        assert_eq!(b.set(None), [(ToIn, vec![])]);
        assert_eq!(b.after(SECOND), [(ToIn, vec![])]);
        assert_eq!(
            (b.proxy.len(), b.proxy.pending(), b.proxy.next_timeout()),
            (0, 0, None)
        );
    }

    #[test]
    fn source_changes_are_allow_and_block() {
        let mut b = Bench::new();
        assert_eq!(b.set(include(&[1])), [(Allow, vec![1])]);
        assert_eq!(b.after(SECOND), [(Allow, vec![1])]);
        assert_eq!(b.set(include(&[2])), [(Allow, vec![2]), (Block, vec![1])]);
        assert_eq!(b.after(SECOND), [(Allow, vec![2]), (Block, vec![1])]);
        assert_eq!(b.set(None), [(Block, vec![2])]);
        assert_eq!(b.after(SECOND), [(Block, vec![2])]);
        assert_eq!(b.proxy.len(), 0);
    }

    #[test]
    fn mode_changes_carry_the_sources() {
        let mut b = Bench::new();
        assert_eq!(b.set(exclude(&[1])), [(ToEx, vec![1])]);
        assert_eq!(b.set(exclude(&[2])), [(Allow, vec![1]), (Block, vec![2])]);
        assert_eq!(b.set(include(&[3])), [(ToIn, vec![3])]);
        assert_eq!(
            b.after(SECOND),
            [(ToIn, vec![3])],
            "one repeat, of what holds now"
        );
    }

    #[test]
    fn quick_changes_share_one_repeat() {
        let mut b = Bench::new();
        for _ in 0..50 {
            assert_eq!(b.set(exclude(&[])), [(ToEx, vec![])]);
            assert_eq!(b.set(None), [(ToIn, vec![])]);
        }
        assert_eq!(b.after(SECOND * 5), [(ToIn, vec![])]);
        b.set(include(&[1]));
        b.set(include(&[1, 2]));
        b.set(include(&[2]));
        assert_eq!(b.after(SECOND * 5), [(Allow, vec![2]), (Block, vec![1])]);
    }

    #[test]
    fn queries_are_answered_with_the_current_state() {
        let mut b = Bench::new();
        b.set(include(&[1, 2]));
        b.after(SECOND);
        assert_eq!(b.ask(&query(None, &[])), [(IsIn, vec![1, 2])]);
        b.after(SECOND);
        assert_eq!(b.ask(&query(Some(G), &[])), [(IsIn, vec![1, 2])]);
        b.after(SECOND);
        assert_eq!(b.ask(&query(Some(G), &[2, 3])), [(IsIn, vec![2])]);
        b.after(SECOND);
        assert!(b.ask(&query(Some(G), &[3])).is_empty());
        assert!(
            b.ask(&query(Some(source(1)), &[])).is_empty(),
            "another group"
        );
        b.set(exclude(&[3]));
        b.after(SECOND * 2);
        assert_eq!(b.ask(&query(Some(G), &[2, 3])), [(IsIn, vec![2])]);
        b.after(SECOND);
        assert_eq!(b.ask(&query(None, &[])), [(IsEx, vec![3])]);
    }

    #[test]
    fn general_answers_are_paced_and_not_multiplied() {
        let mut b = Bench::new();
        for n in 0..5000u16 {
            let group = Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 1, n);
            b.proxy.set(group, exclude(&[]), b.now).unwrap();
        }
        b.records();
        b.after(SECOND * 2);
        assert_eq!(b.ask(&query(None, &[])).len(), RECORDS_PER_TURN);
        let mut rest = 0;
        for _ in 0..50 {
            b.proxy.handle_query(&query(None, &[]), b.now);
            rest += b.after(Duration::from_millis(10)).len();
        }
        assert_eq!(
            rest,
            5000 - RECORDS_PER_TURN,
            "all within half a second, each once"
        );
        assert_eq!(
            b.after(SECOND * 2).len(),
            5000,
            "one more answer for all who asked meanwhile"
        );
        assert!(b.after(SECOND * 100).is_empty());
    }

    #[test]
    fn before_the_start_nothing_is_reported_and_nothing_is_lost() {
        let mut b = Bench {
            now: start(),
            proxy: Proxy::new(usize::MAX, 1),
        };
        assert!(b.set(exclude(&[])).is_empty());
        assert_eq!(b.proxy.next_timeout(), None);
        b.proxy.start();
        assert_eq!(b.ask(&query(None, &[])), [(IsEx, vec![])]);
    }
}
