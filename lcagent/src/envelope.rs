//! One signed command: an operator's datagram, and an agent's checks.
//!
//! Version 1, big-endian:
//!
//! ```text
//!   0  version 8 = 1 | kind 8             1, 8: with payload; 2, 9: in parts (module `part`)
//!   2  operator key 256                   ed25519 public key
//!  34  issued 64                          Unix seconds by the operator's clock
//!  42  not after 64                       Unix seconds, at most MAX_LIFETIME_S behind issued
//!  50  sequence 64                        from 1, rising; see the module `replay`
//!  58  nonce 128                          random
//!  74  selector length 16 | selector      UTF-8, at most MAX_SELECTOR bytes; see `selector`
//!      certificate length 16 | certificate       kinds 8 and 9 only; see `certificate`
//!      payload length 32 | payload hash 256
//!      signature 512                      ed25519 over CONTEXT, 0x00, everything before it
//!      payload                            kind 1: to the end of the datagram
//! ```
//!
//! The payload hash is `derive_key("lcagent 2026 payload", payload)`; so the signature covers a few
//! hundred bytes for any payload. A datagram is at most [`MAX_DATAGRAM`] bytes, so that no path
//! fragments it. Cheap checks come first; the costly ones (the hash, then the signature) only for a
//! key that the agent knows and a command it has not seen:
//!
//! ```text
//! length -> fields -> times -> key known -> replay window -> payload hash -> signatures
//!        -> selector parsed -> accepted; remembered in the replay window once the payload is whole
//! ```

use librecast::id::{PeerId, SecretKey};
use librecast::time::UnixTime;
use librecast::wire::{Reader, WireError};
use thiserror::Error;

use crate::certificate::Certificate;
use crate::datagram::{JobId, Kind, MAX_AHEAD_S, MAX_BEHIND_S, MAX_DATAGRAM};
use crate::part::{self, Awaited, payload_hash};
use crate::replay::{Name, ReplayError, ReplayWindow, Times};
use crate::selector::{MAX_SELECTOR, Selector, SelectorError};

/// Largest payload in bytes; larger content is copied as a file.
pub const MAX_PAYLOAD: usize = 4 << 20;
/// Longest time between issue and expiry, in seconds: a week.
pub const MAX_LIFETIME_S: u64 = 7 * 24 * 3600;

const CONTEXT: &str = "lcagent 2026 command";

/// A command before it is signed or after it was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The nodes it is for.
    pub selector: Selector,
    /// Issue in Unix seconds by the operator's clock.
    pub issued: u64,
    /// Unix seconds after which no agent may start it.
    pub not_after: u64,
    /// From 1, rising with each command of a key.
    pub sequence: u64,
    /// Distinguishes commands of one key with the same sequence: random.
    pub nonce: [u8; 16],
    /// The request; opaque here.
    pub payload: Vec<u8>,
}

/// The reason why a command cannot be signed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SignError {
    /// The payload is longer than [`MAX_PAYLOAD`].
    #[error("command of {0} bytes; at most {MAX_PAYLOAD}: copy large content first")]
    TooLong(usize),
    /// The written selector would be longer than [`MAX_SELECTOR`].
    #[error(transparent)]
    Selector(#[from] SelectorError),
    /// Expiry before issue, or more than [`MAX_LIFETIME_S`] behind it.
    #[error("expiry must follow the issue within {MAX_LIFETIME_S} s")]
    Lifetime,
    /// Sequence 0 is invalid.
    #[error("sequences start at 1")]
    Sequence,
    /// Selector and certificate do not fit one datagram.
    #[error("selector and certificate are too long together")]
    Head,
}

/// The reason why an agent refuses an envelope.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Longer than [`MAX_DATAGRAM`].
    #[error("envelope of {0} bytes; at most {MAX_DATAGRAM}")]
    TooLong(usize),
    /// Not an envelope of this version.
    #[error("malformed envelope: {0}")]
    Malformed(#[from] WireError),
    /// By the agent's clock it ended more than [`MAX_BEHIND_S`] ago, and was issued {0} s ago.
    #[error("expired: issued {0} s ago")]
    Expired(u64),
    /// Issued {0} s in the agent's future: more than [`MAX_AHEAD_S`].
    #[error("issued {0} s in the future; a clock is wrong")]
    ClockAhead(u64),
    /// Valid for longer than [`MAX_LIFETIME_S`], or expired before it was issued.
    #[error("lifetime out of bounds")]
    Lifetime,
    /// The policy does not list this key.
    #[error("unknown operator key {0}")]
    UnknownKey(PeerId),
    /// The key has been revoked.
    #[error("revoked operator key {0}")]
    Revoked(PeerId),
    /// The certificate that came along is not valid for this command.
    #[error("certificate: {0}")]
    Certificate(#[from] CertificateError),
    /// Seen before, or older than the window.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The payload differs from the signed one.
    #[error("payload does not match its hash")]
    PayloadHash,
    /// The signature does not verify.
    #[error("signature does not verify")]
    Signature,
    /// The certificate's signature does not verify.
    #[error("the certificate's signature does not verify")]
    CertificateSignature,
    /// Too many signatures from its source did not verify.
    #[error("too many signatures did not verify lately")]
    TooManyForged,
    /// Signed by a known key, but its selector cannot be read.
    #[error(transparent)]
    Selector(#[from] SelectorError),
}

/// The reason why a certificate is not valid for its command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CertificateError {
    /// It names another key than the one that signed the command.
    #[error("of another operator")]
    OtherOperator,
    /// Expired now, or before the command was issued.
    #[error("expired")]
    Expired,
    /// Issued more than [`MAX_AHEAD_S`] in the agent's future.
    #[error("issued in the future; a clock is wrong")]
    ClockAhead,
}

/// An agent's trust in an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The policy lists him.
    Listed,
    /// The policy lists his certifier.
    Certified,
    /// The policy lists neither him nor his certifier.
    Unknown,
    /// His key, or his certifier's, has been revoked.
    Revoked,
}

/// A new command of a known operator, valid by its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Key of the operator that signed it.
    pub operator: PeerId,
    /// His certificate, if one came along.
    pub certificate: Option<Certificate>,
    /// The signed command; without its payload if that comes in parts.
    pub command: Command,
    /// The expected payload, if it comes in parts.
    pub awaited: Option<Awaited>,
    /// The difference of the clocks, if it was tolerated and needs a warning.
    pub skew: Skew,
}

/// The known difference of two clocks when a command arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skew {
    /// None is known.
    None,
    /// The operator's clock is this number of seconds ahead of the agent's.
    Ahead(u64),
    /// The command ended before it arrived: the operator's clock is behind by at most this number
    /// of seconds, if the command was not delayed.
    Behind(u64),
}

/// The datagrams of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// Name of the command in datagrams, logs and folders.
    pub job: JobId,
    /// The envelope: one datagram.
    pub envelope: Vec<u8>,
    /// The datagrams of its payload; none if the envelope carries it.
    pub parts: Vec<Vec<u8>>,
}

impl Command {
    /// Signs the command with the operator's key.
    pub fn sign(&self, key: &SecretKey) -> Result<Signed, SignError> {
        self.sign_as(key, None)
    }

    /// Signs the command with the key of an operator with `certificate`.
    pub fn sign_as(
        &self,
        key: &SecretKey,
        certificate: Option<&Certificate>,
    ) -> Result<Signed, SignError> {
        let selector = self.selector.to_string();
        if selector.len() > MAX_SELECTOR {
            return Err(SelectorError::TooLong(selector.len()).into());
        }
        if !lifetime_is_bounded(self.issued, self.not_after) {
            return Err(SignError::Lifetime);
        }
        if self.sequence == 0 {
            return Err(SignError::Sequence);
        }
        if self.payload.len() > MAX_PAYLOAD {
            return Err(SignError::TooLong(self.payload.len()));
        }
        let head = FIXED + selector.len() + certificate.map_or(0, |c| 2 + c.as_bytes().len());
        if head > MAX_DATAGRAM {
            return Err(SignError::Head);
        }
        let inline = head + self.payload.len() <= MAX_DATAGRAM;
        let kind = match (inline, certificate) {
            (true, None) => Kind::Command,
            (false, None) => Kind::Announced,
            (true, Some(_)) => Kind::CertifiedCommand,
            (false, Some(_)) => Kind::CertifiedAnnounced,
        };
        // both lengths fit: they are below MAX_SELECTOR and MAX_PAYLOAD here
        let mut w = kind.start();
        w.put(key.peer_id().public_key());
        w.u64(self.issued)
            .u64(self.not_after)
            .u64(self.sequence)
            .put(&self.nonce);
        w.u16(selector.len() as u16).put(selector.as_bytes());
        if let Some(certificate) = certificate {
            let bytes = certificate.as_bytes();
            w.u16(bytes.len() as u16).put(bytes);
        }
        w.u32(self.payload.len() as u32)
            .put(&payload_hash(&self.payload));
        let signature = key.sign(CONTEXT, w.as_slice());
        w.put(&signature);
        let job = self.job(&key.peer_id());
        let mut parts = Vec::new();
        if inline {
            w.put(&self.payload);
        } else {
            parts = part::split(job, &self.payload, key);
        }
        Ok(Signed {
            job,
            envelope: w.into_vec(),
            parts,
        })
    }

    /// Returns the name of this command of `operator`.
    #[must_use]
    pub fn job(&self, operator: &PeerId) -> JobId {
        JobId::of(operator, self.sequence, &self.nonce)
    }
}

/// Verifies `datagram`. The caller has to store it in `replay` before any effect, whether or not
/// the selector picks this node. `now`: the agent's clock in Unix seconds; `standing` returns its
/// trust in a key and certifier, `may_verify` whether a signature may be checked.
/// `may_verify` whether a signature may be looked at.
pub fn open(
    datagram: &[u8],
    now: UnixTime,
    standing: impl Fn(&PeerId, Option<&Certificate>) -> Standing,
    replay: &ReplayWindow,
    may_verify: impl FnOnce() -> bool,
) -> Result<Opened, Refusal> {
    let envelope = Envelope::decode(datagram)?;
    let skew = envelope.check_times(now)?;
    // a key that is not a point on the curve is in no policy either
    let operator = PeerId::from_public_key(*envelope.operator)
        .map_err(|_| Refusal::Malformed(WireError::Bad("operator key")))?;
    let certificate = envelope.certificate(&operator, now)?;
    let certifier = match (standing(&operator, certificate.as_ref()), &certificate) {
        (Standing::Listed, _) => None,
        (Standing::Certified, Some(c)) => Some(c.certifier),
        (Standing::Revoked, _) => return Err(Refusal::Revoked(operator)),
        _ => return Err(Refusal::UnknownKey(operator)),
    };
    let name = Name {
        operator: &operator,
        certifier: certifier.as_ref(),
        sequence: envelope.sequence,
        nonce: envelope.nonce,
    };
    let times = Times {
        not_after: envelope.not_after,
        now,
    };
    replay.check(name, times)?;
    if let Some(payload) = envelope.payload
        && payload_hash(payload) != *envelope.payload_hash
    {
        return Err(Refusal::PayloadHash);
    }
    if !may_verify() {
        return Err(Refusal::TooManyForged);
    }
    operator
        .verify(CONTEXT, envelope.signed, envelope.signature)
        .map_err(|_| Refusal::Signature)?;
    if certificate.as_ref().is_some_and(|c| !c.verify()) {
        return Err(Refusal::CertificateSignature);
    }
    let awaited = envelope.payload.is_none().then_some(Awaited {
        length: envelope.payload_len,
        hash: *envelope.payload_hash,
    });
    let command = Command {
        selector: envelope.selector.parse()?,
        issued: envelope.issued,
        not_after: envelope.not_after,
        sequence: envelope.sequence,
        nonce: *envelope.nonce,
        payload: envelope.payload.unwrap_or_default().to_vec(),
    };
    Ok(Opened {
        operator,
        certificate,
        command,
        awaited,
        skew,
    })
}

/// Fields of an envelope, valid or not; untrusted before [`is_genuine`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unverified {
    /// Key that signed it.
    pub operator: PeerId,
    /// The operator's certifier.
    pub certifier: Option<PeerId>,
    /// The command.
    pub job: JobId,
    /// From 1, rising with each command of a key.
    pub sequence: u64,
    /// Distinguishes commands with one sequence.
    pub nonce: [u8; 16],
    /// The nodes it is for, if that can be read.
    pub selector: Option<Selector>,
}

/// Reads the fields of an envelope without checks.
#[must_use]
pub fn unverified(datagram: &[u8]) -> Option<Unverified> {
    let envelope = Envelope::decode(datagram).ok()?;
    let operator = PeerId::from_public_key(*envelope.operator).ok()?;
    let certificate = envelope.certificate.map(Certificate::decode);
    let certificate = certificate.transpose().ok()?;
    Some(Unverified {
        operator,
        certifier: certificate.map(|c| c.certifier),
        job: JobId::of(&operator, envelope.sequence, envelope.nonce),
        sequence: envelope.sequence,
        nonce: *envelope.nonce,
        selector: envelope.selector.parse().ok(),
    })
}

/// Returns whether the signatures of the operator and of the certificate, if any, verify.
#[must_use]
pub fn is_genuine(datagram: &[u8]) -> bool {
    let Ok(envelope) = Envelope::decode(datagram) else {
        return false;
    };
    let Ok(operator) = PeerId::from_public_key(*envelope.operator) else {
        return false;
    };
    let certified = envelope.certificate.is_none_or(|bytes| {
        Certificate::decode(bytes).is_ok_and(|c| c.operator == operator && c.verify())
    });
    let signed = operator.verify(CONTEXT, envelope.signed, envelope.signature);
    certified && signed.is_ok()
}

/// Returns the command that an envelope names, without checks.
#[must_use]
pub fn peek(datagram: &[u8]) -> Option<JobId> {
    let envelope = Envelope::decode(datagram).ok()?;
    let operator = PeerId::from_public_key(*envelope.operator).ok()?;
    Some(JobId::of(&operator, envelope.sequence, envelope.nonce))
}

/// Bytes of an envelope without selector and payload.
const FIXED: usize = 1 + 1 + 32 + 3 * 8 + 16 + 2 + 4 + 32 + 64;

/// The fields in the datagram, unverified.
struct Envelope<'a> {
    operator: &'a [u8; 32],
    issued: u64,
    not_after: u64,
    sequence: u64,
    nonce: &'a [u8; 16],
    selector: &'a str,
    certificate: Option<&'a [u8]>,
    payload_len: usize,
    payload_hash: &'a [u8; 32],
    signed: &'a [u8],
    signature: &'a [u8; 64],
    /// None: it comes in parts.
    payload: Option<&'a [u8]>,
}

impl<'a> Envelope<'a> {
    fn decode(datagram: &'a [u8]) -> Result<Self, Refusal> {
        if datagram.len() > MAX_DATAGRAM {
            return Err(Refusal::TooLong(datagram.len()));
        }
        let (kind, mut r) = Kind::read(datagram)?;
        let (in_parts, certified) = match kind {
            Kind::Command => (false, false),
            Kind::Announced => (true, false),
            Kind::CertifiedCommand => (false, true),
            Kind::CertifiedAnnounced => (true, true),
            _ => return Err(WireError::Bad("kind").into()),
        };
        let operator = array(&mut r)?;
        let (issued, not_after, sequence) = (r.u64()?, r.u64()?, r.u64()?);
        let nonce = array(&mut r)?;
        let selector = r.bytes16()?;
        if selector.len() > MAX_SELECTOR {
            return Err(WireError::Bad("selector length").into());
        }
        let selector = std::str::from_utf8(selector).map_err(|_| WireError::Bad("utf-8"))?;
        let certificate = certified.then(|| r.bytes16()).transpose()?;
        // usize has at least 32 bits on our platforms
        let payload_len = r.u32()? as usize;
        if payload_len > MAX_PAYLOAD {
            return Err(WireError::Bad("payload length").into());
        }
        let payload_hash = array(&mut r)?;
        let signed = &datagram[..datagram.len() - r.rest().len()];
        let signature = array(&mut r)?;
        let payload = if in_parts {
            None
        } else {
            Some(r.take(payload_len)?)
        };
        r.finish()?;
        Ok(Self {
            operator,
            issued,
            not_after,
            sequence,
            nonce,
            selector,
            certificate,
            payload_len,
            payload_hash,
            signed,
            signature,
            payload,
        })
    }

    /// Returns the certificate if it is for `operator` and in time. Does not verify its signature.
    fn certificate(
        &self,
        operator: &PeerId,
        now: UnixTime,
    ) -> Result<Option<Certificate>, Refusal> {
        let Some(bytes) = self.certificate else {
            return Ok(None);
        };
        let certificate = Certificate::decode(bytes)?;
        let wrong = if certificate.operator != *operator {
            CertificateError::OtherOperator
        } else if certificate.not_after < now.as_secs() || certificate.not_after < self.issued {
            CertificateError::Expired
        } else if certificate.issued > now.as_secs().saturating_add(MAX_AHEAD_S) {
            CertificateError::ClockAhead
        } else {
            return Ok(Some(certificate));
        };
        Err(wrong.into())
    }

    /// Checks the times; returns the difference of the clocks.
    fn check_times(&self, now: UnixTime) -> Result<Skew, Refusal> {
        if !lifetime_is_bounded(self.issued, self.not_after) {
            return Err(Refusal::Lifetime);
        }
        let behind = now.as_secs().saturating_sub(self.issued);
        if is_over(self.not_after, now) {
            return Err(Refusal::Expired(behind));
        }
        match self.issued.saturating_sub(now.as_secs()) {
            ahead if ahead > MAX_AHEAD_S => Err(Refusal::ClockAhead(ahead)),
            0 if self.not_after < now.as_secs() => Ok(Skew::Behind(behind)),
            0 => Ok(Skew::None),
            ahead => Ok(Skew::Ahead(ahead)),
        }
    }
}

/// Returns whether a command that is valid until `not_after` has ended for any tolerated clock.
#[must_use]
pub fn is_over(not_after: u64, now: UnixTime) -> bool {
    not_after.saturating_add(MAX_BEHIND_S) < now.as_secs()
}

fn lifetime_is_bounded(issued: u64, not_after: u64) -> bool {
    not_after
        .checked_sub(issued)
        .is_some_and(|lifetime| lifetime <= MAX_LIFETIME_S)
}

fn array<'a, const N: usize>(r: &mut Reader<'a>) -> Result<&'a [u8; N], WireError> {
    r.take(N)?.try_into().map_err(|_| WireError::Truncated)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn key() -> SecretKey {
        SecretKey::from_seed(&[42; 32])
    }

    fn command(payload: &[u8]) -> Command {
        Command {
            selector: "role=web,!site=berlin*+db1".parse().unwrap(),
            issued: NOW,
            not_after: NOW + 60,
            sequence: 1,
            nonce: [9; 16],
            payload: payload.to_vec(),
        }
    }

    fn verify_at(datagram: &[u8], now: UnixTime) -> Result<Opened, Refusal> {
        open(
            datagram,
            now,
            |k, certificate| {
                let certifier = certificate.map(|c| c.certifier);
                if *k == key().peer_id() {
                    Standing::Listed
                } else if certifier == Some(key().peer_id()) {
                    Standing::Certified
                } else {
                    Standing::Unknown
                }
            },
            &ReplayWindow::new(),
            || true,
        )
    }

    /// Opens and stores it like an agent.
    fn accept(datagram: &[u8], replay: &mut ReplayWindow) -> Result<Opened, Refusal> {
        let opened = open(
            datagram,
            UnixTime::from_secs(NOW),
            |_, _| Standing::Listed,
            replay,
            || true,
        )?;
        let command = &opened.command;
        let times = Times {
            not_after: command.not_after,
            now: UnixTime::from_secs(NOW),
        };
        let name = Name {
            operator: &opened.operator,
            certifier: None,
            sequence: command.sequence,
            nonce: &command.nonce,
        };
        replay.accept(name, times)?;
        Ok(opened)
    }

    fn envelope(command: &Command) -> Vec<u8> {
        command.sign(&key()).unwrap().envelope
    }

    /// Signs bytes that `Command::sign` would never sign.
    fn signed_by_hand(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let command = command(b"x");
        let mut bytes = envelope(&command);
        bytes.truncate(bytes.len() - 65);
        change(&mut bytes);
        let signature = key().sign(CONTEXT, &bytes);
        [&bytes, signature.as_slice(), b"x"].concat()
    }

    #[test]
    fn golden_bytes_of_version_1() {
        let command = Command {
            selector: Selector::all(),
            ..command(b"uptime")
        };
        let bytes = envelope(&command);
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            include_str!("../tests/golden/envelope-v1.hex")
                .split_whitespace()
                .collect::<String>()
        );
        assert_eq!(
            verify_at(&bytes, UnixTime::from_secs(NOW)).unwrap().command,
            command
        );
    }

    #[test]
    fn command_of_a_known_operator_is_accepted_once() {
        let bytes = envelope(&command(b"payload"));
        let mut replay = ReplayWindow::new();
        let accepted = accept(&bytes, &mut replay).unwrap();
        assert_eq!(accepted.operator, key().peer_id());
        assert_eq!(accepted.command, command(b"payload"));
        assert_eq!(accepted.skew, Skew::None);
        let mut after_restart = ReplayWindow::decode(&replay.encode()).unwrap();
        for replay in [&mut replay, &mut after_restart] {
            let again = accept(&bytes, replay).unwrap_err();
            assert_eq!(again, Refusal::Replay(ReplayError::Replayed));
        }
    }

    #[test]
    fn unknown_key_is_refused_before_its_signature_is_looked_at() {
        let stranger = SecretKey::from_seed(&[1; 32]);
        let mut bytes = command(b"").sign(&stranger).unwrap().envelope;
        assert_eq!(
            verify_at(&bytes, UnixTime::from_secs(NOW)),
            Err(Refusal::UnknownKey(stranger.peer_id()))
        );
        *bytes.last_mut().unwrap() ^= 1;
        assert_eq!(
            verify_at(&bytes, UnixTime::from_secs(NOW)),
            Err(Refusal::UnknownKey(stranger.peer_id()))
        );
    }

    #[test]
    fn forged_command_leaves_no_trace_in_the_replay_window() {
        let good = envelope(&command(b"payload"));
        let mut forged = good.clone();
        let at = forged.len() - b"payload".len() - 1;
        forged[at] ^= 1;
        let mut replay = ReplayWindow::new();
        assert_eq!(accept(&forged, &mut replay), Err(Refusal::Signature));
        assert_eq!(replay, ReplayWindow::new());
        assert!(accept(&good, &mut replay).is_ok());
    }

    #[test]
    fn expiry_is_the_agents_clock_to_the_second() {
        let bytes = envelope(&command(b""));
        assert!(verify_at(&bytes, UnixTime::from_secs(NOW + 60)).is_ok());
        assert_eq!(
            verify_at(&bytes, UnixTime::from_secs(NOW + 61))
                .unwrap()
                .skew,
            Skew::Behind(61)
        );
        let over = NOW + 60 + MAX_BEHIND_S;
        assert_eq!(
            verify_at(&bytes, UnixTime::from_secs(over)).unwrap().skew,
            Skew::Behind(360)
        );
        assert_eq!(
            verify_at(&bytes, UnixTime::from_secs(over + 1)),
            Err(Refusal::Expired(361))
        );
        assert_eq!(
            verify_at(&bytes, UnixTime::from_secs(u64::MAX)),
            Err(Refusal::Expired(u64::MAX - NOW))
        );
    }

    #[test]
    fn operators_clock_may_be_an_hour_ahead_and_the_difference_is_told() {
        let bytes = envelope(&command(b""));
        assert_eq!(
            verify_at(&bytes, UnixTime::from_secs(NOW - 3600))
                .unwrap()
                .skew,
            Skew::Ahead(3600)
        );
        assert_eq!(
            verify_at(&bytes, UnixTime::from_secs(NOW - 3601)),
            Err(Refusal::ClockAhead(3601))
        );
        assert_eq!(
            verify_at(&bytes, UnixTime::from_secs(0)),
            Err(Refusal::ClockAhead(NOW))
        );
    }

    #[test]
    fn agents_clock_may_be_an_hour_ahead_if_the_command_lives_that_long() {
        let long = Command {
            not_after: NOW + 2 * 3600,
            ..command(b"")
        };
        assert!(verify_at(&envelope(&long), UnixTime::from_secs(NOW + 3600)).is_ok());
    }

    #[test]
    fn what_cannot_be_verified_cannot_be_signed() {
        let key = key();
        let c = || command(b"");
        let too_long = command(&vec![0; MAX_PAYLOAD + 1]).sign(&key);
        assert!(matches!(too_long, Err(SignError::TooLong(_))));
        let backwards = Command {
            not_after: NOW - 1,
            ..c()
        }
        .sign(&key);
        assert_eq!(backwards, Err(SignError::Lifetime));
        let for_ever = Command {
            not_after: NOW + MAX_LIFETIME_S + 1,
            ..c()
        }
        .sign(&key);
        assert_eq!(for_ever, Err(SignError::Lifetime));
        assert_eq!(
            Command { sequence: 0, ..c() }.sign(&key),
            Err(SignError::Sequence)
        );

        let room = MAX_DATAGRAM - FIXED - c().selector.to_string().len();
        let inline = command(&vec![1; room]).sign(&key).unwrap();
        assert_eq!(
            (inline.envelope.len(), inline.parts.len()),
            (MAX_DATAGRAM, 0)
        );
        assert!(verify_at(&inline.envelope, UnixTime::from_secs(NOW)).is_ok());
    }

    #[test]
    fn payload_that_does_not_fit_is_announced_and_comes_in_parts() {
        let payload = vec![7; 5_000];
        let long = Command {
            selector: "x".repeat(MAX_SELECTOR).parse().unwrap(),
            ..command(&payload)
        };
        let signed = long.sign(&key()).unwrap();
        assert!(signed.envelope.len() <= MAX_DATAGRAM, "without fragments");
        let opened = verify_at(&signed.envelope, UnixTime::from_secs(NOW)).unwrap();
        assert_eq!(opened.command.payload, b"");
        let awaited = opened.awaited.unwrap();
        assert_eq!(awaited.length, payload.len());
        assert_eq!(awaited.hash, payload_hash(&payload));
        assert_eq!(peek(&signed.envelope), Some(signed.job));
        assert_eq!(signed.parts.len(), 5);
    }

    #[test]
    fn a_signature_does_not_make_bad_fields_good() {
        assert!(
            verify_at(&signed_by_hand(|_| {}), UnixTime::from_secs(NOW)).is_ok(),
            "the helper itself"
        );
        let refusal = |change: fn(&mut Vec<u8>)| {
            verify_at(&signed_by_hand(change), UnixTime::from_secs(NOW)).unwrap_err()
        };
        assert_eq!(
            refusal(|b| b[0] = 2),
            Refusal::Malformed(WireError::Version(2))
        );
        assert_eq!(
            refusal(|b| b[1] = 11),
            Refusal::Malformed(WireError::Bad("kind"))
        );
        let for_ever = refusal(|b| b[42..50].copy_from_slice(&u64::MAX.to_be_bytes()));
        assert_eq!(for_ever, Refusal::Lifetime);
        let sequence_0 = refusal(|b| b[50..58].fill(0));
        assert_eq!(sequence_0, Refusal::Replay(ReplayError::BelowWindow));
        assert_eq!(
            refusal(|b| b[76] = 0xff),
            Refusal::Malformed(WireError::Bad("utf-8"))
        );
        assert!(matches!(refusal(|b| b[76] = b','), Refusal::Selector(_)));
    }

    #[test]
    fn oversize_is_refused_by_its_length_alone() {
        let huge = vec![1; 10 * 1024 * 1024];
        assert_eq!(
            verify_at(&huge, UnixTime::from_secs(NOW)),
            Err(Refusal::TooLong(huge.len()))
        );
        let trailing = [envelope(&command(b"")), vec![0]].concat();
        assert_eq!(
            verify_at(&trailing, UnixTime::from_secs(NOW)),
            Err(Refusal::Malformed(WireError::Trailing))
        );
    }

    #[test]
    fn signature_of_another_purpose_does_not_serve() {
        let mut bytes = envelope(&command(b"x"));
        let at = bytes.len() - 65;
        let other = key().sign("lcagent 2026 answer", &bytes[..at]);
        bytes[at..at + 64].copy_from_slice(&other);
        assert_eq!(
            verify_at(&bytes, UnixTime::from_secs(NOW)),
            Err(Refusal::Signature)
        );
    }

    #[test]
    fn tampering_with_any_bit_is_refused() {
        let good = envelope(&command(b"rm -r /tmp/x"));
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bytes = good.clone();
                bytes[at] ^= 1 << bit;
                assert!(
                    open(
                        &bytes,
                        UnixTime::from_secs(NOW),
                        |_, _| Standing::Listed,
                        &ReplayWindow::new(),
                        || true
                    )
                    .is_err(),
                    "{at}.{bit}"
                );
            }
        }
    }

    #[test]
    fn a_certified_key_is_believed_for_a_time_and_by_its_own_certificate_alone() {
        let other = SecretKey::from_seed(&[5; 32]);
        let by_key = |operator: &SecretKey, issued, not_after| {
            Certificate::sign(&key(), &operator.peer_id(), issued, not_after, &[]).unwrap()
        };
        let sent = |certificate: &Certificate, payload: &[u8]| {
            let signed = command(payload).sign_as(&other, Some(certificate)).unwrap();
            verify_at(&signed.envelope, UnixTime::from_secs(NOW + 10))
        };
        let good = by_key(&other, NOW, NOW + 50);
        for payload in [&b"x"[..], &[1; 3_000]] {
            let opened = sent(&good, payload).unwrap();
            assert_eq!(opened.operator, other.peer_id());
            assert_eq!(opened.certificate, Some(good.clone()));
        }
        assert_eq!(
            sent(&by_key(&other, NOW, NOW + 9), b""),
            Err(Refusal::Certificate(CertificateError::Expired))
        );
        assert!(matches!(
            sent(&by_key(&other, NOW + 3_700, NOW + 9_999), b""),
            Err(Refusal::Certificate(_))
        ));
        let for_another = by_key(&SecretKey::from_seed(&[6; 32]), NOW, NOW + 50);
        assert_eq!(
            sent(&for_another, b""),
            Err(Refusal::Certificate(CertificateError::OtherOperator))
        );
        let by_nobody = Certificate::sign(&other, &other.peer_id(), NOW, NOW + 50, &[]).unwrap();
        assert_eq!(
            sent(&by_nobody, b""),
            Err(Refusal::UnknownKey(other.peer_id()))
        );
        // names a key as signer that has not signed it
        let mut forged = by_nobody.as_bytes().to_vec();
        forged[1..33].copy_from_slice(key().peer_id().public_key());
        let forged = Certificate::decode(&forged).unwrap();
        assert_eq!(sent(&forged, b""), Err(Refusal::CertificateSignature));
    }

    proptest! {
        #[test]
        fn round_trips(
            payload in prop::collection::vec(any::<u8>(), 0..900),
            lifetime in 0..=MAX_LIFETIME_S,
            sequence in 1_u64..,
            nonce in any::<[u8; 16]>(),
            selector in "!?[a-z]{1,9}(=[a-z?*]{0,9})?([,+]!?[a-z*]{1,9}){0,5}",
        ) {
            let selector = selector.parse().unwrap();
            let command = Command { selector, issued: NOW, not_after: NOW + lifetime, sequence, nonce, payload };
            let bytes = envelope(&command);
            prop_assert_eq!(verify_at(&bytes, UnixTime::from_secs(NOW)).unwrap().command, command);
        }

        #[test]
        fn other_bytes_in_any_place_are_refused(
            at in any::<prop::sample::Index>(),
            other in prop::collection::vec(any::<u8>(), 1..40),
        ) {
            let good = envelope(&command(b"rm -r /tmp/x"));
            let (mut bytes, at) = (good.clone(), at.index(good.len()));
            bytes.splice(at..(at + other.len()).min(good.len()), other);
            prop_assume!(bytes != good);
            prop_assert!(verify_at(&bytes, UnixTime::from_secs(NOW)).is_err());
        }

        #[test]
        fn truncated_is_refused(at in any::<prop::sample::Index>()) {
            let bytes = envelope(&command(b"payload"));
            let cut = &bytes[..at.index(bytes.len())];
            prop_assert_eq!(verify_at(cut, UnixTime::from_secs(NOW)), Err(Refusal::Malformed(WireError::Truncated)));
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..600),
            now in any::<u64>(),
        ) {
            prop_assert!(open(&bytes, UnixTime::from_secs(now), |_, _| Standing::Listed, &ReplayWindow::new(), || true).is_err());
            // with version and kind, so that the fields are reached
            for kind in [1, 2, 8, 9] {
                let versioned = [&[1, kind], bytes.as_slice()].concat();
                prop_assert!(open(&versioned, UnixTime::from_secs(now), |_, _| Standing::Listed, &ReplayWindow::new(), || true).is_err());
            }
        }
    }
}
