//! A histogram of latencies: a table of fixed size, with an error below one percent.

use serde_json::{Value, json};

/// Buckets per doubling; below this many microseconds each value has its own.
const FINE: u64 = 128;
const FINE_BITS: u32 = FINE.ilog2();
/// Sufficient for an hour; longer values count as an hour.
const BUCKETS: usize = (33 - FINE_BITS as usize) * FINE as usize;

/// Latencies in microseconds.
pub struct Latencies {
    counts: Box<[u64; BUCKETS]>,
    total: u64,
    max: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Latencies {
            counts: Box::new([0; BUCKETS]),
            total: 0,
            max: 0,
        }
    }
}

impl Latencies {
    pub fn add(&mut self, micros: u64) {
        self.counts[bucket(micros)] += 1;
        self.total += 1;
        self.max = self.max.max(micros);
    }

    /// Returns quantiles and the maximum as JSON, `null` without values.
    pub fn summary(&self) -> Value {
        json!({
            "p50": self.quantile(0.5),
            "p90": self.quantile(0.9),
            "p99": self.quantile(0.99),
            "p999": self.quantile(0.999),
            "max": (self.total > 0).then_some(self.max),
        })
    }

    fn quantile(&self, part: f64) -> Option<u64> {
        let rank = ((self.total as f64 * part).ceil() as u64).max(1);
        let mut passed = 0;
        let reaches = |count: &u64| {
            passed += count;
            passed >= rank
        };
        self.counts.iter().position(reaches).map(lowest)
    }
}

/// Returns the bucket of a value: each doubling from 2^e has 128 for its 2^e values.
fn bucket(micros: u64) -> usize {
    let shift = micros.max(1).ilog2().saturating_sub(FINE_BITS);
    // Exact below 2 * FINE; above, `micros >> shift` is in FINE..2 * FINE.
    let at = u64::from(shift) * FINE + (micros >> shift);
    usize::try_from(at).unwrap_or(usize::MAX).min(BUCKETS - 1)
}

/// Returns the smallest value of a bucket.
fn lowest(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let shift = (bucket / FINE).saturating_sub(1);
    (bucket - shift * FINE) << shift
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_at_most_one_percent_wide() {
        for micros in (0..5_000).chain([65_535, 65_536, 1_000_000, 3_600_000_000]) {
            let low = lowest(bucket(micros));
            assert!(low <= micros, "{micros} in the bucket from {low}");
            assert!(
                (micros - low) * 100 <= micros,
                "{micros} in the bucket from {low}"
            );
        }
        assert!(bucket(u64::MAX) < BUCKETS);
    }

    #[test]
    fn quantiles_are_those_of_the_values() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.summary()["p50"], Value::Null);
        (1..=100).for_each(|micros| latencies.add(micros));
        latencies.add(7_777);
        let summary = latencies.summary();
        assert_eq!(summary["p50"], 51);
        assert_eq!(summary["p99"], 100);
        assert_eq!(summary["max"], 7_777);
    }
}
