//! Where guests meet: places and configuration of the user who starts them.

use std::path::{Path, PathBuf};

use lcroute_control::config::Config;
use lcroute_control::settings::Common;
use lcroute_mapping::Settings;
use librecast::outside::{Place, PlaceError};
use librecast_program::cli::{Exit, ExitError};

use crate::port_mapping;

/// Environment variable with the signalling server of codes, a URL or HOST[:PORT]; empty: none.
pub const SIGNAL: &str = "LCROUTE_SIGNAL";

/// Returns the places of texts that name none: of `LCROUTE_SIGNAL`, else of `[outside] meet`.
pub fn places_of_user(common: &Common, config: &Config) -> anyhow::Result<Vec<Place>> {
    if let Some(given) = std::env::var_os(SIGNAL) {
        let given = given.into_string().unwrap_or_default();
        let place = (!given.is_empty()).then(|| given.parse()).transpose();
        let place =
            place.map_err(|e: PlaceError| ExitError::new(Exit::Usage, format!("{SIGNAL}: {e}")))?;
        return Ok(place.into_iter().collect());
    }
    let own = own_config(common)?;
    let exposure = own.as_ref().unwrap_or(config).exposure();
    let outside = exposure.outside().ok();
    Ok(outside.map_or_else(Vec::new, |outside| outside.meet.clone()))
}

/// Returns which router a guest may ask to map its port: the owners of host and guest decide.
pub fn mapping_of(common: &Common, config: &Config) -> anyhow::Result<Settings> {
    let mut settings = port_mapping::settings(config);
    let own = own_config(common)?;
    let silent = own.and_then(|own| port_mapping::settings(&own).silent);
    settings.silent = settings.silent.or(silent);
    Ok(settings)
}

/// Returns the user's own configuration, unless the command line names another.
pub fn own_config(common: &Common) -> anyhow::Result<Option<Config>> {
    let own = match (
        std::env::var_os("XDG_CONFIG_HOME"),
        std::env::var_os("HOME"),
    ) {
        (Some(folder), _) if !folder.is_empty() => Some(PathBuf::from(folder)),
        (_, Some(home)) => Some(Path::new(&home).join(".config")),
        _ => None,
    };
    let own = own.map(|folder| folder.join("lcroute/lcroute.toml"));
    let own = own.filter(|file| common.config_path().is_none() && file.is_file());
    own.map(|file| Ok(Config::load(Some(&file))?)).transpose()
}
