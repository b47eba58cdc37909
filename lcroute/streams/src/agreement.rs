//! Messages at the beginning of a stream: the protocols of one side, and the choice of the other.
//!
//! message = length 16 (of the rest, in bytes) | hello or answer
//! hello = version 8 | kind 8 (0 bytes, 1 datagrams) | count 8 | count x { length 8 | name }
//! answer = kind 8 (0 agreed | 1 none in common | 2 refused | 3 unavailable)
//!          | of 0: index 8 | of 1: count 8 | count x { length 8 | name }

use lcroute_control::streams::MAX_PROTOCOLS;
use librecast::stream::{MAX_PROTOCOL_NAME, ProtocolName};
use librecast::wire::{Reader, WireError, Writer};

/// Version of both messages.
const VERSION: u8 = 1;
/// Maximum length of a message in bytes, without its length field: a head, and names with lengths.
pub const MAX_MESSAGE: usize = 3 + MAX_PROTOCOLS * (1 + MAX_PROTOCOL_NAME);
/// Bytes of a message's length field.
pub const LENGTH_LEN: usize = 2;

/// Code of [`Answer::Agreed`]: as all these, the first byte of an answer (docs/protocol.md §11).
const AGREED: u8 = 0;
/// Code of [`Answer::NoneCommon`].
const NONE_COMMON: u8 = 1;
/// Code of [`Answer::Refused`].
const REFUSED: u8 = 2;
/// Code of [`Answer::Unavailable`].
const UNAVAILABLE: u8 = 3;

/// The message of the side that opens a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Whether datagrams are requested; the stream then only marks their duration.
    pub datagrams: bool,
    /// Its protocols, 1 to [`MAX_PROTOCOLS`].
    pub protocols: Vec<ProtocolName>,
}

/// The answer of the other side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The protocol of this index in the hello; the stream follows.
    Agreed(u8),
    /// None of the protocols is served; these are.
    NoneCommon(Vec<ProtocolName>),
    /// None of the protocols is permitted to this node.
    Refused,
    /// The server cannot be reached, or is overloaded.
    Unavailable,
}

impl Hello {
    /// Encodes the message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(VERSION).u8(self.datagrams.into());
        names(&self.protocols, &mut w);
        message(&w)
    }

    /// Decodes a message without its length field.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        if r.u8()? != VERSION {
            return Err(WireError::Bad("version"));
        }
        let datagrams = match r.u8()? {
            0 => false,
            1 => true,
            _ => return Err(WireError::Bad("kind")),
        };
        let protocols = read_names(&mut r)?;
        r.finish()?;
        match protocols.is_empty() {
            true => Err(WireError::Bad("no protocol")),
            false => Ok(Self {
                datagrams,
                protocols,
            }),
        }
    }
}

impl Answer {
    /// Encodes the message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        match self {
            Self::Agreed(index) => {
                w.u8(AGREED).u8(*index);
            }
            Self::NoneCommon(protocols) => {
                w.u8(NONE_COMMON);
                names(protocols, &mut w);
            }
            Self::Refused => {
                w.u8(REFUSED);
            }
            Self::Unavailable => {
                w.u8(UNAVAILABLE);
            }
        }
        message(&w)
    }

    /// Decodes a message without its length field.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        let answer = match r.u8()? {
            AGREED => Self::Agreed(r.u8()?),
            NONE_COMMON => Self::NoneCommon(read_names(&mut r)?),
            REFUSED => Self::Refused,
            UNAVAILABLE => Self::Unavailable,
            _ => return Err(WireError::Bad("answer")),
        };
        r.finish()?;
        Ok(answer)
    }
}

fn message(content: &Writer) -> Vec<u8> {
    // far below 64 KiB
    let length = content.len() as u16;
    [&length.to_be_bytes(), content.as_slice()].concat()
}

/// Writes at most [`MAX_PROTOCOLS`] names.
fn names(protocols: &[ProtocolName], w: &mut Writer) {
    let some = &protocols[..protocols.len().min(MAX_PROTOCOLS)];
    w.u8(some.len() as u8);
    for name in some.iter().map(ProtocolName::as_str) {
        // a name's type bounds its length
        w.u8(name.len() as u8).put(name.as_bytes());
    }
}

fn read_names(r: &mut Reader<'_>) -> Result<Vec<ProtocolName>, WireError> {
    let count = r.u8()?;
    if usize::from(count) > MAX_PROTOCOLS {
        return Err(WireError::Bad("protocols"));
    }
    let name = |_| {
        r.text8()?
            .parse()
            .map_err(|_| WireError::Bad("protocol name"))
    };
    (0..count).map(name).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn some(names: &[&str]) -> Vec<ProtocolName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn golden_bytes() {
        let hello = Hello {
            datagrams: true,
            protocols: some(&["/x/2", "/y"]),
        };
        assert_eq!(hello.encode(), b"\x00\x0b\x01\x01\x02\x04/x/2\x02/y");
        assert_eq!(Answer::Agreed(1).encode(), [0, 2, 0, 1]);
        let none = Answer::NoneCommon(some(&["/z"]));
        assert_eq!(none.encode(), b"\x00\x05\x01\x01\x02/z");
        assert_eq!(Answer::Refused.encode(), [0, 1, 2]);
        assert_eq!(Answer::Unavailable.encode(), [0, 1, 3]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_a_part_of_it_is_not_whole(count in 1..=MAX_PROTOCOLS, long in 1..=254_usize) {
            let name = |n| format!("/{}", format!("{n}{}", "x".repeat(254)).split_at(long).0);
            let protocols: Vec<ProtocolName> = (0..count).map(|n| name(n).parse().unwrap()).collect();
            let hello = Hello { datagrams: count % 2 == 0, protocols: protocols.clone() };
            let bytes = hello.encode().split_off(LENGTH_LEN);
            prop_assert!(bytes.len() <= MAX_MESSAGE);
            prop_assert_eq!(Hello::decode(&bytes), Ok(hello));
            for length in 0..bytes.len() {
                prop_assert_eq!(Hello::decode(&bytes[..length]), Err(WireError::Truncated));
            }
            let bytes = Answer::NoneCommon(protocols.clone()).encode().split_off(LENGTH_LEN);
            prop_assert_eq!(Answer::decode(&bytes), Ok(Answer::NoneCommon(protocols)));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Hello::decode(&bytes);
            let _ = Answer::decode(&bytes);
        }
    }
}
