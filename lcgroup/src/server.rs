//! The control socket: a thread for each connection passes requests to the daemon.

use std::io::{self, BufRead, BufReader, IoSlice, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use librecast::local::write_line;
use nix::sys::eventfd::EventFd;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::carrier::Serving;
use crate::child;
use crate::conversation::Shared;
use crate::files::name_to_send;
use crate::hub::Lc0;
use crate::request::{Entered, MAX_REQUEST, REQUEST_TIMEOUT, Request};
use crate::transfer::{self, Here, Stage, Taking};

/// Simultaneous connections. Chosen: some readers for each of 64 groups.
const MAX_CONNECTIONS: usize = 256;

/// Connections that read conversations. Chosen: a quarter of all remains for requests.
const MAX_READERS: usize = MAX_CONNECTIONS - MAX_CONNECTIONS / 4;

/// Time without reading after which a follower is disconnected.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// A request, and the channel for its answer.
#[derive(Debug)]
pub struct Asked {
    pub request: Request,
    pub answer: Sender<Answer>,
}

#[derive(Debug)]
pub enum Answer {
    /// The result.
    Ok(Value),
    /// The error, and the exit code of the command.
    Error(String, i32),
    /// The conversation, the last message before the requested ones, and `follow`.
    Tail(Arc<Shared>, u64, bool),
    /// A place for a file that a user sends, the file server, and the folder of groups.
    Stage(Stage, Serving, PathBuf),
    /// A whole file, of this group, and the folder of groups.
    File(Here, String, PathBuf),
    /// The lc0 on which a program of the user wants a port.
    Enter(Lc0),
}

/// Listens on threads of its own. The receiver yields requests; each one writes to `wake`.
///
/// # Errors
/// A thread cannot be started.
pub fn serve(listener: UnixListener, wake: Arc<EventFd>) -> io::Result<Receiver<Asked>> {
    listen(listener, wake, REQUEST_TIMEOUT)
}

fn listen(
    listener: UnixListener,
    wake: Arc<EventFd>,
    time_limit: Duration,
) -> io::Result<Receiver<Asked>> {
    let (asked, requests) = channel();
    thread::Builder::new()
        .name("control".into())
        .spawn(move || {
            let connections = Arc::new(AtomicUsize::new(0));
            let readers = Arc::new(AtomicUsize::new(0));
            for stream in listener.incoming() {
                let Ok(stream) = stream else {
                    // probably out of descriptors: another connection may end meanwhile
                    thread::sleep(Duration::from_millis(100));
                    continue;
                };
                if connections.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
                    connections.fetch_sub(1, Ordering::Relaxed);
                    continue;
                }
                let (asked, wake) = (asked.clone(), Arc::clone(&wake));
                let (count, readers) = (Arc::clone(&connections), Arc::clone(&readers));
                let started = thread::Builder::new().name("client".into()).spawn(move || {
                    let ended = converse(stream, (&asked, &wake), &readers, time_limit);
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

fn converse(
    stream: UnixStream,
    (asked, wake): (&Sender<Asked>, &EventFd),
    readers: &AtomicUsize,
    time_limit: Duration,
) -> io::Result<()> {
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    loop {
        let line = read_line(&mut reader, time_limit)?;
        if line.is_empty() {
            return Ok(());
        }
        if line.last() != Some(&b'\n') {
            return write_line(&mut writer, &json!({"error": "not a line", "exit": 2}));
        }
        let ask = |request| {
            let (answer, answered) = mpsc::channel();
            let gone = || io::Error::other("the daemon ends");
            asked.send(Asked { request, answer }).map_err(|_| gone())?;
            wake.write(1)?;
            answered.recv().map_err(|_| gone())
        };
        let mut sent = None;
        let answer = match serde_json::from_slice::<Request>(&line) {
            Err(e) => Answer::Error(format!("not a request: {e}"), 2),
            Ok(request) => {
                if let Request::SendFile {
                    group,
                    name,
                    length,
                } = &request
                {
                    sent = Some((group.clone(), name_to_send(name), *length));
                }
                ask(request)?
            }
        };
        let answer = match (answer, sent) {
            (Answer::Stage(stage, serving, state), Some((group, name, length))) => {
                let mut ask = |request| {
                    Ok(match ask(request)? {
                        Answer::Ok(value) => Ok(value),
                        Answer::Error(error, exit) => Err((error, exit)),
                        _ => return Err(io::Error::other("an answer of another kind")),
                    })
                };
                let taking = Taking {
                    group,
                    name,
                    length,
                    stage,
                    serving,
                    state,
                    ask: &mut ask,
                };
                match transfer::take(&mut reader, &mut writer, taking)? {
                    Ok(value) => Answer::Ok(value),
                    Err((error, exit)) => Answer::Error(error, exit),
                }
            }
            (answer, _) => answer,
        };
        match answer {
            // answered above
            Answer::Stage(..) => return Ok(()),
            Answer::File(here, group, state) => {
                let root_of = |path: &Path| child::root_of(&state, path);
                if !transfer::give(&mut writer, &here, root_of)? {
                    let id = here.id;
                    ask(Request::LookAtFile { group, id })?;
                    return Ok(());
                }
            }
            Answer::Enter(lc0) => give_port(&mut writer, &lc0)?,
            Answer::Ok(value) => write_line(&mut writer, &json!({ "ok": value }))?,
            Answer::Error(error, exit) => {
                write_line(&mut writer, &json!({ "error": error, "exit": exit }))?;
            }
            Answer::Tail(conversation, after, follow) => {
                let Some(_place) = Place::among(readers) else {
                    let error = json!({"error": "too many programs read", "exit": 1});
                    return write_line(&mut writer, &error);
                };
                conversation.read(after, follow, |line| match line {
                    Some(line) => {
                        let line = conversation.with_shown(line);
                        writer.write_all(&line).map(|()| true)
                    }
                    None => is_there(&writer),
                })?;
                if follow {
                    return Ok(());
                }
                write_line(&mut writer, &json!({ "ok": {} }))?;
            }
        }
    }
}

/// Passes a port to the user. The thread of the connection waits for the hub, and nobody else does.
fn give_port(writer: &mut UnixStream, lc0: &Lc0) -> io::Result<()> {
    let port = match lc0.open() {
        Ok(port) => port,
        Err(e) => return write_line(writer, &json!({ "error": e.to_string(), "exit": 1 })),
    };
    let (address, link_local) = lc0.addresses;
    let entered = Entered {
        address,
        link_local,
    };
    let line = format!("{}\n", json!({ "ok": entered }));
    let rights = [port.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&rights)];
    let text = [IoSlice::new(line.as_bytes())];
    let flags = MsgFlags::MSG_NOSIGNAL;
    let sent = sendmsg::<()>(writer.as_raw_fd(), &text, &rights, flags, None)?;
    writer.write_all(line.as_bytes().get(sent..).unwrap_or_default())
}

/// Reads a line, or nothing at the end. It must be complete within `time_limit`, regardless of the
/// number of reads: a silent client must not occupy a connection forever.
fn read_line(
    reader: &mut BufReader<UnixStream>,
    time_limit: Duration,
) -> io::Result<Zeroizing<Vec<u8>>> {
    let until = Instant::now() + time_limit;
    let mut line = Zeroizing::new(Vec::new());
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        reader.get_ref().set_read_timeout(Some(left))?;
        let room = MAX_REQUEST.saturating_sub(line.len());
        let buffer = reader.fill_buf()?;
        let buffer = &buffer[..buffer.len().min(room)];
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let count = end.map_or(buffer.len(), |end| end + 1);
        line.extend_from_slice(&buffer[..count]);
        reader.consume(count);
        if end.is_some() || count == 0 {
            return Ok(line);
        }
    }
}

/// A place among the connections that read conversations.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn among(readers: &'a AtomicUsize) -> Option<Self> {
        let place = Self(readers);
        (readers.fetch_add(1, Ordering::Relaxed) < MAX_READERS).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether the peer is still connected.
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::conversation::{Conversation, Message};

    /// Enough on a busy machine.
    const LONG: Duration = Duration::from_secs(120);

    /// A socket that answers like the daemon, from a conversation of one message.
    fn serving(folder: &Path, time_limit: Duration) -> std::path::PathBuf {
        let path = folder.join("control");
        let listener = UnixListener::bind(&path).unwrap();
        let wake = Arc::new(EventFd::new().unwrap());
        let requests = listen(listener, wake, time_limit).unwrap();
        let mut conversation = Conversation::open(&folder.join("messages")).unwrap();
        conversation.add(Message::of_ann(1, "word"));
        conversation.sync().unwrap();
        thread::spawn(move || {
            for asked in requests {
                let answer = match asked.request {
                    Request::Tail(tail) => Answer::Tail(conversation.shared(), 0, tail.follow),
                    _ => Answer::Ok(json!({})),
                };
                // the client may have disconnected
                let _ = asked.answer.send(answer);
            }
        });
        path
    }

    fn connect(path: &Path) -> UnixStream {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream
    }

    fn ask(path: &Path, request: &str) -> io::Result<String> {
        let mut stream = connect(path);
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        Ok(answer)
    }

    #[test]
    fn silent_connections_end_and_others_are_answered() {
        let folder = tempfile::tempdir().unwrap();
        let path = serving(folder.path(), Duration::from_millis(200));
        let mut silent: Vec<_> = (0..MAX_CONNECTIONS).map(|_| connect(&path)).collect();
        for (n, stream) in silent.iter_mut().enumerate() {
            if n % 2 == 0 {
                // an incomplete line; the server may have closed the connection already
                let _ = stream.write_all(b"{");
            }
        }
        for stream in &mut silent {
            let read = stream.read(&mut [0]);
            let ended = matches!(read, Ok(0))
                || read.is_err_and(|e| e.kind() == io::ErrorKind::ConnectionReset);
            assert!(ended);
        }
        let answer = ask(&path, "{\"cmd\":\"status\"}\n").unwrap();
        assert_eq!(answer, "{\"ok\":{}}\n");
    }

    #[test]
    fn whoever_reads_conversations_leaves_room_for_requests() {
        let folder = tempfile::tempdir().unwrap();
        let path = serving(folder.path(), LONG);
        let tail = "{\"cmd\":\"tail\",\"group\":\"team\",\"follow\":true}\n";
        let reader = |_| {
            let mut stream = BufReader::new(connect(&path));
            stream.get_mut().write_all(tail.as_bytes()).unwrap();
            let mut first = String::new();
            stream.read_line(&mut first).unwrap();
            assert!(first.contains("word"), "{first}");
            stream
        };
        let _readers: Vec<_> = (0..MAX_READERS).map(reader).collect();
        let refused = ask(&path, tail).unwrap();
        assert!(refused.contains("too many programs read"), "{refused}");
        let answer = ask(&path, "{\"cmd\":\"status\"}\n").unwrap();
        assert_eq!(answer, "{\"ok\":{}}\n");
    }
}
