//! The life of links: begin, moves, end.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::net::{Net, Network, SERVER, STUN, today};
use lcroute_overlay::{EndReason, PeerState, Presence, SendError};

use crate::Unreachable;
use librecast::id::SecretKey;

const SOON: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(60);

fn connected(count: u8) -> Net {
    connected_by(&vec![true; count.into()])
}

/// Nodes with links, each with the media lane or without.
pub(super) fn connected_by(media: &[bool]) -> Net {
    joined(Net::mesh_of(media))
}

/// Does the same at a distance of `delay`.
pub(super) fn connected_over(media: &[bool], delay: Duration) -> Net {
    let mut net = Net::mesh_of(media);
    net.wire.path.delay = delay;
    joined(net)
}

/// Joins all nodes, and runs until they form a mesh.
pub(super) fn joined(mut net: Net) -> Net {
    net.join_all();
    net.until(LONG, "full mesh", |net| {
        (0..net.nodes.len()).all(|a| net.nodes[a].links.len() == net.nodes.len() - 1)
    });
    net
}

#[test]
fn two_closed_hosts_get_a_link_in_both_directions() {
    let mut net = Net::mesh(2);
    net.join_all();
    let took = net.until(SOON, "link", |net| net.linked(0, 1));
    assert!(took < Duration::from_millis(800), "{took:?}");
    net.send_control(0, 1, b"control from 0").unwrap();
    net.send_control(1, 0, b"control from 1").unwrap();
    net.send_data(0, 1, [&[0x10], b"data from 0"]).unwrap();
    net.send_data(1, 0, [&[0x10], b"data from 1"]).unwrap();
    net.until(SOON, "messages", |net| {
        net.nodes
            .iter()
            .all(|n| n.control.len() == 1 && n.data.len() == 1)
    });
    let (zero, one) = (net.nodes[0].id, net.nodes[1].id);
    assert_eq!(net.nodes[1].control[0], (zero, "control from 0".into()));
    assert_eq!(net.nodes[0].control[0], (one, "control from 1".into()));
    assert_eq!(net.nodes[1].data[0], (zero, "\u{10}data from 0".into()));
    assert_eq!(net.nodes[0].data[0], (one, "\u{10}data from 1".into()));
    let row = net.row(0, 1).unwrap();
    assert_eq!(
        (row.state, row.name.as_deref()),
        (PeerState::Connected, Some("node1"))
    );
    assert!(row.traffic.tx_bytes > 0 && row.traffic.rx_bytes > 0 && row.address.is_some());
}

#[test]
fn both_directions_of_the_data_channel_are_unordered_and_unretransmitted() {
    let mut net = connected_by(&[false; 2]);
    net.set_loss(200);
    for (a, b) in [(0, 1), (1, 0)] {
        for n in 0..200_u8 {
            // a stalled association may refuse data, and a link may not outlive the loss
            let _ = net.send_data(a, b, [&[0x10], &[n; 100]]);
            net.run(Duration::from_millis(1));
        }
    }
    net.run(Duration::from_secs(5));
    net.set_loss(0);
    net.run(Duration::from_secs(10));
    for node in &net.nodes {
        let got = node.data.len();
        assert!(
            got > 0 && got < 200,
            "{got} of 200 at 20 % loss: lost ones come again"
        );
    }
}

#[test]
fn an_idle_link_stays_and_costs_little() {
    let mut net = connected(2);
    let before: u64 = net.nodes.iter().map(|n| n.sent).sum();
    net.run(Duration::from_secs(600));
    assert!(net.nodes.iter().all(|n| n.ups == 1 && n.downs.is_empty()));
    let sent = net.nodes.iter().map(|n| n.sent).sum::<u64>() - before;
    assert!(sent < 600 * 15, "{sent} datagrams in ten minutes");
    let wakeups: u64 = net.nodes.iter().map(|n| n.wakeups).sum();
    assert!(
        wakeups < 2 * 600 * 5,
        "{wakeups} timers in ten minutes of two nodes"
    );
    let rtt = net.row(0, 1).unwrap().link.rtt_ms.unwrap();
    assert!((3.9..5.0).contains(&rtt), "{rtt} ms over 2 x 2 ms");
}

#[test]
fn the_round_trip_of_a_new_link_is_told_at_once_and_again_when_it_is_shorter() {
    let mut net = connected(2);
    net.run(Duration::from_millis(100));
    let told = |net: &Net| net.nodes[0].trips.last().map(|(_, rtt)| rtt.as_micros());
    assert!(
        (3_900..5_000).contains(&told(&net).unwrap()),
        "{:?}",
        told(&net)
    );
    net.wire.path.delay = Duration::from_millis(1);
    net.run(Duration::from_secs(6));
    assert!(
        (1_900..3_000).contains(&told(&net).unwrap()),
        "{:?}",
        told(&net)
    );
    let count = net.nodes[0].trips.len();
    net.wire.path.delay = Duration::from_millis(5);
    net.run(Duration::from_secs(60));
    assert_eq!(net.nodes[0].trips.len(), count, "a longer one is not told");
}

#[test]
fn links_outlive_loss_that_stalls_sctp() {
    let mut net = connected(2);
    net.set_loss(100);
    for _ in 0..600 {
        let _ = net.send_data(0, 1, [&[0x10], &[0; 1000]]);
        net.run(Duration::from_millis(100));
    }
    assert!(
        net.nodes.iter().all(|n| n.downs.is_empty()),
        "{:?}",
        net.nodes[0].downs
    );
    let loss = net.row(0, 1).unwrap().link.loss.unwrap();
    assert!((0.02..0.5).contains(&loss), "{loss}");
}

#[test]
fn goodbye_is_noticed_at_once() {
    let mut net = connected(2);
    let now = net.now;
    net.nodes[1].overlay.shutdown(now);
    let took = net.until(SOON, "goodbye", |net| net.nodes[0].links.is_empty());
    assert!(took < Duration::from_millis(50), "{took:?}");
    assert_eq!(net.row(0, 1).unwrap().state, PeerState::Lost);
}

#[test]
fn a_dead_peer_is_noticed_within_a_second() {
    let mut net = connected(2);
    net.run(Duration::from_secs(10));
    net.kill(1);
    let took = net.until(SOON, "death", |net| net.nodes[0].links.is_empty());
    assert!(took < Duration::from_millis(850), "{took:?}");
    assert_eq!(net.nodes[0].downs, ["silent"]);
    net.run(LONG);
    assert!(
        net.nodes[0].overlay.next_timeout().is_some(),
        "it is tried for ever"
    );
}

#[test]
fn a_cut_link_comes_back_when_the_cut_heals() {
    let mut net = connected(2);
    net.run(Duration::from_secs(10));
    net.wire.cut.insert((0, 1));
    net.until(SOON, "cut", |net| {
        net.nodes.iter().all(|n| n.links.is_empty())
    });
    net.run(Duration::from_secs(20));
    net.wire.cut.clear();
    net.until(Duration::from_secs(60), "healed", |net| net.linked(0, 1));
}

#[test]
fn a_killed_and_restarted_peer_replaces_its_link_quickly() {
    // the smaller PeerId offers, the larger answers: both directions
    for n in [0, 1] {
        let mut net = connected(2);
        net.run(Duration::from_secs(10));
        let network = Network::new(1);
        let mut keys: Vec<_> = [100, 101].map(|s| SecretKey::from_seed(&[s; 32])).into();
        keys.sort_by_key(SecretKey::peer_id);
        net.kill(n);
        net.run(Duration::from_millis(50));
        net.restart(n, &network.identity(keys.swap_remove(n), "again"));
        let took = net.until(SOON * 2, "again", |net| {
            net.linked(0, 1) && net.nodes[1 - n].ups == 2
        });
        assert!(took < Duration::from_millis(1_500), "{n}: {took:?}");
        net.run(Duration::from_secs(10));
        assert!(net.linked(0, 1));
        assert_eq!(net.nodes[1 - n].ups, 2, "and stays");
    }
}

#[test]
fn the_server_may_go_without_harm_to_links() {
    let mut net = connected(3);
    net.server = false;
    let now = net.now;
    for node in &mut net.nodes {
        node.overlay
            .handle_presence(SERVER, Presence::CarrierDown, now);
    }
    net.run(LONG);
    assert!(
        net.nodes
            .iter()
            .all(|n| n.links.len() == 2 && n.downs.is_empty())
    );
}

#[test]
fn lost_signalling_is_made_up_for() {
    let mut net = Net::mesh(2);
    net.server = false;
    net.join_all();
    net.run(Duration::from_secs(3));
    net.server = true;
    net.until(Duration::from_secs(12), "link", |net| net.linked(0, 1));
}

#[test]
fn an_address_change_keeps_the_link() {
    // the offerer restarts ICE itself, the answerer requests it
    for (n, media) in [(0, false), (1, false), (0, true), (1, true)] {
        let mut net = connected_by(&[media; 2]);
        net.run(Duration::from_secs(3));
        net.move_to(n, "10.9.9.9:7777");
        net.run(Duration::from_secs(3));
        net.assert_carries(0, 1);
        assert!(
            net.nodes.iter().all(|n| n.ups == 1 && n.downs.is_empty()),
            "moving {n}"
        );
        net.run(LONG);
        assert!(
            net.nodes.iter().all(|n| n.ups == 1 && n.downs.is_empty()),
            "moving {n}, later"
        );
    }
}

#[test]
fn an_address_change_that_cuts_the_carrier_too_keeps_the_link() {
    for n in [0, 1] {
        let mut net = connected(2);
        net.run(Duration::from_secs(3));
        // the request for a restart is lost with the old connection to the server ...
        net.server = false;
        net.move_to(n, "10.9.9.9:7777");
        net.run(Duration::from_millis(200));
        // ... and repeated over the next
        net.server = true;
        net.join(n);
        net.run(LONG);
        assert!(
            net.nodes.iter().all(|n| n.ups == 1 && n.downs.is_empty()),
            "moving {n}"
        );
        net.assert_carries(0, 1);
    }
}

#[test]
fn both_addresses_may_change_at_once() {
    let mut net = connected(2);
    net.run(Duration::from_secs(3));
    net.move_to(0, "10.9.9.9:7777");
    net.move_to(1, "10.8.8.8:8888");
    net.run(Duration::from_secs(1));
    // and again, before the first restart has settled everywhere
    net.move_to(0, "10.7.7.7:7777");
    net.until(LONG, "data after the move", |net| {
        net.linked(0, 1) && net.row(0, 1).is_some_and(|row| row.link.rtt_ms.is_some())
    });
    net.run(Duration::from_secs(10));
    net.assert_carries(0, 1);
}

#[test]
fn links_are_made_in_spite_of_loss_and_disorder() {
    for dice in 0..30 {
        let mut net = Net::mesh(2);
        net.set_seed(dice * 7_919);
        net.set_loss(100);
        net.set_jitter(20);
        net.join_all();
        net.until(Duration::from_secs(40), "link", |net| net.linked(0, 1));
    }
}

#[test]
fn disorder_alone_costs_no_retry() {
    for dice in 0..30 {
        let mut net = Net::mesh(2);
        net.set_seed(dice * 7_919);
        net.set_jitter(20);
        net.join_all();
        let took = net.until(LONG, "link", |net| net.linked(0, 1));
        assert!(took < Duration::from_millis(1_000), "{dice}: {took:?}");
    }
}

#[test]
fn an_address_more_disturbs_nothing() {
    let mut net = connected(2);
    let (host, now) = (net.nodes[0].firewall.host, net.now);
    let more = vec!["10.9.9.9:7000".parse().unwrap(), host];
    net.nodes[0]
        .overlay
        .connections_mut()
        .set_local_candidates(more, now);
    let before = net.carried.len();
    net.run(Duration::from_secs(5));
    assert_eq!(net.carried.len(), before, "no signalling");
    assert!(net.nodes.iter().all(|n| n.ups == 1 && n.downs.is_empty()));
}

/// Makes two nodes, each behind its own NAT.
pub(super) fn behind_nats() -> Net {
    let network = Network::new(1);
    let mut net = Net::new();
    for (seed, nat) in [(1, "198.51.100.1:7000"), (2, "198.51.100.2:7001")] {
        let identity = network.identity(SecretKey::from_seed(&[seed; 32]), "natted");
        net.add(&identity, today, Some(nat));
    }
    net
}

#[test]
fn two_nodes_behind_different_nats_connect() {
    let mut net = behind_nats();
    net.join_all();
    net.until(Duration::from_secs(5), "link", |net| net.linked(0, 1));
    net.run(LONG);
    assert!(net.nodes.iter().all(|n| n.ups == 1 && n.downs.is_empty()));
}

#[test]
fn a_slow_stun_server_delays_only_those_who_need_it() {
    let slow = Duration::from_millis(700);
    let mut net = Net::mesh(2);
    net.stun_delay = slow;
    let now = net.now;
    for node in &mut net.nodes {
        let servers = vec![STUN];
        node.overlay
            .connections_mut()
            .set_stun_servers(servers, now);
    }
    net.join_all();
    net.until(slow, "link", |net| net.linked(0, 1));
    net.run(LONG);
    assert!(net.nodes.iter().all(|n| n.ups == 1 && n.downs.is_empty()));

    let mut net = behind_nats();
    net.stun_delay = slow;
    net.join_all();
    let took = net.until(20 * slow, "link", |net| net.linked(0, 1));
    assert!(took < 2 * slow, "{took:?}");
    net.run(LONG);
    assert!(net.nodes.iter().all(|n| n.ups == 1 && n.downs.is_empty()));
}

#[test]
fn four_nodes_make_a_full_mesh_over_one_socket_each() {
    let mut net = connected(4);
    for a in 0..4 {
        for b in (0..4).filter(|b| *b != a) {
            net.send_data(a, b, [&[0x10], &[a as u8, b as u8]]).unwrap();
        }
    }
    net.run(SOON);
    for b in 0..4 {
        assert_eq!(net.nodes[b].data.len(), 3);
        for (from, message) in &net.nodes[b].data {
            assert_eq!(
                message[..],
                [0x10, net.index(*from).unwrap() as u8, b as u8]
            );
        }
    }
    net.run(LONG);
    assert!(net.nodes.iter().all(|n| n.ups == 3 && n.downs.is_empty()));
}

#[test]
fn reachable_peers_retry_with_growing_pauses() {
    let mut net = Net::mesh(2);
    net.wire.cut.insert((0, 1));
    net.join_all();
    net.run(Duration::from_secs(120));
    let early = net.carried.len();
    assert!((5..80).contains(&early), "{early} signals in two minutes");
    net.run(Duration::from_secs(600));
    let late = net.carried.len() - early;
    assert!((10..200).contains(&late), "{late} signals in ten minutes");
    net.wire.cut.clear();
    net.until(LONG, "healed", |net| net.linked(0, 1));
}

#[test]
fn why_there_is_no_link_stays_readable_while_it_is_tried_again() {
    let mut net = Net::mesh(2);
    net.wire.cut.insert((0, 1));
    net.wire.cut.insert((1, 0));
    net.join_all();
    let reason = |net: &Net| net.row(0, 1).and_then(|row| row.reason);
    net.until(LONG, "a failed attempt", |net| reason(net).is_some());
    for _ in 0..40 {
        net.run(Duration::from_secs(1));
        assert!(reason(&net).is_some_and(|r| r.starts_with("no direct path")));
    }
    net.wire.cut.clear();
    net.until(Duration::from_secs(90), "link", |net| net.linked(0, 1));
    assert_eq!(reason(&net), None);
}

#[test]
fn a_full_channel_refuses_instead_of_growing() {
    let mut net = connected_by(&[false; 2]);
    net.wire.cut.insert((0, 1));
    let mut taken = 0;
    let refusal = loop {
        match net.send_data(0, 1, [&[0x10], &[0; 1_200]]) {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken < 10_000, "no bound");
    };
    assert_eq!(refusal, SendError::QueueFull);
    assert!(taken * 1_201 <= 1 << 20 && taken > 500, "{taken}");
    let refusal = net.send_control(0, 1, &[0; 70_000]);
    assert_eq!(refusal, Err(SendError::TooLarge));
}

#[test]
fn closing_a_link_is_told_to_both() {
    let mut net = connected(2);
    let (link, now) = (net.link(0, 1).unwrap(), net.now);
    net.nodes[0]
        .overlay
        .close_link(link, EndReason::Fault("broke the protocol"), now);
    net.until(SOON, "closed", |net| {
        net.nodes[0].downs.len() == 1 && net.nodes[1].downs.len() == 1
    });
    assert_eq!(net.nodes[0].downs, ["broke the protocol"]);
    assert_eq!(
        net.nodes[0].overlay.send_data(link, [b"x", b""], now),
        Err(SendError::NoSuchLink)
    );
    net.until(LONG, "tried again", |net| net.linked(0, 1));
}

#[test]
fn nothing_is_sent_without_peers() {
    let mut net = Net::mesh(1);
    net.run(LONG);
    assert_eq!(net.nodes[0].sent, 0);
    let now = net.now;
    assert!(net.nodes[0].overlay.poll_event(now).is_none());
}

#[test]
fn a_node_holds_256_links() {
    const LINKS: u16 = 256;
    let (network, mut net) = (Network::new(1), Net::new());
    for n in 0..=LINKS {
        let mut seed = [1; 32];
        seed[..2].copy_from_slice(&n.to_be_bytes());
        let identity = network.identity(SecretKey::from_seed(&seed), &format!("node{n}"));
        net.add(&identity, today, None);
    }
    for n in 1..=usize::from(LINKS) {
        net.introduce(0, n);
    }
    net.until(LONG, "links", |net| {
        net.nodes[0].links.len() == usize::from(LINKS)
    });
    net.run(SOON);
    let links: Vec<_> = net.nodes[0].links.keys().copied().collect();
    assert_eq!(links.len(), usize::from(LINKS));
    for link in links {
        let (now, message) = (net.now, [&[0x10; 32][..], b"to each"]);
        net.nodes[0].overlay.send_data(link, message, now).unwrap();
    }
    net.run(SOON);
    assert!(net.nodes[1..].iter().all(|node| node.data.len() == 1));
    assert!(net.nodes.iter().all(|node| node.downs.is_empty()));
}

#[test]
fn no_link_dies_by_mistake_at_20_percent_loss_each_way() {
    // three links for an hour
    let mut net = connected_over(&[true; 3], Duration::from_millis(50));
    net.set_loss(200);
    net.set_jitter(10);
    net.run(LONG * 60);
    assert!(net.nodes.iter().all(|n| n.ups == 2 && n.downs.is_empty()));
    let loss = net.row(0, 1).unwrap().link.loss.unwrap();
    assert!((0.15..0.6).contains(&loss), "{loss} of round trips");
}

#[test]
fn a_dead_neighbour_is_noticed_sooner_where_much_was_heard() {
    let mut net = connected(2);
    net.run(SOON);
    for _ in 0..300 {
        for (a, b) in [(0, 1), (1, 0)] {
            net.send_data(a, b, [&[0x10], &[0; 100]]).unwrap();
        }
        net.run(Duration::from_millis(10));
    }
    net.kill(1);
    let took = net.until(SOON, "death", |net| net.nodes[0].links.is_empty());
    assert!(took < Duration::from_millis(600), "{took:?}");
}

/// Makes an ICMP error that anybody can forge without our packets.
fn forged(remote: SocketAddr) -> Unreachable<'static> {
    Unreachable {
        remote,
        is_refusal: true,
        quoted: &[0; 28],
    }
}

#[test]
fn word_that_nobody_listens_is_believed_only_after_asking() {
    let mut net = connected(2);
    net.run(Duration::from_millis(10_250));
    let (host, now) = (net.nodes[1].firewall.host, net.now);
    for _ in 0..1_000 {
        net.nodes[0]
            .overlay
            .connections_mut()
            .handle_unreachable(&forged(host), now);
    }
    let before = net.nodes[0].sent;
    net.run(Duration::from_millis(10));
    let sent = net.nodes[0].sent - before;
    assert!(
        (1..=2).contains(&sent),
        "{sent}: a hello, and the answer to one"
    );
    net.run(LONG);
    assert!(net.nodes.iter().all(|n| n.downs.is_empty()));
    // a true error ends the link sooner than silence
    net.kill(1);
    let now = net.now;
    net.nodes[0]
        .overlay
        .connections_mut()
        .handle_unreachable(&forged(host), now);
    let took = net.until(SOON, "death", |net| net.nodes[0].links.is_empty());
    assert!(took > Duration::from_millis(350), "{took:?}: forged");
    assert!(took < Duration::from_millis(450), "{took:?}");
}

/// Returns the time from the first datagram to a dead peer to the verdict; errors quote `quotes`
/// bytes.
fn refused_within(quotes: usize, streams: bool) -> Duration {
    let mut net = connected(2);
    net.run(Duration::from_millis(10_100));
    net.quotes = Some(quotes);
    net.kill(1);
    if streams {
        net.send_data(0, 1, [&[0x10], &[0; 100]]).unwrap();
    }
    let sent = net.nodes[0].sent;
    net.until(SOON, "a datagram", |net| net.nodes[0].sent > sent);
    let took = net.until(SOON, "death", |net| net.nodes[0].links.is_empty());
    let reason = if quotes > 0 { "unreachable" } else { "silent" };
    assert_eq!(net.nodes[0].downs, [reason]);
    took
}

#[test]
fn who_is_refused_by_its_own_host_is_gone_at_once() {
    for streams in [false, true] {
        let took = refused_within(548, streams);
        assert!(took < Duration::from_millis(150), "{took:?}");
        // the least quote of a router does not identify the datagram
        let took = refused_within(0, streams);
        assert!(took > Duration::from_millis(350), "{took:?}");
        assert!(took < Duration::from_millis(450), "{took:?}");
    }
}

#[test]
fn forged_errors_end_no_link_that_loses_much_and_takes_long() {
    // 300 ms round trip, a fifth lost in each direction
    let mut net = connected_over(&[true; 2], Duration::from_millis(150));
    net.set_loss(200);
    net.set_jitter(10);
    for _ in 0..600 {
        net.run(Duration::from_secs(1));
        for (n, other) in [(0, 1), (1, 0)] {
            let (host, now) = (net.nodes[other].firewall.host, net.now);
            net.nodes[n]
                .overlay
                .connections_mut()
                .handle_unreachable(&forged(host), now);
        }
    }
    assert!(net.nodes.iter().all(|n| n.downs.is_empty()));
}

/// Cuts all nodes from each other and from signalling for `lasts`.
fn blackout(net: &mut Net, lasts: Duration) {
    let count = net.nodes.len();
    let pairs = (0..count).flat_map(|a| (0..a).map(move |b| (a, b)));
    net.wire.cut = pairs.collect();
    net.server = false;
    net.run(lasts);
    net.wire.cut.clear();
}

#[test]
fn after_a_blackout_links_come_back_without_signalling() {
    for (count, lasts) in [(2, 2), (2, 20), (4, 20), (4, 50)] {
        let mut net = connected(count);
        net.run(SOON);
        blackout(&mut net, Duration::from_secs(lasts));
        for (n, node) in net.nodes.iter().enumerate() {
            assert!(node.links.is_empty(), "{n}");
            assert!(node.downs.iter().all(|why| *why == "silent"));
        }
        let took = net.until(LONG, "links", |net| {
            (0..count.into()).all(|a| (0..a).all(|b| net.linked(a, b)))
        });
        assert!(
            took < Duration::from_millis(900),
            "{count}, {lasts} s: {took:?}"
        );
    }
}

#[test]
fn after_a_blackout_nodes_behind_nats_find_each_other_without_signalling() {
    let mut net = behind_nats();
    net.join_all();
    net.until(Duration::from_secs(5), "link", |net| net.linked(0, 1));
    net.run(SOON);
    blackout(&mut net, Duration::from_secs(20));
    let took = net.until(LONG, "link", |net| net.linked(0, 1));
    assert!(took < Duration::from_millis(900), "{took:?}");
}

#[test]
fn who_alone_thought_a_link_dead_has_it_again_without_signalling() {
    let mut net = connected(2);
    net.run(SOON);
    net.server = false;
    // its last received packet is as old as its own silence: the other side has noticed nothing
    let link = net.link(0, 1).unwrap();
    let now = net.now;
    lose(&mut net.nodes[0].overlay, link, now);
    net.collect(0);
    assert!(net.link(1, 0).is_some());
    let took = net.until(LONG, "link", |net| {
        net.nodes[1].ups == 2 && net.linked(0, 1)
    });
    assert!(took < Duration::from_millis(900), "{took:?}");
}

#[test]
fn pairs_are_tried_for_a_minute_and_take_nothing_from_elsewhere() {
    let mut net = connected(2);
    net.run(SOON);
    net.server = false;
    net.kill(1);
    net.run(SOON);
    let (from, elsewhere) = (
        net.nodes[1].firewall.host,
        "198.51.100.9:9".parse().unwrap(),
    );
    let (host, now) = (net.nodes[0].firewall.host, net.now);
    let overlay = &mut net.nodes[0].overlay;
    for datagram in [&[0xc0][..], &[0xc0; 100], &[0xc0; 1_500]] {
        for from in [from, elsewhere] {
            overlay
                .connections_mut()
                .handle_datagram(from, host, datagram, crate::Ecn::None, now);
        }
    }
    while overlay.poll_event(now).is_some() {}
    let drops = overlay.drops();
    // a sender without the network's key makes it open nothing
    assert_eq!(drops["signal_unexpected"], 6, "{drops:?}");
    assert_eq!(drops.len(), 1, "{drops:?}");
    net.run(LONG);
    let sent = net.nodes[0].sent;
    net.run(LONG);
    assert_eq!(net.nodes[0].sent, sent, "the pair is tried for ever");
    let (overlay, now) = (&mut net.nodes[0].overlay, net.now);
    overlay
        .connections_mut()
        .handle_datagram(from, host, &[0xc0; 100], crate::Ecn::None, now);
    assert!(overlay.poll_event(now).is_none());
    assert_eq!(overlay.drops()["signal_unexpected"], 7);
}

/// Makes one end of a link take it for dead; its goodbye gets lost.
fn lose(
    overlay: &mut lcroute_overlay::Overlay<crate::WebRtc>,
    link: librecast::id::LinkId,
    now: Instant,
) {
    let sent = overlay.connections_mut().lose(link);
    let event = overlay.poll_event(now);
    assert!(matches!(
        event,
        Some(lcroute_overlay::Event::Signal { .. } | lcroute_overlay::Event::LinkDown { .. })
    ));
    overlay.connections_mut().unsend(sent);
}
