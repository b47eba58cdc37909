//! The process: rights that it gives up before foreign input, and its waits.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::Signal;
use nix::sys::time::TimeSpec;

use crate::cli::Exit;
use crate::interrupt::on_signals;

/// Longest wait, after which interfaces are checked.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Disables core dumps, as keys are in memory, and new rights, in case a library has a hole.
pub fn confine() -> io::Result<()> {
    nix::sys::prctl::set_dumpable(false)?;
    nix::sys::prctl::set_no_new_privs()?;
    Ok(())
}

/// Wakes a loop that waits for datagrams: by a signal, or from another thread.
#[derive(Debug, Clone)]
pub struct Wake {
    event: Arc<EventFd>,
    signal: Arc<AtomicI32>,
}

impl Wake {
    /// Makes SIGINT and SIGTERM wake ([`interrupted`](Self::interrupted)); precedes other threads.
    pub fn on_interrupt() -> io::Result<Self> {
        Self::on_signals(&[], |_| {})
    }

    /// The same; calls `handle` for further signals.
    pub fn on_signals(
        others: &[Signal],
        handle: impl Fn(Signal) + Send + 'static,
    ) -> io::Result<Self> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let wake = Self {
            event: Arc::new(EventFd::from_flags(flags)?),
            signal: Arc::new(AtomicI32::new(0)),
        };
        let woken = wake.clone();
        let all = [&[Signal::SIGINT, Signal::SIGTERM], others].concat();
        on_signals(&all, move |signal| {
            match signal {
                Signal::SIGINT | Signal::SIGTERM => {
                    woken.signal.store(signal as i32, Ordering::Relaxed);
                }
                other => handle(other),
            }
            woken.wake();
        })?;
        Ok(wake)
    }

    /// Ends the wait.
    pub fn wake(&self) {
        // a full counter wakes as well
        let _ = self.event.write(1);
    }

    /// Returns the exit code, if there was a signal.
    pub fn interrupted(&self) -> Option<Exit> {
        match self.signal.load(Ordering::Relaxed) {
            0 => None,
            n if n == Signal::SIGINT as i32 => Some(Exit::Interrupted),
            _ => Some(Exit::Terminated),
        }
    }

    /// Waits until `until`, a datagram, or [`wake`](Self::wake); a second at most.
    pub fn wait<'a>(
        &'a self,
        sockets: impl Iterator<Item = BorrowedFd<'a>>,
        until: Instant,
    ) -> io::Result<()> {
        let all = std::iter::once(self.event.as_fd()).chain(sockets);
        let mut fds: Vec<PollFd<'_>> = all.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        let pause = until.saturating_duration_since(Instant::now());
        let pause = pause.min(LONGEST_WAIT);
        match ppoll(&mut fds, Some(TimeSpec::from_duration(pause)), None) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
        drop(fds);
        match self.event.read() {
            Ok(_) | Err(nix::Error::EAGAIN) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}
