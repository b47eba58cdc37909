//! What somebody said, as a line.

/// Who says it, and what.
pub fn said(speaker: &str, text: &str) -> String {
    match speaker.is_empty() {
        true => text.to_owned(),
        false => format!("{speaker}: {text}"),
    }
}
