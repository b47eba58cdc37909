//! What the router and `lcroute-reach`, its program for a DHT, say to each other over `reach.sock`: one JSON object a line.
//!
//! ```text
//! router                      lcroute-reach
//!   | -- {"plan": ...} --------> |   values to hold, keys to look up; the next one replaces it
//!   | <------- {"seen": ...} --- |   a value under one of these keys
//!   | <------- {"state": ...} -- |   how it stands with the DHT
//! ```
//!
//! The router signs; the program has no key and cannot open a value. Neither side believes the other more than it must: all
//! that comes is bounded, and a value counts only under a key that was asked for.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

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

/// A line to the program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ToReach {
    /// What to do from now on.
    Plan(Plan),
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
    fn texts_of_another_length_are_refused() {
        let key = Base58([7; 32]);
        assert_eq!(key.to_string().parse(), Ok(key));
        for bad in ["", "1", "0OIl", &bs58::encode([7; 33]).into_string()] {
            bad.parse::<Key>().unwrap_err();
        }
    }
}
