//! Quotas of a relay: for a user, its site, its network, and in total.
//!
//! Keys and networks cost nothing, and a prefix has many addresses, so all are bounded. Half of the
//! total is reserved for sites and networks with little use. Where one network comes first, half of
//! the total is reserved for it, and its members use all that is left.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lcroute_overlay::{Site, SiteSize};
use librecast::bucket::{Bucket, Rate, TokenBucket};
use librecast::time::{Duration, Instant};

use super::config::RelayConfig;
use super::credentials::{INSIDE, is_inside, pseudonym};

/// Headers of a packet in bytes: IPv6, UDP, and TURN's.
const HEADERS: usize = 64;
/// Least charge of a packet in bytes: below it the host's work costs more than its line. Chosen.
const LEAST: usize = 256;
/// Burst beyond a rate, as time at that rate.
const BURST: Duration = Duration::from_millis(250);
/// Least burst, in bytes.
const LEAST_BURST: u64 = 16 << 10;
/// Rate of an address, in multiples of a user's.
const ADDRESS_SHARE: u64 = 4;
/// Part of the total below which a site or network has priority. Chosen.
const LITTLE: u64 = 16;
/// Bound of a site's allocations once half of all are in use: the rest is for small users. Chosen.
const SITE_GUARANTEE: usize = 8;
/// The same for a network. Chosen.
const NETWORK_GUARANTEE: usize = 32;
/// Rate of a user inside in bit/s. Chosen: a lecture with sound ten times over.
const INSIDE_RATE: u64 = 1_000_000;
/// Bound of allocations of all users inside of a network.
const INSIDE_ALLOCATIONS: usize = 256;
/// Requests of a user per second, and burst: a permission and a channel per peer. Chosen.
const REQUESTS: Rate = Rate::per_second(64, 512);

/// Returns the charge of a packet, in bytes.
pub fn charged(contents: usize) -> usize {
    (contents + HEADERS).max(LEAST)
}

/// A holder of a quota.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Payer {
    User(String),
    Site(Site),
    Network(String),
    /// All networks but the one that comes first.
    Strangers,
}

impl Payer {
    /// Whether it is a user inside, or all of a network.
    pub(super) fn is_inside(&self) -> bool {
        match self {
            Self::User(name) => name.split_once('.').is_some_and(|(n, _)| is_inside(n)),
            Self::Network(network) => is_inside(network),
            Self::Site(_) | Self::Strangers => false,
        }
    }
}

/// Usage in total, and of each payer.
#[derive(Debug)]
pub(super) struct Quota {
    rate_total: Rate,
    all: Bucket,
    /// Rate of all strangers, and their bucket.
    strangers: Option<(Rate, Bucket)>,
    used: BTreeMap<Payer, Use>,
}

#[derive(Debug)]
struct Use {
    allocations: usize,
    bucket: TokenBucket,
    /// Bucket of the priority rate, for sites and networks.
    little: Option<TokenBucket>,
    requests: TokenBucket,
    full_at: Instant,
}

impl Quota {
    pub(super) fn new(config: &RelayConfig, now: Instant) -> Self {
        Self {
            rate_total: rate(config.rate_total),
            all: Bucket::full(now),
            strangers: config
                .strangers
                .as_ref()
                .map(|s| (rate(s.rate.min(config.rate_total)), Bucket::full(now))),
            used: BTreeMap::new(),
        }
    }

    /// Returns the payers of a user's allocation, the user first. A user's name is `NETWORK.NODE`.
    pub(super) fn payers(user: &str, ip: IpAddr, config: &RelayConfig) -> Vec<Payer> {
        let network = user.split_once('.').map_or("", |(network, _)| network);
        let mut payers = vec![Payer::User(user.to_owned())];
        payers.extend(Site::around(ip).map(Payer::Site));
        payers.push(Payer::Network(network.to_owned()));
        if let Some(strangers) = &config.strangers {
            let known_by = strangers.members_of.as_ref();
            let first = known_by.map(|by| pseudonym(&config.secret, by));
            if first.as_deref() != Some(network.trim_end_matches(INSIDE)) {
                payers.push(Payer::Strangers);
            }
        }
        payers
    }

    /// Adds an allocation to `now_used` ones; returns false if a bound is reached.
    pub(super) fn allocate(
        &mut self,
        payers: &[Payer],
        now_used: usize,
        config: &RelayConfig,
        now: Instant,
    ) -> bool {
        let is_half = now_used >= config.allocations / 2;
        let is_full = |payer: &Payer| {
            let mut most = most_allocations(payer, config);
            if is_half {
                most = most.min(few(payer));
            }
            self.used.get(payer).is_some_and(|u| u.allocations >= most)
        };
        if now_used >= config.allocations || payers.iter().any(is_full) {
            return false;
        }
        for payer in payers {
            self.entry(payer, config, now).allocations += 1;
        }
        true
    }

    pub(super) fn end(&mut self, payers: &[Payer]) {
        for payer in payers {
            if let Some(used) = self.used.get_mut(payer) {
                used.allocations = used.allocations.saturating_sub(1);
            }
        }
    }

    /// Charges a request to a user; returns false above the rate.
    pub(super) fn ask(&mut self, user: &str, config: &RelayConfig, now: Instant) -> bool {
        let used = self.entry(&Payer::User(user.to_owned()), config, now);
        let full_again = now + REQUESTS.time_of(REQUESTS.burst());
        used.full_at = used.full_at.max(full_again);
        used.requests.take(1, now)
    }

    /// Charges a packet with `contents` bytes once to each payer; returns false if one has no rest.
    pub(super) fn pay<'a>(
        &mut self,
        payers: impl Iterator<Item = &'a Payer> + Clone,
        contents: usize,
        now: Instant,
    ) -> bool {
        let ready = |payer| {
            let used: Option<&Use> = self.used.get(payer);
            used.is_some_and(|used| used.bucket.ready(now))
        };
        let is_little = self.is_little(payers.clone(), now);
        let class = self.class(payers.clone(), is_little);
        if !self.is_left(class, now) || !payers.clone().all(ready) {
            return false;
        }
        let cost = charged(contents) as u64;
        self.all.spend(self.rate_total, cost, now);
        if let (Class::Stranger(_), Some((rate, strangers))) = (class, &mut self.strangers) {
            strangers.spend(*rate, cost, now);
        }
        for payer in payers {
            if let Some(used) = self.used.get_mut(payer) {
                used.bucket.spend(cost, now);
                used.full_at = used.full_at.max(now + BURST * 2);
                if let Some(little) = used.little.as_mut().filter(|_| is_little) {
                    little.spend(cost, now);
                }
            }
        }
        true
    }

    /// Returns the time at which [`Self::pay`] may succeed again.
    pub(super) fn ready_at<'a>(
        &self,
        payers: impl Iterator<Item = &'a Payer> + Clone,
        now: Instant,
    ) -> Instant {
        let is_little = self.is_little(payers.clone(), now);
        let class = self.class(payers.clone(), is_little);
        let used = payers.filter_map(|payer| self.used.get(payer));
        let ready = used.map(|used| used.bucket.ready_at());
        let all = self
            .all
            .next(self.rate_total, class.kept_of(self.rate_total));
        let strangers = self.strangers.as_ref().zip(class.kept_of_strangers());
        let strangers = strangers.map(|((rate, bucket), kept)| bucket.next(*rate, kept(*rate)));
        ready.chain(strangers).max().unwrap_or(now).max(all)
    }

    /// Drops idle users: one that returns does not get its burst anew.
    pub(super) fn forget(&mut self, now: Instant) {
        let used = |usage: &Use| usage.allocations > 0 || usage.full_at > now;
        self.used.retain(|_, usage| used(usage));
    }

    fn is_little<'a>(&self, payers: impl Iterator<Item = &'a Payer>, now: Instant) -> bool {
        let used = payers.filter_map(|payer| self.used.get(payer));
        let mut little = used.filter_map(|used| used.little.as_ref());
        little.all(|little| little.ready(now))
    }

    fn class<'a>(&self, mut payers: impl Iterator<Item = &'a Payer>, is_little: bool) -> Class {
        match self.strangers {
            Some(_) if payers.any(|payer| *payer == Payer::Strangers) => Class::Stranger(is_little),
            Some(_) => Class::First,
            None => Class::Equal(is_little),
        }
    }

    fn is_left(&self, class: Class, now: Instant) -> bool {
        let has = |bucket: &Bucket, rate: Rate, kept: u64| match kept {
            0 => bucket.ready(rate, now),
            kept => bucket.left(rate, now) >= kept,
        };
        let strangers = self.strangers.as_ref().zip(class.kept_of_strangers());
        let strangers =
            strangers.is_none_or(|((rate, bucket), kept)| has(bucket, *rate, kept(*rate)));
        has(&self.all, self.rate_total, class.kept_of(self.rate_total)) && strangers
    }

    fn entry(&mut self, payer: &Payer, config: &RelayConfig, now: Instant) -> &mut Use {
        let fresh = || Use {
            allocations: 0,
            bucket: TokenBucket::of(rate(most_rate(payer, config)), now),
            little: (few(payer) < usize::MAX)
                .then(|| TokenBucket::of(rate(config.rate_total / LITTLE), now)),
            requests: TokenBucket::of(REQUESTS, now),
            full_at: now,
        };
        self.used.entry(payer.clone()).or_insert_with(fresh)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.used.is_empty()
    }
}

/// Who pays for a packet; `true`: whose sites and networks have used little.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// All networks are equal.
    Equal(bool),
    /// The network that comes first.
    First,
    /// Another one beside it.
    Stranger(bool),
}

fn half(rate: Rate) -> u64 {
    rate.burst() / 2
}

impl Class {
    /// Returns the tokens of all that this class leaves to others.
    fn kept_of(self, all: Rate) -> u64 {
        match self {
            Self::First | Self::Equal(true) => 0,
            Self::Equal(false) | Self::Stranger(_) => half(all),
        }
    }

    /// Returns the tokens of the strangers' bucket that a stranger leaves to others.
    fn kept_of_strangers(self) -> Option<fn(Rate) -> u64> {
        match self {
            Self::Stranger(true) => Some(|_| 0),
            Self::Stranger(false) => Some(half),
            Self::First | Self::Equal(_) => None,
        }
    }
}

fn most_allocations(payer: &Payer, config: &RelayConfig) -> usize {
    match payer {
        Payer::User(_) => config.per_user,
        Payer::Site(site) => config.per_address * site.size.share(),
        Payer::Network(_) if payer.is_inside() => config.allocations.min(INSIDE_ALLOCATIONS),
        Payer::Network(_) => config.allocations,
        // a quarter is for the network that comes first
        Payer::Strangers => config.allocations - config.allocations / 4,
    }
}

fn few(payer: &Payer) -> usize {
    match payer {
        Payer::Site(site) if site.size == SiteSize::Whole => SITE_GUARANTEE,
        Payer::Network(_) => NETWORK_GUARANTEE,
        Payer::User(_) | Payer::Site(_) | Payer::Strangers => usize::MAX,
    }
}

/// Returns the rate in bits a second.
fn most_rate(payer: &Payer, config: &RelayConfig) -> u64 {
    let rate = match payer {
        Payer::User(_) if payer.is_inside() => config.rate.min(INSIDE_RATE),
        Payer::Network(_) if payer.is_inside() => config.leaf_rate,
        Payer::User(_) => config.rate,
        Payer::Site(site) => {
            let share = ADDRESS_SHARE * site.size.share() as u64;
            config.rate.saturating_mul(share)
        }
        Payer::Network(_) | Payer::Strangers => config.rate_total,
    };
    rate.min(config.rate_total)
}

fn rate(bits: u64) -> Rate {
    let burst = bits / 8 * BURST.as_millis() as u64 / 1_000;
    Rate::bits_per_second(bits, burst.max(LEAST_BURST))
}
