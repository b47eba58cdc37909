//! What text may hold that goes to a terminal, a page or a Braille line.

use librecast::plain::is_deceptive;

/// Longest text of one line: a title, a name. A length of 8 bits.
pub const MAX_LINE: usize = 255;

/// Marks that writers need within words and sentences, and that turn nothing around: where a word may break, and the
/// direction of the one place where such a mark stands.
fn is_typographic(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2060}'..='\u{2064}'
    )
}

/// Whether this character is taken out of text of several lines.
pub(crate) fn is_refused(c: char) -> bool {
    is_deceptive(c) && !matches!(c, '\n' | '\t') && !is_typographic(c)
}

/// Text of several lines, without control characters but the ends of lines and tabs, and without what turns text around.
/// Joiners stay: Persian and many pictures are written with them.
#[must_use]
pub fn clean(text: &str) -> String {
    let text = text.replace("\r\n", "\n");
    text.chars().filter(|c| !is_refused(*c)).collect()
}

/// The same in one line of at most [`MAX_LINE`] bytes.
#[must_use]
pub fn clean_line(text: &str) -> String {
    let mut line = clean(text).replace(['\n', '\t'], " ");
    let end = line.floor_char_boundary(MAX_LINE);
    line.truncate(end);
    line.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_that_a_terminal_would_do() {
        assert_eq!(clean("a\u{1b}[2Jb\r\nc\u{9b}d\te\r"), "a[2Jb\ncd\te");
        assert_eq!(clean("\u{feff}x\u{202e}y\u{2066}z"), "xyz");
        // Persian needs the one, a family the other
        assert_eq!(clean("می\u{200c}خواهم"), "می\u{200c}خواهم");
        assert_eq!(clean("👩\u{200d}👧"), "👩\u{200d}👧");
    }

    #[test]
    fn a_line_is_one_and_short() {
        assert_eq!(clean_line("  two\nlines\t"), "two lines");
        let long = clean_line(&"ü".repeat(200));
        assert_eq!(long.len(), 254);
    }
}
