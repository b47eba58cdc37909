//! Observer of a connection, beyond the interface of `rtc-dtls`.

use std::fmt;

pub use dimpl::{ProtocolVersion, SrtpProfile};

/// SRTP keys of a handshake (RFC 5764 4.2).
pub struct SrtpKeys<'a> {
    /// Version of DTLS.
    pub version: ProtocolVersion,
    /// Protection profile of packets.
    pub profile: SrtpProfile,
    /// Master keys of client and server, then their salts.
    pub material: &'a [u8],
    /// Whether this end is the client.
    pub is_client: bool,
}

/// Observer of one connection.
pub trait Observer: Send + Sync {
    /// Returns the seed of public randomness: randoms of hellos, retry times, nonces of DTLS 1.2.
    /// The ends of a connection have different seeds. `None` uses the system's, as keys always do.
    fn seed(&self) -> Option<u64>;

    /// Handles the end of the handshake; the peer's certificate has been verified.
    fn handle_keys(&self, keys: &SrtpKeys<'_>);

    /// Whether the caller receives the plaintext of a record from the peer.
    fn admits(&self, plain: &[u8]) -> bool;

    /// Handles, and may change, the plaintext of a record before it is sealed.
    fn seal(&self, plain: &mut [u8]);
}

impl fmt::Debug for SrtpKeys<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SrtpKeys({:?}, {:?})", self.version, self.profile)
    }
}
