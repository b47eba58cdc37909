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
//! The one in office may hand over: an entry of its log names the next one, and ends its own
//! office. The named one takes over at once, and members follow it without a time of silence.
//!
//! One in office that is present answers a lower one's term with a higher one, unless it was away
//! itself for that deputy's time of silence. Its own clock alone dates that. In a group of two nobody
//! else could be received meanwhile, so uptime of its own host shows that it was there.
//!
//! Silence is counted in uptime of the deputy's own host: no clock, its own or another, dates it.

use std::collections::VecDeque;

use librecast::id::{PeerId, SecretKey};
use librecast::time::UnixTime;

use crate::body::{Assembled, Assembly, Part, decode_heads, kind};
use crate::drops::DropReason;
use crate::error::GroupError;
use crate::event::{Entry, Event, Log, NewEntry, Taken};
use crate::group::{Group, Standing};
use crate::offices::{
    Deputy, Handover, MAX_DEPUTIES, Office, Spare, Term, decode_handover, decode_list, decode_term,
    encode_handover, encode_list, encode_term,
};
use crate::owner::Owner;
use crate::owner_log::OwnerLog;
use crate::voice::Said;
use crate::{MINUTE, SECOND};

/// Shortest time of silence in seconds. Chosen: some signs of life of the owner may be lost.
pub const LEAST_SILENCE: u32 = 10;
/// Longest time of silence in seconds. Chosen.
pub const LONGEST_SILENCE: u32 = 365 * 86_400;

/// Signs of life of the one in office in the shortest time of silence. Chosen: seven may be lost.
const SIGNS: u64 = 8;
/// Shortest and longest pause between them in ms. Chosen.
const SIGN_PAUSE: [u64; 2] = [SECOND, 10 * MINUTE];
/// Shortest pause in ms between two terms that this participant raises against others. Chosen.
const RAISED_AGAIN: u64 = MINUTE;

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

    /// Makes a member a deputy that takes over after this many seconds of silence, or changes its time.
    ///
    /// # Errors
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

    /// Ends a deputy's right. If it is in office, or is to be, the owner takes over.
    ///
    /// # Errors
    /// [`GroupError::NotTheOwner`], [`GroupError::UnknownMember`].
    pub fn remove_deputy(&mut self, author: &PeerId, now: UnixTime) -> Result<(), GroupError> {
        self.check_owns()?;
        let read = self.office_read(Some(*author));
        let is_next = self.in_office() == Some(*author) || self.is_handed_to(Some(*author));
        let was_in_office = is_next && self.owner.is_none();
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

    /// Stands down for a deputy, or for the owner, which commits from then on. Until it takes over
    /// nobody commits; this participant takes the office back after the usual time of silence.
    ///
    /// # Errors
    /// [`GroupError::NotTheOwner`] unless it is in office, [`GroupError::UnknownMember`].
    pub fn hand_over(&mut self, author: &PeerId, now: UnixTime) -> Result<(), GroupError> {
        match self.standing {
            Standing::RolledBack => return Err(GroupError::RolledBack),
            Standing::Member => {}
            _ => return Err(GroupError::NotAMember),
        }
        let Some(owner) = &self.owner else {
            return Err(GroupError::NotTheOwner);
        };
        let waits = owner.wanted.is_some();
        let to = Some(*author).filter(|_| self.author_of_office(None) != Some(*author));
        let is_named = |author| self.offices.deputy(&author).is_some_and(Deputy::is_named);
        let place = self.offices.place(to).filter(|_| to.is_none_or(is_named));
        let place = place.filter(|_| self.authors.contains_key(author));
        let place = place.ok_or(GroupError::UnknownMember)?;
        if waits && !self.is_behind {
            // those that were let in or removed before
            self.commit(now);
        }
        let (kind, body) = (kind::HANDOVER, encode_handover(place));
        self.append(Log::Owner, NewEntry::Body { kind, body });
        let from = (self.own_office(), self.own_last());
        self.offices.handover = Some(Handover { from, to });
        (self.offices.silence, self.offices.received) = (0, None);
        self.stand_down();
        self.advance(now);
        Ok(())
    }

    /// Ends the right of deputies among these authors: it does not outlive membership.
    pub(crate) fn end_offices(&mut self, ends: impl Fn(&PeerId) -> bool) {
        let read: Vec<u32> = self
            .offices
            .list
            .iter()
            .map(|deputy| self.office_read(Some(deputy.author)))
            .collect();
        let mut any = false;
        for (deputy, read) in self.offices.list.iter_mut().zip(read) {
            if deputy.is_named() && ends(&deputy.author) {
                deputy.last = read;
                any = true;
            }
        }
        if any {
            self.append_list();
        }
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
        let scanned = self.offices.scanned.get(&office).copied().unwrap_or(0);
        match office == self.offices.segment.office {
            true if self.is_at_other_term() => scanned.max(self.owner_log.read),
            true => self.owner_log.read,
            false => scanned,
        }
    }

    // silence

    /// Notes that a member is present, by its signature.
    pub fn hear(&mut self, author: &PeerId, now: UnixTime) {
        if !self.offices.is_used() {
            return;
        }
        if self.authors.contains_key(author) && *author != self.author.peer_id() {
            let shortest = self.shortest_silence().unwrap_or(u64::MAX);
            self.offices.meet(shortest, now.as_millis());
        }
        if self.in_office() == Some(*author) {
            (self.offices.silence, self.offices.received) = (0, Some(0));
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
        if offices.met == 0 {
            offices.met = now.as_millis();
        }
        offices.silence = offices.silence.saturating_add(elapsed);
        offices.in_run = offices.in_run.saturating_add(elapsed);
        offices.since_new = offices.since_new.saturating_add(elapsed);
        offices.received = offices.received.map(|heard| heard.saturating_add(elapsed));
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
        if self.is_handed_to(self.own_office()) && !self.is_behind {
            return Some(0);
        }
        let waits = silence.saturating_sub(offices.silence);
        // nobody is there who would know more
        let alone = silence.saturating_sub(offices.in_run);
        Some(if self.is_behind {
            waits.max(alone)
        } else {
            waits
        })
    }

    fn is_handed_to(&self, office: Office) -> bool {
        let handover = self.offices.handover;
        handover.is_some_and(|handover| handover.to == office)
    }

    /// Forgets when the one in office was last received: this host was away.
    pub(crate) fn forget_received(&mut self) {
        (self.offices.received, self.offices.in_run) = (None, 0);
        self.offices.since_new = 0;
        self.offices.present.clear();
    }

    // terms

    /// Takes over: begins a term that continues from the present place.
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
            let spare = self.offices.spare.take().unwrap_or_else(|| Spare {
                key: SecretKey::from_seed(&self.author.seed()),
                last: 0,
                first: 1,
                terms: None,
            });
            let mut owner = Owner::new(spare.key, now);
            (owner.last, owner.terms) = (spare.last, spare.terms);
            owner.commits.first = spare.first;
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
        (offices.plan, offices.handover) = (VecDeque::new(), None);
        (offices.silence, offices.received) = (0, None);
        offices.learn(begun);
        self.owner_log = OwnerLog::default();
        self.refresh.package = None;
        self.is_behind = false;
        let members = self.authors.keys().copied().chain([me]);
        let grants: Vec<_> = members.map(|author| (author, u32::MAX)).collect();
        self.append_grants(&grants);
        if self.is_owner() {
            // a deputy in office may have removed another one, and has no say over the list
            let present: Vec<PeerId> = self.authors.keys().copied().collect();
            self.end_offices(|author| !present.contains(author));
        }
        self.tell(Event::TookOffice);
        // the term counts in labels from the next epoch on
        self.commit(now);
    }

    /// Stops making commits; invitations of this participant are void.
    fn stand_down(&mut self) {
        let Some(owner) = self.owner.take() else {
            return;
        };
        debug_assert!(self.offices.spare.is_none(), "one key of an office");
        self.owner_log = OwnerLog {
            read: owner.last,
            ..OwnerLog::default()
        };
        for author in owner.joins.keys() {
            self.tell(Event::NotAdmitted { author: *author });
        }
        self.offices.spare = Some(Spare {
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
        // the one that is followed may begin another term, as it does against one that it outranks
        let is_first =
            self.offices.place(term.office) <= self.offices.place(self.offices.current.office);
        let after = self
            .offices
            .deputy(&author)
            .map_or(0, |deputy| deputy.after);
        let half = u64::from(after) * SECOND / 2;
        let handover = self.offices.handover;
        is_first
            || handover.is_some_and(|handover| handover.allows(term))
            || self.offices.received.is_none_or(|heard| heard >= half)
    }

    /// Whether the office of this term is a member's, as far as this participant knows.
    fn is_of_member(&self, term: &Term) -> bool {
        let known = |author| author == self.author.peer_id() || self.authors.contains_key(&author);
        self.standing == Standing::Joining || term.office.is_none_or(known)
    }

    /// Follows the highest term that it accepts, and passes from one log to the next.
    pub(crate) fn follow(&mut self, now: UnixTime) {
        if matches!(self.standing, Standing::Removed | Standing::RolledBack) {
            return;
        }
        let current = self.offices.current;
        let terms = self.offices.counting();
        let higher = terms.filter(|term| term.term > current.term);
        let mut higher: Vec<Term> = higher.copied().collect();
        higher.sort_by_key(|term| std::cmp::Reverse(term.term));
        if self.owner.is_some() && !self.gives_way(&higher, now) {
            return;
        }
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
                    self.leave_branch(best, fork);
                    break;
                }
                Path::Off(_) | Path::Unknown => {}
            }
        }
        // one on the way to the current term may have come
        if !self.offices.plan.is_empty() {
            let current = self.offices.current;
            match self.path(current) {
                Path::On(plan) => self.offices.plan = plan,
                Path::Off(fork) if !is_member || self.is_present(current.office) => {
                    self.leave_branch(current, fork);
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
                Path::On(_) if self.stays_against(term, now) => {
                    self.raise(now);
                    return false;
                }
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

    /// Whether this participant in office was present while another one began its term.
    fn stays_against(&self, term: &Term, now: UnixTime) -> bool {
        let is_first = self.offices.place(term.office) < self.offices.place(self.own_office());
        let deputy = term.office.and_then(|author| self.offices.deputy(&author));
        let silence = deputy.map_or(0, |deputy| u64::from(deputy.after) * SECOND);
        // where the other one is the only one, its silence shows no absence of this host
        let me = self.author.peer_id();
        let others = self.authors.keys().filter(|author| **author != me).count();
        let was_up = others == 1 && self.offices.in_run >= silence;
        !is_first && (was_up || !self.offices.was_away(silence, now.as_millis()))
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
        let is_same = self.offices.current.office == best.office;
        (self.offices.current, self.offices.plan) = (best, plan);
        self.offices.handover = None;
        self.offices.silence = 0;
        // another term of the one in office opens no way for a third one
        self.offices.received = self.offices.received.filter(|_| is_same);
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
            // nothing is read in the own log: all of it is known
            && (self.owner_log.read >= next.from.1
                || self.offices.segment.office == self.own_office())
            && self.owner_log.commit.is_none()
        {
            self.offices.plan.pop_front();
            self.enter(next);
        }
        debug_assert!(
            !self.offices.plan.is_empty()
                || self.offices.segment.office == self.offices.current.office,
            "the way to the current term ends in its log"
        );
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
    fn leave_branch(&mut self, best: Term, fork: Fork) {
        let Fork {
            epoch: fork,
            from,
            mut plan,
        } = fork;
        let epoch = self.epoch().filter(|_| self.standing == Standing::Member);
        (self.offices.current, self.offices.silence) = (best, 0);
        (self.offices.received, self.offices.handover) = (None, None);
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
        // 0: not known, and the heads of the other branch tell
        if (1..self.offices.admitted).contains(&fork) {
            self.end_as_member(Event::AdmissionLost);
        } else if epoch.is_some() {
            self.mls = None;
            self.standing = Standing::Rejoining { until: None };
            self.refresh.package = None;
            self.tell(Event::BranchLost);
        }
    }

    /// Keeps own words of a lost branch for the outbox. `epoch`: of those that no commit confirmed.
    fn displace(&mut self, fork: u64, epoch: u64) {
        let offices = &mut self.offices;
        let words = std::mem::take(&mut self.voice.unconfirmed).into_iter();
        let kept = std::mem::take(&mut offices.kept).into_iter();
        let words = kept.chain(words.map(|said| (epoch, said)));
        let (lost, common): (Vec<_>, Vec<_>) = words.partition(|(epoch, _)| *epoch >= fork);
        // both branches have these; another parting may begin before them
        offices.kept = common.into();
        // what the last common epoch sealed may have been counted: a head will tell
        for (epoch, mut said) in lost {
            if epoch > fork {
                said.last = u32::MAX;
            }
            offices.displaced.push((epoch, said));
        }
        offices.lost = Some(fork);
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
            let words = std::mem::take(&mut self.offices.displaced).into_iter();
            let counts = |(epoch, said): &(u64, Said)| *epoch == part.epoch && said.last <= head;
            let (counted, lost): (Vec<_>, _) = words.partition(counts);
            self.offices.displaced = lost;
            for (epoch, said) in counted {
                self.offices.keep(epoch, said);
            }
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
        let spare = self.offices.spare.as_ref().map_or(0, |spare| spare.last);
        self.owner.as_ref().map_or(spare, |owner| owner.last)
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
        if self.waits_for_list(entry) {
            return Taken::Wait;
        }
        if office == self.offices.segment.office && !self.is_at_other_term() {
            let taken = self.read_owner(entry, now);
            if taken != Taken::Wait && taken != Taken::Dropped(DropReason::NotNext) {
                self.note(office, entry);
                self.note_handover(office, entry);
            }
            return taken;
        }
        if entry.number != self.office_read(office) + 1 {
            return Taken::Dropped(DropReason::NotNext);
        }
        self.offices.scanned.insert(office, entry.number);
        self.note(office, entry);
        Taken::Done
    }

    /// Whether this is a term that continues from a deputy whose entry in the list is still to be read.
    fn waits_for_list(&self, entry: &Entry<'_>) -> bool {
        let term = (entry.kind == kind::TERM).then(|| decode_term(entry.body));
        let known = self.offices.list.len() as u32;
        matches!(term, Some(Ok((_, place, ..))) if place > known && place <= MAX_DEPUTIES as u32)
    }

    /// Whether the next entry of the log that is read is of another term of its author, which may
    /// go on from another log. Only terms are read from there, until this term is followed.
    fn is_at_other_term(&self) -> bool {
        let segment = self.offices.segment;
        let next = self.offices.in_force(segment.office, self.owner_log.read);
        next.is_some_and(|next| next.number > segment.number && next.term != segment.term)
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

    /// Notes a handover, in the log of the one in office.
    fn note_handover(&mut self, office: Office, entry: &Entry<'_>) {
        if entry.kind == kind::HANDOVER
            && let Ok(place) = decode_handover(entry.body)
            && let Some(to) = self.offices.at_place(place)
        {
            let from = (office, entry.number);
            self.offices.handover = Some(Handover { from, to });
        }
    }

    /// Notes lists, terms, and statements on the group's network.
    fn note(&mut self, office: Office, entry: &Entry<'_>) {
        self.network.note(office, entry.kind, entry.body);
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
