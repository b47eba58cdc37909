//! Names of members, chosen by themselves: one spelling, and a mark where two look alike.

use std::collections::{BTreeMap, BTreeSet};

use librecast::id::PeerId;
use librecast::plain::clean;
use librecast_program::book::PREFIX;
use librecast_program::cli::{Exit, ExitError};
use unicode_normalization::UnicodeNormalization;
use unicode_security::confusable_detection::skeleton;

/// Stands before the name of who said something before this member joined, as the owner has it.
pub const EARLIER: &str = "(earlier) ";

/// Separates a name from its mark, which is a part of the member's key.
const MARK: char = '#';

/// Fewest characters of a mark.
const SHORTEST_MARK: usize = 4;

/// Characters at the beginning of every key's text, equal for all.
const SAME: usize = "12D3KooW".len();

/// A name in one spelling (NFC), trimmed, with one blank between words.
pub fn normal(name: &str) -> String {
    let words: Vec<_> = name.split_whitespace().collect();
    words.join(" ").nfc().collect()
}

/// The same for a user's choice.
///
/// # Errors
/// The name is invisible.
pub fn chosen(name: &str) -> Result<String, ExitError> {
    let none = || {
        ExitError::new(
            Exit::Usage,
            format!("{name:?}: nothing of this name is seen"),
        )
    };
    let normal = normal(name);
    (!look(&normal).is_empty())
        .then_some(normal)
        .ok_or_else(none)
}

/// An equal text for names that look alike (UTS #39, skeletons), regardless of blanks and case.
fn look(name: &str) -> String {
    let seen = |c: &char| !c.is_whitespace() && *c != '\u{2800}';
    let all: String = skeleton(name).filter(seen).collect();
    all.to_lowercase()
}

/// Whether a name looks like words that the program writes beside names, or like a name with what
/// its member said.
fn is_misleading(name: &str) -> bool {
    let like = |word: &str, text: &str| look(word) == look(text);
    let words: Vec<&str> = name.split_whitespace().collect();
    let last = words.last().filter(|_| words.len() > 1);
    let book = look(PREFIX);
    look(name).contains(':')
        || look(name).starts_with(&look(EARLIER))
        || words.iter().any(|word| look(word).starts_with(&book))
        || last.is_some_and(|last| like(last, "owner") || like(last, "you"))
}

/// Whether `who` is this member's name, name with its mark, or key.
pub fn is_called(who: &str, (author, name, shown): (&PeerId, &str, &str)) -> bool {
    match who.parse::<PeerId>() {
        // no member is called by another one's key
        Ok(key) => *author == key,
        Err(_) => normal(name) == normal(who) || shown == who,
    }
}

/// Whether `mark` is the beginning of this key, as marks are, or the key.
pub fn is_marked(author: &PeerId, mark: &str) -> bool {
    let (key, mark) = (author.to_string(), mark.trim_start_matches(MARK));
    key == mark || mark.len() >= SHORTEST_MARK && key[SAME..].starts_with(mark)
}

/// The mark of a key where no other one is near.
pub fn mark(author: &PeerId) -> String {
    author.to_string()[SAME..SAME + SHORTEST_MARK].to_owned()
}

/// All members, by the look of their names.
#[derive(Debug, Default)]
pub struct Names {
    alike: BTreeMap<String, BTreeSet<PeerId>>,
}

impl Names {
    /// Collects the names of members.
    pub fn of<'a>(members: impl IntoIterator<Item = (PeerId, &'a str)>) -> Self {
        let mut names = Self::default();
        for (author, name) in members {
            names.alike.entry(look(name)).or_default().insert(author);
        }
        names
    }

    /// A name for people. If another member's name looks alike, or the name seems to have a mark, a
    /// mark follows: enough of the key to differ. A misleading name has quotes as well.
    pub fn shown(&self, author: &PeerId, name: &str) -> String {
        let name = clean(&normal(name));
        let alike = self.alike.get(&look(&name)).into_iter().flatten();
        let others: Vec<_> = alike
            .filter(|other| *other != author)
            .map(PeerId::to_string)
            .collect();
        let is_misleading = is_misleading(&name);
        if others.is_empty() && !name.contains(MARK) && !is_misleading {
            return name;
        }
        let key = author.to_string();
        let is_taken = |mark: &str| others.iter().any(|other| other[SAME..].starts_with(mark));
        let mut marks = (SAME + SHORTEST_MARK..=key.len()).map(|end| &key[SAME..end]);
        let mark = marks.find(|mark| !is_taken(mark)).unwrap_or(&key);
        match is_misleading {
            // the quotes show where the name ends
            true => format!("\"{}\"{MARK}{mark}", name.replace('"', "'")),
            false => format!("{name}{MARK}{mark}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;

    use super::*;

    fn key(n: u8) -> PeerId {
        SecretKey::from_seed(&[n; 32]).peer_id()
    }

    #[test]
    fn a_name_has_one_spelling() {
        assert_eq!(normal(" Ann \u{a0} Lee\t"), "Ann Lee");
        assert_eq!(normal("Zoe\u{308}"), "Zo\u{eb}");
        let joined = "\u{645}\u{6cc}\u{200c}\u{62e}";
        assert_eq!(normal(joined), joined);
        for blank in [
            "",
            "  ",
            "\u{200b}",
            "\u{3164}",
            "\u{2800}",
            "\u{200e}\u{200f}",
        ] {
            assert!(chosen(blank).is_err(), "{blank:?}");
        }
    }

    #[test]
    fn names_that_look_alike_are_told_apart_and_others_stay() {
        let members = [
            "Ann",
            "Ann ",
            "\u{410}nn",
            "A\u{200c}nn",
            "ann",
            "Bob",
            "Zoe\u{308}",
            "Ann#JvpU",
        ];
        let members: Vec<_> = (1..).map(key).zip(members).collect();
        let names = Names::of(members.iter().copied());
        let shown: Vec<_> = members
            .iter()
            .map(|(who, name)| names.shown(who, name))
            .collect();
        let keys: Vec<_> = members.iter().map(|(who, _)| who.to_string()).collect();
        assert_eq!(shown[0], format!("Ann#{}", &keys[0][8..12]));
        assert_eq!(shown[1], format!("Ann#{}", &keys[1][8..12]));
        assert_eq!((&*shown[5], &*shown[6]), ("Bob", "Zo\u{eb}"));
        assert!(
            shown[7].starts_with("Ann#JvpU#"),
            "nobody gives itself a mark"
        );
        let different: BTreeSet<_> = shown.iter().collect();
        assert_eq!(different.len(), shown.len());
    }

    #[test]
    fn a_name_that_looks_like_the_programs_own_words_is_quoted() {
        let names = Names::of([]);
        let shown = |name: &str| names.shown(&key(1), name);
        let mark = &key(1).to_string()[SAME..SAME + SHORTEST_MARK];
        for name in [
            "Ann: I leave",
            "Ann\u{ff1a} I leave",
            "Bob owner",
            "Bob  \u{43e}wner",
            "Bob you",
            "Eve book:ann",
            "(earlier) Ann",
            "( e\u{430}rlier)Ann",
            "Eve b\u{43e}ok:ann",
        ] {
            let normal = clean(&normal(name));
            assert_eq!(shown(name), format!("\"{normal}\"#{mark}"), "{name:?}");
        }
        assert_eq!(shown("\"Ann\": no"), format!("\"'Ann': no\"#{mark}"));
        for name in [
            "owner",
            "you",
            "Bookman",
            "earlier Ann",
            "Owner Bob",
            "Young",
            "O'Hara",
        ] {
            assert_eq!(shown(name), name);
        }
    }

    #[test]
    fn a_key_means_its_member_alone() {
        let [ann, eve] = [1, 2].map(key);
        let anns = ann.to_string();
        assert!(is_called(&anns, (&ann, "Ann", "Ann")));
        assert!(!is_called(&anns, (&eve, &anns, &anns)), "a name like a key");
        assert!(is_called(" Ann", (&ann, "Ann", "Ann#1234")));
        assert!(is_called("Ann#1234", (&ann, "Ann", "Ann#1234")));
    }

    #[test]
    fn a_mark_is_as_long_as_it_must_be() {
        // two keys with the same first letters, found by trial
        let (mut seen, mut n) = (BTreeMap::new(), 0_u32);
        let (one, other) = loop {
            n += 1;
            let mut seed = [0; 32];
            seed[..4].copy_from_slice(&n.to_be_bytes());
            let new = SecretKey::from_seed(&seed).peer_id();
            let mark = new.to_string()[SAME..SAME + SHORTEST_MARK].to_owned();
            if let Some(old) = seen.insert(mark, new) {
                break (old, new);
            }
        };
        let names = Names::of([(one, "Ann"), (other, "Ann")]);
        let (one, other) = (names.shown(&one, "Ann"), names.shown(&other, "Ann"));
        assert!(
            one != other && one.len() > "Ann#1234".len(),
            "{one} {other}"
        );
    }
}
