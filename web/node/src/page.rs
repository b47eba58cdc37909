//! The C functions that a page calls.
//!
//! [`node_input`] returns the address for a function's input bytes; the next call takes them.
//! [`node_output`] returns the address of an answer, and the function its length. Times are
//! milliseconds: `now` of `performance.now()`, `unix` of `Date.now()`.

use std::cell::RefCell;

use bytes::Bytes;
use lcroute_overlay::EndReason;
use librecast::id::LinkId;
use librecast::time::{Instant, UnixTime};

use crate::connections::{Channel, Stats};
use crate::enter;
use crate::tab::Tab;
use crate::visit::{Offer, Start};

#[derive(Debug, Default)]
struct Page {
    input: Vec<u8>,
    output: Vec<u8>,
    tab: Option<Box<dyn Tab>>,
}

thread_local! {
    static PAGE: RefCell<Page> = RefCell::default();
}

impl Page {
    fn text(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.input)).into_owned()
    }

    fn answer(&mut self, bytes: Vec<u8>) -> usize {
        self.output = bytes;
        self.output.len()
    }

    /// Stores an error as the answer; returns its length, 0 if there is none.
    fn outcome(&mut self, result: Result<(), String>) -> usize {
        self.answer(result.err().unwrap_or_default().into_bytes())
    }
}

fn page<T>(f: impl FnOnce(&mut Page) -> T) -> T {
    PAGE.with_borrow_mut(f)
}

/// Calls `f` with the node and the input, if there is a node.
fn tab(f: impl FnOnce(&mut dyn Tab, Vec<u8>)) {
    page(|page| {
        let input = std::mem::take(&mut page.input);
        if let Some(tab) = &mut page.tab {
            f(tab.as_mut(), input);
        }
    });
}

/// Stores the node's answer in text; returns its length.
fn ask(f: impl FnOnce(&mut dyn Tab, &str) -> Result<String, String>) -> Result<usize, usize> {
    page(|page| {
        let input = page.text();
        let Some(tab) = &mut page.tab else {
            return Err(page.answer(b"There is no membership.".to_vec()));
        };
        match f(tab.as_mut(), &input) {
            Ok(text) => Ok(page.answer(text.into_bytes())),
            Err(text) => Err(page.answer(text.into_bytes())),
        }
    })
}

/// The time of a page. On a host, without calls, it stands still.
#[cfg(target_family = "wasm")]
fn at(now: f64) -> Instant {
    Instant::from_millis(now)
}

#[cfg(not(target_family = "wasm"))]
fn at(now: f64) -> Instant {
    thread_local! {
        static BEGIN: Instant = Instant::now();
    }
    BEGIN.with(|begin| *begin + std::time::Duration::from_secs_f64(now / 1_000.0))
}

fn wall_clock(unix: f64) -> UnixTime {
    UnixTime::from_millis(unix as u64)
}

/// Returns memory for the input of the next call.
#[unsafe(no_mangle)]
pub extern "C" fn node_input(bytes: usize) -> *mut u8 {
    page(|page| {
        page.input = vec![0; bytes];
        page.input.as_mut_ptr()
    })
}

/// Returns the address of the last answer.
#[unsafe(no_mangle)]
pub extern "C" fn node_output() -> *const u8 {
    page(|page| page.output.as_ptr())
}

/// Enters a network by the JSON of a [`Start`]. Returns the length of an error, or 0.
#[unsafe(no_mangle)]
pub extern "C" fn node_open(now: f64, unix: f64) -> usize {
    page(|page| {
        let start = serde_json::from_str::<Start>(&page.text()).map_err(|e| e.to_string());
        let opened = start.and_then(|start| enter::open(&start, at(now), wall_clock(unix)));
        let opened = opened.map(|tab| page.tab = Some(tab));
        page.outcome(opened)
    })
}

/// Reads the input's invitation without using it: the answer is 1 and the JSON of an
/// [`Offer`](crate::visit::Offer), or 0 and the reason against it. Returns its length.
#[unsafe(no_mangle)]
pub extern "C" fn node_read(unix: f64) -> usize {
    page(|page| {
        let (is_good, text) = match Offer::read(&page.text(), wall_clock(unix)) {
            Ok(offer) => (1, serde_json::to_string(&offer).unwrap_or_default()),
            Err(why) => (0, why),
        };
        page.answer([&[is_good], text.as_bytes()].concat())
    })
}

/// Returns the length of the URLs of signalling servers, one a line, by their numbers.
#[unsafe(no_mangle)]
pub extern "C" fn node_servers() -> usize {
    ask(|tab, _| Ok(tab.servers_mut().0.urls().join("\n"))).unwrap_or(0)
}

/// Returns the length of the JSON to store for a reload.
#[unsafe(no_mangle)]
pub extern "C" fn node_keep() -> usize {
    ask(|tab, _| Ok(tab.to_keep())).unwrap_or(0)
}

/// Leaves the network.
#[unsafe(no_mangle)]
pub extern "C" fn node_leave_network(now: f64) {
    tab(|tab, _| tab.leave_network(at(now)));
}

/// Runs the timers that are due; returns the milliseconds until the next call.
#[unsafe(no_mangle)]
pub extern "C" fn node_run(now: f64, unix: f64) -> f64 {
    let mut pause = f64::INFINITY;
    tab(|tab, _| {
        tab.handle_timeout(at(now), wall_clock(unix));
        let next = tab.next_timeout();
        pause = next.saturating_duration_since(at(now)).as_secs_f64() * 1_000.0;
    });
    pause
}

/// Returns the length of the next command: kind (1 byte), link or server (4, little-endian), bytes.
#[unsafe(no_mangle)]
pub extern "C" fn node_poll() -> usize {
    page(|page| {
        let command = page.tab.as_mut().and_then(|tab| tab.poll_command());
        let bytes = command.map_or_else(Vec::new, |command| {
            let (kind, number, rest) = command.into_parts();
            let mut bytes = Vec::with_capacity(5 + rest.len());
            bytes.push(kind);
            bytes.extend(number.to_le_bytes());
            bytes.extend(rest);
            bytes
        });
        page.answer(bytes)
    })
}

/// Handles an opened or closed WebSocket.
#[unsafe(no_mangle)]
pub extern "C" fn node_server(now: f64, number: u32, is_open: bool) {
    tab(|tab, _| tab.handle_server(number, is_open, at(now)));
}

/// Handles a message of a server.
#[unsafe(no_mangle)]
pub extern "C" fn node_server_message(now: f64, number: u32) {
    tab(|tab, message| tab.handle_server_message(number, &message, at(now)));
}

/// Handles a text of a server.
#[unsafe(no_mangle)]
pub extern "C" fn node_server_text(now: f64, number: u32) {
    tab(|tab, word| {
        let word = String::from_utf8_lossy(&word);
        tab.handle_server_text(number, &word, at(now));
    });
}

/// Handles a connection's local description: an SDP.
#[unsafe(no_mangle)]
pub extern "C" fn node_described(now: f64, link: u32) {
    tab(|tab, sdp| {
        let sdp = String::from_utf8_lossy(&sdp);
        tab.handle_connection(at(now), |c| c.handle_description(LinkId(link), &sdp));
    });
}

/// Handles the opening of all channels of a connection.
#[unsafe(no_mangle)]
pub extern "C" fn node_opened(now: f64, link: u32) {
    let now = at(now);
    tab(|tab, _| tab.handle_connection(now, |c| c.handle_open(LinkId(link), now)));
}

/// Handles a message from the data channel, or from the control channel.
#[unsafe(no_mangle)]
pub extern "C" fn node_message(now: f64, link: u32, is_data: bool) {
    tab(|tab, message| {
        let channel = channel(is_data);
        tab.handle_message(LinkId(link), channel, Bytes::from(message), at(now));
    });
}

/// Handles a packet of a track: its RTP timestamp, and its payload as the input, which came at `at`.
#[unsafe(no_mangle)]
pub extern "C" fn node_track(now: f64, link: u32, timestamp: u32, at: f64) {
    let arrival = self::at(at.min(now));
    tab(|tab, payload| {
        let packet = (timestamp, Bytes::from(payload));
        tab.handle_connection(self::at(now), |c| {
            c.handle_track(LinkId(link), packet, arrival, self::at(now));
        });
    });
}

/// Stores the number of bytes in a channel's queue.
#[unsafe(no_mangle)]
pub extern "C" fn node_waiting(now: f64, link: u32, is_data: bool, bytes: usize) {
    tab(|tab, _| {
        let channel = channel(is_data);
        tab.handle_connection(at(now), |c| {
            c.handle_waiting(LinkId(link), channel, bytes);
        });
    });
}

/// Handles the state of a connection: the JSON of [`Stats`].
#[unsafe(no_mangle)]
pub extern "C" fn node_stats(now: f64, link: u32) {
    tab(|tab, text| {
        // unreadable statistics prove nothing about the peer
        if let Ok(stats) = serde_json::from_slice::<Stats>(&text) {
            tab.handle_stats(LinkId(link), stats, at(now));
        }
    });
}

/// Handles the end of a connection. 0: by the peer, 1: no path, 2: it cannot begin, 3: the answer
/// was not accepted, 4: an unknown channel, 5: a queue is stuck.
#[unsafe(no_mangle)]
pub extern "C" fn node_ended(now: f64, link: u32, reason: u32) {
    let reason = match reason {
        0 => EndReason::ClosedByPeer,
        1 => EndReason::NoDirectPath,
        2 => EndReason::CannotBegin,
        3 => EndReason::AnswerNotAccepted,
        4 => EndReason::UnknownChannel,
        _ => EndReason::ControlStuck,
    };
    tab(|tab, _| {
        tab.handle_connection(at(now), |c| c.handle_end(LinkId(link), reason));
    });
}

/// Handles an address of this end after its description: the input is an attribute of SDP.
#[unsafe(no_mangle)]
pub extern "C" fn node_candidate(now: f64, link: u32) {
    tab(|tab, text| {
        let text = String::from_utf8_lossy(&text);
        tab.handle_connection(at(now), |c| c.handle_candidate(LinkId(link), &text));
    });
}

/// Restarts the setup of a connection, because the page knows a relay now.
#[unsafe(no_mangle)]
pub extern "C" fn node_outdated(now: f64, link: u32) {
    tab(|tab, _| tab.handle_connection(at(now), |c| c.handle_outdated(LinkId(link))));
}

/// Handles a control channel of another version.
#[unsafe(no_mangle)]
pub extern "C" fn node_other_control(now: f64, link: u32, version: u8) {
    tab(|tab, _| {
        tab.handle_connection(at(now), |c| {
            c.handle_other_control(LinkId(link), version);
        });
    });
}

/// Joins the group in the input. Returns the length of an error.
#[unsafe(no_mangle)]
pub extern "C" fn node_join(now: f64) -> usize {
    done(ask(|tab, group| {
        tab.join(group, at(now)).map(|()| String::new())
    }))
}

/// Leaves the group in the input. Returns the length of an error.
#[unsafe(no_mangle)]
pub extern "C" fn node_leave(now: f64) -> usize {
    done(ask(|tab, group| {
        tab.leave(group, at(now)).map(|()| String::new())
    }))
}

/// Sends to a port of a group. Input: group, end of line, data. Returns the length of an error.
#[unsafe(no_mangle)]
pub extern "C" fn node_send(now: f64, port: u16) -> usize {
    page(|page| {
        let input = std::mem::take(&mut page.input);
        let end = input.iter().position(|byte| *byte == b'\n');
        let sent = match (&mut page.tab, end) {
            (Some(tab), Some(end)) => {
                let group = String::from_utf8_lossy(&input[..end]);
                tab.send((&group, port), &input[end + 1..], at(now))
            }
            _ => Err("There is no membership.".into()),
        };
        page.outcome(sent)
    })
}

/// Passes a query of MLD: the input is its packet.
#[unsafe(no_mangle)]
pub extern "C" fn node_query(now: f64) {
    tab(|tab, packet| tab.query(&packet, at(now)));
}

/// Begins or stops to request reports of other nodes.
#[unsafe(no_mangle)]
pub extern "C" fn node_look(now: f64, looks: bool) {
    tab(|tab, _| tab.set_looks(looks, at(now)));
}

/// Returns the length of the state's JSON.
#[unsafe(no_mangle)]
pub extern "C" fn node_status(now: f64) -> usize {
    ask(|tab, _| Ok(tab.status(at(now)))).unwrap_or(0)
}

fn channel(is_data: bool) -> Channel {
    if is_data {
        Channel::Data
    } else {
        Channel::Control
    }
}

fn done(result: Result<usize, usize>) -> usize {
    result.err().unwrap_or(0)
}
