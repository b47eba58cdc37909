//! What comes out of the engine.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::Bytes;
use librecast::ethernet::MacAddress;
use librecast::id::{LinkId, OriginId, PeerId};

use crate::control::RoutedKind;
use crate::header::HEADER_LEN;
use crate::interface_id::LocalInterfaceId;
use crate::services::Credential;

/// Links that one packet goes out on; shared with the forwarding table, so cloning costs nothing.
pub type Links = Arc<[LinkId]>;

/// Something for the shell to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send the same message, `header` followed by `packet`, on the data channel of each link.
    Data {
        /// Where it goes; never empty.
        links: Links,
        /// The data header.
        header: [u8; HEADER_LEN],
        /// The packet as it was read from `lc0`.
        packet: Bytes,
    },
    /// Send on the control channel of a link. It must not be lost while the link is up.
    Control {
        /// Where it goes.
        link: LinkId,
        /// At most 16 KiB.
        message: Bytes,
    },
    /// Send on the control channel of a link, behind what [`Self::Control`] gives. It may be lost.
    RoutedControl {
        /// Where it goes.
        link: LinkId,
        /// At most 16 KiB.
        message: Bytes,
    },
    /// Write into `lc0`: a packet that a local program has joined.
    Local {
        /// The packet, IPv6 or IPv4.
        packet: Bytes,
    },
    /// Write into `lc0`: a query or report of MLD or IGMP; packet taps want a copy of it.
    LocalMld {
        /// The packet, IPv6 or IPv4.
        packet: Bytes,
    },
    /// Send into a LAN: a packet that its hosts have joined, a query, a report or a PROBE.
    Lan {
        /// Which one.
        interface: LocalInterfaceId,
        /// What to do with it.
        frame: LanFrame,
    },
    /// All nodes with which there should be a link, from now on.
    Wanted(BTreeSet<OriginId>),
    /// Nobody needs this link any more: close it in good order.
    Retire {
        /// The link.
        link: LinkId,
    },
    /// A message from another router.
    Routed {
        /// The link it came over; none if this router sent it to itself.
        via: Option<LinkId>,
        /// From whom, as it says itself: not proven.
        from: OriginId,
        /// What it is.
        kind: RoutedKind,
        /// At most 16 KiB.
        payload: Bytes,
    },
    /// A router can be reached over the links of the network, or no longer.
    Reachable {
        /// Which; [`crate::Engine::member`] knows more.
        origin: OriginId,
        /// Whether.
        up: bool,
    },
    /// Another run of this node was seen with a higher incarnation: this one is used and to be kept.
    Incarnation(u32),
    /// Certificates that go by this key no longer count: end its links, and keep the revocation.
    Revoked {
        /// A node, or an invitation.
        key: PeerId,
        /// The signed revocation.
        revocation: Bytes,
    },
    /// This node has another IPv4 address, or none any more: set it on `lc0`, and keep it.
    Ipv4Address(Option<Ipv4Addr>),
    /// Rendezvous epochs of a neighbour, as it sent them: nothing of them has been verified.
    Epochs {
        /// Over which link.
        link: LinkId,
        /// As in [`crate::control::Element::Epochs`].
        epochs: Bytes,
    },
    /// A router has new certificates.
    Renewed {
        /// What they say.
        credential: Arc<Credential>,
    },
    /// The neighbour broke the protocol: close this link.
    LinkFault {
        /// The link.
        link: LinkId,
        /// Why, for log and `peers`.
        reason: LinkFault,
    },
}

/// What goes into a LAN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LanFrame {
    /// A packet of a group: it leaves with hop limit 1, so that no router of the LAN passes it on.
    Multicast(Bytes),
    /// A packet as it is, for the Ethernet address of its group: of this link alone.
    Link(Bytes),
    /// An ICMPv6 error for one host.
    Unicast(MacAddress, Bytes),
    /// For all gateways of the LAN.
    Probe(Bytes),
}

/// How a neighbour broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkFault {
    /// A control message cannot be read.
    Unreadable,
    /// An element came before HELLO.
    BeforeHello,
    /// HELLO came twice.
    SecondHello,
    /// The neighbour passed on what its router did not sign.
    Forged,
    /// A leaf sent what only routers send.
    LeafRoutes,
    /// There are as many leaves as there may be.
    LeavesFull,
}

impl LinkFault {
    /// A few words for logs and tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "control message cannot be read",
            Self::BeforeHello => "control before HELLO",
            Self::SecondHello => "second HELLO",
            Self::Forged => "passes on what was not signed",
            Self::LeafRoutes => "a leaf sends what only routers send",
            Self::LeavesFull => "no room for more leaves",
        }
    }
}

impl fmt::Display for LinkFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
