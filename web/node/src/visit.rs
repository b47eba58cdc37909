//! Who the page is, and in which network: by a token, or as before a reload.

use std::sync::Arc;

use librecast::cert::{CertError, Chain, Member, Token, is_node_name};
use librecast::id::{NetworkId, PeerId, SecretKey};
use librecast::reach::Room;
use serde::{Deserialize, Serialize};

/// What a page begins with.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// An invitation, for who is no member yet.
    pub token: Option<String>,
    /// A membership that [`Visit::to_keep`] gave.
    pub visit: Option<Kept>,
    /// What the new member is called.
    pub name: String,
    /// 32 bytes that nobody can guess, in base58: the key of a new member.
    pub key: String,
    /// And 32 more, for all else.
    pub seed: String,
    /// Higher than that of every run before.
    pub incarnation: u32,
    /// Tell those who look at the network what this node carries.
    pub report: bool,
}

/// A membership, as the page keeps it for a reload.
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
    /// Where to meet.
    pub servers: Vec<String>,
}

impl Visit {
    /// # Errors
    /// Why there is no membership, as people read it.
    pub fn new(start: &Start, unix: u64) -> Result<Self, String> {
        match (&start.visit, &start.token) {
            (Some(kept), _) => Self::again(kept, unix),
            (None, Some(token)) => Self::by_token(token, &start.name, &start.key, unix),
            (None, None) => Err("A token is needed: `lcroute invite` prints one.".into()),
        }
    }

    fn by_token(token: &str, name: &str, key: &str, unix: u64) -> Result<Self, String> {
        let mut token: Token = (token.parse()).map_err(|e: CertError| {
            let why = e.to_string();
            let end = if why.ends_with('?') { "" } else { "." };
            let mut rest = why.chars();
            let first = rest.next().map(|c| c.to_ascii_uppercase());
            let (first, rest) = (first.unwrap_or_default(), rest.as_str());
            format!("{first}{rest}{end} `lcroute invite` prints a token on a host.")
        })?;
        if token.invitation().grant().leaf {
            return Err("This token is for leaves, which only listen: `lcroute leaf GROUP` on a host takes it, and pages do not yet.".into());
        }
        token.signal.retain(|url| Room::of_uri(url).is_none());
        if token.signal.is_empty() {
            return Err("This token names no signalling server, and a page finds a network by nothing else: \
                `lcroute invite --signal ws://HOST:7117` makes one that does."
                .into());
        }
        if !is_node_name(name) {
            return Err("A node's name has up to 63 letters, digits and hyphens (none at either end), with dots between.".into());
        }
        let key = Arc::new(SecretKey::from_seed(&bytes(key)?));
        let chain = token.join(key.peer_id(), name, unix).map_err(|e| match e {
            CertError::Expired(_) => {
                "This token has expired. Ask for a new one: `lcroute invite` prints it.".into()
            }
            CertError::NotYetValid(_) => format!("{e}. Is the clock of this computer right?"),
            e => format!("The token is not accepted: {e}"),
        })?;
        Self::of(token.network(), key, chain, token.signal.clone(), unix)
    }

    fn again(kept: &Kept, unix: u64) -> Result<Self, String> {
        let network: PeerId = kept.network.parse().map_err(|_| DAMAGED)?;
        let chain = bs58::decode(&kept.chain).into_vec().map_err(|_| DAMAGED)?;
        let chain = Chain::decode(&chain).map_err(|_| DAMAGED)?;
        let key = Arc::new(SecretKey::from_seed(&bytes(&kept.key)?));
        Self::of(network, key, chain, kept.servers.clone(), unix)
    }

    fn of(
        network: NetworkId,
        key: Arc<SecretKey>,
        chain: Chain,
        servers: Vec<String>,
        unix: u64,
    ) -> Result<Self, String> {
        let member = chain.verify(&network, unix).map_err(|e| match e {
            CertError::Expired(_) => {
                "The membership of this page has expired: join again with a new token.".into()
            }
            e => format!("The membership of this page is not valid: {e}"),
        })?;
        if member.peer != key.peer_id() {
            return Err(DAMAGED.into());
        }
        Ok(Self {
            network,
            key,
            chain,
            member,
            servers,
        })
    }

    /// What a page keeps to go on as the same member after a reload.
    pub fn to_keep(&self) -> Kept {
        Kept {
            network: self.network.to_string(),
            chain: bs58::encode(self.chain.encode()).into_string(),
            key: bs58::encode(self.key.seed().as_slice()).into_string(),
            servers: self.servers.clone(),
        }
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
