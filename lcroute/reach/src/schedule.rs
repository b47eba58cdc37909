//! The schedule of puts and look-ups, and the handling of their answers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use librecast::reach::{Item, Key, MAX_VALUE, Plan, Value};

/// Interval of puts of held items: nodes may drop them after two hours (BEP 44).
const REPUT: Duration = Duration::from_secs(3_600);
/// Pause after a put that no node accepted; it doubles up to [`REPUT`] / 6.
const FIRST_RETRY: Duration = Duration::from_secs(5);
/// Pause between the first two look-ups of a key; it doubles. Chosen: two hosts that start together
/// find each other by the second or third.
const FIRST_PAUSE: Duration = Duration::from_secs(4);
/// Maximum pause for a sought node, which puts its record at least once an hour.
const SEEK_PAUSE: Duration = Duration::from_secs(3_600);
/// Maximum pause for a key to which any member may write. Chosen: the maximum wait of a new node.
const WATCH_PAUSE: Duration = Duration::from_secs(120);
/// Time after a task within which a retry of everything skips it: paths change repeatedly.
const LATELY: Duration = Duration::from_secs(3);
/// Maximum number of simultaneous puts and look-ups: each has some dozen requests under way.
const MAX_AT_ONCE: usize = 4;

/// A task for the DHT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Task {
    /// Store this item on nodes.
    Put(Item),
    /// Look up this key.
    Get(Key),
}

/// The result of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Done {
    /// Nodes hold the item, or do not for this reason.
    Put(Key, Result<(), Refused>),
    /// Signed values of nodes.
    Got(Key, Vec<(i64, Vec<u8>)>),
}

/// The reason for which no node holds an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Nodes have an item with a higher sequence.
    Newer,
    /// Nodes do not accept its signature or length.
    Invalid,
    /// No node answers.
    Silent,
}

impl Refused {
    const fn name(self) -> &'static str {
        match self {
            Self::Newer => "put_newer_exists",
            Self::Invalid => "put_invalid",
            Self::Silent => "put_unanswered",
        }
    }
}

/// A value exceeds the maximum length of a record.
const TOO_LONG: &str = "value_too_long";
/// A value is older than one seen before.
const STALE: &str = "value_stale";

/// The schedule of one key.
#[derive(Debug, Clone, Copy)]
struct Timer {
    next: Instant,
    pause: Duration,
    last: Option<Instant>,
    under_way: bool,
}

impl Timer {
    fn new(pause: Duration, now: Instant) -> Self {
        Self {
            next: now,
            pause,
            last: None,
            under_way: false,
        }
    }

    fn begin(&mut self, now: Instant) {
        self.under_way = true;
        self.last = Some(now);
    }

    /// Ends a task; the next one follows after a pause that doubles up to `most`.
    fn end(&mut self, most: Duration, now: Instant) {
        self.under_way = false;
        self.next = now + self.pause.min(most);
        self.pause = (self.pause * 2).min(most);
    }

    fn restart(&mut self, pause: Duration, now: Instant) {
        let lately = self.last.map(|last| last + LATELY);
        self.next = lately.map_or(now, |at| at.max(now));
        self.pause = pause;
    }
}

#[derive(Debug)]
struct Holding {
    item: Item,
    timer: Timer,
    held: bool,
}

#[derive(Debug)]
struct Lookup {
    timer: Timer,
    /// Many sign values of this key: no sequence makes another value old.
    is_mailbox: bool,
    /// The values of the last look-up that found any, as far as they count: the newest, or all of
    /// a mailbox.
    known: BTreeSet<(i64, Vec<u8>)>,
}

impl Lookup {
    /// The maximum pause between two look-ups.
    fn most(&self) -> Duration {
        match self.is_mailbox {
            true => WATCH_PAUSE,
            false => SEEK_PAUSE,
        }
    }
}

/// The daemon's plan, and its progress.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    round: u64,
    holdings: BTreeMap<Key, Holding>,
    lookups: BTreeMap<Key, Lookup>,
    dropped: BTreeMap<&'static str, u64>,
}

impl Schedule {
    /// Applies a plan; unchanged parts continue.
    pub(crate) fn set_plan(&mut self, plan: &Plan, now: Instant) {
        let hold: BTreeMap<_, _> = plan.hold.iter().map(|item| (item.key, item)).collect();
        self.holdings.retain(|key, _| hold.contains_key(key));
        for (key, item) in hold {
            let holding = self.holdings.entry(key).or_insert_with(|| Holding {
                item: item.clone(),
                timer: Timer::new(FIRST_RETRY, now),
                held: false,
            });
            if holding.item != *item {
                holding.item = item.clone();
                holding.held = false;
                holding.timer.restart(FIRST_RETRY, now);
            }
        }
        let seek = plan.seek.iter().map(|key| (*key, false));
        let watch = plan.watch.iter().map(|key| (*key, true));
        let keys: BTreeMap<_, _> = seek.chain(watch).collect();
        self.lookups.retain(|key, _| keys.contains_key(key));
        for (key, is_mailbox) in keys {
            let lookup = self.lookups.entry(key).or_insert_with(|| Lookup {
                timer: Timer::new(FIRST_PAUSE, now),
                is_mailbox,
                known: BTreeSet::new(),
            });
            lookup.is_mailbox = is_mailbox;
        }
        if std::mem::replace(&mut self.round, plan.round) != plan.round {
            self.try_again(now);
        }
    }

    /// Retries everything after a change of paths.
    pub(crate) fn try_again(&mut self, now: Instant) {
        for holding in self.holdings.values_mut() {
            holding.timer.restart(FIRST_RETRY, now);
        }
        for lookup in self.lookups.values_mut() {
            lookup.timer.restart(FIRST_PAUSE, now);
        }
    }

    /// Returns the next task that is due.
    pub(crate) fn poll_task(&mut self, now: Instant) -> Option<Task> {
        let holdings = self.holdings.values().map(|h| &h.timer);
        let timers = holdings.chain(self.lookups.values().map(|l| &l.timer));
        if timers.filter(|timer| timer.under_way).count() >= MAX_AT_ONCE {
            return None;
        }
        let is_due = |timer: &Timer| !timer.under_way && timer.next <= now;
        // the task of either kind that has waited longest comes first
        let put = self.holdings.iter_mut().filter(|(_, h)| is_due(&h.timer));
        let put = put.min_by_key(|(_, h)| h.timer.next);
        let get = self.lookups.iter_mut().filter(|(_, l)| is_due(&l.timer));
        let get = get.min_by_key(|(_, l)| l.timer.next);
        let gets_first = match (&put, &get) {
            (Some((_, put)), Some((_, get))) => get.timer.next < put.timer.next,
            (put, _) => put.is_none(),
        };
        if gets_first {
            let (key, lookup) = get?;
            lookup.timer.begin(now);
            return Some(Task::Get(*key));
        }
        let (_, holding) = put?;
        holding.timer.begin(now);
        Some(Task::Put(holding.item.clone()))
    }

    /// Returns the time of the next task, unless another one ends before.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let holdings = self.holdings.values().map(|h| &h.timer);
        let timers = holdings.chain(self.lookups.values().map(|l| &l.timer));
        let waiting = timers.filter(|timer| !timer.under_way);
        waiting.map(|timer| timer.next).min()
    }

    /// Handles a result; returns new values for the daemon.
    pub(crate) fn handle(&mut self, done: Done, now: Instant) -> Vec<(Key, Value)> {
        match done {
            Done::Put(key, result) => {
                if let Err(refused) = result {
                    self.count(refused.name());
                }
                let Some(holding) = self.holdings.get_mut(&key) else {
                    return Vec::new();
                };
                holding.held = result.is_ok();
                match result {
                    Ok(()) => {
                        holding.timer.under_way = false;
                        holding.timer.pause = FIRST_RETRY;
                        holding.timer.next = now + REPUT;
                    }
                    Err(_) => holding.timer.end(REPUT / 6, now),
                }
                Vec::new()
            }
            Done::Got(key, values) => {
                let fits = self.fitting(values);
                self.handle_found(key, fits, now)
            }
        }
    }

    /// Handles the values that a look-up has found. Of a key with one owner the newest counts: nodes
    /// may answer with old ones. In a mailbox each counts: any member could hide all others by a high
    /// sequence.
    fn handle_found(
        &mut self,
        key: Key,
        mut found: BTreeSet<(i64, Vec<u8>)>,
        now: Instant,
    ) -> Vec<(Key, Value)> {
        let Some(lookup) = self.lookups.get_mut(&key) else {
            return Vec::new();
        };
        lookup.timer.end(lookup.most(), now);
        if !lookup.is_mailbox {
            found = found.pop_last().into_iter().collect();
            if !found.is_empty() && found.last() < lookup.known.last() {
                self.count(STALE);
                return Vec::new();
            }
        }
        if found.is_empty() {
            return Vec::new();
        }
        let is_known = |value: &Vec<u8>| lookup.known.iter().any(|(_, known)| known == value);
        if lookup.is_mailbox && !found.iter().all(|(_, value)| is_known(value)) {
            // a node holds one record: other nodes may wait to write theirs
            lookup.timer.pause = FIRST_PAUSE;
            lookup.timer.next = now + FIRST_PAUSE;
        }
        let news = found.difference(&lookup.known);
        let news = news.map(|(_, value)| (key, Value(value.clone()))).collect();
        lookup.known = found;
        news
    }

    /// Returns the values that are short enough to be records.
    fn fitting(&mut self, values: Vec<(i64, Vec<u8>)>) -> BTreeSet<(i64, Vec<u8>)> {
        let (fits, long): (BTreeSet<_>, BTreeSet<_>) = values
            .into_iter()
            .partition(|(_, value)| value.len() <= MAX_VALUE);
        if !long.is_empty() {
            self.count(TOO_LONG);
        }
        fits
    }

    fn count(&mut self, reason: &'static str) {
        let count = self.dropped.entry(reason).or_default();
        *count = count.saturating_add(1);
    }

    pub(crate) fn stored(&self) -> usize {
        self.holdings.values().filter(|h| h.held).count()
    }

    pub(crate) fn dropped(&self) -> BTreeMap<String, u64> {
        let all = self.dropped.iter();
        all.map(|(reason, count)| ((*reason).to_owned(), *count))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use librecast::reach::Base58;
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const NOTHING: [Vec<u8>; 0] = [];

    fn key(n: u8) -> Key {
        Base58([n; 32])
    }

    fn item(n: u8, sequence: i64) -> Item {
        Item {
            key: key(n),
            sequence,
            value: Value(vec![n; 256]),
            signature: Base58([n; 64]),
        }
    }

    fn seeking(seek: &[u8], watch: &[u8]) -> Plan {
        Plan {
            seek: seek.iter().map(|n| key(*n)).collect(),
            watch: watch.iter().map(|n| key(*n)).collect(),
            ..Plan::default()
        }
    }

    /// Runs due tasks for `seconds`, each look-up finding `values`; returns their start times.
    fn times(schedule: &mut Schedule, from: Instant, seconds: u64) -> Vec<u64> {
        let mut times = Vec::new();
        let mut now = from;
        while let Some(at) = schedule.next_timeout()
            && at <= from + SECOND * seconds as u32
        {
            now = at.max(now);
            while let Some(task) = schedule.poll_task(now) {
                times.push((now - from).as_secs());
                let done = match task {
                    Task::Put(item) => Done::Put(item.key, Ok(())),
                    Task::Get(key) => Done::Got(key, Vec::new()),
                };
                schedule.handle(done, now);
            }
        }
        times
    }

    #[test]
    fn who_is_away_is_sought_more_and_more_rarely_and_a_mailbox_steadily() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        schedule.set_plan(&seeking(&[1], &[]), now);
        let sought = times(&mut schedule, now, 86_400);
        assert_eq!(sought[..5], [0, 4, 12, 28, 60]);
        assert!((24..36).contains(&sought.len()), "{sought:?}");
        schedule.set_plan(&seeking(&[], &[2]), now);
        let watched = times(&mut schedule, now, 3_600);
        let pauses = watched.windows(2).all(|w| w[1] - w[0] <= 120);
        assert!(pauses && (30..38).contains(&watched.len()), "{watched:?}");
    }

    #[test]
    fn what_is_held_is_put_each_hour_and_at_once_when_it_is_new() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        let plan = |sequence| Plan {
            hold: vec![item(1, sequence)],
            ..Plan::default()
        };
        schedule.set_plan(&plan(1), now);
        assert_eq!(times(&mut schedule, now, 7_200), [0, 3_600, 7_200]);
        assert_eq!(schedule.stored(), 1);
        let later = now + SECOND * 8_000;
        schedule.set_plan(&plan(2), later);
        assert_eq!(
            (schedule.stored(), schedule.next_timeout()),
            (0, Some(later))
        );
        assert_eq!(schedule.poll_task(later), Some(Task::Put(item(1, 2))));
        let refused = Done::Put(key(1), Err(Refused::Newer));
        schedule.handle(refused, later);
        assert_eq!(schedule.next_timeout(), Some(later + FIRST_RETRY));
        assert_eq!(schedule.dropped()["put_newer_exists"], 1);
        schedule.set_plan(&Plan::default(), later);
        assert_eq!(schedule.next_timeout(), None);
    }

    #[test]
    fn another_round_tries_all_anew_but_not_what_was_done_just_now() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        let mut plan = seeking(&[1], &[]);
        schedule.set_plan(&plan, now);
        times(&mut schedule, now, 3_600);
        let later = now + SECOND * 4_000;
        plan.round = 1;
        schedule.set_plan(&plan, later);
        assert_eq!(times(&mut schedule, later, 5), [0, 4]);
        plan.round = 2;
        let again = later + SECOND * 5;
        schedule.set_plan(&plan, again);
        assert_eq!(schedule.next_timeout(), Some(later + SECOND * 4 + LATELY));
    }

    #[test]
    fn few_things_are_done_at_a_time() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        let keys: Vec<u8> = (0..20).collect();
        schedule.set_plan(&seeking(&keys, &[]), now);
        let tasks: Vec<_> = std::iter::from_fn(|| schedule.poll_task(now)).collect();
        assert_eq!(tasks.len(), MAX_AT_ONCE);
        let Task::Get(first) = tasks[0] else {
            panic!("{tasks:?}");
        };
        schedule.handle(Done::Got(first, Vec::new()), now);
        assert!(schedule.poll_task(now).is_some() && schedule.poll_task(now).is_none());
    }

    #[test]
    fn stale_and_long_values_are_dropped_by_name_and_a_new_one_is_passed_on_once() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        schedule.set_plan(&seeking(&[1], &[]), now);
        let mut got = |values: Vec<(i64, Vec<u8>)>| {
            let found = schedule.handle(Done::Got(key(1), values), now);
            let found: Vec<_> = found.into_iter().map(|(_, value)| value.0).collect();
            (found, schedule.dropped())
        };
        let long = vec![0; MAX_VALUE + 1];
        let (found, dropped) = got(vec![(9, long), (5, vec![5]), (3, vec![3])]);
        assert_eq!((found, dropped[TOO_LONG]), (vec![vec![5]], 1));
        let (found, dropped) = got(vec![(4, vec![4])]);
        assert_eq!((found, dropped[STALE]), (vec![], 1));
        assert_eq!(got(vec![(5, vec![5])]).0, NOTHING);
        assert_eq!(got(vec![(6, vec![6])]).0, [vec![6]]);
        // the key is not sought any more
        let unasked = Done::Got(key(7), vec![(1, vec![1])]);
        assert_eq!(schedule.handle(unasked, now), []);
    }

    #[test]
    fn in_a_mailbox_no_sequence_hides_another_value() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        schedule.set_plan(&seeking(&[], &[1]), now);
        let mut got = |values: &[(i64, u8)]| {
            let values = values.iter().map(|(sequence, n)| (*sequence, vec![*n]));
            let found = schedule.handle(Done::Got(key(1), values.collect()), now);
            let found: Vec<_> = found.into_iter().map(|(_, value)| value.0).collect();
            (found, schedule.lookups[&key(1)].timer.pause)
        };
        let liar = (i64::MAX, 0);
        assert_eq!(got(&[liar]).0, [[0]]);
        assert_eq!(got(&[(7, 1), liar]).0, [[1]], "from another node");
        // other nodes may wait behind a new value in a mailbox, but none behind a renewed one
        assert_eq!(got(&[(6, 2)]), (vec![vec![2]], FIRST_PAUSE));
        assert_eq!(got(&[(6, 2)]), (vec![], FIRST_PAUSE * 2));
        assert_eq!(got(&[(8, 2)]), (vec![vec![2]], FIRST_PAUSE * 4));
        assert_eq!(got(&[]).0, NOTHING);
        assert_eq!(got(&[(8, 2)]).0, NOTHING);
    }

    proptest! {
        #[test]
        fn whatever_is_found_the_sequence_never_falls(
            answers in prop::collection::vec(
                prop::collection::vec((any::<i64>(), prop::collection::vec(any::<u8>(), 0..600)), 0..5),
                0..20,
            )
        ) {
            let (mut schedule, now) = (Schedule::default(), Instant::now());
            schedule.set_plan(&seeking(&[1], &[]), now);
            let mut last: Option<(i64, Vec<u8>)> = None;
            for values in answers {
                let known = values.clone();
                let found = schedule.handle(Done::Got(key(1), values), now);
                prop_assert!(found.len() <= 1);
                let Some((_, value)) = found.into_iter().next() else {
                    continue;
                };
                prop_assert!(value.0.len() <= MAX_VALUE);
                let newest = known.into_iter().filter(|(_, v)| *v == value.0).max();
                prop_assert!(newest > last);
                last = newest;
            }
        }
    }
}
