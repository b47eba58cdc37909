//! Decides when the router is asked, and which mapping counts; without I/O.
//!
//! ```text
//!           no router, or switched off
//!        ┌────────────────────────────┐
//!        ▼                            │
//!      idle ── addresses changed ──▶ asks ── mapped ──▶ holds ── half of its time, addresses changed ──▶ asks
//!                                     ▲│                 │
//!                  1, 2, 4 … 30 min   └┘ refused         └── the program ends: gives it back
//! ```

use std::net::SocketAddrV4;

use lcroute_netlink::Gateway;
use librecast::time::{Duration, Instant};

use crate::status::{Protocol, Status};

/// Requested lifetime of a mapping, in seconds (RFC 6886 §3.3).
pub(crate) const LIFETIME: u32 = 7_200;
/// Most time before a renewal: less than half of the lifetime, as a restarted router loses its
/// mappings.
const RENEW: Duration = Duration::from_secs(1_200);
/// Least time before a renewal, even for shorter lifetimes.
const RENEW_MIN: Duration = Duration::from_secs(60);
/// Shortest and longest pause after failures.
const PAUSES: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(1_800));
/// Wait after a change of addresses, which precedes that of routes.
const SETTLE: Duration = Duration::from_secs(1);
/// Least time between requests to the same router after changes of addresses.
const AGAIN: Duration = Duration::from_secs(30);

/// A mapping, as the router has stated it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lease {
    /// The router's address and port.
    pub(crate) address: SocketAddrV4,
    /// The protocol.
    pub(crate) by: Protocol,
    /// The stated lifetime; it counts up to [`LIFETIME`].
    pub(crate) seconds: u32,
}

/// The state of one port.
#[derive(Debug)]
pub(crate) struct Schedule {
    gateway: Option<Gateway>,
    /// The mapping, and its end.
    held: Option<(Lease, Instant)>,
    failures: u32,
    asked: Option<Instant>,
    /// Time of the next request; none: after a change.
    due: Option<Instant>,
    failure: Option<String>,
}

impl Schedule {
    /// Begins with a request.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            gateway: None,
            held: None,
            failures: 0,
            asked: None,
            due: Some(now),
            failure: None,
        }
    }

    /// Returns the time of the next request.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// Whether the router has mapped the port.
    pub(crate) fn has_lease(&self) -> bool {
        self.held.is_some()
    }

    /// Returns the mapping, or the reason why there is none.
    pub(crate) fn status(&self) -> Status {
        let held = self.held.as_ref().map(|(lease, _)| lease);
        Status {
            address: held.map(|lease| lease.address),
            by: held.map(|lease| lease.by),
            failure: self.failure.clone().filter(|_| held.is_none()),
        }
    }

    /// Asks at once: settings or addresses have changed.
    pub(crate) fn handle_settings(&mut self, now: Instant) {
        (self.due, self.failures) = (Some(now), 0);
    }

    /// Handles the end of the mapping.
    pub(crate) fn handle_given_back(&mut self) {
        self.held = None;
    }

    /// Handles a change of addresses; another network may have the same ones.
    pub(crate) fn handle_moved(&mut self, found: Option<Gateway>, now: Instant) {
        let earliest = match found {
            found if found != self.gateway => {
                self.failures = 0;
                now + SETTLE
            }
            None => return,
            Some(_) => (now + SETTLE).max(self.asked.map_or(now, |asked| asked + AGAIN)),
        };
        self.due = Some(self.due.map_or(earliest, |due| due.min(earliest)));
    }

    /// Handles the time of a request; returns the router to ask. Without one, it waits for a change.
    pub(crate) fn handle_timeout(
        &mut self,
        found: Result<Gateway, String>,
        now: Instant,
    ) -> Option<Gateway> {
        let gateway = match found {
            Ok(gateway) => gateway,
            Err(why) => {
                (self.gateway, self.held, self.due) = (None, None, None);
                self.failure = Some(why);
                return None;
            }
        };
        if self.gateway.replace(gateway) != Some(gateway) {
            // of another network, whose router is out of reach
            self.held = None;
        }
        self.asked = Some(now);
        Some(gateway)
    }

    /// Handles the router's answer.
    pub(crate) fn handle_answer(&mut self, answer: Result<Lease, String>, now: Instant) {
        match answer {
            Ok(lease) => {
                let seconds = lease.seconds.min(LIFETIME);
                self.failures = 0;
                self.due = Some(now + renew_after(seconds));
                self.held = Some((lease, now + Duration::from_secs(seconds.into())));
                self.failure = None;
            }
            Err(why) => {
                self.held.take_if(|(_, until)| *until <= now);
                let pause = PAUSES.0 * 2_u32.saturating_pow(self.failures.min(8));
                self.failures += 1;
                self.due = Some(now + pause.min(PAUSES.1));
                self.failure = Some(why);
            }
        }
    }
}

fn renew_after(seconds: u32) -> Duration {
    let half = Duration::from_secs(seconds.into()) / 2;
    half.clamp(RENEW_MIN, RENEW)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn router(last: u8) -> Gateway {
        Gateway {
            address: Ipv4Addr::new(192, 168, 1, 1),
            local: Ipv4Addr::new(192, 168, 1, last),
            interface: 2,
        }
    }

    fn lease(seconds: u32) -> Lease {
        Lease {
            address: SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 5), 7_000),
            by: Protocol::Pcp,
            seconds,
        }
    }

    struct World {
        schedule: Schedule,
        begun: Instant,
        now: Instant,
    }

    impl World {
        fn new() -> Self {
            let now = Instant::now();
            Self {
                schedule: Schedule::new(now),
                begun: now,
                now,
            }
        }

        /// Passes the time until the next request; returns the seconds since the start.
        fn due(&mut self) -> u64 {
            let due = self.schedule.next_timeout().unwrap();
            self.now = self.now.max(due);
            (self.now - self.begun).as_secs()
        }

        /// Lets this router answer when it is asked next; returns the seconds since the start.
        fn answer(&mut self, last: u8, answer: Result<Lease, String>) -> u64 {
            let at = self.due();
            let asked = self.schedule.handle_timeout(Ok(router(last)), self.now);
            assert_eq!(asked, Some(router(last)));
            self.schedule.handle_answer(answer, self.now);
            at
        }

        fn fail(&mut self) -> u64 {
            self.answer(2, Err("it refuses".into()))
        }
    }

    #[test]
    fn a_router_is_asked_neither_too_often_nor_too_seldom() {
        for (lifetime, renew) in [
            (0, 60),
            (1, 60),
            (600, 300),
            (7_200, 1_200),
            (u32::MAX, 1_200),
        ] {
            assert_eq!(renew_after(lifetime).as_secs(), renew);
        }
        let mut world = World::new();
        let at = [0; 7].map(|_| world.fail());
        assert_eq!(at, [0, 60, 180, 420, 900, 1_860, 3_660]);
        assert_eq!(
            world.answer(2, Ok(lease(7_200))),
            3_660 + 1_800,
            "half an hour at most"
        );
        assert_eq!(world.fail(), 5_460 + 1_200);
        assert_eq!(world.fail(), 6_660 + 60, "the first failure again");
    }

    #[test]
    fn a_mapping_that_is_not_renewed_counts_until_its_end() {
        let mut world = World::new();
        world.answer(2, Ok(lease(600)));
        assert_eq!(world.fail(), 300);
        assert!(world.schedule.status().public().is_some());
        assert_eq!(world.schedule.status().failure, None, "it still holds");
        // 300 + 60 + 120 + 240
        while world.fail() < 600 {}
        let status = world.schedule.status();
        assert_eq!(status.address, None);
        assert_eq!(status.failure.as_deref(), Some("it refuses"));
    }

    #[test]
    fn a_lie_about_the_lifetime_is_worth_two_hours() {
        let mut world = World::new();
        world.answer(2, Ok(lease(u32::MAX)));
        while world.fail() < 7_200 {}
        assert!(!world.schedule.has_lease());
    }

    #[test]
    fn another_network_has_another_router_and_no_mapping() {
        let mut world = World::new();
        world.answer(2, Ok(lease(7_200)));
        world.schedule.handle_moved(Some(router(3)), world.now);
        assert_eq!(world.due(), 1);
        let asked = world.schedule.handle_timeout(Ok(router(3)), world.now);
        assert_eq!(asked, Some(router(3)));
        assert!(!world.schedule.has_lease(), "its router is out of reach");
        world.schedule.handle_answer(Ok(lease(7_200)), world.now);
        // addresses that come and go ask the same router every half a minute at most
        for _ in 0..5 {
            world.schedule.handle_moved(Some(router(3)), world.now);
        }
        assert_eq!(world.due(), 31);
        // no router: nobody is asked until there is one
        let none = Err("this host has no route".to_owned());
        assert_eq!(world.schedule.handle_timeout(none, world.now), None);
        assert_eq!(world.schedule.next_timeout(), None);
        assert!(!world.schedule.has_lease());
        world.schedule.handle_moved(None, world.now);
        assert_eq!(world.schedule.next_timeout(), None);
        world.schedule.handle_moved(Some(router(4)), world.now);
        assert_eq!(world.due(), 32);
    }

    #[test]
    fn settings_ask_at_once_whatever_has_failed() {
        let mut world = World::new();
        let _ = [0; 4].map(|_| world.fail());
        world.schedule.handle_settings(world.now);
        assert_eq!(world.due(), 420);
        assert_eq!(world.fail(), 420);
        assert_eq!(world.fail(), 480);
    }
}
