//! Certificates for tests, and links at their renewal and revocation.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use librecast::cert::{Certificate, Chain, Grant, Kind};
use librecast::id::{PeerId, SecretKey};
use librecast::time::UnixTime;

use super::links::joined;
use super::net::{Net, Network, TODAY, today};
use lcroute_overlay::{Identity, PeerState, Revoked};

const SOON: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(60);
const DAY: u64 = 86_400;

/// Makes a chain for `node`: the network key signs an issuer, the issuer signs the node.
pub(crate) fn chain(network: &SecretKey, node: PeerId, name: &str, times: (u64, u64)) -> Chain {
    let issuer = SecretKey::from_seed(&[77; 32]);
    forged(network, &issuer, network.peer_id(), node, name, times)
}

/// Does the same with all values free.
pub(crate) fn forged(
    signer: &SecretKey,
    issuer: &SecretKey,
    network: PeerId,
    node: PeerId,
    name: &str,
    times: (u64, u64),
) -> Chain {
    let grant = Grant::new("", (0, u64::MAX));
    let issued = Certificate::sign(Kind::Issuer, network, issuer.peer_id(), grant, signer);
    let member = Certificate::sign(Kind::Node, network, node, Grant::new(name, times), issuer);
    Chain::new(vec![issued.unwrap(), member.unwrap()]).unwrap()
}

/// Makes a revocation by an issuer, or by the network's key.
fn by(network: bool) -> Revoked {
    Revoked {
        by_network: network,
        revocation: Bytes::from_static(b"signed"),
    }
}

const REVOKED: (PeerState, Option<&str>) = (PeerState::Refused, Some("revoked"));
const SAYS_REVOKED: &str = "the peer says that our certificate is revoked";

fn state(net: &Net, a: usize, b: usize) -> (PeerState, Option<&'static str>) {
    let row = net.row(a, b).unwrap();
    (row.state, row.reason)
}

#[test]
fn a_revoked_node_loses_its_link_at_once_and_gets_no_other() {
    let mut net = joined(Net::mesh(3));
    net.run(LONG);
    let (expelled, now) = (net.nodes[2].id, net.now);
    net.nodes[0].overlay.revoke(expelled, by(false), now);
    let took = net.until(SOON, "the end", |net| {
        !net.links_of(0).contains(&2) && !net.links_of(2).contains(&0)
    });
    assert!(took < Duration::from_millis(50), "{took:?}");
    assert_eq!(net.nodes[0].downs, ["revoked"]);
    // it tries to return, and receives the reason of the refusal
    net.run(LONG * 5);
    assert_eq!(state(&net, 0, 2), REVOKED);
    assert_eq!(state(&net, 2, 0), (PeerState::Refused, Some(SAYS_REVOKED)));
    assert!(net.nodes[0].overlay.drops()["certificate_revoked"] > 0);
    let proof = &net.nodes[2].proofs;
    assert!(proof.iter().all(|p| *p == by(false).revocation) && !proof.is_empty());
    assert_eq!((net.nodes[0].ups, net.nodes[2].ups), (2, 2));
    assert!(
        net.linked(0, 1) && net.linked(1, 2),
        "others know nothing of it"
    );
}

#[test]
fn a_revoked_issuer_takes_its_nodes_with_it() {
    let network = Network::new(1);
    let mut net = Net::new();
    for (seed, issuer) in [(1, 77), (2, 77), (3, 88)] {
        let (key, issuer) = ([seed; 32], SecretKey::from_seed(&[issuer; 32]));
        let key = Arc::new(SecretKey::from_seed(&key));
        let (id, valid) = (network.key.peer_id(), (TODAY - DAY, TODAY + DAY));
        let chain = forged(&network.key, &issuer, id, key.peer_id(), "node", valid);
        net.add(&Identity::new(key, id, chain), today, None);
    }
    let mut net = joined(net);
    let (issuer, now) = (SecretKey::from_seed(&[88; 32]).peer_id(), net.now);
    for n in 0..3 {
        net.nodes[n].overlay.revoke(issuer, by(false), now);
    }
    net.run(LONG);
    assert!(net.linked(0, 2), "issuers do not expel one another");
    let now = net.now;
    for n in 0..3 {
        net.nodes[n].overlay.revoke(issuer, by(true), now);
    }
    net.until(SOON, "the end", |net| net.nodes[2].links.is_empty());
    net.run(LONG);
    assert!(net.linked(0, 1) && net.nodes[2].links.is_empty());
    assert_eq!(state(&net, 0, 2), REVOKED);
}

#[test]
fn what_was_revoked_before_gets_no_link_until_it_is_forgotten() {
    let mut net = Net::mesh(2);
    let (expelled, now) = (net.nodes[1].id, net.now);
    let keys = BTreeMap::from([(expelled, by(false))]);
    net.nodes[0].overlay.set_revoked(keys, now);
    net.join_all();
    net.run(LONG);
    assert!(
        net.nodes[0].ups == 0 && net.nodes[0].sent == 0,
        "no ICE state"
    );
    assert_eq!(state(&net, 0, 1), REVOKED);
    // revocations expire with their certificates
    let now = net.now;
    net.nodes[0].overlay.set_revoked(BTreeMap::new(), now);
    net.until(SOON, "link", |net| net.linked(0, 1));
}

#[test]
fn a_renewed_certificate_keeps_the_link_and_makes_the_next() {
    static CLOCK: AtomicU64 = AtomicU64::new(TODAY);
    let clock = || UnixTime::from_secs(CLOCK.load(Ordering::Relaxed));
    let network = Network::new(1);
    let mut net = Net::new();
    for seed in [1, 2] {
        let identity = network.identity(SecretKey::from_seed(&[seed; 32]), "node");
        net.add(&identity, clock, None);
    }
    let mut net = joined(net);
    net.run(SOON);
    let id = network.key.peer_id();
    let renewed = [0, 1].map(|n| {
        let times = (TODAY, TODAY + 60 * DAY);
        chain(&network.key, net.nodes[n].id, "renewed", times)
    });
    // each renews its own; routing carries it to the other
    let now = net.now;
    for n in [0, 1] {
        let overlay = &mut net.nodes[n].overlay;
        overlay.set_identity_chain(renewed[n].clone(), now);
        overlay.refresh_member(
            renewed[1 - n]
                .verify(&id, UnixTime::from_secs(TODAY))
                .unwrap(),
            now,
        );
    }
    CLOCK.store(TODAY + 30 * DAY, Ordering::Relaxed);
    net.run(LONG);
    assert!(net.nodes.iter().all(|n| n.ups == 1 && n.downs.is_empty()));
    assert_eq!(net.row(0, 1).unwrap().name.as_deref(), Some("renewed"));
    net.wire.cut.insert((0, 1));
    net.until(SOON, "cut", |net| {
        net.nodes.iter().all(|n| n.links.is_empty())
    });
    net.wire.cut.clear();
    net.until(LONG, "another link", |net| net.linked(0, 1));
}

#[test]
fn who_was_refused_as_expired_is_tried_again_when_its_renewal_is_heard_of() {
    let network = Network::new(1);
    let mut net = Net::new();
    let keys = [1, 2].map(|seed| SecretKey::from_seed(&[seed; 32]));
    let ids = keys.each_ref().map(SecretKey::peer_id);
    for (key, from) in keys.into_iter().zip([TODAY - DAY, TODAY - 30 * DAY]) {
        let chain = network.chain(key.peer_id(), "node", from);
        net.add(
            &Identity::new(Arc::new(key), network.key.peer_id(), chain),
            today,
            None,
        );
    }
    net.join_all();
    net.run(LONG);
    let refused = (PeerState::Refused, Some("expired certificate"));
    assert_eq!(state(&net, 0, 1), refused);
    let renewed = network.chain(ids[1], "node", TODAY);
    let member = renewed
        .verify(&network.key.peer_id(), UnixTime::from_secs(TODAY))
        .unwrap();
    let now = net.now;
    net.nodes[1].overlay.set_identity_chain(renewed, now);
    net.nodes[0].overlay.refresh_member(member, now);
    net.until(SOON * 2, "link", |net| net.linked(0, 1));
}
