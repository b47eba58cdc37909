//! The meeting point of a text: the guest of its owner answers there, and that of a listener finds
//! the network.
//!
//! ```text
//! listener           server                owner
//!   | -- in the room of the meeting point --|    the server names the owner to the listener
//!   | ------- ask: version 8 = 1 ---------> |
//!   | <-------------- record -------------- |    lcroute/overlay/src/text_record.rs
//! ```
//! On LANs the owner announces the record. In a DHT it holds the record as an item, which the program
//! inside signs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lcroute_overlay::server::Role;
use lcroute_overlay::{
    Candidate, CandidateKind, CarrierId, DropReason, Presence, Published, Random, Rendezvous,
    TEXT_LIFETIME, TextRecord,
};
use lcroute_signalling::dht::{Dht, PROGRAM};
use lcroute_signalling::proxy::Proxy;
use lcroute_signalling::{CarrierEvent, Carriers, MAX_LAN_RECORD, instance_name};
use librecast::bucket::{Bucket, Rate};
use librecast::cert::Token;
use librecast::drops::Drops;
use librecast::id::{NetworkId, PeerId, SecretKey, derive};
use librecast::reach::{Base58, FromReach, Item, Key, MAX_VALUE, Plan, Value};
use librecast::revocation::Revocation;
use librecast::text_network::TextKey;
use librecast::time::UnixTime;
use librecast_program::executable::start_on_socket;
use tokio::sync::mpsc;

use super::helpers::Named;
use crate::commands::hint;
use crate::links::seed;
use crate::netlink;

/// The question of a listener.
const ASK: [u8; 1] = [1];
/// Answers of an owner: a record has some 700 bytes. Chosen: a crowd at the beginning of a cast.
const ANSWERS: Rate = Rate::per_second(20, 200);
/// Records of LANs that a listener opens, and values of a DHT: each costs three signatures. Anybody
/// with the text can seal one on a LAN, so these use up nothing of the others. Chosen: a LAN has some stations.
const RECORDS: Rate = Rate::per_second(8, 64);
/// Interval of a listener's questions. Chosen: an answer may be lost with its server.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// Most hosts of a server that a listener asks. Anybody with the text can be one of them.
const MAX_ASKED: usize = 8;
/// Records that an owner makes as its addresses or helpers change. Chosen: nodes of a DHT, which prove
/// nothing, tell it an address.
const CHANGES: Rate = Rate::every(Duration::from_secs(10), 16);
/// Age at which an owner makes its record anew: listeners take the newest.
const RENEW: Duration = Duration::from_secs(3_600);
/// First port that the kernel gives to nobody by itself, in dynamic ports (RFC 6335).
const PORTS: u16 = 61_000;
/// Hosts that a server names to a leaf.
const TOLD: usize = 4;
/// Seconds for which an item of a DHT has one key.
const DAY: u64 = 86_400;
/// Half a day, in seconds, by which clocks may differ in a DHT.
const SKEW: u64 = 43_200;
/// Events of carriers that wait.
const EVENTS: usize = 64;
/// Listeners that an owner remembers, so that none of them has all answers.
const MAX_ASKERS: usize = 256;
/// Rounds of questions to as many hosts as a server names, without a record, after which a listener
/// registers anew: the server names others then. Chosen: a busy owner answers within two.
const ROUNDS: u32 = 3;

/// The parts that both ends have.
#[derive(Debug)]
struct Meeting {
    text: TextKey,
    carriers: Carriers,
    servers: Vec<String>,
    proxy: Option<Proxy>,
    events: mpsc::Receiver<CarrierEvent>,
    interface: String,
    on_lans: bool,
    /// The DHT, and its lines.
    dht: Option<(Dht, mpsc::Receiver<FromReach>)>,
    bootstrap: Vec<String>,
    drops: Drops<DropReason>,
}

/// Where a text meets.
#[derive(Debug, Clone)]
pub struct Places {
    /// URLs of servers.
    pub servers: Vec<String>,
    /// The way to them.
    pub proxy: Option<Proxy>,
    /// Name of the host's own lc0, which is no LAN.
    pub interface: String,
    /// Whether LANs are used.
    pub on_lans: bool,
    /// Entry nodes of the DHT (none listed: the well-known ones), if it is used.
    pub dht: Option<Vec<String>>,
}

impl Meeting {
    fn start(text: TextKey, role: Role, places: &Places) -> Self {
        let (sender, events) = mpsc::channel(EVENTS);
        // a key of the start: nobody follows it to the next
        let key = Arc::new(SecretKey::generate());
        let mut carriers = Carriers::of_text(key, (text.meeting(), role), sender);
        carriers.set_servers(&places.servers, places.proxy.clone());
        Self {
            text,
            carriers,
            servers: places.servers.clone(),
            proxy: places.proxy.clone(),
            events,
            interface: places.interface.clone(),
            on_lans: places.on_lans,
            dht: places.dht.as_ref().and_then(|_| dht()),
            bootstrap: places.dht.clone().unwrap_or_default(),
            drops: Drops::default(),
        }
    }

    /// Follows the LANs of this host.
    fn review(&mut self, port: u16) {
        if !self.on_lans {
            return;
        }
        match netlink::lan_interfaces(&[&self.interface], None) {
            // it stays on
            Ok(lans) => drop(self.carriers.set_lan(Some(lans), port)),
            Err(e) => tracing::warn!("LANs of this host: {e:#}"),
        }
    }

    /// Registers anew at the servers, which draw the hosts that they name.
    fn register_anew(&mut self) {
        self.carriers.set_servers(&[], self.proxy.clone());
        let servers = &self.servers;
        self.carriers.set_servers(servers, self.proxy.clone());
    }

    /// Sets what is held in the DHT and looked up there.
    fn set_plan(&self, hold: Vec<Item>, seek: Vec<Key>) {
        if let Some((dht, _)) = &self.dht {
            let bootstrap = self.bootstrap.clone();
            dht.set(Plan {
                bootstrap,
                hold,
                seek,
                ..Plan::default()
            });
        }
    }

    fn tell_drops(&self) {
        for (reason, count) in self.drops.by_name() {
            tracing::info!(reason, count, "dropped");
        }
    }
}

/// Starts the program for a DHT.
fn dht() -> Option<(Dht, mpsc::Receiver<FromReach>)> {
    let (told, said) = mpsc::channel(EVENTS);
    match start_on_socket(PROGRAM).and_then(|stream| Dht::start(stream, told)) {
        Ok(dht) => Some((dht, said)),
        Err(e) => {
            hint(format_args!("{PROGRAM}: {e}: the DHT is not used"));
            None
        }
    }
}

/// Returns the next line about the DHT; waits for ever without one.
async fn said(dht: &mut Option<(Dht, mpsc::Receiver<FromReach>)>) -> FromReach {
    if let Some((_, said)) = dht
        && let Some(line) = said.recv().await
    {
        return line;
    }
    std::future::pending().await
}

/// What the owner of a text begins with.
#[derive(Debug)]
pub struct OwnerStart {
    /// The text.
    pub text: TextKey,
    /// The key that signs the record: the network's, or that of the token's issuer.
    pub signs: SecretKey,
    /// Content of the record, without routers.
    pub record: TextRecord,
    /// Entry nodes of the DHT, if it is used.
    pub dht: Option<Vec<String>>,
    /// Signs the record for a DHT ([`librecast_program::guest::SIGN_FD`]).
    pub signer: Option<UnixDatagram>,
    /// Expel helpers from the network.
    pub withdrawn: Vec<Revocation>,
}

impl OwnerStart {
    /// Returns the port of the owner's links: the same at each start, so that it can be forwarded.
    pub fn port(&self) -> u16 {
        port_of(&self.record.token.network())
    }
}

/// Returns the port of the links of a network's owner: it can be forwarded.
pub fn port_of(network: &NetworkId) -> u16 {
    let [a, b, ..] = derive("lcroute 2026 text port", &[network.public_key()]);
    PORTS + u16::from_be_bytes([a, b]) % (u16::MAX - PORTS)
}

/// The guest of a text's owner, at the meeting point.
#[derive(Debug)]
pub struct Owner {
    meeting: Meeting,
    signs: SecretKey,
    record: TextRecord,
    own: PeerId,
    port: u16,
    /// Routers of the record, in turns.
    turns: Vec<Vec<Named>>,
    /// The record of each turn.
    sealed: Vec<Bytes>,
    /// Number of answers.
    answer: usize,
    sealed_at: Option<Instant>,
    changes: Bucket,
    /// Names that the record on LANs has today.
    name: [u8; 32],
    random: Random,
    answers: Bucket,
    /// The last answers, by listener.
    answered: BTreeMap<PeerId, Instant>,
    /// Signs items; none without a DHT.
    signer: Option<tokio::net::UnixDatagram>,
    /// Items whose signatures are awaited, in order, and those that are signed.
    unsigned: VecDeque<(Key, i64, Vec<u8>)>,
    items: Vec<Item>,
    /// The address at which nodes of the DHT see this host.
    outer: Option<Ipv4Addr>,
}

impl Owner {
    /// Begins to answer; to be called within a tokio runtime.
    pub fn start(
        start: OwnerStart,
        (own, port): (PeerId, u16),
        places: &Places,
    ) -> anyhow::Result<Self> {
        let signer = start.signer.map(|signer| {
            signer.set_nonblocking(true)?;
            tokio::net::UnixDatagram::from_std(signer)
        });
        Ok(Self {
            signer: signer.transpose()?,
            unsigned: VecDeque::new(),
            items: Vec::new(),
            outer: None,
            meeting: Meeting::start(start.text, Role::Router, places),
            signs: start.signs,
            record: start.record,
            own,
            port,
            turns: Vec::new(),
            sealed: Vec::new(),
            answer: 0,
            sealed_at: None,
            changes: Bucket::full(Instant::now()),
            name: [0; 32],
            random: Random::new(seed()?),
            answers: Bucket::full(Instant::now()),
            answered: BTreeMap::new(),
        })
    }

    /// Sets the token of the record, which is made anew with the next review.
    pub fn set_token(&mut self, token: Token) {
        (self.record.token, self.sealed_at) = (token, None);
    }

    /// Makes the record anew if it is old, or names others: helpers in turns, each time beside this
    /// host at these addresses.
    pub fn review(
        &mut self,
        mut candidates: Vec<Candidate>,
        helpers: Vec<Vec<Named>>,
        now: Instant,
    ) {
        self.meeting.review(self.port);
        candidates.retain(|candidate| !candidate.addr.ip().is_loopback());
        if let Some(outer) = self.outer {
            // this port, if it is forwarded or the NAT keeps it
            let addr = SocketAddr::new(outer.into(), self.port);
            if candidates.iter().all(|candidate| candidate.addr != addr) {
                let kind = CandidateKind::ServerReflexive;
                candidates.push(Candidate { kind, addr });
            }
        }
        // there is room for eight, and others may have no way but this one
        candidates.sort_by_key(|candidate| candidate.kind != CandidateKind::Mapped);
        let mut turns = helpers;
        if turns.is_empty() {
            turns.push(Vec::new());
        }
        // first: a record on a LAN is shortened from its end
        let own = (self.own, candidates);
        turns
            .iter_mut()
            .for_each(|turn| turn.insert(0, own.clone()));
        let name = self.meeting.text.names(UnixTime::now())[0];
        let is_new = self.sealed_at.is_some_and(|at| now < at + RENEW);
        let is_same = turns == self.turns && name == self.name;
        if is_new && (is_same || !self.changes.take(CHANGES, 1, now)) {
            return;
        }
        (self.name, self.sealed_at, self.turns) = (name, Some(now), turns);
        let record = &mut self.record;
        // listeners take the newest, also if the clock was set back
        record.made = UnixTime::now().as_secs().max(record.made + 1);
        record.until = record.made + TEXT_LIFETIME;
        let (text, signs) = (&self.meeting.text, &self.signs);
        self.sealed.clear();
        for routers in &self.turns {
            record.routers.clone_from(routers);
            let sealed = record.seal(text, signs, &mut self.random);
            self.sealed.push(sealed.into());
        }
        // one turn stands on LANs and in a DHT
        let turn = usize::try_from(record.made).unwrap_or_default() % self.turns.len();
        record.routers.clone_from(&self.turns[turn]);
        let value = self.sealed[turn].clone();
        // on a LAN the record has less room, and listeners have the places of the text
        let urls = std::mem::take(&mut record.token.signal);
        let mut on_lan = record.seal(text, signs, &mut self.random);
        while on_lan.len() > MAX_LAN_RECORD && shorten(&mut record.routers) {
            on_lan = record.seal(text, signs, &mut self.random);
        }
        record.token.signal = urls;
        let value = match value.len() <= MAX_VALUE {
            true => value.to_vec(),
            false => on_lan.clone(),
        };
        let published = Published {
            name,
            sealed: on_lan.into(),
            until: record.until,
            epoch: Rendezvous::new(text.meeting()),
        };
        self.meeting.carriers.publish(published);
        self.have_signed(&value);
    }

    /// Has this value signed as the items of a DHT: those of twelve hours ago and in twelve hours.
    fn have_signed(&mut self, value: &[u8]) {
        let Some(signer) = &self.signer else {
            return;
        };
        let sequence = self.record.made.cast_signed();
        let now = UnixTime::now().as_secs();
        self.items.clear();
        for time in [now.saturating_sub(SKEW), now.saturating_add(SKEW)] {
            let numbers = [time, self.record.made].map(u64::to_be_bytes).concat();
            // it is asked anew with the next record
            if signer.try_send(&[&numbers[..], value].concat()).is_ok() {
                let key = self.meeting.text.item(UnixTime::from_secs(time));
                self.unsigned.push_back((key, sequence, value.to_vec()));
            }
        }
    }

    fn handle_signature(&mut self, signature: [u8; 64]) {
        let Some((key, sequence, value)) = self.unsigned.pop_front() else {
            return;
        };
        // zeros stand for none
        let is_signed = signature != [0; 64];
        let is_newest = sequence == self.record.made.cast_signed();
        self.items.extend((is_newest && is_signed).then_some(Item {
            key,
            sequence,
            value: Value(value),
            signature: Base58(signature),
        }));
        if self.unsigned.is_empty() {
            self.meeting.set_plan(self.items.clone(), Vec::new());
        }
    }

    /// Waits for listeners, and answers them. Cancellation loses none.
    pub async fn wait(&mut self) {
        let event = tokio::select! {
            Some(event) = self.meeting.events.recv() => event,
            line = said(&mut self.meeting.dht) => {
                if let FromReach::State(state) = line {
                    self.outer = state.outer;
                }
                return;
            }
            signature = signed(&self.signer) => return self.handle_signature(signature),
        };
        let CarrierEvent::Signal { from, bytes, .. } = event else {
            return;
        };
        if *bytes != ASK {
            self.meeting.drops.count(DropReason::TextAsk);
        } else if !self.may_answer(from, Instant::now()) {
            self.meeting.drops.count(DropReason::TextLimited);
        } else if !self.sealed.is_empty() {
            let turn = self.answer % self.sealed.len();
            self.answer = self.answer.wrapping_add(1);
            self.meeting.carriers.send(from, &self.sealed[turn]);
        }
    }

    /// Charges an answer: one in half of a listener's interval, before all of them.
    fn may_answer(&mut self, to: PeerId, now: Instant) -> bool {
        let is_recent = |at: &Instant| now < *at + ASK_EVERY / 2;
        if self.answered.get(&to).is_some_and(is_recent) {
            return false;
        }
        if self.answered.len() >= MAX_ASKERS {
            self.answered.retain(|_, at| is_recent(at));
        }
        if !self.answers.take(ANSWERS, 1, now) {
            return false;
        }
        // more are answered than remembered at a moment only within the burst
        if self.answered.len() < MAX_ASKERS {
            self.answered.insert(to, now);
        }
        true
    }

    /// Ends it, with a goodbye on LANs.
    pub async fn end(self) {
        self.meeting.tell_drops();
        self.meeting.carriers.end().await;
    }
}

/// Leaves out an address of the router with most of them, else a router; false: one is left, without.
fn shorten(routers: &mut Vec<Named>) -> bool {
    let longest = routers.iter_mut().map(|(_, candidates)| candidates);
    let longest = longest.max_by_key(|candidates| candidates.len());
    if longest.is_some_and(|candidates| candidates.pop().is_some()) {
        return true;
    }
    routers.len() > 1 && routers.pop().is_some()
}

/// Returns the next signature; waits for ever without a signer.
async fn signed(signer: &Option<tokio::net::UnixDatagram>) -> [u8; 64] {
    let mut signature = [0; 64];
    match signer {
        Some(signer) if signer.recv(&mut signature).await.is_ok_and(|n| n == 64) => signature,
        _ => std::future::pending().await,
    }
}

/// Hosts at the meeting point, and questions to them. A server speaks for itself alone: by false words
/// it takes no place of a host that another one names, and no answer that comes over another one.
#[derive(Debug, Default)]
struct Asked {
    present: BTreeSet<(CarrierId, PeerId)>,
    /// Those whose answers are awaited: one for each question, so that none floods the others out.
    awaited: BTreeSet<(CarrierId, PeerId)>,
    /// Rounds of questions since the last newer record.
    rounds: u32,
}

impl Asked {
    /// Notes what a server says of its hosts; returns one to ask at once.
    fn handle(&mut self, server: CarrierId, presence: Presence) -> Option<PeerId> {
        match presence {
            Presence::Online(peer) => {
                let of_server = self.present.iter().filter(|(by, _)| *by == server);
                if of_server.count() >= MAX_ASKED || !self.present.insert((server, peer)) {
                    return None;
                }
                self.awaited.insert((server, peer));
                return Some(peer);
            }
            Presence::Offline(peer) => {
                self.present.remove(&(server, peer));
                self.awaited.remove(&(server, peer));
            }
            Presence::CarrierDown => {
                self.present.retain(|(by, _)| *by != server);
                self.awaited.retain(|(by, _)| *by != server);
            }
            Presence::CarrierUp => {}
        }
        None
    }

    /// Begins a round; returns the hosts to ask. None: the servers are to name others, and this has
    /// forgotten all.
    fn begin_round(&mut self) -> Option<BTreeSet<PeerId>> {
        let peers: BTreeSet<_> = self.present.iter().map(|(_, peer)| *peer).collect();
        // any holder of the text can be at the meeting point, and silent
        self.rounds += u32::from(peers.len() >= TOLD);
        if self.rounds > ROUNDS {
            *self = Self::default();
            return None;
        }
        self.awaited.clone_from(&self.present);
        Some(peers)
    }

    /// Returns whether this answer was asked for: the first one over this server.
    fn takes(&mut self, server: CarrierId, from: PeerId) -> bool {
        self.awaited.remove(&(server, from))
    }
}

/// A listener's search for the network of a text.
#[derive(Debug)]
pub struct Finder {
    meeting: Meeting,
    asked: Asked,
    next_ask: Instant,
    /// The day of the items that are looked up.
    day: Option<u64>,
    records: Bucket,
    items: Bucket,
    /// When the newest record was made.
    newest: u64,
    /// Whether records for members are sought, rather than for leaves.
    for_members: bool,
}

impl Finder {
    /// Begins to look for a record that makes members; to be called within a tokio runtime.
    pub fn of_members(text: TextKey, places: &Places) -> Self {
        let mut finder = Self::start(text, places, 0);
        finder.for_members = true;
        finder
    }

    /// Begins to look for records that are newer than `newest`; to be called within a tokio runtime.
    pub fn start(text: TextKey, places: &Places, newest: u64) -> Self {
        let now = Instant::now();
        let mut finder = Self {
            meeting: Meeting::start(text, Role::Leaf, places),
            asked: Asked::default(),
            next_ask: now,
            day: None,
            records: Bucket::full(now),
            items: Bucket::full(now),
            newest,
            for_members: false,
        };
        finder.review();
        finder
    }

    /// Follows the LANs of this host, and the day.
    pub fn review(&mut self) {
        self.meeting.review(0);
        let now = UnixTime::now().as_secs();
        if self.day.replace(now / DAY) != Some(now / DAY) {
            let days = [now, now.saturating_sub(DAY), now + DAY].map(UnixTime::from_secs);
            let keys = days.map(|day| self.meeting.text.item(day));
            self.meeting.set_plan(Vec::new(), keys.into());
        }
    }

    /// Waits for the next input; returns a record newer than all before. Cancellation loses none.
    pub async fn wait(&mut self) -> Option<TextRecord> {
        let event = tokio::select! {
            Some(event) = self.meeting.events.recv() => event,
            line = said(&mut self.meeting.dht) => {
                let FromReach::Seen { value, .. } = line else {
                    return None;
                };
                return self.open_item(&value.0);
            }
            () = tokio::time::sleep_until(self.next_ask.into()) => {
                self.next_ask = Instant::now() + ASK_EVERY;
                let Some(peers) = self.asked.begin_round() else {
                    self.meeting.register_anew();
                    return None;
                };
                peers.into_iter().for_each(|peer| self.ask(peer));
                return None;
            }
        };
        match event {
            CarrierEvent::Presence(server, presence) => {
                if let Some(peer) = self.asked.handle(server, presence) {
                    self.ask(peer);
                }
                None
            }
            CarrierEvent::Signal {
                carrier,
                from,
                bytes,
            } => match self.asked.takes(carrier, from) {
                true => self.open(&bytes),
                false => {
                    self.meeting.drops.count(DropReason::TextLimited);
                    None
                }
            },
            CarrierEvent::Record { name, sealed, .. } => {
                let names = self.meeting.text.names(UnixTime::now());
                let mut names = names.iter().map(instance_name);
                names.any(|own| name.starts_with(&own)).then_some(())?;
                self.open_record(&sealed)
            }
            _ => None,
        }
    }

    fn ask(&self, peer: PeerId) {
        let ask = Bytes::from_static(&ASK);
        self.meeting.carriers.send(peer, &ask);
    }

    /// Opens a record of a LAN.
    fn open_record(&mut self, sealed: &[u8]) -> Option<TextRecord> {
        let opened = open_charged(&self.meeting.text, sealed, &mut self.records);
        self.handle_opened(opened)
    }

    /// Opens a value of a DHT.
    fn open_item(&mut self, sealed: &[u8]) -> Option<TextRecord> {
        let opened = open_charged(&self.meeting.text, sealed, &mut self.items);
        self.handle_opened(opened)
    }

    fn open(&mut self, sealed: &[u8]) -> Option<TextRecord> {
        let text = &self.meeting.text;
        let opened = TextRecord::open_charged(text, sealed, UnixTime::now(), || true);
        self.handle_opened(opened)
    }

    fn handle_opened(&mut self, opened: Result<TextRecord, DropReason>) -> Option<TextRecord> {
        match opened {
            // an owner may have texts of both kinds
            Ok(record) if record.is_for_leaves() == self.for_members => {
                self.meeting.drops.count(DropReason::TextMalformed);
                None
            }
            Ok(record) => {
                if record.made <= self.newest {
                    // anybody with the text can repeat it
                    return None;
                }
                (self.newest, self.asked.rounds) = (record.made, 0);
                Some(record)
            }
            Err(reason) => {
                self.meeting.drops.count(reason);
                None
            }
        }
    }

    /// Returns whether records came that say no more than that the clocks differ.
    pub fn has_stale(&self) -> bool {
        self.meeting.drops.get(DropReason::TextStale) > 0
    }
}

/// Opens a record that nobody was asked for.
fn open_charged(
    text: &TextKey,
    sealed: &[u8],
    bucket: &mut Bucket,
) -> Result<TextRecord, DropReason> {
    let now = Instant::now();
    let charge = || bucket.take(RECORDS, 1, now);
    TextRecord::open_charged(text, sealed, UnixTime::now(), charge)
}

impl Drop for Finder {
    fn drop(&mut self) {
        self.meeting.tell_drops();
    }
}

#[cfg(test)]
mod tests {
    use librecast::code::CodeKeys;
    use librecast::text_network::attest;

    use super::*;

    fn peer(n: u8) -> PeerId {
        SecretKey::from_seed(&[n; 32]).peer_id()
    }

    #[test]
    fn a_server_takes_no_place_and_no_answer_of_another_one() {
        let (liar, honest, owner) = (CarrierId(1), CarrierId(2), peer(1));
        let mut asked = Asked::default();
        let named = (2..99).filter_map(|n| asked.handle(liar, Presence::Online(peer(n))));
        assert_eq!(named.count(), MAX_ASKED);
        let online = Presence::Online(owner);
        assert_eq!(asked.handle(honest, online), Some(owner));
        assert!(!asked.takes(liar, owner), "in the owner's name");
        asked.handle(liar, Presence::Offline(owner));
        asked.handle(liar, Presence::CarrierDown);
        assert!(asked.takes(honest, owner) && !asked.takes(honest, owner));
        assert_eq!(asked.begin_round(), Some(BTreeSet::from([owner])));
        assert!(asked.takes(honest, owner), "a further question");
    }

    const SEED: [u8; 32] = [7; 32];

    fn text() -> TextKey {
        TextKey::new(peer(1), [2; 32])
    }

    /// No places at all.
    fn places() -> Places {
        Places {
            servers: Vec::new(),
            proxy: None,
            interface: "lc0".to_owned(),
            on_lans: false,
            dht: None,
        }
    }

    /// Returns the record of the text's owner, and the key that signs it.
    fn record(made: u64) -> (TextRecord, SecretKey) {
        let network = SecretKey::from_seed(&derive("lcroute 2026 code network", &[&SEED]));
        let invitation = SecretKey::from_seed(&[3; 32]);
        let token = CodeKeys::text_token(&SEED, invitation, Vec::new(), UnixTime::now());
        let owner = SecretKey::from_seed(&[1; 32]);
        let record = TextRecord {
            made,
            until: made + TEXT_LIFETIME,
            attestation: attest(&owner, &text(), &network.peer_id()),
            token: token.unwrap(),
            routers: Vec::new(),
        };
        (record, network)
    }

    /// Returns a listener's search, and sealed records, made now and earlier.
    fn search() -> (Finder, [Vec<u8>; 2]) {
        let now = UnixTime::now().as_secs();
        let sealed = [now, now - 60].map(|made| {
            let (record, network) = record(made);
            record.seal(&text(), &network, &mut Random::new([9; 32]))
        });
        (Finder::of_members(text(), &places()), sealed)
    }

    #[tokio::test]
    async fn addresses_that_change_all_the_time_make_few_records() {
        let (record, signs) = record(UnixTime::now().as_secs());
        let start = OwnerStart {
            text: text(),
            signs,
            record,
            dht: None,
            signer: None,
            withdrawn: Vec::new(),
        };
        let mut owner = Owner::start(start, (peer(4), 7_000), &places()).unwrap();
        let now = Instant::now();
        let mut told = |port: u16, now| {
            let candidate = Candidate {
                kind: CandidateKind::Host,
                addr: ([192, 0, 2, 7], port).into(),
            };
            owner.review(vec![candidate], Vec::new(), now);
            owner.turns == [[(peer(4), vec![candidate])]]
        };
        let count = (1..=40).filter(|port| told(*port, now)).count();
        assert_eq!(count, 1 + 16, "the first is free");
        assert!(!told(41, now) && told(42, now + Duration::from_secs(10)));
    }

    #[tokio::test]
    async fn records_that_others_seal_on_a_lan_keep_no_value_of_a_dht_from_being_read() {
        let (mut finder, [record, _]) = search();
        while finder.meeting.drops.get(DropReason::TextLimited) == 0 {
            finder.open_record(&record);
        }
        finder.newest = 0;
        assert!(finder.open_item(&record).is_some());
    }

    #[tokio::test]
    async fn silent_hosts_that_repeat_an_old_record_do_not_stay_the_only_ones_that_are_asked() {
        let (mut finder, [record, old]) = search();
        assert!(finder.open(&record).is_some());
        for n in 1..=4 {
            finder.asked.handle(CarrierId(1), Presence::Online(peer(n)));
        }
        for _ in 0..ROUNDS {
            assert!(finder.asked.begin_round().is_some());
            for repeated in [&record, &old] {
                assert!(finder.open(repeated).is_none());
            }
        }
        assert_eq!(finder.asked.begin_round(), None, "the server names others");
        assert!(finder.asked.present.is_empty());
    }

    #[test]
    fn a_record_for_lans_loses_addresses_before_routers() {
        let named = |key: u8, addresses: u16| {
            let candidate = |port| Candidate {
                kind: CandidateKind::Host,
                addr: ([192, 0, 2, 7], port).into(),
            };
            let peer = SecretKey::from_seed(&[key; 32]).peer_id();
            (peer, (1..=addresses).map(candidate).collect::<Vec<_>>())
        };
        let mut routers = vec![named(1, 1), named(2, 3)];
        let mut counts = Vec::new();
        while shorten(&mut routers) {
            counts.push(routers.iter().map(|(_, c)| c.len()).collect::<Vec<_>>());
        }
        assert_eq!(counts[..2], [vec![1, 2], vec![1, 1]]);
        assert_eq!(
            counts[2..].iter().map(Vec::len).collect::<Vec<_>>(),
            [2, 2, 1]
        );
        assert_eq!(routers, [named(1, 0)]);
    }
}
