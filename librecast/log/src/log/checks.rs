//! Invariants of a log, in debug builds.

use super::*;

impl Log {
    /// Asserts bounds and totals, in debug builds.
    pub(super) fn check(&self) {
        if !cfg!(debug_assertions) {
            return;
        }
        let authors = || self.authors.values();
        authors().for_each(Author::check_all);
        let entries = authors().map(|author| author.entries.len()).sum::<usize>();
        let bytes = authors().map(|author| author.bytes).sum::<usize>();
        debug_assert_eq!(
            (self.entries, self.bytes),
            (entries, bytes),
            "each change of an author changes the totals"
        );
        debug_assert!(self.authors.len() <= MAX_AUTHORS, "grants have a bound");
        debug_assert!(
            self.offices.ids().all(|id| self.authors.contains_key(id)),
            "an office is the log of an author"
        );
        debug_assert!(
            self.answers
                .keys()
                .all(|(id, _)| self.authors.contains_key(id)),
            "authors stay for ever"
        );
    }

    /// Asserts that no entry is unread without a gap before it.
    pub(super) fn check_reach(&self, id: AuthorId) {
        let is_unread = |author: &Author| {
            author.conflict.is_none() && author.entries.contains_key(&(author.have + 1))
        };
        debug_assert!(
            !self.authors.get(&id).is_some_and(is_unread),
            "entries without a gap can be read"
        );
    }
}
