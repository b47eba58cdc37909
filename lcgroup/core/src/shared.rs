//! Shared state: a map that all members write.
//!
//! ```text
//! changes, until the end of a message's content:
//!   key: length 8, UTF-8 | clock 64 | 0: removed, or 1 | value: length 16, bytes
//! ```
//!
//! Of two changes of a key the one with the higher clock counts, then the one of the higher author
//! key. So the map depends on the set of changes alone, and not on their order. A removed key leaves
//! its clock. If members use too many keys, those with the lowest clocks are dropped, which also
//! depends on the set alone: a dropped key is lower than all others for ever.

use std::collections::{BTreeMap, BTreeSet};

use librecast::id::PeerId;
use librecast::plain::is_plain;
use librecast::wire::{Reader, WireError, Writer};

/// Bytes of a value.
pub const MAX_VALUE: usize = 16 * 1_024;
/// Bytes of a key.
pub const MAX_KEY: usize = 255;
/// Keys with a value.
pub const MAX_KEYS: usize = 4_096;
/// Keys with the removed ones. Chosen: as many removed ones as others.
const MAX_ALL: usize = 2 * MAX_KEYS;
/// Highest clock. A liar that uses it makes its key one that cannot be set any more.
const MAX_CLOCK: u64 = 1 << 48;
/// Largest step of a clock that other keys follow: a liar at [`MAX_CLOCK`] spoils only its keys.
const MAX_STEP: u64 = 1 << 20;

/// A change of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// 1 to [`MAX_KEY`] bytes of plain text.
    pub key: String,
    /// Orders the changes of a key.
    pub clock: u64,
    /// At most [`MAX_VALUE`] bytes; none: the key is removed.
    pub value: Option<Vec<u8>>,
}

/// The last change of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The clock of the change.
    pub clock: u64,
    /// The member that made it.
    pub author: PeerId,
    /// When it was received here (s since 1970).
    pub time: u64,
    /// None: the key was removed.
    pub value: Option<Vec<u8>>,
}

/// The reason why a key cannot be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SharedError {
    /// The key is empty, too long, or has control characters.
    #[error("a key has 1 to {MAX_KEY} bytes of text without control characters")]
    Key,
    /// The value is too long.
    #[error("a value has at most {MAX_VALUE} bytes")]
    Value,
    /// All keys are in use.
    #[error(
        "the group has {MAX_KEYS} keys already: `lcgroup set GROUP KEY` without a value removes one"
    )]
    Full,
    /// Removed keys are still remembered.
    #[error(
        "the group has used {MAX_ALL} keys with the removed ones, which are remembered while messages are kept: set a key again that is there"
    )]
    Used,
    /// A member has used the highest clock for this key.
    #[error("a member has made this key one that nobody can set any more: choose another key")]
    Spent,
}

impl Change {
    fn is_valid(&self) -> bool {
        let value = self.value.as_ref().map_or(0, Vec::len);
        is_key(&self.key) && (1..=MAX_CLOCK).contains(&self.clock) && value <= MAX_VALUE
    }

    /// Bytes of [`Self::encode`], about.
    #[must_use]
    pub fn size(&self) -> usize {
        12 + self.key.len() + self.value.as_ref().map_or(0, Vec::len)
    }

    /// Appends the change to `w`.
    pub fn encode(&self, w: &mut Writer) {
        w.u8(self.key.len() as u8).put(self.key.as_bytes());
        w.u64(self.clock).u8(self.value.is_some().into());
        if let Some(value) = &self.value {
            w.u16(value.len() as u16).put(value);
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let (key, clock) = (r.text8()?.to_owned(), r.u64()?);
        let value = match r.u8()? {
            0 => None,
            1 => Some(r.bytes16()?.to_vec()),
            _ => return Err(WireError::Bad("value")),
        };
        let change = Self { key, clock, value };
        match change.is_valid() {
            true => Ok(change),
            false => Err(WireError::Bad("change")),
        }
    }

    /// Decodes all changes of a message.
    ///
    /// # Errors
    /// [`WireError`] if the bytes break the format or its bounds.
    pub fn decode_all(bytes: &[u8]) -> Result<Vec<Self>, WireError> {
        let (mut r, mut all) = (Reader::new(bytes), Vec::new());
        while all.is_empty() || !r.is_empty() {
            all.push(Self::read(&mut r)?);
        }
        Ok(all)
    }
}

fn is_key(key: &str) -> bool {
    (1..=MAX_KEY).contains(&key.len()) && is_plain(key)
}

/// The map of a group.
#[derive(Debug, Default)]
pub struct SharedMap {
    all: BTreeMap<String, Entry>,
    /// All keys by their change.
    order: BTreeSet<(u64, PeerId, String)>,
    /// The number of keys with a value.
    keys: usize,
    /// The highest credible clock.
    clock: u64,
}

impl SharedMap {
    /// The keys that have a value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        let all = self.all.iter().filter(|(_, entry)| entry.value.is_some());
        all.map(|(key, entry)| (key.as_str(), entry))
    }

    /// All keys, also the removed ones.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.all.iter().map(|(key, entry)| (key.as_str(), entry))
    }

    /// The last change of a key that has a value.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.all.get(key).filter(|entry| entry.value.is_some())
    }

    /// Makes the change by which this member sets or removes a key. It counts once it is applied.
    ///
    /// # Errors
    /// [`SharedError`].
    pub fn change(&self, key: &str, value: Option<Vec<u8>>) -> Result<Change, SharedError> {
        let known = self.all.get(key);
        let has_value = known.is_some_and(|entry| entry.value.is_some());
        if !is_key(key) {
            return Err(SharedError::Key);
        }
        if value.as_ref().is_some_and(|value| value.len() > MAX_VALUE) {
            return Err(SharedError::Value);
        }
        if value.is_some() && !has_value && self.keys >= MAX_KEYS {
            return Err(SharedError::Full);
        }
        if known.is_none() && self.all.len() >= MAX_ALL {
            return Err(SharedError::Used);
        }
        let clock = known.map_or(0, |entry| entry.clock).max(self.clock) + 1;
        if clock > MAX_CLOCK {
            return Err(SharedError::Spent);
        }
        let key = key.to_owned();
        Ok(Change { key, clock, value })
    }

    /// Applies a change that `author` made; returns whether it counts. `time`: s since 1970.
    pub fn apply(&mut self, author: PeerId, change: Change, time: u64) -> bool {
        let Change { key, clock, value } = change;
        if clock.saturating_sub(self.clock) <= MAX_STEP {
            self.clock = self.clock.max(clock);
        }
        if let Some(known) = self.all.get(&key)
            && (known.clock, known.author) >= (clock, author)
        {
            return false;
        }
        self.forget(&key);
        self.keys += usize::from(value.is_some());
        self.order.insert((clock, author, key.clone()));
        let entry = Entry {
            clock,
            author,
            time,
            value,
        };
        self.all.insert(key.clone(), entry);
        if self.all.len() > MAX_ALL
            && let Some((.., lowest)) = self.order.first().cloned()
        {
            self.forget(&lowest);
        }
        self.all.contains_key(&key)
    }

    /// Forgets keys that were removed before `time` (s since 1970): nobody has earlier changes of
    /// them any more. Returns whether there were any.
    pub fn forget_removed(&mut self, time: u64) -> bool {
        let is_old = |entry: &Entry| entry.value.is_none() && entry.time < time;
        let all = self.all.iter().filter(|(_, entry)| is_old(entry));
        let old: Vec<String> = all.map(|(key, _)| key.clone()).collect();
        old.iter().for_each(|key| self.forget(key));
        !old.is_empty()
    }

    fn forget(&mut self, key: &str) {
        if let Some((key, entry)) = self.all.remove_entry(key) {
            self.keys -= usize::from(entry.value.is_some());
            self.order.remove(&(entry.clock, entry.author, key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use librecast::id::SecretKey;
    use librecast::random::Random;

    fn author(n: u8) -> PeerId {
        SecretKey::from_seed(&[n; 32]).peer_id()
    }

    fn change(key: &str, clock: u64, value: Option<&[u8]>) -> Change {
        Change {
            key: key.to_owned(),
            clock,
            value: value.map(<[u8]>::to_vec),
        }
    }

    fn applied<'a>(all: impl Iterator<Item = &'a (PeerId, Change)>) -> SharedMap {
        let mut map = SharedMap::default();
        for (author, change) in all {
            map.apply(*author, change.clone(), 0);
        }
        map
    }

    #[test]
    fn changes_have_these_bytes_and_come_back() {
        let all = [change("k", 3, Some(b"v")), change("gone", 4, None)];
        let mut w = Writer::new();
        all.iter().for_each(|change| change.encode(&mut w));
        let bytes = w.into_vec();
        assert_eq!(
            bytes,
            [
                &[1, b'k', 0, 0, 0, 0, 0, 0, 0, 3, 1, 0, 1, b'v'][..],
                b"\x04gone",
                &[0, 0, 0, 0, 0, 0, 0, 4, 0]
            ]
            .concat()
        );
        assert_eq!(Change::decode_all(&bytes).unwrap(), all);
        assert!(Change::decode_all(&bytes[..bytes.len() - 1]).is_err());
        assert!(Change::decode_all(&[]).is_err());
        let long = vec![0; MAX_VALUE + 1];
        for bad in [
            change("", 1, None),
            change("a\nb", 1, None),
            change("k", 0, None),
            change("k", MAX_CLOCK + 1, None),
            change("k", 1, Some(&long)),
        ] {
            let mut w = Writer::new();
            bad.encode(&mut w);
            assert!(Change::decode_all(w.as_slice()).is_err(), "{}", bad.key);
        }
    }

    #[test]
    fn any_order_of_changes_gives_one_map_beyond_its_bounds_too() {
        let mut random = Random::new(5);
        let mut all = Vec::new();
        for n in 0..6 * MAX_ALL as u64 {
            let key = format!("key {}", random.next() % (MAX_ALL as u64 + 500));
            let value = n.to_be_bytes();
            let value = (n % 3 != 0).then_some(&value[..]);
            // few clocks, so that authors decide, and those of liars
            let clock = match n % 97 {
                0 => MAX_CLOCK,
                _ => 1 + random.next() % 50,
            };
            all.push((author(1 + (n % 5) as u8), change(&key, clock, value)));
        }
        // one author makes one change with a clock
        let unique: BTreeMap<_, _> = all
            .into_iter()
            .map(|(author, c)| ((author, c.key.clone(), c.clock), c))
            .collect();
        let mut all: Vec<_> = unique.into_iter().map(|((a, ..), c)| (a, c)).collect();
        let forth = applied(all.iter());
        assert_eq!(forth.all.len(), MAX_ALL);
        assert_eq!(applied(all.iter().rev()).all, forth.all);
        for n in (1..all.len()).rev() {
            all.swap(n, random.next() as usize % (n + 1));
        }
        // some come twice
        let again = all.iter().chain(all.iter().take(999));
        assert_eq!(applied(again).all, forth.all);
        assert_eq!(forth.iter().count(), forth.keys);
    }

    #[test]
    fn the_last_writer_wins_and_a_removed_key_does_not_come_back() {
        let mut map = SharedMap::default();
        let first = map.change("k", Some(b"a".to_vec())).unwrap();
        assert!(map.apply(author(1), first.clone(), 10));
        let second = map.change("k", None).unwrap();
        assert!(map.apply(author(2), second, 20));
        assert!(!map.apply(author(1), first, 30));
        assert!(map.get("k").is_none() && map.iter().next().is_none());
        assert!(!map.forget_removed(20));
        assert!(map.forget_removed(21));
        // a later value counts with those that remember the removal
        assert_eq!(map.change("k", None).unwrap().clock, 3);
    }

    #[test]
    fn bounds_are_refused_and_a_liar_spoils_only_its_key() {
        let mut map = SharedMap::default();
        assert_eq!(map.change("", None), Err(SharedError::Key));
        assert_eq!(map.change(&"x".repeat(256), None), Err(SharedError::Key));
        let long = vec![0; MAX_VALUE + 1];
        assert_eq!(map.change("k", Some(long)), Err(SharedError::Value));
        map.apply(author(1), change("lie", MAX_CLOCK, Some(b"x")), 0);
        assert_eq!(map.change("lie", None), Err(SharedError::Spent));
        assert_eq!(map.change("k", None).unwrap().clock, 1);
        for n in 1..MAX_KEYS {
            let change = map.change(&format!("{n}"), Some(Vec::new())).unwrap();
            assert!(map.apply(author(2), change, 0));
        }
        assert_eq!(map.change("k", Some(Vec::new())), Err(SharedError::Full));
        let removed = map.change("7", None).unwrap();
        map.apply(author(2), removed, 0);
        map.change("k", Some(Vec::new())).unwrap();
        for n in 0..MAX_KEYS {
            map.apply(author(2), change(&format!("gone {n}"), 9_000, None), 0);
        }
        assert_eq!(map.change("k", Some(Vec::new())), Err(SharedError::Used));
    }
}
