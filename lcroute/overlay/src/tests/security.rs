//! Who gets no link, and why: every refusal has its name, and costs no ICE state.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use librecast::id::{PeerId, SecretKey};
use proptest::prelude::*;

use super::membership::forged;
use super::net::{BACKBONE, Net, Network, TODAY, today};
use crate::description::tests::description;
use crate::envelope::{Payload, Refusal, Stamp, Told, open, seal};
use crate::{Ecn, Identity, PeerState};

const DAY: u64 = 86_400;
const LONG: Duration = Duration::from_secs(40);

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn member(seed: u8) -> Identity {
    Network::new(1).identity(key(seed), "member")
}

fn stamp() -> Stamp {
    Stamp {
        time: TODAY,
        session: 1,
        sequence: 1,
        to_session: 0,
    }
}

fn knock() -> Payload {
    Payload::Knock { restart: false }
}

/// A member, and a node whose identity is wrong in some way, both at one backbone.
fn meet(wrong: &Identity, clock: fn() -> u64) -> Net {
    let mut net = Net::new();
    net.add(&member(1), today, None);
    net.add(wrong, clock, None);
    net.join_all();
    net.run(LONG);
    net
}

/// The member refuses the other with this reason, and has spent no ICE state on it.
fn assert_refused(net: &Net, refusal: Refusal) {
    let honest = &net.nodes[0];
    assert!(honest.links.is_empty() && honest.ups == 0);
    let row = net.row(0, 1).unwrap();
    assert_eq!(
        (row.state, row.reason),
        (PeerState::Refused, Some(refusal.reason()))
    );
    assert!(honest.overlay.drops()[refusal.counter()] > 0);
    assert!(
        honest.overlay.by_ufrag.is_empty(),
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
    assert_refused(&net, Refusal::Network);
}

#[test]
fn a_certificate_of_another_network_is_refused() {
    let chain = Network::new(2).chain(key(2).peer_id(), "stranger", TODAY);
    let wrong = Identity::new(Arc::new(key(2)), Network::new(1).key.peer_id(), chain);
    assert_refused(&meet(&wrong, today), Refusal::CertificateNetwork);
}

#[test]
fn a_forged_chain_is_refused() {
    let network = Network::new(1).key.peer_id();
    let (mallory, id) = (key(66), key(2).peer_id());
    let chain = forged(&mallory, &mallory, network, id, "forged", (0, TODAY + DAY));
    let wrong = Identity::new(Arc::new(key(2)), network, chain);
    assert_refused(&meet(&wrong, today), Refusal::CertificateForged);
}

#[test]
fn an_expired_certificate_is_refused() {
    let chain = Network::new(1).chain(key(2).peer_id(), "old", TODAY - 30 * DAY);
    let wrong = Identity::new(Arc::new(key(2)), Network::new(1).key.peer_id(), chain);
    assert_refused(&meet(&wrong, today), Refusal::CertificateExpired);
}

#[test]
fn a_link_ends_when_its_certificate_does() {
    static CLOCK: AtomicU64 = AtomicU64::new(TODAY);
    let clock = || CLOCK.load(Ordering::Relaxed);
    let mut net = Net::new();
    net.add(&member(1), clock, None);
    net.add(&member(2), clock, None);
    net.join_all();
    net.until(LONG, "a link", |net| net.linked(0, 1));
    CLOCK.store(TODAY + 3_650 * DAY, Ordering::Relaxed);
    net.until(LONG, "its end", |net| !net.linked(0, 1));
    let row = net.row(0, 1).unwrap();
    let reason = Some(Refusal::CertificateExpired.reason());
    assert_eq!((row.state, row.reason), (PeerState::Refused, reason));
}

#[test]
fn somebody_elses_certificate_is_refused() {
    let chain = Network::new(1).chain(key(3).peer_id(), "stolen", TODAY - DAY);
    let wrong = Identity::new(Arc::new(key(2)), Network::new(1).key.peer_id(), chain);
    assert_refused(&meet(&wrong, today), Refusal::CertificateSubject);
}

#[test]
fn a_clock_off_by_more_than_a_day_is_refused() {
    let net = meet(&member(2), || TODAY + 2 * DAY);
    assert_refused(&net, Refusal::Clock);
}

#[test]
fn a_clock_off_by_half_a_day_is_tolerated() {
    let net = meet(&member(2), || TODAY - DAY / 2);
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
        // the first one used up what was thought to be its sender's budget
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
        node.overlay.by_ufrag.is_empty(),
        "an old offer makes no ICE state"
    );
    assert_eq!(node.overlay.drops()["signal_session"], 1);
}

#[test]
fn a_message_for_another_node_cannot_be_opened() {
    let (sender, right, wrong) = (member(1), member(2), member(3));
    let bytes = seal(&sender, &right.peer_id(), stamp(), &knock()).unwrap();
    assert_eq!(
        open(&wrong, TODAY, &bytes).unwrap_err(),
        (Refusal::Sealed, None)
    );
    assert!(open(&right, TODAY, &bytes).is_ok());
}

#[test]
fn a_message_sealed_again_for_another_node_is_refused() {
    let (sender, right, wrong) = (member(1), member(2), member(3));
    let bytes = seal(&sender, &right.peer_id(), stamp(), &knock()).unwrap();
    // `right` passes on what was for it
    let inner = crypto_box::SecretKey::from(*right.key.x25519())
        .unseal(&bytes)
        .unwrap();
    let to = crypto_box::PublicKey::from(wrong.peer_id().x25519().unwrap());
    let bytes = to.seal(&mut crypto_box::aead::OsRng, &inner).unwrap();
    let refusal = open(&wrong, TODAY, &bytes).unwrap_err();
    assert_eq!(refusal, (Refusal::Recipient, Some(sender.peer_id())));
}

#[test]
fn auth_over_another_dtls_session_closes_the_link() {
    let mut net = Net::mesh(2);
    net.join_all();
    net.until(LONG, "binding", |net| {
        let peer = net.nodes[1].overlay.peers.iter().flatten().next();
        peer.is_some_and(|p| p.link.as_ref().is_some_and(|l| l.binding.is_some()))
    });
    // the answerer signs the fingerprint of a session that is not this one
    let peer = net.nodes[1]
        .overlay
        .peers
        .iter_mut()
        .flatten()
        .next()
        .unwrap();
    let binding = peer.link.as_mut().unwrap().binding.as_mut().unwrap();
    binding.answerer_fingerprint = [9; 32];
    net.until(LONG, "refused", |net| {
        net.nodes[0].overlay.drops().contains_key("auth_failed")
    });
    assert_eq!(net.nodes[0].ups + net.nodes[1].ups, 0);
    let row = net.row(0, 1).unwrap();
    assert_eq!(
        (row.state, row.reason),
        (PeerState::Refused, Some("authentication failed"))
    );
}

#[test]
fn a_dtls_peer_other_than_the_signalled_one_gets_no_auth() {
    let mut net = Net::mesh(2);
    net.join_all();
    net.until(LONG, "binding", |net| {
        let peer = net.nodes[1].overlay.peers.iter().flatten().next();
        peer.is_some_and(|p| p.link.as_ref().is_some_and(|l| l.binding.is_some()))
    });
    let peer = net.nodes[1]
        .overlay
        .peers
        .iter_mut()
        .flatten()
        .next()
        .unwrap();
    let binding = peer.link.as_mut().unwrap().binding.as_mut().unwrap();
    binding.offerer_fingerprint = [9; 32];
    net.until(LONG, "refused", |net| {
        net.nodes[1].overlay.drops().contains_key("auth_failed")
    });
    assert_eq!(net.nodes[0].ups + net.nodes[1].ups, 0);
}

#[test]
fn strangers_cannot_fill_the_tables() {
    let mut net = Net::new();
    net.limits.present = 1_000;
    net.add(&member(1), today, None);
    net.add(&member(2), today, None);
    let now = net.now;
    let most = 1_000;
    for n in 0..most as u32 + 500 {
        let mut seed = [3; 32];
        seed[..4].copy_from_slice(&n.to_be_bytes());
        let id = SecretKey::from_seed(&seed).peer_id();
        net.nodes[0]
            .overlay
            .handle_presence(BACKBONE, crate::Presence::Online(id), now);
    }
    assert!(net.nodes[0].overlay.poll_event().is_none());
    assert!(net.nodes[0].overlay.peers().is_empty(), "nobody wants them");
    assert_eq!(net.nodes[0].overlay.drops()["presence_full"], 500);
    // who is wanted takes a stranger's place
    net.join_all();
    net.until(LONG, "link", |net| net.linked(0, 1));
    assert_eq!(net.nodes[0].overlay.drops()["presence_full"], 500);
}

#[test]
fn refused_strangers_are_remembered_within_bounds() {
    let mut net = Net::new();
    let honest = net.add(&member(1), today, None);
    let to = net.nodes[honest].id;
    let now = net.now;
    for n in 0..200_u8 {
        let stranger = Network::new(2).identity(SecretKey::from_seed(&[n; 32]), "stranger");
        let bytes = seal(&stranger, &to, stamp(), &knock()).unwrap();
        let overlay = &mut net.nodes[honest].overlay;
        overlay.handle_signal(BACKBONE, stranger.peer_id(), &bytes, now);
    }
    assert_eq!(net.nodes[honest].overlay.peers().len(), 64);
}

#[test]
fn a_flood_of_messages_is_not_even_opened() {
    let mut net = Net::new();
    let honest = net.add(&member(1), today, None);
    let now = net.now;
    let (other, to) = (member(2), net.nodes[honest].id);
    let overlay = &mut net.nodes[honest].overlay;
    // properly sealed, and never new
    let full = Payload::Refusal {
        told: Told::Full,
        proof: bytes::Bytes::new(),
    };
    let bytes = seal(&other, &to, stamp(), &full).unwrap();
    for n in 0..100_u8 {
        let mut bytes = bytes.clone();
        bytes[0] ^= n;
        overlay.handle_signal(BACKBONE, other.peer_id(), &bytes, now);
    }
    assert_eq!(overlay.drops()["signal_rate"], 98);
}

/// Keys of nobody, as many as wanted: who knows the network's key can be in its room.
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
            overlay.handle_signal(BACKBONE, *from, &[0; 100], now);
        }
        net.run(Duration::from_millis(100));
    };
    for _ in 0..50 {
        throw(&mut net);
    }
    // one that nobody knows yet
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
        overlay.handle_signal(BACKBONE, from, &[0; 100], now);
    }
    assert_eq!(net.nodes[0].overlay.drops()["signal_not_opened"], 1_000);
    // the member that is known moves, at once
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
    let (from, to) = ("192.0.2.66:6666".parse().unwrap(), net.nodes[0].host);
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
        net.nodes[0]
            .overlay
            .handle_datagram(from, to, datagram, Ecn::None, now);
    }
    assert!(net.nodes[0].overlay.poll_transmit().is_none());
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
    let (from, to, now) = (net.nodes[1].host, net.nodes[0].host, net.now);
    // a fatal alert, as anybody could write it
    let alert = [21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 99, 0, 2, 2, 40];
    net.nodes[0]
        .overlay
        .handle_datagram(from, to, &alert, Ecn::None, now);
    assert_eq!(net.nodes[0].overlay.drops()["dtls_plaintext"], 1);
    net.run(Duration::from_secs(5));
    assert!(net.linked(0, 1) && net.nodes.iter().all(|n| n.downs.is_empty()));
}

#[test]
fn presence_that_flaps_does_not_make_us_knock_each_time() {
    let mut net = Net::mesh(2);
    let (other, now) = (net.nodes[1].id, net.now);
    net.want(0, other, true);
    for _ in 0..1_000 {
        net.nodes[0]
            .overlay
            .handle_presence(BACKBONE, crate::Presence::Online(other), now);
    }
    net.collect(0);
    assert_eq!(net.carried.len(), 1);
}

fn payload() -> impl Strategy<Value = Payload> {
    prop_oneof![
        any::<bool>().prop_map(|restart| Payload::Knock { restart }),
        (any::<bool>(), any::<[u8; 32]>(), description()).prop_map(
            |(restart, attempt, description)| Payload::Offer {
                restart,
                attempt,
                description
            }
        ),
        (
            any::<bool>(),
            any::<[u8; 32]>(),
            any::<[u8; 32]>(),
            description()
        )
            .prop_map(|(restart, attempt, nonce, description)| Payload::Answer {
                restart,
                attempt,
                nonce,
                description
            }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_message_comes_out_as_it_went_in(payload in payload(), session: u64, sequence: u64, to_session: u64) {
        let (from, to) = (member(1), member(2));
        let stamp = Stamp { time: TODAY, session, sequence, to_session };
        let bytes = seal(&from, &to.peer_id(), stamp, &payload).unwrap();
        prop_assert!(bytes.len() < 4_096);
        let opened = open(&to, TODAY, &bytes).unwrap();
        prop_assert_eq!(opened.payload, payload);
        prop_assert_eq!((opened.session, opened.sequence, opened.to_session), (session, sequence, to_session));
        prop_assert_eq!(opened.member.peer, from.peer_id());
    }

    #[test]
    fn arbitrary_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        prop_assert!(open(&member(2), TODAY, &bytes).is_err());
    }

    /// Sealed properly, so that the parser behind the seal gets to see them.
    #[test]
    fn arbitrary_bytes_in_a_seal_are_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..2_000), version: bool) {
        if version && !bytes.is_empty() {
            bytes[0] = 1;
        }
        if bytes.len() >= 34 {
            bytes[2..34].copy_from_slice(member(1).peer_id().public_key());
        }
        let to = crypto_box::PublicKey::from(member(2).peer_id().x25519().unwrap());
        let sealed = to.seal(&mut crypto_box::aead::OsRng, &bytes).unwrap();
        prop_assert!(open(&member(2), TODAY, &sealed).is_err());
    }

    #[test]
    fn a_changed_bit_behind_the_seal_is_refused(at: prop::sample::Index, bit in 0_u8..8) {
        let (from, to) = (member(1), member(2));
        let bytes = seal(&from, &to.peer_id(), stamp(), &knock()).unwrap();
        let mut inner = crypto_box::SecretKey::from(*to.key.x25519()).unseal(&bytes).unwrap();
        let at = at.index(inner.len());
        inner[at] ^= 1_u8 << bit;
        let box_key = crypto_box::PublicKey::from(to.peer_id().x25519().unwrap());
        let sealed = box_key.seal(&mut crypto_box::aead::OsRng, &inner).unwrap();
        prop_assert!(open(&to, TODAY, &sealed).is_err());
    }
}

#[test]
fn what_is_too_long_is_refused_unopened() {
    let refusal = open(&member(1), TODAY, &vec![0; crate::MAX_SIGNAL + 1]).unwrap_err();
    assert_eq!(refusal, (Refusal::Size, None::<PeerId>));
}
