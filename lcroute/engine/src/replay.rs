//! The first packets of a flow, for listeners that are not known yet.
//!
//! A router advertises SourceActive of a group towards the root, and a Join may come back a round
//! trip later. The buffer keeps packets sent meanwhile, and sends them over links that have joined
//! since. So a program that sends one packet reaches near and far listeners alike.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use bytes::Bytes;
use librecast::id::{LinkId, OriginId};
use librecast::time::{Duration, Instant};

use crate::classify::Flow;
use crate::config::Limits;
use crate::header::DataHeader;
use crate::output::Links;
use crate::table::Table;

/// Time after SourceActive for which packets are kept, like first packets.
const REPLAY_TIME: Duration = Duration::from_secs(1);

type Key = (OriginId, Ipv6Addr);

/// A packet to send again over further links.
#[derive(Debug)]
pub struct Replayed {
    pub links: Links,
    pub header: DataHeader,
    pub packet: Bytes,
}

#[derive(Debug)]
struct Kept {
    header: DataHeader,
    packet: Bytes,
    /// The links over which it went.
    links: Vec<LinkId>,
}

/// Groups with recently advertised SourceActive, and packets sent since.
#[derive(Debug)]
pub struct ReplayBuffer {
    /// By source: if hundreds announce themselves at once, the first packets of each are kept.
    groups: Table<Key, BTreeMap<Ipv6Addr, Vec<Kept>>>,
    timers: BTreeSet<(Instant, Key)>,
    bytes: usize,
    max_groups: usize,
    max_packets: usize,
    max_bytes: usize,
}

impl ReplayBuffer {
    pub fn new(limits: &Limits, seed: u64) -> Self {
        Self {
            groups: Table::new(seed),
            timers: BTreeSet::new(),
            bytes: 0,
            max_groups: limits.flows,
            max_packets: limits.buffered_packets,
            max_bytes: limits.buffered_bytes,
        }
    }

    /// Whether no packet must be kept.
    pub fn is_idle(&self) -> bool {
        self.timers.is_empty()
    }

    /// Begins to keep packets of a group after its SourceActive.
    pub fn start(&mut self, key: Key, now: Instant) {
        if self.groups.len() < self.max_groups && self.groups.get(&key).is_none() {
            self.groups.insert(key, BTreeMap::new());
            self.timers.insert((now + REPLAY_TIME, key));
        }
        self.check();
    }

    /// Asserts that packets are forgotten in time.
    fn check(&self) {
        debug_assert_eq!(
            self.timers.len(),
            self.groups.len(),
            "each group has one timer"
        );
        debug_assert!(self.bytes <= self.max_bytes, "kept packets have a bound");
        debug_assert!(
            self.bytes == 0 || !self.timers.is_empty(),
            "packets of forgotten groups are forgotten"
        );
    }

    /// Keeps a packet that went out over these links.
    pub fn keep(&mut self, flow: Flow, header: DataHeader, packet: &Bytes, links: &Links) {
        let Flow { source, group } = flow;
        let Some(sources) = self.groups.get_mut(&(header.root, group)) else {
            return;
        };
        let bytes = packet.len() + size_of::<Kept>();
        if self.bytes + bytes > self.max_bytes {
            return;
        }
        let kept = sources.entry(source).or_default();
        if kept.len() < self.max_packets {
            self.bytes += bytes;
            kept.push(Kept {
                header,
                // a copy: a small packet must not keep a buffer of many for a second
                packet: Bytes::copy_from_slice(packet),
                links: links.to_vec(),
            });
        }
        self.check();
    }

    /// Takes the packets that go over further links after a change of the group's joins.
    pub fn replay(
        &mut self,
        key: Key,
        mut wanting: impl FnMut((Ipv6Addr, OriginId)) -> Option<Links>,
    ) -> Vec<Replayed> {
        let mut new = Vec::new();
        for (source, packets) in self.groups.get_mut(&key).into_iter().flatten() {
            for kept in packets {
                let Some(links) = wanting((*source, kept.header.origin)) else {
                    continue;
                };
                let further: Vec<LinkId> = links
                    .iter()
                    .filter(|l| !kept.links.contains(l))
                    .copied()
                    .collect();
                if !further.is_empty() {
                    kept.links.extend(&further);
                    new.push(Replayed {
                        links: further.into(),
                        header: kept.header,
                        packet: kept.packet.clone(),
                    });
                }
            }
        }
        new
    }

    /// Forgets all packets, as after a change of the network a link may have them by another path.
    pub fn clear(&mut self) {
        for (_, key) in std::mem::take(&mut self.timers) {
            self.groups.remove(&key);
        }
        self.bytes = 0;
    }

    /// Forgets packets that were kept long enough.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(at, key)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            let sources = self.groups.remove(&key).unwrap_or_default();
            for kept in sources.into_values().flatten() {
                self.bytes -= kept.packet.len() + size_of::<Kept>();
            }
        }
        self.check();
    }

    /// The time of the next call of [`Self::handle_timeout`].
    pub fn next_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::Payload;
    use crate::testing::start;

    const ROOT: OriginId = OriginId(1);
    const GROUP: Ipv6Addr = Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, 1);
    const SOURCE: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);

    const FLOW: Flow = Flow {
        source: SOURCE,
        group: GROUP,
    };

    fn header(sequence: u64) -> DataHeader {
        DataHeader {
            payload: Payload::Ipv6,
            flags: 0,
            hop_limit: 64,
            root: ROOT,
            origin: OriginId::of(SOURCE),
            incarnation: 1,
            sequence,
        }
    }

    fn links(list: &[u32]) -> Links {
        list.iter().map(|n| LinkId(*n)).collect()
    }

    fn buffer() -> ReplayBuffer {
        let limits = Limits {
            buffered_bytes: 12 * (100 + size_of::<Kept>()),
            ..Limits::default()
        };
        ReplayBuffer::new(&limits, 1)
    }

    #[test]
    fn packets_follow_over_each_new_link_once() {
        let (mut buffer, now) = (buffer(), start());
        let packet = Bytes::from_static(b"x");
        buffer.keep(FLOW, header(1), &packet, &links(&[1]));
        buffer.start((ROOT, GROUP), now);
        buffer.keep(FLOW, header(2), &packet, &links(&[1]));
        let mut further = |all: &[u32]| {
            let new = buffer.replay((ROOT, GROUP), |_| Some(links(all)));
            let sequence_and_links = |again: Replayed| {
                let links = again.links.iter().map(|l| l.0);
                (again.header.sequence, links.collect::<Vec<_>>())
            };
            new.into_iter().map(sequence_and_links).collect::<Vec<_>>()
        };
        assert_eq!(further(&[1]), []);
        assert_eq!(
            further(&[1, 2]),
            [(2, vec![2])],
            "the first went out before SourceActive"
        );
        assert_eq!(further(&[2, 3]), [(2, vec![3])]);
        assert_eq!(further(&[1, 2, 3]), []);
    }

    #[test]
    fn what_is_kept_is_bounded_and_forgotten() {
        let (mut buffer, now) = (buffer(), start());
        buffer.start((ROOT, GROUP), now);
        let packet = Bytes::from(vec![0; 100]);
        let each = 100 + size_of::<Kept>();
        for n in 0..20 {
            buffer.keep(FLOW, header(n), &packet, &links(&[1]));
        }
        assert_eq!(buffer.bytes(), 8 * each, "eight packets");
        for n in 2..9 {
            let source = Ipv6Addr::from_bits(n);
            buffer.keep(Flow { source, ..FLOW }, header(1), &packet, &links(&[1]));
        }
        assert_eq!(
            buffer.bytes(),
            12 * each,
            "of others as many as there is room"
        );
        assert_eq!(buffer.next_timeout(), Some(now + REPLAY_TIME));
        buffer.handle_timeout(now + REPLAY_TIME);
        assert_eq!((buffer.bytes(), buffer.is_idle()), (0, true));
    }

    #[test]
    fn each_source_has_its_first_packets_kept() {
        let (mut buffer, now) = (buffer(), start());
        buffer.start((ROOT, GROUP), now);
        for n in 1..=12 {
            let source = Ipv6Addr::from_bits(n);
            let packet = Bytes::from_static(b"x");
            buffer.keep(Flow { source, ..FLOW }, header(1), &packet, &links(&[1]));
        }
        let new = buffer.replay((ROOT, GROUP), |_| Some(links(&[1, 2])));
        assert_eq!(new.len(), 12);
    }
}
