//! Packets of private prefixes: a packet opens only if a holder of the key has sealed it.
#![no_main]

use std::sync::Arc;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use lcroute_engine::classify::flow_of;
use lcroute_engine::header::{DataHeader, HOP_LIMIT, Payload};
use lcroute_engine::private::Private;
use lcroute_engine::{
    Aead, Credential, PrivatePrefix, Revocation, SECRET_LEN, Secret, Services,
};
use libfuzzer_sys::fuzz_target;
use librecast::time::UnixTime;
use librecast::cert::{CertError, GroupPrefix};
use librecast::id::{OriginId, PeerId};
use librecast::revocation::RevocationError;

/// Ciphers only: certificates are not verified here.
#[derive(Debug)]
struct Ciphers;

#[derive(Debug)]
struct Cipher(LessSafeKey);

impl Aead for Cipher {
    fn seal(&self, nonce: [u8; 12], associated: &[u8], text: &mut [u8]) -> Option<[u8; 16]> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(associated), text);
        tag.ok()?.as_ref().try_into().ok()
    }

    fn open(&self, nonce: [u8; 12], associated: &[u8], sealed: &[u8], tag: &[u8; 16], text: &mut [u8]) -> bool {
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.0.open_separate_gather(nonce, Aad::from(associated), sealed, tag, text).is_ok()
    }
}

impl Services for Ciphers {
    fn unix_now(&self) -> UnixTime {
        UnixTime::default()
    }
    fn sign(&self, _: &[u8]) -> [u8; 64] {
        [0; 64]
    }
    fn verify(&self, _: &PeerId, _: &[u8], _: &[u8; 64]) -> bool {
        false
    }
    fn verify_chain(&self, _: &[u8]) -> Result<Arc<Credential>, CertError> {
        Err(CertError::OtherNetwork)
    }
    fn verify_revocation(&self, _: &[u8]) -> Result<Revocation, RevocationError> {
        Err(RevocationError::Forged)
    }
    fn aead(&self, key: &[u8; 16]) -> Option<Box<dyn Aead>> {
        let key = UnboundKey::new(&AES_128_GCM, key).ok()?;
        Some(Box::new(Cipher(LessSafeKey::new(key))))
    }
}

fn node(seed: u64) -> Private {
    let mut private = Private::new(seed, 4, 4_096, Arc::new(Ciphers));
    private.configure(&[PrivatePrefix {
        prefix: GroupPrefix::ALL,
        secrets: vec![Secret::new([1; SECRET_LEN])],
        lans: false,
    }]);
    private
}

fuzz_target!(init: lcroute_fuzz::seeds::write("private"), |data: &[u8]| {
    let Some(flow) = flow_of(data) else {
        return;
    };
    let header = DataHeader {
        payload: Payload::Ipv6,
        flags: 0,
        hop_limit: HOP_LIMIT,
        root: OriginId(1),
        origin: OriginId(2),
        incarnation: 1,
        sequence: 1,
    };
    let (mut a, mut b) = (node(1), node(2));
    assert!(b.open(0, &header, flow, data).is_err(), "nobody has sealed it");
    let Ok(sealed) = a.seal(0, &header, data) else {
        return;
    };
    // headers that must not be carried are refused by name, inside as outside
    if let Ok(opened) = b.open(0, &header, flow, &sealed) {
        assert_eq!(opened[40..], data[40..]);
        assert!(b.open(0, &header, flow, &sealed).is_err(), "twice");
    }
});
