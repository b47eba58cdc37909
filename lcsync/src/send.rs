//! `lcsync send`: files under a code of four words, or by a public link, in a network of the run.
//!
//! The program executes itself as a guest that makes the network. Inside it serves the files as a
//! share on lc0, signed by a key of the run. Under a code it says so in beacons.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use librecast::channel::SharePrefix;
use librecast::code::beacon::{BEACON_INTERVAL, Beacon, Offer};
use librecast::id::SecretKey;
use librecast::time::UnixTime;
use librecast_program::cli::{Exit, ExitError, note, print_line};
use librecast_program::code::{INTERFACE, Offering};
use librecast_program::guest::{self, Founded};
use librecast_program::guest_state::{GuestState, Inside};
use librecast_program::interrupt;
use librecast_program::units::count;

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
/// Least interval of looks at the files for changes.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Least such interval in durations of a look.
const LOOK_FACTOR: u32 = 20;
/// Time of reading after which the user is informed.
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
    /// To whoever has the link: no code, and receivers are leaves.
    pub public: bool,
    /// A web server with the page that receives.
    pub page: Option<String>,
    /// Print nothing but the code or link.
    pub quiet: bool,
}

/// Sends the files until it is stopped.
pub fn send(options: &Options) -> anyhow::Result<Exit> {
    let paths = resolve(&options.paths)?;
    let mut way = match options.public {
        true => Way::link()?,
        false => Way::Code(Offering::begin()?.into()),
    };
    // before other threads
    interrupt::exit_on_interrupt(|| {})?;
    let (began, state) = (Instant::now(), way.state()?);
    let mut sender = Sender::new(paths, options)?;
    let (shown, receive) = match &way {
        Way::Code(_) => (state.code.clone(), "lcsync receive "),
        Way::Link(_) => (
            format!("{},lc:{SHARE}", state.leaf_token),
            "lcsync LINK DEST",
        ),
    };
    print_line(&shown)?;
    if !options.quiet {
        let (what, code) = (sender.describe(), &state.code);
        note(format_args!(
            "sending {what}; receive it with: {receive}{code}"
        ));
    }
    if let Some(page) = &options.page {
        let link = link(page, &shown);
        print_line(&link)?;
        if std::io::stdout().is_terminal() && !options.quiet {
            print_qr(&link);
        }
    }
    let mut progress = Progress::new(options.quiet);
    let mut look_at = Instant::now() + LOOK_EVERY;
    loop {
        let now = Instant::now();
        if options.duration.is_some_and(|time| began + time <= now) {
            return Ok(Exit::Ok);
        }
        way.repeat(|| sender.beacon(&state.name))?;
        // half of a change may be read: the next second has it
        let state = way.state();
        if let Ok(state) = &state {
            sender.set_upload(state.upload);
        }
        let state = state.unwrap_or_default();
        progress.show((state.present, state.left), sender.seed.sent());
        if look_at <= Instant::now() {
            look_at = Instant::now() + sender.look();
        }
    }
}

/// Returns the link of the page that receives: words behind the `#` go to no server.
fn link(page: &str, shown: &str) -> String {
    let page = page.trim_end_matches('/');
    let folder = if page.ends_with("/get") { "" } else { "/get" };
    format!("{page}{folder}/#{shown}")
}

/// Prints a QR code, which lcroute draws: `lcsync send` runs in its guest.
fn print_qr(link: &str) {
    let beside = std::env::current_exe().ok();
    let beside = beside.and_then(|own| Some(own.parent()?.join("lcroute")));
    let lcroute = beside.filter(|path| path.is_file());
    let drawn = Command::new(lcroute.unwrap_or_else(|| "lcroute".into()))
        .arg("qr")
        .stdin(Stdio::piped())
        .spawn()
        .and_then(|mut drawing| {
            if let Some(mut input) = drawing.stdin.take() {
                writeln!(input, "{link}")?;
            }
            drawing.wait()
        });
    // the link itself is printed
    if let Err(e) = drawn {
        tracing::warn!("the QR code: {e}");
    }
}

/// The way by which receivers learn of the share.
enum Way {
    /// By beacons, for holders of the words.
    Code(Box<Offering>),
    /// By a link, which has everything.
    Link(Inside),
}

impl Way {
    /// A program in no guest executes itself in one with a network of its own.
    fn link() -> anyhow::Result<Self> {
        let Some(inside) = Inside::of_environment()? else {
            return Err(guest::found(Founded::Public).into());
        };
        if inside.read()?.leaf_token.is_empty() {
            let message =
                "this guest's network has no public link: outside of it --public makes one";
            return Err(ExitError::new(Exit::Usage, message).into());
        }
        Ok(Self::Link(inside))
    }

    fn state(&self) -> std::io::Result<GuestState> {
        match self {
            Self::Code(offering) => offering.state(),
            Self::Link(inside) => inside.read(),
        }
    }

    /// Takes an interval of beacons.
    fn repeat(&mut self, beacon: impl FnOnce() -> Beacon) -> anyhow::Result<()> {
        match self {
            Self::Code(offering) => {
                offering.send(&beacon())?;
                Ok(offering.listen()?)
            }
            Self::Link(_) => {
                std::thread::sleep(BEACON_INTERVAL);
                Ok(())
            }
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
    /// Bits per second that leave this host at most; 0: unknown.
    upload: u64,
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
            upload: 0,
            seed,
        };
        sender.publish(index);
        Ok(sender)
    }

    /// Sends within this upload from now on; 0: it is unknown.
    fn set_upload(&mut self, upload: u64) {
        if self.upload != upload {
            self.upload = upload;
            self.seed.set_upload(Some(upload).filter(|rate| *rate > 0));
        }
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

/// Prints the present step if it takes long.
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
            // elsewhere only changes
            None if !self.quiet && self.last.unwrap_or_default() != (present, left) => note(line),
            None => {}
        }
        self.last = Some((present, left));
    }
}
