//! Clients by site: bounds of their connections and entered rooms, and of recent arrivals.
//!
//! A connection counts as [`UNITS`] rooms that it enters.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lcroute_overlay::{Site, SiteSize};
use librecast::bucket::{Bucket, Rate};
use tokio::time::Instant;

use super::Bounds;

/// Entered rooms that cost a server as much as a connection. Chosen: a room has neither buffers nor
/// a task.
pub(super) const UNITS: usize = 8;
/// Maximum number of connections from a whole site once half of all places are taken. Chosen.
const FEW: usize = 64;
/// Rate of connections per second from one address: a registration costs two signatures, and with
/// TLS a key exchange. Chosen: the nodes of a NAT return within seconds after a restart of the
/// server.
const ARRIVALS: u64 = 16;
/// Burst of connections from one address.
const ARRIVALS_BURST: u64 = 64;
/// Rate of all connections per second: some 5 % of a core.
const ALL_ARRIVALS: u64 = 512;
/// Burst of all connections.
const ALL_ARRIVALS_BURST: u64 = 2_048;
/// Rate of all units.
const ALL: Rate = Rate::per_second(
    ALL_ARRIVALS * UNITS as u64,
    ALL_ARRIVALS_BURST * UNITS as u64,
);
/// Maximum wait of connections beyond the rate.
const LONGEST_WAIT: Duration = Duration::from_secs(4);
/// Number of sites with counted arrivals beyond which resting ones are removed: as many as can
/// arrive within the longest wait and a bucket's fill time.
const MAX_ARRIVALS: usize = 32_768;

/// The reason of a refusal that is told to its client.
pub(super) const TOO_MANY: &str = "too many connections from your address";
const TOO_FAST: &str = "too many connections a second from your address";
const FULL: &str = "too many connections";

const fn arrivals(size: SiteSize) -> Rate {
    let share = (size.share() * UNITS) as u64;
    Rate::per_second(ARRIVALS * share, ARRIVALS_BURST * share)
}

/// The origin of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    pub(super) ip: IpAddr,
    /// Whether it is this host itself, for which no bound of addresses holds: it may run a proxy.
    pub(super) is_this_host: bool,
}

impl Origin {
    pub(super) fn new(from: IpAddr, to: IpAddr) -> Self {
        let (ip, to) = (from.to_canonical(), to.to_canonical());
        let is_this_host = ip.is_loopback() || ip == to;
        Self { ip, is_this_host }
    }

    /// Returns the whole site of the address; none for this host.
    pub(super) fn site(&self) -> Option<Site> {
        let site = Site::around(self.ip).last();
        site.filter(|_| !self.is_this_host)
    }
}

#[derive(Debug)]
pub(super) struct Sources {
    bounds: Bounds,
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    connections: HashMap<Site, usize>,
    /// Units of all.
    connected: usize,
    /// Full buckets are removed from time to time.
    arrivals: HashMap<Site, Bucket>,
    all_arrivals: Bucket,
}

/// Units that count until this is dropped.
#[derive(Debug)]
pub(super) struct Counted {
    sources: Arc<Sources>,
    ip: IpAddr,
    units: usize,
}

/// The reason for which a connection or a room is not served.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TurnedAway {
    /// All places are taken: this many clients.
    Full(usize),
    /// The site has as much as this number of connections.
    TooMany(Site, usize),
    /// The site exceeds this rate of connections; without a site, all together do.
    TooFast(Option<Site>, u64),
}

impl TurnedAway {
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Full(_) => FULL,
            Self::TooMany(..) => TOO_MANY,
            Self::TooFast(..) => TOO_FAST,
        }
    }
}

impl fmt::Display for TurnedAway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(most) => write!(f, "turned away: {most} clients are connected"),
            Self::TooMany(site, most) => {
                write!(f, "{site} turned away: {most} connections from there")
            }
            Self::TooFast(Some(site), most) => {
                write!(
                    f,
                    "{site} turned away: more than {most} connections a second from there"
                )
            }
            Self::TooFast(None, most) => {
                write!(f, "turned away: more than {most} connections a second")
            }
        }
    }
}

impl Sources {
    pub(super) fn new(bounds: Bounds, now: Instant) -> Self {
        let table = Mutex::new(Table {
            connections: HashMap::new(),
            connected: 0,
            arrivals: HashMap::new(),
            all_arrivals: Bucket::full(now.into_std()),
        });
        Self { bounds, table }
    }

    /// Counts a connection ([`UNITS`]) or an entered room (1), if its bounds permit; returns the time
    /// at which it is served.
    pub(super) fn enter(
        self: &Arc<Self>,
        from: Origin,
        units: usize,
        now: Instant,
    ) -> Result<(Counted, Instant), TurnedAway> {
        let mut table = self.locked();
        if table.connected + units > self.bounds.clients * UNITS {
            return Err(TurnedAway::Full(self.bounds.clients));
        }
        let at = match from.is_this_host {
            true => now,
            false => {
                table.check(from.ip, units, &self.bounds)?;
                table.arrive(from.ip, units as u64, now)?
            }
        };
        table.connected += units;
        for site in Site::around(from.ip) {
            *table.connections.entry(site).or_default() += units;
        }
        let counted = Counted {
            sources: Arc::clone(self),
            ip: from.ip,
            units,
        };
        Ok((counted, at))
    }

    fn locked(&self) -> MutexGuard<'_, Table> {
        // no code between lock and unlock leaves the table half changed
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn check(&self, ip: IpAddr, units: usize, bounds: &Bounds) -> Result<(), TurnedAway> {
        let is_half_full = self.connected >= bounds.clients * UNITS / 2;
        for site in Site::around(ip) {
            let mut most = bounds.per_address * site.size.share();
            if is_half_full && site.size == SiteSize::Whole {
                most = most.min(FEW);
            }
            let there = self.connections.get(&site).copied().unwrap_or_default();
            if there + units > most * UNITS {
                return Err(TurnedAway::TooMany(site, most));
            }
        }
        Ok(())
    }

    /// Returns the time at which new units are served: each waits for the earlier ones. Too long a
    /// wait is refused.
    fn arrive(&mut self, ip: IpAddr, units: u64, now: Instant) -> Result<Instant, TurnedAway> {
        let now = now.into_std();
        if self.arrivals.len() >= MAX_ARRIVALS {
            let rate = arrivals(SiteSize::Address);
            // a full bucket equals a missing one; the smallest rate fills last
            self.arrivals
                .retain(|_, bucket| bucket.left(rate, now) < rate.burst());
        }
        let mut at = self.all_arrivals.next(ALL, units);
        if at > now + LONGEST_WAIT {
            return Err(TurnedAway::TooFast(None, ALL_ARRIVALS));
        }
        for site in Site::around(ip) {
            if let Some(bucket) = self.arrivals.get(&site) {
                let next = bucket.next(arrivals(site.size), units);
                if next > now + LONGEST_WAIT {
                    let most = ARRIVALS * site.size.share() as u64;
                    return Err(TurnedAway::TooFast(Some(site), most));
                }
                at = at.max(next);
            }
        }
        self.all_arrivals.spend(ALL, units, now);
        for site in Site::around(ip) {
            let bucket = self.arrivals.entry(site).or_insert(Bucket::full(now));
            bucket.spend(arrivals(site.size), units, now);
        }
        Ok(at.max(now).into())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut table = self.sources.locked();
        table.connected -= self.units;
        for site in Site::around(self.ip) {
            if let Some(count) = table.connections.get_mut(&site) {
                *count -= self.units;
                if *count == 0 {
                    table.connections.remove(&site);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn sources(clients: usize, per_address: usize) -> (Arc<Sources>, Instant) {
        let bounds = Bounds {
            clients,
            per_address,
            ..Bounds::default()
        };
        let now = Instant::now();
        (Arc::new(Sources::new(bounds, now)), now)
    }

    /// The server's address is 192.0.2.1.
    fn from(ip: &str) -> Origin {
        Origin::new(ip.parse().unwrap(), Ipv4Addr::new(192, 0, 2, 1).into())
    }

    fn connect(
        sources: &Arc<Sources>,
        ip: &str,
        now: Instant,
    ) -> Result<(Counted, Instant), TurnedAway> {
        sources.enter(from(ip), UNITS, now)
    }

    #[test]
    fn connections_are_counted_by_address_of_ipv4_and_by_site_of_ipv6() {
        let (sources, now) = sources(1_000, 2);
        let enter = |ip: &str| connect(&sources, ip, now).ok();
        for (same, other) in [
            (
                ["198.51.100.7", "::ffff:198.51.100.7", "198.51.100.7"],
                "198.51.100.8",
            ),
            (
                ["2001:db8::1", "2001:db8::2", "2001:db8:0:0:ffff::"],
                "2001:db8:0:1::1",
            ),
        ] {
            let mut inside: Vec<_> = same[..2].iter().map(|ip| enter(ip).unwrap()).collect();
            assert!(enter(same[2]).is_none() && enter(other).is_some());
            inside.pop();
            assert!(enter(same[2]).is_some(), "one has left");
        }
        assert!(sources.locked().connections.is_empty());
        for own in ["::ffff:127.0.0.1", "192.0.2.1"] {
            let from_here: Vec<_> = (0..9).filter_map(|_| enter(own)).collect();
            assert_eq!(from_here.len(), 9, "a proxy of this host");
        }
    }

    #[test]
    fn eight_rooms_count_as_a_connection() {
        let (sources, now) = sources(3, 2);
        let _connection = connect(&sources, "198.51.100.7", now).unwrap();
        let enter = |ip: &str| sources.enter(from(ip), 1, now);
        let mut rooms: Vec<_> = (0..UNITS).map(|_| enter("198.51.100.7").unwrap()).collect();
        let refused = enter("198.51.100.7").unwrap_err();
        assert!(
            matches!(refused, TurnedAway::TooMany(_, 2)) && refused.reason() == TOO_MANY,
            "{refused}"
        );
        rooms.extend((0..UNITS).map(|_| enter("127.0.0.1").unwrap()));
        let full = enter("127.0.0.1").unwrap_err();
        assert_eq!(full, TurnedAway::Full(3), "all bounds hold together");
        rooms.clear();
        assert!(enter("198.51.100.7").is_ok());
    }

    #[test]
    fn a_prefix_is_counted_beside_its_addresses_and_half_is_for_those_with_few() {
        let (sources, now) = sources(1_000, 40);
        let mut inside = Vec::new();
        let mut enter = |ip: String| {
            let entered = connect(&sources, &ip, now);
            entered.map(|entered| inside.push(entered)).is_ok()
        };
        // a /48 has 65,536 /64s, each of which might have 40 connections
        let of_subnet = (0..200).filter(|n| enter(format!("2001:db8:0:{n:x}::1")));
        assert_eq!(of_subnet.count(), 80);
        let of_site = (0..200).filter(|n| enter(format!("2001:db8:0:{n:x}01::1")));
        assert_eq!(of_site.count(), 80, "160 in all");
        let of_24 = (0..200).filter(|n| enter(format!("198.51.100.{n}")));
        assert_eq!(of_24.count(), 160);
        // beyond 500 there are 64 for each
        for (n, most) in [(1, 160), (2, FEW), (3, FEW)] {
            let of_24 = (0..200).filter(|host| enter(format!("192.1.{n}.{host}")));
            assert_eq!(of_24.count(), most, "{n}");
        }
    }

    #[test]
    fn who_comes_again_and_again_waits_and_others_do_not() {
        let (sources, start) = sources(100_000, 100_000);
        let mut served = 0;
        let mut refused = 0;
        // 1,900 new keys a second for 10 s, from one address
        for n in 0..19_000 {
            let now = start + Duration::from_secs(10) * n / 19_000;
            match connect(&sources, "198.51.100.7", now) {
                Ok((_, at)) => {
                    served += 1;
                    assert!(at <= now + LONGEST_WAIT);
                }
                Err(why) => {
                    refused += 1;
                    let site = Site::around("198.51.100.7".parse().unwrap()).next();
                    assert_eq!(why, TurnedAway::TooFast(site, 16));
                }
            }
        }
        let seconds = 10 + LONGEST_WAIT.as_secs();
        assert!(served <= ARRIVALS_BURST + ARRIVALS * seconds, "{served}");
        assert!(refused > 18_000);
        // a neighbour is served at once
        let now = start + Duration::from_secs(10);
        let (_, at) = connect(&sources, "198.51.100.8", now).unwrap();
        assert_eq!(at, now);
    }

    #[test]
    fn fresh_addresses_of_a_prefix_do_not_come_faster() {
        let (sources, now) = sources(100_000, 100_000);
        let served = (0..2_000_u32)
            .filter(|n| connect(&sources, &format!("2001:db8:0:{n:x}::1"), now).is_ok());
        let most = (ARRIVALS_BURST + ARRIVALS * LONGEST_WAIT.as_secs()) * 4;
        assert!(served.count() as u64 <= most);
        // all sites together, and the size of the table
        let served = (0..100_000_u32).filter(|n| {
            let ip = Ipv4Addr::from_bits(0x0100_0000 + n * 256);
            connect(&sources, &ip.to_string(), now).is_ok()
        });
        let all = ALL_ARRIVALS_BURST + ALL_ARRIVALS * LONGEST_WAIT.as_secs();
        assert!(served.count() as u64 <= all);
        assert!(sources.locked().arrivals.len() <= MAX_ARRIVALS + 3);
    }
}
