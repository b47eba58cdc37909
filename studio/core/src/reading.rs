//! Entries of logs in the order in which they are read.

use std::collections::BTreeMap;

use librecast_log::{AuthorId, Entry, Log};

use crate::view::Place;

/// How far the log of a track was read.
#[derive(Debug, Default)]
pub struct Reading(BTreeMap<AuthorId, u32>);

/// An entry that was not read before.
#[derive(Debug)]
pub struct NewEntry {
    /// Where.
    pub place: Place,
    /// The owner of the place has written it.
    pub by_owner: bool,
    /// What.
    pub entry: Entry,
}

impl Reading {
    /// What can be read of this log and was not before: of each author in order.
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

/// Entries of several logs by their time: of each author they stay in order, as his times never go back.
pub fn sort_by_time(entries: &mut [NewEntry]) {
    entries.sort_by_key(|new| new.entry.time);
}

/// Whether others may have entries of this log that are not here.
#[must_use]
pub fn lacks_entries(log: &Log) -> bool {
    let mut authors = log.authors();
    authors.any(|author| author.advertised > author.last)
}
