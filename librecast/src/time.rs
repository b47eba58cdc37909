//! The clock type of all code without I/O: time is passed in as an [`Instant`], never read.
//!
//! Natively it is [`std::time::Instant`]. In a browser `Instant::now` panics; there it is a type
//! with the same arithmetic, made from `performance.now()`.

use std::fmt;
use std::ops::Add;
use std::sync::Arc;

pub use std::time::Duration;

#[cfg(not(target_family = "wasm"))]
pub use std::time::Instant;

#[cfg(target_family = "wasm")]
pub use page::Instant;

/// A moment of the wall clock, as time since 1970 (UTC, without leap seconds). Wire and file
/// formats keep integers: [`as_secs`](Self::as_secs), [`as_millis`](Self::as_millis).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixTime(Duration);

impl UnixTime {
    /// Reads the system's clock; a time before 1970 becomes 1970. Code without I/O is handed the
    /// time, as it is an [`Instant`].
    #[cfg(not(target_family = "wasm"))]
    #[must_use]
    pub fn now() -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self(since.unwrap_or_default())
    }

    /// Converts seconds since 1970.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// Converts milliseconds since 1970.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// Returns whole seconds since 1970.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0.as_secs()
    }

    /// Returns whole milliseconds since 1970, at most `u64::MAX`.
    #[must_use]
    pub fn as_millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }

    /// Returns the time since 1970.
    #[must_use]
    pub const fn since_1970(self) -> Duration {
        self.0
    }

    /// Returns the time from `earlier` to this moment, zero if that is later.
    #[must_use]
    pub const fn saturating_duration_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// Returns the time between two moments.
    #[must_use]
    pub const fn abs_diff(self, other: Self) -> Duration {
        self.0.abs_diff(other.0)
    }
}

impl Add<Duration> for UnixTime {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0 + duration)
    }
}

/// The wall clock: the system's, or a simulation's.
#[derive(Clone)]
pub struct WallClock(Arc<dyn Fn() -> UnixTime + Send + Sync>);

impl WallClock {
    /// Makes a clock with this function.
    #[must_use]
    pub fn new(read: impl Fn() -> UnixTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// Returns the present time.
    pub fn now(&self) -> UnixTime {
        (self.0)()
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WallClock").field(&self.now()).finish()
    }
}

/// Formats Unix seconds by ISO 8601 in UTC: `2026-11-22T19:40:34Z`.
#[must_use]
pub fn utc(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // years begin in March, so that leap days come last; eras have 400 years of 146,097 days
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year + u64::from(month >= 10);
    let month = if month < 10 { month + 3 } else { month - 9 };
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(any(test, target_family = "wasm"))]
mod page {
    use std::ops::{Add, AddAssign, Sub, SubAssign};
    use std::time::Duration;

    /// Time before the page's start that an `Instant` can represent, a day: a full token bucket,
    /// for example, was filled before the start.
    const BEFORE: Duration = Duration::from_secs(86_400);

    /// A moment, with the arithmetic and panics of [`std::time::Instant`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct Instant(Duration);

    impl Instant {
        /// Converts milliseconds since the page began (`performance.now()`). Invalid ones become 0.
        #[must_use]
        pub fn from_millis(millis: f64) -> Self {
            Self(BEFORE + Duration::try_from_secs_f64(millis / 1_000.0).unwrap_or_default())
        }

        /// Returns the time from `earlier` to this moment, zero if that is later.
        pub fn duration_since(&self, earlier: Self) -> Duration {
            self.saturating_duration_since(earlier)
        }

        /// Returns the time from `earlier` to this moment, zero if that is later.
        pub fn saturating_duration_since(&self, earlier: Self) -> Duration {
            self.0.saturating_sub(earlier.0)
        }

        /// Returns the time from `earlier` to this moment; `None` if that is later.
        pub fn checked_duration_since(&self, earlier: Self) -> Option<Duration> {
            self.0.checked_sub(earlier.0)
        }

        /// Returns a later moment, if it can be represented.
        #[must_use]
        pub fn checked_add(&self, duration: Duration) -> Option<Self> {
            self.0.checked_add(duration).map(Self)
        }

        /// Returns an earlier moment, if it is at most a day before the page began.
        #[must_use]
        pub fn checked_sub(&self, duration: Duration) -> Option<Self> {
            self.0.checked_sub(duration).map(Self)
        }
    }

    impl Add<Duration> for Instant {
        type Output = Self;

        fn add(self, duration: Duration) -> Self {
            Self(self.0 + duration)
        }
    }

    impl AddAssign<Duration> for Instant {
        fn add_assign(&mut self, duration: Duration) {
            self.0 += duration;
        }
    }

    impl Sub<Duration> for Instant {
        type Output = Self;

        fn sub(self, duration: Duration) -> Self {
            Self(self.0 - duration)
        }
    }

    impl SubAssign<Duration> for Instant {
        fn sub_assign(&mut self, duration: Duration) {
            self.0 -= duration;
        }
    }

    impl Sub for Instant {
        type Output = Duration;

        fn sub(self, earlier: Self) -> Duration {
            self.saturating_duration_since(earlier)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Duration;
    use super::page::Instant;

    #[test]
    fn a_pages_clock_counts_as_the_systems_does() {
        const DAY: Duration = Duration::from_secs(86_400);
        let (early, late) = (Instant::from_millis(0.25), Instant::from_millis(1_500.75));
        let (beginning, quarter) = (Instant::from_millis(0.0), Duration::from_micros(250));
        let apart = Duration::from_micros(1_500_500);
        assert_eq!((late - early, early - late), (apart, Duration::ZERO));
        assert_eq!((early + apart, late - apart), (late, early));
        assert_eq!(
            (early.checked_add(apart), late.checked_sub(apart)),
            (Some(late), Some(early))
        );
        assert_eq!(
            (early.checked_sub(DAY), early.checked_duration_since(late)),
            (Some(beginning - DAY + quarter), None)
        );
        assert_eq!(early.checked_sub(DAY + Duration::from_millis(1)), None);
        assert_eq!(
            late.duration_since(early),
            late.saturating_duration_since(early)
        );
        let mut moved = early;
        moved += apart;
        moved -= apart;
        assert!(moved == early && early < late);
    }

    #[test]
    fn what_is_not_a_time_is_the_beginning() {
        let beginning = Instant::from_millis(0.0);
        assert_eq!(
            [-1.0, f64::NAN, f64::INFINITY].map(Instant::from_millis),
            [beginning; 3]
        );
    }
}
