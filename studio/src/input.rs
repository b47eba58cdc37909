//! Lines of standard input, read by a thread of its own: it may be a terminal, where nobody types.

use std::io::{self, BufRead, Read as _};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;

use librecast_program::process::Wake;

/// Longest line, in bytes: what is longer comes in pieces. Chosen: some captions.
const MAX_LINE: u64 = 16 << 10;

/// Lines that wait.
const WAITING: usize = 64;

/// Standard input.
#[derive(Debug)]
pub struct Input {
    lines: Receiver<io::Result<String>>,
}

/// What was read.
#[derive(Debug)]
pub enum Read {
    /// A line without its end. What is no UTF-8 was replaced.
    Line(String),
    /// Nothing yet.
    Nothing,
    /// There is no more.
    End,
}

impl Input {
    /// Reads from now on; `wake` tells when there is something.
    ///
    /// # Errors
    ///
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

    /// The next line.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn next(&self) -> io::Result<Read> {
        match self.lines.try_recv() {
            Ok(line) => Ok(Read::Line(line?)),
            Err(TryRecvError::Empty) => Ok(Read::Nothing),
            Err(TryRecvError::Disconnected) => Ok(Read::End),
        }
    }
}
