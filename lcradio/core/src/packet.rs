//! A packet of sound, after all checks.

use librecast::time::Instant;

/// A packet of sound of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SoundPacket {
    /// The caster: each has its own buffer, decoder and recording.
    pub caster: u8,
    /// Counts the sessions of a listener: another caster or run has another number.
    pub session: u32,
    /// Number of the packet; the next one has the next number.
    pub index: u64,
    /// Timestamp of its first sample, at 48 kHz, extended to 64 bits.
    pub timestamp: u64,
    /// Its length, in samples at 48 kHz.
    pub samples: u32,
    /// Opus.
    pub payload: Vec<u8>,
    /// Its arrival.
    pub arrival: Instant,
}
