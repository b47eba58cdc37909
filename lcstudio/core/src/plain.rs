//! Text that is safe for a terminal, a page or a Braille line.

use librecast::plain::{shorten, strip};

/// Longest text of one line: a title, a name. A length of 8 bits.
pub const MAX_LINE: usize = 255;

/// Returns lines of text without characters that move a terminal's cursor, hide or reorder text.
/// Form feeds and vertical tabs are line ends.
#[must_use]
pub fn clean(text: &str) -> String {
    let lines = text.replace("\r\n", "\n");
    strip(&lines.replace(['\u{b}', '\u{c}'], "\n"))
}

/// Returns the same in one line of at most [`MAX_LINE`] bytes.
#[must_use]
pub fn clean_line(text: &str) -> String {
    let line = text.replace("\r\n", " ");
    let line = line.replace(['\n', '\t', '\u{b}', '\u{c}'], " ");
    shorten(line.trim(), MAX_LINE).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_that_a_terminal_would_do() {
        assert_eq!(clean("a\u{1b}[2Jb\r\nc\u{9b}d\te\r"), "a[2Jb\ncd\te");
        assert_eq!(clean("\u{feff}x\u{202e}y\u{2066}z"), "xy\u{2066}z\u{2069}");
        assert_eq!(
            clean("one\u{c}two\r\nthree\u{b}four"),
            "one\ntwo\nthree\nfour"
        );
        // Persian needs the first one, a family the second
        assert_eq!(clean("می\u{200c}خواهم"), "می\u{200c}خواهم");
        assert_eq!(clean("👩\u{200d}👧"), "👩\u{200d}👧");
    }

    #[test]
    fn a_line_is_one_and_short() {
        assert_eq!(clean_line("  two\nlines\t"), "two lines");
        assert_eq!(clean_line("two\u{c}lines"), "two lines");
        let long = clean_line(&"ü".repeat(200));
        assert_eq!(long.len(), 254);
    }
}
