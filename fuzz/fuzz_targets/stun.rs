//! STUN: the library's decoder with all fields that we read, and our own first checks.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rtc::stun::attributes::{ATTR_USE_CANDIDATE, ATTR_USERNAME};
use rtc::stun::fingerprint::FINGERPRINT;
use rtc::stun::integrity::MessageIntegrity;
use rtc::stun::message::{Getter, Message, is_stun_message};
use rtc::stun::xoraddr::XorMappedAddress;

fuzz_target!(init: lcroute_fuzz::seeds::write("stun"), |data: &[u8]| {
    // with a right header, but for its first two bytes
    let mut bytes = data.to_vec();
    if bytes.len() >= 20 && bytes[2] & 1 == 0 {
        let length = u16::try_from(bytes.len() - 20).unwrap_or(u16::MAX);
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        bytes[4..8].copy_from_slice(&0x2112_A442_u32.to_be_bytes());
    }
    let _ = lcroute_webrtc::mapped_address(&bytes, [0; 12]);
    if !is_stun_message(&bytes) {
        return;
    }
    let mut message = Message { raw: bytes, ..Message::default() };
    if message.decode().is_err() {
        return;
    }
    let _ = (message.get(ATTR_USERNAME), message.contains(ATTR_USE_CANDIDATE));
    let _ = XorMappedAddress::default().get_from(&message);
    let provider = rtc::crypto::default_provider().unwrap();
    let _ = MessageIntegrity::check(&mut message, b"a password of 22 bytes", provider.crypto());
    let _ = FINGERPRINT.check(&message);
});
