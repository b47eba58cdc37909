//! The reference: who must receive what, and what must never happen.
//!
//! At every delivery: it was joined, and never twice. At every transmission: over a link once in each
//! direction, and at most twice while the network changes (`ledger`). Of a packet that was sent while nothing had
//! changed for a while, that was not lost on a link, and that a listener has wanted for a while: it arrives.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::Ipv6Addr;

use serde::Serialize;

use crate::fast;
use crate::time::{Nanos, SECOND};

/// A packet is looked after for so long.
pub const PACKET_LIFE: Nanos = 5 * SECOND;
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
    /// State that is left when all have left, or of an ephemeral member that has.
    Leftover,
    /// A neighbour keeps more than it may.
    Bound,
    /// Trees change although nothing else does.
    Restless,
    /// The network is in pieces although links between them could be made.
    Divided,
    /// A router broke the protocol between routers.
    Protocol,
    /// A link with a node that was expelled, or whose certificate is over.
    Expelled,
    /// Members do not know each other's rendezvous epoch, or one that was expelled knows it.
    Epoch,
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
            Self::Expelled => "a link with a node that is no member",
            Self::Epoch => "the rendezvous epoch is not what all members know, and nobody else",
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
    /// Who must get it.
    expected: Vec<u32>,
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
    listeners: fast::Map<Ipv6Addr, BTreeSet<u32>>,
    flows: BTreeMap<(u32, Ipv6Addr), Flow>,
    packets: VecDeque<Packet>,
    first: u64,
    /// When the network last changed.
    changed: Nanos,
}

impl Model {
    /// Nobody has joined anything.
    pub fn new() -> Self {
        Self {
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
        self.changed = self.changed.max(now);
    }

    /// Since when the network is as it is.
    pub fn changed(&self) -> Nanos {
        self.changed
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
            expected: if must { sent.expected } else { Vec::new() },
        });
        self.first + self.packets.len() as u64 - 1
    }

    /// The number that the next packet will have.
    pub fn next_number(&self) -> u64 {
        self.first + self.packets.len() as u64
    }

    /// A packet whose time is over, with those nodes that had to get it.
    pub fn expire(&mut self, now: Nanos) -> Option<Expired> {
        self.packets
            .front()
            .filter(|p| p.sent + PACKET_LIFE <= now)?;
        let packet = self.packets.pop_front()?;
        self.first += 1;
        let stable = packet.probe || packet.sent >= self.changed + NETWORK_SETTLE;
        Some(Expired {
            number: self.first - 1,
            sent: packet.sent,
            origin: packet.origin,
            group: packet.group,
            expected: if stable { packet.expected } else { Vec::new() },
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
    /// Who had to get it, if it was not lost on the way.
    pub expected: Vec<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: Ipv6Addr = Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, 1);
    const LATER: Nanos = NETWORK_SETTLE + SECOND;

    fn sent() -> Sent {
        Sent {
            origin: 1,
            group: GROUP,
            probe: false,
            expected: vec![2, 99],
        }
    }

    #[test]
    fn a_packet_is_looked_after_for_its_time() {
        let mut model = Model::new();
        let number = model.send(sent(), LATER);
        assert!(model.expire(LATER + PACKET_LIFE - 1).is_none());
        let expired = model.expire(LATER + PACKET_LIFE).unwrap();
        assert_eq!((expired.number, expired.expected), (number, vec![2, 99]));
        assert!(model.expire(LATER + PACKET_LIFE).is_none());
    }

    #[test]
    fn nobody_misses_what_was_sent_while_the_network_changed() {
        let mut model = Model::new();
        model.send(sent(), LATER);
        model.network_changed(LATER + 1);
        assert!(model.expire(2 * LATER).unwrap().expected.is_empty());
    }

    #[test]
    fn the_ninth_packet_of_a_new_flow_need_not_arrive() {
        let mut model = Model::new();
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
        let expected: Vec<usize> = std::iter::from_fn(|| model.expire(3 * LATER))
            .map(|e| e.expected.len())
            .collect();
        assert_eq!(expected, [1, 1, 1, 1, 1, 1, 1, 1, 0, 1]);
    }
}
