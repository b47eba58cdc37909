//! All randomness of a run, from its seed.

use std::time::Duration;

pub use librecast::random::{Random, mix};

use crate::time::Nanos;

/// Random draws of a simulation. Each link, node and workload has its own stream, so that removing
/// an action from a run leaves all other draws unchanged.
pub trait Draw {
    /// Draws a time, uniform from `low` up to `high`.
    fn time(&mut self, low: Nanos, high: Nanos) -> Nanos;

    /// Draws a time from an exponential distribution with this mean.
    fn exponential(&mut self, mean: Duration) -> Nanos;

    /// Draws `count` different numbers below `n`, in random order.
    fn sample(&mut self, n: usize, count: usize) -> Vec<u32>;
}

impl Draw for Random {
    fn time(&mut self, low: Nanos, high: Nanos) -> Nanos {
        low + (self.unit() * high.saturating_sub(low) as f64) as Nanos
    }

    fn exponential(&mut self, mean: Duration) -> Nanos {
        (-(1.0 - self.unit()).ln() * mean.as_nanos() as f64) as Nanos
    }

    fn sample(&mut self, n: usize, count: usize) -> Vec<u32> {
        let mut all: Vec<u32> = (0..n as u32).collect();
        let count = count.min(n);
        for i in 0..count {
            let j = i + self.index(n - i);
            all.swap(i, j);
        }
        all.truncate(count);
        all
    }
}

/// Zipf's law: the k-th of `n` items has a weight of 1/k^exponent.
#[derive(Debug)]
pub struct Zipf(Vec<f64>);

impl Zipf {
    /// Makes the distribution over `n` items.
    pub fn new(n: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let weights = (1..=n.max(1)).map(|k| {
            sum += (k as f64).powf(-exponent);
            sum
        });
        let mut cumulative: Vec<f64> = weights.collect();
        cumulative.iter_mut().for_each(|w| *w /= sum);
        Self(cumulative)
    }

    pub fn draw(&self, random: &mut Random) -> usize {
        let at = random.unit();
        self.0.partition_point(|w| *w <= at).min(self.0.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_no_doubles() {
        let mut random = Random::stream(1, &[]);
        let mut sample = random.sample(100, 60);
        sample.sort_unstable();
        sample.dedup();
        assert_eq!(sample.len(), 60);
        assert!(sample.iter().all(|n| *n < 100));
        assert_eq!(random.sample(3, 9).len(), 3);
    }

    #[test]
    fn zipf_prefers_the_first() {
        let (zipf, mut random) = (Zipf::new(10, 1.0), Random::stream(1, &[]));
        let mut counts = [0; 10];
        for _ in 0..10_000 {
            counts[zipf.draw(&mut random)] += 1;
        }
        // 1/1 of 2.929, and 1/10 of it
        assert!((3_200..3_650).contains(&counts[0]), "{counts:?}");
        assert!((280..400).contains(&counts[9]), "{counts:?}");
    }

    #[test]
    fn exponential_times_have_their_mean() {
        let mut random = Random::stream(1, &[]);
        let sum: u64 = (0..20_000)
            .map(|_| random.exponential(Duration::from_secs(1)))
            .sum();
        let mean = sum as f64 / 20_000.0 / 1e9;
        assert!((0.97..1.03).contains(&mean), "{mean}");
    }
}
