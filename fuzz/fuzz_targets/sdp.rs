//! A browser's description of its end of a connection.
#![no_main]

use lcroute_web_node::sdp;
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: lcroute_fuzz::seeds::write("sdp"), |data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    if let Some(description) = sdp::description(&text) {
        assert!(description.candidates.len() <= 16);
        for candidate in &description.candidates {
            assert!(candidate.addr.port() != 0 && !candidate.addr.ip().is_unspecified());
        }
    }
});
