//! The media lane, `/lcroute/media/1`: data and control messages in RTP under SRTP, beside the data
//! channels in the same ICE and DTLS, without SCTP and its stalls.
//!
//! | file | content |
//! |---|---|
//! | `lane` | one link's lane: the path of a message in and out; also as a track into a page |
//! | `keys` | SRTP keys from the link's DTLS (RFC 5764, RFC 3711) |
//! | `srtp` | sealing and opening packets (RFC 7714), replay windows |
//! | `payload` | messages in packets, whole or in pieces |
//! | `feedback` | RTCP reports of arrivals |
//! | `congestion` | how much may be in flight |
//! | `path_mtu` | the longest datagram of the path |
//! | `reliable` | control messages: reliable, in order |
//! | `queue`, `codel` | which messages wait, and for how long |
//! | `repair` | when a payload is resent, or coded in a symbol |
//! | `history` | recently sent packets |
//! | `recovery` | repaired packets: once, and in time |
//! | `window_code` | symbols over the last packets, and solving for lost ones |
//!
//! ```text
//! RTP packet, one UDP datagram of at most the lane's limit:
//!   0x80 | marker 1, 96 | sequence 16, timestamp 32: index | SSRC 32     12 bytes, authenticated
//!   payload (see payload.rs)                                             encrypted
//!   tag                                                                  16 bytes
//!
//! RTCP packet, 20 ms or 256 packets after the last while packets come, and at once after a marker:
//!   0x81 | 204 | length 16 | SSRC 32                                     8 bytes, authenticated
//!   report (see feedback.rs)                                             encrypted
//!   tag 16 bytes | 1 bit, SRTCP index 31                                 authenticated
//! ```
//!
//! The index counts up from 0 in each direction. Keys are those of AEAD_AES_128_GCM from
//! "EXTRACTOR-dtls_srtp". The SSRC of a direction is the first 32 bits of its key derivation under
//! label 0x80: both sides know it, so it finds a link at an unknown address.
//!
//! A packet of lc0 (1,280 bytes) needs 32 of data header, 2 of chunk, 12 and 16 of SRTP: 1,342 in
//! UDP, 1,390 in IPv6, 110 below an Ethernet path. Small messages share packets.

mod codel;
mod congestion;
mod history;
mod keys;
mod lane;
mod path_mtu;
mod queue;
mod reliable;
mod repair;
mod sealing;
#[cfg(test)]
mod simulation;
mod srtp;

#[cfg(test)]
pub(crate) use keys::Forge;
pub(crate) use keys::{KeyTap, LinkKeys, TrackKeys};
pub(crate) use lane::Media;
pub(crate) use queue::Dropped;
pub(crate) use srtp::{is_rtcp, ssrc_of};
