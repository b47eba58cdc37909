//! The Internet checksum (RFC 1071), fast enough for every packet.

use std::net::Ipv6Addr;

/// A ones' complement sum of 16-bit words, not complemented yet.
///
/// It adds words of 32 bits in the machine's byte order, which the compiler vectorizes; the end
/// swaps the bytes (RFC 1071 §2).
#[derive(Debug, Clone, Copy, Default)]
pub struct Sum(u64);

impl Sum {
    /// Returns the sum of the pseudo-header of a message of `length` bytes (RFC 8200 §8.1).
    #[must_use]
    pub fn pseudo_header(
        next_header: u8,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        length: u32,
    ) -> Self {
        Self::default()
            .bytes(&source.octets())
            .bytes(&destination.octets())
            .bytes(&length.to_be_bytes())
            .word(next_header.into())
    }

    /// Adds `bytes`, which begin at an even offset of the message.
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<4>();
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        let words = words
            .iter()
            .map(|word| u64::from(u32::from_ne_bytes(*word)));
        let sum = words.sum::<u64>() + u64::from(u32::from_ne_bytes(last));
        Self(self.0 + (sum & 0xffff_ffff) + (sum >> 32))
    }

    /// Adds one word in host order.
    #[must_use]
    pub fn word(self, word: u16) -> Self {
        Self(self.0 + u64::from(word.to_be()))
    }

    /// Returns the sum in 16 bits: 0xffff over a valid message. The checksum is its complement.
    #[must_use]
    pub fn fold(self) -> u16 {
        let mut sum = self.0;
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::from_be(sum as u16)
    }
}

#[cfg(test)]
mod tests {
    use pnet_packet::util::checksum;
    use proptest::prelude::*;

    use super::*;

    /// For pnet_packet: no word is left out.
    const ALL_WORDS: usize = usize::MAX;

    #[test]
    fn the_example_of_rfc_1071() {
        let sum = Sum::default().bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.fold(), 0xddf2);
    }

    #[test]
    fn a_long_message_of_ones_does_not_overflow() {
        assert_eq!(Sum::default().bytes(&vec![0xff; 1 << 20]).fold(), 0xffff);
    }

    proptest! {
        #[test]
        fn sums_of_parts_are_sums_of_words(
            first in prop::collection::vec(any::<u16>(), 0..40),
            rest in prop::collection::vec(any::<u8>(), 0..200),
            word: u16,
        ) {
            let first: Vec<u8> = first.into_iter().flat_map(u16::to_be_bytes).collect();
            let all = [&first[..], &word.to_be_bytes(), &rest].concat();
            let sum = Sum::default().bytes(&first).word(word).bytes(&rest);
            prop_assert_eq!(!sum.fold(), checksum(&all, ALL_WORDS));
        }
    }
}
