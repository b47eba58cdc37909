//! IVF, a file of frames: its two headers.
//!
//! ```text
//! "DKIF" | version 2 = 0 | length 2 | codec 4 | width 2, height 2 | rate 4 | scale 4 | frames 4 | 4
//! length 4 | time 8, in scale/rate seconds | frame                                  little-endian
//! ```

use thiserror::Error;

use super::packet::MAX_FRAME;

/// Bytes of the header of a file.
pub const IVF_HEADER: usize = 32;
/// Bytes of the header of a frame.
pub const IVF_FRAME_HEADER: usize = 12;

/// Reason for which a stream is not read as IVF.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum IvfError {
    /// It begins with other bytes.
    #[error("no IVF begins here: ffmpeg writes it with `-c:v libvpx -f ivf -`")]
    NoIvf,
    /// It has another codec.
    #[error("the codec is not VP8: ffmpeg writes it with `-c:v libvpx -f ivf -`")]
    Codec,
    /// Its unit of time is empty.
    #[error("the IVF has no unit of time")]
    Time,
    /// A frame is longer than [`MAX_FRAME`].
    #[error("a frame of {0} bytes: at most 64,000 are sent; lower the size or the bit rate")]
    Frame(u32),
}

/// The header of an IVF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ivf {
    rate: u32,
    scale: u32,
    /// Bytes between this header and the first frame.
    pub skip: usize,
}

impl Ivf {
    /// Decodes the header of a file.
    pub fn decode(header: &[u8; IVF_HEADER]) -> Result<Self, IvfError> {
        let u32_at = |at: usize| {
            let bytes = [header[at], header[at + 1], header[at + 2], header[at + 3]];
            u32::from_le_bytes(bytes)
        };
        let length = usize::from(u16::from_le_bytes([header[6], header[7]]));
        if !header.starts_with(b"DKIF\0\0") || length < IVF_HEADER {
            return Err(IvfError::NoIvf);
        }
        if &header[8..12] != b"VP80" {
            return Err(IvfError::Codec);
        }
        let (rate, scale) = (u32_at(16), u32_at(20));
        match rate > 0 && scale > 0 {
            true => Ok(Self {
                rate,
                scale,
                skip: length - IVF_HEADER,
            }),
            false => Err(IvfError::Time),
        }
    }

    /// Decodes the header of a frame: its length, and its time in milliseconds.
    ///
    /// # Errors
    /// The frame is too long.
    pub fn frame(&self, header: &[u8; IVF_FRAME_HEADER]) -> Result<(usize, u64), IvfError> {
        let [a, b, c, d, time @ ..] = *header;
        let length = u32::from_le_bytes([a, b, c, d]);
        if length as usize > MAX_FRAME {
            return Err(IvfError::Frame(length));
        }
        let time = u128::from(u64::from_le_bytes(time));
        let ms = time * 1_000 * u128::from(self.scale) / u128::from(self.rate);
        Ok((length as usize, u64::try_from(ms).unwrap_or(u64::MAX)))
    }
}

/// Returns the header of a file of VP8 with times in milliseconds, of unknown length.
#[must_use]
pub fn ivf_header((width, height): (u16, u16)) -> [u8; IVF_HEADER] {
    let mut header = [0; IVF_HEADER];
    header[..4].copy_from_slice(b"DKIF");
    header[6..8].copy_from_slice(&(IVF_HEADER as u16).to_le_bytes());
    header[8..12].copy_from_slice(b"VP80");
    header[12..14].copy_from_slice(&width.to_le_bytes());
    header[14..16].copy_from_slice(&height.to_le_bytes());
    header[16..20].copy_from_slice(&1_000_u32.to_le_bytes());
    header[20..24].copy_from_slice(&1_u32.to_le_bytes());
    header
}

/// Returns a frame behind its header.
#[must_use]
pub fn ivf_frame(ms: u64, frame: &[u8]) -> Vec<u8> {
    let length = (frame.len() as u32).to_le_bytes();
    [&length[..], &ms.to_le_bytes(), frame].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back() {
        let header = ivf_header((320, 180));
        let ivf = Ivf::decode(&header).unwrap();
        assert_eq!(ivf.skip, 0);
        let frame = ivf_frame(12_345, b"frame");
        let (head, rest) = frame.split_first_chunk().unwrap();
        assert_eq!(ivf.frame(head), Ok((5, 12_345)));
        assert_eq!(rest, b"frame");
    }

    #[test]
    fn times_are_of_any_unit_and_lengths_have_a_bound() {
        let mut header = ivf_header((320, 180));
        header[16..20].copy_from_slice(&30_000_u32.to_le_bytes());
        header[20..24].copy_from_slice(&1_001_u32.to_le_bytes());
        let ivf = Ivf::decode(&header).unwrap();
        let head = |length: u32, time: u64| {
            let mut head = [0; IVF_FRAME_HEADER];
            head[..4].copy_from_slice(&length.to_le_bytes());
            head[4..].copy_from_slice(&time.to_le_bytes());
            head
        };
        assert_eq!(ivf.frame(&head(1, 30)), Ok((1, 1_001)));
        assert_eq!(ivf.frame(&head(64_000, 0)), Ok((64_000, 0)));
        assert_eq!(ivf.frame(&head(64_001, 0)), Err(IvfError::Frame(64_001)));
        assert!(ivf.frame(&head(u32::MAX, u64::MAX)).is_err());
        assert!(ivf.frame(&head(0, u64::MAX)).is_ok());
    }

    #[test]
    fn other_streams_are_refused_by_name() {
        let header = ivf_header((320, 180));
        let with = |at: usize, bytes: &[u8]| {
            let mut header = header;
            header[at..at + bytes.len()].copy_from_slice(bytes);
            Ivf::decode(&header)
        };
        assert_eq!(with(0, b"RIFF"), Err(IvfError::NoIvf));
        assert_eq!(with(4, &[1]), Err(IvfError::NoIvf));
        assert_eq!(with(6, &[31, 0]), Err(IvfError::NoIvf));
        assert_eq!(with(6, &[40, 0]).map(|ivf| ivf.skip), Ok(8));
        assert_eq!(with(8, b"VP90"), Err(IvfError::Codec));
        assert_eq!(with(16, &[0; 4]), Err(IvfError::Time));
        assert_eq!(with(20, &[0; 4]), Err(IvfError::Time));
    }
}
