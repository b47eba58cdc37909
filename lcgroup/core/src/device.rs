//! Several devices of one person: texts for them, requests, removal, read marks. `vouch.rs` has the
//! formats.

use std::collections::BTreeSet;

use crypto_box::aead::rand_core::RngCore as _;
use librecast::id::{PeerId, SecretKey};
use librecast::time::UnixTime;
use librecast::wire::{Reader, Writer};
use zeroize::Zeroizing;

use crate::body::kind;
use crate::drops::{DropReason, RequestRefusal};
use crate::error::GroupError;
use crate::event::{Entry, Event, Log, NewEntry, Taken};
use crate::group::{Group, Standing};
use crate::invitation::Invitation;
use crate::mls::{Change, MlsFailure, OwnKeyPackage, vouch_in};
use crate::network::{decode_text, encode_text};
use crate::provider::{self, AEAD_KEY, NO_NONCE};
use crate::request::Request;
use crate::vouch::{
    ADDED_AT_ONCE, ADDED_EACH, DeviceInvitation, Known, LONGEST_DEVICE_LIFE, MARK, MARKS_AT_ONCE,
    MARKS_EACH, MARKS_OF_ENTRY, MARKS_STEP, MARKS_WAIT, MAX_DEVICES, MAX_MARKS, MINUTE, Mark,
    Other, Person, VERSION, Vouch, allowed_at, decode_gone, decode_marks, expiry, is_label,
    secret_of, short,
};
use crate::{DAY, MAX_BODY, MAX_MEMBERS, request};

impl Group {
    /// Creates a participant that requests admission as another device of a member.
    ///
    /// # Errors
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

    /// Creates a text for another device of this person. It expires at `expires` (ms since 1970), in
    /// whole minutes. The owner accepts it once, while this device is a member.
    ///
    /// # Errors
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

    /// Has a text for a device lead into the network of the group: the one in office is told of it.
    ///
    /// # Errors
    /// [`GroupError::UnknownMember`] if the key of the one in office takes no box.
    pub fn lead_in(
        &mut self,
        text: &mut DeviceInvitation,
        now: UnixTime,
    ) -> Result<(), GroupError> {
        text.invitation.outside = true;
        let Invitation { id, to, .. } = text.invitation;
        if self.owner.is_some() {
            self.network.take_text(id, self.author.peer_id(), now);
            return Ok(());
        }
        let body = request::seal_to(&to, &encode_text(id), &mut self.random);
        let body = body.ok_or(GroupError::UnknownMember)?;
        let kind = kind::DEVICE_TEXT;
        self.append(Log::Own, NewEntry::Body { kind, body });
        Ok(())
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
    pub fn person_of(&self, author: &PeerId) -> PeerId {
        let known = self.devices.known.get(author);
        known.and_then(|known| known.first).unwrap_or(*author)
    }

    /// The person of this participant.
    pub fn own_person_id(&self) -> PeerId {
        let own = self.devices.own.as_ref();
        own.map_or_else(|| self.author.peer_id(), |own| own.person.first)
    }

    /// Whether this participant is a device of a person, and not its first one.
    pub fn is_device(&self) -> bool {
        self.devices.own.is_some()
    }

    /// The members that are devices of a person, the first one first.
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
    pub fn label_of(&self, author: &PeerId) -> Option<String> {
        let known = self.devices.known.get(author)?;
        let vouch = Vouch::decode(&known.bytes).ok()?;
        let person = self.own_person();
        let is_own = known.first == Some(person.first);
        is_own.then(|| person.open_label(author, vouch.label))?
    }

    /// Follows the extensions of the leaves, after a change of members. Each is verified once.
    pub(crate) fn follow_devices(&mut self) {
        let Some(mls) = &self.mls else { return };
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
    pub fn remove_person(&mut self, author: &PeerId, now: UnixTime) -> Result<(), GroupError> {
        let person = self.person_of(author);
        let devices = self.devices_of(&person);
        let waiting = self.waiting_devices(&person);
        let is_own = person == self.own_person_id();
        let first = self.author_of_office(None);
        let owner = self.owner.as_mut().ok_or(GroupError::NotTheOwner)?;
        // a deputy in office removes no device of the owner with it
        if is_own || devices.iter().any(|device| Some(*device) == first) {
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

    /// Removes a device of this person: the owner's host does it, without a question to its user.
    /// While that host is away, the device stays a member.
    ///
    /// # Errors
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
        self.ask_to_remove(device)?;
        if self.authors.contains_key(device) {
            self.devices.asked.insert(*device);
            self.devices.asked_of = Some(self.office_key());
        }
        Ok(())
    }

    fn ask_to_remove(&mut self, device: &PeerId) -> Result<(), GroupError> {
        let mut w = Writer::new();
        w.u8(VERSION).put(device.public_key());
        let to = self.office_key();
        let body = request::seal_to(&to, &w.into_vec(), &mut self.random);
        let body = body.ok_or(GroupError::UnknownDevice)?;
        let kind = kind::DEVICE_GONE;
        self.append(Log::Own, NewEntry::Body { kind, body });
        Ok(())
    }

    /// Asks again to remove devices: the one now in office cannot read what the one before was asked.
    pub(crate) fn ask_again(&mut self, now: UnixTime) {
        let of = Some(self.office_key());
        let is_there = self.standing == Standing::Member && self.offices.plan.is_empty();
        if self.devices.asked.is_empty() || self.devices.asked_of == of || !is_there {
            return;
        }
        let mut asked = std::mem::take(&mut self.devices.asked);
        asked.retain(|device| self.authors.contains_key(device));
        for device in &asked {
            if let Some(owner) = &mut self.owner {
                owner.leaves.insert(*device);
                self.commit_within(crate::admit::BATCH, now);
            } else {
                // a key that takes no box takes none later
                let _ = self.ask_to_remove(device);
            }
        }
        (self.devices.asked, self.devices.asked_of) = (asked, of);
    }

    /// Reads a member's request to remove one of its devices.
    pub(crate) fn read_device_gone(&mut self, entry: &Entry<'_>, now: UnixTime) -> Taken {
        // the owner has the first leaf for ever
        let fixed = [Some(self.author.peer_id()), self.author_of_office(None)];
        let Some(owner) = &self.owner else {
            return Taken::Done;
        };
        let opened = request::open_with(&owner.key, entry.body);
        let Some(Ok(device)) = opened.as_deref().map(decode_gone) else {
            return Taken::Dropped(DropReason::Malformed);
        };
        let is_theirs = self.person_of(&device) == self.person_of(&entry.author);
        if !is_theirs || fixed.contains(&Some(device)) || !self.authors.contains_key(&device) {
            return Taken::Dropped(DropReason::Malformed);
        }
        if let Some(owner) = &mut self.owner {
            owner.leaves.insert(device);
        }
        self.commit_within(crate::admit::BATCH, now);
        Taken::Done
    }

    /// Reads that a member made a text for another device.
    pub(crate) fn read_device_text(&mut self, entry: &Entry<'_>, now: UnixTime) -> Taken {
        let Some(owner) = &self.owner else {
            return Taken::Done;
        };
        let opened = request::open_with(&owner.key, entry.body);
        match opened.as_deref().map(|body| decode_text(body, now)) {
            Some(Ok(id)) => {
                self.network.take_text(id, entry.author, now);
                Taken::Done
            }
            _ => Taken::Dropped(DropReason::Malformed),
        }
    }

    /// Number of the last entry of an author that this person has read, on any of its devices.
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
        debug_assert!(marks.len() <= MAX_MARKS, "marks of present members fit");
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
        debug_assert!(body.len() <= MAX_BODY, "marks of {MAX_DEVICES} devices fit");
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
        let Some(own) = own else { return Taken::Done };
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
            // zeros at the end are not a mark
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
    use crate::HOUR;
    use crate::event::Output;
    use crate::group::Founding;
    use crate::mls::Who;
    use crate::provider::Provider;
    use crate::random::Random;
    use crate::vouch::{BOX, DEVICE_PREFIX, FIRST_CONTEXT, decode_any};
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
