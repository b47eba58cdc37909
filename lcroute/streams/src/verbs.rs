//! The verbs' actions, which request streams from the program for streams.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::program::own_control;
use anyhow::Context;
use lcroute_control::Request;
use lcroute_control::client::Client;
use lcroute_control::settings::Common;
use librecast::id::PeerId;
use librecast::outside::ContactText;
use librecast::plain::strip;
use librecast::stream::{
    self, Allowed, End, Ending, Listener, Peer, ProtocolName, Reason, Report, Stream, StreamError,
    socket_of,
};
use librecast_program::book::{self, Book};
use librecast_program::child::{Account, Apart, set_apart};
use librecast_program::cli::{Exit, ExitError, hint, note, print_line, to_join};
use librecast_program::interrupt::{exit_on_interrupt, on_signals};
use librecast_program::standard;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::socket::{MsgFlags, send};
use serde_json::Value;

/// Idle time after which a program that a verb started ends.
pub const IDLE: &str = "10s";
/// Maximum number of processes of `serve`. Chosen: for a small host; further streams wait.
const MAX_PROCESSES: usize = 320;
/// Maximum number of connections of `forward`: two threads each.
const MAX_FORWARDED: usize = 1_024;
/// The group whose members may use streams.
const GROUP: &str = "lcroute";
/// Time limit for opening a stream: the sum of the limits for finding a node and for its answer.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);
/// Interval of looks at the address book. Chosen: who is removed has lost his streams within 2 s.
const BOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Time limit for the start of the program for streams.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// Wait after which a notice is printed.
const NOTICE_AFTER: Duration = Duration::from_secs(2);
/// Interval of further notices. Chosen: often enough on a terminal, seldom enough for a log.
const NOTICE_INTERVAL: Duration = Duration::from_secs(5);
/// Maximum number of requests to the program for streams. Chosen: it may end once, and restart.
const ATTEMPTS: u32 = 5;
/// Interval between them.
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(200);
/// Time limit for a program to close its connection. Chosen: some round trips within the host.
const LINGER: Duration = Duration::from_secs(2);
/// Exit code for a missing command, as in shells (POSIX, Shell Command Language, 2.8.2).
const NOT_FOUND: u8 = 127;
/// Exit code for a command that cannot be executed.
const NOT_EXECUTABLE: u8 = 126;
/// Maximum number of bytes per read.
const BUFFER: usize = 64 * 1024;
/// Maximum length of an error line in bytes; the rest is the next line. Chosen: a page.
const MAX_LINE: u64 = 4_096;
/// Variables that every served command inherits: language and time zone (locale(7), tzset(3)).
const PLAIN: [&str; 15] = [
    "LANG",
    "LC_ADDRESS",
    "LC_ALL",
    "LC_COLLATE",
    "LC_CTYPE",
    "LC_IDENTIFICATION",
    "LC_MEASUREMENT",
    "LC_MESSAGES",
    "LC_MONETARY",
    "LC_NUMERIC",
    "LC_PAPER",
    "LC_TELEPHONE",
    "LC_TIME",
    "LANGUAGE",
    "TZ",
];
/// Further variables for commands under the account of `serve`.
const OWN: [&str; 3] = ["PATH", "HOME", "SHELL"];

/// Returns the socket of the program for streams: of the service, or of one started here. With
/// `outside`, a host without a daemon has one with the user's own key.
fn program(common: &Common, outside: bool) -> anyhow::Result<PathBuf> {
    let config = common.load_config()?;
    let control = common.control_to_ask(&config);
    let path = socket_of(&control);
    let answers = |path: &Path| UnixStream::connect(path).is_ok();
    match UnixStream::connect(&path) {
        Ok(_) => Ok(path),
        Err(e)
            if outside
                && e.kind() != io::ErrorKind::PermissionDenied
                && !answers(&control)
                && UnixStream::connect(&control)
                    .is_err_and(|e| e.kind() != io::ErrorKind::PermissionDenied) =>
        {
            let control = own_control(common, &config)?;
            let path = socket_of(&control);
            if !answers(&path) {
                start(common, &control, &path, true)?;
            }
            Ok(path)
        }
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            let message = format!("{}: {e}: {}", path.display(), to_join(GROUP));
            Err(ExitError::new(Exit::NotPermitted, message).into())
        }
        Err(_) => {
            let line = |left: Duration| {
                let left = left.as_secs();
                format!("waiting for the program for streams to start, {left} s at most")
            };
            let _notice = Notice::after_a_while(START_TIMEOUT, line);
            start(common, &control, &path, false).map(|()| path)
        }
    }
}

/// Starts one in the background, and waits until it answers.
fn start(common: &Common, control: &Path, path: &Path, own_key: bool) -> anyhow::Result<()> {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("lcroute-streams")
        .arg("--control")
        .arg(control);
    if let Some(config) = common.config_path() {
        command.arg("--config").arg(config);
    }
    command.args(["streams", "--idle", IDLE]);
    if own_key {
        command.arg("--own-key").arg("--state-dir");
        command.arg(control.parent().unwrap_or(Path::new("/")));
    }
    command.stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    // Ctrl-C is for the verb
    command.process_group(0);
    let mut child = command.spawn().context("the program for streams")?;
    let mut line = String::new();
    if let Some(out) = child.stdout.take() {
        BufReader::new(out).read_line(&mut line)?;
    }
    // another verb may have started one
    if line == "ready\n" || UnixStream::connect(path).is_ok() {
        return Ok(());
    }
    let mut why = String::new();
    if let Some(mut err) = child.stderr.take() {
        err.read_to_string(&mut why)?;
    }
    let exit = match child.wait()?.code() {
        Some(2) => Exit::Usage,
        Some(3) => Exit::Unreachable,
        Some(4) => Exit::NotPermitted,
        _ => Exit::Failed,
    };
    let why = why.trim().trim_start_matches("lcroute: ");
    Err(ExitError::new(exit, why).into())
}

/// Sends a request to the program for streams, or to a new one if that ended as idle.
fn asked<T>(
    common: &Common,
    outside: bool,
    ask: impl Fn(&Path) -> Result<T, StreamError>,
) -> anyhow::Result<(PathBuf, T)> {
    let mut attempts = ATTEMPTS;
    loop {
        let path = program(common, outside)?;
        attempts -= 1;
        match ask(&path) {
            Ok(answer) => return Ok((path, answer)),
            Err(StreamError::NoProgram(..) | StreamError::Io(_)) if attempts > 0 => {
                thread::sleep(ATTEMPT_INTERVAL);
            }
            Err(e) => return Err(exit_of(&e)),
        }
    }
}

/// Prints the reason of a wait, and the remaining time, until it is dropped.
struct Notice(Option<mpsc::Sender<()>>);

impl Notice {
    /// `line`: the text for the remaining part of `most`.
    fn after_a_while(most: Duration, line: impl Fn(Duration) -> String + Send + 'static) -> Self {
        let (kept, dropped) = mpsc::channel::<()>();
        let waits = thread::Builder::new().spawn(move || {
            let begun = Instant::now();
            let mut next = NOTICE_AFTER;
            while dropped.recv_timeout(next) == Err(mpsc::RecvTimeoutError::Timeout) {
                hint("lcroute", line(most.saturating_sub(begun.elapsed())));
                next = NOTICE_INTERVAL;
            }
        });
        // without a thread it is silent
        Self(waits.is_ok().then_some(kept))
    }
}

impl Drop for Notice {
    fn drop(&mut self) {
        self.0 = None;
    }
}

fn exit_of(error: &StreamError) -> anyhow::Error {
    let exit = match error {
        StreamError::Refused(Reason::BadRequest, _) => Exit::Usage,
        StreamError::Refused(Reason::Unreachable, _) | StreamError::NoProgram(..) => {
            Exit::Unreachable
        }
        StreamError::Refused(Reason::Refused, _) => Exit::NotPermitted,
        _ => Exit::Failed,
    };
    let message = match error {
        StreamError::Io(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
            "the program for streams of this host has ended: try again, or see why: journalctl -u lcroute-streams".into()
        }
        error => error.to_string(),
    };
    ExitError::new(exit, message).into()
}

/// Opens a stream, with a notice if that takes long.
fn open(program: &Path, node: &str, protocols: &[ProtocolName]) -> Result<Stream, StreamError> {
    let name = node.to_owned();
    let is_key = is_outside(node);
    let line = move |left: Duration| {
        let left = left.as_secs();
        if is_key {
            return format!(
                "waiting for {name}: is it served there with --outside to this host's key (`lcroute id --contact`), or with --anyone?"
            );
        }
        format!(
            "waiting for {name}, {left} s at most: does `lcroute members` show it, and does its firewall let in UDP port 14247 of lc0 (`lcroute doctor` there)?"
        )
    };
    let _notice = Notice::after_a_while(OPEN_TIMEOUT, line);
    stream::connect_at(program, node, protocols)
}

/// `lcroute connect`
pub fn connect(
    common: &Common,
    node: &str,
    protocols: &[ProtocolName],
    is_verbose: bool,
) -> anyhow::Result<Exit> {
    exit_on_interrupt(|| ())?;
    let node = book::contact(node)?;
    let (socket, mut stream) = asked(common, is_outside(&node), |program| {
        open(program, &node, protocols)
    })?;
    let peer = stream.peer().clone();
    // held to the end: if this process is killed, the stream breaks off
    let ending = Ending::of(&socket, peer.stream.unwrap_or_default());
    let ending = Arc::new(ending.map_err(|e| exit_of(&e))?);
    if is_verbose {
        note(format_args!(
            "{} ({}): {}",
            peer.name, peer.peer, peer.protocol
        ));
    }
    let (mut to, end_up) = (stream.try_clone()?, Arc::clone(&ending));
    let (failed, input) = mpsc::channel();
    thread::spawn(move || match copy(&mut standard::input(), &mut to) {
        // the other side sends its end
        Ok(()) | Err(Uncopied::Write(_)) => drop(to.finish()),
        Err(Uncopied::Read(e)) => {
            // the receiver waits for the end, or has gone
            let _ = failed.send(e);
            end_up.give_up();
        }
    });
    match copy(&mut stream, &mut standard::output()) {
        Err(Uncopied::Write(e)) => return Err(e.into()),
        // the end follows
        Ok(()) | Err(Uncopied::Read(_)) => {}
    }
    let end = ending.wait();
    if let Ok(e) = input.try_recv() {
        return Err(anyhow::Error::new(e).context("standard input"));
    }
    let failed = |message: String| Err(ExitError::new(Exit::Failed, message).into());
    match end {
        Ok(End::Finished | End::Exited(0)) => Ok(Exit::Ok),
        Ok(End::Exited(code)) => std::process::exit(code.into()),
        Ok(End::Killed(signal)) => {
            let name = Signal::try_from(i32::from(signal));
            let name = name.map_or_else(|_| format!("signal {signal}"), |s| s.to_string());
            let on = &peer.name;
            hint(
                "lcroute",
                format_args!("the command on {on} was ended by {name}"),
            );
            std::process::exit(128 + i32::from(signal))
        }
        Ok(End::Reset) => failed(format!("the stream to {} broke off", peer.name)),
        Err(_) => failed(format!(
            "the stream to {} broke off: the program for streams of this host has ended",
            peer.name
        )),
    }
}

/// Returns whether this node may be outside of this host's networks: it is a key.
fn is_outside(node: &str) -> bool {
    node.parse::<ContactText>().is_ok()
}

/// `lcroute outside`
pub fn outside(common: &Common) -> anyhow::Result<Exit> {
    let config = common.load_config()?;
    let control = common.control_to_ask(&config);
    let own = common.state_dir(&config).join("control.sock");
    let sockets = [socket_of(&control), socket_of(&own)];
    let found = sockets
        .iter()
        .find(|path| UnixStream::connect(path).is_ok());
    let Some(path) = found else {
        let message = "nothing is served or sought outside of this host's networks: no program for streams runs here";
        return Err(ExitError::new(Exit::Unreachable, message).into());
    };
    let mut look = stream::outside(path).map_err(|e| exit_of(&e))?;
    let book = Book::of_user()?;
    for pair in &mut look.pairs {
        let own = book.name_of(&pair.key).map(str::to_owned);
        pair.name = own.or(pair.name.take());
    }
    if common.json {
        print_line(serde_json::to_string(&look)?)?;
        return Ok(Exit::Ok);
    }
    if let Some(absent) = &look.absent {
        hint("lcroute", absent);
    }
    for pair in &look.pairs {
        let key = pair.key;
        let name = pair.name.as_ref();
        let shown = name.map_or_else(|| key.to_string(), |name| format!("{name} ({key})"));
        let mut line = format!("{shown}   {}", pair.state);
        if let Some(path) = &pair.path {
            line += &format!("   {path}");
        }
        if let Some(rtt) = pair.rtt_ms {
            line += &format!("   {rtt:.0} ms");
        }
        line += &match &pair.found_by {
            Some(by) => format!("   found by {by}"),
            None => format!("   {}", pair.by.join(", ")),
        };
        print_line(strip(&line))?;
    }
    if let Some(open) = &look.open {
        let protocols: Vec<_> = open.protocols.iter().map(ProtocolName::as_str).collect();
        let by = match open.by.is_empty() {
            true => "found by nothing: name a place ([outside] meet)".to_owned(),
            false => open.by.join(", "),
        };
        let (callers, most) = (open.callers, open.most);
        let reached = open.reached.iter().map(|reached| format!("; {reached}"));
        let line = format!(
            "anyone   open   {}; {callers} of {most} callers{}   {by}",
            protocols.join(", "),
            reached.collect::<String>()
        );
        print_line(strip(&line))?;
    }
    if look.pairs.is_empty() && look.open.is_none() {
        hint(
            "lcroute",
            "nobody is named or sought: lcroute serve PROTO --outside --allow KEY -- CMD",
        );
    }
    Ok(Exit::Ok)
}

/// The reason for which not all was copied.
enum Uncopied {
    Read(io::Error),
    Write(io::Error),
}

/// Copies until the end; each read is written at once.
fn copy(from: &mut impl Read, to: &mut impl Write) -> Result<(), Uncopied> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                let written = to.write_all(&buffer[..count]).and_then(|()| to.flush());
                written.map_err(Uncopied::Write)?;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Uncopied::Read(e)),
        }
    }
}

/// The arguments of `lcroute serve`.
#[derive(Debug)]
pub struct Serving {
    /// The protocols of the command, by preference.
    pub protocols: Vec<ProtocolName>,
    pub allowed: Allowed,
    /// The account of the process; none: the caller's.
    pub user: Option<String>,
    /// Additional variables of this process for the command.
    pub variables: Vec<OsString>,
    /// Whether set-user-ID programs may give it rights.
    pub gains_rights: bool,
    pub command: Vec<OsString>,
}

/// `lcroute serve`
pub fn serve(common: &Common, serving: &Serving) -> anyhow::Result<Exit> {
    end_well()?;
    let account = Account::find(serving.user.as_deref())?;
    let served = Served::new(serving, account)?;
    let allowed = Allowed {
        nodes: keys(&serving.allowed.nodes)?,
        ..serving.allowed.clone()
    };
    check_names(common, &allowed.nodes)?;
    let outside = allowed.outside;
    let is_named = || allowed.nodes.iter().any(|node| is_outside(node));
    if outside && !allowed.anyone && !is_named() {
        let message = "--outside: from there keys alone may, none is named: --allow KEY, --allow book:NAME, or --anyone";
        return Err(ExitError::new(Exit::Usage, message).into());
    }
    let (path, listener) = asked(common, outside, |program| {
        Listener::bind_commands_at(program, &serving.protocols, &allowed)
    })?;
    let listener = Arc::new(listener);
    let names: Vec<_> = serving.protocols.iter().map(ProtocolName::as_str).collect();
    note(format_args!("serving {}", names.join(", ")));
    let is_open = serving.allowed.all || serving.allowed.anyone;
    if !is_open && serving.allowed.nodes.is_empty() {
        note("nobody may speak it: --allow NODE, or --allow-all");
    }
    if serving.user.is_none() && nix::unistd::geteuid().is_root() {
        note("each stream's process is root's; --user NAME makes it another's");
    }
    if outside {
        let own = stream::outside(&path).map_err(|e| exit_of(&e))?.own;
        let mut config = common.load_config()?;
        if path != socket_of(&common.control_to_ask(&config)) {
            config = common.load_config_of_user()?;
        }
        let without = config.exposure().without_servers_outside();
        let outside = config.exposure().outside().ok();
        let outside = outside.filter(|_| without.is_none());
        let place = outside.and_then(|outside| outside.meet.first().cloned());
        let contact = ContactText { key: own, place };
        note(format_args!("they connect to {contact}"));
        if let Some(why) = without {
            note(why);
        }
        if allowed.anyone {
            note("anyone may call, and with this key can see this host's address from day to day");
        }
    }
    if serving
        .allowed
        .nodes
        .iter()
        .any(|node| node.starts_with(book::PREFIX))
    {
        let (nodes, listener) = (serving.allowed.nodes.clone(), Arc::clone(&listener));
        thread::spawn(move || follow_book(&nodes, allowed.nodes, &listener));
    }
    let running = Arc::new(AtomicUsize::new(0));
    loop {
        while running.load(Relaxed) >= MAX_PROCESSES {
            thread::sleep(Duration::from_millis(50));
        }
        let (stream, report) = listener.accept_command().map_err(|e| exit_of(&e))?;
        if let Err(e) = served.start(stream, report, &running) {
            // probably out of descriptors, until processes end
            hint("lcroute", e);
        }
    }
}

/// A command for each stream, with account, folder and environment.
struct Served<'a> {
    program: OsString,
    arguments: &'a [OsString],
    account: Account,
    environment: Vec<(OsString, OsString)>,
    folder: Option<PathBuf>,
    apart: Apart,
}

impl<'a> Served<'a> {
    fn new(serving: &'a Serving, account: Account) -> anyhow::Result<Self> {
        let Some((program, arguments)) = serving.command.split_first() else {
            return Err(ExitError::new(Exit::Usage, "a command is needed").into());
        };
        let mut program = program.clone();
        let mut environment = account.environment();
        let mut handed_on: Vec<&OsStr> = PLAIN.map(OsStr::new).into();
        let folder = match account.is_other() {
            false => {
                handed_on.extend(OWN.map(OsStr::new));
                None
            }
            true => {
                // the command runs in another folder
                if program.as_encoded_bytes().contains(&b'/') {
                    program = std::path::absolute(&program)?.into();
                }
                let home = Some(account.home.clone()).filter(|home| home.is_dir());
                Some(home.unwrap_or_else(|| "/".into()))
            }
        };
        handed_on.extend(serving.variables.iter().map(OsString::as_os_str));
        let given = |name: &OsStr| Some((name.to_owned(), std::env::var_os(name)?));
        environment.extend(handed_on.into_iter().filter_map(given));
        // the last one counts
        let path = environment.iter().rfind(|(name, _)| name == "PATH");
        if !is_there(&program, path.map(|(_, path)| path.as_os_str())) {
            let message = format!("{}: there is no such program", program.display());
            return Err(ExitError::new(Exit::Usage, message).into());
        }
        Ok(Self {
            program,
            arguments,
            account,
            environment,
            folder,
            apart: Apart {
                ended_by: Signal::SIGTERM,
                gains_rights: serving.gains_rights,
                kept: None,
            },
        })
    }

    /// Starts the command for a stream, and reports its end.
    fn start(&self, stream: Stream, report: Report, running: &Arc<AtomicUsize>) -> io::Result<()> {
        let mut process = self.command(stream.peer());
        let output = OwnedFd::from(stream.try_clone()?);
        let kept = OwnedFd::from(stream.try_clone()?);
        process.stdout(output).stdin(OwnedFd::from(stream));
        let mut child = match process.spawn() {
            Ok(child) => child,
            Err(e) => {
                let code = match e.kind() {
                    io::ErrorKind::NotFound => NOT_FOUND,
                    _ => NOT_EXECUTABLE,
                };
                note(format_args!("{}: {e}", self.program.to_string_lossy()));
                return report.ended(End::Exited(code));
            }
        };
        // the command has its own copies
        drop(process);
        if let Some(errors) = child.stderr.take() {
            thread::spawn(move || show(errors));
        }
        running.fetch_add(1, Relaxed);
        let running = Arc::clone(running);
        let report = Arc::new(report);
        let kept = Arc::new(Mutex::new(Some(kept)));
        let (of_watcher, kept_of_watcher) = (Arc::clone(&report), Arc::clone(&kept));
        thread::spawn(move || {
            if of_watcher.broke_off() {
                if let Some(stream) = held(&kept_of_watcher).take() {
                    make_input_fail(&stream);
                }
                of_watcher.passed_on();
            }
        });
        thread::spawn(move || {
            let end = match child.wait().map(|status| (status.code(), status.signal())) {
                Ok((Some(code), _)) => End::Exited(code.to_le_bytes()[0]),
                Ok((None, Some(signal))) => End::Killed(signal.to_le_bytes()[0]),
                Ok((None, None)) | Err(_) => End::Reset,
            };
            // the stream may be over
            let _ = report.ended(end);
            // kept until now: the other side reads the end once the stream is closed everywhere
            drop(held(&kept).take());
            running.fetch_sub(1, Relaxed);
        });
        Ok(())
    }

    fn command(&self, peer: &Peer) -> Command {
        let mut command = Command::new(&self.program);
        command.args(self.arguments).env_clear();
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.env("LC_PEER", peer.peer.to_string());
        if peer.outside {
            // nobody has certified a name
            let name = Book::of_user().ok();
            let name = name.and_then(|book| Some(book.name_of(&peer.peer)?.to_owned()));
            command.env("LC_NAME", name.unwrap_or_default());
            command.env("LC_FROM", "outside");
        } else {
            command.env("LC_NAME", &peer.name);
        }
        command.env("LC_PROTOCOL", peer.protocol.as_str());
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        // never the terminal or log file of `serve`
        command.stderr(Stdio::piped());
        set_apart(&mut command, &self.account, self.apart);
        command
    }
}

/// Whether there is a file of this path, or of this name in a folder of `path`, if that is known.
fn is_there(program: &OsStr, path: Option<&OsStr>) -> bool {
    if program.as_encoded_bytes().contains(&b'/') {
        return Path::new(program).is_file();
    }
    path.is_none_or(|path| {
        let mut folders = std::env::split_paths(path);
        folders.any(|folder| folder.join(program).is_file())
    })
}

/// Makes the next read of the stream's other side fail (ECONNRESET): the kernel resets a socket
/// that is closed with unread bytes, and this side never reads. A failed read is not the end of the
/// input.
fn make_input_fail(stream: &OwnedFd) {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    // if no byte fits, there are some already
    let _ = send(stream.as_raw_fd(), &[0], flags);
}

/// Prints a process's standard error by line, without control characters, until it is closed.
fn show(errors: impl Read) {
    let mut errors = BufReader::new(errors);
    let mut line = Vec::new();
    loop {
        line.clear();
        match errors.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                note(plain(&line));
            }
        }
    }
}

/// Returns the text without control characters.
fn plain(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    strip(text.trim_end_matches(['\n', '\r']))
}

/// Replaces names of this user's address book by their keys.
fn keys(nodes: &[String]) -> anyhow::Result<Vec<String>> {
    let book = Book::of_user()?;
    let mut keys = Vec::new();
    for node in nodes {
        let Some(name) = node.strip_prefix(book::PREFIX) else {
            keys.push(node.clone());
            continue;
        };
        let meant = book.meant_by(name);
        if meant.is_empty() {
            let message = format!("{name}: the address book has no such name");
            return Err(ExitError::new(Exit::Usage, message).into());
        }
        keys.extend(meant.iter().map(|key| with_place(&book, *key)));
    }
    Ok(keys)
}

/// Refuses names that no member has. A host without a link knows nobody yet, and a user who may not
/// ask the daemon is believed.
fn check_names(common: &Common, nodes: &[String]) -> anyhow::Result<()> {
    let is_name = |node: &&String| !is_outside(node) && !node.contains(':');
    if !nodes.iter().any(|node| is_name(&node)) {
        return Ok(());
    }
    let config = common.load_config()?;
    let Ok(mut daemon) = Client::connect(&common.control_to_ask(&config)) else {
        return Ok(());
    };
    let mut ask = |request| daemon.ask::<Vec<Value>>(&request).unwrap_or_default();
    let is_linked = ask(Request::Peers)
        .iter()
        .any(|peer| peer["state"] == "connected");
    let known = ask(Request::Members);
    let unknown = nodes
        .iter()
        .filter(is_name)
        .find(|name| !is_member(&known, name));
    match unknown.filter(|_| is_linked && !known.is_empty()) {
        None => Ok(()),
        Some(name) => {
            let message =
                format!("--allow {name}: no member is called so; `lcroute members` lists all");
            Err(ExitError::new(Exit::Usage, message).into())
        }
    }
}

/// Whether a member has this name, with or without the number behind it that tells two apart.
fn is_member(known: &[Value], name: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let plain = name
        .rsplit_once('-')
        .filter(|(_, number)| is_number(number));
    let plain = plain.map_or(name, |(plain, _)| plain);
    let is_called = |member: &Value| member["name"] == name || member["name"] == plain;
    known.iter().any(is_called)
}

fn with_place(book: &Book, key: PeerId) -> String {
    let place = book.places([key].into_iter()).next();
    let place = place.map(|(_, place)| place);
    ContactText { key, place }.to_string()
}

/// Follows the address book: who is removed from it may not speak any more.
fn follow_book(nodes: &[String], mut known: Vec<String>, listener: &Listener) {
    let state = || {
        let files = [book::user_book(), book::HOST_BOOK.into()];
        files.map(|file| std::fs::metadata(file).ok()?.modified().ok())
    };
    let mut seen = state();
    loop {
        thread::sleep(BOOK_INTERVAL);
        let now = state();
        if now == seen {
            continue;
        }
        // an unreadable book permits what it permitted: it may be half written
        let Ok(book) = Book::of_user() else { continue };
        seen = now;
        let mut keys = Vec::new();
        for node in nodes {
            match node.strip_prefix(book::PREFIX) {
                None => keys.push(node.clone()),
                Some(name) => {
                    let meant = book.meant_by(name).into_iter();
                    keys.extend(meant.map(|key| with_place(&book, key)));
                }
            }
        }
        if keys != known {
            // the program for streams may have gone, and this verb with it
            if listener.amend(&keys).is_err() {
                return;
            }
            known = keys;
        }
    }
}

/// Makes SIGINT and SIGTERM end a verb that runs without end, as they end a daemon.
fn end_well() -> io::Result<()> {
    on_signals(&[Signal::SIGINT, Signal::SIGTERM], |_| {
        if let Some(path) = lock().take() {
            // the file may be removed already
            let _ = std::fs::remove_file(path);
        }
        std::process::exit(Exit::Ok as i32)
    })
}

/// The Unix socket of this process, which is removed at its end.
static SOCKET: Mutex<Option<PathBuf>> = Mutex::new(None);

fn lock() -> MutexGuard<'static, Option<PathBuf>> {
    held(&SOCKET)
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The address of `lcroute forward`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl std::str::FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some("") => Err("unix:PATH".into()),
            Some(path) => Ok(Self::Unix(path.into())),
            None => text
                .parse()
                .map(Self::Tcp)
                .map_err(|_| "write it as ADDRESS:PORT or unix:PATH".into()),
        }
    }
}

/// A node, and a protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// A name, a PeerId or an address.
    pub node: String,
    pub protocol: ProtocolName,
}

impl std::str::FromStr for Remote {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // the one behind `ws` is of a place
        let mut all = text.match_indices(":/").map(|(at, _)| at);
        let at = all.find(|at| *at > 0 && !text[at + 2..].starts_with('/'));
        let at = at.ok_or("write it as NODE:/PROTOCOL, such as beta:/ssh/1")?;
        Ok(Self {
            node: text[..at].into(),
            protocol: text[at + 1..].parse().map_err(|e| format!("{e}"))?,
        })
    }
}

/// A connection of a program of this host.
enum Incoming {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Incoming {
    fn finish(&self) {
        // the program may have gone
        let _ = match self {
            Self::Tcp(socket) => socket.shutdown(Shutdown::Write),
            Self::Unix(socket) => socket.shutdown(Shutdown::Write),
        };
    }

    /// Ends the connection after all written data; closing it with unread bytes would lose some.
    fn close(self) {
        self.finish();
        let _ = match &self {
            Self::Tcp(socket) => socket.set_read_timeout(Some(LINGER)),
            Self::Unix(socket) => socket.set_read_timeout(Some(LINGER)),
        };
        let (begun, mut rest) = (Instant::now(), vec![0; BUFFER]);
        while matches!((&self).read(&mut rest), Ok(1..)) && begun.elapsed() < LINGER {}
    }

    /// Resets the connection, if the kernel can.
    fn reset(self) {
        if let Self::Tcp(socket) = &self {
            let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsFd for Incoming {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

impl Read for &Incoming {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Incoming::Tcp(socket) => { socket }.read(buf),
            Incoming::Unix(socket) => { socket }.read(buf),
        }
    }
}

impl Write for &Incoming {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Incoming::Tcp(socket) => { socket }.write(buf),
            Incoming::Unix(socket) => { socket }.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `lcroute forward`
pub fn forward(common: &Common, listen: &Listen, remote: &Remote) -> anyhow::Result<Exit> {
    end_well()?;
    lcroute_control::system::room_for_clients();
    // holds a connection: the program for streams stays as long as this one
    let node = book::contact(&remote.node)?;
    let (program, _kept) = asked(common, is_outside(&node), |program: &Path| {
        let no_program = |e| StreamError::NoProgram(program.to_owned(), e);
        UnixStream::connect(program).map_err(no_program)
    })?;
    let remote = Remote {
        node,
        protocol: remote.protocol.clone(),
    };
    let accept: Box<dyn Fn() -> io::Result<Incoming>> = match listen {
        Listen::Tcp(address) => {
            let listener = TcpListener::bind(address).with_context(|| address.to_string())?;
            print_line(listener.local_addr()?)?;
            Box::new(move || {
                let (socket, _) = listener.accept()?;
                socket.set_nodelay(true)?;
                Ok(Incoming::Tcp(socket))
            })
        }
        Listen::Unix(path) => {
            if UnixStream::connect(path).is_err() && is_socket(path) {
                std::fs::remove_file(path)?;
            }
            let listener = UnixListener::bind(path).with_context(|| path.display().to_string())?;
            *lock() = Some(path.clone());
            print_line(format_args!("unix:{}", path.display()))?;
            Box::new(move || Ok(Incoming::Unix(listener.accept()?.0)))
        }
    };
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        while open.load(Relaxed) >= MAX_FORWARDED {
            thread::sleep(Duration::from_millis(50));
        }
        let incoming = match accept() {
            Ok(incoming) => incoming,
            Err(e) => {
                // probably out of descriptors, until connections end
                hint("lcroute", e);
                thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        let (open, program, remote) = (Arc::clone(&open), program.clone(), remote.clone());
        open.fetch_add(1, Relaxed);
        thread::spawn(move || {
            if let Err(e) = carry(incoming, &program, &remote) {
                hint("lcroute", format_args!("{e:#}"));
            }
            open.fetch_sub(1, Relaxed);
        });
    }
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
}

fn carry(incoming: Incoming, program: &Path, remote: &Remote) -> anyhow::Result<()> {
    let protocols = std::slice::from_ref(&remote.protocol);
    let opened = open(program, &remote.node, protocols).and_then(|stream| {
        let ending = Ending::of(program, stream.peer().stream.unwrap_or_default())?;
        Ok((stream, ending))
    });
    let (mut stream, ending) = match opened {
        Ok(opened) => opened,
        Err(e) => {
            incoming.reset();
            return Err(exit_of(&e));
        }
    };
    let up = stream.try_clone()?;
    let end = thread::scope(|scope| {
        let sending =
            thread::Builder::new().spawn_scoped(scope, || send_up(&incoming, up, &ending));
        if let Err(e) = sending {
            ending.give_up();
            return Err(StreamError::Io(e));
        }
        match copy(&mut stream, &mut &incoming) {
            // the other side writes no more, but still reads
            Ok(()) if !is_over(&stream) => incoming.finish(),
            Ok(()) | Err(Uncopied::Read(_)) => {}
            // the program has gone
            Err(Uncopied::Write(_)) => ending.give_up(),
        }
        ending.wait()
    });
    match end {
        Ok(End::Finished | End::Exited(_)) => incoming.close(),
        Ok(End::Reset | End::Killed(_)) | Err(_) => incoming.reset(),
    }
    Ok(())
}

/// Returns whether a stream at its end has ended in both directions: then its end is known.
fn is_over(stream: &Stream) -> bool {
    let mut fds = [PollFd::new(stream.as_fd(), PollFlags::empty())];
    let polled = poll(&mut fds, PollTimeout::ZERO);
    polled.is_err() || fds[0].any() == Some(true)
}

/// Sends a program's output until the program or the stream ends.
fn send_up(mut incoming: &Incoming, mut stream: Stream, ending: &Ending) {
    let mut buffer = vec![0; BUFFER];
    loop {
        let mut fds = [
            PollFd::new(incoming.as_fd(), PollFlags::POLLIN),
            PollFd::new(ending.as_fd(), PollFlags::POLLIN),
        ];
        if poll(&mut fds, PollTimeout::NONE).is_err() {
            continue;
        }
        if fds[1].any() == Some(true) {
            return;
        }
        match incoming.read(&mut buffer) {
            Ok(0) => {
                // the other side sends its end
                let _ = stream.finish();
                return;
            }
            Ok(count) => {
                if stream.write_all(&buffer[..count]).is_err() {
                    return;
                }
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            // the program broke off, and so does the stream
            Err(_) => {
                ending.give_up();
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_no_member_has_is_told_from_those_of_members() {
        let known = ["alpha", "beta", "web-1"].map(|name| serde_json::json!({ "name": name }));
        for name in ["alpha", "beta-2", "web-1"] {
            assert!(is_member(&known, name), "{name}");
        }
        for name in ["alpah", "web-2", "beta-", ""] {
            assert!(!is_member(&known, name), "{name}");
        }
    }

    #[test]
    fn a_program_that_is_not_there_is_known_before_a_stream_comes() {
        let there =
            |program: &str, path: Option<&str>| is_there(OsStr::new(program), path.map(OsStr::new));
        assert!(there("sh", Some("/none:/usr/bin:/bin")) && there("/bin/sh", None));
        assert!(!there("ctat", Some("/usr/bin:/bin")) && !there("/bin/ctat", None));
        assert!(there("sh", None), "the default of the system");
    }

    #[test]
    fn a_remote_is_a_node_and_a_protocol() {
        let parsed = |text: &str| {
            text.parse::<Remote>()
                .map(|r| (r.node, r.protocol.to_string()))
        };
        let is = |node: &str, protocol: &str| Ok((node.to_owned(), protocol.to_owned()));
        assert_eq!(parsed("beta:/ssh/1"), is("beta", "/ssh/1"));
        assert_eq!(parsed("fd00::1:/ssh/1:/x"), is("fd00::1", "/ssh/1:/x"));
        for bad in ["beta", ":/ssh/1", "beta:ssh", "beta:/"] {
            parsed(bad).unwrap_err();
        }
    }

    #[test]
    fn it_listens_on_a_port_or_a_path() {
        assert!(matches!("127.0.0.1:0".parse(), Ok(Listen::Tcp(_))));
        assert!(matches!("unix:a".parse(), Ok(Listen::Unix(_))));
        for bad in ["", "unix:", "8080", "localhost:80"] {
            bad.parse::<Listen>().unwrap_err();
        }
    }
}
