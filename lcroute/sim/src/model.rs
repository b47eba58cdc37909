//! The reference: who must receive what, and what must never happen.
//!
//! At every delivery: it was joined, and never twice. At every transmission: over a link once in each
//! direction, and at most twice while the network changes. Of a packet that was sent while nothing had changed
//! for a while, that was not lost on a link, and that a listener has wanted for a while: it arrives.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::Ipv6Addr;

use serde::Serialize;

use crate::fast;
use crate::time::{Nanos, SECOND};

/// A packet is looked after for so long.
const PACKET_LIFE: Nanos = 5 * SECOND;
/// So long after a join, packets must come.
pub const LISTENER_SETTLE: Nanos = 3 * SECOND;
/// So long after a change of the network, its trees are stable.
pub const NETWORK_SETTLE: Nanos = 12 * SECOND;
/// How long a flow is remembered without a packet, and how long its first packets wait.
const FLOW_IDLE: Nanos = 50 * SECOND;
const FLOW_START: Nanos = SECOND;
/// Packets of a flow that wait for its first listener.
const HELD: u32 = 8;

/// What must not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Delivered twice to one listener.
    DeliveredTwice,
    /// Delivered to a host that did not join, or filtered the source.
    NotWanted,
    /// Over one link more often than once, or twice while a tree changes.
    Loop,
    /// A listener did not get a packet that it must get.
    Missed,
    /// State that is left when all have left.
    Leftover,
    /// A neighbour keeps more than it may.
    Bound,
    /// Trees change although nothing else does.
    Restless,
    /// The network is in pieces although links between them could be made.
    Divided,
    /// A router broke the protocol between routers.
    Protocol,
    /// A program that watches MLD sees a listener where there is none, or none where there is one.
    Watcher,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DeliveredTwice => "delivered twice",
            Self::NotWanted => "delivered but not wanted",
            Self::Loop => "sent over a link too often",
            Self::Missed => "did not get a packet",
            Self::Leftover => "state is left",
            Self::Bound => "a bound does not hold",
            Self::Restless => "no rest",
            Self::Divided => "the network is in pieces",
            Self::Protocol => "the protocol was broken",
            Self::Watcher => "a watching program sees something else",
        })
    }
}

/// A rule that was broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// The rule.
    pub rule: Rule,
    /// Nanoseconds since the start.
    pub at: Nanos,
    /// At which node.
    pub node: u32,
    /// What happened.
    pub text: String,
}

/// A packet on its way.
#[derive(Debug)]
struct Packet {
    sent: Nanos,
    origin: u32,
    group: Ipv6Addr,
    /// Whether it must arrive whatever changed before.
    probe: bool,
    /// A copy was lost on a link.
    lost: bool,
    /// Who must get it.
    expected: Vec<u32>,
    /// Who got it, a bit for each node.
    received: Box<[u64]>,
    /// How often it was sent over (link, side).
    crossed: fast::Map<u64, u8>,
}

impl Packet {
    fn receive(&mut self, node: u32) -> bool {
        let (word, bit) = (node as usize / 64, 1 << (node % 64));
        let first = self.received[word] & bit == 0;
        self.received[word] |= bit;
        first
    }

    fn has_received(&self, node: u32) -> bool {
        self.received[node as usize / 64] & 1 << (node % 64) != 0
    }
}

#[derive(Debug, Clone, Copy)]
struct Flow {
    since: Nanos,
    last: Nanos,
    packets: u32,
}

/// A packet that was sent.
#[derive(Debug, Clone)]
pub struct Sent {
    /// By which node.
    pub origin: u32,
    /// To which group.
    pub group: Ipv6Addr,
    /// Part of the final check.
    pub probe: bool,
    /// Nodes that have wanted it for a while.
    pub expected: Vec<u32>,
}

/// The model of all hosts.
#[derive(Debug)]
pub struct Model {
    nodes: u32,
    listeners: fast::Map<Ipv6Addr, BTreeSet<u32>>,
    flows: BTreeMap<(u32, Ipv6Addr), Flow>,
    packets: VecDeque<Packet>,
    first: u64,
    /// When the network last changed.
    changed: Nanos,
}

impl Model {
    /// So many nodes, none of which has joined anything.
    pub fn new(nodes: u32) -> Self {
        Self {
            nodes,
            listeners: fast::Map::default(),
            flows: BTreeMap::new(),
            packets: VecDeque::new(),
            first: 1,
            changed: 0,
        }
    }

    /// A node listens to a group or no longer does.
    pub fn set_listener(&mut self, node: u32, group: Ipv6Addr, listens: bool) {
        let listeners = self.listeners.entry(group).or_default();
        if listens {
            listeners.insert(node);
        } else {
            listeners.remove(&node);
        }
    }

    /// Nodes that listen to a group, with whatever filter.
    pub fn listeners(&self, group: Ipv6Addr) -> impl Iterator<Item = u32> {
        self.listeners.get(&group).into_iter().flatten().copied()
    }

    /// Links, nodes or announcements changed.
    pub fn network_changed(&mut self, now: Nanos) {
        self.changed = now;
    }

    /// Whether nothing has changed for a while.
    pub fn is_stable(&self, now: Nanos) -> bool {
        now >= self.changed + NETWORK_SETTLE
    }

    /// A daemon has gone, and with it its flows.
    pub fn forget_flows(&mut self, node: u32) {
        let (first, last) = (Ipv6Addr::UNSPECIFIED, Ipv6Addr::from_bits(u128::MAX));
        let range = self.flows.range((node, first)..=(node, last));
        let keys: Vec<_> = range.map(|(key, _)| *key).collect();
        for key in keys {
            self.flows.remove(&key);
        }
    }

    /// A packet is sent. Gives its number.
    pub fn send(&mut self, sent: Sent, now: Nanos) -> u64 {
        let key = (sent.origin, sent.group);
        let flow = self.flows.entry(key).or_insert(Flow {
            since: now,
            last: now,
            packets: 0,
        });
        if now > flow.last + FLOW_IDLE {
            (flow.since, flow.packets) = (now, 0);
        }
        flow.last = now;
        flow.packets += 1;
        // the ninth packet of a flow that has just begun need not wait
        let waits = flow.packets > HELD && now < flow.since + FLOW_START;
        let must = sent.probe || self.is_stable(now) && !waits;
        self.packets.push_back(Packet {
            sent: now,
            origin: sent.origin,
            group: sent.group,
            probe: sent.probe,
            lost: false,
            expected: if must { sent.expected } else { Vec::new() },
            received: vec![0; (self.nodes as usize).div_ceil(64)].into(),
            crossed: fast::Map::default(),
        });
        self.first + self.packets.len() as u64 - 1
    }

    /// The number that the next packet will have.
    pub fn next_number(&self) -> u64 {
        self.first + self.packets.len() as u64
    }

    fn packet(&mut self, number: u64) -> Option<&mut Packet> {
        let place = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.packets.get_mut(place)
    }

    /// When a packet was sent that is on its way.
    pub fn sent(&mut self, number: u64) -> Option<Nanos> {
        self.packet(number).map(|p| p.sent)
    }

    /// A copy was lost on a link: nobody must get it.
    pub fn lose(&mut self, number: u64) {
        if let Some(packet) = self.packet(number) {
            packet.lost = true;
        }
    }

    /// A packet goes over a link.
    pub fn cross(&mut self, number: u64, link: u32, side: usize, now: Nanos) -> Result<(), String> {
        let stable_since = self.changed + NETWORK_SETTLE;
        let Some(packet) = self.packet(number) else {
            return Err(format!("packet {number}, long after it was sent"));
        };
        let times = packet
            .crossed
            .entry(u64::from(link) << 1 | side as u64)
            .or_insert(0);
        *times = times.saturating_add(1);
        let bound = if packet.sent >= stable_since && now >= stable_since {
            1
        } else {
            2
        };
        if *times > bound {
            return Err(format!(
                "packet {number} for {} of node {}: {times} times over link {link}",
                packet.group, packet.origin
            ));
        }
        Ok(())
    }

    /// A packet is handed to the programs of a node that want it.
    pub fn deliver(&mut self, number: u64, node: u32) -> Result<(), (Rule, String)> {
        let Some(packet) = self.packet(number) else {
            let text = format!("packet {number}, long after it was sent");
            return Err((Rule::DeliveredTwice, text));
        };
        if packet.receive(node) {
            return Ok(());
        }
        let text = format!(
            "packet {number} for {} of node {}",
            packet.group, packet.origin
        );
        Err((Rule::DeliveredTwice, text))
    }

    /// Packets whose time is over, with those nodes that should have got them and did not.
    pub fn expire(&mut self, now: Nanos) -> Option<Expired> {
        let packet = self.packets.front()?;
        if packet.sent + PACKET_LIFE > now {
            return None;
        }
        let packet = self.packets.pop_front()?;
        self.first += 1;
        let stable = packet.probe || packet.sent >= self.changed + NETWORK_SETTLE;
        let missed: Vec<u32> = if stable && !packet.lost {
            let missed = |node: &u32| !packet.has_received(*node);
            packet.expected.iter().copied().filter(missed).collect()
        } else {
            Vec::new()
        };
        let kept = if stable && !packet.lost {
            (packet.expected.len() - missed.len()) as u64
        } else {
            0
        };
        Some(Expired {
            number: self.first - 1,
            sent: packet.sent,
            origin: packet.origin,
            group: packet.group,
            missed,
            kept,
        })
    }
}

/// A packet whose time is over.
#[derive(Debug)]
pub struct Expired {
    pub number: u64,
    pub sent: Nanos,
    pub origin: u32,
    pub group: Ipv6Addr,
    /// Who had to get it and did not.
    pub missed: Vec<u32>,
    /// How many had to get it and did.
    pub kept: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: Ipv6Addr = Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, 1);
    const LATER: Nanos = NETWORK_SETTLE + SECOND;

    fn model() -> (Model, u64) {
        let mut model = Model::new(100);
        let sent = Sent {
            origin: 1,
            group: GROUP,
            probe: false,
            expected: vec![2, 99],
        };
        let number = model.send(sent, LATER);
        (model, number)
    }

    #[test]
    fn whoever_misses_a_packet_is_named() {
        let (mut model, number) = model();
        assert_eq!(model.deliver(number, 99), Ok(()));
        assert!(model.expire(LATER + PACKET_LIFE - 1).is_none());
        let expired = model.expire(LATER + PACKET_LIFE).unwrap();
        assert_eq!((expired.number, expired.missed), (number, vec![2]));
        assert!(model.expire(LATER + PACKET_LIFE).is_none());
    }

    #[test]
    fn nobody_misses_what_was_lost_or_sent_while_the_network_changed() {
        let (mut model, number) = model();
        model.lose(number);
        assert!(model.expire(2 * LATER).unwrap().missed.is_empty());
        let (mut model, _) = self::model();
        model.network_changed(LATER + 1);
        assert!(model.expire(2 * LATER).unwrap().missed.is_empty());
    }

    #[test]
    fn a_second_delivery_is_found_even_late() {
        let (mut model, number) = model();
        assert_eq!(model.deliver(number, 7), Ok(()));
        assert_eq!(
            model.deliver(number, 7).unwrap_err().0,
            Rule::DeliveredTwice
        );
        model.expire(2 * LATER);
        assert_eq!(
            model.deliver(number, 8).unwrap_err().0,
            Rule::DeliveredTwice
        );
    }

    #[test]
    fn a_link_is_crossed_once_or_twice_while_the_network_changes() {
        let (mut model, number) = model();
        assert!(model.cross(number, 5, 0, LATER).is_ok());
        assert!(model.cross(number, 5, 1, LATER).is_ok());
        assert!(model.cross(number, 5, 0, LATER).is_err());
        let (mut model, number) = self::model();
        model.network_changed(LATER);
        let crossed = (0..3).map(|_| model.cross(number, 5, 0, LATER).is_ok());
        assert_eq!(crossed.collect::<Vec<_>>(), [true, true, false]);
    }

    #[test]
    fn the_ninth_packet_of_a_new_flow_need_not_arrive() {
        let mut model = Model::new(4);
        let sent = Sent {
            origin: 1,
            group: GROUP,
            probe: false,
            expected: vec![2],
        };
        for _ in 0..9 {
            model.send(sent.clone(), LATER);
        }
        model.send(sent, LATER + FLOW_START);
        let missed: Vec<usize> = std::iter::from_fn(|| model.expire(3 * LATER))
            .map(|e| e.missed.len())
            .collect();
        assert_eq!(missed, [1, 1, 1, 1, 1, 1, 1, 1, 0, 1]);
    }
}
