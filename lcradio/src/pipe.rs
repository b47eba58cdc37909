//! Sound to standard output: 16-bit samples of two channels, little-endian, at 48 kHz.
//!
//! It is written at the caster's pace; a reader with another clock has to follow. A thread of its
//! own writes, so that a slow reader does not block the network.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use crate::process::Wake;

/// Frames that wait for the reader: a second.
const WAITING: usize = 50;

/// The output of sound to a pipe.
#[derive(Debug)]
pub struct Pipe {
    frames: Option<SyncSender<Vec<i16>>>,
    ended: Receiver<io::Error>,
    /// Frames that a slow reader lost.
    pub overruns: u64,
}

impl Pipe {
    /// Begins to write; `wake` signals that the reader is gone.
    pub fn open(wake: Wake) -> io::Result<Self> {
        let (frames, incoming) = sync_channel::<Vec<i16>>(WAITING);
        let (tell, ended) = sync_channel(1);
        thread::Builder::new().name("pipe".into()).spawn(move || {
            let mut out = librecast_program::standard::output();
            for frame in incoming {
                let bytes: Vec<u8> = frame.iter().flat_map(|s| s.to_le_bytes()).collect();
                if let Err(e) = out.write_all(&bytes).and_then(|()| out.flush()) {
                    let _ = tell.send(e);
                    wake.wake();
                    return;
                }
            }
        })?;
        Ok(Self {
            frames: Some(frames),
            ended,
            overruns: 0,
        })
    }

    /// Writes a frame. An error if the reader is gone.
    pub fn write(&mut self, frame: Vec<i16>) -> io::Result<()> {
        if let Ok(error) = self.ended.try_recv() {
            return Err(error);
        }
        let Some(frames) = &self.frames else {
            return Ok(());
        };
        match frames.try_send(frame) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => {
                self.overruns += 1;
                Ok(())
            }
            // the next call returns the reason
            Err(TrySendError::Disconnected(_)) => Ok(()),
        }
    }

    /// Waits until the reader has all sound.
    pub fn finish(mut self) -> io::Result<()> {
        self.frames = None;
        // the thread ends with or without an error, and then drops its sender
        match self.ended.recv() {
            Ok(error) => Err(error),
            Err(_) => Ok(()),
        }
    }
}
