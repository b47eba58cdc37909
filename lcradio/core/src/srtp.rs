//! SRTP with AEAD_AES_128_GCM (RFC 3711, RFC 7714), for packets of a private station.
//!
//! ```text
//! packet    RTP header | sealed payload | tag 16           the header is authenticated, but clear
//! nonce     (0 16 | SSRC 32 | index 48) xor session salt   index: rollover counter and sequence
//! ```
//!
//! The master key is for one session: no nonce repeats under it, as packet numbers only rise.

use aes_gcm::aead::{AeadInPlace, KeyInit};
use aes_gcm::aes::Aes128;
use aes_gcm::aes::cipher::BlockEncrypt;
use aes_gcm::{Aes128Gcm, Nonce, Tag};
use librecast::id::derive;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::rtp::{self, RtpHeader};

/// Bytes of the tag after the payload.
pub const TAG: usize = 16;
/// Largest packet number (RFC 3711, 9.2): 180,000 years at 50 a second.
pub const MAX_INDEX: u64 = (1 << 48) - 1;

/// A packet that cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("sealed by another key, or changed")]
pub struct NotOpened;

/// Bytes of a master key, and of its salt.
const MASTER: usize = 16 + 12;

/// The cipher of one session of a station.
pub struct Cipher {
    gcm: Aes128Gcm,
    salt: [u8; 12],
}

librecast::debug_by_name!(Cipher);

impl Cipher {
    /// Returns the cipher for this session and read key.
    #[must_use]
    pub fn of_session(read_key: &[u8; 32], session: &[u8; 16]) -> Self {
        let hash = Zeroizing::new(derive("lcradio 2026 media", &[read_key, session]));
        let mut master = Zeroizing::new([0; MASTER]);
        master.copy_from_slice(&hash[..MASTER]);
        Self::new(&master)
    }

    /// Returns the cipher of a master key of 16 bytes and its salt (RFC 3711, 4.3; RFC 7714, 11).
    fn new(master: &[u8; MASTER]) -> Self {
        let (key, salt) = master.split_at(16);
        let kdf = Aes128::new(key.into());
        // the key stream of AES in counter mode; one block of it suffices
        let session = |label: u8| {
            let mut block = aes_gcm::aes::Block::default();
            block[..12].copy_from_slice(salt);
            block[7] ^= label;
            kdf.encrypt_block(&mut block);
            block
        };
        let mut session_salt = [0; 12];
        session_salt.copy_from_slice(&session(2)[..12]);
        Self {
            gcm: Aes128Gcm::new(&session(0)),
            salt: session_salt,
        }
    }

    fn nonce(&self, ssrc: u32, index: u64) -> Nonce<aes_gcm::aead::consts::U12> {
        let mut nonce = self.salt;
        let fields = ssrc.to_be_bytes().into_iter();
        let fields = fields.chain(index.to_be_bytes().into_iter().skip(2));
        for (byte, field) in nonce[2..].iter_mut().zip(fields) {
            *byte ^= field;
        }
        nonce.into()
    }

    /// Returns the packet of `header` and `payload` with the number `index`.
    #[must_use]
    pub fn seal(&self, header: &RtpHeader, index: u64, payload: &[u8]) -> Vec<u8> {
        let mut packet = Vec::with_capacity(rtp::HEADER + payload.len() + TAG);
        let head = header.write();
        packet.extend_from_slice(&head);
        packet.extend_from_slice(payload);
        let nonce = self.nonce(header.ssrc, index);
        let sealed = &mut packet[rtp::HEADER..];
        // GCM takes 64 GiB: a payload is far below
        let tag = self
            .gcm
            .encrypt_in_place_detached(&nonce, &head, sealed)
            .expect("a payload is shorter than what GCM takes");
        packet.extend_from_slice(&tag);
        packet
    }

    /// Opens the payload of `packet`, after a header of `header_length`.
    ///
    /// # Errors
    /// Another key sealed it, it has another number, or it was changed.
    pub fn open(
        &self,
        packet: &[u8],
        header_length: usize,
        ssrc: u32,
        index: u64,
    ) -> Result<Vec<u8>, NotOpened> {
        let (head, sealed) = packet.split_at_checked(header_length).ok_or(NotOpened)?;
        let (sealed, tag) = sealed.split_last_chunk::<TAG>().ok_or(NotOpened)?;
        let mut payload = sealed.to_vec();
        let nonce = self.nonce(ssrc, index);
        self.gcm
            .decrypt_in_place_detached(&nonce, head, &mut payload, Tag::from_slice(tag))
            .map_err(|_| NotOpened)?;
        Ok(payload)
    }
}

#[cfg(test)]
mod tests {
    use rtc::srtp::context::Context;
    use rtc::srtp::protection_profile::ProtectionProfile;

    use super::*;

    const MASTER_OF_TEST: [u8; MASTER] = {
        let mut bytes = [7; MASTER];
        bytes[0] = 1;
        bytes[MASTER - 1] = 9;
        bytes
    };

    fn header(sequence: u16) -> RtpHeader {
        RtpHeader {
            marker: false,
            payload_type: rtp::PAYLOAD_TYPE,
            sequence,
            timestamp: 960 * u32::from(sequence),
            ssrc: 0x1234_5678,
            padded: false,
        }
    }

    /// Another implementation, with another AES.
    fn other() -> Context {
        let provider = rtc::crypto::default_provider().unwrap();
        let profile = ProtectionProfile::AeadAes128Gcm;
        let (key, salt) = MASTER_OF_TEST.split_at(16);
        Context::new(key, salt, profile, None, None, provider.crypto()).unwrap()
    }

    #[test]
    fn another_implementation_opens_what_is_sealed_across_a_rollover() {
        let cipher = Cipher::new(&MASTER_OF_TEST);
        let mut other = other();
        for index in 65_530_u64..65_545 {
            let header = header(index as u16);
            let packet = cipher.seal(&header, index, b"twenty milliseconds");
            let plain = other.decrypt_rtp(&packet).unwrap();
            assert_eq!(&plain[12..], b"twenty milliseconds", "{index}");
            assert_eq!(plain[..12], header.write());
        }
    }

    #[test]
    fn what_another_implementation_seals_is_opened_across_a_rollover() {
        let cipher = Cipher::new(&MASTER_OF_TEST);
        let mut other = other();
        for index in 65_530_u64..65_545 {
            let plain = [&header(index as u16).write()[..], b"sound"].concat();
            let packet = other.encrypt_rtp(&plain).unwrap();
            let opened = cipher.open(&packet, 12, 0x1234_5678, index).unwrap();
            assert_eq!(opened, b"sound", "{index}");
        }
    }

    #[test]
    fn a_changed_byte_another_number_or_another_session_does_not_open() {
        let cipher = Cipher::of_session(&[1; 32], &[2; 16]);
        let packet = cipher.seal(&header(5), 65_536 + 5, b"sound");
        let open = |cipher: &Cipher, packet: &[u8], index| {
            cipher.open(packet, 12, 0x1234_5678, index).is_ok()
        };
        assert!(open(&cipher, &packet, 65_536 + 5));
        assert!(!open(&cipher, &packet, 5), "another rollover counter");
        for other in [([1; 32], [3; 16]), ([9; 32], [2; 16])] {
            let other = Cipher::of_session(&other.0, &other.1);
            assert!(!open(&other, &packet, 65_536 + 5));
        }
        for at in 0..packet.len() {
            let mut changed = packet.clone();
            changed[at] ^= 1;
            assert!(!open(&cipher, &changed, 65_536 + 5), "byte {at}");
        }
        for length in 0..packet.len() {
            assert!(!open(&cipher, &packet[..length], 65_536 + 5), "{length}");
        }
    }
}
