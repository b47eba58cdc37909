//! Packets over each link, by group: counted only while a user looks.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use librecast::id::LinkId;

use crate::classify::flow_of;
use crate::output::Links;

/// Counted (group, link) pairs.
const MAX_FLOWS: usize = 4_096;

/// Packets over one link to one group since the last call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkFlow {
    /// The group.
    pub group: Ipv6Addr,
    /// The link.
    pub link: LinkId,
    /// Packets sent.
    pub packets: u64,
    /// Their bytes, without headers of the overlay.
    pub bytes: u64,
}

/// Counts of packets sent over links.
#[derive(Debug, Default)]
pub(crate) struct FlowMeter {
    counts: BTreeMap<(Ipv6Addr, LinkId), (u64, u64)>,
}

impl FlowMeter {
    /// Counts a packet sent over these links.
    pub fn count(&mut self, links: &Links, packet: &[u8]) {
        let flow = flow_of(packet).filter(|flow| flow.group.is_multicast());
        let Some(flow) = flow else { return };
        for link in links.iter() {
            let key = (flow.group, *link);
            if self.counts.len() >= MAX_FLOWS && !self.counts.contains_key(&key) {
                return;
            }
            let (packets, bytes) = self.counts.entry(key).or_default();
            *packets += 1;
            *bytes += packet.len() as u64;
        }
    }

    /// The counts since the last call, in order.
    pub fn take(&mut self) -> Vec<LinkFlow> {
        let flow = |((group, link), (packets, bytes))| LinkFlow {
            group,
            link,
            packets,
            bytes,
        };
        std::mem::take(&mut self.counts)
            .into_iter()
            .map(flow)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use librecast::ipv6::udp_packet;

    use super::*;

    #[test]
    fn packets_count_by_group_and_link_up_to_a_bound() {
        let group = |n: u16| Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, n);
        let packet = |to| udp_packet(Ipv6Addr::LOCALHOST, to, (7, 64), &[0; 100]);
        let links = |ids: &[u32]| ids.iter().map(|id| LinkId(*id)).collect::<Links>();
        let mut meter = FlowMeter::default();
        meter.count(&links(&[1, 2]), &packet(group(1)));
        meter.count(&links(&[2]), &packet(group(1)));
        meter.count(&links(&[1]), &packet(Ipv6Addr::LOCALHOST));
        meter.count(&links(&[1]), b"short");
        let flow = |link, packets| LinkFlow {
            group: group(1),
            link: LinkId(link),
            packets,
            bytes: packets * 148,
        };
        assert_eq!(meter.take(), [flow(1, 1), flow(2, 2)]);
        assert_eq!(meter.take(), []);
        for n in 0..MAX_FLOWS as u16 + 7 {
            meter.count(&links(&[1]), &packet(group(n)));
        }
        meter.count(&links(&[1]), &packet(group(0)));
        let flows = meter.take();
        assert_eq!((flows.len(), flows[0].packets), (MAX_FLOWS, 2));
    }
}
