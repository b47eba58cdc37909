//! First packets of a flow without a listener. Discovery programs send one at their start, while
//! the other side joins, and repeat it only after half a minute.
//!
//! ```text
//!   first packet -> WAITING up to 1 s --- first listener ---> released, forgotten
//!                        | time is up: no_listener
//!                        v
//!                    DROPPED: further packets are dropped at once
//!                        | idle for 60 s
//!                        v
//!                    forgotten
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use bytes::Bytes;
use librecast::time::{Duration, Instant};

use crate::classify::Flow;
use crate::config::Limits;
use crate::interface_id::LocalInterfaceId;
use crate::timers::TimerKind;

/// Time for which the first packets of a flow wait for a listener.
const BUFFER_TIME: Duration = Duration::from_secs(1);
/// Silence after which a flow counts as new.
const FLOW_IDLE: Duration = Duration::from_secs(60);

type Key = (Ipv6Addr, Ipv6Addr);

#[derive(Debug)]
enum State {
    Waiting(Vec<Bytes>),
    Dropped { last: Instant },
}

#[derive(Debug)]
struct BufferedFlow {
    state: State,
    /// Time of this flow's entry in the timer list.
    wake: Instant,
}

/// Flows without a listener.
#[derive(Debug)]
pub struct FirstPacketBuffer {
    flows: BTreeMap<Key, BufferedFlow>,
    timers: BTreeSet<(Instant, Key)>,
    bytes: usize,
    max_flows: usize,
    max_packets: usize,
    max_bytes: usize,
}

impl FirstPacketBuffer {
    pub fn new(limits: &Limits) -> Self {
        Self {
            flows: BTreeMap::new(),
            timers: BTreeSet::new(),
            bytes: 0,
            max_flows: limits.flows,
            max_packets: limits.buffered_packets,
            max_bytes: limits.buffered_bytes,
        }
    }

    /// Offers a packet without a listener. True: it waits; false: it must be dropped.
    pub fn offer(
        &mut self,
        (from, flow): (LocalInterfaceId, Flow),
        packet: &[u8],
        now: Instant,
    ) -> bool {
        let key = (flow.group, flow.source);
        let fits = self.bytes + packet.len() <= from.part_of(self.max_bytes);
        if !self.flows.contains_key(&key) {
            if !fits || self.flows.len() >= from.part_of(self.max_flows) {
                return false;
            }
            let wake = now + BUFFER_TIME;
            self.flows.insert(
                key,
                BufferedFlow {
                    state: State::Waiting(Vec::new()),
                    wake,
                },
            );
            self.timers.insert((wake, key));
        }
        self.check();
        match self.flows.get_mut(&key).map(|flow| &mut flow.state) {
            Some(State::Waiting(packets)) if fits && packets.len() < self.max_packets => {
                self.bytes += packet.len();
                // a copy: a small packet must not keep a buffer of many for a second
                packets.push(Bytes::copy_from_slice(packet));
                true
            }
            Some(State::Dropped { last }) => {
                *last = now;
                false
            }
            _ => false,
        }
    }

    /// Asserts that flows are forgotten in time.
    fn check(&self) {
        debug_assert_eq!(
            self.timers.len(),
            self.flows.len(),
            "each flow has one timer"
        );
        debug_assert!(self.flows.len() <= self.max_flows, "flows have a bound");
        debug_assert!(self.bytes <= self.max_bytes, "packets have a bound");
        debug_assert!(
            self.bytes == 0 || !self.flows.is_empty(),
            "packets wait in flows"
        );
    }

    pub fn sources_of(&self, group: Ipv6Addr) -> Vec<Ipv6Addr> {
        let all = (group, Ipv6Addr::UNSPECIFIED)..=(group, Ipv6Addr::from_bits(u128::MAX));
        self.flows
            .range(all)
            .map(|((_, source), _)| *source)
            .collect()
    }

    /// Takes the packets of a flow that has a listener, in order.
    pub fn release(&mut self, flow: Flow) -> Vec<Bytes> {
        let key = (flow.group, flow.source);
        let Some(flow) = self.flows.remove(&key) else {
            return Vec::new();
        };
        self.timers.remove(&(flow.wake, key));
        let packets = match flow.state {
            State::Waiting(packets) => packets,
            State::Dropped { .. } => Vec::new(),
        };
        self.bytes -= packets.iter().map(Bytes::len).sum::<usize>();
        self.check();
        packets
    }

    /// Drops packets that have waited long enough; returns their number.
    pub fn handle_timeout(&mut self, now: Instant) -> u64 {
        let mut dropped = 0;
        while let Some(&(at, key)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            let Some(flow) = self.flows.get_mut(&key) else {
                continue;
            };
            match &mut flow.state {
                State::Waiting(packets) => {
                    dropped += packets.len() as u64;
                    self.bytes -= packets.iter().map(Bytes::len).sum::<usize>();
                    flow.state = State::Dropped { last: now };
                    flow.wake = now + FLOW_IDLE;
                }
                State::Dropped { last } if *last + FLOW_IDLE > now => flow.wake = *last + FLOW_IDLE,
                State::Dropped { .. } => {
                    self.flows.remove(&key);
                    continue;
                }
            }
            self.timers.insert((flow.wake, key));
        }
        self.check();
        dropped
    }

    /// The time of the next call of [`Self::handle_timeout`].
    pub fn next_timeout(&self) -> Option<(Instant, TimerKind)> {
        let (at, key) = self.timers.first()?;
        let waits = matches!(self.flows.get(key)?.state, State::Waiting(_));
        Some((
            *at,
            if waits {
                TimerKind::FirstPackets
            } else {
                TimerKind::FlowIdle
            },
        ))
    }

    pub fn len(&self) -> usize {
        self.flows.len()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interface_id::LC0;
    use crate::testing::start;

    fn flow(group: u16) -> Flow {
        Flow {
            source: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1),
            group: Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, group),
        }
    }

    fn buffer() -> FirstPacketBuffer {
        FirstPacketBuffer::new(&Limits {
            flows: 3,
            buffered_bytes: 1000,
            ..Limits::default()
        })
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn eight_packets_wait_for_the_first_listener_in_order() {
        let (mut h, t) = (buffer(), start());
        for n in 0..10u8 {
            assert_eq!(h.offer((LC0, flow(1)), &[n], t), n < 8);
        }
        let released: Vec<_> = h.release(flow(1)).iter().map(|p| p[0]).collect();
        assert_eq!(released, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert!(h.release(flow(1)).is_empty());
        assert_eq!((h.len(), h.bytes(), h.next_timeout()), (0, 0, None));
    }

    #[test]
    fn after_a_second_packets_are_dropped_until_the_flow_was_idle() {
        let (mut h, t) = (buffer(), start());
        assert!(h.offer((LC0, flow(1)), b"first", t));
        assert_eq!(
            h.next_timeout(),
            Some((t + ms(1000), TimerKind::FirstPackets))
        );
        assert_eq!(h.handle_timeout(t + ms(999)), 0);
        assert_eq!(h.handle_timeout(t + ms(1000)), 1);
        assert_eq!(h.bytes(), 0);
        assert!(
            !h.offer((LC0, flow(1)), b"later", t + ms(30_000)),
            "known to be without listener"
        );
        assert_eq!(h.handle_timeout(t + ms(61_000)), 0);
        assert_eq!(h.len(), 1, "it was not idle");
        let idle = t + ms(90_000);
        assert_eq!(h.next_timeout(), Some((idle, TimerKind::FlowIdle)));
        h.handle_timeout(idle);
        assert_eq!((h.len(), h.next_timeout()), (0, None));
        assert!(h.offer((LC0, flow(1)), b"first again", idle));
    }

    #[test]
    fn flows_and_bytes_are_bounded() {
        let (mut h, t) = (buffer(), start());
        assert!(h.offer((LC0, flow(1)), &[0; 600], t));
        assert!(!h.offer((LC0, flow(1)), &[0; 600], t));
        assert!(
            !h.offer((LC0, flow(2)), &[0; 600], t),
            "no room for another flow's first packet"
        );
        assert!(h.offer((LC0, flow(2)), &[0; 200], t) && h.offer((LC0, flow(3)), &[0; 200], t));
        assert!(
            !h.offer((LC0, flow(4)), &[], t),
            "three flows are remembered"
        );
        assert_eq!(h.handle_timeout(t + ms(1000)), 3);
        assert_eq!(h.bytes(), 0);
    }

    #[test]
    fn hosts_of_lans_leave_half_to_programs() {
        let (mut h, t) = (buffer(), start());
        let lan = LocalInterfaceId(1);
        assert!(!h.offer((lan, flow(1)), &[0; 600], t), "half of the bytes");
        assert!(h.offer((lan, flow(1)), &[0; 100], t));
        assert!(!h.offer((lan, flow(2)), &[0; 100], t), "half of the flows");
        assert!(h.offer((LC0, flow(2)), &[0; 600], t));
    }
}
