//! The kernel's `struct virtio_net_hdr` of a packet, and the packet: one, or many to be split.
#![no_main]

use lcroute::offload::{OFFLOAD_LEN, Offload};
use libfuzzer_sys::fuzz_target;

/// Link header of a TAP or a packet socket.
const ETHERNET: u16 = 14;
/// Datagrams that a program may put into one call.
const MOST: usize = 128;

fuzz_target!(init: lcroute_fuzz::seeds::write("offload"), |data: &[u8]| {
    let Some((header, packet)) = data.split_first_chunk::<OFFLOAD_LEN>() else {
        return;
    };
    for link_header in [0, ETHERNET] {
        let Ok(offload) = Offload::decode(*header, link_header) else {
            continue;
        };
        let (mut packets, mut bytes) = (0, 0);
        let mut whole = packet.to_vec();
        let unpacked = offload.unpack(&mut whole, &mut |parts| {
            packets += 1;
            bytes += parts.iter().map(|part| part.len()).sum::<usize>();
        });
        assert!(packets <= MOST && bytes <= MOST * packet.len().max(1));
        assert!(unpacked.is_ok() || packets == 0, "half of a bad one was given away");
    }
});
