//! A job's folder: input of the supervisor, and its results.
//!
//! | file | content |
//! |---|---|
//! | `spec` | the job's principal, user and limits (JSON) |
//! | `request` | the request (module `request`) |
//! | `stream` | the answer so far: records |
//! | `lock` | locked by the supervisor while it lives; its process id |
//! | `traces` | data for finding its processes without the supervisor (JSON) |
//! | `cancel` | exists if the job shall end |
//! | `ended` | exists once the stream is whole: its last record |
//! | `delivered` | exists once the operator has the stream |

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use librecast::id::PeerId;
use librecast::time::UnixTime;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::contain::{Leader, Traces, group_name, mark};
use super::core::Store;
use super::output::{Kept, Start};
use super::policy::Permit;
use super::revoked::Principal;
use crate::datagram::{JobId, StreamId};
use crate::record::{Ended, Ending, JobState, Record};
use crate::request::{Request, Run, What};
use crate::sealed::AnswerKey;

/// A job's folder.
#[derive(Debug, Clone)]
pub struct JobDir {
    path: PathBuf,
}

/// The work of a supervisor.
pub struct Work {
    pub run: Run,
    /// User and limits.
    pub permit: Permit,
    /// Executed in place of the program that the command names.
    pub program: Option<PathBuf>,
    /// The stream's name.
    pub stream: StreamId,
}

/// A job's principal, user and limits.
#[derive(Debug, Serialize, Deserialize)]
struct Spec {
    operator: PeerId,
    /// The key that certified the operator.
    certifier: Option<PeerId>,
    /// The operator's name in the policy.
    name: Option<String>,
    user: Option<String>,
    time_ms: u64,
    output: u64,
    memory: Option<u64>,
    /// Arrival in Unix seconds; `at_ms` in milliseconds, for the order within a second.
    at: u64,
    at_ms: u64,
    /// The command line, for people.
    line: String,
    /// Executed in place of the program that the command names.
    program: Option<PathBuf>,
    /// The key that seals the answer.
    seal: Option<AnswerKey>,
    /// The stream's name.
    stream: StreamId,
    /// Creation of this folder in nanoseconds of Unix time, if known. A copy's differs.
    made: Option<u64>,
}

/// A supervisor's notes for its agent.
#[derive(Debug, Default, Serialize, Deserialize)]
struct NotedTraces {
    leader: Option<Leader>,
    group: Option<PathBuf>,
}

/// Longest command in a list of jobs, in characters.
const MAX_LINE: usize = 256;

/// Appends `bytes` wholly or not at all: half a record would corrupt the next one.
pub fn append_whole(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    let before = file.metadata()?.len();
    file.write_all(bytes).inspect_err(|_| {
        // truncation needs no space
        let _ = file.set_len(before);
    })
}

/// Returns a stream's length up to its last whole record, and that record if it ends an answer.
fn whole_records(path: &Path) -> io::Result<(u64, Vec<u8>)> {
    let mut file = BufReader::new(File::open(path)?);
    let length = file.get_ref().metadata()?.len();
    let (mut at, mut last) = (0, Vec::new());
    loop {
        let mut head = [0; Record::HEAD];
        match file.read_exact(&mut head) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok((at, last)),
            other => other?,
        }
        let content = Record::content_length(&head);
        let end = at + (Record::HEAD + content) as u64;
        if end > length {
            return Ok((at, last));
        }
        last.clear();
        if Record::ends_job(&head) {
            let mut rest = vec![0; content];
            file.read_exact(&mut rest)?;
            last = [&head[..], &rest].concat();
        } else {
            file.seek_relative(content as i64)?;
        }
        at = end;
    }
}

/// All folders of an agent.
#[derive(Debug, Clone)]
pub struct JobDirs {
    path: PathBuf,
}

impl JobDirs {
    /// Opens the folders in `path`, which is created if it is missing.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)?;
        Ok(Self { path })
    }

    /// Returns the folder of a job.
    #[must_use]
    pub fn job(&self, job: JobId) -> JobDir {
        JobDir::at(self.path.join(job.to_string()))
    }

    /// Returns all jobs with a folder.
    pub fn all(&self) -> io::Result<Vec<JobId>> {
        let names = fs::read_dir(&self.path)?.filter_map(|e| Some(e.ok()?.file_name()));
        Ok(names.filter_map(|n| n.to_str()?.parse().ok()).collect())
    }
}

impl Store for JobDirs {
    fn read(&mut self, job: JobId, offset: u32, length: u32) -> io::Result<Vec<u8>> {
        let file = File::open(self.job(job).file("stream"))?;
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, offset.into())?;
        Ok(bytes)
    }
}

impl JobDir {
    /// Returns the folder at `path`.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Creates it for a job of `run`. `program` is executed in place of the named one.
    pub fn create(&self, start: &Start, run: Run, program: Option<PathBuf>) -> io::Result<()> {
        fs::DirBuilder::new().mode(0o700).create(&self.path)?;
        let now = UnixTime::now();
        let spec = Spec {
            operator: start.principal.operator,
            certifier: start.principal.certifier,
            name: start.name.clone(),
            user: start.permit.user.clone(),
            time_ms: start.permit.time.as_millis() as u64,
            output: start.permit.output,
            memory: start.permit.memory,
            at: now.as_secs(),
            at_ms: now.as_millis(),
            line: {
                let line = start.run.line_for_logs(start.seal.is_some());
                line.chars().take(MAX_LINE).collect()
            },
            program,
            seal: start.seal.clone(),
            stream: start.stream,
            made: self.made(),
        };
        let request = Request {
            spread_ms: 0,
            window: 0,
            only: Vec::new(),
            what: What::Run(run),
        };
        let request = request.encode().map_err(io::Error::other)?;
        self.write("spec", &serde_json::to_vec(&spec)?)?;
        self.write("request", &request)?;
        self.write("stream", &start.preamble)
    }

    /// Returns the work to do.
    pub fn read(&self) -> io::Result<Work> {
        let spec = self.spec()?;
        let request = Request::decode(&fs::read(self.file("request"))?);
        let What::Run(run) = request.map_err(io::Error::other)?.what else {
            return Err(io::Error::other("no program"));
        };
        let permit = Permit {
            user: spec.user,
            time: Duration::from_millis(spec.time_ms),
            output: spec.output,
            memory: spec.memory,
        };
        Ok(Work {
            run,
            permit,
            program: spec.program,
            stream: spec.stream,
        })
    }

    /// Returns the job's principal and his name in the policy.
    pub fn principal(&self) -> io::Result<(Principal, Option<String>)> {
        let spec = self.spec()?;
        let principal = Principal {
            operator: spec.operator,
            certifier: spec.certifier,
        };
        Ok((principal, spec.name))
    }

    /// Returns the state from which a later run of the agent continues.
    pub fn kept(&self) -> io::Result<Kept> {
        let spec = self.spec()?;
        let mut stream = spec.stream;
        // a copy of the folder continues under another stream name: the original may continue too
        if let Some(made) = self.made_as_copy(&spec) {
            stream = stream.of_copy(made);
        }
        Ok(Kept {
            principal: Principal {
                operator: spec.operator,
                certifier: spec.certifier,
            },
            seal: spec.seal,
            stream,
            delivered: self.is_delivered(),
        })
    }

    /// Returns the creation time of this folder if it is a copy of the job's.
    fn made_as_copy(&self, spec: &Spec) -> Option<u64> {
        let made = self.made()?;
        spec.made.is_some_and(|then| then != made).then_some(made)
    }

    fn made(&self) -> Option<u64> {
        let made = fs::metadata(&self.path).ok()?.created().ok()?;
        let since = made.duration_since(std::time::UNIX_EPOCH).ok()?;
        u64::try_from(since.as_nanos()).ok()
    }

    /// Returns the job's state with its sort key, if it is a job of `operator`.
    pub fn state_for(&self, job: JobId, operator: &PeerId) -> Option<((u64, u64), JobState)> {
        let spec = self.spec().ok().filter(|s| s.operator == *operator)?;
        let how = self.progress().ok()?.1.then(|| match self.end() {
            Some(Record::Ended(ended)) => ended.how,
            _ => Ending::Lost,
        });
        let state = JobState {
            job,
            at: spec.at,
            how,
            line: spec.line,
        };
        Some(((spec.at, spec.at_ms), state))
    }

    fn spec(&self) -> io::Result<Spec> {
        Ok(serde_json::from_slice(&fs::read(self.file("spec"))?)?)
    }

    /// Opens the stream for appending.
    pub fn stream(&self) -> io::Result<File> {
        OpenOptions::new().append(true).open(self.file("stream"))
    }

    /// Returns the stream's length, and whether it is whole.
    pub fn progress(&self) -> io::Result<(u64, bool)> {
        // in this order: a whole stream does not grow
        let ended = self.file("ended").exists();
        Ok((fs::metadata(self.file("stream"))?.len(), ended))
    }

    /// Returns the last record of a whole stream.
    pub fn end(&self) -> Option<Record> {
        let bytes = fs::read(self.file("ended")).ok()?;
        Record::decode(&bytes).ok()??.1
    }

    /// Notes, for the supervisor, data for finding the job's processes without it.
    pub fn note_traces(&self, leader: Option<Leader>, group: Option<PathBuf>) -> io::Result<()> {
        let traces = NotedTraces { leader, group };
        self.write("traces", &serde_json::to_vec(&traces)?)
    }

    /// Returns the traces of the job's processes, as far as noted; a copy of the folder has none.
    pub fn traces(&self) -> Traces {
        let spec = self.spec().ok();
        let spec = spec.filter(|spec| self.made_as_copy(spec).is_none());
        let Some(spec) = spec else {
            return Traces::default();
        };
        let noted = fs::read(self.file("traces")).ok();
        let noted = noted.and_then(|bytes| serde_json::from_slice::<NotedTraces>(&bytes).ok());
        let noted = noted.unwrap_or_default();
        let name = self.path.file_name().unwrap_or_default();
        let ours = |path: &PathBuf| path.file_name() == Some(&group_name(name));
        let (name, value) = mark(spec.stream);
        Traces {
            mark: Some(format!("{name}={value}").into()),
            group: noted.group.filter(ours),
            leader: noted.leader,
            supervisors: None,
        }
    }

    /// Ends a stream whose supervisor died. Truncates it after the last whole record, which may
    /// already be its end.
    pub fn close_lost(&self) -> io::Result<()> {
        let (whole, last) = whole_records(&self.file("stream"))?;
        let mut file = self.stream()?;
        file.set_len(whole)?;
        let mut bytes = last;
        if bytes.is_empty() {
            let lost = Record::Ended(Ended {
                how: Ending::Lost,
                duration_us: 0,
                user_us: 0,
                system_us: 0,
                memory_kib: 0,
                cut: 0,
            });
            lost.encode(&mut bytes).map_err(io::Error::other)?;
            append_whole(&mut file, &bytes)?;
        }
        self.set_ended(&bytes)
    }

    /// Marks the stream as whole, with `bytes` as its last record.
    pub fn set_ended(&self, bytes: &[u8]) -> io::Result<()> {
        // atomic: readers find the whole record or no file
        librecast::durable::replace(&self.file("ended"), bytes)
    }

    /// Marks the stream as delivered to the operator.
    pub fn set_delivered(&self) -> io::Result<()> {
        self.write("delivered", b"")
    }

    /// Returns whether the operator has the stream.
    #[must_use]
    pub fn is_delivered(&self) -> bool {
        self.file("delivered").exists()
    }

    /// Returns whether the job shall end.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.file("cancel").exists()
    }

    /// Locks the folder for the supervisor's life.
    pub fn lock(&self) -> io::Result<Flock<File>> {
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(self.file("lock"))?;
        let mut lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, e)| e)?;
        lock.set_len(0)?;
        write!(lock, "{}", std::process::id())?;
        Ok(lock)
    }

    /// Returns whether no supervisor lives. A lock that cannot be read counts as held.
    pub fn is_abandoned(&self) -> bool {
        match File::open(self.file("lock")) {
            Ok(file) => Flock::lock(file, FlockArg::LockSharedNonblock).is_ok(),
            Err(e) => e.kind() == io::ErrorKind::NotFound,
        }
    }

    /// Returns the supervisor's process, if it lives and has written its id.
    pub fn supervisor(&self) -> Option<Pid> {
        let file = File::open(self.file("lock")).ok()?;
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Ok(_) => None,
            Err(_) => {
                let text = fs::read_to_string(self.file("lock")).ok()?;
                text.parse().ok().map(Pid::from_raw)
            }
        }
    }

    /// Makes the supervisor end the job.
    pub fn cancel(&self) -> io::Result<()> {
        self.write("cancel", b"")?;
        if let Some(pid) = self.supervisor() {
            // it may have ended just now
            let _ = kill(pid, Signal::SIGTERM);
        }
        Ok(())
    }

    pub fn remove(&self) -> io::Result<()> {
        fs::remove_dir_all(&self.path)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(self.file(name))?;
        file.write_all(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(record: &Record) -> Vec<u8> {
        let mut bytes = Vec::new();
        record.encode(&mut bytes).unwrap();
        bytes
    }

    /// Makes a job's folder with this stream, whose supervisor is gone.
    fn lost(stream: &[u8]) -> (tempfile::TempDir, JobDir) {
        let dir = tempfile::tempdir().unwrap();
        let job = JobDir::at(dir.path().to_owned());
        job.write("stream", stream).unwrap();
        (dir, job)
    }

    #[test]
    fn what_a_lost_supervisor_wrote_by_halves_does_not_swallow_the_end() {
        let said = record(&Record::Stdout(vec![7; 300]));
        let begun = record(&Record::Stdout(vec![8; 300]));
        for cut in [0, 1, 2, 3, 4, 200, begun.len() - 1] {
            let (_dir, job) = lost(&[&said, &begun[..cut]].concat());
            job.close_lost().unwrap();
            let stream = fs::read(job.file("stream")).unwrap();
            let end = stream.strip_prefix(said.as_slice()).unwrap();
            let Ok(Some((length, Some(Record::Ended(ended))))) = Record::decode(end) else {
                panic!("no end behind {cut} bytes");
            };
            assert_eq!((length, ended.how), (end.len(), Ending::Lost));
            assert_eq!(job.end(), Some(Record::Ended(ended)));
            assert_eq!(job.progress().unwrap(), (stream.len() as u64, true));
        }
    }

    #[test]
    fn a_copy_of_a_jobs_folder_goes_on_with_another_stream_and_has_no_processes() {
        let dir = tempfile::tempdir().unwrap();
        let (original, copy) = (dir.path().join("a"), dir.path().join("b"));
        let start = Start {
            job: JobId([1; 8]),
            principal: Principal {
                operator: librecast::id::SecretKey::from_seed(&[1; 32]).peer_id(),
                certifier: None,
            },
            name: None,
            run: crate::request::tests::run(&["true"]),
            permit: Permit {
                user: None,
                time: Duration::from_secs(1),
                output: 1,
                memory: None,
            },
            preamble: Vec::new(),
            stream: StreamId([7; 8]),
            seal: None,
        };
        let job = JobDir::at(original.clone());
        job.create(&start, start.run.clone(), None).unwrap();
        assert_eq!(job.kept().unwrap().stream, start.stream);
        assert!(job.traces().mark.is_some());
        let Some(made) = job.made() else {
            return; // this file system keeps no creation times
        };
        fs::create_dir(&copy).unwrap();
        for file in ["spec", "request", "stream"] {
            fs::copy(original.join(file), copy.join(file)).unwrap();
        }
        let copied = JobDir::at(copy);
        assert_ne!(copied.made(), Some(made));
        let kept = copied.kept().unwrap();
        assert_ne!(kept.stream, start.stream);
        assert_eq!(
            copied.kept().unwrap().stream,
            kept.stream,
            "whenever it is asked"
        );
        assert!(copied.traces().mark.is_none());
    }

    #[test]
    fn an_end_that_was_written_stays_what_it_is() {
        let ended = Record::Ended(Ended {
            how: Ending::Exited(3),
            duration_us: 1,
            user_us: 1,
            system_us: 1,
            memory_kib: 1,
            cut: 0,
        });
        let stream = [record(&Record::Stdout(vec![7; 3])), record(&ended)].concat();
        let (_dir, job) = lost(&stream);
        job.close_lost().unwrap();
        assert_eq!(fs::read(job.file("stream")).unwrap(), stream);
        assert_eq!(job.end(), Some(ended));
    }

    #[test]
    fn a_supervisor_that_has_not_said_who_it_is_lives() {
        let (_dir, job) = lost(b"");
        assert!(job.is_abandoned());
        let lock = job.lock().unwrap();
        assert!(!job.is_abandoned() && job.supervisor().is_some());
        lock.set_len(0).unwrap();
        assert!(!job.is_abandoned() && job.supervisor().is_none());
        drop(lock);
        assert!(job.is_abandoned());
    }

    #[test]
    fn a_record_that_finds_no_room_leaves_nothing_of_itself() {
        let mut full = OpenOptions::new().append(true).open("/dev/full").unwrap();
        assert!(append_whole(&mut full, b"x").is_err());
        let (_dir, job) = lost(b"");
        append_whole(&mut job.stream().unwrap(), b"x").unwrap();
        assert_eq!(job.progress().unwrap().0, 1);
    }
}
