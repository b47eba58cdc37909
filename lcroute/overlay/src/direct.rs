//! Signalling straight to where a peer was last: after a blackout two nodes find each other again without any server.
//!
//! ```text
//! 0xc0 | sealed message, at most 1,200 bytes
//! ```
//! The first byte lies outside of what RFC 7983 assigns. Such a datagram is opened only if it comes from the remote address
//! of a link that is up, or that fell silent less than a minute ago: NATs and firewalls on the way keep the pair open for
//! about as long. Everything else about it is as if a server had brought it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::envelope::Payload;
use crate::event::{CarrierId, Transmit};
use crate::overlay::Overlay;

/// How sealed messages arrive that came this way.
pub(crate) const DIRECT_CARRIER: CarrierId = CarrierId(u32::MAX - 1);
pub(crate) const FIRST_BYTE: u8 = 0xc0;
/// Fits every path of IPv6 without fragments: 1,280 bytes less headers of IPv6 and UDP.
const MAX_SIZE: usize = 1_200;
/// Pause between knocks. Chosen: a path that is back is used within a second.
const KNOCK_EVERY: Duration = Duration::from_millis(500);
/// How long the pair is tried. Chosen: twice the lifetime of consent (RFC 7675), which is the least that NATs keep it open.
const KEPT_FOR: Duration = Duration::from_secs(60);
/// An attempt that is younger than this may be about to succeed. Chosen: as long as two messages may cross.
const YOUNG: Duration = Duration::from_secs(1);

/// The pair of a link that fell silent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SilentPair {
    local: SocketAddr,
    remote: SocketAddr,
    until: Instant,
    /// None where the peer alone wants the link: it knocks.
    next_knock: Option<Instant>,
}

impl SilentPair {
    /// `wanted`: this side wanted the link. That may change as soon as nobody can be reached.
    pub(crate) fn new(
        (local, remote): (SocketAddr, SocketAddr),
        wanted: bool,
        now: Instant,
    ) -> Self {
        Self {
            local,
            remote,
            until: now + KEPT_FOR,
            // the end of the link has caused one already
            next_knock: wanted.then(|| now + KNOCK_EVERY),
        }
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.next_knock.map_or(self.until, |at| at.min(self.until))
    }
}

impl Overlay {
    /// A link to this peer fell silent on this pair.
    pub(crate) fn remember_pair(&mut self, index: usize, pair: SilentPair) {
        if let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut) {
            peer.silent_pair = Some(pair);
            self.by_silent_addr.insert(pair.remote, index);
        }
    }

    pub(crate) fn forget_pair(&mut self, index: usize) {
        let peer = self.peers.get_mut(index).and_then(Option::as_mut);
        if let Some(pair) = peer.and_then(|peer| peer.silent_pair.take())
            && self.by_silent_addr.get(&pair.remote) == Some(&index)
        {
            self.by_silent_addr.remove(&pair.remote);
        }
    }

    /// Knocks at where the peer was, if it is time to.
    pub(crate) fn knock_directly(&mut self, index: usize, now: Instant) {
        let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let (id, session) = (peer.id, peer.session);
        let Some(pair) = peer.silent_pair.as_mut() else {
            return;
        };
        if now < pair.deadline() {
            return;
        }
        pair.next_knock = pair.next_knock.map(|_| now + KNOCK_EVERY);
        let has_ended = now >= pair.until;
        let link = peer.link.as_ref();
        // ICE's checks find the path themselves; an offer may have got lost
        let under_way =
            link.is_some_and(|l| !l.connection.awaits_answer() || now < l.began + YOUNG);
        if has_ended || self.is_expelled(&id) || self.is_shut_out(&id) {
            self.forget_pair(index);
            return self.mark_dirty(index);
        }
        if !under_way
            && let Some(bytes) = self.seal(&id, session, &Payload::Knock { restart: false })
        {
            self.send_directly(index, &bytes);
        }
    }

    /// Sends a sealed message to where the peer was last, if a link fell silent there.
    pub(crate) fn send_directly(&mut self, index: usize, sealed: &Bytes) {
        let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let Some(pair) = peer.silent_pair.filter(|_| sealed.len() < MAX_SIZE) else {
            return;
        };
        let contents = [&[FIRST_BYTE], sealed.as_ref()].concat();
        peer.traffic.sent(contents.len());
        let transmit = Transmit::plain(pair.remote, Some(pair.local), contents.into());
        self.transmits.push_back(transmit);
    }

    /// A sealed message that came straight from its sender.
    pub(crate) fn handle_direct(&mut self, from: SocketAddr, sealed: &[u8], now: Instant) {
        let index = self.by_silent_addr.get(&from).or(self.by_addr.get(&from));
        let Some(id) = index.and_then(|index| Some(self.peers[*index].as_ref()?.id)) else {
            return self.count("signal_unexpected");
        };
        if sealed.len() >= MAX_SIZE {
            return self.count("signal_too_large");
        }
        if let Err((refusal, sender)) = self.handle_message(DIRECT_CARRIER, Some(id), sealed, now) {
            self.refuse(refusal, sender, now);
        }
        self.drain_dirty();
    }
}

#[cfg(test)]
impl Overlay {
    /// This side of a link falls silent, and says no goodbye that arrives.
    pub(crate) fn lose_for_test(&mut self, link: crate::LinkId, now: Instant) {
        let index = self.by_link[&link];
        let before = self.transmits.len();
        self.end_link(index, crate::SILENT, now);
        self.transmits.truncate(before);
    }
}
