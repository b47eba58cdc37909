//! Updates of notes on their way into the document: in batches, and without those that do harm.
//!
//! What reads them (a CRDT on bytes of others) may fail, or take for ever. Then it is ended, and opened again with all that
//! counts: [`NotesBatches::restart`]. Whose update was tried last is set aside from there on. An update that waits for others may
//! do harm only when they come: so those that waited are tried last, before anybody else is blamed.
//!
//! ```text
//!   add ─► unread ── next ─► the document ─┬─ trying, pending: which it is, and what waits in it
//!             ▲                            ├─ answered
//!             └──────── restart ◄─ blame ◄─┘ failed, or too late
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::notes::NotesUpdate;

/// Most updates of a batch: the document has a limit of time for each (chosen, as in pages).
const BATCH: usize = 200;

/// Whose update, and its number.
pub type UpdateName = (u64, u32);

/// Who is to blame for the end of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blamed {
    /// No update was tried: the document does not work by itself.
    Nobody,
    /// What waited in it, perhaps: it is tried last from now on.
    Waiting,
    /// This author is set aside, from this update on.
    Author(UpdateName),
}

/// All updates, and how far they were read.
#[derive(Debug, Default)]
pub struct NotesBatches {
    all: Vec<NotesUpdate>,
    /// Places in `all`.
    unread: VecDeque<usize>,
    trying: Option<UpdateName>,
    pending: BTreeSet<UpdateName>,
    late: BTreeSet<UpdateName>,
    aside: BTreeMap<u64, u32>,
}

impl NotesBatches {
    /// Another update. Each comes once.
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

    /// A document without anything in it: all that counts is unread.
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

    /// The next batch.
    pub fn next_batch(&mut self) -> Vec<NotesUpdate> {
        let places = self.unread.drain(..self.unread.len().min(BATCH));
        places.map(|n| self.all[n].clone()).collect()
    }

    /// Whether there is a next one.
    #[must_use]
    pub fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// The document reads this one now.
    pub fn trying(&mut self, update: UpdateName) {
        self.trying = Some(update);
    }

    /// It waits in the document for others.
    pub fn pending(&mut self, update: UpdateName) {
        self.pending.insert(update);
    }

    /// The batch was read.
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
