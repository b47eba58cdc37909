//! Saves of a file that any editor writes, as changes of the notes.
//!
//! ```text
//!   texts of the file: [last save that was taken] [written] [written] ...     an editor has one
//!   a save ──► the text that it changed ──► edits of the notes ──► taken: [save]
//! ```
//!
//! Conflicting lines have marks in the file: `[1 of 2, by 3f2a] ...`. A user chooses one by removing
//! the others.

use std::collections::VecDeque;

use crate::edits::{Edit, closest, merge};

/// Versions of a conflicting line; with more it has no marks. Chosen.
pub const MAX_LINE_VERSIONS: usize = 8;
/// Texts of the file that an editor may have loaded, with the last save. Chosen: 8 s of writing.
const MAX_TEXTS: usize = 16;

/// The result of a look at the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Save {
    /// Nothing that the notes lack.
    Nothing,
    /// Changes of the notes, which are being made until [`Saves::taken`].
    Edits(Vec<Edit>),
    /// The first file has a text that is not of these notes.
    Foreign,
    /// The notes have no room for the save.
    Full,
}

/// Texts of the file, and the save that is being taken.
#[derive(Debug, Default)]
pub struct Saves {
    /// The last save that was taken, and later texts of the file.
    texts: VecDeque<String>,
    /// Whether `texts` differ from the disk's.
    is_due: bool,
    /// An earlier text that was saved again while other members wrote in the same words.
    old: Option<String>,
    /// The save that the document is applying.
    taking: Option<String>,
}

impl Saves {
    /// Continues with the texts of an earlier run.
    #[must_use]
    pub fn new(texts: Vec<String>) -> Self {
        Self {
            texts: texts.into(),
            ..Self::default()
        }
    }

    /// Returns the save as changes of the notes' `text`. `room`: characters that the notes can take,
    /// if they can take any change.
    pub fn take(&mut self, saved: &str, text: &str, room: Option<usize>) -> Save {
        if self.texts.is_empty() {
            if !saved.is_empty() && saved != text {
                return Save::Foreign;
            }
            self.texts.push_back(saved.to_owned());
        }
        if self.texts.back().is_some_and(|last| last == saved) {
            return Save::Nothing;
        }
        let edits = merge(self.base_of(saved), saved, text);
        let added: usize = edits.iter().map(|edit| edit.insert.chars().count()).sum();
        if edits.is_empty() {
            self.texts = VecDeque::from([saved.to_owned()]);
            self.is_due = true;
            Save::Nothing
        } else if room.is_none_or(|room| added > room) {
            Save::Full
        } else {
            self.taking = Some(saved.to_owned());
            Save::Edits(edits)
        }
    }

    /// Returns the text that the user has changed to this one.
    fn base_of(&mut self, saved: &str) -> &str {
        // choosing a version of a marked line removes much: such texts are candidates, too
        let choices = self.texts.iter().enumerate();
        let mut loaded: Vec<(usize, String)> = choices
            .flat_map(|(n, text)| choices_of(text).into_iter().map(move |c| (n, c)))
            .collect();
        let is_choice = loaded.iter().any(|(_, choice)| choice == saved);
        let is_old = self.texts.iter().any(|text| text == saved);
        // an old text: the editor has not loaded the marks, unless the user saves it again
        let is_again = is_choice && is_old && self.old.as_deref() == Some(saved);
        self.old = (is_choice && is_old && !is_again).then(|| saved.to_owned());
        if !is_again {
            loaded.extend(self.texts.iter().cloned().enumerate());
        }
        let texts = loaded.iter().map(|(_, text)| text.as_str());
        let base = closest(texts, saved).and_then(|n| self.texts.get(loaded[n].0));
        base.map_or("", String::as_str)
    }

    /// Notes that the document has made the changes of the save, if one is being taken.
    pub fn taken(&mut self) {
        if let Some(taken) = self.taking.take() {
            self.texts = VecDeque::from([taken]);
            self.is_due = true;
        }
    }

    /// Forgets the changes that a document was making when it failed.
    pub fn give_up(&mut self) {
        self.taking = None;
    }

    /// Returns whether the file had a text before.
    pub fn have_begun(&self) -> bool {
        !self.texts.is_empty()
    }

    /// Returns whether the file's text is a save that was not taken.
    pub fn is_unread(&self, content: &str) -> bool {
        self.texts.back().is_none_or(|last| last != content)
    }

    /// Adds a text that is about to be written into the file.
    pub fn begin_write(&mut self, text: &str) {
        self.texts.push_back(text.to_owned());
        if self.texts.len() > MAX_TEXTS {
            // the last save stays
            self.texts.remove(1);
        }
    }

    /// Removes the text that could not be written.
    pub fn cancel_write(&mut self) {
        self.texts.pop_back();
    }

    /// Returns whether [`stored`](Self::stored) texts must be written to disk: after the drafts, as a
    /// crash must not count a lost save as known.
    pub fn is_due(&self) -> bool {
        self.is_due
    }

    /// Notes that the texts are on disk.
    pub fn kept(&mut self) {
        self.is_due = false;
    }

    /// Returns the last save, the file's text and its next text: after a crash it has one of them.
    pub fn stored(&self) -> Vec<String> {
        let last = self.texts.len().saturating_sub(2).max(1);
        let texts = self.texts.iter().enumerate();
        let texts = texts.filter(|(n, _)| *n == 0 || *n >= last);
        texts.map(|(_, text)| text.clone()).collect()
    }
}

/// Returns the texts that result from the first version of each marked line, the second, and so on.
fn choices_of(text: &str) -> Vec<String> {
    let line = |line: &str| {
        let (number, rest) = line.strip_prefix('[')?.split_once(" of ")?;
        let (_, line) = rest.split_once(", by ")?.1.split_once("] ")?;
        Some((number.parse::<usize>().ok()?, line.len()))
    };
    let lines: Vec<_> = text.split_inclusive('\n').map(|l| (l, line(l))).collect();
    let numbers = lines.iter().filter_map(|(_, mark)| mark.map(|(n, _)| n));
    let most = numbers.max().unwrap_or(0).min(MAX_LINE_VERSIONS);
    let choice = |chosen| {
        let kept = lines.iter().filter_map(|(line, mark)| match mark {
            Some((n, length)) => (*n == chosen).then(|| &line[line.len() - length..]),
            None => Some(*line),
        });
        kept.collect()
    };
    (1..=most).map(choice).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edits::apply;

    /// Takes a save; returns the notes after it.
    fn taken(saves: &mut Saves, saved: &str, text: &str) -> String {
        let Save::Edits(edits) = saves.take(saved, text, Some(100)) else {
            return text.to_owned();
        };
        saves.taken();
        apply(text, &edits)
    }

    #[test]
    fn choices_of_marked_lines_are_texts() {
        let marked = "a\n[1 of 2, by 3f2a] b\n[2 of 2, by 0000] c\n[d]\n";
        assert_eq!(choices_of(marked), ["a\nb\n[d]\n", "a\nc\n[d]\n"]);
        assert!(choices_of("a\n[1] b\n").is_empty());
    }

    #[test]
    fn a_save_of_an_older_text_leaves_what_members_wrote_since() {
        let mut saves = Saves::new(vec!["bees\n".to_owned()]);
        saves.begin_write("bees\nants\n");
        let notes = taken(&mut saves, "bees fly\n", "bees\nants\n");
        assert_eq!(notes, "bees fly\nants\n");
        assert!(saves.is_due());
        assert_eq!(saves.stored(), ["bees fly\n"]);
    }

    #[test]
    fn a_file_of_other_content_is_foreign_and_an_empty_one_is_not() {
        assert_eq!(
            Saves::default().take("letter", "notes", Some(9)),
            Save::Foreign
        );
        assert_eq!(Saves::default().take("", "notes", Some(9)), Save::Nothing);
    }

    #[test]
    fn a_save_without_room_is_not_taken() {
        let mut saves = Saves::new(vec!["a".to_owned()]);
        assert_eq!(saves.take("abcd", "a", Some(2)), Save::Full);
        assert_eq!(saves.take("", "a", None), Save::Full);
        saves.taken();
        assert!(!saves.is_due());
        assert!(matches!(saves.take("abc", "a", Some(2)), Save::Edits(_)));
    }

    #[test]
    fn a_failed_document_leaves_the_save_to_be_taken_again() {
        let mut saves = Saves::new(vec!["a".to_owned()]);
        let first = saves.take("ab", "a", Some(9));
        saves.give_up();
        saves.taken();
        assert_eq!(saves.take("ab", "a", Some(9)), first);
    }

    #[test]
    fn only_the_last_save_and_the_last_two_texts_are_stored() {
        let mut saves = Saves::new(vec!["save".to_owned()]);
        for n in 0..40 {
            saves.begin_write(&n.to_string());
        }
        assert_eq!(saves.stored(), ["save", "38", "39"]);
        assert!(saves.is_unread("38") && !saves.is_unread("39"));
        saves.cancel_write();
        assert!(!saves.is_unread("38"));
    }
}
