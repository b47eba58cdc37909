//! The engine from outside: one or two engines, with every input and output by hand.

use crate::common;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{
    MDNS, Rights, addresses, config, group, join, leave, neighbor, report, restricted, start, udp,
};
use lcroute_engine::control::{self, Audit, Element, JoinState, RefusalReason, Routed, RoutedKind};
use lcroute_engine::header::DataHeader;
use lcroute_engine::{Config, Engine, LC0, Limits, Output, ROUTER_ADDRESS, SourceFilter};
use librecast::cert::{GroupPrefix, Member};
use librecast::id::{LinkId, OriginId};
use librecast::mld::{self, Message, Query, RecordType};

const L: LinkId = LinkId(1);
/// The link between nodes 2 and 3.
const BETWEEN: LinkId = LinkId(9);

/// Node 1 with links 2, 3, ... to nodes of the same number, after all exchanges. All groups have
/// their root at node 1. The neighbours are engines, too: they send all that routers send.
struct Bench {
    engine: Engine,
    others: BTreeMap<u16, Engine>,
    now: Instant,
}

/// Node 1 announces everything, so that it is the root of all groups.
fn root_config() -> Config {
    Config {
        announce: vec![GroupPrefix::ALL],
        ..config(1)
    }
}

impl Bench {
    fn with(config: Config, neighbors: &[u16]) -> Self {
        let now = start();
        let mut b = Self {
            engine: common::engine(config, now),
            others: BTreeMap::new(),
            now,
        };
        b.engine.handle_start(now);
        for n in neighbors {
            b.up(*n, common::engine(common::config(*n), now), neighbor(*n));
        }
        // until roots are candidates
        b.after(Duration::from_secs(10));
        b
    }

    fn new(neighbors: &[u16]) -> Self {
        Self::with(root_config(), neighbors)
    }

    fn up(&mut self, n: u16, mut other: Engine, as_seen: lcroute_engine::Neighbor) {
        other.handle_start(self.now);
        other.handle_link_up(LinkId(1), neighbor(1), self.now);
        self.others.insert(n, other);
        self.engine
            .handle_link_up(LinkId(n.into()), as_seen, self.now);
        self.exchange();
    }

    /// Runs the routers until they send nothing more; returns the rest of node 1's outputs.
    fn exchange(&mut self) -> Vec<Output> {
        let (mut outputs, mut silent) = (Vec::new(), false);
        while !silent {
            silent = true;
            while let Some(output) = self.engine.poll_output() {
                silent = false;
                if let Output::Control { link, message } = &output
                    && let Some(other) = self.others.get_mut(&(link.0 as u16))
                {
                    other.handle_control(LinkId(1), message, self.now);
                }
                outputs.push(output);
            }
            let mut between = Vec::new();
            for (n, other) in &mut self.others {
                while let Some(output) = other.poll_output() {
                    silent = false;
                    match output {
                        Output::Control { link, message } if link == BETWEEN => {
                            between.push((*n, message));
                        }
                        Output::Control { message, .. } => {
                            let link = LinkId((*n).into());
                            self.engine.handle_control(link, &message, self.now);
                        }
                        _ => {}
                    }
                }
            }
            for (from, message) in between {
                let to = if from == 2 { 3 } else { 2 };
                let to = self.others.get_mut(&to).unwrap();
                to.handle_control(BETWEEN, &message, self.now);
            }
        }
        outputs
    }

    fn sends(&mut self, n: u16, elements: &[Element]) {
        for message in control::encode(elements) {
            self.engine
                .handle_control(LinkId(n.into()), &message, self.now);
        }
    }

    /// Sets the filter of a program on node `n`.
    fn wants(&mut self, n: u16, g: u16, wanted: impl Into<Option<SourceFilter>>) {
        let wanted = wanted.into();
        let sources = wanted.as_ref().map_or(&[][..], SourceFilter::sources);
        let kind = match wanted {
            Some(SourceFilter::Exclude(_)) => RecordType::ChangeToExclude,
            None | Some(SourceFilter::Include(_)) => RecordType::ChangeToInclude,
        };
        let packet = report(kind, group(g), sources);
        let other = self.others.get_mut(&n).unwrap();
        other.handle_local_packet(packet.into(), self.now);
    }

    fn down(&mut self, n: u16) {
        self.others.remove(&n);
        self.engine.handle_link_down(LinkId(n.into()), self.now);
    }

    fn local(&mut self, packet: &[u8]) {
        self.engine
            .handle_local_packet(Bytes::copy_from_slice(packet), self.now);
    }

    fn data(&mut self, n: u16, header: DataHeader, packet: &[u8]) {
        let message = [&header.encode()[..], packet].concat();
        self.engine
            .handle_data(LinkId(n.into()), message.into(), self.now);
    }

    /// Outputs of node 1, except for those of the link state and of links.
    fn outputs(&mut self) -> Vec<Output> {
        let about_packets = |o: &Output| match o {
            Output::Control { message, .. } => !join_states(message).is_empty(),
            Output::Wanted(_)
            | Output::Reachable { .. }
            | Output::Renewed { .. }
            | Output::Epochs { .. } => false,
            _ => true,
        };
        self.exchange().into_iter().filter(about_packets).collect()
    }

    fn control(&mut self) -> Vec<(u32, Vec<Element>)> {
        let outputs = self.outputs().into_iter();
        outputs
            .filter_map(|o| match o {
                Output::Control { link, message } => Some((link.0, join_states(&message))),
                _ => None,
            })
            .collect()
    }

    fn mld(&mut self) -> Vec<Message> {
        let outputs = self.outputs().into_iter();
        outputs
            .filter_map(|o| match o {
                Output::LocalMld { packet } => {
                    let (source, message) = mld::parse_packet(&packet).unwrap();
                    assert_eq!(source, ROUTER_ADDRESS);
                    Some(message)
                }
                _ => None,
            })
            .collect()
    }

    fn after(&mut self, time: Duration) -> Vec<Output> {
        let end = self.now + time;
        let mut outputs = self.outputs();
        loop {
            let engines = self.others.values().chain([&self.engine]);
            let due = engines.filter_map(Engine::next_timeout).map(|(at, _)| at);
            let Some(at) = due.min().filter(|at| *at <= end) else {
                break;
            };
            self.now = at.max(self.now);
            for engine in self.others.values_mut().chain([&mut self.engine]) {
                if engine.next_timeout().is_some_and(|(at, _)| at <= self.now) {
                    engine.handle_timeout(self.now);
                }
            }
            outputs.extend(self.outputs());
        }
        self.now = end;
        outputs
    }

    fn drops(&self, reason: &str) -> u64 {
        self.engine
            .snapshot()
            .counters
            .drops
            .get(reason)
            .copied()
            .unwrap_or(0)
    }
}

fn join_states(message: &[u8]) -> Vec<Element> {
    let of_joins = |e: &Element| matches!(e, Element::JoinState(_) | Element::Refusal { .. });
    let elements = control::decode(message).unwrap().into_iter();
    elements.filter(of_joins).collect()
}

fn join_state(root: u64, g: u16, wanted: Option<SourceFilter>) -> Element {
    join_of(OriginId(root), GroupPrefix::group(group(g)), wanted)
}

fn join_of(root: OriginId, prefix: GroupPrefix, join: Option<SourceFilter>) -> Element {
    Element::JoinState(JoinState {
        root,
        prefix,
        join,
        source_active: false,
    })
}

/// A data header on the tree of node 1.
fn header_of(n: u16, sequence: u64) -> DataHeader {
    DataHeader {
        root: addresses(1).origin,
        ..common::header(addresses(n).origin, sequence)
    }
}

fn data_links(outputs: &[Output]) -> Vec<Vec<u32>> {
    let links = |o: &Output| match o {
        Output::Data { links, .. } => Some(links.iter().map(|l| l.0).collect()),
        _ => None,
    };
    outputs.iter().filter_map(links).collect()
}

fn local_packets(outputs: Vec<Output>) -> Vec<Bytes> {
    let local = |o| match o {
        Output::Local { packet } => Some(packet),
        _ => None,
    };
    outputs.into_iter().filter_map(local).collect()
}

fn records(kind: RecordType, g: u16) -> Vec<Message> {
    vec![Message::Report(vec![mld::Record::new(
        kind,
        group(g),
        vec![],
    )])]
}

const ALL: fn() -> Option<SourceFilter> = || Some(SourceFilter::all());

#[test]
fn start_asks_for_everything_at_once() {
    let mut b = Bench {
        engine: common::engine(config(1), start()),
        others: BTreeMap::new(),
        now: start(),
    };
    assert!(b.outputs().is_empty(), "nothing before lc0 is up");
    b.engine.handle_start(start());
    let [Message::Query(query)] = &b.mld()[..] else {
        panic!("no query")
    };
    assert_eq!(query.group, None);
    assert_eq!(query.max_response, Duration::from_millis(1));
}

#[test]
fn an_overflow_of_lc0_is_answered_with_a_query() {
    let mut b = Bench::new(&[]);
    b.after(Duration::from_secs(2));
    b.engine.handle_lost_reports(LC0, b.now);
    assert!(matches!(
        &b.mld()[..],
        [Message::Query(Query { group: None, .. })]
    ));
}

#[test]
fn a_report_without_address_is_ignored_and_asked_again() {
    let mut b = Bench::new(&[2]);
    b.after(Duration::from_secs(6));
    let record = mld::Record::new(RecordType::ChangeToExclude, group(1), vec![]);
    let packet = mld::report_packets(std::net::Ipv6Addr::UNSPECIFIED, &[record], 1280).remove(0);
    b.local(&packet);
    assert!(matches!(&b.mld()[..], [Message::Query(_)]));
    assert_eq!(b.drops("mld_unspecified_source"), 1);
    assert!(b.engine.snapshot().groups.is_empty());
}

#[test]
fn a_link_begins_with_hello_and_brings_all_joins() {
    let mut b = Bench::new(&[]);
    b.local(&join(group(1)));
    b.engine.handle_link_up(LinkId(2), neighbor(2), b.now);
    b.local(&join(group(2)));
    let first = b.engine.poll_output();
    let Some(Output::Control { message, .. }) = first else {
        panic!("{first:?}")
    };
    let first = control::decode(&message).unwrap();
    assert!(matches!(first[0], Element::Hello { incarnation: 1, .. }));
    b.down(2);
    b.up(2, common::engine(config(2), b.now), neighbor(2));
    b.after(Duration::from_secs(1));
    let wanted: Vec<_> = b.others[&2].snapshot().groups;
    assert_eq!(wanted.len(), 2);
    assert!(wanted.iter().all(|g| g.links == [LinkId(1)]));
}

#[test]
fn joins_of_one_turn_leave_in_one_message_per_link() {
    let mut b = Bench::new(&[2, 3]);
    for n in 0..100 {
        b.local(&join(group(n)));
    }
    b.local(&leave(group(7)));
    let control = b.control();
    assert_eq!(control.len(), 2);
    assert_eq!((control[0].0, control[0].1.len()), (2, 99));
    assert_eq!((control[1].0, control[1].1.len()), (3, 99));
    b.local(&leave(group(8)));
    let withdrawn = vec![join_state(addresses(1).origin.0, 8, None)];
    assert_eq!(b.control(), [(2, withdrawn.clone()), (3, withdrawn)]);
}

#[test]
fn two_thousand_joins_fit_few_messages() {
    let mut b = Bench::new(&[2]);
    let joins: Vec<_> = (0..2000)
        .map(|n| mld::Record::new(RecordType::ChangeToExclude, group(n), vec![]))
        .collect();
    for packet in mld::report_packets(common::KERNEL, &joins, 1280) {
        b.local(&packet);
    }
    let control = b.control();
    assert_eq!(control.iter().map(|(_, e)| e.len()).sum::<usize>(), 2000);
    assert_eq!(
        control.len(),
        1,
        "most of them share fifteen bytes with the one before"
    );
    assert_eq!(b.engine.snapshot().tables.listener_groups, 2000);
}

#[test]
fn a_source_specific_join_goes_only_where_the_source_lies() {
    let mut b = Bench::new(&[2, 3]);
    let source = addresses(3).address;
    b.local(&report(RecordType::AllowNewSources, group(1), &[source]));
    let root = addresses(1).origin.0;
    assert_eq!(
        b.control(),
        [(
            3,
            vec![join_state(root, 1, SourceFilter::include([source]))]
        )]
    );
    b.local(&report(RecordType::BlockOldSources, group(1), &[source]));
    assert_eq!(b.control(), [(3, vec![join_state(root, 1, None)])]);
    // all but one: only the path to that one has it in the filter
    b.local(&report(RecordType::ChangeToExclude, group(1), &[source]));
    let others = (2, vec![join_state(root, 1, ALL())]);
    let but_one = join_state(root, 1, Some(SourceFilter::exclude([source])));
    assert_eq!(b.control(), [others, (3, vec![but_one])]);
}

#[test]
fn a_packet_goes_once_to_all_links_that_want_it() {
    let mut b = Bench::new(&[2, 3, 4]);
    b.wants(2, 1, ALL());
    b.wants(4, 1, ALL());
    b.wants(3, 2, ALL());
    b.outputs();
    let packet = udp(addresses(1).address, group(1), b"hello");
    b.local(&packet);
    b.local(&packet);
    let outputs = b.outputs();
    assert_eq!(data_links(&outputs), [[2, 4], [2, 4]]);
    let Output::Data {
        header,
        packet: sent,
        ..
    } = &outputs[1]
    else {
        panic!()
    };
    assert_eq!(sent[..], packet[..], "to the byte, hop limit included");
    let (header, rest) = DataHeader::decode(header).unwrap();
    assert!(rest.is_empty());
    assert_eq!(
        header,
        DataHeader {
            sequence: 2,
            ..header_of(1, 2)
        }
    );
    let counters = b.engine.snapshot().counters;
    assert_eq!((counters.link_tx_packets, counters.tun_rx_packets), (4, 2));
}

#[test]
fn packets_are_handed_on_without_a_copy() {
    let mut b = Bench::new(&[2]);
    b.wants(2, 1, ALL());
    b.local(&join(group(1)));
    b.outputs();
    let mut longer = udp(addresses(1).address, group(1), b"hello");
    longer.extend(b"behind the payload");
    let packet = Bytes::from(longer);
    b.engine.handle_local_packet(packet.clone(), b.now);
    let message = [
        &header_of(2, 1).encode()[..],
        &udp(addresses(2).address, group(1), b"hello"),
    ];
    let message = Bytes::from(message.concat());
    b.engine.handle_data(LinkId(2), message.clone(), b.now);
    let [
        Output::Data { packet: sent, .. },
        Output::Local { packet: written },
    ] = &b.outputs()[..]
    else {
        panic!()
    };
    assert_eq!(sent.as_ptr(), packet.as_ptr());
    assert_eq!(sent.len(), 48 + b"hello".len());
    assert_eq!(written.as_ptr(), message[32..].as_ptr());
}

#[test]
fn nothing_leaves_without_a_listener() {
    let mut b = Bench::new(&[2]);
    b.wants(2, 2, ALL());
    b.wants(2, 1, SourceFilter::include([addresses(3).address]));
    // join state of a tree that does not exist
    b.sends(2, &[join_state(addresses(3).origin.0, 1, ALL())]);
    b.outputs();
    for _ in 0..20 {
        b.local(&udp(addresses(1).address, group(1), b"hello"));
    }
    assert!(b.outputs().is_empty());
    assert_eq!(b.drops("no_listener"), 12, "eight wait");
    assert!(data_links(&b.after(Duration::from_secs(2))).is_empty());
    assert_eq!(b.drops("no_listener"), 20);
    b.after(Duration::from_secs(60));
    assert_eq!(b.engine.snapshot().tables.flows, 0);
}

#[test]
fn first_packets_wait_for_the_first_listener_and_keep_their_order() {
    let mut b = Bench::new(&[2, 3]);
    for n in 0..3u8 {
        b.local(&udp(addresses(1).address, group(1), &[n]));
    }
    b.wants(2, 1, ALL());
    let mut outputs = b.outputs();
    b.local(&udp(addresses(1).address, group(1), &[3]));
    outputs.extend(b.outputs());
    let sent = outputs.iter().filter_map(|o| match o {
        Output::Data { packet, .. } => packet.last().copied(),
        _ => None,
    });
    assert_eq!(sent.collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!(b.engine.snapshot().groups[0].packets, 4);
    assert_eq!(b.drops("no_listener"), 0);
}

#[test]
fn remote_joins_are_reported_into_lc0() {
    let mut b = Bench::new(&[2, 3]);
    b.after(Duration::from_secs(40));
    b.wants(2, 1, ALL());
    assert_eq!(b.mld(), records(RecordType::ChangeToExclude, 1));
    b.wants(3, 1, ALL());
    b.outputs();
    b.down(2);
    assert!(b.mld().is_empty(), "one reporter for all of the network");
    b.after(Duration::from_secs(2));
    b.wants(3, 1, None);
    assert_eq!(b.mld(), records(RecordType::ChangeToInclude, 1));
    b.after(Duration::from_secs(2));
    b.wants(3, 1, ALL());
    b.outputs();
    b.down(3);
    assert_eq!(b.mld(), records(RecordType::ChangeToInclude, 1));
    b.after(Duration::from_secs(15));
    let tables = b.engine.tables();
    assert_eq!(
        (tables.join_states, tables.prefixes, tables.origins),
        (0, 0, 0)
    );
    assert_eq!(tables.pending, 0);
}

#[test]
fn a_query_of_a_local_program_is_answered() {
    let mut b = Bench::new(&[2]);
    b.wants(2, 1, ALL());
    b.after(Duration::from_secs(5));
    let mut query = Query {
        max_response: Duration::from_secs(1),
        group: Some(group(1)),
        robustness: 2,
        query_interval: Duration::from_secs(125),
        ..Query::default()
    };
    b.local(&mld::query_packet(addresses(1).link_local, &query));
    assert_eq!(b.mld(), records(RecordType::ModeIsExclude, 1));
    query.group = None;
    b.after(Duration::from_secs(1));
    b.local(&mld::query_packet(addresses(1).link_local, &query));
    assert_eq!(b.mld(), records(RecordType::ModeIsExclude, 1));
}

#[test]
fn joins_are_reported_after_each_general_query() {
    let mut b = Bench::new(&[2]);
    b.wants(2, 1, ALL());
    b.after(Duration::from_secs(5));
    let mut seen = Vec::new();
    // the membership itself lasts 260 s
    for output in b.after(Duration::from_secs(200)) {
        if let Output::LocalMld { packet } = output {
            seen.push(mld::parse_packet(&packet).unwrap().1);
        }
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
    for pair in seen.chunks(2) {
        assert!(matches!(pair[0], Message::Query(_)));
        assert_eq!(pair[1..], records(RecordType::ModeIsExclude, 1));
    }
}

#[test]
fn remote_joins_of_what_is_not_carried_here_are_not_reported() {
    let mut b = Bench::new(&[2]);
    let root = addresses(1).origin;
    for g in ["ff02::1", "ff02::16", "ff02::c", "ff01::5", "ff03::5"] {
        let prefix = GroupPrefix::group(g.parse().unwrap());
        b.sends(2, &[join_of(root, prefix, ALL())]);
    }
    assert!(b.mld().is_empty());
    b.engine
        .set_link_scope_groups(&["ff02::c".parse().unwrap()], b.now);
    let Some(Message::Report(records)) = b.mld().pop() else {
        panic!("no report")
    };
    let ssdp: std::net::Ipv6Addr = "ff02::c".parse().unwrap();
    assert!(records.iter().all(|r| r.group == ssdp), "{records:?}");
}

#[test]
fn what_others_join_of_scope_2_is_passed_on_listed_here_or_not() {
    let mut b = Bench::new(&[2, 3]);
    let ssdp: std::net::Ipv6Addr = "ff02::c".parse().unwrap();
    let routers: std::net::Ipv6Addr = "ff02::2".parse().unwrap();
    for group in [ssdp, routers] {
        let prefix = GroupPrefix::group(group);
        b.sends(3, &[join_of(header_of(2, 1).root, prefix, ALL())]);
    }
    b.outputs();
    b.local(&join(ssdp));
    let from = addresses(2).link_local;
    b.data(2, header_of(2, 1), &udp(from, routers, b"x"));
    assert!(b.outputs().is_empty(), "never carried");
    b.data(2, header_of(2, 2), &udp(from, ssdp, b"x"));
    let outputs = b.outputs();
    assert_eq!(data_links(&outputs).len(), 1);
    assert!(local_packets(outputs).is_empty(), "not listed here");
}

#[test]
fn a_packet_is_delivered_only_to_who_joined() {
    let mut b = Bench::new(&[2, 3]);
    let packet = udp(addresses(2).address, group(1), b"hello");
    b.data(2, header_of(2, 1), &packet);
    b.outputs();
    assert_eq!(b.drops("not_joined"), 1);
    b.local(&join(group(1)));
    b.outputs();
    b.data(2, header_of(2, 2), &packet);
    assert_eq!(
        local_packets(b.outputs()),
        [Bytes::copy_from_slice(&packet)]
    );
    b.local(&report(
        RecordType::BlockOldSources,
        group(1),
        &[addresses(2).address],
    ));
    b.data(2, header_of(2, 3), &packet);
    b.data(
        3,
        header_of(3, 1),
        &udp(addresses(3).address, group(1), b"x"),
    );
    assert_eq!(
        local_packets(b.outputs()).len(),
        1,
        "the blocked one is not"
    );
    assert_eq!(b.drops("not_joined"), 2);
    let groups = b.engine.snapshot().groups;
    assert_eq!((groups[0].local, groups[0].packets), (true, 2));
    assert_eq!(
        groups[0].sources,
        [addresses(2).address, addresses(3).address]
    );
}

#[test]
fn a_sender_that_is_a_member_gets_no_echo() {
    let mut b = Bench::new(&[2]);
    b.local(&join(group(1)));
    b.wants(2, 1, ALL());
    b.outputs();
    b.local(&udp(addresses(1).address, group(1), b"hello"));
    let outputs = b.outputs();
    assert_eq!(data_links(&outputs), [[2]]);
    assert!(local_packets(outputs).is_empty());
    // nor from a neighbour that sends it back
    b.data(
        2,
        header_of(2, 1),
        &udp(addresses(1).address, group(1), b"hello"),
    );
    assert!(local_packets(b.outputs()).is_empty());
    assert_eq!(b.drops("forged_source"), 1);
}

#[test]
fn every_drop_of_a_local_packet_has_its_name() {
    let mut b = Bench::with(
        Config {
            member: Member {
                prefixes: vec!["ff1e::/112".parse::<GroupPrefix>().unwrap()],
                ..config(1).member
            },
            ..root_config()
        },
        &[2],
    );
    let own = addresses(1);
    let cases = [
        (vec![0x45; 60], "malformed"),
        (udp(own.address, addresses(2).address, b"x"), "unicast_off"),
        (
            udp(own.address, "ff02::c".parse().unwrap(), b"x"),
            "scope_not_carried",
        ),
        (
            udp(own.address, "ff01::5".parse().unwrap(), b"x"),
            "scope_not_carried",
        ),
        (udp(addresses(2).address, group(1), b"x"), "foreign_source"),
        (udp(own.link_local, group(1), b"x"), "foreign_source"),
        (
            udp(own.address, "ff1e::1:0".parse().unwrap(), b"x"),
            "not_permitted",
        ),
    ];
    for (packet, reason) in cases {
        let before = b.drops(reason);
        b.local(&packet);
        assert_eq!(b.drops(reason), before + 1, "{reason}");
    }
    let mut broken = join(group(1));
    broken[60] ^= 1;
    b.local(&broken);
    assert_eq!(b.drops("bad_mld"), 1);
    assert!(b.outputs().is_empty());
}

#[test]
fn every_drop_of_a_data_message_has_its_name() {
    let mut b = Bench::new(&[3]);
    let rights = Rights {
        prefixes: vec!["ff1e::/112".parse().unwrap()],
        ..Rights::default()
    };
    let (services, config) = restricted(2, &rights);
    let as_seen = lcroute_engine::Neighbor {
        member: config.member.clone(),
    };
    b.up(2, Engine::new(config, services, b.now), as_seen);
    b.after(Duration::from_secs(1));
    for g in ["ff1e::1", "ff1e::1:0"] {
        b.local(&join(g.parse().unwrap()));
    }
    b.outputs();
    let good = udp(addresses(2).address, group(1), b"x");
    let other_root = DataHeader {
        root: addresses(3).origin,
        ..header_of(2, 1)
    };
    let other_origin = DataHeader {
        origin: addresses(3).origin,
        ..header_of(3, 1)
    };
    let used_up = DataHeader {
        hop_limit: 0,
        ..header_of(2, 1)
    };
    let old = DataHeader {
        incarnation: 0,
        ..header_of(2, 1)
    };
    let forbidden = udp(addresses(2).address, "ff1e::1:0".parse().unwrap(), b"x");
    let solicitation = {
        let mut p = udp(addresses(2).address, group(1), b"x");
        (p[6], p[40]) = (58, 135);
        p
    };
    b.data(2, header_of(2, 100), &good);
    assert_eq!(local_packets(b.outputs()).len(), 1);
    let cases = [
        (header_of(2, 100), good.clone(), "duplicate"),
        (other_root, good.clone(), "not_joined"),
        (
            other_origin,
            udp(addresses(3).address, group(1), b"x"),
            "reverse_path",
        ),
        (used_up, good.clone(), "hop_limit"),
        (old, good.clone(), "old_incarnation"),
        (header_of(2, 101), forbidden, "not_permitted"),
        (
            header_of(2, 102),
            udp(addresses(3).address, group(1), b"x"),
            "forged_source",
        ),
        (
            header_of(2, 103),
            udp(addresses(2).link_local, group(1), b"x"),
            "forged_source",
        ),
        (header_of(2, 104), good[..20].to_vec(), "malformed"),
        (
            header_of(2, 105),
            udp(addresses(2).address, addresses(1).address, b"x"),
            "unicast_off",
        ),
        (header_of(2, 106), join(group(1)), "link_control"),
        (header_of(2, 107), solicitation, "link_control"),
    ];
    for (header, packet, reason) in cases {
        let before = b.drops(reason);
        b.data(2, header, &packet);
        assert_eq!(b.drops(reason), before + 1, "{reason}");
    }
    b.data(9, header_of(9, 1), &good);
    assert_eq!(b.drops("unknown_link"), 1);
    b.engine
        .handle_data(LinkId(2), Bytes::from_static(&[0x26; 80]), b.now);
    assert_eq!(b.drops("bad_header"), 1);
    assert!(b.outputs().is_empty());
}

#[test]
fn who_gets_another_certificate_in_mid_stream_may_send_what_that_says() {
    let mut b = Bench::new(&[2]);
    b.local(&join(group(1)));
    b.exchange();
    let packet = udp(addresses(2).address, group(1), b"x");
    for sequence in 1..3 {
        b.data(2, header_of(2, sequence), &packet);
        assert_eq!(local_packets(b.outputs()).len(), 1);
    }
    let rights = Rights {
        prefixes: vec!["ff1e:1::/32".parse().unwrap()],
        ..Rights::default()
    };
    let (_, narrower) = restricted(2, &rights);
    let (other, now) = (b.others.get_mut(&2).unwrap(), b.now);
    other.set_own_chain(narrower.chain, now).unwrap();
    b.exchange();
    b.data(2, header_of(2, 3), &packet);
    assert_eq!(b.drops("not_permitted"), 1);
    let (_, wider) = restricted(2, &Rights::default());
    let other = b.others.get_mut(&2).unwrap();
    other.set_own_chain(wider.chain, now).unwrap();
    b.exchange();
    b.data(2, header_of(2, 4), &packet);
    assert_eq!(local_packets(b.outputs()).len(), 1);
}

#[test]
fn listed_link_scope_groups_are_carried_from_both_addresses() {
    let mut b = Bench::new(&[2]);
    b.local(&join(MDNS));
    let [(2, elements)] = &b.control()[..] else {
        panic!()
    };
    assert_eq!(elements.len(), 1);
    b.outputs();
    let from = addresses(2);
    b.data(2, header_of(2, 1), &udp(from.link_local, MDNS, b"x"));
    b.data(2, header_of(2, 2), &udp(from.address, MDNS, b"x"));
    assert_eq!(local_packets(b.outputs()).len(), 2);
    let packet = join(MDNS);
    let other = b.others.get_mut(&2).unwrap();
    other.handle_local_packet(packet.into(), b.now);
    b.outputs();
    b.local(&udp(addresses(1).link_local, MDNS, b"x"));
    b.local(&udp(addresses(1).address, MDNS, b"x"));
    assert_eq!(data_links(&b.outputs()).len(), 2);
}

#[test]
fn a_neighbour_that_breaks_the_protocol_is_closed_and_ignored() {
    let hello = [1, 0, 12, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9];
    let faults: [Vec<u8>; 4] = [
        vec![2, 0, 12, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0x80, 8, 0xff], // before HELLO
        vec![1, 0, 2, 0, 0],
        [hello, hello].concat(), // twice
        vec![1],
    ];
    for message in faults {
        let mut b = Bench::new(&[]);
        let message = message.as_slice();
        b.local(&join(group(1)));
        b.engine.handle_link_up(L, neighbor(2), b.now);
        b.outputs();
        b.engine.handle_control(L, message, b.now);
        assert!(
            matches!(&b.outputs()[..], [Output::LinkFault { link: L, .. }]),
            "{message:?}"
        );
        b.engine.handle_control(L, message, b.now);
        let packet = udp(addresses(2).address, group(1), b"x");
        b.data(1, header_of(2, 1), &packet);
        assert!(b.outputs().is_empty(), "nothing more is taken from it");
        assert_eq!((b.drops("bad_control"), b.drops("unknown_link")), (2, 1));
    }
}

#[test]
fn a_bound_is_answered_with_a_refusal() {
    let limits = Limits {
        join_states_per_neighbor: 2,
        ..Limits::default()
    };
    let config = Config {
        limits,
        ..root_config()
    };
    let mut b = Bench::with(config, &[2, 3]);
    for g in 1..=3 {
        b.wants(2, g, ALL());
    }
    b.wants(3, 3, ALL());
    let refusal = Element::Refusal {
        reason: RefusalReason::TooManyGroups,
        root: addresses(1).origin,
        prefix: GroupPrefix::group(group(3)),
    };
    let control = b.control();
    assert!(
        control
            .iter()
            .any(|(n, all)| *n == 2 && all.contains(&refusal))
    );
    assert_eq!(b.drops("join_refused"), 1);
    b.local(&udp(addresses(1).address, group(3), b"x"));
    assert_eq!(
        data_links(&b.outputs()),
        [[3]],
        "the other neighbour is unharmed"
    );
}

#[test]
fn what_was_refused_is_shown_and_asked_for_again() {
    let mut b = Bench::new(&[2]);
    b.local(&join(group(1)));
    b.outputs();
    let root = addresses(1).origin;
    let refusal = |g: u16| Element::Refusal {
        reason: RefusalReason::TooManyGroups,
        root,
        prefix: GroupPrefix::group(group(g)),
    };
    b.sends(2, &[refusal(1), refusal(2)]);
    let snapshot = b.engine.snapshot();
    assert_eq!(
        snapshot.groups[0].refused,
        [(LinkId(2), RefusalReason::TooManyGroups)]
    );
    assert_eq!(
        snapshot.tables.refused, 1,
        "what we never asked for cannot be refused"
    );
    let again = b.after(Duration::from_secs(8));
    let again = again
        .iter()
        .filter(|o| matches!(o, Output::Control { .. }))
        .count();
    assert_eq!(again, 1);
    b.after(Duration::from_secs(20));
    assert!(
        b.engine.snapshot().groups[0].refused.is_empty(),
        "silence is consent"
    );
    b.sends(2, &[refusal(1)]);
    b.local(&leave(group(1)));
    b.outputs();
    assert_eq!(b.engine.snapshot().tables.refused, 0);
}

#[test]
fn a_restarted_neighbour_begins_anew() {
    let mut b = Bench::new(&[]);
    b.local(&join(group(1)));
    let packet = udp(addresses(2).address, group(1), b"x");
    let up = |b: &mut Bench, incarnation| {
        let config = Config {
            incarnation,
            ..config(2)
        };
        b.up(2, common::engine(config, b.now), neighbor(2));
        b.after(Duration::from_secs(1));
    };
    let of = |incarnation, sequence| DataHeader {
        incarnation,
        ..header_of(2, sequence)
    };
    up(&mut b, 5);
    b.data(2, of(5, 1), &packet);
    assert_eq!(local_packets(b.outputs()).len(), 1);
    b.down(2);
    up(&mut b, 6);
    b.data(2, of(6, 1), &packet);
    b.data(2, of(5, 2), &packet);
    assert_eq!(local_packets(b.outputs()).len(), 1);
    assert_eq!(b.drops("old_incarnation"), 1);
    b.data(2, of(6, 1), &packet);
    b.data(2, of(6, 2), &packet);
    assert_eq!(b.drops("duplicate"), 1);
    assert_eq!(local_packets(b.outputs()).len(), 1);
}

#[test]
fn the_local_group_table_is_bounded() {
    let limits = Limits {
        groups: 10,
        ..Limits::default()
    };
    let config = Config {
        limits,
        ..config(1)
    };
    let mut b = Bench::with(config, &[]);
    for n in 0..15 {
        b.local(&join(group(n)));
    }
    assert_eq!(b.drops("group_limit"), 5);
    assert_eq!(b.engine.snapshot().tables.listener_groups, 10);
}

#[test]
fn the_same_inputs_give_the_same_outputs() {
    let run = || {
        let mut b = Bench::new(&[2, 3, 4, 5]);
        let mut outputs = Vec::new();
        for n in 2..6 {
            for g in 0..200 {
                b.wants(n, g * n, ALL());
                b.local(&join(group(g * 7 % 61)));
            }
            outputs.extend(b.after(Duration::from_millis(333)));
        }
        b.down(3);
        outputs.extend(b.after(Duration::from_secs(200)));
        (outputs, b.engine.snapshot())
    };
    assert_eq!(run(), run());
}

/// Type, code and fourth word of ICMPv6 errors written into `lc0`.
fn icmp_errors(outputs: Vec<Output>) -> Vec<(u8, u8, u32)> {
    let errors = local_packets(outputs).into_iter();
    let parsed = errors.map(|p| {
        assert_eq!((p[6], &p[8..24]), (58, &ROUTER_ADDRESS.octets()[..]));
        (
            p[40],
            p[41],
            u32::from_be_bytes(p[44..48].try_into().unwrap()),
        )
    });
    parsed.collect()
}

#[test]
fn unicast_goes_to_its_node_or_an_error_comes_back() {
    let unicast = |n| Config {
        unicast: true,
        ..config(n)
    };
    let mut b = Bench::with(unicast(1), &[]);
    let far = Config {
        mtu: 1_280,
        ..unicast(2)
    };
    b.up(2, common::engine(far, b.now), neighbor(2));
    b.up(3, common::engine(config(3), b.now), neighbor(3));
    b.after(Duration::from_secs(10));
    let (own, two) = (addresses(1), addresses(2));
    b.local(&udp(own.address, two.address, b"x"));
    b.local(&udp(own.link_local, two.link_local, b"x"));
    let outputs = b.outputs();
    assert_eq!(data_links(&outputs), [[2], [2]]);
    assert!(icmp_errors(outputs).is_empty());
    let unknown = std::net::Ipv6Addr::from_bits(two.address.to_bits() ^ 1);
    let elsewhere = "2001:db8::1".parse().unwrap();
    let cases = [
        (
            udp(own.address, two.address, &[0; 1_300]),
            (2, 0, 1_280),
            "too_big",
        ),
        (
            udp(own.address, addresses(3).address, b"x"),
            (1, 1, 0),
            "unicast_off",
        ),
        (udp(own.address, unknown, b"x"), (1, 0, 0), "no_route"),
        (udp(own.address, elsewhere, b"x"), (1, 0, 0), "no_route"),
    ];
    for (packet, error, reason) in cases {
        let before = b.drops(reason);
        b.local(&packet);
        assert_eq!(icmp_errors(b.outputs()), [error]);
        assert_eq!(b.drops(reason), before + 1);
    }
    // received packets: for this node, from the direction of their source
    let header = |sequence| DataHeader {
        root: own.origin,
        ..header_of(2, sequence)
    };
    b.data(2, header(1), &udp(two.address, own.address, b"x"));
    assert_eq!(local_packets(b.outputs()).len(), 1);
    b.data(3, header(2), &udp(two.address, own.address, b"x"));
    b.data(2, header(3), &udp(addresses(3).address, own.address, b"x"));
    let solicitation = {
        let mut p = udp(two.address, own.address, b"x");
        (p[6], p[40]) = (58, 135);
        p
    };
    b.data(2, header(4), &solicitation);
    assert!(b.outputs().is_empty());
    assert_eq!((b.drops("reverse_path"), b.drops("forged_source")), (1, 1));
    assert_eq!(b.drops("link_control"), 1);
    b.engine.set_unicast(false, b.now);
    b.data(2, header(5), &udp(two.address, own.address, b"x"));
    assert!(local_packets(b.outputs()).is_empty());
}

fn with_stream_ports(mut packet: Vec<u8>) -> Vec<u8> {
    let port = librecast::channel::STREAM_PORT.to_be_bytes();
    packet[40..44].copy_from_slice(&[port, port].concat());
    packet
}

#[test]
fn streams_are_carried_between_nodes_that_take_them_and_no_other_unicast() {
    let mut b = Bench::new(&[]);
    let mut far = common::engine(config(2), b.now);
    far.set_streams(true, b.now);
    b.up(2, far, neighbor(2));
    b.up(3, common::engine(config(3), b.now), neighbor(3));
    b.after(Duration::from_secs(10));
    let (own, two, three) = (addresses(1), addresses(2), addresses(3));
    let stream = |to| with_stream_ports(udp(own.address, to, b"x"));
    b.local(&stream(two.address));
    assert!(b.outputs().is_empty(), "this node has no streams yet");
    assert_eq!(b.drops("unicast_off"), 1);
    b.engine.set_streams(true, b.now);
    b.local(&stream(two.address));
    assert_eq!(data_links(&b.outputs()), [[2]]);
    let one_port = {
        let mut p = stream(two.address);
        p[41] += 1;
        p
    };
    let tcp = {
        let mut p = stream(two.address);
        p[6] = 6;
        p
    };
    for other in [udp(own.address, two.address, b"x"), one_port, tcp] {
        b.local(&other);
    }
    assert!(b.outputs().is_empty());
    assert_eq!(b.drops("unicast_off"), 4);
    b.local(&stream(three.address));
    assert_eq!(icmp_errors(b.outputs()), [(1, 1, 0)], "it takes none");
    // received packets
    let header = |sequence| DataHeader {
        root: own.origin,
        ..header_of(2, sequence)
    };
    let answer = with_stream_ports(udp(two.address, own.address, b"x"));
    b.data(2, header(1), &answer);
    let error = |quoted: &[u8]| {
        let mut message = udp(two.address, own.address, &[0; 4]);
        message[6] = 58;
        message[40..48].copy_from_slice(&[1, 4, 0, 0, 0, 0, 0, 0]);
        message.truncate(48);
        message.extend(quoted);
        let length = message.len() as u16 - 40;
        message[4..6].copy_from_slice(&length.to_be_bytes());
        message
    };
    b.data(2, header(2), &error(&stream(two.address)));
    assert_eq!(local_packets(b.outputs()).len(), 2);
    b.data(2, header(3), &error(&udp(own.address, two.address, b"x")));
    b.data(2, header(4), &udp(two.address, own.address, b"x"));
    assert!(local_packets(b.outputs()).is_empty());
    b.engine.set_streams(false, b.now);
    b.data(2, header(5), &answer);
    assert!(local_packets(b.outputs()).is_empty());
}

fn routed(to: u16, from: u16, kind: RoutedKind, bytes: usize) -> Element {
    Element::Routed(Routed {
        destination: addresses(to).origin,
        source: addresses(from).origin,
        hop_limit: 64,
        kind,
        payload: vec![7; bytes].into(),
    })
}

/// Payload bytes of messages from router to router that leave over a link.
fn routed_bytes(outputs: &[Output], to: u32) -> usize {
    let bytes = |output: &Output| match output {
        Output::RoutedControl { link, message } if link.0 == to => control::decode(message)
            .unwrap()
            .iter()
            .map(|element| match element {
                Element::Routed(routed) => routed.payload.len(),
                other => panic!("{other:?} may be lost"),
            })
            .sum(),
        Output::Control { message, .. } => {
            let elements = control::decode(message).unwrap();
            let is_routed = |e: &Element| matches!(e, Element::Routed(_));
            assert!(!elements.iter().any(is_routed), "it may be lost");
            0
        }
        _ => 0,
    };
    outputs.iter().map(bytes).sum()
}

#[test]
fn a_neighbour_passes_on_so_many_bytes_and_no_more() {
    const RATE: usize = 64 << 10;
    let mut b = Bench::new(&[2, 3]);
    for kind in [RoutedKind::Signal, RoutedKind::Other(255)] {
        // a minute without messages
        b.after(Duration::from_secs(60));
        let mut passed = 0;
        for _ in 0..1_000 {
            b.sends(2, &[routed(3, 2, kind, 16_000)]);
            b.now += Duration::from_millis(10);
            passed += routed_bytes(&b.outputs(), 3);
        }
        let budget = 8 * RATE + 10 * RATE;
        assert!((budget - 32_000..=budget).contains(&passed), "{passed}");
    }
    assert!(b.drops("routed_limited") > 1_000);
    // its own messages are accepted, and the other neighbour has a budget of its own
    b.wants(2, 1, ALL());
    b.sends(3, &[routed(2, 3, RoutedKind::Signal, 1_000)]);
    assert_eq!(routed_bytes(&b.outputs(), 2), 1_000);
    b.local(&udp(addresses(1).address, group(1), b"x"));
    assert_eq!(data_links(&b.outputs()), [[2]]);
}

#[test]
fn signalling_with_a_neighbour_goes_around_the_link_to_it() {
    let mut b = Bench::new(&[2, 3, 4]);
    let way = |b: &mut Bench, kind| {
        let payload = bytes::Bytes::from_static(b"about the link");
        let now = b.now;
        b.engine
            .send_routed(addresses(3).origin, kind, payload, now)
            .unwrap();
        let outputs = b.outputs();
        let links = [2, 3, 4].into_iter();
        links
            .filter(|n| routed_bytes(&outputs, *n) > 0)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        way(&mut b, RoutedKind::Signal),
        [3],
        "no other way is known"
    );
    for (one, other) in [(2, 3), (3, 2)] {
        let now = b.now;
        let engine = b.others.get_mut(&one).unwrap();
        engine.handle_link_up(BETWEEN, neighbor(other), now);
    }
    b.after(Duration::from_secs(10));
    assert_eq!(way(&mut b, RoutedKind::Signal), [2]);
    assert_eq!(way(&mut b, RoutedKind::Echo), [3]);
}

#[test]
fn an_echo_is_short_and_reflects_no_more_than_half_the_budget() {
    let mut b = Bench::new(&[2, 3]);
    b.sends(2, &[routed(1, 3, RoutedKind::Echo, 1_025)]);
    b.sends(2, &[routed(3, 2, RoutedKind::EchoReply, 1_025)]);
    assert_eq!((b.drops("too_big"), routed_bytes(&b.outputs(), 3)), (2, 0));
    b.after(Duration::from_secs(60));
    // node 2 claims that node 3 asks
    let mut reflected = 0;
    for _ in 0..600 {
        b.sends(2, &[routed(1, 3, RoutedKind::Echo, 1_024)]);
        reflected += routed_bytes(&b.outputs(), 3);
    }
    assert_eq!(reflected, 256 << 10);
}

#[test]
fn join_state_that_got_lost_is_found_by_the_audit() {
    let mut b = Bench::new(&[2, 3]);
    b.wants(2, 1, ALL());
    b.wants(2, 2, ALL());
    b.outputs();
    // node 1 receives join state that node 2 never advertised, and loses some that it did
    let root = addresses(1).origin.0;
    b.sends(2, &[join_state(root, 3, ALL()), join_state(root, 1, None)]);
    let wanted = |b: &mut Bench, g| {
        b.local(&udp(addresses(1).address, group(g), b"x"));
        !data_links(&b.outputs()).is_empty()
    };
    assert_eq!([1, 2, 3].map(|g| wanted(&mut b, g)), [false, true, true]);
    b.after(Duration::from_secs(120));
    assert_eq!([1, 2, 3].map(|g| wanted(&mut b, g)), [true, true, false]);
    assert_eq!(b.drops("audit_differs"), 1, "and once is enough");
}

/// JoinStates of node 2 for many groups: joins, or their ends.
fn many_joins(groups: u16, wanted: bool) -> Vec<Element> {
    let root = addresses(1).origin.0;
    let wanted = || wanted.then(SourceFilter::all);
    (0..groups).map(|g| join_state(root, g, wanted())).collect()
}

#[test]
fn all_that_a_neighbour_may_want_comes_goes_and_comes_back_at_once() {
    let limit = Limits::DEFAULT.join_states_per_neighbor as u16;
    let mut b = Bench::new(&[2]);
    for wanted in [true, false, true] {
        b.sends(2, &many_joins(limit, wanted));
        b.exchange();
    }
    assert_eq!(
        b.engine.snapshot().neighbors[0].join_states,
        usize::from(limit)
    );
    assert_eq!(b.drops("join_refused"), 0);
}

#[test]
fn a_neighbour_that_flaps_is_refused_until_it_rests_and_others_are_served() {
    let mut b = Bench::new(&[2, 3]);
    for _ in 0..100 {
        b.sends(2, &many_joins(1_000, true));
        b.sends(2, &many_joins(1_000, false));
        b.exchange();
    }
    let limited = b.drops("join_limited");
    assert!((30_000..40_000).contains(&limited), "{limited}");
    assert_eq!(b.engine.snapshot().neighbors[0].join_states, 0);
    let wanted = |b: &mut Bench| {
        b.local(&udp(addresses(1).address, group(2_000), b"x"));
        data_links(&b.outputs())
    };
    b.wants(3, 2_000, ALL());
    assert_eq!(wanted(&mut b), [[3]]);
    b.wants(2, 2_000, ALL());
    assert_eq!(wanted(&mut b), [[3]], "refused");
    b.after(Duration::from_secs(10));
    assert_eq!(wanted(&mut b), [[2, 3]], "it asked again");
}

#[test]
fn prefixes_that_flap_cost_more_than_groups() {
    let mut b = Bench::new(&[2]);
    let root = addresses(1).origin;
    let source_active = |sending| {
        Element::JoinState(JoinState {
            root,
            prefix: GroupPrefix::ALL,
            join: None,
            source_active: sending,
        })
    };
    for _ in 0..1_000 {
        b.sends(2, &[source_active(true), source_active(false)]);
        b.exchange();
    }
    assert!(b.drops("join_limited") > 450);
}

#[test]
fn what_was_advertised_is_voided_only_where_that_was_asked_for() {
    let mut b = Bench::new(&[2]);
    b.wants(2, 1, ALL());
    b.outputs();
    b.sends(2, &[Element::Audit(Audit::Reset([u64::MAX; 4]))]);
    assert_eq!(b.engine.snapshot().neighbors[0].join_states, 1);
    assert_eq!(b.drops("bad_control"), 1);
    b.sends(2, &[Element::Audit(Audit::Digest(7))]);
    let reset = Element::Audit(Audit::Reset([u64::MAX; 4]));
    b.sends(2, &[reset.clone(), reset]);
    assert_eq!(b.engine.snapshot().neighbors[0].join_states, 0);
    assert_eq!(b.drops("bad_control"), 2);
}

fn says_audit(output: &Output) -> bool {
    match output {
        Output::Control { message, .. } => {
            let elements = control::decode(message).unwrap();
            elements.iter().any(|e| matches!(e, Element::Audit(_)))
        }
        _ => false,
    }
}

/// A router that receives a digest sends its own, which wakes its neighbours in turn.
#[test]
fn a_neighbour_that_says_digests_all_the_time_gets_few() {
    let mut b = Bench::new(&[2, 3]);
    b.after(Duration::from_secs(60));
    let mut audits = 0;
    for _ in 0..3_000 {
        b.now += Duration::from_millis(100);
        b.sends(2, &[Element::Audit(Audit::Digest(7))]);
        b.engine.handle_timeout(b.now);
        audits += b.exchange().iter().filter(|o| says_audit(o)).count();
    }
    // to both neighbours every 15 s, and differing buckets every ten seconds
    assert!(
        (20..=2 * 20 + 30).contains(&audits),
        "{audits} in five minutes"
    );
}

#[test]
fn idle_links_are_audited_at_one_moment() {
    let neighbors = [2, 3, 4, 5, 6, 7, 8, 9];
    let mut b = Bench::new(&neighbors);
    b.after(Duration::from_secs(60));
    let mut moments = Vec::new();
    for _ in 0..90_000 {
        b.now += Duration::from_millis(1);
        for engine in b.others.values_mut().chain([&mut b.engine]) {
            engine.handle_timeout(b.now);
        }
        match b.exchange().iter().filter(|o| says_audit(o)).count() {
            0 => {}
            audits => moments.push(audits),
        }
    }
    assert!(moments.iter().sum::<usize>() >= 3 * neighbors.len());
    assert!(
        moments.iter().all(|audits| *audits == neighbors.len()),
        "{moments:?}"
    );
}
