//! The relay server: allocations, permissions, channels and quotas (RFC 8656).
//!
//! ```text
//! Allocate without credentials --> 401 with realm and nonce; nothing is kept
//! Allocate --> RelayOutput::Open --> handle_opened --> success, with the relayed address
//! CreatePermission, ChannelBind --> a peer may send and receive
//! Refresh --> continues; with lifetime 0, or silence --> RelayOutput::Close
//! ```
//! Packets between two relayed addresses stay inside, from client to client, past any firewall. The
//! relay sends to no other port of its own addresses.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use bytes::Bytes;
use librecast::bucket::{Rate, TokenBucket};
use librecast::drop_reasons;
use librecast::drops::Drops;
use librecast::time::{Duration, Instant, UnixTime};
use rtc::crypto::RTCCryptoProvider;
use rtc::stun::attributes::{
    ATTR_CHANNEL_NUMBER, ATTR_DATA, ATTR_ERROR_CODE, ATTR_FINGERPRINT, ATTR_LIFETIME,
    ATTR_MESSAGE_INTEGRITY, ATTR_NONCE, ATTR_REALM, ATTR_REQUESTED_ADDRESS_FAMILY,
    ATTR_REQUESTED_TRANSPORT, ATTR_UNKNOWN_ATTRIBUTES, ATTR_USERNAME, ATTR_XOR_PEER_ADDRESS,
    ATTR_XOR_RELAYED_ADDRESS, ATTR_XORMAPPED_ADDRESS, AttrType,
};
use rtc::stun::fingerprint::FINGERPRINT;
use rtc::stun::integrity::MessageIntegrity;
use rtc::stun::message::{
    CLASS_ERROR_RESPONSE, CLASS_INDICATION, CLASS_REQUEST, CLASS_SUCCESS_RESPONSE, METHOD_ALLOCATE,
    METHOD_CHANNEL_BIND, METHOD_CREATE_PERMISSION, METHOD_DATA, METHOD_REFRESH, METHOD_SEND,
    Message, MessageType, Setter, TransactionId,
};

use super::config::RelayConfig;
use super::credentials::{mint, name_of, password, pseudonym, user_name};
use super::framing::CHANNELS;
use super::message::{Address, Raw, parse, peers, text, word};
use super::peers::may_relay;
use super::quota::{Payer, Quota};
use crate::stun::{build, guarded};
use lcroute_overlay::server::RelayCredentials;

const REALM: &str = "lcroute";
/// Lifetime of credentials, in seconds.
const CREDENTIALS: u64 = 3_600;
/// Lifetime of an allocation that is not refreshed (RFC 8656 7.2).
const LIFETIME: Duration = Duration::from_secs(600);
/// Longest lifetime of an allocation (RFC 8656 7.2).
const MAX_LIFETIME: Duration = Duration::from_secs(3_600);
/// Lifetime of a permission (RFC 8656 9).
const PERMISSION_LIFETIME: Duration = Duration::from_secs(300);
/// Lifetime of a channel binding (RFC 8656 12).
const CHANNEL_LIFETIME: Duration = Duration::from_secs(600);
/// Period of nonces in seconds; one lives for two at most. Chosen; RFC 8656 5 has an hour.
const NONCE_LIFETIME_SECONDS: u64 = 3_600;
/// Bytes of a nonce that authenticate it. Chosen.
const NONCE_TAG: usize = 8;
/// Interval of checks for ended allocations.
const SWEEP: Duration = Duration::from_secs(1);
/// Refusals a second over UDP without credentials: they are longer than the request, with a perhaps
/// forged source. Chosen: about 5 Mbit/s. A stream is the alternative.
const REFUSALS: Rate = Rate::per_second(4_000, 4_000);

drop_reasons! {
    /// Why a relay did not relay.
    pub enum RelayDrop {
        /// A request to the relay with credentials that are wrong, or whose time has passed.
        Credentials = "relay_credentials",
        /// A peer that a relay does not send to: an address of its own, of its site, of a host, of
        /// a group, or a private one.
        Forbidden = "relay_forbidden",
        /// A message to the relay that cannot be read, or of no allocation, or a packet without
        /// contents.
        Malformed = "relay_malformed",
        /// From or to a peer for which a client has asked no permission.
        NoPermission = "relay_no_permission",
        /// More allocations, peers or channels than a user, a site or a network may have.
        Quota = "relay_quota",
        /// Faster than a user, a site, a network or all together may be.
        Rate = "relay_rate",
        /// Behind a stream to a client that takes less than comes for it.
        StreamFull = "relay_stream_full",
    }
}

/// A client of the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Client {
    /// Its address; IPv4 as plain IPv4.
    pub address: SocketAddr,
    /// The number of its stream; `None` over UDP.
    pub stream: Option<u64>,
}

/// Number of an allocation, never reused.
pub type AllocationId = u64;

/// Action for the shell.
#[derive(Debug, PartialEq, Eq)]
pub enum RelayOutput {
    /// Send to a client; in a stream as is.
    ToClient(Client, Bytes),
    /// Open a UDP socket of this family, reachable by peers, and call
    /// [`RelayServer::handle_opened`].
    Open {
        /// For this allocation.
        allocation: AllocationId,
        /// Of this client.
        client: Client,
        /// IPv6, or IPv4.
        ipv6: bool,
    },
    /// Let the allocation's socket receive only from these addresses, which are sorted.
    Permit {
        /// Of this allocation.
        allocation: AllocationId,
        /// Peers.
        peers: Vec<IpAddr>,
    },
    /// Send from the allocation's socket.
    ToPeer {
        /// Of this allocation.
        allocation: AllocationId,
        /// To this peer.
        to: SocketAddr,
        /// This.
        contents: Bytes,
    },
    /// Close the allocation's socket, if it is open.
    Close(AllocationId),
}

/// Relay for clients with credentials of its own.
pub struct RelayServer {
    config: RelayConfig,
    nonces: Key,
    provider: Arc<dyn RTCCryptoProvider>,
    now: Instant,
    /// An instant, and its seconds since 1970.
    clock: (Instant, UnixTime),
    allocations: BTreeMap<AllocationId, Allocation>,
    clients: BTreeMap<Client, AllocationId>,
    relayed: BTreeMap<SocketAddr, AllocationId>,
    quota: Quota,
    refusals: TokenBucket,
    next: AllocationId,
    next_sweep: Instant,
    out: VecDeque<RelayOutput>,
    drops: Drops<RelayDrop>,
    bytes: u64,
}

#[derive(Debug)]
struct Allocation {
    client: Client,
    /// Payers, the user first.
    payers: Vec<Payer>,
    key: Vec<u8>,
    relayed: Option<SocketAddr>,
    /// Transaction of its Allocate request, which may be repeated.
    transaction: TransactionId,
    lifetime: Duration,
    ends: Instant,
    permissions: BTreeMap<IpAddr, Permission>,
    channels: BTreeMap<u16, SocketAddr>,
    by_peer: BTreeMap<SocketAddr, (u16, Instant)>,
}

#[derive(Debug, Clone, Copy)]
struct Permission {
    ends: Instant,
    /// Whether it is an address of the relay's host: only other allocations are reachable.
    own: bool,
}

/// A request with valid credentials.
struct Request {
    client: Client,
    message: Message,
    name: String,
    key: Vec<u8>,
}

/// Error codes of RFC 8489 and 8656.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    BadRequest = 400,
    Unauthorized = 401,
    Forbidden = 403,
    UnknownAttribute = 420,
    Mismatch = 437,
    StaleNonce = 438,
    Family = 440,
    WrongCredentials = 441,
    Transport = 442,
    PeerFamily = 443,
    Quota = 486,
    Capacity = 508,
}

impl RelayServer {
    /// Makes a relay without clients; `time`: the wall clock. `None` without cryptography.
    #[must_use]
    pub fn new(config: RelayConfig, now: Instant, time: UnixTime) -> Option<Self> {
        let nonces = sign(&Key::new(HMAC_SHA256, &config.secret), b"nonces");
        Some(Self {
            nonces: Key::new(HMAC_SHA256, nonces.as_ref()),
            provider: rtc::crypto::default_provider().ok()?,
            now,
            clock: (now, time),
            allocations: BTreeMap::new(),
            clients: BTreeMap::new(),
            relayed: BTreeMap::new(),
            quota: Quota::new(&config, now),
            refusals: TokenBucket::of(REFUSALS, now),
            next: 0,
            next_sweep: now + SWEEP,
            out: VecDeque::new(),
            drops: Drops::default(),
            bytes: 0,
            config,
        })
    }

    /// Makes credentials for a node that the server knows as `known_by`, of the network `network`;
    /// returns them with their lifetime in seconds. `inside`: they are good for packets to relayed
    /// addresses of this relay alone.
    #[must_use]
    pub fn mint(
        &self,
        (known_by, network): (&[u8], &[u8]),
        inside: bool,
        now: Instant,
    ) -> (RelayCredentials, u32) {
        let [network, node] = [network, known_by].map(|by| pseudonym(&self.config.secret, by));
        let name = user_name(&network, &node, inside);
        let expires = self.unix(now).as_secs() + CREDENTIALS;
        let minted = mint(&self.config.secret, &name, expires);
        (minted, CREDENTIALS as u32)
    }

    /// Handles a datagram, or a message of a stream, from a client.
    pub fn handle_client(&mut self, client: Client, datagram: &[u8], now: Instant) {
        self.now = self.now.max(now);
        if datagram
            .first()
            .is_some_and(|first| CHANNELS.contains(first))
        {
            return self.handle_channel_data(client, datagram);
        }
        let Some(message) = parse(datagram) else {
            return self.count(RelayDrop::Malformed);
        };
        match (message.typ.class, message.typ.method) {
            (CLASS_INDICATION, METHOD_SEND) => self.handle_send(client, &message),
            (
                CLASS_REQUEST,
                METHOD_ALLOCATE | METHOD_REFRESH | METHOD_CREATE_PERMISSION | METHOD_CHANNEL_BIND,
            ) => self.handle_request(client, message),
            _ => self.count(RelayDrop::Malformed),
        }
    }

    /// Handles the end of a client's stream.
    pub fn handle_closed(&mut self, client: Client) {
        if let Some(id) = self.clients.get(&client).copied() {
            self.end(id);
        }
    }

    /// Handles the opened socket of an allocation; `None`: it cannot be opened.
    pub fn handle_opened(&mut self, id: AllocationId, relayed: Option<SocketAddr>) {
        let Some(allocation) = self.allocations.get_mut(&id) else {
            return;
        };
        match relayed {
            Some(relayed) => {
                allocation.relayed = Some(relayed);
                self.relayed.insert(relayed, id);
                self.tell_allocation(id);
            }
            None => {
                let (client, key) = (allocation.client, allocation.key.clone());
                let to = (METHOD_ALLOCATE, allocation.transaction);
                self.refuse(client, to, (Code::Capacity, &[]), Some(&key));
                self.end(id);
            }
        }
    }

    /// Handles a datagram received by an allocation's socket.
    pub fn handle_peer(
        &mut self,
        id: AllocationId,
        from: SocketAddr,
        contents: &[u8],
        now: Instant,
    ) {
        self.now = self.now.max(now);
        // unpermitted senders use no quota
        if !self.permits(id, from.ip()) {
            return self.count(RelayDrop::NoPermission);
        }
        if self.pays(&[id], contents.len()) {
            self.send_to_client(id, from, contents);
        }
    }

    /// Returns when to read the allocation's socket again; until then the kernel drops cheaply.
    pub fn ready_at(&self, id: AllocationId, now: Instant) -> Instant {
        let payers = self.allocations.get(&id).map(|a| &a.payers);
        payers.map_or(now, |payers| self.quota.ready_at(payers.iter(), now))
    }

    /// Runs the due timers.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = self.now.max(now);
        if now < self.next_sweep {
            return;
        }
        self.next_sweep = now + SWEEP;
        let ended = self.allocations.iter().filter(|(_, a)| a.ends <= now);
        let ended: Vec<_> = ended.map(|(id, _)| *id).collect();
        ended.into_iter().for_each(|id| self.end(id));
        for (id, allocation) in &mut self.allocations {
            let before = allocation.permissions.len();
            allocation.permissions.retain(|_, p| p.ends > now);
            if allocation.permissions.len() < before {
                self.out.push_back(allocation.permit(*id));
            }
            let channels = &mut allocation.channels;
            allocation.by_peer.retain(|_, (number, ends)| {
                if *ends <= now {
                    channels.remove(number);
                }
                *ends > now
            });
        }
        self.quota.forget(now);
    }

    /// Returns the time of the next [`Self::handle_timeout`].
    pub fn next_timeout(&self) -> Instant {
        self.next_sweep
    }

    /// Returns the next action for the shell.
    pub fn poll_output(&mut self) -> Option<RelayOutput> {
        self.out.pop_front()
    }

    /// Counts a message dropped at a full stream.
    pub fn note_stream_full(&mut self) {
        self.count(RelayDrop::StreamFull);
    }

    /// Whether this client has an allocation.
    pub fn serves(&self, client: Client) -> bool {
        self.clients.contains_key(&client)
    }

    /// Returns the current number of allocations, and the bytes relayed so far.
    pub fn usage(&self) -> (usize, u64) {
        (self.allocations.len(), self.bytes)
    }

    /// Returns the counts of drops by reason.
    pub fn drops(&self) -> BTreeMap<&'static str, u64> {
        self.drops.by_name()
    }
}

/// Requests.
impl RelayServer {
    fn handle_request(&mut self, client: Client, mut message: Message) {
        let (method, transaction) = (message.typ.method, message.transaction_id);
        let (name, key) = match self.authenticate(client, &mut message) {
            Ok(known) => known,
            Err(code) => {
                let is_answered = client.stream.is_some() || self.refusals.take(1, self.now);
                return match is_answered {
                    true => self.refuse(client, (method, transaction), (code, &[]), None),
                    false => self.count(RelayDrop::Rate),
                };
            }
        };
        if !self.quota.ask(&name, &self.config, self.now) {
            return self.count(RelayDrop::Rate);
        }
        let request = Request {
            client,
            message,
            name,
            key,
        };
        let unknown = request.unknown_attributes();
        let result = match method {
            _ if !unknown.is_empty() => Err(Code::UnknownAttribute),
            METHOD_ALLOCATE => self.allocate(&request),
            _ => self.with_allocation(&request),
        };
        if let Err(code) = result {
            if code == Code::Quota {
                self.count(RelayDrop::Quota);
            }
            if code == Code::Forbidden {
                self.count(RelayDrop::Forbidden);
            }
            let key = Some(&request.key[..]);
            self.refuse(client, (method, transaction), (code, &unknown), key);
        }
    }

    /// Returns the user's name, and the key of its messages (RFC 8489, section 9.2.4).
    fn authenticate(
        &mut self,
        client: Client,
        message: &mut Message,
    ) -> Result<(String, Vec<u8>), Code> {
        if !message.contains(ATTR_MESSAGE_INTEGRITY) {
            return Err(Code::Unauthorized);
        }
        let attributes = [ATTR_USERNAME, ATTR_REALM, ATTR_NONCE].map(|a| text(message, a));
        let [Some(user), Some(realm), Some(nonce)] = attributes else {
            return Err(Code::BadRequest);
        };
        if !self.is_fresh(&nonce, client) {
            return Err(Code::StaleNonce);
        }
        let crypto = self.provider.crypto();
        let known = name_of(&user, self.unix(self.now)).filter(|_| realm == REALM);
        let known = known.map(str::to_owned).and_then(|name| {
            let password = password(&self.config.secret, &user);
            let key = MessageIntegrity::long_term_integrity_key(user, realm, password, crypto);
            let key = key.ok()?;
            guarded(|| MessageIntegrity::check(message, &key, crypto).ok())?;
            Some((name, key))
        });
        if known.is_none() {
            self.count(RelayDrop::Credentials);
        }
        known.ok_or(Code::Unauthorized)
    }

    fn allocate(&mut self, request: &Request) -> Result<(), Code> {
        let client = request.client;
        if let Some(id) = self.clients.get(&client).copied() {
            let allocation = &self.allocations[&id];
            if allocation.transaction != request.message.transaction_id {
                return Err(Code::Mismatch);
            }
            // the answer got lost
            if allocation.relayed.is_some() {
                self.tell_allocation(id);
            }
            return Ok(());
        }
        match word(&request.message, ATTR_REQUESTED_TRANSPORT).map(|word| word >> 24) {
            Some(17) => {}
            Some(_) => return Err(Code::Transport),
            None => return Err(Code::BadRequest),
        }
        let family = word(&request.message, ATTR_REQUESTED_ADDRESS_FAMILY).map(|word| word >> 24);
        let ipv6 = match family {
            None => client.address.is_ipv6(),
            Some(1) => false,
            Some(2) => true,
            Some(_) => return Err(Code::Family),
        };
        let payers = Quota::payers(&request.name, client.address.ip(), &self.config);
        let in_use = self.allocations.len();
        if !self.quota.allocate(&payers, in_use, &self.config, self.now) {
            return Err(Code::Quota);
        }
        let id = self.next;
        self.next += 1;
        let lifetime = request.lifetime();
        let allocation = Allocation {
            client,
            payers,
            key: request.key.clone(),
            relayed: None,
            transaction: request.message.transaction_id,
            lifetime,
            ends: self.now + lifetime,
            permissions: BTreeMap::new(),
            channels: BTreeMap::new(),
            by_peer: BTreeMap::new(),
        };
        self.allocations.insert(id, allocation);
        self.clients.insert(client, id);
        self.out.push_back(RelayOutput::Open {
            allocation: id,
            client,
            ipv6,
        });
        Ok(())
    }

    fn tell_allocation(&mut self, id: AllocationId) {
        let allocation = &self.allocations[&id];
        let (client, key) = (allocation.client, allocation.key.clone());
        let Some(relayed) = allocation.relayed else {
            return;
        };
        let lifetime = (allocation.lifetime.as_secs() as u32).to_be_bytes();
        let to = (METHOD_ALLOCATE, allocation.transaction);
        let attributes: Vec<Box<dyn Setter>> = vec![
            Box::new(Address(ATTR_XOR_RELAYED_ADDRESS, relayed)),
            Box::new(Address(ATTR_XORMAPPED_ADDRESS, client.address)),
            Box::new(Lifetime(lifetime)),
        ];
        self.succeed(client, to, attributes, &key);
    }

    /// Handles a request that needs an allocation of the same user.
    fn with_allocation(&mut self, request: &Request) -> Result<(), Code> {
        let id = self.clients.get(&request.client).copied();
        let id = id.ok_or(Code::Mismatch)?;
        let allocation = &self.allocations[&id];
        if allocation.payers[0] != Payer::User(request.name.clone()) {
            return Err(Code::WrongCredentials);
        }
        let attributes = match request.message.typ.method {
            METHOD_REFRESH => self.refresh(id, request)?,
            METHOD_CREATE_PERMISSION => self.permit(id, request)?,
            _ => self.bind(id, request)?,
        };
        let to = (request.message.typ.method, request.message.transaction_id);
        self.succeed(request.client, to, attributes, &request.key);
        Ok(())
    }

    fn refresh(
        &mut self,
        id: AllocationId,
        request: &Request,
    ) -> Result<Vec<Box<dyn Setter>>, Code> {
        let asked = word(&request.message, ATTR_LIFETIME);
        let lifetime = match asked {
            Some(0) => Duration::ZERO,
            _ => request.lifetime(),
        };
        let allocation = self.allocations.get_mut(&id).ok_or(Code::Mismatch)?;
        allocation.ends = self.now + lifetime;
        if lifetime.is_zero() {
            self.end(id);
        }
        let lifetime = (lifetime.as_secs() as u32).to_be_bytes();
        Ok(vec![Box::new(Lifetime(lifetime))])
    }

    fn permit(
        &mut self,
        id: AllocationId,
        request: &Request,
    ) -> Result<Vec<Box<dyn Setter>>, Code> {
        let peers = peers(&request.message).filter(|peers| !peers.is_empty());
        self.permit_all(id, &peers.ok_or(Code::BadRequest)?)?;
        Ok(Vec::new())
    }

    /// Permits all peers, or none (RFC 8656, section 9.2).
    fn permit_all(&mut self, id: AllocationId, peers: &[SocketAddr]) -> Result<(), Code> {
        let allocation = self.allocations.get_mut(&id).ok_or(Code::Mismatch)?;
        let ipv6 = allocation.relayed.map(|relayed| relayed.is_ipv6());
        if peers.iter().any(|peer| Some(peer.is_ipv6()) != ipv6) {
            return Err(Code::PeerFamily);
        }
        let config = &self.config;
        let is_inside = allocation.payers.iter().any(Payer::is_inside);
        let asked: BTreeSet<_> = peers.iter().map(SocketAddr::ip).collect();
        let permissions = &mut allocation.permissions;
        let new = asked.iter().filter(|ip| !permissions.contains_key(ip));
        let new = new.count();
        if permissions.len() + new > config.peers {
            return Err(Code::Quota);
        }
        let known = asked.into_iter().map(|ip| {
            let own = (config.is_own)(ip);
            let is_far = || config.private || !(config.is_near)(ip);
            let may = || !is_inside && may_relay(ip, config.private) && is_far();
            (own || may()).then_some((ip, own))
        });
        let known: Option<BTreeMap<_, _>> = known.collect();
        let known = known.ok_or(Code::Forbidden)?;
        let ends = self.now + PERMISSION_LIFETIME;
        let known = known.into_iter();
        permissions.extend(known.map(|(ip, own)| (ip, Permission { ends, own })));
        if new > 0 {
            self.out.push_back(allocation.permit(id));
        }
        Ok(())
    }

    fn bind(&mut self, id: AllocationId, request: &Request) -> Result<Vec<Box<dyn Setter>>, Code> {
        let number = word(&request.message, ATTR_CHANNEL_NUMBER).map(|word| (word >> 16) as u16);
        let number = number.filter(|n| CHANNELS.contains(&n.to_be_bytes()[0]));
        let number = number.ok_or(Code::BadRequest)?;
        let peers = peers(&request.message).unwrap_or_default();
        let [peer] = peers[..] else {
            return Err(Code::BadRequest);
        };
        let most = self.config.peers;
        let allocation = self.allocations.get(&id).ok_or(Code::Mismatch)?;
        let bound = allocation.by_peer.get(&peer).map(|(number, _)| *number);
        let other = allocation.channels.get(&number).is_some_and(|p| *p != peer);
        if other || bound.is_some_and(|bound| bound != number) {
            return Err(Code::BadRequest);
        }
        if bound.is_none() && allocation.channels.len() >= most {
            return Err(Code::Quota);
        }
        self.permit_all(id, &[peer])?;
        let allocation = self.allocations.get_mut(&id).ok_or(Code::Mismatch)?;
        allocation.channels.insert(number, peer);
        let ends = self.now + CHANNEL_LIFETIME;
        allocation.by_peer.insert(peer, (number, ends));
        Ok(Vec::new())
    }

    fn end(&mut self, id: AllocationId) {
        let Some(allocation) = self.allocations.remove(&id) else {
            return;
        };
        self.clients.remove(&allocation.client);
        if let Some(relayed) = allocation.relayed {
            self.relayed.remove(&relayed);
        }
        self.quota.end(&allocation.payers);
        self.out.push_back(RelayOutput::Close(id));
    }
}

/// Data.
impl RelayServer {
    fn handle_channel_data(&mut self, client: Client, datagram: &[u8]) {
        let parsed = datagram.split_first_chunk::<4>().and_then(|(head, rest)| {
            let number = u16::from_be_bytes([head[0], head[1]]);
            let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
            Some((number, rest.get(..length)?))
        });
        let id = self.clients.get(&client).copied();
        let (Some((number, contents)), Some(id)) = (parsed, id) else {
            return self.count(RelayDrop::Malformed);
        };
        match self.allocations[&id].channels.get(&number).copied() {
            Some(peer) => self.send_to_peer(id, peer, contents),
            None => self.count(RelayDrop::NoPermission),
        }
    }

    fn handle_send(&mut self, client: Client, message: &Message) {
        let id = self.clients.get(&client).copied();
        let peers = peers(message).unwrap_or_default();
        let contents = guarded(|| message.get(ATTR_DATA).ok());
        match (id, &peers[..], contents) {
            (Some(id), [peer], Some(contents)) => self.send_to_peer(id, *peer, &contents),
            _ => self.count(RelayDrop::Malformed),
        }
    }

    fn send_to_peer(&mut self, id: AllocationId, to: SocketAddr, contents: &[u8]) {
        let allocation = &self.allocations[&id];
        let permission = allocation.permissions.get(&to.ip());
        let Some(permission) = permission.filter(|p| p.ends > self.now).copied() else {
            return self.count(RelayDrop::NoPermission);
        };
        let (Some(relayed), other) = (allocation.relayed, self.relayed.get(&to).copied()) else {
            return;
        };
        if to.port() == 0 || (permission.own && other.is_none()) {
            return self.count(RelayDrop::Forbidden);
        }
        if let Some(other) = other {
            if !self.permits(other, relayed.ip()) {
                return self.count(RelayDrop::NoPermission);
            }
            // it leaves the host once
            if self.pays(&[id, other], contents.len()) {
                self.send_to_client(other, relayed, contents);
            }
            return;
        }
        match self.pays(&[id], contents.len()) {
            false => {}
            true => self.out.push_back(RelayOutput::ToPeer {
                allocation: id,
                to,
                contents: Bytes::copy_from_slice(contents),
            }),
        }
    }

    fn send_to_client(&mut self, id: AllocationId, from: SocketAddr, contents: &[u8]) {
        let Some(allocation) = self.allocations.get(&id) else {
            return;
        };
        let client = allocation.client;
        let message = match allocation.by_peer.get(&from) {
            Some((number, ends)) if *ends > self.now => {
                Some(channel_data(*number, contents, client.stream.is_some()))
            }
            _ => build(&[
                Box::new(random_transaction(&self.nonces, self.bytes)),
                Box::new(MessageType::new(METHOD_DATA, CLASS_INDICATION)),
                Box::new(Address(ATTR_XOR_PEER_ADDRESS, from)),
                Box::new(Raw(ATTR_DATA, contents)),
            ]),
        };
        if let Some(message) = message {
            let output = RelayOutput::ToClient(client, message.into());
            self.out.push_back(output);
        }
    }

    fn permits(&self, id: AllocationId, peer: IpAddr) -> bool {
        let allocation = self.allocations.get(&id);
        let permission = allocation.and_then(|a| a.permissions.get(&peer));
        permission.is_some_and(|p| p.ends > self.now)
    }

    /// Charges a packet to these allocations, and once in total; returns false above a quota.
    fn pays(&mut self, ids: &[AllocationId], contents: usize) -> bool {
        if contents == 0 {
            self.count(RelayDrop::Malformed);
            return false;
        }
        // two allocations of one site pay once
        let payers = ids.iter().filter_map(|id| self.allocations.get(id));
        let payers: BTreeSet<&Payer> = payers.flat_map(|a| &a.payers).collect();
        if !self.quota.pay(payers.iter().copied(), contents, self.now) {
            self.count(RelayDrop::Rate);
            return false;
        }
        self.bytes += contents as u64;
        true
    }
}

/// Responses.
impl RelayServer {
    fn succeed(
        &mut self,
        client: Client,
        (method, transaction): (rtc::stun::message::Method, TransactionId),
        attributes: Vec<Box<dyn Setter>>,
        key: &[u8],
    ) {
        let mut setters: Vec<Box<dyn Setter>> = vec![
            Box::new(transaction),
            Box::new(MessageType::new(method, CLASS_SUCCESS_RESPONSE)),
        ];
        setters.extend(attributes);
        self.answer(client, &setters, Some(key));
    }

    fn refuse(
        &mut self,
        client: Client,
        (method, transaction): (rtc::stun::message::Method, TransactionId),
        (code, unknown): (Code, &[u8]),
        key: Option<&[u8]>,
    ) {
        let number = code as u16;
        let error = [0, 0, (number / 100) as u8, (number % 100) as u8];
        let nonce = self.nonce(client);
        let mut setters: Vec<Box<dyn Setter + '_>> = vec![
            Box::new(transaction),
            Box::new(MessageType::new(method, CLASS_ERROR_RESPONSE)),
            Box::new(Raw(ATTR_ERROR_CODE, &error)),
        ];
        if matches!(code, Code::Unauthorized | Code::StaleNonce) {
            setters.push(Box::new(Raw(ATTR_REALM, REALM.as_bytes())));
            setters.push(Box::new(Raw(ATTR_NONCE, nonce.as_bytes())));
        }
        if code == Code::UnknownAttribute {
            setters.push(Box::new(Raw(ATTR_UNKNOWN_ATTRIBUTES, unknown)));
        }
        self.answer(client, &setters, key);
    }

    fn answer(&mut self, client: Client, setters: &[Box<dyn Setter + '_>], key: Option<&[u8]>) {
        let mut answer = Message::new();
        let crypto = self.provider.crypto();
        let built = guarded(|| {
            answer.build(setters).ok()?;
            if let Some(key) = key {
                let key = MessageIntegrity::new_raw_integrity_with_provider(key, crypto);
                key.add_to(&mut answer).ok()?;
            }
            FINGERPRINT.add_to(&mut answer).ok()
        });
        if built.is_some() {
            let output = RelayOutput::ToClient(client, answer.raw.into());
            self.out.push_back(output);
        }
    }

    /// Returns a nonce for this address and period; the server keeps no state of it.
    fn nonce(&self, client: Client) -> String {
        let period = self.unix(self.now).as_secs() / NONCE_LIFETIME_SECONDS;
        let tag = sign(&self.nonces, &nonce_words(period, client));
        format!("{period:x}-{}", hex(&tag.as_ref()[..NONCE_TAG]))
    }

    fn is_fresh(&self, nonce: &str, client: Client) -> bool {
        let now = self.unix(self.now).as_secs() / NONCE_LIFETIME_SECONDS;
        [now, now.saturating_sub(1)].into_iter().any(|period| {
            let tag = sign(&self.nonces, &nonce_words(period, client));
            nonce == format!("{period:x}-{}", hex(&tag.as_ref()[..NONCE_TAG]))
        })
    }

    fn unix(&self, now: Instant) -> UnixTime {
        let (at, time) = self.clock;
        time + now.saturating_duration_since(at)
    }

    fn count(&mut self, reason: RelayDrop) {
        self.drops.count(reason);
    }
}

impl fmt::Debug for RelayServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayServer")
            .field("allocations", &self.allocations.len())
            .finish_non_exhaustive()
    }
}

impl Allocation {
    /// Returns the permitted peers except those on this host, which are reached within the relay.
    fn permit(&self, id: AllocationId) -> RelayOutput {
        let outside = self.permissions.iter().filter(|(_, p)| !p.own);
        RelayOutput::Permit {
            allocation: id,
            peers: outside.map(|(ip, _)| *ip).collect(),
        }
    }
}

impl Request {
    fn lifetime(&self) -> Duration {
        let asked = word(&self.message, ATTR_LIFETIME).unwrap_or(0);
        Duration::from_secs(asked.into()).clamp(LIFETIME, MAX_LIFETIME)
    }

    /// Returns the types of mandatory attributes that are unknown (RFC 8489, section 14).
    fn unknown_attributes(&self) -> Vec<u8> {
        const KNOWN: [AttrType; 10] = [
            ATTR_USERNAME,
            ATTR_MESSAGE_INTEGRITY,
            ATTR_REALM,
            ATTR_NONCE,
            ATTR_LIFETIME,
            ATTR_XOR_PEER_ADDRESS,
            ATTR_CHANNEL_NUMBER,
            ATTR_REQUESTED_TRANSPORT,
            ATTR_REQUESTED_ADDRESS_FAMILY,
            ATTR_FINGERPRINT,
        ];
        let attributes = self.message.attributes.0.iter().map(|a| a.typ);
        let needed = attributes.filter(|typ| typ.0 < 0x8000);
        let unknown = needed.filter(|typ| !KNOWN.contains(typ));
        unknown.flat_map(|typ| typ.0.to_be_bytes()).collect()
    }
}

struct Lifetime([u8; 4]);

impl Setter for Lifetime {
    fn add_to(&self, message: &mut Message) -> rtc::shared::error::Result<()> {
        message.add(ATTR_LIFETIME, &self.0);
        Ok(())
    }
}

fn channel_data(number: u16, contents: &[u8], in_stream: bool) -> Vec<u8> {
    let length = u16::try_from(contents.len()).unwrap_or(u16::MAX);
    let mut message = [&number.to_be_bytes()[..], &length.to_be_bytes(), contents].concat();
    if in_stream {
        message.resize(message.len().next_multiple_of(4), 0);
    }
    message
}

/// Returns a unique transaction id for an indication; it needs no secrecy.
fn random_transaction(key: &Key, count: u64) -> TransactionId {
    let tag = sign(key, &count.to_be_bytes());
    let mut id = [0; 12];
    id.copy_from_slice(&tag.as_ref()[..12]);
    TransactionId(id)
}

fn nonce_words(period: u64, client: Client) -> Vec<u8> {
    format!("{period} {}", client.address).into_bytes()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests;
