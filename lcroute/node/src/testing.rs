//! Keys, certificates and a clock for tests.

use librecast::cert::{Chain, Grant};
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
    let key = key(100);
    let grant = |name| Grant {
        core: true,
        ..Grant::new(name, (now, now + 1_000))
    };
    let founder = (key.peer_id(), grant("founder"));
    let old = Chain::sign(network, (&key, grant("")), founder).unwrap();
    let new = old.renew(old.issuer(), &key, now + 500, 400).unwrap();
    (old, new)
}
