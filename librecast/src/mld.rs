//! Encodes and decodes Multicast Listener Discovery: version 2 (RFC 9777) and version 1 (RFC 2710).
//!
//! ```text
//! IPv6 header   hop limit 1, source link-local (or :: before there is one)
//! hop-by-hop    3a 00 | router alert 05 02 00 00 | padding 01 00
//! ICMPv6        130 query, 143 report (version 2), 131 report and 132 done (version 1)
//! ```
//!
//! Whole packets come from an interface ([`parse_packet`]), ICMPv6 messages from a raw socket
//! ([`parse_message`]). Parsed messages own at most [`MAX_SOURCES`] sources a record.

use std::net::Ipv6Addr;
use std::time::Duration;

use thiserror::Error;

use crate::checksum::Sum;
use crate::wire::{Reader, WireError, Writer};

/// Sources kept of a record or query (`mld_max_msf` of Linux).
pub const MAX_SOURCES: usize = 64;
/// Destination of general queries: all nodes of the link.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Destination of version 1 "done" messages: all routers of the link.
pub const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// Destination of version 2 reports: all MLDv2-capable routers of the link.
pub const ALL_MLDV2_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
/// The smallest MTU of IPv6; reports are never built for less.
pub const MIN_MTU: usize = 1280;

/// Hop-by-hop options as every MLD packet carries them: ICMPv6 follows, router alert, padding.
const ROUTER_ALERT_HEADER: [u8; 8] = [ICMPV6, 0, 5, 2, 0, 0, 1, 0];
/// Bytes of an IPv6 header (RFC 8200 §3).
const IPV6_HEADER_LEN: usize = 40;
/// Bytes of a version 2 report before its records (RFC 9777 §5.2).
const REPORT_HEADER_LEN: usize = 8;
/// Bytes of a record before its sources (RFC 9777 §5.2).
const RECORD_HEADER_LEN: usize = 20;
/// Next header of hop-by-hop options, which router alerts are (RFC 8200 §4.3).
const HOP_BY_HOP: u8 = 0;
/// Next header of ICMPv6 (RFC 4443 §1).
pub(crate) const ICMPV6: u8 = 58;
/// Multicast Listener Query, of both versions (RFC 9777 §5).
const TYPE_QUERY: u8 = 130;
/// Version 1 Multicast Listener Report (RFC 2710 §3).
pub(crate) const TYPE_REPORT_V1: u8 = 131;
/// Version 1 Multicast Listener Done (RFC 2710 §3).
pub(crate) const TYPE_DONE_V1: u8 = 132;
/// Version 2 Multicast Listener Report (RFC 9777 §5.2).
const TYPE_REPORT_V2: u8 = 143;
/// Multicast Router Advertisement (RFC 4286 §3.1).
const TYPE_ROUTER_ADVERTISEMENT: u8 = 151;
/// All snoopers (RFC 4286 §3.2).
const ALL_SNOOPERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x6a);

/// The reason why bytes are not a valid MLD message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MldError {
    /// Shorter than its fields require, or with a field that the format forbids.
    #[error("malformed MLD message: {0}")]
    Malformed(#[from] WireError),
    /// ICMPv6 of another type, or no ICMPv6 at all.
    #[error("not an MLD message")]
    NotMld,
    /// The checksum over message and pseudo-header is wrong.
    #[error("wrong ICMPv6 checksum")]
    Checksum,
    /// It may have been routed here: the hop limit is not 1.
    #[error("hop limit {0} instead of 1")]
    HopLimit(u8),
    /// The router alert option (RFC 2711) is missing.
    #[error("no router alert option")]
    RouterAlert,
    /// The source is neither link-local nor, in a report, unspecified.
    #[error("source {0} is not link-local")]
    Source(Ipv6Addr),
}

/// Type of a multicast address record (RFC 9777 §5.2.12).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum RecordType {
    /// Current state: only these sources (MODE_IS_INCLUDE, IS_IN).
    ModeIsInclude = 1,
    /// Current state: all but these (MODE_IS_EXCLUDE, IS_EX).
    ModeIsExclude = 2,
    /// Filter mode change to INCLUDE (TO_IN); with no sources: left.
    ChangeToInclude = 3,
    /// Filter mode change to EXCLUDE (TO_EX); with no sources: joined.
    ChangeToExclude = 4,
    /// These sources are wanted now (ALLOW).
    AllowNewSources = 5,
    /// These sources are no longer wanted (BLOCK).
    BlockOldSources = 6,
}

impl RecordType {
    /// Decodes the number on the wire; unknown ones are to be ignored (RFC 9777 §5.2.12).
    pub fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::ModeIsInclude,
            2 => Self::ModeIsExclude,
            3 => Self::ChangeToInclude,
            4 => Self::ChangeToExclude,
            5 => Self::AllowNewSources,
            6 => Self::BlockOldSources,
            _ => return None,
        })
    }

    /// Returns whether the sources are those that are *not* wanted.
    pub fn is_exclude(self) -> bool {
        matches!(self, Self::ModeIsExclude | Self::ChangeToExclude)
    }
}

/// A multicast address record of a version 2 report (RFC 9777 §5.2.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The meaning of the sources.
    pub kind: RecordType,
    /// The group.
    pub group: Ipv6Addr,
    /// At most [`MAX_SOURCES`] when parsed.
    pub sources: Vec<Ipv6Addr>,
    /// It had more sources than [`MAX_SOURCES`]: for filters it counts as EXCLUDE{}.
    pub truncated: bool,
}

impl Record {
    /// Makes a record to send.
    pub fn new(kind: RecordType, group: Ipv6Addr, sources: Vec<Ipv6Addr>) -> Self {
        Self {
            kind,
            group,
            sources,
            truncated: false,
        }
    }
}

/// The content of a query, with the querier's variables (RFC 9777 §5.1).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// Answers come within this time.
    pub max_response: Duration,
    /// `None`: a general query.
    pub group: Option<Ipv6Addr>,
    /// S flag: routers do not lower their timers.
    pub suppress_router_processing: bool,
    /// Querier's robustness variable, 0 to 7; 0: not given.
    pub robustness: u8,
    /// Querier's query interval (QQIC, RFC 9777 §5.1.9).
    pub query_interval: Duration,
    /// Empty: a general or group-specific query. At most [`MAX_SOURCES`] when parsed.
    pub sources: Vec<Ipv6Addr>,
    /// There were more sources than [`MAX_SOURCES`].
    pub truncated: bool,
    /// It was a version 1 query (24 bytes), which has none of the fields from the S flag on.
    pub version_1: bool,
}

/// An MLD message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A query of either version.
    Query(Query),
    /// Version 2 report. Records of unknown type or with impossible addresses are left out.
    Report(Vec<Record>),
    /// Version 1 report: joined, with any source.
    ReportV1 {
        /// The group.
        group: Ipv6Addr,
    },
    /// Version 1 done: left.
    DoneV1 {
        /// The group.
        group: Ipv6Addr,
    },
}

impl Message {
    /// Returns its groups.
    pub fn groups(&self) -> impl Iterator<Item = Ipv6Addr> {
        let (one, records) = match self {
            Self::Query(query) => (query.group, &[][..]),
            Self::Report(records) => (None, records.as_slice()),
            Self::ReportV1 { group } | Self::DoneV1 { group } => (Some(*group), &[][..]),
        };
        one.into_iter().chain(records.iter().map(|r| r.group))
    }
}

/// Parses a whole IPv6 packet from an interface. Checks hop limit, router alert, checksum and
/// source (RFC 9777 §5.1.14, §5.2.13, §5.2.14). A report may come from `::`: the caller ignores it.
/// Returns the source too.
///
/// # Errors
/// The packet violates MLD (RFC 9777 §5.1.14, §5.2.13).
pub fn parse_packet(packet: &[u8]) -> Result<(Ipv6Addr, Message), MldError> {
    let mut r = Reader::new(packet);
    if r.u32()? >> 28 != 6 {
        return Err(MldError::NotMld);
    }
    let payload_len = r.u16()?;
    let next_header = r.u8()?;
    let hop_limit = r.u8()?;
    let (source, destination) = (r.ipv6()?, r.ipv6()?);
    let mut payload = Reader::new(r.take(payload_len.into())?);
    let (next_header, router_alert) = match next_header {
        HOP_BY_HOP => parse_hop_by_hop(&mut payload)?,
        other => (other, false),
    };
    let icmp = payload.rest();
    if next_header != ICMPV6 || !icmp.first().is_some_and(|t| is_mld(*t)) {
        return Err(MldError::NotMld);
    }
    if hop_limit != 1 {
        return Err(MldError::HopLimit(hop_limit));
    }
    if !router_alert {
        return Err(MldError::RouterAlert);
    }
    if icmpv6_checksum(source, destination, icmp) != 0 {
        return Err(MldError::Checksum);
    }
    Ok((source, parse_message(source, icmp)?))
}

/// Returns the next header, and whether a router alert for MLD (RFC 2711) is among the options.
fn parse_hop_by_hop(r: &mut Reader<'_>) -> Result<(u8, bool), WireError> {
    let next_header = r.u8()?;
    let len = usize::from(r.u8()?) * 8 + 6;
    let mut options = Reader::new(r.take(len)?);
    let mut router_alert = false;
    while !options.is_empty() {
        let kind = options.u8()?;
        if kind == 0 {
            continue; // Pad1 has no length
        }
        let len = options.u8()?;
        let value = options.take(len.into())?;
        router_alert |= kind == 5 && value == [0, 0];
    }
    Ok((next_header, router_alert))
}

/// Parses a bare ICMPv6 message from a raw socket; the kernel has verified the checksum.
///
/// # Errors
/// Not an MLD message, or a damaged one.
pub fn parse_message(source: Ipv6Addr, icmp: &[u8]) -> Result<Message, MldError> {
    let mut r = Reader::new(icmp);
    let kind = r.u8()?;
    if !is_mld(kind) {
        return Err(MldError::NotMld);
    }
    let unspecified_report = source.is_unspecified() && kind != TYPE_QUERY;
    if !source.is_unicast_link_local() && !unspecified_report {
        return Err(MldError::Source(source));
    }
    let _code = r.u8()?;
    let _checksum = r.u16()?;
    match kind {
        TYPE_QUERY => parse_query(icmp.len(), r).map(Message::Query),
        TYPE_REPORT_V1 => Ok(Message::ReportV1 {
            group: parse_v1_group(r)?,
        }),
        TYPE_DONE_V1 => Ok(Message::DoneV1 {
            group: parse_v1_group(r)?,
        }),
        _ => parse_report(r).map(Message::Report),
    }
}

/// Returns whether an ICMPv6 type is one of MLD.
pub fn is_mld(icmp_type: u8) -> bool {
    matches!(
        icmp_type,
        TYPE_QUERY | TYPE_REPORT_V1 | TYPE_DONE_V1 | TYPE_REPORT_V2
    )
}

fn parse_v1_group(mut r: Reader<'_>) -> Result<Ipv6Addr, MldError> {
    let _delay = r.u16()?;
    let _reserved = r.u16()?;
    let group = r.ipv6()?;
    if group.is_multicast() {
        Ok(group)
    } else {
        Err(WireError::Bad("group").into())
    }
}

fn parse_query(len: usize, mut r: Reader<'_>) -> Result<Query, MldError> {
    let code = r.u16()?;
    let _reserved = r.u16()?;
    let group = match r.ipv6()? {
        group if group.is_unspecified() => None,
        group if group.is_multicast() => Some(group),
        _ => return Err(WireError::Bad("group").into()),
    };
    if len == 24 {
        return Ok(Query {
            max_response: Duration::from_millis(code.into()),
            group,
            version_1: true,
            ..Query::default()
        });
    }
    let flags = r.u8()?;
    let query_interval = Duration::from_secs(decode_interval(r.u8()?).into());
    let (sources, truncated) = parse_sources(&mut r)?;
    if group.is_none() && !sources.is_empty() {
        return Err(WireError::Bad("sources in a general query").into());
    }
    Ok(Query {
        max_response: Duration::from_millis(decode_max_response(code).into()),
        group,
        suppress_router_processing: flags & 0x08 != 0,
        robustness: flags & 0x07,
        query_interval,
        sources,
        truncated,
        version_1: false,
    })
}

/// Reads a count and that many addresses; keeps the first [`MAX_SOURCES`].
fn parse_sources(r: &mut Reader<'_>) -> Result<(Vec<Ipv6Addr>, bool), WireError> {
    let count = usize::from(r.u16()?);
    parse_source_list(r, count)
}

fn parse_source_list(r: &mut Reader<'_>, count: usize) -> Result<(Vec<Ipv6Addr>, bool), WireError> {
    let mut list = Reader::new(r.take(count * 16)?);
    let kept = count.min(MAX_SOURCES);
    let sources = (0..kept).map(|_| list.ipv6()).collect::<Result<_, _>>()?;
    Ok((sources, count > MAX_SOURCES))
}

fn parse_report(mut r: Reader<'_>) -> Result<Vec<Record>, MldError> {
    let _reserved = r.u16()?;
    let count = r.u16()?;
    let mut records = Vec::new();
    for _ in 0..count {
        let kind = RecordType::from_code(r.u8()?);
        let aux_len = usize::from(r.u8()?) * 4;
        let source_count = usize::from(r.u16()?);
        let group = r.ipv6()?;
        let (sources, truncated) = parse_source_list(&mut r, source_count)?;
        r.take(aux_len)?;
        let possible = group.is_multicast()
            && !sources
                .iter()
                .any(|s| s.is_multicast() || s.is_unspecified());
        if let (Some(kind), true) = (kind, possible) {
            records.push(Record {
                kind,
                group,
                sources,
                truncated,
            });
        }
    }
    Ok(records)
}

/// Makes a whole IPv6 packet with a version 2 query, to the group or to all nodes. Times are
/// clamped to their fields, sources cut to [`MAX_SOURCES`].
#[must_use]
pub fn query_packet(source: Ipv6Addr, query: &Query) -> Vec<u8> {
    let destination = query.group.unwrap_or(ALL_NODES);
    packet(source, destination, &query_message(query))
}

/// Makes a whole IPv6 packet with a Multicast Router Advertisement (RFC 4286 §3): snooping switches
/// send all reports to its source. Times are clamped to their fields.
#[must_use]
pub fn router_advertisement(
    source: Ipv6Addr,
    interval: Duration,
    query_interval: Duration,
    robustness: u8,
) -> Vec<u8> {
    let seconds = |time: Duration, most: u64| time.as_secs().min(most);
    let mut w = Writer::new();
    w.u8(TYPE_ROUTER_ADVERTISEMENT);
    w.u8(seconds(interval, u8::MAX.into()).max(4) as u8).u16(0);
    w.u16(seconds(query_interval, u16::MAX.into()) as u16);
    w.u16(robustness.into());
    packet(source, ALL_SNOOPERS, w.as_slice())
}

/// Makes the ICMPv6 message of a version 2 query, checksum zero: a raw socket fills it in.
#[must_use]
pub fn query_message(query: &Query) -> Vec<u8> {
    let max_response = u32::try_from(query.max_response.as_millis()).unwrap_or(u32::MAX);
    let interval = u32::try_from(query.query_interval.as_secs()).unwrap_or(u32::MAX);
    let flags = query.robustness.min(7)
        | if query.suppress_router_processing {
            0x08
        } else {
            0
        };
    let sources = &query.sources[..query.sources.len().min(MAX_SOURCES)];
    let mut w = Writer::new();
    w.u8(TYPE_QUERY).u8(0).u16(0);
    w.u16(encode_max_response(max_response)).u16(0);
    w.ipv6(query.group.unwrap_or(Ipv6Addr::UNSPECIFIED));
    w.u8(flags)
        .u8(encode_interval(interval))
        .u16(sources.len() as u16);
    for source in sources {
        w.ipv6(*source);
    }
    w.into_vec()
}

/// Makes the fewest whole IPv6 packets with version 2 reports that the MTU allows, in the order of
/// the records. Splits a record with too many sources, or cuts an EXCLUDE one (RFC 9777 §5.2.15).
#[must_use]
pub fn report_packets(source: Ipv6Addr, records: &[Record], mtu: usize) -> Vec<Vec<u8>> {
    report_messages(records, mtu)
        .iter()
        .map(|message| packet(source, ALL_MLDV2_ROUTERS, message))
        .collect()
}

/// Makes the ICMPv6 messages of [`report_packets`], checksum zero: a raw socket fills it in.
#[must_use]
pub fn report_messages(records: &[Record], mtu: usize) -> Vec<Vec<u8>> {
    let space = mtu.clamp(MIN_MTU, usize::from(u16::MAX))
        - IPV6_HEADER_LEN
        - ROUTER_ALERT_HEADER.len()
        - REPORT_HEADER_LEN;
    let mut messages = Vec::new();
    let (mut body, mut count) = (Writer::new(), 0u16);
    for (record, sources) in records.iter().flat_map(fitting_parts) {
        let len = RECORD_HEADER_LEN + sources.len() * 16;
        if body.len() + len > space {
            messages.push(report_message(count, body.as_slice()));
            (body, count) = (Writer::new(), 0);
        }
        body.u8(record.kind as u8)
            .u8(0)
            .u16(sources.len() as u16)
            .ipv6(record.group);
        for source in sources {
            body.ipv6(*source);
        }
        count += 1;
    }
    if count > 0 {
        messages.push(report_message(count, body.as_slice()));
    }
    messages
}

/// Splits a record into parts that fit any packet.
pub(crate) fn fitting_parts(record: &Record) -> Vec<(&Record, &[Ipv6Addr])> {
    let sources = record.sources.as_slice();
    if record.kind.is_exclude() || sources.is_empty() {
        return vec![(record, &sources[..sources.len().min(MAX_SOURCES)])];
    }
    sources
        .chunks(MAX_SOURCES)
        .map(|part| (record, part))
        .collect()
}

fn report_message(count: u16, records: &[u8]) -> Vec<u8> {
    let mut w = Writer::new();
    w.u8(TYPE_REPORT_V2)
        .u8(0)
        .u16(0)
        .u16(0)
        .u16(count)
        .put(records);
    w.into_vec()
}

/// Makes a whole IPv6 packet with a version 1 report (`done` false) or done message (RFC 2710 §3).
#[must_use]
pub fn v1_packet(source: Ipv6Addr, group: Ipv6Addr, done: bool) -> Vec<u8> {
    let (kind, destination) = if done {
        (TYPE_DONE_V1, ALL_ROUTERS)
    } else {
        (TYPE_REPORT_V1, group)
    };
    let mut w = Writer::new();
    w.u8(kind).u8(0).u16(0).u16(0).u16(0).ipv6(group);
    packet(source, destination, w.as_slice())
}

/// Makes an IPv6 packet with router alert, message and checksum.
#[must_use]
pub fn packet(source: Ipv6Addr, destination: Ipv6Addr, icmp: &[u8]) -> Vec<u8> {
    let payload_len = ROUTER_ALERT_HEADER.len() + icmp.len();
    let mut w = Writer::new();
    w.u32(6 << 28).u16(payload_len as u16).u8(HOP_BY_HOP).u8(1);
    w.ipv6(source)
        .ipv6(destination)
        .put(&ROUTER_ALERT_HEADER)
        .put(icmp);
    let mut packet = w.into_vec();
    let checksum = icmpv6_checksum(source, destination, icmp);
    let at = IPV6_HEADER_LEN + ROUTER_ALERT_HEADER.len() + 2;
    packet[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// Returns the ICMPv6 checksum over message and pseudo-header (RFC 4443 §2.3, RFC 8200 §8.1). With
/// a zero checksum field it is the value to fill in; over a valid received message it is 0.
pub fn icmpv6_checksum(source: Ipv6Addr, destination: Ipv6Addr, icmp: &[u8]) -> u16 {
    checksum(ICMPV6, source, destination, icmp)
}

/// Returns the Internet checksum of an upper-layer `message` and its pseudo-header (RFC 8200 §8.1),
/// for any `next_header`.
pub fn checksum(next_header: u8, source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    !Sum::pseudo_header(next_header, source, destination, length)
        .bytes(message)
        .fold()
}

/// Returns the milliseconds of a version 2 maximum response code (RFC 9777 §5.1.3).
pub fn decode_max_response(code: u16) -> u32 {
    let (exponent, mantissa) = (code >> 12 & 0x7, code & 0x0fff);
    if code < 0x8000 {
        code.into()
    } else {
        u32::from(mantissa | 0x1000) << (exponent + 3)
    }
}

/// Returns the code of the longest time up to `ms`.
pub fn encode_max_response(ms: u32) -> u16 {
    if ms < 0x8000 {
        return ms as u16;
    }
    let ms = ms.min(decode_max_response(u16::MAX));
    let exponent = ms.ilog2() - 15;
    let mantissa = (ms >> (exponent + 3)) & 0x0fff;
    0x8000 | (exponent << 12 | mantissa) as u16
}

/// Returns the seconds of a querier's query interval code (RFC 9777 §5.1.9).
pub fn decode_interval(code: u8) -> u32 {
    let (exponent, mantissa) = (code >> 4 & 0x7, code & 0x0f);
    if code < 0x80 {
        code.into()
    } else {
        u32::from(mantissa | 0x10) << (exponent + 3)
    }
}

/// Returns the code of the longest interval up to `seconds`.
pub fn encode_interval(seconds: u32) -> u8 {
    if seconds < 0x80 {
        return seconds as u8;
    }
    let seconds = seconds.min(decode_interval(u8::MAX));
    let exponent = seconds.ilog2() - 7;
    let mantissa = (seconds >> (exponent + 3)) & 0x0f;
    0x80 | (exponent << 4 | mantissa) as u8
}

#[cfg(test)]
mod tests {
    use pnet_packet::Packet;
    use pnet_packet::icmpv6::{self, Icmpv6Packet};
    use pnet_packet::ip::IpNextHeaderProtocols;
    use pnet_packet::ipv6::{HopByHopPacket, Ipv6Packet};
    use pnet_packet::udp::{self, UdpPacket};
    use proptest::prelude::*;

    use super::*;

    const HOST: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

    fn group(n: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, n)
    }

    fn source(n: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n)
    }

    fn join(n: u16) -> Record {
        Record::new(RecordType::ChangeToExclude, group(n), Vec::new())
    }

    fn general_query() -> Query {
        Query {
            max_response: Duration::from_secs(10),
            robustness: 2,
            query_interval: Duration::from_secs(125),
            ..Query::default()
        }
    }

    fn records_of(packets: &[Vec<u8>]) -> Vec<Record> {
        packets
            .iter()
            .flat_map(|p| match parse_packet(p).unwrap() {
                (HOST, Message::Report(records)) => records,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn golden_report() {
        // captured: the report of Linux when a program on fe80::1 joins ff1e::1
        let bytes = [
            0x60, 0, 0, 0, 0, 36, 0, 1, // version, payload length, hop-by-hop, hop limit
            0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, // source
            0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x16, // destination
            0x3a, 0, 5, 2, 0, 0, 1, 0, // router alert
            143, 0, 0x6f, 0xed, 0, 0, 0, 1, // report with one record
            4, 0, 0, 0, 0xff, 0x1e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, // TO_EX{}
        ];
        assert_eq!(report_packets(HOST, &[join(1)], 1280), [bytes.to_vec()]);
        assert_eq!(
            parse_packet(&bytes).unwrap(),
            (HOST, Message::Report(vec![join(1)]))
        );
    }

    #[test]
    fn golden_general_query() {
        let packet = query_packet(HOST, &general_query());
        assert_eq!(packet[4..8], [0, 36, 0, 1]);
        assert_eq!(packet[24..40], ALL_NODES.octets());
        assert_eq!(packet[40..48], ROUTER_ALERT_HEADER);
        assert_eq!(packet[48..50], [130, 0]);
        assert_eq!(packet[52..56], [0x27, 0x10, 0, 0], "10,000 ms");
        assert_eq!(packet[72..76], [2, 125, 0, 0]);
        assert_eq!(
            parse_packet(&packet).unwrap(),
            (HOST, Message::Query(general_query()))
        );
    }

    #[test]
    fn version_1_messages_are_understood() {
        let report = v1_packet(HOST, group(5), false);
        assert_eq!(
            parse_packet(&report).unwrap().1,
            Message::ReportV1 { group: group(5) }
        );
        let done = v1_packet(HOST, group(5), true);
        assert_eq!(
            parse_packet(&done).unwrap().1,
            Message::DoneV1 { group: group(5) }
        );
        assert_eq!(done[24..40], ALL_ROUTERS.octets());
        let mut query = vec![130, 0, 0, 0, 0xff, 0xff, 0, 0];
        query.extend(group(5).octets());
        let Message::Query(q) = parse_message(HOST, &query).unwrap() else {
            panic!("no query")
        };
        assert!(q.version_1 && q.group == Some(group(5)));
        assert_eq!(
            q.max_response,
            Duration::from_millis(65_535),
            "no exponent in version 1"
        );
        query.extend([0, 0]);
        assert!(
            parse_message(HOST, &query).is_err(),
            "neither 24 nor at least 28 bytes"
        );
    }

    #[test]
    fn what_may_come_from_elsewhere_is_refused() {
        let good = report_packets(HOST, &[join(1)], 1280).remove(0);
        let with = |at: usize, to: u8| {
            let mut p = good.clone();
            p[at] = to;
            parse_packet(&p).unwrap_err()
        };
        assert_eq!(with(7, 64), MldError::HopLimit(64));
        assert_eq!(with(42, 6), MldError::RouterAlert);
        assert_eq!(with(67, 9), MldError::Checksum);
        assert_eq!(with(0, 0x40), MldError::NotMld);
        let from_afar = report_packets(source(1), &[join(1)], 1280).remove(0);
        assert_eq!(
            parse_packet(&from_afar).unwrap_err(),
            MldError::Source(source(1))
        );
        let unspecified = report_packets(Ipv6Addr::UNSPECIFIED, &[join(1)], 1280).remove(0);
        assert!(parse_packet(&unspecified).is_ok(), "the caller ignores it");
        let query = query_packet(Ipv6Addr::UNSPECIFIED, &general_query());
        assert!(matches!(
            parse_packet(&query).unwrap_err(),
            MldError::Source(_)
        ));
    }

    #[test]
    fn sixty_one_joins_fit_a_report() {
        let joins: Vec<_> = (0..2000).map(join).collect();
        let packets = report_packets(HOST, &joins, 1280);
        assert_eq!(packets.len(), 2000usize.div_ceil(61));
        assert!(packets.iter().all(|p| p.len() <= 1280));
        assert_eq!(records_of(&packets), joins);
        assert!(report_packets(HOST, &[], 1280).is_empty());
    }

    #[test]
    fn long_source_lists_are_split_or_cut() {
        let many: Vec<_> = (1..=100).map(source).collect();
        let allow = Record::new(RecordType::AllowNewSources, group(1), many.clone());
        let read = records_of(&report_packets(HOST, &[allow], 1280));
        assert_eq!(
            read.iter()
                .flat_map(|r| r.sources.clone())
                .collect::<Vec<_>>(),
            many
        );
        let exclude = Record::new(RecordType::ModeIsExclude, group(1), many.clone());
        let read = records_of(&report_packets(HOST, &[exclude], 1280));
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].sources, many[..64]);
    }

    #[test]
    fn more_sources_than_kept_are_counted_as_truncated() {
        let mut w = Writer::new();
        w.u8(143)
            .u8(0)
            .u16(0)
            .u16(0)
            .u16(1)
            .u8(1)
            .u8(0)
            .u16(65)
            .ipv6(group(1));
        for n in 1..=65 {
            w.ipv6(source(n));
        }
        let Message::Report(records) = parse_message(HOST, w.as_slice()).unwrap() else {
            panic!("no report")
        };
        assert!(records[0].truncated);
        assert_eq!(records[0].sources.len(), MAX_SOURCES);
        assert!(parse_message(HOST, &w.as_slice()[..w.len() - 1]).is_err());
    }

    #[test]
    fn unknown_and_impossible_records_are_left_out() {
        let mut w = Writer::new();
        w.u8(143).u8(0).u16(0).u16(0).u16(4);
        w.u8(7).u8(1).u16(0).ipv6(group(1)).u32(0); // unknown type, with auxiliary data
        w.u8(4).u8(0).u16(0).ipv6(source(1)); // not a group
        w.u8(3).u8(0).u16(1).ipv6(group(2)).ipv6(group(3)); // not a source: no leave either
        w.u8(4).u8(1).u16(0).ipv6(group(4)).u32(0);
        assert_eq!(
            parse_message(HOST, w.as_slice()).unwrap(),
            Message::Report(vec![join(4)])
        );
    }

    #[test]
    fn exponents_of_rfc_9777() {
        assert_eq!(decode_max_response(32_767), 32_767);
        assert_eq!(decode_max_response(0x8000), 32_768);
        assert_eq!(decode_max_response(0xffff), 8_387_584);
        assert_eq!(decode_interval(127), 127);
        assert_eq!(decode_interval(0x80), 128);
        assert_eq!(decode_interval(0xff), 31_744);
        assert_eq!(encode_max_response(u32::MAX), 0xffff);
        assert_eq!(encode_interval(u32::MAX), 0xff);
    }

    #[test]
    fn every_code_stands_for_itself() {
        for code in 0..=u16::MAX {
            assert_eq!(encode_max_response(decode_max_response(code)), code);
        }
        for code in 0..=u8::MAX {
            assert_eq!(encode_interval(decode_interval(code)), code);
        }
    }

    fn any_record() -> impl Strategy<Value = Record> {
        (
            1u8..=6,
            any::<u16>(),
            prop::collection::vec((1u16..).prop_map(source), 0..=64),
        )
            .prop_map(|(kind, n, sources)| {
                Record::new(RecordType::from_code(kind).unwrap(), group(n), sources)
            })
    }

    proptest! {
        #[test]
        fn reports_round_trip(
            records in prop::collection::vec(any_record(), 1..30), mtu in 1280usize..9000,
        ) {
            let packets = report_packets(HOST, &records, mtu);
            prop_assert!(packets.iter().all(|p| p.len() <= mtu));
            prop_assert_eq!(records_of(&packets), records);
        }

        /// pnet_packet reads header fields and checksum.
        #[test]
        fn another_implementation_reads_our_reports(record in any_record()) {
            for packet in report_packets(HOST, &[record], 1280) {
                let ip = Ipv6Packet::new(&packet).unwrap();
                prop_assert_eq!((ip.get_version(), ip.get_hop_limit()), (6, 1));
                prop_assert_eq!((ip.get_source(), ip.get_destination()), (HOST, ALL_MLDV2_ROUTERS));
                prop_assert_eq!(usize::from(ip.get_payload_length()), packet.len() - IPV6_HEADER_LEN);
                let options = HopByHopPacket::new(ip.payload()).unwrap();
                prop_assert_eq!(options.get_next_header(), IpNextHeaderProtocols::Icmpv6);
                let icmp = Icmpv6Packet::new(&packet[IPV6_HEADER_LEN + ROUTER_ALERT_HEADER.len()..]).unwrap();
                prop_assert_eq!(icmp.get_icmpv6_type().0, TYPE_REPORT_V2);
                let sum = icmpv6::checksum(&icmp, &HOST, &ALL_MLDV2_ROUTERS);
                prop_assert_eq!(icmp.get_checksum(), sum);
            }
        }

        #[test]
        fn checksums_are_those_of_another_implementation(
            source: u128, destination: u128, mut message in prop::collection::vec(any::<u8>(), 8..1_500),
        ) {
            let (source, destination) = (Ipv6Addr::from(source), Ipv6Addr::from(destination));
            message[2..4].fill(0);
            let icmp = Icmpv6Packet::new(&message).unwrap();
            let theirs = icmpv6::checksum(&icmp, &source, &destination);
            prop_assert_eq!(icmpv6_checksum(source, destination, &message), theirs);
            message[6..8].fill(0);
            let datagram = UdpPacket::new(&message).unwrap();
            let theirs = udp::ipv6_checksum(&datagram, &source, &destination);
            prop_assert_eq!(checksum(17, source, destination, &message), theirs);
        }

        #[test]
        fn queries_round_trip(
            g in prop::option::of(any::<u16>().prop_map(group)), n in 0u16..=64,
            suppress_router_processing: bool, robustness in 0u8..8, code: u16, interval: u8,
        ) {
            let query = Query {
                max_response: Duration::from_millis(decode_max_response(code).into()),
                group: g,
                suppress_router_processing,
                robustness,
                query_interval: Duration::from_secs(decode_interval(interval).into()),
                sources: if g.is_some() { (1..=n).map(source).collect() } else { Vec::new() },
                ..Query::default()
            };
            let packet = query_packet(HOST, &query);
            prop_assert_eq!(parse_packet(&packet).unwrap(), (HOST, Message::Query(query)));
        }

        #[test]
        fn codes_never_round_up(ms in 0u32..9_000_000, s in 0u32..40_000) {
            prop_assert!(decode_max_response(encode_max_response(ms)) <= ms);
            prop_assert!(decode_interval(encode_interval(s)) <= s);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), kind: u8) {
            let _ = parse_packet(&bytes);
            let mut bytes = bytes;
            for kind in [kind, 130, 131, 132, 143] {
                if let Some(first) = bytes.first_mut() {
                    *first = kind;
                }
                let _ = parse_message(HOST, &bytes);
            }
        }

        #[test]
        fn damaged_packets_never_panic_and_fail_their_checksum(
            record in any_record(), at: prop::sample::Index, flip in 1u8..,
        ) {
            let good = report_packets(HOST, &[record], 1280).remove(0);
            let i = at.index(good.len());
            let _ = parse_packet(&good[..i]);
            let mut bad = good;
            bad[i] ^= flip;
            if i >= 48 {
                prop_assert!(parse_packet(&bad).is_err());
            } else {
                let _ = parse_packet(&bad);
            }
        }
    }
}
