//! The process of the document, as its parent sees it.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

use lcstudio_core::document::{Answer, Request};
use librecast_program::cli::{Exit, ExitError};
use librecast_program::executable::places;
use librecast_program::process::Wake;
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

/// Processor time of one author's updates in a batch. Beyond it the process ends, and this author is
/// ignored from the last one on: updates of others use none of its time. Not wall clock as in pages:
/// on a busy or suspended host no author is the cause.
pub const LIMIT: Duration = Duration::from_secs(2);

/// Looks at a process below its limit, one after each limit by the clock. Chosen: a process that
/// waits for something ends after a minute.
const MOST_LOOKS: u32 = 30;

/// Shortest time to the next look, in parts of the limit, when it is nearly used.
const LEAST_LOOK: u32 = 20;

/// Longest answer, in bytes: all text as JSON escapes it, and drafts of the same size.
const MAX_ANSWER: u64 = 64 << 20;

/// The program that runs the document, and its package.
const PROGRAM: &str = "lcstudio-notes";

/// Result of [`Worker::next`].
#[derive(Debug)]
pub enum Next {
    /// An answer.
    Answer(Answer),
    /// No answer yet.
    Nothing,
    /// The process has ended, sent an invalid answer, or exceeded its limit.
    Ended(&'static str),
}

/// The process. It ends when this is dropped.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    requests: Sender<Vec<u8>>,
    answers: Receiver<Answer>,
    /// Limit of the current request.
    limit: Option<Limit>,
}

/// Processor time that each author's updates of a request may take, and all else of it.
#[derive(Debug)]
struct Limit {
    most: Duration,
    /// The author of the current update; none: all else.
    author: Option<u64>,
    /// Processor time of the process without the time of this author in this request.
    used_before: Duration,
    /// Processor time of the others in this request.
    spent: BTreeMap<Option<u64>, Duration>,
    look_at: Instant,
    looks: u32,
}

impl Limit {
    fn new(most: Duration, used: Duration, now: Instant) -> Self {
        Self {
            most,
            author: None,
            used_before: used,
            spent: BTreeMap::new(),
            look_at: now + most,
            looks: 0,
        }
    }

    /// Notes that the process now works for this author.
    fn turn(&mut self, author: Option<u64>, used: Duration, now: Instant) {
        let spent = used.saturating_sub(self.used_before);
        self.spent.insert(self.author, spent);
        let before = self.spent.get(&author).copied().unwrap_or_default();
        (self.author, self.looks) = (author, 0);
        self.used_before = used.saturating_sub(before);
        self.look_at = now + self.until_look(before);
    }

    /// Returns the time to the next look, if this much is used.
    fn until_look(&self, used: Duration) -> Duration {
        self.most.saturating_sub(used).max(self.most / LEAST_LOOK)
    }

    /// Checks the used time. Returns the reason to end the process, or sets the next look.
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
        self.look_at = now + self.until_look(used);
        Ok(())
    }
}

/// Returns the place of the document's program.
pub fn program() -> anyhow::Result<PathBuf> {
    let found = places(PROGRAM)?.into_iter().find(|place| place.is_file());
    found.ok_or_else(|| {
        let message = format!("notes need the package {PROGRAM}, which is not installed here");
        ExitError::new(Exit::Failed, message).into()
    })
}

impl Worker {
    /// Starts it; `wake` signals answers. It dies with the calling thread.
    pub fn start(mut command: Command, wake: Wake) -> io::Result<Self> {
        command.env_clear().stdin(Stdio::piped());
        // text of a panic may contain notes
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let (requests, sent) = channel::<Vec<u8>>();
        let (say, answers) = channel();
        if let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) {
            let pass = move || {
                // its end is detected by its silence
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

    /// Returns whether a request is in work.
    pub fn is_busy(&self) -> bool {
        self.limit.is_some()
    }

    /// Returns the processor time of all threads of the process.
    fn used(&self) -> Option<Duration> {
        let id = i32::try_from(self.child.id()).ok()?;
        let clock = clock_getcpuclockid(Pid::from_raw(id)).ok()?;
        clock.now().ok().map(Duration::from)
    }

    /// Notes that the process now works for this author; none: for all.
    fn turn(&mut self, author: Option<u64>, now: Instant) {
        let used = self.used();
        if let (Some(limit), Some(used)) = (&mut self.limit, used) {
            limit.turn(author, used, now);
        }
    }

    /// Sends a request with a `limit` of processor time for each author; the last one was answered.
    pub fn ask(&mut self, request: &Request, limit: Duration, now: Instant) -> io::Result<()> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.limit = Some(Limit::new(limit, self.used().unwrap_or_default(), now));
        // `next` detects that the process has ended
        let _ = self.requests.send(line);
        Ok(())
    }

    /// Returns the next answer.
    pub fn next(&mut self, now: Instant) -> Next {
        match self.answers.try_recv() {
            Ok(answer) => {
                match &answer {
                    Answer::Trying { author, .. } => self.turn(Some(*author), now),
                    Answer::Looking => self.turn(None, now),
                    last if last.is_last() => self.limit = None,
                    _ => {}
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

    /// Returns the time of the next check of the limit.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.limit.as_ref().map(|limit| limit.look_at)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // the process may have ended already
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
mod tests {
    use super::*;

    /// Answers of a worker that is this script, and the reason if it ended early.
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
                    let until = worker.next_timeout().unwrap();
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

    /// As on a suspended host: the clock goes on, the process does not.
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
            looks,
            ..Limit::new(LIMIT, second, begun)
        };
        // a laptop was suspended for a day
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
    fn an_author_uses_no_time_of_others() {
        let begun = Instant::now();
        let ms = Duration::from_millis;
        let mut limit = Limit::new(LIMIT, ms(1_000), begun);
        let (slow, other) = (Some(1), Some(2));
        limit.turn(slow, ms(1_000), begun);
        limit.turn(other, ms(2_900), begun);
        assert_eq!(limit.look(Some(ms(4_800)), limit.look_at), Ok(()));
        limit.turn(slow, ms(4_800), begun);
        assert_eq!(limit.look(Some(ms(4_850)), limit.look_at), Ok(()));
        let after = limit.look(Some(ms(4_900)), limit.look_at);
        assert_eq!(after, Err("it took too long"), "1.9 s before, 0.1 s now");
    }

    #[test]
    fn updates_of_several_authors_may_take_more_than_the_limit_of_one() {
        // each update takes 0.6 s of processor time, as the system counts it in 10 ms
        let script = r#"
            used() { read -r _ _ _ _ _ _ _ _ _ _ _ _ _ u s _ < /proc/$$/stat; }
            read line
            for author in 7 8; do
                echo "{\"trying\":{\"author\":$author,\"number\":1}}"
                used; end=$((u + s + 60))
                while [ $((u + s)) -lt $end ]; do used; done
            done
            echo '{"done":{"text":null,"drafts":[],"is_full":false}}'
        "#;
        let (answers, why, _) = said_by(script, Duration::from_secs(1));
        assert_eq!((answers.len(), why), (3, None), "{answers:?}");
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
