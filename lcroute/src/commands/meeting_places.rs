//! Where guests meet.

use lcroute_control::config::Config;
use lcroute_control::settings::places_of_environment;
use librecast::outside::Place;

/// Returns the places of texts that name none: of `LCROUTE_SIGNAL`, else of `[outside] meet`.
pub fn places_of_user(config: &Config) -> anyhow::Result<Vec<Place>> {
    if let Some(places) = places_of_environment()? {
        return Ok(places);
    }
    let outside = config.exposure().outside().ok();
    Ok(outside.map_or_else(Vec::new, |outside| outside.meet.clone()))
}
