//! The library for programs in C, and in languages that call C. `include/librecast.h` documents the
//! functions.
//!
//! A handle is a number, so a program that uses a closed one gets an error. No panic leaves a
//! function.
//!
//! | module | content |
//! |---|---|
//! | `error` | codes and messages |
//! | `handle` | numbers of open channels, listeners and streams |
//! | `memory` | strings and buffers of C |

mod error;
mod handle;
mod memory;

use std::ffi::{CStr, c_char, c_void};
use std::os::fd::IntoRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use librecast::group::{Channel, Options};
use librecast::stream::{self, Allowed, Listener, ProtocolName};

use crate::error::{Code, Failure};
use crate::handle::{Open, OpenListener, OpenStream, closed, insert};
use crate::memory::{buffer, bytes, put, text};

/// `LIBRECAST_RECEIVE`: the channel joins its group.
const RECEIVE: u32 = 1;
/// `LIBRECAST_WATCH`: the channel watches joins of others.
const WATCH: u32 = 2;
/// `LIBRECAST_OUTSIDE`: allowed keys may call from outside of this host's networks.
const OUTSIDE: u32 = 4;
/// Bytes for an address of IPv6 with its zero (`INET6_ADDRSTRLEN`).
const ADDRESS: usize = 46;
/// Version of the library, with the zero of C.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");

/// Runs a call: its value, or the code of its failure, also of a panic.
fn guarded(call: impl FnOnce() -> Result<i64, Failure>) -> i64 {
    let ended = catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| {
        let message = "a fault of the library: please report what it has printed";
        Err(Failure::new(Code::Fault, message))
    });
    ended.unwrap_or_else(Failure::tell)
}

/// Returns the time of a timeout in milliseconds; none: for ever.
fn time(timeout: i32) -> Option<Duration> {
    u64::try_from(timeout).ok().map(Duration::from_millis)
}

/// Refuses flags that a function does not have.
fn only(flags: u32, known: u32) -> Result<(), Failure> {
    match flags & !known {
        0 => Ok(()),
        unknown => Err(Failure::new(
            Code::BadArgument,
            format!("unknown flags {unknown:#x}"),
        )),
    }
}

fn length(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Calls `work` with the channel of this handle.
fn with_channel(
    handle: i64,
    work: impl FnOnce(&Channel) -> Result<i64, Failure>,
) -> Result<i64, Failure> {
    match &*handle::get(handle)? {
        Open::Channel(channel) => work(channel),
        _ => Err(closed(handle, "is no channel")),
    }
}

/// Calls `work` with the stream of this handle.
fn with_stream(
    handle: i64,
    work: impl FnOnce(&OpenStream) -> Result<i64, Failure>,
) -> Result<i64, Failure> {
    match &*handle::get(handle)? {
        Open::Stream(stream) => work(stream),
        _ => Err(closed(handle, "is no stream")),
    }
}

/// Returns the last message of this thread.
#[unsafe(no_mangle)]
pub extern "C" fn librecast_message() -> *const c_char {
    error::last_message()
}

/// Returns the version of the library.
#[unsafe(no_mangle)]
pub extern "C" fn librecast_version() -> *const c_char {
    let version = CStr::from_bytes_until_nul(VERSION.as_bytes());
    version.unwrap_or_default().as_ptr()
}

/// Opens a channel.
///
/// # Safety
/// The strings end with a zero byte, or are null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librecast_channel_open(
    name: *const c_char,
    interface: *const c_char,
    port: u16,
    flags: u32,
) -> i64 {
    guarded(|| {
        // SAFETY: the caller promises the zero byte.
        let name = unsafe { text(name, "name") }?;
        only(flags, RECEIVE | WATCH)?;
        let mut options = Options {
            receives: flags & RECEIVE != 0,
            watches: flags & WATCH != 0,
            ..Options::default()
        };
        if !interface.is_null() {
            // SAFETY: the caller promises the zero byte.
            options.interface = unsafe { text(interface, "interface") }?;
        }
        if port != 0 {
            options.port = port;
        }
        let channel = Channel::open(&name, &options)?;
        Ok(insert(Open::Channel(channel.into())))
    })
}

/// Writes the address of a channel's group.
///
/// # Safety
/// `text` has `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librecast_channel_group(
    channel: i64,
    text: *mut c_char,
    length: usize,
) -> i64 {
    guarded(|| {
        with_channel(channel, |channel| {
            // SAFETY: the caller promises the length.
            unsafe { put(&channel.group().to_string(), text, length) }
        })
    })
}

/// Sends a datagram.
///
/// # Safety
/// `data` has `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librecast_send(channel: i64, data: *const c_void, length: usize) -> i64 {
    guarded(|| {
        with_channel(channel, |channel| {
            // SAFETY: the caller promises the length.
            channel.send(unsafe { bytes(data, length) }?)?;
            Ok(0)
        })
    })
}

/// Waits for a datagram.
///
/// # Safety
/// `data` has `length` bytes, and `source` is null or has 46.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librecast_receive(
    channel: i64,
    data: *mut c_void,
    length: usize,
    timeout: i32,
    source: *mut c_char,
) -> i64 {
    guarded(|| {
        with_channel(channel, |channel| {
            // SAFETY: the caller promises the length.
            let buffer = unsafe { buffer(data, length) }?;
            let (count, from) = channel.receive(buffer, time(timeout))?;
            if !source.is_null() {
                // SAFETY: the caller promises 46 bytes.
                unsafe { put(&from.ip().to_string(), source, ADDRESS) }?;
            }
            Ok(self::length(count))
        })
    })
}

/// Waits until another program listens.
#[unsafe(no_mangle)]
pub extern "C" fn librecast_listened(channel: i64, timeout: i32) -> i64 {
    guarded(|| {
        with_channel(channel, |channel| {
            Ok(channel.wait_for_listener(time(timeout))?.into())
        })
    })
}

/// Opens a stream.
///
/// # Safety
/// The strings end with a zero byte, or are null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librecast_connect(node: *const c_char, protocol: *const c_char) -> i64 {
    guarded(|| {
        // SAFETY: the caller promises the zero byte.
        let node = unsafe { text(node, "node") }?;
        // SAFETY: the caller promises the zero byte.
        let protocol = parsed(&unsafe { text(protocol, "protocol") }?)?;
        let stream = stream::connect(&node, &[protocol])?;
        Ok(insert(Open::Stream(OpenStream::new(stream)?)))
    })
}

/// Serves a protocol.
///
/// # Safety
/// The strings end with a zero byte, or are null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librecast_listen(
    protocol: *const c_char,
    allow: *const c_char,
    flags: u32,
) -> i64 {
    guarded(|| {
        // SAFETY: the caller promises the zero byte.
        let protocol = parsed(&unsafe { text(protocol, "protocol") }?)?;
        // SAFETY: the caller promises the zero byte.
        let allow = unsafe { text(allow, "allow") }?;
        only(flags, OUTSIDE)?;
        let allowed = Allowed {
            nodes: match allow.as_str() {
                "*" => Vec::new(),
                nodes => nodes.split(',').map(str::to_owned).collect(),
            },
            all: allow == "*",
            outside: flags & OUTSIDE != 0,
            anyone: false,
        };
        let listener = OpenListener::new(Listener::bind(&[protocol], &allowed)?)?;
        Ok(insert(Open::Listener(listener)))
    })
}

fn parsed(protocol: &str) -> Result<ProtocolName, Failure> {
    let parsed = protocol.parse();
    parsed.map_err(|e| Failure::new(Code::BadArgument, e))
}

/// Waits for a stream.
#[unsafe(no_mangle)]
pub extern "C" fn librecast_accept(listener: i64, timeout: i32) -> i64 {
    guarded(|| match &*handle::get(listener)? {
        Open::Listener(open) => Ok(insert(Open::Stream(open.accept(time(timeout))?))),
        _ => Err(closed(listener, "serves nothing")),
    })
}

/// Writes the name of the node at the other end of a stream.
///
/// # Safety
/// `text` has `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librecast_peer(stream: i64, text: *mut c_char, length: usize) -> i64 {
    guarded(|| {
        with_stream(stream, |stream| {
            // SAFETY: the caller promises the length.
            unsafe { put(stream.peer(), text, length) }
        })
    })
}

/// Waits for bytes of a stream.
///
/// # Safety
/// `data` has `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librecast_read(
    stream: i64,
    data: *mut c_void,
    length: usize,
    timeout: i32,
) -> i64 {
    guarded(|| {
        with_stream(stream, |stream| {
            // SAFETY: the caller promises the length.
            let buffer = unsafe { buffer(data, length) }?;
            Ok(self::length(stream.read(buffer, time(timeout))?))
        })
    })
}

/// Writes bytes to a stream.
///
/// # Safety
/// `data` has `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librecast_write(stream: i64, data: *const c_void, length: usize) -> i64 {
    guarded(|| {
        with_stream(stream, |stream| {
            // SAFETY: the caller promises the length.
            stream.write_all(unsafe { bytes(data, length) }?)?;
            Ok(self::length(length))
        })
    })
}

/// Ends writing to a stream.
#[unsafe(no_mangle)]
pub extern "C" fn librecast_finish(stream: i64) -> i64 {
    guarded(|| {
        with_stream(stream, |stream| {
            stream.finish()?;
            Ok(0)
        })
    })
}

/// Returns a new descriptor, which the caller closes.
#[unsafe(no_mangle)]
pub extern "C" fn librecast_descriptor(handle: i64) -> i64 {
    guarded(|| {
        let open = handle::get(handle)?;
        let readable = open.readable().ok_or_else(|| {
            let message = "the channel was opened without LIBRECAST_RECEIVE";
            Failure::new(Code::BadArgument, message)
        })?;
        Ok(readable.try_clone_to_owned()?.into_raw_fd().into())
    })
}

/// Closes a handle.
#[unsafe(no_mangle)]
pub extern "C" fn librecast_close(handle: i64) -> i64 {
    guarded(|| handle::remove(handle).map(|()| 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_of_the_call() {
        assert_eq!(guarded(|| panic!("on purpose")), -11);
        assert_eq!(guarded(|| Ok(7)), 7);
    }

    #[test]
    fn a_timeout_below_zero_never_ends() {
        assert_eq!(time(-1), None);
        assert_eq!(time(i32::MIN), None);
        assert_eq!(time(0), Some(Duration::ZERO));
    }
}
