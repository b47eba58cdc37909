//! Statements in the logs on the network of a group's own.
//!
//! ```text
//! owner's log, deputy (20): version 8 = 1 | author 256 | serial 32 | certificate; none: it has ended
//! all logs with commits, lines (21): version 8 = 1 | n x { invitation's key 256 | end 64 (unix seconds) }
//! own log, device text (10): sealed box to the one in office { version 8 = 1 | id 64 }
//! ```
//!
//! A deputy expels by the lines also those invitations that it has not made.

use std::collections::{BTreeMap, VecDeque};

use librecast::cert::Certificate;
use librecast::id::PeerId;
use librecast::time::UnixTime;
use librecast::wire::{Reader, WireError, Writer};

use crate::DAY;
use crate::body::kind;
use crate::fields::peer;
use crate::offices::{MAX_DEPUTIES, Office};
use crate::vouch::{LONGEST_DEVICE_LIFE, expiry};

/// Version of everything in this file.
const VERSION: u8 = 1;
/// Lines of one log: as many as an entry has room for, at 40 bytes each.
pub(crate) const MAX_LINES: usize = 24;
/// Texts for devices that are kept. Chosen: persons add some devices, and rarely.
const MAX_TEXTS: usize = 64;

/// A deputy in the owner's last statement about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Certified {
    pub author: PeerId,
    /// Counts its appointments.
    pub serial: u32,
    /// Empty: its right has ended.
    pub certificate: Vec<u8>,
}

/// Statements in the logs on the group's network.
#[derive(Debug, Default)]
pub(crate) struct Network {
    pub deputies: Vec<Certified>,
    /// Keys of invitations that may lead in, and their ends.
    pub lines: BTreeMap<Office, BTreeMap<PeerId, u64>>,
    /// Texts for devices with their makers, the newest last; of the one in office.
    pub texts: VecDeque<(u64, PeerId)>,
}

impl Network {
    /// Bytes of the state, about.
    pub fn bytes(&self) -> usize {
        let deputies: usize = self.deputies.iter().map(|d| d.certificate.len() + 64).sum();
        256 + deputies + self.lines.len() * (MAX_LINES * 40 + 64) + self.texts.len() * 40
    }

    pub fn put(&self, w: &mut Writer) {
        w.u8(self.deputies.len() as u8);
        for deputy in &self.deputies {
            let body = deputy.encode();
            w.u16(body.len() as u16).put(&body);
        }
        w.u8(self.lines.len() as u8);
        for (office, lines) in &self.lines {
            w.u8(office.is_some().into());
            if let Some(author) = office {
                w.put(author.public_key());
            }
            let body = encode_lines(lines);
            w.u16(body.len() as u16).put(&body);
        }
        w.u8(self.texts.len() as u8);
        for (id, maker) in &self.texts {
            w.u64(*id).put(maker.public_key());
        }
    }

    pub fn read(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let mut network = Self::default();
        for _ in 0..r.u8()? {
            network.set_deputy(Certified::decode(r.bytes16()?)?);
        }
        for _ in 0..r.u8()? {
            let office = match r.u8()? {
                0 => None,
                _ => Some(peer(r)?),
            };
            network.set_lines(office, decode_lines(r.bytes16()?)?);
        }
        for _ in 0..r.u8()? {
            network.texts.push_back((r.u64()?, peer(r)?));
        }
        Ok(network)
    }

    pub fn set_deputy(&mut self, new: Certified) {
        let known = self
            .deputies
            .iter()
            .position(|known| known.author == new.author);
        match known {
            Some(at) => self.deputies[at] = new,
            None if self.deputies.len() < MAX_DEPUTIES => self.deputies.push(new),
            None => {}
        }
    }

    pub fn set_lines(&mut self, office: Office, lines: BTreeMap<PeerId, u64>) {
        if self.lines.len() <= MAX_DEPUTIES || self.lines.contains_key(&office) {
            self.lines.insert(office, lines);
        }
    }

    /// Reads an entry of a log with commits.
    pub fn note(&mut self, office: Office, kind: u8, body: &[u8]) {
        match kind {
            kind::NETWORK_DEPUTY if office.is_none() => {
                if let Ok(certified) = Certified::decode(body) {
                    self.set_deputy(certified);
                }
            }
            kind::NETWORK_LINES => {
                if let Ok(lines) = decode_lines(body) {
                    self.set_lines(office, lines);
                }
            }
            _ => {}
        }
    }

    /// Takes a text for a device that a member has made.
    pub fn take_text(&mut self, id: u64, maker: PeerId, now: UnixTime) {
        let ms = now.as_millis();
        // a member may be removed as long as the text by which it came can be used again
        self.texts
            .retain(|(known, _)| *known != id && expiry(*known) + 2 * DAY > ms);
        if self.texts.len() >= MAX_TEXTS {
            self.texts.pop_front();
        }
        self.texts.push_back((id, maker));
        debug_assert!(self.texts.len() <= MAX_TEXTS, "the oldest text gives way");
    }

    pub fn certificate_of(&self, author: &PeerId) -> Option<(u32, Certificate)> {
        let known = self.deputies.iter().find(|known| known.author == *author)?;
        let certificate = Certificate::decode(&known.certificate).ok()?;
        Some((known.serial, certificate))
    }
}

impl Certified {
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(VERSION).put(self.author.public_key()).u32(self.serial);
        w.put(&self.certificate);
        w.into_vec()
    }

    fn decode(body: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(body);
        r.version(VERSION)?;
        Ok(Self {
            author: peer(&mut r)?,
            serial: r.u32()?,
            certificate: r.rest().to_vec(),
        })
    }
}

pub(crate) fn encode_lines(lines: &BTreeMap<PeerId, u64>) -> Vec<u8> {
    let mut w = Writer::new();
    w.u8(VERSION);
    for (key, end) in lines.iter().take(MAX_LINES) {
        w.put(key.public_key()).u64(*end);
    }
    w.into_vec()
}

fn decode_lines(body: &[u8]) -> Result<BTreeMap<PeerId, u64>, WireError> {
    let mut r = Reader::new(body);
    r.version(VERSION)?;
    let mut lines = BTreeMap::new();
    while !r.is_empty() && lines.len() < MAX_LINES {
        lines.insert(peer(&mut r)?, r.u64()?);
    }
    Ok(lines)
}

pub(crate) fn encode_text(id: u64) -> Vec<u8> {
    let mut w = Writer::new();
    w.u8(VERSION).u64(id);
    w.into_vec()
}

/// The id of a text for a device in what its maker says to the one in office, if its end is not
/// absurd.
pub(crate) fn decode_text(body: &[u8], now: UnixTime) -> Result<u64, WireError> {
    let mut r = Reader::new(body);
    r.version(VERSION)?;
    let id = r.u64()?;
    r.finish()?;
    let ms = now.as_millis();
    match (ms..=ms + LONGEST_DEVICE_LIFE + DAY).contains(&expiry(id)) {
        true => Ok(id),
        false => Err(WireError::Bad("end of a text")),
    }
}

/// All decoders of this file.
pub(crate) fn decode_any(bytes: &[u8]) {
    let _ = Certified::decode(bytes);
    let _ = decode_lines(bytes);
    let _ = decode_text(bytes, UnixTime::from_millis(0));
    let _ = Network::read(&mut Reader::new(bytes));
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;
    use proptest::prelude::*;

    use super::*;

    fn key(n: u16) -> PeerId {
        let mut seed = [1; 32];
        seed[..2].copy_from_slice(&n.to_be_bytes());
        SecretKey::from_seed(&seed).peer_id()
    }

    fn again(network: &Network) -> Network {
        let mut w = Writer::new();
        network.put(&mut w);
        let bytes = w.into_vec();
        assert!(bytes.len() <= network.bytes(), "{}", bytes.len());
        let mut r = Reader::new(&bytes);
        let back = Network::read(&mut r).unwrap();
        r.finish().unwrap();
        back
    }

    #[test]
    fn there_are_bounds_and_a_state_comes_back() {
        let mut network = Network::default();
        for n in 0..40 {
            let deputy = Certified {
                author: key(n),
                serial: n.into(),
                certificate: vec![7; 300],
            };
            network.note(None, kind::NETWORK_DEPUTY, &deputy.encode());
            let lines = (0..100).map(|line| (key(line), 9)).collect();
            network.note(Some(key(n)), kind::NETWORK_LINES, &encode_lines(&lines));
            network.take_text(u64::from(n) << 32, key(n), UnixTime::from_secs(0));
        }
        for n in 0..200 {
            network.take_text(9 << 40 | n, key(1), UnixTime::from_secs(0));
        }
        assert_eq!(network.deputies.len(), MAX_DEPUTIES);
        assert_eq!(network.lines.len(), MAX_DEPUTIES + 1);
        assert!(network.lines.values().all(|lines| lines.len() == MAX_LINES));
        assert_eq!(network.texts.len(), MAX_TEXTS);
        assert_eq!(network.texts.back(), Some(&(9 << 40 | 199, key(1))));
        let back = again(&network);
        assert_eq!(back.deputies, network.deputies);
        assert_eq!((back.lines, back.texts), (network.lines, network.texts));
    }

    #[test]
    fn offices_say_nothing_of_deputies_and_the_last_statement_counts() {
        let mut network = Network::default();
        let deputy = |serial| Certified {
            author: key(1),
            serial,
            certificate: vec![1],
        };
        let office = Some(key(1));
        network.note(office, kind::NETWORK_DEPUTY, &deputy(1).encode());
        assert!(network.deputies.is_empty());
        for serial in [1, 2] {
            network.note(None, kind::NETWORK_DEPUTY, &deputy(serial).encode());
        }
        assert_eq!(network.deputies, [deputy(2)]);
        for line in [1, 2] {
            let lines = [(key(line), 5)].into();
            network.note(office, kind::NETWORK_LINES, &encode_lines(&lines));
        }
        assert_eq!(network.lines[&office], [(key(2), 5)].into());
    }

    #[test]
    fn a_text_without_an_end_or_with_a_far_one_is_none() {
        let now = UnixTime::from_secs(1_800_000_000);
        let minute = now.as_millis() / 60_000;
        let id = |minutes: u64| (minute + minutes) << 32 | 7;
        assert_eq!(decode_text(&encode_text(id(60)), now), Ok(id(60)));
        for wrong in [7, id(0) - (1 << 32), id(3 * 24 * 60)] {
            assert!(decode_text(&encode_text(wrong), now).is_err());
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            decode_any(&bytes);
            let mut network = Network::default();
            for kind in [kind::NETWORK_DEPUTY, kind::NETWORK_LINES] {
                network.note(None, kind, &bytes);
            }
            again(&network);
        }
    }
}
