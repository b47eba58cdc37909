//! Outputs of the engine.

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

/// Outgoing links of a packet; shared with the forwarding entry, so cloning costs nothing.
pub type Links = Arc<[LinkId]>;

/// An action for the shell, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send the same message, `header` followed by `packet`, on the data channel of each link.
    Data {
        /// The links; never empty.
        links: Links,
        /// The data header.
        header: [u8; HEADER_LEN],
        /// The packet as it was read from `lc0`.
        packet: Bytes,
    },
    /// Send on the control channel of a link. It must not be lost while the link is up.
    Control {
        /// The link.
        link: LinkId,
        /// At most 16 KiB.
        message: Bytes,
    },
    /// Send on the control channel of a link, behind all [`Self::Control`]. It may be lost.
    RoutedControl {
        /// The link.
        link: LinkId,
        /// At most 16 KiB.
        message: Bytes,
    },
    /// Write into `lc0`: a packet that a local program has joined.
    Local {
        /// The packet, IPv6 or IPv4.
        packet: Bytes,
    },
    /// Write into `lc0`, and copy to packet taps: a query or report of MLD or IGMP.
    LocalMld {
        /// The packet, IPv6 or IPv4.
        packet: Bytes,
    },
    /// Send into a LAN: a packet that its hosts have joined, a query, a report or a PROBE.
    Lan {
        /// The LAN.
        interface: LocalInterfaceId,
        /// The frame.
        frame: LanFrame,
    },
    /// The nodes with which links are wanted.
    Wanted(BTreeSet<OriginId>),
    /// Neither end needs this link any more: close it in good order.
    Retire {
        /// The link.
        link: LinkId,
    },
    /// A message from another router.
    Routed {
        /// The link over which it came; none if this router sent it to itself.
        via: Option<LinkId>,
        /// The source, as claimed: not proven.
        from: OriginId,
        /// Its kind.
        kind: RoutedKind,
        /// At most 16 KiB.
        payload: Bytes,
    },
    /// A router became reachable over the links of the network, or unreachable.
    Reachable {
        /// The router; [`crate::Engine::member`] has its member data.
        origin: OriginId,
        /// Whether it is reachable.
        up: bool,
    },
    /// Another run of this node has a higher incarnation: use and persist this one.
    Incarnation(u32),
    /// Certificates that depend on this key no longer count: end its links, keep the revocation.
    Revoked {
        /// A node, or an invitation.
        key: PeerId,
        /// The signed revocation.
        revocation: Bytes,
    },
    /// This node has another IPv4 address, or none any more: set it on `lc0`, and keep it.
    Ipv4Address(Option<Ipv4Addr>),
    /// Rendezvous epochs of a neighbour, as received: nothing is verified.
    Epochs {
        /// The link.
        link: LinkId,
        /// As in [`crate::control::Element::Epochs`].
        epochs: Bytes,
    },
    /// A router has new certificates.
    Renewed {
        /// Their content.
        credential: Arc<Credential>,
    },
    /// The neighbour broke the protocol: close this link.
    LinkFault {
        /// The link.
        link: LinkId,
        /// The reason, for log and `peers`.
        reason: LinkFault,
    },
}

/// A frame for a LAN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LanFrame {
    /// A packet of a group: it leaves with hop limit 1, so that no router of the LAN passes it on.
    Multicast(Bytes),
    /// A packet as it is, for the Ethernet address of its group: it stays on this link.
    Link(Bytes),
    /// An ICMPv6 error for one host.
    Unicast(MacAddress, Bytes),
    /// A PROBE for all gateways of the LAN.
    Probe(Bytes),
    /// A frame of a segment: ARP, neighbour discovery, or a host's IP packet as it is.
    Ethernet {
        /// Its destination: a host, a group or all.
        to: MacAddress,
        /// Its source: the virtual address, or the interface's own.
        from: MacAddress,
        /// Its EtherType.
        ethertype: u16,
        /// The bytes behind the Ethernet header.
        payload: Bytes,
    },
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
    /// The neighbour passed on an LSA that its router did not sign.
    Forged,
    /// A leaf sent an element that only routers send.
    LeafRoutes,
    /// The bound of leaves is reached.
    LeavesFull,
}

impl LinkFault {
    /// A few words for logs and tables.
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
