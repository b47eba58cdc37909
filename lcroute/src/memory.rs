//! The allocator, and what it may take.
//!
//! A daemon is to be small.

use mimalloc::MiMalloc;
use nix::sys::prctl;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// No huge pages: a daemon at rest would take 9 MiB more.
pub fn be_small() {
    // it works without, too
    let _ = prctl::set_thp_disable(true);
}
