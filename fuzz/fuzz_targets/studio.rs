//! A Studio session's view of entries and slides, as terminals and pages show it.
#![no_main]

use lcstudio_core::{
    NotesReading, Picture, Place, Presence, Session, View, Writer, page, split, to_html, to_text, transcript_markdown,
    webvtt,
};
use libfuzzer_sys::fuzz_target;
use librecast_log::{AuthorId, Entry};

const PLACES: [&str; 7] = [
    "index",
    "slides",
    "turn",
    "questions",
    "notes",
    "captions/en",
    "pictures",
];

fuzz_target!(init: lcroute_fuzz::seeds::write("studio"), |data: &[u8]| {
    // n x (place 1 | kind 1 | length 1 | body), then Markdown
    let (mut view, mut rest, mut number) = (View::default(), data, 0);
    let mut notes = NotesReading::default();
    while let Some(([place, kind, length], after)) = rest.split_first_chunk() {
        let Some((body, after)) = after.split_at_checked(usize::from(*length)) else {
            break;
        };
        rest = after;
        number += 1;
        let place = match PLACES[usize::from(*place) % PLACES.len()] {
            "index" => Place::Index,
            name => Place::Track(name.parse().expect("a track")),
        };
        let entry = Entry {
            author: AuthorId(u64::from(*kind >> 7)),
            number,
            first: 1,
            time: u64::from(number) * 1_000,
            kind: kind & 7,
            previous: [0; 16],
            body: body.to_vec(),
            signature: [0; 64],
        };
        view.read(&place, kind & 0x40 == 0, &entry);
        let _ = notes.read(&entry);
        if let Ok(writer) = Writer::decode(&entry.body) {
            assert_eq!(writer.encode(), entry.body);
        }
    }
    if let Ok(Some(presence)) = Presence::decode(data) {
        let again = presence.encode().expect("it was read");
        assert_eq!(Presence::decode(&again), Ok(Some(presence)));
    }
    if let Ok(picture) = Picture::new(data.to_vec()) {
        let (width, height) = picture.size();
        assert!(u64::from(width) * u64::from(height) <= 1 << 24);
    }
    let english = "en".parse().expect("a language");
    let made = page(&view, Some(&english), |_| None);
    assert!(!made.contains("<script") && !made.contains("<img"));
    let _ = (webvtt(&view, &english), transcript_markdown(&view, Some(&english)));
    let text = String::from_utf8_lossy(data);
    for slide in split(&text) {
        let shown = to_text(&slide.text);
        assert!(!shown.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\t')));
        let made = to_html(&slide.text, |_| None);
        assert!(!made.contains("<script") && !made.contains("<img"));
    }
    if let Ok(session) = Session::decode(&text) {
        assert_eq!(Session::decode(&session.encode()), Ok(session));
    }
});
