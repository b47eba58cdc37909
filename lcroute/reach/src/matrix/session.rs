//! Requests to a homeserver, and the handling of their answers; without I/O.
//!
//! ```text
//! whoami -> join -> sync, sync ...        each waits at the server for an event
//!                -> put                   if the event of this account lacks the record
//! ```
//!
//! Each account has one state event in the room, which it alone can write: records of its nodes by
//! name. Nodes with a common account add their records to the present ones; a node whose record was
//! overwritten puts it again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use librecast::cert::CLOCK_SKEW;
use librecast::reach::{FromReach, Key, MAX_NAME, Meeting, RoomState, Value};
use librecast::time::UnixTime;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::answers::{Content, EVENT, Entry, Joined, MAX_NODES, ServerError, Sync, WhoAmI};

/// Time for which a server may hold back an answer. Chosen: usual for clients and proxies.
const LONG_POLL: Duration = Duration::from_secs(30);
/// Time limit for an answer beyond that.
const ANSWER: Duration = Duration::from_secs(30);
/// Pause after the first failure; it doubles.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Maximum pause after failures.
const LAST_RETRY: Duration = Duration::from_secs(300);
/// Maximum pause that a server may request.
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);
/// Minimum interval between two `sync` requests. Chosen: a record is known within a second, and a
/// server that answers at once is not flooded.
const SYNC_PAUSE: Duration = Duration::from_millis(500);
/// Minimum interval between puts. Chosen: Synapse admits an event in 5 s (`rc_message`).
const PUT_PAUSE: Duration = Duration::from_secs(5);
/// Overwritten records from which on two hosts with one key are reported; a restart causes one.
const RIVAL: u32 = 2;
/// Maximum number of known values of other nodes: the nodes of the largest network.
const MAX_VALUES: usize = 4_096;
/// Reported clock difference from the homeserver, in seconds. Chosen: half of the members' limit.
const CLOCK_DIFFERS: u64 = 43_200;
/// Maximum length of a shown error code in bytes; those of the standard have 30.
const MAX_CODE: usize = 64;

/// Messages to this device, which requests none.
const UNASKED: &str = "to_device_unasked";
/// Events in the room that are not an account's own records.
const NONSENSE: &str = "event_malformed";
/// Values beyond the bound.
const FULL: &str = "room_full";

/// Characters to be escaped in a path: all but the unreserved ones (RFC 3986).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

fn segment(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, SEGMENT)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Call {
    WhoAmI,
    Join,
    Sync,
    Put,
}

/// An HTTP request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) call: Call,
    pub(crate) method: &'static str,
    /// Path and query, after the homeserver.
    pub(crate) path: String,
    pub(crate) body: Option<String>,
    /// Time limit for the answer.
    pub(crate) timeout: Duration,
}

/// An HTTP answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Header `Retry-After`, in seconds.
    pub(crate) retry_after: Option<u64>,
    /// Header `Date`, as Unix seconds.
    pub(crate) date: Option<u64>,
    pub(crate) body: Vec<u8>,
}

/// The schedule of one kind of request.
#[derive(Debug, Clone, Copy)]
struct Timer {
    next: Instant,
    pause: Duration,
    under_way: bool,
}

impl Timer {
    fn new(now: Instant) -> Self {
        Self {
            next: now,
            pause: FIRST_RETRY,
            under_way: false,
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        !self.under_way && self.next <= now
    }

    fn begin(&mut self, least: Duration, now: Instant) {
        self.under_way = true;
        self.next = now + least;
    }

    fn succeed(&mut self) {
        (self.under_way, self.pause) = (false, FIRST_RETRY);
    }

    fn fail(&mut self, wait: Option<Duration>, now: Instant) {
        self.under_way = false;
        let pause = wait.map_or(self.pause, |wait| wait.clamp(FIRST_RETRY, LONGEST_WAIT));
        self.next = self.next.max(now + pause);
        self.pause = (self.pause * 2).min(LAST_RETRY);
    }
}

/// A failure, and the pause that the server requested.
#[derive(Debug)]
struct Failure {
    why: String,
    wait: Option<Duration>,
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Self { why, wait: None }
    }
}

/// An account in a room.
#[derive(Debug)]
pub(crate) struct Session {
    meeting: Meeting,
    user: Option<String>,
    room: Option<String>,
    since: Option<String>,
    /// The event of this account, once it has been seen or found missing.
    own: Option<Content>,
    /// Number of times that another value replaced this node's record.
    overwritten: u32,
    /// Time of the last put.
    put_at: Instant,
    /// Other nodes' values that were reported, by account.
    others: BTreeMap<String, BTreeMap<Key, Entry>>,
    enter: Timer,
    sync: Timer,
    put: Timer,
    problems: BTreeMap<Call, String>,
    /// The times of this host and of the homeserver at its last answer.
    clocks: Option<(u64, u64)>,
    dropped: BTreeMap<&'static str, u64>,
}

impl Session {
    pub(crate) fn new(meeting: Meeting, now: Instant) -> Self {
        Self {
            meeting,
            user: None,
            room: None,
            since: None,
            own: None,
            overwritten: 0,
            put_at: now,
            others: BTreeMap::new(),
            enter: Timer::new(now),
            sync: Timer::new(now),
            put: Timer::new(now),
            problems: BTreeMap::new(),
            clocks: None,
            dropped: BTreeMap::new(),
        }
    }

    /// Applies a meeting; false if its account or room is another one, which needs a new session.
    pub(crate) fn go_on(&mut self, meeting: &Meeting) -> bool {
        let known = &self.meeting;
        let same = (&known.homeserver, &known.room, &known.user, &known.token)
            == (
                &meeting.homeserver,
                &meeting.room,
                &meeting.user,
                &meeting.token,
            );
        if same {
            let name = |meeting: &Meeting| meeting.keep.as_ref().map(|keep| keep.name);
            if name(&self.meeting) != name(meeting) {
                self.overwritten = 0;
            }
            self.meeting = meeting.clone();
        }
        same
    }

    /// Retries everything: the requests under way were cancelled after a change of paths.
    pub(crate) fn try_again(&mut self, now: Instant) {
        self.enter = Timer::new(now);
        self.sync = Timer::new(now);
        // a recent put need not be repeated
        self.put.under_way = false;
        self.put.next = self.put.next.min(now + PUT_PAUSE);
    }

    /// Returns the next request that is due.
    pub(crate) fn poll_request(&mut self, now: Instant, time: UnixTime) -> Option<Request> {
        let Some(user) = &self.user else {
            return self.poll_enter(Call::WhoAmI, "GET", "account/whoami", now);
        };
        let Some(room) = &self.room else {
            let path = join_path(&self.meeting);
            return self.poll_enter(Call::Join, "POST", &path, now);
        };
        if self.sync.is_due(now) {
            let path = sync_path(room, self.since.as_deref());
            self.sync.begin(SYNC_PAUSE, now);
            return Some(request(Call::Sync, "GET", &path, None, LONG_POLL + ANSWER));
        }
        let content = self.wanted(time)?;
        if !self.put.is_due(now) {
            return None;
        }
        let path = format!("rooms/{}/state/{EVENT}/{}", segment(room), segment(user));
        self.put.begin(PUT_PAUSE, now);
        let body = json!(content).to_string();
        Some(request(Call::Put, "PUT", &path, Some(body), ANSWER))
    }

    fn poll_enter(
        &mut self,
        call: Call,
        method: &'static str,
        path: &str,
        now: Instant,
    ) -> Option<Request> {
        if !self.enter.is_due(now) {
            return None;
        }
        self.enter.begin(Duration::ZERO, now);
        let body = (method == "POST").then(|| "{}".to_owned());
        Some(request(call, method, path, body, ANSWER))
    }

    /// Returns the time of the next request, unless an answer comes before.
    pub(crate) fn next_timeout(&self, time: UnixTime) -> Option<Instant> {
        let timer = |timer: &Timer| (!timer.under_way).then_some(timer.next);
        if self.room.is_none() {
            return timer(&self.enter);
        }
        let put = self.wanted(time).and_then(|_| timer(&self.put));
        timer(&self.sync).into_iter().chain(put).min()
    }

    /// Returns the intended event of this account, if it differs.
    fn wanted(&self, time: UnixTime) -> Option<Content> {
        let (own, keep) = (self.own.as_ref()?, self.meeting.keep.as_ref()?);
        let entry = Entry {
            sealed: keep.value.clone(),
            until: keep.until,
        };
        if own.records.get(&keep.name) == Some(&entry) {
            return None;
        }
        let mut content = own.clone();
        content
            .records
            .retain(|_, entry| entry.until > time.as_secs());
        while content.records.len() >= MAX_NODES && !content.records.contains_key(&keep.name) {
            let oldest = content.records.iter().min_by_key(|(_, entry)| entry.until);
            let oldest = oldest.map(|(name, _)| *name)?;
            content.records.remove(&oldest);
        }
        content.records.insert(keep.name, entry);
        Some(content)
    }

    /// Handles an answer, or the reason of its absence; returns lines for the daemon.
    pub(crate) fn handle(
        &mut self,
        request: &Request,
        answer: Result<Answer, String>,
        now: Instant,
        time: UnixTime,
    ) -> Vec<FromReach> {
        let call = request.call;
        let date = answer.as_ref().ok().and_then(|answer| answer.date);
        self.clocks = date.map(|date| (time.as_secs(), date)).or(self.clocks);
        let answer = answer
            .map_err(Failure::from)
            .and_then(|answer| self.accept(call, answer));
        let done = answer.and_then(|body| match call {
            Call::WhoAmI => self.handle_whoami(&body),
            Call::Join => self.handle_join(&body),
            Call::Sync => self.handle_sync(&body, now, time),
            Call::Put => {
                // as the next sync will show it, before later changes of the account's other nodes
                let sent = request.body.as_deref().unwrap_or_default();
                self.own = serde_json::from_str(sent).ok().map(Content::read);
                self.put_at = now;
                Ok(Vec::new())
            }
        });
        let timer = match call {
            Call::WhoAmI | Call::Join => &mut self.enter,
            Call::Sync => &mut self.sync,
            Call::Put => &mut self.put,
        };
        match done {
            Ok(lines) => {
                timer.succeed();
                self.problems.remove(&call);
                // the record is in the room, though the answer was lost
                if call == Call::Sync && self.wanted(time).is_none() {
                    self.problems.remove(&Call::Put);
                }
                lines
            }
            Err(Failure { why, wait }) => {
                timer.fail(wait, now);
                self.problems.insert(call, why);
                Vec::new()
            }
        }
    }

    /// Returns the body of a successful answer.
    fn accept(&mut self, call: Call, answer: Answer) -> Result<Vec<u8>, Failure> {
        if answer.status == 200 {
            return Ok(answer.body);
        }
        let error: ServerError = serde_json::from_slice(&answer.body).unwrap_or_default();
        let of_body = error.retry_after_ms.map(Duration::from_millis);
        let wait = answer.retry_after.map(Duration::from_secs).or(of_body);
        let code = Some(error.errcode).filter(|code| {
            let known =
                |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_' || b == b'.';
            !code.is_empty() && code.len() <= MAX_CODE && code.bytes().all(known)
        });
        let code = code.unwrap_or_else(|| format!("HTTP {}", answer.status));
        let why = match (call, code.as_str()) {
            (_, "M_UNKNOWN_TOKEN" | "M_MISSING_TOKEN") => {
                let how = match error.soft_logout {
                    true => "has expired",
                    false => "is not known",
                };
                format!(
                    "the access token {how}: put a new one into token-file, then lcroute reload ({code})"
                )
            }
            (_, "M_LIMIT_EXCEEDED") => format!("the homeserver asks to wait ({code})"),
            (Call::Join, "M_FORBIDDEN") => {
                let user = self.user.as_deref().unwrap_or("the account");
                format!("{user} may not enter the room: have it invited ({code})")
            }
            (Call::Join, "M_NOT_FOUND" | "M_UNKNOWN") => {
                format!("the homeserver does not find the room ({code})")
            }
            (Call::Put, "M_FORBIDDEN") => format!(
                "the room does not let this account keep a record: members need the permission to send {EVENT} ({code})"
            ),
            (Call::Sync, "M_FORBIDDEN") => {
                format!("the account is not in the room any more ({code})")
            }
            _ => format!("the homeserver refuses: {code}"),
        };
        match (call, answer.status) {
            // the server no longer knows this point in time
            (Call::Sync, 400) => self.since = None,
            (Call::Sync | Call::Put, 404) => (self.room, self.since) = (None, None),
            (Call::Sync, 403) => (self.room, self.since) = (None, None),
            _ => {}
        }
        Err(Failure { why, wait })
    }

    fn handle_whoami(&mut self, body: &[u8]) -> Result<Vec<FromReach>, Failure> {
        let user = read::<WhoAmI>(body)?.user_id;
        if !is_name(&user, '@') {
            return Err(nonsense());
        }
        let wanted = self.meeting.user.as_ref();
        if let Some(wanted) = wanted.filter(|wanted| **wanted != user) {
            let why = format!("the access token is one of {user}, not of {wanted}");
            return Err(Failure {
                why,
                wait: Some(LAST_RETRY),
            });
        }
        self.user = Some(user);
        Ok(Vec::new())
    }

    fn handle_join(&mut self, body: &[u8]) -> Result<Vec<FromReach>, Failure> {
        let room = read::<Joined>(body)?.room_id;
        if !is_name(&room, '!') {
            return Err(nonsense());
        }
        self.room = Some(room);
        Ok(Vec::new())
    }

    fn handle_sync(
        &mut self,
        body: &[u8],
        now: Instant,
        time: UnixTime,
    ) -> Result<Vec<FromReach>, Failure> {
        // the account may have left it meanwhile
        let room = self.room.clone().unwrap_or_default();
        let Ok(sync) = Sync::read(body, &room) else {
            // start again without a point in time
            self.since = None;
            return Err(nonsense());
        };
        self.count(NONSENSE, sync.nonsense);
        self.count(UNASKED, sync.unasked);
        if sync.left {
            (self.room, self.since, self.own) = (None, None, None);
            let why = "the account is not in the room any more".to_owned();
            return Err(why.into());
        }
        self.since = Some(sync.next_batch);
        self.own.get_or_insert_default();
        if now.saturating_duration_since(self.put_at) > LAST_RETRY * 2 {
            self.overwritten = 0;
        }
        let mut lines = Vec::new();
        for (account, content) in sync.kept {
            if Some(&account) == self.user.as_ref() {
                self.note_own(&content, now);
            }
            self.note(&account, content, time, &mut lines);
        }
        Ok(lines)
    }

    /// Notes the event of this account. A host that overwrites this node's record would do so again
    /// at once, and room histories store each event: the record is put again after pauses that
    /// double.
    fn note_own(&mut self, content: &Content, now: Instant) {
        let before = self.own.replace(content.clone());
        let Some(keep) = &self.meeting.keep else {
            return;
        };
        let ours = |entry: &Entry| entry.sealed == keep.value;
        let stood = before.and_then(|before| before.records.get(&keep.name).map(ours));
        let stands = content.records.get(&keep.name).map(ours);
        if (stood, stands) == (Some(true), Some(false)) {
            let doubled = PUT_PAUSE.saturating_mul(1 << self.overwritten.min(16));
            self.put.next = self.put.next.max(now + doubled.min(LAST_RETRY));
            self.overwritten = self.overwritten.saturating_add(1);
        }
    }

    /// Reports the new and valid values of an account's event.
    fn note(
        &mut self,
        account: &str,
        content: Content,
        time: UnixTime,
        lines: &mut Vec<FromReach>,
    ) {
        let own = self.meeting.keep.as_ref().map(|keep| keep.name);
        let before = self.others.remove(account).unwrap_or_default();
        let others: usize = self.others.values().map(BTreeMap::len).sum();
        let mut known = BTreeMap::new();
        for (name, entry) in content.records {
            // a record expires a day late: its owner's clock may be behind, which is then reported
            if entry.until.saturating_add(CLOCK_SKEW) <= time.as_secs() || Some(name) == own {
                continue;
            }
            if others + known.len() >= MAX_VALUES {
                self.count(FULL, 1);
                continue;
            }
            if before.get(&name) != Some(&entry) {
                lines.push(kept(account, name, entry.sealed.clone()));
            }
            known.insert(name, entry);
        }
        if !known.is_empty() {
            self.others.insert(account.to_owned(), known);
        }
    }

    fn count(&mut self, reason: &'static str, number: u64) {
        if number > 0 {
            let count = self.dropped.entry(reason).or_default();
            *count = count.saturating_add(number);
        }
    }

    /// Returns a warning if members may refuse this host for its clock, or it may refuse them.
    fn clock_differs(&self) -> Option<String> {
        let (own, server) = self.clocks?;
        let differs = own.abs_diff(server);
        let side = if own > server { "ahead of" } else { "behind" };
        let hours = differs / 3_600;
        (differs > CLOCK_DIFFERS).then(|| {
            format!("this host's clock is {hours} h {side} the homeserver's, and members link with clocks less than a day apart: timedatectl set-ntp true")
        })
    }

    pub(crate) fn state(&self, time: UnixTime) -> RoomState {
        let holds =
            self.own.is_some() && (self.meeting.keep.is_none() || self.wanted(time).is_none());
        let entries = self.others.values().flat_map(BTreeMap::values);
        let dropped = self.dropped.iter();
        let rival = (self.overwritten >= RIVAL).then(|| {
            "another host of this account keeps a record under this node's name: both have its key".to_owned()
        });
        let clock = self.clock_differs();
        RoomState {
            open: holds && self.since.is_some() && self.problems.is_empty() && clock.is_none(),
            values: entries.filter(|entry| entry.until > time.as_secs()).count(),
            problem: self.problems.values().next().cloned().or(clock).or(rival),
            dropped: dropped
                .map(|(reason, n)| ((*reason).to_owned(), *n))
                .collect(),
        }
    }
}

fn kept(account: &str, name: Key, value: Value) -> FromReach {
    FromReach::Kept {
        account: account.to_owned(),
        name,
        value,
    }
}

fn request(
    call: Call,
    method: &'static str,
    path: &str,
    body: Option<String>,
    timeout: Duration,
) -> Request {
    Request {
        call,
        method,
        path: format!("/_matrix/client/v3/{path}"),
        body,
        timeout,
    }
}

fn join_path(meeting: &Meeting) -> String {
    let room = segment(meeting.room.as_str());
    // a room of another server is joined through a server that knows it
    let via = meeting.room.server().map(|server| {
        let server = segment(server);
        format!("?via={server}&server_name={server}")
    });
    format!("join/{room}{}", via.unwrap_or_default())
}

fn sync_path(room: &str, since: Option<&str>) -> String {
    let none = json!({ "types": [] });
    let filter = json!({
        "account_data": none,
        "presence": none,
        "room": {
            "account_data": none,
            "ephemeral": none,
            "rooms": [room],
            "state": { "types": [EVENT] },
            "timeline": { "limit": 100, "types": [EVENT] },
        },
    });
    let filter = filter.to_string();
    let filter = segment(&filter);
    let more = match since {
        Some(since) => format!(
            "&timeout={}&since={}",
            LONG_POLL.as_millis(),
            segment(since)
        ),
        None => "&timeout=0".to_owned(),
    };
    format!("sync?filter={filter}&set_presence=offline{more}")
}

fn is_name(text: &str, sigil: char) -> bool {
    text.starts_with(sigil) && text.len() <= MAX_NAME && text.bytes().all(|b| b.is_ascii_graphic())
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|_| nonsense())
}

fn nonsense() -> Failure {
    "the homeserver's answer makes no sense".to_owned().into()
}

#[cfg(test)]
mod tests {
    use librecast::reach::{Base58, Keep};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const UNIX: u64 = 1_800_000_000;

    fn keep(n: u8) -> Keep {
        Keep {
            name: Base58([n; 32]),
            value: Value(vec![n; 3]),
            until: UNIX + 86_400,
        }
    }

    fn meeting() -> Meeting {
        Meeting {
            homeserver: "https://a.example".into(),
            room: "#lc:b.example:8448".parse().unwrap(),
            user: None,
            token: "syt".parse().unwrap(),
            keep: Some(keep(1)),
            round: 0,
        }
    }

    fn answer(status: u16, body: &str) -> Result<Answer, String> {
        Ok(Answer {
            status,
            body: body.into(),
            ..Answer::default()
        })
    }

    /// Returns an event of an account with these entries, as in `sync`.
    fn sync_with(account: &str, entries: &[Keep]) -> String {
        let records: serde_json::Map<_, _> = entries
            .iter()
            .map(|k| {
                (
                    k.name.to_string(),
                    json!({ "sealed": k.value, "until": k.until }),
                )
            })
            .collect();
        let event = json!({ "type": EVENT, "sender": account, "state_key": account, "content": { "records": records } });
        json!({ "next_batch": "s2", "rooms": { "join": { "!r:b": { "timeline": { "events": [event] } } } } })
            .to_string()
    }

    fn begin() -> Instant {
        Instant::now()
    }

    /// A session, its time, and requests under way.
    struct World {
        session: Session,
        now: Instant,
        under_way: BTreeMap<Call, Request>,
    }

    impl World {
        fn new(meeting: Meeting) -> Self {
            let now = begin();
            Self {
                session: Session::new(meeting, now),
                now,
                under_way: BTreeMap::new(),
            }
        }

        fn poll(&mut self) {
            while let Some(request) = self
                .session
                .poll_request(self.now, UnixTime::from_secs(UNIX))
            {
                assert!(self.under_way.insert(request.call, request).is_none());
            }
        }

        /// Waits until this is requested, without answers to other requests; returns the seconds.
        fn wait(&mut self, call: Call) -> u64 {
            let from = self.now;
            loop {
                self.poll();
                if self.under_way.contains_key(&call) {
                    return (self.now - from).as_secs();
                }
                self.now = self
                    .session
                    .next_timeout(UnixTime::from_secs(UNIX))
                    .unwrap()
                    .max(self.now);
            }
        }

        fn answer(&mut self, call: Call, answer: Result<Answer, String>) -> Vec<FromReach> {
            self.wait(call);
            let request = self.under_way.remove(&call).unwrap();
            self.session
                .handle(&request, answer, self.now, UnixTime::from_secs(UNIX))
        }

        /// Returns a world that has entered an empty room.
        fn entered(meeting: Meeting) -> Self {
            let mut world = Self::new(meeting);
            world.answer(
                Call::WhoAmI,
                answer(200, r#"{"user_id":"@me:a.example","device_id":"D"}"#),
            );
            world.answer(Call::Join, answer(200, r#"{"room_id":"!r:b"}"#));
            world.answer(Call::Sync, answer(200, r#"{"next_batch":"s1"}"#));
            world
        }

        fn state(&self) -> RoomState {
            self.session.state(UnixTime::from_secs(UNIX))
        }
    }

    #[test]
    fn a_clock_that_is_wrong_by_the_homeservers_is_said_until_it_is_set() {
        let mut world = World::entered(Meeting {
            keep: None,
            ..meeting()
        });
        let mut sync_at = |date: u64| {
            let mut answer = answer(200, r#"{"next_batch":"s1"}"#).unwrap();
            answer.date = Some(date);
            world.answer(Call::Sync, Ok(answer));
            let state = world.state();
            (state.open, state.problem.unwrap_or_default())
        };
        let day = 86_400;
        assert_eq!(sync_at(UNIX + 40_000), (true, String::new()));
        for (date, words) in [
            (UNIX - day - 7_200, "26 h ahead of the homeserver's"),
            (UNIX + 2 * day, "48 h behind the homeserver's"),
            (0, "500000 h ahead of"),
        ] {
            let (open, problem) = sync_at(date);
            assert!(!open && problem.contains(words), "{problem}");
        }
        assert_eq!(sync_at(UNIX), (true, String::new()));
    }

    #[test]
    fn requests_are_as_the_api_has_them() {
        let mut world = World::new(meeting());
        world.poll();
        let whoami = &world.under_way[&Call::WhoAmI];
        assert_eq!(
            (whoami.method, whoami.path.as_str()),
            ("GET", "/_matrix/client/v3/account/whoami")
        );
        world.answer(Call::WhoAmI, answer(200, r#"{"user_id":"@me:a.example"}"#));
        world.poll();
        let join = &world.under_way[&Call::Join];
        assert_eq!(
            (join.method, join.path.as_str(), join.body.as_deref()),
            (
                "POST",
                "/_matrix/client/v3/join/%23lc%3Ab.example%3A8448?via=b.example%3A8448&server_name=b.example%3A8448",
                Some("{}")
            )
        );
        world.answer(Call::Join, answer(200, r#"{"room_id":"!r:b"}"#));
        world.poll();
        let filter = r#"{"account_data":{"types":[]},"presence":{"types":[]},"room":{"account_data":{"types":[]},"ephemeral":{"types":[]},"rooms":["!r:b"],"state":{"types":["org.librecast.lcroute.node"]},"timeline":{"limit":100,"types":["org.librecast.lcroute.node"]}}}"#;
        let sync = format!(
            "/_matrix/client/v3/sync?filter={}&set_presence=offline",
            segment(filter)
        );
        assert_eq!(
            world.under_way[&Call::Sync].path,
            format!("{sync}&timeout=0")
        );
        // the present content is read before anything is put
        assert!(!world.under_way.contains_key(&Call::Put));
        world.answer(Call::Sync, answer(200, r#"{"next_batch":"s/1"}"#));
        world.wait(Call::Sync);
        assert_eq!(
            world.under_way[&Call::Sync].path,
            format!("{sync}&timeout=30000&since=s%2F1")
        );
        let put = &world.under_way[&Call::Put];
        assert_eq!(
            (put.method, put.path.as_str()),
            (
                "PUT",
                "/_matrix/client/v3/rooms/%21r%3Ab/state/org.librecast.lcroute.node/%40me%3Aa.example"
            )
        );
        let name = keep(1).name;
        let body = format!(r#"{{"records":{{"{name}":{{"sealed":"LZN","until":1800086400}}}}}}"#);
        assert_eq!(put.body.as_deref(), Some(body.as_str()));
        assert!(!world.state().open);
        world.answer(Call::Put, answer(200, r#"{"event_id":"$1"}"#));
        assert!(world.state().open, "{:?}", world.state());
        world.poll();
        assert!(!world.under_way.contains_key(&Call::Put));
    }

    #[test]
    fn values_of_others_are_passed_on_once_and_dead_ones_never() {
        let mut world = World::entered(meeting());
        let old = |n: u8, until: u64| Keep { until, ..keep(n) };
        let (by_a_clock, dead) = (old(4, UNIX - 86_399), old(3, UNIX - 86_400));
        let body = sync_with("@b:b", &[keep(2), by_a_clock, dead]);
        let lines = world.answer(Call::Sync, answer(200, &body));
        let passed_on = [2, 4].map(|n| kept("@b:b", keep(n).name, keep(n).value));
        assert_eq!(lines, passed_on);
        assert_eq!(world.answer(Call::Sync, answer(200, &body)), []);
        assert_eq!(world.state().values, 1);
        let newer = Keep {
            value: Value(vec![9]),
            ..keep(2)
        };
        let body = sync_with("@b:b", std::slice::from_ref(&newer));
        let lines = world.answer(Call::Sync, answer(200, &body));
        assert_eq!(lines, [kept("@b:b", newer.name, newer.value)]);
        world.answer(Call::Sync, answer(200, &sync_with("@b:b", &[])));
        assert_eq!(world.state().values, 0);
    }

    #[test]
    fn nodes_of_one_account_keep_their_values_beside_each_other() {
        let mut world = World::entered(meeting());
        world.answer(Call::Put, answer(200, "{}"));
        // another node of the account overwrote it unseen
        let expired = Keep {
            until: UNIX - 86_400,
            ..keep(3)
        };
        let body = sync_with("@me:a.example", &[keep(2), expired]);
        let lines = world.answer(Call::Sync, answer(200, &body));
        assert_eq!(lines, [kept("@me:a.example", keep(2).name, keep(2).value)]);
        assert!(!world.state().open);
        assert!(world.wait(Call::Put) >= 4, "events are limited");
        let put = world.under_way[&Call::Put].body.clone().unwrap();
        assert!(
            [1, 2]
                .iter()
                .all(|n| put.contains(&keep(*n).name.to_string()))
        );
        assert!(!put.contains(&keep(3).name.to_string()));
        // a full event has room for this node's record
        let full: Vec<_> = (10..10 + MAX_NODES as u8).map(keep).collect();
        world.answer(Call::Put, answer(200, "{}"));
        world.answer(Call::Sync, answer(200, &sync_with("@me:a.example", &full)));
        world.wait(Call::Put);
        let put = world.under_way[&Call::Put].body.clone().unwrap();
        assert!(put.contains(&keep(1).name.to_string()) && put.len() < 32_768);
        assert_eq!(put.matches("sealed").count(), MAX_NODES);
    }

    #[test]
    fn two_hosts_with_one_key_do_not_fill_the_room_and_are_told() {
        let mut world = World::entered(meeting());
        let rival = Keep {
            value: Value(vec![9]),
            ..keep(1)
        };
        // a value of this node's earlier run is not a rival
        let body = sync_with("@me:a.example", std::slice::from_ref(&rival));
        world.answer(Call::Sync, answer(200, &body));
        let pauses: Vec<_> = (0..10)
            .map(|_| {
                let pause = world.wait(Call::Put);
                world.answer(Call::Put, answer(200, "{}"));
                let told = world.state().problem.is_some();
                world.answer(Call::Sync, answer(200, &body));
                (pause, told)
            })
            .collect();
        assert_eq!(
            (&pauses[1..5], pauses[9].0),
            (&[(5, false), (10, true), (20, true), (40, true)][..], 300)
        );
        let problem = world.state().problem;
        assert!(problem.unwrap().contains("both have its key"));
        // a node that is not overwritten any more forgets it
        world.wait(Call::Put);
        world.answer(Call::Put, answer(200, "{}"));
        world.now += LAST_RETRY * 3;
        world.answer(Call::Sync, answer(200, r#"{"next_batch":"s3"}"#));
        assert_eq!(world.state().problem, None);
        // the next day has another name
        world.answer(Call::Sync, answer(200, &body));
        let mut next = meeting();
        next.keep = Some(keep(2));
        assert!(world.session.go_on(&next));
        assert_eq!(world.state().problem, None);
    }

    #[test]
    fn a_new_value_is_put_at_once_and_then_not_faster_than_servers_like() {
        let mut world = World::entered(meeting());
        world.answer(Call::Put, answer(200, "{}"));
        world.now += SECOND * 60;
        let mut next = meeting();
        next.keep = Some(keep(5));
        assert!(world.session.go_on(&next));
        assert_eq!(world.wait(Call::Put), 0);
        world.answer(Call::Put, answer(200, "{}"));
        next.keep = Some(keep(6));
        assert!(world.session.go_on(&next));
        assert_eq!(world.wait(Call::Put), 5);
        next.room = "#other:a".parse().unwrap();
        assert!(!world.session.go_on(&next));
    }

    #[test]
    fn refusals_are_named_and_waited_out() {
        let refused =
            |status, code: &str| answer(status, &format!(r#"{{"errcode":"{code}","error":"x"}}"#));
        let mut world = World::new(meeting());
        let soft = r#"{"errcode":"M_UNKNOWN_TOKEN","error":"x","soft_logout":true}"#;
        world.answer(Call::WhoAmI, answer(401, soft));
        assert!(world.state().problem.unwrap().contains("has expired"));
        let pauses: Vec<_> = (0..12)
            .map(|_| {
                let pause = world.wait(Call::WhoAmI);
                world.answer(Call::WhoAmI, refused(401, "M_UNKNOWN_TOKEN"));
                pause
            })
            .collect();
        assert_eq!((&pauses[..4], pauses[11]), (&[1, 2, 4, 8][..], 300));
        world.answer(Call::WhoAmI, answer(200, r#"{"user_id":"@me:a.example"}"#));
        world.answer(Call::Join, refused(403, "M_FORBIDDEN"));
        assert!(world.state().problem.unwrap().contains("have it invited"));
        world.answer(Call::Join, answer(200, r#"{"room_id":"!r:b"}"#));
        world.answer(Call::Sync, answer(200, r#"{"next_batch":"s1"}"#));
        world.answer(Call::Put, refused(403, "M_FORBIDDEN"));
        assert!(
            world
                .state()
                .problem
                .unwrap()
                .contains("permission to send")
        );
        let limit = r#"{"errcode":"M_LIMIT_EXCEEDED","error":"x","retry_after_ms":70000}"#;
        world.answer(Call::Put, answer(429, limit));
        assert_eq!(world.wait(Call::Put), 70);
        let mut header = answer(429, "{}").unwrap();
        header.retry_after = Some(90);
        world.answer(Call::Put, Ok(header));
        assert_eq!(world.wait(Call::Put), 90);
        let for_ever = r#"{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":9999999999999}"#;
        world.answer(Call::Put, answer(429, for_ever));
        assert_eq!(world.wait(Call::Put), 3_600);
        world.answer(Call::Put, answer(200, "{}"));
        // a stranger's text is not shown
        world.answer(Call::Sync, refused(500, "no such\\u001b thing"));
        assert_eq!(
            world.state().problem.as_deref(),
            Some("the homeserver refuses: HTTP 500")
        );
        world.answer(
            Call::Sync,
            Err("the homeserver does not answer in time".into()),
        );
        assert!(!world.state().open);
        world.answer(Call::Sync, answer(200, r#"{"next_batch":"s2"}"#));
        assert!(world.state().open);
    }

    #[test]
    fn a_record_that_was_put_though_no_answer_came_is_no_problem() {
        let mut world = World::entered(meeting());
        world.answer(Call::Put, Err("it does not answer in time".into()));
        assert!(!world.state().open);
        // another one is in the room
        let sync = sync_with("@me:a.example", &[keep(2)]);
        world.answer(Call::Sync, answer(200, &sync));
        assert!(world.state().problem.is_some());
        let sync = sync_with("@me:a.example", &[keep(1)]);
        world.answer(Call::Sync, answer(200, &sync));
        let state = world.state();
        assert_eq!((state.open, state.problem), (true, None));
    }

    #[test]
    fn a_room_that_is_left_is_entered_again_and_an_unknown_point_in_time_forgotten() {
        let mut world = World::entered(meeting());
        world.answer(Call::Put, answer(200, "{}"));
        world.answer(Call::Sync, answer(400, r#"{"errcode":"M_UNKNOWN_POS"}"#));
        world.wait(Call::Sync);
        assert!(!world.under_way[&Call::Sync].path.contains("since="));
        let left = r#"{"next_batch":"s3","rooms":{"leave":{"!r:b":{}}}}"#;
        world.answer(Call::Sync, answer(200, left));
        assert!(!world.state().open);
        world.answer(Call::Join, answer(200, r#"{"room_id":"!r:b"}"#));
        world.answer(Call::Sync, answer(200, "nonsense"));
        assert!(world.state().problem.unwrap().contains("makes no sense"));
        world.answer(Call::Sync, answer(200, r#"{"next_batch":"s1"}"#));
        // the event ended with the membership, as far as is known
        world.answer(Call::Put, answer(200, "{}"));
        assert!(world.state().open);
    }

    #[test]
    fn a_token_of_another_account_is_not_used() {
        let mut meeting = meeting();
        meeting.user = Some("@you:a.example".into());
        let mut world = World::new(meeting);
        world.answer(Call::WhoAmI, answer(200, r#"{"user_id":"@me:a.example"}"#));
        assert!(
            world
                .state()
                .problem
                .unwrap()
                .contains("not of @you:a.example")
        );
        assert_eq!(world.wait(Call::WhoAmI), 300);
    }

    #[test]
    fn values_of_a_whole_room_are_bounded() {
        let mut world = World::entered(meeting());
        let mut passed = 0;
        for n in 0..140 {
            let entries: Vec<_> = (10..10 + MAX_NODES as u8).map(keep).collect();
            let body = sync_with(&format!("@{n}:b"), &entries);
            passed += world.answer(Call::Sync, answer(200, &body)).len();
        }
        assert_eq!((passed, world.state().values), (MAX_VALUES, MAX_VALUES));
        assert_eq!(
            world.state().dropped[FULL],
            140 * MAX_NODES as u64 - MAX_VALUES as u64
        );
    }
}
