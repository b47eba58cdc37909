//! Nodes that hide their addresses from most peers: those links use relays, and show none.

use std::collections::BTreeSet;
use std::time::Duration;

use lcroute_overlay::{CarrierId, CarrierKind, Disclosure, EndReason, PathKind, Presence, Trusted};
use librecast::cert::Grant;
use librecast::id::SecretKey;
use librecast::simulated::Behavior;

use super::net::{Net, Network, TODAY, today};
use crate::Ecn;

const SOON: Duration = Duration::from_secs(10);
const LONG: Duration = Duration::from_secs(120);
const FRIEND: (&str, &str) = ("friend", "yes");

/// Makes open hosts, the first of which offers; some certificates have a label.
fn hosts(labelled: &[bool]) -> Net {
    let network = Network::new(1);
    let mut keys: Vec<_> = (100_u8..)
        .take(labelled.len())
        .map(|n| SecretKey::from_seed(&[n; 32]))
        .collect();
    keys.sort_by_key(SecretKey::peer_id);
    let mut net = Net::new();
    for (n, (key, labelled)) in keys.into_iter().zip(labelled).enumerate() {
        let mut grant = Grant::new(format!("node{n}"), (TODAY - 1, TODAY + 1_000_000));
        if *labelled {
            let (key, value) = FRIEND;
            grant.labels.insert(key.to_owned(), value.to_owned());
        }
        let n = net.add(&network.issued(key, grant), today, None);
        net.nodes[n].firewall.filtering = Behavior::EndpointIndependent;
    }
    net
}

fn hide(net: &mut Net, n: usize, trusted: Vec<Trusted>) {
    let now = net.now;
    let overlay = &mut net.nodes[n].overlay;
    assert!(overlay.set_disclosure(Disclosure::Only(trusted), now));
}

fn label() -> Trusted {
    Trusted::Label(FRIEND.0.to_owned(), FRIEND.1.to_owned())
}

fn path(net: &Net, from: usize, to: usize) -> Option<PathKind> {
    net.row(from, to).and_then(|row| row.link.path)
}

fn linked(net: &mut Net, a: usize, b: usize) {
    net.until(SOON, "link", |net| net.linked(a, b));
    net.assert_carries(a, b);
    net.assert_carries(b, a);
}

fn never_met(net: &Net, a: usize, b: usize) {
    let met = [(a, b), (b, a)].map(|pair| net.direct.contains(&pair));
    assert_eq!((met, net.strays), ([false; 2], 0));
}

#[test]
fn a_hidden_host_and_a_member_exchange_no_datagram_whichever_offers_and_wherever_they_move() {
    for hidden in [0, 1] {
        let mut net = hosts(&[false; 2]);
        hide(&mut net, hidden, Vec::new());
        net.add_relay();
        net.join_all();
        linked(&mut net, 0, 1);
        assert_eq!(
            [path(&net, 0, 1), path(&net, 1, 0)],
            [Some(PathKind::Relay); 2]
        );
        net.run(LONG);
        for moving in [1 - hidden, hidden] {
            net.move_to(moving, &format!("10.9.9.{}:7000", 3 + moving));
            net.run(SOON);
            linked(&mut net, 0, 1);
        }
        // the relay has lost its state
        net.add_relay();
        net.run(LONG);
        linked(&mut net, 0, 1);
        never_met(&net, 0, 1);
        // credentials are valid for an hour
        net.run(Duration::from_secs(3_000));
        linked(&mut net, 0, 1);
        never_met(&net, 0, 1);
    }
}

#[test]
fn without_the_policy_the_same_hosts_do() {
    let mut net = hosts(&[false; 2]);
    net.add_relay();
    net.join_all();
    linked(&mut net, 0, 1);
    assert_eq!(path(&net, 0, 1), Some(PathKind::Host));
    assert_eq!(net.direct, BTreeSet::from([(0, 1), (1, 0)]));
}

#[test]
fn both_may_hide() {
    let mut net = hosts(&[false; 2]);
    for n in [0, 1] {
        hide(&mut net, n, Vec::new());
    }
    net.add_relay();
    net.join_all();
    linked(&mut net, 0, 1);
    net.run(LONG);
    never_met(&net, 0, 1);
}

#[test]
fn friends_by_label_or_key_are_linked_directly_and_others_are_not() {
    for hidden in [0, 2] {
        let others: Vec<_> = (0..3).filter(|n| *n != hidden).collect();
        let (friend, stranger) = (others[0], others[1]);
        for by_key in [false, true] {
            let mut labelled = [false; 3];
            labelled[friend] = !by_key;
            let mut net = hosts(&labelled);
            let trusted = match by_key {
                true => Trusted::Node(net.nodes[friend].id),
                false => label(),
            };
            hide(&mut net, hidden, vec![trusted]);
            net.add_relay();
            net.join_all();
            linked(&mut net, hidden, friend);
            linked(&mut net, hidden, stranger);
            net.run(LONG);
            assert_eq!(path(&net, hidden, friend), Some(PathKind::Host));
            assert_eq!(path(&net, stranger, hidden), Some(PathKind::Relay));
            never_met(&net, hidden, stranger);
        }
    }
}

#[test]
fn a_member_that_knows_the_address_from_before_gets_no_answer_there() {
    let mut net = hosts(&[false; 2]);
    net.want_all();
    let now = net.now;
    let record = net.nodes[0].overlay.record(now).unwrap();
    hide(&mut net, 0, Vec::new());
    assert!(net.nodes[0].overlay.record(now).is_none());
    let overlay = &mut net.nodes[1].overlay;
    let learned = overlay.handle_record(CarrierKind::Lan, &record.sealed, |_| true, now);
    let (peer, _) = learned.unwrap();
    overlay.handle_presence(CarrierId(2), Presence::Online(peer), now);
    net.server = false;
    net.run(LONG);
    assert!(net.nodes[0].overlay.drops()["straight_hidden"] > 10);
    assert_eq!(net.direct, BTreeSet::from([(1, 0)]));
    // a server still carries the answer, although each message goes to the address first
    net.server = true;
    net.add_relay();
    net.join_all();
    linked(&mut net, 0, 1);
    net.run(LONG);
    assert_eq!(net.direct, BTreeSet::from([(1, 0)]));
}

#[test]
fn what_belongs_to_a_link_is_not_heeded_at_the_address_of_the_host() {
    let mut net = hosts(&[false; 2]);
    hide(&mut net, 0, Vec::new());
    net.copied = Some(Vec::new());
    net.add_relay();
    net.join_all();
    linked(&mut net, 0, 1);
    net.run(SOON);
    let copied = net.copied.take().unwrap();
    let of_peer = copied.iter().filter(|(by, _)| *by == 1);
    let (from, to) = (net.nodes[1].firewall.host, net.nodes[0].firewall.host);
    net.collect(0);
    let sent = net.nodes[0].sent;
    let mut kinds = BTreeSet::new();
    for (_, contents) in of_peer {
        let before = net.nodes[0].overlay.drops().get("link_hidden").copied();
        net.deliver_datagram(from, to, contents, Ecn::None);
        net.collect(0);
        let after = net.nodes[0].overlay.drops().get("link_hidden").copied();
        if after > before {
            kinds.insert(match contents[0] {
                0..=3 => "STUN",
                20..=63 => "DTLS",
                _ => "media",
            });
        }
    }
    assert_eq!(kinds, BTreeSet::from(["DTLS", "STUN", "media"]));
    assert_eq!(net.nodes[0].sent, sent, "it says something");
    never_met(&net, 0, 1);
}

#[test]
fn without_a_relay_there_is_no_link_and_the_reason_is_named() {
    for hidden in [0, 1] {
        let mut net = hosts(&[false; 2]);
        hide(&mut net, hidden, Vec::new());
        net.join_all();
        net.run(LONG);
        assert!(!net.linked(0, 1));
        let reason = net.row(hidden, 1 - hidden).unwrap().reason;
        let expected = EndReason::NoRelay.text();
        assert!(reason == Some(expected) || hidden == 1, "{reason:?}");
        never_met(&net, 0, 1);
        net.add_relay();
        net.until(Duration::from_secs(60), "link", |net| net.linked(0, 1));
        never_met(&net, 0, 1);
    }
}

#[test]
fn links_follow_the_configuration() {
    let mut net = hosts(&[false; 2]);
    net.add_relay();
    net.join_all();
    linked(&mut net, 0, 1);
    assert_eq!(path(&net, 1, 0), Some(PathKind::Host));
    hide(&mut net, 0, Vec::new());
    net.run(Duration::from_secs(1));
    net.direct.clear();
    linked(&mut net, 0, 1);
    assert_eq!(path(&net, 1, 0), Some(PathKind::Relay));
    let now = net.now;
    let overlay = &mut net.nodes[0].overlay;
    assert!(overlay.set_disclosure(Disclosure::Everybody, now));
    let direct = |net: &Net| path(net, 1, 0) == Some(PathKind::Host);
    net.until(LONG, "direct", direct);
}
