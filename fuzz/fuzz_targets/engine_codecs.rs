//! Control messages, CARRY, data headers and classes of packets.
#![no_main]

use bytes::Bytes;
use lcroute_engine::classify::{CarriedScopes, flow_of, trim};
use lcroute_engine::{carry, control, header};
use librecast::id::OriginId;
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: lcroute_fuzz::seeds::write("engine_codecs"), |data: &[u8]| {
    if let Ok(elements) = control::decode(data) {
        for message in control::encode(&elements) {
            assert!(control::decode(&message).is_ok(), "what we write can be read");
        }
    }
    let _ = header::DataHeader::decode(data);
    let _ = carry::decode_answer(data);
    if let Ok(received) = carry::Received::decode(data) {
        let carrier = OriginId(7);
        let (again, _) = received.request.encode(carrier, |_| received.signature);
        let again = carry::Received::decode(&again).expect("our own CARRY can be read");
        assert_eq!(again.request, received.request);
        assert_eq!(again.signed(carrier), received.signed(carrier));
    }
    let scopes = CarriedScopes::new(&["ff02::fb".parse().unwrap()], true);
    let class = scopes.classify(data);
    let mut packet = Bytes::copy_from_slice(data);
    trim(&mut packet);
    assert_eq!(scopes.classify(&packet), class, "bytes behind a packet do not count");
    let _ = flow_of(data);
});
