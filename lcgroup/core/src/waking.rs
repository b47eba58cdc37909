//! Calls to absent members: a member leaves a line with the holders of its group, and a holder's
//! program gets the line once messages have waited for that member.
//!
//! ```text
//! wake 11: version 8 = 1 | line, UTF-8; empty: no line any more
//!
//!   a message of others ──10 min──► first call ──1 h──► second ──1 day──► third ──1 day──► ...
//!          ▲                            any sign of the member ends it
//! ```
//!
//! A member with a line shows itself every [`SIGN_PAUSE`] while its host runs, so that a present one
//! is not called.

use std::collections::BTreeMap;

use librecast::id::PeerId;
use librecast::plain::is_plain;
use librecast::time::UnixTime;
use librecast::wire::{Reader, WireError, Writer};

use crate::body::kind;
use crate::error::GroupError;
use crate::event::{Log, NewEntry};
use crate::fields::{count, flag, peer};
use crate::group::Group;
use crate::{DAY, HOUR, MAX_MEMBERS, MINUTE};

/// Bytes of a line. Chosen: a long URL, below those of an entry.
pub const MAX_LINE: usize = 512;
/// Pause between two signs of a member with a line, in ms. Chosen: two in `FIRST` may be lost.
pub const SIGN_PAUSE: u64 = 3 * MINUTE;
/// Time in which messages wait before the first call.
const FIRST: u64 = 10 * MINUTE;
/// Pauses before the second call and all later ones.
const LATER: [u64; 2] = [HOUR, DAY];
/// Version of the entry, its first byte.
const VERSION: u8 = 1;

/// Whether a holder takes a line: one line of text.
#[must_use]
pub fn is_line(line: &str) -> bool {
    line.len() <= MAX_LINE && is_plain(line)
}

/// Decodes the body of an entry; none for a later version, or a line that is refused.
#[must_use]
pub fn decode_line(body: &[u8]) -> Option<&str> {
    let (version, line) = body.split_first()?;
    let line = std::str::from_utf8(line).ok()?;
    (*version == VERSION && is_line(line)).then_some(line)
}

/// A member with a line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Absent {
    line: String,
    /// When it is called next, in ms since 1970; none: no message waits.
    due: Option<u64>,
    /// Calls since it was received last.
    calls: u32,
}

/// The members with a line, as a holder keeps them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Waking {
    all: BTreeMap<PeerId, Absent>,
}

impl Waking {
    /// Sets a member's line, or removes it; returns whether that is a change.
    pub fn set(&mut self, author: PeerId, line: &str) -> bool {
        if line.is_empty() {
            return self.all.remove(&author).is_some();
        }
        if let Some(known) = self.all.get_mut(&author) {
            let is_new = known.line != line;
            line.clone_into(&mut known.line);
            return is_new;
        }
        if self.all.len() >= MAX_MEMBERS {
            return false;
        }
        let absent = Absent {
            line: line.to_owned(),
            due: None,
            calls: 0,
        };
        self.all.insert(author, absent);
        true
    }

    /// All of it, for the disk.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(VERSION).u32(self.all.len() as u32);
        for (author, absent) in &self.all {
            w.put(author.public_key());
            w.u16(absent.line.len() as u16).put(absent.line.as_bytes());
            w.u8(absent.due.is_some().into());
            w.u64(absent.due.unwrap_or_default()).u32(absent.calls);
        }
        w.into_vec()
    }

    /// Decodes the bytes of [`Self::encode`].
    ///
    /// # Errors
    /// [`WireError`] if they are others.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        r.version(VERSION)?;
        let mut waking = Self::default();
        for _ in 0..count(&mut r, MAX_MEMBERS)? {
            let author = peer(&mut r)?;
            let line = std::str::from_utf8(r.bytes16()?).map_err(|_| WireError::Bad("line"))?;
            let line = line.to_owned();
            let (waits, due, calls) = (flag(&mut r)?, r.u64()?, r.u32()?);
            let due = waits.then_some(due);
            waking.all.insert(author, Absent { line, due, calls });
        }
        r.finish()?;
        Ok(waking)
    }

    /// Forgets authors that are not members; returns whether there were any.
    pub fn retain(&mut self, is_member: impl Fn(&PeerId) -> bool) -> bool {
        let before = self.all.len();
        self.all.retain(|author, _| is_member(author));
        self.all.len() != before
    }

    /// Notes a sign of a member: it has come, and is not called. Returns whether that is a change.
    pub fn hear(&mut self, author: &PeerId) -> bool {
        let Some(absent) = self.all.get_mut(author) else {
            return false;
        };
        absent.calls = 0;
        absent.due.take().is_some()
    }

    /// Notes a message, which waits for all others from now on. Returns whether that is a change.
    pub fn wait(&mut self, author: &PeerId, now: UnixTime) -> bool {
        let others = self.all.iter_mut().filter(|(other, _)| *other != author);
        let mut any = false;
        for (_, absent) in others.filter(|(_, absent)| absent.due.is_none()) {
            absent.due = Some(now.as_millis() + FIRST);
            any = true;
        }
        any
    }

    /// Takes the line of a member that is to be called now.
    pub fn call(&mut self, now: UnixTime) -> Option<String> {
        let now = now.as_millis();
        let [hour, day] = LATER;
        let due = |absent: &&mut Absent| {
            // a due time far ahead is of a clock that was set back
            absent.due.is_some_and(|due| due <= now || due > now + day)
        };
        let mut waiting: Vec<&mut Absent> = self.all.values_mut().filter(due).collect();
        // the one that waits for longest
        waiting.sort_by_key(|absent| absent.due);
        let absent = waiting.into_iter().next()?;
        absent.calls = absent.calls.saturating_add(1);
        absent.due = Some(now + if absent.calls == 1 { hour } else { day });
        Some(absent.line.clone())
    }
}

impl Group {
    /// Leaves a line with the holders, by which they call this member; an empty one ends that.
    ///
    /// # Errors
    /// [`GroupError::Line`], and the errors of [`Self::say`].
    pub fn leave_line(&mut self, line: &str) -> Result<(), GroupError> {
        self.check_speaks()?;
        if !is_line(line) {
            return Err(GroupError::Line);
        }
        let (kind, body) = (kind::WAKE, [&[VERSION], line.as_bytes()].concat());
        self.append(Log::Own, NewEntry::Body { kind, body });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use librecast::id::SecretKey;

    fn key(n: u8) -> PeerId {
        SecretKey::from_seed(&[n; 32]).peer_id()
    }

    fn at(minutes: u64) -> UnixTime {
        UnixTime::from_millis(1_800_000_000_000 + minutes * MINUTE)
    }

    /// Minutes of the calls until `until`, polled each minute.
    fn calls(waking: &mut Waking, from: u64, until: u64) -> Vec<u64> {
        let calls = (from..=until).filter_map(|minute| {
            let line = waking.call(at(minute))?;
            assert_eq!(line, "https://ntfy.example/bob");
            Some(minute)
        });
        calls.collect()
    }

    #[test]
    fn an_absent_member_is_called_after_ten_minutes_an_hour_and_daily_until_it_comes() {
        let mut waking = Waking::default();
        assert!(waking.set(key(1), "https://ntfy.example/bob"));
        assert!(!waking.wait(&key(1), at(0)), "its own message");
        assert!(waking.wait(&key(2), at(0)));
        assert!(!waking.wait(&key(2), at(9)), "it waits already");
        let day = 24 * 60;
        let all = [10, 70, 70 + day, 70 + 2 * day];
        assert_eq!(calls(&mut waking, 0, 3 * day), all);
        // a restart goes on
        let bytes = waking.encode();
        let mut waking = Waking::decode(&bytes).unwrap();
        assert_eq!(waking.encode(), bytes);
        assert!(Waking::decode(&bytes[1..]).is_err());
        assert_eq!(calls(&mut waking, 3 * day, 4 * day), [70 + 3 * day]);
        assert!(waking.hear(&key(1)));
        assert_eq!(calls(&mut waking, 4 * day, 9 * day), [] as [u64; 0]);
        // from the beginning, and it is present in time
        waking.wait(&key(2), at(9 * day));
        assert_eq!(calls(&mut waking, 9 * day, 9 * day + 9), [] as [u64; 0]);
        waking.hear(&key(1));
        assert_eq!(calls(&mut waking, 9 * day, 12 * day), [] as [u64; 0]);
    }

    #[test]
    fn each_is_called_for_itself_and_former_members_are_not() {
        let mut waking = Waking::default();
        for n in 1..=3 {
            waking.set(key(n), &format!("line {n}"));
        }
        waking.wait(&key(9), at(0));
        waking.hear(&key(2));
        waking.wait(&key(3), at(5));
        assert!(waking.retain(|author| *author != key(3)));
        assert_eq!(waking.call(at(10)).as_deref(), Some("line 1"));
        assert_eq!(waking.call(at(10)), None);
        assert_eq!(waking.call(at(15)).as_deref(), Some("line 2"));
        assert!(waking.set(key(2), "") && !waking.set(key(2), ""));
        assert_eq!(waking.call(at(1_000)).as_deref(), Some("line 1"));
        // the clock is set back by a year
        let back = UnixTime::from_millis(1_770_000_000_000);
        assert_eq!(waking.call(back).as_deref(), Some("line 1"));
        assert_eq!(waking.call(back), None);
    }

    #[test]
    fn a_line_is_one_of_text() {
        let long = "x".repeat(MAX_LINE);
        let body = |line: &str| [&[VERSION], line.as_bytes()].concat();
        for good in ["", "tel:+49 30 1234", &long] {
            assert_eq!(decode_line(&body(good)), Some(good));
        }
        for bad in ["a\nb", "\u{1b}[2J", &format!("{long}x")] {
            assert_eq!(decode_line(&body(bad)), None);
        }
        assert_eq!(decode_line(b""), None);
        assert_eq!(decode_line(b"\x02x"), None);
        assert_eq!(decode_line(b"\x01\xff"), None);
    }
}
