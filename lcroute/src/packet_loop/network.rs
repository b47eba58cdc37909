//! What engine and overlay have for one another about other nodes: who is there, with whom there shall be links,
//! messages over several links, certificates that are renewed or no longer count.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lcroute_engine::{Output, RoutedKind};
use lcroute_overlay::{CarrierId, Event, LinkId, OVERLAY_CARRIER, PeerState, Presence, Revoked};
use librecast::cert::{Chain, GroupPrefix, Member};
use librecast::events;
use librecast::id::{NetworkId, NodeAddresses, OriginId, PeerId, SecretKey};
use librecast::revocation::Revocation;
use librecast::units;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::PacketLoop;
use super::answers::reply;
use crate::announcements::Announcements;
use crate::control::{Answer, MAX_PING};
use crate::keeper::Keep;
use crate::members::Members;
use crate::ping::{ECHO_LEN, Pings};
use crate::renewal::{Registry, Renewal, Renewer};
use crate::revocations::{self, Revocations};
use crate::state::unix_now;
use crate::status::{KnownMember, Pong, Route, find};

/// The list of members goes to disk this often at most, if it has changed.
const WRITE_MEMBERS: Duration = Duration::from_secs(60);
/// Most nodes that one backbone can make present; as many as it has room for.
const MAX_PRESENT: usize = 4_096;

/// What this node knows of its network.
#[derive(Debug)]
pub struct Network {
    id: NetworkId,
    own: OriginId,
    /// Backbones that are connected.
    carriers: BTreeSet<CarrierId>,
    /// By backbone.
    present: BTreeMap<CarrierId, BTreeSet<PeerId>>,
    /// Of all that are present somewhere.
    by_origin: BTreeMap<OriginId, PeerId>,
    /// Over the links of the network; the engine bounds it.
    reachable: BTreeMap<OriginId, PeerId>,
    announcements: Announcements,
    /// Those of the configuration that the certificate does not permit: told once.
    forbidden: Vec<GroupPrefix>,
    pings: Pings<Asker>,
    renewal: Renewal,
    renewer: Option<Renewer>,
    revocations: Revocations,
    members: Members,
    /// When the list of members is written next, if it has changed.
    write_members: Instant,
    keep: mpsc::UnboundedSender<Keep>,
}

/// What an issuer asks when it renews.
struct Known<'a> {
    revocations: &'a Revocations,
    members: &'a Members,
}

impl Registry for Known<'_> {
    fn is_revoked(&self, member: &Member) -> bool {
        self.revocations.expel(member)
    }

    fn free_name(&self, member: &Member) -> String {
        self.members
            .free_name(&member.peer, &member.name, unix_now())
    }
}

/// Who waits for an echo.
#[derive(Debug)]
struct Asker {
    to: oneshot::Sender<Answer>,
    route: Route,
}

impl Asker {
    fn tell(self, rtt: Option<Duration>) {
        let pong = Pong {
            peer_id: self.route.peer_id,
            name: self.route.name,
            address: self.route.address,
            hops: self.route.hops,
            bytes: ECHO_LEN,
            rtt_ms: rtt.map(|rtt| rtt.as_secs_f64() * 1_000.0),
        };
        reply(
            self.to,
            serde_json::to_value(pong).map_err(|e| e.to_string()),
        );
    }
}

/// What [`Network`] begins with.
#[derive(Debug)]
pub struct NetworkStart {
    /// The network's key.
    pub id: NetworkId,
    /// This node's key.
    pub key: Arc<SecretKey>,
    /// This node's certificates.
    pub chain: Chain,
    /// What the configuration announces.
    pub announce: Vec<GroupPrefix>,
    /// Those of the state directory.
    pub revocations: Revocations,
    /// Whom earlier runs have seen, and this node itself.
    pub members: Members,
    /// Where what must outlive the daemon goes.
    pub keep: mpsc::UnboundedSender<Keep>,
    /// Jitter, nonces, names of echoes.
    pub seed: u64,
}

impl Network {
    /// Nobody is there yet.
    #[must_use]
    pub fn new(start: NetworkStart, now: Instant) -> Self {
        let (id, key, chain, seed) = (start.id, start.key, start.chain, start.seed);
        let peer = key.peer_id();
        let issuer = chain.issuer();
        let may_issue = issuer.subject() == peer;
        Self {
            id,
            own: NodeAddresses::derive(&id, &peer).origin,
            carriers: BTreeSet::new(),
            present: BTreeMap::new(),
            by_origin: BTreeMap::new(),
            reachable: BTreeMap::new(),
            announcements: Announcements::new(&start.announce),
            forbidden: Vec::new(),
            pings: Pings::new(!seed),
            renewer: may_issue.then(|| Renewer::new(key.clone(), issuer.clone(), now)),
            renewal: Renewal::new(key, id, chain, seed, now),
            revocations: start.revocations,
            members: start.members,
            write_members: now,
            keep: start.keep,
        }
    }

    /// The network's key.
    #[must_use]
    pub fn id(&self) -> NetworkId {
        self.id
    }

    /// How many backbones are connected.
    #[must_use]
    pub fn servers(&self) -> usize {
        self.carriers.len()
    }

    /// When it wants to be woken.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let renewal = self.renewal.next_timeout();
        let ping = self.pings.next_timeout();
        Some(ping.map_or(renewal, |at| at.min(renewal)))
    }

    fn origin(&self, peer: &PeerId) -> OriginId {
        NodeAddresses::derive(&self.id, peer).origin
    }

    fn keep(&self, what: Keep) {
        // the slow side ends after this one
        let _ = self.keep.send(what);
    }

    /// Notes what a backbone says; who has come or gone by it, looking at all backbones.
    fn note_presence(&mut self, carrier: CarrierId, presence: Presence) -> Vec<(PeerId, bool)> {
        let changed = match presence {
            Presence::CarrierUp => {
                self.carriers.insert(carrier);
                Vec::new()
            }
            Presence::CarrierDown => {
                self.carriers.remove(&carrier);
                let all = self.present.remove(&carrier).unwrap_or_default();
                all.into_iter().collect()
            }
            Presence::Online(peer) => {
                let on = self.present.entry(carrier).or_default();
                if on.len() < MAX_PRESENT {
                    on.insert(peer);
                }
                vec![peer]
            }
            Presence::Offline(peer) => {
                if let Some(on) = self.present.get_mut(&carrier) {
                    on.remove(&peer);
                }
                vec![peer]
            }
        };
        let mut news = Vec::new();
        for peer in changed {
            let origin = self.origin(&peer);
            let online = self.present.values().any(|on| on.contains(&peer));
            let before = self.by_origin.get(&origin) == Some(&peer);
            if online {
                self.by_origin.insert(origin, peer);
            } else if before {
                self.by_origin.remove(&origin);
            }
            if online != before {
                news.push((peer, online));
            }
        }
        news
    }
}

impl PacketLoop {
    /// What lay in the state directory counts from the first link on.
    pub(super) fn start_network(&mut self, now: Instant) {
        let p = &mut self.parts;
        let known: Vec<_> = p.network.revocations.iter().cloned().collect();
        let keys = known.iter().map(|r| (r.key(), revoked(r)));
        p.overlay.set_revoked(keys.collect(), now);
        for revocation in known {
            let record = Bytes::copy_from_slice(revocation.as_bytes());
            if let Err(e) = p.engine.add_revocation(&record, now) {
                tracing::warn!("{revocation:?}: {e}");
            }
        }
        if self.is_expelled() {
            tell_expelled(&self.parts.member);
        }
        self.push_announcements(now);
    }

    /// A backbone tells who is there.
    pub(super) fn handle_presence(&mut self, carrier: CarrierId, presence: Presence, now: Instant) {
        let p = &mut self.parts;
        // first: the engine may want a link at once
        p.overlay.handle_presence(carrier, presence, now);
        for (peer, online) in p.network.note_presence(carrier, presence) {
            let origin = p.network.origin(&peer);
            p.engine.handle_presence(origin, online, now);
        }
    }

    /// Once a second: what links cost.
    pub(super) fn tell_round_trips(&mut self, now: Instant) {
        for peer in self.parts.overlay.peers() {
            let rtt = peer.rtt_ms.filter(|_| peer.state == PeerState::Connected);
            let rtt = rtt.and_then(|ms| Duration::try_from_secs_f64(ms / 1_000.0).ok());
            if let (Some(link), Some(rtt)) = (peer.link, rtt) {
                let link = librecast::id::LinkId(link.0);
                self.parts.engine.handle_link_rtt(link, rtt, now);
            }
        }
    }

    /// What the overlay says of other nodes.
    pub(super) fn handle_network_event(&mut self, event: Event, now: Instant) {
        match event {
            Event::Signal {
                to,
                bytes,
                over_links,
                over_backbone,
            } => {
                let origin = self.parts.network.origin(&to);
                // signalling repeats itself: what is lost costs time, not a link
                if over_links {
                    self.send_routed(origin, RoutedKind::Signal, bytes.clone(), now);
                }
                if over_backbone && self.parts.outbox.try_send((to, bytes)).is_err() {
                    self.count("signal_queue_full");
                }
            }
            // what expels this node comes to it by those who refuse it: the engine verifies it
            Event::Revocation { record } => {
                if let Err(e) = self.parts.engine.add_revocation(&record, now) {
                    tracing::debug!("revocation shown by a peer: {e}");
                    self.count("revocation_unproven");
                }
            }
            Event::DirectFailure { peer, failing } => {
                let origin = self.parts.network.origin(&peer);
                self.parts
                    .engine
                    .handle_direct_failure(origin, failing, now);
            }
            _ => {}
        }
    }

    /// What the engine says of other nodes.
    pub(super) fn handle_network_output(&mut self, output: Output, now: Instant) {
        match output {
            Output::Wanted(origins) => {
                let peers = origins.iter().filter_map(|origin| self.peer(*origin));
                let peers = peers.collect();
                self.parts.overlay.set_wanted(peers, now);
            }
            Output::Retire { link } => {
                let link = LinkId(link.0);
                let overlay = &mut self.parts.overlay;
                overlay.close_gracefully(link, "neither side wants it", now);
            }
            Output::Routed {
                via,
                from,
                kind,
                payload,
            } => {
                let via = via.map(|link| LinkId(link.0));
                self.handle_routed(via, from, kind, payload, now);
            }
            Output::Reachable { origin, up } => self.handle_reachable(origin, up, now),
            Output::Incarnation(incarnation) => {
                self.parts.network.keep(Keep::Incarnation(incarnation));
            }
            Output::Revoked { record, .. } => self.learn_revocation(&record, now),
            Output::Renewed { credential } => self.refresh(&credential.member, now),
            _ => {}
        }
    }

    /// Over the links of the network a node can be reached for signalling as well.
    fn handle_reachable(&mut self, origin: OriginId, up: bool, now: Instant) {
        let p = &mut self.parts;
        let presence = if up {
            let Some(member) = p.engine.member(origin) else {
                return;
            };
            if member.is_issuer() {
                p.network.renewal.handle_issuer_reachable(now);
            }
            p.network.members.note(member, unix_now());
            p.network.reachable.insert(origin, member.peer);
            Presence::Online(member.peer)
        } else {
            let Some(peer) = p.network.reachable.remove(&origin) else {
                return;
            };
            p.network.members.note_gone(&peer, unix_now());
            Presence::Offline(peer)
        };
        p.overlay.handle_presence(OVERLAY_CARRIER, presence, now);
    }

    /// The key of a node, from wherever it is known.
    fn peer(&self, origin: OriginId) -> Option<PeerId> {
        let p = &self.parts;
        let member = p.engine.member(origin).map(|member| member.peer);
        member.or_else(|| p.network.by_origin.get(&origin).copied())
    }

    fn handle_routed(
        &mut self,
        via: Option<LinkId>,
        from: OriginId,
        kind: RoutedKind,
        payload: Bytes,
        now: Instant,
    ) {
        match kind {
            // whom it is from shows when it is opened
            RoutedKind::Signal => {
                let overlay = &mut self.parts.overlay;
                overlay.handle_routed_signal(via, &payload, now);
            }
            RoutedKind::Echo => self.send_routed(from, RoutedKind::EchoReply, payload, now),
            RoutedKind::EchoReply => {
                let pings = &mut self.parts.network.pings;
                if let Some((asker, rtt)) = pings.answered(from, &payload, now) {
                    asker.tell(Some(rtt));
                }
            }
            RoutedKind::Renew => {
                let asker = self.parts.engine.member(from).map(|member| member.peer);
                match asker.and_then(|asker| self.parts.network.renew(&asker, &payload, now)) {
                    Some(answer) => self.send_routed(from, RoutedKind::Renewed, answer, now),
                    None => self.count("renewal_ignored"),
                }
            }
            RoutedKind::Renewed => self.handle_renewal(from, &payload, now),
            RoutedKind::Other(_) => self.count("routed_unknown"),
        }
    }

    fn send_routed(&mut self, to: OriginId, kind: RoutedKind, payload: Bytes, now: Instant) {
        if let Err(reason) = self.parts.engine.send_routed(to, kind, payload, now) {
            tracing::debug!("to {to}: {kind:?}: {reason:?}");
            self.count("routed_not_sent");
        }
    }

    /// What of the members has changed goes to disk.
    pub(super) fn write_members(&mut self, now: Instant) {
        let network = &mut self.parts.network;
        network.write_members = now + WRITE_MEMBERS;
        if let Some(text) = network.members.take_text() {
            network.keep(Keep::Members(text));
        }
    }

    /// `{"cmd": "members"}`
    pub(super) fn members(&self) -> Vec<KnownMember> {
        let p = &self.parts;
        let present: BTreeSet<PeerId> = p.network.reachable.values().copied().collect();
        let is_present = |peer: &PeerId| *peer == p.member.peer || present.contains(peer);
        p.network
            .members
            .rows(&p.network.id, is_present, unix_now())
    }

    /// Whether this node itself has been expelled.
    pub(super) fn is_expelled(&self) -> bool {
        self.parts.network.revocations.expel(&self.parts.member)
    }

    fn count(&mut self, reason: &'static str) {
        *self.drops.entry(reason).or_default() += 1;
    }

    pub(super) fn run_network_timers(&mut self, now: Instant) {
        if now >= self.parts.network.write_members {
            self.write_members(now);
        }
        for (_, asker) in self.parts.network.pings.expired(now) {
            asker.tell(None);
        }
        let p = &mut self.parts;
        let mut issuers = p.engine.issuers();
        if p.network.renewer.is_some() && !issuers.contains(&p.network.own) {
            // an issuer renews itself
            issuers.push(p.network.own);
        }
        let request = p.network.renewal.handle_timeout(&issuers, unix_now(), now);
        match request {
            None => {}
            Some((to, request)) if to == p.network.own => {
                let own = p.member.peer;
                if let Some(answer) = p.network.renew(&own, &request, now) {
                    self.handle_renewal(to, &answer, now);
                }
            }
            Some((to, request)) => self.send_routed(to, RoutedKind::Renew, request.into(), now),
        }
    }

    /// An issuer's answer: whoever checks our certificates from now on sees the new ones.
    fn handle_renewal(&mut self, from: OriginId, answer: &[u8], now: Instant) {
        let p = &mut self.parts;
        let renewal = &mut p.network.renewal;
        let Some((chain, member)) = renewal.handle_answer(from, answer, unix_now(), now) else {
            return;
        };
        tracing::info!("membership renewed until {}", units::utc(member.not_after));
        if member.name != p.member.name {
            tracing::warn!(
                "the network has a {} already: this node is called {}",
                p.member.name,
                member.name
            );
        }
        if let Err(e) = p.engine.set_own_chain(chain.encode().into(), now) {
            tracing::warn!("own certificate: {e}");
        }
        p.overlay.set_identity_chain(chain.clone(), now);
        p.network.members.note(&member, unix_now());
        p.member = member;
        p.network.keep(Keep::Chain(chain));
    }

    /// Another node has new certificates.
    fn refresh(&mut self, member: &Member, now: Instant) {
        for known in self.links.values_mut().filter(|m| m.peer == member.peer) {
            *known = member.clone();
        }
        self.parts.network.members.note(member, unix_now());
        self.parts.overlay.refresh_member(member.clone(), now);
    }

    /// A revocation, verified by the engine: the expelled lose their links, and it is not forgotten.
    fn learn_revocation(&mut self, record: &[u8], now: Instant) {
        let Ok(revocation) = Revocation::decode(record) else {
            return;
        };
        let p = &mut self.parts;
        p.overlay
            .revoke(revocation.key(), revoked(&revocation), now);
        p.network.members.expel(&revocation);
        if revocation.expels(&p.member) && !p.network.revocations.expel(&p.member) {
            tell_expelled(&p.member);
        }
        if p.network.revocations.add(revocation.clone(), unix_now()) {
            tracing::info!(
                target: events::TARGET,
                message_id = events::EXPELLED.id,
                lcroute_peer = %revocation.key(),
                "{} has been expelled from the network",
                revocation.key()
            );
            p.network.keep(Keep::Revocation(Box::new(revocation)));
        }
    }

    /// `{"cmd": "revoke"}`
    pub(super) fn revoke(&mut self, record: &str, now: Instant) -> Result<Value, String> {
        let p = &mut self.parts;
        let revocation = revocations::parse(record, &p.network.id)?;
        let key = revocation.key();
        let target = p.engine.member(p.network.origin(&key));
        if !revocation.is_by_network() && target.is_some_and(Member::is_issuer) {
            return Err(format!(
                "{key} is an issuer: only the network's key expels it"
            ));
        }
        let record = Bytes::copy_from_slice(revocation.as_bytes());
        let added = p.engine.add_revocation(&record, now);
        added.map_err(|e| e.to_string())?;
        Ok(json!({ "revoked": key }))
    }

    /// `{"cmd": "announce"}`
    pub(super) fn announce(&mut self, prefix: &str, now: Instant) -> Result<Value, String> {
        let parsed = prefix.parse().map_err(|e| format!("`{prefix}`: {e}"))?;
        let p = &mut self.parts;
        p.network.announcements.hold(parsed, &p.member.prefixes)?;
        self.push_announcements(now);
        Ok(json!({ "prefix": prefix }))
    }

    /// A program that announced this has gone.
    pub(super) fn withdraw(&mut self, prefix: GroupPrefix, now: Instant) {
        self.parts.network.announcements.release(prefix);
        self.push_announcements(now);
    }

    /// The configuration was read again.
    pub(super) fn reannounce(&mut self, configured: &[GroupPrefix], now: Instant) {
        self.parts.network.announcements.configure(configured);
        self.push_announcements(now);
    }

    fn push_announcements(&mut self, now: Instant) {
        let p = &mut self.parts;
        let refused = p.engine.set_announced(p.network.announcements.all(), now);
        for prefix in &refused {
            if !p.network.forbidden.contains(prefix) {
                tracing::warn!(
                    "[network] announce: this node's certificate does not permit {prefix}"
                );
            }
        }
        p.network.forbidden = refused;
    }

    /// `{"cmd": "ping"}`: answered when the echo is.
    pub(super) fn ping(
        &mut self,
        node: &str,
        timeout_ms: u64,
        to: oneshot::Sender<Answer>,
        now: Instant,
    ) {
        let routes = self.routes();
        let route = match find(&routes, node) {
            Ok(route) => route.clone(),
            Err(e) => return reply(to, Err(e.to_string())),
        };
        let origin = self.parts.network.origin(&route.peer_id);
        let timeout = Duration::from_millis(timeout_ms).min(MAX_PING);
        let asker = Asker { to, route };
        match self.parts.network.pings.send(origin, asker, timeout, now) {
            Ok(payload) => self.send_routed(origin, RoutedKind::Echo, payload, now),
            Err(asker) => reply(asker.to, Err("too many pings at a time".into())),
        }
    }
}

/// What the overlay shows to those whom it refuses for this.
fn revoked(revocation: &Revocation) -> Revoked {
    Revoked {
        by_network: revocation.is_by_network(),
        record: Bytes::copy_from_slice(revocation.as_bytes()),
    }
}

fn tell_expelled(own: &Member) {
    tracing::error!(
        target: events::TARGET,
        message_id = events::EXPELLED_HERE.id,
        lcroute_peer = %own.peer,
        "this node has been expelled from the network: nobody makes links with it any more; `lcroute leave`, then `lcroute join` with a new token"
    );
}

impl Network {
    /// As an issuer: the answer to a node that asks for a new certificate.
    fn renew(&mut self, asker: &PeerId, request: &[u8], now: Instant) -> Option<Bytes> {
        let known = Known {
            revocations: &self.revocations,
            members: &self.members,
        };
        let renewer = self.renewer.as_mut()?;
        let answer = renewer.answer(asker, request, &known, unix_now(), now);
        answer.map(Bytes::from)
    }
}
