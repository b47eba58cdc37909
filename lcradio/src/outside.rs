//! Stations in a network of their own, which their text leads to.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::thread;

use lcradio_core::{Station, StationKey};
use librecast::code::CodeKeys;
use librecast::outside::Place;
use librecast::reach::{Base58, MAX_VALUE};
use librecast::text::TextKind;
use librecast::time::UnixTime;
use librecast::wire::Reader;
use librecast_program::arguments;
use librecast_program::cli::{Exit, ExitError};
use librecast_program::guest::{self, MAX_TEXT_PLACES, TextEntry, TextOwner};
use librecast_program::guest_state::Inside;

use crate::keys;

/// Seconds around the present day for which the guest may have records signed.
const DAY: u64 = 86_400;
/// The option that stands for the text inside of the network.
const OPTION: &str = "--outside";

/// Returns the text of the network in which this program runs, and its place; none: in none of a
/// text.
///
/// # Errors
///
/// The guest's state cannot be read.
fn inside() -> anyhow::Result<Option<(Station, String)>> {
    let Some(inside) = Inside::of_environment()? else {
        return Ok(None);
    };
    let state = inside.read()?;
    match state.text.is_empty() {
        true => Ok(None),
        false => Ok(Some((Station::decode(&state.text)?, state.place.clone()))),
    }
}

/// Returns whether this program runs in the network of a text.
pub fn is_inside() -> bool {
    matches!(inside(), Ok(Some(_)))
}

fn usage(message: impl Into<String>) -> anyhow::Error {
    ExitError::new(Exit::Usage, message).into()
}

fn check(places: &[Place]) -> anyhow::Result<()> {
    match places.len() <= MAX_TEXT_PLACES {
        true => Ok(()),
        false => Err(usage(format!(
            "a station has {MAX_TEXT_PLACES} places at most"
        ))),
    }
}

/// Returns where listeners find the station, as it stands behind its text. A program in no network
/// of its own executes itself in the station's, so this precedes other threads.
///
/// # Errors
///
/// The key, the places, or the guest's state; `lcroute` cannot be executed.
pub fn cast(key: &Path, is_public: bool, places: &[Place]) -> anyhow::Result<Cast> {
    check(places)?;
    let key = keys::load(Some(key))?;
    let public = key.station(true);
    if let Some((cast, place)) = inside()? {
        return match cast == public {
            true => {
                let questions = guest::questions()?;
                let signer = questions.map(|questions| Signer {
                    key,
                    is_public,
                    questions,
                });
                Ok(Cast { place, signer })
            }
            false => Err(usage("the key is another one than this network's")),
        };
    }
    let given = arguments::given().get(1..).unwrap_or_default();
    Err(guest::by_text(&owner(&key, is_public, places), given).into())
}

/// A station on the air, in its own network.
pub struct Cast {
    /// Where listeners find it, as it stands behind its text.
    pub place: String,
    /// Signs its record for a DHT, if one is used.
    pub signer: Option<Signer>,
}

/// Signs the station's record for a DHT, as often as the guest asks. The guest reads what strangers
/// send, so the key stays here.
pub struct Signer {
    key: StationKey,
    is_public: bool,
    questions: UnixDatagram,
}

impl Signer {
    /// Signs in a thread of its own. Signals and rights are set before: a thread has those of its
    /// start.
    ///
    /// # Errors
    ///
    /// No thread can be started.
    pub fn start(self) -> io::Result<()> {
        let thread = thread::Builder::new().name("signer".into());
        thread.spawn(move || self.run()).map(drop)
    }

    fn run(&self) {
        let mut buffer = [0; 16 + MAX_VALUE];
        // the guest ends with this program
        while let Ok(length) = self.questions.recv(&mut buffer) {
            // each question has an answer: the guest counts them
            let signature = self.sign(&buffer[..length]).unwrap_or([0; 64]);
            if self.questions.send(&signature).is_err() {
                return;
            }
        }
    }

    fn sign(&self, question: &[u8]) -> Option<[u8; 64]> {
        let mut question = Reader::new(question);
        let (time, sequence) = (question.u64().ok()?, question.u64().ok()?);
        let now = UnixTime::now().as_secs();
        let sequence = i64::try_from(sequence).ok()?;
        let item = (sequence, question.rest());
        let time_is_near = time.abs_diff(now) <= DAY;
        time_is_near.then(|| {
            let time = UnixTime::from_secs(time);
            self.key.sign_item(self.is_public, item, time)
        })
    }
}

/// Returns the way of a station's owner into its network.
fn owner(key: &StationKey, is_public: bool, places: &[Place]) -> TextEntry {
    let seed = key.network_seed(is_public);
    let network = CodeKeys::of_random(&seed).network().peer_id();
    let founds = TextOwner {
        seed: Base58(*seed),
        attestation: Base58(key.attest(is_public, &network)),
    };
    let mut entry = entry(&key.station(is_public), places.to_vec());
    entry.founds = Some(founds);
    // the guest reads what strangers send, and need not open the sound
    entry.text = key.station(true).encode().to_string();
    entry
}

fn entry(station: &Station, places: Vec<Place>) -> TextEntry {
    let text = station.text_key();
    TextEntry {
        text: station.encode().to_string(),
        key: *text.key(),
        secret: Base58(*text.secret()),
        places,
        founds: None,
    }
}

/// Returns the station in whose network this listener runs; none: it runs in none of a text.
///
/// # Errors
///
/// The guest's state cannot be read.
pub fn tuned() -> anyhow::Result<Option<Station>> {
    Ok(inside()?.map(|(station, _)| station))
}

/// Executes this listener in the network of the station, if the text has a place, or with `outside`.
/// Precedes other threads. Returns only if it has none.
///
/// # Errors
///
/// The text or its place is damaged; `lcroute` cannot be executed.
pub fn enter(text: &str, outside: bool, argument: Option<&str>) -> anyhow::Result<()> {
    let (text, place) = match text.split_once('@') {
        Some((text, place)) if TextKind::of(text).is_some() => (text, Some(place)),
        _ if outside => (text, None),
        _ => return Ok(()),
    };
    let station = Station::decode(text).map_err(|e| usage(e.to_string()))?;
    let place = place.map(str::parse::<Place>).transpose();
    let places = place
        .map_err(|e| usage(e.to_string()))?
        .into_iter()
        .collect();
    let given = arguments::given().iter().skip(1);
    // the program inside is told the text, and other users see arguments
    let mut argument = argument.map(OsStr::new);
    let given = given.filter(|given| argument.take_if(|text| *text == *given).is_none());
    let given = given.filter(|given| *given != OPTION);
    let mut all: Vec<_> = given.cloned().collect();
    // before a `--`, behind the verb
    let verb = all.iter().position(|given| given == "listen");
    all.insert(verb.map_or(all.len(), |at| at + 1), OsString::from(OPTION));
    Err(guest::by_text(&entry(&station, places), &all).into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_texts_with_a_place_lead_outside() {
        let station = StationKey::from_seed(&[7; 32]).station(false).encode();
        for text in [&station[..], "news", "news@home", "lct1x"] {
            enter(text, false, None).unwrap();
        }
        let damaged = format!("{}@meet.example", &station[..40]);
        let no_place = format!("{}@", *station);
        for (text, outside) in [
            (&*damaged, false),
            (&*no_place, false),
            ("lcs1abc@meet.example", false),
            ("news", true),
        ] {
            let error = enter(text, outside, None).unwrap_err();
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
