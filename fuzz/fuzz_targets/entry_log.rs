//! Packets of the entry log, grants, and records on disk: decoding and encoding are inverse.
#![no_main]

use libfuzzer_sys::fuzz_target;
use librecast_log::{Entry, Grant, Stored, decode};

fuzz_target!(init: lcroute_fuzz::seeds::write("entry_log"), |data: &[u8]| {
    if let Ok(entry) = Entry::decode(data) {
        assert_eq!(entry.encode().as_deref(), Ok(data));
    }
    if let Ok(grants) = Grant::decode(data) {
        assert_eq!(Grant::encode(&grants), data);
    }
    if let Ok(stored) = Stored::decode(data) {
        let again = stored.encode().expect("it was read");
        assert_eq!(Stored::decode(&again), Ok(stored));
    }
    let _ = decode(data);
});
