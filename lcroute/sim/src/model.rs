//! The reference model: required deliveries, and forbidden events.
//!
//! A delivery must be wanted, and never repeated. A transmission crosses a link once in each
//! direction, or twice while the network changes (`ledger`). A packet must arrive at a settled
//! listener if the network was stable and no link lost the packet.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::Ipv6Addr;

use serde::Serialize;

use crate::fast;
use crate::time::{Nanos, SECOND};

/// Time after which a packet is judged.
pub const PACKET_LIFE: Nanos = 5 * SECOND;
/// Time from a join to required packets.
pub const LISTENER_SETTLE: Nanos = 3 * SECOND;
/// Time from a change of the network to stable trees.
pub const NETWORK_SETTLE: Nanos = 12 * SECOND;
/// Time for which an idle flow is remembered, and for which its first packets wait.
const FLOW_IDLE: Nanos = 50 * SECOND;
const FLOW_START: Nanos = SECOND;
/// Packets of a flow that wait for its first listener.
const HELD: u32 = 8;

/// A rule of the simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Delivered twice to one listener.
    DeliveredTwice,
    /// Delivered to a host that did not join, or filtered the source.
    NotWanted,
    /// Sent over one link more than once, or more than twice while a tree changes.
    Loop,
    /// Not received by a listener that had to.
    Missed,
    /// State that remains when all have left, or of an ephemeral member that has left.
    Leftover,
    /// A neighbour has more state than permitted.
    Bound,
    /// Trees change although the network does not.
    Restless,
    /// The network is in pieces although links could connect them.
    Divided,
    /// A router broke the protocol between routers.
    Protocol,
    /// A link with an expelled node, or one with an expired certificate.
    Expelled,
    /// Members disagree on the rendezvous epoch, or an expelled node knows it.
    Epoch,
    /// A program that watches MLD sees other listeners than there are.
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
            Self::Expelled => "a link with a node that is not a member",
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
    /// The node.
    pub node: u32,
    /// Description.
    pub text: String,
}

#[derive(Debug)]
struct Packet {
    sent: Nanos,
    origin: u32,
    group: Ipv6Addr,
    /// Whether it must arrive independent of earlier changes.
    probe: bool,
    /// Nodes that must receive it.
    expected: Vec<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Flow {
    since: Nanos,
    last: Nanos,
    packets: u32,
}

/// A sent packet.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Its sender.
    pub origin: u32,
    /// Its group.
    pub group: Ipv6Addr,
    /// Whether it is part of the final check.
    pub probe: bool,
    /// Nodes that have wanted it for [`LISTENER_SETTLE`].
    pub expected: Vec<u32>,
}

/// The model of all hosts.
#[derive(Debug)]
pub struct Model {
    listeners: fast::Map<Ipv6Addr, BTreeSet<u32>>,
    flows: BTreeMap<(u32, Ipv6Addr), Flow>,
    packets: VecDeque<Packet>,
    first: u64,
    /// Time of the network's last change.
    changed: Nanos,
}

impl Model {
    /// Makes a model without listeners.
    pub fn new() -> Self {
        Self {
            listeners: fast::Map::default(),
            flows: BTreeMap::new(),
            packets: VecDeque::new(),
            first: 1,
            changed: 0,
        }
    }

    /// Adds or removes a listener of a group.
    pub fn set_listener(&mut self, node: u32, group: Ipv6Addr, listens: bool) {
        let listeners = self.listeners.entry(group).or_default();
        if listens {
            listeners.insert(node);
        } else {
            listeners.remove(&node);
        }
    }

    /// Returns the listeners of a group, with any filter.
    pub fn listeners(&self, group: Ipv6Addr) -> impl Iterator<Item = u32> {
        self.listeners.get(&group).into_iter().flatten().copied()
    }

    /// Notes a change of links, nodes or announcements.
    pub fn network_changed(&mut self, now: Nanos) {
        self.changed = self.changed.max(now);
    }

    /// Returns the time of the network's last change.
    pub fn changed(&self) -> Nanos {
        self.changed
    }

    /// Whether the network has been unchanged for [`NETWORK_SETTLE`].
    pub fn is_stable(&self, now: Nanos) -> bool {
        now >= self.changed + NETWORK_SETTLE
    }

    /// Drops the flows of a daemon that has gone.
    pub fn forget_flows(&mut self, node: u32) {
        let (first, last) = (Ipv6Addr::UNSPECIFIED, Ipv6Addr::from_bits(u128::MAX));
        let range = self.flows.range((node, first)..=(node, last));
        let keys: Vec<_> = range.map(|(key, _)| *key).collect();
        for key in keys {
            self.flows.remove(&key);
        }
    }

    /// Notes a sent packet; returns its number.
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
        // the ninth packet of a new flow need not wait
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

    /// Returns the number of the next packet.
    pub fn next_number(&self) -> u64 {
        self.first + self.packets.len() as u64
    }

    /// Returns a packet to judge, with the nodes that had to receive it.
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

/// A packet to judge.
#[derive(Debug)]
pub struct Expired {
    pub number: u64,
    pub sent: Nanos,
    pub origin: u32,
    pub group: Ipv6Addr,
    /// Nodes that had to receive it, unless it was lost.
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
