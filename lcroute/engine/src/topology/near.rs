//! Links chosen by latency, beside the rings.
//!
//! ```text
//!   nearest by guess ──> trial: a link ──10 s──> one of the best two, or 25 % better
//!                                                than the worse of them?
//!                                                yes: it is chosen
//!                                                no: it ends, the next pause doubles
//!   linked already (the peer chose this node) ──once it is 10 s old──> the same, without a trial
//! ```
//!
//! Trials become rare, but links of other members are examined all the time. Otherwise a network
//! without trials would still change links an hour later.

use std::collections::{BTreeSet, VecDeque};

use librecast::id::OriginId;
use librecast::random::Random;
use librecast::time::{Duration, Instant};

use super::policy::{Prospect, Standing, View};

/// Age of a link at which its RTT is judged.
const SETTLE: Duration = Duration::from_secs(10);
/// Time after which a trial without a link ends.
const MAX_TRIAL: Duration = Duration::from_secs(30);
/// Pause before the next trial, while there are fewer links than wanted.
const FILL_PAUSE: Duration = Duration::from_secs(2);
/// Least time between swaps.
const SWAP_PAUSE: Duration = Duration::from_secs(60);
/// Longest pause between trials, which doubles after each failure.
const MAX_PAUSE: Duration = Duration::from_secs(3_600);
/// Time for which a member tried in vain is not tried again, if remembered. Chosen.
const RETRY_AFTER: Duration = Duration::from_secs(1_800);
/// Remembered members that were tried in vain. Chosen.
const MAX_REMEMBERED: usize = 64;
/// Links beyond the degree with which a member is not a candidate, and tries none: no hubs.
const MAX_EXTRA_LINKS: u16 = 1;

#[derive(Debug)]
struct Trial {
    origin: OriginId,
    since: Instant,
}

#[derive(Debug)]
pub(super) struct Near {
    count: usize,
    max_links: u16,
    chosen: Vec<OriginId>,
    trial: Option<Trial>,
    in_vain: VecDeque<(OriginId, Instant)>,
    next_trial: Instant,
    /// Time of the next look at links that other members want.
    next_adoption: Option<Instant>,
    last_swap: Option<Instant>,
    pause: Duration,
    /// Time at which the trial, if any, is judged.
    judge_at: Option<Instant>,
    random: Random,
}

impl Near {
    pub(super) fn new(count: u8, degree: u8, seed: u64, now: Instant) -> Self {
        let mut random = Random::new(seed);
        // not all members at once
        let next_trial = now + random.between(FILL_PAUSE, 5 * FILL_PAUSE);
        Self {
            count: count.into(),
            max_links: u16::from(degree) + MAX_EXTRA_LINKS,
            chosen: Vec::new(),
            trial: None,
            in_vain: VecDeque::new(),
            next_trial,
            next_adoption: None,
            last_swap: None,
            pause: SWAP_PAUSE,
            judge_at: None,
            random,
        }
    }

    /// The chosen members, and the one on trial.
    pub(super) fn wanted(&self) -> impl Iterator<Item = OriginId> {
        self.chosen.iter().copied().chain(self.on_trial())
    }

    pub(super) fn on_trial(&self) -> Option<OriginId> {
        self.trial.as_ref().map(|trial| trial.origin)
    }

    /// Whether it is time for a trial.
    pub(super) fn is_looking(&self, now: Instant) -> bool {
        self.trial.is_none() && now >= self.next_trial
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let trial = match self.trial {
            Some(_) => self.judge_at,
            None => Some(self.next_trial),
        };
        trial.into_iter().chain(self.next_adoption).min()
    }

    /// Handles one turn. `rings`: members that are wanted anyway.
    pub(super) fn update(&mut self, view: &View<'_>, rings: &BTreeSet<OriginId>, now: Instant) {
        let is_good =
            |o: &OriginId| view.standing(*o) == Some(Standing::Good) && !rings.contains(o);
        self.chosen.retain(is_good);
        if self
            .trial
            .as_ref()
            .is_some_and(|trial| !is_good(&trial.origin))
        {
            self.end_trial(false, now);
        }
        self.judge(view, now);
        self.adopt(view, rings, now);
        if self.is_looking(now) {
            self.begin_trial(view, rings, now);
        }
    }

    fn judge(&mut self, view: &View<'_>, now: Instant) {
        let Some(Trial { origin, since }) = self.trial else {
            return;
        };
        let deadline = since + MAX_TRIAL;
        let Some(link) = view.links.get(&origin) else {
            self.judge_at = Some(deadline);
            if now >= deadline {
                self.end_trial(false, now);
            }
            return;
        };
        // a trial may begin with an existing link
        let settled = link.since.max(since) + SETTLE;
        self.judge_at = Some(settled);
        if now < settled {
            return;
        }
        let better = self.choose(view, origin, now);
        self.end_trial(better, now);
    }

    /// Chooses `origin`, if it is good enough.
    fn choose(&mut self, view: &View<'_>, origin: OriginId, now: Instant) -> bool {
        let rtt = |o: &OriginId| view.links.get(o).and_then(|link| link.rtt);
        let Some(new) = rtt(&origin) else {
            return false;
        };
        if self.chosen.len() < self.count {
            self.chosen.push(origin);
            return true;
        }
        let worst = self.chosen.iter_mut().max_by_key(|o| {
            let known = rtt(o);
            (known.is_none(), known, **o)
        });
        let Some(worst) = worst else { return false };
        // a chosen member without a measured link is not compared
        let better = rtt(worst).is_some_and(|old| new * 4 <= old * 3);
        if better {
            *worst = origin;
            self.last_swap = Some(now);
        }
        better
    }

    fn end_trial(&mut self, success: bool, now: Instant) {
        let Some(trial) = self.trial.take() else {
            return;
        };
        self.judge_at = None;
        if success {
            self.pause = SWAP_PAUSE;
        } else {
            self.in_vain.push_back((trial.origin, now));
            if self.in_vain.len() > MAX_REMEMBERED {
                self.in_vain.pop_front();
            }
        }
        let pause = if self.chosen.len() < self.count {
            FILL_PAUSE
        } else {
            let pause = self.pause;
            if !success {
                self.pause = (pause * 2).min(MAX_PAUSE);
            }
            pause
        };
        self.pause_for(pause, now);
    }

    fn pause_for(&mut self, pause: Duration, now: Instant) {
        self.next_trial = now + self.random.between(pause, pause * 5 / 4);
    }

    /// Chooses peers with existing links first: these cost nothing.
    fn adopt(&mut self, view: &View<'_>, rings: &BTreeSet<OriginId>, now: Instant) {
        loop {
            let on_trial = self.on_trial();
            let is_stub = |origin| view.known.get(origin).is_some_and(|k| k.stub);
            let free = view.links.iter().filter(|(origin, _)| {
                !rings.contains(origin)
                    && !is_stub(origin)
                    && !self.chosen.contains(origin)
                    && Some(**origin) != on_trial
            });
            let settled = |since: Instant| since + SETTLE;
            let again = free.clone().map(|(_, link)| settled(link.since));
            self.next_adoption = again
                .map(|at| if at > now { at } else { now + SWAP_PAUSE })
                .min();
            if self.chosen.len() >= self.count && !self.may_swap(now) {
                return;
            }
            let best = free
                .filter(|(_, link)| settled(link.since) <= now)
                .filter_map(|(origin, link)| Some((link.rtt?, *origin)))
                .min();
            let Some((_, origin)) = best else { return };
            if !self.choose(view, origin, now) {
                return;
            }
        }
    }

    fn may_swap(&self, now: Instant) -> bool {
        self.last_swap.is_none_or(|last| now >= last + SWAP_PAUSE)
    }

    fn begin_trial(&mut self, view: &View<'_>, rings: &BTreeSet<OriginId>, now: Instant) {
        self.in_vain.retain(|(_, when)| now < *when + RETRY_AFTER);
        let full = self.chosen.len() >= self.count;
        let has_room = view.links.len() <= usize::from(self.max_links);
        let candidate = if full && !(self.may_swap(now) && has_room) {
            None
        } else {
            self.candidate(view, rings)
        };
        let Some(origin) = candidate else {
            let pause = if full { self.pause } else { 5 * FILL_PAUSE };
            self.pause_for(pause, now);
            return;
        };
        self.judge_at = Some(now + MAX_TRIAL);
        self.trial = Some(Trial { origin, since: now });
    }

    /// The nearest candidate by guess. If enough are chosen, and the guess is no nearer than any of
    /// them, it may be wrong: the nearest by path.
    fn candidate(&self, view: &View<'_>, rings: &BTreeSet<OriginId>) -> Option<OriginId> {
        let free = |prospect: &&Prospect| {
            let origin = &prospect.origin;
            prospect.links < self.max_links
                && view.standing(*origin) == Some(Standing::Good)
                && !view.links.contains_key(origin)
                && !rings.contains(origin)
                && !self.chosen.contains(origin)
                && !self.in_vain.iter().any(|(tried, _)| tried == origin)
        };
        let free = || view.prospects.iter().filter(free);
        let nearest = free().min_by_key(|prospect| (prospect.rtt, prospect.origin))?;
        let rtts = self.chosen.iter().filter_map(|o| view.links.get(o)?.rtt);
        let farthest = rtts.max().filter(|_| self.chosen.len() >= self.count);
        if farthest.is_none_or(|rtt| nearest.rtt < rtt) {
            return Some(nearest.origin);
        }
        let by_path = free().min_by_key(|prospect| (prospect.path, prospect.origin));
        by_path.map(|prospect| prospect.origin)
    }
}
