//! Offers of helpers: neighbours that have places for leaves in this node's stead.

use std::collections::BTreeMap;

use bytes::Bytes;
use lcroute_engine::RoutedKind;
use lcroute_engine::control::{self, Element, Routed};
use lcroute_overlay::HelperOffer;
use librecast::id::{LinkId, OriginId};
use librecast::time::{Duration, Instant};

/// Interval at which an unchanged offer is repeated. Chosen: a slow link may drop one.
const REPEAT: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(crate) struct Offers {
    /// The last offer of each neighbour.
    taken: BTreeMap<LinkId, HelperOffer>,
    /// The last own offer to each neighbour, and its time.
    sent: BTreeMap<LinkId, (HelperOffer, Instant)>,
}

impl Offers {
    /// Takes the offer of the neighbour at the other end of this link; false: it is unreadable.
    pub(crate) fn take(&mut self, link: LinkId, payload: &[u8]) -> bool {
        let Ok(offer) = HelperOffer::decode(payload) else {
            return false;
        };
        self.taken.insert(link, offer);
        true
    }

    pub(crate) fn link_down(&mut self, link: LinkId) {
        self.taken.remove(&link);
        self.sent.remove(&link);
    }

    pub(crate) fn of(&self, link: LinkId) -> Option<&HelperOffer> {
        self.taken.get(&link)
    }

    /// Returns whether this offer is to be sent on a link now: it is another one, or old.
    pub(crate) fn is_due(&mut self, link: LinkId, offer: &HelperOffer, now: Instant) -> bool {
        let last = self.sent.get(&link);
        let is_due = last.is_none_or(|(last, at)| last != offer || *at + REPEAT <= now);
        if is_due {
            self.sent.insert(link, (offer.clone(), now));
        }
        is_due
    }
}

/// Returns the control messages that carry an offer to a neighbour, over no other router.
pub(crate) fn messages(offer: &HelperOffer, own: OriginId, neighbor: OriginId) -> Vec<Bytes> {
    control::encode(&[Element::Routed(Routed {
        destination: neighbor,
        source: own,
        hop_limit: 1,
        kind: RoutedKind::HelperOffer,
        payload: offer.encode().into(),
    })])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    const LINK: LinkId = LinkId(7);

    fn offer(room: u16) -> HelperOffer {
        HelperOffer {
            room,
            leaves: 0,
            candidates: Vec::new(),
        }
    }

    #[test]
    fn the_last_readable_offer_of_a_link_counts_until_it_goes_down() {
        let mut offers = Offers::default();
        assert!(offers.take(LINK, &offer(5).encode()));
        assert!(!offers.take(LINK, b"?"));
        assert_eq!(offers.of(LINK), Some(&offer(5)));
        assert!(offers.take(LINK, &offer(0).encode()));
        assert_eq!(offers.of(LINK), Some(&offer(0)));
        offers.link_down(LINK);
        assert_eq!(offers.of(LINK), None);
    }

    #[test]
    fn an_offer_leaves_at_once_if_it_changes_and_is_repeated() {
        let (mut offers, now) = (Offers::default(), start());
        assert!(offers.is_due(LINK, &offer(5), now));
        assert!(!offers.is_due(LINK, &offer(5), now));
        assert!(offers.is_due(LinkId(8), &offer(5), now));
        assert!(offers.is_due(LINK, &offer(4), now));
        assert!(!offers.is_due(LINK, &offer(4), now + REPEAT / 2));
        assert!(offers.is_due(LINK, &offer(4), now + REPEAT));
        // a new link of the same neighbour
        offers.link_down(LINK);
        assert!(offers.is_due(LINK, &offer(4), now + REPEAT));
    }
}
