//! What goes through a stream: from a socket of this host to QUIC and back. Each direction ends by itself; what breaks one breaks
//! both. A stream that waits holds no buffer, and who does not read is not sent more than the window.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use librecast::stream::End;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use quinn::{RecvStream, SendStream, VarInt};
use tokio::net::{TcpStream, UnixStream};

/// Bytes that are read at once. Chosen: a burst of 50 packets.
const CHUNK: usize = 64 * 1024;
/// How often it is looked whether a program that has sent all has gone as well.
const GONE_INTERVAL: Duration = Duration::from_millis(200);
/// The side that reads wants no more, and has all that it wanted.
const ENOUGH: VarInt = VarInt::from_u32(0);
/// A stream broke off.
const BROKEN: VarInt = VarInt::from_u32(1);

/// A program of this host.
#[derive(Debug)]
pub enum Local {
    /// By a Unix socket.
    Unix(UnixStream),
    /// By TCP.
    Tcp(TcpStream),
}

/// Bytes that went through all streams.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Into this host.
    pub rx: AtomicU64,
    /// Out of it.
    pub tx: AtomicU64,
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

    fn shutdown(&self, how: nix::sys::socket::Shutdown) {
        use std::os::fd::AsRawFd;
        // the other side may have gone by itself
        let _ = nix::sys::socket::shutdown(self.fd().as_raw_fd(), how);
    }
}

/// Waits until the other side of a socket neither writes nor reads. The kernel wakes nobody for that alone.
pub async fn gone(socket: BorrowedFd<'_>) {
    loop {
        tokio::time::sleep(GONE_INTERVAL).await;
        let mut fds = [PollFd::new(socket, PollFlags::empty())];
        let looked = poll(&mut fds, PollTimeout::ZERO);
        let events = fds[0].revents().unwrap_or(PollFlags::empty());
        if looked.is_err() || events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR) {
            return;
        }
    }
}

/// Carries a stream until both directions have ended, one broke, or `withdrawn` resolves. `first` comes before what `local` says.
pub async fn pump(
    local: Local,
    first: Vec<u8>,
    (mut send, mut recv): (SendStream, RecvStream),
    traffic: &Traffic,
    withdrawn: impl Future<Output = ()>,
) -> End {
    use nix::sys::socket::Shutdown;
    let state = State::default();
    let both = async {
        let (up, down) = tokio::join!(
            up(&local, first, &mut send, traffic, &state),
            down(&local, &mut recv, traffic, &state)
        );
        up.is_ok() && down.is_ok()
    };
    let is_whole = tokio::select! {
        is_whole = both => is_whole,
        () = withdrawn => false,
    };
    if is_whole {
        return End::Finished;
    }
    // either may be over
    let _ = (send.reset(BROKEN), recv.stop(BROKEN));
    local.shutdown(Shutdown::Both);
    End::Reset
}

/// What one direction tells the other.
#[derive(Debug, Default)]
struct State {
    /// The program of this host has sent all.
    has_ended: AtomicBool,
    /// What came from the other side broke off.
    is_broken: AtomicBool,
}

/// A direction broke off.
struct Broken;

/// From the program of this host to the other node.
async fn up(
    local: &Local,
    first: Vec<u8>,
    send: &mut SendStream,
    traffic: &Traffic,
    state: &State,
) -> Result<(), Broken> {
    use nix::sys::socket::Shutdown;
    let stopped = send.stopped();
    tokio::pin!(stopped);
    let mut next = Bytes::from(first);
    loop {
        if !next.is_empty() {
            traffic.tx.fetch_add(next.len() as u64, Relaxed);
            // why is told by `stopped`
            let _ = send.write_chunk(next).await;
        }
        let ready = tokio::select! {
            biased;
            end = &mut stopped => {
                // writers are told that nobody reads
                local.shutdown(Shutdown::Read);
                state.has_ended.store(true, Relaxed);
                return match end {
                    Ok(Some(ENOUGH)) => Ok(()),
                    _ => Err(Broken),
                };
            }
            ready = local.readable() => ready,
        };
        let mut buffer = BytesMut::with_capacity(CHUNK);
        next = match ready.and_then(|()| local.try_read(&mut buffer)) {
            Ok(0) => break,
            Ok(_) => buffer.freeze(),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Bytes::new(),
            Err(_) => return Err(Broken),
        };
    }
    state.has_ended.store(true, Relaxed);
    if state.is_broken.load(Relaxed) || send.finish().is_err() {
        return Err(Broken);
    }
    // until the other side has all of it
    match stopped.await {
        Ok(None | Some(ENOUGH)) => Ok(()),
        _ => Err(Broken),
    }
}

/// From the other node to the program of this host.
async fn down(
    local: &Local,
    recv: &mut RecvStream,
    traffic: &Traffic,
    state: &State,
) -> Result<(), Broken> {
    use nix::sys::socket::Shutdown;
    loop {
        let gone = async {
            while !state.has_ended.load(Relaxed) {
                tokio::time::sleep(GONE_INTERVAL).await;
            }
            gone(local.fd()).await;
        };
        let chunk = tokio::select! {
            biased;
            chunk = recv.read_chunk(CHUNK, true) => chunk,
            () = gone => {
                // the other side may have ended meanwhile
                let _ = recv.stop(ENOUGH);
                return Ok(());
            }
        };
        match chunk {
            Ok(Some(chunk)) => {
                traffic.rx.fetch_add(chunk.bytes.len() as u64, Relaxed);
                if local.write_all(&chunk.bytes).await.is_err() {
                    // it reads no more: what it had sent may be on its way still
                    let _ = recv.stop(ENOUGH);
                    return Ok(());
                }
            }
            Ok(None) => {
                local.shutdown(Shutdown::Write);
                return Ok(());
            }
            Err(_) => {
                state.is_broken.store(true, Relaxed);
                local.shutdown(Shutdown::Both);
                return Err(Broken);
            }
        }
    }
}
