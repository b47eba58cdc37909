//! The daemon's answers on the control socket.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use lcroute_control::status::{
    CarriedGroups, CarryRefusal, Contact, Counters, Door, Group, Lan, LanListener, LanSource,
    Leaves, Look, NotFound, Peer, Pong, PrivateStatus, Relay, Route, State, Status, Uplink, find,
    key_conflict,
};
use lcroute_control::{Answer, GivenSecret, MAX_PING, Request};
use lcroute_node::{CarryAnswer, ECHO_LEN, LanRole, LanSnapshot, LanStanding, PrivatePrefix};
use lcroute_overlay::{CarrierKind, LinkInfo, PeerState};
use lcroute_webrtc::relay::RelayStatus;
use librecast::cert::GroupPrefix;
use librecast::id::{LinkId, NodeAddresses, OriginId, PeerId};
use librecast::mapped;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{PacketLoop, take_text};
use crate::drops::reasons;
use crate::keeper::Kept;
use crate::metrics::Observation;

/// Time in which names of STUN servers are resolved.
const LOOKUP: Duration = Duration::from_secs(1);

/// Most groups of a look, with their links and sources. Chosen: as of other nodes' reports.
const MAX_LOOK_GROUPS: usize = 8_192;

/// Reasons for refusing a pasted record, by drop reason.
const TEXT_REFUSALS: [(&str, &str); 7] = [
    (
        "presence_not_opened",
        "it is of another network, or older than two days",
    ),
    (
        "presence_stale",
        "it is good no more, or a newer one of its node is known: ask for a new one",
    ),
    ("presence_forged", "its signature is forged"),
    (
        "presence_malformed",
        "it cannot be read: it may be of another version",
    ),
    (
        "presence_limited",
        "more came than are read: try again in a second",
    ),
    ("presence_full", "there is no room for more"),
    ("presence_names_full", "there is no room for more"),
];

fn relay(status: RelayStatus, only: bool) -> Relay {
    Relay {
        offered: status.offered,
        url: status.url,
        address: status.relayed,
        stream: status.stream,
        failure: status.failure,
        refuses_peers: status.refuses_peers,
        only,
    }
}

/// The receiver of a ping's answer.
#[derive(Debug)]
pub(super) struct Asker {
    to: oneshot::Sender<Answer>,
    route: Route,
}

impl Asker {
    pub(super) fn tell(self, rtt: Option<Duration>) {
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

impl PacketLoop {
    /// Answers at once; for a ping, when the echo arrives.
    pub(super) fn answer(&mut self, request: Request, to: oneshot::Sender<Answer>, now: Instant) {
        let value = match request {
            Request::Status => serde_json::to_value(self.status(now)),
            Request::Drops => {
                serde_json::to_value(reasons().into_iter().collect::<BTreeMap<_, _>>())
            }
            Request::Peers => serde_json::to_value(self.peers(now)),
            Request::Groups => serde_json::to_value(self.groups()),
            Request::Lan => serde_json::to_value(self.lan_list()),
            Request::LanHost { address, release } => {
                serde_json::to_value(self.lan_host(address, release, now))
            }
            Request::Routes => serde_json::to_value(self.routes()),
            Request::Members => serde_json::to_value(self.parts.node.members()),
            Request::Member { node } => return reply(to, self.member(&node)),
            Request::Ping { node, timeout_ms } => return self.ping(&node, timeout_ms, to, now),
            Request::Watch => return reply(to, self.look(now)),
            Request::Meet => return reply(to, Ok(self.meet(now))),
            Request::Probe => {
                self.inbound.forget();
                self.probe_inbound(now);
                Ok(serde_json::json!({}))
            }
            Request::Take { record } => return self.take_record(&record, to, now),
            Request::Announce { prefix } => return reply(to, self.announce(&prefix, now)),
            Request::Private { prefix, secrets } => {
                return reply(to, self.give_secrets(&prefix, secrets, now));
            }
            Request::Revoke {
                revocation,
                keeps_epoch,
            } => return reply(to, self.revoke(&revocation, keeps_epoch, now)),
            Request::Reload { .. }
            | Request::Code
            | Request::Invite { .. }
            | Request::Streams
            | Request::Sign { .. }
            | Request::Pair { .. }
            | Request::Open { .. }
            | Request::OpenItem { .. } => {
                return reply(to, Err("not a question".into()));
            }
        };
        reply(to, value.map_err(|e| e.to_string()));
    }

    /// `{"cmd": "member"}`
    fn member(&self, node: &str) -> Result<Value, String> {
        let found = self.parts.node.find_members(node);
        let [(member, streams)] = found.as_slice() else {
            let ids = found.iter().map(|(m, _)| m.peer_id.to_string());
            let ids: Vec<_> = ids.collect();
            return Err(match ids.as_slice() {
                [] => NotFound::Nobody(node.to_owned()).to_string(),
                _ => NotFound::Several(node.to_owned(), ids.join(", ")).to_string(),
            });
        };
        let contact = Contact {
            peer_id: member.peer_id,
            name: member.name.clone(),
            address: member.address,
            labels: member.labels.clone(),
            present: member.present,
            not_after: member.not_after,
            streams: *streams,
        };
        serde_json::to_value(contact).map_err(|e| e.to_string())
    }

    /// `{"cmd": "announce"}`
    fn announce(&mut self, prefix: &str, now: Instant) -> Result<Value, String> {
        let parsed: GroupPrefix = prefix.parse().map_err(|e| format!("`{prefix}`: {e}"))?;
        let announced = self.parts.node.announce(parsed, now);
        announced.map_err(|e| e.to_string())?;
        Ok(json!({ "prefix": prefix }))
    }

    /// `{"cmd": "private"}`
    fn give_secrets(
        &mut self,
        prefix: &str,
        secrets: Vec<GivenSecret>,
        now: Instant,
    ) -> Result<Value, String> {
        let parsed: GroupPrefix = prefix.parse().map_err(|e| format!("`{prefix}`: {e}"))?;
        let secrets = secrets.into_iter().map(|GivenSecret(secret)| secret);
        let given = self.parts.node.give_secrets(parsed, secrets.collect(), now);
        given.map_err(|e| e.to_string())?;
        Ok(json!({ "prefix": prefix }))
    }

    /// `{"cmd": "meet"}`: no record while the network comes up; complete once settled.
    fn meet(&mut self, now: Instant) -> Value {
        let node = &mut self.parts.node;
        let names_are_looked_up = now < self.started + LOOKUP;
        let settled = !names_are_looked_up && !node.connections_mut().awaits_addresses(now);
        let record = node.record(now);
        let sealed = record
            .as_ref()
            .map(|r| bs58::encode(&r.sealed).into_string());
        let hidden = node.hides_addresses();
        json!({
            "record": sealed, "until": record.map(|r| r.until), "settled": settled, "hidden": hidden,
        })
    }

    /// `{"cmd": "take"}`: answered once the record is on disk.
    fn take_record(&mut self, record: &str, to: oneshot::Sender<Answer>, now: Instant) {
        let Ok(sealed) = bs58::decode(record).into_vec() else {
            return reply(to, Err("not in base58".into()));
        };
        let own = self.parts.node.member().peer;
        let before = self.parts.node.drops();
        let Some((peer, until)) = take_text(&mut self.parts.node, &sealed, now) else {
            let drops = self.parts.node.drops();
            let grown = |reason: &&str| drops.get(*reason) > before.get(*reason);
            let why = TEXT_REFUSALS.iter().find(|(reason, _)| grown(reason));
            let why = why.map_or(
                "it is this node's own, or an expelled node's",
                |(_, why)| why,
            );
            return reply(to, Err(why.into()));
        };
        debug_assert!(peer != own);
        let name = self.parts.node.members().into_iter();
        let name = name
            .filter(|member| member.peer_id == peer)
            .map(|member| member.name)
            .next();
        let taken = json!({ "peer_id": peer, "name": name, "until": until });
        // the control thread ends after this one
        drop(
            self.parts
                .keep
                .send(Kept::Text(sealed, to, Answer::Ok(taken))),
        );
    }

    /// `{"cmd": "revoke"}`
    fn revoke(
        &mut self,
        revocation: &str,
        keeps_epoch: bool,
        now: Instant,
    ) -> Result<Value, String> {
        let node = &mut self.parts.node;
        let revoked = node.revoke(revocation, now).map_err(|e| e.to_string())?;
        let key = revoked.key();
        let epoch = !keeps_epoch && node.make_epoch(revoked);
        Ok(json!({ "revoked": key, "epoch": epoch }))
    }

    /// `{"cmd": "ping"}`: answered when the echo arrives.
    fn ping(&mut self, node: &str, timeout_ms: u64, to: oneshot::Sender<Answer>, now: Instant) {
        let routes = self.routes();
        let route = match find(&routes, node) {
            Ok(route) => route.clone(),
            Err(e) => return reply(to, Err(e.to_string())),
        };
        let timeout = Duration::from_millis(timeout_ms).min(MAX_PING);
        match self.parts.node.ping(&route.peer_id, timeout, now) {
            Ok(ping) => drop(self.askers.insert(ping, Asker { to, route })),
            Err(e) => reply(to, Err(e.to_string())),
        }
    }

    fn routes(&self) -> Vec<Route> {
        let engine = self.parts.node.engine();
        let peer = |origin| Some(engine.member(origin)?.peer);
        let route = |r: lcroute_engine::RouteSnapshot| Route {
            via: peer(r.via).unwrap_or(r.member.peer),
            peer_id: r.member.peer,
            name: r.member.name,
            address: r.member.addresses.address,
            ipv4: r.ipv4,
            hops: r.hops,
            cost: r.cost,
            links: r.links,
        };
        let mut routes: Vec<Route> = engine.routes().into_iter().map(route).collect();
        routes.sort_by(|a, b| (a.hops, &a.name).cmp(&(b.hops, &b.name)));
        routes
    }

    fn counters(&self) -> Counters {
        let p = &self.parts;
        let engine = p.node.engine().counters();
        let links = p.node.counters();
        let own = [&self.drops, p.device.drops()].into_iter();
        let own = own.chain(p.links.drops()).flat_map(|drops| drops.by_name());
        let mut drops = BTreeMap::new();
        for (reason, n) in p.node.drops().into_iter().chain(own) {
            *drops.entry(reason.to_owned()).or_default() += n;
        }
        Counters {
            tun_rx_packets: engine.tun_rx_packets,
            tun_rx_bytes: engine.tun_rx_bytes,
            tun_tx_packets: engine.tun_tx_packets,
            tun_tx_bytes: engine.tun_tx_bytes,
            link_rx_packets: engine.link_rx_packets,
            link_rx_bytes: engine.link_rx_bytes,
            link_tx_packets: links.link_tx_packets,
            link_tx_bytes: links.link_tx_bytes,
            drops,
        }
    }

    /// Sends a status line to the service manager.
    pub(super) fn tell_manager(&mut self) {
        let count = self.parts.node.links().len();
        let peers = match count {
            _ if self.parts.node.is_expelled() => "expelled from the network".to_owned(),
            0 => "connecting".to_owned(),
            1 => "connected, 1 peer".to_owned(),
            _ => format!("connected, {count} peers"),
        };
        let p = &self.parts;
        let line = format!("{} on {}: {peers}", p.node.member().name, p.settings.name);
        self.service.status(line);
    }

    fn status(&self, now: Instant) -> Status {
        let p = &self.parts;
        Status {
            peer_id: p.node.member().peer,
            name: p.node.member().name.clone(),
            labels: p.node.member().labels.clone(),
            token_uses: p.node.member().bound.map(|bound| bound.uses),
            address: p.node.member().addresses.address,
            network: p.node.network(),
            epoch: p.node.epoch(),
            // while other routes overlap, lc0 lacks this address
            ipv4: p
                .node
                .engine()
                .ipv4_address()
                .filter(|_| !p.device.ipv4_overlaps()),
            tun: p.settings.name.clone(),
            inbound: self.inbound.verdict(),
            state: match self.end {
                Some(_) => State::Stopping,
                None if self.parts.node.is_expelled() => State::Expelled,
                None if self.parts.node.links().is_empty() => State::Connecting,
                None => State::Connected,
            },
            key_conflict: p.node.key_conflict(now).cloned(),
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            uptime_s: now.duration_since(self.started).as_secs(),
            private: self.private(),
            signal_servers: p.node.servers(),
            doors: self.doors(),
            relay: relay(
                p.node.connections().relay_status(),
                p.node.hides_addresses(),
            ),
            mapping: self.mapping.clone(),
            peers: self.parts.node.links().len(),
            leaves: Leaves {
                linked: p.node.leaves(),
                max: p.max_leaves,
            },
            uplink: self.uplink(),
            topology: p.policy,
            groups: p.node.engine().group_count(),
            counters: self.counters(),
        }
    }

    /// `{"cmd": "watch"}`
    fn look(&mut self, now: Instant) -> Result<Value, String> {
        let mut network = self.parts.node.look(now);
        let (groups, left_out) = fit(self.groups());
        network.left_out += left_out;
        let look = Look {
            network,
            status: self.status(now),
            peers: self.peers(now),
            groups,
            lans: self.lan_list(),
        };
        serde_json::to_value(look).map_err(|e| e.to_string())
    }

    /// Where other nodes find this one; a server counts while it is connected.
    fn doors(&self) -> Vec<Door> {
        let node = &self.parts.node;
        let doors = self.doors.iter().map(|door| Door {
            kind: lower(&door.kind),
            at: door.at.clone(),
            open: match door.kind {
                CarrierKind::Server => node.is_connected(door.carrier),
                _ => door.open,
            },
            note: door.note.clone(),
        });
        doors.collect()
    }

    /// The values from which metrics are made.
    pub(super) fn observe(&self, now: Instant) -> Observation {
        let p = &self.parts;
        let groups = p.node.engine().snapshot().groups;
        Observation {
            status: self.status(now),
            peers: self.peers(now),
            groups_local: groups.iter().filter(|g| g.local).count(),
            groups_remote: groups.iter().filter(|g| !g.links.is_empty()).count(),
            nodes: p.node.engine().routes().len(),
            not_after: p.node.member().not_after,
            lans: self.lan_list(),
        }
    }

    /// Peers without expelled ones.
    fn peers(&self, now: Instant) -> Vec<Peer> {
        let is_out = |peer: &PeerId| self.parts.node.overlay().is_expelled(peer);
        self.parts
            .node
            .overlay()
            .peers()
            .into_iter()
            .filter(|p| !is_out(&p.peer_id))
            .map(|p| Peer {
                peer_id: p.peer_id,
                name: p.name,
                address: NodeAddresses::derive(&self.parts.node.network(), &p.peer_id).address,
                leaf: p.leaf,
                state: lower(&p.state),
                link: p.link,
                tx_bytes: p.traffic.tx_bytes,
                rx_bytes: p.traffic.rx_bytes,
                carrier: p.carrier.as_ref().map(lower),
                since_s: p.since_s,
                reason: p.reason.map(str::to_owned),
            })
            .chain(self.key_conflict(now))
            .collect()
    }

    /// Another host with this node's key, as a peer that gets no link.
    fn key_conflict(&self, now: Instant) -> Option<Peer> {
        let conflict = self.parts.node.key_conflict(now)?;
        let member = self.parts.node.member();
        Some(Peer {
            peer_id: member.peer,
            name: Some(member.name.clone()),
            address: member.addresses.address,
            leaf: false,
            state: lower(&PeerState::Refused),
            link: LinkInfo::default(),
            tx_bytes: 0,
            rx_bytes: 0,
            carrier: None,
            since_s: 0,
            reason: Some(key_conflict(conflict)),
        })
    }

    fn lan_list(&self) -> Vec<Lan> {
        let off = self.lans.complaints().map(|(interface, complaint)| Lan {
            interface: interface.to_owned(),
            role: LanRole::Off.name().into(),
            problem: Some(complaint.problem.clone()),
            remedy: Some(complaint.remedy.clone()),
            ..Lan::default()
        });
        let clear: Vec<String> = self
            .private()
            .into_iter()
            .filter_map(|p| p.lans.then_some(p.prefix))
            .collect();
        let served = self.parts.node.engine().lans().into_iter();
        let served = served.map(|mut served| Lan {
            in_clear: clear.clone(),
            segment: served
                .segment
                .take()
                .map(|segment| self.lan_segment(&served.standing.interface, segment)),
            ..lan(served)
        });
        let mut all: Vec<_> = off.chain(served).collect();
        all.sort_unstable_by(|a, b| a.interface.cmp(&b.interface));
        all
    }

    fn private(&self) -> Vec<PrivateStatus> {
        let prefixes = self.parts.node.engine().private().iter();
        let status = |p: &PrivatePrefix| PrivateStatus {
            prefix: p.prefix.to_string(),
            has_key: !p.secrets.is_empty(),
            // hosts have a segment always
            lans: p.lans && !p.is_of_segment(),
        };
        prefixes.map(status).collect()
    }

    /// A router's name, or the beginning of its PeerId.
    fn router_name(&self, origin: OriginId) -> String {
        let member = self.parts.node.engine().member(origin);
        member.map_or_else(|| origin.to_string(), |member| member.name.clone())
    }

    fn uplink(&self) -> Uplink {
        let carry = self.parts.node.engine().carry();
        let mut carried: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for part in &carry.carried {
            let of_carrier = carried.entry(part.carrier).or_default();
            of_carrier.push(part.prefix.to_string());
        }
        let groups = |(origin, prefixes)| CarriedGroups {
            name: self.router_name(origin),
            prefixes,
        };
        let why = |answer: Option<CarryAnswer>| {
            answer.map_or("does not announce what it was asked for", CarryAnswer::text)
        };
        let refusals = carry.refusals.iter().map(|(origin, answer)| CarryRefusal {
            name: self.router_name(*origin),
            why: why(*answer).to_owned(),
        });
        let carries = carry.carries.iter().map(|carried| {
            let prefixes = carried.parts.iter().map(ToString::to_string);
            groups((carried.sender, prefixes.collect()))
        });
        let mut refusals: Vec<_> = refusals.collect();
        refusals.sort_by(|a, b| a.name.cmp(&b.name));
        Uplink {
            upload: carry.upload,
            sent: carry.sent,
            copies: carry.copies,
            short: carry.is_short,
            waiting: carry.waiting,
            refusals,
            carries: carries.collect(),
            carried: carried.into_iter().map(groups).collect(),
        }
    }

    fn groups(&self) -> Vec<Group> {
        let carried = self.parts.node.engine().carry().carried;
        let carrier = |group| {
            let part = carried.iter().find(|part| part.prefix.contains(group));
            part.map(|part| self.router_name(part.carrier))
        };
        let peer = |link: &LinkId| Some(self.parts.node.links().get(link)?.peer);
        self.parts
            .node
            .engine()
            .snapshot()
            .groups
            .into_iter()
            .map(|g| Group {
                group: mapped::shown(g.group),
                local: g.local,
                links: g.links.iter().filter_map(peer).collect(),
                leaves: g.leaves,
                sources: g.sources.into_iter().map(mapped::shown).collect(),
                packets: g.packets,
                bytes: g.bytes,
                private: g.private,
                refused: g
                    .refused
                    .first()
                    .map(|(_, reason)| reason.name().to_owned()),
                carried_by: carrier(g.group),
            })
            .collect()
    }
}

/// Returns as many groups as a look may have, by name, and the number left out. Locally joined
/// groups stay first, then the busiest: a neighbour may join thousands.
fn fit(mut groups: Vec<Group>) -> (Vec<Group>, usize) {
    let all = groups.len();
    groups.sort_by_key(|g| std::cmp::Reverse((g.local, g.packets)));
    let mut room = MAX_LOOK_GROUPS;
    let fits = groups.iter().take_while(|group| {
        let left = room.checked_sub(1 + group.links.len() + group.sources.len());
        room = left.unwrap_or(0);
        left.is_some()
    });
    let fits = fits.count();
    groups.truncate(fits);
    groups.sort_by_key(|g| g.group);
    (groups, all - fits)
}

/// Sends an answer; the asker may have closed its connection.
pub(super) fn reply(to: oneshot::Sender<Answer>, answer: Result<serde_json::Value, String>) {
    let _ = to.send(answer.map_or_else(Answer::Error, Answer::Ok));
}

fn lower(state: &impl std::fmt::Debug) -> String {
    format!("{state:?}").to_lowercase()
}

/// Snooping switches send joins to the port of the querier; few find other routers by themselves
/// (RFC 4541 §2.1.1, RFC 4286).
fn foreign_querier(address: std::net::Ipv4Addr) -> String {
    format!(
        "IPv4 queries come from {address}: a switch may keep joins from this port. Make it a multicast router port of the switch, or \
         this host the querier (the lowest IPv4 address)"
    )
}

fn lan(lan: LanSnapshot) -> Lan {
    let LanStanding {
        interface,
        role,
        problem,
    } = lan.standing;
    let is_forwarder = role == LanRole::Forwarder;
    let who = |is_own: bool, other: Option<String>| match is_own {
        true => Some("self".into()),
        false => other,
    };
    let (querier, forwarder) = (lan.querier.map(|q| q.to_string()), lan.forwarder);
    let ipv4 = lan.ipv4_querier;
    let note = ipv4.filter(|_| is_forwarder).map(foreign_querier);
    Lan {
        interface,
        role: role.name().into(),
        remedy: problem.as_ref().map(|problem| problem.remedy().into()),
        problem: problem.map(|problem| problem.to_string()),
        querier: who(is_forwarder && querier.is_none(), querier),
        querier_ipv4: who(
            is_forwarder && lan.has_ipv4 && ipv4.is_none(),
            ipv4.map(|q| q.to_string()),
        ),
        note,
        forwarder: who(is_forwarder, forwarder.map(|peer| peer.to_string())),
        prefixes: lan.prefixes,
        groups: lan.groups,
        listeners: lan
            .listeners
            .into_iter()
            .map(|(group, hosts)| LanListener {
                group: mapped::shown(group),
                hosts,
            })
            .collect(),
        sources: lan
            .sources
            .into_iter()
            .map(|source| LanSource {
                address: mapped::shown(source.address),
                mac: source.mac.to_string(),
                packets: source.packets,
                bytes: source.bytes,
            })
            .collect(),
        in_clear: Vec::new(),
        segment: None,
        counters: lan
            .counters
            .into_iter()
            .map(|(name, n)| (name.to_owned(), n))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_has_the_groups_that_matter() {
        let peer = librecast::id::SecretKey::from_seed(&[1; 32]).peer_id();
        let group = |n: u16| Group {
            group: std::net::Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, n).into(),
            local: n == 9_000,
            links: vec![peer; 7],
            leaves: 0,
            sources: Vec::new(),
            packets: u64::from(n == 8_000),
            bytes: 0,
            private: None,
            refused: None,
            carried_by: None,
        };
        let (few, left_out) = fit((0..3).map(group).collect());
        assert_eq!((few.len(), left_out), (3, 0));
        let (shown, left_out) = fit((0..10_000).map(group).collect());
        assert_eq!(
            (shown.len(), left_out),
            (MAX_LOOK_GROUPS / 8, 10_000 - MAX_LOOK_GROUPS / 8)
        );
        assert!(shown.iter().any(|g| g.local) && shown.iter().any(|g| g.packets > 0));
        assert!(shown.is_sorted_by_key(|g| g.group));
    }
}
