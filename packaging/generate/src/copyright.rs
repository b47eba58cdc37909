//! `copyright` in Debian's machine-readable form: our work, and all crates of a program.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;

use anyhow::Context;
use spdx::{Expression, LicenseId, Licensee, ParseMode};

use crate::crates::Crate;
use crate::programs::Vendored;

/// Licences in the order of preference, for works with a choice.
const TAKEN: &[&str] = &[
    "MIT",
    "Apache-2.0",
    "ISC",
    "BSD-3-Clause",
    "BSD-2-Clause",
    "BSL-1.0",
    "Zlib",
    "Unicode-3.0",
];
/// Licences in /usr/share/common-licenses of every Debian.
const COMMON: &[&str] = &["Apache-2.0"];

/// Returns the file for a package without foreign crates.
pub fn ours() -> String {
    let mut text = String::from(HEAD);
    let ours: BTreeSet<&str> = ["MIT", "Apache-2.0"].into();
    texts(&ours, &mut text);
    text
}

/// Returns the file for a program.
pub fn with_crates(linked: &[(&str, &Crate)], vendored: &[Vendored]) -> anyhow::Result<String> {
    let mut text = String::from(HEAD);
    let mut used: BTreeSet<&str> = ["MIT", "Apache-2.0"].into();
    for work in vendored {
        let holders = Vec::from_iter(claims(work.text));
        anyhow::ensure!(
            !holders.is_empty(),
            "{} says of nobody that it is his",
            work.file
        );
        let names: Vec<&str> = licences(work.licence)?.iter().map(|l| l.name).collect();
        paragraph(&mut text, work.file, &holders, &names)?;
        used.extend(names);
    }
    for (_, other) in linked {
        // our own crates have no checksum
        if other.checksum.is_none() {
            continue;
        }
        let licences = licences(&other.licence)
            .with_context(|| format!("{} {}: {}", other.name, other.version, other.licence))?;
        let names: Vec<&str> = licences.iter().map(|l| l.name).collect();
        let files = format!("vendor/{}-{}/*", other.name, other.version);
        paragraph(&mut text, &files, &holders(other)?, &names)?;
        if let Some(notice) = notice(other)? {
            writeln!(text, "Comment: {notice}")?;
        }
        used.extend(names);
    }
    texts(&used, &mut text);
    Ok(text)
}

fn paragraph(
    text: &mut String,
    files: &str,
    holders: &[String],
    licences: &[&str],
) -> std::fmt::Result {
    writeln!(
        text,
        "\nFiles: {files}\nCopyright: {}\nLicense: {}",
        holders.join("\n           "),
        licences.join(" and "),
    )
}

const HEAD: &str = "\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: librecast
Source: https://github.com/librecast/librecast
Comment: The programs are linked with the crates below vendor/, in the versions
 of Cargo.lock (`cargo vendor` fetches them). Where a crate offers a choice, the
 licence that is taken is named.

Files: *
Copyright: 2026 the librecast contributors
License: MIT or Apache-2.0
";

/// Returns the licences of an expression that we choose.
fn licences(expression: &str) -> anyhow::Result<Vec<LicenseId>> {
    let expression = Expression::parse_mode(expression, ParseMode::LAX)?;
    let taken: Result<Vec<Licensee>, _> = TAKEN.iter().map(|name| Licensee::parse(name)).collect();
    let required = expression.minimized_requirements(&taken?)?;
    let names: BTreeMap<&str, LicenseId> = required
        .iter()
        .filter_map(|requirement| requirement.license.id())
        .map(|id| (id.name, id))
        .collect();
    Ok(names.into_values().collect())
}

/// Returns the copyright lines in a crate's own files.
fn holders(of: &Crate) -> anyhow::Result<Vec<String>> {
    let texts = own_files(of, &["LICENSE", "LICENCE", "COPYING", "COPYRIGHT"])?;
    let mut found: BTreeSet<String> = texts.iter().flat_map(|text| claims(text)).collect();
    if found.is_empty() {
        found.extend(of.authors.iter().cloned());
    }
    if found.is_empty() {
        found.insert(format!("the authors of {}", of.name));
    }
    Ok(found.into_iter().collect())
}

/// Returns the copyright holders in a text.
fn claims(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in text.lines().map(str::trim) {
        let line = line.trim_start_matches(['*', '/', '#', ' ']);
        let claim = line
            .strip_prefix("Copyright")
            .or_else(|| line.strip_prefix("copyright"));
        let Some(claim) = claim else { continue };
        let claim = claim
            .trim_start_matches([' ', ':'])
            .replace("(c)", "")
            .replace("(C)", "");
        let claim = claim.trim_start_matches(['©', ' ']).trim();
        // forms to be filled in, and sentences about copyright, are not claims
        let claims = claim.starts_with(|c: char| c.is_ascii_digit())
            || claim.starts_with("The ")
            || line.contains("(c)") && !claim.contains(['<', '[', '{']);
        if claims && claim.len() < 200 {
            found.insert(claim.to_owned());
        }
    }
    found
}

/// Returns the notices that the Apache licence requires to pass on.
fn notice(of: &Crate) -> anyhow::Result<Option<String>> {
    let notices = own_files(of, &["NOTICE"])?;
    if notices.is_empty() {
        return Ok(None);
    }
    let lines = notices.iter().flat_map(|n| n.lines()).map(folded);
    Ok(Some(format!(
        "NOTICE:\n{}",
        lines.collect::<Vec<_>>().join("\n")
    )))
}

fn own_files(of: &Crate, beginnings: &[&str]) -> anyhow::Result<Vec<String>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(&of.folder)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|n| n.to_str())
            .unwrap_or_default();
        let name = name.to_uppercase();
        if path.is_file() && beginnings.iter().any(|b| name.starts_with(b)) {
            files.push(path);
        }
    }
    // folders are unordered
    files.sort();
    let texts = files.iter().map(|file| {
        let bytes = fs::read(file)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    });
    texts.collect()
}

/// Writes one paragraph for each licence.
fn texts(used: &BTreeSet<&str>, text: &mut String) {
    for name in used {
        text.push_str("\nLicense: ");
        text.push_str(name);
        text.push('\n');
        if COMMON.contains(name) {
            text.push_str(&folded(&format!(
                "On Debian systems its text is in /usr/share/common-licenses/{name},"
            )));
            text.push('\n');
            text.push_str(&folded(
                "and at https://www.apache.org/licenses/LICENSE-2.0",
            ));
            text.push('\n');
            continue;
        }
        let full = spdx::license_id(name).map_or("", |id| id.text());
        // without the form to be filled in: the paragraphs above have the holders
        for line in full.trim().lines().filter(|l| !l.contains("<year>")) {
            text.push_str(&folded(line));
            text.push('\n');
        }
    }
}

/// Makes a continuation line of a field: indented, and never empty.
fn folded(line: &str) -> String {
    match line.trim_end() {
        "" => " .".to_owned(),
        line => format!(" {line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(expression: &str) -> Vec<&'static str> {
        licences(expression)
            .unwrap()
            .iter()
            .map(|l| l.name)
            .collect()
    }

    #[test]
    fn what_is_in_the_source_tree_is_named_with_its_holder_and_licence() {
        let web = crate::programs::PROGRAMS
            .iter()
            .find(|p| p.name == "lcroute-web");
        let text = with_crates(&[], web.unwrap().vendored).unwrap();
        let paragraph = "\nFiles: web/pages/vendor/d3-force.js\nCopyright: 2010-2026 Mike Bostock\nLicense: ISC\n";
        assert!(text.contains(paragraph), "{text}");
        assert!(text.contains("\nLicense: ISC\n ISC License"), "{text}");
    }

    #[test]
    fn what_there_is_a_choice_of_is_chosen_and_the_rest_is_kept() {
        assert_eq!(names("Apache-2.0 OR MIT"), ["MIT"]);
        assert_eq!(
            names("(MIT OR Apache-2.0) AND Unicode-3.0"),
            ["MIT", "Unicode-3.0"]
        );
        assert_eq!(
            names("ISC AND (Apache-2.0 OR ISC) AND Apache-2.0"),
            ["Apache-2.0", "ISC"]
        );
        assert!(
            licences("GPL-3.0-only").is_err(),
            "nothing may come in unseen"
        );
    }
}
