//! What may be asked on the control socket: one JSON object a line, as at the other programs.

use std::time::Duration;

use librecast::id::PeerId;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// A request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "cmd", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// All groups, and what is held.
    Status {},
    /// A new group, of which this host is the owner.
    Create {
        group: String,
        name: String,
        #[serde(default)]
        topic: String,
    },
    /// Asks to become a member.
    Join {
        invitation: Zeroizing<String>,
        group: Option<String>,
        name: String,
    },
    /// One group, as `status` tells it; a user waits to become a member of it.
    Await { group: String },
    /// A line to hand to somebody.
    Invite {
        group: String,
        uses: u32,
        expires_s: u64,
    },
    /// Says something: text, or bytes in base64.
    Send {
        group: String,
        text: Option<Zeroizing<String>>,
        bytes: Option<Zeroizing<String>>,
    },
    /// What was said after message `after`; with `follow` the connection stays and brings what comes.
    Tail {
        group: String,
        #[serde(default)]
        after: Option<u64>,
        #[serde(default)]
        last: Option<u64>,
        #[serde(default)]
        follow: bool,
    },
    /// Who is in a group.
    Members { group: String },
    /// The owner removes a member: its name, or its key.
    Remove { group: String, member: String },
    /// Offers a share of lcsync to the group, unless it has the offer; what opens it, and the seed of
    /// the key that signs it, both as `lck1...`.
    Offer { group: String, name: String },
    /// What opens a share that a member offers, and which key signs it. `by`: the member's name or key.
    Offered {
        group: String,
        name: String,
        #[serde(default)]
        by: Option<String>,
    },
    /// A group's keys seal a private prefix of lcroute on this host; with `end` no longer.
    Protect {
        group: String,
        prefix: String,
        #[serde(default)]
        end: bool,
    },
    /// New keys for this member.
    Refresh { group: String },
    /// Leaves a group; with `forget` also deletes what this host has of it.
    Leave {
        group: String,
        #[serde(default)]
        forget: bool,
    },
    /// Messages that wait until a user says that newcomers may read them.
    Outbox { group: String },
    /// Says one of them after all, or not.
    Resend { group: String, id: String },
    /// Deletes one of them.
    Discard { group: String, id: String },
    /// What a holder of the group is given.
    HoldingKey { group: String },
    /// Holds a group for others.
    Hold {
        key: Zeroizing<String>,
        name: String,
    },
    /// Holds it no longer, and deletes what is held.
    Unhold { name: String },
}

impl Request {
    /// The group whose state it changes in memory; its files follow at the end of the turn.
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

/// One group, as `status` tells it.
#[derive(Debug, Serialize, Deserialize)]
pub struct GroupStatus {
    /// How this host calls it.
    pub name: String,
    /// Its owner's key.
    pub group: PeerId,
    /// What the owner wrote on it.
    pub topic: String,
    /// This member's key in it.
    pub author: PeerId,
    /// `owner`, `member`, `joining`, `rejoining`, `removed`, `rolled_back`.
    pub state: String,
    /// Of its keys.
    pub epoch: Option<u64>,
    /// How many there are.
    pub members: usize,
    /// How many were said, as this host knows it.
    pub messages: u64,
    /// Of ours, that are not in the log yet.
    pub unsent: usize,
    /// The reason for which a request to join waits, or messages of ours after a start or a time away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<String>,
    /// Why nothing can be said, or nobody lets this host in, and the way out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// That this host's clock differs from others'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<String>,
    /// That wait for `outbox`.
    pub outbox: usize,
    /// Entries that others have, and this host lacks.
    pub missing: u64,
    /// Its log.
    pub log: LogStatus,
    /// Private prefixes of lcroute that its keys seal.
    pub prefixes: Vec<ProtectedStatus>,
    /// What users should know, the last ones.
    pub notices: Vec<String>,
}

/// A private prefix that a group's keys seal.
#[derive(Debug, Serialize, Deserialize)]
pub struct ProtectedStatus {
    /// Such as `ff1e:7::/32`.
    pub prefix: String,
    /// Whose key seals; none: this host is no member.
    pub epoch: Option<u64>,
    /// lcroute has the keys.
    pub sealed: bool,
    /// Why it has not: the prefix is closed on this host.
    pub problem: Option<String>,
}

/// A log, as `status` tells it.
#[derive(Debug, Serialize, Deserialize)]
pub struct LogStatus {
    /// The multicast group.
    pub address: String,
    /// That are kept.
    pub entries: usize,
    /// That they take.
    pub bytes: usize,
    /// Packets, entries and requests that were not taken, by reason.
    pub drops: std::collections::BTreeMap<String, u64>,
}

/// What is held, as `status` tells it.
#[derive(Debug, Serialize, Deserialize)]
pub struct HeldStatus {
    /// How this host calls it.
    pub name: String,
    /// Its owner's key.
    pub group: PeerId,
    /// Authors, the owner among them.
    pub authors: usize,
    /// Its log.
    pub log: LogStatus,
}

/// All of it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    /// Groups that this host is in.
    pub groups: Vec<GroupStatus>,
    /// Groups that it holds.
    pub held: Vec<HeldStatus>,
    /// Interfaces in use.
    pub interfaces: Vec<String>,
}

/// A member.
#[derive(Debug, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Its key in this group.
    pub author: PeerId,
    /// How it calls itself; nothing proves it.
    pub name: String,
    /// The same with a mark where another name looks alike.
    pub shown: String,
    /// The owner.
    pub owner: bool,
    /// This host.
    pub me: bool,
    /// The last of its entries that is here.
    pub last: u32,
    /// When it said its last message, by its clock: ms since 1970; none: it has said nothing that is here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spoke: Option<u64>,
}

/// How long a request may take to come, from the beginning of the connection or the answer before it. Chosen: programs write
/// at once.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest request, in bytes: the longest message, of which JSON may write each byte as `\u0000`, with room for the rest.
pub const MAX_REQUEST: usize = 6 * MAX_TEXT + 4 * 1_024;

/// Longest message that a user sends, in bytes.
pub const MAX_TEXT: usize = 64 * 1_024;
