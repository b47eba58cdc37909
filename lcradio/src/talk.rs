//! Push to talk: sends sound or silence, switched by a signal or the terminal's space bar.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, tcgetpgrp};

use crate::process::Wake;

/// Samples of the ramp at begin and end of sound, 5 ms at 48 kHz, against clicks (radio guide).
const RAMP: usize = 240;

/// Whether the caster talks.
#[derive(Debug, Clone, Default)]
pub struct Talk(Arc<AtomicBool>);

impl Talk {
    /// Returns whether sound is sent.
    pub fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets whether sound is sent.
    pub fn set(&self, on: bool) {
        self.0.store(on, Ordering::Relaxed);
    }
}

/// A gate that mutes sound, with ramps.
#[derive(Debug, Default)]
pub struct Gate {
    is_open: bool,
}

impl Gate {
    /// Returns whether the last frame was sent.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Applies the gate to one frame of interleaved samples.
    pub fn pass(&mut self, samples: &mut [i16], channels: u8, open: bool) {
        let was_open = std::mem::replace(&mut self.is_open, open);
        if open && was_open {
            return;
        }
        if !open && !was_open {
            samples.fill(0);
            return;
        }
        for (at, frame) in samples.chunks_mut(usize::from(channels.max(1))).enumerate() {
            let gone = at.min(RAMP) as i32;
            let loudness = if open { gone } else { RAMP as i32 - gone };
            for sample in frame {
                *sample = (i32::from(*sample) * loudness / RAMP as i32) as i16;
            }
        }
    }
}

/// The terminal with the switching space bar; restored when dropped.
#[derive(Debug)]
pub struct SpaceBar {
    terminal: File,
    before: Termios,
}

impl SpaceBar {
    /// Returns none without a terminal: signals remain.
    pub fn watch(talk: &Talk, wake: &Wake) -> Option<Self> {
        let (talk, wake) = (talk.clone(), wake.clone());
        Self::on_keys(move |key| {
            if key == b' ' {
                talk.set(!talk.is_on());
                wake.wake();
            }
        })
    }

    /// Passes keys of the terminal to `press`; none without a terminal.
    pub fn on_keys(press: impl FnMut(u8) + Send + 'static) -> Option<Self> {
        let terminal = OpenOptions::new().read(true).open("/dev/tty").ok()?;
        // a background process would be stopped when it reads the terminal
        if tcgetpgrp(&terminal).ok()? != getpgrp() {
            return None;
        }
        let before = tcgetattr(&terminal).ok()?;
        let mut without_lines = before.clone();
        // Ctrl-C still ends
        without_lines
            .local_flags
            .remove(LocalFlags::ICANON | LocalFlags::ECHO);
        tcsetattr(&terminal, SetArg::TCSANOW, &without_lines).ok()?;
        let keys = terminal.try_clone().ok()?;
        let bar = Self { terminal, before };
        thread::Builder::new()
            .name("space bar".into())
            .spawn(move || read(keys, press))
            .ok()?;
        Some(bar)
    }
}

impl Drop for SpaceBar {
    fn drop(&mut self) {
        // the terminal may be gone
        let _ = tcsetattr(&self.terminal, SetArg::TCSANOW, &self.before);
    }
}

fn read(mut keys: File, mut press: impl FnMut(u8)) {
    let mut key = [0];
    while matches!(keys.read(&mut key), Ok(1)) {
        press(key[0]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sound_comes_and_goes_without_a_click() {
        let mut gate = Gate::default();
        let mut pass = |open| {
            let mut samples = vec![10_000; 1_920];
            gate.pass(&mut samples, 2, open);
            samples
        };
        assert_eq!(pass(false), vec![0; 1_920]);
        let begin = pass(true);
        assert_eq!((begin[0], begin[1], begin[2 * RAMP]), (0, 0, 10_000));
        assert!(
            begin.windows(3).all(|w| (w[2] - w[0]).abs() < 50),
            "a click"
        );
        assert_eq!(pass(true), vec![10_000; 1_920]);
        let end = pass(false);
        assert_eq!((end[0], end[1_919]), (10_000, 0));
        assert!(end.windows(3).all(|w| (w[2] - w[0]).abs() < 50), "a click");
        assert_eq!(pass(false), vec![0; 1_920]);
    }
}
