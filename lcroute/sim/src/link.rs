//! What a link does to messages, and where nodes lie.

use crate::random::Random;
use crate::scenario::{Latency, Links};
use crate::time::{MILLISECOND, Nanos, SECOND};

/// A link of the overlay, and what each side believes of it.
#[derive(Debug)]
pub struct Link {
    /// The nodes at its ends.
    pub ends: [u32; 2],
    /// Whether each end has it.
    pub up: [bool; 2],
    /// False: nothing arrives any more, even if an end has not noticed.
    pub alive: bool,
    /// One way, without jitter.
    pub latency: Nanos,
    /// Data messages that each end has sent.
    pub packets: [u64; 2],
    directions: [Direction; 2],
}

#[derive(Debug)]
struct Direction {
    random: Random,
    /// When the last bit of the queue has left.
    free_at: Nanos,
    /// When the last control message arrives.
    control_at: Nanos,
}

impl Link {
    /// A link that is up; `number` is that of the connection between these two.
    pub fn new(ends: [u32; 2], latency: Nanos, seed: u64, number: u64) -> Self {
        let direction = |side: u64| Direction {
            random: Random::stream(seed, &[10, ends[0].into(), ends[1].into(), number, side]),
            free_at: 0,
            control_at: 0,
        };
        Self {
            ends,
            up: [true; 2],
            alive: true,
            latency,
            packets: [0; 2],
            directions: [direction(0), direction(1)],
        }
    }

    /// Which end a node is.
    pub fn side(&self, node: u32) -> usize {
        usize::from(self.ends[1] == node)
    }

    /// When a data message that an end sends now arrives; `None`: never.
    pub fn send_data(
        &mut self,
        side: usize,
        bytes: usize,
        now: Nanos,
        links: &Links,
    ) -> Option<Nanos> {
        self.packets[side] += 1;
        let direction = &mut self.directions[side];
        let start = direction.free_at.max(now);
        if start - now > links.queue.nanos() {
            return None;
        }
        direction.free_at = start + serialization(bytes, links.bandwidth);
        if direction.random.chance(links.loss) {
            return None;
        }
        let jitter = direction.random.between(0, links.jitter.nanos());
        Some(direction.free_at + self.latency + jitter)
    }

    /// When a control message that an end sends now arrives: in order, and later if pieces are lost.
    pub fn send_control(&mut self, side: usize, bytes: usize, now: Nanos, links: &Links) -> Nanos {
        let direction = &mut self.directions[side];
        let start = direction.free_at.max(now);
        direction.free_at = start + serialization(bytes, links.bandwidth);
        let jitter = direction.random.between(0, links.jitter.nanos());
        let mut arrival = direction.free_at + self.latency + jitter;
        // a lost message is sent again when its acknowledgement has not come
        let mut timeout = 2 * self.latency + 200 * MILLISECOND;
        while direction.random.chance(links.loss) {
            arrival += timeout;
            timeout = (2 * timeout).min(2 * SECOND);
        }
        direction.control_at = arrival.max(direction.control_at);
        direction.control_at
    }

    /// A round trip as an end measures it now.
    pub fn round_trip(&mut self, side: usize, links: &Links) -> Nanos {
        let random = &mut self.directions[side].random;
        2 * self.latency + random.between(0, 2 * links.jitter.nanos())
    }
}

fn serialization(bytes: usize, bandwidth: u64) -> Nanos {
    (bytes as u128 * 8 * u128::from(SECOND) / u128::from(bandwidth.max(1))) as Nanos
}

/// Where the nodes lie.
#[derive(Debug)]
pub struct Map {
    latency: Latency,
    no_direct: f64,
    seed: u64,
    places: Vec<(f64, f64)>,
}

impl Map {
    /// A map of so many nodes.
    pub fn new(links: &Links, nodes: u32, seed: u64) -> Self {
        let place = |node: u32| {
            let mut random = Random::stream(seed, &[5, node.into()]);
            (random.unit(), random.unit())
        };
        Self {
            latency: links.latency.clone(),
            no_direct: links.no_direct,
            seed,
            places: (0..nodes).map(place).collect(),
        }
    }

    /// Latency of a link between two nodes, one way.
    pub fn latency(&self, a: u32, b: u32) -> Nanos {
        match &self.latency {
            Latency::Constant { value } => value.nanos(),
            Latency::Uniform { low, high } => {
                let name = [6, a.min(b).into(), a.max(b).into()];
                Random::stream(self.seed, &name).between(low.nanos(), high.nanos())
            }
            Latency::Plane { side, floor } => {
                let (p, q) = (self.places[a as usize], self.places[b as usize]);
                let distance = (p.0 - q.0).hypot(p.1 - q.1);
                floor.nanos() + (distance * side.nanos() as f64) as Nanos
            }
        }
    }

    /// Whether a link between two nodes can be made.
    pub fn connects(&self, a: u32, b: u32) -> bool {
        let name = [7, a.min(b).into(), a.max(b).into()];
        !Random::stream(self.seed, &name).chance(self.no_direct)
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
        let mut link = Link::new([0, 1], latency, 1, 0);
        let arrivals: Vec<_> = (0..8)
            .map(|_| link.send_data(0, 1_000, 0, &links))
            .collect();
        let ms = |n| Some(n * MILLISECOND);
        assert_eq!(arrivals[..3], [ms(11), ms(12), ms(13)]);
        assert_eq!(arrivals[5..], [ms(16), None, None]);
        // the other direction has a queue of its own
        assert_eq!(link.send_data(1, 1_000, 0, &links), ms(11));
    }

    #[test]
    fn control_comes_in_order_whatever_is_lost() {
        let (links, latency) = (lossy(0.2), 10 * MILLISECOND);
        let mut link = Link::new([0, 1], latency, 1, 0);
        let arrivals: Vec<_> = (0..200)
            .map(|n| link.send_control(0, 50, n * MILLISECOND, &links))
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
        let (links, mut link) = (lossy(0.1), Link::new([0, 1], 0, 1, 0));
        let sent = 20_000;
        let lost = (0..sent)
            .filter(|n| link.send_data(0, 1, n * SECOND, &links).is_none())
            .count();
        assert!((1_850..2_150).contains(&lost), "{lost}");
    }
}
