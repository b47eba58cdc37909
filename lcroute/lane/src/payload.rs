//! Content of a media packet: messages, whole or in pieces.
//!
//! ```text
//! payload = chunk, chunk, ... to the end
//! chunk   = kind 2 bits | length 14 bits | as many bytes
//! kind 0: one message, at least a byte
//! kind 1: a piece of one: message id 16 | piece 8 | last piece 8 | bytes
//! kind 2: first index 32: the chunks behind it were first sent in that packet
//! kind 3: a repair symbol (see window_code.rs)
//! ```
//!
//! Pieces of a message have one size, except the last, which may be shorter; a message of more than
//! [`MAX_PIECES`] takes the data channel.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes of a chunk's header.
pub const CHUNK_HEADER: usize = 2;
/// Further header bytes of a piece.
pub const PIECE_HEADER: usize = 4;
/// Bound of pieces of a message.
pub const MAX_PIECES: usize = 16;
/// Bound of incomplete messages; the oldest makes room. 50 Mbit/s in messages of two pieces that
/// overtake each other by 30 ms have 150.
const MAX_PARTIAL: usize = 256;
/// Bound of the bytes of incomplete messages: 32 of 16 pieces of 1,200 bytes.
const MAX_PARTIAL_BYTES: usize = 32 * MAX_PIECES * 1_200;

/// Kind of a chunk, in the top bits of its header: a whole message.
const WHOLE: u16 = 0;
/// A piece of a message.
const PIECE: u16 = 1;
/// A resent payload.
pub const RESENT: u16 = 2;
/// A repair symbol.
pub const SYMBOL: u16 = 3;
/// Bytes of a chunk that announces a resent payload.
const RESENT_SIZE: usize = 4;

/// One chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chunk {
    Whole(Bytes),
    Piece {
        message: u16,
        piece: u8,
        last: u8,
        bytes: Bytes,
    },
    /// The following chunks were first sent in the packet with these low index bits.
    Resent(u32),
    /// A repair symbol.
    Symbol(Bytes),
}

/// Appends a message as a chunk. It must be shorter than 16,384 bytes.
pub fn put_whole(packet: &mut BytesMut, parts: [&[u8]; 2]) {
    packet.put_slice(&header(WHOLE, parts[0].len() + parts[1].len()));
    packet.put_slice(parts[0]);
    packet.put_slice(parts[1]);
}

/// Appends a piece of a message.
pub fn put_piece(packet: &mut BytesMut, message: u16, piece: u8, last: u8, parts: [&[u8]; 2]) {
    packet.put_slice(&header(
        PIECE,
        PIECE_HEADER + parts[0].len() + parts[1].len(),
    ));
    packet.put_u16(message);
    packet.put_slice(&[piece, last]);
    packet.put_slice(parts[0]);
    packet.put_slice(parts[1]);
}

/// Announces that the following chunks were first sent in packet `index`.
pub fn put_resent(packet: &mut BytesMut, index: u64) {
    packet.put_slice(&header(RESENT, RESENT_SIZE));
    packet.put_u32(index as u32);
}

/// Begins a repair symbol of `length` bytes, which must follow.
pub fn put_symbol_header(packet: &mut BytesMut, length: usize) {
    packet.put_slice(&header(SYMBOL, length));
}

/// Returns the kind of the first chunk: [`RESENT`] or [`SYMBOL`] in a packet for repair.
pub fn kind_of(payload: &[u8]) -> u16 {
    payload.first().map_or(WHOLE, |first| u16::from(first >> 6))
}

fn header(kind: u16, length: usize) -> [u8; CHUNK_HEADER] {
    debug_assert!(length < 1 << 14);
    // a datagram is shorter than a chunk may be
    (kind << 14 | u16::try_from(length).unwrap_or_default() & 0x3fff).to_be_bytes()
}

/// Takes the next chunk; `None` at the end.
pub fn take(payload: &mut Bytes) -> Result<Option<Chunk>, ()> {
    if !payload.has_remaining() {
        return Ok(None);
    }
    let word = payload.try_get_u16().map_err(|_| ())?;
    let length = usize::from(word & 0x3fff);
    if payload.len() < length || length == 0 {
        return Err(());
    }
    let mut bytes = payload.split_to(length);
    Ok(Some(match word >> 14 {
        WHOLE => Chunk::Whole(bytes),
        PIECE if bytes.len() > PIECE_HEADER => Chunk::Piece {
            message: bytes.get_u16(),
            piece: bytes.get_u8(),
            last: bytes.get_u8(),
            bytes,
        },
        RESENT if bytes.len() == RESENT_SIZE => Chunk::Resent(bytes.get_u32()),
        SYMBOL => Chunk::Symbol(bytes),
        _ => return Err(()),
    }))
}

/// Reassembles messages: at most [`MAX_PARTIAL`], of [`MAX_PIECES`] pieces, with
/// [`MAX_PARTIAL_BYTES`] in all.
#[derive(Debug, Default)]
pub struct Reassembly {
    partial: VecDeque<Partial>,
    bytes: usize,
}

#[derive(Debug)]
struct Partial {
    message: u16,
    last: u8,
    missing: u32,
    pieces: [Option<Bytes>; MAX_PIECES],
}

/// Result of a piece.
#[derive(Debug, PartialEq, Eq)]
pub enum Pieced {
    Waiting,
    Complete(Bytes),
    /// An older message lost its place to this one.
    Displaced,
    /// Contradicts itself, or earlier pieces.
    Malformed,
}

impl Reassembly {
    /// Handles a piece.
    pub fn handle(&mut self, message: u16, piece: u8, last: u8, bytes: &[u8]) -> Pieced {
        let (slot, pieces) = (usize::from(piece), usize::from(last) + 1);
        if slot >= pieces || !(2..=MAX_PIECES).contains(&pieces) {
            return Pieced::Malformed;
        }
        let known = self.partial.iter().rposition(|p| p.message == message);
        let at = known.unwrap_or_else(|| {
            self.partial.push_back(Partial {
                message,
                last,
                missing: u32::from(last) + 1,
                pieces: Default::default(),
            });
            self.partial.len() - 1
        });
        let partial = &mut self.partial[at];
        if partial.last != last || partial.pieces[slot].is_some() {
            return Pieced::Malformed;
        }
        // a copy: the input shares its buffer with about forty packets, and may wait long
        partial.pieces[slot] = Some(Bytes::copy_from_slice(bytes));
        partial.missing -= 1;
        self.bytes += bytes.len();
        if partial.missing > 0 {
            return match self.make_room() {
                true => Pieced::Displaced,
                false => Pieced::Waiting,
            };
        }
        let whole = self.partial.remove(at).map(|p| p.join());
        self.bytes -= whole.as_ref().map_or(0, Bytes::len);
        whole.map_or(Pieced::Malformed, Pieced::Complete)
    }

    /// Removes the oldest messages beyond the bounds; returns whether there were any.
    fn make_room(&mut self) -> bool {
        let before = self.partial.len();
        while self.partial.len() > MAX_PARTIAL || self.bytes > MAX_PARTIAL_BYTES {
            let Some(oldest) = self.partial.pop_front() else {
                break;
            };
            self.bytes -= oldest
                .pieces
                .iter()
                .flatten()
                .map(Bytes::len)
                .sum::<usize>();
        }
        self.partial.len() < before
    }
}

impl Partial {
    fn join(self) -> Bytes {
        let pieces: Vec<_> = self.pieces.into_iter().flatten().collect();
        pieces.concat().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(payload: BytesMut) -> Result<Vec<Chunk>, ()> {
        let (mut payload, mut chunks) = (payload.freeze(), Vec::new());
        while let Some(chunk) = take(&mut payload)? {
            chunks.push(chunk);
        }
        Ok(chunks)
    }

    #[test]
    fn golden_bytes() {
        let mut p = BytesMut::new();
        put_whole(&mut p, [b"ab", b"c"]);
        put_piece(&mut p, 0x1234, 1, 2, [b"xy", b"z"]);
        let golden = b"\x00\x03abc\x40\x07\x12\x34\x01\x02xyz";
        assert_eq!(p[..], golden[..]);
        let piece = Chunk::Piece {
            message: 0x1234,
            piece: 1,
            last: 2,
            bytes: "xyz".into(),
        };
        assert_eq!(all(p).unwrap(), [Chunk::Whole("abc".into()), piece]);
    }

    #[test]
    fn golden_bytes_of_repair() {
        let mut p = BytesMut::new();
        put_resent(&mut p, 0x1_2345_6789);
        put_symbol_header(&mut p, 2);
        assert_eq!([kind_of(&p), kind_of(&p[6..])], [RESENT, SYMBOL]);
        p.put_slice(b"xy");
        assert_eq!(p[..], b"\x80\x04\x23\x45\x67\x89\xc0\x02xy"[..]);
        let chunks = [Chunk::Resent(0x2345_6789), Chunk::Symbol("xy".into())];
        assert_eq!(all(p).unwrap(), chunks);
        assert!(all(b"\x80\x02zz"[..].into()).is_err());
    }

    #[test]
    fn the_oldest_partial_message_makes_room() {
        let mut r = Reassembly::default();
        for message in 0..256 {
            assert_eq!(r.handle(message, 0, 1, b"a"), Pieced::Waiting);
        }
        assert_eq!(r.handle(256, 0, 1, b"a"), Pieced::Displaced);
        assert_eq!(r.handle(255, 1, 1, b"b"), Pieced::Complete("ab".into()));
        assert_eq!(r.handle(256, 0, 1, b"a"), Pieced::Malformed);
        assert_eq!(r.handle(256, 1, 2, b"a"), Pieced::Malformed);
        assert_eq!(r.handle(9, 2, 1, b"a"), Pieced::Malformed);
        assert_eq!(r.handle(9, 0, 16, b"a"), Pieced::Malformed);
        assert_eq!(r.handle(9, 0, 0, b"a"), Pieced::Malformed);
        assert_eq!((r.partial.len(), r.bytes), (255, 255));
    }

    #[test]
    fn long_pieces_make_room_sooner() {
        let (mut r, piece) = (Reassembly::default(), [0; 9_000]);
        let displaced = (0..256).filter(|message| {
            let pieced = (0..15).map(|n| r.handle(*message, n, 15, &piece));
            pieced.fold(false, |any, pieced| any | (pieced == Pieced::Displaced))
        });
        assert!(displaced.count() > 200);
        assert!((MAX_PARTIAL_BYTES - 135_000..=MAX_PARTIAL_BYTES).contains(&r.bytes));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut r = Reassembly::default();
            for chunk in all(bytes[..].into()).into_iter().flatten() {
                if let Chunk::Piece { message, piece, last, bytes } = chunk {
                    r.handle(message, piece, last, &bytes);
                }
            }
            let bytes = r.partial.iter().flat_map(|p| p.pieces.iter().flatten());
            prop_assert_eq!(r.bytes, bytes.map(Bytes::len).sum::<usize>());
        }

        #[test]
        fn messages_come_back(messages in prop::collection::vec(
            prop::collection::vec(any::<u8>(), 1..100), 0..10)) {
            let mut p = BytesMut::new();
            for message in &messages {
                let (a, b) = message.split_at(message.len() / 2);
                put_whole(&mut p, [a, b]);
            }
            let got = all(p).unwrap();
            let whole = messages.into_iter().map(|m| Chunk::Whole(m.into())).collect::<Vec<_>>();
            prop_assert_eq!(got, whole);
        }

        #[test]
        fn pieces_in_any_order_make_the_message(
            order in Just((0..16_u8).collect::<Vec<_>>()).prop_shuffle(), last in 1_u8..16) {
            let mut r = Reassembly::default();
            let mut whole = None;
            for piece in order.into_iter().filter(|piece| *piece <= last) {
                match r.handle(7, piece, last, &[piece; 3]) {
                    Pieced::Complete(message) => whole = Some(message),
                    other => prop_assert_eq!(other, Pieced::Waiting),
                }
            }
            let expected: Vec<u8> = (0..=last).flat_map(|n| [n; 3]).collect();
            prop_assert_eq!(whole, Some(expected.into()));
        }
    }
}
