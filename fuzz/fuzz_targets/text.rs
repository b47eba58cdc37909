//! Texts that people pass on, in mails, chats and by word, and beacons: decoding and encoding are
//! inverse.
#![no_main]

use lcroute_control::text;
use libfuzzer_sys::fuzz_target;
use librecast::code::Code;
use librecast::code::beacon::Beacon;

fuzz_target!(init: lcroute_fuzz::seeds::write("text"), |data: &[u8]| {
    if let Ok(records) = text::read(data) {
        assert!(records.len() <= text::MAX_RECORDS);
        let written = records.iter().map(|record| text::write(record, &[]));
        assert_eq!(text::read(written.collect::<String>().as_bytes()).as_ref(), Ok(&records));
    }
    if let Ok(code) = String::from_utf8_lossy(data).parse::<Code>() {
        assert_eq!(code.encode().parse(), Ok(code));
    }
    if let Ok(beacon) = Beacon::decode(data) {
        assert_eq!(beacon.encode().unwrap(), data);
    }
    if data.len() <= text::MAX_RECORD {
        assert_eq!(text::read(text::line(data).as_bytes()), Ok(vec![data.to_vec()]));
    }
});
