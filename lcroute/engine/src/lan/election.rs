//! The election of a LAN's forwarder among its gateways.
//!
//! ```text
//! start, pause ──> Listening ──1.5 s──┬─> Forwarder <──┐ best rank, or no forwarder for a second
//!                                     └─> Standby   ───┘
//! ```
//!
//! A gateway counts as present while its PROBEs arrive, with rising numbers and the nonce of this
//! gateway. So recorded PROBEs do not count, nor does a link that works in one direction only. The
//! forwarder stays, unless it loses its links, or another gateway reaches a higher power of two of
//! routers for 10 s. If two LANs join, the forwarder of higher rank stays.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use librecast::ethernet::MacAddress;
use librecast::id::{LanId, OriginId};
use librecast::time::{Duration, Instant};

use super::probe::{MAX_GATEWAYS, Probe, Rank};

/// Interval of PROBEs, if there are other gateways.
const PROBE_INTERVAL: Duration = Duration::from_millis(200);
/// Interval of PROBEs, if there are none.
const LONE_PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// Silence after which a gateway is gone.
const SILENCE: Duration = Duration::from_secs(1);
/// Time for which a gateway listens before it may become the forwarder.
const LISTENING: Duration = Duration::from_millis(1_500);
/// Inactivity of this gateway after which it listens first.
const PAUSE: Duration = Duration::from_secs(1);
/// Time for which another gateway must reach a higher power of two of routers.
const CHALLENGE: Duration = Duration::from_secs(10);
/// Time with another advertised forwarder of this term or later that makes the LAN count as split.
const SPLIT: Duration = Duration::from_secs(2);
/// Time for which a gateway is remembered after its last PROBE.
const MEMORY: Duration = Duration::from_secs(10);

/// The role of this gateway on the LAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Learns the other gateways, until this time.
    Listening(Instant),
    /// Follows the listeners.
    Standby,
    /// Carries packets, queries and reports.
    Forwarder,
}

#[derive(Debug)]
struct OtherGateway {
    number: (u32, u64),
    nonce: u64,
    at: Instant,
    /// When its PROBE last named the nonce of this gateway.
    named_at: Option<Instant>,
    rank: Rank,
    is_forwarder: bool,
    lan: LanId,
    term: u32,
    mac: MacAddress,
}

impl OtherGateway {
    fn is_present(&self, now: Instant) -> bool {
        self.named_at.is_some_and(|at| now < at + SILENCE)
    }
}

/// The election on one LAN, as one gateway sees it.
#[derive(Debug)]
pub struct Election {
    own: OriginId,
    nonce: u64,
    counter: u64,
    role: Role,
    lan: LanId,
    term: u32,
    rank: Rank,
    gateways: BTreeMap<OriginId, OtherGateway>,
    next_probe: Instant,
    /// The interface has a carrier.
    running: bool,
    /// Since when LSAs show another forwarder with this term or a later one.
    superseded: Option<Instant>,
    /// Since when another gateway reaches a higher power of two of routers.
    outreached: Option<Instant>,
    turned_at: Instant,
}

impl Election {
    /// Listens first. `nonce` is random; `lan` is used until a forwarder has another name.
    pub fn new(own: OriginId, lan: LanId, nonce: u64, now: Instant) -> Self {
        Self {
            own,
            nonce,
            counter: 0,
            role: Role::Listening(now + LISTENING),
            lan,
            term: 0,
            rank: Rank::default(),
            gateways: BTreeMap::new(),
            next_probe: now,
            running: true,
            superseded: None,
            outreached: None,
            turned_at: now,
        }
    }

    /// Whether it is the forwarder.
    pub fn is_forwarder(&self) -> bool {
        self.role == Role::Forwarder
    }

    /// The forwarder, if known.
    pub fn forwarder(&self) -> Option<OriginId> {
        match self.role {
            Role::Forwarder => Some(self.own),
            _ => self.other_forwarder().map(|(origin, _)| origin),
        }
    }

    /// The LAN's name, and the term of its forwarder.
    pub fn lan(&self) -> (LanId, u32) {
        (self.lan, self.term)
    }

    /// Whether this PROBE is the last that this gateway sent; a recorded one is not.
    pub fn is_last_sent(&self, probe: &Probe) -> bool {
        (probe.nonce, probe.number.1) == (self.nonce, self.counter)
    }

    /// Whether a gateway remembered on this LAN has this address.
    pub fn is_gateway(&self, mac: MacAddress) -> bool {
        self.gateways.values().any(|other| other.mac == mac)
    }

    /// Whether a present gateway has this address, and all its last PROBEs said that it is no
    /// forwarder.
    pub fn is_standby(&self, mac: MacAddress) -> bool {
        let mut with_mac = self.gateways.values().filter(|other| other.mac == mac);
        with_mac
            .next()
            .is_some_and(|other| !other.is_forwarder && other.is_present(self.turned_at))
            && with_mac.all(|other| !other.is_forwarder)
    }

    /// Whether the gateway is remembered on this LAN.
    pub fn hears(&self, origin: OriginId) -> bool {
        self.gateways.contains_key(&origin)
    }

    /// Whether the gateway was present on this LAN lately, and is no longer.
    pub fn has_lost(&self, origin: OriginId, now: Instant) -> bool {
        let other = self.gateways.get(&origin);
        other.is_some_and(|other| other.named_at.is_some() && !other.is_present(now))
    }

    fn other_forwarder(&self) -> Option<(OriginId, &OtherGateway)> {
        let mut present = self.gateways.iter();
        let (origin, other) =
            present.find(|(_, other)| other.is_forwarder && other.is_present(self.turned_at))?;
        Some((*origin, other))
    }

    /// Advances the time; after a pause the gateway listens first.
    fn turn(&mut self, now: Instant) {
        if now > self.turned_at + PAUSE {
            self.listen(now);
        }
        self.turned_at = self.turned_at.max(now);
    }

    /// Sets this gateway's own rank.
    pub fn set_rank(&mut self, rank: Rank, now: Instant) {
        self.turn(now);
        if self.rank != rank {
            self.rank = rank;
            self.decide(now);
        }
    }

    /// Notes that a gateway is gone from the network: it cannot forward.
    pub fn set_unreachable(&mut self, origin: OriginId, now: Instant) {
        self.turn(now);
        if let Some(other) = self.gateways.get_mut(&origin) {
            other.rank.linked = false;
            other.is_forwarder = false;
            self.decide(now);
        }
    }

    /// Sets whether the interface has a carrier. With a new carrier the gateway listens first.
    pub fn set_running(&mut self, running: bool, now: Instant) {
        self.turn(now);
        if self.running != running {
            self.running = running;
            self.listen(now);
        }
    }

    fn listen(&mut self, now: Instant) {
        self.role = Role::Listening(now + LISTENING);
        (self.outreached, self.superseded) = (None, None);
    }

    /// Notes the highest term that other gateways of the LAN advertise for it. `next`: the number
    /// of this gateway's own part, if the LAN was split.
    pub fn note_term(&mut self, term: u32, next: impl FnOnce() -> LanId, now: Instant) {
        if self.role != Role::Forwarder {
            self.term = self.term.max(term);
        } else if term < self.term {
            self.superseded = None;
        } else if now >= *self.superseded.get_or_insert(now) + SPLIT {
            // the LAN was split: this part becomes a LAN of its own
            self.superseded = None;
            self.lan = next();
            self.term = self.term.saturating_add(1);
        }
    }

    /// The gateways whose PROBEs have shown that they are on this wire, in order.
    pub fn proven(&self) -> impl Iterator<Item = OriginId> {
        let proven = self.gateways.iter();
        let proven = proven.filter(|(_, other)| other.named_at.is_some());
        proven.map(|(origin, _)| *origin)
    }

    /// Whether a PROBE with this number could count.
    pub fn is_new(&self, probe: &Probe) -> bool {
        match self.gateways.get(&probe.origin) {
            Some(other) => probe.number > other.number,
            None => self.gateways.len() < MAX_GATEWAYS,
        }
    }

    /// Handles a PROBE of another gateway with a verified signature.
    pub fn handle_probe(&mut self, probe: &Probe, now: Instant) {
        self.turn(now);
        if probe.origin == self.own || !self.is_new(probe) {
            return;
        }
        let before = self.gateways.get(&probe.origin);
        let is_new = before.is_none_or(|before| before.nonce != probe.nonce);
        let names = probe.gateways.contains(&(self.own, self.nonce));
        let named_at = before.and_then(|before| before.named_at);
        let other = OtherGateway {
            number: probe.number,
            nonce: probe.nonce,
            at: now,
            named_at: if names { Some(now) } else { named_at },
            rank: probe.rank,
            is_forwarder: probe.is_forwarder,
            lan: probe.lan,
            term: probe.term,
            mac: probe.mac,
        };
        self.gateways.insert(probe.origin, other);
        if is_new {
            // the other gateway learns at once that its PROBE has arrived
            self.next_probe = now;
        }
        self.decide(now);
    }

    /// Handles expired timers; returns whether a PROBE is due.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        self.turn(now);
        self.gateways.retain(|_, other| now < other.at + MEMORY);
        self.decide(now);
        if now < self.next_probe {
            return false;
        }
        let interval = if self.gateways.is_empty() {
            LONE_PROBE_INTERVAL
        } else {
            PROBE_INTERVAL
        };
        self.next_probe = now + interval;
        true
    }

    /// The time of the next call of [`Self::handle_timeout`].
    pub fn next_timeout(&self) -> Instant {
        let listening = match self.role {
            Role::Listening(until) if self.running => Some(until),
            _ => None,
        };
        let split = self.superseded.map(|since| since + SPLIT);
        let silent = self.gateways.values().filter_map(|other| other.named_at);
        let silent = silent
            .map(|at| at + SILENCE)
            .filter(|at| *at > self.turned_at);
        let outreached = self.outreached.map(|since| since + CHALLENGE);
        let all = silent.chain(listening).chain(split).chain(outreached);
        all.fold(self.next_probe, Instant::min)
    }

    /// Builds the next PROBE.
    pub fn probe(&mut self, network: [u8; 6], incarnation: u32, mac: MacAddress) -> Probe {
        self.counter += 1;
        let gateways = self.gateways.iter();
        Probe {
            network,
            origin: self.own,
            number: (incarnation, self.counter),
            lan: self.lan,
            term: self.term,
            mac,
            is_forwarder: self.is_forwarder(),
            rank: self.rank,
            nonce: self.nonce,
            gateways: gateways
                .map(|(origin, other)| (*origin, other.nonce))
                .collect(),
        }
    }

    fn decide(&mut self, now: Instant) {
        if let Role::Listening(until) = self.role
            && (now < until || !self.running)
        {
            return;
        }
        let before = self.role;
        self.note_outreached(now);
        let yields = self
            .outreached
            .is_some_and(|since| now >= since + CHALLENGE);
        if yields {
            self.outreached = Some(now);
        }
        let present = self
            .gateways
            .iter()
            .filter(|(_, other)| other.is_present(now));
        let others = present.map(|(origin, other)| {
            let stays = other.is_forwarder && !yields;
            (other.rank.linked, stays, other.rank, Reverse(*origin))
        });
        let stays = self.is_forwarder() && !yields;
        let own = (self.rank.linked, stays, self.rank, Reverse(self.own));
        self.role = if others.max().is_some_and(|best| best > own) {
            Role::Standby
        } else {
            Role::Forwarder
        };
        if self.role == Role::Forwarder && before != Role::Forwarder {
            self.term = self.term.saturating_add(1);
        }
        if self.role == Role::Standby
            && let Some((_, forwarder)) = self.other_forwarder()
        {
            // a standby takes over the LAN's name from the forwarder
            (self.lan, self.term) = (forwarder.lan, forwarder.term);
        }
        if self.role != before {
            (self.outreached, self.superseded) = (None, None);
            self.next_probe = now;
        }
    }

    /// Notes since when a gateway reaches a higher power of two of routers than the forwarder.
    fn note_outreached(&mut self, now: Instant) {
        let present = self.gateways.values().filter(|other| other.is_present(now));
        let forwarder = match self.other_forwarder() {
            _ if self.is_forwarder() => Some(self.rank),
            Some((_, other)) => Some(other.rank),
            None => None,
        };
        let all = present.map(|other| other.rank.reachable);
        let best = all.chain([self.rank.reachable]).max();
        let outreached = forwarder.is_some_and(|forwarder| best > Some(forwarder.reachable));
        if outreached {
            self.outreached.get_or_insert(now);
        } else {
            self.outreached = None;
        }
    }
}
