//! Description of a link's first datagrams as an observer on the path sees them: STUN (RFC 8489)
//! and the hellos of DTLS (RFC 6347), field by field. Random fields appear as their length.

use std::collections::BTreeMap;
use std::fmt::Write;

/// The cookie of each STUN message (RFC 8489 5).
const STUN_COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];
/// A record of DTLS with a handshake message (RFC 5246 6.2.1).
const HANDSHAKE: u8 = 22;
/// Bytes of a DTLS record's header (RFC 6347 4.1).
const RECORD_HEADER: usize = 13;
/// Bytes of the header of a handshake message's fragment (RFC 6347 4.2.2).
const FRAGMENT_HEADER: usize = 12;

/// Reads big-endian numbers and counted vectors off its front.
#[derive(Clone, Copy)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, bytes: usize) -> Option<usize> {
        let bytes = self.bytes(bytes)?;
        Some(bytes.iter().fold(0, |n, byte| n << 8 | usize::from(*byte)))
    }

    /// Takes a vector with a length of `length_bytes` bytes before it.
    fn vector(&mut self, length_bytes: usize) -> Option<Reader<'a>> {
        let count = self.number(length_bytes)?;
        self.bytes(count).map(Reader)
    }

    /// Returns the rest as two-byte numbers.
    fn codes(mut self) -> Option<String> {
        let mut text = String::new();
        while !self.0.is_empty() {
            write!(text, " {:04x}", self.number(2)?).ok()?;
        }
        Some(text)
    }
}

/// Collects datagrams of several senders, and describes them.
#[derive(Default)]
pub struct Observer {
    lines: Vec<String>,
    /// Type and bytes so far, by sender and message number.
    messages: BTreeMap<(usize, usize), Vec<u8>>,
}

impl Observer {
    /// Handles the next datagram of a sender.
    pub fn see(&mut self, sender: usize, datagram: &[u8]) {
        if let Some(line) = stun(datagram) {
            self.add(line);
        }
        // an unreadable record ends the datagram
        let _ = self.records(sender, datagram);
    }

    /// Returns the lines, each once, in order of first appearance.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    fn add(&mut self, line: String) {
        if !self.lines.contains(&line) {
            self.lines.push(line);
        }
    }

    fn records(&mut self, sender: usize, datagram: &[u8]) -> Option<()> {
        let mut rest = Reader(datagram);
        while rest.0.first() == Some(&HANDSHAKE) {
            let header = rest.bytes(RECORD_HEADER)?;
            let count = usize::from(u16::from_be_bytes([header[11], header[12]]));
            let mut record = Reader(rest.bytes(count)?);
            // after epoch 0 everything is sealed
            if header[3..5] != [0, 0] {
                continue;
            }
            while record.0.len() > FRAGMENT_HEADER {
                let version = u16::from_be_bytes([header[1], header[2]]);
                self.fragment(sender, version, &mut record)?;
            }
        }
        Some(())
    }

    fn fragment(&mut self, sender: usize, version: u16, record: &mut Reader<'_>) -> Option<()> {
        let kind = record.number(1)?;
        let (whole, number) = (record.number(3)?, record.number(2)?);
        let (offset, count) = (record.number(3)?, record.number(3)?);
        let bytes = record.bytes(count)?;
        let message = self.messages.entry((sender, number)).or_default();
        if message.len() == offset {
            message.extend_from_slice(bytes);
        }
        if message.len() != whole || count == 0 && whole != 0 {
            return Some(());
        }
        let message = std::mem::take(message);
        self.messages.remove(&(sender, number));
        let mut body = Reader(&message);
        let lines = match kind {
            1 => client_hello(&mut body),
            2 => server_hello(&mut body),
            3 => Some(vec!["HelloVerifyRequest".to_owned()]),
            11 => Some(vec![certificate(&mut body).unwrap_or_default()]),
            _ => None,
        };
        for line in lines? {
            let line = if line.ends_with(" length") {
                format!("{line} {whole}, record {version:04x}")
            } else {
                line
            };
            self.add(line);
        }
        Some(())
    }
}

/// Describes a binding request or response: its attributes in order, with their lengths.
fn stun(datagram: &[u8]) -> Option<String> {
    let mut message = Reader(datagram);
    let kind = match message.number(2)? {
        0x0001 => "STUN request",
        0x0101 => "STUN response",
        _ => return None,
    };
    let count = message.number(2)?;
    (message.bytes(4)? == STUN_COOKIE).then_some(())?;
    message.bytes(12)?;
    (count == message.0.len()).then_some(())?;
    let mut line = format!("{kind} {}:", datagram.len());
    while !message.0.is_empty() {
        let typ = message.number(2)?;
        let value = message.vector(2)?.0;
        message.bytes((4 - value.len() % 4) % 4)?;
        write!(line, " {} {}", attribute(typ), value.len()).ok()?;
    }
    Some(line)
}

fn attribute(typ: usize) -> String {
    let name = match typ {
        0x0006 => "USERNAME",
        0x0008 => "MESSAGE-INTEGRITY",
        0x0020 => "XOR-MAPPED-ADDRESS",
        0x0024 => "PRIORITY",
        0x0025 => "USE-CANDIDATE",
        0x8022 => "SOFTWARE",
        0x8028 => "FINGERPRINT",
        0x8029 => "ICE-CONTROLLED",
        0x802a => "ICE-CONTROLLING",
        0xc001 => "NOMINATION",
        0xc057 => "NETWORK-INFO",
        _ => return format!("{typ:#06x}"),
    };
    name.to_owned()
}

fn client_hello(hello: &mut Reader<'_>) -> Option<Vec<String>> {
    let version = hello.number(2)?;
    hello.bytes(32)?;
    let session = hello.vector(1)?.0.len();
    let cookie = hello.vector(1)?.0.len();
    let suites = hello.vector(2)?.codes()?;
    let compression = hello.vector(1)?.0;
    let mut lines = vec![
        "ClientHello length".to_owned(),
        format!("ClientHello version {version:04x}, session {session}, cookie {cookie}"),
        format!("ClientHello suites{suites}"),
        format!("ClientHello compression {compression:02x?}"),
    ];
    lines.extend(extensions("ClientHello", hello)?);
    Some(lines)
}

fn server_hello(hello: &mut Reader<'_>) -> Option<Vec<String>> {
    let version = hello.number(2)?;
    hello.bytes(32)?;
    let session = hello.vector(1)?.0.len();
    let (suite, compression) = (hello.number(2)?, hello.number(1)?);
    let mut lines = vec![
        "ServerHello length".to_owned(),
        format!("ServerHello version {version:04x}, session {session}"),
        format!("ServerHello suite {suite:04x}, compression {compression}"),
    ];
    lines.extend(extensions("ServerHello", hello)?);
    Some(lines)
}

/// Describes subject and days of the first certificate (RFC 5246 7.4.2, RFC 5280 4.1).
fn certificate(body: &mut Reader<'_>) -> Option<String> {
    let certificate = body.vector(3)?.vector(3)?.0;
    let values = |tag| {
        let at = certificate.iter().enumerate();
        at.filter(move |(_, byte)| **byte == tag)
            .filter_map(|(at, _)| Reader(&certificate[at + 1..]).vector(1))
            .filter_map(|value| std::str::from_utf8(value.0).ok())
    };
    let mut name = [0x0c, 0x13]
        .into_iter()
        .flat_map(values)
        .filter(|name| name.len() > 2 && name.chars().all(|c| c.is_ascii_graphic() || c == ' '));
    let days: Vec<_> = values(0x17)
        .filter_map(|time| day(2_000, time, 2))
        .collect();
    let ages: Vec<_> = values(0x18).filter_map(|time| day(0, time, 4)).collect();
    let span = days.iter().chain(&ages).copied();
    let (first, last) = (span.clone().min()?, span.max()?);
    let name = name.next_back()?;
    Some(format!(
        "Certificate in clear: subject {name:?}, {} days",
        last - first
    ))
}

/// Returns the day of a time with a year of `digits` digits.
fn day(century: i64, time: &str, digits: usize) -> Option<i64> {
    let number = |from, count| time.get(from..from + count)?.parse::<i64>().ok();
    time.strip_suffix('Z')
        .filter(|rest| rest.len() == digits + 10)?;
    let year = century + number(0, digits)?;
    let (month, day) = (number(digits, 2)?, number(digits + 2, 2)?);
    // the year begins in March, so that its last day may be a leap day
    let (year, month) = if month < 3 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    Some(365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day)
}

/// Describes the order of the extensions, and the contents of those that identify the stack.
fn extensions(hello: &str, rest: &mut Reader<'_>) -> Option<Vec<String>> {
    let mut all = rest.vector(2)?;
    let (mut order, mut lines) = (String::new(), Vec::new());
    while !all.0.is_empty() {
        let typ = all.number(2)?;
        let mut value = all.vector(2)?;
        write!(order, " {typ:04x}").ok()?;
        let is_client = hello == "ClientHello";
        let said = match typ {
            10 => format!("groups{}", value.vector(2)?.codes()?),
            11 => format!("point formats {:02x?}", value.vector(1)?.0),
            13 => format!("signatures{}", value.vector(2)?.codes()?),
            14 => format!("srtp{}", value.vector(2)?.codes()?),
            43 if is_client => format!("versions{}", value.vector(1)?.codes()?),
            43 => format!("versions{}", value.codes()?),
            51 if is_client => format!("key shares{}", shares(value.vector(2)?)?),
            51 => format!("key shares{}", shares(value)?),
            _ if value.0.is_empty() => continue,
            _ => format!("extension {typ:04x} has {} bytes", value.0.len()),
        };
        lines.push(format!("{hello} {said}"));
    }
    lines.insert(0, format!("{hello} extensions{order}"));
    Some(lines)
}

fn shares(mut shares: Reader<'_>) -> Option<String> {
    let mut text = String::new();
    while !shares.0.is_empty() {
        let group = shares.number(2)?;
        match shares.vector(2) {
            Some(key) => write!(text, " {group:04x}:{}", key.0.len()).ok()?,
            // a HelloRetryRequest names only the group
            None => write!(text, " {group:04x}").ok()?,
        }
    }
    Some(text)
}
