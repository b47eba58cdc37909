//! What somebody has changed in a text file, and what becomes of it where others have changed the text as well.
//!
//! ```text
//!   base ── others ──► theirs          merge: what was changed from base to ours, as edits of theirs
//!     └──── a save ──► ours
//! ```
//!
//! Who saves a file has loaded it some time ago: [`closest`] finds which version of it that was.

use std::ops::Range;

use imara_diff::{Algorithm, Diff, InternedInput};

/// A change of a text, in characters of the text as it was before any other change of its list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// Where.
    pub at: usize,
    /// So many go.
    pub remove: usize,
    /// And this comes.
    pub insert: String,
}

/// What makes `after` of `before`: in order, each apart from the next. Words are the smallest that is replaced, less what both
/// have in common at their ends.
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

/// How far a list of pieces was counted.
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

/// Runs of letters and digits; every other character by itself.
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

/// The text with these changes.
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

/// What was changed from `base` to `ours`, as changes of `theirs`: what others have written stays, also within what goes. What
/// both have changed alike is changed once.
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

/// What these changes have left of a text, and where it is now. The first and the last may be empty.
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

/// Where a place is now: behind what others have put just there.
fn moved(kept: &[(Range<usize>, usize)], place: usize) -> usize {
    let next = kept.partition_point(|(from, _)| from.start <= place);
    // the first begins at 0
    let (from, to) = &kept[next - 1];
    match place <= from.end {
        true => to + place - from.start,
        // in what they have taken out
        false => kept.get(next).map_or(*to + from.len(), |(_, to)| *to),
    }
}

/// Which of these versions somebody has had before him who wrote `text`: the one of which he changed least, the newest of
/// several. None where there are none.
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
        // within what goes
        assert_eq!(merged("a b c d", "a d", "a b x c d"), "a x d");
        // where they have taken something out
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

        /// Whoever changed nothing takes what the other has; what one inserts is never lost.
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
