//! Sizes, rates and durations in users' notation (docs of each program's flags).
//!
//! The parsers fit clap's `value_parser`.

use std::time::Duration;

use thiserror::Error;

/// The reason why a value was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{value}` is not a {what}: write {expected}")]
pub struct UnitError {
    value: String,
    what: &'static str,
    expected: &'static str,
}

/// Formats a number of things: `1 node`, `2 nodes`.
#[must_use]
pub fn count(number: usize, thing: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{ending}")
}

/// Formats a number with three digits and its unit.
#[must_use]
pub fn short(value: f64) -> String {
    let (value, unit) = match value {
        b if b >= 1e9 => (b / 1e9, "G"),
        b if b >= 1e6 => (b / 1e6, "M"),
        b if b >= 1e3 => (b / 1e3, "k"),
        b => return format!("{b:.0} "),
    };
    if value < 10.0 {
        format!("{value:.2} {unit}")
    } else {
        format!("{value:.1} {unit}")
    }
}

/// Formats a span of time for people.
#[must_use]
pub fn duration(s: u64) -> String {
    match (s / 86_400, s / 3_600 % 24, s / 60 % 60, s % 60) {
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, m, s) => format!("{m} min {s} s"),
        (0, h, m, _) => format!("{h} h {m} min"),
        (d, h, ..) => format!("{d} d {h} h"),
    }
}

pub use crate::time::utc;

fn split(value: &str) -> Option<(f64, &str)> {
    let text = value.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    Some((number, text[end..].trim()))
}

fn factor(suffix: &str) -> Option<f64> {
    Some(match suffix {
        "" => 1.0,
        "k" | "K" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "Ki" => 1024.0,
        "Mi" => 1_048_576.0,
        "Gi" => 1_073_741_824.0,
        _ => return None,
    })
}

fn scaled(
    value: &str,
    units: &[&str],
    what: &'static str,
    expected: &'static str,
) -> Result<u64, UnitError> {
    let error = || UnitError {
        value: value.to_owned(),
        what,
        expected,
    };
    let (number, suffix) = split(value).ok_or_else(error)?;
    let suffix = units
        .iter()
        .find_map(|u| suffix.strip_suffix(u))
        .unwrap_or(suffix);
    let result = number * factor(suffix).ok_or_else(error)?;
    // 2^53: above it a double cannot represent all integers
    if result.is_finite() && result <= 9_007_199_254_740_992.0 {
        Ok(result as u64)
    } else {
        Err(error())
    }
}

/// Parses bytes: `1500`, `64k` (64,000), `64Ki` (65,536), `1.5G`; a trailing `B` is allowed.
///
/// # Errors
/// Another unit, no number, or more than 2^53.
pub fn parse_size(value: &str) -> Result<u64, UnitError> {
    scaled(
        value,
        &["B"],
        "size",
        "a number of bytes with k M G or Ki Mi Gi, such as 64Ki",
    )
}

/// Parses bits per second: `100M` is 100,000,000 bit/s; allows `bit/s`, `bps` or `bit`, not zero.
///
/// # Errors
/// Another unit, no number, zero, or more than 2^53.
pub fn parse_rate(value: &str) -> Result<u64, UnitError> {
    let expected = "bits per second with k M G, such as 100M";
    let rate = scaled(value, &["bit/s", "bps", "bit"], "rate", expected)?;
    if rate == 0 {
        return Err(UnitError {
            value: value.to_owned(),
            what: "rate",
            expected,
        });
    }
    Ok(rate)
}

/// Parses `500ms`, `2s`, `5m`, `24h`, `7d`, also combined (`1h30m`). A unit is required.
///
/// # Errors
/// No unit or another one, no number, or more than a thousand years.
pub fn parse_duration(value: &str) -> Result<Duration, UnitError> {
    let error = || UnitError {
        value: value.to_owned(),
        what: "duration",
        expected: "a number with ms s m h or d, such as 500ms or 24h",
    };
    let mut rest = value.trim();
    if rest.is_empty() {
        return Err(error());
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(error)?;
        let number: f64 = rest[..digits].parse().map_err(|_| error())?;
        let tail = &rest[digits..];
        let unit = tail
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(tail.len());
        seconds += number
            * match &tail[..unit] {
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3_600.0,
                "d" => 86_400.0,
                _ => return Err(error()),
            };
        rest = &tail[unit..];
    }
    // a thousand years: above it clocks overflow
    if seconds > 3.2e10 {
        return Err(error());
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_709_251_200, "2024-03-01T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (1_800_000_000, "2027-01-15T08:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc(seconds), expected);
        }
    }

    #[test]
    fn one_thing_has_no_plural() {
        assert_eq!(count(1, "node"), "1 node");
        assert_eq!(count(0, "node") + &count(2, "job"), "0 nodes2 jobs");
    }

    #[test]
    fn numbers_are_short() {
        let shown = [0.0, 999.0, 1_000.0, 12_340.0, 5e6, 2.5e9].map(short);
        assert_eq!(
            shown,
            ["0 ", "999 ", "1.00 k", "12.3 k", "5.00 M", "2.50 G"]
        );
    }

    #[test]
    fn spans_of_time_have_two_units() {
        let shown = [59, 61, 3_700, 90_000].map(duration);
        assert_eq!(shown, ["59 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]);
    }

    #[test]
    fn sizes_and_rates_have_decimal_and_binary_units() {
        assert_eq!(parse_size("1500"), Ok(1500));
        assert_eq!(parse_size("64k"), Ok(64_000));
        assert_eq!(parse_size("64Ki"), Ok(65_536));
        assert_eq!(parse_size("1.5GiB"), Ok(1_610_612_736));
        assert_eq!(parse_rate("100M"), Ok(100_000_000));
        assert_eq!(parse_rate("2.5Gbit/s"), Ok(2_500_000_000));
        for bad in [
            "",
            "M",
            "-1",
            "1x",
            "1e400",
            "99999999999999999999",
            "1.2.3",
            "0x10",
        ] {
            assert!(parse_size(bad).is_err(), "{bad}");
            assert!(parse_rate(bad).is_err(), "{bad}");
        }
        assert!(parse_rate("0").is_err());
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5_400)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(604_800)));
        for bad in [
            "",
            "5",
            "ms",
            "5 s x",
            "-1s",
            "1y",
            "99999999999999999999d",
            "5é",
        ] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
