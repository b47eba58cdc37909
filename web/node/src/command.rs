//! What the page is to do.

use std::net::{IpAddr, Ipv6Addr};

use bytes::Bytes;
use lcroute_overlay::server::RelayCredentials;
use librecast::id::LinkId;

/// Something that only the browser can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Make a connection, and its offer.
    Offer(LinkId),
    /// Make a connection for the offer in this SDP, and its answer.
    Answer(LinkId, String),
    /// Take the answer in this SDP.
    Accept(LinkId, String),
    /// Take more addresses of the peer: attributes of SDP, a line each.
    Candidates(LinkId, String),
    /// Restart ICE: with the offer in this SDP, else by an offer.
    Restart(LinkId, Option<String>),
    /// Send over the control channel.
    Control(LinkId, Bytes),
    /// Send over the data channel.
    Data(LinkId, Bytes),
    /// End the connection.
    Close(LinkId),
    /// Send to a signalling server.
    Server(u32, Vec<u8>),
    /// Say a word to a signalling server.
    ServerText(u32, String),
    /// A signalling server closes the connection, and says why.
    ServerRefused(u32, String),
    /// The relay on a signalling server's port may be used, for so many seconds.
    Relay(u32, u32, RelayCredentials),
    /// A datagram of a group that the page has joined.
    Datagram {
        /// Who sent it.
        source: IpAddr,
        /// To which group.
        group: IpAddr,
        /// To which UDP port.
        port: u16,
        /// Without headers.
        data: Vec<u8>,
    },
    /// A sealed packet of a group that the page has joined: a page has no keys.
    Sealed {
        /// Who sent it.
        source: Ipv6Addr,
        /// To which group.
        group: Ipv6Addr,
    },
    /// What the page needs to go on as this member after a reload has changed.
    Keep,
}

impl Command {
    /// A number for its kind, a number for link or server, and bytes: the form in which the page takes it.
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
            Self::Keep => (12, 0, Vec::new()),
            Self::ServerText(server, word) => (13, server, word.into_bytes()),
            Self::Candidates(link, lines) => (15, link.0, lines.into_bytes()),
            Self::Sealed { source, group } => (14, 0, [source.octets(), group.octets()].concat()),
        }
    }
}

/// Of IPv4 as RFC 4291 §2.5.5.2 has it.
fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}
