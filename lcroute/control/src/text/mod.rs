//! Records as text for people: by mail, by chat, on paper, as a QR code. No I/O.
//!
//! ```text
//! -----BEGIN LCROUTE TEXT-----
//! Good-Until: 2026-11-24 10:00 UTC
//!
//! LCR1:ABAAAAICAMCAKBQHBAEQUCYMBUHA...
//! -----END LCROUTE TEXT-----
//! ```
//!
//! The line `LCR1:...` is a complete text: chats and QR codes need no more; the lines around it are
//! for people. It is base32 (RFC 4648) without padding of: length of the record (16 bits), the
//! record, checksum (32 bits). Case, spaces and line breaks are ignored, no two of its characters
//! look alike, and QR codes have a short form for them. Base45 is 7 % shorter, but has spaces and
//! `*`, which chats change.

mod qr;
mod read;

use data_encoding::BASE32_NOPAD;
use librecast::id::derive;

pub use qr::{QrError, best, qr, qr_png, qr_svg};
pub use read::{MAX_RECORDS, MAX_TEXT, TextError, read};

/// Longest record in bytes.
pub const MAX_RECORD: usize = 1_024;

/// Prefix of a text, before the version and a colon.
const PREFIX: &str = "LCR";
const VERSION: char = '1';
/// Bytes of the length before the record.
const LENGTH: usize = 2;
/// Bytes of the checksum after the record. Chosen: one of 4 billion wrong texts passes.
const CHECKSUM: usize = 4;
/// Characters on a line of a block.
const COLUMNS: usize = 64;

/// Returns the record as a block of lines, below `headers` for people.
///
/// # Panics
/// The record has more than [`MAX_RECORD`] bytes.
#[must_use]
pub fn write(record: &[u8], headers: &[(&str, &str)]) -> String {
    let mut text = String::from("-----BEGIN LCROUTE TEXT-----\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\n");
    }
    text += "\n";
    let mut rest = line(record);
    while !rest.is_empty() {
        let next = rest.split_off(COLUMNS.min(rest.len()));
        text += &format!("{rest}\n");
        rest = next;
    }
    text + "-----END LCROUTE TEXT-----\n"
}

/// Returns the record as one line.
///
/// # Panics
/// The record has more than [`MAX_RECORD`] bytes.
#[must_use]
pub fn line(record: &[u8]) -> String {
    assert!(
        record.len() <= MAX_RECORD,
        "a record of {} bytes",
        record.len()
    );
    let mut bytes = (record.len() as u16).to_be_bytes().to_vec();
    bytes.extend(record);
    bytes.extend(checksum(&bytes));
    format!("{PREFIX}{VERSION}:{}", BASE32_NOPAD.encode(&bytes))
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    let mut checksum = [0; CHECKSUM];
    checksum.copy_from_slice(&derive("lcroute 2026 text", &[bytes])[..CHECKSUM]);
    checksum
}

#[cfg(test)]
mod tests;
