//! The C functions that a page calls.
//!
//! The page writes the input of a function to the address of [`studio_input`]; the next call takes
//! it. A function returns the length of its answer, at the address of [`studio_output`]. Times are
//! milliseconds: `now` of `performance.now()`, `unix` of `Date.now()`.

use std::cell::RefCell;

use lcroute_web_page::{Datagram, Exchange, at};
use serde::Deserialize;

use crate::attender::{PageAttender, Start};
use librecast::time::UnixTime;

thread_local! {
    static PAGE: RefCell<Exchange<PageAttender>> = RefCell::default();
}

/// A reader's choice of presence in the notes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Shown {
    /// Name that other writers see; `None`: the reader is not shown.
    name: Option<String>,
    watches: bool,
}

/// A question of the reader.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    name: String,
    text: String,
}

fn page<T>(f: impl FnOnce(&mut Exchange<PageAttender>) -> T) -> T {
    PAGE.with_borrow_mut(f)
}

/// Runs a function on the attender with the input.
fn attender<T: Default>(f: impl FnOnce(&mut PageAttender, &[u8]) -> T) -> T {
    page(|page| page.with(f))
}

/// Runs a function that may fail. Returns the length of an error.
fn attempt(f: impl FnOnce(&mut PageAttender, &[u8]) -> Result<(), String>) -> usize {
    page(|page| page.attempt(f))
}

/// Stores a text as the answer. Returns its length.
fn text(f: impl FnOnce(&PageAttender) -> String) -> usize {
    page(|page| page.answer_with(|attender, _| f(attender).into_bytes()))
}

/// Returns the address for the input of the next call, with room for these bytes.
#[unsafe(no_mangle)]
pub extern "C" fn studio_input(bytes: usize) -> *mut u8 {
    page(|page| page.room(bytes))
}

/// Returns the address of the last answer.
#[unsafe(no_mangle)]
pub extern "C" fn studio_output() -> *const u8 {
    page(|page| page.output())
}

/// Attends a session. Input: 32 secret bytes, a [`Start`] as JSON. Returns an error's length.
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

/// Handles a datagram. Input: the datagram, as the member encodes it.
#[unsafe(no_mangle)]
pub extern "C" fn studio_datagram(now: f64, unix: f64) {
    attender(|attender, input| {
        if let Some(datagram) = Datagram::decode(input) {
            attender.handle_datagram(datagram, at(now), UnixTime::from_millis(unix as u64));
        }
    });
}

/// Does the due work. Returns the milliseconds until the next call.
#[unsafe(no_mangle)]
pub extern "C" fn studio_run(now: f64, unix: f64) -> f64 {
    attender(|attender, _| {
        attender.handle_timeout(at(now), UnixTime::from_millis(unix as u64));
        let next = attender.next_timeout(at(now));
        next.saturating_duration_since(at(now)).as_secs_f64() * 1_000.0
    })
}

/// Answers the next command ([`Command::to_bytes`](lcroute_web_page::Command::to_bytes)); 0: none.
#[unsafe(no_mangle)]
pub extern "C" fn studio_poll() -> usize {
    page(|page| page.answer_command(PageAttender::poll_command))
}

/// Chooses or drops the track in the input. Returns the length of an error.
#[unsafe(no_mangle)]
pub extern "C" fn studio_choose(now: f64, chosen: bool) -> usize {
    attempt(|attender, name| attender.choose(&String::from_utf8_lossy(name), chosen, at(now)))
}

/// Sends a question. Input: name and text as JSON. Returns the length of an error.
#[unsafe(no_mangle)]
pub extern "C" fn studio_ask(now: f64) -> usize {
    attempt(|attender, input| {
        let question = serde_json::from_slice::<Question>(input).map_err(|e| e.to_string())?;
        attender.ask(&question.name, &question.text, at(now))
    })
}

/// Answers the session's group, which is not secret.
#[unsafe(no_mangle)]
pub extern "C" fn studio_name() -> usize {
    text(PageAttender::name)
}

/// Restores records of an earlier visit. Input: the key that writes notes (32), then kind (1),
/// length (2, big-endian) and bytes of each record.
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

/// Opens the notes. Returns the length of an error.
#[unsafe(no_mangle)]
pub extern "C" fn studio_notes(now: f64) -> usize {
    attempt(|attender, _| attender.open_notes(at(now)))
}

/// Answers the next update of notes: author (8), number (4), both big-endian, bytes; 0: none.
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

/// Answers records for the disk, to be stored before later packets: number (4, big-endian), then
/// kind (1; 2: the draft is done), id (16), length (2, big-endian) and bytes of each; 0: none.
#[unsafe(no_mangle)]
pub extern "C" fn studio_records() -> usize {
    page(|page| page.answer_with(|attender, _| attender.take_records()))
}

/// Handles the report that all records up to this number are on disk.
#[unsafe(no_mangle)]
pub extern "C" fn studio_kept(turn: u32) {
    attender(|attender, _| attender.kept(turn));
}

/// Takes a draft that is on disk. Input: an update of the CRDT. Returns the length of an error.
#[unsafe(no_mangle)]
pub extern "C" fn studio_write(id: u32) -> usize {
    attempt(|attender, body| attender.write(id, body))
}

/// Sets the reader's presence. Input: a [`Shown`] as JSON.
#[unsafe(no_mangle)]
pub extern "C" fn studio_show(now: f64) {
    attender(|attender, input| {
        if let Ok(Shown { name, watches }) = serde_json::from_slice(input) {
            attender.choose_presence(name.as_deref(), watches, at(now));
        }
    });
}

/// Moves the reader's cursor in the notes. Input: a cursor of their document.
#[unsafe(no_mangle)]
pub extern "C" fn studio_move(now: f64, writes: bool) {
    attender(|attender, cursor| attender.move_to(cursor, writes, at(now)));
}

/// Answers the present writers of the notes as JSON.
#[unsafe(no_mangle)]
pub extern "C" fn studio_others() -> usize {
    text(PageAttender::others)
}

/// Sets whether other nodes are present.
#[unsafe(no_mangle)]
pub extern "C" fn studio_connect(is_connected: bool) {
    attender(|attender, _| attender.connect(is_connected));
}

/// Leaves all groups.
#[unsafe(no_mangle)]
pub extern "C" fn studio_end(now: f64) {
    attender(|attender, _| attender.end(at(now)));
}

/// Returns a counter of changes to the view.
#[unsafe(no_mangle)]
pub extern "C" fn studio_revision() -> f64 {
    attender(|attender, _| attender.revision() as f64)
}

/// Answers the status as JSON.
#[unsafe(no_mangle)]
pub extern "C" fn studio_status() -> usize {
    text(PageAttender::status)
}

/// Answers titles of slides as JSON.
#[unsafe(no_mangle)]
pub extern "C" fn studio_titles() -> usize {
    text(PageAttender::titles)
}

/// Answers a slide, from 1, as JSON.
#[unsafe(no_mangle)]
pub extern "C" fn studio_slide(number: usize) -> usize {
    text(|attender| attender.slide(number))
}

/// Answers a picture: media type, line feed, bytes; 0: unknown. Input: its id.
#[unsafe(no_mangle)]
pub extern "C" fn studio_picture() -> usize {
    page(|page| {
        page.answer_with(|attender, id| attender.picture_file(&String::from_utf8_lossy(id)))
    })
}

/// Answers the next change of the presenter's screen; 0: none. It has the size of the screen
/// (width 2, height 2), the area (x 2, y 2, width 2, height 2), all big-endian, 1 if it covers the
/// screen, media type, line feed, bytes of the picture.
#[unsafe(no_mangle)]
pub extern "C" fn studio_screen() -> usize {
    page(|page| page.answer_with(|attender, _| attender.poll_screen()))
}

/// Lets the screen stand still, or go on.
#[unsafe(no_mangle)]
pub extern "C" fn studio_pause(now: f64, is_paused: bool) {
    attender(|attender, _| attender.pause_screen(is_paused, at(now)));
}

/// Answers the next frame of the presenter's camera: 1 if it is a key frame, bytes of VP8; 0: none.
#[unsafe(no_mangle)]
pub extern "C" fn studio_camera() -> usize {
    page(|page| page.answer_with(|attender, _| attender.poll_camera()))
}

/// Notes how many frames of the camera wait for the decoder. `has_lost`: it needs a key frame.
#[unsafe(no_mangle)]
pub extern "C" fn studio_camera_waiting(now: f64, frames: usize, has_lost: bool) {
    attender(|attender, _| attender.camera_waiting(frames, has_lost, at(now)));
}

/// Lets the camera stand still, or go on.
#[unsafe(no_mangle)]
pub extern "C" fn studio_camera_pause(now: f64, is_paused: bool) {
    attender(|attender, _| attender.pause_camera(is_paused, at(now)));
}

/// Chooses the camera's large picture, or the small one.
#[unsafe(no_mangle)]
pub extern "C" fn studio_camera_large(now: f64, wants_large: bool) {
    attender(|attender, _| attender.want_large(wants_large, at(now)));
}

/// Tries a layer of the camera again that was left.
#[unsafe(no_mangle)]
pub extern "C" fn studio_camera_again(now: f64) {
    attender(|attender, _| attender.try_camera_again(at(now)));
}

/// Answers the last lines of captions as JSON.
#[unsafe(no_mangle)]
pub extern "C" fn studio_captions(most: usize) -> usize {
    text(|attender| attender.captions(most))
}

/// Answers the questions that were taken up as JSON.
#[unsafe(no_mangle)]
pub extern "C" fn studio_questions() -> usize {
    text(PageAttender::questions)
}
