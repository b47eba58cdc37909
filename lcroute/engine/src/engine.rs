//! The engine: inputs to state machines to outputs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use librecast::id::OriginId;
use librecast::mld::{self, Message};

use crate::classify::{CarriedScopes, Class, Flow, is_source_specific, trim};
use crate::config::{Config, LinkId, Neighbor, NodeSources};
use crate::control::{self, Element, Interest};
use crate::drops::{DropReason, Drops};
use crate::duplicate::Duplicates;
use crate::flush::wanted_from;
use crate::forward::Forwarding;
use crate::header::{DataHeader, HEADER_LEN, HOP_LIMIT, MAX_SEQUENCE};
use crate::hold::HeldFlows;
use crate::interest::{Heard, Told};
use crate::output::{Links, Output, TimerKind};
use crate::proxy::{Proxy, ROUTER_ADDRESS};
use crate::querier::Querier;
use crate::random::Random;
use crate::snapshot::Counters;

/// A program has reported while `lc0` had no link-local address: the next query comes after this time.
const UNSPECIFIED_SOURCE_GAP: Duration = Duration::from_secs(5);

/// A neighbour, and what was said in both directions.
#[derive(Debug)]
pub(crate) struct Adjacency {
    pub(crate) neighbor: Neighbor,
    pub(crate) sources: NodeSources,
    pub(crate) incarnation: Option<u32>,
    pub(crate) heard: Heard,
    pub(crate) told: Told,
    /// It broke the protocol; nothing more is taken from it until the link is gone.
    faulty: bool,
}

/// The router of one node.
#[derive(Debug)]
pub struct Engine {
    pub(crate) config: Config,
    pub(crate) sources: NodeSources,
    pub(crate) scopes: CarriedScopes,
    pub(crate) querier: Querier,
    pub(crate) proxy: Proxy,
    pub(crate) forwarding: Forwarding,
    pub(crate) held: HeldFlows,
    pub(crate) duplicates: Duplicates,
    pub(crate) adjacencies: BTreeMap<LinkId, Adjacency>,
    /// Groups whose remote interest changed since the last flush.
    pub(crate) interest_changed: BTreeSet<Ipv6Addr>,
    pub(crate) drops: Drops,
    pub(crate) counters: Counters,
    pub(crate) now: Instant,
    pub(crate) outputs: VecDeque<Output>,
    /// There may be something to flush.
    pub(crate) unflushed: bool,
    started: bool,
    sequence: u64,
    random: Random,
}

impl Engine {
    /// A router without links; nothing is written into `lc0` before [`Self::handle_start`].
    #[must_use]
    pub fn new(config: Config, now: Instant) -> Self {
        let (limits, seed) = (&config.limits, config.seed);
        Self {
            sources: NodeSources::of_node(&config.own),
            scopes: CarriedScopes::new(&config.link_scope_groups),
            querier: Querier::new(limits.groups, limits.reporters, seed),
            proxy: Proxy::new(seed),
            forwarding: Forwarding::new(seed),
            held: HeldFlows::new(limits, seed),
            duplicates: Duplicates::new(limits.duplicate_window, seed),
            adjacencies: BTreeMap::new(),
            interest_changed: BTreeSet::new(),
            drops: Drops::default(),
            counters: Counters::default(),
            now,
            outputs: VecDeque::new(),
            unflushed: false,
            started: false,
            sequence: 0,
            random: Random::new(!seed),
            config,
        }
    }

    /// `lc0` is up, for the first time or again: a general query asks what is joined, and what the
    /// network wants is reported.
    pub fn handle_start(&mut self, now: Instant) {
        self.turn(now);
        self.started = true;
        self.querier.start(now);
        self.proxy.start();
    }

    /// A link is up and its neighbour authenticated: everything is exchanged.
    pub fn handle_link_up(&mut self, link: LinkId, neighbor: Neighbor, now: Instant) {
        self.turn(now);
        self.remove_link(link);
        let adjacency = Adjacency {
            sources: NodeSources::of_neighbor(&neighbor),
            neighbor,
            incarnation: None,
            heard: Heard::default(),
            told: Told::default(),
            faulty: false,
        };
        self.adjacencies.insert(link, adjacency);
    }

    /// A link is gone, and with it all that its neighbour wanted.
    pub fn handle_link_down(&mut self, link: LinkId, now: Instant) {
        self.turn(now);
        self.remove_link(link);
    }

    /// The configuration changed: other groups of scope 2 are carried from now on.
    pub fn set_link_scope_groups(&mut self, groups: &[Ipv6Addr], now: Instant) {
        self.turn(now);
        self.scopes = CarriedScopes::new(groups);
        self.querier.retain(|group| self.scopes.contains(group));
        self.interest_changed
            .extend(self.forwarding.groups(self.config.own.origin));
        self.querier.query_again(Duration::ZERO, now);
    }

    /// An IPv6 packet read from `lc0`, without packet information or Ethernet header. What goes out is a
    /// part of it, not a copy.
    pub fn handle_local_packet(&mut self, mut packet: Bytes, now: Instant) {
        self.now = now;
        self.counters.tun_rx_packets += 1;
        self.counters.tun_rx_bytes += packet.len() as u64;
        let result = match self.scopes.classify(&packet) {
            Class::Carried(flow) => {
                trim(&mut packet);
                self.send(flow, packet)
            }
            Class::Mld => self.handle_mld(&packet),
            Class::Dropped(reason) => Err(reason),
        };
        self.count(result);
    }

    /// One message of a data channel: data header and packet. What is written is a part of it, not a copy.
    pub fn handle_data(&mut self, link: LinkId, message: Bytes, now: Instant) {
        self.now = now;
        self.counters.link_rx_packets += 1;
        self.counters.link_rx_bytes += message.len() as u64;
        let result = self.receive(link, message);
        self.count(result);
    }

    /// One message of a control channel, after authentication.
    pub fn handle_control(&mut self, link: LinkId, message: &[u8], now: Instant) {
        self.turn(now);
        self.counters.control_rx_messages += 1;
        let Some(adjacency) = self.adjacencies.get(&link) else {
            self.drops.count(DropReason::UnknownLink);
            return;
        };
        if adjacency.faulty {
            self.drops.count(DropReason::BadControl);
            return;
        }
        let result = control::decode(message)
            .map_err(|_| "control message cannot be read")
            .and_then(|elements| self.handle_elements(link, elements));
        if let Err(reason) = result {
            self.fault(link, reason);
        }
    }

    /// `lc0` dropped packets towards us; joins may have been among them: a general query asks.
    pub fn handle_tx_queue_overflow(&mut self, now: Instant) {
        self.turn(now);
        self.querier.query_again(Duration::ZERO, now);
    }

    /// To be called when the time of [`Self::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.turn(now);
        self.querier.handle_timeout(now);
        self.drops
            .add(DropReason::NoListener, self.held.handle_timeout(now));
        for adjacency in self.adjacencies.values_mut() {
            adjacency.told.handle_timeout(now);
        }
        // the proxy's timers are looked at by the flush that follows
    }

    /// When to call [`Self::handle_timeout`], and why.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, TimerKind)> {
        let retry = self
            .adjacencies
            .values()
            .filter_map(|a| a.told.next_timeout())
            .min();
        let retry = retry.map(|at| (at, TimerKind::InterestRetry));
        [
            self.querier.next_timeout(),
            self.proxy.next_timeout(),
            self.held.next_timeout(),
            retry,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The next thing to do. To be called until `None` after a batch of inputs: all changes of one
    /// batch leave in one control message per link.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.unflushed {
            self.unflushed = false;
            self.flush();
        }
        self.outputs.pop_front()
    }

    /// An input that is more than a packet: what it changes goes out with the next flush.
    fn turn(&mut self, now: Instant) {
        self.now = now;
        self.unflushed = true;
    }

    fn count(&mut self, result: Result<(), DropReason>) {
        if let Err(reason) = result {
            self.drops.count(reason);
        }
    }

    fn remove_link(&mut self, link: LinkId) {
        let Some(adjacency) = self.adjacencies.remove(&link) else {
            return;
        };
        for (root, group) in adjacency.heard.wanted() {
            self.forwarding.set((root, group), link, None);
            if root == self.config.own.origin {
                self.interest_changed.insert(group);
            }
        }
        let origin = adjacency.neighbor.origin;
        let others = self
            .adjacencies
            .values()
            .filter(|a| a.neighbor.origin == origin);
        match others.clone().filter_map(|a| a.incarnation).max() {
            Some(incarnation) => self.duplicates.confirm(origin, incarnation),
            None if others.clone().next().is_none() => self.duplicates.forget(origin),
            None => {}
        }
    }

    /// The neighbour broke the protocol: the shell closes the link.
    fn fault(&mut self, link: LinkId, reason: &'static str) {
        self.drops.count(DropReason::BadControl);
        if let Some(adjacency) = self.adjacencies.get_mut(&link) {
            adjacency.faulty = true;
            tracing::warn!(%link, origin = %adjacency.neighbor.origin, reason, "link fault");
            self.outputs.push_back(Output::LinkFault { link, reason });
        }
    }
}

/// Packets from local programs.
impl Engine {
    fn send(&mut self, flow: Flow, packet: Bytes) -> Result<(), DropReason> {
        if !self.sources.allows(flow.source, flow.group) {
            return Err(DropReason::ForeignSource);
        }
        if !self.config.may_send.iter().any(|p| p.contains(flow.group)) {
            return Err(DropReason::NotPermitted);
        }
        let key = (self.config.own.origin, flow.group);
        let Some((links, traffic)) = self.forwarding.outgoing(key, flow.source) else {
            let waits = self.held.offer(flow, &packet, self.now);
            return if waits {
                Ok(())
            } else {
                Err(DropReason::NoListener)
            };
        };
        traffic.count(flow.source, packet.len(), self.now);
        self.emit_data(links, packet);
        Ok(())
    }

    fn emit_data(&mut self, links: Links, packet: Bytes) {
        // 48 bits last for eighty years at 100,000 packets a second
        self.sequence = (self.sequence + 1) & MAX_SEQUENCE;
        let own = self.config.own.origin;
        let header = DataHeader {
            flags: 0,
            hop_limit: HOP_LIMIT,
            root: own,
            origin: own,
            incarnation: self.config.incarnation,
            sequence: self.sequence,
            key_epoch: 0,
        };
        self.counters.link_tx_packets += links.len() as u64;
        self.counters.link_tx_bytes += (links.len() * (HEADER_LEN + packet.len())) as u64;
        self.outputs.push_back(Output::Data {
            links,
            header: header.encode(),
            packet,
        });
    }

    /// Somebody wants `group` now: packets that waited go out.
    fn release(&mut self, group: Ipv6Addr) {
        for source in self.sources.present(group) {
            let key = (self.config.own.origin, group);
            let Some((links, _)) = self.forwarding.outgoing(key, source) else {
                continue;
            };
            for packet in self.held.release(Flow { source, group }) {
                if let Some((_, traffic)) = self.forwarding.outgoing(key, source) {
                    traffic.count(source, packet.len(), self.now);
                }
                self.emit_data(links.clone(), packet);
            }
        }
    }

    fn handle_mld(&mut self, packet: &[u8]) -> Result<(), DropReason> {
        self.unflushed = true;
        let now = self.now;
        let (source, message) = mld::parse_packet(packet).map_err(|_| DropReason::BadMld)?;
        if source.is_unspecified() {
            // RFC 9777 §5.2.13: ignored; whoever joined is asked again
            self.querier.query_again(UNSPECIFIED_SOURCE_GAP, now);
            return Err(DropReason::MldUnspecifiedSource);
        }
        if source == ROUTER_ADDRESS {
            // our own, come back from a bridge
            return Err(DropReason::BadMld);
        }
        match message {
            Message::Query(query) => self.proxy.handle_query(&query, now),
            Message::Report(records) => {
                for record in records.iter().filter(|r| self.scopes.contains(r.group)) {
                    let result = self.querier.handle_record(source, record, now);
                    if let Err(reason) = result {
                        self.drops.count(reason);
                    }
                }
            }
            Message::ReportV1 { group } if self.understands_v1(group) => {
                self.querier.handle_v1_report(source, group, now)?;
            }
            Message::DoneV1 { group } if self.understands_v1(group) => {
                self.querier.handle_v1_done(source, group, now);
            }
            Message::ReportV1 { .. } | Message::DoneV1 { .. } => {}
        }
        Ok(())
    }

    /// Version 1 knows no sources, so it says nothing about source-specific groups (RFC 4604 §2.2.2).
    fn understands_v1(&self, group: Ipv6Addr) -> bool {
        self.scopes.contains(group) && !is_source_specific(group)
    }
}

/// Packets and messages from neighbours.
impl Engine {
    fn receive(&mut self, link: LinkId, mut message: Bytes) -> Result<(), DropReason> {
        let adjacency = self.adjacencies.get(&link).filter(|a| !a.faulty);
        let adjacency = adjacency.ok_or(DropReason::UnknownLink)?;
        let (header, packet) = DataHeader::decode(&message).map_err(|_| DropReason::BadHeader)?;
        if header.hop_limit == 0 {
            return Err(DropReason::HopLimit);
        }
        // in a full mesh the only tree edge behind which an origin lies is the link to it
        let origin = adjacency.neighbor.origin;
        if header.origin != origin || header.root != origin {
            return Err(DropReason::ReversePath);
        }
        let flow = match self.scopes.classify(packet) {
            Class::Carried(flow) => flow,
            Class::Mld => return Err(DropReason::LinkControl),
            Class::Dropped(reason) => return Err(reason),
        };
        if !adjacency.sources.allows(flow.source, flow.group) {
            return Err(DropReason::ForgedSource);
        }
        if !adjacency
            .neighbor
            .may_send
            .iter()
            .any(|p| p.contains(flow.group))
        {
            return Err(DropReason::NotPermitted);
        }
        self.duplicates
            .accept(origin, header.incarnation, header.sequence)?;
        let wanted = self.querier.wanted(flow.group, flow.source);
        let traffic = wanted.ok_or(DropReason::NotJoined)?;
        message.advance(HEADER_LEN);
        trim(&mut message);
        traffic.count(flow.source, message.len(), self.now);
        self.count_local(message.len());
        self.outputs.push_back(Output::Local { packet: message });
        Ok(())
    }

    fn handle_elements(
        &mut self,
        link: LinkId,
        elements: Vec<Element>,
    ) -> Result<(), &'static str> {
        for element in elements {
            let Some(adjacency) = self.adjacencies.get_mut(&link) else {
                return Ok(());
            };
            match (element, adjacency.incarnation) {
                (Element::Hello { incarnation }, None) => {
                    adjacency.incarnation = Some(incarnation);
                    let origin = adjacency.neighbor.origin;
                    self.confirm_incarnation(origin);
                }
                (Element::Hello { .. }, Some(_)) => return Err("second HELLO"),
                (_, None) => return Err("control before HELLO"),
                (Element::Interest(interest), _) => self.handle_interest(link, interest),
                (
                    Element::Refusal {
                        reason,
                        root,
                        prefix,
                    },
                    _,
                ) => {
                    let key = prefix.as_group().map(|group| (root, group));
                    if let Some(key) = key.filter(|k| self.wants(link, *k)) {
                        self.note_refusal(link, key, reason);
                    }
                }
            }
        }
        Ok(())
    }

    /// Two links to one origin: the newer run of its daemon counts.
    fn confirm_incarnation(&mut self, origin: OriginId) {
        let of_origin = self
            .adjacencies
            .values()
            .filter(|a| a.neighbor.origin == origin);
        if let Some(newest) = of_origin.filter_map(|a| a.incarnation).max() {
            self.duplicates.confirm(origin, newest);
        }
    }

    fn handle_interest(&mut self, link: LinkId, interest: Interest) {
        let Some(adjacency) = self.adjacencies.get_mut(&link) else {
            return;
        };
        let (root, prefix) = (interest.root, interest.prefix);
        let key = prefix.as_group().map(|group| (root, group));
        let old = key.and_then(|k| self.forwarding.filter(k, link));
        let booked = adjacency.heard.book(&interest, old, &self.config.limits);
        if let Err(reason) = booked {
            self.drops.count(DropReason::InterestRefused);
            adjacency.told.refuse(root, prefix, reason);
        }
        let Some(key) = key else { return };
        let kept = adjacency.heard.has(key);
        self.forwarding
            .set(key, link, interest.wanted.filter(|_| kept));
        if root == self.config.own.origin {
            self.interest_changed.insert(key.1);
            self.release(key.1);
        }
    }

    fn note_refusal(
        &mut self,
        link: LinkId,
        key: (OriginId, Ipv6Addr),
        reason: control::RefusalReason,
    ) {
        if let Some(adjacency) = self.adjacencies.get_mut(&link) {
            adjacency
                .told
                .handle_refusal(key, reason, &mut self.random, self.now);
        }
    }

    /// Whether a local program wants (root, group) from behind this link.
    fn wants(&self, link: LinkId, (root, group): (OriginId, Ipv6Addr)) -> bool {
        self.adjacencies.get(&link).is_some_and(|a| {
            let wanted = self.querier.filter(group);
            root == a.neighbor.origin && wanted.is_some_and(|f| wanted_from(a, group, f).is_some())
        })
    }

    pub(crate) fn count_local(&mut self, len: usize) {
        self.counters.tun_tx_packets += 1;
        self.counters.tun_tx_bytes += len as u64;
    }

    pub(crate) fn has_started(&self) -> bool {
        self.started
    }
}
