//! MLD, versions 1 and 2: packets, and messages after an IPv6 header that a socket has removed.
#![no_main]

use std::net::Ipv6Addr;

use libfuzzer_sys::fuzz_target;
use librecast::mld;

fuzz_target!(init: lcroute_fuzz::seeds::write("mld"), |data: &[u8]| {
    let _ = mld::parse_packet(data);
    let source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    let _ = mld::parse_message(source, data);
    // with a corrected checksum
    for destination in [mld::ALL_MLDV2_ROUTERS, mld::ALL_NODES] {
        if data.len() < 48 {
            return;
        }
        let mut packet = data.to_vec();
        packet[24..40].copy_from_slice(&destination.octets());
        packet[42..44].fill(0);
        let from = Ipv6Addr::from(<[u8; 16]>::try_from(&packet[8..24]).unwrap());
        let sum = mld::icmpv6_checksum(from, destination, &packet[40..]);
        packet[42..44].copy_from_slice(&sum.to_be_bytes());
        let _ = mld::parse_packet(&packet);
    }
    if let [a, b, ..] = data {
        let code = u16::from_be_bytes([*a, *b]);
        let _ = mld::encode_max_response(mld::decode_max_response(code));
        let _ = mld::encode_interval(mld::decode_interval(*a));
    }
});
