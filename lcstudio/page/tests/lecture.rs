//! A host presents and a page attends. The test plays browser and network.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use lcroute_web_page::{Command, Datagram};
use lcroute_web_studio::attender::PageAttender;
use lcstudio_core::{
    Caption, Deck, DeckWriter, IndexEntry, Presence, Question, SessionKey, SlideId, TrackName,
    TrackPlace, Turn, Writer,
};
use librecast::id::SecretKey;
use librecast::time::UnixTime;
use librecast_log::{
    AuthorId, Config, ENTRY_LOG_PORT, Event, GRANT_KIND, Log, Output, Role, Stored,
};
use serde_json::{Value, json};

const UNIX_MS: u64 = 1_800_000_000_000;
const HOST: Ipv6Addr = Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 1);
const PAGE: Ipv6Addr = Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 2);
const SLIDES: [&str; 2] = [
    "# Bees\n\nThey *dance*.\n\n![two bees that dance](images/dance.png)",
    "## <script>alert(1)</script>\n\n[x](javascript:alert(1)) ![far](https://h.example/p.png)",
];

/// Presenter, page, and a network between them without losses, unless a test sets some.
struct World {
    key: SessionKey,
    logs: BTreeMap<String, (Log, AuthorId)>,
    page: PageAttender,
    joined: BTreeSet<Ipv6Addr>,
    begin: Instant,
    ms: u64,
    asked: Vec<Question>,
    /// Records on the page's disk: kind and bytes; and done drafts.
    disk: Vec<(u8, Vec<u8>)>,
    done: Vec<u32>,
    /// Presence of the page that other members see.
    present: Vec<Vec<u8>>,
    /// Whether the page's disk stores records.
    disk_works: bool,
    /// Groups to which the page has sent.
    spoken: BTreeSet<Ipv6Addr>,
}

impl World {
    fn new(tracks: Option<&[&str]>) -> Self {
        Self::with(tracks, false)
    }

    /// `leaf`: the page is a leaf of its network.
    fn with(tracks: Option<&[&str]>, leaf: bool) -> Self {
        let key = SessionKey::from_seed(&[7; 32]);
        let begin = Instant::now();
        let start = json!({ "session": *key.session().encode(), "languages": ["de-AT", "en"], "tracks": tracks, "pictures": true, "leaf": leaf });
        let start = serde_json::from_value(start).unwrap();
        let mut page = PageAttender::new(&start, [3; 32], begin).unwrap();
        page.restore(&[9; 32], &[], begin);
        let mut world = Self {
            key,
            logs: BTreeMap::new(),
            page,
            joined: BTreeSet::new(),
            begin,
            ms: 0,
            asked: Vec::new(),
            disk: Vec::new(),
            done: Vec::new(),
            present: Vec::new(),
            disk_works: true,
            spoken: BTreeSet::new(),
        };
        world.present();
        world
    }

    fn now(&self) -> Instant {
        self.begin + Duration::from_millis(self.ms)
    }

    fn time(&self) -> UnixTime {
        UnixTime::from_millis(UNIX_MS + self.ms)
    }

    fn open(&mut self, place: &str, owner: SecretKey) {
        let space = self.key.session().space(owner.peer_id());
        let author = space.author(&owner.peer_id());
        let seed = [self.logs.len() as u8; 32];
        let keys = vec![owner];
        let mut log = Log::new(Config { space, keys, seed }, self.begin);
        log.set_role(Role::Holder, self.begin);
        self.logs.insert(place.to_owned(), (log, author));
    }

    fn append(&mut self, place: &str, (kind, body): (u8, Vec<u8>)) {
        let (now, time) = (self.now(), self.time());
        let (log, author) = self.logs.get_mut(place).unwrap();
        log.append(*author, kind, &body, time, now).unwrap();
    }

    /// Logs of all tracks, and the index.
    fn present(&mut self) {
        self.open("index", self.key.index_key());
        let names = [
            "slides",
            "turn",
            "questions",
            "notes",
            "captions/en",
            "captions/de",
        ];
        let tracks = names.map(|name| name.parse::<TrackName>().unwrap());
        for (name, track) in names.iter().zip(&tracks) {
            self.open(name, self.key.track_key(track));
        }
        // a log first requests its own entries from other members
        self.pass(4_000);
        for track in tracks {
            let owner = self.key.track_key(&track).peer_id();
            let place = TrackPlace::Space(owner);
            self.append("index", IndexEntry::Track(track, place).encode().unwrap());
        }
        let audio = "audio/en".parse().unwrap();
        let place = TrackPlace::Station("lcr1abc".into());
        self.append("index", IndexEntry::Track(audio, place).encode().unwrap());
        for entry in DeckWriter::entries(&Deck::default(), &SLIDES).unwrap() {
            self.append("slides", entry);
        }
        self.turn(1);
        let (title, presenter) = ("Bees".into(), "Ann".into());
        let begun = IndexEntry::Session { title, presenter };
        self.append("index", begun.encode().unwrap());
        self.pass(3_000);
    }

    fn turn(&mut self, number: u16) {
        let id = SlideId::of(SLIDES[usize::from(number) - 1]);
        self.append("turn", Turn { number, id }.encode());
    }

    fn says(&mut self, language: &str, text: &str, replaces: u32) {
        let caption = Caption {
            replaces,
            speaker: "Ann".into(),
            text: text.into(),
        };
        self.append(&format!("captions/{language}"), caption.encode().unwrap());
    }

    /// Has the page choose a track, or drop it.
    fn choose(&mut self, name: &str, is_chosen: bool) {
        let now = self.now();
        self.page.choose(name, is_chosen, now).unwrap();
    }

    /// Lets milliseconds pass, in which both exchange packets.
    fn pass(&mut self, ms: u64) {
        for _ in 0..ms / 50 {
            self.ms += 50;
            let (now, time) = (self.now(), self.time());
            self.page.handle_timeout(now, time);
            assert!(self.page.next_timeout(now) > self.begin);
            if self.disk_works {
                self.keep();
            }
            while let Some(command) = self.page.poll_command() {
                match command {
                    Command::Join(group) => assert!(self.joined.insert(group)),
                    Command::Leave(group) => assert!(self.joined.remove(&group)),
                    Command::Send { group, port, data } => {
                        assert_eq!(port, ENTRY_LOG_PORT);
                        self.spoken.insert(group);
                        let mut logs = self.logs.values_mut();
                        let has = |log: &Log| log.joined_groups().any(|joined| joined == group);
                        let (log, _) = logs.find(|(log, _)| has(log)).unwrap();
                        log.handle_datagram(group, PAGE.into(), &data, time, now);
                    }
                }
            }
            if let Some((notes, owner)) = self.logs.get_mut("notes") {
                for body in Writer::grants(notes) {
                    let granted = notes.append(*owner, GRANT_KIND, &body, time, now);
                    granted.unwrap();
                }
            }
            for (place, (log, _)) in &mut self.logs {
                if log.next_timeout() <= now {
                    log.handle_timeout(time, now);
                }
                let live = log.space().group();
                while let Some(output) = log.poll_output() {
                    let output = match output {
                        Output::Transmit(data) => Output::TransmitTo(live, data),
                        output => output,
                    };
                    match output {
                        Output::TransmitTo(group, data) if self.joined.contains(&group) => {
                            let datagram = Datagram {
                                source: HOST,
                                group,
                                port: ENTRY_LOG_PORT,
                                data: &data,
                            };
                            self.page.handle_datagram(datagram, now, time);
                        }
                        Output::Event(Event::Presence { body, .. }) => self.present.push(body),
                        Output::Event(Event::Request(body)) if place != "notes" => {
                            self.asked.push(Question::decode(&body).unwrap());
                        }
                        _ => {}
                    }
                }
            }
        }
    }

    /// Stores the page's records on its disk.
    fn keep(&mut self) {
        let records = self.page.take_records();
        let Some((turn, mut rest)) = records.split_first_chunk::<4>() else {
            return;
        };
        while let Some(([kind, head @ ..], after)) = rest.split_first_chunk::<19>() {
            let length = usize::from(u16::from_be_bytes([head[16], head[17]]));
            let (bytes, after) = after.split_at(length);
            match kind {
                2 => self
                    .done
                    .push(u32::from_be_bytes(*head.first_chunk().unwrap())),
                _ => self.disk.push((*kind, bytes.to_vec())),
            }
            rest = after;
        }
        self.page.kept(u32::from_be_bytes(*turn));
    }

    /// Returns the page's entries that the presenter has.
    fn written(&self) -> Vec<Vec<u8>> {
        let log = &self.logs["notes"].0;
        let page = SecretKey::from_seed(&[9; 32]).peer_id();
        let author = log.space().author(&page);
        let entries = (0..).map_while(|after| log.next_entry(author, after));
        entries.map(|entry| entry.body.clone()).collect()
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.page.status()).unwrap()
    }

    fn captions(&self, most: usize) -> Value {
        serde_json::from_str(&self.page.captions(most)).unwrap()
    }

    /// Returns the texts of the page's captions.
    fn texts(&self) -> Vec<String> {
        let captions = self.captions(100);
        let lines = captions["lines"].as_array().unwrap();
        let texts = lines.iter().map(|line| line["text"].as_str().unwrap());
        texts.map(str::to_owned).collect()
    }

    fn group(&self, place: &str) -> Ipv6Addr {
        self.logs[place].0.space().group()
    }
}

#[test]
fn a_page_shows_what_is_presented_in_the_readers_language() {
    let mut world = World::new(None);
    world.says("de", "sie tanzen", 0);
    world.says("en", "they dance", 0);
    world.pass(1_000);
    let status = world.status();
    assert_eq!(status["state"], "live");
    assert_eq!([&status["title"], &status["presenter"]], ["Bees", "Ann"]);
    assert_eq!(
        (&status["shown"], &status["slides"]),
        (&json!(1), &json!(2))
    );
    let tracks = status["tracks"].as_array().unwrap().iter();
    let chosen = tracks.filter(|track| track["chosen"] == true);
    let chosen: Vec<_> = chosen
        .map(|track| track["name"].as_str().unwrap())
        .collect();
    assert_eq!(chosen, ["slides", "turn", "questions", "captions/de"]);
    let places = ["index", "slides", "turn", "questions", "captions/de"];
    let groups = places.map(|place| world.group(place));
    assert_eq!(world.joined, BTreeSet::from(groups));
    assert_eq!(world.texts(), ["sie tanzen"]);
    assert_eq!(
        world.page.titles(),
        r#"["Bees","<script>alert(1)</script>"]"#
    );
    let slide: Value = serde_json::from_str(&world.page.slide(1)).unwrap();
    let html = slide["html"].as_str().unwrap();
    assert!(html.contains("<em>dance</em>"), "{html}");
    assert!(html.contains("alt=\"two bees that dance\""), "{html}");
    let slide: Value = serde_json::from_str(&world.page.slide(2)).unwrap();
    let html = slide["html"].as_str().unwrap();
    let runs = ["<script", "javascript:", "h.example"];
    assert!(!runs.iter().any(|bad| html.contains(bad)), "{html}");
    for nowhere in [0, 3] {
        assert_eq!(world.page.slide(nowhere), "null");
    }
    // a correction replaces its line
    world.says("de", "sie tanzen im Kreis", 1);
    world.turn(2);
    world.pass(1_000);
    assert_eq!(world.texts(), ["sie tanzen im Kreis"]);
    assert_eq!(world.captions(1)["lines"][0]["corrected"], true);
    assert_eq!(world.captions(0)["earlier"], 1);
    assert_eq!(world.status()["shown"], 2);
    let ended = IndexEntry::Ended.encode().unwrap();
    world.append("index", ended);
    world.pass(1_000);
    assert_eq!(world.status()["state"], "ended");
    // packets repeat the last entries
    let drops = world.status()["drops"].clone();
    let names: Vec<_> = drops.as_object().unwrap().keys().collect();
    assert_eq!(names, ["duplicate"]);
}

#[test]
fn choosing_a_track_joins_its_group_and_dropping_it_leaves() {
    let mut world = World::new(Some(&["captions/en", "audio/en"]));
    world.says("en", "they dance", 0);
    world.pass(1_000);
    let only = ["index", "captions/en"].map(|place| world.group(place));
    assert_eq!(world.joined, BTreeSet::from(only));
    assert_eq!(world.status()["slides"], 0, "nobody chose them");
    let tracks = world.status()["tracks"].clone();
    let sound = tracks.as_array().unwrap().last().unwrap().clone();
    assert_eq!(sound["station"], "lcr1abc");
    for (name, is_chosen) in [("captions/en", false), ("slides", true), ("audio/de", true)] {
        world.choose(name, is_chosen);
    }
    world.says("en", "nobody reads this", 0);
    world.pass(2_000);
    let only = ["index", "slides", "turn"].map(|place| world.group(place));
    assert_eq!(world.joined, BTreeSet::from(only));
    assert_eq!(world.texts(), Vec::<String>::new());
    assert_eq!(
        (&world.status()["slides"], &world.status()["shown"]),
        (&json!(2), &json!(1))
    );
    let tracks = world.status()["tracks"].clone();
    let sound = tracks.as_array().unwrap().last().unwrap().clone();
    assert_eq!(sound["station"], Value::Null, "one sound at a time");
    // a member that joins again receives the captions sent meanwhile
    world.choose("captions/en", true);
    world.pass(3_000);
    assert_eq!(world.texts(), ["they dance", "nobody reads this"]);
    let now = world.now();
    assert!(world.page.choose("video", true, now).is_err());
    world.page.end(now);
    world.pass(100);
    assert!(world.joined.is_empty());
}

#[test]
fn a_question_comes_to_who_presents_and_is_shown_once_it_is_taken_up() {
    let mut world = World::new(Some(&["slides"]));
    let now = world.now();
    let refused = world.page.ask("Bob", "how far?", now).unwrap_err();
    assert!(refused.contains("not joined"), "{refused}");
    world.page.choose("questions", true, now).unwrap();
    world.pass(500);
    let now = world.now();
    world.page.ask("Bob", "how far?", now).unwrap();
    world.pass(2_000);
    let question = Question {
        name: "Bob".into(),
        text: "how far?".into(),
    };
    assert_eq!(world.asked, std::slice::from_ref(&question));
    assert_eq!(world.page.questions(), "[]");
    world.append("questions", question.entry().unwrap());
    world.pass(1_000);
    let shown: Value = serde_json::from_str(&world.page.questions()).unwrap();
    assert_eq!(shown, json!([{ "name": "Bob", "text": "how far?" }]));
}

#[test]
fn a_page_that_is_a_leaf_asks_and_has_what_was_before() {
    let mut world = World::with(Some(&["captions/en"]), true);
    world.says("de", "seit langem", 0);
    world.pass(30_000);
    // captions that nobody repeats any more
    for name in ["slides", "questions", "captions/de"] {
        world.choose(name, true);
    }
    world.pass(3_000);
    assert_eq!(world.texts(), ["seit langem"]);
    assert_eq!(world.status()["slides"], SLIDES.len());
    let now = world.now();
    world.page.ask("Bob", "how far?", now).unwrap();
    world.pass(2_000);
    assert_eq!(world.asked.len(), 1);
    let session = world.key.session();
    let logs = world.logs.values();
    let asking = logs.map(|(log, _)| log.space().groups().asking);
    let asking: BTreeSet<_> = asking.chain([session.index().groups().asking]).collect();
    assert!(world.spoken.is_subset(&asking), "{:?}", world.spoken);
    // it leaves the history groups
    world.pass(10_000);
    let logs = world.logs.values();
    let mut history = logs.map(|(log, _)| log.space().groups().history);
    assert!(history.all(|group| !world.joined.contains(&group)));
}

#[test]
fn what_is_no_session_is_said_and_datagrams_of_strangers_change_nothing() {
    for (session, said) in [("lct1abc", "a token"), ("", "lcs1"), ("lcs1xx", "lcs1")] {
        let start =
            json!({ "session": session, "languages": [], "tracks": null, "pictures": true });
        let start = serde_json::from_value(start).unwrap();
        let error = PageAttender::new(&start, [0; 32], Instant::now()).unwrap_err();
        assert!(error.contains(said), "{error}");
    }
    let mut world = World::new(None);
    let (now, revision) = (world.now(), world.page.revision());
    let index = world.group("index");
    for (group, port) in [(index, ENTRY_LOG_PORT), (index, 9), (HOST, ENTRY_LOG_PORT)] {
        for data in [&b""[..], &[0xff; 1_500]] {
            let datagram = Datagram {
                source: HOST,
                group,
                port,
                data,
            };
            world
                .page
                .handle_datagram(datagram, now, UnixTime::from_millis(UNIX_MS));
        }
    }
    world
        .page
        .handle_timeout(now, UnixTime::from_millis(UNIX_MS));
    assert_eq!(world.page.revision(), revision);
    let drops = world.status()["drops"].clone();
    assert_eq!(drops["foreign"], 2, "{drops}");
}

#[test]
fn what_is_written_is_on_disk_before_it_is_sent_and_comes_back_from_there() {
    let mut world = World::new(None);
    let now = world.now();
    world.page.open_notes(now).unwrap();
    world.page.write(1, b"first").unwrap();
    world.pass(15_000);
    assert_eq!(world.written(), Vec::<Vec<u8>>::new(), "nobody is there");
    world.page.connect(true);
    world.pass(15_000);
    assert_eq!(world.written(), [b"first".to_vec()]);
    assert_eq!(world.done, [1]);
    assert_eq!(world.status()["notes"]["granted"], true);
    let update = world.page.poll_update().unwrap();
    assert_eq!((update.number, &*update.body), (1, &b"first"[..]));
    // the disk is slow: no packet leaves
    world.disk_works = false;
    world.page.write(2, b"second").unwrap();
    world.pass(5_000);
    assert_eq!(world.written().len(), 1);
    world.disk_works = true;
    world.pass(2_000);
    assert_eq!(world.written(), [b"first".to_vec(), b"second".to_vec()]);
    assert_eq!(world.done, [1, 2]);
    // a page with this disk and without a network knows the session and its text, despite garbage
    let mut disk = world.disk.clone();
    disk.reverse();
    disk.push((1, b"garbage".to_vec()));
    let forged = disk.iter().find_map(|(kind, bytes)| {
        let Ok(Stored::Entry(mut entry)) = Stored::decode(bytes) else {
            return None;
        };
        entry.body.push(0);
        (*kind == 1).then(|| Stored::Entry(entry).encode().unwrap())
    });
    disk.push((1, forged.unwrap()));
    let records: Vec<_> = disk
        .iter()
        .map(|(kind, bytes)| (*kind, &bytes[..]))
        .collect();
    let start = json!({ "session": *world.key.session().encode(), "languages": ["en"], "tracks": null, "pictures": true });
    let start = serde_json::from_value(start).unwrap();
    let now = world.now();
    let mut page = PageAttender::new(&start, [4; 32], now).unwrap();
    page.restore(&[9; 32], &records, now);
    page.handle_timeout(now, UnixTime::from_millis(UNIX_MS));
    page.open_notes(now).unwrap();
    page.handle_timeout(now, UnixTime::from_millis(UNIX_MS));
    let status: Value = serde_json::from_str(&page.status()).unwrap();
    assert_eq!(status["title"], "Bees");
    assert_eq!(status["notes"]["granted"], true);
    let updates = std::iter::from_fn(|| page.poll_update());
    let bodies: Vec<_> = updates.map(|update| update.body).collect();
    assert_eq!(bodies, [b"first".to_vec(), b"second".to_vec()]);
    // a page that joins the track again continues behind its own entries
    world.page.choose("notes", false, now).unwrap();
    world.pass(1_000);
    world.page.open_notes(now).unwrap();
    world.page.write(3, b"third").unwrap();
    world.pass(15_000);
    assert_eq!(world.written().len(), 3);
    let drops = world.status()["drops"].clone();
    assert!(drops.get("conflict").is_none(), "{drops}");
    assert!(world.page.write(4, &[0; 1_001]).is_err());
}

#[test]
fn a_reader_is_shown_once_he_says_so_and_may_write_and_sees_others_if_he_wants_to() {
    let mut world = World::new(None);
    let now = world.now();
    world.page.open_notes(now).unwrap();
    world.page.connect(true);
    world.pass(5_000);
    let owner = {
        let (log, owner) = world.logs.get_mut("notes").unwrap();
        log.watch_presence(true);
        *owner
    };
    let choose = |world: &mut World, name, watches| {
        let now = world.now();
        world.page.choose_presence(name, watches, now);
    };
    let shown = |world: &mut World| {
        let all = std::mem::take(&mut world.present);
        let all = all.iter().map(|body| Presence::decode(body).unwrap());
        all.map(|presence| presence.map(|p| (p.name, p.writes, p.cursor)))
            .collect::<Vec<_>>()
    };
    // members would drop presence of a key without a grant
    choose(&mut world, Some("Dora"), true);
    world.pass(12_000);
    assert_eq!(shown(&mut world), []);
    choose(&mut world, None, true);
    world.page.write(1, b"first").unwrap();
    world.pass(20_000);
    assert_eq!(
        shown(&mut world),
        [],
        "he has not said that he is to be seen"
    );
    choose(&mut world, Some("Dora"), true);
    let now = world.now();
    world.page.move_to(&[7; 22], true, now);
    world.pass(9_000);
    let dora = |writes| Some(("Dora".to_owned(), writes, vec![7; 22]));
    assert_eq!(shown(&mut world), [dora(true), dora(false)]);
    choose(&mut world, None, true);
    world.pass(15_000);
    assert_eq!(shown(&mut world), [None], "he leaves, and no more is sent");
    // the presenter appears
    let others = |world: &World| serde_json::from_str::<Value>(&world.page.others()).unwrap();
    let show = |world: &mut World| {
        let presence = Presence {
            name: "Ann".to_owned(),
            writes: false,
            cursor: vec![0xab; 2],
        };
        let (time, presence) = (world.time(), presence.encode().unwrap());
        let (log, _) = world.logs.get_mut("notes").unwrap();
        log.show(owner, &presence, time).unwrap();
        world.pass(100);
    };
    let before = world.page.revision();
    show(&mut world);
    let ann = json!([{ "author": format!("{:016x}", owner.0), "name": "Ann", "writes": false, "cursor": "abab" }]);
    assert_eq!(others(&world), ann);
    assert!(world.page.revision() > before);
    choose(&mut world, None, false);
    assert_eq!(others(&world), json!([]));
    show(&mut world);
    assert_eq!(others(&world), json!([]));
    choose(&mut world, None, true);
    show(&mut world);
    assert_eq!(others(&world), ann);
    world.pass(31_000);
    assert_eq!(others(&world), json!([]), "nothing comes of him any more");
    // a page that closes leaves
    choose(&mut world, Some("Dora"), true);
    world.pass(1_000);
    assert_eq!(shown(&mut world), [dora(false)]);
    let now = world.now();
    world.page.end(now);
    world.pass(100);
    assert_eq!(shown(&mut world), [None]);
}
