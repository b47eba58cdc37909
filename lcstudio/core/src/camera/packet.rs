//! Packets of the track `camera`, at most 1,143 bytes, sealed as those of the entry log.
//!
//! ```text
//! signature 64 | version 1 = 17 | flags 1 | run 8 | number 4 | base 4 | time 4      a state: to base, each second
//!   | length 3 | piece 1 | bytes <= 1000                                            a piece of a frame
//! flags  1 ended | 2 a key frame | 4 no later frame depends on it | 8 of a state: there is a large picture
//! ```
//!
//! Version 18 is the large picture, whose frames have numbers of their own; its state goes to large.
//!
//! `run` is the time at which the sender began, in milliseconds since 1970, and `time` that of the
//! frame since then. `number` counts frames from 1, `base` those on which others depend. In a state
//! they are those of the last frame.
//!
//! The length of a frame determines its `k` pieces: all have the same length, but the last one has
//! no zeros at its end. From piece `k` on, they are parities ([`librecast::parity`]).

use std::net::Ipv6Addr;

use librecast::id::{PeerId, SecretKey};
use librecast_log::{Seal, Space};

use super::layers::{CameraSize, Layer};
use crate::drops::DropReason;
use crate::signed::{read_head, sign, write_head};

/// Context of signatures (docs/protocol.md §1).
pub(super) const CONTEXT: &str = "lcstudio 2026 camera";

/// Version of contents; the entry log and screens have other first bytes there.
const VERSION: u8 = 17;
/// Version of contents of the large picture.
const LARGE_VERSION: u8 = 18;

/// Bytes of the longest piece. Chosen: as in the entry log, within 1,280.
const PIECE: usize = 1_000;
/// Pieces of the longest frame, without parities.
const MAX_PIECES: usize = 64;
/// Bytes of the longest frame.
pub const MAX_FRAME: usize = MAX_PIECES * PIECE;

/// Flag: the sender has ended.
const ENDED: u8 = 1;
/// Flag of a piece: its frame needs no other one.
const KEY: u8 = 2;
/// Flag of a piece: no later frame depends on its frame.
const SMOOTH: u8 = 4;
/// Flag of a state: there is a large picture in a group of its own.
const HAS_LARGE: u8 = 8;

/// Lengths of a frame and its pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lengths {
    /// Of the frame.
    pub frame: usize,
    /// Count of its pieces, without parities.
    pub pieces: usize,
    /// Of each piece but the last one, and of each parity.
    pub piece: usize,
}

impl Lengths {
    /// Of a frame of 1 to [`MAX_FRAME`] bytes.
    pub(super) fn of(frame: usize) -> Self {
        let pieces = frame.div_ceil(PIECE).max(1);
        Self {
            frame,
            pieces,
            piece: frame.div_ceil(pieces),
        }
    }

    /// Of this piece, or parity.
    pub(super) fn of_piece(self, at: usize) -> usize {
        match at + 1 == self.pieces {
            true => self.frame - at * self.piece,
            false => self.piece,
        }
    }
}

/// A piece of a frame, or a parity of its pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Whether the frame needs no other one.
    pub is_key: bool,
    /// Whether later frames depend on it.
    pub is_base: bool,
    /// Length of the frame.
    pub length: u32,
    /// Number of the piece, from 0; from the count of pieces on, parities.
    pub piece: u8,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Piece {
    pub(super) fn lengths(&self) -> Lengths {
        Lengths::of(self.length as usize)
    }
}

/// A packet of the track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CameraPacket {
    /// The picture that it is of.
    pub size: CameraSize,
    /// Time at which the sender began, in milliseconds since 1970.
    pub run: u64,
    /// Number of the frame, or of the last one.
    pub number: u32,
    /// Number of the frame among those on which others depend, or of the last of them before it.
    pub base: u32,
    /// Time of the frame since the sender began, in milliseconds.
    pub time: u32,
    /// The sender has ended.
    pub has_ended: bool,
    /// Whether there is a large picture. A state tells it.
    pub has_large: bool,
    /// A piece of a frame.
    pub piece: Option<Piece>,
}

impl CameraPacket {
    /// Returns its contents without the signature.
    fn message(&self) -> Vec<u8> {
        let piece = self.piece.as_ref();
        let flags = [
            (self.has_ended, ENDED),
            (piece.is_some_and(|piece| piece.is_key), KEY),
            (piece.is_some_and(|piece| !piece.is_base), SMOOTH),
            (self.has_large && piece.is_none(), HAS_LARGE),
        ];
        let version = match self.size {
            CameraSize::Small => VERSION,
            CameraSize::Large => LARGE_VERSION,
        };
        let mut w = write_head(version, &flags, self.run);
        w.u32(self.number).u32(self.base).u32(self.time);
        if let Some(piece) = piece {
            let [_, length @ ..] = piece.length.to_be_bytes();
            w.put(&length).u8(piece.piece).put(&piece.bytes);
        }
        w.into_vec()
    }

    /// Returns its contents, signed.
    #[must_use]
    pub fn sign(&self, key: &SecretKey) -> Vec<u8> {
        sign(CONTEXT, key, &self.message())
    }

    /// Decodes contents; the signature is verified apart, as that costs more.
    pub fn decode(contents: &[u8]) -> Result<Self, DropReason> {
        let (head, mut r) = read_head(contents, &[VERSION, LARGE_VERSION])?;
        let flags = head.flags;
        let (number, base, time) = (r.u32()?, r.u32()?, r.u32()?);
        let piece = match r.is_empty() {
            true => None,
            false => {
                let [a, b, c] = r.array()?;
                Some(Piece {
                    is_key: flags & KEY != 0,
                    is_base: flags & SMOOTH == 0,
                    length: u32::from_be_bytes([0, a, b, c]),
                    piece: r.u8()?,
                    bytes: r.rest().to_vec(),
                })
            }
        };
        let packet = Self {
            size: match head.version {
                LARGE_VERSION => CameraSize::Large,
                _ => CameraSize::Small,
            },
            run: head.run,
            number,
            base,
            time,
            has_ended: flags & ENDED != 0,
            has_large: flags & HAS_LARGE != 0 && piece.is_none(),
            piece,
        };
        packet.check()?;
        Ok(packet)
    }

    /// Checks the bounds of a piece, before anything is stored.
    fn check(&self) -> Result<(), DropReason> {
        let Some(piece) = &self.piece else {
            return Ok(());
        };
        if piece.length as usize > MAX_FRAME {
            return Err(DropReason::FrameTooLong);
        }
        let lengths = piece.lengths();
        let at = usize::from(piece.piece);
        // as many parities as pieces
        if at >= 2 * lengths.pieces {
            return Err(DropReason::TooManyParts);
        }
        let is_order = self.base > 0 && self.base <= self.number;
        let is_length = piece.length > 0 && piece.bytes.len() == lengths.of_piece(at);
        let is_kind = piece.is_base || !piece.is_key && at < lengths.pieces;
        match is_order && is_length && is_kind {
            true => Ok(()),
            false => Err(DropReason::WrongPart),
        }
    }
}

/// The groups of the camera of a session, and the seal of its packets.
#[derive(Debug)]
pub struct CameraSpace {
    pub(super) owner: PeerId,
    pub(super) seal: Seal,
    groups: Ipv6Addr,
}

impl CameraSpace {
    /// Bits that all groups of a camera have in common.
    pub const PREFIX: u8 = 125;

    /// The space of the track, as the index names it.
    #[must_use]
    pub fn new(space: &Space) -> Self {
        let group = u128::from(space.group());
        Self {
            owner: space.owner(),
            seal: Seal::new(space),
            groups: Ipv6Addr::from(group & !7),
        }
    }

    /// The group of a layer.
    pub fn group(&self, layer: Layer) -> Ipv6Addr {
        let last = match layer {
            Layer::Base => 0,
            Layer::Repair => 1,
            Layer::Smooth => 2,
            Layer::Large => 4,
            Layer::LargeRepair => 5,
        };
        Ipv6Addr::from(u128::from(self.groups) | last)
    }
}
