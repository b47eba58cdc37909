//! Parity of the packets of one frame: a systematic Reed-Solomon code over GF(256).
//!
//! ```text
//! parity[i] = sum over all j of factor(i, j) x source[j]        sources have the same length
//! factor(i, j) = 1 / ((128 + i) xor j)                          a Cauchy matrix
//! ```
//!
//! Each square part of a Cauchy matrix can be inverted, so any `k` of the sources and parities
//! restore all `k` sources.

use crate::gf256::{Sum, add_times, inverse, multiply};

/// Most sources of a code, and most parities.
pub const MAX_PACKETS: usize = 128;

/// Returns the factor of a source in a parity, never 0. Both numbers are below [`MAX_PACKETS`].
fn factor(parity: u8, source: u8) -> u8 {
    inverse((128 | parity) ^ source)
}

/// Returns a parity of these sources, which have at most the length of the first one. `None` if
/// there is none, or more than [`MAX_PACKETS`], or the number of the parity is not below that.
pub fn parity<'a>(number: u8, sources: impl Iterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
    let mut sources = sources.enumerate().peekable();
    let mut sum = Sum::default();
    sum.begin(sources.peek()?.1.len());
    for (at, source) in sources {
        if at >= MAX_PACKETS || usize::from(number) >= MAX_PACKETS {
            return None;
        }
        sum.add(factor(number, at as u8), 0, source);
    }
    Some(sum.finish().to_vec())
}

/// Restores missing sources from parities, which have numbers. All have `size` bytes.
///
/// Returns `false`, and changes nothing, if there are not as many different parities as missing
/// sources, or a length or number is wrong.
#[must_use]
pub fn restore(sources: &mut [Option<Vec<u8>>], parities: &[(u8, &[u8])], size: usize) -> bool {
    let is_missing = |(_, source): &(usize, &Option<Vec<u8>>)| source.is_none();
    let missing: Vec<usize> = sources
        .iter()
        .enumerate()
        .filter(is_missing)
        .map(|(at, _)| at)
        .collect();
    let mut used: Vec<(u8, &[u8])> = Vec::new();
    for (number, bytes) in parities {
        let is_new = used.iter().all(|(known, _)| known != number);
        if used.len() < missing.len() && is_new {
            used.push((*number, *bytes));
        }
    }
    let is_length = used.iter().all(|(number, bytes)| {
        bytes.len() == size && usize::from(*number) < MAX_PACKETS && !bytes.is_empty()
    });
    let are_lengths = sources.iter().flatten().all(|source| source.len() == size);
    if used.len() < missing.len() || sources.len() > MAX_PACKETS || !is_length || !are_lengths {
        return false;
    }
    // each parity less the known sources: an equation of the missing ones
    let mut rows: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for (number, bytes) in used {
        let mut sum = bytes.to_vec();
        for (at, source) in sources.iter().enumerate() {
            if let Some(source) = source {
                add_times(&mut sum, factor(number, at as u8), source);
            }
        }
        let factors = missing.iter().map(|at| factor(number, *at as u8));
        rows.push((factors.collect(), sum));
    }
    // Gauss and Jordan; all minors of a Cauchy matrix differ from 0, so no pivot is 0
    for column in 0..rows.len() {
        let Some(pivot) = rows[column].0.get(column).copied().filter(|p| *p != 0) else {
            return false;
        };
        scale(&mut rows[column], inverse(pivot));
        let (factors, sum) = rows[column].clone();
        for (at, row) in rows.iter_mut().enumerate() {
            let factor = row.0[column];
            if at != column && factor != 0 {
                add_times(&mut row.0, factor, &factors);
                add_times(&mut row.1, factor, &sum);
            }
        }
    }
    for (at, (_, source)) in missing.into_iter().zip(rows) {
        sources[at] = Some(source);
    }
    true
}

fn scale((factors, sum): &mut (Vec<u8>, Vec<u8>), by: u8) {
    for value in factors.iter_mut().chain(sum) {
        *value = multiply(*value, by);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all_parities(sources: &[Vec<u8>], count: usize) -> Vec<Vec<u8>> {
        let one = |number| parity(number, sources.iter().map(Vec::as_slice)).unwrap();
        (0..count as u8).map(one).collect()
    }

    proptest! {
        #[test]
        fn as_many_parities_as_sources_are_missing_restore_all(
            k in 1_usize..40,
            size in 1_usize..30,
            seed in any::<u64>(),
            gone in prop::collection::vec(any::<bool>(), 40),
            order in any::<u8>(),
        ) {
            let byte = |at: usize| (seed.wrapping_mul(at as u64 * 2 + 1) >> 32) as u8;
            let sources: Vec<Vec<u8>> =
                (0..k).map(|n| (0..size).map(|at| byte(n * size + at)).collect()).collect();
            let parities = all_parities(&sources, MAX_PACKETS);
            let mut came: Vec<_> = sources
                .iter()
                .zip(&gone)
                .map(|(source, gone)| (!gone).then(|| source.clone()))
                .collect();
            let missing = came.iter().filter(|one| one.is_none()).count();
            // any parities do, also the same one twice
            let numbers = (0..=missing).map(|n| (n + usize::from(order)) % MAX_PACKETS);
            let numbers: Vec<u8> = numbers.map(|n| n as u8).collect();
            let mut given: Vec<(u8, &[u8])> = Vec::new();
            for number in numbers.iter().take(missing) {
                given.push((*number, &parities[usize::from(*number)]));
                given.push((*number, &parities[usize::from(*number)]));
            }
            if missing > 0 {
                let mut few = came.clone();
                prop_assert!(!restore(&mut few, &given[2..], size));
                prop_assert_eq!(&few, &came, "nothing changes");
            }
            prop_assert!(restore(&mut came, &given, size));
            let came: Vec<Vec<u8>> = came.into_iter().flatten().collect();
            prop_assert_eq!(came, sources);
        }
    }

    #[test]
    fn the_whole_matrix_can_be_inverted() {
        let sources: Vec<Vec<u8>> = (0..MAX_PACKETS).map(|n| vec![n as u8, 7]).collect();
        let parities = all_parities(&sources, MAX_PACKETS);
        let given: Vec<(u8, &[u8])> = (0..).zip(parities.iter().map(Vec::as_slice)).collect();
        let mut came = vec![None; MAX_PACKETS];
        assert!(restore(&mut came, &given, 2));
        assert!(came.into_iter().flatten().eq(sources));
    }

    #[test]
    fn wrong_lengths_and_numbers_are_refused() {
        let sources = [vec![1, 2, 3], vec![4, 5, 6]];
        let whole = all_parities(&sources, 1);
        for (number, bytes, size) in [
            (0, &whole[0][..2], 3),
            (128, &whole[0][..], 3),
            (255, &whole[0][..], 3),
            (0, &whole[0][..], 4),
            (0, &[][..], 0),
        ] {
            let mut came = [Some(sources[0].clone()), None];
            assert!(!restore(&mut came, &[(number, bytes)], size));
        }
        let mut came = [Some(vec![1, 2]), None];
        assert!(!restore(&mut came, &[(0, &whole[0])], 3));
        let mut many = vec![Some(vec![1]); MAX_PACKETS + 1];
        many[3] = None;
        assert!(!restore(&mut many, &[(0, &[1])], 1));
        assert!(parity(128, sources.iter().map(Vec::as_slice)).is_none());
        assert!(parity(0, std::iter::empty()).is_none());
        let many = [[1_u8]; MAX_PACKETS + 1];
        assert!(parity(0, many.iter().map(|one| &one[..])).is_none());
    }

    #[test]
    fn golden_parity() {
        let sources = [&b"camera"[..], b"moves", b"!"];
        let made = [0, 1, 127].map(|number| parity(number, sources.into_iter()).unwrap());
        assert_eq!(made, GOLDEN);
    }

    const GOLDEN: [[u8; 6]; 3] = [
        [169, 15, 92, 81, 113, 210],
        [246, 242, 75, 81, 62, 162],
        [213, 167, 213, 95, 87, 154],
    ];
}
