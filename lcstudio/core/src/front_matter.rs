//! Front matter: lines of YAML between lines of dashes at the beginning of a file, as in Marp.
//!
//! Only the fields of lectures are read, each with a value on its line or on indented lines below.

/// Lines of front matter. Chosen: far more than are written by hand.
const MAX_LINES: usize = 200;

/// The content of front matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FrontMatter {
    /// Its length in bytes from the beginning of the file; 0: none.
    pub(crate) length: usize,
    /// Whether it lacks an end: then it is shown.
    pub(crate) is_open: bool,
    /// The line of `headingDivider`, from 1.
    pub(crate) heading_divider: Option<usize>,
    /// The title; empty if it names none.
    pub title: String,
    /// The presenter; empty if it names none.
    pub author: String,
}

/// Reads it from the beginning of a file whose lines end with `\n`.
pub(crate) fn read(file: &str) -> FrontMatter {
    let mut about = FrontMatter::default();
    let mut lines = file.split_inclusive('\n');
    let mut length = match lines.next() {
        Some(first) if first.trim_end() == "---" => first.len(),
        _ => return about,
    };
    // the field whose value may follow on indented lines
    let mut folded = None;
    let mut after_blank = false;
    for (number, line) in lines.take(MAX_LINES).enumerate() {
        length += line.len();
        let text = line.trim_end();
        if number > 0 && matches!(text, "---" | "...") {
            about.length = length;
            return about;
        }
        if let Some((name, value)) = field(text) {
            folded = matches!(value, "" | "|" | ">" | "|-" | ">-").then_some(name);
            match name {
                "headingDivider" => about.heading_divider = Some(number + 2),
                _ if folded.is_none() => about.set(name, unquoted(value)),
                _ => {}
            }
        } else if number == 0 {
            // the file begins with a slide
            return FrontMatter::default();
        } else if text.starts_with([' ', '\t']) {
            if let Some(name) = folded {
                about.set(name, text.trim());
            }
        } else {
            // items of a list and comments; a line # behind a blank one is the heading of a slide
            let is_yaml =
                text.is_empty() || text.starts_with("- ") || text.starts_with('#') && !after_blank;
            if !is_yaml {
                break;
            }
        }
        after_blank = text.is_empty();
    }
    FrontMatter {
        is_open: true,
        ..FrontMatter::default()
    }
}

impl FrontMatter {
    /// Extends a field: its lines are joined.
    fn set(&mut self, name: &str, value: &str) {
        let field = match name {
            "title" => &mut self.title,
            "author" | "presenter" => &mut self.author,
            _ => return,
        };
        if !field.is_empty() {
            field.push(' ');
        }
        field.push_str(value);
    }
}

/// Splits the beginning of a line into name and value at a colon.
fn field(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once(':')?;
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '$'))
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '$'));
    let is_value = value.is_empty() || value.starts_with([' ', '\t']);
    (is_name && is_value).then(|| (name, value.trim()))
}

/// Returns the value without quotes and without a comment behind it.
fn unquoted(value: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some((inside, _)) = value
            .strip_prefix(quote)
            .and_then(|rest| rest.split_once(quote))
        {
            return inside;
        }
    }
    value
        .split_once(" #")
        .map_or(value, |(value, _)| value.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn title_and_author_are_read_in_the_ways_in_which_people_write_them() {
        for (text, title, author) in [
            ("title: How bees talk\nauthor: Ann", "How bees talk", "Ann"),
            (
                "marp: true\n\ntitle: \"Bees: a talk\" # spring\nsize: 16:9",
                "Bees: a talk",
                "",
            ),
            (
                "theme: gaia\nclass:\n- lead\n  - invert\ntitle: 'Bees'",
                "Bees",
                "",
            ),
            (
                "title: >-\n  How bees\n  talk\npresenter: Ann",
                "How bees talk",
                "Ann",
            ),
            (
                "style: |\n  section { color: red; }\n# a comment\ntitle: Bees # and more",
                "Bees",
                "",
            ),
        ] {
            let about = read(&format!("---\n{text}\n---\n\n# One\n"));
            assert_eq!(
                (about.title.as_str(), about.author.as_str()),
                (title, author),
                "{text}"
            );
            assert_eq!(about.length, text.len() + 9);
        }
    }

    #[test]
    fn slides_are_no_front_matter() {
        for (file, is_open) in [
            ("# One\n\n---\ntitle: x\n---\n", false),
            ("---\n---\n# One\n", false),
            ("---\n\ntitle: x\n---\n", false),
            ("---\nhttp://h.example\n---\n", false),
            ("---\nWhy: this\nis text\n---\n", true),
            ("---\ntitle: x\n\n# One\n\n---\n", true),
            ("---\ntitle: x\n", true),
            ("", false),
        ] {
            let about = read(file);
            assert_eq!((about.length, about.is_open), (0, is_open), "{file:?}");
        }
    }
}
