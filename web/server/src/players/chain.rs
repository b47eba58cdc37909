//! One chain of Ogg Opus from a station's sound: of one caster at a time, in order. Without I/O.

use std::time::{Duration, Instant};

use bytes::Bytes;
use lcradio_core::{CLOCK_RATE, FRAME, OggWriter, Order, Piece, SoundPacket, samples};

/// Samples of a page: 100 ms. Chosen: little delay, and few bytes of headers.
const PAGE: u32 = CLOCK_RATE / 10;
/// Silence of a caster after which another one is heard. Chosen: longer than packets wait for lost ones.
const CASTER_SILENCE: Duration = Duration::from_secs(2);
/// Most of a gap that is filled, in samples: players hold about a second, and wait through the rest.
const MAX_FILLED: u64 = CLOCK_RATE as u64;
/// CELT with 20 ms, without bytes: a lost frame.
const LOST_FRAME: u8 = 31 << 3;

/// The chain of a station.
#[derive(Debug)]
pub struct Chain {
    writer: OggWriter<Vec<u8>>,
    /// The caster that is heard, and its last packet.
    caster: Option<(u8, Instant)>,
    order: Order,
    has_begun: bool,
    /// First byte of the last packet, with its frame's length: a lost frame is of the same kind.
    kind: (u8, u32),
}

impl Chain {
    /// Begins a chain with a number of its own; returns its headers, too.
    pub fn begin(stream: u32, name: &str) -> std::io::Result<(Self, Bytes)> {
        let mut writer = OggWriter::new(Vec::new(), stream, 2, name, PAGE)?;
        let head = std::mem::take(writer.out_mut());
        let chain = Self {
            writer,
            caster: None,
            order: Order::default(),
            has_begun: false,
            kind: (LOST_FRAME, FRAME),
        };
        Ok((chain, head.into()))
    }

    /// Takes a packet of any caster.
    pub fn handle_sound(&mut self, packet: SoundPacket) -> std::io::Result<()> {
        let arrival = packet.arrival;
        let is_heard = match self.caster {
            Some((caster, _)) if caster == packet.caster => true,
            Some((_, last)) => arrival.saturating_duration_since(last) > CASTER_SILENCE,
            None => true,
        };
        if !is_heard {
            return Ok(());
        }
        if self
            .caster
            .is_some_and(|(caster, _)| caster != packet.caster)
        {
            self.finish_caster(arrival)?;
        }
        self.caster = Some((packet.caster, arrival));
        // a packet that is too late is lost
        let _ = self.order.push(packet);
        Ok(())
    }

    /// Another caster may be heard after this one has ended.
    pub fn handle_end(&mut self, caster: u8, now: Instant) -> std::io::Result<()> {
        if self.caster.is_some_and(|(heard, _)| heard == caster) {
            self.finish_caster(now)?;
        }
        Ok(())
    }

    /// Returns the next pages, if there are any.
    pub fn poll_output(&mut self, now: Instant) -> std::io::Result<Option<Bytes>> {
        while let Some(piece) = self.order.poll(now) {
            self.write(piece)?;
        }
        let pages = std::mem::take(self.writer.out_mut());
        Ok((!pages.is_empty()).then(|| pages.into()))
    }

    /// Returns when [`poll_output`](Self::poll_output) is due without further packets.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.order.next_timeout()
    }

    /// Ends the chain; returns its last pages.
    pub fn finish(&mut self, now: Instant) -> std::io::Result<Bytes> {
        self.finish_caster(now)?;
        self.writer.finish()?;
        Ok(std::mem::take(self.writer.out_mut()).into())
    }

    fn finish_caster(&mut self, now: Instant) -> std::io::Result<()> {
        while let Some(piece) = self.order.finish(now) {
            self.write(piece)?;
        }
        self.order = Order::default();
        self.caster = None;
        Ok(())
    }

    fn write(&mut self, piece: Piece) -> std::io::Result<()> {
        match piece {
            Piece::Packet(packet) => {
                self.has_begun = true;
                if let Some(toc) = packet.payload.first() {
                    // one frame of the same kind: code 0
                    let one = [toc & !3];
                    self.kind = samples(&one).map_or(self.kind, |length| (one[0], length));
                }
                self.writer.write(packet.payload, packet.samples)
            }
            // before the first packet nothing is missing
            Piece::Gap { .. } if !self.has_begun => Ok(()),
            Piece::Gap { samples, .. } => {
                let (toc, of_frame) = self.kind;
                let frames = samples.min(MAX_FILLED) / u64::from(of_frame);
                (0..frames).try_for_each(|_| self.writer.write(vec![toc], of_frame))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(caster: u8, index: u64, arrival: Instant) -> SoundPacket {
        SoundPacket {
            caster,
            session: 0,
            index,
            timestamp: index * 960,
            samples: 960,
            payload: vec![31 << 3, caster, index as u8],
            arrival,
        }
    }

    /// Returns number, granule position, flags and content of each page.
    fn pages(mut bytes: &[u8]) -> Vec<(u32, u64, u8, Vec<u8>)> {
        let mut pages = Vec::new();
        while !bytes.is_empty() {
            assert!(bytes.starts_with(b"OggS"));
            let granule = u64::from_le_bytes(bytes[6..14].try_into().unwrap());
            let number = u32::from_le_bytes(bytes[18..22].try_into().unwrap());
            let segments = usize::from(bytes[26]);
            let length: usize = bytes[27..27 + segments]
                .iter()
                .map(|s| usize::from(*s))
                .sum();
            let (page, rest) = bytes.split_at(27 + segments + length);
            pages.push((number, granule, page[5], page[27 + segments..].to_vec()));
            bytes = rest;
        }
        pages
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_station_is_one_chain_whose_pages_follow_each_other() {
        let begun = Instant::now();
        let (mut chain, head) = Chain::begin(7, "news").unwrap();
        let mut all = head.to_vec();
        for index in 0..100 {
            let now = begun + ms(20 * index);
            // the first 50 by one caster, the rest by another one
            let caster = u8::from(index >= 50);
            if index == 50 {
                chain.handle_end(0, now).unwrap();
            }
            chain.handle_sound(packet(caster, index, now)).unwrap();
            if let Some(pages) = chain.poll_output(now).unwrap() {
                all.extend(pages);
            }
        }
        all.extend(chain.finish(begun + ms(2_000)).unwrap());
        let pages = pages(&all);
        for (n, (number, ..)) in pages.iter().enumerate() {
            assert_eq!(*number as usize, n);
        }
        let begins = pages.iter().filter(|(_, _, flags, _)| flags & 2 != 0);
        assert_eq!(begins.count(), 1, "one chain");
        let (_, granule, flags, _) = pages.last().unwrap();
        assert_eq!((*granule, flags & 4), (100 * 960, 4));
        assert!(pages[1].3.ends_with(b"TITLE=news"));
    }

    #[test]
    fn pages_come_each_tenth_of_a_second_and_a_gap_keeps_at_most_a_second_of_time() {
        let begun = Instant::now();
        let (mut chain, _) = Chain::begin(7, "news").unwrap();
        let mut all = Vec::new();
        let numbers = (0..60).chain(62..70).chain(10_000..10_010);
        for (turn, index) in numbers.enumerate() {
            let now = begun + ms(20 * turn as u64);
            chain.handle_sound(packet(0, index, now)).unwrap();
            all.extend(chain.poll_output(now).unwrap().unwrap_or_default());
        }
        all.extend(chain.finish(begun + ms(9_000)).unwrap());
        let pages = pages(&all);
        let (_, granule, ..) = pages.last().unwrap();
        assert_eq!(*granule, (60 + 2 + 8 + 50 + 10) * 960);
        for pair in pages.windows(2) {
            assert!(pair[1].1 - pair[0].1 <= u64::from(PAGE) + 960);
        }
    }

    #[test]
    fn of_two_casters_one_is_heard_until_it_is_silent() {
        let begun = Instant::now();
        let (mut chain, _) = Chain::begin(7, "").unwrap();
        for (caster, index, at) in [
            (0, 0, 0),
            (1, 0, 10),
            (0, 1, 20),
            (1, 1, 2_500),
            (0, 2, 2_600),
        ] {
            chain
                .handle_sound(packet(caster, index, begun + ms(at)))
                .unwrap();
        }
        let pages = pages(&chain.finish(begun + ms(9_000)).unwrap());
        let content: Vec<u8> = pages
            .into_iter()
            .flat_map(|(.., content)| content)
            .collect();
        assert_eq!(content, [248, 0, 0, 248, 0, 1, 248, 1, 1]);
    }
}
