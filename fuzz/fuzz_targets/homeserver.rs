//! Answers of a Matrix homeserver, and lcroute-reach's lines to the daemon: any bytes, and events
//! in a room with the input as content. Requests stay bounded, and only records of nodes pass.
#![no_main]
#![allow(dead_code)]

use std::time::{Duration, Instant};

use lcroute_fuzz::{TODAY, pieces};
use libfuzzer_sys::fuzz_target;
use librecast::time::UnixTime;
use librecast::reach::{Base58, FromReach, Keep, MAX_VALUE, Meeting, ToReach, Value};
use serde_json::json;

// modules of a program, not of a library
#[path = "../../lcroute/reach/src/matrix/answers.rs"]
mod answers;
#[path = "../../lcroute/reach/src/matrix/session.rs"]
mod session;

use session::{Answer, Call, Session};

/// Longest path of a request: twice a place to continue at, with three bytes for each of its bytes.
const MAX_PATH: usize = 32_768;
/// Longest event: records of 32 nodes.
const MAX_BODY: usize = 65_536;

fn meeting() -> Meeting {
    Meeting {
        homeserver: "https://a.example".into(),
        room: "#lc:b.example".parse().unwrap(),
        user: None,
        token: "syt".parse().unwrap(),
        keep: Some(Keep {
            name: Base58([1; 32]),
            value: Value(vec![1; 256]),
            until: TODAY + 86_400,
        }),
        round: 0,
    }
}

/// Returns a valid answer to this request, with the input's bytes somewhere in it.
fn plausible(call: Call, how: u8, bytes: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(bytes);
    let content = serde_json::from_slice(bytes).unwrap_or_else(|_| json!({ "records": {} }));
    let answer = match call {
        Call::WhoAmI => json!({ "user_id": format!("@{text}") }),
        Call::Join => json!({ "room_id": format!("!{text}") }),
        Call::Put => json!({}),
        Call::Sync => {
            let sender = ["@me:a", "@you:a", "@them:b"][usize::from(how) % 3];
            let event = json!({ "type": answers::EVENT, "sender": sender, "state_key": sender, "content": content });
            let room = json!({ "timeline": { "events": [event] } });
            json!({ "next_batch": "s", "rooms": { "join": { "!r:b": room } } })
        }
    };
    answer.to_string().into_bytes()
}

fuzz_target!(init: lcroute_fuzz::seeds::write("homeserver"), |data: &[u8]| {
    for line in [data, data.get(1..).unwrap_or_default()] {
        if let Ok(line) = serde_json::from_slice::<FromReach>(line) {
            let written = serde_json::to_vec(&line).unwrap();
            assert_eq!(serde_json::from_slice::<FromReach>(&written).unwrap(), line);
        }
        let _ = serde_json::from_slice::<ToReach>(line);
    }
    let (mut now, mut session) = (Instant::now(), Session::new(meeting(), Instant::now()));
    let mut is_known = false;
    for piece in pieces(data).take(32) {
        let Some(([how, status, wait], bytes)) = piece.split_first_chunk() else {
            continue;
        };
        now += Duration::from_secs(u64::from(*wait) * 4);
        let time = UnixTime::from_secs(TODAY + u64::from(*wait));
        while let Some(request) = session.poll_request(now, time) {
            assert!(request.path.len() < MAX_PATH && request.path.bytes().all(|b| b.is_ascii_graphic()));
            assert!(request.body.as_ref().is_none_or(|body| body.len() <= MAX_BODY));
            // in the room at once, to reach more states
            let body = match (request.call, how & 1, is_known) {
                (Call::WhoAmI, 0, _) | (Call::WhoAmI, _, false) => br#"{"user_id":"@me:a"}"#.to_vec(),
                (Call::Join, 0, _) | (Call::Join, _, false) => br#"{"room_id":"!r:b"}"#.to_vec(),
                (Call::Sync, 0, _) | (Call::Put, 0, _) => plausible(request.call, how >> 1, bytes),
                (call, _, _) if how & 2 == 0 => plausible(call, how >> 2, bytes),
                _ => bytes.to_vec(),
            };
            is_known |= request.call == Call::Join;
            let answer = match status {
                0..200 => Ok(Answer { status: 200, body, ..Answer::default() }),
                200..=240 => Ok(Answer {
                    status: [400, 401, 403, 404, 429, 500][usize::from(*status) % 6],
                    retry_after: (how & 4 == 0).then_some(u64::from(*how) << 50),
                    date: (how & 8 == 0).then_some(u64::from(*wait) << 56),
                    body,
                }),
                _ => Err("the homeserver does not answer in time".into()),
            };
            for line in session.handle(&request, answer, now, time) {
                let FromReach::Kept { account, value, .. } = line else {
                    panic!("{line:?}");
                };
                assert!(account.starts_with('@') && value.0.len() <= MAX_VALUE);
            }
            assert!(session.state(time).values <= 4_096);
        }
    }
});
