//! The media lane: negotiation, loss, outages and forgeries.

use std::time::{Duration, Instant};

use librecast::id::SecretKey;
use librecast::random::Random;

use super::links::{connected_by, connected_over};
use super::net::{Net, Network, Pipe};
use super::repair::repaired_over;
use lcroute_overlay::Lane;

use crate::Ecn;

const SOON: Duration = Duration::from_secs(2);

/// Makes two nodes with a lane between them, after their search for the path MTU.
fn media() -> Net {
    media_over(Duration::from_millis(2))
}

/// Does the same at a distance of `delay`: a later increase would look like a queue.
fn media_over(delay: Duration) -> Net {
    let mut net = connected_over(&[true; 2], delay);
    net.run(Duration::from_secs(1));
    net
}

/// Makes a data header and an IPv6 packet to `group`, with a number at the end.
pub(super) fn message(group: u8, number: u32, size: usize) -> Vec<u8> {
    let mut message = vec![0; size];
    message[0] = 0x10;
    message[32 + 39] = group;
    message[size - 4..].copy_from_slice(&number.to_be_bytes());
    message
}

/// A flow from node 0 to node 1.
pub(super) struct Flow {
    pub(super) group: u8,
    pub(super) size: usize,
    /// Messages a second.
    pub(super) rate: f64,
}

/// Outcome of a flow.
#[derive(Debug)]
pub(super) struct Outcome {
    sent: usize,
    /// Messages, of this flow or another, that waited too long for the window.
    dropped: usize,
    /// Sorted.
    pub(super) delays: Vec<Duration>,
}

impl Outcome {
    pub(super) fn delivered(&self) -> f64 {
        self.delays.len() as f64 / self.sent as f64
    }

    /// Returns the share delivered of the messages that the sender did not drop.
    pub(super) fn arrived(&self) -> f64 {
        self.delays.len() as f64 / (self.sent - self.dropped) as f64
    }

    pub(super) fn percentile(&self, percent: usize) -> Duration {
        self.delays[(self.delays.len() * percent / 100).min(self.delays.len() - 1)]
    }
}

fn queue_drops(net: &Net) -> usize {
    let drops = net.nodes[0].overlay.drops();
    let count = |reason| drops.get(reason).copied().unwrap_or(0) as usize;
    count("queue_delay") + count("queue_full")
}

/// Runs flows side by side for `span`, and half a second more.
fn run(net: &mut Net, flows: &[Flow], span: Duration) -> Vec<Outcome> {
    let began = net.now;
    let at = |flow: &Flow, n: usize| began + Duration::from_secs_f64(n as f64 / flow.rate);
    let mut sent: Vec<Vec<Instant>> = flows.iter().map(|_| Vec::new()).collect();
    net.nodes[1].data.clear();
    net.nodes[1].data_at.clear();
    let before = queue_drops(net);
    while net.now < began + span {
        let now = net.now;
        for (flow, sent) in flows.iter().zip(&mut sent) {
            while at(flow, sent.len()) <= now {
                let body = message(flow.group, sent.len() as u32, flow.size);
                sent.push(now);
                let _ = net.send_data(0, 1, [&body[..32], &body[32..]]);
            }
        }
        let next = flows.iter().zip(&sent).map(|(f, s)| at(f, s.len())).min();
        net.run(next.unwrap_or(now).saturating_duration_since(now));
    }
    net.run(Duration::from_millis(500));
    let dropped = queue_drops(net) - before;
    let node = &net.nodes[1];
    let outcome = |(flow, sent): (&Flow, &Vec<Instant>)| {
        let ours = node.data.iter().zip(&node.data_at);
        let ours = ours.filter(|((_, message), _)| message[32 + 39] == flow.group);
        let delay = |((_, message), came): ((_, &bytes::Bytes), &Instant)| {
            let number = message
                .last_chunk()
                .map(|n| u32::from_be_bytes(*n))
                .unwrap();
            *came - sent[number as usize]
        };
        let mut delays: Vec<_> = ours.map(|((p, m), t)| delay(((p, m), t))).collect();
        delays.sort_unstable();
        Outcome {
            sent: sent.len(),
            dropped,
            delays,
        }
    };
    flows.iter().zip(&sent).map(outcome).collect()
}

pub(super) fn one(net: &mut Net, rate: f64, size: usize, span: Duration) -> Outcome {
    let flow = Flow {
        group: 1,
        size,
        rate,
    };
    run(net, &[flow], span).remove(0)
}

#[test]
fn the_lane_is_media_only_where_both_offer_it() {
    for (offers, lane) in [
        ([true, true], Lane::Media),
        ([true, false], Lane::Data),
        ([false, true], Lane::Data),
        ([false, false], Lane::Data),
    ] {
        let mut net = connected_by(&offers);
        for (a, b) in [(0, 1), (1, 0)] {
            assert_eq!(net.row(a, b).unwrap().link.lane, lane, "{offers:?}");
            let body = message(1, 7, 1_312);
            net.send_data(a, b, [&body[..32], &body[32..]]).unwrap();
            net.until(SOON, "data", |net| !net.nodes[b].data.is_empty());
            assert_eq!(net.nodes[b].data[0].1, body);
        }
    }
}

#[test]
fn a_full_packet_of_lc0_is_one_datagram_and_small_ones_share() {
    let mut net = media();
    net.tapped = Some(Vec::new());
    for n in 0..2 {
        let body = message(1, n, 1_312);
        net.send_data(0, 1, [&body[..32], &body[32..]]).unwrap();
    }
    net.run(Duration::from_millis(10));
    let sizes = |net: &Net| -> Vec<_> {
        let tapped = net.tapped.iter().flatten();
        let rtp = tapped.filter(|(_, _, bytes)| bytes[1] & 0x7f == 96);
        rtp.map(|(_, _, bytes)| bytes.len()).collect()
    };
    assert_eq!(sizes(&net), [1_342, 1_342]);
    net.tapped = Some(Vec::new());
    for n in 0..20 {
        net.send_data(0, 1, [&message(1, n, 100), &[]]).unwrap();
    }
    net.run(Duration::from_millis(10));
    assert_eq!(net.nodes[1].data.len(), 22);
    // 13 x 102 + 28, and the rest
    assert_eq!(sizes(&net), [1_354, 742]);
}

/// Returns the longest datagram that a node sends in a second of full packets.
fn longest(net: &mut Net, flow: f64) -> usize {
    net.tapped = Some(Vec::new());
    let outcome = one(net, flow, 1_312, Duration::from_secs(1));
    assert!(outcome.delivered() > 0.999, "{outcome:?}");
    let tapped = net.tapped.take().unwrap();
    tapped.iter().map(|(.., bytes)| bytes.len()).max().unwrap()
}

#[test]
fn datagrams_are_as_long_as_the_path_takes() {
    // IPv6 of 1,280, 1,300, 1,400 and 1,500 bytes
    for (mtu, longest_sent) in [
        (1_232, 1_200),
        (1_252, 1_200),
        (1_352, 1_342),
        (1_452, 1_342),
    ] {
        let mut net = Net::mesh(2);
        net.mtu = mtu;
        net.join_all();
        net.until(SOON, "a link", |net| net.linked(0, 1));
        // the search is over, and restarts 10 s later
        net.run(Duration::from_secs(5));
        let sent = longest(&mut net, 100.0);
        assert!(
            sent <= longest_sent && sent > longest_sent / 2,
            "{sent} on {mtu}"
        );
        // the link works, and control messages pass as well
        net.send_control(0, 1, &[7; 16_000]).unwrap();
        net.until(SOON, "control", |net| !net.nodes[1].control.is_empty());
    }
}

#[test]
fn a_path_that_becomes_narrow_costs_a_moment() {
    let mut net = media();
    assert_eq!(longest(&mut net, 100.0), 1_342);
    net.mtu = 1_300;
    let outcome = one(&mut net, 100.0, 1_312, Duration::from_secs(4));
    assert!(outcome.delivered() > 0.5, "{outcome:?}");
    net.run(Duration::from_secs(5));
    let sent = longest(&mut net, 100.0);
    assert!(sent <= 1_200, "{sent}");
    assert_eq!(net.nodes[0].downs, Vec::<&str>::new());
}

#[test]
fn probes_are_no_loss_and_nobody_fragments_them() {
    let mut net = Net::mesh(2);
    net.mtu = 1_232;
    net.join_all();
    net.until(SOON, "a link", |net| net.linked(0, 1));
    net.run(Duration::from_secs(30));
    assert_eq!(net.row(0, 1).unwrap().link.loss.unwrap_or_default(), 0.0);
    assert!(net.nodes[0].probes > 0 && net.nodes[0].probes < 40);
    assert!(one(&mut net, 500.0, 1_000, SOON).delivered() > 0.999);
    assert_eq!(net.row(0, 1).unwrap().link.loss, Some(0.0));
}

#[test]
fn messages_of_all_sizes_arrive_on_both_lanes() {
    for media in [true, false] {
        let mut net = connected_by(&[media; 2]);
        let sizes = [76, 1_000, 1_312, 1_313, 2_000, 9_032, 20_000, 40_000];
        for size in sizes {
            let body = message(1, size as u32, size);
            net.send_data(0, 1, [&body[..32], &body[32..]]).unwrap();
            net.run(Duration::from_millis(50));
        }
        let got: Vec<_> = net.nodes[1].data.iter().map(|(_, m)| m.clone()).collect();
        assert_eq!(
            got,
            sizes.map(|size| message(1, size as u32, size)),
            "{media}"
        );
    }
}

#[test]
fn marks_of_congestion_come_back_to_the_sender() {
    let mut net = media();
    let span = Duration::from_secs(1);
    one(&mut net, 500.0, 1_000, span);
    assert_eq!(net.row(0, 1).unwrap().link.congested_packets, 0);
    net.congested = true;
    let marked = one(&mut net, 500.0, 1_000, span).sent as u64;
    let counted = net.row(0, 1).unwrap().link.congested_packets;
    assert!((marked - 20..=marked).contains(&counted), "{counted}");
    // reports are not marked, and removed marks do no harm
    assert_eq!(net.row(1, 0).unwrap().link.congested_packets, 0);
}

#[test]
fn loss_takes_what_it_takes_and_no_more() {
    for loss in [50, 200] {
        let mut net = repaired_over(0, Duration::from_millis(10));
        net.set_loss(loss);
        // the start is tested elsewhere
        one(&mut net, 5_000.0, 1_200, Duration::from_secs(2));
        let outcome = one(&mut net, 5_000.0, 1_200, Duration::from_secs(4));
        let most = 1.0 - loss as f64 / 1_000.0;
        let delivered = outcome.delivered();
        assert!(
            (most - 0.03..most + 0.02).contains(&delivered),
            "{delivered} at {loss}"
        );
        let p99 = outcome.percentile(99);
        // at the start the window is small, loss not known to be random: 10 ms, and the queue's 20
        assert!(p99 < Duration::from_millis(31), "{p99:?} at {loss}");
        let row = net.row(0, 1).unwrap();
        let seen = row.link.loss.unwrap();
        assert!(
            (seen - loss as f64 / 1_000.0).abs() < 0.05,
            "{seen} at {loss}"
        );
        let rtt = row.link.rtt_ms.unwrap();
        assert!((19.0..22.0).contains(&rtt), "{rtt}");
    }
}

#[test]
fn a_fast_flow_gets_its_rate_at_once() {
    let mut net = media_over(Duration::from_millis(10));
    // 200 Mbit/s over 20 ms
    let rate = 200e6 / 8.0 / 1_200.0;
    one(&mut net, rate, 1_200, SOON);
    let outcome = one(&mut net, rate, 1_200, SOON);
    assert!(outcome.delivered() > 0.999, "{}", outcome.delivered());
    assert!(outcome.percentile(99) < Duration::from_millis(12));
}

#[test]
fn a_bottleneck_is_filled_but_its_queue_is_not() {
    let mut net = media_over(Duration::from_millis(10));
    net.pipe = Some(Pipe::new(20e6, Duration::from_millis(500)));
    let rate = 100e6 / 8.0 / 1_200.0;
    one(&mut net, rate, 1_200, Duration::from_secs(3));
    net.pipe = Some(Pipe::new(20e6, Duration::from_millis(500)));
    let outcome = one(&mut net, rate, 1_200, Duration::from_secs(5));
    let bits = outcome.delays.len() as f64 * 1_200.0 * 8.0 / 5.0;
    assert!((15e6..20e6).contains(&bits), "{bits} of 20 Mbit/s");
    let pipe = net.pipe.take().unwrap();
    let mut waits = pipe.waits;
    waits.sort_unstable();
    let p99 = waits[waits.len() * 99 / 100];
    assert!(
        p99 < Duration::from_millis(50),
        "{p99:?} in the bottleneck's queue"
    );
    // one way, the bottleneck's queue, and our own
    let p99 = outcome.percentile(99);
    assert!(p99 < Duration::from_millis(90), "{p99:?}");
    let drops = net.nodes[0].overlay.drops();
    let dropped = ["queue_full", "queue_delay", "queue_codel"].map(|name| drops.get(name));
    assert!(
        dropped.into_iter().flatten().sum::<u64>() > 1_000,
        "{drops:?}"
    );
}

#[test]
fn a_flood_in_one_group_leaves_another_its_latency() {
    let mut net = media_over(Duration::from_millis(5));
    net.pipe = Some(Pipe::new(20e6, Duration::from_millis(200)));
    let flows = [
        Flow {
            group: 1,
            size: 1_200,
            rate: 10_000.0,
        },
        Flow {
            group: 2,
            size: 200,
            rate: 200.0,
        },
    ];
    run(&mut net, &flows, Duration::from_secs(2));
    let outcomes = run(&mut net, &flows, Duration::from_secs(4));
    assert!(outcomes[0].delivered() < 0.3, "a flood");
    assert!(
        outcomes[1].delivered() > 0.98,
        "{}",
        outcomes[1].delivered()
    );
    // the path, its queue, and a small rest
    let mut waits = net.pipe.take().unwrap().waits;
    waits.sort_unstable();
    let most = waits[waits.len() * 99 / 100] + Duration::from_millis(5 + 5);
    let p99 = outcomes[1].percentile(99);
    assert!(
        p99 < most && most < Duration::from_millis(40),
        "{p99:?} of {most:?}"
    );
}

#[test]
fn a_slow_link_does_not_slow_a_fast_one() {
    let mut net = connected_over(&[true; 3], Duration::from_millis(5));
    let mut pipe = Pipe::new(5e6, Duration::from_millis(200));
    pipe.only = Some(net.nodes[1].firewall.host);
    net.pipe = Some(pipe);
    // 48 Mbit/s to both
    let (count, every) = (10_000, Duration::from_micros(200));
    let mut sent = Vec::new();
    for n in 0..count {
        let (body, now) = (message(1, n, 1_200), net.now);
        for to in [1, 2] {
            net.send_data(0, to, [&body[..32], &body[32..]]).unwrap();
        }
        sent.push(now);
        net.run(every);
    }
    net.run(SOON);
    let slow = net.nodes[1].data.len() as f64 * 1_200.0 * 8.0 / 2.0;
    assert!((3e6..5e6).contains(&slow), "{slow} of 5 Mbit/s");
    // except the start, while the window is small
    let fast = net.nodes[2].data.iter().zip(&net.nodes[2].data_at);
    let number = |message: &[u8]| u32::from_be_bytes(*message.last_chunk().unwrap()) as usize;
    let delays = fast.map(|((_, message), came)| (number(message), *came));
    let delays = delays.filter(|(n, _)| *n >= 1_000);
    let delays: Vec<_> = delays.map(|(n, came)| came - sent[n]).collect();
    assert_eq!(delays.len(), sent.len() - 1_000);
    let most = delays.iter().max().unwrap();
    assert!(*most < Duration::from_millis(7), "{most:?}");
}

#[test]
fn an_outage_of_ten_seconds_is_survived() {
    let mut net = media_over(Duration::from_millis(5));
    let before = one(&mut net, 2_000.0, 1_200, SOON);
    assert!(before.delivered() > 0.99);
    net.media_cut = true;
    let during = one(&mut net, 2_000.0, 1_200, Duration::from_secs(10));
    assert_eq!(during.delays.len(), 0);
    net.media_cut = false;
    one(&mut net, 2_000.0, 1_200, Duration::from_secs(1));
    let after = one(&mut net, 2_000.0, 1_200, SOON);
    assert!(after.delivered() > 0.999, "{}", after.delivered());
    assert!(net.nodes.iter().all(|n| n.ups == 1 && n.downs.is_empty()));
}

#[test]
fn disorder_is_no_loss() {
    let mut net = media_over(Duration::from_millis(10));
    net.set_jitter(10);
    one(&mut net, 5_000.0, 1_200, SOON);
    let outcome = one(&mut net, 5_000.0, 1_200, SOON);
    assert!(outcome.delivered() > 0.999, "{}", outcome.delivered());
    let seen = net.row(0, 1).unwrap().link.loss.unwrap();
    assert!(seen < 0.02, "{seen}");
}

#[test]
fn replayed_and_forged_packets_are_dropped_and_counted() {
    let mut net = media();
    net.tapped = Some(Vec::new());
    one(&mut net, 500.0, 1_200, Duration::from_secs(1));
    let got = net.nodes[1].data.len();
    assert!(got > 490);
    let tapped = net.tapped.take().unwrap();
    let (host, now) = (net.nodes[1].firewall.host, net.now);
    let theirs = tapped.iter().filter(|(_, to, _)| *to == host);
    let mut replayed = 0;
    for (from, _, datagram) in theirs {
        let mut forged = datagram.clone();
        // a later index: no replay by its number
        forged[2] ^= 0x40;
        forged[6] ^= 0x40;
        let overlay = &mut net.nodes[1].overlay;
        for datagram in [datagram, &forged] {
            overlay
                .connections_mut()
                .handle_datagram(*from, host, datagram, Ecn::None, now);
        }
        overlay.connections_mut().handle_datagram(
            "192.0.2.9:9".parse().unwrap(),
            host,
            datagram,
            Ecn::None,
            now,
        );
        replayed += 1;
    }
    let drops = net.nodes[1].overlay.drops().clone();
    assert_eq!(drops["media_replayed"], 2 * replayed);
    let refused = drops["media_forged"] + drops.get("media_malformed").unwrap_or(&0);
    assert_eq!(refused, replayed);
    assert!(replayed > 490);
    let outcome = one(&mut net, 500.0, 1_200, Duration::from_secs(1));
    assert!(outcome.delivered() > 0.999, "nothing is spoiled");
}

#[test]
fn a_packet_from_an_address_that_nobody_knows_finds_its_link() {
    let mut net = media();
    net.tapped = Some(Vec::new());
    net.media_cut = true;
    one(&mut net, 100.0, 1_200, Duration::from_millis(50));
    let tapped = net.tapped.take().unwrap();
    let (host, now) = (net.nodes[1].firewall.host, net.now);
    let (_, _, datagram) = tapped.iter().find(|(_, to, _)| *to == host).unwrap();
    let from = "192.0.2.9:9".parse().unwrap();
    net.nodes[1]
        .overlay
        .connections_mut()
        .handle_datagram(from, host, datagram, Ecn::None, now);
    net.collect(1);
    assert_eq!(net.nodes[1].data.len(), 1);
}

#[test]
fn a_restarted_peer_has_new_keys() {
    let mut net = media();
    net.tapped = Some(Vec::new());
    net.run(Duration::from_secs(6));
    one(&mut net, 500.0, 1_200, Duration::from_millis(200));
    let old = net.tapped.take().unwrap();
    let network = Network::new(1);
    let mut keys: Vec<_> = [100, 101].map(|s| SecretKey::from_seed(&[s; 32])).into();
    keys.sort_by_key(SecretKey::peer_id);
    net.kill(1);
    net.run(Duration::from_millis(50));
    net.restart(1, &network.identity(keys.swap_remove(1), "again"));
    net.until(SOON * 2, "again", |net| {
        net.linked(0, 1) && net.nodes[0].ups == 2
    });
    let host = net.nodes[1].firewall.host;
    for (from, _, datagram) in old.iter().filter(|(_, to, _)| *to == host) {
        let now = net.now;
        net.nodes[1].overlay.connections_mut().handle_datagram(
            *from,
            host,
            datagram,
            Ecn::None,
            now,
        );
    }
    net.nodes[1].data.clear();
    net.collect(1);
    assert!(net.nodes[1].data.is_empty(), "old packets mean nothing now");
    let outcome = one(&mut net, 500.0, 1_200, SOON);
    assert!(outcome.delivered() > 0.999, "{}", outcome.delivered());
}

#[test]
fn media_flows_on_over_an_address_change() {
    for n in [0, 1] {
        let mut net = media();
        one(&mut net, 500.0, 1_200, SOON);
        net.move_to(n, "10.9.9.9:7777");
        let outcome = one(&mut net, 500.0, 1_200, SOON);
        assert!(outcome.delivered() > 0.5, "{}", outcome.delivered());
        let outcome = one(&mut net, 500.0, 1_200, SOON);
        assert!(outcome.delivered() > 0.999, "{}", outcome.delivered());
        assert!(net.nodes.iter().all(|n| n.ups == 1 && n.downs.is_empty()));
        assert_eq!(net.row(0, 1).unwrap().link.lane, Lane::Media);
    }
}

#[test]
fn media_is_a_sign_of_life() {
    let mut net = media();
    net.run(SOON);
    let sent = net.nodes[0].sent;
    one(&mut net, 50.0, 200, Duration::from_secs(10));
    assert!(net.nodes.iter().all(|n| n.downs.is_empty()));
    let sent = net.nodes[0].sent - sent;
    assert!(sent < 50 * 10 + 100, "{sent}: no more probes than before");
}

#[test]
fn an_idle_lane_costs_nothing() {
    let mut net = media();
    one(&mut net, 50.0, 200, Duration::from_secs(1));
    net.run(SOON);
    net.tapped = Some(Vec::new());
    net.run(Duration::from_secs(60));
    assert_eq!(net.tapped.map(|tapped| tapped.len()), Some(0));
}

#[test]
fn arbitrary_media_bytes_change_nothing() {
    let mut net = media();
    one(&mut net, 100.0, 1_200, Duration::from_millis(100));
    net.tapped = Some(Vec::new());
    one(&mut net, 100.0, 1_200, Duration::from_millis(100));
    let tapped = net.tapped.take().unwrap();
    let (host, mut random) = (net.nodes[1].firewall.host, Random::new(7));
    let theirs: Vec<_> = tapped.iter().filter(|(_, to, _)| *to == host).collect();
    let got = net.nodes[1].data.len();
    for _ in 0..20_000 {
        let (from, _, datagram) = theirs[random.index(theirs.len())];
        // header and SSRC of a real packet, any length, any bytes after it
        let length = random.index(100);
        let mut datagram = datagram[..datagram.len().min(length)].to_vec();
        if let Some(byte) = datagram.get_mut(1 + random.index(60)) {
            *byte ^= random.next() as u8;
        }
        if datagram.is_empty() {
            datagram.push(128 + random.below(64) as u8);
        }
        let now = net.now;
        net.nodes[1].overlay.connections_mut().handle_datagram(
            *from,
            host,
            &datagram,
            Ecn::None,
            now,
        );
    }
    net.collect(1);
    assert_eq!(net.nodes[1].data.len(), got);
    assert!(one(&mut net, 500.0, 1_200, SOON).delivered() > 0.999);
}

#[test]
fn packets_of_one_link_go_out_one_after_another() {
    let mut net = connected_by(&[true; 3]);
    net.run(Duration::from_secs(1));
    for n in 0..20 {
        for to in [1, 2] {
            let body = message(1, n, 1_200);
            net.send_data(0, to, [&body[..32], &body[32..]]).unwrap();
        }
    }
    let overlay = &mut net.nodes[0].overlay;
    let mut runs = vec![];
    while let Some(transmit) = overlay.connections_mut().poll_transmit() {
        if matches!(transmit.contents[0], 128..=191) {
            runs.push((transmit.to, transmit.contents.len()));
        }
    }
    assert_eq!(runs.len(), 40);
    runs.dedup();
    assert_eq!(runs.len(), 2, "{runs:?}");
}

/// Latencies of control messages of 200 bytes, one every 100 ms, sorted, without the lost ones.
fn control_latencies(media: bool, delay: u64, loss: u64, count: usize) -> Vec<Duration> {
    let mut net = connected_over(&[media; 2], Duration::from_millis(delay));
    net.run(Duration::from_secs(2));
    net.set_loss(loss);
    net.set_jitter(1);
    // hellos measure the loss
    net.run(Duration::from_secs(5));
    let mut sent = Vec::new();
    for _ in 0..count {
        sent.push(net.now);
        net.send_control(0, 1, &[7; 200]).unwrap();
        net.run(Duration::from_millis(100));
    }
    net.run(Duration::from_secs(120));
    let came = &net.nodes[1].control_at;
    let mut took: Vec<_> = came
        .iter()
        .zip(&sent)
        .map(|(at, sent)| *at - *sent)
        .collect();
    took.sort_unstable();
    took
}

#[test]
fn control_messages_take_round_trips_and_not_seconds_at_20_percent_loss() {
    for (delay, most) in [(1, 30), (10, 100), (50, 350)] {
        let took = control_latencies(true, delay, 200, 500);
        assert_eq!(took.len(), 500);
        let (median, p99) = (took[250], took[495]);
        assert!(median <= Duration::from_millis(delay + 2), "{median:?}");
        assert!(
            p99 <= Duration::from_millis(most),
            "{p99:?} over {delay} ms"
        );
    }
}

/// Sends numbered control messages of all sizes both ways for `seconds`; expects them in order.
fn control_both_ways(net: &mut Net, seconds: u32) {
    let before = [0, 1].map(|n| net.nodes[n].control.len());
    for n in 0..seconds * 50 {
        for (a, b) in [(0, 1), (1, 0)] {
            let mut message = n.to_be_bytes().to_vec();
            message.resize(4 + [0, 60, 900, 4_000][(n % 4) as usize], 9);
            net.send_control(a, b, &message).unwrap();
        }
        net.run(Duration::from_millis(20));
    }
    net.run(Duration::from_secs(5));
    for (n, before) in before.into_iter().enumerate() {
        let came = net.nodes[n].control[before..].iter();
        let numbers = came.map(|(_, m)| u32::from_be_bytes(m[..4].try_into().unwrap()));
        assert!(numbers.eq(0..seconds * 50), "in order, once");
    }
}

#[test]
fn control_messages_outlive_loss_disorder_and_moves() {
    let mut net = media_over(Duration::from_millis(10));
    net.run(Duration::from_secs(1));
    net.set_loss(200);
    net.set_jitter(10);
    control_both_ways(&mut net, 5);
    net.set_loss(0);
    net.set_jitter(0);
    net.move_to(0, "10.9.9.9:7777");
    control_both_ways(&mut net, 5);
    assert!(net.nodes.iter().all(|n| n.ups == 1 && n.downs.is_empty()));
}

#[test]
fn control_messages_take_the_channel_where_media_packets_do_not_pass() {
    let mut net = media_over(Duration::from_millis(10));
    net.media_cut = true;
    net.send_control(0, 1, b"hello").unwrap();
    let came = |net: &Net| net.nodes[1].control.len() == 1;
    let took = net.until(SOON, "control", came);
    assert!(took < Duration::from_millis(1_300), "{took:?}");
    net.nodes[1].control.clear();
    control_both_ways(&mut net, 5);
    net.media_cut = false;
    control_both_ways(&mut net, 2);
}

#[test]
fn a_host_that_refuses_long_datagrams_is_noticed_and_shows_as_loss() {
    let mut net = Net::mesh(2);
    net.join_all();
    net.until(SOON, "a link", |net| net.linked(0, 1));
    net.run(Duration::from_secs(5));
    assert_eq!(net.row(0, 1).unwrap().link.path_mtu, Some(1_452));
    net.host_mtu = 1_300;
    // packets after which the peer has nothing else to report
    let send = |net: &mut Net, n| {
        net.send_data(0, 1, [&message(1, n, 1_312), &[]]).unwrap();
        net.run(Duration::from_millis(10));
    };
    (0..20).for_each(|n| send(&mut net, n));
    let loss = net.row(0, 1).unwrap().link.loss.unwrap();
    assert!(loss > 0.2, "{loss}");
    let mut n = 20;
    while net.row(0, 1).unwrap().link.path_mtu != Some(1_200) {
        send(&mut net, n);
        n += 1;
        assert!(n < 300, "not noticed within three seconds");
    }
    net.run(SOON);
    let before = net.nodes[1].data.len();
    (0..100).for_each(|n| send(&mut net, 1_000 + n));
    net.run(SOON);
    assert_eq!(net.nodes[1].data.len() - before, 100);
}

/// Floods a slow link with routed messages, which are dropped without harm to the link's own.
fn flooded_with_routed_messages(media: bool) {
    let mut net = connected_over(&[media; 2], Duration::from_millis(10));
    net.run(Duration::from_secs(1));
    net.pipe = Some(Pipe::new(2e6, Duration::from_millis(100)));
    for n in 0..100_u32 {
        let (link, now) = (net.link(0, 1).unwrap(), net.now);
        let overlay = &mut net.nodes[0].overlay;
        for _ in 0..20 {
            let _ = overlay.send_routed(link, &[9; 16 << 10], now);
        }
        overlay.send_control(link, &n.to_be_bytes(), now).unwrap();
        net.run(Duration::from_millis(100));
    }
    net.run(Duration::from_secs(20));
    let (own, routed): (Vec<_>, Vec<_>) = net.nodes[1]
        .control
        .iter()
        .map(|(_, message)| message)
        .partition(|message| message.len() == 4);
    let own = own
        .iter()
        .map(|m| u32::from_be_bytes(m[..].try_into().unwrap()));
    assert!(own.eq(0..100), "in order, once");
    let dropped = net.nodes[0].overlay.drops()["routed_queue_full"];
    assert_eq!(routed.len() as u64 + dropped, 2_000);
    assert!(routed.len() > 20, "{}", routed.len());
    assert!(net.nodes.iter().all(|n| n.ups == 1 && n.downs.is_empty()));
}

#[test]
fn messages_of_others_never_close_a_slow_link_nor_displace_its_own() {
    for media in [true, false] {
        flooded_with_routed_messages(media);
    }
}

#[test]
#[ignore = "a measurement"]
fn how_long_control_messages_take() {
    for media in [false, true] {
        for delay in [1, 10, 50] {
            for loss in [0, 10, 50, 200] {
                let took = control_latencies(media, delay, loss, 2_000);
                let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
                let (median, p99, worst) = (at(0.5), at(0.99), at(1.0));
                let came = took.len();
                println!(
                    "media {media}, {delay} ms, {loss} of 1000 lost: {came} of 2000 came, {median:?} {p99:?} {worst:?}"
                );
            }
        }
    }
}
