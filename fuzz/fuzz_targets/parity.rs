//! Parity of packets: any loss, and parities that are none.
#![no_main]

use librecast::parity::{MAX_PACKETS, parity, restore};
use libfuzzer_sys::fuzz_target;

// count of sources 1 | length 1 | losses and parities 16 | bytes
fuzz_target!(init: lcroute_fuzz::seeds::write("parity"), |data: &[u8]| {
    let Some(([count, size, map @ ..], bytes)) = data.split_first_chunk::<18>() else {
        return;
    };
    let (count, size) = (usize::from(*count), usize::from(*size));
    let source = |at: usize| -> Vec<u8> {
        (0..size).map(|n| bytes.get(at * size + n).copied().unwrap_or(at as u8)).collect()
    };
    let is_set = |at: usize| map[at / 8 % map.len()] >> (at % 8) & 1 == 1;
    let sources: Vec<Vec<u8>> = (0..count).map(source).collect();
    let made = (0..=255_u8).filter(|number| is_set(usize::from(*number)));
    let made = made.filter_map(|number| Some((number, parity(number, sources.iter().map(Vec::as_slice))?)));
    let made: Vec<(u8, Vec<u8>)> = made.collect();
    let given: Vec<(u8, &[u8])> = made.iter().map(|(number, bytes)| (*number, &bytes[..])).collect();
    let came = sources.iter().enumerate().map(|(at, one)| (!is_set(at)).then(|| one.clone()));
    let mut came: Vec<Option<Vec<u8>>> = came.collect();
    let missing = came.iter().filter(|one| one.is_none()).count();
    let is_restored = restore(&mut came, &given, size);
    if count <= MAX_PACKETS && size > 0 {
        assert_eq!(is_restored, missing <= given.len());
    }
    if is_restored {
        assert!(came.into_iter().flatten().eq(sources));
    }
    // others
    let mut came: Vec<Option<Vec<u8>>> = (0..count).map(|at| is_set(at).then(|| source(at))).collect();
    let lies: Vec<(u8, &[u8])> = bytes.chunks(size.max(1)).map(|one| (one[0], one)).collect();
    let _ = restore(&mut came, &lies, size);
});
