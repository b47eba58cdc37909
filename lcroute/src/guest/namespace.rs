//! The namespace of a guest: a process that makes it, runs the program in it, and ends with it.
//!
//! ```text
//! guest ── fork ─► holder: user and network namespace, lo, lc0 ── descriptors ─► guest
//!                    └─ spawn ─► program, with CAP_NET_RAW and no other right
//! ```
//! If the guest dies, the holder ends the program and all that it started; if the holder dies, the
//! kernel ends the program, and the guest ends the rest. The namespace goes with the last process.

use std::fs;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use librecast_program::cli::{Exit, ExitError};
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{AccessFlags, ForkResult, Pid, access, fork, getegid, geteuid, getppid};

use crate::netlink::Connection;
use crate::tun::{Device, Settings};

/// Bytes of the longest message of a holder: an error is cut to it.
const MESSAGE: usize = 1_024;
/// Time for what the program leaves behind to end by SIGTERM. Chosen.
const LEFT_BEHIND: Duration = Duration::from_millis(700);
/// Interval at which ending processes are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// The capability of raw sockets, for MLD as programs speak it (capability.h).
const CAP_NET_RAW: u32 = 13;
/// The capability to change interfaces (capability.h).
const CAP_NET_ADMIN: u32 = 12;
/// Most capabilities that kernels know: those of two words (capability.h).
const CAPABILITIES: u32 = 64;
/// Version 3 of the kernel's capability sets (capability.h).
const CAPABILITY_VERSION: u32 = 0x2008_0522;
/// Exit code of a program that was not found, as shells give it.
const NOT_FOUND: u8 = 127;
/// Exit code of a program that cannot be executed, as shells give it.
const NOT_EXECUTABLE: u8 = 126;

/// Device of the driver of lc0.
const DRIVER: &str = "/dev/net/tun";

/// Kind of a message: lc0 is there; with two descriptors.
const READY: u8 = 0;
/// Kind of a message: the program runs; with its number.
const RUNS: u8 = 1;
/// Kind of a message: the program has ended; with its exit code.
const ENDED: u8 = 2;
/// Kind of a message: it failed; with an exit code and a text.
const FAILED: u8 = 3;

/// A program that runs in its namespace, seen from outside.
#[derive(Debug)]
pub struct Running {
    socket: OwnedFd,
    program: Pid,
}

/// Makes the namespace, and starts the program. Must be called while the process has one thread.
pub fn start(settings: &Settings, command: &mut Command) -> Result<(Device, Running), ExitError> {
    check_driver()?;
    let socket = split(command, Some(settings))?;
    wait_for(socket, settings)
}

/// Starts the program in this namespace. Must be called while the process has one thread.
pub fn start_here(command: &mut Command) -> Result<Running, ExitError> {
    let socket = split(command, None)?;
    match receive(&socket)? {
        Some((Message::Runs(program), _)) => Ok(Running { socket, program }),
        _ => Err(lost()),
    }
}

/// Forks the holder, with a namespace of these settings; returns the socket to it.
fn split(command: &mut Command, settings: Option<&Settings>) -> Result<OwnedFd, ExitError> {
    let failed = |what: &str, e: Errno| ExitError::new(Exit::Failed, format!("{what}: {e}"));
    let flags = SockFlag::SOCK_CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
        .map_err(|e| failed("socket pair", e))?;
    prctl::set_child_subreaper(true).map_err(|e| failed("subreaper", e))?;
    let guest = Pid::this();
    // SAFETY: this process has one thread, so the child may do what it likes
    match unsafe { fork() }.map_err(|e| failed("fork", e))? {
        ForkResult::Child => {
            drop(ours);
            let code = hold(&theirs, guest, settings, command);
            std::process::exit(code.into());
        }
        ForkResult::Parent { .. } => {
            drop(theirs);
            // keys in memory
            let _ = prctl::set_dumpable(false);
            Ok(ours)
        }
    }
}

fn lost() -> ExitError {
    ExitError::new(Exit::Failed, "the process of the namespace is gone")
}

/// Refuses where this user may not open the driver: its own error would ask for a capability.
fn check_driver() -> Result<(), ExitError> {
    match access(DRIVER, AccessFlags::R_OK | AccessFlags::W_OK) {
        Err(Errno::EACCES) => {
            let message = format!(
                "{DRIVER} is not open to this user: sudo chmod 0666 {DRIVER}, as udev does"
            );
            Err(ExitError::new(Exit::NotPermitted, message))
        }
        Err(Errno::ENOENT) => {
            let message = format!(
                "{DRIVER} is not there: sudo modprobe tun; a container needs --device {DRIVER}"
            );
            Err(ExitError::new(Exit::NotPermitted, message))
        }
        // the driver itself says what else is wrong
        _ => Ok(()),
    }
}

fn wait_for(socket: OwnedFd, settings: &Settings) -> Result<(Device, Running), ExitError> {
    let Some((Message::Ready, Some((tun, netlink)))) = receive(&socket)? else {
        return Err(lost());
    };
    let device = Device::given(tun, netlink, settings)?;
    let Some((Message::Runs(program), _)) = receive(&socket)? else {
        return Err(lost());
    };
    Ok((device, Running { socket, program }))
}

impl Running {
    /// Returns the exit code of the program, once it has ended.
    pub fn ended(&self) -> Option<u8> {
        let mut polled = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        if poll(&mut polled, PollTimeout::ZERO) == Ok(0) {
            return None;
        }
        match receive(&self.socket) {
            Ok(Some((Message::Ended(code), _))) => Some(code),
            Ok(Some(_)) => None,
            // killed, and the program with it
            Ok(None) | Err(_) => Some(signal_code(Signal::SIGKILL as i32)),
        }
    }

    /// Sends a signal to the program.
    pub fn signal(&self, signal: Signal) {
        // it may have ended
        let _ = kill(self.program, signal);
    }
}

impl AsFd for Running {
    /// Returns the descriptor that is readable once the program has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Ends all processes that this one has started or inherited.
pub fn end_all() {
    let mut signal = Signal::SIGTERM;
    let until = Instant::now() + LEFT_BEHIND;
    loop {
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            if status == WaitStatus::StillAlive {
                break;
            }
        }
        let left = children();
        if left.is_empty() {
            return;
        }
        if signal == Signal::SIGTERM || Instant::now() >= until {
            signal_all(&left, signal);
            signal = Signal::SIGKILL;
        }
        thread::sleep(LOOK_EVERY);
    }
}

fn signal_all(processes: &[Pid], signal: Signal) {
    for process in processes {
        // it may have ended
        let _ = kill(*process, signal);
    }
}

/// Returns the processes whose parent is this one.
fn children() -> Vec<Pid> {
    let own = Pid::this();
    let listed = fs::read_to_string(format!("/proc/self/task/{own}/children"));
    let listed = listed.unwrap_or_default();
    let numbers = listed.split_whitespace().filter_map(|n| n.parse().ok());
    numbers.map(Pid::from_raw).collect()
}

/// What a holder says.
#[derive(Debug)]
enum Message {
    Ready,
    Runs(Pid),
    Ended(u8),
}

/// Descriptors of the device and of a netlink socket.
type Descriptors = (OwnedFd, OwnedFd);

/// Receives a message, and the descriptors with it; `None`: the holder is gone.
fn receive(socket: &OwnedFd) -> Result<Option<(Message, Option<Descriptors>)>, ExitError> {
    let failed = |e: Errno| ExitError::new(Exit::Failed, format!("the guest's socket: {e}"));
    let mut buffer = [0; MESSAGE];
    let mut space = nix::cmsg_space!([RawFd; 2]);
    let (length, descriptors) = loop {
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags) {
            Ok(message) => break (message.bytes, descriptors(&message).map_err(failed)?),
            Err(Errno::EINTR) => {}
            Err(e) => return Err(failed(e)),
        }
    };
    Ok(match buffer[..length] {
        [] => None,
        [READY, ..] => Some((Message::Ready, descriptors)),
        [RUNS, a, b, c, d] => {
            let program = Pid::from_raw(i32::from_ne_bytes([a, b, c, d]));
            Some((Message::Runs(program), None))
        }
        [ENDED, code] => Some((Message::Ended(code), None)),
        [FAILED, code, ref text @ ..] => {
            let text = String::from_utf8_lossy(text);
            return Err(failure(code, &text));
        }
        _ => None,
    })
}

/// Returns the error of a holder; exit codes that only shells give end the process at once.
fn failure(code: u8, text: &str) -> ExitError {
    let known = [Exit::NotPermitted, Exit::Usage, Exit::Failed];
    match known.into_iter().find(|exit| *exit as u8 == code) {
        Some(exit) => ExitError::new(exit, text),
        None => {
            crate::commands::hint(text);
            std::process::exit(code.into());
        }
    }
}

fn descriptors(
    message: &nix::sys::socket::RecvMsg<'_, '_, ()>,
) -> nix::Result<Option<Descriptors>> {
    let mut all = message.cmsgs()?.filter_map(|part| match part {
        ControlMessageOwned::ScmRights(all) => Some(all),
        _ => None,
    });
    let Some([tun, netlink]) = all.next().and_then(|all| <[RawFd; 2]>::try_from(all).ok()) else {
        return Ok(None);
    };
    // SAFETY: the kernel has just opened both descriptors for this process
    Ok(Some(unsafe {
        (OwnedFd::from_raw_fd(tun), OwnedFd::from_raw_fd(netlink))
    }))
}

fn say(socket: &OwnedFd, message: &[u8], descriptors: &[RawFd]) -> nix::Result<()> {
    let rights = [ControlMessage::ScmRights(descriptors)];
    let rights = if descriptors.is_empty() {
        &[][..]
    } else {
        &rights
    };
    let message = &message[..message.len().min(MESSAGE)];
    let parts = [IoSlice::new(message)];
    sendmsg::<()>(
        socket.as_raw_fd(),
        &parts,
        rights,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )
    .map(drop)
}

/// Is the holder until its end; returns its exit code.
fn hold(socket: &OwnedFd, guest: Pid, settings: Option<&Settings>, command: &mut Command) -> u8 {
    let mut all = SigSet::all();
    // a stopped terminal stops it, too
    all.remove(Signal::SIGTSTP);
    let result = all
        .thread_block()
        .map_err(|e| ExitError::new(Exit::Failed, format!("signals: {e}")))
        .and_then(|()| watch_over(guest))
        .and_then(|()| settings.map_or(Ok(()), |settings| make(socket, settings)))
        .map_err(|e| (e.exit as u8, e.to_string()))
        .and_then(|()| run(command));
    let program = match result {
        Ok(program) => program,
        Err((code, text)) => {
            let _ = say(socket, &[&[FAILED, code], text.as_bytes()].concat(), &[]);
            return code;
        }
    };
    let number = program.as_raw().to_ne_bytes();
    let _ = say(socket, &[&[RUNS], &number[..]].concat(), &[]);
    let code = watch(program, guest, &all);
    end_all();
    let _ = say(socket, &[ENDED, code], &[]);
    code
}

/// Takes over what the program starts, and ends with the guest.
fn watch_over(guest: Pid) -> Result<(), ExitError> {
    let failed = |what: &str, e: Errno| ExitError::new(Exit::Failed, format!("{what}: {e}"));
    prctl::set_child_subreaper(true).map_err(|e| failed("subreaper", e))?;
    prctl::set_pdeathsig(Signal::SIGTERM).map_err(|e| failed("signal at the end", e))?;
    if getppid() != guest {
        return Err(ExitError::new(Exit::Failed, "the guest is gone"));
    }
    Ok(())
}

/// Makes the namespaces and lc0, and gives up all rights but raw sockets.
fn make(socket: &OwnedFd, settings: &Settings) -> Result<(), ExitError> {
    let failed = |what: &str, e: Errno| ExitError::new(Exit::Failed, format!("{what}: {e}"));
    let is_root = enter()?;
    let loopback = Connection::open().and_then(|mut netlink| netlink.bring_up_loopback());
    // AppArmor lets a process make the namespace, and gives it no capabilities there
    loopback.map_err(|e| forbidden(&format!("lo of the namespace: {e}")))?;
    let (tun, netlink) = Device::open_for_another(settings)?;
    say(socket, &[READY], &[tun.as_raw_fd(), netlink.as_raw_fd()])
        .map_err(|e| failed("the guest's socket", e))?;
    give_up(is_root).map_err(|e| failed("capabilities", e))
}

/// Enters new namespaces; returns whether the user namespace is the host's, as root may.
fn enter() -> Result<bool, ExitError> {
    if geteuid().is_root() && unshare(CloneFlags::CLONE_NEWNET).is_ok() {
        return Ok(true);
    }
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)
        .map_err(|e| forbidden(&e.to_string()))?;
    let maps = [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("{uid} {uid} 1")),
        ("gid_map", format!("{gid} {gid} 1")),
    ];
    for (file, content) in maps {
        fs::write(format!("/proc/self/{file}"), content)
            .map_err(|e| forbidden(&format!("/proc/self/{file}: {e}")))?;
    }
    Ok(false)
}

fn forbidden(why: &str) -> ExitError {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let is = |path, value: &str| read(path).trim() == value;
    let remedy = if is(
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
    ) {
        "AppArmor forbids them: sudo cp /usr/share/doc/lcroute/examples/apparmor /etc/apparmor.d/lcroute && sudo apparmor_parser -r /etc/apparmor.d/lcroute, or sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
    } else if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        "sudo sysctl -w kernel.unprivileged_userns_clone=1 allows them"
    } else if is("/proc/sys/user/max_user_namespaces", "0") {
        "sudo sysctl -w user.max_user_namespaces=10000 allows them"
    } else {
        "in a container: --security-opt seccomp=unconfined; elsewhere: sudo sysctl -w user.max_user_namespaces=10000 kernel.unprivileged_userns_clone=1 (those your kernel knows)"
    };
    let message =
        format!("a guest needs a user namespace, and this user may not make one ({why}): {remedy}");
    ExitError::new(Exit::NotPermitted, message)
}

/// Keeps CAP_NET_RAW, which the program inherits, and gives up all other rights. Root keeps those
/// that do not concern interfaces.
fn give_up(is_root: bool) -> nix::Result<()> {
    prctl::set_no_new_privs()?;
    for capability in (0..CAPABILITIES).filter(|c| *c != CAP_NET_RAW) {
        if is_root && capability != CAP_NET_ADMIN {
            continue;
        }
        match control(libc::PR_CAPBSET_DROP, capability, 0) {
            // this kernel has fewer
            Ok(()) | Err(Errno::EINVAL) => {}
            Err(e) => return Err(e),
        }
    }
    if is_root {
        return Ok(());
    }
    set_capabilities(1 << CAP_NET_RAW)?;
    let raise = libc::PR_CAP_AMBIENT_RAISE.cast_unsigned();
    control(libc::PR_CAP_AMBIENT, raise, CAP_NET_RAW)
}

fn control(option: i32, first: u32, second: u32) -> nix::Result<()> {
    let none: libc::c_ulong = 0;
    let (first, second) = (libc::c_ulong::from(first), libc::c_ulong::from(second));
    // SAFETY: takes and returns numbers only
    let result = unsafe { libc::prctl(option, first, second, none, none) };
    Errno::result(result).map(drop)
}

/// Sets the effective, permitted and inheritable capabilities, all of the first word.
fn set_capabilities(set: u32) -> nix::Result<()> {
    let header = [CAPABILITY_VERSION, 0];
    let sets = [[set; 3], [0; 3]];
    // SAFETY: the kernel reads a header of two words, and two sets of three words (capget(2))
    let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
    Errno::result(result).map(drop)
}

/// Starts the program; it dies with this process.
fn run(command: &mut Command) -> Result<Pid, (u8, String)> {
    let holder = Pid::this();
    let prepare = move || {
        SigSet::empty().thread_set_mask()?;
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        if getppid() != holder {
            return Err(ErrorKind::BrokenPipe.into());
        }
        Ok(())
    };
    // SAFETY: between fork and exec it makes three system calls, and allocates nothing
    unsafe { command.pre_exec(prepare) };
    let program = command.get_program().to_string_lossy().into_owned();
    let child = command.spawn().map_err(|e| start_failure(&program, &e))?;
    i32::try_from(child.id())
        .map(Pid::from_raw)
        .map_err(|e| (Exit::Failed as u8, e.to_string()))
}

fn start_failure(program: &str, error: &io::Error) -> (u8, String) {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&path);
    // a folder that this user may not enter is an error of permission, too
    let exists = program.contains('/') || folders.any(|folder| folder.join(program).exists());
    match error.kind() {
        ErrorKind::PermissionDenied if exists => (NOT_EXECUTABLE, format!("{program}: {error}")),
        ErrorKind::NotFound | ErrorKind::PermissionDenied => {
            (NOT_FOUND, format!("{program}: not found"))
        }
        _ => (Exit::Failed as u8, format!("{program}: {error}")),
    }
}

/// Waits for the program's end, and returns its exit code; ends it if the guest is gone.
fn watch(program: Pid, guest: Pid, signals: &SigSet) -> u8 {
    let ended = || {
        // other children are what the program left behind
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            match status {
                WaitStatus::StillAlive => return None,
                status if status.pid() == Some(program) => return Some(status),
                _ => {}
            }
        }
        None
    };
    loop {
        if let Some(status) = ended() {
            return exit_code(status);
        }
        if getppid() != guest {
            signal_all(&children(), Signal::SIGKILL);
            let _ = waitpid(program, None);
            return signal_code(Signal::SIGKILL as i32);
        }
        match signals.wait() {
            Ok(signal @ (Signal::SIGTERM | Signal::SIGHUP)) if getppid() == guest => {
                let _ = kill(program, signal);
            }
            // others come from the terminal, to the program as well
            Ok(_) | Err(_) => {}
        }
    }
}

fn exit_code(status: WaitStatus) -> u8 {
    match status {
        WaitStatus::Exited(_, code) => code as u8,
        WaitStatus::Signaled(_, signal, _) => signal_code(signal as i32),
        _ => Exit::Failed as u8,
    }
}

/// Returns the exit code of a program that a signal ended, as shells give it.
fn signal_code(signal: i32) -> u8 {
    128_u8.saturating_add(signal as u8)
}
