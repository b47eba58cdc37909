//! Coalesces datagrams of one flow into a super-packet for the kernel.
//!
//! A run is datagrams with the same headers and of the same size, of which the last may be shorter.
//! The kernel computes a super-packet's checksums anew. So each datagram is verified before it
//! joins a run: a wrong checksum must not become right.

use bytes::Bytes;
use librecast::checksum::Sum;
use librecast::ipv4::{self, UDP};
use smallvec::SmallVec;

use super::offload::{IPV6_LEN, UDP_CHECKSUM, UDP_LEN};

/// Most flows gathered at the same time.
const MAX_RUNS: usize = 8;

/// Most datagrams of a run.
pub(crate) const MAX_PACKETS: usize = 64;

/// Most bytes of a run, with the headers of the super-packet.
const MAX_BYTES: usize = 65_000;

/// Length of a run's IPv6 and UDP headers.
const IPV6_HEADERS_LEN: usize = IPV6_LEN + UDP_LEN;

/// Length of a run's IPv4 and UDP headers, without options.
const IPV4_HEADERS_LEN: usize = ipv4::HEADER_LEN + UDP_LEN;

/// First byte of such an IPv4 header: version and length.
const IPV4_PLAIN: u8 = 0x45;

/// Headers of a run.
pub(crate) type Headers = SmallVec<[u8; IPV6_HEADERS_LEN]>;

/// The runs that are being gathered, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    open: Vec<Run>,
    /// Empty lists for reuse.
    spare: Vec<Vec<Bytes>>,
}

#[derive(Debug)]
struct Run {
    /// Never empty; no packet is longer than the first.
    packets: Vec<Bytes>,
    /// Length of the super-packet.
    bytes: usize,
    /// Whether the checksums of all packets were checked. A single packet is not checked.
    verified: bool,
}

impl Runs {
    /// Takes a packet; passes the runs that must precede it, or the packet itself, to `write`.
    /// Keeps the order within a flow.
    pub(crate) fn push(&mut self, packet: Bytes, write: &mut impl FnMut(&[Bytes])) {
        if !is_datagram(&packet) {
            // like a fragment, it may belong to any flow
            self.flush(write);
            return write(&[packet]);
        }
        let Some(at) = self.open.iter().position(|run| run.is_of_flow(&packet)) else {
            if self.open.len() == MAX_RUNS {
                self.close(0, write);
            }
            return self.begin(packet);
        };
        if self.open[at].takes(&packet) {
            let run = &mut self.open[at];
            run.bytes += packet.len() - headers_len(&packet);
            run.packets.push(packet);
            if run.is_full() {
                self.close(at, write);
            }
        } else {
            self.close(at, write);
            self.begin(packet);
        }
    }

    /// Writes all runs.
    pub(crate) fn flush(&mut self, write: &mut impl FnMut(&[Bytes])) {
        while !self.open.is_empty() {
            self.close(0, write);
        }
    }

    fn begin(&mut self, packet: Bytes) {
        let mut packets = self.spare.pop().unwrap_or_default();
        let bytes = packet.len();
        packets.push(packet);
        self.open.push(Run {
            packets,
            bytes,
            verified: false,
        });
    }

    fn close(&mut self, at: usize, write: &mut impl FnMut(&[Bytes])) {
        let mut packets = self.open.remove(at).packets;
        write(&packets);
        packets.clear();
        self.spare.push(packets);
    }
}

impl Run {
    /// Whether the headers agree, except lengths, checksums and the IPv4 identification.
    fn is_of_flow(&self, packet: &[u8]) -> bool {
        let first = &self.packets[0];
        if packet[0] == IPV4_PLAIN {
            let same = |part: std::ops::Range<usize>| first[part.clone()] == packet[part];
            return same(0..2) && same(6..10) && same(12..24);
        }
        first[..4] == packet[..4] && first[6..44] == packet[6..44]
    }

    /// Whether a datagram of the flow fits the run.
    fn takes(&mut self, packet: &[u8]) -> bool {
        if packet.len() > self.packets[0].len() || self.bytes + packet.len() > MAX_BYTES {
            return false;
        }
        self.verified = self.verified || is_right(&self.packets[0]);
        self.verified && is_right(packet)
    }

    fn is_full(&self) -> bool {
        let shorter = |last: &Bytes| last.len() < self.packets[0].len();
        self.packets.len() == MAX_PACKETS || self.packets.last().is_some_and(shorter)
    }
}

/// Returns the headers of a run's super-packet, with the sum of the pseudo-header as its checksum.
pub(crate) fn headers(run: &[Bytes]) -> Headers {
    let at = headers_len(&run[0]);
    let udp = at - UDP_LEN;
    let mut headers = Headers::from_slice(&run[0][..at]);
    let payloads: usize = run.iter().map(|packet| packet.len() - at).sum();
    // a run's size is bounded
    let length = (UDP_LEN + payloads) as u16;
    headers[udp + 4..udp + 6].copy_from_slice(&length.to_be_bytes());
    let sum = pseudo_header(&run[0], length).fold();
    headers[udp + 6..].copy_from_slice(&sum.to_be_bytes());
    if run[0][0] == IPV4_PLAIN {
        let total = udp as u16 + length;
        headers[2..4].copy_from_slice(&total.to_be_bytes());
        headers[10..12].fill(0);
        let sum = !Sum::default().bytes(&headers[..udp]).fold();
        headers[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        headers[4..6].copy_from_slice(&length.to_be_bytes());
    }
    headers
}

/// Returns the length of the headers of a gathered datagram.
pub(crate) fn headers_len(packet: &[u8]) -> usize {
    match packet[0] {
        IPV4_PLAIN => IPV4_HEADERS_LEN,
        _ => IPV6_HEADERS_LEN,
    }
}

/// Whether this is a whole UDP datagram with payload and checksum, directly after its IP header.
fn is_datagram(packet: &[u8]) -> bool {
    if packet.first() == Some(&IPV4_PLAIN) {
        return is_ipv4_datagram(packet);
    }
    let Some((headers, payload)) = packet.split_first_chunk::<IPV6_HEADERS_LEN>() else {
        return false;
    };
    let length = packet.len() - IPV6_LEN;
    let word = |at: usize| usize::from(u16::from_be_bytes([headers[at], headers[at + 1]]));
    headers[0] >> 4 == 6
        && headers[6] == UDP
        && !payload.is_empty()
        && word(4) == length
        && word(IPV6_LEN + 4) == length
        && word(IPV6_LEN + UDP_CHECKSUM) != 0
}

/// The same for IPv4, without fragments.
fn is_ipv4_datagram(packet: &[u8]) -> bool {
    let Some((headers, payload)) = packet.split_first_chunk::<IPV4_HEADERS_LEN>() else {
        return false;
    };
    let word = |at: usize| usize::from(u16::from_be_bytes([headers[at], headers[at + 1]]));
    let udp = ipv4::HEADER_LEN;
    headers[9] == UDP
        && !payload.is_empty()
        && word(6) & 0x3fff == 0
        && word(2) == packet.len()
        && word(udp + 4) == packet.len() - udp
        && word(udp + UDP_CHECKSUM) != 0
}

/// Whether a datagram's checksums are right.
fn is_right(packet: &[u8]) -> bool {
    let (header, message) = packet.split_at(headers_len(packet) - UDP_LEN);
    let is_header_right = packet[0] != IPV4_PLAIN || Sum::default().bytes(header).fold() == 0xffff;
    let sum = pseudo_header(packet, message.len() as u16).bytes(message);
    is_header_right && sum.fold() == 0xffff
}

fn pseudo_header(packet: &[u8], length: u16) -> Sum {
    // source and destination are adjacent
    let addresses = match packet[0] {
        IPV4_PLAIN => &packet[12..ipv4::HEADER_LEN],
        _ => &packet[8..IPV6_LEN],
    };
    Sum::default()
        .bytes(addresses)
        .word(length)
        .word(UDP.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::offload::Offload;
    use super::super::testing::{self, datagram, super_packet};
    use super::*;

    /// Returns the written runs as lists of packets.
    fn written(packets: &[Vec<u8>]) -> Vec<Vec<Vec<u8>>> {
        let mut runs = Runs::default();
        let mut written = Vec::new();
        let mut write = |run: &[Bytes]| written.push(run.iter().map(|p| p.to_vec()).collect());
        for packet in packets {
            runs.push(Bytes::copy_from_slice(packet), &mut write);
        }
        runs.flush(&mut write);
        assert!(runs.open.is_empty());
        assert!(runs.spare.len() <= MAX_RUNS);
        written
    }

    fn counts(packets: &[Vec<u8>]) -> Vec<usize> {
        written(packets).iter().map(Vec::len).collect()
    }

    fn of_size(size: usize) -> Vec<u8> {
        datagram(1, &vec![size as u8; size])
    }

    #[test]
    fn equal_sizes_make_one_run_and_a_shorter_one_ends_it() {
        assert_eq!(counts(&[of_size(9), of_size(9), of_size(9)]), [3]);
        assert_eq!(
            counts(&[of_size(9), of_size(9), of_size(5), of_size(5)]),
            [3, 1]
        );
        assert_eq!(counts(&[of_size(5), of_size(9), of_size(9)]), [1, 2]);
        assert_eq!(counts(&(1..10).map(of_size).collect::<Vec<_>>()), [1; 9]);
    }

    #[test]
    fn flows_are_gathered_side_by_side_up_to_a_bound() {
        let flows = |n: u16| (0..n).map(|port| datagram(port, b"x"));
        let twice = |n: u16| flows(n).chain(flows(n)).collect::<Vec<_>>();
        assert_eq!(counts(&twice(8)), [2; 8]);
        assert_eq!(counts(&twice(9)), [1; 18]);
    }

    #[test]
    fn a_run_is_bounded_in_packets_and_bytes() {
        assert_eq!(counts(&vec![of_size(9); 150]), [64, 64, 22]);
        let runs = written(&vec![of_size(1_400); 100]);
        for run in &runs[..2] {
            let bytes: usize = 48 + run.iter().map(|p| p.len() - 48).sum::<usize>();
            assert!((60_000..=MAX_BYTES).contains(&bytes), "{bytes}");
        }
    }

    #[test]
    fn headers_that_differ_make_flows_of_their_own() {
        // traffic class, flow label, hop limit, source, group, ports
        for byte in [1, 3, 7, 9, 30, 41, 43] {
            let mut other = of_size(9);
            other[byte] ^= 1;
            testing::set_checksum(&mut other);
            assert_eq!(
                counts(&[of_size(9), other.clone(), of_size(9), other]),
                [2, 2],
                "{byte}"
            );
        }
    }

    #[test]
    fn a_wrong_checksum_never_joins_a_run() {
        let mut wrong = of_size(9);
        wrong[50] ^= 1;
        let right = of_size(9);
        let packets = |order: [&Vec<u8>; 4]| order.map(Clone::clone);
        for (order, expected) in [
            (packets([&wrong, &right, &right, &right]), vec![1, 3]),
            (packets([&right, &right, &wrong, &right]), vec![2, 1, 1]),
            (packets([&wrong, &wrong, &right, &right]), vec![1, 1, 2]),
            (packets([&right, &wrong, &wrong, &wrong]), vec![1; 4]),
        ] {
            let runs = written(&order);
            assert_eq!(runs.iter().map(Vec::len).collect::<Vec<_>>(), expected);
            assert_eq!(runs.concat(), order, "in order, and as it was");
        }
    }

    #[test]
    fn what_is_no_datagram_goes_alone_and_nothing_of_its_flow_passes_it() {
        let datagram = of_size(9);
        let mut fragment = datagram.clone();
        fragment[6] = 44;
        let mut without_checksum = datagram.clone();
        without_checksum[46..48].fill(0);
        let mut lying = datagram.clone();
        lying[45] += 1;
        let empty = testing::datagram(1, b"");
        for other in [
            fragment,
            without_checksum,
            lying,
            empty,
            vec![0x60; 47],
            vec![],
        ] {
            let packets = [
                datagram.clone(),
                datagram.clone(),
                other.clone(),
                datagram.clone(),
            ];
            let runs = written(&packets);
            assert_eq!(runs.concat(), packets);
            assert_eq!(runs.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1, 1]);
        }
    }

    #[test]
    fn datagrams_of_ipv4_make_runs_that_come_apart_again() {
        use std::net::Ipv4Addr;
        let to = Ipv4Addr::new(239, 1, 2, 3);
        let of = |host: u8, size: usize| {
            let from = Ipv4Addr::new(10, 77, 1, host);
            ipv4::udp_packet(from, to, (5004, 1), &vec![size as u8; size])
        };
        assert_eq!(counts(&[of(1, 9), of(1, 9), of(1, 5), of(1, 5)]), [3, 1]);
        assert_eq!(counts(&[of(1, 9), of(2, 9), of(1, 9), of(2, 9)]), [2, 2]);
        assert_eq!(
            counts(&[of(1, 9), of_size(9), of(1, 9), of_size(9)]),
            [2, 2]
        );
        let mut fragment = of(1, 9);
        fragment[6] = 0x20;
        let mut wrong_header = of(1, 9);
        wrong_header[10] ^= 1;
        let mut wrong = of(1, 9);
        wrong[30] ^= 1;
        for other in [fragment, wrong_header, wrong] {
            let packets = [of(1, 9), of(1, 9), other, of(1, 9), of(1, 9)];
            let runs = written(&packets);
            assert_eq!(runs.concat(), packets);
            assert_eq!(runs.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1, 2]);
        }
        let run = vec![of(1, 900); 3];
        for (n, packet) in split(&run).into_iter().enumerate() {
            let mut expected = run[0].clone();
            // the kernel also counts up
            expected[5] = n as u8;
            expected[10..12].fill(0);
            let sum = !Sum::default().bytes(&expected[..20]).fold();
            expected[10..12].copy_from_slice(&sum.to_be_bytes());
            assert_eq!(packet, expected);
        }
    }

    /// Splits a run's super-packet again.
    fn split(run: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let run: Vec<&[u8]> = run.iter().map(Vec::as_slice).collect();
        let (offload, mut packet) = super_packet(&run);
        let mut packets = Vec::new();
        let offload = Offload::decode(offload.encode(14), 14).unwrap();
        let each = &mut |parts: [&[u8]; 2]| packets.push(parts.concat());
        offload.unpack(&mut packet, each).unwrap();
        packets
    }

    proptest! {
        #[test]
        fn what_is_coalesced_is_split_into_the_same_bytes(
            sizes in prop::collection::vec((0..3_u16, prop_oneof![Just(100_usize), 1..200_usize]), 1..200),
            seed: u8,
        ) {
            let packets: Vec<Vec<u8>> = sizes.iter().enumerate()
                .map(|(n, (port, size))| datagram(*port, &vec![seed ^ n as u8; *size]))
                .collect();
            let runs = written(&packets);
            for port in 0..3 {
                let of_port = |p: &&Vec<u8>| p[41] == port as u8;
                let sent: Vec<_> = packets.iter().filter(of_port).collect();
                let parts: Vec<_> = runs.iter().flat_map(|run| split(run)).collect();
                let got: Vec<_> = parts.iter().filter(of_port).collect();
                prop_assert_eq!(got, sent);
            }
        }

        #[test]
        fn any_bytes_come_out_as_they_went_in(
            packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..40),
        ) {
            let mut out = written(&packets).concat();
            let mut packets = packets;
            out.sort();
            packets.sort();
            prop_assert_eq!(out, packets);
        }
    }
}
