//! Resampling: casters have clocks of their own, and a player has one.
//!
//! Interpolates by a windowed sinc of 32 taps, in 256 phases with linear steps between them. Opus
//! ends at 20 kHz, where the window begins to fall. At equal pace samples are unchanged.

use std::f64::consts::PI;

/// Input samples per output sample.
const TAPS: usize = 32;
/// Positions between two samples in the table.
const PHASES: usize = 256;
/// Shape of the Kaiser window: 80 dB, from 20 kHz on (Kaiser's formula for 32 taps at 48 kHz).
const BETA: f64 = 7.86;

/// Returns the zeroth modified Bessel function of the first kind, by its series.
fn bessel(x: f64) -> f64 {
    let (mut sum, mut term) = (1.0, 1.0);
    for n in 1..32 {
        term *= (x / (2.0 * f64::from(n))).powi(2);
        sum += term;
    }
    sum
}

fn kernel(distance: f64) -> f64 {
    let inside = 1.0 - (distance / (TAPS as f64 / 2.0)).powi(2);
    if inside <= 0.0 {
        return 0.0;
    }
    let window = bessel(BETA * inside.sqrt()) / bessel(BETA);
    let sinc = if distance == 0.0 {
        1.0
    } else {
        (PI * distance).sin() / (PI * distance)
    };
    window * sinc
}

/// A resampler of interleaved stereo samples.
#[derive(Debug)]
pub struct Resampler {
    /// The taps of each phase, and of the one after the last.
    table: Vec<[f32; TAPS]>,
    /// Input that output still needs.
    waiting: Vec<[f32; 2]>,
    /// Position of the next output in `waiting`, in samples; below 1 between calls.
    position: f64,
}

impl Default for Resampler {
    fn default() -> Self {
        let of_phase = |phase: usize| {
            let fraction = phase as f64 / PHASES as f64;
            let before = (TAPS / 2 - 1) as f64;
            let mut taps: [f64; TAPS] =
                std::array::from_fn(|tap| kernel(tap as f64 - before - fraction));
            if phase.is_multiple_of(PHASES) {
                // the sine is not exactly zero there
                taps = taps.map(f64::round);
            }
            let sum: f64 = taps.iter().sum();
            taps.map(|tap| (tap / sum) as f32)
        };
        Self {
            table: (0..=PHASES).map(of_phase).collect(),
            waiting: vec![[0.0; 2]; TAPS / 2 - 1],
            position: 0.0,
        }
    }
}

impl Resampler {
    /// Appends `input` to `output`, faster by `faster_ppm`. Half the taps wait for further input.
    pub fn process(&mut self, input: &[i16], faster_ppm: f64, output: &mut Vec<i16>) {
        let (frames, _) = input.as_chunks::<2>();
        self.waiting.extend(frames.iter().map(|f| f.map(f32::from)));
        let step = 1.0 + faster_ppm / 1e6;
        loop {
            let first = self.position as usize;
            let Some(taps) = self.waiting.get(first..first + TAPS) else {
                break;
            };
            let fraction = (self.position - first as f64) * PHASES as f64;
            let phase = (fraction as usize).min(PHASES - 1);
            let between = (fraction - phase as f64) as f32;
            let mut sum = [0.0; 2];
            let kernels = self.table[phase].iter().zip(&self.table[phase + 1]);
            for ((a, b), frame) in kernels.zip(taps) {
                let weight = a + (b - a) * between;
                sum[0] += weight * frame[0];
                sum[1] += weight * frame[1];
            }
            // `as` saturates at the bounds of i16
            output.extend(sum.map(|sample| sample.round() as i16));
            self.position += step;
        }
        let done = (self.position as usize).min(self.waiting.len());
        self.waiting.drain(..done);
        self.position -= done as f64;
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use super::*;

    fn tone(hz: f64, n: usize, pace: f64) -> i16 {
        ((n as f64 * pace * hz * TAU / 48_000.0).sin() * 10_000.0).round() as i16
    }

    fn stereo(hz: f64, samples: usize) -> Vec<i16> {
        (0..samples).flat_map(|n| [tone(hz, n, 1.0), 0]).collect()
    }

    #[test]
    fn at_the_same_pace_nothing_changes() {
        let sound = stereo(997.0, 4_800);
        let (mut resampler, mut out) = (Resampler::default(), Vec::new());
        for piece in sound.chunks(2 * 313) {
            resampler.process(piece, 0.0, &mut out);
        }
        assert_eq!(out, sound[..out.len()]);
        assert_eq!(out.len(), sound.len() - TAPS, "half the taps wait");
    }

    #[test]
    fn a_tone_is_the_same_tone_of_another_clock() {
        for hz in [200.0, 4_000.0, 12_000.0, 19_000.0] {
            for ppm in [500.0, -500.0, 40.0] {
                let (mut resampler, mut out) = (Resampler::default(), Vec::new());
                for piece in stereo(hz, 48_000).chunks(2 * 960) {
                    resampler.process(piece, ppm, &mut out);
                }
                let expected = 48_000.0 / (1.0 + ppm / 1e6);
                let samples = out.len() as f64 / 2.0;
                assert!((samples - expected).abs() < 20.0, "{ppm}: {samples}");
                let worst = (100..out.len() / 2)
                    .map(|n| {
                        let wanted = tone(hz, n, 1.0 + ppm / 1e6);
                        i32::from(out[2 * n]).abs_diff(wanted.into())
                    })
                    .max();
                // 10,000 is the tone: 60 dB below it
                assert!(worst < Some(10), "{hz} Hz, {ppm} ppm: {worst:?}");
                assert!(out.iter().skip(1).step_by(2).all(|s| *s == 0));
            }
        }
    }

    #[test]
    fn what_is_too_loud_is_cut_off_and_does_not_turn_over() {
        let mut resampler = Resampler::default();
        let square: Vec<i16> = (0..4_800)
            .flat_map(|n| [if n / 50 % 2 == 0 { i16::MAX } else { i16::MIN }; 2])
            .collect();
        let mut out = Vec::new();
        resampler.process(&square, 300.0, &mut out);
        // the middle of each half wave has its sign
        for half in 1..90 {
            let middle = out[2 * (half * 50 + 25)];
            assert_eq!(middle > 0, half % 2 == 0, "{half}: {middle}");
        }
    }
}
