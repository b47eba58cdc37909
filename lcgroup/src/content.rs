//! The content of a message: any bytes, an offer of files, a file, a call, or shared state.
//!
//! ```text
//! any bytes that do not begin with 0
//! 0 | 0 | any bytes
//! 0 | 1 | length 8 | name of a share | its key 256 | the key that signs it 256
//! 0 | 2 | bytes 64 | root of the sealed file 256 | its key 128 | length 8 | name
//! 0 | 3 | seed of a call of lcradio 256
//! 0 | 4 | changes of the shared state: lcgroup-core's `shared`
//! ```

use lcgroup_core::shared::Change;
use librecast::id::PeerId;
use librecast::plain::is_name;
use librecast::wire::Writer;
use zeroize::Zeroizing;

use crate::files::SentFile;

/// The first byte of a content with a type.
const TYPED: u8 = 0;
/// Type of a content: bytes, which may themselves begin with [`TYPED`].
const BYTES: u8 = 0;
/// Type of a content: a share of lcsync.
const FILES: u8 = 1;
/// Type of a content: a file.
const FILE: u8 = 2;
/// Type of a content: a call, with which members talk.
const CALL: u8 = 3;
/// Type of a content: changes of the shared state.
const CHANGES: u8 = 4;

/// Bytes of a share's key (lcsync's `--keyfile`), and of a public key.
const KEY_LEN: usize = 32;

/// A share of lcsync that members may fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// NAME of `lc:NAME`.
    pub name: String,
    /// Its key.
    pub key: Zeroizing<[u8; KEY_LEN]>,
    /// The public key that signs it.
    pub signer: PeerId,
}

/// The content of a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// Text, or other bytes.
    Bytes(&'a [u8]),
    /// An offer of files.
    Files(Files),
    /// A file.
    File(SentFile),
    /// A call: the seed of its text.
    Call(Zeroizing<[u8; KEY_LEN]>),
    /// Changes of the shared state.
    Changes(Vec<Change>),
}

impl<'a> Content<'a> {
    /// Decodes a member's bytes. An unknown type is returned as bytes.
    pub fn decode(bytes: &'a [u8]) -> Self {
        match bytes {
            [TYPED, BYTES, rest @ ..] => Self::Bytes(rest),
            [TYPED, FILES, rest @ ..] => {
                Files::decode(rest).map_or(Self::Bytes(bytes), Self::Files)
            }
            [TYPED, FILE, rest @ ..] => {
                SentFile::decode(rest).map_or(Self::Bytes(bytes), Self::File)
            }
            [TYPED, CALL, seed @ ..] if let Ok(seed) = <[u8; KEY_LEN]>::try_from(seed) => {
                Self::Call(Zeroizing::new(seed))
            }
            [TYPED, CHANGES, rest @ ..] => {
                Change::decode_all(rest).map_or(Self::Bytes(bytes), Self::Changes)
            }
            _ => Self::Bytes(bytes),
        }
    }
}

/// Encodes a message of bytes.
pub fn encode_bytes(bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    let marks: &[u8] = match bytes.first() {
        Some(&TYPED) => &[TYPED, BYTES],
        _ => &[],
    };
    Zeroizing::new([marks, bytes].concat())
}

/// Encodes a call.
pub fn encode_call(seed: &[u8; KEY_LEN]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new([&[TYPED, CALL], &seed[..]].concat())
}

/// Encodes changes of the shared state.
pub fn encode_changes(changes: &[Change]) -> Zeroizing<Vec<u8>> {
    let size: usize = changes.iter().map(Change::size).sum();
    let mut w = Writer::from(Vec::with_capacity(size + 2));
    w.u8(TYPED).u8(CHANGES);
    changes.iter().for_each(|change| change.encode(&mut w));
    w.into_vec().into()
}

/// Encodes a file.
pub fn encode_file(file: &SentFile) -> Zeroizing<Vec<u8>> {
    // reserves all space: a growing one would leave copies of the key
    let mut w = Writer::from(Vec::with_capacity(512));
    w.u8(TYPED).u8(FILE);
    file.write(&mut w);
    w.into_vec().into()
}

impl Files {
    /// Encodes an offer of files.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let length = [self.name.len() as u8];
        let parts: [&[u8]; 5] = [
            &[TYPED, FILES],
            &length,
            self.name.as_bytes(),
            &*self.key,
            self.signer.public_key(),
        ];
        Zeroizing::new(parts.concat())
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (length, rest) = bytes.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(*length))?;
        let (key, rest) = rest.split_first_chunk::<KEY_LEN>()?;
        let signer = PeerId::from_public_key(rest.try_into().ok()?).ok()?;
        let name = std::str::from_utf8(name).ok()?;
        is_share_name(name).then(|| Self {
            name: name.to_owned(),
            key: Zeroizing::new(*key),
            signer,
        })
    }
}

/// Whether lcsync accepts this as the name of a share.
pub fn is_share_name(name: &str) -> bool {
    (1..=255).contains(&name.len()) && !name.contains('#') && is_name(name)
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;

    use super::*;

    #[test]
    fn any_bytes_come_back_and_none_are_taken_for_something_else() {
        let files = files("plans").encode();
        for said in [
            &b""[..],
            b"a",
            b"\0",
            b"\0\0",
            b"\0\x01",
            b"\0\x01\x02ab",
            &files,
        ] {
            assert_eq!(Content::decode(&encode_bytes(said)), Content::Bytes(said));
        }
        assert_eq!(Content::decode(b"\0\x07x"), Content::Bytes(b"\0\x07x"));
    }

    fn files(name: &str) -> Files {
        Files {
            name: name.to_owned(),
            key: Zeroizing::new([7; KEY_LEN]),
            signer: SecretKey::from_seed(&[1; 32]).peer_id(),
        }
    }

    #[test]
    fn a_file_comes_back_and_a_path_is_only_bytes() {
        let file = |name: &str| SentFile {
            name: name.to_owned(),
            length: 5,
            id: lcgroup_core::file::FileId([1; 32]),
            key: Zeroizing::new([2; 16]),
        };
        let bytes = encode_file(&file("plan.pdf"));
        assert_eq!(bytes[..3], [0, 2, 0]);
        assert_eq!(Content::decode(&bytes), Content::File(file("plan.pdf")));
        let bytes = encode_file(&file("../plan.pdf"));
        assert_eq!(Content::decode(&bytes), Content::Bytes(&bytes));
    }

    #[test]
    fn a_call_comes_back_and_another_length_is_only_bytes() {
        let bytes = encode_call(&[7; 32]);
        assert_eq!(bytes[..3], [0, 3, 7]);
        let call = Content::Call(Zeroizing::new([7; 32]));
        assert_eq!(Content::decode(&bytes), call);
        for other in [&bytes[..33], &[&bytes[..], b"x"].concat(), b"\0\x03"] {
            assert_eq!(Content::decode(other), Content::Bytes(other));
        }
        assert_eq!(
            Content::decode(&encode_bytes(&bytes)),
            Content::Bytes(&bytes)
        );
    }

    #[test]
    fn changes_come_back_and_damaged_ones_are_only_bytes() {
        let key = "colour".to_owned();
        let (clock, value) = (1, Some(b"red".to_vec()));
        let changes = vec![Change { key, clock, value }];
        let bytes = encode_changes(&changes);
        assert_eq!(bytes[..2], [0, 4]);
        assert_eq!(Content::decode(&bytes), Content::Changes(changes));
        let cut = &bytes[..bytes.len() - 1];
        assert_eq!(Content::decode(cut), Content::Bytes(cut));
    }

    #[test]
    fn files_have_golden_bytes() {
        let files = files("plans");
        let bytes = files.encode();
        assert_eq!(bytes[..8], *b"\0\x01\x05plans");
        assert_eq!(bytes[8..40], [7; 32]);
        assert_eq!(bytes[40..], *files.signer.public_key());
        assert_eq!(Content::decode(&bytes), Content::Files(files));
        for cut in 0..bytes.len() {
            assert!(matches!(Content::decode(&bytes[..cut]), Content::Bytes(_)));
        }
        let longer = [&bytes[..], b"x"].concat();
        assert_eq!(Content::decode(&longer), Content::Bytes(&longer));
        for bad in ["", "a#b", "a\nb", "a\u{9b}2Jb", "a\u{202e}b"] {
            let bytes = self::files(bad).encode();
            assert_eq!(Content::decode(&bytes), Content::Bytes(&bytes), "{bad:?}");
        }
    }
}
