//! Catalogues of servers, on the root channel of the empty name, which no share has.

use librecast::channel::SharePrefix;
use librecast::wire::{Reader, WireError, Writer};

use crate::block::BlockHash;
use crate::name::check_name;

/// The name with the catalogues' root channel.
pub const NAME: &str = "";
/// Most bytes of entries in a datagram: with all headers and the seal at most 1,280.
const MAX_ENTRIES: usize = 1_100;

/// One share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// NAME of `lc:NAME`.
    pub name: String,
    /// Root hash of its version.
    pub root: BlockHash,
    /// Grows with each version.
    pub generation: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Number of files.
    pub files: u64,
}

/// The prefix of catalogues of servers with this key, or without key.
#[must_use]
pub fn prefix(group_key: &[u8]) -> SharePrefix {
    SharePrefix::of_name(group_key, NAME)
}

impl Listed {
    fn write(&self, w: &mut Writer) -> Result<(), WireError> {
        w.text8(&self.name)?;
        w.put(&self.root.0)
            .u64(self.generation)
            .u64(self.bytes)
            .u64(self.files);
        Ok(())
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let name = r.text8()?;
        check_name(name).map_err(|_| WireError::Bad("name"))?;
        Ok(Self {
            name: name.to_owned(),
            root: BlockHash(r.array()?),
            generation: r.u64()?,
            bytes: r.u64()?,
            files: r.u64()?,
        })
    }
}

/// Reads the entries of a datagram, to its end.
pub fn read(r: &mut Reader<'_>) -> Result<Vec<Listed>, WireError> {
    let mut listed = Vec::new();
    while !r.is_empty() {
        listed.push(Listed::read(r)?);
    }
    Ok(listed)
}

/// Splits the entries into parts, each for one datagram.
pub fn parts(listed: &[Listed]) -> Result<Vec<Vec<u8>>, WireError> {
    let mut parts: Vec<Vec<u8>> = Vec::new();
    for one in listed {
        let mut w = Writer::new();
        one.write(&mut w)?;
        let bytes = w.into_vec();
        match parts.last_mut() {
            Some(part) if part.len() + bytes.len() <= MAX_ENTRIES => part.extend(bytes),
            _ => parts.push(bytes),
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_listed_comes_out_again_in_datagrams_that_fit(
            names in proptest::collection::vec("[^#\\p{C}\\p{Zl}\\p{Zp}]{1,60}", 0..60), bytes: u64,
        ) {
            let listed: Vec<Listed> = names
                .into_iter()
                .map(|name| Listed { name, root: BlockHash([7; 32]), generation: 1, bytes, files: 3 })
                .collect();
            let parts = parts(&listed).unwrap();
            prop_assert!(parts.iter().all(|part| part.len() <= MAX_ENTRIES));
            let read = parts.iter().flat_map(|part| read(&mut Reader::new(part)).unwrap());
            prop_assert_eq!(read.collect::<Vec<_>>(), listed);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1400)) {
            let _ = read(&mut Reader::new(&bytes));
        }
    }

    #[test]
    fn names_that_no_share_may_have_are_refused() {
        for name in ["", "a#b", "a\x1b[2J", "a\u{202e}b"] {
            let listed = Listed {
                name: name.to_owned(),
                root: BlockHash([0; 32]),
                generation: 0,
                bytes: 0,
                files: 0,
            };
            let mut w = Writer::new();
            listed.write(&mut w).unwrap();
            assert!(read(&mut Reader::new(w.as_slice())).is_err());
        }
    }
}
