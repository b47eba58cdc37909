//! The control socket: one JSON object a line, answered by `{"ok": ...}` or `{"error": ...}`.

pub mod client;
pub mod server;

use serde::{Deserialize, Serialize};

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
    },
    /// Read the configuration again; or execute the binary anew.
    Reload {
        /// Execute the binary anew, as SIGUSR2 does.
        #[serde(default)]
        exec: bool,
    },
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

/// Longest request line in bytes.
const MAX_REQUEST: usize = 64 * 1024;
/// Most connections at a time that announce nothing.
const MAX_CONNECTIONS: usize = 64;
/// Most connections at a time that announce something.
const MAX_ANNOUNCERS: usize = lcroute_node::MAX_ANNOUNCED;
/// Most connections at a time that watch.
const MAX_WATCHERS: usize = 8;
/// How often those are answered.
const WATCH_INTERVAL: std::time::Duration = std::time::Duration::from_secs(1);
/// A request is complete, and its answer taken, within this time.
const IDLE: std::time::Duration = std::time::Duration::from_secs(30);
/// Longest wait for the answer to a ping.
pub const MAX_PING: std::time::Duration = std::time::Duration::from_secs(20);
