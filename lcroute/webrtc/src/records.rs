//! Headers of DTLS records, of 1.2 (RFC 6347) and 1.3 (RFC 9147).

/// DTLS content type (RFC 6347 4.1).
const APPLICATION_DATA: u8 = 23;
/// Highest bits of the first byte of a DTLS 1.3 ciphertext (RFC 9147 4).
const SEALED: u8 = 0b001;
/// Lowest bits of the epoch in that byte.
const EPOCH: u8 = 3;
/// The epoch of handshakes (RFC 9147 6.1).
const HANDSHAKE_EPOCH: u8 = 2;

/// Flags in that byte: a connection id follows; a number of 16 bits instead of 8; a length.
const CONNECTION_ID: u8 = 0x10;
const LONG_NUMBER: u8 = 0x08;
const HAS_LENGTH: u8 = 0x04;
/// Bytes of a DTLS 1.2 record header (RFC 6347 4.1).
const HEADER_BYTES: usize = 13;

/// Whether a datagram begins with a record sealed after the handshake.
pub(crate) fn is_data(datagram: &[u8]) -> bool {
    match datagram.first() {
        Some(&APPLICATION_DATA) => true,
        Some(first) => first >> 5 == SEALED && first & EPOCH != HANDSHAKE_EPOCH,
        None => false,
    }
}

/// Whether all records of a datagram are sealed: not of epoch 0 (RFC 6347 4.1), or of DTLS 1.3.
pub(crate) fn is_encrypted(mut datagram: &[u8]) -> bool {
    while !datagram.is_empty() {
        match after_record(datagram) {
            Some(next) => datagram = next,
            None => return false,
        }
    }
    true
}

/// Returns the bytes after the first record, if that is complete and sealed.
fn after_record(datagram: &[u8]) -> Option<&[u8]> {
    let first = *datagram.first()?;
    if first >> 5 != SEALED {
        let (header, rest) = datagram.split_first_chunk::<HEADER_BYTES>()?;
        let epoch = u16::from_be_bytes([header[3], header[4]]);
        let length = u16::from_be_bytes([header[11], header[12]]);
        return rest.get(length.into()..).filter(|_| epoch != 0);
    }
    // neither side negotiates connection ids
    let number = match first & (CONNECTION_ID | LONG_NUMBER) {
        0 => 1,
        LONG_NUMBER => 2,
        _ => return None,
    };
    let rest = datagram.get(1 + number..)?;
    if first & HAS_LENGTH == 0 {
        return rest.get(rest.len()..);
    }
    let (length, rest) = rest.split_first_chunk()?;
    rest.get(u16::from_be_bytes(*length).into()..)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(epoch: u8, length: u8) -> Vec<u8> {
        let mut record = vec![23, 254, 253, 0, epoch, 0, 0, 0, 0, 0, 1, 0, length];
        record.resize(13 + usize::from(length), 7);
        record
    }

    /// Makes a record of DTLS 1.3 (RFC 9147 4).
    fn sealed(flags: u8, number: usize, length: Option<u8>, text: usize) -> Vec<u8> {
        let mut record = vec![0x23 | flags];
        record.resize(1 + number, 0);
        record.extend(length.into_iter().flat_map(|length| [0, length]));
        record.resize(record.len() + text, 7);
        record
    }

    #[test]
    fn records_of_dtls_1_3_are_sealed_if_they_are_whole() {
        let last = sealed(LONG_NUMBER, 2, None, 40);
        let whole = sealed(LONG_NUMBER | HAS_LENGTH, 2, Some(40), 40);
        let short = sealed(HAS_LENGTH, 1, Some(40), 40);
        assert!(is_encrypted(&last));
        assert!(is_encrypted(&[whole.clone(), short, last].concat()));
        assert!(!is_encrypted(&whole[..30]));
        assert!(!is_encrypted(&[whole, record(0, 40)].concat()));
        let identified = sealed(LONG_NUMBER | CONNECTION_ID, 2, None, 40);
        assert!(!is_encrypted(&identified));
    }

    #[test]
    fn every_record_must_be_of_an_encrypted_epoch() {
        assert!(is_encrypted(&record(1, 40)));
        assert!(is_encrypted(&[record(1, 40), record(2, 1)].concat()));
        assert!(!is_encrypted(&record(0, 40)));
        assert!(!is_encrypted(&[record(1, 40), record(0, 1)].concat()));
        assert!(!is_encrypted(&record(1, 40)[..50]));
        assert!(!is_encrypted(&[record(1, 40), vec![0; 5]].concat()));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = is_encrypted(&bytes);
        }
    }
}
