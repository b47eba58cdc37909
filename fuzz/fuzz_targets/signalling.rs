//! Signalling between nodes and servers, both ways: messages, relay requests, proofs of membership.
#![no_main]

use std::sync::LazyLock;

use lcroute_fuzz::{TODAY, chain, key, network};
use lcroute_overlay::Random;
use lcroute_overlay::proof::{ProofKey, RelayReply, RelayRequest, prove};
use lcroute_overlay::server::{Role, Room, ToNode, ToServer};
use libfuzzer_sys::fuzz_target;
use librecast::time::UnixTime;
use librecast::cert::Chain;

static SERVER: LazyLock<ProofKey> = LazyLock::new(|| ProofKey::new([7; 32]));

/// Tests changed registrations of routers and leaves: none passes that its key has not signed.
fn registrations(data: &[u8]) {
    let (key, room, challenge) = (key(10), Room::of(&network()), [3; 32]);
    for role in [Role::Router, Role::Leaf] {
        let whole = ToServer::register(&key, room, role, &challenge);
        let mut written = whole.encode();
        let length = written.len();
        for change in data.chunks_exact(2).take(8) {
            written[usize::from(change[0]) % length] = change[1];
        }
        // a router's as a leaf's, and the reverse
        let mut other = written.clone();
        other[66] ^= 1;
        for bytes in [written, other] {
            if let Ok(message) = ToServer::decode(&bytes)
                && let Some(registered) = message.registered(&challenge)
            {
                assert_eq!(registered.peer, key.peer_id());
                assert_eq!((registered.room, registered.role), (room, role));
            }
        }
    }
}

/// Tests changed entries: none passes that its key has not signed.
fn entries(data: &[u8]) {
    let (key, room, challenge) = (key(10), Room::of(&network()), [3; 32]);
    let mut written = ToServer::enter(&key, room, &challenge).encode();
    let length = written.len();
    for change in data.chunks_exact(2).take(8) {
        written[usize::from(change[0]) % length] = change[1];
    }
    if let Ok(message) = ToServer::decode(&written) {
        assert!(message.registered(&challenge).is_none());
        if let Some(entered) = message.entered(&challenge) {
            assert_eq!((entered.peer, entered.room), (key.peer_id(), room));
        }
    }
}

fuzz_target!(init: lcroute_fuzz::seeds::write("signalling"), |data: &[u8]| {
    if let Ok(message) = ToNode::decode(data) {
        let again = ToNode::decode(&message.encode());
        // a reason is cut and cleaned
        assert!(again.is_ok_and(|again| again == message), "{message:?}");
    }
    if let Ok(message) = ToServer::decode(data) {
        assert_eq!(ToServer::decode(&message.encode()), Ok(message.clone()));
        assert!(message.registered(&[3; 32]).is_none(), "a forged registration");
        assert!(message.entered(&[3; 32]).is_none(), "a forged entry");
    }
    registrations(data);
    entries(data);
    let text = String::from_utf8_lossy(data);
    for word in [text.clone(), format!("proof {text}").into(), format!("prove {text}").into()] {
        if let Some(request) = RelayRequest::decode(&word) {
            assert_eq!(RelayRequest::decode(&request.encode()), Some(request));
        }
        if let Some(reply) = RelayReply::decode(&word) {
            assert_eq!(RelayReply::decode(&reply.encode()), Some(reply));
        }
    }
    let (node, room) = (key(10).peer_id(), Room::of(&network()));
    let _ = SERVER.check(data, (&node, &room), UnixTime::from_secs(TODAY));
    // a chain of the input, sealed as nodes do
    if let Ok(made) = Chain::decode(data)
        && let Some(RelayRequest::Proof(sealed)) = prove(&made, &SERVER.public(), &mut Random::new([5; 32]))
    {
        let proven = SERVER.check(&sealed, (&node, &room), UnixTime::from_secs(TODAY));
        assert!(proven.is_err() || made == chain(10), "{made:?}");
    }
});
