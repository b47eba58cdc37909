//! Timers of a querier (RFC 9777 §9).

use librecast::time::Duration;

/// Longest interval that is accepted from another querier. Chosen.
const MAX_QUERY_INTERVAL: Duration = Duration::from_secs(600);

/// The values that a link's querier uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Robustness Variable (§9.1).
    pub robustness: u8,
    /// Query Interval (§9.2).
    pub query_interval: Duration,
    /// Query Response Interval (§9.3).
    pub response_interval: Duration,
    /// Startup Query Interval (§9.6).
    pub startup_interval: Duration,
    /// Last Listener Query Interval (§9.8).
    pub last_listener_interval: Duration,
}

impl Timing {
    /// The default values: for lc0, with one host that answers reliably.
    pub const HOST: Self = Self {
        robustness: 2,
        query_interval: Duration::from_secs(125),
        response_interval: Duration::from_secs(10),
        startup_interval: Duration::from_millis(31_250),
        last_listener_interval: Duration::from_secs(1),
    };

    /// For LANs: a lost PART ends within two seconds, and a report may be lost twice. Chosen.
    pub const LAN: Self = Self {
        robustness: 3,
        query_interval: Duration::from_secs(30),
        response_interval: Duration::from_secs(5),
        startup_interval: Duration::from_millis(7_500),
        last_listener_interval: Duration::from_millis(500),
    };

    /// Multicast Address Listening Interval (§9.4).
    pub fn listening_interval(&self) -> Duration {
        self.query_interval * self.robustness.into() + self.response_interval
    }

    /// Other Querier Present Timeout (§9.5).
    pub fn other_querier_timeout(&self) -> Duration {
        self.query_interval * self.robustness.into() + self.response_interval / 2
    }

    /// Adopts the values of a link's querier (§9.1, §9.2), up to `MAX_QUERY_INTERVAL`.
    pub fn adopt(&self, robustness: u8, query_interval: Duration) -> Self {
        let default = Self::HOST;
        let or = |said, default| if said == 0 { default } else { said };
        let interval = if query_interval.is_zero() {
            default.query_interval
        } else {
            query_interval.min(MAX_QUERY_INTERVAL)
        };
        Self {
            robustness: or(robustness, default.robustness),
            query_interval: interval,
            ..*self
        }
    }

    /// Last Listener Query Time (§9.10), with two queries.
    pub fn last_listener_time(&self) -> Duration {
        self.last_listener_interval * 2
    }
}
