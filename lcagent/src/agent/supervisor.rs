//! `lcagent supervise DIR`: the process between the agent and a job. It runs the job, writes its
//! output to disk and ends it in time, even if the agent restarts or crashes.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use librecast::time::UnixTime;
use librecast_program::child::Account;
use librecast_program::cli::Exit;
use librecast_program::interrupt::on_signals;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc::O_NONBLOCK;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::contain::{
    FilesAs, Group, Leader, contain, environment, kill_all, mark, reap, terminate,
};
use super::job::{JobDir, Work, append_whole};
use crate::datagram::JobId;
use crate::record::{Ended, Ending, Record};
use crate::request::Run;

/// Bytes read from a job at once; a record holds them.
const CHUNK: usize = 16 * 1024;
/// Time between SIGTERM and SIGKILL of a job that shall end.
const KILL_GRACE: Duration = Duration::from_secs(1);
/// Time between two checks of the folder for a cancellation.
const LOOK: Duration = Duration::from_secs(1);
/// Time within which an agent names its job.
const NAMING_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for which output is read once all processes that could write it are dead.
const DRAIN: Duration = Duration::from_secs(2);

/// Bytes of a program in which the kernel looks for its interpreter.
const MAX_HEAD: usize = 256;

enum Event {
    Said(Record),
    Silent,
    Exited(io::Result<ExitStatus>),
    Stop,
}

/// Runs the job in `dir` as the agent's child: reports by standard output, and ends it by a signal.
pub fn supervise(dir: PathBuf) -> anyhow::Result<Exit> {
    let dir = JobDir::at(std::path::absolute(dir)?);
    let (send, events) = sync_channel(16);
    work(&dir, &FilesAs::itself(), send, &events)
}

/// Runs the job that the agent names on standard input, a socket, with this process's rights.
/// `jobs`: all jobs' folder. The socket carries reports to the agent; a byte from it ends the job.
pub fn supervise_for(jobs: &Path) -> anyhow::Result<Exit> {
    let mut agent = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let files = FilesAs::owner_of(jobs)?;
    agent.set_read_timeout(Some(NAMING_TIMEOUT))?;
    let mut name = [0; 16];
    agent.read_exact(&mut name).context("the job's name")?;
    // parsed as a number: no name leads out of the folder
    let job: JobId = std::str::from_utf8(&name)?.parse()?;
    agent.set_read_timeout(None)?;
    let dir = JobDir::at(std::path::absolute(jobs)?.join(job.to_string()));
    let (send, events) = sync_channel(16);
    let stop = send.clone();
    thread::Builder::new().spawn(move || {
        let mut byte = [0];
        while matches!(agent.read(&mut byte), Ok(1)) {
            // one is enough, and the queue may be full of output
            let _ = stop.try_send(Event::Stop);
        }
    })?;
    work(&dir, &files, send, &events)
}

fn work(
    dir: &JobDir,
    files: &FilesAs,
    send: SyncSender<Event>,
    events: &Receiver<Event>,
) -> anyhow::Result<Exit> {
    let _lock = dir.lock()?;
    let stop = send.clone();
    on_signals(
        &[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP],
        move |_| {
            // one is enough, and the queue may be full of output
            let _ = stop.try_send(Event::Stop);
        },
    )?;
    nix::sys::prctl::set_child_subreaper(true)?;
    let mut log = Log {
        file: dir.stream()?,
        left: 0,
        cut: 0,
    };
    let ended = run(dir, files, &mut log, send, events);
    let mut last = Vec::new();
    Record::Ended(ended)
        .encode(&mut last)
        .map_err(io::Error::other)?;
    append_whole(&mut log.file, &last)?;
    log.file.sync_data()?;
    dir.set_ended(&last)?;
    poke();
    Ok(Exit::Ok)
}

/// Signals a change to the agent, if it lives.
fn poke() {
    let mut out = io::stdout();
    let _ = out.write_all(b".").and_then(|()| out.flush());
}

/// The stream on disk.
struct Log {
    file: File,
    /// Bytes of output that may still be written.
    left: u64,
    cut: u64,
}

impl Log {
    fn write(&mut self, record: &Record) -> io::Result<()> {
        let mut bytes = Vec::new();
        record.encode(&mut bytes).map_err(io::Error::other)?;
        append_whole(&mut self.file, &bytes)
    }

    /// Writes output up to the limit.
    fn output(&mut self, record: &Record) {
        let (Record::Stdout(bytes) | Record::Stderr(bytes)) = record else {
            return;
        };
        let length = bytes.len() as u64;
        // output that a full disk rejects counts as over the limit
        if length > self.left || self.write(record).is_err() {
            self.left = 0;
            self.cut += length;
        } else {
            self.left -= length;
        }
        poke();
    }
}

fn run(
    dir: &JobDir,
    files: &FilesAs,
    log: &mut Log,
    send: SyncSender<Event>,
    events: &Receiver<Event>,
) -> Ended {
    let begun = Instant::now();
    let how = match start(dir, files, log, send) {
        Ok(Started {
            leader,
            group,
            time,
        }) => {
            let how = watch(dir, log, events, leader, group.as_ref(), begun + time);
            reap();
            if let Err(e) = files.with_own_rights(|| drop(group)) {
                tracing::warn!("{e}");
            }
            how
        }
        Err(e) => {
            log.left = log.left.max(4_096);
            log.output(&Record::Stderr(format!("lcagent: {e}\n").into_bytes()));
            Ending::Exited(if e.kind() == io::ErrorKind::NotFound {
                127
            } else {
                126
            })
        }
    };
    let used = getrusage(UsageWho::RUSAGE_CHILDREN).ok();
    let micros = |t: nix::sys::time::TimeVal| {
        u64::try_from(t.tv_sec() * 1_000_000 + t.tv_usec()).unwrap_or_default()
    };
    Ended {
        how,
        duration_us: begun.elapsed().as_micros() as u64,
        user_us: used.map_or(0, |u| micros(u.user_time())),
        system_us: used.map_or(0, |u| micros(u.system_time())),
        memory_kib: used.map_or(0, |u| u64::try_from(u.max_rss()).unwrap_or_default()),
        cut: log.cut,
    }
}

/// A running job.
struct Started {
    leader: Pid,
    /// Its control group, if one could be made.
    group: Option<Group>,
    /// The time limit.
    time: Duration,
}

fn start(
    dir: &JobDir,
    files: &FilesAs,
    log: &mut Log,
    send: SyncSender<Event>,
) -> io::Result<Started> {
    let Work {
        run,
        permit,
        program,
        stream,
    } = dir.read()?;
    log.left = permit.output;
    let account = Account::find(permit.user.as_deref()).map_err(io::Error::other)?;
    let name = dir.path().file_name().unwrap_or_default();
    let group = files
        .with_own_rights(|| Group::create(name))?
        .inspect_err(|e| tracing::debug!("no control group: {e}"))
        .ok();
    let script = run.script.as_deref().map(in_memory).transpose()?;
    let program = match (&script, program) {
        (Some(file), _) => format!("/proc/self/fd/{}", file.as_raw_fd()).into(),
        (None, Some(program)) => program.into_os_string(),
        (None, None) => run.arguments[0].clone(),
    };
    let mut command = prepare(dir, files, &run, &account, program);
    // after the operator's environment: the mark finds the job if this process dies
    command.envs([mark(stream)]);
    let group_path = group.as_ref().map(|group| group.path.clone());
    // before anything runs: a supervisor may die at any moment
    dir.note_traces(None, group_path.clone())?;
    contain(
        &mut command,
        &account,
        group.as_ref(),
        permit.memory,
        script.as_ref().map(AsRawFd::as_raw_fd),
    );
    let spawned = files.with_own_rights(|| {
        let spawned = command.spawn();
        spawned.map_err(|e| io::Error::new(e.kind(), why_not_started(&run, &command, &e)))
    })?;
    let mut child = spawned?;
    let started = Record::Started(UnixTime::now().as_millis());
    log.write(&started)?;
    poke();
    let leader = Pid::from_raw(child.id() as i32);
    // if this fails, the mark remains
    let _ = dir.note_traces(Leader::of(leader), group_path);
    converse(&mut child, run.stdin, &send)?;
    thread::Builder::new().spawn(move || {
        // the receiver is gone once the supervisor has ended
        let _ = send.send(Event::Exited(child.wait()));
    })?;
    Ok(Started {
        leader,
        group,
        time: permit.time,
    })
}

/// Returns why the job was not started, for people. The system returns "no such file" for a missing
/// folder, program or interpreter alike.
fn why_not_started(run: &Run, command: &Command, error: &io::Error) -> String {
    let name = run.arguments[0].to_string_lossy();
    if let Some(folder) = run.folder.as_ref().filter(|f| !Path::new(f).is_dir()) {
        return format!("{}: no such folder", folder.to_string_lossy());
    }
    if error.kind() != io::ErrorKind::NotFound {
        return format!("{name}: {error}");
    }
    let head = match &run.script {
        Some(script) => Some(script[..script.len().min(MAX_HEAD)].to_vec()),
        None => head_of_program(command),
    };
    let Some(head) = head else {
        return format!("{name}: {error}");
    };
    let Some(interpreter) = interpreter(&head) else {
        return format!("{name}: it is there, but what it needs to be run (its loader) is not");
    };
    let crlf = match interpreter.ends_with('\r') {
        true => ": its lines end in CRLF, which must be LF",
        false => "",
    };
    format!("{name}: its interpreter {interpreter:?} is not there{crlf}")
}

/// Returns the beginning of the file that `command` would execute; none without a file.
fn head_of_program(command: &Command) -> Option<Vec<u8>> {
    let program = Path::new(command.get_program());
    let folder = command.get_current_dir().unwrap_or(Path::new("/"));
    let file = if program.as_os_str().as_encoded_bytes().contains(&b'/') {
        folder.join(program)
    } else {
        let path = command.get_envs().find(|(name, _)| *name == "PATH")?.1?;
        let mut files = std::env::split_paths(path).map(|p| folder.join(p).join(program));
        files.find(|file| file.is_file())?
    };
    let mut head = Vec::new();
    // a pipe must not block
    let mut options = File::options();
    let file = options
        .read(true)
        .custom_flags(O_NONBLOCK)
        .open(file)
        .ok()?;
    file.take(MAX_HEAD as u64).read_to_end(&mut head).ok()?;
    Some(head)
}

/// Returns the interpreter of a script's first line. The kernel takes all up to a blank or the
/// line's end, carriage returns included.
fn interpreter(head: &[u8]) -> Option<String> {
    let line = head.strip_prefix(b"#!")?.split(|b| *b == b'\n').next()?;
    let line = String::from_utf8_lossy(line);
    let blank = |c| c == ' ' || c == '\t';
    let name = line.trim_start_matches(blank).split(blank).next()?;
    Some(name.to_owned())
}

/// Makes a script that exists only in memory, executable by everybody.
fn in_memory(script: &[u8]) -> io::Result<File> {
    let file = memfd_create(c"script", MFdFlags::empty())?;
    let mut file = File::from(file);
    file.write_all(script)?;
    // the interpreter opens it again by /proc/self/fd
    fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok(file)
}

fn prepare(
    dir: &JobDir,
    files: &FilesAs,
    run: &Run,
    account: &Account,
    program: OsString,
) -> Command {
    let mut command = Command::new(program);
    let home = account.home.clone();
    let home = match files.with_own_rights(|| home.is_dir()) {
        Ok(true) => home,
        _ => "/".into(),
    };
    command
        .args(&run.arguments[1..])
        .env_clear()
        .envs(environment(account, dir.path()))
        .envs(run.variables.iter().map(|(n, v)| (n, v)))
        .current_dir(run.folder.as_ref().map_or(home, PathBuf::from))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Starts the threads that write the job's input and read its output.
fn converse(child: &mut Child, input: Vec<u8>, send: &SyncSender<Event>) -> io::Result<()> {
    if let Some(mut stdin) = child.stdin.take() {
        thread::Builder::new().spawn(move || {
            // a job need not read its input
            let _ = stdin.write_all(&input);
        })?;
    }
    if let Some(out) = child.stdout.take() {
        listen(out, Record::Stdout, send.clone())?;
    }
    if let Some(err) = child.stderr.take() {
        listen(err, Record::Stderr, send.clone())?;
    }
    Ok(())
}

fn listen(
    mut from: impl Read + Send + 'static,
    record: fn(Vec<u8>) -> Record,
    send: SyncSender<Event>,
) -> io::Result<()> {
    thread::Builder::new().spawn(move || {
        let mut buffer = vec![0; CHUNK];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => {
                    if send
                        .send(Event::Said(record(buffer[..n].to_vec())))
                        .is_err()
                    {
                        return;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        let _ = send.send(Event::Silent);
    })?;
    Ok(())
}

/// Waits until the job has ended and all its output is written; returns its ending.
fn watch(
    dir: &JobDir,
    log: &mut Log,
    events: &Receiver<Event>,
    leader: Pid,
    group: Option<&Group>,
    end: Instant,
) -> Ending {
    let (mut how, mut talking, mut until) = (None, 2, end);
    // the cause of an early end
    let mut doomed = None;
    while how.is_none() || talking > 0 {
        let left = until.saturating_duration_since(Instant::now());
        // an agent of a later run can request the end by the folder only
        if doomed.is_none() && how.is_none() && dir.is_cancelled() {
            doomed = Some(Ending::Cancelled);
            terminate(leader);
            until = Instant::now() + KILL_GRACE;
            continue;
        }
        let event = events.recv_timeout(left.min(LOOK));
        if left > LOOK && matches!(event, Err(RecvTimeoutError::Timeout)) {
            continue;
        }
        match event {
            Ok(Event::Said(record)) => log.output(&record),
            Ok(Event::Silent) => talking -= 1,
            // handled above
            Ok(Event::Stop) => {}
            Ok(Event::Exited(status)) => {
                how = Some(doomed.unwrap_or_else(|| ending_of(&status)));
                // its remaining processes hold its pipes open, and belong to it
                kill_all(leader, group);
                until = Instant::now() + DRAIN;
            }
            Err(RecvTimeoutError::Timeout) if how.is_some() => break,
            Err(RecvTimeoutError::Timeout) if doomed.is_none() => {
                doomed = Some(Ending::OutOfTime);
                terminate(leader);
                until = Instant::now() + KILL_GRACE;
            }
            Err(RecvTimeoutError::Timeout) => {
                kill_all(leader, group);
                until = Instant::now() + DRAIN;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    how.or(doomed).unwrap_or(Ending::Lost)
}

fn ending_of(status: &io::Result<ExitStatus>) -> Ending {
    use std::os::unix::process::ExitStatusExt;
    match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => Ending::Exited(code as u32),
            (None, Some(signal)) => Ending::Killed(signal as u32),
            (None, None) => Ending::Lost,
        },
        Err(_) => Ending::Lost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::tests::run;

    fn why(run: &Run, folder: &Path) -> String {
        let mut command = Command::new(&run.arguments[0]);
        command.env_clear().env("PATH", folder).current_dir(folder);
        why_not_started(run, &command, &io::ErrorKind::NotFound.into())
    }

    #[test]
    fn what_is_missing_is_what_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("dos", "#! /bin/sh\r\necho hi\r\n");
        write("strange", "#!/opt/none/python3 -u\nprint()\n");
        write("program", "\x7fELF");
        let of = |name: &str| why(&run(&[name]), dir.path());
        let crlf =
            r#"its interpreter "/bin/sh\r" is not there: its lines end in CRLF, which must be LF"#;
        assert_eq!(of("dos"), format!("dos: {crlf}"));
        assert_eq!(of("./dos"), format!("./dos: {crlf}"));
        let script = Run {
            script: Some(b"#!/bin/sh\r\necho hi\r\n".to_vec()),
            ..run(&["s.sh"])
        };
        assert_eq!(why(&script, dir.path()), format!("s.sh: {crlf}"));
        let strange = r#"strange: its interpreter "/opt/none/python3" is not there"#;
        assert_eq!(of("strange"), strange);
        assert!(of("program").contains("its loader"), "{}", of("program"));
        assert_eq!(of("none"), "none: entity not found");
        let nowhere = Run {
            folder: Some("/nowhere".into()),
            ..run(&["dos"])
        };
        assert_eq!(why(&nowhere, dir.path()), "/nowhere: no such folder");
    }
}
