//! Quiet removal: a removed member is told only if the remover wants it.
//!
//! An entry in the log of the one in office, before the commit, names a member that is told. The
//! program of another one shows the group as it was, in which nobody writes. A changed program can
//! detect the removal: the commit is in the log.

use librecast::id::PeerId;
use librecast::time::UnixTime;
use librecast::wire::{Reader, WireError, Writer};

use crate::body::kind;
use crate::error::GroupError;
use crate::event::{Event, Log, NewEntry};
use crate::fields::{count, field, flag, long, peer};
use crate::group::{Group, Member, Standing};
use crate::{MAX_MEMBERS, MAX_NAME};

/// The group as an untold former member saw it last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub members: Vec<Member>,
    /// None: it waited for new keys.
    pub epoch: Option<u64>,
}

/// The removal of this participant.
#[derive(Debug, Default)]
pub(crate) struct Removal {
    /// It is told, once it is removed.
    pub is_told: bool,
    /// It was removed, and not told.
    pub seen: Option<Seen>,
}

impl Removal {
    /// Bytes of [`Self::put`], at most.
    pub fn bytes(&self) -> usize {
        let members = self.seen.as_ref().map_or(0, |seen| seen.members.len());
        16 + members * (2 * 32 + 4 + MAX_NAME)
    }

    /// The last part of a state, which most states lack.
    pub fn put(&self, w: &mut Writer) {
        if !self.is_told && self.seen.is_none() {
            return;
        }
        w.u8(self.is_told.into()).u8(self.seen.is_some().into());
        let Some(seen) = &self.seen else { return };
        w.u8(seen.epoch.is_some().into());
        w.u64(seen.epoch.unwrap_or_default());
        w.u32(seen.members.len() as u32);
        for member in &seen.members {
            w.put(member.author.public_key());
            w.put(member.person.public_key());
            long(w, member.name.as_bytes());
        }
    }

    pub fn read(r: &mut Reader<'_>) -> Result<Self, WireError> {
        if r.is_empty() {
            return Ok(Self::default());
        }
        let is_told = flag(r)?;
        if !flag(r)? {
            let seen = None;
            return Ok(Self { is_told, seen });
        }
        let (known, epoch) = (flag(r)?, r.u64()?);
        let epoch = known.then_some(epoch);
        let mut members = Vec::new();
        for _ in 0..count(r, MAX_MEMBERS)? {
            let (author, person, name) = (peer(r)?, peer(r)?, field(r)?);
            let name = std::str::from_utf8(name).ok();
            let name = name.filter(|name| name.len() <= MAX_NAME);
            members.push(Member {
                author,
                person,
                name: name.ok_or(WireError::Bad("name"))?.to_owned(),
            });
        }
        let seen = Some(Seen { members, epoch });
        Ok(Self { is_told, seen })
    }
}

impl Group {
    /// Whether this participant was removed and not told: its program shows the group as it was.
    #[must_use]
    pub fn is_untold(&self) -> bool {
        self.removal.seen.is_some()
    }

    /// Tells a member, or one of its devices, of its removal, which follows.
    ///
    /// # Errors
    /// [`GroupError::NotTheOwner`], [`GroupError::UnknownMember`].
    pub fn tell_of_removal(&mut self, author: &PeerId) -> Result<(), GroupError> {
        self.own()?;
        if !self.authors.contains_key(author) {
            return Err(GroupError::UnknownMember);
        }
        let (kind, body) = (kind::TOLD, author.public_key().to_vec());
        self.append(Log::Owner, NewEntry::Body { kind, body });
        Ok(())
    }

    /// As [`remove_person`](Self::remove_person), and tells all its devices.
    ///
    /// # Errors
    /// Those of [`remove_person`](Self::remove_person).
    pub fn remove_person_told(&mut self, author: &PeerId, now: UnixTime) -> Result<(), GroupError> {
        let devices = self.devices_of(&self.person_of(author));
        for device in devices {
            self.tell_of_removal(&device)?;
        }
        self.remove_person(author, now)
    }

    /// Reads that a member is told.
    pub(crate) fn read_told(&mut self, body: &[u8]) {
        self.removal.is_told |= body == self.author.peer_id().public_key();
    }

    /// Ends the membership after a commit without this participant.
    pub(crate) fn be_removed(&mut self) {
        if self.removal.is_told {
            self.end_as_member(Event::Removed);
            return;
        }
        let (members, epoch) = (self.members(), self.epoch());
        self.removal.seen = Some(Seen { members, epoch });
        self.stop_reading();
        // waiting messages are sent to nobody
        self.pending.clear();
        self.voice.queue.clear();
        self.voice.unconfirmed.clear();
        self.is_behind = false;
    }

    pub(crate) fn end_as_member(&mut self, why: Event) {
        self.stop_reading();
        self.tell(why);
    }

    fn stop_reading(&mut self) {
        self.standing = Standing::Removed;
        self.mls = None;
        self.refresh.package = None;
        self.authors.clear();
    }

    /// Drops messages of an untold former member.
    pub(crate) fn hush(&mut self) {
        if self.is_untold() {
            self.voice.queue.clear();
        }
    }

    /// Ends the pretence for a former member that leaves; returns whether it was one.
    pub(crate) fn leave_untold(&mut self) -> bool {
        self.removal.is_told = true;
        let was_untold = self.removal.seen.take().is_some();
        if was_untold {
            self.tell(Event::Removed);
        }
        was_untold
    }
}
