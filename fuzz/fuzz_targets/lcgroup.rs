//! Input of a private group's member: entries, requests, invitations, its own state; the first byte
//! selects. Requests and refreshes are sealed here, so that the fuzzer reaches their content.
#![no_main]

use std::sync::OnceLock;

use crypto_box::PublicKey;
use crypto_box::aead::OsRng;
use lcgroup_core::{Entry, Founding, Group, Invitation, Output, Request, decode_any, kind};
use libfuzzer_sys::fuzz_target;
use librecast::time::UnixTime;
use librecast::id::{PeerId, SecretKey};

const NOW: u64 = 1_800_000_000_000;

fn now() -> UnixTime {
    UnixTime::from_millis(NOW)
}

/// States of an owner with a member, of that member, and of a joiner.
struct States {
    owner: Vec<u8>,
    member: Vec<u8>,
    joiner: Vec<u8>,
    group: PeerId,
    authors: [PeerId; 2],
}

fn states() -> &'static States {
    static STATES: OnceLock<States> = OnceLock::new();
    STATES.get_or_init(|| {
        let founding = Founding {
            key: SecretKey::from_seed(&[7; 32]),
            read_key: [8; 32].into(),
            topic: "fuzz".to_owned(),
            name: "owner".to_owned(),
        };
        let mut owner = Group::create(founding, &[0; 32], now()).unwrap();
        let invitation = owner.invite(9, NOW + 1_000_000, now()).unwrap();
        let mut member = Group::join(invitation.clone(), "member", &[1; 32], now()).unwrap();
        let joiner = Group::join(invitation, "joiner", &[2; 32], now()).unwrap();
        while let Some(output) = member.poll_output() {
            if let Output::Request(request) = output {
                owner.handle_request(&request, now()).unwrap();
            }
        }
        owner.handle_timeout(UnixTime::from_millis(NOW + 5_000));
        while let Some(output) = owner.poll_output() {
            if let Output::Append(append) = output {
                let (kind, body) = match append.entry {
                    lcgroup_core::NewEntry::Body { kind, body } => (kind, body),
                    _ => (0, Vec::new()),
                };
                let (author, number) = (owner.id(), append.number);
                let entry = Entry { author, number, time: NOW, kind, body: &body };
                member.handle_entry(&entry, now());
            }
        }
        assert!(member.epoch().is_some());
        States {
            authors: [owner.author_key().peer_id(), member.author_key().peer_id()],
            group: owner.id(),
            owner: owner.state().unwrap().to_vec(),
            member: member.state().unwrap().to_vec(),
            joiner: joiner.state().unwrap().to_vec(),
        }
    })
}

fn sealed(bytes: &[u8]) -> Vec<u8> {
    let to = PublicKey::from(states().group.x25519().unwrap());
    to.seal(&mut OsRng, bytes).unwrap()
}

/// Passes entries of one log to one participant: length 8, kind 8, body.
fn entries(state: &[u8], author: PeerId, mut bytes: &[u8]) {
    let mut group = Group::restore(state, &[3; 32]).unwrap();
    while let [length, kind, rest @ ..] = bytes {
        let (body, next) = rest.split_at(rest.len().min(usize::from(*length) * 4));
        let boxed = sealed(body);
        let body = if *kind == kind::REFRESH { &boxed } else { body };
        let number = group.wants(&author).unwrap_or(1);
        let entry = Entry { author, number, time: NOW, kind: *kind, body };
        group.handle_entry(&entry, now());
        bytes = next;
    }
    while group.poll_output().is_some() {}
    Group::restore(&group.state().unwrap(), &[4; 32]).unwrap();
}

fuzz_target!(|data: &[u8]| {
    let Some((which, bytes)) = data.split_first() else {
        return;
    };
    let states = states();
    match which % 8 {
        0 => entries(&states.owner, states.authors[1], bytes),
        1 => entries(&states.member, states.authors[0], bytes),
        2 => entries(&states.member, states.group, bytes),
        3 => entries(&states.joiner, states.group, bytes),
        4 => {
            let mut owner = Group::restore(&states.owner, &[3; 32]).unwrap();
            let _ = owner.handle_request(&sealed(bytes), now());
            let _ = owner.handle_request(bytes, now());
            let _ = Request::decode(bytes);
        }
        5 => {
            if let Ok(text) = std::str::from_utf8(bytes) {
                if let Ok(invitation) = text.parse::<Invitation>() {
                    assert_eq!(invitation.encode().parse(), Ok(invitation));
                }
            }
        }
        6 => {
            let (kind, bytes) = bytes.split_first().unwrap_or((&0, &[]));
            decode_any(*kind, bytes);
        }
        _ => {
            // a state with some changed bytes
            let mut state = states.member.clone();
            for change in bytes.chunks_exact(3) {
                let at = usize::from(u16::from_be_bytes([change[0], change[1]])) % state.len();
                state[at] = change[2];
            }
            let _ = Group::restore(&state, &[3; 32]);
            let _ = Group::restore(bytes, &[3; 32]);
        }
    }
});
