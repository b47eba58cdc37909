//! QR codes, which lcroute draws: its package has the library for them.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use librecast_program::executable;

/// Prints a text as a QR code.
///
/// # Errors
/// lcroute is not installed, or does not draw it.
pub fn print(text: &str) -> anyhow::Result<()> {
    let places = executable::places("lcroute").unwrap_or_default();
    let found = places.into_iter().find(|place| place.is_file());
    let lcroute = found.unwrap_or_else(|| PathBuf::from("lcroute"));
    let mut drawing = Command::new(lcroute)
        .arg("qr")
        .stdin(Stdio::piped())
        .spawn()
        .context("the package lcroute draws QR codes; without --qr the words are printed alone")?;
    if let Some(mut input) = drawing.stdin.take() {
        writeln!(input, "{text}")?;
    }
    ensure!(drawing.wait()?.success(), "lcroute drew no QR code");
    Ok(())
}
