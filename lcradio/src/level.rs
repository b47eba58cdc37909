//! The level of sound, in dB below full scale.

/// The level of the sound since the last query.
#[derive(Debug, Default)]
pub struct Level {
    sum: f64,
    samples: u64,
}

impl Level {
    /// Adds sound.
    pub fn add(&mut self, sound: &[i16]) {
        self.sum += sound.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>();
        self.samples += sound.len() as u64;
    }

    /// Returns the level (RMS) in dBFS, and begins anew; none for silence.
    pub fn take(&mut self) -> Option<f64> {
        let Self { sum, samples } = std::mem::take(self);
        let mean = sum / samples.max(1) as f64;
        let loudest = f64::from(i16::MAX).powi(2);
        // below half a bit
        (mean >= 0.25).then(|| (10.0 * (mean / loudest).log10() * 10.0).round() / 10.0)
    }

    /// Returns the same for a terminal.
    pub fn take_text(&mut self) -> String {
        self.take().map_or("silence".to_owned(), as_text)
    }
}

/// Formats a level.
pub fn as_text(dbfs: f64) -> String {
    format!("{dbfs} dBFS")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_of_what_was_heard_since() {
        let mut level = Level::default();
        assert_eq!(level.take(), None);
        level.add(&[i16::MAX; 100]);
        assert_eq!(level.take(), Some(0.0));
        level.add(&[i16::MAX / 10; 100]);
        assert_eq!(level.take(), Some(-20.0));
        level.add(&[0; 100]);
        assert_eq!(level.take(), None);
    }
}
