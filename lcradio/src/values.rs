//! Values of options, and hints.

use std::fmt::Display;
use std::time::Duration;

use clap::ValueEnum;
use lcradio_core::Latency;
use librecast_program::cli;

/// The word for standard input or output.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Pipe {
    /// `-`.
    #[value(name = "-")]
    Standard,
}

/// Milliseconds of `--together` alone: a path of 40 ms, jitter, and a copy 40 ms later.
pub const TOGETHER_MS: &str = "150";
/// Longest delay that can be asked for: what the buffer holds.
const MAX_LATENCY_MS: u64 = 800;

/// Reads the word for standard input; a file is told its option.
pub fn parse_input(value: &str) -> Result<Pipe, String> {
    match value {
        "-" => Ok(Pipe::Standard),
        _ => Err("- is standard input; a file: --file FILE".to_owned()),
    }
}

fn milliseconds(value: &str, least: u64) -> Option<Duration> {
    let ms = value.parse().ok()?;
    let is_within = (least..=MAX_LATENCY_MS).contains(&ms);
    is_within.then(|| Duration::from_millis(ms))
}

/// The delay of `--together`. In `cast --together -`, the word after it is the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Together {
    /// The delay.
    pub play_after: Duration,
    /// The word after it was the input's.
    pub is_pipe: bool,
}

/// Reads the milliseconds of `--together`.
pub fn parse_together(value: &str) -> Result<Together, String> {
    let is_pipe = value == "-";
    let ms = if is_pipe { TOGETHER_MS } else { value };
    let play_after = milliseconds(ms, 20).ok_or("milliseconds from 20 to 800")?;
    Ok(Together {
        play_after,
        is_pipe,
    })
}

/// Reads the milliseconds of `--earlier`.
pub fn parse_earlier(value: &str) -> Result<Duration, String> {
    milliseconds(value, 0).ok_or_else(|| "milliseconds up to 800".to_owned())
}

/// Reads a delay: a word, or milliseconds.
pub fn parse_latency(value: &str) -> Result<Latency, String> {
    match value {
        "auto" => Ok(Latency::Auto),
        "quick" => Ok(Latency::Quick),
        "safe" => Ok(Latency::Safe),
        _ => match value.parse() {
            Ok(ms @ 20..=MAX_LATENCY_MS) => Ok(Latency::Fixed(Duration::from_millis(ms))),
            _ => Err("auto, quick, safe, or milliseconds from 20 to 800".to_owned()),
        },
    }
}

/// Tells the user something beside the result.
pub fn hint(line: impl Display) {
    cli::hint("lcradio", line);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_words_or_milliseconds() {
        assert_eq!(parse_latency("safe"), Ok(Latency::Safe));
        let fixed = Latency::Fixed(Duration::from_millis(120));
        assert_eq!(parse_latency("120"), Ok(fixed));
        for wrong in ["", "19", "801", "-5", "fast"] {
            assert!(parse_latency(wrong).is_err(), "{wrong}");
        }
    }
}
