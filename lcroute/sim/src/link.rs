//! Properties of links, and places of nodes.

use crate::random::{Draw as _, Random};
use crate::scenario::{Latency, Links};
use crate::time::{MILLISECOND, Nanos, SECOND};

/// Time of light for two kilometres.
const LEAST_LATENCY: Nanos = 10_000;

/// A link between two nodes, as the simulator sees it.
#[derive(Debug)]
pub struct Link {
    /// The nodes at its ends.
    pub ends: [u32; 2],
    /// Whether each end has it.
    pub up: [bool; 2],
    /// Whether messages arrive; an end may not have noticed yet.
    pub alive: bool,
    /// One-way latency without jitter.
    pub latency: Nanos,
    /// Number of the link between these two nodes.
    pub number: u64,
}

impl Link {
    /// Makes a link that is up; `number` counts links between these nodes.
    pub fn new(ends: [u32; 2], latency: Nanos, number: u64) -> Self {
        Self {
            ends,
            up: [true; 2],
            alive: true,
            latency,
            number,
        }
    }

    pub fn side(&self, node: u32) -> usize {
        usize::from(self.ends[1] == node)
    }

    pub fn port(&self, side: usize, seed: u64) -> Port {
        let [low, high] = self.ends.map(u64::from);
        Port {
            peer: self.ends[1 - side],
            direction: 0,
            alive: self.alive,
            latency: self.latency,
            packets: 0,
            messages: 0,
            random: Random::stream(seed, &[10, low, high, self.number, side as u64]),
            free_at: 0,
            control_at: 0,
        }
    }
}

/// One end of a link, with the delay and loss of outgoing messages.
#[derive(Debug)]
pub struct Port {
    /// The node at the other end.
    pub peer: u32,
    /// Its direction in the ledger of its shard.
    pub direction: usize,
    /// Whether messages arrive; the node may not have noticed yet.
    pub alive: bool,
    latency: Nanos,
    /// Data messages sent.
    pub packets: u64,
    pub messages: u32,
    random: Random,
    /// Time at which the queue is empty.
    free_at: Nanos,
    /// Arrival time of the last control message.
    control_at: Nanos,
}

impl Port {
    /// Sends a data message; returns its time of arrival, `None` if lost.
    pub fn send_data(&mut self, bytes: usize, now: Nanos, links: &Links) -> Option<Nanos> {
        self.packets += 1;
        self.messages = self.messages.wrapping_add(1);
        let start = self.free_at.max(now);
        if start - now > links.queue.nanos() {
            return None;
        }
        self.free_at = start + serialization(bytes, links.bandwidth);
        if self.random.chance(links.loss) {
            return None;
        }
        let jitter = self.random.time(0, links.jitter.nanos());
        Some(self.free_at + self.latency + jitter)
    }

    /// Sends a control message; returns its time of arrival, in order and delayed by losses.
    pub fn send_control(&mut self, bytes: usize, now: Nanos, links: &Links) -> Nanos {
        self.messages = self.messages.wrapping_add(1);
        let start = self.free_at.max(now);
        self.free_at = start + serialization(bytes, links.bandwidth);
        let jitter = self.random.time(0, links.jitter.nanos());
        let mut arrival = self.free_at + self.latency + jitter;
        // a lost message is resent after a timeout of its acknowledgement
        let mut timeout = 2 * self.latency + 200 * MILLISECOND;
        while self.random.chance(links.loss) {
            arrival += timeout;
            timeout = (2 * timeout).min(2 * SECOND);
        }
        self.control_at = arrival.max(self.control_at);
        self.control_at
    }

    /// Returns a round trip as the node measures it now.
    pub fn round_trip(&mut self, links: &Links) -> Nanos {
        2 * self.latency + self.random.time(0, 2 * links.jitter.nanos())
    }
}

fn serialization(bytes: usize, bandwidth: u64) -> Nanos {
    (bytes as u128 * 8 * u128::from(SECOND) / u128::from(bandwidth.max(1))) as Nanos
}

#[derive(Debug)]
pub struct Map {
    latency: Latency,
    no_direct: f64,
    unidirectional: f64,
    behind_nat: f64,
    seed: u64,
    places: Vec<(f64, f64)>,
}

impl Map {
    /// Makes a map of `nodes` nodes.
    pub fn new(links: &Links, nodes: u32, seed: u64) -> Self {
        let place = |node: u32| {
            let mut random = Random::stream(seed, &[5, node.into()]);
            (random.unit(), random.unit())
        };
        Self {
            latency: links.latency.clone(),
            no_direct: links.no_direct,
            unidirectional: links.unidirectional,
            behind_nat: links.behind_nat,
            seed,
            places: (0..nodes).map(place).collect(),
        }
    }

    /// Returns the least latency of a link, within which nodes do not depend on each other.
    pub fn least_latency(&self) -> Nanos {
        let least = match &self.latency {
            Latency::Constant { value } => value.nanos(),
            Latency::Uniform { low, .. } => low.nanos(),
            Latency::Plane { floor, .. } | Latency::Places { floor, .. } => floor.nanos(),
        };
        least.max(LEAST_LATENCY)
    }

    /// Returns the one-way latency of a link between two nodes.
    pub fn latency(&self, a: u32, b: u32) -> Nanos {
        let latency = match &self.latency {
            Latency::Constant { value } => value.nanos(),
            Latency::Uniform { low, high } => {
                let name = [6, a.min(b).into(), a.max(b).into()];
                Random::stream(self.seed, &name).time(low.nanos(), high.nanos())
            }
            Latency::Plane { side, floor } => {
                let (p, q) = (self.places[a as usize], self.places[b as usize]);
                let distance = (p.0 - q.0).hypot(p.1 - q.1);
                floor.nanos() + (distance * side.nanos() as f64) as Nanos
            }
            Latency::Places {
                side,
                floor,
                places,
            } => {
                let (p, q) = (places[a as usize], places[b as usize]);
                // a square root is exact on every machine, `hypot` is not
                let distance = ((p.0 - q.0).powi(2) + (p.1 - q.1).powi(2)).sqrt();
                floor.nanos() + (distance * side.nanos() as f64) as Nanos
            }
        };
        latency.max(LEAST_LATENCY)
    }

    /// Whether a link between two nodes is possible.
    pub fn connects(&self, a: u32, b: u32) -> bool {
        let name = [7, a.min(b).into(), a.max(b).into()];
        !Random::stream(self.seed, &name).chance(self.no_direct)
    }

    /// Whether datagrams pass in this direction; some pairs have one direction only.
    pub fn hears(&self, from: u32, to: u32) -> bool {
        let name = [12, from.min(to).into(), from.max(to).into()];
        let mut random = Random::stream(self.seed, &name);
        !random.chance(self.unidirectional) || random.chance(0.5) == (from < to)
    }

    pub fn behind_nat(&self, node: u32) -> bool {
        Random::stream(self.seed, &[13, node.into()]).chance(self.behind_nat)
    }

    /// Returns the places of nodes in the unit square.
    pub fn places(&self) -> &[(f64, f64)] {
        match &self.latency {
            Latency::Places { places, .. } => places,
            _ => &self.places,
        }
    }

    pub fn seed(&self) -> u64 {
        self.seed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Span;

    fn links() -> Links {
        Links {
            latency: Latency::Constant {
                value: Span::ms(10),
            },
            jitter: Span::ms(0),
            bandwidth: 8_000_000,
            queue: Span::ms(5),
            ..Links::default()
        }
    }

    fn lossy(loss: f64) -> Links {
        Links { loss, ..links() }
    }

    #[test]
    fn a_full_link_delays_and_then_drops() {
        let (links, latency) = (links(), 10 * MILLISECOND);
        let link = Link::new([0, 1], latency, 0);
        let mut ports = [0, 1].map(|side| link.port(side, 1));
        let arrivals: Vec<_> = (0..8)
            .map(|_| ports[0].send_data(1_000, 0, &links))
            .collect();
        let ms = |n| Some(n * MILLISECOND);
        assert_eq!(arrivals[..3], [ms(11), ms(12), ms(13)]);
        assert_eq!(arrivals[5..], [ms(16), None, None]);
        // the other direction has its own queue
        assert_eq!(ports[1].send_data(1_000, 0, &links), ms(11));
    }

    #[test]
    fn control_comes_in_order_whatever_is_lost() {
        let (links, latency) = (lossy(0.2), 10 * MILLISECOND);
        let mut port = Link::new([0, 1], latency, 0).port(0, 1);
        let arrivals: Vec<_> = (0..200)
            .map(|n| port.send_control(50, n * MILLISECOND, &links))
            .collect();
        assert!(arrivals.is_sorted());
        assert!(
            arrivals
                .iter()
                .zip(0..)
                .any(|(at, n)| *at > n * MILLISECOND + SECOND / 5)
        );
    }

    #[test]
    fn loss_is_what_the_scenario_says() {
        let (links, mut port) = (lossy(0.1), Link::new([0, 1], 0, 0).port(0, 1));
        let sent = 20_000;
        let lost = (0..sent)
            .filter(|n| port.send_data(1, n * SECOND, &links).is_none())
            .count();
        assert!((1_850..2_150).contains(&lost), "{lost}");
    }
}

/// Links and attempts between two nodes.
#[derive(Debug, Default)]
pub struct Pair {
    pub link: Option<u32>,
    pub pending: bool,
    pub failures: u32,
    pub number: u64,
}
