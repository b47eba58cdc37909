//! Encoded sound, recognised by its first bytes: as samples it would be noise at full level.

/// Bytes that decide about a magic number: of ISO media, it has four bytes of length before it.
pub const HEAD: usize = 8;
/// Bytes within which a second frame of MP3 or AAC begins: the longest of ADTS (ISO/IEC 13818-7,
/// a length of 13 bits), and the head of the next one.
pub const FRAMES: usize = (1 << 13) + 7;

/// Magic numbers of formats that carry sound: FLAC, Ogg, AIFF, long WAV, Sun, CAF, SoX, ADIF,
/// Matroska.
const MAGIC: [&[u8]; 10] = [
    b"fLaC",
    b"OggS",
    b"FORM",
    b"RF64",
    b".snd",
    b"caff",
    b".SoX",
    b"XoS.",
    b"ADIF",
    &[0x1a, 0x45, 0xdf, 0xa3],
];

/// Returns whether a stream that begins so has a magic number of encoded sound.
pub fn has_magic(head: &[u8]) -> bool {
    // the version of ID3 follows: three letters alone could be samples
    let is_tagged = head.starts_with(b"ID3") && matches!(head.get(3), Some(2..=4));
    let is_iso_media = head.get(4..8).is_some_and(|kind| kind == b"ftyp");
    is_tagged || is_iso_media || MAGIC.iter().any(|magic| head.starts_with(magic))
}

/// Returns whether a stream that begins so can be frames of MP3 or AAC: then
/// [`is_frames`] decides.
pub fn may_be_frames(head: &[u8]) -> bool {
    matches!(head, [0xff, second, ..] if second & 0xe0 == 0xe0)
}

/// Returns whether two frames of MP3 or AAC of one kind follow each other. Samples can look like
/// the head of one.
pub fn is_frames(bytes: &[u8]) -> bool {
    let next = frame(bytes).and_then(|length| bytes.get(length..));
    next.is_some_and(|next| next.starts_with(&bytes[..2]) && frame(next).is_some())
}

/// Returns the length of the frame of MP3 or AAC that begins here.
fn frame(bytes: &[u8]) -> Option<usize> {
    let head = bytes.first_chunk::<7>()?;
    if !may_be_frames(head) {
        return None;
    }
    match head[1] >> 1 & 3 {
        0 if head[1] & 0xf0 == 0xf0 => adts(head),
        1 => mp3(head),
        _ => None,
    }
}

/// Returns the length of a frame of AAC (ISO/IEC 13818-7, 6.2).
fn adts(head: &[u8; 7]) -> Option<usize> {
    let length =
        usize::from(head[3] & 3) << 11 | usize::from(head[4]) << 3 | usize::from(head[5] >> 5);
    // 13 rates are assigned
    (head[2] >> 2 & 0xf < 13 && length > head.len()).then_some(length)
}

/// Returns the length of a frame of MP3 (ISO/IEC 11172-3, 2.4.1.3; 13818-3 for the lower rates).
fn mp3(head: &[u8; 7]) -> Option<usize> {
    /// Kilobits per second of MPEG-1, layer III; neither "free" nor "forbidden".
    const HIGH: [usize; 14] = [
        32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320,
    ];
    /// The same of MPEG-2 and 2.5.
    const LOW: [usize; 14] = [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160];
    /// Samples per second of MPEG-1.
    const RATES: [usize; 3] = [44_100, 48_000, 32_000];
    let (rates, bytes, divisor) = match head[1] >> 3 & 3 {
        0 => (LOW, 72_000, 4),
        2 => (LOW, 72_000, 2),
        3 => (HIGH, 144_000, 1),
        _ => return None,
    };
    let bits = rates.get(usize::from(head[2] >> 4).checked_sub(1)?)?;
    let rate = RATES.get(usize::from(head[2] >> 2 & 3))? / divisor;
    Some(bytes * bits / rate + usize::from(head[2] >> 1 & 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_mp3_and_aac_are_known_and_samples_that_look_like_one_head_are_not() {
        // the lengths are from the standards' formulas: 128 kbit/s at 44.1 kHz, 64 at 24 kHz
        let heads: [([u8; 7], usize); 3] = [
            ([0xff, 0xfb, 0x90, 0x00, 0, 0, 0], 417),
            ([0xff, 0xf3, 0x84, 0x00, 0, 0, 0], 192),
            ([0xff, 0xf1, 0x50, 0x80, 0x2e, 0x7f, 0xfc], 371),
        ];
        for (head, length) in heads {
            let mut bytes = head.to_vec();
            bytes.resize(length, 0x55);
            assert!(may_be_frames(&bytes));
            assert!(!is_frames(&bytes), "one frame of {length} alone");
            bytes.extend([0; 7]);
            assert!(!is_frames(&bytes), "samples behind {length}");
            bytes.truncate(length);
            bytes.extend(head);
            assert!(is_frames(&bytes), "{length}");
        }
        // a constant level
        assert!(!is_frames(&[0xff, 0xfb].repeat(FRAMES)));
        assert!(!is_frames(&[0xff; FRAMES]));
    }

    #[test]
    fn a_magic_number_needs_all_its_bytes() {
        for encoded in [
            b"ID3\x04\0\0\0\0",
            b"fLaC\0\0\0\x22",
            b"OggS\0\x02\0\0",
            b"\0\0\0\x20ftyp",
        ] {
            assert!(has_magic(encoded));
            assert!(!has_magic(&encoded[..3]));
        }
        assert!(!has_magic(b"ID3\xff\0\0\0\0"));
        assert!(!has_magic(&[0; HEAD]));
    }
}
