//! Requests to renew a certificate, with any content signed by a member; and answers.
#![no_main]

use std::sync::Arc;
use std::time::{Duration, Instant};

use lcroute_fuzz::{TODAY, chain, key, network, pieces};
use lcroute_node::renewal::{Registry, Renewal, Renewer};
use libfuzzer_sys::fuzz_target;
use librecast::time::UnixTime;
use librecast::cert::{Chain, Member};
use librecast::id::OriginId;
use librecast::wire::{Reader, Writer};

const MEMBER: u8 = 10;
const ISSUER: OriginId = OriginId(5);

struct Known;

impl Registry for Known {
    fn is_revoked(&self, member: &Member) -> bool {
        member.name.ends_with('x')
    }

    fn free_name(&self, member: &Member) -> String {
        member.name.clone()
    }

    fn is_admitted(&self, member: &Member) -> bool {
        member.bound.is_none_or(|bound| bound.uses > 1)
    }
}

fuzz_target!(init: lcroute_fuzz::seeds::write("renewal"), |data: &[u8]| {
    let mut now = Instant::now();
    let issuer = chain(MEMBER).issuer().clone();
    let mut renewer = Renewer::new(Arc::new(key(2)), issuer, now);
    let mut node = Renewal::new(Arc::new(key(MEMBER)), network(), chain(MEMBER), 1, now);
    for piece in pieces(data).take(16) {
        now += Duration::from_secs(2);
        let Some((how, piece)) = piece.split_first() else {
            continue;
        };
        let mut w = Writer::new();
        w.u8(1).u64(7);
        if w.bytes16(piece).is_err() {
            continue;
        }
        let signature = key(MEMBER).sign("lcroute 2026 renewal", w.as_slice());
        w.put(&signature);
        let request = if how & 1 == 0 { w.as_slice() } else { piece };
        let answer = renewer.answer(&key(MEMBER).peer_id(), request, &Known, UnixTime::from_secs(TODAY), now);
        let mut r = Reader::new(answer.as_deref().unwrap_or_default());
        if let (Ok(1), Ok(7), Ok(0), Ok(renewed)) = (r.u8(), r.u64(), r.u8(), r.bytes16()) {
            let renewed = Chain::decode(renewed).unwrap();
            let (new, old) = (renewed.verify(&network(), UnixTime::from_secs(TODAY)).unwrap(), Chain::decode(piece).unwrap());
            let old = old.verify(&network(), UnixTime::from_secs(TODAY)).unwrap();
            assert_eq!(new.peer, key(MEMBER).peer_id());
            assert_eq!((new.labels, new.prefixes, new.gateway), (old.labels, old.prefixes, old.gateway));
            assert!(new.core <= old.core);
        }
        let _ = node.handle_timeout(&[ISSUER], UnixTime::from_secs(TODAY + 86_000), now);
        let _ = node.handle_answer(ISSUER, piece, UnixTime::from_secs(TODAY), now);
    }
});
