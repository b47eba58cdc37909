//! Wakes the packet loop from its poll.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nix::sys::eventfd::{EfdFlags, EventFd};

/// A handle for all senders of messages to the packet loop.
#[derive(Debug, Clone)]
pub struct Waker(Arc<EventFd>);

impl Waker {
    /// Creates a waker.
    pub fn new() -> std::io::Result<Self> {
        let fd = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        Ok(Self(Arc::new(fd)))
    }

    /// Makes the next or present poll return.
    pub fn wake(&self) {
        // it fails only if the counter is full: then the loop is awake already
        let _ = self.0.write(1);
    }

    /// Resets all wakes; call it before reading the messages that they announced.
    pub fn clear(&self) {
        // nothing to read: no wake
        let _ = self.0.read();
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
