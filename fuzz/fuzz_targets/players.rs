//! Datagrams of groups for players, and requests of programs that send sound to Icecast.
#![no_main]
#![allow(dead_code)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lcradio_core::is_showable;
use libfuzzer_sys::fuzz_target;

// modules of programs, not of libraries
#[path = "../../lcradio/src/icecast_request.rs"]
mod icecast_request;
#[path = "../../web/server/src/players/payloads.rs"]
mod payloads;

use icecast_request::{MAX_HEAD, Request};
use payloads::Payloads;

fuzz_target!(init: lcroute_fuzz::seeds::write("players"), |data: &[u8]| {
    let (mut payloads, mut out, mut came) = (Payloads::default(), Vec::new(), 0);
    let mut now = Instant::now();
    for datagram in lcroute_fuzz::pieces(data) {
        let port = u16::from(datagram.len() % 7 == 0);
        let from = SocketAddr::from(([127, 0, 0, 1], port));
        now += Duration::from_millis(700);
        payloads.handle_datagram(from, datagram, now, &mut out);
        came += datagram.len();
        assert!(out.len() <= came, "nothing comes twice");
    }
    if let Ok(Some((request, length))) = icecast_request::read(data, b"hackme") {
        assert!(length <= data.len() && length <= MAX_HEAD);
        if let Request::Title(title) = request {
            assert!(is_showable(&title));
        }
    }
});
