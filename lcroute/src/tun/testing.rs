//! Packets for tests.

use bytes::Bytes;
use librecast::checksum::Sum;
use librecast::mld::checksum;

use super::coalesce::headers;
use super::offload::Offload;
use super::tcp::TCP;

/// A UDP packet to a group, with its checksum.
pub(super) fn udp_packet(payload: &[u8]) -> Vec<u8> {
    datagram(5001, payload)
}

/// A UDP packet of the flow with this source port.
pub(super) fn datagram(port: u16, payload: &[u8]) -> Vec<u8> {
    let length = (8 + payload.len()) as u16;
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([17, 1]);
    packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    packet.extend([0xff, 0x1e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    packet.extend(
        [port, 5001, length, 0]
            .into_iter()
            .flat_map(u16::to_be_bytes),
    );
    packet.extend(payload);
    set_checksum(&mut packet);
    packet
}

/// A segment of TCP with 12 bytes of options, with its checksums.
pub(super) fn tcp_packet(
    is_ipv4: bool,
    sequence: u32,
    flags: u8,
    identification: u16,
    payload: &[u8],
) -> Vec<u8> {
    let length = 32 + payload.len() as u16;
    let mut packet = match is_ipv4 {
        true => [
            &[0x45, 0][..],
            &(20 + length).to_be_bytes(),
            &identification.to_be_bytes(),
            &[0x40, 0, 64, TCP, 0, 0, 192, 168, 1, 20, 192, 168, 1, 30],
        ]
        .concat(),
        false => {
            let mut packet = [&[0x60, 0, 0, 0][..], &length.to_be_bytes(), &[TCP, 64]].concat();
            packet.extend((0..32).map(|n| n * 7));
            packet
        }
    };
    let tcp = packet.len();
    packet.extend([0x30, 0x39, 0x1f, 0x90]);
    packet.extend(sequence.to_be_bytes());
    packet.extend([1, 2, 3, 4, 0x80, flags, 0xff, 0xff, 0, 0, 0, 0]);
    packet.extend([1, 1, 8, 10, 9, 9, 9, 9, 8, 8, 8, 8]);
    packet.extend(payload);
    if is_ipv4 {
        let sum = !Sum::default().bytes(&packet[..20]).fold();
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    set_tcp_checksum(&mut packet, tcp);
    packet
}

/// Writes the correct checksum of a segment with its header at `tcp`.
pub(super) fn set_tcp_checksum(packet: &mut [u8], tcp: usize) {
    packet[tcp + 16..tcp + 18].fill(0);
    let addresses = if tcp == 20 { 12..20 } else { 8..40 };
    let sum = Sum::default()
        .bytes(&packet[addresses])
        .word(TCP.into())
        .word((packet.len() - tcp) as u16);
    let sum = !sum.bytes(&packet[tcp..]).fold();
    packet[tcp + 16..tcp + 18].copy_from_slice(&sum.to_be_bytes());
}

/// Writes a UDP packet's correct checksum.
pub(super) fn set_checksum(packet: &mut [u8]) {
    packet[46..48].fill(0);
    let sum = match sum(packet) {
        0 => 0xffff,
        sum => sum,
    };
    packet[46..48].copy_from_slice(&sum.to_be_bytes());
}

/// Whether a UDP packet's checksum is correct.
pub(super) fn is_right(packet: &[u8]) -> bool {
    sum(packet) == 0
}

/// The super-packet of a run.
pub(super) fn super_packet(run: &[&[u8]]) -> (Offload, Vec<u8>) {
    let run: Vec<Bytes> = run.iter().map(|p| Bytes::copy_from_slice(p)).collect();
    let (headers, shape) = headers(&run).expect("a run");
    let mut packet = headers.to_vec();
    for datagram in &run {
        packet.extend(&datagram[headers.len()..]);
    }
    let segment = (run[0].len() - headers.len()) as u16;
    (shape.offload(segment), packet)
}

fn sum(packet: &[u8]) -> u16 {
    let address = |at: usize| <[u8; 16]>::try_from(&packet[at..at + 16]).unwrap().into();
    checksum(17, address(8), address(24), &packet[40..])
}
