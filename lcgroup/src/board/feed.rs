//! Posts as an Atom feed (RFC 4287): text alone, nothing active.

use std::fmt::Write;

use librecast::plain::{shorten, strip};
use librecast::time::utc;

use super::{BoardText, Post};

/// Posts in a feed.
const POSTS: usize = 100;
/// Bytes of a feed, unless its only post is longer. Chosen: JSON doubles them at most, and the server
/// of pages reads 1 MiB.
const BYTES: usize = 400 * 1_024;
/// Bytes of the text's first line in place of a title.
const TITLE: usize = 80;

/// Writes the last posts, the newest first.
pub fn atom<'a>(
    board: &BoardText,
    name: &str,
    posts: impl DoubleEndedIterator<Item = &'a Post>,
) -> String {
    let last: Vec<_> = posts.rev().take(POSTS).collect();
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
        let entry = format!(
            "<entry>\n<id>{id}:{}</id>\n<title>{}</title>\n<updated>{}</updated>\n<author><name>{}</name></author>\n<content type=\"text\">{}</content>\n</entry>\n",
            post.id,
            escaped(&title),
            date(post.time),
            post.author,
            escaped(&content.text)
        );
        let is_first = !out.contains("<entry>");
        if !is_first && out.len() + entry.len() > BYTES {
            break;
        }
        out.push_str(&entry);
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
