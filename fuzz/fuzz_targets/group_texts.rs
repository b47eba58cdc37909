//! A private group's messages, files, presence, and texts of holding keys (`lch1`), from any bytes.
#![no_main]
#![allow(dead_code)]

use libfuzzer_sys::fuzz_target;
use librecast::plain::{is_name, quoted};
use librecast::text::{TextKind, encode};

// modules of a program, not of a library
#[path = "../../lcgroup/src/clocks.rs"]
mod clocks;
#[path = "../../lcgroup/src/content.rs"]
mod content;
#[path = "../../lcgroup/src/files.rs"]
mod files;
#[path = "../../lcgroup/src/hex.rs"]
mod hex;
#[path = "../../lcgroup/src/holding_key.rs"]
mod holding_key;
#[path = "../../lcgroup/src/stored_list.rs"]
mod stored_list;

use clocks::Shown;
use content::{Content, encode_bytes, encode_call, encode_changes, is_share_name};
use holding_key::HoldingKey;

fn check(data: &[u8]) {
    match Content::decode(data) {
        Content::Bytes(said) => assert!(data.ends_with(said)),
        Content::Files(files) => {
            assert_eq!(*files.encode(), data);
            assert!(is_share_name(&files.name) && is_name(&files.name));
            // one word: each quote within it follows a backslash, outside of quotes
            let word = quoted(&files.name);
            let inside = word[1..word.len() - 1].replace(r"'\''", "");
            assert!(!inside.contains('\''), "{word}");
        }
        Content::File(file) => assert!(files::is_file_name(&file.name)),
        Content::Call(call) => assert_eq!(*encode_call(&call), data),
        Content::Changes(changes) => {
            let again = encode_changes(&changes);
            assert_eq!(Content::decode(&again), Content::Changes(changes));
        }
    }
    assert_eq!(Content::decode(&encode_bytes(data)), Content::Bytes(data));
    if let Some(shown) = Shown::decode(data) {
        assert_eq!(shown.encode(), data);
    }
}

fuzz_target!(init: lcroute_fuzz::seeds::write("group_texts"), |data: &[u8]| {
    check(data);
    check(&[&[0, 1], data].concat());
    let texts = [
        String::from_utf8_lossy(data).into_owned(),
        encode(TextKind::HoldingKey, data).to_string(),
    ];
    for text in texts {
        if let Ok(key) = HoldingKey::decode(&text) {
            let again = HoldingKey::decode(&key.encode()).map_err(|_| "it was written");
            let again = again.unwrap();
            assert!(again.group == key.group && again.read_key == key.read_key);
        }
    }
});
