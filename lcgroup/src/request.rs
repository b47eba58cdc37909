//! Requests on the control socket: one JSON object a line, as in the other programs.

use std::net::Ipv6Addr;
use std::time::Duration;

use lcgroup_core::file::FileId;
use librecast::id::PeerId;
use librecast::outside::Place;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::files::{SentFile, Which};

/// Messages that are wanted, as options of `tail`, too.
#[derive(Debug, Clone, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
// clap would call its group as that of the verb
#[group(skip)]
pub struct Tail {
    /// The group
    pub group: String,
    /// Go on with what comes
    #[arg(short, long)]
    #[serde(default)]
    pub follow: bool,
    /// Only what came after this message (the number that --json shows)
    #[arg(long, value_name = "N")]
    #[serde(default)]
    pub after: Option<u64>,
    /// Only the last N messages
    #[arg(short = 'n', long, value_name = "N", conflicts_with = "after")]
    #[serde(default)]
    pub last: Option<u64>,
    /// Only from the first message on that was not read, on any device of yours
    #[arg(long, conflicts_with_all = ["after", "last"])]
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub new: bool,
}

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
    /// The open invitations.
    Invitations { group: String },
    /// Withdraws an invitation, by its line or the beginning of its id.
    Withdraw {
        group: String,
        invitation: Zeroizing<String>,
    },
    /// Sends a message: text, or bytes in base64.
    Send {
        group: String,
        text: Option<Zeroizing<String>>,
        bytes: Option<Zeroizing<String>>,
    },
    /// Begins a call, and sends its text; returns it.
    Call { group: String },
    /// Opens a port of the group's own network for a program of the user. The descriptor comes with
    /// the first byte of the answer, [`Entered`].
    Enter { group: String },
    /// Sends a file of `length` bytes, which follow once the daemon is ready.
    SendFile {
        group: String,
        name: String,
        length: u64,
    },
    /// Fetches a file. Its bytes follow the answer, unless that has `waits`.
    Get { group: String, which: Which },
    /// Serves a sealed file that is on the shelf; from a connection's thread alone.
    #[serde(skip)]
    ServeFile { group: String, id: FileId },
    /// Sends the message of a file; from a connection's thread alone.
    #[serde(skip)]
    SayFile { group: String, file: SentFile },
    /// A sealed file was damaged, and is gone; from a connection's thread alone.
    #[serde(skip)]
    LookAtFile { group: String, id: FileId },
    /// Messages after number `after`; with `follow` the connection also delivers new ones.
    Tail(Tail),
    /// Sets a key of the shared state: text, or bytes in base64; neither removes it.
    Set {
        group: String,
        key: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<Zeroizing<String>>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bytes: Option<Zeroizing<String>>,
    },
    /// The value of a key.
    Value { group: String, key: String },
    /// All keys with their values.
    Keys { group: String },
    /// Changes behind number `after`; none: the number to begin from.
    Changes {
        group: String,
        #[serde(default)]
        after: Option<u64>,
    },
    /// Notes that the user has read all messages up to number `n`.
    Read { group: String, n: u64 },
    /// The members of a group.
    Members { group: String },
    /// The deputies of a group.
    Deputies { group: String },
    /// Makes a member, by name or key, a deputy after this many seconds of silence.
    AddDeputy {
        group: String,
        member: String,
        after_s: u64,
    },
    /// Ends a deputy's right.
    RemoveDeputy { group: String, member: String },
    /// Stands down for a deputy, or for the owner; only the one in office can.
    HandOver { group: String, member: String },
    /// Removes a member by name or key, or one of its devices; only the owner can.
    Remove {
        group: String,
        member: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        device: Option<String>,
        /// Its program shows that.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        tell: bool,
    },
    /// The text that makes another host a device of this member.
    DeviceAdd { group: String, expires_s: u64 },
    /// This member with its devices.
    Devices { group: String },
    /// Asks the owner to remove a device of this member.
    DeviceRemove { group: String, device: String },
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
        /// Bytes of files; none: as before, or the default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        space: Option<u64>,
    },
    /// Leaves a line with holders, by which they call this member; an empty one ends that.
    Wake {
        group: String,
        line: Zeroizing<String>,
    },
    /// The line of an absent member that is to be called now.
    NextCall { name: String },
    /// Stops holding a group, and deletes its files.
    Unhold { name: String },
    /// Makes a board with this host as its owner; returns its text.
    BoardCreate { name: String },
    /// Posts on a board, or returns the reason for a wait.
    BoardPost {
        name: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        title: Option<String>,
        text: String,
    },
    /// Lets a key post, or returns the reason for a wait.
    BoardWriter { name: String, key: PeerId },
    /// Posts after number `after`, a page of them.
    BoardRead { name: String, after: u64 },
    /// The last posts as an Atom feed.
    BoardFeed { name: String },
    /// Follows a board, and keeps it for other readers.
    Follow {
        text: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// Follows a board no longer, and deletes its files.
    Unfollow { name: String },
}

impl Request {
    /// The group whose state the request changes in memory; the turn's end writes the files.
    pub fn changes(&self) -> Option<&str> {
        match self {
            Self::Send { group, .. }
            | Self::Set { group, .. }
            | Self::Wake { group, .. }
            | Self::Call { group }
            | Self::SayFile { group, .. }
            | Self::Invite { group, .. }
            | Self::Withdraw { group, .. }
            | Self::Remove { group, .. }
            | Self::AddDeputy { group, .. }
            | Self::RemoveDeputy { group, .. }
            | Self::HandOver { group, .. }
            | Self::DeviceRemove { group, .. }
            | Self::Read { group, .. }
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
    /// The number of messages that were not read, on any device of this member.
    pub unread: u64,
    /// All messages up to this number were read.
    pub read: u64,
    /// Seconds for which members and mailboxes keep what was said; none: for ever.
    pub keep_s: Option<u64>,
    /// Newcomers get what was said in these last seconds; none: all.
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
    /// The deputy that lets members join and removes them; none: the owner does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deputy: Option<String>,
    /// Entries that other members have and this host lacks.
    pub missing: u64,
    /// Its log.
    pub log: LogStatus,
    /// Its own network, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkStatus>,
    /// Private prefixes of lcroute that its keys seal.
    pub prefixes: Vec<ProtectedStatus>,
    /// Sealed files of its messages on this host.
    pub files: FilesStatus,
    /// The last notices for users.
    pub notices: Vec<String>,
}

impl GroupStatus {
    /// Whether a wait for membership is over: what must outlast this run is on disk.
    pub fn is_settled(&self) -> bool {
        let lasts = { self.network.as_ref() }.is_none_or(|network| network.lasting);
        self.state != "joining" && (lasts || self.state != "member")
    }
}

/// A private prefix that a group's keys seal.
#[derive(Debug, Serialize, Deserialize)]
pub struct ProtectedStatus {
    /// Such as `ff1e:7::/32`.
    pub prefix: String,
    /// The epoch whose key seals; none: this host is not a member.
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
    /// Address that the router maps to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mapped: Option<std::net::SocketAddrV4>,
    /// The membership on disk does not end with the invitation.
    pub lasting: bool,
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
    pub keep_s: Option<u64>,
    /// The group's own network, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkStatus>,
    /// Its log.
    pub log: LogStatus,
    /// Its sealed files.
    pub files: FilesStatus,
}

/// Sealed files of a group on this host.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct FilesStatus {
    /// Whole ones.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// The most bytes that this host keeps.
    pub space: u64,
    /// Those that a holder wants and lacks.
    pub missing: usize,
    /// Why this host cannot serve or fetch them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// The answer to [`Request::Status`].
#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    /// Groups with this host as a member or joiner.
    pub groups: Vec<GroupStatus>,
    /// Groups that it holds.
    pub held: Vec<HeldStatus>,
    /// Boards that it owns, or follows.
    #[serde(default)]
    pub boards: Vec<BoardStatus>,
    pub interfaces: Vec<String>,
}

/// A board in `status`.
#[derive(Debug, Serialize, Deserialize)]
pub struct BoardStatus {
    /// Its name on this host.
    pub name: String,
    /// Its text, for readers.
    pub board: String,
    /// This host's key on it.
    pub author: PeerId,
    /// Whether this host may post.
    pub writes: bool,
    /// Posts on this host.
    pub posts: usize,
    /// Why this host cannot post, and the remedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Its log.
    pub log: LogStatus,
}

/// The answer to [`Request::Enter`]: addresses of the network's lc0.
#[derive(Debug, Serialize, Deserialize)]
pub struct Entered {
    /// The address of lc0.
    pub address: Ipv6Addr,
    /// Its link-local address.
    pub link_local: Ipv6Addr,
}

/// An invitation that others may use.
#[derive(Debug, Serialize, Deserialize)]
pub struct InvitationStatus {
    /// 16 hexadecimal digits.
    pub id: String,
    /// When it expires: ms since 1970.
    pub expires: u64,
    /// How many others may use it.
    pub left: u32,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct DeputyStatus {
    /// Its key in this group.
    pub author: PeerId,
    /// Its name, chosen by itself and not proven.
    pub name: String,
    /// The same with a mark if another name looks alike.
    pub shown: String,
    /// It takes over after this many seconds of silence.
    pub after_s: u32,
    /// It is a deputy now; otherwise it was one.
    pub named: bool,
    /// It lets members join and removes them now.
    pub in_office: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Its key in this group; of several devices, that of the first one that is a member.
    pub author: PeerId,
    /// The key of its first device, which vouches for the others.
    pub person: PeerId,
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
    pub devices: Vec<DeviceStatus>,
}

/// A device of a member.
#[derive(Debug, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// From 1, as the group stands now.
    pub number: usize,
    /// Its key in this group.
    pub author: PeerId,
    /// Its name; only the member's own devices know it, and the first one has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    pub owner: bool,
    pub me: bool,
    pub last: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spoke: Option<u64>,
}

/// Time limit of a request after the connection or last answer. Chosen: programs write at once.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a request: the longest message with each byte as `\u0000` in JSON, and a reserve.
pub const MAX_REQUEST: usize = 6 * MAX_TEXT + 4 * 1_024;

/// Bytes of a user's message.
pub const MAX_TEXT: usize = 64 * 1_024;
/// Whether a name is valid for a group, and so for a folder.
pub fn is_name(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=64).contains(&name.len()) && !name.starts_with('.') && name.chars().all(good)
}
