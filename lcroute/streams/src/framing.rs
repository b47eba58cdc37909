//! Frames of streams in `lcroute/2`: their end carries its reason.
//!
//! frame = length 32 (1 or more) | bytes
//! end = 0 32 | kind 8 (0 finished | 1 exited | 2 killed | 3 broke off)
//!       | number 8 (of 1: the exit code, of 2: the signal, else 0)

use librecast::stream::End;
use librecast::wire::WireError;

/// Bytes of a frame's head.
pub const HEAD_LEN: usize = 4;
/// Bytes of an end.
pub const END_LEN: usize = HEAD_LEN + 2;

/// Code of [`End::Finished`]: as all these, the byte behind an empty head (docs/protocol.md §11).
const FINISHED: u8 = 0;
/// Code of [`End::Exited`].
const EXITED: u8 = 1;
/// Code of [`End::Killed`].
const KILLED: u8 = 2;
/// Code of [`End::Reset`].
const BROKE_OFF: u8 = 3;

/// Returns the head of a frame of `length` bytes, which is far below 4 GiB.
pub fn head(length: usize) -> [u8; HEAD_LEN] {
    (length as u32).to_be_bytes()
}

/// Returns the end of one direction.
pub fn end(end: End) -> [u8; END_LEN] {
    let (kind, number) = match end {
        End::Finished => (FINISHED, 0),
        End::Exited(code) => (EXITED, code),
        End::Killed(signal) => (KILLED, signal),
        End::Reset => (BROKE_OFF, 0),
    };
    [0, 0, 0, 0, kind, number]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Bytes of the program, at least one.
    Bytes(&'a [u8]),
    /// The end of the direction.
    End(End),
}

/// Decoder of frames from chunks of any size. It stores only the bytes of a head.
#[derive(Debug, Default)]
pub struct Frames {
    /// Missing bytes of the present frame.
    left: usize,
    head: [u8; END_LEN],
    known: usize,
}

impl Frames {
    /// Removes the next piece from the front of `chunk`; none if it is incomplete.
    ///
    /// # Errors
    /// The end has an unknown kind.
    pub fn next<'a>(&mut self, chunk: &mut &'a [u8]) -> Result<Option<Piece<'a>>, WireError> {
        while !chunk.is_empty() {
            if self.left > 0 {
                let (bytes, rest) = chunk.split_at(self.left.min(chunk.len()));
                *chunk = rest;
                self.left -= bytes.len();
                return Ok(Some(Piece::Bytes(bytes)));
            }
            let (byte, rest) = (chunk[0], &chunk[1..]);
            *chunk = rest;
            self.head[self.known] = byte;
            self.known += 1;
            let [a, b, c, d, kind, number] = self.head;
            let length = u32::from_be_bytes([a, b, c, d]) as usize;
            if self.known == HEAD_LEN && length > 0 {
                (self.left, self.known) = (length, 0);
            } else if self.known == END_LEN {
                self.known = 0;
                return match (kind, number) {
                    (FINISHED, 0) => Ok(Some(Piece::End(End::Finished))),
                    (EXITED, code) => Ok(Some(Piece::End(End::Exited(code)))),
                    (KILLED, signal) => Ok(Some(Piece::End(End::Killed(signal)))),
                    (BROKE_OFF, 0) => Ok(Some(Piece::End(End::Reset))),
                    _ => Err(WireError::Bad("end")),
                };
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ENDS: [End; 4] = [End::Finished, End::Exited(3), End::Killed(9), End::Reset];

    #[test]
    fn golden_bytes() {
        assert_eq!(head(0x1_0203), [0, 1, 2, 3]);
        assert_eq!(
            ENDS.map(end).concat(),
            b"\0\0\0\0\0\0\0\0\0\0\x01\x03\0\0\0\0\x02\x09\0\0\0\0\x03\0"
        );
        let mut unknown = &[0, 0, 0, 0, 4, 0][..];
        assert_eq!(
            Frames::default().next(&mut unknown),
            Err(WireError::Bad("end"))
        );
    }

    proptest! {
        #[test]
        fn frames_are_whole_however_they_are_cut(
            parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..5),
            cut in 1..50_usize,
            last in 0..4_usize,
        ) {
            let mut bytes = Vec::new();
            for part in &parts {
                bytes.extend(head(part.len()));
                bytes.extend(part);
            }
            bytes.extend(end(ENDS[last]));
            let (mut frames, mut got, mut ended) = (Frames::default(), Vec::new(), None);
            for mut chunk in bytes.chunks(cut) {
                while let Some(piece) = frames.next(&mut chunk).unwrap() {
                    prop_assert_eq!(ended, None);
                    match piece {
                        Piece::Bytes(bytes) => got.extend_from_slice(bytes),
                        Piece::End(end) => ended = Some(end),
                    }
                }
            }
            prop_assert_eq!(got, parts.concat());
            prop_assert_eq!(ended, Some(ENDS[last]));
        }

        #[test]
        fn any_bytes_are_taken_apart_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let (mut frames, mut rest) = (Frames::default(), &bytes[..]);
            while let Ok(Some(_)) = frames.next(&mut rest) {}
        }
    }
}
