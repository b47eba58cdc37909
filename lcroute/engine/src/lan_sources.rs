//! Which gateway speaks for which hosts of LANs.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use librecast::cert::SourcePrefix;
use librecast::id::{LanId, OriginId};

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

/// All of them, by forwarder.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LanSources(BTreeMap<OriginId, Vec<Behind>>);

impl LanSources {
    /// Of these forwarders.
    pub fn new(mut behind: BTreeMap<OriginId, Vec<Behind>>) -> Self {
        for list in behind.values_mut() {
            list.sort_by_key(|behind| Reverse(behind.prefix.prefix_len()));
        }
        Self(behind)
    }

    /// How many bits of `source` the gateway speaks for; `None`: it does not.
    fn match_len(&self, gateway: OriginId, source: Ipv6Addr) -> Option<u8> {
        // the longest comes first
        let mut matching = self.0.get(&gateway)?.iter().filter(|behind| {
            behind.prefix.contains(source) && !behind.except.iter().any(|p| p.contains(source))
        });
        matching.next().map(|behind| behind.prefix.prefix_len())
    }

    /// Whether the gateway speaks for this host of a LAN.
    pub fn speaks_for(&self, gateway: OriginId, source: Ipv6Addr) -> bool {
        self.match_len(gateway, source).is_some()
    }

    /// The gateways that speak for a host of a LAN by the longest prefix: several where LANs use one prefix.
    pub fn gateways_of(&self, source: Ipv6Addr) -> Vec<OriginId> {
        let all = self.0.keys();
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
        self.0.contains_key(&gateway)
    }
}
