//! What the three command lines have in common: exit codes and logging.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use crate::{arguments, children, standard};
use librecast::plain::escape;
use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How a program ends. The numbers are part of the contract with scripts and units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Failed.
    Failed = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// Timed out, or not reachable.
    Unreachable = 3,
    /// Not permitted: a missing capability, key or certificate.
    NotPermitted = 4,
    /// Interrupted by SIGINT before it was finished.
    Interrupted = 130,
    /// Interrupted by SIGTERM before it was finished.
    Terminated = 143,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// An error that knows its exit code; `anyhow` errors without one end with [`Exit::Failed`].
#[derive(Debug)]
pub struct ExitError {
    /// The code the program ends with.
    pub exit: Exit,
    message: String,
}

impl ExitError {
    /// An error with a message for the user: what is wrong and what to do.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
        }
    }
}

impl fmt::Display for ExitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ExitError {}

/// Options of all verbs of a program that sends and hears by itself.
#[derive(Debug, clap::Args)]
pub struct Common {
    /// Interface to use; may be repeated [default: all that can carry multicast]
    #[arg(short, long = "interface", global = true, value_name = "NAME")]
    pub interfaces: Vec<String>,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// error, warn, info, debug, trace or TARGET=LEVEL with commas between [default: $RUST_LOG]
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log: Option<String>,
}

/// Runs a program with the arguments of this process. Help and version go to stdout and are no error.
pub fn run<C: clap::Parser>(
    program: &str,
    execute: impl FnOnce(C) -> anyhow::Result<Exit>,
) -> ExitCode {
    children::expect_children();
    match C::try_parse_from(arguments::given()) {
        Ok(cli) => finish(program, execute(cli)),
        Err(usage) => show_usage(&usage),
    }
}

/// Prints help, a version or a usage error, and returns the exit code. Secrets among the arguments are not shown.
#[must_use]
pub fn show_usage(usage: &clap::Error) -> ExitCode {
    let text = usage.render().to_string();
    // a reader that has gone is not a reason for a message
    let _ = match arguments::has_secret(text.as_bytes()) {
        true => standard::errors().write_all(arguments::without_secrets(&text).as_bytes()),
        false => usage.print(),
    };
    match usage.use_stderr() {
        true => Exit::Usage.into(),
        false => Exit::Ok.into(),
    }
}

/// Prints the error of a command, if any, and gives the exit code.
pub fn finish(program: &str, result: anyhow::Result<Exit>) -> ExitCode {
    match result {
        Ok(exit) => exit.into(),
        Err(error) => {
            if !is_broken_pipe(&error) {
                let told = arguments::without_secrets(&format!("{error:#}"));
                // a closed stderr must not change the exit code: eprintln! would panic
                hint(program, format_args!("{told}"));
            }
            let exit = error
                .chain()
                .find_map(|e| e.downcast_ref::<ExitError>())
                .map_or(Exit::Failed, |e| e.exit);
            exit.into()
        }
    }
}

/// Writes a line to standard output, harmless on a terminal: a reader that has gone is an error, no panic.
///
/// # Errors
/// It cannot be written.
pub fn print_line(line: impl fmt::Display) -> std::io::Result<()> {
    print(&format!("{line}\n"))
}

/// Writes whole lines to standard output, harmless on a terminal.
pub fn print(lines: &str) -> std::io::Result<()> {
    let mut out = standard::output();
    out.write_all(escape(lines).as_bytes())?;
    out.flush()
}

/// Tells the user something beside the result, harmless on a terminal. A result stays good when nobody reads it.
pub fn hint(program: &str, line: impl fmt::Display) {
    note(format_args!("{program}: {line}"));
}

/// The same without a program's name before it.
pub fn note(line: impl fmt::Display) {
    let line = format!("{line}\n");
    let _ = standard::errors().write_all(escape(&line).as_bytes());
}

/// Says that a terminal is read, and how that ends: nothing else shows it.
pub fn note_of_input(what: &str) {
    if std::io::stdin().is_terminal() {
        note(format_args!(
            "reading {what} from standard input; Ctrl-D at the beginning of a line ends it"
        ));
    }
}

/// The firewall rule by which hosts of a LAN find each other.
pub const MDNS_RULE: &str = "nft insert rule inet filter input udp dport 5353 accept";

/// The command by which a user joins the group that may ask a daemon.
pub fn to_join(group: &str) -> String {
    let own = nix::unistd::Uid::effective();
    let user = nix::unistd::User::from_uid(own).ok().flatten();
    let name = user.map_or_else(|| own.to_string(), |user| user.name);
    format!(
        "members of group {group} may: sudo usermod -aG {group} {name}, then log in again (or be root)"
    )
}

/// Whether a reader of our output went away (`lcroute peers | head -1`): no reason for a message.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|e| e.downcast_ref::<std::io::Error>())
        .any(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Logs to stderr: `--log LEVEL` wins over `RUST_LOG`, which wins over `default`. Where stderr is the journal's, entries
/// go there whole, with their fields ([`librecast::events`]).
///
/// An invalid filter is an error of usage. Calling it twice in one process keeps the first.
///
/// # Errors
/// [`Exit::Usage`] for an invalid filter.
pub fn init_logging(level: Option<&str>, default: &str) -> Result<(), ExitError> {
    let journal = is_journal();
    let filter = match level {
        Some(level) => level.to_owned(),
        None => match std::env::var("RUST_LOG") {
            Ok(filter) => filter,
            // machines read the events at any level for people
            Err(_) if journal => format!("{default},{}=info", librecast::events::TARGET),
            Err(_) => default.to_owned(),
        },
    };
    let log = tracing_subscriber::registry().with(parse_filter(&filter)?);
    if journal && let Ok(layer) = tracing_journald::layer() {
        // no prefix: MESSAGE_ID etc. need their exact names
        let _already_set = log.with(layer.with_field_prefix(None)).try_init();
        return Ok(());
    }
    let ansi = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let text = tracing_subscriber::fmt::layer()
        .fmt_fields(TextFields)
        .with_writer(standard::errors)
        // a closed stderr must not end a daemon: internal errors would panic
        .log_internal_errors(false)
        .with_ansi(ansi)
        .with_target(false);
    let _already_set = if journal {
        // journald adds the time itself
        log.with(text.without_time()).try_init()
    } else {
        log.with(text).try_init()
    };
    Ok(())
}

/// `LEVEL` or `TARGET=LEVEL`, or several with `,` between them; a word that is no level is a mistake, and no target that
/// would say everything. `EnvFilter` would read the same and filters by spans, of
/// which we have none; the regular expressions for that are 5 % of a program.
fn parse_filter(filter: &str) -> Result<Targets, ExitError> {
    let wrong = |why: &dyn fmt::Display| {
        let usage = "use error, warn, info, debug or trace, or TARGET=LEVEL,...";
        ExitError::new(Exit::Usage, format!("log level `{filter}`: {why}; {usage}"))
    };
    if filter.contains('[') {
        return Err(wrong(&"filters by spans and fields are unknown"));
    }
    let mut parts: Vec<&str> = filter.split(',').map(str::trim).collect();
    parts.retain(|part| !part.is_empty());
    let is_level = |part: &str| part.contains('=') || part.parse::<LevelFilter>().is_ok();
    if let Some(other) = parts.iter().find(|part| !is_level(part)) {
        return Err(wrong(&format_args!("`{other}` is not a level")));
    }
    let all = parts.join(",");
    // an empty filter: errors only
    all.parse::<Targets>().map_err(|e| wrong(&e))
}

/// Whether stderr leads to the journal, and not to where somebody has sent it since (systemd.exec(5), $JOURNAL_STREAM).
pub fn is_journal() -> bool {
    let Ok(told) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let stderr = nix::sys::stat::fstat(std::io::stderr());
    stderr.is_ok_and(|s| told == format!("{}:{}", s.st_dev, s.st_ino))
}

/// Fields as text, without those that are for the journal alone: its messages say the same in words.
struct TextFields;

impl<'w> FormatFields<'w> for TextFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut visitor = TextVisitor {
            writer,
            first: true,
            result: Ok(()),
        };
        fields.record(&mut visitor);
        visitor.result
    }
}

struct TextVisitor<'w> {
    writer: Writer<'w>,
    first: bool,
    result: fmt::Result,
}

impl Visit for TextVisitor<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let name = field.name();
        let hidden = ["message_id", "log.", "lcroute_", "lcsync_", "lcagent_"];
        if self.result.is_err() || hidden.iter().any(|h| name.starts_with(h)) {
            return;
        }
        let space = if std::mem::take(&mut self.first) {
            ""
        } else {
            " "
        };
        let text = match name {
            "message" => format!("{space}{value:?}"),
            _ => format!("{space}{name}={value:?}"),
        };
        // logs may contain foreign text, which a terminal must not execute
        self.result = self.writer.write_str(&escape(&text));
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn a_filter_is_a_level_and_levels_of_targets() {
        let enabled = |filter: &str, target: &str, level: Level| {
            parse_filter(filter).map(|filter| filter.would_enable(target, &level))
        };
        assert!(enabled("info", "rtc_ice::agent", Level::INFO).unwrap());
        assert!(!enabled("info", "rtc_ice::agent", Level::DEBUG).unwrap());
        let filter = " warn , ,lcroute=debug,lcroute::tun=off,";
        assert!(enabled(filter, "lcroute::daemon", Level::DEBUG).unwrap());
        assert!(!enabled(filter, "lcroute::tun", Level::ERROR).unwrap());
        assert!(enabled(filter, "lcsync", Level::WARN).unwrap());
        assert!(!enabled(filter, "lcsync", Level::INFO).unwrap());
        for errors_alone in ["", ",", "ERROR"] {
            assert!(enabled(errors_alone, "lcsync", Level::ERROR).unwrap());
            assert!(!enabled(errors_alone, "lcsync", Level::WARN).unwrap());
        }
    }

    #[test]
    fn what_is_no_filter_is_an_error_of_usage() {
        for wrong in [
            "bogus",
            "info,bogus",
            "lcroute=loud",
            "a=b=c",
            "lcroute[span]=debug",
            "[{field}]=info",
        ] {
            let error = parse_filter(wrong).unwrap_err();
            assert_eq!(error.exit, Exit::Usage);
            assert!(error.to_string().contains(wrong), "{error}");
        }
    }
}
