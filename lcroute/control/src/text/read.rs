//! Finds records in texts that mail or chat programs have changed.

use data_encoding::{BASE32_NOPAD, BASE64_NOPAD};
use thiserror::Error;

use super::{CHECKSUM, LENGTH, MAX_RECORD, PREFIX, VERSION, checksum};

/// Longest input in bytes.
pub const MAX_TEXT: usize = 1 << 20;
/// Most records in one input.
pub const MAX_RECORDS: usize = 16;

/// Lines around a block, without dashes and spaces.
const BEGIN: &str = "BEGINLCROUTETEXT";
const END: &str = "ENDLCROUTETEXT";
/// Most [`LAYERS`] over each other, such as HTML in quoted-printable.
const DEPTH: usize = 2;
/// Longest entity of HTML, with characters of wrapping and quoting.
const MAX_ENTITY: usize = 24;

/// Why an input has no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TextError {
    /// The input is longer than [`MAX_TEXT`].
    #[error("more than 1 MiB: give the lcroute text alone")]
    TooLong,
    /// More than [`MAX_RECORDS`].
    #[error("more than {MAX_RECORDS} lcroute texts at once")]
    TooMany,
    /// No text of lcroute.
    #[error("it has no lcroute text")]
    Nothing,
    /// A block without an end.
    #[error("the lcroute text is cut off: its end is missing")]
    CutOff,
    /// The text is shorter than its stated length.
    #[error("the lcroute text has {found} of {needed} characters: copy it again")]
    Missing {
        /// Characters present.
        found: usize,
        /// Characters needed.
        needed: usize,
    },
    /// The checksum is wrong.
    #[error("a character of the lcroute text is missing or changed: copy it again")]
    Damaged,
    /// A version newer than this program.
    #[error("the lcroute text is of a newer version: update lcroute")]
    Newer,
}

/// Returns the records of all texts in `input`, each once; ignores damaged texts beside whole ones.
///
/// # Errors
/// [`TextError`], if there is no whole text, or a bound is exceeded.
pub fn read(input: &[u8]) -> Result<Vec<Vec<u8>>, TextError> {
    if input.len() > MAX_TEXT {
        return Err(TextError::TooLong);
    }
    let mut found = Found::default();
    found.look_into(input, DEPTH);
    match found.records.len() {
        0 => Err(found.error.unwrap_or(TextError::Nothing)),
        n if n > MAX_RECORDS => Err(TextError::TooMany),
        _ => Ok(found.records),
    }
}

/// Encodings that may cover a text. Base64 is decoded from each of four offsets: the characters
/// before it may look like base64 as well.
const LAYERS: [Layer; 7] = [
    without_quote_marks,
    quoted_printable,
    html,
    |text| base64(text, 0),
    |text| base64(text, 1),
    |text| base64(text, 2),
    |text| base64(text, 3),
];

/// Decodes one encoding.
type Layer = fn(&[u8]) -> Vec<u8>;

/// The results so far.
#[derive(Default)]
struct Found {
    records: Vec<Vec<u8>>,
    /// The last error: of the innermost layer, which is the most precise.
    error: Option<TextError>,
}

impl Found {
    /// Reads `text` as it is, and after decoding its layers.
    fn look_into(&mut self, text: &[u8], depth: usize) {
        // UTF-16 is ASCII with zeros between
        let text: Vec<u8> = text.iter().copied().filter(|byte| *byte != 0).collect();
        self.scan(&text);
        for layer in LAYERS.iter().filter(|_| depth > 0) {
            let below = layer(&text);
            if below != text && self.records.len() <= MAX_RECORDS {
                self.look_into(&below, depth - 1);
            }
        }
    }

    /// Reads the text after each marker. Only letters, digits and colons count; quote marks,
    /// dashes, spaces of any width, soft hyphens and line breaks do not.
    fn scan(&mut self, text: &[u8]) {
        let means = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b':';
        let text = text.iter().copied().filter(means);
        let text: String = text
            .map(|byte| char::from(byte.to_ascii_uppercase()))
            .collect();
        let cut_off = text.contains(BEGIN) && !text.contains(END);
        if cut_off {
            self.error = Some(TextError::CutOff);
        } else if text.contains(END) {
            self.error = Some(TextError::Damaged);
        }
        for (before, after) in text.split(':').zip(text.split(':').skip(1)) {
            let mut before = before.chars();
            let version = before.next_back();
            if !before.as_str().ends_with(PREFIX) || !version.is_some_and(|v| v.is_ascii_digit()) {
                continue;
            }
            match unpack(after) {
                _ if version != Some(VERSION) => self.error = Some(TextError::Newer),
                Ok(record) if self.records.contains(&record) => {}
                Ok(record) if self.records.len() <= MAX_RECORDS => self.records.push(record),
                Ok(_) => return,
                Err(TextError::Missing { .. }) if cut_off => self.error = Some(TextError::CutOff),
                Err(error) => self.error = Some(error),
            }
        }
    }
}

/// Decodes the record at the beginning of `body`.
fn unpack(body: &str) -> Result<Vec<u8>, TextError> {
    let body = body.split(END).next().unwrap_or_default();
    let characters = |length: usize| (8 * (LENGTH + length + CHECKSUM)).div_ceil(5);
    let decode = |part: &str| {
        BASE32_NOPAD
            .decode(part.as_bytes())
            .map_err(|_| TextError::Damaged)
    };
    let part = |needed: usize| {
        body.get(..needed).ok_or(TextError::Missing {
            found: body.len(),
            needed,
        })
    };
    part(characters(0))?;
    // 8 characters are exactly 5 bytes
    let head = decode(part(8)?)?;
    let length = usize::from(u16::from_be_bytes([head[0], head[1]]));
    if length > MAX_RECORD {
        return Err(TextError::Damaged);
    }
    let bytes = decode(part(characters(length))?)?;
    let (bytes, sum) = bytes.split_at(LENGTH + length);
    if sum != checksum(bytes) {
        return Err(TextError::Damaged);
    }
    Ok(bytes[LENGTH..].to_vec())
}

/// Removes the quote marks at the beginning of lines: they may be inside a tag.
fn without_quote_marks(text: &[u8]) -> Vec<u8> {
    let lines = text.split_inclusive(|byte| *byte == b'\n');
    let unquoted = |mut line: &'_ [u8]| {
        while let Some(rest) = line.strip_prefix(b"> ") {
            line = rest;
        }
        line.to_vec()
    };
    lines.flat_map(unquoted).collect()
}

/// Decodes escapes and soft line breaks (RFC 2045 §6.7).
fn quoted_printable(mut text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    while let Some((first, rest)) = text.split_first() {
        let digit = |at: usize| char::from(*rest.get(at)?).to_digit(16);
        text = rest;
        if *first != b'=' {
            out.push(*first);
        } else if let (Some(high), Some(low)) = (digit(0), digit(1)) {
            out.push((16 * high + low) as u8);
            text = &rest[2..];
        } else if let Some(after) = [&b"\n"[..], b"\r\n"]
            .iter()
            .find_map(|end| rest.strip_prefix(*end))
        {
            text = after;
        } else {
            out.push(b'=');
        }
    }
    out
}

/// Removes tags, and decodes ASCII entities.
fn html(mut text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    while let Some((first, rest)) = text.split_first() {
        let behind = |end: u8, most: usize| rest.iter().take(most).position(|byte| *byte == end);
        text = rest;
        match first {
            b'<' => text = behind(b'>', rest.len()).map_or(&[], |end| &rest[end + 1..]),
            b'&' if let Some(end) = behind(b';', MAX_ENTITY) => {
                out.extend(entity(&rest[..end]));
                text = &rest[end + 1..];
            }
            _ => out.push(*first),
        }
    }
    out
}

/// Returns the ASCII character of an HTML entity.
fn entity(name: &[u8]) -> Option<u8> {
    let means = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'#';
    let name: String = name
        .iter()
        .filter(means)
        .map(|byte| char::from(*byte))
        .collect();
    match name.as_str() {
        "amp" => Some(b'&'),
        "lt" => Some(b'<'),
        "gt" => Some(b'>'),
        "colon" => Some(b':'),
        name => {
            let number = name.strip_prefix('#')?;
            match number.strip_prefix(['x', 'X']) {
                Some(hexadecimal) => u8::from_str_radix(hexadecimal, 16).ok(),
                None => number.parse().ok(),
            }
        }
    }
}

/// Decodes base64 without its first `skipped` characters, and without all others that are none.
fn base64(text: &[u8], skipped: usize) -> Vec<u8> {
    let means = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let mut characters: Vec<u8> = text.iter().copied().filter(means).skip(skipped).collect();
    // missing padding counts as zeros
    characters.resize(characters.len().next_multiple_of(4), b'A');
    BASE64_NOPAD.decode(&characters).unwrap_or_default()
}
