//! A network for tests.

use super::{Certificate, Chain, Grant, Kind, Token};
use crate::id::SecretKey;
use crate::time::UnixTime;

pub(super) const NOW: u64 = 1_800_000_000;
pub(super) const TODAY: UnixTime = UnixTime::from_secs(NOW);
pub(super) const DAY: u64 = 86_400;

pub(super) struct Network {
    pub key: SecretKey,
    pub issuer_key: SecretKey,
    pub issuer: Certificate,
}

pub(super) fn at(seconds: u64) -> UnixTime {
    UnixTime::from_secs(seconds)
}

pub(super) fn grant(name: &str) -> Grant {
    Grant::new(name, (NOW, NOW + 7 * DAY))
}

pub(super) fn network() -> Network {
    let (key, issuer_key) = (SecretKey::generate(), SecretKey::generate());
    let wide = Grant {
        core: true,
        ..Grant::new("", (NOW, NOW + 3_650 * DAY))
    };
    let issuer = Certificate::sign(
        Kind::Issuer,
        key.peer_id(),
        issuer_key.peer_id(),
        wide,
        &key,
    )
    .unwrap();
    Network {
        key,
        issuer_key,
        issuer,
    }
}

pub(super) fn token(n: &Network, grant: Grant) -> Token {
    Token::invite(
        &n.issuer,
        &n.issuer_key,
        grant,
        vec!["ws://host:7117".into()],
    )
    .unwrap()
}

/// Makes a chain with a certificate that the holder of `token` signed freely.
pub(super) fn signed_by_the_holder(n: &Network, token: &Token, node: &Certificate) -> Chain {
    let all = vec![n.issuer.clone(), token.invitation.clone(), node.clone()];
    Chain::new(all).unwrap()
}
