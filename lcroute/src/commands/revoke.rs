//! `revoke`: expels a node, or all nodes of a token, from the whole network.

use std::net::Ipv6Addr;

use lcroute_control::Request;
use lcroute_control::client::Client;
use lcroute_control::config::Config;
use lcroute_control::settings::Common;
use librecast::cert::{CLOCK_SKEW, Certificate, Token};
use librecast::epoch::{Epoch, EpochSecret};
use librecast::id::{PeerId, SecretKey};
use librecast::revocation::{Revocation, RevocationError};
use librecast::time::UnixTime;
use librecast_program::cli::{Exit, ExitError};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::membership::{FOUNDER_TTL, known_members, read_token};
use super::{hint, print_line};
use crate::state::{Identity, StateDir};
use lcroute_node::KnownMember;

/// The key to expel.
#[derive(Debug)]
pub enum Whom {
    /// A node: name, PeerId or address.
    Node(String),
    /// All present and future nodes of this token.
    Token(String),
}

/// Signs the revocation; the daemon floods it at once, or after its next start.
pub fn run(common: &Common, config: &Config, whom: &Whom) -> anyhow::Result<Exit> {
    let identity = StateDir::of(common, config).identity(UnixTime::now())?;
    let signer = Signer::of(&StateDir::of(common, config), &identity)?;
    let (key, is_leaf) = key_of(whom, &identity, common, config)?;
    // leaves do not know the secret of an epoch
    let keeps_epoch = is_leaf && identity.epoch.is_some();
    let (spread, epoch) = signer.expel(common, config, &identity, key, keeps_epoch)?;
    if common.json {
        print_line(json!({ "revoked": key, "spread": spread, "epoch": epoch }))?;
    } else {
        print_line(format_args!("revoked {key}"))?;
        if !spread {
            hint("no daemon is running here: the network hears of it when `lcroute run` runs next");
        }
    }
    hint(match epoch {
        _ if keeps_epoch => {
            "leaves know no secret of the network: other tokens stay as good as they were"
        }
        true => {
            "members find each other by a new secret from now on: tokens made before need a signalling server; `lcroute invite` makes new ones"
        }
        false => {
            "no new secret was made by which members find each other, so who was expelled can still read their presence records: revoke from a node that is an issuer"
        }
    });
    Ok(Exit::Ok)
}

/// Makes the first epoch of a network, before a token for leaves discloses its public key: with
/// that key alone presence records become unreadable. An epoch needs a revocation, and this one
/// revokes a random key.
pub fn begin_epochs(common: &Common, config: &Config) -> anyhow::Result<()> {
    let identity = StateDir::of(common, config).identity(UnixTime::now())?;
    // a node that is not an issuer makes no tokens
    if identity.epoch.is_some() || !identity.member.is_issuer() {
        return Ok(());
    }
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed)?;
    let nobody = SecretKey::from_seed(&seed).peer_id();
    let signer = Signer::of(&StateDir::of(common, config), &identity)?;
    let (_, is_made) = signer.expel(common, config, &identity, nobody, false)?;
    anyhow::ensure!(
        is_made,
        "the daemon makes no epoch of the network: see its log"
    );
    hint(
        "members find each other by a new secret from now on, which leaves do not have: tokens for members that were made before need a signalling server",
    );
    Ok(())
}

fn store(state: &StateDir, identity: &Identity, revocation: Revocation) -> anyhow::Result<()> {
    let now = UnixTime::now();
    let mut all = state.revocations(&identity.membership.network, now)?;
    all.add(revocation, now);
    state.store_revocations(&all)
}

fn key_of(
    whom: &Whom,
    identity: &Identity,
    common: &Common,
    config: &Config,
) -> anyhow::Result<(PeerId, bool)> {
    let usage = |message: String| ExitError::new(Exit::Usage, message);
    let mut is_leaf = false;
    let key = match whom {
        Whom::Token(text) => {
            let token: Token = read_token(text)?
                .parse()
                .map_err(|e| usage(format!("{e}")))?;
            if token.network() != identity.membership.network {
                return Err(usage("a token of another network".into()).into());
            }
            is_leaf = token.invitation().grant().leaf;
            token.invitation().subject()
        }
        Whom::Node(node) => match node.parse() {
            // absent and unknown nodes can be expelled as well
            Ok(key) => key,
            Err(_) => find(&known_members(common, config)?, node)?,
        },
    };
    if key == identity.key.peer_id() {
        return Err(usage("this is the node itself: let another issuer expel it".into()).into());
    }
    Ok((key, is_leaf))
}

/// Returns the present or absent member with this name or address.
fn find(members: &[KnownMember], node: &str) -> anyhow::Result<PeerId> {
    let address = node.parse::<Ipv6Addr>().ok();
    let meant = |r: &&KnownMember| r.name == node || Some(r.address) == address;
    let found: Vec<_> = members.iter().filter(meant).collect();
    match found.as_slice() {
        [row] => Ok(row.peer_id),
        [] => {
            let message = format!(
                "{node}: no member of this name or address is known (`lcroute members` lists them); a PeerId will do"
            );
            Err(ExitError::new(Exit::Usage, message).into())
        }
        several => {
            let ids: Vec<_> = several.iter().map(|r| r.peer_id.to_string()).collect();
            let message = format!(
                "{node}: several members have this name; give a PeerId: {}",
                ids.join(", ")
            );
            Err(ExitError::new(Exit::Usage, message).into())
        }
    }
}

/// Makes the next epoch, for this revocation. Returns false if no number is left.
fn next_epoch(
    state: &StateDir,
    identity: &Identity,
    revocation: &Revocation,
    (issuer, key): (Option<&Certificate>, &SecretKey),
) -> anyhow::Result<bool> {
    let mut epochs = state.epochs(&identity.membership.network, UnixTime::now())?;
    epochs.expel(revocation);
    let Some((number, before)) = epochs.next() else {
        return Ok(false);
    };
    let mut secret = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *secret)?;
    let made = (number, before, EpochSecret::new(*secret));
    epochs.add(Epoch::sign(made, revocation.clone(), issuer, key)?);
    // first: it contains the revocation
    state.store_epochs(&epochs.text())?;
    Ok(true)
}

/// The key that signs revocations.
enum Signer {
    /// The network's key: it can expel issuers as well.
    Network(Box<librecast::id::SecretKey>),
    /// This node's key, if it is an issuer.
    Issuer,
}

impl Signer {
    fn of(state: &StateDir, identity: &Identity) -> anyhow::Result<Self> {
        let network = state.network_key()?;
        match network.filter(|key| key.peer_id() == identity.membership.network) {
            Some(key) => Ok(Self::Network(Box::new(key))),
            None if identity.member.is_issuer() => Ok(Self::Issuer),
            None => {
                let message = "this node may not expel others: only a node that holds an issuer certificate can (the one that ran `lcroute init`)";
                Err(ExitError::new(Exit::NotPermitted, message).into())
            }
        }
    }

    /// Expels this key; returns whether the network knows it now, and whether a new epoch was made.
    fn expel(
        &self,
        common: &Common,
        config: &Config,
        identity: &Identity,
        key: PeerId,
        keeps_epoch: bool,
    ) -> anyhow::Result<(bool, bool)> {
        let revocation = self.revoke(identity, key)?;
        match Client::connect_if_running(&common.control_to_ask(config))? {
            Some(mut client) => {
                let revocation = lcroute_node::revocations::text(&revocation);
                let answer: Value = client.ask(&Request::Revoke {
                    revocation,
                    keeps_epoch,
                })?;
                Ok((true, answer["epoch"] == true))
            }
            None => {
                let state = StateDir::of(common, config);
                let epoch = !keeps_epoch && self.make_epoch(&state, identity, &revocation)?;
                store(&state, identity, revocation)?;
                Ok((false, epoch))
            }
        }
    }

    /// Makes an epoch for a revocation, by the issuer if this node is one.
    fn make_epoch(
        &self,
        state: &StateDir,
        identity: &Identity,
        revocation: &Revocation,
    ) -> anyhow::Result<bool> {
        let own = (Some(identity.chain.issuer()), &*identity.key);
        let by = match self {
            Self::Network(network) if !identity.member.is_issuer() => (None, &**network),
            _ => own,
        };
        next_epoch(state, identity, revocation, by)
    }

    fn revoke(&self, identity: &Identity, key: PeerId) -> anyhow::Result<Revocation> {
        let now = UnixTime::now();
        // no chain outlives its issuer, whichever node renews it
        let issuer = identity.chain.issuer();
        let made = match self {
            Self::Network(network) => {
                Revocation::by_network(network, key, now, now.as_secs() + FOUNDER_TTL + CLOCK_SKEW)
            }
            Self::Issuer => {
                let until = issuer.grant().not_after.saturating_add(CLOCK_SKEW);
                Revocation::by_issuer(issuer, &identity.key, key, now, until)
            }
        };
        made.map_err(|e| match e {
            RevocationError::Key => ExitError::new(Exit::NotPermitted, e.to_string()).into(),
            e => anyhow::Error::new(e),
        })
    }
}
