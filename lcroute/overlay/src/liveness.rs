//! Is the other end of a link still there?
//!
//! ```text
//! alive --400 ms without a sign--> suspected (20 probes a second) --500 ms more--> down
//!       <-----------------------------any sign of life
//! ```
//!
//! A probe is an ICE consent check: authenticated, answered by the far side's ICE itself, and outside
//! SCTP, which stalls for seconds at a few percent of loss. Signs of life are authenticated probes,
//! their answers, and messages that came out of DTLS.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::stun::{TxId, new_id};

const PROBE_EVERY: Duration = Duration::from_millis(333);
const PROBE_EVERY_SUSPECTED: Duration = Duration::from_millis(50);
const SILENCE: Duration = Duration::from_millis(400);
const SUSPICION: Duration = Duration::from_millis(500);
/// A process that slept must not blame the peer: so many probes go unanswered before a link is down.
const LEAST_PROBES: u32 = 6;
/// A probe that is not answered by then counts as lost.
const LOST_AFTER: Duration = Duration::from_secs(1);
const MAX_OUTSTANDING: usize = 64;

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing.
    Wait,
    /// Send a probe with this transaction.
    Probe(TxId),
    /// The link is dead.
    Down,
}

/// Liveness of one link.
#[derive(Debug)]
pub(crate) struct Liveness {
    /// Probes of all links go out at this time and whole multiples of [`PROBE_EVERY`] later: a node with
    /// many links wakes no more often than one with few.
    epoch: Instant,
    heard: Instant,
    suspected: Option<(Instant, u32)>,
    next_probe: Instant,
    outstanding: VecDeque<(TxId, Instant)>,
    rtt: Option<Duration>,
    loss: f64,
}

impl Liveness {
    pub(crate) fn new(epoch: Instant, now: Instant) -> Self {
        Self {
            epoch,
            heard: now,
            suspected: None,
            next_probe: now,
            outstanding: VecDeque::new(),
            rtt: None,
            loss: 0.0,
        }
    }

    /// A sign of life.
    pub(crate) fn heard(&mut self, now: Instant) {
        self.heard = now;
        if self.suspected.take().is_some() {
            self.next_probe = self.next_common(now);
        }
    }

    /// The time of the next probe, about [`PROBE_EVERY`] from now.
    fn next_common(&self, now: Instant) -> Instant {
        let since = now.saturating_duration_since(self.epoch);
        let past = since.as_nanos() % PROBE_EVERY.as_nanos();
        // less than a period, which fits
        let left = PROBE_EVERY - Duration::from_nanos(past as u64);
        let soon = left < PROBE_EVERY / 8;
        now + if soon { left + PROBE_EVERY } else { left }
    }

    /// Somebody says that the link is dead: find out now.
    pub(crate) fn suspect(&mut self, now: Instant) {
        if self.suspected.is_none() {
            self.suspected = Some((now, 0));
            self.next_probe = now;
        }
    }

    /// A probe was answered; false if it is not one of ours.
    pub(crate) fn answered(&mut self, id: TxId, now: Instant) -> bool {
        let Some(at) = self.outstanding.iter().position(|(known, _)| *known == id) else {
            return false;
        };
        if let Some((_, sent)) = self.outstanding.remove(at) {
            let sample = now.saturating_duration_since(sent);
            self.rtt = Some(self.rtt.map_or(sample, |rtt| (rtt * 7 + sample) / 8));
        }
        self.count(false);
        self.heard(now);
        true
    }

    /// To be called at [`Self::deadline`], or whenever.
    pub(crate) fn poll(&mut self, now: Instant) -> Verdict {
        self.forget_lost(now);
        if self.suspected.is_none() && now.saturating_duration_since(self.heard) >= SILENCE {
            self.suspect(now);
        }
        if let Some((since, probes)) = self.suspected
            && now >= since + SUSPICION
            && probes >= LEAST_PROBES
        {
            return Verdict::Down;
        }
        if now < self.next_probe {
            return Verdict::Wait;
        }
        self.next_probe = match &mut self.suspected {
            Some((_, probes)) => {
                *probes += 1;
                now + PROBE_EVERY_SUSPECTED
            }
            None => self.next_common(now),
        };
        let id = new_id();
        if self.outstanding.len() == MAX_OUTSTANDING {
            self.outstanding.pop_front();
        }
        self.outstanding.push_back((id, now));
        Verdict::Probe(id)
    }

    /// When to poll next.
    pub(crate) fn deadline(&self) -> Instant {
        let judge = match self.suspected {
            Some((since, probes)) if probes >= LEAST_PROBES => since + SUSPICION,
            Some(_) => self.next_probe,
            None => self.heard + SILENCE,
        };
        judge.min(self.next_probe)
    }

    /// Smoothed round trip.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// Share of probes that were not answered, over the last few dozen.
    pub(crate) fn loss(&self) -> f64 {
        self.loss
    }

    fn forget_lost(&mut self, now: Instant) {
        while let Some((_, sent)) = self.outstanding.front() {
            if now.saturating_duration_since(*sent) < LOST_AFTER {
                return;
            }
            self.outstanding.pop_front();
            self.count(true);
        }
    }

    fn count(&mut self, lost: bool) {
        let sample = if lost { 1.0 } else { 0.0 };
        self.loss += (sample - self.loss) / 32.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the clock for `span`; `answer` says whether the probe sent at a time is answered.
    fn run(
        live: &mut Liveness,
        start: Instant,
        span: Duration,
        answer: impl Fn(Duration) -> bool,
    ) -> Option<Duration> {
        let mut now = start;
        loop {
            match live.poll(now) {
                Verdict::Down => return Some(now - start),
                Verdict::Probe(id) if answer(now - start) => {
                    assert!(live.answered(id, now + Duration::from_millis(1)));
                }
                _ => {}
            }
            now = live.deadline().max(now + Duration::from_millis(1));
            if now - start > span {
                return None;
            }
        }
    }

    #[test]
    fn a_peer_that_answers_lives() {
        let start = Instant::now();
        let mut live = Liveness::new(start, start);
        assert_eq!(
            run(&mut live, start, Duration::from_secs(60), |_| true),
            None
        );
        assert!(live.rtt().is_some());
        assert!(live.loss() < 0.001);
    }

    #[test]
    fn all_links_of_a_node_probe_at_once() {
        let epoch = Instant::now();
        let next = |late: u64| {
            let now = epoch + Duration::from_millis(late);
            let mut live = Liveness::new(epoch, now);
            assert!(matches!(live.poll(now), Verdict::Probe(_)));
            live.next_probe - epoch
        };
        assert_eq!(next(0), PROBE_EVERY);
        assert_eq!(next(100), PROBE_EVERY);
        assert_eq!(next(320), PROBE_EVERY * 2, "not again at once");
        assert_eq!(next(1_000), PROBE_EVERY * 4);
    }

    #[test]
    fn a_dead_peer_is_noticed_within_about_a_second() {
        let start = Instant::now();
        let mut live = Liveness::new(start, start);
        let at = run(&mut live, start, Duration::from_secs(60), |t| {
            t < Duration::from_secs(5)
        })
        .unwrap();
        assert!(
            at > Duration::from_millis(5_400) && at < Duration::from_millis(6_300),
            "{at:?}"
        );
    }

    #[test]
    fn a_gap_shorter_than_the_suspicion_is_forgiven() {
        let start = Instant::now();
        let mut live = Liveness::new(start, start);
        let gap = |t: Duration| !(5_000..5_600).contains(&t.as_millis());
        assert_eq!(run(&mut live, start, Duration::from_secs(20), gap), None);
        assert!(live.loss() > 0.0);
    }

    #[test]
    fn who_slept_asks_before_it_judges() {
        let start = Instant::now();
        let mut live = Liveness::new(start, start);
        live.heard(start);
        let woke = start + Duration::from_secs(30);
        assert!(matches!(live.poll(woke), Verdict::Probe(_)));
        assert_ne!(
            live.poll(woke + Duration::from_secs(1)),
            Verdict::Down,
            "asleep again"
        );
        live.heard(woke + Duration::from_secs(1));
        assert_eq!(live.poll(woke + Duration::from_secs(1)), Verdict::Wait);
    }

    #[test]
    fn strangers_answers_do_not_count() {
        let start = Instant::now();
        let mut live = Liveness::new(start, start);
        assert!(matches!(live.poll(start), Verdict::Probe(_)));
        assert!(!live.answered([0; 12], start));
    }
}
