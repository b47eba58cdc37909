//! The agent's state machine: verifies commands, starts jobs, answers, and repeats open commands to
//! agents that start later. No sockets, files, clocks or processes of its own.
//!
//! ```text
//! datagram -> verified? -> for this node? -> allowed? -> Output::Start -> stream grows -> answered
//!               |             |                |
//!             a counter     silence,         refused, with
//!                         unless asked     an answer
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use librecast::bucket::{Rate, TokenBucket};
use librecast::id::{PeerId, SecretKey};
use librecast::random::Random;
use librecast::time::UnixTime;
use librecast::wire::{Reader, WireError};

use super::budget::Budget;
use super::delivery::Delivery;
use super::jobs::{Content, Job, Jobs};
use super::open_commands::{Open, OpenCommands};
use super::output::{Kept, Output, Start};
use super::payloads::{Collecting, MAX_COLLECTING, MAX_COLLECTING_OF_ONE, Payloads};
use super::policy::{self, Allow};
use super::reasons::{Dropped, NotExecuted, Reason, Refused};
use super::revoked::{Principal, Revocation, Revocations, RevokingCommand};
use crate::acknowledgement::{Acknowledgement, short_id};
use crate::answer::{MAX_STREAM, seal, seal_sealed};
use crate::certificate::Certificate;
use crate::datagram::{FORGED, JobId, Kind, MAX_AHEAD_S, MAX_BEHIND_S, StreamId, hello};
use crate::envelope::{self, Opened, Refusal, Skew, Standing, Unverified};
use crate::part::{self, Collection};
use crate::record::{NodeInfo, Record};
use crate::replay::{Name, ReplayError, ReplayWindow, Times};
use crate::request::{Request, Run, What};
use crate::sealed::{self, AnswerKey};
use crate::selector::{Node, Selector};
use crate::shared_key::SharedKey;

/// Jobs that run at the same time.
pub const MAX_RUNNING: usize = 128;
/// Jobs of one listed key among them.
const MAX_RUNNING_OF_ONE: usize = 64;
/// Time for which a delivered answer is kept, in case the operator asks again.
const KEEP: Duration = Duration::from_secs(3600);
/// Time for which an undelivered answer is kept.
const KEEP_UNDELIVERED: Duration = Duration::from_secs(7 * 24 * 3600);
/// Times of hellos after the agent's start, in milliseconds.
const HELLOS: [u64; 4] = [50, 800, 4_000, 20_000];
/// Clock difference, in seconds, from which a warning is sent.
const CLOCK_S: u64 = 60;
/// Answers to operators with unknown keys; as many go to known operators with refused commands.
/// Chosen: 4 at once, then one each 10 s.
const NOTICES: Rate = Rate::every(Duration::from_secs(10), 4);
/// Reported addresses of other agents with this agent's key.
const MAX_TOLD: usize = 8;

/// This node's names, and its policy.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The node's name and labels.
    pub node: NodeInfo,
    /// The rights of each listed key.
    pub policy: Vec<Allow>,
}

/// The arrival of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ingress {
    /// Index of the interface.
    pub via: u32,
    /// The datagram's source address.
    pub source: Ipv6Addr,
}

/// The storage of streams.
pub trait Store {
    /// Up to `length` bytes of a job's stream from `offset`.
    fn read(&mut self, job: JobId, offset: u32, length: u32) -> io::Result<Vec<u8>>;
}

/// The agent's state machine: time, datagrams and grown streams in, [`Output`]s out.
#[derive(Debug)]
pub struct Agent {
    key: SecretKey,
    settings: Settings,
    replay: ReplayWindow,
    revoked: Revocations,
    budget: Budget,
    notices: TokenBucket,
    notices_to_known: TokenBucket,
    /// Reported addresses of agents with this agent's key.
    shared_with: BTreeSet<Ipv6Addr>,
    /// Drawn for this run; names the streams that begin in it.
    seed: u64,
    random: Random,
    jobs: Jobs,
    payloads: Payloads,
    open: OpenCommands,
    outputs: Outputs,
    hellos: usize,
    started: Instant,
    counters: BTreeMap<Reason, u64>,
    received: u64,
    begun: u64,
}

/// Actions in their order.
#[derive(Debug, Default)]
struct Outputs {
    queue: VecDeque<Output>,
    /// Whether such a write is queued: outputs after it find the state on disk.
    remembering: bool,
    remembering_revoked: bool,
}

impl Outputs {
    fn push_back(&mut self, output: Output) {
        let is_queued = match output {
            Output::Remember => std::mem::replace(&mut self.remembering, true),
            Output::RememberRevoked => std::mem::replace(&mut self.remembering_revoked, true),
            _ => false,
        };
        if !is_queued {
            self.queue.push_back(output);
        }
    }

    fn pop_front(&mut self) -> Option<Output> {
        let output = self.queue.pop_front()?;
        match output {
            Output::Remember => self.remembering = false,
            Output::RememberRevoked => self.remembering_revoked = false,
            _ => {}
        }
        Some(output)
    }
}

/// A decoded payload.
struct ReadRequest {
    request: Result<Request, WireError>,
    /// The key that seals the answer.
    seal: Option<AnswerKey>,
    /// False if it is sealed for other nodes only.
    is_for_us: bool,
}

impl Agent {
    /// Makes an agent at its start. `seed` is drawn for this run: jitter, names of streams.
    #[must_use]
    pub fn new(
        key: SecretKey,
        settings: Settings,
        (replay, revoked): (ReplayWindow, Revocations),
        seed: u64,
        now: Instant,
    ) -> Self {
        Self {
            key,
            settings,
            replay,
            open: OpenCommands::of_revocations(&revoked, now),
            revoked,
            budget: Budget::new(now),
            notices: TokenBucket::of(NOTICES, now),
            notices_to_known: TokenBucket::of(NOTICES, now),
            shared_with: BTreeSet::new(),
            seed,
            random: Random::new(seed),
            jobs: Jobs::default(),
            payloads: Payloads::default(),
            outputs: Outputs::default(),
            hellos: 0,
            started: now,
            counters: BTreeMap::new(),
            received: 0,
            begun: 0,
        }
    }

    /// Replaces the configuration; jobs continue.
    pub fn configure(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Returns the replay window, to be written to disk.
    #[must_use]
    pub fn replay(&self) -> &ReplayWindow {
        &self.replay
    }

    /// Returns the revoked keys, to be written to disk.
    #[must_use]
    pub fn revoked(&self) -> &Revocations {
        &self.revoked
    }

    /// Returns the number of refusals and drops by reason.
    #[must_use]
    pub fn counters(&self) -> &BTreeMap<Reason, u64> {
        &self.counters
    }

    /// Returns the number of commands for this node that were read, executed or not.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Returns the number of started jobs.
    #[must_use]
    pub fn begun(&self) -> u64 {
        self.begun
    }

    /// Returns the number of known jobs, running or not.
    #[must_use]
    pub fn known_jobs(&self) -> usize {
        let stored = |job: &&Job| matches!(job.content, Content::Stored(_));
        self.jobs.values().filter(stored).count()
    }

    /// Returns the number of running jobs.
    #[must_use]
    pub fn running(&self) -> usize {
        self.jobs.running()
    }

    /// Restores a job of an earlier run, with its stream in the store.
    pub fn restore(&mut self, job: JobId, kept: Kept, now: Instant) {
        let mut delivery = Delivery::new(now, 16);
        if kept.delivered {
            delivery = Delivery::resting(now);
        }
        let principal = kept.principal;
        self.insert(
            job,
            Job {
                principal,
                sponsor: self.sponsor(&principal),
                via: 0,
                content: Content::Stored(job),
                stream: kept.stream,
                delivery,
                running: true,
                seal: kept.seal,
                denied: false,
                forget_at: kept.delivered.then_some(now + KEEP),
            },
        );
        if self.revoked.covers(&principal) {
            self.deny(job, now);
        }
    }

    /// Handles a datagram from the channel. `clock`: Unix seconds.
    pub fn handle_datagram(
        &mut self,
        datagram: &[u8],
        ingress: Ingress,
        now: Instant,
        time: UnixTime,
    ) {
        let handled = Kind::read(datagram).and_then(|(kind, r)| match kind {
            Kind::Command | Kind::Announced | Kind::CertifiedCommand | Kind::CertifiedAnnounced => {
                self.handle_command(datagram, ingress, now, time);
                Ok(())
            }
            Kind::Part => self.handle_part(datagram, r, ingress, now, time),
            Kind::Acknowledgement => self.handle_acknowledgement(datagram, r, ingress, now),
            Kind::Hello => {
                self.open.handle_hello(ingress.via, &mut self.random, now);
                Ok(())
            }
            Kind::SharedKey => self.handle_shared_key(datagram, r, ingress, now),
            Kind::Answer | Kind::SealedAnswer | Kind::StreamAnswer | Kind::Missing => {
                Err(WireError::Bad("kind"))
            }
        });
        if handled.is_err() {
            self.count(Dropped::Malformed);
        }
    }

    /// Takes the new length of a job's stored stream; `ended`: it does not grow any more.
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

    /// Takes the reason why a job was not started.
    pub fn handle_refused(&mut self, job: JobId, why: &str, now: Instant) {
        self.count(Refused::NotStarted);
        self.finish(job, &[Record::Refused(why.to_owned())], now);
    }

    /// Takes the records of an answer, which ends with the last one.
    pub fn handle_answer(&mut self, job: JobId, records: &[Record], now: Instant) {
        self.finish(job, records, now);
    }

    /// Does work that is due: see [`next_timeout`](Self::next_timeout).
    pub fn handle_timeout(&mut self, now: Instant, time: UnixTime) {
        while self.hello_at().is_some_and(|at| at <= now) {
            self.hellos += 1;
            let datagram = hello(&self.key.peer_id());
            self.outputs.push_back(Output::Channel { via: 0, datagram });
        }
        let repeats = self.open.repeat(now, time);
        let asked = self.payloads.ask(&mut self.random, now, time);
        for output in repeats.into_iter().chain(asked) {
            self.outputs.push_back(output);
        }
        let outdated = |job: &Job| job.forget_at.is_some_and(|at| at <= now);
        for job in self.jobs.filter(outdated) {
            self.forget(job);
        }
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) or `poll_output` is due.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let times = [
            self.jobs.next_timeout(),
            self.payloads.next_timeout(),
            self.open.next_timeout(),
            self.hello_at(),
        ];
        times.into_iter().flatten().min()
    }

    /// Returns the next action; none if nothing is due.
    pub fn poll_output(&mut self, store: &mut dyn Store, now: Instant) -> Option<Output> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        let id = self.jobs.next_due(now)?;
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
            // the disk lost bytes of it: no answer is possible
            self.count(Dropped::Unreadable);
            self.forget(id);
            return None;
        };
        Some(Output::Answers {
            operator: job.principal.operator,
            via: job.via,
            datagram: match &job.seal {
                Some(key) => {
                    let sealed = key.seal(id, piece.offset, &content);
                    seal_sealed(&self.key, id, job.stream, piece.offset, &sealed)
                }
                None => seal(&self.key, id, Some(job.stream), piece.offset, &content),
            },
        })
    }

    fn handle_command(&mut self, datagram: &[u8], ingress: Ingress, now: Instant, time: UnixTime) {
        if let Some(id) = envelope::peek(datagram)
            && self.is_repeat(id, datagram, now)
        {
            return;
        }
        let (revoked, settings) = (&self.revoked, &self.settings);
        let standing = |operator: &PeerId, certificate: Option<&Certificate>| {
            let certifier = certificate.map(|c| c.certifier);
            let operator = *operator;
            settings.standing(
                revoked,
                &Principal {
                    operator,
                    certifier,
                },
            )
        };
        let budget = &mut self.budget;
        let may_verify = || budget.may_verify(ingress.source, now);
        let opened = match envelope::open(datagram, time, standing, &self.replay, may_verify) {
            Ok(opened) => {
                self.budget.genuine(ingress.source, now);
                opened
            }
            Err(refusal) => {
                tracing::debug!("{refusal}");
                self.count(&refusal);
                match refusal {
                    Refusal::Signature | Refusal::CertificateSignature => {
                        self.budget.forged(ingress.source, now);
                    }
                    Refusal::UnknownKey(_) => self.tell_stranger(datagram, ingress.via, now),
                    _ => self.tell_known(&refusal, datagram, ingress, now, time),
                }
                return;
            }
        };
        match opened.awaited {
            None => {
                let datagrams = (datagram.to_vec(), Vec::new());
                self.accept(&opened, ingress.via, datagrams, now, time);
            }
            Some(awaited) => {
                let sponsor = self.sponsor(&principal_of(&opened));
                if !self.payloads.make_room(&sponsor) {
                    self.count(Dropped::TooManyPayloads);
                    self.turn_away(&opened, ingress.via, now, time);
                    return;
                }
                let id = opened.command.job(&opened.operator);
                let of = (datagram.to_vec(), ingress.via);
                let collection = Collection::new(awaited);
                let collecting = Collecting::new(opened, sponsor, of, collection, now);
                self.payloads.insert(id, collecting);
            }
        }
    }

    /// Answers an operator with an unknown key: at most one short datagram for each of his own. One
    /// rate limit for all of them keeps a fleet from being an amplifier.
    fn tell_stranger(&mut self, datagram: &[u8], via: u32, now: Instant) {
        // charged before any check: checks cost time too
        if !self.notices.take(1, now) {
            return;
        }
        let Some(said) = envelope::unverified(datagram).filter(|_| envelope::is_genuine(datagram))
        else {
            return;
        };
        if !said.selector.is_some_and(|s| self.is_selected_by(&s)) {
            return;
        }
        let answer = self.notice(said.job, "this node's [[allow]] does not list your key");
        if answer.len() <= datagram.len() {
            self.outputs.push_back(Output::Answers {
                operator: said.operator,
                via,
                datagram: answer,
            });
        }
    }

    /// Answers and logs why a known operator's command is not accepted. Replayed recordings cause
    /// few answers, and none if the command was accepted before.
    fn tell_known(
        &mut self,
        refusal: &Refusal,
        datagram: &[u8],
        ingress: Ingress,
        now: Instant,
        time: UnixTime,
    ) {
        let why = match refusal {
            Refusal::Expired(behind) => format!(
                "expired: your clock is {behind} s behind this node's, or something has kept the command from coming; \
                 {MAX_BEHIND_S} s are tolerated"
            ),
            Refusal::ClockAhead(ahead) => format!(
                "your clock is {ahead} s ahead of this node's; {MAX_AHEAD_S} s are tolerated"
            ),
            Refusal::Certificate(e) => format!("your certificate: {e}"),
            Refusal::Replay(ReplayError::BelowWindow) => {
                "its number is below those that are remembered of your key: your clock \
                 was set back, or that of another machine with this key is ahead"
                    .to_owned()
            }
            Refusal::Replay(ReplayError::TooManyKeys) => {
                "too many operators' keys are remembered here: in an hour there may be room"
                    .to_owned()
            }
            Refusal::Selector(e) => format!("--on: {e}"),
            _ => return,
        };
        let Some(said) = envelope::unverified(datagram) else {
            return;
        };
        let principal = Principal {
            operator: said.operator,
            certifier: said.certifier,
        };
        let standing = self.settings.standing(&self.revoked, &principal);
        let is_for_others = said
            .selector
            .as_ref()
            .is_some_and(|s| !self.is_selected_by(s));
        if !matches!(standing, Standing::Listed | Standing::Certified)
            || is_for_others
            || self.may_have_seen(&said, refusal, time)
        {
            return;
        }
        // costly checks last: a forgery is charged to its source, a genuine command takes a notice
        if !self.notices_to_known.ready(now) || !self.budget.may_verify(ingress.source, now) {
            return;
        }
        if !envelope::is_genuine(datagram) {
            self.budget.forged(ingress.source, now);
            return;
        }
        self.notices_to_known.spend(1, now);
        tracing::warn!("a command of {} is not accepted: {why}", said.operator);
        self.tell(said.operator, said.job, ingress.via, &why);
    }

    /// Returns whether a refused command may have been accepted before: it may be a recording.
    fn may_have_seen(&self, said: &Unverified, refusal: &Refusal, time: UnixTime) -> bool {
        let name = Name {
            operator: &said.operator,
            certifier: said.certifier.as_ref(),
            sequence: said.sequence,
            nonce: &said.nonce,
        };
        let times = Times {
            not_after: u64::MAX,
            now: time,
        };
        match self.replay.check(name, times) {
            Err(ReplayError::Replayed) => true,
            // a command that is valid by its time is answered only for this reason
            Err(ReplayError::BelowWindow) => !matches!(refusal, Refusal::Replay(_)),
            _ => false,
        }
    }

    /// Answers a command of which no state is kept.
    fn tell(&mut self, operator: PeerId, job: JobId, via: u32, why: &str) {
        let datagram = self.notice(job, why);
        self.outputs.push_back(Output::Answers {
            operator,
            via,
            datagram,
        });
    }

    /// Makes an answer of one segment, without a stream name: nothing can continue it.
    fn notice(&self, job: JobId, why: &str) -> Vec<u8> {
        let mut stream = Vec::new();
        let node = NodeInfo {
            name: self.settings.node.name.clone(),
            ..NodeInfo::default()
        };
        // two short texts always fit
        let _ = Record::Node(node)
            .encode(&mut stream)
            .and_then(|()| Record::Refused(why.to_owned()).encode(&mut stream));
        seal(&self.key, job, None, 0, &stream)
    }

    fn is_selected_by(&self, selector: &Selector) -> bool {
        let id = self.key.peer_id().to_string();
        selector.selects(&self.settings.as_selected(&id))
    }

    /// Refuses a command for good, as there is no room for its payload. The replay window keeps it:
    /// a repeat shall not start it after this refusal.
    fn turn_away(&mut self, opened: &Opened, via: u32, now: Instant, time: UnixTime) {
        if !self.remember(opened, via, time) || !self.is_selected_by(&opened.command.selector) {
            return;
        }
        let id = opened.command.job(&opened.operator);
        let job = self.job(id, opened, via, Delivery::new(now, 1));
        self.insert(id, job);
        let why = format!(
            "{} commands of several datagrams are coming in here already, {MAX_COLLECTING_OF_ONE} of yours or {MAX_COLLECTING} \
             in all may: try again in a moment",
            self.payloads.len()
        );
        let (operator, verdict) = (opened.operator, format!("refused: {why}"));
        self.audit(id, operator, "?".to_owned(), &verdict);
        self.finish(id, &[Record::Refused(why)], now);
    }

    /// Stores the command in the replay window; returns whether it is new.
    fn remember(&mut self, opened: &Opened, via: u32, time: UnixTime) -> bool {
        let (operator, command) = (opened.operator, &opened.command);
        let sponsor = self.sponsor(&principal_of(opened));
        let times = Times {
            not_after: command.not_after,
            now: time,
        };
        let name = Name {
            operator: &operator,
            certifier: Some(&sponsor).filter(|sponsor| **sponsor != operator),
            sequence: command.sequence,
            nonce: &command.nonce,
        };
        if let Err(e) = self.replay.accept(name, times) {
            self.count(Refused::from(e));
            // newer commands arrived before its payload
            if e != ReplayError::Replayed {
                self.tell(operator, command.job(&operator), via, &e.to_string());
            }
            return false;
        }
        self.outputs.push_back(Output::Remember);
        true
    }

    /// Returns the listed key that is charged for this principal.
    fn sponsor(&self, principal: &Principal) -> PeerId {
        let certifier = principal
            .certifier
            .filter(|_| !self.knows(&principal.operator));
        certifier.unwrap_or(principal.operator)
    }

    fn knows(&self, key: &PeerId) -> bool {
        self.settings.knows(key)
    }

    /// Returns whether the command is known here; puts off its repetition.
    fn is_repeat(&mut self, id: JobId, datagram: &[u8], now: Instant) -> bool {
        self.open.note_repeat(&id, datagram, now);
        self.jobs.get(&id).is_some() || self.payloads.contains(&id)
    }

    fn handle_part(
        &mut self,
        datagram: &[u8],
        r: Reader<'_>,
        ingress: Ingress,
        now: Instant,
        time: UnixTime,
    ) -> Result<(), WireError> {
        let id = part::job_of(r)?;
        let Some(collecting) = self.payloads.get_mut(&id) else {
            return Ok(());
        };
        if !self.budget.may_verify(ingress.source, now) {
            self.count(Refused::TooManyForged);
            return Ok(());
        }
        let taken = collecting
            .collection
            .take(datagram, &collecting.opened.operator)
            .inspect_err(|e| {
                if *e == FORGED {
                    self.budget.forged(ingress.source, now);
                }
            })?;
        if taken {
            self.budget.genuine(ingress.source, now);
            collecting.keep(datagram, now);
        }
        match collecting.collection.whole() {
            None => Ok(()),
            Some(whole) => {
                let Some(mut collecting) = self.payloads.remove(&id) else {
                    return Ok(());
                };
                collecting.opened.command.payload = whole?;
                // the key may have been revoked, or the command expired, since it came
                let principal = principal_of(&collecting.opened);
                let standing = self.settings.standing(&self.revoked, &principal);
                let refused = match standing {
                    Standing::Revoked => Some(Refused::Revoked),
                    Standing::Unknown => Some(Refused::UnknownKey),
                    _ if envelope::is_over(collecting.opened.command.not_after, time) => {
                        Some(Refused::Expired)
                    }
                    _ => None,
                };
                if let Some(reason) = refused {
                    self.count(reason);
                    let why = match reason {
                        Refused::Expired => "expired while it came in",
                        _ => "this node's [[allow]] does not list your key any more",
                    };
                    // a revoked key gets no answer
                    if reason != Refused::Revoked {
                        self.tell(principal.operator, id, collecting.via, why);
                    }
                    return Ok(());
                }
                let Collecting {
                    opened,
                    envelope,
                    parts,
                    via,
                    ..
                } = collecting;
                self.accept(&opened, via, (envelope, parts), now, time);
                Ok(())
            }
        }
    }

    /// Accepts a verified command with its whole payload.
    fn accept(
        &mut self,
        opened: &Opened,
        via: u32,
        (envelope, parts): (Vec<u8>, Vec<Vec<u8>>),
        now: Instant,
        time: UnixTime,
    ) {
        let (principal, command) = (principal_of(opened), &opened.command);
        let operator = principal.operator;
        let sponsor = self.sponsor(&principal);
        if !self.remember(opened, via, time) {
            return;
        }
        let id = command.job(&operator);
        let revoking = RevokingCommand {
            by: operator,
            under: sponsor,
            not_after: command.not_after,
            envelope,
        };
        let evicted = self
            .open
            .keep(id, Open::new(&revoking, principal, parts, now));
        for _ in 0..evicted {
            self.count(Dropped::NotKeptOpen);
        }
        let me = self.key.peer_id().to_string();
        let node = self.settings.as_selected(&me);
        let ReadRequest {
            request,
            seal,
            is_for_us,
        } = self.read_request(&operator, &command.payload);
        let short = short_id(&self.key.peer_id());
        let others = request
            .as_ref()
            .is_ok_and(|r| !r.only.is_empty() && !r.only.contains(&short));
        if !is_for_us || others || !command.selector.selects(&node) {
            let mut job = self.job(id, opened, via, Delivery::resting(now));
            // `KEEP` outlasts most commands
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
        let mut job = self.job(id, opened, via, Delivery::new(now + wait, window));
        job.seal = seal;
        self.insert(id, job);
        self.warn_of_clock(id, opened.skew);
        match request {
            Ok(Request {
                what: What::Revoke(key),
                ..
            }) => self.revoke(id, key, (revoking, principal), now),
            Ok(request) => self.execute(id, opened, request.what, now),
            Err(e) => {
                let why = NotExecuted::NotUnderstood(e);
                self.refuse(id, operator, "?".to_owned(), &why, now);
            }
        }
    }

    fn read_request(&self, operator: &PeerId, payload: &[u8]) -> ReadRequest {
        let (request, seal, is_for_us) = if !sealed::is_sealed(payload) {
            (Request::decode(payload), None, true)
        } else {
            match sealed::open_request(payload, operator, &self.key) {
                Ok(Some((request, seal))) => (Request::decode(&request), Some(seal), true),
                Ok(None) => (Err(WireError::Bad("sealed for others")), None, false),
                Err(e) => (Err(e), None, true),
            }
        };
        ReadRequest {
            request,
            seal,
            is_for_us,
        }
    }

    fn execute(&mut self, id: JobId, opened: &Opened, what: What, now: Instant) {
        let operator = opened.operator;
        match what {
            // handled by `revoke`
            What::Revoke(_) => {}
            What::Facts => self.outputs.push_back(Output::Facts(id)),
            What::Jobs => self.outputs.push_back(Output::Jobs { operator, job: id }),
            What::Run(run) => self.run(id, opened, run, now),
            What::Cancel(target) => {
                let line = format!("cancel {target}");
                let runs = |job: &Job| job.principal.operator == operator && job.running;
                if !self.jobs.get(&target).is_some_and(runs) {
                    self.refuse(id, operator, line, &NotExecuted::NotRunning, now);
                    return;
                }
                self.audit(id, operator, line, "done");
                self.outputs.push_back(Output::Cancel(target));
                self.finish(id, &[Record::Done], now);
            }
            What::Result(target) => {
                let line = format!("result {target}");
                let theirs = self.jobs.get(&target);
                let theirs = theirs.filter(|j| j.principal.operator == operator);
                let open = |id| self.jobs.get(id).is_some_and(|j: &Job| j.seal.is_none());
                if open(&id) && theirs.is_some_and(|job| job.seal.is_some()) {
                    self.refuse(id, operator, line, &NotExecuted::Sealed, now);
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
                        self.refuse(id, operator, line, &NotExecuted::StillRuns, now);
                    }
                    _ => {
                        self.refuse(id, operator, line, &NotExecuted::NoSuchJob, now);
                    }
                }
            }
        }
    }

    /// Revokes a key: the agent executes none of its commands any more.
    fn revoke(
        &mut self,
        id: JobId,
        key: PeerId,
        (revoking, principal): (RevokingCommand, Principal),
        now: Instant,
    ) {
        let operator = revoking.by;
        let line = format!("revoke {key}");
        let (policy, labels) = (&self.settings.policy, &self.settings.node.labels);
        let certifier = if key == operator || policy::may_revoke(policy, &operator, labels, &key) {
            None
        } else if self.knows(&operator) && !self.knows(&key) {
            // needs no proof: it could certify the key, and commands under other keys stay valid
            Some(operator)
        } else {
            self.refuse(id, operator, line, &NotExecuted::MayNotRevoke, now);
            return;
        };
        let revocation = Revocation {
            key,
            certifier,
            revoking,
        };
        let listed = policy::lists(&self.settings.policy, &key);
        if !self.revoked.add(revocation.clone(), listed) {
            self.refuse(id, operator, line, &NotExecuted::TooManyRevoked, now);
            return;
        }
        self.outputs.push_back(Output::RememberRevoked);
        self.audit(id, operator, line, "done");
        self.open.revoke(id, &revocation, principal, now);
        self.payloads
            .retain(|c| !revocation.covers(&principal_of(&c.opened)));
        let theirs = self.jobs.filter(|job| revocation.covers(&job.principal));
        for job in theirs.into_iter().filter(|job| *job != id) {
            self.deny(job, now);
        }
        self.finish(id, &[Record::Done], now);
    }

    /// Ends a job of a revoked key without an answer.
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
        let sealed = self.jobs.get(&id).is_some_and(|job| job.seal.is_some());
        let line = run.line_for_logs(sealed);
        let operator = opened.operator;
        let certificate = opened.certificate.as_ref();
        let (policy, labels) = (&self.settings.policy, &self.settings.node.labels);
        let permit = match policy::decide(policy, &operator, certificate, labels, &run) {
            Ok(permit) => permit,
            Err(denied) => {
                self.refuse(id, operator, line, &denied.into(), now);
                return;
            }
        };
        let sponsor = self.jobs.get(&id).map(|job| job.sponsor);
        let of_one = sponsor.map_or(0, |sponsor| self.jobs.running_of(&sponsor));
        if self.running() >= MAX_RUNNING || of_one >= MAX_RUNNING_OF_ONE {
            let why = NotExecuted::TooManyJobs(self.running());
            self.refuse(id, operator, line, &why, now);
            return;
        }
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let Content::Here(preamble) = &mut job.content else {
            return;
        };
        let preamble = std::mem::take(preamble);
        let (seal, principal, stream) = (job.seal.clone(), job.principal, job.stream);
        job.content = Content::Stored(id);
        job.running = true;
        self.begun += 1;
        let name = policy::name_of(policy, &principal);
        self.outputs.push_back(Output::Start(Box::new(Start {
            job: id,
            principal,
            name,
            run,
            permit,
            preamble,
            stream,
            seal,
        })));
    }

    /// Counts, logs and answers a command that is not executed.
    fn refuse(
        &mut self,
        id: JobId,
        operator: PeerId,
        what: String,
        why: &NotExecuted,
        now: Instant,
    ) {
        self.count(why.reason());
        self.audit(id, operator, what, &format!("refused: {why}"));
        self.finish(id, &[Record::Refused(why.to_string())], now);
    }

    fn audit(&mut self, job: JobId, operator: PeerId, what: String, verdict: &str) {
        let principal = self.jobs.get(&job).map(|job| job.principal);
        self.outputs.push_back(Output::Audit {
            operator,
            name: principal
                .and_then(|principal| policy::name_of(&self.settings.policy, &principal)),
            job,
            what,
            verdict: verdict.to_owned(),
        });
    }

    /// Ends an answer in memory with its last records.
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

    fn warn_of_clock(&mut self, id: JobId, skew: Skew) {
        let warning = match skew {
            Skew::Ahead(by) if by >= CLOCK_S => {
                format!("the operator's clock is {by} s ahead of the node's")
            }
            Skew::Behind(by) => format!(
                "the operator's clock is {by} s behind the node's, or something has kept the command from coming"
            ),
            _ => return,
        };
        let warning = Record::Warning(warning);
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
        ingress: Ingress,
        now: Instant,
    ) -> Result<(), WireError> {
        let id = JobId(r.clone().array()?);
        if self.jobs.get(&id).is_none_or(|job| job.denied) {
            return Ok(());
        }
        if !self.budget.may_verify(ingress.source, now) {
            self.count(Refused::TooManyForged);
            return Ok(());
        }
        let operator = |id| self.jobs.get(&id).map(|job| job.principal.operator);
        let opened = Acknowledgement::open(datagram, r, operator);
        let acknowledgement = opened.inspect_err(|e| {
            if *e == FORGED {
                self.budget.forged(ingress.source, now);
            }
        })?;
        self.budget.genuine(ingress.source, now);
        let me = self.key.peer_id();
        let Some(job) = self.jobs.get_mut(&id) else {
            return Ok(());
        };
        job.via = ingress.via;
        let (counter, window) = (acknowledgement.counter, acknowledgement.window);
        let named = acknowledgement.progress_of(&me, job.stream);
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

    /// Handles an operator's report of several agents with our key.
    fn handle_shared_key(
        &mut self,
        datagram: &[u8],
        r: Reader<'_>,
        ingress: Ingress,
        now: Instant,
    ) -> Result<(), WireError> {
        let id = JobId(r.clone().array()?);
        let Some(job) = self.jobs.get(&id).filter(|job| !job.denied) else {
            return Ok(());
        };
        let (operator, own) = (job.principal.operator, job.stream);
        if !self.budget.may_verify(ingress.source, now) {
            self.count(Refused::TooManyForged);
            return Ok(());
        }
        let shared = SharedKey::open(datagram, r, &operator).inspect_err(|e| {
            if *e == FORGED {
                self.budget.forged(ingress.source, now);
            }
        })?;
        self.budget.genuine(ingress.source, now);
        if shared.agent != self.key.peer_id() {
            return Ok(());
        }
        for address in shared.others(own) {
            if self.shared_with.len() < MAX_TOLD && self.shared_with.insert(address) {
                self.outputs.push_back(Output::SharedKey(address));
            }
        }
        Ok(())
    }

    fn job(&self, id: JobId, opened: &Opened, via: u32, delivery: Delivery) -> Job {
        let principal = principal_of(opened);
        Job {
            principal,
            sponsor: self.sponsor(&principal),
            via,
            content: Content::Here(self.preamble()),
            stream: StreamId::of(self.seed, id),
            delivery,
            running: false,
            seal: None,
            denied: false,
            forget_at: None,
        }
    }

    /// Returns the first record of every answer.
    fn preamble(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // the configuration has checked their lengths
        let _ = Record::Node(self.settings.node.clone()).encode(&mut bytes);
        bytes
    }

    /// Stores an answer.
    fn insert(&mut self, id: JobId, job: Job) {
        if let Some((victim, job)) = self.jobs.insert(id, job) {
            self.count(Dropped::AnswersEvicted);
            self.delete_stream(victim, &job);
        }
    }

    fn forget(&mut self, id: JobId) {
        if let Some(job) = self.jobs.remove(&id) {
            self.delete_stream(id, &job);
        }
    }

    fn delete_stream(&mut self, id: JobId, job: &Job) {
        if matches!(job.content, Content::Stored(name) if name == id) {
            self.outputs.push_back(Output::Forget(id));
        }
    }

    fn hello_at(&self) -> Option<Instant> {
        let after = HELLOS.get(self.hellos)?;
        Some(self.started + Duration::from_millis(*after))
    }

    fn count(&mut self, reason: impl Into<Reason>) {
        *self.counters.entry(reason.into()).or_default() += 1;
    }
}

impl Settings {
    fn knows(&self, key: &PeerId) -> bool {
        policy::knows(&self.policy, key, &self.node.labels)
    }

    /// Returns how this node trusts this principal.
    fn standing(&self, revoked: &Revocations, principal: &Principal) -> Standing {
        if revoked.covers(principal) {
            Standing::Revoked
        } else if self.knows(&principal.operator) {
            Standing::Listed
        } else if principal.certifier.is_some_and(|key| self.knows(&key)) {
            Standing::Certified
        } else {
            Standing::Unknown
        }
    }

    /// Returns this node in the form that selectors match.
    fn as_selected<'a>(&'a self, id: &'a str) -> Node<'a> {
        Node {
            name: &self.node.name,
            id,
            labels: &self.node.labels,
        }
    }
}

fn principal_of(opened: &Opened) -> Principal {
    Principal {
        operator: opened.operator,
        certifier: opened.certificate.as_ref().map(|c| c.certifier),
    }
}
