//! A session from its entries, and entries that are none.

use librecast_log::{Config, Entry, Log};
use proptest::prelude::*;

use super::*;

fn now() -> librecast::time::Instant {
    #[expect(clippy::disallowed_methods, reason = "virtual time needs a beginning")]
    librecast::time::Instant::now()
}

/// A log of one author, which says what its entries are.
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
            .append(owner, kind, &body, self.time_ms, later)
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
    // one slide is mended, one comes before it: only the mended and the new one are sent
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
    let hash = librecast::id::derive("golden", &[&all]);
    let hex: String = hash[..8].iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, "67e02a1048bfab6b");
}

proptest! {
    #[test]
    fn any_entries_are_read_or_dropped(
        entries in proptest::collection::vec((0_u8..5, 0_usize..6, any::<bool>(), proptest::collection::vec(any::<u8>(), 0..60)), 0..40)
    ) {
        let places = [Place::Index, track("slides"), track("turn"), track("questions"), track("captions/en"), track("audio/en")];
        let mut view = View::default();
        for (kind, place, by_owner, body) in entries {
            let change = view.read(&places[place], by_owner, &entry(kind, &body));
            if let Some(Change::Caption(_, line)) = change {
                prop_assert!(!line.text.contains(char::is_control));
            }
        }
        let _ = page(&view, None, |_| None);
    }
}
