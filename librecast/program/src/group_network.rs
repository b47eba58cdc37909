//! The network of a group's own, between lcgroup and the `lcroute guest` that it starts for it.
//!
//! ```text
//! lcgroup                          lcroute guest
//!   | -- GroupEntry, in a pipe ------> |
//!   | -- {"wanted": ...} ------------> |   to an issuer: open texts, members, expelled keys
//!   | -- {"signed": ...} ------------> |   to an issuer: the signature for a DHT, or none
//!   | <------- {"sign": ...} --------- |
//!   | <------- {"state": ...} -------- |
//!
//! ```
//!
//! An issuer is the owner, or a deputy in office.
//!
//! The guest reads what strangers send. It has the keys of the group's network, and none of the
//! group.

use std::env;
use std::ffi::OsString;
use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

use librecast::id::PeerId;
use librecast::outside::Place;
use librecast::reach::{Base58, Value};
use librecast::text_network::TextKey;
use nix::libc;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::arguments;
use crate::guest;
pub use crate::guest::keep_open;

/// Longest message in bytes: 1,000 members and as many expelled keys, in JSON. Below the usual size
/// of a datagram of a socket pair.
pub const MAX_MESSAGE: usize = 160 * 1_024;
/// Most texts of a group that lead into its network at a time: seven lines, one for mailboxes, four
/// for devices. Chosen: each has a connection to each of the servers, which take 64 of an address.
pub const MAX_TEXTS: usize = 12;

/// The way of a program into the network of a group. Holds secrets.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupEntry {
    /// Descriptor of a datagram socket for [`ToGuest`] and [`FromGuest`].
    pub control: RawFd,
    /// Descriptor of the program's packets, which the guest passes on.
    pub packets: RawFd,
    /// Folder of the node's state.
    pub state: PathBuf,
    /// Servers where the group meets; none: those of the configuration.
    pub places: Vec<Place>,
    /// What this host is in the network.
    pub role: GroupRole,
}

/// What a host is in the network of a group.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum GroupRole {
    /// Its owner, by the seed of the network.
    Owner(Base58<32>),
    /// A deputy in office, which was a member before.
    Deputy {
        /// Seed of its key as an issuer.
        key: Base58<32>,
        /// The issuer's certificate.
        certificate: Value,
    },
    /// A member or a mailbox.
    Member {
        /// Seed of its key.
        key: Base58<32>,
        /// Public key of the text: the group, or a deputy.
        group: PeerId,
        /// Secret of the text.
        secret: Base58<32>,
    },
}

impl std::fmt::Debug for GroupRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Owner(_) => "Owner",
            Self::Deputy { .. } => "Deputy",
            Self::Member { .. } => "Member",
        })
    }
}

impl Drop for GroupRole {
    fn drop(&mut self) {
        match self {
            Self::Owner(key) | Self::Deputy { key, .. } => key.0.zeroize(),
            Self::Member { key, secret, .. } => {
                key.0.zeroize();
                secret.0.zeroize();
            }
        }
    }
}

impl ZeroizeOnDrop for GroupRole {}

/// A text that leads into the network. Holds secrets.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupText {
    /// Its public key: the group, or a deputy.
    pub key: PeerId,
    /// Its secret.
    pub secret: Base58<32>,
    /// The attestation of that key about the network.
    pub attestation: Base58<64>,
    /// Seed of the invitation's key in the network.
    pub invitation: Base58<32>,
    /// End of the invitation in unix seconds; none: it has no end.
    pub until: Option<u64>,
}

impl GroupText {
    /// Returns the keys of the text.
    pub fn text_key(&self) -> TextKey {
        TextKey::new(self.key, self.secret.0)
    }
}

impl std::fmt::Debug for GroupText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GroupText of {}", self.key)
    }
}

impl Drop for GroupText {
    fn drop(&mut self) {
        self.secret.0.zeroize();
        self.invitation.0.zeroize();
    }
}

impl ZeroizeOnDrop for GroupText {}

/// An issuer's wishes for the network of a group; they replace the last ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Texts that lead into it, [`MAX_TEXTS`] at most.
    pub texts: Vec<GroupText>,
    /// Keys of the members: their certificates depend on no invitation any more.
    pub members: Vec<PeerId>,
    /// Keys to expel: of former members, and of the invitations by which they came.
    pub expelled: Vec<PeerId>,
    /// Keys of issuers to expel once no node depends on them that is here.
    pub ended: Vec<PeerId>,
}

/// A message to the guest.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToGuest {
    /// The issuer's wishes.
    Wanted(Wanted),
    /// The answer to the oldest question of this text; zeros: refused.
    Signed {
        /// The text's secret.
        text: Base58<32>,
        /// The signature.
        signature: Base58<64>,
    },
}

/// A message of the guest.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromGuest {
    /// Changes of the state.
    State(GroupState),
    /// The record of a text is to be signed for a DHT.
    Sign {
        /// The text's secret.
        text: Base58<32>,
        /// The day of the item, by a time in unix seconds.
        time: u64,
        /// Its sequence.
        sequence: u64,
        /// The sealed record.
        value: Value,
    },
}

/// The state of a guest in the network of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupState {
    /// The network is known.
    pub found: bool,
    /// Links of this host.
    pub links: usize,
    /// Other nodes of the network that are reachable.
    pub present: usize,
    /// UDP port of links; 0: not known yet.
    pub port: u16,
    /// Address that the router maps to it, if the Internet reaches it there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mapped: Option<SocketAddrV4>,
    /// URLs of the servers in use.
    pub servers: Vec<String>,
    /// Servers that answer.
    pub answering: usize,
    /// Others are looked for on LANs.
    pub on_lans: bool,
    /// Others are looked for in a DHT.
    pub dht: bool,
    /// What was found has the date of another day.
    pub stale: bool,
    /// The membership on disk does not end with the invitation.
    pub lasting: bool,
    /// Why this host is in the network no more.
    pub ended: Option<String>,
}

/// Takes a descriptor that this process has inherited for itself. To be called once for each number.
///
/// # Errors
/// It is not open.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    if number <= libc::STDERR_FILENO {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the number is checked by the next call, and nobody else in this process has it
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    match keep_open(fd.as_fd(), false) {
        Ok(()) => Ok(fd),
        Err(e) => {
            // not open: it must not be closed either
            std::mem::forget(fd);
            Err(e)
        }
    }
}

/// Returns the path of this program, as it was called: several may be links to one executable.
///
/// # Errors
/// The path of the executable is unknown.
pub fn own_program() -> io::Result<PathBuf> {
    guest::by_name(arguments::given()).map_or_else(env::current_exe, Ok)
}

/// Returns a pipe from which the guest reads this entry, once it is kept open.
pub fn pipe_of(entry: &GroupEntry) -> io::Result<OwnedFd> {
    let json = zeroize::Zeroizing::new(serde_json::to_vec(entry)?);
    guest::inherited(&json)
}

/// Returns these arguments with another number behind `option`.
#[must_use]
pub fn with_number(arguments: &[OsString], option: &str, number: RawFd) -> Vec<OsString> {
    let mut all = arguments.to_vec();
    if let Some(at) = all.iter().position(|argument| argument == option)
        && let Some(value) = all.get_mut(at + 1)
    {
        *value = number.to_string().into();
    }
    all
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;

    use super::*;

    #[test]
    fn messages_come_back_and_show_no_secret() {
        let key = SecretKey::from_seed(&[1; 32]).peer_id();
        let text = GroupText {
            key,
            secret: Base58([7; 32]),
            attestation: Base58([8; 64]),
            invitation: Base58([9; 32]),
            until: Some(5),
        };
        let wanted = Wanted {
            texts: vec![text],
            members: vec![key],
            ..Wanted::default()
        };
        let json = serde_json::to_string(&ToGuest::Wanted(wanted.clone())).unwrap();
        let ToGuest::Wanted(back) = serde_json::from_str(&json).unwrap() else {
            panic!("{json}");
        };
        assert_eq!(back, wanted);
        let shown = format!("{wanted:?}");
        assert!(!shown.contains(&Base58([7; 32]).to_string()), "{shown}");
        let role = GroupRole::Member {
            key: Base58([7; 32]),
            group: key,
            secret: Base58([9; 32]),
        };
        assert_eq!(format!("{role:?}"), "Member");
        let role = GroupRole::Deputy {
            key: Base58([7; 32]),
            certificate: Value(vec![1, 2]),
        };
        assert_eq!(format!("{role:?}"), "Deputy");
        let json = serde_json::to_string(&role).unwrap();
        assert_eq!(serde_json::from_str::<GroupRole>(&json).unwrap(), role);
    }

    #[test]
    fn the_largest_wish_is_within_the_bound() {
        let keys = |n: u32| {
            let key = |n: u32| {
                let mut seed = [0; 32];
                seed[..4].copy_from_slice(&n.to_be_bytes());
                SecretKey::from_seed(&seed).peer_id()
            };
            (0..n).map(key).collect::<Vec<_>>()
        };
        let text = |n| GroupText {
            key: keys(1)[0],
            secret: Base58([n; 32]),
            attestation: Base58([255; 64]),
            invitation: Base58([255; 32]),
            until: Some(u64::MAX),
        };
        let wanted = Wanted {
            texts: (0..MAX_TEXTS as u8).map(text).collect(),
            members: keys(1_000),
            // former members, invitations, lines of others, and keys of deputies
            expelled: keys(1_000 + 64 + 64 + 384),
            ended: keys(240),
        };
        let json = serde_json::to_vec(&ToGuest::Wanted(wanted)).unwrap();
        assert!(json.len() <= MAX_MESSAGE, "{}", json.len());
    }

    #[test]
    fn a_program_that_enters_again_names_the_other_pipe() {
        let given = ["lcroute", "guest", "--group-fd", "7", "--", "lcgroup"].map(OsString::from);
        let again = with_number(&given, "--group-fd", 12);
        assert_eq!(again[3], "12");
        assert_eq!((again.len(), &again[5]), (6, &given[5]));
    }
}
