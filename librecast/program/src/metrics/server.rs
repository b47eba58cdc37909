//! Serves `GET /metrics`: one thread, a few connections, each for a short time.
//!
//! It reads only the head of one request, and keeps only the answer in transfer. A slow client
//! loses its place to a new one.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use librecast::local;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{CONTENT_TYPE, Listen, Page};

/// Connections at a time: a further one replaces the oldest.
const MAX_CONNECTIONS: usize = 16;
/// Time after which a connection is closed in any case.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest head of a request, in bytes.
const MAX_HEAD: usize = 8 << 10;
/// Most headers of a request.
const MAX_HEADERS: usize = 64;
/// Time for which a page serves all requests.
const FRESH: Duration = Duration::from_millis(200);
/// Pause in accepting connections after an error, such as a lack of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// No page could be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unavailable;

type Source = Box<dyn FnMut() -> Result<Page, Unavailable> + Send>;

/// A server that runs until it is dropped.
#[derive(Debug)]
pub struct Server {
    listen: Listen,
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
    /// The socket that is removed with the server.
    path: Option<PathBuf>,
}

impl Server {
    /// Listens, and serves the pages of `source`. A unix socket gets mode 0660 and the group
    /// `group`, if that exists.
    pub fn start(
        listen: &Listen,
        group: &str,
        source: impl FnMut() -> Result<Page, Unavailable> + Send + 'static,
    ) -> io::Result<Self> {
        let (listener, path) = match listen {
            Listen::Tcp(address) => (Listener::Tcp(TcpListener::bind(address)?), None),
            Listen::Unix(path) => {
                let listener = local::bind(path, group, false)?;
                (Listener::Unix(listener), Some(path.clone()))
            }
        };
        listener.set_nonblocking()?;
        let stop = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        let stop = Arc::new(stop);
        let mut serving = Serving {
            listener,
            stop: Arc::clone(&stop),
            source: Box::new(source),
            connections: VecDeque::new(),
            page: None,
            paused: None,
        };
        let thread = std::thread::Builder::new().name("metrics".into());
        Ok(Self {
            listen: listen.clone(),
            thread: Some(thread.spawn(move || serving.run())?),
            stop,
            path,
        })
    }

    /// Returns its configured address.
    pub fn listen(&self) -> &Listen {
        &self.listen
    }

    /// Makes `running` serve at `wanted`: keeps it if it does already, else ends it and starts
    /// another. An error leaves none.
    pub fn change(
        running: &mut Option<Self>,
        wanted: Option<&Listen>,
        group: &str,
        source: impl FnMut() -> Result<Page, Unavailable> + Send + 'static,
    ) -> io::Result<()> {
        if running.as_ref().map(Self::listen) == wanted {
            return Ok(());
        }
        *running = None;
        if let Some(listen) = wanted {
            *running = Some(Self::start(listen, group, source)?);
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // a full counter wakes as well
        let _ = self.stop.write(1);
        if let Some(thread) = self.thread.take() {
            // a panic has printed its cause
            let _ = thread.join();
        }
        if let Some(path) = &self.path {
            // it may be removed already
            let _ = std::fs::remove_file(path);
        }
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => listener.set_nonblocking(true),
            Self::Unix(listener) => listener.set_nonblocking(true),
        }
    }

    fn accept(&self) -> io::Result<Stream> {
        let stream = match self {
            Self::Tcp(listener) => Stream::Tcp(listener.accept()?.0),
            Self::Unix(listener) => Stream::Unix(listener.accept()?.0),
        };
        match &stream {
            Stream::Tcp(stream) => stream.set_nonblocking(true)?,
            Stream::Unix(stream) => stream.set_nonblocking(true)?,
        }
        Ok(stream)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(into),
            Self::Unix(stream) => stream.read(into),
        }
    }

    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(from),
            Self::Unix(stream) => stream.write(from),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

struct Connection {
    stream: Stream,
    until: Instant,
    /// The request so far.
    head: Vec<u8>,
    /// The answer to a whole request, and the number of sent bytes.
    answer: Option<(Vec<u8>, usize)>,
}

struct Serving {
    listener: Listener,
    stop: Arc<EventFd>,
    source: Source,
    connections: VecDeque<Connection>,
    page: Option<(Instant, String)>,
    /// Connections are accepted again at this time.
    paused: Option<Instant>,
}

impl Serving {
    fn run(&mut self) {
        loop {
            let now = Instant::now();
            self.connections.retain(|c| now < c.until);
            if self.paused.is_some_and(|until| until <= now) {
                self.paused = None;
            }
            let Some(ready) = self.wait(now) else { return };
            self.serve(&ready);
            if self.paused.is_none() {
                self.accept();
            }
        }
    }

    /// Returns which connections are ready; `None` if the server ends.
    fn wait(&self, now: Instant) -> Option<Vec<bool>> {
        let first = self.connections.front().map(|c| c.until);
        let due = first.into_iter().chain(self.paused).min();
        let timeout = match due {
            None => PollTimeout::NONE,
            Some(at) => {
                let ms = at.saturating_duration_since(now).as_millis() + 1;
                PollTimeout::from(u16::try_from(ms).unwrap_or(u16::MAX))
            }
        };
        let mut fds = vec![PollFd::new(self.stop.as_fd(), PollFlags::POLLIN)];
        fds.extend(self.connections.iter().map(|c| {
            let flags = match c.answer {
                None => PollFlags::POLLIN,
                Some(_) => PollFlags::POLLOUT,
            };
            PollFd::new(c.stream.as_fd(), flags)
        }));
        if self.paused.is_none() {
            fds.push(PollFd::new(self.listener.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => {
                tracing::error!("metrics are not served any more: {e}");
                return None;
            }
        }
        let ready = |fd: &PollFd<'_>| fd.any().unwrap_or(false);
        if ready(&fds[0]) {
            return None;
        }
        let connections = fds[1..].iter().take(self.connections.len());
        Some(connections.map(ready).collect())
    }

    fn accept(&mut self) {
        // the rest of the queue comes in the next turn
        for _ in 0..MAX_CONNECTIONS {
            match self.listener.accept() {
                Ok(stream) => {
                    if self.connections.len() >= MAX_CONNECTIONS {
                        self.connections.pop_front();
                    }
                    self.connections.push_back(Connection {
                        stream,
                        until: Instant::now() + CONNECTION_TIMEOUT,
                        head: Vec::new(),
                        answer: None,
                    });
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                // the client is gone already
                Err(e) if e.kind() == ErrorKind::ConnectionAborted => {}
                Err(e) => {
                    tracing::debug!("metrics: {e}");
                    self.paused = Some(Instant::now() + PAUSE);
                    return;
                }
            }
        }
    }

    fn serve(&mut self, ready: &[bool]) {
        let mut kept = VecDeque::new();
        for (n, mut connection) in std::mem::take(&mut self.connections)
            .into_iter()
            .enumerate()
        {
            // new connections come in the next turn
            let open = !ready.get(n).copied().unwrap_or(false) || self.go_on(&mut connection);
            if open {
                kept.push_back(connection);
            }
        }
        self.connections = kept;
    }

    /// Continues a connection; false if it is finished.
    fn go_on(&mut self, connection: &mut Connection) -> bool {
        if connection.answer.is_none() {
            let mut buffer = [0; 2_048];
            let room = (MAX_HEAD - connection.head.len()).min(buffer.len());
            match connection.stream.read(&mut buffer[..room]) {
                Ok(0) => return false,
                Ok(n) => connection.head.extend_from_slice(&buffer[..n]),
                Err(e) => return is_early(&e),
            }
            match self.answer(&connection.head) {
                Some(answer) => connection.answer = Some((answer, 0)),
                None => return true,
            }
        }
        let Some((answer, sent)) = &mut connection.answer else {
            return true;
        };
        match connection.stream.write(&answer[*sent..]) {
            Ok(0) => false,
            Ok(n) => {
                *sent += n;
                *sent < answer.len()
            }
            Err(e) => is_early(&e),
        }
    }

    /// Returns the answer; `None` before the end of the request.
    fn answer(&mut self, head: &[u8]) -> Option<Vec<u8>> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let plain = |status: &str, text: &str| {
            Some(response(status, "text/plain; charset=utf-8", text, false))
        };
        match request.parse(head) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) if head.len() < MAX_HEAD => return None,
            Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
                return plain("431 Request Header Fields Too Large", "too long\n");
            }
            Err(_) => return plain("400 Bad Request", "this is not HTTP\n"),
        }
        let head_only = match request.method {
            Some("GET") => false,
            Some("HEAD") => true,
            _ => return plain("405 Method Not Allowed\r\nAllow: GET, HEAD", "GET it\n"),
        };
        let path = request.path.unwrap_or_default();
        if path.split('?').next() != Some("/metrics") {
            return plain("404 Not Found", "metrics are at /metrics\n");
        }
        match self.text() {
            Some(text) => Some(response("200 OK", CONTENT_TYPE, text, head_only)),
            None => plain("503 Service Unavailable", "the daemon is stopping\n"),
        }
    }

    fn text(&mut self) -> Option<&str> {
        let fresh = |at: &Instant| at.elapsed() < FRESH;
        if !self.page.as_ref().is_some_and(|(at, _)| fresh(at)) {
            let text = (self.source)().ok()?.render().ok()?;
            self.page = Some((Instant::now(), text));
        }
        self.page.as_ref().map(|(_, text)| text.as_str())
    }
}

fn is_early(e: &io::Error) -> bool {
    matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

fn response(status: &str, content_type: &str, body: &str, head_only: bool) -> Vec<u8> {
    let mut text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n",
        body.len()
    );
    if !head_only {
        text += body;
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests;
