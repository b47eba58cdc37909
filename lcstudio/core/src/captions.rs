//! Captions: speech as lines of text.
//!
//! ```text
//!   kind 1  line   replaces 32 | speaker text8 | text <= 720   replaces: entry of its author, or 0
//! ```

use std::collections::BTreeMap;

use librecast::wire::{Reader, WireError, Writer};
use librecast_log::{AuthorId, Entry, GRANT_KIND, MAX_BODY};

use crate::drops::DropReason;
use crate::plain::{MAX_LINE, clean, clean_line};

/// Longest text of a caption, in bytes: it fits into a body beside the longest speaker.
pub const MAX_CAPTION: usize = MAX_BODY - 4 - 1 - MAX_LINE - 20;

/// Captions of a language. Chosen: a day with one every two seconds.
const MAX_CAPTIONS: usize = 43_200;

/// Prefix of a line that replaces the line before.
pub const CORRECTION_MARK: &str = "^ ";

/// The kind of all entries of a captions' track (docs/protocol.md §12).
const LINE: u8 = 1;

/// A caption, as in its entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caption {
    /// Number of the corrected entry of the same author, or 0.
    pub replaces: u32,
    /// Name of the speaker; may be empty.
    pub speaker: String,
    /// Spoken text.
    pub text: String,
}

impl Caption {
    /// Returns kind and body of its entry.
    ///
    /// # Errors
    /// Speaker or text are too long.
    pub fn encode(&self) -> Result<(u8, Vec<u8>), WireError> {
        if self.text.len() > MAX_CAPTION {
            return Err(WireError::Bad("length of a caption"));
        }
        let mut w = Writer::new();
        w.u32(self.replaces).text8(&self.speaker)?;
        w.put(self.text.as_bytes());
        Ok((LINE, w.into_vec()))
    }

    /// Decodes kind and body.
    pub fn decode(kind: u8, body: &[u8]) -> Result<Self, DropReason> {
        if kind != LINE {
            return Err(DropReason::UnknownKind);
        }
        let read = |mut r: Reader<'_>| {
            let (replaces, speaker) = (r.u32()?, clean_line(r.text8()?));
            let text = std::str::from_utf8(r.rest()).map_err(|_| WireError::Bad("text"))?;
            Ok(Self {
                replaces,
                speaker,
                text: clean(text).replace('\n', " "),
            })
        };
        read(Reader::new(body)).map_err(|_: WireError| DropReason::Malformed)
    }
}

/// Cuts a line into captions: between words, if possible.
#[must_use]
pub fn split_caption(line: &str) -> Vec<&str> {
    let mut rest = line.trim();
    let mut all = Vec::new();
    while rest.len() > MAX_CAPTION {
        let most = &rest[..rest.floor_char_boundary(MAX_CAPTION)];
        let end = most.rfind(char::is_whitespace).unwrap_or(most.len());
        let (line, later) = rest.split_at(end);
        all.push(line.trim_end());
        rest = later.trim_start();
    }
    if !rest.is_empty() {
        all.push(rest);
    }
    all
}

/// A line of a transcript.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaptionLine {
    /// Time of the speech by its author's clock, in milliseconds since 1970.
    pub time_ms: u64,
    /// Name of the speaker; may be empty.
    pub speaker: String,
    /// Spoken text, as last corrected.
    pub text: String,
    /// Whether it was corrected.
    pub is_corrected: bool,
}

/// Captions of all authors in one language.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transcript {
    lines: BTreeMap<(AuthorId, u32), CaptionLine>,
}

impl Transcript {
    /// Returns all lines in the order of their times.
    pub fn lines(&self) -> Vec<&CaptionLine> {
        let numbered = self.numbered().into_iter();
        numbered.map(|(.., line)| line).collect()
    }

    /// Returns the same with author and number of each line, which a correction keeps.
    pub fn numbered(&self) -> Vec<(AuthorId, u32, &CaptionLine)> {
        let lines = self.lines.iter();
        let mut lines: Vec<_> = lines.map(|((a, n), line)| (*a, *n, line)).collect();
        lines.sort_by_key(|(author, number, line)| (line.time_ms, *author, *number));
        lines
    }

    /// Reads the next entry of an author. Returns the line that it adds or corrects.
    pub fn read(&mut self, entry: &Entry) -> Result<Option<&CaptionLine>, DropReason> {
        if entry.kind == GRANT_KIND {
            return Ok(None);
        }
        let Caption {
            replaces,
            speaker,
            text,
        } = Caption::decode(entry.kind, &entry.body)?;
        let is_corrected = replaces > 0;
        let number = if is_corrected { replaces } else { entry.number };
        let key = (entry.author, number);
        let time_ms = match self.lines.get(&key) {
            Some(line) => line.time_ms,
            // the corrected entry was not a line
            None if is_corrected => return Err(DropReason::Malformed),
            None if self.lines.len() >= MAX_CAPTIONS => return Err(DropReason::TranscriptFull),
            None => entry.time,
        };
        let line = CaptionLine {
            time_ms,
            speaker,
            text,
            is_corrected,
        };
        self.lines.insert(key, line);
        Ok(self.lines.get(&key))
    }
}
