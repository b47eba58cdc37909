//! The sources of the repository, for tests of its rules: without unit tests.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::{Path, PathBuf};

/// Folders without program sources of ours, or only with tests.
const SKIPPED: &[&str] = &["target", "tests", "benches", "examples", "fuzz"];

/// The root of the repository.
pub fn root() -> PathBuf {
    let mut folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let root = folders.find(|folder| folder.join("Cargo.lock").is_file());
    root.unwrap().to_owned()
}

/// Returns Rust sources below `folder` without tests; each with its path.
pub fn below(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && !name.starts_with('.') && !SKIPPED.contains(&name) {
            found.extend(below(&path));
        } else if name.ends_with(".rs") && name != "tests.rs" {
            let text = std::fs::read_to_string(&path).unwrap();
            let own = without_unit_tests(&text).to_owned();
            found.push((path, own));
        }
    }
    found.sort();
    found
}

/// Returns the text up to its unit tests at the end; `mod tests;` ends nothing.
fn without_unit_tests(text: &str) -> &str {
    let marks = text.match_indices("#[cfg(test)]\n");
    let mut ends = marks.filter(|(at, mark)| {
        let next = text[at + mark.len()..].lines();
        let next = next.map(str::trim).find(|line| !line.starts_with("#["));
        next.is_some_and(|line| line.starts_with("mod ") && line.ends_with('{'))
    });
    ends.next().map_or(text, |(at, _)| &text[..at])
}

#[test]
fn unit_tests_are_left_out_and_nothing_else() {
    let text = "use a;\n#[cfg(test)]\nmod tests;\nuse b;\n#[cfg(test)]\nmod more {\n}\n";
    assert_eq!(
        without_unit_tests(text),
        "use a;\n#[cfg(test)]\nmod tests;\nuse b;\n"
    );
}
