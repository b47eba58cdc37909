//! Sessions from entries, and invalid entries.

use librecast::id::SecretKey;
use librecast::time::UnixTime;
use librecast_log::{Config, Entry, Log, Space};
use proptest::prelude::*;

use super::*;

pub(crate) fn now() -> librecast::time::Instant {
    #[expect(clippy::disallowed_methods, reason = "virtual time needs a beginning")]
    librecast::time::Instant::now()
}

/// Returns the key and the space of a track of the session of this seed.
pub(crate) fn space_of(seed: u8, track: &TrackName) -> (SecretKey, Space) {
    let key = SessionKey::from_seed(&[seed; 32]);
    let owner = key.track_key(track);
    let space = key.session().space(owner.peer_id());
    (owner, space)
}

/// Numbers from a state that is not zero, the same in each run.
pub(crate) struct Xorshift(pub(crate) u64);

impl Xorshift {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

/// A log of one author, which appends its entries.
struct Author {
    log: Log,
    place: Place,
    time_ms: u64,
}

impl Author {
    fn of(key: &SessionKey, place: Place) -> Self {
        let owner = match &place {
            Place::Index => key.index_key(),
            Place::Track(name) => key.track_key(name),
        };
        let space = key.session().space(owner.peer_id());
        let config = Config {
            space,
            keys: vec![owner],
            seed: [3; 32],
        };
        Self {
            log: Log::new(config, now()),
            place,
            time_ms: 1_790_000_000_000,
        }
    }

    fn says(&mut self, view: &mut View, (kind, body): (u8, Vec<u8>)) -> Option<Change> {
        let owner = self.log.owner();
        self.time_ms += 1_000;
        let later = now() + librecast::time::Duration::from_secs(60);
        let number = self
            .log
            .append(
                owner,
                kind,
                &body,
                UnixTime::from_millis(self.time_ms),
                later,
            )
            .unwrap();
        let entry = self.log.next_entry(owner, number - 1).unwrap();
        view.read(&self.place, true, entry)
    }
}

fn entry(kind: u8, body: &[u8]) -> Entry {
    Entry {
        author: librecast_log::AuthorId(1),
        number: 1,
        first: 1,
        time: 5,
        kind,
        previous: [0; 16],
        body: body.to_vec(),
        signature: [0; 64],
    }
}

fn track(name: &str) -> Place {
    Place::Track(name.parse().unwrap())
}

#[test]
fn a_lecture_comes_together_from_its_tracks() {
    let key = SessionKey::from_seed(&[1; 32]);
    let mut view = View::default();
    let mut index = Author::of(&key, Place::Index);
    let begins = IndexEntry::Session {
        title: "Bees".to_owned(),
        presenter: "Ann".to_owned(),
    };
    assert_eq!(
        index.says(&mut view, begins.encode().unwrap()),
        Some(Change::Session)
    );
    let slides: TrackName = "slides".parse().unwrap();
    let place = TrackPlace::Space(key.track_key(&slides).peer_id());
    let named = IndexEntry::Track(slides.clone(), place.clone())
        .encode()
        .unwrap();
    assert_eq!(
        index.says(&mut view, named.clone()),
        Some(Change::Track(slides.clone()))
    );
    assert_eq!(index.says(&mut view, named), None, "nothing new");
    assert_eq!(view.index().place(&slides), Some(&place));

    let mut deck = Author::of(&key, track("slides"));
    let long = format!("# Two\n\n{}", "word ".repeat(600));
    let (first, changed) = ("# One", "# One, mended");
    for made in DeckWriter::entries(view.deck(), &[first, &long]).unwrap() {
        deck.says(&mut view, made);
    }
    assert_eq!(
        view.deck().slides().collect::<Vec<_>>(),
        [Some(first), Some(long.as_str())]
    );
    assert_eq!(view.shown(), None);

    let mut turns = Author::of(&key, track("turn"));
    let turn = Turn {
        number: 1,
        id: SlideId::of(first),
    };
    assert_eq!(turns.says(&mut view, turn.encode()), Some(Change::Turn));
    assert_eq!(view.shown(), Some((1, first)));
    // one slide is corrected, one inserted before it: only these two are sent
    let before = "# Zero";
    let made = DeckWriter::entries(view.deck(), &[before, changed, &long]).unwrap();
    assert_eq!(made.len(), 3);
    for made in made {
        deck.says(&mut view, made);
    }
    assert_eq!(view.shown(), Some((1, before)), "what stands there now");
    assert_eq!(
        DeckWriter::entries(view.deck(), &[before, changed, &long]),
        Ok(vec![])
    );
    let turn = Turn {
        number: 9,
        id: SlideId::of(&long),
    };
    turns.says(&mut view, turn.encode());
    assert_eq!(view.shown().map(|(number, _)| number), Some(3));

    let mut captions = Author::of(&key, track("captions/en"));
    let mut say = |view: &mut View, replaces, text: &str| {
        let caption = Caption {
            replaces,
            speaker: "Ann".to_owned(),
            text: text.to_owned(),
        };
        captions.says(view, caption.encode().unwrap())
    };
    say(&mut view, 0, "Good mourning");
    say(&mut view, 0, "a --> b & <c>");
    let Some(Change::Caption(language, line)) = say(&mut view, 1, "Good morning") else {
        panic!("no caption");
    };
    assert!(line.is_corrected);
    let lines = view.transcripts()[&language].lines();
    let texts: Vec<_> = lines.iter().map(|line| line.text.as_str()).collect();
    assert_eq!(texts, ["Good morning", "a --> b & <c>"]);
    assert_eq!(say(&mut view, 77, "what was never said"), None);
    assert_eq!(view.drops().by_name()["malformed"], 1);

    assert_eq!(
        index.says(&mut view, IndexEntry::Ended.encode().unwrap()),
        Some(Change::Ended)
    );
    assert!(view.index().has_ended);
    index.says(&mut view, begins.encode().unwrap());
    assert!(!view.index().has_ended);

    let vtt = webvtt(&view, &language);
    assert_eq!(
        vtt,
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n<v Ann>Good morning\n\n\
         00:00:01.000 --> 00:00:08.000\n<v Ann>a --&gt; b &amp; &lt;c&gt;\n"
    );
    let page = page(&view, Some(&language), |_| None);
    assert!(
        page.contains("<html lang=\"en\">") && page.contains("Good morning"),
        "{page}"
    );
    assert!(
        page.contains("<b>Ann:</b> a --&gt; b &amp; &lt;c&gt;"),
        "{page}"
    );
    let text = transcript_markdown(&view, Some(&language));
    assert!(text.contains("**Ann:** Good morning"), "{text}");
}

#[test]
fn only_the_owner_speaks_but_in_captions() {
    let mut view = View::default();
    let ended = IndexEntry::Ended.encode().unwrap();
    for place in [
        Place::Index,
        track("slides"),
        track("turn"),
        track("questions"),
    ] {
        assert_eq!(view.read(&place, false, &entry(ended.0, &ended.1)), None);
    }
    assert_eq!(view.drops().by_name()["not_owner"], 4);
    let caption = Caption {
        replaces: 0,
        speaker: String::new(),
        text: "x".to_owned(),
    };
    let (kind, body) = caption.encode().unwrap();
    assert!(
        view.read(&track("captions/en"), false, &entry(kind, &body))
            .is_some()
    );
}

#[test]
fn a_deck_of_invented_slides_stays_within_its_bounds() {
    let mut deck = Deck::default();
    let part = |id: u64, part: u8, parts: u8, text: &[u8]| {
        let mut body = id.to_be_bytes().to_vec();
        body.extend([part, parts]);
        body.extend(text);
        entry(1, &body)
    };
    for (at, parts) in [(0, 0), (2, 2), (0, 255)] {
        assert!(
            deck.read(&part(1, at, parts, b"x")).is_err(),
            "{at}/{parts}"
        );
    }
    assert_eq!(
        deck.read(&part(2, 0, 1, b"forged")),
        Err(DropReason::WrongPart)
    );
    let taken = (10..5_000)
        .filter(|id| deck.read(&part(*id, 0, 2, b"x")).is_ok())
        .count();
    assert!(taken <= 2 * MAX_SLIDES, "{taken}");
    let long = "x".repeat(MAX_SLIDE + 1);
    assert_eq!(
        DeckWriter::entries(&deck, &[&long]),
        Err(DropReason::TooManySlides)
    );
}

#[test]
fn a_deck_of_the_most_and_longest_slides_fits() {
    let texts: Vec<String> = (0..MAX_SLIDES).map(|n| format!("# {n}")).collect();
    let slides: Vec<&str> = texts.iter().map(String::as_str).collect();
    let mut deck = Deck::default();
    for (kind, body) in DeckWriter::entries(&deck, &slides).unwrap() {
        assert!(body.len() <= librecast_log::MAX_BODY);
        deck.read(&entry(kind, &body)).unwrap();
    }
    assert_eq!(deck.slides().flatten().count(), MAX_SLIDES);
    let longest = "y".repeat(MAX_SLIDE);
    for (kind, body) in DeckWriter::entries(&deck, &[&longest]).unwrap() {
        deck.read(&entry(kind, &body)).unwrap();
    }
    assert_eq!(deck.slides().collect::<Vec<_>>(), [Some(longest.as_str())]);
}

#[test]
fn captions_are_cut_between_words() {
    let line = "word ".repeat(400);
    let parts = split_caption(&line);
    assert!(parts.len() > 2 && parts.iter().all(|part| part.len() <= MAX_CAPTION));
    assert_eq!(parts.join(" "), line.trim());
    let dense = "ü".repeat(1_000);
    assert_eq!(split_caption(&dense).concat(), dense);
    assert!(split_caption(" \t ").is_empty());
}

/// Returns a PNG with valid headers, 8 x 4 pixels, of this size in bytes.
pub(crate) fn png(bytes: usize, content: u8) -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\x08\0\0\0\x04\x08\x02\0\0\0".to_vec();
    png.extend(b"....\0\0\0\0IDAT");
    png.resize(bytes.max(png.len() + 1), content);
    png
}

/// Returns the entries of a writer's album until none is left.
fn pictures_entries(wanted: &[(&str, &Picture)]) -> Vec<(u8, Vec<u8>)> {
    let mut album = Album::default();
    let entries = std::iter::from_fn(|| {
        let (kind, body) = album.next_entry(wanted)?;
        album.read(&entry(kind, &body)).unwrap();
        Some((kind, body))
    });
    entries.collect()
}

#[test]
fn headers_say_what_a_picture_is_how_large_and_whether_it_moves() {
    let gif = |images: usize| {
        let image = b"\x21\xf9\x04\0\0\0\0\0\x2c\0\0\0\0\x05\0\x09\0\0\x02\x01x\0";
        [
            &b"GIF89a\x04\0\x03\0\x80\0\0......"[..],
            &image.repeat(images),
            b";",
        ]
        .concat()
    };
    let webp = |chunk: &[u8]| [b"RIFF....WEBP", chunk].concat();
    let jpeg = |frame: u8| {
        let segments = [
            0xff, 0xe0, 0, 4, 1, 2, 0xff, 0xff, 0xc4, 0, 3, 9, 0xff, frame, 0, 11, 8, 0, 7, 0, 6,
        ];
        [&[0xff, 0xd8][..], &segments, &[1; 9]].concat()
    };
    let animated = |x: u8| {
        webp(
            &[
                b"VP8X\x0a\0\0\0"[..].to_vec(),
                vec![x, 0, 0, 0, 9, 0, 0, 4, 0, 0],
            ]
            .concat(),
        )
    };
    for (bytes, kind, size) in [
        (png(0, 0), PictureKind::Png, (8, 4)),
        (jpeg(0xc0), PictureKind::Jpeg, (6, 7)),
        (jpeg(0xc2), PictureKind::Jpeg, (6, 7)),
        (gif(1), PictureKind::Gif, (5, 9)),
        (animated(0x10), PictureKind::WebP, (10, 5)),
        (
            webp(b"VP8 \0\0\0\0...\x9d\x01\x2a\x03\x40\x02\0"),
            PictureKind::WebP,
            (3, 2),
        ),
        (
            webp(b"VP8L\0\0\0\0\x2f\x02\x40\0\0"),
            PictureKind::WebP,
            (3, 2),
        ),
    ] {
        let picture = Picture::new(bytes).unwrap();
        assert_eq!((picture.kind(), picture.size()), (kind, size));
    }
    for moves in [gif(2), animated(2)] {
        assert_eq!(Picture::new(moves), Err(PictureError::Moves));
    }
    let mut apng = png(0, 0);
    let at = apng.len() - 5;
    apng[at..at + 4].copy_from_slice(b"acTL");
    assert_eq!(Picture::new(apng), Err(PictureError::Moves));
    let mut bomb = png(0, 0);
    bomb[16..24].copy_from_slice(&[0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff]);
    assert_eq!(
        Picture::new(bomb),
        Err(PictureError::TooManyPixels(65_535, 65_535))
    );
    let mut flat = png(0, 0);
    flat[16..20].fill(0);
    let svg = b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>".to_vec();
    for none in [
        flat,
        svg,
        Vec::new(),
        png(0, 0)[..30].to_vec(),
        jpeg(0xda),
        gif(0),
        webp(b"VP8 "),
    ] {
        assert_eq!(Picture::new(none), Err(PictureError::Unknown));
    }
    let long = Picture::new(png(MAX_PICTURE + 1, 0));
    assert_eq!(long, Err(PictureError::TooLong(MAX_PICTURE + 1)));
    assert!(Picture::new(png(MAX_PICTURE, 0)).is_ok());
}

#[test]
fn a_picture_counts_once_it_is_whole_and_what_was_announced() {
    let [a, b] = [(3_000, 1), (2_000, 2)].map(|(bytes, of)| Picture::new(png(bytes, of)).unwrap());
    let wanted = [("images/a.png", &a), ("b.png", &b), ("again.png", &a)];
    let made = pictures_entries(&wanted);
    assert_eq!(made.len(), 3 + 4 + 3, "names, and parts of two");
    let mut album = Album::default();
    for (at, (kind, body)) in made.iter().enumerate() {
        assert_eq!(album.picture("images/a.png").is_some(), at > 4, "{at}");
        album.read(&entry(*kind, body)).unwrap();
    }
    for (name, picture) in wanted {
        assert_eq!(album.picture(name), Some(picture));
    }
    assert_eq!(
        album.size(),
        AlbumSize {
            named: 2,
            whole: 2,
            bytes: 5_000
        }
    );
    assert_eq!(album.next_entry(&wanted), None);
    // repeated, out of order, empty, too short, and with a name outside the folder
    let part = |hash: &[u8], number: u16, length: usize| {
        entry(
            2,
            &[&hash[..8], &number.to_be_bytes(), &vec![1; length]].concat(),
        )
    };
    let named = |hash: u8, length: u32, name: &str| {
        let body = [
            &[hash; 32][..],
            &length.to_be_bytes(),
            &[name.len() as u8],
            name.as_bytes(),
        ];
        entry(1, &body.concat())
    };
    let known = made[1].1[..8].to_vec();
    assert_eq!(
        album.read(&part(&known, 0, 980)),
        Err(DropReason::WrongPart)
    );
    album.read(&named(5, 1_000, "c.png")).unwrap();
    for wrong in [
        part(&[5; 8], 1, 20),
        part(&[5; 8], 0, 979),
        part(&[6; 8], 0, 980),
    ] {
        assert_eq!(album.read(&wrong), Err(DropReason::WrongPart));
    }
    for wrong in [
        named(6, 5, "../c.png"),
        named(6, 0, "d.png"),
        named(6, 1 << 21, "d.png"),
        named(6, 9, "d\u{202e}.png"),
    ] {
        assert_eq!(album.read(&wrong), Err(DropReason::Malformed));
    }
    assert_eq!(
        album.read(&named(5, 999, "c.png")),
        Err(DropReason::WrongPart)
    );
    // all parts arrived, and the hash differs
    album.read(&part(&[5; 8], 0, 980)).unwrap();
    assert_eq!(
        album.read(&part(&[5; 8], 1, 20)),
        Err(DropReason::NoPicture)
    );
    assert_eq!(
        album.read(&part(&[5; 8], 1, 20)),
        Err(DropReason::WrongPart)
    );
    assert_eq!(album.picture("c.png"), None);
    // another picture under a name: the earlier one stays while another name has it
    for (kind, body) in pictures_entries(&[("images/a.png", &b)]) {
        let _ = album.read(&entry(kind, &body));
    }
    assert_eq!(album.picture("images/a.png"), Some(&b));
    assert_eq!(album.picture("again.png"), Some(&a));
    assert_eq!(
        album.next_entry(&wanted).map(|(kind, _)| kind),
        Some(1),
        "only its name"
    );
}

#[test]
fn an_album_of_invented_pictures_stays_within_its_bounds() {
    let mut album = Album::default();
    let mut taken = 0;
    for n in 0..5_000_u32 {
        let mut body = vec![0; 32];
        body[..4].copy_from_slice(&n.to_be_bytes());
        let name = n.to_string();
        body.extend(
            [
                &(1_u32 << (n % 21)).to_be_bytes()[..],
                &[name.len() as u8],
                name.as_bytes(),
            ]
            .concat(),
        );
        taken += usize::from(album.read(&entry(1, &body)).is_ok());
        assert!(album.size().bytes <= MAX_PICTURES_BYTES);
    }
    assert!((100..=MAX_PICTURES).contains(&taken), "{taken}");
    // the presenter receives the names of pictures without room
    let [small, large] = [1, MAX_PICTURE].map(|bytes| Picture::new(png(bytes, 9)).unwrap());
    let wanted = [("small", &small), ("large", &large)];
    assert!(album.left_out(&wanted).contains(&"large"));
    assert_eq!(Album::default().left_out(&wanted), Vec::<&str>::new());
}

#[test]
fn descriptions_of_tracks_are_frozen_and_bounded() {
    let key = SessionKey::from_seed(&[1; 32]);
    let mut view = View::default();
    let mut index = Author::of(&key, Place::Index);
    let described = |name: &str, text: &str| {
        IndexEntry::Description(name.parse().unwrap(), text.to_owned())
            .encode()
            .unwrap()
    };
    let (kind, body) = described("screen", "a code");
    assert_eq!((kind, body.as_slice()), (4, &b"\x06screen\x06a code"[..]));
    let screen: TrackName = "screen".parse().unwrap();
    let change = index.says(&mut view, (kind, body));
    assert_eq!(change, Some(Change::Track(screen.clone())));
    assert_eq!(view.index().description(&screen), "a code");
    for at in 0..100 {
        let name = format!("captions/x{at}");
        index.says(&mut view, described(&name, "words"));
    }
    assert_eq!(view.index().descriptions.len(), 64);
    assert_eq!(view.drops().by_name()["too_many_tracks"], 37);
    index.says(&mut view, described("screen", "a slide"));
    assert_eq!(view.index().description(&screen), "a slide");
}

#[test]
fn golden_bytes() {
    let mut all = Vec::new();
    let key = SessionKey::from_seed(&[1; 32]).index_key().peer_id();
    let entries = [
        IndexEntry::Session {
            title: "T".to_owned(),
            presenter: "P".to_owned(),
        },
        IndexEntry::Track("slides".parse().unwrap(), TrackPlace::Space(key)),
        IndexEntry::Track(
            "audio/en".parse().unwrap(),
            TrackPlace::Station("lcr1x".to_owned()),
        ),
        IndexEntry::Ended,
    ];
    for made in entries {
        let (kind, body) = made.encode().unwrap();
        assert_eq!(IndexEntry::decode(kind, &body), Ok(made));
        all.push(kind);
        all.extend(body);
    }
    for (kind, body) in DeckWriter::entries(&Deck::default(), &["# One", "# Two"]).unwrap() {
        all.push(kind);
        all.extend(body);
    }
    let turn = Turn {
        number: 2,
        id: SlideId(7),
    };
    all.extend(turn.encode().1);
    let question = Question {
        name: "N".to_owned(),
        text: "Q".to_owned(),
    };
    assert_eq!(
        Question::decode(&question.encode().unwrap()),
        Ok(question.clone())
    );
    all.extend(question.entry().unwrap().1);
    let picture = Picture::new(png(1_000, 3)).unwrap();
    for (kind, body) in pictures_entries(&[("images/map.png", &picture)]) {
        all.push(kind);
        all.extend(body);
    }
    let hash = librecast::id::derive("golden", &[&all]);
    let hex: String = hash[..8].iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, "4cd32ae073171bcc");
}

proptest! {
    #[test]
    fn any_entries_are_read_or_dropped(
        entries in proptest::collection::vec((0_u8..5, 0_usize..7, any::<bool>(), proptest::collection::vec(any::<u8>(), 0..60)), 0..40)
    ) {
        let places = [Place::Index, track("slides"), track("turn"), track("questions"), track("captions/en"), track("audio/en"), track("pictures")];
        let mut view = View::default();
        for (kind, place, by_owner, body) in entries {
            let change = view.read(&places[place], by_owner, &entry(kind, &body));
            if let Some(Change::Caption(_, line)) = change {
                prop_assert!(!line.text.contains(char::is_control));
            }
        }
        let _ = page(&view, None, |_| None);
    }

    #[test]
    fn any_bytes_are_a_picture_within_bounds_or_none(head in 0_usize..8, bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let heads: [&[u8]; 8] = [b"", b"\x89PNG\r\n\x1a\n", b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR", b"\xff\xd8\xff", b"GIF89a", b"RIFF....WEBPVP8X", b"RIFF....WEBPVP8 ", b"RIFF....WEBPVP8L"];
        if let Ok(picture) = Picture::new([heads[head], &bytes].concat()) {
            let (width, height) = picture.size();
            prop_assert!(width > 0 && height > 0);
            prop_assert!(u64::from(width) * u64::from(height) <= crate::picture::MAX_PIXELS);
        }
    }

    #[test]
    fn any_entries_of_pictures_leave_an_album_that_keeps_its_bounds_and_its_word(
        entries in proptest::collection::vec((1_u8..3, 0_u8..3, 0_u16..3, 0_usize..985), 0..60)
    ) {
        let pictures = [(100, 1), (1_900, 2), (985, 3)].map(|(bytes, of)| Picture::new(png(bytes, of)).unwrap());
        let mut album = Album::default();
        for (kind, which, number, length) in entries {
            let picture = &pictures[usize::from(which)];
            let id = picture.id().0;
            let body = match kind {
                1 => [&id[..], &(picture.bytes().len() as u32).to_be_bytes(), &[1, b'a' + number as u8]].concat(),
                _ => {
                    let rest = picture.bytes().get(usize::from(number) * 980..).unwrap_or_default();
                    // valid parts, cut parts, parts of another picture
                    let part = &rest[..rest.len().min(if length % 2 == 0 { 980 } else { length })];
                    [&id[..8], &number.to_be_bytes(), part].concat()
                }
            };
            let _ = album.read(&entry(kind, &body));
            for (_, held) in album.pictures() {
                prop_assert!(pictures.contains(held));
            }
            prop_assert!(album.size().bytes <= 100 + 1_900 + 985);
        }
    }
}
