//! Answers of a router, or a forger, to port mapping: searches, HTTP, descriptions, SOAP.
#![no_main]

use std::net::Ipv4Addr;

use lcroute_mapping::{http, upnp};
use libfuzzer_sys::fuzz_target;

const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const FOUND: &[u8] = b"HTTP/1.1 200 OK\r\nLOCATION: http://192.0.2.1:5000/rootDesc.xml\r\n\r\n";

fuzz_target!(init: lcroute_fuzz::seeds::write("port_mapping"), |data: &[u8]| {
    let Some((how, data)) = data.split_first() else {
        return;
    };
    let place = match how & 1 {
        0 => upnp::location(data, ROUTER),
        _ => upnp::location(FOUND, ROUTER),
    };
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let whole = match how & 2 {
        0 => data.to_vec(),
        _ => [chunked, data].concat(),
    };
    // an answer that a part gives, the whole gives too
    let early = http::parse(&whole[..whole.len() / 2], false).ok().flatten();
    let answer = http::parse(&whole, true).ok().flatten();
    if early.is_some() {
        assert_eq!(early, answer);
    }
    let body = answer.map_or_else(|| String::from_utf8_lossy(data).into_owned(), |answer| answer.body);
    let _ = upnp::element(&body, "NewExternalIPAddress");
    let Some(place) = place else {
        return;
    };
    for service in upnp::services(&body, &place) {
        assert_eq!(*service.at.ip(), ROUTER, "nobody else is asked");
        assert!(service.path.starts_with('/') && service.path.bytes().all(|b| b.is_ascii_graphic()));
    }
});
