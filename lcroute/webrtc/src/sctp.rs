//! Filter between DTLS, which authenticates a peer's SCTP packets, and `rtc-sctp`, which trusts
//! them too much (docs/adr/links.md).
//!
//! It drops chunks that make the stack panic or loop, and that no node sends:
//!
//! | chunk | dropped if |
//! |---|---|
//! | any | it is longer than its packet |
//! | ABORT, ERROR | a cause is longer than its chunk: a panic |
//! | FORWARD-TSN | it skips more than a window: one step of a loop for each TSN, 2^31 at most |
//! | SACK | its gaps overlap: one step for each TSN of each gap |
//! | those of a fixed form | they are longer: the stack reads the rest as chunks |
//! | INIT, INIT ACK, HEARTBEAT, HEARTBEAT ACK | parameters do not fill them, or may hide chunks |
//! | DATA | no channel of ours has its stream, or its TSN is far ahead: memory for each |
//! | RE-CONFIG | always: channels end with their connection |

/// Chunk type (RFC 9260 3.2).
const DATA: u8 = 0;
/// Chunk type.
const INIT: u8 = 1;
/// Chunk type.
const INIT_ACK: u8 = 2;
/// Chunk type.
const SACK: u8 = 3;
/// Chunk type.
const HEARTBEAT: u8 = 4;
/// Chunk type.
const HEARTBEAT_ACK: u8 = 5;
/// Chunk type.
const ABORT: u8 = 6;
/// Chunk type.
const ERROR: u8 = 9;
/// Chunk type.
const SHUTDOWN: u8 = 7;
/// Chunk type.
const SHUTDOWN_ACK: u8 = 8;
/// Chunk type.
const COOKIE_ACK: u8 = 11;
/// Chunk type.
const SHUTDOWN_COMPLETE: u8 = 14;
/// Chunk type (RFC 6525 3.1).
const RE_CONFIG: u8 = 130;
/// Chunk type (RFC 3758 3.2).
const FORWARD_TSN: u8 = 192;

/// Bytes before the first chunk (RFC 9260 3.1).
const COMMON_HEADER: usize = 12;
/// Bytes of an INIT before its parameters (RFC 9260 3.3.2).
const INIT_HEADER: usize = 16;
/// Parameter type (RFC 9260 3.3.5).
const HEARTBEAT_INFO: u16 = 1;
/// Parameter type (RFC 9260 3.3.3).
const STATE_COOKIE: u16 = 7;
/// Parameter type (RFC 4895 3.3).
const HMAC_ALGORITHMS: u16 = 0x8004;
/// Parameter type (RFC 3758 3.1).
const FORWARD_TSN_SUPPORTED: u16 = 0xc000;
/// Least parameter type that a receiver may skip by its length; the stack does.
const SKIPPED: u16 = 0x8000;
/// Bytes of a SACK before its gaps.
const SACK_HEADER: usize = 12;
/// Bound of a TSN beyond the acknowledged one: at most 1 MiB in flight, 80 bytes or more each.
const MAX_AHEAD: u32 = 1 << 15;
/// Bound of stream numbers: channels have three streams, from 0 on.
const MAX_STREAMS: u16 = 16;

/// Filter of one association.
#[derive(Debug, Default)]
pub struct Watch {
    /// The last TSN of the peer that this node acknowledged cumulatively.
    acknowledged: Option<u32>,
}

impl Watch {
    /// Notes a packet of ours: its SACKs show the stack's state.
    pub fn sent(&mut self, packet: &[u8]) {
        for (kind, value) in Chunks::of(packet).flatten() {
            if let (SACK, Some(tsn)) = (kind, number(value, 0)) {
                self.acknowledged = Some(tsn);
            }
        }
    }

    /// Whether the stack may receive a packet of the peer.
    #[must_use]
    pub fn admits(&mut self, packet: &[u8]) -> bool {
        packet.len() >= COMMON_HEADER
            && Chunks::of(packet).all(|chunk| {
                chunk.is_some_and(|(kind, value)| self.admits_chunk(kind, value) == Some(true))
            })
    }

    /// Whether the stack may receive a chunk; `None` if it is too short.
    fn admits_chunk(&mut self, kind: u8, value: &[u8]) -> Option<bool> {
        Some(match kind {
            DATA => {
                let [high, low] = *value.get(4..)?.first_chunk()?;
                let ahead = self.ahead(number(value, 0)?);
                u16::from_be_bytes([high, low]) < MAX_STREAMS && ahead.is_none_or(|n| n < MAX_AHEAD)
            }
            INIT | INIT_ACK => {
                // the stack may restart its TSNs
                self.acknowledged = None;
                are_parameters_whole(value.get(INIT_HEADER..)?)
            }
            HEARTBEAT | HEARTBEAT_ACK => {
                let [kind, length] = parameter(value)?;
                kind == HEARTBEAT_INFO && usize::from(length) == value.len()
            }
            SACK => are_gaps_in_order(value)?,
            ABORT | ERROR => are_causes_whole(value),
            RE_CONFIG => false,
            FORWARD_TSN => {
                let ahead = self.ahead(number(value, 0)?);
                value.len().is_multiple_of(4) && ahead.is_some_and(|n| n < MAX_AHEAD)
            }
            SHUTDOWN => value.len() == 4,
            SHUTDOWN_ACK | COOKIE_ACK | SHUTDOWN_COMPLETE => value.is_empty(),
            _ => true,
        })
    }

    /// Returns the distance of a TSN from the acknowledged one, at least 0. `None`: none was yet.
    fn ahead(&self, tsn: u32) -> Option<u32> {
        let ahead = tsn.wrapping_sub(self.acknowledged?);
        Some(if ahead <= 1 << 31 { ahead } else { 0 })
    }
}

/// Iterator over the chunks of a packet, type and value; a truncated one is `None`, and the last.
struct Chunks<'a> {
    rest: &'a [u8],
}

impl<'a> Chunks<'a> {
    fn of(packet: &'a [u8]) -> Self {
        let rest = packet.get(COMMON_HEADER..).unwrap_or_default();
        Self { rest }
    }
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Option<(u8, &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let rest = std::mem::take(&mut self.rest);
        let Some(&[kind, _, high, low]) = rest.first_chunk() else {
            return Some(None);
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let value = rest.get(4..length);
        // the last one may lack padding
        self.rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(value.map(|value| (kind, value)))
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn are_gaps_in_order(sack: &[u8]) -> Option<bool> {
    let [high, low] = *sack.get(8..)?.first_chunk()?;
    let count = usize::from(u16::from_be_bytes([high, low]));
    let [high, low] = *sack.get(10..)?.first_chunk()?;
    let duplicates = usize::from(u16::from_be_bytes([high, low]));
    if sack.len() != SACK_HEADER + 4 * (count + duplicates) {
        return None;
    }
    let gaps = sack.get(SACK_HEADER..SACK_HEADER + 4 * count)?;
    let (gaps, _) = gaps.as_chunks::<2>();
    let mut before = 0;
    Some(gaps.iter().all(|bound| {
        let bound = u16::from_be_bytes(*bound);
        let in_order = bound >= before;
        before = bound;
        in_order
    }))
}

/// Returns kind and length of the first parameter.
fn parameter(bytes: &[u8]) -> Option<[u16; 2]> {
    let &[a, b, c, d] = bytes.first_chunk()?;
    Some([u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])])
}

/// Whether each parameter is as long as its length field for the stack, and all fill the chunk.
fn are_parameters_whole(mut rest: &[u8]) -> bool {
    while let Some([kind, length]) = parameter(rest) {
        let whole = match kind {
            STATE_COOKIE => length >= 4,
            FORWARD_TSN_SUPPORTED => length == 4,
            HMAC_ALGORITHMS => length >= 4 && length.is_multiple_of(2),
            kind => kind >= SKIPPED && length >= 4,
        };
        let length = usize::from(length);
        if !whole || length > rest.len() {
            return false;
        }
        // the last one may lack padding
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    rest.is_empty()
}

fn are_causes_whole(mut causes: &[u8]) -> bool {
    while let Some(&[_, _, high, low]) = causes.first_chunk() {
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length < 4 {
            return false;
        }
        match causes.get(length..) {
            Some(next) => causes = next,
            None => return false,
        }
    }
    causes.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(chunks: &[(u8, &[u8])]) -> Vec<u8> {
        let mut packet = vec![7; COMMON_HEADER];
        for (kind, value) in chunks {
            let length = u16::try_from(value.len() + 4).unwrap().to_be_bytes();
            packet.extend([*kind, 0, length[0], length[1]]);
            packet.extend(*value);
            packet.resize(packet.len().next_multiple_of(4), 0);
        }
        packet
    }

    fn data(tsn: u32, stream: u16) -> Vec<u8> {
        let mut value = tsn.to_be_bytes().to_vec();
        value.extend(stream.to_be_bytes());
        value.extend([0, 0, 0, 0, 0, 53, 1, 2, 3]);
        value
    }

    fn sack(cumulative: u32, gaps: &[[u16; 2]]) -> Vec<u8> {
        let mut value = cumulative.to_be_bytes().to_vec();
        value.extend([0, 1, 0, 0]);
        value.extend(u16::try_from(gaps.len()).unwrap().to_be_bytes());
        value.extend([0, 0]);
        value.extend(gaps.iter().flatten().flat_map(|bound| bound.to_be_bytes()));
        value
    }

    /// Makes a filter after this cumulative acknowledgement.
    fn watch(acknowledged: u32) -> Watch {
        let mut watch = Watch::default();
        watch.sent(&packet(&[(4, &[1]), (SACK, &sack(acknowledged, &[]))]));
        watch
    }

    fn admits(watch: &mut Watch, kind: u8, value: &[u8]) -> bool {
        watch.admits(&packet(&[(10, &[1; 9]), (kind, value)]))
    }

    #[test]
    fn causes_must_lie_inside_of_their_chunk() {
        for kind in [ABORT, ERROR] {
            let mut watch = watch(9);
            for good in [
                &[][..],
                &[0, 12, 0, 4],
                &[0, 12, 0, 5, 1],
                &[0, 1, 0, 4, 0, 1, 0, 4],
            ] {
                assert!(admits(&mut watch, kind, good), "{good:?}");
            }
            for bad in [
                &[0, 1, 255, 255][..],
                &[0, 1, 0, 5],
                &[0, 1, 0, 0],
                &[0, 1, 0, 4, 0, 1, 0, 9],
            ] {
                assert!(!admits(&mut watch, kind, bad), "{bad:?}");
            }
        }
    }

    #[test]
    fn nothing_is_skipped_but_a_window() {
        for acknowledged in [0, 5, 1 << 31, u32::MAX - 5] {
            let mut watch = watch(acknowledged);
            let mut skips = |ahead: u32| {
                let tsn = acknowledged.wrapping_add(ahead).to_be_bytes();
                admits(&mut watch, FORWARD_TSN, &tsn)
            };
            assert!(skips(1) && skips(MAX_AHEAD - 1) && skips(u32::MAX));
            assert!(
                !skips(MAX_AHEAD) && !skips(1 << 30) && !skips((1 << 31) - 1) && !skips(1 << 31)
            );
        }
        let mut watch = watch(5);
        assert!(admits(&mut watch, FORWARD_TSN, &[0, 0, 0, 9]));
        assert!(!admits(&mut watch, FORWARD_TSN, &[0, 0]));
        // INIT: the stack's TSNs are unknown until it acknowledges
        let init = [0, 0, 0, 1, 0, 1, 0, 0, 0, 9, 0, 9, 128, 0, 0, 0];
        assert!(admits(&mut watch, INIT, &init));
        assert!(!admits(&mut watch, FORWARD_TSN, &[0, 0, 0, 9]));
        assert!(
            admits(&mut watch, DATA, &data(1 << 31, 1)),
            "any may be the first"
        );
    }

    #[test]
    fn data_is_of_few_streams_and_not_far_ahead() {
        let mut watch = watch(1_000);
        for (tsn, stream, admitted) in [
            (1_001, 0, true),
            (900, 15, true),
            (1_000 + MAX_AHEAD, 0, false),
            (1_001, 16, false),
            (1_001, u16::MAX, false),
        ] {
            assert_eq!(
                admits(&mut watch, DATA, &data(tsn, stream)),
                admitted,
                "{tsn} {stream}"
            );
        }
        assert!(!admits(&mut watch, DATA, &[0, 0, 0, 1]));
    }

    #[test]
    fn gaps_do_not_overlap_and_streams_are_not_reset() {
        let mut watch = watch(5);
        assert!(admits(&mut watch, SACK, &sack(1, &[])));
        assert!(admits(
            &mut watch,
            SACK,
            &sack(1, &[[2, 3], [5, 5], [7, u16::MAX]])
        ));
        assert!(!admits(&mut watch, SACK, &sack(1, &[[2, 9], [2, 9]])));
        assert!(!admits(&mut watch, SACK, &sack(1, &[[9, 2]])));
        assert!(!admits(&mut watch, SACK, &sack(1, &[[2, 9]])[..14]));
        assert!(!admits(
            &mut watch,
            RE_CONFIG,
            &[0, 13, 0, 16, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1]
        ));
    }

    #[test]
    fn nothing_hides_behind_a_chunk_of_a_fixed_form() {
        let hidden = packet(&[(ERROR, &[0, 1, 255, 255])]).split_off(COMMON_HEADER);
        let forms = [
            (SHUTDOWN, vec![0; 4]),
            (SHUTDOWN_ACK, vec![]),
            (COOKIE_ACK, vec![]),
            (SHUTDOWN_COMPLETE, vec![]),
            (SACK, sack(1, &[[2, 3]])),
        ];
        for (kind, value) in forms {
            let mut watch = watch(9);
            assert!(admits(&mut watch, kind, &value), "{kind}");
            let longer = [value, hidden.clone()].concat();
            assert!(!admits(&mut watch, kind, &longer), "{kind}");
        }
    }

    #[test]
    fn nothing_hides_behind_parameters() {
        let hidden = packet(&[(FORWARD_TSN, &[0x7f; 4])]).split_off(COMMON_HEADER);
        let parameter = |kind: u16, value: &[u8]| {
            let length = u16::try_from(value.len() + 4).unwrap();
            [&kind.to_be_bytes()[..], &length.to_be_bytes(), value].concat()
        };
        let init = |parameters: &[u8]| [&[1; INIT_HEADER], parameters].concat();
        let cookie = parameter(STATE_COOKIE, &[3; 32]);
        let extensions = parameter(0x8008, &[130, 192]);
        let padded = [
            extensions.clone(),
            vec![0; 2],
            parameter(FORWARD_TSN_SUPPORTED, &[]),
        ]
        .concat();
        for kind in [INIT, INIT_ACK] {
            for good in [&[][..], &cookie, &extensions, &padded] {
                assert!(admits(&mut watch(9), kind, &init(good)), "{kind} {good:?}");
            }
            for bad in [
                hidden.clone(),
                [cookie.clone(), hidden.clone()].concat(),
                parameter(FORWARD_TSN_SUPPORTED, &hidden),
                parameter(13, &[&[0; 12], &hidden[..]].concat()),
                parameter(16, &[&[0; 8], &hidden[..]].concat()),
                parameter(HMAC_ALGORITHMS, &[0, 1, 0]),
                vec![0x80, 8, 0, 3],
                vec![0x80, 8, 0, 9, 1],
                vec![1, 2],
            ] {
                assert!(!admits(&mut watch(9), kind, &init(&bad)), "{kind} {bad:?}");
            }
            assert!(!admits(&mut watch(9), kind, &[1; INIT_HEADER - 1]));
        }
        let info = parameter(HEARTBEAT_INFO, &[5; 8]);
        for kind in [HEARTBEAT, HEARTBEAT_ACK] {
            assert!(admits(&mut watch(9), kind, &info));
            assert!(!admits(
                &mut watch(9),
                kind,
                &[info.clone(), hidden.clone()].concat()
            ));
            assert!(!admits(&mut watch(9), kind, &cookie));
            assert!(!admits(&mut watch(9), kind, &[]));
        }
    }

    #[test]
    fn a_chunk_lies_inside_of_its_packet() {
        let mut watch = watch(5);
        let good = packet(&[(10, &[1; 8]), (11, &[])]);
        assert!(watch.admits(&good));
        for length in 0..good.len() {
            let whole = length == good.len() - 4 || length == COMMON_HEADER;
            assert_eq!(watch.admits(&good[..length]), whole, "{length}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), kind: u8) {
            let mut watch = watch(5);
            let _ = watch.admits(&bytes);
            watch.sent(&bytes);
            for kind in [kind, DATA, INIT, SACK, ERROR, FORWARD_TSN] {
                let _ = admits(&mut watch, kind, &bytes);
            }
        }
    }
}
