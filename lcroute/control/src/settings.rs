//! Sources of all verbs' settings: flags, environment, file, defaults.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;
use librecast::outside::{Place, PlaceError};
use librecast_program::cli::{Exit, ExitError};

use crate::config::Config;

/// Control socket of the host's daemon.
const SYSTEM_CONTROL: &str = "/run/lcroute/control.sock";

/// Environment variable with the signalling server of codes, texts and keys outside: a URL or
/// `HOST` or `HOST:PORT`; empty: none.
pub const SIGNAL: &str = "LCROUTE_SIGNAL";

/// Settings of every verb; flags win over environment, environment over file.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// Keys and membership [default: /var/lib/lcroute, or $XDG_STATE_HOME/lcroute]
    #[arg(long, global = true, env = "LCROUTE_STATE_DIR", value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Configuration [default: /etc/lcroute/lcroute.toml if it exists]
    #[arg(long, global = true, env = "LCROUTE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Control socket [default: /run/lcroute/control.sock, or $XDG_RUNTIME_DIR/lcroute/control.sock]
    #[arg(long, global = true, env = "LCROUTE_CONTROL", value_name = "PATH")]
    control: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// error, warn, info, debug, trace or TARGET=LEVEL with commas between [default: $RUST_LOG]
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log: Option<String>,
}

impl Common {
    /// Reads the configuration file.
    pub fn load_config(&self) -> anyhow::Result<Config> {
        Ok(Config::load(self.config.as_deref())?)
    }

    /// Reads the configuration of a program that a user runs beside the host's daemon: the stricter
    /// of the host's file and the user's own, unless the command line names one. Keys outside meet
    /// at the server of `LCROUTE_SIGNAL` if that is set.
    ///
    /// # Errors
    /// A file cannot be read, or the variable names no server.
    pub fn load_config_of_user(&self) -> anyhow::Result<Config> {
        let config = self.load_config()?;
        let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".config"));
        let own = folder("XDG_CONFIG_HOME").map(PathBuf::from).or_else(home);
        let own = own.map(|folder| folder.join("lcroute/lcroute.toml"));
        let config = match own.filter(|file| self.config.is_none() && file.is_file()) {
            Some(file) => config.restricted_by(Config::load(Some(&file))?),
            None => config,
        };
        Ok(match places_of_environment()? {
            Some(places) => config.meeting_at(places),
            None => config,
        })
    }

    /// Whether the state directory is a user's own by default, while services use the system's.
    pub fn is_users_own_state(&self, config: &Config) -> bool {
        !is_root() && self.state_dir.is_none() && config.state_dir.is_none()
    }

    /// Whether the command concerns the host's node, which is a service.
    pub fn is_hosts_state(&self, config: &Config) -> bool {
        self.state_dir.is_none() && config.state_dir.is_none()
    }

    /// Returns the path of the configuration file, if the user names one.
    pub fn config_path(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// Returns the directory of keys and membership.
    pub fn state_dir(&self, config: &Config) -> PathBuf {
        let default = || match (
            is_root(),
            folder("XDG_STATE_HOME"),
            std::env::var_os("HOME"),
        ) {
            (false, Some(dir), _) => PathBuf::from(dir).join("lcroute"),
            (false, None, Some(home)) => PathBuf::from(home).join(".local/state/lcroute"),
            _ => PathBuf::from("/var/lib/lcroute"),
        };
        self.state_dir
            .clone()
            .or_else(|| config.state_dir.clone())
            .unwrap_or_else(default)
    }

    /// Returns the control socket to ask: the host's, if this user runs no daemon.
    pub fn control_to_ask(&self, config: &Config) -> PathBuf {
        let (own, system) = (self.control(config), PathBuf::from(SYSTEM_CONTROL));
        let is_default = self.control.is_none() && config.control.is_none();
        match is_default && !own.exists() && system.exists() {
            true => system,
            false => own,
        }
    }

    /// Returns the control socket.
    pub fn control(&self, config: &Config) -> PathBuf {
        let default = || match (is_root(), folder("XDG_RUNTIME_DIR")) {
            (false, Some(dir)) => PathBuf::from(dir).join("lcroute/control.sock"),
            _ => PathBuf::from(SYSTEM_CONTROL),
        };
        self.control
            .clone()
            .or_else(|| config.control.clone())
            .unwrap_or_else(default)
    }
}

/// Returns the server of `LCROUTE_SIGNAL`, or none if it is empty. `None`: it is not set.
///
/// # Errors
/// It names no server.
pub fn places_of_environment() -> anyhow::Result<Option<Vec<Place>>> {
    std::env::var_os(SIGNAL).map(places_of).transpose()
}

fn places_of(given: OsString) -> anyhow::Result<Vec<Place>> {
    let given = given.into_string().unwrap_or_else(|_| " ".to_owned());
    let place = (!given.is_empty()).then(|| given.parse()).transpose();
    let place =
        place.map_err(|e: PlaceError| ExitError::new(Exit::Usage, format!("{SIGNAL}: {e}")))?;
    Ok(place.into_iter().collect())
}

/// Returns a folder of the environment; an empty variable counts as unset (XDG base directories).
fn folder(variable: &str) -> Option<OsString> {
    std::env::var_os(variable).filter(|folder| !folder.is_empty())
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Flags of `run` that override the file.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// Interface name.
    pub tun: Option<String>,
    /// Signalling servers.
    pub signal: Vec<String>,
}

impl Overrides {
    /// Returns the configuration with the flags applied.
    #[must_use]
    pub fn apply(&self, mut config: Config) -> Config {
        if let Some(name) = &self.tun {
            config.tun.name.clone_from(name);
        }
        if !self.signal.is_empty() {
            config.signal.servers.clone_from(&self.signal);
        }
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_names_a_server_as_codes_and_texts_do_or_none() {
        let places = |given: &str| places_of(given.into());
        for given in ["meet.example", "meet.example:8443", "ws://10.0.0.1:7117"] {
            assert_eq!(places(given).unwrap(), [given.parse::<Place>().unwrap()]);
        }
        assert!(places("").unwrap().is_empty());
        let error = places("http://a b").unwrap_err().to_string();
        assert!(error.starts_with(SIGNAL), "{error}");
    }
}
