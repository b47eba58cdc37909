//! Standard input, output and error that may become non-blocking at any time: all processes with
//! the same open file share this setting. A read or write then waits instead of failing.

use std::io::{self, BufRead, LineWriter, Read, StderrLock, StdinLock, StdoutLock, Write};
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Locks standard input for this thread.
#[must_use]
pub fn input() -> Patient<StdinLock<'static>> {
    Patient(io::stdin().lock())
}

/// Locks standard output for this thread; it writes each line at once.
#[must_use]
pub fn output() -> LineWriter<Patient<Unbuffered<StdoutLock<'static>>>> {
    LineWriter::new(Patient(Unbuffered(io::stdout().lock())))
}

/// Locks standard error for this thread; it writes each line at once.
#[must_use]
pub fn errors() -> LineWriter<Patient<Unbuffered<StderrLock<'static>>>> {
    LineWriter::new(Patient(Unbuffered(io::stderr().lock())))
}

/// Reads and writes a descriptor that may be non-blocking as if it blocked.
#[derive(Debug)]
pub struct Patient<T>(pub T);

/// Writes directly to a descriptor: std's own buffer does not show its rest after an error.
#[derive(Debug)]
pub struct Unbuffered<T>(T);

impl<T: AsFd> AsFd for Unbuffered<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl<T: AsFd> Write for Unbuffered<T> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(nix::unistd::write(self.0.as_fd(), buf)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<T: AsFd> Patient<T> {
    /// Waits until the descriptor is ready after `WouldBlock`; returns other errors.
    fn wait(&self, error: io::Error, events: PollFlags) -> io::Result<()> {
        if error.kind() != io::ErrorKind::WouldBlock {
            return Err(error);
        }
        let mut fds = [PollFd::new(self.0.as_fd(), events)];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

impl<T: Read + AsFd> Read for Patient<T> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buf) {
                Ok(count) => return Ok(count),
                Err(e) => self.wait(e, PollFlags::POLLIN)?,
            }
        }
    }
}

impl<T: BufRead + AsFd> BufRead for Patient<T> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while let Err(e) = self.0.fill_buf() {
            self.wait(e, PollFlags::POLLIN)?;
        }
        // data, or the end
        self.0.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.0.consume(count);
    }
}

impl<T: Write + AsFd> Write for Patient<T> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(buf) {
                Ok(count) => return Ok(count),
                Err(e) => self.wait(e, PollFlags::POLLOUT)?,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;
    use std::os::unix::net::UnixStream;
    use std::thread;

    use super::*;

    /// Returns both ends of a non-blocking socket.
    fn pair() -> (UnixStream, UnixStream) {
        let (one, other) = UnixStream::pair().unwrap();
        one.set_nonblocking(true).unwrap();
        other.set_nonblocking(true).unwrap();
        (one, other)
    }

    #[test]
    fn all_bytes_pass_descriptors_that_do_not_block() {
        let (one, other) = pair();
        // more than a socket buffers
        let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        let expected = sent.clone();
        let writer = thread::spawn(move || {
            let mut out = LineWriter::new(Patient(Unbuffered(one)));
            for piece in sent.chunks(100_001) {
                out.write_all(piece).unwrap();
            }
            out.flush().unwrap();
        });
        let mut got = Vec::new();
        Patient(other).read_to_end(&mut got).unwrap();
        writer.join().unwrap();
        assert!(got == expected, "{} bytes", got.len());
    }

    #[test]
    fn lines_are_read_of_a_descriptor_that_has_nothing_yet() {
        let (mut one, other) = pair();
        let reader = thread::spawn(move || {
            let lines = BufReader::new(Patient(other)).lines();
            lines.map(Result::unwrap).collect::<Vec<_>>()
        });
        for word in ["fi", "rst\nsec", "ond\n"] {
            thread::yield_now();
            one.write_all(word.as_bytes()).unwrap();
        }
        drop(one);
        assert_eq!(reader.join().unwrap(), ["first", "second"]);
    }

    #[test]
    fn a_reader_that_has_gone_is_an_error() {
        let (one, other) = pair();
        drop(other);
        let error = Patient(Unbuffered(one)).write_all(b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
