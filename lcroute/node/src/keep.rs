//! What a node learns and must not forget: its owner stores it.

use std::fmt;
use std::net::Ipv4Addr;

use librecast::cert::Chain;
use librecast::revocation::Revocation;
use zeroize::Zeroizing;

/// The text of [`crate::Epochs`], which debug output does not show.
#[derive(Clone)]
pub struct EpochsText(pub Zeroizing<String>);

impl fmt::Debug for EpochsText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EpochsText")
    }
}

/// Something to keep.
#[derive(Debug, Clone)]
pub enum Keep {
    /// This node's renewed certificates.
    Chain(Chain),
    /// A run of this node goes, or went, by this incarnation: the next goes by a later one.
    Incarnation(u32),
    /// This node's IPv4 address: the next run asks for the same.
    Ipv4Address(Ipv4Addr),
    /// A key was revoked.
    Revocation(Box<Revocation>),
    /// The rendezvous epochs that this node knows, as text: secrets.
    Epochs(EpochsText),
    /// The list of members as text.
    Members(String),
    /// Who has come by tokens that are for so many, as text.
    Uses(String),
}
