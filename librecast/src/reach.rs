//! What the router and `lcroute-reach`, its program for a DHT and for a Matrix room, say to each other over `reach.sock`: one
//! JSON object a line.
//!
//! ```text
//! router                      lcroute-reach
//!   | -- {"plan": ...} --------> |   values to hold, keys to look up; the next one replaces it, null ends it
//!   | <------- {"seen": ...} --- |   a value under one of these keys
//!   | <------- {"state": ...} -- |   how it stands with the DHT
//!   | -- {"matrix": ...} ------> |   account, room and the value to keep there; the next one replaces it, null ends it
//!   | <------- {"kept": ...} --- |   a value that an account keeps in the room
//!   | <------- {"room": ...} --- |   how it stands with the room
//! ```
//!
//! The router signs; the program has no key and cannot open a value. Neither side believes the other more than it must: all
//! that comes is bounded, and a value counts only under a key that was asked for.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::Zeroizing;

/// Most items of a plan. A node has four: its own of two days, and as many for somebody who does not know it.
pub const MAX_ITEMS: usize = 8;
/// Most keys of each kind in a plan. Chosen: twice what the router looks up.
pub const MAX_KEYS: usize = 32;
/// Most bootstrap nodes.
pub const MAX_BOOTSTRAP: usize = 32;
/// Longest value in bytes: a presence record. BEP 44 has room for 1,000.
pub const MAX_VALUE: usize = 512;
/// Longest line in bytes: a plan with all of this, and as much again.
pub const MAX_LINE: usize = 32 * 1024;

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
        // what is longer finds no room: decoding it would take the square of its length
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
    /// Under which key.
    pub key: Key,
    /// Of two the higher counts.
    pub sequence: i64,
    /// What is held.
    pub value: Value,
    /// Over sequence and value, by the key.
    pub signature: Base58<64>,
}

/// What the program is to do from now on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// `HOST:PORT` of nodes by which the DHT is entered; without any, the well-known ones of BitTorrent's.
    pub bootstrap: Vec<String>,
    /// What it holds.
    pub hold: Vec<Item>,
    /// Keys that are looked up more and more rarely: their owners are away.
    pub seek: Vec<Key>,
    /// Keys that are looked up steadily: anybody may write there at any time.
    pub watch: Vec<Key>,
    /// Counts up when paths of this host have changed: all is tried anew at once.
    pub round: u64,
}

impl Plan {
    /// Whether it is within the bounds.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        self.hold.len() <= MAX_ITEMS
            && self.seek.len() <= MAX_KEYS
            && self.watch.len() <= MAX_KEYS
            && self.bootstrap.len() <= MAX_BOOTSTRAP
    }
}

/// How it stands with the DHT.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Nodes that answer.
    pub nodes: usize,
    /// Items of the plan that nodes hold.
    pub held: usize,
    /// Values and items that were dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
}

/// Longest name of a room, an account or a server in bytes, as Matrix has it.
pub const MAX_NAME: usize = 255;
/// Longest access token in bytes. Chosen: four times one that is a signed text in itself.
pub const MAX_ACCESS_TOKEN: usize = 4_096;

/// A room of Matrix, by its id (`!abc:example.org`, `!abc`) or by an alias (`#team:example.org`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Room(String);

impl Room {
    /// As users write it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The server in its name: one that knows the room.
    #[must_use]
    pub fn server(&self) -> Option<&str> {
        Some(self.0.split_once(':')?.1)
    }

    /// Its URI (`matrix:r/team:example.org`, `matrix:roomid/abc:example.org`), as it stands among the URLs of a token.
    #[must_use]
    pub fn to_uri(&self) -> String {
        match self.0.split_at(1) {
            ("#", name) => format!("{SCHEME}r/{name}"),
            (_, name) => format!("{SCHEME}roomid/{name}"),
        }
    }

    /// The room with this URI; none if it is one of something else.
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
/// Longest room in bytes: its URI stands in a token, in which URLs have 255.
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

/// What lets somebody act for an account; never shown, and wiped from memory when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken(Zeroizing<String>);

impl AccessToken {
    /// The token itself.
    #[must_use]
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

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessToken")
    }
}

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

/// A value under a name, until it is good for nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keep {
    /// Its name: another one each day.
    pub name: Key,
    /// The value.
    pub value: Value,
    /// Until when it is good, in unix seconds.
    pub until: u64,
}

/// An account, the room where its nodes meet, and what is kept there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meeting {
    /// `https://HOST` or `https://HOST:PORT` of the account's server.
    pub homeserver: String,
    /// The room.
    pub room: Room,
    /// The account that the token is to be of; none: whose it is.
    pub user: Option<String>,
    /// Lets the program act for the account.
    pub token: AccessToken,
    /// What is kept in the room.
    pub keep: Option<Keep>,
    /// Counts up when paths of this host have changed: all is tried anew at once.
    pub round: u64,
}

impl Meeting {
    /// Whether it is within the bounds.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        let user = self.user.as_deref().unwrap_or_default();
        self.homeserver.len() <= MAX_NAME && user.len() <= MAX_NAME
    }
}

/// How it stands with the room.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomState {
    /// Whether others find this node there, and it finds them.
    pub open: bool,
    /// Values of others there that are good.
    pub values: usize,
    /// What does not work.
    pub problem: Option<String>,
    /// What was dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
}

/// A line to the program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ToReach {
    /// What to do with the DHT from now on; none: leave it.
    Plan(Option<Plan>),
    /// Where to meet from now on; none: nowhere.
    Matrix(Option<Box<Meeting>>),
    /// Why the connection ends.
    Error(String),
}

/// A line from the program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FromReach {
    /// A value under this key, signed by it: as new as any that was found.
    Seen {
        /// Which key.
        key: Key,
        /// What is there.
        value: Value,
    },
    /// It has changed.
    State(State),
    /// A value that an account keeps in the room: as new as any.
    Kept {
        /// Which account.
        account: String,
        /// Under which name.
        name: Key,
        /// What is there.
        value: Value,
    },
    /// It has changed.
    Room(RoomState),
}

/// What is signed of an item without salt (BEP 44).
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
