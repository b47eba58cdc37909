//! Strings and buffers of C, with bounds.

use std::ffi::{c_char, c_void};
use std::slice;

use crate::error::{Code, Failure};

/// Longest string that is read, in bytes. Chosen: far above the longest name, key or list.
const MAX_TEXT: usize = 4_096;

fn null(what: &str) -> Failure {
    Failure::new(Code::BadArgument, format!("{what} is a null pointer"))
}

/// Returns a string; `what` names it in messages. Reads no byte after the first zero byte.
///
/// # Safety
/// It ends with a zero byte, or is null.
pub unsafe fn text(start: *const c_char, what: &str) -> Result<String, Failure> {
    if start.is_null() {
        return Err(null(what));
    }
    let mut bytes = Vec::new();
    loop {
        // SAFETY: no byte before this one was the zero that ends the string.
        match unsafe { *start.add(bytes.len()) } {
            0 => break,
            _ if bytes.len() == MAX_TEXT => {
                let message = format!("{what} is longer than {MAX_TEXT} bytes");
                return Err(Failure::new(Code::BadArgument, message));
            }
            byte => bytes.push(byte as u8),
        }
    }
    let bad = |_| Failure::new(Code::BadArgument, format!("{what} is not UTF-8"));
    String::from_utf8(bytes).map_err(bad)
}

/// Writes a string with its zero byte; returns 0.
///
/// # Safety
/// `start` is null or has `length` bytes.
pub unsafe fn put(text: &str, start: *mut c_char, length: usize) -> Result<i64, Failure> {
    // SAFETY: the caller promises the length.
    let to = unsafe { buffer(start.cast(), length) }?;
    let needed = text.len() + 1;
    let Some((end, room)) = to.get_mut(..needed).and_then(<[u8]>::split_last_mut) else {
        let message = format!("{needed} bytes are needed, and there are {length}");
        return Err(Failure::new(Code::TooLong, message));
    };
    room.copy_from_slice(text.as_bytes());
    *end = 0;
    Ok(0)
}

/// Returns bytes that are read.
///
/// # Safety
/// `start` is null or has `length` bytes, which nobody changes before the call ends.
pub unsafe fn bytes<'a>(start: *const c_void, length: usize) -> Result<&'a [u8], Failure> {
    if start.is_null() && length > 0 {
        return Err(null("data"));
    }
    check(length)?;
    match length {
        0 => Ok(&[]),
        // SAFETY: the caller promises the length, which fits into an isize.
        _ => Ok(unsafe { slice::from_raw_parts(start.cast(), length) }),
    }
}

/// Returns bytes that are written.
///
/// # Safety
/// `start` is null or has `length` bytes, which nobody else uses before the call ends.
pub unsafe fn buffer<'a>(start: *mut c_void, length: usize) -> Result<&'a mut [u8], Failure> {
    if start.is_null() && length > 0 {
        return Err(null("the buffer"));
    }
    check(length)?;
    match length {
        0 => Ok(&mut []),
        // SAFETY: the caller promises the length, which fits into an isize.
        _ => Ok(unsafe { slice::from_raw_parts_mut(start.cast(), length) }),
    }
}

/// Refuses a length that no memory has, such as -1 of a failed call.
fn check(length: usize) -> Result<(), Failure> {
    match isize::try_from(length) {
        Ok(_) => Ok(()),
        Err(_) => Err(Failure::new(
            Code::BadArgument,
            format!("{length} bytes are more than any memory has"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use super::*;

    #[test]
    fn strings_are_bounded_and_utf_8() {
        // SAFETY: each literal ends with a zero byte, and null is permitted.
        let read = |start: *const u8| unsafe { text(start.cast(), "name") };
        assert_eq!(read(c"abc".as_ptr().cast()).unwrap(), "abc");
        read(ptr::null()).unwrap_err();
        read(c"\xff".as_ptr().cast()).unwrap_err();
        let longest = "x".repeat(MAX_TEXT);
        let end = |text: &str| format!("{text}\0").into_bytes();
        assert_eq!(read(end(&longest).as_ptr()).unwrap(), longest);
        read(end(&(longest + "x")).as_ptr()).unwrap_err();
    }

    #[test]
    fn a_short_buffer_stays_as_it_was() {
        let mut room = [b'?'; 4];
        let start: *mut c_char = room.as_mut_ptr().cast();
        // SAFETY: `room` has 4 bytes.
        unsafe { put("four", start, 4) }.unwrap_err();
        assert_eq!(&room, b"????");
        let start: *mut c_char = room.as_mut_ptr().cast();
        // SAFETY: `room` has 4 bytes.
        unsafe { put("abc", start, 4) }.unwrap();
        assert_eq!(&room, b"abc\0");
    }

    #[test]
    fn null_and_impossible_lengths_are_refused() {
        // SAFETY: null is permitted, and no byte is read.
        unsafe {
            assert!(bytes(ptr::null(), 0).unwrap().is_empty());
            bytes(ptr::null(), 1).unwrap_err();
            bytes(ptr::dangling::<c_void>(), usize::MAX).unwrap_err();
            buffer(ptr::null_mut(), 1).unwrap_err();
        }
    }
}
