//! The messages CARRY and CARRIED, payloads of routed messages.
//!
//! ```text
//! CARRY    version 8 = 1 | incarnation 32 | sequence 32 | parts 8 | parts x { length 8 | bytes of the prefix }
//!          | ed25519 signature 512 by the sender's key, over "lcroute 2026 carry" | carrier 64 | all before
//! CARRIED  version 8 = 1 | first 8 bytes of the CARRY's signature 64 | answer 8
//! ```
//!
//! A CARRY names all parts that its sender wants of this carrier; it replaces the CARRY before. The
//! answer is not signed: it only saves time, as the link state shows the parts that are carried.
//! Nobody off the path knows the signature.

use std::net::Ipv6Addr;

use bytes::Bytes;
use librecast::cert::GroupPrefix;
use librecast::id::OriginId;
use librecast::wire::{Reader, WireError, Writer};

/// Version of both messages.
const VERSION: u8 = 1;
/// Before the signed bytes: a signature under the context of the link state counts for nothing
/// else.
const DOMAIN: &[u8] = b"lcroute 2026 carry";
/// Most parts of one CARRY, of the 64 prefixes of an advertisement. Chosen.
pub const MAX_PARTS: usize = 16;

/// A carrier's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It announces all parts.
    Yes,
    /// Its configuration forbids it, or its own uplink is slow.
    No,
    /// A certificate does not permit a part, or the part is not the sender's.
    NotPermitted,
    /// It carries as much as it may.
    Full,
    /// It has no listeners.
    NotJoined,
}

impl Answer {
    const ALL: [Self; 5] = [
        Self::Yes,
        Self::No,
        Self::NotPermitted,
        Self::Full,
        Self::NotJoined,
    ];

    /// As users read it, after a node's name.
    pub fn text(self) -> &'static str {
        match self {
            Self::Yes => "carries",
            Self::No => "says no",
            Self::NotPermitted => "may not, by a certificate",
            Self::Full => "carries as much as it may",
            Self::NotJoined => "does not listen",
        }
    }
}

/// All parts that a sender wants of one carrier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarryRequest {
    /// The run of the sender's daemon.
    pub incarnation: u32,
    /// Rises with each CARRY of a run.
    pub sequence: u32,
    /// At most 16.
    pub parts: Vec<GroupPrefix>,
}

/// A CARRY as it came: its signature is not verified.
#[derive(Debug)]
pub struct Received<'a> {
    /// The decoded request.
    pub request: CarryRequest,
    /// The bytes before the signature.
    body: &'a [u8],
    /// The signature.
    pub signature: [u8; 64],
}

/// Names a CARRY in its answer.
pub fn id_of(signature: &[u8; 64]) -> u64 {
    let mut id = [0; 8];
    id.copy_from_slice(&signature[..8]);
    u64::from_be_bytes(id)
}

fn signed(carrier: OriginId, body: &[u8]) -> Vec<u8> {
    [DOMAIN, &carrier.0.to_be_bytes(), body].concat()
}

impl CarryRequest {
    /// The message for `carrier`, and its name in the answer.
    pub fn encode(&self, carrier: OriginId, sign: impl Fn(&[u8]) -> [u8; 64]) -> (Bytes, u64) {
        let mut w = Writer::new();
        w.u8(VERSION).u32(self.incarnation).u32(self.sequence);
        let parts = &self.parts[..self.parts.len().min(MAX_PARTS)];
        // at most 16
        w.u8(parts.len() as u8);
        for part in parts {
            let len = part.prefix_len();
            w.u8(len);
            w.put(&part.addr().octets()[..usize::from(len).div_ceil(8)]);
        }
        let signature = sign(&signed(carrier, w.as_slice()));
        w.put(&signature);
        (w.into_vec().into(), id_of(&signature))
    }
}

impl<'a> Received<'a> {
    /// Reads a CARRY.
    ///
    /// # Errors
    /// It is of another version, cut, or has a prefix that is none.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        if r.u8()? != VERSION {
            return Err(WireError::Bad("version"));
        }
        let (incarnation, sequence) = (r.u32()?, r.u32()?);
        let count = usize::from(r.u8()?);
        if count > MAX_PARTS {
            return Err(WireError::Bad("parts"));
        }
        let mut parts = Vec::with_capacity(count);
        for _ in 0..count {
            let len = r.u8()?;
            if len > 128 {
                return Err(WireError::Bad("prefix length"));
            }
            let bytes = r.take(usize::from(len).div_ceil(8))?;
            let mut octets = [0; 16];
            octets[..bytes.len()].copy_from_slice(bytes);
            let prefix = GroupPrefix::new(Ipv6Addr::from(octets), len);
            parts.push(prefix?);
        }
        let body = &bytes[..bytes.len() - r.rest().len()];
        let signature = r.array()?;
        r.finish()?;
        let request = CarryRequest {
            incarnation,
            sequence,
            parts,
        };
        Ok(Self {
            request,
            body,
            signature,
        })
    }

    /// The bytes that the signature is over, for a carrier.
    pub fn signed(&self, carrier: OriginId) -> Vec<u8> {
        signed(carrier, self.body)
    }
}

/// A CARRIED.
pub fn encode_answer(request: u64, answer: Answer) -> Bytes {
    let code = Answer::ALL.iter().position(|a| *a == answer);
    let mut w = Writer::new();
    // five of them
    w.u8(VERSION).u64(request).u8(code.unwrap_or(1) as u8);
    w.into_vec().into()
}

/// Reads a CARRIED: the CARRY's name, and the answer.
///
/// # Errors
/// It is of another version or length, or has an unknown answer.
pub fn decode_answer(bytes: &[u8]) -> Result<(u64, Answer), WireError> {
    let mut r = Reader::new(bytes);
    if r.u8()? != VERSION {
        return Err(WireError::Bad("version"));
    }
    let (request, code) = (r.u64()?, usize::from(r.u8()?));
    r.finish()?;
    let answer = Answer::ALL.get(code).ok_or(WireError::Bad("answer"))?;
    Ok((request, *answer))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sign(message: &[u8]) -> [u8; 64] {
        let mut signature = [message.len() as u8; 64];
        signature[..DOMAIN.len()].copy_from_slice(&message[..DOMAIN.len()]);
        signature
    }

    fn request() -> CarryRequest {
        CarryRequest {
            incarnation: 3,
            sequence: 0x0102_0304,
            parts: vec![
                "ff1e:1:2:3:8000::/68".parse().unwrap(),
                "ff1e::abcc/127".parse().unwrap(),
            ],
        }
    }

    #[test]
    fn golden_bytes() {
        let (bytes, id) = request().encode(OriginId(0x1122_3344_5566_7788), sign);
        let expected = "01000000030102030402\
                        44ff1e00010002000380\
                        7fff1e000000000000000000000000abcc"
            .replace(' ', "");
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex[..expected.len()], expected);
        assert_eq!(bytes.len(), expected.len() / 2 + 64);
        // the signed bytes name the carrier
        let received = Received::decode(&bytes).unwrap();
        let signed = received.signed(OriginId(0x1122_3344_5566_7788));
        assert_eq!(&signed[..DOMAIN.len()], DOMAIN);
        assert_eq!(&signed[DOMAIN.len()..][..2], [0x11, 0x22]);
        assert_eq!(&signed[DOMAIN.len() + 8..], &bytes[..bytes.len() - 64]);
        assert_eq!(id_of(&received.signature), id);
        assert_eq!(received.request, request());
        let answer = encode_answer(0x0102_0304_0506_0708, Answer::NotJoined);
        assert_eq!(*answer, [1, 1, 2, 3, 4, 5, 6, 7, 8, 4]);
    }

    #[test]
    fn answers_come_back() {
        for answer in Answer::ALL {
            let bytes = encode_answer(7, answer);
            assert_eq!(decode_answer(&bytes).unwrap(), (7, answer));
        }
        assert!(decode_answer(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 5]).is_err());
        assert!(decode_answer(&[2, 0, 0, 0, 0, 0, 0, 0, 0, 0]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Received::decode(&bytes);
            let _ = decode_answer(&bytes);
        }

        #[test]
        fn cut_requests_are_refused(cut in 1usize..100) {
            let (bytes, _) = request().encode(OriginId(1), sign);
            prop_assert!(Received::decode(&bytes[..bytes.len() - cut.min(bytes.len())]).is_err());
        }

        #[test]
        fn requests_come_back(
            incarnation: u32, sequence: u32,
            parts in proptest::collection::vec((any::<u128>(), 16u8..=128), 0..=MAX_PARTS),
        ) {
            let parts = parts.into_iter().filter_map(|(bits, len)| {
                GroupPrefix::around(Ipv6Addr::from_bits(bits | 0xff << 120), len)
            });
            let request = CarryRequest { incarnation, sequence, parts: parts.collect() };
            let (bytes, _) = request.encode(OriginId(9), sign);
            prop_assert_eq!(Received::decode(&bytes).unwrap().request, request);
        }
    }
}
