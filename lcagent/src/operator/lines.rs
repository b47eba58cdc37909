//! Lines of several nodes on one output: each stays whole, with its node's name before it.
//!
//! A line is kept until it is whole. One longer than [`MAX_KEPT`] is written as it comes; other
//! nodes' lines wait. When more than [`MAX_WAITING`] waits, the long line is broken and reported.

use std::collections::BTreeMap;
use std::io::{self, Write};

use librecast::plain::clean;

use super::core::Sender;

/// Bytes up to which a line is kept until it is whole.
pub const MAX_KEPT: usize = 64 * 1024;
/// Bytes kept of all nodes together.
pub const MAX_WAITING: usize = 64 << 20;

/// Output that is not written yet.
#[derive(Debug)]
pub struct Lines {
    /// Whether control characters of nodes are replaced.
    is_terminal: bool,
    /// Bytes that may be kept.
    most: usize,
    /// Incomplete lines with their labels; of the open one, the bytes that cannot be written yet.
    begun: BTreeMap<Sender, (String, Vec<u8>)>,
    /// The node with a line that is written in pieces.
    open: Option<Sender>,
    /// Whole lines of other nodes behind it.
    waiting: Vec<u8>,
    /// Bytes in `begun`.
    kept: usize,
}

impl Lines {
    /// Makes an empty state.
    #[must_use]
    pub fn new(is_terminal: bool) -> Self {
        Self {
            is_terminal,
            most: MAX_WAITING,
            begun: BTreeMap::new(),
            open: None,
            waiting: Vec::new(),
            kept: 0,
        }
    }

    /// Takes output of a node; `label` precedes each of its lines. Returns the node with a line
    /// that had to be broken.
    pub fn take(
        &mut self,
        id: Sender,
        label: &str,
        bytes: &[u8],
        out: &mut impl Write,
    ) -> io::Result<Option<Sender>> {
        let (_, mut text) = self.unkeep(id);
        text.extend_from_slice(bytes);
        let mut rest = text.as_slice();
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            self.line(id, label, &rest[..end], out)?;
            rest = &rest[end + 1..];
        }
        if self.open == Some(id) || self.open.is_none() && rest.len() > MAX_KEPT {
            self.write_open(id, label, rest, out)?;
        } else {
            self.keep(id, label, rest);
        }
        self.make_room(out)
    }

    /// Ends a node's output: an incomplete line counts as whole.
    pub fn end(&mut self, id: Sender, label: &str, out: &mut impl Write) -> io::Result<()> {
        let (_, rest) = self.unkeep(id);
        if !rest.is_empty() || self.open == Some(id) {
            self.line(id, label, &rest, out)?;
        }
        Ok(())
    }

    /// Returns the nodes with unwritten output.
    #[must_use]
    pub fn begun(&self) -> Vec<Sender> {
        let begun = self.begun.keys().copied();
        let open = self.open.filter(|id| !self.begun.contains_key(id));
        begun.chain(open).collect()
    }

    /// Writes a line, or ends the open one, after which waiting lines are written.
    fn line(
        &mut self,
        id: Sender,
        label: &str,
        line: &[u8],
        out: &mut impl Write,
    ) -> io::Result<()> {
        let line = match self.is_terminal {
            // a carriage return at the end is not part of the line
            true => line.strip_suffix(b"\r").unwrap_or(line),
            false => line,
        };
        let mut text = self.shown(line);
        text.push(b'\n');
        if self.open == Some(id) {
            out.write_all(&text)?;
            return self.close(out);
        }
        let whole = [label.as_bytes(), b": ", &text].concat();
        match self.open {
            None => out.write_all(&whole),
            Some(_) => {
                self.waiting.extend_from_slice(&whole);
                Ok(())
            }
        }
    }

    fn close(&mut self, out: &mut impl Write) -> io::Result<()> {
        self.open = None;
        out.write_all(&std::mem::take(&mut self.waiting))
    }

    /// Breaks the open line, or opens the longest incomplete one, if too much is kept.
    fn make_room(&mut self, out: &mut impl Write) -> io::Result<Option<Sender>> {
        if self.kept + self.waiting.len() <= self.most {
            return Ok(None);
        }
        let broken = self.open;
        if broken.is_some() {
            out.write_all(b"\n")?;
            self.close(out)?;
        }
        let lengths = self.begun.iter().map(|(id, (_, text))| (text.len(), *id));
        let longest = lengths.max().map(|(_, id)| id);
        if self.kept > self.most / 2
            && let Some(id) = longest
        {
            let (label, text) = self.unkeep(id);
            self.write_open(id, &label, &text, out)?;
        }
        Ok(broken)
    }

    /// Writes more of the open line, or opens it.
    fn write_open(
        &mut self,
        id: Sender,
        label: &str,
        rest: &[u8],
        out: &mut impl Write,
    ) -> io::Result<()> {
        if self.open.replace(id) != Some(id) {
            write!(out, "{label}: ")?;
        }
        let (now, later) = rest.split_at(rest.len() - self.unfinished(rest));
        out.write_all(&self.shown(now))?;
        self.keep(id, label, later);
        Ok(())
    }

    fn keep(&mut self, id: Sender, label: &str, rest: &[u8]) {
        if !rest.is_empty() {
            self.kept += rest.len();
            self.begun.insert(id, (label.to_owned(), rest.to_vec()));
        }
    }

    fn unkeep(&mut self, id: Sender) -> (String, Vec<u8>) {
        let begun = self.begun.remove(&id).unwrap_or_default();
        self.kept -= begun.1.len();
        begun
    }

    fn shown(&self, bytes: &[u8]) -> Vec<u8> {
        match self.is_terminal {
            true => clean(&String::from_utf8_lossy(bytes)).into_bytes(),
            false => bytes.to_vec(),
        }
    }

    /// Returns the number of last bytes that need the next ones to be shown.
    fn unfinished(&self, piece: &[u8]) -> usize {
        match (self.is_terminal, piece.last()) {
            (true, Some(b'\r')) => 1,
            (true, _) => incomplete(piece),
            (false, _) => 0,
        }
    }
}

/// Returns the number of last bytes that begin an incomplete character.
#[must_use]
pub fn incomplete(text: &[u8]) -> usize {
    for (before, byte) in text.iter().rev().take(3).enumerate() {
        let length = match byte {
            0x80..=0xbf => continue,
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => 0,
        };
        return if length > before + 1 { before + 1 } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;
    use proptest::prelude::*;

    use super::*;

    fn node(n: u8) -> Sender {
        Sender::of(SecretKey::from_seed(&[n; 32]).peer_id())
    }

    fn text(out: &[u8]) -> String {
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn a_long_line_stays_one_line_and_others_wait_behind_it() {
        let (mut lines, mut out) = (Lines::new(false), Vec::new());
        let piece = vec![b'x'; 16 * 1024];
        for n in 0..13 {
            lines.take(node(1), "a", &piece, &mut out).unwrap();
            lines
                .take(node(2), "b", format!("line {n}\n").as_bytes(), &mut out)
                .unwrap();
        }
        assert!(out.len() > 12 * piece.len(), "it is written as it comes");
        lines.take(node(1), "a", b"\nnext\n", &mut out).unwrap();
        let out = text(&out);
        let mut all = out.lines();
        let before: Vec<&str> = all.by_ref().take(4).collect();
        assert_eq!(before, ["b: line 0", "b: line 1", "b: line 2", "b: line 3"]);
        assert_eq!(all.next().unwrap().len(), 3 + 13 * piece.len());
        assert_eq!(all.clone().count(), 10);
        assert_eq!(all.last(), Some("a: next"));
    }

    #[test]
    fn what_has_no_end_of_line_gets_one_when_its_node_has_ended() {
        let (mut lines, mut out) = (Lines::new(false), Vec::new());
        lines
            .take(node(1), "a", &vec![b'x'; MAX_KEPT + 1], &mut out)
            .unwrap();
        lines.take(node(2), "b", b"kept", &mut out).unwrap();
        lines.take(node(3), "c", b"whole\n", &mut out).unwrap();
        assert_eq!(lines.begun().len(), 2);
        lines.end(node(1), "a", &mut out).unwrap();
        lines.end(node(2), "b", &mut out).unwrap();
        lines.end(node(3), "c", &mut out).unwrap();
        assert!(lines.begun().is_empty() && lines.kept == 0);
        assert!(text(&out).ends_with("x\nc: whole\nb: kept\n"));
    }

    #[test]
    fn memory_is_bounded_and_a_line_that_is_broken_for_it_is_named() {
        let (mut lines, mut out) = (Lines::new(false), Vec::new());
        lines.most = 4 * MAX_KEPT;
        lines
            .take(node(1), "a", &vec![b'x'; MAX_KEPT + 1], &mut out)
            .unwrap();
        let mut broken = None;
        for _ in 0..40 {
            let line = [vec![b'y'; MAX_KEPT / 8], vec![b'\n']].concat();
            broken = broken.or(lines.take(node(2), "b", &line, &mut out).unwrap());
            assert!(lines.kept + lines.waiting.len() <= lines.most);
        }
        assert_eq!(broken, Some(node(1)));
        // of many incomplete lines, one is opened
        for n in 3..30 {
            lines
                .take(node(n), "c", &vec![b'z'; MAX_KEPT], &mut out)
                .unwrap();
            assert!(lines.kept + lines.waiting.len() <= lines.most + MAX_KEPT);
        }
    }

    #[test]
    fn on_a_terminal_a_character_is_shown_once_it_is_whole() {
        let (mut lines, mut out) = (Lines::new(true), Vec::new());
        let long = "é".repeat(MAX_KEPT / 2);
        let bytes = format!("{long}\u{202e}é日\u{1f468}\r\nx\r\n").into_bytes();
        for piece in bytes.chunks(7) {
            lines.take(node(1), "a", piece, &mut out).unwrap();
        }
        assert_eq!(text(&out), format!("a: {long}\u{fffd}é日\u{1f468}\na: x\n"));
    }

    proptest! {
        // each has a long line
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Each node's lines are its output, for any pieces in any order.
        #[test]
        fn nothing_is_altered(
            texts in prop::collection::vec(prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..2_000), 1..4),
            long in 0..3_usize,
            size in 1..900_usize,
        ) {
            let mut texts = texts;
            if let Some(first) = texts.get_mut(long) {
                first.extend(vec![b'x'; 2 * MAX_KEPT]);
                first.extend(b"\nend\n");
            }
            let (mut lines, mut out) = (Lines::new(false), Vec::new());
            let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
            for at in (0..longest).step_by(size) {
                for (n, text) in texts.iter().enumerate() {
                    let piece = text.get(at..text.len().min(at + size)).unwrap_or_default();
                    lines.take(node(n as u8), &format!("n{n}"), piece, &mut out).unwrap();
                }
            }
            for n in 0..texts.len() {
                lines.end(node(n as u8), &format!("n{n}"), &mut out).unwrap();
            }
            for (n, text) in texts.iter().enumerate() {
                let label = format!("n{n}: ").into_bytes();
                let said = out.split_inclusive(|b| *b == b'\n').filter_map(|l| l.strip_prefix(label.as_slice()));
                let mut expected = text.clone();
                if expected.last().is_some_and(|b| *b != b'\n') {
                    expected.push(b'\n');
                }
                prop_assert_eq!(said.collect::<Vec<_>>().concat(), expected);
            }
        }

        #[test]
        fn what_is_incomplete_is_found(text in "\\PC{0,9}", cut in 0..40_usize) {
            let bytes = text.as_bytes();
            let piece = &bytes[..cut.min(bytes.len())];
            let whole = &piece[..piece.len() - incomplete(piece)];
            prop_assert!(std::str::from_utf8(whole).is_ok());
            prop_assert!(piece.len() - whole.len() < 4);
        }
    }
}
