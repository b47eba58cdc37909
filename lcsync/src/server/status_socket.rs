//! Sockets by which `lcsync status` finds the servers of this host. Their folder, or at least the
//! socket, is for its user alone. A client receives one line; nothing is read from it.

use std::ffi::OsString;
use std::fs::{DirBuilder, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::sys::socket::sockopt::SendTimeout;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd::{Pid, geteuid};

use super::status::Status;

/// End of the socket's name, after the number of the process.
const SUFFIX: &str = ".sock";
/// Folder of sockets of root and, one level below, of services.
const SYSTEM: &str = "/run/lcsync";
/// Connections that wait; one is served at a time.
const BACKLOG: i32 = 8;
/// Time in which a client must read its line.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);
/// Time for an answer of the serving loop; beyond, it is stuck.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);
/// Age up to which a line serves further clients.
const FRESH: Duration = Duration::from_millis(100);
/// Most entries read of a folder.
const MAX_ENTRIES: usize = 1_024;
/// Pause after a failed accept, for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// The serving loop's end; dropping it removes the socket.
#[derive(Debug)]
pub struct StatusSocket {
    asks: Receiver<SyncSender<Status>>,
    path: PathBuf,
}

impl StatusSocket {
    /// Opens the socket of this process, if it has a folder. `wake` ends the loop's wait.
    pub fn of_this_process(wake: impl Fn() + Send + 'static) -> Option<Self> {
        let Some(path) = own_path() else {
            tracing::debug!("no folder for a socket: `lcsync status` does not see this process");
            return None;
        };
        let opened = Self::open(&path, wake);
        opened
            .inspect_err(|e| {
                let path = path.display();
                tracing::debug!("{path}: {e}: `lcsync status` does not see this process");
            })
            .ok()
    }

    fn open(path: &Path, wake: impl Fn() + Send + 'static) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            make_folder(folder)?;
        }
        let listener = bind_private(path)?;
        let (asker, asks) = channel();
        let mut serving = Serving {
            asker,
            wake,
            line: None,
        };
        // it ends with the process
        thread::Builder::new()
            .name("status".into())
            .spawn(move || serving.run(&listener))?;
        Ok(Self {
            asks,
            path: path.to_owned(),
        })
    }

    /// Answers waiting clients, in each turn of the loop.
    pub fn answer(&self, mut status: impl FnMut() -> Status) {
        while let Ok(to) = self.asks.try_recv() {
            // the client may have given up
            let _ = to.try_send(status());
        }
    }
}

impl Drop for StatusSocket {
    fn drop(&mut self) {
        // it may be gone already
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Removes the socket of this process, if the process ends without dropping it.
pub fn remove_own() {
    if let Some(path) = own_path() {
        // there may be none
        let _ = std::fs::remove_file(path);
    }
}

/// Removes a socket without a process; only from this user's folder, as others may lead anywhere.
pub fn remove_left_over(path: &Path) {
    let is_own = |folder: &Path| {
        std::fs::symlink_metadata(folder).is_ok_and(|m| m.uid() == geteuid().as_raw())
    };
    // a new process may have this number, and not listen yet
    let is_dead =
        number_of(path).is_some_and(|n| kill(Pid::from_raw(n), None) == Err(Errno::ESRCH));
    if is_dead && path.parent().is_some_and(is_own) {
        // another `lcsync status` may have removed it
        let _ = std::fs::remove_file(path);
    }
}

fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.exists() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    // services have theirs below it, under other users
    if folder == Path::new(SYSTEM) {
        std::fs::set_permissions(folder, Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// Connects; `timeout` bounds the wait behind other clients.
pub fn connect(path: &Path, timeout: Duration) -> io::Result<UnixStream> {
    let socket = new_socket()?;
    // zero would mean for ever
    let micros = timeout.as_micros().max(1);
    let timeout = TimeVal::microseconds(micros.try_into().unwrap_or(i64::MAX));
    // it bounds connecting, too (unix(7), socket(7))
    setsockopt(&socket, SendTimeout, &timeout)?;
    nix::sys::socket::connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(UnixStream::from(socket))
}

fn new_socket() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    Ok(socket(AddressFamily::Unix, SockType::Stream, flags, None)?)
}

/// Binds a socket that gets its final name once it listens. It replaces one of a dead process, and
/// no other user can connect, not even before its mode is set.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let early = path.with_extension("new");
    // left by a killed process of the same number
    match std::fs::remove_file(&early) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let socket = new_socket()?;
    bind(socket.as_raw_fd(), &UnixAddr::new(&early)?)?;
    std::fs::set_permissions(&early, Permissions::from_mode(0o600))?;
    listen(&socket, Backlog::new(BACKLOG)?)?;
    std::fs::rename(&early, path)?;
    Ok(UnixListener::from(socket))
}

/// The listening thread.
struct Serving<W> {
    asker: Sender<SyncSender<Status>>,
    wake: W,
    line: Option<(Instant, Vec<u8>)>,
}

impl<W: Fn()> Serving<W> {
    fn run(&mut self, listener: &UnixListener) {
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    if let Err(e) = self.serve(stream) {
                        tracing::debug!("status: {e}");
                    }
                }
                Err(e) => {
                    tracing::debug!("status: {e}");
                    thread::sleep(PAUSE);
                }
            }
        }
    }

    fn serve(&mut self, mut stream: UnixStream) -> io::Result<()> {
        let line = self.line()?;
        let until = Instant::now() + WRITE_TIMEOUT;
        let mut left = line;
        while !left.is_empty() {
            let time = until.saturating_duration_since(Instant::now());
            if time.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            stream.set_write_timeout(Some(time))?;
            let written = stream.write(left)?;
            left = &left[written..];
        }
        Ok(())
    }

    fn line(&mut self) -> io::Result<&[u8]> {
        let fresh = |at: &Instant| at.elapsed() < FRESH;
        let line = match self.line.take().filter(|(at, _)| fresh(at)) {
            Some(line) => line,
            None => (Instant::now(), self.ask()?),
        };
        Ok(&self.line.insert(line).1)
    }

    fn ask(&self) -> io::Result<Vec<u8>> {
        let (to, answer) = sync_channel(1);
        let gone = || io::Error::other("the server is stopping, or stuck");
        self.asker.send(to).map_err(|_| gone())?;
        (self.wake)();
        let status = answer.recv_timeout(STATUS_TIMEOUT).map_err(|_| gone())?;
        let mut line = serde_json::to_vec(&status)?;
        line.push(b'\n');
        Ok(line)
    }
}

fn own_path() -> Option<PathBuf> {
    // after `su`, root has a user's folder, but must not use it
    let is_own = |f: &Path| std::fs::metadata(f).is_ok_and(|m| m.uid() == geteuid().as_raw());
    let folder = own_folder(|name| std::env::var_os(name), is_own, geteuid().is_root())?;
    Some(folder.join(format!("{}{SUFFIX}", std::process::id())))
}

/// Returns the folder for the socket of a process with this environment.
fn own_folder(
    variable: impl Fn(&str) -> Option<OsString>,
    is_own: impl Fn(&Path) -> bool,
    is_root: bool,
) -> Option<PathBuf> {
    // systemd names several, if the unit does
    let service = variable("RUNTIME_DIRECTORY")
        .and_then(|folders| std::env::split_paths(&folders).next())
        .filter(|folder| folder.is_absolute());
    let user = variable("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|folder| folder.is_absolute() && is_own(folder));
    let system = is_root.then(|| SYSTEM.into());
    service.or(user.map(|f| f.join("lcsync"))).or(system)
}

/// Folders with sockets of servers, those of other users too.
#[must_use]
pub fn folders() -> Vec<PathBuf> {
    let root = geteuid().is_root();
    let users = Path::new("/run/user");
    let users = match root {
        true => inside(users).unwrap_or_default(),
        false => vec![users.join(geteuid().to_string())],
    };
    let own = own_folder(|name| std::env::var_os(name), |_| true, root);
    let mut folders: Vec<PathBuf> = users.iter().map(|user| user.join("lcsync")).collect();
    folders.extend(own.into_iter().chain([SYSTEM.into()]));
    // links lead anywhere
    let is_folder = |f: &PathBuf| std::fs::symlink_metadata(f).is_ok_and(|m| m.is_dir());
    folders.retain(is_folder);
    // those of services
    let below = folders.iter().flat_map(|f| inside(f).unwrap_or_default());
    let below: Vec<PathBuf> = below.filter(is_folder).collect();
    folders.extend(below);
    folders.sort();
    folders.dedup();
    folders
}

/// Sockets of servers in a folder.
pub fn sockets_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let is_socket =
        |path: &Path| std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
    let mut all = inside(folder)?;
    all.retain(|path| number_of(path).is_some() && is_socket(path));
    Ok(all)
}

/// Returns the process that the socket's name contains.
fn number_of(path: &Path) -> Option<i32> {
    let name = path.file_name()?.to_str()?;
    name.strip_suffix(SUFFIX)?.parse().ok().filter(|n| *n > 0)
}

fn inside(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder)?.take(MAX_ENTRIES);
    entries.map(|entry| Ok(entry?.path())).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::server::status::Process;

    fn nothing() -> Status {
        Status {
            process: Process {
                pid: 1,
                version: String::new(),
                uptime_s: 0,
                seed: false,
                limit_bps: None,
                capacity_bps: None,
            },
            shares: Vec::new(),
        }
    }

    /// Enough on a busy machine.
    const TIMEOUT: Duration = Duration::from_secs(60);

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    /// A socket with a loop that answers whenever it is woken.
    fn answering(path: &Path, status: Status) {
        let (woken, wakes) = channel();
        let socket = StatusSocket::open(path, move || woken.send(()).unwrap()).unwrap();
        thread::spawn(move || {
            while wakes.recv().is_ok() {
                socket.answer(|| status.clone());
            }
        });
    }

    fn ask(path: &Path) -> Status {
        let mut line = String::new();
        let mut stream = connect(path, TIMEOUT).unwrap();
        stream.read_to_string(&mut line).unwrap();
        assert!(line.ends_with("}\n"));
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn the_place_is_that_of_the_service_the_user_or_the_system() {
        let of = |service: &str, user: &str, is_root| {
            let variable = |name: &str| match name {
                "RUNTIME_DIRECTORY" => Some(service.into()),
                _ => Some(user.into()),
            };
            own_folder(variable, |folder| folder != "/others", is_root)
        };
        let at = |path: &str| Some(PathBuf::from(path));
        assert_eq!(of("/run/lcsync/a:/run/b", "/u", true), at("/run/lcsync/a"));
        assert_eq!(of("", "/u", true), at("/u/lcsync"));
        assert_eq!(of("here", "there", true), at(SYSTEM));
        assert_eq!(of("", "/others", true), at(SYSTEM));
        assert_eq!(of("", "", false), None);
    }

    #[test]
    fn only_its_user_is_answered_and_nothing_stays_behind() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("lcsync");
        let path = folder.join("17.sock");
        let socket = StatusSocket::open(&path, || ()).unwrap();
        assert_eq!((mode(&folder), mode(&path)), (0o700, 0o600));
        drop(socket);
        assert!(!path.exists());
        answering(&path, nothing());
        assert_eq!(ask(&path), nothing());
    }

    #[test]
    fn who_neither_reads_nor_goes_keeps_nobody_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("17.sock");
        let mut long = nothing();
        // more than a socket holds
        long.process.version = "1".repeat(4 << 20);
        answering(&path, long.clone());
        let mut idle = connect(&path, TIMEOUT).unwrap();
        idle.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        assert_eq!(ask(&path), long);
        drop(idle);
    }

    #[test]
    fn what_a_killed_process_leaves_goes_and_what_lives_stays() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let dead = at(&format!("{}.sock", child.id()));
        let own = at(&format!("{}.sock", std::process::id()));
        // bound, but not listening
        drop(bind_private(&dead).unwrap());
        drop(bind_private(&own).unwrap());
        let listening = at("1.sock");
        let _listener = bind_private(&listening).unwrap();
        for other in ["x.sock", "0.sock", "-1.sock", "12.txt"] {
            drop(bind_private(&at(other)).unwrap());
        }
        std::fs::write(at("12.sock"), "no socket").unwrap();
        let mut found = sockets_in(dir.path()).unwrap();
        found.sort();
        let mut expected = vec![listening.clone(), dead.clone(), own.clone()];
        expected.sort();
        assert_eq!(found, expected);
        found.iter().for_each(|path| remove_left_over(path));
        assert!(!dead.exists(), "its process is gone");
        assert!(own.exists(), "its process may be about to listen");
        assert!(listening.exists());
        // the next process of this number replaces it
        let socket = StatusSocket::open(&own, || ()).unwrap();
        assert!(connect(&own, TIMEOUT).is_ok());
        drop(socket);
    }
}
