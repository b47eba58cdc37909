//! The first messages of both sides of a stream: any bytes as hello and answer; and frames.
#![no_main]
#![allow(dead_code)]

use libfuzzer_sys::fuzz_target;
use librecast::plain::is_name;

// a module of a program, not of a library
#[path = "../../lcroute/streams/src/agreement.rs"]
mod agreement;

#[path = "../../lcroute/streams/src/framing.rs"]
mod framing;

use agreement::{Answer, Hello, LENGTH_LEN, MAX_MESSAGE};
use framing::{Frames, Piece};

/// Returns bytes and ends of frames in chunks of this length.
fn pieces(data: &[u8], length: usize) -> (Vec<u8>, usize, bool) {
    let (mut frames, mut bytes, mut ends) = (Frames::default(), Vec::new(), 0);
    for mut chunk in data.chunks(length) {
        loop {
            match frames.next(&mut chunk) {
                Ok(Some(Piece::Bytes(piece))) => bytes.extend_from_slice(piece),
                Ok(Some(Piece::End(_))) => ends += 1,
                Ok(None) => break,
                Err(_) => return (bytes, ends, false),
            }
        }
    }
    (bytes, ends, true)
}

fuzz_target!(init: lcroute_fuzz::seeds::write("streams"), |data: &[u8]| {
    assert_eq!(pieces(data, 1), pieces(data, data.len().max(1)));
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
