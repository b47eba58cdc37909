//! `lcgroup tail --exec`: a program that runs for each new message.
//!
//! Messages wait in the daemon's file, so one that the program delays is not lost: after a
//! disconnection the next connection begins behind the last message that was handled.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use librecast_program::cli::{Exit, ExitError};
use librecast_program::groups;
use nix::unistd::{AccessFlags, access};
use serde_json::Value;

use super::{Verbs, hint};
use crate::request::{Request, Tail};

/// Time after which a program that has not ended is named. Chosen: as for all waits.
pub(super) const NAMED_AFTER: Duration = Duration::from_secs(2);

/// A program for messages, and its place in the conversation.
struct Runs<'a> {
    group: &'a str,
    program: &'a OsStr,
    args: &'a [OsString],
    /// The last message that was handled.
    place: u64,
    /// Whether handled messages count as read. Ends with the first one whose program failed.
    marks: bool,
}

impl Verbs {
    /// Runs a program for each message of others, one at a time, until the daemon ends. It begins
    /// with the next message, unless `tail` names another place.
    pub fn tail_exec(&self, tail: &Tail, program: &[OsString]) -> anyhow::Result<Exit> {
        let [program, args @ ..] = without_dashes(program) else {
            return Err(ExitError::new(Exit::Usage, "--exec needs a program").into());
        };
        check_executable(program)?;
        let status = self.group(&tail.group)?;
        if let Some(problem) = &status.problem {
            hint(problem);
        }
        let before_last = tail.last.map(|last| status.messages.saturating_sub(last));
        let unread = tail.new.then_some(status.read);
        let place = tail.after.or(before_last).or(unread);
        self.run_for_all(Runs {
            group: &tail.group,
            program,
            args,
            place: place.unwrap_or(status.messages),
            // scripts with --json read by numbers of their own
            marks: tail.new && !self.json,
        })
    }

    fn run_for_all(&self, mut runs: Runs<'_>) -> anyhow::Result<Exit> {
        // the daemon disconnects a reader that is behind for long; without a message it has ended
        while self.run_for_some(&mut runs)? {}
        Err(ExitError::new(Exit::Unreachable, "lcgroup ended").into())
    }

    /// Runs the program for the messages of one connection; returns whether there was any.
    fn run_for_some(&self, runs: &mut Runs<'_>) -> anyhow::Result<bool> {
        let request = Request::Tail(Tail {
            group: runs.group.to_owned(),
            after: Some(runs.place),
            last: None,
            follow: true,
            new: false,
        });
        let mut reader = groups::send(&self.control, &request)?;
        let (mut line, mut any) = (String::new(), false);
        loop {
            line.clear();
            match reader.read_line(&mut line) {
                Err(e) if e.kind() != io::ErrorKind::ConnectionReset => return Err(e.into()),
                // a disconnection may cut a line
                _ if !line.ends_with('\n') => return Ok(any),
                _ => {}
            }
            let value: Value = serde_json::from_str(&line)?;
            let Some(n) = value["n"].as_u64() else {
                serde_json::from_value::<groups::Answer<Value>>(value)?.result()?;
                return Ok(any);
            };
            any = true;
            if value["own"] != true {
                self.run_for(runs, n, &line)?;
            }
            runs.place = n;
        }
    }

    /// Runs the program for message `n`, and waits for its end.
    fn run_for(&self, runs: &mut Runs<'_>, n: u64, line: &str) -> anyhow::Result<()> {
        let shown = runs.program.display();
        let started = Command::new(runs.program)
            .args(runs.args)
            .stdin(Stdio::piped())
            .spawn();
        let child = started.with_context(|| format!("{shown}: message {n} was not handled"))?;
        let name_it = |id: u32| {
            if !self.json {
                hint(format_args!(
                    "waits for {shown} (process {id}), which handles message {n}: does it wait for something? Later messages are kept"
                ));
            }
        };
        let status = wait_naming(child, line, name_it)?;
        if !status.success() {
            runs.marks = false;
            hint(format_args!("{shown}: {status}, for message {n}"));
        } else if runs.marks {
            self.mark_read(runs.group, n);
        }
        Ok(())
    }
}

/// Writes a line to a program, and waits for its end; calls `name_it` with its number if it lasts.
fn wait_naming(
    mut child: Child,
    line: &str,
    name_it: impl FnOnce(u32) + Send,
) -> io::Result<ExitStatus> {
    let (id, stdin) = (child.id(), child.stdin.take());
    let (ended, end) = channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            if end.recv_timeout(NAMED_AFTER) == Err(RecvTimeoutError::Timeout) {
                name_it(id);
            }
        });
        if let Some(mut stdin) = stdin {
            // a program may end without reading
            let _ = stdin.write_all(line.as_bytes());
        }
        let status = child.wait();
        drop(ended);
        status
    })
}

/// The program and its arguments, which may follow `--`.
pub(super) fn without_dashes(program: &[OsString]) -> &[OsString] {
    match program {
        [dashes, rest @ ..] if dashes == "--" => rest,
        all => all,
    }
}

/// Refuses a program that cannot be started: a mistyped name is noticed before a message comes.
pub(super) fn check_executable(program: &OsStr) -> Result<(), ExitError> {
    let is_good = |path: &Path| path.is_file() && access(path, AccessFlags::X_OK).is_ok();
    let places: Vec<PathBuf> = match program.as_encoded_bytes().contains(&b'/') {
        true => vec![program.into()],
        false => {
            let folders = std::env::var_os("PATH").unwrap_or_default();
            let folders = std::env::split_paths(&folders);
            folders.map(|folder| folder.join(program)).collect()
        }
    };
    match places.iter().any(|place| is_good(place)) {
        true => Ok(()),
        false => {
            let text = format!("{}: no program that can be started", program.display());
            Err(ExitError::new(Exit::Usage, text))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;
    use std::os::unix::net::UnixListener;

    use serde_json::json;

    use super::*;

    /// A daemon of `connections`: each sends these bytes and ends. Returns the requests.
    fn serve(path: &Path, connections: Vec<Vec<u8>>) -> thread::JoinHandle<Vec<Value>> {
        let listener = UnixListener::bind(path).unwrap();
        thread::spawn(move || {
            let mut requests = Vec::new();
            for next in connections {
                let mut stream = loop {
                    let mut stream = BufReader::new(listener.accept().unwrap().0);
                    let mut line = String::new();
                    stream.read_line(&mut line).unwrap();
                    let request: Value = serde_json::from_str(&line).unwrap();
                    let is_tail = request["cmd"] == "tail";
                    requests.push(request);
                    if is_tail {
                        break stream.into_inner();
                    }
                    stream.get_mut().write_all(b"{\"ok\":{}}\n").unwrap();
                };
                // the reader may have ended
                let _ = stream.write_all(&next);
            }
            requests
        })
    }

    fn message(n: u64, text: &str) -> Vec<u8> {
        let mut line = json!({ "n": n, "name": "$(touch x)", "text": text }).to_string();
        line.push('\n');
        line.into_bytes()
    }

    /// Runs a script for the messages of these connections; its output, the requests, and the end.
    fn run(
        script: &str,
        marks: bool,
        connections: Vec<Vec<u8>>,
    ) -> (String, Vec<Value>, anyhow::Error) {
        let folder = tempfile::tempdir().unwrap();
        let control = folder.path().join("control");
        let served = serve(&control, connections);
        let verbs = Verbs {
            control,
            json: false,
        };
        let out = folder.path().join("out");
        let args = ["-c", script, "sh"].map(OsString::from);
        let ended = verbs.run_for_all(Runs {
            group: "team",
            program: OsStr::new("sh"),
            args: &[&args[..], &[out.clone().into()]].concat(),
            place: 4,
            marks,
        });
        let requests = served.join().unwrap();
        let out = std::fs::read_to_string(&out).unwrap_or_default();
        (out, requests, ended.unwrap_err())
    }

    #[test]
    fn a_message_is_handled_once_and_its_bytes_are_no_arguments() {
        let own = b"{\"n\":6,\"own\":true,\"text\":\"mine\"}\n".to_vec();
        let first = [message(5, "\"; rm -rf $HOME `x`\n"), own, message(7, "cut")].concat();
        let cut = first[..first.len() - 9].to_vec();
        let second = message(7, "whole");
        let (out, requests, end) = run("cat >>\"$1\"", false, vec![cut, second, Vec::new()]);
        let lines: Vec<Value> = out
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect();
        let texts: Vec<_> = lines
            .iter()
            .map(|line| line["text"].as_str().unwrap())
            .collect();
        assert_eq!(texts, ["\"; rm -rf $HOME `x`\n", "whole"]);
        let after: Vec<_> = requests
            .iter()
            .map(|r| r["after"].as_u64().unwrap())
            .collect();
        assert_eq!(after, [4, 6, 7]);
        let exit = end.downcast_ref::<ExitError>().map(|e| e.exit);
        assert_eq!(exit, Some(Exit::Unreachable));
    }

    #[test]
    fn one_that_failed_stays_unread_and_later_ones_are_handled() {
        let all = [message(5, "a"), message(6, "b"), message(7, "c")].concat();
        let script = "read -r l; echo \"$l\" >>\"$1\"; case $l in *:6,*) exit 3;; esac";
        let (out, requests, _) = run(script, true, vec![all, Vec::new()]);
        assert_eq!(out.lines().count(), 3);
        let read: Vec<_> = requests.iter().filter(|r| r["cmd"] == "read").collect();
        assert_eq!(read.len(), 1);
        assert_eq!(read[0]["n"], 5);
    }

    #[test]
    fn a_program_need_not_read_and_one_that_lasts_is_named() {
        let long = message(1, &"x".repeat(400_000));
        let line = String::from_utf8(long).unwrap();
        let start = |script: &str| {
            let command = Command::new("sh")
                .args(["-c", script])
                .stdin(Stdio::piped())
                .spawn();
            command.unwrap()
        };
        let named = std::sync::atomic::AtomicU32::new(0);
        let name_it = |id| named.store(id, std::sync::atomic::Ordering::Relaxed);
        assert!(
            wait_naming(start("exit 0"), &line, name_it)
                .unwrap()
                .success()
        );
        assert_eq!(named.load(std::sync::atomic::Ordering::Relaxed), 0);
        // it ends by itself only later than it is named
        let slow = start("sleep 4");
        let id = slow.id();
        assert!(wait_naming(slow, &line, name_it).unwrap().success());
        assert_eq!(named.load(std::sync::atomic::Ordering::Relaxed), id);
    }

    #[test]
    fn what_cannot_be_started_is_refused() {
        let text = tempfile::NamedTempFile::new().unwrap();
        let names = ["", "/", "no-such-program", "./no-such-program"].map(OsStr::new);
        for bad in names.into_iter().chain([text.path().as_os_str()]) {
            let refused = check_executable(bad);
            assert_eq!(refused.unwrap_err().exit, Exit::Usage, "{bad:?}");
        }
        check_executable(OsStr::new("sh")).unwrap();
        check_executable(OsStr::new("/bin/sh")).unwrap();
        let all = ["--", "sh", "--"].map(OsString::from);
        assert_eq!(without_dashes(&all), &all[1..]);
        assert_eq!(without_dashes(&all[1..]), &all[1..]);
    }
}
