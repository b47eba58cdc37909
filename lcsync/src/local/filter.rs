//! Patterns of `--exclude` and `--include`, as in rsync(1).
//!
//! ```text
//! *.o       a name anywhere          /build    in SRC itself, not deeper
//! tmp/      folders only             a/b       the end of a path
//! *  ?  [a-z]  not over a slash      **        over slashes too
//! dir/***   the folder and all in it
//! ```
//!
//! Where rsync(1) is unclear, rsync decides: `tests/beside_rsync.rs` compares both.

use std::fmt::Write;

use regex::bytes::{Regex, RegexBuilder};

/// A pattern, and whether its matches are taken.
#[derive(Debug, Clone)]
struct Rule {
    takes: bool,
    folders_only: bool,
    /// A pattern without slash is for the last name of a path.
    of_name: bool,
    /// A pattern that begins with `**` also matches as if a slash stood before the path.
    after_slash: bool,
    /// A pattern that ends with `***` also matches the folder, as if a slash stood after it.
    with_folder: bool,
    /// `None`: it can match nothing.
    regex: Option<Regex>,
}

/// Rules in the given order: the first match decides; entries without a match are taken.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    rules: Vec<Rule>,
    remarks: Vec<String>,
}

impl Filter {
    /// Adds a pattern; a prefix `+ ` or `- ` replaces `takes`. `!` removes all earlier ones.
    pub fn add(&mut self, text: &[u8], takes: bool) -> Result<(), String> {
        let (takes, pattern) = match text {
            b"" => return Ok(()),
            b"!" => {
                self.rules.clear();
                return Ok(());
            }
            [b'+', b' ', pattern @ ..] => (true, pattern),
            [b'-', b' ', pattern @ ..] => (false, pattern),
            pattern => (takes, pattern),
        };
        let shown = String::from_utf8_lossy(text);
        let rule = Rule::new(pattern, takes).map_err(|why| format!("pattern {shown:?}: {why}"))?;
        if rule.regex.is_none() {
            self.remarks
                .push(format!("pattern {shown:?} matches nothing"));
        }
        self.rules.push(rule);
        Ok(())
    }

    /// Adds a file's patterns, one a line. Empty lines and those that begin with `#` or `;` do not
    /// count.
    pub fn add_lines(&mut self, text: &[u8], takes: bool) -> Result<(), String> {
        // CR LF leaves an empty line
        for line in text.split(|c| matches!(c, b'\n' | b'\r')) {
            let line = line.split(|c| *c == 0).next().unwrap_or_default();
            if !line.is_empty() && !matches!(line[0], b'#' | b';') {
                self.add(line, takes)?;
            }
        }
        Ok(())
    }

    /// Hints for the author of the patterns.
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// Whether it has no patterns.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether the entry at `path`, relative to the folder that SRC is copied from, is left out.
    pub fn leaves_out(&self, path: &[u8], is_folder: bool) -> bool {
        let first = self.rules.iter().find(|r| r.matches(path, is_folder));
        first.is_some_and(|rule| !rule.takes)
    }
}

impl Rule {
    fn new(text: &[u8], takes: bool) -> Result<Self, &'static str> {
        let (pattern, folders_only) = match text.strip_suffix(b"/") {
            Some(rest) if !rest.is_empty() => (rest, true),
            _ => (text, false),
        };
        if pattern.is_empty() {
            return Err("there is nothing in it");
        }
        let wild = pattern.iter().any(|c| b"*?[".contains(c));
        let over_slashes = pattern.windows(2).any(|two| two == b"**");
        let after_slash = pattern.starts_with(b"**");
        let with_folder = pattern.ends_with(b"***");
        let slashes = pattern.iter().filter(|c| **c == b'/').count();
        let (body, anchored) = match pattern.strip_prefix(b"/") {
            Some(rest) => (rest, true),
            None => (pattern, false),
        };
        let begin = match anchored || after_slash {
            true => "^",
            false => "(?:^|/)",
        };
        let elements = match wild {
            true => elements(body),
            false => Some(body.iter().copied().map(Element::Byte).collect()),
        };
        // this number of last names is compared: a slash in a set counts, and matches none
        let matched = |of: &Vec<Element>| of.iter().filter(|e| e.is_slash()).count();
        let elements = elements.filter(|of| anchored || over_slashes || matched(of) == slashes);
        let regex = elements.map(|elements| {
            let body: String = elements.iter().map(Element::regex).collect();
            RegexBuilder::new(&format!("{begin}{body}$"))
                .unicode(false)
                .dot_matches_new_line(true)
                .build()
        });
        Ok(Self {
            takes,
            folders_only,
            of_name: slashes == 0 && !over_slashes,
            after_slash,
            with_folder,
            regex: regex.transpose().map_err(|_| "it is too long")?,
        })
    }

    fn matches(&self, path: &[u8], is_folder: bool) -> bool {
        let Some(regex) = &self.regex else {
            return false;
        };
        if self.folders_only && !is_folder {
            return false;
        }
        let name = path.rsplit(|c| *c == b'/').next().unwrap_or(path);
        let subject = if self.of_name { name } else { path };
        let slash = |wanted| if wanted { &b"/"[..] } else { b"" };
        match (self.after_slash, self.with_folder && is_folder) {
            (false, false) => regex.is_match(subject),
            (before, behind) => regex.is_match(&[slash(before), subject, slash(behind)].concat()),
        }
    }
}

/// A part of a pattern.
enum Element {
    Byte(u8),
    /// One of these bytes, which never include a slash.
    OneOf(Box<[bool; 256]>),
    /// Any bytes, with or without slashes.
    Any {
        slashes: bool,
    },
}

impl Element {
    fn is_slash(&self) -> bool {
        matches!(self, Self::Byte(b'/'))
    }

    fn regex(&self) -> String {
        match self {
            Self::Byte(byte) => format!("\\x{byte:02x}"),
            Self::Any { slashes: true } => ".*".to_owned(),
            Self::Any { slashes: false } => "[^/]*".to_owned(),
            Self::OneOf(set) => {
                let mut out = "[".to_owned();
                for byte in (0..=u8::MAX).filter(|byte| set[usize::from(*byte)]) {
                    // writing to a String does not fail
                    let _ = write!(out, "\\x{byte:02x}");
                }
                out + "]"
            }
        }
    }
}

/// Returns the elements of a pattern with wildcards; `None` if it can match nothing.
fn elements(pattern: &[u8]) -> Option<Vec<Element>> {
    let mut out = Vec::new();
    let mut rest = pattern;
    while let [c, after @ ..] = rest {
        rest = after;
        out.push(match c {
            b'*' => {
                let more = after.iter().take_while(|c| **c == b'*').count();
                rest = &after[more..];
                Element::Any { slashes: more > 0 }
            }
            b'?' => Element::OneOf(Box::new(std::array::from_fn(|c| c != usize::from(b'/')))),
            b'[' => {
                let (set, after) = set(after)?;
                rest = after;
                Element::OneOf(set)
            }
            b'\\' => {
                let [escaped, after @ ..] = after else {
                    return None;
                };
                rest = after;
                Element::Byte(*escaped)
            }
            c => Element::Byte(*c),
        });
    }
    Some(out)
}

/// Parses a set from behind its opening bracket; `None` if it has no end or is empty.
fn set(mut rest: &[u8]) -> Option<(Box<[bool; 256]>, &[u8])> {
    let mut set = Box::new([false; 256]);
    let negated = matches!(rest, [b'!' | b'^', ..]);
    if negated {
        rest = &rest[1..];
    }
    // possible first byte of a range
    let mut previous = None;
    let mut is_first = true;
    loop {
        match rest {
            [b']', after @ ..] if !is_first => {
                rest = after;
                break;
            }
            [b'-', b'\\', last, after @ ..] if previous.is_some() => {
                add_range(&mut set, previous.take(), *last);
                rest = after;
            }
            [b'-', last, after @ ..] if previous.is_some() && *last != b']' => {
                add_range(&mut set, previous.take(), *last);
                rest = after;
            }
            [b'[', b':', inner @ ..] => {
                let end = inner.iter().position(|c| *c == b']')?;
                if let Some(class) = inner[..end].strip_suffix(b":") {
                    add_class(&mut set, class)?;
                    previous = None;
                    rest = &inner[end + 1..];
                } else {
                    add_range(&mut set, Some(b'['), b'[');
                    previous = Some(b'[');
                    rest = &rest[1..];
                }
            }
            [b'\\', c, after @ ..] | [c, after @ ..] => {
                // a backslash at the end escapes nothing
                if after.is_empty() && *c == b'\\' {
                    return None;
                }
                add_range(&mut set, Some(*c), *c);
                previous = Some(*c);
                rest = after;
            }
            [] => return None,
        }
        is_first = false;
    }
    for (byte, is_in) in set.iter_mut().enumerate() {
        *is_in = *is_in != negated && byte != usize::from(b'/');
    }
    set.contains(&true).then_some((set, rest))
}

fn add_range(set: &mut [bool; 256], first: Option<u8>, last: u8) {
    let first = first.unwrap_or(last);
    for byte in first..=last {
        set[usize::from(byte)] = true;
    }
}

/// Adds the bytes of a named class; `None` for an unknown name.
fn add_class(set: &mut [bool; 256], name: &[u8]) -> Option<()> {
    let is_in: fn(&u8) -> bool = match name {
        b"alnum" => u8::is_ascii_alphanumeric,
        b"alpha" => u8::is_ascii_alphabetic,
        b"blank" => |c| matches!(c, b' ' | b'\t'),
        b"cntrl" => u8::is_ascii_control,
        b"digit" => u8::is_ascii_digit,
        b"graph" => u8::is_ascii_graphic,
        b"lower" => u8::is_ascii_lowercase,
        b"print" => |c| c.is_ascii_graphic() || *c == b' ',
        b"punct" => u8::is_ascii_punctuation,
        // the vertical tab is one in C
        b"space" => |c| matches!(c, b' ' | b'\t'..=b'\r'),
        b"upper" => u8::is_ascii_uppercase,
        b"xdigit" => u8::is_ascii_hexdigit,
        _ => return None,
    };
    for byte in (0..=u8::MAX).filter(is_in) {
        set[usize::from(byte)] = true;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn left_out(pattern: &str, path: &str) -> bool {
        let mut filter = Filter::default();
        filter.add(pattern.as_bytes(), false).unwrap();
        let (path, is_folder) = match path.strip_suffix('/') {
            Some(path) => (path, true),
            None => (path, false),
        };
        filter.leaves_out(path.as_bytes(), is_folder)
    }

    #[test]
    fn patterns_match_as_in_the_manual_of_rsync() {
        for (pattern, path, wanted) in [
            ("*.o", "a/b/c.o", true),
            ("*.o", "c.od", false),
            ("foo", "a/foo", true),
            ("foo", "a/xfoo", false),
            ("/foo", "foo", true),
            ("/foo", "a/foo", false),
            ("foo/", "a/foo/", true),
            ("foo/", "a/foo", false),
            ("foo/bar", "a/foo/bar", true),
            ("foo/bar", "a/xfoo/bar", false),
            ("/foo/*", "foo/bar", true),
            ("/foo/*", "foo/bar/deep", false),
            ("/foo/**", "foo/bar/deep", true),
            ("a**z", "x/a/b/z", true),
            ("**/z", "a/b/z", true),
            ("**/z", "z", true),
            ("/foo/*", "foo/", false),
            ("**z", "z", true),
            ("dir/***", "dir/", true),
            ("dir/***", "dir/x/y", true),
            ("dir/***", "dir", false),
            ("?at", "cat", true),
            ("a?b", "a/b", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            ("[]-]x", "]x", true),
            ("[]-]x", "-x", true),
            ("a[!b]c", "a/c", false),
            ("[[:digit:]]*", "7up", true),
            (r"\*", "*", true),
            (r"a\*b*", "a*bc", true),
            (r"a\*b*", "axbc", false),
            (r"a\b", r"a\b", true),
            ("a.c", "abc", false),
            ("a+(b", "a+(b", true),
            ("/**/x", "x", false),
            ("/**/x", "a/x", true),
            ("***/x", "x", true),
            ("***", "a/x", true),
            ("a/b***", "c/a/b/", true),
            (r"a*\", r"ab\", false),
            ("[z-a]", "z", true),
            ("[!z-a]", "y", true),
            ("[a-c-e]", "-", true),
            ("[a-c-e]", "d", false),
            (r"[\]]", "]", true),
            ("[[:alpha]", ":", true),
            ("[[:nothing:]]", "n", false),
            ("[a", "[a", false),
            ("a[/]b*", "a/b", false),
            ("c/a[!/]b", "c/axb", false),
            ("//", "a/", false),
            ("a//", "a/", false),
        ] {
            assert_eq!(left_out(pattern, path), wanted, "{pattern} on {path}");
        }
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let mut filter = Filter::default();
        let text = b"# music\n+ *.flac\r\n\n; all else\n- *\n";
        filter.add_lines(text, false).unwrap();
        assert!(!filter.leaves_out(b"a.flac", false) && filter.leaves_out(b"a.mp3", false));
        filter.add(b"!", false).unwrap();
        assert!(filter.is_empty());
    }

    #[test]
    fn patterns_that_match_nothing_are_named() {
        for (text, is_error) in [
            ("- ", true),
            ("+ ", true),
            ("[a", false),
            ("[", false),
            ("[/]", false),
            ("a/[/]", false),
        ] {
            let mut filter = Filter::default();
            assert_eq!(
                filter.add(text.as_bytes(), false).is_err(),
                is_error,
                "{text}"
            );
            assert_ne!(filter.remarks().is_empty(), !is_error, "{text}");
        }
        let mut filter = Filter::default();
        filter.add(b"", false).unwrap();
        assert!(filter.is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_pattern_or_an_error(
            pattern in proptest::collection::vec(any::<u8>(), 0..40),
            path in proptest::collection::vec(any::<u8>(), 1..40),
        ) {
            let mut filter = Filter::default();
            if filter.add(&pattern, false).is_ok() {
                let _ = filter.leaves_out(&path, true);
            }
        }
    }
}
