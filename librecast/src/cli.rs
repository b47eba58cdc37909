//! What the three command lines have in common: exit codes and logging.

use std::fmt;
use std::io::IsTerminal;
use std::process::ExitCode;

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

/// Prints the error of a command, if any, and gives the exit code.
pub fn finish(program: &str, result: anyhow::Result<Exit>) -> ExitCode {
    match result {
        Ok(exit) => exit.into(),
        Err(error) => {
            if !is_broken_pipe(&error) {
                eprintln!("{program}: {error:#}");
            }
            let exit = error
                .chain()
                .find_map(|e| e.downcast_ref::<ExitError>())
                .map_or(Exit::Failed, |e| e.exit);
            exit.into()
        }
    }
}

/// Whether a reader of our output went away (`lcroute peers | head -1`): no reason for a message.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|e| e.downcast_ref::<std::io::Error>())
        .any(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Logs to stderr: `--log LEVEL` wins over `RUST_LOG`, which wins over `default`.
///
/// An invalid filter is an error of usage. Calling it twice in one process keeps the first.
pub fn init_logging(level: Option<&str>, default: &str) -> Result<(), ExitError> {
    let filter = match level {
        Some(level) => level.to_owned(),
        None => std::env::var("RUST_LOG").unwrap_or_else(|_| default.to_owned()),
    };
    let filter = tracing_subscriber::EnvFilter::try_new(&filter).map_err(|e| {
        ExitError::new(
            Exit::Usage,
            format!("log level `{filter}`: {e}; use error, warn, info, debug or trace"),
        )
    })?;
    let ansi = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    // journald adds the time itself
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // a reader of stderr that has gone must not end a daemon: complaining there would panic
        .log_internal_errors(false)
        .with_ansi(ansi);
    let _already_set = if std::env::var_os("JOURNAL_STREAM").is_some() {
        builder.without_time().with_target(false).try_init()
    } else {
        builder.with_target(false).try_init()
    };
    Ok(())
}
