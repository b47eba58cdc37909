//! Patterns of commands, for policies and certificates.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use librecast::id::PeerId;

use crate::request::COPY;
use crate::selector::glob_matches;

/// A pattern for programs and arguments: words, each a glob for one argument.
///
/// - `*` and `?` in a word stand for characters but `/`, `**` for any; none of them for a part `..`
///   of a path, nor for the `-` that begins an option.
/// - A word `*` stands for one argument that is not an option, a last one for any number of them; a
///   last word `**` for any further arguments.
/// - The pattern `*` stands for everything.
///
/// So a pattern limits the paths and options of a program. `@NAME` is a module, `copy:DEST` a copy
/// to DEST, which never has `..`: its `*` stands for `/` too. `revoke:GLOB` allows to revoke keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    words: Vec<String>,
}

impl Pattern {
    /// Parses a pattern; none if it is empty.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        (!words.is_empty()).then_some(Self { words })
    }

    pub(crate) fn allows_everything(&self) -> bool {
        self.words == ["*"]
    }

    pub(crate) fn allows(&self, arguments: &[OsString]) -> bool {
        let last = self.words.split_last();
        let (words, rest): (_, Option<Allows>) = match last {
            Some((last, front)) if last == ANYTHING => (front, Some(|_| true)),
            Some((last, front)) if last == ANY => (front, Some(|a| !is_option(a))),
            _ => (self.words.as_slice(), None),
        };
        let Some((front, more)) = arguments.split_at_checked(words.len()) else {
            return false;
        };
        let matches = |(word, argument): (&String, &OsString)| word_allows(word, argument);
        // `copy` checked DEST: it is absolute and without `..`
        let mut pairs = words.iter().zip(front);
        let copy = |word: &str, to: &str| word.starts_with(COPY) && to.starts_with(COPY);
        let first = pairs
            .next()
            .is_none_or(|(word, program)| match program.to_str() {
                Some(to) if copy(word, to) => glob_matches(word, to),
                _ => word_allows(word, program),
            });
        first
            && pairs.all(matches)
            && rest.map_or(more.is_empty(), |allows| more.iter().all(allows))
    }

    /// Returns whether it is the one word `revoke:GLOB` and GLOB matches the key.
    pub(crate) fn allows_to_revoke(&self, key: &PeerId) -> bool {
        let [word] = self.words.as_slice() else {
            return false;
        };
        word.starts_with("revoke:") && glob_matches(word, &format!("revoke:{key}"))
    }

    /// Returns whether it matches the program of `arguments`.
    pub(crate) fn names_program(&self, arguments: &[OsString]) -> bool {
        let words = self.words.first().zip(arguments.first());
        words.is_some_and(|(word, program)| word_allows(word, program))
    }
}

/// Whether this argument is permitted in a rest of any length.
type Allows = fn(&OsString) -> bool;

/// A word for any argument but options.
const ANY: &str = "*";
/// A last word for all further arguments.
const ANYTHING: &str = "**";
/// Longest argument that is compared with globs, in bytes: PATH_MAX of Linux.
pub(crate) const MAX_COMPARED: usize = 4_096;

fn is_option(argument: &OsString) -> bool {
    argument.as_bytes().first() == Some(&b'-')
}

fn word_allows(word: &str, argument: &OsString) -> bool {
    if word == ANY {
        return !is_option(argument);
    }
    // only words for whole arguments match other bytes than UTF-8
    let Some(text) = argument.to_str() else {
        return false;
    };
    if word == text {
        return true;
    }
    let option_by_chance = text.starts_with('-') && !word.starts_with('-');
    // also after characters that commonly precede a path in an argument
    let leads_up = text.split(['/', '=', ':', ',']).any(|part| part == "..");
    !option_by_chance && !leads_up && text.len() <= MAX_COMPARED && path_glob_matches(word, text)
}

/// Returns whether `glob` matches the whole of `text`: `*` and `?` stand for no `/`, `**` for any
/// characters. Takes steps in the product of both lengths.
fn path_glob_matches(glob: &str, text: &str) -> bool {
    /// A piece of a glob.
    enum Piece {
        This(char),
        One,
        Some,
        All,
    }
    let mut pieces = Vec::new();
    let mut chars = glob.chars().peekable();
    while let Some(c) = chars.next() {
        pieces.push(match c {
            '*' if chars.next_if_eq(&'*').is_some() => Piece::All,
            '*' => Piece::Some,
            '?' => Piece::One,
            c => Piece::This(c),
        });
    }
    let stars = |reached: &mut [bool]| {
        for (n, piece) in pieces.iter().enumerate() {
            // they may stand for nothing
            reached[n + 1] |= reached[n] && matches!(piece, Piece::Some | Piece::All);
        }
    };
    // reached[n]: the first n pieces match the text so far
    let mut reached = vec![false; pieces.len() + 1];
    reached[0] = true;
    stars(&mut reached);
    for c in text.chars() {
        let mut next = vec![false; reached.len()];
        for (n, piece) in pieces.iter().enumerate() {
            match piece {
                Piece::This(wanted) => next[n + 1] |= reached[n] && *wanted == c,
                Piece::One => next[n + 1] |= reached[n] && c != '/',
                Piece::Some => next[n + 1] |= reached[n + 1] && c != '/',
                Piece::All => next[n + 1] |= reached[n + 1],
            }
        }
        stars(&mut next);
        reached = next;
    }
    reached.last() == Some(&true)
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Matches by the definition of globs.
    fn by_definition(glob: &[char], text: &[char]) -> bool {
        match (glob, text) {
            ([], text) => text.is_empty(),
            (['*', '*', rest @ ..], text) => {
                (0..=text.len()).any(|n| by_definition(rest, &text[n..]))
            }
            (['*', rest @ ..], text) => {
                let end = text.iter().position(|c| *c == '/').unwrap_or(text.len());
                (0..=end).any(|n| by_definition(rest, &text[n..]))
            }
            (['?', rest @ ..], [c, text @ ..]) => *c != '/' && by_definition(rest, text),
            ([wanted, rest @ ..], [c, text @ ..]) => wanted == c && by_definition(rest, text),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn path_glob_agrees_with_its_definition(glob in "[a/*?]{0,8}", text in "[aß/]{0,8}") {
            let (g, t): (Vec<_>, Vec<_>) = (glob.chars().collect(), text.chars().collect());
            prop_assert_eq!(path_glob_matches(&glob, &text), by_definition(&g, &t));
        }
    }
}
