//! Handshakes between two endpoints, and with `dimpl` alone, under loss and forgeries.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use dimpl::certificate::generate_self_signed_certificate;
use dimpl::{Dtls, Output, ProtocolVersion, SrtpProfile};
use proptest::prelude::*;
use rtc_shared::TransportProtocol;
use rtc_shared::error::Error;

use crate::config::{ConfigBuilder, HandshakeConfig};
use crate::crypto::Certificate;
use crate::endpoint::{Endpoint, EndpointEvent};
use crate::extension::extension_use_srtp::SrtpProtectionProfile;
use crate::observer::{Observer, SrtpKeys};

/// Label of RFC 5764 4.2, and bytes of two keys and salts for AES-256-GCM.
const LABEL: &str = "EXTRACTOR-dtls_srtp";
const MATERIAL: usize = 2 * (32 + 12);
/// Longest time of a handshake, on virtual time.
const LONG: Duration = Duration::from_secs(40);

fn certificate() -> Certificate {
    Certificate::of(generate_self_signed_certificate().unwrap())
}

fn config(certificate: Certificate, is_client: bool) -> Arc<HandshakeConfig> {
    let builder = ConfigBuilder::default().with_certificates(vec![certificate]);
    Arc::new(builder.build(is_client, None).unwrap())
}

/// Client and server, with a lossy wire between them.
struct Pair {
    ends: [Endpoint; 2],
    at: [SocketAddr; 2],
    now: Instant,
    /// Number of datagrams sent, and the indices of the lost ones.
    sent: usize,
    lost: Vec<usize>,
    completed: [bool; 2],
    plain: [Vec<Vec<u8>>; 2],
    closed: [bool; 2],
    errors: usize,
}

impl Pair {
    fn of(certificates: [Certificate; 2]) -> Self {
        let at = ["192.0.2.1:1", "192.0.2.2:2"].map(|addr| addr.parse().unwrap());
        let now = Instant::now();
        let [client, server] = certificates;
        let server = Some(config(server, false));
        let mut ends = [
            Endpoint::new(at[0], TransportProtocol::UDP, None),
            Endpoint::new(at[1], TransportProtocol::UDP, server),
        ];
        ends[0]
            .connect(now, at[1], config(client, true), None)
            .unwrap();
        Self {
            ends,
            at,
            now,
            sent: 0,
            lost: Vec::new(),
            completed: [false; 2],
            plain: [Vec::new(), Vec::new()],
            closed: [false; 2],
            errors: 0,
        }
    }

    fn new() -> Self {
        Self::of([certificate(), certificate()])
    }

    fn up() -> Self {
        let mut pair = Self::new();
        pair.exchange();
        assert_eq!(pair.completed, [true; 2]);
        pair
    }

    fn give(&mut self, to: usize, datagram: &[u8]) {
        let from = self.at[1 - to];
        match self.ends[to].read(self.now, from, None, BytesMut::from(datagram)) {
            Ok(events) => self.see(to, events),
            Err(_) => self.errors += 1,
        }
    }

    fn see(&mut self, to: usize, events: Vec<EndpointEvent>) {
        for event in events {
            match event {
                EndpointEvent::HandshakeComplete => {
                    assert!(!std::mem::replace(&mut self.completed[to], true), "twice");
                }
                EndpointEvent::ApplicationData(plain) => self.plain[to].push(plain.to_vec()),
                EndpointEvent::PeerClosed => self.closed[to] = true,
            }
        }
    }

    /// Delivers the datagrams under way and their consequences.
    fn exchange(&mut self) {
        while self.step() {}
    }

    fn step(&mut self) -> bool {
        let mut any = false;
        for from in [0, 1] {
            while let Some(transmit) = self.ends[from].poll_transmit() {
                any = true;
                self.sent += 1;
                if !self.lost.contains(&(self.sent - 1)) {
                    self.give(1 - from, &transmit.message);
                }
            }
        }
        any
    }

    /// Runs until both handshakes are over.
    fn complete(&mut self) -> bool {
        let end = self.now + LONG;
        loop {
            self.exchange();
            if self.completed == [true; 2] {
                return true;
            }
            let due = (0..2).filter_map(|n| self.ends[n].poll_timeout(&self.at[1 - n]));
            match due.min() {
                Some(at) if at <= end => self.now = self.now.max(at),
                _ => return false,
            }
            for n in [0, 1] {
                let _ = self.ends[n].handle_timeout(self.at[1 - n], self.now);
            }
        }
    }

    fn write(&mut self, from: usize, plain: &[u8]) {
        let to = self.at[1 - from];
        self.ends[from].write(self.now, to, plain).unwrap();
    }

    fn assert_talks(&mut self) {
        for from in [0, 1] {
            self.plain[1 - from].clear();
            self.write(from, b"hello");
            self.exchange();
            assert_eq!(self.plain[1 - from], [b"hello"], "from {from}");
        }
    }
}

#[test]
fn two_ends_speak_dtls_1_3_and_have_the_same_keys() {
    let mut pair = Pair::new();
    pair.exchange();
    assert_eq!((pair.completed, pair.errors), ([true; 2], 0));
    let states = [0, 1].map(|n| pair.ends[n].get_connection_state(pair.at[1 - n]).unwrap());
    for (n, state) in states.iter().enumerate() {
        assert_eq!(state.version, Some(ProtocolVersion::DTLS1_3));
        assert_eq!(state.is_client(), n == 0);
        assert_eq!(state.peer_certificates.len(), 1);
        let profile = state.srtp_protection_profile();
        assert_eq!(profile, SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm);
        for (label, context, length) in [
            ("other", &[][..], MATERIAL),
            (LABEL, &[1], MATERIAL),
            (LABEL, &[], 56),
        ] {
            let refused = state.export_keying_material(label, context, length);
            assert!(refused.is_err());
        }
    }
    let keys = states.map(|state| state.export_keying_material(LABEL, &[], MATERIAL).unwrap());
    assert_eq!(keys[0], keys[1]);
    pair.assert_talks();
}

#[test]
fn a_handshake_takes_one_round_trip_of_the_client() {
    let mut pair = Pair::new();
    for turns in 1.. {
        assert!(pair.step());
        if pair.completed[0] {
            // a turn covers both directions
            assert_eq!(turns, 1);
            return;
        }
    }
}

#[test]
fn any_datagram_of_a_handshake_may_get_lost() {
    let mut clean = Pair::up();
    clean.exchange();
    for first in 0..clean.sent {
        for second in 0..clean.sent + 2 {
            let mut pair = Pair::new();
            pair.lost = vec![first, second];
            assert!(pair.complete(), "{first}, {second}");
            pair.lost.clear();
            pair.assert_talks();
        }
    }
}

/// Refuses all certificates.
fn refusing(certificate: Certificate) -> Arc<HandshakeConfig> {
    let builder = ConfigBuilder::default()
        .with_certificates(vec![certificate])
        .with_verify_peer_certificate(Some(Arc::new(|_, _| {
            Err(Error::ErrNoMatchingCertificateFingerprint)
        })));
    Arc::new(builder.build(true, None).unwrap())
}

#[test]
fn who_shows_another_certificate_gets_no_connection() {
    for refuses in [0, 1] {
        let mut pair = Pair::new();
        let at = pair.at;
        let other = config(certificate(), true);
        let configs = match refuses {
            0 => [refusing(certificate()), other],
            _ => [other, refusing(certificate())],
        };
        let [client, server] = configs;
        pair.ends[1] = Endpoint::new(at[1], TransportProtocol::UDP, Some(server));
        pair.ends[0] = Endpoint::new(at[0], TransportProtocol::UDP, None);
        pair.ends[0].connect(pair.now, at[1], client, None).unwrap();
        assert!(!pair.complete());
        assert!(!pair.completed[refuses]);
        let state = pair.ends[refuses].get_connection_state(at[1 - refuses]);
        assert!(state.is_none_or(|state| state.peer_certificates.is_empty()));
        // and sends nothing to a peer that accepted
        assert!(
            pair.ends[refuses]
                .write(pair.now, at[1 - refuses], b"x")
                .is_err()
        );
        pair.plain[refuses].clear();
        let _ = pair.ends[1 - refuses].write(pair.now, at[refuses], b"x");
        pair.exchange();
        assert!(pair.plain[refuses].is_empty());
    }
}

#[test]
fn without_a_key_there_is_no_handshake() {
    let mut bare = certificate();
    bare.key = None;
    for certificates in [vec![], vec![bare]] {
        let builder = ConfigBuilder::default().with_certificates(certificates);
        assert!(builder.build(true, None).is_err());
    }
}

#[test]
fn goodbye_is_said_and_understood() {
    for ends in [0, 1] {
        let mut pair = Pair::up();
        pair.ends[ends].close(pair.now).unwrap();
        pair.exchange();
        assert!(pair.closed[1 - ends]);
        let left = pair.ends[1 - ends].get_connections_keys().count();
        assert_eq!(left, 0);
    }
}

#[test]
fn neither_an_alert_in_clear_nor_a_record_without_a_message_ends_anything() {
    // fatal: handshake_failure
    let alert = [21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 2, 40];
    let empty = [22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // a HelloVerifyRequest of an epoch that has not begun
    let early = [
        &[22, 254, 253, 0, 1, 0, 0, 0, 0, 0, 0, 0, 12, 3][..],
        &[0; 11],
    ]
    .concat();
    for (to, forged) in [
        (0, &alert[..]),
        (1, &alert),
        (0, &empty),
        (1, &empty),
        (0, &early),
        (1, &early),
    ] {
        let mut pair = Pair::new();
        pair.give(to, forged);
        assert!(pair.complete());
        pair.give(to, forged);
        pair.assert_talks();
        assert!(pair.errors > 0);
    }
}

/// Makes a plaintext record (RFC 6347 4.1).
fn clear(kind: u8, number: u8, text: &[u8]) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap();
    let head = [kind, 254, 253, 0, 0, 0, 0, 0, 0, 0, number, 0, length];
    [&head[..], text].concat()
}

/// Makes a fragment of a handshake message (RFC 6347 4.2.2).
fn message(kind: u8, number: u8, (all, offset): (u8, u8), piece: &[u8]) -> Vec<u8> {
    let length = u8::try_from(piece.len()).unwrap();
    let head = [kind, 0, 0, all, 0, number, 0, 0, offset, 0, 0, length];
    [&head[..], piece].concat()
}

#[test]
fn an_alert_in_clear_ends_nothing_behind_another_record_either() {
    // fatal: handshake_failure
    let alert = clear(21, 9, &[2, 40]);
    // sealed without a key, and a fragment of an unexpected message
    let sealed = [&[0x2e, 0, 1, 0, 20][..], &[7; 20]].concat();
    let piece = clear(22, 7, &message(11, 3, (9, 0), &[5]));
    for (first, to) in [(&sealed, 0), (&sealed, 1), (&piece, 0), (&piece, 1)] {
        for steps in 0..3 {
            let mut pair = Pair::new();
            (0..steps).for_each(|_| assert!(pair.step() || steps > 1));
            pair.give(to, &[&first[..], &alert].concat());
            assert!(pair.complete(), "{first:?} {to} {steps}");
            pair.assert_talks();
        }
    }
}

#[test]
fn nothing_but_a_hello_that_makes_sense_counts_with_who_waits_for_one() {
    let sealed = [&[0x2f, 0, 1, 0, 20][..], &[7; 20]].concat();
    let piece = clear(22, 7, &message(11, 3, (9, 0), &[5]));
    // without a version, and with a forged cookie
    let empty = clear(22, 7, &message(1, 0, (4, 0), &[0; 4]));
    let mut body = [&[254, 253][..], &[7; 32], &[0, 4, 1, 2, 3, 4]].concat();
    body.extend([0, 2, 19, 1, 1, 0, 0, 0]);
    let length = u8::try_from(body.len()).unwrap();
    let cookie = clear(22, 7, &message(1, 0, (length, 0), &body));
    for (junk, to) in [
        (&sealed, 0),
        (&sealed, 1),
        (&piece, 0),
        (&piece, 1),
        (&empty, 1),
        (&cookie, 1),
    ] {
        let mut pair = Pair::new();
        (0..200).for_each(|_| pair.give(to, junk));
        assert!(pair.complete(), "{junk:?} {to}");
        pair.assert_talks();
    }
}

/// Records its calls; rejects data that begins with 7.
#[derive(Default)]
struct Notes {
    keys: Mutex<Vec<(SrtpProfile, usize, bool)>>,
    seen: AtomicU32,
}

impl Observer for Notes {
    fn seed(&self) -> Option<u64> {
        None
    }

    fn handle_keys(&self, keys: &SrtpKeys<'_>) {
        let seen = (keys.profile, keys.material.len(), keys.is_client);
        self.keys.lock().unwrap().push(seen);
    }

    fn admits(&self, plain: &[u8]) -> bool {
        self.seen.fetch_add(1, Ordering::Relaxed);
        plain[0] != 7
    }

    fn seal(&self, plain: &mut [u8]) {
        plain.reverse();
    }
}

#[test]
fn an_observer_sees_keys_and_texts_and_leaves_out_what_it_likes() {
    let notes = Arc::new(Notes::default());
    let observed = certificate().observed_by(notes.clone());
    let mut pair = Pair::of([observed, certificate()]);
    pair.exchange();
    let keys = [(SrtpProfile::AEAD_AES_256_GCM, MATERIAL, true)];
    assert_eq!(*notes.keys.lock().unwrap(), keys);
    pair.write(0, b"abc");
    pair.write(1, &[7, 1]);
    pair.write(1, &[6, 1]);
    pair.exchange();
    assert_eq!(pair.plain, [vec![vec![6, 1]], vec![b"cba".to_vec()]]);
    assert_eq!(notes.seen.load(Ordering::Relaxed), 2);
}

/// An end of `dimpl` with DTLS 1.2 only, as stacks without DTLS 1.3 are.
struct Old {
    dtls: Dtls,
    connected: bool,
    plain: Vec<Vec<u8>>,
}

impl Old {
    fn new(is_client: bool, asks_for_cookie: bool, now: Instant) -> Self {
        let config = dimpl::Config::builder().use_server_cookie(asks_for_cookie);
        let config = Arc::new(config.build().unwrap());
        let made = generate_self_signed_certificate().unwrap();
        let mut dtls = Dtls::new_12(config, made, now);
        dtls.set_active(is_client);
        dtls.handle_timeout(now).unwrap();
        Self {
            dtls,
            connected: false,
            plain: Vec::new(),
        }
    }

    fn packets(&mut self) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        let mut room = vec![0; 2_048];
        loop {
            match self.dtls.poll_output(&mut room) {
                Output::Packet(packet) => packets.push(packet.to_vec()),
                Output::Connected => self.connected = true,
                Output::ApplicationData(plain) => self.plain.push(plain.to_vec()),
                Output::Timeout(_) => return packets,
                _ => {}
            }
        }
    }
}

#[test]
fn nodes_that_speak_dtls_1_2_alone_are_understood() {
    for (old_is_client, asks_for_cookie) in [(false, false), (false, true), (true, false)] {
        let mut pair = Pair::new();
        let (new, at) = (usize::from(old_is_client), pair.at);
        let mut old = Old::new(old_is_client, asks_for_cookie, pair.now);
        for _ in 0..8 {
            for packet in old.packets() {
                pair.give(new, &packet);
            }
            while let Some(transmit) = pair.ends[new].poll_transmit() {
                old.dtls.handle_packet(&transmit.message).unwrap();
            }
        }
        assert!(old.connected && pair.completed[new], "{old_is_client}");
        let state = pair.ends[new].get_connection_state(at[1 - new]).unwrap();
        assert_eq!(state.version, Some(ProtocolVersion::DTLS1_2));
        pair.write(new, b"to the old one");
        old.dtls.send_application_data(b"to the new one").unwrap();
        let transmit = pair.ends[new].poll_transmit().unwrap();
        old.dtls.handle_packet(&transmit.message).unwrap();
        for packet in old.packets() {
            pair.give(new, &packet);
        }
        assert_eq!(old.plain, [b"to the old one"]);
        assert_eq!(pair.plain[new], [b"to the new one"]);
    }
}

/// Makes a record in plaintext, or with the header of DTLS 1.3, with arbitrary content.
fn record() -> impl Strategy<Value = Vec<u8>> {
    let text = prop::collection::vec(any::<u8>(), 0..120);
    let clear = (
        prop::sample::select(vec![20_u8, 22, 23, 24, 26, 64]),
        prop::sample::select(vec![253_u8, 255, 252]),
        0..4_u8,
        any::<u8>(),
        text.clone(),
    );
    let clear = clear.prop_map(|(kind, version, epoch, number, text)| {
        let length = u8::try_from(text.len()).unwrap();
        let head = [
            kind, 254, version, 0, epoch, 0, 0, 0, 0, 0, number, 0, length,
        ];
        [&head[..], &text].concat()
    });
    let sealed =
        (0x20..0x40_u8, text.clone()).prop_map(|(first, text)| [&[first][..], &text].concat());
    prop_oneof![clear, sealed, text]
}

/// Types of handshake messages, hellos first.
const KINDS: [u8; 12] = [1, 2, 3, 8, 11, 12, 13, 14, 15, 16, 20, 24];

/// Makes a fragment of a handshake message of such a type, with a valid header.
fn piece(kinds: &'static [u8]) -> impl Strategy<Value = Vec<u8>> {
    let kinds = prop::sample::select(kinds);
    let body = prop::collection::vec(any::<u8>(), 0..100);
    (kinds, 0..4_u8, any::<u8>(), body).prop_map(|(kind, number, sequence, body)| {
        let length = u8::try_from(body.len()).unwrap();
        let head = [kind, 0, 0, length, 0, number, 0, 0, 0, 0, 0, length];
        let message = [&head[..], &body].concat();
        let length = u8::try_from(message.len()).unwrap();
        let head = [22, 254, 253, 0, 0, 0, 0, 0, 0, 0, sequence, 0, length];
        [&head[..], &message].concat()
    })
}

/// Makes one to three records without a hello.
fn datagram() -> impl Strategy<Value = Vec<u8>> {
    let one = prop_oneof![record(), piece(&KINDS[3..])];
    prop::collection::vec(one, 1..4).prop_map(|records| records.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn forgeries_end_no_connection(
        forged in prop::collection::vec((0..2_usize, prop_oneof![record(), piece(&KINDS)]), 1..60),
    ) {
        let mut pair = Pair::up();
        for (to, datagram) in forged {
            pair.give(to, &datagram);
        }
        pair.exchange();
        pair.assert_talks();
        prop_assert!(pair.complete());
    }

    #[test]
    fn a_changed_datagram_ends_no_connection(
        changes in prop::collection::vec((0..2_usize, any::<prop::sample::Index>(), 1..=255_u8), 1..40),
    ) {
        let mut pair = Pair::up();
        for (from, at, flip) in changes {
            pair.write(from, b"something");
            let transmit = pair.ends[from].poll_transmit().unwrap();
            let mut datagram = transmit.message.to_vec();
            let at = at.index(datagram.len());
            datagram[at] ^= flip;
            pair.give(1 - from, &datagram);
        }
        prop_assert!(pair.plain.iter().all(Vec::is_empty), "a forgery was believed");
        pair.assert_talks();
    }

    #[test]
    fn records_that_are_none_end_no_handshake(
        forged in prop::collection::vec((0..2_usize, 0..3_usize, datagram()), 1..20),
    ) {
        let mut pair = Pair::new();
        for step in 0..3 {
            for (to, _, datagram) in forged.iter().filter(|(_, at, _)| *at == step) {
                pair.give(*to, datagram);
            }
            pair.step();
        }
        prop_assert!(pair.complete());
        pair.assert_talks();
    }
}
