//! The page's identity and network: from a token, or from before a reload.

use std::net::Ipv6Addr;
use std::sync::Arc;

use librecast::cert::{CertError, Chain, Member, Token, is_node_name};
use librecast::id::{NetworkId, PeerId, SecretKey};
use librecast::reach::Room;
use librecast::signalling::urls;
use librecast::time::UnixTime;
use serde::{Deserialize, Serialize};

/// Parameters of a page's start.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// An invitation for a new member.
    pub token: Option<String>,
    /// A membership from [`Visit::to_keep`].
    pub visit: Option<Kept>,
    /// The name of the new member; a leaf has none.
    pub name: String,
    /// 32 secret random bytes in base58: the key of a new node.
    pub key: String,
    /// 32 more, as the seed of all other randomness.
    pub seed: String,
    /// Higher than that of every earlier run.
    pub incarnation: u32,
    /// Whether to report this node's groups to pages that show the network.
    pub report: bool,
    /// Whether the browser passes the packets of a track to the page.
    #[serde(default)]
    pub tracks: bool,
    /// A /64 of groups that this tab serves as its network's first node: others link through it,
    /// and the page gets packets of MLD.
    pub serves: Option<Ipv6Addr>,
}

/// A stored membership, for a reload.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    network: String,
    chain: String,
    key: String,
    servers: Vec<String>,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").finish_non_exhaustive()
    }
}

/// A membership.
#[derive(Debug)]
pub struct Visit {
    pub network: NetworkId,
    pub key: Arc<SecretKey>,
    pub chain: Chain,
    pub member: Member,
    /// URLs of signalling servers, in order.
    pub servers: Vec<String>,
    /// The token of a leaf, which makes another leaf.
    pub leaf_token: Option<String>,
}

/// The name in certificates of leaves, which nobody sees.
const LEAF_NAME: &str = "tab";

impl Visit {
    /// # Errors
    /// An explanation for users.
    pub fn new(start: &Start, time: UnixTime) -> Result<Self, String> {
        match (&start.visit, &start.token) {
            (Some(kept), _) => Self::again(kept, time),
            (None, Some(token)) => Self::by_token(token, &start.name, &start.key, time),
            (None, None) => Err("A token is needed: `lcroute invite` prints one.".into()),
        }
    }

    fn by_token(text: &str, name: &str, key: &str, time: UnixTime) -> Result<Self, String> {
        let token = usable(text)?;
        let is_leaf = token.invitation().grant().leaf;
        let name = if is_leaf { LEAF_NAME } else { name };
        if !is_node_name(name) {
            return Err("A node's name has up to 63 letters, digits and hyphens (none at either end), with dots between.".into());
        }
        let key = Arc::new(SecretKey::from_seed(&bytes(key)?));
        let chain = token.join(key.peer_id(), name, time).map_err(|e| match e {
            CertError::Expired(_) => EXPIRED.into(),
            CertError::NotYetValid(_) => format!("{e}. Is the clock of this computer right?"),
            e => format!("The token is not accepted: {e}"),
        })?;
        let visit = Self::of(token.network(), key, chain, token.signal.clone(), time)?;
        Ok(Self {
            leaf_token: is_leaf.then(|| text.trim().to_owned()),
            ..visit
        })
    }

    fn again(kept: &Kept, time: UnixTime) -> Result<Self, String> {
        let network: PeerId = kept.network.parse().map_err(|_| DAMAGED)?;
        let chain = bs58::decode(&kept.chain).into_vec().map_err(|_| DAMAGED)?;
        let chain = Chain::decode(&chain).map_err(|_| DAMAGED)?;
        let key = Arc::new(SecretKey::from_seed(&bytes(&kept.key)?));
        Self::of(network, key, chain, kept.servers.clone(), time)
    }

    fn of(
        network: NetworkId,
        key: Arc<SecretKey>,
        chain: Chain,
        mut servers: Vec<String>,
        time: UnixTime,
    ) -> Result<Self, String> {
        let member = chain.verify(&network, time).map_err(|e| match e {
            CertError::Expired(_) => {
                "The membership of this page has expired: join again with a new token.".into()
            }
            e => format!("The membership of this page is not valid: {e}"),
        })?;
        if member.peer != key.peer_id() {
            return Err(DAMAGED.into());
        }
        servers.sort_unstable();
        servers.dedup();
        Ok(Self {
            network,
            key,
            chain,
            member,
            servers,
            leaf_token: None,
        })
    }

    /// The membership to store for a reload.
    pub fn to_keep(&self) -> Kept {
        Kept {
            network: self.network.to_string(),
            chain: bs58::encode(self.chain.encode()).into_string(),
            key: bs58::encode(self.key.seed().as_slice()).into_string(),
            servers: self.servers.clone(),
        }
    }
}

/// Parses a token that a page can use.
fn usable(token: &str) -> Result<Token, String> {
    let mut token: Token = (token.parse()).map_err(|e: CertError| {
        let why = e.to_string();
        let end = if why.ends_with('?') { "" } else { "." };
        let mut rest = why.chars();
        let first = rest.next().map(|c| c.to_ascii_uppercase());
        let (first, rest) = (first.unwrap_or_default(), rest.as_str());
        format!("{first}{rest}{end} `lcroute invite` prints a token on a host.")
    })?;
    token.signal.retain(|url| Room::of_uri(url).is_none());
    token.signal = token.signal.iter().flat_map(|s| urls(s)).collect();
    if token.signal.is_empty() {
        return Err(
            "This token names no signalling server, and a page finds a network by nothing else: \
                `lcroute invite --signal ws://HOST:7117` makes one that does."
                .into(),
        );
    }
    Ok(token)
}

const EXPIRED: &str = "This token has expired. Ask for a new one: `lcroute invite` prints it.";

/// The content of an invitation, for a user's decision.
#[derive(Debug, Serialize)]
pub struct Offer {
    /// The network's name, from the label `network`.
    network: Option<String>,
    /// The inviter's name, from the label `inviter`.
    inviter: Option<String>,
    /// Hosts of its signalling servers.
    hosts: Vec<String>,
    /// The number of nodes that it admits; none: any number.
    uses: Option<u32>,
    /// When it expires, in Unix seconds.
    not_after: u64,
    /// Whether it is for leaves, which only listen.
    leaf: bool,
    /// Whether these may ask.
    uplink: bool,
}

impl Offer {
    /// # Errors
    /// An explanation for users, if it is not usable.
    pub fn read(token: &str, time: UnixTime) -> Result<Self, String> {
        let token = usable(token)?;
        let grant = token.invitation().grant();
        if grant.not_after < time.as_secs() {
            return Err(EXPIRED.into());
        }
        let label = |name: &str| grant.labels.get(name).cloned();
        let host = |url: &String| {
            let (_, rest) = url.split_once("://")?;
            let host = rest.split(['/', '?']).next()?;
            Some(host.to_owned())
        };
        Ok(Self {
            network: label("network"),
            inviter: label("inviter"),
            hosts: token.signal.iter().filter_map(host).collect(),
            uses: grant.uses,
            not_after: grant.not_after,
            leaf: grant.leaf,
            uplink: grant.uplink,
        })
    }
}

const DAMAGED: &str = "What this page kept of its membership is damaged: join again with a token.";

/// 32 bytes in base58.
pub fn bytes(text: &str) -> Result<[u8; 32], String> {
    let mut bytes = [0; 32];
    let written = bs58::decode(text).onto(&mut bytes);
    match written {
        Ok(32) => Ok(bytes),
        _ => Err(DAMAGED.into()),
    }
}

#[cfg(test)]
mod tests {
    use librecast::cert::{Certificate, Chain, Grant};
    use librecast::time::{Duration, Instant};

    use super::*;
    use crate::command::Command;

    const UNIX: u64 = 2_000_000_000;

    fn invitation(until: u64, labels: &[(&str, &str)]) -> String {
        invite(until, labels, false)
    }

    /// An invitation until `until`, from an issuer that is valid for longer.
    fn invite(until: u64, labels: &[(&str, &str)], leaf: bool) -> String {
        let [network, issuer] = [1, 2].map(|n| SecretKey::from_seed(&[n; 32]));
        let grant = |name, until| Grant::new(name, (UNIX - 1_000, until));
        let (of_issuer, of_node) = (grant("", UNIX + 90_000), grant("a", UNIX + 90_000));
        let node = (issuer.peer_id(), of_node);
        let chain = Chain::sign(&network, (&issuer, of_issuer), node).unwrap();
        let certificate: &Certificate = chain.issuer();
        let mut invited = grant("", until);
        invited.uses = (!leaf).then_some(3);
        invited.leaf = leaf;
        let label = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        invited.labels = labels.iter().map(label).collect();
        let servers = vec!["wss://meet.example:7117".into()];
        let token = Token::invite(certificate, &issuer, invited, servers).unwrap();
        token.encode().to_string()
    }

    #[test]
    fn an_invitation_says_whose_it_is_before_it_is_used() {
        let labels = [("network", "home"), ("inviter", "ann")];
        let offer =
            Offer::read(&invitation(UNIX + 60, &labels), UnixTime::from_secs(UNIX)).unwrap();
        assert_eq!(offer.network.as_deref(), Some("home"));
        assert_eq!(offer.inviter.as_deref(), Some("ann"));
        assert_eq!(offer.hosts, ["meet.example:7117"]);
        assert_eq!((offer.uses, offer.not_after), (Some(3), UNIX + 60));
        let offer = Offer::read(&invitation(UNIX + 60, &[]), UnixTime::from_secs(UNIX)).unwrap();
        assert_eq!((offer.network, offer.inviter), (None, None));
        let late = Offer::read(
            &invitation(UNIX + 60, &labels),
            UnixTime::from_secs(UNIX + 61),
        );
        assert!(late.unwrap_err().contains("has expired"));
        assert!(Offer::read("lct1abc", UnixTime::from_secs(UNIX)).is_err());
        assert!(!offer_of(&invitation(UNIX + 60, &[])).leaf);
        assert!(offer_of(&invite(UNIX + 60, &[], true)).leaf);
    }

    fn offer_of(token: &str) -> Offer {
        Offer::read(token, UnixTime::from_secs(UNIX)).unwrap()
    }

    fn by_token(token: &str) -> Visit {
        let key = bs58::encode([7; 32]).into_string();
        Visit::by_token(token, "", &key, UnixTime::from_secs(UNIX)).unwrap()
    }

    #[test]
    fn a_token_for_leaves_needs_no_name_and_is_kept_for_others() {
        let token = invite(UNIX + 60, &[], true);
        let visit = by_token(&format!(" {token}\n"));
        assert!(visit.member.leaf);
        assert_eq!(visit.leaf_token, Some(token));
        // a member's is a secret, and its name is seen
        let key = bs58::encode([7; 32]).into_string();
        let member = |name| {
            Visit::by_token(
                &invitation(UNIX + 60, &[]),
                name,
                &key,
                UnixTime::from_secs(UNIX),
            )
        };
        assert!(member("").is_err());
        assert_eq!(member("visitor").unwrap().leaf_token, None);
    }

    #[test]
    fn only_a_tab_that_serves_gets_packets_of_mld() {
        let gets_mld = |serves: Option<&str>| {
            let secret = |n: u8| bs58::encode([n; 32]).into_string();
            let start = serde_json::json!({
                "token": invitation(UNIX + 60, &[]),
                "name": "page",
                "key": secret(7),
                "seed": secret(8),
                "incarnation": 1,
                "report": false,
                "serves": serves,
            });
            let start: Start = serde_json::from_value(start).unwrap();
            let (now, time) = (Instant::now(), UnixTime::from_secs(UNIX));
            let mut tab = crate::enter::open(&start, now, time).unwrap();
            tab.handle_timeout(now + Duration::from_secs(2), time);
            let mut commands = std::iter::from_fn(|| tab.poll_command());
            commands.any(|command| matches!(command, Command::Mld(_)))
        };
        assert!(gets_mld(Some("ff1e:1:2:3::")));
        assert!(!gets_mld(None));
    }
}
