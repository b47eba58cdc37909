//! Virtual time.

use std::fmt;

use librecast::time::{Duration, Instant};

/// Nanoseconds since the beginning of a run.
pub type Nanos = u64;

/// A second.
pub const SECOND: Nanos = 1_000_000_000;
/// A millisecond.
pub const MILLISECOND: Nanos = 1_000_000;

/// Virtual time as engines use it: only differences count.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// Makes a clock at zero.
    #[cfg(not(target_family = "wasm"))]
    #[expect(clippy::disallowed_methods, reason = "virtual time needs a beginning")]
    pub fn new() -> Self {
        Self(Instant::now())
    }

    /// Makes a clock at zero.
    #[cfg(target_family = "wasm")]
    pub fn new() -> Self {
        Self(Instant::from_millis(0.0))
    }

    /// Returns the instant `at` nanoseconds after the begin.
    pub fn instant(&self, at: Nanos) -> Instant {
        self.0 + Duration::from_nanos(at)
    }

    /// Returns the nanoseconds from the begin to `instant`.
    pub fn nanos(&self, instant: Instant) -> Nanos {
        nanos(instant.saturating_duration_since(self.0))
    }
}

/// Converts a duration to nanoseconds, up to five hundred years.
pub fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A time for display: seconds with nine decimals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At(pub Nanos);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.0 / SECOND, self.0 % SECOND)
    }
}

impl std::str::FromStr for At {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is not a time in seconds");
        let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
        if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad());
        }
        let seconds: u64 = seconds.parse().map_err(|_| bad())?;
        let fraction: u64 = format!("{fraction:0<9}").parse().map_err(|_| bad())?;
        let whole = seconds.checked_mul(SECOND).ok_or_else(bad)?;
        Ok(Self(whole + fraction))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_they_are_written() {
        for at in [
            0,
            1,
            SECOND,
            12 * SECOND + 500 * MILLISECOND,
            3_600 * SECOND + 7,
        ] {
            assert_eq!(At(at).to_string().parse(), Ok(At(at)));
        }
        assert_eq!("2.5".parse(), Ok(At(2_500_000_000)));
        for bad in ["", "x", "-1", "1.0000000001", "1.x"] {
            assert!(bad.parse::<At>().is_err(), "{bad}");
        }
    }
}
