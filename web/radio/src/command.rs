//! What the page is to do.

use std::net::Ipv6Addr;

use lcradio_core::Frame;

/// Something that the member in the page does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Join a group.
    Join(Ipv6Addr),
    /// Leave a group.
    Leave(Ipv6Addr),
    /// Send a datagram to a group.
    Send {
        /// To which group.
        group: Ipv6Addr,
        /// To which UDP port.
        port: u16,
        /// Without headers.
        data: Vec<u8>,
    },
}

impl Command {
    /// The form in which the page takes it: one byte for its kind, the group as text and a line's end; to send, the port
    /// (little-endian) in front of the group, and the data behind it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let (kind, group) = match self {
            Self::Join(group) => (1, group),
            Self::Leave(group) => (2, group),
            Self::Send { group, .. } => (3, group),
        };
        let mut bytes = vec![kind];
        if let Self::Send { port, .. } = self {
            bytes.extend(port.to_le_bytes());
        }
        bytes.extend(group.to_string().bytes());
        bytes.push(b'\n');
        if let Self::Send { data, .. } = self {
            bytes.extend(data);
        }
        bytes
    }
}

/// A frame in the form in which the page takes it: one byte for its kind (0: silence, 1: Opus, 2: lost), four for its length in
/// samples (little-endian), and Opus. What the next packet says of a lost one is of no use there: browsers have no call for it.
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
