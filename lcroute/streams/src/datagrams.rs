//! Datagrams of a program (RFC 9221): each names its agreed stream, and lasts as long as that. They
//! may be lost or reordered, but not duplicated.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{BufMut, Bytes, BytesMut};
use librecast::stream::End;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use crate::pump::Traffic;

/// Maximum number of datagrams that wait for a program. Chosen: 0.3 MB; further ones are dropped.
const QUEUE: usize = 256;
/// Bytes of a stream's number before a datagram.
const NUMBER_LEN: usize = 8;

/// The receivers of a connection's datagrams, by the number of the stream.
#[derive(Debug, Clone, Default)]
pub struct Takers(Arc<Mutex<BTreeMap<u64, mpsc::Sender<Bytes>>>>);

impl Takers {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, mpsc::Sender<Bytes>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Delivers a datagram; returns false if there is no receiver, or its queue is full.
    pub fn hand(&self, mut datagram: Bytes) -> bool {
        if datagram.len() < NUMBER_LEN {
            return false;
        }
        let number = datagram.split_to(NUMBER_LEN);
        let number = number.iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
        let taker = self.lock().get(&number).cloned();
        taker.is_some_and(|taker| taker.try_send(datagram).is_ok())
    }
}

/// Returns two ends of a packet socket: ours does not block.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?;
    fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((ours, theirs))
}

/// Returns the maximum length of a program's datagram in bytes, for the present path.
pub fn longest(connection: &Connection) -> Option<usize> {
    connection.max_datagram_size()?.checked_sub(NUMBER_LEN)
}

/// Carries datagrams until one side ends the stream, or `withdrawn` resolves.
pub async fn carry(
    program: OwnedFd,
    (connection, takers): (&Connection, &Takers),
    (mut send_stream, mut recv_stream): (SendStream, RecvStream),
    traffic: &Traffic,
    withdrawn: impl Future<Output = ()>,
) -> End {
    // a socket of the same family: each read and write is one message
    let Ok(program) = UnixStream::from_std(program.into()) else {
        return End::Reset;
    };
    let number = u64::from(VarInt::from(send_stream.id()));
    let (taker, mut taken) = mpsc::channel(QUEUE);
    takers.lock().insert(number, taker);
    let mut buffer = vec![0; 64 * 1024];
    tokio::pin!(withdrawn);
    let end = loop {
        tokio::select! {
            Some(datagram) = taken.recv() => {
                traffic.receive(datagram.len());
                // a datagram that the program does not read in time is lost, as on any path
                let _ = program.try_write(&datagram);
            }
            ready = program.readable() => {
                match ready.and_then(|()| program.try_read(&mut buffer)) {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    Ok(0) | Err(_) => {
                        // the stream may have ended
                        let _ = send_stream.finish();
                        break End::Finished;
                    }
                    Ok(length) => {
                        let mut datagram = BytesMut::with_capacity(NUMBER_LEN + length);
                        datagram.put_u64(number);
                        datagram.put_slice(&buffer[..length]);
                        if connection.send_datagram(datagram.freeze()).is_ok() {
                            traffic.send(length);
                        }
                    }
                }
            }
            // the stream itself carries only its end
            chunk = recv_stream.read_chunk(1, true) => break match chunk {
                Ok(None) => End::Finished,
                _ => End::Reset,
            },
            () = &mut withdrawn => {
                let _ = send_stream.reset(VarInt::from_u32(1));
                break End::Reset;
            }
        }
    };
    takers.lock().remove(&number);
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_go_to_who_takes_them_and_do_not_pile_up() {
        let takers = Takers::default();
        let (taker, mut taken) = mpsc::channel(2);
        takers.lock().insert(4, taker);
        let datagram = |number: u64, text: &str| {
            Bytes::from([&number.to_be_bytes(), text.as_bytes()].concat())
        };
        assert!(takers.hand(datagram(4, "a")) && takers.hand(datagram(4, "")));
        assert!(!takers.hand(datagram(4, "c")), "two wait already");
        assert!(!takers.hand(datagram(8, "d")), "nobody takes it");
        assert!(!takers.hand(Bytes::from_static(b"short")));
        assert_eq!(taken.try_recv().unwrap(), "a");
        assert_eq!(taken.try_recv().unwrap(), "");
    }
}
