//! Which router speaks for which sources that its key does not give it: hosts of LANs, and its own IPv4 address.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use librecast::cert::SourcePrefix;
use librecast::id::{LanId, OriginId};
use librecast::mapped;

/// Source addresses behind the forwarder of a LAN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behind {
    /// The addresses.
    pub prefix: SourcePrefix,
    /// The LAN.
    pub lan: LanId,
    /// The forwarder's certificate names the prefix.
    pub by_name: bool,
    /// Addresses that other certificates name.
    pub except: Vec<SourcePrefix>,
}

/// All of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LanSources {
    /// By forwarder.
    behind: BTreeMap<OriginId, Vec<Behind>>,
    /// Names of IPv4 addresses, and whose they are.
    ipv4: BTreeMap<Ipv6Addr, OriginId>,
    /// The other way round.
    names: BTreeMap<OriginId, Ipv6Addr>,
}

impl LanSources {
    /// Of these forwarders, and of nodes with these IPv4 addresses, by name.
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

    /// Whether the same routers speak for the same hosts of LANs: then only IPv4 addresses differ.
    pub fn has_same_hosts(&self, other: &Self) -> bool {
        self.behind == other.behind
    }

    /// The name of a router's IPv4 address.
    pub fn ipv4_of(&self, router: OriginId) -> Option<Ipv6Addr> {
        self.names.get(&router).copied()
    }

    /// The router with an IPv4 address of this name.
    pub fn ipv4_owner(&self, name: Ipv6Addr) -> Option<OriginId> {
        self.ipv4.get(&name).copied()
    }

    /// How many bits of `source` the gateway speaks for; `None`: it does not.
    fn match_len(&self, gateway: OriginId, source: Ipv6Addr) -> Option<u8> {
        // the longest comes first
        let mut matching = self.behind.get(&gateway)?.iter().filter(|behind| {
            behind.prefix.contains(source) && !behind.except.iter().any(|p| p.contains(source))
        });
        matching.next().map(|behind| behind.prefix.prefix_len())
    }

    /// Whether the router speaks for this host of a LAN, or has this IPv4 address.
    pub fn speaks_for(&self, gateway: OriginId, source: Ipv6Addr) -> bool {
        if mapped::is_host_name(source) {
            return self.ipv4_owner(source) == Some(gateway);
        }
        self.match_len(gateway, source).is_some()
    }

    /// The gateways that speak for a host of a LAN by the longest prefix: several where LANs use one prefix. Of an IPv4 address
    /// the router that has it.
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
