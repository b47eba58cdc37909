//! The sealed, signed message that makes a link. All checks of a peer come before ICE or DTLS
//! state.
//!
//! ```text
//! sealed box to the recipient (X25519, XSalsa20-Poly1305; 48 bytes more than its content):
//!   version 8 = 2 | kind 8 | sender 256 | recipient 256 | network 256 | time 64 (unix seconds)
//!   | nonce 128 = { session 64 (random per process) | sequence 64 (counts up per session) }
//!   | session of the recipient 64 (0: unknown) | control 8 (version of control messages, 4)
//!   | chain (u16 length, bytes) | payload (u16 length, bytes)
//!   | ed25519 signature 512 over all of the above
//!
//! request (1): flags 8 (bit 0: ICE restart wanted)
//! offer   (2): flags 8 (bit 0: ICE restart) | attempt 256 (random) | description
//! answer  (3): flags 8 | attempt 256 (of the offer) | nonce 256 (random) | description
//! refusal (4): reason 8 (1 no room, 2 revoked, 3 another version, 4 its stack panicked)
//!              | if revoked: the revocation (u16 length, bytes; none: empty)
//! attestation request (5): session 64 of the other run
//! attestation (6): flags 8 (bit 0: the sender has a link to the recipient) | attestation (rest)
//! candidates (7): attempt 256 (of the offer) | count 8 | candidates
//! ```
//!
//! The fields before `time`, and the signature at the end, are the same in all versions: so a
//! sender with another version can be identified.
//!
//! An offer and an answer name the recipient's session, so they cannot be replayed to another run
//! of its process. A window of sequences prevents replay to the same run.

use std::fmt;

use bytes::Bytes;
use crypto_box::{PublicKey, SecretKey as BoxKey};
use librecast::cert::{CLOCK_SKEW, CertError, Chain, Member};
use librecast::id::PeerId;
use librecast::time::UnixTime;
use librecast::wire::{Reader, WireError, Writer};

use crate::MAX_SIGNAL;
use crate::attestation::MAX_ATTESTATION;
use crate::config::Identity;
use crate::description::{Candidate, Description, read_candidates, write_candidates};
use crate::drops::DropReason;
use crate::random::Random;

const CONTEXT: &str = "lcroute 2026 signal";
/// Bit of a payload's first byte: an ICE restart.
const RESTART: u8 = 1;
/// Bit of an attestation's first byte: the sender has the link.
const LINKED: u8 = 1;

/// The reason for which a signalling message is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Refusal {
    Size,
    Sealed,
    Malformed,
    Version,
    SignalOlder,
    SignalNewer,
    ControlOlder,
    ControlNewer,
    Recipient,
    Network,
    Clock,
    Signature,
    Certificate,
    CertificateNetwork,
    CertificateForged,
    CertificateExpired,
    CertificateEarly,
    CertificateSubject,
    Replayed,
    Session,
    Rate,
    Full,
    Leaf,
    Revoked,
    Auth,
    Panicked,
}

/// Reason text by which users recognize a wrong clock.
pub const CLOCK_DIFFERS: &str = "clock differs by more than a day";
/// Reason text of a peer with as many links as it may have.
pub const NO_ROOM: &str = "the peer has no room for more links";

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl Refusal {
    /// Returns its counter, and the reason text for logs and `peers`.
    fn words(self) -> (DropReason, &'static str) {
        match self {
            Self::Size => (DropReason::SignalTooLarge, "too large"),
            Self::Sealed => (DropReason::SignalNotOpened, "tampered or not for this node"),
            Self::Malformed => (DropReason::SignalMalformed, "malformed"),
            Self::Version => (DropReason::SignalVersion, "unknown version"),
            Self::SignalOlder => (
                DropReason::SignalVersion,
                "speaks another version of lcroute (signalling 1, here 2)",
            ),
            Self::SignalNewer => (
                DropReason::SignalVersion,
                "speaks another version of lcroute (signalling 3 or later, here 2)",
            ),
            Self::ControlOlder => (
                DropReason::ControlVersion,
                "speaks another version of lcroute (control 3 or earlier, here 4)",
            ),
            Self::ControlNewer => (
                DropReason::ControlVersion,
                "speaks another version of lcroute (control 5 or later, here 4)",
            ),
            Self::Recipient => (DropReason::SignalRecipient, "wrong recipient"),
            Self::Network => (DropReason::SignalNetwork, "another network"),
            Self::Clock => (DropReason::SignalClock, CLOCK_DIFFERS),
            Self::Signature => (DropReason::SignalForged, "forged signature"),
            Self::Certificate => (DropReason::CertificateMalformed, "malformed certificate"),
            Self::CertificateNetwork => (
                DropReason::CertificateNetwork,
                "certificate of another network",
            ),
            Self::CertificateForged => (DropReason::CertificateForged, "forged certificate"),
            Self::CertificateExpired => (DropReason::CertificateExpired, "expired certificate"),
            Self::CertificateEarly => (DropReason::CertificateEarly, "certificate not valid yet"),
            Self::CertificateSubject => (
                DropReason::CertificateSubject,
                "certificate of another node",
            ),
            Self::Replayed => (DropReason::SignalReplayed, "replayed"),
            Self::Session => (DropReason::SignalSession, "for an earlier run of this node"),
            Self::Rate => (DropReason::SignalRate, "too many messages"),
            Self::Full => (DropReason::PeersFull, "no room for more links"),
            Self::Leaf => (
                DropReason::LeafRefused,
                "this node is a leaf, and did not ask",
            ),
            Self::Revoked => (DropReason::CertificateRevoked, "revoked"),
            Self::Auth => (DropReason::AuthFailed, "authentication failed"),
            Self::Panicked => (
                DropReason::WebrtcRefused,
                "the WebRTC stack panicked over what it sent",
            ),
        }
    }

    pub(crate) fn counter(self) -> DropReason {
        self.words().0
    }

    /// The reason text for logs and `peers`.
    pub(crate) fn reason(self) -> &'static str {
        self.words().1
    }

    /// Returns whether the message proves no sender.
    pub(crate) fn is_junk(self) -> bool {
        matches!(
            self,
            Self::Size | Self::Sealed | Self::Malformed | Self::Signature
        )
    }

    /// Returns whether the sender itself is at fault, and not a carrier of its message.
    pub(crate) fn blames_sender(self) -> bool {
        matches!(
            self,
            Self::Network
                | Self::Clock
                | Self::Certificate
                | Self::CertificateNetwork
                | Self::CertificateForged
                | Self::CertificateExpired
                | Self::CertificateEarly
                | Self::CertificateSubject
                | Self::SignalOlder
                | Self::SignalNewer
                | Self::ControlOlder
                | Self::ControlNewer
                | Self::Revoked
                | Self::Auth
                | Self::Panicked
        )
    }
}

impl Refusal {
    fn of_signal(theirs: u8, ours: u8) -> Self {
        if theirs < ours {
            Self::SignalOlder
        } else {
            Self::SignalNewer
        }
    }

    /// Returns the refusal of a peer with another version of control messages.
    pub(crate) fn of_control(theirs: u8, ours: u8) -> Self {
        if theirs < ours {
            Self::ControlOlder
        } else {
            Self::ControlNewer
        }
    }

    pub(crate) fn code(self) -> Option<RefusalCode> {
        match self {
            Self::Full => Some(RefusalCode::Full),
            Self::Revoked => Some(RefusalCode::Revoked),
            Self::ControlOlder | Self::ControlNewer => Some(RefusalCode::Version),
            Self::Panicked => Some(RefusalCode::Panicked),
            _ => None,
        }
    }
}

/// The reason in a refusal that was received or is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefusalCode {
    Full,
    Revoked,
    Version,
    Panicked,
    Clock,
    /// A code of a later version.
    Other(u8),
}

impl RefusalCode {
    fn number(self) -> u8 {
        match self {
            Self::Full => 1,
            Self::Revoked => 2,
            Self::Version => 3,
            Self::Panicked => 4,
            Self::Clock => 5,
            Self::Other(number) => number,
        }
    }

    fn of(number: u8) -> Self {
        match number {
            1 => Self::Full,
            2 => Self::Revoked,
            3 => Self::Version,
            4 => Self::Panicked,
            5 => Self::Clock,
            other => Self::Other(other),
        }
    }

    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Full => NO_ROOM,
            Self::Revoked => "the peer says that our certificate is revoked",
            Self::Version => "the peer speaks another version of lcroute",
            Self::Panicked => "the peer's WebRTC stack panicked over what we sent",
            Self::Clock => CLOCK_DIFFERS,
            Self::Other(_) => "refused by the peer",
        }
    }
}

impl From<CertError> for Refusal {
    fn from(error: CertError) -> Self {
        match error {
            CertError::OtherNetwork => Self::CertificateNetwork,
            CertError::Expired(_) => Self::CertificateExpired,
            CertError::NotYetValid(_) => Self::CertificateEarly,
            CertError::Malformed(_) | CertError::BadToken(_) => Self::Certificate,
            CertError::Leaf => Self::Leaf,
            CertError::Forged(_) | CertError::Order | CertError::Widened(_) => {
                Self::CertificateForged
            }
        }
    }
}

/// The content of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Payload {
    /// "I have no link to you" (`restart`: "my address changed"): the smaller PeerId offers.
    Request { restart: bool },
    Offer {
        restart: bool,
        attempt: [u8; 32],
        description: Description,
    },
    Answer {
        restart: bool,
        attempt: [u8; 32],
        nonce: [u8; 32],
        description: Description,
    },
    /// Addresses of the sender that its offer or answer does not name (trickle ICE, RFC 8838).
    Candidates {
        attempt: [u8; 32],
        candidates: Vec<Candidate>,
    },
    /// "You get no link." `proof`: the signed revocation, which the sender cannot forge.
    Refusal { code: RefusalCode, proof: Bytes },
    /// "Another host seems to have your key": its run `other` asks for links beside the recipient.
    AttestationRequest { other: u64 },
    /// The answer; or, to the node whose key signed it, the answer of its other run.
    Attestation { linked: bool, bytes: Bytes },
}

/// A message whose sender, membership, network and age have been checked.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) member: Member,
    pub(crate) session: u64,
    pub(crate) sequence: u64,
    pub(crate) to_session: u64,
    /// Version of its control messages.
    pub(crate) control: u8,
    pub(crate) payload: Payload,
}

/// The variable fields of a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp {
    pub(crate) time: u64,
    pub(crate) session: u64,
    pub(crate) sequence: u64,
    pub(crate) to_session: u64,
}

pub(crate) fn seal(
    identity: &Identity,
    to: &PeerId,
    stamp: Stamp,
    payload: &Payload,
    random: &mut Random,
) -> Result<Vec<u8>, Refusal> {
    let mut inner = write(identity, to, stamp, payload).map_err(|_| Refusal::Size)?;
    let signature = identity.key.sign(CONTEXT, inner.as_slice());
    inner.put(&signature);
    let key = PublicKey::from(to.x25519().map_err(|_| Refusal::Recipient)?);
    key.seal(random, inner.as_slice())
        .map_err(|_| Refusal::Size)
}

fn write(
    identity: &Identity,
    to: &PeerId,
    stamp: Stamp,
    payload: &Payload,
) -> Result<Writer, WireError> {
    let mut w = Writer::new();
    w.u8(identity.speaks.signal).u8(payload.kind());
    w.put(identity.peer_id().public_key()).put(to.public_key());
    w.put(identity.network.public_key());
    w.u64(stamp.time)
        .u64(stamp.session)
        .u64(stamp.sequence)
        .u64(stamp.to_session)
        .u8(identity.speaks.control);
    w.bytes16(&identity.chain.encode())?;
    w.bytes16(&payload.encode()?)?;
    Ok(w)
}

/// Opens and checks a message. The error contains the sender if the signature proves it.
pub(crate) fn open(
    identity: &Identity,
    now: UnixTime,
    sealed: &[u8],
) -> Result<Opened, (Refusal, Option<PeerId>)> {
    if sealed.len() > MAX_SIGNAL {
        return Err((Refusal::Size, None));
    }
    let key = BoxKey::from(*identity.key.x25519());
    let inner = key.unseal(sealed).map_err(|_| (Refusal::Sealed, None))?;
    let envelope = Envelope::read(&inner, identity.speaks.signal).map_err(|e| match e {
        WireError::Version(theirs) => refuse_version(identity, &inner, theirs),
        _ => (Refusal::Malformed, None),
    })?;
    envelope
        .sender
        .verify(CONTEXT, envelope.signed, &envelope.signature)
        .map_err(|_| (Refusal::Signature, None))?;
    envelope
        .check(identity, now)
        .map_err(|refusal| (refusal, Some(envelope.sender)))
}

/// Returns the refusal of another version, with the sender if the common fields are valid.
fn refuse_version(identity: &Identity, inner: &[u8], theirs: u8) -> (Refusal, Option<PeerId>) {
    let sender = || {
        let (signed, signature) = inner.split_last_chunk()?;
        let mut r = Reader::new(signed);
        r.array::<2>().ok()?;
        let sender = PeerId::from_public_key(r.array().ok()?).ok()?;
        let recipient: [u8; 32] = r.array().ok()?;
        let network: [u8; 32] = r.array().ok()?;
        let ours = &recipient == identity.peer_id().public_key()
            && &network == identity.network.public_key();
        let genuine = sender.verify(CONTEXT, signed, signature).is_ok();
        (ours && genuine && sender != identity.peer_id()).then_some(sender)
    };
    match sender() {
        Some(sender) => {
            let refusal = Refusal::of_signal(theirs, identity.speaks.signal);
            (refusal, Some(sender))
        }
        None => (Refusal::Version, None),
    }
}

struct Envelope<'a> {
    signed: &'a [u8],
    kind: u8,
    sender: PeerId,
    recipient: [u8; 32],
    network: [u8; 32],
    time: u64,
    session: u64,
    sequence: u64,
    to_session: u64,
    control: u8,
    chain: &'a [u8],
    payload: &'a [u8],
    signature: [u8; 64],
}

impl<'a> Envelope<'a> {
    fn read(inner: &'a [u8], version: u8) -> Result<Self, WireError> {
        let mut r = Reader::new(inner);
        match r.u8()? {
            known if known == version => {}
            other => return Err(WireError::Version(other)),
        }
        let envelope = Self {
            kind: r.u8()?,
            sender: PeerId::from_public_key(r.array()?).map_err(|_| WireError::Bad("sender"))?,
            recipient: r.array()?,
            network: r.array()?,
            time: r.u64()?,
            session: r.u64()?,
            sequence: r.u64()?,
            to_session: r.u64()?,
            control: r.u8()?,
            chain: r.bytes16()?,
            payload: r.bytes16()?,
            signed: &inner[..inner.len() - r.rest().len()],
            signature: r.array()?,
        };
        r.finish()?;
        Ok(envelope)
    }

    fn check(&self, identity: &Identity, now: UnixTime) -> Result<Opened, Refusal> {
        if &self.recipient != identity.peer_id().public_key() {
            return Err(Refusal::Recipient);
        }
        if &self.network != identity.network.public_key() {
            return Err(Refusal::Network);
        }
        if self.time.abs_diff(now.as_secs()) > CLOCK_SKEW {
            return Err(Refusal::Clock);
        }
        let chain = Chain::decode(self.chain).map_err(|_| Refusal::Certificate)?;
        let member = chain.verify(&identity.network, now)?;
        if member.peer != self.sender || self.sender == identity.peer_id() {
            return Err(Refusal::CertificateSubject);
        }
        let payload = Payload::decode(self.kind, self.payload).map_err(|_| Refusal::Malformed)?;
        Ok(Opened {
            member,
            session: self.session,
            sequence: self.sequence,
            to_session: self.to_session,
            control: self.control,
            payload,
        })
    }
}

impl Payload {
    fn kind(&self) -> u8 {
        match self {
            Self::Request { .. } => 1,
            Self::Offer { .. } => 2,
            Self::Answer { .. } => 3,
            Self::Refusal { .. } => 4,
            Self::AttestationRequest { .. } => 5,
            Self::Attestation { .. } => 6,
            Self::Candidates { .. } => 7,
        }
    }

    fn encode(&self) -> Result<Vec<u8>, WireError> {
        let mut w = Writer::new();
        match self {
            Self::Request { restart } => {
                w.u8(u8::from(*restart));
            }
            Self::Offer {
                restart,
                attempt,
                description,
            } => {
                w.u8(u8::from(*restart)).put(attempt);
                description.write(&mut w)?;
            }
            Self::Answer {
                restart,
                attempt,
                nonce,
                description,
            } => {
                w.u8(u8::from(*restart)).put(attempt).put(nonce);
                description.write(&mut w)?;
            }
            Self::Candidates {
                attempt,
                candidates,
            } => {
                w.put(attempt);
                write_candidates(candidates, &mut w);
            }
            Self::Refusal { code, proof } => {
                w.u8(code.number());
                if *code == RefusalCode::Revoked {
                    w.bytes16(proof)?;
                }
            }
            Self::AttestationRequest { other } => {
                w.u64(*other);
            }
            Self::Attestation { linked, bytes } => {
                w.u8(u8::from(*linked)).put(bytes);
            }
        }
        Ok(w.into_vec())
    }

    fn decode(kind: u8, bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        if kind == 5 {
            let other = r.u64()?;
            r.finish()?;
            return Ok(Self::AttestationRequest { other });
        }
        if kind == 7 {
            let attempt = r.array()?;
            let candidates = read_candidates(&mut r)?;
            r.finish()?;
            return Ok(Self::Candidates {
                attempt,
                candidates,
            });
        }
        let first = r.u8()?;
        let restart = first & RESTART != 0;
        let payload = match kind {
            1 => Self::Request { restart },
            2 => {
                let attempt = r.array()?;
                Self::Offer {
                    restart,
                    attempt,
                    description: Description::read(&mut r)?,
                }
            }
            3 => {
                let (attempt, nonce) = (r.array()?, r.array()?);
                Self::Answer {
                    restart,
                    attempt,
                    nonce,
                    description: Description::read(&mut r)?,
                }
            }
            4 => {
                let code = RefusalCode::of(first);
                let proof = match code {
                    RefusalCode::Revoked => Bytes::copy_from_slice(r.bytes16()?),
                    _ => Bytes::new(),
                };
                Self::Refusal { code, proof }
            }
            6 if r.rest().len() <= MAX_ATTESTATION => {
                return Ok(Self::Attestation {
                    linked: first & LINKED != 0,
                    bytes: Bytes::copy_from_slice(r.rest()),
                });
            }
            _ => return Err(WireError::Bad("kind")),
        };
        r.finish()?;
        Ok(payload)
    }
}

impl Payload {
    /// Returns whether the message makes or refuses a link.
    pub(crate) fn concerns_links(&self) -> bool {
        !matches!(
            self,
            Self::AttestationRequest { .. } | Self::Attestation { .. }
        )
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Request { .. } => "connection request",
            Self::Offer { .. } => "offer",
            Self::Answer { .. } => "answer",
            Self::Refusal { .. } => "refusal",
            Self::AttestationRequest { .. } => "attestation request",
            Self::Attestation { .. } => "attestation",
            Self::Candidates { .. } => "candidates",
        }
    }
}
