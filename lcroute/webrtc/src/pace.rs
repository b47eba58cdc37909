//! The clock of the WebRTC stack.
//!
//! `rtc-sctp` waits at least a second for a lost packet that no later one shows to be lost (RTO.Min
//! of RFC 9260, section 16, a constant). On a data channel without retransmissions that second is a
//! stall: lost packets count as in flight, and after it the window is one packet. The stack of a
//! link with data over SCTP therefore has a clock faster than the host's. Round trips are measured
//! by the same clock, so timeouts on long paths do not change.

use librecast::time::{Duration, Instant};

/// Pace of the host's clock.
pub(crate) const EVEN: u32 = 1;
/// Pace at which RTO.Min is 250 ms: above delayed acknowledgements, 200 ms (RFC 9260, section 6.2).
pub(crate) const FAST: u32 = 4;

#[derive(Debug, Clone, Copy)]
pub(crate) struct StackClock {
    /// Host time and stack time of the last change of pace.
    since: (Instant, Instant),
    pace: u32,
}

impl StackClock {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            since: (now, now),
            pace: EVEN,
        }
    }

    pub(crate) fn at(&self, now: Instant) -> Instant {
        let (host, stack) = self.since;
        stack + now.saturating_duration_since(host) * self.pace
    }

    pub(crate) fn host_at(&self, at: Instant) -> Instant {
        let (host, stack) = self.since;
        // rounded up: not earlier than due
        let pause =
            at.saturating_duration_since(stack) + Duration::from_nanos((self.pace - 1).into());
        host + pause / self.pace
    }

    pub(crate) fn set_pace(&mut self, pace: u32, now: Instant) {
        if self.pace != pace {
            self.since = (now, self.at(now));
            self.pace = pace;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_goes_back_and_is_due_when_the_stack_says() {
        let begin = Instant::now();
        let mut clock = StackClock::new(begin);
        let (mut now, mut last) = (begin, begin);
        for (ms, pace) in [
            (10, FAST),
            (333, EVEN),
            (0, FAST),
            (1, FAST),
            (5_000, EVEN),
            (7, FAST),
        ] {
            now += Duration::from_millis(ms);
            let at = clock.at(now);
            assert!(at >= last);
            last = at;
            clock.set_pace(pace, now);
            assert_eq!(clock.at(now), at);
            for pause in [0, 1, 999, 1_000_003] {
                let due = at + Duration::from_nanos(pause);
                let on_host = clock.host_at(due);
                assert!(clock.at(on_host) >= due);
                assert!(
                    on_host >= now
                        && on_host - now <= Duration::from_nanos(pause / u64::from(pace) + 1)
                );
            }
        }
    }
}
