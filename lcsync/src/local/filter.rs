//! Patterns of `--exclude` and `--include`, as rsync(1) has them.
//!
//! ```text
//! *.o       a name anywhere          /build    in SRC itself, not deeper
//! tmp/      folders only             a/b       the end of a path
//! *  ?  [a-z]  not over a slash      **        over slashes too
//! dir/***   the folder and all in it
//! ```

use std::fmt::Write;

use regex::bytes::{Regex, RegexBuilder};

/// A pattern, and whether what it matches is taken.
#[derive(Debug, Clone)]
struct Rule {
    takes: bool,
    folders_only: bool,
    /// A pattern without slash is for the last name of a path.
    of_name: bool,
    /// One with `/***` at its end is for the folder as well.
    with_folder: bool,
    regex: Regex,
}

/// Rules in the order given: the first that matches decides; what none matches is taken.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    rules: Vec<Rule>,
}

impl Filter {
    /// Adds a pattern; `+ ` or `- ` before it says whether it takes, else `takes` does. `!` forgets all before it.
    pub fn add(&mut self, text: &[u8], takes: bool) -> Result<(), String> {
        let (takes, pattern) = match text {
            b"!" => {
                self.rules.clear();
                return Ok(());
            }
            [b'+', b' ', pattern @ ..] => (true, pattern),
            [b'-', b' ', pattern @ ..] => (false, pattern),
            pattern => (takes, pattern),
        };
        self.rules.push(Rule::new(pattern, takes)?);
        Ok(())
    }

    /// Adds the patterns of a file, one a line; empty lines and those that begin with `#` or `;` are none.
    pub fn add_lines(&mut self, text: &[u8], takes: bool) -> Result<(), String> {
        for line in text.split(|c| *c == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if !line.is_empty() && !matches!(line[0], b'#' | b';') {
                self.add(line, takes)?;
            }
        }
        Ok(())
    }

    /// Whether anything can be left out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether what is at `path`, as seen from the folder that SRC is copied from, is left out.
    #[must_use]
    pub fn leaves_out(&self, path: &[u8], is_folder: bool) -> bool {
        let first = self.rules.iter().find(|r| r.matches(path, is_folder));
        first.is_some_and(|rule| !rule.takes)
    }
}

impl Rule {
    fn new(text: &[u8], takes: bool) -> Result<Self, String> {
        let shown = String::from_utf8_lossy(text);
        let bad = |why: &str| format!("pattern {shown:?}: {why}");
        let (pattern, folders_only) = match text.strip_suffix(b"/") {
            Some(rest) if !rest.is_empty() => (rest, true),
            _ => (text, false),
        };
        let (pattern, anchored) = match pattern.strip_prefix(b"/") {
            Some(rest) => (rest, true),
            None => (pattern, false),
        };
        if pattern.is_empty() {
            return Err(bad("there is nothing in it"));
        }
        let over_slashes = pattern.windows(2).any(|two| two == b"**");
        let of_name = !anchored && !over_slashes && !pattern.contains(&b'/');
        let begin = if anchored || of_name { "^" } else { "(?:^|/)" };
        let body = translate(pattern).ok_or_else(|| bad("a [ without its ]"))?;
        let regex = RegexBuilder::new(&format!("{begin}{body}$"))
            .unicode(false)
            .dot_matches_new_line(true)
            .build()
            .map_err(|_| bad("it is too long, or a range in it is empty"))?;
        Ok(Self {
            takes,
            folders_only,
            of_name,
            with_folder: pattern.ends_with(b"/***"),
            regex,
        })
    }

    fn matches(&self, path: &[u8], is_folder: bool) -> bool {
        if self.folders_only && !is_folder {
            return false;
        }
        let name = path.rsplit(|c| *c == b'/').next().unwrap_or(path);
        let subject = if self.of_name { name } else { path };
        let with_slash = || self.regex.is_match(&[subject, b"/"].concat());
        self.regex.is_match(subject) || is_folder && self.with_folder && with_slash()
    }
}

/// The regular expression of a pattern.
fn translate(pattern: &[u8]) -> Option<String> {
    let wild = pattern.iter().any(|c| b"*?[".contains(c));
    let mut out = String::new();
    let mut rest = pattern;
    // at any depth, the first as well
    if let Some(after) = pattern.strip_prefix(b"**/") {
        out += "(?:.*/)?";
        rest = after;
    }
    while let [c, after @ ..] = rest {
        rest = after;
        match c {
            b'*' => {
                let more = after.iter().take_while(|c| **c == b'*').count();
                rest = &after[more..];
                out += if more == 0 { "[^/]*" } else { ".*" };
            }
            b'?' => out += "[^/]",
            b'[' => rest = class(after, &mut out)?,
            // without a wildcard it stands for itself
            b'\\' if wild => {
                let [escaped, after @ ..] = after else {
                    literal(b'\\', &mut out);
                    continue;
                };
                literal(*escaped, &mut out);
                rest = after;
            }
            c => literal(*c, &mut out),
        }
    }
    Some(out)
}

/// A set in brackets, from behind the first one; what follows it.
fn class<'a>(mut rest: &'a [u8], out: &mut String) -> Option<&'a [u8]> {
    *out += "[[";
    if let [b'!' | b'^', after @ ..] = rest {
        *out += "^";
        rest = after;
    }
    let mut is_first = true;
    loop {
        match rest {
            [b']', after @ ..] if !is_first => {
                *out += "]&&[^/]]";
                return Some(after);
            }
            [b'[', b':', ..] => {
                let end = rest.windows(2).position(|two| two == b":]")? + 2;
                *out += str::from_utf8(&rest[..end]).ok()?;
                rest = &rest[end..];
            }
            [b'-', after @ ..] if !is_first && after.first() != Some(&b']') => {
                *out += "-";
                rest = after;
            }
            [b'\\', c, after @ ..] | [c, after @ ..] => {
                literal(*c, out);
                rest = after;
            }
            [] => return None,
        }
        is_first = false;
    }
}

fn literal(byte: u8, out: &mut String) {
    // writing to a String does not fail
    let _ = write!(out, "\\x{byte:02x}");
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
    fn bad_patterns_are_named() {
        for bad in ["", "/", "[a", "[", "[z-a]"] {
            let mut filter = Filter::default();
            assert!(filter.add(bad.as_bytes(), false).is_err(), "{bad}");
        }
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
