//! What the owner of a connection learns beside what the interface of `rtc-dtls` has room for.

use std::fmt;

pub use dimpl::{ProtocolVersion, SrtpProfile};

/// The keys that a handshake has made for SRTP (RFC 5764 4.2).
pub struct SrtpKeys<'a> {
    /// Version of DTLS.
    pub version: ProtocolVersion,
    /// How packets are to be sealed.
    pub profile: SrtpProfile,
    /// Master keys of client and server, then their salts.
    pub material: &'a [u8],
    /// Whether this end is the client.
    pub is_client: bool,
}

/// Sees what goes through one connection.
pub trait Observer: Send + Sync {
    /// For what is random and no secret: the randoms of hellos, times of repetitions, nonces of DTLS 1.2. Ends of one
    /// connection have seeds of their own. None: from the system, as keys are always.
    fn seed(&self) -> Option<u64>;

    /// The handshake is over, and the far side has the certificate that was to be expected.
    fn handle_keys(&self, keys: &SrtpKeys<'_>);

    /// Whether the caller of the connection gets a record's plain text, which the far side has sealed.
    fn admits(&self, plain: &[u8]) -> bool;

    /// The plain text of a record that is about to be sealed.
    fn seal(&self, plain: &mut [u8]);
}

impl fmt::Debug for SrtpKeys<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SrtpKeys({:?}, {:?})", self.version, self.profile)
    }
}
