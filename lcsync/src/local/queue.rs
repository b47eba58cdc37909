//! Queue of files for the helper threads of a job, and of their results.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::changes::Changes;

/// Result of copying a file.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Its differences, if any.
    pub changes: Option<Changes>,
    /// Bytes written.
    pub written: u64,
    pub error: Option<anyhow::Error>,
    /// An entry in its place, which only the job's main thread removes, prevented the copy.
    pub is_obstructed: bool,
}

/// Consecutive entries, with the result of each.
pub type Copied = (Range<usize>, Vec<Outcome>);

/// The queue between a job's threads.
#[derive(Debug, Default)]
pub struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Range<usize>>,
    copied: Vec<Copied>,
    is_closed: bool,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn push(&self, entries: Range<usize>) {
        self.state().waiting.push_back(entries);
        self.changed.notify_all();
    }

    /// Copies with `copy` until the queue is closed.
    pub fn work(&self, mut copy: impl FnMut(usize) -> Outcome) {
        // a panic closes the queue, so that no thread waits for this one
        let _closing = Closing(self);
        loop {
            let mut state = self.state();
            let entries = loop {
                if state.is_closed {
                    return;
                }
                if let Some(entries) = state.waiting.pop_front() {
                    break entries;
                }
                let waited = self.changed.wait(state);
                state = waited.unwrap_or_else(PoisonError::into_inner);
            };
            drop(state);
            let outcomes = entries.clone().map(&mut copy).collect();
            self.state().copied.push((entries, outcomes));
            self.changed.notify_all();
        }
    }

    /// Takes the next entries to copy, if any.
    pub fn take(&self) -> Option<Range<usize>> {
        self.state().waiting.pop_front()
    }

    /// Returns the results since the last call.
    pub fn copied(&self) -> Vec<Copied> {
        std::mem::take(&mut self.state().copied)
    }

    /// Waits for results; an error if a thread has panicked.
    pub fn wait(&self) -> io::Result<()> {
        let mut state = self.state();
        while state.copied.is_empty() {
            if state.is_closed {
                return Err(io::Error::other("a thread has panicked"));
            }
            let waited = self.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    /// Closes the queue when the guard is dropped.
    pub fn closing(&self) -> Closing<'_> {
        Closing(self)
    }
}

/// Closes a queue when dropped, even by a panic.
#[derive(Debug)]
pub struct Closing<'a>(&'a Queue);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.state().is_closed = true;
        self.0.changed.notify_all();
    }
}
