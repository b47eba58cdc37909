//! A session: a key that presents, a text that attends.
//!
//! ```text
//! key file  32 random bytes
//!   session key   derive(seed)                  owns the index
//!   track keys    derive(seed, name)            own the tracks
//!   read key      derive(seed)                  opens packets of all of them
//! lcs1...   public key 32 | read key 32         attends: a secret, unless the session is public
//! network   derive(session key, text)           of its own, to which the text leads
//! ```
//!
//! Each track has a key of its own, so that an entry counts in one track only.

use std::fmt;
use std::time::Duration;

use librecast::id::{NetworkId, PeerId, SecretKey, derive};
use librecast::text::{self, TextError, TextKind};
use librecast::text_network::{self, TextKey};
use librecast::time::UnixTime;
use librecast_log::{ReadKey, Space};
use zeroize::Zeroizing;

use crate::track::{Language, TrackName};

/// Bytes of the text of a session.
const LENGTH: usize = 32 + 32;

/// Entries of a session do not expire: a member that joins later receives all.
const TTL: Duration = Duration::ZERO;

/// Key of the presenter: wiped from memory when dropped, never shown.
pub struct SessionKey(Zeroizing<[u8; 32]>);

impl SessionKey {
    /// Creates the session of these random bytes, the content of a key file.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(Zeroizing::new(*seed))
    }

    /// Returns the session for attenders.
    #[must_use]
    pub fn session(&self) -> Session {
        Session {
            owner: self.index_key().peer_id(),
            read_key: self.derived("lcstudio 2026 read key", &[]),
        }
    }

    /// Returns the key that owns the index.
    pub fn index_key(&self) -> SecretKey {
        SecretKey::from_seed(&self.derived("lcstudio 2026 session key", &[]))
    }

    /// Returns the key that owns a track.
    pub fn track_key(&self, track: &TrackName) -> SecretKey {
        let name = track.to_string();
        SecretKey::from_seed(&self.derived("lcstudio 2026 track key", name.as_bytes()))
    }

    /// Returns the content of radio's key file for the sound of this language.
    pub fn station_seed(&self, language: &Language) -> Zeroizing<[u8; 32]> {
        self.derived("lcstudio 2026 station", language.tag().as_bytes())
    }

    /// Returns the seed of the session's own network, outside of all others.
    pub fn network_seed(&self) -> Zeroizing<[u8; 32]> {
        self.derived("lcstudio 2026 network", &[])
    }

    /// States that this network is the session's.
    #[must_use]
    pub fn attest(&self, network: &NetworkId) -> [u8; 64] {
        text_network::attest(&self.index_key(), &self.session().text_key(), network)
    }

    /// Signs a record of the session for a DHT.
    #[must_use]
    pub fn sign_item(&self, item: (i64, &[u8]), time: UnixTime) -> [u8; 64] {
        let text = self.session().text_key();
        text.sign_item(&self.index_key(), item, time)
    }

    fn derived(&self, context: &str, what: &[u8]) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(derive(context, &[&self.0[..], what]))
    }
}

librecast::debug_by_name!(SessionKey);

/// Keys of an attender.
#[derive(Clone, PartialEq, Eq)]
pub struct Session {
    owner: PeerId,
    read_key: Zeroizing<[u8; 32]>,
}

impl Session {
    /// Returns the public key that owns the index.
    pub fn owner(&self) -> PeerId {
        self.owner
    }

    /// Returns the space of the index, which is joined first.
    pub fn index(&self) -> Space {
        self.space(self.owner)
    }

    /// Returns the space that this key owns: a track's, as the index names it.
    pub fn space(&self, owner: PeerId) -> Space {
        let hash = derive("lcstudio 2026 family", &[&self.read_key[..]]);
        let family = u32::from_be_bytes(*hash.first_chunk().expect("a hash has 32 bytes"));
        let parts = [&self.read_key[..], owner.public_key()];
        let key = ReadKey::new(derive("lcstudio 2026 track read key", &parts));
        Space::new(owner, Some(key), TTL).in_family(family)
    }

    /// Returns the keys that lead to its own network.
    pub fn text_key(&self) -> TextKey {
        let secret = derive("lcstudio 2026 outside", &[&self.to_bytes()[..]]);
        TextKey::new(self.owner, secret)
    }

    /// Returns its text, `lcs1...`.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<String> {
        text::encode(TextKind::StudioSession, &self.to_bytes()[..])
    }

    fn to_bytes(&self) -> Zeroizing<[u8; LENGTH]> {
        let mut bytes = Zeroizing::new([0; LENGTH]);
        bytes[..32].copy_from_slice(self.owner.public_key());
        bytes[32..].copy_from_slice(&self.read_key[..]);
        bytes
    }

    /// Decodes its text.
    ///
    /// # Errors
    /// The text is of another kind, or damaged.
    pub fn decode(line: &str) -> Result<Self, TextError> {
        let damaged = TextError::Damaged(TextKind::StudioSession);
        let bytes = text::decode(TextKind::StudioSession, line, LENGTH)?;
        let (owner, read_key) = bytes.split_first_chunk().ok_or(damaged)?;
        Ok(Self {
            owner: PeerId::from_public_key(*owner).map_err(|_| damaged)?,
            read_key: Zeroizing::new(read_key.try_into().map_err(|_| damaged)?),
        })
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({})", self.owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_comes_back_from_its_text() {
        let session = SessionKey::from_seed(&[7; 32]).session();
        let text = session.encode();
        assert_eq!(Session::decode(&format!(" {}\n", *text)).unwrap(), session);
        assert!(Session::decode(&text[..text.len() - 1]).is_err());
        let told = Session::decode("lct1abc").unwrap_err().to_string();
        assert_eq!(
            told,
            "this is a token (lct1), not a session of Studio (lcs1)"
        );
        for length in [0, 31, 32, 63] {
            let text = text::encode(TextKind::StudioSession, &[1; 64][..length]);
            assert!(Session::decode(&text).is_err(), "{length}");
        }
        assert!(!format!("{session:?}").contains(&text[8..]));
    }

    #[test]
    fn each_track_has_a_group_of_its_own() {
        let key = SessionKey::from_seed(&[7; 32]);
        let session = key.session();
        let names = ["slides", "turn", "captions/en", "captions/de"];
        let mut groups = vec![session.index().group()];
        for name in names {
            let owner = key.track_key(&name.parse().unwrap()).peer_id();
            groups.push(session.space(owner).group());
        }
        groups.sort_unstable();
        groups.dedup();
        assert_eq!(groups.len(), 1 + names.len());
    }

    #[test]
    fn derivations_are_frozen() {
        let key = SessionKey::from_seed(&[1; 32]);
        assert_eq!(*key.session().encode(), TEXT);
        assert_eq!(key.session().index().group().to_string(), INDEX);
        let hash = derive(
            "golden",
            &[
                &key.network_seed()[..],
                key.session().text_key().secret(),
                &key.attest(&key.index_key().peer_id()),
            ],
        );
        let shown: String = hash[..8].iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(shown, NETWORK);
    }

    #[test]
    fn only_the_presenter_states_the_network_of_a_session() {
        let (key, other) = ([1; 32], [2; 32]);
        let [key, other] = [key, other].map(|seed| SessionKey::from_seed(&seed));
        assert_ne!(*key.network_seed(), *other.network_seed());
        let network = SecretKey::from_seed(&key.network_seed()).peer_id();
        let text = key.session().text_key();
        assert_eq!(*text.key(), key.session().owner());
        assert!(text.attests(&network, &key.attest(&network)));
        assert!(!text.attests(&network, &other.attest(&network)));
        // a holder of the text can compute the meeting point
        let read = Session::decode(&key.session().encode()).unwrap();
        assert_eq!(read.text_key().meeting(), text.meeting());
    }

    const TEXT: &str = "lcs1UN8s7NVQyvjtKfxmvEqCagNuV4aRngkSpuJSUXbeLmqBnRg2UWMV9PTWaMqwjZxXvcAb5gdtkT5LAjsGvocNCRoz4VEnM";
    const NETWORK: &str = "47757d4b4a6b9245";
    const INDEX: &str = "ff1e:b93a:d1a:1f52:3489:2992:9cdd:4d3";
}
