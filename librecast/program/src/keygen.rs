//! `keygen` of all programs: a new key on disk.

use std::io::Write;
use std::path::Path;

use serde_json::json;

use crate::cli::Exit;
use crate::keyfile::{SharedKey, make_signing_key, public_path};

/// The kind of key that `keygen` makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// A key that several hosts share; never shown.
    Shared,
    /// A signing key; its public half is printed and lies beside it.
    Signing,
}

/// Makes a key in `file`. As JSON, prints its path, and the public half of a signing key.
///
/// # Errors
/// A file exists or cannot be written; standard output has no reader.
pub fn keygen(kind: KeyKind, file: &Path, json: bool) -> anyhow::Result<Exit> {
    let mut out = crate::standard::output();
    match kind {
        KeyKind::Shared => {
            SharedKey::make(file)?;
            if json {
                writeln!(out, "{}", json!({ "file": file.to_string_lossy() }))?;
            }
        }
        KeyKind::Signing => {
            let public = make_signing_key(file)?;
            if json {
                let result = json!({
                    "public_key": public,
                    "file": file.to_string_lossy(),
                    "public_file": public_path(file).to_string_lossy(),
                });
                writeln!(out, "{result}")?;
            } else {
                writeln!(out, "{public}")?;
            }
        }
    }
    Ok(Exit::Ok)
}
