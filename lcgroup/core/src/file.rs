//! Files of messages: how they are sealed, how their authors announce them to holders, and which
//! of them a holder keeps.
//!
//! ```text
//! file 1:  version 8 = 1 | root 256 | sealed bytes 64 | later fields
//!
//! sealed file: chunks of 64 KiB, the last one shorter or whole; an empty file has one empty chunk
//!   chunk | tag 128: AES-128-GCM, nonce 0 (56 bits) | last 8 (1: it is) | index 32; key 128 of the message
//! ```
//!
//! The root is lcsync's root hash of the sealed file. The entry stands in its author's log, so
//! readers of the log know who announced it; the key stands in a message alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use librecast::id::PeerId;
use librecast::wire::{Reader, Writer};
use zeroize::Zeroizing;

use crate::body::kind;
use crate::error::GroupError;
use crate::event::{Log, NewEntry};
use crate::group::Group;
use crate::provider::{self, AEAD_KEY, CryptoError};

/// Bytes of the longest file.
pub const MAX_FILE: u64 = 64 << 20;
/// Bytes of a chunk before it is sealed. Chosen: the tags add 0.02 %.
pub const CHUNK: usize = 64 << 10;
/// Bytes that sealing adds to a chunk.
const TAG: usize = 16;
/// Files of one author that a host keeps. Chosen: with those of 1,000 members, a list of them has
/// some megabytes.
pub const MAX_FILES_OF_AUTHOR: usize = 64;
/// Files that a host keeps for a group: each is a share of lcsync.
pub const MAX_FILES: usize = 256;
/// Version of the entry, its first byte.
const VERSION: u8 = 1;

/// The root hash of a sealed file, by which holders find it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub [u8; 32]);

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for FileId {
    type Err = ();

    /// Parses 64 hexadecimal digits in lower case, and nothing else.
    fn from_str(text: &str) -> Result<Self, ()> {
        let hash = blake3::Hash::from_hex(text).map_err(|_| ())?;
        let id = Self(*hash.as_bytes());
        (id.to_string() == text).then_some(id).ok_or(())
    }
}

/// A sealed file, as holders know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SealedFile {
    /// Its root hash.
    pub id: FileId,
    /// Its bytes, at most the size of a sealed [`MAX_FILE`].
    pub length: u64,
}

impl SealedFile {
    /// Decodes the body of an entry; none for a later version, or one that is too long.
    #[must_use]
    pub fn decode(body: &[u8]) -> Option<Self> {
        let mut r = Reader::new(body);
        let version = r.u8().ok()?;
        let (id, length) = (r.array().ok()?, r.u64().ok()?);
        let fits = (sealed_length(0)..=sealed_length(MAX_FILE)).contains(&length);
        let id = FileId(id);
        (version == VERSION && fits).then_some(Self { id, length })
    }

    /// The body of an entry.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(VERSION).put(&self.id.0).u64(self.length);
        w.into_vec()
    }
}

/// The key of one file.
pub type FileKey = Zeroizing<[u8; AEAD_KEY]>;

/// Chunks of a file of this length.
#[must_use]
pub fn chunks(length: u64) -> u64 {
    length.div_ceil(CHUNK as u64).max(1)
}

/// Bytes of a sealed file of this length.
#[must_use]
pub fn sealed_length(length: u64) -> u64 {
    length + chunks(length) * TAG as u64
}

/// Bytes of chunk `index` of a file of this length, before it is sealed.
#[must_use]
pub fn chunk_length(length: u64, index: u64) -> usize {
    let begin = index.saturating_mul(CHUNK as u64);
    length.saturating_sub(begin).min(CHUNK as u64) as usize
}

/// Bytes of a chunk of `length` bytes once it is sealed.
#[must_use]
pub fn sealed_chunk_length(length: usize) -> usize {
    length + TAG
}

fn nonce(length: u64, index: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[7] = u8::from(index + 1 == chunks(length));
    nonce[8..].copy_from_slice(&(index as u32).to_be_bytes());
    nonce
}

/// Seals chunk `index` of a file of `length` bytes. A key seals one file, each chunk once.
///
/// # Errors
/// [`CryptoError`] of the library.
pub fn seal_chunk(
    key: &FileKey,
    (length, index): (u64, u64),
    chunk: &[u8],
) -> Result<Vec<u8>, CryptoError> {
    provider::seal(&key[..], &nonce(length, index), &[], chunk)
}

/// Opens what [`seal_chunk`] has sealed, with the same length and index.
///
/// # Errors
/// [`CryptoError`]: it is another one, or damaged.
pub fn open_chunk(
    key: &FileKey,
    (length, index): (u64, u64),
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
    provider::open(&key[..], &nonce(length, index), &[], sealed)
}

impl Group {
    /// Announces a sealed file to members and holders.
    ///
    /// # Errors
    /// [`GroupError::NotAMember`], [`GroupError::RolledBack`], [`GroupError::TooMuchWaits`].
    pub fn announce(&mut self, file: &SealedFile) -> Result<(), GroupError> {
        self.check_speaks()?;
        let (kind, body) = (kind::FILE, file.encode());
        self.append(Log::Own, NewEntry::Body { kind, body });
        Ok(())
    }
}

/// A file that a host may keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// The member that announced it.
    pub author: PeerId,
    /// Its order among files of its author: a later one is higher.
    pub order: u64,
    /// The file.
    pub file: SealedFile,
}

/// Chooses the files that fit into `space` bytes and [`MAX_FILES`].
///
/// Later ones of an author count before earlier ones. Of authors, the one with most loses first: so
/// no author with a fair share or less loses a file to others. A file counts for each of its
/// authors.
#[must_use]
pub fn choose(candidates: &[Candidate], space: u64) -> Vec<Candidate> {
    let mut of_authors: BTreeMap<PeerId, Vec<Candidate>> = BTreeMap::new();
    for candidate in candidates {
        of_authors
            .entry(candidate.author)
            .or_default()
            .push(*candidate);
    }
    // by bytes and by number: (amount, author), the greatest last
    let mut by_bytes = BTreeSet::new();
    let mut by_number = BTreeSet::new();
    let (mut bytes, mut number) = (0_u64, 0);
    for (author, files) in &mut of_authors {
        // the latest first, and each file once
        files.sort_by_key(|file| (std::cmp::Reverse(file.order), file.file));
        let mut seen = BTreeSet::new();
        files.retain(|file| seen.insert(file.file));
        files.truncate(MAX_FILES_OF_AUTHOR);
        let own: u64 = files.iter().map(|file| file.file.length).sum();
        (bytes, number) = (bytes + own, number + files.len());
        by_bytes.insert((own, *author));
        by_number.insert((files.len(), *author));
    }
    while bytes > space || number > MAX_FILES {
        let most = match bytes > space {
            true => by_bytes.last().map(|(_, author)| *author),
            false => by_number.last().map(|(_, author)| *author),
        };
        let files = most.and_then(|author| Some((author, of_authors.get_mut(&author)?)));
        let Some((author, files)) = files else { break };
        let own: u64 = files.iter().map(|file| file.file.length).sum();
        by_bytes.remove(&(own, author));
        by_number.remove(&(files.len(), author));
        let Some(oldest) = files.pop() else { break };
        (bytes, number) = (bytes - oldest.file.length, number - 1);
        by_bytes.insert((own - oldest.file.length, author));
        by_number.insert((files.len(), author));
    }
    of_authors.into_values().flatten().collect()
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;
    use proptest::prelude::*;

    use super::*;

    fn key(n: u8) -> FileKey {
        Zeroizing::new([n; AEAD_KEY])
    }

    fn author(n: u8) -> PeerId {
        SecretKey::from_seed(&[n; 32]).peer_id()
    }

    fn seal(key: &FileKey, content: &[u8]) -> Vec<Vec<u8>> {
        let length = content.len() as u64;
        let chunk = |index| {
            let begin = index as usize * CHUNK;
            &content[begin..begin + chunk_length(length, index)]
        };
        let all = 0..chunks(length);
        all.map(|index| seal_chunk(key, (length, index), chunk(index)).unwrap())
            .collect()
    }

    #[test]
    fn the_entry_has_these_bytes_and_may_grow() {
        let file = SealedFile {
            id: FileId([7; 32]),
            length: 300,
        };
        let bytes = [&[1][..], &[7; 32], &[0, 0, 0, 0, 0, 0, 1, 44]].concat();
        assert_eq!(file.encode(), bytes);
        assert_eq!(SealedFile::decode(&bytes), Some(file));
        let more = [&bytes[..], b"more"].concat();
        assert_eq!(SealedFile::decode(&more), Some(file));
        for cut in 0..bytes.len() {
            assert_eq!(SealedFile::decode(&bytes[..cut]), None);
        }
        for length in [0, 15, sealed_length(MAX_FILE) + 1, u64::MAX] {
            let other = SealedFile { length, ..file };
            assert_eq!(SealedFile::decode(&other.encode()), None, "{length}");
        }
    }

    #[test]
    fn an_id_is_its_64_digits_and_no_path() {
        let id = FileId([0xab; 32]);
        assert_eq!(id.to_string(), "ab".repeat(32));
        assert_eq!(id.to_string().parse(), Ok(id));
        let long = "ab".repeat(33);
        for other in ["", "..", "ab/", &"AB".repeat(32), &long] {
            assert!(other.parse::<FileId>().is_err(), "{other}");
        }
    }

    #[test]
    fn a_sealed_file_opens_in_its_order_alone() {
        let content: Vec<u8> = (0..CHUNK * 2 + 5).map(|n| (n % 251) as u8).collect();
        let length = content.len() as u64;
        let sealed = seal(&key(1), &content);
        let total: usize = sealed.iter().map(Vec::len).sum();
        assert_eq!(total as u64, sealed_length(length));
        let mut opened = Vec::new();
        for (index, chunk) in (0..).zip(&sealed) {
            opened.extend_from_slice(&open_chunk(&key(1), (length, index), chunk).unwrap());
        }
        assert_eq!(opened, content);
        assert!(open_chunk(&key(2), (length, 0), &sealed[0]).is_err());
        assert!(open_chunk(&key(1), (length, 1), &sealed[0]).is_err());
        // cut behind a whole chunk
        let shorter = 2 * CHUNK as u64;
        assert!(open_chunk(&key(1), (shorter, 1), &sealed[1]).is_err());
        assert_eq!(seal(&key(1), b"").len(), 1);
        assert_eq!(sealed_length(0), 16);
        assert_eq!(sealed_length(CHUNK as u64), CHUNK as u64 + 16);
    }

    fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
        let one =
            (0..6_u8, 0..9_u64, 0..40_u8, 16..500_u64).prop_map(|(who, order, id, length)| {
                Candidate {
                    author: author(who),
                    order,
                    file: SealedFile {
                        id: FileId([id; 32]),
                        length,
                    },
                }
            });
        proptest::collection::vec(one, 0..60)
    }

    proptest! {
        #[test]
        fn the_chosen_fit_and_nobody_below_its_share_loses_a_file(all in candidates(), space in 0..20_000_u64) {
            let chosen = choose(&all, space);
            let bytes = |files: &[Candidate]| files.iter().map(|c| c.file.length).sum::<u64>();
            prop_assert!(bytes(&chosen) <= space);
            prop_assert!(chosen.iter().all(|c| all.contains(c)));
            let authors: BTreeSet<_> = all.iter().map(|c| c.author).collect();
            for author in &authors {
                let own: Vec<_> = all.iter().filter(|c| c.author == *author).copied().collect();
                let kept: Vec<_> = chosen.iter().filter(|c| c.author == *author).copied().collect();
                let ids: BTreeSet<_> = own.iter().map(|c| c.file).collect();
                if bytes(&own) <= space / authors.len() as u64 {
                    prop_assert_eq!(kept.len(), ids.len());
                }
                // no kept one is older than one that was dropped
                let kept_ids: BTreeSet<_> = kept.iter().map(|c| c.file).collect();
                let dropped = own.iter().filter(|c| !kept_ids.contains(&c.file)).map(|c| c.order).max();
                if let (Some(dropped), Some(oldest)) = (dropped, kept.iter().map(|c| c.order).min()) {
                    prop_assert!(oldest >= dropped, "{} {}", oldest, dropped);
                }
            }
            // the order of the input changes nothing
            let mut other = all.clone();
            other.reverse();
            let set = |files: Vec<Candidate>| files.iter().map(|c| (c.author, c.file)).collect::<BTreeSet<_>>();
            prop_assert_eq!(set(choose(&other, space)), set(chosen));
        }
    }

    #[test]
    fn a_flood_of_one_author_displaces_its_own_files_alone() {
        let file = |who: u8, order: u64, length| Candidate {
            author: author(who),
            order,
            file: SealedFile {
                id: FileId([who.wrapping_mul(100).wrapping_add(order as u8); 32]),
                length,
            },
        };
        let mut all: Vec<_> = (0..100).map(|n| file(1, n, 1_000)).collect();
        all.push(file(2, 0, 3_000));
        let chosen = choose(&all, 10_000);
        assert!(chosen.contains(&file(2, 0, 3_000)));
        assert_eq!(chosen.len(), 8);
        assert!(chosen.contains(&file(1, 99, 1_000)));
        // so many small ones
        let many: Vec<_> = (0..10)
            .flat_map(|who| (0..100).map(move |n| file(who, n, 16)))
            .collect();
        assert_eq!(choose(&many, u64::MAX).len(), MAX_FILES);
    }
}
