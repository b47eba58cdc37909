//! Arithmetic in GF(256), polynomial 0x11d as in RFC 8681: sums of packets with factors.

/// x^8 + x^4 + x^3 + x^2 + 1, as RFC 5510 8.1.
const POLYNOMIAL: u16 = 0x11d;

/// Logarithms, and powers of 2 twice in sequence.
const TABLES: ([u8; 256], [u8; 512]) = tables();

const fn tables() -> ([u8; 256], [u8; 512]) {
    let (mut log, mut power) = ([0; 256], [0; 512]);
    let (mut value, mut n) = (1_u16, 0);
    while n < 255 {
        (power[n], power[n + 255]) = (value as u8, value as u8);
        log[value as usize] = n as u8;
        value <<= 1;
        if value > 255 {
            value ^= POLYNOMIAL;
        }
        n += 1;
    }
    (log, power)
}

/// Returns the product.
pub fn multiply(a: u8, b: u8) -> u8 {
    if a == 0 || b == 0 {
        return 0;
    }
    let log = |n: u8| usize::from(TABLES.0[usize::from(n)]);
    TABLES.1[log(a) + log(b)]
}

/// Returns the inverse of a nonzero value.
pub fn inverse(a: u8) -> u8 {
    TABLES.1[255 - usize::from(TABLES.0[usize::from(a)])]
}

/// Doubles a byte without a branch, so that the compiler can vectorise it.
fn double(byte: u8) -> u8 {
    let carry = (byte.cast_signed() >> 7).cast_unsigned();
    byte << 1 ^ carry & POLYNOMIAL as u8
}

/// Adds bytes up to the shorter length.
pub fn add(to: &mut [u8], bytes: &[u8]) {
    to.iter_mut().zip(bytes).for_each(|(to, byte)| *to ^= byte);
}

/// Adds `factor` times `bytes` up to the shorter length.
pub fn add_times(to: &mut [u8], factor: u8, bytes: &[u8]) {
    let masks: [u8; 8] = std::array::from_fn(|bit| 0_u8.wrapping_sub(factor >> bit & 1));
    for (to, byte) in to.iter_mut().zip(bytes) {
        let mut power = *byte;
        for mask in masks {
            *to ^= power & mask;
            power = double(power);
        }
    }
}

/// A sum of byte strings with factors, which doubles once at the end instead of once per string:
/// plane n has the sum of the strings whose factor has bit n.
#[derive(Debug, Default)]
pub struct Sum {
    planes: Vec<u8>,
    size: usize,
}

impl Sum {
    /// Begins a sum of `size` bytes.
    pub fn begin(&mut self, size: usize) {
        self.size = size.max(1);
        self.planes.clear();
        self.planes.resize(8 * self.size, 0);
    }

    /// Adds `factor` times `bytes` at offset `at`; drops bytes beyond the end.
    pub fn add(&mut self, factor: u8, at: usize, bytes: &[u8]) {
        let planes = self.planes.chunks_exact_mut(self.size).enumerate();
        for (_, plane) in planes.filter(|(bit, _)| factor >> bit & 1 != 0) {
            add(plane.get_mut(at..).unwrap_or_default(), bytes);
        }
    }

    /// Returns the sum.
    pub fn finish(&mut self) -> &[u8] {
        let (lower, sum) = self.planes.split_at_mut(7 * self.size);
        for plane in lower.chunks_exact(self.size).rev() {
            for (sum, byte) in sum.iter_mut().zip(plane) {
                *sum = double(*sum) ^ byte;
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, bit by bit.
    fn slow(a: u8, b: u8) -> u8 {
        let (mut product, mut power) = (0, u16::from(a));
        for bit in 0..8 {
            if b >> bit & 1 != 0 {
                product ^= power;
            }
            power <<= 1;
            if power > 255 {
                power ^= POLYNOMIAL;
            }
        }
        product as u8
    }

    #[test]
    fn products_and_inverses() {
        for a in 0..=255 {
            for b in 0..=255 {
                assert_eq!(multiply(a, b), slow(a, b));
            }
            if a != 0 {
                assert_eq!(multiply(a, inverse(a)), 1);
            }
        }
    }

    proptest! {
        #[test]
        fn sums_are_those_of_their_products(
            terms in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 1..40)), 1..9)) {
            let (mut expected, mut one_by_one, mut sum) = ([0; 40], [0; 40], Sum::default());
            sum.begin(40);
            for (factor, bytes) in &terms {
                for (e, byte) in expected.iter_mut().zip(bytes) {
                    *e ^= slow(*factor, *byte);
                }
                add_times(&mut one_by_one, *factor, bytes);
                sum.add(*factor, 0, bytes);
            }
            prop_assert_eq!(one_by_one, expected);
            prop_assert_eq!(sum.finish(), expected);
        }
    }
}
