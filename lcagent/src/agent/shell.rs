//! `lcagent run`: sockets, files, processes and the clock around the agent's core.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::Ipv6Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use librecast::channel::{agent_answers, agent_group};
use librecast::id::{IdError, PeerId, SecretKey};
use librecast::local_node::{self, LocalNode};
use librecast::time::UnixTime;
use librecast_program::cli::{Exit, ExitError};
use librecast_program::interrupt::on_signals;
use librecast_program::metrics::{Listen, Served};
use librecast_program::service::{self, Service};
use librecast_program::state_lock::StateLock;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::Signal;
use nix::sys::time::TimeSpec;
use nix::unistd::User;

use super::audit::Audit;
use super::config::{Config, add_labels, check_writers};
use super::contain::{Traces, has_children, kill_left_behind};
use super::core::{Agent, Settings};
use super::job::JobDirs;
use super::output::{Output, Start};
use super::revoked::Revocations;
use super::{facts, metrics, modules};
use crate::datagram::JobId;
use crate::files::AGENT_KEY;
use crate::network::Network;
use crate::record::Record;
use crate::replay::{MAX_SNAPSHOT, ReplayWindow};
use crate::request::Run;

/// Time between two checks of interfaces.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Time between two checks of jobs of an earlier run.
const ADOPTED_INTERVAL: Duration = Duration::from_millis(100);
/// Time after which a failed write is repeated.
const RETRY: Duration = Duration::from_secs(1);

/// Time between two requests to lcroute for this node's labels.
const LABELS: Duration = Duration::from_secs(5);
/// Jobs in a list: the latest.
const MAX_LISTED: usize = 128;

/// The options of the command line.
#[derive(Debug)]
pub struct Options {
    /// Configuration file; none: [`DEFAULT_PATH`](super::config::DEFAULT_PATH) if it exists.
    pub config: Option<PathBuf>,
    /// The folder of keys, jobs and logs.
    pub state_dir: Option<PathBuf>,
    /// Socket of the service that runs jobs in place of this process's children.
    pub jobs: Option<PathBuf>,
}

/// Returns the default folder of an agent's state.
#[must_use]
pub fn default_state_dir() -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return "/var/lib/lcagent".into();
    }
    crate::files::user_dir("XDG_STATE_HOME", ".local/state").join("lcagent")
}

/// Runs until a signal stops it.
pub fn run(options: &Options) -> anyhow::Result<Exit> {
    let config = Config::load(options.config.as_deref())?;
    let state = options.state_dir.clone().unwrap_or_else(default_state_dir);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&state)
        .with_context(|| state.display().to_string())?;
    check_state(&state)?;
    let _lock = StateLock::take(&state, "lcagent")?;
    let flags = Arc::new(Flags::new()?);
    flags.catch()?;
    let mut shell = Shell::new(options, config, state, Arc::clone(&flags))?;
    shell.restore()?;
    service::ready();
    shell.tell_of_interfaces();
    match shell.network.interface_names().join(", ") {
        none if none.is_empty() => tracing::info!("{} is ready, on no interface yet", shell.me),
        names => tracing::info!("{} is ready on {names}", shell.me),
    }
    shell.run()?;
    Ok(Exit::Ok)
}

/// Refuses a folder that other users own or can write: they could replay commands, or undo
/// revocations.
fn check_state(state: &Path) -> anyhow::Result<()> {
    let meta = fs::metadata(state).with_context(|| state.display().to_string())?;
    check_writers(&meta, false).map_err(|why| {
        let message = format!("{}: {why}", state.display());
        ExitError::new(Exit::NotPermitted, message).into()
    })
}

/// Requests by signals.
struct Flags {
    wake: EventFd,
    stop: AtomicBool,
    reload: AtomicBool,
}

impl Flags {
    fn new() -> io::Result<Self> {
        Ok(Self {
            wake: EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?,
            stop: AtomicBool::new(false),
            reload: AtomicBool::new(false),
        })
    }

    fn catch(self: &Arc<Self>) -> io::Result<()> {
        let flags = Arc::clone(self);
        let signals = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];
        on_signals(&signals, move |signal| {
            let flag = match signal {
                Signal::SIGHUP => &flags.reload,
                _ => &flags.stop,
            };
            flag.store(true, Ordering::Relaxed);
            let _ = flags.wake.write(1);
        })
    }
}

struct Shell {
    config_file: Option<PathBuf>,
    state: PathBuf,
    flags: Arc<Flags>,
    me: PeerId,
    agent: Agent,
    channel: Ipv6Addr,
    interfaces: Vec<String>,
    /// Interfaces without multicast or absent, already logged.
    missing: Vec<String>,
    modules: PathBuf,
    network: Network,
    /// The configuration's settings, without the labels from lcroute.
    settings: Settings,
    /// The reply of lcroute on this host, from a thread of its own.
    local: Arc<Mutex<Option<LocalNode>>>,
    added: BTreeMap<String, String>,
    jobs: JobDirs,
    /// Socket of the service that runs jobs, if this process does not.
    runner: Option<PathBuf>,
    audit: Audit,
    /// All children are supervisors, and this process becomes the parent of their orphans.
    has_supervisors_only: bool,
    /// Jobs that have not ended.
    running: BTreeMap<JobId, Watch>,
    /// The error that ends the agent.
    fatal: Option<io::Error>,
    /// The error of the last write of the replay window, and the next try. No job starts before.
    not_remembered: Option<(io::Error, Instant)>,
    service: Service,
    metrics: Served,
}

/// The way in which the end of a job is noticed.
enum Watch {
    /// Its supervisor reports it.
    Supervised(Supervised),
    /// The supervisor is of an earlier run, and is polled.
    Adopted,
    /// The supervisor died and the stream's end could not be written; next attempt.
    Lost(Instant),
}

/// A supervisor: a child, or a process at the other end of a socket.
struct Supervised {
    child: Option<Child>,
    /// Carries a byte for each change; closes with the supervisor.
    pokes: File,
}

impl Supervised {
    fn wait(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.wait();
        }
    }
}

impl Shell {
    fn new(
        options: &Options,
        config: Config,
        state: PathBuf,
        flags: Arc<Flags>,
    ) -> anyhow::Result<Self> {
        let key = own_key(&state.join(AGENT_KEY))?;
        let replay = read_replay(&state.join("replay"))?;
        let revoked = read_revoked(&state.join("revoked"))?;
        let channel = agent_group(&config.channel);
        let now = Instant::now();
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(|e| anyhow::anyhow!("no randomness: {e}"))?;
        let network =
            Network::open(channel, &config.interfaces, now).context("multicast sockets")?;
        if config.settings.policy.is_empty() {
            tracing::warn!("nobody may do anything here: the configuration has no [[allow]]");
        }
        tell_of_users(&config.settings);
        let woken = Arc::clone(&flags);
        let mut metrics = Served::new("lcagent", move || {
            // a full counter wakes as well
            let _ = woken.wake.write(1);
        });
        serve_metrics(&mut metrics, config.metrics.as_ref())?;
        let audit = state.join("audit.log");
        let local = Arc::new(Mutex::new(local_node::ask()));
        let shared = Arc::clone(&local);
        thread::Builder::new()
            .name("labels".into())
            .spawn(move || {
                loop {
                    thread::sleep(LABELS);
                    let node = local_node::ask();
                    *shared.lock().unwrap_or_else(PoisonError::into_inner) = node;
                }
            })?;
        Ok(Self {
            settings: config.settings.clone(),
            local,
            added: BTreeMap::new(),
            config_file: options.config.clone(),
            runner: options.jobs.clone(),
            me: key.peer_id(),
            agent: Agent::new(
                key,
                config.settings,
                (replay, revoked),
                u64::from_ne_bytes(seed),
                now,
            ),
            channel,
            interfaces: config.interfaces,
            missing: Vec::new(),
            modules: config.modules,
            network,
            jobs: JobDirs::open(state.join("jobs")).context("jobs")?,
            audit: Audit::open(&audit).with_context(|| audit.display().to_string())?,
            has_supervisors_only: options.jobs.is_none() && adopt_orphans(),
            running: BTreeMap::new(),
            fatal: None,
            not_remembered: None,
            service: Service::of_environment(),
            metrics,
            flags,
            state,
        })
    }

    /// Restores the jobs of an earlier run.
    fn restore(&mut self) -> io::Result<()> {
        let now = Instant::now();
        for job in self.jobs.all()? {
            let dir = self.jobs.job(job);
            let Ok(kept) = dir.kept() else {
                // its creation was not completed
                dir.remove()?;
                continue;
            };
            self.agent.restore(job, kept, now);
            let (length, ended) = dir.progress()?;
            self.agent.handle_stream(job, length, ended, now);
            if !ended {
                self.running.insert(job, Watch::Adopted);
            }
        }
        Ok(())
    }

    fn run(&mut self) -> io::Result<()> {
        while !self.flags.stop.load(Ordering::Relaxed) {
            self.service.alive(Instant::now());
            if self.flags.reload.swap(false, Ordering::Relaxed) {
                service::reloading();
                self.reload();
                service::ready();
            }
            self.network.look_at_interfaces(Instant::now())?;
            self.tell_of_interfaces();
            self.take_labels();
            let interfaces = || self.network.interface_names().len();
            self.metrics
                .answer(|| metrics::page(&self.agent, interfaces()));
            self.agent.handle_timeout(Instant::now(), UnixTime::now());
            self.look_at_adopted();
            if self
                .not_remembered
                .as_ref()
                .is_some_and(|(_, at)| *at <= Instant::now())
            {
                self.remember();
            }
            while let Some(output) = self.agent.poll_output(&mut self.jobs, Instant::now()) {
                self.perform(output);
            }
            if let Some(e) = self.fatal.take() {
                return Err(e);
            }
            let ended = self.wait()?;
            for job in ended {
                self.report_stream(job);
            }
            let (agent, now, time) = (&mut self.agent, Instant::now(), UnixTime::now());
            self.network.receive(|datagram, ingress| {
                agent.handle_datagram(datagram, ingress, now, time);
            })?;
        }
        service::stopping();
        Ok(())
    }

    /// Logs configured interfaces that became unusable, or usable again.
    fn tell_of_interfaces(&mut self) {
        let there = self.network.interface_names();
        let missing = |name: &&String| !there.contains(&name.as_str());
        let missing: Vec<String> = self.interfaces.iter().filter(missing).cloned().collect();
        for name in missing.iter().filter(|name| !self.missing.contains(name)) {
            tracing::warn!(
                "interface {name:?} is not there, or cannot carry multicast: commands are heard on it once it can"
            );
        }
        for name in self.missing.iter().filter(|name| !missing.contains(name)) {
            tracing::info!("interface {name:?} is there: commands are heard on it");
        }
        self.missing = missing;
    }

    /// Adds the labels of the node's certificate, if the agent has lcroute's interface.
    fn take_labels(&mut self) {
        let local = self.local.lock().unwrap_or_else(PoisonError::into_inner);
        let here = local
            .as_ref()
            .filter(|node| self.network.interface_names().contains(&node.tun.as_str()));
        let labels = here.map(|node| node.labels.clone()).unwrap_or_default();
        drop(local);
        if labels != self.added {
            self.added = labels;
            self.configure();
        }
    }

    fn configure(&mut self) {
        let mut settings = self.settings.clone();
        add_labels(&mut settings.node.labels, &self.added);
        self.agent.configure(settings);
    }

    /// Waits for input or the next timeout; returns the jobs whose supervisors reported.
    fn wait(&mut self) -> io::Result<Vec<JobId>> {
        let adopted = |watch: &Watch| matches!(watch, Watch::Adopted);
        let turn = if self.running.values().any(adopted) {
            ADOPTED_INTERVAL
        } else {
            POLL_INTERVAL
        };
        let due = self.agent.next_timeout();
        let until = due.map_or(turn, |at| {
            at.saturating_duration_since(Instant::now()).min(turn)
        });
        let watched: Vec<(JobId, &File)> = self
            .running
            .iter()
            .filter_map(|(id, watch)| match watch {
                Watch::Supervised(supervised) => Some((*id, &supervised.pokes)),
                Watch::Adopted | Watch::Lost(_) => None,
            })
            .collect();
        let mut fds: Vec<PollFd<'_>> = watched.iter().map(|(_, p)| poll_in(*p)).collect();
        fds.push(poll_in(&self.flags.wake));
        fds.extend(
            self.network
                .fds()
                .map(|fd| PollFd::new(fd, PollFlags::POLLIN)),
        );
        match ppoll(&mut fds, Some(TimeSpec::from_duration(until)), None) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
        let ready = |fd: &PollFd<'_>| fd.any().unwrap_or(false);
        let jobs = watched.iter().zip(&fds).filter(|(_, fd)| ready(fd));
        let ended = jobs.map(|((id, _), _)| *id).collect();
        let _ = self.flags.wake.read();
        Ok(ended)
    }

    /// Handles a supervisor's report, or its end.
    fn report_stream(&mut self, job: JobId) {
        let Some(Watch::Supervised(supervised)) = self.running.get_mut(&job) else {
            return;
        };
        let mut buffer = [0; 4_096];
        let gone = loop {
            match supervised.pokes.read(&mut buffer) {
                Ok(0) => break true,
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break false,
                Err(_) => break true,
            }
        };
        if gone {
            supervised.wait();
        }
        self.look_at(job, gone);
    }

    fn look_at_adopted(&mut self) {
        let now = Instant::now();
        let due = self.running.iter().filter_map(|(id, watch)| match watch {
            Watch::Adopted => Some((*id, false)),
            Watch::Lost(at) => (*at <= now).then_some((*id, true)),
            Watch::Supervised(_) => None,
        });
        let due: Vec<(JobId, bool)> = due.collect();
        for (job, lost) in due {
            let gone = lost || self.jobs.job(job).is_abandoned();
            self.look_at(job, gone);
        }
    }

    /// Passes a job's progress to the core. `gone`: its supervisor has ended.
    fn look_at(&mut self, job: JobId, gone: bool) {
        let dir = self.jobs.job(job);
        let Ok((_, mut ended)) = dir.progress() else {
            self.running.remove(&job);
            return;
        };
        if gone && !ended {
            // the supervisor died: power, memory, a full disk, a kill
            kill_left_behind(&self.traces(job));
            let written = dir.close_lost();
            ended = written.is_ok();
            let again = Watch::Lost(Instant::now() + RETRY);
            let before = match written {
                Ok(()) => None,
                // it is not polled any more: a pipe at its end would wake us for ever
                Err(e) => self.running.insert(job, again).map(|before| (before, e)),
            };
            if let Some((Watch::Supervised(_) | Watch::Adopted, e)) = before {
                tracing::error!(
                    "{}: how the job ended cannot be written down: {e}; tried again until it can",
                    dir.path().display()
                );
            }
        }
        let Ok((length, _)) = dir.progress() else {
            self.running.remove(&job);
            return;
        };
        self.agent.handle_stream(job, length, ended, Instant::now());
        if ended {
            if let Some(Watch::Supervised(mut supervised)) = self.running.remove(&job) {
                supervised.wait();
            }
            self.log_end(job);
        }
    }

    /// Returns the traces of a job's processes after its supervisor's end.
    fn traces(&self, job: JobId) -> Traces {
        let supervisors = self.running.values().filter_map(|watch| match watch {
            Watch::Supervised(supervised) => Some(supervised.child.as_ref()?.id() as i32),
            Watch::Adopted | Watch::Lost(_) => None,
        });
        Traces {
            supervisors: self.has_supervisors_only.then(|| supervisors.collect()),
            ..self.jobs.job(job).traces()
        }
    }

    fn log_end(&mut self, job: JobId) {
        let dir = self.jobs.job(job);
        let Ok((principal, name)) = dir.principal() else {
            return;
        };
        let how = match dir.end() {
            Some(Record::Ended(ended)) => {
                format!("{} after {} ms", ended.how, ended.duration_us / 1_000)
            }
            _ => "in an unknown way".to_owned(),
        };
        let who = (&principal.operator, name.as_deref());
        if let Err(e) = self.audit.write(who, job, "ended", &how) {
            tracing::error!("audit log: {e}");
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Channel { via, datagram } => self.network.send(self.channel, via, &datagram),
            Output::Answers {
                operator,
                via,
                datagram,
            } => self.network.send(agent_answers(&operator), via, &datagram),
            Output::Remember => self.remember(),
            Output::RememberRevoked => {
                let text = self.agent.revoked().encode();
                if let Err(e) =
                    librecast::durable::replace(&self.state.join("revoked"), text.as_bytes())
                {
                    self.fatal = Some(io::Error::new(e.kind(), format!("revoked keys: {e}")));
                }
            }
            Output::Start(start) => self.start(&start),
            Output::Cancel(job) => {
                if let Err(e) = self.jobs.job(job).cancel() {
                    tracing::error!("cancelling {job}: {e}");
                }
                // a child gets a signal instead
                if let Some(Watch::Supervised(far)) = self.running.get_mut(&job)
                    && far.child.is_none()
                {
                    // it may have ended just now
                    let _ = far.pokes.write(b"c");
                }
            }
            Output::Facts(job) => {
                let names = modules::names(&self.modules);
                let facts = facts::collect(self.agent.running(), &names);
                self.agent
                    .handle_answer(job, &[Record::Facts(facts)], Instant::now());
            }
            Output::Jobs { job, operator } => self.list_jobs(job, &operator),
            Output::SharedKey(address) => tracing::error!(
                "another agent, at {address}, has the key of this one ({}): one of the two state folders is a copy. On the copy stop \
                 lcagent, remove {AGENT_KEY} from its state folder and start it again: it makes a key of its own; give it a name \
                 of its own as well",
                self.me
            ),
            Output::Delivered(job) => {
                // refused jobs have no folder
                let _ = self.jobs.job(job).set_delivered();
            }
            Output::Forget(job) => {
                let _ = self.jobs.job(job).remove();
            }
            Output::Audit {
                operator,
                name,
                job,
                what,
                verdict,
            } => {
                let who = (&operator, name.as_deref());
                if let Err(e) = self.audit.write(who, job, &verdict, &what) {
                    tracing::error!("audit log: {e}");
                }
            }
        }
    }

    /// Writes the replay window to disk. Without it no command starts: it could be replayed later.
    fn remember(&mut self) {
        let file = self.state.join("replay");
        let written = librecast::durable::replace(&file, &self.agent.replay().encode());
        let before = self.not_remembered.take();
        match (written, before) {
            (Ok(()), None) => {}
            (Ok(()), Some(_)) => tracing::info!("{}: written again", file.display()),
            (Err(e), before) => {
                if before.is_none() {
                    tracing::error!(
                        "{}: {e}: commands that were seen cannot be written down, so nothing is run until they can",
                        file.display()
                    );
                }
                self.not_remembered = Some((e, Instant::now() + RETRY));
            }
        }
    }

    fn list_jobs(&mut self, job: JobId, operator: &PeerId) {
        let all = self.jobs.all().unwrap_or_default();
        let mut states: Vec<_> = all
            .into_iter()
            .filter_map(|id| self.jobs.job(id).state_for(id, operator))
            .collect();
        // the latest first
        states.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        states.truncate(MAX_LISTED);
        let states = states.into_iter().map(|(_, state)| state);
        let mut records: Vec<Record> = states.map(Record::Job).collect();
        records.push(Record::Done);
        self.agent.handle_answer(job, &records, Instant::now());
    }

    fn start(&mut self, start: &Start) {
        if self.fatal.is_some() {
            return;
        }
        let (job, line) = (start.job, start.run.line_for_logs(start.seal.is_some()));
        let who = (&start.principal.operator, start.name.as_deref());
        let unwritten = |what: &str, e: &io::Error| {
            format!("the {what} cannot be written ({e}), so nothing is run")
        };
        let remembered = match &self.not_remembered {
            None => Ok(()),
            Some((e, _)) => Err(unwritten("replay window", e)),
        };
        let begun = remembered
            .and_then(|()| {
                let written = self.audit.write(who, job, "started", &line);
                written.map_err(|e| unwritten("audit log", &e))
            })
            .and_then(|()| {
                self.spawn(start)
                    .map_err(|e| format!("cannot start a job: {e}"))
            });
        if let Err(why) = begun {
            tracing::error!("{why}");
            let _ = self.jobs.job(job).remove();
            let _ = self.audit.write(who, job, "failed", &why);
            self.agent.handle_refused(job, &why, Instant::now());
        }
    }

    /// Returns the request to run, and the program to execute in place of the named one.
    fn program(&self, run: &Run) -> io::Result<(Run, Option<PathBuf>)> {
        if let Some(name) = run.module() {
            return Ok((run.clone(), Some(modules::find(&self.modules, name)?)));
        }
        let Some(copy) = run.copy().map_err(io::Error::other)? else {
            return Ok((run.clone(), None));
        };
        let mut dest = PathBuf::from(copy.dest);
        if let Some(file) = copy.file
            && (dest.is_dir() || copy.dest.ends_with('/'))
        {
            dest.push(file);
        }
        let mut arguments: Vec<OsString> = vec!["lcsync".into(), copy.source.into(), dest.into()];
        for interface in &self.interfaces {
            arguments.extend(["-i".into(), interface.into()]);
        }
        let program = crate::files::companion("lcsync").ok_or_else(|| {
            io::Error::other("lcsync is not installed on this node: copies need it")
        })?;
        let run = Run {
            arguments,
            ..run.clone()
        };
        Ok((run, Some(program)))
    }

    fn spawn(&mut self, start: &Start) -> io::Result<()> {
        let dir = self.jobs.job(start.job);
        let (run, program) = self.program(&start.run)?;
        dir.create(start, run, program)?;
        if let Some(socket) = &self.runner {
            let stream = UnixStream::connect(socket)
                .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", socket.display())))?;
            (&stream).write_all(start.job.to_string().as_bytes())?;
            stream.set_nonblocking(true)?;
            let pokes = File::from(OwnedFd::from(stream));
            let far = Supervised { child: None, pokes };
            self.running.insert(start.job, Watch::Supervised(far));
            return Ok(());
        }
        let mut command = Command::new("/proc/self/exe");
        let mut child = command
            .arg0("lcagent")
            .args(["--log", "warn", "supervise"])
            .arg(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let pokes = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        fcntl(&pokes, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let child = Supervised {
            child: Some(child),
            pokes: File::from(OwnedFd::from(pokes)),
        };
        self.running.insert(start.job, Watch::Supervised(child));
        Ok(())
    }

    fn reload(&mut self) {
        match Config::load(self.config_file.as_deref()) {
            Ok(config) => {
                tell_of_users(&config.settings);
                self.settings = config.settings;
                self.configure();
                self.modules = config.modules;
                if let Err(e) = serve_metrics(&mut self.metrics, config.metrics.as_ref()) {
                    tracing::error!("{e:#}");
                }
                tracing::info!("configuration read again; interfaces and channel need a restart");
            }
            Err(e) => tracing::error!("the configuration stays as it was: {e}"),
        }
    }
}

/// Makes this process the parent of supervisors' orphans. False if it may have other children: as
/// first process of a container, or if a script that started some became this process.
fn adopt_orphans() -> bool {
    let is_first = std::process::id() == 1;
    !is_first && !has_children() && nix::sys::prctl::set_child_subreaper(true).is_ok()
}

/// Warns at the start of users that do not exist, whose jobs would fail.
fn tell_of_users(settings: &Settings) {
    for allow in &settings.policy {
        let Some(user) = allow.user.as_deref().filter(|user| *user != "*") else {
            continue;
        };
        if let Ok(None) = User::from_name(user) {
            tracing::warn!(
                "[[allow]] of {}: there is no user {user:?} here: what it allows will fail",
                allow.key
            );
        }
    }
}

fn serve_metrics(served: &mut Served, listen: Option<&Listen>) -> anyhow::Result<()> {
    let shown = || listen.map(ToString::to_string).unwrap_or_default();
    served
        .listen(listen)
        .with_context(|| format!("[metrics] listen = {:?}", shown()))
}

fn poll_in<'a>(fd: &'a impl AsFd) -> PollFd<'a> {
    PollFd::new(fd.as_fd(), PollFlags::POLLIN)
}

/// Loads the agent's key; the first start makes it.
fn own_key(path: &Path) -> anyhow::Result<SecretKey> {
    if let Some(path) = service::credential("lcagent.agent.key") {
        return Ok(SecretKey::load(&path)?);
    }
    match SecretKey::load(path) {
        Err(IdError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            let key = SecretKey::generate();
            key.store(path)?;
            tracing::info!("new key {}", key.peer_id());
            Ok(key)
        }
        other => Ok(other?),
    }
}

/// Reads the revoked keys. An unreadable file is an error: otherwise the agent would execute
/// commands of revoked keys.
fn read_revoked(path: &Path) -> anyhow::Result<Revocations> {
    match fs::read_to_string(path) {
        Ok(text) => Revocations::decode(&text)
            .map_err(|line| anyhow::anyhow!("{}:{line}: no revocation", path.display())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Revocations::default()),
        Err(e) => Err(e).with_context(|| path.display().to_string()),
    }
}

/// Reads the replay window. An unreadable file is an error: commands could be replayed.
fn read_replay(path: &Path) -> anyhow::Result<ReplayWindow> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(MAX_SNAPSHOT as u64 + 1).read_to_end(&mut bytes)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(ReplayWindow::new()),
        Err(e) => return Err(e).with_context(|| path.display().to_string()),
    };
    ReplayWindow::decode(&bytes).map_err(|e| {
        anyhow::anyhow!(
            "{}: {e}; without it commands could be run twice: remove it once no command is under way",
            path.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_state_folder_that_others_can_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for (mode, good) in [
            (0o700, true),
            (0o755, true),
            (0o770, false),
            (0o1777, false),
        ] {
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(check_state(dir.path()).is_ok(), good, "{mode:o}");
        }
    }

    #[test]
    fn a_state_folder_of_another_user_is_refused() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(dir.path(), Some(65_534), None).unwrap();
        let refused = check_state(dir.path()).unwrap_err().to_string();
        assert!(refused.contains("belongs to user 65534"), "{refused}");
    }
}
