//! Links that only a relay can make.

use std::time::Duration;

use librecast::id::SecretKey;
use librecast::simulated::Behavior;

use lcroute_overlay::{CandidateKind, ConnectionEvent, Connections, PathKind};

use crate::WebRtc;

use super::net::{Net, Network, today};

const NATS: [&str; 2] = ["198.51.100.1:7000", "198.51.100.2:7001"];

/// Makes two nodes behind NATs, which may use a relay; `cut_off` cuts them off.
fn behind_nats(cut_off: impl Fn(&mut Net, usize)) -> Net {
    let network = Network::new(1);
    let mut net = Net::new();
    for (seed, nat) in [1, 2].into_iter().zip(NATS) {
        let identity = network.identity(SecretKey::from_seed(&[seed; 32]), "natted");
        let n = net.add(&identity, today, Some(nat));
        cut_off(&mut net, n);
    }
    net.add_relay();
    net
}

fn symmetric(net: &mut Net, n: usize) {
    net.nodes[n].firewall.mapping = Behavior::AddressAndPortDependent;
}

fn udp_dead(net: &mut Net, n: usize) {
    net.nodes[n].udp_dead = true;
}

fn paths(net: &Net) -> [Option<PathKind>; 2] {
    [(0, 1), (1, 0)].map(|(a, b)| net.row(a, b).and_then(|row| row.link.path))
}

/// Runs until both have a link, which carries data in both directions.
fn link(net: &mut Net, most: u64) -> Duration {
    net.join_all();
    let most = Duration::from_secs(most);
    let took = net.until(most, "link", |net| net.linked(0, 1));
    assert_carries(net);
    took
}

fn assert_carries(net: &mut Net) {
    net.assert_carries(0, 1);
    net.assert_carries(1, 0);
}

#[test]
fn two_symmetric_nats_meet_at_the_relay() {
    let mut net = behind_nats(symmetric);
    let took = link(&mut net, 8);
    assert_eq!(paths(&net), [Some(PathKind::Relay); 2], "{took:?}");
}

#[test]
fn where_no_datagram_passes_the_relay_is_reached_in_a_stream() {
    let mut net = behind_nats(udp_dead);
    let took = link(&mut net, 5);
    assert_eq!(paths(&net), [Some(PathKind::Tcp); 2], "{took:?}");
}

#[test]
fn one_end_without_udp_is_enough_for_a_relay() {
    for dead in [0, 1] {
        let mut net = behind_nats(|net, n| net.nodes[n].udp_dead = n == dead);
        link(&mut net, 8);
        assert_eq!(paths(&net)[dead], Some(PathKind::Tcp));
        assert_eq!(paths(&net)[1 - dead], Some(PathKind::Relay));
    }
}

#[test]
fn a_link_that_needs_no_relay_asks_for_none() {
    let mut net = behind_nats(|_, _| {});
    link(&mut net, 2);
    net.run(Duration::from_secs(60));
    assert_eq!(paths(&net), [Some(PathKind::Reflexive); 2]);
    let (relay, _) = net.relay.as_ref().unwrap();
    assert_eq!(relay.usage(), (0, 0));
}

#[test]
fn a_relayed_link_moves_to_a_direct_path_without_a_break_and_gives_the_relay_back() {
    let mut net = behind_nats(udp_dead);
    link(&mut net, 8);
    net.run(Duration::from_secs(20));
    for node in &mut net.nodes {
        node.udp_dead = false;
    }
    let direct = |net: &Net| paths(net) == [Some(PathKind::Reflexive); 2];
    // data sent meanwhile arrives
    let mut sent = 0;
    while !direct(&net) {
        assert!(sent < 1_000, "it stays at the relay");
        net.send_data(0, 1, [&[0x10], &[8; 500]]).unwrap();
        sent += 1;
        net.run(Duration::from_millis(100));
    }
    let arrived = net.nodes[1].data.iter().filter(|(_, d)| d.len() == 501);
    assert!(arrived.count() + 1 >= sent);
    assert_carries(&mut net);
    assert_eq!([0, 1].map(|n| net.nodes[n].downs.len()), [0; 2]);
    net.run(Duration::from_secs(150));
    let (relay, _) = net.relay.as_ref().unwrap();
    assert_eq!(relay.usage().0, 0, "allocations");
}

#[test]
fn a_relayed_link_lives_on_for_hours() {
    let mut net = behind_nats(symmetric);
    link(&mut net, 8);
    net.run(Duration::from_secs(3_000));
    assert_carries(&mut net);
    assert_eq!([0, 1].map(|n| net.nodes[n].downs.len()), [0; 2]);
    assert_eq!(paths(&net), [Some(PathKind::Relay); 2]);
}

#[test]
fn a_relay_that_forgets_everything_is_asked_again() {
    let mut net = behind_nats(udp_dead);
    link(&mut net, 8);
    net.add_relay();
    let linked = |net: &Net| net.linked(0, 1) && net.nodes.iter().all(|node| node.ups == 2);
    net.until(Duration::from_secs(60), "another link", linked);
    assert_carries(&mut net);
}

const MAPPED: &str = "198.51.100.1:9000";

fn map(net: &mut Net, n: usize) {
    let mapped = MAPPED.parse().unwrap();
    let now = net.now;
    net.nodes[n].firewall.forwarded = Some(mapped);
    let connections = net.webrtc(n);
    connections.set_mapped(Some(mapped), now);
}

#[test]
fn a_mapped_address_leads_through_a_symmetric_nat() {
    let mut net = behind_nats(symmetric);
    map(&mut net, 0);
    let took = link(&mut net, 3);
    assert_eq!(paths(&net)[1], Some(PathKind::Mapped), "{took:?}");
    assert_eq!(paths(&net)[0], Some(PathKind::Reflexive));
    net.run(Duration::from_secs(60));
    let (relay, _) = net.relay.as_ref().unwrap();
    assert_eq!(relay.usage(), (0, 0));
}

#[test]
fn a_link_moves_from_a_relay_to_an_address_that_is_mapped_later() {
    let mut net = behind_nats(symmetric);
    link(&mut net, 8);
    assert_eq!(paths(&net), [Some(PathKind::Relay); 2]);
    map(&mut net, 0);
    let direct = |net: &Net| paths(net)[1] == Some(PathKind::Mapped);
    net.until(Duration::from_secs(40), "direct", direct);
    assert_eq!([0, 1].map(|n| net.nodes[n].downs.len()), [0; 2]);
    assert_carries(&mut net);
}

#[test]
fn an_attempt_under_way_hears_of_a_mapping() {
    for late in [500, 2_000] {
        let mut net = behind_nats(symmetric);
        net.relay = None;
        net.join_all();
        net.run(Duration::from_millis(late));
        map(&mut net, 1);
        let linked = |net: &Net| net.linked(0, 1);
        let took = net.until(Duration::from_secs(5), "link", linked);
        assert_eq!(paths(&net)[0], Some(PathKind::Mapped), "{took:?}");
    }
}

#[test]
fn a_mapped_address_is_offered_once_and_told_of() {
    let mut net = behind_nats(|_, _| {});
    net.join_all();
    net.run(Duration::from_secs(1));
    let (now, nat) = (net.now, NATS[0].parse().unwrap());
    let connections = net.webrtc(0);
    let kinds = |connections: &WebRtc| -> Vec<_> {
        let all = connections.candidates().into_iter();
        all.map(|candidate| candidate.kind).collect()
    };
    let [host, seen, mapped] = [
        CandidateKind::Host,
        CandidateKind::ServerReflexive,
        CandidateKind::Mapped,
    ];
    assert_eq!(kinds(connections), [host, seen]);
    let tells = |connections: &mut WebRtc| {
        let mut events = std::iter::from_fn(|| connections.poll_event());
        events.any(|event| matches!(event, ConnectionEvent::CandidatesChanged))
    };
    while connections.poll_event().is_some() {}
    for (address, expected) in [
        (Some(nat), vec![host, mapped]),
        (Some(MAPPED.parse().unwrap()), vec![host, mapped, seen]),
        (None, vec![host, seen]),
    ] {
        connections.set_mapped(address, now);
        assert!(tells(connections));
        assert_eq!(kinds(connections), expected);
        connections.set_mapped(address, now);
        assert!(!tells(connections), "nothing is new");
    }
}
