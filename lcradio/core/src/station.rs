//! A station: a key that casts, a text that listens.
//!
//! ```text
//! key file  32 random bytes
//!   signing key   derive(key)                    signs beacons and announcements
//!   read key      derive(key)                    opens packets of a private station
//! lcr1...   public key 32 | read key 32          a private station: a secret
//!           public key 32                        a public one
//! network   derive(signing key | text)             seed of the station's own network
//! group     ff1e | hash(read key, or public key), lowest bit 0; the copy group is the next one
//! clock     two groups for each caster: questions for its clock, and answers
//! ```
//!
//! So one key is two stations, private and public; the public one reveals nothing of the other.

use std::fmt;
use std::net::Ipv6Addr;

use librecast::channel::transient_group;
use librecast::id::{NetworkId, PeerId, SecretKey, derive};
use librecast::text::{self, TextError, TextKind};
use librecast::text_network::{self, TextKey};
use librecast::time::UnixTime;
use zeroize::Zeroizing;

/// UDP port of packets (RTP).
pub const MEDIA_PORT: u16 = 5004;
/// UDP port of the sender's reports (RTCP).
pub const REPORT_PORT: u16 = 5005;
/// UDP port of beacons.
pub const BEACON_PORT: u16 = 5006;

/// Groups of a caster's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockGroups {
    /// The group of questions, which only the caster joins.
    pub questions: Ipv6Addr,
    /// The group of answers.
    pub answers: Ipv6Addr,
}

/// Bytes of the text of a private station.
const PRIVATE: usize = 32 + 32;

/// A key that opens packets of a private station.
pub(crate) type ReadKey = Zeroizing<[u8; 32]>;

/// A key that casts: wiped from memory when dropped, never shown.
pub struct StationKey {
    signing: SecretKey,
    read_key: ReadKey,
}

impl StationKey {
    /// Makes the key from random bytes, the content of a key file.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let signing = Zeroizing::new(derive("lcradio 2026 signing key", &[seed]));
        Self {
            signing: SecretKey::from_seed(&signing),
            read_key: Zeroizing::new(derive("lcradio 2026 read key", &[seed])),
        }
    }

    /// Returns the private or the public station.
    pub fn station(&self, public: bool) -> Station {
        Station {
            key: self.id(),
            read_key: (!public).then(|| self.read_key.clone()),
        }
    }

    /// Returns the public key.
    pub fn id(&self) -> PeerId {
        self.signing.peer_id()
    }

    /// Returns the seed of the station's own network, outside of all others: of the private or the
    /// public station.
    pub fn network_seed(&self, public: bool) -> Zeroizing<[u8; 32]> {
        let station = self.station(public).to_bytes();
        let seed = self.signing.seed();
        Zeroizing::new(derive("lcradio 2026 network", &[&seed[..], &station]))
    }

    /// States that this network is that of the private or the public station.
    #[must_use]
    pub fn attest(&self, public: bool, network: &NetworkId) -> [u8; 64] {
        let text = self.station(public).text_key();
        text_network::attest(&self.signing, &text, network)
    }

    /// Signs a record of the private or the public station for a DHT.
    #[must_use]
    pub fn sign_item(&self, public: bool, item: (i64, &[u8]), time: UnixTime) -> [u8; 64] {
        let text = self.station(public).text_key();
        text.sign_item(&self.signing, item, time)
    }

    pub(crate) fn sign(&self, context: &str, message: &[u8]) -> [u8; 64] {
        self.signing.sign(context, message)
    }
}

librecast::debug_by_name!(StationKey);

/// A key that listens to a station.
#[derive(Clone, PartialEq, Eq)]
pub struct Station {
    key: PeerId,
    read_key: Option<ReadKey>,
}

impl Station {
    /// Returns the key that signs for it.
    pub fn key(&self) -> &PeerId {
        &self.key
    }

    /// Returns whether anybody may listen: packets are plain, and announced by SAP.
    pub fn is_public(&self) -> bool {
        self.read_key.is_none()
    }

    pub(crate) fn read_key(&self) -> Option<&[u8; 32]> {
        self.read_key.as_deref()
    }

    /// Returns the multicast group of its packets and beacons.
    pub fn group(&self) -> Ipv6Addr {
        let id = self.read_key().unwrap_or(self.key.public_key());
        let group = transient_group(&derive("lcradio 2026 group", &[id]));
        Ipv6Addr::from(u128::from(group) & !1)
    }

    /// Returns the group with the delayed copies of its packets (RFC 7198).
    pub fn copy_group(&self) -> Ipv6Addr {
        copy_of(self.group())
    }

    /// Returns the keys that lead to its own network.
    pub fn text_key(&self) -> TextKey {
        let secret = derive("lcradio 2026 outside", &[&self.to_bytes()]);
        TextKey::new(self.key, secret)
    }

    /// Returns the groups of a caster's clock. Both have one shared tree in lcroute, so questions
    /// and answers take one path, in both directions.
    pub fn clock_groups(&self, caster: &PeerId) -> ClockGroups {
        let id = self.read_key().unwrap_or(self.key.public_key());
        let group = |number: u32| {
            let parts = [&id[..], caster.public_key(), &number.to_be_bytes()];
            transient_group(&derive("lcradio 2026 clock group", &parts))
        };
        let questions = group(0);
        let has_same_tree = |answers: &Ipv6Addr| group_range(*answers) == group_range(questions);
        // one of four has: the bound only ends the search
        let answers = (1..1_000).map(group).find(has_same_tree);
        ClockGroups {
            questions,
            answers: answers.unwrap_or_else(|| group(1)),
        }
    }

    /// Returns its text, `lcr1...`; a private station's is a secret.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<String> {
        text::encode(TextKind::Station, &self.to_bytes())
    }

    /// Returns the public key, and the read key if it is private.
    pub(crate) fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(PRIVATE));
        bytes.extend_from_slice(self.key.public_key());
        if let Some(read_key) = &self.read_key {
            bytes.extend_from_slice(&read_key[..]);
        }
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (key, read_key) = bytes.split_first_chunk()?;
        let read_key = match read_key.len() {
            0 => None,
            _ => Some(Zeroizing::new(read_key.try_into().ok()?)),
        };
        Some(Self {
            key: PeerId::from_public_key(*key).ok()?,
            read_key,
        })
    }

    /// Decodes its text.
    ///
    /// # Errors
    /// The text is of another kind, or damaged.
    pub fn decode(line: &str) -> Result<Self, TextError> {
        let bytes = text::decode(TextKind::Station, line, PRIVATE)?;
        Self::from_bytes(&bytes).ok_or(TextError::Damaged(TextKind::Station))
    }
}

impl fmt::Debug for Station {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_public() {
            "public"
        } else {
            "private"
        };
        write!(f, "Station({kind} {})", self.key)
    }
}

/// Returns the group range, and so the shared tree of a group, as lcroute hashes it.
fn group_range(group: Ipv6Addr) -> u8 {
    derive("lcroute 2026 slot", &[&group.octets()])[0] >> 6
}

/// Returns the copy group of a group.
pub(crate) fn copy_of(group: Ipv6Addr) -> Ipv6Addr {
    Ipv6Addr::from(u128::from(group) | 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_station_comes_back_from_its_text() {
        let key = StationKey::from_seed(&[7; 32]);
        for public in [false, true] {
            let station = key.station(public);
            let text = station.encode();
            assert_eq!(Station::decode(&format!(" {}\n", *text)).unwrap(), station);
            assert!(Station::decode(&text[..text.len() - 1]).is_err());
            assert_eq!(station.is_public(), public);
        }
        let told = Station::decode("lct1abc").unwrap_err().to_string();
        assert_eq!(told, "this is a token (lct1), not a station (lcr1)");
        // neither a key nor a key and a read key
        for length in [0, 31, 33, 63] {
            let text = text::encode(TextKind::Station, &[1; 64][..length]);
            assert!(Station::decode(&text).is_err(), "{length}");
        }
    }

    #[test]
    fn the_public_station_of_a_key_says_nothing_of_the_private_one() {
        let key = StationKey::from_seed(&[7; 32]);
        let (public, private) = (key.station(true), key.station(false));
        assert_eq!(public.key(), private.key());
        assert_ne!(public.group(), private.group());
        assert!(!format!("{private:?}").contains(&private.encode()[8..]));
        assert_eq!(
            u128::from(public.copy_group()),
            u128::from(public.group()) + 1
        );
    }

    #[test]
    fn derivations_are_frozen() {
        let key = StationKey::from_seed(&[1; 32]);
        let (public, private) = (key.station(true), key.station(false));
        assert_eq!(*public.encode(), PUBLIC_TEXT);
        assert_eq!(*private.encode(), PRIVATE_TEXT);
        assert_eq!(public.group().to_string(), PUBLIC_GROUP);
        assert_eq!(private.group().to_string(), PRIVATE_GROUP);
    }

    #[test]
    fn questions_and_answers_of_a_caster_have_one_shared_tree() {
        let key = StationKey::from_seed(&[1; 32]);
        let mut seen = std::collections::BTreeSet::new();
        for station in [key.station(false), key.station(true)] {
            for caster in 1..50 {
                let caster = StationKey::from_seed(&[caster; 32]).id();
                let ClockGroups { questions, answers } = station.clock_groups(&caster);
                assert_eq!(group_range(questions), group_range(answers));
                assert!(seen.insert(questions) && seen.insert(answers));
            }
        }
        let ClockGroups { questions, answers } = key.station(false).clock_groups(&key.id());
        assert_eq!(questions.to_string(), QUESTIONS);
        assert_eq!(answers.to_string(), ANSWERS);
        // the engine has the same test
        let ranges = RANGES.map(|(group, _)| (group, group_range(group.parse().unwrap())));
        assert_eq!(ranges, RANGES);
    }

    const QUESTIONS: &str = "ff1e:b6ea:40a:d04d:17aa:d4c2:54b4:24b2";
    const ANSWERS: &str = "ff1e:666f:3845:7a74:e32:9254:16f:2b16";
    const RANGES: [(&str, u8); 4] = [
        ("ff1e::1", 0),
        ("ff1e::2", 2),
        ("ff1e::3", 3),
        ("ff1e::4", 0),
    ];
    const PUBLIC_TEXT: &str = "lcr12U2TCzeT1SZcTmdBmK5BmuHLnCCZvbUJZqjq9cGuwK7ZNXCAba";
    const PRIVATE_TEXT: &str = "lcr1SFwwMSswf94hvWznko8BDucpfoJZ3L5jcWNPjn5hHM3KyjwiXfVR3bHAGzBrBTcYTbwHTLdkzMGQwH4Csu8XhkcM4FXH9";
    const PUBLIC_GROUP: &str = "ff1e:96f0:1500:b0c5:ccad:a4fe:211f:3990";
    const PRIVATE_GROUP: &str = "ff1e:670:ff95:7395:f0cf:adb3:6eee:12bc";
}
