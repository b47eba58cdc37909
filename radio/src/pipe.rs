//! Sound to standard output: 16-bit samples of two channels, little-endian, at 48 kHz.
//!
//! It is written as fast as the caster makes it; who reads it with another clock has to follow. A thread of its own writes,
//! so that a reader who is slow does not stop the network.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use crate::process::Wake;

/// Frames that wait for the reader: a second.
const WAITING: usize = 50;

/// Where sound goes.
#[derive(Debug)]
pub struct Pipe {
    frames: Option<SyncSender<Vec<i16>>>,
    ended: Receiver<io::Error>,
    /// Frames that the reader was too slow for.
    pub overruns: u64,
}

impl Pipe {
    /// Begins to write; `wake` tells when the reader has gone.
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

    /// More sound. An error if the reader has gone.
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
            // why is told by the next call
            Err(TrySendError::Disconnected(_)) => Ok(()),
        }
    }

    /// The end: waits until the reader has all of it.
    pub fn finish(mut self) -> io::Result<()> {
        self.frames = None;
        // it ends with or without an error, and drops its sender then
        match self.ended.recv() {
            Ok(error) => Err(error),
            Err(_) => Ok(()),
        }
    }
}
