//! This node's use of relays: one allocation at most, while it is needed.
//!
//! ```text
//! idle --need--> UDP, 1 s --no answer--> stream, 5 s --no answer--> next relay ... all fail: pause
//!                  \------ allocated -------/
//! in use: refreshed; unused for a minute: returned; no answers, or refused: lost
//! ```
//! Its datagrams carry the caller's. The crate `rtc` has TURN; a panic in it ends the allocation.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use librecast::plain::clean;
use librecast::time::{Duration, Instant};
use rtc::crypto::{RTCCrypto, RTCCryptoProvider};
use rtc::sansio::Protocol;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};
use rtc::stun::attributes::ATTR_REALM;
use rtc::stun::integrity::MessageIntegrity;
use rtc::stun::message::{CLASS_ERROR_RESPONSE, METHOD_REFRESH, Message, MessageType};
use rtc::turn::client::{Client, ClientConfig, Event};
use tracing::debug;

use super::framing::CHANNELS;
use super::message::{error_code, parse, text};
use crate::datagram::Transmit;
use crate::drops::DropReason;
use crate::fence::Fenced;
use crate::stun::guarded;
use lcroute_overlay::server::RelayCredentials;

/// Time for a relay's answer over UDP. Chosen.
const UDP_TIMEOUT: Duration = Duration::from_secs(1);
/// Time for a relay's answer in a stream, including its opening. Chosen.
const STREAM_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait of descriptions for a relay. Chosen: a stream over a long path is open by then.
const AWAITED: Duration = Duration::from_millis(1_500);
/// Time for which an unused allocation is kept.
const KEEP: Duration = Duration::from_secs(60);
/// Interval of refreshes, which also keep a NAT's mapping.
const REFRESH: Duration = Duration::from_secs(20);
/// Silence after which the relay counts as lost.
const SILENCE: Duration = Duration::from_secs(50);
/// First and longest pause after all relays have failed.
const PAUSE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
/// Bound of known relays.
const MAX_OFFERS: usize = 16;
/// Bound of messages that wait for a stream to open.
const MAX_WAITING: usize = 64;
/// Local address of a stream, which the crate ignores.
const NOWHERE: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);
/// Refusal of a peer's address, as the TURN client tells of it (RFC 8656 9.2).
const FORBIDDEN: &str = "(error 403";
/// Message type of a refused Refresh (RFC 8656 7.3).
const REFRESH_ERROR: MessageType = MessageType {
    method: METHOD_REFRESH,
    class: CLASS_ERROR_RESPONSE,
};
/// Error code of an expired nonce (RFC 8489 14.8).
const STALE_NONCE: u16 = 438;
/// Error codes of responses that need no proof of their origin (RFC 8489 9.2.5).
const UNPROVED: [u16; 2] = [401, STALE_NONCE];

/// A relay that this node may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayOffer {
    /// Its name for users, and the stream's target for the shell.
    pub url: String,
    /// Its addresses over UDP, if any.
    pub udp: Vec<SocketAddr>,
    /// Whether a stream can reach it.
    pub stream: bool,
    /// Credentials for it.
    pub credentials: RelayCredentials,
    /// Whether newer credentials continue an allocation made with older ones.
    pub renews: bool,
}

/// Command for the shell about streams to relays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamCommand {
    /// Open a stream.
    Open {
        /// Its number, never reused.
        stream: u64,
        /// The offer's URL.
        url: String,
    },
    /// Send a TURN message, padded for a stream.
    Send {
        /// Number of the stream.
        stream: u64,
        /// The message.
        contents: Bytes,
    },
    /// Close the stream after its queued messages.
    Close {
        /// Number of the stream.
        stream: u64,
    },
}

/// Event of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamEvent {
    /// It is open.
    Opened,
    /// A message of TURN.
    Received(Bytes),
    /// It has ended, or cannot be opened.
    Closed,
}

/// State of relays, for users.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RelayStatus {
    /// Number of known relays.
    pub offered: usize,
    /// URL of the one in use.
    pub url: Option<String>,
    /// Relayed address.
    pub relayed: Option<SocketAddr>,
    /// Whether a stream leads to it.
    pub stream: bool,
    /// Reason of the last failure.
    pub failure: Option<String>,
    /// Whether the one in use refused the address of a peer, as most do with private ones.
    pub refuses_peers: bool,
}

/// Change of the allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Allocated,
    Lost(SocketAddr),
    /// No relay is usable for now.
    Failed,
}

pub(crate) struct Relays {
    provider: Option<Arc<dyn RTCCryptoProvider>>,
    offers: Vec<RelayOffer>,
    hosts: Vec<SocketAddr>,
    needed_until: Option<Instant>,
    awaited_until: Instant,
    attempt: Option<Attempt>,
    /// Relays and transports to try in order.
    plan: VecDeque<(usize, Kind)>,
    pause: Duration,
    not_before: Option<Instant>,
    next_stream: u64,
    failure: Option<String>,
    transmits: VecDeque<Transmit>,
    commands: VecDeque<StreamCommand>,
    received: VecDeque<(SocketAddr, Bytes)>,
    changes: VecDeque<Change>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Udp,
    Stream,
}

/// Transport to the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leg {
    Udp {
        base: SocketAddr,
        server: SocketAddr,
    },
    Stream {
        number: u64,
        open: bool,
    },
}

struct Attempt {
    url: String,
    leg: Leg,
    client: Fenced<Client>,
    /// The credentials, and those before: a request that was made with them may be unanswered.
    credentials: [RelayCredentials; 2],
    /// The relay's realm, known from its first answer.
    realm: Option<String>,
    relayed: Option<SocketAddr>,
    /// Whether the relay refused the address of a peer.
    refuses_peers: bool,
    /// End of the attempt, while there is no allocation.
    deadline: Instant,
    heard: Instant,
    /// Messages for a stream that is not open yet.
    waiting: Vec<Bytes>,
}

impl Relays {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            provider: rtc::crypto::default_provider().ok(),
            offers: Vec::new(),
            hosts: Vec::new(),
            needed_until: None,
            awaited_until: now,
            attempt: None,
            plan: VecDeque::new(),
            pause: PAUSE.0,
            not_before: None,
            next_stream: 0,
            failure: None,
            transmits: VecDeque::new(),
            commands: VecDeque::new(),
            received: VecDeque::new(),
            changes: VecDeque::new(),
        }
    }

    /// Sets the usable relays, best first. An allocation at one of them stays.
    pub(crate) fn offer(&mut self, mut offers: Vec<RelayOffer>, now: Instant) {
        offers.truncate(MAX_OFFERS);
        if offers == self.offers {
            return;
        }
        self.offers = offers;
        (self.pause, self.not_before) = (PAUSE.0, None);
        self.plan.clear();
        let Some(attempt) = self.attempt.as_mut() else {
            return;
        };
        match self.offers.iter().find(|offer| offer.url == attempt.url) {
            None => self.give_back(now),
            Some(offer) if offer.renews => {
                let RelayCredentials { user, password } = offer.credentials.clone();
                attempt.credentials.rotate_right(1);
                attempt.credentials[0] = offer.credentials.clone();
                let _ = attempt
                    .client
                    .call(|client| client.update_credentials(user, password));
            }
            Some(_) => {}
        }
    }

    pub(crate) fn set_hosts(&mut self, hosts: &[SocketAddr], now: Instant) {
        self.hosts = hosts.to_vec();
        (self.pause, self.not_before) = (PAUSE.0, None);
        let base = self.attempt.as_ref().and_then(|attempt| match attempt.leg {
            Leg::Udp { base, .. } => Some(base),
            Leg::Stream { .. } => None,
        });
        // an allocation belongs to the address that requested it
        if base.is_some_and(|base| !hosts.contains(&base)) {
            self.drop_attempt("addresses changed", now);
        }
    }

    /// Requests a relay, for [`KEEP`]; skips UDP if that is known to be blocked.
    pub(crate) fn need(&mut self, udp_is_dead: bool, now: Instant) {
        self.needed_until = Some(now + KEEP);
        let early = self.not_before.is_some_and(|at| now < at);
        if self.attempt.is_some() || early || self.offers.is_empty() {
            return;
        }
        let kinds = [Kind::Udp, Kind::Stream];
        let all = (0..self.offers.len()).flat_map(|at| kinds.map(|kind| (at, kind)));
        self.plan = all
            .filter(|(_, kind)| !(udp_is_dead && *kind == Kind::Udp))
            .collect();
        self.awaited_until = now + AWAITED;
        self.begin(now);
    }

    pub(crate) fn relayed(&self) -> Option<SocketAddr> {
        self.attempt.as_ref()?.relayed
    }

    /// Whether a description should wait: an allocation may come soon.
    pub(crate) fn are_awaited(&self, now: Instant) -> bool {
        let allocating = self.attempt.as_ref().is_some_and(|a| a.relayed.is_none());
        allocating && now < self.awaited_until
    }

    pub(crate) fn is_stream(&self) -> bool {
        let leg = self.attempt.as_ref().map(|attempt| attempt.leg);
        matches!(leg, Some(Leg::Stream { .. }))
    }

    pub(crate) fn status(&self) -> RelayStatus {
        let attempt = self.attempt.as_ref().filter(|a| a.relayed.is_some());
        RelayStatus {
            offered: self.offers.len(),
            url: attempt.map(|attempt| attempt.url.clone()),
            relayed: self.relayed(),
            stream: attempt.is_some() && self.is_stream(),
            failure: self.failure.clone(),
            refuses_peers: attempt.is_some_and(|attempt| attempt.refuses_peers),
        }
    }

    /// Whether a datagram is the relay's: ChannelData, or STUN except Binding.
    pub(crate) fn takes(&self, from: SocketAddr, datagram: &[u8]) -> bool {
        let leg = self.attempt.as_ref().map(|attempt| attempt.leg);
        let Some(Leg::Udp { server, .. }) = leg else {
            return false;
        };
        let is_turn = match datagram {
            [first, ..] if CHANNELS.contains(first) => true,
            [first @ 0..=3, second, ..] => {
                // the method's bits are between those of the class
                (u16::from_be_bytes([*first, *second]) & 0x3eef) != 1
            }
            _ => false,
        };
        server == from && is_turn
    }

    /// Handles a message of the relay; fails if it is dropped. The retransmission of a request
    /// whose answer was dropped decides.
    pub(crate) fn handle_message(
        &mut self,
        message: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        let (Some(attempt), Some(provider)) = (self.attempt.as_mut(), &self.provider) else {
            return Ok(());
        };
        let mut is_refused = false;
        if is_response(message) {
            let mut response = parse(message).ok_or(DropReason::StunMalformed)?;
            attempt.check(&mut response, provider.crypto())?;
            // the crate retries with a new nonce
            is_refused =
                response.typ == REFRESH_ERROR && error_code(&response) != Some(STALE_NONCE);
        }
        attempt.heard = now;
        let tagged = TaggedBytesMut {
            now,
            transport: TransportContext {
                local_addr: NOWHERE,
                peer_addr: NOWHERE,
                ecn: None,
                transport_protocol: TransportProtocol::UDP,
            },
            message: BytesMut::from(message),
        };
        // its errors concern single messages
        let _ = attempt.client.call(|client| client.handle_read(tagged));
        if is_refused {
            self.drop_attempt("the relay has ended the allocation", now);
        }
        self.drain(now);
        Ok(())
    }

    /// Handles an event of a stream; ignores other streams. Fails if a message is dropped.
    pub(crate) fn handle_stream(
        &mut self,
        stream: u64,
        event: StreamEvent,
        now: Instant,
    ) -> Result<(), DropReason> {
        let Some(attempt) = self.attempt.as_mut() else {
            return Ok(());
        };
        let Leg::Stream { number, open } = &mut attempt.leg else {
            return Ok(());
        };
        if *number != stream {
            return Ok(());
        }
        match event {
            StreamEvent::Opened => {
                *open = true;
                attempt.heard = now;
                let waiting = std::mem::take(&mut attempt.waiting);
                let send = |contents| StreamCommand::Send { stream, contents };
                self.commands.extend(waiting.into_iter().map(send));
            }
            StreamEvent::Received(message) => self.handle_message(&message, now)?,
            StreamEvent::Closed => self.drop_attempt("the stream to the relay has ended", now),
        }
        Ok(())
    }

    pub(crate) fn permit(&mut self, peers: impl Iterator<Item = SocketAddr>, now: Instant) {
        let Some(attempt) = self.attempt.as_mut() else {
            return;
        };
        let Some(relayed) = attempt.relayed else {
            return;
        };
        for peer in peers.filter(|peer| peer.is_ipv4() == relayed.is_ipv4()) {
            let _ = attempt.client.call(|client| {
                let mut relay = client.relay(relayed)?;
                relay.create_permission(now, peer)
            });
        }
        self.drain(now);
    }

    /// Sends from the relayed address; returns false if that is not possible yet.
    pub(crate) fn send(&mut self, to: SocketAddr, contents: &[u8], now: Instant) -> bool {
        let Some(attempt) = self.attempt.as_mut() else {
            return false;
        };
        let Some(relayed) = attempt.relayed else {
            return false;
        };
        let sent = attempt.client.call(|client| {
            let mut relay = client.relay(relayed)?;
            let sent = relay.send_to(now, contents, to);
            if sent.is_err() {
                // an address that no candidate has, as behind a symmetric NAT
                relay.create_permission(now, to)?;
            }
            sent
        });
        self.drain(now);
        matches!(sent, Ok(Ok(())))
    }

    /// Runs the due timers, and returns the allocation after [`KEEP`] without use.
    pub(crate) fn poll(&mut self, is_used: bool, now: Instant) {
        if is_used {
            self.needed_until = Some(now + KEEP);
        }
        let Some(attempt) = self.attempt.as_mut() else {
            return;
        };
        let _ = attempt.client.call(|client| client.handle_timeout(now));
        if attempt.relayed.is_none() && now >= attempt.deadline {
            return self.drop_attempt("no answer", now);
        }
        if attempt.relayed.is_some() && now >= attempt.heard + SILENCE {
            return self.drop_attempt("the relay has fallen silent", now);
        }
        if self.needed_until.is_none_or(|until| until <= now) {
            return self.give_back(now);
        }
        self.drain(now);
    }

    pub(crate) fn deadline(&mut self, now: Instant) -> Option<Instant> {
        let awaited = self.are_awaited(now).then_some(self.awaited_until);
        let attempt = self.attempt.as_mut()?;
        let client = attempt.client.call(Protocol::poll_timeout).ok().flatten();
        let own = match attempt.relayed {
            Some(_) => attempt.heard + SILENCE,
            None => attempt.deadline,
        };
        let all = [client, Some(own), self.needed_until, awaited];
        all.into_iter().flatten().min()
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    pub(crate) fn poll_command(&mut self) -> Option<StreamCommand> {
        self.commands.pop_front()
    }

    /// Returns the next datagram that a peer sent to the relayed address.
    pub(crate) fn poll_received(&mut self) -> Option<(SocketAddr, Bytes)> {
        self.received.pop_front()
    }

    pub(crate) fn poll_change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    /// Returns the allocation; the next need makes a new one.
    pub(crate) fn give_back(&mut self, now: Instant) {
        if let Some(attempt) = self.attempt.as_mut()
            && let Some(relayed) = attempt.relayed
        {
            let _ = attempt
                .client
                .call(|client| client.relay(relayed)?.close(now));
            self.drain(now);
        }
        self.needed_until = None;
        self.plan.clear();
        self.end_attempt();
    }

    /// Tries the next relay of the plan.
    fn begin(&mut self, now: Instant) {
        while let Some((at, kind)) = self.plan.pop_front() {
            let (Some(offer), Some(provider)) = (self.offers.get(at), self.provider.clone()) else {
                continue;
            };
            let leg = match kind {
                Kind::Udp => udp_leg(&offer.udp, &self.hosts),
                Kind::Stream if offer.stream => {
                    self.next_stream += 1;
                    let number = self.next_stream;
                    Some(Leg::Stream {
                        number,
                        open: false,
                    })
                }
                Kind::Stream => None,
            };
            let Some(leg) = leg else { continue };
            let (server, within) = match leg {
                Leg::Udp { server, .. } => (server, UDP_TIMEOUT),
                Leg::Stream { .. } => (NOWHERE, STREAM_TIMEOUT),
            };
            let config = ClientConfig {
                // an address: a name would need a lookup here
                turn_serv_addr: server.to_string(),
                local_addr: if server.is_ipv4() {
                    NOWHERE
                } else {
                    SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), 0)
                },
                username: offer.credentials.user.clone(),
                password: offer.credentials.password.clone(),
                allocation_refresh_interval_cap: Some(REFRESH),
                ..ClientConfig::default()
            };
            let Ok(Ok(client)) = crate::fence::fenced(|| Client::new(config, provider)) else {
                continue;
            };
            debug!(relay = offer.url, ?kind, "allocating");
            let mut client = Fenced::new(client);
            let _ = client.call(|client| client.allocate(now));
            if let Leg::Stream { number, .. } = leg {
                let (stream, url) = (number, offer.url.clone());
                self.commands.push_back(StreamCommand::Open { stream, url });
            }
            self.attempt = Some(Attempt {
                url: offer.url.clone(),
                leg,
                client,
                credentials: [offer.credentials.clone(), offer.credentials.clone()],
                realm: None,
                relayed: None,
                refuses_peers: false,
                deadline: now + within,
                heard: now,
                waiting: Vec::new(),
            });
            return self.drain(now);
        }
        self.not_before = Some(now + self.pause);
        self.pause = (self.pause * 2).min(PAUSE.1);
        self.changes.push_back(Change::Failed);
    }

    /// Ends the attempt, and tries the next relay if there was no allocation.
    fn drop_attempt(&mut self, why: &str, now: Instant) {
        let was_allocated = self.relayed().is_some();
        if let Some(attempt) = &self.attempt {
            debug!(relay = attempt.url, why, "no relay");
            self.failure = Some(format!("{}: {why}", attempt.url));
        }
        self.end_attempt();
        if !was_allocated {
            self.begin(now);
        }
    }

    fn end_attempt(&mut self) {
        let Some(attempt) = self.attempt.take() else {
            return;
        };
        if let Leg::Stream { number, .. } = attempt.leg {
            let stream = number;
            self.commands.push_back(StreamCommand::Close { stream });
        }
        let lost = attempt.relayed.map(Change::Lost);
        self.changes.extend(lost);
    }

    /// Drains the events and messages of the TURN client.
    fn drain(&mut self, now: Instant) {
        let mut failure = None;
        while let Some(attempt) = self.attempt.as_mut() {
            let Ok(event) = attempt.client.call(Protocol::poll_event) else {
                failure = Some("the WebRTC stack panicked".to_owned());
                break;
            };
            match event {
                None => break,
                Some(Event::AllocateResponse(_, relayed)) => {
                    let ip = relayed.ip().to_canonical();
                    attempt.relayed = Some(SocketAddr::new(ip, relayed.port()));
                    debug!(relay = attempt.url, %relayed, "allocated");
                    (self.pause, self.not_before, self.failure) = (PAUSE.0, None, None);
                    self.plan.clear();
                    self.changes.push_back(Change::Allocated);
                }
                Some(Event::AllocateError(_, error)) => failure = Some(shown(&error)),
                Some(Event::CreatePermissionError(_, error)) => {
                    attempt.refuses_peers |= error.to_string().contains(FORBIDDEN);
                    debug!(%error, "the relay permits no such peer");
                }
                Some(Event::DataIndicationOrChannelData(_, from, contents)) => {
                    let from = SocketAddr::new(from.ip().to_canonical(), from.port());
                    self.received.push_back((from, contents.freeze()));
                }
                Some(_) => {}
            }
        }
        if let Some(failure) = failure {
            return self.drop_attempt(&failure, now);
        }
        let Some(attempt) = self.attempt.as_mut() else {
            return;
        };
        while let Ok(Some(sent)) = attempt.client.call(Protocol::poll_write) {
            let contents = sent.message.freeze();
            match attempt.leg {
                Leg::Udp { base, server } => {
                    let transmit = Transmit::plain(server, Some(base), contents);
                    self.transmits.push_back(transmit);
                }
                Leg::Stream { number, open: true } => {
                    let stream = number;
                    self.commands
                        .push_back(StreamCommand::Send { stream, contents });
                }
                Leg::Stream { .. } if attempt.waiting.len() < MAX_WAITING => {
                    attempt.waiting.push(contents);
                }
                Leg::Stream { .. } => {}
            }
        }
    }
}

impl Attempt {
    /// Fails unless this response answers a request, and proves its origin (RFC 8489 9.2.5).
    fn check(&mut self, response: &mut Message, crypto: &dyn RTCCrypto) -> Result<(), DropReason> {
        let id = response.transaction_id;
        // a client that has panicked ends the attempt
        let is_asked = self.client.call(|client| client.has_transaction(&id));
        if is_asked == Ok(false) {
            return Err(DropReason::StunUnasked);
        }
        let Some(realm) = &self.realm else {
            // the first request has no credentials
            self.realm = text(response, ATTR_REALM);
            return Ok(());
        };
        let is_error = response.typ.class == CLASS_ERROR_RESPONSE;
        if is_error && error_code(response).is_some_and(|code| UNPROVED.contains(&code)) {
            return Ok(());
        }
        let mut is_authentic = |credentials: &RelayCredentials| {
            let RelayCredentials { user, password } = credentials.clone();
            let realm = realm.clone();
            let key = MessageIntegrity::long_term_integrity_key(user, realm, password, crypto);
            guarded(|| MessageIntegrity::check(response, &key.ok()?, crypto).ok()).is_some()
        };
        match self.credentials.iter().any(&mut is_authentic) {
            true => Ok(()),
            false => Err(DropReason::RelayForged),
        }
    }
}

/// Whether the first byte is that of a STUN response (RFC 8489 5).
fn is_response(message: &[u8]) -> bool {
    message.first().is_some_and(|first| first & 0xc1 == 1)
}

librecast::debug_by_name!(Relays);

/// Returns the first pair of a relay's address and ours of one family; IPv4, the common one, first.
fn udp_leg(servers: &[SocketAddr], hosts: &[SocketAddr]) -> Option<Leg> {
    [true, false].into_iter().find_map(|ipv4| {
        let server = servers.iter().find(|server| server.is_ipv4() == ipv4);
        let base = hosts.iter().find(|host| host.is_ipv4() == ipv4);
        Some(Leg::Udp {
            base: *base?,
            server: *server?,
        })
    })
}

/// Returns the relay's error text without control characters, shortened.
fn shown(error: &rtc::shared::error::Error) -> String {
    clean(&error.to_string().chars().take(100).collect::<String>())
}

#[cfg(test)]
mod tests;
