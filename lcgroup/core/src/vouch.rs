//! Several devices of one person. Each is a member with an author key and a leaf of its own.
//!
//! ```text
//! author key of the first device ──signs──► person key ──signs──► author key of another device
//! ```
//!
//! All devices of a person have the person key, and each of them may add one. The two signatures are
//! an extension of the other devices' leaves, so each member checks them itself, also one that joins
//! years later. Nobody else makes a device of a person, the owner included.
//!
//! ```text
//! leaf extension 0xf1de:
//!   version 8 = 1 | first author 256 | person key 256 | signature 512 by the first author
//!     | label 392: AES-128-GCM { length 8 | UTF-8, zeros up to 32 bytes }
//!     | signature 512 by the person key
//! "lcd1" base58check {
//!   group key 256 | read key 256 | id 64 (expiry 32 in minutes since 1970, random 32) | secret 256
//!   | first author 256 | seed of the person key 256 | signature 512 by the first author
//!   | topic (length 8) | name (length 8) | network 8 (1: the group has one of its own; else 0)
//!   | of a deputy's: its key 256 }
//! own log, device gone (8): sealed box to the group key { version 8 = 1 | author 256 }
//! own log, read (9): version 8 = 1 | n 8 | n x { device 64 | sealed box 512 of a key 128 to it }
//!     | AES-128-GCM by this key, nonce 0 { n x { author 64 | number 32 } }
//! ```
//!
//! The first signature signs group and person key; the second signs group, author and label. Only
//! devices of the person open labels, and present ones read marks. A request by such a text is like
//! any other: its secret follows from the keys of the group and of the device that made the text.
//! The owner finds that device by the extension, so it needs no list of these texts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use librecast::id::{PeerId, SecretKey, derive};
use librecast::pair::PairSecret;
use librecast::plain::is_plain;
use librecast::wire::{Reader, WireError, Writer};
use zeroize::Zeroizing;

use crate::fields::{flag, peer};
use crate::invitation::{Invitation, InvitationError, check_topic};
use crate::provider::{self, AEAD_KEY, AEAD_NONCE};
use crate::{DAY, HOUR, MAX_MEMBERS, SECOND};

/// Devices of a person. Chosen: one member takes no more places of a group.
pub const MAX_DEVICES: usize = 8;
/// Bytes of a device's label.
pub const MAX_LABEL: usize = 32;
/// The beginning of every text for a device: kind and version.
pub const DEVICE_PREFIX: &str = "lcd1";
/// Longest life of such a text in ms. Chosen: the other device is at hand.
pub const LONGEST_DEVICE_LIFE: u64 = DAY;

/// Characters of a text, above the need of 64 bytes of topic and of name.
pub(crate) const MAX_TEXT: usize = 640;
pub(crate) const MINUTE: u64 = 60 * SECOND;
/// Version of everything in this file.
pub(crate) const VERSION: u8 = 1;
/// Bytes of a label before it is sealed, and after.
pub(crate) const LABEL: usize = 1 + MAX_LABEL;
pub(crate) const SEALED_LABEL: usize = LABEL + 16;
/// Read marks that are kept. Chosen: of present members and of as many former ones.
pub(crate) const MAX_MARKS: usize = 2 * MAX_MEMBERS;
/// Bytes of a read mark: author and number.
pub(crate) const MARK: usize = 12;
/// Read marks of one entry. Chosen: below the 39 that fit beside boxes for seven devices.
pub(crate) const MARKS_OF_ENTRY: usize = 32;
/// Bytes of a device's box in it: of a key, 48 more than that.
pub(crate) const BOX: usize = AEAD_KEY + 48;
/// Read marks are filled up to a multiple of this, so that their number tells little.
pub(crate) const MARKS_STEP: usize = 8;
/// Time in ms from the first change of a read mark to its entry. Chosen: a reader scrolls on.
pub(crate) const MARKS_WAIT: u64 = 5 * SECOND;
/// Time in ms that an entry of read marks costs, and such entries at once. Chosen: a person that
/// reads all day fills a sixth of an author's places in 30 days.
pub(crate) const MARKS_EACH: u64 = 15 * MINUTE;
pub(crate) const MARKS_AT_ONCE: u64 = 4;
/// Time in ms that each new device costs its person, and new devices at once. Chosen: each one costs
/// a commit.
pub(crate) const ADDED_EACH: u64 = HOUR;
pub(crate) const ADDED_AT_ONCE: u64 = MAX_DEVICES as u64;

pub(crate) const FIRST_CONTEXT: &str = "lcgroup 2026 person key";
pub(crate) const DEVICE_CONTEXT: &str = "lcgroup 2026 device";

/// The person key, which all devices of a person have.
pub(crate) struct Person {
    /// Author key of the first device: the person, for all members.
    pub first: PeerId,
    pub key: SecretKey,
    /// The first device's signature.
    pub by_first: [u8; 64],
}

impl Clone for Person {
    fn clone(&self) -> Self {
        Self {
            key: SecretKey::from_seed(&self.key.seed()),
            ..*self
        }
    }
}

impl Person {
    /// The person whose first device has this author key.
    pub fn of_first(group: &PeerId, author: &SecretKey) -> Self {
        let seed = derive("lcgroup 2026 seed of a person key", &[&author.seed()[..]]);
        let key = SecretKey::from_seed(&Zeroizing::new(seed));
        let by_first = author.sign(FIRST_CONTEXT, &person_statement(group, &key.peer_id()));
        Self {
            first: author.peer_id(),
            key,
            by_first,
        }
    }

    /// A key for AES-128-GCM among the devices.
    pub fn secret(&self, context: &str) -> Zeroizing<[u8; AEAD_KEY]> {
        let key = Zeroizing::new(derive(context, &[&self.key.seed()[..]]));
        let mut short = Zeroizing::new([0; AEAD_KEY]);
        short.copy_from_slice(&key[..AEAD_KEY]);
        short
    }

    pub fn seal_label(&self, author: &PeerId, label: &str) -> Option<[u8; SEALED_LABEL]> {
        let mut plain = [0; LABEL];
        plain[0] = label.len() as u8;
        plain[1..]
            .get_mut(..label.len())?
            .copy_from_slice(label.as_bytes());
        let sealed = provider::seal(
            &self.secret(LABEL_KEY)[..],
            &label_nonce(author),
            &[],
            &plain,
        );
        sealed.ok()?.try_into().ok()
    }

    pub fn open_label(&self, author: &PeerId, sealed: &[u8]) -> Option<String> {
        let key = self.secret(LABEL_KEY);
        let plain = provider::open(&key[..], &label_nonce(author), &[], sealed).ok()?;
        let (length, rest) = plain.split_first()?;
        let label = std::str::from_utf8(rest.get(..usize::from(*length))?).ok()?;
        is_label(label).then(|| label.to_owned())
    }

    /// The extension of a device's leaf.
    pub fn vouch(&self, group: &PeerId, author: &PeerId, label: &str) -> Option<Vec<u8>> {
        let label = self.seal_label(author, label)?;
        let signature = self
            .key
            .sign(DEVICE_CONTEXT, &device_statement(group, author, &label));
        let mut w = Writer::new();
        w.u8(VERSION)
            .put(self.first.public_key())
            .put(self.key.peer_id().public_key())
            .put(&self.by_first)
            .put(&label)
            .put(&signature);
        Some(w.into_vec())
    }
}

pub(crate) const LABEL_KEY: &str = "lcgroup 2026 labels of devices";

pub(crate) fn label_nonce(author: &PeerId) -> [u8; AEAD_NONCE] {
    let hash = derive("lcgroup 2026 nonce of a label", &[author.public_key()]);
    let mut nonce = [0; AEAD_NONCE];
    nonce.copy_from_slice(&hash[..AEAD_NONCE]);
    nonce
}

pub(crate) fn person_statement(group: &PeerId, key: &PeerId) -> Vec<u8> {
    [&group.public_key()[..], key.public_key()].concat()
}

pub(crate) fn device_statement(group: &PeerId, author: &PeerId, label: &[u8]) -> Vec<u8> {
    [&group.public_key()[..], author.public_key(), label].concat()
}

/// Whether a text can be a device's label.
pub(crate) fn is_label(label: &str) -> bool {
    (1..=MAX_LABEL).contains(&label.len()) && is_plain(label)
}

/// The extension of a leaf, decoded.
pub(crate) struct Vouch<'a> {
    pub first: PeerId,
    pub key: PeerId,
    pub by_first: [u8; 64],
    pub label: &'a [u8],
    pub by_key: [u8; 64],
}

impl<'a> Vouch<'a> {
    pub fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        r.version(VERSION)?;
        let vouch = Self {
            first: peer(&mut r)?,
            key: peer(&mut r)?,
            by_first: r.array()?,
            label: r.take(SEALED_LABEL)?,
            by_key: r.array()?,
        };
        r.finish()?;
        Ok(vouch)
    }

    pub fn is_signed(&self, group: &PeerId, author: &PeerId) -> bool {
        let person = person_statement(group, &self.key);
        let device = device_statement(group, author, self.label);
        self.first != *author
            && self
                .first
                .verify(FIRST_CONTEXT, &person, &self.by_first)
                .is_ok()
            && self
                .key
                .verify(DEVICE_CONTEXT, &device, &self.by_key)
                .is_ok()
    }
}

/// A leaf's extension, and the person for which it is good.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub bytes: Vec<u8>,
    pub first: Option<PeerId>,
}

impl Known {
    pub fn check(group: &PeerId, author: &PeerId, bytes: Vec<u8>) -> Self {
        let vouch = Vouch::decode(&bytes).ok();
        let vouch = vouch.filter(|vouch| vouch.is_signed(group, author));
        let first = vouch.map(|vouch| vouch.first);
        Self { bytes, first }
    }
}

/// A device that is not its person's first.
pub(crate) struct Other {
    pub person: Person,
    pub label: String,
}

/// How far a person has read an author's log.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Mark {
    pub number: u32,
    /// Other devices do not know it.
    pub is_new: bool,
}

/// This participant's state of devices, its own and others'.
#[derive(Default)]
pub(crate) struct Devices {
    /// This device, unless it is the first.
    pub own: Option<Other>,
    /// Members with an extension, former ones of this run included.
    pub known: BTreeMap<PeerId, Known>,
    /// By the first 64 bits of an author, as in entries.
    pub marks: BTreeMap<[u8; 8], Mark>,
    /// When the next entry of read marks is due, and until when they have used up their share.
    pub marks_due: Option<u64>,
    pub marks_spent: u64,
    /// The owner's: texts that were used, and by which author.
    pub used: BTreeMap<u64, PeerId>,
    /// The owner's: until when new devices of a person have used up its share.
    pub added: BTreeMap<PeerId, u64>,
    /// Devices of this person that this one asked to remove and that are members yet, and the key of
    /// the office that it asked.
    pub asked: BTreeSet<PeerId>,
    pub asked_of: Option<PeerId>,
}

impl Devices {
    /// Bytes of the state, about.
    pub fn bytes(&self) -> usize {
        512 + self.marks.len() * 13 + self.used.len() * 40 + self.asked.len() * 32
    }

    pub fn put(&self, w: &mut Writer) {
        w.u8(self.own.is_some().into());
        if let Some(Other { person, label }) = &self.own {
            w.put(person.first.public_key())
                .put(&person.key.seed()[..])
                .put(&person.by_first)
                .u8(label.len() as u8)
                .put(label.as_bytes());
        }
        w.u64(self.marks_spent).u32(self.marks.len() as u32);
        for (author, mark) in &self.marks {
            w.put(author).u32(mark.number).u8(mark.is_new.into());
        }
        w.u32(self.used.len() as u32);
        for (id, author) in &self.used {
            w.u64(*id).put(author.public_key());
        }
        let asked_of = self.asked_of.filter(|_| !self.asked.is_empty());
        w.u8(asked_of.is_some().into());
        if let Some(of) = asked_of {
            w.put(of.public_key()).u32(self.asked.len() as u32);
            for device in &self.asked {
                w.put(device.public_key());
            }
        }
    }

    pub fn read(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let mut devices = Self::default();
        if r.u8()? != 0 {
            let person = Person {
                first: peer(r)?,
                key: SecretKey::from_seed(&Zeroizing::new(r.array()?)),
                by_first: r.array()?,
            };
            let label = r.text8()?.to_owned();
            devices.own = Some(Other { person, label });
        }
        devices.marks_spent = r.u64()?;
        for _ in 0..r.u32()? {
            let (author, number, is_new) = (r.array()?, r.u32()?, r.u8()? != 0);
            devices.marks.insert(author, Mark { number, is_new });
            devices.marks_due = devices.marks_due.or(is_new.then_some(0));
        }
        for _ in 0..r.u32()? {
            devices.used.insert(r.u64()?, peer(r)?);
        }
        if r.u8()? != 0 {
            devices.asked_of = Some(peer(r)?);
            for _ in 0..r.u32()? {
                devices.asked.insert(peer(r)?);
            }
        }
        Ok(devices)
    }
}

/// A text that makes another host a device of this person.
#[derive(Clone, PartialEq, Eq)]
pub struct DeviceInvitation {
    /// What it shares with an invitation.
    pub invitation: Invitation,
    /// Author key of the person's first device.
    pub first: PeerId,
    pub(crate) seed: Zeroizing<[u8; 32]>,
    pub(crate) by_first: [u8; 64],
    /// The person's name.
    pub name: String,
}

impl DeviceInvitation {
    /// The line of text, to be handed over secretly.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<String> {
        let Self {
            invitation,
            first,
            seed,
            by_first,
            name,
        } = self;
        let mut w = Writer::from(Vec::with_capacity(MAX_TEXT));
        w.put(invitation.group.public_key())
            .put(&invitation.read_key[..])
            .u64(invitation.id)
            .put(&invitation.secret[..])
            .put(first.public_key())
            .put(&seed[..])
            .put(by_first)
            .u8(invitation.topic.len() as u8)
            .put(invitation.topic.as_bytes())
            .u8(name.len() as u8)
            .put(name.as_bytes())
            .u8(invitation.outside.into());
        if invitation.to != invitation.group {
            w.put(invitation.to.public_key());
        }
        let bytes = Zeroizing::new(w.into_vec());
        let text = bs58::encode(bytes.as_slice()).with_check().into_string();
        Zeroizing::new(format!("{DEVICE_PREFIX}{text}"))
    }
}

impl FromStr for DeviceInvitation {
    type Err = InvitationError;

    fn from_str(text: &str) -> Result<Self, InvitationError> {
        let text = text.trim();
        if text.len() > MAX_TEXT {
            return Err(InvitationError::TooLong);
        }
        let body = text
            .strip_prefix(DEVICE_PREFIX)
            .ok_or(InvitationError::Prefix)?;
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
        let first = PeerId::from_public_key(r.array()?).map_err(|_| InvitationError::Key)?;
        let (seed, by_first) = (Zeroizing::new(r.array()?), r.array()?);
        let (topic, name) = (r.text8()?.to_owned(), r.text8()?.to_owned());
        let outside = flag(&mut r)?;
        let to = match r.is_empty() {
            true => group,
            false => PeerId::from_public_key(r.array()?).map_err(|_| InvitationError::Key)?,
        };
        r.finish()?;
        check_topic(&topic)?;
        let invitation = Invitation {
            group,
            to,
            read_key,
            id,
            secret,
            expires: expiry(id),
            topic,
            outside,
        };
        Ok(Self {
            invitation,
            first,
            seed,
            by_first,
            name,
        })
    }
}

impl fmt::Debug for DeviceInvitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceInvitation of {:?}", self.invitation)
    }
}

/// When the text of this id expires (ms since 1970).
pub(crate) fn expiry(id: u64) -> u64 {
    (id >> 32) * MINUTE
}

/// The secret of a text, for the device that made it and for the owner.
pub(crate) fn secret_of(own: &SecretKey, other: &PeerId, id: u64) -> Option<Zeroizing<[u8; 32]>> {
    if own.peer_id() == *other {
        // its own device's text, of one in office by its author key: no pair
        let parts = [&own.seed()[..], &id.to_be_bytes()];
        return Some(derive("lcgroup 2026 secret of an own device's text", &parts).into());
    }
    let shared = PairSecret::agree(own, other).ok()?;
    let parts = [&shared.bytes()[..], &id.to_be_bytes()];
    Some(derive("lcgroup 2026 secret of a device's text", &parts).into())
}

/// Whether something that costs `each` ms may happen, `at_once` times without a pause.
pub(crate) fn allowed_at(spent: u64, each: u64, at_once: u64) -> u64 {
    spent.saturating_sub((at_once - 1) * each)
}

/// The 64 bits of an author in a read mark.
pub(crate) fn short(author: &PeerId) -> [u8; 8] {
    let mut short = [0; 8];
    short.copy_from_slice(&author.public_key()[..8]);
    short
}

/// All decoders of this file.
pub(crate) fn decode_any(bytes: &[u8]) {
    let _ = Vouch::decode(bytes);
    let _ = decode_gone(bytes);
    let _ = decode_marks(bytes, &SecretKey::from_seed(&[0; 32]).peer_id());
    let _ = Devices::read(&mut Reader::new(bytes));
}

/// The box for `me` in an entry of read marks, and the sealed marks.
pub(crate) fn decode_marks<'a>(
    bytes: &'a [u8],
    me: &PeerId,
) -> Result<(Option<&'a [u8]>, &'a [u8]), WireError> {
    let mut r = Reader::new(bytes);
    r.version(VERSION)?;
    let (mut own, devices) = (None, r.u8()?);
    for _ in 0..devices {
        let (device, sealed) = (r.array::<8>()?, r.take(BOX)?);
        if device == short(me) {
            own = Some(sealed);
        }
    }
    Ok((own, r.rest()))
}

pub(crate) fn decode_gone(bytes: &[u8]) -> Result<PeerId, WireError> {
    let mut r = Reader::new(bytes);
    r.version(VERSION)?;
    peer(&mut r)
}
