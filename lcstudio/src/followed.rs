//! The index of a session, as programs beside `present` and `attend` follow it.

use std::io;
use std::time::{Duration, Instant};

use lcstudio_core::{Index, View};

use crate::tracks::Tracks;

/// Silence after the end of a session until it counts: entries of a session that was presented
/// again come one after the other, the end before the new beginning.
pub const REST: Duration = Duration::from_secs(3);

/// An index, by the entries that came.
#[derive(Debug)]
pub struct FollowedIndex {
    view: View,
    /// Time of the last entry.
    received_at: Instant,
}

impl FollowedIndex {
    /// Begins now.
    pub fn begin(now: Instant) -> Self {
        Self {
            view: View::default(),
            received_at: now,
        }
    }

    /// Receives, sends, and reads new entries.
    pub fn turn(&mut self, tracks: &mut Tracks) -> io::Result<()> {
        tracks.turn()?;
        for new in tracks.entries() {
            self.view.read(&new.place, new.by_owner, &new.entry);
            self.received_at = Instant::now();
        }
        Ok(())
    }

    /// Returns the index so far.
    pub fn index(&self) -> &Index {
        self.view.index()
    }

    /// Whether the session has ended, and nothing is missing that could begin it again.
    pub fn has_ended(&self, tracks: &Tracks, now: Instant) -> bool {
        self.index().has_ended && now >= self.received_at + REST && !tracks.lacks_something()
    }

    /// Returns the time from which an end counts.
    pub fn next_timeout(&self, now: Instant) -> Option<Instant> {
        let at = self.received_at + REST;
        (self.index().has_ended && at > now).then_some(at)
    }
}
