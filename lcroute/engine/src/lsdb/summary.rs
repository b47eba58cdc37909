//! The comparison of two routers' databases.
//!
//! ```text
//! A                                                            B
//! | DIGEST (64 sums over A's LSAs) --------------------------> |   both at link up
//! | <---------------------------------------- DIGEST (B's)     |
//! | HAVE (names and versions, where the sums differ) --------> |   A requests missing LSAs
//! | <------------- LSAs that A lacks or has older, END         |   B asks in the same way
//! ```
//!
//! A router asks one neighbour at a time: with many new links all LSAs come over the first, and the
//! next neighbours are asked for remaining differences.
//!
//! IHAVE has names and versions of LSAs on the flood tree, for all other links.
//!
//! ```text
//! | IHAVE (names and versions of LSAs that did not come from B) -> |
//! | <--------------------------------------- IWANT (names)         |   LSAs that B needs
//! | LSAs ---------------------------------------------------------> |
//! ```

use std::ops::RangeInclusive;

use librecast::wire::{Reader, WireError, Writer};

use super::lsa::{LsaId, Version};
use crate::graph::mix;

/// Parts that the keys are divided into, by their first bits.
pub const BUCKETS: usize = 64;
/// Shift that leaves the bucket bits of a key.
const BUCKET_SHIFT: u32 = 64 - BUCKETS.trailing_zeros();
/// Most entries of one HAVE or IHAVE: they fit into a message.
pub(crate) const MAX_ENTRIES: usize = 900;

/// Form of a summary: digests of all buckets.
const FORM_DIGEST: u8 = 1;
/// The same, with a request for the neighbour's digests.
const FORM_DIGEST_ASK: u8 = 2;
/// Entries of buckets that differ.
const FORM_HAVE: u8 = 3;
/// The last of them.
const FORM_HAVE_LAST: u8 = 4;
/// The end of the answer to HAVE.
const FORM_END: u8 = 5;
/// LSAs that the neighbour may request.
const FORM_IHAVE: u8 = 6;
/// LSAs that are requested.
const FORM_IWANT: u8 = 7;

/// Name and version of an LSA that the sender has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SummaryEntry {
    /// The name.
    pub id: LsaId,
    /// The version.
    pub version: Version,
}

/// The value of a SUMMARY element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Summary {
    /// Sums over the sender's own LSAs and those of routers that it reaches.
    Digest {
        /// The sender requests the receiver's digest.
        ask: bool,
        /// By the first bits of the key.
        buckets: Box<[u64; BUCKETS]>,
    },
    /// All LSAs of the sender with keys of this range; the receiver sends the missing ones.
    Have {
        /// First key.
        from: u64,
        /// Last key.
        to: u64,
        /// The last HAVE: END follows its answer.
        last: bool,
        /// In ascending order.
        entries: Vec<SummaryEntry>,
    },
    /// All requested LSAs have been sent.
    End,
    /// LSAs that the sender has and the receiver may lack, in ascending order.
    IHave(Vec<SummaryEntry>),
    /// Requested LSAs, in ascending order.
    IWant(Vec<LsaId>),
}

impl Summary {
    /// Appends the value of the element: at most 15,317 bytes.
    pub fn encode(&self, w: &mut Writer) {
        match self {
            Self::Digest { ask, buckets } => {
                w.u8(if *ask { FORM_DIGEST_ASK } else { FORM_DIGEST });
                for sum in buckets.iter() {
                    w.u64(*sum);
                }
            }
            Self::Have {
                from,
                to,
                last,
                entries,
            } => {
                w.u8(if *last { FORM_HAVE_LAST } else { FORM_HAVE });
                w.u64(*from).u64(*to);
                encode_entries(entries, w);
            }
            Self::IHave(entries) => {
                w.u8(FORM_IHAVE);
                encode_entries(entries, w);
            }
            Self::IWant(ids) => {
                w.u8(FORM_IWANT);
                for id in ids {
                    w.u64(id.key).u8(id.kind);
                }
            }
            Self::End => {
                w.u8(FORM_END);
            }
        }
    }

    /// Reads the value of an element to its end.
    pub fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let summary = match r.u8()? {
            form @ (FORM_DIGEST | FORM_DIGEST_ASK) => {
                let mut buckets = Box::new([0; BUCKETS]);
                for sum in buckets.iter_mut() {
                    *sum = r.u64()?;
                }
                Self::Digest {
                    ask: form == FORM_DIGEST_ASK,
                    buckets,
                }
            }
            form @ (FORM_HAVE | FORM_HAVE_LAST) => {
                let (from, to) = (r.u64()?, r.u64()?);
                Self::Have {
                    from,
                    to,
                    last: form == FORM_HAVE_LAST,
                    entries: decode_entries(r, from, to)?,
                }
            }
            FORM_END => Self::End,
            FORM_IHAVE => Self::IHave(decode_entries(r, 0, u64::MAX)?),
            FORM_IWANT => Self::IWant(decode_ids(r)?),
            _ => return Err(WireError::Bad("summary form")),
        };
        r.clone().finish()?;
        Ok(summary)
    }
}

fn encode_entries(entries: &[SummaryEntry], w: &mut Writer) {
    for entry in entries {
        w.u64(entry.id.key).u8(entry.id.kind).u64(entry.version.0);
    }
}

fn decode_ids(r: &mut Reader<'_>) -> Result<Vec<LsaId>, WireError> {
    let mut ids: Vec<LsaId> = Vec::new();
    while !r.is_empty() {
        let (key, kind) = (r.u64()?, r.u8()?);
        let id = LsaId { key, kind };
        if ids.last().is_some_and(|before| *before >= id) || ids.len() == MAX_ENTRIES {
            return Err(WireError::Bad("asked LSA"));
        }
        ids.push(id);
    }
    Ok(ids)
}

fn decode_entries(r: &mut Reader<'_>, from: u64, to: u64) -> Result<Vec<SummaryEntry>, WireError> {
    let mut entries: Vec<SummaryEntry> = Vec::new();
    while !r.is_empty() {
        let (key, kind, version) = (r.u64()?, r.u8()?, Version(r.u64()?));
        let id = LsaId { key, kind };
        let ordered = entries.last().is_none_or(|before| before.id < id);
        if !ordered || !(from..=to).contains(&key) || entries.len() == MAX_ENTRIES {
            return Err(WireError::Bad("summary entry"));
        }
        entries.push(SummaryEntry { id, version });
    }
    Ok(entries)
}

pub(crate) fn add_to(buckets: &mut [u64; BUCKETS], entry: &SummaryEntry) {
    let SummaryEntry { id, version } = entry;
    let sum = &mut buckets[(id.key >> BUCKET_SHIFT) as usize];
    let value = mix(mix(mix(id.key) ^ u64::from(id.kind)) ^ version.0);
    *sum = sum.wrapping_add(value);
}

/// The ranges of keys in which the sums differ, neighbouring ones joined.
pub(crate) fn differing(a: &[u64; BUCKETS], b: &[u64; BUCKETS]) -> Vec<RangeInclusive<u64>> {
    let mut ranges: Vec<RangeInclusive<u64>> = Vec::new();
    for bucket in (0..BUCKETS).filter(|&bucket| a[bucket] != b[bucket]) {
        let from = (bucket as u64) << BUCKET_SHIFT;
        let to = from | u64::MAX >> BUCKETS.trailing_zeros();
        match ranges.last_mut() {
            Some(last) if last.end().wrapping_add(1) == from => *last = *last.start()..=to,
            _ => ranges.push(from..=to),
        }
    }
    ranges
}

/// Appends HAVEs for all these keys; `entries`: the LSAs with these keys, in ascending order.
pub(crate) fn have(keys: RangeInclusive<u64>, entries: &[SummaryEntry], parts: &mut Vec<Summary>) {
    let mut rest = entries;
    let (mut from, to) = keys.into_inner();
    loop {
        let (part, end) = if rest.len() <= MAX_ENTRIES {
            (rest, to)
        } else {
            // all kinds of one key are in one part
            let next = rest[MAX_ENTRIES].id.key;
            let fits = rest.partition_point(|entry| entry.id.key < next);
            (&rest[..fits], next - 1)
        };
        parts.push(Summary::Have {
            from,
            to: end,
            last: false,
            entries: part.to_vec(),
        });
        if end == to {
            return;
        }
        rest = &rest[part.len()..];
        from = end + 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(key: u64, kind: u8, version: u64) -> SummaryEntry {
        SummaryEntry {
            id: LsaId { key, kind },
            version: Version(version),
        }
    }

    fn round_trip(summary: &Summary) -> Summary {
        let mut w = Writer::new();
        summary.encode(&mut w);
        assert!(w.len() <= 15_317, "{}", w.len());
        Summary::decode(&mut Reader::new(w.as_slice())).unwrap()
    }

    #[test]
    fn golden_bytes() {
        let have = Summary::Have {
            from: 1,
            to: 3,
            last: true,
            entries: vec![entry(2, 1, 7), entry(2, 2, 9)],
        };
        let mut w = Writer::new();
        have.encode(&mut w);
        let expected = [
            &[4, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 3][..],
            &[0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 7],
            &[0, 0, 0, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 0, 0, 0, 9],
        ];
        assert_eq!(w.as_slice(), expected.concat());
        assert_eq!(round_trip(&Summary::End), Summary::End);
        let (ihave, iwant) = (
            Summary::IHave(vec![entry(2, 1, 7), entry(2, 2, 9)]),
            Summary::IWant(vec![entry(2, 2, 9).id]),
        );
        let mut w = Writer::new();
        ihave.encode(&mut w);
        assert_eq!(w.as_slice(), [&[6][..], expected[1], expected[2]].concat());
        let mut w = Writer::new();
        iwant.encode(&mut w);
        assert_eq!(w.as_slice(), [7, 0, 0, 0, 0, 0, 0, 0, 2, 2]);
        assert_eq!((round_trip(&ihave), round_trip(&iwant)), (ihave, iwant));
    }

    #[test]
    fn entries_are_in_order_and_inside() {
        for entries in [
            vec![entry(2, 2, 1), entry(2, 1, 1)],
            vec![entry(2, 1, 1), entry(2, 1, 2)],
            vec![entry(4, 1, 1)],
        ] {
            let mut w = Writer::new();
            Summary::Have {
                from: 1,
                to: 3,
                last: false,
                entries,
            }
            .encode(&mut w);
            assert!(Summary::decode(&mut Reader::new(w.as_slice())).is_err());
        }
        let twice = Summary::IWant(vec![entry(2, 1, 1).id; 2]);
        let mut w = Writer::new();
        twice.encode(&mut w);
        assert!(Summary::decode(&mut Reader::new(w.as_slice())).is_err());
    }

    #[test]
    fn differing_ranges_are_joined() {
        let (a, mut b) = ([0; BUCKETS], [0; BUCKETS]);
        assert_eq!(differing(&a, &b), []);
        for bucket in [0, 1, 62, 63] {
            b[bucket] = 1;
        }
        let expected = [0..=(2 << 58) - 1, 62 << 58..=u64::MAX];
        assert_eq!(differing(&a, &b), expected);
        assert_eq!(differing(&a, &[1; BUCKETS]), [0..=u64::MAX]);
    }

    proptest! {
        #[test]
        fn parts_say_all_and_leave_no_gap(
            keys in prop::collection::btree_set(1_000u64..10_000, 0..2_500), both: bool,
        ) {
            let kinds: &[u8] = if both { &[1, 2] } else { &[2] };
            let entries: Vec<_> = keys
                .iter()
                .flat_map(|&key| kinds.iter().map(move |&kind| entry(key, kind, key * 3)))
                .collect();
            let mut parts = Vec::new();
            have(1_000..=20_000, &entries, &mut parts);
            let (mut next, mut originated) = (1_000, Vec::new());
            for part in &parts {
                let Summary::Have { from, to, entries, .. } = round_trip(part) else {
                    panic!("another form");
                };
                prop_assert_eq!(from, next);
                next = to + 1;
                originated.extend(entries);
            }
            prop_assert_eq!(next, 20_001);
            prop_assert_eq!(originated, entries);
        }

        #[test]
        fn digests_survive_the_wire(sums in prop::collection::vec(any::<u64>(), BUCKETS), ask: bool) {
            let summary = Summary::Digest { ask, buckets: Box::new(sums.try_into().unwrap()) };
            prop_assert_eq!(round_trip(&summary), summary);
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 1..200), form in 0u8..9) {
            bytes[0] = form;
            let _ = Summary::decode(&mut Reader::new(&bytes));
        }
    }
}
