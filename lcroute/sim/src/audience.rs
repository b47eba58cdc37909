//! Cost of an audience for its routers: the same network with and without leaves.
//!
//! ```text
//!   ... at rest ──> a minute in which leaves join ──> a minute in which all listen
//!                   one router sends once a second all the time
//! ```
//!
//! A leaf is two links of the real engine, with two routers, and a real LEAF JOIN over the first
//! one. Output to leaves is only counted.

use std::net::Ipv6Addr;

use bytes::Bytes;
use lcroute_engine::{Leaf, LeafOutput, Limits, SourceFilter};
use librecast::id::LinkId;
use serde::Serialize;

use crate::measure::{Bench, LATER, REST, Subject};
use crate::shard::FIRST_LEAF_LINK;
use crate::time::{Clock, SECOND};

/// Seconds of joining, and of listening. Chosen: as long as other counts of control bytes.
const SECONDS: u32 = 60;
/// Links of a leaf: one active, one standby.
const LINKS: u32 = 2;
/// Router that sends.
const SPEAKER: u32 = 0;
/// Bytes of each of its packets.
const PACKET_BYTES: u16 = 100;

/// Control bytes between routers, per router and second.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct RouterBytes {
    /// While leaves join.
    pub coming: f64,
    /// In the following minute.
    pub listening: f64,
}

/// Results for an audience.
#[derive(Debug, Clone, Default, Serialize)]
pub struct AudienceFigures {
    /// Number of routers.
    pub nodes: u32,
    /// Number of leaves at all routers.
    pub leaves: u32,
    /// Links of all leaves together.
    pub leaf_links: u32,
    /// Topology policy of the routers.
    pub policy: String,
    /// Seed of all randomness.
    pub seed: u64,
    /// Without leaves.
    pub without_audience: RouterBytes,
    /// With all leaves.
    pub with_audience: RouterBytes,
    /// Control bytes with the audience, relative to those without, in both minutes.
    pub ratio: f64,
    /// Control bytes to a leaf per second; no other figure contains them.
    pub bytes_to_leaf: f64,
    /// Packets due to leaves in the second minute.
    pub packets_expected: u64,
    /// Packets sent to them.
    pub packets_sent: u64,
    /// A broken rule of the simulation.
    pub broken_rule: Option<String>,
}

/// Returns the bound of leaves at `nodes` routers.
pub fn max_leaves(nodes: u32) -> u32 {
    let each = Limits::default().leaves;
    nodes.saturating_mul(u32::try_from(each).unwrap_or(u32::MAX)) / LINKS
}

/// Measures a network without an audience, and with `leaves` spread evenly over its routers.
/// `progress` receives the name of each part.
pub fn audience(
    subject: Subject,
    leaves: u32,
    threads: usize,
    progress: &mut dyn FnMut(&str),
) -> AudienceFigures {
    let mut figures = AudienceFigures {
        nodes: subject.nodes,
        leaves,
        leaf_links: leaves * LINKS,
        policy: subject.policy.to_string(),
        seed: subject.seed,
        ..AudienceFigures::default()
    };
    progress("without an audience");
    let mut bench = Bench::new(subject, threads);
    figures.without_audience = listen(&mut bench, 0, &mut AudienceFigures::default());
    progress("with an audience");
    let mut bench = Bench::new(subject, threads);
    figures.with_audience = listen(&mut bench, leaves, &mut figures);
    let sum = |bytes: RouterBytes| bytes.coming + bytes.listening;
    figures.ratio = sum(figures.with_audience) / sum(figures.without_audience);
    figures
}

fn listen(bench: &mut Bench, leaves: u32, figures: &mut AudienceFigures) -> RouterBytes {
    bench.run(REST + LATER);
    let group = bench.group();
    let (member, message) = (bench.simulation.population.leaf(), leaf_join(group));
    let mut bytes = RouterBytes::default();
    let mut linked = 0;
    bytes.coming = router_bytes(bench, |bench, second| {
        let until = u64::from(leaves) * u64::from(second + 1) / u64::from(SECONDS);
        for leaf in linked..until as u32 {
            for n in 0..LINKS {
                let link = FIRST_LEAF_LINK + leaf * LINKS + n;
                bench
                    .simulation
                    .alone((leaf + n) % bench.nodes, |router, now| {
                        router.leaf_up(link, &member, now);
                        if n == 0 {
                            router.control(link, &message, now);
                        }
                    });
            }
        }
        linked = until as u32;
        speak(bench, group);
    });
    let before = bench.simulation.to_leaves();
    bytes.listening = router_bytes(bench, |bench, _| speak(bench, group));
    let since = bench.simulation.to_leaves();
    figures.packets_expected = u64::from(leaves) * u64::from(SECONDS);
    figures.packets_sent = since.packets - before.packets;
    let to_leaves = since.control_bytes - before.control_bytes;
    figures.bytes_to_leaf = to_leaves as f64 / f64::from(leaves.max(1)) / f64::from(SECONDS);
    figures.broken_rule = bench
        .simulation
        .violation
        .as_ref()
        .map(|v| format!("{v:?}"));
    bytes
}

/// Returns the control bytes per router and second, while `each` runs for each second.
fn router_bytes(bench: &mut Bench, mut each: impl FnMut(&mut Bench, u32)) -> f64 {
    let before = bench.simulation.statistics().control.bytes;
    for second in 0..SECONDS {
        each(bench, second);
    }
    let bytes = bench.simulation.statistics().control.bytes - before;
    bytes as f64 / f64::from(bench.nodes) / f64::from(SECONDS)
}

fn speak(bench: &mut Bench, group: Ipv6Addr) {
    bench.simulation.send(SPEAKER, group, PACKET_BYTES, false);
    bench.run(SECOND);
}

/// Returns a leaf's control message that joins a group.
fn leaf_join(group: Ipv6Addr) -> Bytes {
    let now = Clock::new().instant(0);
    let mut leaf = Leaf::new(0, now);
    let router = librecast::id::SecretKey::from_seed(&[0; 32]).peer_id();
    leaf.handle_link_up(LinkId(0), router, now);
    leaf.join(group, SourceFilter::all(), now);
    std::iter::from_fn(|| leaf.poll_output())
        .find_map(|output| match output {
            LeafOutput::Control { message, .. } => Some(message),
            _ => None,
        })
        .expect("a leaf with a link says what it joins")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Policy;

    #[test]
    fn an_audience_is_sent_each_packet_and_costs_routers_next_to_nothing() {
        let subject = Subject {
            nodes: 12,
            policy: Policy::Regular,
            degree: 4,
            seed: 1,
        };
        let few = audience(subject, 12, 1, &mut |_| ());
        let many = audience(subject, 1_200, 1, &mut |_| ());
        assert_eq!((many.leaves, many.leaf_links), (1_200, 2_400));
        assert_eq!(max_leaves(subject.nodes), 3_072);
        assert_eq!(few.broken_rule, None);
        assert_eq!(many.broken_rule, None);
        assert_eq!(many.packets_expected, 72_000);
        assert_eq!(many.packets_sent, many.packets_expected);
        assert!(many.bytes_to_leaf > 0.0);
        assert_eq!(few.without_audience.coming, many.without_audience.coming);
        // a further leaf at a router causes no messages to other routers
        assert!(
            (many.ratio / few.ratio - 1.0).abs() < 0.05,
            "{few:?} {many:?}"
        );
    }
}
