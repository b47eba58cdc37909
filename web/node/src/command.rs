//! Commands for the page.

use std::net::{IpAddr, Ipv6Addr};

use bytes::Bytes;
use lcroute_overlay::server::RelayCredentials;
use librecast::id::LinkId;

/// An action that only the browser can execute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Make a connection, and its offer.
    Offer(LinkId),
    /// Make a connection for the offer in this SDP, and its answer.
    Answer(LinkId, String),
    /// Accept the answer in this SDP.
    Accept(LinkId, String),
    /// Add addresses of the peer: attributes of SDP, a line each.
    Candidates(LinkId, String),
    /// Restart ICE: with the offer in this SDP, else with a new offer.
    Restart(LinkId, Option<String>),
    /// Send over the control channel.
    Control(LinkId, Bytes),
    /// Send over the data channel.
    Data(LinkId, Bytes),
    /// End the connection.
    Close(LinkId),
    /// Send to a signalling server.
    Server(u32, Vec<u8>),
    /// Send a text to a signalling server.
    ServerText(u32, String),
    /// Report that a signalling server closes the connection, with its reason.
    ServerRefused(u32, String),
    /// Use the relay on a signalling server's port, for this number of seconds.
    Relay(u32, u32, RelayCredentials),
    /// Deliver a datagram of a group that the page has joined.
    Datagram {
        /// Its sender.
        source: IpAddr,
        /// Its group.
        group: IpAddr,
        /// UDP port.
        port: u16,
        /// Payload without headers.
        data: Vec<u8>,
    },
    /// Report a sealed packet of a joined group: a page has no keys.
    Sealed {
        /// Its sender.
        source: Ipv6Addr,
        /// Its group.
        group: Ipv6Addr,
    },
    /// Pass on a query or report of MLD, as programs that serve see them on hosts.
    Mld(Bytes),
    /// Store this node's state again for a reload: it has changed.
    Keep,
    /// Keep connections to signalling servers from now on, or end them.
    Servers(bool),
}

impl Command {
    /// The page's form: a number for its kind, a number for link or server, and bytes.
    #[must_use]
    pub fn into_parts(self) -> (u8, u32, Vec<u8>) {
        match self {
            Self::Offer(link) => (1, link.0, Vec::new()),
            Self::Answer(link, sdp) => (2, link.0, sdp.into_bytes()),
            Self::Accept(link, sdp) => (3, link.0, sdp.into_bytes()),
            Self::Restart(link, offer) => (4, link.0, offer.unwrap_or_default().into_bytes()),
            Self::Control(link, message) => (5, link.0, message.into()),
            Self::Data(link, message) => (6, link.0, message.into()),
            Self::Close(link) => (7, link.0, Vec::new()),
            Self::Server(server, message) => (8, server, message),
            Self::ServerRefused(server, why) => (9, server, why.into_bytes()),
            Self::Relay(server, lifetime, RelayCredentials { user, password }) => {
                let text =
                    serde_json::json!({"user": user, "password": password, "lifetime": lifetime});
                (10, server, text.to_string().into_bytes())
            }
            Self::Datagram {
                source,
                group,
                port,
                data,
            } => {
                let mut bytes = Vec::with_capacity(34 + data.len());
                bytes.extend(octets(source));
                bytes.extend(octets(group));
                bytes.extend(port.to_be_bytes());
                bytes.extend(data);
                (11, 0, bytes)
            }
            Self::Mld(packet) => (17, 0, packet.into()),
            Self::Keep => (12, 0, Vec::new()),
            Self::ServerText(server, word) => (13, server, word.into_bytes()),
            Self::Servers(needed) => (16, needed.into(), Vec::new()),
            Self::Candidates(link, lines) => (15, link.0, lines.into_bytes()),
            Self::Sealed { source, group } => (14, 0, [source.octets(), group.octets()].concat()),
        }
    }
}

/// An IPv4 address is mapped as in RFC 4291 §2.5.5.2.
fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}
