//! Lines of standard input, read by a thread of its own: a terminal may be idle.

use std::io::{self, BufRead, Read as _};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;

use librecast_program::process::Wake;

/// Longest line, in bytes; a longer one comes in pieces. Chosen: some captions.
const MAX_LINE: u64 = 16 << 10;

/// Lines in the queue.
const WAITING: usize = 64;

/// Standard input.
#[derive(Debug)]
pub struct Input {
    lines: Receiver<io::Result<String>>,
}

/// Result of [`Input::next`].
#[derive(Debug)]
pub enum Read {
    /// A line without its end; invalid UTF-8 is replaced.
    Line(String),
    /// No line yet.
    Nothing,
    /// Standard input has ended.
    End,
}

impl Input {
    /// Reads from now on; `wake` signals lines.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn open(wake: Wake) -> io::Result<Self> {
        let (to, lines) = sync_channel(WAITING);
        thread::Builder::new().name("input".into()).spawn(move || {
            let mut input = librecast_program::standard::input();
            loop {
                let mut line = Vec::new();
                let read = (&mut input).take(MAX_LINE).read_until(b'\n', &mut line);
                let line = match read {
                    Ok(0) => break,
                    Ok(_) => Ok(String::from_utf8_lossy(&line)
                        .trim_end_matches(['\n', '\r'])
                        .to_owned()),
                    Err(e) => Err(e),
                };
                let is_last = line.is_err();
                if to.send(line).is_err() || is_last {
                    break;
                }
                wake.wake();
            }
            drop(to);
            wake.wake();
        })?;
        Ok(Self { lines })
    }

    /// Returns the next line.
    pub fn next(&self) -> io::Result<Read> {
        match self.lines.try_recv() {
            Ok(line) => Ok(Read::Line(line?)),
            Err(TryRecvError::Empty) => Ok(Read::Nothing),
            Err(TryRecvError::Disconnected) => Ok(Read::End),
        }
    }
}
