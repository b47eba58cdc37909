//! Sealing and opening of packets: SRTP and SRTCP with AEAD_AES_128_GCM (RFC 3711, RFC 7714).
//!
//! Sequence number and timestamp of a packet have the low 16 and 32 bits of its 48-bit index, so
//! both sides agree even after an outage of 2^31 packets.

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use bytes::{BufMut, BytesMut};
use lcroute_lane::{INDEX_BITS, ReplayWindow, extend};

use super::keys::SessionKeys;
use crate::drops::DropReason;

/// Bytes of an RTP header without CSRC and extension (RFC 3550 5.1).
pub(crate) const RTP_HEADER: usize = 12;
/// Bytes of the authentication tag of AEAD_AES_128_GCM (RFC 7714 8.1).
pub(crate) const TAG: usize = 16;
/// Bytes of an RTCP header with the sender's SSRC (RFC 3550 6.1).
pub(crate) const RTCP_HEADER: usize = 8;
/// Bytes of the SRTCP index at the end (RFC 3711 3.4).
const RTCP_TRAILER: usize = 4;
/// Version 2, no padding, no extension, no CSRC.
pub(crate) const VERSION: u8 = 0x80;
/// A dynamic payload type (RFC 3551 3).
const PAYLOAD_TYPE: u8 = 96;
/// The marker bit: requests a report at once.
const MARKER: u8 = 0x80;
/// First byte of an RTCP packet: version 2, subtype 1.
const RTCP_FIRST: u8 = VERSION | 1;
/// Application-defined RTCP (RFC 3550 6.7).
const RTCP_TYPE: u8 = 204;
/// Flag of the SRTCP index: the packet is encrypted (RFC 3711 3.4).
const ENCRYPTED: u32 = 1 << 31;
/// Highest index of RTP.
const LAST_INDEX: u64 = (1 << INDEX_BITS) - 1;
/// Distance within which a packet counts as recent: a second at the highest rates.
pub(crate) const LATELY: u64 = 1 << 18;
/// Words of 64 packets in the data replay window: 65,472 packets, 10 ms at high rates. Chosen.
const RTP_WINDOW: usize = 1_024;
/// Words of 64 packets in the replay window of reports: 960 packets. Chosen.
const RTCP_WINDOW: usize = 16;

/// Reason of a drop; names its counter.
pub(crate) type Drop = DropReason;
pub(crate) const MALFORMED: Drop = DropReason::MediaMalformed;
pub(crate) const REPLAYED: Drop = DropReason::MediaReplayed;
pub(crate) const FORGED: Drop = DropReason::MediaForged;

pub(crate) struct Sealer {
    rtp: Cipher,
    rtcp: Cipher,
    ssrc: u32,
    next: u64,
    next_rtcp: u32,
}

/// Opens packets of the other direction.
pub(crate) struct Opener {
    rtp: Cipher,
    rtcp: Cipher,
    ssrc: u32,
    seen: ReplayWindow,
    seen_rtcp: ReplayWindow,
}

struct Cipher {
    key: LessSafeKey,
    salt: [u8; NONCE_LEN],
}

/// Whether a datagram of the media range is RTCP (RFC 5761, section 4).
pub(crate) fn is_rtcp(datagram: &[u8]) -> bool {
    matches!(datagram.get(1), Some(192..=223))
}

pub(crate) fn ssrc_of(datagram: &[u8]) -> Option<u32> {
    let at = if is_rtcp(datagram) { 4 } else { 8 };
    Some(u32::from_be_bytes(*datagram.get(at..)?.first_chunk()?))
}

impl Cipher {
    fn new(key: &[u8; 16], salt: &[u8; 12]) -> Result<Self, Unspecified> {
        let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key)?);
        Ok(Self { key, salt: *salt })
    }

    /// Returns the nonce (RFC 7714, sections 8.1 and 9.1), with one layout of SSRC and index.
    fn nonce(&self, ssrc: u32, index: u64) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[2..6].copy_from_slice(&ssrc.to_be_bytes());
        nonce[6..].copy_from_slice(&index.to_be_bytes()[2..]);
        nonce.iter_mut().zip(self.salt).for_each(|(n, s)| *n ^= s);
        Nonce::assume_unique_for_key(nonce)
    }
}

impl Sealer {
    pub(crate) fn new(keys: &SessionKeys) -> Result<Self, Unspecified> {
        Ok(Self {
            rtp: Cipher::new(&keys.rtp_key, &keys.rtp_salt)?,
            rtcp: Cipher::new(&keys.rtcp_key, &keys.rtcp_salt)?,
            ssrc: keys.ssrc,
            next: 0,
            next_rtcp: 0,
        })
    }

    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Seals `packet`, which has room for the RTP header, then the payload; appends the tag.
    /// `marker` requests a report. Returns the index, or `None` if all are used.
    pub(crate) fn seal(&mut self, packet: &mut BytesMut, marker: bool) -> Option<u64> {
        let index = self.next;
        if index > LAST_INDEX {
            return None;
        }
        let [.., t3, t2, t1, t0] = index.to_be_bytes();
        let [s3, s2, s1, s0] = self.ssrc.to_be_bytes();
        let header = [
            VERSION,
            PAYLOAD_TYPE | if marker { MARKER } else { 0 },
            t1,
            t0,
            t3,
            t2,
            t1,
            t0,
            s3,
            s2,
            s1,
            s0,
        ];
        packet
            .get_mut(..RTP_HEADER)?
            .copy_from_slice(header.as_slice());
        let nonce = self.rtp.nonce(self.ssrc, index);
        let tag = self
            .rtp
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(header), &mut packet[RTP_HEADER..])
            .ok()?;
        packet.put_slice(tag.as_ref());
        self.next = index + 1;
        Some(index)
    }

    /// Whether an RTP packet with these first bytes was among the last [`LATELY`].
    pub(crate) fn has_sent(&self, start: &[u8]) -> bool {
        let Some([VERSION, _, q1, q0, t3, t2, t1, t0, ssrc @ ..]) =
            start.first_chunk::<RTP_HEADER>()
        else {
            return false;
        };
        let low = u32::from_be_bytes([*t3, *t2, *t1, *t0]);
        let index = extend(low, u32::BITS, self.next);
        u32::from_be_bytes(*ssrc) == self.ssrc
            && (q1, q0) == (t1, t0)
            && (index + 1..=index + LATELY).contains(&self.next)
    }

    /// Seals RTCP: room for the header, then a payload of a multiple of four bytes.
    pub(crate) fn seal_rtcp(&mut self, packet: &mut BytesMut) -> Option<()> {
        if self.next_rtcp >= ENCRYPTED {
            return None;
        }
        let words = u16::try_from(packet.len() / 4).ok()?.checked_sub(1)?;
        let trailer = (self.next_rtcp | ENCRYPTED).to_be_bytes();
        let header = packet.get_mut(..RTCP_HEADER)?;
        header[..2].copy_from_slice(&[RTCP_FIRST, RTCP_TYPE]);
        header[2..4].copy_from_slice(&words.to_be_bytes());
        header[4..].copy_from_slice(&self.ssrc.to_be_bytes());
        let aad = rtcp_aad(header, trailer)?;
        let nonce = self.rtcp.nonce(self.ssrc, u64::from(self.next_rtcp));
        let body = &mut packet[RTCP_HEADER..];
        let tag = self
            .rtcp
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(aad), body)
            .ok()?;
        packet.put_slice(tag.as_ref());
        packet.put_slice(&trailer);
        self.next_rtcp += 1;
        Some(())
    }
}

impl Opener {
    pub(crate) fn new(keys: &SessionKeys) -> Result<Self, Unspecified> {
        Ok(Self {
            rtp: Cipher::new(&keys.rtp_key, &keys.rtp_salt)?,
            rtcp: Cipher::new(&keys.rtcp_key, &keys.rtcp_salt)?,
            ssrc: keys.ssrc,
            seen: ReplayWindow::new(RTP_WINDOW),
            seen_rtcp: ReplayWindow::new(RTCP_WINDOW),
        })
    }

    pub(crate) fn seen(&self) -> &ReplayWindow {
        &self.seen
    }

    /// Opens an RTP packet into the empty `payload`; returns its index, and its marker.
    pub(crate) fn open(
        &mut self,
        packet: &[u8],
        payload: &mut BytesMut,
    ) -> Result<(u64, bool), Drop> {
        let (header, body) = packet.split_first_chunk::<RTP_HEADER>().ok_or(MALFORMED)?;
        let [first, second, q1, q0, t3, t2, t1, t0, ssrc @ ..] = *header;
        let plain = first == VERSION && second & !MARKER == PAYLOAD_TYPE && [q1, q0] == [t1, t0];
        if !plain || u32::from_be_bytes(ssrc) != self.ssrc {
            return Err(MALFORMED);
        }
        let low = u32::from_be_bytes([t3, t2, t1, t0]);
        let index = extend(low, u32::BITS, self.seen.highest().unwrap_or(0));
        if !self.seen.is_new(index) {
            return Err(REPLAYED);
        }
        let nonce = self.rtp.nonce(self.ssrc, index);
        open(&self.rtp.key, nonce, header, body, payload)?;
        self.seen.mark(index);
        Ok((index, second & MARKER != 0))
    }

    /// Opens an RTCP packet into the empty `payload`.
    pub(crate) fn open_rtcp(&mut self, packet: &[u8], payload: &mut BytesMut) -> Result<(), Drop> {
        let (packet, trailer) = packet.split_last_chunk::<RTCP_TRAILER>().ok_or(MALFORMED)?;
        let (header, body) = packet.split_first_chunk::<RTCP_HEADER>().ok_or(MALFORMED)?;
        let word = u32::from_be_bytes(*trailer);
        let [first, second, _, _, ssrc @ ..] = *header;
        let plain = first == RTCP_FIRST && second == RTCP_TYPE && word & ENCRYPTED != 0;
        if !plain || u32::from_be_bytes(ssrc) != self.ssrc {
            return Err(MALFORMED);
        }
        let index = u64::from(word & !ENCRYPTED);
        if !self.seen_rtcp.is_new(index) {
            return Err(REPLAYED);
        }
        let aad = rtcp_aad(header, *trailer).ok_or(MALFORMED)?;
        let nonce = self.rtcp.nonce(self.ssrc, index);
        open(&self.rtcp.key, nonce, &aad, body, payload)?;
        self.seen_rtcp.mark(index);
        Ok(())
    }
}

fn open(
    key: &LessSafeKey,
    nonce: Nonce,
    aad: &[u8],
    body: &[u8],
    payload: &mut BytesMut,
) -> Result<(), Drop> {
    let size = body.len().checked_sub(TAG).ok_or(MALFORMED)?;
    payload.extend_from_slice(&body[..size]);
    key.open_in_place_separate_tag(nonce, Aad::from(aad), &body[size..], payload)
        .map_err(|_| FORGED)?;
    Ok(())
}

/// Returns header and index word (RFC 7714, section 9.2).
fn rtcp_aad(header: &[u8], trailer: [u8; RTCP_TRAILER]) -> Option<[u8; 12]> {
    let mut aad = [0; 12];
    aad[..RTCP_HEADER].copy_from_slice(header.get(..RTCP_HEADER)?);
    aad[RTCP_HEADER..].copy_from_slice(&trailer);
    Some(aad)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::keys::MasterKey;
    use proptest::prelude::*;
    use rtc::crypto::default_provider;
    use rtc::srtp::context::Context;
    use rtc::srtp::protection_profile::ProtectionProfile;

    fn master() -> MasterKey {
        MasterKey {
            key: [3; 16],
            salt: [5; 12],
        }
    }

    fn pair() -> (Sealer, Opener) {
        let keys = master()
            .session(default_provider().unwrap().crypto())
            .unwrap();
        (Sealer::new(&keys).unwrap(), Opener::new(&keys).unwrap())
    }

    fn packet(room: usize, payload: &[u8]) -> BytesMut {
        let mut packet = BytesMut::zeroed(room);
        packet.extend_from_slice(payload);
        packet
    }

    fn sealed(sealer: &mut Sealer, payload: &[u8]) -> BytesMut {
        let mut packet = packet(RTP_HEADER, payload);
        sealer.seal(&mut packet, false).unwrap();
        packet
    }

    fn opened(opener: &mut Opener, packet: &[u8]) -> Result<(u64, Vec<u8>), Drop> {
        let mut payload = BytesMut::new();
        let (index, marker) = opener.open(packet, &mut payload)?;
        assert!(!marker);
        Ok((index, payload.to_vec()))
    }

    /// RFC 7714, section 16.1.1.
    #[test]
    fn a_packet_is_sealed_as_in_the_rfc() {
        let key: [u8; 16] = std::array::from_fn(|i| i as u8);
        let cipher = Cipher::new(&key, b"Quid pro quo").unwrap();
        let header = [
            0x80, 0x40, 0xf1, 0x7b, 0x80, 0x41, 0xf8, 0xd3, 0x55, 0x01, 0xa0, 0xb2,
        ];
        let mut body = *b"Gallia est omnis divisa in partes tres";
        let nonce = cipher.nonce(0x5501_a0b2, 0xf17b);
        let tag = cipher
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(header), &mut body)
            .unwrap();
        assert_eq!(body[..6], [0xf2, 0x4d, 0xe3, 0xa3, 0xfb, 0x34]);
        assert_eq!(tag.as_ref()[12..], [0xe4, 0x39, 0x0c, 0xce][..]);
    }

    #[test]
    fn the_stacks_own_srtp_opens_our_packets() {
        let provider = default_provider().unwrap();
        let profile = ProtectionProfile::AeadAes128Gcm;
        let MasterKey { key, salt } = &master();
        let mut theirs = Context::new(key, salt, profile, None, None, provider.crypto()).unwrap();
        let (mut sealer, _) = pair();
        for n in 0..70_000_u32 {
            let packet = sealed(&mut sealer, &n.to_be_bytes());
            if n % 1_000 == 0 || (65_530..65_540).contains(&n) {
                let plain = theirs.decrypt_rtp(&packet).unwrap();
                assert_eq!(plain[RTP_HEADER..], n.to_be_bytes());
            }
        }
        let mut marked = packet(RTP_HEADER, b"m");
        sealer.seal(&mut marked, true).unwrap();
        assert_eq!(theirs.decrypt_rtp(&marked).unwrap()[RTP_HEADER..], *b"m");
        let mut report = packet(RTCP_HEADER, b"lcfbabcd");
        sealer.seal_rtcp(&mut report).unwrap();
        let plain = theirs.decrypt_rtcp(&report).unwrap();
        assert_eq!(plain[RTCP_HEADER..], *b"lcfbabcd");
        assert_eq!(plain[2..4], [0, 3]);
    }

    #[test]
    fn each_packet_opens_once_in_any_order() {
        let (mut sealer, mut opener) = pair();
        let packets: Vec<_> = (0..100).map(|n| sealed(&mut sealer, &[n])).collect();
        for n in (0..100).rev() {
            assert_eq!(
                opened(&mut opener, &packets[n]),
                Ok((n as u64, vec![n as u8]))
            );
            assert_eq!(opened(&mut opener, &packets[n]), Err(REPLAYED));
        }
    }

    #[test]
    fn an_outage_of_any_length_is_survived() {
        let (mut sealer, mut opener) = pair();
        opened(&mut opener, &sealed(&mut sealer, b"a")).unwrap();
        for next in [100_000, 1 << 31, (1 << 32) + 5, (1 << 33) - 1, LAST_INDEX] {
            // within half of 2^32 packets: 35 minutes at a million a second
            let steps = (next - sealer.next) >> 30;
            for _ in 0..steps {
                sealer.next += 1 << 30;
                opened(&mut opener, &sealed(&mut sealer, b"b")).unwrap();
                if sealer.next > 1 << 36 {
                    break;
                }
            }
            if next < 1 << 36 {
                sealer.next = next;
                assert_eq!(
                    opened(&mut opener, &sealed(&mut sealer, b"c")).unwrap().0,
                    next
                );
            }
        }
    }

    #[test]
    fn what_was_sent_lately_is_known_by_its_first_bytes() {
        let (mut sealer, _) = pair();
        sealer.next = (1 << 32) - 3;
        let packets: Vec<_> = (0..6).map(|n| sealed(&mut sealer, &[n])).collect();
        for packet in &packets {
            assert!(sealer.has_sent(packet) && sealer.has_sent(&packet[..RTP_HEADER]));
            assert!(!sealer.has_sent(&packet[..RTP_HEADER - 1]));
            for at in (0..RTP_HEADER).filter(|at| *at != 1) {
                let mut guessed = packet.clone();
                guessed[at] ^= 0x40;
                assert!(!sealer.has_sent(&guessed), "byte {at}");
            }
        }
        let (mut other, _) = pair();
        other.next = sealer.next;
        assert!(!sealer.has_sent(&sealed(&mut other, b"not sent yet")));
        sealer.next += LATELY;
        assert!(!sealer.has_sent(&packets[5]), "long ago");
    }

    #[test]
    fn the_last_index_is_the_end() {
        let (mut sealer, _) = pair();
        sealer.next = LAST_INDEX;
        assert!(sealer.seal(&mut packet(RTP_HEADER, b"x"), true).is_some());
        assert!(sealer.seal(&mut packet(RTP_HEADER, b"x"), true).is_none());
    }

    #[test]
    fn feedback_opens_once() {
        let (mut sealer, mut opener) = pair();
        let mut report = packet(RTCP_HEADER, b"12345678");
        sealer.seal_rtcp(&mut report).unwrap();
        assert!(is_rtcp(&report) && ssrc_of(&report) == Some(sealer.ssrc));
        let mut payload = BytesMut::new();
        opener.open_rtcp(&report, &mut payload).unwrap();
        assert_eq!(payload[..], *b"12345678");
        assert_eq!(
            opener.open_rtcp(&report, &mut BytesMut::new()),
            Err(REPLAYED)
        );
    }

    proptest! {
        #[test]
        fn a_changed_byte_is_noticed(size in 0_usize..64, at: prop::sample::Index, by in 1_u8..) {
            let (mut sealer, mut opener) = pair();
            let good = sealed(&mut sealer, &vec![7; size]);
            let mut bad = good.clone();
            bad[at.index(good.len())] ^= by;
            prop_assert!(opened(&mut opener, &bad).is_err());
            prop_assert!(opened(&mut opener, &good).is_ok(), "a forgery spoils nothing");
            let mut good = packet(RTCP_HEADER, b"12345678");
            sealer.seal_rtcp(&mut good).unwrap();
            let mut bad = good.clone();
            // the length field is not read, but authenticated
            bad[at.index(good.len())] ^= by;
            prop_assert!(opener.open_rtcp(&bad, &mut BytesMut::new()).is_err());
            prop_assert!(opener.open_rtcp(&good, &mut BytesMut::new()).is_ok());
        }

        #[test]
        fn arbitrary_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let (_, mut opener) = pair();
            prop_assert!(opener.open(&bytes, &mut BytesMut::new()).is_err());
            prop_assert!(opener.open_rtcp(&bytes, &mut BytesMut::new()).is_err());
        }

        #[test]
        fn the_nearest_index_is_meant(highest in 0_u64..1 << 47, ahead in -(1_i64 << 30)..1 << 30) {
            let index = highest.saturating_add_signed(ahead);
            prop_assert_eq!(extend(index as u32, u32::BITS, highest), index);
        }
    }
}
