//! The commands: each sends requests to the running program.

mod boards;
mod call;
mod devices;
mod exec;
mod shared;
mod wake;

use std::fmt::Display;
use std::io::{BufRead, IsTerminal, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use lcgroup_core::DEVICE_PREFIX;
use librecast::code;
use librecast::id::{PeerId, derive};
use librecast::outside::Place;
use librecast::plain::{clean, quoted};
use librecast::text::TextKind;
use librecast::time::{UnixTime, utc};
use librecast_program::arguments;
use librecast_program::book::{self, Book, PREFIX};
use librecast_program::cli::{self, Exit, ExitError, print_line};
use librecast_program::groups;
use serde_json::{Value, json};
pub use wake::Wakes;
use zeroize::Zeroizing;

use crate::conversation::Message;
use crate::file_text::{files_text, tell_problem};
use crate::logs::DEFAULT_KEEP;
use crate::names::{EARLIER, is_called};
use crate::qr;
use crate::request::{
    DeputyStatus, GroupStatus, InvitationStatus, MAX_TEXT, MemberStatus, NetworkStatus,
    ProtectedStatus, Request, Status, Tail,
};
use crate::shelf::megabytes;

/// Tells the user something beside the result.
fn hint(line: impl Display) {
    cli::hint("lcgroup", line);
}

/// Bytes read from stdin: the longest message, an end of line, and one more.
const MAX_CONTENT: u64 = MAX_TEXT as u64 + 2;

/// Pause between two checks for the owner's answer.
const WAIT_INTERVAL: Duration = Duration::from_millis(300);

/// Longest wait until lcroute seals with the current keys.
const SEALED_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest wait of `send` for the owner's log, if members are received. Chosen: 3 s are usual.
const SPOKEN_TIMEOUT: Duration = Duration::from_secs(6);

/// Longest wait of `send` until other hosts have shown whether this folder is an old copy. Chosen:
/// 3 s are usual, and 10 s where entries are missing.
const CHECKED_TIMEOUT: Duration = Duration::from_secs(12);

/// Time without output while a command waits. Chosen: users do not wonder yet.
const SILENCE: Duration = Duration::from_millis(1_500);

/// Time after which a wait for membership names things to check. Chosen: twice the usual time.
const ALARM: Duration = Duration::from_secs(5);

/// Age from which a call does not ring any more.
const RINGS: Duration = Duration::from_secs(60);

/// Bytes behind the words of a member: eight words. Chosen: beyond 80 bits, and said in a breath.
const WORD_BYTES: usize = 11;

/// The default folder of groups.
pub fn default_state_dir() -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return "/var/lib/lcgroup".into();
    }
    let below = || {
        let home = std::env::var_os("HOME").unwrap_or_else(|| "/".into());
        PathBuf::from(home).join(".local/state")
    };
    folder("XDG_STATE_HOME")
        .unwrap_or_else(below)
        .join("lcgroup")
}

/// Eight words of a member's key in a group: 88 bits, which nobody finds again by trial.
fn words_of(group: &PeerId, author: &PeerId) -> String {
    let bits = derive(
        "lcgroup 2026 words of a member",
        &[group.public_key(), author.public_key()],
    );
    code::spell(&bits[..WORD_BYTES])
}

/// Whether these are the words, as a person tells them: in one argument or in several, any case.
fn are_the_words(words: &str, told: &[String]) -> bool {
    let told = told.iter().flat_map(|part| part.split_whitespace());
    words.split(' ').eq(told.map(str::to_lowercase))
}

fn folder(variable: &str) -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os(variable)?);
    folder.is_absolute().then_some(folder)
}

/// `lcgroup init`.
pub fn init(state: &Path, as_json: bool) -> anyhow::Result<Exit> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(state)
        .with_context(|| state.display().to_string())?;
    match as_json {
        true => print_line(json!({ "state_dir": state }).to_string())?,
        false => print_line(format!(
            "groups are in {}; next: `lcgroup run`",
            state.display()
        ))?,
    }
    Ok(Exit::Ok)
}

/// Returns the reason of a wait for membership; early on without suspicions.
fn why_no_member(waits: &str, on: &str, is_early: bool) -> String {
    match waits.split_once(": ") {
        Some((what, _)) if is_early => what.to_owned(),
        _ => format!("{waits} (on {on})"),
    }
}

/// A wait, explained on standard error: the missing condition, and the things to check.
pub struct Waiting {
    since: Instant,
    told: String,
    quiet: bool,
}

impl Waiting {
    pub fn new(quiet: bool) -> Self {
        Self {
            since: Instant::now(),
            told: String::new(),
            quiet,
        }
    }

    /// Prints the explanation, unless the wait is short or the text is unchanged.
    pub fn tell(&mut self, text: impl FnOnce() -> String) {
        if self.quiet || self.since.elapsed() < SILENCE {
            return;
        }
        let text = text();
        if text != self.told && !text.is_empty() {
            hint(&text);
            self.told = text;
        }
    }
}

/// Sends requests to the socket, and prints answers.
#[derive(Debug)]
pub struct Verbs {
    pub control: PathBuf,
    pub json: bool,
}

impl Verbs {
    pub fn create(
        &self,
        group: &str,
        name: Option<String>,
        topic: String,
        terms: (Option<u64>, Option<u64>),
        network: Option<Vec<Place>>,
    ) -> anyhow::Result<Exit> {
        let on_lans = network.as_ref().is_some_and(Vec::is_empty);
        let (keep_s, history_s) = terms;
        let topic = match topic.as_str() {
            "" => group.to_owned(),
            _ => topic,
        };
        let name = name.map_or_else(user_name, Ok)?;
        let answer = self.ask(&Request::Create {
            group: group.to_owned(),
            name,
            topic,
            keep_s,
            history_s,
            outside: network.is_some(),
            places: network.unwrap_or_default(),
        })?;
        if on_lans && !self.json {
            hint(format_args!(
                "without a place it is found on LANs, and where [outside] of the configuration says (--at HOST names a place); `lcgroup status` shows the UDP port that a closed firewall must let in"
            ));
        }
        self.say(&answer, |_| {
            format!("{group} is there; next: `lcgroup invite {group}`")
        })
    }

    pub fn invite(&self, group: String, uses: u32, expires: Duration) -> anyhow::Result<Exit> {
        let expires_s = expires.as_secs();
        let answer = self.ask(&Request::Invite {
            group,
            uses,
            expires_s,
        })?;
        self.say(&answer, |a| text(&a["invitation"]))
    }

    pub fn invitations(&self, group: String) -> anyhow::Result<Exit> {
        let answer = self.ask(&Request::Invitations { group })?;
        if self.json {
            print_line(answer.to_string())?;
            return Ok(Exit::Ok);
        }
        let open: Vec<InvitationStatus> = serde_json::from_value(answer["invitations"].clone())?;
        if open.is_empty() {
            print_line("none that anybody can use")?;
        }
        for InvitationStatus { id, expires, left } in open {
            let until = utc(expires / 1_000);
            print_line(format!("{id}  for {left}  until {until}"))?;
        }
        Ok(Exit::Ok)
    }

    pub fn withdraw(&self, group: String, invitation: &str) -> anyhow::Result<Exit> {
        let invitation = arguments::secret(invitation)?;
        let answer = self.ask(&Request::Withdraw { group, invitation })?;
        self.say(&answer, |_| {
            "withdrawn: nobody becomes a member by it any more".into()
        })
    }

    pub fn join(
        &self,
        line: &str,
        group: Option<String>,
        name: Option<String>,
        wait: bool,
    ) -> anyhow::Result<Exit> {
        let invitation = arguments::secret(line)?;
        let name = match name {
            Some(name) => name,
            None if invitation.trim().starts_with(DEVICE_PREFIX) => devices::host_name(),
            None => user_name()?,
        };
        let answer = self.ask(&Request::Join {
            invitation,
            group,
            name,
        })?;
        let group = text(&answer["name"]);
        if wait {
            self.wait_until_member(&group)?;
        }
        let waits = answer["waits"].as_str();
        let member = answer["device_of"].as_str();
        self.say(&answer, |_| match (wait, waits) {
            (true, _) if let Some(member) = member => {
                format!("a device of {} in {group}", printable(member))
            }
            (true, _) => format!("a member of {group}"),
            (false, Some(waits)) => {
                format!("asked for {group} before, and not let in yet: it {waits}")
            }
            (false, None) => {
                format!("asked for {group}: a member once its owner has answered (lcgroup status)")
            }
        })
    }

    fn wait_until_member(&self, group: &str) -> anyhow::Result<()> {
        let mut waiting = Waiting::new(self.json);
        loop {
            let group = group.to_owned();
            let answer = self.ask(&Request::Await { group })?;
            let known: GroupStatus = serde_json::from_value(answer["group"].clone())?;
            if let Some(problem) = known.problem {
                return Err(ExitError::new(Exit::NotPermitted, problem).into());
            }
            if known.is_settled() {
                return Ok(());
            }
            if let Some(notice) = known.notices.last().filter(|n| n.contains("expired")) {
                anyhow::bail!("{notice}");
            }
            let on = text(&answer["interfaces"]);
            let waits = known
                .waits
                .or(known.network.and_then(|network| network.waits));
            let is_early = waiting.since.elapsed() < ALARM;
            waiting.tell(|| why_no_member(&waits.unwrap_or_default(), &on, is_early));
            thread::sleep(WAIT_INTERVAL);
        }
    }

    pub fn send(&self, group: String, words: &[String]) -> anyhow::Result<Exit> {
        let request = if words.is_empty() {
            let mut content = Zeroizing::new(Vec::new());
            librecast_program::cli::note_of_input("the message");
            librecast_program::standard::input()
                .take(MAX_CONTENT)
                .read_to_end(&mut content)?;
            // the final end of line is not part of the message
            let end = content.strip_suffix(b"\n").unwrap_or(&content);
            match std::str::from_utf8(end) {
                Ok(words) => Request::Send {
                    group,
                    text: Some(Zeroizing::new(words.to_owned())),
                    bytes: None,
                },
                Err(_) => Request::Send {
                    group,
                    text: None,
                    bytes: Some(Zeroizing::new(BASE64.encode(&content[..]))),
                },
            }
        } else {
            Request::Send {
                group,
                text: Some(Zeroizing::new(words.join(" "))),
                bytes: None,
            }
        };
        let of = match &request {
            Request::Send { group, .. } => group.clone(),
            _ => String::new(),
        };
        let answer = self.ask_when_checked(&request, &of)?;
        self.tell_sent(&of, answer)
    }

    /// Prints what becomes of a message that was sent.
    pub fn tell_sent(&self, of: &str, answer: Value) -> anyhow::Result<Exit> {
        let answer = self.spoken(of, answer)?;
        match self.json {
            true => print_line(answer.to_string())?,
            false => Self::tell_kept(&answer),
        }
        Ok(Exit::Ok)
    }

    /// Waits a moment for a message that waits for other hosts; returns the answer as it stands then.
    fn spoken(&self, of: &str, mut answer: Value) -> anyhow::Result<Value> {
        if answer["shortly"] == true {
            // this folder may prove to be an old copy, which sends no messages
            let mut waiting = Waiting::new(self.json);
            let still = self.wait_until(SPOKEN_TIMEOUT, || {
                let group = self.group(of)?;
                if let Some(problem) = group.problem {
                    return Err(ExitError::new(Exit::Failed, problem).into());
                }
                waiting.tell(|| group.waits.clone().unwrap_or_default());
                Ok(group.waits.is_none().then_some(()))
            })?;
            if still.is_some()
                && let Some(answer) = answer.as_object_mut()
            {
                answer.remove("waits");
            }
        }
        Ok(answer)
    }

    /// Tells why a message waits, and that clocks differ.
    fn tell_kept(answer: &Value) {
        if let Some(waits) = answer["waits"].as_str() {
            hint(format_args!("it is kept here, and {waits}"));
        }
        if let Some(clock) = answer["clock"].as_str() {
            hint(format_args!("it is sent; {clock}"));
        }
    }

    /// Asks again while the program checks whether its folder is an old copy.
    fn ask_when_checked(&self, request: &Request, group: &str) -> anyhow::Result<Value> {
        self.when_checked(group, || self.ask(request))
    }

    /// Does something again while the program checks whether its folder is an old copy.
    pub fn when_checked<T>(
        &self,
        group: &str,
        ask: impl Fn() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let mut waiting = Waiting::new(self.json);
        let until = Instant::now() + CHECKED_TIMEOUT;
        loop {
            let asked = ask();
            let checks = asked.is_err() && self.group(group).is_ok_and(|group| group.checks);
            if !checks || Instant::now() >= until {
                return asked;
            }
            waiting.tell(|| {
                "waits for other hosts of the group: this folder may be an old copy".into()
            });
            thread::sleep(WAIT_INTERVAL);
        }
    }

    pub fn tail(&self, tail: &Tail) -> anyhow::Result<Exit> {
        let group = self.group(&tail.group)?;
        if let Some(problem) = &group.problem {
            hint(problem);
        }
        let takes_part = takes_part(&tail.group, group.network.is_some());
        let request = Request::Tail(tail.clone());
        let mut reader = groups::send(&self.control, &request)?;
        let (mut line, mut read) = (String::new(), 0);
        loop {
            // scripts read by numbers of their own
            if tail.follow && read > 0 && reader.buffer().is_empty() {
                self.mark_read(&tail.group, std::mem::take(&mut read));
            }
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                anyhow::ensure!(tail.follow, "lcgroup ended");
                return Err(ExitError::new(Exit::Unreachable, "lcgroup ended").into());
            }
            let value: Value = serde_json::from_str(&line)?;
            if value.get("n").is_none() {
                serde_json::from_value::<groups::Answer<Value>>(value)?.result()?;
                if read > 0 {
                    self.mark_read(&tail.group, read);
                }
                return Ok(Exit::Ok);
            }
            match self.json {
                true => print_line(line.trim_end())?,
                false => {
                    let name = text(&value["shown"]);
                    read = value["n"].as_u64().unwrap_or(0);
                    let is_own = value["own"] == true;
                    let message = serde_json::from_value(value)?;
                    let line = shown(&tail.group, &takes_part, &message, &name);
                    let rings = tail.follow && !is_own && is_ringing(&message);
                    match rings && std::io::stdout().is_terminal() {
                        true => print_line(format!("\u{7}{line}"))?,
                        false => print_line(line)?,
                    }
                }
            }
        }
    }

    pub fn members(&self, group: String) -> anyhow::Result<Exit> {
        let answer = self.ask(&Request::Members { group })?;
        if self.json {
            print_line(answer.to_string())?;
            return Ok(Exit::Ok);
        }
        let members: Vec<MemberStatus> = serde_json::from_value(answer["members"].clone())?;
        let book = Book::of_user()?;
        for member in members {
            let marks = [(member.owner, " owner"), (member.me, " you")];
            let mut marks: String = marks.iter().filter(|m| m.0).map(|m| m.1).collect();
            marks.push_str(&devices::count(&member));
            if let Some(name) = book.name_of(&member.person) {
                marks = format!("{marks} {PREFIX}{name}");
            }
            let line = format!("{:<20}{marks}", printable(&member.shown));
            print_line(line.trim_end())?;
        }
        Ok(Exit::Ok)
    }

    pub fn verify(
        &self,
        group: &str,
        member: Option<&str>,
        told: &[String],
        qr: bool,
    ) -> anyhow::Result<Exit> {
        let member = member.map(book::node).transpose()?;
        let member = member.as_deref();
        let status = self.group(group)?;
        let answer = self.ask(&Request::Members {
            group: group.to_owned(),
        })?;
        let members: Vec<MemberStatus> = serde_json::from_value(answer["members"].clone())?;
        let is_meant = |m: &&MemberStatus| match member {
            Some(who) => is_called(who, (&m.person, &m.name, &m.shown)),
            None => m.me,
        };
        let mut meant = members.iter().filter(is_meant);
        let (Some(found), None) = (meant.next(), meant.next()) else {
            let who = quoted(member.unwrap_or("this host"));
            let text = format!(
                "{who} is not a member of {group}, or several: lcgroup members {group} lists names with marks"
            );
            return Err(ExitError::new(Exit::Usage, text).into());
        };
        let (words, name) = (
            words_of(&status.group, &found.person),
            printable(&found.shown),
        );
        // the first device's key vouches for the others
        let (key, book) = (found.person, Book::of_user()?);
        let known = book.name_of(&key);
        let mut answer =
            json!({ "name": found.name, "author": key, "words": words, "book": known });
        if !told.is_empty() {
            if !are_the_words(&words, told) {
                let text = format!(
                    "other words than those of {name} in {group}: this member is somebody else, or a word was misheard"
                );
                return Err(ExitError::new(Exit::Failed, text).into());
            }
            answer["same"] = true.into();
            return self.say(&answer, |_| match known {
                Some(known) => format!("the same words: {name} is {PREFIX}{known}"),
                None => format!("the same words: lcroute book add NAME {key}"),
            });
        }
        if qr && !self.json {
            qr::print(&words)?;
        }
        self.say(&answer, |_| match (member, known) {
            (None, _) => format!("{words}\nWhoever verifies you is shown these words."),
            (_, Some(known)) => format!("{words}\n{name} is {PREFIX}{known}."),
            (_, None) => format!(
                "{words}\nAsk {name}, by a path that nobody else can write on, for the words of `lcgroup verify` there. \
                 If they are the same: lcroute book add NAME {key}\n\
                 `lcgroup verify {group} MEMBER WORDS...` compares them."
            ),
        })
    }

    pub fn remove(
        &self,
        group: String,
        member: &str,
        device: Option<String>,
        tell: bool,
    ) -> anyhow::Result<Exit> {
        let of = group.clone();
        let member = book::node(member)?;
        let answer = self.ask(&Request::Remove {
            group,
            member,
            device,
            tell,
        })?;
        // waits for the new epoch: its keys, which the removed member lacks, seal all later packets
        let before = answer["epoch"].as_u64();
        let mut waiting = Waiting::new(self.json);
        let done = self.wait_until(SEALED_TIMEOUT, || {
            let group = self.group(&of)?;
            waiting.tell(|| "waits for new keys, and for lcroute to seal with them where a prefix is protected".into());
            let is_new = |epoch: Option<u64>| epoch > before;
            let mut sealed = group.prefixes.iter().filter(|p| p.sealed);
            Ok((is_new(group.epoch) && sealed.all(|p| p.epoch == group.epoch)).then_some(()))
        })?;
        self.say(&answer, |_| match done {
            Some(()) if tell => "removed; it reads nothing that is said from now on".into(),
            Some(()) => "removed, and not told; it reads nothing that is said from now on".into(),
            None => format!(
                "the removal is under way: until `lcgroup status` shows another epoch than {}, it reads what is said",
                before.unwrap_or_default()
            ),
        })
    }

    pub fn add_deputy(&self, group: String, who: &str, after: Duration) -> anyhow::Result<Exit> {
        let of = group.clone();
        let answer = self.ask(&Request::AddDeputy {
            group,
            member: book::node(who)?,
            after_s: after.as_secs(),
        })?;
        self.say(&answer, |_| {
            format!(
                "{} takes over once the owner is silent for {} of its host's uptime: `lcgroup deputy list {of}`",
                printable(who),
                span(after.as_secs())
            )
        })
    }

    pub fn remove_deputy(&self, group: String, who: &str) -> anyhow::Result<Exit> {
        let member = book::node(who)?;
        let answer = self.ask(&Request::RemoveDeputy { group, member })?;
        self.say(&answer, |_| {
            format!("{} is no deputy any more", printable(who))
        })
    }

    pub fn hand_over(&self, group: String, who: &str) -> anyhow::Result<Exit> {
        let of = group.clone();
        let member = book::node(who)?;
        let answer = self.ask(&Request::HandOver { group, member })?;
        let (next, who) = (text(&answer["author"]), printable(who));
        let mut waiting = Waiting::new(self.json);
        let done = self.wait_until(SEALED_TIMEOUT, || {
            waiting.tell(|| format!("waits for the host of {who}: does `lcgroup run` run there?"));
            let group = of.clone();
            let answer = self.ask(&Request::Deputies { group })?;
            let all: Vec<DeputyStatus> = serde_json::from_value(answer["deputies"].clone())?;
            let agrees = |d: &DeputyStatus| d.in_office == (d.author.to_string() == next);
            Ok(all.iter().all(agrees).then_some(()))
        })?;
        self.say(&answer, |_| match done {
            Some(()) => format!(
                "{who} lets members join and removes them now; open invitations of this host are void"
            ),
            None => format!(
                "{who} takes over once its host is there. Until then nobody joins or leaves; after the time of silence in `lcgroup deputy list {of}` the owner or another deputy goes on"
            ),
        })
    }

    pub fn deputies(&self, group: String) -> anyhow::Result<Exit> {
        let answer = self.ask(&Request::Deputies { group })?;
        if self.json {
            print_line(answer.to_string())?;
            return Ok(Exit::Ok);
        }
        let deputies: Vec<DeputyStatus> = serde_json::from_value(answer["deputies"].clone())?;
        if deputies.is_empty() {
            print_line("none: `lcgroup deputy add` names one")?;
        }
        for deputy in deputies {
            let after = span(deputy.after_s.into());
            let mark = match (deputy.in_office, deputy.named) {
                (true, _) => "  in office",
                (false, true) => "",
                (false, false) => "  no longer",
            };
            let line = format!("{:<20} after {after}{mark}", printable(&deputy.shown));
            print_line(line)?;
        }
        Ok(Exit::Ok)
    }

    pub fn protect(&self, group: String, prefix: String, end: bool) -> anyhow::Result<Exit> {
        let of = group.clone();
        let answer = self.ask(&Request::Protect { group, prefix, end })?;
        let prefix = text(&answer["prefix"]);
        if end {
            return self.say(&answer, |_| {
                format!("{prefix} is closed here until other keys are given")
            });
        }
        let mut waiting = Waiting::new(self.json);
        let known = self.wait_until(SEALED_TIMEOUT, || {
            waiting.tell(|| {
                "waits for lcroute to take the keys: does `lcroute status` answer?".into()
            });
            let status = self.group(&of)?.prefixes.into_iter();
            let mut status = status.filter(|p| p.prefix == prefix);
            Ok(status.next().filter(|p| p.sealed || p.problem.is_some()))
        })?;
        match known {
            Some(ProtectedStatus { sealed: true, .. }) => {
                self.say(&answer, |_| format!("{prefix} is sealed by keys of {of}"))
            }
            Some(ProtectedStatus { problem, .. }) => {
                let problem = problem.unwrap_or_default();
                let text = format!("{prefix} is closed until this is mended: {problem}");
                Err(ExitError::new(Exit::Failed, text).into())
            }
            None => {
                let text = format!("{prefix} is sealed once this host is a member of {of}");
                self.say(&answer, |_| text)
            }
        }
    }

    /// Returns one group of `status`.
    fn group(&self, name: &str) -> anyhow::Result<GroupStatus> {
        let status: Status = serde_json::from_value(self.ask(&Request::Status {})?)?;
        let mut groups = status.groups.into_iter();
        let found = groups.find(|group| group.name == name);
        let none = || {
            let text = format!("no group is called {name:?}: lcgroup status lists them");
            ExitError::new(Exit::Usage, text)
        };
        Ok(found.ok_or_else(none)?)
    }

    /// Calls `look` until it returns a value; none after `timeout`.
    fn wait_until<T>(
        &self,
        timeout: Duration,
        mut look: impl FnMut() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<Option<T>> {
        let until = Instant::now() + timeout;
        loop {
            let found = look()?;
            if found.is_some() || Instant::now() >= until {
                return Ok(found);
            }
            thread::sleep(WAIT_INTERVAL);
        }
    }

    pub fn refresh(&self, group: String) -> anyhow::Result<Exit> {
        let answer = self.ask(&Request::Refresh { group })?;
        self.say(&answer, |_| "asked: the owner's next commit has it".into())
    }

    pub fn leave(&self, group: String, forget: bool) -> anyhow::Result<Exit> {
        let answer = self.ask(&Request::Leave { group, forget })?;
        self.say(&answer, |_| match forget {
            true => "deleted".into(),
            false => "told the owner; `lcgroup leave --forget` deletes what is here".into(),
        })
    }

    pub fn outbox(
        &self,
        group: String,
        resend: Option<String>,
        discard: Option<String>,
    ) -> anyhow::Result<Exit> {
        let request = match (resend, discard) {
            (Some(id), _) => Request::Resend { group, id },
            (None, Some(id)) => Request::Discard { group, id },
            (None, None) => Request::Outbox { group },
        };
        let answer = self.ask(&request)?;
        self.say(&answer, |answer| {
            let all = answer["outbox"].as_array().into_iter().flatten();
            let lines =
                all.map(|m| format!("{}  {}", text(&m["id"]), printable(&text(&m["text"]))));
            lines.collect::<Vec<_>>().join("\n")
        })
    }

    pub fn status(&self) -> anyhow::Result<Exit> {
        let answer = self.ask(&Request::Status {})?;
        if self.json {
            print_line(answer.to_string())?;
            return Ok(Exit::Ok);
        }
        let status: Status = serde_json::from_value(answer)?;
        for group in status.groups {
            let missing = match group.missing {
                0 => String::new(),
                n => format!(", {n} entries on their way"),
            };
            let unread = match group.unread {
                0 => String::new(),
                n => format!(", {n} new"),
            };
            print_line(format!(
                "{:<20} {}, {} members, {} messages{unread}{missing}{}",
                group.name,
                group.state,
                group.members,
                group.messages,
                files_text(&group.files)
            ))?;
            tell_problem(&group.files)?;
            if group.keep_s != Some(DEFAULT_KEEP) {
                print_line(format!("  keeps what was said {}", keep_text(group.keep_s)))?;
            }
            if group.history_s != Some(0) {
                let last = match group.history_s {
                    Some(seconds) => format!("what was said in the last {}", span(seconds)),
                    None => "all that was said".to_owned(),
                };
                print_line(format!("  newcomers read {last}, as the owner has it"))?;
            }
            if group.log.displaced > 0 {
                print_line(
                    "  the group is full: the oldest words of those who wrote most are dropped before their time",
                )?;
            }
            let shown = group.waits.clone().filter(|_| group.problem.is_none());
            if let Some(problem) = group.problem {
                print_line(format!("  {problem}"))?;
            } else if let Some(waits) = group.waits {
                let what = match group.state.as_str() {
                    "joining" => "it",
                    _ => "what is said",
                };
                print_line(format!("  {what} {waits}"))?;
            }
            if let Some(network) = group.network {
                print_line(network_line(&network, shown.as_deref()))?;
            }
            if let Some(clock) = group.clock {
                print_line(format!("  {clock}"))?;
            }
            for protected in group.prefixes {
                let stands = match (protected.sealed, protected.problem) {
                    (true, _) => "sealed by its keys".to_owned(),
                    (false, Some(problem)) => format!("closed here: {problem}"),
                    (false, None) => "closed here".to_owned(),
                };
                print_line(format!("  {}: {stands}", protected.prefix))?;
            }
            for notice in group.notices.iter().rev().take(3).rev() {
                print_line(format!("  {}", printable(notice)))?;
            }
        }
        for held in status.held {
            print_line(format!(
                "{:<20} held, {} entries of {} authors{}",
                held.name,
                held.log.entries,
                held.authors,
                files_text(&held.files)
            ))?;
            tell_problem(&held.files)?;
            if let Some(network) = held.network {
                print_line(network_line(&network, None))?;
            }
        }
        for board in status.boards {
            let role = if board.writes { "writes" } else { "follows" };
            print_line(format!(
                "{:<20} board, {role}, {} posts",
                board.name, board.posts
            ))?;
            if let Some(problem) = board.problem {
                print_line(format!("  {problem}"))?;
            }
        }
        Ok(Exit::Ok)
    }

    pub fn hold(
        &self,
        line: Option<String>,
        (name, space): (String, Option<u64>),
        key: Option<String>,
        end: Option<String>,
    ) -> anyhow::Result<Exit> {
        if let Some(group) = key {
            let answer = self.ask(&Request::HoldingKey { group })?;
            return self.say(&answer, |a| text(&a["key"]));
        }
        if let Some(name) = end {
            let answer = self.ask(&Request::Unhold { name })?;
            return self.say(&answer, |_| "deleted".into());
        }
        let key = arguments::secret(&line.unwrap_or_default())?;
        if TextKind::of(&key) == Some(TextKind::CastingGrant) {
            // the prefix of boards: whoever follows one holds it
            let name = Some(name).filter(|name| name != "held");
            return self.follow(&key, name);
        }
        let shown = name.clone();
        let answer = self.ask(&Request::Hold { key, name, space })?;
        let space = megabytes(answer["space"].as_u64().unwrap_or(0));
        self.say(&answer, |_| {
            format!("{shown} is held here, with up to {space} of files")
        })
    }

    fn say(&self, answer: &Value, line: impl FnOnce(&Value) -> String) -> anyhow::Result<Exit> {
        let line = match self.json {
            true => answer.to_string(),
            false => line(answer),
        };
        if !line.is_empty() {
            print_line(&line)?;
        }
        Ok(Exit::Ok)
    }

    fn ask(&self, request: &Request) -> anyhow::Result<Value> {
        groups::ask(&self.control, request, self.json)
    }
}

/// Formats the state of a group's own network, without what was told before.
fn network_line(network: &NetworkStatus, told: Option<&str>) -> String {
    let mut line = format!(
        "  network of its own: {} others here, {} linked",
        network.present, network.links
    );
    if !network.places.is_empty() {
        line += &format!("; at {}", network.places.join(", "));
    }
    if network.port != 0 {
        line += &format!("; UDP port {}", network.port);
    }
    if let Some(mapped) = network.mapped {
        line += &format!(", reached at {mapped} (mapped)");
    }
    if let Some(waits) = &network.waits
        && told != Some(waits)
    {
        line += &format!("\n  it {waits}");
    }
    line
}

/// Formats such as `for 365 days`, or `for ever`.
fn keep_text(seconds: Option<u64>) -> String {
    seconds.map_or("for ever".into(), |s| format!("for {}", span(s)))
}

/// Formats such as `7 days`, in the largest unit that is exact.
fn span(seconds: u64) -> String {
    let units = [(86_400, "days"), (3_600, "hours"), (60, "minutes")];
    let exact = |(length, _): &(u64, &str)| seconds >= *length && seconds.is_multiple_of(*length);
    let (length, unit) = units.into_iter().find(exact).unwrap_or((1, "seconds"));
    match seconds / length {
        1 => format!("1 {}", unit.trim_end_matches('s')),
        n => format!("{n} {unit}"),
    }
}

/// Returns the command that takes part in a call, up to its text.
fn takes_part(group: &str, has_own_network: bool) -> String {
    match has_own_network {
        true => format!("lcgroup call {group}"),
        false => "lcradio call".to_owned(),
    }
}

/// Formats a message as a line, without control characters. `takes_part` begins the command for a
/// call.
fn shown(group: &str, takes_part: &str, message: &Message, name: &str) -> String {
    let time = utc(message.time / 1_000);
    let said = match (&message.text, &message.bytes, &message.files) {
        (Some(text), _, _) => printable(text),
        (None, Some(bytes), _) => format!("({} characters of base64)", bytes.len()),
        (None, None, Some(name)) => {
            let share = quoted(&format!("lc:{name}"));
            format!(
                "shares {}: lcsync --lcgroup {group} {share} DEST",
                clean(name)
            )
        }
        (None, None, None) => match &message.file {
            Some(file) => format!(
                "sends {} ({}): lcgroup get {group} {}",
                clean(&file.name),
                megabytes(file.length),
                message.n
            ),
            None => match &message.call {
                Some(call) if is_ringing(message) => format!("calls: {takes_part} {call}"),
                Some(call) => format!("called; if it goes on: {takes_part} {call}"),
                None => String::new(),
            },
        },
    };
    let earlier = match message.earlier {
        true => EARLIER,
        false => "",
    };
    format!("{time} {earlier}{}: {said}", printable(name))
}

/// Whether it is a call that has just begun, by its author's clock and this host's.
fn is_ringing(message: &Message) -> bool {
    let age = message.time.abs_diff(UnixTime::now().as_millis());
    message.call.is_some() && age < RINGS.as_millis() as u64
}

/// Formats a text; later lines are indented, so that none looks like another message.
fn printable(text: &str) -> String {
    let lines: Vec<_> = text.split('\n').map(clean).collect();
    lines.join("\n    ")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The default name: the user's.
fn user_name() -> anyhow::Result<String> {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid());
    let user = user.ok().flatten().map(|user| user.name);
    let none = || {
        ExitError::new(
            Exit::Usage,
            "--as NAME says how you call yourself in the group",
        )
    };
    Ok(user.ok_or_else(none)?)
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;

    use super::*;

    #[test]
    fn times_have_the_largest_unit_that_is_exact() {
        let spans = [5 * 3_600, 86_400, 36 * 3_600, 30 * 86_400, 90, 60].map(span);
        let expected = [
            "5 hours",
            "1 day",
            "36 hours",
            "30 days",
            "90 seconds",
            "1 minute",
        ];
        assert_eq!(spans, expected);
    }

    #[test]
    fn a_short_wait_for_membership_suspects_nobody() {
        let waits = "waits for the group's owner: nobody is heard. Does `lcgroup run` run there?";
        assert_eq!(
            why_no_member(waits, "lc0", true),
            "waits for the group's owner"
        );
        assert_eq!(
            why_no_member(waits, "lc0", false),
            format!("{waits} (on lc0)")
        );
    }

    #[test]
    fn words_are_of_one_member_in_one_group() {
        let key = |n: u8| SecretKey::from_seed(&[n; 32]).peer_id();
        let words = words_of(&key(1), &key(2));
        assert_eq!(words, "visa security cute exotic goose orient peanut brick");
        assert_ne!(words, words_of(&key(1), &key(3)));
        assert_ne!(words, words_of(&key(3), &key(2)));
        let told = |told: &[&str]| {
            let told: Vec<String> = told.iter().map(|word| (*word).to_owned()).collect();
            are_the_words(&words, &told)
        };
        assert!(
            told(&[&words]) && told(&[" Visa SECURITY", "cute exotic goose orient peanut brick\n"])
        );
        assert!(!told(&["visa"]) && !told(&[&words, "brick"]) && !told(&[]));
    }

    #[test]
    fn a_name_of_another_is_one_word_of_the_command_that_is_shown() {
        let mut message = Message {
            text: None,
            files: Some("plans'; touch FILE; echo '".into()),
            ..Message::of_ann(1, "")
        };
        let line = shown("team", "", &message, "Ann");
        let command = r"lcsync --lcgroup team 'lc:plans'\''; touch FILE; echo '\''' DEST";
        assert!(line.ends_with(command), "{line}");
        (message.files, message.call) = (None, Some("lcc1x".into()));
        for (has_own_network, command) in [
            (false, ": lcradio call lcc1x"),
            (true, ": lcgroup call team lcc1x"),
        ] {
            let line = shown(
                "team",
                &takes_part("team", has_own_network),
                &message,
                "Ann",
            );
            assert!(line.ends_with(command), "{line}");
        }
    }

    #[test]
    fn what_others_say_moves_no_cursor() {
        assert_eq!(
            printable("a\u{1b}[2Jb\nc\td\u{202e}"),
            "a\u{fffd}[2Jb\n    c\td\u{fffd}"
        );
    }
}
