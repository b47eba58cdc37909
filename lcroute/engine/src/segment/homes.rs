//! The addresses of this LAN: those that its hosts have used for a while, and its routers'.
//!
//! They stay the LAN's own while their hosts are silent, until the user gives them away or the same
//! host, by its Ethernet address, is elsewhere.

use std::collections::{BTreeSet, VecDeque};
use std::net::Ipv6Addr;

use librecast::ethernet::MacAddress;
use librecast::time::{Duration, Instant};

use crate::table::Table;

/// Time after its first statement in which a host must state its address again: a single forged
/// statement makes no address the LAN's own. Chosen.
const SETTLING: Duration = Duration::from_secs(5);
/// Most addresses of hosts; the one silent for the longest gives way. Chosen: as many as the
/// directory keeps.
const MAX_HOSTS: usize = 4_096;
/// Most routers that the wire shows, the last ones. Chosen: a LAN has a few.
const MAX_SHOWN: usize = 16;
/// Most addresses that the user has given away, the last ones. Chosen: given by hand.
const MAX_RELEASED: usize = 64;

#[derive(Debug)]
struct Home {
    mac: MacAddress,
    is_settled: bool,
    /// Within [`SETTLING`].
    last: Instant,
}

/// All addresses of this LAN.
#[derive(Debug)]
pub struct Homes {
    hosts: Table<Ipv6Addr, Home>,
    ages: BTreeSet<(Instant, Ipv6Addr)>,
    /// Routers by the gateway's own routing table.
    routers: Vec<Ipv6Addr>,
    /// Routers by DHCP and Router Advertisements.
    shown: VecDeque<Ipv6Addr>,
    released: VecDeque<Ipv6Addr>,
}

impl Homes {
    /// Knows none.
    pub fn new(seed: u64) -> Self {
        Self {
            hosts: Table::new(seed),
            ages: BTreeSet::new(),
            routers: Vec::new(),
            shown: VecDeque::new(),
            released: VecDeque::new(),
        }
    }

    /// Sets the routers of the gateway's own routing table.
    pub fn set_routers(&mut self, routers: Vec<Ipv6Addr>) {
        self.routers = routers;
    }

    /// Notes a router that a message on the wire has shown.
    pub fn note_router(&mut self, router: Ipv6Addr) {
        if !self.is_router(router) {
            push_bounded(&mut self.shown, router, MAX_SHOWN);
        }
    }

    /// Notes that a host here has stated its address.
    pub fn note(&mut self, address: Ipv6Addr, mac: MacAddress, now: Instant) {
        self.released.retain(|given| *given != address);
        let Some(home) = self.hosts.get_mut(&address) else {
            return self.insert(address, mac, now);
        };
        home.mac = mac;
        if now >= home.last + SETTLING {
            self.ages.remove(&(home.last, address));
            self.ages.insert((now, address));
            (home.last, home.is_settled) = (now, true);
        }
    }

    fn insert(&mut self, address: Ipv6Addr, mac: MacAddress, now: Instant) {
        if self.ages.len() >= MAX_HOSTS
            && let Some((_, oldest)) = self.ages.first().copied()
        {
            self.forget(oldest);
        }
        let home = Home {
            mac,
            is_settled: false,
            last: now,
        };
        self.hosts.insert(address, home);
        self.ages.insert((now, address));
        debug_assert!(
            self.ages.len() == self.hosts.len() && self.ages.len() <= MAX_HOSTS,
            "the host that is silent for the longest gives way"
        );
    }

    /// Forgets a host that is elsewhere now.
    pub fn forget(&mut self, address: Ipv6Addr) {
        if let Some(home) = self.hosts.remove(&address) {
            self.ages.remove(&(home.last, address));
        }
    }

    /// Gives an address away: a host elsewhere may have it, until one here states it.
    pub fn release(&mut self, address: Ipv6Addr) {
        self.forget(address);
        self.released.retain(|given| *given != address);
        push_bounded(&mut self.released, address, MAX_RELEASED);
    }

    /// Returns whether an address is one of the LAN's routers'.
    pub fn is_router(&self, address: Ipv6Addr) -> bool {
        let mut routers = self.routers.iter().chain(&self.shown);
        routers.any(|router| *router == address) && !self.released.contains(&address)
    }

    /// Returns whether a host here with this Ethernet address has the address of a router.
    pub fn is_of_router(&self, mac: MacAddress) -> bool {
        let mut routers = self.routers.iter().chain(&self.shown);
        routers.any(|router| self.hosts.get(router).is_some_and(|home| home.mac == mac))
    }

    /// Returns whether the address is the LAN's own.
    pub fn has(&self, address: Ipv6Addr) -> bool {
        let host = self.hosts.get(&address);
        self.is_router(address) || host.is_some_and(|home| home.is_settled)
    }

    /// Returns whether the address is the LAN's own, and the claimed host is not its own host at
    /// another place.
    pub fn keeps(&self, address: Ipv6Addr, claimed: MacAddress) -> bool {
        let host = self.hosts.get(&address);
        self.is_router(address) || host.is_some_and(|home| home.is_settled && home.mac != claimed)
    }
}

/// Adds one, and drops the first beyond the bound.
fn push_bounded(list: &mut VecDeque<Ipv6Addr>, one: Ipv6Addr, bound: usize) {
    if list.len() >= bound {
        list.pop_front();
    }
    list.push_back(one);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
    const OTHER: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);

    fn address(n: usize) -> Ipv6Addr {
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n as u16)
    }

    #[test]
    fn an_address_in_use_for_a_while_is_kept_for_its_host_wherever_it_is() {
        let mut homes = Homes::new(1);
        homes.note(address(1), MAC, start());
        assert!(!homes.has(address(1)), "one statement may be forged");
        homes.note(address(1), MAC, start() + SETTLING);
        assert!(homes.has(address(1)) && homes.keeps(address(1), OTHER));
        assert!(!homes.keeps(address(1), MAC), "the same host");
        homes.release(address(1));
        assert!(!homes.has(address(1)));
    }

    #[test]
    fn a_routers_address_is_given_away_by_the_user_alone_until_it_speaks_again() {
        let mut homes = Homes::new(1);
        homes.set_routers(vec![address(1)]);
        homes.note_router(address(2));
        homes.note(address(2), MAC, start());
        for router in [1, 2].map(address) {
            assert!(homes.keeps(router, MAC));
            homes.release(router);
            assert!(!homes.keeps(router, MAC));
            homes.note(router, MAC, start());
            assert!(homes.is_router(router));
        }
        assert!(homes.is_of_router(MAC) && !homes.is_of_router(OTHER));
    }

    #[test]
    fn tables_are_bounded_and_the_routing_tables_routers_stay() {
        let mut homes = Homes::new(1);
        homes.set_routers(vec![address(0)]);
        for n in 1..10_000 {
            let now = start() + Duration::from_millis(n as u64);
            homes.note(address(n), MAC, now);
            homes.note_router(address(n));
            homes.release(address(n));
            homes.note(address(n), MAC, now);
        }
        assert_eq!(homes.ages.len(), MAX_HOSTS);
        assert_eq!(homes.hosts.sorted_keys().len(), MAX_HOSTS);
        assert_eq!(homes.shown.len(), MAX_SHOWN);
        assert!(homes.is_router(address(0)));
        assert!(homes.released.len() <= MAX_RELEASED);
    }
}
