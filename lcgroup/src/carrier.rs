//! Files of groups on their way: processes of lcsync that serve whole ones and fetch missing ones,
//! and the thread that starts and watches them.
//!
//! A file is a share of its own: its name is its root hash, sealed with a key that all who can read
//! the group's log have. A receiver names the root hash, so it takes no other content, whoever
//! serves it. The announced length is checked before the first block is fetched.
//!
//! A group with a network of its own has processes of its own, on lc0 of its guest.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lcgroup_core::file::{FileId, SealedFile};
use librecast::id::PeerId;
use nix::sys::eventfd::EventFd;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::child;
use crate::hub::Lc0;
use crate::shelf::{self, UNFINISHED, check_room};

/// Interval at which children are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Fetches at the same time, and those in a group's own network. Chosen: each is a process. Of those,
/// one less are of files of one author: others have a place.
const MAX_FETCHES: (usize, usize) = (4, 2);
/// Silence after which lcsync gives up, in seconds. Chosen: a server answers within one.
const SILENCE_S: u64 = 15;
/// Shortest and longest pause after a fetch that failed, while no user waits.
const SHORTEST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(120);
/// Pause while a user waits.
const AWAITED_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause after the server ended.
const LONGEST_SERVER_PAUSE: Duration = Duration::from_secs(60);
/// Lines of a child that are read, and bytes of one.
const MAX_LINE: u64 = 64 << 10;
/// Bytes of a problem that users see.
const MAX_PROBLEM: usize = 400;
/// The list for lcsync, in the folder of groups.
const SHARES: &str = "files.toml";

/// A whole file that is served.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Served {
    /// The folder of the group's files, below the folder of groups.
    pub folder: PathBuf,
    pub id: FileId,
}

/// A file that this host lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The folder of the group's files.
    pub folder: PathBuf,
    pub file: SealedFile,
    /// The member that announced it.
    pub author: PeerId,
    /// A user waits for it.
    pub awaited: bool,
}

/// Files to serve and to fetch.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Plan {
    pub served: BTreeSet<Served>,
    pub wanted: Vec<Wanted>,
}

/// Place of a file: the folder and the file itself.
type Place = (PathBuf, SealedFile);

/// The state of a missing file.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Verified bytes of this attempt.
    pub bytes: u64,
    /// Some host sends it now.
    pub found: bool,
    /// Why the last attempt failed, if not for lack of a host that has it.
    pub problem: Option<String>,
}

/// Where files go.
#[derive(Debug, Clone)]
pub enum Way {
    /// By these interfaces; none: by all that can carry multicast.
    Interfaces(Vec<String>),
    /// By the network of a group.
    Own(Arc<Mutex<Access>>),
}

/// The way into the network of a group.
#[derive(Debug, Default)]
pub struct Access {
    /// lc0 of its guest, while one runs.
    pub lc0: Option<Lc0>,
    /// Why none runs.
    pub problem: Option<String>,
}

#[derive(Debug, Default)]
struct Shared {
    plan: Plan,
    /// Whole files that came, or proved to be damaged: folder and file.
    changed: Vec<(PathBuf, FileId)>,
    progress: BTreeMap<Place, Progress>,
    /// The root hash that the server found for each share.
    serves: BTreeMap<FileId, String>,
    server_problem: Option<String>,
    ends: bool,
}

/// Serves and fetches files on a thread of its own.
#[derive(Debug)]
pub struct Carrier {
    shared: Arc<Mutex<Shared>>,
    is_own: bool,
    thread: Option<JoinHandle<()>>,
}

/// Shows what the server serves, for other threads.
#[derive(Debug, Clone)]
pub struct Serving(Arc<Mutex<Shared>>);

impl Serving {
    /// Whether this file is served; an error if it cannot be.
    pub fn outcome(&self, id: &FileId) -> Option<Result<(), String>> {
        let shared = lock(&self.0);
        match shared.serves.get(id) {
            Some(root) if *root == id.to_string() => Some(Ok(())),
            Some(_) => Some(Err("its copy here is damaged".into())),
            None => shared.server_problem.clone().map(Err),
        }
    }
}

impl Carrier {
    /// Starts the thread; `state` is the folder of groups, or of one group with its own network.
    pub fn start(state: &Path, way: Way, wake: Arc<EventFd>) -> io::Result<Self> {
        let shared = Arc::new(Mutex::new(Shared::default()));
        let is_own = matches!(way, Way::Own(_));
        let worker = Worker {
            state: state.to_owned(),
            way,
            run: None,
            shared: Arc::clone(&shared),
            wake,
            server: None,
            config: String::new(),
            server_at: Instant::now(),
            server_failures: 0,
            fetches: Vec::new(),
            tries: BTreeMap::new(),
            failures: BTreeMap::new(),
        };
        let thread = thread::Builder::new()
            .name("files".into())
            .spawn(move || worker.run())?;
        Ok(Self {
            shared,
            is_own,
            thread: Some(thread),
        })
    }

    /// What to check where no host has a file.
    pub fn question(&self) -> &'static str {
        match self.is_own {
            true => "Does `lcgroup run` run there?",
            false => {
                "Does `lcgroup run` run there, and do firewalls let in multicast and UDP port 14242?"
            }
        }
    }

    /// Replaces the plan.
    pub fn set(&self, plan: Plan) {
        let mut shared = lock(&self.shared);
        if shared.plan != plan {
            shared.plan = plan;
            if let Some(thread) = &self.thread {
                thread.thread().unpark();
            }
        }
    }

    /// Takes files that came, or proved to be damaged.
    pub fn take_changed(&self) -> Vec<(PathBuf, FileId)> {
        std::mem::take(&mut lock(&self.shared).changed)
    }

    pub fn progress(&self, folder: &Path, file: &SealedFile) -> Progress {
        let place = (folder.to_owned(), *file);
        lock(&self.shared)
            .progress
            .get(&place)
            .cloned()
            .unwrap_or_default()
    }

    /// Why nothing can be served from here.
    pub fn server_problem(&self) -> Option<String> {
        lock(&self.shared).server_problem.clone()
    }

    pub fn serving(&self) -> Serving {
        Serving(Arc::clone(&self.shared))
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        lock(&self.shared).ends = true;
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // a panic of the thread was reported
            let _ = thread.join();
        }
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A process, and the last line of its errors.
#[derive(Debug)]
struct Running {
    child: Child,
    error: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Running {
    /// Starts a command; `read` gets each line of its output.
    fn start(
        mut command: Command,
        mut read: impl FnMut(&str) + Send + 'static,
    ) -> io::Result<Self> {
        child::bind(&mut command);
        let mut child = command.spawn()?;
        let error = Arc::new(Mutex::new(String::new()));
        let last = Arc::clone(&error);
        let (out, err) = (child.stdout.take(), child.stderr.take());
        // from here on it ends with this value
        let mut running = Self {
            child,
            error,
            readers: Vec::new(),
        };
        if let Some(out) = out {
            let reader = thread::Builder::new().name("files-out".into());
            running
                .readers
                .push(reader.spawn(move || lines(out, &mut read))?);
        }
        if let Some(err) = err {
            let reader = thread::Builder::new().name("files-err".into());
            let mut take = move |line: &str| {
                tracing::debug!("lcsync: {line}");
                let line: String = line.chars().take(MAX_PROBLEM).collect();
                *last.lock().unwrap_or_else(PoisonError::into_inner) = line;
            };
            running
                .readers
                .push(reader.spawn(move || lines(err, &mut take))?);
        }
        Ok(running)
    }

    /// Returns how it ended, and the last line of its errors.
    fn ended(&mut self) -> Option<(ExitStatus, String)> {
        let status = self.child.try_wait().ok().flatten()?;
        for reader in self.readers.drain(..) {
            // they end with the pipes
            let _ = reader.join();
        }
        let error = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        Some((status, error.clone()))
    }

    fn reload(&self) {
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGHUP);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // a partial file stays for the next attempt
        let _ = self.child.kill();
        let _ = self.child.wait();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }
}

/// Passes lines of bounded length.
fn lines(input: impl Read, take: &mut impl FnMut(&str)) {
    let mut reader = BufReader::new(input);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line) {
            Ok(1..) => take(String::from_utf8_lossy(&line).trim_end()),
            _ => return,
        }
    }
}

/// The part of a fetch that its reader sets.
#[derive(Debug, Default)]
struct Received {
    bytes: AtomicU64,
    found: AtomicBool,
    /// The share is not the announced file.
    wrong: AtomicBool,
}

impl Received {
    /// Reads a line of `lcsync --json`.
    fn read(&self, line: &str, length: u64) {
        let Ok(event) = serde_json::from_str::<Value>(line) else {
            return;
        };
        match event["event"].as_str() {
            Some("start") => {
                self.found.store(true, Ordering::Relaxed);
                if event["bytes"] != length || event["files"] != 1 {
                    self.wrong.store(true, Ordering::Relaxed);
                }
            }
            Some("progress") => {
                let bytes = event["bytes"].as_u64().unwrap_or(0);
                self.bytes.store(bytes, Ordering::Relaxed);
            }
            _ => {}
        }
    }
}

#[derive(Debug)]
struct Fetch {
    wanted: Wanted,
    running: Running,
    received: Arc<Received>,
}

/// Earlier attempts for a file.
#[derive(Debug, Clone, Copy)]
struct Tried {
    failures: u32,
    again: Instant,
    awaited_again: Instant,
}

struct Worker {
    state: PathBuf,
    way: Way,
    /// The start of the guest whose lc0 is used.
    run: Option<u64>,
    shared: Arc<Mutex<Shared>>,
    wake: Arc<EventFd>,
    server: Option<Running>,
    /// The list that the server has.
    config: String,
    server_at: Instant,
    server_failures: u32,
    fetches: Vec<Fetch>,
    tries: BTreeMap<Place, Tried>,
    /// Failed fetches of each author since the last that succeeded.
    failures: BTreeMap<PeerId, u32>,
}

impl Worker {
    fn run(mut self) {
        loop {
            let (plan, ends) = {
                let shared = lock(&self.shared);
                (shared.plan.clone(), shared.ends)
            };
            if ends {
                return;
            }
            let now = Instant::now();
            if self.has_way(now) {
                self.serve(&plan, now);
                self.fetch(&plan, now);
            }
            let is_idle =
                plan == Plan::default() && self.server.is_none() && self.fetches.is_empty();
            match is_idle && lock(&self.shared).plan == plan {
                true => thread::park(),
                false => thread::park_timeout(LOOK_INTERVAL),
            }
        }
    }

    /// Whether programs can start. Ends them once the guest whose lc0 they use is gone.
    fn has_way(&mut self, now: Instant) -> bool {
        let Way::Own(access) = &self.way else {
            return true;
        };
        let (run, problem) = {
            let access = lock(access);
            (
                access.lc0.as_ref().map(|lc0| lc0.run),
                access.problem.clone(),
            )
        };
        if run != self.run {
            self.run = run;
            (self.server, self.server_at, self.server_failures) = (None, now, 0);
            self.config.clear();
            self.fetches.clear();
            self.tries.clear();
            let mut shared = lock(&self.shared);
            shared.serves.clear();
            shared.progress.clear();
            shared.server_problem = None;
        }
        if run.is_none() {
            lock(&self.shared).server_problem = problem;
        }
        run.is_some()
    }

    /// Has a program use the way of files. The returned descriptor must be open until it has started.
    fn lead(&self, command: &mut Command) -> io::Result<Option<OwnedFd>> {
        match &self.way {
            Way::Interfaces(interfaces) => {
                for interface in interfaces {
                    command.args(["-i", interface]);
                }
                Ok(None)
            }
            Way::Own(access) => {
                let lc0 = lock(access).lc0.clone();
                let lc0 = lc0.ok_or_else(|| io::Error::other("the group's network is gone"))?;
                lc0.give(command).map(Some)
            }
        }
    }

    /// The most fetches at the same time.
    fn most(&self) -> usize {
        match self.way {
            Way::Interfaces(_) => MAX_FETCHES.0,
            Way::Own(_) => MAX_FETCHES.1,
        }
    }

    fn serve(&mut self, plan: &Plan, now: Instant) {
        if let Some((status, error)) = self.server.as_mut().and_then(Running::ended) {
            self.server = None;
            self.server_failed(&match error.is_empty() {
                true => format!("lcsync ended: {status}"),
                false => error,
            });
        }
        let config = self.config_of(&plan.served);
        if config.is_empty() {
            self.server = None;
            self.config = config;
            self.server_failures = 0;
            let mut shared = lock(&self.shared);
            shared.serves.clear();
            shared.server_problem = None;
            return;
        }
        if self.server.is_some() && config == self.config {
            return;
        }
        if self.server.is_none() && self.server_at > now {
            return;
        }
        let file = self.state.join(SHARES);
        if let Err(e) = librecast::durable::replace(&file, config.as_bytes()) {
            return self.server_failed(&format!("{}: {e}", file.display()));
        }
        self.config = config;
        let ids: BTreeSet<FileId> = plan.served.iter().map(|served| served.id).collect();
        match &self.server {
            Some(server) => {
                lock(&self.shared).serves.retain(|id, _| ids.contains(id));
                server.reload();
            }
            None => self.start_server(&file, plan),
        }
    }

    fn start_server(&mut self, file: &Path, plan: &Plan) {
        lock(&self.shared).serves.clear();
        // a copy that was fetched again is no other disk
        let _ = fs::remove_dir_all(self.state.join("lcsync"));
        let mut command = child::lcsync(&self.state);
        command.args(["share", "--config"]).arg(file);
        let _open = match self.lead(&mut command) {
            Ok(open) => open,
            Err(e) => return self.server_failed(&e.to_string()),
        };
        let (shared, wake) = (Arc::clone(&self.shared), Arc::clone(&self.wake));
        let folders: BTreeMap<FileId, PathBuf> = plan
            .served
            .iter()
            .map(|s| (s.id, s.folder.clone()))
            .collect();
        let read = move |line: &str| {
            let served = line
                .strip_prefix("lc:")
                .and_then(|line| line.split_once(' '));
            let Some((Ok(id), root)) = served.map(|(id, root)| (id.parse::<FileId>(), root)) else {
                return;
            };
            let mut shared = lock(&shared);
            shared.server_problem = None;
            shared.serves.insert(id, root.to_owned());
            if root != id.to_string() {
                tracing::warn!("file {id}: its copy here is damaged: it is removed");
                if let Some(folder) = folders.get(&id) {
                    let _ = fs::remove_file(folder.join(id.to_string()));
                    shared.changed.push((folder.clone(), id));
                    let _ = wake.write(1);
                }
            }
        };
        match Running::start(command, read) {
            Ok(server) => self.server = Some(server),
            Err(e) => self.server_failed(&child::not_started(&e)),
        }
    }

    fn server_failed(&mut self, why: &str) {
        let pause = Duration::from_secs(1) * 2_u32.saturating_pow(self.server_failures);
        self.server_failures = (self.server_failures + 1).min(6);
        self.server_at = Instant::now() + pause.min(LONGEST_SERVER_PAUSE);
        let mut shared = lock(&self.shared);
        shared.serves.clear();
        if shared.server_problem.as_deref() != Some(why) {
            tracing::warn!("files of groups are not served from here: {why}");
            shared.server_problem = Some(why.to_owned());
        }
    }

    /// The list for lcsync; paths are relative to it.
    fn config_of(&self, served: &BTreeSet<Served>) -> String {
        let mut config = String::new();
        for Served { folder, id } in served {
            let Some(folder) = folder.strip_prefix(&self.state).ok().and_then(Path::to_str) else {
                continue;
            };
            // names of groups need no quoting
            let _ = write!(
                config,
                "[[share]]\nname = \"{id}\"\npath = \"{folder}/{id}\"\nkeyfile = \"{folder}/key\"\n"
            );
        }
        config
    }

    fn fetch(&mut self, plan: &Plan, now: Instant) {
        self.watch_fetches(plan, now);
        while self.fetches.len() < self.most() {
            let Some(wanted) = self.next_wanted(plan, now) else {
                break;
            };
            if let Err(problem) = self.start_fetch(&wanted) {
                self.fetch_failed(&wanted, Some(problem), now);
            }
        }
        let places: BTreeSet<Place> = plan.wanted.iter().map(place_of).collect();
        self.tries.retain(|place, _| places.contains(place));
        let authors: BTreeSet<PeerId> = plan.wanted.iter().map(|wanted| wanted.author).collect();
        self.failures.retain(|author, _| authors.contains(author));
        let mut shared = lock(&self.shared);
        shared.progress.retain(|place, _| places.contains(place));
        for fetch in &self.fetches {
            let progress = shared.progress.entry(place_of(&fetch.wanted)).or_default();
            progress.bytes = fetch.received.bytes.load(Ordering::Relaxed);
            progress.found = fetch.received.found.load(Ordering::Relaxed);
        }
    }

    fn watch_fetches(&mut self, plan: &Plan, now: Instant) {
        let is_wanted = |fetch: &Fetch| {
            let place = place_of(&fetch.wanted);
            plan.wanted.iter().any(|wanted| place_of(wanted) == place)
        };
        for mut fetch in std::mem::take(&mut self.fetches) {
            if fetch.received.wrong.load(Ordering::Relaxed) {
                let problem = "its sender announced another length: it is not fetched".to_owned();
                self.fetch_failed(&fetch.wanted, Some(problem), now);
                // what has come of it takes room
                drop(fetch.running);
                if !is_shared(plan, &fetch.wanted) {
                    let _ = fs::remove_dir_all(unfinished(&fetch.wanted));
                }
                continue;
            }
            match fetch.running.ended() {
                None if is_wanted(&fetch) => self.fetches.push(fetch),
                None => {}
                Some((status, error)) => match status.code() {
                    Some(0) => match finish(&fetch.wanted, is_shared(plan, &fetch.wanted)) {
                        Ok(()) => self.fetched(&fetch.wanted),
                        Err(e) => self.fetch_failed(&fetch.wanted, Some(e.to_string()), now),
                    },
                    // nobody has it now
                    Some(3) => self.fetch_failed(&fetch.wanted, None, now),
                    _ => {
                        let problem = match error.is_empty() {
                            true => format!("lcsync ended: {status}"),
                            false => error,
                        };
                        self.fetch_failed(&fetch.wanted, Some(problem), now);
                    }
                },
            }
        }
    }

    /// The next file to fetch: first one that a user waits for, then one of an author whose files
    /// came, then one that was tried least.
    fn next_wanted(&self, plan: &Plan, now: Instant) -> Option<Wanted> {
        // by folder and root hash: those of another announced length write into the same file
        let running = |wanted: &Wanted| {
            let mut running = self.fetches.iter();
            running.any(|fetch| unfinished(&fetch.wanted) == unfinished(wanted))
        };
        let of_author = |author: &PeerId| {
            let of = self
                .fetches
                .iter()
                .filter(|f| f.wanted.author == *author && !f.wanted.awaited);
            of.count()
        };
        let may = |wanted: &&Wanted| {
            let place = place_of(wanted);
            let tried = self.tries.get(&place);
            let is_due = tried.is_none_or(|tried| match wanted.awaited {
                true => tried.awaited_again <= now,
                false => tried.again <= now,
            });
            is_due
                && !running(wanted)
                && (wanted.awaited || of_author(&wanted.author) < self.most() - 1)
        };
        let order = |wanted: &&Wanted| {
            let tried = self.tries.get(&place_of(wanted));
            let of_author = self.failures.get(&wanted.author).copied().unwrap_or(0);
            (
                !wanted.awaited,
                of_author,
                tried.map_or(0, |tried| tried.failures),
            )
        };
        plan.wanted.iter().filter(may).min_by_key(order).cloned()
    }

    fn start_fetch(&mut self, wanted: &Wanted) -> Result<(), String> {
        check_room(&wanted.folder, wanted.file.length)?;
        let folder = unfinished(wanted);
        fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let (id, length) = (wanted.file.id, wanted.file.length);
        let mut command = child::lcsync(&self.state);
        command.arg(format!("lc:{id}#{id}"));
        command.arg(folder.join(UNFINISHED));
        command.arg("--keyfile").arg(wanted.folder.join("key"));
        command.args(["--json", "--timeout", &format!("{SILENCE_S}s")]);
        let _open = self.lead(&mut command).map_err(|e| e.to_string())?;
        let received = Arc::new(Received::default());
        let of_reader = Arc::clone(&received);
        let running = Running::start(command, move |line| of_reader.read(line, length))
            .map_err(|e| child::not_started(&e))?;
        self.fetches.push(Fetch {
            wanted: wanted.clone(),
            running,
            received,
        });
        Ok(())
    }

    fn fetched(&mut self, wanted: &Wanted) {
        self.failures.remove(&wanted.author);
        // the next plan has it no more, unless it proves to be damaged
        let again = Instant::now() + SHORTEST_PAUSE;
        let tried = Tried {
            failures: 0,
            again,
            awaited_again: again,
        };
        self.tries.insert(place_of(wanted), tried);
        tracing::info!("file {} is here", wanted.file.id);
        let changed = (wanted.folder.clone(), wanted.file.id);
        lock(&self.shared).changed.push(changed);
        // a full counter wakes as well
        let _ = self.wake.write(1);
    }

    fn fetch_failed(&mut self, wanted: &Wanted, problem: Option<String>, now: Instant) {
        let place = place_of(wanted);
        // only if nothing has come of it
        let _ = fs::remove_dir(unfinished(wanted));
        if let Some(problem) = &problem {
            tracing::debug!("file {}: {problem}", wanted.file.id);
        }
        let failures = self.tries.get(&place).map_or(0, |tried| tried.failures) + 1;
        *self.failures.entry(wanted.author).or_default() += 1;
        let pause = SHORTEST_PAUSE * 2_u32.saturating_pow((failures - 1).min(10));
        self.tries.insert(
            place.clone(),
            Tried {
                failures,
                again: now + pause.min(LONGEST_PAUSE),
                awaited_again: now + AWAITED_PAUSE,
            },
        );
        let progress = Progress {
            problem,
            ..Progress::default()
        };
        lock(&self.shared).progress.insert(place, progress);
    }
}

fn place_of(wanted: &Wanted) -> Place {
    (wanted.folder.clone(), wanted.file)
}

/// The folder of a file that comes.
fn unfinished(wanted: &Wanted) -> PathBuf {
    let id = wanted.file.id.to_string();
    wanted.folder.join("incoming").join(id)
}

/// Whether another announcement, of another length, has the same root hash: one of them is true.
fn is_shared(plan: &Plan, wanted: &Wanted) -> bool {
    let mut others = plan.wanted.iter().filter(|other| other.file != wanted.file);
    others.any(|other| unfinished(other) == unfinished(wanted))
}

/// Puts a file that came into its place. A shared one stays for the true announcement.
fn finish(wanted: &Wanted, is_shared: bool) -> io::Result<()> {
    let folder = unfinished(wanted);
    let from = folder.join(UNFINISHED);
    let found = fs::symlink_metadata(&from)?;
    if !found.is_file() || found.len() != wanted.file.length {
        if !is_shared {
            let _ = fs::remove_dir_all(&folder);
        }
        return Err(io::Error::other("another file than its sender announced"));
    }
    shelf::put(&from, &wanted.folder.join(wanted.file.id.to_string()))?;
    fs::remove_dir_all(&folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lie_about_the_length_of_a_file_removes_nothing_of_the_true_one() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = |id, length| Wanted {
            folder: folder.path().to_owned(),
            file: SealedFile {
                id: FileId([id; 32]),
                length,
            },
            author: librecast::id::SecretKey::from_seed(&[1; 32]).peer_id(),
            awaited: true,
        };
        let (truth, lie, other) = (wanted(1, 3), wanted(1, 4), wanted(2, 3));
        let plan = Plan {
            served: BTreeSet::new(),
            wanted: vec![truth.clone(), lie.clone(), other.clone()],
        };
        assert!(is_shared(&plan, &truth) && is_shared(&plan, &lie) && !is_shared(&plan, &other));
        for one in [&truth, &other] {
            fs::create_dir_all(unfinished(one)).unwrap();
            fs::write(unfinished(one).join(UNFINISHED), "abc").unwrap();
        }
        finish(&lie, is_shared(&plan, &lie)).unwrap_err();
        finish(&truth, is_shared(&plan, &truth)).unwrap();
        let here = folder.path().join(truth.file.id.to_string());
        assert_eq!(fs::read(here).unwrap(), b"abc");
        // nobody else needs what came of a lie
        let lie = wanted(2, 4);
        finish(&lie, false).unwrap_err();
        assert!(!unfinished(&other).exists());
    }

    #[test]
    fn a_share_of_another_length_or_of_several_files_is_no_announced_file() {
        let read = |line: &str| {
            let received = Received::default();
            received.read(line, 300);
            received.wrong.load(Ordering::Relaxed)
        };
        assert!(!read(r#"{"event":"start","bytes":300,"files":1}"#));
        assert!(read(r#"{"event":"start","bytes":301,"files":1}"#));
        assert!(read(r#"{"event":"start","bytes":300,"files":2}"#));
        assert!(read(r#"{"event":"start"}"#));
        assert!(!read("garbage") && !read(r#"{"event":"waiting"}"#) && !read("[1]"));
    }
}
