//! Longest datagram on the path of a link (RFC 8899), found by probes alone.
//!
//! ```text
//! base --probe arrives--> next size ... --probes get lost--> stays, retries after 10 s .. 10 min
//!   ^                         |
//!   \--- probes of the current size get lost
//! ```
//!
//! A probe is a pair of empty packets: one padded to the probed size, with Don't Fragment, and a
//! short one after it. Only if the short one alone arrives, three times, the size is too long;
//! anything else is loss or an outage. The peer's reports show arrivals. ICMP is ignored: firewalls
//! drop it, and anybody can forge it.
//!
//! The current size is probed after reported loss, and every ten minutes: if long packets vanish,
//! long probes vanish as well.
//!
//! Some paths drop packets with an ECN mark. Probes have it like all media packets: if none of the
//! first ones arrives, packets go unmarked.

use lcroute_lane::Report;
use librecast::time::{Duration, Instant};

/// UDP payload that every path should take: 1,248 bytes with IPv6.
pub(crate) const BASE: usize = 1_200;
/// UDP payload of an Ethernet path over IPv6.
const ETHERNET: usize = 1_452;
/// UDP payloads of some longer paths, in bytes: 4,096 and 9,000 less IPv6 and UDP headers.
const LONGER: [usize; 2] = [4_048, 8_952];
/// Size of the short packet of a pair.
const SHORT: usize = 64;
/// Pairs with only the short one arriving that prove a narrow path. RFC 8899 5.1.2: MAX_PROBES.
const PROBE_LOSSES: u32 = 3;
/// Pairs after which an inconclusive probe ends. Chosen.
const MAX_PAIRS: u32 = 12;
/// Time for a pair, beside three round trips.
const WAIT: Duration = Duration::from_millis(350);
/// Delay of the first pair: the peer has to see that the link is up.
const FIRST: Duration = Duration::from_millis(100);
/// Interval from a failed probe to the next one of that size, doubled each time. Chosen.
const FIRST_RETRY_INTERVAL: Duration = Duration::from_secs(10);
/// Bound of that interval; interval of probes of the current size (RFC 8899 PMTU_RAISE_TIMER).
const MAX_RETRY_INTERVAL: Duration = Duration::from_secs(600);
/// Least interval of probes after loss.
const SUSPECT_PAUSE: Duration = Duration::from_secs(1);
/// Bound of remembered packets without a report.
const MOST_SENT: usize = 64;

/// The search on one link.
#[derive(Debug)]
pub(crate) struct PathMtu {
    /// Sizes to probe, in rising order.
    steps: Vec<usize>,
    limit: usize,
    trial: Option<Trial>,
    /// Time of the next action.
    due: Instant,
    /// Time of the next probe of a longer size, and interval after it.
    raise_at: Instant,
    pause: Duration,
    /// Last time at which the current size has passed.
    proven: Instant,
    /// Packets of probes without a report: index and size.
    sent: Vec<(u64, usize)>,
    /// Packets of probes lost, and other known losses.
    lost: u64,
    others_lost: u64,
    /// Whether a packet has arrived over this path, and the number of pairs lost before that.
    received: bool,
    dead_pairs: u32,
}

/// A size under probe: a longer one, or the current one.
#[derive(Debug, Clone, Copy)]
struct Trial {
    size: usize,
    pairs: u32,
    /// Whether the short packet of the last pair arrived.
    alive: bool,
    /// Pairs with only the short one arriving.
    lost: u32,
}

impl PathMtu {
    /// Makes the search for a link with messages that fit datagrams of `wanted` bytes.
    pub(crate) fn new(wanted: usize, now: Instant) -> Self {
        let longer = LONGER.into_iter().filter(|size| *size < wanted);
        let mut steps: Vec<_> = longer.chain([ETHERNET, wanted]).collect();
        steps.retain(|size| *size > BASE);
        steps.sort_unstable();
        steps.dedup();
        Self {
            steps,
            limit: BASE,
            trial: None,
            due: now + FIRST,
            raise_at: now,
            pause: FIRST_RETRY_INTERVAL,
            proven: now,
            sent: Vec::new(),
            lost: 0,
            others_lost: 0,
            received: false,
            dead_pairs: 0,
        }
    }

    /// Returns the longest datagram to send.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Whether packets may carry an ECN mark.
    pub(crate) fn marks(&self) -> bool {
        self.dead_pairs < PROBE_LOSSES
    }

    /// Returns the number of probe packets lost: no sign of congestion.
    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }

    /// Returns the time of the next [`Self::poll`].
    pub(crate) fn deadline(&self) -> Instant {
        self.due
    }

    /// Returns the sizes of the packets to send now, in order, if a probe is due.
    pub(crate) fn poll(&mut self, rtt: Option<Duration>, now: Instant) -> Option<[usize; 2]> {
        if now < self.due {
            return None;
        }
        self.judge(now);
        if self.trial.is_none() {
            self.trial = self.next_trial(now);
        }
        let Some(trial) = &mut self.trial else {
            self.due = self.raise_at;
            return None;
        };
        trial.pairs += 1;
        self.due = now + WAIT + rtt.unwrap_or_default() * 3;
        Some([trial.size, SHORT])
    }

    /// Notes a sent packet of a probe.
    pub(crate) fn sent(&mut self, index: u64, size: usize) {
        if self.sent.len() == MOST_SENT {
            self.sent.remove(0);
        }
        self.sent.push((index, size));
    }

    /// Postpones the probe: there is no path.
    pub(crate) fn postpone(&mut self, now: Instant) {
        self.due = now + WAIT;
    }

    /// Restarts the search on a new path.
    pub(crate) fn path_changed(&mut self, now: Instant) {
        // packets in flight belong to the old path
        self.sent.iter_mut().for_each(|(_, size)| *size = 0);
        (self.limit, self.trial, self.pause) = (BASE, None, FIRST_RETRY_INTERVAL);
        (self.due, self.raise_at) = (now, now);
        (self.received, self.dead_pairs) = (false, 0);
    }

    /// Probes the current size after unexplained loss.
    pub(crate) fn suspect_size(&mut self, now: Instant) {
        if self.limit > BASE && self.trial.is_none() && now >= self.proven + SUSPECT_PAUSE {
            self.trial = Some(Trial::of(self.limit));
            self.due = now;
        }
    }

    /// Handles a report about probes and loss.
    pub(crate) fn handle(&mut self, report: &Report, now: Instant) {
        for (index, size) in std::mem::take(&mut self.sent) {
            if report.came(index) {
                self.passed(size, now);
            } else if index < report.settled {
                self.lost += 1;
            } else {
                self.sent.push((index, size));
            }
        }
        let others = report.lost.saturating_sub(self.lost);
        if others > self.others_lost {
            self.others_lost = others;
            self.suspect_size(now);
        }
    }

    fn passed(&mut self, size: usize, now: Instant) {
        self.received |= size > 0;
        if size == SHORT {
            if let Some(trial) = &mut self.trial {
                trial.alive = true;
            }
        } else if size >= self.limit {
            (self.limit, self.proven) = (size, now);
            if self.trial.is_some_and(|trial| trial.size <= size) {
                self.trial = None;
                // then the next size, unless it has just failed
                self.due = self.raise_at.max(now);
            }
        }
    }

    /// Judges the last pair.
    fn judge(&mut self, now: Instant) {
        let Some(trial) = &mut self.trial else { return };
        trial.lost += u32::from(std::mem::take(&mut trial.alive));
        self.dead_pairs += u32::from(!self.received && trial.pairs > 0);
        let (size, proven) = (trial.size, trial.lost == PROBE_LOSSES);
        if !proven && trial.pairs < MAX_PAIRS {
            return;
        }
        self.trial = None;
        if size > self.limit {
            self.raise_at = now + self.pause;
            self.pause = (self.pause * 2).min(MAX_RETRY_INTERVAL);
        } else if proven {
            // a black hole: the path has changed
            (self.limit, self.raise_at, self.pause) = (BASE, now, FIRST_RETRY_INTERVAL);
        }
    }

    fn next_trial(&mut self, now: Instant) -> Option<Trial> {
        if now < self.raise_at {
            return None;
        }
        if self.limit > BASE && now >= self.proven + MAX_RETRY_INTERVAL / 2 {
            return Some(Trial::of(self.limit));
        }
        let next = self.steps.iter().find(|size| **size > self.limit);
        if next.is_none() {
            (self.raise_at, self.pause) = (now + MAX_RETRY_INTERVAL, FIRST_RETRY_INTERVAL);
        }
        next.map(|size| Trial::of(*size))
    }
}

impl Trial {
    fn of(size: usize) -> Self {
        Self {
            size,
            pairs: 0,
            alive: false,
            lost: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lcroute_lane::{ReplayWindow, Reporter};
    use librecast::random::Random;

    /// A path that loses packets above its MTU, and some of the rest.
    struct Path {
        mtu: usize,
        /// Per thousand.
        loss: u64,
        random: Random,
        now: Instant,
        next: u64,
        seen: ReplayWindow,
        reporter: Reporter,
        search: PathMtu,
        probes: usize,
    }

    impl Path {
        fn new(wanted: usize, mtu: usize, loss: u64) -> Self {
            let now = Instant::now();
            Self {
                mtu,
                loss,
                random: Random::new(7),
                now,
                next: 0,
                seen: ReplayWindow::new(16),
                reporter: Reporter::new(false, now),
                search: PathMtu::new(wanted, now),
                probes: 0,
            }
        }

        fn pass(&mut self, size: usize) {
            let index = self.next;
            self.next += 1;
            if size <= self.mtu && self.random.below(1_000) >= self.loss {
                self.seen.mark(index);
                self.reporter.handle((index, size), true, false, self.now);
            }
        }

        /// Runs for `span`; with `flow`, packets of the longest size pass, a hundred a second.
        fn run(&mut self, span: Duration, flow: bool) {
            let end = self.now + span;
            while self.now < end {
                let step = Duration::from_millis(10);
                let idle = self.search.deadline().min(end).max(self.now + step);
                self.now = if flow { self.now + step } else { idle };
                if flow {
                    self.pass(self.search.limit());
                }
                if let Some(sizes) = self.search.poll(None, self.now) {
                    for size in sizes {
                        self.search.sent(self.next, size);
                        self.pass(size);
                    }
                    self.probes += 1;
                }
                if let Some(report) = self.reporter.report(&self.seen, self.now) {
                    self.search.handle(&report, self.now);
                }
            }
        }
    }

    const SOON: Duration = Duration::from_secs(5);

    #[test]
    fn the_longest_size_that_passes_is_found() {
        for (wanted, mtu, limit) in [
            (1_342, 1_452, 1_452),
            (1_342, 9_000, 1_452),
            (1_342, 1_400, 1_342),
            (1_342, 1_341, BASE),
            (9_062, 8_952, 8_952),
            (9_062, 65_000, 9_062),
            (9_062, 1_472, 1_452),
        ] {
            let mut path = Path::new(wanted, mtu, 0);
            path.run(SOON, false);
            assert_eq!(path.search.limit(), limit, "{wanted} on {mtu}");
        }
    }

    #[test]
    fn loss_is_not_taken_for_a_narrow_path() {
        for loss in [50, 200, 400] {
            let mut path = Path::new(1_342, 1_452, loss);
            let (mut short, mut all) = (0, 0);
            for _ in 0..600 {
                path.run(Duration::from_secs(1), true);
                all += 1;
                short += i32::from(path.search.limit() < 1_452);
            }
            assert!(short * 20 < all, "{short} of {all} at {loss}");
        }
    }

    #[test]
    fn an_outage_is_not_taken_for_a_narrow_path() {
        let mut path = Path::new(1_342, 1_452, 0);
        path.run(SOON, true);
        path.loss = 1_000;
        path.run(SOON, true);
        assert_eq!(path.search.limit(), 1_452);
    }

    #[test]
    fn a_black_hole_is_noticed_and_what_passes_found_again() {
        for flow in [true, false] {
            let mut path = Path::new(1_342, 1_452, 0);
            path.run(SOON, flow);
            path.mtu = 1_350;
            // without traffic no packet is lost until the regular probe
            let span = if flow { SOON } else { MAX_RETRY_INTERVAL * 2 };
            path.search.suspect_size(path.now);
            path.run(span, flow);
            assert_eq!(path.search.limit(), 1_342, "{flow}");
            path.mtu = 1_452;
            path.run(MAX_RETRY_INTERVAL, flow);
            assert_eq!(path.search.limit(), 1_452, "{flow}");
        }
    }

    #[test]
    fn where_nothing_comes_packets_go_without_marks() {
        let mut path = Path::new(1_342, 0, 0);
        assert!(path.search.marks());
        path.run(SOON, false);
        assert!(!path.search.marks());
        path.search.path_changed(path.now);
        assert!(path.search.marks());
        path.mtu = SHORT;
        path.run(SOON, false);
        path.mtu = 0;
        path.run(SOON * 10, false);
        assert!(path.search.marks(), "once received is enough");
    }

    #[test]
    fn a_new_path_is_asked_anew() {
        let mut path = Path::new(1_342, 1_452, 0);
        path.run(SOON, false);
        path.search.sent(path.next, 1_452);
        path.search.path_changed(path.now);
        assert_eq!(path.search.limit(), BASE);
        path.pass(1_452);
        let report = path.reporter.report(&path.seen, path.now).unwrap();
        path.search.handle(&report, path.now);
        assert_eq!(path.search.limit(), BASE, "that was the old path");
        path.mtu = 1_400;
        path.run(SOON, false);
        assert_eq!(path.search.limit(), 1_342);
    }

    #[test]
    fn a_settled_link_is_asked_seldom_and_what_is_kept_is_bounded() {
        for mtu in [1_452, 1_300, 0] {
            let mut path = Path::new(1_342, mtu, 0);
            path.run(Duration::from_secs(6 * 3_600), false);
            let most = if mtu > 0 { 36 * 4 + 40 } else { 36 * 12 + 120 };
            assert!(path.probes < most, "{} at {mtu}", path.probes);
            assert!(path.search.sent.len() <= MOST_SENT);
        }
    }
}
