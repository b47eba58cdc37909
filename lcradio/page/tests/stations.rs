//! One page casts, another listens; the test acts as browser and network.

use librecast::time::UnixTime;

use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use lcradio_core::{Frame, Latency, SAP_GROUP, StationKey};
use lcroute_web_page::{Command, Datagram};
use lcroute_web_radio::casting::CastStart;
use lcroute_web_radio::frame::frame_bytes;
use lcroute_web_radio::radio::PageRadio;
use serde_json::{Value, json};

const UNIX_MS: u64 = 1_800_000_000_000;
const CASTER: Ipv6Addr = Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 1);
const LISTENER: Ipv6Addr = Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 2);

fn start(public: bool, seed: u8) -> CastStart {
    let start = json!({
        "name": "Ann reads", "title": "chapter 2", "public": public, "voice": true, "seed": vec![seed; 32],
    });
    serde_json::from_value(start).unwrap()
}

fn key() -> StationKey {
    StationKey::from_seed(&[7; 32])
}

/// 20 ms of Opus of one channel; the last byte is its number.
fn opus(n: u8) -> Vec<u8> {
    vec![15 << 3, 1, 2, n]
}

/// Two pages and a lossless network between them.
struct World {
    begin: Instant,
    ms: u64,
    caster: PageRadio,
    listener: PageRadio,
    joined: Vec<Ipv6Addr>,
}

impl World {
    fn new() -> Self {
        let begin = Instant::now();
        let mut world = Self {
            begin,
            ms: 0,
            caster: PageRadio::new(CASTER, begin),
            listener: PageRadio::new(LISTENER, begin),
            joined: Vec::new(),
        };
        world.settle();
        world
    }

    fn now(&self) -> Instant {
        self.begin + Duration::from_millis(self.ms)
    }

    fn time(&self) -> UnixTime {
        UnixTime::from_millis(UNIX_MS + self.ms)
    }

    fn cast(&mut self, public: bool) {
        let (now, time) = (self.now(), self.time());
        self.caster
            .cast(key(), start(public, 1), now, time)
            .unwrap();
        self.settle();
    }

    /// Executes the pages' commands; groups are those of the listener.
    fn settle(&mut self) {
        let (now, time) = (self.now(), self.time());
        self.caster.handle_timeout(now, time);
        self.listener.handle_timeout(now, time);
        while let Some(command) = self.listener.poll_command() {
            match command {
                Command::Join(group) => self.joined.push(group),
                Command::Leave(group) => self.joined.retain(|joined| *joined != group),
                Command::Send { .. } => panic!("a listener sends"),
            }
        }
        while let Some(command) = self.caster.poll_command() {
            if let Command::Send { group, port, data } = command
                && self.joined.contains(&group)
            {
                let datagram = Datagram {
                    source: CASTER,
                    group,
                    port,
                    data: &data,
                };
                self.listener.handle_datagram(datagram, now, time);
            }
        }
    }

    /// Sends this number of packets, 20 ms apart; returns the frames played meanwhile.
    fn pass(&mut self, packets: u8) -> Vec<Frame> {
        let mut played = Vec::new();
        for n in 0..packets {
            let now = self.now();
            let casting = self.caster.casting().unwrap();
            assert!(casting.send(&opus(n), now));
            for _ in 0..4 {
                self.settle();
                self.ms += 5;
            }
            played.push(self.listener.poll_frame(0, self.now()));
        }
        played
    }

    fn status(&self, of: &PageRadio) -> Value {
        serde_json::from_str(&of.status(self.now())).unwrap()
    }
}

fn payloads(frames: &[Frame]) -> Vec<u8> {
    let packets = frames.iter().filter_map(|frame| match frame {
        Frame::Packet(packet) => packet.payload.last().copied(),
        _ => None,
    });
    packets.collect()
}

#[test]
fn a_page_hears_what_another_casts_by_its_text() {
    let mut world = World::new();
    let now = world.now();
    let text = key().station(false).encode();
    world.listener.tune(&text, Latency::Auto, now).unwrap();
    world.settle();
    world.cast(false);
    let played = payloads(&world.pass(100));
    assert!(played.len() > 90, "{played:?}");
    assert!(played.is_sorted_by(|a, b| a + 1 == *b), "{played:?}");
    let status = world.status(&world.listener);
    assert_eq!(status["stations"], json!([]), "a private one is not listed");
    let listens = &status["listens"];
    assert_eq!(listens["state"], "live");
    let caster = json!({ "name": "Ann reads", "title": "chapter 2", "talking": false });
    assert_eq!(listens["casters"], json!([caster]));
    assert_eq!(world.listener.voices(), 1);
    assert_eq!(listens["lost"], 0);
    // the end, and the groups that remain
    let now = world.now();
    world.caster.casting().unwrap().end(now);
    for _ in 0..40 {
        world.ms += 10;
        world.settle();
    }
    assert_eq!(world.status(&world.listener)["listens"]["state"], "ended");
    assert_eq!(world.status(&world.caster)["casts"], Value::Null);
    world.listener.stop();
    world.settle();
    assert_eq!(world.joined, [SAP_GROUP]);
}

#[test]
fn a_public_station_is_listed_and_tuned_in_to_by_what_it_announced() {
    let mut world = World::new();
    world.cast(true);
    let status = world.status(&world.listener);
    let id = status["stations"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(id, *key().station(true).encode());
    let now = world.now();
    world.listener.tune(&id, Latency::Auto, now).unwrap();
    world.settle();
    // the next beacon follows after a second
    assert!(payloads(&world.pass(80)).len() > 20);
    for wrong in ["", "lcr1", "lct1xyz", "ff1e::1 5004"] {
        let error = world.listener.tune(wrong, Latency::Auto, now).unwrap_err();
        assert!(error.contains("lcr1"), "{error}");
    }
}

#[test]
fn of_two_casters_with_one_key_the_later_one_stays() {
    let mut world = World::new();
    world.cast(false);
    let mut later = PageRadio::new(LISTENER, world.now());
    world.ms += 1_000;
    let (now, time) = (world.now(), world.time());
    later.cast(key(), start(false, 2), now, time).unwrap();
    while let Some(command) = later.poll_command() {
        if let Command::Send { group, port, data } = command {
            let datagram = Datagram {
                source: LISTENER,
                group,
                port,
                data: &data,
            };
            world.caster.handle_datagram(datagram, now, time);
        }
    }
    let status = world.status(&world.caster);
    assert_eq!(status["casts"]["superseded"], true);
    assert_eq!(world.status(&later)["casts"]["superseded"], false);
}

#[test]
fn a_frame_has_this_form() {
    let silence = frame_bytes(Frame::Silence { samples: 960 });
    assert_eq!(silence, [0, 0xc0, 3, 0, 0]);
}
