//! The C functions that a page calls.
//!
//! Bytes for a function are written to where [`studio_input`] says, and are taken by the next call. What a function answers lies
//! at [`studio_output`]; it gives the length. Times are milliseconds: `now` of `performance.now()`, `unix` of `Date.now()`.

use std::cell::RefCell;

use lcroute_web_page::{Datagram, Exchange, at};
use serde::Deserialize;

use crate::attender::{PageAttender, Start};

thread_local! {
    static PAGE: RefCell<Exchange<PageAttender>> = RefCell::default();
}

/// What a reader lets others see of him in the notes, and whether he wants to see them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Shown {
    /// What he calls himself; none: he is not shown.
    name: Option<String>,
    watches: bool,
}

/// What somebody asks.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    name: String,
    text: String,
}

fn page<T>(f: impl FnOnce(&mut Exchange<PageAttender>) -> T) -> T {
    PAGE.with_borrow_mut(f)
}

/// Does something to who attends with the input.
fn attender<T: Default>(f: impl FnOnce(&mut PageAttender, &[u8]) -> T) -> T {
    page(|page| page.with(f))
}

/// Keeps a text of what is shown; its length.
fn text(f: impl FnOnce(&PageAttender) -> String) -> usize {
    page(|page| page.answer_with(|attender, _| f(attender).into_bytes()))
}

/// Room for the bytes of the next call.
#[unsafe(no_mangle)]
pub extern "C" fn studio_input(bytes: usize) -> *mut u8 {
    page(|page| page.room(bytes))
}

/// Where the last answer lies.
#[unsafe(no_mangle)]
pub extern "C" fn studio_output() -> *const u8 {
    page(|page| page.output())
}

/// Attends a session: the input is 32 bytes that nobody can guess and the JSON of a [`Start`]. The length of an error.
#[unsafe(no_mangle)]
pub extern "C" fn studio_open(now: f64) -> usize {
    page(|page| {
        let input = page.take_input();
        let opened = match input.split_first_chunk::<32>() {
            Some((seed, start)) => serde_json::from_slice::<Start>(start)
                .map_err(|e| e.to_string())
                .and_then(|start| PageAttender::new(&start, *seed, at(now))),
            None => Err("no seed".to_owned()),
        };
        let result = opened.map(|attender| page.machine = Some(attender));
        page.outcome(result)
    })
}

/// A datagram came: the input, as the member has it.
#[unsafe(no_mangle)]
pub extern "C" fn studio_datagram(now: f64, unix: f64) {
    attender(|attender, input| {
        if let Some(datagram) = Datagram::decode(input) {
            attender.handle_datagram(datagram, at(now), unix as u64);
        }
    });
}

/// Does what is due. In how many milliseconds it is to be called again.
#[unsafe(no_mangle)]
pub extern "C" fn studio_run(now: f64, unix: f64) -> f64 {
    attender(|attender, _| {
        attender.handle_timeout(at(now), unix as u64);
        let next = attender.poll_timeout(at(now));
        next.saturating_duration_since(at(now)).as_secs_f64() * 1_000.0
    })
}

/// The next command ([`Command::to_bytes`](lcroute_web_page::Command::to_bytes)): its length. 0: none.
#[unsafe(no_mangle)]
pub extern "C" fn studio_poll() -> usize {
    page(|page| {
        page.answer_with(|attender, _| {
            let command = attender.poll_command();
            command.map_or_else(Vec::new, |command| command.to_bytes())
        })
    })
}

/// Chooses the track in the input, or drops it. The length of an error.
#[unsafe(no_mangle)]
pub extern "C" fn studio_choose(now: f64, chosen: bool) -> usize {
    let error = attender(|attender, name| {
        let name = String::from_utf8_lossy(name);
        attender.choose(&name, chosen, at(now)).err()
    });
    page(|page| page.outcome(error.map_or(Ok(()), Err)))
}

/// Asks: the input is JSON of name and text. The length of an error.
#[unsafe(no_mangle)]
pub extern "C" fn studio_ask(now: f64) -> usize {
    let error = attender(|attender, input| {
        let question = serde_json::from_slice::<Question>(input).map_err(|e| e.to_string());
        let asked = question.and_then(|q| attender.ask(&q.name, &q.text, at(now)));
        asked.err()
    });
    page(|page| page.outcome(error.map_or(Ok(()), Err)))
}

/// A name of the session, which is no secret: the length of its text.
#[unsafe(no_mangle)]
pub extern "C" fn studio_name() -> usize {
    text(PageAttender::name)
}

/// What was kept of a visit before: the input is the key that writes notes (32), then of each record kind (1), length (2,
/// big-endian) and bytes.
#[unsafe(no_mangle)]
pub extern "C" fn studio_restore(now: f64) {
    attender(|attender, input| {
        let Some((key, mut rest)) = input.split_first_chunk::<32>() else {
            return;
        };
        let mut records = Vec::new();
        while let Some(([kind, high, low], after)) = rest.split_first_chunk::<3>() {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            let Some((bytes, after)) = after.split_at_checked(length) else {
                break;
            };
            records.push((*kind, bytes));
            rest = after;
        }
        attender.restore(key, &records, at(now));
    });
}

/// Opens the notes. The length of an error.
#[unsafe(no_mangle)]
pub extern "C" fn studio_notes(now: f64) -> usize {
    let error = attender(|attender, _| attender.open_notes(at(now)).err());
    page(|page| page.outcome(error.map_or(Ok(()), Err)))
}

/// The next update of notes: author (8), number (4), both big-endian, and what the CRDT reads. Its length; 0: none.
#[unsafe(no_mangle)]
pub extern "C" fn studio_update() -> usize {
    page(|page| {
        page.answer_with(|attender, _| {
            let Some(update) = attender.poll_update() else {
                return Vec::new();
            };
            let mut bytes = update.author.to_be_bytes().to_vec();
            bytes.extend(update.number.to_be_bytes());
            bytes.extend(update.body);
            bytes
        })
    })
}

/// What is to be put on disk before what follows is sent: number (4, big-endian), then of each record kind (1; 2: the draft with
/// this number is done), what it is known by (16), length (2, big-endian) and bytes. The length; 0: nothing.
#[unsafe(no_mangle)]
pub extern "C" fn studio_records() -> usize {
    page(|page| page.answer_with(|attender, _| attender.take_records()))
}

/// All records up to this number are on disk.
#[unsafe(no_mangle)]
pub extern "C" fn studio_kept(turn: u32) {
    attender(|attender, _| attender.kept(turn));
}

/// A draft of notes, which is on disk: the input is an update of the CRDT. The length of an error.
#[unsafe(no_mangle)]
pub extern "C" fn studio_write(id: u32) -> usize {
    let error = attender(|attender, body| attender.write(id, body).err());
    page(|page| page.outcome(error.map_or(Ok(()), Err)))
}

/// Who is shown to whom in the notes: the input is JSON of name and watches.
#[unsafe(no_mangle)]
pub extern "C" fn studio_show(now: f64) {
    attender(|attender, input| {
        if let Ok(Shown { name, watches }) = serde_json::from_slice(input) {
            attender.choose_presence(name.as_deref(), watches, at(now));
        }
    });
}

/// Where the reader is in the notes: the input is a cursor of their document.
#[unsafe(no_mangle)]
pub extern "C" fn studio_move(now: f64, writes: bool) {
    attender(|attender, cursor| attender.move_to(cursor, writes, at(now)));
}

/// Those who show themselves in the notes: the length of its JSON.
#[unsafe(no_mangle)]
pub extern "C" fn studio_others() -> usize {
    text(PageAttender::others)
}

/// Whether other nodes are there.
#[unsafe(no_mangle)]
pub extern "C" fn studio_connect(is_connected: bool) {
    attender(|attender, _| attender.connect(is_connected));
}

/// Leaves all groups.
#[unsafe(no_mangle)]
pub extern "C" fn studio_end(now: f64) {
    attender(|attender, _| attender.end(at(now)));
}

/// Counts up with each change of what is shown.
#[unsafe(no_mangle)]
pub extern "C" fn studio_revision() -> f64 {
    attender(|attender, _| attender.revision() as f64)
}

/// How things stand: the length of its JSON.
#[unsafe(no_mangle)]
pub extern "C" fn studio_status() -> usize {
    text(PageAttender::status)
}

/// What slides are called: the length of its JSON.
#[unsafe(no_mangle)]
pub extern "C" fn studio_titles() -> usize {
    text(PageAttender::titles)
}

/// A slide, from 1: the length of its JSON.
#[unsafe(no_mangle)]
pub extern "C" fn studio_slide(number: usize) -> usize {
    text(|attender| attender.slide(number))
}

/// The input is the name of a picture, as a slide has it: the length of its media type, a line feed and its bytes; 0: not here.
#[unsafe(no_mangle)]
pub extern "C" fn studio_picture() -> usize {
    page(|page| {
        page.answer_with(|attender, id| attender.picture_file(&String::from_utf8_lossy(id)))
    })
}

/// The last lines of captions: the length of its JSON.
#[unsafe(no_mangle)]
pub extern "C" fn studio_captions(most: usize) -> usize {
    text(|attender| attender.captions(most))
}

/// What was taken up: the length of its JSON.
#[unsafe(no_mangle)]
pub extern "C" fn studio_questions() -> usize {
    text(PageAttender::questions)
}
