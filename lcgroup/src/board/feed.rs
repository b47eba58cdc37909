//! Posts as an Atom feed (RFC 4287): text alone, nothing active.

use std::fmt::Write;

use librecast::plain::{shorten, strip};
use librecast::time::utc;

use super::{BoardText, Post};

/// Posts in a feed, and their bytes.
const POSTS: usize = 100;
const BYTES: usize = 512 * 1_024;
/// Bytes of a title that the text's first line replaces.
const TITLE: usize = 80;

/// Writes the last posts, the newest first.
pub fn atom<'a>(
    board: &BoardText,
    name: &str,
    posts: impl DoubleEndedIterator<Item = &'a Post>,
) -> String {
    let mut bytes = 0;
    let last = posts.rev().take(POSTS).take_while(|post| {
        bytes += post.content.text.len();
        bytes <= BYTES
    });
    let last: Vec<_> = last.collect();
    let updated = last.iter().map(|post| post.time).max().unwrap_or(0);
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n");
    let id = format!("urn:librecast:board:{}", board.owner);
    // writing to a string does not fail
    let _ = write!(
        out,
        "<feed xmlns=\"http://www.w3.org/2005/Atom\">\n<id>{id}</id>\n<title>{}</title>\n<updated>{}</updated>\n",
        escaped(name),
        date(updated)
    );
    for post in last {
        let content = &post.content;
        let first = content.text.lines().next().unwrap_or_default();
        let title = content
            .title
            .clone()
            .unwrap_or_else(|| shorten(first, TITLE));
        let _ = write!(
            out,
            "<entry>\n<id>{id}:{}</id>\n<title>{}</title>\n<updated>{}</updated>\n<author><name>{}</name></author>\n<content type=\"text\">{}</content>\n</entry>\n",
            post.id,
            escaped(&title),
            date(post.time),
            post.author,
            escaped(&content.text)
        );
    }
    out + "</feed>\n"
}

/// A date of RFC 3339, which has years of four digits.
fn date(millis: u64) -> String {
    const LAST: u64 = 253_402_300_799;
    utc((millis / 1_000).min(LAST))
}

/// Text for XML 1.0, which has no control characters but line ends and tabs.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (n, line) in text.split('\n').enumerate() {
        if n > 0 {
            out.push('\n');
        }
        for c in strip(line).chars() {
            match c {
                '&' => out.push_str("&amp;"),
                '<' => out.push_str("&lt;"),
                '>' => out.push_str("&gt;"),
                '\u{fffe}' | '\u{ffff}' => {}
                c if c.is_control() => {}
                c => out.push(c),
            }
        }
    }
    out
}
