//! Deputies: members that commit once the owner is silent.
//!
//! ```text
//! owner's log      | offices: A, B | commit, ends epoch 4 | (silence)
//! office of A      | term 30, from entry 2 of the owner | commit, ends epoch 5 | ...
//! ```
//!
//! The owner lists deputies in its log. Each has a log of its own for commits, its *office*, under
//! its author key. A take-over is a *term* there: it names the entry of another log from which it
//! goes on, and is followed by a commit. Terms are numbers that no two logs share, so the highest
//! one that a member accepts is the same for all. A member accepts a deputy's term only if it has
//! not received the one in office for half of the deputy's time itself.
//!
//! Two that were apart may both commit. Once they meet, of two in office the one that stands first
//! in the list (the owner before all) ends in the higher term, and the other one stands down. A
//! member that applied commits of the other branch asks for a new leaf, and its words from there go
//! to its outbox. Messages name the term and the epoch that seal them, so those of another branch
//! are told from later ones.
//!
//! Silence is counted in uptime of the deputy's own host: no clock, its own or another, dates it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use librecast::id::{PeerId, SecretKey};
use librecast::time::UnixTime;
use librecast::wire::{Reader, WireError, Writer};

use crate::body::{Assembled, Assembly, Part, Terms, decode_heads, kind};
use crate::drops::DropReason;
use crate::error::GroupError;
use crate::event::{Entry, Event, Log, NewEntry, Taken};
use crate::group::{Group, Standing};
use crate::owner::Owner;
use crate::owner_log::OwnerLog;
use crate::voice::Said;
use crate::{MINUTE, SECOND};

/// Deputies that a group has had, former ones included: they and the owner share four bits.
pub const MAX_DEPUTIES: usize = 15;
/// Shortest time of silence in seconds. Chosen: some signs of life of the owner may be lost.
pub const LEAST_SILENCE: u32 = 10;
/// Longest time of silence in seconds. Chosen.
pub const LONGEST_SILENCE: u32 = 365 * 86_400;

/// Version of bodies, their first byte.
const VERSION: u8 = 1;
/// Terms that are known at once. Chosen: hosts take over some times a year.
const MAX_TERMS: usize = 256;
/// Signs of life of the one in office in the shortest time of silence. Chosen: seven may be lost.
const SIGNS: u64 = 8;
/// Shortest and longest pause between them in ms. Chosen.
const SIGN_PAUSE: [u64; 2] = [SECOND, 10 * MINUTE];
/// Shortest pause in ms between two terms that this participant raises against others. Chosen.
const RAISED_AGAIN: u64 = MINUTE;
/// Bytes and number of own words that are kept after commits confirmed them, for the case that
/// their branch is lost. Chosen: the state is written with each message.
const KEPT: (usize, usize) = (256 * 1_024, 1_000);

/// A deputy, as the owner lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deputy {
    /// Its author key.
    pub author: PeerId,
    /// It takes over after so many seconds of silence.
    pub after: u32,
    /// The last number of its office that counts; `u32::MAX` while it is a deputy.
    pub last: u32,
}

impl Deputy {
    /// Whether it is one, or was one.
    #[must_use]
    pub fn is_named(&self) -> bool {
        self.last == u32::MAX
    }
}

/// A log with commits: `None` is the owner's, or the office of this author.
pub(crate) type Office = Option<PeerId>;

/// A term: from its entry on, this log has the commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Term {
    pub term: u32,
    pub office: Office,
    /// Number of its entry; 0 for the beginning of the owner's log.
    pub number: u32,
    /// The log that it goes on from, and the last number that counts there.
    pub from: (Office, u32),
    /// The epoch in which it begins.
    pub epoch: u64,
}

impl Term {
    const FIRST: Self = Self {
        term: 0,
        office: None,
        number: 0,
        from: (None, 0),
        epoch: 0,
    };
}

/// The key of a log with commits that this participant writes when it is in office.
pub(crate) struct Aside {
    pub key: SecretKey,
    pub last: u32,
    pub first: u32,
    /// Terms of the group that the owner's log states.
    pub terms: Option<Terms>,
}

/// A participant's view of who commits.
pub(crate) struct Offices {
    pub list: Vec<Deputy>,
    pub terms: Vec<Term>,
    /// The term that is followed.
    pub current: Term,
    /// The term whose log is read; `plan` leads to the current one.
    pub segment: Term,
    pub plan: VecDeque<Term>,
    /// The last number read in logs that are not followed.
    pub scanned: BTreeMap<Office, u32>,
    /// The term of the commit that began the epoch.
    pub tag: u32,
    /// The last entry of the last commit or Welcome that was applied, in the log that is read.
    pub applied: u32,
    /// The epoch in which this participant became a member.
    pub admitted: u64,
    /// Uptime in ms since the one in office was last received: over all runs, and in this run.
    pub silence: u64,
    pub heard: Option<u64>,
    /// Uptime in ms in this run, since the last absence.
    pub in_run: u64,
    /// When the owner and deputies were last received, by that count.
    pub present: BTreeMap<PeerId, u64>,
    /// Uptime in ms since the last new term.
    pub since_new: u64,
    /// Members that asked to leave.
    pub leaving: BTreeSet<PeerId>,
    /// A term came that may change the plan.
    pub is_new: bool,
    pub aside: Option<Aside>,
    /// The epoch in which the branch that was lost began: a head of it is still to be read.
    pub lost: Option<u64>,
    /// When this participant last raised a term against another one (ms since 1970).
    pub raised: u64,
    /// Own words that commits confirmed, with the epoch that sealed them.
    pub kept: VecDeque<(u64, Said)>,
    /// Own words of a lost branch, with the epoch that sealed them: for the outbox, but for those
    /// that the head counts.
    pub displaced: Vec<(u64, Said)>,
}

impl Default for Offices {
    fn default() -> Self {
        Self {
            list: Vec::new(),
            terms: Vec::new(),
            current: Term::FIRST,
            segment: Term::FIRST,
            plan: VecDeque::new(),
            scanned: BTreeMap::new(),
            tag: 0,
            applied: 0,
            admitted: 0,
            silence: 0,
            heard: None,
            in_run: 0,
            present: BTreeMap::new(),
            since_new: 0,
            leaving: BTreeSet::new(),
            is_new: false,
            aside: None,
            lost: None,
            raised: 0,
            kept: VecDeque::new(),
            displaced: Vec::new(),
        }
    }
}

/// How a term is reached from the present place.
enum Path {
    /// By these terms, from the log that is read.
    On(VecDeque<Term>),
    /// Not: commits were applied that do not count there.
    Off(Fork),
    /// Entries on the way are still to be read.
    Unknown,
}

/// Where the branch of this participant and another one part.
struct Fork {
    /// The epoch of both there; 0 if that is not known.
    epoch: u64,
    /// The term in which they part, and the number behind which it is read; none: in that of `plan`.
    from: Option<(Term, u32)>,
    /// The terms that follow.
    plan: VecDeque<Term>,
}

impl Offices {
    /// Whether the group has, or had, deputies: otherwise nothing of this is stored.
    pub fn is_used(&self) -> bool {
        !self.list.is_empty()
    }

    /// The place of a log in the list: 0 for the owner's; none of an unknown one.
    pub fn place(&self, office: Office) -> Option<u32> {
        let Some(author) = office else {
            return Some(0);
        };
        let at = self.list.iter().position(|deputy| deputy.author == author);
        at.map(|at| at as u32 + 1)
    }

    fn at_place(&self, place: u32) -> Option<Office> {
        match place.checked_sub(1) {
            None => Some(None),
            Some(at) => self.list.get(at as usize).map(|deputy| Some(deputy.author)),
        }
    }

    pub fn deputy(&self, author: &PeerId) -> Option<&Deputy> {
        self.list.iter().find(|deputy| deputy.author == *author)
    }

    /// Whether the list lets this term count.
    fn counts(&self, term: &Term) -> bool {
        let Some(author) = term.office else {
            return true;
        };
        let last = self.deputy(&author).map_or(0, |deputy| deputy.last);
        term.number <= last
    }

    /// The lowest term of a place above all known ones.
    fn next_term(&self, place: u32) -> u32 {
        let known = self.terms.iter().filter(|term| self.counts(term));
        let highest = known.map(|term| term.term).max().unwrap_or(0);
        let low = 15 - place;
        let next = (highest & !15) | low;
        match next > highest {
            true => next,
            // the last round is the owner's
            false => next.saturating_add(16) & !15 | low,
        }
    }

    /// The term in force at `number` of a log.
    fn in_force(&self, office: Office, number: u32) -> Option<Term> {
        let terms = self.terms.iter().filter(|term| self.counts(term));
        let before = terms.filter(|term| term.office == office && term.number <= number);
        let last = before.max_by_key(|term| term.number).copied();
        last.or_else(|| office.is_none().then_some(Term::FIRST))
    }

    /// The last number of the log that is read, if another one goes on from there.
    pub fn end(&self) -> Option<u32> {
        self.plan.front().map(|next| next.from.1)
    }

    /// The terms through which the present place was reached, the latest first.
    fn lineage(&self) -> Vec<Term> {
        let mut all = vec![self.segment];
        while let Some(last) = all.last().filter(|last| last.number > 0)
            && all.len() <= self.terms.len() + 1
            && let Some(before) = self.in_force(last.from.0, last.from.1)
        {
            all.push(before);
        }
        all
    }

    /// Keeps a confirmed word, within [`KEPT`].
    pub fn keep(&mut self, epoch: u64, said: Said) {
        self.kept.push_back((epoch, said));
        let bytes = |kept: &VecDeque<(u64, Said)>| {
            kept.iter()
                .map(|(_, said)| said.content.len())
                .sum::<usize>()
        };
        while self.kept.len() > KEPT.1 || bytes(&self.kept) > KEPT.0 {
            self.kept.pop_front();
        }
    }
}

/// The body of the list.
fn encode_list(list: &[Deputy]) -> Vec<u8> {
    let mut w = Writer::new();
    w.u8(VERSION);
    for deputy in list {
        w.put(deputy.author.public_key())
            .u32(deputy.last)
            .u32(deputy.after);
    }
    w.into_vec()
}

/// The deputies in the body of a list.
pub(crate) fn decode_list(body: &[u8]) -> Result<Vec<Deputy>, WireError> {
    let mut r = Reader::new(body);
    match r.u8()? {
        VERSION => {}
        other => return Err(WireError::Version(other)),
    }
    let mut list = Vec::new();
    while !r.is_empty() && list.len() < MAX_DEPUTIES {
        let author = PeerId::from_public_key(r.array()?).map_err(|_| WireError::Bad("key"))?;
        let (last, after) = (r.u32()?, r.u32()?);
        list.push(Deputy {
            author,
            after,
            last,
        });
    }
    Ok(list)
}

/// A term in a body: term, place and number that it goes on from, epoch.
pub(crate) fn decode_term(body: &[u8]) -> Result<(u32, u32, u32, u64), WireError> {
    let mut r = Reader::new(body);
    match r.u8()? {
        VERSION => Ok((r.u32()?, r.u8()?.into(), r.u32()?, r.u64()?)),
        other => Err(WireError::Version(other)),
    }
}

fn encode_term(term: u32, place: u32, number: u32, epoch: u64) -> Vec<u8> {
    let mut w = Writer::new();
    w.u8(VERSION)
        .u32(term)
        .u8(place as u8)
        .u32(number)
        .u64(epoch);
    w.into_vec()
}

impl Group {
    /// The deputies, in the owner's order; former ones included.
    #[must_use]
    pub fn deputies(&self) -> &[Deputy] {
        &self.offices.list
    }

    /// Whether this participant makes the commits now.
    #[must_use]
    pub fn is_in_office(&self) -> bool {
        self.owner.is_some()
    }

    /// Whether this participant has the group key.
    #[must_use]
    pub fn is_owner(&self) -> bool {
        self.group_key().is_some()
    }

    /// The author key of the member that makes the commits now, for a member.
    #[must_use]
    pub fn in_office(&self) -> Option<PeerId> {
        if self.owner.is_some() {
            return Some(self.author.peer_id());
        }
        self.author_of_office(self.offices.current.office)
    }

    /// The author of a log with commits. The owner always has the first leaf.
    pub(crate) fn author_of_office(&self, office: Office) -> Option<PeerId> {
        let first = || Some(self.mls.as_ref()?.first()?.author);
        office.or_else(first)
    }

    /// The key to which requests are sealed.
    pub(crate) fn office_key(&self) -> PeerId {
        self.offices.current.office.unwrap_or(self.id)
    }

    /// The log that this participant may write.
    pub(crate) fn own_office(&self) -> Office {
        match self.is_owner() {
            true => None,
            false => Some(self.author.peer_id()),
        }
    }

    /// Whether the current epoch and its term come before, are, or come after this label.
    pub(crate) fn label(&self) -> Option<u64> {
        let epoch = self.epoch()?;
        Some(u64::from(self.offices.tag) << 32 | epoch)
    }

    // the owner's list

    /// Makes a member a deputy that takes over after so many seconds of silence, or changes its time.
    ///
    /// # Errors
    ///
    /// [`GroupError::NotTheOwner`], [`GroupError::UnknownMember`], [`GroupError::Silence`],
    /// [`GroupError::TooManyDeputies`].
    pub fn add_deputy(
        &mut self,
        author: &PeerId,
        after: u32,
        now: UnixTime,
    ) -> Result<(), GroupError> {
        self.check_owns()?;
        if !self.authors.contains_key(author) {
            return Err(GroupError::UnknownMember);
        }
        if !(LEAST_SILENCE..=LONGEST_SILENCE).contains(&after) {
            return Err(GroupError::Silence);
        }
        let list = &mut self.offices.list;
        let new = Deputy {
            author: *author,
            after,
            last: u32::MAX,
        };
        match list.iter().position(|deputy| deputy.author == *author) {
            Some(at) => list[at] = new,
            None if list.len() < MAX_DEPUTIES => list.push(new),
            None => return Err(GroupError::TooManyDeputies),
        }
        self.append_list();
        // from now on all words are kept until a commit confirms them
        self.commit_within(0, now);
        self.advance(now);
        Ok(())
    }

    /// Ends a deputy's right. If it is in office, the owner takes over.
    ///
    /// # Errors
    ///
    /// [`GroupError::NotTheOwner`], [`GroupError::UnknownMember`].
    pub fn remove_deputy(&mut self, author: &PeerId, now: UnixTime) -> Result<(), GroupError> {
        self.check_owns()?;
        let read = self.office_read(Some(*author));
        let was_in_office = self.in_office() == Some(*author) && self.owner.is_none();
        let mut list = self.offices.list.iter_mut();
        let known = list.find(|deputy| deputy.author == *author && deputy.is_named());
        known.ok_or(GroupError::UnknownMember)?.last = read;
        self.append_list();
        if was_in_office {
            self.take_office(now);
        }
        self.advance(now);
        Ok(())
    }

    fn check_owns(&self) -> Result<(), GroupError> {
        match self.standing {
            Standing::RolledBack => Err(GroupError::RolledBack),
            _ if !self.is_owner() => Err(GroupError::NotTheOwner),
            Standing::Member => Ok(()),
            _ => Err(GroupError::NotAMember),
        }
    }

    /// States the list in the owner's log.
    pub(crate) fn append_list(&mut self) {
        if self.offices.is_used() && self.is_owner() {
            let (kind, body) = (kind::OFFICES, encode_list(&self.offices.list));
            self.append(Log::Owner, NewEntry::Body { kind, body });
        }
    }

    /// The last number that was read in a log with commits.
    fn office_read(&self, office: Office) -> u32 {
        if office == self.offices.segment.office {
            return self.owner_log.read;
        }
        self.offices.scanned.get(&office).copied().unwrap_or(0)
    }

    // silence

    /// Notes that a member is present, by its signature.
    pub fn hear(&mut self, author: &PeerId) {
        if !self.offices.is_used() {
            return;
        }
        if self.in_office() == Some(*author) {
            (self.offices.silence, self.offices.heard) = (0, Some(0));
        }
        if self.offices.deputy(author).is_some() || self.author_of_office(None) == Some(*author) {
            let in_run = self.offices.in_run;
            self.offices.present.insert(*author, in_run);
        }
    }

    /// Counts uptime of this host, in ms. `waits` is true while present members may know more.
    pub fn pass_uptime(&mut self, elapsed: u64, now: UnixTime) {
        if !self.offices.is_used() {
            return;
        }
        let offices = &mut self.offices;
        offices.silence = offices.silence.saturating_add(elapsed);
        offices.in_run = offices.in_run.saturating_add(elapsed);
        offices.since_new = offices.since_new.saturating_add(elapsed);
        offices.heard = offices.heard.map(|heard| heard.saturating_add(elapsed));
        if self.takes_over_in() == Some(0) {
            self.take_office(now);
        }
        self.advance(now);
    }

    /// The pause in ms between two counts of uptime, and between two signs of life of the one in
    /// office; none without deputies.
    #[must_use]
    pub fn uptime_pause(&self) -> Option<u64> {
        let is_member = self.standing == Standing::Member;
        let shortest = self.shortest_silence().filter(|_| is_member)?;
        Some((shortest / SIGNS).clamp(SIGN_PAUSE[0], SIGN_PAUSE[1]))
    }

    /// The key that a joiner's request is sealed to.
    #[must_use]
    pub fn awaited(&self) -> Option<PeerId> {
        Some(self.joining.as_ref()?.invitation.to)
    }

    /// Ends the wait for a new leaf: the log shows that entries of this participant count no more.
    pub fn end_membership(&mut self) {
        if matches!(self.standing, Standing::Rejoining { .. }) {
            self.be_removed();
        }
    }

    /// Whether a joiner's invitation is of one that is not in office any more.
    #[must_use]
    pub fn is_invitation_void(&self) -> bool {
        self.awaited().is_some_and(|to| to != self.office_key())
    }

    fn shortest_silence(&self) -> Option<u64> {
        let named = self.offices.list.iter().filter(|deputy| deputy.is_named());
        named.map(|deputy| u64::from(deputy.after) * SECOND).min()
    }

    /// The silence in ms after which this participant takes over.
    fn own_silence(&self) -> Option<u64> {
        if self.is_owner() {
            return self.shortest_silence();
        }
        let me = self.author.peer_id();
        let place = self.offices.place(Some(me))?;
        let deputy = self
            .offices
            .deputy(&me)
            .filter(|deputy| deputy.is_named())?;
        let after = u64::from(deputy.after) * SECOND;
        // those of one time do not all take over at once
        Some(after + after / 8 * u64::from(place - 1))
    }

    /// Uptime in ms until this deputy takes over, if nobody is received before.
    #[must_use]
    pub fn takes_over_in(&self) -> Option<u64> {
        let offices = &self.offices;
        let is_free = self.standing == Standing::Member && self.owner.is_none();
        if !is_free || self.is_held || !offices.plan.is_empty() {
            return None;
        }
        let silence = self.own_silence()?;
        let waits = silence.saturating_sub(offices.silence);
        // nobody is there who would know more
        let alone = silence.saturating_sub(offices.in_run);
        Some(if self.is_behind {
            waits.max(alone)
        } else {
            waits
        })
    }

    /// Forgets when the one in office was last received: this host was away.
    pub(crate) fn forget_heard(&mut self) {
        (self.offices.heard, self.offices.in_run) = (None, 0);
        self.offices.since_new = 0;
        self.offices.present.clear();
    }

    // terms

    /// Takes over: begins a term that goes on from the present place.
    fn take_office(&mut self, now: UnixTime) {
        let me = self.author.peer_id();
        let own = self.own_office();
        let (Some(epoch), Some(place)) = (self.epoch(), self.offices.place(own)) else {
            return;
        };
        let from = match self.owner.is_some() {
            true => (own, self.owner.as_ref().map_or(0, |owner| owner.last)),
            false => (self.offices.segment.office, self.owner_log.durable()),
        };
        let term = self.offices.next_term(place);
        if self.owner.is_none() {
            let aside = self.offices.aside.take().unwrap_or_else(|| Aside {
                key: SecretKey::from_seed(&self.author.seed()),
                last: 0,
                first: 1,
                terms: None,
            });
            let mut owner = Owner::new(aside.key, now);
            (owner.last, owner.terms) = (aside.last, aside.terms);
            owner.commits.first = aside.first;
            self.owner = Some(owner);
        }
        let from_place = self.offices.place(from.0).unwrap_or(0);
        let (kind, body) = (kind::TERM, encode_term(term, from_place, from.1, epoch));
        self.append(Log::Owner, NewEntry::Body { kind, body });
        let Some(owner) = &mut self.owner else {
            return;
        };
        // all heads are stated again: the last ones were those of another log
        owner.advertised.clear();
        owner.leaves.extend(
            self.offices
                .leaving
                .iter()
                .filter(|author| self.authors.contains_key(author)),
        );
        let begun = Term {
            term,
            office: own,
            number: owner.last,
            from,
            epoch,
        };
        let offices = &mut self.offices;
        let office = std::mem::replace(&mut offices.segment, begun).office;
        offices.scanned.insert(office, self.owner_log.read);
        (offices.current, offices.applied) = (begun, begun.number);
        offices.plan.clear();
        (offices.silence, offices.heard) = (0, None);
        offices.learn(begun);
        self.owner_log = OwnerLog::default();
        self.refresh.package = None;
        self.is_behind = false;
        let members = self.authors.keys().copied().chain([me]);
        let grants: Vec<_> = members.map(|author| (author, u32::MAX)).collect();
        self.append_grants(&grants);
        self.tell(Event::TookOffice);
        // the term counts in labels from the next epoch on
        self.commit(now);
    }

    /// Stops making commits; invitations of this participant are void.
    fn stand_down(&mut self) {
        let Some(owner) = self.owner.take() else {
            return;
        };
        self.owner_log = OwnerLog {
            read: owner.last,
            ..OwnerLog::default()
        };
        for author in owner.joins.keys() {
            self.tell(Event::NotAdmitted { author: *author });
        }
        self.offices.aside = Some(Aside {
            key: owner.key,
            last: owner.last,
            first: owner.commits.first,
            terms: owner.terms,
        });
        self.tell(Event::StoodDown);
    }

    /// Whether a term may be followed now.
    fn accepts(&self, term: &Term) -> bool {
        let Some(author) = term.office else {
            return true;
        };
        if self.standing != Standing::Member {
            return true;
        }
        let is_first =
            self.offices.place(term.office) < self.offices.place(self.offices.current.office);
        let after = self
            .offices
            .deputy(&author)
            .map_or(0, |deputy| deputy.after);
        let half = u64::from(after) * SECOND / 2;
        is_first || self.offices.heard.is_none_or(|heard| heard >= half)
    }

    /// Whether the office of this term is a member's, as far as this participant knows.
    fn is_of_member(&self, term: &Term) -> bool {
        let known = |author| author == self.author.peer_id() || self.authors.contains_key(&author);
        self.standing != Standing::Member || term.office.is_none_or(known)
    }

    /// Follows the highest term that it accepts, and passes from one log to the next.
    pub(crate) fn follow(&mut self, now: UnixTime) {
        if matches!(self.standing, Standing::Removed | Standing::RolledBack) {
            return;
        }
        let current = self.offices.current;
        let terms = self.offices.terms.iter();
        let higher = terms.filter(|term| term.term > current.term && self.offices.counts(term));
        let mut higher: Vec<Term> = higher.copied().collect();
        higher.sort_by_key(|term| std::cmp::Reverse(term.term));
        if self.owner.is_some() && !self.gives_way(&higher, now) {
            return;
        }
        let is_new = std::mem::take(&mut self.offices.is_new);
        let is_member = self.standing == Standing::Member;
        higher.retain(|term| self.is_of_member(term) && self.accepts(term));
        for best in higher {
            match self.path(best) {
                Path::On(plan) => {
                    self.set_plan(best, plan);
                    break;
                }
                // keys are given up only for others, which the one in office has to give
                Path::Off(fork) if !is_member || self.is_present(best.office) => {
                    self.leave_branch(best, fork, now);
                    break;
                }
                Path::Off(_) | Path::Unknown => {}
            }
        }
        let current = self.offices.current;
        // one on the way to the current term may have come
        if is_new && !self.offices.plan.is_empty() {
            match self.path(current) {
                Path::On(plan) => self.offices.plan = plan,
                Path::Off(fork) if !is_member || self.is_present(current.office) => {
                    self.leave_branch(current, fork, now);
                }
                Path::Off(_) | Path::Unknown => {}
            }
        }
        self.pass_on();
    }

    /// Decides between this participant in office and `higher` terms: whether it stands down.
    fn gives_way(&mut self, higher: &[Term], now: UnixTime) -> bool {
        let own = self.offices.place(self.own_office());
        let half = self.shortest_silence().unwrap_or(0) / 2;
        let of_members = higher.iter().filter(|term| self.is_of_member(term));
        for term in of_members {
            match self.path(*term) {
                Path::Unknown => {}
                // nothing is lost by that
                Path::On(_) => {
                    self.stand_down();
                    return true;
                }
                Path::Off(_) => {
                    let is_first = self.offices.place(term.office) < own;
                    if is_first && self.is_present(term.office) {
                        self.stand_down();
                        return true;
                    }
                    // one that is lost gives nobody keys of its branch
                    if !is_first || self.offices.since_new >= half {
                        self.raise(now);
                    }
                    return false;
                }
            }
        }
        // one that does not count here must not lead others away
        if higher.iter().any(|term| !self.is_of_member(term)) {
            self.raise(now);
        }
        false
    }

    /// Whether the author of this office was received lately.
    fn is_present(&self, office: Office) -> bool {
        let half = self.shortest_silence().unwrap_or(0) / 2;
        let author = self.author_of_office(office);
        let heard = author.and_then(|author| self.offices.present.get(&author));
        heard.is_some_and(|at| self.offices.in_run.saturating_sub(*at) <= half)
    }

    fn path(&self, best: Term) -> Path {
        let offices = &self.offices;
        let lineage = offices.lineage();
        let mut plan = VecDeque::from([best]);
        let mut next = best;
        for _ in 0..=offices.terms.len() {
            let (office, number) = next.from;
            if office != offices.segment.office && self.wants_of(office) <= Some(number) {
                return Path::Unknown;
            }
            let Some(before) = offices.in_force(office, number) else {
                break;
            };
            let is_same = |term: &Term| (term.office, term.term) == (before.office, before.term);
            match lineage.iter().position(is_same) {
                Some(0) if offices.applied <= number => return Path::On(plan),
                Some(0) => {
                    let (epoch, from) = (next.epoch, None);
                    return Path::Off(Fork { epoch, from, plan });
                }
                Some(at) => {
                    // this participant's branch left that log earlier, or later
                    let left = lineage.get(at - 1).copied().unwrap_or(next);
                    let epoch = left.epoch.min(next.epoch);
                    let from = Some((before, left.from.1.min(number)));
                    return Path::Off(Fork { epoch, from, plan });
                }
                None => {}
            }
            if before.number == 0 || before == next {
                break;
            }
            plan.push_front(before);
            next = before;
        }
        let (epoch, from) = (0, None);
        Path::Off(Fork { epoch, from, plan })
    }

    /// Begins a higher term than others have, from its own log.
    fn raise(&mut self, now: UnixTime) {
        let raised = self.offices.raised;
        let again = now.as_millis().saturating_sub(raised) >= RAISED_AGAIN || raised == 0;
        if again && !self.is_held && !self.is_behind {
            self.offices.raised = now.as_millis();
            self.take_office(now);
        }
    }

    fn set_plan(&mut self, best: Term, plan: VecDeque<Term>) {
        (self.offices.current, self.offices.plan) = (best, plan);
        (self.offices.silence, self.offices.heard) = (0, None);
        let (log, end) = (&mut self.owner_log, self.offices.end().unwrap_or(u32::MAX));
        if log.read > end {
            // what is open there was never finished, or does not count
            log.assembly = None;
            log.commit.take_if(|commit| commit.first > end);
            log.tree.take_if(|tree| tree.first > end);
            if log.commit.is_none() {
                log.read = end;
            }
        }
        if let Some(author) = self.in_office() {
            self.tell(Event::InOffice { author });
        }
    }

    /// Goes on in the log of the next term, once the one before it was read to its end.
    fn pass_on(&mut self) {
        while let Some(next) = self.offices.plan.front().copied()
            && self.owner_log.read >= next.from.1
            && self.owner_log.commit.is_none()
        {
            self.offices.plan.pop_front();
            self.enter(next);
        }
    }

    fn enter(&mut self, next: Term) {
        let before = std::mem::replace(&mut self.offices.segment, next).office;
        let read = self.offices.scanned.entry(before).or_default();
        *read = self.owner_log.read.max(*read);
        self.offices.applied = next.number;
        self.owner_log = OwnerLog {
            read: next.number,
            ..OwnerLog::default()
        };
        // it was sealed to the one before
        self.refresh.package = None;
        if let Standing::Rejoining { until } = &mut self.standing {
            *until = None;
        }
    }

    /// Leaves a branch of commits that does not count: asks for a new leaf in the other one.
    fn leave_branch(&mut self, best: Term, fork: Fork, now: UnixTime) {
        let Fork {
            epoch: fork,
            from,
            mut plan,
        } = fork;
        let epoch = self.epoch().filter(|_| self.standing == Standing::Member);
        (self.offices.current, self.offices.silence) = (best, 0);
        self.offices.heard = None;
        // a head there, and a new leaf, may come in any log that follows
        if let Some((term, number)) = from {
            self.offices.plan = plan;
            self.enter(term);
            self.owner_log.read = number;
        } else if let Some(first) = plan.pop_front() {
            self.offices.plan = plan;
            self.enter(first);
        }
        self.displace(fork, epoch.unwrap_or(u64::MAX));
        if epoch.is_some() {
            self.lose_branch(fork, now);
        }
    }

    /// Keeps own words of a lost branch for the outbox. `epoch`: of those that no commit confirmed.
    fn displace(&mut self, fork: u64, epoch: u64) {
        let offices = &mut self.offices;
        let words = std::mem::take(&mut self.voice.unconfirmed).into_iter();
        let kept = std::mem::take(&mut offices.kept).into_iter();
        let words = kept.chain(words.map(|said| (epoch, said)));
        // what the last common epoch sealed may have been counted: a head will tell
        for (epoch, mut said) in words.filter(|(epoch, _)| *epoch >= fork) {
            if epoch > fork {
                said.last = u32::MAX;
            }
            offices.displaced.push((epoch, said));
        }
        offices.lost = Some(fork);
    }

    fn lose_branch(&mut self, fork: u64, now: UnixTime) {
        let offices = &mut self.offices;
        if offices.admitted > fork {
            self.standing = Standing::Removed;
            self.mls = None;
            self.refresh.package = None;
            self.authors.clear();
            self.tell(Event::AdmissionLost);
            return;
        }
        self.mls = None;
        self.standing = Standing::Rejoining { until: None };
        self.refresh.package = None;
        self.tell(Event::BranchLost);
        self.ask_for_leaf(true, now);
    }

    /// Reads a commit that passes: the one of a term names all members, and the first behind a fork
    /// tells which own words it counted. Returns whether it was one of them.
    pub(crate) fn read_passing_heads(
        &mut self,
        entry: &Entry<'_>,
        part: &Part<'_>,
        now: UnixTime,
    ) -> bool {
        let segment = self.offices.segment;
        let names_all = segment.number > 0 && segment.epoch == part.epoch;
        let is_fork = self.offices.lost == Some(part.epoch);
        if !(names_all || is_fork) {
            return false;
        }
        let taken = Assembly::take(&mut self.owner_log.assembly, entry.number, part, now);
        let Assembled::Whole(whole) = taken else {
            return true;
        };
        let Ok((heads, _)) = decode_heads(&whole) else {
            return true;
        };
        let head = heads.get(&self.author.peer_id()).copied();
        if is_fork {
            let head = head.unwrap_or(0);
            self.offices.displaced.retain(|(_, said)| said.last > head);
            self.offices.lost = None;
        }
        let asks = matches!(self.standing, Standing::Rejoining { until: None });
        if names_all && head.is_none() && asks {
            self.be_removed();
        }
        true
    }

    /// Moves words of a lost branch into the outbox.
    pub(crate) fn displace_words(&mut self) {
        self.offices.lost = None;
        for (_, said) in std::mem::take(&mut self.offices.displaced) {
            let id = said.id;
            self.voice.outbox.push(said);
            self.tell(Event::OutboxWaits { id });
        }
    }

    // reading

    /// The number of the next entry to read in this author's office; `None` if it has none.
    #[must_use]
    pub fn wants_office(&self, author: &PeerId) -> Option<u32> {
        self.offices.deputy(author)?;
        self.wants_of(Some(*author))
    }

    pub(crate) fn wants_of(&self, office: Office) -> Option<u32> {
        if matches!(self.standing, Standing::Removed | Standing::RolledBack) {
            return None;
        }
        if office == self.own_office() {
            return Some(self.own_last() + 1);
        }
        Some(self.office_read(office) + 1)
    }

    /// The last number of the own log with commits.
    pub(crate) fn own_last(&self) -> u32 {
        let aside = self.offices.aside.as_ref().map_or(0, |aside| aside.last);
        self.owner.as_ref().map_or(aside, |owner| owner.last)
    }

    /// Reads an entry of an office.
    pub fn handle_office_entry(&mut self, entry: &Entry<'_>, now: UnixTime) -> Taken {
        let taken = match self.standing {
            Standing::Removed | Standing::RolledBack => Taken::Dropped(DropReason::NotReading),
            _ if self.offices.deputy(&entry.author).is_none() => {
                Taken::Dropped(DropReason::UnknownAuthor)
            }
            _ => self.read_office(Some(entry.author), entry, now),
        };
        self.advance(now);
        taken
    }

    /// Skips entries of an office up to `last`, which no host has any more.
    pub fn handle_office_gap(&mut self, author: &PeerId, last: u32, now: UnixTime) {
        if Some(*author) != self.own_office() {
            self.skip_office(Some(*author), last);
        }
        self.advance(now);
    }

    pub(crate) fn skip_office(&mut self, office: Office, last: u32) {
        if office != self.offices.segment.office {
            let read = self.offices.scanned.entry(office).or_default();
            *read = last.max(*read);
        } else if last > self.owner_log.read {
            self.owner_log = OwnerLog {
                read: last,
                ..OwnerLog::default()
            };
            if let Standing::Rejoining { until } = &mut self.standing {
                // the Welcome may have been among the expired entries
                *until = None;
                self.refresh.package = None;
            }
        }
    }

    /// Reads an entry of a log with commits.
    pub(crate) fn read_office(
        &mut self,
        office: Office,
        entry: &Entry<'_>,
        now: UnixTime,
    ) -> Taken {
        if office == self.own_office() {
            return self.read_own(Log::Owner, entry.number);
        }
        if office == self.offices.segment.office {
            let taken = self.read_owner(entry, now);
            if taken != Taken::Wait && taken != Taken::Dropped(DropReason::NotNext) {
                self.note(office, entry);
            }
            return taken;
        }
        let read = self.offices.scanned.entry(office).or_default();
        if entry.number != *read + 1 {
            return Taken::Dropped(DropReason::NotNext);
        }
        *read = entry.number;
        self.note(office, entry);
        Taken::Done
    }

    /// States the own term again, behind entries that were dropped.
    pub(crate) fn append_term(&mut self) {
        let current = self.offices.current;
        let epoch = self.epoch().unwrap_or_default();
        let place = self.offices.place(current.office);
        let (Some(owner), Some(place)) = (&mut self.owner, place) else {
            return;
        };
        let dropped = (1..owner.commits.first).contains(&current.number);
        let last = owner.last;
        if dropped {
            // the next commit names all members, as it does after each term
            owner.advertised.clear();
            let body = encode_term(current.term, place, last, epoch);
            let kind = kind::TERM;
            self.append(Log::Owner, NewEntry::Body { kind, body });
            let again = Term {
                number: last + 1,
                from: (current.office, last),
                epoch,
                ..current
            };
            self.offices.learn(again);
            (self.offices.current, self.offices.segment) = (again, again);
        }
    }

    /// Notes lists and terms.
    fn note(&mut self, office: Office, entry: &Entry<'_>) {
        match entry.kind {
            kind::OFFICES if office.is_none() => {
                if let Ok(list) = decode_list(entry.body) {
                    self.offices.set_list(list);
                }
            }
            kind::TERM => {
                let Ok((term, place, number, epoch)) = decode_term(entry.body) else {
                    return;
                };
                let own = self.offices.place(office);
                let from = self.offices.at_place(place);
                if let Some(from) = from.filter(|_| own == Some(15 - (term & 15))) {
                    self.offices.learn(Term {
                        term,
                        office,
                        number: entry.number,
                        from: (from, number),
                        epoch,
                    });
                }
            }
            _ => {}
        }
    }
}

impl Offices {
    /// Takes the owner's list. Places never change: those of before stay.
    fn set_list(&mut self, list: Vec<Deputy>) {
        for deputy in list {
            let at = self
                .list
                .iter()
                .position(|known| known.author == deputy.author);
            match at {
                Some(at) => self.list[at] = deputy,
                None if self.list.len() < MAX_DEPUTIES => self.list.push(deputy),
                None => {}
            }
        }
    }

    fn learn(&mut self, term: Term) {
        let same = |known: &Term| (known.office, known.number) == (term.office, term.number);
        if self.terms.iter().any(same) {
            return;
        }
        (self.is_new, self.since_new) = (true, 0);
        self.terms.push(term);
        if self.terms.len() > MAX_TERMS {
            let lowest = self.terms.iter().map(|term| term.term).min();
            let at = self.terms.iter().position(|term| Some(term.term) == lowest);
            at.map(|at| self.terms.swap_remove(at));
        }
    }
}
