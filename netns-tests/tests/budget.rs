//! The size of the repository stays within `netns-tests/rules/budget.toml`.
//!
//! The test reads sources as text, in the form of rustfmt. Functions, structs and parameters are
//! counted without tests; files, lines and words with them. Published crates in `patches` are left
//! out.

use std::collections::BTreeMap;
use std::process::Command;

use sources::root;

use crate::sources;

const BUDGET: &str = "netns-tests/rules/budget.toml";
/// The folder of published crates.
const FOREIGN: &str = "patches/";
/// Most lines of a function that fits a screen. Chosen.
const SCREEN: usize = 60;
/// Most fields of a struct with one purpose. Chosen.
const FIELDS: usize = 15;
/// Most lines of a file with one reason to change. Chosen.
const FILE: usize = 1_000;
/// Words before `fn` and `struct`, apart from the visibility.
const QUALIFIERS: &[&str] = &["async ", "const ", "unsafe ", "extern \"C\" "];

/// Numbers by their names in the budget.
type Figures = BTreeMap<String, usize>;

fn add(figures: &mut Figures, name: &str, more: usize) {
    *figures.entry(name.to_owned()).or_default() += more;
}

/// Returns the text after `pub` without the scope of the visibility.
fn after_scope(text: &str) -> Option<&str> {
    match text.strip_prefix('(') {
        Some(scope) => Some(scope.split_once(')')?.1),
        None => Some(text),
    }
}

/// Returns the indentation of an item with this keyword; `None` for any other line.
fn indentation(line: &str, keyword: &str) -> Option<usize> {
    let text = line.trim_start_matches(' ');
    let mut rest = match text.strip_prefix("pub") {
        Some(public) => after_scope(public)?.strip_prefix(' ')?,
        None => text,
    };
    while let Some(after) = QUALIFIERS.iter().find_map(|word| rest.strip_prefix(*word)) {
        rest = after;
    }
    rest.starts_with(keyword).then_some(line.len() - text.len())
}

/// Returns the last lines of an item's header and of the item.
fn ends(lines: &[&str], begin: usize, indentation: usize) -> (usize, usize) {
    let header = (begin..lines.len()).find(|at| lines[*at].ends_with(['{', '}', ';']));
    let header = header.unwrap_or(begin);
    if !lines[header].ends_with('{') {
        return (header, header);
    }
    let closing = format!("{}}}", " ".repeat(indentation));
    let end = (header + 1..lines.len()).find(|at| lines[*at] == closing);
    (header, end.unwrap_or(header))
}

/// Returns the number of parameters that are destructured tuples; `header` begins with the name.
fn tuple_parameters(header: &str) -> usize {
    let (mut depth, mut count) = (0, 0);
    // whether the list of parameters is open, and whether one begins here
    let (mut inside, mut begins) = (false, false);
    let mut before = ' ';
    for letter in header.chars() {
        match letter {
            '(' | '[' | '{' | '<' => {
                count += usize::from(letter == '(' && begins);
                begins = letter == '(' && depth == 0;
                inside |= begins;
                depth += 1;
            }
            '>' if "-=".contains(before) => begins = false,
            ')' | ']' | '}' | '>' => {
                depth -= 1;
                begins = false;
                if inside && depth == 0 {
                    break;
                }
            }
            ',' => begins = inside && depth == 1,
            _ => begins = begins && letter.is_whitespace(),
        }
        before = letter;
    }
    count
}

fn is_field(text: &str) -> bool {
    let named = text.strip_prefix("pub").and_then(after_scope);
    let Some((name, _)) = named.unwrap_or(text).trim().split_once(':') else {
        return false;
    };
    !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_')
}

/// Returns the number of fields in the body of a struct.
fn fields(body: &[&str], indentation: usize) -> usize {
    let own = body.iter().filter_map(|line| {
        let text = line.trim_start_matches(' ');
        (line.len() - text.len() == indentation + 4).then_some(text)
    });
    own.filter(|text| is_field(text)).count()
}

/// Adds the figures of one source.
fn measure(text: &str, figures: &mut Figures) {
    let lines: Vec<&str> = text.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        if let Some(indentation) = indentation(line, "fn ") {
            let (header, end) = ends(&lines, at, indentation);
            let is_long = end - at + 1 > SCREEN;
            add(figures, "functions_over_60_lines", is_long.into());
            let header = lines[at..=header].join(" ");
            let (_, header) = header.split_once("fn ").unwrap();
            add(figures, "tuple_parameters", tuple_parameters(header));
        }
        if let Some(indentation) = indentation(line, "struct ") {
            let (header, end) = ends(&lines, at, indentation);
            let count = fields(&lines[header..end], indentation);
            add(figures, "structs_over_15_fields", (count > FIELDS).into());
        }
    }
}

/// Returns the figures of the repository.
fn figures() -> Figures {
    let mut figures = Figures::new();
    for (path, text) in sources::below(&root()) {
        if !path.starts_with(root().join(FOREIGN)) {
            measure(&text, &mut figures);
        }
    }
    let out = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .unwrap();
    let listed = String::from_utf8(out.stdout).unwrap();
    let ours = listed.lines().filter(|file| !file.starts_with(FOREIGN));
    let ours = ours.filter(|file| file.ends_with(".rs") || file.ends_with(".md"));
    for path in ours.map(|file| root().join(file)) {
        // a file may have been removed, and not from the index yet
        if !path.is_file() {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        if path.extension().is_some_and(|extension| extension == "md") {
            let words = text.split_whitespace().count();
            add(&mut figures, "words_of_documents", words);
        } else {
            let lines = text.lines().count();
            add(&mut figures, "lines_of_rust", lines);
            let is_long = lines > FILE;
            add(&mut figures, "files_over_1000_lines", is_long.into());
        }
    }
    figures
}

fn budget() -> Figures {
    let text = std::fs::read_to_string(root().join(BUDGET)).unwrap();
    let lines = text.lines();
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let numbers = lines.map(|line| {
        let (name, number) = line.split_once(" = ").unwrap();
        (
            name.to_owned(),
            number.replace('_', "").parse::<usize>().unwrap(),
        )
    });
    numbers.collect()
}

#[test]
fn the_repository_stays_within_its_budget() {
    let (budget, figures) = (budget(), figures());
    let is_same = budget.keys().eq(figures.keys());
    assert!(is_same, "{BUDGET}: {budget:?}, measured: {figures:?}");
    let mut over = Vec::new();
    for (name, figure) in &figures {
        let most = budget[name];
        if *figure > most {
            over.push(format!("{name}: {figure}, at most {most}"));
        }
    }
    assert!(over.is_empty(), "beyond {BUDGET}:\n{}", over.join("\n"));
}

#[test]
fn only_long_functions_and_large_structs_are_counted() {
    let long = format!(
        "    pub(crate) async fn long() {{\n{}    }}\n",
        "\n".repeat(59)
    );
    let short = format!("fn short() {{\n{}}}\n", "\n".repeat(58));
    let declared = "fn declared(\n    at: u32,\n) -> u32;\n";
    let fields = |count| {
        format!(
            "pub struct S {{\n{}}}\n",
            "    pub(super) a: (u8, u8),\n".repeat(count)
        )
    };
    let mut figures = Figures::new();
    let parts = [long, short, declared.to_owned(), fields(15), fields(16)];
    measure(&parts.concat(), &mut figures);
    let expected = [
        ("functions_over_60_lines", 1),
        ("structs_over_15_fields", 1),
        ("tuple_parameters", 0),
    ];
    let expected = expected.map(|(name, count)| (name.to_owned(), count));
    assert_eq!(figures, Figures::from(expected));
}

#[test]
fn a_tuple_is_counted_where_it_is_taken_apart() {
    let cases = [
        ("f(a: u8, b: (u8, u8)) -> (u8, u8) {", 0),
        ("f((a, b): (u8, u8)) {", 1),
        (
            "f<F: Fn(u8) -> u8, T>(    &self,     (a, (b, c)): T, f: F, (d, e): T, )",
            2,
        ),
        ("f(a: impl Fn(u8, (u8, u8)) -> u8) { g((1, 2)) }", 0),
    ];
    for (header, count) in cases {
        assert_eq!(tuple_parameters(header), count, "{header}");
    }
}
