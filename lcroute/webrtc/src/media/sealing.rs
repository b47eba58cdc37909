//! Sealing of packets that leave: SRTP of the lane between hosts, or of a track into a page.
//!
//! A browser opens a track's packets by the profile that DTLS has negotiated, and shows the page
//! payload and timestamp. So a timestamp has the index, and the marker (lcroute-lane, track.rs).

use bytes::BytesMut;
use lcroute_lane::{INDEX_BITS, extend, track_timestamp};
use lcroute_overlay::TRACK_SSRC;
use rtc::crypto::RTCCrypto;
use rtc::srtp::context::Context;

use super::keys::{SessionKeys, TrackKeys};
use super::srtp::{LATELY, RTP_HEADER, Sealer, VERSION};

/// Seals packets of one direction.
pub(crate) enum Sealing {
    Lane(Sealer),
    Track(Box<TrackSealer>),
}

/// Seals packets for a browser.
pub(crate) struct TrackSealer {
    context: Context,
    payload_type: u8,
    next: u64,
}

impl Sealing {
    pub(crate) fn lane(keys: &SessionKeys) -> Option<Self> {
        Some(Self::Lane(Sealer::new(keys).ok()?))
    }

    pub(crate) fn track(
        keys: &TrackKeys,
        payload_type: u8,
        crypto: &dyn RTCCrypto,
    ) -> Option<Self> {
        let (key, salt) = (&keys.key, &keys.salt);
        let context = Context::new(key, salt, keys.profile, None, None, crypto).ok()?;
        let track = TrackSealer {
            context,
            payload_type,
            next: 0,
        };
        Some(Self::Track(Box::new(track)))
    }

    pub(crate) fn next(&self) -> u64 {
        match self {
            Self::Lane(lane) => lane.next(),
            Self::Track(track) => track.next,
        }
    }

    /// Seals `packet`, which has room for the RTP header, then the payload; appends the tag.
    /// `marker` requests a report. Returns the index, or `None` if all are used.
    pub(crate) fn seal(&mut self, packet: &mut BytesMut, marker: bool) -> Option<u64> {
        match self {
            Self::Lane(lane) => lane.seal(packet, marker),
            Self::Track(track) => track.seal(packet, marker),
        }
    }

    /// Seals RTCP; a track has none of ours.
    pub(crate) fn seal_rtcp(&mut self, packet: &mut BytesMut) -> Option<()> {
        match self {
            Self::Lane(lane) => lane.seal_rtcp(packet),
            Self::Track(_) => None,
        }
    }

    /// Whether an RTP packet with these first bytes was sent lately.
    pub(crate) fn has_sent(&self, start: &[u8]) -> bool {
        match self {
            Self::Lane(lane) => lane.has_sent(start),
            Self::Track(track) => track.has_sent(start),
        }
    }
}

impl TrackSealer {
    fn seal(&mut self, packet: &mut BytesMut, marker: bool) -> Option<u64> {
        let index = self.next;
        if index >> INDEX_BITS != 0 {
            return None;
        }
        let header = packet.get_mut(..RTP_HEADER)?;
        header[..2].copy_from_slice(&[VERSION, self.payload_type]);
        // the low bits
        header[2..4].copy_from_slice(&(index as u16).to_be_bytes());
        header[4..8].copy_from_slice(&track_timestamp(index, marker).to_be_bytes());
        header[8..].copy_from_slice(&TRACK_SSRC.to_be_bytes());
        let sealed = self.context.encrypt_rtp(packet).ok()?;
        packet.clear();
        packet.extend_from_slice(&sealed);
        self.next = index + 1;
        Some(index)
    }

    fn has_sent(&self, start: &[u8]) -> bool {
        let Some([VERSION, _, q1, q0, _, _, _, _, ssrc @ ..]) = start.first_chunk::<RTP_HEADER>()
        else {
            return false;
        };
        let index = extend(u16::from_be_bytes([*q1, *q0]).into(), u16::BITS, self.next);
        let timestamps = [false, true].map(|marker| track_timestamp(index, marker).to_be_bytes());
        u32::from_be_bytes(*ssrc) == TRACK_SSRC
            && timestamps.iter().any(|timestamp| start[4..8] == *timestamp)
            && (index + 1..=index + LATELY).contains(&self.next)
    }
}

#[cfg(test)]
mod tests {
    use rtc::crypto::default_provider;
    use rtc::srtp::protection_profile::ProtectionProfile;

    use super::*;

    #[test]
    fn a_browser_opens_packets_by_any_profile() {
        let provider = default_provider().unwrap();
        let crypto = provider.crypto();
        for (profile, key, salt) in [
            (ProtectionProfile::AeadAes128Gcm, 16, 12),
            (ProtectionProfile::AeadAes256Gcm, 32, 12),
            (ProtectionProfile::Aes128CmHmacSha1_80, 16, 14),
        ] {
            let keys = TrackKeys {
                profile,
                key: vec![7; key],
                salt: vec![9; salt],
            };
            let mut track = Sealing::track(&keys, 111, crypto).unwrap();
            let (key, salt) = (&keys.key, &keys.salt);
            let mut browser = Context::new(key, salt, profile, None, None, crypto).unwrap();
            for index in 0..70_000_u32 {
                let mut packet = BytesMut::zeroed(RTP_HEADER);
                packet.extend_from_slice(&index.to_be_bytes());
                let marker = index % 3 == 0;
                assert_eq!(track.seal(&mut packet, marker), Some(index.into()));
                if index % 1_000 != 0 && !(65_530..65_540).contains(&index) {
                    continue;
                }
                let plain = browser.decrypt_rtp(&packet).unwrap();
                assert_eq!(plain[..2], [0x80, 111]);
                assert_eq!(plain[2..4], index.to_be_bytes()[2..]);
                let timestamp = index << 1 | u32::from(marker);
                assert_eq!(plain[4..8], timestamp.to_be_bytes());
                assert_eq!(plain[RTP_HEADER..], index.to_be_bytes());
                assert!(track.has_sent(&packet[..RTP_HEADER]));
                packet[3] ^= 1;
                assert!(!track.has_sent(&packet));
            }
            assert!(track.seal_rtcp(&mut BytesMut::zeroed(16)).is_none());
        }
    }
}
