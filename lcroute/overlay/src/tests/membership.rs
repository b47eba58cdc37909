//! Certificates for tests.

use std::collections::BTreeMap;

use librecast::cert::{Certificate, Chain, Grant, GroupPrefix, Kind};
use librecast::id::{PeerId, SecretKey};

/// A chain for `node`: the network key signs an issuer, that one the node.
pub(crate) fn chain(network: &SecretKey, node: PeerId, name: &str, from: u64, to: u64) -> Chain {
    let issuer = SecretKey::from_seed(&[77; 32]);
    forged(network, &issuer, network.peer_id(), node, name, (from, to))
}

/// The same with everything to choose.
pub(crate) fn forged(
    signer: &SecretKey,
    issuer: &SecretKey,
    network: PeerId,
    node: PeerId,
    name: &str,
    (from, to): (u64, u64),
) -> Chain {
    let grant = |name: &str, not_before, not_after| Grant {
        not_before,
        not_after,
        core: false,
        name: name.to_owned(),
        labels: BTreeMap::new(),
        prefixes: vec![GroupPrefix::ALL],
    };
    let issued = Certificate::sign(
        Kind::Issuer,
        network,
        issuer.peer_id(),
        grant("", 0, u64::MAX),
        signer,
    );
    let member = Certificate::sign(Kind::Node, network, node, grant(name, from, to), issuer);
    Chain::new(vec![issued.unwrap(), member.unwrap()]).unwrap()
}
