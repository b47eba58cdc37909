//! Answers programs of this host. File permissions decide about access.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use lcroute_control::streams::{Access, MAX_PROTOCOLS, Target, who};
use librecast::stream::{Answer, MAX_LINE, ProtocolName, Reason, Request};
use librecast_program::book::{Book, HOST_BOOK};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;

use crate::agreement::Hello;
use crate::datagrams::{carry, pair};
use crate::network::{Network, Opened, Refusal};
use crate::pump::{Local, Teller, gone, pump};
use crate::registry::{Destination, Handover, Service};

/// Maximum number of connections of programs of this host. Chosen: a few thousand streams.
const MAX_CONNECTIONS: usize = 4_096;
/// Time limit for a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum number of streams that wait until a program accepts them.
const MAX_WAITING: usize = 64;

/// Answers until the future is dropped.
pub async fn serve(listener: UnixListener, network: Arc<Network>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(e) => {
                // probably out of descriptors, until connections end
                tracing::warn!("streams socket: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
            let network = Arc::clone(&network);
            tokio::spawn(async move {
                let _client = network.client();
                if let Err(e) = converse(stream, &network).await {
                    tracing::debug!("streams socket: {e}");
                }
                drop(place);
            });
        } else {
            tokio::spawn(async move {
                let mut stream = stream;
                let many = "too many programs of this host use streams: try again".to_owned();
                // the program may have gone
                let _ = answer::<()>(&mut stream, Err(Refusal(Reason::Unavailable, many))).await;
            });
        }
    }
}

async fn converse(mut stream: UnixStream, network: &Arc<Network>) -> io::Result<()> {
    let read = timeout(REQUEST_TIMEOUT, read_line(&mut stream));
    let Some((line, first)) = read.await?? else {
        return Ok(());
    };
    let refused = |error: String| Refusal(Reason::BadRequest, error);
    let request = serde_json::from_slice(&line);
    match request.map_err(|e| refused(format!("not a request: {e}"))) {
        Err(e) => answer::<()>(&mut stream, Err(e)).await,
        Ok(Request::Status) => answer(&mut stream, Ok(network.status())).await,
        Ok(Request::End { stream: number }) => match network.end_of(number) {
            Some(mut waiting) => {
                let mut rest = [0];
                tokio::select! {
                    biased;
                    end = waiting.end() => answer(&mut stream, Ok(end)).await,
                    _ = stream.read(&mut rest) => {
                        waiting.give_up();
                        Ok(())
                    }
                }
            }
            None => answer::<()>(&mut stream, Err(refused("no such stream".into()))).await,
        },
        Ok(Request::Connect {
            node,
            protocols,
            datagrams,
        }) => {
            if let Err(e) = check(&protocols) {
                return answer::<()>(&mut stream, Err(refused(e))).await;
            }
            let hello = Hello {
                datagrams,
                protocols,
            };
            let opened = tokio::select! {
                opened = network.open(&node, &hello) => opened,
                () = gone(stream.as_fd()) => return Ok(()),
            };
            match opened {
                Err(e) => answer::<()>(&mut stream, Err(e)).await,
                Ok(Opened {
                    quic,
                    mut peer,
                    link,
                }) => {
                    let number = network.begin();
                    peer.stream = Some(number.number());
                    let given_up = number.given_up();
                    if datagrams {
                        let (ours, socket) = pair()?;
                        hand_over(&stream, &Answer::Ok { ok: peer }, &[socket]).await?;
                        let over = (&link.connection, &link.takers);
                        let end = carry(ours, over, quic, network.traffic(), given_up).await;
                        number.end(end);
                        return Ok(());
                    }
                    answer(&mut stream, Ok(peer)).await?;
                    let local = Local::Unix(stream);
                    let carriage = link.carriage(network.traffic());
                    let teller = Teller::Waits(number.is_awaited());
                    let end = pump(&local, first, quic, &carriage, teller, given_up).await;
                    number.end(end);
                    local.close(end);
                    Ok(())
                }
            }
        }
        Ok(Request::Serve {
            protocols,
            to,
            allow,
            allow_all,
            header,
            datagrams,
            reports,
        }) => {
            let (handovers, taken) = mpsc::channel(MAX_WAITING);
            let (alive, ended) = watch::channel(());
            let destination = || -> Result<Destination, String> {
                Ok(match to {
                    None => Destination::Program(handovers, reports),
                    Some(_) if datagrams => {
                        return Err("datagrams come over this connection: leave out `to`".into());
                    }
                    Some(to) => Destination::Server(to.parse::<Target>()?, header),
                })
            };
            let service = check(&protocols).and_then(|()| {
                let access = Access {
                    all: allow_all,
                    nodes: who(&allow)?,
                };
                let book = Book::of_host().map_err(|e| e.to_string())?;
                let (access, unknown) = access.resolved(&book);
                if !unknown.is_empty() {
                    let names = unknown.join(", ");
                    return Err(format!("{names}: nobody in {HOST_BOOK} is called so"));
                }
                Ok(Service {
                    protocols,
                    datagrams,
                    access: Arc::new(access),
                    destination: destination()?,
                    ended,
                })
            });
            let added = service.map_err(refused).and_then(|service| {
                let many = || Refusal(Reason::Unavailable, "too many programs serve".into());
                network.registry().add(service).ok_or_else(many)
            });
            match added {
                Err(e) => answer::<()>(&mut stream, Err(e)).await,
                Ok(id) => {
                    let served = serve_program(stream, taken).await;
                    network.registry().remove(id);
                    drop(alive);
                    served
                }
            }
        }
    }
}

fn check(protocols: &[ProtocolName]) -> Result<(), String> {
    match protocols.len() {
        1..=MAX_PROTOCOLS => Ok(()),
        _ => Err(format!("1 to {MAX_PROTOCOLS} protocols")),
    }
}

/// Hands streams to a program until it disconnects.
async fn serve_program(
    mut stream: UnixStream,
    mut taken: mpsc::Receiver<Handover>,
) -> io::Result<()> {
    answer(&mut stream, Ok(serde_json::json!({}))).await?;
    let mut rest = [0; 64];
    loop {
        tokio::select! {
            Some(handover) = taken.recv() => {
                hand_over(&stream, &handover.peer, &handover.sockets).await?;
            }
            // only the end is expected
            read = stream.read(&mut rest) => if read? == 0 {
                return Ok(());
            },
        }
    }
}

/// Sends a line of JSON with descriptors in one message.
async fn hand_over(
    stream: &UnixStream,
    said: &impl Serialize,
    sockets: &[OwnedFd],
) -> io::Result<()> {
    let mut line = serde_json::to_vec(said)?;
    line.push(b'\n');
    let send = || {
        let fds: Vec<_> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let slices = [IoSlice::new(&line)];
        let (fd, flags) = (stream.as_raw_fd(), MsgFlags::MSG_NOSIGNAL);
        sendmsg::<()>(fd, &slices, &rights, flags, None).map_err(io::Error::from)
    };
    loop {
        stream.writable().await?;
        match stream.try_io(Interest::WRITABLE, send) {
            Ok(count) if count == line.len() => return Ok(()),
            // a line is far smaller than the kernel's buffer: a partial write is an error
            Ok(_) => return Err(io::ErrorKind::WriteZero.into()),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
}

async fn answer<T: Serialize>(
    stream: &mut UnixStream,
    answer: Result<T, Refusal>,
) -> io::Result<()> {
    let answer = match answer {
        Ok(ok) => Answer::Ok { ok },
        Err(Refusal(reason, error)) => Answer::Error { error, reason },
    };
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    timeout(REQUEST_TIMEOUT, stream.write_all(&line)).await?
}

/// Reads a line, with the bytes behind it; none at the end.
async fn read_line(stream: &mut UnixStream) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
    let mut line = Vec::with_capacity(1_024);
    loop {
        let seen = line.len();
        if stream.read_buf(&mut line).await? == 0 {
            return match line.is_empty() {
                true => Ok(None),
                false => Err(io::ErrorKind::UnexpectedEof.into()),
            };
        }
        if let Some(end) = line[seen..].iter().position(|byte| *byte == b'\n') {
            let first = line.split_off(seen + end + 1);
            return Ok(Some((line, first)));
        }
        if line.len() > MAX_LINE {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}
