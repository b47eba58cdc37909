//! What a node learns and must not forget: its owner stores it.

use std::net::Ipv4Addr;

use librecast::cert::Chain;
use librecast::revocation::Revocation;

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
    /// The list of members as text.
    Members(String),
    /// Who has come by tokens that are for so many, as text.
    Uses(String),
}
