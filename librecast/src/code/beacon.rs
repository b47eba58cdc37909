//! Beacons: what somebody offers under a code, each second, to UDP port 14247 of a group that the
//! code's beacon key names.
//!
//! ```text
//! version 8 = 1 | kind 8 (1 files, 2 station, 3 session, 4 group, 5 token) | from text8 | bytes 64
//! | files 64 | line bytes16
//! ```
//!
//! The line is a text that tells a program of this kind what to receive. All holders of the code can
//! send beacons: a receiver takes none of several senders.

use std::net::Ipv6Addr;

use super::BeaconKey;
use crate::channel::transient_group;
use crate::id::derive;
use crate::time::{Duration, Instant};
use crate::wire::{Reader, WireError, Writer};

/// UDP port of beacons.
pub const BEACON_PORT: u16 = 14_247;
/// Interval of beacons.
pub const BEACON_INTERVAL: Duration = Duration::from_secs(1);
/// Time to listen after the first beacon: another sender's comes meanwhile.
pub const LISTEN: Duration = Duration::from_millis(1_200);
/// Longest name of a sender in bytes, as of a node.
pub const MAX_FROM: usize = 63;
/// Longest line in bytes: a station's or a session's text is shorter.
pub const MAX_LINE: usize = 512;
/// Longest beacon in bytes.
pub const MAX_BEACON: usize = 2 + 1 + MAX_FROM + 16 + 2 + MAX_LINE;
/// Most senders that are told apart: one is right, and a second one is enough to refuse all.
const MAX_SENDERS: usize = 8;
/// Version of the format, its first byte.
const VERSION: u8 = 1;

/// The kind of an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// Files, by lcsync.
    Files = 1,
    /// A station of lcradio.
    Station = 2,
    /// A session of lcstudio.
    Session = 3,
    /// A group of lcgroup.
    Group = 4,
    /// A token of lcroute; the line is the key of the inviter.
    Token = 5,
}

impl Offer {
    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Station => "a station",
            Self::Session => "a lecture",
            Self::Group => "a group",
            Self::Token => "a token",
        }
    }
}

/// A beacon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beacon {
    /// The offered content.
    pub offer: Offer,
    /// Name of the sender.
    pub from: String,
    /// Bytes of all files.
    pub bytes: u64,
    /// Number of files.
    pub files: u64,
    /// The content that a receiver asks for.
    pub line: String,
}

/// Returns the group of beacons of this key.
pub fn beacon_group(key: &BeaconKey) -> Ipv6Addr {
    transient_group(&derive("lcroute 2026 beacon group", &[&key.0]))
}

impl Beacon {
    /// Encodes it.
    ///
    /// # Errors
    /// A text is longer than the format allows.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        check(&self.from, &self.line)?;
        let mut w = Writer::new();
        w.u8(VERSION).u8(self.offer as u8).text8(&self.from)?;
        w.u64(self.bytes).u64(self.files);
        w.bytes16(self.line.as_bytes())?;
        Ok(w.into_vec())
    }

    /// Decodes a datagram of anybody.
    ///
    /// # Errors
    /// Another version or kind, or damage.
    pub fn decode(datagram: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(datagram);
        if r.u8()? != VERSION {
            return Err(WireError::Bad("version"));
        }
        let offer = match r.u8()? {
            1 => Offer::Files,
            2 => Offer::Station,
            3 => Offer::Session,
            4 => Offer::Group,
            5 => Offer::Token,
            _ => return Err(WireError::Bad("kind")),
        };
        let from = r.text8()?.to_owned();
        let (bytes, files) = (r.u64()?, r.u64()?);
        let line = std::str::from_utf8(r.bytes16()?).map_err(|_| WireError::Bad("utf-8"))?;
        r.finish()?;
        check(&from, line)?;
        Ok(Self {
            offer,
            from,
            bytes,
            files,
            line: line.to_owned(),
        })
    }
}

fn check(from: &str, line: &str) -> Result<(), WireError> {
    match from.len() <= MAX_FROM && line.len() <= MAX_LINE {
        true => Ok(()),
        false => Err(WireError::Bad("length of name or line")),
    }
}

/// The beacons that a receiver has received under a code.
#[derive(Debug, Default)]
pub struct ReceivedBeacons {
    /// Different offers by their senders' addresses, the first one first.
    senders: Vec<(Ipv6Addr, Beacon)>,
    since: Option<Instant>,
    /// Datagrams that were not beacons.
    pub malformed: u64,
}

/// The result of listening.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// One sender, and no other one in the time to listen.
    One(&'a Beacon),
    /// Several senders, here two of them.
    Several(&'a Beacon, &'a Beacon),
}

impl ReceivedBeacons {
    /// Handles a datagram to the group from this address.
    pub fn handle(&mut self, from: Ipv6Addr, datagram: &[u8], now: Instant) {
        let Ok(beacon) = Beacon::decode(datagram) else {
            self.malformed += 1;
            return;
        };
        self.since.get_or_insert(now);
        let is_it = |(at, known): &&mut (_, Beacon)| *at == from && known.line == beacon.line;
        // it has more or fewer files by now
        if let Some((_, known)) = self.senders.iter_mut().find(is_it) {
            *known = beacon;
        } else if self.senders.len() < MAX_SENDERS {
            self.senders.push((from, beacon));
        }
    }

    /// Returns the outcome, once there is one.
    pub fn outcome(&self, now: Instant) -> Option<Outcome<'_>> {
        match &*self.senders {
            [(_, one), (_, other), ..] => Some(Outcome::Several(one, other)),
            [(_, one)] if self.since? + LISTEN <= now => Some(Outcome::One(one)),
            _ => None,
        }
    }

    /// Returns the first received offer.
    pub fn first(&self) -> Option<&Beacon> {
        self.senders.first().map(|(_, beacon)| beacon)
    }

    /// Returns the time until which it listens; `None`: no beacon was received.
    pub fn until(&self) -> Option<Instant> {
        self.since.map(|since| since + LISTEN)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn beacon(line: &str) -> Beacon {
        Beacon {
            offer: Offer::Files,
            from: "ann".into(),
            bytes: 420_000_000,
            files: 213,
            line: line.into(),
        }
    }

    #[test]
    fn a_beacon_is_read_as_it_is_written_and_its_bytes_are_frozen() {
        let bytes = beacon("x").encode().unwrap();
        let expected = [
            &[1, 1, 3][..],
            b"ann",
            &[0, 0, 0, 0, 0x19, 0x08, 0xb1, 0x00],
            &[0, 0, 0, 0, 0, 0, 0, 213, 0, 1],
            b"x",
        ];
        assert_eq!(bytes, expected.concat());
        assert_eq!(Beacon::decode(&bytes).unwrap(), beacon("x"));
        for length in 0..bytes.len() {
            assert!(Beacon::decode(&bytes[..length]).is_err());
        }
        assert!(Beacon::decode(&[&bytes[..], b"y"].concat()).is_err());
        assert!(beacon(&"x".repeat(MAX_LINE)).encode().unwrap().len() <= MAX_BEACON);
        assert!(beacon(&"x".repeat(MAX_LINE + 1)).encode().is_err());
        let group = beacon_group(&BeaconKey([7; 32]));
        assert_eq!(group.segments()[0], 0xff1e);
        assert_ne!(group, beacon_group(&BeaconKey([8; 32])));
    }

    #[test]
    fn a_second_sender_is_noticed_and_a_changed_offer_is_none() {
        let now = Instant::now();
        let [ann, bob] = ["fd00::1", "fd00::2"].map(|a| a.parse().unwrap());
        let mut heard = ReceivedBeacons::default();
        assert_eq!(heard.outcome(now), None);
        heard.handle(ann, b"hello", now);
        assert_eq!((heard.malformed, heard.until()), (1, None));
        heard.handle(ann, &beacon("a").encode().unwrap(), now);
        assert_eq!(heard.outcome(now), None);
        let more = Beacon {
            files: 214,
            ..beacon("a")
        };
        heard.handle(ann, &more.encode().unwrap(), now);
        let later = now + LISTEN;
        assert_eq!(heard.outcome(later), Some(Outcome::One(&more)));
        heard.handle(bob, &beacon("b").encode().unwrap(), later);
        assert!(matches!(heard.outcome(later), Some(Outcome::Several(..))));
        for n in 0..1_000_u16 {
            let from = Ipv6Addr::from(u128::from(n));
            heard.handle(from, &beacon("c").encode().unwrap(), later);
        }
        assert_eq!(heard.senders.len(), MAX_SENDERS);
    }

    proptest! {
        #[test]
        fn no_datagram_panics(bytes in proptest::collection::vec(any::<u8>(), 0..800)) {
            let mut heard = ReceivedBeacons::default();
            heard.handle(Ipv6Addr::LOCALHOST, &bytes, Instant::now());
            if let Ok(beacon) = Beacon::decode(&bytes) {
                prop_assert_eq!(beacon.encode().unwrap(), bytes);
            }
        }
    }
}
