//! The text behind the `#` of the page's address: words, or a token and a share.

use librecast::cert::{CertError, GroupPrefix};
use librecast::code::{BeaconKey, Code, Host};
use librecast::id::SecretKey;
use librecast::time::UnixTime;
use serde::Deserialize;
use zeroize::Zeroizing;

/// Parameters of a page's start.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// `WORD-WORD-WORD-WORD[@HOST[:PORT]]`, or `lct1...,lc:NAME`.
    pub link: String,
    /// A server for words that name none.
    pub host: String,
    /// Secret random bytes: the key of an invitation.
    pub seed: [u8; 32],
}

impl std::fmt::Debug for Start {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Start").finish_non_exhaustive()
    }
}

/// A way to files.
#[derive(Debug)]
pub struct Link {
    /// The token of a leaf.
    pub token: Zeroizing<String>,
    /// The files to be received.
    pub wanted: Wanted,
}

/// The files to be received.
#[derive(Debug)]
pub enum Wanted {
    /// The offer of a beacon under the code.
    Code(BeaconKey),
    /// The share of this name.
    Share(String),
}

impl Link {
    /// Reads it. For words it takes 64 MiB, and about a second.
    pub fn new(start: &Start, now: UnixTime) -> Result<Self, String> {
        let text = start.link.trim();
        if let Some((token, name)) = text.split_once(",lc:")
            && token.starts_with("lct1")
        {
            let name = name.split_once('#').map_or(name, |(name, _)| name);
            return Ok(Self {
                token: Zeroizing::new(token.to_owned()),
                wanted: Wanted::Share(name.to_owned()),
            });
        }
        let code: Code = text.parse().map_err(|e| sentence(&e))?;
        let given: Option<Host> = start.host.parse().ok();
        let host = code.host().or(given.as_ref());
        let servers = host.map(Host::to_string).into_iter().collect();
        let keys = code.keys();
        let invitation = SecretKey::from_seed(&start.seed);
        let token = keys.leaf_token(invitation, (vec![GroupPrefix::ALL], false), servers, now);
        let token = token.map_err(|e: CertError| sentence(&e))?;
        Ok(Self {
            token: token.encode(),
            wanted: Wanted::Code(keys.beacon),
        })
    }
}

/// Returns an error as a sentence.
pub(crate) fn sentence(error: &dyn std::fmt::Display) -> String {
    let text = error.to_string();
    let end = if text.ends_with('?') { "" } else { "." };
    let mut rest = text.chars();
    let first = rest.next().map(|c| c.to_ascii_uppercase());
    format!("{}{}{end}", first.unwrap_or_default(), rest.as_str())
}

#[cfg(test)]
mod tests {
    use librecast::cert::Token;

    use super::*;

    fn read(link: &str, host: &str) -> Result<Link, String> {
        let start = Start {
            link: link.to_owned(),
            host: host.to_owned(),
            seed: [7; 32],
        };
        Link::new(&start, UnixTime::from_secs(1_800_000_000))
    }

    #[test]
    fn words_make_a_leaf_of_their_network_and_a_token_is_taken_as_it_is() {
        let link = read("aban zoo qual lemo@meet.example:443", "page.example").unwrap();
        let token: Token = link.token.parse().unwrap();
        assert!(token.invitation().grant().leaf);
        assert_eq!(token.signal, ["meet.example:443"]);
        assert!(matches!(link.wanted, Wanted::Code(_)));
        let link = read("abandon-zoo-quality-lemon", "page.example").unwrap();
        let other: Token = link.token.parse().unwrap();
        assert_eq!(other.network(), token.network());
        assert_eq!(other.signal, ["page.example"]);
        let link = read(" lct1abc,lc:files\n", "").unwrap();
        assert_eq!(*link.token, "lct1abc");
        assert!(matches!(link.wanted, Wanted::Share(name) if name == "files"));
        let wrong = read("abandon-zoo-quality-lemmon", "").unwrap_err();
        assert_eq!(wrong, "\"lemmon\" is no word of a code; is it \"lemon\"?");
        assert!(read("abandon-zoo", "").unwrap_err().ends_with("has 2."));
    }
}
