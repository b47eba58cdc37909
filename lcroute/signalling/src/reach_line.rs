//! Validation of lcroute-reach's lines, without I/O. A compromised program can send any line.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use lcroute_overlay::{CarrierKind, MAX_RECORD};
use librecast::plain::clean;
use librecast::reach::{FromReach, Key, MAX_NAME, RoomState, State};

/// Maximum number of reasons for drops that are shown. Chosen: twice the existing ones.
const MAX_REASONS: usize = 16;
/// Maximum length of a shown text, in characters. Chosen: two lines of a terminal.
pub const MAX_TEXT: usize = 200;

/// A valid line.
#[derive(Debug)]
pub enum Said {
    /// A presence record of unknown origin.
    Record {
        /// The kind of its carrier.
        kind: CarrierKind,
        /// Its name among records of its kind.
        name: String,
        /// Its bytes.
        sealed: Vec<u8>,
    },
    /// The state of the DHT.
    Dht(State),
    /// The state of the room.
    Room(RoomState),
}

/// Parses a line; none for values not in `asked`, the plan's keys, or of a room without `has_room`.
///
/// # Errors
/// The line is not valid.
pub fn read(
    line: &[u8],
    asked: &BTreeSet<Key>,
    has_room: bool,
) -> Result<Option<Said>, serde_json::Error> {
    Ok(match serde_json::from_slice(line)? {
        // the day or the sought nodes may have changed meanwhile
        FromReach::Seen { key, value } => {
            let counts = asked.contains(&key) && value.0.len() <= MAX_RECORD;
            counts.then(|| Said::Record {
                kind: CarrierKind::Dht,
                name: key.to_string(),
                sealed: value.0,
            })
        }
        FromReach::Kept {
            account,
            name,
            value,
        } => {
            let counts = has_room && account.len() <= MAX_NAME && value.0.len() <= MAX_RECORD;
            counts.then(|| Said::Record {
                kind: CarrierKind::Matrix,
                // another account may use the same name
                name: format!("{account} {name}"),
                sealed: value.0,
            })
        }
        FromReach::State(mut state) => {
            bound(&mut state.dropped);
            state.outer = state.outer.filter(is_host);
            Some(Said::Dht(state))
        }
        FromReach::Room(mut state) => {
            bound(&mut state.dropped);
            state.problem = state.problem.map(|problem| shown(&problem));
            Some(Said::Room(state))
        }
    })
}

/// Returns whether an address can be a host's on the Internet: a candidate with another one would
/// invalidate the whole record.
fn is_host(address: &Ipv4Addr) -> bool {
    let never = address.is_unspecified() || address.is_broadcast() || address.is_multicast();
    !never && !address.is_loopback() && !address.is_link_local()
}

/// Bounds number and length of the reasons.
fn bound(dropped: &mut BTreeMap<String, u64>) {
    let all = std::mem::take(dropped).into_iter();
    let some = all.take(MAX_REASONS);
    *dropped = some.map(|(reason, n)| (shown(&reason), n)).collect();
}

/// Bounds a text, and removes terminal control characters.
fn shown(text: &str) -> String {
    clean(&text.chars().take(MAX_TEXT).collect::<String>())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use librecast::reach::{Base58, Value};

    use super::*;

    fn line(line: &FromReach) -> Vec<u8> {
        serde_json::to_vec(line).unwrap()
    }

    #[test]
    fn only_what_was_asked_for_counts() {
        let asked = BTreeSet::from([Base58([1; 32])]);
        let seen = |n, length| {
            line(&FromReach::Seen {
                key: Base58([n; 32]),
                value: Value(vec![7; length]),
            })
        };
        let counts = |line: &[u8], has_room| read(line, &asked, has_room).unwrap().is_some();
        assert!(counts(&seen(1, 300), false));
        assert!(!counts(&seen(2, 300), false));
        let kept = |account: &str| {
            line(&FromReach::Kept {
                account: account.into(),
                name: Base58([1; 32]),
                value: Value(vec![7; 300]),
            })
        };
        assert!(counts(&kept("@a:b"), true));
        assert!(!counts(&kept("@a:b"), false));
        assert!(!counts(&kept(&"a".repeat(MAX_NAME + 1)), true));
        assert!(read(b"{}", &asked, true).is_err());
    }

    #[test]
    fn an_outer_address_is_a_hosts() {
        let outer = |text: &str| {
            let state = State {
                outer: Some(text.parse().unwrap()),
                ..State::default()
            };
            let told = read(&line(&FromReach::State(state)), &BTreeSet::new(), false);
            let Some(Said::Dht(state)) = told.unwrap() else {
                panic!("another line");
            };
            state.outer.is_some()
        };
        assert!(outer("203.0.113.5"));
        for never in [
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "127.0.0.1",
            "169.254.1.1",
        ] {
            assert!(!outer(never), "{never}");
        }
    }

    #[test]
    fn states_are_short_and_steer_no_terminal() {
        let reason = |n| (format!("{n:02}\u{1b}[2J{}", "x".repeat(999)), 1);
        let state = RoomState {
            problem: Some("a\u{9b}2J".repeat(500)),
            dropped: (0..99).map(reason).collect(),
            ..RoomState::default()
        };
        let told = read(&line(&FromReach::Room(state)), &BTreeSet::new(), true);
        let Some(Said::Room(state)) = told.unwrap() else {
            panic!("another line");
        };
        assert_eq!(state.dropped.len(), MAX_REASONS);
        let texts = state.dropped.into_keys().chain(state.problem);
        for text in texts {
            assert_eq!(text.chars().count(), MAX_TEXT);
            assert!(!text.contains(char::is_control));
        }
    }
}
