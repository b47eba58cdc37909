//! Drafts on disk: changes of this host that are not entries yet. Only stored drafts are sent.
//!
//! ```text
//!   n x (length 4 | checksum 8 | id 4 | body)      the last one of a number counts; no body: done
//! ```

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;

use librecast_log::MAX_BODY;
use librecast_log_host::AppendedFile;

/// Bytes before a record: its length and its checksum.
const HEAD_LEN: usize = 4 + 8;

/// Longest file, in bytes: an entry's size for each entry of a space.
const MAX_FILE: u64 = 128 << 20;

/// The file, and waiting drafts.
#[derive(Debug)]
pub struct Drafts {
    file: AppendedFile,
    waiting: BTreeMap<u32, Vec<u8>>,
    /// Drafts that are not on disk yet, even if no longer wanted.
    unsynced: Vec<(u32, Vec<u8>)>,
    last: u32,
}

impl Drafts {
    /// Opens the drafts of an earlier run.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = AppendedFile::open(path)?;
        if file.len() > MAX_FILE {
            let message = format!("{} bytes are more than drafts ever have", file.len());
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let mut bytes = Vec::new();
        file.read().take(MAX_FILE).read_to_end(&mut bytes)?;
        let (mut waiting, mut at, mut last) = (BTreeMap::new(), 0, 0);
        while let Some((id, body, next)) = read(&bytes, at) {
            match body.is_empty() {
                true => drop(waiting.remove(&id)),
                false => drop(waiting.insert(id, body.to_vec())),
            }
            (at, last) = (next, last.max(id));
        }
        // a crash left a partial record: it was not synced, and so not sent
        file.cut(at as u64)?;
        Ok(Self {
            file,
            waiting,
            unsynced: Vec::new(),
            last,
        })
    }

    /// Returns waiting drafts, the oldest first.
    pub fn waiting(&self) -> impl Iterator<Item = (u32, &Vec<u8>)> {
        self.waiting.iter().map(|(id, body)| (*id, body))
    }

    /// Returns an unused number.
    pub fn next(&self) -> u32 {
        self.last + 1
    }

    /// Returns whether all drafts are on disk.
    pub fn is_synced(&self) -> bool {
        self.unsynced.is_empty()
    }

    /// Returns the number of waiting drafts.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Adds a draft; it is on disk after the next [`sync`](Self::sync).
    pub fn write(&mut self, id: u32, body: &[u8]) {
        put(self.file.waiting(), id, body);
        self.waiting.insert(id, body.to_vec());
        self.unsynced.push((id, body.to_vec()));
        self.last = self.last.max(id);
    }

    /// Removes a draft whose entry is on disk.
    pub fn done(&mut self, id: u32) {
        if self.waiting.remove(&id).is_some() {
            put(self.file.waiting(), id, &[]);
        }
    }

    /// Writes all drafts. Returns those that were not on disk before.
    ///
    /// # Errors
    /// The disk's; the next try writes the rest.
    pub fn sync(&mut self) -> io::Result<Vec<(u32, Vec<u8>)>> {
        self.file.sync()?;
        if self.waiting.is_empty() && self.unsynced.is_empty() && !self.file.is_empty() {
            self.file.cut(0)?;
        }
        Ok(std::mem::take(&mut self.unsynced))
    }
}

fn put(bytes: &mut Vec<u8>, id: u32, body: &[u8]) {
    let record = [&id.to_be_bytes(), body].concat();
    bytes.extend((record.len() as u32).to_be_bytes());
    bytes.extend(checksum(&record));
    bytes.extend(record);
}

fn checksum(record: &[u8]) -> [u8; 8] {
    let hash = librecast::id::derive("lcstudio 2026 checksum of a draft", &[record]);
    *hash.first_chunk().expect("a hash has 32 bytes")
}

/// Returns the record at this place, and the next place; `None` for a partial record.
fn read(bytes: &[u8], at: usize) -> Option<(u32, &[u8], usize)> {
    let (length, sum) = bytes.get(at..at + HEAD_LEN)?.split_at(4);
    let length = u32::from_be_bytes(*length.first_chunk()?) as usize;
    let next = at + HEAD_LEN + length.min(MAX_BODY + 5);
    let record = bytes.get(at + HEAD_LEN..next)?;
    let (id, body) = record.split_first_chunk()?;
    (checksum(record) == *sum).then_some((u32::from_be_bytes(*id), body, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &Path) -> Vec<(u32, Vec<u8>)> {
        let drafts = Drafts::open(path).unwrap();
        drafts
            .waiting()
            .map(|(id, body)| (id, body.clone()))
            .collect()
    }

    #[test]
    fn what_was_synced_waits_after_a_crash_and_half_a_record_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("drafts");
        let mut drafts = Drafts::open(&path).unwrap();
        for (id, body) in [(1, "a"), (2, "b"), (2, "bc")] {
            drafts.write(id, body.as_bytes());
        }
        assert_eq!(found(&path), [], "nothing is on disk before");
        assert_eq!(drafts.sync().unwrap().len(), 3);
        let all = [(1, b"a".to_vec()), (2, b"bc".to_vec())];
        assert_eq!(found(&path), all);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(found(&path), [(1, b"a".to_vec()), (2, b"b".to_vec())]);
        let mut again = Drafts::open(&path).unwrap();
        assert_eq!(again.next(), 3);
        again.done(1);
        again.write(3, b"d");
        again.sync().unwrap();
        assert_eq!(found(&path), [(2, b"b".to_vec()), (3, b"d".to_vec())]);
        again.done(2);
        again.done(3);
        again.sync().unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
    }
}
