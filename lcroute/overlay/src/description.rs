//! One end's ICE and DTLS parameters for the other end: the few facts of an SDP, in binary.
//!
//! The text of an SDP never crosses the network: [`Description::to_sdp`] writes it from these
//! fields, so the SDP parser of the WebRTC stack reads only text that this file wrote.
//!
//! ```text
//! ufrag (u8 length, text) | pwd (u8 length, text) | SHA-256 of the DTLS certificate 32
//! | lanes u8 (bit 0: /lcroute/media/1, bit 1: control messages in it, bit 2: as a track into a
//!   page, bits 3 to 7: the track's RTP payload type less 96)
//! | count u8 | count x { kind u8 (0 host, 1 srflx, 2 relay, 3 mapped) | family u8 (4, 6)
//!                        | address 4 or 16 | port 16 }
//! ```

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use librecast::id::{NetworkId, network_prefix};
use librecast::wire::{Reader, WireError, Writer};

pub(crate) const MAX_CANDIDATES: usize = 16;

/// Bit of `lanes`: the media lane.
const MEDIA: u8 = 1;
/// Bit of `lanes`: control messages in it.
const LANE_CONTROL: u8 = 2;
/// Bit of `lanes`: the media lane as a track into a page.
const TRACK: u8 = 4;
/// The first bit of the track's payload type in `lanes`.
const TRACK_TYPE_SHIFT: u32 = 3;
/// Payload types of tracks: the dynamic ones (RFC 3551, section 6).
pub const TRACK_TYPES: std::ops::RangeInclusive<u8> = 96..=127;
/// SSRC of a track. Each link has other keys, so all can have the same.
pub const TRACK_SSRC: u32 = 1_818_456_692;
/// The lines of a section by which a host sends its track.
const TRACK_LINES: &str = "a=sendonly\r\na=msid:lane lane\r\na=ssrc:1818456692 cname:lane\r\n";

/// SHA-256 of a DTLS certificate.
pub type Fingerprint = [u8; 32];

/// The origin of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CandidateKind {
    /// An address of the host itself.
    Host = 0,
    /// The address that a STUN server saw.
    ServerReflexive = 1,
    /// An address of a relay (TURN) that forwards to the host.
    Relayed = 2,
    /// An address that the host's router maps to it on request (port mapping).
    Mapped = 3,
}

/// An address at which a node may be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// Its origin.
    pub kind: CandidateKind,
    /// Address and port.
    pub addr: SocketAddr,
}

/// The kind of an SDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SdpKind {
    /// SDP of the smaller PeerId.
    Offer,
    /// SDP of the larger PeerId.
    Answer,
}

/// One end of a link, before it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// ICE user fragment: 4 to 256 characters of RFC 8839, section 5.4.
    pub ufrag: String,
    /// ICE password: 22 to 256 characters.
    pub pwd: String,
    /// Fingerprint of the DTLS certificate.
    pub fingerprint: Fingerprint,
    /// Whether the end supports `/lcroute/media/1`.
    pub media: bool,
    /// Whether the end accepts control messages there.
    pub lane_control: bool,
    /// RTP payload type of the media lane as a track into a page, of [`TRACK_TYPES`]: hosts send it,
    /// pages receive it. Pages have no other lane.
    pub track: Option<u8>,
    /// At most 16 candidates.
    pub candidates: Vec<Candidate>,
}

impl Candidate {
    /// Returns an attribute value of SDP (RFC 8839, section 5.1); `rank` orders one kind's
    /// candidates.
    #[must_use]
    pub fn to_attribute(self, rank: usize) -> String {
        let (name, preference) = match self.kind {
            CandidateKind::Host => ("host", 126_u32),
            CandidateKind::ServerReflexive => ("srflx", 100),
            // to ICE it is server-reflexive; unlike such an address it accepts datagrams from any
            // host
            CandidateKind::Mapped => ("srflx", 110),
            CandidateKind::Relayed => ("relay", 0),
        };
        let rank = u32::try_from(rank).unwrap_or(u32::MAX).min(65_535);
        let priority = (preference << 24) | ((65_535 - rank) << 8) | 255;
        let (ip, port) = (self.addr.ip(), self.addr.port());
        let related = match (self.kind, ip) {
            (CandidateKind::Host, _) => "",
            (_, IpAddr::V4(_)) => " raddr 0.0.0.0 rport 0",
            (_, IpAddr::V6(_)) => " raddr :: rport 0",
        };
        format!("candidate:{rank} 1 udp {priority} {ip} {port} typ {name}{related}")
    }

    pub(crate) fn write(self, w: &mut Writer) {
        w.u8(self.kind as u8);
        match self.addr.ip() {
            IpAddr::V4(ip) => w.u8(4).put(&ip.octets()),
            IpAddr::V6(ip) => w.u8(6).ipv6(ip),
        };
        w.u16(self.addr.port());
    }

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let kind = match r.u8()? {
            0 => CandidateKind::Host,
            1 => CandidateKind::ServerReflexive,
            2 => CandidateKind::Relayed,
            3 => CandidateKind::Mapped,
            _ => return Err(WireError::Bad("candidate kind")),
        };
        let ip = match r.u8()? {
            4 => IpAddr::V4(Ipv4Addr::from(r.array::<4>()?)),
            6 => IpAddr::V6(r.ipv6()?),
            _ => return Err(WireError::Bad("candidate family")),
        };
        let port = r.u16()?;
        // a description must not cause checks to groups, broadcast or unspecified addresses
        let never =
            ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST);
        let mapped = matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
        if never || mapped || port == 0 {
            return Err(WireError::Bad("candidate address"));
        }
        Ok(Self {
            kind,
            addr: SocketAddr::new(ip, port),
        })
    }
}

/// Removes addresses of the network itself: a link over them would lead through itself.
pub(crate) fn keep_outside(candidates: &mut Vec<Candidate>, network: &NetworkId) {
    let prefix = network_prefix(network);
    let is_inside = |ip| matches!(ip, IpAddr::V6(ip) if ip.octets().starts_with(&prefix));
    candidates.retain(|candidate| !is_inside(candidate.addr.ip()));
}

/// Writes the number of candidates, and the candidates; those beyond the bound are left out.
pub(crate) fn write_candidates(candidates: &[Candidate], w: &mut Writer) {
    let candidates = &candidates[..candidates.len().min(MAX_CANDIDATES)];
    w.u8(candidates.len() as u8);
    candidates.iter().for_each(|c| c.write(w));
}

pub(crate) fn read_candidates(r: &mut Reader<'_>) -> Result<Vec<Candidate>, WireError> {
    let count = usize::from(r.u8()?);
    if count > MAX_CANDIDATES {
        return Err(WireError::Bad("candidate count"));
    }
    (0..count).map(|_| Candidate::read(r)).collect()
}

impl Description {
    pub(crate) fn outside(mut self, network: &NetworkId) -> Self {
        keep_outside(&mut self.candidates, network);
        self
    }

    pub(crate) fn write(&self, w: &mut Writer) -> Result<(), WireError> {
        let bits = [(self.media, MEDIA), (self.lane_control, LANE_CONTROL)];
        let lanes = bits.into_iter().filter(|(set, _)| *set);
        let lanes = lanes.fold(0, |lanes, (_, bit)| lanes | bit);
        let track = self.track.filter(|kind| TRACK_TYPES.contains(kind));
        let track = track.map_or(0, |kind| {
            TRACK | (kind - TRACK_TYPES.start()) << TRACK_TYPE_SHIFT
        });
        w.text8(&self.ufrag)?
            .text8(&self.pwd)?
            .put(&self.fingerprint)
            .u8(lanes | track);
        write_candidates(&self.candidates, w);
        Ok(())
    }

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let ufrag = ice_chars(r.text8()?, 4)?;
        let pwd = ice_chars(r.text8()?, 22)?;
        let fingerprint = r.array()?;
        let lanes = r.u8()?;
        let (media, lane_control) = (lanes & MEDIA != 0, lanes & LANE_CONTROL != 0);
        let kind = TRACK_TYPES.start() + (lanes >> TRACK_TYPE_SHIFT);
        let track = (lanes & TRACK != 0).then_some(kind);
        let candidates = read_candidates(r)?;
        Ok(Self {
            ufrag,
            pwd,
            fingerprint,
            media,
            lane_control,
            track,
            candidates,
        })
    }

    /// Returns the SDP (RFC 8841) that the description stands for, without a track.
    #[must_use]
    pub fn to_sdp(&self, kind: SdpKind) -> String {
        self.to_sections(kind, &[Section::new("0", None)])
    }

    /// Returns the SDP for a browser, with these sections in their order.
    #[must_use]
    pub fn to_sections(&self, kind: SdpKind, sections: &[Section]) -> String {
        let setup = match kind {
            SdpKind::Offer => "actpass",
            SdpKind::Answer => "active",
        };
        let fingerprint = colon_hex(&self.fingerprint);
        let mids: Vec<_> = sections.iter().map(|section| &section.mid[..]).collect();
        let mut sdp = format!(
            "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=fingerprint:sha-256 {fingerprint}\r\n\
             a=group:BUNDLE {}\r\n",
            mids.join(" ")
        );
        // writing to a String cannot fail
        for (n, section) in sections.iter().enumerate() {
            let _ = match section.track {
                None => write!(
                    sdp,
                    "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\n\
                     a=setup:{setup}\r\na=mid:{}\r\na=sendrecv\r\na=sctp-port:5000\r\n\
                     a=max-message-size:65536\r\n",
                    section.mid
                ),
                // Opus: a browser passes each packet on by itself
                Some(kind) => write!(
                    sdp,
                    "m=audio 9 UDP/TLS/RTP/SAVPF {kind}\r\nc=IN IP4 0.0.0.0\r\n\
                     a=setup:{setup}\r\na=mid:{}\r\na=rtcp-mux\r\na=rtpmap:{kind} opus/48000/2\r\n",
                    section.mid
                ),
            };
            sdp += match (section.track, self.track) {
                (None, _) => "",
                (Some(_), None) => "a=inactive\r\n",
                (Some(_), Some(_)) => TRACK_LINES,
            };
            let _ = write!(
                sdp,
                "a=ice-ufrag:{}\r\na=ice-pwd:{}\r\n",
                self.ufrag, self.pwd
            );
            // the sections share one transport
            let candidates = if n == 0 { &self.candidates[..] } else { &[] };
            for (rank, candidate) in candidates.iter().enumerate() {
                let _ = write!(sdp, "a={}\r\n", candidate.to_attribute(rank));
            }
        }
        sdp
    }
}

/// A section of a browser's SDP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Its identification (RFC 5888).
    pub mid: String,
    /// Payload type of a track; `None`: the section of the data channels.
    pub track: Option<u8>,
}

impl Section {
    /// Makes a section.
    #[must_use]
    pub fn new(mid: &str, track: Option<u8>) -> Self {
        let mid = mid.to_owned();
        Self { mid, track }
    }
}

/// Returns ICE user fragment and password of an SDP that this node's own stack wrote.
#[must_use]
pub fn credentials_of(sdp: &str) -> Option<(String, String)> {
    let find = |name: &str| sdp.lines().find_map(|l| l.trim_end().strip_prefix(name));
    Some((
        find("a=ice-ufrag:")?.to_owned(),
        find("a=ice-pwd:")?.to_owned(),
    ))
}

/// Checks RFC 8839, section 5.4: letters, digits, `+` and `/`, from `least` to 256 characters.
fn ice_chars(text: &str, least: usize) -> Result<String, WireError> {
    let ok = text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/');
    if ok && text.len() >= least {
        Ok(text.to_owned())
    } else {
        Err(WireError::Bad("credentials"))
    }
}

fn colon_hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|b| format!("{b:02X}"))
        .collect::<Vec<_>>()
        .join(":")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn description() -> impl Strategy<Value = Description> {
        let candidate = (
            0..4_usize,
            any::<std::net::Ipv6Addr>(),
            any::<Ipv4Addr>(),
            1_u16..,
            any::<bool>(),
        )
            .prop_filter_map("never sent", |(kind, v6, v4, port, six)| {
                let ip = if six { IpAddr::V6(v6) } else { IpAddr::V4(v4) };
                let mapped = matches!(ip, IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some());
                let kind = [
                    CandidateKind::Host,
                    CandidateKind::ServerReflexive,
                    CandidateKind::Relayed,
                    CandidateKind::Mapped,
                ][kind];
                (!mapped && !ip.is_multicast() && !ip.is_unspecified() && v4 != Ipv4Addr::BROADCAST)
                    .then(|| Candidate {
                        kind,
                        addr: SocketAddr::new(ip, port),
                    })
            });
        (
            "[a-zA-Z0-9+/]{4,32}",
            "[a-zA-Z0-9+/]{22,64}",
            any::<[u8; 32]>(),
            (any::<[bool; 2]>(), prop::option::of(TRACK_TYPES)),
            prop::collection::vec(candidate, 0..=16),
        )
            .prop_map(|(ufrag, pwd, fingerprint, (lanes, track), candidates)| {
                Description {
                    ufrag,
                    pwd,
                    fingerprint,
                    media: lanes[0],
                    lane_control: lanes[1],
                    track,
                    candidates,
                }
            })
    }

    proptest! {
        #[test]
        fn description_comes_back(d in description()) {
            let mut w = Writer::new();
            d.write(&mut w).unwrap();
            let bytes = w.into_vec();
            let mut r = Reader::new(&bytes);
            prop_assert_eq!(Description::read(&mut r).unwrap(), d);
            prop_assert!(r.is_empty());
        }

        #[test]
        fn arbitrary_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let _ = Description::read(&mut Reader::new(&bytes));
        }
    }

    #[test]
    fn kinds_have_these_bytes_and_ranks() {
        for (kind, byte, says) in [
            (CandidateKind::Host, 0, "2130706175 192.0.2.7 9 typ host"),
            (
                CandidateKind::ServerReflexive,
                1,
                "1694498559 192.0.2.7 9 typ srflx raddr 0.0.0.0 rport 0",
            ),
            (
                CandidateKind::Relayed,
                2,
                "16776959 192.0.2.7 9 typ relay raddr 0.0.0.0 rport 0",
            ),
            (
                CandidateKind::Mapped,
                3,
                "1862270719 192.0.2.7 9 typ srflx raddr 0.0.0.0 rport 0",
            ),
        ] {
            let addr = "192.0.2.7:9".parse().unwrap();
            let candidate = Candidate { kind, addr };
            let mut w = Writer::new();
            candidate.write(&mut w);
            assert_eq!(w.as_slice(), [byte, 4, 192, 0, 2, 7, 0, 9]);
            assert_eq!(
                Candidate::read(&mut Reader::new(w.as_slice())),
                Ok(candidate)
            );
            let attribute = candidate.to_attribute(1);
            assert_eq!(attribute, format!("candidate:1 1 udp {says}"));
        }
        let unknown = [4, 4, 192, 0, 2, 7, 0, 9];
        assert!(Candidate::read(&mut Reader::new(&unknown)).is_err());
    }

    #[test]
    fn the_track_is_sent_inactive_or_left_out() {
        let mut description = Description {
            ufrag: "abcd".into(),
            pwd: "p".repeat(22),
            fingerprint: [0; 32],
            media: false,
            lane_control: false,
            track: Some(111),
            candidates: vec![Candidate {
                kind: CandidateKind::Host,
                addr: "192.0.2.7:9".parse().unwrap(),
            }],
        };
        let both = [Section::new("0", Some(109)), Section::new("1", None)];
        let sdp = description.to_sections(SdpKind::Answer, &both);
        assert!(sdp.contains("a=group:BUNDLE 0 1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 109\r\n"));
        assert!(sdp.contains(&format!(
            "a=sendonly\r\na=msid:lane lane\r\na=ssrc:{TRACK_SSRC} "
        )));
        assert_eq!(sdp.matches("a=candidate:").count(), 1);
        assert!(!description.to_sdp(SdpKind::Offer).contains("m=audio"));
        description.track = None;
        let sdp = description.to_sections(SdpKind::Answer, &both);
        assert!(sdp.contains("a=inactive\r\n") && !sdp.contains("a=sendonly"));
    }

    #[test]
    fn line_breaks_cannot_enter_the_sdp() {
        let mut w = Writer::new();
        w.text8("abcd\r\na=x")
            .unwrap()
            .text8(&"p".repeat(22))
            .unwrap()
            .put(&[0; 32])
            .u8(0);
        assert_eq!(
            Description::read(&mut Reader::new(w.as_slice())),
            Err(WireError::Bad("credentials"))
        );
    }

    #[test]
    fn addresses_of_the_network_itself_are_no_candidates() {
        let network = librecast::id::SecretKey::from_seed(&[1; 32]).peer_id();
        let inside = librecast::id::NodeAddresses::derive(&network, &network).address;
        let candidate = |ip: IpAddr| Candidate {
            kind: CandidateKind::Host,
            addr: SocketAddr::new(ip, 9),
        };
        let other = candidate("fd00::1".parse().unwrap());
        let description = Description {
            ufrag: "abcd".into(),
            pwd: "p".repeat(22),
            fingerprint: [0; 32],
            media: false,
            lane_control: false,
            track: None,
            candidates: vec![candidate(inside.into()), other],
        };
        assert_eq!(description.outside(&network).candidates, [other]);
    }

    #[test]
    fn groups_and_broadcast_are_no_candidates() {
        for ip in [
            "224.0.0.1",
            "255.255.255.255",
            "0.0.0.0",
            "ff02::1",
            "::",
            "::ffff:10.0.0.1",
        ] {
            let ip: IpAddr = ip.parse().unwrap();
            let mut w = Writer::new();
            Candidate {
                kind: CandidateKind::Host,
                addr: SocketAddr::new(ip, 9),
            }
            .write(&mut w);
            assert!(
                Candidate::read(&mut Reader::new(w.as_slice())).is_err(),
                "{ip}"
            );
        }
    }
}
