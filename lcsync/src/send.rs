//! `lcsync send`: files under a code of four words, in a network that the code makes.
//!
//! The program executes itself as a guest that makes the code. Inside it serves the files as a
//! share on lc0, signed by a key of the run, and says so in beacons.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use librecast::channel::SharePrefix;
use librecast::code::beacon::{
    BEACON_INTERVAL, BEACON_PORT, Beacon, LISTEN, Offer, ReceivedBeacons, beacon_group,
};
use librecast::id::SecretKey;
use librecast::socket::{ReceiveSockets, SendSocket, multicast_interfaces};
use librecast::time::UnixTime;
use librecast_program::cli::{Exit, ExitError, note, print_line};
use librecast_program::guest_state::{GuestState, Inside};
use librecast_program::units::count;
use librecast_program::{guest, interrupt};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::index::{HashCache, Index};
use crate::listing::shown;
use crate::record::Version;
use crate::scan::Scan;
use crate::server::core::Share;
use crate::server::rescan::Watched;
use crate::server::seed::Seed;
use crate::signature::sign;

/// Name of the share.
pub const SHARE: &str = "files";
/// The interface of a guest.
pub const INTERFACE: &str = "lc0";
/// Hop limit of beacons: they may reach the whole network.
const HOP_LIMIT: u8 = 64;
/// Least interval of looks at the files for changes.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Least such interval in durations of a look.
const LOOK_FACTOR: u32 = 20;
/// Time for a link to whoever sends already. Chosen: links take a second or two.
const ALONE: Duration = Duration::from_secs(4);
/// Interval of looks for others meanwhile.
const LOOK: Duration = Duration::from_millis(200);
/// Time of reading after which the user is told of it.
const READING: Duration = Duration::from_secs(2);

/// Options of the command line.
#[derive(Debug)]
pub struct Options {
    /// Files and folders.
    pub paths: Vec<PathBuf>,
    /// Time after which it ends.
    pub duration: Option<Duration>,
    /// Bits per second.
    pub limit: Option<u64>,
    /// Print nothing but the code.
    pub quiet: bool,
}

/// Sends the files until told to stop.
pub fn send(options: &Options) -> anyhow::Result<Exit> {
    let paths = resolve(&options.paths)?;
    let Some(inside) = Inside::of_environment()? else {
        return Err(guest::found().into());
    };
    let state = inside.read()?;
    // before other threads
    interrupt::exit_on_interrupt(|| {})?;
    let began = Instant::now();
    let mut beacons = Beacons::open(&state)?;
    if !state.founds {
        beacons.refuse_second(&inside)?;
    }
    let mut sender = Sender::new(paths, options)?;
    print_line(&state.code)?;
    if !options.quiet {
        let what = sender.describe();
        note(format_args!(
            "sending {what}; receive it with: lcsync receive {}",
            state.code
        ));
    }
    let mut progress = Progress::new(options.quiet);
    let mut look_at = Instant::now() + LOOK_EVERY;
    loop {
        let now = Instant::now();
        if options.duration.is_some_and(|time| began + time <= now) {
            return Ok(Exit::Ok);
        }
        beacons.send(&sender.beacon(&state.name))?;
        if let Some(other) = beacons.listen(now + BEACON_INTERVAL)? {
            note(format_args!(
                "somebody else, {other}, sends under these words, too: receivers take nothing; begin again, and pass on the new words"
            ));
        }
        // half of a change may be read: the next second has it
        let state = inside.read().unwrap_or_default();
        progress.show((state.present, state.left), sender.seed.sent());
        if look_at <= Instant::now() {
            look_at = Instant::now() + sender.look();
        }
    }
}

/// Returns absolute paths without links, with different names.
fn resolve(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut names: BTreeMap<_, &Path> = BTreeMap::new();
    let mut found = Vec::new();
    for path in paths {
        let shown = || path.display().to_string();
        let real = path.canonicalize().with_context(shown)?;
        let usage = |message: String| ExitError::new(Exit::Usage, message);
        let name = real
            .file_name()
            .ok_or_else(|| usage(format!("{}: has no name: send what is in it", shown())))?;
        let kind = real.metadata().with_context(shown)?;
        if !kind.is_file() && !kind.is_dir() {
            return Err(usage(format!("{}: neither a file nor a folder", shown())).into());
        }
        if let Some(other) = names.insert(name.to_owned(), path) {
            let message = format!(
                "{} and {} have one name: send them apart, or in a folder",
                other.display(),
                shown()
            );
            return Err(usage(message).into());
        }
        found.push(real);
    }
    Ok(found)
}

/// The files, as a share.
struct Sender {
    paths: Vec<PathBuf>,
    key: SecretKey,
    cache: HashCache,
    /// The scan of the present version.
    scan: Scan,
    /// A changed scan that was seen once; it is sent when seen again.
    pending: Option<Scan>,
    bytes: u64,
    files: u64,
    generation: u64,
    seed: Seed,
}

impl Sender {
    fn new(paths: Vec<PathBuf>, options: &Options) -> anyhow::Result<Self> {
        let key = SecretKey::generate();
        let mut cache = HashCache::default();
        let index = tell_if_slow("reading what is to be sent", options.quiet, || {
            let scan = Scan::of_paths(paths.clone())?;
            scan.name_special();
            scan.name_too_long();
            anyhow::Ok(Index::of(scan, b"", &mut cache)?)
        })?;
        let watched = Watched {
            name: SHARE.into(),
            prefix: SharePrefix::of_name(b"", SHARE),
            path: PathBuf::new(),
            signer: None,
            key: None,
            interfaces: Vec::new(),
            limit: None,
            listed: false,
        };
        let seed = Seed::start_alone(watched, vec![INTERFACE.into()], options.limit)?;
        let mut sender = Self {
            paths,
            key,
            cache,
            scan: index.scan.clone(),
            pending: None,
            bytes: 0,
            files: 0,
            generation: 0,
            seed,
        };
        sender.publish(index);
        Ok(sender)
    }

    fn publish(&mut self, index: Index) {
        self.generation = UnixTime::now().as_millis().max(self.generation + 1);
        (self.bytes, self.files) = (index.bytes(), index.files());
        self.scan = index.scan.clone();
        let version = Version {
            generation: self.generation,
            root: index.root,
            metadata: index.metadata,
        };
        let authentication = sign(&self.key, SHARE, &version);
        let share = Share::unsigned(Arc::new(index), self.generation);
        self.seed.serve(Share {
            authentication,
            ..share
        });
    }

    /// Sends changed files in their new version; returns the time until the next look.
    fn look(&mut self) -> Duration {
        let began = Instant::now();
        match Scan::of_paths(self.paths.clone()) {
            Err(e) => tracing::warn!("what is sent is not all there any more: {e}"),
            Ok(scan)
                if (&scan.entries, &scan.stamps) == (&self.scan.entries, &self.scan.stamps) =>
            {
                self.pending = None;
            }
            // it is being written
            Ok(scan) if self.pending.as_ref() != Some(&scan) => self.pending = Some(scan),
            Ok(scan) => match Index::of(scan, b"", &mut self.cache) {
                Ok(index) => {
                    self.pending = None;
                    self.publish(index);
                    note(format_args!(
                        "files have changed: sending {}",
                        self.describe()
                    ));
                }
                Err(e) => tracing::warn!("{e}"),
            },
        }
        LOOK_EVERY.max(began.elapsed() * LOOK_FACTOR)
    }

    /// Returns names, number and size of the files.
    fn describe(&self) -> String {
        describe(&self.scan, self.files, self.bytes)
    }

    fn beacon(&self, from: &str) -> Beacon {
        Beacon {
            offer: Offer::Files,
            from: from.to_owned(),
            bytes: self.bytes,
            files: self.files,
            line: self.key.peer_id().to_string(),
        }
    }
}

/// Most names at the top that are shown.
const SHOWN: usize = 4;

fn describe(scan: &Scan, files: u64, bytes: u64) -> String {
    let entries = scan.entries.iter();
    let top = entries.filter(|entry| !entry.path.contains(&b'/'));
    let mut names: Vec<String> = top.clone().take(SHOWN).map(name_of).collect();
    if top.count() > SHOWN {
        names.push("...".to_owned());
    }
    let files = usize::try_from(files).unwrap_or(usize::MAX);
    let (names, files) = (names.join(", "), count(files, "file"));
    format!("{names} ({files}, {})", HumanBytes(bytes))
}

fn name_of(entry: &crate::listing::Entry) -> String {
    let slash = match entry.kind {
        crate::listing::Kind::Folder => "/",
        _ => "",
    };
    shown(&entry.path) + slash
}

/// Says what is being done if it takes long.
fn tell_if_slow<T>(what: &str, quiet: bool, work: impl FnOnce() -> T) -> T {
    let (done, waiting) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let slow = waiting.recv_timeout(READING);
            if !quiet && slow == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                note(what);
            }
        });
        let result = work();
        drop(done);
        result
    })
}

/// The group of the code's beacons.
struct Beacons {
    group: Ipv6Addr,
    socket: SendSocket,
    received: ReceiveSockets,
    own: Ipv6Addr,
    heard: ReceivedBeacons,
    /// What this program has sent last.
    sent: Vec<u8>,
    told: bool,
}

impl Beacons {
    fn open(state: &GuestState) -> anyhow::Result<Self> {
        let group = beacon_group(&state.beacon_key());
        let index = interface()?;
        let socket = SendSocket::open(index, group, BEACON_PORT, HOP_LIMIT).context(INTERFACE)?;
        let mut received = ReceiveSockets::open(BEACON_PORT)?;
        received.join(group, index)?;
        Ok(Self {
            group,
            own: socket.source()?,
            socket,
            received,
            heard: ReceivedBeacons::default(),
            sent: Vec::new(),
            told: false,
        })
    }

    fn send(&mut self, beacon: &Beacon) -> anyhow::Result<()> {
        let bytes = beacon.encode()?;
        // a full queue: the next second has one
        if let Err(e) = self.socket.send(self.group, &bytes, bytes.len()) {
            tracing::debug!("beacon: {e}");
        }
        self.sent = bytes;
        Ok(())
    }

    /// Listens until then; returns the name of another sender, once.
    fn listen(&mut self, until: Instant) -> anyhow::Result<Option<String>> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let fds = self.received.fds();
            let mut fds: Vec<_> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            // at least one millisecond, at most the interval of beacons
            let millis = left.as_millis().clamp(1, 2_000) as u16;
            match poll(&mut fds, PollTimeout::from(millis)) {
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
            let (own, sent, heard) = (self.own, &self.sent, &mut self.heard);
            self.received.receive(|datagram| {
                if datagram.source != own || datagram.payload != sent {
                    heard.handle(datagram.source, datagram.payload, Instant::now());
                }
            })?;
        }
        let other = self.heard.first().map(|beacon| beacon.from.clone());
        Ok(other.filter(|_| !std::mem::replace(&mut self.told, true)))
    }

    /// Ends the program if somebody sends already: listens once others are there, or seem not to be.
    fn refuse_second(&mut self, inside: &Inside) -> anyhow::Result<()> {
        let alone_until = Instant::now() + ALONE;
        let mut until = alone_until + LISTEN;
        loop {
            let now = Instant::now();
            let is_alone = inside.read().is_ok_and(|state| state.present == 0);
            if !is_alone {
                until = until.min(now + LISTEN);
            }
            if now >= until {
                return Ok(());
            }
            if let Some(from) = self.listen(now + LOOK)? {
                let message = format!(
                    "somebody else, {from}, sends under these words already: `lcsync send` outside of this guest makes new ones"
                );
                return Err(ExitError::new(Exit::NotPermitted, message).into());
            }
        }
    }
}

/// Returns the index of the guest's interface.
pub fn interface() -> anyhow::Result<u32> {
    let found = multicast_interfaces(&[INTERFACE.to_owned()])?;
    let first = found.keys().next().copied();
    first.context("there is no lc0, which guests have")
}

/// Lines of progress: on a terminal one that changes.
struct Progress {
    bar: Option<ProgressBar>,
    quiet: bool,
    last: Option<(usize, usize)>,
}

impl Progress {
    fn new(quiet: bool) -> Self {
        let bar = !quiet && std::io::stderr().is_terminal();
        let bar = bar.then(|| {
            let bar = ProgressBar::no_length();
            if let Ok(style) = ProgressStyle::with_template("{msg}") {
                bar.set_style(style);
            }
            bar
        });
        Self {
            bar,
            quiet,
            last: None,
        }
    }

    fn show(&mut self, (present, left): (usize, usize), sent: u64) {
        let nodes = count(present, "node");
        let verb = if present == 1 { "receives" } else { "receive" };
        let have = if left == 1 { "has" } else { "have" };
        let sent = HumanBytes(sent);
        let line = format!("{nodes} {verb}, {left} {have} left; {sent} sent; Ctrl-C ends it");
        match &self.bar {
            Some(bar) => bar.set_message(line),
            // elsewhere only what changes
            None if !self.quiet && self.last.unwrap_or_default() != (present, left) => note(line),
            None => {}
        }
        self.last = Some((present, left));
    }
}
