//! Opus in Ogg (RFC 7845): the two headers, and pages of a recording. Pages themselves are the crate ogg's.

use std::io::{self, Read, Seek, Write};

use lcradio_core::{CLOCK_RATE, is_showable};
use librecast::wire::Reader;
use ogg::{PacketReader, PacketWriteEndInfo, PacketWriter};

/// A decoder that begins in the middle needs so long: 80 ms (RFC 7845, 4.6).
const PRE_SKIP: u16 = 3_840;
const HEAD: &[u8] = b"OpusHead";
const TAGS: &[u8] = b"OpusTags";
const VENDOR: &[u8] = concat!("lcradio ", env!("CARGO_PKG_VERSION")).as_bytes();
/// Most comments that are looked at for a title.
const MAX_COMMENTS: u32 = 256;

fn malformed(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

fn head(channels: u8) -> Vec<u8> {
    let mut head = HEAD.to_vec();
    head.extend([1, channels]);
    head.extend(PRE_SKIP.to_le_bytes());
    head.extend(CLOCK_RATE.to_le_bytes());
    // gain 0, mapping family 0: one or two channels
    head.extend([0, 0, 0]);
    head
}

fn tags(title: &str) -> Vec<u8> {
    let mut tags = TAGS.to_vec();
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

/// Channels in the first header.
fn read_head(packet: &[u8]) -> io::Result<u8> {
    let fields = packet.strip_prefix(HEAD);
    let fields = fields.ok_or_else(|| malformed("no Opus in this Ogg file"))?;
    let &[version, channels, _, _, _, _, _, _, _, _, family, ..] = fields else {
        return Err(malformed("the header of Opus is too short"));
    };
    if version >> 4 != 0 {
        return Err(malformed("another version of Opus in Ogg"));
    }
    if family != 0 || !(1..=2).contains(&channels) {
        return Err(malformed("more than two channels"));
    }
    Ok(channels)
}

/// ARTIST and TITLE of the second header, as far as they can be shown.
fn read_title(packet: &[u8]) -> Option<String> {
    let mut r = Reader::new(packet.strip_prefix(TAGS)?);
    let length = |r: &mut Reader<'_>| r.array().map(u32::from_le_bytes).ok();
    let vendor = length(&mut r)?;
    r.take(vendor.try_into().ok()?).ok()?;
    let comments = length(&mut r)?.min(MAX_COMMENTS);
    let (mut artist, mut title) = (None, None);
    for _ in 0..comments {
        let bytes = length(&mut r)?;
        let comment = r.take(bytes.try_into().ok()?).ok()?;
        let Some((name, value)) = std::str::from_utf8(comment).ok()?.split_once('=') else {
            continue;
        };
        match name.to_ascii_uppercase().as_str() {
            "ARTIST" => artist = artist.or(Some(value)),
            "TITLE" => title = title.or(Some(value)),
            _ => {}
        }
    }
    let text = match (artist, title) {
        (Some(artist), Some(title)) => format!("{artist}: {title}"),
        (None, Some(title)) => title.to_owned(),
        _ => return None,
    };
    is_showable(&text).then_some(text)
}

/// What stands in an Ogg file.
#[derive(Debug, PartialEq, Eq)]
pub enum Item {
    /// Another title: at the beginning, and where files were put one behind the other.
    Title(String),
    /// A packet.
    Packet(Vec<u8>),
}

/// Reads packets of Opus.
pub struct OggReader<R: Read + Seek> {
    packets: PacketReader<R>,
    channels: u8,
    stream: u32,
    /// The next packet has the comments.
    tags_follow: bool,
}

impl<R: Read + Seek> OggReader<R> {
    /// A file, whose first packet is the header of Opus.
    pub fn open(file: R) -> io::Result<Self> {
        let mut packets = PacketReader::new(file);
        let first = read(&mut packets)?.ok_or_else(|| malformed("no Ogg file"))?;
        Ok(Self {
            channels: read_head(&first.data)?,
            stream: first.stream_serial(),
            packets,
            tags_follow: true,
        })
    }

    /// Channels of the first stream.
    pub fn channels(&self) -> u8 {
        self.channels
    }

    /// What comes next; none at the end.
    pub fn next(&mut self) -> io::Result<Option<Item>> {
        while let Some(packet) = read(&mut self.packets)? {
            if packet.first_in_stream() {
                // another file behind the first one
                read_head(&packet.data)?;
                self.stream = packet.stream_serial();
                self.tags_follow = true;
            } else if packet.stream_serial() != self.stream {
                continue;
            } else if std::mem::take(&mut self.tags_follow) {
                return Ok(Some(Item::Title(
                    read_title(&packet.data).unwrap_or_default(),
                )));
            } else {
                return Ok(Some(Item::Packet(packet.data)));
            }
        }
        Ok(None)
    }
}

fn read<R: Read + Seek>(packets: &mut PacketReader<R>) -> io::Result<Option<ogg::Packet>> {
    packets.read_packet().map_err(|e| match e {
        ogg::OggReadError::ReadError(e) => e,
        other => malformed(&format!("damaged Ogg file: {other}")),
    })
}

/// Writes packets of Opus, whole pages at a time.
pub struct OggWriter<W: Write> {
    packets: PacketWriter<'static, W>,
    stream: u32,
    /// Samples so far, the position of the next page.
    granule: u64,
    /// Samples since the last page ended.
    in_page: u32,
    /// It is written once another follows, which may have to end the stream.
    last: Option<(Vec<u8>, u32)>,
}

impl<W: Write> OggWriter<W> {
    /// Writes the headers. `stream` tells this recording from others.
    pub fn new(out: W, stream: u32, channels: u8, title: &str) -> io::Result<Self> {
        let mut packets = PacketWriter::new(out);
        let end = PacketWriteEndInfo::EndPage;
        packets.write_packet(head(channels), stream, end, 0)?;
        packets.write_packet(tags(title), stream, end, 0)?;
        Ok(Self {
            packets,
            stream,
            granule: 0,
            in_page: 0,
            last: None,
        })
    }

    /// Where it writes to.
    pub fn out_mut(&mut self) -> &mut W {
        self.packets.inner_mut()
    }

    /// Samples written so far.
    pub fn samples(&self) -> u64 {
        self.granule
            + self
                .last
                .as_ref()
                .map_or(0, |(_, samples)| u64::from(*samples))
    }

    /// Samples in pages that have ended.
    pub fn in_pages(&self) -> u64 {
        self.granule - u64::from(self.in_page)
    }

    /// A packet of so many samples; a page ends each second.
    pub fn write(&mut self, packet: Vec<u8>, samples: u32) -> io::Result<()> {
        let end = if self.in_page >= CLOCK_RATE {
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

    /// The end of the stream.
    pub fn finish(&mut self) -> io::Result<()> {
        self.write_last(PacketWriteEndInfo::EndStream)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn file(stream: u32, title: &str, packets: u8) -> Vec<u8> {
        let mut writer = OggWriter::new(Vec::new(), stream, 2, title).unwrap();
        for n in 0..packets {
            writer.write(vec![31 << 3, n], 960).unwrap();
        }
        writer.finish().unwrap();
        assert_eq!(writer.samples(), u64::from(packets) * 960);
        std::mem::take(writer.out_mut())
    }

    fn items(file: Vec<u8>) -> Vec<Item> {
        let mut reader = OggReader::open(Cursor::new(file)).unwrap();
        std::iter::from_fn(|| reader.next().unwrap()).collect()
    }

    #[test]
    fn packets_and_title_come_back_also_of_files_behind_each_other() {
        let two = [file(7, "one", 120), file(8, "", 3)].concat();
        let mut expected = vec![Item::Title("one".into())];
        expected.extend((0..120).map(|n| Item::Packet(vec![31 << 3, n])));
        expected.push(Item::Title(String::new()));
        expected.extend((0..3).map(|n| Item::Packet(vec![31 << 3, n])));
        assert_eq!(items(two), expected);
    }

    #[test]
    fn what_is_no_ogg_opus_is_named() {
        for bytes in [b"not a file of Ogg".to_vec(), Vec::new()] {
            let error = OggReader::open(Cursor::new(bytes)).map(drop).unwrap_err();
            assert!(error.to_string().contains("Ogg"), "{error}");
        }
        let mut surround = head(6);
        surround[18] = 1;
        assert!(
            read_head(&surround)
                .unwrap_err()
                .to_string()
                .contains("channels")
        );
        assert!(read_head(b"OpusHead\x01").is_err());
    }

    #[test]
    fn a_damaged_file_is_an_error_and_no_panic() {
        let whole = file(7, "one", 100);
        for at in (0..whole.len()).step_by(7) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x55;
            if let Ok(mut reader) = OggReader::open(Cursor::new(damaged)) {
                while let Ok(Some(_)) = reader.next() {}
            }
        }
    }

    #[test]
    fn titles_are_read_within_their_bounds() {
        assert_eq!(read_title(&tags("Song")), Some("Song".into()));
        assert_eq!(read_title(&tags("a\u{202e}b")), None);
        let whole = tags("Song");
        for cut in 0..whole.len() {
            assert_eq!(read_title(&whole[..cut]), None, "{cut}");
        }
    }
}
