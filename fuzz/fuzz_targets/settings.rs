//! Configuration in TOML, lines of the control socket, sizes and times in users' notation.
#![no_main]

use libfuzzer_sys::fuzz_target;
use librecast_program::units::{parse_duration, parse_rate, parse_size};

fuzz_target!(init: lcroute_fuzz::seeds::write("settings"), |data: &[u8]| {
    let _ = serde_json::from_slice::<lcroute_control::Request>(data);
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let _ = lcroute_control::config::Config::parse("lcroute.toml", text);
    let _ = lcagent::agent::config::Config::parse("lcagent.toml", text);
    let _ = (parse_size(text), parse_rate(text), parse_duration(text));
});
