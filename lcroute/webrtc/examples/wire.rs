//! Describes STUN and DTLS of a capture: `wire < FILE.pcap`, from `tcpdump -w FILE.pcap udp` on an
//! Ethernet device or `lo`. It printed the references of the test `wire` (`src/tests/wire/*.txt`).

#[path = "../src/tests/wire/describe.rs"]
mod describe;

use std::io::{Read, stdin};

use anyhow::{Context, Result, ensure};

/// Bytes of a capture's header, and of each packet's.
const FILE_HEADER: usize = 24;
const PACKET_HEADER: usize = 16;
const ETHERNET: usize = 14;

fn main() -> Result<()> {
    let mut capture = Vec::new();
    stdin().read_to_end(&mut capture)?;
    ensure!(
        capture.starts_with(&[0xd4, 0xc3, 0xb2, 0xa1]),
        "no capture of a host with the least byte first"
    );
    let mut rest = capture.get(FILE_HEADER..).context("a header")?;
    let mut observer = describe::Observer::default();
    while let Some((header, more)) = rest.split_at_checked(PACKET_HEADER) {
        let length = u32::from_le_bytes(header[8..12].try_into()?);
        let (packet, more) = more
            .split_at_checked(usize::try_from(length)?)
            .context("the capture ends within a packet")?;
        rest = more;
        if let Some((port, datagram)) = udp(packet) {
            observer.see(usize::from(port), datagram);
        }
    }
    for line in observer.lines() {
        println!("{line}");
    }
    Ok(())
}

/// Returns source port and contents of UDP over IPv4 or IPv6.
fn udp(frame: &[u8]) -> Option<(u16, &[u8])> {
    let packet = frame.get(ETHERNET..)?;
    let header = match frame.get(12..ETHERNET)? {
        [0x08, 0x00] if packet.get(9) == Some(&17) => usize::from(packet[0] & 15) * 4,
        [0x86, 0xdd] if packet.get(6) == Some(&17) => 40,
        _ => return None,
    };
    let udp = packet.get(header..)?;
    Some((
        u16::from_be_bytes([*udp.first()?, *udp.get(1)?]),
        udp.get(8..)?,
    ))
}
