//! Nodes with each other's presence records, and no server.

use std::time::Duration;

use lcroute_overlay::{CarrierId, CarrierKind, Presence};
use librecast::cert::Grant;
use librecast::id::SecretKey;
use librecast::simulated::Behavior;

use super::links::behind_nats;
use super::net::{Net, Network, TODAY};

const SOON: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(60);
const LAN: CarrierId = CarrierId(2);

/// Gives node `to` the record of node `from`.
fn pass(net: &mut Net, from: usize, to: usize) {
    let now = net.now;
    let record = net.nodes[from].overlay.record(now).expect("an address");
    assert!([256, 512].contains(&record.sealed.len()));
    let overlay = &mut net.nodes[to].overlay;
    let learned = overlay.handle_record(CarrierKind::Lan, &record.sealed, |_| true, now);
    let (peer, until) = learned.expect("a record");
    assert!(until > now + Duration::from_secs(80_000));
    overlay.handle_presence(LAN, Presence::Online(peer), now);
    net.collect(to);
}

fn alone(count: u8) -> Net {
    let mut net = Net::mesh(count);
    net.server = false;
    net.want_all();
    net
}

#[test]
fn two_closed_hosts_link_by_each_others_record() {
    let mut net = alone(2);
    pass(&mut net, 0, 1);
    pass(&mut net, 1, 0);
    let took = net.until(SOON, "link", |net| net.linked(0, 1));
    assert!(took < Duration::from_millis(1_500), "{took:?}");
    for (a, b) in [(0, 1), (1, 0)] {
        assert_eq!(net.row(a, b).unwrap().carrier, Some(CarrierKind::Lan));
    }
    // lost and found again, still without a server
    net.run(SOON);
    net.kill(1);
    net.until(SOON, "loss", |net| net.nodes[0].links.is_empty());
}

#[test]
fn one_record_is_enough_where_one_host_is_open() {
    for open in [0, 1] {
        let mut net = alone(2);
        net.nodes[open].firewall.filtering = Behavior::EndpointIndependent;
        pass(&mut net, open, 1 - open);
        net.until(SOON, "link", |net| net.linked(0, 1));
    }
}

#[test]
fn the_second_record_may_come_hours_later() {
    let mut net = alone(2);
    pass(&mut net, 0, 1);
    net.run(Duration::from_secs(2 * 3_600));
    let sent = net.nodes[1].sent;
    assert!(sent < 2 * 3_600 / 9, "{sent} datagrams");
    pass(&mut net, 1, 0);
    net.until(SOON, "link", |net| net.linked(0, 1));
}

#[test]
fn hosts_behind_nats_link_by_their_records() {
    let mut net = behind_nats();
    net.server = false;
    net.want_all();
    net.run(SOON);
    pass(&mut net, 0, 1);
    pass(&mut net, 1, 0);
    net.until(SOON, "link", |net| net.linked(0, 1));
}

#[test]
fn certificates_that_fill_several_datagrams_go_as_well() {
    let network = Network::new(1);
    let mut net = Net::new();
    for n in [100, 101] {
        let key = SecretKey::from_seed(&[n; 32]);
        let labels = (0..16).map(|label| (format!("label{label}"), "x".repeat(63)));
        let grant = Grant {
            labels: labels.collect(),
            ..Grant::new(format!("node{n}"), (TODAY - 1, TODAY + 1_000))
        };
        net.add(&network.issued(key, grant), super::net::today, None);
    }
    net.server = false;
    net.want_all();
    pass(&mut net, 0, 1);
    pass(&mut net, 1, 0);
    net.until(SOON, "link", |net| net.linked(0, 1));
}

#[test]
fn who_moved_is_found_where_nobody_looked() {
    let mut net = alone(2);
    pass(&mut net, 0, 1);
    pass(&mut net, 1, 0);
    net.until(SOON, "link", |net| net.linked(0, 1));
    net.run(SOON);
    // the node that stays has an open port; the other's record is outdated
    net.nodes[1].firewall.filtering = Behavior::EndpointIndependent;
    net.move_to(0, "10.9.9.9:7000");
    net.until(LONG, "loss", |net| {
        net.nodes[1].ups == 2 || net.linked(0, 1)
    });
    net.until(LONG, "link", |net| net.linked(0, 1));
}

#[test]
fn strangers_make_a_node_open_nothing() {
    let mut net = alone(2);
    let (host, now) = (net.nodes[0].firewall.host, net.now);
    let datagram = [&[0xc0][..], &[7; 300]].concat();
    let webrtc = net.webrtc(0);
    let from = "198.51.100.9:9".parse().unwrap();
    webrtc.handle_datagram(from, host, &datagram, crate::Ecn::None, now);
    net.collect(0);
    let drops = net.nodes[0].overlay.drops();
    assert_eq!(drops.get("signal_unexpected"), Some(&1));
    assert_eq!(drops.get("signal_not_opened"), None);
}
