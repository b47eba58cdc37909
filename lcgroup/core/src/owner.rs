//! The owner's own state: invitations, and the changes for the next commit.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use librecast::id::{PeerId, SecretKey};
use librecast::time::UnixTime;
use zeroize::Zeroizing;

use crate::DAY;
use crate::body::{Heads, Terms};
use crate::drops::RequestRefusal;
use crate::request::Request;

/// Longest age of a request, in ms: holders keep it for a day, and clocks differ by one.
const REQUEST_AGE: u64 = 2 * DAY;

/// The owner's own state.
pub(crate) struct Owner {
    pub key: SecretKey,
    /// Number of the last entry of the owner's log.
    pub last: u32,
    pub invitations: BTreeMap<u64, Kept>,
    /// Key packages of joiners that the next commit adds.
    pub joins: BTreeMap<PeerId, Vec<u8>>,
    /// Key packages of members that get a new leaf.
    pub refreshes: BTreeMap<PeerId, Vec<u8>>,
    pub leaves: BTreeSet<PeerId>,
    /// Heads after the last commit.
    pub advertised: Heads,
    /// When the last commit was made, and when the next is due (ms since 1970).
    pub committed: u64,
    pub wanted: Option<u64>,
    /// Terms that the log states.
    pub terms: Option<Terms>,
    pub commits: Commits,
}

/// The commits that the log still has, and what members need of them.
#[derive(Default)]
pub(crate) struct Commits {
    /// The first number of the log.
    pub first: u32,
    /// The epoch that each one ends, and the number of its first entry.
    pub all: VecDeque<(u64, u32)>,
    /// The epoch that ended with the last Welcome to this member.
    pub welcomed: BTreeMap<PeerId, u64>,
    /// The epoch that this member has certainly reached.
    pub reached: BTreeMap<PeerId, u64>,
    /// Former members: the last number that counts, and when it was removed (ms since 1970).
    pub former: BTreeMap<PeerId, (u32, u64)>,
}

impl Commits {
    /// Notes that a member has read a message or a commit of this epoch.
    pub fn reach(&mut self, author: PeerId, epoch: u64) {
        let known = self.reached.entry(author).or_default();
        *known = epoch.max(*known);
    }

    /// Adds a commit that ends `epoch`, with the number of its first entry.
    pub fn push(&mut self, epoch: u64, first: u32) {
        let last = self.all.back();
        debug_assert!(
            last.is_none_or(|(before, number)| *before < epoch && *number < first),
            "epochs and numbers of one office rise"
        );
        debug_assert!(first >= self.first, "a commit is not before its log");
        self.all.push_back((epoch, first));
    }

    /// Notes a request for a new leaf: its author has read its last Welcome.
    pub fn refresh(&mut self, author: PeerId) {
        if let Some(epoch) = self.welcomed.get(&author) {
            self.reach(author, epoch + 1);
        }
    }

    /// The number of the first entry that one of `members` may still need, but no more than `most`
    /// entries up to `last`; and the members for which that is too late.
    pub fn cut(
        &self,
        members: impl Iterator<Item = PeerId>,
        last: u32,
        most: u32,
    ) -> (u32, Vec<PeerId>) {
        let reached = |author: &PeerId| self.reached.get(author).copied().unwrap_or(0);
        let members: Vec<PeerId> = members.collect();
        let slowest = members.iter().map(&reached).min().unwrap_or(u64::MAX);
        let mut commits = self.all.iter();
        // earlier commits are kept for a member whose epoch is before the first known one
        let is_known = self.all.front().is_some_and(|(epoch, _)| *epoch <= slowest);
        let needed = match is_known {
            // the last commit may have Welcomes that nobody has read
            true => commits
                .find(|(epoch, _)| *epoch >= slowest)
                .or(self.all.back()),
            false => None,
        };
        let needed = needed.map_or(self.first, |(_, first)| *first);
        // entries from before the list do not count for the bound: an earlier term made them
        let counted = self
            .all
            .front()
            .map_or(needed, |(_, first)| needed.max(*first));
        if last.saturating_sub(counted) < most {
            return (needed, Vec::new());
        }
        let mut later = self.all.iter();
        let fits = |(_, first): &&(u64, u32)| last.saturating_sub(*first) < most;
        let Some((epoch, first)) = later.find(fits).or(self.all.back()) else {
            return (self.first, Vec::new());
        };
        let late = members
            .into_iter()
            .filter(|author| reached(author) < *epoch);
        (*first, late.collect())
    }
}

/// An invitation, as its owner keeps it.
pub(crate) struct Kept {
    pub secret: Zeroizing<[u8; 32]>,
    pub expires: u64,
    pub uses: u32,
    /// Authors that used it.
    pub used: BTreeSet<PeerId>,
    /// Nobody else may use it.
    pub withdrawn: bool,
}

impl Kept {
    /// Returns how many others may use it.
    pub fn left(&self, now: UnixTime) -> u32 {
        match self.withdrawn || self.expires <= now.as_millis() {
            true => 0,
            false => self.uses.saturating_sub(self.used.len() as u32),
        }
    }
}

impl Owner {
    pub fn new(key: SecretKey, now: UnixTime) -> Self {
        Self {
            key,
            last: 0,
            invitations: BTreeMap::new(),
            joins: BTreeMap::new(),
            refreshes: BTreeMap::new(),
            leaves: BTreeSet::new(),
            advertised: Heads::new(),
            committed: now.as_millis(),
            wanted: None,
            terms: None,
            commits: Commits::default(),
        }
    }
}

impl Owner {
    /// Checks a request's invitation; returns `true` if the request was accepted before.
    pub fn check_invited(&self, request: &Request, now: UnixTime) -> Result<bool, RequestRefusal> {
        let kept = self.invitations.get(&request.invitation);
        let kept = kept.ok_or(RequestRefusal::UnknownInvitation)?;
        if !request.proves(&kept.secret) {
            return Err(RequestRefusal::Proof);
        }
        // before its time: it may be a recording, and is answered no more
        if kept.used.contains(&request.author) {
            let waits = self.joins.contains_key(&request.author);
            return waits.then_some(true).ok_or(RequestRefusal::Admitted);
        }
        let now = now.as_millis();
        let (earliest, latest) = (now.saturating_sub(REQUEST_AGE), now + DAY);
        if !(earliest..=latest).contains(&request.time) {
            return Err(RequestRefusal::Time);
        }
        if kept.withdrawn {
            return Err(RequestRefusal::Withdrawn);
        }
        if kept.expires <= now {
            return Err(RequestRefusal::Expired);
        }
        if kept.used.len() >= kept.uses as usize {
            return Err(RequestRefusal::UsedUp);
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> PeerId {
        SecretKey::from_seed(&[n; 32]).peer_id()
    }

    #[test]
    fn the_log_is_cut_behind_the_slowest_member_and_its_bound_cuts_who_is_later() {
        let mut commits = Commits {
            first: 1,
            all: (0..10)
                .map(|epoch| (epoch, 2 + 10 * epoch as u32))
                .collect(),
            ..Commits::default()
        };
        let cut = |commits: &Commits, most| commits.cut([key(1), key(2)].into_iter(), 101, most);
        assert_eq!(
            cut(&commits, 1_000),
            (2, vec![]),
            "both are in the first epoch"
        );
        commits.reach(key(1), 7);
        commits.reach(key(2), 4);
        commits.reach(key(2), 3);
        assert_eq!(cut(&commits, 1_000), (42, vec![]));
        assert_eq!(cut(&commits, 60), (42, vec![]));
        assert_eq!(cut(&commits, 50), (52, vec![key(2)]));
        assert_eq!(cut(&commits, 5), (92, vec![key(1), key(2)]));
        // a new leaf counts once its author asks for the next one
        commits.welcomed.insert(key(2), 8);
        assert_eq!(cut(&commits, 1_000), (42, vec![]));
        commits.refresh(key(2));
        assert_eq!(cut(&commits, 1_000), (72, vec![]));
        commits.reach(key(1), 10);
        commits.reach(key(2), 10);
        assert_eq!(cut(&commits, 1_000), (92, vec![]), "the last commit stays");
    }

    #[test]
    fn members_of_whom_no_epoch_is_known_keep_all_of_an_earlier_term() {
        let mut commits = Commits {
            first: 1,
            all: [(50, 500), (51, 510)].into(),
            ..Commits::default()
        };
        let cut = |commits: &Commits| commits.cut([key(1)].into_iter(), 520, 1_000);
        assert_eq!(cut(&commits), (1, vec![]));
        let bounded = |last| commits.cut([key(1)].into_iter(), last, 100);
        assert_eq!(bounded(599), (1, vec![]));
        assert_eq!(bounded(601), (510, vec![key(1)]));
        commits.reach(key(1), 51);
        assert_eq!(cut(&commits), (510, vec![]));
    }
}
