//! Names that are public or visible to users use the words of docs/glossary.md.
//!
//! The test reads sources as text: items after `pub` (of any visibility), variants and fields of
//! public enums, functions of public traits, and fields of journal entries. From docs/reference.md
//! (see the test `reference`) it takes metrics, labels, drop reasons, flags, configuration keys and
//! checks. Verbs are exempt: `lcroute say` stays.

use std::collections::BTreeSet;

use sources::root;

use crate::sources;

/// Names whose refused word comes from a specification: group records of an MLD report (RFC 9777
/// §5.2.4), IWANT (Plumtree, GossipSub); or means a recording of sound.
const SPECIFIED: &[&str] = &["handle_record", "take_records", "IWant", "--record FILE"];

/// A name and its place: a source file, or docs/reference.md.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    text: String,
    file: String,
    line: usize,
}

/// A refused word or compound of the glossary.
#[derive(Debug)]
struct Refused {
    words: Vec<String>,
    instead: String,
    /// Folders; none: everywhere.
    folders: Vec<String>,
}

impl Refused {
    /// Whether `name` has these words in a row, also in the plural.
    fn is_in(&self, name: &Name) -> bool {
        let is_seen_by_users = name.file == REFERENCE;
        let inside = |folder: &String| name.file.starts_with(&format!("{folder}/"));
        if !is_seen_by_users && !self.folders.is_empty() && !self.folders.iter().any(inside) {
            return false;
        }
        let same = |(word, refused): (&String, &String)| {
            word == refused || word.strip_suffix('s') == Some(refused)
        };
        words(&name.text)
            .windows(self.words.len())
            .any(|part| part.iter().zip(&self.words).all(same))
    }
}

const GLOSSARY: &str = "docs/glossary.md";
const REFERENCE: &str = "docs/reference.md";

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// Returns the words of an identifier in lower case, split at other characters and capitals.
fn words(name: &str) -> Vec<String> {
    let letters: Vec<char> = name.chars().collect();
    let mut words = vec![String::new()];
    for (at, letter) in letters.iter().enumerate() {
        let before = at.checked_sub(1).map(|at| letters[at]);
        let after = letters.get(at + 1);
        let begins = letter.is_uppercase()
            && (before.is_some_and(|c| !c.is_uppercase())
                || after.is_some_and(|c| c.is_lowercase()));
        if begins || !letter.is_alphanumeric() {
            words.push(String::new());
        }
        if letter.is_alphanumeric() {
            words.last_mut().unwrap().extend(letter.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Returns the cells of a row of a Markdown table; `None` for the line between header and body.
fn cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    let cells: Vec<&str> = inner.split(" | ").map(str::trim).collect();
    (!inner.starts_with("---")).then_some(cells)
}

/// Returns the texts between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn refused() -> Vec<Refused> {
    let glossary = read(GLOSSARY);
    let (_, table) = glossary.split_once("\n| not | but | where |\n").unwrap();
    let rows = table
        .lines()
        .map_while(|line| line.starts_with('|').then_some(line));
    let rows = rows.filter_map(cells).map(|row| {
        let [not, but, folders @ ..] = &row[..] else {
            panic!("{row:?}");
        };
        let folders = folders
            .iter()
            .flat_map(|cell| quoted(cell))
            .map(str::to_owned);
        let folders: Vec<String> = folders.collect();
        for folder in &folders {
            assert!(
                root().join(folder).is_dir(),
                "{GLOSSARY}: no folder {folder}"
            );
        }
        let but = but.trim_end_matches('|').trim().to_owned();
        (*not, but, folders)
    });
    rows.flat_map(|(not, instead, folders)| {
        not.split(", ").map(move |entry| Refused {
            words: words(entry),
            instead: instead.clone(),
            folders: folders.clone(),
        })
    })
    .collect()
}

/// Returns the identifier at the beginning of `text`, and the rest.
fn identifier(text: &str) -> Option<(&str, &str)> {
    let end = text
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// Returns `line` without strings, characters and comments, as far as a single line shows them.
fn code(line: &str) -> String {
    let line = line
        .replace("\\\"", "")
        .replace("'\"'", "")
        .replace("'{'", "")
        .replace("'}'", "");
    let parts: String = line.split('"').step_by(2).collect();
    parts.split("//").next().unwrap().to_owned()
}

/// Returns the name that a line makes public, and whether its body may have more.
fn declared(line: &str) -> Option<(&str, bool)> {
    let line = line.strip_prefix("pub")?;
    let mut rest = match line.strip_prefix('(') {
        Some(visibility) => visibility.split_once(')')?.1,
        None => line.strip_prefix(' ')?,
    }
    .trim_start();
    loop {
        let (word, after) = identifier(rest)?;
        let after = after.trim_start();
        match word {
            "async" | "unsafe" | "extern" => rest = after,
            "const" | "static" => {
                let (name, _) = identifier(after)?;
                if !["fn", "unsafe", "async", "extern"].contains(&name) {
                    return Some((name, false));
                }
                rest = after;
            }
            "fn" | "struct" | "mod" | "type" | "union" => {
                return Some((identifier(after)?.0, false));
            }
            "enum" | "trait" => return Some((identifier(after)?.0, true)),
            field => return after.starts_with(':').then_some((field, false)),
        }
    }
}

/// Returns the names in a line of a public enum or trait: a variant and its fields, or a function.
fn declared_inside(line: &str) -> Vec<&str> {
    if let Some(function) = line.strip_prefix("fn ") {
        return identifier(function)
            .map(|(name, _)| name)
            .into_iter()
            .collect();
    }
    let (variant, fields) = line.split_once('{').unwrap_or((line, ""));
    let parts = std::iter::once(variant).chain(fields.split(','));
    let declares = |part| {
        let (name, after) = identifier(str::trim(part))?;
        let ends =
            after.is_empty() || after.starts_with([',', '(', ':']) || after.starts_with(" =");
        ends.then_some(name)
    };
    parts.filter_map(declares).collect()
}

/// Adds the public names of a source file.
fn public_names(file: &str, text: &str, found: &mut BTreeSet<Name>) {
    let mut add = |text: &str, line: usize| {
        found.insert(Name {
            text: text.to_owned(),
            file: file.to_owned(),
            line,
        });
    };
    // open braces, and their number at the beginning of the enum's or trait's body
    let (mut depth, mut body): (usize, Option<usize>) = (0, None);
    for (number, line) in (1..).zip(text.lines()) {
        let code = code(line);
        let trimmed = code.trim();
        for prefix in ["lcroute_", "lcsync_", "lcagent_"] {
            for (at, _) in trimmed.match_indices(prefix) {
                let field = identifier(&trimmed[at..]);
                if let Some((field, _)) = field.filter(|(_, after)| after.starts_with(" =")) {
                    add(field, number);
                }
            }
        }
        let declares = declared(trimmed);
        match (declares, body) {
            (Some((name, _)), _) => add(name, number),
            (None, Some(outside)) if depth <= outside + 2 => {
                for name in declared_inside(trimmed) {
                    add(name, number);
                }
            }
            _ => {}
        }
        if declares.is_some_and(|(_, has_body)| has_body) {
            body = Some(depth);
        }
        depth += code.matches('{').count();
        depth = depth.saturating_sub(code.matches('}').count());
        if code.contains('}') && body.is_some_and(|outside| depth <= outside) {
            body = None;
        }
    }
}

/// Returns names in docs/reference.md: backticked first cells, metric labels, journal fields.
fn reference_names() -> BTreeSet<Name> {
    let mut found = BTreeSet::new();
    let mut section = String::new();
    for (number, line) in (1..).zip(read(REFERENCE).lines()) {
        if let Some(title) = line.strip_prefix("## ") {
            title.clone_into(&mut section);
        }
        let Some(row) = cells(line) else { continue };
        let mut add = |text: &str| {
            found.insert(Name {
                text: text.to_owned(),
                file: REFERENCE.to_owned(),
                line: number,
            });
        };
        quoted(row[0]).for_each(&mut add);
        match (section.as_str(), row.get(2)) {
            ("Metrics", Some(labels)) => add(labels),
            ("Journal", Some(fields)) => quoted(fields).for_each(&mut add),
            _ => {}
        }
    }
    found
}

fn names() -> BTreeSet<Name> {
    let files = sources::below(&root());
    assert!(files.len() > 300, "{} sources", files.len());
    let mut found = reference_names();
    assert!(found.len() > 300, "{} names in {REFERENCE}", found.len());
    for (file, text) in &files {
        let file = file.strip_prefix(root()).unwrap().to_str().unwrap();
        public_names(file, text, &mut found);
    }
    found
}

#[test]
fn public_names_use_the_words_of_the_glossary() {
    let (refused, names) = (refused(), names());
    assert!(refused.len() > 30, "{refused:?}");
    assert!(names.len() > 4_000, "{} names", names.len());
    let mut wrong = Vec::new();
    for name in &names {
        if SPECIFIED.contains(&name.text.as_str()) {
            continue;
        }
        for refused in refused.iter().filter(|refused| refused.is_in(name)) {
            let Name { text, file, line } = name;
            let (words, instead) = (refused.words.join(" "), &refused.instead);
            wrong.push(format!(
                "{file}:{line}: {text}: not \"{words}\", but {instead}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{GLOSSARY} refuses\n{}", wrong.join("\n"));
}

#[test]
fn a_specified_name_that_is_gone_is_not_excused_any_more() {
    let names = names();
    for excused in SPECIFIED {
        assert!(names.iter().any(|name| name.text == *excused), "{excused}");
    }
}

#[test]
fn identifiers_fall_into_words() {
    let cases: [(&str, &[&str]); 6] = [
        ("slow_side", &["slow", "side"]),
        ("SlowSide", &["slow", "side"]),
        ("MLDReport2", &["mld", "report2"]),
        ("MAX_REVOKED", &["max", "revoked"]),
        ("--member-ttl D", &["member", "ttl", "d"]),
        ("heardOver", &["heard", "over"]),
    ];
    for (name, expected) in cases {
        assert_eq!(words(name), expected, "{name}");
    }
}

#[test]
fn a_refused_word_is_found_wherever_a_public_name_can_stand() {
    const SOURCE: &str = r#"
pub const KNOCK_RATE: u32 = 1;
pub const fn knock_const() {}
pub(crate) async fn knock_soon(now: u32) {
    let knock_local = 1;
}
pub struct Knock {
    pub(super) knocks: u64,
    knock_private: u64,
}
pub enum Event {
    /// A knock in a comment.
    KnockCame { knock_at: u64 },
    Other {
        knocked_by: u32,
        knock: u32,
    },
    Knocks(u32),
}
pub trait Door {
    fn knock_on(&self);
}
pub mod knocking {}
fn private_knock() { tracing::info!(lcroute_knock = 1, "a knock"); }
"#;
    let mut names = BTreeSet::new();
    public_names("x.rs", SOURCE, &mut names);
    let knock = Refused {
        words: vec!["knock".to_owned()],
        instead: String::new(),
        folders: Vec::new(),
    };
    let hits: BTreeSet<&str> = names
        .iter()
        .filter(|name| knock.is_in(name))
        .map(|name| name.text.as_str())
        .collect();
    let expected = [
        "KNOCK_RATE",
        "knock_const",
        "knock_soon",
        "Knock",
        "knocks",
        "KnockCame",
        "knock_at",
        "knock",
        "Knocks",
        "knock_on",
        "lcroute_knock",
    ];
    assert_eq!(hits, BTreeSet::from(expected));
}
