//! A server on a thread of its own, whose versions its owner makes: inside a receiver, which serves
//! received blocks under the origin's version and signature; and that of `lcsync send`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Instant;

use librecast::announce::Announcer;
use librecast::listener::MldListener;
use librecast_program::guest;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::hosted::Share;
use super::overlay::{Overlay, Shared};
use super::rescan::{Update, Watched};
use super::shell::{Asked, Options, Shares, Shell, explain_socket};
use super::status_socket;
use crate::block::{BlockHash, BlockRef};
use crate::carrying::Had;

/// A running server of one share; it ends with the process.
#[derive(Debug)]
pub struct Seed {
    id: u32,
    sent: Arc<AtomicU64>,
    watched: Watched,
    updates: Sender<Update>,
    wake: Arc<EventFd>,
    shared: Arc<Shared>,
}

/// Programs that share the network with a server.
enum Beside {
    /// Those of the host.
    Programs,
    /// Those of the host, and the receiver whose blocks it passes on.
    Receiver(Overlay, Sender<BlockRef>),
    /// None: a network of its own, whose programs may be receivers.
    Nobody,
}

impl Seed {
    /// Starts without a version, on these interfaces (all if empty), within `limit` bits per
    /// second.
    pub fn start(
        watched: Watched,
        interfaces: Vec<String>,
        limit: Option<u64>,
    ) -> anyhow::Result<Self> {
        Self::start_as(watched, interfaces, limit, Beside::Programs)
    }

    /// Does the same on an overlay, and passes on the blocks that come. Returns blocks that others
    /// await here for too long, too.
    pub fn carry(
        watched: Watched,
        interfaces: Vec<String>,
        limit: Option<u64>,
        overlay: Overlay,
    ) -> anyhow::Result<(Self, Receiver<BlockRef>)> {
        let (overdue, blocks) = channel();
        let beside = Beside::Receiver(overlay, overdue);
        Ok((Self::start_as(watched, interfaces, limit, beside)?, blocks))
    }

    /// Does the same in a network of its own: no program of the host learns of it, and programs
    /// beside it may be receivers.
    pub fn start_alone(
        watched: Watched,
        interfaces: Vec<String>,
        limit: Option<u64>,
    ) -> anyhow::Result<Self> {
        Self::start_as(watched, interfaces, limit, Beside::Nobody)
    }

    fn start_as(
        watched: Watched,
        interfaces: Vec<String>,
        limit: Option<u64>,
        beside: Beside,
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
        // lcroute of a guest announces by itself
        let on_host = !matches!(beside, Beside::Nobody) && !guest::is_inside();
        let announcer = on_host.then(Announcer::start).transpose()?;
        let mut shell = Shell::new(options, listener, lists, announcer)?;
        if !matches!(beside, Beside::Nobody) {
            shell.ignore_own_host();
        }
        if on_host {
            shell.answer_status(&wake);
        }
        let shared = Arc::new(Shared::default());
        if let Beside::Receiver(overlay, overdue) = beside {
            shell.carry(overlay, Arc::clone(&shared), overdue);
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
            shared,
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

    /// Values that it shares with the receiver's thread.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Notes that all content but these blocks has come.
    pub fn has(&self, leaves: &[BlockRef], missing: &[BlockRef]) {
        let missing = missing.iter().map(|block| block.hash).collect();
        let had = Had::new(leaves, &missing);
        self.tell(Update::Carried(self.watched.prefix, had));
    }

    /// Returns a function that notes the coming of a block, for another thread.
    pub fn teller(&self) -> impl Fn(BlockHash) + Send + use<> {
        let (updates, wake) = (self.updates.clone(), Arc::clone(&self.wake));
        let prefix = self.watched.prefix;
        move |block| {
            // as below
            let _ = updates.send(Update::Came(prefix, block));
            let _ = wake.write(1);
        }
    }

    fn tell(&self, update: Update) {
        // a failed thread has reported its error; a full counter wakes as well
        let _ = self.updates.send(update);
        let _ = self.wake.write(1);
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
        self.tell(update);
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        // its thread ends with the process
        Self::clean_up();
    }
}
