//! Leaves that ask: whose packets arrive, from which address, and how many of them.

use lcroute_engine::PrivatePrefix;
use lcroute_engine::header::{DataHeader, Payload};
use librecast::ipv6::udp_packet;

use super::*;

/// What a leaf of an asking token may join, and ask.
const ASKING: &[&str] = &["ff1e:5::/32", "ff1e:7570:5::/48"];

fn asking(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xff1e, 0x7570, 5, 0, 0, 0, 0, n)
}

/// A datagram with a checksum, as programs send it.
fn datagram(source: Ipv6Addr, to: Ipv6Addr, data: &[u8]) -> Vec<u8> {
    udp_packet(source, to, (14_246, 8), data)
}

fn source(packet: &[u8]) -> Ipv6Addr {
    Ipv6Addr::from(*packet[8..].first_chunk::<16>().unwrap())
}

impl World {
    /// A world whose leaves may ask.
    fn with_uplink(routers: u16) -> Self {
        Self {
            uplink: true,
            ..Self::new(routers)
        }
    }

    fn asks(&mut self, n: u16, group: Ipv6Addr, number: u32) {
        let now = self.now;
        let from = "fd00::bad".parse().unwrap();
        let packet = datagram(from, group, &number.to_be_bytes());
        self.leaf_mut(n).send_packet(packet.into(), now);
        self.flush();
    }

    /// Passes bytes to a leaf's router as if the leaf had sent them.
    fn forge(&mut self, n: u16, payload: Payload, packet: &[u8]) {
        let header = DataHeader {
            payload,
            ..common::header(addresses(2).origin, 1)
        };
        let (router, link) = self.router_link(n);
        let message = [&header.encode()[..], packet].concat();
        let now = self.now;
        self.router(router).handle_data(link, message.into(), now);
        self.flush();
    }
}

#[test]
fn what_a_leaf_asks_reaches_members_from_its_routers_address() {
    let mut world = World::with_uplink(3);
    world.leaf(0, ASKING, &[1, 2]);
    // a program on the leaf's own router, and one elsewhere
    world.joins_at(1, asking(1));
    world.joins_at(3, asking(1));
    world.run(Duration::from_secs(1));
    assert!(world.leaf_mut(0).has_uplink());
    world.asks(0, asking(1), 7);
    world.run(Duration::from_secs(1));
    for router in [1, 3] {
        assert_eq!(world.heard_at[&router], BTreeSet::from([7]), "{router}");
        assert_eq!(source(&world.last_at[&router]), addresses(1).address);
    }
    assert_eq!(world.heard_at.get(&2), None);
    // the same by the next router
    world.kill(1);
    world.run(Duration::from_secs(1));
    world.asks(0, asking(1), 8);
    world.run(Duration::from_secs(1));
    assert!(world.heard_at[&3].contains(&8));
    assert_eq!(source(&world.last_at[&3]), addresses(2).address);
}

#[test]
fn leaves_send_to_asking_groups_of_their_token_and_to_no_others() {
    let mut world = World::with_uplink(2);
    world.leaf(0, ASKING, &[1]);
    let live = Ipv6Addr::new(0xff1e, 5, 0, 0, 0, 0, 0, 1);
    let other = Ipv6Addr::new(0xff1e, 0x7570, 6, 0, 0, 0, 0, 1);
    for group in [live, other, asking(1)] {
        world.joins_at(2, group);
    }
    world.run(Duration::from_secs(1));
    world.asks(0, live, 1);
    assert_eq!(world.leaf_mut(0).drops()["leaf_sent"], 1, "it does not try");
    let from = addresses(1).address;
    for group in [live, other] {
        world.forge(0, Payload::Ipv6, &datagram(from, group, &[0, 0, 0, 1]));
    }
    assert_eq!(world.dropped(1, DropReason::LeafUplinkGroup), 2);
    let good = datagram(from, asking(1), &[0, 0, 0, 2]);
    let mut damaged = good.clone();
    *damaged.last_mut().unwrap() ^= 1;
    world.forge(0, Payload::Ipv6, &damaged);
    world.forge(0, Payload::Ipv6, &good[..good.len() - 1]);
    world.forge(0, Payload::Ipv6, &datagram(from, asking(1), &[0; 1_233]));
    assert_eq!(world.dropped(1, DropReason::Malformed), 3);
    world.forge(0, Payload::Ipv4, &good);
    assert_eq!(world.dropped(1, DropReason::BadHeader), 1);
    world.run(Duration::from_secs(1));
    assert_eq!(world.heard_at.get(&2), None);
    world.forge(0, Payload::Ipv6, &good);
    world.run(Duration::from_secs(1));
    assert_eq!(world.heard_at[&2], BTreeSet::from([2]));
    assert!(world.faults.is_empty(), "its link stays");
    // without the term in its invitation
    world.uplink = false;
    world.leaf(1, ASKING, &[1]);
    world.run(Duration::from_secs(1));
    assert!(!world.leaf_mut(1).has_uplink());
    world.forge(1, Payload::Ipv6, &good);
    assert_eq!(world.dropped(1, DropReason::LeafSent), 1);
}

#[test]
fn what_leaves_ask_is_heard_by_members_alone() {
    let mut world = World::with_uplink(2);
    world.leaf(0, ASKING, &[1]);
    world.joins(0, asking(1));
    world.run(Duration::from_secs(1));
    let refusal = (0, asking(1), RefusalReason::NotPermitted);
    assert_eq!(world.refused, [refusal]);
}

#[test]
fn leaves_do_not_speak_in_a_private_prefix() {
    let mut world = World::with_uplink(2);
    world.leaf(0, ASKING, &[1]);
    let prefix = PrivatePrefix {
        prefix: "ff1e:7570::/32".parse().unwrap(),
        secrets: Vec::new(),
        lans: false,
    };
    let now = world.now;
    world.router(1).set_private(vec![prefix], now);
    world.run(Duration::from_secs(1));
    world.asks(0, asking(1), 1);
    world.run(Duration::from_secs(1));
    assert_eq!(world.dropped(1, DropReason::LeafUplinkGroup), 1);
}

/// Results of a minute with a speaker, listeners that come and go, and hostile leaves.
#[derive(Debug)]
struct Minute {
    joined: usize,
    gap: Duration,
    control: u64,
    asked: usize,
}

fn minute(hostile: u16) -> Minute {
    let mut world = World::with_uplink(4);
    for n in 0..hostile {
        world.leaf(n, &["ff1e:7570::/32"], &[1, 2]);
    }
    world.joins_at(3, asking(1));
    world.joins_at(4, group(1));
    world.run(Duration::from_secs(10));
    let (mut control, mut joined) = (world.routing_bytes, 0);
    let (mut last, mut gap) = (world.now, Duration::ZERO);
    let mut asked = 0;
    for step in 0..600_u32 {
        // members join another group each second, and leave it
        let g = group(2 + (step / 10) as u16);
        if step % 10 == 0 {
            world.joins_at(3, g);
        }
        world.say(4, g, step);
        for n in 0..hostile {
            // each at its full rate, to groups of its own and to one that exists
            if step % 5 == u32::from(n) % 5 {
                world.asks(n, asking(if step % 2 == 0 { 1 } else { n }), 1 << 30 | step);
            }
        }
        world.say(2, group(1), 1 << 29 | step);
        world.run(Duration::from_millis(100));
        let heard = world.heard_at.remove(&3).unwrap_or_default();
        joined += usize::from(step % 10 > 2 && heard.contains(&step));
        asked += heard.iter().filter(|number| *number >> 30 == 1).count();
        if world
            .heard_at
            .remove(&4)
            .is_some_and(|h| h.contains(&(1 << 29 | step)))
        {
            gap = gap.max(world.now - last);
            last = world.now;
        }
        if step % 10 == 9 {
            let now = world.now;
            world
                .router(3)
                .handle_local_packet(common::leave(g).into(), now);
        }
    }
    control = world.routing_bytes - control;
    let limited = world.dropped(1, DropReason::LeafUplinkRate);
    assert_eq!(limited > 0, hostile > 0);
    Minute {
        joined,
        gap,
        control,
        asked,
    }
}

#[test]
fn leaves_that_ask_all_the_time_cost_members_nothing() {
    let (without, with) = (minute(0), minute(100));
    assert_eq!(without.joined, 420);
    assert_eq!(with.joined, without.joined);
    assert_eq!(with.gap, without.gap);
    let ratio = with.control as f64 / without.control as f64;
    assert!(
        (0.95..1.05).contains(&ratio),
        "{ratio}: {with:?} {without:?}"
    );
    assert!(with.asked > 0, "{with:?}");
}
