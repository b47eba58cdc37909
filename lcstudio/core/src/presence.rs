//! Presence of writers in the notes, with cursors. No member stores it; nothing waits for it.
//!
//! ```text
//!   version 1 = 1 | flags 1 | name text8 <= 60 | cursor <= 64   body of presence; flag 1: writing
//!   nothing                                                     the author has left
//!
//!   moves, types ─► Showing ─► at most 4/s, at rest each 10 s ─► Others ─► gone after 30 s
//! ```
//!
//! The signer is the author (`librecast-log`); the name is the author's choice. The cursor is the
//! CRDT's: it stays with its letter while other members write.

use std::collections::BTreeMap;

use librecast::time::{Duration, Instant};
use librecast::wire::{Reader, WireError, Writer};

use crate::drops::DropReason;
use crate::notes::MAX_WRITERS;
use crate::plain::clean_line;

/// Longest name, in bytes.
pub const MAX_NAME: usize = 60;

/// Longest cursor, in bytes: Loro's cursor in the text of notes has 22.
pub const MAX_CURSOR: usize = 64;

/// Version of a presence, its first byte.
const VERSION: u8 = 1;
/// Flag of a presence: its author is writing.
const WRITES: u8 = 1;

/// Time between two packets of an author that moves or types.
const MOVING: Duration = Duration::from_millis(250);
/// The same for each seen author, if the product is longer: 40 packets a second of all together.
const MOVING_OF_EACH: Duration = Duration::from_millis(25);
/// Time between two packets of an author at rest.
const RESTING: Duration = Duration::from_secs(10);
/// Time after the last letter in which an author counts as writing.
const WRITING: Duration = Duration::from_secs(2);
/// Silence after which an author has gone: three packets at rest.
const GONE: Duration = Duration::from_secs(30);

/// State of a writer, as the writer sends it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Presence {
    /// The writer's name; may be empty.
    pub name: String,
    /// Whether the writer has just written.
    pub writes: bool,
    /// The writer's cursor, as the CRDT encodes it; empty if unknown.
    pub cursor: Vec<u8>,
}

/// Returns a name as sent and shown: one line of at most [`MAX_NAME`] bytes.
fn name_of(name: &str) -> String {
    let mut name = clean_line(name);
    let end = name.floor_char_boundary(MAX_NAME);
    name.truncate(end);
    name.trim_end().to_owned()
}

impl Presence {
    /// Returns the body of presence. A name that is too long is cut.
    ///
    /// # Errors
    /// The cursor is too long.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        if self.cursor.len() > MAX_CURSOR {
            return Err(WireError::Bad("length of a cursor"));
        }
        let mut w = Writer::new();
        w.u8(VERSION).u8(u8::from(self.writes) * WRITES);
        w.text8(&name_of(&self.name))?.put(&self.cursor);
        Ok(w.into_vec())
    }

    /// Decodes the body of presence; `None`: the author has left.
    pub fn decode(body: &[u8]) -> Result<Option<Self>, DropReason> {
        if body.is_empty() {
            return Ok(None);
        }
        let mut r = Reader::new(body);
        let version = r.u8().map_err(|_| DropReason::Malformed)?;
        if version != VERSION {
            return Err(DropReason::UnknownKind);
        }
        let flags = r.u8().map_err(|_| DropReason::Malformed)?;
        let name = r.text8().map_err(|_| DropReason::Malformed)?;
        if name.len() > MAX_NAME || r.rest().len() > MAX_CURSOR {
            return Err(DropReason::Malformed);
        }
        Ok(Some(Self {
            name: name_of(name),
            writes: flags & WRITES != 0,
            cursor: r.rest().to_vec(),
        }))
    }
}

/// Other writers that show themselves.
#[derive(Debug, Default)]
pub struct Others {
    seen: BTreeMap<u64, (Instant, Presence)>,
}

impl Others {
    /// Handles presence that its author signed. Returns whether anything has changed.
    pub fn handle(&mut self, author: u64, body: &[u8], now: Instant) -> Result<bool, DropReason> {
        let Some(presence) = Presence::decode(body)? else {
            return Ok(self.seen.remove(&author).is_some());
        };
        if self.seen.len() >= MAX_WRITERS && !self.seen.contains_key(&author) {
            return Err(DropReason::TooManyPresent);
        }
        let before = self.seen.insert(author, (now, presence));
        let after = self.seen.get(&author);
        Ok(before.as_ref().map(|(_, p)| p) != after.map(|(_, p)| p))
    }

    /// Forgets authors after 30 s of silence. Returns whether any has gone.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        let before = self.seen.len();
        self.seen.retain(|_, (at, _)| *at + GONE > now);
        self.seen.len() != before
    }

    /// Returns the time at which the next author counts as gone.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.seen.values().map(|(at, _)| *at + GONE).min()
    }

    /// Returns all present authors.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Presence)> {
        self.seen.iter().map(|(author, (_, p))| (*author, p))
    }

    /// Returns their number.
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Returns whether no author is present.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// Forgets all authors.
    pub fn clear(&mut self) {
        self.seen.clear();
    }
}

/// Presence that this writer sends, and its times. Nothing before the writer agrees.
#[derive(Debug, Default)]
pub struct Showing {
    /// `None`: the writer is not shown.
    name: Option<String>,
    /// Time from which the writer is shown.
    since: Option<Instant>,
    cursor: Vec<u8>,
    typed_at: Option<Instant>,
    /// Whether something has changed since the last packet.
    is_new: bool,
    /// Whether the last packet had the flag of writing.
    said_writes: bool,
    /// Time of the last packet; `None`: other members do not see the writer.
    sent_at: Option<Instant>,
}

impl Showing {
    /// Shows the writer under this name, which may be empty; `None` ends it.
    pub fn show(&mut self, name: Option<&str>, now: Instant) {
        let name = name.map(name_of);
        if self.name == name {
            return;
        }
        self.is_new = true;
        self.since = name.as_ref().map(|_| now);
        self.name = name;
    }

    /// Moves the cursor; `writes`: by a typed letter.
    pub fn move_to(&mut self, cursor: Vec<u8>, writes: bool, now: Instant) {
        if cursor.len() > MAX_CURSOR {
            return;
        }
        self.is_new |= cursor != self.cursor || writes && !self.said_writes;
        self.cursor = cursor;
        if writes {
            self.typed_at = Some(now);
        }
    }

    /// Returns the due body of presence, while `others` are seen. Empty: the writer leaves.
    pub fn poll_presence(&mut self, others: usize, now: Instant) -> Option<Vec<u8>> {
        self.next_timeout(others).filter(|at| *at <= now)?;
        let Some(name) = &self.name else {
            self.sent_at = None;
            return Some(Vec::new());
        };
        let writes = self.writes_until().is_some_and(|until| until > now);
        let presence = Presence {
            name: name.clone(),
            writes,
            cursor: self.cursor.clone(),
        };
        (self.is_new, self.said_writes, self.sent_at) = (false, writes, Some(now));
        // `move_to` has checked the length of the cursor
        presence.encode().ok()
    }

    /// Returns the time of the next packet, while `others` are seen.
    pub fn next_timeout(&self, others: usize) -> Option<Instant> {
        let (sent_at, is_shown) = (self.sent_at, self.name.is_some());
        let Some(sent_at) = sent_at.filter(|_| is_shown) else {
            // a leaving writer sends at once
            return sent_at.or(self.since);
        };
        let others = u32::try_from(others).unwrap_or(u32::MAX);
        let next = sent_at + MOVING.max(MOVING_OF_EACH.saturating_mul(others));
        if self.is_new {
            return Some(next);
        }
        let ends = self.writes_until().filter(|_| self.said_writes);
        let ends = ends.map(|ends| ends.max(next));
        ends.into_iter().chain([sent_at + RESTING]).min()
    }

    fn writes_until(&self) -> Option<Instant> {
        self.typed_at.map(|at| at + WRITING)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ann(writes: bool) -> Presence {
        Presence {
            name: "Ann".to_owned(),
            writes,
            cursor: vec![1, 2, 3],
        }
    }

    #[expect(clippy::disallowed_methods, reason = "virtual time needs a beginning")]
    fn begin() -> Instant {
        Instant::now()
    }

    #[test]
    fn golden_bytes() {
        let body = ann(true).encode().unwrap();
        assert_eq!(body, b"\x01\x01\x03Ann\x01\x02\x03");
        assert_eq!(Presence::decode(&body), Ok(Some(ann(true))));
        assert_eq!(Presence::decode(b""), Ok(None));
    }

    /// Typing costs at most four of these a second, and resting one in ten seconds.
    #[test]
    fn a_packet_has_158_bytes() {
        let dora = Presence {
            name: "Dora".to_owned(),
            writes: true,
            cursor: vec![7; 22],
        };
        let presence = librecast_log::Presence {
            author: librecast_log::AuthorId(1),
            time: 0,
            body: dora.encode().unwrap(),
            signature: [0; 64],
        };
        let session = crate::SessionKey::from_seed(&[1; 32]).session();
        let packet = librecast_log::Packet::Presence(presence);
        let sealed = librecast_log::seal_packet(&session.index(), &packet, &[0; 24]);
        assert_eq!(sealed.unwrap().len(), 158);
    }

    #[test]
    fn a_name_is_one_line_without_what_turns_text_around_and_not_long() {
        let decoded = |name: &[u8]| {
            let body = [&[1, 0, name.len() as u8][..], name].concat();
            Presence::decode(&body)
        };
        let hidden = decoded("A\u{202e}n\u{1b}n\n".as_bytes());
        assert_eq!(hidden.unwrap().unwrap().name, "Ann");
        assert_eq!(decoded(&[0xff]), Err(DropReason::Malformed));
        assert_eq!(decoded(&[b'a'; 61]), Err(DropReason::Malformed));
        let name = "ü".repeat(40);
        let cut = Presence {
            name,
            ..Presence::default()
        };
        let cut = Presence::decode(&cut.encode().unwrap()).unwrap().unwrap();
        assert_eq!(cut.name, "ü".repeat(30));
        let cursor = vec![0; MAX_CURSOR + 1];
        let long = Presence {
            cursor,
            ..Presence::default()
        };
        assert!(long.encode().is_err());
        let body = [&[1, 0, 0][..], &[0; MAX_CURSOR + 1]].concat();
        assert_eq!(Presence::decode(&body), Err(DropReason::Malformed));
        assert_eq!(Presence::decode(&[2, 0, 0]), Err(DropReason::UnknownKind));
    }

    /// Milliseconds at which packets are sent until then, without further input.
    fn sent(showing: &mut Showing, begin: Instant, from: Instant, until: u64) -> Vec<(u128, bool)> {
        let mut sent = Vec::new();
        while let Some(at) = showing.next_timeout(0) {
            let now = at.max(from);
            if now > begin + Duration::from_millis(until) {
                break;
            }
            let body = showing.poll_presence(0, now).unwrap();
            let writes = Presence::decode(&body).unwrap().is_some_and(|p| p.writes);
            sent.push(((now - begin).as_millis(), writes));
            assert_eq!(showing.poll_presence(0, now), None);
        }
        sent
    }

    #[test]
    fn who_types_is_sent_four_times_a_second_and_who_rests_each_ten_seconds() {
        let begin = begin();
        let at = |ms| begin + Duration::from_millis(ms);
        let mut showing = Showing::default();
        showing.move_to(vec![1], true, begin);
        assert_eq!(showing.next_timeout(0), None, "nobody has said so");
        showing.show(Some("Ann"), begin);
        let mut all = sent(&mut showing, begin, begin, 0);
        for key in 1..20_u8 {
            let now = at(u64::from(key) * 50);
            showing.move_to(vec![key], true, now);
            all.extend(sent(&mut showing, begin, now, u64::from(key) * 50));
        }
        assert_eq!(all, [(0, true), (250, true), (500, true), (750, true)]);
        // the last letter came at 950
        let rest = sent(&mut showing, begin, at(950), 25_000);
        assert_eq!(
            rest,
            [
                (1_000, true),
                (2_950, false),
                (12_950, false),
                (22_950, false)
            ]
        );
        // 200 other members: a packet each five seconds
        showing.move_to(vec![99], false, at(25_000));
        assert_eq!(showing.next_timeout(200), Some(at(27_950)));
    }

    #[test]
    fn who_leaves_says_so_once_and_who_never_showed_himself_says_nothing() {
        let begin = begin();
        let mut showing = Showing::default();
        showing.show(Some("Ann"), begin);
        showing.show(None, begin);
        assert_eq!(showing.poll_presence(0, begin), None);
        showing.show(Some("Ann"), begin);
        assert!(showing.poll_presence(0, begin).is_some());
        showing.show(None, begin);
        assert_eq!(showing.poll_presence(0, begin), Some(Vec::new()));
        assert_eq!(showing.next_timeout(0), None);
        // the writer shows itself again
        showing.show(Some(""), begin);
        assert!(showing.poll_presence(0, begin).is_some());
    }

    #[test]
    fn of_whom_nothing_comes_he_has_gone_and_so_has_who_says_so() {
        let begin = begin();
        let mut others = Others::default();
        let body = ann(false).encode().unwrap();
        assert_eq!(others.handle(1, &body, begin), Ok(true));
        let later = begin + Duration::from_secs(10);
        assert_eq!(others.handle(1, &body, later), Ok(false));
        assert_eq!(others.handle(2, &body, later), Ok(true));
        assert_eq!(others.handle(2, b"", later), Ok(true));
        assert_eq!(others.handle(2, b"", later), Ok(false));
        let gone = others.next_timeout().unwrap();
        assert_eq!(gone, later + Duration::from_secs(30));
        assert!(!others.handle_timeout(gone - Duration::from_millis(1)));
        assert_eq!(others.iter().collect::<Vec<_>>(), [(1, &ann(false))]);
        assert!(others.handle_timeout(gone) && others.is_empty());
    }

    #[test]
    fn no_more_are_seen_than_may_write() {
        let begin = begin();
        let mut others = Others::default();
        let body = ann(false).encode().unwrap();
        let authors = MAX_WRITERS as u64;
        for author in 0..authors {
            others.handle(author, &body, begin).unwrap();
        }
        let more = others.handle(authors, &body, begin);
        assert_eq!(more, Err(DropReason::TooManyPresent));
        assert_eq!(
            others.handle(0, &ann(true).encode().unwrap(), begin),
            Ok(true)
        );
        assert_eq!(others.len(), MAX_WRITERS);
    }

    proptest! {
        #[test]
        fn any_bytes_are_presence_or_refused(body in proptest::collection::vec(any::<u8>(), 0..140)) {
            if let Ok(Some(presence)) = Presence::decode(&body) {
                let again = presence.encode().unwrap();
                prop_assert!(again.len() <= librecast_log::MAX_PRESENCE);
                prop_assert_eq!(Presence::decode(&again), Ok(Some(presence)));
            }
        }

        /// Packets are 250 ms to 10 s apart, except when the writer leaves and returns.
        #[test]
        fn packets_are_few_and_none_is_missing(steps in proptest::collection::vec((0_u64..4_000, 0_u8..4), 1..60)) {
            let begin = begin();
            let (mut showing, mut now, mut last) = (Showing::default(), begin, None::<Instant>);
            for (wait, what) in steps {
                let until = now + Duration::from_millis(wait);
                while let Some(at) = showing.next_timeout(0).filter(|at| *at <= until) {
                    now = at.max(now);
                    let body = showing.poll_presence(0, now);
                    let Some(body) = body else { break };
                    if let Some(last) = last {
                        prop_assert!(body.is_empty() || now - last >= MOVING);
                        prop_assert!(now - last <= RESTING);
                    }
                    last = (!body.is_empty()).then_some(now);
                }
                now = until;
                match what {
                    0 => showing.show(Some("Ann"), now),
                    1 => showing.show(None, now),
                    n => showing.move_to(vec![n], n == 3, now),
                }
            }
        }
    }
}
