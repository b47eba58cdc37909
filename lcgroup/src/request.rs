//! Requests on the control socket: one JSON object a line, as in the other programs.

use std::time::Duration;

use librecast::id::PeerId;
use librecast::outside::Place;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "cmd", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// All groups, and the held ones.
    Status {},
    /// Creates a group with this host as its owner.
    Create {
        group: String,
        name: String,
        #[serde(default)]
        topic: String,
        /// Seconds for which all keep what was said; 0 for ever.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        keep_s: Option<u64>,
        /// Newcomers get what was said in these last seconds; 0: nothing, `u64::MAX`: all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        history_s: Option<u64>,
        /// The group has a network of its own.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        outside: bool,
        /// Where members of that network meet: HOST, HOST:PORT or a URL.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        places: Vec<Place>,
    },
    /// Requests membership.
    Join {
        invitation: Zeroizing<String>,
        group: Option<String>,
        name: String,
    },
    /// One group as in `status`, while a user waits for membership.
    Await { group: String },
    /// Creates an invitation.
    Invite {
        group: String,
        uses: u32,
        expires_s: u64,
    },
    /// Sends a message: text, or bytes in base64.
    Send {
        group: String,
        text: Option<Zeroizing<String>>,
        bytes: Option<Zeroizing<String>>,
    },
    /// Messages after number `after`; with `follow` the connection also delivers new ones.
    Tail {
        group: String,
        #[serde(default)]
        after: Option<u64>,
        #[serde(default)]
        last: Option<u64>,
        #[serde(default)]
        follow: bool,
    },
    /// The members of a group.
    Members { group: String },
    /// Removes a member by name or key; only the owner can.
    Remove { group: String, member: String },
    /// Offers a share of lcsync to the group, unless it has the offer; returns its key and the seed
    /// of the signing key, both as `lck1...`.
    Offer { group: String, name: String },
    /// The key of a share, and the public key that signs it. `by`: the member's name or key.
    Offered {
        group: String,
        name: String,
        #[serde(default)]
        by: Option<String>,
    },
    /// Seals a private prefix of lcroute with the group's keys on this host; `end` stops it.
    Protect {
        group: String,
        prefix: String,
        #[serde(default)]
        end: bool,
    },
    /// Requests new keys for this member.
    Refresh { group: String },
    /// Leaves a group; `forget` deletes its files on this host too.
    Leave {
        group: String,
        #[serde(default)]
        forget: bool,
    },
    /// Messages that wait until a user permits new members to read them.
    Outbox { group: String },
    /// Sends a message of the outbox.
    Resend { group: String, id: String },
    /// Deletes a message of the outbox.
    Discard { group: String, id: String },
    /// The group's key for a holder.
    HoldingKey { group: String },
    /// Holds a group without reading it.
    Hold {
        key: Zeroizing<String>,
        name: String,
    },
    /// Stops holding a group, and deletes its files.
    Unhold { name: String },
}

impl Request {
    /// The group whose state the request changes in memory; the turn's end writes the files.
    pub fn changes(&self) -> Option<&str> {
        match self {
            Self::Send { group, .. }
            | Self::Invite { group, .. }
            | Self::Remove { group, .. }
            | Self::Offer { group, .. }
            | Self::Refresh { group }
            | Self::Leave {
                group,
                forget: false,
            }
            | Self::Resend { group, .. }
            | Self::Discard { group, .. } => Some(group),
            _ => None,
        }
    }
}

/// One group in `status`.
#[derive(Debug, Serialize, Deserialize)]
pub struct GroupStatus {
    /// Its name on this host.
    pub name: String,
    /// Its owner's key.
    pub group: PeerId,
    /// The topic that the owner wrote.
    pub topic: String,
    /// This member's key in it.
    pub author: PeerId,
    /// `owner`, `member`, `joining`, `rejoining`, `removed`, `rolled_back`.
    pub state: String,
    /// The epoch of its keys.
    pub epoch: Option<u64>,
    /// The number of members.
    pub members: usize,
    /// The number of messages on this host.
    pub messages: u64,
    /// Seconds for which members and mailboxes keep what was said; none: for ever.
    #[serde(default)]
    pub keep_s: Option<u64>,
    /// Newcomers get what was said in these last seconds; none: all.
    #[serde(default = "nothing")]
    pub history_s: Option<u64>,
    /// Own messages that the log does not have yet.
    pub unsent: usize,
    /// Why a request to join waits, or own messages after a start or an absence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<String>,
    /// Why this host cannot send or join, and the remedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Other hosts are asked whether this folder is an old copy: `problem` may end within seconds.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub checks: bool,
    /// The difference between this host's clock and other members'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<String>,
    /// Messages that `outbox` lists.
    pub outbox: usize,
    /// Entries that other members have and this host lacks.
    pub missing: u64,
    /// Its log.
    pub log: LogStatus,
    /// Its own network, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkStatus>,
    /// Private prefixes of lcroute that its keys seal.
    pub prefixes: Vec<ProtectedStatus>,
    /// The last notices for users.
    pub notices: Vec<String>,
}

/// History for newcomers in groups of earlier versions.
fn nothing() -> Option<u64> {
    Some(0)
}

/// A private prefix that a group's keys seal.
#[derive(Debug, Serialize, Deserialize)]
pub struct ProtectedStatus {
    /// Such as `ff1e:7::/32`.
    pub prefix: String,
    /// The epoch whose key seals; none: this host is no member.
    pub epoch: Option<u64>,
    /// lcroute has the keys.
    pub sealed: bool,
    /// Why lcroute does not have them: the prefix is closed on this host.
    pub problem: Option<String>,
}

/// The network of a group's own in `status`.
#[derive(Debug, Serialize, Deserialize)]
pub struct NetworkStatus {
    /// Where its members meet; none: on LANs, and where the configuration says.
    pub places: Vec<String>,
    /// Links of this host.
    pub links: usize,
    /// Other hosts of it that are reachable.
    pub present: usize,
    /// UDP port of links; 0: none yet.
    pub port: u16,
    /// Why nobody is reached, and what to check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<String>,
}

/// A log in `status`.
#[derive(Debug, Serialize, Deserialize)]
pub struct LogStatus {
    /// The multicast group.
    pub address: String,
    /// Stored entries.
    pub entries: usize,
    /// Bytes of the entries.
    pub bytes: usize,
    /// Entries that were dropped before their time in this run, as the group is full.
    #[serde(default)]
    pub displaced: u64,
    /// Dropped packets, entries and requests, by reason.
    pub drops: std::collections::BTreeMap<String, u64>,
}

/// A held group in `status`.
#[derive(Debug, Serialize, Deserialize)]
pub struct HeldStatus {
    /// Its name on this host.
    pub name: String,
    /// Its owner's key.
    pub group: PeerId,
    /// The number of authors, the owner included.
    pub authors: usize,
    /// Seconds for which it is kept; none: for ever.
    #[serde(default)]
    pub keep_s: Option<u64>,
    /// The group's own network, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkStatus>,
    /// Its log.
    pub log: LogStatus,
}

/// The answer to [`Request::Status`].
#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    /// Groups with this host as a member or joiner.
    pub groups: Vec<GroupStatus>,
    /// Groups that it holds.
    pub held: Vec<HeldStatus>,
    pub interfaces: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Its key in this group.
    pub author: PeerId,
    /// Its name, chosen by itself and not proven.
    pub name: String,
    /// The same with a mark if another name looks alike.
    pub shown: String,
    pub owner: bool,
    pub me: bool,
    /// The number of its last entry on this host.
    pub last: u32,
    /// When it sent the last message on this host, by its clock: ms since 1970; none: no message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spoke: Option<u64>,
}

/// Time limit of a request after the connection or last answer. Chosen: programs write at once.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a request: the longest message with each byte as `\u0000` in JSON, and a reserve.
pub const MAX_REQUEST: usize = 6 * MAX_TEXT + 4 * 1_024;

/// Bytes of a user's message.
pub const MAX_TEXT: usize = 64 * 1_024;
