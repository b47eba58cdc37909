//! Everything that is random in a run, from its seed.

use std::time::Duration;

use crate::time::Nanos;

/// SplitMix64. Each link, node and workload has a stream of its own, so that taking one action out of
/// a run leaves the luck of all others as it was.
#[derive(Debug, Clone)]
pub struct Random(u64);

/// One step of SplitMix64's finalizer.
pub fn mix(value: u64) -> u64 {
    let z = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Random {
    /// The stream of a seed and a name.
    pub fn stream(seed: u64, name: &[u64]) -> Self {
        let fold = |sum: u64, part: &u64| mix(sum.rotate_left(17) ^ part.wrapping_add(SPLIT));
        Self(name.iter().fold(mix(seed ^ SPLIT), fold))
    }

    /// 64 even bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(SPLIT);
        mix(self.0)
    }

    /// 0 to `n` - 1; 0 if there is nothing to choose from.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }

    /// 0 up to 1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.unit() < probability
    }

    /// Evenly from `low` up to `high`.
    pub fn between(&mut self, low: Nanos, high: Nanos) -> Nanos {
        low + (self.unit() * high.saturating_sub(low) as f64) as Nanos
    }

    /// Of an exponential distribution with this mean.
    pub fn exponential(&mut self, mean: Duration) -> Nanos {
        (-(1.0 - self.unit()).ln() * mean.as_nanos() as f64) as Nanos
    }

    /// `count` different numbers below `n`, in random order.
    pub fn sample(&mut self, n: usize, count: usize) -> Vec<u32> {
        let mut all: Vec<u32> = (0..n as u32).collect();
        let count = count.min(n);
        for i in 0..count {
            let j = i + self.below(n - i);
            all.swap(i, j);
        }
        all.truncate(count);
        all
    }
}

const SPLIT: u64 = 0x9e37_79b9_7f4a_7c15;

/// Zipf's law: the k-th of `n` is drawn in proportion to 1/k^exponent.
#[derive(Debug)]
pub struct Zipf(Vec<f64>);

impl Zipf {
    /// Over `n` items.
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

    /// The index of one item.
    pub fn draw(&self, random: &mut Random) -> usize {
        let at = random.unit();
        self.0.partition_point(|w| *w <= at).min(self.0.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_different_names_differ() {
        let first = |name: &[u64]| Random::stream(7, name).next();
        assert_ne!(first(&[1, 2]), first(&[2, 1]));
        assert_ne!(first(&[1]), first(&[1, 0]));
        assert_eq!(first(&[1, 2]), first(&[1, 2]));
    }

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
