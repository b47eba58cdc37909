//! Answers of homeservers (Matrix client-server API v1.11), and their validation.
//!
//! A server, and each member of the room, may send anything: an invalid event is dropped alone, and
//! the stored parts of an answer are bounded.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use librecast::reach::{Key, MAX_NAME, Value};
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// Type of the state event in which an account stores the records of its nodes.
pub(crate) const EVENT: &str = "org.librecast.lcroute.node";
/// Maximum number of events of one kind per answer. Chosen: the nodes of the largest network.
const MAX_EVENTS: usize = 4_096;
/// Maximum number of rooms per answer. Chosen: far more than the one in the filter.
const MAX_ROOMS: usize = 16;
/// Maximum length of `next_batch` in bytes, sent in the next request. Chosen: 100 times Synapse's.
const MAX_BATCH: usize = 8_192;
/// Maximum length of an event's content in bytes: Matrix's bound of whole events.
const MAX_CONTENT: usize = 65_536;
/// Maximum number of nodes of one account. Chosen: their records, 800 bytes each, half fill an
/// event.
pub(crate) const MAX_NODES: usize = 32;

/// The owner of the access token.
#[derive(Debug, Deserialize)]
pub(crate) struct WhoAmI {
    pub(crate) user_id: String,
}

/// The id of the joined room.
#[derive(Debug, Deserialize)]
pub(crate) struct Joined {
    pub(crate) room_id: String,
}

/// An error of a server.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct ServerError {
    #[serde(default)]
    pub(crate) errcode: String,
    #[serde(default)]
    pub(crate) retry_after_ms: Option<u64>,
    #[serde(default)]
    pub(crate) soft_logout: bool,
}

/// A node's value in the event of its account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) sealed: Value,
    pub(crate) until: u64,
}

/// Content of the event: values by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Content {
    pub(crate) records: BTreeMap<Key, Entry>,
}

impl Content {
    /// Parses the valid part; skips invalid names and entries.
    pub(crate) fn read(raw: &RawValue) -> Self {
        #[derive(Deserialize)]
        struct Records<'a> {
            #[serde(borrow, default)]
            records: BTreeMap<String, &'a RawValue>,
        }
        let text = Some(raw.get()).filter(|text| text.len() <= MAX_CONTENT);
        let read = text.and_then(|text| serde_json::from_str::<Records<'_>>(text).ok());
        let Some(read) = read else {
            return Self::default();
        };
        let entry = |(name, raw): (String, &RawValue)| {
            let name = name.parse().ok()?;
            Some((name, serde_json::from_str(raw.get()).ok()?))
        };
        let records = read.records.into_iter().filter_map(entry);
        Self {
            records: records.take(MAX_NODES).collect(),
        }
    }
}

/// The changes since the last answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Sync {
    /// The start of the next answer.
    pub(crate) next_batch: String,
    /// The accounts' contents in the room, in order.
    pub(crate) kept: Vec<(String, Content)>,
    /// Whether this account is no longer in the room.
    pub(crate) left: bool,
    /// Number of invalid events in the room.
    pub(crate) nonsense: u64,
    /// Number of messages to this device, which requests none.
    pub(crate) unasked: u64,
}

impl Sync {
    /// Parses an answer to `/sync`, for `room` alone.
    pub(crate) fn read(bytes: &[u8], room: &str) -> Result<Self, serde_json::Error> {
        let answer: Answer<'_> = serde_json::from_slice(bytes)?;
        if answer.next_batch.len() > MAX_BATCH {
            return Err(serde::de::Error::custom("next_batch is too long"));
        }
        let mut sync = Self {
            next_batch: answer.next_batch,
            left: answer.rooms.leave.get(room).is_some(),
            unasked: answer.to_device.events.count,
            ..Self::default()
        };
        let Some(joined) = answer.rooms.join.get(room) else {
            return Ok(sync);
        };
        let joined: JoinedRoom<'_> = serde_json::from_str(joined.get())?;
        for events in [joined.state.events, joined.timeline.events] {
            sync.nonsense += events.count - events.first.len() as u64;
            for event in events.first {
                match serde_json::from_str(event.get()) {
                    Ok(event) => sync.take(event),
                    Err(_) => sync.nonsense += 1,
                }
            }
        }
        Ok(sync)
    }

    fn take(&mut self, event: Event<'_>) {
        // the server prevents other accounts from writing this event
        let is_own = event.state_key.as_ref() == Some(&event.sender);
        let fits = event.sender.starts_with('@') && event.sender.len() <= MAX_NAME;
        if event.kind == EVENT && is_own && fits {
            let content = Content::read(event.content);
            self.kept.push((event.sender, content));
        } else {
            self.nonsense += 1;
        }
    }
}

#[derive(Deserialize)]
struct Answer<'a> {
    next_batch: String,
    #[serde(borrow, default)]
    rooms: Rooms<'a>,
    #[serde(borrow, default)]
    to_device: Events<'a>,
}

#[derive(Default, Deserialize)]
struct Rooms<'a> {
    #[serde(borrow, default)]
    join: FewRooms<'a>,
    #[serde(borrow, default)]
    leave: FewRooms<'a>,
}

/// Rooms by id. The filter names one, so an honest server sends few.
#[derive(Default)]
struct FewRooms<'a>(Vec<(String, &'a RawValue)>);

impl<'a> FewRooms<'a> {
    fn get(&self, room: &str) -> Option<&'a RawValue> {
        let found = self.0.iter().find(|(name, _)| name == room);
        found.map(|(_, raw)| *raw)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for FewRooms<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Map<'a>(PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for Map<'a> {
            type Value = FewRooms<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("rooms by id")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<FewRooms<'a>, A::Error> {
                let mut read = FewRooms::default();
                while read.0.len() < MAX_ROOMS
                    && let Some(room) = map.next_entry()?
                {
                    read.0.push(room);
                }
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(read)
            }
        }
        d.deserialize_map(Map(PhantomData))
    }
}

#[derive(Default, Deserialize)]
struct JoinedRoom<'a> {
    #[serde(borrow, default)]
    state: Events<'a>,
    #[serde(borrow, default)]
    timeline: Events<'a>,
}

#[derive(Default, Deserialize)]
struct Events<'a> {
    #[serde(borrow, default)]
    events: First<'a>,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: String,
    sender: String,
    state_key: Option<String>,
    #[serde(borrow)]
    content: &'a RawValue,
}

/// The first elements of a list, and its length.
#[derive(Default)]
struct First<'a> {
    first: Vec<&'a RawValue>,
    count: u64,
}

impl<'de: 'a, 'a> Deserialize<'de> for First<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct List<'a>(PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for List<'a> {
            type Value = First<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<First<'a>, A::Error> {
                let mut read = First::default();
                while read.first.len() < MAX_EVENTS
                    && let Some(event) = list.next_element()?
                {
                    read.first.push(event);
                    read.count += 1;
                }
                while list.next_element::<IgnoredAny>()?.is_some() {
                    read.count += 1;
                }
                Ok(read)
            }
        }
        d.deserialize_seq(List(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROOM: &str = "!r:a.example";

    /// Returns an answer of Synapse 1.163, shortened.
    fn answer(events: &str) -> String {
        format!(
            r#"{{"next_batch":"s9","to_device":{{"events":[]}},"device_one_time_keys_count":{{"x":0}},
            "rooms":{{"join":{{"!r:a.example":{{
              "timeline":{{"events":[{events}],"prev_batch":"s1","limited":true}},
              "state":{{"events":[]}},"account_data":{{"events":[]}},"ephemeral":{{"events":[]}},
              "unread_notifications":{{}},"summary":{{}}}}}}}}}}"#
        )
    }

    fn event(content: &str) -> String {
        format!(
            r#"{{"type":"{EVENT}","sender":"@b:a.example","state_key":"@b:a.example","event_id":"$e",
            "origin_server_ts":1,"unsigned":{{"age":5}},"content":{content}}}"#
        )
    }

    fn read(text: &str) -> Sync {
        Sync::read(text.as_bytes(), ROOM).unwrap()
    }

    fn name(n: u8) -> Key {
        librecast::reach::Base58([n; 32])
    }

    #[test]
    fn a_place_to_go_on_at_is_bounded() {
        let answer = |len| format!(r#"{{"next_batch":"{}"}}"#, "s".repeat(len));
        assert!(Sync::read(answer(MAX_BATCH).as_bytes(), "!r:a.example").is_ok());
        assert!(Sync::read(answer(MAX_BATCH + 1).as_bytes(), "!r:a.example").is_err());
    }

    #[test]
    fn what_an_account_keeps_in_the_room_is_read() {
        let one = format!(
            r#"{{"records":{{"{}":{{"sealed":"abc","until":7}}}}}}"#,
            name(1)
        );
        let sync = read(&answer(&event(&one)));
        assert_eq!((sync.next_batch.as_str(), sync.kept.len()), ("s9", 1));
        let (account, content) = &sync.kept[0];
        assert_eq!(account, "@b:a.example");
        assert_eq!(content.records[&name(1)].until, 7);
        // it is written as it is read
        assert_eq!(serde_json::to_string(content).unwrap(), one);
        let other_room = Sync::read(answer(&event(&one)).as_bytes(), "!s:a.example").unwrap();
        assert!(other_room.kept.is_empty());
        let left = read(r#"{"next_batch":"s","rooms":{"leave":{"!r:a.example":{}}}}"#);
        assert!(left.left);
    }

    #[test]
    fn one_event_that_makes_no_sense_is_dropped_alone() {
        let good = event(r#"{"records":{}}"#);
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        for bad in [
            "5",
            "{}",
            &good.replace("\"state_key\":\"@b", "\"state_key\":\"@c"),
            &good.replace(EVENT, "m.room.name"),
            &good.replace("@b:a.example", "b"),
            &good.replace("@b:a.example", &format!("@{}", "b".repeat(MAX_NAME))),
        ] {
            let sync = read(&answer(&format!("{bad},{good}")));
            assert_eq!((sync.kept.len(), sync.nonsense), (1, 1), "{bad}");
        }
        for content in [
            "5",
            r#"{"records":5}"#,
            r#"{"records":{"x":5,"1":{"sealed":"abc","until":1}}}"#,
            r#"{"records":{"x":{"sealed":"0OIl","until":-1}}}"#,
            &format!(r#"{{"records":{{}},"more":{deep}}}"#),
            &format!(r#"{{"more":"{}"}}"#, "x".repeat(MAX_CONTENT)),
        ] {
            let sync = read(&answer(&event(content)));
            assert_eq!(sync.kept[0].1, Content::default(), "{content:.40}");
        }
    }

    #[test]
    fn floods_are_bounded() {
        let many = vec!["{}"; MAX_EVENTS + 10].join(",");
        let sync = read(&answer(&many));
        assert_eq!(
            (sync.kept.len(), sync.nonsense),
            (0, MAX_EVENTS as u64 + 10)
        );
        let rooms: Vec<_> = (0..1_000).map(|n| format!("\"!{n}\":5")).collect();
        let text = format!(
            r#"{{"next_batch":"s","rooms":{{"join":{{{}}}}}}}"#,
            rooms.join(",")
        );
        assert_eq!(read(&text).kept, []);
        let text = format!(r#"{{"next_batch":"s","to_device":{{"events":[{many}]}}}}"#);
        assert_eq!(read(&text).unasked, MAX_EVENTS as u64 + 10);
        let entry = |n: u8| format!(r#""{}":{{"sealed":"abc","until":7}}"#, name(n));
        let all: Vec<_> = (0..200).map(entry).collect();
        let content = format!(r#"{{"records":{{{}}}}}"#, all.join(","));
        assert_eq!(
            read(&answer(&event(&content))).kept[0].1.records.len(),
            MAX_NODES
        );
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), text in "[\\[\\]{}\",:a-z0-9]{0,200}") {
            let _ = Sync::read(&bytes, ROOM);
            let _ = Sync::read(text.as_bytes(), ROOM);
            let _ = Sync::read(answer(&text).as_bytes(), ROOM);
            let _ = Sync::read(answer(&event(&text)).as_bytes(), ROOM);
        }
    }
}
