//! Pages of Ogg (RFC 3533, 6). Skips a damaged page and continues at the next one.

use std::io::{self, Read};

use ogg::reading::{OggPage, PageParser};

/// The first bytes of each page.
const CAPTURE: &[u8] = b"OggS";
/// Bytes of a page's header before its table of segments.
const HEADER: usize = 27;
/// Longest page, in bytes: its header, 255 lengths, and as many segments of 255 bytes.
const MAX_PAGE: usize = HEADER + 255 + 255 * 255;

/// Fields of a page's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The number of its stream.
    pub stream: u32,
    /// Its number in the stream.
    pub sequence: u32,
    /// Whether the stream begins with it.
    pub is_first: bool,
}

/// The next part of a file.
pub enum Part {
    /// A page with a right checksum.
    Page(Header, OggPage),
    /// A stretch without valid pages: its offset, and its length in bytes.
    Damaged(u64, u64),
}

/// A reader of successive pages.
pub struct Pages<R> {
    input: R,
    /// The next bytes of the file, up to the longest page.
    buffer: Vec<u8>,
    /// The offset of the buffer in the file.
    at: u64,
    /// The stretch that is being skipped.
    damaged: Option<(u64, u64)>,
    has_ended: bool,
}

impl<R: Read> Pages<R> {
    /// Begins at the present position.
    pub fn new(input: R) -> Self {
        Self {
            input,
            buffer: Vec::new(),
            at: 0,
            damaged: None,
            has_ended: false,
        }
    }

    /// Returns the next part; none at the end.
    pub fn next(&mut self) -> io::Result<Option<Part>> {
        loop {
            let page = parse(&self.buffer);
            // a live stream's next page may be seconds away: only what is no page yet needs more
            if page.is_none() && !self.has_ended && self.buffer.len() < MAX_PAGE {
                self.read_more()?;
                continue;
            }
            if (page.is_some() || self.buffer.is_empty())
                && let Some((at, bytes)) = self.damaged.take()
            {
                return Ok(Some(Part::Damaged(at, bytes)));
            }
            if let Some((header, page, length)) = page {
                self.pass(length);
                return Ok(Some(Part::Page(header, page)));
            }
            if self.buffer.is_empty() {
                return Ok(None);
            }
            // a pattern may begin with the last bytes, unless they end the file
            let unknown = if self.has_ended { 0 } else { CAPTURE.len() - 1 };
            let behind = self.buffer.get(1..).unwrap_or_default();
            let next = behind.windows(CAPTURE.len()).position(|w| w == CAPTURE);
            let passed = next.map_or(self.buffer.len() - unknown, |at| at + 1);
            let (_, bytes) = self.damaged.get_or_insert((self.at, 0));
            *bytes += passed as u64;
            self.pass(passed);
        }
    }

    /// Reads once, up to the longest page.
    fn read_more(&mut self) -> io::Result<()> {
        let held = self.buffer.len();
        self.buffer.resize(MAX_PAGE, 0);
        let read = self.input.read(&mut self.buffer[held..]);
        self.buffer.truncate(held + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => self.has_ended = true,
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }

    fn pass(&mut self, bytes: usize) {
        self.buffer.drain(..bytes);
        self.at += bytes as u64;
    }
}

/// Parses a whole page at the beginning of `bytes`; returns its length too.
fn parse(bytes: &[u8]) -> Option<(Header, OggPage, usize)> {
    let fixed = bytes.first_chunk::<HEADER>()?;
    if !fixed.starts_with(CAPTURE) {
        return None;
    }
    let number = |at: usize| Some(u32::from_le_bytes(*fixed.get(at..)?.first_chunk()?));
    let header = Header {
        stream: number(14)?,
        sequence: number(18)?,
        is_first: fixed[5] & 2 != 0,
    };
    let (mut parser, segments) = PageParser::new(*fixed).ok()?;
    let table = HEADER..HEADER + segments;
    let content = parser.parse_segments(bytes.get(table.clone())?.to_vec());
    let length = table.end + content;
    let content = bytes.get(table.end..length)?.to_vec();
    Some((header, parser.parse_packet_data(content).ok()?, length))
}
