//! New words for files of this page, and the network that they make.

use std::net::Ipv6Addr;

use librecast::cert::CertError;
use librecast::channel::SharePrefix;
use librecast::code::beacon::beacon_group;
use librecast::code::{Code, CodeError, Host};
use librecast::id::SecretKey;
use librecast::time::UnixTime;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::get::SHARE;
use crate::link::sentence;

/// Parameters of the words.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// The words of this tab before a reload; none: new ones.
    pub words: Option<String>,
    /// The signalling server at which nodes meet: HOST or HOST:PORT.
    pub host: String,
    /// Random bytes of the words.
    pub random: [u8; 8],
    /// Secret random bytes: the key of an invitation.
    pub invitation: [u8; 32],
    /// Secret random bytes, before a reload the same: the key that signs the files.
    pub signer: [u8; 32],
}

impl std::fmt::Debug for Start {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Start").finish_non_exhaustive()
    }
}

impl Drop for Start {
    fn drop(&mut self) {
        self.words.zeroize();
        self.random.zeroize();
        self.invitation.zeroize();
        self.signer.zeroize();
    }
}

/// The words, for the page. Holds secrets.
#[derive(Serialize)]
pub struct Words {
    /// `WORD-WORD-WORD-WORD@HOST`.
    pub words: String,
    /// A token for this tab.
    pub token: String,
    /// The groups that it serves.
    pub serves: Ipv6Addr,
}

impl std::fmt::Debug for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Words").finish_non_exhaustive()
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        self.words.zeroize();
        self.token.zeroize();
    }
}

/// The keys of a sender.
#[derive(Debug)]
pub struct Keys {
    /// Group of its beacons.
    pub beacons: Ipv6Addr,
    /// The key that signs versions.
    pub signer: SecretKey,
}

/// Makes the words, or keeps them. It takes 64 MiB, and about a second.
///
/// # Errors
/// An explanation for users.
pub fn make(start: &Start, now: UnixTime) -> Result<(Words, Keys), String> {
    let host = || {
        let host = start.host.trim().parse::<Host>();
        host.map_err(
            |_| "Nodes meet at a signalling server: its name is missing, as in meet.example.",
        )
    };
    let code = match &start.words {
        Some(words) => {
            let code = words.parse::<Code>();
            code.map_err(|e: CodeError| sentence(&e))?
        }
        None => Code::of_random(start.random, Some(host()?)),
    };
    let server = match code.host() {
        Some(host) => host.to_string(),
        None => host()?.to_string(),
    };
    let keys = code.keys();
    let invitation = SecretKey::from_seed(&start.invitation);
    let token = keys.token(invitation, vec![server], now);
    let token = token.map_err(|e: CertError| sentence(&e))?.encode();
    let words = Words {
        words: code.encode().to_string(),
        token: token.to_string(),
        serves: SharePrefix::of_name(b"", SHARE).address(),
    };
    let keys = Keys {
        beacons: beacon_group(&keys.beacon),
        signer: SecretKey::from_seed(&start.signer),
    };
    Ok((words, keys))
}

#[cfg(test)]
mod tests {
    use librecast::cert::Token;

    use super::*;

    fn start(words: Option<&str>, host: &str) -> Start {
        Start {
            words: words.map(str::to_owned),
            host: host.into(),
            random: [7; 8],
            invitation: [8; 32],
            signer: [9; 32],
        }
    }

    #[test]
    fn words_lead_receivers_to_the_network_of_the_page_and_survive_a_reload() {
        let now = UnixTime::from_secs(1_800_000_000);
        let (made, keys) = make(&start(None, " Meet.Example:7117 "), now).unwrap();
        assert!(made.words.ends_with("@meet.example:7117"));
        let token: Token = made.token.parse().unwrap();
        let grant = token.invitation().grant();
        assert!(grant.core && !grant.leaf);
        let code: Code = made.words.parse().unwrap();
        assert_eq!(code.keys().network().peer_id(), token.network());
        assert_eq!(keys.beacons, beacon_group(&code.keys().beacon));
        let (again, same) = make(&start(Some(&made.words), ""), now).unwrap();
        assert_eq!(again.words, made.words);
        assert_eq!(same.signer.peer_id(), keys.signer.peer_id());
        let missing = make(&start(None, ""), now).unwrap_err();
        assert!(missing.contains("signalling server"));
    }
}
