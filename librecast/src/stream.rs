//! Streams and datagrams to a program on another node, by name or PeerId, encrypted end to end.
//!
//! The stream daemon (`lcroute streams`: a service, or started on demand) answers on a Unix socket,
//! in the protocol of docs/protocol.md, "Streams".
//!
//! ```no_run
//! use std::io::{Read, Write};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let protocol = "/demo/echo/1".parse()?;
//! let mut stream = librecast::stream::connect("beta", &[protocol])?;
//! stream.write_all(b"hello")?;
//! stream.finish()?;
//! let mut echo = String::new();
//! stream.read_to_string(&mut echo)?;
//! println!("{} says {echo}", stream.peer().name);
//! # Ok(())
//! # }
//! ```

use std::collections::BTreeMap;
use std::io::{self, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recv, recvmsg, send};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::announce::{control_sockets, socket_beside};
use crate::id::PeerId;
use crate::local::write_line;
pub use crate::protocol_name::{BadProtocolName, MAX_PROTOCOL_NAME, ProtocolName};

/// Time within which the stream daemon answers a status request.
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest line of JSON, in bytes.
pub const MAX_LINE: usize = 64 * 1024;

/// Returns the stream daemon's socket beside this control socket.
pub fn socket_of(control: &Path) -> PathBuf {
    socket_beside(control, "streams")
}

/// The reason why there is no stream, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The request cannot be read, or makes no sense.
    BadRequest,
    /// The node is unknown, away, without stream daemon, or silent.
    Unreachable,
    /// The node does not allow this one any of the protocols.
    Refused,
    /// The nodes have no protocol in common.
    NoneCommon,
    /// The protocol's program there cannot be reached, or there are too many streams.
    Unavailable,
}

/// The reason why there is no stream.
#[derive(Debug, Error)]
pub enum StreamError {
    /// No stream daemon answers on this host.
    #[error(
        "{0}: {1}: no program for streams answers here: systemctl enable --now lcroute-streams.socket, or `lcroute streams`"
    )]
    NoProgram(PathBuf, io::Error),
    /// The stream daemon refuses.
    #[error("{1}")]
    Refused(Reason, String),
    /// The daemon's answer cannot be decoded.
    #[error("the program for streams answers something else: {0}")]
    Answer(String),
    /// The connection to the daemon broke.
    #[error("the program for streams: {0}")]
    Io(#[from] io::Error),
}

/// The program at the other end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its node.
    pub peer: PeerId,
    /// Its node's name.
    pub name: String,
    /// Labels of its node's certificate.
    pub labels: BTreeMap<String, String>,
    /// The protocol.
    pub protocol: ProtocolName,
    /// The stream's number on this host, if this host opened it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<u64>,
    /// The longest datagram in bytes, if the protocol is of datagrams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datagram_bytes: Option<usize>,
    /// Whether it is a key outside of this host's networks, without a certified name and labels.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub outside: bool,
}

/// A request on the socket, one JSON object a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cmd", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Opens a stream, which follows the answer on this connection.
    Connect {
        /// A name, a PeerId or an address.
        node: String,
        /// This program's protocols, the preferred first.
        protocols: Vec<ProtocolName>,
        /// Requests datagrams: the answer carries the descriptor of a SOCK_SEQPACKET socket.
        #[serde(default)]
        datagrams: bool,
    },
    /// Serves these protocols while this connection lasts.
    Serve {
        /// This program's protocols, the preferred first.
        protocols: Vec<ProtocolName>,
        /// Target of streams: `unix:PATH`, `ADDR:PORT`; none: as descriptors over this connection.
        #[serde(default)]
        to: Option<String>,
        /// Permitted nodes: names, PeerIds, `label:KEY=VALUE`.
        #[serde(default)]
        allow: Vec<String>,
        /// Permits all members.
        #[serde(default)]
        allow_all: bool,
        /// Sends a Unix socket target a line of JSON with the peer before each stream.
        #[serde(default = "yes")]
        header: bool,
        /// Accepts datagrams, not streams: descriptors are SOCK_SEQPACKET sockets.
        #[serde(default)]
        datagrams: bool,
        /// Each stream is a command's: a second descriptor takes its [`Report`].
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        reports: bool,
        /// Permits the keys among these nodes also from outside of this host's networks. A later
        /// line [`Amend`] replaces the nodes.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        outside: bool,
        /// Permits any key from outside of this host's networks.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        anyone: bool,
    },
    /// Answered with [`End`] when this stream has ended. A program that closes the connection
    /// before aborts the stream.
    End {
        /// The number in the answer to `connect`.
        stream: u64,
    },
    /// Requests [`Status`].
    Status,
    /// Requests [`OutsideLook`].
    Outside,
}

/// A line on a serving connection: the nodes that are permitted from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Amend {
    /// As in [`Request::Serve`].
    pub allow: Vec<String>,
}

/// Keys outside of this host's networks that may call, or are sought.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutsideLook {
    /// The key of this host outside.
    pub own: PeerId,
    /// The others.
    pub pairs: Vec<OutsidePair>,
    /// What anyone may use, if this host's key is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<OutsideOpen>,
    /// Drops of the program for them, by reason.
    pub drops: BTreeMap<String, u64>,
    /// Why the program for them does not run, if it is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absent: Option<String>,
}

/// The open key of this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutsideOpen {
    /// Protocols that anyone may use.
    pub protocols: Vec<ProtocolName>,
    /// Callers with a link.
    pub callers: usize,
    /// Most callers.
    pub most: usize,
    /// Carriers by which it is found; those that do not work are in brackets.
    pub by: Vec<String>,
    /// Where callers reach it, or what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached: Option<String>,
}

/// A key outside of this host's networks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutsidePair {
    /// The key.
    pub key: PeerId,
    /// Its name in an address book.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `waits`, `linking`, `linked`.
    pub state: String,
    /// The kind of path of its link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The round trip of its link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
    /// The carrier by which they met.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found_by: Option<String>,
    /// Carriers by which it is found; those that do not work are in brackets.
    pub by: Vec<String>,
    /// Whether a service names it.
    pub named: bool,
    /// Whether a stream to it is wanted, or open.
    pub sought: bool,
}

fn yes() -> bool {
    true
}

/// The answer, or a message on a serving connection.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Answer<T> {
    /// Success.
    Ok {
        /// The result.
        ok: T,
    },
    /// A refusal.
    Error {
        /// The reason, in words.
        error: String,
        /// The reason, as a code.
        reason: Reason,
    },
}

/// The end of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Both sides have sent all.
    Finished,
    /// The stream was aborted.
    Reset,
    /// The command at the other side exited with this code, and all its output has arrived.
    Exited(u8),
    /// This signal killed the command at the other side, and all its output before has arrived.
    Killed(u8),
}

/// The stream daemon's counters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Nodes with a connection.
    pub connections: usize,
    /// Open streams, in both directions.
    pub streams: usize,
    /// Protocols served here.
    pub serving: Vec<ProtocolName>,
    /// Streams opened from here.
    pub opened: u64,
    /// Streams accepted from other nodes.
    pub accepted: u64,
    /// Bytes received over streams.
    pub rx_bytes: u64,
    /// Bytes sent over streams.
    pub tx_bytes: u64,
    /// Refused connections and streams, by reason.
    pub refused: BTreeMap<String, u64>,
}

/// An open stream: bytes in order, in both directions.
#[derive(Debug)]
pub struct Stream {
    socket: UnixStream,
    peer: Peer,
}

impl Stream {
    /// Returns the peer, with the protocol.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Ends writing; reading continues. The other side reads an end.
    ///
    /// # Errors
    /// The stream is over.
    pub fn finish(&self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)
    }

    /// Returns a second handle: one thread can read while another writes.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            socket: self.socket.try_clone()?,
            peer: self.peer.clone(),
        })
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.socket.read(buf)
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.socket.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl From<Stream> for OwnedFd {
    fn from(stream: Stream) -> Self {
        stream.socket.into()
    }
}

/// Opens a stream to a program on `node`: in the first protocol of the other side's preference.
pub fn connect(node: &str, protocols: &[ProtocolName]) -> Result<Stream, StreamError> {
    connect_at(&default_socket(), node, protocols)
}

/// The same over the stream daemon at this socket.
pub fn connect_at(
    socket: &Path,
    node: &str,
    protocols: &[ProtocolName],
) -> Result<Stream, StreamError> {
    let request = Request::Connect {
        node: node.to_owned(),
        protocols: protocols.to_vec(),
        datagrams: false,
    };
    let (socket, peer) = ask(socket, &request)?;
    Ok(Stream { socket, peer })
}

/// Waits for the end of the stream of this number.
pub fn end_of(socket: &Path, stream: u64) -> Result<End, StreamError> {
    Ending::of(socket, stream)?.wait()
}

/// The future end of a stream. Dropping it, or the stream, before the end aborts the stream.
#[derive(Debug)]
pub struct Ending {
    socket: UnixStream,
}

impl Ending {
    /// Requests the end of the stream of this number.
    pub fn of(socket: &Path, stream: u64) -> Result<Self, StreamError> {
        let socket = send_request(socket, &Request::End { stream })?;
        Ok(Self { socket })
    }

    /// Waits for the end of the stream.
    pub fn wait(&self) -> Result<End, StreamError> {
        read_answer(&mut &self.socket)
    }

    /// Aborts the stream: the other side does not take it for whole.
    pub fn give_up(&self) {
        // it may have ended already
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// Returns the keys outside of this host's networks, by the stream daemon at this socket.
pub fn outside(socket: &Path) -> Result<OutsideLook, StreamError> {
    let mut socket = send_request(socket, &Request::Outside)?;
    socket.set_read_timeout(Some(STATUS_TIMEOUT))?;
    read_answer(&mut socket)
}

/// Returns the counters of the stream daemon at this socket.
pub fn status(socket: &Path) -> Result<Status, StreamError> {
    let mut socket = send_request(socket, &Request::Status)?;
    socket.set_read_timeout(Some(STATUS_TIMEOUT))?;
    read_answer(&mut socket)
}

impl AsFd for Ending {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Nodes that may open streams to a program; none by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Names, PeerIds, `label:KEY=VALUE`.
    pub nodes: Vec<String>,
    /// All members.
    pub all: bool,
    /// The keys among `nodes` also from outside of this host's networks.
    pub outside: bool,
    /// Any key from outside of this host's networks.
    pub anyone: bool,
}

/// Accepts streams in some protocols, until it is dropped.
#[derive(Debug)]
pub struct Listener {
    socket: UnixStream,
}

impl Listener {
    /// Serves these protocols, the preferred first, to permitted nodes.
    pub fn bind(protocols: &[ProtocolName], allowed: &Allowed) -> Result<Self, StreamError> {
        Self::bind_at(&default_socket(), protocols, allowed)
    }

    /// The same over the stream daemon at this socket.
    pub fn bind_at(
        socket: &Path,
        protocols: &[ProtocolName],
        allowed: &Allowed,
    ) -> Result<Self, StreamError> {
        Self::serve(socket, protocols, allowed, (false, false))
    }

    /// The same for commands with reports of their ends: [`Self::accept_command`].
    pub fn bind_commands_at(
        socket: &Path,
        protocols: &[ProtocolName],
        allowed: &Allowed,
    ) -> Result<Self, StreamError> {
        Self::serve(socket, protocols, allowed, (false, true))
    }

    /// Accepts datagrams in these protocols: [`Self::accept_datagrams`].
    pub fn bind_datagrams(
        protocols: &[ProtocolName],
        allowed: &Allowed,
    ) -> Result<Self, StreamError> {
        Self::serve(&default_socket(), protocols, allowed, (true, false))
    }

    fn serve(
        socket: &Path,
        protocols: &[ProtocolName],
        allowed: &Allowed,
        (datagrams, reports): (bool, bool),
    ) -> Result<Self, StreamError> {
        let request = Request::Serve {
            protocols: protocols.to_vec(),
            to: None,
            allow: allowed.nodes.clone(),
            allow_all: allowed.all,
            header: true,
            datagrams,
            reports,
            outside: allowed.outside,
            anyone: allowed.anyone,
        };
        let (socket, _) = ask::<serde_json::Value>(socket, &request)?;
        Ok(Self { socket })
    }

    /// Makes [`Self::accept`] return at once, with [`io::ErrorKind::WouldBlock`] if no stream waits.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.socket.set_nonblocking(nonblocking)
    }

    /// Ends serving, also for a thread that waits in [`Self::accept`].
    pub fn close(&self) {
        // the stream daemon may have closed it already
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Replaces the permitted nodes; streams of others end.
    ///
    /// # Errors
    /// The stream daemon is gone.
    pub fn amend(&self, allow: &[String]) -> Result<(), StreamError> {
        let amend = Amend {
            allow: allow.to_vec(),
        };
        Ok(write_line(&mut &self.socket, &amend)?)
    }

    /// Waits for the next peer with datagrams.
    ///
    /// # Errors
    /// The stream daemon is gone.
    pub fn accept_datagrams(&self) -> Result<Datagrams, StreamError> {
        let (peer, mut sockets) = receive_line(&self.socket)?;
        let peer = serde_json::from_slice(&peer);
        match (peer, sockets.pop()) {
            (Ok(peer), Some(socket)) => Ok(Datagrams { socket, peer }),
            _ => Err(StreamError::Answer("no datagrams".into())),
        }
    }

    /// Waits for the next stream.
    ///
    /// # Errors
    /// The stream daemon is gone.
    pub fn accept(&self) -> Result<Stream, StreamError> {
        Ok(self.accept_with_sockets()?.0)
    }

    /// Waits for the next stream of [`Self::bind_commands_at`]; returns it with the report for its
    /// command.
    ///
    /// # Errors
    /// The stream daemon is gone.
    pub fn accept_command(&self) -> Result<(Stream, Report), StreamError> {
        let (stream, mut sockets) = self.accept_with_sockets()?;
        let socket = sockets
            .next()
            .ok_or_else(|| StreamError::Answer("no report".into()))?;
        let report = Report {
            socket: socket.into(),
        };
        Ok((stream, report))
    }

    /// Waits for the next stream; returns it with the other sockets that came.
    fn accept_with_sockets(&self) -> Result<(Stream, std::vec::IntoIter<OwnedFd>), StreamError> {
        let (text, sockets) = receive_line(&self.socket)?;
        let mut sockets = sockets.into_iter();
        match (serde_json::from_slice(&text), sockets.next()) {
            (Ok(peer), Some(socket)) => {
                let stream = Stream {
                    socket: socket.into(),
                    peer,
                };
                Ok((stream, sockets))
            }
            _ => Err(StreamError::Answer(String::from_utf8_lossy(&text).into())),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The report of a command's end. Dropping it without a report aborts the stream.
#[derive(Debug)]
pub struct Report {
    socket: UnixStream,
}

impl Report {
    /// Reports [`End::Exited`] or [`End::Killed`]; must precede the end of the stream.
    ///
    /// # Errors
    /// The stream has ended.
    pub fn ended(&self, end: End) -> io::Result<()> {
        self.say(end)?;
        // wakes a thread that waits in `broke_off`
        self.socket.shutdown(Shutdown::Both)
    }

    /// Waits for the stream's end; true if it was aborted. The command's input may then fail, until
    /// [`Self::passed_on`] answers.
    pub fn broke_off(&self) -> bool {
        let line = read_line(&mut &self.socket);
        line.is_ok_and(|line| matches!(serde_json::from_slice(&line), Ok(End::Reset)))
    }

    /// Confirms that the command knows of the abort.
    pub fn passed_on(&self) {
        // the peer may be gone
        let _ = self.say(End::Reset);
    }

    fn say(&self, end: End) -> io::Result<()> {
        write_line(&mut &self.socket, &end)
    }
}

/// Datagrams to and from a program on another node: each arrives whole and once, or not at all.
#[derive(Debug)]
pub struct Datagrams {
    socket: OwnedFd,
    peer: Peer,
}

impl Datagrams {
    /// Opens datagrams to a program on `node`, as [`connect`] does a stream.
    pub fn connect(node: &str, protocols: &[ProtocolName]) -> Result<Self, StreamError> {
        let request = Request::Connect {
            node: node.to_owned(),
            protocols: protocols.to_vec(),
            datagrams: true,
        };
        let path = default_socket();
        let socket = send_request(&path, &request)?;
        let (answer, mut sockets) = receive_line(&socket)?;
        match (serde_json::from_slice(&answer), sockets.pop()) {
            (Ok(Answer::Ok { ok: peer }), Some(socket)) => Ok(Self { socket, peer }),
            (Ok(Answer::Error { error, reason }), _) => Err(StreamError::Refused(reason, error)),
            _ => Err(StreamError::Answer(String::from_utf8_lossy(&answer).into())),
        }
    }

    /// Returns the peer, with the protocol and the longest datagram.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Sends a datagram of 1 to [`Peer::datagram_bytes`] bytes; longer ones are lost.
    ///
    /// # Errors
    /// The other side has ended.
    pub fn send(&self, datagram: &[u8]) -> io::Result<usize> {
        Ok(send(self.socket.as_raw_fd(), datagram, MsgFlags::empty())?)
    }

    /// Waits for a datagram; 0 once the other side has ended.
    ///
    /// # Errors
    /// The connection to the stream daemon broke.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(recv(self.socket.as_raw_fd(), buffer, MsgFlags::empty())?)
    }
}

/// Flag that closes received descriptors at exec; a system without one needs another call.
const RECEIVE: MsgFlags = {
    #[cfg(target_os = "linux")]
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    #[cfg(not(target_os = "linux"))]
    let flags = MsgFlags::empty();
    flags
};

fn receive_line(socket: &UnixStream) -> Result<(Vec<u8>, Vec<OwnedFd>), StreamError> {
    let mut line = vec![0; MAX_LINE];
    let mut space = nix::cmsg_space!([std::os::fd::RawFd; 2]);
    let (count, fds) = loop {
        let mut slices = [IoSliceMut::new(&mut line)];
        match recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), RECEIVE) {
            Ok(message) => {
                let rights = message.cmsgs().map_err(io::Error::from)?;
                let fds = rights.flat_map(|control| match control {
                    ControlMessageOwned::ScmRights(fds) => fds,
                    _ => Vec::new(),
                });
                // SAFETY: the kernel has just made these descriptors for this process alone
                let fds = fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
                let fds: Vec<_> = fds.collect();
                if RECEIVE.is_empty() {
                    for fd in &fds {
                        fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))
                            .map_err(io::Error::from)?;
                    }
                }
                break (message.bytes, fds);
            }
            Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(io::Error::from(e).into()),
        }
    };
    if count == 0 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    line.truncate(count);
    Ok((line, fds))
}

/// Returns the socket of a user's own stream daemon if it exists, else the host's.
fn default_socket() -> PathBuf {
    let mut sockets = control_sockets().into_iter().map(|path| socket_of(&path));
    let first = sockets.next().unwrap_or_default();
    match first.exists() {
        true => first,
        false => sockets.next().unwrap_or(first),
    }
}

/// Sends a request; returns the connection, read up to the end of the answer.
fn ask<T: for<'de> Deserialize<'de>>(
    path: &Path,
    request: &Request,
) -> Result<(UnixStream, T), StreamError> {
    let mut socket = send_request(path, request)?;
    let answer = read_answer(&mut socket)?;
    Ok((socket, answer))
}

fn read_answer<T: for<'de> Deserialize<'de>>(socket: &mut impl Read) -> Result<T, StreamError> {
    let answer = read_line(socket)?;
    match serde_json::from_slice(&answer) {
        Ok(Answer::Ok { ok }) => Ok(ok),
        Ok(Answer::Error { error, reason }) => Err(StreamError::Refused(reason, error)),
        Err(_) => Err(StreamError::Answer(String::from_utf8_lossy(&answer).into())),
    }
}

fn send_request(path: &Path, request: &Request) -> Result<UnixStream, StreamError> {
    let no_program = |e| StreamError::NoProgram(path.to_owned(), e);
    let mut socket = UnixStream::connect(path).map_err(no_program)?;
    write_line(&mut socket, request)?;
    Ok(socket)
}

/// Reads a line, and no byte after it.
fn read_line(socket: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < MAX_LINE {
        socket.read_exact(&mut byte)?;
        if byte == *b"\n" {
            return Ok(line);
        }
        line.extend(byte);
    }
    Err(io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, IoSlice};
    use std::os::unix::net::UnixListener;
    use std::thread;

    use nix::sys::socket::{ControlMessage, sendmsg};

    use super::*;
    use crate::id::SecretKey;

    /// A stream daemon that answers one request, and then runs `then`.
    fn program(
        answer: String,
        then: impl FnOnce(UnixStream) + Send + 'static,
    ) -> (tempfile::TempDir, PathBuf, thread::JoinHandle<String>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("streams.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let told = thread::spawn(move || {
            let (socket, _) = listener.accept().unwrap();
            let mut request = String::new();
            let mut reader = BufReader::new(socket.try_clone().unwrap());
            reader.read_line(&mut request).unwrap();
            (&socket).write_all(answer.as_bytes()).unwrap();
            then(socket);
            request
        });
        (folder, path, told)
    }

    fn peer() -> Peer {
        Peer {
            peer: SecretKey::from_seed(&[1; 32]).peer_id(),
            name: "beta".into(),
            labels: BTreeMap::new(),
            protocol: "/x/1".parse().unwrap(),
            stream: None,
            datagram_bytes: None,
            outside: false,
        }
    }

    fn protocols() -> Vec<ProtocolName> {
        vec!["/x/2".parse().unwrap(), "/x/1".parse().unwrap()]
    }

    #[test]
    fn after_the_answer_the_connection_is_the_stream() {
        let answer = serde_json::json!({ "ok": peer() });
        let (_folder, path, told) = program(format!("{answer}\nfirst"), |mut socket| {
            let mut all = String::new();
            socket.read_to_string(&mut all).unwrap();
            socket.write_all(all.as_bytes()).unwrap();
        });
        let mut stream = connect_at(&path, "beta", &protocols()).unwrap();
        assert_eq!(stream.peer(), &peer());
        stream.write_all(b", second").unwrap();
        stream.finish().unwrap();
        let mut all = String::new();
        stream.read_to_string(&mut all).unwrap();
        assert_eq!(all, "first, second");
        let request: Request = serde_json::from_str(&told.join().unwrap()).unwrap();
        let (node, protocols) = ("beta".to_owned(), protocols());
        let datagrams = false;
        let expected = Request::Connect {
            node,
            protocols,
            datagrams,
        };
        assert_eq!(request, expected);
    }

    #[test]
    fn a_listener_is_handed_streams() {
        let (_folder, path, told) = program("{\"ok\":{}}\n".into(), |socket| {
            for n in [b"1", b"2"] {
                let (ours, mut theirs) = UnixStream::pair().unwrap();
                theirs.write_all(n).unwrap();
                let line = serde_json::to_string(&peer()).unwrap() + "\n";
                let fds = [ours.as_raw_fd()];
                let rights = [ControlMessage::ScmRights(&fds)];
                let slices = [IoSlice::new(line.as_bytes())];
                let (fd, flags) = (socket.as_raw_fd(), MsgFlags::empty());
                sendmsg::<()>(fd, &slices, &rights, flags, None).unwrap();
            }
        });
        let listener = Listener::bind_at(&path, &protocols(), &Allowed::default()).unwrap();
        told.join().unwrap();
        for n in ["1", "2"] {
            let mut stream = listener.accept().unwrap();
            assert_eq!(stream.peer().name, "beta");
            let mut all = String::new();
            stream.read_to_string(&mut all).unwrap();
            assert_eq!(all, n);
        }
        assert!(matches!(listener.accept(), Err(StreamError::Io(_))));
    }

    #[test]
    fn a_listener_without_streams_does_not_wait_if_it_must_not_and_can_be_closed() {
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let (_folder, path, told) = program("{\"ok\":{}}\n".into(), move |socket| {
            // until the test has looked
            let _ = ended.recv();
            drop(socket);
        });
        let listener = Listener::bind_at(&path, &protocols(), &Allowed::default()).unwrap();
        listener.set_nonblocking(true).unwrap();
        let nothing = listener.accept();
        assert!(
            matches!(&nothing, Err(StreamError::Io(e)) if e.kind() == io::ErrorKind::WouldBlock),
            "{nothing:?}"
        );
        listener.set_nonblocking(false).unwrap();
        thread::scope(|scope| {
            let waits = scope.spawn(|| listener.accept());
            listener.close();
            assert!(matches!(waits.join().unwrap(), Err(StreamError::Io(_))));
        });
        drop(end);
        told.join().unwrap();
    }

    #[test]
    fn the_end_of_a_stream_is_awaited_or_given_up() {
        for (answer, expected) in [
            ("{\"ok\":\"finished\"}\n", End::Finished),
            ("{\"ok\":\"reset\"}\n", End::Reset),
            ("{\"ok\":{\"exited\":3}}\n", End::Exited(3)),
            ("{\"ok\":{\"killed\":9}}\n", End::Killed(9)),
        ] {
            let (_folder, path, _) = program(answer.into(), drop);
            assert_eq!(end_of(&path, 7).unwrap(), expected);
        }
        let (_folder, path, told) = program(String::new(), |mut socket| {
            // until it is aborted
            assert_eq!(socket.read(&mut [0]).unwrap(), 0);
        });
        let ending = Ending::of(&path, 7).unwrap();
        ending.give_up();
        ending.wait().unwrap_err();
        let request = told.join().unwrap();
        assert_eq!(request, "{\"cmd\":\"end\",\"stream\":7}\n");
    }

    #[test]
    fn a_command_is_reported_on_beside_its_stream() {
        let (report_of_program, report) = UnixStream::pair().unwrap();
        let (_folder, path, told) = program("{\"ok\":{}}\n".into(), move |socket| {
            for number in 1..=2 {
                let (ours, _theirs) = UnixStream::pair().unwrap();
                let line = serde_json::to_string(&peer()).unwrap() + "\n";
                let fds = [ours.as_raw_fd(), report.as_raw_fd()];
                let rights = [ControlMessage::ScmRights(&fds[..number])];
                let slices = [IoSlice::new(line.as_bytes())];
                let (fd, flags) = (socket.as_raw_fd(), MsgFlags::empty());
                sendmsg::<()>(fd, &slices, &rights, flags, None).unwrap();
            }
        });
        let listener =
            Listener::bind_commands_at(&path, &protocols(), &Allowed::default()).unwrap();
        let request = told.join().unwrap();
        assert!(request.contains("\"reports\":true"), "{request}");
        let without = listener.accept_command();
        assert!(matches!(without, Err(StreamError::Answer(_))));
        let (_stream, report) = listener.accept_command().unwrap();
        (&report_of_program).write_all(b"\"reset\"\n").unwrap();
        assert!(report.broke_off());
        report.passed_on();
        report.ended(End::Killed(15)).unwrap();
        assert!(!report.broke_off(), "nobody waits once it is reported on");
        let mut said = String::new();
        (&report_of_program).read_to_string(&mut said).unwrap();
        assert_eq!(said, "\"reset\"\n{\"killed\":15}\n");
    }

    #[test]
    fn refusals_and_garbage_are_errors() {
        let refusal = "{\"error\":\"beta does not allow it\",\"reason\":\"refused\"}\n";
        for (answer, expected) in [
            (refusal, "beta does not allow it"),
            ("nonsense\n", "something else"),
            ("", "program for streams"),
        ] {
            let (_folder, path, _) = program(answer.into(), drop);
            let error = connect_at(&path, "beta", &protocols()).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
        let nowhere = Path::new("/nowhere/streams.sock");
        let error = connect_at(nowhere, "beta", &protocols()).unwrap_err();
        assert!(error.to_string().contains("lcroute-streams"), "{error}");
    }
}
