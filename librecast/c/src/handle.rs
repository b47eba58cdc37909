//! Handles: numbers of open channels, listeners and streams. None is ever used again.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use librecast::group::Channel;
use librecast::stream::{Listener, Stream, StreamError};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use crate::error::{Code, Failure};

/// The object of a handle.
#[derive(Debug)]
pub enum Open {
    /// A channel.
    Channel(Box<Channel>),
    /// A protocol that is served here.
    Listener(OpenListener),
    /// A stream.
    Stream(OpenStream),
}

impl Open {
    /// Ends all waits of threads.
    pub fn close(&self) {
        match self {
            Self::Channel(channel) => channel.close(),
            Self::Listener(listener) => listener.0.close(),
            Self::Stream(stream) => {
                // the other side may have closed it
                let _ = stream.socket.shutdown(Shutdown::Both);
            }
        }
    }

    /// Returns the descriptor that becomes readable; none of a channel that does not receive.
    pub fn readable(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Channel(channel) => channel.readable(),
            Self::Listener(listener) => Some(listener.0.as_fd()),
            Self::Stream(stream) => Some(stream.socket.as_fd()),
        }
    }
}

/// A listener that does not wait by itself.
#[derive(Debug)]
pub struct OpenListener(Listener);

impl OpenListener {
    /// Takes a listener.
    pub fn new(listener: Listener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self(listener))
    }

    /// Waits for the next stream.
    pub fn accept(&self, timeout: Option<Duration>) -> Result<OpenStream, Failure> {
        let accepted = waiting(self.0.as_fd(), PollFlags::POLLIN, timeout, || {
            match self.0.accept() {
                Err(StreamError::Io(e)) => Err(e),
                other => Ok(other),
            }
        });
        Ok(OpenStream::new(accepted??)?)
    }
}

/// A stream that does not wait by itself.
#[derive(Debug)]
pub struct OpenStream {
    socket: UnixStream,
    peer: String,
}

impl OpenStream {
    /// Takes a stream.
    pub fn new(stream: Stream) -> io::Result<Self> {
        let peer = stream.peer().name.clone();
        let socket = UnixStream::from(OwnedFd::from(stream));
        socket.set_nonblocking(true)?;
        Ok(Self { socket, peer })
    }

    /// Returns the name of the node at the other end.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// Waits for bytes; 0 at the end.
    pub fn read(&self, buffer: &mut [u8], timeout: Option<Duration>) -> io::Result<usize> {
        waiting(self.socket.as_fd(), PollFlags::POLLIN, timeout, || {
            (&self.socket).read(buffer)
        })
    }

    /// Writes all bytes.
    pub fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = waiting(self.socket.as_fd(), PollFlags::POLLOUT, None, || {
                (&self.socket).write(bytes)
            });
            match written {
                Ok(0) => return Err(io::ErrorKind::BrokenPipe.into()),
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                // a caller could not know how much has gone
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Ends writing.
    pub fn finish(&self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)
    }
}

/// Repeats `attempt` until it does not fail with [`io::ErrorKind::WouldBlock`].
fn waiting<T>(
    fd: BorrowedFd<'_>,
    events: PollFlags,
    timeout: Option<Duration>,
    mut attempt: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        match attempt() {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut fds = [PollFd::new(fd, events)];
        ppoll(&mut fds, left.map(TimeSpec::from_duration), None)?;
    }
}

/// All handles of the process.
static HANDLES: Mutex<Handles> = Mutex::new(Handles {
    last: 0,
    open: BTreeMap::new(),
});

struct Handles {
    last: i64,
    open: BTreeMap<i64, Arc<Open>>,
}

fn handles() -> MutexGuard<'static, Handles> {
    HANDLES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens a handle.
pub fn insert(open: Open) -> i64 {
    let mut handles = handles();
    handles.last += 1;
    let handle = handles.last;
    handles.open.insert(handle, Arc::new(open));
    handle
}

/// Returns the object of a handle; it stays while the caller has it.
pub fn get(handle: i64) -> Result<Arc<Open>, Failure> {
    let open = handles().open.get(&handle).cloned();
    open.ok_or_else(|| closed(handle, "is not open"))
}

/// Closes a handle.
pub fn remove(handle: i64) -> Result<(), Failure> {
    // the lock ends with the statement
    let open = handles().open.remove(&handle);
    let open = open.ok_or_else(|| closed(handle, "is not open"))?;
    open.close();
    Ok(())
}

/// Returns the failure of a call with this handle. If it is the error of an earlier call, that one.
pub fn closed(handle: i64, is: &str) -> Failure {
    match handle < 0 {
        true => Failure::earlier(handle),
        false => Failure::new(Code::Closed, format!("handle {handle} {is}")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use librecast::id::SecretKey;
    use librecast::stream::connect_at;

    use super::*;

    /// A stream, and its other end.
    fn stream() -> (OpenStream, UnixStream) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("streams.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let answers = thread::spawn(move || {
            let (socket, _) = listener.accept().unwrap();
            let mut byte = [0];
            while byte != *b"\n" {
                (&socket).read_exact(&mut byte).unwrap();
            }
            let key = SecretKey::from_seed(&[1; 32]).peer_id();
            let peer = format!(
                r#"{{"ok":{{"peer":"{key}","name":"beta","labels":{{}},"protocol":"/x/1"}}}}"#
            );
            (&socket).write_all((peer + "\n").as_bytes()).unwrap();
            socket
        });
        let stream = connect_at(&path, "beta", &["/x/1".parse().unwrap()]).unwrap();
        (OpenStream::new(stream).unwrap(), answers.join().unwrap())
    }

    #[test]
    fn a_stream_is_read_in_time_written_whole_and_ends() {
        let (stream, other) = stream();
        assert_eq!(stream.peer(), "beta");
        let mut buffer = [0; 8];
        let nothing = stream.read(&mut buffer, Some(Duration::ZERO)).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::TimedOut);
        // more than a socket holds
        let much = vec![7; 4 << 20];
        thread::scope(|scope| {
            let reads = scope.spawn(|| {
                let mut all = Vec::new();
                (&other).read_to_end(&mut all).unwrap();
                all.len()
            });
            stream.write_all(&much).unwrap();
            stream.finish().unwrap();
            assert_eq!(reads.join().unwrap(), much.len());
        });
        drop(other);
        assert_eq!(stream.read(&mut buffer, None).unwrap(), 0);
        assert_eq!(
            stream.write_all(b"more").unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
    }

    #[test]
    fn a_closed_handle_frees_its_waiting_threads_and_is_never_another() {
        let (stream, other) = stream();
        let handle = insert(Open::Stream(stream));
        thread::scope(|scope| {
            let waits = scope.spawn(|| {
                let open = get(handle).unwrap();
                let Open::Stream(stream) = &*open else {
                    panic!("no stream");
                };
                stream.read(&mut [0; 8], None).unwrap()
            });
            // closed before or while it waits: both end
            while Arc::strong_count(&get(handle).unwrap()) < 3 {
                thread::yield_now();
            }
            remove(handle).unwrap();
            assert_eq!(waits.join().unwrap(), 0);
        });
        remove(handle).unwrap_err();
        get(handle).unwrap_err();
        let (another, _end) = self::stream();
        let next = insert(Open::Stream(another));
        assert_ne!(next, handle);
        remove(next).unwrap();
        drop(other);
    }
}
