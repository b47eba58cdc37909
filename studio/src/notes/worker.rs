//! The process with the document, seen from the one that sends.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

use librecast_program::process::Wake;
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

use super::document::{Answer, Request};

/// Processor time that no batch takes: else the process is ended, and who did it set aside. Not by the clock as in pages: on a
/// host that stands still or has too much to do, nobody is to blame.
pub const LIMIT: Duration = Duration::from_secs(2);

/// So often a process may have used less than its limit when that has passed by the clock. Chosen: one that waits for something
/// is ended after a minute.
const MOST_LOOKS: u32 = 30;

/// Shortest time to the next look, in parts of the limit: one that is nearly used up.
const LEAST_LOOK: u32 = 20;

/// Longest answer, in bytes: all text as JSON escapes it, and the drafts of as much.
const MAX_ANSWER: u64 = 64 << 20;

/// The hidden verb of this program that runs the document.
pub const VERB: &str = "notes-document";

/// What is there to be read.
#[derive(Debug)]
pub enum Next {
    /// An answer.
    Answer(Answer),
    /// Nothing yet.
    Nothing,
    /// It has ended, or says what it must not, or takes too long.
    Ended(&'static str),
}

/// The process. It ends when this is dropped.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    requests: Sender<Vec<u8>>,
    answers: Receiver<Answer>,
    /// What the last request may take.
    limit: Option<Limit>,
}

/// What a request may take, in processor time of the process.
#[derive(Debug)]
struct Limit {
    most: Duration,
    /// What had been used when it was sent.
    used_before: Duration,
    look_at: Instant,
    looks: u32,
}

impl Limit {
    /// Looks at what is used now. Why it is ended, or when to look again.
    fn look(&mut self, used: Option<Duration>, now: Instant) -> Result<(), &'static str> {
        if now < self.look_at {
            return Ok(());
        }
        let used = used.map_or(self.most, |used| used.saturating_sub(self.used_before));
        if used >= self.most {
            return Err("it took too long");
        }
        self.looks += 1;
        if self.looks >= MOST_LOOKS {
            return Err("it stood still");
        }
        self.look_at = now + (self.most - used).max(self.most / LEAST_LOOK);
        Ok(())
    }
}

/// This program, as the process with the document.
pub fn command() -> Command {
    // also where another version was installed meanwhile
    let mut command = Command::new("/proc/self/exe");
    command.arg0("lcstudio").arg(VERB);
    command
}

impl Worker {
    /// Starts it; `wake` tells when there is something to be read. It dies with the thread that calls.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn start(mut command: Command, wake: Wake) -> io::Result<Self> {
        command.env_clear().stdin(Stdio::piped());
        // what panics print may hold text of notes
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let (requests, sent) = channel::<Vec<u8>>();
        let (say, answers) = channel();
        if let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) {
            let pass = move || {
                // why it ended is seen by its silence
                let _ = pass(&sent, input, output, &say, &wake);
                drop(say);
                wake.wake();
            };
            thread::Builder::new().name("document".into()).spawn(pass)?;
        }
        Ok(Self {
            child,
            requests,
            answers,
            limit: None,
        })
    }

    /// Whether a request is being worked on.
    pub fn is_busy(&self) -> bool {
        self.limit.is_some()
    }

    /// Processor time that the process has used, its threads together.
    fn used(&self) -> Option<Duration> {
        let id = i32::try_from(self.child.id()).ok()?;
        let clock = clock_getcpuclockid(Pid::from_raw(id)).ok()?;
        clock.now().ok().map(Duration::from)
    }

    /// Sends a request, to be done within `limit` of processor time; the one before was answered.
    pub fn ask(&mut self, request: &Request, limit: Duration, now: Instant) -> io::Result<()> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.limit = Some(Limit {
            most: limit,
            used_before: self.used().unwrap_or_default(),
            look_at: now + limit,
            looks: 0,
        });
        // that it has ended is seen where answers are read
        let _ = self.requests.send(line);
        Ok(())
    }

    /// What it says.
    pub fn next(&mut self, now: Instant) -> Next {
        match self.answers.try_recv() {
            Ok(answer) => {
                if answer.is_last() {
                    self.limit = None;
                }
                Next::Answer(answer)
            }
            Err(TryRecvError::Empty) => {
                let is_due = self
                    .limit
                    .as_ref()
                    .is_some_and(|limit| limit.look_at <= now);
                let used = if is_due { self.used() } else { None };
                let looked = self.limit.as_mut().map_or(Ok(()), |l| l.look(used, now));
                looked.map_or_else(Next::Ended, |()| Next::Nothing)
            }
            Err(TryRecvError::Disconnected) => Next::Ended("its process has ended"),
        }
    }

    /// When to look whether it has taken too long.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.limit.as_ref().map(|limit| limit.look_at)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // it may have ended by itself
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pass(
    sent: &Receiver<Vec<u8>>,
    mut input: ChildStdin,
    output: ChildStdout,
    say: &Sender<Answer>,
    wake: &Wake,
) -> io::Result<()> {
    let mut output = BufReader::new(output);
    for request in sent {
        input.write_all(&request)?;
        loop {
            let mut line = Vec::new();
            (&mut output)
                .take(MAX_ANSWER)
                .read_until(b'\n', &mut line)?;
            let answer: Answer = serde_json::from_slice(&line)?;
            let is_last = answer.is_last();
            if say.send(answer).is_err() {
                return Ok(());
            }
            wake.wake();
            if is_last {
                break;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// What a worker says that is this script, and why it ended, if it did before it was done.
    fn said_by(script: &str, limit: Duration) -> (Vec<Answer>, Option<&'static str>, Duration) {
        let wake = Wake::on_interrupt().unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        let mut worker = Worker::start(command, wake.clone()).unwrap();
        worker
            .ask(&Request::default(), limit, Instant::now())
            .unwrap();
        let mut answers = Vec::new();
        loop {
            match worker.next(Instant::now()) {
                Next::Answer(answer) => answers.push(answer),
                Next::Ended(why) => return (answers, Some(why), worker.used().unwrap_or_default()),
                Next::Nothing if !worker.is_busy() => return (answers, None, Duration::ZERO),
                Next::Nothing => {
                    let until = worker.poll_timeout().unwrap();
                    wake.wait(std::iter::empty(), until).unwrap();
                }
            }
        }
    }

    #[test]
    fn what_takes_for_ever_is_ended_and_named() {
        let trying = r#"read line; echo '{"trying":{"author":7,"number":3}}'; while :; do :; done"#;
        let (answers, why, used) = said_by(trying, LIMIT / 4);
        assert_eq!(
            answers,
            [Answer::Trying {
                author: 7,
                number: 3
            }]
        );
        assert_eq!(why, Some("it took too long"));
        assert!(used >= LIMIT / 4, "{used:?}");
    }

    /// As on a host that stands still: the clock goes on, the process does not.
    #[test]
    fn who_gets_no_processor_time_is_waited_for_and_not_for_ever() {
        let done = r#"{"done":{"text":null,"drafts":[],"is_full":false}}"#;
        let late = format!("read line; sleep 0.5; echo '{done}'");
        let (answers, why, _) = said_by(&late, Duration::from_millis(100));
        assert!(matches!(answers[..], [Answer::Done { .. }]), "{answers:?}");
        assert_eq!(why, None);
        let (_, why, _) = said_by("read line; sleep 100", Duration::from_millis(20));
        assert_eq!(why, Some("it stood still"));
    }

    #[test]
    fn a_limit_counts_what_is_used_and_not_the_clock() {
        let (begun, second) = (Instant::now(), Duration::from_secs(1));
        let limit = |looks| Limit {
            most: LIMIT,
            used_before: second,
            look_at: begun + LIMIT,
            looks,
        };
        // a laptop that slept for a day
        let now = begun + Duration::from_secs(86_400);
        let mut slept = limit(0);
        assert_eq!(slept.look(Some(second), now), Ok(()));
        assert_eq!(slept.look_at, now + LIMIT);
        assert_eq!(slept.look(Some(second * 9), now), Ok(()), "not yet due");
        assert_eq!(slept.look(Some(second * 2), now + LIMIT), Ok(()));
        assert_eq!(slept.look_at, now + LIMIT + second);
        let after = slept.look(Some(second * 3), slept.look_at);
        assert_eq!(after, Err("it took too long"));
        assert_eq!(limit(0).look(None, now), Err("it took too long"));
        let last = limit(MOST_LOOKS - 1).look(Some(second), now);
        assert_eq!(last, Err("it stood still"));
    }

    #[test]
    fn what_ends_or_says_nonsense_is_known_at_once() {
        for script in [
            "exit 1",
            "read line; echo nonsense; sleep 100",
            "kill -9 $$",
        ] {
            let (answers, why, _) = said_by(script, LIMIT);
            assert!(answers.is_empty());
            assert_eq!(why, Some("its process has ended"), "{script}");
        }
    }
}
