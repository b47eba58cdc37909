//! A node's status, for tests.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use lcroute_control::status::{Counters, Inbound, Leaves, Mapping, Relay, State, Status, Uplink};
use lcroute_engine::topology::PolicyKind;
use librecast::id::SecretKey;

/// Returns the status of a node with one link, for a minute.
pub(crate) fn status() -> Status {
    let id = SecretKey::from_seed(&[1; 32]).peer_id();
    Status {
        peer_id: id,
        name: "a".into(),
        labels: BTreeMap::new(),
        token_uses: None,
        address: Ipv6Addr::LOCALHOST,
        network: id,
        epoch: 0,
        ipv4: None,
        tun: "lc0".into(),
        inbound: Inbound::Open,
        state: State::Connected,
        key_conflict: None,
        version: None,
        uptime_s: 60,
        doors: Vec::new(),
        relay: Relay::default(),
        mapping: Mapping::default(),
        private: Vec::new(),
        signal_servers: 1,
        peers: 1,
        leaves: Leaves::default(),
        uplink: Uplink::default(),
        topology: PolicyKind::default(),
        groups: 3,
        counters: Counters::default(),
    }
}
