//! Descriptors that a task waits for.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Returns a descriptor of the same file for waiting.
pub fn watched(file: &impl AsFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    watch(file.as_fd().try_clone_to_owned()?)
}

/// Returns the same descriptor for waiting; its owner keeps it open.
pub fn watch<T: AsRawFd>(file: T) -> std::io::Result<AsyncFd<T>> {
    // SAFETY: callers pass owners of a descriptor, which stays open until they are dropped
    Ok(unsafe { AsyncFd::register_with_interest(file, Interest::READABLE) }?)
}
