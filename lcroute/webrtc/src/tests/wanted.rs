//! Link requests: only links that a node wants are made.

use std::collections::BTreeSet;
use std::time::Duration;

use super::links::joined;
use super::net::{Net, Network, SERVER, today};
use lcroute_overlay::{Event, OVERLAY_CARRIER, PeerState, Presence};
use librecast::id::SecretKey;

const SOON: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(60);

/// Nodes that know each other and want no link.
fn unwanted(count: u8) -> Net {
    let mut net = Net::mesh(count);
    net.all_wanted = false;
    net.join_all();
    net.run(SOON);
    net
}

fn want(net: &mut Net, a: usize, b: usize, wants: bool) {
    let peer = net.nodes[b].id;
    net.want(a, peer, wants);
}

#[test]
fn presence_alone_makes_no_link() {
    let net = unwanted(3);
    assert!(net.carried.is_empty());
    for node in &net.nodes {
        assert!(node.sent == 0 && node.overlay.peers().is_empty());
    }
}

#[test]
fn one_side_that_wants_a_link_is_enough() {
    for (a, b) in [(0, 1), (1, 0)] {
        let mut net = unwanted(2);
        want(&mut net, a, b, true);
        let took = net.until(SOON, "link", |net| net.linked(0, 1));
        assert!(took < Duration::from_millis(800), "{took:?}");
        net.run(LONG);
        assert!(net.nodes.iter().all(|n| n.ups == 1 && n.downs.is_empty()));
    }
}

#[test]
fn a_peer_wanted_before_it_is_present_gets_a_connection_request_when_it_comes() {
    let mut net = Net::mesh(2);
    net.all_wanted = false;
    want(&mut net, 0, 1, true);
    net.run(LONG);
    assert!(net.carried.is_empty(), "nobody to be reached");
    net.join_all();
    net.until(SOON, "link", |net| net.linked(0, 1));
}

#[test]
fn who_is_not_wanted_any_more_is_not_tried_again_and_not_shown() {
    let mut net = unwanted(2);
    net.wire.cut.insert((0, 1));
    want(&mut net, 0, 1, true);
    net.run(LONG);
    assert!(net.row(0, 1).is_some());
    want(&mut net, 0, 1, false);
    // an attempt under way completes
    net.run(LONG);
    let requests = net.carried.len();
    net.run(LONG * 10);
    assert_eq!(net.carried.len(), requests);
    for (a, b) in [(0, 1), (1, 0)] {
        assert_eq!(net.row(a, b), None, "{a}");
    }
    net.wire.cut.clear();
    want(&mut net, 0, 1, true);
    net.until(SOON, "link", |net| net.linked(0, 1));
}

#[test]
fn a_link_outlives_the_wish_for_it() {
    let mut net = unwanted(2);
    want(&mut net, 0, 1, true);
    net.until(SOON, "link", |net| net.linked(0, 1));
    want(&mut net, 0, 1, false);
    net.run(LONG);
    assert!(net.nodes.iter().all(|n| n.ups == 1 && n.downs.is_empty()));
    // and is not made again
    net.wire.cut.insert((0, 1));
    net.until(SOON, "cut", |net| {
        net.nodes.iter().all(|n| n.links.is_empty())
    });
    net.wire.cut.clear();
    net.run(LONG);
    assert!(net.nodes.iter().all(|n| n.links.is_empty() && n.ups == 1));
    assert!(net.nodes.iter().all(|n| n.overlay.peers().is_empty()));
}

#[test]
fn a_link_closed_gracefully_stays_closed_unless_the_other_side_wants_it() {
    for other_wants in [false, true] {
        let mut net = unwanted(2);
        want(&mut net, 0, 1, true);
        net.until(SOON, "link", |net| net.linked(0, 1));
        net.run(LONG);
        want(&mut net, 0, 1, false);
        want(&mut net, 1, 0, other_wants);
        let (link, now) = (net.link(0, 1).unwrap(), net.now);
        let overlay = &mut net.nodes[0].overlay;
        overlay.close_gracefully(link, now);
        let took = net.until(SOON, "goodbye", |net| net.nodes[1].downs.len() == 1);
        assert!(took < Duration::from_millis(50), "{took:?}");
        assert_eq!(net.nodes[0].downs, ["neither side wants it"]);
        net.run(LONG);
        let ups = 1 + usize::from(other_wants);
        assert!(net.nodes.iter().all(|n| n.ups == ups), "{other_wants}");
        assert_eq!(net.linked(0, 1), other_wants);
    }
}

#[test]
fn goodbye_survives_the_loss_of_a_datagram() {
    let mut silent = 0;
    for dice in 0..20 {
        let mut net = unwanted(2);
        want(&mut net, 0, 1, true);
        net.until(SOON, "link", |net| net.linked(0, 1));
        want(&mut net, 0, 1, false);
        net.set_seed(dice * 7_919);
        net.set_loss(200);
        let (link, now) = (net.link(0, 1).unwrap(), net.now);
        let overlay = &mut net.nodes[0].overlay;
        overlay.close_gracefully(link, now);
        net.until(SOON, "its end", |net| net.nodes[1].downs.len() == 1);
        silent += usize::from(net.nodes[1].downs == ["silent"]);
    }
    assert!(silent <= 3, "{silent} of 20");
}

#[test]
fn a_peer_that_cannot_be_reached_directly_is_told_of_and_still_tried() {
    let mut net = unwanted(2);
    let peer = net.nodes[1].id;
    net.wire.cut.insert((0, 1));
    want(&mut net, 0, 1, true);
    let took = net.until(LONG, "word of it", |net| !net.nodes[0].failing.is_empty());
    assert!(took <= Duration::from_secs(11), "{took:?}");
    assert_eq!(net.nodes[0].failing, [(peer, true)]);
    assert!(net.nodes[1].failing.is_empty(), "it does not want us");
    net.run(LONG * 30);
    assert_eq!(net.nodes[0].failing.len(), 1, "told once");
    let before = net.carried.len();
    net.run(LONG * 5);
    let tried = net.carried.len() - before;
    assert!((5..100).contains(&tried), "{tried} signals in five minutes");
    net.wire.cut.clear();
    net.until(LONG, "link", |net| net.linked(0, 1));
    assert_eq!(net.nodes[0].failing, [(peer, true), (peer, false)]);
}

#[test]
fn a_peer_that_never_answers_is_told_of() {
    let mut net = unwanted(2);
    let peer = net.nodes[1].id;
    net.kill(1);
    want(&mut net, 0, 1, true);
    let took = net.until(LONG, "word of it", |net| !net.nodes[0].failing.is_empty());
    assert!(took <= Duration::from_secs(11), "{took:?}");
    // it is back, without a report until there is a link
    let mut keys: Vec<_> = [100, 101].map(|s| SecretKey::from_seed(&[s; 32])).into();
    keys.sort_by_key(SecretKey::peer_id);
    net.restart(1, &Network::new(1).identity(keys.swap_remove(1), "again"));
    net.until(SOON, "link", |net| net.linked(0, 1));
    assert_eq!(net.nodes[0].failing, [(peer, true), (peer, false)]);
}

#[test]
fn who_is_reached_in_time_is_not_told_of() {
    let mut net = joined(Net::mesh(4));
    net.run(LONG);
    assert!(net.nodes.iter().all(|n| n.failing.is_empty()));
}

#[test]
fn links_to_peers_that_nobody_wants_are_bounded() {
    let mut net = Net::new();
    net.all_wanted = false;
    net.bounds.links = 2;
    let network = Network::new(1);
    for seed in 1..=5 {
        let identity = network.identity(SecretKey::from_seed(&[seed; 32]), "member");
        net.add(&identity, today, None);
    }
    net.join_all();
    net.run(SOON);
    for n in 1..=4 {
        want(&mut net, n, 0, true);
        net.run(SOON);
    }
    assert_eq!(net.nodes[0].links.len(), 2);
    assert!(net.nodes[0].overlay.drops()["peers_full"] >= 2);
    // a peer that this node wants gets a link all the same
    want(&mut net, 0, 4, true);
    net.until(LONG, "link", |net| net.linked(0, 4));
    assert!(!net.linked(0, 3));
}

#[test]
fn nodes_meet_over_a_third_without_a_server() {
    let mut net = Net::mesh(3);
    net.all_wanted = false;
    net.join_all();
    want(&mut net, 0, 1, true);
    want(&mut net, 2, 1, true);
    net.until(SOON, "links", |net| net.linked(0, 1) && net.linked(1, 2));
    net.server = false;
    let now = net.now;
    for node in &mut net.nodes {
        let overlay = &mut node.overlay;
        overlay.handle_presence(SERVER, Presence::CarrierDown, now);
    }
    // routing finds the hop to each node
    let ids = [0, 2].map(|n| net.nodes[n].id);
    for (n, other) in [(0, ids[1]), (2, ids[0])] {
        let overlay = &mut net.nodes[n].overlay;
        overlay.handle_presence(OVERLAY_CARRIER, Presence::Online(other), now);
    }
    net.run(SOON);
    assert!(!net.linked(0, 2), "not wanted yet");
    want(&mut net, 2, 0, true);
    let took = net.until(SOON, "link", |net| net.linked(0, 2));
    assert!(took < Duration::from_millis(800), "{took:?}");
    assert!(net.nodes.iter().all(|n| n.downs.is_empty()));
}

#[test]
fn messages_name_the_ways_they_may_take() {
    let mut net = Net::mesh(2);
    let (peer, now) = (net.nodes[1].id, net.now);
    let overlay = &mut net.nodes[0].overlay;
    overlay.set_wanted(BTreeSet::from([peer]), now);
    for (carrier, ways) in [(OVERLAY_CARRIER, (true, false)), (SERVER, (true, true))] {
        overlay.handle_presence(carrier, Presence::Online(peer), now);
        overlay.set_wanted(BTreeSet::new(), now);
        overlay.set_wanted(BTreeSet::from([peer]), now);
        let event = overlay.poll_event(now);
        let Some(Event::Signal {
            over_links,
            over_servers,
            ..
        }) = event
        else {
            panic!("{event:?}");
        };
        assert_eq!((over_links, over_servers), ways);
        while overlay.poll_event(now).is_some() {}
    }
}

#[test]
fn a_copy_over_a_second_carrier_is_no_drop() {
    let mut net = Net::mesh(2);
    net.join_all();
    net.until(SOON, "link", |net| net.linked(0, 1));
    let (_, to, bytes) = net.carried[0].clone();
    let n = net.index(to).unwrap();
    let now = net.now;
    let overlay = &mut net.nodes[n].overlay;
    overlay.handle_routed_signal(None, &bytes, now);
    assert!(!overlay.drops().contains_key("signal_replayed"));
    assert_eq!(overlay.drops()["signal_copy"], 1);
    net.run(SOON);
    assert_eq!(net.row(0, 1).unwrap().state, PeerState::Connected);
}
