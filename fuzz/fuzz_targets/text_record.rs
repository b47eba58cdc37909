//! Records of texts, from any bytes and with the seal that everybody with the text can make; what
//! programs tell `lcroute guest` of a text.
#![no_main]

use crypto_secretbox::aead::AeadInPlace;
use crypto_secretbox::{KeyInit, Nonce, XSalsa20Poly1305};
use lcroute_fuzz::{TODAY, key};
use lcroute_overlay::{DropReason, Random, TextRecord};
use libfuzzer_sys::fuzz_target;
use librecast::text_network::TextKey;
use librecast::time::UnixTime;
use librecast_program::guest::TextEntry;

fn text() -> TextKey {
    TextKey::new(key(10).peer_id(), [7; 32])
}

/// Seals these bytes, with a signature of the key whose network they may name.
fn sealed(is_signed: bool, bytes: &[u8]) -> Vec<u8> {
    let mut record = bytes.to_vec();
    if is_signed {
        record.extend(key(9).sign("lcroute 2026 text record", bytes));
    }
    let nonce = [7; 24];
    let cipher = XSalsa20Poly1305::new((&*text().seal()).into());
    let tag = cipher.encrypt_in_place_detached(Nonce::from_slice(&nonce), b"", &mut record);
    [&nonce, &tag.unwrap()[..], &record].concat()
}

fuzz_target!(init: lcroute_fuzz::seeds::write("text_record"), |data: &[u8]| {
    let now = UnixTime::from_secs(TODAY);
    let open = |sealed: &[u8]| TextRecord::open_charged(&text(), sealed, now, || true);
    // nobody has sealed it
    assert!(open(data).is_err());
    for is_signed in [false, true] {
        match open(&sealed(is_signed, data)) {
            Ok(record) => {
                let again = record.seal(&text(), &key(9), &mut Random::new([1; 32]));
                assert!(open(&again).is_ok());
            }
            Err(reason) => assert_ne!(reason, DropReason::TextNotOpened),
        }
    }
    let _ = serde_json::from_slice::<TextEntry>(data);
});
