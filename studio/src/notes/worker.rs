//! The process with the document, seen from the one that sends.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

use librecast_program::process::Wake;

use super::document::{Answer, Request};

/// Longer than that no batch takes: else the process is ended, and who did it set aside. As in pages.
pub const LIMIT: Duration = Duration::from_secs(2);

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
    /// Until when the last request must be done.
    limit: Option<Instant>,
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

    /// Sends a request, to be done within `limit`; the one before was answered.
    pub fn ask(&mut self, request: &Request, limit: Duration, now: Instant) -> io::Result<()> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.limit = Some(now + limit);
        // that it has ended is seen where answers are read
        let _ = self.requests.send(line);
        Ok(())
    }

    /// What it says.
    pub fn next(&mut self, now: Instant) -> Next {
        match self.answers.try_recv() {
            Ok(answer) => {
                if !matches!(answer, Answer::Trying { .. } | Answer::Pending { .. }) {
                    self.limit = None;
                }
                Next::Answer(answer)
            }
            Err(TryRecvError::Empty) if self.limit.is_some_and(|limit| limit <= now) => {
                Next::Ended("it took too long")
            }
            Err(TryRecvError::Empty) => Next::Nothing,
            Err(TryRecvError::Disconnected) => Next::Ended("its process has ended"),
        }
    }

    /// When it has taken too long.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.limit
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
            let goes_on = matches!(answer, Answer::Trying { .. } | Answer::Pending { .. });
            if say.send(answer).is_err() {
                return Ok(());
            }
            wake.wake();
            if !goes_on {
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

    /// What a worker says that is this script.
    fn said_by(script: &str) -> (Vec<Answer>, &'static str, Duration) {
        let wake = Wake::on_interrupt().unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        let mut worker = Worker::start(command, wake.clone()).unwrap();
        let begun = Instant::now();
        worker.ask(&Request::default(), LIMIT, begun).unwrap();
        let mut answers = Vec::new();
        loop {
            match worker.next(Instant::now()) {
                Next::Answer(answer) => answers.push(answer),
                Next::Ended(why) => return (answers, why, begun.elapsed()),
                Next::Nothing => wake.wait(std::iter::empty(), begun + LIMIT).unwrap(),
            }
        }
    }

    #[test]
    fn what_takes_for_ever_is_ended_and_named() {
        let trying = r#"read line; echo '{"trying":{"author":7,"number":3}}'; while :; do :; done"#;
        let (answers, why, took) = said_by(trying);
        assert_eq!(
            answers,
            [Answer::Trying {
                author: 7,
                number: 3
            }]
        );
        assert_eq!(why, "it took too long");
        assert!(took >= LIMIT);
    }

    #[test]
    fn what_ends_or_says_nonsense_is_known_at_once() {
        for script in [
            "exit 1",
            "read line; echo nonsense; sleep 100",
            "kill -9 $$",
        ] {
            let (answers, why, _) = said_by(script);
            assert!(answers.is_empty());
            assert_eq!(why, "its process has ended", "{script}");
        }
    }
}
