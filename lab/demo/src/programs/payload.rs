//! Payload of `mc-send`, by which `mc-recv` counts missing and duplicate datagrams.
//!
//! ```text
//! magic 8 | run 8 | sequence 8 | sent at (monotonic clock, ns) 8 | group 16 | noise
//! ```

use std::net::Ipv6Addr;

const MAGIC: u64 = 0x6c61_6220_7061_636b;

/// Bytes of the fixed part: the smallest datagram.
pub const HEADER: usize = 48;

/// The fixed part of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Random number of the sender process.
    pub run: u64,
    /// Number of the datagram within a run, from 0.
    pub sequence: u64,
    /// Time of sending, on the machine's monotonic clock.
    pub sent_ns: u64,
    /// The destination group.
    pub group: Ipv6Addr,
}

impl Header {
    /// Writes the fixed part over the beginning of `datagram`, which is long enough.
    pub fn write(&self, datagram: &mut [u8]) {
        let words = [MAGIC, self.run, self.sequence, self.sent_ns];
        for (slot, word) in datagram.chunks_exact_mut(8).zip(words) {
            slot.copy_from_slice(&word.to_be_bytes());
        }
        datagram[32..HEADER].copy_from_slice(&self.group.octets());
    }

    /// Reads the fixed part; `None` for a datagram of another program.
    pub fn read(datagram: &[u8]) -> Option<Header> {
        let word = |at: usize| {
            let bytes = datagram.get(at..at + 8)?;
            Some(u64::from_be_bytes(bytes.try_into().ok()?))
        };
        let group: [u8; 16] = datagram.get(32..HEADER)?.try_into().ok()?;
        (word(0)? == MAGIC).then_some(())?;
        Some(Header {
            run: word(8)?,
            sequence: word(16)?,
            sent_ns: word(24)?,
            group: group.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_the_wire_and_foreign_bytes_are_told_apart() {
        let group = "ff1e::9".parse().unwrap();
        let header = Header {
            run: 7,
            sequence: 8,
            sent_ns: 9,
            group,
        };
        let mut datagram = [0; 64];
        header.write(&mut datagram);
        assert_eq!(Header::read(&datagram), Some(header));
        assert_eq!(Header::read(&datagram[..HEADER - 1]), None);
        datagram[0] ^= 1;
        assert_eq!(Header::read(&datagram), None);
    }
}
