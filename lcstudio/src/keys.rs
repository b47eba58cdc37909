//! Keys of sessions and caption writers, and texts of sessions.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::Context;
use lcstudio_core::{Session, SessionKey};
use librecast::cert::MAX_TOKEN;
use librecast::outside::Place;
use librecast::text::TextKind;
use librecast_program::arguments;
use librecast_program::cli::{Exit, ExitError};
use librecast_program::guest;
use librecast_program::keyfile::{load_signing_key, make_signing_key};
use librecast_program::outside;
use serde_json::json;
use zeroize::Zeroizing;

/// Longest text of a session with its place or a token, in bytes.
const MAX_TEXT: u64 = 512 + MAX_TOKEN as u64;

/// `keygen`: creates a key; prints its session, and its public half for grants to write captions.
pub fn keygen(file: &Path, json: bool) -> anyhow::Result<Exit> {
    let public = make_signing_key(file)?;
    let session = load(file)?.session().encode();
    let mut out = librecast_program::standard::output();
    if json {
        let file = file.to_string_lossy();
        let told = json!({ "file": file, "session": *session, "public": public });
        writeln!(out, "{told}")?;
    } else {
        writeln!(out, "session {}\npublic  {public}", *session)?;
    }
    Ok(Exit::Ok)
}

/// Reads a file's key as a presenter's.
pub fn load(file: &Path) -> Result<SessionKey, ExitError> {
    Ok(SessionKey::from_seed(&load_signing_key(file)?.seed()))
}

/// Checks that the key presents the session of a folder.
pub fn check(key: &SessionKey, session: &Session) -> Result<(), ExitError> {
    match key.session() == *session {
        true => Ok(()),
        false => {
            let message = "the key presents another session than that of the folder";
            Err(ExitError::new(Exit::Usage, message))
        }
    }
}

/// A session as it is named.
#[derive(Debug, PartialEq, Eq)]
pub struct Named {
    /// The session.
    pub session: Session,
    /// Where its own network meets.
    pub place: Option<Place>,
}

/// Reads a session: `lcs1...`, `lcs1...@PLACE`, a file with it, or `-` for a line of standard input.
/// Executes this program in the network of a token before the text; precedes other threads.
pub fn named(text: &str) -> anyhow::Result<Named> {
    let usage = |message: String| ExitError::new(Exit::Usage, message);
    let is_line = text == arguments::STANDARD_INPUT;
    if is_line || TextKind::of(text).is_some() {
        let text = arguments::secret(text).context("standard input")?;
        let session = guest::behind_token(&text, is_line)?;
        return Ok(decode(session).map_err(usage)?);
    }
    let mut content = Zeroizing::new(String::new());
    let opened = File::open(text).map_err(|e| {
        usage(format!(
            "{text}: neither a session (lcs1...) nor a file with one: {e}"
        ))
    })?;
    let read = opened.take(MAX_TEXT).read_to_string(&mut content);
    read.with_context(|| text.to_owned())?;
    let session = guest::behind_token(&content, false)?;
    let named = decode(session).map_err(|e| usage(format!("{text}: {e}")))?;
    Ok(named)
}

fn decode(text: &str) -> Result<Named, String> {
    let (text, place) = outside::split(text).map_err(|e| e.to_string())?;
    let session = Session::decode(text).map_err(|e| e.to_string())?;
    Ok(Named { session, place })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_its_text_or_a_file_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let (key, text) = (folder.path().join("key"), folder.path().join("text"));
        assert_eq!(keygen(&key, true).unwrap(), Exit::Ok);
        assert!(keygen(&key, true).is_err(), "nothing is overwritten");
        let expected = load(&key).unwrap().session();
        std::fs::write(&text, format!("{}\n", *expected.encode())).unwrap();
        let session = |text: &str| named(text).map(|named| named.session);
        assert_eq!(session(text.to_str().unwrap()).unwrap(), expected);
        assert_eq!(session(&expected.encode()).unwrap(), expected);
        std::fs::write(&text, format!("{}@meet.example\n", *expected.encode())).unwrap();
        let with_place = named(text.to_str().unwrap()).unwrap();
        assert_eq!(with_place.place, Some("meet.example".parse().unwrap()));
        assert_eq!(with_place.session, expected);
        for wrong in ["lcs1damaged", "lct1xyz", "/nowhere", key.to_str().unwrap()] {
            let error = session(wrong).unwrap_err();
            let exit = error.downcast_ref::<ExitError>().map(|e| e.exit);
            assert!(exit.is_none_or(|exit| exit == Exit::Usage), "{error}");
        }
    }
}
