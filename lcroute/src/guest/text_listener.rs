//! A guest that listens by a text: it finds the text's network, and is a leaf of it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use lcroute_overlay::{PresenceRecord, TextRecord};
use librecast::id::{PeerId, SecretKey};
use librecast::text_network::TextKey;

use super::interface::Interface;
use super::leaf::LOOKING;
use super::listener::Listener;
use super::text::{Finder, Places};
use crate::commands::hint;

/// Time without a link after which the text's record is looked for again. Chosen: links that the
/// network makes again by itself take less.
const ALONE: Duration = Duration::from_secs(3);
/// Most servers that a listener uses: those of the text and of the record.
const MAX_SERVERS: usize = 8;

/// What a listener begins with.
#[derive(Debug)]
pub struct ListenerStart {
    /// The text.
    pub text: TextKey,
    /// Where it meets.
    pub places: Places,
}

/// The guest.
#[derive(Debug)]
pub struct TextListener {
    start: ListenerStart,
    is_shell: bool,
    /// The leaf; none: the network is not found.
    listener: Option<Box<Listener>>,
    /// The search; none: a link is up.
    finder: Option<Finder>,
    /// When the newest record was made.
    newest: u64,
    /// Routers in it.
    routers: Vec<PeerId>,
    /// Since when no link is up.
    alone_since: Instant,
    told_looking: bool,
}

impl TextListener {
    /// Begins to look for the network; to be called within a tokio runtime.
    pub fn start(start: ListenerStart, is_shell: bool) -> Self {
        let finder = Finder::start(start.text.clone(), &start.places, 0);
        Self {
            start,
            is_shell,
            listener: None,
            finder: Some(finder),
            newest: 0,
            routers: Vec::new(),
            alone_since: Instant::now(),
            told_looking: false,
        }
    }

    /// Handles a packet of a program or the kernel. The leaf asks for joins at its start.
    pub fn handle_packet(&mut self, packet: Bytes, now: Instant) {
        if let Some(listener) = &mut self.listener {
            listener.handle_packet(packet, now);
        }
    }

    /// Passes on all that is pending.
    pub fn flush(&mut self, device: &mut Interface) -> anyhow::Result<()> {
        match &mut self.listener {
            Some(listener) => listener.flush(device),
            None => Ok(()),
        }
    }

    /// Waits for the next input, and handles it. Cancellation loses none.
    pub async fn wait(&mut self) -> anyhow::Result<()> {
        let found = tokio::select! {
            found = find(&mut self.finder) => found,
            () = listen(&mut self.listener) => None,
        };
        match found {
            Some(record) => self.handle_record(record).await,
            None => Ok(()),
        }
    }

    async fn handle_record(&mut self, mut record: TextRecord) -> anyhow::Result<()> {
        self.newest = record.made;
        let places = &self.start.places;
        let signal = &mut record.token.signal;
        for url in &places.servers {
            if !signal.contains(url) {
                signal.push(url.clone());
            }
        }
        signal.truncate(MAX_SERVERS);
        let listener = match &mut self.listener {
            Some(listener) => listener,
            None => {
                let ways = (&*places.interface, places.proxy.clone());
                let key = SecretKey::generate();
                let started = Listener::start(record.token, key, ways, self.is_shell).await?;
                self.listener.insert(Box::new(started))
            }
        };
        let node = listener.node();
        let now = Instant::now();
        let named: Vec<_> = record.routers.iter().map(|(router, _)| *router).collect();
        for router in std::mem::replace(&mut self.routers, named) {
            if !self.routers.contains(&router) {
                node.handle_unnamed_router(router, now);
            }
        }
        for (router, candidates) in record.routers {
            let presence = PresenceRecord {
                node: router,
                made: record.made,
                until: record.until,
                candidates,
            };
            node.handle_named_router(presence, now);
        }
        Ok(())
    }

    /// Follows the host's addresses and the links; `lost`: joins may be lost.
    pub async fn look(&mut self, lost: bool) -> anyhow::Result<()> {
        let now = Instant::now();
        if let Some(finder) = &mut self.finder {
            finder.review();
        }
        let Some(listener) = &mut self.listener else {
            self.tell_looking(now);
            return Ok(());
        };
        listener.look(lost).await?;
        if listener.node().links() > 0 {
            (self.alone_since, self.finder) = (now, None);
        } else if self.finder.is_none() && self.alone_since + ALONE <= now {
            let (text, places) = (self.start.text.clone(), &self.start.places);
            self.finder = Some(Finder::start(text, places, self.newest));
        }
        Ok(())
    }

    fn tell_looking(&mut self, now: Instant) {
        if self.alone_since + LOOKING > now || std::mem::replace(&mut self.told_looking, true) {
            return;
        }
        let stale = self.finder.as_ref().is_some_and(Finder::has_stale);
        let servers = self.start.places.servers.join(", ");
        match (stale, servers.is_empty()) {
            (true, _) => hint(
                "what is found under this text is of another day: is the clock of this host right (`timedatectl`)?",
            ),
            (false, true) => hint(
                "looking for the sender on the LANs of this host: does it send there, and does its firewall let it in? Beyond a LAN a text names a server: TEXT@HOST",
            ),
            (false, false) => hint(format_args!(
                "looking for the sender at {servers} and on the LANs of this host: does it send, and is the text right?"
            )),
        }
    }

    /// Ends the links, and logs what was dropped.
    pub fn close(&mut self) {
        self.finder = None;
        if let Some(listener) = &mut self.listener {
            listener.close();
        }
    }
}

async fn find(finder: &mut Option<Finder>) -> Option<TextRecord> {
    match finder {
        Some(finder) => finder.wait().await,
        None => std::future::pending().await,
    }
}

async fn listen(listener: &mut Option<Box<Listener>>) {
    match listener {
        Some(listener) => listener.wait().await,
        None => std::future::pending().await,
    }
}
