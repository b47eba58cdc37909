//! Refused links: every refusal has its reason, and costs no ICE state.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use librecast::id::{PeerId, SecretKey};
use librecast::time::UnixTime;

use super::membership::forged;
use super::net::{Net, Network, SERVER, TODAY, today};
use lcroute_overlay::{Identity, PeerState};

use crate::Ecn;

const DAY: u64 = 86_400;
const LONG: Duration = Duration::from_secs(40);

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn member(seed: u8) -> Identity {
    Network::new(1).identity(key(seed), "member")
}

/// Makes a member, and a node with a wrong identity, both at one server.
fn meet(wrong: &Identity, clock: fn() -> UnixTime) -> Net {
    let mut net = Net::new();
    net.add(&member(1), today, None);
    net.add(wrong, clock, None);
    net.join_all();
    net.run(LONG);
    net
}

/// Asserts that the member refuses the other for this reason, without ICE state.
fn assert_refused(net: &Net, counter: &str, reason: &str) {
    let honest = &net.nodes[0];
    assert!(honest.links.is_empty() && honest.ups == 0);
    let row = net.row(0, 1).unwrap();
    assert_eq!((row.state, row.reason), (PeerState::Refused, Some(reason)));
    assert!(honest.overlay.drops()[counter] > 0);
    assert!(
        honest.overlay.connections().is_idle(),
        "no connection was begun"
    );
    assert_eq!(honest.sent, 0, "not one datagram");
    let told = honest
        .refusals
        .iter()
        .filter(|(peer, _)| *peer == Some(net.nodes[1].id));
    assert_eq!(told.count(), 1, "told once: {:?}", honest.refusals);
}

#[test]
fn a_stranger_of_another_network_is_refused() {
    let net = meet(&Network::new(2).identity(key(2), "stranger"), today);
    assert_refused(&net, "signal_network", "another network");
}

#[test]
fn certificates_that_prove_no_membership_are_refused_by_name() {
    let (network, node) = (Network::new(1), key(2).peer_id());
    let (mallory, id) = (key(66), network.key.peer_id());
    let until = (0, TODAY + DAY);
    for (chain, counter, reason) in [
        (
            Network::new(2).chain(node, "stranger", TODAY),
            "certificate_network",
            "certificate of another network",
        ),
        (
            forged(&mallory, &mallory, id, node, "forged", until),
            "certificate_forged",
            "forged certificate",
        ),
        (
            network.chain(node, "old", TODAY - 30 * DAY),
            "certificate_expired",
            "expired certificate",
        ),
        (
            network.chain(key(3).peer_id(), "stolen", TODAY - DAY),
            "certificate_subject",
            "certificate of another node",
        ),
    ] {
        let wrong = Identity::new(Arc::new(key(2)), id, chain);
        assert_refused(&meet(&wrong, today), counter, reason);
    }
}

#[test]
fn a_link_ends_when_its_certificate_does() {
    static CLOCK: AtomicU64 = AtomicU64::new(TODAY);
    let clock = || UnixTime::from_secs(CLOCK.load(Ordering::Relaxed));
    let mut net = Net::new();
    net.add(&member(1), clock, None);
    net.add(&member(2), clock, None);
    net.join_all();
    net.until(LONG, "a link", |net| net.linked(0, 1));
    CLOCK.store(TODAY + 3_650 * DAY, Ordering::Relaxed);
    net.until(LONG, "its end", |net| !net.linked(0, 1));
    let row = net.row(0, 1).unwrap();
    let reason = Some("expired certificate");
    assert_eq!((row.state, row.reason), (PeerState::Refused, reason));
}

#[test]
fn a_clock_off_by_more_than_a_day_is_refused() {
    let net = meet(&member(2), || UnixTime::from_secs(TODAY + 2 * DAY));
    assert_refused(&net, "signal_clock", "clock differs by more than a day");
}

#[test]
fn a_clock_off_by_half_a_day_is_tolerated() {
    let net = meet(&member(2), || UnixTime::from_secs(TODAY - DAY / 2));
    assert!(net.linked(0, 1));
}

#[test]
fn tampered_and_replayed_messages_get_nothing() {
    let mut net = Net::mesh(2);
    net.join_all();
    net.run(Duration::from_secs(3));
    assert!(net.linked(0, 1));
    let messages = net.carried.clone();
    let before = (net.nodes[0].sent, net.nodes[1].sent);
    for (from, to, bytes) in &messages {
        net.post_bytes(*from, *to, bytes.clone());
        let mut tampered = bytes.clone();
        tampered[bytes.len() / 2] ^= 1;
        net.post_bytes(*from, *to, tampered);
    }
    net.run(Duration::from_secs(10));
    assert!(net.linked(0, 1) && net.nodes.iter().all(|n| n.ups == 1 && n.downs.is_empty()));
    for n in 0..2 {
        let drops = net.nodes[n].overlay.drops();
        let to_us = messages
            .iter()
            .filter(|(_, to, _)| *to == net.nodes[n].id)
            .count() as u64;
        assert_eq!(drops["signal_copy"], to_us);
        // the first one used up the assumed sender's budget
        let junk = ["signal_not_opened", "signal_rate"].map(|name| drops.get(name).unwrap_or(&0));
        assert_eq!(junk.into_iter().sum::<u64>(), to_us);
        assert_eq!(
            net.row(n, 1 - n).unwrap().state,
            PeerState::Connected,
            "nobody is blamed"
        );
    }
    let sent = net.nodes[0].sent - before.0 + net.nodes[1].sent - before.1;
    assert!(sent < 200, "{sent}: the usual probes only");
}

#[test]
fn what_was_for_an_earlier_run_of_a_node_makes_no_link() {
    let mut net = Net::mesh(2);
    net.join_all();
    net.run(Duration::from_secs(3));
    let old = net.carried.clone();
    let mut keys: Vec<_> = [100, 101].map(key).into();
    keys.sort_by_key(SecretKey::peer_id);
    net.kill(1);
    net.run(Duration::from_secs(5));
    net.kill(0);
    net.restart(1, &Network::new(1).identity(keys.swap_remove(1), "again"));
    for (from, to, bytes) in old {
        net.post_bytes(from, to, bytes);
    }
    net.run(Duration::from_secs(5));
    let node = &net.nodes[1];
    assert!(
        node.overlay.connections().is_idle(),
        "an old offer makes no ICE state"
    );
    assert_eq!(node.overlay.drops()["signal_session"], 1);
}

/// Returns keys of `count` non-members; the network's key suffices to enter its room.
fn strangers(count: u32) -> impl Iterator<Item = PeerId> {
    (0..count).map(|n| {
        let mut seed = [3; 32];
        seed[..4].copy_from_slice(&n.to_be_bytes());
        SecretKey::from_seed(&seed).peer_id()
    })
}

#[test]
fn junk_in_the_room_starves_no_other_sender() {
    let mut net = Net::mesh(2);
    let junk: Vec<_> = strangers(10).collect();
    net.join(0);
    let throw = |net: &mut Net| {
        let now = net.now;
        for from in junk.iter().cycle().take(1_000) {
            let overlay = &mut net.nodes[0].overlay;
            overlay.handle_signal(SERVER, *from, &[0; 100], now);
        }
        net.run(Duration::from_millis(100));
    };
    for _ in 0..50 {
        throw(&mut net);
    }
    // a member that is still unknown
    net.join(1);
    let begun = net.now;
    while !net.linked(0, 1) {
        throw(&mut net);
        assert!(net.now < begun + Duration::from_secs(2), "no link");
    }
    let drops = net.nodes[0].overlay.drops();
    assert!(drops["signal_not_opened"] < 200, "{drops:?}");
}

#[test]
fn a_crowd_of_strangers_starves_no_member_and_no_other_carrier() {
    let mut net = Net::mesh(3);
    net.join(0);
    net.join(1);
    net.until(LONG, "a link", |net| net.linked(0, 1));
    let now = net.now;
    for from in strangers(5_000) {
        let overlay = &mut net.nodes[0].overlay;
        overlay.handle_signal(SERVER, from, &[0; 100], now);
    }
    assert_eq!(net.nodes[0].overlay.drops()["signal_not_opened"], 1_000);
    // the known member moves, at once
    net.move_to(1, "10.9.9.9:7777");
    net.run(Duration::from_millis(500));
    let [before, after] = [0, 1].map(|n| net.nodes[n].overlay.drops().get("signal_rate").copied());
    assert_eq!((before, after), (Some(4_000), None));
    assert!(net.linked(0, 1) && net.nodes.iter().all(|n| n.downs.is_empty()));
}

#[test]
fn datagrams_from_nowhere_are_counted_and_cost_nothing() {
    let mut net = Net::mesh(2);
    net.join_all();
    // between two probes
    net.run(Duration::from_millis(2_150));
    let (from, to) = (
        "192.0.2.66:6666".parse().unwrap(),
        net.nodes[0].firewall.host,
    );
    let now = net.now;
    for datagram in [
        &[][..],
        &[0; 3],
        &[22; 1_400],
        &[128; 40],
        &[
            1, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,
        ],
    ] {
        net.webrtc(0)
            .handle_datagram(from, to, datagram, Ecn::None, now);
    }
    assert!(net.webrtc(0).poll_transmit().is_none());
    let drops = net.nodes[0].overlay.drops();
    assert_eq!(drops["udp_no_protocol"], 1);
    assert_eq!(drops["media_no_link"], 1);
    assert_eq!(drops["udp_no_link"], 1);
    assert_eq!(drops["stun_malformed"], 1);
    assert_eq!(drops["stun_unasked"], 1);
    net.run(Duration::from_secs(5));
    assert!(net.linked(0, 1));
}

#[test]
fn plaintext_dtls_from_a_spoofed_address_is_dropped() {
    let mut net = Net::mesh(2);
    net.join_all();
    net.run(Duration::from_secs(2));
    let (from, to, now) = (
        net.nodes[1].firewall.host,
        net.nodes[0].firewall.host,
        net.now,
    );
    // a fatal alert, which anybody can forge
    let alert = [21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 99, 0, 2, 2, 40];
    net.webrtc(0)
        .handle_datagram(from, to, &alert, Ecn::None, now);
    assert_eq!(net.nodes[0].overlay.drops()["dtls_plaintext"], 1);
    net.run(Duration::from_secs(5));
    assert!(net.linked(0, 1) && net.nodes.iter().all(|n| n.downs.is_empty()));
}
