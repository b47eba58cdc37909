//! SRTP and SRTCP of the library. lcroute's lane has its own; no packet reaches these.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rtc::srtp::context::Context;
use rtc::srtp::protection_profile::ProtectionProfile;

fuzz_target!(init: lcroute_fuzz::seeds::write("srtp"), |data: &[u8]| {
    let provider = rtc::crypto::default_provider().unwrap();
    let profile = ProtectionProfile::AeadAes128Gcm;
    let context = Context::new(&[1; 16], &[2; 12], profile, None, None, provider.crypto());
    let mut context = context.unwrap();
    let _ = context.decrypt_rtp(data);
    let _ = context.decrypt_rtcp(data);
});
