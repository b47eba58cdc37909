//! Wakes the packet loop out of its poll.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nix::sys::eventfd::{EfdFlags, EventFd};

/// Cloned to whoever has something for the packet loop.
#[derive(Debug, Clone)]
pub struct Waker(Arc<EventFd>);

impl Waker {
    /// A waker that nobody has woken.
    pub fn new() -> std::io::Result<Self> {
        let fd = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        Ok(Self(Arc::new(fd)))
    }

    /// Makes the next, or the present, poll return.
    pub fn wake(&self) {
        // it can fail only when the counter is full: then the loop is awake already
        let _ = self.0.write(1);
    }

    /// Forgets all wakes so far; called before looking at what they announced.
    pub fn clear(&self) {
        // nothing to read means that nobody woke us
        let _ = self.0.read();
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
