//! Certificates: an operator's signed permission for another key to do, for a time, no more than he
//! may. It travels with each command; agents list only the certifier.
//!
//! ```text
//! version 8 = 1 | certifier 256 | operator 256 | issued 64 | not after 64
//! | patterns 8 x text8                    permitted, as in [[allow]]; none: all of the certifier's
//! | signature 512                         the certifier's, over CONTEXT, 0x00, all before it
//! ```
//!
//! A certified operator cannot certify further keys.

use std::fmt;
use std::str::FromStr;

use librecast::id::{PeerId, SecretKey};
use librecast::text::{self, TextError, TextKind};
use librecast::wire::{Reader, WireError, Writer};
use thiserror::Error;

use crate::datagram::SIGNATURE_LEN;
use crate::pattern::Pattern;

/// Longest certificate in bytes: an envelope has to hold it.
pub const MAX_CERTIFICATE: usize = 512;

const CONTEXT: &str = "lcagent 2026 certificate";
/// Version of certificates, their first byte.
const VERSION: u8 = 1;

/// A certificate of one operator for another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Key that signed the certificate; the policy lists it.
    pub certifier: PeerId,
    /// The certified key.
    pub operator: PeerId,
    /// Issue in Unix seconds.
    pub issued: u64,
    /// Last valid second, in Unix seconds.
    pub not_after: u64,
    /// Permitted commands; empty: all of the certifier's.
    pub commands: Vec<Pattern>,
    bytes: Vec<u8>,
}

impl Certificate {
    /// Signs a certificate; one longer than [`MAX_CERTIFICATE`] is an error.
    pub fn sign(
        key: &SecretKey,
        operator: &PeerId,
        issued: u64,
        not_after: u64,
        commands: &[Pattern],
    ) -> Result<Self, WireError> {
        let mut w = Writer::new();
        w.u8(VERSION).put(key.peer_id().public_key());
        w.put(operator.public_key()).u64(issued).u64(not_after);
        w.u8(u8::try_from(commands.len()).map_err(|_| WireError::Bad("patterns"))?);
        for pattern in commands {
            w.text8(&pattern.to_string())?;
        }
        let signature = key.sign(CONTEXT, w.as_slice());
        w.put(&signature);
        Self::decode(w.as_slice())
    }

    /// Decodes a certificate without verifying its signature.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        if bytes.len() > MAX_CERTIFICATE {
            return Err(WireError::Bad("certificate: too long"));
        }
        let mut r = Reader::new(bytes);
        r.version(VERSION)?;
        let certificate = Self {
            certifier: key(&mut r)?,
            operator: key(&mut r)?,
            issued: r.u64()?,
            not_after: r.u64()?,
            commands: (0..r.u8()?)
                .map(|_| Pattern::parse(r.text8()?).ok_or(WireError::Bad("pattern")))
                .collect::<Result<_, _>>()?,
            bytes: bytes.to_vec(),
        };
        r.take(SIGNATURE_LEN)?;
        r.finish()?;
        Ok(certificate)
    }

    /// Returns whether the certifier's signature verifies.
    #[must_use]
    pub fn verify(&self) -> bool {
        let Some((signed, signature)) = self.bytes.split_last_chunk::<SIGNATURE_LEN>() else {
            return false;
        };
        self.certifier.verify(CONTEXT, signed, signature).is_ok()
    }

    /// Returns the signed bytes, at most [`MAX_CERTIFICATE`].
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

fn key(r: &mut Reader<'_>) -> Result<PeerId, WireError> {
    PeerId::from_public_key(r.array()?).map_err(|_| WireError::Bad("key"))
}

/// The reason why a text is not a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CertificateTextError {
    /// Another kind of text, too long, or damaged.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The bytes are not a certificate of this version.
    #[error("malformed certificate: {0}")]
    Malformed(#[from] WireError),
}

/// One line of text, `lca1...`.
impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text::encode(TextKind::OperatorCertificate, &self.bytes))
    }
}

impl FromStr for Certificate {
    type Err = CertificateTextError;

    fn from_str(text: &str) -> Result<Self, CertificateTextError> {
        let bytes = text::decode(TextKind::OperatorCertificate, text, MAX_CERTIFICATE)?;
        Ok(Self::decode(&bytes)?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secret(n: u8) -> SecretKey {
        SecretKey::from_seed(&[n; 32])
    }

    fn patterns(texts: &[&str]) -> Vec<Pattern> {
        texts.iter().map(|t| Pattern::parse(t).unwrap()).collect()
    }

    #[test]
    fn certificate_reads_back_and_every_changed_byte_is_noticed() {
        let commands = patterns(&["uptime", "systemctl restart *"]);
        let good = Certificate::sign(&secret(1), &secret(2).peer_id(), 10, 20, &commands).unwrap();
        assert!(good.verify());
        assert_eq!(good.to_string().parse(), Ok(good.clone()));
        assert_eq!(good.commands, commands);
        for at in 0..good.bytes.len() {
            let mut bytes = good.bytes.clone();
            bytes[at] ^= 1;
            let changed = Certificate::decode(&bytes);
            assert!(!changed.is_ok_and(|c| c.verify()), "{at}");
            assert!(Certificate::decode(&good.bytes[..at]).is_err(), "{at}");
        }
    }

    #[test]
    fn long_lists_are_refused() {
        let long = "x".repeat(200);
        let sign = |texts: &[&str]| {
            let commands = patterns(texts);
            Certificate::sign(&secret(1), &secret(2).peer_id(), 0, 1, &commands)
        };
        assert!(sign(&[&long]).is_ok());
        assert!(sign(&[&long, &long]).is_err());
        assert!(sign(&["x"; 256]).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), text in ".{0,200}") {
            let _ = Certificate::decode(&bytes);
            let _ = text.parse::<Certificate>();
        }
    }
}
