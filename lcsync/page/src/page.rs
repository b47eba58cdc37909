//! The C functions that a page calls.
//!
//! [`get_input`] returns the address for a function's input bytes; the next call takes them.
//! [`get_output`] returns the address of an answer, and the function its length. Times are
//! milliseconds: `now` of `performance.now()`, `unix` of `Date.now()`.

use std::cell::RefCell;

use lcroute_web_page::{Datagram, Exchange, at};
use librecast::time::UnixTime;

use crate::get::PageGet;
use crate::link::{Link, Start, Wanted};

thread_local! {
    static PAGE: RefCell<Exchange<PageGet>> = RefCell::default();
    static WANTED: RefCell<Option<Wanted>> = const { RefCell::new(None) };
}

fn page<T>(f: impl FnOnce(&mut Exchange<PageGet>) -> T) -> T {
    PAGE.with_borrow_mut(f)
}

/// Calls `f` with the receiver and the input, if there is a receiver.
fn get<T: Default>(f: impl FnOnce(&mut PageGet, &[u8]) -> T) -> T {
    page(|page| page.with(f))
}

/// Returns memory for the input of the next call.
#[unsafe(no_mangle)]
pub extern "C" fn get_input(bytes: usize) -> *mut u8 {
    page(|page| page.room(bytes))
}

/// Returns the address of the last answer.
#[unsafe(no_mangle)]
pub extern "C" fn get_output() -> *const u8 {
    page(|page| page.output())
}

/// Reads the JSON of a [`Start`]: the answer is 1 and a token for a leaf, or 0 and the reason
/// against it. Returns its length.
#[unsafe(no_mangle)]
pub extern "C" fn get_token(unix: f64) -> usize {
    page(|page| {
        let start = serde_json::from_slice::<Start>(&page.take_input()).map_err(|e| e.to_string());
        let link = start.and_then(|start| Link::new(&start, UnixTime::from_millis(unix as u64)));
        let (kind, text) = match link {
            Ok(link) => {
                WANTED.set(Some(link.wanted));
                (1, link.token)
            }
            Err(why) => (0, why.into()),
        };
        page.answer([&[kind], text.as_bytes()].concat())
    })
}

/// Begins to receive, once the leaf is there.
#[unsafe(no_mangle)]
pub extern "C" fn get_open(now: f64) {
    page(|page| page.machine = WANTED.take().map(|wanted| PageGet::new(wanted, at(now))));
}

/// Handles a datagram. Input: source, group (16 bytes each), port (2) and data, as from the member.
#[unsafe(no_mangle)]
pub extern "C" fn get_datagram(now: f64, _unix: f64) {
    get(|get, input| {
        if let Some(datagram) = Datagram::decode(input) {
            get.handle_datagram(datagram, at(now));
        }
    });
}

/// Runs the timers that are due; returns the milliseconds until the next call.
#[unsafe(no_mangle)]
pub extern "C" fn get_run(now: f64, _unix: f64) -> f64 {
    get(|get, _| {
        get.handle_timeout(at(now));
        let next = get.next_timeout();
        next.saturating_duration_since(at(now)).as_secs_f64() * 1_000.0
    })
}

/// Returns the length of the next command
/// ([`Command::to_bytes`](lcroute_web_page::Command::to_bytes)), or 0.
#[unsafe(no_mangle)]
pub extern "C" fn get_poll() -> usize {
    page(|page| page.answer_command(PageGet::poll_command))
}

/// Fetches files. Input: a JSON list of their numbers. Returns the length of an error.
#[unsafe(no_mangle)]
pub extern "C" fn get_want(now: f64) -> usize {
    let result = get(|get, input| {
        let numbers = serde_json::from_slice::<Vec<usize>>(input).map_err(|e| e.to_string());
        numbers
            .and_then(|numbers| get.want(&numbers, at(now)))
            .err()
    });
    page(|page| page.outcome(result.map_or(Ok(()), Err)))
}

/// Returns the length of the next piece of a file, or 0: number of the file (4 bytes), offset in it
/// (8), both little-endian, and the bytes.
#[unsafe(no_mangle)]
pub extern "C" fn get_piece() -> usize {
    page(|page| {
        let piece = page.machine.as_mut().and_then(PageGet::poll_piece);
        let bytes = piece.map(|piece| {
            let number = u32::try_from(piece.file).unwrap_or(u32::MAX);
            let mut bytes = number.to_le_bytes().to_vec();
            bytes.extend(piece.offset.to_le_bytes());
            bytes.extend(piece.bytes);
            bytes
        });
        page.answer(bytes.unwrap_or_default())
    })
}

/// Returns the length of the state's JSON.
#[unsafe(no_mangle)]
pub extern "C" fn get_status() -> usize {
    page(|page| {
        let status = page.machine.as_ref().map(PageGet::status);
        page.answer(status.unwrap_or_default().into_bytes())
    })
}
