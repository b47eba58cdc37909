//! The C functions of a page that presents; conventions as in `page`.

use std::cell::RefCell;

use lcroute_web_page::{Datagram, Exchange, at};
use serde::Deserialize;

use crate::presenter::{PagePresenter, Start, picture_problem, preview, session_of};
use librecast::time::UnixTime;

thread_local! {
    static PAGE: RefCell<Exchange<PagePresenter>> = RefCell::default();
}

/// A text in a language.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    language: String,
    text: String,
}

fn page<T>(f: impl FnOnce(&mut Exchange<PagePresenter>) -> T) -> T {
    PAGE.with_borrow_mut(f)
}

/// Runs a function on the presenter with the input.
fn presenter<T: Default>(f: impl FnOnce(&mut PagePresenter, &[u8]) -> T) -> T {
    page(|page| page.with(f))
}

/// Stores a text as the answer. Returns its length.
fn text(f: impl FnOnce(&PagePresenter) -> String) -> usize {
    page(|page| page.answer_with(|presenter, _| f(presenter).into_bytes()))
}

/// Runs a function that may fail. Returns the length of an error.
fn attempt(f: impl FnOnce(&mut PagePresenter, &[u8]) -> Result<(), String>) -> usize {
    page(|page| page.attempt(f))
}

/// Returns the address for the input of the next call, with room for these bytes.
#[unsafe(no_mangle)]
pub extern "C" fn present_input(bytes: usize) -> *mut u8 {
    page(|page| page.room(bytes))
}

/// Returns the address of the last answer.
#[unsafe(no_mangle)]
pub extern "C" fn present_output() -> *const u8 {
    page(|page| page.output())
}

/// Answers the session's text, a space, and its group; 0: no key. Input: content of a key file.
#[unsafe(no_mangle)]
pub extern "C" fn present_session() -> usize {
    page(|page| {
        let key = page.take_input();
        let found = key.as_slice().try_into().ok().map(session_of);
        page.answer(found.map_or_else(Vec::new, |text| text.as_bytes().to_vec()))
    })
}

/// Answers a preview as JSON. Input: slides that a user edits; `line`: the cursor's line.
#[unsafe(no_mangle)]
pub extern "C" fn present_preview(line: usize) -> usize {
    page(|page| {
        let text = page.take_input();
        let shown = preview(&String::from_utf8_lossy(&text), line);
        page.answer(shown.into_bytes())
    })
}

/// Presents once another node is present. Returns the length of an error. Input: 32 secret random
/// bytes, content of a key file (32), length (4, big-endian) and JSON of a [`Start`], then length
/// (2, big-endian) and bytes of each stored record.
#[unsafe(no_mangle)]
pub extern "C" fn present_open(now: f64) -> usize {
    page(|page| {
        let input = page.take_input();
        let result = open(&input, now).map(|presenter| page.machine = Some(presenter));
        page.outcome(result)
    })
}

fn open(input: &[u8], now: f64) -> Result<PagePresenter, String> {
    let short = "an input that is too short";
    let (seed, rest) = input.split_first_chunk::<32>().ok_or(short)?;
    let (key, rest) = rest.split_first_chunk::<32>().ok_or(short)?;
    let (length, rest) = rest.split_first_chunk::<4>().ok_or(short)?;
    let length = u32::from_be_bytes(*length) as usize;
    let (start, mut rest) = rest.split_at_checked(length).ok_or(short)?;
    let start = serde_json::from_slice::<Start>(start).map_err(|e| e.to_string())?;
    let mut records = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length));
        let (record, after) = after.split_at_checked(length).ok_or(short)?;
        records.push(record);
        rest = after;
    }
    PagePresenter::new(&start, seed, key, &records, at(now))
}

/// Notes that another node is present.
#[unsafe(no_mangle)]
pub extern "C" fn present_connect(now: f64) {
    presenter(|presenter, _| presenter.connect(at(now)));
}

/// Handles a datagram. Input: the datagram, as the member encodes it.
#[unsafe(no_mangle)]
pub extern "C" fn present_datagram(now: f64, unix: f64) {
    presenter(|presenter, input| {
        if let Some(datagram) = Datagram::decode(input) {
            presenter.handle_datagram(datagram, at(now), UnixTime::from_millis(unix as u64));
        }
    });
}

/// Does the due work. Returns the milliseconds until the next call.
#[unsafe(no_mangle)]
pub extern "C" fn present_run(now: f64, unix: f64) -> f64 {
    presenter(|presenter, _| {
        presenter.handle_timeout(at(now), UnixTime::from_millis(unix as u64));
        let next = presenter.next_timeout(at(now));
        next.saturating_duration_since(at(now)).as_secs_f64() * 1_000.0
    })
}

/// Answers the next command ([`Command::to_bytes`](lcroute_web_page::Command::to_bytes)); 0: none.
#[unsafe(no_mangle)]
pub extern "C" fn present_poll() -> usize {
    page(|page| page.answer_command(PagePresenter::poll_command))
}

/// Answers records for the disk, as [`studio_records`](crate::page::studio_records).
#[unsafe(no_mangle)]
pub extern "C" fn present_records() -> usize {
    page(|page| page.answer_with(|presenter, _| presenter.take_records()))
}

/// Handles the report that all records up to this number are on disk.
#[unsafe(no_mangle)]
pub extern "C" fn present_kept(turn: u32) {
    presenter(|presenter, _| presenter.kept(turn));
}

/// Sets the slides of the input. Returns the length of an error.
#[unsafe(no_mangle)]
pub extern "C" fn present_slides() -> usize {
    attempt(|presenter, text| presenter.set_slides(&String::from_utf8_lossy(text)))
}

/// Answers the fault of a file as a picture; 0: none. Input: its bytes.
#[unsafe(no_mangle)]
pub extern "C" fn present_picture_problem() -> usize {
    page(|page| {
        let bytes = page.take_input();
        page.answer(picture_problem(&bytes).unwrap_or_default().into_bytes())
    })
}

/// Adds a picture. Input: length of its name (1), name, bytes. Returns the length of an error.
#[unsafe(no_mangle)]
pub extern "C" fn present_picture() -> usize {
    attempt(|presenter, input| {
        let split = input.split_first();
        let split = split.and_then(|(length, rest)| rest.split_at_checked((*length).into()));
        let (name, bytes) = split.ok_or("an input that is too short")?;
        presenter.add_picture(&String::from_utf8_lossy(name), bytes)
    })
}

/// Shows a slide, from 1.
#[unsafe(no_mangle)]
pub extern "C" fn present_turn(number: usize) {
    presenter(|presenter, _| presenter.turn_to(number));
}

/// Sends a caption. Input: language and text as JSON. Returns the length of an error.
#[unsafe(no_mangle)]
pub extern "C" fn present_caption() -> usize {
    attempt(|presenter, input| {
        let line = serde_json::from_slice::<Line>(input).map_err(|e| e.to_string())?;
        presenter.caption(&line.language, &line.text)
    })
}

/// Takes up a question, from 1. Returns the length of an error.
#[unsafe(no_mangle)]
pub extern "C" fn present_take_up(number: usize) -> usize {
    attempt(|presenter, _| presenter.take_up(number))
}

/// Answers radio's key file for the sound of a language; 0: no language. Input: the language.
#[unsafe(no_mangle)]
pub extern "C" fn present_station_key() -> usize {
    page(|page| {
        page.answer_with(|presenter, language| {
            let key = presenter.station_key(&String::from_utf8_lossy(language));
            key.map_or_else(|_| Vec::new(), |key| key.to_vec())
        })
    })
}

/// Names a station. Input: language and text of the station as JSON. Returns an error's length.
#[unsafe(no_mangle)]
pub extern "C" fn present_station() -> usize {
    attempt(|presenter, input| {
        let line = serde_json::from_slice::<Line>(input).map_err(|e| e.to_string())?;
        presenter.add_station(&line.language, &line.text)
    })
}

/// Puts the screen on air. Input: 32 secret random bytes. Returns the length of an error.
#[unsafe(no_mangle)]
pub extern "C" fn present_screen(now: f64, unix: f64) -> usize {
    attempt(|presenter, input| {
        let seed = input.first_chunk::<32>().ok_or("no seed")?;
        let time = UnixTime::from_millis(unix as u64);
        presenter.show_screen(seed, time, at(now))
    })
}

/// Describes screen or camera. Input: name of the track, line feed, text. Returns the length of an
/// error.
#[unsafe(no_mangle)]
pub extern "C" fn present_describe() -> usize {
    attempt(|presenter, input| {
        let input = String::from_utf8_lossy(input);
        let (name, text) = input.split_once('\n').ok_or("no name of a track")?;
        presenter.describe(name, text)
    })
}

/// Returns whether the page is to look at the screen now.
#[unsafe(no_mangle)]
pub extern "C" fn present_wants_look(now: f64) -> bool {
    presenter(|presenter, _| presenter.wants_look(at(now)))
}

/// Takes a look at the screen. Input: its pixels, of 4 bytes. Returns the length of an error.
#[unsafe(no_mangle)]
pub extern "C" fn present_look(now: f64, width: u32, height: u32) -> usize {
    page(|page| {
        // 9 MiB that are not secret from this page: moved, neither copied nor wiped
        let pixels = std::mem::take(&mut *page.take_input());
        let presenter = page.machine.as_mut();
        let looked = presenter.map_or(Ok(()), |presenter| {
            presenter.look((width, height), pixels, at(now))
        });
        page.outcome(looked)
    })
}

/// Answers the areas whose pictures are wanted; 0: none. Quality in percent (1), then x 2, y 2,
/// width 2, height 2 of each, big-endian.
#[unsafe(no_mangle)]
pub extern "C" fn present_areas() -> usize {
    page(|page| page.answer_with(|presenter, _| presenter.wanted_pictures()))
}

/// Sends pictures of these areas. Input: length (4, big-endian) and bytes of each. Returns the
/// length of an error. Areas that are wanted afterwards are to be encoded again.
#[unsafe(no_mangle)]
pub extern "C" fn present_screen_pictures(now: f64) -> usize {
    attempt(|presenter, mut rest| {
        let mut files = Vec::new();
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let length = u32::from_be_bytes(*length) as usize;
            let file = after.split_at_checked(length);
            let (file, after) = file.ok_or("an input that is too short")?;
            files.push(file.to_vec());
            rest = after;
        }
        presenter.screen_pictures(files, at(now))
    })
}

/// Takes the screen off air.
#[unsafe(no_mangle)]
pub extern "C" fn present_end_screen(now: f64) {
    presenter(|presenter, _| presenter.end_screen(at(now)));
}

/// Puts the camera on air. Input: 32 secret random bytes. Returns the length of an error.
#[unsafe(no_mangle)]
pub extern "C" fn present_camera(now: f64, unix: f64, has_large: bool) -> usize {
    attempt(|presenter, input| {
        let seed = input.first_chunk::<32>().ok_or("no seed")?;
        let time = UnixTime::from_millis(unix as u64);
        presenter.show_camera(seed, has_large, time, at(now))
    })
}

/// Sends a frame of the camera. Input: its bytes. Returns 0 if it was sent, 1 if it was left out and
/// a key frame is to be next, 2 if the camera cannot be sent.
#[unsafe(no_mangle)]
pub extern "C" fn present_camera_frame(now: f64, is_large: bool) -> usize {
    presenter(
        |presenter, frame| match presenter.camera_frame(is_large, frame, at(now)) {
            Ok(true) => 0,
            Ok(false) => 1,
            Err(_) => 2,
        },
    )
}

/// There is no large picture of the camera any more.
#[unsafe(no_mangle)]
pub extern "C" fn present_end_large(now: f64) {
    presenter(|presenter, _| presenter.end_large(at(now)));
}

/// Takes the camera off air.
#[unsafe(no_mangle)]
pub extern "C" fn present_end_camera(now: f64) {
    presenter(|presenter, _| presenter.end_camera(at(now)));
}

/// Ends the session for all attenders. Returns the length of an error.
#[unsafe(no_mangle)]
pub extern "C" fn present_end() -> usize {
    attempt(|presenter, _| presenter.end())
}

/// Resumes a session that has ended.
#[unsafe(no_mangle)]
pub extern "C" fn present_resume() {
    presenter(|presenter, _| presenter.resume());
}

/// Leaves all groups.
#[unsafe(no_mangle)]
pub extern "C" fn present_leave() {
    presenter(|presenter, _| presenter.leave());
}

/// Returns a counter of changes to the view.
#[unsafe(no_mangle)]
pub extern "C" fn present_revision() -> f64 {
    presenter(|presenter, _| presenter.revision() as f64)
}

/// Answers the status as JSON.
#[unsafe(no_mangle)]
pub extern "C" fn present_status() -> usize {
    text(PagePresenter::status)
}

/// Answers a slide, from 1, as JSON.
#[unsafe(no_mangle)]
pub extern "C" fn present_slide(number: usize) -> usize {
    text(|presenter| presenter.slide(number))
}

/// Answers the last lines of captions as JSON.
#[unsafe(no_mangle)]
pub extern "C" fn present_captions(most: usize) -> usize {
    text(|presenter| presenter.captions(most))
}
