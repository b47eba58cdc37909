//! `lcagent keygen FILE`: a new key pair on disk.

use std::io::{self, Write};
use std::path::Path;

use librecast_program::cli::Exit;
use librecast_program::keyfile::{make_signing_key, public_path};

/// Makes the key pair and prints its public key.
pub(crate) fn run(file: &Path, json: bool) -> anyhow::Result<Exit> {
    let public = make_signing_key(file)?;
    let mut out = io::stdout().lock();
    if json {
        let result = serde_json::json!({
            "public_key": public,
            "file": file.to_string_lossy(),
            "public_file": public_path(file).to_string_lossy(),
        });
        writeln!(out, "{result}")?;
    } else {
        writeln!(out, "{public}")?;
    }
    Ok(Exit::Ok)
}
