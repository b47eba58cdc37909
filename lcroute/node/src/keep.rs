//! State of a node that must survive a restart: its owner stores it.

use std::net::Ipv4Addr;

use librecast::cert::Chain;
use librecast::revocation::Revocation;
use zeroize::Zeroizing;

/// The text of [`crate::Epochs`], which debug output hides.
#[derive(Clone)]
pub struct EpochsText(pub Zeroizing<String>);

librecast::debug_by_name!(EpochsText);

/// A state to be stored.
#[derive(Debug, Clone)]
pub enum Keep {
    /// This node's renewed certificates.
    Chain(Chain),
    /// An incarnation in use: the next run must use a higher one.
    Incarnation(u32),
    /// This node's IPv4 address: the next run requests the same.
    Ipv4Address(Ipv4Addr),
    /// A key was revoked.
    Revocation(Box<Revocation>),
    /// The rendezvous epochs of this node, as text: secrets.
    Epochs(EpochsText),
    /// The list of members as text.
    Members(String),
    /// The counted nodes of bounded tokens, as text.
    Uses(String),
}
