//! Records of a log on disk.

use librecast::wire::{Reader, WireError, Writer};

use crate::entry::{AuthorId, Entry, EntryError, MAX_BODY};

/// Kind of a record, its first byte: an entry of a log.
const ENTRY: u8 = 1;
/// Kind: first number of an author's log.
const FIRST: u8 = 2;
/// Kind: a request that waits for the owner.
const REQUEST: u8 = 3;
/// Kind: an entry with a date that cannot be right.
const AHEAD: u8 = 4;

/// A record that must survive a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// An entry.
    Entry(Entry),
    /// An entry with a date that cannot be right, and its arrival (milliseconds since 1970).
    Ahead(Entry, u64),
    /// First number of this author's log: no member has earlier entries.
    First(AuthorId, u32),
    /// A request without a grant yet.
    Request(Vec<u8>),
}

impl Stored {
    /// Encodes it.
    pub fn encode(&self) -> Result<Vec<u8>, EntryError> {
        let mut w = Writer::new();
        match self {
            Self::Entry(entry) => w.u8(ENTRY).put(&entry.encode()?),
            Self::Ahead(entry, received) => w.u8(AHEAD).u64(*received).put(&entry.encode()?),
            Self::First(author, first) => w.u8(FIRST).u64(author.0).u32(*first),
            Self::Request(body) => w.u8(REQUEST).put(body),
        };
        Ok(w.into_vec())
    }

    /// Decodes the record of these bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        let mut r = Reader::new(bytes);
        match r.u8()? {
            ENTRY => Ok(Self::Entry(Entry::decode(r.rest())?)),
            AHEAD => {
                let received = r.u64()?;
                Ok(Self::Ahead(Entry::decode(r.rest())?, received))
            }
            FIRST => {
                let (author, first) = (AuthorId(r.u64()?), r.u32()?);
                r.finish()?;
                Ok(Self::First(author, first.max(1)))
            }
            REQUEST if r.rest().len() <= MAX_BODY => Ok(Self::Request(r.rest().to_vec())),
            REQUEST => Err(EntryError::TooLong(r.rest().len())),
            _ => Err(WireError::Bad("record").into()),
        }
    }
}
