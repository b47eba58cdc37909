//! What an agent does with what it hears: believes or refuses commands, starts jobs, answers, and hands open
//! commands on to agents that come up. No sockets, files, clocks or processes of its own.
//!
//! ```text
//! datagram -> believed? -> for this node? -> allowed? -> Output::Start -> a stream grows -> delivered
//!               |             |                |
//!             a counter    silence,         refused, and the
//!                          unless asked     operator is told
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use librecast::id::{PeerId, SecretKey};
use librecast::random::Random;
use librecast::wire::{Reader, WireError};

use super::delivery::Delivery;
use super::policy::{self, Allow, Permit};
use super::revoked::{Revocation, Revocations, Told};
use crate::acknowledgement::{Acknowledgement, short_id};
use crate::answer::{MAX_STREAM, seal, seal_sealed};
use crate::certificate::Certificate;
use crate::datagram::{JobId, Kind, hello};
use crate::envelope::{self, Opened, Standing};
use crate::part::{self, Collection};
use crate::record::{NodeInfo, Record};
use crate::replay::{ReplayWindow, Times};
use crate::request::{Request, Run, What};
use crate::sealed::{self, AnswerKey};
use crate::selector::Node;

/// Jobs that run at the same time.
pub const MAX_RUNNING: usize = 64;
/// Answers that are kept, delivered or not.
pub const MAX_ANSWERS: usize = 512;
/// Payloads that are coming in.
const MAX_COLLECTING: usize = 16;
/// Commands kept for agents that come up, and how large they may be together.
const MAX_OPEN: usize = 64;
const MAX_OPEN_BYTES: usize = 256 * 1024;
/// A delivered answer is kept so long, in case the operator asks again; one that nobody has fetched for longer.
const KEEP: Duration = Duration::from_secs(3600);
const KEEP_UNDELIVERED: Duration = Duration::from_secs(7 * 24 * 3600);
/// How often parts that are missing are asked for.
const ASK: Duration = Duration::from_millis(150);
const MAX_ASK: Duration = Duration::from_secs(4);
/// An open command is repeated at most so often by one agent.
const REPEAT: Duration = Duration::from_secs(2);
/// When an agent that has come up says hello.
const HELLOS: [u64; 4] = [50, 800, 4_000, 20_000];
/// A clock this far ahead is worth a warning.
const CLOCK_S: u64 = 60;

/// Who this node is, and who may do what on it.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// How it names itself.
    pub node: NodeInfo,
    /// Who may do what.
    pub policy: Vec<Allow>,
}

/// Where streams are kept.
pub trait Store {
    /// Up to `length` bytes of a job's stream from `offset`.
    fn read(&mut self, job: JobId, offset: u32, length: u32) -> io::Result<Vec<u8>>;
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send this to the channel, on interface `via` (0: on all).
    Channel {
        /// Interface.
        via: u32,
        /// What.
        datagram: Vec<u8>,
    },
    /// Send this to an operator's answers, on interface `via` (0: on all).
    Answers {
        /// Whose.
        operator: PeerId,
        /// Interface.
        via: u32,
        /// What.
        datagram: Vec<u8>,
    },
    /// Write the replay window to disk. Comes before anything that follows from a command.
    Remember,
    /// Write the revocations to disk.
    RememberRevoked,
    /// Start a job; tell of it by [`Agent::handle_stream`] or [`Agent::handle_refused`].
    Start(Box<Start>),
    /// End a job.
    Cancel(JobId),
    /// Give the node's facts to [`Agent::handle_answer`].
    Facts(JobId),
    /// Give the operator's jobs to [`Agent::handle_answer`].
    Jobs {
        /// Who asks.
        operator: PeerId,
        /// By this command.
        job: JobId,
    },
    /// A job's stream has been delivered.
    Delivered(JobId),
    /// Nobody needs this job's stream any more.
    Forget(JobId),
    /// For the audit log: a command that starts no job.
    Audit {
        /// Whose.
        operator: PeerId,
        /// Which.
        job: JobId,
        /// What was asked for.
        what: String,
        /// What came of it.
        verdict: String,
    },
}

/// A job that may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Its name.
    pub job: JobId,
    /// Whose it is.
    pub operator: PeerId,
    /// What to run.
    pub run: Run,
    /// As whom and how long.
    pub permit: Permit,
    /// What its stream begins with.
    pub preamble: Vec<u8>,
    /// What it is answered under, if nobody else may read it.
    pub seal: Option<AnswerKey>,
}

/// An agent.
#[derive(Debug)]
pub struct Agent {
    key: SecretKey,
    settings: Settings,
    replay: ReplayWindow,
    revoked: Revocations,
    random: Random,
    jobs: BTreeMap<JobId, Job>,
    /// Jobs in the order in which they came, for eviction.
    ages: VecDeque<JobId>,
    collecting: BTreeMap<JobId, Collecting>,
    open: BTreeMap<JobId, Open>,
    outputs: VecDeque<Output>,
    hellos: usize,
    started: Instant,
    counters: BTreeMap<&'static str, u64>,
    received: u64,
    begun: u64,
    /// Where to go on looking for something to send: every answer gets its turn.
    turn: JobId,
}

#[derive(Debug)]
struct Job {
    operator: PeerId,
    via: u32,
    content: Content,
    delivery: Delivery,
    running: bool,
    /// What it is answered under, if nobody else may read it.
    seal: Option<AnswerKey>,
    /// Its operator's key was revoked: it ends, and nobody is told how.
    denied: bool,
    /// From when on nobody asks for it any more.
    forget_at: Option<Instant>,
}

#[derive(Debug)]
enum Content {
    /// Small ones are kept here.
    Here(Vec<u8>),
    /// In the store, under this name.
    Stored(JobId),
}

#[derive(Debug)]
struct Collecting {
    opened: Opened,
    collection: Collection,
    envelope: Vec<u8>,
    parts: Vec<Vec<u8>>,
    via: u32,
    ask_at: Instant,
    pause: Duration,
}

/// A command that is still good for agents that come up.
#[derive(Debug)]
struct Open {
    operator: PeerId,
    not_after: u64,
    envelope: Vec<u8>,
    parts: Vec<Vec<u8>>,
    heard: Instant,
    repeat_at: Option<(Instant, u32)>,
}

impl Open {
    fn told(told: &Told, now: Instant) -> Self {
        Self {
            operator: told.by,
            not_after: told.not_after,
            envelope: told.envelope.clone(),
            parts: Vec::new(),
            heard: now,
            repeat_at: None,
        }
    }

    fn size(&self) -> usize {
        self.envelope.len() + self.parts.iter().map(Vec::len).sum::<usize>()
    }
}

impl Agent {
    /// An agent that comes up. `seed` is for jitter only.
    #[must_use]
    pub fn new(
        key: SecretKey,
        settings: Settings,
        (replay, revoked): (ReplayWindow, Revocations),
        seed: u64,
        now: Instant,
    ) -> Self {
        let mut open = BTreeMap::new();
        for told in revoked.iter().map(|r| &r.told) {
            // those that have expired go with the first timeout
            if let Some(id) = envelope::peek(&told.envelope) {
                open.insert(id, Open::told(told, now));
            }
        }
        Self {
            key,
            settings,
            replay,
            revoked,
            random: Random::new(seed),
            jobs: BTreeMap::new(),
            ages: VecDeque::new(),
            collecting: BTreeMap::new(),
            open,
            outputs: VecDeque::new(),
            hellos: 0,
            started: now,
            counters: BTreeMap::new(),
            received: 0,
            begun: 0,
            turn: JobId([0; 8]),
        }
    }

    /// Another configuration; jobs go on.
    pub fn configure(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// The commands seen, as they are to be kept on disk.
    #[must_use]
    pub fn replay(&self) -> &ReplayWindow {
        &self.replay
    }

    /// The keys that are not obeyed, as they are to be kept on disk.
    #[must_use]
    pub fn revoked(&self) -> &Revocations {
        &self.revoked
    }

    /// What was refused or dropped, and how often.
    #[must_use]
    pub fn counters(&self) -> &BTreeMap<&'static str, u64> {
        &self.counters
    }

    /// Commands for this node that were read, obeyed or not.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Jobs that were begun.
    #[must_use]
    pub fn begun(&self) -> u64 {
        self.begun
    }

    /// Jobs that are known, running or not.
    #[must_use]
    pub fn known_jobs(&self) -> usize {
        let stored = |job: &&Job| matches!(job.content, Content::Stored(_));
        self.jobs.values().filter(stored).count()
    }

    /// How many jobs run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.jobs.values().filter(|j| j.running).count()
    }

    /// A job of an earlier run of this agent, whose stream is in the store.
    pub fn restore(
        &mut self,
        job: JobId,
        (operator, seal): (PeerId, Option<AnswerKey>),
        delivered: bool,
        now: Instant,
    ) {
        let mut delivery = Delivery::new(now, 16);
        if delivered {
            delivery = Delivery::resting(now);
        }
        self.insert(
            job,
            Job {
                operator,
                via: 0,
                content: Content::Stored(job),
                delivery,
                running: true,
                seal,
                denied: false,
                forget_at: delivered.then_some(now + KEEP),
            },
        );
        if self.revoked.hold(&operator, None) {
            self.deny(job, now);
        }
    }

    /// A datagram that came to the channel, by interface `via`. `clock`: Unix seconds.
    pub fn handle_datagram(&mut self, datagram: &[u8], via: u32, now: Instant, clock: u64) {
        let handled = Kind::read(datagram).and_then(|(kind, r)| match kind {
            Kind::Command | Kind::Announced | Kind::CertifiedCommand | Kind::CertifiedAnnounced => {
                self.handle_command(datagram, via, now, clock);
                Ok(())
            }
            Kind::Part => self.handle_part(datagram, r, now, clock),
            Kind::Acknowledgement => self.handle_acknowledgement(datagram, r, via, now),
            Kind::Hello => {
                self.handle_hello(via, now);
                Ok(())
            }
            Kind::Answer | Kind::SealedAnswer | Kind::Missing => Err(WireError::Bad("kind")),
        });
        if handled.is_err() {
            self.count("malformed");
        }
    }

    /// A job's stream in the store has grown to `length` bytes; `ended`: nothing more comes.
    pub fn handle_stream(&mut self, job: JobId, length: u64, ended: bool, now: Instant) {
        if ended && self.jobs.get(&job).is_some_and(|j| j.denied) {
            self.forget(job);
            return;
        }
        if let Some(job) = self.jobs.get_mut(&job) {
            let length = u32::try_from(length).unwrap_or(MAX_STREAM).min(MAX_STREAM);
            job.delivery.grow(length, ended, now);
            job.running &= !ended;
            if ended {
                job.forget_at.get_or_insert(now + KEEP_UNDELIVERED);
            }
        }
    }

    /// A job that was to start does not, and why.
    pub fn handle_refused(&mut self, job: JobId, why: &str, now: Instant) {
        self.count("not_started");
        self.finish(job, &[Record::Refused(why.to_owned())], now);
    }

    /// What was asked for: the last record ends the answer.
    pub fn handle_answer(&mut self, job: JobId, records: &[Record], now: Instant) {
        self.finish(job, records, now);
    }

    /// Time has come: see [`poll_timeout`](Self::poll_timeout).
    pub fn handle_timeout(&mut self, now: Instant, clock: u64) {
        while self.hello_at().is_some_and(|at| at <= now) {
            self.hellos += 1;
            let datagram = hello(&self.key.peer_id());
            self.outputs.push_back(Output::Channel { via: 0, datagram });
        }
        self.open.retain(|_, open| open.not_after >= clock);
        self.repeat_open(now);
        self.ask_for_parts(now, clock);
        let outdated = |job: &Job| job.forget_at.is_some_and(|at| at <= now);
        let gone: Vec<JobId> = self
            .jobs
            .iter()
            .filter(|(_, job)| outdated(job))
            .map(|(id, _)| *id)
            .collect();
        for job in gone {
            self.forget(job);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) or [`poll_output`](Self::poll_output) has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let jobs = self
            .jobs
            .values()
            .flat_map(|job| [job.delivery.due(), job.forget_at])
            .flatten();
        let collecting = self.collecting.values().map(|c| c.ask_at);
        let open = self
            .open
            .values()
            .filter_map(|o| o.repeat_at.map(|(at, _)| at));
        jobs.chain(collecting)
            .chain(open)
            .chain(self.hello_at())
            .min()
    }

    /// The next thing to do, until there is none.
    pub fn poll_output(&mut self, store: &mut dyn Store, now: Instant) -> Option<Output> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        let behind = (
            std::ops::Bound::Excluded(self.turn),
            std::ops::Bound::Unbounded,
        );
        let due = |(_, job): &(&JobId, &Job)| job.delivery.due().is_some_and(|at| at <= now);
        let next = self.jobs.range(behind).find(due);
        let id = *next.or_else(|| self.jobs.iter().find(due))?.0;
        self.turn = id;
        self.send_piece(id, store, now)
            .or_else(|| self.outputs.pop_front())
    }

    fn send_piece(&mut self, id: JobId, store: &mut dyn Store, now: Instant) -> Option<Output> {
        let job = self.jobs.get_mut(&id)?;
        let piece = job.delivery.poll(now, &mut self.random)?;
        let content = match &job.content {
            Content::Here(bytes) => bytes
                .get(piece.offset as usize..(piece.offset + piece.length) as usize)
                .map(<[u8]>::to_vec),
            Content::Stored(name) => store.read(*name, piece.offset, piece.length).ok(),
        };
        let Some(content) = content.filter(|c| c.len() == piece.length as usize) else {
            // the disk does not give back what it was given: nothing to tell the operator
            self.count("unreadable");
            self.forget(id);
            return None;
        };
        Some(Output::Answers {
            operator: job.operator,
            via: job.via,
            datagram: match &job.seal {
                Some(key) => {
                    let sealed = key.seal(id, piece.offset, &content);
                    seal_sealed(&self.key, id, piece.offset, &sealed)
                }
                None => seal(&self.key, id, piece.offset, &content),
            },
        })
    }

    fn handle_command(&mut self, datagram: &[u8], via: u32, now: Instant, clock: u64) {
        if let Some(id) = envelope::peek(datagram)
            && self.is_repeat(id, datagram, now)
        {
            return;
        }
        let standing = |key: &PeerId, certificate: Option<&Certificate>| {
            if self.revoked.hold(key, certificate) {
                Standing::Revoked
            } else if self.knows(key) || certificate.is_some_and(|c| self.knows(&c.certifier)) {
                Standing::Known
            } else {
                Standing::Unknown
            }
        };
        match envelope::open(datagram, clock, standing, &self.replay) {
            Err(refusal) => {
                tracing::debug!("{refusal}");
                self.count(refusal.name());
            }
            Ok(opened) => match opened.awaited {
                None => {
                    let datagrams = (datagram.to_vec(), Vec::new());
                    self.accept(&opened, via, datagrams, now, clock);
                }
                Some(awaited) => {
                    if self.collecting.len() >= MAX_COLLECTING {
                        self.count("too_many_payloads");
                        return;
                    }
                    let id = opened.command.job(&opened.operator);
                    let collecting = Collecting {
                        opened,
                        collection: Collection::new(awaited),
                        envelope: datagram.to_vec(),
                        parts: Vec::new(),
                        via,
                        ask_at: now + ASK,
                        pause: ASK,
                    };
                    self.collecting.insert(id, collecting);
                }
            },
        }
    }

    fn knows(&self, key: &PeerId) -> bool {
        policy::knows(&self.settings.policy, key, &self.settings.node.labels)
    }

    /// Whether the command is under way here already; then nobody needs to hear it from this agent soon.
    fn is_repeat(&mut self, id: JobId, datagram: &[u8], now: Instant) -> bool {
        if let Some(open) = self.open.get_mut(&id)
            && open.envelope == datagram
        {
            open.heard = now;
            open.repeat_at = None;
        }
        self.jobs.contains_key(&id) || self.collecting.contains_key(&id)
    }

    fn handle_part(
        &mut self,
        datagram: &[u8],
        r: Reader<'_>,
        now: Instant,
        clock: u64,
    ) -> Result<(), WireError> {
        let id = part::job_of(r)?;
        let Some(collecting) = self.collecting.get_mut(&id) else {
            return Ok(());
        };
        if collecting
            .collection
            .take(datagram, &collecting.opened.operator)?
        {
            collecting.parts.push(datagram.to_vec());
            // more is on its way
            collecting.ask_at = now + ASK;
            collecting.pause = ASK;
        }
        match collecting.collection.whole() {
            None => Ok(()),
            Some(whole) => {
                let Some(mut collecting) = self.collecting.remove(&id) else {
                    return Ok(());
                };
                collecting.opened.command.payload = whole?;
                let Collecting {
                    opened,
                    envelope,
                    parts,
                    via,
                    ..
                } = collecting;
                self.accept(&opened, via, (envelope, parts), now, clock);
                Ok(())
            }
        }
    }

    /// A command that is believed, with its payload.
    fn accept(
        &mut self,
        opened: &Opened,
        via: u32,
        (envelope, parts): (Vec<u8>, Vec<Vec<u8>>),
        now: Instant,
        clock: u64,
    ) {
        let (operator, command) = (opened.operator, &opened.command);
        let times = Times {
            not_after: command.not_after,
            now: clock,
        };
        let accepted = self
            .replay
            .accept(&operator, command.sequence, &command.nonce, times);
        if let Err(e) = accepted {
            self.count(envelope::Refusal::from(e).name());
            return;
        }
        self.outputs.push_back(Output::Remember);
        let id = command.job(&operator);
        let told = Told {
            by: operator,
            not_after: command.not_after,
            envelope,
        };
        self.keep_open(id, &told, parts, now);
        let me = self.key.peer_id().to_string();
        let node = Node {
            name: &self.settings.node.name,
            id: &me,
            labels: &self.settings.node.labels,
        };
        let (request, seal, mine) = self.read_request(&operator, &command.payload);
        let short = short_id(&self.key.peer_id());
        let others = request
            .as_ref()
            .is_ok_and(|r| !r.only.is_empty() && !r.only.contains(&short));
        if !mine || others || !command.selector.selects(&node) {
            let mut job = self.job(operator, via, Delivery::resting(now));
            // nobody asks after the command's time; a day is more than most have
            job.forget_at = Some(now + KEEP);
            self.insert(id, job);
            self.finish(id, &[Record::NotSelected], now);
            return;
        }
        self.received += 1;
        let spread = request.as_ref().map_or(0, |r| r.spread_ms);
        let window = request.as_ref().map_or(1, |r| r.window);
        let wait = self
            .random
            .between(Duration::ZERO, Duration::from_millis(spread.into()));
        let mut job = self.job(operator, via, Delivery::new(now + wait, window));
        job.seal = seal;
        self.insert(id, job);
        self.warn_of_clock(id, opened.ahead_s);
        match request {
            Ok(Request {
                what: What::Revoke(key),
                ..
            }) => self.revoke(id, key, told, now),
            Ok(request) => self.obey(id, opened, request.what, now),
            Err(e) => {
                let why = format!("request not understood: {e}");
                self.refuse(id, operator, "?".to_owned(), ("not_understood", &why), now);
            }
        }
    }

    /// The request in a payload, what to seal the answer under, and whether it is for this node at all.
    fn read_request(
        &self,
        operator: &PeerId,
        payload: &[u8],
    ) -> (Result<Request, WireError>, Option<AnswerKey>, bool) {
        if !sealed::is_sealed(payload) {
            return (Request::decode(payload), None, true);
        }
        match sealed::open_request(payload, operator, &self.key) {
            Ok(Some((request, seal))) => (Request::decode(&request), Some(seal), true),
            Ok(None) => (Err(WireError::Bad("sealed for others")), None, false),
            Err(e) => (Err(e), None, true),
        }
    }

    fn obey(&mut self, id: JobId, opened: &Opened, what: What, now: Instant) {
        let operator = opened.operator;
        match what {
            // has its own way
            What::Revoke(_) => {}
            What::Facts => self.outputs.push_back(Output::Facts(id)),
            What::Jobs => self.outputs.push_back(Output::Jobs { operator, job: id }),
            What::Run(run) => self.run(id, opened, run, now),
            What::Cancel(target) => {
                let line = format!("cancel {target}");
                let runs = |job: &Job| job.operator == operator && job.running;
                if !self.jobs.get(&target).is_some_and(runs) {
                    self.refuse(
                        id,
                        operator,
                        line,
                        ("no_such_job", "no such job runs here"),
                        now,
                    );
                    return;
                }
                self.audit(id, operator, line, "done");
                self.outputs.push_back(Output::Cancel(target));
                self.finish(id, &[Record::Done], now);
            }
            What::Result(target) => {
                let line = format!("result {target}");
                let theirs = self.jobs.get(&target).filter(|j| j.operator == operator);
                let open = |id| self.jobs.get(id).is_some_and(|j: &Job| j.seal.is_none());
                if open(&id) && theirs.is_some_and(|job| job.seal.is_some()) {
                    let why = "that job is sealed: ask with --encrypt";
                    self.refuse(id, operator, line, ("sealed", why), now);
                    return;
                }
                match theirs.map(|job| (&job.content, job.delivery.final_length())) {
                    Some((Content::Stored(name), Some(length))) => {
                        let stored = Content::Stored(*name);
                        if let Some(job) = self.jobs.get_mut(&id) {
                            job.content = stored;
                            job.delivery.grow(length, true, now);
                        }
                    }
                    Some((Content::Stored(_), None)) => {
                        self.refuse(id, operator, line, ("still_runs", "it still runs"), now);
                    }
                    _ => {
                        let why = "no such job is known here";
                        self.refuse(id, operator, line, ("no_such_job", why), now);
                    }
                }
            }
        }
    }

    /// A key is not obeyed any more, from now on.
    fn revoke(&mut self, id: JobId, key: PeerId, told: Told, now: Instant) {
        let operator = told.by;
        let line = format!("revoke {key}");
        let (policy, labels) = (&self.settings.policy, &self.settings.node.labels);
        let certifier = if key == operator || policy::may_revoke(policy, &operator, labels, &key) {
            None
        } else if self.knows(&operator) && !self.knows(&key) {
            Some(operator)
        } else {
            let why = "the node's policy does not let this key revoke that one";
            self.refuse(id, operator, line, ("policy", why), now);
            return;
        };
        // kept whatever else is kept
        let open = Open::told(&told, now);
        self.open.entry(id).or_insert(open);
        let revocation = Revocation {
            key,
            certifier,
            told,
        };
        if !self.revoked.add(revocation) {
            self.open.remove(&id);
            let why = "too many keys are revoked here already";
            self.refuse(id, operator, line, ("too_many_revoked", why), now);
            return;
        }
        self.outputs.push_back(Output::RememberRevoked);
        self.audit(id, operator, line, "done");
        self.open.retain(|o, open| open.operator != key || *o == id);
        self.collecting.retain(|_, c| c.opened.operator != key);
        let theirs = |(other, job): &(&JobId, &Job)| job.operator == key && **other != id;
        let jobs: Vec<JobId> = self.jobs.iter().filter(theirs).map(|(j, _)| *j).collect();
        for job in jobs {
            self.deny(job, now);
        }
        self.finish(id, &[Record::Done], now);
    }

    /// Ends a job of a revoked key; nobody gets its answer.
    fn deny(&mut self, id: JobId, now: Instant) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        if job.running {
            job.denied = true;
            job.delivery = Delivery::resting(now);
            self.outputs.push_back(Output::Cancel(id));
        } else {
            self.forget(id);
        }
    }

    fn run(&mut self, id: JobId, opened: &Opened, run: Run, now: Instant) {
        let line = run.line();
        let operator = opened.operator;
        let certificate = opened.certificate.as_ref();
        let (policy, labels) = (&self.settings.policy, &self.settings.node.labels);
        let permit = match policy::decide(policy, &operator, certificate, labels, &run) {
            Ok(permit) => permit,
            Err(denied) => {
                let why = denied.to_string();
                self.refuse(id, operator, line, ("policy", &why), now);
                return;
            }
        };
        if self.running() >= MAX_RUNNING {
            let why = format!("{MAX_RUNNING} jobs run here already");
            self.refuse(id, operator, line, ("too_many_jobs", &why), now);
            return;
        }
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let Content::Here(preamble) = &mut job.content else {
            return;
        };
        let preamble = std::mem::take(preamble);
        let seal = job.seal.clone();
        job.content = Content::Stored(id);
        job.running = true;
        self.begun += 1;
        self.outputs.push_back(Output::Start(Box::new(Start {
            job: id,
            operator,
            run,
            permit,
            preamble,
            seal,
        })));
    }

    /// Tells the operator why not; the first word of `why` is the name of its counter.
    fn refuse(
        &mut self,
        id: JobId,
        operator: PeerId,
        what: String,
        (name, why): (&'static str, &str),
        now: Instant,
    ) {
        self.count(name);
        self.audit(id, operator, what, &format!("refused: {why}"));
        self.finish(id, &[Record::Refused(why.to_owned())], now);
    }

    fn audit(&mut self, job: JobId, operator: PeerId, what: String, verdict: &str) {
        self.outputs.push_back(Output::Audit {
            operator,
            job,
            what,
            verdict: verdict.to_owned(),
        });
    }

    /// Ends an answer that is kept here with its last records.
    fn finish(&mut self, id: JobId, records: &[Record], now: Instant) {
        let preamble = self.preamble();
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        if let Content::Stored(_) = job.content {
            job.content = Content::Here(preamble);
        }
        job.running = false;
        let Content::Here(bytes) = &mut job.content else {
            return;
        };
        let encoded: Result<(), WireError> = records.iter().try_for_each(|r| r.encode(bytes));
        if encoded.is_err() {
            // facts of 64 KiB: no node has them
            let _ = Record::Refused("the answer is too long".into()).encode(bytes);
        }
        // some KiB
        job.delivery.grow(bytes.len() as u32, true, now);
    }

    fn warn_of_clock(&mut self, id: JobId, ahead_s: u64) {
        if ahead_s < CLOCK_S {
            return;
        }
        let warning = Record::Warning(format!(
            "the operator's clock is {ahead_s} s ahead of the node's"
        ));
        if let Some(Job {
            content: Content::Here(bytes),
            ..
        }) = self.jobs.get_mut(&id)
        {
            // a short text always fits
            let _ = warning.encode(bytes);
        }
    }

    fn handle_acknowledgement(
        &mut self,
        datagram: &[u8],
        r: Reader<'_>,
        via: u32,
        now: Instant,
    ) -> Result<(), WireError> {
        let id = JobId(r.clone().array()?);
        if self.jobs.get(&id).is_none_or(|job| job.denied) {
            return Ok(());
        }
        let jobs = &self.jobs;
        let acknowledgement =
            Acknowledgement::open(datagram, r, |id| jobs.get(&id).map(|job| job.operator))?;
        let me = self.key.peer_id();
        let Some(job) = self.jobs.get_mut(&id) else {
            return Ok(());
        };
        job.via = via;
        let (counter, window) = (acknowledgement.counter, acknowledgement.window);
        let named = acknowledgement
            .nodes
            .iter()
            .find(|p| p.node == short_id(&me));
        let delivered = if let Some(progress) = named {
            job.delivery.progress(progress, counter, window, now)
        } else if acknowledgement.says_whole(&me) {
            job.delivery.whole(counter)
        } else {
            false
        };
        if delivered {
            job.forget_at = Some(now + KEEP);
            self.outputs.push_back(Output::Delivered(id));
        }
        Ok(())
    }

    fn handle_hello(&mut self, via: u32, now: Instant) {
        for open in self.open.values_mut() {
            let quiet = now.saturating_duration_since(open.heard) >= REPEAT;
            if quiet && open.repeat_at.is_none() {
                let wait = self
                    .random
                    .between(Duration::from_millis(20), Duration::from_secs(1));
                open.repeat_at = Some((now + wait, via));
            }
        }
    }

    fn repeat_open(&mut self, now: Instant) {
        for open in self.open.values_mut() {
            if let Some((at, via)) = open.repeat_at
                && at <= now
            {
                open.repeat_at = None;
                open.heard = now;
                let datagrams = std::iter::once(&open.envelope).chain(&open.parts);
                self.outputs
                    .extend(datagrams.map(|datagram| Output::Channel {
                        via,
                        datagram: datagram.clone(),
                    }));
            }
        }
    }

    fn ask_for_parts(&mut self, now: Instant, clock: u64) {
        self.collecting
            .retain(|_, c| c.opened.command.not_after >= clock);
        for (id, c) in &mut self.collecting {
            if c.ask_at > now {
                continue;
            }
            c.pause = (c.pause * 2).min(MAX_ASK);
            c.ask_at = now + self.random.between(c.pause / 2, c.pause);
            self.outputs.push_back(Output::Answers {
                operator: c.opened.operator,
                via: c.via,
                datagram: part::ask(*id, &c.collection.missing()),
            });
        }
    }

    fn keep_open(&mut self, id: JobId, told: &Told, parts: Vec<Vec<u8>>, now: Instant) {
        let open = Open {
            parts,
            ..Open::told(told, now)
        };
        let bytes: usize = self.open.values().map(Open::size).sum();
        if self.open.len() < MAX_OPEN && bytes + open.size() <= MAX_OPEN_BYTES {
            self.open.insert(id, open);
        } else {
            self.count("not_kept_open");
        }
    }

    fn job(&self, operator: PeerId, via: u32, delivery: Delivery) -> Job {
        Job {
            operator,
            via,
            content: Content::Here(self.preamble()),
            delivery,
            running: false,
            seal: None,
            denied: false,
            forget_at: None,
        }
    }

    /// What every answer begins with.
    fn preamble(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // the configuration was checked: names and labels are short
        let _ = Record::Node(self.settings.node.clone()).encode(&mut bytes);
        bytes
    }

    /// Keeps an answer. When there are too many the oldest goes that does not run; a delivered one first.
    fn insert(&mut self, id: JobId, job: Job) {
        if self.jobs.len() >= MAX_ANSWERS {
            let ages = self.ages.iter().copied();
            let candidates: Vec<JobId> = ages.filter(|j| !self.jobs[j].running).collect();
            let small = |j: &&JobId| matches!(self.jobs[*j].content, Content::Here(_));
            let delivered = candidates
                .iter()
                .find(|j| small(j) || self.jobs[*j].delivery.is_delivered());
            if let Some(victim) = delivered.or(candidates.first()).copied() {
                self.count("answers_evicted");
                self.forget(victim);
            }
        }
        self.jobs.insert(id, job);
        self.ages.push_back(id);
    }

    fn forget(&mut self, id: JobId) {
        if let Some(job) = self.jobs.remove(&id) {
            self.ages.retain(|j| *j != id);
            if matches!(job.content, Content::Stored(name) if name == id) {
                self.outputs.push_back(Output::Forget(id));
            }
        }
    }

    fn hello_at(&self) -> Option<Instant> {
        let after = HELLOS.get(self.hellos)?;
        Some(self.started + Duration::from_millis(*after))
    }

    fn count(&mut self, name: &'static str) {
        *self.counters.entry(name).or_default() += 1;
    }
}
