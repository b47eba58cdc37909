//! This node's use of a relay, against the relay server, in memory.

use rtc::stun::attributes::{ATTR_ERROR_CODE, ATTR_NONCE};
use rtc::stun::message::{CLASS_REQUEST, Setter, TransactionId};

use super::super::config::RelayConfig;
use super::super::message::Raw;
use super::super::server::{Client as Who, RelayOutput, RelayServer};
use super::*;
use crate::stun::build;
use librecast::time::UnixTime;

const BASE: &str = "203.0.113.5:4000";
const SERVER: &str = "198.51.100.1:7117";

struct World {
    server: RelayServer,
    relays: Relays,
    credentials: RelayCredentials,
    now: Instant,
}

fn addr(s: &str) -> SocketAddr {
    s.parse().unwrap()
}

fn allocated() -> World {
    let now = Instant::now();
    let own = Arc::new(|ip| ip == addr(SERVER).ip());
    let config = RelayConfig::new([7; 32], own, Arc::new(|_| false));
    let server = RelayServer::new(config, now, UnixTime::from_secs(1_800_000_000)).unwrap();
    let (credentials, _) = server.mint((&[1; 32], &[0; 32]), false, now);
    let mut relays = Relays::new(now);
    relays.set_hosts(&[addr(BASE)], now);
    let mut world = World {
        server,
        relays,
        credentials,
        now,
    };
    world.offer();
    world.relays.need(false, now);
    world.run();
    assert!(world.relays.relayed().is_some());
    world
}

impl World {
    fn offer(&mut self) {
        let offer = RelayOffer {
            url: "the relay".to_owned(),
            udp: vec![addr(SERVER)],
            stream: false,
            credentials: self.credentials.clone(),
            renews: true,
        };
        self.relays.offer(vec![offer], self.now);
    }

    /// Exchanges messages until there is none; no answer of the server is dropped.
    fn run(&mut self) {
        while let Some(sent) = self.relays.poll_transmit() {
            self.answer(&sent.contents);
        }
    }

    fn answer(&mut self, request: &[u8]) {
        let client = Who {
            address: addr(BASE),
            stream: None,
        };
        self.server.handle_client(client, request, self.now);
        while let Some(output) = self.server.poll_output() {
            match output {
                RelayOutput::Open { allocation, .. } => {
                    let address = addr("198.51.100.1:50000");
                    self.server.handle_opened(allocation, Some(address));
                }
                RelayOutput::ToClient(_, message) => {
                    assert_eq!(self.relays.handle_message(&message, self.now), Ok(()));
                }
                _ => {}
            }
        }
    }

    fn refresh(&mut self) -> (TransactionId, Bytes) {
        self.now += REFRESH;
        self.relays.poll(true, self.now);
        let sent = std::iter::from_fn(|| self.relays.poll_transmit());
        let mut sent = sent.filter_map(|sent| Some((parse(&sent.contents)?, sent.contents)));
        let refresh = MessageType::new(METHOD_REFRESH, CLASS_REQUEST);
        let (request, bytes) = sent.find(|(m, _)| m.typ == refresh).unwrap();
        (request.transaction_id, bytes)
    }

    /// Makes a refusal of a Refresh, with the proof of these credentials.
    fn refusal(&self, id: TransactionId, code: u16, proof: Option<&RelayCredentials>) -> Vec<u8> {
        let error = [0, 0, (code / 100) as u8, (code % 100) as u8];
        let provider = self.relays.provider.clone().unwrap();
        let mut setters: Vec<Box<dyn Setter + '_>> = vec![
            Box::new(id),
            Box::new(REFRESH_ERROR),
            Box::new(Raw(ATTR_ERROR_CODE, &error)),
            Box::new(Raw(ATTR_NONCE, b"new")),
        ];
        let proof = proof.map(|RelayCredentials { user, password }| {
            MessageIntegrity::new_long_term_integrity_with_provider(
                user.clone(),
                "lcroute".to_owned(),
                password.clone(),
                provider.crypto(),
            )
        });
        if let Some(proof) = proof {
            setters.push(Box::new(proof.unwrap()));
        }
        build(&setters).unwrap()
    }

    fn handle(&mut self, message: &[u8]) -> Result<(), DropReason> {
        self.relays.handle_message(message, self.now)
    }
}

#[test]
fn a_refusal_of_nothing_that_was_asked_ends_no_allocation() {
    let mut w = allocated();
    for code in [400, 401, 403, 437, 438, 441, 486, 500] {
        let forged = w.refusal(TransactionId([9; 12]), code, None);
        assert_eq!(w.handle(&forged), Err(DropReason::StunUnasked));
        assert!(w.relays.relayed().is_some(), "{code}");
    }
}

#[test]
fn a_refusal_without_proof_ends_no_allocation_and_the_true_answer_counts() {
    let mut w = allocated();
    let wrong = RelayCredentials {
        user: w.credentials.user.clone(),
        password: "guessed".to_owned(),
    };
    for code in [400, 403, 437, 441, 486, 500] {
        let (id, request) = w.refresh();
        for proof in [None, Some(&wrong)] {
            let forged = w.refusal(id, code, proof);
            assert_eq!(w.handle(&forged), Err(DropReason::RelayForged));
        }
        w.answer(&request);
        assert!(w.relays.relayed().is_some(), "{code}");
    }
    // a relay that never proves its answers falls silent
    while w.relays.attempt.as_ref().unwrap().heard + SILENCE > w.now + REFRESH {
        let (id, _) = w.refresh();
        let forged = w.refusal(id, 437, None);
        assert_eq!(w.handle(&forged), Err(DropReason::RelayForged));
    }
    w.now += REFRESH;
    w.relays.poll(true, w.now);
    assert_eq!(w.relays.relayed(), None);
}

#[test]
fn the_relay_ends_an_allocation_with_proof_or_by_refusing_the_credentials() {
    for (code, proved, ends) in [(437, true, true), (401, false, true), (438, false, false)] {
        let mut w = allocated();
        let (id, _) = w.refresh();
        let proof = w.credentials.clone();
        let refusal = w.refusal(id, code, proved.then_some(&proof));
        assert_eq!(w.handle(&refusal), Ok(()));
        assert_eq!(w.relays.relayed().is_none(), ends, "{code}");
    }
}

#[test]
fn an_answer_to_a_request_of_before_newer_credentials_counts() {
    let mut w = allocated();
    let (_, request) = w.refresh();
    let later = w.now + Duration::from_secs(60);
    w.credentials = w.server.mint((&[1; 32], &[0; 32]), false, later).0;
    w.offer();
    w.answer(&request);
    let (_, request) = w.refresh();
    w.answer(&request);
    assert!(w.relays.relayed().is_some());
}

#[test]
fn a_relay_that_refuses_the_address_of_a_peer_is_told_of() {
    let mut w = allocated();
    for (peer, refuses) in [("8.8.8.8:5000", false), ("10.0.0.7:5000", true)] {
        w.relays.permit(std::iter::once(addr(peer)), w.now);
        w.run();
        assert_eq!(w.relays.status().refuses_peers, refuses, "{peer}");
    }
}
