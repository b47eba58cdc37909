//! `lcsync send`: files under a code of four words, or by a public link, in a network of the run.
//!
//! The program executes itself as a guest that makes the network. Inside it serves the files as a
//! share on lc0, signed by a key of the run. Under a code it says so in beacons.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::HumanBytes;
use librecast::channel::SharePrefix;
use librecast::code::beacon::{BEACON_INTERVAL, Beacon, Offer};
use librecast::id::SecretKey;
use librecast_program::arguments::STANDARD_INPUT;
use librecast_program::cli::{Exit, ExitError, note, note_of_input, print_line};
use librecast_program::code::{INTERFACE, Offering};
use librecast_program::guest::{self, Founded};
use librecast_program::guest_state::{GuestState, Inside};
use librecast_program::units::count;
use librecast_program::{interrupt, standard};

use crate::folder::absolute;
use crate::index::Index;
use crate::listing::{is_plain_name, shown};
use crate::progress::Progress;
use crate::scan::Scan;
use crate::sent_line::SentLine;
use crate::server::hosted::Share;
use crate::server::rescan::{self, Kept, Update, Watched};
use crate::server::seed::Seed;
use crate::spool::{MOST_BYTES, Spool};

/// Name of the share.
pub const SHARE: &str = "files";
/// Least interval of lines about changed files, as some never rest. Chosen: the longest wait for
/// them to rest.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// Time of reading after which the user is informed.
const READING: Duration = Duration::from_secs(2);

/// Name of the file with a text.
const TEXT_NAME: &str = "text.txt";
/// Name of the file with standard input, unless the user gives one.
const INPUT_NAME: &str = "stdin";
/// Tells how far words without a server reach.
const ON_LAN: &str = "these words reach hosts of this LAN alone; to get further, name a signalling server: \
    LCROUTE_SIGNAL=HOST before the command, or [signal] servers in ~/.config/lcroute/lcroute.toml";

/// Options of the command line.
#[derive(Debug)]
pub struct Options {
    /// Files and folders; `-` is standard input.
    pub paths: Vec<PathBuf>,
    /// A text in place of them.
    pub text: Option<String>,
    /// Name of the file with standard input.
    pub name: Option<String>,
    /// Time after which it ends.
    pub duration: Option<Duration>,
    /// Bits per second.
    pub limit: Option<u64>,
    /// To anyone with the link: no code, and receivers are leaves.
    pub public: bool,
    /// A web server with the page that receives.
    pub page: Option<String>,
    /// Print nothing but the code or link.
    pub quiet: bool,
}

impl Options {
    /// Returns the name of the file that must be made first, if there is one.
    fn made_name(&self) -> Result<Option<&str>, ExitError> {
        let usage = |message: String| Err(ExitError::new(Exit::Usage, message));
        if self.text.is_some() {
            return Ok(Some(TEXT_NAME));
        }
        let inputs = self.paths.iter().filter(|path| is_input(path)).count();
        match (inputs, self.name.as_deref().unwrap_or(INPUT_NAME)) {
            (0, _) if self.name.is_some() => {
                usage("--name is for standard input, which is - among the files".to_owned())
            }
            (0, _) => Ok(None),
            (1, name) if is_plain_name(name.as_bytes()) => Ok(Some(name)),
            (1, name) => usage(format!("{name:?} cannot be a file's name")),
            _ => usage("-: standard input can be sent once".to_owned()),
        }
    }
}

fn is_input(path: &Path) -> bool {
    path.as_os_str() == STANDARD_INPUT
}

/// Sends the files until it is stopped.
pub fn send(options: &Options) -> anyhow::Result<Exit> {
    let made_name = options.made_name()?;
    let mut paths = resolve(&options.paths, made_name)?;
    let mut way = match options.public {
        true => Way::link()?,
        false => Way::Code(Offering::begin()?.into()),
    };
    // its file is gone with it
    let _spool = make_file(options, made_name, &mut paths)?;
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
        let (what, code) = (&sender.offered.text, &state.code);
        note(format_args!(
            "sending {what}; receive it with: {receive}{code}"
        ));
        if is_on_lan(code) {
            note(ON_LAN);
        }
    }
    if let Some(page) = &options.page {
        let link = link(page, &shown);
        print_line(&link)?;
        if std::io::stdout().is_terminal() && !options.quiet {
            print_qr(&link);
        }
    }
    let mut progress = Progress::new(false, options.quiet, Instant::now());
    loop {
        let now = Instant::now();
        if options.duration.is_some_and(|time| began + time <= now) {
            return Ok(Exit::Ok);
        }
        way.repeat(|| sender.beacon(&state.name))?;
        // half of a change may be read: the next second has it
        let state = way.state().unwrap_or_default();
        progress.show_sending((state.present, state.left), sender.seed.sent());
        sender.take_changes(options.quiet);
    }
}

/// Whether the words reach no further than a LAN; a link has none.
fn is_on_lan(code: &str) -> bool {
    !code.is_empty() && !code.contains('@')
}

/// Makes a file of the text or standard input, and adds its path. Precedes other threads: an
/// interrupt removes the file.
fn make_file(
    options: &Options,
    name: Option<&str>,
    paths: &mut Vec<PathBuf>,
) -> anyhow::Result<Option<Spool>> {
    let spool = name.map(Spool::new).transpose()?;
    let folder = spool.as_ref().map(|spool| spool.folder().to_owned());
    interrupt::exit_on_interrupt(move || {
        if let Some(folder) = folder {
            // the system empties folders for temporary files
            let _ = fs::remove_dir_all(folder);
        }
    })?;
    let Some(spool) = spool else { return Ok(None) };
    match &options.text {
        Some(text) => {
            let line = format!("{}\n", text.trim_end_matches('\n'));
            spool.fill(line.as_bytes(), MOST_BYTES).context("text")?;
        }
        None => {
            if !options.quiet && std::io::stdin().is_terminal() {
                note_of_input("what is to be sent");
            } else if !options.quiet {
                note("reading standard input to its end; the words come then");
            }
            let filled = spool.fill(standard::input(), MOST_BYTES);
            filled.context("standard input")?;
        }
    }
    paths.push(spool.path().to_owned());
    Ok(Some(spool))
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
                thread::sleep(BEACON_INTERVAL);
                Ok(())
            }
        }
    }
}

/// Returns absolute paths with different names, of links their own: all but standard input, which
/// becomes a file with the name `made`.
fn resolve(paths: &[PathBuf], made: Option<&str>) -> anyhow::Result<Vec<PathBuf>> {
    let made = made.map(|name| (OsString::from(name), Path::new(STANDARD_INPUT)));
    let mut names: BTreeMap<OsString, &Path> = made.into_iter().collect();
    let mut found = Vec::new();
    for path in paths.iter().filter(|path| !is_input(path)) {
        let shown = || path.display().to_string();
        let named = absolute(path).with_context(shown)?;
        let usage = |message: String| ExitError::new(Exit::Usage, message);
        let name = named
            .file_name()
            .ok_or_else(|| usage(format!("{}: has no name: send what is in it", shown())))?;
        let kind = path.metadata().with_context(shown)?;
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
        found.push(named);
    }
    Ok(found)
}

/// The files, as a share.
struct Sender {
    key: Arc<SecretKey>,
    /// Receivers print it.
    is_text: bool,
    /// The version that is sent.
    offered: Offered,
    /// Later ones, which a thread serves as they come.
    versions: Receiver<Offered>,
    /// When the next changed version may be told.
    tell_at: Instant,
    /// Whether this version has not been told.
    untold: bool,
    seed: Arc<Seed>,
}

/// A version of the files, for users and beacons.
struct Offered {
    bytes: u64,
    files: u64,
    /// Names, number and size of the files.
    text: String,
}

impl Offered {
    fn of(index: &Index) -> Self {
        let (bytes, files) = (index.bytes(), index.files());
        Self {
            bytes,
            files,
            text: describe(&index.scan, files, bytes),
        }
    }
}

impl Sender {
    fn new(chosen: Vec<PathBuf>, options: &Options) -> anyhow::Result<Self> {
        let key = Arc::new(SecretKey::generate());
        let watched = Watched {
            name: SHARE.into(),
            prefix: SharePrefix::of_name(b"", SHARE),
            path: PathBuf::new(),
            chosen,
            signer: Some(Arc::clone(&key)),
            key: None,
            interfaces: Vec::new(),
            limit: None,
            listed: false,
        };
        let (list, wanted) = channel();
        // its receiver is here
        let _ = list.send(vec![watched.clone()]);
        // a key of the run needs nothing that outlives it
        let updates = rescan::start(wanted, Kept::default(), || {}, Arc::default())?;
        let share = first_version(&updates, options.quiet)?;
        // it serves signed versions, and signs none
        let served = Watched {
            signer: None,
            ..watched
        };
        let seed = Seed::start_alone(served, vec![INTERFACE.into()], options.limit)?;
        let seed = Arc::new(seed);
        let offered = Offered::of(&share.index);
        seed.serve(share);
        Ok(Self {
            key,
            is_text: options.text.is_some(),
            offered,
            versions: serve_later(updates, Arc::clone(&seed))?,
            tell_at: Instant::now(),
            untold: false,
            seed,
        })
    }

    /// Takes the latest version, and tells the user of it now and then.
    fn take_changes(&mut self, quiet: bool) {
        if let Some(latest) = self.versions.try_iter().last() {
            self.offered = latest;
            self.untold = !quiet;
        }
        let now = Instant::now();
        if self.untold && self.tell_at <= now {
            (self.untold, self.tell_at) = (false, now + TELL_EVERY);
            let text = &self.offered.text;
            note(format_args!("files have changed: sending {text}"));
        }
    }

    fn beacon(&self, from: &str) -> Beacon {
        let line = SentLine {
            signer: self.key.peer_id(),
            is_text: self.is_text,
        };
        Beacon {
            offer: Offer::Files,
            from: from.to_owned(),
            bytes: self.offered.bytes,
            files: self.offered.files,
            line: line.to_string(),
        }
    }
}

/// Waits for the first version; prints this step if it takes long.
fn first_version(updates: &Receiver<Update>, quiet: bool) -> anyhow::Result<Share> {
    let first = updates.recv_timeout(READING).or_else(|_| {
        if !quiet {
            note("reading what is to be sent");
        }
        updates.recv()
    });
    match first.context("the thread that reads the files has ended")? {
        Update::Share { share, .. } => Ok(share),
        Update::Failed(error) => Err(error),
        other => anyhow::bail!("no first version, but {other:?}"),
    }
}

/// Serves later versions on a thread, as they come; returns what they are.
fn serve_later(updates: Receiver<Update>, seed: Arc<Seed>) -> std::io::Result<Receiver<Offered>> {
    let (later, versions) = channel();
    let serve = move || {
        for update in updates {
            if let Update::Share { share, .. } = update {
                let offered = Offered::of(&share.index);
                seed.serve(share);
                // the receiver only goes at the end of the process
                let _ = later.send(offered);
            }
        }
    };
    thread::Builder::new()
        .name("versions".into())
        .spawn(serve)?;
    Ok(versions)
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_link_is_sent_under_the_name_that_the_user_gave() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("store/5d01/sub")).unwrap();
        fs::write(at("store/3f9a"), b"report").unwrap();
        fs::write(at("store/5d01/sub/f"), b"photo").unwrap();
        symlink("store/3f9a", at("report.pdf")).unwrap();
        symlink("store/5d01", at("photos")).unwrap();
        let paths = [at("report.pdf"), at("photos"), at("store/5d01/sub/..")];
        let chosen = resolve(&paths, None).unwrap();
        let scan = Scan::of_paths(&chosen).unwrap();
        let paths: Vec<_> = scan.entries.iter().map(|e| shown(&e.path)).collect();
        let below = ["5d01", "5d01/sub", "5d01/sub/f", "photos", "photos/sub"];
        assert_eq!(paths[..5], below);
        assert_eq!(paths[5..], ["photos/sub/f", "report.pdf"]);
        assert_eq!(scan.path_of(5), at("photos/sub/f"));
        let index = Index::of(scan, b"", &mut crate::index::HashCache::default()).unwrap();
        assert_eq!((index.bytes(), index.scan.unread), (16, 0));
        let again = resolve(&[at("photos"), at("store/../photos")], None);
        assert!(again.unwrap_err().to_string().contains("one name"));
        let input = resolve(&[at("photos"), "-".into()], Some("photos"));
        assert!(input.unwrap_err().to_string().starts_with("- and "));
    }

    #[test]
    fn standard_input_is_one_file_with_the_name_that_the_user_gives() {
        let name_of = |paths: &[&str], name: Option<&str>| {
            let options = Options {
                paths: paths.iter().map(PathBuf::from).collect(),
                text: None,
                name: name.map(str::to_owned),
                duration: None,
                limit: None,
                public: false,
                page: None,
                quiet: false,
            };
            let made = options.made_name();
            made.map(|made| made.map(str::to_owned)).map_err(|e| e.exit)
        };
        let named = |name: &str| Ok(Some(name.to_owned()));
        assert_eq!(name_of(&["-"], None), named("stdin"));
        assert_eq!(name_of(&["a", "-"], Some("log.txt")), named("log.txt"));
        assert_eq!(name_of(&["a", "./-"], None), Ok(None));
        for (paths, name) in [
            (&["a"][..], Some("log.txt")),
            (&["-", "-"], None),
            (&["-"], Some("a/b")),
            (&["-"], Some("")),
        ] {
            assert_eq!(name_of(paths, name), Err(Exit::Usage), "{paths:?} {name:?}");
        }
    }

    #[test]
    fn only_words_without_a_server_are_for_a_lan_alone() {
        assert!(is_on_lan("abandon-zoo-quality-lemon"));
        assert!(!is_on_lan("abandon-zoo-quality-lemon@meet.example"));
        assert!(!is_on_lan(""));
    }
}
