//! The clock type of everything that runs without I/O: time is handed in as an [`Instant`], never read.
//!
//! Natively it is [`std::time::Instant`]. In a browser the standard library has no clock and `Instant::now` panics, so
//! there it is a type of the same arithmetic that the page makes from `performance.now()`.

pub use std::time::Duration;

#[cfg(not(target_family = "wasm"))]
pub use std::time::Instant;

#[cfg(target_family = "wasm")]
pub use page::Instant;

#[cfg(any(test, target_family = "wasm"))]
mod page {
    use std::ops::{Add, AddAssign, Sub, SubAssign};
    use std::time::Duration;

    /// A moment, as the time since the page began. Arithmetic and panics are those of [`std::time::Instant`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct Instant(Duration);

    impl Instant {
        /// From `performance.now()`: milliseconds since the page began. What is not a time counts as 0.
        #[must_use]
        pub fn from_millis(millis: f64) -> Self {
            Self(Duration::try_from_secs_f64(millis / 1_000.0).unwrap_or_default())
        }

        /// The time from `earlier` to this moment, zero if that is later.
        #[must_use]
        pub fn duration_since(&self, earlier: Self) -> Duration {
            self.saturating_duration_since(earlier)
        }

        /// The time from `earlier` to this moment, zero if that is later.
        #[must_use]
        pub fn saturating_duration_since(&self, earlier: Self) -> Duration {
            self.0.saturating_sub(earlier.0)
        }

        /// The time from `earlier` to this moment; `None` if that is later.
        #[must_use]
        pub fn checked_duration_since(&self, earlier: Self) -> Option<Duration> {
            self.0.checked_sub(earlier.0)
        }

        /// A later moment, if it can be represented.
        #[must_use]
        pub fn checked_add(&self, duration: Duration) -> Option<Self> {
            self.0.checked_add(duration).map(Self)
        }

        /// An earlier moment, if it is not before the page began.
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
        let (early, late) = (Instant::from_millis(0.25), Instant::from_millis(1_500.75));
        let apart = Duration::from_micros(1_500_500);
        assert_eq!((late - early, early - late), (apart, Duration::ZERO));
        assert_eq!((early + apart, late - apart), (late, early));
        assert_eq!(
            (early.checked_add(apart), late.checked_sub(apart)),
            (Some(late), Some(early))
        );
        assert_eq!(
            (early.checked_sub(apart), early.checked_duration_since(late)),
            (None, None)
        );
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
