//! Ethernet frames on LANs: filters for received ones, headers of sent ones.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lcroute_node::SegmentFrame;
use librecast::arp::Arp;
use librecast::ethernet::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, MacAddress};
use librecast::ipv6::{self, Datagram, HOP_LIMIT_AT, ICMPV6, UDP};
use librecast::mld::ALL_NODES;
use librecast::{ipv4, neighbor_discovery};
use nix::libc;
use socket2::SockFilter;

/// Mark of frames that lcroute itself sends into LANs: they are no program's. Chosen: "lcro".
pub const MARK: u32 = 0x6c63_726f;
/// Receive buffer for packets of a LAN in bytes: some 20 ms at 1 Gbit/s.
pub const PACKETS_BUFFER: usize = 4 << 20;
/// Length of an Ethernet header.
pub const ETHERNET_LEN: usize = 14;
/// UDP port of PROBEs between gateways.
pub const PROBE_PORT: u16 = 7118;

/// UDP port of multicast DNS (RFC 6762 §3).
const MDNS_PORT: u16 = 5_353;
/// ICMPv6 type Router Solicitation (RFC 4861 §4.1).
const ROUTER_SOLICITATION: u32 = 133;
/// Offset of a frame's Ethernet source address, in bytes, as all offsets (IEEE 802.3).
const SOURCE_MAC: u32 = 6;
/// Offset of the Ethernet type (IEEE 802.3).
const ETHERTYPE: u32 = 12;
/// Offset of the IPv6 next header (RFC 8200 §3).
const NEXT_HEADER: u32 = ETHERNET_LEN as u32 + 6;
/// Offset of the IPv6 destination (RFC 8200 §3).
const GROUP: u32 = ETHERNET_LEN as u32 + 24;
/// Offset of the payload of an IPv6 packet without extension headers (RFC 8200 §3).
const PAYLOAD: u32 = (ETHERNET_LEN + ipv6::HEADER_LEN) as u32;
/// Offset of the IPv4 protocol (RFC 791 §3.1).
const IPV4_PROTOCOL: u32 = ETHERNET_LEN as u32 + 9;
/// Offset of the IPv4 destination (RFC 791 §3.1).
const IPV4_GROUP: u32 = ETHERNET_LEN as u32 + 16;
/// 224.0.0.0/24, whose groups stay on their link (RFC 5771 §4).
const IPV4_LINK_SCOPE: u32 = u32::from_be_bytes([224, 0, 0, 0]);
/// The mask of [`IPV4_LINK_SCOPE`]: 24 bits.
const IPV4_LINK_SCOPE_MASK: u32 = 0xffff_ff00;

/// The first three bytes of virtual Ethernet addresses, as the upper bits of a word.
const VIRTUAL: u32 = u32::from_be_bytes([0x02, 0x6c, 0x63, 0]);
/// The mask of [`VIRTUAL`]: 24 bits.
const VIRTUAL_MASK: u32 = 0xffff_ff00;
/// Widest scope of IPv6 groups that a segment carries by itself: site-local (RFC 7346 §2).
const SEGMENT_SCOPE: u8 = 5;
/// The first 8 bytes of a Neighbor Solicitation, without checksum (RFC 4861 §4.3).
const NEIGHBOR_SOLICITATION: [u8; 8] = [135, 0, 0, 0, 0, 0, 0, 0];
/// ICMPv6 type Multicast Listener Query (RFC 9777 §5.1).
const MLD_QUERY: u8 = 130;
/// ICMPv6 type Neighbor Advertisement (RFC 4861 §4.4).
const NEIGHBOR_ADVERTISEMENT: u32 = 136;

/// The frames that a filter accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Multicast of scope 5 and wider; and `Extra`.
    Packets(Extra),
    /// MLD and PROBEs.
    Control,
    /// IPv4 multicast beyond 224.0.0.0/24.
    Ipv4Packets,
    /// IGMP.
    Ipv4Control,
    /// IPv6 for a segment: to this virtual address, if it is served, and to groups; answers to
    /// probes.
    SegmentIpv6(Option<MacAddress>),
    /// IPv4 for a segment: to this virtual address, if it is served, to groups and to all.
    SegmentIpv4(Option<MacAddress>),
    /// ARP for a segment.
    Arp(Option<MacAddress>),
}

impl Wanted {
    fn ethertype(self) -> u16 {
        match self {
            Self::Packets(_) | Self::Control | Self::SegmentIpv6(_) => ETHERTYPE_IPV6,
            Self::Ipv4Packets | Self::Ipv4Control | Self::SegmentIpv4(_) => ETHERTYPE_IPV4,
            Self::Arp(_) => ETHERTYPE_ARP,
        }
    }

    /// The steps that tell packet types apart; the type is loaded, before and after.
    fn packet_types(self) -> Vec<Step> {
        match self {
            // frames between other hosts come in where the interface is promiscuous
            Self::SegmentIpv6(Some(mac)) | Self::SegmentIpv4(Some(mac)) | Self::Arp(Some(mac)) => {
                let mut steps = vec![(EQUAL, Go::On, Go::Skip(5), libc::PACKET_OTHERHOST.into())];
                steps.extend(is_address(0, mac, Go::Accept));
                steps.push((EQUAL, Go::Refuse, Go::Refuse, 0));
                steps
            }
            Self::SegmentIpv6(None) | Self::SegmentIpv4(None) | Self::Arp(None) => {
                vec![(EQUAL, Go::Refuse, Go::On, libc::PACKET_OTHERHOST.into())]
            }
            _ => vec![(EQUAL, Go::On, Go::Refuse, libc::PACKET_MULTICAST.into())],
        }
    }
}

/// Link-scope packets to accept, apart from MLD and PROBEs: a flood must not delay joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extra {
    /// Multicast DNS.
    pub mdns: bool,
    /// Router solicitations.
    pub solicitations: bool,
    /// IPv4.
    pub ipv4: bool,
    /// All that hosts of a segment send.
    pub segment: bool,
}

impl Extra {
    /// The frames that the sockets of packets accept, of IPv6 and IPv4; `mac` is the virtual
    /// address.
    pub fn packets(self, mac: Option<MacAddress>) -> [Wanted; 2] {
        match self.segment {
            true => [Wanted::SegmentIpv6(mac), Wanted::SegmentIpv4(mac)],
            false => [Wanted::Packets(self), Wanted::Ipv4Packets],
        }
    }

    /// Whether a frame is of the segment: others are packets of groups that the network carries,
    /// and link control.
    pub fn is_of_segment(self, frame: &SegmentFrame) -> bool {
        let packet = &frame.payload;
        let is_group = packet.get(24) == Some(&0xff) && frame.destination.is_group();
        let scope = packet.get(25).map_or(0, |byte| byte & 0x0f);
        let is_solicitation = packet.get(6) == Some(&ICMPV6)
            && packet.get(ipv6::HEADER_LEN) == Some(&(ROUTER_SOLICITATION as u8));
        let is_other = is_group && (scope > SEGMENT_SCOPE || self.solicitations && is_solicitation);
        self.segment && !(frame.ethertype == ETHERTYPE_IPV6 && is_other)
    }
}

/// One instruction with its targets: condition true, condition false; and its operand.
type Step = (u32, Go, Go, u32);

/// Loads the byte at an offset (linux/filter.h, as all below).
const BYTE: u32 = libc::BPF_LD | libc::BPF_ABS | libc::BPF_B;
/// Loads the 16 bits at an offset.
const HALF: u32 = libc::BPF_LD | libc::BPF_ABS | libc::BPF_H;
/// Loads the 32 bits at an offset.
const WORD: u32 = libc::BPF_LD | libc::BPF_ABS | libc::BPF_W;
/// Loads the operand.
const CONSTANT: u32 = libc::BPF_LD | libc::BPF_IMM;
/// Keeps the operand's bits of the loaded value.
const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
/// Jumps by whether the loaded value equals the operand.
const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
/// Jumps by whether the loaded value, unsigned, exceeds the operand.
const ABOVE: u32 = libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K;

/// Returns a filter for an interface with this Ethernet address.
pub fn filter(wanted: Wanted, own: MacAddress) -> Vec<SockFilter> {
    let ancillary = |what: libc::c_int| (libc::SKF_AD_OFF + what) as u32;
    let mut program = vec![
        (
            BYTE,
            Go::On,
            Go::On,
            ancillary(libc::SKF_AD_VLAN_TAG_PRESENT),
        ),
        (EQUAL, Go::On, Go::Refuse, 0),
        (HALF, Go::On, Go::On, ETHERTYPE),
        (EQUAL, Go::On, Go::Refuse, wanted.ethertype().into()),
    ];
    if !matches!(wanted, Wanted::Arp(_)) {
        // frames of a gateway never enter a network again; ARP shows rivals
        program.extend([
            (WORD, Go::On, Go::On, SOURCE_MAC),
            (AND, Go::On, Go::On, VIRTUAL_MASK),
            (EQUAL, Go::Refuse, Go::On, VIRTUAL),
        ]);
    }
    program.extend(is_address(SOURCE_MAC, own, Go::Refuse));
    program.push((BYTE, Go::On, Go::On, ancillary(libc::SKF_AD_PKTTYPE)));
    program.extend(wanted.packet_types());
    program.extend(body(wanted));
    assemble(&program)
}
/// Returns a filter for frames of this host's own programs that leave by an interface with this
/// Ethernet address: to this virtual address, to groups and to all. Without one, nothing.
pub fn outgoing_filter(virtual_mac: Option<MacAddress>, own: MacAddress) -> Vec<SockFilter> {
    let Some(virtual_mac) = virtual_mac else {
        return assemble(&[(EQUAL, Go::Refuse, Go::Refuse, 0)]);
    };
    let ancillary = |what: libc::c_int| (libc::SKF_AD_OFF + what) as u32;
    let MacAddress([a, b, c, d, e, f]) = own;
    let mut program = vec![
        (BYTE, Go::On, Go::On, ancillary(libc::SKF_AD_PKTTYPE)),
        (EQUAL, Go::On, Go::Refuse, libc::PACKET_OUTGOING.into()),
        (WORD, Go::On, Go::On, ancillary(libc::SKF_AD_MARK)),
        (EQUAL, Go::Refuse, Go::On, MARK),
        (
            BYTE,
            Go::On,
            Go::On,
            ancillary(libc::SKF_AD_VLAN_TAG_PRESENT),
        ),
        (EQUAL, Go::On, Go::Refuse, 0),
        (HALF, Go::On, Go::On, ETHERTYPE),
        (EQUAL, Go::Skip(2), Go::On, ETHERTYPE_IPV4.into()),
        (EQUAL, Go::Skip(1), Go::On, ETHERTYPE_IPV6.into()),
        (EQUAL, Go::On, Go::Refuse, ETHERTYPE_ARP.into()),
        (WORD, Go::On, Go::On, SOURCE_MAC),
        (EQUAL, Go::On, Go::Refuse, u32::from_be_bytes([a, b, c, d])),
        (HALF, Go::On, Go::On, SOURCE_MAC + 4),
        (EQUAL, Go::On, Go::Refuse, u16::from_be_bytes([e, f]).into()),
        (BYTE, Go::On, Go::On, 0),
        (AND, Go::On, Go::On, 1),
        (EQUAL, Go::Accept, Go::On, 1),
    ];
    program.extend(is_address(0, virtual_mac, Go::Accept));
    program.push((EQUAL, Go::Refuse, Go::Refuse, 0));
    assemble(&program)
}

/// The steps that jump to `then` if this Ethernet address is at an offset of the frame.
fn is_address(at: u32, MacAddress([a, b, c, d, e, f]): MacAddress, then: Go) -> [Step; 4] {
    [
        (WORD, Go::On, Go::On, at),
        (EQUAL, Go::On, Go::Skip(2), u32::from_be_bytes([a, b, c, d])),
        (HALF, Go::On, Go::On, at + 4),
        (EQUAL, then, Go::On, u16::from_be_bytes([e, f]).into()),
    ]
}

/// The steps that tell protocols apart; the packet type is loaded.
fn body(wanted: Wanted) -> Vec<Step> {
    match wanted {
        Wanted::Packets(extra) => packets(extra),
        Wanted::Control => vec![
            (BYTE, Go::On, Go::On, NEXT_HEADER),
            (EQUAL, Go::On, Go::Skip(2), UDP.into()),
            (HALF, Go::On, Go::On, PAYLOAD + 2),
            (EQUAL, Go::Accept, Go::Refuse, PROBE_PORT.into()),
            (EQUAL, Go::On, Go::Refuse, 0),
            (BYTE, Go::On, Go::On, PAYLOAD),
            (EQUAL, Go::Accept, Go::Refuse, ICMPV6.into()),
        ],
        Wanted::Ipv4Packets => vec![
            (BYTE, Go::On, Go::On, IPV4_PROTOCOL),
            // the control socket receives IGMP
            (EQUAL, Go::Refuse, Go::On, ipv4::IGMP.into()),
            (WORD, Go::On, Go::On, IPV4_GROUP),
            (AND, Go::On, Go::On, IPV4_LINK_SCOPE_MASK),
            (EQUAL, Go::Refuse, Go::Accept, IPV4_LINK_SCOPE),
        ],
        Wanted::Ipv4Control => vec![
            (BYTE, Go::On, Go::On, IPV4_PROTOCOL),
            (EQUAL, Go::Accept, Go::Refuse, ipv4::IGMP.into()),
        ],
        Wanted::SegmentIpv6(_) => vec![
            (EQUAL, Go::On, Go::Skip(4), libc::PACKET_HOST.into()),
            (BYTE, Go::On, Go::On, NEXT_HEADER),
            (EQUAL, Go::On, Go::Refuse, ICMPV6.into()),
            (BYTE, Go::On, Go::On, PAYLOAD),
            (EQUAL, Go::Accept, Go::Refuse, NEIGHBOR_ADVERTISEMENT),
            // the control socket receives MLD and PROBEs
            (BYTE, Go::On, Go::On, NEXT_HEADER),
            (EQUAL, Go::On, Go::Skip(2), 0),
            (BYTE, Go::On, Go::On, PAYLOAD),
            (EQUAL, Go::Refuse, Go::Accept, ICMPV6.into()),
            (EQUAL, Go::On, Go::Accept, UDP.into()),
            (HALF, Go::On, Go::On, PAYLOAD + 2),
            (EQUAL, Go::Refuse, Go::Accept, PROBE_PORT.into()),
        ],
        Wanted::SegmentIpv4(_) => vec![
            // packets for the gateway itself
            (EQUAL, Go::Refuse, Go::On, libc::PACKET_HOST.into()),
            (BYTE, Go::On, Go::On, IPV4_PROTOCOL),
            (EQUAL, Go::Refuse, Go::Accept, ipv4::IGMP.into()),
        ],
        Wanted::Arp(_) => vec![(EQUAL, Go::Accept, Go::Accept, 0)],
    }
}

/// The steps for multicast of IPv6 outside of segments.
fn packets(extra: Extra) -> Vec<Step> {
    let (mdns, solicitations) = (extra.mdns.into(), extra.solicitations.into());
    vec![
        (BYTE, Go::On, Go::On, GROUP),
        (EQUAL, Go::On, Go::Refuse, 0xff),
        (BYTE, Go::On, Go::On, GROUP + 1),
        (AND, Go::On, Go::On, 0x0f),
        (ABOVE, Go::On, Go::Skip(4), 4),
        // the control socket receives MLD
        (BYTE, Go::On, Go::On, NEXT_HEADER),
        (EQUAL, Go::On, Go::Accept, 0),
        (BYTE, Go::On, Go::On, PAYLOAD),
        (EQUAL, Go::Refuse, Go::Accept, ICMPV6.into()),
        (BYTE, Go::On, Go::On, NEXT_HEADER),
        (EQUAL, Go::On, Go::Skip(4), UDP.into()),
        (HALF, Go::On, Go::On, PAYLOAD + 2),
        (EQUAL, Go::On, Go::Refuse, MDNS_PORT.into()),
        (CONSTANT, Go::On, Go::On, mdns),
        (EQUAL, Go::Accept, Go::Refuse, 1),
        (EQUAL, Go::On, Go::Refuse, ICMPV6.into()),
        (BYTE, Go::On, Go::On, PAYLOAD),
        (EQUAL, Go::On, Go::Refuse, ROUTER_SOLICITATION),
        (CONSTANT, Go::On, Go::On, solicitations),
        (EQUAL, Go::Accept, Go::Refuse, 1),
    ]
}

/// Target of a jump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Go {
    On,
    Skip(u8),
    Accept,
    Refuse,
}

/// Assembles a program; adds its two ends: accept, refuse.
fn assemble(program: &[Step]) -> Vec<SockFilter> {
    let end = program.len();
    let jump = |at: usize, go: Go| match go {
        Go::On => 0,
        Go::Skip(instructions) => instructions,
        // a filter has a few dozen instructions
        Go::Accept => (end - at - 1) as u8,
        Go::Refuse => (end - at) as u8,
    };
    let instruction = |(at, (code, holds, fails, k)): (usize, &Step)| {
        SockFilter::new(*code as u16, jump(at, *holds), jump(at, *fails), *k)
    };
    let mut filter: Vec<_> = program.iter().enumerate().map(instruction).collect();
    let give = (libc::BPF_RET | libc::BPF_K) as u16;
    filter.push(SockFilter::new(give, 0, 0, u32::MAX));
    filter.push(SockFilter::new(give, 0, 0, 0));
    filter
}

/// An Ethernet header.
pub fn ethernet(to: MacAddress, from: MacAddress, ethertype: u16) -> [u8; ETHERNET_LEN] {
    let mut header = [0; ETHERNET_LEN];
    header[..6].copy_from_slice(&to.0);
    header[6..12].copy_from_slice(&from.0);
    header[12..].copy_from_slice(&ethertype.to_be_bytes());
    header
}

/// Returns destination, source and type of an Ethernet header.
pub fn read_ethernet(header: &[u8]) -> Option<(MacAddress, MacAddress, u16)> {
    let (to, rest) = header.split_first_chunk()?;
    let (from, rest) = rest.split_first_chunk()?;
    let ethertype = u16::from_be_bytes(*rest.first_chunk()?);
    Some((MacAddress(*to), MacAddress(*from), ethertype))
}

/// Returns a host's question whether an address is free (RFC 5227 §2.1.1, RFC 4862 §5.4.2).
pub fn question(from: MacAddress, address: IpAddr) -> SegmentFrame {
    match address {
        IpAddr::V4(target) => SegmentFrame {
            source: from,
            destination: MacAddress::BROADCAST,
            ethertype: ETHERTYPE_ARP,
            payload: Arp::request(from, Ipv4Addr::UNSPECIFIED, target)
                .encode()
                .into(),
        },
        IpAddr::V6(target) => {
            let group = neighbor_discovery::solicited_node(target);
            let message = [&NEIGHBOR_SOLICITATION[..], &target.octets()].concat();
            let packet = ipv6::icmpv6_packet(Ipv6Addr::UNSPECIFIED, group, u8::MAX, &message);
            SegmentFrame {
                source: from,
                destination: MacAddress::of_group(group),
                ethertype: ETHERTYPE_IPV6,
                payload: packet.into(),
            }
        }
    }
}

/// Whether a packet is IPv4.
pub fn is_ipv4(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| first >> 4 == 4)
}

/// Returns the Ethernet address of a packet's group.
pub fn group(packet: &[u8]) -> Option<MacAddress> {
    if is_ipv4(packet) {
        let group = Ipv4Addr::from(*packet.get(16..20)?.first_chunk::<4>()?);
        return group
            .is_multicast()
            .then(|| MacAddress::of_ipv4_group(group));
    }
    let group = Ipv6Addr::from(*packet.get(24..40)?.first_chunk::<16>()?);
    group.is_multicast().then(|| MacAddress::of_group(group))
}

/// Whether an IPv6 packet is an MLD query, behind its Router Alert (RFC 9777 §5).
pub fn is_mld_query(packet: &[u8]) -> bool {
    let next_header = packet.get(6);
    let behind = packet.get(ipv6::HEADER_LEN..);
    next_header == Some(&0)
        && behind.is_some_and(|behind| {
            behind.first() == Some(&ICMPV6) && behind.get(8) == Some(&MLD_QUERY)
        })
}

/// Sets a packet's hop limit or TTL. The first 20 bytes of an IPv4 packet suffice.
pub fn set_hop_limit(packet: &mut [u8], hop_limit: u8) {
    if is_ipv4(packet) {
        ipv4::set_ttl(packet, hop_limit);
    } else if let Some(field) = packet.get_mut(HOP_LIMIT_AT) {
        *field = hop_limit;
    }
}

/// Returns an IPv6 packet to all nodes with a PROBE.
pub fn probe_packet(from: Ipv6Addr, probe: &[u8]) -> Vec<u8> {
    ipv6::udp_packet(from, ALL_NODES, (PROBE_PORT, u8::MAX), probe)
}

/// Returns the PROBE in an IPv6 packet, if it comes from a neighbour on the link.
pub fn probe_in(packet: &[u8]) -> Option<&[u8]> {
    let datagram = Datagram::of_packet(packet)?;
    let is_probe = datagram.hop_limit == u8::MAX && datagram.destination_port == PROBE_PORT;
    is_probe.then_some(datagram.data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use librecast::mld;

    const OWN: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
    const HOST: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);

    const PACKETS: Wanted = Wanted::Packets(Extra {
        mdns: false,
        solicitations: false,
        ipv4: false,
        segment: false,
    });

    /// Runs a filter as the kernel does, on packet type, VLAN tag, frame.
    fn passes(wanted: Wanted, kind: u8, tagged: bool, frame: &[u8]) -> bool {
        runs(&filter(wanted, OWN), (kind, tagged, 0), frame)
    }

    /// The same with a filter, and the packet's mark.
    fn runs(filter: &[SockFilter], (kind, tagged, mark): (u8, bool, u32), frame: &[u8]) -> bool {
        // SAFETY: a SockFilter is a transparent sock_filter, as its documentation says.
        let steps: Vec<libc::sock_filter> = filter
            .iter()
            .map(|f| unsafe { *std::ptr::from_ref(f).cast() })
            .collect();
        let load = |at: u32, size: usize| -> Option<u32> {
            let special = at.wrapping_sub(libc::SKF_AD_OFF as u32);
            if special == libc::SKF_AD_PKTTYPE as u32 {
                return Some(kind.into());
            }
            if special == libc::SKF_AD_VLAN_TAG_PRESENT as u32 {
                return Some(tagged.into());
            }
            if special == libc::SKF_AD_MARK as u32 {
                return Some(mark);
            }
            let bytes = frame.get(at as usize..at as usize + size)?;
            Some(bytes.iter().fold(0, |n, b| n << 8 | u32::from(*b)))
        };
        let (mut at, mut value) = (0, 0u32);
        loop {
            let step = &steps[at];
            at += 1;
            let size = match step.code {
                0x20 => 4,
                0x28 => 2,
                0x30 => 1,
                0x00 => {
                    value = step.k;
                    continue;
                }
                0x54 => {
                    value &= step.k;
                    continue;
                }
                0x15 | 0x25 => {
                    let holds = match step.code {
                        0x15 => value == step.k,
                        _ => value > step.k,
                    };
                    at += usize::from(if holds { step.jt } else { step.jf });
                    continue;
                }
                0x06 => return step.k > 0,
                other => panic!("{other:#x}"),
            };
            match load(step.k, size) {
                Some(loaded) => value = loaded,
                // the kernel refuses a read beyond the end
                None => return false,
            }
        }
    }

    fn frame(from: MacAddress, packet: &[u8]) -> Vec<u8> {
        let ethertype = match is_ipv4(packet) {
            true => ETHERTYPE_IPV4,
            false => ETHERTYPE_IPV6,
        };
        let to = group(packet).unwrap();
        [&ethernet(to, from, ethertype)[..], packet].concat()
    }

    #[test]
    fn ipv4_comes_in_by_sockets_of_its_own() {
        let multicast = libc::PACKET_MULTICAST;
        let host = Ipv4Addr::new(192, 168, 1, 9);
        let udp = |group: [u8; 4]| ipv4::udp_packet(host, group.into(), (5_004, 4), b"x");
        let all = [
            PACKETS,
            Wanted::Control,
            Wanted::Ipv4Packets,
            Wanted::Ipv4Control,
        ];
        let takers = |from: MacAddress, packet: &[u8], kind: u8, tagged: bool| {
            let frame = frame(from, packet);
            all.map(|wanted| passes(wanted, kind, tagged, &frame))
        };
        let nobody = [false; 4];
        for (group, ok) in [
            ([239, 1, 2, 3], true),
            ([224, 0, 1, 129], true),
            ([232, 0, 0, 1], true),
            ([224, 0, 0, 251], false),
        ] {
            let packet = udp(group);
            let taken = takers(HOST, &packet, multicast, false);
            assert_eq!(taken, [false, false, ok, false], "{group:?}");
            assert_eq!(takers(OWN, &packet, multicast, false), nobody);
            assert_eq!(takers(HOST, &packet, multicast, true), nobody, "a VLAN");
            assert_eq!(takers(HOST, &packet, libc::PACKET_OTHERHOST, false), nobody);
        }
        let group = librecast::mapped::name(Ipv4Addr::new(239, 1, 2, 3));
        let record = mld::Record::new(mld::RecordType::ChangeToExclude, group, vec![]);
        let report = librecast::igmp::report_packets(host, &[record], 1280).remove(0);
        let taken = takers(HOST, &report, multicast, false);
        assert_eq!(taken, [false, false, false, true]);
        let to = ethernet(MacAddress([1, 0, 0x5e, 1, 2, 3]), HOST, ETHERTYPE_IPV4);
        assert_eq!(frame(HOST, &udp([239, 1, 2, 3]))[..14], to);
    }

    #[test]
    fn packets_leave_with_hop_limit_1_and_a_right_checksum() {
        let (from, to) = (Ipv4Addr::new(10, 77, 1, 2), Ipv4Addr::new(239, 1, 2, 3));
        let mut packet = ipv4::udp_packet(from, to, (5_004, 32), b"x");
        set_hop_limit(&mut packet, 1);
        assert_eq!(packet, ipv4::udp_packet(from, to, (5_004, 1), b"x"));
        let mut packet = udp_to("ff1e::1");
        set_hop_limit(&mut packet, 9);
        assert_eq!(packet[7], 9);
    }

    fn udp_to(group: &str) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 8, UDP, 1];
        packet.extend([0x20; 16]);
        packet.extend(group.parse::<Ipv6Addr>().unwrap().octets());
        packet.extend([1, 2, 3, 4, 0, 8, 0, 0]);
        packet
    }

    #[test]
    fn packets_of_wide_scopes_and_nothing_else_come_in() {
        let multicast = libc::PACKET_MULTICAST;
        for (group, ok) in [
            ("ff1e::1", true),
            ("ff05::2", true),
            ("ff3e::8000:1", true),
            ("ff02::fb", false),
            ("ff01::1", false),
            ("ff04::1", false),
        ] {
            let frame = frame(HOST, &udp_to(group));
            assert_eq!(passes(PACKETS, multicast, false, &frame), ok, "{group}");
            assert!(!passes(PACKETS, libc::PACKET_OTHERHOST, false, &frame));
            assert!(!passes(PACKETS, multicast, true, &frame), "a VLAN");
            assert!(!passes(Wanted::Control, multicast, false, &frame));
        }
        let own = frame(OWN, &udp_to("ff1e::1"));
        assert!(!passes(PACKETS, multicast, false, &own));
        let similar = frame(MacAddress([2, 0, 0, 0, 9, 1]), &udp_to("ff1e::1"));
        assert!(passes(PACKETS, multicast, false, &similar));
        let mut ipv4 = frame(HOST, &udp_to("ff1e::1"));
        ipv4[12..14].copy_from_slice(&[8, 0]);
        assert!(!passes(PACKETS, multicast, false, &ipv4));
        for length in 0..38 {
            let short = &frame(HOST, &udp_to("ff1e::1"))[..length];
            assert!(!passes(PACKETS, multicast, false, short));
        }
    }

    #[test]
    fn mld_and_probes_come_in_by_the_other_socket() {
        let multicast = libc::PACKET_MULTICAST;
        let group: Ipv6Addr = "ff1e::1".parse().unwrap();
        let record = mld::Record::new(mld::RecordType::ChangeToExclude, group, vec![]);
        let from: Ipv6Addr = "fe80::9".parse().unwrap();
        let report = mld::report_packets(from, &[record], 1280).remove(0);
        let report = frame(HOST, &report);
        assert!(passes(Wanted::Control, multicast, false, &report));
        assert!(!passes(PACKETS, multicast, false, &report));
        let probe = probe_packet(from, b"probe");
        assert_eq!(probe_in(&probe), Some(&b"probe"[..]));
        let probe = frame(HOST, &probe);
        assert!(passes(Wanted::Control, multicast, false, &probe));
        assert!(!passes(PACKETS, multicast, false, &probe));
        let other = frame(HOST, &udp_to("ff02::1"));
        assert!(!passes(Wanted::Control, multicast, false, &other));
    }

    #[test]
    fn what_stays_on_the_link_comes_in_where_it_is_wanted() {
        let multicast = libc::PACKET_MULTICAST;
        let from: Ipv6Addr = "fe80::9".parse().unwrap();
        let group = |text: &str| text.parse::<Ipv6Addr>().unwrap();
        let udp = |port| ipv6::udp_packet(from, group("ff02::fb"), (port, 255), b"question");
        let icmp = |kind| ipv6::icmpv6_packet(from, group("ff02::2"), 255, &[kind, 0, 0, 0]);
        for (mdns, solicitations) in [(false, false), (true, false), (false, true)] {
            let extra = Extra {
                mdns,
                solicitations,
                ..Extra::default()
            };
            let comes_in = |packet: &[u8]| {
                let frame = frame(HOST, packet);
                assert!(!passes(Wanted::Control, multicast, false, &frame));
                passes(Wanted::Packets(extra), multicast, false, &frame)
            };
            assert_eq!(comes_in(&udp(5_353)), mdns);
            assert!(!comes_in(&udp(5_354)));
            assert_eq!(comes_in(&icmp(133)), solicitations);
            assert!(!comes_in(&icmp(134)));
            assert!(comes_in(&udp_to("ff1e::1")));
        }
    }

    const VIRTUAL_MAC: MacAddress = MacAddress([0x02, 0x6c, 0x63, 1, 2, 3]);
    const SEGMENT: [Wanted; 3] = [
        Wanted::SegmentIpv6(Some(VIRTUAL_MAC)),
        Wanted::SegmentIpv4(Some(VIRTUAL_MAC)),
        Wanted::Arp(Some(VIRTUAL_MAC)),
    ];

    fn to(mac: MacAddress, ethertype: u16, packet: &[u8]) -> Vec<u8> {
        [&ethernet(mac, HOST, ethertype)[..], packet].concat()
    }

    #[test]
    fn of_what_leaves_that_of_own_programs_for_the_segment_is_read() {
        let outgoing = libc::PACKET_OUTGOING;
        let broadcast = MacAddress([0xff; 6]);
        let serving = outgoing_filter(Some(VIRTUAL_MAC), OWN);
        for kind in [ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6] {
            let frame = |to, from| [&ethernet(to, from, kind)[..], &[0; 46]].concat();
            let leaves = |to, from| runs(&serving, (outgoing, false, 0), &frame(to, from));
            let group = MacAddress::of_group(ALL_NODES);
            for to in [VIRTUAL_MAC, broadcast, group] {
                assert!(leaves(to, OWN), "{kind:#x} {to}");
                assert!(!leaves(to, HOST) && !leaves(to, VIRTUAL_MAC));
                for other in [
                    (libc::PACKET_HOST, false, 0),
                    (outgoing, true, 0),
                    (outgoing, false, MARK),
                ] {
                    assert!(!runs(&serving, other, &frame(to, OWN)), "{other:?}");
                }
                let resting = outgoing_filter(None, OWN);
                assert!(!runs(&resting, (outgoing, false, 0), &frame(to, OWN)));
            }
            assert!(!leaves(HOST, OWN), "the LAN's own business");
        }
        let other = [&ethernet(broadcast, OWN, 0x0842)[..], &[0; 46]].concat();
        assert!(!runs(&serving, (outgoing, false, 0), &other));
    }

    #[test]
    fn a_segment_takes_in_what_hosts_send_to_its_virtual_address_and_to_all() {
        let ipv4 = |protocol: u8| {
            let mut packet = vec![0x45; 40];
            packet[9] = protocol;
            packet
        };
        let from: Ipv6Addr = "fe80::9".parse().unwrap();
        let ipv6 = ipv6::udp_packet(from, "fe80::7".parse().unwrap(), (80, 64), b"hello");
        let broadcast = MacAddress([0xff; 6]);
        let near = MacAddress([0x02, 0x6c, 0x63, 1, 2, 4]);
        let packets = [ipv6.clone(), ipv4(UDP), vec![0; 28]];
        for (wanted, packet) in SEGMENT.into_iter().zip(&packets) {
            let kind = wanted.ethertype();
            let comes = |mac, pkttype| passes(wanted, pkttype, false, &to(mac, kind, packet));
            assert!(comes(VIRTUAL_MAC, libc::PACKET_OTHERHOST), "{wanted:?}");
            assert!(comes(broadcast, libc::PACKET_BROADCAST), "{wanted:?}");
            assert!(!comes(near, libc::PACKET_OTHERHOST), "{wanted:?}");
            assert!(!comes(HOST, libc::PACKET_OTHERHOST), "{wanted:?}");
            let is_arp = matches!(wanted, Wanted::Arp(_));
            assert_eq!(comes(OWN, libc::PACKET_HOST), is_arp, "{wanted:?}");
            let mut tagged = to(VIRTUAL_MAC, kind, packet);
            assert!(!passes(wanted, libc::PACKET_OTHERHOST, true, &tagged));
            tagged[13] ^= 1;
            assert!(!passes(wanted, libc::PACKET_OTHERHOST, false, &tagged));
        }
        for wanted in [
            Wanted::SegmentIpv6(None),
            Wanted::SegmentIpv4(None),
            Wanted::Arp(None),
        ] {
            let frame = to(VIRTUAL_MAC, wanted.ethertype(), &packets[1]);
            assert!(!passes(wanted, libc::PACKET_OTHERHOST, false, &frame));
            let frame = to(broadcast, wanted.ethertype(), &packets[1]);
            assert!(passes(wanted, libc::PACKET_BROADCAST, false, &frame));
        }
        let multicast = |wanted: Wanted, packet: &[u8]| {
            let frame = to(
                group(packet).unwrap_or(broadcast),
                wanted.ethertype(),
                packet,
            );
            passes(wanted, libc::PACKET_MULTICAST, false, &frame)
        };
        let [segment_ipv6, segment_ipv4, _] = SEGMENT;
        assert!(multicast(segment_ipv6, &udp_to("ff02::fb")));
        assert!(multicast(segment_ipv6, &udp_to("ff1e::1")));
        assert!(!multicast(segment_ipv6, &probe_packet(from, b"probe")));
        let record = mld::Record::new(
            mld::RecordType::ChangeToExclude,
            "ff1e::1".parse().unwrap(),
            vec![],
        );
        let report = mld::report_packets(from, &[record], 1280).remove(0);
        assert!(!multicast(segment_ipv6, &report));
        assert!(multicast(segment_ipv4, &ipv4(UDP)));
        assert!(!multicast(segment_ipv4, &ipv4(librecast::ipv4::IGMP)));
        for (kind, comes) in [(136, true), (135, false), (128, false)] {
            let answer =
                ipv6::icmpv6_packet(from, "fe80::1".parse().unwrap(), 255, &[kind, 0, 0, 0]);
            let frame = to(OWN, ETHERTYPE_IPV6, &answer);
            assert_eq!(
                passes(segment_ipv6, libc::PACKET_HOST, false, &frame),
                comes
            );
        }
    }

    #[test]
    fn groups_of_wider_scopes_are_no_matter_of_a_segment() {
        let extra = |solicitations| Extra {
            solicitations,
            segment: true,
            ..Extra::default()
        };
        let is_of_segment = |extra: Extra, destination, ethertype, packet: &[u8]| {
            extra.is_of_segment(&SegmentFrame {
                source: HOST,
                destination,
                ethertype,
                payload: packet.to_vec().into(),
            })
        };
        let group = |text: &str| group(&udp_to(text)).unwrap();
        for (to, of_segment) in [
            ("ff02::fb", true),
            ("ff05::1", true),
            ("ff08::1", false),
            ("ff1e::1", false),
        ] {
            let found = is_of_segment(extra(false), group(to), ETHERTYPE_IPV6, &udp_to(to));
            assert_eq!(found, of_segment, "{to}");
        }
        assert!(is_of_segment(
            extra(false),
            VIRTUAL_MAC,
            ETHERTYPE_IPV6,
            &udp_to("fd00::1")
        ));
        assert!(is_of_segment(
            extra(false),
            VIRTUAL_MAC,
            ETHERTYPE_IPV4,
            &udp_to("ff1e::1")
        ));
        assert!(!is_of_segment(
            Extra::default(),
            group("ff02::fb"),
            ETHERTYPE_IPV6,
            &udp_to("ff02::fb")
        ));
        let to = "ff02::2".parse().unwrap();
        let solicitation =
            ipv6::icmpv6_packet("fe80::9".parse().unwrap(), to, 255, &[133, 0, 0, 0]);
        for advertises in [false, true] {
            let found = is_of_segment(
                extra(advertises),
                MacAddress::of_group(to),
                ETHERTYPE_IPV6,
                &solicitation,
            );
            assert_eq!(found, !advertises);
        }
    }

    #[test]
    fn frames_of_gateways_and_virtual_addresses_never_come_in() {
        let virtual_macs = [VIRTUAL_MAC, MacAddress([0x02, 0x6c, 0x63, 0xff, 0, 9]), OWN];
        let others = [
            Wanted::Control,
            PACKETS,
            Wanted::Ipv4Packets,
            Wanted::Ipv4Control,
        ];
        for wanted in SEGMENT.into_iter().chain(others) {
            for from in virtual_macs {
                for kind in [
                    libc::PACKET_BROADCAST,
                    libc::PACKET_MULTICAST,
                    libc::PACKET_OTHERHOST,
                ] {
                    let header = ethernet(VIRTUAL_MAC, from, wanted.ethertype());
                    let frame = [&header[..], &udp_to("ff1e::1")].concat();
                    let shows_rivals = matches!(wanted, Wanted::Arp(_)) && from != OWN;
                    let comes_in = passes(wanted, kind, false, &frame);
                    assert_eq!(comes_in, shows_rivals, "{wanted:?} {from}");
                }
            }
        }
        let similar = frame(MacAddress([0x02, 0x6c, 0x64, 0, 0, 1]), &udp_to("ff1e::1"));
        assert!(passes(PACKETS, libc::PACKET_MULTICAST, false, &similar));
    }

    #[test]
    fn a_probe_comes_from_the_link() {
        let from = "fe80::9".parse().unwrap();
        let mut packet = probe_packet(from, b"probe");
        set_hop_limit(&mut packet, 254);
        assert_eq!(probe_in(&packet), None);
        for length in 0..48 {
            assert_eq!(probe_in(&probe_packet(from, b"probe")[..length]), None);
        }
    }
}
