//! Processes that run commands for other users. Each has its account and session, and inherits only
//! the given descriptors.

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Gid, Uid, User, getgrouplist};

use crate::cli::{Exit, ExitError};

/// Path for commands of an account. Chosen: as systemd sets it for services.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The shell of an account that is not in the account files.
const SHELL: &str = "/bin/sh";
/// Signals of Linux, real-time ones included (signal(7)).
const LAST_SIGNAL: i32 = 64;
/// Descriptors marked one by one on kernels without close_range (before Linux 5.11). Chosen: all,
/// unless a limit was raised above 64 times the usual one; takes some milliseconds.
const MAX_MARKED: u64 = 65_536;
/// umask(2) of a command of another account. Chosen: as login sets it.
const UMASK: libc::mode_t = 0o022;

/// The account of a command.
#[derive(Debug, Clone)]
pub struct Account {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
    /// Its name.
    pub name: String,
    /// Its home.
    pub home: PathBuf,
    /// Its shell.
    pub shell: PathBuf,
    is_other: bool,
}

impl Account {
    /// Returns the account called `name`, or this process's own.
    ///
    /// # Errors
    /// [`Exit::Usage`] if there is none, [`Exit::NotPermitted`] if this process may not become it.
    pub fn find(name: Option<&str>) -> Result<Self, ExitError> {
        let own = Uid::effective();
        let found = match name {
            Some(name) => User::from_name(name),
            None => User::from_uid(own),
        };
        let failed = |e: Errno| ExitError::new(Exit::Failed, format!("accounts of this host: {e}"));
        let user = match (found.map_err(failed)?, name) {
            (Some(user), _) => user,
            // containers run under numbers alone
            (None, None) => return Ok(Self::without_name(own)),
            (None, Some(name)) => {
                let message = format!("there is no user {name:?} here");
                return Err(ExitError::new(Exit::Usage, message));
            }
        };
        let is_other = user.uid != own;
        if is_other && !own.is_root() {
            let message = format!("only root can run commands as {:?}", user.name);
            return Err(ExitError::new(Exit::NotPermitted, message));
        }
        let groups = CString::new(user.name.as_str())
            .map_err(|_| Errno::EINVAL)
            .and_then(|name| getgrouplist(&name, user.gid));
        Ok(Self {
            uid: user.uid,
            gid: user.gid,
            groups: groups.map_err(failed)?,
            name: user.name,
            home: user.dir,
            shell: user.shell,
            is_other,
        })
    }

    fn without_name(uid: Uid) -> Self {
        Self {
            uid,
            gid: Gid::effective(),
            groups: Vec::new(),
            name: uid.to_string(),
            home: "/".into(),
            shell: SHELL.into(),
            is_other: false,
        }
    }

    /// Returns whether it differs from this process's account.
    pub fn is_other(&self) -> bool {
        self.is_other
    }

    /// Returns the environment of its commands, which has nothing of this process's own.
    pub fn environment(&self) -> Vec<(OsString, OsString)> {
        let all: [(&str, OsString); 5] = [
            ("PATH", PATH.into()),
            ("HOME", self.home.clone().into()),
            ("USER", self.name.clone().into()),
            ("LOGNAME", self.name.clone().into()),
            ("SHELL", self.shell.clone().into()),
        ];
        all.map(|(name, value)| (name.into(), value)).into()
    }
}

/// The separation of a command from this process.
#[derive(Debug, Clone, Copy)]
pub struct Apart {
    /// The signal that it gets when the thread that started it ends.
    pub ended_by: Signal,
    /// Whether it may gain rights by set-user-ID programs such as sudo.
    pub gains_rights: bool,
    /// The descriptor that it inherits beside standard input, output and error.
    pub kept: Option<RawFd>,
}

/// Makes the process of `command` run as `account`, in its own session without terminal. It keeps
/// no descriptor, keyring, capability, signal setting or core dump. The caller sets `env`.
pub fn set_apart(command: &mut Command, account: &Account, apart: Apart) {
    let Account {
        uid, gid, is_other, ..
    } = *account;
    let groups = account.groups.clone();
    let (open_files, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((MAX_MARKED, MAX_MARKED));
    let prepare = move || {
        nix::unistd::setsid()?;
        leave_keyring();
        setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
        if is_other {
            nix::unistd::setgroups(&groups)?;
            nix::unistd::setgid(gid)?;
            nix::unistd::setuid(uid)?;
            // SAFETY: takes and returns numbers only
            unsafe { libc::umask(UMASK) };
        }
        clear_ambient()?;
        if !apart.gains_rights {
            nix::sys::prctl::set_no_new_privs()?;
        }
        for signal in 1..=LAST_SIGNAL {
            hear(signal);
        }
        SigSet::empty().thread_set_mask()?;
        // after the change of the account, which clears it
        nix::sys::prctl::set_pdeathsig(apart.ended_by)?;
        close_at_exec(apart.kept, open_files)
    };
    // SAFETY: between fork and exec; makes system calls only, and allocates nothing
    unsafe { command.pre_exec(prepare) };
}

/// Restores the default action of an ignored signal. The C library keeps its own signals.
fn hear(signal: i32) {
    // the kernel's sigaction of any architecture: no handler, no flags, an empty mask
    let default = [0_u64; 8];
    let mask_bytes = size_of::<u64>();
    // SAFETY: reads less than `default`, sets no handler; fails for fixed signals, harmlessly
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal,
            default.as_ptr(),
            std::ptr::null::<u64>(),
            mask_bytes,
        )
    };
}

/// Takes a new session keyring: the old one would give access to all its keys, in any account.
fn leave_keyring() {
    // SAFETY: takes and returns numbers; null: an unnamed keyring. Fails without keyrings
    let _ = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::KEYCTL_JOIN_SESSION_KEYRING,
            std::ptr::null::<libc::c_char>(),
        )
    };
}

/// Clears the ambient capabilities, so that the exec keeps only the account's.
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

/// Closes at exec all descriptors but standard input, output and error, and `kept`.
fn close_at_exec(kept: Option<RawFd>, open_files: u64) -> io::Result<()> {
    let first = libc::STDERR_FILENO.unsigned_abs() + 1;
    let kept = kept.map(|fd| fd.unsigned_abs());
    match kept {
        None => mark(first, u32::MAX, open_files),
        Some(fd) => {
            if fd > first {
                mark(first, fd - 1, open_files)?;
            }
            mark(fd + 1, u32::MAX, open_files)
        }
    }
}

/// Marks all descriptors in this range, so that exec closes them.
fn mark(first: u32, last: u32, open_files: u64) -> io::Result<()> {
    // SAFETY: takes and returns numbers only
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            last,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    match Errno::result(result) {
        Ok(_) => Ok(()),
        Err(Errno::ENOSYS | Errno::EINVAL | Errno::EPERM) => {
            mark_each(first, last, open_files);
            Ok(())
        }
        Err(e) => Err(e.into()),
    }
}

/// The same for kernels before Linux 5.11, and for system call filters without close_range.
fn mark_each(first: u32, last: u32, open_files: u64) {
    let end = u64::from(last).min(open_files).min(MAX_MARKED);
    for fd in u64::from(first)..=end {
        // SAFETY: takes and returns numbers; fails for closed ones, harmlessly
        unsafe { libc::fcntl(fd as RawFd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::fd::AsRawFd;
    use std::process::Stdio;

    use super::*;

    const APART: Apart = Apart {
        ended_by: Signal::SIGKILL,
        gains_rights: false,
        kept: None,
    };

    /// Runs a script apart; returns its output lines `name value`.
    fn said(script: &str, account: &Account, apart: Apart) -> BTreeMap<String, String> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).stdin(Stdio::null());
        command.env_clear().envs(account.environment());
        set_apart(&mut command, account, apart);
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let pairs = text.lines().filter_map(|line| line.split_once([' ', '\t']));
        pairs
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect()
    }

    #[test]
    fn a_command_has_a_session_and_nothing_of_this_process() {
        let account = Account::find(None).unwrap();
        assert!(!account.is_other());
        let (open, _other) = nix::unistd::pipe().unwrap();
        let fd = open.as_raw_fd();
        nix::fcntl::fcntl(
            &open,
            nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()),
        )
        .unwrap();
        let script = format!(
            "cat /proc/self/status; echo session $(cut -d' ' -f6 /proc/$$/stat) $$; echo core $(ulimit -c)
             [ -e /proc/$$/fd/{fd} ] && echo open yes || echo open no"
        );
        let alone = said(&script, &account, APART);
        let session = alone["session"].split_once(' ').unwrap();
        assert_eq!(session.0, session.1, "it leads its session");
        assert_eq!(alone["core"], "0");
        assert_eq!(alone["open"], "no");
        assert_eq!(alone["NoNewPrivs:"], "1");
        for none in ["SigBlk:", "SigIgn:", "CapAmb:"] {
            assert_eq!(alone[none], "0000000000000000", "{none}");
        }
        let kept = Apart {
            kept: Some(fd),
            gains_rights: true,
            ..APART
        };
        let given = said(&script, &account, kept);
        assert_eq!(given["open"], "yes");
        assert_eq!(given["NoNewPrivs:"], "0");
    }

    #[test]
    fn descriptors_are_marked_one_by_one_where_the_kernel_cannot() {
        let (open, _other) = nix::unistd::pipe().unwrap();
        let flags = || nix::fcntl::fcntl(&open, nix::fcntl::FcntlArg::F_GETFD).unwrap();
        nix::fcntl::fcntl(
            &open,
            nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()),
        )
        .unwrap();
        let fd = open.as_raw_fd().unsigned_abs();
        // this one alone: other tests have descriptors, too
        mark_each(fd, u32::MAX, u64::from(fd));
        assert_eq!(flags(), nix::libc::FD_CLOEXEC);
    }

    #[test]
    fn another_accounts_command_has_exactly_its_rights() {
        if !Uid::effective().is_root() {
            return;
        }
        let account = Account::find(Some("nobody")).unwrap();
        assert!(account.is_other());
        let script = "cat /proc/self/status; umask > /dev/null; echo umask $(umask); echo name $USER $LOGNAME $HOME";
        let its = said(script, &account, APART);
        let (uid, gid) = (account.uid, account.gid);
        assert_eq!(its["Uid:"], format!("{uid}\t{uid}\t{uid}\t{uid}"));
        assert_eq!(its["Gid:"], format!("{gid}\t{gid}\t{gid}\t{gid}"));
        let mut groups: Vec<u32> = account.groups.iter().map(|g| g.as_raw()).collect();
        groups.sort_unstable();
        let mut has: Vec<u32> = { &its["Groups:"] }
            .split_whitespace()
            .map(|g| g.parse().unwrap())
            .collect();
        has.sort_unstable();
        assert_eq!(has, groups);
        for none in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            assert_eq!(its[none], "0000000000000000", "{none}");
        }
        assert_eq!(its["umask"], "0022");
        assert_eq!(
            its["name"],
            format!("nobody nobody {}", account.home.display())
        );
        let unknown = Account::find(Some("no such user")).unwrap_err();
        assert_eq!(unknown.exit, Exit::Usage);
    }
}
