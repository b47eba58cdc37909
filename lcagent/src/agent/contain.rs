//! Contains a job: its control group, and the end of all its processes.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use librecast_program::child::{Account, Apart, set_apart};
use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid, setfsgid, setfsuid};
use serde::{Deserialize, Serialize};

use crate::datagram::StreamId;

/// Sweeps for remaining processes: one second of them.
const SWEEPS: u32 = 200;
/// Bytes read of an environment: arguments and environment rarely exceed 2 MiB.
const MAX_ENVIRONMENT: u64 = 4 << 20;
/// Time between two sweeps.
const SWEEP_PAUSE: Duration = Duration::from_millis(5);

/// The identity under which this thread works on files. With that of a folder's owner, links in the
/// folder give him no further access.
#[derive(Debug)]
pub struct FilesAs(Option<(Uid, Gid)>);

impl FilesAs {
    /// Returns the identity of this process.
    #[must_use]
    pub fn itself() -> Self {
        Self(None)
    }

    /// Returns the owner of `folder`, if this process is root and the owner is not.
    pub fn owner_of(folder: &Path) -> io::Result<Self> {
        let meta = fs::symlink_metadata(folder)?;
        let owner = (Uid::from_raw(meta.uid()), Gid::from_raw(meta.gid()));
        let other = Uid::effective().is_root() && !owner.0.is_root();
        let this = Self(other.then_some(owner));
        this.begin()?;
        Ok(this)
    }

    /// Runs `work` with this process's own rights.
    pub fn with_own_rights<T>(&self, work: impl FnOnce() -> T) -> io::Result<T> {
        if self.0.is_none() {
            return Ok(work());
        }
        become_for_files(Uid::effective(), Gid::effective())?;
        let done = work();
        self.begin()?;
        Ok(done)
    }

    fn begin(&self) -> io::Result<()> {
        match self.0 {
            Some((uid, gid)) => become_for_files(uid, gid),
            None => Ok(()),
        }
    }
}

fn become_for_files(uid: Uid, gid: Gid) -> io::Result<()> {
    // both calls return only the previous value: calling again shows the present one
    setfsgid(gid);
    setfsuid(uid);
    if (setfsuid(uid), setfsgid(gid)) != (uid, gid) {
        return Err(io::Error::other("cannot work as the owner of the jobs"));
    }
    Ok(())
}

/// Traces of a job, to find its processes after its supervisor's end.
#[derive(Debug, Default)]
pub struct Traces {
    /// The mark in their environment.
    pub mark: Option<OsString>,
    /// Their control group.
    pub group: Option<PathBuf>,
    /// Their first process, which led a process group.
    pub leader: Option<Leader>,
    /// Process ids of the supervisors, if this process has only them and their orphans as children;
    /// else none.
    pub supervisors: Option<Vec<i32>>,
}

/// The first process of a job; its number may have been reused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    pid: i32,
    /// Clock ticks since the host's boot.
    started: u64,
    /// The boot's id.
    boot: String,
}

impl Leader {
    /// Returns the present process `pid`.
    pub fn of(pid: Pid) -> Option<Self> {
        Some(Self {
            pid: pid.as_raw(),
            started: Process::read(pid.as_raw())?.started,
            boot: boot()?,
        })
    }

    /// Returns whether its process group, if one exists, is still the job's.
    fn leads(&self) -> bool {
        let now = Process::read(self.pid);
        // the number is not reused while the group has members
        boot().as_ref() == Some(&self.boot) && now.is_none_or(|p| p.started == self.started)
    }
}

fn boot() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

/// Kills all traceable processes of a job without supervisor, and waits for their end.
pub fn kill_left_behind(traces: &Traces) {
    if let Some(path) = &traces.group {
        kill_group(path);
    }
    for _ in 0..SWEEPS {
        let left = left_behind(traces);
        for pid in &left {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        if left.is_empty() {
            break;
        }
        std::thread::sleep(SWEEP_PAUSE);
    }
    if let Some(known) = &traces.supervisors {
        for pid in orphans(&all_processes(), known) {
            // an ended process stays until its parent waits for it: now this process
            let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
        }
    }
    if let Some(path) = &traces.group {
        // it may be gone already, or may never have been made
        let _ = fs::remove_dir(path);
    }
}

fn kill_group(path: &Path) {
    let killed = OpenOptions::new()
        .write(true)
        .open(path.join("cgroup.kill"));
    if killed.and_then(|mut file| file.write_all(b"1")).is_ok() {
        return;
    }
    for _ in 0..SWEEPS {
        let text = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
        let left: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
        for pid in &left {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        if left.is_empty() {
            return;
        }
        std::thread::sleep(SWEEP_PAUSE);
    }
}

fn left_behind(traces: &Traces) -> Vec<i32> {
    let all = processes();
    let me = std::process::id() as i32;
    let group = traces.leader.as_ref().filter(|leader| leader.leads());
    let group = group.map(|leader| leader.pid);
    let is_left = |p: &&Process| {
        let mark = traces.mark.as_ref();
        Some(p.group) == group || mark.is_some_and(|mark| has_in_environment(p.pid, mark))
    };
    let mut roots: Vec<i32> = all.iter().filter(is_left).map(|p| p.pid).collect();
    if let Some(known) = &traces.supervisors {
        roots.extend(orphans(&all, known));
    }
    let mut left = below(&all, roots);
    left.retain(|pid| *pid != me);
    left
}

/// Returns this process's children that are not in `known`.
fn orphans(all: &[Process], known: &[i32]) -> Vec<i32> {
    let me = std::process::id() as i32;
    let children = all
        .iter()
        .filter(|p| p.parent == me && !known.contains(&p.pid));
    children.map(|p| p.pid).collect()
}

/// Returns whether the process started with this entry in its environment; false if unreadable.
fn has_in_environment(pid: i32, mark: &OsStr) -> bool {
    let Ok(file) = File::open(format!("/proc/{pid}/environ")) else {
        return false;
    };
    let mut bytes = Vec::new();
    let read = file.take(MAX_ENVIRONMENT).read_to_end(&mut bytes);
    read.is_ok()
        && bytes
            .split(|b| *b == 0)
            .any(|entry| entry == mark.as_bytes())
}

/// A control group of one job (cgroup v2), if this host permits one.
#[derive(Debug)]
pub struct Group {
    pub path: PathBuf,
    procs: File,
}

impl Group {
    /// Creates a group below this process's own.
    pub fn create(name: &OsStr) -> io::Result<Self> {
        let path = own_group()?.join(group_name(name));
        fs::create_dir(&path)?;
        let procs = OpenOptions::new()
            .write(true)
            .open(path.join("cgroup.procs"));
        let procs = procs.inspect_err(|_| {
            let _ = fs::remove_dir(&path);
        })?;
        Ok(Self { path, procs })
    }

    /// Bounds the memory of the group. Needs the delegated controller: systemd's `Delegate=memory`.
    fn limit_memory(&self, bytes: u64) -> io::Result<()> {
        let write = |name: &str, value: &str| fs::write(self.path.join(name), value);
        write("memory.max", &bytes.to_string())?;
        // these may be missing: then excess goes to swap first, or one process is killed
        let _ = write("memory.swap.max", "0");
        let _ = write("memory.oom.group", "1");
        Ok(())
    }

    /// Kills all processes in it. Kernels before 5.14 lack the file; then the tree is walked.
    fn kill(&self) -> io::Result<()> {
        OpenOptions::new()
            .write(true)
            .open(self.path.join("cgroup.kill"))?
            .write_all(b"1")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // it is empty: all its processes were killed and waited for
        if let Err(e) = fs::remove_dir(&self.path) {
            tracing::warn!("{}: {e}", self.path.display());
        }
    }
}

/// Returns the name of a job's control group.
#[must_use]
pub fn group_name(job: &OsStr) -> OsString {
    let mut name = OsString::from("lcagent-");
    name.push(job);
    name
}

/// Returns this process's folder in cgroup v2.
fn own_group() -> io::Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mount = mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (path, kind) = (words.next()?, words.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(path))
    });
    let groups = fs::read_to_string("/proc/self/cgroup")?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"));
    match (mount, own) {
        (Some(mount), Some(own)) => Ok(mount.join(own)),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

/// Makes the child of `command` run as `account`, [apart](set_apart) from this process and in
/// `group`; it ends with this process. `memory`: bytes for the group or, where the group has no
/// limit, for each process. `script`: the descriptor of the executed script.
pub fn contain(
    command: &mut Command,
    account: &Account,
    group: Option<&Group>,
    memory: Option<u64>,
    script: Option<RawFd>,
) {
    let each = memory.filter(|bytes| group.is_none_or(|g| g.limit_memory(*bytes).is_err()));
    let procs = group.map(|g| g.procs.as_raw_fd());
    let prepare = move || {
        if let Some(fd) = procs {
            // SAFETY: `fd` stays open in the parent until after the spawn, the buffer is static
            Errno::result(unsafe { libc::write(fd, c"0".as_ptr().cast(), 1) })?;
        }
        if let Some(bytes) = each {
            setrlimit(Resource::RLIMIT_AS, bytes, bytes)?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec; makes system calls only, and allocates nothing
    unsafe { command.pre_exec(prepare) };
    let apart = Apart {
        ended_by: Signal::SIGKILL,
        // an operator with jobs as a user may use sudo like that user
        gains_rights: true,
        kept: script,
    };
    set_apart(command, account, apart);
}

/// Sends SIGTERM to the job's process group.
pub fn terminate(leader: Pid) {
    // it may have ended just now
    let _ = killpg(leader, Signal::SIGTERM);
}

/// Kills the rest of a job: its group and all descendants of this process, their subreaper.
pub fn kill_all(leader: Pid, group: Option<&Group>) {
    let by_group = group.is_some_and(|g| g.kill().is_ok());
    for _ in 0..SWEEPS {
        if !by_group {
            let _ = killpg(leader, Signal::SIGKILL);
        }
        let left = descendants();
        for pid in &left {
            let _ = kill(*pid, Signal::SIGKILL);
        }
        if left.is_empty() {
            return;
        }
        std::thread::sleep(SWEEP_PAUSE);
    }
}

/// Waits for all ended processes.
pub fn reap() {
    for _ in 0..SWEEPS {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => std::thread::sleep(SWEEP_PAUSE),
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

/// Returns the living processes below this one.
fn descendants() -> Vec<Pid> {
    let me = std::process::id() as i32;
    let found = below(&processes(), vec![me]);
    found.into_iter().skip(1).map(Pid::from_raw).collect()
}

/// Returns whether this process has children.
#[must_use]
pub fn has_children() -> bool {
    let me = std::process::id() as i32;
    processes().iter().any(|p| p.parent == me)
}

/// Returns these processes and their descendants.
fn below(all: &[Process], roots: Vec<i32>) -> Vec<i32> {
    let mut found = roots;
    let mut at = 0;
    while at < found.len() {
        let parent = found[at];
        let children = all.iter().filter(|p| p.parent == parent).map(|p| p.pid);
        let new: Vec<i32> = children.filter(|pid| !found.contains(pid)).collect();
        found.extend(new);
        at += 1;
    }
    found
}

#[derive(Debug)]
struct Process {
    /// A zombie.
    has_ended: bool,
    pid: i32,
    parent: i32,
    group: i32,
    /// Clock ticks since the host's boot.
    started: u64,
}

/// Returns the living processes.
fn processes() -> Vec<Process> {
    let mut all = all_processes();
    all.retain(|p| !p.has_ended);
    all
}

fn all_processes() -> Vec<Process> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|e| Process::read(e.file_name().to_str()?.parse().ok()?))
        .collect()
}

impl Process {
    fn read(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // the name in parentheses may hold anything
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let (state, parent, group) = (fields.next()?, fields.next()?, fields.next()?);
        let started = fields.nth(16)?;
        Some(Self {
            has_ended: state == "Z",
            pid,
            parent: parent.parse().ok()?,
            group: group.parse().ok()?,
            started: started.parse().ok()?,
        })
    }
}

/// Returns the environment entry that marks the processes of one job on this node only.
#[must_use]
pub fn mark(stream: StreamId) -> (&'static str, String) {
    ("LCAGENT_STREAM", stream.to_string())
}

/// Returns the environment of a job, which has nothing of the agent's own.
#[must_use]
pub fn environment(account: &Account, job: &Path) -> Vec<(OsString, OsString)> {
    let name = job.file_name().unwrap_or_default();
    let mut all = account.environment();
    all.push(("LANG".into(), "C.UTF-8".into()));
    all.push(("LCAGENT_JOB".into(), name.to_owned()));
    all
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A process that ends with the test.
    struct Child(std::process::Child);

    impl Child {
        fn start(script: &str, mark: Option<&(&'static str, String)>) -> Self {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]).process_group(0);
            command.envs(mark.map(|(name, value)| (*name, value.as_str())));
            Self(command.spawn().unwrap())
        }

        fn pid(&self) -> Pid {
            Pid::from_raw(self.0.id() as i32)
        }

        fn lives(&mut self) -> bool {
            matches!(self.0.try_wait(), Ok(None))
        }
    }

    impl Drop for Child {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// Returns the number of processes with this argument.
    fn count(argument: &str) -> usize {
        let has = |pid: i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|b| *b == 0)
                .any(|word| word == argument.as_bytes())
        };
        processes().iter().filter(|p| has(p.pid)).count()
    }

    fn wait_for(argument: &str, wanted: usize) {
        for _ in 0..2_000 {
            if count(argument) == wanted {
                return;
            }
            std::thread::sleep(SWEEP_PAUSE);
        }
        panic!(
            "{} processes with {argument}, not {wanted}",
            count(argument)
        );
    }

    #[test]
    fn what_a_job_has_left_is_found_by_its_mark_and_its_group_and_nothing_else_is() {
        let ours = mark(StreamId([7; 8]));
        let another = mark(StreamId([8; 8]));
        // one that leaves the group, one that clears its environment
        let time = |seconds: u32| format!("{seconds}.{}", std::process::id());
        let (of_job, of_others) = (time(7351), time(7352));
        let script = format!("setsid sleep {of_job} & env -i sleep {of_job} & wait");
        let mut job = Child::start(&script, Some(&ours));
        let script = format!("sleep {of_others} & wait");
        let mut other = Child::start(&script, Some(&another));
        let mut none = Child::start(&script, None);
        wait_for(&of_job, 2);
        wait_for(&of_others, 2);
        let leader = Leader::of(job.pid()).unwrap();
        let stale = Leader {
            started: leader.started + 1,
            ..leader.clone()
        };
        let rebooted = Leader {
            boot: "another".into(),
            ..leader.clone()
        };
        for wrong in [stale, rebooted] {
            let traces = Traces {
                leader: Some(wrong),
                ..Traces::default()
            };
            assert!(
                left_behind(&traces).is_empty(),
                "it is another's number by now"
            );
        }
        let _ = job.0.kill();
        let _ = job.0.wait();
        let (name, value) = &ours;
        let traces = Traces {
            mark: Some(format!("{name}={value}").into()),
            leader: Some(leader),
            ..Traces::default()
        };
        kill_left_behind(&traces);
        assert_eq!(count(&of_job), 0);
        assert_eq!(count(&of_others), 2);
        assert!(other.lives() && none.lives());
        for pid in [other.pid(), none.pid()] {
            let _ = killpg(pid, Signal::SIGKILL);
        }
    }

    #[test]
    fn as_a_folders_owner_one_can_do_what_he_can() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, secret) = (dir.path().join("jobs"), dir.path().join("secret"));
        fs::create_dir(&folder).unwrap();
        fs::write(&secret, "root's").unwrap();
        let own = |path: &Path| fs::metadata(path).unwrap().uid();
        let me = Uid::effective().as_raw();
        let nobody = 65_534;
        std::os::unix::fs::symlink(&secret, folder.join("stream")).unwrap();
        let given = std::os::unix::fs::chown(&folder, Some(nobody), Some(nobody));
        if given.is_err() {
            // without root's rights it keeps its own
            let files = FilesAs::owner_of(&folder).unwrap();
            fs::write(folder.join("ended"), "").unwrap();
            assert_eq!(own(&folder.join("ended")), me);
            return assert!(files.with_own_rights(|| fs::read(&secret).is_ok()).unwrap());
        }
        fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let files = FilesAs::owner_of(&folder).unwrap();
        fs::write(folder.join("ended"), "").unwrap();
        assert_eq!(own(&folder.join("ended")), nobody);
        let trick = OpenOptions::new().append(true).open(folder.join("stream"));
        assert_eq!(trick.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert!(files.with_own_rights(|| fs::read(&secret).is_ok()).unwrap());
        assert!(fs::read(&secret).is_err(), "its own rights are gone again");
        become_for_files(Uid::effective(), Gid::effective()).unwrap();
    }
}
