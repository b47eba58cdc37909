//! Metrics of `[metrics] listen`, read from the packet loop at each request.

pub mod signal;

use lcroute_control::status::{Inbound, Lan, Peer, State, Status};
use lcroute_node::LanRole;
use lcroute_overlay::Lane;
use librecast_program::metrics::Page;
use librecast_program::metrics_table;

use crate::drops;

/// A snapshot of the packet loop.
#[derive(Debug)]
pub struct Observation {
    /// As `status` shows it.
    pub status: Status,
    /// As `peers` shows them.
    pub peers: Vec<Peer>,
    /// Groups that local programs have joined.
    pub groups_local: usize,
    /// Groups that are joined over links.
    pub groups_remote: usize,
    /// Reachable nodes, at any distance.
    pub nodes: usize,
    /// End of the membership, in Unix seconds.
    pub not_after: u64,
    /// As `lan` shows them.
    pub lans: Vec<Lan>,
}

/// States of a peer, as `peers` names them.
const PEER_STATES: [&str; 4] = ["connecting", "connected", "lost", "refused"];
const PEER: &[&str] = &["peer", "name"];
const LAN: &[&str] = &["interface"];

metrics_table! {
    BUILD = gauge("lcroute_build_info", &["version"], "Always 1; the label tells the version");
    NODE = gauge("lcroute_node_info", &["peer", "name", "address", "network", "tun"], "Always 1; the labels tell who this node is");
    STATE = gauge("lcroute_state", &["state"], "1 for the state that the daemon is in, 0 for the others");
    UPTIME = gauge("lcroute_uptime_seconds", &[], "Seconds since the daemon was started, or executed anew");
    NOT_AFTER = gauge("lcroute_certificate_expiry_timestamp_seconds", &[], "When the membership ends unless it is renewed, in seconds of Unix time");
    SIGNAL = gauge("lcroute_signal_servers_connected", &[], "Signalling servers that are connected");
    KEY_CONFLICT = gauge("lcroute_key_conflict", &[], "1 if another host runs with this node's key: a state folder that was copied");
    INBOUND = gauge("lcroute_inbound_blocked", &[], "1 if the firewall of this host drops what arrives on lc0, or the kernel has no route for it, so that programs receive nothing");
    NODES = gauge("lcroute_nodes_reachable", &[], "Other nodes of the network that can be reached, over however many links");
    LEAVES = gauge("lcroute_leaves", &[], "Leaves that are linked with this node: listeners that do not route");
    GROUPS = gauge("lcroute_groups", &[], "Groups that somebody listens or sends to, as far as this node knows");
    GROUPS_LOCAL = gauge("lcroute_groups_local", &[], "Groups that programs on this host have joined");
    GROUPS_REMOTE = gauge("lcroute_groups_remote", &[], "Groups that are wanted over links");
    TUN_RX_PACKETS = counter("lcroute_tun_rx_packets_total", &[], "Packets read from lc0: sent by programs of this host");
    TUN_RX_BYTES = counter("lcroute_tun_rx_bytes_total", &[], "Bytes read from lc0");
    TUN_TX_PACKETS = counter("lcroute_tun_tx_packets_total", &[], "Packets written into lc0");
    TUN_TX_BYTES = counter("lcroute_tun_tx_bytes_total", &[], "Bytes written into lc0");
    LINK_RX_PACKETS = counter("lcroute_link_rx_packets_total", &[], "Multicast packets received over links");
    LINK_RX_BYTES = counter("lcroute_link_rx_bytes_total", &[], "Bytes of multicast packets received over links, with their data header, without what WebRTC, UDP and IP add");
    LINK_TX_PACKETS = counter("lcroute_link_tx_packets_total", &[], "Multicast packets sent over links, one for each link");
    LINK_TX_BYTES = counter("lcroute_link_tx_bytes_total", &[], "Bytes of multicast packets sent over links, with their data header, without what WebRTC, UDP and IP add");
    DROPS = counter("lcroute_drops_total", &["reason"], "Packets and messages that went no further, by reason");
    LAN_ROLE = gauge("lcroute_lan_role", &["interface", "role"], "1 for what this gateway does on the LAN, 0 for the other roles");
    LAN_PROBLEM = gauge("lcroute_lan_problem", LAN, "1 if something is wrong on the LAN: `lcroute lan` says what");
    LAN_GROUPS = gauge("lcroute_lan_groups_joined", LAN, "Groups that hosts of the LAN have joined");
    LAN_REPORTED = gauge("lcroute_lan_groups_reported", LAN, "Groups that this gateway reports on the LAN, as somebody listens elsewhere");
    LAN_SOURCES = gauge("lcroute_lan_sources", LAN, "Hosts of the LAN that sent within the last minute");
    SEGMENT_LANS = gauge("lcroute_lan_segment_lans", LAN, "Other LANs of the LAN's segment that are reachable");
    SEGMENT_HOSTS = gauge("lcroute_lan_segment_hosts", LAN, "Addresses of hosts that were heard on the LAN of a segment");
    SEGMENT_CONFLICTS = gauge("lcroute_lan_segment_conflicts", LAN, "Addresses that the LAN and another of its segment have");
    LAN_RX = counter("lcroute_lan_rx_packets_total", LAN, "Packets of hosts of the LAN that went on");
    LAN_TX = counter("lcroute_lan_tx_packets_total", LAN, "Packets sent into the LAN");
    LAN_DROPS = counter("lcroute_lan_drops_total", &["interface", "reason"], "Packets and MLD messages from and for the LAN that went no further, by reason");
    PEERS = gauge("lcroute_peers", &["state"], "Nodes with which there is a link, or is tried, by state");
    PEER_UP = gauge("lcroute_peer_up", PEER, "1 if there is a link with this peer");
    PEER_SINCE = gauge("lcroute_peer_state_seconds", PEER, "For how long the peer has been in its state");
    PEER_RTT = gauge("lcroute_peer_rtt_seconds", PEER, "Round trip");
    PEER_LOSS = gauge("lcroute_peer_loss_ratio", PEER, "Share of packets lost on the way from the peer, 0 to 1");
    PEER_TX = counter("lcroute_peer_tx_bytes_total", PEER, "UDP payload bytes sent to the peer");
    PEER_RX = counter("lcroute_peer_rx_bytes_total", PEER, "UDP payload bytes received from the peer");
    PEER_MEDIA = gauge("lcroute_peer_media_lane", PEER, "1 if data goes through the media lane (SRTP), 0 if through the data channel");
    PEER_MTU = gauge("lcroute_peer_path_mtu_bytes", PEER, "Longest UDP payload that is known to reach the peer");
    PEER_CONGESTED = counter("lcroute_peer_congested_packets_total", PEER, "Packets sent over the present link that met a filling queue (ECN)");
    PEER_RESENT = counter("lcroute_peer_resent_packets_total", PEER, "Packets sent again over the present link");
    PEER_SYMBOLS = counter("lcroute_peer_repair_symbols_total", PEER, "Repair symbols sent over the present link");
    PEER_REPAIRED = counter("lcroute_peer_repaired_packets_total", PEER, "Lost packets of the peer that repair brought back on the present link");
}

/// Returns the metrics of `seen`.
#[must_use]
pub fn page(seen: &Observation) -> Page {
    let mut page = Page::of_this_process();
    let Status {
        counters: c, state, ..
    } = &seen.status;
    let s = &seen.status;
    page.put_with(&BUILD, &[env!("CARGO_PKG_VERSION")], 1);
    let (peer, address, network) = (
        s.peer_id.to_string(),
        s.address.to_string(),
        s.network.to_string(),
    );
    page.put_with(&NODE, &[&peer, &s.name, &address, &network, &s.tun], 1);
    let all = [
        State::Starting,
        State::Connecting,
        State::Connected,
        State::Expelled,
        State::Stopping,
    ];
    for each in all {
        page.put_with(&STATE, &[each.name()], u64::from(each == *state));
    }
    page.put(&UPTIME, s.uptime_s);
    page.put(&NOT_AFTER, seen.not_after);
    page.put(&SIGNAL, s.signal_servers as u64);
    let blocked = matches!(s.inbound, Inbound::Blocked | Inbound::NoRoute);
    page.put(&KEY_CONFLICT, u64::from(s.key_conflict.is_some()));
    page.put(&INBOUND, u64::from(blocked));
    page.put(&NODES, seen.nodes as u64);
    page.put(&LEAVES, s.leaves.linked as u64);
    page.put(&GROUPS, s.groups as u64);
    page.put(&GROUPS_LOCAL, seen.groups_local as u64);
    page.put(&GROUPS_REMOTE, seen.groups_remote as u64);
    for (description, value) in [
        (&TUN_RX_PACKETS, c.tun_rx_packets),
        (&TUN_RX_BYTES, c.tun_rx_bytes),
        (&TUN_TX_PACKETS, c.tun_tx_packets),
        (&TUN_TX_BYTES, c.tun_tx_bytes),
        (&LINK_RX_PACKETS, c.link_rx_packets),
        (&LINK_RX_BYTES, c.link_rx_bytes),
        (&LINK_TX_PACKETS, c.link_tx_packets),
        (&LINK_TX_BYTES, c.link_tx_bytes),
    ] {
        page.put(description, value);
    }
    // absent reasons as well: a rate begins at 0
    for (reason, _) in drops::reasons() {
        let n = c.drops.get(reason).copied().unwrap_or(0);
        page.put_with(&DROPS, &[reason], n);
    }
    for state in PEER_STATES {
        let n = seen.peers.iter().filter(|p| p.state == state).count();
        page.put_with(&PEERS, &[state], n as u64);
    }
    // leaves are counted, without a series for each
    for peer in seen.peers.iter().filter(|peer| !peer.leaf) {
        put_peer(&mut page, peer);
    }
    for lan in &seen.lans {
        put_lan(&mut page, lan);
    }
    page
}

fn put_lan(page: &mut Page, lan: &Lan) {
    let interface = lan.interface.as_str();
    for role in LanRole::ALL.map(LanRole::name) {
        page.put_with(&LAN_ROLE, &[interface, role], u64::from(lan.role == role));
    }
    for (description, value) in [
        (&LAN_PROBLEM, usize::from(has_problem(lan))),
        (&LAN_GROUPS, lan.listeners.len()),
        (&LAN_REPORTED, lan.groups),
        (&LAN_SOURCES, lan.sources.len()),
    ] {
        page.put_with(description, &[interface], value as u64);
    }
    if let Some(segment) = &lan.segment {
        for (description, value) in [
            (&SEGMENT_LANS, segment.lans.len()),
            (&SEGMENT_HOSTS, segment.here),
            (&SEGMENT_CONFLICTS, segment.conflicts.len()),
        ] {
            page.put_with(description, &[interface], value as u64);
        }
    }
    for (description, name) in [(&LAN_RX, "rx"), (&LAN_TX, "tx")] {
        let n = lan.counters.get(name).copied().unwrap_or(0);
        page.put_with(description, &[interface], n);
    }
    // all but packets and MLD messages
    let is_drop = |name: &str| !["rx", "tx", "mld"].contains(&name);
    for (reason, n) in lan.counters.iter().filter(|(name, _)| is_drop(name)) {
        page.put_with(&LAN_DROPS, &[interface, reason], *n);
    }
}

/// Whether something is wrong on a LAN or with its segment.
fn has_problem(lan: &Lan) -> bool {
    let segment = lan.segment.as_ref();
    lan.problem.is_some() || segment.is_some_and(|segment| segment.problem.is_some())
}

fn put_peer(page: &mut Page, p: &Peer) {
    let id = p.peer_id.to_string();
    let labels = [id.as_str(), p.name.as_deref().unwrap_or_default()];
    page.put_with(&PEER_UP, &labels, u64::from(p.state == "connected"));
    page.put_with(&PEER_SINCE, &labels, p.since_s);
    if let Some(ms) = p.link.rtt_ms {
        page.put_float(&PEER_RTT, &labels, ms / 1_000.0);
    }
    if let Some(loss) = p.link.loss {
        page.put_float(&PEER_LOSS, &labels, loss);
    }
    page.put_with(&PEER_TX, &labels, p.tx_bytes);
    page.put_with(&PEER_RX, &labels, p.rx_bytes);
    page.put_with(&PEER_MEDIA, &labels, u64::from(p.link.lane == Lane::Media));
    if let Some(mtu) = p.link.path_mtu {
        page.put_with(&PEER_MTU, &labels, mtu as u64);
    }
    page.put_with(&PEER_CONGESTED, &labels, p.link.congested_packets);
    page.put_with(&PEER_RESENT, &labels, p.link.repair.media_resent);
    page.put_with(&PEER_SYMBOLS, &labels, p.link.repair.media_symbols);
    page.put_with(&PEER_REPAIRED, &labels, p.link.repair.media_repaired);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::Ipv6Addr;

    use lcroute_overlay::LinkInfo;
    use librecast::id::SecretKey;
    use librecast_program::metrics::check;

    use super::*;
    use lcroute_control::status::{Counters, LanSegment};

    fn seen() -> Observation {
        let id = |seed: u8| SecretKey::from_seed(&[seed; 32]).peer_id();
        let peer = |seed: u8, state: &str| Peer {
            peer_id: id(seed),
            name: Some(format!("n{seed}")),
            address: Ipv6Addr::LOCALHOST,
            leaf: false,
            state: state.into(),
            link: LinkInfo {
                rtt_ms: Some(12.5),
                loss: Some(0.25),
                lane: Lane::Media,
                path_mtu: Some(1_452),
                ..LinkInfo::default()
            },
            tx_bytes: 1,
            rx_bytes: 2,
            carrier: None,
            since_s: 3,
            reason: None,
        };
        Observation {
            status: Status {
                network: id(9),
                inbound: Inbound::Blocked,
                counters: Counters {
                    drops: BTreeMap::from([("no_listener".into(), 7)]),
                    ..Counters::default()
                },
                ..crate::testing::status()
            },
            peers: vec![peer(2, "connected"), peer(3, "lost")],
            groups_local: 1,
            groups_remote: 2,
            nodes: 4,
            not_after: 1_800_000_000,
            lans: vec![Lan {
                interface: "eth0".into(),
                role: "standby".into(),
                groups: 2,
                segment: Some(LanSegment::default()),
                counters: ["rx", "tx", "mld", "lan_rate"]
                    .map(|name| (name.to_owned(), 5))
                    .into(),
                ..Lan::default()
            }],
        }
    }

    #[test]
    fn names_keep_to_the_rules_and_all_are_shown() {
        assert_eq!(check("lcroute", TABLE), Ok(()));
        let text = page(&seen()).render().unwrap();
        for d in TABLE {
            let stem = d.name.trim_end_matches("_total");
            assert!(
                text.contains(&format!("# TYPE {stem} {}\n", d.kind.name())),
                "{}",
                d.name
            );
        }
    }

    #[test]
    fn values_are_those_of_the_daemon() {
        let text = page(&seen()).render().unwrap();
        for line in [
            "lcroute_state{state=\"connected\"} 1",
            "lcroute_state{state=\"connecting\"} 0",
            "lcroute_drops_total{reason=\"no_listener\"} 7",
            "lcroute_drops_total{reason=\"queue_full\"} 0",
            "lcroute_peers{state=\"lost\"} 1",
            "lcroute_peers{state=\"refused\"} 0",
            "lcroute_inbound_blocked 1",
            "lcroute_certificate_expiry_timestamp_seconds 1800000000",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
        let value = |metric: &str, name: &str| {
            let of = format!("name=\"{name}\"}} ");
            let line = text
                .lines()
                .find(|l| l.starts_with(metric) && l.contains(&of));
            line.unwrap().rsplit(' ').next().unwrap().to_owned()
        };
        assert_eq!(value("lcroute_peer_rtt_seconds", "n2"), "0.0125");
        assert_eq!(value("lcroute_peer_loss_ratio", "n3"), "0.25");
        assert_eq!(value("lcroute_peer_up", "n3"), "0");
    }
}
