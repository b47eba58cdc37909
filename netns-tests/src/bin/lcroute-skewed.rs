//! `lcroute`, or the program by whose name it is called, on a host with a wrong clock or after a
//! suspension, for tests. The wall clock is off by the seconds in the file `clock-offset` of the
//! working directory. The eight-byte number in the file `clock-set`, if present, adds to them at
//! run time. Monotonic time lacks the nanoseconds in the file `clock-slept`, if present, also eight
//! bytes: that of a suspended host stops. Monotonic time gains the parts per million in the file
//! `clock-ppm`, if present.
//!
//! The kernel has no namespace for the wall clock, and cannot suspend a single host. So this
//! program puts its own `clock_gettime` before that of the C library.

use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicI64, AtomicPtr, Ordering};

use nix::libc;

static OFFSET: AtomicI64 = AtomicI64::new(0);
static NEVER: AtomicI64 = AtomicI64::new(0);
static PPM: AtomicI64 = AtomicI64::new(0);
static SLEPT: AtomicPtr<AtomicI64> = AtomicPtr::new((&raw const NEVER).cast_mut());
static SET: AtomicPtr<AtomicI64> = AtomicPtr::new((&raw const NEVER).cast_mut());

fn main() -> ExitCode {
    let offset = std::fs::read_to_string("clock-offset");
    let Some(offset) = offset.ok().and_then(|text| text.trim().parse().ok()) else {
        eprintln!("clock-offset: a file with a number of seconds is missing");
        return ExitCode::FAILURE;
    };
    OFFSET.store(offset, Ordering::Relaxed);
    let ppm = std::fs::read_to_string("clock-ppm").ok();
    let ppm = ppm.and_then(|text| text.trim().parse().ok());
    PPM.store(ppm.unwrap_or(0), Ordering::Relaxed);
    for (name, place) in [("clock-slept", &SLEPT), ("clock-set", &SET)] {
        if let Err(error) = map(name, place) {
            eprintln!("{name}: {error}");
            return ExitCode::FAILURE;
        }
    }
    match std::env::args_os().next().map(PathBuf::from) {
        Some(called) if called.file_name() == Some("lcradio".as_ref()) => lcradio::main(),
        Some(called) if called.file_name() != Some("lcroute-skewed".as_ref()) => {
            lcroute_lab::main_with(&netns_tests::PROGRAMS)
        }
        _ => lcroute::main(),
    }
}

/// Maps the eight bytes of a file, if it exists.
fn map(name: &str, place: &AtomicPtr<AtomicI64>) -> std::io::Result<()> {
    let Ok(file) = std::fs::File::open(name) else {
        return Ok(());
    };
    // SAFETY: a new mapping, of a file that the test keeps; it is never unmapped
    let mapped = unsafe {
        let (size, flags) = (size_of::<AtomicI64>(), libc::MAP_SHARED);
        let null = std::ptr::null_mut();
        libc::mmap(null, size, libc::PROT_READ, flags, file.as_raw_fd(), 0)
    };
    if mapped == libc::MAP_FAILED {
        return Err(std::io::Error::last_os_error());
    }
    place.store(mapped.cast(), Ordering::Relaxed);
    Ok(())
}

// SAFETY: signature and effect are the C library's, except for the added or removed time.
#[unsafe(no_mangle)]
extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    // SAFETY: the system call that the C library's function makes, with the caller's pointer.
    let result = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) };
    if result == 0 && clock == libc::CLOCK_REALTIME {
        // SAFETY: a static, or a page that is never unmapped; the kernel has just written to `time`.
        unsafe {
            let set = (*SET.load(Ordering::Relaxed)).load(Ordering::Relaxed);
            (*time).tv_sec += OFFSET.load(Ordering::Relaxed) + set;
        }
    }
    if result == 0 && clock == libc::CLOCK_MONOTONIC {
        const SECOND: i64 = 1_000_000_000;
        // SAFETY: a static, or a page that is never unmapped; the kernel has just written to `time`.
        unsafe {
            let slept = (*SLEPT.load(Ordering::Relaxed)).load(Ordering::Relaxed);
            let now = (*time).tv_sec * SECOND + (*time).tv_nsec;
            let gained = now / 1_000_000 * PPM.load(Ordering::Relaxed);
            let now = now + gained - slept;
            ((*time).tv_sec, (*time).tv_nsec) = (now / SECOND, now % SECOND);
        }
    }
    if result == 0 { 0 } else { -1 }
}
