//! One page presents, another attends. The test plays browsers and network.

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
            let (now, time) = (self.now(), UnixTime::from_millis(UNIX_MS + self.ms));
            self.presenter.handle_timeout(now, time);
            self.attender.handle_timeout(now, time);
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
                            self.attender.handle_datagram(datagram, now, time);
                        }
                    }
                }
            }
            while let Some(command) = self.attender.poll_command() {
                match command {
                    Command::Join(group) => assert!(self.joined[1].insert(group)),
                    Command::Leave(group) => assert!(self.joined[1].remove(&group)),
                    Command::Send { group, port, data } => self.hear_dora(group, port, &data),
                }
            }
        }
    }

    /// Has the attender choose a track, or drop it.
    fn choose(&mut self, name: &str, is_chosen: bool) {
        let now = self.now();
        self.attender.choose(name, is_chosen, now).unwrap();
    }

    /// Adds a picture of this size in bytes.
    fn add_picture(&mut self, name: &str, bytes: usize) {
        self.presenter.add_picture(name, &png(bytes)).unwrap();
    }

    /// Hands a datagram of Dora's host to the presenter.
    fn hear_dora(&mut self, group: Ipv6Addr, port: u16, data: &[u8]) {
        let source = DORA;
        let datagram = Datagram {
            source,
            group,
            port,
            data,
        };
        let (now, time) = (self.now(), UnixTime::from_millis(UNIX_MS + self.ms));
        self.presenter.handle_datagram(datagram, now, time);
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
    assert_eq!(world.attended()["asking"], 1);
    world.pass(2_000);
    assert_eq!(world.attended()["asking"], 0, "it has its receipt");
    assert_eq!(world.attended()["lost"], Value::Null);
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
    world.add_picture("images/dance.png", 40_000);
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
    let joined = world.joined[1].len();
    world.choose("pictures", false);
    world.pass(100);
    assert_eq!(world.joined[1].len(), joined - 1);
    assert_eq!(slide(&world)["pictures"], json!([null]));
    let bytes = track(&world)["bytes"].clone();
    world.add_picture("images/dance.png", 20_000);
    world.pass(3_000);
    assert_eq!(track(&world)["bytes"], bytes);
    // joined again, the current one comes
    world.choose("pictures", true);
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
    world.add_picture("dance.png", 90_000);
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
    world.add_picture("dance.png", 90_000);
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
                world.hear_dora(group, port, &data);
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

const SCREEN: (u16, u16) = (64, 48);

/// A WebP with a valid header, and pixels behind it; `quality`: as the page asks for it.
fn webp(quality: u8, (width, height): (u16, u16), pixels: &[u8]) -> Vec<u8> {
    let mut webp = b"RIFF\0\0\0\0WEBP".to_vec();
    if quality == 100 {
        let bits = u32::from(width - 1) | u32::from(height - 1) << 14;
        webp.extend(b"VP8L\0\0\0\0\x2f");
        webp.extend(bits.to_le_bytes());
        webp.extend([0; 5]);
    } else {
        webp.extend(b"VP8 \0\0\0\0\0\0\0\x9d\x01\x2a");
        webp.extend(width.to_le_bytes());
        webp.extend(height.to_le_bytes());
    }
    assert_eq!(webp.len(), 30);
    webp.extend(pixels);
    webp
}

/// A screen, and a browser that encodes its areas.
struct Canvas {
    pixels: Vec<u8>,
    /// Bytes behind each picture, by its quality.
    padding: fn(u8) -> usize,
    /// Qualities of encoded pictures.
    encoded: Vec<u8>,
}

impl Canvas {
    fn new() -> Self {
        let pixels = usize::from(SCREEN.0) * usize::from(SCREEN.1);
        Self {
            pixels: vec![9; pixels * 4],
            padding: |_| 0,
            encoded: Vec::new(),
        }
    }

    fn row(x: usize, y: usize, width: usize) -> std::ops::Range<usize> {
        let begin = (y * usize::from(SCREEN.0) + x) * 4;
        begin..begin + width * 4
    }

    /// Looks if the presenter wants a look, and encodes wanted areas.
    fn look(&mut self, world: &mut World) {
        let now = world.now();
        if !world.presenter.wants_look(now) {
            return;
        }
        let size = (SCREEN.0.into(), SCREEN.1.into());
        world
            .presenter
            .look(size, self.pixels.clone(), now)
            .unwrap();
        loop {
            let wanted = world.presenter.wanted_pictures();
            let Some((quality, areas)) = wanted.split_first() else {
                return;
            };
            self.encoded.push(*quality);
            let files = areas.chunks(8).map(|area| {
                let area: Vec<u16> = area
                    .chunks(2)
                    .map(|n| u16::from_be_bytes([n[0], n[1]]))
                    .collect();
                let [x, y, width, height] = area[..] else {
                    panic!("{area:?}")
                };
                let rows = (y..y + height)
                    .flat_map(|y| &self.pixels[Self::row(x.into(), y.into(), width.into())]);
                let mut file = webp(
                    *quality,
                    (width, height),
                    &rows.copied().collect::<Vec<_>>(),
                );
                file.resize(file.len() + (self.padding)(*quality), 0);
                file
            });
            let files = files.collect();
            world.presenter.screen_pictures(files, now).unwrap();
        }
    }

    /// Draws the changes that a page received.
    fn draw(&mut self, world: &mut World) {
        loop {
            let change = world.attender.poll_screen();
            let Some((head, rest)) = change.split_first_chunk::<12>() else {
                return;
            };
            let head: Vec<usize> = head
                .chunks(2)
                .map(|n| usize::from(u16::from_be_bytes([n[0], n[1]])))
                .collect();
            let [screen_width, screen_height, x, y, width, height] = head[..] else {
                panic!("{head:?}")
            };
            assert_eq!((screen_width, screen_height), (64, 48));
            let is_whole = (width, height) == (64, 48);
            assert_eq!(rest[0], u8::from(is_whole));
            let file = rest[1..].strip_prefix(b"image/webp\n").unwrap();
            for (row, pixels) in file[30..].chunks(width * 4).take(height).enumerate() {
                self.pixels[Self::row(x, y + row, width)].copy_from_slice(pixels);
            }
        }
    }
}

/// Lets time pass for both pages.
fn pass(world: &mut World, source: &mut Canvas, drawn: &mut Canvas, ms: u64) {
    for _ in 0..ms / 100 {
        source.look(world);
        world.pass(100);
        drawn.draw(world);
    }
}

fn screen_track(world: &World) -> Value {
    let attended = world.attended();
    let mut tracks = attended["tracks"].as_array().unwrap().iter();
    let found = tracks.find(|track| track["kind"] == "screen");
    found.cloned().unwrap_or_default()
}

/// Both pages, with a screen on air.
fn showing() -> (World, Canvas, Canvas) {
    let mut world = World::new();
    let now = world.now();
    let time = UnixTime::from_millis(UNIX_MS);
    let early = world.presenter.show_screen(&[5; 32], time, now);
    assert!(early.unwrap_err().contains("not on air"));
    world.pass(8_000);
    assert_eq!(screen_track(&world), Value::Null);
    let (now, time) = (world.now(), UnixTime::from_millis(UNIX_MS + world.ms));
    world.presenter.show_screen(&[5; 32], time, now).unwrap();
    let described = world.presenter.describe("screen", "a terminal");
    described.unwrap();
    (world, Canvas::new(), Canvas::new())
}

#[test]
fn a_screen_is_exact_for_a_page_that_chose_it_and_no_byte_for_others() {
    let (mut world, mut source, mut drawn) = showing();
    source.pixels[40] = 77;
    pass(&mut world, &mut source, &mut drawn, 3_000);
    // it is named, and nothing of it comes
    let named = screen_track(&world);
    assert_eq!(
        (&named["chosen"], &named["bytes"]),
        (&json!(false), &json!(0))
    );
    assert_eq!(named["description"], "a terminal");
    assert_eq!(world.attended()["screen"], Value::Null);
    assert_eq!(world.status()["screen"]["size"], json!([64, 48]));
    // it comes once it is chosen, and the carousel is left
    let joined = world.joined[1].len();
    world.choose("screen", true);
    world.pass(20);
    assert_eq!(world.joined[1].len(), joined + 2);
    assert_eq!(world.attended()["screen"]["state"], "waiting");
    pass(&mut world, &mut source, &mut drawn, 2_500);
    assert!(drawn.pixels == source.pixels);
    assert_eq!(world.joined[1].len(), joined + 1);
    let shown = json!({ "state": "shown", "paused": false });
    assert_eq!(world.attended()["screen"], shown);
    // an area
    source.pixels[Canvas::row(7, 9, 5)].fill(3);
    let bytes = screen_track(&world)["bytes"].as_u64();
    pass(&mut world, &mut source, &mut drawn, 2_000);
    assert!(drawn.pixels == source.pixels);
    let more = screen_track(&world)["bytes"].as_u64().zip(bytes);
    assert!(
        more.is_some_and(|(after, before)| after - before < 1_000),
        "{more:?}"
    );
    // the reader's pause stops all of it, and what changed comes after it
    let now = world.now();
    world.attender.pause_screen(true, now);
    world.pass(20);
    assert_eq!(world.joined[1].len(), joined);
    let before = drawn.pixels.clone();
    source.pixels[Canvas::row(1, 40, 30)].fill(4);
    pass(&mut world, &mut source, &mut drawn, 12_000);
    assert!(drawn.pixels == before);
    assert_eq!(world.attended()["screen"]["paused"], true);
    let now = world.now();
    world.attender.pause_screen(false, now);
    pass(&mut world, &mut source, &mut drawn, 3_000);
    assert!(drawn.pixels == source.pixels);
    assert_eq!(world.attended()["screen"]["state"], "shown");
    // dropped: no group of it is joined
    world.choose("screen", false);
    world.pass(20);
    assert_eq!(world.joined[1].len(), joined);
    assert_eq!(world.attended()["screen"], Value::Null);
    let bytes = screen_track(&world)["bytes"].clone();
    source.pixels.fill(1);
    pass(&mut world, &mut source, &mut drawn, 2_000);
    assert_eq!(screen_track(&world)["bytes"], bytes);
    // and the end, for one who joined
    world.choose("screen", true);
    pass(&mut world, &mut source, &mut drawn, 2_000);
    assert!(drawn.pixels == source.pixels);
    let now = world.now();
    world.presenter.end_screen(now);
    world.pass(500);
    assert_eq!(world.attended()["screen"]["state"], "ended");
    assert_eq!(world.status()["screen"], Value::Null);
    assert!(!world.presenter.wants_look(world.now()));
    // leaving the page leaves its groups
    let now = world.now();
    world.attender.end(now);
    world.pass(20);
    assert!(world.joined[1].is_empty());
}

#[test]
fn a_screen_that_falls_silent_is_reported() {
    let (mut world, mut source, mut drawn) = showing();
    world.pass(1_000);
    world.choose("screen", true);
    pass(&mut world, &mut source, &mut drawn, 2_000);
    assert_eq!(world.attended()["screen"]["state"], "shown");
    // the presenter's tab was killed, without last words
    world.reopen();
    world.pass(12_000);
    assert_eq!(world.attended()["screen"]["state"], "silent");
    // again on air: a new run, from its first picture on
    let (now, time) = (world.now(), UnixTime::from_millis(UNIX_MS + world.ms));
    world.presenter.show_screen(&[6; 32], time, now).unwrap();
    source.pixels.fill(200);
    pass(&mut world, &mut source, &mut drawn, 3_000);
    assert_eq!(world.attended()["screen"]["state"], "shown");
    assert!(drawn.pixels == source.pixels);
}

#[test]
fn photographs_lose_something_until_the_screen_rests() {
    let (mut world, mut source, mut drawn) = showing();
    world.choose("screen", true);
    world.pass(1_000);
    source.padding = |quality| match quality {
        100 => 450_000,
        _ => 60_000,
    };
    pass(&mut world, &mut source, &mut drawn, 1_000);
    assert_eq!(source.encoded, [100, 80]);
    assert_eq!(world.status()["screen"]["exact"], false);
    pass(&mut world, &mut source, &mut drawn, 4_000);
    assert_eq!(source.encoded, [100, 80, 100], "exact after a rest");
    assert_eq!(world.status()["screen"]["exact"], true);
    // while 450 kB are on their way, a change is not late
    assert_eq!(world.attended()["screen"]["state"], "coming");
    source.padding = |_| 0;
    source.pixels[Canvas::row(20, 20, 4)].fill(5);
    pass(&mut world, &mut source, &mut drawn, 1_500);
    assert!(drawn.pixels == source.pixels);
    // the carousel brings the rest of it
    pass(&mut world, &mut source, &mut drawn, 20_000);
    assert_eq!(world.attended()["screen"]["state"], "shown");
    assert!(drawn.pixels == source.pixels);
    assert_eq!(source.encoded.len(), 4);
    // too long at each quality: passed over, reported, and tried again later
    source.padding = |_| 1 << 20;
    source.encoded.clear();
    source.pixels.fill(8);
    pass(&mut world, &mut source, &mut drawn, 5_000);
    assert_eq!(source.encoded, [100, 80, 50]);
    assert_eq!(world.status()["screen"]["too_long"], true);
    source.padding = |_| 0;
    pass(&mut world, &mut source, &mut drawn, 9_000);
    assert_eq!(world.status()["screen"]["too_long"], false);
    assert!(drawn.pixels == source.pixels);
}

#[test]
fn a_busy_screen_renews_the_carousel() {
    let (mut world, mut source, mut drawn) = showing();
    source.padding = |_| 20_000;
    for step in 0..120 {
        source.pixels[Canvas::row(2, step % 48, 9)].fill(step as u8);
        pass(&mut world, &mut source, &mut drawn, 500);
    }
    // a page that joins now has a whole picture and at most 256 kB of changes to receive
    world.choose("screen", true);
    pass(&mut world, &mut source, &mut drawn, 11_000);
    assert!(drawn.pixels == source.pixels);
    // what cannot be a screen is refused, and harms nothing
    let now = world.now() + Duration::from_secs(2);
    let refused = world.presenter.look((4_000, 3_000), Vec::new(), now);
    assert!(refused.unwrap_err().contains("at most 1920 x 1200"));
    assert!(world.presenter.look((64, 48), vec![0; 7], now).is_err());
    assert!(world.presenter.look((0, 0), Vec::new(), now).is_err());
    assert!(
        world
            .presenter
            .look((65_536, 65_536), Vec::new(), now)
            .is_err()
    );
    world.presenter.screen_pictures(vec![vec![1]], now).unwrap();
    source.pixels[0] = 99;
    pass(&mut world, &mut source, &mut drawn, 3_000);
    assert!(drawn.pixels == source.pixels);
}

/// A frame of VP8: each with a number at its end.
fn vp8((width, height): (u16, u16), is_key: bool, number: u32) -> Vec<u8> {
    let mut frame = match is_key {
        true => [
            &[0x10, 0, 0, 0x9d, 1, 0x2a][..],
            &width.to_le_bytes(),
            &height.to_le_bytes(),
        ]
        .concat(),
        false => vec![0x11, 0, 0],
    };
    frame.resize(1_500, 0xff);
    frame.extend(number.to_be_bytes());
    frame
}

/// A camera whose pictures are numbered, with a key each 2 s.
#[derive(Default)]
struct Film {
    number: u32,
    /// Whether the large picture is encoded, too, and the number of its first frame.
    has_large: bool,
    large_from: u32,
    /// Whether the last frame that came was of the large picture.
    is_large: bool,
    /// Numbers of frames that came to the attender: of the small picture, and of the large one.
    small: Vec<u32>,
    large: Vec<u32>,
}

impl Film {
    /// Films for this time.
    fn pass(&mut self, world: &mut World, ms: u64) {
        for _ in 0..ms / 60 {
            self.number += 1;
            let (number, now) = (self.number, world.now());
            let frame = vp8((320, 180), number % 30 == 1, number);
            assert_eq!(world.presenter.camera_frame(false, &frame, now), Ok(true));
            if self.has_large {
                if self.large_from == 0 {
                    self.large_from = number;
                }
                let is_key = (number - self.large_from).is_multiple_of(30);
                let frame = vp8((640, 360), is_key, number);
                assert_eq!(world.presenter.camera_frame(true, &frame, now), Ok(true));
            }
            world.pass(60);
            loop {
                let frame = world.attender.poll_camera();
                let Some((rest, number)) = frame.split_last_chunk::<4>() else {
                    break;
                };
                let is_large = match rest[0] {
                    1 => rest[7..11] == [0x80, 2, 0x68, 1],
                    // it is of the same picture as the one before
                    _ => self.is_large,
                };
                self.is_large = is_large;
                let to = match is_large {
                    true => &mut self.large,
                    false => &mut self.small,
                };
                assert!(rest[0] == 1 || !to.is_empty());
                to.push(u32::from_be_bytes(*number));
            }
        }
    }
}

#[test]
fn a_camera_comes_to_a_page_that_chose_it_in_the_size_that_it_chose() {
    let mut world = World::new();
    world.pass(8_000);
    let (now, time) = (world.now(), UnixTime::from_millis(UNIX_MS + world.ms));
    let begun = world.presenter.show_camera(&[5; 32], true, time, now);
    begun.unwrap();
    world.presenter.describe("camera", "Ann").unwrap();
    assert!(world.presenter.describe("noise", "Ann").is_err());
    let mut film = Film::default();
    film.pass(&mut world, 3_000);
    // it is named, and nothing of it comes
    let track = |world: &World| {
        let attended = world.attended();
        let tracks = attended["tracks"].as_array().unwrap().iter();
        let mut found = tracks.filter(|track| track["kind"] == "camera");
        found.next().cloned().unwrap()
    };
    assert_eq!(track(&world)["bytes"], 0);
    assert_eq!(track(&world)["description"], "Ann");
    assert_eq!(world.attended()["camera"], Value::Null);
    assert!(film.small.is_empty());
    // chosen: base and smooth, from a key on
    let joined = world.joined[1].len();
    world.choose("camera", true);
    world.pass(20);
    assert_eq!(world.joined[1].len(), joined + 2);
    assert_eq!(world.attended()["camera"]["state"], "waiting");
    film.pass(&mut world, 3_000);
    assert_eq!(film.small.first(), Some(&61));
    assert!(film.small.is_sorted_by(|a, b| a + 1 == *b));
    let shown = json!({ "state": "shown", "paused": false, "size": "small", "has_large": true });
    assert_eq!(world.attended()["camera"], shown);
    // the large picture, which the presenter encodes once somebody has joined it
    let group = |name: &str| -> Ipv6Addr {
        let group = world.status()["camera"][name].clone();
        group.as_str().unwrap().parse().unwrap()
    };
    let (large, base) = (group("large"), group("group"));
    let now = world.now();
    world.attender.want_large(true, now);
    film.pass(&mut world, 1_000);
    assert!(world.joined[1].contains(&large) && world.joined[1].contains(&base));
    assert_eq!(
        film.small.last(),
        Some(&film.number),
        "until it comes, the small one stays"
    );
    film.has_large = true;
    film.pass(&mut world, 2_000);
    assert_eq!(film.large.first(), Some(&film.large_from));
    assert_eq!(film.large.last(), Some(&film.number));
    assert!(world.joined[1].contains(&large) && !world.joined[1].contains(&base));
    assert_eq!(world.joined[1].len(), joined + 1);
    assert_eq!(world.attended()["camera"]["size"], "large");
    // a pause stops all of it
    let now = world.now();
    world.attender.pause_camera(true, now);
    world.pass(20);
    assert_eq!(world.joined[1].len(), joined);
    let before = track(&world)["bytes"].clone();
    film.pass(&mut world, 12_000);
    assert_eq!(track(&world)["bytes"], before);
    assert_eq!(world.attended()["camera"]["paused"], true);
    let now = world.now();
    world.attender.pause_camera(false, now);
    film.pass(&mut world, 4_000);
    assert_eq!(film.large.last(), Some(&film.number));
    // a decoder that is behind gets less, at once
    for _ in 0..2 {
        let now = world.now();
        world.attender.camera_waiting(9, false, now);
        film.pass(&mut world, 600);
    }
    assert!(!world.joined[1].contains(&large));
    let now = world.now();
    world.attender.camera_waiting(0, true, now);
    film.pass(&mut world, 3_000);
    assert_eq!(world.attended()["camera"]["size"], "small");
    assert_eq!(film.small.last(), Some(&film.number));
    world.attender.try_camera_again(world.now());
    film.pass(&mut world, 3_000);
    assert_eq!(world.attended()["camera"]["size"], "large");
    // the presenter's encoder has given it up
    let now = world.now();
    world.presenter.end_large(now);
    film.has_large = false;
    film.pass(&mut world, 3_000);
    assert_eq!(film.small.last(), Some(&film.number));
    assert_eq!(world.attended()["camera"]["has_large"], false);
    // dropped: no group of it is joined
    world.choose("camera", false);
    world.pass(20);
    assert_eq!(world.joined[1].len(), joined);
    let before = film.small.len();
    film.pass(&mut world, 3_000);
    assert_eq!(film.small.len(), before);
    // bytes that are no frame are refused, and the end is told
    world.choose("camera", true);
    film.pass(&mut world, 3_000);
    let now = world.now();
    let refused = world
        .presenter
        .camera_frame(false, &vp8((4_000, 300), true, 1), now);
    assert!(refused.unwrap_err().contains("at most 640 x 360"));
    assert_eq!(
        world.presenter.camera_frame(false, &[1, 2, 3], now),
        Ok(false)
    );
    let now = world.now();
    world.presenter.end_camera(now);
    world.pass(500);
    assert_eq!(world.attended()["camera"]["state"], "ended");
    assert_eq!(world.status()["camera"], Value::Null);
    let now = world.now();
    world.attender.end(now);
    world.pass(20);
    assert!(world.joined[1].is_empty());
}
