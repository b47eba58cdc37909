//! Updates of notes on their way into the document: in batches, without harmful ones.
//!
//! A harmful update may make the document (a CRDT) fail or run without end. Then a new document
//! reads all valid updates again: [`NotesBatches::restart`]. The author of the last tried update is
//! ignored from it on. A pending update may do harm only when its dependencies come: pending ones
//! are tried last before an author is blamed.
//!
//! ```text
//!   add ─► unread ── next ─► the document ─┬─ trying, pending: current and pending updates
//!             ▲                            ├─ answered
//!             └──────── restart ◄─ blame ◄─┘ failed, or too late
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::notes::NotesUpdate;

/// Updates of a batch, for each of which the document has a time limit. Chosen, as in pages.
const BATCH: usize = 200;

/// Author and number of an update.
pub type UpdateName = (u64, u32);

/// Cause of a document's failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blamed {
    /// No update was tried: the document fails by itself.
    Nobody,
    /// Perhaps a pending update: pending ones are tried last from now on.
    Waiting,
    /// The author is ignored from this update on.
    Author(UpdateName),
}

/// All updates, and the unread ones among them.
#[derive(Debug, Default)]
pub struct NotesBatches {
    all: Vec<NotesUpdate>,
    /// Indices in `all`.
    unread: VecDeque<usize>,
    trying: Option<UpdateName>,
    pending: BTreeSet<UpdateName>,
    late: BTreeSet<UpdateName>,
    aside: BTreeMap<u64, u32>,
}

impl NotesBatches {
    /// Adds an update; each comes once.
    pub fn add(&mut self, update: NotesUpdate) {
        if self.counts(&update) {
            self.unread.push_back(self.all.len());
        }
        self.all.push(update);
    }

    fn counts(&self, update: &NotesUpdate) -> bool {
        let first = self.aside.get(&update.author);
        first.is_none_or(|first| update.number < *first)
    }

    /// Begins a new document: all valid updates are unread.
    pub fn restart(&mut self) {
        (self.trying, self.pending) = (None, BTreeSet::new());
        let counts = (0..self.all.len()).filter(|n| self.counts(&self.all[*n]));
        let is_late = |n: &usize| {
            self.late
                .contains(&(self.all[*n].author, self.all[*n].number))
        };
        let (late, others): (Vec<_>, Vec<_>) = counts.partition(is_late);
        self.unread = others.into_iter().chain(late).collect();
    }

    /// Returns the next batch.
    pub fn next_batch(&mut self) -> Vec<NotesUpdate> {
        let places = self.unread.drain(..self.unread.len().min(BATCH));
        places.map(|n| self.all[n].clone()).collect()
    }

    /// Returns whether there is an unread update.
    pub fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Notes that the document reads this update now.
    pub fn trying(&mut self, update: UpdateName) {
        self.trying = Some(update);
    }

    /// Notes that this update waits in the document for others.
    pub fn pending(&mut self, update: UpdateName) {
        self.pending.insert(update);
    }

    /// Notes that the document has read the batch.
    pub fn answered(&mut self) {
        self.trying = None;
    }

    /// The document has failed, or takes too long. [`restart`](Self::restart) follows.
    pub fn blame(&mut self) -> Blamed {
        let Some((author, number)) = self.trying.take() else {
            return Blamed::Nobody;
        };
        let suspects: Vec<_> = self.pending.difference(&self.late).copied().collect();
        if !suspects.is_empty() {
            self.late.extend(suspects);
            return Blamed::Waiting;
        }
        let first = self.aside.entry(author).or_insert(number);
        *first = number.min(*first);
        Blamed::Author((author, number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(author: u64, number: u32) -> NotesUpdate {
        NotesUpdate {
            author,
            number,
            body: vec![number as u8],
        }
    }

    fn names(batch: &[NotesUpdate]) -> Vec<UpdateName> {
        batch.iter().map(|u| (u.author, u.number)).collect()
    }

    #[test]
    fn who_does_harm_is_set_aside_from_there_on_and_the_others_are_read_again() {
        let mut batches = NotesBatches::default();
        for number in 1..=3 {
            batches.add(update(1, number));
            batches.add(update(2, number));
        }
        assert_eq!(batches.next_batch().len(), 6);
        assert_eq!(batches.blame(), Blamed::Nobody);
        batches.trying((2, 2));
        assert_eq!(batches.blame(), Blamed::Author((2, 2)));
        batches.restart();
        batches.add(update(2, 4));
        batches.add(update(1, 4));
        let read = names(&batches.next_batch());
        assert_eq!(read, [(1, 1), (2, 1), (1, 2), (1, 3), (1, 4)]);
        assert!(!batches.has_unread());
        batches.trying((1, 4));
        batches.answered();
        assert_eq!(batches.blame(), Blamed::Nobody);
    }

    #[test]
    fn what_waited_is_tried_last_and_by_itself_before_anybody_else_is_blamed() {
        let mut batches = NotesBatches::default();
        for author in 1..=3 {
            batches.add(update(author, 1));
        }
        batches.next_batch();
        // 1 waits for 2, and does harm when that comes
        batches.trying((1, 1));
        batches.pending((1, 1));
        batches.trying((2, 1));
        assert_eq!(batches.blame(), Blamed::Waiting);
        batches.restart();
        assert_eq!(names(&batches.next_batch()), [(2, 1), (3, 1), (1, 1)]);
        batches.trying((1, 1));
        assert_eq!(batches.blame(), Blamed::Author((1, 1)));
        batches.restart();
        assert_eq!(names(&batches.next_batch()), [(2, 1), (3, 1)]);
    }

    #[test]
    fn a_batch_is_bounded() {
        let mut batches = NotesBatches::default();
        (1..=BATCH as u32 + 1).for_each(|number| batches.add(update(1, number)));
        assert_eq!(
            (batches.next_batch().len(), batches.next_batch().len()),
            (BATCH, 1)
        );
    }
}
