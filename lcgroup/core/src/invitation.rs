//! Invitations: one line of text that admits a joiner.
//!
//! ```text
//! "lcg1" base58check {
//!   group key 256 | read key 256 | id 64 | secret 256 | expires 64 (ms since 1970)
//!   | topic (length 8, UTF-8) | network 8 (1: the group has one of its own; else 0)
//!   | of a deputy's: its key 256 }
//! ```
//!
//! It is not signed: an attacker that can change it could as well invite to a group of its own. The
//! text names the key to trust, so it needs a trusted way.

use std::fmt;
use std::str::FromStr;

use librecast::id::PeerId;
use librecast::wire::{Reader, WireError, Writer};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::fields::flag;

/// The beginning of every invitation: kind and version.
const PREFIX: &str = "lcg1";
/// Characters of an invitation, above the need of 64 bytes of topic.
pub const MAX_INVITATION: usize = 512;
/// Bytes of a topic.
pub const MAX_TOPIC: usize = 64;

/// Why a text is not an invitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvitationError {
    /// It does not begin with `lcg1`.
    #[error("not an invitation to a group: those begin with {PREFIX}")]
    Prefix,
    /// It is longer than [`MAX_INVITATION`].
    #[error("too long for an invitation")]
    TooLong,
    /// A character is missing or wrong.
    #[error("damaged: copy the whole line")]
    Damaged,
    /// The group's key is unusable.
    #[error("unusable key of the group")]
    Key,
    /// The topic is longer than [`MAX_TOPIC`], or has invisible characters.
    #[error("unusable topic")]
    Topic,
    /// Fields are missing or too many.
    #[error("malformed invitation: {0}")]
    Wire(#[from] WireError),
}

/// Permission to ask the owner for membership.
#[derive(Clone, PartialEq, Eq)]
pub struct Invitation {
    /// The group: its owner's key.
    pub group: PeerId,
    /// The key of the one that admits: the group's, or a deputy's author key.
    pub to: PeerId,
    /// Opens packets of the group's log; holders have it too.
    pub read_key: Zeroizing<[u8; 32]>,
    /// Its id among the owner's invitations.
    pub id: u64,
    /// Proves to the owner that the joiner was invited.
    pub secret: Zeroizing<[u8; 32]>,
    /// When it expires (ms since 1970): the owner refuses it later.
    pub expires: u64,
    /// The topic of the group, or the program that it is for; up to 64 bytes.
    pub topic: String,
    /// The group has a network of its own.
    pub outside: bool,
}

impl Invitation {
    /// The line of text, to be handed over secretly.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<String> {
        let mut w = Writer::from(Vec::with_capacity(MAX_INVITATION));
        w.put(self.group.public_key())
            .put(&self.read_key[..])
            .u64(self.id)
            .put(&self.secret[..])
            .u64(self.expires)
            .u8(self.topic.len() as u8)
            .put(self.topic.as_bytes())
            .u8(self.outside.into());
        if self.to != self.group {
            w.put(self.to.public_key());
        }
        let bytes = Zeroizing::new(w.into_vec());
        let text = bs58::encode(bytes.as_slice()).with_check().into_string();
        Zeroizing::new(format!("{PREFIX}{text}"))
    }
}

impl FromStr for Invitation {
    type Err = InvitationError;

    fn from_str(text: &str) -> Result<Self, InvitationError> {
        let text = text.trim();
        if text.len() > MAX_INVITATION {
            return Err(InvitationError::TooLong);
        }
        let body = text.strip_prefix(PREFIX).ok_or(InvitationError::Prefix)?;
        let bytes = bs58::decode(body)
            .with_check(None)
            .into_vec()
            .map_err(|_| InvitationError::Damaged)?;
        let bytes = Zeroizing::new(bytes);
        let mut r = Reader::new(&bytes);
        let group = PeerId::from_public_key(r.array()?).map_err(|_| InvitationError::Key)?;
        let read_key = Zeroizing::new(r.array()?);
        let id = r.u64()?;
        let secret = Zeroizing::new(r.array()?);
        let expires = r.u64()?;
        let topic = r.text8()?.to_owned();
        let outside = flag(&mut r)?;
        let to = match r.is_empty() {
            true => group,
            false => PeerId::from_public_key(r.array()?).map_err(|_| InvitationError::Key)?,
        };
        r.finish()?;
        check_topic(&topic)?;
        Ok(Self {
            group,
            to,
            read_key,
            id,
            secret,
            expires,
            topic,
            outside,
        })
    }
}

/// Whether a text can be a group's topic.
pub(crate) fn check_topic(topic: &str) -> Result<(), InvitationError> {
    let good = topic.len() <= MAX_TOPIC && librecast::plain::is_plain(topic);
    good.then_some(()).ok_or(InvitationError::Topic)
}

impl fmt::Debug for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Invitation {:016x} to group {}", self.id, self.group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use librecast::id::SecretKey;
    use proptest::prelude::*;

    fn invitation(topic: &str) -> Invitation {
        Invitation {
            group: SecretKey::from_seed(&[1; 32]).peer_id(),
            to: SecretKey::from_seed(&[1; 32]).peer_id(),
            read_key: [2; 32].into(),
            id: 3,
            secret: [4; 32].into(),
            expires: 5,
            topic: topic.to_owned(),
            outside: false,
        }
    }

    #[test]
    fn a_group_with_a_network_says_so() {
        let mut outside = invitation("x");
        outside.outside = true;
        let text = outside.encode();
        assert_eq!(text.parse::<Invitation>().unwrap(), outside);
        assert_ne!(*text, *invitation("x").encode());
        let longest = Invitation {
            topic: "x".repeat(MAX_TOPIC),
            ..outside
        };
        assert_eq!(longest.encode().parse::<Invitation>(), Ok(longest));
        let mut bytes = bs58::decode(&text[4..])
            .with_check(None)
            .into_vec()
            .unwrap();
        *bytes.last_mut().unwrap() = 2;
        let other = bs58::encode(bytes).with_check().into_string();
        let other = format!("lcg1{other}").parse::<Invitation>();
        assert!(matches!(other, Err(InvitationError::Wire(_))));
    }

    #[test]
    fn an_invitation_is_one_line_and_comes_back() {
        let text = invitation("café 9").encode();
        assert!(text.starts_with("lcg1") && text.len() < MAX_INVITATION);
        assert!(text.bytes().all(|b| b.is_ascii_alphanumeric()));
        let padded = format!("  {}\n", text.as_str());
        assert_eq!(padded.parse::<Invitation>().unwrap(), invitation("café 9"));
        let golden = concat!(
            "lcg1",
            "AZc4kncVg5cA2wMW2ZapavyJvSzM6wQfuBV9vfkKiVUcYH3xVzRoK7wfBY5SpWkN7Ms6MMxARUFK6LeoEQGgU",
            "1TFqH2M276XhMDhrL5fsTE2eXuo51HBjsUubdPLVKBUP2W1ZmMzYYqnbVeWsnHsZhekRqhJ9oWcNqg7eEkhHqk"
        );
        assert_eq!(*text, golden);
    }

    #[test]
    fn the_longest_topic_fits_and_a_longer_one_is_refused() {
        let longest = invitation(&"x".repeat(MAX_TOPIC));
        assert_eq!(longest.encode().parse::<Invitation>(), Ok(longest));
        let longer = invitation(&"x".repeat(MAX_TOPIC + 1)).encode();
        assert_eq!(longer.parse::<Invitation>(), Err(InvitationError::Topic));
        let hidden = invitation("a\u{202e}b").encode();
        assert_eq!(hidden.parse::<Invitation>(), Err(InvitationError::Topic));
    }

    #[test]
    fn a_deputys_invitation_names_its_key() {
        let to = SecretKey::from_seed(&[9; 32]).peer_id();
        let invitation = Invitation {
            to,
            ..invitation(&"x".repeat(MAX_TOPIC))
        };
        let text = invitation.encode();
        assert!(text.len() < MAX_INVITATION);
        assert_eq!(text.parse(), Ok(invitation));
    }

    #[test]
    fn one_wrong_character_is_noticed() {
        let text = invitation("x").encode();
        for at in 4..text.len() {
            let mut wrong = text.as_bytes().to_vec();
            wrong[at] = if wrong[at] == b'2' { b'3' } else { b'2' };
            let wrong = String::from_utf8(wrong).unwrap();
            assert_eq!(wrong.parse::<Invitation>(), Err(InvitationError::Damaged));
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown = format!("{:?}", invitation("x"));
        assert!(!shown.contains("[4,") && !shown.contains("[2,"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = format!("lcg1{}", bs58::encode(&bytes).with_check().into_string()).parse::<Invitation>();
        }
    }
}
