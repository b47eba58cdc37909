//! Packets for tests.

use bytes::Bytes;
use librecast::mld::checksum;

use super::coalesce::{headers, headers_len};
use super::offload::Offload;

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
    let mut packet = headers(&run).to_vec();
    for datagram in &run {
        packet.extend(&datagram[headers_len(datagram)..]);
    }
    let headers = headers_len(&run[0]);
    let segment = (run[0].len() - headers) as u16;
    (Offload::of_datagrams(headers, segment), packet)
}

fn sum(packet: &[u8]) -> u16 {
    let address = |at: usize| <[u8; 16]>::try_from(&packet[at..at + 16]).unwrap().into();
    checksum(17, address(8), address(24), &packet[40..])
}
