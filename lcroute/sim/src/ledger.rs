//! Packets under way at the nodes of a shard: their deliveries, and the links they have crossed.

use std::collections::VecDeque;
use std::net::Ipv6Addr;

use crate::model::{NETWORK_SETTLE, Rule};
use crate::time::Nanos;

/// State of a packet in this shard.
#[derive(Debug)]
struct Track {
    sent: Nanos,
    origin: u32,
    group: Ipv6Addr,
    /// Whether a link has lost a copy.
    lost: bool,
    /// Nodes that have received it, one bit for each node of the shard.
    received: Box<[u64]>,
    /// Number of transmissions over each end of a link.
    crossed: Vec<u8>,
}

/// All packets under way.
#[derive(Debug)]
pub struct Ledger {
    nodes: usize,
    packets: VecDeque<Track>,
    first: u64,
    /// Number of link ends at nodes of this shard so far.
    directions: usize,
}

impl Ledger {
    /// Makes a ledger for `nodes` nodes.
    pub fn new(nodes: usize) -> Self {
        Self {
            nodes,
            packets: VecDeque::new(),
            first: 1,
            directions: 0,
        }
    }

    /// Notes a packet of any node, with the next number of the model.
    pub fn send(&mut self, origin: u32, group: Ipv6Addr, now: Nanos) {
        self.packets.push_back(Track {
            sent: now,
            origin,
            group,
            lost: false,
            received: vec![0; self.nodes.div_ceil(64)].into(),
            crossed: vec![0; self.directions],
        });
    }

    fn packet(&mut self, number: u64) -> Option<&mut Track> {
        let place = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.packets.get_mut(place)
    }

    /// Returns the sending time of a packet under way.
    pub fn sent(&mut self, number: u64) -> Option<Nanos> {
        self.packet(number).map(|p| p.sent)
    }

    /// Notes that a link lost a copy: no node has to receive the packet.
    pub fn lose(&mut self, number: u64) {
        if let Some(packet) = self.packet(number) {
            packet.lost = true;
        }
    }

    pub fn new_direction(&mut self) -> usize {
        self.directions += 1;
        self.directions - 1
    }

    /// Notes a packet's transmission over a link end. `changed`: time of the network's last change.
    pub fn cross(
        &mut self,
        number: u64,
        direction: usize,
        now: Nanos,
        changed: Nanos,
    ) -> Result<(), String> {
        let stable_since = changed + NETWORK_SETTLE;
        let Some(packet) = self.packet(number) else {
            return Err(format!("packet {number}, long after it was sent"));
        };
        if packet.crossed.len() <= direction {
            packet.crossed.resize(direction + 1, 0);
        }
        let times = &mut packet.crossed[direction];
        *times = times.saturating_add(1);
        let bound = if packet.sent >= stable_since && now >= stable_since {
            1
        } else {
            2
        };
        if *times > bound {
            return Err(format!(
                "packet {number} for {} of node {}: {times} times",
                packet.group, packet.origin
            ));
        }
        Ok(())
    }

    /// Notes a delivery to the programs of a node; `place` is the node's index in its shard.
    pub fn deliver(&mut self, number: u64, place: usize) -> Result<(), (Rule, String)> {
        let Some(packet) = self.packet(number) else {
            let text = format!("packet {number}, long after it was sent");
            return Err((Rule::DeliveredTwice, text));
        };
        let (word, bit) = (place / 64, 1 << (place % 64));
        let first = packet.received[word] & bit == 0;
        packet.received[word] |= bit;
        if first {
            return Ok(());
        }
        let text = format!(
            "packet {number} for {} of node {}",
            packet.group, packet.origin
        );
        Err((Rule::DeliveredTwice, text))
    }

    /// Removes the oldest packet; returns its results.
    pub fn expire(&mut self) -> Option<Fate> {
        let packet = self.packets.pop_front()?;
        self.first += 1;
        Some(Fate {
            lost: packet.lost,
            received: packet.received,
        })
    }
}

/// Results of a packet in one shard.
#[derive(Debug)]
pub struct Fate {
    pub lost: bool,
    received: Box<[u64]>,
}

impl Fate {
    /// Whether the node at this index has received it.
    pub fn has_received(&self, place: usize) -> bool {
        self.received[place / 64] & 1 << (place % 64) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::SECOND;

    const GROUP: Ipv6Addr = Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, 1);
    const LATER: Nanos = NETWORK_SETTLE + SECOND;

    fn ledger() -> Ledger {
        let mut ledger = Ledger::new(100);
        ledger.send(1, GROUP, LATER);
        ledger
    }

    #[test]
    fn who_got_a_packet_and_whether_it_was_lost_is_known() {
        let mut ledger = ledger();
        ledger.send(1, GROUP, LATER);
        assert_eq!(ledger.deliver(1, 99), Ok(()));
        ledger.lose(2);
        let fate = ledger.expire().unwrap();
        assert!(fate.has_received(99) && !fate.has_received(98) && !fate.lost);
        assert!(ledger.expire().unwrap().lost);
        assert!(ledger.expire().is_none());
    }

    #[test]
    fn a_second_delivery_is_found_even_late() {
        let mut ledger = ledger();
        assert_eq!(ledger.deliver(1, 7), Ok(()));
        assert_eq!(ledger.deliver(1, 7).unwrap_err().0, Rule::DeliveredTwice);
        ledger.expire();
        assert_eq!(ledger.deliver(1, 8).unwrap_err().0, Rule::DeliveredTwice);
    }

    #[test]
    fn a_link_is_crossed_once_or_twice_while_the_network_changes() {
        let mut one = ledger();
        assert!(one.cross(1, 5, LATER, 0).is_ok());
        assert!(one.cross(1, 6, LATER, 0).is_ok());
        assert!(one.cross(1, 5, LATER, 0).is_err());
        let mut other = ledger();
        let crossed = (0..3).map(|_| other.cross(1, 5, LATER, LATER).is_ok());
        assert_eq!(crossed.collect::<Vec<_>>(), [true, true, false]);
    }
}
