//! Records in clear, which anybody may have written who knows both addresses: some of them end a handshake of `dimpl`.

use dimpl::ProtocolVersion;

/// Content type of alerts (RFC 6347 4.1).
const ALERT: u8 = 21;
/// Content type of handshakes.
const HANDSHAKE: u8 = 22;
/// Content types that have a header of 13 bytes; from 32 on is what DTLS 1.3 has sealed (RFC 9147 4).
const LONG_HEADER: std::ops::Range<u8> = 20..32;
/// Kind of the message that a client begins with (RFC 6347 4.3.2).
const CLIENT_HELLO: u8 = 1;
/// Kind of the message that a server chooses version and keys by (RFC 6347 4.3.2).
const SERVER_HELLO: u8 = 2;
/// Kind of the message by which a server of DTLS 1.2 asks for a cookie (RFC 6347 4.3.2).
const HELLO_VERIFY_REQUEST: u8 = 3;
/// Bytes of the long header of a record (RFC 6347 4.1).
const HEADER_BYTES: usize = 13;

/// Bit of the first byte of what DTLS 1.3 has sealed (RFC 9147 4): an identifier of the connection follows.
const CONNECTION_ID: u8 = 0x10;
/// Bit of that byte (RFC 9147 4): the number of the record has 16 bits instead of 8.
const LONG_NUMBER: u8 = 0x08;
/// Bit of that byte (RFC 9147 4): the record has a length, and others may follow it.
const HAS_LENGTH: u8 = 0x04;

/// What an end needs in clear.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Needs {
    pub(crate) is_client: bool,
    /// Once both ends have one.
    pub(crate) version: Option<ProtocolVersion>,
}

impl Needs {
    /// Whether a message of this kind is needed: all but hellos is sealed in DTLS 1.3. Behind its hello (`has_hello`) a server of
    /// 1.2 sends whatever else it has.
    fn has(self, kind: u8, has_hello: bool) -> bool {
        match (self.version, self.is_client) {
            (Some(ProtocolVersion::DTLS1_2), _) => true,
            (_, false) => kind == CLIENT_HELLO,
            (Some(_), true) => kind == SERVER_HELLO,
            (None, true) => has_hello || matches!(kind, SERVER_HELLO | HELLO_VERIFY_REQUEST),
        }
    }
}

/// Whether all records of a datagram are such as a handshake needs, or somebody has sealed. An alert in clear is
/// neither: `dimpl` would give up, wherever it stands. A record of a handshake has messages in it, and those are needed: `dimpl`
/// keeps others until it gives up. Until both ends have a version, a hello comes first: there is no key for anything sealed, and
/// `dimpl` would take a record of another epoch for a hello.
pub(crate) fn is_worth_a_look(datagram: &[u8], needs: Needs) -> bool {
    let (mut rest, mut is_first) = (datagram, true);
    while let Some(first) = rest.first() {
        let takes_sealed = needs.version.is_some() || !is_first;
        let next = match LONG_HEADER.contains(first) {
            true => after_long(rest, needs, takes_sealed),
            false => after_sealed(rest).filter(|_| takes_sealed),
        };
        let Some(next) = next else { return false };
        (rest, is_first) = (next, false);
    }
    !datagram.is_empty()
}

/// What follows a record with the long header, if that is whole and may be looked at.
fn after_long(datagram: &[u8], needs: Needs, takes_sealed: bool) -> Option<&[u8]> {
    let (header, rest) = datagram.split_first_chunk::<HEADER_BYTES>()?;
    let length = u16::from_be_bytes([header[11], header[12]]);
    let (text, rest) = rest.split_at_checked(length.into())?;
    let is_good = match (header[0], header[3..5] == [0, 0]) {
        (ALERT, true) => false,
        (HANDSHAKE, true) => are_messages(text, needs, takes_sealed),
        _ => takes_sealed,
    };
    is_good.then_some(rest)
}

/// What follows a record of DTLS 1.3; none: it is cut off. Without a length it is the last one, and nobody here has agreed on an
/// identifier: `dimpl` looks at nothing behind one.
fn after_sealed(datagram: &[u8]) -> Option<&[u8]> {
    let first = *datagram.first()?;
    let number = 1 + usize::from(first & LONG_NUMBER != 0);
    if first & CONNECTION_ID != 0 || first & HAS_LENGTH == 0 {
        return Some(&[]);
    }
    let (length, rest) = datagram.get(1 + number..)?.split_first_chunk()?;
    rest.get(u16::from_be_bytes(*length).into()..)
}

/// Whether they are whole messages that are needed, or pieces of such (RFC 6347 4.2.2).
fn are_messages(mut bytes: &[u8], needs: Needs, mut has_hello: bool) -> bool {
    loop {
        let Some((header, rest)) = bytes.split_first_chunk::<12>() else {
            return false;
        };
        let number =
            |at: usize| u32::from_be_bytes([0, header[at], header[at + 1], header[at + 2]]);
        let (all, offset, length) = (number(1), number(6), number(9));
        let Some(next) = rest.get(length as usize..) else {
            return false;
        };
        if offset + length > all || !needs.has(header[0], has_hello) {
            return false;
        }
        if next.is_empty() {
            return true;
        }
        (bytes, has_hello) = (next, true);
    }
}
