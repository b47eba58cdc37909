//! A command of `lcroute serve` on a terminal with secrets: the node at the other end of a stream
//! gets the command's output, and no secret.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use librecast::id::SecretKey;
use librecast::stream::Peer;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::unistd::{Uid, User, getgrouplist};

/// Prints its session, the terminals that it can open, its environment and its groups.
const PROBE: &str = r##"
echo session $(cut -d' ' -f6 /proc/$$/stat) $$
if (: </dev/tty) 2>/dev/null; then echo tty yes; else echo tty no; fi
if [ -t 0 ] || [ -t 1 ] || [ -t 2 ]; then echo terminal yes; else echo terminal no; fi
if [ -e /proc/$$/fd/9 ]; then echo descriptor yes; else echo descriptor no; fi
cat /proc/$$/status
tr '\0' '\n' </proc/$$/environ | while read -r line; do echo env-"${line%%=*}" "${line#*=}"; done
echo folder $(pwd)
printf '\033]0;title\007it complains\n' >&2
echo typed $(python3 - <<'END'
import fcntl, os, termios
typed = []
for where in [0, 1, 2, "/dev/tty"]:
    try:
        fd = where if isinstance(where, int) else os.open(where, os.O_RDWR)
        fcntl.ioctl(fd, termios.TIOCSTI, b"#")
        typed.append(where)
    except OSError:
        pass
print(typed or "nothing")
END
)
"##;

/// A terminal whose user serves.
struct Terminal {
    serving: Child,
    shown: Receiver<u8>,
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.serving.kill();
        let _ = self.serving.wait();
    }
}

/// Runs a program for streams in `folder`; each returned stream goes to the served command.
fn program(folder: &Path) -> Receiver<UnixStream> {
    let listener = UnixListener::bind(folder.join("streams.sock")).unwrap();
    let (send, opened) = channel();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let mut request = String::new();
            let mut reader = BufReader::new(socket.try_clone().unwrap());
            // a verb first checks for a program with an empty connection
            if reader.read_line(&mut request).unwrap() == 0 {
                continue;
            }
            socket.write_all(b"{\"ok\":{}}\n").unwrap();
            let (ours, theirs) = UnixStream::pair().unwrap();
            let (report, reporting) = UnixStream::pair().unwrap();
            let peer = Peer {
                peer: SecretKey::from_seed(&[1; 32]).peer_id(),
                name: "alpha".into(),
                labels: BTreeMap::new(),
                protocol: "/x/1".parse().unwrap(),
                outside: false,
                stream: None,
                datagram_bytes: None,
            };
            let line = serde_json::to_string(&peer).unwrap() + "\n";
            let fds = [theirs.as_raw_fd(), reporting.as_raw_fd()];
            let rights = [ControlMessage::ScmRights(&fds)];
            let slices = [IoSlice::new(line.as_bytes())];
            let (fd, flags) = (socket.as_raw_fd(), MsgFlags::empty());
            sendmsg::<()>(fd, &slices, &rights, flags, None).unwrap();
            // held as long as the service
            send.send((ours, (socket, report))).unwrap();
        }
    });
    let (one, all) = channel();
    thread::spawn(move || {
        let mut services = Vec::new();
        for (stream, service) in opened {
            services.push(service);
            if one.send(stream).is_err() {
                return;
            }
        }
    });
    all
}

fn serve(folder: &Path, more: &[&str]) -> Terminal {
    let pty = nix::pty::openpty(None, None).unwrap();
    let slave = || pty.slave.as_fd().try_clone_to_owned().unwrap();
    let file = File::create(folder.join("open")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lcroute-streams"));
    command.args(["serve", "/x/1", "--allow-all"]).args(more);
    command.args(["--", "sh", "-c", PROBE]);
    command
        .env("LCROUTE_CONTROL", folder.join("control.sock"))
        .env("SECRET_OF_ROOT", "4711")
        .env("LCROUTE_TOKEN", "4712")
        .env("LC_TIME", "C")
        .env("WANTED", "4713")
        .stdin(slave())
        .stdout(slave())
        .stderr(slave());
    let open = file.as_raw_fd();
    // SAFETY: between fork and exec; makes system calls only
    unsafe {
        command.pre_exec(move || {
            nix::unistd::setsid()?;
            Errno::result(libc::ioctl(0, libc::TIOCSCTTY, 0))?;
            // a descriptor inherited from a shell
            Errno::result(libc::dup2(open, 9))?;
            Ok(())
        });
    }
    let serving = command.spawn().unwrap();
    drop(pty.slave);
    let (send, shown) = channel();
    let master: OwnedFd = pty.master;
    thread::spawn(move || {
        for byte in BufReader::new(File::from(master))
            .bytes()
            .map_while(Result::ok)
        {
            if send.send(byte).is_err() {
                return;
            }
        }
    });
    Terminal { serving, shown }
}

/// Returns the command's output, and the terminal's.
fn probe(more: &[&str]) -> (BTreeMap<String, String>, String) {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let opened = program(folder.path());
    let terminal = serve(folder.path(), more);
    let mut said = String::new();
    opened.recv().unwrap().read_to_string(&mut said).unwrap();
    let mut shown = Vec::new();
    while !shown.ends_with(b"it complains") {
        shown.push(terminal.shown.recv().unwrap());
    }
    let pairs = said.lines().filter_map(|line| line.split_once([' ', '\t']));
    let said = pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
    (said.collect(), String::from_utf8_lossy(&shown).into())
}

fn check(said: &BTreeMap<String, String>, shown: &str) {
    let (session, pid) = said["session"].split_once(' ').unwrap();
    assert_eq!(session, pid, "it leads a session of its own");
    assert_eq!(said["tty"], "no", "the terminal can be opened");
    assert_eq!(said["terminal"], "no", "a descriptor is the terminal");
    assert_eq!(said["typed"], "nothing", "it types at the terminal");
    assert_eq!(said["descriptor"], "no", "it has a file of the shell's");
    assert!(
        !shown.contains('\u{1b}') && !shown.contains('\u{7}'),
        "{shown:?}"
    );
    for name in ["SECRET_OF_ROOT", "LCROUTE_TOKEN", "LCROUTE_CONTROL"] {
        assert!(!said.contains_key(&format!("env-{name}")), "{name}");
    }
    assert_eq!(said["env-LC_NAME"], "alpha");
    assert_eq!(said["env-LC_PROTOCOL"], "/x/1");
    assert_eq!(said["env-LC_TIME"], "C");
}

#[test]
fn a_served_command_has_no_terminal_and_no_secret_of_who_serves() {
    let (said, shown) = probe(&[]);
    check(&said, &shown);
    assert_eq!(said["NoNewPrivs:"], "1");
    // without --user: the caller's own account
    assert_eq!(said["env-PATH"], std::env::var("PATH").unwrap());
    let here = std::env::current_dir().unwrap();
    assert_eq!(said["folder"], here.to_str().unwrap());
    assert!(!said.contains_key("env-WANTED"));
    let (said, _) = probe(&["--env", "WANTED", "--gain-rights"]);
    assert_eq!(said["env-WANTED"], "4713");
    assert_eq!(said["NoNewPrivs:"], "0");
}

#[test]
fn a_command_of_another_user_is_his_alone() {
    if !Uid::effective().is_root() {
        return;
    }
    let nobody = User::from_name("nobody").unwrap().unwrap();
    let (said, shown) = probe(&["--user", "nobody"]);
    check(&said, &shown);
    let uid = nobody.uid;
    assert_eq!(said["Uid:"], format!("{uid}\t{uid}\t{uid}\t{uid}"));
    let mut expected: Vec<_> = getgrouplist(c"nobody", nobody.gid).unwrap();
    let mut groups: Vec<_> = { &said["Groups:"] }.split_whitespace().collect();
    groups.sort_unstable();
    expected.sort_unstable_by_key(|group| group.to_string());
    let expected: Vec<_> = expected.iter().map(ToString::to_string).collect();
    assert_eq!(groups, expected);
    assert_eq!(said["env-USER"], "nobody");
    assert_eq!(said["env-HOME"], nobody.dir.to_str().unwrap());
    assert_eq!(said["env-PATH"], librecast_program::child::PATH);
    assert_eq!(said["NoNewPrivs:"], "1");
    assert_eq!(said["CapEff:"], "0000000000000000");
    assert_ne!(
        said["folder"],
        std::env::current_dir().unwrap().to_str().unwrap()
    );
}
