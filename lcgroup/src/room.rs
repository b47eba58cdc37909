//! One group: its log, its keys, its conversation, and the order of their writes to disk.
//!
//! ```text
//!   datagrams ──► log ──entries──► group ──messages──► conversation
//!                  ▲                 │
//!                  └──── appends ────┘
//! ```
//!
//! A turn writes entries, then messages, then the group's state to disk; only then it appends new
//! entries, which reach the disk before they are sent. So no key of the group seals two contents,
//! even after a crash. A turn that only read entries may leave the state for a later one: after a
//! crash they are read from the log again, and known messages are not shown twice.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use lcgroup_core::file::FileId;
use lcgroup_core::outside::NetworkSecret;
use lcgroup_core::{
    Append, Entry, Event, Founding, Group, Invitation, Log as LogName, NewEntry, Output,
    RequestRefusal, Standing, Taken, Terms,
};
use librecast::cert::GroupPrefix;
use librecast::durable;
use librecast::id::{PeerId, SecretKey};
use librecast::plain::quoted;
use librecast::text::{TextKind, encode};
use librecast::time::UnixTime;
use librecast_log::{
    AppendError, AuthorId, AuthorStatus, Event as LogEvent, GRANT_KIND, Grant, ReadKey, Role, Space,
};
use librecast_log_host::{KeptLog, seed};
use librecast_program::cli::{Exit, ExitError};
use zeroize::Zeroizing;

use crate::clocks::{Shown, off_by};
use crate::content::{Content, encode_bytes, encode_call, is_share_name};
use crate::conversation::{Conversation, FileOf, Message, REMEMBERED, Shared};
use crate::desktop::Notification;
use crate::files::FileList;
use crate::history;
use crate::holding_key::HoldingKey;
use crate::logs::{Kept, log_status};
use crate::names::{Names, is_called, normal};
use crate::offers::{self, Offer, Offers};
use crate::outside::with_place;
use crate::place;
use crate::request::{FilesStatus, GroupStatus, InvitationStatus};
use crate::shared::SharedState;
use crate::shelf::{Shelf, remove_group};

mod clock;
mod deputies;
mod devices;
mod files;
mod past;
mod prefixes;
mod shared;
mod wake;

use clock::ClockWatch;
pub use clock::{SUSPENDED, clock_step};
use deputies::Uptime;
pub use devices::label;
pub use files::{Attached, FileAnswer, Waits};
use past::Past;
use prefixes::Sealing;
use shared::changes_in;
use wake::OwnLine;

/// Pause before an append is tried again: the log first requests own entries from other members.
const APPEND_AGAIN: Duration = Duration::from_millis(500);

/// Shortest pause between two requests to join after a packet of the group, in ms. Chosen.
const HEARD_PAUSE: u64 = 2_000;
/// Longest pause between them while a user waits, in ms. Chosen.
const AWAITED_PAUSE: u64 = 5_000;

/// Time for members' first packets after the start. Chosen: they answer within a second.
const BEGINNING: Duration = Duration::from_secs(3);

/// A question for users whose hosts do not reach each other.
const FIREWALLS: &str = "do firewalls of both hosts let in UDP port 14246, ICMPv6 and multicast on the interfaces in use?";

/// Stored notices.
const MAX_NOTICES: usize = 32;

/// Files in the folder of a group.
const STATE: &str = "state";
const LOG: &str = "log";
const MESSAGES: &str = "messages";
const OFFERS: &str = "offers";
const FILES: &str = "sent-files";
const SHARED: &str = "shared";

/// Longest time in which entries were read and the state is not on disk. Chosen: in a group of 1,000
/// the state has 0.5 MB.
const READ_WITHIN: Duration = Duration::from_secs(10);
/// Messages of that time. Chosen: the conversation knows twice as many.
const READ_AT_MOST: u64 = REMEMBERED as u64 / 2;

/// Bytes of a state file.
const MAX_STATE: u64 = 64 << 20;

/// A message, and what it brings beside its text.
type Said = (Message, Option<Attached>);

#[derive(Debug)]
pub struct Room {
    name: String,
    folder: PathBuf,
    group: Group,
    log: KeptLog,
    conversation: Conversation,
    /// Entries that the group wants appended.
    appends: VecDeque<Append>,
    append_at: Option<Instant>,
    /// Why the log takes no entries now.
    refusal: Option<AppendError>,
    /// Own messages: shown once the state that sends them is on disk.
    said: Vec<Said>,
    offers: Offers,
    /// Keys and values of all members.
    shared: SharedState,
    /// Files in messages, and sealed ones here.
    files: FileList,
    shelf: Shelf,
    /// Files that a user fetches or sends, until these times.
    kept_files: BTreeMap<FileId, Instant>,
    /// The state has changes that are on disk before the turn ends.
    state_changed: bool,
    /// Since when it has other changes, and how many messages the written state knows.
    read_since: Option<Instant>,
    written_messages: u64,
    notices: VecDeque<String>,
    /// The last message of others since [`Room::take_notification`], and the number of those before it.
    notification: Option<(PeerId, String, u64)>,
    sealing: Sealing,
    clock: ClockWatch,
    /// The number of writes of the state in this run.
    saves: u64,
    opened: Instant,
    uptime: Uptime,
    /// Own messages are not shown yet: the folder may prove to be an old copy.
    holds_back: bool,
    /// The folder was copied or put back, and no other host has shown that it is not an old copy.
    is_unsure: bool,
    /// Terms of the group.
    kept: Kept,
    past: Past,
    wake: OwnLine,
    /// Names that members chose, including former members.
    names: BTreeMap<PeerId, String>,
}

/// Returns the id of an invitation as text.
pub fn invitation_id(id: u64) -> String {
    format!("{id:016x}")
}

impl Room {
    /// Creates a group and its `folder`.
    pub fn create(
        folder: &Path,
        name: &str,
        founding: Founding,
        terms: Option<Terms>,
        (time, now): (UnixTime, Instant),
    ) -> anyhow::Result<Self> {
        let mut group = Group::create(founding, &*seed()?, time)?;
        if let Some(terms) = terms {
            group.state_terms(terms)?;
        }
        Self::make(folder, name, group, now)
    }

    /// Creates `folder` and requests membership.
    pub fn join(
        folder: &Path,
        name: &str,
        invitation: Invitation,
        own_name: &str,
        time: UnixTime,
        now: Instant,
    ) -> anyhow::Result<Self> {
        let group = Group::join(invitation, own_name, &*seed()?, time)?;
        Self::make(folder, name, group, now)
    }

    fn make(folder: &Path, name: &str, group: Group, now: Instant) -> anyhow::Result<Self> {
        std::fs::create_dir(folder).with_context(|| folder.display().to_string())?;
        let made = || {
            durable::sync_folder_of(folder)?;
            let state = group.state()?;
            durable::replace(&folder.join(STATE), &state)?;
            place::write(folder)?;
            // a Welcome to a request of this run is new
            Self::with(folder, name, group, now)
        };
        made().inspect_err(|_| {
            // half a group would block the next attempt
            let _ = std::fs::remove_dir_all(folder);
        })
    }

    /// Loads the state from its files again.
    pub fn reopen(&mut self, now: Instant) -> anyhow::Result<()> {
        let mut room = Self::open(&self.folder, &self.name, now)?;
        std::mem::swap(&mut room.notices, &mut self.notices);
        *self = room;
        Ok(())
    }

    /// The number of writes of the state in this run: earlier requests are on disk.
    pub fn saves(&self) -> u64 {
        self.saves
    }

    /// Opens a group from its folder.
    pub fn open(folder: &Path, name: &str, now: Instant) -> anyhow::Result<Self> {
        let path = folder.join(STATE);
        let state = librecast::private_file::read(&path, MAX_STATE)
            .with_context(|| path.display().to_string())?;
        let mut group =
            Group::restore(&state, &*seed()?).with_context(|| path.display().to_string())?;
        group.fall_behind();
        Self::with(folder, name, group, now)
    }

    fn with(folder: &Path, name: &str, group: Group, now: Instant) -> anyhow::Result<Self> {
        let key = || SecretKey::from_seed(&group.author_key().seed());
        let owner = group.group_key();
        let owner = owner.map(|key| SecretKey::from_seed(&key.seed()));
        let keys = [key()].into_iter().chain(owner).collect();
        let (mut kept, mut office) = (Kept::default(), Some(key()));
        let space = Space::new(
            group.id(),
            Some(ReadKey::new(**group.read_key())),
            kept.ttl(),
        );
        let path = folder.join(LOG);
        let log = KeptLog::open_with(space, Role::Member, keys, Some(&path), now, |log| {
            if let Some(key) = office.take() {
                log.add_office_key(key);
            }
            kept.follow(log);
        });
        let log = log.with_context(|| path.display().to_string())?;
        let path = folder.join(MESSAGES);
        let conversation = Conversation::open(&path).with_context(|| path.display().to_string())?;
        let sealing = Sealing::open(folder, !group.is_behind())?;
        let path = folder.join(OFFERS);
        let offers = Offers::open(&path).with_context(|| path.display().to_string())?;
        let path = folder.join(SHARED);
        let me = group.author_key().peer_id();
        let shared = SharedState::open(&path, &me).with_context(|| path.display().to_string())?;
        let path = folder.join(FILES);
        let files = FileList::open(&path).with_context(|| path.display().to_string())?;
        let shelf = Shelf::open(folder, group.read_key());
        // a joiner has said nothing
        let speaks = group.standing() != Standing::Joining && !group.is_untold();
        let is_unsure =
            place::is_another(folder).with_context(|| folder.display().to_string())? && speaks;
        let mut room = Self {
            name: name.to_owned(),
            folder: folder.to_owned(),
            group,
            log,
            conversation,
            appends: VecDeque::new(),
            append_at: None,
            refusal: None,
            said: Vec::new(),
            offers,
            shared,
            files,
            shelf,
            kept_files: BTreeMap::new(),
            state_changed: true,
            read_since: None,
            written_messages: 0,
            notices: VecDeque::new(),
            notification: None,
            sealing,
            clock: ClockWatch::default(),
            saves: 0,
            opened: now,
            uptime: Uptime::new(now),
            holds_back: false,
            is_unsure,
            kept,
            past: Past::default(),
            wake: OwnLine::open(folder).with_context(|| folder.display().to_string())?,
            names: BTreeMap::new(),
        };
        room.forget_read();
        room.names.clone_from(room.conversation.names());
        room.names.extend(room.all_names());
        room.show_names();
        room.log.log_mut().watch_presence(true);
        room.log.log_mut().watch_clocks(true);
        // acknowledgements that a crash kept from the group
        for log in [LogName::Own, LogName::Owner] {
            if let Some(status) = room.status_of(room.author_of(log)) {
                room.acknowledge(log, status.last);
            }
        }
        room.group.hold(is_unsure, UnixTime::now());
        // and own messages that a crash kept from the users
        let me = room.group.author_key().peer_id();
        let waiting: Vec<_> = room.group.unconfirmed().collect();
        room.said = waiting
            .into_iter()
            .filter(|(id, content)| {
                let is_known = room.conversation.knows(me, &format!("{id:016x}"));
                !is_known && changes_in(content).is_none()
            })
            .map(|(id, content)| room.message(me, id, UnixTime::now().as_millis(), content))
            .collect();
        room.send_again(UnixTime::now());
        Ok(room)
    }

    /// The multicast address of its packets.
    pub fn address(&self) -> Ipv6Addr {
        self.log.address()
    }

    /// The group's key.
    pub fn id(&self) -> PeerId {
        self.group.id()
    }

    /// Handles a datagram of its multicast group.
    pub fn handle_packet(&mut self, source: IpAddr, bytes: &[u8], time: UnixTime, now: Instant) {
        // an untold former member would see that others write
        if self.group.is_untold() {
            return;
        }
        self.log.log_mut().handle_packet(source, bytes, time, now);
    }

    /// Handles a possible absence: new messages wait until the owner's log is complete.
    pub fn come_back(&mut self, now: Instant) {
        self.log.log_mut().come_back(now);
        self.group.fall_behind();
        self.clock.received = false;
    }

    /// Ends the doubt about a copied folder, once other hosts have shown their entries of its keys.
    fn be_sure(&mut self, time: UnixTime, now: Instant) -> io::Result<()> {
        let own = self.author_of(LogName::Own);
        let is_shown = self.log.log().caught_up_at().is_some_and(|at| at <= now);
        if self.is_unsure && is_shown && self.log.log().is_settled(own, now) {
            place::write(&self.folder)?;
            self.is_unsure = false;
            self.group.hold(false, time);
            self.state_changed = true;
        }
        Ok(())
    }

    /// Whether the doubt about a copied folder probably ends within seconds.
    pub fn is_sure_shortly(&self, now: Instant) -> bool {
        let has_begun = now.saturating_duration_since(self.opened) < BEGINNING;
        self.is_unsure && (self.log.log().has_received() || has_begun)
    }

    /// Why a request to join or a message waits, if one does.
    pub fn waits(&self) -> Option<String> {
        let is_heard = self.log.log().has_received();
        if self.group.standing() == Standing::Joining {
            let waits = match (self.own_clock(), is_heard) {
                (None, true) if self.group.is_invitation_void() => "waits in vain: the invitation is void, as another host lets members in now. Ask its user for a new one, and `lcgroup join` with it".to_owned(),
                (Some(clock), _) => format!("waits for another clock: {clock}"),
                (None, true) => format!(
                    "waits for the group's owner: hosts of the group are heard, and none of them lets it in. Does `lcgroup run` run on the owner's host, and {FIREWALLS}"
                ),
                (None, false) => format!(
                    "waits for the group's owner: nobody of the group is heard. Does `lcgroup run` run on the owner's host, are both hosts in one network, and {FIREWALLS}"
                ),
            };
            return Some(waits);
        }
        if let Some(expired) = &self.past.expired {
            return Some(format!(
                "waits for messages from before the time that this group keeps: for {} s, then it goes on without those that nobody has",
                expired.wait.as_secs()
            ));
        }
        if let Some(reason) = &self.refusal {
            return Some(format!("waits, and nothing is sent: {reason}"));
        }
        if !self.group.is_behind() || self.group.standing() != Standing::Member {
            return None;
        }
        Some(match self.log.log().caught_up_at() {
            Some(_) => "waits for the last word of the group's owner, from any member".to_owned(),
            None => format!(
                "waits for any other member or mailbox of the group: nobody is heard. Does one run, and {FIREWALLS}"
            ),
        })
    }

    /// Whether the wait probably ends within seconds.
    pub fn waits_shortly(&self, now: Instant) -> bool {
        let has_begun = now.saturating_duration_since(self.opened) < BEGINNING;
        let is_heard = self.log.log().caught_up_at().is_some();
        self.group.is_behind() && (is_heard || has_begun)
    }

    /// Why this host cannot send or join, and the remedy.
    pub fn problem(&self) -> Option<String> {
        self.failure().or_else(|| {
            self.is_unsure.then(|| {
                format!(
                    "this folder was copied here or put back, and may be older than what was said from it: nothing is sent before another host of the group is heard. Does one run, and {FIREWALLS} Where there is none: invite somebody, or let another host hold the group (`lcgroup hold --key {}`)",
                    self.name
                )
            })
        })
    }

    /// The same, but for the doubt about a copied folder.
    fn failure(&self) -> Option<String> {
        let anew = format!(
            "`lcgroup leave --forget {}`, then `lcgroup join` with a new invitation",
            self.name
        );
        let conflict_of = |author| self.status_of(author)?.conflict;
        let conflict = conflict_of(self.author_of(LogName::Own));
        let is_owner = self.group.group_key().is_some();
        let of_owner = conflict_of(self.log.log().owner()).filter(|_| is_owner);
        match (self.group.standing(), conflict) {
            (Standing::RolledBack, _) => Some(format!(
                "this folder is an older copy than what was said from it: it says nothing more, and what waited in it was sent to nobody; {anew}"
            )),
            (Standing::Removed, _) if self.group.is_untold() => None,
            (Standing::Removed, _) if self.group.is_device() => Some(format!(
                "this device was removed, by another one of the same member or by the owner; to come back: {anew}"
            )),
            (Standing::Removed, _) => Some(format!(
                "the owner removed this member; to come back: {anew}"
            )),
            (_, Some(from)) => Some(format!(
                "this folder was used on two hosts: nothing that it said from entry {from} on counts; {anew}"
            )),
            (Standing::Joining, None) => {
                let (reason, made) = self.clock.refused?;
                let is_final = !matches!(reason, RequestRefusal::Time | RequestRefusal::Full);
                (is_final && self.group.request_made() == Some(made))
                    .then(|| format!("the owner refused: {reason}; {anew}"))
            }
            _ if let Some(from) = of_owner => Some(format!(
                "the owner's folder was used on two hosts: nothing that it did from entry {from} on counts, and nobody joins or leaves any more; `lcgroup create` makes a new group"
            )),
            _ => None,
        }
    }

    /// Shortens the pause between requests: a user waits to become a member.
    pub fn ask_soon(&mut self, time: UnixTime) {
        self.group.ask_within(AWAITED_PAUSE, time);
    }

    /// Uses another invitation of the group; returns whether this host is not a member yet.
    pub fn ask_by(&mut self, invitation: Invitation, time: UnixTime) -> anyhow::Result<bool> {
        if self.group.standing() != Standing::Joining {
            return Ok(false);
        }
        self.group.ask_by(invitation, time)?;
        self.state_changed = true;
        Ok(true)
    }

    /// When [`Self::turn`] is due; `time` is the wall clock.
    pub fn next_timeout(&self, time: UnixTime, now: Instant) -> Instant {
        let group = self.group.next_timeout();
        let group = group.map(|at| now + at.saturating_duration_since(time));
        let first = self.log.log().next_timeout();
        let keys = self.sealing.keyring.next_timeout(now);
        let is_settling = self.group.is_behind() || self.is_unsure;
        let owner = self.log.log().caught_up_at().filter(|_| is_settling);
        let begun = Some(self.opened + BEGINNING).filter(|at| *at > now);
        let show = match self.waits_shortly(now) {
            _ if self.said.is_empty() => None,
            true => begun,
            false => Some(now),
        };
        let clocks = self.clock.questions.due(now);
        let expired = self
            .past
            .expired
            .as_ref()
            .map(|wait| wait.since + wait.wait);
        let uptime = self.uptime_due();
        let write = self.read_since.map(|since| since + READ_WITHIN);
        let (append, sign) = (self.append_at, self.sign_due(now));
        let others = [
            write, group, append, keys, owner, show, clocks, expired, uptime, sign,
        ];
        let others = others.into_iter().flatten();
        others.fold(first, Instant::min)
    }

    /// Runs the timers that are due; afterwards everything is on disk and may be sent.
    pub fn turn(&mut self, time: UnixTime, now: Instant) -> io::Result<()> {
        if self.log.log().next_timeout() <= now {
            self.log.log_mut().handle_timeout(time, now);
        }
        self.catch_up(time, now);
        self.be_sure(time, now)?;
        self.count_uptime(time, now);
        self.give_sign(time, now);
        self.holds_back = self.waits_shortly(now);
        if self.group.next_timeout().is_some_and(|at| at <= time) {
            self.group.handle_timeout(time);
            self.state_changed = true;
        }
        loop {
            let heard = self.drain_log(time, now);
            let read = self.feed(time, now);
            let said = self.drain_group(time);
            self.give_history(time)?;
            self.give_values(time);
            self.answer_clocks(time, now);
            let appended = self.append(time, now)?;
            let skipped = self.skip_expired(time, now);
            if !(heard || read || said || appended || skipped) {
                break;
            }
        }
        self.persist(now)?;
        self.follow_epoch(now);
        Ok(())
    }

    /// Takes the packets to send.
    pub fn take_transmits(&mut self) -> Vec<(Ipv6Addr, Vec<u8>)> {
        self.log.take_transmits()
    }

    fn drain_log(&mut self, time: UnixTime, now: Instant) -> bool {
        let mut any = false;
        while self.log.collect() {
            any = true;
            for event in self.log.take_events() {
                self.hear(event, time, now);
            }
        }
        any
    }

    fn hear(&mut self, event: LogEvent, time: UnixTime, now: Instant) {
        match event {
            LogEvent::HostIsBack => {
                self.group.ask_within(HEARD_PAUSE, time);
                // no member may have received it before: once, because each member does the same
                if !std::mem::replace(&mut self.clock.received, true) {
                    self.clock.shown = None;
                    self.show_clock(time, now);
                }
            }
            LogEvent::Presence { author, body } => {
                self.hear_presence(author, time);
                self.hear_clock(author, None, &body, (time, now));
            }
            LogEvent::OtherClock {
                author,
                time: theirs,
                body,
            } => {
                let ahead = theirs as i64 - time.as_millis() as i64;
                self.hear_clock(author, Some(ahead), &body, (time, now));
            }
            LogEvent::Request(body) | LogEvent::RequestAgain(body) => {
                match self.group.handle_request(&body, time) {
                    Ok(()) => self.state_changed = true,
                    // members receive requests too, and owners receive repetitions
                    Err(e) => tracing::debug!("{}: a request to join: {e}", self.name),
                }
            }
            LogEvent::Conflict { author, number } => {
                let who = self.who(author);
                self.notice(format!(
                    "{who} was used on two hosts: nothing it said from entry {number} on counts; it needs a new invitation"
                ));
            }
            LogEvent::Gap { author, from, to } => {
                let who = self.who(author);
                self.notice(format!(
                    "nobody has entries {from} to {to} of {who} any more"
                ));
            }
            LogEvent::Entries(author) if author == self.log.log().owner() => {
                self.kept.follow(self.log.log_mut());
            }
            LogEvent::OwnEntries { .. } | LogEvent::Entries(_) | LogEvent::Granted(_) => {}
        }
    }

    /// Passes entries to the group, in order; returns whether it read any.
    fn feed(&mut self, time: UnixTime, now: Instant) -> bool {
        let mut any = false;
        let authors: Vec<AuthorStatus> = self.log.log().authors().collect();
        for status in authors {
            while let Some(next) = self.wants(&status) {
                let Some(entry) = self.log.log().next_entry(status.author, next - 1) else {
                    if status.first > next {
                        // all of them have expired
                        self.skip(&status, status.first - 1, time);
                        (any, self.state_changed) = (true, true);
                    }
                    break;
                };
                if entry.number > next {
                    // the missing entries have expired everywhere
                    let last = entry.number - 1;
                    self.skip(&status, last, time);
                    let who = self.who(status.author);
                    self.notice(format!("entries {next} to {last} of {who} have expired"));
                    (any, self.state_changed) = (true, true);
                    // an own log has no such gap
                    if self.wants(&status) == Some(next) {
                        break;
                    }
                    continue;
                }
                let entry = Entry {
                    author: status.key,
                    number: entry.number,
                    time: entry.time,
                    kind: entry.kind,
                    body: &entry.body,
                };
                let taken = match status.is_office {
                    true => self.group.handle_office_entry(&entry, time),
                    false => self.group.handle_entry(&entry, time),
                };
                if taken == Taken::Wait {
                    break;
                }
                if let Taken::Dropped(reason) = taken {
                    tracing::debug!("{}: entry {next}: {reason:?}", self.name);
                }
                any = true;
                self.read_since.get_or_insert(now);
            }
        }
        any
    }

    fn drain_group(&mut self, time: UnixTime) -> bool {
        let mut any = false;
        while let Some(output) = self.group.poll_output() {
            any = true;
            self.state_changed |= !is_reading(&output);
            match output {
                Output::Append(append) => self.appends.push_back(append),
                Output::Request(bytes) => {
                    if let Err(e) = self.log.log_mut().request(&bytes) {
                        tracing::warn!("{}: request to join: {e}", self.name);
                    }
                }
                Output::Event(event) => self.tell(event, time),
            }
        }
        any
    }

    fn tell(&mut self, event: Event, now: UnixTime) {
        match event {
            Event::Message {
                author,
                id,
                number,
                time,
                content,
            } => {
                if let Some(changes) = changes_in(&content) {
                    return self.take_changes(author, changes, now);
                }
                let (mut message, attached) = self.message(author, id, time, &content);
                message.entry = Some(number).filter(|_| !self.is_own(&author));
                let (is_others, text) = (message.entry.is_some(), message.summary());
                if !self.show_message(message, attached) {
                    return;
                }
                if number <= self.group.read_up_to(&author) {
                    self.conversation.unread().forget_last();
                } else if is_others {
                    let others = self.notification.take().map_or(0, |(.., others)| others + 1);
                    self.notification = Some((author, text, others));
                }
            }
            Event::ReadElsewhere => self.forget_read(),
            Event::NotCounted { author, id } => {
                let who = self.name_of(&author);
                self.notice(format!(
                    "message {id:016x} of {who} does not count: it came too late for its epoch, and not all have it"
                ));
            }
            Event::SaidAgain { author, id } => {
                let who = self.name_of(&author);
                self.notice(format!("{who} said message {id:016x} again, to all"));
            }
            Event::Joined { epoch } => {
                self.names.extend(self.all_names());
                self.show_names();
                self.notice(format!("member since epoch {epoch}"));
            }
            Event::History { content } => match history::decode(&content, now.as_millis()) {
                Ok(messages) => {
                    for mut message in messages {
                        let name = message.name.clone();
                        message.person = self.person_if_other(&message.author);
                        self.names.entry(message.author).or_insert(name);
                        self.conversation.add(message);
                    }
                    self.show_names();
                }
                Err(e) => tracing::warn!("{}: what was said before: {e}", self.name),
            },
            Event::MemberAdded { author, name } => {
                if self.group.is_in_office() && !self.is_own(&author) {
                    self.past.newcomers.push(author);
                }
                self.past.values_wanted |= author != self.group.author_key().peer_id();
                self.offers.end_own(self.group.author_key().peer_id());
                self.names.insert(author, name);
                self.show_names();
                if self.gives_history_to(&author) {
                    self.past.new_devices.push(author);
                }
                self.notice(match self.with_other_devices(&author) {
                    Some(who) => format!("{who} has one more device"),
                    None => format!("{} joined", self.name_of(&author)),
                });
            }
            Event::MemberRemoved { author } => {
                self.offers.end_own(self.group.author_key().peer_id());
                match self.with_other_devices(&author) {
                    Some(who) => self.notice(format!("{who} has one device less")),
                    None => {
                        let text = format!("{} is not a member any more", self.name_of(&author));
                        // one for all devices
                        if self.notices.back() != Some(&text) {
                            self.notice(text);
                        }
                    }
                }
                self.show_names();
            }
            Event::EpochChanged { epoch } => tracing::debug!("{}: epoch {epoch}", self.name),
            Event::OutboxWaits { id } if self.resend_changes(id, now) => {}
            Event::OutboxWaits { id } => self.notice(format!(
                "somebody joined before message {id:016x} counted: `lcgroup outbox {}` says it all the same",
                self.name
            )),
            Event::KeysDropped { authors } => {
                let names: Vec<_> = authors.iter().map(|author| self.name_of(author)).collect();
                self.notice(format!(
                    "too many keys wait for {}, silent for long: the oldest are dropped. Who comes back gets new keys without an invitation, and reads nothing from before",
                    names.join(", ")
                ));
            }
            Event::TookOffice => self.tell_of_office(true),
            Event::StoodDown => self.tell_of_office(false),
            Event::InOffice { author } => {
                let who = self.name_of(&author);
                self.notice(format!("{who} lets members join and removes them from now on"));
            }
            Event::BranchLost => self.notice(format!(
                "hosts of this group were apart, and both sides changed it; the other side's changes count. This host asks for new keys. Its own words that only this side read wait in `lcgroup outbox {}`; what the other side said meanwhile cannot be read here",
                self.name
            )),
            Event::AdmissionLost => self.notice(
                "hosts of this group were apart, and the change that let this member in does not count: ask for a new invitation"
                    .into(),
            ),
            Event::Removed => self.notice("the owner removed this member".into()),
            Event::CannotFollow => self.notice(format!(
                "the keys of this member do not fit any more, twice in a row: `lcgroup refresh {}` asks the owner once more; else ask for a new invitation",
                self.name
            )),
            Event::RolledBack => self.notice(
                "this folder is an older copy than what was said from it: it says nothing more; ask for a new invitation"
                    .into(),
            ),
            Event::InvitationExpired => {
                self.notice("the invitation expired before the owner answered".into());
            }
            Event::RequestRefused {
                author,
                name,
                time: made,
                reason,
            } => {
                let asked = self.log.log().space().author(&author);
                self.show(LogName::Owner, &Shown::Refused(reason, asked, made), now);
                let by_clock = made as i64 - now.as_millis() as i64;
                let why = match reason {
                    RequestRefusal::Time => {
                        format!("its clock is {} this host's", off_by(-by_clock))
                    }
                    _ => reason.to_string(),
                };
                let text = format!("{name} asks to join, and cannot: {why}");
                if !self.notices.contains(&text) {
                    self.notice(text);
                }
            }
            Event::NotAdmitted { author } => {
                let who = self.name_of(&author);
                self.notice(format!("{who} could not be admitted: it has to ask again"));
            }
        }
    }

    /// Takes the messages since the last call, for the user's desktop.
    pub fn take_notification(&mut self) -> Option<Notification> {
        let (author, text, others) = self.notification.take()?;
        let who = self.name_of(&author);
        Some(Notification { who, text, others })
    }

    fn notice(&mut self, text: String) {
        tracing::info!("{}: {text}", self.name);
        self.notices.push_back(text);
        if self.notices.len() > MAX_NOTICES {
            self.notices.pop_front();
        }
    }

    fn message(&self, author: PeerId, id: u64, time: u64, content: &[u8]) -> Said {
        let mut call = None;
        let (text, bytes, attached) = match Content::decode(content) {
            Content::Call(seed) => {
                call = Some(encode(TextKind::Call, &*seed).to_string());
                (None, None, None)
            }
            Content::Files(files) => (None, None, Some(Attached::Share(files))),
            Content::File(file) => (None, None, Some(Attached::File(file))),
            // not shown as messages
            Content::Changes(_) => (None, None, None),
            Content::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => (Some(text.to_owned()), None, None),
                Err(_) => (None, Some(BASE64.encode(bytes)), None),
            },
        };
        let message = Message {
            n: 0,
            author,
            person: self.person_if_other(&author),
            name: self.own_name_of(&author),
            id: format!("{id:016x}"),
            entry: None,
            time,
            text,
            bytes,
            files: attached.as_ref().and_then(Attached::share_name),
            file: attached.as_ref().and_then(FileOf::of),
            call,
            earlier: false,
        };
        (message, attached)
    }

    /// Appends the group's entries, once its state is on disk; returns whether it appended any.
    fn append(&mut self, time: UnixTime, now: Instant) -> io::Result<bool> {
        (self.append_at, self.refusal) = (None, None);
        if self.group.standing() == Standing::RolledBack || self.group.is_untold() {
            self.appends.clear();
        }
        if self.appends.is_empty() {
            return Ok(false);
        }
        if self.is_unsure {
            self.append_at = Some(now + APPEND_AGAIN);
            return Ok(false);
        }
        self.persist(now)?;
        let mut any = false;
        // an entry that waits in one log does not delay the other
        for log in [LogName::Owner, LogName::Own] {
            while let Some(at) = self.appends.iter().position(|append| append.log == log) {
                match self.append_one(at, time, now) {
                    Ok(()) => any = true,
                    Err(e) => {
                        tracing::debug!("{}: {e}", self.name);
                        self.refusal = Some(e).filter(|e| *e != AppendError::Starting);
                        self.append_at = Some(now + APPEND_AGAIN);
                        break;
                    }
                }
            }
        }
        self.forget();
        Ok(any)
    }

    /// Drops the beginning of the owner's log, once the grants and terms in it are stated again.
    fn forget(&mut self) {
        let is_owners = |append: &Append| append.log == LogName::Owner;
        if let Some(first) = self.group.keeps_from()
            && !self.appends.iter().any(is_owners)
            && !self.group.pending().any(is_owners)
        {
            let owners = self.author_of(LogName::Owner);
            self.log.log_mut().forget_before(owners, first);
        }
    }

    /// Acknowledges entries that the log has, up to `last`. Others in their place show that this
    /// folder is an old copy.
    fn acknowledge(&mut self, log: LogName, last: u32) {
        let id = self.author_of(log);
        let differs = |append: &Append| {
            let entry = self.log.log().next_entry(id, append.number - 1);
            let entry = entry.filter(|entry| entry.number == append.number);
            let (kind, body) = encoded(&append.entry);
            // none: it has expired
            entry.is_some_and(|entry| entry.kind != kind || entry.body != *body)
        };
        let is_known = |append: &&Append| append.log == log && append.number <= last;
        if self.group.pending().filter(is_known).any(differs) {
            self.group.roll_back();
        } else {
            self.group.handle_appended(log, last);
        }
    }

    fn append_one(&mut self, at: usize, time: UnixTime, now: Instant) -> Result<(), AppendError> {
        let Some(append) = self.appends.get(at) else {
            return Ok(());
        };
        let (log, number) = (append.log, append.number);
        let id = self.author_of(log);
        let last = self.status_of(id).map_or(0, |status| status.last);
        if number <= last {
            // an earlier run did it, or this folder is an old copy
            self.acknowledge(log, number);
            self.appends.remove(at);
            return Ok(());
        }
        if number != last + 1 {
            return Err(AppendError::Starting);
        }
        let (kind, body) = encoded(&append.entry);
        self.log.log_mut().append(id, kind, &body, time, now)?;
        self.group.handle_appended(log, number);
        self.appends.remove(at);
        self.read_since.get_or_insert(now);
        Ok(())
    }

    fn persist(&mut self, now: Instant) -> io::Result<()> {
        self.log.sync()?;
        // before their messages, which are not added twice
        self.files.sync()?;
        self.shared.sync()?;
        self.conversation.sync()?;
        let read = self.conversation.messages() - self.written_messages;
        let is_due = |since| now.saturating_duration_since(since) >= READ_WITHIN;
        if self.state_changed || self.read_since.is_some_and(is_due) || read >= READ_AT_MOST {
            let state = self.group.state().map_err(io::Error::other)?;
            durable::replace(&self.folder.join(STATE), &state)?;
            (self.state_changed, self.read_since) = (false, None);
            self.written_messages = self.conversation.messages();
            self.saves += 1;
            self.shared.note_sent();
        }
        if self.group.standing() == Standing::RolledBack {
            // no member receives them
            self.said.clear();
        }
        let said = match self.holds_back {
            true => Vec::new(),
            false => std::mem::take(&mut self.said),
        };
        for (message, attached) in said {
            self.show_message(message, attached);
        }
        self.offers.sync()?;
        self.shared.sync()?;
        self.files.sync()?;
        self.conversation.sync()
    }

    /// Whether its keys are those of the members: an old copy has other keys.
    fn is_member(&self) -> bool {
        matches!(
            self.group.standing(),
            Standing::Member | Standing::Rejoining { .. }
        ) || self.group.is_untold()
    }

    fn author_of(&self, log: LogName) -> AuthorId {
        let (space, key) = (self.log.log().space(), self.group.author_key().peer_id());
        match log {
            LogName::Own => space.author(&key),
            LogName::Owner if self.group.is_owner() => self.log.log().owner(),
            LogName::Owner => AuthorId::of_office(&space.owner(), &key),
        }
    }

    /// Whether this author answers the request to join: the owner, or the deputy that invited.
    fn admits(&self, author: AuthorId) -> bool {
        let awaited = self.group.awaited();
        author == self.log.log().owner()
            || awaited.is_some_and(|key| author == self.log.log().space().author(&key))
    }

    fn status_of(&self, author: AuthorId) -> Option<AuthorStatus> {
        let mut authors = self.log.log().authors();
        authors.find(|status| status.author == author)
    }

    /// The number of each author's last entry here, by key.
    fn last_numbers(&self) -> BTreeMap<PeerId, (AuthorId, u32)> {
        // an office has the key of its author, and other numbers
        let logs = self.log.log().authors().filter(|status| !status.is_office);
        logs.map(|status| (status.key, (status.author, status.last)))
            .collect()
    }

    /// Members, and authors that were members in this run or wrote a message.
    fn all_names(&self) -> BTreeMap<PeerId, String> {
        let mut all = self.names.clone();
        let members = self.group.members().into_iter();
        all.extend(members.map(|member| (member.author, member.name)));
        all
    }

    fn names(&self) -> Names {
        let all = self.person_names();
        Names::of(all.iter().map(|(person, name)| (*person, name.as_str())))
    }

    /// The number of members, each with all its devices.
    fn persons(&self) -> usize {
        let members = self.group.members().into_iter();
        let persons: BTreeSet<PeerId> = members.map(|member| member.person).collect();
        persons.len()
    }

    /// Updates the names that readers of the conversation see.
    fn show_names(&self) {
        let shared = self.conversation.shared();
        shared.show(self.shown_names());
        shared.show_own(self.own_devices());
    }

    /// Shown names, by key.
    fn shown_names(&self) -> BTreeMap<PeerId, String> {
        let (names, persons) = (self.names(), self.person_names());
        let all = self.all_names().into_iter();
        let shown = all.map(|(author, name)| {
            let person = self.person_of(&author);
            let name = persons.get(&person).unwrap_or(&name);
            (author, names.shown(&person, name))
        });
        shown.collect()
    }

    /// The shown name of a member, or of a former one.
    fn name_of(&self, author: &PeerId) -> String {
        let mut shown = self.shown_names();
        shown.remove(author).unwrap_or_else(|| {
            // all keys begin with the same letters
            let key = author.to_string();
            format!("a member with the key ...{}", &key[key.len() - 8..])
        })
    }

    /// The name that a member chose.
    fn own_name_of(&self, author: &PeerId) -> String {
        let mut members = self.group.members().into_iter();
        let person = self.person_of(author);
        let member = members.find(|member| member.person == person);
        let name = member.map(|member| normal(&member.name));
        name.unwrap_or_else(|| self.name_of(author))
    }

    fn who(&self, author: AuthorId) -> String {
        let status = self.status_of(author);
        status.map_or_else(|| author.to_string(), |s| self.name_of(&s.key))
    }

    // requests of users

    /// Sends a message; returns its id.
    pub fn say(&mut self, bytes: &[u8], time: UnixTime, now: Instant) -> anyhow::Result<u64> {
        let id = self.say_content(&encode_bytes(bytes), time)?;
        self.show_clock(time, now);
        Ok(id)
    }

    /// Begins a call with the members; returns the message's id, and the call's text.
    pub fn call(
        &mut self,
        time: UnixTime,
        now: Instant,
    ) -> anyhow::Result<(u64, Zeroizing<String>)> {
        let seed = seed()?;
        let id = self.say_content(&encode_call(&seed), time)?;
        self.show_clock(time, now);
        Ok((id, encode(TextKind::Call, &*seed)))
    }

    /// Refuses what other members would not get.
    fn check_usable(&self) -> Result<(), ExitError> {
        let problem = self.problem();
        problem.map_or(Ok(()), |p| Err(ExitError::new(Exit::Failed, p)))
    }

    fn say_content(&mut self, content: &[u8], time: UnixTime) -> anyhow::Result<u64> {
        self.check_usable()?;
        let id = self.group.say(content, time)?;
        let me = self.group.author_key().peer_id();
        let message = self.message(me, id, time.as_millis(), content);
        self.said.push(message);
        self.state_changed = true;
        Ok(id)
    }

    /// Offers a share of lcsync, unless members have the offer; returns its key and signing key.
    pub fn offer(
        &mut self,
        name: &str,
        time: UnixTime,
    ) -> anyhow::Result<(Zeroizing<String>, SecretKey)> {
        if !is_share_name(name) {
            let text = format!("{name:?} is no name of a share");
            return Err(ExitError::new(Exit::Usage, text).into());
        }
        let author = SecretKey::from_seed(&self.group.author_key().seed());
        let me = author.peer_id();
        let known = self.offers.of_name(name).find(|o| o.author == me);
        if let Some((known, signer)) = known.and_then(|o| Some((o, o.signer(&author)?))) {
            return Ok((known.key.clone(), signer));
        }
        let files = offers::offer(name, seed()?, &author);
        self.say_content(&files.encode(), time)?;
        let key = encode(TextKind::SharedKey, &*files.key);
        Ok((key, offers::signer(&author, &files.key)))
    }

    /// A member's offer of a share; `by` is the member's name or key.
    pub fn offered(&self, name: &str, by: Option<&str>) -> anyhow::Result<&Offer> {
        let shown = self.shown_names();
        let is_by = |offer: &&Offer| {
            let (who, name) = (&offer.author, self.own_name_of(&offer.author));
            let shown = shown.get(who).unwrap_or(&name);
            by.is_none_or(|by| is_called(by, (who, &name, shown)))
        };
        let found: Vec<&Offer> = self.offers.of_name(name).filter(is_by).collect();
        let group = &self.name;
        match found[..] {
            [one] => Ok(one),
            [] => {
                let text = format!("nobody in {group} shares {name:?}, as far as this host knows");
                Err(ExitError::new(Exit::Unreachable, text).into())
            }
            [one, ..] => {
                let names: Vec<_> = found.iter().map(|o| self.name_of(&o.author)).collect();
                let (names, one) = (names.join(", "), self.name_of(&one.author));
                let whose = quoted(&format!("{group}/{one}"));
                let text = format!("{names} share {name:?}: --lcgroup {whose} says whose");
                Err(ExitError::new(Exit::Usage, text).into())
            }
        }
    }

    /// Creates an invitation for `uses` members until `expires`, into the group's own network if it is
    /// `outside`.
    pub fn invite(
        &mut self,
        uses: u32,
        expires: u64,
        outside: bool,
        time: UnixTime,
    ) -> anyhow::Result<Invitation> {
        // it appends nothing: who joins by it ends the doubt about a copied folder
        if let Some(failure) = self.failure() {
            return Err(ExitError::new(Exit::Failed, failure).into());
        }
        self.state_changed = true;
        let mut invitation = self.group.invite(uses, expires, time)?;
        invitation.outside = outside;
        Ok(invitation)
    }

    /// The invitations of this host that others may use.
    pub fn invitations(&mut self, time: UnixTime) -> anyhow::Result<Vec<InvitationStatus>> {
        let open = self.group.invitations(time)?.into_iter();
        let status = open.map(|(id, expires, left)| InvitationStatus {
            id: invitation_id(id),
            expires,
            left,
        });
        Ok(status.collect())
    }

    /// Withdraws an invitation, by its line or the beginning of its id; returns its id.
    pub fn withdraw(&mut self, invitation: &str, time: UnixTime) -> anyhow::Result<String> {
        let usage = |text: String| ExitError::new(Exit::Usage, text);
        let name = &self.name;
        let found = match with_place(invitation)?.0.parse::<Invitation>() {
            Ok(line) if line.group != self.group.id() => {
                Err(format!("this line is of another group than {name}"))
            }
            Ok(line) => Ok(line.id),
            // an empty variable, or a line that is cut off, names none
            Err(e) if invitation.trim().is_empty() || invitation.starts_with("lcg1") => {
                Err(e.to_string())
            }
            Err(_) => {
                let open = self.group.invitations(time)?.into_iter();
                let begins = |id: &u64| invitation_id(*id).starts_with(invitation.trim());
                let mut fitting = open.map(|(id, ..)| id).filter(begins);
                match (fitting.next(), fitting.next()) {
                    (Some(id), None) => Ok(id),
                    (Some(_), _) => Err("several invitations begin so: more of the id".into()),
                    (None, _) => Err(format!(
                        "no open invitation of this host: `lcgroup invitations {name}` lists them"
                    )),
                }
            }
        };
        let id = found.map_err(usage)?;
        if !self.group.withdraw(id, time)? {
            let text = "this invitation is used up, expired, withdrawn before, or of another host";
            return Err(usage(text.into()).into());
        }
        self.state_changed = true;
        Ok(invitation_id(id))
    }

    /// The current epoch of its keys.
    pub fn epoch(&self) -> Option<u64> {
        self.group.epoch()
    }

    /// Requests new keys for this member.
    pub fn refresh(&mut self, time: UnixTime) -> anyhow::Result<()> {
        self.check_usable()?;
        self.state_changed = true;
        Ok(self.group.refresh(time)?)
    }

    /// Requests its removal from the owner.
    pub fn leave(&mut self) -> anyhow::Result<()> {
        self.check_usable()?;
        self.state_changed = true;
        Ok(self.group.leave()?)
    }

    /// Messages that wait for a user's decision.
    pub fn outbox(&self) -> Vec<(String, String)> {
        let shown = |content: &[u8]| match Content::decode(content) {
            Content::File(file) => format!("the file {}", file.name),
            Content::Files(files) => format!("shares {}", files.name),
            Content::Call(_) => "a call".to_owned(),
            Content::Changes(_) => "values of keys".to_owned(),
            Content::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        };
        let outbox = self.group.outbox();
        outbox
            .map(|(id, content)| (format!("{id:016x}"), shown(content)))
            .collect()
    }

    /// Sends such a message, or deletes it.
    pub fn decide(&mut self, id: &str, resend: bool, time: UnixTime) -> anyhow::Result<()> {
        let id = u64::from_str_radix(id, 16)
            .map_err(|_| ExitError::new(Exit::Usage, format!("{id:?} is no message's id")))?;
        if resend {
            self.check_usable()?;
        }
        self.state_changed = true;
        match resend {
            true => self.group.resend(id, time)?,
            false => self.group.discard(id)?,
        }
        Ok(())
    }

    /// The group, without its log.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// The key for a holder, with the way into the group's own network if it has one.
    pub fn holding_key(&self, network: Option<NetworkSecret>) -> Zeroizing<String> {
        let key = HoldingKey {
            group: self.group.id(),
            read_key: self.group.read_key().clone(),
            network,
        };
        key.encode()
    }

    /// The conversation for a reader, and its number of messages.
    pub fn conversation(&self) -> (Arc<Shared>, u64) {
        (self.conversation.shared(), self.conversation.messages())
    }

    /// The place of the first message that this person has not read.
    pub fn first_unread(&self) -> Option<u64> {
        self.conversation.count_unread().1
    }

    /// The group for `status`; `outcome` returns lcroute's answer for a prefix.
    pub fn status(
        &self,
        now: Instant,
        outcome: impl Fn(&GroupPrefix) -> Option<Result<(), String>>,
    ) -> GroupStatus {
        let state = match self.group.standing() {
            Standing::Member if self.group.group_key().is_some() => "owner",
            Standing::Member => "member",
            Standing::Joining => "joining",
            Standing::Rejoining { .. } => "rejoining",
            Standing::Removed if self.group.is_untold() => match self.group.epoch() {
                Some(_) => "member",
                None => "rejoining",
            },
            Standing::Removed => "removed",
            Standing::RolledBack => "rolled_back",
        };
        let messages = self.conversation.messages();
        let missing = self.log.log().authors();
        let missing = missing.map(|s| u64::from(s.advertised.saturating_sub(s.last)));
        GroupStatus {
            name: self.name.clone(),
            group: self.group.id(),
            topic: self.group.topic().to_owned(),
            author: self.group.author_key().peer_id(),
            state: state.to_owned(),
            epoch: self.group.epoch(),
            members: self.persons(),
            messages,
            unread: self.conversation.count_unread().0,
            read: self.first_unread().map_or(messages, |n| n - 1),
            keep_s: self.kept.shown(),
            history_s: Some(self.kept.history()).filter(|history| *history < u64::MAX),
            unsent: self.appends.len() + self.group.queued(),
            waits: self.waits(),
            problem: self.problem(),
            checks: self.is_sure_shortly(now),
            clock: self.own_clock(),
            outbox: self.group.outbox().count(),
            deputy: self.deputy_in_office(),
            missing: if self.group.is_untold() {
                0
            } else {
                missing.sum()
            },
            log: log_status(self.log.log()),
            network: None,
            prefixes: self.protected(now, outcome),
            // the daemon knows more of them
            files: FilesStatus::default(),
            notices: self.notices.iter().cloned().collect(),
        }
    }

    /// Rewrites the log's file, if most of it has expired.
    pub fn compact(&mut self) -> io::Result<()> {
        self.compact_shared()?;
        self.log.compact()
    }

    /// Deletes the group's files on this host.
    pub fn delete(self) -> anyhow::Result<()> {
        remove_group(&self.folder).map_err(|e| anyhow!("{}: {e}", self.folder.display()))
    }
}

/// Whether an output follows from entries alone, and comes again when they are read again.
fn is_reading(output: &Output) -> bool {
    matches!(
        output,
        Output::Event(Event::Message { .. } | Event::SaidAgain { .. } | Event::NotCounted { .. })
    )
}

/// The kind and body of an entry.
fn encoded(entry: &NewEntry) -> (u8, Cow<'_, [u8]>) {
    let grant = |(author, last): &(PeerId, u32)| Grant {
        author: *author,
        not_before: 0,
        expires: u64::MAX,
        last: *last,
    };
    match entry {
        NewEntry::Body { kind, body } => (*kind, body.into()),
        NewEntry::Grants(all) => {
            let all: Vec<_> = all.iter().map(grant).collect();
            (GRANT_KIND, Grant::encode(&all).into())
        }
    }
}

#[cfg(test)]
mod tests;
