//! Received bytes on standard output: on a terminal without the characters that control it.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::mpsc::Receiver;

use librecast::plain;
use librecast_program::standard::Patient;

/// Writes to standard output as long as its reader takes it.
pub fn write_out(pieces: Receiver<Vec<u8>>) -> io::Result<()> {
    let out = io::stdout().as_fd().try_clone_to_owned()?;
    let is_terminal = out.is_terminal();
    let mut out = Patient(File::from(out));
    let mut shown = Shown::default();
    for bytes in pieces {
        match is_terminal {
            true => out.write_all(shown.take(&bytes).as_bytes())?,
            false => out.write_all(&bytes)?,
        }
    }
    out.write_all(shown.end().as_bytes())
}

/// Text for a terminal.
#[derive(Debug, Default)]
struct Shown {
    /// The first bytes of a character whose others come with the next piece.
    begun: Vec<u8>,
}

impl Shown {
    /// Returns the text of this piece that only shows something.
    fn take(&mut self, piece: &[u8]) -> String {
        self.begun.extend_from_slice(piece);
        let whole = match str::from_utf8(&self.begun) {
            Err(e) if e.error_len().is_none() => e.valid_up_to(),
            _ => self.begun.len(),
        };
        let rest = self.begun.split_off(whole);
        let text = std::mem::replace(&mut self.begun, rest);
        plain::strip(&String::from_utf8_lossy(&text))
    }

    /// Returns the rest: a character that has not come whole.
    fn end(self) -> String {
        String::from_utf8_lossy(&self.begun).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_no_control_characters_and_whole_letters() {
        let text = "a\u{1b}]0;title\u{7}\tb\u{9b}2J\r\n\u{e9}\u{20ac}\u{1f600}\u{202e}\n";
        let expected = "a]0;title\tb2J\n\u{e9}\u{20ac}\u{1f600}\n";
        for length in 1..=text.len() {
            let mut shown = Shown::default();
            let pieces = text.as_bytes().chunks(length);
            let mut got: String = pieces.map(|piece| shown.take(piece)).collect();
            got += &shown.end();
            assert_eq!(got, expected, "in pieces of {length}");
        }
        let mut shown = Shown::default();
        assert_eq!(shown.take(b"\xffa\xe2\x82"), "\u{fffd}a\u{fffd}");
        assert_eq!(shown.end(), "");
        let mut shown = Shown::default();
        assert_eq!(
            (shown.take(b"a\xe2\x82"), shown.end()),
            ("a".into(), "\u{fffd}".into())
        );
    }
}
