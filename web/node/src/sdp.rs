//! Reads a browser's description of its end of a connection. Other nodes never receive this text.

use std::net::{IpAddr, SocketAddr};

use lcroute_overlay::{
    Candidate, CandidateKind, Description, Fingerprint, Section, TRACK_TYPES, credentials_of,
};

/// Candidates that are sent to a peer.
const MAX_CANDIDATES: usize = 16;

/// Extracts the parts of a local description that a peer needs; none if one is missing.
pub fn description(sdp: &str) -> Option<Description> {
    let (ufrag, pwd) = credentials_of(sdp)?;
    let values = |name: &'static str| {
        let lines = sdp.lines().map(str::trim_end);
        lines.filter_map(move |line| line.strip_prefix(name))
    };
    let candidates = values("a=candidate:").filter_map(candidate);
    Some(Description {
        ufrag,
        pwd,
        fingerprint: fingerprint(values("a=fingerprint:sha-256 ").next()?)?,
        // pages have the media lane as a track alone
        media: false,
        lane_control: false,
        track: track(sdp),
        candidates: candidates.take(MAX_CANDIDATES).collect(),
    })
}

/// Returns the sections of a local description, in order.
pub fn sections(sdp: &str) -> Vec<Section> {
    let sections = texts(sdp).filter_map(|text| {
        let mid = text.lines().find_map(|line| line.strip_prefix("a=mid:"));
        let mid = mid.unwrap_or_default().trim_end();
        Some(match text.split(' ').next()? {
            "audio" => Section::new(mid, Some(opus(text).unwrap_or(*TRACK_TYPES.start()))),
            _ => Section::new(mid, None),
        })
    });
    sections.collect()
}

/// The texts of the sections, without their "m=".
fn texts(sdp: &str) -> impl Iterator<Item = &str> {
    let (_, all) = sdp.split_once("\nm=").unwrap_or_default();
    all.split("\nm=").filter(|text| !text.is_empty())
}

/// Returns the payload type of Opus, if the description receives a track.
fn track(sdp: &str) -> Option<u8> {
    let text = texts(sdp).find(|text| text.starts_with("audio "))?;
    let is = |wanted| text.lines().any(|line| line.trim_end() == wanted);
    // 0 is also the port of a section that only bundling gives one (RFC 9143)
    let is_refused = text.starts_with("audio 0 ") && !is("a=bundle-only");
    (!is_refused && is("a=recvonly")).then(|| opus(text))?
}

/// Returns the payload type of Opus in a section.
fn opus(text: &str) -> Option<u8> {
    let mut lines = text.lines().map(str::trim_end);
    let kind = lines.find_map(|line| {
        line.strip_prefix("a=rtpmap:")?
            .strip_suffix(" opus/48000/2")
    });
    kind?.parse().ok().filter(|kind| TRACK_TYPES.contains(kind))
}

/// RFC 8839, section 5.1: foundation, component, transport, priority, address, port, "typ", kind.
/// Peers cannot use names of mDNS, nor TCP.
pub(crate) fn candidate(value: &str) -> Option<Candidate> {
    let fields: Vec<_> = value.split(' ').collect();
    let [_, "1", transport, _, address, port, "typ", kind, ..] = fields[..] else {
        return None;
    };
    let kind = match kind {
        "host" => CandidateKind::Host,
        "srflx" => CandidateKind::ServerReflexive,
        "relay" => CandidateKind::Relayed,
        _ => return None,
    };
    let ip: IpAddr = address.parse().ok()?;
    let port = port.parse().ok()?;
    let is_sent = transport.eq_ignore_ascii_case("udp") && port != 0 && !ip.is_unspecified();
    is_sent.then_some(Candidate {
        kind,
        addr: SocketAddr::new(ip, port),
    })
}

fn fingerprint(text: &str) -> Option<Fingerprint> {
    let mut bytes = [0; 32];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(bytes)
}

#[cfg(test)]
mod tests {
    use lcroute_overlay::SdpKind;
    use proptest::prelude::*;

    use super::*;

    const CHROMIUM: &str = "v=0\r\na=group:BUNDLE 0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\n\
        a=candidate:1 1 udp 2113937151 6f3a.local 50000 typ host generation 0 network-cost 999\r\n\
        a=candidate:2 1 udp 1677729535 198.51.100.7 50001 typ srflx raddr 0.0.0.0 rport 0 generation 0\r\n\
        a=candidate:3 1 tcp 1518280447 192.0.2.1 9 typ host tcptype active\r\n\
        a=candidate:4 1 UDP 41819902 2001:db8::9 3478 typ relay raddr :: rport 0\r\n\
        a=ice-ufrag:Ab1/\r\na=ice-pwd:0123456789abcdefghijkl\r\na=ice-options:trickle\r\n";

    fn fingerprint_line() -> String {
        let hex: Vec<_> = (0..32).map(|n| format!("{n:02X}")).collect();
        format!(
            "a=fingerprint:sha-256 {}\r\na=setup:actpass\r\n",
            hex.join(":")
        )
    }

    #[test]
    fn a_browsers_description_is_read() {
        let read = description(&format!("{CHROMIUM}{}", fingerprint_line())).unwrap();
        assert_eq!((&read.ufrag[..], read.pwd.len()), ("Ab1/", 22));
        assert_eq!(read.fingerprint[31], 31);
        let shown = read.candidates.iter().map(|c| (c.kind, c.addr.to_string()));
        assert_eq!(
            shown.collect::<Vec<_>>(),
            [
                (CandidateKind::ServerReflexive, "198.51.100.7:50001".into()),
                (CandidateKind::Relayed, "[2001:db8::9]:3478".into())
            ]
        );
        assert_eq!(description(CHROMIUM), None, "no fingerprint");
    }

    #[test]
    fn the_track_of_a_browser_is_read() {
        let audio = "m=audio 9 UDP/TLS/RTP/SAVPF 63 111\r\na=mid:a0\r\na=recvonly\r\n\
            a=rtpmap:63 red/48000/2\r\na=rtpmap:111 opus/48000/2\r\n";
        let fingerprint = fingerprint_line();
        let of = |audio: &str| {
            description(&format!("{CHROMIUM}{fingerprint}{audio}"))
                .unwrap()
                .track
        };
        assert_eq!(of(audio), Some(111));
        assert_eq!(of(&audio.replace(" 9 ", " 0 ")), None, "refused");
        assert_eq!(
            of(&audio
                .replace(" 9 ", " 0 ")
                .replace("a=mid", "a=bundle-only\r\na=mid")),
            Some(111)
        );
        assert_eq!(of(&audio.replace("recvonly", "inactive")), None);
        assert_eq!(of(&audio.replace(":111", ":35")), None);
        assert_eq!(of(""), None);
        let both = format!("{CHROMIUM}a=mid:1\r\n{audio}");
        assert_eq!(
            sections(&both),
            [Section::new("1", None), Section::new("a0", Some(111))]
        );
    }

    #[test]
    fn what_peers_are_told_is_what_was_read() {
        let read = description(&format!("{CHROMIUM}{}", fingerprint_line())).unwrap();
        assert_eq!(description(&read.to_sdp(SdpKind::Offer)), Some(read));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_not(text: String, line in "a=candidate:.{0,80}") {
            let _ = description(&text);
            let _ = description(&format!("{CHROMIUM}{}{line}", fingerprint_line()));
        }
    }
}
