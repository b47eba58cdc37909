//! IGMP of all versions, and IPv4 packets: as from an interface, and with corrected checksums.
#![no_main]

use libfuzzer_sys::fuzz_target;
use librecast::checksum::Sum;
use librecast::ipv4::Header;
use librecast::mld::Message;
use librecast::{igmp, mapped};

fuzz_target!(init: lcroute_fuzz::seeds::write("igmp"), |data: &[u8]| {
    read(data);
    let mut packet = data.to_vec();
    let Some(first) = packet.first() else {
        return;
    };
    let header = usize::from(first & 0x0f) * 4;
    if header < 20 || packet.len() < header + 8 {
        return;
    }
    let message = &mut packet[header..];
    message[2..4].fill(0);
    let sum = !Sum::default().bytes(message).fold();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let total = packet.len().min(65_535) as u16;
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    packet[10..12].fill(0);
    let sum = !Sum::default().bytes(&packet[..header]).fold();
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    read(&packet);
});

fn read(packet: &[u8]) {
    if let Ok(header) = Header::read(packet) {
        let _ = (header.is_source_routed(), header.has_router_alert());
    }
    let Ok((source, message)) = igmp::parse_packet(packet) else {
        return;
    };
    let source = mapped::ipv4(source).expect("the name of an address");
    // decoding, encoding and decoding again gives the same
    match message {
        Message::Query(query) => {
            let said = igmp::query_packet(source, &query).expect("of an IPv4 group");
            let (_, again) = igmp::parse_packet(&said).expect("well-formed");
            assert!(query.version_1 || query.truncated || again == Message::Query(query));
        }
        Message::Report(records) => {
            let said = igmp::report_packets(source, &records, 1_280);
            assert!(said.iter().all(|packet| igmp::parse_packet(packet).is_ok()));
        }
        Message::ReportV1 { group } | Message::DoneV1 { group } => {
            assert!(mapped::is_group_name(group));
        }
    }
}
