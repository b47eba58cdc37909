//! This node's use of relays: at most one allocation, while it is needed.
//!
//! ```text
//! idle --need--> UDP, 1 s --no answer--> stream, 5 s --no answer--> the next relay ... all failed: a pause
//!                  \------ allocated -------/
//! in use: refreshed; nobody has used it for a minute: given back; no answers, or refused: lost
//! ```
//! Its datagrams are the caller's datagrams with other addresses. The crate `rtc` speaks TURN; a panic in it ends the
//! allocation.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use librecast::plain::clean;
use librecast::time::{Duration, Instant};
use rtc::crypto::RTCCryptoProvider;
use rtc::sansio::Protocol;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};
use rtc::turn::client::{Client, ClientConfig, Event};
use tracing::debug;

use super::framing::CHANNELS;
use super::message::{error_code, parse};
use crate::datagram::Transmit;
use crate::fence::Fenced;
use lcroute_overlay::server::RelayCredentials;

/// How long a relay has to answer over UDP. Chosen.
const UDP_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a relay has to answer in a stream, which is to be opened first. Chosen.
const STREAM_TIMEOUT: Duration = Duration::from_secs(5);
/// How long descriptions wait for one. Chosen: a stream over a long path is open by then.
const AWAITED: Duration = Duration::from_millis(1_500);
/// How long an allocation is kept that nobody uses.
const KEEP: Duration = Duration::from_secs(60);
/// It is refreshed so often, which also keeps the mapping of a NAT.
const REFRESH: Duration = Duration::from_secs(20);
/// A relay that has said nothing for so long has forgotten us, or is gone.
const SILENCE: Duration = Duration::from_secs(50);
/// First and longest pause after all relays have failed.
const PAUSE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
/// Most relays that are known.
const MAX_OFFERS: usize = 16;
/// Most messages that wait for a stream until it is open.
const MAX_WAITING: usize = 64;
/// Address of our end of a stream, which the crate does not look at.
const NOWHERE: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);
/// Message type of a refused Refresh (RFC 8656 7.3).
const REFRESH_ERROR: [u8; 2] = [0x01, 0x14];
/// Error code of a nonce that is too old (RFC 8489 14.8).
const STALE_NONCE: u16 = 438;

/// A relay that this node may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayOffer {
    /// As users know it; it says to the shell where a stream leads.
    pub url: String,
    /// Where it is reached over UDP; none: not at all.
    pub udp: Vec<SocketAddr>,
    /// Whether a stream leads to it.
    pub stream: bool,
    /// What it asks for.
    pub credentials: RelayCredentials,
    /// Newer credentials continue an allocation that older ones have made.
    pub renews: bool,
}

/// What the shell is to do with streams to relays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamCommand {
    /// Open one.
    Open {
        /// Its number, never used twice.
        stream: u64,
        /// The offer's URL.
        url: String,
    },
    /// Send a message of TURN, padded as a stream needs it.
    Send {
        /// In this one.
        stream: u64,
        /// The message.
        contents: Bytes,
    },
    /// Close it, once what was sent is out.
    Close {
        /// This one.
        stream: u64,
    },
}

/// What becomes of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamEvent {
    /// It is open.
    Opened,
    /// A message of TURN.
    Received(Bytes),
    /// It has ended, or cannot be opened.
    Closed,
}

/// How it stands with relays, for users.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RelayStatus {
    /// Relays that are known.
    pub offered: usize,
    /// The one in use.
    pub url: Option<String>,
    /// The address that it has given us.
    pub relayed: Option<SocketAddr>,
    /// Whether a stream leads to it.
    pub stream: bool,
    /// Why the last attempt came to nothing.
    pub failure: Option<String>,
}

/// What has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Allocated,
    /// This relayed address is no longer ours.
    Lost(SocketAddr),
    /// No relay can be used for now.
    Failed,
}

/// The relays of a node.
pub(crate) struct Relays {
    provider: Option<Arc<dyn RTCCryptoProvider>>,
    offers: Vec<RelayOffer>,
    hosts: Vec<SocketAddr>,
    needed_until: Option<Instant>,
    awaited_until: Instant,
    attempt: Option<Attempt>,
    /// Those that are tried one after the other.
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

/// What leads to the relay.
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
    relayed: Option<SocketAddr>,
    /// When it fails, before there is an allocation.
    deadline: Instant,
    heard: Instant,
    /// Of a stream that is not open yet.
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

    /// The relays that may be used, best first. An allocation at one that is still there stays.
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
        // an allocation belongs to the address that asked for it
        if base.is_some_and(|base| !hosts.contains(&base)) {
            self.drop_attempt("addresses changed", now);
        }
    }

    /// A relay is wanted from now on, for a while. Where UDP is known to be dead no time is lost with it.
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

    /// The address at which peers reach us over the relay.
    pub(crate) fn relayed(&self) -> Option<SocketAddr> {
        self.attempt.as_ref()?.relayed
    }

    /// Whether it is worth waiting with a description: there may be an allocation soon.
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
        }
    }

    /// Whether a datagram is a message of the relay's: ChannelData, or STUN that is no Binding.
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

    /// A message of the relay's.
    pub(crate) fn handle_message(&mut self, message: &[u8], now: Instant) {
        let Some(attempt) = self.attempt.as_mut() else {
            return;
        };
        attempt.heard = now;
        // with another nonce it is tried again
        let is_refused = message.starts_with(&REFRESH_ERROR)
            && parse(message).is_some_and(|m| error_code(&m) != Some(STALE_NONCE));
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
        // its errors are those of single messages
        let _ = attempt.client.call(|client| client.handle_read(tagged));
        if is_refused {
            self.drop_attempt("the relay has ended the allocation", now);
        }
        self.drain(now);
    }

    /// What becomes of a stream; false if it is none of ours.
    pub(crate) fn handle_stream(&mut self, stream: u64, event: StreamEvent, now: Instant) {
        let Some(attempt) = self.attempt.as_mut() else {
            return;
        };
        let Leg::Stream { number, open } = &mut attempt.leg else {
            return;
        };
        if *number != stream {
            return;
        }
        match event {
            StreamEvent::Opened => {
                *open = true;
                attempt.heard = now;
                let waiting = std::mem::take(&mut attempt.waiting);
                let send = |contents| StreamCommand::Send { stream, contents };
                self.commands.extend(waiting.into_iter().map(send));
            }
            StreamEvent::Received(message) => self.handle_message(&message, now),
            StreamEvent::Closed => self.drop_attempt("the stream to the relay has ended", now),
        }
    }

    /// Peers may send to the relayed address from these.
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

    /// Sends from the relayed address; false: it cannot, or not yet, and is lost.
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
                // a peer whose address nobody has told, as behind a symmetric NAT
                relay.create_permission(now, to)?;
            }
            sent
        });
        self.drain(now);
        matches!(sent, Ok(Ok(())))
    }

    /// Whether somebody uses the allocation; says when it is due, and takes it back.
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

    /// What a peer has sent to the relayed address.
    pub(crate) fn poll_received(&mut self) -> Option<(SocketAddr, Bytes)> {
        self.received.pop_front()
    }

    pub(crate) fn poll_change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    /// The allocation is not what it seems: the next that needs it gets another.
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

    /// The next relay of the plan.
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
                // an address: names would be looked up here and now
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
                relayed: None,
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

    /// What leads to the relay, or the relay itself, does not work: the next is tried.
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

    /// Takes what the client has to say and to send.
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

impl fmt::Debug for Relays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relays")
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

/// The first pair of the server's addresses and ours of one family; IPv4 first, to which most peers have a path.
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

/// The relay's words: nothing that steers a terminal, and not too many.
fn shown(error: &rtc::shared::error::Error) -> String {
    clean(&error.to_string().chars().take(100).collect::<String>())
}
