//! Datagrams in and out: to whom one belongs, what comes out of its connection, Auth, liveness.
//!
//! A datagram finds its connection by what only that connection knows: a check by the user fragment
//! in its USERNAME, an answer by its transaction, everything else by a remote address that ICE has
//! validated before.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use librecast::events::{PEER_UP, TARGET};
use librecast::id::PeerId;
use tracing::{debug, info};

use crate::auth::Role;
use crate::connection::Happening;
use crate::direct::FIRST_BYTE;
use crate::envelope::Refusal;
use crate::event::{Ecn, Event, LinkId, PeerState, Transmit, Unreachable};
use crate::liveness::{Liveness, Verdict};
use crate::overlay::{Overlay, untold};
use crate::peer::Up;
use crate::stun::{Binding, Class, hello, request_id};

/// ICE forgets its checks after 4 s.
const CHECK_LIFETIME: Duration = Duration::from_secs(5);
/// Most checks remembered.
const MAX_CHECKS: usize = 65_536;
/// DTLS datagrams kept that came before their path was known, and the longest.
const MAX_EARLY: usize = 16;
const MAX_EARLY_SIZE: usize = 1_500;
/// Datagrams that are handled before connections are drained: `rtc` holds 256 messages at most.
const DRAIN_EVERY: u32 = 128;

impl Overlay {
    /// A datagram from the one UDP socket, `to_local` being the local address it came in at.
    pub fn handle_datagram(
        &mut self,
        from: SocketAddr,
        to_local: SocketAddr,
        datagram: &[u8],
        ecn: Ecn,
        now: Instant,
    ) {
        self.observe(now);
        if self.stopped {
            return;
        }
        // RFC 7983
        match datagram.first() {
            Some(0..=3) => self.handle_stun(from, to_local, datagram, now),
            Some(20..=63) => match self.by_addr.get(&from) {
                Some(&index) => self.handle_dtls(index, from, to_local, datagram, now),
                None => self.keep_early(from, to_local, datagram),
            },
            Some(&FIRST_BYTE) => self.handle_direct(from, &datagram[1..], now),
            Some(128..=191) => self.handle_media(from, datagram, ecn, now),
            _ => self.count("udp_no_protocol"),
        }
    }

    fn handle_dtls(
        &mut self,
        index: usize,
        from: SocketAddr,
        to_local: SocketAddr,
        datagram: &[u8],
        now: Instant,
    ) {
        let up = self
            .peers
            .get(index)
            .and_then(|p| p.as_ref()?.up())
            .is_some();
        if up && !is_encrypted(datagram) {
            // a link that is up has nothing to say in the clear: late, or of somebody else
            return self.count("dtls_plaintext");
        }
        self.feed(index, from, to_local, datagram, now);
    }

    fn feed(
        &mut self,
        index: usize,
        from: SocketAddr,
        to_local: SocketAddr,
        datagram: &[u8],
        now: Instant,
    ) {
        let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let Some(link) = peer.link.as_mut() else {
            return;
        };
        peer.traffic.received(datagram.len());
        link.connection
            .handle_datagram(from, to_local, datagram, now);
        let young = link.up.is_none() || link.restart.is_some();
        self.mark_dirty(index);
        self.undrained += 1;
        // while a link is made, each datagram is the condition of the next
        if young || self.undrained >= DRAIN_EVERY {
            self.drain_dirty();
        }
    }

    /// The first DTLS flight may overtake the check that makes its address known.
    fn keep_early(&mut self, from: SocketAddr, to_local: SocketAddr, datagram: &[u8]) {
        let making = self
            .peers
            .iter()
            .flatten()
            .any(|p| p.link.is_some() && p.up().is_none());
        if !making || datagram.len() > MAX_EARLY_SIZE {
            return self.count("udp_no_link");
        }
        if self.early.len() == MAX_EARLY {
            self.early.pop_front();
        }
        self.early
            .push_back((from, to_local, Bytes::copy_from_slice(datagram)));
    }

    fn feed_early(&mut self, index: usize, remote: SocketAddr, now: Instant) {
        let (theirs, others) = std::mem::take(&mut self.early)
            .into_iter()
            .partition(|(from, ..)| *from == remote);
        self.early = others;
        let theirs: VecDeque<(SocketAddr, SocketAddr, Bytes)> = theirs;
        for (from, to_local, datagram) in theirs {
            if let Some(link) = self.link_mut(index) {
                link.connection
                    .handle_datagram(from, to_local, &datagram, now);
            }
        }
    }

    fn handle_stun(
        &mut self,
        from: SocketAddr,
        to_local: SocketAddr,
        datagram: &[u8],
        now: Instant,
    ) {
        let Some(mut binding) = Binding::parse(datagram) else {
            return self.count("stun_malformed");
        };
        match binding.class() {
            Class::Request => {
                let username = binding.username().unwrap_or_default();
                let ours = username.split(':').next().unwrap_or_default();
                let Some(&index) = self.by_ufrag.get(ours) else {
                    return self.count("stun_no_link");
                };
                if !self.answer_hello(index, from, &mut binding, now) {
                    self.feed(index, from, to_local, datagram, now);
                }
            }
            Class::Response => {
                if let Some(index) = self.checks.remove(&binding.id()) {
                    self.feed(index, from, to_local, datagram, now);
                } else if !self.handle_hello_answer(from, &mut binding, now) {
                    self.handle_mapping(&binding, from, now);
                }
            }
            Class::Other => self.count("stun_malformed"),
        }
    }

    /// Answers a consent check on the path of a link; everything else is ICE's.
    fn answer_hello(
        &mut self,
        index: usize,
        from: SocketAddr,
        request: &mut Binding,
        now: Instant,
    ) -> bool {
        let crypto = self.factory.provider().crypto();
        let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut) else {
            return false;
        };
        let Some(link) = peer.link.as_mut() else {
            return false;
        };
        let Some((local, remote)) = link.connection.path() else {
            return false;
        };
        let Some(up) = link.up.as_mut() else {
            return false;
        };
        let password = &link.connection.credentials().local_pwd;
        if remote != from || link.restart.is_some() || request.nominates() {
            return false;
        }
        if !request.is_authentic(password, crypto) {
            return false;
        }
        up.liveness.heard(now);
        if request.asks_for_hellos() {
            up.liveness.asked(now);
        }
        if let Some(answer) = request.success(from, Some((password, crypto))) {
            peer.traffic.received(answer.len());
            peer.traffic.sent(answer.len());
            let answer = Transmit::plain(from, Some(local), answer.into());
            self.transmits.push_back(answer);
        }
        self.schedule_cheaply(index);
        true
    }

    fn handle_hello_answer(
        &mut self,
        from: SocketAddr,
        answer: &mut Binding,
        now: Instant,
    ) -> bool {
        let crypto = self.factory.provider().crypto();
        let Some(&index) = self.by_addr.get(&from) else {
            return false;
        };
        let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut) else {
            return false;
        };
        let Some(link) = peer.link.as_mut() else {
            return false;
        };
        let password = &link.connection.credentials().remote_pwd;
        let Some(up) = link.up.as_mut() else {
            return false;
        };
        if !answer.is_success() || !answer.is_authentic(password, crypto) {
            return false;
        }
        let before = up.liveness.rtt();
        let ours = up.liveness.answered(answer.id(), now);
        if let Some(rtt) = up.liveness.rtt()
            && before.is_none_or(|before| rtt < before)
        {
            let link = up.id;
            self.events.push_back(Event::RoundTrip { link, rtt });
        }
        self.schedule_cheaply(index);
        ours
    }

    fn handle_mapping(&mut self, response: &Binding, from: SocketAddr, now: Instant) {
        match self.gatherer.handle_response(response, from, now) {
            None => self.count("stun_unasked"),
            Some(false) => {}
            Some(true) => {
                debug!(addresses = ?self.gatherer.addresses(), "server-reflexive addresses");
                // attempts that were begun without this address start over
                if !self.was_patient {
                    for index in self.indices() {
                        let young = self.link_mut(index).is_some_and(|l| l.up.is_none());
                        if young {
                            self.begin_anew(index, now);
                        }
                    }
                }
            }
        }
        self.unsettled = true;
        self.settle_waiting(now);
    }

    /// Says hello on a link, or finds it dead.
    pub(crate) fn say_hello(&mut self, index: usize, now: Instant) {
        let crypto = self.factory.provider().crypto();
        let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let Some(link) = peer.link.as_mut() else {
            return;
        };
        let (Some(up), None) = (link.up.as_mut(), &link.restart) else {
            return;
        };
        match up.liveness.poll(now) {
            Verdict::Wait => {}
            Verdict::Down(reason) => self.end_link(index, reason, now),
            Verdict::Hello { id, asks } => {
                let Some((local, remote)) = link.connection.path() else {
                    return;
                };
                let credentials = link.connection.credentials();
                if let Some(request) = hello(id, asks, credentials, crypto) {
                    peer.traffic.sent(request.len());
                    let request = Transmit::plain(remote, Some(local), request.into());
                    self.transmits.push_back(request);
                }
            }
        }
    }

    /// The network says that a datagram of ours did not arrive. Anybody who knows the addresses of a link can
    /// forge that: the peer there is suspected, and has gone if it does not answer. Less time to answer has
    /// who is refused by its own host, if the error quotes what only those on the path have seen.
    pub fn handle_unreachable(&mut self, error: &Unreachable<'_>, now: Instant) {
        self.observe(now);
        let Some(&index) = self.by_addr.get(&error.remote) else {
            return self.count("icmp_no_link");
        };
        if let Some(up) = self.link_mut(index).and_then(|link| link.up.as_mut()) {
            if error.is_refusal && has_sent(up, error.quoted) {
                up.liveness.refused(now);
            } else {
                up.liveness.hint(now);
            }
            self.schedule_cheaply(index);
        }
    }

    /// Takes what the connections that had something to do have to say and to send.
    pub(crate) fn drain_dirty(&mut self) {
        self.undrained = 0;
        // handling one may make another dirty, or the same again
        while let Some(index) = self.dirty.pop() {
            if let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut) {
                peer.dirty = false;
            }
            self.drain(index);
            if !self.tidy(index) {
                self.schedule(index);
            }
        }
    }

    fn drain(&mut self, index: usize) {
        let now = self.now;
        let mut happenings = std::mem::take(&mut self.happenings);
        let before = self.transmits.len();
        if let Some(link) = self
            .peers
            .get_mut(index)
            .and_then(|p| p.as_mut()?.link.as_mut())
        {
            link.connection
                .drain(&mut happenings, &mut self.transmits, now);
            // not earlier: what made it up, our Auth, may have gone out just now
            if link.up.is_some() {
                link.connection.link_is_made();
            }
        }
        self.account(index, before, now);
        let attempt = self.link_mut(index).map(|link| link.attempt);
        for happening in happenings.drain(..) {
            // what an old link had to say is not said of the one that took its place
            if self.link_mut(index).map(|link| link.attempt) == attempt {
                self.handle_happening(index, happening, now);
            }
        }
        self.happenings = happenings;
    }

    /// Counts what was just queued to be sent, and remembers ICE's checks.
    fn account(&mut self, index: usize, from: usize, now: Instant) {
        let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        for transmit in self.transmits.range(from..) {
            peer.traffic.sent(transmit.contents.len());
            if let Some(id) = request_id(&transmit.contents) {
                self.checks.insert(id, index);
                self.check_order.push_back((now, id));
            }
        }
        while let Some((at, id)) = self.check_order.front() {
            if *at + CHECK_LIFETIME > now && self.check_order.len() <= MAX_CHECKS {
                break;
            }
            self.checks.remove(id);
            self.check_order.pop_front();
        }
    }

    fn handle_happening(&mut self, index: usize, happening: Happening, now: Instant) {
        let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let Some(link) = peer.link.as_mut() else {
            return;
        };
        match happening {
            Happening::Path { local, remote } => {
                debug!(peer = %peer.id, %local, %remote, "path");
                self.by_addr.insert(remote, index);
                link.restart = None;
                if let Some(up) = link.up.as_mut() {
                    up.liveness.heard(now);
                }
                self.feed_early(index, remote, now);
                self.move_media(index, now);
                self.mark_dirty(index);
            }
            Happening::Open => self.send_auth(index, now),
            Happening::Control(message) => match link.up.as_mut() {
                Some(up) => {
                    up.liveness.heard(now);
                    self.handle_control(index, message, now);
                }
                None => self.handle_auth(index, &message, now),
            },
            Happening::Data(message) => match link.up.as_mut() {
                Some(up) => {
                    up.liveness.heard(now);
                    // high nibble 0 is the overlay's own, and empty
                    if message.first().is_some_and(|first| first >> 4 != 0) {
                        self.events.push_back(Event::Data {
                            link: up.id,
                            message,
                        });
                    }
                }
                None => self.count("unauthenticated_data"),
            },
            Happening::OtherControl(theirs) => {
                let refusal = Refusal::of_control(theirs, self.factory.control);
                let id = peer.id;
                self.end_link(index, refusal.reason(), now);
                self.refuse(refusal, Some(id), now);
            }
            Happening::LeftOut(count) => {
                debug!(peer = %peer.id, count, "SCTP left out");
                (0..count).for_each(|_| self.count("sctp_left_out"));
            }
            Happening::Closed(reason) => self.end_link(index, reason, now),
        }
    }

    /// Our Auth goes out once both channels are open, if DTLS is with whom the signalling named.
    fn send_auth(&mut self, index: usize, now: Instant) {
        let factory = &self.factory;
        let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let Some(link) = peer.link.as_mut() else {
            return;
        };
        let Some(binding) = link.binding.as_ref().filter(|_| !link.auth_sent) else {
            return;
        };
        let role = link.connection.role();
        let signalled = match role {
            Role::Offerer => binding.answerer_fingerprint,
            Role::Answerer => binding.offerer_fingerprint,
        };
        if link.connection.remote_fingerprint(factory) != Some(signalled) {
            return self.fail_auth(index, now);
        }
        let auth = binding.sign(&self.config.identity.key, role);
        link.auth_sent = link.connection.send_control(&auth, now).is_ok();
        self.mark_dirty(index);
        self.raise_link(index, now);
    }

    /// The first control message: nothing else counts before it has been verified.
    fn handle_auth(&mut self, index: usize, message: &[u8], now: Instant) {
        let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let Some(link) = peer.link.as_mut() else {
            return;
        };
        let role = link.connection.role().other();
        let genuine = link
            .binding
            .as_ref()
            .is_some_and(|b| b.verify(role, message));
        // a second message before the link is up is as wrong as a bad one
        if !genuine || link.auth_received {
            return self.fail_auth(index, now);
        }
        link.auth_received = true;
        self.raise_link(index, now);
    }

    /// The link is up once each side has shown the other who it is.
    fn raise_link(&mut self, index: usize, now: Instant) {
        let link = self
            .peers
            .get(index)
            .and_then(|p| p.as_ref()?.link.as_ref());
        let media = link.and_then(|link| self.new_media(&link.connection, now));
        let (own, epoch) = (self.own, self.epoch);
        let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let liveness = Liveness::new(epoch, answers(&own, &peer.id), now);
        let Some(link) = peer.link.as_mut() else {
            return;
        };
        let (true, true, Some(member)) = (link.auth_sent, link.auth_received, peer.member.clone())
        else {
            return;
        };
        let id = LinkId(self.next_link);
        self.next_link += 1;
        if let Some(media) = &media {
            self.by_ssrc.insert(media.receiving_ssrc(), index);
        }
        link.up = Some(Up {
            id,
            since: now,
            liveness,
            media,
        });
        peer.set_state(PeerState::Connected, None, now);
        (peer.waiting, peer.keep_until) = (None, None);
        peer.failures = 0;
        self.by_link.insert(id, index);
        match self.told.tell(now) {
            Some(left_out) => info!(
                target: TARGET, message_id = PEER_UP.id, lcroute_peer = %peer.id, lcroute_peer_name = member.name.as_str(),
                "link up: {} ({}){}", member.name, peer.id, untold(left_out)
            ),
            None => debug!(peer = %peer.id, name = %member.name, "link up"),
        }
        self.events.push_back(Event::LinkUp {
            link: id,
            member: Box::new(member),
        });
        self.forget_pair(index);
        self.count_success(index);
        self.mark_dirty(index);
    }

    fn fail_auth(&mut self, index: usize, now: Instant) {
        let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let id = peer.id;
        peer.failures = peer.failures.max(3);
        self.end_link(index, Refusal::Auth.reason(), now);
        self.refuse(Refusal::Auth, Some(id), now);
    }
}

/// Whether this is how a datagram of the link began that we sent a moment ago.
fn has_sent(up: &Up, quoted: &[u8]) -> bool {
    let hello = request_id(quoted).is_some_and(|id| up.liveness.is_outstanding(id));
    hello || up.media.as_ref().is_some_and(|m| m.has_sent(quoted))
}

/// Which end of a link answers hellos rather than to say them: half of a node's peers do.
fn answers(own: &PeerId, peer: &PeerId) -> bool {
    let last = |id: &PeerId| id.public_key()[31] & 1;
    (own > peer) ^ (last(own) != last(peer))
}

/// Whether all records of a datagram belong to an encrypted epoch (RFC 6347, section 4.1).
fn is_encrypted(mut datagram: &[u8]) -> bool {
    while let Some((header, rest)) = datagram.split_first_chunk::<13>() {
        let epoch = u16::from_be_bytes([header[3], header[4]]);
        let length = usize::from(u16::from_be_bytes([header[11], header[12]]));
        match rest.get(length..) {
            Some(next) if epoch != 0 => datagram = next,
            _ => return false,
        }
    }
    datagram.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(epoch: u8, length: u8) -> Vec<u8> {
        let mut record = vec![23, 254, 253, 0, epoch, 0, 0, 0, 0, 0, 1, 0, length];
        record.resize(13 + usize::from(length), 7);
        record
    }

    #[test]
    fn every_record_must_be_of_an_encrypted_epoch() {
        assert!(is_encrypted(&record(1, 40)));
        assert!(is_encrypted(&[record(1, 40), record(2, 1)].concat()));
        assert!(!is_encrypted(&record(0, 40)));
        assert!(!is_encrypted(&[record(1, 40), record(0, 1)].concat()));
        assert!(!is_encrypted(&record(1, 40)[..50]));
        assert!(!is_encrypted(&[record(1, 40), vec![0; 5]].concat()));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = is_encrypted(&bytes);
        }
    }
}
