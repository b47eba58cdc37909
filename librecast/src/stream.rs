//! Streams and datagrams to a program on another node, by its name or PeerId: encrypted from end to end, wherever that node is.
//!
//! The program for streams of this host, which `lcroute serve` and `lcroute connect` start where no service runs it, answers on a
//! Unix socket. This module says what is said there (docs/protocol.md, "Streams"): any language with Unix sockets can do the same.
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

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recv, recvmsg, send};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::announce::{control_sockets, socket_beside};
use crate::id::PeerId;
pub use crate::protocol_name::{BadProtocolName, MAX_PROTOCOL_NAME, ProtocolName};

/// What a program for streams counts, it says within so long.
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest line of JSON, in bytes.
pub const MAX_LINE: usize = 64 * 1024;

/// Where the program for streams answers, beside this control socket.
#[must_use]
pub fn socket_of(control: &Path) -> PathBuf {
    socket_beside(control, "streams")
}

/// Why there is no stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The request cannot be read, or makes no sense.
    BadRequest,
    /// The node is not known, away, has no program for streams, or does not answer.
    Unreachable,
    /// The node does not allow this one to speak any of the protocols.
    Refused,
    /// The nodes have no protocol in common.
    NoneCommon,
    /// What serves the protocol there cannot be reached, or there are too many streams.
    Unavailable,
}

/// Why there is no stream.
#[derive(Debug, Error)]
pub enum StreamError {
    /// No program for streams answers on this host.
    #[error(
        "{0}: {1}: no program for streams answers here: systemctl enable --now lcroute-streams.socket, or `lcroute streams`"
    )]
    NoProgram(PathBuf, io::Error),
    /// It says why not.
    #[error("{1}")]
    Refused(Reason, String),
    /// What it says is not understood.
    #[error("the program for streams answers something else: {0}")]
    Answer(String),
    /// The connection to it broke.
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
    /// What both speak.
    pub protocol: ProtocolName,
    /// The stream's number on this host, where this host has opened it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<u64>,
    /// The longest datagram in bytes, where both send datagrams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datagram_bytes: Option<usize>,
}

/// What is asked on the socket, one JSON object a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cmd", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// From the answer on this connection is the stream.
    Connect {
        /// A name, a PeerId or an address.
        node: String,
        /// What this program speaks, what it likes best first.
        protocols: Vec<ProtocolName>,
        /// Datagrams are wanted: with the answer comes a descriptor, a socket that keeps them apart (SOCK_SEQPACKET).
        #[serde(default)]
        datagrams: bool,
    },
    /// These protocols are served as long as this connection lasts.
    Serve {
        /// What this program speaks, what it likes best first.
        protocols: Vec<ProtocolName>,
        /// Where streams go: `unix:PATH`, `ADDR:PORT`, or nowhere: then each comes over this connection, as a descriptor.
        #[serde(default)]
        to: Option<String>,
        /// Which nodes may: names, PeerIds, `label:KEY=VALUE`.
        #[serde(default)]
        allow: Vec<String>,
        /// All members may.
        #[serde(default)]
        allow_all: bool,
        /// A Unix socket is told who comes, by a line of JSON before the stream.
        #[serde(default = "yes")]
        header: bool,
        /// Datagrams are taken, not streams: descriptors are of sockets that keep them apart (SOCK_SEQPACKET).
        #[serde(default)]
        datagrams: bool,
        /// Each stream is a command's: beside it comes a second descriptor, on which this program reports how it ended ([`Report`]).
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        reports: bool,
    },
    /// Answered when the stream of this number has ended: [`End`]. A program that closes the connection before has given the stream
    /// up: it breaks off.
    End {
        /// The number that `connect` was told.
        stream: u64,
    },
    /// What there is: [`Status`].
    Status,
}

fn yes() -> bool {
    true
}

/// The answer, or what comes on a connection that serves.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Answer<T> {
    /// As asked.
    Ok {
        /// What was asked for.
        ok: T,
    },
    /// Why not.
    Error {
        /// In words.
        error: String,
        /// In one.
        reason: Reason,
    },
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Both sides have sent all.
    Finished,
    /// It broke off.
    Reset,
    /// The command at the other side has ended with this exit code, and all that it wrote has come.
    Exited(u8),
    /// The command at the other side was ended by this signal, and all that it wrote before has come.
    Killed(u8),
}

/// What the program for streams counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Nodes with which there is a connection.
    pub connections: usize,
    /// Streams that are open, in both directions.
    pub streams: usize,
    /// Protocols that are served here.
    pub serving: Vec<ProtocolName>,
    /// Streams that were opened from here so far.
    pub opened: u64,
    /// Streams that came from others so far.
    pub accepted: u64,
    /// Bytes that streams brought here.
    pub rx_bytes: u64,
    /// Bytes that streams took from here.
    pub tx_bytes: u64,
    /// Connections and streams that were refused, by reason.
    pub refused: BTreeMap<String, u64>,
}

/// An open stream: what one side writes the other reads, in order and whole.
#[derive(Debug)]
pub struct Stream {
    socket: UnixStream,
    peer: Peer,
}

impl Stream {
    /// Who is at the other end, and what both speak.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Nothing more is written; reading goes on. The other side reads an end.
    ///
    /// # Errors
    /// The stream is over.
    pub fn finish(&self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)
    }

    /// A second handle: one thread reads while another writes.
    ///
    /// # Errors
    /// There are too many open files.
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

/// Opens a stream to a program on `node`, its name, PeerId or address, in the first protocol that the other side likes of these.
///
/// # Errors
/// [`StreamError`] says why not.
pub fn connect(node: &str, protocols: &[ProtocolName]) -> Result<Stream, StreamError> {
    connect_at(&default_socket(), node, protocols)
}

/// The same by the program for streams at this socket.
///
/// # Errors
/// [`StreamError`] says why not.
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

/// Waits until the stream of this number has ended, and says how.
///
/// # Errors
/// [`StreamError`] says why not.
pub fn end_of(socket: &Path, stream: u64) -> Result<End, StreamError> {
    Ending::of(socket, stream)?.wait()
}

/// The end of a stream that goes on. If this is dropped before the end, or the stream is, the stream breaks off.
#[derive(Debug)]
pub struct Ending {
    socket: UnixStream,
}

impl Ending {
    /// Asks for the end of the stream of this number.
    ///
    /// # Errors
    /// [`StreamError`] says why not.
    pub fn of(socket: &Path, stream: u64) -> Result<Self, StreamError> {
        let socket = send_request(socket, &Request::End { stream })?;
        Ok(Self { socket })
    }

    /// Waits until the stream has ended, and says how.
    ///
    /// # Errors
    /// [`StreamError`] says why not.
    pub fn wait(&self) -> Result<End, StreamError> {
        read_answer(&mut &self.socket)
    }

    /// Breaks the stream off: the other side does not take it for whole.
    pub fn give_up(&self) {
        // it may be over already
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// What the program for streams at this socket counts.
///
/// # Errors
/// [`StreamError`] says why not.
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

/// Which nodes may speak with a program; nobody by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Names, PeerIds, `label:KEY=VALUE`.
    pub nodes: Vec<String>,
    /// All members.
    pub all: bool,
}

/// Takes streams in some protocols, as long as it lives.
#[derive(Debug)]
pub struct Listener {
    socket: UnixStream,
}

impl Listener {
    /// Serves these protocols, what it likes best first, to those who may.
    ///
    /// # Errors
    /// [`StreamError`] says why not.
    pub fn bind(protocols: &[ProtocolName], allowed: &Allowed) -> Result<Self, StreamError> {
        Self::bind_at(&default_socket(), protocols, allowed)
    }

    /// The same by the program for streams at this socket.
    ///
    /// # Errors
    /// [`StreamError`] says why not.
    pub fn bind_at(
        socket: &Path,
        protocols: &[ProtocolName],
        allowed: &Allowed,
    ) -> Result<Self, StreamError> {
        Self::serve(socket, protocols, allowed, (false, false))
    }

    /// The same for commands, whose ends are reported: [`Self::accept_command`]. A program for streams of an earlier version hears no
    /// reports.
    ///
    /// # Errors
    /// [`StreamError`] says why not.
    pub fn bind_commands_at(
        socket: &Path,
        protocols: &[ProtocolName],
        allowed: &Allowed,
    ) -> Result<Self, StreamError> {
        match Self::serve(socket, protocols, allowed, (false, true)) {
            Err(StreamError::Refused(Reason::BadRequest, why)) if why.contains("reports") => {
                Self::bind_at(socket, protocols, allowed)
            }
            bound => bound,
        }
    }

    /// Takes datagrams in these protocols: [`Self::accept_datagrams`].
    ///
    /// # Errors
    /// [`StreamError`] says why not.
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
        };
        let (socket, _) = ask::<serde_json::Value>(socket, &request)?;
        Ok(Self { socket })
    }

    /// The next program that sends datagrams; waits for it.
    ///
    /// # Errors
    /// The program for streams has gone.
    pub fn accept_datagrams(&self) -> Result<Datagrams, StreamError> {
        let (peer, mut sockets) = receive_line(&self.socket)?;
        let peer = serde_json::from_slice(&peer);
        match (peer, sockets.pop()) {
            (Ok(peer), Some(socket)) => Ok(Datagrams { socket, peer }),
            _ => Err(StreamError::Answer("no datagrams".into())),
        }
    }

    /// The next stream; waits for it.
    ///
    /// # Errors
    /// The program for streams has gone.
    pub fn accept(&self) -> Result<Stream, StreamError> {
        Ok(self.accept_command()?.0)
    }

    /// The next stream, and where to report how its command has ended; waits for it.
    ///
    /// # Errors
    /// The program for streams has gone.
    pub fn accept_command(&self) -> Result<(Stream, Option<Report>), StreamError> {
        let (text, sockets) = receive_line(&self.socket)?;
        let mut sockets = sockets.into_iter();
        match (serde_json::from_slice(&text), sockets.next()) {
            (Ok(peer), Some(socket)) => {
                let stream = Stream {
                    socket: socket.into(),
                    peer,
                };
                let report = sockets.next();
                let report = report.map(|socket| Report {
                    socket: socket.into(),
                });
                Ok((stream, report))
            }
            _ => Err(StreamError::Answer(String::from_utf8_lossy(&text).into())),
        }
    }
}

/// Where a program that serves commands reports how one ended. Dropped without a report, the stream breaks off.
#[derive(Debug)]
pub struct Report {
    socket: UnixStream,
}

impl Report {
    /// The command has ended so: [`End::Exited`] or [`End::Killed`]. To be reported before the command's end of the stream is closed.
    ///
    /// # Errors
    /// The stream is over.
    pub fn ended(&self, end: End) -> io::Result<()> {
        self.say(end)?;
        // a thread that waits in `broke_off` ends
        self.socket.shutdown(Shutdown::Both)
    }

    /// Waits until the stream broke off, or is reported on; true if it broke off. The command's input may then be made to fail, until
    /// this is answered by [`Self::passed_on`].
    #[must_use]
    pub fn broke_off(&self) -> bool {
        let line = read_line(&mut &self.socket);
        line.is_ok_and(|line| matches!(serde_json::from_slice(&line), Ok(End::Reset)))
    }

    /// The command has been told that the stream broke off.
    pub fn passed_on(&self) {
        // nobody may wait for it any more
        let _ = self.say(End::Reset);
    }

    fn say(&self, end: End) -> io::Result<()> {
        let mut line = serde_json::to_vec(&end)?;
        line.push(b'\n');
        (&self.socket).write_all(&line)
    }
}

/// Datagrams to and from a program on another node: each comes whole, once, or not at all.
#[derive(Debug)]
pub struct Datagrams {
    socket: OwnedFd,
    peer: Peer,
}

impl Datagrams {
    /// Opens them to a program on `node`, as [`connect`] does a stream.
    ///
    /// # Errors
    /// [`StreamError`] says why not.
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

    /// Who is at the other end, what both speak, and how long a datagram may be.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Sends one of 1 to [`Peer::datagram_bytes`] bytes; longer ones are dropped on their way.
    ///
    /// # Errors
    /// The other side has ended.
    pub fn send(&self, datagram: &[u8]) -> io::Result<usize> {
        let flags = MsgFlags::MSG_NOSIGNAL;
        Ok(send(self.socket.as_raw_fd(), datagram, flags)?)
    }

    /// Waits for one; 0 once the other side has ended.
    ///
    /// # Errors
    /// The connection to the program for streams broke.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(recv(self.socket.as_raw_fd(), buffer, MsgFlags::empty())?)
    }
}

/// A line that was sent as one message, and the descriptors that came with it.
fn receive_line(socket: &UnixStream) -> Result<(Vec<u8>, Vec<OwnedFd>), StreamError> {
    let mut line = vec![0; MAX_LINE];
    let mut space = nix::cmsg_space!([std::os::fd::RawFd; 2]);
    let (count, fds) = loop {
        let mut slices = [IoSliceMut::new(&mut line)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        match recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), flags) {
            Ok(message) => {
                let rights = message.cmsgs().map_err(io::Error::from)?;
                let fds = rights.flat_map(|control| match control {
                    ControlMessageOwned::ScmRights(fds) => fds,
                    _ => Vec::new(),
                });
                // SAFETY: the kernel has just made these descriptors for this process, and nobody else has them
                let fds = fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
                break (message.bytes, fds.collect());
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

/// The socket of a user's own program if he has one, else that of the host.
fn default_socket() -> PathBuf {
    let mut sockets = control_sockets().into_iter().map(|path| socket_of(&path));
    let first = sockets.next().unwrap_or_default();
    match first.exists() {
        true => first,
        false => sockets.next().unwrap_or(first),
    }
}

/// Asks, and gives the connection with nothing read from it but the answer.
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
    let mut line = serde_json::to_vec(request).map_err(|e| StreamError::Answer(e.to_string()))?;
    line.push(b'\n');
    socket.write_all(&line)?;
    Ok(socket)
}

/// A line, and no byte of what follows.
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

    /// A program for streams that answers one request, and then does as it is told.
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
            // until it is given up
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
        let (_stream, none) = listener.accept_command().unwrap();
        assert!(none.is_none(), "of an earlier version");
        let (_stream, report) = listener.accept_command().unwrap();
        let report = report.unwrap();
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
