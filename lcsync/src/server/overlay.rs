//! The part of a receiver that passes blocks on over lc0, as its two threads know it.

use std::net::Ipv6Addr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize};

/// A receiver that passes blocks on over lc0, and its number there.
#[derive(Debug, Clone)]
pub struct Overlay {
    /// Index of the interface.
    pub interface: u32,
    /// Its source address there.
    pub address: Ipv6Addr,
}

/// Values that the threads of receiver and server share.
#[derive(Debug, Default)]
pub struct Shared {
    /// Milliseconds for which others may await a block here.
    pub longest_awaited: AtomicU64,
    /// Width of the uplink.
    pub width: AtomicU8,
    /// No server of the whole share is there.
    pub alone: AtomicBool,
    /// Joined channels of others.
    pub joined: AtomicUsize,
}
