//! A server on a thread of its own, whose versions its owner makes: inside a receiver, which serves
//! received blocks under the origin's version and signature; and that of `lcsync send`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Instant;

use librecast::announce::Announcer;
use librecast::listener::MldListener;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::hosted::Share;
use super::rescan::{Update, Watched};
use super::shell::{Asked, Options, Shares, Shell, explain_socket};
use super::status_socket;

/// A running server of one share; it ends with the process.
#[derive(Debug)]
pub struct Seed {
    id: u32,
    sent: Arc<AtomicU64>,
    watched: Watched,
    updates: Sender<Update>,
    wake: Arc<EventFd>,
}

impl Seed {
    /// Starts without a version, on these interfaces (all if empty), within `limit` bits per
    /// second.
    pub fn start(
        watched: Watched,
        interfaces: Vec<String>,
        limit: Option<u64>,
    ) -> anyhow::Result<Self> {
        Self::start_as(watched, (interfaces, limit), true)
    }

    /// Does the same in a network of its own: no program of the host learns of it, and programs
    /// beside it may be receivers.
    pub fn start_alone(
        watched: Watched,
        interfaces: Vec<String>,
        limit: Option<u64>,
    ) -> anyhow::Result<Self> {
        Self::start_as(watched, (interfaces, limit), false)
    }

    fn start_as(
        watched: Watched,
        (interfaces, limit): (Vec<String>, Option<u64>),
        on_host: bool,
    ) -> anyhow::Result<Self> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let wake = Arc::new(EventFd::from_flags(flags)?);
        let listener = MldListener::open().map_err(explain_socket)?;
        let options = Options {
            shares: Shares::Given(Vec::new()),
            interfaces,
            limit,
            metrics: None,
        };
        // no thread scans for changes: versions come from the network
        let (lists, _) = channel();
        let announcer = on_host.then(Announcer::start).transpose()?;
        let mut shell = Shell::new(options, listener, lists, announcer)?;
        if on_host {
            shell.ignore_own_host();
            shell.answer_status(&wake);
        }
        shell.set_shares(vec![watched.clone()], Instant::now());
        let (updates, receiver) = channel();
        let (id, sent, woken) = (shell.id(), shell.sent(), Arc::clone(&wake));
        thread::Builder::new().name("seed".into()).spawn(move || {
            if let Err(e) = shell.run(&receiver, &woken, &Asked::default()) {
                tracing::error!("serving on has failed: {e:#}");
            }
        })?;
        Ok(Self {
            id,
            sent,
            watched,
            updates,
            wake,
        })
    }

    /// Its number in packets.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Returns the bytes that it has sent, without headers.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Removes its socket, for processes that exit without dropping it.
    pub fn clean_up() {
        status_socket::remove_own();
    }

    /// Serves this version from now on, as far as it is received.
    pub fn serve(&self, share: Share) {
        let update = Update::Share {
            watched: self.watched.clone(),
            share,
            // it publishes nothing
            earlier: None,
            first: false,
        };
        // a failed thread has reported its error; a full counter wakes as well
        let _ = self.updates.send(update);
        let _ = self.wake.write(1);
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        // its thread ends with the process
        Self::clean_up();
    }
}
