//! The page's sender with the page's receiver: reads of files, joins and datagrams as in two tabs.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use lcroute_web_get::cutting::Chosen;
use lcroute_web_get::get::PageGet;
use lcroute_web_get::link::Wanted;
use lcroute_web_get::send::{PageSend, Start};
use lcroute_web_get::words::Keys;
use lcroute_web_page::{Command, Datagram};
use librecast::code::BeaconKey;
use librecast::code::beacon::beacon_group;
use librecast::id::SecretKey;
use librecast::mld::{Record, RecordType, report_packets};
use librecast::time::{Duration, Instant, UnixTime};
use serde_json::Value;

const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const TAB: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
const STEP: Duration = Duration::from_millis(5);
const ROOM: usize = 192 << 10;

/// A page that sends, one that receives, and the files of the first.
struct Tabs {
    send: PageSend,
    get: PageGet,
    /// None: the browser cannot read it any more.
    files: Vec<(&'static str, Option<Vec<u8>>)>,
    /// Groups that the receiver has joined.
    joined: BTreeSet<Ipv6Addr>,
    received: BTreeMap<(usize, u64), Vec<u8>>,
    /// Most bytes that one read has asked for.
    longest_read: usize,
    began: Instant,
    now: Instant,
}

impl Tabs {
    fn new(files: Vec<(&'static str, Option<Vec<u8>>)>) -> Self {
        let began = Instant::now() + Duration::from_secs(10);
        let chosen = |(name, bytes): &(&str, Option<Vec<u8>>)| Chosen {
            name: (*name).into(),
            size: bytes.as_ref().unwrap().len() as u64,
            modified: 1_800_000_000_000,
        };
        let start = Start {
            from: "phone".into(),
            files: files.iter().map(chosen).collect(),
            server: 7,
            seed: 8,
        };
        let keys = Keys {
            beacons: beacon_group(&BeaconKey([7; 32])),
            signer: SecretKey::from_seed(&[9; 32]),
        };
        Self {
            send: PageSend::new(start, keys, began, unix(Duration::ZERO)).unwrap(),
            get: PageGet::new(Wanted::Code(BeaconKey([7; 32])), began),
            files,
            joined: BTreeSet::new(),
            received: BTreeMap::new(),
            longest_read: 0,
            began,
            now: began,
        }
    }

    /// Executes reads, joins and datagrams of one step.
    fn step(&mut self) {
        self.now += STEP;
        while let Some(read) = self.send.poll_read() {
            let mut bytes = Vec::new();
            let mut lost = None;
            for slice in &read.slices {
                let from = usize::try_from(slice.offset).unwrap();
                match &self.files[slice.file].1 {
                    Some(all) => bytes.extend_from_slice(&all[from..from + slice.length]),
                    None => lost = Some(slice.file),
                }
            }
            self.longest_read = self.longest_read.max(bytes.len());
            match lost {
                Some(file) => self.send.handle_lost(read.id, file, self.now),
                None => self.send.handle_bytes(read.id, &bytes, self.now),
            }
        }
        let time = unix(self.now - self.began);
        self.send.handle_timeout(ROOM, self.now, time);
        while self.send.poll_query().is_some() {
            let state =
                |group: &Ipv6Addr| Record::new(RecordType::ModeIsExclude, *group, Vec::new());
            let records: Vec<Record> = self.joined.iter().map(state).collect();
            for packet in report_packets(ROUTER, &records, 1_280) {
                self.send.handle_mld(&packet, self.now);
            }
        }
        while let Some(command) = self.send.poll_command() {
            if let Command::Send { group, port, data } = command {
                let datagram = Datagram {
                    source: TAB,
                    group,
                    port,
                    data: &data,
                };
                // a member may get its own
                self.send.handle_datagram(datagram, self.now);
                if self.joined.contains(&group) {
                    self.get.handle_datagram(datagram, self.now);
                }
            }
        }
        self.get.handle_timeout(self.now);
        while let Some(command) = self.get.poll_command() {
            let (group, kind) = match command {
                Command::Join(group) => (group, RecordType::ChangeToExclude),
                Command::Leave(group) => (group, RecordType::ChangeToInclude),
                other => panic!("a receiver only joins: {other:?}"),
            };
            match kind {
                RecordType::ChangeToExclude => self.joined.insert(group),
                _ => self.joined.remove(&group),
            };
            let record = Record::new(kind, group, Vec::new());
            for packet in report_packets(ROUTER, &[record], 1_280) {
                self.send.handle_mld(&packet, self.now);
            }
        }
        while let Some(piece) = self.get.poll_piece() {
            self.received
                .insert((piece.file, piece.offset), piece.bytes);
        }
    }

    /// Steps on until it holds, for two minutes at most.
    fn until(&mut self, holds: impl Fn(&Value, &Value) -> bool) {
        for _ in 0..24_000 {
            self.step();
            if holds(&self.sending(), &self.receiving()) {
                return;
            }
        }
        panic!("{}\n{}", self.sending(), self.receiving());
    }

    fn sending(&self) -> Value {
        serde_json::from_str(&self.send.status()).unwrap()
    }

    fn receiving(&self) -> Value {
        serde_json::from_str(&self.get.status()).unwrap()
    }

    fn want_all(&mut self) {
        let files = self.receiving()["files"].as_array().unwrap().len();
        let all: Vec<usize> = (0..files).collect();
        self.received.clear();
        self.get.want(&all, self.now).unwrap();
    }

    /// Received bytes of files by their names.
    fn saved(&self) -> BTreeMap<String, Vec<u8>> {
        let status = self.receiving();
        let mut saved = BTreeMap::new();
        for (number, file) in status["files"].as_array().unwrap().iter().enumerate() {
            let parts = self.received.range((number, 0)..=(number, u64::MAX));
            let bytes = parts.flat_map(|(_, part)| part.clone()).collect();
            saved.insert(file["name"].as_str().unwrap().to_owned(), bytes);
        }
        saved
    }
}

fn unix(since: Duration) -> UnixTime {
    UnixTime::from_secs(1_800_000_000) + since
}

fn noise(seed: u32, length: u32) -> Vec<u8> {
    let step = |n: u32| (n.wrapping_mul(2_654_435_761) ^ seed).rotate_left(n % 31) as u8;
    (0..length).map(step).collect()
}

fn is_whole(get: &Value) -> bool {
    let files = get["files"].as_array().unwrap();
    !files.is_empty()
        && files
            .iter()
            .all(|f| f["wanted"] == true && f["got"] == f["size"])
}

fn is_offered(files: usize) -> impl Fn(&Value, &Value) -> bool {
    move |_, get| get["phase"] == "files" && get["files"].as_array().unwrap().len() == files
}

#[test]
fn a_page_receives_what_another_page_sends_in_slices() {
    let files = vec![
        ("photo.jpg", Some(noise(1, 5_000_000))),
        ("note.txt", Some(noise(2, 900))),
        ("empty", Some(Vec::new())),
    ];
    let mut tabs = Tabs::new(files.clone());
    tabs.until(is_offered(3));
    assert_eq!(tabs.receiving()["from"], "phone");
    tabs.want_all();
    tabs.until(|_, get| is_whole(get));
    let saved = tabs.saved();
    for (name, bytes) in files {
        assert!(saved[name] == bytes.unwrap(), "{name}");
    }
    assert!(tabs.longest_read <= 2 << 20, "slices, not files");
    assert_eq!(tabs.sending()["receives"], true);
    assert_eq!(tabs.sending()["other"], Value::Null, "its own beacons");
}

#[test]
fn receivers_learn_of_a_file_that_vanishes_and_get_the_others() {
    let files = vec![
        ("a", Some(noise(1, 2_000_000))),
        ("b", Some(noise(2, 2_000_000))),
    ];
    let mut tabs = Tabs::new(files);
    tabs.until(is_offered(2));
    tabs.files[0].1 = None;
    tabs.want_all();
    tabs.until(is_offered(1));
    let status = tabs.receiving();
    assert!(status["notice"].as_str().unwrap().contains("changed"));
    assert_eq!(status["others"], true, "something could not be read");
    assert_eq!(tabs.sending()["lost"], serde_json::json!([0]));
    tabs.want_all();
    tabs.until(|_, get| is_whole(get));
    assert!(tabs.saved()["b"] == noise(2, 2_000_000));
}

#[test]
fn a_file_that_changes_is_never_sent_in_part_as_it_was() {
    let mut tabs = Tabs::new(vec![("a", Some(noise(1, 2_000_000)))]);
    tabs.until(is_offered(1));
    tabs.files[0].1 = Some(noise(5, 2_000_000));
    tabs.want_all();
    tabs.until(|_, get| get["notice"].is_string() && is_offered(1)(get, get));
    tabs.want_all();
    tabs.until(|_, get| is_whole(get));
    assert!(tabs.saved()["a"] == noise(5, 2_000_000));
}

#[test]
fn another_sender_under_these_words_is_named() {
    let mut tabs = Tabs::new(vec![("a", Some(noise(1, 10)))]);
    tabs.step();
    let beacon = librecast::code::beacon::Beacon {
        offer: librecast::code::beacon::Offer::Files,
        from: "eve".into(),
        bytes: 1,
        files: 1,
        line: SecretKey::from_seed(&[1; 32]).peer_id().to_string(),
    };
    let data = beacon.encode().unwrap();
    let datagram = Datagram {
        source: TAB,
        group: beacon_group(&BeaconKey([7; 32])),
        port: librecast::code::beacon::BEACON_PORT,
        data: &data,
    };
    tabs.send.handle_datagram(datagram, tabs.now);
    assert_eq!(tabs.sending()["other"], "eve");
}
