//! A packet of sound, after all checks.

use librecast::time::Instant;

/// A packet of sound of the session that is heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SoundPacket {
    /// Whose: each caster has a buffer, a decoder and a recording of its own.
    pub caster: u8,
    /// Counts the sessions of a listener: another number, another caster or run of it.
    pub session: u32,
    /// Number of the packet; the next one has the next number.
    pub index: u64,
    /// Of its first sample, at 48 kHz, extended to 64 bits.
    pub timestamp: u64,
    /// How long it is, in samples at 48 kHz.
    pub samples: u32,
    /// Opus.
    pub payload: Vec<u8>,
    /// When it came.
    pub arrival: Instant,
}
