//! Keeps a job together: as whom it runs, in which control group, and that nothing of it survives its end.

use std::ffi::{CString, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid, User, getgrouplist, setfsgid, setfsuid};

/// Sweeps for processes that are left, at most: one second of them.
const SWEEPS: u32 = 200;
/// Between two sweeps.
const SWEEP_PAUSE: Duration = Duration::from_millis(5);

/// As whom a job runs.
#[derive(Debug, Clone)]
pub struct Account {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
    pub name: String,
    pub home: PathBuf,
    pub shell: PathBuf,
    /// Whether it is another one than this process's.
    other: bool,
}

impl Account {
    /// The account called `name`, or this process's own.
    pub fn find(name: Option<&str>) -> io::Result<Self> {
        let user = match name {
            Some(name) => User::from_name(name)?,
            None => User::from_uid(Uid::effective())?,
        };
        let unknown =
            || io::Error::other(format!("there is no user {:?} here", name.unwrap_or("")));
        let user = user.ok_or_else(unknown)?;
        let other = user.uid != Uid::effective();
        if other && !Uid::effective().is_root() {
            let message = format!(
                "only an agent that runs as root can run jobs as {:?}",
                user.name
            );
            return Err(io::Error::other(message));
        }
        let text = CString::new(user.name.clone())?;
        Ok(Self {
            uid: user.uid,
            gid: user.gid,
            groups: getgrouplist(&text, user.gid)?,
            name: user.name,
            home: user.dir,
            shell: user.shell,
            other,
        })
    }
}

/// This thread works on files as another user: what the owner of a folder could not do there by himself is not done for
/// him, whatever links he puts there.
#[derive(Debug)]
pub struct FilesAs(Option<(Uid, Gid)>);

impl FilesAs {
    /// As the user that it is.
    #[must_use]
    pub fn itself() -> Self {
        Self(None)
    }

    /// As who owns `folder`, where this process is root's and the folder is not.
    pub fn owner_of(folder: &Path) -> io::Result<Self> {
        let meta = fs::symlink_metadata(folder)?;
        let owner = (Uid::from_raw(meta.uid()), Gid::from_raw(meta.gid()));
        let other = Uid::effective().is_root() && !owner.0.is_root();
        let this = Self(other.then_some(owner));
        this.begin()?;
        Ok(this)
    }

    /// Does `work` with this process's own rights.
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
    // they tell what was before, and nothing else: only asking again shows whether it is so now
    setfsgid(gid);
    setfsuid(uid);
    if (setfsuid(uid), setfsgid(gid)) != (uid, gid) {
        return Err(io::Error::other("cannot work as the owner of the jobs"));
    }
    Ok(())
}

/// A control group of one job (cgroup v2), if this host lets us make one.
#[derive(Debug)]
pub struct Group {
    path: PathBuf,
    procs: File,
}

impl Group {
    /// A group below this process's own.
    pub fn create(name: &str) -> io::Result<Self> {
        let path = own_group()?.join(format!("lcagent-{name}"));
        fs::create_dir(&path)?;
        let procs = OpenOptions::new()
            .write(true)
            .open(path.join("cgroup.procs"));
        let procs = procs.inspect_err(|_| {
            let _ = fs::remove_dir(&path);
        })?;
        Ok(Self { path, procs })
    }

    /// Bounds the memory of all in it together. Only where the controller is there for us: systemd's `Delegate=memory`.
    fn limit_memory(&self, bytes: u64) -> io::Result<()> {
        let write = |name: &str, value: &str| fs::write(self.path.join(name), value);
        write("memory.max", &bytes.to_string())?;
        // these may be missing: what is over the limit then goes to swap first, or one process is killed
        let _ = write("memory.swap.max", "0");
        let _ = write("memory.oom.group", "1");
        Ok(())
    }

    /// Kills all in it. Kernels before 5.14 have no such file: then the job's tree is walked.
    fn kill(&self) -> io::Result<()> {
        OpenOptions::new()
            .write(true)
            .open(self.path.join("cgroup.kill"))?
            .write_all(b"1")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // it is empty: all in it were killed and waited for
        if let Err(e) = fs::remove_dir(&self.path) {
            tracing::warn!("{}: {e}", self.path.display());
        }
    }
}

/// Where cgroup v2 has this process.
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

/// Puts the process that `command` starts into its own process group and `group`, and makes it `account`'s. It dies
/// with this process. `memory`: bytes that the group may have, or where that cannot be said, each process of it.
pub fn contain(
    command: &mut Command,
    account: &Account,
    group: Option<&Group>,
    memory: Option<u64>,
) {
    let each = memory.filter(|bytes| group.is_none_or(|g| g.limit_memory(*bytes).is_err()));
    let procs = group.map(|g| g.procs.as_raw_fd());
    let (uid, gid, other) = (account.uid, account.gid, account.other);
    let groups = account.groups.clone();
    command.process_group(0);
    let prepare = move || {
        if let Some(fd) = procs {
            // SAFETY: `fd` stays open in the parent until after the spawn, the buffer is static
            Errno::result(unsafe { libc::write(fd, c"0".as_ptr().cast(), 1) })?;
        }
        if let Some(bytes) = each {
            setrlimit(Resource::RLIMIT_AS, bytes, bytes)?;
        }
        if other {
            nix::unistd::setgroups(&groups)?;
            nix::unistd::setgid(gid)?;
            nix::unistd::setuid(uid)?;
        }
        clear_ambient()?;
        // the supervisor takes its signals from a thread and blocks them; a job must hear its own
        SigSet::empty().thread_set_mask()?;
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        Ok(())
    };
    // SAFETY: between fork and exec; makes system calls only, and allocates nothing
    unsafe { command.pre_exec(prepare) };
}

/// No capability survives the exec beside what the account has.
fn clear_ambient() -> io::Result<()> {
    // SAFETY: takes and returns numbers only
    let result = unsafe {
        libc::prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_CLEAR_ALL,
            0,
            0,
            0,
        )
    };
    match Errno::result(result) {
        // a kernel without ambient capabilities has none to clear
        Ok(_) | Err(Errno::EINVAL) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Asks the job's process group to end.
pub fn terminate(leader: Pid) {
    // it may have ended just now
    let _ = killpg(leader, Signal::SIGTERM);
}

/// Kills all that is left of a job: its group, and every descendant of this process, which is their subreaper.
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

/// Waits for all that has ended.
pub fn reap() {
    for _ in 0..SWEEPS {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => std::thread::sleep(SWEEP_PAUSE),
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

/// Processes below this one that have not ended.
fn descendants() -> Vec<Pid> {
    let parents = fs::read_dir("/proc").into_iter().flatten().flatten();
    let living: Vec<(i32, i32)> = parents
        .filter_map(|e| parent_of(e.file_name().to_str()?.parse().ok()?))
        .collect();
    let mut found = vec![std::process::id() as i32];
    let mut at = 0;
    while at < found.len() {
        let parent = found[at];
        found.extend(living.iter().filter(|(_, p)| *p == parent).map(|(c, _)| *c));
        at += 1;
    }
    found.drain(..1);
    found.into_iter().map(Pid::from_raw).collect()
}

/// The process and its parent; none if it is a zombie: it only waits for being waited for.
fn parent_of(pid: i32) -> Option<(i32, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // the name in parentheses may hold anything
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let (state, parent) = (fields.next()?, fields.next()?);
    (state != "Z").then_some((pid, parent.parse().ok()?))
}

/// The environment of a job: nothing of the agent's own.
#[must_use]
pub fn environment(account: &Account, job: &Path) -> Vec<(OsString, OsString)> {
    let name = job.file_name().unwrap_or_default();
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    vec![
        ("PATH".into(), path.into()),
        ("HOME".into(), account.home.clone().into()),
        ("USER".into(), account.name.clone().into()),
        ("LOGNAME".into(), account.name.clone().into()),
        ("SHELL".into(), account.shell.clone().into()),
        ("LANG".into(), "C.UTF-8".into()),
        ("LCAGENT_JOB".into(), name.to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

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
            // without root's rights nothing is to be laid down
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
