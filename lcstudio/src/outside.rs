//! Sessions in a network of their own, which their text leads to.

use librecast::cert::GroupPrefix;
use librecast::code::CodeKeys;
use librecast::id::SecretKey;
use librecast::outside::Place;
use librecast::reach::Base58;
use librecast::time::UnixTime;
use librecast_log::Role;
use librecast_program::cli::{Exit, ExitError, print_line};
use librecast_program::guest::{self, TextEntry, TextOwner};
use librecast_program::outside::{self, OnAir};
use librecast_program::page_link::link;
use serde_json::json;

use lcstudio_core::{Session, SessionKey};

use crate::keys::{self, Named};

/// Returns where attenders find the session. A program in no network of its own executes itself in
/// the session's, so this precedes other threads.
///
/// # Errors
/// The places, or the guest's state; `lcroute` cannot be executed.
pub fn present(key: &SessionKey, places: Vec<Place>) -> anyhow::Result<OnAir> {
    outside::own(&owner(key, places, false))
}

/// Returns the way of the presenter's programs into the session's network.
fn owner(key: &SessionKey, places: Vec<Place>, is_beside: bool) -> TextEntry {
    let (seed, session) = (key.network_seed(), key.session());
    let network = CodeKeys::of_random(&seed).network().peer_id();
    // the guest reads strangers' packets, and need not read the session
    let text = session.owner().to_string();
    let mut entry = TextEntry::new(text, &session.text_key(), places);
    entry.founds = Some(TextOwner {
        seed: Base58(*seed),
        attestation: Base58(key.attest(&network)),
        asks: true,
        is_beside,
        withdrawn: Vec::new(),
    });
    entry
}

/// Returns the session that the command line names. Executes this program in the session's network
/// first, if the text has a place, or with `is_outside`; so this precedes other threads. It is a
/// member there if it has the session's key, else a leaf.
///
/// # Errors
/// The text or its place is damaged; the guest's state; `lcroute` cannot be executed.
pub fn attend(text: &str, is_outside: bool, key: Option<&SessionKey>) -> anyhow::Result<Session> {
    if let Some(within) = outside::within()? {
        let presented = key.map(SessionKey::session);
        let presented = presented.filter(|session| *within.text == session.owner().to_string());
        return match presented {
            Some(session) => Ok(session),
            None => Ok(Session::decode(&within.text)?),
        };
    }
    let Named { session, place } = keys::named(text)?;
    if place.is_none() && !is_outside {
        return Ok(session);
    }
    let places = place.into_iter().collect();
    let entry = match key.filter(|key| key.session() == session) {
        Some(key) => owner(key, places, true),
        None => TextEntry::new(session.encode().to_string(), &session.text_key(), places),
    };
    Err(outside::execute(&entry).into())
}

/// Returns the part of this program in logs: a leaf sends only requests.
pub fn role(elsewhere: Role) -> Role {
    match guest::is_in_leaf() {
        true => Role::Reader,
        false => elsewhere,
    }
}

/// Who is invited to the session's own network.
#[derive(Debug)]
pub enum Invited {
    /// Members that send there.
    Member,
    /// Attenders, by a terminal or in this page.
    Leaf(Option<String>),
}

/// `invite --outside`: prints a token for the session's network, for a terminal or a page. It needs
/// no running program, as the key makes the network.
///
/// # Errors
/// Too many places, or too long ones; no address of a page; standard output.
pub fn invite(
    key: &SessionKey,
    places: &[Place],
    invited: &Invited,
    json: bool,
) -> anyhow::Result<Exit> {
    let signal = places
        .iter()
        .map(|place| place.server().to_owned())
        .collect();
    let (seed, invitation) = (key.network_seed(), SecretKey::generate());
    let now = UnixTime::now();
    let token = match invited {
        Invited::Member => CodeKeys::text_token(&seed, invitation, signal, now)?,
        Invited::Leaf(_) => {
            let terms = (vec![GroupPrefix::ALL], true);
            CodeKeys::of_random(&seed).leaf_token(invitation, terms, signal, now)?
        }
    };
    let (token, session) = (token.encode(), key.session().encode());
    let usage = |message| ExitError::new(Exit::Usage, message);
    let line = match invited {
        Invited::Member => token.to_string(),
        Invited::Leaf(None) => format!("{},{}", *token, *session),
        Invited::Leaf(Some(page)) => link(page, &token, Some(&session)).map_err(usage)?,
    };
    print_line(match json {
        true => json!({ "token": *token, "link": line }).to_string(),
        false => line,
    })?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_presenter_states_the_network_and_its_guest_cannot_read() {
        let key = SessionKey::from_seed(&[7; 32]);
        let entry = owner(&key, Vec::new(), false);
        let founds = entry.founds.as_ref().unwrap();
        let network = CodeKeys::of_random(&founds.seed.0).network().peer_id();
        assert!(entry.text_key().attests(&network, &founds.attestation.0));
        assert!(founds.asks && !founds.is_beside);
        assert!(Session::decode(&entry.text).is_err());
        let told = serde_json::to_string(&entry).unwrap();
        assert!(!told.contains(&key.session().encode()[8..]));
    }

    #[test]
    fn a_session_without_place_is_attended_where_this_host_is() {
        let session = SessionKey::from_seed(&[7; 32]).session();
        assert_eq!(attend(&session.encode(), false, None).unwrap(), session);
        for damaged in ["@", "@a b"] {
            assert!(attend(&format!("{}{damaged}", *session.encode()), false, None).is_err());
        }
    }

    #[test]
    fn tokens_are_for_pages_terminals_and_members() {
        let key = SessionKey::from_seed(&[7; 32]);
        let places = ["a.example", "b.example"].map(|place| place.parse().unwrap());
        let page = |text: &str| Invited::Leaf(Some(text.to_owned()));
        for invited in [
            Invited::Member,
            Invited::Leaf(None),
            page("https://a.example"),
        ] {
            assert_eq!(invite(&key, &places, &invited, true).unwrap(), Exit::Ok);
        }
        assert!(invite(&key, &places, &page("a.example"), true).is_err());
        let many = vec![places[0].clone(); 300];
        assert!(invite(&key, &many, &Invited::Member, true).is_err());
    }
}
