//! Deputies: whose signs of life count, who takes over when, and what users are told of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use lcgroup_core::{Entry, Heads, Standing, heads_before};
use librecast::id::PeerId;
use librecast::time::UnixTime;
use librecast_log::{AuthorId, AuthorStatus, Log};
use librecast_program::cli::{Exit, ExitError};

use super::{LogName, Room};
use crate::clocks::Shown;
use crate::names::is_called;
use crate::request::DeputyStatus;

/// Longest time of silence that is not on disk. Chosen: a restart delays a deputy by no more.
const SAVED_WITHIN: Duration = Duration::from_secs(600);

/// The moments of what deputies need.
#[derive(Debug)]
pub(super) struct Uptime {
    /// Until when it was counted.
    counted: Instant,
    /// When it was last written to disk.
    saved: Instant,
    /// When this host last showed that the one in office is present.
    shown: Option<Instant>,
}

impl Uptime {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            counted: now,
            saved: now,
            shown: None,
        }
    }
}

impl Room {
    /// Counts this host's uptime, takes over if that is due, and shows that it is in office.
    pub(super) fn count_uptime(&mut self, time: UnixTime, now: Instant) {
        self.end_if_removed(now);
        let counted = std::mem::replace(&mut self.uptime.counted, now);
        let Some(pause) = self.group.uptime_pause().map(Duration::from_millis) else {
            return;
        };
        let was_in_office = self.group.is_in_office();
        let elapsed = now.saturating_duration_since(counted);
        self.group.pass_uptime(elapsed.as_millis() as u64, time);
        let unsaved = now.saturating_duration_since(self.uptime.saved);
        let save_after = match self.group.takes_over_in() {
            Some(_) => pause.min(SAVED_WITHIN),
            None => SAVED_WITHIN,
        };
        if unsaved >= save_after || was_in_office != self.group.is_in_office() {
            (self.state_changed, self.uptime.saved) = (true, now);
        }
        let lately = |at| now.saturating_duration_since(at) < pause;
        if self.group.is_in_office() && !self.uptime.shown.is_some_and(lately) {
            self.uptime.shown = Some(now);
            self.show(LogName::Own, &Shown::Clock, time);
        }
    }

    /// A member that waits for a new leaf was removed meanwhile, if its grant has ended.
    fn end_if_removed(&mut self, now: Instant) {
        if !matches!(self.group.standing(), Standing::Rejoining { .. })
            || self.log.log().caught_up_at().is_none_or(|at| at > now)
        {
            return;
        }
        let own = self.status_of(self.author_of(LogName::Own));
        let grant = own.and_then(|status| status.grant);
        if grant.is_some_and(|grant| grant.last < u32::MAX) {
            self.group.end_membership();
            self.state_changed = true;
        }
    }

    /// When [`count_uptime`](Self::count_uptime) is due.
    pub(super) fn uptime_due(&self) -> Option<Instant> {
        let pause = self.group.uptime_pause()?;
        let pause = self
            .group
            .takes_over_in()
            .map_or(pause, |takes| pause.min(takes));
        // a whole millisecond counts
        Some(self.uptime.counted + Duration::from_millis(pause.max(1)))
    }

    /// Notes that a member showed itself.
    pub(super) fn hear_presence(&mut self, author: AuthorId, time: UnixTime) {
        if self.group.uptime_pause().is_some()
            && let Some(status) = self.status_of(author)
        {
            self.group.hear(&status.key, time);
        }
    }

    /// The number that the group wants of a log.
    pub(super) fn wants(&self, status: &AuthorStatus) -> Option<u32> {
        match status.is_office {
            true => self.group.wants_office(&status.key),
            false => self.group.wants(&status.key),
        }
    }

    pub(super) fn skip(&mut self, status: &AuthorStatus, last: u32, time: UnixTime) {
        match status.is_office {
            true => self.group.handle_office_gap(&status.key, last, time),
            false => self.group.handle_gap(&status.key, last, time),
        }
    }

    /// The highest heads in commits of before `time`, in all logs with commits.
    pub(super) fn all_heads_before(&self, time: u64) -> Heads {
        let offices = self.log.log().authors().filter(|status| status.is_office);
        let logs = offices.map(|status| (status.author, status.key));
        let logs = logs.chain([(self.log.log().owner(), self.log.log().space().owner())]);
        let mut all = Heads::new();
        for (log, key) in logs {
            for (author, head) in heads_before(office_entries(self.log.log(), log, key), time) {
                let highest: &mut u32 = all.entry(author).or_default();
                *highest = head.max(*highest);
            }
        }
        all
    }

    /// Makes the statements on the group's own network; returns whether any was new.
    pub fn state_network(&mut self, time: UnixTime) -> bool {
        let is_new = self.failure().is_none() && self.group.state_network(time);
        self.state_changed |= is_new;
        is_new
    }

    /// What a change of who commits means for users of this host.
    pub(super) fn tell_of_office(&mut self, now_in_office: bool) {
        let name = self.name.clone();
        self.notice(match now_in_office {
            true => format!(
                "this host lets members join and removes them now, as the owner or another deputy is silent. Invitations of before are void: `lcgroup invite {name}` makes new ones"
            ),
            false => "another host lets members join and removes them now; invitations of this host are void".into(),
        });
    }

    /// The name of the member that commits, if it is not the owner.
    pub(super) fn deputy_in_office(&self) -> Option<String> {
        let author = self.group.in_office()?;
        let owner = self.group.members().into_iter().next()?;
        (author != owner.author).then(|| self.name_of(&author))
    }

    /// Names a member that commits after this many seconds of silence.
    pub fn add_deputy(&mut self, who: &str, after: u64, time: UnixTime) -> anyhow::Result<PeerId> {
        self.check_usable()?;
        let author = self.member_called(who)?.author;
        let after = u32::try_from(after).unwrap_or(u32::MAX);
        self.group.add_deputy(&author, after, time)?;
        self.state_changed = true;
        Ok(author)
    }

    /// Ends a deputy's right.
    pub fn remove_deputy(&mut self, who: &str, time: UnixTime) -> anyhow::Result<PeerId> {
        self.check_usable()?;
        let author = self.deputy_called(who)?;
        self.group.remove_deputy(&author, time)?;
        self.state_changed = true;
        Ok(author)
    }

    /// Stands down for a deputy, or for the owner.
    pub fn hand_over(&mut self, who: &str, time: UnixTime) -> anyhow::Result<PeerId> {
        self.check_usable()?;
        let member = self.member_called(who);
        let devices = member.map_or_else(|_| Vec::new(), |member| member.devices);
        let author = match devices.iter().find(|device| device.owner) {
            Some(owner) => owner.author,
            None => self.deputy_called(who)?,
        };
        self.group.hand_over(&author, time)?;
        self.state_changed = true;
        Ok(author)
    }

    fn deputy_called(&self, who: &str) -> anyhow::Result<PeerId> {
        let usage = |text: String| ExitError::new(Exit::Usage, text);
        let meant: Vec<DeputyStatus> = self.deputies();
        let meant = meant.iter().filter(|deputy| deputy.named);
        let meant: Vec<PeerId> = meant
            .filter(|d| is_called(who, (&d.author, &d.name, &d.shown)))
            .map(|d| d.author)
            .collect();
        let [author] = meant[..] else {
            let text = format!(
                "no deputy, or several, are called {who:?}: `lcgroup deputy list {}` lists them",
                self.name
            );
            return Err(usage(text).into());
        };
        Ok(author)
    }

    /// The deputies in order; former ones, too.
    pub fn deputies(&self) -> Vec<DeputyStatus> {
        let (shown, in_office) = (self.shown_names(), self.group.in_office());
        let members: BTreeMap<PeerId, String> = self
            .group
            .members()
            .into_iter()
            .map(|member| (member.author, member.name))
            .collect();
        let deputies = self.group.deputies().iter();
        let status = deputies.map(|deputy| {
            let name = members.get(&deputy.author).cloned();
            let name = name.unwrap_or_else(|| self.name_of(&deputy.author));
            DeputyStatus {
                author: deputy.author,
                shown: shown.get(&deputy.author).unwrap_or(&name).clone(),
                name,
                after_s: deputy.after,
                named: deputy.is_named() && members.contains_key(&deputy.author),
                in_office: in_office == Some(deputy.author),
            }
        });
        status.collect()
    }
}

/// The entries of a log with commits, which has this name and key.
fn office_entries(log: &Log, office: AuthorId, key: PeerId) -> impl Iterator<Item = Entry<'_>> {
    log.entries_after(office, 0).map(move |entry| Entry {
        author: key,
        number: entry.number,
        time: entry.time,
        kind: entry.kind,
        body: &entry.body,
    })
}
