//! Items of this host's open key in a DHT: which records its holder has to sign, and when; without
//! I/O. `lcroute-reach` puts a held one again each hour.
//!
//! ```text
//! record of a period ── it settles, 2 s ──> asks ── signed ──> held ── 3 h, another record ──> asks
//!                                           ▲│
//!                                    1 min   └┘ no answer
//! ```

use std::collections::BTreeMap;

use librecast::bucket::{Bucket, Rate};
use librecast::id::PeerId;
use librecast::open_item::{ItemAsk, Record, key_of};
use librecast::reach::Item;
use librecast::time::{Duration, Instant};

use crate::share::ViewId;

/// Delay of a request after a change of addresses, within which more follow.
const SETTLES_IN: Duration = Duration::from_secs(2);
/// Requests for one period: addresses become known one after the other, later they seldom change.
const ASKS: Rate = Rate::every(Duration::from_secs(300), 4);
/// Pause after a request without an answer.
const ASKED_AGAIN: Duration = Duration::from_secs(60);
/// Age at which a record is signed anew: nodes of a DHT may refuse an equal sequence. Chosen.
const RENEWED_AFTER: Duration = Duration::from_secs(3 * 3_600);

/// The record of one period.
#[derive(Debug)]
struct Entry {
    open: PeerId,
    period: u64,
    /// None: this host has no address.
    record: Option<Record>,
    asks: Bucket,
    /// When it is signed, or signed anew.
    due: Instant,
    item: Option<Item>,
}

/// All items.
#[derive(Debug, Default)]
pub(crate) struct Items {
    /// Whether anybody signs them.
    is_used: bool,
    entries: BTreeMap<ViewId, Entry>,
}

impl Items {
    /// Sets whether items are signed.
    pub(crate) fn set_used(&mut self, is_used: bool) {
        self.is_used = is_used;
    }

    /// Notes the record of a period; none: this host has no address.
    pub(crate) fn set_record(
        &mut self,
        room: ViewId,
        (open, period): (PeerId, u64),
        record: Option<Record>,
        now: Instant,
    ) {
        let entry = self.entries.entry(room).or_insert_with(|| Entry {
            open,
            period,
            record: None,
            asks: Bucket::full(now),
            due: now,
            item: None,
        });
        if entry.record != record {
            entry.record = record;
            entry.due = now + SETTLES_IN;
        }
    }

    /// Forgets a period.
    pub(crate) fn end(&mut self, room: ViewId) {
        self.entries.remove(&room);
    }

    /// Returns the next request that is due.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<ItemAsk> {
        if !self.is_used {
            return None;
        }
        let mut due = self.entries.values_mut().filter(|entry| entry.due <= now);
        due.find_map(|entry| {
            entry.due = now + ASKED_AGAIN;
            let record = entry.record?;
            let is_permitted = entry.asks.take(ASKS, 1, now);
            is_permitted.then_some(ItemAsk {
                period: entry.period,
                record,
            })
        })
    }

    /// Returns the time of the next request.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let entries = self.entries.values().filter(|entry| entry.record.is_some());
        let next = entries.map(|entry| entry.due).min();
        next.filter(|_| self.is_used)
    }

    /// Handles a signed item; returns whether the DHT gets it.
    pub(crate) fn handle_item(&mut self, item: Item, now: Instant) -> bool {
        let mut entries = self.entries.values_mut();
        let Some(entry) = entries.find(|e| key_of(&e.open, e.period) == item.key) else {
            return false;
        };
        let record = entry.record.as_ref();
        if record.is_some_and(|record| record.0.as_slice() == item.value.0) {
            entry.due = now + RENEWED_AFTER;
        }
        // one that has changed meanwhile is still better than none
        entry.item = Some(item);
        true
    }

    /// Returns the items that the DHT holds.
    pub(crate) fn items(&self) -> impl Iterator<Item = &Item> {
        let entries = self.entries.values().filter(|_| self.is_used);
        entries.filter_map(|entry| entry.item.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;
    use librecast::open::periods;
    use librecast::open_item::{ItemSigner, RECORD_LEN};
    use librecast::reach::Base58;
    use librecast::time::UnixTime;

    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

    const NOTHING: [u8; 0] = [];

    struct World {
        items: Items,
        open: SecretKey,
        signer: ItemSigner,
        now: Instant,
        time: UnixTime,
    }

    impl World {
        fn new() -> Self {
            let now = Instant::now();
            let mut items = Items::default();
            items.set_used(true);
            Self {
                items,
                open: SecretKey::from_seed(&[1; 32]),
                signer: ItemSigner::new(now),
                now,
                time: NOW,
            }
        }

        fn record(&mut self, byte: Option<u8>) {
            let open = self.open.peer_id();
            let of = (open, periods(&open).at(NOW));
            let record = byte.map(|byte| Base58([byte; RECORD_LEN]));
            self.items.set_record(ViewId(7), of, record, self.now);
        }

        /// Returns the requests in this time; each is answered at once if `answered`.
        fn pass(&mut self, seconds: u64, answered: bool) -> Vec<u8> {
            let mut asked = Vec::new();
            for _ in 0..seconds {
                self.now += Duration::from_secs(1);
                self.time = UnixTime::from_secs(self.time.as_secs() + 1);
                while let Some(ask) = self.items.poll(self.now) {
                    asked.push(ask.record.0[0]);
                    if answered {
                        let item = self.signer.sign(&self.open, &ask, self.time, self.now);
                        assert!(self.items.handle_item(item.unwrap(), self.now));
                    }
                }
            }
            asked
        }

        fn held(&self) -> Vec<(i64, u8)> {
            let items = self.items.items();
            items.map(|item| (item.sequence, item.value.0[0])).collect()
        }
    }

    #[test]
    fn a_record_is_signed_once_it_has_settled_and_again_after_hours() {
        let mut world = World::new();
        for byte in 0..4 {
            world.record(Some(byte));
            assert_eq!(world.pass(1, true), NOTHING, "it has not settled");
        }
        assert_eq!(world.pass(60, true), [3]);
        let [(first, 3)] = world.held()[..] else {
            panic!("{:?}", world.held())
        };
        assert_eq!(world.pass(3 * 3_600 - 120, true), NOTHING);
        assert_eq!(world.pass(120, true), [3]);
        assert!(world.held()[0].0 > first, "a higher sequence");
        world.items.end(ViewId(7));
        assert!(world.held().is_empty());
    }

    #[test]
    fn changes_without_end_are_signed_at_most_every_five_minutes() {
        let mut world = World::new();
        let mut asked = 0;
        for n in 0..360_u32 {
            world.record(Some(n as u8));
            asked += world.pass(10, true).len();
        }
        // an hour, and the first four
        assert!((12..=16).contains(&asked), "{asked}");
        assert_eq!(
            world.pass(600, true).last(),
            Some(&(359_u32 as u8)),
            "the last one"
        );
    }

    #[test]
    fn without_an_answer_it_is_asked_again_and_without_an_address_or_a_dht_never() {
        let mut world = World::new();
        world.record(None);
        assert_eq!(world.pass(600, true), NOTHING);
        world.record(Some(1));
        world.items.set_used(false);
        assert_eq!(
            (world.pass(600, true), world.items.next_timeout()),
            (NOTHING.to_vec(), None)
        );
        world.items.set_used(true);
        let asked = world.pass(600, false).len();
        assert!((4..=6).contains(&asked), "{asked}");
        assert_eq!(world.pass(600, true).len(), 1);
        // an item of another key is none
        let other = SecretKey::from_seed(&[2; 32]);
        let ask = ItemAsk {
            period: periods(&other.peer_id()).at(NOW),
            record: Base58([1; RECORD_LEN]),
        };
        let foreign = world.signer.sign(&other, &ask, NOW, world.now).unwrap();
        assert!(!world.items.handle_item(foreign, world.now));
    }
}
