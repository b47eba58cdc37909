//! A participant of a group: its operations, its messages, and its timers.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use crypto_box::aead::rand_core::RngCore as _;
use librecast::id::{PeerId, SecretKey};
use librecast::time::UnixTime;
use zeroize::Zeroizing;

use crate::author::Author;
use crate::body::{self, kind};
use crate::error::GroupError;
use crate::event::{Append, Event, Log, NewEntry, Output};
use crate::invitation::{Invitation, check_topic};
use crate::mls::{Change, Mls, Who, check_key_package};
use crate::network::Network;
use crate::offices::Offices;
use crate::owner::Owner;
use crate::owner_log::OwnerLog;
use crate::provider::Provider;
use crate::random::Random;
use crate::voice::{Joining, Refresh, Said, Voice};
use crate::vouch::{Devices, Other};
use crate::{
    HOUR, MAX_MESSAGE, MAX_MESSAGES, MAX_NAME, MAX_OUTBOX, MAX_UNSENT, SECOND, WEEK, request,
};

/// Pause after the first request to join in ms. It doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: u64 = 5 * SECOND;
/// Longest pause between requests in ms: holders keep requests, so a returning owner finds one.
const LONGEST_PAUSE: u64 = 10 * 60 * SECOND;
/// Time in ms for which a request stays unchanged: holders keep it a day, owners accept it for two.
const REQUEST_LIFE: u64 = 12 * HOUR;

/// Parameters of a new group.
#[derive(Debug)]
pub struct Founding {
    /// The group's key; its holder is the owner.
    pub key: SecretKey,
    /// Key of the log, for readers and holders.
    pub read_key: Zeroizing<[u8; 32]>,
    /// The topic, up to 64 bytes.
    pub topic: String,
    /// The owner's name, up to 64 bytes.
    pub name: String,
}

/// The relation of a participant to the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It asks to be admitted.
    Joining,
    /// It is a member.
    Member,
    /// It waits for a Welcome to a new leaf. If a commit ends epoch `until` or a later one before
    /// that Welcome, the participant was removed.
    Rejoining {
        /// The epoch of the Welcome, if the commit named it.
        until: Option<u64>,
    },
    /// It was removed.
    Removed,
    /// Its state is an old copy.
    RolledBack,
}

/// A member as the group knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its author key.
    pub author: PeerId,
    /// Its name, chosen by itself and not proven.
    pub name: String,
    /// Author key of its person's first device: its own, unless that device vouches for it.
    pub person: PeerId,
}

/// One participant's state of one group.
pub struct Group {
    pub(crate) id: PeerId,
    pub(crate) read_key: Zeroizing<[u8; 32]>,
    pub(crate) topic: String,
    pub(crate) author: SecretKey,
    pub(crate) name: String,
    pub(crate) random: Random,
    pub(crate) provider: Provider,
    pub(crate) standing: Standing,
    pub(crate) mls: Option<Mls>,
    /// All members but this one.
    pub(crate) authors: BTreeMap<PeerId, Author>,
    pub(crate) owner_log: OwnerLog,
    pub(crate) voice: Voice,
    pub(crate) refresh: Refresh,
    pub(crate) joining: Option<Joining>,
    /// While it is in office.
    pub(crate) owner: Option<Owner>,
    pub(crate) offices: Offices,
    pub(crate) devices: Devices,
    pub(crate) network: Network,
    /// The owner's log may be incomplete: new messages wait.
    pub(crate) is_behind: bool,
    /// This state may be an old copy: nothing new is made.
    pub(crate) is_held: bool,
    /// When the epoch began, by the owner's clock (ms since 1970); 0 if unknown.
    pub(crate) began: u64,
    /// Entries that are not known to be in the log.
    pub(crate) pending: VecDeque<Append>,
    pub(crate) outputs: VecDeque<Queued>,
}

/// A queued output. An entry is looked up in `pending`: the log may have it already.
#[derive(Debug)]
pub(crate) enum Queued {
    Append(Log, u32),
    Request(Vec<u8>),
    Event(Event),
}

impl Group {
    /// Creates a group with this participant as its owner. `now`: the wall clock.
    ///
    /// # Errors
    /// [`GroupError::Name`], [`GroupError::Topic`].
    pub fn create(founding: Founding, seed: &[u8; 32], now: UnixTime) -> Result<Self, GroupError> {
        let Founding {
            key,
            read_key,
            topic,
            name,
        } = founding;
        check_topic(&topic)?;
        let mut group = Self::new(key.peer_id(), read_key, topic, name, seed)?;
        let me = group.who();
        group.mls = Some(Mls::create(&group.provider, &me, now)?);
        group.standing = Standing::Member;
        group.owner = Some(Owner::new(key, now));
        group.append(Log::Owner, NewEntry::Grants(vec![(me.author, u32::MAX)]));
        Ok(group)
    }

    /// Creates a participant that requests admission. `now`: the wall clock.
    ///
    /// # Errors
    /// [`GroupError::Name`], [`GroupError::Expired`].
    pub fn join(
        invitation: Invitation,
        name: &str,
        seed: &[u8; 32],
        now: UnixTime,
    ) -> Result<Self, GroupError> {
        Self::begin_joining(invitation, name, None, seed, now)
    }

    pub(crate) fn begin_joining(
        invitation: Invitation,
        name: &str,
        device: Option<Other>,
        seed: &[u8; 32],
        now: UnixTime,
    ) -> Result<Self, GroupError> {
        if invitation.expires <= now.as_millis() {
            return Err(GroupError::Expired);
        }
        let read_key = invitation.read_key.clone();
        let topic = invitation.topic.clone();
        let mut group = Self::new(invitation.group, read_key, topic, name.to_owned(), seed)?;
        group.devices.own = device;
        let package = group.new_package(now)?;
        group.joining = Some(Joining {
            invitation,
            package,
            due: Some(now.as_millis()),
            attempts: 0,
            asked: 0,
            request: None,
        });
        group.advance(now);
        Ok(group)
    }

    fn new(
        id: PeerId,
        read_key: Zeroizing<[u8; 32]>,
        topic: String,
        name: String,
        seed: &[u8; 32],
    ) -> Result<Self, GroupError> {
        let good = librecast::plain::is_plain(&name) && (1..=MAX_NAME).contains(&name.len());
        if !good {
            return Err(GroupError::Name);
        }
        let mut random = Random::new(seed);
        let author = SecretKey::from_seed(&Zeroizing::new(random.array()));
        Ok(Self {
            id,
            read_key,
            topic,
            author,
            name,
            provider: Provider::new(random.clone()),
            random,
            standing: Standing::Joining,
            mls: None,
            authors: BTreeMap::new(),
            owner_log: OwnerLog::default(),
            voice: Voice::default(),
            refresh: Refresh::default(),
            joining: None,
            owner: None,
            offices: Offices::default(),
            devices: Devices::default(),
            network: Network::default(),
            is_behind: false,
            is_held: false,
            began: 0,
            pending: VecDeque::new(),
            outputs: VecDeque::new(),
        })
    }

    pub(crate) fn who(&self) -> Who {
        Who {
            author: self.author.peer_id(),
            name: self.name.clone(),
        }
    }

    /// The group: its owner's key.
    pub fn id(&self) -> PeerId {
        self.id
    }

    /// Key of the log.
    pub fn read_key(&self) -> &Zeroizing<[u8; 32]> {
        &self.read_key
    }

    /// The topic of the group.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Key of this participant's own log.
    pub fn author_key(&self) -> &SecretKey {
        &self.author
    }

    /// Number of the first entry that the owner's log keeps, for the owner. The shell drops earlier
    /// ones once that log has all entries that wait for it: they state grants and terms again.
    pub fn keeps_from(&self) -> Option<u32> {
        self.owner.as_ref().map(|owner| owner.commits.first)
    }

    /// When the owner made the commit that waits for entries of authors (ms since 1970).
    #[must_use]
    pub fn commit_waits(&self) -> Option<u64> {
        let commit = self.owner_log.commit.as_ref()?;
        let read = |author: &PeerId| self.authors.get(author).map(|known| known.read);
        let mut heads = commit.heads.iter();
        let waits = heads.any(|(author, head)| read(author).is_some_and(|read| read < *head));
        waits.then_some(commit.time)
    }

    /// Key of the owner's log, if this participant is the owner.
    pub fn group_key(&self) -> Option<&SecretKey> {
        let spare = self.offices.spare.as_ref().map(|spare| &spare.key);
        let key = self.owner.as_ref().map(|owner| &owner.key).or(spare);
        key.filter(|key| key.peer_id() == self.id)
    }

    /// The relation of this participant to the group.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// The current epoch of a member.
    pub fn epoch(&self) -> Option<u64> {
        self.mls.as_ref().map(Mls::epoch)
    }

    /// All members, this one included.
    pub fn members(&self) -> Vec<Member> {
        let members = self.mls.as_ref().map(Mls::members).unwrap_or_default();
        let member = |Who { author, name }| Member {
            author,
            name,
            person: self.person_of(&author),
        };
        members.into_iter().map(member).collect()
    }

    /// A secret of the current epoch, the same for all members (RFC 9420 §8.5).
    pub fn export(&self, label: &str, context: &[u8]) -> Result<Zeroizing<[u8; 32]>, GroupError> {
        let mls = self.mls.as_ref().ok_or(GroupError::NotAMember)?;
        Ok(mls.export(label, context)?)
    }

    /// Sends `content` to all members; returns the message's id.
    ///
    /// # Errors
    /// [`GroupError::TooLong`], [`GroupError::OutboxFull`], [`GroupError::TooMuchWaits`],
    /// [`GroupError::NotAMember`], [`GroupError::RolledBack`].
    pub fn say(&mut self, content: &[u8], now: UnixTime) -> Result<u64, GroupError> {
        self.check_speaks()?;
        if content.len() > MAX_MESSAGE {
            return Err(GroupError::TooLong);
        }
        if self.voice.bytes() + content.len() > MAX_OUTBOX {
            return Err(GroupError::OutboxFull);
        }
        let id = self.random.next_u64();
        self.voice.queue.push_back(Said {
            id,
            content: content.to_vec().into(),
            last: 0,
        });
        self.advance(now);
        Ok(id)
    }

    /// Marks the owner's log as possibly incomplete, as after a time away. New messages wait for
    /// [`catch_up`](Self::catch_up): no message is sealed with keys of an ended epoch.
    pub fn fall_behind(&mut self) {
        // a deputy may have taken over
        self.is_behind = self.owner.is_none() || self.offices.is_used();
        self.forget_received();
    }

    /// Ends [`fall_behind`](Self::fall_behind): the owner's log is complete as far as known.
    pub fn catch_up(&mut self, now: UnixTime) {
        self.is_behind = false;
        self.advance(now);
    }

    /// Whether new messages wait for the end of the owner's log.
    pub fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// Sets whether this state may be an old copy. While it may, no commit, no request for a leaf and
    /// no message is made: their numbers and keys may have been used.
    pub fn hold(&mut self, is_held: bool, now: UnixTime) {
        self.is_held = is_held;
        self.advance(now);
    }

    /// The number of messages that wait to be sealed.
    pub fn queued(&self) -> usize {
        self.voice.queue.len()
    }

    /// When the repeated request to join was made, by this host's clock (ms since 1970).
    #[must_use]
    pub fn request_made(&self) -> Option<u64> {
        let request = self.joining.as_ref()?.request.as_ref();
        request.map(|(made, _)| *made)
    }

    /// Makes a joiner repeat its request within `wait` ms of the last one, for a returning owner.
    pub fn ask_within(&mut self, wait: u64, now: UnixTime) {
        let ms = now.as_millis();
        if let Some(joining) = &mut self.joining
            && joining.invitation.expires > ms
        {
            // ignores a time in the future: the clock was set back
            let asked = Some(joining.asked).filter(|asked| *asked <= ms);
            let due = asked.map_or(ms, |asked| ms.max(asked + wait));
            joining.due = Some(joining.due.map_or(due, |planned| planned.min(due)));
        }
        self.advance(now);
    }

    /// Makes a joiner use another invitation of the same group.
    pub fn ask_by(&mut self, invitation: Invitation, now: UnixTime) -> Result<(), GroupError> {
        if invitation.expires <= now.as_millis() {
            return Err(GroupError::Expired);
        }
        if let Some(joining) = &mut self.joining
            && joining.invitation != invitation
        {
            joining.invitation = invitation;
            (joining.request, joining.attempts) = (None, 0);
        }
        self.ask_within(0, now);
        Ok(())
    }

    /// Limits all timers after the clock was set, or may have been.
    pub fn mend_times(&mut self, now: UnixTime) {
        let ms = now.as_millis();
        self.refresh.due = self.refresh.due.min(ms + 2 * WEEK);
        self.offices.raised = self.offices.raised.min(ms);
        if let Some(owner) = &mut self.owner {
            owner.committed = owner.committed.min(ms);
            owner.wanted = owner.wanted.map(|wanted| wanted.min(ms + HOUR));
        }
        for author in self.authors.values_mut() {
            author.urgent = author.urgent.min(ms);
            author.forced = author.forced.min(ms + 8 * HOUR);
        }
        self.ask_within(SECOND, now);
    }

    /// Messages of this member that no commit has confirmed: id and content.
    pub fn unconfirmed(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let all = self.voice.unconfirmed.iter().chain(&self.voice.queue);
        all.map(|said| (said.id, &said.content[..]))
    }

    pub(crate) fn check_speaks(&self) -> Result<(), GroupError> {
        match self.standing {
            Standing::Member | Standing::Rejoining { .. } if self.pending.len() > MAX_UNSENT => {
                Err(GroupError::TooMuchWaits)
            }
            Standing::Member | Standing::Rejoining { .. } => Ok(()),
            Standing::Joining | Standing::Removed => Err(GroupError::NotAMember),
            Standing::RolledBack => Err(GroupError::RolledBack),
        }
    }

    /// Messages that wait for the user because a member was added: id and content.
    pub fn outbox(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let outbox = self.voice.outbox.iter();
        outbox.map(|said| (said.id, &said.content[..]))
    }

    /// Sends a message of the outbox to all current members.
    ///
    /// # Errors
    /// [`GroupError::UnknownMessage`], and the errors of [`Self::say`].
    pub fn resend(&mut self, id: u64, now: UnixTime) -> Result<(), GroupError> {
        self.check_speaks()?;
        let said = self.take_from_outbox(id)?;
        self.voice.queue.push_back(said);
        self.advance(now);
        Ok(())
    }

    /// Drops a message of the outbox.
    pub fn discard(&mut self, id: u64) -> Result<(), GroupError> {
        self.take_from_outbox(id).map(drop)
    }

    fn take_from_outbox(&mut self, id: u64) -> Result<Said, GroupError> {
        let at = self.voice.outbox.iter().position(|said| said.id == id);
        let at = at.ok_or(GroupError::UnknownMessage)?;
        Ok(self.voice.outbox.remove(at))
    }

    /// Replaces this member's keys: earlier copies of its disk open no later message. After
    /// [`CannotFollow`](Event::CannotFollow) it requests a new leaf once more.
    ///
    /// # Errors
    /// [`GroupError::NotAMember`], [`GroupError::RolledBack`].
    pub fn refresh(&mut self, now: UnixTime) -> Result<(), GroupError> {
        self.check_speaks()?;
        if self.owner.is_some() {
            self.commit_within(0, now);
        } else {
            self.ask_for_leaf(true, now);
        }
        self.advance(now);
        Ok(())
    }

    /// Leaves the group: the owner removes this member.
    ///
    /// # Errors
    /// [`GroupError::Owner`], [`GroupError::NotAMember`], [`GroupError::RolledBack`].
    pub fn leave(&mut self) -> Result<(), GroupError> {
        self.check_speaks()?;
        // an owner out of office stays the owner
        if self.owner.is_some() || self.is_owner() {
            return Err(GroupError::Owner);
        }
        let body = Vec::new();
        let kind = kind::LEAVE;
        self.append(Log::Own, NewEntry::Body { kind, body });
        Ok(())
    }

    /// Asks the owner for a new leaf, unless a request is open: no key package is used twice.
    pub(crate) fn ask_for_leaf(&mut self, urgent: bool, now: UnixTime) {
        if self.is_held {
            return;
        }
        self.refresh.due = now.as_millis() + self.random.jittered(WEEK);
        if self.refresh.package.is_some() {
            return;
        }
        let Ok(package) = self.new_package(now) else {
            // this does not depend on input: a retry would fail too, and the old leaf stays
            return;
        };
        let content = body::encode_refresh(urgent, &package.public);
        self.refresh.package = Some(package);
        if let Some(body) = request::seal_to(&self.office_key(), &content, &mut self.random) {
            let kind = kind::REFRESH;
            self.append(Log::Own, NewEntry::Body { kind, body });
        }
    }

    /// Acknowledges that the log has the entries of `log` up to `number`.
    pub fn handle_appended(&mut self, log: Log, number: u32) {
        self.pending
            .retain(|append| append.log != log || append.number > number);
    }

    /// Entries that are not known to be in the log.
    pub fn pending(&self) -> impl Iterator<Item = &Append> {
        self.pending.iter()
    }

    pub(crate) fn append(&mut self, log: Log, entry: NewEntry) {
        debug_assert!(
            log == Log::Own || self.owner.is_some() || self.offices.spare.is_some(),
            "an entry of a log that this participant does not write"
        );
        debug_assert!(
            !matches!(self.standing, Standing::Removed | Standing::RolledBack),
            "this participant is silent for good"
        );
        let last = match (log, &mut self.owner) {
            (Log::Owner, Some(owner)) => &mut owner.last,
            (Log::Owner, None) if let Some(spare) = &mut self.offices.spare => &mut spare.last,
            _ => &mut self.voice.last,
        };
        *last += 1;
        let number = *last;
        let mut of_log = self.pending.iter().rev().filter(|before| before.log == log);
        debug_assert!(
            of_log.next().is_none_or(|before| before.number < number),
            "no number is used twice"
        );
        self.pending.push_back(Append { log, number, entry });
        self.outputs.push_back(Queued::Append(log, number));
    }

    pub(crate) fn tell(&mut self, event: Event) {
        self.outputs.push_back(Queued::Event(event));
    }

    /// Returns the next output.
    pub fn poll_output(&mut self) -> Option<Output> {
        loop {
            match self.outputs.pop_front()? {
                Queued::Append(log, number) => {
                    let append = self.pending.iter();
                    let mut append = append.filter(|a| (a.log, a.number) == (log, number));
                    if let Some(append) = append.next() {
                        return Some(Output::Append(append.clone()));
                    }
                }
                Queued::Request(bytes) => return Some(Output::Request(bytes)),
                Queued::Event(event) => return Some(Output::Event(event)),
            }
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn next_timeout(&self) -> Option<UnixTime> {
        let due = match self.standing {
            _ if self.is_held => None,
            Standing::Joining => self.joining.as_ref()?.due,
            Standing::Member => {
                let own = match self.owner {
                    Some(_) => self.commit_due().filter(|_| !self.is_behind),
                    None => Some(self.refresh.due),
                };
                own.into_iter().chain(self.marks_due()).min()
            }
            Standing::Rejoining { .. } | Standing::Removed | Standing::RolledBack => None,
        };
        due.map(UnixTime::from_millis)
    }

    /// Runs the timers that are due at `now`.
    pub fn handle_timeout(&mut self, now: UnixTime) {
        self.advance(now);
    }

    /// Runs all steps that an input may have made possible.
    pub(crate) fn advance(&mut self, now: UnixTime) {
        self.follow(now);
        self.try_apply(now);
        self.follow(now);
        if self.is_held {
            return;
        }
        self.ask_again(now);
        let member = self.standing == Standing::Member;
        if self.standing == Standing::Joining {
            self.request(now);
        } else if member && self.owner.is_some() {
            let due = self.commit_due().filter(|_| !self.is_behind);
            if due.is_some_and(|due| due <= now.as_millis()) {
                self.commit(now);
            }
        } else if member && self.refresh.due <= now.as_millis() {
            self.ask_for_leaf(false, now);
        } else if matches!(self.standing, Standing::Rejoining { .. })
            && !self.refresh.cannot_follow()
            // an entry sealed to the one in office is void once another one follows
            && self.offices.plan.is_empty()
        {
            self.ask_for_leaf(true, now);
        }
        self.share_marks(now);
        self.seal_queue();
        self.check();
    }

    /// Asserts that this state can be read again after a restart.
    fn check(&self) {
        debug_assert!(
            match self.standing {
                Standing::Joining => self.joining.is_some() && self.mls.is_none(),
                Standing::Member => self.mls.is_some() && self.joining.is_none(),
                Standing::Rejoining { .. } => self.mls.is_none(),
                Standing::Removed => self.mls.is_none() && self.authors.is_empty(),
                Standing::RolledBack => true,
            },
            "{:?} does not fit the keys",
            self.standing
        );
        debug_assert!(
            self.owner.is_none() || self.offices.spare.is_none(),
            "the key of an office is in use, or put aside"
        );
        debug_assert!(
            !self.authors.contains_key(&self.author.peer_id()),
            "this member reads the logs of all others"
        );
        debug_assert!(
            self.voice.sealed <= MAX_MESSAGES,
            "the keys of an epoch are used up"
        );
        debug_assert!(
            self.voice
                .queue
                .iter()
                .all(|said| said.last <= self.voice.last),
            "a word that is sealed again was in the log"
        );
    }

    /// Sends the request to join, if it is due.
    fn request(&mut self, now: UnixTime) {
        let Some(mut joining) = self.joining.take() else {
            return;
        };
        self.request_by(&mut joining, now);
        self.joining = Some(joining);
    }

    fn request_by(&mut self, joining: &mut Joining, now: UnixTime) {
        let ms = now.as_millis();
        if joining.due.is_none_or(|due| due > ms) {
            return;
        }
        if joining.invitation.expires <= ms {
            joining.due = None;
            self.tell(Event::InvitationExpired);
            return;
        }
        let fresh = |made: u64| made <= ms && ms - made < REQUEST_LIFE;
        let request = joining.request.as_ref();
        if !request.is_some_and(|(made, _)| fresh(*made)) {
            // replaces a key package that a wrong clock made
            if check_key_package(&self.provider, &joining.package.public, now).is_err()
                && let Ok(package) = self.new_package(now)
            {
                joining.package = package;
            }
            let package = &joining.package.public;
            let sealed = request::seal(
                &joining.invitation,
                &self.author,
                package,
                ms,
                &mut self.random,
            );
            joining.request = sealed.map(|sealed| (ms, sealed));
        }
        let doubled = FIRST_PAUSE << joining.attempts.min(16);
        joining.attempts = joining.attempts.saturating_add(1);
        joining.asked = ms;
        joining.due = Some(ms + self.random.jittered(doubled.min(LONGEST_PAUSE)));
        if let Some((_, request)) = &joining.request {
            self.outputs.push_back(Queued::Request(request.clone()));
        }
    }

    /// Seals waiting messages, unless a commit may void them.
    fn seal_queue(&mut self) {
        let is_current = self.owner_log.commit.is_none() && !self.is_behind;
        let speaks = self.standing == Standing::Member && is_current;
        let label = self.label();
        let Some(mls) = self.mls.as_mut().filter(|_| speaks) else {
            return;
        };
        let mut bodies = Vec::new();
        while self.voice.sealed < MAX_MESSAGES
            && let Some(mut said) = self.voice.queue.pop_front()
        {
            let plain = body::encode_message(said.id, &said.content);
            let Ok(sealed) = mls.seal(&plain) else {
                // this does not depend on input: a retry would fail too
                self.voice.outbox.push(said);
                continue;
            };
            let parts = body::cut(label.unwrap_or_default(), &sealed);
            said.last = self.voice.last + bodies.len() as u32 + parts.len() as u32;
            bodies.extend(parts);
            self.voice.sealed += 1;
            // the owner's messages always count, as it makes the heads: unless another one takes over
            if self.owner.is_none() || self.offices.is_used() {
                self.voice.unconfirmed.push_back(said);
            }
        }
        for body in bodies {
            let kind = kind::MESSAGE;
            self.append(Log::Own, NewEntry::Body { kind, body });
        }
        debug_assert!(
            self.voice
                .unconfirmed
                .iter()
                .all(|said| said.last <= self.voice.last),
            "sealed messages are in the log"
        );
        debug_assert!(
            self.voice
                .unconfirmed
                .iter()
                .is_sorted_by_key(|said| said.last),
            "messages are sealed in order"
        );
    }

    /// An epoch ended: confirms own messages up to `head` and sends the rest again.
    pub(crate) fn confirm(&mut self, head: u32, change: &Change) {
        let me = self.author.peer_id();
        // a member with a new leaf is not new, nor is another device of a member
        let joined = change.added.iter().any(|who| {
            let is_new = who.author != me && !change.removed.contains(&who.author);
            is_new && self.is_new_person(&who.author, change)
        });
        let voice = &mut self.voice;
        voice.sealed = 0;
        let void = std::mem::take(&mut voice.unconfirmed);
        let (mut again, counted): (VecDeque<Said>, VecDeque<Said>) =
            void.into_iter().partition(|said| said.last > head);
        if self.offices.is_used() {
            let epoch = self.mls.as_ref().map_or(0, Mls::epoch);
            let sealed = epoch.saturating_sub(u64::from(!change.removed_self));
            for said in counted {
                self.offices.keep(sealed, said);
            }
        }
        again.append(&mut voice.queue);
        if joined {
            let ids: Vec<u64> = again.iter().map(|said| said.id).collect();
            voice.outbox.extend(again);
            for id in ids {
                self.tell(Event::OutboxWaits { id });
            }
        } else {
            voice.queue = again;
        }
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("id", &self.id)
            .field("author", &self.author.peer_id())
            .field("standing", &self.standing)
            .field("epoch", &self.epoch())
            .finish_non_exhaustive()
    }
}
