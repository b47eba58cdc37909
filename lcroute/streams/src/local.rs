//! Answers programs of this host. File permissions decide about access.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use lcroute_control::streams::{Access, MAX_PROTOCOLS, Target};
use librecast::stream::{Amend, Answer, MAX_LINE, ProtocolName, Reason, Request};
use librecast_program::book::{Book, HOST_BOOK};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;

use crate::agreement::Hello;
use crate::datagrams::{carry, pair};
use crate::host::{HIDES, Host, Offer, Places, Served, permitted};
use crate::network::{Opened, Refusal};
use crate::pump::{Local, Teller, gone, pump};
use crate::registry::{Destination, Handover};

/// Maximum number of connections of programs of this host. Chosen: a few thousand streams.
const MAX_CONNECTIONS: usize = 4_096;
/// Time limit for a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum number of streams that wait until a program accepts them.
const MAX_WAITING: usize = 64;

/// Answers until the future is dropped.
pub async fn serve(listener: UnixListener, host: Host) {
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
            let host = host.clone();
            tokio::spawn(async move {
                let _client = host.client();
                if let Err(e) = converse(stream, &host).await {
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

async fn converse(mut stream: UnixStream, host: &Host) -> io::Result<()> {
    let read = timeout(REQUEST_TIMEOUT, read_line(&mut stream));
    let Some((line, first)) = read.await?? else {
        return Ok(());
    };
    let refused = |error: String| Refusal(Reason::BadRequest, error);
    let request = serde_json::from_slice(&line);
    match request.map_err(|e| refused(format!("not a request: {e}"))) {
        Err(e) => answer::<()>(&mut stream, Err(e)).await,
        Ok(Request::Status) => answer(&mut stream, Ok(host.status())).await,
        Ok(Request::Outside) => answer(&mut stream, Ok(host.look())).await,
        Ok(Request::End { stream: number }) => match host.end_of(number) {
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
                opened = host.open(&node, &hello) => opened,
                () = gone(stream.as_fd()) => return Ok(()),
            };
            match opened {
                Err(e) => answer::<()>(&mut stream, Err(e)).await,
                Ok(Opened {
                    quic,
                    mut peer,
                    link,
                    seek: _seek,
                }) => {
                    let traffic = host.traffic(&peer);
                    let number = host.begin();
                    peer.stream = Some(number.number());
                    let given_up = number.given_up();
                    if datagrams {
                        let (ours, socket) = pair()?;
                        hand_over(&stream, &Answer::Ok { ok: peer }, &[socket]).await?;
                        let over = (&link.connection, &link.takers);
                        let end = carry(ours, over, quic, traffic, given_up).await;
                        number.end(end);
                        return Ok(());
                    }
                    answer(&mut stream, Ok(peer)).await?;
                    let local = Local::Unix(stream);
                    let carriage = link.carriage(traffic);
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
            outside,
            anyone,
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
            let offer = check(&protocols).and_then(|()| {
                if host.inside.is_none() && !outside {
                    return Err("no daemon answers here: is `lcroute run` running, with this --control? Keys outside of a network need --outside".into());
                }
                let (access, places) = access_of(&allow, allow_all)?;
                Ok(Offer {
                    protocols,
                    datagrams,
                    access,
                    places,
                    outside,
                    anyone: anyone && outside,
                    destination: destination()?,
                    ended,
                })
            });
            let served = offer.map_err(refused).and_then(|offer| {
                if offer.outside && host.hides {
                    return Err(Refusal(Reason::Refused, HIDES.into()));
                }
                let many = || Refusal(Reason::Unavailable, "too many programs serve".into());
                host.serve(&offer).ok_or_else(many)
            });
            match served {
                Err(e) => answer::<()>(&mut stream, Err(e)).await,
                Ok(served) => {
                    let ended = serve_program(stream, taken, (served, allow_all)).await;
                    drop(alive);
                    ended
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

/// Returns the permitted nodes of a list, with the places of keys.
fn access_of(allow: &[String], all: bool) -> Result<(Access, Places), String> {
    let (nodes, places) = permitted(allow)?;
    let book = Book::of_host().map_err(|e| e.to_string())?;
    let (access, unknown) = Access { all, nodes }.resolved(&book);
    match unknown.is_empty() {
        true => Ok((access, places)),
        false => Err(format!(
            "{}: {HOST_BOOK} has no such name",
            unknown.join(", ")
        )),
    }
}

/// Hands streams to a program until it disconnects; its lines replace the permitted nodes.
async fn serve_program(
    mut stream: UnixStream,
    mut taken: mpsc::Receiver<Handover>,
    (mut served, all): (Served, bool),
) -> io::Result<()> {
    answer(&mut stream, Ok(serde_json::json!({}))).await?;
    let mut line = Vec::new();
    loop {
        tokio::select! {
            Some(handover) = taken.recv() => {
                hand_over(&stream, &handover.peer, &handover.sockets).await?;
            }
            read = stream.read_buf(&mut line) => {
                if read? == 0 {
                    return Ok(());
                }
                while let Some(end) = line.iter().position(|byte| *byte == b'\n') {
                    let rest = line.split_off(end + 1);
                    let amend = std::mem::replace(&mut line, rest);
                    let amend: Amend = serde_json::from_slice(&amend)?;
                    let read = access_of(&amend.allow, all).map_err(io::Error::other);
                    let (access, places) = read?;
                    served.amend(&access, &places);
                }
                if line.len() > MAX_LINE {
                    return Err(io::ErrorKind::InvalidData.into());
                }
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
