//! Datagrams of programs. The payload begins with the packet's number.

use std::net::Ipv6Addr;

/// Bytes of both headers (RFC 8200 §3, RFC 768).
const HEADERS_LEN: usize = 48;
/// Bytes of the number at the begin of a payload.
const NUMBER_LEN: usize = 8;

/// Makes a UDP datagram with hop limit 1, as most programs send; `bytes` is its payload.
pub fn datagram(source: Ipv6Addr, to: Ipv6Addr, number: u64, bytes: u16) -> Vec<u8> {
    let payload = usize::from(bytes).clamp(NUMBER_LEN, 1_100);
    let len = (payload + 8) as u16;
    let mut packet = Vec::with_capacity(HEADERS_LEN + payload);
    packet.extend([0x60, 0, 0, 0]);
    packet.extend(len.to_be_bytes());
    packet.extend([17, 1]);
    packet.extend(source.octets());
    packet.extend(to.octets());
    packet.extend([0x37, 0xa4, 0x37, 0xa4]);
    packet.extend(len.to_be_bytes());
    packet.extend([0xab, 0xcd]);
    packet.extend(number.to_be_bytes());
    packet.resize(HEADERS_LEN + payload, 0);
    packet
}

/// Fields of a packet that identify it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    pub source: Ipv6Addr,
    pub to: Ipv6Addr,
    pub number: u64,
}

fn address(packet: &[u8], at: usize) -> Option<Ipv6Addr> {
    let bytes: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
    Some(bytes.into())
}

pub fn label(packet: &[u8]) -> Option<Label> {
    let number = packet.get(HEADERS_LEN..HEADERS_LEN + NUMBER_LEN)?;
    Some(Label {
        source: address(packet, 8)?,
        to: address(packet, 24)?,
        number: u64::from_be_bytes(number.try_into().ok()?),
    })
}

/// Returns the number of a packet.
pub fn number(packet: &[u8]) -> Option<u64> {
    label(packet).map(|l| l.number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_tells_its_label() {
        let (source, to) = ("fd00::1".parse().unwrap(), "ff1e::1".parse().unwrap());
        let packet = datagram(source, to, 77, 100);
        assert_eq!(packet.len(), 148);
        let expected = Label {
            source,
            to,
            number: 77,
        };
        assert_eq!(label(&packet), Some(expected));
        assert_eq!(number(&packet), Some(77));
        assert_eq!(label(&packet[..50]), None);
    }
}
