//! What the verbs do: they are programs like any other, and ask the program for streams.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use lcroute::settings::Common;
use librecast::plain::strip;
use librecast::stream::{
    self, Allowed, End, Listener, Peer, ProtocolName, Reason, Stream, StreamError, socket_of,
};
use librecast_program::book::{self, Book};
use librecast_program::child::{Account, Apart, set_apart};
use librecast_program::cli::{Exit, ExitError, hint};
use librecast_program::interrupt::{exit_on_interrupt, on_signals};
use nix::sys::signal::Signal;

/// A program that a verb started goes this long after the last that used it.
pub const IDLE: &str = "10s";
/// Most processes of `serve` at a time. Chosen: as many as a small host bears; more wait, and are then told that it is busy.
const MAX_PROCESSES: usize = 256;
/// Most connections of `forward` at a time: two threads each.
const MAX_FORWARDED: usize = 1_024;
/// Bytes that are copied at once.
const BUFFER: usize = 64 * 1024;
/// Bytes of one line of a process's complaints; the rest is the next line. Chosen: a page.
const MAX_LINE: u64 = 4_096;
/// Variables that a served command has of the environment of `serve`, whatever its account: language and time zone (locale(7),
/// tzset(3)).
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
/// Further variables of a command that runs under the account of `serve`.
const OWN: [&str; 3] = ["PATH", "HOME", "SHELL"];

/// Which program for streams there is: the service's, or one that this starts.
fn program(common: &Common) -> anyhow::Result<PathBuf> {
    let config = common.load_config()?;
    let control = common.control_to_ask(&config);
    let path = socket_of(&control);
    match UnixStream::connect(&path) {
        Ok(_) => Ok(path),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            let message = format!("{}: {e}: be root or in group lcroute", path.display());
            Err(ExitError::new(Exit::NotPermitted, message).into())
        }
        Err(_) => start(common, &control, &path).map(|()| path),
    }
}

/// Starts one in the background, and waits until it answers.
fn start(common: &Common, control: &Path, path: &Path) -> anyhow::Result<()> {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("lcroute-streams")
        .arg("--control")
        .arg(control);
    if let Some(config) = common.config_path() {
        command.arg("--config").arg(config);
    }
    command.args(["streams", "--idle", IDLE]);
    command.stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    // Ctrl-C is for the verb
    command.process_group(0);
    let mut child = command.spawn().context("the program for streams")?;
    let mut line = String::new();
    if let Some(out) = child.stdout.take() {
        BufReader::new(out).read_line(&mut line)?;
    }
    // another verb may have been faster
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

fn exit_of(error: &StreamError) -> anyhow::Error {
    let exit = match error {
        StreamError::Refused(Reason::BadRequest, _) => Exit::Usage,
        StreamError::Refused(Reason::Unreachable, _) | StreamError::NoProgram(..) => {
            Exit::Unreachable
        }
        StreamError::Refused(Reason::Refused, _) => Exit::NotPermitted,
        _ => Exit::Failed,
    };
    ExitError::new(exit, error.to_string()).into()
}

/// `lcroute connect`
pub fn connect(
    common: &Common,
    node: &str,
    protocols: &[ProtocolName],
    is_verbose: bool,
) -> anyhow::Result<Exit> {
    exit_on_interrupt(|| ())?;
    let socket = program(common)?;
    let node = book::node(node)?;
    let mut stream = stream::connect_at(&socket, &node, protocols).map_err(|e| exit_of(&e))?;
    let peer = stream.peer().clone();
    if is_verbose {
        eprintln!("{} ({}): {}", peer.name, peer.peer, peer.protocol);
    }
    let number = peer.stream.unwrap_or_default();
    let mut out = stream.try_clone()?;
    thread::spawn(move || {
        // the other side says how it ended
        let _ = copy(&mut io::stdin().lock(), &mut out);
        let _ = out.finish();
    });
    let copied = copy(&mut stream, &mut io::stdout().lock());
    let is_reset = |e: &io::Error| e.kind() == io::ErrorKind::ConnectionReset;
    match copied {
        Err(e) if !is_reset(&e) => return Err(e.into()),
        _ => {}
    }
    match stream::end_of(&socket, number).map_err(|e| exit_of(&e))? {
        End::Finished => Ok(Exit::Ok),
        End::Reset => {
            let message = format!("the stream to {} broke off", peer.name);
            Err(ExitError::new(Exit::Failed, message).into())
        }
    }
}

/// Copies until an end, each read written at once.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                to.write_all(&buffer[..count])?;
                to.flush()?;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// What `lcroute serve` is told.
#[derive(Debug)]
pub struct Serving {
    /// What the command speaks, what it likes best first.
    pub protocols: Vec<ProtocolName>,
    /// Which nodes may.
    pub allowed: Allowed,
    /// Whose process it is to be; none: of who started this.
    pub user: Option<String>,
    /// Variables of this process that it is to have beside the usual ones.
    pub variables: Vec<OsString>,
    /// Whether it may gain rights by set-user-ID programs.
    pub gains_rights: bool,
    /// The command.
    pub command: Vec<OsString>,
}

/// `lcroute serve`
pub fn serve(common: &Common, serving: &Serving) -> anyhow::Result<Exit> {
    end_well()?;
    let account = Account::find(serving.user.as_deref())?;
    let served = Served::new(serving, account)?;
    let socket = program(common)?;
    let allowed = Allowed {
        nodes: keys(&serving.allowed.nodes)?,
        all: serving.allowed.all,
    };
    let listener = Listener::bind_at(&socket, &serving.protocols, &allowed);
    let listener = listener.map_err(|e| exit_of(&e))?;
    let names: Vec<_> = serving.protocols.iter().map(ProtocolName::as_str).collect();
    eprintln!("serving {}", names.join(", "));
    if !serving.allowed.all && serving.allowed.nodes.is_empty() {
        eprintln!("nobody may speak it: --allow NODE, or --allow-all");
    }
    if serving.user.is_none() && nix::unistd::geteuid().is_root() {
        eprintln!("each stream's process is root's; --user NAME makes it another's");
    }
    let running = Arc::new(AtomicUsize::new(0));
    loop {
        while running.load(Relaxed) >= MAX_PROCESSES {
            thread::sleep(Duration::from_millis(50));
        }
        let stream = match listener.accept() {
            Ok(stream) => stream,
            Err(e) => return Err(exit_of(&e)),
        };
        let mut process = served.command(stream.peer());
        let output = OwnedFd::from(stream.try_clone()?);
        process.stdout(output).stdin(OwnedFd::from(stream));
        match process.spawn() {
            Ok(mut child) => {
                running.fetch_add(1, Relaxed);
                let running = Arc::clone(&running);
                thread::spawn(move || {
                    if let Some(errors) = child.stderr.take() {
                        show(errors);
                    }
                    // how it ended is between it and the other side
                    let _ = child.wait();
                    running.fetch_sub(1, Relaxed);
                });
            }
            Err(e) => eprintln!("{}: {e}", served.program.to_string_lossy()),
        }
    }
}

/// A command that is started for each stream, as whom, where, and with which environment.
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
                // its folder is another one
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

    fn command(&self, peer: &Peer) -> Command {
        let mut command = Command::new(&self.program);
        command.args(self.arguments).env_clear();
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.env("LC_PEER", peer.peer.to_string());
        command.env("LC_NAME", &peer.name);
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

/// Prints standard error of a process line by line, without control characters, until all its writers have closed it.
fn show(errors: impl Read) {
    let mut errors = BufReader::new(errors);
    let mut line = Vec::new();
    loop {
        line.clear();
        match errors.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                // a reader that has gone must not end this
                let _ = writeln!(io::stderr(), "{}", plain(&line));
            }
        }
    }
}

/// Text without control characters.
fn plain(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    strip(text.trim_end_matches(['\n', '\r']))
}

/// The keys of those that this user's book has; all else as it is.
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
            let message = format!("{name}: nobody in the address book is called so");
            return Err(ExitError::new(Exit::Usage, message).into());
        }
        keys.extend(meant.iter().map(ToString::to_string));
    }
    Ok(keys)
}

/// SIGINT and SIGTERM end what runs until it is told to, as they end a daemon.
fn end_well() -> io::Result<()> {
    on_signals(&[Signal::SIGINT, Signal::SIGTERM], |_| {
        if let Some(path) = lock().take() {
            // somebody may have removed it already
            let _ = std::fs::remove_file(path);
        }
        std::process::exit(Exit::Ok as i32)
    })
}

/// The Unix socket of this process: it goes with it.
static SOCKET: Mutex<Option<PathBuf>> = Mutex::new(None);

fn lock() -> std::sync::MutexGuard<'static, Option<PathBuf>> {
    SOCKET.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where `lcroute forward` listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// On a TCP port.
    Tcp(SocketAddr),
    /// On a Unix socket.
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

/// A node, and what is spoken with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// A name, a PeerId or an address.
    pub node: String,
    /// What is spoken.
    pub protocol: ProtocolName,
}

impl std::str::FromStr for Remote {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let at = text.find(":/").filter(|at| *at > 0);
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
    fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(socket) => Self::Tcp(socket.try_clone()?),
            Self::Unix(socket) => Self::Unix(socket.try_clone()?),
        })
    }

    fn finish(&self) {
        // it may have gone
        let _ = match self {
            Self::Tcp(socket) => socket.shutdown(Shutdown::Write),
            Self::Unix(socket) => socket.shutdown(Shutdown::Write),
        };
    }

    /// The program sees that it broke off, where the kernel can tell it.
    fn reset(self) {
        if let Self::Tcp(socket) = &self {
            let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
        }
    }
}

impl Read for Incoming {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.read(buf),
            Self::Unix(socket) => socket.read(buf),
        }
    }
}

impl Write for Incoming {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.write(buf),
            Self::Unix(socket) => socket.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `lcroute forward`
pub fn forward(common: &Common, listen: &Listen, remote: &Remote) -> anyhow::Result<Exit> {
    end_well()?;
    let program = program(common)?;
    // a connection of our own: the program stays as long as this does
    let _kept = UnixStream::connect(&program)?;
    let remote = Remote {
        node: book::node(&remote.node)?,
        protocol: remote.protocol.clone(),
    };
    let accept: Box<dyn Fn() -> io::Result<Incoming>> = match listen {
        Listen::Tcp(address) => {
            let listener = TcpListener::bind(address).with_context(|| address.to_string())?;
            println!("{}", listener.local_addr()?);
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
            println!("unix:{}", path.display());
            Box::new(move || Ok(Incoming::Unix(listener.accept()?.0)))
        }
    };
    io::stdout().flush()?;
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        while open.load(Relaxed) >= MAX_FORWARDED {
            thread::sleep(Duration::from_millis(50));
        }
        let incoming = match accept() {
            Ok(incoming) => incoming,
            Err(e) => {
                // out of descriptors, most likely: others may end meanwhile
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

/// One connection.
fn carry(mut incoming: Incoming, program: &Path, remote: &Remote) -> anyhow::Result<()> {
    let protocols = std::slice::from_ref(&remote.protocol);
    let mut stream = match stream::connect_at(program, &remote.node, protocols) {
        Ok(stream) => stream,
        Err(e) => {
            incoming.reset();
            return Err(e.into());
        }
    };
    let number = stream.peer().stream.unwrap_or_default();
    let (mut from, mut to): (Incoming, Stream) = (incoming.try_clone()?, stream.try_clone()?);
    let up = thread::spawn(move || {
        // the other side says how it ended
        let _ = copy(&mut from, &mut to);
        let _ = to.finish();
    });
    let _ = copy(&mut stream, &mut incoming);
    incoming.finish();
    match stream::end_of(program, number)? {
        End::Finished => {
            let _ = up.join();
        }
        End::Reset => incoming.reset(),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
