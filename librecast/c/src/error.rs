//! Errors: a code for the program, and a message for people.

use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::fmt;
use std::io;

use librecast::stream::{Reason, StreamError};
use nix::libc;

/// A code of `librecast.h`.
#[derive(Debug, Clone, Copy)]
#[repr(i64)]
pub enum Code {
    /// A null pointer, a bad name, a datagram of no bytes.
    BadArgument = -1,
    /// Not an open handle of this kind.
    Closed = -2,
    /// Nothing came in time.
    Timeout = -3,
    /// No such interface, or no program for streams.
    NoNetwork = -4,
    /// A permission is missing here, or the other node refuses.
    NotPermitted = -5,
    /// The node is unknown or away, or its program is.
    Unreachable = -6,
    /// The buffer is too short, or the datagram too long.
    TooLong = -7,
    /// The other side has broken off.
    Ended = -8,
    /// A signal ended the wait.
    Interrupted = -9,
    /// The system refuses.
    System = -10,
    /// A fault of the library.
    Fault = -11,
}

/// The reason why a call failed.
#[derive(Debug)]
pub struct Failure {
    code: i64,
    /// None: the message of an earlier failure stays.
    message: Option<String>,
}

impl Failure {
    /// Makes one with this message.
    pub fn new(code: Code, message: impl fmt::Display) -> Self {
        Self {
            code: code as i64,
            message: Some(message.to_string()),
        }
    }

    /// Returns the failure by which the caller has this error in place of a handle.
    pub fn earlier(code: i64) -> Self {
        Self {
            code,
            message: None,
        }
    }

    /// Stores the message for this thread; returns the code.
    pub fn tell(self) -> i64 {
        if let Some(message) = self.message {
            let message = CString::new(message.replace('\0', "")).unwrap_or_default();
            // a thread that ends has none any more
            let _ = MESSAGE.try_with(|last| last.replace(message));
        }
        self.code
    }
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        let code = match e.kind() {
            io::ErrorKind::InvalidInput => Code::BadArgument,
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Code::Timeout,
            io::ErrorKind::NotFound | io::ErrorKind::Unsupported => Code::NoNetwork,
            io::ErrorKind::PermissionDenied => Code::NotPermitted,
            io::ErrorKind::Interrupted => Code::Interrupted,
            io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::UnexpectedEof => Code::Ended,
            _ if e.raw_os_error() == Some(libc::EMSGSIZE) => Code::TooLong,
            _ => Code::System,
        };
        Self::new(code, e)
    }
}

impl From<StreamError> for Failure {
    fn from(e: StreamError) -> Self {
        let code = match e {
            StreamError::Io(e) => return e.into(),
            StreamError::NoProgram(..) => Code::NoNetwork,
            StreamError::Refused(Reason::BadRequest, _) => Code::BadArgument,
            StreamError::Refused(Reason::Refused, _) => Code::NotPermitted,
            StreamError::Refused(..) => Code::Unreachable,
            StreamError::Answer(_) => Code::System,
        };
        Self::new(code, e)
    }
}

thread_local! {
    static MESSAGE: RefCell<CString> = RefCell::default();
}

/// Returns the last message of this thread, which stays until the next.
pub fn last_message() -> *const c_char {
    let last = MESSAGE.try_with(|last| last.borrow().as_ptr());
    last.unwrap_or(c"".as_ptr())
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    fn message() -> String {
        // SAFETY: the message of this thread stays until its next error
        let text = unsafe { CStr::from_ptr(last_message()) };
        text.to_str().unwrap().to_owned()
    }

    #[test]
    fn each_thread_has_its_own_message() {
        assert_eq!(message(), "");
        assert_eq!(Failure::new(Code::Closed, "a\0b").tell(), -2);
        assert_eq!(message(), "ab");
        assert_eq!(Failure::earlier(-5).tell(), -5);
        assert_eq!(message(), "ab");
        std::thread::scope(|scope| {
            scope.spawn(|| assert_eq!(message(), ""));
        });
    }

    #[test]
    fn errors_have_the_codes_of_their_kinds() {
        for (error, code) in [
            (libc::EMSGSIZE, Code::TooLong),
            (libc::EINTR, Code::Interrupted),
            (libc::EPERM, Code::NotPermitted),
            (libc::EPIPE, Code::Ended),
            (libc::ENOBUFS, Code::System),
        ] {
            let failure = Failure::from(io::Error::from_raw_os_error(error));
            assert_eq!(failure.code, code as i64, "{error}");
        }
        let refused = StreamError::Refused(Reason::Refused, "no".into());
        assert_eq!(Failure::from(refused).code, Code::NotPermitted as i64);
        let gone = StreamError::Io(io::ErrorKind::UnexpectedEof.into());
        assert_eq!(Failure::from(gone).code, Code::Ended as i64);
    }
}
