//! Who asks on the control socket: a thread for each connection, which waits in the daemon's place.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use nix::sys::eventfd::EventFd;
use serde_json::{Value, json};

use crate::conversation::Shared;
use crate::request::{MAX_REQUEST, REQUEST_TIMEOUT, Request};

/// Most connections at once. Chosen: some followers for each of 64 groups.
const MAX_CONNECTIONS: usize = 256;

/// A follower that takes nothing for so long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// A request, and where its answer goes.
#[derive(Debug)]
pub struct Asked {
    /// What.
    pub request: Request,
    /// The answer.
    pub answer: Sender<Answer>,
}

/// An answer.
#[derive(Debug)]
pub enum Answer {
    /// Done; what is asked for.
    Ok(Value),
    /// Why not, and the exit code of the verb.
    Error(String, i32),
    /// The conversation is to be read, from after this message on; `follow`.
    Tail(Arc<Shared>, u64, bool),
}

/// Listens, on threads of its own. What is asked comes out of the receiver; `wake` is written then.
///
/// # Errors
///
/// A thread cannot be started.
pub fn serve(listener: UnixListener, wake: Arc<EventFd>) -> io::Result<Receiver<Asked>> {
    let (asked, requests) = channel();
    thread::Builder::new()
        .name("control".into())
        .spawn(move || {
            let connections = Arc::new(AtomicUsize::new(0));
            for stream in listener.incoming() {
                let Ok(stream) = stream else {
                    // out of descriptors, most likely: others may end meanwhile
                    thread::sleep(Duration::from_millis(100));
                    continue;
                };
                if connections.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
                    connections.fetch_sub(1, Ordering::Relaxed);
                    continue;
                }
                let (asked, wake) = (asked.clone(), Arc::clone(&wake));
                let count = Arc::clone(&connections);
                let started = thread::Builder::new().name("client".into()).spawn(move || {
                    let ended = converse(stream, &asked, &wake);
                    tracing::debug!("control socket: {ended:?}");
                    count.fetch_sub(1, Ordering::Relaxed);
                });
                if started.is_err() {
                    connections.fetch_sub(1, Ordering::Relaxed);
                }
            }
        })?;
    Ok(requests)
}

fn converse(stream: UnixStream, asked: &Sender<Asked>, wake: &EventFd) -> io::Result<()> {
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    loop {
        reader.get_ref().set_read_timeout(None)?;
        if reader.fill_buf()?.is_empty() {
            return Ok(());
        }
        reader.get_ref().set_read_timeout(Some(REQUEST_TIMEOUT))?;
        let mut line = zeroize::Zeroizing::new(Vec::new());
        (&mut reader)
            .take(MAX_REQUEST)
            .read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            return write(&mut writer, &json!({"error": "not a line", "exit": 2}));
        }
        let answer = match serde_json::from_slice::<Request>(&line) {
            Err(e) => Answer::Error(format!("not a request: {e}"), 2),
            Ok(request) => {
                let (answer, answered) = mpsc::channel();
                let gone = || io::Error::other("the daemon ends");
                asked.send(Asked { request, answer }).map_err(|_| gone())?;
                wake.write(1)?;
                answered.recv().map_err(|_| gone())?
            }
        };
        match answer {
            Answer::Ok(value) => write(&mut writer, &json!({ "ok": value }))?,
            Answer::Error(error, exit) => {
                write(&mut writer, &json!({ "error": error, "exit": exit }))?;
            }
            Answer::Tail(conversation, after, follow) => {
                conversation.read(after, follow, |line| match line {
                    Some(line) => writer.write_all(line).map(|()| true),
                    None => is_there(&writer),
                })?;
                if follow {
                    return Ok(());
                }
                write(&mut writer, &json!({ "ok": {} }))?;
            }
        }
    }
}

/// Whether the other end has not gone.
fn is_there(stream: &UnixStream) -> io::Result<bool> {
    stream.set_nonblocking(true)?;
    let mut byte = [0];
    let read = (&mut &*stream).read(&mut byte);
    stream.set_nonblocking(false)?;
    match read {
        Ok(0) => Ok(false),
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(e) => Err(e),
    }
}

fn write(writer: &mut UnixStream, answer: &Value) -> io::Result<()> {
    let mut line = answer.to_string();
    line.push('\n');
    writer.write_all(line.as_bytes())
}
