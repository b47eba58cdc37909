//! Data of a stream: from a socket of this host to QUIC and back. Each direction ends by itself; an
//! error of one breaks both, and the end of a command ends both. A waiting stream holds no buffer,
//! and the window bounds the data for a program that does not read.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use librecast::stream::End;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Shutdown, shutdown};
use quinn::{RecvStream, SendStream, VarInt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout};

use crate::framing::{self, Frames, Piece};
use crate::report::Report;
use crate::window::{Wider, Window};

/// Maximum number of bytes per read. Chosen: a burst of 50 packets.
const CHUNK: usize = 64 * 1024;
/// Interval of checks whether a program that has sent all has gone.
const GONE_INTERVAL: Duration = Duration::from_millis(200);
/// Time without a read after which a program counts as slow. Chosen: some read within milliseconds.
const BEHIND: Duration = Duration::from_millis(10);
/// Close code: the reader has all that it wanted.
const ENOUGH: VarInt = VarInt::from_u32(0);
/// Close code: the stream broke off.
const BROKEN: VarInt = VarInt::from_u32(1);

#[derive(Debug)]
pub enum Local {
    /// Connected by a Unix socket.
    Unix(UnixStream),
    /// Connected by TCP.
    Tcp(TcpStream),
}

/// Byte counters of all streams, or of one.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Bytes into this host.
    pub rx: AtomicU64,
    /// Bytes out of this host.
    pub tx: AtomicU64,
    /// The counters of all, if these are of one.
    all: Option<Arc<Self>>,
}

impl Traffic {
    /// Returns counters of one stream, which count for all streams, too.
    pub fn of_stream(all: &Arc<Self>) -> Self {
        Self {
            all: Some(Arc::clone(all)),
            ..Self::default()
        }
    }

    /// Counts bytes into this host.
    pub fn receive(&self, bytes: usize) {
        self.rx.fetch_add(bytes as u64, Relaxed);
        if let Some(all) = &self.all {
            all.receive(bytes);
        }
    }

    /// Counts bytes out of this host.
    pub fn send(&self, bytes: usize) {
        self.tx.fetch_add(bytes as u64, Relaxed);
        if let Some(all) = &self.all {
            all.send(bytes);
        }
    }

    /// Completes once no byte has passed for this time, or for at most twice as long.
    pub async fn silent(&self, after: Duration) {
        let bytes = || self.rx.load(Relaxed) + self.tx.load(Relaxed);
        loop {
            let before = bytes();
            sleep(after).await;
            if bytes() == before {
                return;
            }
        }
    }
}

impl Local {
    async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Unix(socket) => socket.readable().await,
            Self::Tcp(socket) => socket.readable().await,
        }
    }

    async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Unix(socket) => socket.writable().await,
            Self::Tcp(socket) => socket.writable().await,
        }
    }

    fn try_read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Unix(socket) => socket.try_read_buf(buffer),
            Self::Tcp(socket) => socket.try_read_buf(buffer),
        }
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(socket) => socket.try_write(bytes),
            Self::Tcp(socket) => socket.try_write(bytes),
        }
    }

    async fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            self.writable().await?;
            match self.try_write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(socket) => socket.as_fd(),
            Self::Tcp(socket) => socket.as_fd(),
        }
    }

    fn shutdown(&self, how: Shutdown) {
        // the other side may have gone
        let _ = shutdown(self.fd().as_raw_fd(), how);
    }

    /// Ends the connection as the stream ended; a broken one is reset, if the socket permits.
    pub fn close(self, end: End) {
        match (end, self) {
            (End::Finished | End::Exited(_), local) => {
                local.shutdown(Shutdown::Both);
                // closing a socket with unread bytes would reset the other side
                let mut rest = BytesMut::with_capacity(CHUNK);
                while matches!(local.try_read(&mut rest), Ok(1..)) {
                    rest.clear();
                }
            }
            (End::Reset | End::Killed(_), Self::Tcp(socket)) => {
                // without linger, closing resets it
                let _ = socket.set_zero_linger();
            }
            // closing with unread bytes resets it
            (End::Reset | End::Killed(_), Self::Unix(_)) => {}
        }
    }
}

/// Returns whether the other side of a socket neither writes nor reads.
fn is_gone(socket: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::empty())];
    let looked = poll(&mut fds, PollTimeout::ZERO);
    let events = fds[0].revents().unwrap_or(PollFlags::empty());
    looked.is_err() || events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR)
}

/// Waits until the other side of a socket neither writes nor reads: no event signals that alone.
pub async fn gone(socket: BorrowedFd<'_>) {
    loop {
        sleep(GONE_INTERVAL).await;
        if is_gone(socket) {
            return;
        }
    }
}

/// The settings of a stream.
#[derive(Debug)]
pub struct Carriage<'a> {
    /// Whether the connection uses `lcroute/2`: the data are framed.
    pub is_framed: bool,
    pub window: &'a Arc<Window>,
    pub traffic: &'a Traffic,
}

/// The way in which the program of this host marks its end, beside its socket.
#[derive(Debug)]
pub enum Teller<'a> {
    /// None: closing its connection ends its direction.
    Socket,
    /// A report of the command's end.
    Report(&'a mut Report),
    /// If set, it waits for the end: closing its connection before both directions have ended means
    /// that it was killed.
    Waits(&'a AtomicBool),
}

/// Carries a stream until both directions have ended, the command on this side has, an error
/// occurs, or `stop` completes. `first` precedes the bytes of `local`. The caller closes `local`.
pub async fn pump(
    local: &Local,
    first: Vec<u8>,
    (mut send, mut recv): (SendStream, RecvStream),
    carriage: &Carriage<'_>,
    teller: Teller<'_>,
    stop: impl Future<Output = ()>,
) -> End {
    let state = State::default();
    let (mut sent, mut received) = (None, None);
    let end = {
        let mut up = pin!(up(local, first, &mut send, carriage, teller, &state));
        let mut down = pin!(down(local, &mut recv, carriage, &state));
        let mut stop = pin!(stop);
        loop {
            tokio::select! {
                end = &mut up, if sent.is_none() => sent = Some(end),
                end = &mut down, if received.is_none() => received = Some(end),
                () = &mut stop => break End::Reset,
            }
            match (&sent, &received) {
                (Some(Sent::Last(end)), _) => break *end,
                (_, Some(end @ (End::Reset | End::Exited(_) | End::Killed(_)))) => break *end,
                (Some(Sent::Broken), Some(End::Finished)) => break End::Reset,
                (Some(Sent::All), Some(End::Finished)) => break End::Finished,
                // the other side sends its end, if it can
                _ => {}
            }
        }
    };
    let code = match end {
        End::Finished | End::Exited(_) | End::Killed(_) => ENOUGH,
        End::Reset => BROKEN,
    };
    if sent.is_none() {
        // the direction may have ended
        let _ = send.reset(code);
    }
    let _ = recv.stop(code);
    end
}

/// The end of this side's direction.
#[derive(Debug, Clone, Copy)]
enum Sent {
    /// All was sent, or all that the other side wanted.
    All,
    /// The other side accepts no more, and has not received all.
    Broken,
    /// The stream is over; this end was sent.
    Last(End),
}

/// State shared by both directions.
#[derive(Debug, Default)]
struct State {
    /// Whether the program of this host has sent all.
    has_ended: AtomicBool,
    /// Whether it was told that the other side has sent all.
    has_told: AtomicBool,
}

impl State {
    /// Tells the program that the other side has sent all; it may go on sending.
    fn tell_end(&self, local: &Local) {
        self.has_told.store(true, Relaxed);
        local.shutdown(Shutdown::Write);
    }
}

/// Carries data from the program of this host to the other node.
async fn up(
    local: &Local,
    first: Vec<u8>,
    send: &mut SendStream,
    carriage: &Carriage<'_>,
    teller: Teller<'_>,
    state: &State,
) -> Sent {
    let mut stopped = pin!(send.stopped());
    let mut next = Bytes::from(first);
    let end = loop {
        if !next.is_empty() {
            carriage.traffic.send(next.len());
            let head = Bytes::copy_from_slice(&framing::head(next.len()));
            // `stopped` has the reason
            let _ = match carriage.is_framed {
                true => send.write_all_chunks(&mut [head, next]).await,
                false => send.write_chunk(next).await,
            };
        }
        let ready = tokio::select! {
            biased;
            end = &mut stopped => {
                state.has_ended.store(true, Relaxed);
                if !matches!(end, Ok(Some(ENOUGH))) {
                    return Sent::Broken;
                }
                // writers learn that no reader is left
                local.shutdown(Shutdown::Read);
                return Sent::All;
            }
            ready = local.readable() => ready,
        };
        let mut buffer = BytesMut::with_capacity(CHUNK);
        next = match ready.and_then(|()| local.try_read(&mut buffer)) {
            Ok(0) => break End::Finished,
            Ok(_) => buffer.freeze(),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Bytes::new(),
            Err(_) => break End::Reset,
        };
    };
    state.has_ended.store(true, Relaxed);
    let end = match teller {
        Teller::Socket => end,
        Teller::Waits(waits) => {
            // once both directions have ended, the socket looks as if its program had gone
            let tells = !state.has_told.load(Relaxed);
            match tells && waits.load(Relaxed) && is_gone(local.fd()) {
                true => End::Reset,
                false => end,
            }
        }
        Teller::Report(report) => {
            // the command writes no more, but still reads
            if matches!(end, End::Finished) && !is_gone(local.fd()) && carriage.is_framed {
                let _ = send.write_all(&framing::end(End::Finished)).await;
            }
            // a command that has not read all breaks its socket, but its output counts
            report.end().await
        }
    };
    let is_whole = matches!(end, End::Finished | End::Exited(_));
    let is_sent = match carriage.is_framed {
        true => send.write_all(&framing::end(end)).await.is_ok() && send.finish().is_ok(),
        false if is_whole => send.finish().is_ok(),
        false => send.reset(BROKEN).is_ok(),
    };
    if !matches!(end, End::Finished) {
        return Sent::Last(end);
    }
    // waits until the other side has received all
    match stopped.await {
        Ok(None) if is_sent => Sent::All,
        Ok(Some(ENOUGH)) => Sent::All,
        _ => Sent::Broken,
    }
}

/// Carries data from the other node to the program of this host.
async fn down(local: &Local, recv: &mut RecvStream, carriage: &Carriage<'_>, state: &State) -> End {
    let (mut frames, mut end) = (Frames::default(), None);
    let mut behind = None;
    loop {
        let gone = async {
            while !state.has_ended.load(Relaxed) {
                sleep(GONE_INTERVAL).await;
            }
            gone(local.fd()).await;
        };
        let chunk = {
            let mut read = pin!(recv.read_chunk(CHUNK, true));
            match poll_fn(|context| Poll::Ready(read.as_mut().poll(context))).await {
                Poll::Ready(chunk) => Some(chunk),
                Poll::Pending => {
                    // the program has read everything
                    behind = None;
                    tokio::select! {
                        biased;
                        chunk = &mut read => Some(chunk),
                        () = gone => None,
                    }
                }
            }
        };
        let chunk = match chunk {
            Some(Ok(Some(chunk))) => chunk.bytes,
            Some(Ok(None)) if carriage.is_framed => return end.unwrap_or(End::Reset),
            Some(Ok(None)) => {
                state.tell_end(local);
                return End::Finished;
            }
            Some(Err(_)) => return End::Reset,
            None => {
                // the other side may have ended
                let _ = recv.stop(ENOUGH);
                return End::Finished;
            }
        };
        let mut rest = &chunk[..];
        loop {
            let piece = match carriage.is_framed {
                true => frames.next(&mut rest),
                false if rest.is_empty() => Ok(None),
                false => Ok(Some(Piece::Bytes(std::mem::take(&mut rest)))),
            };
            match piece {
                Ok(None) => break,
                Ok(Some(Piece::Bytes(bytes))) if end.is_none() => {
                    carriage.traffic.receive(bytes.len());
                    if deliver(local, bytes, carriage, &mut behind).await.is_err() {
                        // it reads no more: its last output may still be on the way
                        let _ = recv.stop(ENOUGH);
                        return End::Finished;
                    }
                }
                Ok(Some(Piece::End(End::Finished))) => {
                    state.tell_end(local);
                    end = Some(End::Finished);
                }
                Ok(Some(Piece::End(last))) => return last,
                // bytes behind the end, or an end of an unknown kind
                Ok(Some(Piece::Bytes(_))) | Err(_) => return End::Reset,
            }
        }
    }
}

/// Writes to the program. While it is slow, its bytes do not count against other streams.
async fn deliver(
    local: &Local,
    bytes: &[u8],
    carriage: &Carriage<'_>,
    behind: &mut Option<Wider>,
) -> io::Result<()> {
    let mut write = pin!(local.write_all(bytes));
    if let Ok(done) = timeout(BEHIND, &mut write).await {
        return done;
    }
    if behind.is_none() {
        *behind = carriage.window.widen();
    }
    write.await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_of_one_stream_count_for_all_and_it_is_silent_once_none_pass() {
        let all = Arc::new(Traffic::default());
        let (one, other) = (Traffic::of_stream(&all), Traffic::of_stream(&all));
        one.receive(3);
        one.send(4);
        other.send(5);
        let of = |traffic: &Traffic| (traffic.rx.load(Relaxed), traffic.tx.load(Relaxed));
        assert_eq!((of(&one), of(&all)), ((3, 4), (3, 9)));
        // another stream's bytes are none of it
        let silent = one.silent(Duration::from_millis(1));
        tokio::select! {
            () = silent => {}
            () = async { loop { other.send(1); tokio::task::yield_now().await } } => {}
        }
    }
}
