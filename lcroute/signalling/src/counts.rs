//! Counters of a server, which name nobody: for its metrics and its log.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// What a server counts.
#[derive(Debug, Default)]
pub struct Counts {
    clients: AtomicUsize,
    rooms: AtomicUsize,
    entered: AtomicUsize,
    turned_away: AtomicU64,
    messages: AtomicU64,
    bytes: AtomicU64,
    allocations: AtomicUsize,
    relayed: AtomicU64,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Registered connections.
    pub clients: u64,
    /// Rooms with somebody in them.
    pub rooms: u64,
    /// Rooms that connections have entered beside the one of their registration, once for each.
    pub entered: u64,
    /// Connections and entries that were refused.
    pub turned_away: u64,
    /// Sealed messages.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Addresses of the relay in use.
    pub allocations: u64,
    /// Bytes that the relay has carried.
    pub relayed: u64,
}

impl Counts {
    /// Returns the counters.
    pub fn usage(&self) -> Usage {
        Usage {
            clients: self.clients.load(Relaxed) as u64,
            rooms: self.rooms.load(Relaxed) as u64,
            entered: self.entered.load(Relaxed) as u64,
            turned_away: self.turned_away.load(Relaxed),
            messages: self.messages.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            allocations: self.allocations.load(Relaxed) as u64,
            relayed: self.relayed.load(Relaxed),
        }
    }

    /// Counts a registered connection until the result is dropped.
    pub(crate) fn client(&self) -> Counting<'_> {
        Counting::new(&self.clients)
    }

    /// Counts an entered room until the result is dropped.
    pub(crate) fn entry(&self) -> Counting<'_> {
        Counting::new(&self.entered)
    }

    pub(crate) fn set_rooms(&self, rooms: usize) {
        self.rooms.store(rooms, Relaxed);
    }

    pub(crate) fn turn_away(&self) {
        self.turned_away.fetch_add(1, Relaxed);
    }

    pub(crate) fn forwarded(&self, bytes: usize) {
        self.messages.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn set_relay(&self, allocations: usize, bytes: u64) {
        self.allocations.store(allocations, Relaxed);
        self.relayed.store(bytes, Relaxed);
    }
}

/// Counts one until it is dropped.
#[derive(Debug)]
pub(crate) struct Counting<'a>(&'a AtomicUsize);

impl<'a> Counting<'a> {
    fn new(counter: &'a AtomicUsize) -> Self {
        counter.fetch_add(1, Relaxed);
        Self(counter)
    }
}

impl Drop for Counting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
