//! lcagent: envelopes, requests plain and sealed, certificates, answers, its own files.
#![no_main]

use lcagent::acknowledgement::Acknowledgement;
use lcagent::answer::Segment;
use lcagent::certificate::Certificate;
use lcagent::datagram::Kind;
use lcagent::pattern::Pattern;
use lcagent::record::Record;
use lcagent::replay::ReplayWindow;
use lcagent::request::Request;
use lcagent::selector::Selector;
use lcagent::shared_key::SharedKey;
use lcagent::{envelope, part, sealed};
use lcroute_fuzz::key;
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: lcroute_fuzz::seeds::write("lcagent"), |data: &[u8]| {
    let _ = (envelope::peek(data), envelope::unverified(data), envelope::is_genuine(data));
    let _ = Request::decode(data);
    let _ = sealed::open_request(data, &key(10).peer_id(), &key(11));
    let _ = (Certificate::decode(data), ReplayWindow::decode(data));
    if let Ok((kind, r)) = Kind::read(data) {
        let _ = Segment::decode(data, kind, r.clone());
        let _ = Acknowledgement::open(data, r.clone(), |_| Some(key(10).peer_id()));
        let _ = SharedKey::open(data, r.clone(), &key(10).peer_id());
        if let Ok(job) = part::job_of(r.clone()) {
            let _ = part::asked(&mut r.clone(), job);
        }
    }
    let mut stream = data;
    while let Ok(Some((length, _))) = Record::decode(stream) {
        assert!(length > 0, "a record takes room");
        stream = &stream[length..];
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = (text.parse::<Selector>(), text.parse::<Certificate>(), Pattern::parse(text));
    }
});
