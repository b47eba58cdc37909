//! Programs that enter a network by themselves: a token among their arguments, or a code, makes
//! them execute themselves under `lcroute guest`, without root and daemon.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use librecast::cert::MAX_TOKEN;
use librecast::id::PeerId;
use librecast::outside::Place;
use librecast::reach::Base58;
use librecast::text::{self, TextKind};
use librecast::text_network::TextKey;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::libc;
use nix::unistd::pipe2;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::cli::{self, Exit, ExitError};
use crate::{arguments, children};

/// Most places of a text. Chosen: as many as a record has room for.
pub const MAX_TEXT_PLACES: usize = 3;
/// The program that makes guests.
const LCROUTE: &str = "lcroute";
/// The option whose value is sent as it is, a token too.
const CONTENT: &str = "--text";

/// Environment variable with the role of the guest that a program runs in.
pub const ROLE: &str = "LCROUTE_GUEST";
/// The role of a leaf: programs receive, and send to asking groups alone.
pub const LEAF: &str = "leaf";
/// The role of a member.
pub const MEMBER: &str = "member";

/// Environment variable with the number of the descriptor by which `lcroute guest` has the owner of a
/// text sign its record for a DHT: each datagram is `time 64 (unix seconds) | sequence 64 | value`,
/// each answer a signature.
pub const SIGN_FD: &str = "LCROUTE_GUEST_SIGN";

/// Takes the socket of [`SIGN_FD`], if the guest asks for signatures. To be called once.
///
/// # Errors
/// The variable has no descriptor.
pub fn questions() -> std::io::Result<Option<UnixDatagram>> {
    let Some(number) = env::var_os(SIGN_FD) else {
        return Ok(None);
    };
    let number = number.to_str().and_then(|number| number.parse().ok());
    let number = number.filter(|number: &i32| *number > libc::STDERR_FILENO);
    let no = || std::io::Error::other(format!("{SIGN_FD}: no descriptor"));
    // SAFETY: the guest opened it for this process alone, and it is taken once
    Ok(Some(unsafe {
        UnixDatagram::from_raw_fd(number.ok_or_else(no)?)
    }))
}

/// Bits a second that a program receives in a leaf, if its user sets no rate. Chosen: below the
/// rate that a router has for its leaves, by default; it drops packets beyond that.
const LEAF_RATE: u64 = 45_000_000;

/// Returns the rate at which to receive in a guest that is a leaf, in bits a second.
#[must_use]
pub fn rate_in_leaf() -> Option<u64> {
    is_in_leaf().then_some(LEAF_RATE)
}

/// Returns whether this program runs in a guest that is a leaf.
#[must_use]
pub fn is_in_leaf() -> bool {
    env::var_os(ROLE).is_some_and(|role| role == LEAF)
}

/// Returns whether this program runs in a guest.
#[must_use]
pub fn is_inside() -> bool {
    env::var_os(ROLE).is_some()
}

/// Fails in a guest that is a leaf, as packets of this verb would go nowhere.
///
/// # Errors
/// [`Exit::NotPermitted`].
pub fn check_may_send(verb: &str) -> Result<(), ExitError> {
    match is_in_leaf() {
        false => Ok(()),
        true => {
            let message =
                format!("a leaf's token lets nobody {verb}: ask for a member's (`lcroute invite`)");
            Err(ExitError::new(Exit::NotPermitted, message))
        }
    }
}

/// Executes the program `name` again as a guest, if one of its arguments is `lct1...,WHAT`, of
/// which WHAT stays, or a token alone. Without such an argument it calls `run`.
pub fn or_here(name: &str, run: impl FnOnce() -> ExitCode) -> ExitCode {
    children::expect_children();
    match enter() {
        Ok(()) => run(),
        Err(e) => cli::finish(name, Err(e.into())),
    }
}

/// Returns only if no argument has a token, or `lcroute` cannot be executed.
fn enter() -> Result<(), ExitError> {
    let given = arguments::given();
    let Some((at, token, what)) = find(given) else {
        return Ok(());
    };
    let before = given.get(1..at).unwrap_or_default();
    let behind = given.get(at + 1..).unwrap_or_default();
    let arguments = before.iter().map(OsString::as_os_str).chain(what);
    let arguments = arguments.chain(behind.iter().map(OsString::as_os_str));
    Err(execute(Entry::By(token), arguments))
}

/// The network that a guest makes for its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Founded {
    /// One of a code.
    Code,
    /// One whose token for leaves may be public.
    Public,
}

/// Executes this program again, with the same arguments, as a guest that makes a network. Returns
/// only on failure.
#[must_use]
pub fn found(founded: Founded) -> ExitError {
    let given = arguments::given().iter().skip(1);
    execute(Entry::Found(founded), given.map(OsString::as_os_str))
}

/// Executes this program again, with these arguments, as a guest by this code or token. Returns only
/// on failure.
#[must_use]
pub fn join(code: &str, arguments: &[OsString]) -> ExitError {
    let arguments = arguments.iter().map(OsString::as_os_str);
    execute(Entry::By(code.as_bytes()), arguments)
}

/// Returns a text that a file has, or a line of standard input (`was_input`). Executes this program
/// in the network of a token before it, as for an argument; precedes other threads.
///
/// # Errors
/// `lcroute` cannot be executed.
pub fn behind_token(text: &str, was_input: bool) -> Result<&str, ExitError> {
    let (token, what) = split_token(text);
    let Some(token) = token.filter(|_| !is_inside()) else {
        return Ok(what);
    };
    if was_input {
        // that line has gone: the next program reads the rest of it
        let input = inherited(what.as_bytes());
        let replaced = input.and_then(|input| Ok(nix::unistd::dup2_stdin(&input)?));
        replaced.map_err(|e| ExitError::new(Exit::Failed, format!("standard input: {e}")))?;
    }
    let given = arguments::given().get(1..).unwrap_or_default();
    Err(join(token, given))
}

/// Executes this program again, with these arguments, as a guest of the network that a text leads
/// to. Returns only on failure.
#[must_use]
pub fn by_text(entry: &TextEntry, arguments: &[OsString]) -> ExitError {
    let arguments = arguments.iter().map(OsString::as_os_str);
    match serde_json::to_vec(entry).map(Zeroizing::new) {
        Ok(json) => execute(Entry::Text(&json), arguments),
        Err(e) => ExitError::new(Exit::Failed, e.to_string()),
    }
}

/// The way into a network.
#[derive(Clone, Copy)]
enum Entry<'a> {
    /// By a token or code.
    By(&'a [u8]),
    /// By making it.
    Found(Founded),
    /// By what a text leads to, as JSON.
    Text(&'a [u8]),
}

/// Executes this program again as a guest.
fn execute<'a>(entry: Entry<'_>, arguments: impl Iterator<Item = &'a OsStr>) -> ExitError {
    let failed =
        |e: &dyn std::fmt::Display| ExitError::new(Exit::Failed, format!("{LCROUTE}: {e}"));
    let own = by_name(arguments::given()).map_or_else(env::current_exe, Ok);
    let own = match own {
        Ok(own) => own,
        Err(e) => return failed(&e),
    };
    let mut command = lcroute();
    command.arg("guest");
    match entry {
        Entry::Found(Founded::Code) => drop(command.arg("--found")),
        Entry::Found(Founded::Public) => drop(command.args(["--found", "--public"])),
        Entry::By(secret) | Entry::Text(secret) => match inherited(secret) {
            Ok(fd) => {
                let option = match entry {
                    Entry::Text(_) => "--text-fd",
                    _ => "--token-fd",
                };
                command.arg(option).arg(fd.as_raw_fd().to_string());
                // open over exec, which this process does at once
                if let Err(e) = keep_open(fd.as_fd(), true) {
                    return failed(&e);
                }
                let _ = fd.into_raw_fd();
            }
            Err(e) => return failed(&e),
        },
    }
    command.arg("--").arg(own).args(arguments);
    let error = command.exec();
    if error.kind() == std::io::ErrorKind::NotFound {
        let message = "to enter a network by a token or code, lcroute must be installed: its package has `lcroute guest`";
        return ExitError::new(Exit::Failed, message);
    }
    failed(&error)
}

/// Returns a command that executes `lcroute`: the one beside this program, else the installed one.
#[must_use]
pub fn lcroute() -> Command {
    let own = env::current_exe().ok();
    let beside = own.as_deref().and_then(beside);
    Command::new(beside.unwrap_or_else(|| LCROUTE.into()))
}

/// Returns the place of the argument, its token, and the rest, if there is one.
fn find(given: &[OsString]) -> Option<(usize, &[u8], Option<&OsStr>)> {
    let arguments = given.iter().enumerate().skip(1);
    let until = arguments.take_while(|(_, argument)| *argument != "--");
    let is_content = |at: usize| given.get(at - 1).is_some_and(|before| before == CONTENT);
    let until = until.filter(|(at, _)| !is_content(*at));
    until.into_iter().find_map(|(at, argument)| {
        let bytes = argument.as_bytes();
        if !bytes.contains(&b',') {
            // a file may begin as a token does
            let text = argument.to_str()?;
            text::decode(TextKind::Token, text, MAX_TOKEN).ok()?;
            return Some((at, bytes, None));
        }
        let (token, what) = split(bytes)?;
        Some((at, token, Some(OsStr::from_bytes(what))))
    })
}

/// Returns the two parts of `lct1...,WHAT`.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let comma = bytes.iter().position(|byte| *byte == b',')?;
    let (token, what) = (bytes.get(..comma)?, bytes.get(comma + 1..)?);
    let prefix = TextKind::Token.prefix().as_bytes();
    let is_token = token.starts_with(prefix) && token.iter().all(u8::is_ascii_alphanumeric);
    (is_token && !what.is_empty()).then_some((token, what))
}

/// Returns the token, if one stands before a text that a file or standard input has, and the text.
#[must_use]
pub fn split_token(text: &str) -> (Option<&str>, &str) {
    let text = text.trim();
    let parts = split(text.as_bytes()).and_then(|_| text.split_once(','));
    parts.map_or((None, text), |(token, what)| (Some(token), what))
}

/// Returns this program as it was called: several may be links to one executable.
pub(crate) fn by_name(given: &[OsString]) -> Option<PathBuf> {
    let name = Path::new(given.first()?);
    if name.components().count() > 1 {
        return name.is_file().then(|| name.to_owned());
    }
    let path = env::var_os("PATH")?;
    let mut places = env::split_paths(&path).map(|folder| folder.join(name));
    places.find(|place| place.is_file())
}

/// Returns `lcroute` in the folder of this program, as in a checkout.
fn beside(own: &Path) -> Option<PathBuf> {
    let path = own.parent()?.join(LCROUTE);
    path.is_file().then_some(path)
}

/// Sets whether the next program that this process executes has the descriptor.
///
/// # Errors
/// Those of the system.
pub fn keep_open(fd: BorrowedFd<'_>, keeps: bool) -> std::io::Result<()> {
    let flags = match keeps {
        true => FdFlag::empty(),
        false => FdFlag::FD_CLOEXEC,
    };
    Ok(fcntl(fd, FcntlArg::F_SETFD(flags)).map(drop)?)
}

/// Returns a descriptor from which the next program reads the token, once it is kept open.
///
/// # Errors
///
/// Those of the system.
pub fn inherited(token: &[u8]) -> std::io::Result<OwnedFd> {
    // shorter than a pipe's capacity; another thread's child does not get it
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    std::fs::File::from(write).write_all(token)?;
    Ok(read)
}

/// The way of a program into the network of a text, as it tells `lcroute guest`. Holds secrets.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextEntry {
    /// The text, for the program inside.
    pub text: String,
    /// Its public key.
    pub key: PeerId,
    /// Its secret.
    pub secret: Base58<32>,
    /// Servers; none: those of the configuration.
    pub places: Vec<Place>,
    /// Of its owner; none: enters as a leaf.
    pub founds: Option<TextOwner>,
}

/// What the owner of a text tells.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextOwner {
    /// Seed of the network's keys.
    pub seed: Base58<32>,
    /// The attestation about the network.
    pub attestation: Base58<64>,
    /// Leaves may send to asking groups.
    pub asks: bool,
    /// Enters as a further member, beside the program that founds the network.
    pub is_beside: bool,
    /// Invitations of helpers that are expelled.
    pub withdrawn: Vec<PeerId>,
}

impl TextEntry {
    /// Returns the way of a holder of the text.
    #[must_use]
    pub fn new(text: String, key: &TextKey, places: Vec<Place>) -> Self {
        Self {
            text,
            key: *key.key(),
            secret: Base58(*key.secret()),
            places,
            founds: None,
        }
    }

    /// Returns the keys of the text.
    #[must_use]
    pub fn text_key(&self) -> TextKey {
        TextKey::new(self.key, self.secret.0)
    }
}

librecast::debug_by_name!(TextOwner);

impl Drop for TextEntry {
    fn drop(&mut self) {
        self.text.zeroize();
        self.secret.0.zeroize();
    }
}

impl Drop for TextOwner {
    fn drop(&mut self) {
        self.seed.0.zeroize();
    }
}

impl ZeroizeOnDrop for TextEntry {}

impl std::fmt::Debug for TextEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TextEntry of {} at {:?}", self.key, self.places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_with_what_it_is_for_is_found_and_nothing_else() {
        let find_in = |arguments: &[&str]| {
            let given: Vec<_> = arguments.iter().map(OsString::from).collect();
            find(&given).map(|(at, token, what)| (at, token.to_vec(), what.map(OsStr::to_owned)))
        };
        let found = |at, what: &str| Some((at, b"lct1abc".to_vec(), Some(OsString::from(what))));
        let token = text::encode(TextKind::Token, b"a whole one");
        let alone = Some((2, token.as_bytes().to_vec(), None));
        assert_eq!(find_in(&["p", "cast", &token, "--key"]), alone);
        assert_eq!(
            find_in(&["p", "listen", "lct1abc,lcr1DEF"]),
            found(2, "lcr1DEF")
        );
        assert_eq!(
            find_in(&["p", "lct1abc,lc:a,b", "dest"]),
            found(1, "lc:a,b")
        );
        for other in [
            &["lct1abc,lcr1DEF"][..],
            &["p", "lct1abc"],
            &["p", "lct1abc,"],
            &["p", "lct1a/b,c"],
            &["p", "--", "lct1abc,lcr1DEF"],
            &["p", "lcr1DEF,lct1abc"],
            &["p", "send", "--text", "lct1abc,lcr1DEF"],
            &["p", "send", "--text", &token],
        ] {
            assert_eq!(find_in(other), None, "{other:?}");
        }
        assert_eq!(
            split_token(" lct1abc,lcc1DEF\n"),
            (Some("lct1abc"), "lcc1DEF")
        );
        for other in ["lcc1DEF", "lct1abc,", "lcr1DEF,lct1abc"] {
            assert_eq!(split_token(other), (None, other));
        }
    }
}
