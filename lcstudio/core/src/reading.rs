//! Reads entries of logs in order.

use std::collections::BTreeMap;

use librecast_log::{AuthorId, Entry, Log};

use crate::view::Place;

/// Numbers of the last read entries of a track's log.
#[derive(Debug, Default)]
pub struct Reading(BTreeMap<AuthorId, u32>);

/// An entry that was not read before.
#[derive(Debug)]
pub struct NewEntry {
    /// Log of the entry.
    pub place: Place,
    /// Whether the owner of the place is its author.
    pub by_owner: bool,
    /// The entry.
    pub entry: Entry,
}

impl Reading {
    /// Returns unread entries of this log, each author's in order.
    pub fn new_entries(&mut self, place: &Place, log: &Log) -> Vec<NewEntry> {
        let mut entries = Vec::new();
        for author in log.authors() {
            let read = self.0.entry(author.author).or_default();
            while let Some(entry) = log.next_entry(author.author, *read) {
                *read = entry.number;
                entries.push(NewEntry {
                    place: place.clone(),
                    by_owner: author.author == log.owner(),
                    entry: entry.clone(),
                });
            }
        }
        entries
    }
}

/// Sorts entries of several logs by time; an author's stay in order, as times never go back.
pub fn sort_by_time(entries: &mut [NewEntry]) {
    entries.sort_by_key(|new| new.entry.time);
}

/// Returns whether other members may have entries that this log lacks.
#[must_use]
pub fn lacks_entries(log: &Log) -> bool {
    let mut authors = log.authors();
    authors.any(|author| author.advertised > author.last)
}
