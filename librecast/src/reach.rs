//! The protocol between the router and `lcroute-reach`, its program for a DHT and a Matrix room,
//! over `reach.sock`: one JSON object a line.
//!
//! ```text
//! router                      lcroute-reach
//!   | -- {"plan": ...} --------> |   values to hold, keys to look up; replaces the last, null: end
//!   | <------- {"seen": ...} --- |   a value under one of the keys
//!   | <------- {"state": ...} -- |   the state of the DHT
//!   | -- {"matrix": ...} ------> |   account, room, value to keep; replaces the last, null: end
//!   | <------- {"kept": ...} --- |   a value that an account keeps in the room
//!   | <------- {"room": ...} --- |   the state of the room
//! ```
//!
//! The router signs; the program has no key and cannot open a value. Both sides bound all input,
//! and a value counts only under a requested key.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::Zeroizing;

/// Most items of a plan. A node has four: its own of two days, and two for an issuer's mailbox.
/// Each of 32 pairs has two, and around the change of its period four.
pub const MAX_ITEMS: usize = 72;
/// Most keys of each kind in a plan: those of pairs.
pub const MAX_KEYS: usize = 72;
/// Most bootstrap nodes.
pub const MAX_BOOTSTRAP: usize = 32;
/// Longest value in bytes: BEP 44 has room for 1,000, with the value's length before it.
pub const MAX_VALUE: usize = 996;
/// Longest line in bytes: some more than the largest plan has.
pub const MAX_LINE: usize = 128 * 1024;

/// Bytes that are base58 in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Base58<const N: usize>(pub [u8; N]);

impl<const N: usize> fmt::Display for Base58<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bs58::encode(&self.0).into_string())
    }
}

impl<const N: usize> FromStr for Base58<N> {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; N];
        match bs58::decode(text).onto(&mut bytes) {
            Ok(length) if length == N => Ok(Self(bytes)),
            _ => Err("not base58 of this length"),
        }
    }
}

impl<const N: usize> Serialize for Base58<N> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Base58<N> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// A key of BEP 44: an ed25519 public key.
pub type Key = Base58<32>;

/// A value of at most [`MAX_VALUE`] bytes; base58 in JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value(pub Vec<u8>);

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&bs58::encode(&self.0).into_string())
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        let mut bytes = vec![0; MAX_VALUE];
        // too long a text fails early: decoding takes the square of its length
        match bs58::decode(&*text).onto(bytes.as_mut_slice()) {
            Ok(length) => {
                bytes.truncate(length);
                Ok(Self(bytes))
            }
            Err(_) => Err(de::Error::custom("not base58 of a value, or too long")),
        }
    }
}

/// A mutable item (BEP 44), signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// Its key.
    pub key: Key,
    /// Of two items the one with the higher sequence counts.
    pub sequence: i64,
    /// Its value.
    pub value: Value,
    /// Signature over sequence and value, by the key.
    pub signature: Base58<64>,
}

/// The program's task from now on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// `HOST:PORT` of bootstrap nodes of the DHT; none: the well-known ones of BitTorrent.
    pub bootstrap: Vec<String>,
    /// Items that it holds.
    pub hold: Vec<Item>,
    /// Keys that are looked up more and more rarely: their owners are away.
    pub seek: Vec<Key>,
    /// Keys that are looked up steadily: a value may appear at any time.
    pub watch: Vec<Key>,
    /// Rises when paths of this host have changed: everything is retried at once.
    pub round: u64,
}

impl Plan {
    /// Returns whether it is within the bounds.
    pub fn is_bounded(&self) -> bool {
        self.hold.len() <= MAX_ITEMS
            && self.seek.len() <= MAX_KEYS
            && self.watch.len() <= MAX_KEYS
            && self.bootstrap.len() <= MAX_BOOTSTRAP
    }
}

/// The state of the DHT.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Responding nodes.
    pub nodes: usize,
    /// Items of the plan that DHT nodes hold.
    pub held: usize,
    /// The address from which most DHT nodes receive this host's datagrams, if its NAT keeps ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outer: Option<Ipv4Addr>,
    /// Dropped values and items, by reason.
    pub dropped: BTreeMap<String, u64>,
}

/// Longest name of a room, account or server in bytes, by the Matrix specification.
pub const MAX_NAME: usize = 255;
/// Longest access token in bytes. Chosen: four times one that is itself a signed text.
pub const MAX_ACCESS_TOKEN: usize = 4_096;

/// A room of Matrix, by its id (`!abc:example.org`, `!abc`) or by an alias (`#team:example.org`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Room(String);

impl Room {
    /// Returns the room in users' form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the server in its name, which knows the room.
    pub fn server(&self) -> Option<&str> {
        Some(self.0.split_once(':')?.1)
    }

    /// Returns its URI for a token (`matrix:r/team:example.org`, `matrix:roomid/abc:example.org`).
    #[must_use]
    pub fn to_uri(&self) -> String {
        match self.0.split_at(1) {
            ("#", name) => format!("{SCHEME}r/{name}"),
            (_, name) => format!("{SCHEME}roomid/{name}"),
        }
    }

    /// Returns the room with this URI; none if it is no room's.
    #[must_use]
    pub fn of_uri(uri: &str) -> Option<Self> {
        let name = uri.strip_prefix(SCHEME)?;
        let room = match name.split_once('/')? {
            ("r", name) => format!("#{name}"),
            ("roomid", name) => format!("!{name}"),
            _ => return None,
        };
        room.parse().ok()
    }
}

const SCHEME: &str = "matrix:";
/// Longest room in bytes: its URI is a URL of a token, which has at most 255.
const MAX_ROOM: usize = MAX_NAME - "matrix:roomid/".len();

impl FromStr for Room {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._=+-~:[]".contains(c);
        let fits = match text.split_at_checked(1) {
            Some(("!", id)) => !id.is_empty(),
            Some(("#", alias)) => alias
                .split_once(':')
                .is_some_and(|(name, server)| !name.is_empty() && !server.is_empty()),
            _ => false,
        };
        match fits && text.len() <= MAX_ROOM && text[1..].chars().all(plain) {
            true => Ok(Self(text.to_owned())),
            false => Err("write it as #ALIAS:SERVER or !ID:SERVER, in ASCII"),
        }
    }
}

impl TryFrom<String> for Room {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Room> for String {
    fn from(room: Room) -> Self {
        room.0
    }
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A token that gives access to an account; never shown, and wiped from memory when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken(Zeroizing<String>);

impl AccessToken {
    /// Returns the token itself.
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl FromStr for AccessToken {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let printable = text.bytes().all(|b| b.is_ascii_graphic());
        match !text.is_empty() && text.len() <= MAX_ACCESS_TOKEN && printable {
            true => Ok(Self(Zeroizing::new(text.to_owned()))),
            false => Err("no access token: one word of printable ASCII"),
        }
    }
}

crate::debug_by_name!(AccessToken);

impl Serialize for AccessToken {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for AccessToken {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(d)?);
        text.parse().map_err(de::Error::custom)
    }
}

/// A value under a name, with its expiry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keep {
    /// Its name, which changes each day.
    pub name: Key,
    /// The value.
    pub value: Value,
    /// Expiry in Unix seconds.
    pub until: u64,
}

/// An account, the room where its nodes meet, and the value kept there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meeting {
    /// `https://HOST` or `https://HOST:PORT` of the account's server.
    pub homeserver: String,
    /// The room.
    pub room: Room,
    /// The expected account of the token; none: any.
    pub user: Option<String>,
    /// Gives the program access to the account.
    pub token: AccessToken,
    /// The value to keep in the room.
    pub keep: Option<Keep>,
    /// Rises when paths of this host have changed: everything is retried at once.
    pub round: u64,
}

impl Meeting {
    /// Returns whether it is within the bounds.
    pub fn is_bounded(&self) -> bool {
        let user = self.user.as_deref().unwrap_or_default();
        self.homeserver.len() <= MAX_NAME && user.len() <= MAX_NAME
    }
}

/// The state of the room.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomState {
    /// Whether this node and other nodes find each other there.
    pub open: bool,
    /// Valid values of other nodes there.
    pub values: usize,
    /// The present problem.
    pub problem: Option<String>,
    /// Drops by reason.
    pub dropped: BTreeMap<String, u64>,
}

/// A line to the program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ToReach {
    /// The DHT's plan from now on; none: leave the DHT.
    Plan(Option<Plan>),
    /// The room from now on; none: leave it.
    Matrix(Option<Box<Meeting>>),
    /// The reason why the connection ends.
    Error(String),
}

/// A line from the program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FromReach {
    /// A value under this key, signed by it: the newest that was found.
    Seen {
        /// Its key.
        key: Key,
        /// The value.
        value: Value,
    },
    /// The state of the DHT has changed.
    State(State),
    /// The newest value that an account keeps in the room.
    Kept {
        /// Its account.
        account: String,
        /// Its name.
        name: Key,
        /// The value.
        value: Value,
    },
    /// The state of the room has changed.
    Room(RoomState),
}

/// Returns the signed bytes of an item without salt (BEP 44).
#[must_use]
pub fn signed_bytes(sequence: i64, value: &[u8]) -> Vec<u8> {
    let mut bytes = format!("3:seqi{sequence}e1:v{}:", value.len()).into_bytes();
    bytes.extend_from_slice(value);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_is_as_the_example_of_bep_44() {
        let signed = signed_bytes(1, b"Hello World!");
        assert_eq!(signed, b"3:seqi1e1:v12:Hello World!");
    }

    #[test]
    fn a_value_comes_back_and_a_longer_one_is_refused() {
        for bytes in [vec![], vec![0; 3], vec![7; MAX_VALUE]] {
            let value = Value(bytes);
            let text = serde_json::to_string(&value).unwrap();
            let read: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(read, value);
        }
        let long = serde_json::to_string(&Value(vec![7; MAX_VALUE + 1])).unwrap();
        serde_json::from_str::<Value>(&long).unwrap_err();
    }

    #[test]
    fn a_room_is_written_as_in_matrix_and_stands_in_tokens_as_its_uri() {
        for (room, uri, server) in [
            ("#lc:a.example", "matrix:r/lc:a.example", Some("a.example")),
            ("!Ab-_:a:8448", "matrix:roomid/Ab-_:a:8448", Some("a:8448")),
            ("!31hneApxJ_1o-63", "matrix:roomid/31hneApxJ_1o-63", None),
        ] {
            let read: Room = room.parse().unwrap();
            assert_eq!((read.to_uri().as_str(), read.server()), (uri, server));
            assert_eq!(Room::of_uri(uri), Some(read));
        }
        let long = format!("!{}", "x".repeat(MAX_ROOM));
        for bad in [
            "",
            "lc",
            "#lc",
            "#:a",
            "!",
            "!a/../b:c",
            "#ü:a",
            "@a:b",
            &long,
        ] {
            bad.parse::<Room>().unwrap_err();
        }
        for other in [
            "ws://a",
            "matrix:",
            "matrix:u/me:a",
            "matrix:r/",
            "matrix:r/a?via=b",
        ] {
            assert_eq!(Room::of_uri(other), None, "{other}");
        }
    }

    #[test]
    fn an_access_token_is_one_word_and_no_debug_text_shows_it() {
        let token: AccessToken = " syt_abc\n".parse().unwrap();
        assert_eq!(token.secret(), "syt_abc");
        assert_eq!(format!("{token:?}"), "AccessToken");
        for bad in [
            "",
            "two words",
            "a\r\nHost: b",
            &"x".repeat(MAX_ACCESS_TOKEN + 1),
        ] {
            bad.parse::<AccessToken>().unwrap_err();
        }
    }

    #[test]
    fn texts_of_another_length_are_refused() {
        let key = Base58([7; 32]);
        assert_eq!(key.to_string().parse(), Ok(key));
        for bad in ["", "1", "0OIl", &bs58::encode([7; 33]).into_string()] {
            bad.parse::<Key>().unwrap_err();
        }
    }
}
