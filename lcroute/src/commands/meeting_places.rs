//! Where guests meet.

use lcroute_control::config::Config;
use librecast::outside::{Place, PlaceError};
use librecast_program::cli::{Exit, ExitError};

/// Environment variable with the signalling server of codes, a URL or HOST[:PORT]; empty: none.
pub const SIGNAL: &str = "LCROUTE_SIGNAL";

/// Returns the places of texts that name none: of `LCROUTE_SIGNAL`, else of `[outside] meet`.
pub fn places_of_user(config: &Config) -> anyhow::Result<Vec<Place>> {
    if let Some(given) = std::env::var_os(SIGNAL) {
        let given = given.into_string().unwrap_or_default();
        let place = (!given.is_empty()).then(|| given.parse()).transpose();
        let place =
            place.map_err(|e: PlaceError| ExitError::new(Exit::Usage, format!("{SIGNAL}: {e}")))?;
        return Ok(place.into_iter().collect());
    }
    let outside = config.exposure().outside().ok();
    Ok(outside.map_or_else(Vec::new, |outside| outside.meet.clone()))
}
