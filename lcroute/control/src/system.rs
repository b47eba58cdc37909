//! The operating system's interface to a daemon: signals, open files.

use std::future::Future;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that a daemon acts on.
#[derive(Debug)]
pub struct SystemSignals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    user2: Signal,
}

impl SystemSignals {
    /// Catches the signals from now on; requires a tokio runtime.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for the next signal.
    pub async fn next(&mut self) -> SystemRequest {
        tokio::select! {
            _ = self.interrupt.recv() => SystemRequest::Stop,
            _ = self.terminate.recv() => SystemRequest::Stop,
            _ = self.user2.recv() => SystemRequest::Exec,
            _ = self.hangup.recv() => SystemRequest::Reload,
        }
    }
}

/// The request of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SystemRequest {
    /// End the daemon.
    Stop,
    /// Execute the binary anew.
    Exec,
    /// Read the configuration again.
    Reload,
}

/// Resolves at SIGINT or SIGTERM; for programs that act on no other signal.
pub fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Raises the limit of open files, as a signalling server has one for each client and many systems
/// start with 1,024; returns a number of clients that leaves enough for everything else.
pub fn room_for_clients() -> usize {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let limit = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, hard)) => {
            let more = hard.min(65_536).max(soft);
            match setrlimit(Resource::RLIMIT_NOFILE, more, hard) {
                Ok(()) => more,
                Err(_) => soft,
            }
        }
        Err(_) => 1_024,
    };
    usize::try_from(limit).unwrap_or(usize::MAX) / 2
}
