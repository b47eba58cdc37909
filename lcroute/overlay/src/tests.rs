//! Tests of envelopes, and of overlays over scripted connections.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use librecast::cert::{Chain, Grant};
use librecast::id::{LinkId, PeerId, SecretKey};
use librecast::time::{Duration, Instant, UnixTime, WallClock};
use proptest::prelude::*;

use crate::connections::{Closing, ConnectionEvent, Connections, Path};
use crate::description::tests::description;
use crate::description::{Description, Fingerprint};
use crate::envelope::{Payload, Refusal, RefusalCode, Stamp, open, seal};
use crate::event::SendError;
use crate::info::{LinkInfo, Traffic};
use crate::random::Random;
use crate::{
    Candidate, CandidateKind, CarrierId, Event, Identity, Limits, Overlay, OverlayConfig,
    PeerState, Presence, Revoked,
};

const TODAY: u64 = 1_800_000_000;
const DAY: u64 = 86_400;
const SERVER: CarrierId = CarrierId(1);

/// Returns the start of virtual time; no test reads another clock.
#[expect(clippy::disallowed_methods, reason = "virtual time needs a beginning")]
pub(crate) fn start() -> Instant {
    Instant::now()
}

pub(crate) fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

pub(crate) fn peer(n: u32) -> PeerId {
    let mut seed = [7; 32];
    seed[..4].copy_from_slice(&n.to_be_bytes());
    SecretKey::from_seed(&seed).peer_id()
}

fn random() -> Random {
    Random::new([7; 32])
}

/// Returns a member of the network of this seed.
fn member_of(network: u8, seed: u8) -> Identity {
    identity_of(network, seed, false)
}

fn identity_of(network: u8, seed: u8, leaf: bool) -> Identity {
    let (network, issuer, node) = (key(network), key(77), key(seed));
    let mut grant = Grant::new("member", (0, TODAY + 7 * DAY));
    grant.leaf = leaf;
    let issuing = Grant {
        name: String::new(),
        leaf: false,
        ..grant.clone()
    };
    let chain = Chain::sign(&network, (&issuer, issuing), (node.peer_id(), grant));
    Identity::new(Arc::new(node), network.peer_id(), chain.unwrap())
}

fn member(seed: u8) -> Identity {
    member_of(1, seed)
}

fn stamp() -> Stamp {
    Stamp {
        time: TODAY,
        session: 1,
        sequence: 1,
        to_session: 0,
    }
}

/// Returns a sealed connection request.
fn request(from: &Identity, to: PeerId) -> Vec<u8> {
    let payload = Payload::Request { restart: false };
    seal(from, &to, stamp(), &payload, &mut random()).unwrap()
}

#[test]
fn a_message_for_another_node_cannot_be_opened() {
    let (sender, right, wrong) = (member(1), member(2), member(3));
    let bytes = request(&sender, right.peer_id());
    assert_eq!(
        open(&wrong, UnixTime::from_secs(TODAY), &bytes).unwrap_err(),
        (Refusal::Sealed, None)
    );
    assert!(open(&right, UnixTime::from_secs(TODAY), &bytes).is_ok());
}

#[test]
fn a_message_sealed_again_for_another_node_is_refused() {
    let (sender, right, wrong) = (member(1), member(2), member(3));
    let bytes = request(&sender, right.peer_id());
    // `right` forwards a message that was for itself
    let inner = crypto_box::SecretKey::from(*right.key.x25519())
        .unseal(&bytes)
        .unwrap();
    let to = crypto_box::PublicKey::from(wrong.peer_id().x25519().unwrap());
    let bytes = to.seal(&mut random(), &inner).unwrap();
    let refusal = open(&wrong, UnixTime::from_secs(TODAY), &bytes).unwrap_err();
    assert_eq!(refusal, (Refusal::Recipient, Some(sender.peer_id())));
}

#[test]
fn what_is_too_long_is_refused_unopened() {
    let refusal = open(
        &member(1),
        UnixTime::from_secs(TODAY),
        &vec![0; crate::MAX_SIGNAL + 1],
    )
    .unwrap_err();
    assert_eq!(refusal, (Refusal::Size, None));
}

/// Connections that follow a test's script.
#[derive(Debug, Default)]
struct Scripted {
    events: Vec<ConnectionEvent>,
    sent: Vec<(LinkId, Vec<u8>)>,
    closed: Vec<LinkId>,
    /// The connection that was described last.
    described: Option<LinkId>,
    candidates: Vec<Candidate>,
    /// Candidates of the peer that were added later.
    added: Vec<(LinkId, Vec<Candidate>)>,
    /// The peer's fingerprint in DTLS.
    remote: Fingerprint,
    /// The fingerprint of this end.
    own: Fingerprint,
}

impl Scripted {
    fn describe(&mut self, link: LinkId) {
        let description = Description {
            ufrag: "user".to_owned(),
            pwd: "a password of 22 chars".replace(' ', "+"),
            fingerprint: self.own,
            media: false,
            track: None,
            lane_control: false,
            candidates: self.candidates.clone(),
        };
        self.described = Some(link);
        let described = ConnectionEvent::Described { link, description };
        self.events.push(described);
    }
}

impl Connections for Scripted {
    fn offer(&mut self, link: LinkId, _: Instant) {
        self.describe(link);
    }

    fn answer(&mut self, link: LinkId, _: &Description, _: Instant) {
        self.describe(link);
    }

    fn accept(&mut self, _: LinkId, _: &Description, _: Instant) {}

    fn add_candidates(&mut self, link: LinkId, candidates: &[Candidate], _now: Instant) {
        self.added.push((link, candidates.to_vec()));
    }

    fn await_restart(&mut self, _: LinkId) {}

    fn restart(&mut self, link: LinkId, _: Option<&Description>, _: Instant) {
        self.describe(link);
    }

    fn remote_fingerprint(&mut self, _: LinkId) -> Option<Fingerprint> {
        Some(self.remote)
    }

    fn authenticated(&mut self, _: LinkId, _: bool, _: Instant) {}

    fn send_control(&mut self, link: LinkId, message: &[u8], _: Instant) -> Result<(), SendError> {
        self.sent.push((link, message.to_vec()));
        Ok(())
    }

    fn send_routed(&mut self, _: LinkId, _: &[u8], _: Instant) -> Result<(), SendError> {
        Err(SendError::QueueFull)
    }

    fn send_data(&mut self, _: LinkId, _: [&[u8]; 2], _: Instant) -> Result<(), SendError> {
        Err(SendError::QueueFull)
    }

    fn suspect(&mut self, _: LinkId, _: Instant) {}

    fn close(&mut self, link: LinkId, _: Instant) -> Closing {
        self.closed.push(link);
        Closing::default()
    }

    fn path(&self, _: LinkId) -> Option<Path> {
        None
    }

    fn send_straight(
        &mut self,
        _: Option<std::net::SocketAddr>,
        _: std::net::SocketAddr,
        _: &Bytes,
    ) {
    }
    fn candidates(&self) -> Vec<Candidate> {
        self.candidates.clone()
    }

    fn info(&self, _: LinkId) -> LinkInfo {
        LinkInfo::default()
    }

    fn round_trip(&self, _: LinkId) -> Option<Duration> {
        None
    }

    fn traffic(&self, _: LinkId) -> Traffic {
        Traffic::default()
    }

    fn handle_timeout(&mut self, _: Instant) {}

    fn next_timeout(&mut self) -> Option<Instant> {
        None
    }

    fn poll_event(&mut self) -> Option<ConnectionEvent> {
        (!self.events.is_empty()).then(|| self.events.remove(0))
    }

    fn drops(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

fn host() -> Candidate {
    Candidate {
        kind: CandidateKind::Host,
        addr: ([192, 0, 2, 1], 1).into(),
    }
}

fn overlay(identity: Identity, limits: Limits, now: Instant) -> Overlay<Scripted> {
    let seed = *identity.peer_id().public_key();
    overlay_of_run(identity, limits, seed, now)
}

fn overlay_of_run(
    identity: Identity,
    limits: Limits,
    seed: [u8; 32],
    now: Instant,
) -> Overlay<Scripted> {
    let fingerprint = *identity.peer_id().public_key();
    let config = OverlayConfig {
        seed,
        identity,
        clock: WallClock::new(|| UnixTime::from_secs(TODAY)),
        epoch: now,
        limits,
    };
    let connections = Scripted {
        own: fingerprint,
        ..Scripted::default()
    };
    Overlay::new(config, connections, now)
}

/// Two overlays that meet at a server, the smaller PeerId first.
struct Pair {
    overlays: [Overlay<Scripted>; 2],
    now: Instant,
    /// All events, as text.
    trace: Vec<String>,
    links: [Option<LinkId>; 2],
}

impl Pair {
    fn new(now: Instant) -> Self {
        Self::of([member(1), member(2)], now)
    }

    fn of(mut identities: [Identity; 2], now: Instant) -> Self {
        identities.sort_by_key(Identity::peer_id);
        let overlays = identities.map(|id| overlay(id, Limits::default(), now));
        let mut pair = Self {
            overlays,
            now,
            trace: Vec::new(),
            links: [None; 2],
        };
        for n in [0, 1] {
            let peer = pair.overlays[1 - n].peer_id();
            let overlay = &mut pair.overlays[n];
            overlay.connections_mut().remote = *peer.public_key();
            overlay.set_wanted(BTreeSet::from([peer]), now);
            overlay.handle_presence(SERVER, Presence::Online(peer), now);
        }
        pair
    }

    /// Returns a pair with a link.
    fn linked(now: Instant) -> Self {
        let mut pair = Self::new(now);
        pair.signal();
        pair.open(|_, _| {});
        pair
    }

    /// Returns another run with the key of node `n`.
    fn another(&self, n: usize, seed: [u8; 32]) -> Overlay<Scripted> {
        let key = self.overlays[n].peer_id();
        let mut members = [member(1), member(2)].into_iter();
        let identity = members.find(|id| id.peer_id() == key).unwrap();
        overlay_of_run(identity, Limits::default(), seed, self.now)
    }

    /// Carries signals until both nodes are silent.
    fn signal(&mut self) {
        loop {
            let mut silent = true;
            for n in [0, 1] {
                while let Some(event) = self.overlays[n].poll_event(self.now) {
                    silent = false;
                    self.trace.push(format!("{n} {event:?}"));
                    let from = self.overlays[n].peer_id();
                    match event {
                        Event::Signal { bytes, .. } => {
                            self.overlays[1 - n].handle_signal(SERVER, from, &bytes, self.now);
                        }
                        Event::LinkUp { link, .. } => self.links[n] = Some(link),
                        Event::LinkDown { .. } => self.links[n] = None,
                        _ => {}
                    }
                }
            }
            if silent {
                return;
            }
        }
    }

    /// Opens the channels at both ends; `alter` changes each first control message.
    fn open(&mut self, alter: impl Fn(usize, &mut Vec<u8>)) {
        self.begin_open(alter);
        self.signal();
    }

    /// Does the same, until both have received the message of the other.
    fn begin_open(&mut self, alter: impl Fn(usize, &mut Vec<u8>)) {
        let links = [0, 1].map(|n| self.overlays[n].connections().described.unwrap());
        for (overlay, link) in self.overlays.iter_mut().zip(links) {
            let events = &mut overlay.connections_mut().events;
            events.push(ConnectionEvent::Open { link });
        }
        self.signal();
        for n in [0, 1] {
            let sent = std::mem::take(&mut self.overlays[n].connections_mut().sent);
            for (_, mut message) in sent {
                alter(n, &mut message);
                self.trace.push(format!("{n} {message:?}"));
                let message = Bytes::from(message);
                let link = links[1 - n];
                let event = ConnectionEvent::Control { link, message };
                self.overlays[1 - n].connections_mut().events.push(event);
            }
        }
    }

    /// Asserts that node `n` refuses the other, and that its link has ended.
    fn assert_auth_failed(&self, n: usize) {
        assert_eq!(self.overlays[n].drops()["auth_failed"], 1);
        assert_eq!(self.overlays[n].connections().closed, [LinkId(1)]);
        let row = self.overlays[n].peers().remove(0);
        let why = Some("authentication failed");
        assert_eq!((row.state, row.reason), (PeerState::Refused, why));
    }
}

#[test]
fn both_sides_prove_who_they_are_and_have_a_link() {
    let pair = Pair::linked(start());
    assert_eq!(pair.links, [Some(LinkId(1)); 2]);
    for overlay in &pair.overlays {
        assert_eq!(overlay.peers()[0].state, PeerState::Connected);
    }
}

#[test]
fn addresses_that_come_later_are_added_to_the_attempt_under_way() {
    let mut pair = Pair::new(start());
    pair.signal();
    let links = [0, 1].map(|n| pair.overlays[n].connections().described.unwrap());
    let candidate = |address: &str| Candidate {
        kind: CandidateKind::ServerReflexive,
        addr: address.parse().unwrap(),
    };
    let tell = |pair: &mut Pair, n: usize, address: &str| {
        let (link, candidates) = (links[n], vec![candidate(address)]);
        let events = &mut pair.overlays[n].connections_mut().events;
        events.push(ConnectionEvent::Candidates { link, candidates });
        pair.signal();
    };
    for (n, address) in [(0, "198.51.100.1:7"), (1, "198.51.100.2:7")] {
        tell(&mut pair, n, address);
        let added = &pair.overlays[1 - n].connections().added;
        assert_eq!(added[..], [(links[1 - n], vec![candidate(address)])]);
    }
    // an address of the network leads through the link itself
    let inside = pair.overlays[1].peers()[0].address.unwrap();
    tell(&mut pair, 0, &format!("[{inside}]:7"));
    assert_eq!(pair.overlays[1].connections().added.len(), 1);
    pair.open(|_, _| {});
    assert_eq!(pair.links, links.map(Some));
    tell(&mut pair, 0, "198.51.100.3:7");
    assert_eq!(pair.overlays[1].connections().added.len(), 1, "it is made");
}

#[test]
fn the_same_seed_and_the_same_inputs_give_the_same_bytes() {
    let now = start();
    let traces = [0, 1].map(|_| {
        let mut pair = Pair::linked(now);
        let link = LinkId(1);
        let reason = crate::EndReason::Silent;
        let closed = ConnectionEvent::Closed { link, reason };
        pair.overlays[0].connections_mut().events.push(closed);
        for _ in 0..20 {
            pair.now += Duration::from_secs(1);
            for overlay in &mut pair.overlays {
                overlay.handle_timeout(pair.now);
            }
            pair.signal();
        }
        pair.trace
    });
    // connection requests, offer, answer, both Auth messages, link events, and new attempts
    assert!(traces[0].len() > 8, "{:#?}", traces[0]);
    assert_eq!(traces[0], traces[1]);
}

#[test]
fn auth_over_another_dtls_session_closes_the_link() {
    for culprit in [0, 1] {
        let mut pair = Pair::new(start());
        pair.signal();
        // a signature over other fingerprints does not match
        pair.open(|n, message| message[10] ^= u8::from(n == culprit));
        pair.assert_auth_failed(1 - culprit);
        assert_eq!(pair.links[1 - culprit], None);
    }
}

#[test]
fn a_dtls_peer_other_than_the_signalled_one_gets_no_auth() {
    for honest in [0, 1] {
        let mut pair = Pair::new(start());
        pair.signal();
        pair.overlays[honest].connections_mut().remote = [9; 32];
        pair.open(|n, _| assert_ne!(n, honest, "no Auth"));
        pair.assert_auth_failed(honest);
        assert_eq!(pair.links, [None; 2]);
    }
}

#[test]
fn strangers_cannot_fill_the_tables() {
    let now = start();
    let limits = Limits {
        present: 1_000,
        ..Limits::default()
    };
    let mut overlay = overlay(member(1), limits, now);
    for n in 0..1_500_u32 {
        let mut seed = [3; 32];
        seed[..4].copy_from_slice(&n.to_be_bytes());
        let id = SecretKey::from_seed(&seed).peer_id();
        overlay.handle_presence(SERVER, Presence::Online(id), now);
    }
    assert!(overlay.poll_event(now).is_none());
    assert!(overlay.peers().is_empty(), "nobody wants them");
    assert_eq!(overlay.drops()["presence_full"], 500);
    // a wanted peer takes a stranger's place
    let wanted = member(2).peer_id();
    overlay.set_wanted(BTreeSet::from([wanted]), now);
    overlay.handle_presence(SERVER, Presence::Online(wanted), now);
    assert!(matches!(overlay.poll_event(now), Some(Event::Signal { to, .. }) if to == wanted));
    assert_eq!(overlay.drops()["presence_full"], 500);
}

#[test]
fn a_record_by_a_wrong_clock_says_so_and_its_owner_is_asked() {
    use crate::CarrierKind::{Dht, Lan, Matrix};
    const HOUR: i64 = 3_600;
    let now = start();
    for (kind, made, is_refused) in [
        (Dht, 24 * HOUR, false),
        (Dht, 26 * HOUR, true),
        (Matrix, 26 * HOUR, true),
        (Lan, -23 * HOUR, false),
        (Lan, -26 * HOUR, true),
        // a room stores records without renewal
        (Matrix, -26 * HOUR, false),
    ] {
        let peer = member(2);
        let made = TODAY.saturating_add_signed(made);
        let record = crate::PresenceRecord {
            node: peer.peer_id(),
            made,
            until: made + crate::RECORD_LIFETIME,
            candidates: vec![crate::Candidate {
                kind: crate::CandidateKind::Host,
                addr: ([192, 0, 2, 1], 1).into(),
            }],
        };
        let rendezvous = crate::Rendezvous::new(peer.network());
        let sealed = rendezvous.seal(&record, &peer.key, &mut crate::Random::new([3; 32]));
        let mut overlay = overlay(member(1), Limits::default(), now);
        let taken = overlay.handle_record(kind, &sealed, |_| true, now);
        assert!(
            taken.is_ok_and(|(_, until)| until > now),
            "its owner may be asked"
        );
        let reasons = |overlay: &Overlay<Scripted>| {
            let peers = overlay.peers();
            peers.iter().filter_map(|p| p.reason).collect::<Vec<_>>()
        };
        let expected: &[_] = match is_refused {
            true => &["clock differs by more than a day"],
            false => &[],
        };
        assert_eq!(reasons(&overlay), expected);
        let dropped = overlay.drops().get("signal_clock").copied();
        assert_eq!(dropped, is_refused.then_some(1));
        overlay.set_wanted(BTreeSet::from([peer.peer_id()]), now);
        overlay.handle_presence(SERVER, Presence::Online(peer.peer_id()), now);
        assert_eq!(reasons(&overlay), expected, "while it is asked as well");
        assert!(overlay.next_timeout().is_some(), "it is asked");
    }
}

#[test]
fn a_flood_of_records_on_one_carrier_is_not_opened_and_other_carriers_go_on() {
    let now = start();
    let mut overlay = overlay(member(1), Limits::default(), now);
    for n in 0..10_000_u32 {
        let junk = [&n.to_be_bytes()[..], &[0; 400]].concat();
        let taken = overlay.handle_record(crate::CarrierKind::Lan, &junk, |_| true, now);
        assert!(taken.is_err());
    }
    assert_eq!(overlay.drops()["presence_limited"], 10_000 - 8_192);
    let mut peer = overlay_of_run(member(2), Limits::default(), [2; 32], now);
    peer.connections_mut().candidates = vec![host()];
    let record = peer.record(now).unwrap().sealed;
    let mut takes = |kind, at| overlay.handle_record(kind, &record, |_| true, at);
    let dropped = Err(crate::NotTaken::Dropped);
    assert_eq!(takes(crate::CarrierKind::Lan, now), dropped);
    assert!(takes(crate::CarrierKind::Spool, now).is_ok());
    let later = now + Duration::from_secs(1);
    assert!(takes(crate::CarrierKind::Lan, later).is_ok(), "said again");
}

#[test]
fn refused_strangers_are_remembered_within_bounds() {
    let now = start();
    let mut overlay = overlay(member(1), Limits::default(), now);
    let to = overlay.peer_id();
    for n in 0..200_u8 {
        let stranger = member_of(2, n);
        let bytes = request(&stranger, to);
        overlay.handle_signal(SERVER, stranger.peer_id(), &bytes, now);
    }
    assert_eq!(overlay.peers().len(), 64);
}

#[test]
fn a_sender_with_a_wrong_clock_is_told_so_once() {
    let now = start();
    let early = TODAY - 2 * DAY;
    let mut overlay = overlay(member(1), Limits::default(), now);
    let (other, to) = (member(2), overlay.peer_id());
    let mut told = Vec::new();
    for sequence in 1..4 {
        let stamp = Stamp {
            time: early,
            sequence,
            ..stamp()
        };
        let request = Payload::Request { restart: false };
        let bytes = seal(&other, &to, stamp, &request, &mut random()).unwrap();
        overlay.handle_signal(SERVER, other.peer_id(), &bytes, now);
        while let Some(event) = overlay.poll_event(now) {
            if let Event::Signal { to, bytes, .. } = event {
                assert_eq!(to, other.peer_id());
                told.push(bytes);
            }
        }
    }
    let [told] = &told[..] else {
        panic!("told {} times", told.len());
    };
    let sees = |time| {
        open(&other, UnixTime::from_secs(time), told)
            .map_err(|(refusal, from)| (refusal.reason(), from))
    };
    let refused = sees(early).unwrap_err();
    assert_eq!(refused, (crate::CLOCK_DIFFERS, Some(to)));
    assert!(sees(TODAY).is_ok());
}

#[test]
fn a_flood_of_messages_is_not_even_opened() {
    let now = start();
    let mut overlay = overlay(member(1), Limits::default(), now);
    let (other, to) = (member(2), overlay.peer_id());
    // correctly sealed, and never new
    let full = Payload::Refusal {
        code: RefusalCode::Full,
        proof: Bytes::new(),
    };
    let bytes = seal(&other, &to, stamp(), &full, &mut random()).unwrap();
    for n in 0..100_u8 {
        let mut bytes = bytes.clone();
        bytes[0] ^= n;
        overlay.handle_signal(SERVER, other.peer_id(), &bytes, now);
    }
    assert_eq!(overlay.drops()["signal_rate"], 98);
}

#[test]
fn few_leaves_at_a_time_begin_a_link_with_a_node_that_is_behind() {
    let now = start();
    let mut identities: Vec<_> = (1..60).map(|seed| identity_of(1, seed, false)).collect();
    identities.sort_by_key(Identity::peer_id);
    // the smaller key offers
    let router = identities.remove(0);
    let is_greater = |id: &Identity| id.peer_id() > router.peer_id();
    let leaves: Vec<_> = (100..140).map(|seed| identity_of(1, seed, true)).collect();
    let leaves: Vec<_> = leaves.into_iter().filter(is_greater).collect();
    assert!(leaves.len() > 20);
    let member = identities.remove(0);
    let to = router.peer_id();
    let mut overlay = overlay(router, Limits::default(), now);
    let mut sequence = 0;
    let mut offered = |overlay: &mut Overlay<Scripted>, from: &[&Identity], now| {
        sequence += 1;
        for from in from {
            let stamp = Stamp {
                sequence,
                ..stamp()
            };
            let request = Payload::Request { restart: false };
            let bytes = seal(from, &to, stamp, &request, &mut random()).unwrap();
            overlay.handle_signal(SERVER, from.peer_id(), &bytes, now);
        }
        let mut offered = 0;
        while let Some(event) = overlay.poll_event(now) {
            offered += usize::from(matches!(event, Event::Signal { .. }));
        }
        offered
    };
    let all: Vec<_> = leaves.iter().collect();
    overlay.set_behind(true, now);
    assert_eq!(offered(&mut overlay, &all, now), 8);
    assert_eq!(overlay.drops()["leaf_busy"], all.len() as u64 - 8);
    assert_eq!(
        offered(&mut overlay, &[&member], now),
        1,
        "a member waits for no leaf"
    );
    overlay.set_behind(false, now);
    let later = now + Duration::from_millis(999);
    assert_eq!(offered(&mut overlay, &all[20..21], later), 0);
    let later = now + Duration::from_secs(1);
    assert_eq!(offered(&mut overlay, &all[21..22], later), 1);
}

#[test]
fn while_routers_elsewhere_have_room_a_leaf_is_taken_once_it_has_asked_again() {
    let mut pair = Pair::of([member(1), identity_of(1, 2, true)], start());
    let router = usize::from(pair.overlays[0].peer_id() != member(1).peer_id());
    // the leaf asks
    let now = pair.now;
    pair.overlays[router].set_wanted(BTreeSet::new(), now);
    pair.signal();
    pair.open(|_, _| {});
    pair.overlays[router].set_elsewhere(true);
    pair.signal();
    let link = pair.links[1 - router].expect("no word but its own ends its link");
    pair.overlays[1 - router].close_gracefully(link, now);
    pair.signal();
    let is_refused = |pair: &Pair| pair.overlays[router].drops().contains_key("peers_full");
    let asks_again = |pair: &mut Pair| {
        pair.now += Duration::from_secs(40);
        let now = pair.now;
        pair.overlays
            .iter_mut()
            .for_each(|overlay| overlay.handle_timeout(now));
        pair.signal();
    };
    for _ in 0..2 {
        if !is_refused(&pair) {
            asks_again(&mut pair);
        }
    }
    assert!(is_refused(&pair));
    assert_eq!(pair.links[router], None);
    asks_again(&mut pair);
    pair.open(|_, _| {});
    assert!(pair.links[router].is_some());
}

#[test]
fn presence_that_flaps_does_not_cause_a_request_each_time() {
    let now = start();
    let mut overlay = overlay(member(1), Limits::default(), now);
    let other = member(2).peer_id();
    overlay.set_wanted(BTreeSet::from([other]), now);
    for _ in 0..1_000 {
        overlay.handle_presence(SERVER, Presence::Online(other), now);
    }
    assert!(matches!(
        overlay.poll_event(now),
        Some(Event::Signal { .. })
    ));
    assert!(overlay.poll_event(now).is_none());
}

#[test]
fn a_revocation_ends_a_link_however_many_there_are() {
    let mut pair = Pair::linked(start());
    let now = pair.now;
    for n in 0..9_000_u32 {
        let mut seed = [9; 32];
        seed[..4].copy_from_slice(&n.to_be_bytes());
        let id = SecretKey::from_seed(&seed).peer_id();
        pair.overlays[0].revoke(id, Revoked::default(), now);
    }
    assert_eq!(pair.overlays[0].drops()["revocations_full"], 9_000 - 8_192);
    let peer: PeerId = pair.overlays[1].peer_id();
    pair.overlays[0].revoke(peer, Revoked::default(), now);
    pair.signal();
    assert_eq!(pair.links[0], None);
}

fn payload() -> impl Strategy<Value = Payload> {
    prop_oneof![
        any::<bool>().prop_map(|restart| Payload::Request { restart }),
        (any::<[u8; 32]>(), description()).prop_map(|(attempt, description)| {
            Payload::Candidates {
                attempt,
                candidates: description.candidates,
            }
        }),
        (any::<bool>(), any::<[u8; 32]>(), description()).prop_map(
            |(restart, attempt, description)| Payload::Offer {
                restart,
                attempt,
                description
            }
        ),
        (
            any::<bool>(),
            any::<[u8; 32]>(),
            any::<[u8; 32]>(),
            description()
        )
            .prop_map(|(restart, attempt, nonce, description)| Payload::Answer {
                restart,
                attempt,
                nonce,
                description
            }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_message_comes_out_as_it_went_in(payload in payload(), session: u64, sequence: u64, to_session: u64) {
        let (from, to) = (member(1), member(2));
        let stamp = Stamp { time: TODAY, session, sequence, to_session };
        let bytes = seal(&from, &to.peer_id(), stamp, &payload, &mut random()).unwrap();
        prop_assert!(bytes.len() < 4_096);
        let opened = open(&to, UnixTime::from_secs(TODAY), &bytes).unwrap();
        prop_assert_eq!(opened.payload, payload);
        prop_assert_eq!((opened.session, opened.sequence, opened.to_session), (session, sequence, to_session));
        prop_assert_eq!(opened.member.peer, from.peer_id());
    }

    #[test]
    fn arbitrary_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        prop_assert!(open(&member(2), UnixTime::from_secs(TODAY), &bytes).is_err());
    }

    /// Correctly sealed, so that they reach the parser behind the seal.
    #[test]
    fn arbitrary_bytes_in_a_seal_are_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..2_000), version: bool) {
        if version && !bytes.is_empty() {
            bytes[0] = 1;
        }
        if bytes.len() >= 34 {
            bytes[2..34].copy_from_slice(member(1).peer_id().public_key());
        }
        let to = crypto_box::PublicKey::from(member(2).peer_id().x25519().unwrap());
        let sealed = to.seal(&mut random(), &bytes).unwrap();
        prop_assert!(open(&member(2), UnixTime::from_secs(TODAY), &sealed).is_err());
    }

    #[test]
    fn a_changed_bit_behind_the_seal_is_refused(at: prop::sample::Index, bit in 0_u8..8) {
        let (from, to) = (member(1), member(2));
        let bytes = request(&from, to.peer_id());
        let mut inner = crypto_box::SecretKey::from(*to.key.x25519()).unseal(&bytes).unwrap();
        let at = at.index(inner.len());
        inner[at] ^= 1_u8 << bit;
        let box_key = crypto_box::PublicKey::from(to.peer_id().x25519().unwrap());
        let sealed = box_key.seal(&mut random(), &inner).unwrap();
        prop_assert!(open(&to, UnixTime::from_secs(TODAY), &sealed).is_err());
    }
}

/// A linked pair, and a second host with the key of one of the two.
struct Cloned {
    pair: Pair,
    /// The index of the key's owner.
    n: usize,
    clone: Overlay<Scripted>,
    /// Number of conflict reports to the linked host, and to its clone.
    told: [usize; 2],
    /// Whether the linked host still runs.
    lives: bool,
}

impl Cloned {
    fn new(n: usize) -> Self {
        let now = start();
        let pair = Pair::linked(now);
        let mut clone = pair.another(n, [9; 32]);
        let peer = pair.overlays[1 - n].peer_id();
        clone.set_wanted(BTreeSet::from([peer]), now);
        clone.handle_presence(SERVER, Presence::Online(peer), now);
        Self {
            pair,
            n,
            clone,
            told: [0; 2],
            lives: true,
        }
    }

    /// Runs half a minute, in which the server brings each message for the key to both hosts.
    fn run(&mut self) {
        let n = self.n;
        let key = self.pair.overlays[n].peer_id();
        let peer = self.pair.overlays[1 - n].peer_id();
        for _ in 0..60 {
            self.pair.now += Duration::from_millis(500);
            let now = self.pair.now;
            self.clone.handle_timeout(now);
            self.pair.overlays[1 - n].handle_timeout(now);
            if self.lives {
                self.pair.overlays[n].handle_timeout(now);
            }
            loop {
                let mut silent = true;
                let of_key = [&mut self.pair.overlays[n], &mut self.clone];
                let mut to_peer = Vec::new();
                for (host, told) in of_key.into_iter().zip(&mut self.told) {
                    while let Some(event) = host.poll_event(now) {
                        match event {
                            Event::Signal { bytes, .. } => to_peer.push(bytes),
                            Event::KeyConflict(conflict) => {
                                assert_eq!(conflict.seen_by, peer);
                                *told += 1;
                            }
                            _ => {}
                        }
                    }
                }
                for bytes in to_peer {
                    silent = false;
                    self.pair.overlays[1 - n].handle_signal(SERVER, key, &bytes, now);
                }
                while let Some(event) = self.pair.overlays[1 - n].poll_event(now) {
                    silent = false;
                    if let Event::Signal { bytes, .. } = event {
                        self.clone.handle_signal(SERVER, peer, &bytes, now);
                        if self.lives {
                            self.pair.overlays[n].handle_signal(SERVER, peer, &bytes, now);
                        }
                    }
                }
                if silent {
                    break;
                }
            }
        }
    }
}

#[test]
fn two_hosts_with_one_key_are_told_and_who_has_the_link_keeps_it() {
    for n in [0, 1] {
        let mut cloned = Cloned::new(n);
        cloned.run();
        assert!(!cloned.told.contains(&0), "{:?}", cloned.told);
        let row = |overlay: &Overlay<Scripted>| overlay.peers().remove(0);
        let pair = &cloned.pair;
        assert_eq!(pair.links, [Some(LinkId(1)); 2]);
        assert!(
            pair.overlays
                .iter()
                .all(|o| o.connections().closed.is_empty())
        );
        let why = Some("another host has the same key");
        assert_eq!(row(&pair.overlays[1 - n]).reason, why);
        assert_eq!(row(&pair.overlays[n]).state, PeerState::Connected);
        let clone = row(&cloned.clone);
        let why = Some("another host has this node's key");
        assert_eq!((clone.state, clone.reason), (PeerState::Refused, why));
    }
}

#[test]
fn two_hosts_with_one_key_are_told_again_when_the_linked_one_has_restarted() {
    for n in [0, 1] {
        let mut cloned = Cloned::new(n);
        cloned.run();
        // long passes before it asks for a link again
        cloned.clone.set_wanted(BTreeSet::new(), cloned.pair.now);
        let pair = &mut cloned.pair;
        let now = pair.now;
        let closed = ConnectionEvent::Closed {
            link: LinkId(1),
            reason: crate::EndReason::Silent,
        };
        let peer = pair.overlays[1 - n].peer_id();
        pair.overlays[1 - n].connections_mut().events.push(closed);
        let mut restarted = pair.another(n, [8; 32]);
        restarted.connections_mut().remote = *peer.public_key();
        restarted.set_wanted(BTreeSet::from([peer]), now);
        restarted.handle_presence(SERVER, Presence::Online(peer), now);
        pair.overlays[n] = restarted;
        pair.signal();
        pair.begin_open(|_, _| {});
        cloned.told = [0; 2];
        cloned.run();
        assert!(!cloned.told.contains(&0), "{:?}", cloned.told);
    }
}

#[test]
fn a_node_that_was_killed_and_is_back_is_no_second_host() {
    for n in [0, 1] {
        let mut cloned = Cloned::new(n);
        // its peer's connection detects this late
        cloned.lives = false;
        cloned.run();
        assert_eq!(cloned.told, [0; 2]);
        assert_eq!(cloned.pair.overlays[1 - n].peers()[0].reason, None);
    }
}

const ALL_KINDS: [crate::CandidateKind; 4] = [
    crate::CandidateKind::Host,
    crate::CandidateKind::ServerReflexive,
    crate::CandidateKind::Relayed,
    crate::CandidateKind::Mapped,
];

/// Returns the hidden end's candidates that the peer receives, whichever end offers.
fn candidates_in_signals(hidden: usize, disclosure: crate::Disclosure) -> Vec<Candidate> {
    let now = start();
    let mut pair = Pair::new(now);
    let overlay = &mut pair.overlays[hidden];
    overlay.set_disclosure(disclosure, now);
    overlay.connections_mut().candidates = ALL_KINDS
        .into_iter()
        .zip(1..)
        .map(|(kind, n)| crate::Candidate {
            kind,
            addr: ([192, 0, 2, n], 7).into(),
        })
        .collect();
    let mut identities = [member(1), member(2)];
    identities.sort_by_key(Identity::peer_id);
    let mut seen = Vec::new();
    for _ in 0..10 {
        for n in [0, 1] {
            while let Some(event) = pair.overlays[n].poll_event(now) {
                let Event::Signal { bytes, .. } = event else {
                    continue;
                };
                let from = pair.overlays[n].peer_id();
                if n == hidden {
                    let opened =
                        open(&identities[1 - n], UnixTime::from_secs(TODAY), &bytes).unwrap();
                    if let Payload::Offer { description, .. }
                    | Payload::Answer { description, .. } = opened.payload
                    {
                        seen.extend(description.candidates);
                    }
                }
                pair.overlays[1 - n].handle_signal(SERVER, from, &bytes, now);
            }
        }
    }
    seen
}

#[test]
fn offers_and_answers_have_addresses_of_relays_alone_unless_the_peer_is_disclosed() {
    let mut ids = [member(1), member(2)].map(|identity| identity.peer_id());
    ids.sort_unstable();
    let only = |trusted| crate::Disclosure::Only(trusted);
    for hidden in [0, 1] {
        let kinds = |disclosure| -> Vec<_> {
            let seen = candidates_in_signals(hidden, disclosure);
            seen.into_iter().map(|candidate| candidate.kind).collect()
        };
        assert_eq!(kinds(only(vec![])), [crate::CandidateKind::Relayed]);
        let other = vec![crate::Trusted::Node(ids[hidden])];
        assert_eq!(kinds(only(other)), [crate::CandidateKind::Relayed]);
        let peer = vec![crate::Trusted::Node(ids[1 - hidden])];
        assert_eq!(kinds(only(peer)), ALL_KINDS);
        assert_eq!(kinds(crate::Disclosure::Everybody), ALL_KINDS);
    }
}

#[test]
fn a_label_discloses_to_those_whose_certificate_has_it() {
    let of = |value: &str| {
        let trusted = crate::Trusted::Label("friend".to_owned(), value.to_owned());
        crate::Disclosure::Only(vec![trusted])
    };
    let identity = member(1);
    let bytes = request(&identity, member(2).peer_id());
    let mut friend = open(&member(2), UnixTime::from_secs(TODAY), &bytes)
        .unwrap()
        .member;
    friend.labels.insert("friend".to_owned(), "yes".to_owned());
    let id = identity.peer_id();
    assert!(of("yes").includes(&id, Some(&friend)));
    assert!(!of("no").includes(&id, Some(&friend)));
    assert!(!of("yes").includes(&id, None), "it has not shown it");
    assert!(of("yes").hides() && !crate::Disclosure::default().hides());
}

#[test]
fn a_hidden_host_publishes_no_record() {
    let now = start();
    let mut overlay = overlay(member(1), Limits::default(), now);
    overlay.connections_mut().candidates = vec![host()];
    assert!(overlay.record(now).is_some());
    assert!(overlay.set_disclosure(crate::Disclosure::Only(vec![]), now));
    assert!(overlay.record(now).is_none() && overlay.hides_addresses());
    assert!(overlay.set_disclosure(crate::Disclosure::Everybody, now));
    assert!(overlay.record(now).is_some());
}
