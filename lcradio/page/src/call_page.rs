//! The C functions of a call, beside those of radio in the same module. They have their own input
//! and output, so a worker with a call needs no radio.

use std::cell::RefCell;
use std::net::Ipv6Addr;

use lcroute_web_page::{Datagram, Exchange, at};
use librecast::time::UnixTime;

use crate::calling::PageCall;
use crate::frame::frame_bytes;

thread_local! {
    static PAGE: RefCell<Exchange<PageCall>> = RefCell::default();
}

fn page<T>(f: impl FnOnce(&mut Exchange<PageCall>) -> T) -> T {
    PAGE.with_borrow_mut(f)
}

/// Calls `f` with the call and the input, if there is a call.
fn call<T: Default>(f: impl FnOnce(&mut PageCall, &[u8]) -> T) -> T {
    page(|page| page.with(f))
}

/// Returns memory for the input of the next function.
#[unsafe(no_mangle)]
pub extern "C" fn call_input(bytes: usize) -> *mut u8 {
    page(|page| page.room(bytes))
}

/// Returns the address of the last answer.
#[unsafe(no_mangle)]
pub extern "C" fn call_output() -> *const u8 {
    page(|page| page.output())
}

/// Joins a call. Input: the member's address (16 bytes), JSON of a
/// [`CallStart`](crate::calling::CallStart). Returns the length of an error.
#[unsafe(no_mangle)]
pub extern "C" fn call_join(now: f64) -> usize {
    page(|page| {
        let input = page.take_input();
        let joined = input
            .split_first_chunk::<16>()
            .ok_or_else(|| "This member has no address.".to_owned())
            .and_then(|(address, start)| {
                let start = serde_json::from_slice(start).map_err(|e| e.to_string())?;
                PageCall::new(Ipv6Addr::from(*address), start, at(now))
            });
        let outcome = joined.map(|call| page.machine = Some(call));
        page.outcome(outcome)
    })
}

/// Handles a datagram. Input: source, group (16 bytes each), port (2) and data, as from the member.
#[unsafe(no_mangle)]
pub extern "C" fn call_datagram(now: f64, unix: f64) {
    call(|call, input| {
        if let Some(datagram) = Datagram::decode(input) {
            call.handle_datagram(datagram, at(now), UnixTime::from_millis(unix as u64));
        }
    });
}

/// Runs the timers that are due; returns the milliseconds until the next call.
#[unsafe(no_mangle)]
pub extern "C" fn call_run(now: f64, unix: f64) -> f64 {
    call(|call, _| {
        call.handle_timeout(at(now), UnixTime::from_millis(unix as u64));
        let next = call.next_timeout();
        next.saturating_duration_since(at(now)).as_secs_f64() * 1_000.0
    })
}

/// Returns the length of the next command
/// ([`Command::to_bytes`](lcroute_web_page::Command::to_bytes)), or 0.
#[unsafe(no_mangle)]
pub extern "C" fn call_poll() -> usize {
    page(|page| {
        let command = page.machine.as_mut().and_then(PageCall::poll_command);
        page.answer(command.map_or_else(Vec::new, |command| command.to_bytes()))
    })
}

/// Returns the places that were heard: a bit for each.
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

/// Returns the correction of a place's sample rate for the player, in parts per million.
#[unsafe(no_mangle)]
pub extern "C" fn call_speed(place: u8) -> f64 {
    call(|call, _| call.speed_ppm(place))
}

/// Notes decoded sound of a place: mean power (1 at full scale), samples.
#[unsafe(no_mangle)]
pub extern "C" fn call_hear(place: u8, power: f64, samples: u32) {
    call(|call, _| call.hear(place, power, samples));
}

/// Sends the input, 10 ms of Opus.
#[unsafe(no_mangle)]
pub extern "C" fn call_sound(now: f64) {
    call(|call, opus| call.send(opus, at(now)));
}

/// Sends nothing for these samples.
#[unsafe(no_mangle)]
pub extern "C" fn call_skip(samples: u32) {
    call(|call, _| call.skip(samples));
}

/// Mutes this participant, or lets it talk.
#[unsafe(no_mangle)]
pub extern "C" fn call_mute(now: f64, is_muted: bool) {
    call(|call, _| call.set_muted(is_muted, at(now)));
}

/// Turns the sound of a place off or on.
#[unsafe(no_mangle)]
pub extern "C" fn call_ignore(place: u8, is_ignored: bool) {
    call(|call, _| call.set_ignored(place, is_ignored));
}

/// Leaves the call.
#[unsafe(no_mangle)]
pub extern "C" fn call_leave(now: f64) {
    call(|call, _| call.leave(at(now)));
}

/// Returns the length of the state's JSON.
#[unsafe(no_mangle)]
pub extern "C" fn call_status() -> usize {
    page(|page| {
        let status = page.machine.as_mut().map(PageCall::status);
        page.answer(status.unwrap_or_default().into_bytes())
    })
}
