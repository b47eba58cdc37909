//! What was said before: newcomers get a part of it, and nobody has the rest any more.

use std::io;
use std::time::{Duration, Instant};

use lcgroup_core::{Heads, MAX_HISTORY, kind};
use librecast::id::PeerId;
use librecast::time::UnixTime;

use super::{LogName, Room};
use crate::conversation::Message;
use crate::history;

/// Time in ms after an entry in which the owner makes the commit that counts it, if it is there.
const COMMITTED_WITHIN: u64 = 86_400_000;
/// Divisor of the keeping time, for less than 30 days: an entry is given up at most that part early.
const PART_OF_KEEP: u64 = 30;
/// Time without one of the entries that have probably expired, before they are given up. Chosen:
/// the log asks seven times in it.
const EXPIRED_WAIT: Duration = Duration::from_secs(60);
/// Addition for each author: the log asks for one in a second or two.
const EXPIRED_WAIT_OF_AUTHOR: Duration = Duration::from_secs(3);
/// Longest such wait, as for gaps in the log.
const LONGEST_EXPIRED_WAIT: Duration = Duration::from_secs(3_600);

/// Bytes of what was said before for a new device of this person. Chosen: all members store them.
const DEVICE_HISTORY: usize = 128 * 1_024;

/// Entries that commits from long ago count, and that this host lacks.
#[derive(Debug)]
pub(super) struct Expired {
    /// The last number of each author.
    heads: Heads,
    /// Since when none of them has come.
    pub(super) since: Instant,
    /// The sum of the last numbers here.
    have: u64,
    pub(super) wait: Duration,
}

/// Who gets what was said before, and what this host waits for.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// Members that the owner added, and who get what was said before.
    pub(super) newcomers: Vec<PeerId>,
    /// New devices of this person, which get what was said before from this host.
    pub(super) new_devices: Vec<PeerId>,
    /// Newcomers want the values of this member's keys.
    pub(super) values_wanted: bool,
    /// Entries that have probably expired at all members.
    pub(super) expired: Option<Expired>,
}

impl Room {
    /// Gives up entries that a commit from before the group's keeping time counts, if nobody sends
    /// them: a member that was away for longer could apply no commit. Returns whether it gave up any.
    pub(super) fn skip_expired(&mut self, time: UnixTime, now: Instant) -> bool {
        let (before, soon) = expired_before(time, self.kept.ttl());
        let waits = self.group.commit_waits().filter(|made| *made < soon);
        // dates of a clock that differs prove nothing
        if waits.is_none() || !self.log.log().has_received() || self.own_clock().is_some() {
            self.past.expired = None;
            return false;
        }
        let known = self.last_numbers();
        let here = |author: &PeerId| known.get(author).copied();
        let have = |heads: &Heads| {
            let have = heads.keys().filter_map(here);
            have.map(|(_, last)| u64::from(last)).sum::<u64>()
        };
        let Some(expired) = &mut self.past.expired else {
            let mut heads = self.all_heads_before(soon);
            heads.retain(|author, head| here(author).is_some_and(|(_, last)| last < *head));
            if heads.is_empty() {
                return false;
            }
            for (author, head) in &heads {
                if let Some((id, _)) = here(author) {
                    self.log.log_mut().ask_up_to(id, *head, now);
                }
            }
            let each = EXPIRED_WAIT_OF_AUTHOR * heads.len() as u32;
            self.past.expired = Some(Expired {
                have: have(&heads),
                heads,
                since: now,
                wait: (EXPIRED_WAIT + each).min(LONGEST_EXPIRED_WAIT),
            });
            return false;
        };
        let have = have(&expired.heads);
        if have != expired.have {
            (expired.have, expired.since) = (have, now);
        }
        if now.saturating_duration_since(expired.since) < expired.wait {
            return false;
        }
        let heads = std::mem::take(&mut expired.heads);
        self.past.expired = None;
        let certain = self.all_heads_before(before);
        let mut any = false;
        for (author, head) in heads {
            let Some((id, last)) = here(&author) else {
                continue;
            };
            // the author's next entry is here, or the commit itself is old enough
            let head = match self.log.log().has_gap(id) {
                true => head,
                false => certain.get(&author).copied().unwrap_or(0),
            };
            if last < head {
                self.log.log_mut().give_up(id, head, now);
                any = true;
            }
        }
        any
    }

    /// Gives newcomers what was said before, as far as the terms say: in the turn of their commit.
    /// Own devices get everything.
    pub(super) fn give_history(&mut self, time: UnixTime) -> io::Result<()> {
        let newcomers = std::mem::take(&mut self.past.newcomers);
        self.give_history_to(&newcomers, self.kept.history(), MAX_HISTORY, time)?;
        let devices = std::mem::take(&mut self.past.new_devices);
        self.give_history_to(&devices, u64::MAX, DEVICE_HISTORY, time)
    }

    fn give_history_to(
        &mut self,
        newcomers: &[PeerId],
        seconds: u64,
        most: usize,
        time: UnixTime,
    ) -> io::Result<()> {
        if newcomers.is_empty() || seconds == 0 {
            return Ok(());
        }
        self.conversation.sync()?;
        let since = seconds.saturating_mul(1_000);
        let since = time.as_millis().saturating_sub(since);
        let after = self.conversation.messages();
        let after = after.saturating_sub(history::MAX_MESSAGES);
        let mut messages = Vec::new();
        self.conversation.shared().read(after, false, |line| {
            let message = line.and_then(|line| serde_json::from_slice::<Message>(line).ok());
            messages.extend(message.filter(|message| message.time >= since));
            Ok(true)
        })?;
        // own ones that are not shown yet
        messages.extend(self.said.iter().map(|(message, _)| message.clone()));
        if messages.is_empty() {
            return Ok(());
        }
        let room = history::room_beside(self.given()).min(most);
        let content = history::encode(&messages, room);
        if content.len() <= 1 {
            self.notice("what was said before did not fit for newcomers any more".into());
            return Ok(());
        }
        if let Err(e) = self.group.give_history(newcomers, &content) {
            tracing::warn!("{}: what was said before: {e}", self.name);
        }
        Ok(())
    }

    /// Entries of the own log with what was said before, for newcomers.
    fn given(&self) -> usize {
        let own = self.author_of(LogName::Own);
        let own = self.log.log().entries_after(own, 0);
        own.filter(|entry| entry.kind == kind::HISTORY).count()
    }
}

/// Times in ms before which commits count only entries that have expired, certainly and probably.
pub(super) fn expired_before(time: UnixTime, keep: Duration) -> (u64, u64) {
    let keep = keep.as_millis() as u64;
    let before = time.as_millis().saturating_sub(keep);
    // a commit of the next day counts entries that have expired by now
    (before, before + COMMITTED_WITHIN.min(keep / PART_OF_KEEP))
}
