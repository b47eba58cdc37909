//! What both sides say at the beginning of a stream: any bytes as a hello and as an answer.
#![no_main]
#![allow(dead_code)]

use libfuzzer_sys::fuzz_target;
use librecast::plain::is_name;

// a program's own module: nobody else may use it
#[path = "../../lcroute/streams/src/agreement.rs"]
mod agreement;

use agreement::{Answer, Hello, LENGTH_LEN, MAX_MESSAGE};

fuzz_target!(init: lcroute_fuzz::seeds::write("streams"), |data: &[u8]| {
    let mut names = Vec::new();
    if let Ok(hello) = Hello::decode(data) {
        let written = hello.encode().split_off(LENGTH_LEN);
        assert!(written == data && written.len() <= MAX_MESSAGE, "{hello:?}");
        names.extend(hello.protocols);
    }
    if let Ok(answer) = Answer::decode(data) {
        assert_eq!(answer.encode().split_off(LENGTH_LEN), data);
        if let Answer::NoneCommon(protocols) = answer {
            names.extend(protocols);
        }
    }
    for name in names {
        assert!(is_name(name.as_str()), "{name:?}");
    }
});
