//! Files that threads copy beside the one that goes through a job: what is to be copied, and what has come of it.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::changes::Changes;

/// What has come of a file.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What is different about it, if anything is.
    pub changes: Option<Changes>,
    /// Bytes.
    pub written: u64,
    pub error: Option<anyhow::Error>,
    /// Something stands in its place that only the thread that goes through the job takes away: nothing is done yet.
    pub is_obstructed: bool,
}

/// Entries that follow each other, and what has come of each.
pub type Copied = (Range<usize>, Vec<Outcome>);

/// What the threads of a job hand to each other.
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
        // whoever waits for what this thread has taken does so no longer if it panics
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

    /// Takes something to copy, if there is anything.
    pub fn take(&self) -> Option<Range<usize>> {
        self.state().waiting.pop_front()
    }

    /// What has been copied since.
    pub fn copied(&self) -> Vec<Copied> {
        std::mem::take(&mut self.state().copied)
    }

    /// Waits until something has been copied; nothing will be if a thread has panicked.
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

/// Closes a queue in the end, however that comes.
#[derive(Debug)]
pub struct Closing<'a>(&'a Queue);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.state().is_closed = true;
        self.0.changed.notify_all();
    }
}
