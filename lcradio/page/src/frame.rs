//! Frames for the page's player.

use lcradio_core::Frame;

/// A frame for the page: one byte for its kind (0: silence, 1: Opus, 2: lost), four for its length
/// in samples (little-endian), and Opus. Browsers cannot decode the next packet's repair data.
#[must_use]
pub fn frame_bytes(frame: Frame) -> Vec<u8> {
    let (kind, samples, opus) = match frame {
        Frame::Silence { samples } => (0, samples, Vec::new()),
        Frame::Packet(packet) => (1, packet.samples, packet.payload),
        Frame::Lost { samples, .. } => (2, samples, Vec::new()),
    };
    let mut bytes = vec![kind];
    bytes.extend(samples.to_le_bytes());
    bytes.extend(opus);
    bytes
}
