//! A router with links made by the simulator; the only file with the engine's inputs and outputs.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lcroute_engine::header::HEADER_LEN;
use lcroute_engine::{CarrySettings, Config, Engine, Neighbor, Output};
use librecast::cert::{GroupPrefix, Member};
use librecast::id::LinkId;

use crate::daemon::{Effect, Start, limits, topology};
use crate::population::Identity;
use crate::services::NodeServices;
use crate::time::{Clock, Nanos};

/// The router of a node, which makes no links itself.
#[derive(Debug)]
pub struct RouterAlone {
    engine: Engine,
    services: Arc<NodeServices>,
    clock: Clock,
}

fn link_id(link: u32) -> LinkId {
    LinkId(link)
}

impl RouterAlone {
    pub fn start(services: NodeServices, start: &Start<'_>, now: Nanos) -> Self {
        let identity = services.identity();
        let config = Config {
            member: identity.member.clone(),
            incarnation: start.incarnation,
            mtu: 1280,
            link_scope_groups: Vec::new(),
            chain: identity.chain.clone(),
            can_issue: false,
            transits: true,
            announce: start.announced.to_vec(),
            watch: Vec::new(),
            private: Vec::new(),
            unicast: false,
            ipv4: None,
            carry: CarrySettings::default(),
            topology: topology(start.scenario),
            seed: start.seed,
            limits: limits(start.scenario),
        };
        let (clock, services) = (start.clock, Arc::new(services));
        let now = clock.instant(now);
        let mut engine = Engine::new(config, services.clone(), now);
        engine.handle_start(now);
        Self {
            engine,
            services,
            clock,
        }
    }

    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    pub fn link_up(&mut self, link: u32, other: &Identity, now: Nanos) {
        let neighbor = Neighbor {
            member: other.member.clone(),
        };
        let now = self.clock.instant(now);
        self.engine.handle_link_up(link_id(link), neighbor, now);
    }

    pub fn leaf_up(&mut self, link: u32, member: &Member, now: Nanos) {
        let member = member.clone();
        let now = self.clock.instant(now);
        self.engine
            .handle_link_up(link_id(link), Neighbor { member }, now);
    }

    pub fn link_down(&mut self, link: u32, now: Nanos) {
        let now = self.clock.instant(now);
        self.engine.handle_link_down(link_id(link), now);
    }

    pub fn round_trip(&mut self, link: u32, round_trip: Nanos, now: Nanos) {
        let (rtt, now) = (Duration::from_nanos(round_trip), self.clock.instant(now));
        self.engine.handle_link_rtt(link_id(link), rtt, now);
    }

    /// Handles a report of presence from the signalling server.
    pub fn presence(&mut self, other: &Identity, online: bool, now: Nanos) {
        let (origin, now) = (other.member.addresses.origin, self.clock.instant(now));
        self.engine.handle_presence(origin, online, now);
    }

    /// Handles the failure of direct links to a node, or its end.
    pub fn direct_failure(&mut self, other: &Identity, failing: bool, now: Nanos) {
        let (origin, now) = (other.member.addresses.origin, self.clock.instant(now));
        self.engine.handle_direct_failure(origin, failing, now);
    }

    /// Handles a packet that a program or the kernel wrote into `lc0`.
    pub fn local_packet(&mut self, packet: Vec<u8>, now: Nanos) {
        let now = self.clock.instant(now);
        self.engine.handle_local_packet(packet.into(), now);
    }

    pub fn data(&mut self, link: u32, header: &[u8; HEADER_LEN], packet: Bytes, now: Nanos) {
        let now = self.clock.instant(now);
        let link = link_id(link);
        self.engine.handle_packet(link, header, packet, now);
    }

    pub fn control(&mut self, link: u32, message: &[u8], now: Nanos) {
        let now = self.clock.instant(now);
        self.engine.handle_control(link_id(link), message, now);
    }

    pub fn timeout(&mut self, now: Nanos) {
        let now = self.clock.instant(now);
        self.engine.handle_timeout(now);
    }

    pub fn next_timeout(&self) -> Option<Nanos> {
        let (at, _) = self.engine.next_timeout()?;
        Some(self.clock.nanos(at))
    }

    pub fn announce(&mut self, prefixes: &[GroupPrefix], now: Nanos) {
        let now = self.clock.instant(now);
        self.engine.set_announced(prefixes.to_vec(), now);
    }

    pub fn poll(&mut self) -> Option<Effect> {
        loop {
            let output = self.engine.poll_output()?;
            if let Some(effect) = self.effect(output) {
                return Some(effect);
            }
        }
    }

    fn effect(&self, output: Output) -> Option<Effect> {
        Some(match output {
            Output::Data {
                links,
                header,
                packet,
            } => Effect::Data {
                links,
                header,
                packet,
            },
            Output::Control { link, message } | Output::RoutedControl { link, message } => {
                Effect::Control {
                    link: link.0,
                    message,
                }
            }
            Output::Local { packet } => Effect::Local { packet },
            Output::LocalMld { packet } => Effect::Mld { packet },
            Output::Wanted(origins) => Effect::Wanted {
                nodes: origins
                    .into_iter()
                    .filter_map(|origin| self.services.population().node(origin))
                    .collect(),
            },
            Output::Retire { link } => Effect::Retire { link: link.0 },
            // presence follows from links; identities and routed messages are for the shell
            Output::Routed { .. }
            | Output::Reachable { .. }
            | Output::Incarnation(_)
            | Output::Revoked { .. }
            | Output::Renewed { .. }
            | Output::Epochs { .. }
            // its hosts have neither IPv4 nor LANs
            | Output::Ipv4Address(_)
            | Output::Lan { .. } => return None,
            Output::LinkFault { link, reason } => Effect::Fault {
                link: link.0,
                reason: reason.as_str(),
            },
        })
    }
}
