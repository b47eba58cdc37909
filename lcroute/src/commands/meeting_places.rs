//! Where guests meet.

use lcroute_control::config::Config;
use lcroute_control::settings::places_of_environment;
use librecast::outside::Place;
use librecast_program::cli::{Exit, ExitError};
use librecast_program::guest::MAX_TEXT_PLACES;

use crate::guest::text::Places;
use crate::servers::proxy;

/// Returns the places of texts that name none: of `LCROUTE_SIGNAL`, else of `[outside] meet`.
fn places_of_user(config: &Config) -> anyhow::Result<Vec<Place>> {
    if let Some(places) = places_of_environment()? {
        return Ok(places);
    }
    let outside = config.exposure().outside().ok();
    Ok(outside.map_or_else(Vec::new, |outside| outside.meet.clone()))
}

/// Returns where a text meets that names these places, and the first of them.
pub fn meeting_places(named: &[Place], config: &Config) -> anyhow::Result<(Places, Option<Place>)> {
    let mut places = named.to_vec();
    if places.is_empty() {
        places = places_of_user(config)?;
    }
    places.truncate(MAX_TEXT_PLACES);
    let servers = places.iter().map(|place| place.server().to_owned());
    let servers: Vec<_> = servers.collect();
    let on_lans = config.exposure().lans().is_ok();
    let outside = config.exposure().outside().ok();
    let dht = outside.filter(|outside| outside.dht);
    let dht = dht.map(|_| config.signal.dht_entries().to_vec());
    if servers.is_empty() && !on_lans && dht.is_none() {
        let message =
            "[signal] lan = false, and no place is named: there is no way to meet (TEXT@HOST)";
        return Err(ExitError::new(Exit::Usage, message).into());
    }
    let meeting = Places {
        servers,
        proxy: proxy(config).map_err(|e| ExitError::new(Exit::Usage, format!("{e:#}")))?,
        interface: config.tun.name.clone(),
        on_lans,
        dht,
    };
    Ok((meeting, places.into_iter().next()))
}
