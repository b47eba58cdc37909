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
//!   | topic (length 8) | name (length 8) }
//! own log, device gone (8): sealed box to the group key { version 8 = 1 | author 256 }
//! own log, read (9): version 8 = 1 | n 8 | n x { device 64 | sealed box 512 of a key 128 to it }
//!     | AES-128-GCM by this key, nonce 0 { n x { author 64 | number 32 } }
//! ```
//!
//! The first signature signs group and person key; the second signs group, author and label. Only
//! devices of the person open labels, and present ones read marks. A request by such a text is like any other: its
//! secret follows from the keys of the group and of the device that made the text. The owner finds
//! that device by the extension, so it needs no list of these texts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use crypto_box::aead::rand_core::RngCore as _;
use librecast::id::{PeerId, SecretKey, derive};
use librecast::pair::PairSecret;
use librecast::plain::is_plain;
use librecast::time::UnixTime;
use librecast::wire::{Reader, WireError, Writer};
use zeroize::Zeroizing;

use crate::body::kind;
use crate::drops::{DropReason, RequestRefusal};
use crate::error::GroupError;
use crate::event::{Entry, Event, Log, NewEntry, Taken};
use crate::group::{Group, Standing};
use crate::invitation::{Invitation, InvitationError, check_topic};
use crate::mls::{Change, MlsFailure, OwnKeyPackage, vouch_in};
use crate::provider::{self, AEAD_KEY, AEAD_NONCE, NO_NONCE};
use crate::request::Request;
use crate::{DAY, HOUR, MAX_BODY, MAX_MEMBERS, SECOND, request};

/// Devices of a person. Chosen: one member takes no more places of a group.
pub const MAX_DEVICES: usize = 8;
/// Bytes of a device's label.
pub const MAX_LABEL: usize = 32;
/// The beginning of every text for a device: kind and version.
pub const DEVICE_PREFIX: &str = "lcd1";
/// Longest life of such a text in ms. Chosen: the other device is at hand.
pub const LONGEST_DEVICE_LIFE: u64 = DAY;

/// Characters of a text, above the need of 64 bytes of topic and of name.
const MAX_TEXT: usize = 640;
const MINUTE: u64 = 60 * SECOND;
/// Version of everything in this file.
const VERSION: u8 = 1;
/// Bytes of a label before it is sealed, and after.
const LABEL: usize = 1 + MAX_LABEL;
const SEALED_LABEL: usize = LABEL + 16;
/// Read marks that are kept. Chosen: of present members and of as many former ones.
const MAX_MARKS: usize = 2 * MAX_MEMBERS;
/// Bytes of a read mark: author and number.
const MARK: usize = 12;
/// Read marks of one entry. Chosen: below the 39 that fit beside boxes for seven devices.
const MARKS_OF_ENTRY: usize = 32;
/// Bytes of a device's box in it: of a key, 48 more than that.
const BOX: usize = AEAD_KEY + 48;
/// Read marks are filled up to a multiple of this, so that their number tells little.
const MARKS_STEP: usize = 8;
/// Time in ms from the first change of a read mark to its entry. Chosen: a reader scrolls on.
const MARKS_WAIT: u64 = 5 * SECOND;
/// Time in ms that an entry of read marks costs, and such entries at once. Chosen: a person that
/// reads all day fills a sixth of an author's places in 30 days.
const MARKS_EACH: u64 = 15 * MINUTE;
const MARKS_AT_ONCE: u64 = 4;
/// Time in ms that each new device costs its person, and new devices at once. Chosen: each one costs
/// a commit.
const ADDED_EACH: u64 = HOUR;
const ADDED_AT_ONCE: u64 = MAX_DEVICES as u64;

const FIRST_CONTEXT: &str = "lcgroup 2026 person key";
const DEVICE_CONTEXT: &str = "lcgroup 2026 device";

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
    fn of_first(group: &PeerId, author: &SecretKey) -> Self {
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
    fn secret(&self, context: &str) -> Zeroizing<[u8; AEAD_KEY]> {
        let key = Zeroizing::new(derive(context, &[&self.key.seed()[..]]));
        let mut short = Zeroizing::new([0; AEAD_KEY]);
        short.copy_from_slice(&key[..AEAD_KEY]);
        short
    }

    fn seal_label(&self, author: &PeerId, label: &str) -> Option<[u8; SEALED_LABEL]> {
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

    fn open_label(&self, author: &PeerId, sealed: &[u8]) -> Option<String> {
        let key = self.secret(LABEL_KEY);
        let plain = provider::open(&key[..], &label_nonce(author), &[], sealed).ok()?;
        let (length, rest) = plain.split_first()?;
        let label = std::str::from_utf8(rest.get(..usize::from(*length))?).ok()?;
        is_label(label).then(|| label.to_owned())
    }

    /// The extension of a device's leaf.
    fn vouch(&self, group: &PeerId, author: &PeerId, label: &str) -> Option<Vec<u8>> {
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

const LABEL_KEY: &str = "lcgroup 2026 labels of devices";

fn label_nonce(author: &PeerId) -> [u8; AEAD_NONCE] {
    let hash = derive("lcgroup 2026 nonce of a label", &[author.public_key()]);
    let mut nonce = [0; AEAD_NONCE];
    nonce.copy_from_slice(&hash[..AEAD_NONCE]);
    nonce
}

fn person_statement(group: &PeerId, key: &PeerId) -> Vec<u8> {
    [&group.public_key()[..], key.public_key()].concat()
}

fn device_statement(group: &PeerId, author: &PeerId, label: &[u8]) -> Vec<u8> {
    [&group.public_key()[..], author.public_key(), label].concat()
}

/// Whether a text can be a device's label.
fn is_label(label: &str) -> bool {
    (1..=MAX_LABEL).contains(&label.len()) && is_plain(label)
}

/// The extension of a leaf, decoded.
pub(crate) struct Vouch<'a> {
    first: PeerId,
    key: PeerId,
    by_first: [u8; 64],
    label: &'a [u8],
    by_key: [u8; 64],
}

impl<'a> Vouch<'a> {
    pub fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        match r.u8()? {
            VERSION => {}
            other => return Err(WireError::Version(other)),
        }
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

    fn is_signed(&self, group: &PeerId, author: &PeerId) -> bool {
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

fn peer(r: &mut Reader<'_>) -> Result<PeerId, WireError> {
    PeerId::from_public_key(r.array()?).map_err(|_| WireError::Bad("key"))
}

/// A leaf's extension, and the person for which it is good.
#[derive(Debug, Clone)]
struct Known {
    bytes: Vec<u8>,
    first: Option<PeerId>,
}

impl Known {
    fn check(group: &PeerId, author: &PeerId, bytes: Vec<u8>) -> Self {
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
struct Mark {
    number: u32,
    /// Other devices do not know it.
    is_new: bool,
}

/// This participant's state of devices, its own and those of others.
#[derive(Default)]
pub(crate) struct Devices {
    /// This device, unless it is the first.
    pub own: Option<Other>,
    /// Members with an extension, former ones of this run included.
    known: BTreeMap<PeerId, Known>,
    /// By the first 64 bits of an author, as in entries.
    marks: BTreeMap<[u8; 8], Mark>,
    /// When the next entry of read marks is due, and until when they have used up their share.
    marks_due: Option<u64>,
    marks_spent: u64,
    /// The owner's: texts that were used, and by which author.
    used: BTreeMap<u64, PeerId>,
    /// The owner's: until when new devices of a person have used up its share.
    added: BTreeMap<PeerId, u64>,
}

impl Devices {
    /// Whether a state has nothing of this.
    pub fn is_empty(&self) -> bool {
        self.own.is_none() && self.marks.is_empty() && self.used.is_empty()
    }

    /// Bytes of the state, about.
    pub fn bytes(&self) -> usize {
        512 + self.marks.len() * 13 + self.used.len() * 40
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
    seed: Zeroizing<[u8; 32]>,
    by_first: [u8; 64],
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
            .put(name.as_bytes());
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
            outside: false,
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
fn expiry(id: u64) -> u64 {
    (id >> 32) * MINUTE
}

/// The secret of a text, for the device that made it and for the owner.
fn secret_of(own: &SecretKey, other: &PeerId, id: u64) -> Option<Zeroizing<[u8; 32]>> {
    let shared = PairSecret::agree(own, other).ok()?;
    let parts = [&shared.bytes()[..], &id.to_be_bytes()];
    Some(derive("lcgroup 2026 secret of a device's text", &parts).into())
}

/// Whether something that costs `each` ms may happen, `at_once` times without a pause.
fn allowed_at(spent: u64, each: u64, at_once: u64) -> u64 {
    spent.saturating_sub((at_once - 1) * each)
}

/// The 64 bits of an author in a read mark.
fn short(author: &PeerId) -> [u8; 8] {
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
fn decode_marks<'a>(
    bytes: &'a [u8],
    me: &PeerId,
) -> Result<(Option<&'a [u8]>, &'a [u8]), WireError> {
    let mut r = Reader::new(bytes);
    match r.u8()? {
        VERSION => {}
        other => return Err(WireError::Version(other)),
    }
    let (mut own, devices) = (None, r.u8()?);
    for _ in 0..devices {
        let (device, sealed) = (r.array::<8>()?, r.take(BOX)?);
        if device == short(me) {
            own = Some(sealed);
        }
    }
    Ok((own, r.rest()))
}

fn decode_gone(bytes: &[u8]) -> Result<PeerId, WireError> {
    let mut r = Reader::new(bytes);
    match r.u8()? {
        VERSION => peer(&mut r),
        other => Err(WireError::Version(other)),
    }
}

impl Group {
    /// Creates a participant that requests admission as another device of a member.
    ///
    /// # Errors
    ///
    /// [`GroupError::Name`], [`GroupError::Label`], [`GroupError::Expired`].
    pub fn join_device(
        text: DeviceInvitation,
        label: &str,
        seed: &[u8; 32],
        now: UnixTime,
    ) -> Result<Self, GroupError> {
        if !is_label(label) {
            return Err(GroupError::Label);
        }
        let DeviceInvitation {
            invitation,
            first,
            seed: person,
            by_first,
            name,
        } = text;
        let person = Person {
            first,
            key: SecretKey::from_seed(&person),
            by_first,
        };
        let label = label.to_owned();
        let own = Other { person, label };
        Self::begin_joining(invitation, &name, Some(own), seed, now)
    }

    /// Makes a joining device use another text of the same person.
    ///
    /// # Errors
    ///
    /// [`GroupError::Expired`], [`GroupError::UnknownDevice`].
    pub fn ask_by_device(
        &mut self,
        text: DeviceInvitation,
        now: UnixTime,
    ) -> Result<(), GroupError> {
        let own = self.devices.own.as_ref();
        if own.is_none_or(|own| own.person.first != text.first) {
            return Err(GroupError::UnknownDevice);
        }
        self.ask_by(text.invitation, now)
    }

    /// Creates a text for another device of this person, which expires at `expires` (ms since 1970),
    /// in whole minutes. The owner accepts it once, while this device is a member.
    ///
    /// # Errors
    ///
    /// [`GroupError::Expired`], [`GroupError::DeviceLife`], [`GroupError::TooManyDevices`], and the
    /// errors of [`Self::say`].
    pub fn invite_device(
        &mut self,
        expires: u64,
        now: UnixTime,
    ) -> Result<DeviceInvitation, GroupError> {
        self.check_speaks()?;
        let minutes = expires.div_ceil(MINUTE);
        if expires <= now.as_millis() {
            return Err(GroupError::Expired);
        }
        if expires > now.as_millis() + LONGEST_DEVICE_LIFE || minutes > u64::from(u32::MAX) {
            return Err(GroupError::DeviceLife);
        }
        let person = self.own_person();
        if self.devices_of(&person.first).len() >= MAX_DEVICES {
            return Err(GroupError::TooManyDevices);
        }
        let id = minutes << 32 | u64::from(self.random.next_u32());
        let to = self.office_key();
        let secret = secret_of(&self.author, &to, id).ok_or(GroupError::UnknownMember)?;
        let invitation = Invitation {
            group: self.id,
            to,
            read_key: self.read_key.clone(),
            id,
            secret,
            expires: expiry(id),
            topic: self.topic.clone(),
            outside: false,
        };
        Ok(DeviceInvitation {
            invitation,
            first: person.first,
            seed: person.key.seed(),
            by_first: person.by_first,
            name: self.name.clone(),
        })
    }

    fn own_person(&self) -> Person {
        match &self.devices.own {
            Some(own) => own.person.clone(),
            None => Person::of_first(&self.id, &self.author),
        }
    }

    /// A new key package of this member, with its extension.
    pub(crate) fn new_package(&self, now: UnixTime) -> Result<OwnKeyPackage, MlsFailure> {
        let own = self.devices.own.as_ref();
        let author = self.author.peer_id();
        let vouch = own.and_then(|own| own.person.vouch(&self.id, &author, &own.label));
        OwnKeyPackage::with(&self.provider, &self.who(), vouch.as_deref(), now)
    }

    /// The person of an author: the author key of its first device, for members and for those that
    /// were removed in this run.
    #[must_use]
    pub fn person_of(&self, author: &PeerId) -> PeerId {
        let known = self.devices.known.get(author);
        known.and_then(|known| known.first).unwrap_or(*author)
    }

    /// The person of this participant.
    #[must_use]
    pub fn own_person_id(&self) -> PeerId {
        let own = self.devices.own.as_ref();
        own.map_or_else(|| self.author.peer_id(), |own| own.person.first)
    }

    /// Whether this participant is a device of a person, and not its first one.
    #[must_use]
    pub fn is_device(&self) -> bool {
        self.devices.own.is_some()
    }

    /// The members that are devices of a person, the first one first.
    #[must_use]
    pub fn devices_of(&self, person: &PeerId) -> Vec<PeerId> {
        let members = self.members().into_iter();
        let mut devices: Vec<PeerId> = members
            .filter(|member| member.person == *person)
            .map(|member| member.author)
            .collect();
        devices.sort_by_key(|author| author != person);
        devices
    }

    /// The label of another device of this person, or of this one; none of the first device.
    #[must_use]
    pub fn label_of(&self, author: &PeerId) -> Option<String> {
        let known = self.devices.known.get(author)?;
        let vouch = Vouch::decode(&known.bytes).ok()?;
        let person = self.own_person();
        let is_own = known.first == Some(person.first);
        is_own.then(|| person.open_label(author, vouch.label))?
    }

    /// Follows the extensions of the leaves, after a change of members. Each is verified once.
    pub(crate) fn follow_devices(&mut self) {
        let Some(mls) = &self.mls else {
            return;
        };
        let known = &mut self.devices.known;
        if known.len() > 2 * MAX_MEMBERS {
            known.clear();
        }
        for (author, vouch) in mls.vouches() {
            match vouch {
                None => drop(known.remove(&author)),
                Some(bytes) if known.get(&author).is_some_and(|k| k.bytes == bytes) => {}
                Some(bytes) => {
                    let checked = Known::check(&self.id, &author, bytes);
                    known.insert(author, checked);
                }
            }
        }
    }

    /// Whether this newcomer's person had no device in the group before the change.
    pub(crate) fn is_new_person(&self, author: &PeerId, change: &Change) -> bool {
        let person = self.person_of(author);
        let own = self.author.peer_id();
        let is_old = |other: &PeerId| {
            let added = change.added.iter().any(|who| who.author == *other);
            !added || change.removed.contains(other)
        };
        let mut others = self.authors.keys().chain(std::iter::once(&own));
        !others.any(|other| self.person_of(other) == person && is_old(other))
    }

    /// Whether a member's new key package has the extension of its leaf: no member becomes a device
    /// of somebody by a refresh.
    pub(crate) fn keeps_person(&self, author: &PeerId, package: &[u8]) -> bool {
        let known = self.devices.known.get(author);
        known.map(|known| &known.bytes) == vouch_in(package).as_ref()
    }

    /// Checks a request by the text of a device. None: it is by an invitation of the owner;
    /// otherwise whether it was accepted before.
    pub(crate) fn check_device(
        &mut self,
        request: &Request,
        now: UnixTime,
    ) -> Result<Option<bool>, RequestRefusal> {
        let Some(bytes) = vouch_in(&request.key_package) else {
            return Ok(None);
        };
        let Some(owner) = &self.owner else {
            return Err(RequestRefusal::NotTheOwner);
        };
        if owner.invitations.contains_key(&request.invitation) {
            return Err(RequestRefusal::KeyPackage);
        }
        let vouch = Vouch::decode(&bytes).map_err(|_| RequestRefusal::KeyPackage)?;
        let id = request.invitation;
        let devices = self.devices_of(&vouch.first);
        let proves = |device: &PeerId| {
            let secret = secret_of(&owner.key, device, id);
            secret.is_some_and(|secret| request.proves(&secret))
        };
        let leaving = &owner.leaves;
        let mut present = devices.iter().filter(|device| !leaving.contains(device));
        if !present.any(proves) {
            return Err(RequestRefusal::UnknownInvitation);
        }
        if let Some(author) = self.devices.used.get(&id) {
            let waits = owner.joins.contains_key(&request.author);
            return match *author == request.author {
                true if waits => Ok(Some(true)),
                true => Err(RequestRefusal::Admitted),
                false => Err(RequestRefusal::UsedUp),
            };
        }
        let ms = now.as_millis();
        let made = ms.saturating_sub(2 * DAY)..=ms + DAY;
        if !made.contains(&request.time) {
            return Err(RequestRefusal::Time);
        }
        if expiry(id) <= ms {
            return Err(RequestRefusal::Expired);
        }
        // of a program that does not keep the bound, and whose clock is right
        if expiry(id) > ms + LONGEST_DEVICE_LIFE + DAY {
            return Err(RequestRefusal::Time);
        }
        if devices.len() + self.waiting_devices(&vouch.first).len() >= MAX_DEVICES {
            return Err(RequestRefusal::Devices);
        }
        let spent = self.devices.added.get(&vouch.first).copied();
        if allowed_at(spent.unwrap_or(0), ADDED_EACH, ADDED_AT_ONCE) > ms {
            return Err(RequestRefusal::Full);
        }
        match vouch.is_signed(&self.id, &request.author) {
            true => Ok(Some(false)),
            false => Err(RequestRefusal::Signature),
        }
    }

    /// Requests of a person's devices that wait for a commit.
    fn waiting_devices(&self, person: &PeerId) -> Vec<PeerId> {
        let joins = self.owner.iter().flat_map(|owner| &owner.joins);
        let is_theirs = |package: &[u8]| {
            let vouch = vouch_in(package);
            let vouch = vouch.as_ref().and_then(|vouch| Vouch::decode(vouch).ok());
            vouch.is_some_and(|vouch| vouch.first == *person)
        };
        let joins = joins.filter(|(_, package)| is_theirs(package));
        joins.map(|(author, _)| *author).collect()
    }

    /// Notes that a text was used, by a device that the next commit adds.
    pub(crate) fn use_device_text(&mut self, request: &Request, now: UnixTime) {
        let Some(vouch) = vouch_in(&request.key_package) else {
            return;
        };
        let Ok(first) = Vouch::decode(&vouch).map(|vouch| vouch.first) else {
            return;
        };
        let ms = now.as_millis();
        let devices = &mut self.devices;
        devices.used.retain(|id, _| expiry(*id) + 2 * DAY > ms);
        devices.used.insert(request.invitation, request.author);
        let most = ms + (ADDED_AT_ONCE + 1) * ADDED_EACH;
        devices
            .added
            .retain(|_, spent| *spent > ms && *spent < most);
        let spent = devices.added.entry(first).or_default();
        *spent = ms.max(*spent) + ADDED_EACH;
    }

    /// Removes a member with all its devices, with one commit at once.
    ///
    /// # Errors
    ///
    /// As [`Self::remove`].
    pub fn remove_person(&mut self, author: &PeerId, now: UnixTime) -> Result<(), GroupError> {
        let person = self.person_of(author);
        let devices = self.devices_of(&person);
        let waiting = self.waiting_devices(&person);
        let is_own = person == self.own_person_id();
        let owner = self.owner.as_mut().ok_or(GroupError::NotTheOwner)?;
        if is_own {
            return Err(GroupError::Owner);
        }
        if self.standing == Standing::Member {
            owner.joins.retain(|device, _| !waiting.contains(device));
            owner.leaves.extend(&devices);
        }
        match devices.first() {
            None if !waiting.is_empty() => Ok(()),
            first => self.remove(first.unwrap_or(author), now),
        }
    }

    /// Removes a device of this person: the owner's host removes it, without a question to its user.
    /// While that host is away, the device stays a member.
    ///
    /// # Errors
    ///
    /// [`GroupError::UnknownDevice`], [`GroupError::Owner`], and the errors of [`Self::say`].
    pub fn remove_device(&mut self, device: &PeerId, now: UnixTime) -> Result<(), GroupError> {
        self.check_speaks()?;
        if self.person_of(device) != self.own_person_id() {
            return Err(GroupError::UnknownDevice);
        }
        if self.owner.is_some() {
            return self.remove(device, now);
        }
        if self
            .members()
            .first()
            .is_some_and(|owner| owner.author == *device)
        {
            return Err(GroupError::Owner);
        }
        let mut w = Writer::new();
        w.u8(VERSION).put(device.public_key());
        let to = self.office_key();
        let body = request::seal_to(&to, &w.into_vec(), &mut self.random);
        let body = body.ok_or(GroupError::UnknownDevice)?;
        let kind = kind::DEVICE_GONE;
        self.append(Log::Own, NewEntry::Body { kind, body });
        Ok(())
    }

    /// Reads a member's request to remove one of its devices.
    pub(crate) fn read_device_gone(&mut self, entry: &Entry<'_>, now: UnixTime) -> Taken {
        let own = self.author.peer_id();
        let Some(owner) = &self.owner else {
            return Taken::Done;
        };
        let opened = request::open_with(&owner.key, entry.body);
        let Some(Ok(device)) = opened.as_deref().map(decode_gone) else {
            return Taken::Dropped(DropReason::Malformed);
        };
        let is_theirs = self.person_of(&device) == self.person_of(&entry.author);
        if !is_theirs || device == own || !self.authors.contains_key(&device) {
            return Taken::Dropped(DropReason::Malformed);
        }
        if let Some(owner) = &mut self.owner {
            owner.leaves.insert(device);
        }
        self.commit_within(crate::admit::BATCH, now);
        Taken::Done
    }

    /// Number of the last entry of an author that this person has read, on any of its devices.
    #[must_use]
    pub fn read_up_to(&self, author: &PeerId) -> u32 {
        let mark = self.devices.marks.get(&short(author));
        mark.map_or(0, |mark| mark.number)
    }

    /// Notes that a user has read entries of a member, or of a former one, up to `number`; other
    /// devices learn it. Returns whether that is new.
    pub fn mark_read(&mut self, author: &PeerId, number: u32, now: UnixTime) -> bool {
        if *author == self.author.peer_id() || number <= self.read_up_to(author) {
            return false;
        }
        let is_new = true;
        self.put_mark(short(author), Mark { number, is_new });
        let devices = &mut self.devices;
        let due = now.as_millis() + MARKS_WAIT;
        devices.marks_due = devices.marks_due.or(Some(due));
        true
    }

    fn put_mark(&mut self, author: [u8; 8], mark: Mark) {
        let marks = &mut self.devices.marks;
        marks.insert(author, mark);
        if marks.len() > MAX_MARKS {
            let present: BTreeSet<_> = self.authors.keys().map(short).collect();
            marks.retain(|author, _| present.contains(author));
        }
    }

    /// When the next read marks are sent.
    pub(crate) fn marks_due(&self) -> Option<u64> {
        let devices = &self.devices;
        let allowed = allowed_at(devices.marks_spent, MARKS_EACH, MARKS_AT_ONCE);
        devices.marks_due.map(|due| due.max(allowed))
    }

    /// Sends read marks to other devices, if that is due.
    pub(crate) fn share_marks(&mut self, now: UnixTime) {
        let ms = now.as_millis();
        let speaks = self.standing == Standing::Member && !self.is_behind;
        if !speaks || self.marks_due().is_none_or(|due| due > ms) {
            return;
        }
        self.devices.marks_due = None;
        let has_others = self.devices_of(&self.own_person_id()).len() > 1;
        let mut shared = Vec::new();
        let marks = self.devices.marks.iter_mut();
        for (author, mark) in marks.filter(|(_, mark)| mark.is_new) {
            if has_others && shared.len() == MARKS_OF_ENTRY {
                self.devices.marks_due = Some(ms + MARKS_WAIT);
                break;
            }
            mark.is_new = false;
            shared.push((*author, mark.number));
        }
        if !has_others {
            return;
        }
        let spent = self.devices.marks_spent;
        // a clock that was set back does not silence it
        let most = ms + MARKS_AT_ONCE * MARKS_EACH;
        self.devices.marks_spent = (spent.max(ms) + MARKS_EACH).min(most);
        if let Some(body) = self.seal_marks(&shared) {
            let kind = kind::READ;
            self.append(Log::Own, NewEntry::Body { kind, body });
        }
    }

    /// The body of an entry with read marks, for each other device of this person.
    fn seal_marks(&mut self, marks: &[([u8; 8], u32)]) -> Option<Vec<u8>> {
        let mut plain = Writer::new();
        for (author, number) in marks {
            plain.put(author).u32(*number);
        }
        let mut plain = plain.into_vec();
        plain.resize(plain.len().next_multiple_of(MARKS_STEP * MARK), 0);
        // not by the person key, which removed devices have
        let key = Zeroizing::new(self.random.array::<AEAD_KEY>());
        let own = self.author.peer_id();
        let mut others = self.devices_of(&self.own_person_id());
        others.retain(|device| *device != own);
        let mut w = Writer::new();
        w.u8(VERSION).u8(others.len() as u8);
        for device in others {
            let sealed = request::seal_to(&device, &key[..], &mut self.random)?;
            w.put(&short(&device)).put(&sealed);
        }
        w.put(&provider::seal(&key[..], &NO_NONCE, &[], &plain).ok()?);
        let body = w.into_vec();
        (body.len() <= MAX_BODY).then_some(body)
    }

    /// Reads marks of another device of this person.
    pub(crate) fn read_marks(&mut self, entry: &Entry<'_>) -> Taken {
        if self.person_of(&entry.author) != self.own_person_id() {
            return Taken::Done;
        }
        let Ok((own, sealed)) = decode_marks(entry.body, &self.author.peer_id()) else {
            return Taken::Dropped(DropReason::Malformed);
        };
        let Some(own) = own else {
            return Taken::Done;
        };
        let key = request::open_with(&self.author, own).map(Zeroizing::new);
        let plain = key.and_then(|key| provider::open(&key, &NO_NONCE, &[], sealed).ok());
        let Some(plain) = plain else {
            return Taken::Dropped(DropReason::NotOpened);
        };
        let mut any = false;
        for mark in plain.chunks_exact(MARK) {
            let mut r = Reader::new(mark);
            let (Ok(author), Ok(number)) = (r.array::<8>(), r.u32()) else {
                continue;
            };
            // zeros at the end are no mark
            let known = self
                .devices
                .marks
                .get(&author)
                .map_or(0, |mark| mark.number);
            if number > known {
                let is_new = false;
                self.put_mark(author, Mark { number, is_new });
                any = true;
            }
        }
        if any {
            self.tell(Event::ReadElsewhere);
        }
        Taken::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Output;
    use crate::group::Founding;
    use crate::mls::Who;
    use crate::provider::Provider;
    use crate::random::Random;
    use proptest::prelude::*;

    const NOW: u64 = 1_800_000_000_000;

    fn at(ms: u64) -> UnixTime {
        UnixTime::from_millis(NOW + ms)
    }

    fn key(n: u8) -> SecretKey {
        SecretKey::from_seed(&[n; 32])
    }

    /// An owner and what its log has, Ann, and her laptop.
    struct Three {
        owner: Group,
        log: Vec<NewEntry>,
        ann: Group,
        laptop: Group,
    }

    impl Three {
        fn new() -> Self {
            let founding = Founding {
                key: key(1),
                read_key: [2; 32].into(),
                topic: String::new(),
                name: "owner".to_owned(),
            };
            let mut owner = Group::create(founding, &[3; 32], at(0)).unwrap();
            let line = owner.invite(9, NOW + DAY, at(0)).unwrap();
            let ann = Group::join(line, "Ann", &[4; 32], at(0)).unwrap();
            let mut three = Self {
                owner,
                log: Vec::new(),
                laptop: Group::restore(&ann.state().unwrap(), &[5; 32]).unwrap(),
                ann,
            };
            three.admit(true);
            let text = three.ann.invite_device(NOW + HOUR, at(0)).unwrap();
            three.laptop = Group::join_device(text, "laptop", &[6; 32], at(0)).unwrap();
            three.admit(false);
            assert!(three.laptop.person_of(&three.laptop.author.peer_id()) == three.person());
            three
        }

        fn person(&self) -> PeerId {
            self.ann.author.peer_id()
        }

        fn admit(&mut self, is_first: bool) {
            let joiner = if is_first {
                &mut self.ann
            } else {
                &mut self.laptop
            };
            let request = std::iter::from_fn(|| joiner.poll_output()).find_map(|out| match out {
                Output::Request(bytes) => Some(bytes),
                _ => None,
            });
            self.owner.handle_request(&request.unwrap(), at(0)).unwrap();
            self.commit();
        }

        fn commit(&mut self) {
            self.owner.handle_timeout(at(10_000));
            while let Some(output) = self.owner.poll_output() {
                if let Output::Append(append) = output {
                    self.owner.handle_appended(append.log, append.number);
                    if append.log == Log::Owner {
                        self.log.push(append.entry);
                    }
                }
            }
            for member in [&mut self.ann, &mut self.laptop] {
                while let Some(next) = member.wants(&key(1).peer_id())
                    && let Some(entry) = self.log.get(next as usize - 1)
                {
                    let (kind, body) = match entry {
                        NewEntry::Body { kind, body } => (*kind, &body[..]),
                        NewEntry::Grants(_) => (128, &[][..]),
                    };
                    let entry = Entry {
                        author: key(1).peer_id(),
                        number: next,
                        time: NOW,
                        kind,
                        body,
                    };
                    member.handle_entry(&entry, at(10_000));
                }
            }
        }

        /// The owner adds a member called Ann with this extension, as a lying program can.
        fn force(&mut self, author: &SecretKey, vouch: &[u8]) {
            let who = Who {
                author: author.peer_id(),
                name: "Ann".to_owned(),
            };
            let provider = Provider::new(Random::new(&author.seed()));
            let package = OwnKeyPackage::with(&provider, &who, Some(vouch), at(0)).unwrap();
            let owner = self.owner.owner.as_mut().unwrap();
            owner.joins.insert(who.author, package.public);
            self.owner.commit_within(0, at(0));
            self.commit();
            let members = self.ann.members();
            assert!(members.iter().any(|member| member.author == who.author));
        }
    }

    fn vouch_of_laptop(three: &Three) -> Vec<u8> {
        let author = three.laptop.author.peer_id();
        let vouches = three.ann.mls.as_ref().unwrap().vouches();
        let mut own = vouches.into_iter().filter(|(who, _)| *who == author);
        own.next().unwrap().1.unwrap()
    }

    #[test]
    fn an_owner_that_forges_a_device_of_a_member_adds_a_stranger() {
        let mut three = Three::new();
        let (person, true_one) = (three.person(), vouch_of_laptop(&three));
        let thief = Person {
            first: person,
            key: key(70),
            by_first: key(70).sign(FIRST_CONTEXT, b""),
        };
        let own = Person::of_first(&three.owner.id, &key(71));
        let mut renamed = own.vouch(&three.owner.id, &key(74).peer_id(), "x").unwrap();
        renamed[1..33].copy_from_slice(person.public_key());
        let other_group = Person::of_first(&key(99).peer_id(), &three.ann.author);
        let lies = [
            (
                72,
                thief
                    .vouch(&three.owner.id, &key(72).peer_id(), "x")
                    .unwrap(),
            ),
            // the laptop's extension in another leaf
            (73, true_one.clone()),
            (74, renamed),
            // Ann's device in another group
            (
                75,
                other_group
                    .vouch(&key(99).peer_id(), &key(75).peer_id(), "x")
                    .unwrap(),
            ),
            (76, true_one[..200].to_vec()),
            (77, Vec::new()),
        ];
        for (n, vouch) in lies {
            three.force(&key(n), &vouch);
        }
        let laptop = three.laptop.author.peer_id();
        for member in [&three.owner, &three.ann, &three.laptop] {
            assert_eq!(member.devices_of(&person), [person, laptop]);
            for n in 72..=77 {
                assert_eq!(member.person_of(&key(n).peer_id()), key(n).peer_id(), "{n}");
            }
        }
        // a true extension is one, by whichever way it came
        let real = three.ann.own_person();
        let vouch = real
            .vouch(&three.owner.id, &key(78).peer_id(), "x")
            .unwrap();
        three.force(&key(78), &vouch);
        assert_eq!(three.laptop.devices_of(&person).len(), 3);
    }

    #[test]
    fn an_honest_owner_admits_no_device_by_an_invitation_for_members() {
        let mut three = Three::new();
        let line = three.owner.invite(9, NOW + DAY, at(0)).unwrap();
        let person = three.laptop.own_person();
        let own = Other {
            person,
            label: "thief".to_owned(),
        };
        let mut thief = Group::begin_joining(line, "Ann", Some(own), &[7; 32], at(0)).unwrap();
        let Some(Output::Request(request)) = thief.poll_output() else {
            panic!("no request");
        };
        let refused = three.owner.handle_request(&request, at(0));
        assert_eq!(refused, Err(RequestRefusal::KeyPackage));
    }

    #[test]
    fn a_member_does_not_become_a_device_of_somebody_by_a_refresh() {
        let mut three = Three::new();
        let vouch = vouch_of_laptop(&three);
        let package = |vouch: Option<&[u8]>, group: &Group| {
            OwnKeyPackage::with(&group.provider, &group.who(), vouch, at(0)).unwrap()
        };
        for (is_first, vouch, is_kept) in [
            (true, Some(&vouch[..]), false),
            (true, None, true),
            (false, None, false),
            (false, Some(&vouch[..]), true),
        ] {
            let group = if is_first { &three.ann } else { &three.laptop };
            let package = package(vouch, group).public;
            let content = crate::body::encode_refresh(true, &package);
            let mut random = Random::new(&[9; 32]);
            let author = group.author.peer_id();
            let entry = Entry {
                author,
                number: three.owner.wants(&author).unwrap(),
                time: NOW,
                kind: kind::REFRESH,
                body: &request::seal_to(&three.owner.id, &content, &mut random).unwrap(),
            };
            let taken = three.owner.handle_entry(&entry, at(0));
            assert_eq!(taken == Taken::Done, is_kept, "{is_first} {vouch:?}");
        }
    }

    #[test]
    fn read_marks_of_strangers_and_damaged_ones_change_nothing() {
        let mut three = Three::new();
        let (owner, me) = (three.owner.author.peer_id(), three.ann.author.peer_id());
        let good = three.ann.seal_marks(&[(short(&owner), 7)]).unwrap();
        fn entry(author: PeerId, body: &[u8]) -> Entry<'_> {
            Entry {
                author,
                number: 1,
                time: NOW,
                kind: kind::READ,
                body,
            }
        }
        // of another author, as a recording
        assert_eq!(three.laptop.read_marks(&entry(owner, &good)), Taken::Done);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            three.laptop.read_marks(&entry(me, &bad));
            three.laptop.read_marks(&entry(me, &good[..at]));
        }
        assert_eq!(three.laptop.read_up_to(&owner), 0);
        assert_eq!(three.laptop.read_marks(&entry(me, &good)), Taken::Done);
        assert_eq!(three.laptop.read_up_to(&owner), 7);
        // one author or eight, the length is the same
        let eight: Vec<_> = (20..28).map(|n| ([n; 8], 1)).collect();
        assert_eq!(three.ann.seal_marks(&eight).unwrap().len(), good.len());
        // and the most fit for eight devices
        let most = 2 + (MAX_DEVICES - 1) * (8 + BOX) + MARKS_OF_ENTRY * MARK + 16;
        assert!(most <= MAX_BODY, "{most}");
    }

    #[test]
    fn an_extension_has_these_bytes() {
        let (group, ann, laptop) = (key(1).peer_id(), key(2), key(3).peer_id());
        let person = Person::of_first(&group, &ann);
        let vouch = person.vouch(&group, &laptop, "laptop").unwrap();
        assert_eq!(vouch.len(), 1 + 32 + 32 + 64 + 49 + 64);
        assert_eq!(vouch[..33], [&[1][..], ann.peer_id().public_key()].concat());
        let hash = blake3::hash(&vouch).to_hex();
        assert_eq!(&hash[..16], "35879ce9a5604702");
        let read = Vouch::decode(&vouch).unwrap();
        assert!(read.is_signed(&group, &laptop));
        assert_eq!(
            person.open_label(&laptop, read.label).as_deref(),
            Some("laptop")
        );
        for at in 0..vouch.len() {
            let mut bad = vouch.clone();
            bad[at] ^= 1;
            let known = Known::check(&group, &laptop, bad);
            assert_eq!(known.first, None, "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            decode_any(&bytes);
            let text = bs58::encode(&bytes).with_check().into_string();
            let _ = format!("{DEVICE_PREFIX}{text}").parse::<DeviceInvitation>();
        }
    }
}
