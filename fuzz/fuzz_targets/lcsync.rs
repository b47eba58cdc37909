//! lcsync: packets, plain and sealed, records, hash nodes, listings, symbols of any length.
#![no_main]

use std::time::Instant;

use lcroute_fuzz::pieces;
use lcsync::opener::Opener;
use lcsync::{listing, packet, tree};
use libfuzzer_sys::fuzz_target;
use librecast::coding::Decoder;

fuzz_target!(init: lcroute_fuzz::seeds::write("lcsync"), |data: &[u8]| {
    let _ = packet::decode(data);
    let _ = tree::Root::decode(data);
    let _ = listing::decode(data, 10_000);
    let _ = listing::decode_metadata(data, 10_000);
    let _ = Opener::new(None).open(7, data, Instant::now());
    let Some(([kind, a, b, c], data)) = data.split_first_chunk() else {
        return;
    };
    let number = u32::from_be_bytes([0, *a, *b, *c]);
    let _ = tree::decode_node(data, kind % 8, number.into());
    // a block of up to 64 KiB, from symbols of any number and length
    let Ok(mut decoder) = Decoder::new((number % 65_536) as usize) else {
        return;
    };
    for piece in pieces(data).take(64) {
        let Some((esi, symbol)) = piece.split_first_chunk() else {
            continue;
        };
        // bit 31: of the right length
        let esi = u32::from_be_bytes(*esi);
        let mut symbol = symbol.to_vec();
        if esi >> 31 == 1 {
            symbol.resize(librecast::coding::SYMBOL_SIZE, 7);
        }
        let _ = decoder.receive(esi & 0xff_ffff, &symbol);
    }
});
