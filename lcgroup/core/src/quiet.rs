//! Quiet removal: a removed member is told only if the remover wants it.
//!
//! An entry in the log of the one in office, before the commit, names a member that is told. The
//! program of another one shows the group as it was, in which nobody writes. A changed program can
//! detect the removal: the commit is in the log.

use librecast::id::PeerId;
use librecast::time::UnixTime;

use crate::body::kind;
use crate::error::GroupError;
use crate::event::{Event, Log, NewEntry};
use crate::group::{Group, Member, Standing};
use crate::removal::{Known, Seen};

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
        let (kind, body) = (kind::REMOVAL_NOTICE, author.public_key().to_vec());
        self.append(Log::Owner, NewEntry::Body { kind, body });
        Ok(())
    }

    /// As [`remove_person`](Self::remove_person), and tells all its devices.
    ///
    /// # Errors
    /// Those of [`remove_person`](Self::remove_person).
    pub fn remove_person_openly(
        &mut self,
        author: &PeerId,
        now: UnixTime,
    ) -> Result<(), GroupError> {
        let devices = self.devices_of(&self.person_of(author));
        for device in devices {
            self.tell_of_removal(&device)?;
        }
        self.remove_person(author, now)
    }

    /// Reads that a member is told.
    pub(crate) fn read_notice(&mut self, body: &[u8]) {
        self.removal.is_notified |= body == self.author.peer_id().public_key();
    }

    /// Ends the membership after a commit without this participant.
    pub(crate) fn be_removed(&mut self) {
        if self.removal.is_notified {
            self.end_as_member(Event::Removed);
            return;
        }
        let known = |member: Member| Known {
            author: member.author,
            name: member.name,
            person: member.person,
        };
        let members = self.members().into_iter().map(known).collect();
        let epoch = self.epoch();
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
        self.removal.is_notified = true;
        let was_untold = self.removal.seen.take().is_some();
        if was_untold {
            self.tell(Event::Removed);
        }
        was_untold
    }
}
