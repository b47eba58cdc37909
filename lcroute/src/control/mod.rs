//! The control socket: one JSON object a line, answered by `{"ok": ...}` or `{"error": ...}`. Beside it are the view socket,
//! which takes what shows how things stand, and nothing that changes anything; and one each for the program for streams and for
//! the one that gives secrets of private prefixes.

pub mod client;
mod code;
pub mod server;

use std::path::{Path, PathBuf};

use lcroute_node::Secret;
use librecast::announce::socket_beside;
use librecast::cert::GroupPrefix;
use librecast_program::keyfile::SharedKey;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub use code::Code;

/// What can be asked of a daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cmd", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// [`crate::status::Status`].
    Status,
    /// A list of [`crate::status::Peer`].
    Peers,
    /// A list of [`crate::status::Group`].
    Groups,
    /// A list of [`crate::status::Lan`].
    Lan,
    /// [`crate::status::Look`]: once a second as long as this connection lasts.
    Watch,
    /// A list of [`crate::status::Route`].
    Routes,
    /// A list of [`lcroute_node::KnownMember`].
    Members,
    /// What is known of one member: [`crate::status::Contact`].
    Member {
        /// Its name, PeerId or address.
        node: String,
    },
    /// This host has a program for streams as long as this connection lasts.
    Streams,
    /// A signature of this node's key, for the handshake of a stream (RFC 8446 §4.4.3).
    Sign {
        /// What TLS 1.3 has a key sign, in base58.
        message: String,
    },
    /// One message to a node and back: [`crate::status::Pong`].
    Ping {
        /// Its name, PeerId or address.
        node: String,
        /// How long to wait for the answer, in milliseconds.
        #[serde(default = "ping_timeout")]
        timeout_ms: u64,
    },
    /// The tree of these groups has its root here as long as this connection lasts.
    Announce {
        /// Such as `ff1e:1::/32`.
        prefix: String,
    },
    /// The secrets of a private prefix, which hold as long as this connection and replace those that it gave before.
    Private {
        /// One that the configuration says is private, without a keyfile.
        prefix: String,
        /// The first seals, all of them open; none: the prefix is closed.
        secrets: Vec<GivenSecret>,
    },
    /// This node's presence record, to be passed on by hand.
    Meet,
    /// Takes the presence record of another node.
    Take {
        /// The sealed record in base58.
        record: String,
    },
    /// Expels from the whole network.
    Revoke {
        /// The signed revocation in base58.
        revocation: String,
        /// It ends a token for leaves, which know no secret of an epoch: the epoch stays.
        #[serde(default)]
        keeps_epoch: bool,
    },
    /// The code with which a page may invite.
    Code,
    /// A token, for who has that code.
    Invite {
        /// The code.
        code: Code,
        /// How long hosts can join by it, in seconds.
        ttl_s: u64,
        /// How many; none: any number.
        uses: Option<u32>,
    },
    /// Try anew whether this host's firewall lets in what arrives on lc0; the next status has the result.
    Probe,
    /// Read the configuration again; or execute the binary anew.
    Reload {
        /// Execute the binary anew, as SIGUSR2 does.
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
    /// The daemon takes secrets, and tells none.
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("secrets are not told"))
    }
}

fn ping_timeout() -> u64 {
    2_000
}

/// The answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// What was asked for.
    Ok(serde_json::Value),
    /// Why not.
    Error(String),
}

/// A socket of the daemon: it decides which requests are taken, and from whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// All requests, except those of one program.
    Control,
    /// What pages need.
    View,
    /// What the program for streams needs.
    Streams,
    /// What a program that gives secrets of private prefixes needs.
    Keys,
}

impl Access {
    /// The group of the socket, where it exists.
    #[must_use]
    pub fn group(self) -> &'static str {
        match self {
            Self::Control => "lcroute",
            Self::View => "lcroute-view",
            Self::Streams => "lcroute-streams",
            Self::Keys => "lcroute-keys",
        }
    }

    /// Whether this may be asked there.
    #[must_use]
    pub fn permits(self, request: &Request) -> bool {
        request.sockets().contains(&self)
    }

    /// Why a request that it does not permit is refused.
    fn refusal(self, request: &Request) -> &'static str {
        match (self, request) {
            (Self::View, _) => NOT_TO_VIEWERS,
            (Self::Keys, _) => FOR_KEYS,
            (Self::Control, Request::Private { .. }) => ON_KEYS,
            (Self::Control | Self::Streams, _) => FOR_STREAMS,
        }
    }
}

impl Request {
    /// The sockets on which it may be asked. Nothing else decides that.
    fn sockets(&self) -> &'static [Access] {
        use Access::{Control, Keys, Streams, View};
        match self {
            // who may control the daemon may not speak in the name of its key
            Self::Sign { .. } | Self::Streams => &[Streams],
            // nor open a closed prefix by a key of its own
            Self::Private { .. } => &[Keys],
            Self::Status => &[Control, View, Streams],
            Self::Member { .. } => &[Control, Streams],
            Self::Peers | Self::Groups | Self::Lan | Self::Watch | Self::Probe => &[Control, View],
            // the code says who asks, and whoever may look only is not told it
            Self::Invite { .. } => &[Control, View],
            // others report to who announces this group, and it carries nothing else
            Self::Announce { prefix }
                if prefix.parse() == Ok(GroupPrefix::group(librecast::channel::look_group())) =>
            {
                &[Control, View]
            }
            Self::Announce { .. }
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
/// Who asks for anything else where secrets are given.
const FOR_KEYS: &str = "this socket takes secrets of private prefixes, and nothing else";
/// Refusal of secrets on the control socket.
const ON_KEYS: &str =
    "secrets of private prefixes are taken on keys.sock alone, from root and group lcroute-keys";
/// Refusal of a request that changes something, on the view socket.
const NOT_TO_VIEWERS: &str = "not on this socket, which shows how things stand: ask the control socket, as root or in group lcroute";

/// The view socket of the daemon with this control socket: `view.sock` beside `control.sock`, else `NAME.view`.
#[must_use]
pub fn view_of(control: &Path) -> PathBuf {
    socket_beside(control, "view")
}

/// The socket of the daemon with this control socket where the program for streams asks: `sign.sock`, or `NAME.sign`.
#[must_use]
pub fn sign_of(control: &Path) -> PathBuf {
    socket_beside(control, "sign")
}

/// The socket of the daemon with this control socket where programs give secrets: `keys.sock`, or `NAME.keys`.
#[must_use]
pub fn keys_of(control: &Path) -> PathBuf {
    socket_beside(control, "keys")
}

/// The socket of the daemon with this control socket for the program for a DHT and a Matrix room: `reach.sock`, or `NAME.reach`.
#[must_use]
pub fn reach_of(control: &Path) -> PathBuf {
    socket_beside(control, "reach")
}

/// Who may connect there.
pub const REACH_GROUP: &str = "lcroute-reach";

/// Most secrets of a prefix that a program gives. Chosen: each opens packets of one epoch of a group's keys, and epochs that
/// ended a minute ago are over.
const MAX_SECRETS: usize = 16;
/// Longest request line in bytes.
const MAX_REQUEST: usize = 64 * 1024;
/// Most connections at a time of which nothing depends.
const MAX_CONNECTIONS: usize = 64;
/// Most connections at a time that announce something or give secrets.
const MAX_ANNOUNCERS: usize = lcroute_node::MAX_ANNOUNCED;
/// Most connections at a time that watch.
const MAX_WATCHERS: usize = 8;
/// How often those are answered.
const WATCH_INTERVAL: std::time::Duration = std::time::Duration::from_secs(1);
/// Between two answers on the view socket, to all who ask there: each is work for the thread that carries packets.
const VIEW_GAP: std::time::Duration = std::time::Duration::from_millis(50);
/// A request is complete, and its answer taken, within this time.
const IDLE: std::time::Duration = std::time::Duration::from_secs(30);
/// Longest wait for the answer to a ping.
pub const MAX_PING: std::time::Duration = std::time::Duration::from_secs(20);
