//! The control socket: one JSON object a line, answered by `{"ok": ...}` or `{"error": ...}`.
//! Beside it are the view socket, for requests that change nothing; one for the program for
//! streams; one for a program that gives secrets of private prefixes.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use lcroute_node::Secret;
use librecast::announce::socket_beside;
use librecast::cert::GroupPrefix;
use librecast::id::PeerId;
use librecast::open_item::ItemAsk;
use librecast_program::keyfile::SharedKey;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::code::Code;

/// A request to a daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cmd", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// [`crate::status::Status`].
    Status,
    /// The meaning of each drop reason, by its name.
    Drops,
    /// A list of [`crate::status::Peer`].
    Peers,
    /// A list of [`crate::status::Group`].
    Groups,
    /// A list of [`crate::status::Lan`].
    Lan,
    /// A list of [`crate::status::LanHost`], one for each LAN of a segment; asks for the host first.
    LanHost {
        /// The host's address.
        address: IpAddr,
        /// Gives it away first: a host elsewhere may have it.
        #[serde(default)]
        release: bool,
    },
    /// [`crate::status::Look`], once a second while this connection lasts.
    Watch,
    /// A list of [`crate::status::Route`].
    Routes,
    /// A list of [`lcroute_node::KnownMember`].
    Members,
    /// The known data of one member: [`crate::status::Contact`].
    Member {
        /// Its name, PeerId or address.
        node: String,
    },
    /// Marks this connection as the program's for streams; ends with it.
    Streams,
    /// A signature of this node's key, for the handshake of a stream (RFC 8446 §4.4.3).
    Sign {
        /// The content that TLS 1.3 signs, in base58.
        message: String,
    },
    /// The secret of this node's key and another, for a link outside of the network: 32 bytes in
    /// base58 ([`librecast::pair`]).
    Pair {
        /// The other key.
        node: PeerId,
    },
    /// This node's statement about a key of the day, for anybody to call it: in base58
    /// ([`librecast::open`]).
    Open {
        /// The key of the day.
        day_key: PeerId,
        /// End of its validity, in unix seconds.
        until: u64,
    },
    /// The record of this open node in a DHT, signed: a [`librecast::reach::Item`].
    OpenItem {
        /// The record and its period.
        item: Box<ItemAsk>,
    },
    /// One message to a node and back: [`crate::status::Pong`].
    Ping {
        /// Its name, PeerId or address.
        node: String,
        /// Timeout for the answer, in milliseconds.
        #[serde(default = "ping_timeout")]
        timeout_ms: u64,
    },
    /// Roots the tree of these groups at this node while this connection lasts.
    Announce {
        /// A prefix such as `ff1e:1::/32`.
        prefix: String,
    },
    /// Replaces the secrets of a private prefix that this connection gave; they end with it.
    Private {
        /// A prefix that the configuration makes private, without a keyfile.
        prefix: String,
        /// The first seals, all of them open; an empty list closes the prefix.
        secrets: Vec<GivenSecret>,
    },
    /// This node's presence record, for transfer by hand.
    Meet,
    /// Takes the presence record of another node.
    Take {
        /// The sealed record in base58.
        record: String,
    },
    /// Expels a node from the whole network.
    Revoke {
        /// The signed revocation in base58.
        revocation: String,
        /// Whether the epoch stays: a token for leaves ends, which know no secret of an epoch.
        #[serde(default)]
        keeps_epoch: bool,
    },
    /// The code with which a page may invite.
    Code,
    /// A token, for a page with that code.
    Invite {
        /// The code.
        code: Code,
        /// Validity of the token, in seconds.
        ttl_s: u64,
        /// Number of nodes that may join; `None`: any number.
        uses: Option<u32>,
    },
    /// Tests this host's firewall again, for packets from lc0; the next status has the result.
    Probe,
    /// Reads the configuration again, or executes the binary anew.
    Reload {
        /// Whether to execute the binary anew, as SIGUSR2 does.
        #[serde(default)]
        exec: bool,
    },
}

/// A secret of a private prefix; in JSON it is a shared key (`lck1...`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenSecret(pub Secret);

impl<'de> Deserialize<'de> for GivenSecret {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(d)?);
        let key = text
            .parse::<SharedKey>()
            .map_err(serde::de::Error::custom)?;
        Ok(Self(Secret::new(*key.bytes())))
    }
}

impl Serialize for GivenSecret {
    /// Always fails: the daemon receives secrets and reveals none.
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("secrets are not told"))
    }
}

fn ping_timeout() -> u64 {
    2_000
}

/// The answer to a request.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// The requested value.
    Ok(serde_json::Value),
    /// The reason for a refusal.
    Error(String),
}

/// A socket of the daemon, which decides the requests that it permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// All requests, except requests for a single program.
    Control,
    /// Requests of pages.
    View,
    /// Requests of the program for streams.
    Streams,
    /// Requests of a program that gives secrets of private prefixes.
    Keys,
}

impl Access {
    /// Returns the socket's group, for hosts that have it.
    #[must_use]
    pub fn group(self) -> &'static str {
        match self {
            Self::Control => "lcroute",
            Self::View => "lcroute-view",
            Self::Streams => "lcroute-streams",
            Self::Keys => "lcroute-keys",
        }
    }

    /// Whether this socket permits the request.
    #[must_use]
    pub fn permits(self, request: &Request) -> bool {
        request.sockets().contains(&self)
    }

    /// Returns the reason for refusing a request.
    #[must_use]
    pub fn refusal(self, request: &Request) -> &'static str {
        match (self, request) {
            (Self::View, _) => NOT_TO_VIEWERS,
            (Self::Keys, _) => FOR_KEYS,
            (Self::Control, Request::Private { .. }) => ON_KEYS,
            (Self::Control | Self::Streams, _) => FOR_STREAMS,
        }
    }
}

impl Request {
    /// Returns the sockets that permit this request. Nothing else decides that.
    fn sockets(&self) -> &'static [Access] {
        use Access::{Control, Keys, Streams, View};
        match self {
            // control of the daemon includes no signatures by its key
            Self::Sign { .. }
            | Self::Pair { .. }
            | Self::Open { .. }
            | Self::OpenItem { .. }
            | Self::Streams => &[Streams],
            // nor keys for a closed prefix
            Self::Private { .. } => &[Keys],
            Self::Status => &[Control, View, Streams],
            Self::Member { .. } => &[Control, Streams],
            Self::Drops | Self::Peers | Self::Groups | Self::Lan | Self::Watch | Self::Probe => {
                &[Control, View]
            }
            // the code is the permission; the view socket does not reveal it
            Self::Invite { .. } => &[Control, View],
            // other nodes report to the announcer of this group, which carries nothing else
            Self::Announce { prefix }
                if prefix.parse() == Ok(GroupPrefix::group(librecast::channel::look_group())) =>
            {
                &[Control, View]
            }
            Self::Announce { .. }
            | Self::LanHost { .. }
            | Self::Routes
            | Self::Members
            | Self::Ping { .. }
            | Self::Meet
            | Self::Take { .. }
            | Self::Revoke { .. }
            | Self::Code
            | Self::Reload { .. } => &[Control],
        }
    }
}

/// Refusal of a request that only the program for streams may make.
const FOR_STREAMS: &str = "only the program for streams may ask this, on a socket of its own";
/// Refusal of other requests on the socket for secrets.
const FOR_KEYS: &str = "this socket takes secrets of private prefixes, and nothing else";
/// Refusal of secrets on the control socket.
const ON_KEYS: &str =
    "secrets of private prefixes are taken on keys.sock alone, from root and group lcroute-keys";
/// Refusal of a request that changes something, on the view socket.
const NOT_TO_VIEWERS: &str = "not on this socket, which shows how things stand: ask the control socket, as root or in group lcroute";

/// Returns the daemon's view socket: `view.sock` beside `control.sock`, else `NAME.view`.
#[must_use]
pub fn view_of(control: &Path) -> PathBuf {
    socket_beside(control, "view")
}

/// Returns the daemon's socket for the program for streams: `sign.sock`, or `NAME.sign`.
#[must_use]
pub fn sign_of(control: &Path) -> PathBuf {
    socket_beside(control, "sign")
}

/// Returns the daemon's socket for secrets of private prefixes: `keys.sock`, or `NAME.keys`.
#[must_use]
pub fn keys_of(control: &Path) -> PathBuf {
    socket_beside(control, "keys")
}

/// Returns the daemon's socket for `lcroute-reach`: `reach.sock`, or `NAME.reach`.
#[must_use]
pub fn reach_of(control: &Path) -> PathBuf {
    socket_beside(control, "reach")
}

/// Returns the socket of the program for streams for `lcroute-outside`: `outside.sock`, or
/// `NAME.outside`.
#[must_use]
pub fn outside_of(control: &Path) -> PathBuf {
    socket_beside(control, "outside")
}

/// Group of the socket for `lcroute-reach`.
pub const REACH_GROUP: &str = "lcroute-reach";

/// Longest wait for the answer to a ping.
pub const MAX_PING: std::time::Duration = std::time::Duration::from_secs(20);
