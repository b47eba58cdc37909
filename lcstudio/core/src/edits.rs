//! Changes that a save made to a text, applied to a text that other members have changed as well.
//!
//! ```text
//!   base ── others ──► theirs          merge: the changes from base to ours, as edits of theirs
//!     └──── a save ──► ours
//! ```
//!
//! A saved text is based on an earlier version of it: [`closest`] finds that version.

use std::ops::Range;

use imara_diff::{Algorithm, Diff, InternedInput};
use serde::{Deserialize, Serialize};

/// A change of a text, in characters of the text before all changes of its list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edit {
    /// First character of the change.
    pub at: usize,
    /// Number of removed characters.
    pub remove: usize,
    /// Inserted text.
    pub insert: String,
}

/// Returns the changes from `before` to `after`: in order, and separate. A change replaces whole
/// words, except for common characters at their ends.
#[must_use]
pub fn difference(before: &str, after: &str) -> Vec<Edit> {
    let mut edits = Vec::new();
    let [before_lines, after_lines] =
        [before, after].map(|t| t.split_inclusive('\n').collect::<Vec<_>>());
    let mut place = Place::default();
    for (lines, new) in hunks(&before_lines, &after_lines) {
        let [old_words, new_words] = [&before_lines[lines.clone()], &after_lines[new]].map(words);
        place.go(&before_lines, lines.start);
        let mut within = Place::default();
        for (old, new) in hunks(&old_words, &new_words) {
            within.go(&old_words, old.start);
            let (old, new) = (old_words[old].concat(), new_words[new].concat());
            edits.push(trimmed(place.chars + within.chars, &old, &new));
        }
    }
    edits
}

/// Position in a list of pieces.
#[derive(Default)]
struct Place {
    pieces: usize,
    chars: usize,
}

impl Place {
    fn go(&mut self, pieces: &[&str], to: usize) {
        let passed = pieces[self.pieces..to].iter();
        self.chars += passed.map(|piece| piece.chars().count()).sum::<usize>();
        self.pieces = to;
    }
}

fn hunks(before: &[&str], after: &[&str]) -> Vec<(Range<usize>, Range<usize>)> {
    let mut input = InternedInput::default();
    input.update_before(before.iter().copied());
    input.update_after(after.iter().copied());
    let diff = Diff::compute(Algorithm::Histogram, &input);
    let range = |range: Range<u32>| range.start as usize..range.end as usize;
    diff.hunks()
        .map(|hunk| (range(hunk.before), range(hunk.after)))
        .collect()
}

/// Splits lines into runs of letters and digits; every other character is a piece of its own.
fn words<'a>(lines: &[&'a str]) -> Vec<&'a str> {
    let mut words = Vec::new();
    for line in lines {
        let mut rest = *line;
        while let Some(first) = rest.chars().next() {
            let run = rest
                .find(|c: char| !c.is_alphanumeric())
                .unwrap_or(rest.len());
            let (word, more) = rest.split_at(run.max(first.len_utf8()));
            words.push(word);
            rest = more;
        }
    }
    words
}

fn trimmed(at: usize, old: &str, new: &str) -> Edit {
    let equal = |(a, b): &(char, char)| a == b;
    let same = old.chars().zip(new.chars()).take_while(equal);
    let (mut begin, mut before) = (0, 0);
    for (c, _) in same {
        begin += c.len_utf8();
        before += 1;
    }
    let (old, new) = (&old[begin..], &new[begin..]);
    let same = old.chars().rev().zip(new.chars().rev()).take_while(equal);
    let end: usize = same.map(|(c, _)| c.len_utf8()).sum();
    Edit {
        at: at + before,
        remove: old[..old.len() - end].chars().count(),
        insert: new[..new.len() - end].to_owned(),
    }
}

/// Returns the text with these changes.
#[must_use]
pub fn apply(text: &str, edits: &[Edit]) -> String {
    let (mut out, mut chars, mut at) = (String::with_capacity(text.len()), text.chars(), 0);
    for edit in edits {
        out.extend(chars.by_ref().take(edit.at.saturating_sub(at)));
        out.push_str(&edit.insert);
        chars.by_ref().take(edit.remove).for_each(drop);
        at = edit.at + edit.remove;
    }
    out.extend(chars);
    out
}

/// Returns the changes from `base` to `ours`, as changes of `theirs`. Text that other members wrote
/// stays, even within a removed part. A change that both made is made once.
#[must_use]
pub fn merge(base: &str, ours: &str, theirs: &str) -> Vec<Edit> {
    let own = difference(base, ours);
    if base == theirs {
        return own;
    }
    let others = difference(base, theirs);
    let kept = kept(&others, base.chars().count());
    let mut merged: Vec<Edit> = Vec::new();
    for edit in own.into_iter().filter(|edit| !others.contains(edit)) {
        let insert = Edit {
            at: moved(&kept, edit.at),
            remove: 0,
            insert: edit.insert,
        };
        merged.push(insert);
        let goes = edit.at..edit.at + edit.remove;
        for (from, to) in &kept {
            let (start, end) = (from.start.max(goes.start), from.end.min(goes.end));
            if start >= end {
                continue;
            }
            let (at, remove) = (to + start - from.start, end - start);
            match merged.last_mut() {
                Some(last) if last.at + last.remove == at => last.remove += remove,
                _ => merged.push(Edit {
                    at,
                    remove,
                    insert: String::new(),
                }),
            }
        }
    }
    merged.retain(|edit| edit.remove > 0 || !edit.insert.is_empty());
    merged
}

/// Returns the ranges that these changes leave, with their new places. First and last may be empty.
fn kept(edits: &[Edit], length: usize) -> Vec<(Range<usize>, usize)> {
    let (mut kept, mut at, mut now) = (Vec::new(), 0, 0);
    for edit in edits {
        kept.push((at..edit.at, now));
        now += edit.at - at + edit.insert.chars().count();
        at = edit.at + edit.remove;
    }
    kept.push((at..length, now));
    kept
}

/// Returns the new place of a character: behind text that other members inserted at it.
fn moved(kept: &[(Range<usize>, usize)], place: usize) -> usize {
    let next = kept.partition_point(|(from, _)| from.start <= place);
    // the first begins at 0
    let (from, to) = &kept[next - 1];
    match place <= from.end {
        true => to + place - from.start,
        // within a part that other members removed
        false => kept.get(next).map_or(*to + from.len(), |(_, to)| *to),
    }
}

/// Returns the index of the version from which `text` was made: the one with the fewest changed
/// characters, the newest if several. `None` without versions.
#[must_use]
pub fn closest<'a>(versions: impl IntoIterator<Item = &'a str>, text: &str) -> Option<usize> {
    let changed = |edit: &Edit| edit.remove + edit.insert.chars().count();
    let costs = versions
        .into_iter()
        .map(|version| difference(version, text).iter().map(changed).sum::<usize>());
    let newest = costs
        .enumerate()
        .min_by_key(|(n, cost)| (*cost, usize::MAX - n));
    newest.map(|(n, _)| n)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn merged(base: &str, ours: &str, theirs: &str) -> String {
        apply(theirs, &merge(base, ours, theirs))
    }

    #[test]
    fn a_change_is_as_small_as_what_was_changed() {
        let (before, after) = (
            "# Bees\n\nThey dance.\nThey fly.\n",
            "# Bees\n\nThey danced.\nThey fly far.\n",
        );
        let edit = |at, insert: &str| Edit {
            at,
            remove: 0,
            insert: insert.into(),
        };
        assert_eq!(difference(before, after), [edit(18, "d"), edit(28, " far")]);
        assert_eq!(difference("a", "a"), []);
        let bees = difference("one 🐝 two", "one 🐝🐝 three");
        assert_eq!(apply("one 🐝 two", &bees), "one 🐝🐝 three");
    }

    #[test]
    fn what_others_have_written_stays_wherever_it_is() {
        let base = "one\ntwo\nthree\n";
        assert_eq!(
            merged(base, "one\n2\nthree\n", "zero\none\ntwo\nthree\nfour\n"),
            "zero\none\n2\nthree\nfour\n"
        );
        // both at the end
        assert_eq!(
            merged(base, "one\ntwo\nthree\nours\n", "one\ntwo\nthree\ntheirs\n"),
            "one\ntwo\nthree\ntheirs\nours\n"
        );
        // within a removed part
        assert_eq!(merged("a b c d", "a d", "a b x c d"), "a x d");
        // at a part that the other member removed
        assert_eq!(merged("a b c d", "a b! c d", "a d"), "a !d");
        assert_eq!(merged("a b c d", "a d", "a d"), "a d");
        assert_eq!(merged("", "ours", ""), "ours");
    }

    #[test]
    fn what_both_have_changed_alike_is_changed_once() {
        assert_eq!(
            merged("a\nb\n", "a\nnew\nb\n", "a\nnew\nb\nc\n"),
            "a\nnew\nb\nc\n"
        );
    }

    #[test]
    fn who_saves_has_loaded_the_version_that_is_closest() {
        let versions = ["one\n", "one\ntwo\n", "one\ntwo\nthree\n"];
        assert_eq!(closest(versions, "one\nmine\n"), Some(0));
        assert_eq!(closest(versions, "one\ntwo, mine\n"), Some(1));
        assert_eq!(closest(versions, "ONE\ntwo\nthree\n"), Some(2));
        assert_eq!(closest([], "one"), None);
    }

    proptest! {
        #[test]
        fn changes_make_the_one_of_the_other(before in "[ab \n🐝]{0,40}", after in "[ab \n🐝]{0,40}") {
            prop_assert_eq!(apply(&before, &difference(&before, &after)), after);
        }

        /// A side without changes takes the other side; inserted text is never lost.
        #[test]
        fn nothing_that_is_written_is_lost(base in "[ab \n]{0,30}", ours in "[abx \n]{0,30}", theirs in "[aby \n]{0,30}") {
            prop_assert_eq!(merged(&base, &base, &theirs), theirs.clone());
            prop_assert_eq!(merged(&base, &ours, &base), ours.clone());
            let both = merged(&base, &ours, &theirs);
            let count = |text: &str, letter| text.matches(letter).count();
            prop_assert_eq!(count(&both, 'x'), count(&ours, 'x'));
            prop_assert_eq!(count(&both, 'y'), count(&theirs, 'y'));
        }
    }
}
