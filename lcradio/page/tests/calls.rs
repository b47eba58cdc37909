//! Pages take part in a call; the test acts as browsers and network.

use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use lcradio_core::{CallKey, Frame};
use lcroute_web_page::{Command, Datagram};
use lcroute_web_radio::calling::PageCall;
use librecast::time::UnixTime;
use serde_json::{Value, json};

const UNIX_MS: u64 = 1_800_000_000_000;
/// Samples of a packet.
const SAMPLES: u32 = 480;

/// 10 ms of Opus of one channel (SILK); the last byte is its number.
fn opus(n: u8) -> Vec<u8> {
    vec![8 << 3, 1, 2, n]
}

struct One {
    call: PageCall,
    address: Ipv6Addr,
    joined: Vec<Ipv6Addr>,
    is_closed: bool,
    sent: u32,
    skipped: u32,
}

/// Pages and a lossless network between them.
struct World {
    begin: Instant,
    ms: u64,
    all: Vec<One>,
}

impl World {
    fn new() -> Self {
        Self {
            begin: Instant::now(),
            ms: 0,
            all: Vec::new(),
        }
    }

    fn now(&self) -> Instant {
        self.begin + Duration::from_millis(self.ms)
    }

    fn join(&mut self, name: &str, talks: bool) {
        let number = self.all.len() as u8 + 1;
        let address = Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, number.into());
        let call = CallKey::from_seed(&[7; 32]).encode();
        let start = json!({
            "address": address, "call": *call, "name": name, "talks": talks, "seed": vec![number; 32],
        });
        let start = serde_json::from_value(start).unwrap();
        self.all.push(One {
            call: PageCall::new(start, self.now()).unwrap(),
            address,
            joined: Vec::new(),
            is_closed: false,
            sent: 0,
            skipped: 0,
        });
    }

    /// Each microphone has 10 ms of sound.
    fn step(&mut self) {
        self.ms += 10;
        let (now, time) = (self.now(), UnixTime::from_millis(UNIX_MS + self.ms));
        let mut sent = Vec::new();
        for one in self.all.iter_mut().filter(|one| !one.is_closed) {
            let skipped = std::mem::take(&mut one.skipped);
            assert_eq!(one.call.send(&opus(self.ms as u8), skipped, now), SAMPLES);
            one.call.handle_timeout(now, time);
            while let Some(command) = one.call.poll_command() {
                match command {
                    Command::Join(group) => one.joined.push(group),
                    Command::Leave(group) => one.joined.retain(|joined| *joined != group),
                    Command::Send { group, port, data } => {
                        one.sent += u32::from(port == 5_004);
                        sent.push((one.address, group, port, data));
                    }
                }
            }
        }
        for (source, group, port, data) in sent {
            self.deliver(source, group, port, &data);
        }
    }

    fn deliver(&mut self, source: Ipv6Addr, group: Ipv6Addr, port: u16, data: &[u8]) {
        let (now, time) = (self.now(), UnixTime::from_millis(UNIX_MS + self.ms));
        for one in &mut self.all {
            if one.joined.contains(&group) {
                let datagram = Datagram {
                    source,
                    group,
                    port,
                    data,
                };
                one.call.handle_datagram(datagram, now, time);
            }
        }
    }

    /// Runs, and returns the packets that each played of the participant in its first place.
    fn run(&mut self, ms: u64) -> Vec<u32> {
        let mut played = vec![0; self.all.len()];
        for _ in 0..ms / 10 {
            self.step();
            let now = self.now();
            for (at, one) in self.all.iter_mut().enumerate() {
                let frame = one.call.poll_frame(0, now);
                played[at] += u32::from(matches!(frame, Frame::Packet(_)));
                one.call.add_power(0, 0.01, SAMPLES);
            }
        }
        played
    }

    fn status(&self, at: usize) -> Value {
        serde_json::from_str(&self.all[at].call.status()).unwrap()
    }

    fn names(&self, at: usize) -> Vec<String> {
        let status = self.status(at);
        let all = status["participants"].as_array().unwrap();
        all.iter()
            .map(|one| one["name"].as_str().unwrap().to_owned())
            .collect()
    }
}

#[test]
fn two_tabs_hear_each_other_and_a_listener_both_and_mute_and_hold_send_nothing() {
    let mut world = World::new();
    world.join("Ann", true);
    world.join("Bob", true);
    world.join("", false);
    world.run(3_000);
    let played = world.run(1_000);
    assert!(played.iter().all(|packets| *packets >= 95), "{played:?}");
    assert_eq!(world.names(0), ["Bob"]);
    assert_eq!(world.names(2).len(), 2);
    assert_eq!(world.status(0)["standing"], "talks");
    assert_eq!(world.status(2)["standing"], "listens");
    assert_eq!(world.status(0)["participants"][0]["speaks"], true);
    assert_eq!(world.status(0)["participants"][0]["quality"], "good");
    assert_eq!(world.all[2].sent, 0);

    let now = world.now();
    world.all[1].call.set_muted(true, now);
    let before = world.all[1].sent;
    world.run(1_000);
    assert_eq!(world.all[1].sent, before);
    let shown = world.status(0)["participants"][0].clone();
    assert_eq!(
        (&shown["muted"], &shown["speaks"]),
        (&json!(true), &json!(false))
    );
    let now = world.now();
    world.all[1].call.set_muted(false, now);
    world.all[1].call.set_away(true, now);
    world.run(11_000);
    assert_eq!(world.all[1].sent, before);
    assert!(world.all[1].joined.is_empty() && world.names(1).is_empty());
    assert_eq!(world.status(0)["participants"][0]["away"], true);
    let now = world.now();
    world.all[1].call.set_away(false, now);
    world.run(2_000);
    assert_eq!(world.names(1), ["Ann"]);
    assert!(world.run(1_000)[0] >= 95);

    world.all[0].call.set_ignored(0, true);
    assert!(world.run(1_000)[0] < 10);
    assert_eq!(world.status(0)["participants"][0]["ignored"], true);
    // sound that was left out is not loss
    world.all[0].skipped = 20 * SAMPLES;
    world.run(1_000);
    assert_eq!(world.status(1)["lost"], 0);

    let now = world.now();
    world.all[1].call.leave(now);
    world.run(300);
    assert!(world.all[1].call.has_left() && world.all[1].joined.is_empty());
    assert!(world.names(0).is_empty());
}

#[test]
fn a_closed_tab_leaves_by_the_farewell_it_made_before() {
    let mut world = World::new();
    world.join("Ann", true);
    world.join("Bob", true);
    world.join("listener", false);
    world.run(3_000);
    assert!(world.all[2].call.take_farewell().is_none());
    let farewell = world.all[1].call.take_farewell().unwrap();
    let Command::Send { group, port, data } = farewell else {
        panic!("no datagram");
    };
    assert!(world.all[1].call.take_farewell().is_none());
    world.all[1].is_closed = true;
    let address = world.all[1].address;
    world.deliver(address, group, port, &data);
    world.run(300);
    assert!(world.names(0).is_empty());
}

#[test]
fn what_is_no_call_and_what_is_no_packet_is_refused() {
    let start = |call: &str| {
        let start = json!({
            "address": "fd01::1", "call": call, "name": "", "talks": true, "seed": vec![1; 32],
        });
        PageCall::new(serde_json::from_value(start).unwrap(), Instant::now()).map(drop)
    };
    let call = CallKey::from_seed(&[7; 32]).encode();
    assert!(start(&call).is_ok());
    for text in ["", "lcr1abc", &call[..40]] {
        assert!(start(text).is_err(), "{text}");
    }
    let mut world = World::new();
    world.join("Ann", true);
    world.join("Bob", true);
    world.run(3_000);
    let before = world.all[0].sent;
    let now = world.now();
    assert_eq!(world.all[0].call.send(&[], 0, now), 0);
    assert_eq!(world.all[0].call.send(&[0xff; 9], 0, now), 0);
    assert_eq!(world.all[0].sent, before);
    for n in 0..=255 {
        let address = world.all[1].address;
        let group = world.all[0].joined[0];
        world.deliver(address, group, 5_004, &[n; 60]);
        world.deliver(address, group, 5_006, &[n; 60]);
    }
    assert!(world.run(1_000)[0] >= 95);
}
