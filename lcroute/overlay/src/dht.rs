//! Presence records as items of a DHT (BEP 44), under keys that change daily.
//!
//! ```text
//! key                                        who can write there       who knows it
//! PeerId of a node, blinded for the day      that node                 members
//! mailbox of a node, blinded for the day     every member              members
//! ```
//!
//! Who knows a node finds its record under the first. A node that has just joined is known to nobody: it puts its record into
//! the mailbox of its issuer, so that both ask for a link, which opens firewalls on both sides. What is in a mailbox is a
//! sealed and signed record as anywhere; who floods it keeps newcomers from being found, and no more. It holds one record at a
//! time: of several newcomers each signs its own anew, later than the others, until it is found.
//!
//! The names follow the network's epoch ([`librecast::epoch`]): who was expelled knows none that are in use.
//!
//! Clocks may differ by twelve hours: a record is held under the names of two days, and looked up under that of today.

use librecast::id::{PeerId, SecretKey, derive};
use librecast::reach::{Base58, Item, Key, Value, signed_bytes};

use crate::event::Published;
use crate::record::{RECORD_LIFETIME, Rendezvous};

/// By so many seconds clocks may differ: half a day.
const SKEW: u64 = 43_200;

impl Rendezvous {
    /// The key under which a node's record is today.
    #[must_use]
    pub fn key_of(&self, node: &PeerId, unix: u64) -> Key {
        Base58(self.name(node, unix))
    }

    /// The key of a node's mailbox today.
    #[must_use]
    pub fn mailbox_of(&self, node: &PeerId, unix: u64) -> Key {
        self.key_of(&self.mailbox(node).peer_id(), unix)
    }

    /// The record of the node with this key, for all that look for it.
    #[must_use]
    pub fn items(&self, key: &SecretKey, record: &Published, unix: u64) -> Vec<Item> {
        let days = [unix.saturating_sub(SKEW), unix.saturating_add(SKEW)];
        // a newer record is good for longer
        let items = days.map(|day| self.item(key, (record, record.until), day));
        items.into()
    }

    /// A record for the mailbox of a node, signed for it at the time `signed`; of several records there the one signed last counts.
    #[must_use]
    pub fn mailbox_items(
        &self,
        of: &PeerId,
        (record, signed): (&Published, u64),
        unix: u64,
    ) -> Vec<Item> {
        let days = [unix.saturating_sub(SKEW), unix.saturating_add(SKEW)];
        let mailbox = self.mailbox(of);
        // comparable with those of nodes that leave a record there once, under the end of its lifetime
        let sequence = signed.saturating_add(RECORD_LIFETIME);
        let items = days.map(|day| self.item(&mailbox, (record, sequence), day));
        items.into()
    }

    /// Every member has this key.
    fn mailbox(&self, node: &PeerId) -> SecretKey {
        let network = self.network().public_key();
        let seed = derive("lcroute 2026 mailbox", &[network, node.public_key()]);
        SecretKey::from_seed(&seed)
    }

    fn item(&self, key: &SecretKey, (record, sequence): (&Published, u64), unix: u64) -> Item {
        let sequence = i64::try_from(sequence).unwrap_or(i64::MAX);
        let message = signed_bytes(sequence, &record.sealed);
        let signature = key.sign_blinded(&self.name_secret(unix), &message);
        Item {
            key: self.key_of(&key.peer_id(), unix),
            sequence,
            value: Value(record.sealed.to_vec()),
            signature: Base58(signature),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;
    const NOON: u64 = 1_800_000_000 / DAY * DAY + SKEW;

    fn key(n: u8) -> SecretKey {
        SecretKey::from_seed(&[n; 32])
    }

    fn published() -> Published {
        Published {
            name: [0; 32],
            sealed: vec![7; 256].into(),
            until: NOON + DAY,
            epoch: Rendezvous::new(key(9).peer_id()),
        }
    }

    #[test]
    fn a_record_is_found_by_clocks_that_differ_by_half_a_day() {
        let rendezvous = Rendezvous::new(key(9).peer_id());
        let node = key(1);
        for unix in [NOON - SKEW, NOON - 1, NOON, NOON + SKEW - 1] {
            let items = rendezvous.items(&node, &published(), unix);
            assert_eq!(items.len(), 2);
            for skewed in [unix - SKEW, unix, unix + SKEW] {
                let sought = rendezvous.key_of(&node.peer_id(), skewed);
                let found = items.iter().any(|item| item.key == sought);
                assert!(found, "at {unix} by {skewed}");
            }
        }
    }

    #[test]
    fn a_mailbox_is_known_to_members_and_differs_by_day_node_and_network() {
        let (rendezvous, other) = (
            Rendezvous::new(key(9).peer_id()),
            Rendezvous::new(key(8).peer_id()),
        );
        let (node, another) = (key(1).peer_id(), key(2).peer_id());
        let mailbox = rendezvous.mailbox_of(&node, NOON);
        let items = rendezvous.mailbox_items(&node, (&published(), NOON), NOON);
        assert!(items.iter().any(|item| item.key == mailbox));
        let later = rendezvous.mailbox_items(&node, (&published(), NOON + 1), NOON);
        let pairs = items.iter().zip(&later);
        assert!(pairs.into_iter().all(|(a, b)| a.sequence < b.sequence));
        let different = [
            mailbox,
            rendezvous.mailbox_of(&node, NOON + DAY),
            rendezvous.mailbox_of(&another, NOON),
            other.mailbox_of(&node, NOON),
            rendezvous.key_of(&node, NOON),
        ];
        let different: std::collections::BTreeSet<_> = different.into_iter().collect();
        assert_eq!(different.len(), 5);
    }
}
