//! Stations in a network of their own, which their text leads to.

use std::path::Path;

use lcradio_core::{Station, StationKey};
use librecast::code::CodeKeys;
use librecast::outside::Place;
use librecast::reach::Base58;
use librecast::text::TextKind;
use librecast_program::arguments;
use librecast_program::cli::{Exit, ExitError};
use librecast_program::guest::{self, TextEntry, TextOwner};
use librecast_program::outside::{self, OnAir};

use crate::keys;

/// Returns where listeners find the station. A program in no network of its own executes itself in
/// the station's, so this precedes other threads.
///
/// # Errors
/// The key, the places, the helpers, or the guest's state; `lcroute` cannot be executed.
pub fn cast(
    key: &Path,
    is_public: bool,
    places: &[Place],
    withdrawn: &[String],
) -> anyhow::Result<OnAir> {
    let key = keys::load(Some(key))?;
    let mut entry = owner(&key, is_public, places);
    if let Some(owner) = &mut entry.founds {
        owner.withdrawn = keys::invitations(&owner.seed.0, withdrawn)?;
    }
    outside::own(&entry)
}

/// Executes a caster whose grant is for the station's own network in that network. Precedes other
/// threads. Returns only if it is for none, or inside.
///
/// # Errors
/// The file of the grant; `lcroute` cannot be executed.
pub fn cast_granted(grant: &Path) -> anyhow::Result<()> {
    match keys::token_of_grant(grant)? {
        Some(token) if !guest::is_inside() => {
            let given = arguments::given().get(1..).unwrap_or_default();
            Err(guest::join(&token, given).into())
        }
        _ => Ok(()),
    }
}

/// Returns the way of a station's owner into its network.
fn owner(key: &StationKey, is_public: bool, places: &[Place]) -> TextEntry {
    let seed = key.network_seed(is_public);
    let network = CodeKeys::of_random(&seed).network().peer_id();
    // the guest reads strangers' packets, and need not open the sound
    let text = key.station(true).encode().to_string();
    let text_key = key.station(is_public).text_key();
    let mut entry = TextEntry::new(text, &text_key, places.to_vec());
    entry.founds = Some(TextOwner {
        seed: Base58(*seed),
        attestation: Base58(key.attest(is_public, &network)),
        asks: false,
        is_beside: false,
        withdrawn: Vec::new(),
    });
    entry
}

/// Returns the station in whose network this listener runs; none: it runs in none of a station.
///
/// # Errors
/// The guest's state cannot be read.
pub fn tuned() -> anyhow::Result<Option<Station>> {
    let within = outside::within()?;
    // or in a session's, whose sound this is
    let station = within.filter(|within| TextKind::of(&within.text) == Some(TextKind::Station));
    Ok(station
        .map(|within| Station::decode(&within.text))
        .transpose()?)
}

/// Executes this listener in the network of the station, if the text has a place, or with `outside`.
/// Precedes other threads. Returns only if it has none.
///
/// # Errors
/// The text or its place is damaged; `lcroute` cannot be executed.
pub fn enter(text: &str, is_outside: bool) -> anyhow::Result<()> {
    let (text, place) = outside::split(text)?;
    if place.is_none() && !is_outside || outside::within()?.is_some() {
        return Ok(());
    }
    let station = Station::decode(text).map_err(|e| ExitError::new(Exit::Usage, e.to_string()))?;
    let text = station.encode().to_string();
    let places = place.into_iter().collect();
    let entry = TextEntry::new(text, &station.text_key(), places);
    Err(outside::execute(&entry).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_texts_with_a_place_lead_outside() {
        let station = StationKey::from_seed(&[7; 32]).station(false).encode();
        for text in [&station[..], "news", "news@home", "lct1x"] {
            enter(text, false).unwrap();
        }
        let damaged = format!("{}@meet.example", &station[..40]);
        let no_place = format!("{}@", *station);
        for (text, outside) in [
            (&*damaged, false),
            (&*no_place, false),
            ("lcs1abc@meet.example", false),
            ("news", true),
        ] {
            let error = enter(text, outside).unwrap_err();
            let exit = error.downcast_ref::<ExitError>().unwrap().exit;
            assert_eq!(exit, Exit::Usage, "{text}: {error}");
        }
    }

    #[test]
    fn the_owner_states_the_network_and_each_of_its_stations_has_one() {
        let key = StationKey::from_seed(&[7; 32]);
        let [private, public] = [false, true].map(|public| {
            let entry = owner(&key, public, &[]);
            let founds = entry.founds.as_ref().unwrap();
            let network = CodeKeys::of_random(&founds.seed.0).network().peer_id();
            assert!(entry.text_key().attests(&network, &founds.attestation.0));
            network
        });
        assert_ne!(private, public);
    }
}
