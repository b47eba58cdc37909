//! Several paths for one unit: where the link that its only copy goes over is full, or a steady
//! rate shows that something behind it may be, carriers behind other links take parts.
//!
//! ```text
//! one path --full, or steady--> parts spread evenly --full, and another not--> a part moves
//!                                  \--10 s later not a tenth more--> one path, for ten minutes
//! ```

use std::collections::{BTreeMap, BTreeSet};

use librecast::id::OriginId;
use librecast::time::{Duration, Instant};

/// Routers asked for one unit, and searches without any. Chosen: most of many refuse, as they do
/// not listen.
const MOST_ASKED: usize = 8;
/// A part moves to a path with room this often. Chosen: a queue shows within a second, and
/// listeners follow.
const MOVE_INTERVAL: Duration = Duration::from_secs(3);
/// The time after which several paths must have brought more, and the part of it in which listeners
/// change over. Chosen.
const TRIAL: Duration = Duration::from_secs(10);
const CHANGE_OVER: Duration = Duration::from_secs(3);
/// The share of the former progress that counts as more, in percent. Chosen.
const GAIN: u64 = 110;
/// The least number of groups that had all before, so that these count, and not the rate. Chosen.
const LEAST_DONE: u64 = 8;

/// The holder of a part: a carrier, or nobody, so that it stays on the sender's own tree.
pub type Holder = Option<OriginId>;

/// The gain of a unit in some seconds.
///
/// A sender of files sends more than its paths carry, so its rate shows no gain. Its listeners
/// leave a group once they have all of it: these groups count, where there are enough.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// The sum of the rates of these seconds, in bits a second.
    pub rate: u64,
    /// Groups that all listeners have left.
    pub done: u64,
    /// How many seconds.
    pub seconds: u64,
}

impl Progress {
    pub fn add(&mut self, other: Self) {
        self.rate = self.rate.saturating_add(other.rate);
        self.done = self.done.saturating_add(other.done);
        self.seconds += other.seconds;
    }

    /// Whether it is at least [`GAIN`] of `before` in the same time.
    fn is_more_than(self, before: Self) -> bool {
        let counts = before.done >= LEAST_DONE;
        let of = |x: Self| if counts { x.done } else { x.rate };
        let (new, old) = (of(self), of(before));
        let new = new.saturating_mul(before.seconds).saturating_mul(100);
        new >= old.saturating_mul(self.seconds).saturating_mul(GAIN)
    }
}

/// Parts by holder.
pub type Shares = BTreeMap<Holder, usize>;

/// The paths of one unit.
#[derive(Debug)]
pub struct Paths {
    /// The link of the sender's own tree.
    first: OriginId,
    /// The link that leads to each carrier.
    links: BTreeMap<OriginId, OriginId>,
    declined: BTreeSet<OriginId>,
    asked: usize,
    /// Progress over one path.
    before: Progress,
    /// Progress over several paths.
    tried: Progress,
    /// When the first part was carried.
    since: Option<Instant>,
    /// Several paths have brought more.
    is_better: bool,
    moved: Instant,
}

impl Paths {
    /// The unit goes over the link to `first` alone, with this progress.
    pub fn new(first: OriginId, before: Progress, now: Instant) -> Self {
        Self {
            first,
            links: BTreeMap::new(),
            declined: BTreeSet::new(),
            asked: 0,
            before,
            tried: Progress::default(),
            since: None,
            is_better: false,
            moved: now,
        }
    }

    /// Takes the progress of the last second.
    pub fn measured(&mut self, progress: Progress, held: &Shares, now: Instant) {
        if !held.keys().any(Option::is_some) {
            (self.since, self.tried) = (None, Progress::default());
            return;
        }
        let since = *self.since.get_or_insert(now);
        if now >= since + CHANGE_OVER {
            self.tried.add(progress);
        }
    }

    /// Whether several paths were tried for long enough, and brought no more than one.
    pub fn is_in_vain(&mut self, now: Instant) -> bool {
        let is_tried = self.since.is_some_and(|since| now >= since + TRIAL);
        if self.is_better || !is_tried || self.tried.seconds == 0 {
            return false;
        }
        self.is_better = self.tried.is_more_than(self.before);
        !self.is_better
    }

    /// Links that parts go over, the first included.
    pub fn links(&self, held: &Shares) -> BTreeSet<OriginId> {
        let carriers = held.keys().flatten();
        let others = carriers.filter_map(|carrier| self.links.get(carrier));
        others.copied().chain([self.first]).collect()
    }

    /// Whether another router may be asked.
    pub fn may_ask(&self) -> bool {
        self.asked < MOST_ASKED
    }

    /// Notes that a router refused.
    pub fn decline(&mut self, carrier: OriginId) {
        self.declined.insert(carrier);
    }

    /// Whether a router has not refused.
    pub fn is_open(&self, carrier: OriginId) -> bool {
        !self.declined.contains(&carrier)
    }

    /// Parts that move to new carriers, by link: each path gets as many as the others.
    pub fn spread(
        &mut self,
        mut held: Shares,
        detours: BTreeMap<OriginId, OriginId>,
    ) -> Vec<(Holder, Holder)> {
        if detours.is_empty() {
            self.asked += 1;
        }
        let ways = self.links(&held).len() + detours.len();
        let share = held.values().sum::<usize>() / ways;
        let mut moves = Vec::new();
        for (link, carrier) in detours {
            self.asked += 1;
            self.links.insert(carrier, link);
            for _ in 0..share {
                let most = held.iter().max_by_key(|(_, parts)| **parts);
                let Some(from) = most.map(|(holder, _)| *holder) else {
                    break;
                };
                moves.push((from, Some(carrier)));
                if let Some(parts) = held.get_mut(&from) {
                    *parts -= 1;
                }
            }
            held.insert(Some(carrier), share);
        }
        moves
    }

    /// Parts that move from a path over a full link to one with room: one, more from a path with
    /// many. Each keeps one.
    pub fn balance(
        &mut self,
        held: &Shares,
        full: &BTreeSet<OriginId>,
        now: Instant,
    ) -> Vec<(Holder, Holder)> {
        if held.len() < 2 || now < self.moved + MOVE_INTERVAL {
            return Vec::new();
        }
        let is_full = |holder: &Holder| {
            let link = holder.map_or(Some(self.first), |x| self.links.get(&x).copied());
            link.is_some_and(|link| full.contains(&link))
        };
        let (from, to): (Vec<_>, Vec<_>) = held.iter().partition(|(holder, _)| is_full(holder));
        let from = from.iter().max_by_key(|(_, parts)| **parts);
        let to = to.iter().min_by_key(|(_, parts)| **parts);
        let (Some((from, many)), Some((to, few))) = (from, to) else {
            return Vec::new();
        };
        let moved = (many.saturating_sub(**few) / 4).max(1).min(**many - 1);
        if moved > 0 {
            self.moved = now;
        }
        vec![(**from, **to); moved]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    const N2: OriginId = OriginId(2);
    const N3: OriginId = OriginId(3);
    const N4: OriginId = OriginId(4);
    const SECOND: Duration = Duration::from_secs(1);

    fn second(rate: u64, done: u64) -> Progress {
        Progress {
            rate,
            done,
            seconds: 1,
        }
    }

    fn apply(held: &mut Shares, moves: Vec<(Holder, Holder)>) {
        for (from, to) in moves {
            *held.get_mut(&from).unwrap() -= 1;
            *held.entry(to).or_default() += 1;
        }
    }

    #[test]
    fn each_path_gets_as_many_parts_and_a_full_one_gives_some_away() {
        let now = start();
        let mut paths = Paths::new(N2, second(1_000, 0), now);
        let mut held = Shares::from([(None, 16)]);
        let moves = paths.spread(held.clone(), [(N3, N3)].into());
        apply(&mut held, moves);
        assert_eq!(held, Shares::from([(None, 8), (Some(N3), 8)]));
        assert_eq!(paths.links(&held), [N2, N3].into());
        let moves = paths.spread(held.clone(), [(N4, N4)].into());
        apply(&mut held, moves);
        let mut parts: Vec<_> = held.values().copied().collect();
        parts.sort_unstable();
        assert_eq!(parts, [5, 5, 6]);
        let full = [N2].into();
        assert_eq!(paths.balance(&held, &full, now), [], "too soon");
        let then = now + MOVE_INTERVAL;
        let moves = paths.balance(&held, &full, then);
        assert!(matches!(moves[..], [(None, Some(_))]), "{moves:?}");
        assert_eq!(paths.balance(&held, &full, then), [], "one at a time");
        let all = [N2, N3, N4].into();
        assert_eq!(paths.balance(&held, &all, then + MOVE_INTERVAL), []);
        assert_eq!(paths.balance(&held, &[].into(), then + MOVE_INTERVAL), []);
        let uneven = Shares::from([(None, 15), (Some(N3), 1)]);
        let moves = paths.balance(&uneven, &full, then + MOVE_INTERVAL);
        assert_eq!(moves, [(None, Some(N3)); 3]);
    }

    #[test]
    fn paths_that_bring_no_more_are_given_up() {
        let now = start();
        for (before, rate, in_vain) in [
            ((1_000, 0), (1_050, 0), true),
            ((1_000, 0), (1_500, 0), false),
            // too few groups end
            ((1_000, 1), (1_050, 9), true),
            // more is sent than arrives
            ((1_000, 10), (1_050, 15), false),
            ((1_000, 10), (2_000, 10), true),
        ] {
            let mut one = second(before.0, before.1);
            one.add(second(before.0, before.1));
            let mut paths = Paths::new(N2, one, now);
            let held = Shares::from([(None, 8), (Some(N3), 8)]);
            for n in 0..10 {
                paths.measured(second(rate.0, rate.1), &held, now + SECOND * n);
                assert!(!paths.is_in_vain(now + SECOND * n));
            }
            assert_eq!(
                paths.is_in_vain(now + TRIAL),
                in_vain,
                "{before:?} {rate:?}"
            );
            paths.measured(second(10, 0), &held, now + TRIAL);
            let later = paths.is_in_vain(now + 2 * TRIAL);
            assert_eq!(later, in_vain, "{before:?} {rate:?}");
        }
    }
}
