//! The control socket: one JSON object a line, answered by `{"ok": ...}` or `{"error": ...}`.

pub mod client;
pub mod server;

use serde::{Deserialize, Serialize};

/// What can be asked of a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cmd", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// [`crate::status::Status`].
    Status,
    /// A list of [`crate::status::Peer`].
    Peers,
    /// A list of [`crate::status::Group`].
    Groups,
    /// Read the configuration again; or execute the binary anew.
    Reload {
        /// Execute the binary anew, as SIGUSR2 does.
        #[serde(default)]
        exec: bool,
    },
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
/// Most connections at a time.
const MAX_CONNECTIONS: usize = 64;
/// A request is complete, and its answer taken, within this time.
const IDLE: std::time::Duration = std::time::Duration::from_secs(30);
