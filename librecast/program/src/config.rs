//! Configuration files in TOML, and how their errors are told: file, line and key.

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::cli::{Exit, ExitError};

/// Reads a file that has to be there.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, ExitError> {
    let shown = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&shown, &text),
        Err(e) => Err(ExitError::new(
            match e.kind() {
                std::io::ErrorKind::PermissionDenied => Exit::NotPermitted,
                _ => Exit::Usage,
            },
            format!("{shown}: {e}"),
        )),
    }
}

/// Parses the text of a file called `file`; errors name file, line and key.
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
