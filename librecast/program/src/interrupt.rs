//! SIGINT, SIGTERM and SIGHUP as events, on a thread of their own.

use std::io;
use std::thread;

use nix::sys::signal::{SigSet, Signal};

use crate::cli::Exit;

/// Calls `handle` for each of `signals` from now on. Must be called before other threads start,
/// which inherit the blocked signals.
///
/// # Errors
/// The signals cannot be blocked, or the thread cannot be started.
pub fn on_signals(
    signals: &[Signal],
    mut handle: impl FnMut(Signal) + Send + 'static,
) -> io::Result<()> {
    let set: SigSet = signals.iter().copied().collect();
    set.thread_block()?;
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            while let Ok(signal) = set.wait() {
                handle(signal);
            }
        })?;
    Ok(())
}

/// Makes an interrupt end the process with 130 or 143, after `clean_up`.
pub fn exit_on_interrupt(clean_up: impl FnOnce() + Send + 'static) -> io::Result<()> {
    end_on_interrupt(|exit| {
        clean_up();
        std::process::exit(exit as i32);
    })
}

/// The same; `end` itself must end the process with the given exit code.
pub fn end_on_interrupt(end: impl FnOnce(Exit) + Send + 'static) -> io::Result<()> {
    let mut end = Some(end);
    on_signals(&[Signal::SIGINT, Signal::SIGTERM], move |signal| {
        let exit = match signal {
            Signal::SIGINT => Exit::Interrupted,
            _ => Exit::Terminated,
        };
        if let Some(end) = end.take() {
            end(exit);
        }
    })
}
