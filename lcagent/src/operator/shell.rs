//! The shell of `lcagent exec`, `nodes` etc.: sockets, files and clock for the operator's core.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::mem::MaybeUninit;
use std::net::Ipv6Addr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use librecast::announce;
use librecast::channel::{agent_answers, agent_group};
use librecast::id::{IdError, PeerId, SecretKey};
use librecast::time::UnixTime;
use librecast_program::cli::{Exit, ExitError};
use librecast_program::interrupt::on_signals;
use librecast_program::units::{count, parse_duration};
use nix::libc;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::Signal;
use nix::sys::time::TimeSpec;

use super::core::{Event, Fate, KnownNode, NodeFate, Operator, Output, Sender, Settings, pace};
use super::known::{Book, Entry, is_selected};
use crate::acknowledgement::short_id;
use crate::agent::config::DEFAULT_CHANNEL;
use crate::certificate::Certificate;
use crate::datagram::JobId;
use crate::envelope::{Command, MAX_LIFETIME_S, Signed};
use crate::network::Network;
use crate::record::NodeInfo;
use crate::request::{Request, What};
use crate::sealed::{AnswerKey, seal_request};
use crate::selector::Selector;

/// Pauses before each sending of an interrupted command's cancellation, in milliseconds.
const INSIST: [u64; 3] = [0, 60, 180];

/// To whom a command goes, and as whom.
#[derive(Debug, Args)]
pub struct Options {
    /// Which nodes: names with globs, label=value; `,` and, `+` or, `!` not
    #[arg(long = "on", value_name = "SELECTOR", default_value = "all")]
    pub selector: Selector,
    /// Our key [default: $XDG_CONFIG_HOME/lcagent/operator.key]
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// What vouches for our key (`lcagent certify`) [default: the key's file and .cert, if it is there]
    #[arg(long, value_name = "FILE")]
    pub certificate: Option<PathBuf>,
    /// How long nodes have to answer
    #[arg(long, value_name = "D", default_value = "60s", value_parser = parse_timeout)]
    pub timeout: Duration,
    /// The channel that the agents listen to
    #[arg(long, value_name = "NAME", default_value = DEFAULT_CHANNEL, env = "LCAGENT_CHANNEL")]
    pub channel: String,
    /// Use this interface only (may be repeated)
    #[arg(short, value_name = "IFACE")]
    pub interfaces: Vec<String>,
    /// Believe only nodes that are known already
    #[arg(long)]
    pub strict: bool,
    /// Seal it for the known nodes that are selected, which must be accepted (`lcagent nodes --accept`): no other host can read
    /// request and answers
    #[arg(long)]
    pub encrypt: bool,
    /// Our own files [default: below $XDG_STATE_HOME]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Whether to wait for unknown nodes even shortly after the last wait.
    #[arg(skip)]
    pub meet: bool,
    /// Time in which nodes may start it; by default `timeout`.
    #[arg(skip)]
    pub valid: Option<Duration>,
}

/// Parses a time for answers.
pub fn parse_timeout(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text).map_err(|e| e.to_string())?;
    // requests have milliseconds in 32 bits
    if time.is_zero() || time > Duration::from_secs(40 * 24 * 3600) {
        return Err("between 1ms and 40d".into());
    }
    Ok(time)
}

/// An operator: key, files, sockets.
#[derive(Debug)]
pub struct Session {
    key: SecretKey,
    certificate: Option<Certificate>,
    book: Book,
    channel: String,
    network: Network,
    interrupt: Arc<Interrupt>,
}

/// The signal that ended it, if any.
#[derive(Debug)]
struct Interrupt {
    wake: EventFd,
    signal: AtomicI32,
}

/// The result of a command.
#[derive(Debug)]
pub struct Outcome {
    /// The results of all nodes.
    pub fates: Vec<NodeFate>,
    /// Nodes that answered, as they describe themselves.
    pub answered: Vec<(PeerId, NodeInfo)>,
    /// Hosts with a shared key, and their addresses.
    pub sharing: BTreeMap<Sender, Ipv6Addr>,
    /// Set if a signal ended it.
    pub interrupted: Option<Exit>,
}

impl Session {
    /// Reads the key and opens the sockets.
    pub fn open(options: &Options) -> anyhow::Result<Self> {
        let file = key_file(options.key.as_deref());
        let key = load_key(&file)?;
        let certificate = load_certificate(options.certificate.as_deref(), &file, &key)?;
        let dir = options.state_dir.clone().unwrap_or_else(default_state_dir);
        let book = Book::open(dir)?;
        let interrupt = Arc::new(Interrupt {
            wake: EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?,
            signal: AtomicI32::new(0),
        });
        let noted = Arc::clone(&interrupt);
        on_signals(&ending_signals(), move |signal| {
            if noted.signal.swap(signal as i32, Ordering::Relaxed) != 0 {
                // the second time exits without cleaning up
                std::process::exit(exit_of(signal as i32) as i32);
            }
            let _ = noted.wake.write(1);
        })?;
        let answers = agent_answers(&key.peer_id());
        announce::start(vec![(answers, 128)])?;
        let network = Network::open(answers, &options.interfaces, Instant::now())
            .context("multicast sockets")?;
        if network.interface_names().is_empty() {
            let what = match options.interfaces.as_slice() {
                [] => "there is no interface that can carry multicast".to_owned(),
                names => format!("{}: not there, or cannot carry multicast", names.join(", ")),
            };
            return Err(ExitError::new(Exit::Unreachable, what).into());
        }
        Ok(Self {
            key,
            certificate,
            book,
            channel: options.channel.clone(),
            network,
            interrupt,
        })
    }

    /// Returns the known nodes that `options` select.
    pub fn known(&self, options: &Options) -> anyhow::Result<Vec<Entry>> {
        let mut known = self.book.channel(&self.channel)?;
        known.retain(|e| is_selected(e, &options.selector));
        Ok(known)
    }

    /// Carries out one command for the nodes in `only`, or for all selected ones if it is empty.
    /// Passes the job and each event to `show`.
    pub fn carry_out(
        &mut self,
        options: &Options,
        what: &What,
        only: &[Entry],
        mut show: impl FnMut(JobId, &Event) -> io::Result<()>,
    ) -> anyhow::Result<Outcome> {
        if let Some((one, other)) = options.selector.contradiction() {
            let message = format!(
                "no node is both {one} and {other}: `,` means and; --on {one}+{other} selects either"
            );
            return Err(ExitError::new(Exit::Unreachable, message).into());
        }
        let known = self.book.channel(&self.channel)?;
        let (expected, others): (Vec<_>, Vec<_>) = known.iter().partition(|e| {
            is_selected(e, &options.selector) && (only.is_empty() || only.contains(e))
        });
        if options.encrypt && expected.is_empty() {
            let what = format!(
                "no known node is selected by {}, so there is nobody to seal it for: `lcagent nodes` meets them",
                options.selector
            );
            return Err(ExitError::new(Exit::Unreachable, what).into());
        }
        if options.encrypt {
            refuse_unaccepted(&expected)?;
        }
        let closed = !only.is_empty() || options.encrypt;
        let selector = options.selector.to_string();
        let met = |book: &Book| book.has_met(&self.channel, &selector, UnixTime::now());
        let meeting = !closed && (options.meet || expected.is_empty() || !met(&self.book));
        let sealed_for: Vec<PeerId> = expected
            .iter()
            .filter(|_| options.encrypt)
            .map(|e| e.key)
            .collect();
        let (spread, window) = pace(expected.len());
        let request = Request {
            // at most 2,048
            spread_ms: spread.as_millis() as u16,
            window,
            only: only.iter().map(|e| short_id(&e.key)).collect(),
            what: what.clone(),
        };
        let (signed, seals) = self.sign(options, &request, &sealed_for)?;
        let job = signed.job;
        let as_known = |entries: Vec<&Entry>| -> Vec<KnownNode> {
            let known = |e: &Entry| KnownNode {
                id: e.key,
                name: e.name.clone(),
            };
            entries.into_iter().map(known).collect()
        };
        let settings = Settings {
            expected: as_known(expected),
            others: as_known(others),
            strict: options.strict,
            closed,
            meeting,
            seals,
            timeout: options.timeout,
            spread,
            window,
        };
        let key = SecretKey::from_seed(&self.key.seed());
        let mut operator = Operator::new(key, signed, settings, Instant::now());
        let mut answered = Vec::new();
        let followed = self.follow(&mut operator, what, |event| {
            if let Event::Appeared { id, node, .. } = event {
                answered.push((id.key, node.clone()));
            }
            show(job, event)
        });
        // no reader of the answers is left, for any cause
        let has_gone = !matches!(followed, Ok(None));
        if has_gone && matches!(what, What::Run(_)) {
            self.cancel(options, job)?;
        }
        let interrupted = followed?;
        self.book.note(&self.channel, &answered)?;
        if meeting && interrupted.is_none() && !answered.is_empty() {
            self.book
                .note_meeting(&self.channel, &selector, UnixTime::now())?;
        }
        tracing::debug!("{job}: {:?}", operator.counters());
        let fates = operator.fates();
        if interrupted.is_none() {
            let silent = fates.iter().filter(|node| node.fate == Fate::Silent);
            let silent: Vec<_> = silent.map(|node| node.id.key).collect();
            for name in self.book.forget_ephemeral(&self.channel, &silent)? {
                tracing::warn!("{name} keeps nothing and did not answer: forgotten until it does");
            }
        }
        let keys: BTreeSet<PeerId> = fates.iter().map(|node| node.id.key).collect();
        let sharing = keys.iter().flat_map(|key| {
            let streams = operator.sharing(key).into_iter();
            streams.map(|(stream, address)| {
                let stream = Some(stream);
                (Sender { key: *key, stream }, address)
            })
        });
        Ok(Outcome {
            sharing: sharing.collect(),
            fates,
            answered,
            interrupted,
        })
    }

    /// Runs the command until it is over, or a signal comes: then returns its exit code.
    fn follow(
        &mut self,
        operator: &mut Operator,
        what: &What,
        mut show: impl FnMut(&Event) -> io::Result<()>,
    ) -> anyhow::Result<Option<Exit>> {
        let mut progress = None;
        loop {
            let now = Instant::now();
            operator.handle_timeout(now);
            if operator.is_over(now) {
                operator.finish();
            }
            while let Some(output) = operator.poll_output() {
                match output {
                    Output::Channel(datagram) => self.send(&datagram),
                    Output::Event(event) => show(&event)?,
                }
            }
            if operator.is_over(now) {
                return Ok(None);
            }
            let far = operator.progress();
            if progress.replace(far) != Some(far) {
                show(&Event::Progress(far))?;
            }
            let signal = self.interrupt.signal.load(Ordering::Relaxed);
            if signal != 0 {
                return Ok(Some(exit_of(signal)));
            }
            let has_reader = self.wait(operator.next_timeout())?;
            // other commands finish even without a reader
            if !has_reader && matches!(what, What::Run(_)) {
                return Err(io::Error::from(io::ErrorKind::BrokenPipe).into());
            }
            self.network.look_at_interfaces(Instant::now())?;
            self.network.receive(|datagram, ingress| {
                operator.handle_datagram(datagram, ingress.source, Instant::now());
            })?;
        }
    }

    /// Waits, and joins groups on new interfaces; returns the exit code if a signal comes first.
    pub fn pause(&mut self, until: Instant) -> anyhow::Result<Option<Exit>> {
        loop {
            let signal = self.interrupt.signal.load(Ordering::Relaxed);
            if signal != 0 {
                return Ok(Some(exit_of(signal)));
            }
            if Instant::now() >= until {
                return Ok(None);
            }
            self.wait(until)?;
            self.network.look_at_interfaces(Instant::now())?;
            // late answers of the last round
            self.network.receive(|_, _| {})?;
        }
    }

    /// Returns the signed datagrams, and the keys of the answers if it is `sealed_for` nodes.
    fn sign(
        &self,
        options: &Options,
        request: &Request,
        sealed_for: &[PeerId],
    ) -> anyhow::Result<(Signed, BTreeMap<PeerId, AnswerKey>)> {
        let usage = |e: String| ExitError::new(Exit::Usage, e);
        let issued = UnixTime::now().as_secs();
        let lifetime = options.valid.unwrap_or(options.timeout).as_secs().max(1);
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).map_err(|e| anyhow::anyhow!("no randomness: {e}"))?;
        let sequence = self.book.sequence()?;
        let bad = |e| usage(format!("command: {e}"));
        let plain = request.encode().map_err(bad)?;
        let (payload, seals) = if sealed_for.is_empty() {
            (plain, BTreeMap::new())
        } else {
            seal_request(&plain, &self.key.peer_id(), sealed_for).map_err(bad)?
        };
        let command = Command {
            selector: options.selector.clone(),
            issued,
            not_after: issued + lifetime.min(MAX_LIFETIME_S),
            sequence,
            nonce,
            payload,
        };
        let signed = command.sign_as(&self.key, self.certificate.as_ref());
        Ok((signed.map_err(|e| usage(e.to_string()))?, seals))
    }

    /// Ends the jobs of a command without waiting for answers.
    fn cancel(&self, options: &Options, job: JobId) -> anyhow::Result<()> {
        let request = Request {
            spread_ms: 0,
            window: 1,
            only: Vec::new(),
            what: What::Cancel(job),
        };
        let (signed, _) = self.sign(options, &request, &[])?;
        for pause in INSIST {
            std::thread::sleep(Duration::from_millis(pause));
            self.send(&signed.envelope);
        }
        Ok(())
    }

    fn send(&self, datagram: &[u8]) {
        self.network.send(agent_group(&self.channel), 0, datagram);
    }

    /// Waits for input or the time; returns whether standard output still has a reader.
    fn wait(&self, until: Instant) -> io::Result<bool> {
        let left = until.saturating_duration_since(Instant::now());
        let turn = left.min(Duration::from_secs(1));
        let stdout = io::stdout();
        // errors are always reported
        let mut fds = vec![PollFd::new(stdout.as_fd(), PollFlags::empty())];
        let ours = self.network.fds();
        fds.extend(ours.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        fds.push(PollFd::new(self.interrupt.wake.as_fd(), PollFlags::POLLIN));
        match ppoll(&mut fds, Some(TimeSpec::from_duration(turn)), None) {
            Ok(_) => {
                let gone = PollFlags::POLLERR | PollFlags::POLLHUP;
                Ok(fds[0]
                    .revents()
                    .is_none_or(|events| !events.intersects(gone)))
            }
            Err(nix::Error::EINTR) => Ok(true),
            Err(e) => Err(e.into()),
        }
    }
}

/// Refuses sealing for nodes that the operator has not accepted: any host can answer, and so be
/// met.
fn refuse_unaccepted(expected: &[&Entry]) -> Result<(), ExitError> {
    /// Names that the error shows. Chosen.
    const MOST: usize = 8;
    let mut unaccepted: Vec<&&Entry> = expected.iter().filter(|e| !e.accepted).collect();
    unaccepted.sort_by_key(|e| &e.name);
    if unaccepted.is_empty() {
        return Ok(());
    }
    let shown = &unaccepted[..unaccepted.len().min(MOST)];
    let names: Vec<&str> = shown.iter().map(|e| e.name.as_str()).collect();
    let keys: Vec<String> = shown
        .iter()
        .map(|e| format!("\n  {} {}", e.name, e.key))
        .collect();
    let more = match unaccepted.len() - shown.len() {
        0 => String::new(),
        more => format!("\n  and {}", count(more, "other")),
    };
    let message = format!(
        "nothing was sent: met, but not accepted as nodes of yours:{}{more}\nanybody on the channel can answer under any name. \
         Compare their keys with what `lcagent run` said on the nodes, then `lcagent nodes --accept {}`",
        keys.concat(),
        names.join(" ")
    );
    Err(ExitError::new(Exit::NotPermitted, message))
}

/// Returns the signals that end an operator; a closed terminal sends SIGHUP. If SIGHUP (as under
/// nohup) or SIGQUIT is ignored, it stays so.
fn ending_signals() -> Vec<Signal> {
    let mut signals = vec![Signal::SIGINT, Signal::SIGTERM];
    let more = [Signal::SIGHUP, Signal::SIGQUIT].into_iter();
    signals.extend(more.filter(|signal| !is_ignored(*signal)));
    signals
}

fn is_ignored(signal: Signal) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: a query that sets nothing; the struct is read only after success
    unsafe {
        libc::sigaction(signal as i32, std::ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

fn exit_of(signal: i32) -> Exit {
    if [Signal::SIGINT as i32, Signal::SIGQUIT as i32].contains(&signal) {
        Exit::Interrupted
    } else {
        Exit::Terminated
    }
}

/// Returns the default folder of an operator's state.
#[must_use]
pub fn default_state_dir() -> PathBuf {
    crate::files::user_dir("XDG_STATE_HOME", ".local/state").join("lcagent")
}

/// Returns the path of the operator's key.
pub(crate) fn key_file(path: Option<&Path>) -> PathBuf {
    let default =
        || crate::files::user_dir("XDG_CONFIG_HOME", ".config").join("lcagent/operator.key");
    path.map_or_else(default, Path::to_path_buf)
}

/// Returns the certificate of `key`, if it has one.
fn load_certificate(
    path: Option<&Path>,
    key_file: &Path,
    key: &SecretKey,
) -> anyhow::Result<Option<Certificate>> {
    let mut beside = key_file.as_os_str().to_owned();
    beside.push(".cert");
    let file = path.map_or(PathBuf::from(beside), Path::to_path_buf);
    let refused =
        |why: String| ExitError::new(Exit::NotPermitted, format!("{}: {why}", file.display()));
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound && path.is_none() => return Ok(None),
        Err(e) => return Err(refused(e.to_string()).into()),
    };
    let certificate: Certificate = text.trim().parse().map_err(|e| refused(format!("{e}")))?;
    if certificate.operator != key.peer_id() {
        return Err(refused(format!(
            "vouches for {}, not for this key",
            certificate.operator
        ))
        .into());
    }
    if certificate.not_after < UnixTime::now().as_secs() {
        return Err(refused("has expired; ask who gave it for a new one".into()).into());
    }
    Ok(Some(certificate))
}

pub(crate) fn load_key(path: &Path) -> anyhow::Result<SecretKey> {
    SecretKey::load(path).map_err(|e| {
        let message = match &e {
            IdError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => format!(
                "{}: no operator key; make one with `lcagent keygen {0}` and list it in the agents' [[allow]]",
                path.display()
            ),
            _ => e.to_string(),
        };
        ExitError::new(Exit::NotPermitted, message).into()
    })
}
