//! What a neighbour said it wants: kept as said, whatever this router believes of the tree, within
//! bounds that are answered with a refusal. And what we tell it: our own W towards its tree, asked
//! again with backoff where it refused.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use librecast::id::OriginId;

use crate::config::Limits;
use crate::control::{Interest, Prefix, RefusalReason};
use crate::filter::Filter;
use crate::random::Random;

/// A group on a tree.
pub type RootGroup = (OriginId, Ipv6Addr);

/// First wait after a refusal; doubles with each further one.
const FIRST_RETRY: Duration = Duration::from_secs(5);
const LONGEST_RETRY: Duration = Duration::from_secs(320);
/// Added to a wait at random, so that refused groups do not come back all at once.
const RETRY_JITTER: Duration = Duration::from_secs(2);
/// Without another refusal for this long, interest counts as kept.
const ACCEPTED_AFTER: Duration = Duration::from_secs(10);

/// What one neighbour said. Its W filters themselves stand in the forwarding table.
#[derive(Debug, Default)]
pub struct Heard {
    wanted: BTreeSet<RootGroup>,
    sending: BTreeSet<(OriginId, Prefix)>,
    sources: usize,
}

impl Heard {
    /// Books an interest within the bounds. `old` is the filter it replaces. A refused W is not kept
    /// at all, not even as it was before.
    pub fn book(
        &mut self,
        interest: &Interest,
        old: Option<&Filter>,
        limits: &Limits,
    ) -> Result<(), RefusalReason> {
        let sending = self.book_sending(interest, limits);
        let wanted = match interest.prefix.as_group() {
            Some(group) => {
                let key = (interest.root, group);
                self.book_wanted(key, interest.wanted.as_ref(), old, limits)
            }
            None if interest.wanted.is_some() => Err(RefusalReason::WantedPrefix),
            None => Ok(()),
        };
        wanted.and(sending)
    }

    fn book_sending(&mut self, interest: &Interest, limits: &Limits) -> Result<(), RefusalReason> {
        let key = (interest.root, interest.prefix);
        if !interest.sending {
            self.sending.remove(&key);
        } else if !self.sending.contains(&key) {
            if self.sending.len() >= limits.prefixes_per_neighbor {
                return Err(RefusalReason::TooManyGroups);
            }
            self.sending.insert(key);
        }
        Ok(())
    }

    fn book_wanted(
        &mut self,
        key: RootGroup,
        new: Option<&Filter>,
        old: Option<&Filter>,
        limits: &Limits,
    ) -> Result<(), RefusalReason> {
        self.wanted.remove(&key);
        self.sources -= old.map_or(0, |f| f.sources().len());
        let Some(new) = new else { return Ok(()) };
        if self.wanted.len() >= limits.interests_per_neighbor {
            return Err(RefusalReason::TooManyGroups);
        }
        let sources = self.sources + new.sources().len();
        if sources > limits.sources_per_neighbor {
            return Err(RefusalReason::TooManySources);
        }
        self.sources = sources;
        self.wanted.insert(key);
        Ok(())
    }

    /// Whether a W is kept.
    pub fn has(&self, key: RootGroup) -> bool {
        self.wanted.contains(&key)
    }

    /// Everything it wants, in order.
    pub fn wanted(&self) -> impl Iterator<Item = RootGroup> + '_ {
        self.wanted.iter().copied()
    }

    /// Number of (root, group) entries.
    pub fn len(&self) -> usize {
        self.wanted.len()
    }

    /// Number of prefixes with S.
    pub fn sending_prefixes(&self) -> usize {
        self.sending.len()
    }
}

/// Interest of ours that the neighbour did not keep.
#[derive(Debug)]
struct Refused {
    reason: RefusalReason,
    attempts: u32,
    at: Instant,
    asked_again: bool,
}

/// What we tell one neighbour.
#[derive(Debug)]
pub struct Told {
    /// Nothing was said yet: HELLO and everything go out with the next flush.
    pub is_new: bool,
    refused: BTreeMap<RootGroup, Refused>,
    /// When to look at a refused one again; one entry each.
    timers: BTreeSet<(Instant, RootGroup)>,
    again: BTreeSet<RootGroup>,
    refusals: BTreeMap<(OriginId, Prefix), RefusalReason>,
}

impl Default for Told {
    fn default() -> Self {
        Self {
            is_new: true,
            refused: BTreeMap::new(),
            timers: BTreeSet::new(),
            again: BTreeSet::new(),
            refusals: BTreeMap::new(),
        }
    }
}

impl Told {
    /// The neighbour refused what we want: ask again later, and later still.
    pub fn handle_refusal(
        &mut self,
        key: RootGroup,
        reason: RefusalReason,
        random: &mut Random,
        now: Instant,
    ) {
        let attempts = match self.refused.get(&key) {
            Some(refused) if !refused.asked_again => return,
            Some(refused) => refused.attempts + 1,
            None => 0,
        };
        self.forget(key);
        let wait = FIRST_RETRY
            .saturating_mul(1 << attempts.min(10))
            .min(LONGEST_RETRY);
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
    }

    /// We do not want it any more.
    pub fn forget(&mut self, key: RootGroup) {
        if let Some(refused) = self.refused.remove(&key) {
            self.timers.remove(&(refused.at, key));
        }
        self.again.remove(&key);
    }

    /// Asks again what is due, with the next flush.
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

    /// When [`Self::handle_timeout`] has something to do.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Interest to be said again with the next flush.
    pub fn take_again(&mut self) -> BTreeSet<RootGroup> {
        std::mem::take(&mut self.again)
    }

    /// Tells the neighbour that we did not keep its interest.
    pub fn refuse(&mut self, root: OriginId, prefix: Prefix, reason: RefusalReason) {
        self.refusals.insert((root, prefix), reason);
    }

    /// Refusals to be said with the next flush.
    pub fn take_refusals(&mut self) -> BTreeMap<(OriginId, Prefix), RefusalReason> {
        std::mem::take(&mut self.refusals)
    }

    /// Why the neighbour does not keep our interest.
    pub fn refused(&self, key: RootGroup) -> Option<RefusalReason> {
        self.refused.get(&key).map(|r| r.reason)
    }

    /// Number of refused interests.
    pub fn refused_len(&self) -> usize {
        self.refused.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    const ROOT: OriginId = OriginId(1);

    fn group(n: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, n)
    }

    fn filter_of(sources: u16) -> Option<Filter> {
        Filter::include((0..sources).map(|n| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n)))
    }

    fn limits() -> Limits {
        Limits {
            interests_per_neighbor: 3,
            sources_per_neighbor: 10,
            prefixes_per_neighbor: 2,
            ..Limits::default()
        }
    }

    fn wants(n: u16, wanted: Option<Filter>) -> Interest {
        Interest {
            root: ROOT,
            prefix: Prefix::group(group(n)),
            wanted,
            sending: false,
        }
    }

    #[test]
    fn entries_of_a_neighbour_are_bounded() {
        let mut heard = Heard::default();
        let all = || Some(Filter::all());
        for n in 0..3 {
            assert_eq!(heard.book(&wants(n, all()), None, &limits()), Ok(()));
        }
        assert_eq!(
            heard.book(&wants(0, all()), all().as_ref(), &limits()),
            Ok(()),
            "said again"
        );
        let refused = Err(RefusalReason::TooManyGroups);
        assert_eq!(heard.book(&wants(3, all()), None, &limits()), refused);
        assert_eq!(
            heard.book(&wants(1, None), all().as_ref(), &limits()),
            Ok(())
        );
        assert_eq!(heard.book(&wants(3, all()), None, &limits()), Ok(()));
        assert_eq!(heard.len(), 3);
    }

    #[test]
    fn sources_of_a_neighbour_are_bounded() {
        let mut heard = Heard::default();
        assert_eq!(heard.book(&wants(0, filter_of(6)), None, &limits()), Ok(()));
        let refused = Err(RefusalReason::TooManySources);
        assert_eq!(
            heard.book(&wants(1, filter_of(5)), None, &limits()),
            refused
        );
        assert_eq!(heard.book(&wants(1, filter_of(4)), None, &limits()), Ok(()));
        // what grows beyond the bound is not kept as it was before either
        assert_eq!(
            heard.book(&wants(1, filter_of(5)), filter_of(4).as_ref(), &limits()),
            refused
        );
        assert!(!heard.has((ROOT, group(1))));
        assert_eq!(heard.book(&wants(2, filter_of(4)), None, &limits()), Ok(()));
    }

    #[test]
    fn sending_prefixes_are_bounded_and_withdrawn() {
        let mut heard = Heard::default();
        let sends = |len, sending| Interest {
            root: ROOT,
            prefix: Prefix::new(group(1), len).unwrap(),
            wanted: None,
            sending,
        };
        for len in [8, 16] {
            assert_eq!(heard.book(&sends(len, true), None, &limits()), Ok(()));
        }
        let refused = Err(RefusalReason::TooManyGroups);
        assert_eq!(heard.book(&sends(24, true), None, &limits()), refused);
        assert_eq!(heard.book(&sends(8, false), None, &limits()), Ok(()));
        assert_eq!(heard.sending_prefixes(), 1);
        let wanted = Interest {
            wanted: Some(Filter::all()),
            ..sends(16, true)
        };
        assert_eq!(
            heard.book(&wanted, None, &limits()),
            Err(RefusalReason::WantedPrefix)
        );
        assert_eq!(heard.sending_prefixes(), 1, "its S is kept all the same");
    }

    #[test]
    fn a_refused_interest_is_asked_for_again_with_growing_waits() {
        let (mut told, mut random, mut now) = (Told::default(), Random::new(1), start());
        let key = (ROOT, group(1));
        let mut waits = Vec::new();
        for _ in 0..9 {
            told.handle_refusal(key, RefusalReason::TooManyGroups, &mut random, now);
            told.handle_refusal(key, RefusalReason::TooManyGroups, &mut random, now);
            let at = told.next_timeout().unwrap();
            waits.push((at - now).as_secs());
            told.handle_timeout(at - Duration::from_millis(1));
            assert!(told.take_again().is_empty());
            now = at;
            told.handle_timeout(now);
            assert_eq!(told.take_again(), BTreeSet::from([key]));
            assert_eq!(told.refused(key), Some(RefusalReason::TooManyGroups));
        }
        for (wait, least) in waits.iter().zip([5, 10, 20, 40, 80, 160, 320, 320, 320]) {
            assert!((least..=least + 2).contains(wait), "{waits:?}");
        }
        // no further refusal: it is kept now
        told.handle_timeout(now + ACCEPTED_AFTER);
        assert_eq!((told.refused_len(), told.next_timeout()), (0, None));
    }

    #[test]
    fn what_is_no_longer_wanted_is_not_asked_for() {
        let (mut told, mut random, now) = (Told::default(), Random::new(1), start());
        let key = (ROOT, group(1));
        told.handle_refusal(key, RefusalReason::TooManyGroups, &mut random, now);
        told.forget(key);
        assert_eq!((told.refused_len(), told.next_timeout()), (0, None));
        told.handle_timeout(now + LONGEST_RETRY * 2);
        assert!(told.take_again().is_empty());
    }
}
