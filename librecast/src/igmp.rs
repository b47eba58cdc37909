//! Encodes and decodes Internet Group Management Protocol: version 3 (RFC 9776), 2 (RFC 2236) and 1
//! (RFC 1112). Uses the types of MLD, with the IPv6 names of IPv4 groups and sources ([`mapped`]).
//!
//! ```text
//! IPv4 header   TTL 1, router alert (not in version 1)
//! IGMP          0x11 query, 0x22 report (version 3), 0x16 report, 0x17 leave (2), 0x12 report (1),
//!               0x30 multicast router advertisement (RFC 4286)
//! ```

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use thiserror::Error;

use crate::checksum::Sum;
use crate::ipv4::{self, Envelope, HEADER_LEN, Header, packet_with_router_alert};
use crate::mapped;
use crate::mld::{
    MAX_SOURCES, Message, Query, Record, RecordType, decode_interval, encode_interval,
    fitting_parts,
};
use crate::wire::{Reader, WireError, Writer};

/// Destination of general queries: all systems of the link.
pub const ALL_SYSTEMS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
/// Destination of version 2 leaves: all routers of the link.
pub const ALL_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 2);
/// Destination of version 3 reports: all IGMPv3-capable routers of the link.
pub const ALL_IGMPV3_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 22);
/// Destination of multicast router advertisements: all snooping switches of the link.
pub const ALL_SNOOPERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 106);

/// Membership Query, of all versions (RFC 9776 §4).
const TYPE_QUERY: u8 = 0x11;
/// Version 1 Membership Report (RFC 1112, appendix I).
const TYPE_REPORT_V1: u8 = 0x12;
/// Version 2 Membership Report (RFC 2236 §2.1).
const TYPE_REPORT_V2: u8 = 0x16;
/// Version 2 Leave Group (RFC 2236 §2.1).
const TYPE_LEAVE_V2: u8 = 0x17;
/// Version 3 Membership Report (RFC 9776 §4.2).
const TYPE_REPORT_V3: u8 = 0x22;
/// Multicast Router Advertisement (RFC 4286 §3.1).
const TYPE_ROUTER_ADVERTISEMENT: u8 = 0x30;
/// Bytes of a query of version 1 or 2, and of every message but those of version 3 (RFC 2236 §2).
const OLD_LEN: usize = 8;
/// Bytes of an IPv4 header with a router alert.
const ALERT_HEADER_LEN: usize = HEADER_LEN + 4;
/// Bytes of a version 3 report before its records (RFC 9776 §4.2).
const REPORT_HEADER_LEN: usize = 8;
/// Bytes of a record before its sources (RFC 9776 §4.2).
const RECORD_HEADER_LEN: usize = 8;
/// Version 1 has no response code; its hosts answer within this time (RFC 2236 §4).
const VERSION_1_RESPONSE: Duration = Duration::from_secs(10);
/// The unit of response codes.
const TENTH: Duration = Duration::from_millis(100);

/// The reason why bytes are not a valid IGMP message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum IgmpError {
    /// Shorter than its fields require, or with a field that the format forbids.
    #[error("malformed IGMP message: {0}")]
    Malformed(#[from] WireError),
    /// Another protocol, or an unknown type: to be ignored (RFC 9776 §4).
    #[error("not an IGMP message of a known type")]
    NotIgmp,
    /// The checksum over the message is wrong.
    #[error("wrong IGMP checksum")]
    Checksum,
    /// It may have been routed here: the TTL is not 1.
    #[error("TTL {0} instead of 1")]
    Ttl(u8),
    /// The router alert option (RFC 2113) is missing.
    #[error("no router alert option")]
    RouterAlert,
}

/// Parses a whole IPv4 packet from an interface. Checks TTL, router alert and checksum. A report
/// may come from 0.0.0.0 (RFC 9776 §4.2.13). Returns the name of the source too.
///
/// # Errors
/// The packet violates IGMP.
pub fn parse_packet(packet: &[u8]) -> Result<(Ipv6Addr, Message), IgmpError> {
    let header = Header::read(packet)?;
    let message = header.payload;
    let kind = *message.first().ok_or(WireError::Truncated)?;
    let is_igmp = header.protocol == ipv4::IGMP && header.fragment_offset == 0;
    if !is_igmp || !is_known(kind) {
        return Err(IgmpError::NotIgmp);
    }
    if header.ttl != 1 {
        return Err(IgmpError::Ttl(header.ttl));
    }
    let is_version_1 = kind == TYPE_REPORT_V1 || kind == TYPE_QUERY && message.get(1) == Some(&0);
    if !header.has_router_alert() && !is_version_1 {
        return Err(IgmpError::RouterAlert);
    }
    if Sum::default().bytes(message).fold() != 0xffff {
        return Err(IgmpError::Checksum);
    }
    Ok((mapped::name(header.source), parse_message(kind, message)?))
}

fn is_known(kind: u8) -> bool {
    matches!(
        kind,
        TYPE_QUERY | TYPE_REPORT_V1 | TYPE_REPORT_V2 | TYPE_LEAVE_V2 | TYPE_REPORT_V3
    )
}

fn parse_message(kind: u8, message: &[u8]) -> Result<Message, IgmpError> {
    let mut r = Reader::new(message);
    let _kind = r.u8()?;
    let code = r.u8()?;
    let _checksum = r.u16()?;
    match kind {
        TYPE_QUERY => parse_query(code, message.len(), r).map(Message::Query),
        TYPE_REPORT_V3 => parse_report(r).map(Message::Report),
        _ => {
            let group = group(r.u32()?)?.ok_or(WireError::Bad("group"))?;
            Ok(match kind {
                TYPE_LEAVE_V2 => Message::DoneV1 { group },
                _ => Message::ReportV1 { group },
            })
        }
    }
}

/// Returns the name of a group; `None` for 0.0.0.0.
fn group(bits: u32) -> Result<Option<Ipv6Addr>, WireError> {
    match Ipv4Addr::from_bits(bits) {
        Ipv4Addr::UNSPECIFIED => Ok(None),
        group if group.is_multicast() => Ok(Some(mapped::name(group))),
        _ => Err(WireError::Bad("group")),
    }
}

fn parse_query(code: u8, len: usize, mut r: Reader<'_>) -> Result<Query, IgmpError> {
    let group = group(r.u32()?)?;
    if len == OLD_LEN {
        return Ok(Query {
            max_response: match code {
                0 => VERSION_1_RESPONSE,
                _ => TENTH * code.into(),
            },
            group,
            version_1: true,
            ..Query::default()
        });
    }
    let flags = r.u8()?;
    let query_interval = Duration::from_secs(decode_interval(r.u8()?).into());
    let count = usize::from(r.u16()?);
    let (sources, truncated) = parse_sources(&mut r, count)?;
    if group.is_none() && !sources.is_empty() {
        return Err(WireError::Bad("sources in a general query").into());
    }
    Ok(Query {
        // the same code as that of the interval (RFC 9776 §4.1.1 and §4.1.7)
        max_response: TENTH * decode_interval(code),
        group,
        suppress_router_processing: flags & 0x08 != 0,
        robustness: flags & 0x07,
        query_interval,
        sources,
        truncated,
        version_1: false,
    })
}

/// Reads the names of `count` addresses; keeps the first [`MAX_SOURCES`].
fn parse_sources(r: &mut Reader<'_>, count: usize) -> Result<(Vec<Ipv6Addr>, bool), WireError> {
    let (all, _) = r.take(count * 4)?.as_chunks::<4>();
    let kept = all.iter().take(MAX_SOURCES);
    let sources = kept.map(|octets| mapped::name(Ipv4Addr::from(*octets)));
    Ok((sources.collect(), count > MAX_SOURCES))
}

fn parse_report(mut r: Reader<'_>) -> Result<Vec<Record>, IgmpError> {
    let _reserved = r.u16()?;
    let count = r.u16()?;
    let mut records = Vec::new();
    for _ in 0..count {
        let kind = RecordType::from_code(r.u8()?);
        let aux_len = usize::from(r.u8()?) * 4;
        let source_count = usize::from(r.u16()?);
        let group = group(r.u32()?);
        let (sources, truncated) = parse_sources(&mut r, source_count)?;
        r.take(aux_len)?;
        let unspecified = mapped::name(Ipv4Addr::UNSPECIFIED);
        let possible = |s: &Ipv6Addr| mapped::is_host_name(*s) && *s != unspecified;
        if let (Some(kind), Ok(Some(group)), true) = (kind, group, sources.iter().all(possible)) {
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

/// Makes a whole IPv4 packet with a version 3 query, to the group or to all systems. Times are
/// clamped to their fields, sources cut to [`MAX_SOURCES`]. `None`: the group is no IPv4 group.
#[must_use]
pub fn query_packet(source: Ipv4Addr, query: &Query) -> Option<Vec<u8>> {
    let group = match query.group {
        None => None,
        Some(group) => Some(mapped::ipv4(group)?),
    };
    let tenths = query.max_response.as_millis() / TENTH.as_millis();
    let tenths = u32::try_from(tenths).unwrap_or(u32::MAX);
    let interval = u32::try_from(query.query_interval.as_secs()).unwrap_or(u32::MAX);
    let suppress = u8::from(query.suppress_router_processing) << 3;
    let sources: Vec<_> = ipv4_of(&query.sources);
    let mut w = Writer::new();
    w.u8(TYPE_QUERY).u8(encode_interval(tenths)).u16(0);
    w.u32(group.map_or(0, Ipv4Addr::to_bits));
    w.u8(query.robustness.min(7) | suppress);
    w.u8(encode_interval(interval)).u16(sources.len() as u16);
    for source in sources {
        w.put(&source.octets());
    }
    let destination = group.unwrap_or(ALL_SYSTEMS);
    Some(packet(source, destination, w.into_vec()))
}

/// Returns the IPv4 addresses among `names`, at most [`MAX_SOURCES`].
fn ipv4_of(names: &[Ipv6Addr]) -> Vec<Ipv4Addr> {
    let all = names.iter().filter_map(|name| mapped::ipv4(*name));
    all.take(MAX_SOURCES).collect()
}

/// Makes the fewest whole IPv4 packets with version 3 reports that the MTU allows, in order; skips
/// IPv6 groups. Splits a record with too many sources, or cuts an EXCLUDE one (RFC 9776 §4.2.16).
#[must_use]
pub fn report_packets(source: Ipv4Addr, records: &[Record], mtu: usize) -> Vec<Vec<u8>> {
    let space = mtu.saturating_sub(ALERT_HEADER_LEN + REPORT_HEADER_LEN);
    let mut packets = Vec::new();
    let (mut body, mut count) = (Writer::new(), 0u16);
    for (record, sources) in records.iter().flat_map(fitting_parts) {
        let Some(group) = mapped::ipv4(record.group) else {
            continue;
        };
        let sources = ipv4_of(sources);
        if count > 0 && body.len() + RECORD_HEADER_LEN + sources.len() * 4 > space {
            packets.push(report(source, count, body.as_slice()));
            (body, count) = (Writer::new(), 0);
        }
        body.u8(record.kind as u8).u8(0).u16(sources.len() as u16);
        body.put(&group.octets());
        for source in sources {
            body.put(&source.octets());
        }
        count += 1;
    }
    if count > 0 {
        packets.push(report(source, count, body.as_slice()));
    }
    packets
}

/// The same for a querier of version 2 (RFC 9776 §7.2.1): reports or leaves without sources.
#[must_use]
pub fn version_2_packets(source: Ipv4Addr, records: &[Record]) -> Vec<Vec<u8>> {
    let packet_of = |record: &Record| {
        let group = mapped::ipv4(record.group)?;
        let joins = record.kind.is_exclude() || !record.sources.is_empty();
        let (kind, destination) = match record.kind {
            // not expressible in version 2: other sources of the group are still wanted
            RecordType::BlockOldSources => return None,
            _ if joins => (TYPE_REPORT_V2, group),
            _ => (TYPE_LEAVE_V2, ALL_ROUTERS),
        };
        let mut w = Writer::new();
        w.u8(kind).u8(0).u16(0).put(&group.octets());
        Some(packet(source, destination, w.into_vec()))
    };
    records.iter().filter_map(packet_of).collect()
}

/// Makes a whole IPv4 packet with a Multicast Router Advertisement (RFC 4286 §3): snooping switches
/// send all reports to its source. Times are clamped to their fields.
#[must_use]
pub fn router_advertisement(
    source: Ipv4Addr,
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
    packet(source, ALL_SNOOPERS, w.into_vec())
}

fn report(source: Ipv4Addr, count: u16, records: &[u8]) -> Vec<u8> {
    let mut w = Writer::new();
    w.u8(TYPE_REPORT_V3).u8(0).u16(0).u16(0).u16(count);
    w.put(records);
    packet(source, ALL_IGMPV3_ROUTERS, w.into_vec())
}

fn packet(source: Ipv4Addr, destination: Ipv4Addr, mut message: Vec<u8>) -> Vec<u8> {
    let sum = Sum::default().bytes(&message).fold();
    message[2..4].copy_from_slice(&(!sum).to_be_bytes());
    let envelope = Envelope {
        source,
        destination,
        protocol: ipv4::IGMP,
        ttl: 1,
    };
    packet_with_router_alert(&envelope, &message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);
    const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);

    fn record(kind: RecordType, sources: &[Ipv4Addr]) -> Record {
        let sources = sources.iter().map(|s| mapped::name(*s)).collect();
        Record::new(kind, mapped::name(GROUP), sources)
    }

    /// Makes a packet as other hosts do.
    fn message(destination: Ipv4Addr, ttl: u8, alert: bool, message: &[u8]) -> Vec<u8> {
        let mut message = message.to_vec();
        let sum = Sum::default().bytes(&message).fold();
        message[2..4].copy_from_slice(&(!sum).to_be_bytes());
        let envelope = Envelope {
            source: HOST,
            destination,
            protocol: ipv4::IGMP,
            ttl,
        };
        match alert {
            true => packet_with_router_alert(&envelope, &message),
            false => ipv4::packet(&envelope, &message),
        }
    }

    #[test]
    fn golden_report() {
        // captured: the report of Linux when a program on 10.77.1.2 joins 239.1.2.3
        let bytes = [
            0x46, 0xc0, 0, 40, 0, 0, 0x40, 0, 1, 2, 0xf8, 0xaa, // header, its checksum
            10, 77, 1, 2, 224, 0, 0, 22, // from, to
            148, 4, 0, 0, // router alert
            0x22, 0, 0xe8, 0xf9, 0, 0, 0, 1, // report, its checksum, one record
            4, 0, 0, 0, 239, 1, 2, 3, // TO_EX {}
        ];
        let joined = record(RecordType::ChangeToExclude, &[]);
        let expected = (mapped::name(HOST), Message::Report(vec![joined.clone()]));
        assert_eq!(parse_packet(&bytes), Ok(expected));
        assert_eq!(report_packets(HOST, &[joined], 1280), [bytes]);
    }

    #[test]
    fn golden_query() {
        let query = Query {
            max_response: Duration::from_secs(1),
            group: Some(mapped::name(GROUP)),
            suppress_router_processing: true,
            robustness: 2,
            query_interval: Duration::from_secs(125),
            sources: vec![mapped::name(HOST)],
            ..Query::default()
        };
        let bytes = query_packet(HOST, &query).unwrap();
        let expected = [0x11, 10, 0, 0, 239, 1, 2, 3, 0x0a, 125, 0, 1, 10, 77, 1, 2];
        assert_eq!(bytes[16..20], GROUP.octets(), "asked where its members are");
        assert_eq!(bytes[24..26], expected[..2]);
        assert_eq!(bytes[28..], expected[4..]);
        assert_eq!(
            parse_packet(&bytes),
            Ok((mapped::name(HOST), Message::Query(query.clone())))
        );
        let of_ipv6 = Some("ff1e::1".parse().unwrap());
        let other = Query {
            group: of_ipv6,
            ..query
        };
        assert_eq!(query_packet(HOST, &other), None);
    }

    #[test]
    fn golden_version_2_and_router_advertisement() {
        let join = record(RecordType::ChangeToExclude, &[]);
        let some = record(RecordType::ModeIsInclude, &[HOST]);
        let leave = record(RecordType::ChangeToInclude, &[]);
        let block = record(RecordType::BlockOldSources, &[HOST]);
        let packets = version_2_packets(HOST, &[join, some, block, leave]);
        let report = [0x16, 0, 0xf8, 0xfa, 239, 1, 2, 3];
        assert_eq!(packets.len(), 3);
        for packet in &packets[..2] {
            assert_eq!(
                (&packet[16..20], &packet[24..]),
                (&GROUP.octets()[..], &report[..])
            );
        }
        assert_eq!(packets[2][16..20], ALL_ROUTERS.octets());
        assert_eq!(packets[2][24..], [0x17, 0, 0xf7, 0xfa, 239, 1, 2, 3]);
        let joined = Message::ReportV1 {
            group: mapped::name(GROUP),
        };
        assert_eq!(parse_packet(&packets[0]), Ok((mapped::name(HOST), joined)));
        let (every, query) = (Duration::from_secs(20), Duration::from_secs(30));
        let advertised = router_advertisement(HOST, every, query, 3);
        assert_eq!(
            (advertised[8], &advertised[16..20]),
            (1, &ALL_SNOOPERS.octets()[..])
        );
        assert_eq!(advertised[24..], [0x30, 20, 0xcf, 0xca, 0, 30, 0, 3]);
        assert_eq!(
            parse_packet(&advertised),
            Err(IgmpError::NotIgmp),
            "for switches"
        );
    }

    #[test]
    fn old_versions_say_the_same_as_mldv1() {
        let group = mapped::name(GROUP);
        let octets = GROUP.octets();
        let of = |kind: u8, code: u8| [&[kind, code, 0, 0], &octets[..]].concat();
        let parse = |to, alert, bytes: &[u8]| {
            parse_packet(&message(to, 1, alert, bytes)).map(|(_, message)| message)
        };
        let joined = Ok(Message::ReportV1 { group });
        assert_eq!(parse(GROUP, true, &of(TYPE_REPORT_V2, 0)), joined);
        assert_eq!(parse(GROUP, false, &of(TYPE_REPORT_V1, 0)), joined);
        assert_eq!(
            parse(GROUP, false, &of(TYPE_REPORT_V2, 0)),
            Err(IgmpError::RouterAlert)
        );
        let left = Ok(Message::DoneV1 { group });
        assert_eq!(parse(ALL_ROUTERS, true, &of(TYPE_LEAVE_V2, 0)), left);
        for (code, seconds) in [(0, 10), (50, 5)] {
            match parse(GROUP, code != 0, &of(TYPE_QUERY, code)) {
                Ok(Message::Query(query)) => {
                    assert_eq!(query.max_response, Duration::from_secs(seconds));
                    assert!(query.version_1 && query.group == Some(group));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_was_routed_or_damaged_is_refused() {
        let good = [&[TYPE_REPORT_V2, 0, 0, 0], &GROUP.octets()[..]].concat();
        let packet = |ttl| message(GROUP, ttl, true, &good);
        assert!(parse_packet(&packet(1)).is_ok());
        assert_eq!(parse_packet(&packet(2)), Err(IgmpError::Ttl(2)));
        let mut wrong = packet(1);
        wrong[30] ^= 1;
        assert_eq!(parse_packet(&wrong), Err(IgmpError::Checksum));
        let unknown = [&[0x30, 0, 0, 0], &GROUP.octets()[..]].concat();
        let unknown = message(GROUP, 1, true, &unknown);
        assert_eq!(parse_packet(&unknown), Err(IgmpError::NotIgmp));
        let unicast = [&[TYPE_REPORT_V2, 0, 0, 0], &HOST.octets()[..]].concat();
        let unicast = parse_packet(&message(GROUP, 1, true, &unicast));
        assert!(matches!(unicast, Err(IgmpError::Malformed(_))));
    }

    #[test]
    fn impossible_records_are_left_out() {
        let mut bytes = vec![TYPE_REPORT_V3, 0, 0, 0, 0, 0, 0, 4];
        bytes.extend([4, 0, 0, 0, 10, 1, 2, 3]); // no group
        bytes.extend([9, 0, 0, 0, 239, 1, 2, 3]); // no type
        bytes.extend([5, 0, 0, 1, 239, 1, 2, 3, 0, 0, 0, 0]); // no source
        bytes.extend([5, 1, 0, 1, 239, 1, 2, 3, 10, 77, 1, 2, 7, 7, 7, 7]); // with auxiliary data
        let (_, read) = parse_packet(&message(ALL_IGMPV3_ROUTERS, 1, true, &bytes)).unwrap();
        let expected = record(RecordType::AllowNewSources, &[HOST]);
        assert_eq!(read, Message::Report(vec![expected]));
    }

    #[test]
    fn reports_fit_the_mtu_and_hold_all() {
        let of = |n: u32| {
            let group = Ipv4Addr::from_bits(GROUP.to_bits() + n);
            let sources = (0..n % 90).map(|s| Ipv4Addr::from_bits(HOST.to_bits() + s));
            let sources = sources.map(mapped::name).collect();
            Record::new(RecordType::AllowNewSources, mapped::name(group), sources)
        };
        let records: Vec<_> = (1..300).map(of).collect();
        let packets = report_packets(HOST, &records, 576);
        assert!(packets.iter().all(|p| p.len() <= 576));
        let count = |records: &[Record]| records.iter().map(|r| r.sources.len()).sum::<usize>();
        let read = packets
            .iter()
            .flat_map(|p| match parse_packet(p).unwrap().1 {
                Message::Report(records) => records,
                other => panic!("{other:?}"),
            });
        let read: Vec<_> = read.collect();
        assert_eq!(count(&read), count(&records));
        let ipv6 = Record::new(
            RecordType::ChangeToExclude,
            "ff1e::1".parse().unwrap(),
            Vec::new(),
        );
        assert!(report_packets(HOST, &[ipv6], 576).is_empty());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 4..200), kind in 0u8..6) {
            let _ = parse_packet(&bytes);
            let mut bytes = bytes;
            bytes[0] = [TYPE_QUERY, TYPE_REPORT_V1, TYPE_REPORT_V2, TYPE_LEAVE_V2, TYPE_REPORT_V3, 7][usize::from(kind)];
            let _ = parse_packet(&message(GROUP, 1, true, &bytes));
        }

        #[test]
        fn queries_survive_the_wire(bits: u32, of_group: bool, robustness in 0u8..8, seconds in 0u32..40_000,
                                    tenths in 0u32..40_000, sources in prop::collection::vec(0x0100_0000u32..0x0a00_0000, 0..70)) {
            let group = of_group.then(|| mapped::name(Ipv4Addr::from_bits(bits >> 4 | 0xe000_0000)));
            let sources = if of_group { sources } else { Vec::new() };
            let sources: Vec<_> = sources.into_iter().map(|s| mapped::name(Ipv4Addr::from_bits(s))).collect();
            let query = Query {
                max_response: TENTH * tenths, group, suppress_router_processing: of_group, robustness,
                query_interval: Duration::from_secs(seconds.into()), sources, ..Query::default()
            };
            let packet = query_packet(HOST, &query).unwrap();
            let Ok((_, Message::Query(read))) = parse_packet(&packet) else {
                return Err(TestCaseError::fail("no query"));
            };
            prop_assert_eq!(read.group, query.group);
            prop_assert_eq!(&read.sources[..], &query.sources[..query.sources.len().min(MAX_SOURCES)]);
            prop_assert!(read.max_response <= query.max_response && read.query_interval <= query.query_interval);
            let exact = tenths < 128 && seconds < 128;
            prop_assert!(!exact || read.max_response == query.max_response && read.query_interval == query.query_interval);
        }
    }
}
