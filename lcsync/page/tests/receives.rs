//! The page's receiver against a server in memory: beacons, records and symbols as on the network.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv6Addr;

use lcroute_web_get::get::PageGet;
use lcroute_web_get::link::Wanted;
use lcroute_web_page::{Command, Datagram};
use lcsync::index::{HashCache, Index};
use lcsync::packet::{Symbol, encode_record};
use lcsync::record::{Record, Version};
use lcsync::signature::sign;
use librecast::channel::{ChannelId, LCSYNC_PORT, ROOT_CHANNEL, SharePrefix, channel_of};
use librecast::code::BeaconKey;
use librecast::code::beacon::{BEACON_PORT, Beacon, LISTEN, Offer, beacon_group};
use librecast::coding::{Encoder, symbols_of};
use librecast::id::SecretKey;
use librecast::time::{Duration, Instant};
use serde_json::Value;

const ANN: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
const EVE: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);

/// A folder, as `lcsync send` serves it.
struct Sender {
    key: SecretKey,
    index: Index,
    files: BTreeMap<String, Vec<u8>>,
    generation: u64,
    _folder: tempfile::TempDir,
}

impl Sender {
    fn new(seed: u8) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let big: Vec<u8> = (0..700_000_u32).map(|n| (n * 7 / 3) as u8 ^ seed).collect();
        let files = [
            ("report.pdf", big),
            ("small", vec![seed; 1_000]),
            ("same", vec![seed; 1_000]),
            ("empty", Vec::new()),
        ];
        for (name, bytes) in &files {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        let index = Index::build(folder.path(), b"", &mut HashCache::default()).unwrap();
        Self {
            key: SecretKey::from_seed(&[seed; 32]),
            index,
            files: files.map(|(name, bytes)| (name.to_owned(), bytes)).into(),
            generation: u64::from(seed),
            _folder: folder,
        }
    }

    fn beacon(&self, from: &str) -> Vec<u8> {
        let beacon = Beacon {
            offer: Offer::Files,
            from: from.into(),
            bytes: 702_000,
            files: 4,
            line: self.key.peer_id().to_string(),
        };
        beacon.encode().unwrap()
    }

    fn record(&self) -> Vec<u8> {
        let version = Version {
            generation: self.generation,
            root: self.index.root,
            metadata: self.index.metadata,
        };
        let record = Record {
            server: 1,
            generation: self.generation,
            root: self.index.root,
            metadata: self.index.metadata,
            channel_rate: 1_000,
            slow_rate: 0,
            total_rate: 0,
            max_channels: 16,
            carries: None,
            authentication: sign(&self.key, "files", &version),
            sending: Vec::new(),
        };
        encode_record(&record).unwrap()
    }

    fn symbols(&self, channel: ChannelId) -> Vec<Vec<u8>> {
        let Ok(block) = self.index.read(channel) else {
            return Vec::new();
        };
        let mut encoder = Encoder::new(block.clone()).unwrap();
        let all = 0..symbols_of(block.len()).unwrap();
        let symbol = |esi| {
            let mut data = Vec::new();
            encoder.symbol(esi, &mut data).unwrap();
            let symbol = Symbol {
                server: 1,
                sequence: esi,
                channel,
                block_length: block.len() as u32,
                esi,
                data: &data,
            };
            let mut datagram = Vec::new();
            symbol.write_header(&mut datagram);
            datagram.extend_from_slice(&data);
            datagram
        };
        all.map(symbol).collect()
    }
}

fn prefix() -> SharePrefix {
    SharePrefix::of_name(b"", "files")
}

fn status(get: &PageGet) -> Value {
    serde_json::from_str(&get.status()).unwrap()
}

fn hear(get: &mut PageGet, from: Ipv6Addr, group: Ipv6Addr, port: u16, data: &[u8], now: Instant) {
    let datagram = Datagram {
        source: from,
        group,
        port,
        data,
    };
    get.handle_datagram(datagram, now);
}

/// Sends to the groups that the page has joined, until it has joined none.
fn serve(get: &mut PageGet, sender: &Sender, now: Instant) {
    let root = prefix().group(ROOT_CHANNEL);
    hear(get, ANN, root, LCSYNC_PORT, &sender.record(), now);
    while let Some(command) = get.poll_command() {
        if let Command::Join(group) = command {
            for symbol in sender.symbols(channel_of(group)) {
                hear(get, ANN, group, LCSYNC_PORT, &symbol, now);
            }
        }
    }
}

/// Returns the whole files by their names.
fn saved(get: &mut PageGet) -> BTreeMap<String, Vec<u8>> {
    let mut parts: BTreeMap<(usize, u64), Vec<u8>> = BTreeMap::new();
    while let Some(piece) = get.poll_piece() {
        assert!(
            parts
                .insert((piece.file, piece.offset), piece.bytes)
                .is_none()
        );
    }
    let mut files = BTreeMap::new();
    for (number, file) in status(get)["files"].as_array().unwrap().iter().enumerate() {
        if file["wanted"] == true && file["got"] == file["size"] {
            let own = parts.iter().filter(|((of, _), _)| *of == number);
            let bytes = own.flat_map(|(_, part)| part.clone()).collect();
            files.insert(file["name"].as_str().unwrap().to_owned(), bytes);
        }
    }
    files
}

fn number_of(get: &PageGet, name: &str) -> usize {
    let status = status(get);
    let files = status["files"].as_array().unwrap();
    files.iter().position(|file| file["name"] == name).unwrap()
}

/// A page that has received Ann's beacons and record.
fn begun(sender: &Sender, now: Instant) -> PageGet {
    let key = BeaconKey([7; 32]);
    let group = beacon_group(&key);
    let mut get = PageGet::new(Wanted::Code(key), now - LISTEN);
    assert_eq!(get.poll_command(), Some(Command::Join(group)));
    hear(&mut get, EVE, group, BEACON_PORT, b"garbage", now - LISTEN);
    let beacon = sender.beacon("ann");
    hear(&mut get, ANN, group, BEACON_PORT, &beacon, now - LISTEN);
    assert_eq!(status(&get)["phase"], "beacons");
    get.handle_timeout(now);
    assert_eq!(status(&get)["phase"], "share");
    get
}

#[test]
fn files_under_a_code_are_chosen_and_come_whole() {
    let now = Instant::now() + Duration::from_secs(10);
    let sender = Sender::new(1);
    let mut get = begun(&sender, now);
    // somebody else has the words, and no signature
    let other = Sender::new(2);
    serve(&mut get, &other, now);
    assert_eq!(status(&get)["phase"], "share");
    serve(&mut get, &sender, now);
    let offered = status(&get);
    assert_eq!(
        (&offered["phase"], &offered["from"]),
        (&"files".into(), &"ann".into())
    );
    assert_eq!(offered["files"].as_array().unwrap().len(), 4);
    assert_eq!(get.poll_piece(), None, "nothing is fetched unasked");
    // two small files are in one block
    let small = number_of(&get, "small");
    get.want(&[small], now).unwrap();
    serve(&mut get, &sender, now);
    let files = saved(&mut get);
    assert_eq!(files.keys().collect::<Vec<_>>(), ["small"]);
    assert_eq!(files["small"], sender.files["small"]);
    let all: Vec<usize> = (0..4).filter(|n| *n != small).collect();
    get.want(&all, now).unwrap();
    serve(&mut get, &sender, now);
    let mut files = saved(&mut get);
    // its parts were taken before
    files.remove("small");
    for (name, bytes) in &files {
        assert!(*bytes == sender.files[name], "{name}");
    }
    assert_eq!(files.len(), 3);
}

#[test]
fn of_two_senders_nothing_is_taken_and_other_offers_are_named() {
    let now = Instant::now() + Duration::from_secs(10);
    let group = beacon_group(&BeaconKey([7; 32]));
    let mut get = PageGet::new(Wanted::Code(BeaconKey([7; 32])), now);
    for (from, seed, name) in [(ANN, 1, "ann"), (EVE, 2, "eve")] {
        let beacon = Sender::new(seed).beacon(name);
        hear(&mut get, from, group, BEACON_PORT, &beacon, now);
    }
    let ended = status(&get);
    assert_eq!(ended["phase"], "ended");
    assert!(ended["problem"].as_str().unwrap().contains("ann and eve"));
    let left = std::iter::from_fn(|| get.poll_command()).last();
    assert_eq!(left, Some(Command::Leave(group)));
    let mut get = PageGet::new(Wanted::Code(BeaconKey([7; 32])), now);
    let station = Beacon {
        offer: Offer::Station,
        from: "ann".into(),
        bytes: 0,
        files: 0,
        line: "lcr1abc".into(),
    };
    hear(
        &mut get,
        ANN,
        group,
        BEACON_PORT,
        &station.encode().unwrap(),
        now,
    );
    get.handle_timeout(now + LISTEN);
    let why = status(&get)["problem"].as_str().unwrap().to_owned();
    assert_eq!(why, "ann offers a station under these words, and no files.");
}

#[test]
fn a_new_version_is_chosen_anew_and_a_silent_sender_is_told() {
    let now = Instant::now() + Duration::from_secs(10);
    let sender = Sender::new(3);
    let mut get = begun(&sender, now);
    serve(&mut get, &sender, now);
    get.want(&[0, 1, 2, 3], now).unwrap();
    let changed = Sender {
        key: SecretKey::from_seed(&[3; 32]),
        ..Sender::new(4)
    };
    serve(&mut get, &changed, now);
    let told = status(&get);
    assert_eq!(told["phase"], "files");
    assert!(told["notice"].as_str().unwrap().contains("changed"));
    let wanted = |file: &Value| file["wanted"] == true;
    assert!(!told["files"].as_array().unwrap().iter().any(wanted));
    get.handle_timeout(now + Duration::from_secs(31));
    let gone = status(&get);
    assert_eq!(gone["phase"], "ended");
    assert!(
        gone["problem"]
            .as_str()
            .unwrap()
            .starts_with("The sender is gone")
    );
}
