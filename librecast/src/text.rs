//! The text form of keys, tokens etc.: a prefix for the kind, and base58check (Bitcoin's alphabet,
//! four bytes of double SHA-256).
//!
//! ```text
//! lct1 token   lck1 shared key   lca1 operator's certificate   lcx1 revocation   lcr1 station
//! lcg1 invitation to a group   lch1 holding key   lcb1 casting grant, board   lcs1 session of Studio
//! lcd1 text for another device of a member   lcc1 call
//! ```
//!
//! A board's text is shorter than each casting grant, and so differs from it.
//!
//! Public keys have libp2p's form ([`PeerId`](crate::id::PeerId)).

use std::fmt;

use thiserror::Error;
use zeroize::Zeroizing;

/// Characters of every prefix: two letters of the project, one of the kind, the version.
const PREFIX_LENGTH: usize = 4;
/// Bytes of the checksum.
const CHECKSUM: usize = 4;
/// Prefix of public keys.
const PUBLIC_KEY: &str = "12D3KooW";

/// The kind of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextKind {
    /// An invitation to a network; a secret.
    Token,
    /// A key of 32 bytes that several hosts share; a secret.
    SharedKey,
    /// A certificate of an operator's key.
    OperatorCertificate,
    /// A signed statement that a key is not trusted any more.
    Revocation,
    /// An invitation to a group; a secret.
    GroupInvitation,
    /// A text that makes another host a device of a group's member; a secret.
    GroupDevice,
    /// A key that keeps a group's entries without reading them; a secret.
    HoldingKey,
    /// A key that listens to a station.
    Station,
    /// A grant for another key to cast for a station; a secret if that is private.
    CastingGrant,
    /// A key that attends a session of Studio; a secret.
    StudioSession,
    /// The seed of a call, with which its holders talk; a secret.
    Call,
    /// The keys of a board, which anyone may read; it has the prefix of casting grants.
    Board,
}

impl TextKind {
    /// All kinds with a prefix of their own.
    pub const ALL: [Self; 11] = [
        Self::Token,
        Self::SharedKey,
        Self::OperatorCertificate,
        Self::Revocation,
        Self::GroupInvitation,
        Self::GroupDevice,
        Self::HoldingKey,
        Self::Station,
        Self::CastingGrant,
        Self::StudioSession,
        Self::Call,
    ];

    /// Returns the prefix of this kind.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Token => "lct1",
            Self::SharedKey => "lck1",
            Self::OperatorCertificate => "lca1",
            Self::Revocation => "lcx1",
            Self::GroupInvitation => "lcg1",
            Self::GroupDevice => "lcd1",
            Self::HoldingKey => "lch1",
            Self::Station => "lcr1",
            Self::CastingGrant | Self::Board => "lcb1",
            Self::StudioSession => "lcs1",
            Self::Call => "lcc1",
        }
    }

    /// Returns whether such a text gives rights. A public station's prefix does not differ.
    #[must_use]
    pub const fn is_secret(self) -> bool {
        match self {
            Self::OperatorCertificate | Self::Revocation | Self::Board => false,
            Self::Token
            | Self::SharedKey
            | Self::GroupInvitation
            | Self::GroupDevice
            | Self::HoldingKey
            | Self::Station
            | Self::CastingGrant
            | Self::StudioSession
            | Self::Call => true,
        }
    }

    /// Returns the kind by the prefix; the text may be quoted or damaged.
    pub fn of(text: &str) -> Option<Self> {
        let text = text.trim_start_matches(is_mark);
        let is_of = |kind: &Self| text.starts_with(kind.prefix());
        Self::ALL.into_iter().find(is_of)
    }
}

impl fmt::Display for TextKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Token => "a token",
            Self::SharedKey => "a shared key",
            Self::OperatorCertificate => "an operator's certificate",
            Self::Revocation => "a revocation",
            Self::GroupInvitation => "an invitation to a group",
            Self::GroupDevice => "a text for another device of a group's member",
            Self::HoldingKey => "a key for holding a group",
            Self::Station => "a station",
            Self::CastingGrant => "a grant to cast",
            Self::StudioSession => "a session of Studio",
            Self::Call => "a call",
            Self::Board => "a board",
        };
        write!(f, "{name} ({})", self.prefix())
    }
}

/// The reason why a text is not of the wanted kind. It has nothing of the text, a possible secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TextError {
    /// The text is of another kind.
    #[error("this is {found}, not {wanted}")]
    Other {
        /// The kind by the prefix.
        found: TextKind,
        /// The wanted kind.
        wanted: TextKind,
    },
    /// The text is a public key, or begins like one.
    #[error("this is a public key (12D3KooW...), not {0}")]
    PublicKey(TextKind),
    /// None of the prefixes is there.
    #[error("this is not {0}")]
    Prefix(TextKind),
    /// Longer than any of its kind.
    #[error("too long for {0}")]
    TooLong(TextKind),
    /// Not base58, or the checksum does not match.
    #[error("damaged: {0} was not copied whole, or was changed")]
    Damaged(TextKind),
}

/// Encodes bytes as text of this kind.
pub fn encode(kind: TextKind, bytes: &[u8]) -> Zeroizing<String> {
    let coded = Zeroizing::new(bs58::encode(bytes).with_check().into_string());
    // with room for a line end: a growing text leaves a copy behind
    let mut text = Zeroizing::new(String::with_capacity(PREFIX_LENGTH + coded.len() + 1));
    text.push_str(kind.prefix());
    text.push_str(&coded);
    text
}

/// Whether mail programs put this into a text: line ends, blanks, marks of quotes.
fn is_mark(c: char) -> bool {
    c.is_whitespace() || matches!(c, '>' | '\u{ad}' | '\u{200b}' | '\u{feff}')
}

/// Decodes a text to at most `most` bytes; ignores space around it, and in it where a mail program
/// has wrapped or quoted it.
///
/// # Errors
/// The text is of another kind, damaged, or holds more.
pub fn decode(kind: TextKind, text: &str, most: usize) -> Result<Zeroizing<Vec<u8>>, TextError> {
    // base58 takes the square of the length. A byte is 1.37 characters of it.
    let longest = (most.saturating_add(CHECKSUM)).saturating_mul(7) / 5 + 1;
    // with room for one character more: a growing text leaves a copy behind
    let room = text.len().min(longest + PREFIX_LENGTH + 1) + char::MAX.len_utf8();
    let mut joined = Zeroizing::new(String::with_capacity(room));
    for c in text.chars().filter(|c| !is_mark(*c)) {
        if joined.len() > longest + PREFIX_LENGTH {
            break;
        }
        joined.push(c);
    }
    let text = joined.as_str();
    let Some(coded) = text.strip_prefix(kind.prefix()) else {
        return Err(match TextKind::of(text) {
            Some(found) => TextError::Other {
                found,
                wanted: kind,
            },
            None if text.starts_with(PUBLIC_KEY) => TextError::PublicKey(kind),
            None => TextError::Prefix(kind),
        });
    };
    if coded.len() > longest {
        return Err(TextError::TooLong(kind));
    }
    let bytes = bs58::decode(coded).with_check(None).into_vec();
    let bytes = Zeroizing::new(bytes.map_err(|_| TextError::Damaged(kind))?);
    if bytes.len() > most {
        return Err(TextError::TooLong(kind));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::SecretKey;

    #[test]
    fn the_wrong_kind_is_named() {
        for found in TextKind::ALL {
            let text = encode(found, &[7; 40]);
            assert_eq!(TextKind::of(&text), Some(found));
            for wanted in TextKind::ALL {
                let read = decode(wanted, &text, 40);
                match wanted == found {
                    true => assert_eq!(*read.unwrap(), [7; 40]),
                    false => assert_eq!(read, Err(TextError::Other { found, wanted })),
                }
            }
        }
        let certificate = encode(TextKind::OperatorCertificate, &[1]);
        let told = decode(TextKind::Token, &certificate, 100).unwrap_err();
        assert_eq!(
            told.to_string(),
            "this is an operator's certificate (lca1), not a token (lct1)"
        );
        let public = SecretKey::from_seed(&[1; 32]).peer_id().to_string();
        let told = decode(TextKind::SharedKey, &public, 32).unwrap_err();
        assert_eq!(told, TextError::PublicKey(TextKind::SharedKey));
        let told = decode(TextKind::SharedKey, "hello", 32).unwrap_err();
        assert_eq!(told.to_string(), "this is not a shared key (lck1)");
    }

    #[test]
    fn the_form_is_frozen() {
        let text = encode(TextKind::SharedKey, &[0, 1, 2, 255]);
        assert_eq!(*text, GOLDEN);
        assert_eq!(
            *decode(TextKind::SharedKey, &format!(" {GOLDEN}\n"), 4).unwrap(),
            [0, 1, 2, 255]
        );
    }

    #[test]
    fn what_mail_programs_do_to_a_text_is_undone() {
        for text in [
            "> lck113DyT\r\n> hKfKg",
            ">> lck113DyT\n>> hKfKg\n",
            "lck113DyT hKfKg",
            "\u{a0}lck113Dy\u{ad}ThK\u{200b}fKg",
        ] {
            let read = decode(TextKind::SharedKey, text, 4).unwrap();
            assert_eq!(*read, [0, 1, 2, 255], "{text}");
            assert_eq!(TextKind::of(text), Some(TextKind::SharedKey));
        }
        let changed = decode(TextKind::SharedKey, "> lck113DyT\n> hKfKh", 4);
        assert_eq!(changed, Err(TextError::Damaged(TextKind::SharedKey)));
    }

    /// Computed by another implementation (base58check in Python, hashlib).
    const GOLDEN: &str = "lck113DyThKfKg";

    #[test]
    fn what_is_damaged_or_too_long_is_refused() {
        let kind = TextKind::Token;
        let text = encode(kind, &[9; 64]);
        let damaged = Err(TextError::Damaged(kind));
        assert_eq!(decode(kind, &text[..text.len() - 1], 64), damaged);
        assert_eq!(decode(kind, "lct1", 64), damaged);
        assert_eq!(decode(kind, "lct10OIl", 64), damaged);
        let long = Err(TextError::TooLong(kind));
        assert_eq!(decode(kind, &text, 63), long);
        assert_eq!(
            decode(kind, &format!("lct1{}", "2".repeat(1_000_000)), 64),
            long
        );
    }

    proptest! {
        #[test]
        fn bytes_read_back_and_text_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300), text in "\\PC{0,80}") {
            for kind in TextKind::ALL {
                prop_assert_eq!(&*decode(kind, &encode(kind, &bytes), bytes.len()).unwrap(), &bytes);
                let _ = decode(kind, &text, 64);
                let _ = decode(kind, &format!("{}{text}", kind.prefix()), 64);
            }
        }
    }
}
