//! A neighbour: join state exchanged over its link, in both directions. Refusals keep it within
//! bounds; join state that the neighbour refused is sent again with backoff.

use std::collections::{BTreeMap, BTreeSet};

use librecast::cert::GroupPrefix;
use librecast::id::OriginId;
use librecast::random::Random;
use librecast::time::{Duration, Instant};

use crate::audit::Digests;
use crate::config::{Limits, Neighbor};
use crate::control::{Element, RefusalReason};
use crate::join::Join;
use crate::trees::ReceivedBefore;
use librecast::bucket::{Bucket, Rate};

/// Groups on a tree.
pub type RootPrefix = (OriginId, GroupPrefix);

/// First wait after a refusal; doubles with each further one.
const FIRST_RETRY: Duration = Duration::from_secs(5);
/// Longest wait after a refusal. Chosen.
const MAX_RETRY: Duration = Duration::from_secs(320);
/// Longest random addition to a wait, so that refused groups do not return all at once.
const RETRY_JITTER: Duration = Duration::from_secs(2);
/// Time without another refusal after which join state counts as kept.
const ACCEPTED_AFTER: Duration = Duration::from_secs(10);

/// Changes of join state that one neighbour may make, per second and at once. Chosen: all of it
/// moves to another tree twice a second. Measured: the scenarios of lcroute-sim use 1,042 at most.
pub const JOIN_RATE: Rate = Rate::per_second(2_048, 65_536);
/// Changes that one change of a prefix counts as, since it concerns all groups in it.
pub const PREFIX_CHARGE: u32 = 128;

/// A neighbour, and join state exchanged in both directions.
#[derive(Debug)]
pub struct Adjacency {
    pub neighbor: Neighbor,
    pub incarnation: Option<u32>,
    /// No message was sent yet: HELLO leaves with the next flush.
    pub is_new: bool,
    /// It broke the protocol; all its messages are dropped until the link is gone.
    pub faulty: bool,
    pub account: Account,
    pub refusals: Refusals,
    /// Digests of advertised join state, and of received join state once its HELLO has come.
    pub advertised: Digests,
    pub received: Option<Digests>,
    /// Elements for the next flush, before those of the flush itself.
    pub pending: Vec<Element>,
    pub next_audit: Instant,
    /// Time of the last bucket digests sent to the neighbour.
    pub compared: Option<Instant>,
    /// The neighbour has not answered these with a reset yet.
    pub awaits_reset: bool,
    /// Time at which differing buckets were last advertised again to the neighbour.
    pub repaired: Option<Instant>,
    pub joins: Bucket,
    pub routed: Bucket,
}

impl Adjacency {
    /// A link that has just come up.
    pub fn new(neighbor: Neighbor, advertised: Digests, next_audit: Instant, now: Instant) -> Self {
        Self {
            neighbor,
            incarnation: None,
            is_new: true,
            faulty: false,
            account: Account::default(),
            refusals: Refusals::default(),
            advertised,
            received: None,
            pending: Vec::new(),
            next_audit,
            compared: None,
            awaits_reset: false,
            repaired: None,
            joins: Bucket::full(now),
            routed: Bucket::full(now),
        }
    }

    pub fn origin(&self) -> OriginId {
        self.neighbor.member.addresses.origin
    }
}

/// Join state that this router keeps for a neighbour.
#[derive(Debug, Default)]
pub struct Account {
    /// (root, group) entries.
    pub entries: usize,
    /// Sources in all its filters.
    pub sources: usize,
    /// Prefixes with SourceActive.
    pub prefixes: usize,
}

impl Account {
    /// Books an entry in place of the earlier one; a refused entry is not kept at all.
    pub fn book(
        &mut self,
        before: &ReceivedBefore,
        want: &Join,
        sending: bool,
        limits: &Limits,
    ) -> Result<(), RefusalReason> {
        self.forget(before);
        if !sending && !want.is_some() {
            return Ok(());
        }
        if self.entries >= limits.join_states_per_neighbor {
            return Err(RefusalReason::TooManyGroups);
        }
        if self.sources + want.sources() > limits.sources_per_neighbor {
            return Err(RefusalReason::TooManySources);
        }
        self.entries += 1;
        self.sources += want.sources();
        Ok(())
    }

    /// Books the end of an entry, if there was one.
    pub fn forget(&mut self, before: &ReceivedBefore) {
        debug_assert!(
            self.entries >= usize::from(before.existed) && self.sources >= before.sources,
            "each entry was booked"
        );
        self.entries -= usize::from(before.existed);
        self.sources -= before.sources;
    }

    pub fn book_prefix(
        &mut self,
        before: bool,
        sending: bool,
        limits: &Limits,
    ) -> Result<(), RefusalReason> {
        self.prefixes -= usize::from(before);
        if sending && self.prefixes >= limits.prefixes_per_neighbor {
            return Err(RefusalReason::TooManyGroups);
        }
        self.prefixes += usize::from(sending);
        Ok(())
    }
}

/// Join state of this router that the neighbour refused.
#[derive(Debug)]
struct Refused {
    reason: RefusalReason,
    attempts: u32,
    at: Instant,
    asked_again: bool,
}

/// Join state that was refused, in both directions of a link.
#[derive(Debug, Default)]
pub struct Refusals {
    refused: BTreeMap<RootPrefix, Refused>,
    /// Timers of refused join state; one entry each.
    timers: BTreeSet<(Instant, RootPrefix)>,
    again: BTreeSet<RootPrefix>,
    refusals: BTreeMap<RootPrefix, RefusalReason>,
}

impl Refusals {
    /// The neighbour refused join state: sends it again later. False: that was known.
    pub fn handle_refusal(
        &mut self,
        key: RootPrefix,
        reason: RefusalReason,
        random: &mut Random,
        now: Instant,
    ) -> bool {
        let attempts = match self.refused.get(&key) {
            Some(refused) if !refused.asked_again => return false,
            Some(refused) => refused.attempts + 1,
            None => 0,
        };
        self.forget(key);
        let wait = FIRST_RETRY
            .saturating_mul(1 << attempts.min(10))
            .min(MAX_RETRY);
        let at = now + wait + random.between(Duration::ZERO, RETRY_JITTER);
        self.refused.insert(
            key,
            Refused {
                reason,
                attempts,
                at,
                asked_again: false,
            },
        );
        self.timers.insert((at, key));
        debug_assert_eq!(
            self.timers.len(),
            self.refused.len(),
            "each refusal has one timer"
        );
        true
    }

    /// Whether the neighbour does not keep it, as far as this router knows.
    pub fn is_refused(&self, key: RootPrefix) -> bool {
        self.refused.get(&key).is_some_and(|r| !r.asked_again)
    }

    /// Forgets the refusal of join state that has changed or ended.
    pub fn forget(&mut self, key: RootPrefix) {
        if let Some(refused) = self.refused.remove(&key) {
            self.timers.remove(&(refused.at, key));
        }
        self.again.remove(&key);
    }

    /// Schedules due join state for the next flush.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(at, key)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            let Some(refused) = self.refused.get_mut(&key) else {
                continue;
            };
            if refused.asked_again {
                self.refused.remove(&key);
                continue;
            }
            refused.asked_again = true;
            refused.at = now + ACCEPTED_AFTER;
            self.timers.insert((refused.at, key));
            self.again.insert(key);
        }
    }

    /// The time of the next call of [`Self::handle_timeout`].
    pub fn next_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Join state to be advertised again with the next flush.
    pub fn take_again(&mut self) -> BTreeSet<RootPrefix> {
        std::mem::take(&mut self.again)
    }

    /// Refuses the neighbour's join state with the next flush.
    pub fn refuse(&mut self, key: RootPrefix, reason: RefusalReason) {
        self.refusals.insert(key, reason);
    }

    /// Refusals to be sent with the next flush.
    pub fn take_refusals(&mut self) -> BTreeMap<RootPrefix, RefusalReason> {
        std::mem::take(&mut self.refusals)
    }

    /// The reason why the neighbour does not keep join state of this router.
    pub fn refused(&self, key: RootPrefix) -> Option<RefusalReason> {
        self.refused.get(&key).map(|r| r.reason)
    }

    pub fn refused_len(&self) -> usize {
        self.refused.len()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;
    use crate::source_filter::SourceFilter;
    use crate::testing::start;

    const ROOT: OriginId = OriginId(1);

    fn group(n: u16) -> GroupPrefix {
        GroupPrefix::group(Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, n))
    }

    fn limits() -> Limits {
        Limits {
            join_states_per_neighbor: 3,
            sources_per_neighbor: 10,
            prefixes_per_neighbor: 2,
            ..Limits::default()
        }
    }

    fn entry(sources: usize) -> ReceivedBefore {
        ReceivedBefore {
            existed: true,
            sources,
            ..ReceivedBefore::default()
        }
    }

    fn some(sources: u16) -> Join {
        SourceFilter::include((0..sources).map(|n| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n)))
            .into()
    }

    #[test]
    fn entries_of_a_neighbour_are_bounded() {
        let (mut account, none) = (Account::default(), ReceivedBefore::default());
        for _ in 0..3 {
            assert_eq!(account.book(&none, &Join::All, false, &limits()), Ok(()));
        }
        assert_eq!(
            account.book(&entry(0), &Join::All, false, &limits()),
            Ok(()),
            "refused again"
        );
        let refused = Err(RefusalReason::TooManyGroups);
        assert_eq!(account.book(&none, &Join::All, false, &limits()), refused);
        assert_eq!(
            account.book(&entry(0), &Join::None, false, &limits()),
            Ok(())
        );
        assert_eq!(
            account.book(&none, &Join::None, true, &limits()),
            Ok(()),
            "SourceActive counts too"
        );
        assert_eq!(account.entries, 3);
    }

    #[test]
    fn sources_of_a_neighbour_are_bounded() {
        let (mut account, none) = (Account::default(), ReceivedBefore::default());
        assert_eq!(account.book(&none, &some(6), false, &limits()), Ok(()));
        let refused = Err(RefusalReason::TooManySources);
        assert_eq!(account.book(&none, &some(5), false, &limits()), refused);
        assert_eq!(account.book(&none, &some(4), false, &limits()), Ok(()));
        // an entry that grows beyond the bound is not kept in its earlier form either
        assert_eq!(account.book(&entry(4), &some(5), false, &limits()), refused);
        assert_eq!((account.entries, account.sources), (1, 6));
    }

    #[test]
    fn prefixes_of_a_neighbour_are_bounded() {
        let mut account = Account::default();
        for _ in 0..2 {
            assert_eq!(account.book_prefix(false, true, &limits()), Ok(()));
        }
        let refused = Err(RefusalReason::TooManyGroups);
        assert_eq!(account.book_prefix(false, true, &limits()), refused);
        assert_eq!(account.book_prefix(true, false, &limits()), Ok(()));
        assert_eq!(account.prefixes, 1);
    }

    #[test]
    fn a_refused_join_is_advertised_again_with_growing_waits() {
        let (mut advertised, mut random, mut now) = (Refusals::default(), Random::new(1), start());
        let key = (ROOT, group(1));
        let mut waits = Vec::new();
        for _ in 0..9 {
            advertised.handle_refusal(key, RefusalReason::TooManyGroups, &mut random, now);
            advertised.handle_refusal(key, RefusalReason::TooManyGroups, &mut random, now);
            let at = advertised.next_timeout().unwrap();
            waits.push((at - now).as_secs());
            advertised.handle_timeout(at - Duration::from_millis(1));
            assert!(advertised.take_again().is_empty());
            now = at;
            advertised.handle_timeout(now);
            assert_eq!(advertised.take_again(), BTreeSet::from([key]));
            assert_eq!(advertised.refused(key), Some(RefusalReason::TooManyGroups));
        }
        for (wait, least) in waits.iter().zip([5, 10, 20, 40, 80, 160, 320, 320, 320]) {
            assert!((least..=least + 2).contains(wait), "{waits:?}");
        }
        // no further refusal: it is kept now
        advertised.handle_timeout(now + ACCEPTED_AFTER);
        assert_eq!(
            (advertised.refused_len(), advertised.next_timeout()),
            (0, None)
        );
    }

    #[test]
    fn what_is_no_longer_wanted_is_not_asked_for() {
        let (mut advertised, mut random, now) = (Refusals::default(), Random::new(1), start());
        let key = (ROOT, group(1));
        advertised.handle_refusal(key, RefusalReason::TooManyGroups, &mut random, now);
        advertised.forget(key);
        assert_eq!(
            (advertised.refused_len(), advertised.next_timeout()),
            (0, None)
        );
        advertised.handle_timeout(now + MAX_RETRY * 2);
        assert!(advertised.take_again().is_empty());
    }
}
