//! `lcroute` on a host whose clock is wrong, for tests: the wall clock is off by as many seconds as the file
//! `clock-offset` in the working directory says. Monotonic time is right.
//!
//! The kernel has no namespace for the wall clock, so this program puts its own `clock_gettime` before that
//! of the C library.

use std::process::ExitCode;
use std::sync::atomic::{AtomicI64, Ordering};

use nix::libc;

static OFFSET: AtomicI64 = AtomicI64::new(0);

fn main() -> ExitCode {
    let offset = std::fs::read_to_string("clock-offset");
    let Some(offset) = offset.ok().and_then(|text| text.trim().parse().ok()) else {
        eprintln!("clock-offset: a file with a number of seconds is missing");
        return ExitCode::FAILURE;
    };
    OFFSET.store(offset, Ordering::Relaxed);
    lcroute::main()
}

// SAFETY: the signature is the C library's, and so is what it does, but for the wall clock's seconds.
#[unsafe(no_mangle)]
extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    // SAFETY: the system call that the C library's function makes, with the caller's pointer.
    let result = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) };
    if result == 0 && clock == libc::CLOCK_REALTIME {
        // SAFETY: the kernel has just written there.
        unsafe { (*time).tv_sec += OFFSET.load(Ordering::Relaxed) };
    }
    if result == 0 { 0 } else { -1 }
}
