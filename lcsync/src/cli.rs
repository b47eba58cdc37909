//! The command line.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use librecast_program::cli::{Exit, ExitError, finish, init_logging, print_line, show_usage};
use librecast_program::keyfile::{self, SharedKey};
use librecast_program::keygen::{KeyKind, keygen};
use librecast_program::metrics::Listen;
use librecast_program::units::{parse_duration, parse_rate};
use librecast_program::{arguments, groups, guest};

use crate::attributes::Selection;
use crate::block::BlockHash;
use crate::index::{HashCache, Index};
use crate::listing::is_plain_name;
use crate::local::changes::{Check, Keep};
use crate::local::filter::Filter;
use crate::name::check_name;
use crate::server::config::ShareOptions;
use crate::server::shell::Shares;
use crate::{local, receive, receive_code, send, server, status};

/// File sync over multicast, to any number of receivers at the cost of one, and locally.
#[derive(Debug, Parser)]
#[command(
    name = "lcsync",
    version,
    subcommand_negates_reqs = true,
    subcommand_precedence_over_arg = true,
    arg_required_else_help = true,
    after_help = "Examples:\n  \
        lcsync send report.pdf photos/        to whoever has the four words that it prints\n  \
        lcsync receive tiger-harbor-lemon-quiz\n                                              \
        what is sent under these words\n  \
        lcsync share ~/photos                 serve a folder as lc:photos; no port is opened\n  \
        lcsync lc:photos /backup/photos       fetch it, or what has changed\n  \
        lcsync lct1...,lc:photos DEST         in a network, by a token for leaves: no root, no daemon\n  \
        lcsync lc:photos#ROOTHASH DEST        exactly this version\n  \
        lcsync lc:photos DEST --trust KEY.pub only what this key has signed\n  \
        lcsync lc:photos DEST --seed          fetch it, and serve it to others as well\n  \
        lcsync lc:disk.img /dev/sdb --write-devices\n                                              \
        write a disk, and read it back\n  \
        lcsync lc:disk.img - | partclone.restore -s - -o /dev/sdb1\n                                              \
        to a pipe, in order\n  \
        lcsync -a src/ dest                   locally, as rsync does\n  \
        lcsync hash /backup/photos            the root hash, as `share` prints it"
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    sync: Sync,
    /// Log level: error, warn, info, debug, trace
    #[arg(long, global = true, value_name = "LEVEL")]
    log: Option<String>,
}

const SEND: &str = "\
Whoever has the words receives, any number, late ones too, as long as this runs. On one LAN no server is needed. Beyond,
set LCROUTE_SIGNAL, or [signal] servers in ~/.config/lcroute/lcroute.toml: then the words end with @HOST.
Words are for people who know each other: each of them could send in your place. --public is for all others.

Examples:
  lcsync send report.pdf photos/
  journalctl -b | lcsync send - --name boot.log
  lcsync send --text 'see you at 8'
  LCROUTE_SIGNAL=meet.example lcsync send --page https://meet.example:7180 report.pdf
  LCROUTE_SIGNAL=meet.example lcsync send --public report.pdf
  LCROUTE_SIGNAL=meet.example lcsync send --for 2h report.pdf";

const RECEIVE: &str = "\
Words may be cut to four letters, with spaces between them; inside of `lcroute guest CODE`, - stands for its words.
A text goes to standard output where no folder is named. DEST - takes a single file there.
Nothing that is there is replaced without --overwrite. Exit code 3: nobody sends under these words; 4: two do.

Examples:
  lcsync receive tiger-harbor-lemon-quiz
  lcsync receive tiger harbor lemon quiz ~/Downloads
  lcsync receive tiger-harbor-lemon-quiz - | less
  lcsync receive tiger-harbor-lemon-quiz@meet.example";

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve files and folders until told to stop
    #[command(after_help = "Examples:\n  \
        lcsync share /srv/photos              as lc:photos, on all interfaces; prints name and root hash\n  \
        lcsync share --name backup -i eth0 --bwlimit 200M /srv/data\n  \
        lcsync share --sign owner.key --keyfile team.key plans/\n  \
        lcsync share --lcgroup team plans/      for members of a group of lcgroup\n  \
        lcsync share --config /etc/lcsync/site.toml")]
    Share(Share),
    /// Send files to anyone with the four printed words: no root, no daemon, no account
    #[command(after_help = SEND)]
    Send {
        /// Files and folders; - is standard input, which is sent once it has ended
        #[arg(required_unless_present = "text")]
        path: Vec<PathBuf>,
        /// Send a text, which `lcsync receive` prints. Other users of this host can read it here, and not what - reads
        #[arg(long, allow_hyphen_values = true, conflicts_with_all = ["path", "name", "public"])]
        text: Option<String>,
        /// Name of the file that standard input becomes [default: stdin]
        #[arg(long)]
        name: Option<String>,
        /// End after this time; without it Ctrl-C ends it
        #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
        duration: Option<Duration>,
        /// Send no faster than this, in bits per second
        #[arg(long, value_name = "RATE", value_parser = parse_rate)]
        bwlimit: Option<u64>,
        /// To everybody: print a link that may stand on a page, in place of words; its readers can only receive
        #[arg(long)]
        public: bool,
        /// Print a link of this web server (`lcroute web`), too, with the page that receives
        #[arg(long, value_name = "URL", env = "LCROUTE_PAGE", value_parser = page)]
        page: Option<String>,
        /// Print nothing but the words or link, and errors
        #[arg(short, long)]
        quiet: bool,
    },
    /// Receive what somebody sends under four words
    #[command(after_help = RECEIVE)]
    Receive {
        /// The words, and the folder to receive into [default: this one], or - for standard output
        #[arg(value_name = "WORDS", required = true, num_args = 1..=5)]
        arguments: Vec<OsString>,
        /// Replace files that are there and differ, and put new names into folders that are there
        #[arg(long)]
        overwrite: bool,
        /// Take more than 1 GB, or 1,000 files, without a question
        #[arg(long)]
        yes: bool,
        /// Take hidden names (a part begins with . or -), and replace links, without a question
        #[arg(long)]
        hidden: bool,
        /// Give up after this long without a packet
        #[arg(long, value_name = "D", default_value = "30s", value_parser = parse_duration)]
        timeout: Duration,
        /// Receive no faster than this on average, in bits per second
        #[arg(long, value_name = "RATE", value_parser = parse_rate)]
        bwlimit: Option<u64>,
        /// Progress and result as JSON, one document a line
        #[arg(long)]
        json: bool,
        /// Print nothing but errors
        #[arg(short, long)]
        quiet: bool,
    },
    /// Make a key that hosts share (for --keyfile), or one that signs
    #[command(after_help = "Examples:\n  \
        lcsync keygen team.key                a secret for all hosts that serve or fetch\n  \
        lcsync keygen --sign owner.key        owner.key (keep it) and owner.key.pub (for --trust)")]
    Keygen {
        /// A signing key: FILE is secret, FILE.pub is for all and is printed
        #[arg(long)]
        sign: bool,
        /// Where the secret goes, readable by you alone; nothing is overwritten
        file: PathBuf,
    },
    /// List what is shared here, of what wants to be listed
    #[command(after_help = "Examples:\n  \
        lcsync ls                             names, sizes, who serves them, root hashes\n  \
        lcsync ls -i lc0 --keyfile team.key   shares sealed with this key")]
    Ls {
        /// Use this interface only (may be repeated); all multicast-capable ones by default
        #[arg(short, value_name = "IFACE")]
        interface: Vec<String>,
        /// The shared key that the shares are sealed with
        #[arg(long, value_name = "FILE")]
        keyfile: Option<PathBuf>,
        /// Listen no longer than this
        #[arg(long, value_name = "D", default_value = "3s", value_parser = parse_duration)]
        timeout: Duration,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Fetch one file or folder of a share
    #[command(after_help = "Examples:\n  \
        lcsync get lc:photos/2026/june.jpg .  into this folder\n  \
        lcsync get lc:photos/2026 /backup     what is in this folder of the share\n  \
        lcsync get lc:team/plans//draft .     where the share's name has a slash")]
    Get {
        /// lc:NAME/PATH, or lc:NAME//PATH
        #[arg(value_name = "lc:NAME/PATH")]
        what: OsString,
        /// Where to
        dest: PathBuf,
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        share: OfShares,
    },
    /// Show the shares of this host, their receivers and rates
    #[command(after_help = "Examples:\n  \
        lcsync status                         a line for each share: listeners, rates, what was sent\n  \
        lcsync status photos                  all about one: its listeners, and the blocks they ask for\n  \
        lcsync status --watch                 the same once a second; q ends it\n  \
        lcsync status --json                  for programs: an object for each share")]
    Status {
        /// Only the share of this name, with its listeners and channels
        name: Option<String>,
        /// Print a JSON object for each share
        #[arg(long)]
        json: bool,
        /// Show it again each second, until told to stop
        #[arg(long)]
        watch: bool,
    },
    /// Print the root hash of a file or folder
    #[command(after_help = "Example:\n  \
        lcsync hash /backup/photos            what `lcsync share` prints of it, whatever modes and times are")]
    Hash {
        /// File or folder
        path: PathBuf,
    },
}

#[derive(Debug, Args)]
struct Share {
    /// Files and folders
    #[arg(required_unless_present = "config")]
    path: Vec<PathBuf>,
    /// Share what this file says, and read it again on SIGHUP
    #[arg(long, value_name = "FILE", conflicts_with_all = ["path", "name", "sign", "keyfile", "lcgroup"])]
    config: Option<PathBuf>,
    /// Share under this name instead of the path's last component
    #[arg(long)]
    name: Option<String>,
    /// Use this interface only (may be repeated); all multicast-capable ones by default
    #[arg(short, value_name = "IFACE")]
    interface: Vec<String>,
    /// Send no faster than this, all channels together, in bits per second
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    bwlimit: Option<u64>,
    /// Serve metrics for Prometheus here: a unix socket or an address
    #[arg(long, value_name = "PATH|ADDR:PORT")]
    metrics: Option<Listen>,
    /// Sign each version with this key, as `keygen --sign` makes it
    #[arg(long, value_name = "KEY")]
    sign: Option<PathBuf>,
    /// Name it to all hosts here that ask for shares (lcsync ls)
    #[arg(long, conflicts_with = "config")]
    listed: bool,
    /// Seal everything, names included, with this shared key, as `keygen` makes it
    #[arg(long, value_name = "FILE")]
    keyfile: Option<PathBuf>,
    /// Offer it to the members of a group of lcgroup: sealed for them, signed by this host's member
    #[arg(long, value_name = "GROUP", conflicts_with_all = ["keyfile", "sign"])]
    lcgroup: Option<String>,
}

/// An address of a web server.
fn page(text: &str) -> Result<String, String> {
    let host = ["https://", "http://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme));
    let is_host = |host: &str| !host.is_empty() && !host.starts_with('/');
    match host.is_some_and(is_host) && !text.contains(['#', ' ']) {
        true => Ok(text.to_owned()),
        false => Err("an address of a page, such as https://meet.example:7180".to_owned()),
    }
}

#[derive(Debug, Args)]
struct Sync {
    /// lc:NAME, lc:NAME#ROOTHASH, or local paths
    #[arg(value_name = "SRC", required = true, num_args = 1..)]
    source: Vec<OsString>,
    /// Where to; of a shared file, - is standard output
    #[arg(value_name = "DEST", required = true)]
    dest: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    share: OfShares,
    #[command(flatten)]
    local: Local,
}

/// Options of all copies.
#[derive(Debug, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are the flags of a command line"
)]
struct Common {
    /// Archive: modes and times as well; locally -r and -l, -p, -t, -g, -o, -D
    #[arg(short, long)]
    archive: bool,
    /// Recurse into folders (a share comes whole anyway)
    #[arg(short, long)]
    recursive: bool,
    /// Dry run: say what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Print the names of changed files
    #[arg(short, long)]
    verbose: bool,
    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,
    /// Delete from DEST what is not in SRC
    #[arg(long, alias = "del")]
    delete: bool,
    /// Delete no more than N files and folders (of a share: for each version that comes); where there were more, the exit
    /// code is 1
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    max_delete: Option<i64>,
    /// Make holes of zeroes (of whole blocks of them a share's receiver always does)
    #[arg(short = 'S', long)]
    sparse: bool,
    /// Print what it has cost
    #[arg(long)]
    stats: bool,
    /// Receive, or write, no faster than this on average, in bits per second
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    bwlimit: Option<u64>,
}

impl Common {
    /// As rsync's: a negative one forbids all.
    fn max_delete(&self) -> Option<u64> {
        self.max_delete.map(|n| u64::try_from(n).unwrap_or(0))
    }
}

/// Options for `lc:NAME` alone.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options for lc:NAME")]
struct OfShares {
    /// Use this interface only (may be repeated); all multicast-capable ones by default
    #[arg(short, value_name = "IFACE")]
    interface: Vec<String>,
    /// Take versions signed by this key only: FILE.pub, the text in it, or book:NAME
    #[arg(long, value_name = "PUBKEY")]
    trust: Option<String>,
    /// Serve what has come, while it comes and afterwards, until told to stop
    #[arg(long, conflicts_with = "dry_run")]
    seed: bool,
    /// Pass nothing on to those who fetch it over lc0 at the same time
    #[arg(long, conflicts_with = "seed")]
    no_seed: bool,
    /// Mirror: wait for changes and fetch them, until told to stop
    #[arg(long, conflicts_with = "dry_run")]
    watch: bool,
    /// Put hidden names (a part begins with . or -) into the home folder without a question
    #[arg(long)]
    hidden: bool,
    /// DEST is a block device: write the shared file into it, and read back what was written
    #[arg(long)]
    write_devices: bool,
    /// The shared key that the share is sealed with
    #[arg(long, value_name = "FILE")]
    keyfile: Option<PathBuf>,
    /// A member of this group of lcgroup offers it; GROUP/MEMBER says who, by name or key
    #[arg(long, value_name = "GROUP", conflicts_with_all = ["keyfile", "trust"])]
    lcgroup: Option<String>,
    /// Give up after this long without a packet
    #[arg(long, value_name = "D", default_value = "30s", value_parser = parse_duration)]
    timeout: Duration,
    /// Progress and result as JSON, one document a line
    #[arg(long)]
    json: bool,
}

/// Options for local copies alone.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options for local copies, as rsync has them")]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are the flags of a command line"
)]
struct Local {
    /// Compare every byte of files that have the same size, whatever their times
    #[arg(short, long)]
    checksum: bool,
    /// Compare sizes only
    #[arg(long, conflicts_with = "checksum")]
    size_only: bool,
    /// Take all files for changed
    #[arg(short = 'I', long, conflicts_with_all = ["checksum", "size_only"])]
    ignore_times: bool,
    /// Print what changes about each entry (-i)
    #[arg(long)]
    itemize_changes: bool,
    /// Leave out what matches (may be repeated; with --include the first match decides)
    #[arg(long, value_name = "PATTERN", allow_hyphen_values = true)]
    exclude: Vec<OsString>,
    /// Take what matches, whatever a later pattern says
    #[arg(long, value_name = "PATTERN", allow_hyphen_values = true)]
    include: Vec<OsString>,
    /// Leave out what the patterns in this file match
    #[arg(long, value_name = "FILE", allow_hyphen_values = true)]
    exclude_from: Vec<PathBuf>,
    /// Take what the patterns in this file match
    #[arg(long, value_name = "FILE", allow_hyphen_values = true)]
    include_from: Vec<PathBuf>,
    /// Delete from DEST what patterns leave out as well
    #[arg(long, requires = "delete")]
    delete_excluded: bool,
    /// Write into files that are there, only what is different
    #[arg(long)]
    inplace: bool,
    /// Names of one file in SRC are names of one file in DEST
    #[arg(short = 'H', long)]
    hard_links: bool,
    /// Keep ACLs, and modes
    #[arg(short = 'A', long)]
    acls: bool,
    /// Keep extended attributes; without root, user attributes only
    #[arg(short = 'X', long)]
    xattrs: bool,
    /// --devices --specials (-a has it)
    #[arg(short = 'D')]
    devices_and_specials: bool,
    /// Copy devices: as root only
    #[arg(long)]
    devices: bool,
    /// Copy FIFOs and sockets
    #[arg(long)]
    specials: bool,
    /// Keep what was copied of a file when interrupted, and go on from it
    #[arg(long)]
    partial: bool,
    /// Leave files alone that are newer in DEST
    #[arg(short, long)]
    update: bool,
    /// Nothing new: only what is in DEST already
    #[arg(long)]
    existing: bool,
    /// Only what is not in DEST yet
    #[arg(long)]
    ignore_existing: bool,
    /// Do not enter what is mounted in SRC
    #[arg(short = 'x', long)]
    one_file_system: bool,
    /// Copy symbolic links
    #[arg(short, long)]
    links: bool,
    /// Keep modes
    #[arg(short, long)]
    perms: bool,
    /// Keep modification times
    #[arg(short, long)]
    times: bool,
    /// Keep groups: those that this user is in
    #[arg(short, long)]
    group: bool,
    /// Keep owners: as root only
    #[arg(short, long)]
    owner: bool,
    /// End when all is on disk
    #[arg(long)]
    fsync: bool,
    #[arg(skip)]
    filter: Filter,
}

/// The command line itself, for man pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// The program.
#[must_use]
pub fn main() -> ExitCode {
    guest::or_here("lcsync", || {
        match parse(arguments::given().iter().cloned()) {
            Ok(cli) => finish("lcsync", run(cli)),
            Err(usage) => show_usage(&usage),
        }
    })
}

/// Options of a transfer have no meaning before a verb; `--log` has. (The parser's own rule for this
/// takes `--log debug share PATH` for a SRC called "share".) Nor have those of a share where SRC is a path.
fn parse(args: impl IntoIterator<Item = OsString>) -> clap::error::Result<Cli> {
    let mut command = Cli::command();
    let args = translate(args.into_iter().collect(), &command);
    let matches = command
        .try_get_matches_from_mut(args)
        .map_err(|e| explain(e, &mut command))?;
    let given = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    let mut conflict = |message| Err(command.error(ErrorKind::ArgumentConflict, message));
    if let Some((verb, _)) = matches.subcommand() {
        let groups = ["log", "Sync", "Common", "OfShares", "Local"];
        let mut ids = matches.ids().map(clap::Id::as_str).filter(|id| given(id));
        if let Some(id) = ids.find(|id| !groups.contains(id)) {
            return conflict(format!("`{id}` must follow `{verb}`, if `{verb}` knows it"));
        }
    } else {
        let sources = matches.get_many::<OsString>("source").into_iter().flatten();
        let shares = sources.filter(|s| s.as_bytes().starts_with(b"lc:")).count();
        let all = matches
            .get_many::<OsString>("source")
            .map_or(0, Iterator::count);
        let (others, meant) = match shares {
            0 => (
                options_of::<OfShares>(),
                "shares: SRC would have to be lc:NAME",
            ),
            _ if all > 1 => {
                return conflict("lc:NAME is fetched alone: it has one DEST".to_owned());
            }
            _ => (
                options_of::<Local>(),
                "local copies: SRC would have to be a path",
            ),
        };
        if let Some(option) = others.iter().find(|option| given(option.get_id().as_str())) {
            return conflict(format!("{} is for {meant}", option_name(option)));
        }
    }
    let mut cli = Cli::from_arg_matches(&matches)?;
    match filter_of(&matches) {
        Ok(filter) => cli.sync.local.filter = filter,
        Err(error) => return Err(command.error(ErrorKind::ValueValidation, error)),
    }
    Ok(cli)
}

/// In local copies `-i` is what rsync's users mean by it; elsewhere it names an interface. Names behind `--` are written so
/// that the parser takes them for names: several SRC and a DEST are too much for it there.
fn translate(args: Vec<OsString>, command: &clap::Command) -> Vec<OsString> {
    let share = args.iter().any(|arg| arg.as_bytes().starts_with(b"lc:"));
    let is_verb = |arg: &OsString| arg == "help" || command.find_subcommand(arg).is_some();
    let words = words(&args, command);
    let is_name = |word: &Word| matches!(word, Word::Name | Word::NameBehind);
    let first = words.iter().zip(&args).find(|(word, _)| is_name(word));
    let verb = first.is_some_and(|(word, arg)| *word == Word::Name && is_verb(arg));
    if verb {
        return args;
    }
    let mut out = Vec::new();
    let mut given = false;
    for (word, arg) in words.into_iter().zip(args) {
        match (word, arg.as_bytes()) {
            (Word::Letters, letters) if !share && letters.contains(&b'i') => {
                let others: Vec<u8> = letters.iter().copied().filter(|c| *c != b'i').collect();
                if others != b"-" {
                    out.push(OsString::from_vec(others));
                }
                given = true;
            }
            (Word::Behind, _) => {}
            (Word::NameBehind, name) if name.starts_with(b"-") || is_verb(&arg) => {
                out.push(OsString::from_vec([b"./", name].concat()));
            }
            _ => out.push(arg),
        }
    }
    if given {
        out.insert(1.min(out.len()), "--itemize-changes".into());
    }
    out
}

/// What an argument is where the options of a copy are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    /// The program's own name, a long option, or the value of one.
    Other,
    /// Short options.
    Letters,
    Name,
    /// `--`: names are behind it.
    Behind,
    NameBehind,
}

fn words(args: &[OsString], command: &clap::Command) -> Vec<Word> {
    let takes_value = |name: &[u8]| {
        let mut options = command.get_arguments();
        let option = options.find(|o| o.get_long().map(str::as_bytes) == Some(name));
        option.is_some_and(|option| option.get_action().takes_values())
    };
    let mut words = Vec::with_capacity(args.len());
    // the first word is the program's name
    let (mut is_value, mut is_behind) = (true, false);
    for arg in args {
        words.push(match arg.as_bytes() {
            _ if is_behind => Word::NameBehind,
            _ if std::mem::take(&mut is_value) => Word::Other,
            b"--" => {
                is_behind = true;
                Word::Behind
            }
            [b'-', b'-', name @ ..] => {
                is_value = takes_value(name);
                Word::Other
            }
            // none of these takes a value, except `-i` for an interface
            [b'-', _, ..] => Word::Letters,
            _ => Word::Name,
        });
    }
    words
}

fn options_of<A: Args>() -> Vec<clap::Arg> {
    let command = A::augment_args(clap::Command::new(""));
    command.get_arguments().cloned().collect()
}

fn option_name(option: &clap::Arg) -> String {
    match (option.get_long(), option.get_short()) {
        (Some(long), _) => format!("--{long}"),
        (None, short) => short.map(|c| format!("-{c}")).unwrap_or_default(),
    }
}

/// Patterns in the order of the command line.
fn filter_of(matches: &clap::ArgMatches) -> Result<Filter, String> {
    let mut rules = Vec::new();
    for (id, takes) in [("exclude", false), ("include", true)] {
        let patterns = matches.get_many::<OsString>(id).into_iter().flatten();
        let places = matches.indices_of(id).into_iter().flatten();
        rules.extend(places.zip(patterns.map(|p| (takes, p.as_bytes().to_vec(), false))));
    }
    for (id, takes) in [("exclude_from", false), ("include_from", true)] {
        let files = matches.get_many::<PathBuf>(id).into_iter().flatten();
        let places = matches.indices_of(id).into_iter().flatten();
        for (place, file) in places.zip(files) {
            let text = std::fs::read(file).map_err(|e| format!("{}: {e}", file.display()))?;
            rules.push((place, (takes, text, true)));
        }
    }
    rules.sort_by_key(|(place, _)| *place);
    let mut filter = Filter::default();
    for (_, (takes, text, is_file)) in rules {
        match is_file {
            true => filter.add_lines(&text, takes)?,
            false => filter.add(&text, takes)?,
        }
    }
    Ok(filter)
}

/// What who is used to rsync may try is told what to do instead.
fn explain(error: clap::Error, command: &mut clap::Command) -> clap::Error {
    let argument = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(argument)) if error.kind() == ErrorKind::UnknownArgument => {
            argument.clone()
        }
        _ => return error,
    };
    match instead_of(&argument) {
        Some(instead) => {
            command.error(ErrorKind::UnknownArgument, format!("{argument}: {instead}"))
        }
        None => error,
    }
}

fn instead_of(argument: &str) -> Option<&'static str> {
    Some(match argument {
        "-z" | "--compress" => "nothing is compressed on the way; leave it out",
        "-P" | "--progress" => {
            "progress is shown on a terminal; leave it out, or use --partial or --json"
        }
        "--filter" | "-f" => "use --exclude and --include",
        "-L" | "--copy-links" => "links are copied as links, with -l; leave it out",
        "-e" | "--rsh" => "nothing connects to a host; serve with `lcsync share`, fetch lc:NAME",
        "-W" | "--whole-file" | "--no-whole-file" | "--append" | "--append-verify" => {
            "files are compared where that is less work than copying; leave it out"
        }
        "--delete-after" | "--delete-before" | "--delete-during" | "--delete-delay" => {
            "use --delete, which deletes at the end"
        }
        "-b" | "--backup" | "--backup-dir" | "--link-dest" | "--compare-dest" | "--copy-dest" => {
            "one version is kept; leave it out"
        }
        "--files-from" | "-R" | "--relative" => {
            "name the folders that are wanted, or use --include"
        }
        _ => return None,
    })
}

fn run(cli: Cli) -> anyhow::Result<Exit> {
    init_logging(cli.log.as_deref(), "warn")?;
    match cli.command {
        Some(Command::Share(share)) => serve(share),
        Some(Command::Send {
            path,
            text,
            name,
            duration,
            bwlimit,
            public,
            page,
            quiet,
        }) => send::send(&send::Options {
            paths: path,
            text,
            name,
            duration,
            limit: bwlimit,
            public,
            page,
            quiet,
        }),
        Some(Command::Receive {
            arguments,
            overwrite,
            yes,
            hidden,
            timeout,
            bwlimit,
            json,
            quiet,
        }) => receive_code::receive(&receive_code::Options {
            arguments,
            overwrite,
            yes,
            hidden,
            timeout,
            limit: bwlimit,
            json,
            quiet,
        }),
        Some(Command::Keygen { sign, file }) => {
            let kind = match sign {
                true => KeyKind::Signing,
                false => KeyKind::Shared,
            };
            keygen(kind, &file, false)
        }
        Some(Command::Ls {
            interface,
            keyfile,
            timeout,
            json,
        }) => receive::browse::browse(&receive::browse::Options {
            interfaces: interface,
            keyfile,
            timeout,
            json,
        }),
        Some(Command::Get {
            what,
            dest,
            common,
            share,
        }) => get(&what, dest, &common, share),
        Some(Command::Status { name, json, watch }) => status::show(&status::Options {
            name: name.map(|n| n.strip_prefix("lc:").unwrap_or(&n).to_owned()),
            json,
            watch,
        }),
        Some(Command::Hash { path }) => hash(&path),
        None => sync(cli.sync),
    }
}

fn serve(share: Share) -> anyhow::Result<Exit> {
    if share.name.is_some() && share.path.len() > 1 {
        return Err(ExitError::new(Exit::Usage, "--name goes with one PATH only").into());
    }
    let shares = match share.config {
        Some(file) => Shares::File(file),
        None => {
            let shares = share.path.into_iter().map(|path| ShareOptions {
                path,
                name: share.name.clone(),
                keyfile: share.keyfile.clone(),
                sign: share.sign.clone(),
                lcgroup: share.lcgroup.clone(),
                // interfaces and limit of the command line hold for all shares together
                interfaces: Vec::new(),
                bwlimit: None,
                listed: share.listed,
            });
            Shares::Given(shares.collect())
        }
    };
    server::shell::share(server::shell::Options {
        shares,
        interfaces: share.interface,
        limit: share.bwlimit,
        metrics: share.metrics,
    })
}

fn hash(path: &Path) -> anyhow::Result<Exit> {
    let index = Index::build(path, b"", &mut HashCache::default())?;
    index.scan.name_special();
    index.scan.name_too_long();
    let unread = index.scan.unread;
    anyhow::ensure!(
        unread == 0,
        "{}: {unread} entries could not be read: no hash",
        path.display()
    );
    print_line(index.root.hash)?;
    Ok(Exit::Ok)
}

fn get(what: &OsStr, dest: PathBuf, common: &Common, share: OfShares) -> anyhow::Result<Exit> {
    let usage = |e: String| ExitError::new(Exit::Usage, e);
    let (name, path) = parse_part(what.as_bytes()).map_err(usage)?;
    if share.seed {
        return Err(usage("--seed is for whole shares".to_owned()).into());
    }
    fetch((name, Some(path)), None, dest, common, share)
}

fn fetch(
    (name, part): (String, Option<Vec<u8>>),
    pinned: Option<BlockHash>,
    dest: PathBuf,
    common: &Common,
    share: OfShares,
) -> anyhow::Result<Exit> {
    let (key, trust) = match &share.lcgroup {
        Some(group) => {
            let offered = groups::find(group, &name)?;
            (Some(Arc::new(offered.key)), Some(offered.trust))
        }
        None => (
            share
                .keyfile
                .as_deref()
                .map(SharedKey::load)
                .transpose()?
                .map(Arc::new),
            share
                .trust
                .as_deref()
                .map(keyfile::public_key)
                .transpose()?,
        ),
    };
    receive::transfer::receive(&receive::transfer::Options {
        name,
        part,
        pinned,
        seed: share.seed,
        no_seed: share.no_seed,
        watch: share.watch,
        stats: common.stats,
        key,
        trust,
        sent: None,
        hidden: share.hidden,
        dest,
        write_devices: share.write_devices,
        interfaces: share.interface,
        timeout: share.timeout,
        dry_run: common.dry_run,
        archive: common.archive,
        delete: common.delete,
        max_delete: common.max_delete(),
        sparse: common.sparse,
        limit: common.bwlimit,
        json: share.json,
        verbose: common.verbose,
        quiet: common.quiet,
    })
}

fn sync(sync: Sync) -> anyhow::Result<Exit> {
    // the parser requires both
    let (Some(source), Some(dest)) = (sync.source.first(), sync.dest) else {
        return Err(ExitError::new(Exit::Usage, "SRC and DEST are needed").into());
    };
    let (common, local) = (sync.common, sync.local);
    if let Some(remote) = source.as_bytes().strip_prefix(b"lc:") {
        let (name, pinned) = parse_remote(remote).map_err(|e| ExitError::new(Exit::Usage, e))?;
        return fetch((name, None), pinned, dest, &common, sync.share);
    }
    if dest.to_str().is_some_and(|d| d.starts_with("lc:")) {
        let message = "DEST is a local path; to serve files, use `lcsync share`";
        return Err(ExitError::new(Exit::Usage, message).into());
    }
    let archive = common.archive;
    local::copy(&local::options::Options {
        sources: sync.source.into_iter().map(PathBuf::from).collect(),
        dest,
        recursive: common.recursive || archive,
        keep: Keep {
            links: local.links || archive,
            modes: local.perms || archive || local.acls,
            times: local.times || archive,
            owner: local.owner || archive,
            group: local.group || archive,
            attributes: Selection {
                acls: local.acls,
                others: local.xattrs,
                is_root: false,
            },
        },
        hard_links: local.hard_links,
        devices: local.devices || local.devices_and_specials || archive,
        specials: local.specials || local.devices_and_specials || archive,
        check: match () {
            () if local.checksum => Check::Content,
            () if local.size_only => Check::SizeOnly,
            () if local.ignore_times => Check::IgnoreTimes,
            () => Check::Quick,
        },
        filter: local.filter,
        one_file_system: local.one_file_system,
        update: local.update,
        existing: local.existing,
        ignore_existing: local.ignore_existing,
        inplace: local.inplace,
        sparse: common.sparse,
        partial: local.partial,
        fsync: local.fsync,
        delete: common.delete,
        delete_excluded: local.delete_excluded,
        max_delete: common.max_delete(),
        limit: common.bwlimit,
        dry_run: common.dry_run,
        verbose: common.verbose,
        itemize: local.itemize_changes,
        stats: common.stats,
        quiet: common.quiet,
    })
}

/// NAME, or NAME#ROOTHASH.
fn parse_remote(bytes: &[u8]) -> Result<(String, Option<BlockHash>), String> {
    let text = str::from_utf8(bytes).map_err(|_| "a share's name is UTF-8".to_owned())?;
    let (name, pinned) = match text.split_once('#') {
        Some((name, hash)) => {
            let hash = BlockHash::from_hex(hash)
                .ok_or_else(|| format!("{hash:?} is not a root hash: 64 hexadecimal digits"))?;
            (name, Some(hash))
        }
        None => (text, None),
    };
    check_name(name).map_err(|e| format!("{name:?}: {e}"))?;
    Ok((name.to_owned(), pinned))
}

/// `lc:NAME/PATH`; where NAME has slashes itself, two begin PATH.
fn parse_part(what: &[u8]) -> Result<(String, Vec<u8>), String> {
    let shown = String::from_utf8_lossy(what);
    let wrong = || format!("{shown}: a file or folder of a share is lc:NAME/PATH");
    let bytes = what.strip_prefix(b"lc:").ok_or_else(wrong)?;
    let two = bytes.windows(2).position(|pair| pair == b"//");
    let one = bytes.iter().position(|c| *c == b'/');
    let (end, begin) = two
        .map(|n| (n, n + 2))
        .or(one.map(|n| (n, n + 1)))
        .ok_or_else(wrong)?;
    let path = bytes[begin..].strip_suffix(b"/").unwrap_or(&bytes[begin..]);
    if !path.split(|c| *c == b'/').all(is_plain_name) {
        return Err(wrong());
    }
    let (name, _) = parse_remote(&bytes[..end])?;
    Ok((name, path.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn sources_are_told_apart() {
        let hash = "ab".repeat(32);
        assert_eq!(parse_remote(b"photos").unwrap(), ("photos".into(), None));
        let pinned = format!("photos#{hash}");
        let pinned = parse_remote(pinned.as_bytes()).unwrap().1.unwrap();
        assert_eq!(pinned.to_string(), hash);
        for bad in ["", "#", "photos#", "photos#12", "a#b#c", "a\nb"] {
            assert!(parse_remote(bad.as_bytes()).is_err(), "{bad:?}");
        }
        for (what, name, path) in [
            ("lc:photos/a/b.jpg", "photos", "a/b.jpg"),
            ("lc:photos/a/", "photos", "a"),
            ("lc:team/plans//a", "team/plans", "a"),
        ] {
            let parsed = parse_part(what.as_bytes()).unwrap();
            assert_eq!(parsed, (name.into(), path.into()));
        }
        for bad in [
            "photos/a",
            "lc:photos",
            "lc:photos/",
            "lc:/a",
            "lc:a/../b",
            "lc:a/b//c/./d",
        ] {
            assert!(parse_part(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn verbs_and_paths_are_told_apart() {
        let parse = |args: &[&str]| parse([&["lcsync"], args].concat().iter().map(OsString::from));
        for log_first in [
            &["--log", "debug", "share", "x"][..],
            &["--log", "debug", "share", "x", "-i", "lo"],
            &["share", "--log=debug", "x"],
        ] {
            let cli = parse(log_first).unwrap();
            assert!(matches!(cli.command, Some(Command::Share(_))));
            assert_eq!(cli.log.as_deref(), Some("debug"));
        }
        assert!(matches!(
            parse(&["share", "x"]).unwrap().command,
            Some(Command::Share(_))
        ));
        assert!(
            parse(&["-a", "--delete", "src/", "dest"])
                .unwrap()
                .command
                .is_none()
        );
        let long = [
            "--archive",
            "--dry-run",
            "--verbose",
            "--recursive",
            "--quiet",
        ];
        assert!(parse(&[&long[..], &["src", "dest"]].concat()).is_ok());
        assert!(parse(&["-r", "lc:x", "dest"]).is_ok());
        assert!(parse(&["share", "x", "--sign", "k"]).is_ok());
        assert!(parse(&["share", "--config", "f", "-i", "a", "--bwlimit", "1M"]).is_ok());
        assert!(parse(&["keygen", "--sign", "k"]).is_ok());
        assert!(parse(&["send", "-", "a", "--name", "b"]).is_ok());
        assert!(parse(&["send", "--text", "-5 degrees"]).is_ok());
        assert!(parse(&["lc:x", "dest", "--trust", "k"]).is_ok());
        assert!(parse(&["lc:x", "dest", "--seed", "--stats"]).is_ok());
        assert!(parse(&["lc:x", "dest", "-i", "a", "-i", "b", "--timeout", "2s"]).is_ok());
        let itemized = parse(&["-ani", "src", "more", "dest", "-i"]).unwrap();
        assert!(itemized.sync.local.itemize_changes && itemized.sync.common.dry_run);
        assert_eq!(itemized.sync.source.len(), 2);
        for (args, sources, dest) in [
            (
                &["-a", "--", "-rf", "--delete", "d/"][..],
                &["./-rf", "./--delete"][..],
                "d/",
            ),
            (&["-i", "--", "share", "-i"], &["./share"], "./-i"),
            (&["--", "--", "help"], &["./--"], "./help"),
            (
                &["--exclude", "-i", "--", "a", "b", "-c"],
                &["a", "b"],
                "./-c",
            ),
            (&["--exclude", "--", "a", "b"], &["a"], "b"),
            (&["a", "--", "-b", "-c"], &["a", "./-b"], "./-c"),
            (&["--timeout", "2s", "--", "lc:x", "-d"], &["lc:x"], "./-d"),
        ] {
            let sync = parse(args).unwrap().sync;
            assert!(
                sync.source.iter().eq(sources),
                "{args:?}: {:?}",
                sync.source
            );
            assert_eq!(sync.dest.as_deref(), Some(Path::new(dest)), "{args:?}");
        }
        let excluded = parse(&["--exclude", "- *.o", "--include", "-i", "a", "b"]).unwrap();
        assert!(!excluded.sync.local.filter.is_empty() && !excluded.sync.local.itemize_changes);
        for bad in [
            &["src"][..],
            &[],
            &["share"],
            &["share", "--config", "f", "x"],
            &["share", "--config", "f", "--name", "x"],
            &["send"],
            &["send", "--text", "a", "b"],
            &["send", "--text", "a", "--name", "b"],
            &["send", "--text", "a", "--public"],
            &["keygen", "f", "g"],
            &["--trust", "k", "share", "x"],
            &["share", "x", "--trust", "k"],
            &["lc:x", "dest", "--seed", "-n"],
            &["keygen"],
            &["-a", "share", "x"],
            &["--timeout", "3s", "hash", "x"],
            &["src", "dest", "--timeout", "30s"],
            &["src", "lc:x", "dest"],
            &["lc:x", "dest", "-c"],
            &["src", "dest", "--exclude", "- "],
            &["src", "dest", "--delete-excluded"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
