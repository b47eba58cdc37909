//! Isolation, the first action of all: the process leaves the host's namespaces.
//!
//! ```text
//! root:     new mount and network namespace             ┐
//! anybody:  new user namespace (we are its root) + both ┴─> tmpfs on /run, private
//! ```
//!
//! From then on the process and its children cannot change the host's interfaces, routes, firewall
//! or files in `/run`. All of it vanishes with the last process, however it ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{getegid, geteuid};

/// Folder of all worlds: a tmpfs that only this process and its children see.
pub(super) const WORLDS: &str = "/run/lcroute-lab";

/// Folder of the build's programs, for users who may not enter the folders above it.
pub(super) const PROGRAMS: &str = "/run/lcroute-lab/.programs";

/// Programs that are required for worlds, with their Debian packages.
const TOOLS: [(&str, &str); 3] = [
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("ping", "iputils-ping"),
];

/// Leaves the host's namespaces. Must be called while the process has only one thread.
pub fn isolate() -> Result<()> {
    let (uid, gid) = (geteuid(), getegid());
    let mut namespaces = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET;
    if !uid.is_root() {
        namespaces |= CloneFlags::CLONE_NEWUSER;
    }
    match unshare(namespaces) {
        Ok(()) => {}
        Err(Errno::EPERM | Errno::ENOSPC | Errno::EACCES) if uid.is_root() => bail!(
            "this root may not make namespaces (capability CAP_SYS_ADMIN is missing): \
             run on a machine, a VM or a privileged container"
        ),
        Err(error) => {
            bail!("no unprivileged user namespaces here ({error}): {ALLOW_USER_NAMESPACES}")
        }
    }
    if !uid.is_root() {
        let maps = [
            ("setgroups", "deny".to_owned()),
            ("uid_map", format!("0 {uid} 1")),
            ("gid_map", format!("0 {gid} 1")),
        ];
        for (file, content) in maps {
            fs::write(Path::new("/proc/self").join(file), content)
                .with_context(|| format!("/proc/self/{file}: {ALLOW_USER_NAMESPACES}"))?;
        }
    }
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .with_context(|| format!("private mounts are not allowed: {ALLOW_USER_NAMESPACES}"))?;
    mount(
        Some("lab"),
        "/run",
        Some("tmpfs"),
        MsFlags::MS_NOSUID,
        Some("mode=0755"),
    )
    .context("tmpfs on /run")?;
    fs::create_dir_all(WORLDS).with_context(|| WORLDS.to_owned())
}

/// Returns a path of this program that every user may enter.
pub(super) fn entered_by_all(program: &Path) -> Result<PathBuf> {
    static MOUNTED: Mutex<Option<PathBuf>> = Mutex::new(None);
    let folder = program.parent().context("a program without a folder")?;
    let name = program.file_name().context("a program without a name")?;
    let mut mounted = MOUNTED.lock().unwrap_or_else(PoisonError::into_inner);
    if mounted.is_none() {
        fs::create_dir_all(PROGRAMS)?;
        let none = None::<&str>;
        mount(Some(folder), PROGRAMS, none, MsFlags::MS_BIND, none).context(PROGRAMS)?;
        *mounted = Some(folder.to_owned());
    }
    Ok(match mounted.as_deref() == Some(folder) {
        true => Path::new(PROGRAMS).join(name),
        false => program.to_owned(),
    })
}

const ALLOW_USER_NAMESPACES: &str = "run as root, or allow them: \
    sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000 \
    kernel.apparmor_restrict_unprivileged_userns=0 (those your kernel knows)";

/// Ends the process on SIGINT and SIGTERM with the exit code that shells expect. The kernel cleans
/// up: programs end with this process, and with them the namespaces and the tmpfs. To be called
/// before other threads exist.
pub fn exit_on_signals() -> Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.thread_block().context("blocking signals")?;
    std::thread::spawn(move || {
        if let Ok(signal) = signals.wait() {
            eprintln!("\nstopped by {signal}; nothing is left behind");
            std::process::exit(128 + signal as i32);
        }
    });
    Ok(())
}

/// Calls [`isolate`] in a constructor; on an error prints it and ends the process.
#[doc(hidden)]
pub fn isolate_or_exit() {
    if let Err(error) = isolate() {
        eprintln!("lcroute-lab: {error:#}");
        std::process::exit(1);
    }
}

/// Runs [`isolate`] in a test binary before the test harness starts its threads.
#[macro_export]
macro_rules! isolate_before_main {
    () => {
        #[used]
        // SAFETY: the C runtime calls each pointer of .init_array once, before main and so before
        // any other thread; the function needs nothing but system calls and the allocator.
        #[unsafe(link_section = ".init_array")]
        static ISOLATE: extern "C" fn() = {
            extern "C" fn isolate() {
                $crate::lab::isolate_or_exit();
            }
            isolate
        };
    };
}

/// Checks this machine's requirements for worlds: programs, `/dev/net/tun`.
pub fn check_requirements() -> Result<()> {
    let mut missing: Vec<String> = TOOLS
        .iter()
        .filter(|(program, _)| find_program(program).is_none())
        .map(|(program, package)| format!("program `{program}`: apt install {package}"))
        .collect();
    match fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
        Ok(_) => {}
        Err(error) if error.raw_os_error() == Some(Errno::EACCES as i32) => missing.push(
            "device /dev/net/tun is not open to this user: run as root, or chmod 0666 /dev/net/tun \
             (what udev does)"
                .to_owned(),
        ),
        Err(error) => missing.push(format!(
            "device /dev/net/tun ({error}): modprobe tun; in a container pass the device \
             (--device /dev/net/tun)"
        )),
    }
    if missing.is_empty() {
        return Ok(());
    }
    bail!("this machine lacks:\n  {}", missing.join("\n  "))
}

/// Returns the path of an installed program, from `PATH` and the administrator's folders.
#[must_use]
pub fn find_program(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"])
        .map(|folder| Path::new(folder).join(name))
        .find(|file| file.is_file())
}
