//! The removal of this participant, as its state has it.

use librecast::id::PeerId;
use librecast::wire::{Reader, WireError, Writer};

use crate::fields::{count, field, flag, long, peer};
use crate::{MAX_MEMBERS, MAX_NAME};

/// A member of the group at that time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub author: PeerId,
    pub name: String,
    pub person: PeerId,
}

/// The group as an untold former member saw it last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub members: Vec<Known>,
    /// None: it waited for new keys.
    pub epoch: Option<u64>,
}

/// The removal of this participant.
#[derive(Debug, Default)]
pub(crate) struct Removal {
    /// It is told, once it is removed.
    pub is_notified: bool,
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
        if !self.is_notified && self.seen.is_none() {
            return;
        }
        w.u8(self.is_notified.into()).u8(self.seen.is_some().into());
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
        let is_notified = flag(r)?;
        if !flag(r)? {
            let seen = None;
            return Ok(Self { is_notified, seen });
        }
        let (known, epoch) = (flag(r)?, r.u64()?);
        let epoch = known.then_some(epoch);
        let mut members = Vec::new();
        for _ in 0..count(r, MAX_MEMBERS)? {
            let (author, person, name) = (peer(r)?, peer(r)?, field(r)?);
            let name = std::str::from_utf8(name).ok();
            let name = name.filter(|name| name.len() <= MAX_NAME);
            members.push(Known {
                author,
                person,
                name: name.ok_or(WireError::Bad("name"))?.to_owned(),
            });
        }
        let seen = Some(Seen { members, epoch });
        Ok(Self { is_notified, seen })
    }
}
