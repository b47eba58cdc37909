//! Members of a group as persons: those with several devices are one.

use std::collections::{BTreeMap, BTreeSet};

use lcgroup_core::{DeviceInvitation, Group, LONGEST_DEVICE_LIFE, MAX_LABEL};
use librecast::id::PeerId;
use librecast::time::UnixTime;
use librecast_program::cli::{Exit, ExitError};
use zeroize::Zeroizing;

use super::Room;
use crate::names::{is_called, is_marked, normal};
use crate::request::{DeviceStatus, MemberStatus};

impl Room {
    /// Creates `folder`, and requests to be a device of a member.
    pub fn join_device(
        folder: &std::path::Path,
        name: &str,
        text: DeviceInvitation,
        label: &str,
        time: UnixTime,
        now: std::time::Instant,
    ) -> anyhow::Result<Self> {
        let seed = librecast_log_host::seed()?;
        let group = Group::join_device(text, label, &seed, time)?;
        Self::make(folder, name, group, now)
    }

    /// Uses another text for this device; returns whether this host is not a member yet.
    pub fn ask_by_device(
        &mut self,
        text: DeviceInvitation,
        time: UnixTime,
    ) -> anyhow::Result<bool> {
        if self.group.standing() != lcgroup_core::Standing::Joining {
            return Ok(false);
        }
        self.group.ask_by_device(text, time)?;
        self.state_changed = true;
        Ok(true)
    }

    /// The person of an author: the key of its first device.
    pub fn person_of(&self, author: &PeerId) -> PeerId {
        match self.group.person_of(author) {
            own if own == *author => self.conversation.person_of(author).unwrap_or(own),
            person => person,
        }
    }

    /// The person of an author that is not its first device.
    pub fn person_if_other(&self, author: &PeerId) -> Option<PeerId> {
        Some(self.person_of(author)).filter(|person| person != author)
    }

    /// Whether an author is a device of this host's person.
    pub fn is_own(&self, author: &PeerId) -> bool {
        self.person_of(author) == self.group.own_person_id()
    }

    /// Names of persons, members and former ones: that of the first device counts.
    pub fn person_names(&self) -> BTreeMap<PeerId, String> {
        let mut all = BTreeMap::new();
        for (author, name) in &self.names {
            let person = self.person_of(author);
            if person == *author || !all.contains_key(&person) {
                all.insert(person, name.clone());
            }
        }
        let mut seen = BTreeSet::new();
        for member in self.group.members() {
            if seen.insert(member.person) || member.author == member.person {
                all.insert(member.person, member.name);
            }
        }
        all
    }

    /// Authors that are devices of this host's person.
    pub fn own_devices(&self) -> BTreeSet<PeerId> {
        let me = self.group.author_key().peer_id();
        let known = self.all_names().into_keys().filter(|who| self.is_own(who));
        known.chain([me]).collect()
    }

    /// The members, each with its devices.
    pub fn members(&self) -> Vec<MemberStatus> {
        let me = self.group.author_key().peer_id();
        let (names, person_names) = (self.names(), self.person_names());
        let last = self.last_numbers();
        let mut order = Vec::new();
        let mut persons: BTreeMap<PeerId, Vec<DeviceStatus>> = BTreeMap::new();
        for (leaf, member) in self.group.members().into_iter().enumerate() {
            let author = member.author;
            let devices = persons.entry(member.person).or_default();
            if devices.is_empty() {
                order.push(member.person);
            }
            let device = DeviceStatus {
                number: 0,
                label: self.group.label_of(&author),
                // the creator of the group has the first leaf forever
                owner: leaf == 0,
                me: author == me,
                last: last.get(&author).map_or(0, |(_, last)| *last),
                spoke: self.conversation.spoke(&author),
                author,
            };
            match author == member.person {
                true => devices.insert(0, device),
                false => devices.push(device),
            }
        }
        let status = |person: PeerId| {
            let mut devices = persons.remove(&person)?;
            for (number, device) in (1..).zip(&mut devices) {
                device.number = number;
            }
            let name = person_names.get(&person).cloned().unwrap_or_default();
            Some(MemberStatus {
                author: devices.first()?.author,
                person,
                owner: devices.iter().any(|device| device.owner),
                me: devices.iter().any(|device| device.me),
                last: devices.iter().map(|device| device.last).max()?,
                spoke: devices.iter().filter_map(|device| device.spoke).max(),
                shown: names.shown(&person, &name),
                name,
                devices,
            })
        };
        order.into_iter().filter_map(status).collect()
    }

    /// The member that `who` names: by name, or by the key of it or of one of its devices.
    pub(super) fn member_called(&self, who: &str) -> anyhow::Result<MemberStatus> {
        let is_meant = |member: &MemberStatus| {
            let is_device = |device: &DeviceStatus| who == device.author.to_string();
            is_called(who, (&member.person, &member.name, &member.shown))
                || member.devices.iter().any(is_device)
        };
        let mut meant = self.members().into_iter().filter(is_meant);
        let usage = |text: String| ExitError::new(Exit::Usage, text);
        match (meant.next(), meant.next()) {
            (Some(one), None) => Ok(one),
            (None, _) => Err(usage(format!("no member is called {who:?}")).into()),
            _ => {
                let text = format!(
                    "several members call themselves {who:?}: `lcgroup members` shows their marks"
                );
                Err(usage(text).into())
            }
        }
    }

    /// Removes a member with all its devices, or one device of it; tells it if `is_notified`.
    pub fn remove(
        &mut self,
        who: &str,
        device: Option<&str>,
        is_notified: bool,
        time: UnixTime,
    ) -> anyhow::Result<PeerId> {
        self.check_usable()?;
        let member = self.member_called(who)?;
        let author = match device {
            None if is_notified => {
                self.group.remove_person_openly(&member.author, time)?;
                member.person
            }
            None => {
                self.group.remove_person(&member.author, time)?;
                member.person
            }
            Some(device) => {
                let author = device_called(&member, device)?;
                if is_notified {
                    self.group.tell_of_removal(&author)?;
                }
                self.group.remove(&author, time)?;
                author
            }
        };
        self.state_changed = true;
        Ok(author)
    }

    /// This host's person, with its devices.
    pub fn own_member(&self) -> anyhow::Result<MemberStatus> {
        let none = || ExitError::new(Exit::Failed, "this host is not a member, or not any more");
        let own = self.members().into_iter().find(|member| member.me);
        Ok(own.ok_or_else(none)?)
    }

    /// Creates the text for another device of this person.
    pub fn add_device(
        &mut self,
        expires_s: u64,
        outside: bool,
        time: UnixTime,
    ) -> anyhow::Result<Zeroizing<String>> {
        self.check_usable()?;
        let life = expires_s.saturating_mul(1_000);
        if life > LONGEST_DEVICE_LIFE {
            let text = "a text for a device is good for a day at most";
            return Err(ExitError::new(Exit::Usage, text).into());
        }
        let mut text = self.group.invite_device(time.as_millis() + life, time)?;
        if outside {
            self.group.lead_in(&mut text, time)?;
            self.state_changed = true;
        }
        Ok(text.encode())
    }

    /// Asks the owner to remove a device of this person.
    pub fn remove_device(&mut self, device: &str, time: UnixTime) -> anyhow::Result<PeerId> {
        self.check_usable()?;
        let author = device_called(&self.own_member()?, device)?;
        self.group.remove_device(&author, time)?;
        self.state_changed = true;
        Ok(author)
    }

    /// Notes that the user has read the messages up to place `n`; other devices learn it.
    pub fn read_up_to(&mut self, n: u64, time: UnixTime) {
        for (author, entry) in self.conversation.unread().up_to(n) {
            self.state_changed |= self.group.mark_read(&author, entry, time);
        }
        self.forget_read();
    }

    /// Counts no message any more that was read, here or on another device.
    pub fn forget_read(&mut self) {
        let group = &self.group;
        let is_unread = |author: &PeerId, entry| entry > group.read_up_to(author);
        self.conversation.unread().retain(is_unread);
    }

    /// Whether a member that was added or removed has other devices in the group; its shown name.
    pub fn with_other_devices(&self, author: &PeerId) -> Option<String> {
        let person = self.person_of(author);
        let devices = self.group.devices_of(&person);
        let mut others = devices.iter().filter(|device| *device != author);
        others.next().map(|other| self.name_of(other))
    }

    /// Whether this host gives what was said before to a new device of its person: of its devices
    /// the first one does.
    pub fn gives_history_to(&self, author: &PeerId) -> bool {
        let devices = self.group.devices_of(&self.group.own_person_id());
        let mut others = devices.iter().filter(|device| *device != author);
        let me = self.group.author_key().peer_id();
        self.is_own(author) && others.next() == Some(&me)
    }
}

/// The device of a member that `text` names: by number, label, mark or key.
fn device_called(member: &MemberStatus, text: &str) -> anyhow::Result<PeerId> {
    let is_meant = |device: &&DeviceStatus| {
        device.number.to_string() == text
            || device.label.as_deref() == Some(text)
            || is_marked(&device.author, text)
    };
    let mut meant = member.devices.iter().filter(is_meant);
    match (meant.next(), meant.next()) {
        (Some(one), None) => Ok(one.author),
        (found, _) => {
            let problem = match found {
                Some(_) => "several devices are called",
                None => "no device is called",
            };
            let text = format!("{problem} {text:?}: give its number or the beginning of its key");
            Err(ExitError::new(Exit::Usage, text).into())
        }
    }
}

/// A device's label for the name that a user chose.
pub fn label(name: &str) -> Result<String, ExitError> {
    let label = normal(name);
    let good = (1..=MAX_LABEL).contains(&label.len()) && librecast::plain::is_plain(&label);
    // a label that looks like a number would be taken for one
    if !good || label.bytes().all(|b| b.is_ascii_digit()) {
        let text =
            format!("{name:?}: a device's name has 1 to {MAX_LABEL} bytes, and is no number");
        return Err(ExitError::new(Exit::Usage, text));
    }
    Ok(label)
}
