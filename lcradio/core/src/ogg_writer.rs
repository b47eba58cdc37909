//! Opus in Ogg (RFC 7845): the two headers, and pages, by the crate ogg.

use std::io::{self, Write};

use ogg::{PacketWriteEndInfo, PacketWriter};

use crate::rtp::CLOCK_RATE;

/// Samples that a decoder needs to begin in the middle: 80 ms (RFC 7845, 4.6).
const PRE_SKIP: u16 = 3_840;
/// The first bytes of the first header.
pub const OPUS_HEAD: &[u8] = b"OpusHead";
/// The first bytes of the second header.
pub const OPUS_TAGS: &[u8] = b"OpusTags";
const VENDOR: &[u8] = concat!("lcradio ", env!("CARGO_PKG_VERSION")).as_bytes();

/// Returns the first header of a stream.
#[must_use]
pub fn opus_head(channels: u8) -> Vec<u8> {
    let mut head = OPUS_HEAD.to_vec();
    head.extend([1, channels]);
    head.extend(PRE_SKIP.to_le_bytes());
    head.extend(CLOCK_RATE.to_le_bytes());
    // gain 0, mapping family 0: one or two channels
    head.extend([0, 0, 0]);
    head
}

/// Returns the second header of a stream, with a title unless it is empty.
#[must_use]
pub fn opus_tags(title: &str) -> Vec<u8> {
    let mut tags = OPUS_TAGS.to_vec();
    let mut field = |bytes: &[u8]| {
        tags.extend((bytes.len() as u32).to_le_bytes());
        tags.extend(bytes);
    };
    field(VENDOR);
    let comment = format!("TITLE={title}");
    tags.extend(u32::from(!title.is_empty()).to_le_bytes());
    if !title.is_empty() {
        tags.extend((comment.len() as u32).to_le_bytes());
        tags.extend(comment.as_bytes());
    }
    tags
}

/// A writer of Opus packets, whole pages at a time.
pub struct OggWriter<W: Write> {
    packets: PacketWriter<'static, W>,
    stream: u32,
    /// Samples of a page, after which it ends.
    page: u32,
    /// Samples so far: the position of the next page.
    granule: u64,
    /// Samples since the last page ended.
    in_page: u32,
    /// Written after the next packet arrives, as the last one must end the stream.
    last: Option<(Vec<u8>, u32)>,
}

impl<W: Write> std::fmt::Debug for OggWriter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OggWriter")
            .field("stream", &self.stream)
            .field("granule", &self.granule)
            .finish_non_exhaustive()
    }
}

impl<W: Write> OggWriter<W> {
    /// Writes the headers. `stream` is the recording's own number; a page ends after `page` samples.
    ///
    /// # Errors
    ///
    /// The output's.
    pub fn new(out: W, stream: u32, channels: u8, title: &str, page: u32) -> io::Result<Self> {
        let mut packets = PacketWriter::new(out);
        let end = PacketWriteEndInfo::EndPage;
        packets.write_packet(opus_head(channels), stream, end, 0)?;
        packets.write_packet(opus_tags(title), stream, end, 0)?;
        Ok(Self {
            packets,
            stream,
            page,
            granule: 0,
            in_page: 0,
            last: None,
        })
    }

    /// Returns the output.
    pub fn out_mut(&mut self) -> &mut W {
        self.packets.inner_mut()
    }

    /// Returns the samples written so far.
    pub fn samples(&self) -> u64 {
        self.granule
            + self
                .last
                .as_ref()
                .map_or(0, |(_, samples)| u64::from(*samples))
    }

    /// Returns the samples in complete pages.
    pub fn in_pages(&self) -> u64 {
        self.granule - u64::from(self.in_page)
    }

    /// Writes a packet of `samples`.
    ///
    /// # Errors
    ///
    /// The output's.
    pub fn write(&mut self, packet: Vec<u8>, samples: u32) -> io::Result<()> {
        let end = if self.in_page >= self.page {
            PacketWriteEndInfo::EndPage
        } else {
            PacketWriteEndInfo::NormalPacket
        };
        self.write_last(end)?;
        self.last = Some((packet, samples));
        Ok(())
    }

    fn write_last(&mut self, end: PacketWriteEndInfo) -> io::Result<()> {
        if let Some((packet, samples)) = self.last.take() {
            self.granule += u64::from(samples);
            self.in_page += samples;
            if end != PacketWriteEndInfo::NormalPacket {
                self.in_page = 0;
            }
            self.packets
                .write_packet(packet, self.stream, end, self.granule)?;
        }
        Ok(())
    }

    /// Ends the stream.
    ///
    /// # Errors
    ///
    /// The output's.
    pub fn finish(&mut self) -> io::Result<()> {
        self.write_last(PacketWriteEndInfo::EndStream)
    }
}
