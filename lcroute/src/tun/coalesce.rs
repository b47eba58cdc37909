//! Coalesces packets of one flow into a super-packet for the kernel: UDP datagrams, TCP segments.
//!
//! A run is packets with the same headers and of the same size, of which the last may be shorter;
//! segments of TCP follow each other without a gap, and PSH ends the run. The kernel computes a
//! super-packet's checksums anew. So each packet is verified before it joins a run: a wrong
//! checksum must not become right.

use std::ops::Range;

use bytes::Bytes;
use librecast::checksum::Sum;
use librecast::ipv4::{self, UDP};
use smallvec::SmallVec;

use super::offload::{IPV6_LEN, Offload, UDP_CHECKSUM, UDP_LEN};
use super::tcp::{self, TCP};

/// Most flows gathered at the same time.
const MAX_RUNS: usize = 8;

/// Most packets of a run.
pub(crate) const MAX_PACKETS: usize = 64;

/// Most bytes of a run, with the headers of the super-packet.
const MAX_BYTES: usize = 65_000;

/// Longest headers of a run: IPv6, and TCP with all its options (RFC 9293 §3.1).
const MAX_HEADERS_LEN: usize = IPV6_LEN + 60;

/// First byte of an IPv4 header without options: version and length.
const IPV4_PLAIN: u8 = 0x45;

/// Headers of a run.
pub(crate) type Headers = SmallVec<[u8; MAX_HEADERS_LEN]>;

/// The runs that are being gathered, oldest first. Packets with different `K` share none.
#[derive(Debug)]
pub(crate) struct Runs<K> {
    open: Vec<Run<K>>,
    /// Empty lists for reuse.
    spare: Vec<Vec<Bytes>>,
}

impl<K> Default for Runs<K> {
    fn default() -> Self {
        Self {
            open: Vec::new(),
            spare: Vec::new(),
        }
    }
}

#[derive(Debug)]
struct Run<K> {
    key: K,
    shape: Shape,
    /// Never empty; no packet is longer than the first.
    packets: Vec<Bytes>,
    /// Length of the super-packet.
    bytes: usize,
    /// Whether the checksums of all packets were checked. A single packet is not checked.
    verified: bool,
}

impl<K: Copy + PartialEq> Runs<K> {
    /// Takes a packet; passes the runs that must precede it, or the packet itself, to `write`.
    /// Keeps the order within a flow.
    pub(crate) fn push(&mut self, key: K, packet: Bytes, write: &mut impl FnMut(K, &[Bytes])) {
        let Some(shape) = Shape::of(&packet) else {
            // like a fragment, it may belong to any flow
            self.flush(write);
            return write(key, &[packet]);
        };
        let of_flow = |run: &Run<K>| run.key == key && run.is_of_flow(shape, &packet);
        let at = match self.open.iter().position(of_flow) {
            Some(at) if self.open[at].takes(shape, &packet) => {
                let run = &mut self.open[at];
                run.bytes += packet.len() - shape.headers;
                run.packets.push(packet);
                at
            }
            other => {
                if let Some(at) = other {
                    self.close(at, write);
                } else if self.open.len() == MAX_RUNS {
                    self.close(0, write);
                }
                self.begin(key, shape, packet)
            }
        };
        if self.open[at].is_full() {
            self.close(at, write);
        }
    }

    /// Writes all runs.
    pub(crate) fn flush(&mut self, write: &mut impl FnMut(K, &[Bytes])) {
        while !self.open.is_empty() {
            self.close(0, write);
        }
    }

    /// Returns its place.
    fn begin(&mut self, key: K, shape: Shape, packet: Bytes) -> usize {
        let mut packets = self.spare.pop().unwrap_or_default();
        let bytes = packet.len();
        packets.push(packet);
        self.open.push(Run {
            key,
            shape,
            packets,
            bytes,
            verified: false,
        });
        self.open.len() - 1
    }

    fn close(&mut self, at: usize, write: &mut impl FnMut(K, &[Bytes])) {
        let run = self.open.remove(at);
        let mut packets = run.packets;
        write(run.key, &packets);
        packets.clear();
        self.spare.push(packets);
    }
}

impl<K> Run<K> {
    /// Whether addresses and ports agree.
    fn is_of_flow(&self, shape: Shape, packet: &[u8]) -> bool {
        let first = &self.packets[0];
        let same = |part: Range<usize>| first[part.clone()] == packet[part];
        self.shape.protocol == shape.protocol
            && self.shape.transport == shape.transport
            && same(shape.addresses())
            && same(shape.transport..shape.transport + 4)
            // datagrams have no order beyond their class of traffic
            && (shape.protocol == Protocol::Tcp || self.has_network_header_of(packet))
    }

    /// Whether the IP headers agree, except lengths, checksums and the IPv4 identification.
    fn has_network_header_of(&self, packet: &[u8]) -> bool {
        let first = &self.packets[0];
        let same = |part: Range<usize>| first[part.clone()] == packet[part];
        match self.shape.is_ipv4() {
            true => same(0..2) && same(6..10),
            false => same(0..4) && same(6..8),
        }
    }

    /// Whether a packet of the flow fits the run.
    fn takes(&mut self, shape: Shape, packet: &[u8]) -> bool {
        let (first, last) = (&self.packets[0], &self.packets[self.packets.len() - 1]);
        let fits = packet.len() <= first.len() && self.bytes + packet.len() <= MAX_BYTES;
        let follows = match shape.protocol {
            Protocol::Udp => true,
            Protocol::Tcp => {
                let tcp = shape.transport;
                self.shape == shape
                    && tcp::follows(&packet[tcp..], &last[tcp..], last.len() - shape.headers)
            }
        };
        if !fits || !follows || !self.has_network_header_of(packet) {
            return false;
        }
        self.verified = self.verified || self.shape.is_right(&self.packets[0]);
        self.verified && shape.is_right(packet)
    }

    fn is_full(&self) -> bool {
        let (first, last) = (&self.packets[0], &self.packets[self.packets.len() - 1]);
        let is_last = match self.shape.protocol {
            Protocol::Udp => false,
            Protocol::Tcp => {
                last.len() == self.shape.headers || tcp::ends_run(&last[self.shape.transport..])
            }
        };
        is_last || self.packets.len() == MAX_PACKETS || last.len() < first.len()
    }
}

/// Protocol of a packet that may be coalesced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Udp,
    Tcp,
}

/// Headers of a whole UDP datagram or TCP segment, directly after its IP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    protocol: Protocol,
    /// Offset of the UDP or TCP header.
    transport: usize,
    /// Length of all headers.
    headers: usize,
}

impl Shape {
    /// `None` of fragments, IPv4 options, extension headers, other protocols, and of UDP without
    /// payload or checksum.
    pub(crate) fn of(packet: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u16::from_be_bytes(*packet.get(at..)?.first_chunk()?));
        let (transport, protocol, length) = match packet.first()? {
            &IPV4_PLAIN if word(6)? & 0x3fff == 0 => {
                (ipv4::HEADER_LEN, *packet.get(9)?, word(2)?.into())
            }
            first if first >> 4 == 6 => {
                (IPV6_LEN, *packet.get(6)?, IPV6_LEN + usize::from(word(4)?))
            }
            _ => return None,
        };
        if length != packet.len() {
            return None;
        }
        let (protocol, header) = match protocol {
            UDP => {
                let length = usize::from(word(transport + 4)?);
                let is_whole = length == packet.len() - transport && length > UDP_LEN;
                let has_checksum = word(transport + UDP_CHECKSUM)? != 0;
                (is_whole && has_checksum).then_some((Protocol::Udp, UDP_LEN))?
            }
            TCP => (Protocol::Tcp, tcp::header_len(packet.get(transport..)?)?),
            _ => return None,
        };
        let headers = transport + header;
        (headers <= packet.len()).then_some(Self {
            protocol,
            transport,
            headers,
        })
    }

    /// The offload header of a super-packet with this many bytes in each packet.
    pub(crate) fn offload(self, segment: u16) -> Offload {
        match self.protocol {
            Protocol::Udp => Offload::of_datagrams(self.headers, segment),
            Protocol::Tcp => {
                Offload::of_segments((self.transport, self.headers), segment, self.is_ipv4())
            }
        }
    }

    fn is_ipv4(self) -> bool {
        self.transport == ipv4::HEADER_LEN
    }

    fn addresses(self) -> Range<usize> {
        match self.is_ipv4() {
            true => 12..ipv4::HEADER_LEN,
            false => 8..IPV6_LEN,
        }
    }

    /// Whether a packet's checksums are right.
    fn is_right(self, packet: &[u8]) -> bool {
        let (header, message) = packet.split_at(self.transport);
        let is_header_right = !self.is_ipv4() || Sum::default().bytes(header).fold() == 0xffff;
        let sum = self.pseudo_header(packet, message.len() as u16);
        is_header_right && sum.bytes(message).fold() == 0xffff
    }

    fn pseudo_header(self, packet: &[u8], length: u16) -> Sum {
        let protocol = match self.protocol {
            Protocol::Udp => UDP,
            Protocol::Tcp => TCP,
        };
        Sum::default()
            .bytes(&packet[self.addresses()])
            .word(length)
            .word(protocol.into())
    }
}

/// Returns the headers of a run's super-packet, with the sum of the pseudo-header as its checksum,
/// and their shape; `None` of packets that make no run.
pub(crate) fn headers(run: &[Bytes]) -> Option<(Headers, Shape)> {
    let (first, last) = (run.first()?, run.last()?);
    let shape = Shape::of(first)?;
    let (at, transport) = (shape.headers, shape.transport);
    let mut headers = Headers::from_slice(&first[..at]);
    let payloads: usize = run.iter().map(|packet| packet.len() - at).sum();
    // a run's size is bounded
    let length = (at - transport + payloads) as u16;
    let sum = shape.pseudo_header(first, length).fold().to_be_bytes();
    match shape.protocol {
        Protocol::Udp => {
            headers[transport + 4..transport + 6].copy_from_slice(&length.to_be_bytes());
            headers[transport + UDP_CHECKSUM..][..2].copy_from_slice(&sum);
        }
        Protocol::Tcp => tcp::merge(&mut headers[transport..], last.get(transport..)?, sum),
    }
    if shape.is_ipv4() {
        let total = transport as u16 + length;
        headers[2..4].copy_from_slice(&total.to_be_bytes());
        headers[10..12].fill(0);
        let sum = !Sum::default().bytes(&headers[..transport]).fold();
        headers[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        headers[4..6].copy_from_slice(&length.to_be_bytes());
    }
    Some((headers, shape))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::offload::Offload;
    use super::super::testing::{self, datagram, set_tcp_checksum, super_packet, tcp_packet};
    use super::*;

    /// Returns the written runs as lists of packets.
    fn written(packets: &[Vec<u8>]) -> Vec<Vec<Vec<u8>>> {
        let mut runs = Runs::<()>::default();
        let mut written = Vec::new();
        let mut write = |(), run: &[Bytes]| written.push(run.iter().map(|p| p.to_vec()).collect());
        for packet in packets {
            runs.push((), Bytes::copy_from_slice(packet), &mut write);
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

    #[test]
    fn segments_of_tcp_make_runs_that_come_apart_again() {
        for is_ipv4 in [true, false] {
            // the sequence number wraps
            let segment = |n: u16, flags, size| {
                let sequence = 0xffff_fc00_u32.wrapping_add(u32::from(n) * 1_000);
                tcp_packet(is_ipv4, sequence, flags, n, &vec![n as u8; size])
            };
            let run = [
                segment(0, 0x10, 1_000),
                segment(1, 0x10, 1_000),
                segment(2, 0x18, 500),
            ];
            assert_eq!(
                written(&run),
                std::slice::from_ref(&run),
                "the last is shorter"
            );
            assert_eq!(split(&run), run);
            let next = |n| segment(n, 0x10, 1_000);
            let many: Vec<_> = (0..130).map(next).collect();
            assert_eq!(counts(&many), [64, 64, 2]);

            let mut wrong = next(1);
            *wrong.last_mut().unwrap() ^= 1;
            for (packets, expected) in [
                (vec![next(0), next(2), next(3)], vec![1, 2]),
                (vec![next(0), next(0), next(1)], vec![1, 2]),
                (vec![next(0), segment(1, 0x18, 1_000), next(2)], vec![2, 1]),
                (
                    vec![next(0), segment(1, 0x11, 1_000), next(2)],
                    vec![1, 1, 1],
                ),
                (
                    vec![next(0), segment(1, 0x90, 1_000), next(2)],
                    vec![1, 1, 1],
                ),
                (vec![next(0), segment(1, 0x10, 0), next(1)], vec![1, 1, 1]),
                (vec![next(0), wrong, next(2)], vec![1, 1, 1]),
            ] {
                let runs = written(&packets);
                assert_eq!(runs.concat(), packets, "in order");
                let lengths: Vec<_> = runs.iter().map(Vec::len).collect();
                assert_eq!(lengths, expected, "{is_ipv4}");
            }
            // acknowledgment, window, urgent pointer, an option
            let tcp = if is_ipv4 { 20 } else { 40 };
            for at in [8, 14, 18, 24] {
                let mut other = next(1);
                other[tcp + at] ^= 1;
                set_tcp_checksum(&mut other, tcp);
                assert_eq!(counts(&[next(0), other]), [1, 1], "{at}");
            }
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
