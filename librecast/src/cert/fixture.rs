//! A network for tests.

use std::collections::BTreeMap;

use super::{Certificate, Chain, Grant, GroupPrefix, Kind, Token};
use crate::id::SecretKey;

pub(super) const NOW: u64 = 1_800_000_000;
pub(super) const DAY: u64 = 86_400;

pub(super) struct Network {
    pub key: SecretKey,
    pub issuer_key: SecretKey,
    pub issuer: Certificate,
}

pub(super) fn grant(name: &str) -> Grant {
    Grant {
        not_before: NOW,
        not_after: NOW + 7 * DAY,
        renew_for: 0,
        core: false,
        name: name.to_owned(),
        labels: BTreeMap::new(),
        prefixes: vec![GroupPrefix::ALL],
    }
}

pub(super) fn network() -> Network {
    let (key, issuer_key) = (SecretKey::generate(), SecretKey::generate());
    let wide = Grant {
        not_after: NOW + 3_650 * DAY,
        renew_for: 0,
        core: true,
        ..grant("")
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

/// The chain of whoever holds `token` and signs what he likes.
pub(super) fn signed_by_the_holder(n: &Network, token: &Token, node: &Certificate) -> Chain {
    let all = vec![n.issuer.clone(), token.invitation.clone(), node.clone()];
    Chain::new(all).unwrap()
}
