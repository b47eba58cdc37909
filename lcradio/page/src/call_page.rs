//! The C functions that the Worker of a call calls: as those of `page`, for a [`PageCall`].

use std::cell::RefCell;

use lcradio_core::CallKey;
use lcroute_web_page::{Command, Datagram, Exchange, at};
use librecast::time::UnixTime;

use crate::calling::{CallStart, PageCall};
use crate::frame::frame_bytes;

thread_local! {
    static PAGE: RefCell<Exchange<PageCall>> = RefCell::default();
}

fn page<T>(f: impl FnOnce(&mut Exchange<PageCall>) -> T) -> T {
    PAGE.with_borrow_mut(f)
}

/// Calls `f` with the participant and the input, if there is one.
fn call<T: Default>(f: impl FnOnce(&mut PageCall, &[u8]) -> T) -> T {
    page(|page| page.with(f))
}

fn time(unix: f64) -> UnixTime {
    UnixTime::from_millis(unix as u64)
}

/// Returns memory for the input of the next call.
#[unsafe(no_mangle)]
pub extern "C" fn call_input(bytes: usize) -> *mut u8 {
    page(|page| page.room(bytes))
}

/// Returns the address of the last answer.
#[unsafe(no_mangle)]
pub extern "C" fn call_output() -> *const u8 {
    page(|page| page.output())
}

/// Makes a call of the input's 32 random bytes; returns the length of its text, 0 if there are not
/// as many.
#[unsafe(no_mangle)]
pub extern "C" fn call_make() -> usize {
    page(|page| {
        let seed = page.take_input();
        let text = <&[u8; 32]>::try_from(&seed[..]).map(|seed| CallKey::from_seed(seed).encode());
        page.answer(text.map_or_else(|_| Vec::new(), |text| text.as_bytes().to_vec()))
    })
}

/// Joins a call. Input: JSON of a [`CallStart`]. Returns the length of an error.
#[unsafe(no_mangle)]
pub extern "C" fn call_open(now: f64) -> usize {
    page(|page| {
        let input = page.take_input();
        let start = serde_json::from_slice::<CallStart>(&input).map_err(|e| e.to_string());
        let opened = start.and_then(|start| PageCall::new(start, at(now)));
        let outcome = opened.map(|call| page.machine = Some(call));
        page.outcome(outcome)
    })
}

/// Handles a datagram. Input: source, group (16 bytes each), port (2) and data, as from the member.
#[unsafe(no_mangle)]
pub extern "C" fn call_datagram(now: f64, unix: f64) {
    call(|call, input| {
        if let Some(datagram) = Datagram::decode(input) {
            call.handle_datagram(datagram, at(now), time(unix));
        }
    });
}

/// Runs the timers that are due; returns the milliseconds until the next call.
#[unsafe(no_mangle)]
pub extern "C" fn call_run(now: f64, unix: f64) -> f64 {
    call(|call, _| {
        call.handle_timeout(at(now), time(unix));
        let next = call.next_timeout();
        next.saturating_duration_since(at(now)).as_secs_f64() * 1_000.0
    })
}

fn command(next: impl FnOnce(&mut PageCall) -> Option<Command>) -> usize {
    page(|page| page.answer_command(next))
}

/// Returns the length of the next command ([`Command::to_bytes`]), or 0.
#[unsafe(no_mangle)]
pub extern "C" fn call_poll() -> usize {
    command(PageCall::poll_command)
}

/// Returns the length of a new command by which a closed page leaves, or 0.
#[unsafe(no_mangle)]
pub extern "C" fn call_farewell() -> usize {
    command(PageCall::take_farewell)
}

/// Sends the input, Opus before which `skipped` samples were left out; returns its samples.
#[unsafe(no_mangle)]
pub extern "C" fn call_sound(now: f64, skipped: u32) -> u32 {
    call(|call, opus| call.send(opus, skipped, at(now)))
}

/// Mutes this participant, or lets it talk.
#[unsafe(no_mangle)]
pub extern "C" fn call_mute(now: f64, is_muted: bool) {
    call(|call, _| call.set_muted(is_muted, at(now)));
}

/// Keeps the place, and hears nobody; or takes part again.
#[unsafe(no_mangle)]
pub extern "C" fn call_hold(now: f64, is_away: bool) {
    call(|call, _| call.set_away(is_away, at(now)));
}

/// Plays a participant no longer, or again.
#[unsafe(no_mangle)]
pub extern "C" fn call_ignore(place: u8, is_ignored: bool) {
    call(|call, _| call.set_ignored(place, is_ignored));
}

/// Leaves the call.
#[unsafe(no_mangle)]
pub extern "C" fn call_leave(now: f64) {
    call(|call, _| call.leave(at(now)));
}

/// Returns whether it has left, and all is sent.
#[unsafe(no_mangle)]
pub extern "C" fn call_left() -> bool {
    call(|call, _| call.has_left())
}

/// Returns the places that are playing: a bit for each.
#[unsafe(no_mangle)]
pub extern "C" fn call_voices() -> u32 {
    call(|call, _| call.voices())
}

/// Returns the length of a place's next frame ([`frame_bytes`]).
#[unsafe(no_mangle)]
pub extern "C" fn call_frame(now: f64, place: u8) -> usize {
    page(|page| {
        let call = page.machine.as_mut();
        let frame = call.map(|call| call.poll_frame(place, at(now)));
        page.answer(frame.map_or_else(Vec::new, frame_bytes))
    })
}

/// Returns the correction of a participant's sample rate for the player, in parts per million.
#[unsafe(no_mangle)]
pub extern "C" fn call_speed(place: u8) -> f64 {
    call(|call, _| call.speed_ppm(place))
}

/// Adds the mean power of decoded sound; returns whether somebody began or ceased to speak.
#[unsafe(no_mangle)]
pub extern "C" fn call_power(place: u8, power: f64, samples: u32) -> bool {
    call(|call, _| call.add_power(place, power, samples))
}

/// Returns the length of the state's JSON.
#[unsafe(no_mangle)]
pub extern "C" fn call_status() -> usize {
    page(|page| {
        let status = page.machine.as_ref().map(PageCall::status);
        page.answer(status.unwrap_or_default().into_bytes())
    })
}
