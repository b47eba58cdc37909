//! The members that may learn the addresses of a host.
//!
//! Other peers are linked over relays alone. They receive no other candidate, no check and no
//! datagram from the host, and it answers none that they send to it. The host publishes no presence
//! records, since every member can read them.

use librecast::cert::Member;
use librecast::id::PeerId;

/// The members that may learn the addresses of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Disclosure {
    /// All members.
    #[default]
    Everybody,
    /// Only these; other members are linked over relays.
    Only(Vec<Trusted>),
}

/// A node that may learn the addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trusted {
    /// The node of this key.
    Node(PeerId),
    /// Nodes with this label in their certificate.
    Label(String, String),
}

impl Disclosure {
    /// Returns whether some members do not learn the host's addresses.
    pub fn hides(&self) -> bool {
        matches!(self, Self::Only(_))
    }

    /// Returns whether a node may learn the host's addresses, by its key and its certificate.
    pub fn includes(&self, node: &PeerId, certified: Option<&Member>) -> bool {
        let Self::Only(trusted) = self else {
            return true;
        };
        trusted.iter().any(|trusted| match trusted {
            Trusted::Node(id) => id == node,
            Trusted::Label(key, value) => {
                certified.is_some_and(|member| member.labels.get(key) == Some(value))
            }
        })
    }
}
