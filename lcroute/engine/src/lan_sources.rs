//! Routers that speak for sources beyond their key: hosts of LANs, and their IPv4 address.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use librecast::cert::SourcePrefix;
use librecast::id::{LanId, OriginId};
use librecast::mapped;

/// Source addresses behind the forwarder of a LAN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behind {
    pub prefix: SourcePrefix,
    pub lan: LanId,
    /// The forwarder's certificate names the prefix.
    pub by_name: bool,
    /// Addresses named in other certificates.
    pub except: Vec<SourcePrefix>,
}

/// All sources behind forwarders, and IPv4 addresses.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LanSources {
    /// By forwarder.
    behind: BTreeMap<OriginId, Vec<Behind>>,
    /// Owners of IPv4 addresses, by name.
    ipv4: BTreeMap<Ipv6Addr, OriginId>,
    /// IPv4 addresses by owner.
    names: BTreeMap<OriginId, Ipv6Addr>,
}

impl LanSources {
    /// Sources of these forwarders, and of nodes with these IPv4 addresses, by name.
    pub fn new(
        mut behind: BTreeMap<OriginId, Vec<Behind>>,
        ipv4: BTreeMap<Ipv6Addr, OriginId>,
    ) -> Self {
        for list in behind.values_mut() {
            list.sort_by_key(|behind| Reverse(behind.prefix.prefix_len()));
        }
        Self {
            behind,
            names: ipv4.iter().map(|(name, origin)| (*origin, *name)).collect(),
            ipv4,
        }
    }

    /// Whether the same routers speak for the same LAN hosts: then only IPv4 addresses differ.
    pub fn has_same_hosts(&self, other: &Self) -> bool {
        self.behind == other.behind
    }

    pub fn ipv4_of(&self, router: OriginId) -> Option<Ipv6Addr> {
        self.names.get(&router).copied()
    }

    pub fn ipv4_owner(&self, name: Ipv6Addr) -> Option<OriginId> {
        self.ipv4.get(&name).copied()
    }

    /// Length of the longest prefix by which the gateway speaks for `source`; `None`: it does not.
    fn match_len(&self, gateway: OriginId, source: Ipv6Addr) -> Option<u8> {
        // the longest prefix comes first
        let mut matching = self.behind.get(&gateway)?.iter().filter(|behind| {
            behind.prefix.contains(source) && !behind.except.iter().any(|p| p.contains(source))
        });
        matching.next().map(|behind| behind.prefix.prefix_len())
    }

    /// Whether the router speaks for this LAN host, or has this IPv4 address.
    pub fn speaks_for(&self, gateway: OriginId, source: Ipv6Addr) -> bool {
        if mapped::is_host_name(source) {
            return self.ipv4_owner(source) == Some(gateway);
        }
        self.match_len(gateway, source).is_some()
    }

    /// The gateways that speak for a LAN host by the longest prefix: several if LANs share a
    /// prefix. For an IPv4 address, its router.
    pub fn gateways_of(&self, source: Ipv6Addr) -> Vec<OriginId> {
        if mapped::is_host_name(source) {
            return self.ipv4_owner(source).into_iter().collect();
        }
        let all = self.behind.keys();
        let all = all.filter_map(|gateway| Some((self.match_len(*gateway, source)?, *gateway)));
        let all: Vec<_> = all.collect();
        let longest = all.iter().map(|(length, _)| *length).max();
        let best = all
            .into_iter()
            .filter(|(length, _)| Some(*length) == longest);
        best.map(|(_, gateway)| gateway).collect()
    }

    /// Whether the router speaks for hosts of a LAN.
    pub fn has_hosts(&self, gateway: OriginId) -> bool {
        self.behind.contains_key(&gateway)
    }
}
