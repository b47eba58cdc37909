//! Messages of TURN in a byte stream (RFC 8656, section 12.5; RFC 8489, section 6.2.2).
//!
//! ```text
//! STUN:        00...... ........ length 16 | cookie, transaction 16 | length bytes, multiple of 4
//! ChannelData: 0100.... ........ length 16 | length bytes | padding to a multiple of 4
//! ```

use bytes::{Bytes, BytesMut};
use thiserror::Error;

/// Bound of a message in bytes: more than any path carries in a datagram.
pub(super) const MAX_FRAME: usize = 16 << 10;
/// Bytes of the header of ChannelData (RFC 8656 12.4).
const HEADER: usize = 4;
/// Bytes of the header of a STUN message (RFC 8489 5).
const STUN_HEADER: usize = 20;
/// First bytes of ChannelData.
pub(crate) const CHANNELS: std::ops::RangeInclusive<u8> = 0x40..=0x4f;

/// Whether a stream with this first byte is TURN, not HTTP.
pub fn is_relay_stream(first: u8) -> bool {
    first <= 3
}

/// The stream is no TURN: the rest is unreadable.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("no TURN message, or one that is too long")]
pub struct BadFrame;

/// Cuts a stream into messages, in their form as datagrams.
#[derive(Debug, Default)]
pub struct Framer {
    buffer: BytesMut,
}

impl Framer {
    /// Adds bytes of the stream; empty [`Self::poll_frame`] first, to bound the buffer.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next message, if it is complete.
    ///
    /// # Errors
    /// The stream must be closed.
    pub fn poll_frame(&mut self) -> Result<Option<Bytes>, BadFrame> {
        let Some(&[first, _, high, low]) = self.buffer.first_chunk() else {
            return match self.buffer.first() {
                Some(first) if !is_relay_stream(*first) && !CHANNELS.contains(first) => {
                    Err(BadFrame)
                }
                _ => Ok(None),
            };
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (message, whole) = match first {
            0..=3 if length.is_multiple_of(4) => (STUN_HEADER + length, STUN_HEADER + length),
            first if CHANNELS.contains(&first) => {
                (HEADER + length, HEADER + length.next_multiple_of(4))
            }
            _ => return Err(BadFrame),
        };
        if whole > MAX_FRAME {
            return Err(BadFrame);
        }
        if self.buffer.len() < whole {
            return Ok(None);
        }
        let mut frame = self.buffer.split_to(whole);
        frame.truncate(message);
        Ok(Some(frame.freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frames(framer: &mut Framer) -> Vec<Bytes> {
        std::iter::from_fn(|| framer.poll_frame().unwrap()).collect()
    }

    #[test]
    fn both_kinds_are_cut_as_the_rfc_says() {
        let mut framer = Framer::default();
        let binding = [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[7; 12]].concat();
        framer.push(&binding);
        // five bytes for channel 0x4001, and three of padding
        framer.push(&[0x40, 1, 0, 5, 1, 2, 3, 4, 5, 0, 0, 0]);
        framer.push(&[0x4f, 0xff, 0, 4, 9, 9, 9, 9, 0x40]);
        let cut = frames(&mut framer);
        assert_eq!(cut[0], binding);
        assert_eq!(cut[1][..], [0x40, 1, 0, 5, 1, 2, 3, 4, 5]);
        assert_eq!(cut[2][..], [0x4f, 0xff, 0, 4, 9, 9, 9, 9]);
        assert_eq!(cut.len(), 3);
    }

    #[test]
    fn what_is_no_turn_or_too_long_ends_the_stream() {
        for bad in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"P",
            &[0x16, 3, 1, 0],
            &[0x50, 0, 0, 0],
            &[0, 1, 0, 3],
            &[0x40, 0, 0xff, 0xff],
            &[0, 1, 0xff, 0xfc],
        ] {
            let mut framer = Framer::default();
            framer.push(bad);
            assert_eq!(framer.poll_frame(), Err(BadFrame), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn messages_come_out_whole_however_the_stream_is_cut(
            messages in prop::collection::vec((any::<bool>(), 0_u8..16, prop::collection::vec(any::<u8>(), 0..300)), 0..8),
            step in 1_usize..64,
        ) {
            let mut stream = Vec::new();
            let mut expected = Vec::new();
            for (stun, kind, mut content) in messages {
                let mut message = if stun {
                    content.resize(content.len().next_multiple_of(4), 0);
                    vec![kind & 3, 1]
                } else {
                    vec![0x40 | kind, 1]
                };
                message.extend(u16::try_from(content.len()).unwrap().to_be_bytes());
                if stun {
                    message.extend([0; 16]);
                }
                message.extend(&content);
                expected.push(message.clone());
                message.resize(message.len().next_multiple_of(4), 0);
                stream.extend(message);
            }
            let mut framer = Framer::default();
            let mut cut = Vec::new();
            for piece in stream.chunks(step) {
                framer.push(piece);
                cut.extend(frames(&mut framer).into_iter().map(|f| f.to_vec()));
            }
            prop_assert_eq!(cut, expected);
            prop_assert!(framer.buffer.is_empty());
        }

        #[test]
        fn arbitrary_bytes_never_panic_nor_pile_up(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..50)) {
            let mut framer = Framer::default();
            for piece in pieces {
                framer.push(&piece);
                while let Ok(Some(frame)) = framer.poll_frame() {
                    prop_assert!(frame.len() <= MAX_FRAME);
                }
                if framer.poll_frame().is_err() {
                    break;
                }
                prop_assert!(framer.buffer.len() < MAX_FRAME);
            }
        }
    }
}
