//! The command line.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use librecast_program::cli::{Exit, ExitError, finish, init_logging};
use librecast_program::keyfile;
use librecast_program::metrics::Listen;
use librecast_program::units::{parse_duration, parse_rate};

use crate::block::BlockHash;
use crate::index::{HashCache, Index};
use crate::name::check_name;
use crate::server::config::ShareOptions;
use crate::server::shell::Shares;
use crate::{local, receive, server};

/// File sync over multicast, to any number of receivers at the cost of one, and locally.
#[derive(Debug, Parser)]
#[command(
    name = "lcsync",
    version,
    subcommand_negates_reqs = true,
    subcommand_precedence_over_arg = true,
    after_help = "Examples:\n  \
        lcsync share ~/photos                 serve a folder as lc:photos; no port is opened\n  \
        lcsync lc:photos /backup/photos       fetch it, or what has changed\n  \
        lcsync lc:photos#ROOTHASH DEST        exactly this version\n  \
        lcsync lc:photos DEST --trust KEY.pub only what this key has signed\n  \
        lcsync lc:photos DEST --seed          fetch it, and serve it to others as well\n  \
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

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve files and folders until told to stop
    #[command(after_help = "Examples:\n  \
        lcsync share /srv/photos              as lc:photos, on all interfaces; prints name and root hash\n  \
        lcsync share --name backup -i eth0 --bwlimit 200M /srv/data\n  \
        lcsync share --sign owner.key --keyfile team.key plans/\n  \
        lcsync share --config /etc/lcsync/site.toml")]
    Share(Share),
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
    #[arg(long, value_name = "FILE", conflicts_with_all = ["path", "name", "sign", "keyfile"])]
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
    /// Seal everything, names included, with this shared key, as `keygen` makes it
    #[arg(long, value_name = "FILE")]
    keyfile: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Sync {
    /// lc:NAME, lc:NAME#ROOTHASH, or a local path
    #[arg(value_name = "SRC", required = true)]
    source: Option<OsString>,
    /// Where to
    #[arg(value_name = "DEST", required = true)]
    dest: Option<PathBuf>,
    /// Archive: modes and times as well (locally also folders, links and, if permitted, owners)
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
    #[arg(long)]
    delete: bool,
    /// Use this interface only (may be repeated); all multicast-capable ones by default
    #[arg(short, value_name = "IFACE")]
    interface: Vec<String>,
    /// Take versions signed by this key only: FILE.pub, or the text in it
    #[arg(long, value_name = "PUBKEY")]
    trust: Option<String>,
    /// Serve what has come, while it comes and afterwards, until told to stop
    #[arg(long, conflicts_with = "dry_run")]
    seed: bool,
    /// Print what the transfer has cost
    #[arg(long)]
    stats: bool,
    /// The shared key that the share is sealed with
    #[arg(long, value_name = "FILE")]
    keyfile: Option<PathBuf>,
    /// Give up after so long without a single packet
    #[arg(long, value_name = "D", default_value = "30s", value_parser = parse_duration)]
    timeout: Duration,
    /// Receive no faster than this on average, in bits per second
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    bwlimit: Option<u64>,
    /// Progress and result as JSON, one document a line
    #[arg(long)]
    json: bool,
}

/// The command line itself, for what is made from it: man pages, completions.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// The program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = parse(std::env::args_os()).unwrap_or_else(|e| e.exit());
    finish("lcsync", run(cli))
}

/// Options of a transfer have no meaning before a verb; `--log` has. (The parser's own rule for this
/// takes `--log debug share PATH` for a SRC called "share".) Nor have those of a share where SRC is a path.
fn parse(args: impl IntoIterator<Item = OsString>) -> clap::error::Result<Cli> {
    let mut command = Cli::command();
    let matches = command
        .try_get_matches_from_mut(args)
        .map_err(|e| explain(e, &mut command))?;
    let given = |id: &&str| matches.value_source(id) == Some(ValueSource::CommandLine);
    let mut conflict = |message| Err(command.error(ErrorKind::ArgumentConflict, message));
    if let Some((verb, _)) = matches.subcommand() {
        let mut ids = matches.ids().map(clap::Id::as_str).filter(given);
        if let Some(id) = ids.find(|id| !["log", "Sync"].contains(id)) {
            return conflict(format!("`{id}` must follow `{verb}`, if `{verb}` knows it"));
        }
    } else if !matches
        .get_one::<OsString>("source")
        .is_some_and(|s| s.as_bytes().starts_with(b"lc:"))
    {
        let ids = SHARES_ONLY.iter().map(|(id, shown)| (*id, *shown));
        if let Some((_, shown)) = ids.into_iter().find(|(id, _)| given(id)) {
            return conflict(format!(
                "{shown} is for shares: SRC would have to be lc:NAME"
            ));
        }
    }
    Cli::from_arg_matches(&matches)
}

/// Options that mean nothing where SRC is a path.
const SHARES_ONLY: [(&str, &str); 8] = [
    ("interface", "-i"),
    ("trust", "--trust"),
    ("seed", "--seed"),
    ("stats", "--stats"),
    ("keyfile", "--keyfile"),
    ("timeout", "--timeout"),
    ("bwlimit", "--bwlimit"),
    ("json", "--json"),
];

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
        "-P" | "--progress" | "--partial" => {
            "progress is shown on a terminal (else use --json), and what has come is always kept; leave it out"
        }
        "--exclude" | "--exclude-from" | "--include" | "--include-from" | "--filter" | "-f" => {
            "nothing can be left out; name the folders that are wanted one by one"
        }
        "-c" | "--checksum" => {
            "shares are always compared by their content; local files by size and time"
        }
        "-l" | "--links" | "-p" | "--perms" | "-t" | "--times" | "-o" | "--owner" | "-g"
        | "--group" | "-D" => "use -a, which has this and more",
        "-H" | "--hard-links" | "-A" | "--acls" | "-X" | "--xattrs" | "-S" | "--sparse" => {
            "hard links, ACLs, extended attributes and holes are not kept; leave it out"
        }
        "-e" | "--rsh" => "nothing connects to a host; serve with `lcsync share`, fetch lc:NAME",
        "--inplace" | "--append" => "a file is always replaced as a whole; leave it out",
        "--delete-after" | "--delete-before" | "--delete-during" | "--del" => {
            "use --delete, which deletes at the end"
        }
        _ => return None,
    })
}

fn run(cli: Cli) -> anyhow::Result<Exit> {
    init_logging(cli.log.as_deref(), "warn")?;
    match cli.command {
        Some(Command::Share(share)) => serve(share),
        Some(Command::Keygen { sign, file }) => keygen(sign, &file),
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
                // that of the command line holds for all together
                interfaces: Vec::new(),
                bwlimit: None,
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

fn keygen(sign: bool, file: &Path) -> anyhow::Result<Exit> {
    if sign {
        let public = keyfile::make_signing_key(file)?;
        writeln!(std::io::stdout(), "{public}")?;
    } else {
        keyfile::SharedKey::make(file)?;
    }
    Ok(Exit::Ok)
}

fn hash(path: &Path) -> anyhow::Result<Exit> {
    let index = Index::build(path, b"", &mut HashCache::default())?;
    index.scan.name_special();
    let unread = index.scan.unread;
    anyhow::ensure!(
        unread == 0,
        "{}: {unread} entries could not be read: no hash",
        path.display()
    );
    writeln!(std::io::stdout(), "{}", index.root.hash)?;
    Ok(Exit::Ok)
}

fn sync(sync: Sync) -> anyhow::Result<Exit> {
    // clap has seen to it that both are there
    let (Some(source), Some(dest)) = (sync.source, sync.dest) else {
        return Err(ExitError::new(Exit::Usage, "SRC and DEST are needed").into());
    };
    if let Some(remote) = source.to_str().and_then(|s| s.strip_prefix("lc:")) {
        let (name, pinned) = parse_remote(remote).map_err(|e| ExitError::new(Exit::Usage, e))?;
        return receive::transfer::receive(&receive::transfer::Options {
            name,
            pinned,
            seed: sync.seed,
            stats: sync.stats,
            keyfile: sync.keyfile,
            trust: sync.trust.as_deref().map(keyfile::public_key).transpose()?,
            dest,
            interfaces: sync.interface,
            timeout: sync.timeout,
            dry_run: sync.dry_run,
            archive: sync.archive,
            delete: sync.delete,
            limit: sync.bwlimit,
            json: sync.json,
            verbose: sync.verbose,
            quiet: sync.quiet,
        });
    }
    if dest.to_str().is_some_and(|d| d.starts_with("lc:")) {
        let message = "DEST is a local path; to serve files, use `lcsync share`";
        return Err(ExitError::new(Exit::Usage, message).into());
    }
    local::copy(&local::Options {
        source: source.into(),
        dest,
        archive: sync.archive,
        recursive: sync.recursive || sync.archive,
        dry_run: sync.dry_run,
        verbose: sync.verbose && !sync.quiet,
        quiet: sync.quiet,
        delete: sync.delete,
    })
}

/// NAME, or NAME#ROOTHASH.
fn parse_remote(text: &str) -> Result<(String, Option<BlockHash>), String> {
    let (name, pinned) = match text.split_once('#') {
        Some((name, hash)) => {
            let hash = BlockHash::from_hex(hash)
                .ok_or_else(|| format!("{hash:?} is no root hash: 64 hexadecimal digits"))?;
            (name, Some(hash))
        }
        None => (text, None),
    };
    check_name(name).map_err(|e| format!("{name:?}: {e}"))?;
    Ok((name.to_owned(), pinned))
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
        assert_eq!(parse_remote("photos").unwrap(), ("photos".into(), None));
        let pinned = parse_remote(&format!("photos#{hash}")).unwrap().1.unwrap();
        assert_eq!(pinned.to_string(), hash);
        for bad in ["", "#", "photos#", "photos#12", "a#b#c", "a\nb"] {
            assert!(parse_remote(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn verbs_and_paths_are_told_apart() {
        let parse = |args: &[&str]| parse([&["lcsync"], args].concat().iter().map(OsString::from));
        for log_first in [
            &["--log", "debug", "share", "x"][..],
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
        assert!(parse(&["lc:x", "dest", "--trust", "k"]).is_ok());
        assert!(parse(&["lc:x", "dest", "--seed", "--stats"]).is_ok());
        assert!(parse(&["lc:x", "dest", "-i", "a", "-i", "b", "--timeout", "2s"]).is_ok());
        for bad in [
            &["src"][..],
            &[],
            &["share"],
            &["share", "--config", "f", "x"],
            &["share", "--config", "f", "--name", "x"],
            &["keygen", "f", "g"],
            &["--trust", "k", "share", "x"],
            &["share", "x", "--trust", "k"],
            &["lc:x", "dest", "--seed", "-n"],
            &["keygen"],
            &["-a", "share", "x"],
            &["--timeout", "3s", "hash", "x"],
            &["src", "dest", "--timeout", "30s"],
            &["src", "dest", "-i", "lo"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
