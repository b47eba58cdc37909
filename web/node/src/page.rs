//! The C functions that a page calls.
//!
//! Bytes for a function are written to where [`node_input`] says, and are taken by the next call. What a function answers lies
//! at [`node_output`]; it gives the length. Times are milliseconds: `now` of `performance.now()`, `unix` of `Date.now()`.

use std::cell::RefCell;

use bytes::Bytes;
use lcroute_overlay::EndReason;
use librecast::id::LinkId;
use librecast::time::Instant;

use crate::connections::{Channel, Stats};
use crate::member::PageMember;
use crate::visit::{Offer, Start};

#[derive(Debug, Default)]
struct Page {
    input: Vec<u8>,
    output: Vec<u8>,
    member: Option<PageMember>,
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

    /// The length of an error; 0 if there is none.
    fn outcome(&mut self, result: Result<(), String>) -> usize {
        self.answer(result.err().unwrap_or_default().into_bytes())
    }
}

fn page<T>(f: impl FnOnce(&mut Page) -> T) -> T {
    PAGE.with_borrow_mut(f)
}

/// Does something to the member, if there is one.
fn member(f: impl FnOnce(&mut PageMember, Vec<u8>)) {
    page(|page| {
        let input = std::mem::take(&mut page.input);
        if let Some(member) = &mut page.member {
            f(member, input);
        }
    });
}

/// What the member answers in text: its length.
fn ask(f: impl FnOnce(&mut PageMember, &str) -> Result<String, String>) -> Result<usize, usize> {
    page(|page| {
        let input = page.text();
        let Some(member) = &mut page.member else {
            return Err(page.answer(b"There is no membership.".to_vec()));
        };
        match f(member, &input) {
            Ok(text) => Ok(page.answer(text.into_bytes())),
            Err(text) => Err(page.answer(text.into_bytes())),
        }
    })
}

/// The time of a page. On a host, where this is never called, it stands still.
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

fn seconds(unix: f64) -> u64 {
    (unix / 1_000.0) as u64
}

/// Room for the bytes of the next call.
#[unsafe(no_mangle)]
pub extern "C" fn node_input(bytes: usize) -> *mut u8 {
    page(|page| {
        page.input = vec![0; bytes];
        page.input.as_mut_ptr()
    })
}

/// Where the last answer lies.
#[unsafe(no_mangle)]
pub extern "C" fn node_output() -> *const u8 {
    page(|page| page.output.as_ptr())
}

/// Becomes a member, by the JSON of a [`Start`]. The length of an error; 0: it is one.
#[unsafe(no_mangle)]
pub extern "C" fn node_open(now: f64, unix: f64) -> usize {
    page(|page| {
        let start = serde_json::from_str::<Start>(&page.text()).map_err(|e| e.to_string());
        let opened = start.and_then(|start| PageMember::new(&start, at(now), seconds(unix)));
        let opened = opened.map(|member| page.member = Some(member));
        page.outcome(opened)
    })
}

/// What the invitation in the input says, before anybody uses it: 1 and the JSON of an
/// [`Offer`](crate::visit::Offer) behind it, or 0 and why it cannot be used. Their length.
#[unsafe(no_mangle)]
pub extern "C" fn node_read(unix: f64) -> usize {
    page(|page| {
        let (is_good, text) = match Offer::read(&page.text(), seconds(unix)) {
            Ok(offer) => (1, serde_json::to_string(&offer).unwrap_or_default()),
            Err(why) => (0, why),
        };
        page.answer([&[is_good], text.as_bytes()].concat())
    })
}

/// The URLs of signalling servers, one a line, by their numbers: their length.
#[unsafe(no_mangle)]
pub extern "C" fn node_servers() -> usize {
    ask(|member, _| Ok(member.servers().join("\n"))).unwrap_or(0)
}

/// What to keep for a reload: the length of its JSON.
#[unsafe(no_mangle)]
pub extern "C" fn node_keep() -> usize {
    ask(|member, _| Ok(member.to_keep())).unwrap_or(0)
}

/// Leaves the network.
#[unsafe(no_mangle)]
pub extern "C" fn node_leave_network(now: f64) {
    member(|member, _| member.leave_network(at(now)));
}

/// Does what is due. In how many milliseconds it is to be called again.
#[unsafe(no_mangle)]
pub extern "C" fn node_run(now: f64, unix: f64) -> f64 {
    let mut pause = f64::INFINITY;
    member(|member, _| {
        member.handle_timeout(at(now), seconds(unix));
        let next = member.poll_timeout();
        pause = next.saturating_duration_since(at(now)).as_secs_f64() * 1_000.0;
    });
    pause
}

/// The next thing to do: one byte for its kind, four for link or server (little-endian), and bytes. 0: nothing.
#[unsafe(no_mangle)]
pub extern "C" fn node_poll() -> usize {
    page(|page| {
        let command = page.member.as_mut().and_then(PageMember::poll_command);
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

/// A WebSocket is open, or closed.
#[unsafe(no_mangle)]
pub extern "C" fn node_server(now: f64, number: u32, is_open: bool) {
    member(|member, _| member.handle_server(number, is_open, at(now)));
}

/// A message of a server.
#[unsafe(no_mangle)]
pub extern "C" fn node_server_message(now: f64, number: u32) {
    member(|member, message| member.handle_server_message(number, &message, at(now)));
}

/// A word of a server.
#[unsafe(no_mangle)]
pub extern "C" fn node_server_text(now: f64, number: u32) {
    member(|member, word| {
        let word = String::from_utf8_lossy(&word);
        member.handle_server_text(number, &word, at(now));
    });
}

/// A connection's local description: an SDP.
#[unsafe(no_mangle)]
pub extern "C" fn node_described(now: f64, link: u32) {
    member(|member, sdp| {
        let sdp = String::from_utf8_lossy(&sdp);
        member.handle_connection(at(now), |c| c.handle_description(LinkId(link), &sdp));
    });
}

/// All channels of a connection are open.
#[unsafe(no_mangle)]
pub extern "C" fn node_opened(now: f64, link: u32) {
    let now = at(now);
    member(|member, _| member.handle_connection(now, |c| c.handle_open(LinkId(link), now)));
}

/// A message has come: over the data channel, else over the control channel.
#[unsafe(no_mangle)]
pub extern "C" fn node_message(now: f64, link: u32, is_data: bool) {
    member(|member, message| {
        let channel = channel(is_data);
        member.handle_message(LinkId(link), channel, Bytes::from(message), at(now));
    });
}

/// So many bytes wait in a channel.
#[unsafe(no_mangle)]
pub extern "C" fn node_waiting(now: f64, link: u32, is_data: bool, bytes: usize) {
    member(|member, _| {
        let channel = channel(is_data);
        member.handle_connection(at(now), |c| {
            c.handle_waiting(LinkId(link), channel, bytes);
        });
    });
}

/// How a connection does: the JSON of [`Stats`].
#[unsafe(no_mangle)]
pub extern "C" fn node_stats(now: f64, link: u32) {
    member(|member, text| {
        // a browser that says what this cannot read says nothing of its peer
        if let Ok(stats) = serde_json::from_slice::<Stats>(&text) {
            member.handle_stats(LinkId(link), stats, at(now));
        }
    });
}

/// A connection has ended. 0: by the peer, 1: no path, 2: it cannot begin, 3: the answer was not accepted, 4: an unknown
/// channel, 5: a queue is stuck.
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
    member(|member, _| {
        member.handle_connection(at(now), |c| c.handle_end(LinkId(link), reason));
    });
}

/// An address of this end of a connection came after its description: the input is an attribute of SDP.
#[unsafe(no_mangle)]
pub extern "C" fn node_candidate(now: f64, link: u32) {
    member(|member, text| {
        let text = String::from_utf8_lossy(&text);
        member.handle_connection(at(now), |c| c.handle_candidate(LinkId(link), &text));
    });
}

/// A connection that is being made had better begin anew: the page knows a relay now.
#[unsafe(no_mangle)]
pub extern "C" fn node_outdated(now: f64, link: u32) {
    member(|member, _| member.handle_connection(at(now), |c| c.handle_outdated(LinkId(link))));
}

/// The peer's control channel is of another version.
#[unsafe(no_mangle)]
pub extern "C" fn node_other_control(now: f64, link: u32, version: u8) {
    member(|member, _| {
        member.handle_connection(at(now), |c| {
            c.handle_other_control(LinkId(link), version);
        });
    });
}

/// Joins the group in the input. The length of an error.
#[unsafe(no_mangle)]
pub extern "C" fn node_join(now: f64) -> usize {
    done(ask(|member, group| {
        member.join(group, at(now)).map(|()| String::new())
    }))
}

/// Leaves the group in the input. The length of an error.
#[unsafe(no_mangle)]
pub extern "C" fn node_leave(now: f64) -> usize {
    done(ask(|member, group| {
        member.leave(group, at(now)).map(|()| String::new())
    }))
}

/// Sends to a port of a group: the input is the group, a line's end, and the data. The length of an error.
#[unsafe(no_mangle)]
pub extern "C" fn node_send(now: f64, port: u16) -> usize {
    page(|page| {
        let input = std::mem::take(&mut page.input);
        let end = input.iter().position(|byte| *byte == b'\n');
        let sent = match (&mut page.member, end) {
            (Some(member), Some(end)) => {
                let group = String::from_utf8_lossy(&input[..end]);
                member.send((&group, port), &input[end + 1..], at(now))
            }
            _ => Err("There is no membership.".into()),
        };
        page.outcome(sent)
    })
}

/// Asks others what they carry, or no longer.
#[unsafe(no_mangle)]
pub extern "C" fn node_look(now: f64, looks: bool) {
    member(|member, _| member.set_looks(looks, at(now)));
}

/// How things stand: the length of its JSON.
#[unsafe(no_mangle)]
pub extern "C" fn node_status(now: f64) -> usize {
    ask(|member, _| Ok(member.status(at(now)))).unwrap_or(0)
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
