//! Session descriptions (SDP, RFC 8866; Opus: RFC 7587) in SAP, for and from foreign programs.
//!
//! ```text
//! v=0
//! o=- STARTED STARTED IN IP6 SOURCE
//! s=NAME
//! t=0 0
//! m=audio 5004 RTP/AVP 96
//! c=IN IP6 GROUP
//! a=rtpmap:96 opus/48000/2
//! a=fmtp:96 sprop-stereo=1;useinbandfec=0
//! a=ptime:20
//! a=recvonly
//! a=x-lc-station:lcr1...
//! a=x-lc-grant:HEX                     if the caster is not the station's own key
//! a=x-lc-signature:HEX                 by the caster's key, over all lines above
//! ```
//!
//! Foreign senders do not sign: a description without station may be anybody's.

use std::fmt::Write;
use std::net::Ipv6Addr;
use std::str::FromStr;

use librecast::id::PeerId;
use librecast::plain::is_plain;
use thiserror::Error;

use crate::beacon::{Profile, is_showable};
use crate::grant::{GRANT, Grant};
use crate::rtp::PAYLOAD_TYPE;
use crate::station::{MEDIA_PORT, Station, StationKey};

/// Longest description in bytes.
pub const MAX_SDP: usize = 4_096;
const CONTEXT: &str = "lcradio 2026 announcement";
const STATION: &str = "a=x-lc-station:";
const GRANTED: &str = "a=x-lc-grant:";
const SIGNATURE: &str = "a=x-lc-signature:";

/// A described stream of Opus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The sender's name for it.
    pub name: String,
    /// Destination of its packets.
    pub group: Ipv6Addr,
    /// UDP port of the packets.
    pub port: u16,
    /// Payload type of Opus in it.
    pub payload_type: u8,
    /// The station that signed it; none for a foreign sender.
    pub station: Option<Station>,
    /// The grant, if a key other than the station's signed it.
    pub grant: Option<Box<Grant>>,
}

impl Description {
    /// Returns the signing key; none for a foreign sender.
    pub(crate) fn caster(&self) -> Option<&PeerId> {
        let granted = self.grant.as_deref().map(Grant::caster);
        granted.or(self.station.as_ref().map(Station::key))
    }
}

/// The reason why a description is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SdpError {
    /// It does not fit the format.
    #[error("no session description")]
    Malformed,
    /// It has no stream of Opus on an IPv6 group.
    #[error("without a stream of Opus on an IPv6 group")]
    Other,
    /// It names a station that has not signed it.
    #[error("not signed by the station that it names")]
    Forged,
    /// The grant is of another station, or not signed by the station.
    #[error("signed by a grant of another station, or by a forged one")]
    Grant,
}

/// Returns the signed description of a public station.
#[must_use]
pub fn describe(
    key: &StationKey,
    grant: Option<&Grant>,
    name: &str,
    profile: Profile,
    started_ms: u64,
    source: Ipv6Addr,
) -> String {
    let own = key.station(true);
    let station = grant.map_or(&own, Grant::station);
    let (group, text) = (station.group(), station.encode());
    // RFC 8866, 5.3: an empty name is one space
    let name = if name.is_empty() { " " } else { name };
    let (stereo, fec) = match profile {
        Profile::Voice => (0, 1),
        Profile::Music => (1, 0),
    };
    let mut sdp = format!(
        "v=0\r\no=- {started_ms} {started_ms} IN IP6 {source}\r\ns={name}\r\nt=0 0\r\n\
         m=audio {MEDIA_PORT} RTP/AVP {PAYLOAD_TYPE}\r\nc=IN IP6 {group}\r\n\
         a=rtpmap:{PAYLOAD_TYPE} opus/48000/2\r\n\
         a=fmtp:{PAYLOAD_TYPE} sprop-stereo={stereo};useinbandfec={fec}\r\n\
         a=ptime:20\r\na=recvonly\r\n{STATION}{}\r\n",
        *text
    );
    if let Some(grant) = grant {
        push_hex(&mut sdp, GRANTED, &grant.write());
    }
    let signature = key.sign(CONTEXT, sdp.as_bytes());
    push_hex(&mut sdp, SIGNATURE, &signature);
    sdp
}

/// Appends a line of bytes in hexadecimal.
fn push_hex(sdp: &mut String, name: &str, bytes: &[u8]) {
    sdp.push_str(name);
    for byte in bytes {
        let _never = write!(sdp, "{byte:02x}");
    }
    sdp.push_str("\r\n");
}

/// The fields of an `m=` block.
#[derive(Debug, Default)]
struct Media {
    port: u16,
    payload_types: Vec<u8>,
    group: Option<Ipv6Addr>,
    opus: Option<u8>,
}

/// Payload types that are read of a stream.
const MAX_PAYLOAD_TYPES: usize = 32;

fn media(value: &str) -> Option<Media> {
    let mut words = value.split(' ');
    if words.next() != Some("audio") {
        return None;
    }
    let port = words.next()?.parse().ok().filter(|port| *port != 0)?;
    if !matches!(words.next(), Some("RTP/AVP" | "RTP/AVPF")) {
        return None;
    }
    Some(Media {
        port,
        payload_types: number_list(words),
        ..Media::default()
    })
}

fn number_list<'a>(words: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let types = words.filter_map(|word| u8::from_str(word).ok());
    types.take(MAX_PAYLOAD_TYPES).collect()
}

/// Parses a group of IPv6 in `IN IP6 GROUP[/COUNT]`; RFC 8866, 5.7: IPv6 has no TTL there.
fn connection(value: &str) -> Option<Ipv6Addr> {
    let address = value.strip_prefix("IN IP6 ")?;
    let address = address.split('/').next()?;
    let group: Ipv6Addr = address.parse().ok()?;
    group.is_multicast().then_some(group)
}

/// Parses the payload type in `rtpmap:96 opus/48000/2`.
fn opus_type(attribute: &str) -> Option<u8> {
    let (number, encoding) = attribute.strip_prefix("rtpmap:")?.split_once(' ')?;
    let is_opus = encoding.trim().eq_ignore_ascii_case("opus/48000/2");
    number.parse().ok().filter(|_| is_opus)
}

/// Reads a description: its first stream of Opus on an IPv6 group.
///
/// # Errors
/// It is too long or malformed, has no such stream, or names a station that has not signed it.
pub fn read(sdp: &[u8]) -> Result<Description, SdpError> {
    if sdp.len() > MAX_SDP {
        return Err(SdpError::Malformed);
    }
    let text = std::str::from_utf8(sdp).map_err(|_| SdpError::Malformed)?;
    let mut lines = text.lines();
    // lines are shown as they are, so they must be plain
    if !text.lines().all(is_plain) || lines.next() != Some("v=0") {
        return Err(SdpError::Malformed);
    }
    let (mut name, mut session_group) = (String::new(), None);
    // the present block, and the first suitable one
    let (mut current, mut found): (Option<Media>, Option<Media>) = (None, None);
    for line in lines.filter(|line| !line.is_empty()) {
        let (kind, value) = line.split_once('=').ok_or(SdpError::Malformed)?;
        match kind {
            "s" if current.is_none() && found.is_none() => name = value.trim().to_owned(),
            "m" => {
                found = found.or_else(|| current.take().filter(is_playable));
                current = media(value);
            }
            "c" => match &mut current {
                Some(media) => media.group = connection(value),
                None => session_group = session_group.or_else(|| connection(value)),
            },
            "a" => {
                if let (Some(media), Some(number)) = (&mut current, opus_type(value))
                    && media.payload_types.contains(&number)
                {
                    media.opus = media.opus.or(Some(number));
                }
            }
            _ => {}
        }
    }
    let found = found.or_else(|| current.filter(is_playable));
    let media = found.ok_or(SdpError::Other)?;
    let (Some(group), Some(payload_type)) = (media.group.or(session_group), media.opus) else {
        return Err(SdpError::Other);
    };
    if !is_showable(&name) {
        return Err(SdpError::Malformed);
    }
    let (station, grant) = signed(text)?.unzip();
    // a station's signature is for its own group
    if station.as_ref().is_some_and(|s| s.group() != group) {
        return Err(SdpError::Forged);
    }
    Ok(Description {
        name,
        group,
        port: media.port,
        payload_type,
        station,
        grant: grant.flatten().map(Box::new),
    })
}

/// Returns whether a station is named, so that reading costs a signature check.
pub(crate) fn names_station(sdp: &[u8]) -> bool {
    let mut lines = sdp.split(|byte| *byte == b'\n');
    lines.any(|line| line.starts_with(STATION.as_bytes()))
}

/// Returns whether the block is of Opus; its group may precede it.
fn is_playable(media: &Media) -> bool {
    media.opus.is_some()
}

/// Returns the named station, if it or a caster with its grant signed all lines above the last one.
fn signed(text: &str) -> Result<Option<(Station, Option<Grant>)>, SdpError> {
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let Some(named) = value(STATION) else {
        return Ok(None);
    };
    let forged = SdpError::Forged;
    let station = Station::decode(named).map_err(|_| forged)?;
    if !station.is_public() {
        return Err(forged);
    }
    let grant = match value(GRANTED) {
        None => None,
        Some(digits) => {
            let bytes = hex::<GRANT>(digits.as_bytes()).ok_or(SdpError::Malformed)?;
            Some(Grant::read(&bytes, &station).map_err(|_| SdpError::Grant)?)
        }
    };
    let at = text.rfind(SIGNATURE).ok_or(forged)?;
    let (signed, last) = text.split_at(at);
    let digits = last[SIGNATURE.len()..].trim_end().as_bytes();
    let signature = hex(digits).ok_or(forged)?;
    let caster = grant.as_ref().map_or(station.key(), Grant::caster);
    caster
        .verify(CONTEXT, signed.as_bytes(), &signature)
        .map_err(|_| forged)?;
    Ok(Some((station, grant)))
}

/// Parses bytes in hexadecimal.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let (pairs, rest) = digits.as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        let digit = |c: u8| char::from(c).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sdp() -> String {
        let key = StationKey::from_seed(&[1; 32]);
        let source = "fd01::5".parse().unwrap();
        let started_ms = 1_800_000_000_000;
        describe(&key, None, "Evening", Profile::Music, started_ms, source)
    }

    #[test]
    fn who_has_a_grant_announces_the_station_and_nobody_by_the_grant_of_another() {
        let [station, caster, thief] = [1, 2, 3].map(|seed| StationKey::from_seed(&[seed; 32]));
        let source = "fd01::5".parse().unwrap();
        let described = |key: &StationKey, grant: &Grant| {
            let sdp = describe(key, Some(grant), "Night", Profile::Music, 1, source);
            read(sdp.as_bytes())
        };
        let grant = Grant::new(&station, true, &caster.id(), 9);
        let read = described(&caster, &grant).unwrap();
        assert_eq!(read.station, Some(station.station(true)));
        assert_eq!(
            (read.caster(), &read.grant),
            (Some(&caster.id()), &Some(Box::new(grant.clone())))
        );
        assert_eq!(described(&thief, &grant), Err(SdpError::Forged));
        let of_thief = Grant::new(&thief, true, &thief.id(), 9);
        let text = describe(&thief, Some(&of_thief), "Night", Profile::Music, 1, source);
        let [from, to] = [&thief, &station].map(|key| key.station(true));
        let text = text.replace(&*from.encode(), &to.encode());
        let text = text.replace(&from.group().to_string(), &to.group().to_string());
        assert_eq!(super::read(text.as_bytes()), Err(SdpError::Grant));
    }

    #[test]
    fn a_description_comes_back_signed() {
        let read = read(sdp().as_bytes()).unwrap();
        let station = StationKey::from_seed(&[1; 32]).station(true);
        let expected = Description {
            name: "Evening".into(),
            group: station.group(),
            port: 5004,
            payload_type: 96,
            station: Some(station),
            grant: None,
        };
        assert_eq!(read, expected);
    }

    #[test]
    fn the_description_is_frozen() {
        let sdp = sdp();
        let (plain, signature) = sdp.split_once(SIGNATURE).unwrap();
        assert_eq!(plain.replace("\r\n", "\n"), FROZEN);
        assert_eq!(signature.trim_end().len(), 128);
    }

    const FROZEN: &str = "v=0\no=- 1800000000000 1800000000000 IN IP6 fd01::5\ns=Evening\nt=0 0\nm=audio 5004 RTP/AVP 96\n\
        c=IN IP6 ff1e:96f0:1500:b0c5:ccad:a4fe:211f:3990\na=rtpmap:96 opus/48000/2\n\
        a=fmtp:96 sprop-stereo=1;useinbandfec=0\na=ptime:20\na=recvonly\n\
        a=x-lc-station:lcr12U2TCzeT1SZcTmdBmK5BmuHLnCCZvbUJZqjq9cGuwK7ZNXCAba\n";

    #[test]
    fn what_was_changed_below_a_station_is_refused() {
        let sdp = sdp();
        for (from, to) in [
            ("s=Evening", "s=Morning"),
            ("fd01::5", "fd01::6"),
            ("m=audio 5004", "m=audio 5006"),
        ] {
            let changed = sdp.replace(from, to);
            assert_eq!(read(changed.as_bytes()), Err(SdpError::Forged), "{from}");
        }
        let unsigned = &sdp[..sdp.find(SIGNATURE).unwrap()];
        assert_eq!(read(unsigned.as_bytes()), Err(SdpError::Forged));
        // a second block below the signature
        let more = format!("{sdp}m=audio 6 RTP/AVP 96\r\n");
        assert_eq!(read(more.as_bytes()), Err(SdpError::Forged));
        // another key's station above an own stream
        let other = StationKey::from_seed(&[2; 32]).station(true);
        let ours = StationKey::from_seed(&[1; 32]).station(true).encode();
        let swapped = sdp.replace(&*ours, &other.encode());
        assert_eq!(read(swapped.as_bytes()), Err(SdpError::Forged));
    }

    /// The output of ffmpeg for an RTP stream to a group.
    const FOREIGN: &str = "v=0\no=- 0 0 IN IP6 ::1\ns=No Name\nc=IN IP6 ff1e::77\nt=0 0\na=tool:libavformat 59\n\
        m=video 6000 RTP/AVP 97\nb=AS:200\na=rtpmap:97 H264/90000\n\
        m=audio 5014 RTP/AVP 0 98\nb=AS:96\na=rtpmap:98 opus/48000/2\na=fmtp:98 sprop-stereo=1\n";

    #[test]
    fn a_foreign_sender_is_unsigned() {
        let read = read(FOREIGN.as_bytes()).unwrap();
        assert_eq!((read.port, read.payload_type), (5014, 98));
        assert_eq!(read.group, "ff1e::77".parse::<Ipv6Addr>().unwrap());
        assert_eq!((read.name.as_str(), read.station), ("No Name", None));
    }

    #[test]
    fn what_is_not_played_is_named() {
        let with = |from: &str, to: &str| read(FOREIGN.replace(from, to).as_bytes());
        assert_eq!(with("opus/48000/2", "L24/48000/2"), Err(SdpError::Other));
        assert_eq!(with("ff1e::77", "fd00::1"), Err(SdpError::Other));
        assert_eq!(
            with("IP6 ff1e::77", "IP4 239.0.0.1/8"),
            Err(SdpError::Other)
        );
        assert_eq!(with("5014", "0"), Err(SdpError::Other));
        assert_eq!(with("RTP/AVP 0 98", "RTP/SAVP 0 98"), Err(SdpError::Other));
        assert_eq!(with("0 98", "0 99"), Err(SdpError::Other));
        assert_eq!(with("v=0", "v=1"), Err(SdpError::Malformed));
        assert_eq!(with("t=0 0", "nonsense"), Err(SdpError::Malformed));
        assert_eq!(with("No Name", "a\u{7}b"), Err(SdpError::Malformed));
        for hostile in ["\u{1b}[2J", "\rs=Morning", "\u{9b}2J", "\u{202e}"] {
            let other = format!("libavformat 59{hostile}");
            let read = with("libavformat 59", &other);
            assert_eq!(read, Err(SdpError::Malformed), "{hostile:?}");
        }
        let long = FOREIGN.replace("No Name", &"n".repeat(MAX_SDP));
        assert_eq!(read(long.as_bytes()), Err(SdpError::Malformed));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "\\PC{0,200}", at in 0_usize..600, byte: u8) {
            let _ = read(text.as_bytes());
            let _ = read(format!("v=0\n{text}").as_bytes());
            let mut changed = sdp().into_bytes();
            let at = at % changed.len();
            changed[at] = byte;
            let _ = read(&changed);
        }
    }
}
