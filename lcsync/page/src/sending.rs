//! The C functions that a page calls which sends, as in `page`.

use std::cell::RefCell;

use lcroute_web_page::{Datagram, Exchange, at};
use librecast::time::UnixTime;

use crate::send::{PageSend, Start};
use crate::words::{self, Keys};

thread_local! {
    static PAGE: RefCell<Exchange<PageSend>> = RefCell::default();
    static KEYS: RefCell<Option<Keys>> = const { RefCell::new(None) };
}

fn page<T>(f: impl FnOnce(&mut Exchange<PageSend>) -> T) -> T {
    PAGE.with_borrow_mut(f)
}

/// Calls `f` with the sender and the input, if there is a sender.
fn send<T: Default>(f: impl FnOnce(&mut PageSend, &[u8]) -> T) -> T {
    page(|page| page.with(f))
}

fn unix_time(unix: f64) -> UnixTime {
    UnixTime::from_millis(unix as u64)
}

/// Returns memory for the input of the next call.
#[unsafe(no_mangle)]
pub extern "C" fn send_input(bytes: usize) -> *mut u8 {
    page(|page| page.room(bytes))
}

/// Returns the address of the last answer.
#[unsafe(no_mangle)]
pub extern "C" fn send_output() -> *const u8 {
    page(|page| page.output())
}

/// Reads the JSON of a [`words::Start`]: the answer is 1 and the JSON of [`words::Words`], or 0 and
/// the reason against it. Returns its length.
#[unsafe(no_mangle)]
pub extern "C" fn send_words(unix: f64) -> usize {
    page(|page| {
        let start = serde_json::from_slice::<words::Start>(&page.take_input());
        let start = start.map_err(|e| e.to_string());
        let made = start.and_then(|start| words::make(&start, unix_time(unix)));
        let (kind, text) = match made {
            Ok((words, keys)) => {
                KEYS.set(Some(keys));
                (1, serde_json::to_string(&words).unwrap_or_default())
            }
            Err(why) => (0, why),
        };
        page.answer([&[kind], text.as_bytes()].concat())
    })
}

/// Begins to read files, by the JSON of a [`Start`]. Returns the length of an error.
#[unsafe(no_mangle)]
pub extern "C" fn send_open(now: f64, unix: f64) -> usize {
    page(|page| {
        let start = serde_json::from_slice::<Start>(&page.take_input());
        let begun = start.map_err(|e| e.to_string()).and_then(|start| {
            let keys = KEYS.take().ok_or("There are no words.")?;
            PageSend::new(start, keys, at(now), unix_time(unix))
        });
        let begun = begun.map(|sender| page.machine = Some(sender));
        page.outcome(begun)
    })
}

/// Handles a datagram. Input: source, group (16 bytes each), port (2) and data, as from the member.
#[unsafe(no_mangle)]
pub extern "C" fn send_datagram(now: f64, _unix: f64) {
    send(|send, input| {
        if let Some(datagram) = Datagram::decode(input) {
            send.handle_datagram(datagram, at(now));
        }
    });
}

/// Handles a packet of MLD from the member.
#[unsafe(no_mangle)]
pub extern "C" fn send_mld(now: f64) {
    send(|send, packet| send.handle_mld(packet, at(now)));
}

/// Runs the timers that are due; `room`: bytes for which links have room. Returns the milliseconds
/// until the next call.
#[unsafe(no_mangle)]
pub extern "C" fn send_run(now: f64, unix: f64, room: usize) -> f64 {
    send(|send, _| {
        send.handle_timeout(room, at(now), unix_time(unix));
        let next = send.next_timeout();
        next.saturating_duration_since(at(now)).as_secs_f64() * 1_000.0
    })
}

/// Returns the length of the next command
/// ([`Command::to_bytes`](lcroute_web_page::Command::to_bytes)), or 0.
#[unsafe(no_mangle)]
pub extern "C" fn send_poll() -> usize {
    page(|page| page.answer_command(PageSend::poll_command))
}

/// Returns the length of the next packet with a query of MLD, or 0.
#[unsafe(no_mangle)]
pub extern "C" fn send_query() -> usize {
    page(|page| {
        let query = page.machine.as_mut().and_then(PageSend::poll_query);
        page.answer(query.unwrap_or_default())
    })
}

/// Returns the length of the next read's JSON ([`Read`](crate::send::Read)), or 0.
#[unsafe(no_mangle)]
pub extern "C" fn send_read() -> usize {
    page(|page| {
        let read = page.machine.as_mut().and_then(PageSend::poll_read);
        let json = read.and_then(|read| serde_json::to_vec(&read).ok());
        page.answer(json.unwrap_or_default())
    })
}

/// Handles the bytes of a read: they are the input.
#[unsafe(no_mangle)]
pub extern "C" fn send_bytes(now: f64, id: u32) {
    send(|send, bytes| send.handle_bytes(id, bytes, at(now)));
}

/// Handles a read that has failed, as this file cannot be read any more.
#[unsafe(no_mangle)]
pub extern "C" fn send_lost(now: f64, id: u32, file: usize) {
    send(|send, _| send.handle_lost(id, file, at(now)));
}

/// Returns the length of the state's JSON.
#[unsafe(no_mangle)]
pub extern "C" fn send_status() -> usize {
    page(|page| {
        let status = page.machine.as_ref().map(PageSend::status);
        page.answer(status.unwrap_or_default().into_bytes())
    })
}
