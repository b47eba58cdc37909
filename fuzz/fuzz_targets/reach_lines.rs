//! Lines to the daemon from a hostile lcroute-reach: any, and about keys of the plan.
#![no_main]
#![allow(dead_code)]

use std::collections::BTreeSet;

use lcroute_overlay::{CarrierKind, MAX_RECORD};
use libfuzzer_sys::fuzz_target;
use librecast::plain::is_plain;
use librecast::reach::{Base58, FromReach, Value};

// a module of the daemon, not of a library
#[path = "../../lcroute/signalling/src/reach_line.rs"]
mod reach_line;

use reach_line::{Said, read};

fn check(line: &[u8], has_room: bool) {
    let asked: BTreeSet<_> = (1..=4).map(|n| Base58([n; 32])).collect();
    let Ok(Some(said)) = read(line, &asked, has_room) else {
        return;
    };
    let texts: Vec<String> = match said {
        Said::Record { kind, name, sealed } => {
            assert!(sealed.len() <= MAX_RECORD);
            match kind {
                CarrierKind::Dht => assert!(asked.iter().any(|key| key.to_string() == name)),
                _ => assert!(has_room && kind == CarrierKind::Matrix),
            }
            Vec::new()
        }
        Said::Dht(state) => state.dropped.into_keys().collect(),
        Said::Room(state) => state.dropped.into_keys().chain(state.problem).collect(),
    };
    assert!(texts.len() <= 17);
    for text in texts {
        let shown = text.replace('\t', "");
        assert!(is_plain(&shown), "{text:?}");
    }
}

fuzz_target!(init: lcroute_fuzz::seeds::write("reach_lines"), |data: &[u8]| {
    for has_room in [false, true] {
        check(data, has_room);
    }
    let Some((n, value)) = data.split_first() else {
        return;
    };
    let key = Base58([n % 6; 32]);
    let value = Value(value.to_vec());
    let account = String::from_utf8_lossy(&value.0).into_owned();
    let lines = [
        FromReach::Seen { key, value: value.clone() },
        FromReach::Kept { account, name: key, value },
    ];
    for line in lines {
        check(&serde_json::to_vec(&line).expect("a line is JSON"), n % 2 == 0);
    }
});
