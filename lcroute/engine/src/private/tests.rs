use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::header::{HOP_LIMIT as FULL, Payload};
use crate::testing::{TestServices, packet_with, udp_packet};

const SOURCE: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 7);
const GROUP: Ipv6Addr = Ipv6Addr::new(0xff1e, 7, 0, 0, 0, 0, 0, 1);
const FLOW: Flow = Flow {
    source: SOURCE,
    group: GROUP,
};
const WINDOW: u64 = 4_096;

fn secret(n: u8) -> Secret {
    Secret::new([n; SECRET_LEN])
}

fn with(secrets: &[u8]) -> Vec<PrivatePrefix> {
    vec![PrivatePrefix {
        prefix: "ff1e:7::/32".parse().unwrap(),
        secrets: secrets.iter().copied().map(secret).collect(),
        lans: false,
    }]
}

/// A node that holds these secrets; `seed` is that of its run.
fn node(seed: u64, secrets: &[u8]) -> Private {
    let mut private = Private::new(seed, 4, WINDOW, Arc::new(TestServices::new(1)));
    private.configure(&with(secrets));
    private
}

fn header(sequence: u64) -> DataHeader {
    DataHeader {
        payload: Payload::Ipv6,
        flags: 0,
        hop_limit: FULL,
        root: OriginId(1),
        origin: OriginId(7),
        incarnation: 3,
        sequence,
    }
}

fn open(private: &mut Private, header: &DataHeader, packet: &[u8]) -> Result<Bytes, DropReason> {
    private.open(private.of(GROUP).unwrap(), header, FLOW, packet)
}

#[test]
fn golden_bytes() {
    let packet = packet_with(SOURCE, GROUP, 17, b"words");
    let sealed = node(1, &[1]).seal(0, &header(9), &packet).unwrap();
    let hexadecimal: String = sealed[40..].iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(&sealed[..6], [0x60, 0, 0, 0, 0, 30]);
    assert_eq!((sealed[6], sealed[7]), (SEALED, packet[7]));
    assert_eq!(sealed[8..40], packet[8..40]);
    assert_eq!(
        hexadecimal,
        "38eebee54aa75d68827f8936febbd6ef21e617ba5ac9cb56e86840a50272"
    );
}

#[test]
fn routers_see_an_ordinary_packet_of_the_same_flow() {
    let packet = udp_packet(SOURCE, GROUP, b"words");
    let sealed = node(1, &[1]).seal(0, &header(1), &packet).unwrap();
    assert_eq!(sealed.len(), packet.len() + OVERHEAD);
    let class = CarriedScopes::ON_LINKS.classify(&sealed);
    assert_eq!(class, Class::Carried(FLOW));
    assert!(!sealed.windows(5).any(|w| w == b"words"));
}

#[test]
fn whoever_changes_replays_or_invents_a_packet_is_refused_and_moves_no_window() {
    let (mut a, mut b) = (node(1, &[1]), node(2, &[1]));
    let packet = udp_packet(SOURCE, GROUP, b"words");
    let sealed = a.seal(0, &header(5), &packet).unwrap();
    let refused = |b: &mut Private, header: &DataHeader, packet: &[u8]| {
        let reason = open(b, header, packet).unwrap_err();
        let known = [DropReason::NotAuthentic, DropReason::NoGroupKey];
        assert!(known.contains(&reason), "{reason:?}");
    };
    for at in (0..sealed.len()).filter(|at| !(NEXT_HEADER_AT..=HOP_LIMIT_AT).contains(at)) {
        let mut changed = sealed.to_vec();
        changed[at] ^= 1;
        refused(&mut b, &header(5), &changed);
    }
    for shorter in IPV6_HEADER_LEN..sealed.len() {
        assert!(open(&mut b, &header(5), &sealed[..shorter]).is_err());
    }
    let other = |change: &dyn Fn(&mut DataHeader)| {
        let mut header = header(5);
        change(&mut header);
        header
    };
    refused(&mut b, &other(&|h| h.sequence = u64::MAX >> 16), &sealed);
    refused(&mut b, &other(&|h| h.origin = OriginId(8)), &sealed);
    refused(&mut b, &other(&|h| h.incarnation = 4), &sealed);
    // fields that routers change on the way do not count
    let mut arrived = sealed.to_vec();
    arrived[HOP_LIMIT_AT] = 9;
    let on_the_way = other(&|h| (h.hop_limit, h.root) = (3, OriginId(99)));
    let mut opened = open(&mut b, &on_the_way, &arrived).unwrap().to_vec();
    assert_eq!(opened[HOP_LIMIT_AT], 9);
    opened[HOP_LIMIT_AT] = packet[HOP_LIMIT_AT];
    assert_eq!(opened, packet);
    assert_eq!(
        open(&mut b, &header(5), &sealed),
        Err(DropReason::Duplicate)
    );
}

#[test]
fn no_number_is_sealed_with_twice() {
    let mut a = node(1, &[1]);
    let packet = udp_packet(SOURCE, GROUP, b"x");
    assert!(a.seal(0, &header(5), &packet).is_ok());
    for used in [5, 4] {
        assert_eq!(
            a.seal(0, &header(used), &packet),
            Err(DropReason::NoGroupKey)
        );
    }
    a.configure(&with(&[2]));
    assert!(a.seal(0, &header(5), &packet).is_err());
    assert!(a.seal(0, &header(6), &packet).is_ok());
}

#[test]
fn a_run_with_the_incarnation_of_another_seals_with_another_key() {
    let packet = udp_packet(SOURCE, GROUP, b"x");
    let [first, second] = [1, 2].map(|run| node(run, &[1]).seal(0, &header(5), &packet).unwrap());
    let tail = |sealed: &Bytes| sealed[IPV6_HEADER_LEN + PREAMBLE_LEN..].to_vec();
    assert_ne!(tail(&first), tail(&second));
    let mut b = node(3, &[1]);
    assert!(open(&mut b, &header(5), &first).is_ok());
    assert!(open(&mut b, &header(5), &second).is_ok());
}

#[test]
fn without_its_key_nothing_of_a_prefix_leaves_or_enters() {
    let packet = udp_packet(SOURCE, GROUP, b"x");
    let sealed = node(1, &[1]).seal(0, &header(5), &packet).unwrap();
    let mut stranger = node(2, &[]);
    assert_eq!(stranger.privacy(GROUP), Some(Privacy::NoKey));
    assert_eq!(stranger.admit(GROUP, false), Err(DropReason::NoGroupKey));
    assert_eq!(
        stranger.seal(0, &header(5), &packet),
        Err(DropReason::NoGroupKey)
    );
    assert_eq!(
        open(&mut stranger, &header(5), &sealed),
        Err(DropReason::NoGroupKey)
    );
    let mut other = node(2, &[9]);
    assert_eq!(
        open(&mut other, &header(5), &sealed),
        Err(DropReason::NoGroupKey)
    );
    let plain = open(&mut other, &header(5), &packet);
    assert_eq!(plain, Err(DropReason::NotSealed));
    assert_eq!(other.admit(GROUP, false), Ok(()));
    assert_eq!(other.admit(GROUP, true), Err(DropReason::LanNotConfigured));
}

#[test]
fn a_key_is_replaced_without_loss_and_what_was_seen_stays_seen() {
    let (mut a, mut b) = (node(1, &[1, 2]), node(2, &[1, 2]));
    let packet = udp_packet(SOURCE, GROUP, b"x");
    let first = a.seal(0, &header(1), &packet).unwrap();
    assert!(open(&mut b, &header(1), &first).is_ok());
    a.configure(&with(&[2, 1]));
    let second = a.seal(0, &header(2), &packet).unwrap();
    assert_ne!(first[40..42], second[40..42], "another key number");
    assert!(open(&mut b, &header(2), &second).is_ok());
    b.configure(&with(&[2, 1]));
    for (sequence, packet) in [(1, &first), (2, &second)] {
        let again = open(&mut b, &header(sequence), packet);
        assert_eq!(again, Err(DropReason::Duplicate));
    }
    b.configure(&with(&[2]));
    assert_eq!(
        open(&mut b, &header(1), &first),
        Err(DropReason::NoGroupKey)
    );
}

#[test]
fn what_is_never_carried_is_not_carried_sealed_either() {
    let report = packet_with(SOURCE, GROUP, 58, &[143, 0, 0, 0, 0, 0, 0, 0]);
    let sealed = node(1, &[1]).seal(0, &header(1), &report).unwrap();
    let opened = open(&mut node(2, &[1]), &header(1), &sealed);
    assert_eq!(opened, Err(DropReason::LinkControl));
    let malformed = packet_with(SOURCE, GROUP, 0, &[17]);
    let sealed = node(1, &[1]).seal(0, &header(1), &malformed).unwrap();
    let opened = open(&mut node(2, &[1]), &header(1), &sealed);
    assert_eq!(opened, Err(DropReason::Malformed));
}

#[test]
fn fragments_and_echoes_come_out_as_they_went_in() {
    let (mut a, mut b) = (node(1, &[1]), node(2, &[1]));
    let echo = packet_with(SOURCE, GROUP, 58, &[128, 0, 0, 0, 0, 1, 0, 1]);
    // of a UDP datagram: the first fragment, and one behind it
    let first = packet_with(
        SOURCE,
        GROUP,
        44,
        &[17, 0, 0, 1, 0, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8],
    );
    let later = packet_with(SOURCE, GROUP, 44, &[17, 0, 0, 8, 0, 0, 0, 9, 1, 2, 3]);
    for (sequence, packet) in (1..).zip([echo, first, later]) {
        let sealed = a.seal(0, &header(sequence), &packet).unwrap();
        let opened = open(&mut b, &header(sequence), &sealed);
        assert_eq!(opened, Ok(packet.into()));
    }
    // headers behind a fragment header are examined as well
    let hidden = packet_with(
        SOURCE,
        GROUP,
        44,
        &[58, 0, 0, 1, 0, 0, 0, 9, 143, 0, 0, 0, 0, 0, 0, 0],
    );
    let sealed = a.seal(0, &header(9), &hidden).unwrap();
    let opened = open(&mut b, &header(9), &sealed);
    assert_eq!(opened, Err(DropReason::LinkControl));
}

#[test]
fn keys_are_bounded_by_origins_and_runs() {
    let (packet, mut b) = (udp_packet(SOURCE, GROUP, b"x"), node(99, &[1]));
    for origin in 1..=9 {
        for run in 1..=9 {
            let header = DataHeader {
                origin: OriginId(origin),
                ..header(1)
            };
            let sealed = node(run, &[1]).seal(0, &header, &packet).unwrap();
            assert!(open(&mut b, &header, &sealed).is_ok());
        }
    }
    assert_eq!(b.opening.len(), 4);
    let kept: usize = b.opening.values().map(Vec::len).sum();
    assert_eq!(kept, 4 * KEYS_PER_ORIGIN);
}

#[test]
fn the_longest_prefix_counts() {
    let mut private = node(1, &[1]);
    let prefix = |prefix: &str, lans| PrivatePrefix {
        prefix: prefix.parse().unwrap(),
        secrets: Vec::new(),
        lans,
    };
    private.configure(&[prefix("ff1e::/16", true), prefix("ff1e:7::/32", false)]);
    assert!(private.is_closed_to_lans(GROUP));
    assert!(!private.is_closed_to_lans("ff1e:8::1".parse().unwrap()));
    assert_eq!(private.of("ff0e::1".parse().unwrap()), None);
}

#[test]
fn a_secret_is_not_shown() {
    assert_eq!(format!("{:?}", secret(77)), "Secret");
}

proptest! {
    #[test]
    fn what_one_seals_the_other_opens(
        sequence in 1..=crate::header::MAX_SEQUENCE,
        incarnation: u32,
        payload in prop::collection::vec(any::<u8>(), 0..1_500),
    ) {
        let header = DataHeader { incarnation, ..header(sequence) };
        let packet = packet_with(SOURCE, GROUP, 17, &payload);
        let sealed = node(1, &[1]).seal(0, &header, &packet).unwrap();
        prop_assert_eq!(open(&mut node(2, &[3, 1]), &header, &sealed), Ok(packet.into()));
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_never_open(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        behind in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut b = node(2, &[1]);
        prop_assert!(open(&mut b, &header(1), &bytes).is_err());
        let own_number = derive("lcroute 2026 key number", &[&[1; SECRET_LEN]]);
        let payload = [&own_number[..2], &behind].concat();
        let invented = packet_with(SOURCE, GROUP, SEALED, &payload);
        prop_assert!(open(&mut b, &header(1), &invented).is_err());
        prop_assert!(b.opening.is_empty());
    }
}
