//! Answers about segments: LANs of several gateways that are one for their hosts.

use std::net::IpAddr;
use std::time::Instant;

use lcroute_node::{HostPlace, PrivatePrefix, SegmentProblem, SegmentSnapshot};
use librecast::id::PeerId;

use super::PacketLoop;
use lcroute_control::status::{LanConflict, LanElsewhere, LanHost, LanPlace, LanSegment};

impl PacketLoop {
    pub(super) fn lan_segment(&self, interface: &str, segment: SegmentSnapshot) -> LanSegment {
        let (programs, programs_problem) = self.lans.programs(interface);
        let lans = segment.lans.into_iter().map(|lan| LanElsewhere {
            node: self.peer_name(&lan.forwarder),
            peer_id: lan.forwarder,
            prefixes: lan
                .prefixes
                .iter()
                .map(|(address, len)| format!("{address}/{len}"))
                .collect(),
            rtt_ms: lan.rtt.map(|rtt| rtt.as_millis() as u64),
        });
        let conflicts = segment.conflicts.iter().map(|(address, peer)| LanConflict {
            address: *address,
            node: self.peer_name(peer),
        });
        let problem = segment
            .problem
            .as_ref()
            .map(|problem| self.problem(problem));
        let (problem, remedy) = problem.unzip();
        let refusal = |problem: &SegmentProblem| matches!(problem, SegmentProblem::NotPermitted(_));
        LanSegment {
            permitted: !segment.problem.as_ref().is_some_and(refusal),
            lans: lans.collect(),
            conflicts: conflicts.collect(),
            virtual_mac: segment.virtual_mac.to_string(),
            here: segment.here,
            elsewhere: segment.elsewhere,
            routers: segment.routers,
            programs,
            programs_problem,
            sealed: self.is_sealed(&segment.name),
            problem,
            remedy,
            name: segment.name,
        }
    }

    /// Returns the places of a host, seen from each LAN of a segment; asks for it where it is
    /// unknown. `release`: gives it away first.
    pub(super) fn lan_host(
        &mut self,
        address: IpAddr,
        release: bool,
        now: Instant,
    ) -> Vec<LanHost> {
        let lans = self.lans.segments();
        let lans: Vec<_> = lans
            .map(|(id, interface, segment)| (id, interface.to_owned(), segment.to_owned()))
            .collect();
        let place = |(id, interface, segment)| {
            if release {
                self.parts.node.engine_mut(now).release(id, address);
            }
            let engine = self.parts.node.engine();
            let found = engine.where_is(id, address);
            let is_serving = engine.serves_segment(id);
            if found == HostPlace::Unknown && is_serving {
                self.lans.look_for(id, address, &mut self.parts.node, now);
            }
            let (place, mac, peer) = match found {
                HostPlace::Here(mac) => (LanPlace::Here, Some(mac), None),
                HostPlace::Behind(peer) => (LanPlace::Behind, None, Some(peer)),
                HostPlace::Conflict(mac, peer) => (LanPlace::Conflict, Some(mac), Some(peer)),
                HostPlace::Kept(peer) => (LanPlace::Kept, None, Some(peer)),
                HostPlace::Nobody => (LanPlace::Nobody, None, None),
                HostPlace::Unknown if is_serving => (LanPlace::Asked, None, None),
                HostPlace::Unknown => (LanPlace::Standby, None, None),
            };
            LanHost {
                interface,
                segment,
                place,
                mac: mac.map(|mac| mac.to_string()),
                node: peer.map(|peer| self.peer_name(&peer)),
            }
        };
        lans.into_iter().map(place).collect()
    }

    /// Returns whether this host seals the packets of a segment for the other gateways.
    fn is_sealed(&self, segment: &str) -> bool {
        let engine = self.parts.node.engine();
        let address = self.parts.node.member().addresses.address;
        let sealed = PrivatePrefix::of_segment(address, segment, Vec::new()).prefix;
        let mut private = engine.private().iter();
        private.any(|p| p.prefix == sealed && !p.secrets.is_empty())
    }

    /// Returns the name of a member, or its PeerId.
    fn peer_name(&self, peer: &PeerId) -> String {
        let id = peer.to_string();
        let found = self.parts.node.find_members(&id);
        found
            .into_iter()
            .next()
            .map_or(id, |(member, _)| member.name)
    }

    /// Returns a problem of a segment, and its remedy.
    fn problem(&self, problem: &SegmentProblem) -> (String, String) {
        let (peers, text) = match problem {
            SegmentProblem::OtherSubnet(peers) => (
                peers,
                "LANs behind {} have other IPv4 subnets: only groups and link-local addresses work with them",
            ),
            SegmentProblem::Disputed(peers) => (
                peers,
                "{} advertise one LAN and do not hear each other there: the older serves it",
            ),
            SegmentProblem::NoKey(peers) => (
                peers,
                "{} seals this segment with a key that this host does not have",
            ),
            SegmentProblem::InClear(peers) => (
                peers,
                "{} does not seal this segment, and this host does: nothing of it enters",
            ),
            _ => return (problem.to_string(), problem.remedy().to_owned()),
        };
        let names: Vec<_> = peers.iter().map(|peer| self.peer_name(peer)).collect();
        let text = text.replace("{}", &names.join(", "));
        (text, problem.remedy().to_owned())
    }
}
