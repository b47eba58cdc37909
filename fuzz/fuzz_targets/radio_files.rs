//! Files for casting: Ogg Opus and WAV, also damaged; written Ogg files are read back the same.
#![no_main]
#![allow(dead_code)]

use std::io::Cursor;

use lcradio_core::{CLOCK_RATE, OggWriter, is_showable};
use libfuzzer_sys::fuzz_target;

// modules of a program, not of a library
#[path = "../../lcradio/src/ogg_opus.rs"]
mod ogg_opus;
#[path = "../../lcradio/src/ogg_pages.rs"]
mod ogg_pages;
#[path = "../../lcradio/src/wav.rs"]
mod wav;

use ogg_opus::{Item, OggReader};

fn read(file: Vec<u8>) -> Option<(u8, Vec<Item>)> {
    let length = file.len();
    let mut reader = OggReader::open(Cursor::new(file)).ok()?;
    let (mut items, mut bytes) = (Vec::new(), 0);
    while let Ok(Some(item)) = reader.next() {
        match &item {
            Item::Title(title) => assert!(is_showable(title)),
            Item::Packet(packet) => bytes += packet.len(),
            Item::Passed(passed) => assert!(!passed.is_empty()),
        }
        items.push(item);
        // a packet needs at least a byte of a page's table
        assert!(items.len() <= length && bytes <= length);
    }
    Some((reader.channels(), items))
}

fuzz_target!(init: lcroute_fuzz::seeds::write("radio_files"), |data: &[u8]| {
    let known = read(data.to_vec());
    assert!(known.is_none_or(|(channels, _)| (1..=2).contains(&channels)));
    let (magic, mut rest) = data.split_at(data.len().min(4));
    let is_live = data.len() % 2 == 0;
    if magic == b"RIFF"
        && let Ok(head) = wav::header(&mut rest, is_live)
    {
        assert!((1..=2).contains(&head.channels) && head.length > 0);
    }
    // packets of the input, in a file of this program
    let packets: Vec<&[u8]> = lcroute_fuzz::pieces(data).filter(|packet| !packet.is_empty()).take(64).collect();
    let mut writer = OggWriter::new(Vec::new(), 7, 2, "title", CLOCK_RATE).expect("memory");
    for packet in &packets {
        writer.write(packet.to_vec(), 960).expect("memory");
    }
    writer.finish().expect("memory");
    let written = std::mem::take(writer.out_mut());
    let (channels, items) = read(written.clone()).expect("it was written");
    let expected = packets.iter().map(|packet| Item::Packet(packet.to_vec()));
    let expected: Vec<Item> = [Item::Title("title".into())].into_iter().chain(expected).collect();
    assert_eq!((channels, items), (2, expected));
    // the same with some changed bytes
    let mut damaged = written;
    for change in data.chunks_exact(3).take(8) {
        let at = usize::from(u16::from_be_bytes([change[0], change[1]])) % damaged.len();
        damaged[at] = change[2];
    }
    let _ = read(damaged);
});
