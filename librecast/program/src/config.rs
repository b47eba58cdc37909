//! Configuration files in TOML, with errors that name file, line and key.

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::cli::{Exit, ExitError};

/// Reads a file that must exist.
///
/// # Errors
/// As [`read_text`] and [`parse`].
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, ExitError> {
    parse(&path.display().to_string(), &read_text(path)?)
}

/// Returns the text of a file that must exist.
///
/// # Errors
/// [`Exit::NotPermitted`] if it is not readable, else [`Exit::Usage`].
pub fn read_text(path: &Path) -> Result<String, ExitError> {
    std::fs::read_to_string(path).map_err(|e| {
        let exit = match e.kind() {
            std::io::ErrorKind::PermissionDenied => Exit::NotPermitted,
            _ => Exit::Usage,
        };
        ExitError::new(exit, format!("{}: {e}", path.display()))
    })
}

/// Parses the text of a file called `file`.
///
/// # Errors
/// [`Exit::Usage`], with file, line and key.
pub fn parse<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, ExitError> {
    toml::from_str(text).map_err(|e| {
        let start = e.span().map_or(0, |span| span.start.min(text.len()));
        let line = text[..start].matches('\n').count() + 1;
        let source = text.lines().nth(line - 1).unwrap_or_default();
        let key = source
            .split('=')
            .next()
            .unwrap_or_default()
            .trim()
            .trim_matches(['[', ']']);
        ExitError::new(
            Exit::Usage,
            format!("{file}:{line}: {key}: {}", e.message()),
        )
    })
}
