//! Places for leaves, bounded by address: keys cost nothing, so no address gets all places.

use std::collections::BTreeMap;
use std::net::IpAddr;

use librecast::id::LinkId;

use crate::site::Site;

/// Leaves of one address beyond which a further one takes a place of the common half. Larger sites
/// have [`crate::site::SiteSize::share`] times as many. Chosen: a household.
const FEW: usize = 8;

/// Links of leaves, by address.
#[derive(Debug, Default)]
pub(crate) struct LeafPlaces {
    leaves: BTreeMap<LinkId, Place>,
    sites: BTreeMap<Site, usize>,
    /// Number of leaves beyond the share of their address.
    crowd: usize,
}

#[derive(Debug)]
struct Place {
    address: Option<IpAddr>,
    is_crowd: bool,
}

impl LeafPlaces {
    /// Admits a leaf at this address, if it is known; false if there is no room among `max` leaves.
    pub(crate) fn admit(&mut self, link: LinkId, address: Option<IpAddr>, max: usize) -> bool {
        let mut sites = address.into_iter().flat_map(Site::around);
        let leaves = |site: &Site| self.sites.get(site).copied().unwrap_or_default();
        // leaves with unknown addresses share the second half
        let is_crowd =
            address.is_none() || sites.any(|site| leaves(&site) >= FEW * site.size.share());
        if is_crowd && self.crowd >= max / 2 || self.leaves.len() >= max {
            return false;
        }
        for site in address.into_iter().flat_map(Site::around) {
            *self.sites.entry(site).or_default() += 1;
        }
        self.crowd += usize::from(is_crowd);
        let replaced = self.leaves.insert(link, Place { address, is_crowd });
        debug_assert!(replaced.is_none(), "a leaf takes one place");
        self.check(max);
        true
    }

    /// Asserts the bounds of places.
    fn check(&self, max: usize) {
        debug_assert!(self.leaves.len() <= max, "leaves have a bound");
        debug_assert!(
            self.crowd <= self.leaves.len(),
            "the crowd is a part of all leaves"
        );
        debug_assert!(
            !self.leaves.is_empty() || self.sites.is_empty(),
            "a site without leaves is forgotten"
        );
    }

    /// Returns the number of leaves.
    pub(crate) fn len(&self) -> usize {
        self.leaves.len()
    }

    pub(crate) fn remove(&mut self, link: LinkId) {
        let Some(place) = self.leaves.remove(&link) else {
            return;
        };
        self.crowd -= usize::from(place.is_crowd);
        for site in place.address.into_iter().flat_map(Site::around) {
            if let Some(leaves) = self.sites.get_mut(&site) {
                *leaves -= 1;
                if *leaves == 0 {
                    self.sites.remove(&site);
                }
            }
        }
        self.check(usize::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(places: &mut LeafPlaces, address: &str, links: std::ops::Range<u32>) -> usize {
        let address = address.parse().ok();
        let admits = |link: &u32| places.admit(LinkId(*link), address, 100);
        links.filter(admits).count()
    }

    #[test]
    fn many_leaves_of_one_address_leave_half_of_the_places_to_others() {
        let mut places = LeafPlaces::default();
        assert_eq!(admitted(&mut places, "198.51.100.7", 0..200), 58);
        assert_eq!(admitted(&mut places, "2001:db8::1", 200..300), 8);
        assert_eq!(admitted(&mut places, "2001:db8:1::1", 300..400), 8);
        for n in 0..30 {
            let address = format!("192.0.{n}.1");
            let link = 400 + n;
            let expected = usize::from(n < 26);
            assert_eq!(admitted(&mut places, &address, link..link + 1), expected);
        }
        (0..1_000).for_each(|n| places.remove(LinkId(n)));
        assert!(places.sites.is_empty() && places.leaves.is_empty());
        assert_eq!(admitted(&mut places, "198.51.100.7", 0..200), 58);
    }

    #[test]
    fn a_prefix_is_no_number_of_addresses_and_an_unknown_one_is_anybodys() {
        let mut places = LeafPlaces::default();
        let whole = (0..100).filter(|n| {
            let address = format!("2001:db8:7:{n:x}::1");
            places.admit(LinkId(*n), address.parse().ok(), 100)
        });
        assert_eq!(whole.count(), 16 + 50);
        assert_eq!(admitted(&mut places, "unknown", 200..300), 0);
    }
}
