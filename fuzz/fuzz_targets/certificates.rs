//! Certificates, chains, revocations, epochs, tokens.
#![no_main]

use lcroute_fuzz::{TODAY, network};
use libfuzzer_sys::fuzz_target;
use librecast::time::UnixTime;
use librecast::cert::{Certificate, Chain, GroupPrefix, Kind, MAX_USES, Token, is_node_name};
use librecast::epoch::Epoch;
use librecast::id::PeerId;
use librecast::revocation::Revocation;

fuzz_target!(init: lcroute_fuzz::seeds::write("certificates"), |data: &[u8]| {
    if let Ok(chain) = Chain::decode(data) {
        assert_eq!(chain.encode(), data, "one way to write a chain");
        let _ = chain.verify(&network(), UnixTime::from_secs(TODAY));
    }
    if let Ok(certificate) = Certificate::decode(data) {
        assert_eq!(certificate.as_bytes(), data);
        let (kind, grant) = (certificate.kind(), certificate.grant());
        assert_eq!(kind == Kind::Node, is_node_name(&grant.name));
        assert!(grant.uses.is_none_or(|n| kind == Kind::Invitation && (1..=MAX_USES).contains(&n)));
    }
    if let Ok(revocation) = Revocation::decode(data) {
        let _ = revocation.verify(&network());
    }
    if let Ok(epoch) = Epoch::decode(data) {
        assert_eq!(epoch.as_bytes(), data, "one way to write an epoch");
        let _ = epoch.verify(&network());
    }
    if let Ok(text) = std::str::from_utf8(data) {
        if let Ok(token) = text.parse::<Token>() {
            let _ = token.join(network(), "name", UnixTime::from_secs(TODAY));
        }
        let _ = (text.parse::<PeerId>(), text.parse::<GroupPrefix>());
    }
});
