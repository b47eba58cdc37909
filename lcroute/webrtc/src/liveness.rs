//! Liveness of a link: whether its other end still answers.
//!
//! ```text
//! alive --silence: 350 ms, less on busy links-------> suspected --400 ms more--> down
//!       --the peer's host refuses a datagram--------> refused ---100 ms more--> down
//!       <----------------any sign of life-------------/
//! ```
//!
//! A hello is an ICE consent check: authenticated, answered by the peer's ICE itself, and outside
//! SCTP, which stalls for seconds at a few percent of loss. Signs of life are authentic hellos,
//! their answers, media packets, and messages decrypted by DTLS. One end sends three hellos a
//! second. The other answers them and sends one in five seconds, or three a second if some get
//! lost. An end that suspects its peer sends forty a second, which ask the peer for twenty. A link
//! counts as dead by mistake only if all these and the answers to the forty get lost. At 20 % of
//! loss each way that does not happen once in hundreds of hours.

use std::collections::VecDeque;

use lcroute_overlay::{EndReason, Random};
use librecast::time::{Duration, Instant, UnixTime};

use crate::stun::{TxId, is_same_transaction};

/// Interval of regular hellos: three a second. From adr/links.md.
const HELLO_INTERVAL: Duration = Duration::from_millis(333);
/// Factor on the interval of the answering end: about the five seconds after which consent is
/// renewed (RFC 7675 5.1). The peer's hellos show its liveness as well.
const ANSWERER_FACTOR: u32 = 15;
/// Share of lost hellos above which the answering end drops [`ANSWERER_FACTOR`]. From adr/links.md.
const ANSWERER_LOSS_MAX: f64 = 0.02;
/// Time for which it does so on a new link, and after a suspicion. From adr/links.md.
const ANSWERER_WARY_PERIOD: Duration = Duration::from_secs(10);
/// Inverse weight of the last round trip in the smoothed one (RFC 9002 5.3).
const RTT_WEIGHT: u32 = 8;
/// Round trips of which the quickest counts: hosts send hellos at once, and some
/// wait. From adr/links.md.
const RTT_SAMPLES: usize = 8;
/// Hello intervals in the common epoch. Work done once in a divisor of this number of intervals
/// happens at one moment on all hosts. Chosen: 720 has many divisors.
const EPOCH_HELLOS: u32 = 720;
/// Round trips measured at once on a new link: routes depend on them. Chosen.
const NEW_LINK_SAMPLES: usize = 3;
/// Longest time for these measurements. Chosen.
const NEW_LINK_PERIOD: Duration = Duration::from_millis(300);
/// Interval of hellos during them. Chosen.
const NEW_LINK_HELLO_INTERVAL: Duration = Duration::from_millis(25);
/// Interval of hellos to a peer that suspects this node: 20 a second. From adr/links.md.
const ASKED_HELLO_INTERVAL: Duration = Duration::from_millis(50);
/// Interval of hellos to a suspected peer: 40 a second. From adr/links.md.
const SUSPECTING_HELLO_INTERVAL: Duration = Duration::from_millis(25);
/// Silence after which a peer is suspected: a little more than a hello interval. From adr/links.md.
const SUSPECT_SILENCE: Duration = Duration::from_millis(350);
/// Least silence after which a peer of a busy link is suspected. From adr/links.md.
const SUSPECT_SILENCE_MIN: Duration = Duration::from_millis(100);
/// On such a link, silence before suspicion as a multiple of the longest recent gap. From
/// adr/links.md.
const SUSPECT_GAPS: u32 = 3;
/// Time for which a gap counts, up to twice that. From adr/links.md.
const GAP_MEMORY: Duration = Duration::from_secs(1);
/// Suspicion timeout without a sign of life for round trips up to [`SUSPECT_TIMEOUT_RTT`]; longer
/// paths add the excess. From adr/links.md.
const SUSPECT_TIMEOUT: Duration = Duration::from_millis(400);
/// Round trip that [`SUSPECT_TIMEOUT`] covers, and that of an unmeasured link. From adr/links.md.
const SUSPECT_TIMEOUT_RTT: Duration = Duration::from_millis(150);
/// Timeout after a refusal by the peer's host, added to a round trip. From adr/links.md.
const REFUSAL_TIMEOUT: Duration = Duration::from_millis(100);
/// Least unanswered hellos before a refusal ends a link. From adr/links.md.
const REFUSAL_HELLOS: u32 = 4;
/// Share of lost hellos from which on refusals do not count: few hellos prove little. From
/// adr/links.md.
const REFUSAL_LOSS_MAX: f64 = 0.05;
/// Least unanswered hellos before a silent link ends: a process that slept must not blame the peer.
/// Chosen: at 20 % of loss all get lost once in hundreds of hours.
const SUSPECT_HELLOS: u32 = 8;
/// Sleep of this process above which the slept time does not count in a suspicion. Chosen: above
/// the pauses of a busy host.
const OWN_SLEEP_MIN: Duration = Duration::from_millis(100);
/// Silence for which datagrams that wait unread in this host excuse a peer. Measured: 500 leaves lose
/// their links at 500 ms; a flood of strangers hides a dead peer for no longer. From adr/links.md.
const EXCUSE_MAX: Duration = Duration::from_secs(1);
/// Time for which a request speeds up hellos; the peer repeats it. From adr/links.md.
const ASKED_PERIOD: Duration = Duration::from_millis(300);
/// Time after which an unanswered hello counts as lost. Chosen: three hello intervals.
const HELLO_LOSS_TIMEOUT: Duration = Duration::from_secs(1);
/// Bound of remembered unanswered hellos. Chosen: more than a suspecting node sends in a second.
const MAX_OUTSTANDING: usize = 64;
/// Least interval of hints that start a suspicion: anybody can forge them. From adr/links.md.
const HINT_INTERVAL: Duration = Duration::from_secs(1);

/// Returns the hello epoch of all hosts with equal clocks; `time` is the wall clock at `now`.
/// Their hellos coincide, and a node wakes once for all its idle links.
pub fn common_epoch(now: Instant, time: UnixTime) -> Instant {
    now.checked_sub(past(time.since_1970(), HELLO_INTERVAL * EPOCH_HELLOS))
        .unwrap_or(now)
}

/// Returns the next hello time after `now` among those that are `hellos` intervals apart.
pub(crate) fn next_hello_at(epoch: Instant, now: Instant, hellos: u32) -> Instant {
    let apart = HELLO_INTERVAL * hellos;
    now + apart - past(now.saturating_duration_since(epoch), apart)
}

fn past(since: Duration, period: Duration) -> Duration {
    let past = since.as_nanos() % period.as_nanos();
    // a period is a few minutes at most, so this fits
    Duration::from_nanos(past as u64)
}

/// Result of [`Liveness::poll`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Wait,
    /// Send a hello with this transaction; `asks` requests hellos from the peer.
    Hello {
        id: TxId,
        asks: bool,
    },
    Down(EndReason),
}

#[derive(Debug)]
pub(crate) struct Liveness {
    /// Hellos of all links go out at this time plus multiples of [`HELLO_INTERVAL`], so that a node
    /// with many links wakes no more often. [`common_epoch`] aligns those of its peers as well.
    epoch: Instant,
    /// Whether this is the answering end: the peer's hellos suffice as signs of life.
    answers: bool,
    wary_until: Instant,
    received_at: Instant,
    /// The longest gaps between signs of life, in the current second and the one before.
    gaps: [Duration; 2],
    gaps_since: Instant,
    suspected: Option<Suspicion>,
    /// The last time at which datagrams waited unread in this host.
    excused: Instant,
    /// The peer suspects this node until then.
    asked_until: Option<Instant>,
    hinted: Option<Instant>,
    next_hello: Instant,
    last_hello: Option<Instant>,
    polled: Instant,
    /// Unanswered hellos, their times and weights in the loss.
    outstanding: VecDeque<(TxId, Instant, f64)>,
    /// Smoothed.
    rtt: Option<Duration>,
    trips: VecDeque<Duration>,
    new_until: Option<Instant>,
    loss: f64,
    random: Random,
}

/// A suspicion that the peer has gone.
#[derive(Debug)]
struct Suspicion {
    since: Instant,
    /// Hellos sent since then.
    hellos: u32,
    /// Whether the peer's host has refused a datagram of ours.
    refused: bool,
}

impl Liveness {
    /// Makes the state of a new link; `answers` is false at one of its ends.
    pub(crate) fn new(epoch: Instant, answers: bool, random: Random, now: Instant) -> Self {
        Self {
            epoch,
            answers,
            wary_until: now + ANSWERER_WARY_PERIOD,
            received_at: now,
            gaps: [SUSPECT_SILENCE; 2],
            gaps_since: now,
            suspected: None,
            excused: now,
            asked_until: None,
            hinted: None,
            next_hello: now,
            last_hello: None,
            polled: now,
            outstanding: VecDeque::new(),
            rtt: None,
            trips: VecDeque::new(),
            new_until: Some(now + NEW_LINK_PERIOD),
            loss: 0.0,
            random,
        }
    }

    pub(crate) fn note_received(&mut self, now: Instant) {
        let gap = now.saturating_duration_since(self.received_at);
        if now.saturating_duration_since(self.gaps_since) >= GAP_MEMORY {
            self.gaps = [Duration::ZERO, self.gaps[0]];
            self.gaps_since = now;
        }
        self.gaps[0] = self.gaps[0].max(gap);
        self.received_at = now;
        if self.suspected.take().is_some() && self.asked_until.is_none() {
            self.next_hello = self.next_common(now);
        }
    }

    /// Returns the time of the next hello, about [`HELLO_INTERVAL`] from now.
    fn next_common(&self, now: Instant) -> Instant {
        let next = next_hello_at(self.epoch, now, 1);
        let soon = next - now < HELLO_INTERVAL / 8;
        if soon { next + HELLO_INTERVAL } else { next }
    }

    /// Returns the silence after which the peer is suspected.
    fn suspicion_time(&self) -> Duration {
        let longest = self.gaps[0].max(self.gaps[1]);
        (longest * SUSPECT_GAPS).clamp(SUSPECT_SILENCE_MIN, SUSPECT_SILENCE)
    }

    /// Notes that datagrams wait unread in this host, perhaps those of the peer: its silence proves
    /// nothing, unless it lasts.
    pub(crate) fn excuse(&mut self, now: Instant) {
        if now.saturating_duration_since(self.received_at) >= EXCUSE_MAX {
            return;
        }
        self.excused = now;
        if self
            .suspected
            .take_if(|suspicion| !suspicion.refused)
            .is_some()
        {
            self.next_hello = self.next_common(now);
        }
    }

    /// Returns the time since when silence counts.
    fn silent_since(&self) -> Instant {
        self.received_at.max(self.excused)
    }

    pub(crate) fn suspect(&mut self, now: Instant) {
        if self.suspected.is_none() {
            self.wary_until = now + ANSWERER_WARY_PERIOD;
            self.suspected = Some(Suspicion {
                since: now,
                hellos: 0,
                refused: false,
            });
            self.hello_soon(SUSPECTING_HELLO_INTERVAL, now);
        }
    }

    /// Starts a suspicion for an unauthenticated reason, at most once in [`HINT_INTERVAL`].
    pub(crate) fn hint(&mut self, now: Instant) {
        if self.hinted.is_none_or(|at| now >= at + HINT_INTERVAL) {
            self.hinted = Some(now);
            self.suspect(now);
        }
    }

    /// Notes that the peer's host refused a datagram. The error quotes that datagram, so its sender
    /// sees our packets. Answers that were under way may still arrive, and each counts.
    pub(crate) fn refused(&mut self, now: Instant) {
        self.suspect(now);
        if let Some(suspicion) = &mut self.suspected {
            suspicion.refused = true;
        }
    }

    /// Whether this hello was sent recently and is unanswered.
    pub(crate) fn is_outstanding(&self, id: TxId) -> bool {
        let mut known = self.outstanding.iter();
        known.any(|(known, ..)| is_same_transaction(*known, id))
    }

    /// Returns the timeout of a suspicion, and the least hellos before the link is down.
    fn verdict(&self, suspicion: &Suspicion) -> (Duration, u32) {
        let trip = self.rtt.unwrap_or(SUSPECT_TIMEOUT_RTT);
        if suspicion.refused && self.loss < REFUSAL_LOSS_MAX {
            return (trip + REFUSAL_TIMEOUT, REFUSAL_HELLOS);
        }
        let longer = trip.saturating_sub(SUSPECT_TIMEOUT_RTT);
        (SUSPECT_TIMEOUT + longer, SUSPECT_HELLOS)
    }

    /// Handles the peer's request for hellos: it has received nothing for a while.
    pub(crate) fn asked(&mut self, now: Instant) {
        self.asked_until = Some(now + ASKED_PERIOD);
        self.wary_until = now + ANSWERER_WARY_PERIOD;
        self.hello_soon(ASKED_HELLO_INTERVAL, now);
    }

    /// Schedules the next hello `pause` after the last one.
    fn hello_soon(&mut self, pause: Duration, now: Instant) {
        let soon = self.last_hello.map_or(now, |at| at + pause);
        self.next_hello = self.next_hello.min(soon.max(now));
    }

    /// Handles the answer to a hello; returns false if that was not one of ours.
    pub(crate) fn answered(&mut self, id: TxId, now: Instant) -> bool {
        let mut outstanding = self.outstanding.iter();
        let at = outstanding.position(|(known, ..)| is_same_transaction(*known, id));
        let Some(at) = at else {
            return false;
        };
        if let Some((_, sent, weight)) = self.outstanding.remove(at) {
            self.count(false, weight);
            let sample = now.saturating_duration_since(sent);
            let smoothed = |rtt: Duration| (rtt * (RTT_WEIGHT - 1) + sample) / RTT_WEIGHT;
            if self.trips.len() == RTT_SAMPLES {
                self.trips.pop_front();
            }
            self.trips.push_back(sample);
            self.new_until
                .take_if(|until| self.trips.len() >= NEW_LINK_SAMPLES || now >= *until);
            self.rtt = Some(self.rtt.map_or(sample, smoothed));
        }
        self.note_received(now);
        true
    }

    /// Whether the peer's hellos suffice.
    fn is_answerer_at_rest(&self, now: Instant) -> bool {
        self.answers && self.loss <= ANSWERER_LOSS_MAX && now >= self.wary_until
    }

    /// Computes the next action; to be called at [`Self::deadline`], or at any time.
    pub(crate) fn poll(&mut self, now: Instant) -> Verdict {
        let slept = now.saturating_duration_since(self.deadline().max(self.polled));
        self.polled = now;
        self.forget_lost(now);
        if self.asked_until.is_some_and(|until| until <= now) {
            self.asked_until = None;
        }
        let silence = now.saturating_duration_since(self.silent_since());
        if self.suspected.is_none() && silence >= self.suspicion_time() {
            self.suspect(now);
        }
        if let Some(suspicion) = &mut self.suspected
            && slept >= OWN_SLEEP_MIN
        {
            suspicion.since = (suspicion.since + slept).min(now);
        }
        if let Some(suspicion) = &self.suspected {
            let (lasts, hellos) = self.verdict(suspicion);
            if now >= suspicion.since + lasts && suspicion.hellos >= hellos {
                let refused = suspicion.refused;
                return Verdict::Down(if refused {
                    EndReason::Unreachable
                } else {
                    EndReason::Silent
                });
            }
        }
        if now < self.next_hello {
            return Verdict::Wait;
        }
        let seldom = self.is_answerer_at_rest(now);
        self.next_hello = match &mut self.suspected {
            Some(suspicion) => {
                suspicion.hellos += 1;
                now + SUSPECTING_HELLO_INTERVAL
            }
            None if self.new_until.is_some_and(|until| now < until) => {
                now + NEW_LINK_HELLO_INTERVAL
            }
            None if self.asked_until.is_some() => now + ASKED_HELLO_INTERVAL,
            None if seldom => self.next_common(now) + HELLO_INTERVAL * (ANSWERER_FACTOR - 1),
            None => self.next_common(now),
        };
        // the many hellos of a suspicion are evidence about a short time
        let pause = self.last_hello.map(|at| now.saturating_duration_since(at));
        let weight = pause.map_or(1.0, |p| p.div_duration_f64(HELLO_INTERVAL).min(1.0));
        self.last_hello = Some(now);
        let id = self.random.array();
        if self.outstanding.len() == MAX_OUTSTANDING {
            self.outstanding.pop_front();
        }
        self.outstanding.push_back((id, now, weight));
        let asks = self.suspected.is_some();
        Verdict::Hello { id, asks }
    }

    /// Returns the time of the next [`Self::poll`].
    pub(crate) fn deadline(&self) -> Instant {
        let judge = match &self.suspected {
            Some(suspicion) => {
                let (lasts, hellos) = self.verdict(suspicion);
                if suspicion.hellos >= hellos {
                    suspicion.since + lasts
                } else {
                    self.next_hello
                }
            }
            None => self.silent_since() + self.suspicion_time(),
        };
        judge.min(self.next_hello)
    }

    /// Returns the round trip of the path, once measured a few times.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        let known = self.new_until.is_none();
        self.trips.iter().min().filter(|_| known).copied()
    }

    /// Returns the share of unanswered hellos over the last ten seconds or more.
    pub(crate) fn loss(&self) -> f64 {
        self.loss
    }

    fn forget_lost(&mut self, now: Instant) {
        while let Some((_, sent, weight)) = self.outstanding.front().copied() {
            if now.saturating_duration_since(sent) < HELLO_LOSS_TIMEOUT {
                return;
            }
            self.outstanding.pop_front();
            self.count(true, weight);
        }
    }

    fn count(&mut self, lost: bool, weight: f64) {
        let sample = if lost { 1.0 } else { 0.0 };
        self.loss += (sample - self.loss) * weight / 32.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use librecast::simulated::{Network, Path};
    use proptest::test_runner::Config;

    fn new_link() -> (Instant, Liveness) {
        let start = Instant::now();
        let live = Liveness::new(start, false, Random::new([1; 32]), start);
        (start, live)
    }

    /// Runs the clock for `span`; `answer` decides whether a hello sent at a time is answered.
    fn run(
        live: &mut Liveness,
        start: Instant,
        span: Duration,
        answer: impl Fn(Duration) -> bool,
    ) -> Option<Duration> {
        let mut now = start;
        loop {
            match live.poll(now) {
                Verdict::Down(_) => return Some(now - start),
                Verdict::Hello { id, .. } if answer(now - start) => {
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
    fn unread_datagrams_excuse_silence_for_a_while() {
        let start = Instant::now();
        let run = |behind: bool| {
            let mut live = Liveness::new(start, false, Random::new([1; 32]), start);
            let (mut now, mut hellos) = (start, 0);
            loop {
                if behind {
                    live.excuse(now);
                }
                match live.poll(now) {
                    Verdict::Down(_) => return (now - start, hellos),
                    Verdict::Hello { .. } => hellos += 1,
                    Verdict::Wait => {}
                }
                now += Duration::from_millis(5);
            }
        };
        let (end, hellos) = run(false);
        assert!(end < Duration::from_secs(1), "{end:?}");
        let (later, more) = run(true);
        let expected = EXCUSE_MAX..EXCUSE_MAX + end + Duration::from_millis(50);
        assert!(expected.contains(&later), "{later:?}");
        // a host that is behind does not ask forty times a second
        assert!(more < hellos + 15, "{hellos}, {more}");
    }

    #[test]
    fn a_peer_that_answers_lives() {
        let (start, mut live) = new_link();
        assert_eq!(
            run(&mut live, start, Duration::from_secs(60), |_| true),
            None
        );
        assert!(live.rtt().is_some());
        assert!(live.loss() < 0.001);
    }

    #[test]
    fn the_path_takes_as_long_as_the_quickest_of_the_last_round_trips() {
        let mut now = Instant::now();
        let mut live = Liveness::new(now, false, Random::new([1; 32]), now);
        let mut after = |trip: u64| {
            now += HELLO_INTERVAL;
            let Verdict::Hello { id, .. } = live.poll(now) else {
                panic!("no hello");
            };
            live.answered(id, now + Duration::from_millis(trip));
            live.rtt().unwrap().as_millis()
        };
        assert_eq!([40, 9, 1, 30].map(&mut after), [40, 9, 1, 1]);
        let longer = [10, 10, 10, 10, 10, 10, 10, 10].map(&mut after);
        assert_eq!(longer, [1, 1, 1, 1, 1, 1, 10, 10], "{longer:?}");
    }

    /// Makes a link past its first hellos: the next one is on the epoch.
    fn settled(epoch: Instant, now: Instant) -> Liveness {
        let mut live = Liveness::new(epoch, false, Random::new([1; 32]), now);
        while live.new_until.is_some() {
            let now = live.next_hello;
            let Verdict::Hello { id, .. } = live.poll(now) else {
                panic!("no hello");
            };
            live.answered(id, now);
        }
        live.poll(live.next_hello);
        live
    }

    #[test]
    fn a_new_link_measures_its_path_a_few_times_at_once() {
        let (start, mut live) = new_link();
        let mut trips = [5, 2, 3].into_iter();
        let mut now = start;
        while live.rtt().is_none() {
            now = live.next_hello;
            let Verdict::Hello { id, .. } = live.poll(now) else {
                panic!("no hello");
            };
            now += Duration::from_millis(trips.next().unwrap());
            live.answered(id, now);
        }
        assert_eq!(live.rtt(), Some(Duration::from_millis(2)));
        assert_eq!(now, start + Duration::from_millis(53));

        // a longer path is measured by the first answer after that time
        let mut live = Liveness::new(start, false, Random::new([1; 32]), start);
        let mut hellos = VecDeque::new();
        while live.deadline() <= start + NEW_LINK_PERIOD {
            now = live.deadline();
            if let Verdict::Hello { id, .. } = live.poll(now) {
                hellos.push_back((id, now));
            }
        }
        assert_eq!(hellos.len(), 13);
        let trip = Duration::from_millis(290);
        for known in [None, Some(trip)] {
            let (id, sent) = hellos.pop_front().unwrap();
            live.answered(id, sent + trip);
            assert_eq!(live.rtt(), known);
        }
    }

    #[test]
    fn all_links_of_a_node_say_hello_at_once() {
        let epoch = Instant::now();
        let next =
            |late: u64| settled(epoch, epoch + Duration::from_millis(late)).next_hello - epoch;
        assert_eq!(next(0), HELLO_INTERVAL);
        assert_eq!(next(100), HELLO_INTERVAL);
        assert_eq!(next(220), HELLO_INTERVAL * 2, "not again at once");
        assert_eq!(next(1_000), HELLO_INTERVAL * 4);
    }

    #[test]
    fn hosts_whose_clocks_agree_speak_at_the_same_moments() {
        // two hosts started at different times; this clock began in 1970
        let zero = Instant::now();
        let hello_after = |started: u64, now: u64| {
            let at = |ms: u64| (zero + Duration::from_millis(ms), UnixTime::from_millis(ms));
            let (instant, time) = at(started);
            let epoch = common_epoch(instant, time);
            settled(epoch, at(now).0).next_hello
        };
        assert_eq!(
            hello_after(1_000, 1_400_017),
            hello_after(999_123, 1_400_103)
        );
        // the same for work done less often
        let seldom = |started: u64, now: u64| {
            let at = |ms: u64| zero + Duration::from_millis(ms);
            let epoch = common_epoch(at(started), UnixTime::from_millis(started));
            next_hello_at(epoch, at(now), 3)
        };
        assert_eq!(seldom(1_234_567, 2_000_100), seldom(400_001, 2_000_900));
    }

    #[test]
    fn a_dead_peer_is_noticed_within_about_a_second() {
        let (start, mut live) = new_link();
        let at = run(&mut live, start, Duration::from_secs(60), |t| {
            t < Duration::from_secs(5)
        })
        .unwrap();
        assert!(
            at > Duration::from_millis(5_400) && at < Duration::from_millis(5_850),
            "{at:?}"
        );
    }

    #[test]
    fn a_gap_shorter_than_the_suspicion_is_forgiven() {
        let (start, mut live) = new_link();
        let gap = |t: Duration| !(5_000..5_600).contains(&t.as_millis());
        assert_eq!(run(&mut live, start, Duration::from_secs(20), gap), None);
        assert!(live.loss() > 0.0);
    }

    #[test]
    fn a_short_silence_is_little_loss_however_often_the_peer_was_asked() {
        let (start, mut live) = new_link();
        let gap = |t: Duration| !(5_000..5_600).contains(&t.as_millis());
        // until all hellos of the gap count as lost
        assert_eq!(run(&mut live, start, Duration::from_secs(7), gap), None);
        assert!((0.01..0.12).contains(&live.loss()), "{}", live.loss());
    }

    #[test]
    fn who_slept_asks_before_it_judges() {
        let (start, mut live) = new_link();
        live.note_received(start);
        let woke = start + Duration::from_secs(30);
        assert!(matches!(live.poll(woke), Verdict::Hello { .. }));
        // repeated sleep: a hello now and then, and slept time does not count
        for hello in 1..8 {
            let now = woke + Duration::from_millis(250) * hello;
            assert!(!matches!(live.poll(now), Verdict::Down(_)), "{hello}");
        }
        live.note_received(woke + Duration::from_secs(5));
        assert_eq!(live.poll(woke + Duration::from_secs(5)), Verdict::Wait);
    }

    #[test]
    fn a_forged_hint_makes_it_ask_once_a_second() {
        let (start, mut live) = new_link();
        let mut hellos = 0;
        let second = Duration::from_secs(1);
        let mut now = start;
        while now < start + second * 10 {
            live.hint(now);
            if let Verdict::Hello { id, .. } = live.poll(now) {
                hellos += 1;
                assert!(live.answered(id, now));
            }
            now += Duration::from_millis(1);
        }
        assert!((30..=50).contains(&hellos), "{hellos} in ten seconds");
    }

    /// Returns the time from a peer's death to the verdict while its host refuses each hello, at a
    /// round trip of `trip`. `None`: it lives, and the refusals are forged.
    fn refused(trip: u64, lives: bool, hint: impl Fn(&mut Liveness, Instant)) -> Option<Duration> {
        let (start, mut live) = new_link();
        let mut answers = VecDeque::new();
        for ms in 0..10_000 {
            let now = start + Duration::from_millis(ms);
            let dead = !lives && ms >= 5_000;
            while answers.front().is_some_and(|(at, _)| *at <= ms) {
                let (_, id) = answers.pop_front().unwrap();
                live.answered(id, now);
            }
            match live.poll(now) {
                Verdict::Down(_) => return Some(Duration::from_millis(ms - 5_000)),
                Verdict::Hello { id, .. } if !dead => answers.push_back((ms + trip, id)),
                Verdict::Hello { .. } | Verdict::Wait => {}
            }
            if ms >= 5_000 {
                hint(&mut live, now);
            }
        }
        None
    }

    #[test]
    fn a_refusal_ends_a_link_sooner_than_word_of_others_and_neither_one_that_lives() {
        for trip in [0, 20, 100, 300] {
            let took = refused(trip, false, Liveness::refused).unwrap();
            // one round trip for answers under way, one for those that do not arrive
            assert!(took <= Duration::from_millis(2 * trip + 150), "{took:?}");
            assert!(took >= Duration::from_millis(75), "{took:?}: four hellos");
            let hinted = refused(trip, false, Liveness::hint).unwrap();
            assert!(hinted >= took, "{hinted:?} {took:?}");
            for hint in [Liveness::refused, Liveness::hint] {
                assert_eq!(refused(trip, true, hint), None, "round trip {trip} ms");
            }
        }
    }

    #[test]
    fn who_is_asked_sends_fast_for_a_while() {
        let (start, mut live) = new_link();
        let answered = |_: Duration| true;
        run(&mut live, start, Duration::from_secs(5), answered);
        let now = start + Duration::from_secs(5);
        let mut hellos = 0;
        for ms in 0..1_000 {
            let now = now + Duration::from_millis(ms);
            if ms < 500 {
                live.asked(now);
            }
            if let Verdict::Hello { asks, .. } = live.poll(now) {
                hellos += 1;
                assert!(!asks || ms > 500);
            }
            live.note_received(now);
        }
        // twenty a second for 800 ms, independent of the number of requests
        assert!((15..=19).contains(&hellos), "{hellos}");
    }

    #[test]
    fn strangers_answers_do_not_count() {
        let (start, mut live) = new_link();
        assert!(matches!(live.poll(start), Verdict::Hello { .. }));
        assert!(!live.answered([0; 12], start));
    }

    /// Two ends of a link and the path between them, on virtual time.
    struct Pair {
        start: Instant,
        now: Duration,
        ends: [Liveness; 2],
        /// The receiving end, and the packet.
        network: Network<Duration, usize, (usize, Packet)>,
        /// Interval of data from the first end.
        data: Option<Duration>,
        next_data: Duration,
        sent: u64,
        suspicions: u64,
    }

    #[derive(Debug, Clone)]
    enum Packet {
        Hello(TxId, bool),
        Answer(TxId),
        Data,
    }

    impl Pair {
        /// Makes a pair; `delay` in ms one way, `loss` in percent each way.
        fn new(dice: u64, delay: u64, loss: u64, data: Option<u64>) -> Self {
            let start = Instant::now();
            let path = Path {
                delay: Duration::from_millis(delay),
                jitter: Duration::from_millis(2),
                loss: loss as f64 / 100.0,
                ..Path::default()
            };
            let later = start + Duration::from_millis(dice * 37 % 333);
            Self {
                start,
                now: Duration::from_millis(333),
                ends: [(start, false), (later, true)].map(|(epoch, answers)| {
                    Liveness::new(epoch, answers, Random::new([1; 32]), start)
                }),
                network: Network::new(path, dice),
                data: data.map(Duration::from_millis),
                next_data: Duration::ZERO,
                sent: 0,
                suspicions: 0,
            }
        }

        fn send(&mut self, to: usize, packet: Packet) {
            self.sent += 1;
            self.network.send(1 - to, to, (to, packet), self.now);
        }

        /// Runs until `end`; returns the time of the first verdict. The second end dies at `death`.
        fn run(&mut self, end: Duration, death: Option<Duration>) -> Option<Duration> {
            loop {
                let alive = |at: Duration| death.is_none_or(|death| at < death);
                let mut next = self.ends[0].deadline() - self.start;
                if alive(self.now) {
                    next = next.min(self.ends[1].deadline() - self.start);
                }
                if let Some(at) = self.network.next_timeout() {
                    next = next.min(at);
                }
                if self.data.is_some() {
                    next = next.min(self.next_data);
                }
                self.now = self.now.max(next);
                if self.now >= end {
                    return None;
                }
                if self.step(alive(self.now)) {
                    return Some(self.now);
                }
            }
        }

        fn step(&mut self, alive: bool) -> bool {
            if let Some(every) = self.data.filter(|_| self.next_data <= self.now) {
                self.next_data = self.now + every;
                self.send(1, Packet::Data);
                // reports about received packets
                if alive {
                    self.send(0, Packet::Data);
                }
            }
            let now = self.start + self.now;
            while let Some((to, packet)) = self.network.poll(self.now) {
                if to == 1 && !alive {
                    continue;
                }
                match packet {
                    Packet::Data => self.ends[to].note_received(now),
                    Packet::Answer(id) => {
                        self.ends[to].answered(id, now);
                    }
                    Packet::Hello(id, asks) => {
                        self.ends[to].note_received(now);
                        if asks {
                            self.ends[to].asked(now);
                        }
                        self.send(1 - to, Packet::Answer(id));
                    }
                }
            }
            for end in 0..=usize::from(alive) {
                let suspected = self.ends[end].suspected.is_some();
                match self.ends[end].poll(now) {
                    Verdict::Wait => {}
                    Verdict::Down(_) => return true,
                    Verdict::Hello { id, asks } => self.send(1 - end, Packet::Hello(id, asks)),
                }
                self.suspicions += u64::from(!suspected && self.ends[end].suspected.is_some());
            }
            false
        }
    }

    const HOUR: u64 = 3_600;

    /// Divides the length of long runs: 1 with as many cases of property tests as in `make test-all`, at most 4.
    fn divisor() -> u64 {
        u64::from(256 / Config::default().cases.max(1)).clamp(1, 4)
    }

    /// RTT 1, 20 and 100 ms; idle, and with a stream. A part of the hours with fewer cases of property tests.
    #[test]
    fn no_link_dies_by_mistake_in_200_hours_at_20_percent_loss_each_way() {
        let (mut hours, mut suspicions, mut sent) = (0, 0, 0);
        for (delay, data, count) in [
            (0, None, 30),
            (10, None, 50),
            (50, None, 120),
            (50, Some(100), 10),
            (10, Some(20), 4),
        ] {
            for dice in 0..count / divisor() {
                let mut pair = Pair::new(dice, delay, 20, data);
                let died = pair.run(Duration::from_secs(HOUR), None);
                assert_eq!(died, None, "delay {delay} ms, data {data:?}, dice {dice}");
                hours += 1;
                if data.is_none() {
                    suspicions += pair.suspicions;
                    sent += pair.sent;
                }
            }
        }
        assert!(hours >= 200 / divisor());
        println!("{suspicions} suspicions, {sent} datagrams in {hours} hours");
        let least = 100_000 / divisor();
        assert!(suspicions > least, "{suspicions}: as many chances to err");
    }

    #[test]
    fn without_loss_nobody_is_suspected_and_little_is_sent() {
        for dice in 0..9 {
            let mut pair = Pair::new(dice, 20, 0, None);
            assert_eq!(pair.run(Duration::from_secs(HOUR), None), None);
            assert!(pair.sent * 10 <= HOUR * 65 + 1_000, "{}", pair.sent);
            assert!(pair.suspicions <= 4, "{}", pair.suspicions);
        }
    }

    #[test]
    fn little_loss_costs_few_hellos_and_no_link() {
        for loss in [1, 2, 5] {
            let mut sent = 0;
            let hours = 10 / divisor();
            for dice in 0..hours {
                let mut pair = Pair::new(dice, 20, loss, None);
                assert_eq!(pair.run(Duration::from_secs(HOUR), None), None, "{loss} %");
                sent += pair.sent;
            }
            println!("{loss} %: {} datagrams a second", sent / HOUR / hours);
            assert!(sent <= hours * HOUR * 14, "{sent} datagrams at {loss} %");
        }
    }

    /// Times from death to verdict, sorted.
    fn deaths(delay: u64, loss: u64, data: Option<u64>) -> Vec<Duration> {
        let times = (0..500 / divisor()).map(|dice| {
            let mut pair = Pair::new(dice, delay, loss, data);
            // by then hellos are rare on a link without loss
            let death = Duration::from_millis(20_000 + dice * 7_919 % 5_000);
            let end = death + Duration::from_secs(10);
            pair.run(end, Some(death)).unwrap() - death
        });
        let mut times: Vec<_> = times.collect();
        times.sort_unstable();
        times
    }

    #[test]
    fn a_dead_neighbour_is_noticed_within_a_second_by_median_in_three_quarters_of_one() {
        for delay in [0, 10, 50] {
            for data in [None, Some(200), Some(50), Some(10)] {
                for loss in [0, 20] {
                    let times = deaths(delay, loss, data);
                    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
                    println!("delay {delay}, data {data:?}, loss {loss}: {median:?} {worst:?}");
                    assert!(worst <= Duration::from_secs(1), "{worst:?}");
                    if data.is_none() && loss == 0 {
                        // assumed by the simulator
                        let arrived = |after| Duration::from_millis(delay + after);
                        assert!(times[0] >= arrived(416), "{:?}", times[0]);
                        assert!(worst <= arrived(752), "{worst:?}");
                    }
                    assert!(median <= Duration::from_millis(755), "{median:?}");
                }
            }
        }
    }
}
