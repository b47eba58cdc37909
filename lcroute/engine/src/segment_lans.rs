//! The LANs of all segments, each with the gateway that serves it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use librecast::cert::{Member, SEGMENT, SourcePrefix};
use librecast::id::{LanId, OriginId, PeerId};
use librecast::mapped;

use crate::segment_id::SegmentId;

/// Most LANs of a segment. Chosen.
const MAX_SEGMENT_LANS: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanOfSegment {
    /// The gateway that serves it.
    pub origin: OriginId,
    pub peer: PeerId,
    /// Prefixes of the LAN's hosts; those of IPv4 are names.
    pub prefixes: Vec<SourcePrefix>,
}

impl LanOfSegment {
    /// Whether a host of the LAN may have this address, or the IPv4 address of this name.
    pub fn may_have(&self, address: Ipv6Addr) -> bool {
        address.is_unicast_link_local() || self.prefixes.iter().any(|p| p.contains(address))
    }

    /// Its IPv4 prefixes: address and length.
    pub fn ipv4(&self) -> impl Iterator<Item = (Ipv4Addr, u8)> {
        let prefixes = self.prefixes.iter();
        prefixes.filter_map(|prefix| {
            let len = prefix.prefix_len().checked_sub(mapped::PREFIX_LEN)?;
            Some((mapped::ipv4(prefix.addr())?, len))
        })
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SegmentLans {
    lans: BTreeMap<LanId, LanOfSegment>,
    /// Gateways that advertise themselves as forwarder of one LAN and do not hear each other.
    rivals: BTreeSet<PeerId>,
}

impl SegmentLans {
    /// Adds a LAN, within bounds.
    pub fn insert(&mut self, id: LanId, lan: LanOfSegment) {
        if self.lans.len() < MAX_SEGMENT_LANS {
            self.lans.insert(id, lan);
        }
    }

    /// Adds gateways that advertise themselves as forwarder of one LAN and do not hear each other.
    pub fn add_rivals(&mut self, rivals: impl IntoIterator<Item = PeerId>) {
        self.rivals.extend(rivals);
    }

    /// Gateways that advertise themselves as forwarder of one LAN and do not hear each other.
    pub fn rivals(&self) -> Vec<PeerId> {
        self.rivals.iter().copied().collect()
    }

    pub fn get(&self, lan: LanId) -> Option<&LanOfSegment> {
        self.lans.get(&lan)
    }

    pub fn others(&self, own: LanId) -> impl Iterator<Item = (LanId, &LanOfSegment)> {
        let all = self.lans.iter().map(|(id, lan)| (*id, lan));
        all.filter(move |(id, _)| *id != own)
    }

    /// The LANs that a gateway serves, except one.
    pub fn of(&self, origin: OriginId, own: LanId) -> Vec<LanId> {
        let those = self.others(own).filter(|(_, lan)| lan.origin == origin);
        those.map(|(id, _)| id).collect()
    }

    /// Whether a gateway serves one of the LANs.
    pub fn has(&self, origin: OriginId) -> bool {
        self.lans.values().any(|lan| lan.origin == origin)
    }
}

/// Whether a certificate permits to speak for LANs of a segment: it permits any source, and names
/// the segment or is an issuer's, who may name any.
pub fn permits_segment(member: &Member, segment: SegmentId) -> bool {
    let name = member.labels.get(SEGMENT);
    let of = |name: &String| SegmentId::of(member.addresses.address, name);
    let is_named = member.is_issuer() || name.map(of) == Some(segment);
    member.gateway.contains(&SourcePrefix::ANY) && is_named
}
