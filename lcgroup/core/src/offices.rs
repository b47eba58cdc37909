//! Who commits: the list of deputies, and the terms of their offices.
//!
//! `deputy.rs` says how they are used.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use librecast::id::{PeerId, SecretKey};
use librecast::wire::{Reader, WireError, Writer};

use crate::body::Terms;
use crate::voice::Said;

/// Deputies that a group has had, former ones included: they and the owner share four bits.
pub const MAX_DEPUTIES: usize = 15;
/// Version of bodies, their first byte.
const VERSION: u8 = 1;
/// Terms that are known at once. Chosen: hosts take over some times a year.
const MAX_TERMS: usize = 256;
/// Most by which a term may exceed the highest one that counts: 64 rounds of all places. Chosen: some
/// terms of members that were apart may be missing, and the numbers never run out.
const MOST_LEAP: u32 = 1_024;
/// Bytes and number of own words that are kept after commits confirmed them, for the case that
/// their branch is lost. Chosen: the state is written with each message.
const KEPT: (usize, usize) = (256 * 1_024, 1_000);

/// A deputy, as the owner lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deputy {
    /// Its author key.
    pub author: PeerId,
    /// It takes over after this many seconds of silence.
    pub after: u32,
    /// The last number of its office that counts; `u32::MAX` while it is a deputy.
    pub last: u32,
}

impl Deputy {
    /// Whether it is one, or was one.
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
    /// The log that it continues, and the last number that counts there.
    pub from: (Office, u32),
    /// The epoch in which it begins.
    pub epoch: u64,
}

impl Term {
    pub(crate) const FIRST: Self = Self {
        term: 0,
        office: None,
        number: 0,
        from: (None, 0),
        epoch: 0,
    };
}

/// The one in office has named the one that commits next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Handover {
    /// The log of its entry, and the number.
    pub from: (Office, u32),
    pub to: Office,
}

impl Handover {
    /// Whether a term is the one that it asks for.
    pub fn allows(&self, term: &Term) -> bool {
        term.office == self.to && term.from.0 == self.from.0 && term.from.1 >= self.from.1
    }
}

/// The key of a log with commits that this participant writes when it is in office.
pub(crate) struct Spare {
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
    /// The last handover in the log that is read, until somebody takes over.
    pub handover: Option<Handover>,
    /// The last entry of the last commit or Welcome that was applied, in the log that is read.
    pub applied: u32,
    /// The epoch in which this participant became a member.
    pub admitted: u64,
    /// Uptime in ms since the one in office was last received: over all runs, and in this run.
    pub silence: u64,
    pub received: Option<u64>,
    /// Uptime in ms in this run, since the last absence.
    pub in_run: u64,
    /// When the owner and deputies were last received, by that count.
    pub present: BTreeMap<PeerId, u64>,
    /// When another member was last received, by the own clock (ms since 1970); 0: never.
    pub met: u64,
    /// Length in ms and end of the last absence: no member was received.
    pub absence: (u64, u64),
    /// Uptime in ms since the last new term.
    pub since_new: u64,
    /// Members that asked to leave.
    pub leaving: BTreeSet<PeerId>,
    pub spare: Option<Spare>,
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
            handover: None,
            applied: 0,
            admitted: 0,
            silence: 0,
            received: None,
            in_run: 0,
            present: BTreeMap::new(),
            met: 0,
            absence: (0, 0),
            since_new: 0,
            leaving: BTreeSet::new(),
            spare: None,
            lost: None,
            raised: 0,
            kept: VecDeque::new(),
            displaced: Vec::new(),
        }
    }
}

impl Offices {
    /// Whether the group has, or had, deputies: otherwise nothing of this is stored.
    pub fn is_used(&self) -> bool {
        !self.list.is_empty()
    }

    /// The place of a log in the list: 0 for the owner's; none of an unknown one.
    pub fn place(&self, office: Office) -> Option<u32> {
        let Some(author) = office else { return Some(0) };
        let at = self.list.iter().position(|deputy| deputy.author == author);
        at.map(|at| at as u32 + 1)
    }

    pub(crate) fn at_place(&self, place: u32) -> Option<Office> {
        match place.checked_sub(1) {
            None => Some(None),
            Some(at) => self.list.get(at as usize).map(|deputy| Some(deputy.author)),
        }
    }

    pub fn deputy(&self, author: &PeerId) -> Option<&Deputy> {
        self.list.iter().find(|deputy| deputy.author == *author)
    }

    /// Whether the list lets this term count.
    fn is_listed(&self, term: &Term) -> bool {
        let Some(author) = term.office else {
            return true;
        };
        let last = self.deputy(&author).map_or(0, |deputy| deputy.last);
        term.number <= last
    }

    /// Returns the terms that count: those of the list, but for a leap.
    pub(crate) fn counting(&self) -> impl Iterator<Item = &Term> {
        let highest = self.highest();
        let listed = self.terms.iter().filter(|term| self.is_listed(term));
        listed.filter(move |term| term.term <= highest)
    }

    /// Returns the highest number that is reached without a leap from a term that is followed, or
    /// is the owner's.
    fn highest(&self) -> u32 {
        let listed = self.terms.iter().filter(|term| self.is_listed(term));
        let mut numbers: Vec<u32> = listed.clone().map(|term| term.term).collect();
        numbers.sort_unstable();
        let of_owner = listed.filter(|term| term.office.is_none());
        let of_owner = of_owner.map(|term| term.term).max().unwrap_or(0);
        let mut highest = self.current.term.max(of_owner);
        for number in numbers {
            if number > highest.saturating_add(MOST_LEAP) {
                break;
            }
            highest = highest.max(number);
        }
        highest
    }

    /// Notes that another member was received at `now`.
    pub(crate) fn meet(&mut self, shortest_silence: u64, now: u64) {
        let gap = self.gap(now);
        if gap >= shortest_silence {
            self.absence = (gap, now);
        }
        self.met = now;
    }

    /// Returns the time in ms since a member was received; without limit if the clock was set back.
    fn gap(&self, now: u64) -> u64 {
        now.checked_sub(self.met).unwrap_or(u64::MAX)
    }

    /// Returns whether this host is, or was lately, away for a time of silence.
    pub(crate) fn was_away(&self, silence: u64, now: u64) -> bool {
        let (length, end) = self.absence;
        let is_recent = now.saturating_sub(end) < silence;
        self.gap(now) >= silence || length >= silence && is_recent
    }

    /// The lowest term of a place above all known ones.
    pub(crate) fn next_term(&self, place: u32) -> u32 {
        let highest = self.highest();
        let low = 15 - place;
        let next = (highest & !15) | low;
        let next = match next > highest {
            true => next,
            // the last round is the owner's
            false => next.saturating_add(16) & !15 | low,
        };
        debug_assert_eq!(15 - (next & 15), place, "no two logs have one term");
        next
    }

    /// The term in force at `number` of a log.
    pub(crate) fn in_force(&self, office: Office, number: u32) -> Option<Term> {
        let terms = self.counting();
        let before = terms.filter(|term| term.office == office && term.number <= number);
        let last = before.max_by_key(|term| term.number).copied();
        last.or_else(|| office.is_none().then_some(Term::FIRST))
    }

    /// The last number of the log that is read, if another one continues from there.
    pub fn end(&self) -> Option<u32> {
        self.plan.front().map(|next| next.from.1)
    }

    /// The terms through which the present place was reached, the latest first.
    pub(crate) fn lineage(&self) -> Vec<Term> {
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
pub(crate) fn encode_list(list: &[Deputy]) -> Vec<u8> {
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
    r.version(VERSION)?;
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

/// A term in a body: term, place and number from which it continues, epoch.
pub(crate) fn decode_term(body: &[u8]) -> Result<(u32, u32, u32, u64), WireError> {
    let mut r = Reader::new(body);
    r.version(VERSION)?;
    Ok((r.u32()?, r.u8()?.into(), r.u32()?, r.u64()?))
}

pub(crate) fn encode_term(term: u32, place: u32, number: u32, epoch: u64) -> Vec<u8> {
    let mut w = Writer::new();
    w.u8(VERSION)
        .u32(term)
        .u8(place as u8)
        .u32(number)
        .u64(epoch);
    w.into_vec()
}

/// The place in the body of a handover.
pub(crate) fn decode_handover(body: &[u8]) -> Result<u32, WireError> {
    let mut r = Reader::new(body);
    r.version(VERSION)?;
    Ok(r.u8()?.into())
}

pub(crate) fn encode_handover(place: u32) -> Vec<u8> {
    vec![VERSION, place as u8]
}

impl Offices {
    /// Takes the owner's list. Places never change: earlier deputies keep theirs.
    pub(crate) fn set_list(&mut self, list: Vec<Deputy>) {
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
        let authors: BTreeSet<_> = self.list.iter().map(|deputy| deputy.author).collect();
        debug_assert_eq!(authors.len(), self.list.len(), "each deputy has one place");
        debug_assert!(self.list.len() <= MAX_DEPUTIES, "four bits of a term");
    }

    pub(crate) fn learn(&mut self, term: Term) {
        let same = |known: &Term| (known.office, known.number) == (term.office, term.number);
        if self.terms.iter().any(same) {
            return;
        }
        self.since_new = 0;
        self.terms.push(term);
        if self.terms.len() > MAX_TERMS {
            let lowest = self.terms.iter().map(|term| term.term).min();
            let at = self.terms.iter().position(|term| Some(term.term) == lowest);
            at.map(|at| self.terms.swap_remove(at));
        }
        debug_assert!(self.terms.len() <= MAX_TERMS, "the lowest term gives way");
    }
}
