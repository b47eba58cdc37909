//! Keys, certificates and a clock for tests.

use std::collections::BTreeMap;

use librecast::cert::{Certificate, Chain, Grant, GroupPrefix, Kind};
use librecast::id::SecretKey;
use librecast::time::Instant;

/// Any moment; the only clock that tests look at.
#[expect(clippy::disallowed_methods, reason = "virtual time needs a beginning")]
pub(crate) fn start() -> Instant {
    Instant::now()
}

/// The key of this number.
pub(crate) fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

/// A founder's chain in `network`, and the same renewed. It lasts 1,000 s.
pub(crate) fn chains(network: &SecretKey, now: u64) -> (Chain, Chain) {
    let (id, key) = (network.peer_id(), key(100));
    let peer = key.peer_id();
    let grant = Grant {
        not_before: now,
        not_after: now + 1_000,
        renew_for: 0,
        core: true,
        name: String::new(),
        labels: BTreeMap::new(),
        prefixes: vec![GroupPrefix::ALL],
    };
    let issuer = Certificate::sign(Kind::Issuer, id, peer, grant.clone(), network).unwrap();
    let node = Certificate::sign(Kind::Node, id, peer, grant, &key).unwrap();
    let old = Chain::new(vec![issuer.clone(), node]).unwrap();
    let new = old.renew(&issuer, &key, now + 500, 400).unwrap();
    (old, new)
}
