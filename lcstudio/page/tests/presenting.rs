//! One page presents, another attends. The test plays browsers and network.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use lcroute_web_page::{Command, Datagram};
use lcroute_web_studio::attender::PageAttender;
use lcroute_web_studio::presenter::{PagePresenter, preview, session_of};
use librecast::id::SecretKey;
use librecast::time::UnixTime;
use librecast_log::Stored;
use serde_json::{Value, json};

const UNIX_MS: u64 = 1_800_000_000_000;
const KEY: [u8; 32] = [7; 32];
const ANN: Ipv6Addr = Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 1);
const DORA: Ipv6Addr = Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 2);
const SLIDES: &str = "# Bees\n\n---\n\n## Why";

struct World {
    presenter: PagePresenter,
    attender: PageAttender,
    joined: [BTreeSet<Ipv6Addr>; 2],
    begin: Instant,
    ms: u64,
    disk: Vec<Vec<u8>>,
    disk_works: bool,
    /// Packets of the presenter.
    sent: usize,
}

fn presenter(records: &[Vec<u8>], slides: &str, now: Instant) -> Result<PagePresenter, String> {
    let captions = format!(
        "\n en  {}  Bob\nfr {0}\n",
        SecretKey::from_seed(&[8; 32]).peer_id()
    );
    let start = json!({ "title": "Bees", "presenter": "Ann", "languages": "en, DE en", "captions": captions, "notes": true, "slides": slides });
    let start = serde_json::from_value(start).unwrap();
    let records: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
    let mut presenter = PagePresenter::new(&start, &[1; 32], &KEY, &records, now)?;
    presenter.handle_timeout(now, UnixTime::from_millis(UNIX_MS));
    assert!(presenter.poll_command().is_none(), "nobody is there");
    presenter.connect(now);
    Ok(presenter)
}

fn session() -> String {
    let found = session_of(&KEY);
    found.split_once(' ').unwrap().0.to_owned()
}

impl World {
    fn new() -> Self {
        let begin = Instant::now();
        let start =
            json!({ "session": session(), "languages": ["en"], "tracks": null, "pictures": true });
        let start = serde_json::from_value(start).unwrap();
        Self {
            presenter: presenter(&[], SLIDES, begin).unwrap(),
            attender: PageAttender::new(&start, [3; 32], begin).unwrap(),
            joined: [BTreeSet::new(), BTreeSet::new()],
            begin,
            ms: 0,
            disk: Vec::new(),
            disk_works: true,
            sent: 0,
        }
    }

    fn now(&self) -> Instant {
        self.begin + Duration::from_millis(self.ms)
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms / 20 {
            self.ms += 20;
            let (now, time) = (self.now(), UNIX_MS + self.ms);
            self.presenter
                .handle_timeout(now, UnixTime::from_millis(time));
            self.attender
                .handle_timeout(now, UnixTime::from_millis(time));
            if self.disk_works {
                self.keep();
            }
            while let Some(command) = self.presenter.poll_command() {
                match command {
                    Command::Join(group) => assert!(self.joined[0].insert(group)),
                    Command::Leave(group) => assert!(self.joined[0].remove(&group)),
                    Command::Send { group, port, data } => {
                        self.sent += 1;
                        if self.joined[1].contains(&group) {
                            let datagram = Datagram {
                                source: ANN,
                                group,
                                port,
                                data: &data,
                            };
                            self.attender.handle_datagram(
                                datagram,
                                now,
                                UnixTime::from_millis(time),
                            );
                        }
                    }
                }
            }
            while let Some(command) = self.attender.poll_command() {
                match command {
                    Command::Join(group) => assert!(self.joined[1].insert(group)),
                    Command::Leave(group) => assert!(self.joined[1].remove(&group)),
                    Command::Send { group, port, data } => {
                        let datagram = Datagram {
                            source: DORA,
                            group,
                            port,
                            data: &data,
                        };
                        self.presenter
                            .handle_datagram(datagram, now, UnixTime::from_millis(time));
                    }
                }
            }
        }
    }

    /// Stores the page's records on its disk.
    fn keep(&mut self) {
        let records = self.presenter.take_records();
        let Some((turn, mut rest)) = records.split_first_chunk::<4>() else {
            return;
        };
        while let Some((head, after)) = rest.split_first_chunk::<19>() {
            let length = usize::from(u16::from_be_bytes([head[17], head[18]]));
            let (bytes, after) = after.split_at(length);
            self.disk.push(bytes.to_vec());
            rest = after;
        }
        self.presenter.kept(u32::from_be_bytes(*turn));
    }

    /// Kills the tab; another one begins with its disk.
    fn reopen(&mut self) {
        self.joined[0].clear();
        self.presenter = presenter(&self.disk, SLIDES, self.now()).unwrap();
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.presenter.status()).unwrap()
    }

    fn attended(&self) -> Value {
        serde_json::from_str(&self.attender.status()).unwrap()
    }
}

#[test]
fn what_a_page_presents_is_attended_by_another() {
    let mut world = World::new();
    assert_eq!(world.status()["state"], "starting");
    world.pass(8_000);
    assert_eq!(world.status()["state"], "live");
    assert_eq!(world.status()["titles"], json!(["Bees", "Why"]));
    assert_eq!(world.status()["languages"], json!(["en", "de", "fr"]));
    let attended = world.attended();
    assert_eq!(attended["title"], "Bees");
    assert_eq!([&attended["slides"], &attended["shown"]], [2, 1]);
    world.presenter.turn_to(2);
    world.presenter.caption("en", "they dance").unwrap();
    assert!(world.presenter.caption("es", "no").is_err());
    let now = world.now();
    world.attender.ask("Bob", "how far?", now).unwrap();
    world.pass(2_000);
    assert_eq!(world.attended()["shown"], 2);
    assert!(world.attender.captions(9).contains("they dance"));
    assert!(world.presenter.captions(9).contains("they dance"));
    let asked =
        |taken: bool| json!([{ "number": 1, "name": "Bob", "text": "how far?", "taken": taken }]);
    assert_eq!(world.status()["questions"], asked(false));
    world.presenter.take_up(1).unwrap();
    assert!(world.presenter.take_up(0).is_err() && world.presenter.take_up(2).is_err());
    world
        .presenter
        .set_slides("# Bees\n\n---\n\n## Why\n\n---\n\nthree")
        .unwrap();
    world.pass(2_000);
    assert_eq!(world.status()["questions"], asked(true));
    assert!(world.attender.questions().contains("how far?"));
    assert_eq!(world.attended()["slides"], 3);
    world.presenter.end().unwrap();
    world.pass(2_000);
    assert_eq!(world.attended()["state"], "ended");
    assert_eq!(world.status()["state"], "ended");
    world.presenter.leave();
    world.pass(100);
    assert!(world.joined[0].is_empty());
}

/// Returns a PNG with valid headers, 8 x 4 pixels, of this size in bytes.
fn png(bytes: usize) -> Vec<u8> {
    let head = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\x08\0\0\0\x04\x08\x02\0\0\0....\0\0\0\0IDAT";
    let mut png = head.to_vec();
    png.resize(bytes, 7);
    png
}

#[test]
fn pictures_come_to_who_attends_and_do_not_once_they_are_dropped() {
    let mut world = World::new();
    world.pass(8_000);
    let slide =
        |world: &World| -> Value { serde_json::from_str(&world.attender.slide(1)).unwrap() };
    let track = |world: &World| -> Value {
        let attended = world.attended();
        let mut tracks = attended["tracks"].as_array().unwrap().iter();
        tracks
            .find(|track| track["kind"] == "pictures")
            .cloned()
            .unwrap_or_default()
    };
    assert_eq!(track(&world), Value::Null, "there is none so far");
    world
        .presenter
        .set_slides("# Bees\n\n![a dance](images/dance.png)")
        .unwrap();
    world.pass(1_000);
    assert_eq!(slide(&world)["pictures"], json!([null]));
    // pictures wait for the busy store; a turn does not wait for them
    world
        .presenter
        .add_picture("images/dance.png", &png(40_000))
        .unwrap();
    world.pass(3_000);
    let shown = slide(&world);
    assert!(
        shown["html"]
            .as_str()
            .unwrap()
            .contains("<img src=\"picture:0\" alt=\"a dance\""),
        "{shown}"
    );
    let picture = &shown["pictures"][0];
    assert_eq!(
        (&picture["width"], &picture["height"]),
        (&json!(8), &json!(4))
    );
    let file = world.attender.picture_file(picture["id"].as_str().unwrap());
    assert_eq!(file, [&b"image/png\n"[..], &png(40_000)].concat());
    assert!(world.attender.picture_file("x").is_empty());
    assert_eq!(
        track(&world)["pictures"],
        json!({ "named": 1, "whole": 1, "bytes": 40_000 })
    );
    assert_eq!(world.status()["pictures"], track(&world)["pictures"]);
    // left: its group is left, and the alt text shows
    let (joined, now) = (world.joined[1].len(), world.now());
    world.attender.choose("pictures", false, now).unwrap();
    world.pass(100);
    assert_eq!(world.joined[1].len(), joined - 1);
    assert_eq!(slide(&world)["pictures"], json!([null]));
    let bytes = track(&world)["bytes"].clone();
    world
        .presenter
        .add_picture("images/dance.png", &png(20_000))
        .unwrap();
    world.pass(3_000);
    assert_eq!(track(&world)["bytes"], bytes);
    // joined again, the current one comes
    let now = world.now();
    world.attender.choose("pictures", true, now).unwrap();
    world.pass(8_000);
    let id = slide(&world)["pictures"][0]["id"].clone();
    let file = world.attender.picture_file(id.as_str().unwrap());
    assert_eq!(file.len(), 10 + 20_000);
    let refused = world.presenter.add_picture("x.svg", b"<svg/>").unwrap_err();
    assert!(refused.contains("x.svg: no PNG"), "{refused}");
}

#[test]
fn a_picture_waits_for_the_store_and_a_page_that_was_killed_sends_the_rest() {
    let mut world = World::new();
    world.presenter.set_slides("![a dance](dance.png)").unwrap();
    world.pass(8_000);
    world
        .presenter
        .add_picture("dance.png", &png(90_000))
        .unwrap();
    world.pass(500);
    world.disk_works = false;
    world.pass(200);
    let before = world.presenter.status();
    world.pass(5_000);
    assert_eq!(
        world.presenter.status(),
        before,
        "nothing more is made than the store takes"
    );
    world.disk_works = true;
    let on_disk = world.disk.len();
    world.reopen();
    world.presenter.set_slides("![a dance](dance.png)").unwrap();
    world
        .presenter
        .add_picture("dance.png", &png(90_000))
        .unwrap();
    world.pass(8_000);
    assert!(world.disk.len() - on_disk < 92, "only the rest");
    let slide: Value = serde_json::from_str(&world.attender.slide(1)).unwrap();
    assert_eq!(slide["pictures"][0]["width"], 8, "{slide}");
}

#[test]
fn nothing_leaves_before_it_is_on_disk_and_a_page_that_was_killed_goes_on_behind_it() {
    let mut world = World::new();
    world.pass(8_000);
    world.disk_works = false;
    world.presenter.turn_to(2);
    world.pass(1_000);
    assert_eq!(world.attended()["shown"], 1, "it is not on disk");
    let sent = world.sent;
    world.pass(10_000);
    assert_eq!(world.sent, sent, "what comes behind it waits as well");
    // killed: no member has that turn, and another entry has its number
    world.disk_works = true;
    world.reopen();
    world.pass(8_000);
    assert_eq!(world.status()["shown"], 1);
    world.presenter.caption("en", "once more").unwrap();
    world.presenter.turn_to(2);
    world.pass(2_000);
    assert_eq!(world.attended()["shown"], 2);
    // killed after it was sent; the disk also has garbage
    world.disk.push(b"garbage".to_vec());
    let forged = world.disk.iter().find_map(|bytes| {
        let Ok(Stored::Entry(mut entry)) = Stored::decode(bytes) else {
            return None;
        };
        entry.body.push(0);
        Stored::Entry(entry).encode().ok()
    });
    world.disk.push(forged.unwrap());
    world.disk.reverse();
    world.reopen();
    world.pass(8_000);
    assert_eq!(world.status()["shown"], 2);
    world.presenter.turn_to(1);
    world.pass(2_000);
    assert_eq!(world.attended()["shown"], 1);
    for drops in [&world.attended()["drops"], &world.status()["drops"]] {
        assert!(drops.get("conflict").is_none(), "{drops}");
    }
    assert_eq!(world.status()["failed"], Value::Null);
}

#[test]
fn two_pages_with_one_key_find_each_other() {
    let mut world = World::new();
    world.pass(8_000);
    let mut other = presenter(&world.disk, SLIDES, world.now()).unwrap();
    let until = world.ms + 20_000;
    while world.status()["state"] == "live" && world.ms < until {
        world.pass(20);
        let (now, time) = (world.now(), UNIX_MS + world.ms);
        other.handle_timeout(now, UnixTime::from_millis(time));
        let records = other.take_records();
        if let Some(turn) = records.first_chunk::<4>() {
            other.kept(u32::from_be_bytes(*turn));
        }
        while let Some(command) = other.poll_command() {
            if let Command::Send { group, port, data } = command {
                let datagram = Datagram {
                    source: DORA,
                    group,
                    port,
                    data: &data,
                };
                world
                    .presenter
                    .handle_datagram(datagram, now, UnixTime::from_millis(time));
            }
        }
    }
    let status = world.status();
    assert_eq!(status["state"], "failed");
    let why = status["failed"].as_str().unwrap();
    assert!(why.contains("another host presents"), "{why}");
    world.pass(100);
    assert!(world.joined[0].is_empty(), "it has left");
}

#[test]
fn slides_are_shown_and_looked_at_while_somebody_writes() {
    let text = "# Bees\n\n---\n\n## Why\n\n![](a.png) <b>x</b>\n";
    let of = |line| serde_json::from_str::<Value>(&preview(text, line)).unwrap();
    assert_eq!(of(1)["shown"]["title"], "Bees");
    assert_eq!(of(7)["shown"]["number"], 2);
    assert_eq!(of(7)["slides"], 2);
    let problems = of(0)["problems"].to_string();
    assert!(
        problems.contains("no alt text") && problems.contains("[7,"),
        "{problems}"
    );
    assert_eq!(of(0)["shown"]["number"], 1);
    let shown: Value = serde_json::from_str(&preview("", 1)).unwrap();
    assert_eq!(
        (&shown["slides"], &shown["shown"]),
        (&json!(0), &Value::Null)
    );
    let many = preview(&"a\n\n---\n\n".repeat(501), 1);
    assert!(
        many.contains("501 slides, at most 500"),
        "{}",
        &many[many.len() - 99..]
    );
}

#[test]
fn what_cannot_be_presented_is_said() {
    let start = json!({ "title": "", "presenter": "", "languages": "en, no_language", "notes": false, "slides": "" });
    let start = serde_json::from_value(start).unwrap();
    let now = Instant::now();
    let refused = PagePresenter::new(&start, &[1; 32], &KEY, &[], now).unwrap_err();
    assert!(refused.contains("no_language"), "{refused}");
    for captions in ["en", "en 12D3KooW", "12D3KooW en", "en\u{202e}, nobody"] {
        let start = json!({ "title": "", "presenter": "", "languages": "en", "captions": captions, "notes": false, "slides": "" });
        let start = serde_json::from_value(start).unwrap();
        let refused = PagePresenter::new(&start, &[1; 32], &KEY, &[], now).unwrap_err();
        assert!(refused.contains("a line is a language and"), "{refused}");
        assert!(!refused.contains('\u{202e}'), "{refused}");
    }
    let refused = presenter(&[], &"a".repeat(65 << 10), now).unwrap_err();
    assert!(refused.contains("slide in line 1"), "{refused}");
    let refused = presenter(&[], &"a".repeat(33 << 20), now).unwrap_err();
    assert!(refused.contains("are no slides"), "{refused}");
    assert!(session().starts_with("lcs1"));
}
