//! What is said on standard output.

use std::io::Write;

use librecast::plain::escape;
use serde_json::Value;

/// Who says it, and what.
pub fn said(speaker: &str, text: &str) -> String {
    match speaker.is_empty() {
        true => text.to_owned(),
        false => format!("{speaker}: {text}"),
    }
}

/// A line for people, or with `json` one for programs.
pub fn print(json: bool, text: &str, value: impl FnOnce() -> Value) -> anyhow::Result<()> {
    let mut out = librecast_program::standard::output();
    match json {
        true => writeln!(out, "{}", escape(&value().to_string()))?,
        false => writeln!(out, "{text}")?,
    }
    out.flush()?;
    Ok(())
}
