//! Presence records: those of carriers with their owners, and the publication of this node's own.

use std::collections::BTreeMap;

use lcroute_overlay::{CarrierId, CarrierKind, MAX_RECORD};
use librecast::id::PeerId;
use librecast::time::{Duration, Instant, UnixTime};

/// Maximum number of records of all carriers.
const MAX_RECORDS: usize = 4_096;
/// Maximum number of records that no known epoch opens: carriers bring each once. Chosen: 128 KiB.
const MAX_UNOPENED: usize = 256;
/// Delay after an address change, within which further changes of the same cause follow.
const SETTLES_IN: Duration = Duration::from_millis(200);
/// Minimum pause between two records: carriers repeat each.
const PAUSE: Duration = Duration::from_secs(2);
/// Age at which a record is renewed: it is valid for a day, and should not come close to its end.
const RENEWED_AFTER: Duration = Duration::from_secs(6 * 3_600);
/// Seconds of a day: names of records change with it.
const DAY: u64 = 86_400;

/// A carrier, and its name for the record.
pub(crate) type Key = (CarrierId, String);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KnownRecord {
    pub(crate) peer: PeerId,
    pub(crate) kind: CarrierKind,
    until: Instant,
}

#[derive(Debug)]
pub(crate) struct Records {
    known: BTreeMap<Key, KnownRecord>,
    /// Records that no known epoch opens.
    unopened: BTreeMap<Key, (CarrierKind, Vec<u8>)>,
    publish_at: Instant,
    published: Option<Instant>,
}

impl Records {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            known: BTreeMap::new(),
            unopened: BTreeMap::new(),
            publish_at: now + RENEWED_AFTER,
            published: None,
        }
    }

    /// Adds a carrier's record of `peer`; returns another peer's that it replaces. None: no room.
    pub(crate) fn insert(
        &mut self,
        key: Key,
        (kind, peer): (CarrierKind, PeerId),
        until: Instant,
    ) -> Option<Option<KnownRecord>> {
        if !self.known.contains_key(&key) && self.known.len() >= MAX_RECORDS {
            return None;
        }
        self.unopened.remove(&key);
        let known = KnownRecord { peer, kind, until };
        let before = self.known.insert(key, known);
        Some(before.filter(|before| before.peer != peer))
    }

    /// Stores a record that cannot be opened for another epoch, while there is room.
    pub(crate) fn insert_unopened(&mut self, key: Key, kind: CarrierKind, sealed: &[u8]) {
        let is_known = self.unopened.contains_key(&key);
        if sealed.len() <= MAX_RECORD && (is_known || self.unopened.len() < MAX_UNOPENED) {
            self.unopened.insert(key, (kind, sealed.to_vec()));
        }
    }

    /// Removes and returns all records that could not be opened.
    pub(crate) fn take_unopened(&mut self) -> BTreeMap<Key, (CarrierKind, Vec<u8>)> {
        std::mem::take(&mut self.unopened)
    }

    /// Removes a record; returns it if the carrier has no other of that node.
    pub(crate) fn remove(&mut self, key: &Key) -> Option<KnownRecord> {
        self.unopened.remove(key);
        let known = self.known.remove(key)?;
        (!self.has(key.0, &known.peer)).then_some(known)
    }

    pub(crate) fn remove_all(&mut self, carrier: CarrierId) -> Vec<KnownRecord> {
        self.unopened.retain(|(other, _), _| *other != carrier);
        let of_carrier = self.known.keys().filter(|(other, _)| *other == carrier);
        let keys: Vec<_> = of_carrier.cloned().collect();
        let known = keys.iter().filter_map(|key| self.known.remove(key));
        known.collect()
    }

    pub(crate) fn expired(&mut self, now: Instant) -> Vec<(CarrierId, KnownRecord)> {
        let due = self.known.iter().filter(|(_, known)| known.until <= now);
        let due: Vec<_> = due.map(|(key, _)| key.clone()).collect();
        let gone = due
            .iter()
            .filter_map(|key| Some((key.0, self.remove(key)?)));
        gone.collect()
    }

    /// Schedules a new record after a change of this node's addresses.
    pub(crate) fn addresses_changed(&mut self, now: Instant) {
        let earliest = self.published.map_or(now, |at| at + PAUSE);
        let at = (now + SETTLES_IN).max(earliest);
        self.publish_at = self.publish_at.min(at);
    }

    /// Returns whether this node's record is due; the next follows at the latest with the next day.
    pub(crate) fn publish(&mut self, time: UnixTime, now: Instant) -> bool {
        if now < self.publish_at {
            return false;
        }
        self.published = Some(now);
        let left_of_day = Duration::from_secs(DAY - time.as_secs() % DAY);
        self.publish_at = now + RENEWED_AFTER.min(left_of_day);
        true
    }

    pub(crate) fn next_timeout(&self) -> Instant {
        let expiry = self.known.values().map(|known| known.until).min();
        expiry.map_or(self.publish_at, |at| at.min(self.publish_at))
    }

    fn has(&self, carrier: CarrierId, peer: &PeerId) -> bool {
        let of_carrier = self.known.range((carrier, String::new())..);
        let mut of_carrier = of_carrier.take_while(|((other, _), _)| *other == carrier);
        of_carrier.any(|(_, known)| known.peer == *peer)
    }
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;

    use super::*;
    use crate::testing::start;

    const LAN: CarrierId = CarrierId(3);

    fn peer(n: u8) -> PeerId {
        SecretKey::from_seed(&[n; 32]).peer_id()
    }

    fn key(name: &str) -> Key {
        (LAN, name.to_owned())
    }

    #[test]
    fn a_node_with_two_names_is_gone_with_the_last() {
        let now = start();
        let (mut records, until) = (Records::new(now), now + PAUSE);
        let lan = |n| (CarrierKind::Lan, peer(n));
        assert_eq!(records.insert(key("today"), lan(1), until), Some(None));
        assert_eq!(records.insert(key("tomorrow"), lan(1), until), Some(None));
        assert_eq!(records.remove(&key("today")), None);
        let gone = records.remove(&key("tomorrow")).map(|known| known.peer);
        assert_eq!(gone, Some(peer(1)));
        assert_eq!(records.insert(key("today"), lan(1), until), Some(None));
        assert!(records.expired(now).is_empty());
        assert_eq!(records.next_timeout(), until);
        let expired = records.expired(until);
        assert_eq!(expired.len(), 1);
        assert_eq!((expired[0].0, expired[0].1.peer), (LAN, peer(1)));
    }

    #[test]
    fn a_name_that_passes_to_another_node_tells_who_had_it() {
        let now = start();
        let mut records = Records::new(now);
        let lan = |n| (CarrierKind::Lan, peer(n));
        records.insert(key("a"), lan(1), now);
        let before = records.insert(key("a"), lan(2), now).flatten();
        assert_eq!(before.map(|known| known.peer), Some(peer(1)));
    }

    #[test]
    fn our_own_record_follows_changes_with_pauses_and_the_day() {
        let (begin, midnight) = (start(), 1_800_000_000 / DAY * DAY);
        let mut records = Records::new(begin);
        records.addresses_changed(begin);
        assert!(!records.publish(UnixTime::from_secs(midnight), begin));
        let now = records.next_timeout();
        assert!(now <= begin + SETTLES_IN && records.publish(UnixTime::from_secs(midnight), now));
        records.addresses_changed(now);
        assert_eq!(records.next_timeout(), now + PAUSE);
        assert!(records.publish(UnixTime::from_secs(midnight + DAY - 5), now + PAUSE));
        assert_eq!(records.next_timeout(), now + PAUSE + Duration::from_secs(5));
    }

    #[test]
    fn records_are_bounded() {
        let now = start();
        let mut records = Records::new(now);
        let mut taken = 0;
        for n in 0..MAX_RECORDS + 10 {
            let lan = (CarrierKind::Lan, peer(1));
            taken += usize::from(records.insert(key(&n.to_string()), lan, now).is_some());
        }
        assert_eq!(taken, MAX_RECORDS);
    }
}
