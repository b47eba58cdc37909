//! Reports of nodes to observers of the network: once a second, their flows by group and link.
//!
//! ```text
//! version u8 (1) | second u32 | interval in ms u16 | groups up to the end of the datagram
//! group: address 16 bytes | flags u8 (1: joined on this host) | links u8
//!        | links x { neighbour u64, packets u32, bytes u64 }
//! ```
//!
//! A report that exceeds one datagram continues in the next ones of the same second; a group may be
//! in several. Every four seconds a further datagram contains the node's version:
//!
//! ```text
//! version u8 (2) | version of the program, text up to the end of the datagram
//! ```

use std::net::Ipv6Addr;

use librecast::bucket::Rate;
use librecast::id::OriginId;
use librecast::wire::{Reader, WireError, Writer};

use crate::look::{Edge, Flow};

/// Version of a report.
const VERSION: u8 = 1;
/// Version byte of the datagram with the node's version.
const SOFTWARE: u8 = 2;
/// Interval between such datagrams in seconds. Chosen: a page can wait for it.
const SOFTWARE_EVERY: u64 = 4;
/// Maximum length of a program's version in bytes. Chosen: twice "10.20.30-beta.1".
const MAX_SOFTWARE: usize = 32;
/// Flag of a group: programs of this host have joined it.
const FLAG_LOCAL: u8 = 1;
/// Maximum length of a datagram: it fits into a packet of 1,280 bytes over any link.
const MAX_LEN: usize = 1_150;
/// Maximum number of datagrams in one second; the busiest groups come first.
const MAX_PARTS: usize = 8;
/// Bytes before the groups of a datagram.
const HEAD_LEN: usize = 7;
/// Bytes of a group.
pub(crate) const GROUP_LEN: usize = 18;
/// Bytes of an edge.
pub(crate) const EDGE_LEN: usize = 20;
/// Bytes of groups and edges in the datagrams of one second: some 450 edges.
pub(crate) const MAX_SECOND: usize = MAX_PARTS * (MAX_LEN - HEAD_LEN);
/// Rate of accepted datagrams of one node: those of a second may come late, with those of the next.
pub(crate) const DATAGRAMS: Rate = Rate::per_second(MAX_PARTS as u64, 2 * MAX_PARTS as u64);

/// The packets of one group that a node sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupFlow {
    /// The group.
    pub group: Ipv6Addr,
    /// Whether a program on the node's host has joined it.
    pub local: bool,
    /// Packets and bytes within the interval, by neighbour.
    pub edges: Vec<FlowEdge>,
}

/// The packets that a node sends to one neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowEdge {
    /// The neighbour.
    pub to: OriginId,
    /// Packets within the interval.
    pub packets: u32,
    /// Their bytes.
    pub bytes: u64,
}

/// A report, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Number of the report; all its parts have the same.
    pub second: u32,
    /// Length of the interval in milliseconds.
    pub interval_ms: u16,
    /// The groups.
    pub groups: Vec<GroupFlow>,
}

/// The content of a datagram on the group of reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// The flows that the node sends.
    Report(Report),
    /// The version of the program that it runs.
    Software(String),
}

impl Said {
    /// Decodes a datagram.
    ///
    /// # Errors
    /// It is truncated, or of an unknown kind.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let Some(text) = bytes.strip_prefix(&[SOFTWARE]) else {
            return Report::decode(bytes).map(Self::Report);
        };
        let is_version = !text.is_empty() && text.iter().all(u8::is_ascii_graphic);
        match std::str::from_utf8(text) {
            Ok(text) if is_version && text.len() <= MAX_SOFTWARE => {
                Ok(Self::Software(text.to_owned()))
            }
            _ => Err(WireError::Bad("version of a program")),
        }
    }
}

impl GroupFlow {
    /// Returns the number of packets to all neighbours.
    pub fn packets(&self) -> u64 {
        self.edges.iter().map(|e| u64::from(e.packets)).sum()
    }
}

impl Report {
    /// Returns the rates of each group.
    pub fn rates(&self) -> Vec<Flow> {
        let seconds = f64::from(self.interval_ms) / 1_000.0;
        let edge = |edge: &FlowEdge| Edge {
            to: edge.to.0,
            packets_s: f64::from(edge.packets) / seconds,
            bytes_s: edge.bytes as f64 / seconds,
        };
        let flow = |group: &GroupFlow| Flow {
            group: group.group,
            local: group.local,
            edges: group.edges.iter().map(edge).collect(),
        };
        self.groups.iter().map(flow).collect()
    }

    /// Returns the datagrams of this second for a node with this version: those of the report, and
    /// every `SOFTWARE_EVERY` seconds the version, in different seconds for different nodes.
    pub fn datagrams(&self, node: OriginId, software: &str) -> Vec<Vec<u8>> {
        let mut parts = self.encode();
        if node.0.wrapping_add(self.second.into()) % SOFTWARE_EVERY == 0 {
            parts.truncate(MAX_PARTS - 1);
            parts.push([&[SOFTWARE], software.as_bytes()].concat());
        }
        parts
    }

    /// Encodes the report in one to eight datagrams.
    #[must_use]
    pub fn encode(&self) -> Vec<Vec<u8>> {
        let mut groups: Vec<_> = self.groups.iter().collect();
        groups.sort_by_key(|g| (std::cmp::Reverse(g.packets()), g.group));
        let head = || {
            let mut writer = Writer::new();
            writer.u8(VERSION).u32(self.second).u16(self.interval_ms);
            writer
        };
        let mut parts = vec![];
        let mut writer = head();
        for group in groups {
            let mut edges = &group.edges[..];
            loop {
                let room = MAX_LEN - writer.len();
                let fit = room.saturating_sub(GROUP_LEN) / EDGE_LEN;
                if room < GROUP_LEN || fit == 0 && !edges.is_empty() {
                    parts.push(std::mem::replace(&mut writer, head()).into_vec());
                    continue;
                }
                let (now, later) = edges.split_at(fit.min(edges.len()));
                let flags = if group.local { FLAG_LOCAL } else { 0 };
                // a datagram holds fewer than 256
                writer.ipv6(group.group).u8(flags).u8(now.len() as u8);
                for edge in now {
                    writer.u64(edge.to.0).u32(edge.packets).u64(edge.bytes);
                }
                edges = later;
                if edges.is_empty() {
                    break;
                }
            }
        }
        if parts.is_empty() || writer.len() > HEAD_LEN {
            parts.push(writer.into_vec());
        }
        parts.truncate(MAX_PARTS);
        parts
    }

    /// Decodes the report in a datagram.
    ///
    /// # Errors
    /// It is truncated, or no report of this version.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(WireError::Version(version));
        }
        let (second, interval_ms) = (reader.u32()?, reader.u16()?);
        if interval_ms == 0 {
            return Err(WireError::Bad("interval"));
        }
        let mut groups = Vec::new();
        while !reader.is_empty() {
            let group = reader.ipv6()?;
            if !group.is_multicast() {
                return Err(WireError::Bad("group"));
            }
            let (local, count) = (reader.u8()? & FLAG_LOCAL != 0, reader.u8()?);
            let mut edges = Vec::new();
            for _ in 0..count {
                edges.push(FlowEdge {
                    to: OriginId(reader.u64()?),
                    packets: reader.u32()?,
                    bytes: reader.u64()?,
                });
            }
            groups.push(GroupFlow {
                group,
                local,
                edges,
            });
        }
        Ok(Self {
            second,
            interval_ms,
            groups,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn group(n: u16, local: bool, edges: u64) -> GroupFlow {
        let edge = |to| FlowEdge {
            to: OriginId(to),
            packets: u32::from(n),
            bytes: u64::from(n) * 1_000,
        };
        GroupFlow {
            group: Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, n),
            local,
            edges: (0..edges).map(edge).collect(),
        }
    }

    #[test]
    fn golden_bytes() {
        let report = Report {
            second: 7,
            interval_ms: 1_000,
            groups: vec![group(2, true, 1)],
        };
        let golden = [
            [1, 0, 0, 0, 7, 0x03, 0xe8].as_slice(),
            &[0xff, 0x1e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 1],
            &[
                0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0x07, 0xd0,
            ],
        ];
        assert_eq!(report.encode(), [golden.concat()]);
        assert_eq!(Report::decode(&golden.concat()), Ok(report));
    }

    #[test]
    fn a_report_has_bounded_parts_and_the_busiest_groups() {
        let empty = Report {
            second: 1,
            interval_ms: 1_000,
            groups: Vec::new(),
        };
        assert_eq!(empty.encode().len(), 1, "it says that the node reports");
        let mut groups: Vec<_> = (0..5_000)
            .map(|n| group(n, true, u64::from(n % 3)))
            .collect();
        groups.push(group(6_000, false, 200));
        let report = Report { groups, ..empty };
        let parts = report.encode();
        assert_eq!(parts.len(), MAX_PARTS);
        let decoded: Vec<_> = parts.iter().map(|p| Report::decode(p).unwrap()).collect();
        let busiest = &report.groups[5_000];
        let mut edges = Vec::<FlowEdge>::new();
        for g in decoded.iter().flat_map(|r| &r.groups) {
            if g.group == busiest.group {
                edges.extend(&g.edges);
            }
        }
        assert_eq!(edges, busiest.edges);
        assert!(parts.iter().all(|p| p.len() <= MAX_LEN));
    }

    #[test]
    fn a_node_says_now_and_then_which_version_it_runs() {
        let report = |second| Report {
            second,
            interval_ms: 1_000,
            groups: (0..5_000).map(|n| group(n, true, 1)).collect(),
        };
        let said = |second| report(second).datagrams(OriginId(3), "10.2.3-beta.1");
        let versions = (0..8).filter(|second| said(*second).iter().any(|part| part[0] == SOFTWARE));
        assert_eq!(versions.collect::<Vec<_>>(), [1, 5]);
        assert!((0..8).all(|second| said(second).len() == MAX_PARTS));
        let last = said(1).pop().unwrap();
        assert_eq!(last, b"\x0210.2.3-beta.1");
        assert_eq!(
            Said::decode(&last),
            Ok(Said::Software("10.2.3-beta.1".into()))
        );
        for bad in [&b"\x02"[..], b"\x021\n2", b"\x02\xff", b"\x02 ", &[2; 40]] {
            assert!(Said::decode(bad).is_err(), "{bad:?}");
        }
        let long = [&[SOFTWARE], &[b'1'; MAX_SOFTWARE + 1][..]].concat();
        assert!(Said::decode(&long).is_err());
    }

    proptest! {
        #[test]
        fn whatever_comes_is_a_report_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..1_300)) {
            let _ = Said::decode(&bytes);
            let framed: Vec<u8> = [&[1, 0, 0, 0, 1, 3, 232], &bytes[..]].concat();
            if let Ok(report) = Report::decode(&framed) {
                let links: usize = report.groups.iter().map(|g| g.edges.len()).sum();
                prop_assert!(report.groups.len() * GROUP_LEN + links * EDGE_LEN == bytes.len());
            }
        }

        #[test]
        fn what_fits_is_read_as_it_was_written(counts in prop::collection::vec((1u16..50, any::<bool>(), 0u64..60), 0..12)) {
            let mut numbers = std::collections::BTreeSet::new();
            let fresh = counts.into_iter().filter(|(n, ..)| numbers.insert(*n));
            let groups: Vec<_> = fresh.map(|(n, local, edges)| group(n, local, edges.min(8))).collect();
            let report = Report { second: 3, interval_ms: 900, groups };
            let mut read = Vec::new();
            for part in report.encode() {
                read.extend(Report::decode(&part).unwrap().groups);
            }
            let mut merged: Vec<GroupFlow> = Vec::new();
            for g in read {
                match merged.iter_mut().find(|m| m.group == g.group) {
                    Some(known) => known.edges.extend(g.edges),
                    None => merged.push(g),
                }
            }
            merged.sort_by_key(|g| g.group);
            let mut expected = report.groups.clone();
            expected.sort_by_key(|g| g.group);
            prop_assert_eq!(merged, expected);
        }
    }
}
