//! The C functions that a page calls.
//!
//! [`radio_input`] returns the address for a function's input bytes; the next call takes them.
//! [`radio_output`] returns the address of an answer, and the function its length. Times are
//! milliseconds: `now` of `performance.now()`, `unix` of `Date.now()`.

use std::cell::RefCell;

use lcradio_core::{Latency, StationKey};
use lcroute_web_page::{Datagram, Exchange, at};
use librecast::time::{Duration, UnixTime};

use crate::casting::CastStart;
use crate::frame::frame_bytes;
use crate::radio::PageRadio;

thread_local! {
    static PAGE: RefCell<Exchange<PageRadio>> = RefCell::default();
}

fn page<T>(f: impl FnOnce(&mut Exchange<PageRadio>) -> T) -> T {
    PAGE.with_borrow_mut(f)
}

/// Calls `f` with the radio and the input, if there is a radio.
fn radio<T: Default>(f: impl FnOnce(&mut PageRadio, &[u8]) -> T) -> T {
    page(|page| page.with(f))
}

/// Calls `f` with the radio and the input; returns the length of an error.
fn attempt(f: impl FnOnce(&mut PageRadio, &[u8]) -> Result<(), String>) -> usize {
    page(|page| page.attempt(f))
}

/// Returns memory for the input of the next call.
#[unsafe(no_mangle)]
pub extern "C" fn radio_input(bytes: usize) -> *mut u8 {
    page(|page| page.room(bytes))
}

/// Returns the address of the last answer.
#[unsafe(no_mangle)]
pub extern "C" fn radio_output() -> *const u8 {
    page(|page| page.output())
}

/// Starts a new radio for the member with the input's address (text).
#[unsafe(no_mangle)]
pub extern "C" fn radio_open(now: f64) -> usize {
    page(|page| {
        let input = page.take_input();
        let address = std::str::from_utf8(&input)
            .ok()
            .and_then(|t| t.parse().ok());
        page.machine = address.map(|address| PageRadio::new(address, at(now)));
        let opened = page.machine.as_ref().map(|_| ());
        page.outcome(opened.ok_or_else(|| "This member has no address.".to_owned()))
    })
}

/// Handles a datagram. Input: source, group (16 bytes each), port (2) and data, as from the member.
#[unsafe(no_mangle)]
pub extern "C" fn radio_datagram(now: f64, unix: f64) {
    radio(|radio, input| {
        if let Some(datagram) = Datagram::decode(input) {
            radio.handle_datagram(datagram, at(now), UnixTime::from_millis(unix as u64));
        }
    });
}

/// Runs the timers that are due; returns the milliseconds until the next call.
#[unsafe(no_mangle)]
pub extern "C" fn radio_run(now: f64, unix: f64) -> f64 {
    radio(|radio, _| {
        radio.handle_timeout(at(now), UnixTime::from_millis(unix as u64));
        let next = radio.next_timeout();
        next.saturating_duration_since(at(now)).as_secs_f64() * 1_000.0
    })
}

/// Returns the length of the next command
/// ([`Command::to_bytes`](lcroute_web_page::Command::to_bytes)), or 0.
#[unsafe(no_mangle)]
pub extern "C" fn radio_poll() -> usize {
    page(|page| page.answer_command(PageRadio::poll_command))
}

fn latency(ms: f64) -> Latency {
    match ms {
        ms if ms > 0.0 => Latency::Fixed(Duration::from_millis(ms as u64)),
        _ => Latency::Auto,
    }
}

/// Tunes in to the input's station; `delay` in ms, 0: automatic. Returns the length of an error.
#[unsafe(no_mangle)]
pub extern "C" fn radio_tune(now: f64, delay: f64) -> usize {
    attempt(|radio, id| radio.tune(&String::from_utf8_lossy(id), latency(delay), at(now)))
}

/// Stops listening.
#[unsafe(no_mangle)]
pub extern "C" fn radio_stop() {
    radio(|radio, _| radio.stop());
}

/// Sets the delay in ms; 0: automatic.
#[unsafe(no_mangle)]
pub extern "C" fn radio_delay(delay: f64) {
    radio(|radio, _| radio.set_latency(latency(delay)));
}

/// Returns the casters that are playing: a bit for each.
#[unsafe(no_mangle)]
pub extern "C" fn radio_voices() -> u32 {
    radio(|radio, _| radio.voices())
}

/// Returns the length of a caster's next frame ([`frame_bytes`]).
#[unsafe(no_mangle)]
pub extern "C" fn radio_frame(now: f64, caster: u8) -> usize {
    page(|page| {
        let radio = page.machine.as_mut();
        let frame = radio.map(|radio| radio.poll_frame(caster, at(now)));
        page.answer(frame.map_or_else(Vec::new, frame_bytes))
    })
}

/// Returns the correction of a caster's sample rate for the player, in parts per million.
#[unsafe(no_mangle)]
pub extern "C" fn radio_speed(caster: u8) -> f64 {
    radio(|radio, _| radio.speed_ppm(caster))
}

/// Casts. Input: a key file (32 bytes), JSON of a [`CastStart`]. Returns the length of an error.
#[unsafe(no_mangle)]
pub extern "C" fn radio_cast(now: f64, unix: f64) -> usize {
    attempt(|radio, input| {
        let (seed, start) = input
            .split_first_chunk::<32>()
            .ok_or("This file is no station key: `lcradio keygen` makes one.")?;
        let start = serde_json::from_slice::<CastStart>(start).map_err(|e| e.to_string())?;
        let (key, time) = (
            StationKey::from_seed(seed),
            UnixTime::from_millis(unix as u64),
        );
        radio.cast(key, start, at(now), time)
    })
}

/// Sends the input, 20 ms of Opus; returns whether it was sent.
#[unsafe(no_mangle)]
pub extern "C" fn radio_sound(now: f64) -> bool {
    radio(|radio, opus| {
        let casting = radio.casting();
        casting.is_some_and(|casting| casting.send(opus, at(now)))
    })
}

/// Marks the beginning or the end of speech.
#[unsafe(no_mangle)]
pub extern "C" fn radio_talk(now: f64, talks: bool) {
    radio(|radio, _| {
        if let Some(casting) = radio.casting() {
            casting.set_talking(talks, at(now));
        }
    });
}

/// Changes the title to the input. Returns the length of an error.
#[unsafe(no_mangle)]
pub extern "C" fn radio_title(now: f64) -> usize {
    attempt(|radio, title| match radio.casting() {
        Some(casting) => casting.set_title(&String::from_utf8_lossy(title), at(now)),
        None => Ok(()),
    })
}

/// Ends the cast.
#[unsafe(no_mangle)]
pub extern "C" fn radio_end(now: f64) {
    radio(|radio, _| {
        if let Some(casting) = radio.casting() {
            casting.end(at(now));
        }
    });
}

/// Returns the length of the state's JSON.
#[unsafe(no_mangle)]
pub extern "C" fn radio_status(now: f64) -> usize {
    page(|page| {
        let status = page.machine.as_ref().map(|radio| radio.status(at(now)));
        page.answer(status.unwrap_or_default().into_bytes())
    })
}
