//! Lines of standard output, and hints.

use std::fmt::Display;
use std::io::Write;

use librecast::plain::escape;
use librecast_program::cli;
use serde_json::Value;

/// Returns the speaker and the text.
pub fn said(speaker: &str, text: &str) -> String {
    match speaker.is_empty() {
        true => text.to_owned(),
        false => format!("{speaker}: {text}"),
    }
}

/// Prints a line for people, or with `json` for programs.
pub fn print(json: bool, text: &str, value: impl FnOnce() -> Value) -> anyhow::Result<()> {
    let mut out = librecast_program::standard::output();
    match json {
        true => writeln!(out, "{}", escape(&value().to_string()))?,
        false => writeln!(out, "{text}")?,
    }
    out.flush()?;
    Ok(())
}

/// Tells the user something beside the result.
pub fn hint(line: impl Display) {
    cli::hint("lcstudio", line);
}
