//! An append-only file of records that a log needs after a restart.
//!
//! ```text
//!   n x (length 4 | checksum 8 | record)
//! ```
//!
//! The checksum: the first 8 bytes of the record's BLAKE3. A crash may leave the last record
//! unfinished: it is cut off, into a file beside. An unreadable record before others is damage.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use librecast::durable::replace;
use librecast_log::{MAX_BYTES, Stored};

use crate::appended::AppendedFile;

/// Longest record, in bytes: an entry and a margin.
const MAX_RECORD: usize = 2_048;

/// Longest file that is read, in bytes: eight times the largest log. It is rewritten long before.
const MAX_FILE: u64 = 512 << 20;

/// Bytes above which a file is rewritten at once. Chosen: three times the largest log.
const LONG_FILE: u64 = 3 * MAX_BYTES as u64;

/// Bytes before a record: its length and its checksum.
const HEAD_LEN: usize = 4 + 8;

/// The file, open for appending.
#[derive(Debug)]
pub struct Records {
    file: AppendedFile,
    path: PathBuf,
}

impl Records {
    /// Opens or makes the file, and reads its records.
    ///
    /// # Errors
    /// The system's; also an unreadable record in the middle. No record is dropped because of it.
    pub fn open(path: &Path) -> io::Result<(Self, Vec<Stored>)> {
        let mut file = AppendedFile::open(path)?;
        if file.len() > MAX_FILE {
            let message = format!("{} bytes are more than a log ever has", file.len());
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let mut bytes = Vec::new();
        file.read().take(MAX_FILE).read_to_end(&mut bytes)?;
        let (records, length) = read(&bytes)?;
        if length < bytes.len() {
            let cut = &bytes[length..];
            let (name, kept_in) = (path.display(), beside(path));
            let kept = match keep(&kept_in, cut) {
                Ok(()) => format!("kept in {}", kept_in.display()),
                // a full disk must not keep the log closed
                Err(e) => format!("not kept: {e}"),
            };
            let lost = cut.len();
            tracing::warn!(
                "{name}: {lost} bytes at the end were not written whole; cut off, {kept}"
            );
            file.cut(length as u64)?;
        }
        let path = path.to_owned();
        Ok((Self { file, path }, records))
    }

    /// Adds a record; the next [`Records::sync`] writes it.
    pub fn add(&mut self, stored: &Stored) {
        // a verified entry fits
        if let Ok(record) = stored.encode() {
            put(self.file.waiting(), &record);
        }
    }

    /// Writes the added records.
    ///
    /// # Errors
    /// The system's; the records stay for the next attempt.
    pub fn sync(&mut self) -> io::Result<()> {
        self.file.sync().map(drop)
    }

    /// Whether the file is so large that most of it must have expired.
    pub fn is_long(&self) -> bool {
        self.file.len() > LONG_FILE
    }

    /// Replaces all records by `kept`, if the file is much larger than that.
    ///
    /// # Errors
    /// The system's; the old file is kept then.
    pub fn compact(&mut self, kept: impl Iterator<Item = Stored>) -> io::Result<()> {
        let mut bytes = Vec::new();
        for stored in kept {
            if let Ok(record) = stored.encode() {
                put(&mut bytes, &record);
            }
        }
        if self.file.len() < 2 * bytes.len() as u64 + (1 << 20) {
            return Ok(());
        }
        replace(&self.path, &bytes)?;
        self.file = AppendedFile::open(&self.path)?;
        Ok(())
    }
}

#[cfg(test)]
impl Records {
    /// Exchanges the file for another one, which may take nothing.
    pub(crate) fn swap(&mut self, file: std::fs::File) -> std::fs::File {
        self.file.swap(file)
    }
}

fn put(bytes: &mut Vec<u8>, record: &[u8]) {
    bytes.extend((record.len() as u32).to_be_bytes());
    bytes.extend(checksum(record));
    bytes.extend(record);
}

fn checksum(record: &[u8]) -> [u8; 8] {
    let hash = blake3::hash(record);
    *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
}

/// Returns the file for the bytes that were cut off.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".cut");
    name.into()
}

/// Appends `cut` to this file, without the zeros at its end.
fn keep(path: &Path, cut: &[u8]) -> io::Result<()> {
    let length = cut.iter().rposition(|byte| *byte != 0).map_or(0, |n| n + 1);
    if length == 0 {
        return Ok(());
    }
    let mut file = AppendedFile::open(path)?;
    file.waiting().extend(&cut[..length]);
    file.sync().map(drop)
}

/// Returns the records and their length. A valid record after an unreadable one is an error.
fn read(bytes: &[u8]) -> io::Result<(Vec<Stored>, usize)> {
    let (mut records, mut at) = (Vec::new(), 0);
    while let Some((stored, length)) = record(&bytes[at..]) {
        records.push(stored);
        at += length;
    }
    // not in the unfinished record: others may have written into it
    let rest = &bytes[at..];
    let next = match length_of(rest) {
        Some(length) => HEAD_LEN + length,
        None => 1,
    };
    if (next..rest.len()).any(|from| record(&rest[from..]).is_some()) {
        let message = format!("damaged at byte {at}: restore it from a copy");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok((records, at))
}

/// Returns the record at the beginning, and its length with its head.
fn record(bytes: &[u8]) -> Option<(Stored, usize)> {
    let length = HEAD_LEN + length_of(bytes)?;
    let (head, record) = bytes.get(..length)?.split_at(HEAD_LEN);
    let stored = (checksum(record) == head[4..]).then(|| Stored::decode(record).ok())?;
    Some((stored?, length))
}

/// Returns the length in the head of a record, if one can have it.
fn length_of(bytes: &[u8]) -> Option<usize> {
    let length = u32::from_be_bytes(*bytes.first_chunk()?) as usize;
    (1..=MAX_RECORD).contains(&length).then_some(length)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn request(n: u8) -> Stored {
        Stored::Request(vec![n; 20])
    }

    #[test]
    fn what_was_synced_is_there_again_and_half_a_record_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let (mut records, found) = Records::open(&path).unwrap();
        assert!(found.is_empty());
        for n in 0..3 {
            records.add(&request(n));
        }
        records.sync().unwrap();
        drop(records);
        let whole = std::fs::read(&path).unwrap();
        for length in 0..=whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let (mut records, found) = Records::open(&path).unwrap();
            let one = whole.len() / 3;
            let expected: Vec<_> = (0..(length / one) as u8).map(request).collect();
            assert_eq!(found, expected);
            records.add(&request(9));
            records.sync().unwrap();
            let (_, found) = Records::open(&path).unwrap();
            assert_eq!(found.last(), Some(&request(9)));
            assert_eq!(found.len(), expected.len() + 1);
        }
    }

    #[test]
    fn damage_in_the_middle_is_no_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let (mut records, _) = Records::open(&path).unwrap();
        records.add(&request(1));
        records.add(&request(2));
        records.sync().unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[HEAD_LEN + 3] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let refused = Records::open(&path).unwrap_err();
        assert!(refused.to_string().starts_with("damaged at byte 0"));
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }

    /// A file system may have the new length of a file before its new contents.
    #[test]
    fn a_last_record_of_which_a_part_is_zeros_is_cut_off_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (path, cut) = (folder.path().join("log"), folder.path().join("log.cut"));
        let (mut records, _) = Records::open(&path).unwrap();
        records.add(&request(1));
        records.add(&request(2));
        records.sync().unwrap();
        let whole = std::fs::read(&path).unwrap();
        let one = whole.len() / 2;
        for (torn, more) in (one..whole.len()).flat_map(|torn| [(torn, 0), (torn, 5_000)]) {
            let mut bytes = whole.clone();
            bytes[torn..].fill(0);
            bytes.resize(whole.len() + more, 0);
            std::fs::write(&path, &bytes).unwrap();
            let _ = std::fs::remove_file(&cut);
            let (_, found) = Records::open(&path).unwrap();
            assert_eq!(found, [request(1)], "{torn}");
            assert_eq!(std::fs::read(&path).unwrap(), whole[..one]);
            let kept = std::fs::read(&cut).unwrap_or_default();
            let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
            assert_eq!(kept, bytes[one..end], "{torn}");
            assert_eq!(Records::open(&path).unwrap().1, [request(1)]);
        }
    }

    #[test]
    fn a_record_in_an_unfinished_one_is_not_valid() {
        let mut inner = Vec::new();
        put(&mut inner, &request(1).encode().unwrap());
        let mut bytes = Vec::new();
        put(&mut bytes, &Stored::Request(inner).encode().unwrap());
        bytes[HEAD_LEN - 1] ^= 1;
        let (records, length) = read(&bytes).unwrap();
        assert_eq!((records, length), (Vec::new(), 0));
    }

    #[test]
    fn a_damaged_length_is_no_end() {
        let mut bytes = Vec::new();
        for n in 0..3 {
            put(&mut bytes, &request(n).encode().unwrap());
        }
        let one = bytes.len() / 3;
        // zero, too long for a record, and short
        for length in [[0; 4], [1, 0, 0, 0], [0, 0, 0, 1]] {
            let mut bytes = bytes.clone();
            bytes[one..one + 4].copy_from_slice(&length);
            let refused = read(&bytes).unwrap_err().to_string();
            assert!(refused.starts_with(&format!("damaged at byte {one}")));
        }
    }

    #[test]
    fn a_file_of_what_is_gone_is_rewritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let (mut records, _) = Records::open(&path).unwrap();
        for _ in 0..40_000 {
            records.add(&request(1));
        }
        records.sync().unwrap();
        records.compact([request(2)].into_iter()).unwrap();
        records.add(&request(3));
        records.sync().unwrap();
        let (_, found) = Records::open(&path).unwrap();
        assert_eq!(found, [request(2), request(3)]);
    }
}
