//! Checks of files under a code: the user has chosen the words, not the content.

use std::io::IsTerminal;

use anyhow::bail;
use librecast_program::cli::{Exit, ExitError, note};
use librecast_program::standard;
use librecast_program::units::count;

use super::plan::Plan;
use super::tree::Tree;
use crate::listing::{Entry, Kind, shown};
use crate::place::{Found, Place};
use crate::progress::human_bytes;

/// Most bytes that are taken without a question. Chosen: a few minutes of a fast connection.
const MOST_BYTES: u64 = 1_000_000_000;
/// Most files that are taken without a question.
const MOST_FILES: usize = 1_000;
/// Most names that are shown.
const SHOWN: usize = 4;

/// Terms of the user.
#[derive(Debug)]
pub struct Sent {
    /// Name of the sender, in its own words.
    pub from: String,
    /// The key that has signed it, for users.
    pub signer: String,
    /// Replace existing files.
    pub overwrite: bool,
    /// Ask nothing.
    pub yes: bool,
}

/// Shows the offered files, and asks whether they are wanted.
pub fn check_size(sent: &Sent, tree: &Tree, quiet: bool) -> anyhow::Result<()> {
    let (files, bytes) = (tree.files(), tree.bytes());
    let top = || tree.entries.iter().filter(|e| !e.path.contains(&b'/'));
    let names: Vec<String> = top().take(SHOWN).map(name_of).collect();
    let more = if top().count() > SHOWN { ", ..." } else { "" };
    let (names, size) = (names.join(", ") + more, human_bytes(bytes));
    let (from, signer) = (&sent.from, &sent.signer);
    let what = format!(
        "{names} ({}, {size}) from {from} ({signer})",
        count(files, "file")
    );
    if !quiet {
        note(&what);
    }
    if sent.yes || bytes <= MOST_BYTES && files <= MOST_FILES {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        bail!("{what}: nothing was received; --yes takes that much");
    }
    note("receive all of it? [y/N]");
    let mut answer = String::new();
    std::io::BufRead::read_line(&mut standard::input(), &mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => bail!("nothing was received"),
    }
}

fn name_of(entry: &Entry) -> String {
    let slash = if entry.kind == Kind::Folder { "/" } else { "" };
    shown(&entry.path) + slash
}

/// Refuses to replace anything that is there.
pub fn check_places(tree: &Tree, plan: &Plan<'_>, place: &mut Place) -> anyhow::Result<()> {
    let changed: Vec<usize> = plan.changed_files().collect();
    let mut others = Vec::new();
    for (n, entry) in tree.entries.iter().enumerate() {
        let Some(found) = place.look(&entry.path)? else {
            continue;
        };
        let is_same = match &entry.kind {
            Kind::File { .. } => changed.binary_search(&n).is_err(),
            Kind::Folder => found == Found::Folder,
            Kind::Link { target } => found == Found::Link(target.clone()),
            Kind::Node(_) => false,
        };
        if !is_same {
            others.push(shown(&entry.path));
        }
    }
    if others.is_empty() {
        return Ok(());
    }
    let more = others.len().saturating_sub(SHOWN);
    others.truncate(SHOWN);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    let message = format!(
        "{}{more}: here already, and different; nothing was replaced. --overwrite replaces them, another DEST keeps both",
        others.join(", ")
    );
    Err(ExitError::new(Exit::Failed, message).into())
}
