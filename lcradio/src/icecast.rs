//! A server for programs that send sound to Icecast: BUTT, Mixxx, OBS, ffmpeg. One source at a time.

use std::io::{self, Cursor, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use lcradio_core::{FRAME, OPUS_HEAD};
use librecast::private_file;
use librecast_program::cli::{Exit, ExitError};
use zeroize::Zeroizing;

use crate::icecast_request::{MAX_HEAD, Refusal, Request, SourceHead, read};
use crate::ogg_opus::{Item, OggReader};
use crate::values::hint;

/// Time limit of a request's head.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// Silence after which a source has gone. Chosen: programs send several times a second.
const SILENCE: Duration = Duration::from_secs(30);
/// Delay of the answer to a wrong password: few guesses a second.
const WRONG_DELAY: Duration = Duration::from_secs(1);
/// Connections at a time, the source's included. Chosen: one source, titles, and some that are wrong.
const MAX_CONNECTIONS: usize = 8;
/// Titles that wait for the sound.
const MAX_TITLES: usize = 8;
/// Longest password, in bytes.
const MAX_PASSWORD: u64 = 256;
/// Bytes that decide about Ogg Opus: the first page, with the first header.
const FIRST_BYTES: usize = 64;
/// ffmpeg's options: samples, as `cast -` takes them.
const FFMPEG: &str =
    "-hide_banner -loglevel error -nostdin -i pipe:0 -f s16le -ar 48000 -ac 2 pipe:1";
/// The answer to a title.
const TITLE_TAKEN: &str = "HTTP/1.0 200 OK\r\nContent-Type: text/xml\r\n\r\n<?xml version=\"1.0\"?>\n\
    <iceresponse><message>Metadata update successful</message><return>1</return></iceresponse>\n";

/// A piece of a source's sound.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// Ogg Opus.
    Item(Item),
    /// A frame of 20 ms, interleaved, of two channels.
    Samples(Vec<i16>),
}

/// The sound of one source after the other.
pub struct Icecast {
    sources: Receiver<Accepted>,
    titles: Receiver<String>,
    current: Option<Playing>,
}

/// A source whose sound follows.
struct Accepted {
    head: SourceHead,
    stream: TcpStream,
    /// Sound behind the head.
    rest: Vec<u8>,
    place: Place,
}

/// The place of the one source, until it is dropped.
struct Place(Arc<AtomicBool>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// The sound of the present source.
struct Playing {
    sound: Sound,
    _place: Place,
}

enum Sound {
    Opus(OggReader<Box<dyn Read + Send>>),
    Decoded { ffmpeg: Child, samples: ChildStdout },
}

impl Drop for Sound {
    fn drop(&mut self) {
        if let Self::Decoded { ffmpeg, .. } = self {
            // it may have ended
            let _ = ffmpeg.kill();
            let _ = ffmpeg.wait();
        }
    }
}

impl Icecast {
    /// Listens at the address; sources prove the password in the file.
    pub fn listen(at: SocketAddr, password: &Path) -> anyhow::Result<Self> {
        let password = load_password(password)?;
        Self::serve(
            TcpListener::bind(at).with_context(|| at.to_string())?,
            password,
        )
    }

    fn serve(listener: TcpListener, password: Zeroizing<Vec<u8>>) -> anyhow::Result<Self> {
        let bound = listener.local_addr()?;
        let (to_sources, sources) = sync_channel(1);
        let (to_titles, titles) = sync_channel(MAX_TITLES);
        let server = Arc::new(Server {
            password,
            sources: to_sources,
            titles: to_titles,
            is_taken: Arc::default(),
            connections: AtomicUsize::new(0),
            wrong: AtomicU64::new(0),
        });
        thread::Builder::new()
            .name("icecast".into())
            .spawn(move || server.run(&listener))?;
        hint(format_args!(
            "waits for a source at {bound}: user source, any mount point, and the password of the file"
        ));
        Ok(Self {
            sources,
            titles,
            current: None,
        })
    }

    /// Returns the next piece; waits for a source if there is none.
    pub fn next(&mut self) -> io::Result<Piece> {
        loop {
            if let Ok(title) = self.titles.try_recv() {
                return Ok(Piece::Item(Item::Title(title)));
            }
            let Some(playing) = &mut self.current else {
                let accepted = self.sources.recv();
                let accepted = accepted.map_err(|_| io::Error::other("the server has ended"))?;
                let name = accepted.head.name.clone();
                match Playing::begin(accepted) {
                    Ok(playing) => self.current = Some(playing),
                    Err(e) => hint(format_args!("the source is not cast: {e}")),
                }
                if let (Some(name), true) = (name, self.current.is_some()) {
                    return Ok(Piece::Item(Item::Title(name)));
                }
                continue;
            };
            match playing.sound.next() {
                Ok(Some(piece)) => return Ok(piece),
                Ok(None) => hint("the source has left: waits for the next one"),
                Err(e) => hint(format_args!(
                    "the source has left ({e}): waits for the next one"
                )),
            }
            self.current = None;
        }
    }
}

fn load_password(file: &Path) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let bytes = private_file::read(file, MAX_PASSWORD)?;
    let password = bytes.trim_ascii();
    if password.is_empty() {
        let message = format!("{}: no password in it", file.display());
        return Err(ExitError::new(Exit::Usage, message).into());
    }
    Ok(Zeroizing::new(password.to_vec()))
}

impl Playing {
    fn begin(accepted: Accepted) -> io::Result<Self> {
        let mut stream = accepted.stream;
        stream.set_read_timeout(Some(SILENCE))?;
        let mut first = accepted.rest;
        let missing = FIRST_BYTES.saturating_sub(first.len());
        Read::by_ref(&mut stream)
            .take(missing as u64)
            .read_to_end(&mut first)?;
        let is_opus =
            first.starts_with(b"OggS") && first.windows(OPUS_HEAD.len()).any(|w| w == OPUS_HEAD);
        let input: Box<dyn Read + Send> = Box::new(Cursor::new(first).chain(stream));
        let sound = match is_opus {
            true => Sound::Opus(OggReader::open(input)?),
            false => decode(input)?,
        };
        Ok(Self {
            sound,
            _place: accepted.place,
        })
    }
}

/// Lets ffmpeg read another format.
fn decode(mut input: Box<dyn Read + Send>) -> io::Result<Sound> {
    let ffmpeg = Command::new("ffmpeg")
        .args(FFMPEG.split_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn();
    let mut ffmpeg = ffmpeg.map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => io::Error::other(
            "it is not Ogg Opus, and ffmpeg is not on this host: install the package ffmpeg, or send Ogg Opus",
        ),
        _ => e,
    })?;
    let (Some(mut to), Some(samples)) = (ffmpeg.stdin.take(), ffmpeg.stdout.take()) else {
        return Err(io::Error::other("ffmpeg has no pipes"));
    };
    let sound = Sound::Decoded { ffmpeg, samples };
    thread::Builder::new()
        .name("to ffmpeg".into())
        .spawn(move || {
            // it ends with the source, or with ffmpeg, and then the pipe does
            let _ = io::copy(&mut input, &mut to);
        })?;
    Ok(sound)
}

impl Sound {
    fn next(&mut self) -> io::Result<Option<Piece>> {
        match self {
            Self::Opus(reader) => Ok(reader.next()?.map(Piece::Item)),
            Self::Decoded { samples, .. } => {
                let length = FRAME as usize * 2 * 2;
                let mut bytes = Vec::with_capacity(length);
                samples.take(length as u64).read_to_end(&mut bytes)?;
                if bytes.is_empty() {
                    return Ok(None);
                }
                bytes.resize(length, 0);
                let (pairs, _) = bytes.as_chunks::<2>();
                let frame = pairs.iter().map(|pair| i16::from_le_bytes(*pair));
                Ok(Some(Piece::Samples(frame.collect())))
            }
        }
    }
}

/// The thread that accepts connections, and its state.
struct Server {
    password: Zeroizing<Vec<u8>>,
    sources: SyncSender<Accepted>,
    titles: SyncSender<String>,
    is_taken: Arc<AtomicBool>,
    connections: AtomicUsize,
    /// Requests with a wrong password, or none.
    wrong: AtomicU64,
}

impl Server {
    fn run(self: &Arc<Self>, listener: &TcpListener) {
        for stream in listener.incoming() {
            let stream = match stream {
                Ok(stream) => stream,
                Err(e) => {
                    // probably out of descriptors
                    tracing::warn!("connection: {e}");
                    thread::sleep(Duration::from_millis(100));
                    continue;
                }
            };
            if self.connections.load(Ordering::Relaxed) >= MAX_CONNECTIONS {
                continue;
            }
            self.connections.fetch_add(1, Ordering::Relaxed);
            let server = Arc::clone(self);
            let answering =
                thread::Builder::new()
                    .name("icecast request".into())
                    .spawn(move || {
                        if let Err(e) = server.answer(stream) {
                            tracing::debug!("connection: {e}");
                        }
                        server.connections.fetch_sub(1, Ordering::Relaxed);
                    });
            if let Err(e) = answering {
                tracing::warn!("connection: {e}");
                self.connections.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    fn answer(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_write_timeout(Some(HEAD_TIME))?;
        let (request, rest) = match self.request(&mut stream)? {
            Ok(request) => request,
            Err(refusal) => {
                if refusal == Refusal::Password {
                    self.count_wrong(&stream);
                    thread::sleep(WRONG_DELAY);
                }
                return stream.write_all(refusal.answer().as_bytes());
            }
        };
        match request {
            Request::Title(title) => {
                // a source that sends titles faster than sound loses some
                let _ = self.titles.try_send(title);
                stream.write_all(TITLE_TAKEN.as_bytes())
            }
            Request::Source(head) => self.accept(head, stream, rest),
        }
    }

    /// Reads a request; returns the bytes behind its head, too.
    fn request(&self, stream: &mut TcpStream) -> io::Result<Result<(Request, Vec<u8>), Refusal>> {
        let until = Instant::now() + HEAD_TIME;
        let (mut bytes, mut buffer) = (Vec::<u8>::new(), [0; 1_024]);
        loop {
            match read(&bytes, &self.password) {
                Ok(Some((request, length))) => return Ok(Ok((request, bytes.split_off(length)))),
                Ok(None) => {}
                Err(refusal) => return Ok(Err(refusal)),
            }
            debug_assert!(bytes.len() <= MAX_HEAD, "a longer head is refused");
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            stream.set_read_timeout(Some(left))?;
            match stream.read(&mut buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => bytes.extend_from_slice(&buffer[..length]),
            }
        }
    }

    fn accept(&self, head: SourceHead, mut stream: TcpStream, rest: Vec<u8>) -> io::Result<()> {
        if self.is_taken.swap(true, Ordering::Acquire) {
            let answer = "HTTP/1.0 403 Forbidden\r\n\r\nanother source is cast\n";
            return stream.write_all(answer.as_bytes());
        }
        let place = Place(Arc::clone(&self.is_taken));
        let answer = match head.expects_continue {
            true => "HTTP/1.1 100 Continue\r\n\r\n",
            false => "HTTP/1.0 200 OK\r\n\r\n",
        };
        stream.write_all(answer.as_bytes())?;
        let accepted = Accepted {
            head,
            stream,
            rest,
            place,
        };
        // the place is free once the last source was taken from it
        let sent = self.sources.send(accepted);
        sent.map_err(|_| io::Error::other("nobody casts any more"))
    }

    fn count_wrong(&self, stream: &TcpStream) {
        let wrong = self.wrong.fetch_add(1, Ordering::Relaxed) + 1;
        // a stranger that guesses does not fill the log
        if wrong.is_power_of_two()
            && let Ok(from) = stream.peer_addr()
        {
            tracing::warn!("{from}: a wrong password of a source, {wrong} in all");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use lcradio_core::{CLOCK_RATE, OggWriter};

    use super::*;

    /// Starts a server; returns its address, too.
    fn server() -> (Icecast, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let password = Zeroizing::new(b"hackme".to_vec());
        (Icecast::serve(listener, password).unwrap(), at)
    }

    fn send(at: SocketAddr, first: &str, password: &str, sound: &[u8]) -> TcpStream {
        let proof = data_encoding::BASE64.encode(format!("source:{password}").as_bytes());
        let head = format!("{first}\r\nAuthorization: Basic {proof}\r\nice-name: Home\r\n\r\n");
        let mut stream = TcpStream::connect(at).unwrap();
        // at once: the server may refuse the head
        stream
            .write_all(&[head.as_bytes(), sound].concat())
            .unwrap();
        stream
    }

    fn answer(mut stream: TcpStream) -> String {
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    /// Returns Ogg Opus without an end.
    fn opus(title: &str, packets: u8) -> Vec<u8> {
        let mut writer = OggWriter::new(Vec::new(), 7, 2, title, CLOCK_RATE / 10).unwrap();
        for n in 0..packets {
            writer.write(vec![31 << 3, n], 960).unwrap();
        }
        std::mem::take(writer.out_mut())
    }

    fn title(text: &str) -> Piece {
        Piece::Item(Item::Title(text.into()))
    }

    fn packet(n: u8) -> Piece {
        Piece::Item(Item::Packet(vec![31 << 3, n]))
    }

    #[test]
    fn ogg_opus_comes_as_it_is_while_the_source_goes_on_and_then_the_next_one() {
        let (mut icecast, at) = server();
        let first = "SOURCE /live HTTP/1.0";
        // a page ends with its sixth packet: the source is live, and more is not there yet
        let source = send(at, first, "hackme", &opus("one", 7));
        let expected = [title("Home"), title("one")];
        let expected = expected.into_iter().chain((0..6).map(packet));
        for piece in expected {
            assert_eq!(icecast.next().unwrap(), piece);
        }
        let other = answer(send(at, first, "hackme", b""));
        assert!(other.starts_with("HTTP/1.0 403"), "one at a time: {other}");
        let query = "GET /admin/metadata?mode=updinfo&song=Tea HTTP/1.0";
        assert!(answer(send(at, query, "hackme", b"")).contains("200 OK"));
        assert_eq!(icecast.next().unwrap(), title("Tea"));
        drop(source);
        let casts = thread::spawn(move || {
            loop {
                let mut source = send(at, first, "hackme", &opus("two", 7));
                let mut begin = [0; 12];
                let is_answered = source.read_exact(&mut begin).is_ok();
                // until the first one has gone
                if is_answered && begin == *b"HTTP/1.0 200" {
                    return source;
                }
            }
        });
        assert_eq!(icecast.next().unwrap(), title("Home"));
        assert_eq!(icecast.next().unwrap(), title("two"));
        assert_eq!(icecast.next().unwrap(), packet(0));
        drop(casts.join().unwrap());
    }

    #[test]
    fn a_wrong_password_is_refused() {
        let (_icecast, at) = server();
        let told = answer(send(at, "PUT /live HTTP/1.1", "guess", b""));
        assert!(
            told.starts_with("HTTP/1.0 401") && told.contains("Basic realm"),
            "{told}"
        );
    }

    #[test]
    fn a_password_needs_a_file_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, " \n").unwrap();
        for mode in [0o600, 0o644] {
            std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
            assert!(load_password(&file).is_err(), "{mode:o}");
        }
    }
}
