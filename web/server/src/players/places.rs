//! Places of clients: a bound for all, one for a /64, and one for an address. Without I/O.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::reasons::CloseReason;
use crate::connections::site;

/// Clients beyond the bounds that are told so at a time. Chosen: further ones are closed at once.
const MAX_ANSWERED: usize = 16;

/// The taken places.
#[derive(Debug)]
pub struct Places {
    most: usize,
    /// Places of one /64: all hosts of a LAN have one, and so has one host with many addresses.
    per_site: usize,
    per_address: usize,
    /// By whole address.
    taken: BTreeMap<IpAddr, usize>,
    answered: usize,
}

/// The decision about a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// It has a place.
    Admitted,
    /// It has none, and may read why.
    Answered(CloseReason),
    /// It has none.
    Refused(CloseReason),
}

impl Places {
    /// Makes this many places.
    pub fn new(most: usize, per_address: usize) -> Self {
        Self {
            most,
            // Chosen: a host with many addresses leaves a quarter to others
            per_site: (most - most / 4).max(per_address),
            per_address,
            taken: BTreeMap::new(),
            answered: 0,
        }
    }

    /// Decides about a connection of an address.
    pub fn enter(&mut self, from: IpAddr) -> Entry {
        let of_address = self.taken.get(&from).copied().unwrap_or_default();
        let reason = if of_address >= self.per_address {
            CloseReason::TooManyOfAddress
        } else if self.clients() >= self.most {
            CloseReason::TooManyClients
        } else if self.of_site(site(from)) >= self.per_site {
            CloseReason::TooManyOfPrefix
        } else {
            *self.taken.entry(from).or_default() += 1;
            return Entry::Admitted;
        };
        if self.answered >= MAX_ANSWERED {
            return Entry::Refused(reason);
        }
        self.answered += 1;
        Entry::Answered(reason)
    }

    /// Frees the place of a connection that was decided so.
    pub fn leave(&mut self, from: IpAddr, entry: Entry) {
        match entry {
            Entry::Admitted => {
                let of_address = self.taken.get_mut(&from);
                debug_assert!(of_address.is_some(), "each place is freed once");
                if let Some(count) = of_address {
                    *count -= 1;
                    if *count == 0 {
                        self.taken.remove(&from);
                    }
                }
            }
            Entry::Answered(_) => self.answered -= 1,
            Entry::Refused(_) => {}
        }
    }

    fn of_site(&self, of: IpAddr) -> usize {
        let taken = self.taken.iter().filter(|(from, _)| site(**from) == of);
        taken.map(|(_, count)| count).sum()
    }

    /// Returns the number of admitted clients.
    pub fn clients(&self) -> usize {
        self.taken.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u16) -> IpAddr {
        in_prefix(n, 1)
    }

    fn in_prefix(prefix: u16, n: u16) -> IpAddr {
        IpAddr::from([0xfd00, 0, 0, prefix, 0, 0, 0, n])
    }

    #[test]
    fn the_201st_client_is_told_that_there_are_too_many() {
        let mut places = Places::new(200, 16);
        for n in 0..200 {
            assert_eq!(places.enter(address(n / 16)), Entry::Admitted, "{n}");
        }
        let all = Entry::Answered(CloseReason::TooManyClients);
        assert_eq!(places.enter(address(99)), all);
        places.leave(address(0), Entry::Admitted);
        assert_eq!(places.enter(address(99)), Entry::Admitted);
    }

    #[test]
    fn one_host_with_many_addresses_leaves_places_to_others() {
        let mut places = Places::new(200, 16);
        let entries: Vec<_> = (0..200).map(|n| places.enter(in_prefix(1, n))).collect();
        let reason = CloseReason::TooManyOfPrefix;
        assert!(entries[..150].iter().all(|e| *e == Entry::Admitted));
        assert_eq!(entries[150], Entry::Answered(reason));
        for other in [in_prefix(2, 1), IpAddr::from([192, 0, 2, 1])] {
            assert_eq!(places.enter(other), Entry::Admitted, "{other}");
        }
        places.leave(in_prefix(1, 0), Entry::Admitted);
        assert_eq!(places.enter(in_prefix(1, 999)), Entry::Admitted);
        // a share for one address may be larger
        let mut places = Places::new(16, 16);
        let of_one = [(); 16].map(|()| places.enter(address(1)));
        assert!(of_one.iter().all(|e| *e == Entry::Admitted));
    }

    #[test]
    fn an_address_has_its_own_bound_and_who_is_told_is_bounded_too() {
        let mut places = Places::new(200, 16);
        let entries = [(); 64].map(|()| places.enter(address(1)));
        let reason = CloseReason::TooManyOfAddress;
        assert!(entries[..16].iter().all(|e| *e == Entry::Admitted));
        assert!(
            entries[16..32]
                .iter()
                .all(|e| *e == Entry::Answered(reason))
        );
        assert!(entries[32..].iter().all(|e| *e == Entry::Refused(reason)));
        assert_eq!(places.enter(address(2)), Entry::Admitted);
        for entry in entries {
            places.leave(address(1), entry);
        }
        assert_eq!((places.clients(), places.answered), (1, 0));
        assert!(!places.taken.contains_key(&address(1)));
    }
}
