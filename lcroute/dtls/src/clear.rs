//! Records in clear, which anybody may have written who knows both addresses: some of them end a handshake of `dimpl`.

/// Content type of alerts (RFC 6347 4.1).
const ALERT: u8 = 21;
/// Content type of handshakes.
const HANDSHAKE: u8 = 22;
/// Content types that have a header of 13 bytes; from 32 on is what DTLS 1.3 has sealed (RFC 9147 4).
const LONG_HEADER: std::ops::Range<u8> = 20..32;
/// Bytes of that header.
const HEADER_BYTES: usize = 13;

/// Whether a datagram begins with a record that a handshake needs, or that somebody has sealed. An alert in clear is
/// neither: `dimpl` would give up. A record of a handshake has messages in it: `dimpl` keeps one without until it gives up.
/// Until both ends have a version (`has_version`), nothing of another epoch is a hello: `dimpl` would take it for one.
pub(crate) fn is_worth_a_look(datagram: &[u8], has_version: bool) -> bool {
    let Some((header, rest)) = datagram.split_first_chunk::<HEADER_BYTES>() else {
        return datagram
            .first()
            .is_some_and(|kind| !LONG_HEADER.contains(kind));
    };
    if !LONG_HEADER.contains(&header[0]) {
        return true;
    }
    let length = u16::from_be_bytes([header[11], header[12]]);
    let is_clear = header[3..5] == [0, 0];
    match rest.get(..length.into()) {
        None => false,
        Some(_) if header[0] == ALERT && is_clear => false,
        Some(_) if !has_version && !is_clear => false,
        Some(messages) if header[0] == HANDSHAKE && is_clear => are_messages(messages),
        Some(_) => true,
    }
}

/// Whether they are whole messages, or pieces of such (RFC 6347 4.2.2).
fn are_messages(mut bytes: &[u8]) -> bool {
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
        if offset + length > all {
            return false;
        }
        if next.is_empty() {
            return true;
        }
        bytes = next;
    }
}
