//! A token by four words: `lcroute invite --code` hands it to the first node that asks; `up` and `join` ask.
//!
//! Both sides execute themselves as guests by the code, with secrets in inherited descriptors. Inside, the inviter's
//! beacon names its key. All else goes to a group of its own, on the port of beacons:
//!
//! ```text
//! message = version 8 = 1 | kind 8 | sender 256 | recipient 256 | body | signature 512 by the sender
//! ask (1)    name text8
//! part (2)   number 8 | count 8 | up to 1,024 bytes of a sealed box to the recipient, with the token as text
//! taken (3)  nothing
//! gone (4)   name text8 of the node that has the token
//! ```
//!
//! All holders of the words read this group, so the token is sealed for its one recipient.

use std::fs::File;
use std::io::Read;
use std::net::Ipv6Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use crypto_box::aead::OsRng;
use crypto_box::{PublicKey, SecretKey as BoxKey};
use lcroute_control::settings::{Common, SIGNAL};
use librecast::cert::{MAX_TOKEN, is_node_name};
use librecast::channel::transient_group;
use librecast::code::beacon::{BEACON_PORT, Offer};
use librecast::code::{BeaconKey, Code};
use librecast::id::{PeerId, SecretKey, derive};
use librecast::socket::{ReceiveSockets, SendSocket};
use librecast::wire::{Reader, WireError, Writer};
use librecast_program::cli::{Exit, ExitError};
use librecast_program::code::{HOP_LIMIT, Offering, interface, wait, wait_for};
use librecast_program::guest;
use librecast_program::guest_state::Inside;
use librecast_program::units::count;
use serde_json::json;
use zeroize::Zeroizing;

use super::{hint, print_line};

/// Time for which the words are good by default. Chosen: a phone call.
pub const GOOD_FOR: Duration = Duration::from_secs(600);

/// Context of the messages' signatures.
const CONTEXT: &str = "lcroute 2026 token by code";
/// Context of the group's address.
const GROUP: &str = "lcroute 2026 token group";
/// Version of the format, its first byte.
const VERSION: u8 = 1;
/// Kind of a message: a node asks for the token.
const ASK: u8 = 1;
/// Kind of a message: a part of the token, sealed.
const PART: u8 = 2;
/// Kind of a message: the node has the token.
const TAKEN: u8 = 3;
/// Kind of a message: another node has the token.
const GONE: u8 = 4;
/// Bytes of a sealed box in one message: with all headers it fits the smallest MTU of IPv6.
const PART_LEN: usize = 1_024;
/// Bytes that a sealed box adds to its content.
const BOX_OVERHEAD: usize = 48;
/// Most parts: of the longest token.
const MAX_PARTS: usize = (MAX_TOKEN + BOX_OVERHEAD).div_ceil(PART_LEN);

/// Interval of looks at the time. Chosen.
const LOOK: Duration = Duration::from_millis(100);
/// Interval of questions. Chosen: some round trips.
const ASK_AGAIN: Duration = Duration::from_millis(300);
/// Time without an answer after which the user is told.
const QUIET: Duration = Duration::from_secs(2);
/// Time without an answer, or a word that the token arrived, after which a side gives up. Chosen: links that break come
/// back within it.
const GIVE_UP: Duration = Duration::from_secs(10);
/// Times that the node says that it has the token: a packet may be lost.
const SAID: usize = 3;

/// Returns a signed message.
fn message(key: &SecretKey, kind: u8, to: &PeerId, body: &[u8]) -> Vec<u8> {
    let mut w = Writer::new();
    w.u8(VERSION).u8(kind);
    w.put(key.peer_id().public_key()).put(to.public_key());
    w.put(body);
    let signature = key.sign(CONTEXT, w.as_slice());
    w.put(&signature);
    w.into_vec()
}

/// Opens a message to `own`: its sender, kind and body.
fn open<'a>(datagram: &'a [u8], own: &PeerId) -> Result<(PeerId, u8, Reader<'a>), WireError> {
    let Some((content, signature)) = datagram.split_last_chunk::<64>() else {
        return Err(WireError::Truncated);
    };
    let mut r = Reader::new(content);
    r.version(VERSION)?;
    let kind = r.u8()?;
    let from: [u8; 32] = r.array()?;
    let to: [u8; 32] = r.array()?;
    if to != *own.public_key() {
        return Err(WireError::Bad("recipient"));
    }
    let from = PeerId::from_public_key(from).map_err(|_| WireError::Bad("sender"))?;
    let verified = from.verify(CONTEXT, content, signature);
    verified.map_err(|_| WireError::Bad("signature"))?;
    Ok((from, kind, r))
}

/// The inviter's side: hands a token to the first node that asks.
struct Handing {
    key: SecretKey,
    token: Zeroizing<String>,
    to: Option<Recipient>,
}

/// The node that gets the token.
struct Recipient {
    key: PeerId,
    name: String,
    /// The messages with the token.
    parts: Vec<Vec<u8>>,
    asked_at: Instant,
    has_it: bool,
}

impl Handing {
    fn new(key: SecretKey, token: Zeroizing<String>) -> Self {
        Self {
            key,
            token,
            to: None,
        }
    }

    /// Handles a message, and returns the answers.
    fn handle(&mut self, datagram: &[u8], now: Instant) -> Result<Vec<Vec<u8>>, WireError> {
        let (from, kind, mut body) = open(datagram, &self.key.peer_id())?;
        match kind {
            ASK => {
                let name = body.text8()?.to_owned();
                body.finish()?;
                if !is_node_name(&name) {
                    return Err(WireError::Bad("name"));
                }
                self.answer(from, name, now)
            }
            TAKEN => {
                body.finish()?;
                if let Some(to) = self.to.as_mut().filter(|to| to.key == from) {
                    to.has_it = true;
                }
                Ok(Vec::new())
            }
            _ => Err(WireError::Bad("kind")),
        }
    }

    fn answer(
        &mut self,
        from: PeerId,
        name: String,
        now: Instant,
    ) -> Result<Vec<Vec<u8>>, WireError> {
        if self.to.is_none() {
            self.to = Some(Recipient {
                key: from,
                name,
                parts: self.parts_for(&from)?,
                asked_at: now,
                has_it: false,
            });
        }
        match &self.to {
            Some(to) if to.key == from => Ok(to.parts.clone()),
            Some(to) => {
                let mut body = Writer::new();
                body.text8(&to.name)?;
                Ok(vec![message(&self.key, GONE, &from, body.as_slice())])
            }
            None => Ok(Vec::new()),
        }
    }

    fn parts_for(&self, to: &PeerId) -> Result<Vec<Vec<u8>>, WireError> {
        let key = to.x25519().map_err(|_| WireError::Bad("sender"))?;
        let sealed = PublicKey::from(key).seal(&mut OsRng, self.token.as_bytes());
        let sealed = sealed.map_err(|_| WireError::Bad("sealing"))?;
        // at most MAX_PARTS
        let count = sealed.len().div_ceil(PART_LEN) as u8;
        let part = |(number, bytes): (u8, &[u8])| {
            let body = [&[number, count][..], bytes].concat();
            message(&self.key, PART, to, &body)
        };
        Ok((0..).zip(sealed.chunks(PART_LEN)).map(part).collect())
    }
}

/// The joining side.
struct Asking {
    key: SecretKey,
    inviter: PeerId,
    parts: Vec<Option<Vec<u8>>>,
}

/// The inviter's answer.
#[derive(PartialEq)]
enum Answer {
    Token(Zeroizing<String>),
    /// The node of this name has it.
    Gone(String),
}

impl Asking {
    fn new(key: SecretKey, inviter: PeerId) -> Self {
        Self {
            key,
            inviter,
            parts: Vec::new(),
        }
    }

    fn ask(&self, name: &str) -> Result<Vec<u8>, WireError> {
        let mut body = Writer::new();
        body.text8(name)?;
        Ok(message(&self.key, ASK, &self.inviter, body.as_slice()))
    }

    fn taken(&self) -> Vec<u8> {
        message(&self.key, TAKEN, &self.inviter, &[])
    }

    fn handle(&mut self, datagram: &[u8]) -> Result<Option<Answer>, WireError> {
        let (from, kind, mut body) = open(datagram, &self.key.peer_id())?;
        if from != self.inviter {
            return Err(WireError::Bad("sender"));
        }
        match kind {
            PART => {
                let (number, count) = (usize::from(body.u8()?), usize::from(body.u8()?));
                let part = body.rest();
                if number >= count || count > MAX_PARTS || part.len() > PART_LEN {
                    return Err(WireError::Bad("part"));
                }
                if self.parts.len() != count {
                    self.parts = vec![None; count];
                }
                self.parts[number] = Some(part.to_vec());
                self.token()
            }
            GONE => {
                let name = body.text8()?.to_owned();
                body.finish()?;
                Ok(Some(Answer::Gone(name)))
            }
            _ => Err(WireError::Bad("kind")),
        }
    }

    /// Returns the token once all parts are here.
    fn token(&self) -> Result<Option<Answer>, WireError> {
        let parts: Option<Vec<&[u8]>> = self.parts.iter().map(Option::as_deref).collect();
        let Some(parts) = parts else {
            return Ok(None);
        };
        let opened = BoxKey::from(*self.key.x25519()).unseal(&parts.concat());
        let opened = opened.map_err(|_| WireError::Bad("sealed box"))?;
        let token = String::from_utf8(opened).map_err(|_| WireError::Bad("utf-8"))?;
        Ok(Some(Answer::Token(Zeroizing::new(token))))
    }
}

/// The group of these messages, on the lc0 of a guest.
struct Group {
    group: Ipv6Addr,
    socket: SendSocket,
    received: ReceiveSockets,
}

impl Group {
    fn join(key: &BeaconKey) -> anyhow::Result<Self> {
        let group = transient_group(&derive(GROUP, &[&key.0]));
        let index = interface()?;
        let mut received = ReceiveSockets::open(BEACON_PORT)?;
        received.join(group, index)?;
        Ok(Self {
            group,
            socket: SendSocket::open(index, group, BEACON_PORT, HOP_LIMIT)?,
            received,
        })
    }

    fn send(&self, message: &[u8]) {
        // a lost one is asked for again
        if let Err(e) = self.socket.send(self.group, message, message.len()) {
            tracing::debug!("token by code: {e}");
        }
    }

    /// Waits for a moment, and passes on what has come.
    fn receive(&mut self, mut take: impl FnMut(&[u8])) -> std::io::Result<()> {
        wait(&self.received, LOOK)?;
        let group = self.group;
        self.received.receive(|datagram| {
            if datagram.group == group {
                take(datagram.payload);
            }
        })?;
        Ok(())
    }
}

/// Executes this program as a guest that makes a code, prints its words, and hands over the token. `server`: where the
/// nodes of the code meet; none: at the servers of the configuration. Returns only on failure.
pub fn offer(
    common: &Common,
    token: &str,
    server: Option<&str>,
    time: Duration,
) -> anyhow::Result<Exit> {
    let fd = handed(token)?;
    let mut command = lcroute(common);
    let own = command.get_program().to_owned();
    command.args(["guest", "--found", "--"]).arg(own);
    if common.json {
        command.arg("--json");
    }
    let (number, time) = (fd.as_raw_fd().to_string(), time.as_millis());
    command.args(["invite", "--code", "--token-fd", &number]);
    command.arg(format!("--for={time}ms"));
    if let Some(server) = server {
        command.env(SIGNAL, server);
    }
    Err(command.exec()).context("lcroute guest")
}

/// Hands over the token in this descriptor, inside of a guest that has made a code.
pub fn hand_over(fd: RawFd, time: Duration, json: bool) -> anyhow::Result<Exit> {
    let token = inherited(fd)?;
    let offering = Offering::begin()?;
    let state = offering.state()?;
    let mut group = Group::join(&state.beacon_key())?;
    let mut handing = Handing::new(SecretKey::generate(), token);
    offering.repeat(Offer::Token, &handing.key.peer_id().to_string())?;
    if json {
        print_line(json!({ "code": state.code }))?;
    } else {
        print_line(&state.code)?;
        let minutes = usize::try_from(time.as_secs().div_ceil(60)).unwrap_or(usize::MAX);
        hint(format_args!(
            "on the other host: lcroute up, with these words; the first host that says them within {} gets the token; Ctrl-C ends it",
            count(minutes, "minute")
        ));
        if !state.code.contains('@') {
            hint(
                "these words reach hosts of this LAN alone; to get further, name a signalling server: --signal URL",
            );
        }
    }
    let until = Instant::now().checked_add(time);
    loop {
        let now = Instant::now();
        if let Some(end) = end_of(&handing, until, now) {
            return end;
        }
        let mut answers = Vec::new();
        group.receive(|datagram| match handing.handle(datagram, now) {
            Ok(more) => answers.extend(more),
            Err(e) => tracing::debug!("token by code: {e}"),
        })?;
        answers.iter().for_each(|answer| group.send(answer));
    }
}

/// Returns the outcome for the inviter, once there is one.
fn end_of(handing: &Handing, until: Option<Instant>, now: Instant) -> Option<anyhow::Result<Exit>> {
    let message = match &handing.to {
        Some(to) if to.has_it => {
            hint(format_args!("{} has the token", to.name));
            return Some(Ok(Exit::Ok));
        }
        Some(to) if to.asked_at + GIVE_UP <= now => format!(
            "{} was sent the token, and does not say that it arrived: `lcroute members` shows whether it joins; these words are used up",
            to.name
        ),
        None if until.is_some_and(|until| until <= now) => {
            "nobody has asked for the token in time: these words are no longer good".to_owned()
        }
        _ => return None,
    };
    Some(Err(ExitError::new(Exit::Unreachable, message).into()))
}

/// Gets the token of whoever invites by this code, by a guest of the code. `name`: as which the inviter sees this node.
pub fn fetch(
    common: &Common,
    code: &Code,
    name: Option<&str>,
) -> anyhow::Result<Zeroizing<String>> {
    let fd = handed(&code.encode())?;
    let mut command = lcroute(common);
    let own = command.get_program().to_owned();
    let number = fd.as_raw_fd().to_string();
    command
        .args(["guest", "--token-fd", &number, "--"])
        .arg(own);
    command.args(["join", "--take"]);
    if let Some(name) = name {
        command.arg(format!("--name={name}"));
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut guest = command.spawn().context("lcroute guest")?;
    drop(fd);
    let mut token = Zeroizing::new(String::with_capacity(MAX_TOKEN + 2));
    if let Some(output) = guest.stdout.take() {
        output
            .take(MAX_TOKEN as u64 + 1)
            .read_to_string(&mut token)?;
    }
    let exit = match guest.wait()?.code() {
        Some(0) => return Ok(Zeroizing::new(token.trim().to_owned())),
        Some(2) => Exit::Usage,
        Some(3) => Exit::Unreachable,
        Some(4) => Exit::NotPermitted,
        Some(130) => Exit::Interrupted,
        _ => Exit::Failed,
    };
    // the guest has said why
    Err(ExitError::new(exit, "these words have brought no token").into())
}

/// Asks for the token inside of a guest by a code, and prints it.
pub fn take(name: Option<String>) -> anyhow::Result<Exit> {
    let beacon = wait_for(Offer::Token, false)?;
    let inviter = beacon.line.parse::<PeerId>();
    let inviter = inviter.context("the inviter's key (is it of another version?)")?;
    let inside = Inside::of_environment()?.context("this is no guest")?;
    let mut group = Group::join(&inside.read()?.beacon_key())?;
    let mut asking = Asking::new(SecretKey::generate(), inviter);
    let ask = asking.ask(&shown_name(name))?;
    let began = Instant::now();
    let (mut ask_at, mut told) = (began, false);
    let from = &beacon.from;
    loop {
        let now = Instant::now();
        if began + GIVE_UP <= now {
            let message = format!(
                "{from} invites by these words, and does not answer: does `lcroute invite --code` still run?"
            );
            return Err(ExitError::new(Exit::Unreachable, message).into());
        }
        if began + QUIET <= now && !std::mem::replace(&mut told, true) {
            hint(format_args!("waiting for the token of {from}"));
        }
        if ask_at <= now {
            group.send(&ask);
            ask_at = now + ASK_AGAIN;
        }
        let mut answer = None;
        group.receive(|datagram| match asking.handle(datagram) {
            Ok(Some(came)) => answer = Some(came),
            Ok(None) => {}
            Err(e) => tracing::debug!("token by code: {e}"),
        })?;
        match answer {
            Some(Answer::Token(token)) => {
                print_line(token.as_str())?;
                for _ in 0..SAID {
                    group.send(&asking.taken());
                    thread::sleep(LOOK);
                }
                return Ok(Exit::Ok);
            }
            Some(Answer::Gone(name)) => {
                let message = format!("{name} has had the token of these words: ask for new ones");
                return Err(ExitError::new(Exit::NotPermitted, message).into());
            }
            None => {}
        }
    }
}

/// Returns the name as which the inviter sees this node: the given one, else that of the host.
fn shown_name(name: Option<String>) -> String {
    let host = || nix::unistd::gethostname().ok()?.into_string().ok();
    let name = name.or_else(host).filter(|name| is_node_name(name));
    name.unwrap_or_else(|| "guest".to_owned())
}

/// Returns a command that executes this program with the same configuration.
fn lcroute(common: &Common) -> Command {
    let mut command = guest::lcroute();
    if let Some(config) = common.config_path() {
        command.arg("--config").arg(config);
    }
    command
}

/// Returns a descriptor from which the next program reads a secret.
fn handed(secret: &str) -> anyhow::Result<OwnedFd> {
    let fd = guest::inherited(secret.as_bytes())?;
    guest::keep_open(fd.as_fd(), true)?;
    Ok(fd)
}

/// Reads a secret from an inherited descriptor, and closes it.
fn inherited(fd: RawFd) -> anyhow::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::with_capacity(MAX_TOKEN + 1));
    let file = File::open(format!("/proc/self/fd/{fd}"));
    let file = file.with_context(|| format!("--token-fd {fd}"))?;
    file.take(MAX_TOKEN as u64 + 1).read_to_string(&mut text)?;
    nix::unistd::close(fd)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(n: u8) -> SecretKey {
        SecretKey::from_seed(&[n; 32])
    }

    /// An inviter with a token of this many letters, and two nodes that have its words.
    fn sides(letters: usize) -> (Handing, [Asking; 2], Instant) {
        let handing = Handing::new(key(1), Zeroizing::new("t".repeat(letters)));
        let inviter = handing.key.peer_id();
        let nodes = [2, 3].map(|n| Asking::new(key(n), inviter));
        (handing, nodes, Instant::now())
    }

    fn is_token(answer: &Option<Answer>, letters: usize) -> bool {
        *answer == Some(Answer::Token(Zeroizing::new("t".repeat(letters))))
    }

    #[test]
    fn the_first_who_asks_gets_the_token_and_the_second_is_told_so() {
        for letters in [1, 700, MAX_TOKEN] {
            let (mut handing, [mut bob, mut eve], now) = sides(letters);
            let mut parts = handing.handle(&bob.ask("bob").unwrap(), now).unwrap();
            assert_eq!(parts.len(), (letters + BOX_OVERHEAD).div_ceil(PART_LEN));
            // the order is any, and packets come twice
            parts.reverse();
            let last = parts.pop().unwrap();
            for part in parts.iter().chain(&parts) {
                assert!(bob.handle(part).unwrap().is_none());
                assert!(eve.handle(part).is_err(), "for bob alone");
            }
            assert!(is_token(&bob.handle(&last).unwrap(), letters));
            let gone = handing.handle(&eve.ask("eve").unwrap(), now).unwrap();
            let [gone] = &gone[..] else {
                panic!("{} answers", gone.len());
            };
            assert!(eve.handle(gone).unwrap() == Some(Answer::Gone("bob".into())));
            assert!(bob.handle(gone).is_err(), "for eve alone");
        }
    }

    #[test]
    fn only_its_recipient_says_that_the_token_arrived() {
        let (mut handing, [bob, eve], now) = sides(700);
        let late = now + GIVE_UP;
        let has_ended = |handing: &Handing, at| end_of(handing, Some(late), at).map(|e| e.is_ok());
        handing.handle(&bob.taken(), now).unwrap();
        assert_eq!(has_ended(&handing, now), None, "nobody has asked");
        assert_eq!(has_ended(&handing, late), Some(false));
        handing.handle(&bob.ask("bob").unwrap(), now).unwrap();
        handing.handle(&eve.taken(), now).unwrap();
        assert_eq!(has_ended(&handing, now), None);
        assert_eq!(has_ended(&handing, late), Some(false));
        handing.handle(&bob.taken(), now).unwrap();
        assert_eq!(has_ended(&handing, now), Some(true));
    }

    #[test]
    fn a_token_of_anybody_but_the_inviter_is_dropped() {
        let (mut handing, [mut bob, _], now) = sides(700);
        let mut other = Handing::new(key(9), Zeroizing::new("evil".into()));
        let asked = Asking::new(key(2), key(9).peer_id()).ask("bob").unwrap();
        for part in other.handle(&asked, now).unwrap() {
            assert!(bob.handle(&part).is_err());
        }
        let mut parts = handing.handle(&bob.ask("bob").unwrap(), now).unwrap();
        parts[0][80] ^= 1;
        assert!(bob.handle(&parts[0]).is_err(), "changed on the way");
        assert!(handing.handle(&bob.ask("b\x1b[2J").unwrap(), now).is_err());
    }

    proptest! {
        #[test]
        fn no_datagram_panics(body in proptest::collection::vec(any::<u8>(), 0..200), kind in any::<u8>()) {
            let (mut handing, [mut bob, _], now) = sides(700);
            let (inviter, node) = (handing.key.peer_id(), bob.key.peer_id());
            let _ = handing.handle(&body, now);
            let _ = handing.handle(&message(&bob.key, kind, &inviter, &body), now);
            let _ = bob.handle(&message(&handing.key, kind, &node, &body));
        }
    }
}
