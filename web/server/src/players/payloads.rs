//! The payloads of a group: of one sender at a time, in order, without RTP headers. Without I/O.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lcradio_core::{RtpHeader, extend_sequence};

/// Silence of a sender after which another one is followed. Chosen: no player bridges more.
const SENDER_SILENCE: Duration = Duration::from_secs(2);
/// Packets of RTP that wait for an earlier one. Chosen: lc0 keeps the order, and few overtake on a LAN.
const MAX_WAITING: usize = 16;
/// A jump of the sequence that begins anew. Chosen: a sender that restarts begins anywhere.
const MAX_JUMP: u64 = 1_000;
/// Length and first byte of a packet of MPEG-TS (ISO/IEC 13818-1, 2.4.3).
const TS_PACKET: usize = 188;
const TS_SYNC: u8 = 0x47;

/// What players call the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// MPEG-TS.
    MpegTs,
    /// Anything else.
    Other,
}

impl Kind {
    /// Returns the media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::MpegTs => "video/mp2t",
            Self::Other => "application/octet-stream",
        }
    }
}

/// The stream of RTP of a sender.
#[derive(Debug)]
struct Rtp {
    ssrc: u32,
    /// The number of the next packet.
    next: u64,
    waiting: BTreeMap<u64, Vec<u8>>,
}

/// The form of a sender's datagrams.
#[derive(Debug)]
enum Form {
    /// The first one could be RTP: the second one decides.
    Perhaps(Vec<u8>),
    Rtp(Rtp),
    Plain,
}

/// The datagrams of a group.
#[derive(Debug, Default)]
pub struct Payloads {
    /// The followed sender, its last packet, and its form.
    sender: Option<(SocketAddr, Instant, Form)>,
    /// Packets of other senders.
    other_sender: u64,
}

impl Payloads {
    /// Takes a datagram; appends payloads that follow to `out`.
    pub fn handle_datagram(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        now: Instant,
        out: &mut Vec<u8>,
    ) {
        let form = match self.sender.take() {
            Some((sender, _, form)) if sender == from => next_form(form, datagram, out),
            Some((sender, last, form)) if now.saturating_duration_since(last) <= SENDER_SILENCE => {
                self.other_sender += 1;
                self.sender = Some((sender, last, form));
                return;
            }
            _ => first_form(datagram, out),
        };
        self.sender = Some((from, now, form));
    }

    /// Returns the number of packets of other senders, which were dropped.
    pub fn of_other_senders(&self) -> u64 {
        self.other_sender
    }
}

/// Returns the kind of a stream that begins so.
pub fn kind(payload: &[u8]) -> Kind {
    let mut packets = payload.chunks(TS_PACKET);
    match !payload.is_empty() && packets.all(|packet| packet[0] == TS_SYNC) {
        true => Kind::MpegTs,
        false => Kind::Other,
    }
}

fn is_mpeg_ts(payload: &[u8]) -> bool {
    payload.len().is_multiple_of(TS_PACKET) && kind(payload) == Kind::MpegTs
}

/// Returns header and payload of a packet that may be RTP.
fn read(datagram: &[u8]) -> Option<(RtpHeader, &[u8])> {
    let (header, length) = RtpHeader::read(datagram).ok()?;
    let payload = header.without_padding(datagram.get(length..)?).ok()?;
    Some((header, payload))
}

fn first_form(datagram: &[u8], out: &mut Vec<u8>) -> Form {
    match read(datagram) {
        Some((header, payload)) if is_mpeg_ts(payload) => {
            out.extend_from_slice(payload);
            Form::Rtp(Rtp::begin(&header))
        }
        Some(_) => Form::Perhaps(datagram.to_vec()),
        None => {
            out.extend_from_slice(datagram);
            Form::Plain
        }
    }
}

fn next_form(form: Form, datagram: &[u8], out: &mut Vec<u8>) -> Form {
    match form {
        Form::Perhaps(first) => {
            let follows = match (read(&first), read(datagram)) {
                (Some((a, payload)), Some((b, _))) => {
                    let is_next = b.ssrc == a.ssrc && b.sequence == a.sequence.wrapping_add(1);
                    is_next.then(|| (Rtp::begin(&a), payload))
                }
                _ => None,
            };
            match follows {
                Some((rtp, payload)) => {
                    out.extend_from_slice(payload);
                    next_form(Form::Rtp(rtp), datagram, out)
                }
                None => {
                    out.extend_from_slice(&first);
                    out.extend_from_slice(datagram);
                    Form::Plain
                }
            }
        }
        Form::Rtp(mut rtp) => match read(datagram) {
            Some((header, payload)) => {
                rtp.push(&header, payload, out);
                Form::Rtp(rtp)
            }
            // the sender was started anew, without RTP
            None if is_mpeg_ts(datagram) => {
                out.extend_from_slice(datagram);
                Form::Plain
            }
            None => Form::Rtp(rtp),
        },
        Form::Plain => {
            out.extend_from_slice(datagram);
            Form::Plain
        }
    }
}

impl Rtp {
    /// Begins after this packet.
    fn begin(header: &RtpHeader) -> Self {
        Self {
            ssrc: header.ssrc,
            // above the numbers of packets that came before it
            next: u64::from(header.sequence) + (1 << 16) + 1,
            waiting: BTreeMap::new(),
        }
    }

    fn push(&mut self, header: &RtpHeader, payload: &[u8], out: &mut Vec<u8>) {
        let mut number = extend_sequence(self.next, header.sequence);
        if header.ssrc != self.ssrc || number.abs_diff(self.next) > MAX_JUMP {
            self.put_out_all(out);
            *self = Self::begin(header);
            self.next -= 1;
            number = self.next;
        }
        if number < self.next {
            // late, or a copy
            return;
        }
        self.waiting.insert(number, payload.to_vec());
        if self.waiting.len() > MAX_WAITING
            && let Some((number, _)) = self.waiting.first_key_value()
        {
            self.next = *number;
        }
        while let Some(payload) = self.waiting.remove(&self.next) {
            out.extend_from_slice(&payload);
            self.next += 1;
        }
    }

    fn put_out_all(&mut self, out: &mut Vec<u8>) {
        for payload in std::mem::take(&mut self.waiting).into_values() {
            out.extend_from_slice(&payload);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENDER: &str = "[fd00::1]:4000";

    fn rtp(ssrc: u32, sequence: u16, payload: &[u8]) -> Vec<u8> {
        let header = RtpHeader {
            marker: false,
            payload_type: 33,
            sequence,
            timestamp: 0,
            ssrc,
            padded: false,
        };
        [&header.write()[..], payload].concat()
    }

    fn ts(n: u8) -> Vec<u8> {
        let mut packet = vec![n; TS_PACKET];
        packet[0] = TS_SYNC;
        packet
    }

    /// Returns the payloads of one sender's datagrams.
    fn payloads(datagrams: &[Vec<u8>]) -> Vec<u8> {
        let (mut payloads, mut out) = (Payloads::default(), Vec::new());
        for datagram in datagrams {
            let from = SENDER.parse().unwrap();
            payloads.handle_datagram(from, datagram, Instant::now(), &mut out);
        }
        out
    }

    #[test]
    fn headers_of_rtp_come_off_and_plain_payloads_stay() {
        let [a, b] = [ts(1), ts(2)];
        assert_eq!(
            payloads(&[a.clone(), b.clone()]),
            [a.clone(), b.clone()].concat()
        );
        let packets = [rtp(9, 65_535, &a), rtp(9, 0, &b)];
        assert_eq!(payloads(&packets), [a.clone(), b.clone()].concat());
        // of another kind: the second packet decides
        let packets = [rtp(9, 7, b"one"), rtp(9, 8, b"two")];
        assert_eq!(payloads(&packets), b"onetwo");
        let plain = [rtp(9, 7, b"one"), rtp(9, 70, b"two")];
        assert_eq!(payloads(&plain), plain.concat());
        // a sender that leaves RTP
        assert_eq!(payloads(&[rtp(9, 7, &a), b.clone()]), [a, b].concat());
    }

    #[test]
    fn packets_that_overtook_wait_and_copies_are_dropped() {
        let all: Vec<_> = (0..6).map(ts).collect();
        let order = [0_u16, 2, 2, 1, 4, 3, 1, 5];
        let packets: Vec<_> = order
            .iter()
            .map(|n| rtp(9, *n, &all[usize::from(*n)]))
            .collect();
        assert_eq!(payloads(&packets), all.concat());
    }

    #[test]
    fn a_lost_packet_holds_up_no_more_than_its_bound() {
        let packets: Vec<_> = (0..40_u16)
            .filter(|n| *n != 3)
            .map(|n| rtp(9, n, &ts(n as u8)))
            .collect();
        let expected: Vec<_> = (0..40).filter(|n| *n != 3).map(ts).collect();
        assert_eq!(payloads(&packets), expected.concat());
    }

    #[test]
    fn a_sender_that_restarts_is_followed_and_its_last_packets_come_first() {
        let packets = [
            rtp(9, 5, &ts(1)),
            rtp(9, 7, &ts(2)),
            rtp(8, 40_000, &ts(3)),
            rtp(8, 3, &ts(4)),
        ];
        let expected = [ts(1), ts(2), ts(3), ts(4)].concat();
        assert_eq!(payloads(&packets), expected);
    }

    #[test]
    fn one_sender_is_followed_until_it_is_silent() {
        let (mut payloads, mut out, begun) = (Payloads::default(), Vec::new(), Instant::now());
        let senders = [SENDER, "[fd00::2]:4000"];
        let [a, b]: [SocketAddr; 2] = senders.map(|at| at.parse().unwrap());
        for (from, seconds, text) in [
            (a, 0, b"a"),
            (b, 1, b"b"),
            (b, 2, b"c"),
            (b, 3, b"d"),
            (a, 4, b"e"),
        ] {
            let now = begun + Duration::from_secs(seconds);
            payloads.handle_datagram(from, text, now, &mut out);
        }
        assert_eq!(out, b"ad");
        assert_eq!(payloads.of_other_senders(), 3);
    }

    #[test]
    fn the_first_bytes_name_the_kind() {
        assert_eq!(kind(&[ts(1), ts(2)].concat()), Kind::MpegTs);
        assert_eq!(kind(b"G"), Kind::MpegTs);
        for other in [&b""[..], b"OggS", &[ts(1), vec![0; 188]].concat()] {
            assert_eq!(kind(other), Kind::Other);
        }
    }

    #[test]
    fn any_bytes_are_read_without_panic() {
        let mut bytes = rtp(9, 1, &ts(1));
        for at in 0..16 {
            for value in 0..=255 {
                let before = std::mem::replace(&mut bytes[at], value);
                payloads(&[bytes.clone(), bytes.clone()]);
                bytes[at] = before;
            }
        }
        for length in 0..bytes.len() {
            payloads(&[bytes[..length].to_vec()]);
        }
    }
}
