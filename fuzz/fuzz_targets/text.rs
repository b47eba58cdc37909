//! Texts that people pass on, in mails and chats: decoding and encoding are inverse.
#![no_main]

use lcroute_control::text;
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: lcroute_fuzz::seeds::write("text"), |data: &[u8]| {
    if let Ok(records) = text::read(data) {
        assert!(records.len() <= text::MAX_RECORDS);
        let written = records.iter().map(|record| text::write(record, &[]));
        assert_eq!(text::read(written.collect::<String>().as_bytes()).as_ref(), Ok(&records));
    }
    if data.len() <= text::MAX_RECORD {
        assert_eq!(text::read(text::line(data).as_bytes()), Ok(vec![data.to_vec()]));
    }
});
