//! Clocks: this host shows its own, compares those of others, and notices steps.

use std::time::{Duration, Instant};

use lcgroup_core::RequestRefusal;
use librecast::time::UnixTime;
use librecast_log::AuthorId;
use librecast_log_host::seed;

use super::{LogName, Room};
use crate::clocks::{Clocks, Questions, Shown, is_drawn, off_by};

/// Step of the wall clock in ms that counts as a suspension. Chosen: clocks are set by less.
pub const SUSPENDED: u64 = 10_000;

/// Shortest pause between two shows of this host's clock. Chosen: a packet may be lost.
const SHOW_CLOCK_AGAIN: Duration = Duration::from_secs(60);

/// Moments and errors of clocks, as far as this host knows them.
#[derive(Debug, Default)]
pub(super) struct ClockWatch {
    /// The clocks at the last turn.
    turned: Option<(UnixTime, Instant)>,
    /// Clocks of other members.
    others: Clocks,
    pub(super) questions: Questions,
    /// When this host last showed its clock.
    pub(super) shown: Option<Instant>,
    /// It was shown since another member was received.
    pub(super) received: bool,
    /// The owner's refusal, and when the refused request was made.
    pub(super) refused: Option<(RequestRefusal, u64)>,
}

impl Room {
    /// Handles steps of the clock, and the end of a wait for the owner's log.
    pub(super) fn catch_up(&mut self, time: UnixTime, now: Instant) {
        let before = self.clock.turned.replace((time, now));
        let set_by = before.map_or(0, |(then, at)| clock_step((then, at), (time, now)));
        if set_by > SUSPENDED as i64 {
            self.come_back(now);
        }
        if before.is_none() || set_by.unsigned_abs() > SUSPENDED {
            // clocks that differed before may agree now
            (self.clock.others, self.clock.shown) = (Clocks::default(), None);
            self.clock.questions = Questions::default();
            self.group.mend_times(time);
            self.state_changed = true;
            self.show_clock(time, now);
        }
        if self.group.is_behind() && self.log.log().caught_up_at().is_some_and(|at| at <= now) {
            self.group.catch_up(time);
            (self.sealing.has_keys, self.state_changed) = (true, true);
        }
    }

    /// Shows this host's clock at most once per [`SHOW_CLOCK_AGAIN`], for members to compare.
    pub(super) fn show_clock(&mut self, time: UnixTime, now: Instant) {
        let lately = |at| now.saturating_duration_since(at) < SHOW_CLOCK_AGAIN;
        if !self.clock.shown.is_some_and(lately) {
            self.clock.shown = Some(now);
            self.show(LogName::Own, &Shown::Clock, time);
        }
    }

    pub(super) fn show(&mut self, log: LogName, shown: &Shown, time: UnixTime) {
        let author = self.author_of(log);
        // a host that is not an author yet cannot show it
        if let Err(e) = self.log.log_mut().show(author, &shown.encode(), time) {
            tracing::debug!("{}: presence: {e}", self.name);
        }
    }

    /// Handles a member's clock, which is `ahead` of this host's if it differs.
    pub(super) fn hear_clock(
        &mut self,
        author: AuthorId,
        ahead: Option<i64>,
        body: &[u8],
        (time, now): (UnixTime, Instant),
    ) {
        let Some(key) = self.status_of(author).map(|status| status.key) else {
            return;
        };
        let me = self.author_of(LogName::Own);
        let counts = match Shown::decode(body) {
            Some(Shown::Refused(reason, asked, made)) if self.admits(author) && asked == me => {
                self.clock.refused = Some((reason, made));
                self.group.request_made() == Some(made)
            }
            Some(Shown::Answer(nonces)) => self.clock.questions.is_answered_by(&nonces),
            Some(Shown::Question(nonce, about)) => {
                let members = self.group.members().len();
                let answers =
                    self.group.is_in_office() || about == me || is_drawn(nonce, me, members);
                if answers && !self.clock.questions.take(author, nonce) {
                    tracing::debug!("{}: too many questions for clocks", self.name);
                }
                false
            }
            _ => false,
        };
        let Some(ahead) = ahead else {
            match counts {
                true => drop(self.clock.others.hear(key, None)),
                false => self.clock.others.forget(&key),
            }
            return;
        };
        if !counts {
            self.ask_for_clocks(author, time, now);
        } else if self.clock.others.hear(key, Some(ahead)) && self.own_clock().is_none() {
            let (who, off) = (self.name_of(&key), off_by(-ahead));
            self.notice(format!("the clock of {who} is {off} this host's"));
        }
    }

    /// Asks this author and others for their clocks: one that differs may be a recording.
    fn ask_for_clocks(&mut self, about: AuthorId, time: UnixTime, now: Instant) {
        // a joiner cannot ask, and the owner answers its request
        if !self.is_member() {
            return;
        }
        let nonce = match seed() {
            Ok(seed) => u64::from_be_bytes(*seed.first_chunk().expect("32 bytes")),
            Err(e) => return tracing::error!("{}: {e}", self.name),
        };
        if self.clock.questions.ask(nonce, now) {
            self.show(LogName::Own, &Shown::Question(nonce, about), time);
        }
    }

    /// Answers the questions of others, if that is due.
    pub(super) fn answer_clocks(&mut self, time: UnixTime, now: Instant) {
        if let Some(nonces) = self.clock.questions.take_due(now) {
            self.show(LogName::Own, &Shown::Answer(nonces), time);
        }
    }

    /// The error of this host's clock, judged by other members' clocks.
    pub fn own_clock(&self) -> Option<String> {
        let owner = self.group.members().into_iter().next();
        let mut owners = vec![self.group.id()];
        owners.extend(owner.map(|owner| owner.author));
        let is_owner = self.group.group_key().is_some();
        let (who, ahead) = self.clock.others.judge(&owners, is_owner)?;
        let whose = match owners.contains(&who) {
            true => "the group's owner".to_owned(),
            false => self.name_of(&who),
        };
        let off = off_by(ahead);
        Some(format!(
            "this host's clock is {off} the clock of {whose}: one of them is to be set (`date` shows this one)"
        ))
    }
}

/// Milliseconds by which the clock was set between two moments; a suspension looks the same.
pub fn clock_step((then, at): (UnixTime, Instant), (time, now): (UnixTime, Instant)) -> i64 {
    let passed = now.saturating_duration_since(at).as_millis() as i64;
    time.as_millis() as i64 - then.as_millis() as i64 - passed
}
