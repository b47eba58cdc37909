//! Keys of stations, and texts of listeners.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use lcradio_core::{CallKey, Grant, GrantError, Station, StationKey};
use librecast::cert::MAX_TOKEN;
use librecast::code::CodeKeys;
use librecast::id::{PeerId, SecretKey};
use librecast::outside::Place;
use librecast::text::{TextError, TextKind};
use librecast::time::{UnixTime, utc};
use librecast::units::parse_duration;
use librecast_program::arguments;
use librecast_program::cli::{Exit, ExitError};
use librecast_program::guest;
use librecast_program::helper;
use librecast_program::keyfile::{load_signing_key, make_secret_key};
use serde_json::json;
use zeroize::Zeroizing;

use crate::values::hint;

/// Bytes above the longest text of a station or grant: 168 bytes in base58, with a place or a token.
const MAX_TEXT: u64 = 512 + MAX_TOKEN as u64;

/// Bytes of a helper's name. Chosen: as a node's.
const MAX_HELPER_NAME: usize = 63;

/// Returns 32 bytes of the system's randomness.
pub fn random() -> io::Result<Zeroizing<[u8; 32]>> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(&mut bytes[..]).map_err(|e| io::Error::other(format!("no randomness: {e}")))?;
    Ok(bytes)
}

/// `keygen`: makes a key, and prints the texts of its two stations.
pub fn keygen(file: &Path, json: bool) -> anyhow::Result<Exit> {
    let key = StationKey::from_seed(&make_secret_key(file)?.seed());
    let (private, public) = (key.station(false).encode(), key.station(true).encode());
    let mut out = librecast_program::standard::output();
    if json {
        let file = file.to_string_lossy();
        let told = json!({ "file": file, "private": *private, "public": *public });
        writeln!(out, "{told}")?;
    } else {
        writeln!(out, "private {}\npublic  {}", *private, *public)?;
    }
    Ok(Exit::Ok)
}

/// Returns the key in a file, or one for this run.
pub fn load(file: Option<&Path>) -> anyhow::Result<StationKey> {
    let seed = match file {
        Some(file) => load_signing_key(file)?.seed(),
        None => random()?,
    };
    Ok(StationKey::from_seed(&seed))
}

/// The options of `grant`.
#[derive(Debug, Args)]
pub struct GrantOptions {
    /// The station's key
    pub key: PathBuf,
    /// What `keygen` called public when the caster made a key
    pub caster: String,
    /// How long it is good; it cannot be taken back
    #[arg(long, default_value = "30d", value_parser = parse_duration, value_name = "TIME")]
    pub ttl: Duration,
    /// For the public station, not for the private one
    #[arg(long)]
    pub public: bool,
    /// For a station in a network of its own (`cast --outside`): the grant leads into it, as a member
    #[arg(long)]
    pub outside: bool,
    /// Where that network meets, with --outside: HOST, HOST:PORT or a URL of a signalling server; may be repeated
    #[arg(long, value_name = "PLACE", requires = "outside")]
    pub at: Vec<Place>,
}

/// `grant`: permits another key to cast for the station.
pub fn grant(options: &GrantOptions, json: bool) -> anyhow::Result<Exit> {
    let usage = |message: String| ExitError::new(Exit::Usage, message);
    let key = StationKey::from_seed(&load_signing_key(&options.key)?.seed());
    let caster = Station::decode(&options.caster).map_err(|e| usage(e.to_string()))?;
    if !caster.is_public() {
        let message = "this text is private, and its owner's secret: ask for the one that keygen calls public";
        return Err(usage(message.to_owned()).into());
    }
    if *caster.key() == key.id() {
        return Err(usage("this is the station's own key, which needs no grant".to_owned()).into());
    }
    let ttl_ms = u64::try_from(options.ttl.as_millis()).unwrap_or(u64::MAX);
    let expires_ms = UnixTime::now().as_millis().saturating_add(ttl_ms);
    let grant = Grant::new(&key, options.public, caster.key(), expires_ms);
    let mut text = grant.encode();
    if options.outside {
        let token = token(&key, options.public, &options.at)?;
        text = Zeroizing::new(format!("{},{}", *token, *text));
    }
    let mut out = librecast_program::standard::output();
    if json {
        let told = json!({
            "grant": *text,
            "public": options.public,
            "expires_ms": expires_ms,
        });
        writeln!(out, "{told}")?;
    } else {
        writeln!(out, "{}", *text)?;
    }
    Ok(Exit::Ok)
}

/// Returns a token for members of the station's own network.
fn token(key: &StationKey, is_public: bool, places: &[Place]) -> anyhow::Result<Zeroizing<String>> {
    let signal = places
        .iter()
        .map(|place| place.server().to_owned())
        .collect();
    let (seed, invitation) = (key.network_seed(is_public), SecretKey::generate());
    Ok(CodeKeys::text_token(&seed, invitation, signal, UnixTime::now())?.encode())
}

/// The options of `invite`.
#[derive(Debug, Args)]
pub struct InviteOptions {
    /// The station's key
    pub key: PathBuf,
    /// A name for the host, by which `cast --without` withdraws it
    pub name: String,
    /// How long the token is good
    #[arg(long, default_value = "30d", value_parser = parse_duration, value_name = "TIME")]
    pub ttl: Duration,
    /// For the public station, not for the private one
    #[arg(long)]
    pub public: bool,
    /// Where the station's network meets: HOST, HOST:PORT or a URL of a signalling server; may be repeated
    #[arg(long, value_name = "PLACE")]
    pub at: Vec<Place>,
}

/// `invite`: prints the token by which a host helps the station.
pub fn invite(options: &InviteOptions, json: bool) -> anyhow::Result<Exit> {
    let seed = load(Some(&options.key))?.network_seed(options.public);
    check_helper(&options.name)?;
    if options.ttl > helper::MAX_TTL {
        return Err(ExitError::new(Exit::Usage, "--ttl is a year at most").into());
    }
    let urls = options.at.iter().map(|place| place.server().to_owned());
    let (urls, now) = (urls.collect(), UnixTime::now());
    let token = helper::token(&seed, &options.name, urls, (now, options.ttl))?.encode();
    let mut out = librecast_program::standard::output();
    if json {
        let expires_ms = now.as_millis() + options.ttl.as_secs() * 1_000;
        let told = json!({ "helper": *token, "name": options.name, "expires_ms": expires_ms });
        writeln!(out, "{told}")?;
    } else {
        writeln!(out, "{}", *token)?;
    }
    if options.at.is_empty() {
        hint("without --at the helper finds the caster on LANs alone");
    }
    Ok(Exit::Ok)
}

/// Checks the name of a helper.
fn check_helper(name: &str) -> Result<(), ExitError> {
    match name.is_empty() || name.len() > MAX_HELPER_NAME {
        true => Err(ExitError::new(
            Exit::Usage,
            format!("a helper's name has 1 to {MAX_HELPER_NAME} bytes"),
        )),
        false => Ok(()),
    }
}

/// Returns the invitations of these helpers, in the network of this seed.
pub fn invitations(seed: &[u8; 32], names: &[String]) -> Result<Vec<PeerId>, ExitError> {
    if names.len() > helper::MAX_HELPERS {
        let message = format!("--without: {} helpers at most", helper::MAX_HELPERS);
        return Err(ExitError::new(Exit::Usage, message));
    }
    let invitation = |name: &String| {
        check_helper(name)?;
        Ok(helper::invitation(seed, name).peer_id())
    };
    names.iter().map(invitation).collect()
}

/// Loads the grant in a file, if it is for this key and has not expired.
pub fn load_grant(file: &Path, key: &StationKey) -> anyhow::Result<Grant> {
    let name = file.display();
    let refused = |exit, message: &str| ExitError::new(exit, format!("{name}: {message}"));
    let text = read_text(file)?;
    let (_, text) = guest::split_token(&text);
    let grant = Grant::decode(text).map_err(|e| match e {
        GrantError::Forged => refused(Exit::NotPermitted, &e.to_string()),
        GrantError::Text(_) | GrantError::Wire(_) => refused(Exit::Usage, &e.to_string()),
    })?;
    if *grant.caster() != key.id() {
        return Err(refused(Exit::NotPermitted, "this grant is for another key").into());
    }
    if grant.expires_ms() <= UnixTime::now().as_millis() {
        let message = format!("this grant expired at {}", utc(grant.expires_ms() / 1_000));
        return Err(refused(Exit::NotPermitted, &message).into());
    }
    Ok(grant)
}

/// Returns the token of the station's own network in the file of a grant, if it has one.
pub fn token_of_grant(file: &Path) -> anyhow::Result<Option<Zeroizing<String>>> {
    let text = read_text(file)?;
    let (token, _) = guest::split_token(&text);
    Ok(token.map(|token| Zeroizing::new(token.to_owned())))
}

/// Reads a text that must not be on command lines.
fn read_text(file: &Path) -> anyhow::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    let opened = File::open(file).with_context(|| file.display().to_string())?;
    let read = opened.take(MAX_TEXT).read_to_string(&mut text);
    read.with_context(|| file.display().to_string())?;
    Ok(text)
}

/// A listener's choice.
#[derive(Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A station, by its text.
    Station(Station),
    /// A station that announces this name.
    Name(String),
}

/// Reads what the command line names: `lcr1...`, the name of a public station, or `-` for a line of
/// standard input; `file` has a secret text. Executes this program in the network of a token before
/// the text, as for an argument; precedes other threads.
pub fn given(text: Option<&str>, file: Option<&Path>) -> anyhow::Result<Zeroizing<String>> {
    let read = match file {
        Some(file) => read_text(file)?,
        None => {
            let text = text.ok_or_else(|| ExitError::new(Exit::Usage, "name a station"))?;
            arguments::secret(text).context("standard input")?
        }
    };
    let what = guest::behind_token(&read, file.is_none())?;
    Ok(Zeroizing::new(what.to_owned()))
}

/// Reads the text of a call: `lcc1...`, or `-` for a line of standard input; `file` has it, too.
/// None: a new call.
pub fn call(text: Option<&str>, file: Option<&Path>) -> anyhow::Result<Option<CallKey>> {
    if text.is_none() && file.is_none() {
        return Ok(None);
    }
    let text = given(text, file)?;
    let key = CallKey::decode(&text).map_err(|e| ExitError::new(Exit::Usage, e.to_string()))?;
    Ok(Some(key))
}

/// Parses what the command line names; a `file` names no station by its name.
pub fn wanted(text: &str, file: Option<&Path>) -> anyhow::Result<Wanted> {
    let usage = |message: String| ExitError::new(Exit::Usage, message);
    match (Station::decode(text), file) {
        (Ok(station), _) => Ok(Wanted::Station(station)),
        (Err(e), Some(file)) => Err(usage(format!("{}: {e}", file.display())).into()),
        (Err(TextError::Prefix(_)), None) => Ok(Wanted::Name(text.to_owned())),
        (Err(e @ TextError::Other { .. }), None) => Err(usage(e.to_string()).into()),
        // a name may begin like a text
        (Err(_), None) if TextKind::of(text) != Some(TextKind::Station) => {
            Ok(Wanted::Name(text.to_owned()))
        }
        (Err(e), None) => Err(usage(e.to_string()).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_station_is_its_text_a_file_or_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let (key, text) = (folder.path().join("key"), folder.path().join("text"));
        assert_eq!(keygen(&key, true).unwrap(), Exit::Ok);
        assert!(keygen(&key, true).is_err(), "nothing is overwritten");
        let station = load(Some(&key)).unwrap().station(false);
        std::fs::write(&text, format!("{}\n", *station.encode())).unwrap();
        let expected = Wanted::Station(station.clone());
        let read = |file: &Path| wanted(&given(None, Some(file))?, Some(file));
        assert_eq!(read(&text).unwrap(), expected);
        assert_eq!(wanted(&station.encode(), None).unwrap(), expected);
        assert_eq!(
            wanted(&given(Some("news"), None).unwrap(), None).unwrap(),
            Wanted::Name("news".into())
        );
        for wrong in ["lcr1damaged", "lct1xyz"] {
            let error = wanted(wrong, None).unwrap_err();
            let exit = error.downcast_ref::<ExitError>().unwrap().exit;
            assert_eq!(exit, Exit::Usage, "{error}");
        }
        assert!(read(&key).is_err());
    }

    #[test]
    fn a_grant_may_have_a_token_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("grant");
        let (station, caster) = ([1; 32], [2; 32]);
        let [station, caster] = [station, caster].map(|seed| StationKey::from_seed(&seed));
        let expires = UnixTime::now().as_millis() + 60_000;
        let grant = Grant::new(&station, false, &caster.id(), expires);
        let place = "meet.example".parse().unwrap();
        let token = token(&station, false, &[place]).unwrap();
        for (text, expected) in [
            (grant.encode().to_string(), None),
            (format!("{},{}\n", *token, *grant.encode()), Some(&*token)),
        ] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(load_grant(&file, &caster).unwrap(), grant);
            let found = token_of_grant(&file).unwrap();
            assert_eq!(found.as_deref(), expected);
        }
        let network = token.parse::<librecast::cert::Token>().unwrap().network();
        let seed = station.network_seed(false);
        assert_eq!(network, CodeKeys::of_random(&seed).network().peer_id());
    }
}
