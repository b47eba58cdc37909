//! The headers of Opus packets (RFC 6716, 3): duration, and bounds of the frames.

use crate::rtp::CLOCK_RATE;

/// Longest packet, in samples: 120 ms.
pub const MAX_SAMPLES: u32 = CLOCK_RATE / 1_000 * 120;
/// Longest frame in bytes.
const MAX_FRAME: usize = 1_275;

/// Returns the samples of a frame, at 48 kHz, from the first byte of a packet.
fn frame_samples(toc: u8) -> u32 {
    let config = toc >> 3;
    match config {
        // SILK: 10, 20, 40, 60 ms
        0..12 => [480, 960, 1_920, 2_880][usize::from(config & 3)],
        // hybrid: 10, 20 ms
        12..16 => [480, 960][usize::from(config & 1)],
        // CELT: 2.5, 5, 10, 20 ms
        _ => [120, 240, 480, 960][usize::from(config & 3)],
    }
}

/// Reads a length of one or two bytes; returns the rest too.
fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    if first < 252 {
        return Some((first.into(), rest));
    }
    let (&second, rest) = rest.split_first()?;
    Some((usize::from(second) * 4 + usize::from(first), rest))
}

/// Returns the samples of a packet at 48 kHz. None if it violates the rules R1 to R7 of Opus.
#[must_use]
pub fn samples(packet: &[u8]) -> Option<u32> {
    let (&toc, rest) = packet.split_first()?;
    let frames = match toc & 3 {
        0 => (rest.len() <= MAX_FRAME).then_some(1)?,
        1 => (rest.len().is_multiple_of(2) && rest.len() / 2 <= MAX_FRAME).then_some(2)?,
        2 => {
            let (first, rest) = length(rest)?;
            let second = rest.len().checked_sub(first)?;
            (second <= MAX_FRAME).then_some(2)?
        }
        _ => any_number_of_frames(rest)?,
    };
    let samples = frame_samples(toc) * frames;
    (samples <= MAX_SAMPLES).then_some(samples)
}

/// Returns the frames of a packet of code 3, which contains their count and lengths.
fn any_number_of_frames(rest: &[u8]) -> Option<u32> {
    let (&count, mut rest) = rest.split_first()?;
    let frames = usize::from(count & 0x3f);
    if frames == 0 {
        return None;
    }
    if count & 0x40 != 0 {
        let mut padding = 0;
        loop {
            let (&more, after) = rest.split_first()?;
            rest = after;
            // 255: 254 bytes, and another length follows
            padding += usize::from(more.min(254));
            if more != 255 {
                break;
            }
        }
        rest = rest.get(..rest.len().checked_sub(padding)?)?;
    }
    if count & 0x80 != 0 {
        let mut frames_of_own_length = 0;
        for _ in 1..frames {
            let (of_frame, after) = length(rest)?;
            rest = after;
            frames_of_own_length += of_frame;
        }
        let last = rest.len().checked_sub(frames_of_own_length)?;
        (last <= MAX_FRAME).then_some(())?;
    } else {
        let fits = rest.len().is_multiple_of(frames) && rest.len() / frames <= MAX_FRAME;
        fits.then_some(())?;
    }
    u32::try_from(frames).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_come_from_the_first_byte() {
        // SILK 60 ms, hybrid 10 ms, CELT 2.5 ms and 20 ms
        for (config, expected) in [(3, 2_880), (12, 480), (16, 120), (31, 960)] {
            assert_eq!(samples(&[config << 3, 1, 2]), Some(expected), "{config}");
        }
        assert_eq!(
            samples(&[31 << 3]),
            Some(960),
            "a frame without bytes is a lost one"
        );
        assert_eq!(samples(&[31 << 3 | 1, 1, 2]), Some(1_920));
        assert_eq!(
            samples(&[31 << 3 | 1, 1, 2, 3]),
            None,
            "two frames of one length"
        );
    }

    #[test]
    fn lengths_beyond_the_end_are_no_packet() {
        assert_eq!(samples(&[]), None);
        assert_eq!(samples(&[31 << 3 | 2, 2, 0, 0]), Some(1_920));
        assert_eq!(samples(&[31 << 3 | 2, 4, 0, 0]), None);
        assert_eq!(samples(&[31 << 3 | 2, 252]), None, "half a length");
        assert_eq!(samples(&[31 << 3 | 3]), None, "no count");
        assert_eq!(samples(&[31 << 3 | 3, 0]), None, "no frame");
        assert_eq!(samples(&[31 << 3 | 3, 7]), None, "140 ms");
        assert_eq!(samples(&[31 << 3 | 3, 6]), Some(5_760));
        assert_eq!(samples(&[31 << 3 | 3, 0x41, 3, 9, 0, 0, 0]), Some(960));
        assert_eq!(
            samples(&[31 << 3 | 3, 0x41, 3, 0, 0]),
            None,
            "more padding than bytes"
        );
        assert_eq!(
            samples(&[31 << 3 | 3, 0x41, 255, 255]),
            None,
            "padding without end"
        );
        assert_eq!(samples(&[31 << 3 | 3, 0x82, 1, 7, 8, 9]), Some(1_920));
        assert_eq!(samples(&[31 << 3 | 3, 0x82, 4, 7, 8, 9]), None);
        let too_long = [vec![31 << 3], vec![0; MAX_FRAME + 1]].concat();
        assert_eq!(samples(&too_long), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_measured_without_panic(packet in prop::collection::vec(any::<u8>(), 0..1_500)) {
            if let Some(samples) = samples(&packet) {
                prop_assert!((120..=MAX_SAMPLES).contains(&samples));
            }
        }
    }
}
