//! Presence records as items of a DHT (BEP 44), under keys that change daily.
//!
//! ```text
//! key                                        writers                  readers
//! PeerId of a node, blinded for the day      that node                 members
//! mailbox of a node, blinded for the day     every member              members
//! ```
//!
//! A member that knows a node finds its record under the first key. No member knows a node that has
//! just joined. The new node writes its record into the mailbox of its issuer, so that both request
//! a link, which opens firewalls on both sides. The mailbox contains sealed, signed records, as any
//! carrier does; a flood of it only keeps new nodes from being found. It holds one record at a
//! time: each of several new nodes signs its own again, with a later time, until it is found.
//!
//! Names follow the network's epoch ([`librecast::epoch`]): expelled nodes know no present name.
//!
//! Clocks may differ by twelve hours: a node publishes under two days' names, and looks up today's.

use librecast::id::{PeerId, SecretKey, derive};
use librecast::reach::{Base58, Item, Key, Value, signed_bytes};
use librecast::time::UnixTime;

use crate::event::Published;
use crate::record::{RECORD_LIFETIME, Rendezvous};

/// Permitted clock difference in seconds: half a day.
const SKEW: u64 = 43_200;

/// Returns the earliest and the latest time by another node's clock.
fn days(time: UnixTime) -> [UnixTime; 2] {
    let seconds = time.as_secs();
    let days = [seconds.saturating_sub(SKEW), seconds.saturating_add(SKEW)];
    days.map(UnixTime::from_secs)
}

impl Rendezvous {
    /// Returns the key under which a node's record is today.
    pub fn key_of(&self, node: &PeerId, time: UnixTime) -> Key {
        Base58(self.name(node, time))
    }

    /// Returns the key of a node's mailbox today.
    pub fn mailbox_of(&self, node: &PeerId, time: UnixTime) -> Key {
        self.key_of(&self.mailbox(node).peer_id(), time)
    }

    /// Returns the DHT items for the record of the node with this key.
    pub fn items(&self, key: &SecretKey, record: &Published, time: UnixTime) -> Vec<Item> {
        // a newer record ends later
        let items = days(time).map(|day| self.item(key, (record, record.until), day));
        items.into()
    }

    /// Returns the items for a node's mailbox, signed at the time `signed`; the latest record
    /// counts.
    #[must_use]
    pub fn mailbox_items(
        &self,
        of: &PeerId,
        (record, signed): (&Published, u64),
        time: UnixTime,
    ) -> Vec<Item> {
        let mailbox = self.mailbox(of);
        // comparable with nodes that write a record once, with the end of its lifetime as sequence
        let sequence = signed.saturating_add(RECORD_LIFETIME);
        let items = days(time).map(|day| self.item(&mailbox, (record, sequence), day));
        items.into()
    }

    /// Returns the mailbox's key, which every member can derive.
    fn mailbox(&self, node: &PeerId) -> SecretKey {
        let network = self.network().public_key();
        let seed = derive("lcroute 2026 mailbox", &[network, node.public_key()]);
        SecretKey::from_seed(&seed)
    }

    fn item(&self, key: &SecretKey, (record, sequence): (&Published, u64), time: UnixTime) -> Item {
        let sequence = i64::try_from(sequence).unwrap_or(i64::MAX);
        let message = signed_bytes(sequence, &record.sealed);
        let signature = key.sign_blinded(&self.name_secret(time), &message);
        Item {
            key: self.key_of(&key.peer_id(), time),
            sequence,
            value: Value(record.sealed.to_vec()),
            signature: Base58(signature),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::key;

    const DAY: u64 = 86_400;
    const NOON: u64 = 1_800_000_000 / DAY * DAY + SKEW;

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
        for time in [NOON - SKEW, NOON - 1, NOON, NOON + SKEW - 1] {
            let items = rendezvous.items(&node, &published(), UnixTime::from_secs(time));
            assert_eq!(items.len(), 2);
            for skewed in [time - SKEW, time, time + SKEW] {
                let sought = rendezvous.key_of(&node.peer_id(), UnixTime::from_secs(skewed));
                let found = items.iter().any(|item| item.key == sought);
                assert!(found, "at {time} by {skewed}");
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
        let mailbox = rendezvous.mailbox_of(&node, UnixTime::from_secs(NOON));
        let items =
            rendezvous.mailbox_items(&node, (&published(), NOON), UnixTime::from_secs(NOON));
        assert!(items.iter().any(|item| item.key == mailbox));
        let later =
            rendezvous.mailbox_items(&node, (&published(), NOON + 1), UnixTime::from_secs(NOON));
        let pairs = items.iter().zip(&later);
        assert!(pairs.into_iter().all(|(a, b)| a.sequence < b.sequence));
        let different = [
            mailbox,
            rendezvous.mailbox_of(&node, UnixTime::from_secs(NOON + DAY)),
            rendezvous.mailbox_of(&another, UnixTime::from_secs(NOON)),
            other.mailbox_of(&node, UnixTime::from_secs(NOON)),
            rendezvous.key_of(&node, UnixTime::from_secs(NOON)),
        ];
        let different: std::collections::BTreeSet<_> = different.into_iter().collect();
        assert_eq!(different.len(), 5);
    }
}
