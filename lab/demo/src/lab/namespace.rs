//! A network namespace without a name: it lasts while it is held open, or a process runs in it.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::unistd::{Pid, getppid};

/// A network namespace, held open by a file descriptor.
#[derive(Clone, Debug)]
pub struct Namespace {
    file: Arc<File>,
}

impl Namespace {
    /// Makes a namespace with only its loopback interface, which is up.
    pub fn new() -> Result<Namespace> {
        let made = std::thread::spawn(|| -> Result<File> {
            unshare(CloneFlags::CLONE_NEWNET).context("new network namespace")?;
            File::open("/proc/thread-self/ns/net").context("/proc/thread-self/ns/net")
        });
        let file = made
            .join()
            .map_err(|_| anyhow!("the thread of a namespace panicked"))??;
        Ok(Namespace {
            file: Arc::new(file),
        })
    }

    /// Returns a path for `ip link ... netns`, valid while this process lives.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// Runs `work` in its own thread inside the namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&*self.file, CloneFlags::CLONE_NEWNET).context("entering a namespace")?;
                work()
            });
            inside
                .join()
                .map_err(|_| anyhow!("a thread in a namespace panicked"))?
        })
    }

    /// Returns a command that runs inside the namespace and ends with the thread that starts it.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        let file = Arc::clone(&self.file);
        let parent = Pid::this();
        let enter = move || {
            set_pdeathsig(Signal::SIGKILL)?;
            if getppid() != parent {
                return Err(io::ErrorKind::BrokenPipe.into()); // the parent died in between
            }
            // shells ignore the first two in background jobs, nohup the third, and the parent may
            // block any
            SigSet::empty().thread_set_mask()?;
            for ignored in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP] {
                // SAFETY: no handler is set
                unsafe { signal(ignored, SigHandler::SigDfl) }?;
            }
            setns(&*file, CloneFlags::CLONE_NEWNET)?;
            Ok(())
        };
        // SAFETY: between fork and exec `enter` makes seven system calls and neither allocates
        // nor takes a lock (the error kinds it returns need no memory).
        unsafe { command.pre_exec(enter) };
        command
    }

    /// Sets a kernel parameter, `key` written with slashes: `net/ipv6/conf/eth0/accept_dad`.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/{key}");
        self.run(|| std::fs::write(&path, value).with_context(|| path.clone()))
    }

    /// Reads a file as seen from inside, e.g. `/proc/thread-self/net/dev`.
    pub fn read(&self, path: &str) -> Result<String> {
        self.run(|| std::fs::read_to_string(path).with_context(|| path.to_owned()))
    }
}
