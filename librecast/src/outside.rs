//! Keys with a place (`KEY@PLACE`), and the protocol between the program for streams and
//! `lcroute-outside`, its program for links with keys of no common network, over `outside.sock`.
//!
//! ```text
//! program for streams              lcroute-outside
//!   | -- {"plan": ...} -----------> |   settings; replaces the last
//!   | -- {"pair": ...} -----------> |   a key that may call, or that is sought; replaces the last
//!   | -- {"gone": KEY} -----------> |   not any more
//!   | -- {"open": ...} -----------> |   keys of the day of this host's open key; none: it is not open
//!   | <------------ {"item": ...}-- |   a record of the open key for a DHT, to be signed by it
//!   | -- {"item": ...} -----------> |   the signed item
//!   | <------------ {"state": ...}- |   the state of a pair
//!   | <------------ {"status": ..}- |   carriers and drops
//!   | <------------ {"guests": [..]}|   keys that call the open key; packets name them
//!   | <-- packet -----------------> |   a packet of QUIC from or to a key
//!
//! frame: length 16 | kind 8 (0 JSON, 1 packet) | JSON, or: key 256 | packet
//! ```
//!
//! The program reads bytes of strangers. It has secrets of pairs, and neither the node's key nor
//! the content of streams.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::id::PeerId;
use crate::open::STATEMENT_LEN;
use crate::open_item::ItemAsk;
use crate::reach::{Base58, Item};
use crate::wire::{Reader, WireError};

/// Longest place in bytes: a URL of a token.
const MAX_PLACE: usize = 255;
/// Longest frame in bytes, without its length. Chosen: a state with all its places.
pub const MAX_FRAME: usize = 16 * 1024;
/// Longest packet in bytes: of the largest MTU that streams use.
pub const MAX_PACKET: usize = 9_216;
/// Most places of one pair, and of a plan. Chosen.
pub const MAX_PLACES: usize = 8;
const JSON: u8 = 0;
const PACKET: u8 = 1;

/// A signalling server where a key waits: `meet.example`, `meet.example:8443`, or a URL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(String);

/// The reason for which a text is not a key with a place.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The part behind `@`.
    #[error("`{0}`: a place is HOST, HOST:PORT, or a URL ws://... or wss://...")]
    Place(String),
    /// The part before it.
    #[error("{0}")]
    Key(#[from] crate::id::IdError),
}

impl Place {
    /// Returns the server as it was named: [`crate::signalling::urls`] has the URLs to try.
    pub fn server(&self) -> &str {
        &self.0
    }
}

impl FromStr for Place {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        let bad = || PlaceError::Place(text.chars().take(80).collect());
        let host = text.strip_prefix("ws://");
        let host = host.or_else(|| text.strip_prefix("wss://")).unwrap_or(text);
        let host = host.trim_end_matches('/');
        let is_plain =
            |c: char| c.is_ascii_graphic() && !matches!(c, '@' | '\\' | '"' | '\'' | '<');
        let authority = host.split('/').next().unwrap_or_default();
        if authority.is_empty() || text.len() > MAX_PLACE || !host.chars().all(is_plain) {
            return Err(bad());
        }
        let named = text.trim_end_matches('/');
        // a text without a scheme names a host, as people write it
        if host.len() == named.len() && host.contains('/') {
            return Err(bad());
        }
        Ok(Self(named.to_owned()))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// A key, and where its owner waits: `KEY` or `KEY@PLACE`. It is not secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContactText {
    /// The key.
    pub key: PeerId,
    /// The place, if one is known.
    pub place: Option<Place>,
}

impl FromStr for ContactText {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        let (key, place) = match text.split_once('@') {
            Some((key, place)) => (key, Some(place.parse()?)),
            None => (text, None),
        };
        let key = key.parse()?;
        Ok(Self { key, place })
    }
}

impl fmt::Display for ContactText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.key)?;
        match &self.place {
            Some(place) => write!(f, "@{place}"),
            None => Ok(()),
        }
    }
}

/// Settings of the program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Interfaces that are no way to others: lc0.
    pub exclude: Vec<String>,
    /// Servers where pairs wait, beside their own places; none: no server may see this host.
    pub meet: Option<Vec<Place>>,
    /// Entry nodes of the DHT (none listed: the well-known ones), if it is used.
    pub dht: Option<Vec<String>>,
    /// Whether LANs are used.
    pub lan: bool,
    /// Bound of all pairs in bits a second.
    pub rate: u64,
    /// Chooses the UDP port, so that it can be forwarded; none: any port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<PortSecret>,
    /// Interfaces over which the router may be asked to map the port (none listed: all), if it may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map_port: Option<Vec<String>>,
}

impl Plan {
    /// Returns the servers at which a pair waits that has these places of its own.
    pub fn places(&self, own: &[Place]) -> Vec<Place> {
        match &self.meet {
            Some(meet) => own.iter().chain(meet).cloned().collect(),
            None => Vec::new(),
        }
    }
}

/// A secret of the own key that chooses its UDP port, so the public key alone does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PortSecret(pub Base58<32>);

crate::debug_by_name!(PortSecret);

impl PortSecret {
    /// Returns the ports to try, the first one first: dynamic ones (RFC 6335 §6).
    pub fn ports(&self) -> [u16; 3] {
        let hash = crate::id::derive("lcroute 2026 outside port", &[&self.0.0]);
        [0, 2, 4].map(|at| u16::from_be_bytes([hash[at], hash[at + 1]]) | 0xc000)
    }
}

/// A key that may call, or that is sought.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairPlan {
    /// The own key.
    pub own: PeerId,
    /// The other key.
    pub key: PeerId,
    /// The secret of both ([`crate::pair`]).
    pub secret: Base58<32>,
    /// It may call.
    pub waits: bool,
    /// A stream to it is wanted, or open.
    pub seeks: bool,
    /// Servers where it waits.
    pub places: Vec<Place>,
}

impl fmt::Debug for PairPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            key,
            waits,
            seeks,
            places,
            ..
        } = self;
        write!(
            f,
            "PairPlan({key}, waits {waits}, seeks {seeks}, {places:?})"
        )
    }
}

/// The day's key of an open key ([`crate::open`]).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenDay {
    /// Number of the period.
    pub period: u64,
    /// Seed of the day's key.
    pub seed: Base58<32>,
    /// The statement of the open key.
    pub statement: Base58<STATEMENT_LEN>,
}

impl fmt::Debug for OpenDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenDay({})", self.period)
    }
}

/// The open key of this host, with the keys of its days; none: it is not open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenPlan {
    /// The open key.
    pub own: PeerId,
    /// Its days.
    pub days: Vec<OpenDay>,
    /// Whether items of its records are signed, as the DHT is used.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub items: bool,
}

/// A line to the program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ToOutside {
    /// Its settings.
    Plan(Plan),
    /// A pair.
    Pair(PairPlan),
    /// A pair that ends.
    Gone(PeerId),
    /// The open key of this host.
    Open(OpenPlan),
    /// A signed record of it.
    Item(Item),
}

/// The state of a pair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PairState {
    /// The other key.
    pub key: PeerId,
    /// `waits`, `linking`, `linked`.
    pub state: String,
    /// The kind of path of its link: `host`, `mapped`, `reflexive`, `relay`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The round trip of its link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
    /// The carrier by which they met.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found_by: Option<String>,
    /// Carriers that are used for it: `lan`, URLs, `dht`; those that do not work, in brackets.
    pub by: Vec<String>,
}

/// The state of the program.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Drops by reason.
    pub drops: BTreeMap<String, u64>,
    /// The state of the DHT, if it is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dht: Option<String>,
    /// Carriers by which the open key is found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open_by: Vec<String>,
    /// Where callers of the open key reach it, or what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached: Option<String>,
}

/// A caller of the open key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Caller {
    /// Its key of this call.
    pub key: PeerId,
    /// The prefix that it calls from, or the server that introduced it.
    pub prefix: String,
}

/// A line of the program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FromOutside {
    /// The state of a pair.
    State(PairState),
    /// Its own state.
    Status(Status),
    /// All callers of the open key with links.
    Guests(Vec<Caller>),
    /// A record of the open key that it has to sign.
    Item(Box<ItemAsk>),
}

/// A frame on the socket.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame<'a> {
    /// A line.
    Line(&'a [u8]),
    /// A packet of the streams with this key.
    Packet(PeerId, &'a [u8]),
}

/// Returns a frame with a line; none if it is too long.
pub fn line_frame(line: &impl Serialize) -> Option<Vec<u8>> {
    let json = serde_json::to_vec(line).ok()?;
    frame(JSON, &[&json])
}

/// Returns a frame with a packet; none if it is too long.
pub fn packet_frame(key: &PeerId, packet: &[u8]) -> Option<Vec<u8>> {
    let fits = packet.len() <= MAX_PACKET;
    fits.then(|| frame(PACKET, &[key.public_key(), packet]))?
}

fn frame(kind: u8, parts: &[&[u8]]) -> Option<Vec<u8>> {
    let length = 1 + parts.iter().map(|part| part.len()).sum::<usize>();
    if length > MAX_FRAME {
        return None;
    }
    let mut bytes = Vec::with_capacity(2 + length);
    bytes.extend_from_slice(&(length as u16).to_be_bytes());
    bytes.push(kind);
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    Some(bytes)
}

/// Splits the first frame from `bytes`; returns it with its whole length. None: it is incomplete.
///
/// # Errors
/// The bytes are not a frame.
pub fn read_frame(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, WireError> {
    let Some((length, rest)) = bytes.split_first_chunk::<2>() else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes(*length));
    if length == 0 || length > MAX_FRAME {
        return Err(WireError::Bad("frame length"));
    }
    let Some(body) = rest.get(..length) else {
        return Ok(None);
    };
    let mut r = Reader::new(body);
    let frame = match r.u8()? {
        JSON => Frame::Line(r.rest()),
        PACKET => {
            let key = PeerId::from_public_key(r.array()?).map_err(|_| WireError::Bad("key"))?;
            Frame::Packet(key, r.rest())
        }
        _ => return Err(WireError::Bad("frame kind")),
    };
    Ok(Some((frame, 2 + length)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::SecretKey;

    fn key() -> PeerId {
        SecretKey::from_seed(&[1; 32]).peer_id()
    }

    #[test]
    fn a_host_that_servers_may_not_see_waits_at_no_place_of_a_key() {
        let place = |text: &str| -> Place { text.parse().unwrap() };
        let own = [place("a.example")];
        let mut plan = Plan {
            exclude: Vec::new(),
            meet: Some(vec![place("b.example")]),
            dht: None,
            lan: true,
            rate: 0,
            port: None,
            map_port: None,
        };
        assert_eq!(plan.places(&own), ["a.example", "b.example"].map(place));
        plan.meet = None;
        assert_eq!(plan.places(&own), []);
    }

    #[test]
    fn a_contact_is_a_key_with_or_without_a_place() {
        let key = key();
        for place in [
            "meet.example",
            "meet.example:8443",
            "[2001:db8::1]:443",
            "ws://192.0.2.1:8080",
            "wss://meet.example/signal",
        ] {
            let contact: ContactText = format!("{key}@{place}").parse().unwrap();
            assert_eq!(contact.key, key);
            assert_eq!(contact.place.as_ref().unwrap().server(), place);
            assert_eq!(contact.to_string().parse::<ContactText>().unwrap(), contact);
        }
        assert_eq!(key.to_string().parse::<ContactText>().unwrap().place, None);
        for bad in ["", "@", "@x", "x@meet.example"] {
            bad.parse::<ContactText>().unwrap_err();
        }
        let long = "x".repeat(MAX_PLACE + 1);
        for bad in ["", "a/b", "a b", "ws://", "a@b", "ws:///x", &long] {
            format!("{key}@{bad}").parse::<ContactText>().unwrap_err();
        }
    }

    #[test]
    fn a_key_has_its_own_ports_and_no_text_shows_their_secret() {
        let secret = |n| PortSecret(Base58([n; 32]));
        assert_eq!(secret(1).ports(), secret(1).ports());
        assert_ne!(secret(1).ports(), secret(2).ports());
        assert!(secret(1).ports().iter().all(|port| *port >= 0xc000));
        assert_eq!(format!("{:?}", secret(1)), "PortSecret");
    }

    #[test]
    fn golden_bytes() {
        let frame = packet_frame(&key(), b"ab").unwrap();
        assert_eq!(&frame[..3], [0, 35, 1]);
        assert_eq!(&frame[3..35], key().public_key());
        assert_eq!(&frame[35..], b"ab");
        let frame = line_frame(&"x").unwrap();
        assert_eq!(frame, b"\x00\x04\x00\"x\"");
        assert_eq!(packet_frame(&key(), &[0; MAX_PACKET + 1]), None);
        assert_eq!(line_frame(&"x".repeat(MAX_FRAME)), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_a_part_of_it_waits(packet in prop::collection::vec(any::<u8>(), 0..50)) {
            let bytes = packet_frame(&key(), &packet).unwrap();
            let read = read_frame(&bytes).unwrap();
            prop_assert_eq!(read, Some((Frame::Packet(key(), &packet), bytes.len())));
            for length in 0..bytes.len() {
                prop_assert_eq!(read_frame(&bytes[..length]).unwrap(), None);
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64), text in ".{0,40}") {
            let _ = read_frame(&bytes);
            let _ = text.parse::<Place>();
        }
    }
}
