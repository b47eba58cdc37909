//! Plaintext records, which anybody with both addresses can forge: some end a handshake of `dimpl`.

use dimpl::ProtocolVersion;

/// Content type of alerts (RFC 6347 4.1).
const ALERT: u8 = 21;
/// Content type of handshakes.
const HANDSHAKE: u8 = 22;
/// Content types with a header of 13 bytes; DTLS 1.3 ciphertext begins at 32 (RFC 9147 4).
const LONG_HEADER: std::ops::Range<u8> = 20..32;
/// Type of a client's first message (RFC 6347 4.3.2).
const CLIENT_HELLO: u8 = 1;
/// Type of the message in which a server selects version and keys (RFC 6347 4.3.2).
const SERVER_HELLO: u8 = 2;
/// Type of a DTLS 1.2 server's request for a cookie (RFC 6347 4.3.2).
const HELLO_VERIFY_REQUEST: u8 = 3;
/// Bytes of the long header of a record (RFC 6347 4.1).
const HEADER_BYTES: usize = 13;

/// Flag in the first byte of DTLS 1.3 ciphertext (RFC 9147 4): a connection id follows.
const CONNECTION_ID: u8 = 0x10;
/// Flag in that byte (RFC 9147 4): the record number has 16 bits instead of 8.
const LONG_NUMBER: u8 = 0x08;
/// Flag in that byte (RFC 9147 4): the record has a length, and more records may follow.
const HAS_LENGTH: u8 = 0x04;

/// Plaintext that an end needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Needs {
    pub(crate) is_client: bool,
    /// Set once both ends have one.
    pub(crate) version: Option<ProtocolVersion>,
}

impl Needs {
    /// Whether a message of this type is needed: DTLS 1.3 seals all but hellos. After its hello
    /// (`has_hello`) a DTLS 1.2 server sends other messages in plaintext.
    fn has(self, kind: u8, has_hello: bool) -> bool {
        match (self.version, self.is_client) {
            (Some(ProtocolVersion::DTLS1_2), _) => true,
            (_, false) => kind == CLIENT_HELLO,
            (Some(_), true) => kind == SERVER_HELLO,
            (None, true) => has_hello || matches!(kind, SERVER_HELLO | HELLO_VERIFY_REQUEST),
        }
    }
}

/// Whether a datagram contains only ciphertext and plaintext that the handshake needs. It must have
/// no plaintext alert, at which `dimpl` gives up, and no unneeded handshake message, which `dimpl`
/// keeps until it gives up. Without a version yet, a hello must come first: ciphertext has no key,
/// and `dimpl` would take a record of another epoch for a hello.
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

/// Returns the bytes after a record with the long header, if that is complete and acceptable.
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

/// Returns the bytes after a DTLS 1.3 record; `None` if it is truncated. One without a length is
/// the last. No connection ids are negotiated: `dimpl` ignores bytes after one.
fn after_sealed(datagram: &[u8]) -> Option<&[u8]> {
    let first = *datagram.first()?;
    let number = 1 + usize::from(first & LONG_NUMBER != 0);
    if first & CONNECTION_ID != 0 || first & HAS_LENGTH == 0 {
        return Some(&[]);
    }
    let (length, rest) = datagram.get(1 + number..)?.split_first_chunk()?;
    rest.get(u16::from_be_bytes(*length).into()..)
}

/// Whether the bytes are complete, needed messages, or fragments of them (RFC 6347 4.2.2).
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
