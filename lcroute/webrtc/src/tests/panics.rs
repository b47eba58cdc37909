//! Peers that make the WebRTC stack panic.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::links::connected_by;
use super::net::Net;
use lcroute_overlay::PeerState;

use crate::peer_connection::PeerConnection;

/// Length of the first suspension.
const FIRST: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(60);
/// Chunk types of SCTP (RFC 9260, section 3.2).
const ABORT: u8 = 6;
const ERROR: u8 = 9;

/// Returns node `a`'s end of its connection to `b`, or of its only one.
fn connection(net: &mut Net, a: usize, b: usize) -> Option<&mut PeerConnection> {
    let link = net.link(a, b);
    let webrtc = net.webrtc(a);
    webrtc.peer_connection(link)
}

fn drops(net: &Net, n: usize, name: &str) -> u64 {
    let drops = net.nodes[n].overlay.drops();
    drops.get(name).copied().unwrap_or_default()
}

/// Returns the CRC32c (RFC 9260, appendix A).
fn checksum(packet: &[u8]) -> u32 {
    let step = |crc: u32, _| (crc >> 1) ^ (0x82F6_3B78 * (crc & 1));
    let all = packet.iter();
    !all.fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), step)
    })
}

/// Makes node `a` send `b` SCTP packets with a chunk that has a cause of 65,535 bytes. Counts them.
fn spoil(net: &mut Net, a: usize, b: usize, chunk: u8) -> Arc<AtomicU32> {
    spoil_with(net, a, b, &[chunk, 0, 0, 0, 0, 1, 255, 255])
}

/// Does the same with a chunk that begins with `chunk`; corrects its length.
fn spoil_with(net: &mut Net, a: usize, b: usize, chunk: &[u8; 8]) -> Arc<AtomicU32> {
    let chunk = *chunk;
    let spoilt = Arc::new(AtomicU32::new(0));
    let count = spoilt.clone();
    let connection = connection(net, a, b).unwrap();
    connection.forge(Box::new(move |packet| {
        let has_tag = packet.len() >= 20 && packet[4..8] != [0; 4];
        if has_tag {
            let length = u16::try_from(packet.len() - 12).unwrap().to_be_bytes();
            packet[12..20].copy_from_slice(&chunk);
            packet[14..16].copy_from_slice(&length);
            packet[8..12].fill(0);
            let sum = checksum(packet).to_le_bytes();
            packet[8..12].copy_from_slice(&sum);
            count.fetch_add(1, Ordering::Relaxed);
        }
    }));
    spoilt
}

/// Data over SCTP, as a sender without the media lane uses it.
const DATA: [&[u8]; 2] = [&[0x10], b"data"];

#[test]
fn a_panic_over_what_a_peer_sent_ends_its_link_and_no_other() {
    for chunk in [ABORT, ERROR] {
        let mut net = connected_by(&[true, false, true]);
        connection(&mut net, 0, 1).unwrap().unwatch();
        let spoilt = spoil(&mut net, 1, 0, chunk);
        net.send_data(1, 0, DATA).unwrap();
        net.until(SOON, "the end of the link", |net| net.link(0, 1).is_none());
        assert!(spoilt.load(Ordering::Relaxed) > 0);
        assert_eq!(drops(&net, 0, "webrtc_panic"), 1);
        assert_eq!(net.nodes[0].downs, ["the WebRTC stack panicked"]);
        let row = net.row(0, 1).unwrap();
        let why = "the WebRTC stack panicked over what it sent";
        assert_eq!((row.state, row.reason), (PeerState::Refused, Some(why)));

        assert!(net.linked(0, 2), "the others notice nothing");
        net.send_data(2, 0, DATA).unwrap();
        net.until(SOON, "data", |net| !net.nodes[0].data.is_empty());
        assert_eq!(net.nodes[0].data[0].0, net.nodes[2].id);
    }
}

#[test]
fn what_the_stack_does_not_deal_well_with_is_left_out_and_the_link_lives_on() {
    let skip = [192, 0, 0, 0, 0x40, 0, 0, 0];
    for chunk in [
        [ABORT, 0, 0, 0, 0, 1, 255, 255],
        [ERROR, 0, 0, 0, 0, 1, 255, 255],
        skip,
    ] {
        let mut net = connected_by(&[true, false]);
        // a skip of 2^30 loops for seconds; the acknowledged TSN is random, so both halves run
        for half in [0x40, 0xc0] {
            let chunk = match chunk[0] {
                192 => [192, 0, 0, 0, half, 0, 0, 0],
                _ => chunk,
            };
            let spoilt = spoil_with(&mut net, 1, 0, &chunk);
            net.send_data(1, 0, DATA).unwrap();
            while spoilt.load(Ordering::Relaxed) == 0 {
                net.run(Duration::from_millis(1));
            }
            connection(&mut net, 1, 0).unwrap().forge(Box::new(|_| {}));
        }
        net.until(SOON, "dropping it", |net| {
            drops(net, 0, "sctp_left_out") > 0
        });
        assert_eq!(drops(&net, 0, "webrtc_panic"), 0);
        net.send_data(1, 0, DATA).unwrap();
        net.until(LONG, "data", |net| !net.nodes[0].data.is_empty());
        assert!(net.linked(0, 1) && net.nodes[0].downs.is_empty());
    }
}

#[test]
fn who_makes_the_stack_panic_gets_no_link_for_a_while_and_then_one_again() {
    let mut net = connected_by(&[true, false]);
    connection(&mut net, 0, 1).unwrap().unwatch();
    spoil(&mut net, 1, 0, ERROR);
    net.send_data(1, 0, DATA).unwrap();
    net.until(SOON, "the end of the link", |net| net.link(0, 1).is_none());
    let (began, sent) = (net.now, net.nodes[0].sent);
    // it is back at once, and requests a link
    net.until(LONG, "being refused", |net| {
        drops(net, 0, "webrtc_refused") > 1
    });
    let told = Some("the peer's WebRTC stack panicked over what we sent");
    net.until(LONG, "being told", |net| {
        net.row(1, 0).is_some_and(|row| row.reason == told)
    });
    assert!(
        net.nodes[0].overlay.connections().is_idle(),
        "no connection was begun"
    );
    // straight to the address of the request
    let told = drops(&net, 0, "webrtc_refused");
    assert!(net.nodes[0].sent - sent <= told, "refusals, nothing else");
    net.until(FIRST * 2, "a link", |net| net.linked(0, 1));
    assert!(net.now - began >= FIRST);
    assert_eq!(drops(&net, 0, "webrtc_panic"), 1);

    // and once more: twice as long
    connection(&mut net, 0, 1).unwrap().unwatch();
    spoil(&mut net, 1, 0, ABORT);
    net.send_data(1, 0, DATA).unwrap();
    net.until(SOON, "the end of the link", |net| net.link(0, 1).is_none());
    let began = net.now;
    net.until(FIRST * 3, "a link", |net| net.linked(0, 1));
    assert!(net.now - began >= FIRST * 2);
}

#[test]
fn a_panic_before_auth_is_its_senders_as_well() {
    for attacker in [0, 1] {
        let victim = 1 - attacker;
        let mut net = Net::mesh(2);
        net.join_all();
        let begun = |net: &mut Net, a, b| connection(net, a, b).is_some();
        while !begun(&mut net, attacker, victim) || !begun(&mut net, victim, attacker) {
            net.run(Duration::from_millis(1));
        }
        connection(&mut net, victim, attacker).unwrap().unwatch();
        spoil(&mut net, attacker, victim, ERROR);
        net.until(SOON, "a panic", |net| {
            drops(net, victim, "webrtc_panic") > 0
        });
        assert_eq!(net.nodes[victim].ups, 0);
        let row = net.row(victim, attacker).unwrap();
        assert_eq!(row.state, PeerState::Refused);
        net.until(FIRST * 2, "a link", |net| net.linked(0, 1));
    }
}

#[test]
fn a_panic_that_anybody_may_have_caused_refuses_nobody() {
    let mut net = connected_by(&[true, true, true]);
    // as a forged datagram would: node 1 has sealed no record since
    connection(&mut net, 0, 1).unwrap().panic_for_test();
    net.webrtc(0).drain_all();
    net.until(SOON, "the end of the link", |net| net.link(0, 1).is_none());
    assert_eq!(drops(&net, 0, "webrtc_panic"), 1);
    assert_eq!(net.row(0, 1).unwrap().state, PeerState::Lost);
    let began = net.now;
    net.until(LONG, "a link", |net| net.linked(0, 1));
    assert!(net.now - began < FIRST);
    assert_eq!(drops(&net, 0, "webrtc_refused"), 0);
    assert!(net.linked(0, 2));
}

#[test]
fn a_forged_datagram_is_not_held_against_whose_data_came_before_it() {
    let mut net = connected_by(&[true, false]);
    net.send_data(1, 0, DATA).unwrap();
    net.until(SOON, "data", |net| !net.nodes[0].data.is_empty());
    let (to, from, now) = (
        net.nodes[0].firewall.host,
        net.nodes[1].firewall.host,
        net.now,
    );
    let forged = [23, 254, 253, 0, 1, 0, 0, 0, 0, 0, 9, 0, 0];
    let connection = connection(&mut net, 0, 1).unwrap();
    connection.handle_datagram(from, to, &forged, now);
    connection.panic_for_test();
    let (_, proven) = connection.panic().unwrap();
    assert!(!proven);
}

#[test]
fn nothing_that_nodes_send_is_left_out() {
    let mut net = connected_by(&[false, false]);
    net.set_loss(100);
    net.set_jitter(20);
    for n in 0..300 {
        for (a, b) in [(0, 1), (1, 0)] {
            let _ = net.send_data(a, b, [&[0x10], &[7; 3_000][..n * 10]]);
            let _ = net.send_control(a, b, &[8; 3_000][..n * 10 + 1]);
        }
        net.run(Duration::from_millis(5));
    }
    net.run(SOON);
    for n in [0, 1] {
        assert!(!net.nodes[n].data.is_empty() && !net.nodes[n].control.is_empty());
        assert_eq!(drops(&net, n, "sctp_left_out"), 0);
    }
}
