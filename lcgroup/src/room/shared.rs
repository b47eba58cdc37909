//! The state that members of a group share: keys and values, by `lcgroup set` and its siblings.

use std::io;

use lcgroup_core::shared::{Change, SharedError};
use librecast::id::PeerId;
use librecast::time::UnixTime;
use librecast_program::cli::{Exit, ExitError};

use super::Room;
use crate::content::{Content, encode_changes};
use crate::shared::Value;

/// Bytes of own values that newcomers get. Chosen: as much as of earlier messages.
const GIVEN: usize = 512 * 1_024;
/// Bytes of values in one message.
const PART: usize = 60_000;

/// The changes in a message, if it has some.
pub(super) fn changes_in(content: &[u8]) -> Option<Vec<Change>> {
    match Content::decode(content) {
        Content::Changes(changes) => Some(changes),
        _ => None,
    }
}

impl Room {
    /// Sets a key, or removes it; returns the message's id.
    pub fn set(
        &mut self,
        key: &str,
        value: Option<Vec<u8>>,
        time: UnixTime,
    ) -> anyhow::Result<u64> {
        self.check_usable()?;
        if value.is_none() {
            self.value(key)?;
        }
        self.group.check_says()?;
        let me = self.group.author_key().peer_id();
        let change = self.shared.set(key, value, me, time).map_err(|e| {
            let exit = match e {
                SharedError::Key | SharedError::Value => Exit::Usage,
                _ => Exit::Failed,
            };
            ExitError::new(exit, e.to_string())
        })?;
        let id = self.group.say(&encode_changes(&[change]), time)?;
        self.state_changed = true;
        Ok(id)
    }

    /// The value of a key.
    pub fn value(&self, key: &str) -> anyhow::Result<Value> {
        let none = || {
            let name = &self.name;
            let text = format!("{name} has no key {key:?}: `lcgroup keys {name}` lists them");
            ExitError::new(Exit::Failed, text)
        };
        let value = self.shared.value(key).map(|value| self.with_name(value));
        Ok(value.ok_or_else(none)?)
    }

    /// All keys, without their values.
    pub fn keys(&self) -> Vec<Value> {
        let shown = self.shown_names();
        let name_of = |author: &PeerId| match shown.get(author) {
            Some(name) => name.clone(),
            None => self.name_of(author),
        };
        let named = |value: Value| Value {
            name: name_of(&value.author),
            ..value
        };
        self.shared.keys().map(named).collect()
    }

    /// Changes behind number `after`, and the number to go on from.
    pub fn changes_after(&self, after: Option<u64>) -> (u64, Vec<Value>) {
        let (last, changes) = self.shared.changes(after);
        let named = changes.into_iter().map(|value| self.with_name(value));
        (last, named.collect())
    }

    fn with_name(&self, value: Value) -> Value {
        Value {
            name: self.name_of(&value.author),
            ..value
        }
    }

    /// Applies a member's changes.
    pub(super) fn take_changes(&mut self, author: PeerId, changes: Vec<Change>, time: UnixTime) {
        for change in changes {
            self.shared.apply(author, change, time);
        }
    }

    /// Sends changes that a crash may have kept from the members.
    pub(super) fn send_again(&mut self, time: UnixTime) {
        let unsent = self.shared.unsent();
        self.send_changes(&unsent, time);
    }

    /// Gives newcomers the values that this member set: they read nothing from before.
    pub(super) fn give_values(&mut self, time: UnixTime) {
        if !std::mem::take(&mut self.past.values_wanted) {
            return;
        }
        let me = self.group.author_key().peer_id();
        let own = self.shared.map().iter().filter(|(_, e)| e.author == me);
        let change = |(key, entry): (&str, &lcgroup_core::shared::Entry)| Change {
            key: key.to_owned(),
            clock: entry.clock,
            value: entry.value.clone(),
        };
        let mut own: Vec<Change> = own.map(change).collect();
        own.sort_by_key(|change| std::cmp::Reverse(change.clock));
        let mut left = GIVEN;
        own.retain(|change| {
            let fits = change.size() <= left;
            left -= if fits { change.size() } else { left };
            fits
        });
        self.send_changes(&own, time);
    }

    fn send_changes(&mut self, mut changes: &[Change], time: UnixTime) {
        while !changes.is_empty() {
            let mut size = 0;
            let part = changes.iter().take_while(|change| {
                size += change.size();
                size <= PART
            });
            let (part, rest) = changes.split_at(part.count().max(1));
            if let Err(e) = self.group.say(&encode_changes(part), time) {
                tracing::warn!("{}: values of this member: {e}", self.name);
                return;
            }
            (changes, self.state_changed) = (rest, true);
        }
    }

    /// Sends a message of the outbox, if it has changes: they are for all members, also new ones.
    pub(super) fn resend_changes(&mut self, id: u64, time: UnixTime) -> bool {
        let mut outbox = self.group.outbox();
        let is_change = |content: &[u8]| changes_in(content).is_some();
        let found = outbox.any(|(other, content)| other == id && is_change(content));
        drop(outbox);
        found && self.group.resend(id, time).is_ok()
    }

    /// Rewrites the file of values, if most of it is old.
    pub(super) fn compact_shared(&mut self) -> io::Result<()> {
        let keep = self.kept.ttl().as_secs();
        let before = UnixTime::now().as_secs().saturating_sub(keep);
        self.shared.compact(before)
    }
}
