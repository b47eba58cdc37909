//! Reads Opus in Ogg (RFC 7845), by the crate ogg; `lcradio_core` writes it.

use std::io::{self, Read};

use lcradio_core::{OPUS_HEAD, OPUS_TAGS, showable};
use librecast::wire::Reader;
use ogg::reading::{BasePacketReader, OggPage};

use super::ogg_pages::{Header, Pages, Part};

/// Comments that are searched for a title.
const MAX_COMMENTS: u32 = 256;
/// Most pages of one packet, 16 MiB. Chosen: comments with the picture of a cover fit.
const MAX_CONTINUED: u32 = 256;

fn malformed(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

/// Returns the channels in the first header.
fn read_head(packet: &[u8]) -> io::Result<u8> {
    let fields = packet.strip_prefix(OPUS_HEAD);
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

/// Returns ARTIST and TITLE of the second header, made showable.
fn read_title(packet: &[u8]) -> Option<String> {
    let mut r = Reader::new(packet.strip_prefix(OPUS_TAGS)?);
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
    Some(showable(&text))
}

/// An item of an Ogg file.
#[derive(Debug, PartialEq, Eq)]
pub enum Item {
    /// Another title: at the beginning, and between concatenated files.
    Title(String),
    /// A packet.
    Packet(Vec<u8>),
    /// A skipped passage: a part of a sentence.
    Passed(String),
}

/// A reader of Opus packets that skips damaged ones.
pub struct OggReader<R> {
    pages: Pages<R>,
    packets: BasePacketReader,
    channels: u8,
    stream: u32,
    /// The number of the stream's next page; none if unknown.
    sequence: Option<u32>,
    /// Pages since the last packet.
    continued: u32,
    /// The next packet has the comments.
    tags_follow: bool,
}

impl<R: Read> OggReader<R> {
    /// Opens a file by its first packet, the Opus header; if that is damaged, by its comments.
    pub fn open(file: R) -> io::Result<Self> {
        let mut reader = Self {
            pages: Pages::new(file),
            packets: lenient(),
            channels: 2,
            stream: 0,
            sequence: None,
            continued: 0,
            tags_follow: true,
        };
        let (mut header, mut has_page) = (None, false);
        while let Some(part) = reader.pages.next()? {
            let Part::Page(found, page) = part else {
                continue;
            };
            has_page = true;
            reader.push(found, page);
            if let Some(packet) = reader.packets.read_packet() {
                header = Some(packet);
                break;
            }
        }
        let Some(header) = header else {
            let why = if has_page {
                "no Opus in this Ogg file"
            } else {
                "no Ogg file"
            };
            return Err(malformed(why));
        };
        reader.stream = header.stream_serial();
        if header.data.starts_with(OPUS_TAGS) {
            reader.tags_follow = false;
            return Ok(reader);
        }
        reader.channels = read_head(&header.data)?;
        Ok(reader)
    }

    /// Returns the channels of the first stream.
    pub fn channels(&self) -> u8 {
        self.channels
    }

    /// Returns the next item; none at the end.
    pub fn next(&mut self) -> io::Result<Option<Item>> {
        loop {
            if let Some(packet) = self.packets.read_packet() {
                self.continued = 0;
                if let Some(item) = self.packet(packet) {
                    return Ok(Some(item));
                }
                continue;
            }
            let (header, page) = match self.pages.next()? {
                None => return Ok(None),
                Some(Part::Damaged(at, bytes)) => {
                    (self.packets, self.sequence) = (lenient(), None);
                    return Ok(Some(Item::Passed(format!(
                        "{bytes} damaged bytes at byte {at}"
                    ))));
                }
                Some(Part::Page(header, page)) => (header, page),
            };
            // a picture beside the sound, for example
            if header.stream != self.stream && !header.is_first {
                continue;
            }
            if let Some(passed) = self.push(header, page) {
                return Ok(Some(Item::Passed(passed)));
            }
        }
    }

    /// Takes a page; returns the gap before it.
    fn push(&mut self, header: Header, page: OggPage) -> Option<String> {
        let missing = match self.sequence {
            Some(next) if !header.is_first => header.sequence.wrapping_sub(next),
            _ => 0,
        };
        let is_endless = self.continued >= MAX_CONTINUED;
        if header.is_first || missing > 0 || is_endless {
            self.packets = lenient();
            self.continued = 0;
        }
        self.continued += 1;
        self.sequence = Some(header.sequence.wrapping_add(1));
        // it has no state that the page could contradict
        let _ = self.packets.push_page(page);
        match missing {
            _ if is_endless => Some("a packet without an end".to_owned()),
            0 => None,
            _ => Some(format!(
                "a place where pages before page {} are missing",
                header.sequence
            )),
        }
    }

    fn packet(&mut self, packet: ogg::Packet) -> Option<Item> {
        if packet.first_in_stream() {
            // another file appended to the first one
            if let Err(e) = read_head(&packet.data) {
                return Some(Item::Passed(format!("another stream: {e}")));
            }
            self.stream = packet.stream_serial();
            self.tags_follow = true;
            return None;
        }
        // the page with the comments may be missing
        if std::mem::take(&mut self.tags_follow) && packet.data.starts_with(OPUS_TAGS) {
            return Some(Item::Title(read_title(&packet.data).unwrap_or_default()));
        }
        Some(Item::Packet(packet.data))
    }
}

/// Makes a reader that begins within a stream.
fn lenient() -> BasePacketReader {
    let mut packets = BasePacketReader::new();
    packets.update_after_seek();
    packets
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use lcradio_core::{CLOCK_RATE, OggWriter, opus_head as head, opus_tags as tags};
    use ogg::{PacketWriteEndInfo, PacketWriter};

    use super::*;

    fn file(stream: u32, title: &str, packets: u32) -> Vec<u8> {
        let mut writer = OggWriter::new(Vec::new(), stream, 2, title, CLOCK_RATE).unwrap();
        for n in 0..packets {
            writer.write(vec![31 << 3, n as u8], 960).unwrap();
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

    /// Counts packets, titles, and skipped passages.
    fn counts(file: Vec<u8>) -> (usize, usize, usize) {
        let mut counts = (0, 0, 0);
        for item in items(file) {
            match item {
                Item::Packet(_) => counts.0 += 1,
                Item::Title(_) => counts.1 += 1,
                Item::Passed(_) => counts.2 += 1,
            }
        }
        counts
    }

    /// Returns the beginnings of pages, and the end.
    fn pages(file: &[u8]) -> Vec<usize> {
        let begins = file.windows(4).enumerate().filter(|(_, w)| w == b"OggS");
        begins.map(|(at, _)| at).chain([file.len()]).collect()
    }

    #[test]
    fn a_damaged_page_is_passed_over_whichever_byte_of_it_is_wrong() {
        let whole = file(7, "one", 600);
        let pages = pages(&whole);
        assert_eq!((pages.len(), counts(whole.clone())), (15, (600, 1, 0)));
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x55;
            let page = pages.iter().rposition(|begin| *begin <= at).unwrap();
            let (packets, titles, passed) = counts(damaged);
            let lost = match page {
                0 | 1 => 0,
                13 => 600 - 11 * 51,
                _ => 51,
            };
            let expected = (600 - lost, usize::from(page > 1), usize::from(page > 0));
            assert_eq!((packets, titles, passed), expected, "byte {at}");
        }
    }

    #[test]
    fn files_that_are_cut_or_lack_pages_are_read_as_far_as_they_go() {
        let whole = file(7, "one", 600);
        let pages = pages(&whole);
        let mut last = 0;
        for cut in pages[1]..whole.len() {
            let (packets, _, passed) = counts(whole[..cut].to_vec());
            assert!((last..600).contains(&packets) && passed <= 1, "{cut}");
            last = packets;
        }
        assert_eq!(last, 11 * 51);
        for page in 2..13 {
            let without = [&whole[..pages[page]], &whole[pages[page + 1]..]].concat();
            assert_eq!(counts(without), (549, 1, 1), "page {page}");
            let garbage = [
                &whole[..pages[page]],
                &[b'O'; 70_000],
                &whole[pages[page]..],
            ]
            .concat();
            assert_eq!(counts(garbage), (600, 1, 1), "page {page}");
        }
        // the same number twice: a file appended to itself
        assert_eq!(counts([&whole[..], &whole[..]].concat()), (1_200, 2, 0));
        assert!(OggReader::open(Cursor::new(&whole[pages[2]..])).is_err());
    }

    #[test]
    fn a_packet_that_lost_its_middle_is_not_glued_together() {
        let mut writer = PacketWriter::new(Vec::new());
        let end = PacketWriteEndInfo::EndPage;
        writer.write_packet(head(2), 7, end, 0).unwrap();
        writer.write_packet(tags(""), 7, end, 0).unwrap();
        // four pages
        writer.write_packet(vec![1; 200_000], 7, end, 960).unwrap();
        writer.write_packet(vec![2; 10], 7, end, 1_920).unwrap();
        let whole = writer.into_inner();
        let pages = pages(&whole);
        assert_eq!(counts(whole.clone()), (2, 1, 0));
        for page in 2..6 {
            let without = [&whole[..pages[page]], &whole[pages[page + 1]..]].concat();
            let packets = items(without).into_iter();
            let packets = packets.filter(|item| matches!(item, Item::Packet(_)));
            assert_eq!(packets.collect::<Vec<_>>(), [Item::Packet(vec![2; 10])]);
        }
    }

    #[test]
    fn titles_are_read_within_their_bounds() {
        assert_eq!(read_title(&tags("Song")), Some("Song".into()));
        // Persian is written with joiners
        for whole in ["می\u{200c}خواهم", "👩\u{200d}👧"] {
            assert_eq!(read_title(&tags(whole)), Some(whole.into()));
        }
        assert_eq!(
            read_title(&tags("a\u{202e}b\nc")),
            Some("a\u{fffd}b c".into())
        );
        let long = read_title(&tags(&"ü".repeat(200))).unwrap();
        assert_eq!(long, "ü".repeat(127));
        let whole = tags("Song");
        for cut in 0..whole.len() {
            assert_eq!(read_title(&whole[..cut]), None, "{cut}");
        }
    }
}
