//! To whom a node shows the addresses of its host.
//!
//! A peer to whom it does not is linked over relays alone: it gets no other candidate, no check and no datagram comes to it
//! from the host, and none is answered that it sends there. Presence records, which every member can read, are not made.

use librecast::cert::Member;
use librecast::id::PeerId;

/// To whom a node shows the addresses of its host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Disclosure {
    /// To all members.
    #[default]
    Everybody,
    /// To these; all others are linked over relays.
    Only(Vec<Trusted>),
}

/// Whom a node trusts with its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trusted {
    /// The node of this key.
    Node(PeerId),
    /// Nodes whose certificate has this label.
    Label(String, String),
}

impl Disclosure {
    /// Whether there are members that do not see the host's addresses.
    #[must_use]
    pub fn hides(&self) -> bool {
        matches!(self, Self::Only(_))
    }

    /// Whether a node sees the host's addresses. Of one that has not shown its certificate, only the key counts.
    #[must_use]
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
