//! The tasks of streams: sockets, stations and ffmpeg on one side, a channel on the other.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use lcradio_core::{BEACON_PORT, MEDIA_PORT, Reception, Station, Tuned, TunedStation};
use librecast::time::UnixTime;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::chain::Chain;
use super::payloads::{Payloads, kind};
use super::reasons::CloseReason;
use super::streams::{Channel, Streams, Wanted};
use crate::hear::{hear, receive};

/// Time between two looks for clients that read nothing.
const TICK: Duration = Duration::from_millis(500);
/// Bytes of a datagram of a group: the longest of UDP.
const MAX_DATAGRAM: usize = 1 << 16;
/// Bytes of a station's datagram.
const MAX_STATION_DATAGRAM: usize = 2_048;
/// Bytes after which datagrams make a piece, and the most datagrams of one. Chosen: at high rates one
/// wake-up of a client for many packets.
const MAX_PIECE: usize = 64 << 10;
const MAX_BATCH: usize = 64;
/// Bytes of a group's socket: a fifth of a second of 32 Mbit/s.
const RECEIVE_BUFFER: usize = 1 << 20;
/// Time after the end of a session in which a caster may come back.
const END_TIME: Duration = Duration::from_secs(3);
/// Silence of a station after which its streams end: as long as `lcradio listen` waits.
const SILENCE: Duration = Duration::from_secs(30);
/// ffmpeg's options: MP3 at 128 kbit/s, without waiting for more than the headers.
const FFMPEG: &str = "-hide_banner -loglevel error -nostdin -probesize 4096 -analyzeduration 0 -f ogg -i pipe:0 \
     -c:a libmp3lame -b:a 128k -flush_packets 1 -f mp3 pipe:1";

/// Begins the task of a stream, which is aborted when nobody listens.
pub fn begin(streams: Arc<Streams>, wanted: Wanted, channel: Arc<Channel>) -> AbortHandle {
    tokio::spawn(run(streams, wanted, channel)).abort_handle()
}

async fn run(streams: Arc<Streams>, wanted: Wanted, channel: Arc<Channel>) {
    let ended = match &wanted {
        Wanted::Group(at) => group(&streams, *at, &channel).await,
        Wanted::Ogg(station, name) => station_as_ogg(&streams, station, name, &channel).await,
        Wanted::Mp3(station, name) => station_as_mp3(&streams, station, name, &channel).await,
    };
    let (reason, told) = match ended {
        Ok(CloseReason::Silent) => (CloseReason::Silent, "nothing comes from it".to_owned()),
        Ok(reason) => (reason, "it has ended".to_owned()),
        Err(e) => {
            tracing::warn!("[players]: {e:#}");
            (CloseReason::Failed, format!("{e:#}"))
        }
    };
    if let Wanted::Ogg(station, _) = &wanted {
        streams.set_state(station.group(), told.clone());
    }
    channel.end(reason, told);
}

fn open(streams: &Streams, at: SocketAddr) -> anyhow::Result<UdpSocket> {
    let tun = &streams.tun;
    hear(tun, at).with_context(|| format!("{at} on {tun}: is `lcroute run` running?"))
}

async fn group(
    streams: &Streams,
    at: SocketAddr,
    channel: &Channel,
) -> anyhow::Result<CloseReason> {
    let socket = open(streams, at)?;
    if let Err(e) = SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER) {
        tracing::debug!("{at}: {e}");
    }
    let (mut payloads, mut datagram) = (Payloads::default(), vec![0; MAX_DATAGRAM]);
    let (mut ticks, mut has_told) = (tokio::time::interval(TICK), false);
    loop {
        tokio::select! {
            ready = socket.readable() => ready?,
            _ = ticks.tick() => channel.handle_timeout(Instant::now()),
        }
        let (now, mut piece) = (Instant::now(), Vec::new());
        for _ in 0..MAX_BATCH {
            match socket.try_recv_from(&mut datagram) {
                Ok((len, from)) => {
                    payloads.handle_datagram(from, &datagram[..len], now, &mut piece);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e).with_context(|| at.to_string()),
            }
            if piece.len() >= MAX_PIECE {
                break;
            }
        }
        if payloads.of_other_senders() > 0 && !has_told {
            has_told = true;
            tracing::info!("{at}: several send to it, and players get the first one");
        }
        if !piece.is_empty() {
            channel.begin(kind(&piece).media_type(), None);
            channel.push(piece.into(), now);
        }
    }
}

async fn station_as_ogg(
    streams: &Streams,
    station: &Station,
    name: &str,
    channel: &Channel,
) -> anyhow::Result<CloseReason> {
    let own = station.group();
    let media = open(streams, (own, MEDIA_PORT).into())?;
    let beacons = open(streams, (own, BEACON_PORT).into())?;
    let mut copies: Option<(Ipv6Addr, UdpSocket)> = None;
    let mut buffers = [[0_u8; MAX_STATION_DATAGRAM]; 3];
    let mut tuned = TunedStation::new(Tuned::Station(station.clone()), Instant::now());
    let mut number = [0; 4];
    getrandom::fill(&mut number)?;
    let (mut chain, head) = Chain::begin(u32::from_le_bytes(number), name)?;
    let mut heard_at = Instant::now();
    loop {
        let [of_media, of_beacons, of_copies] = &mut buffers;
        let copy = copies.as_ref();
        let copy_group = copy.map_or(own, |(group, _)| *group);
        let tick = Instant::now() + TICK;
        let due = chain.next_timeout().map_or(tick, |due| due.min(tick));
        let due = due.min(tuned.next_timeout());
        let came = tokio::select! {
            Some((from, len)) = receive(Some(&media), of_media) => {
                Some(((own, MEDIA_PORT), from, &of_media[..len]))
            }
            Some((from, len)) = receive(Some(&beacons), of_beacons) => {
                Some(((own, BEACON_PORT), from, &of_beacons[..len]))
            }
            Some((from, len)) = receive(copy.map(|(_, socket)| socket), of_copies) => {
                Some(((copy_group, MEDIA_PORT), from, &of_copies[..len]))
            }
            () = tokio::time::sleep_until(due.into()) => None,
        };
        let now = Instant::now();
        if let Some((to, from, datagram)) = came {
            tuned.handle_datagram(to, from, datagram, now, UnixTime::now());
        }
        tuned.handle_timeout(now);
        while let Some(event) = tuned.poll_event(now) {
            match event {
                Reception::OnAir(on_air) if on_air.title.is_empty() => {
                    streams.set_state(own, "on air".to_owned());
                }
                Reception::OnAir(on_air) => {
                    streams.set_state(own, format!("on air: {}", on_air.title));
                }
                Reception::Sound(packet) => {
                    heard_at = now;
                    chain.handle_sound(packet)?;
                }
                Reception::Ended { caster } => chain.handle_end(caster, now)?,
            }
        }
        if let Some(pages) = chain.poll_output(now)? {
            channel.begin("audio/ogg", Some(head.clone()));
            channel.push(pages, now);
        }
        channel.handle_timeout(now);
        let wanted = tuned.copy_group();
        if copies.as_ref().map(|(group, _)| *group) != wanted {
            let socket = wanted.and_then(|group| {
                let socket = open(streams, (group, MEDIA_PORT).into()).ok()?;
                Some((group, socket))
            });
            copies = socket;
        }
        let has_passed = |at: Instant, time: Duration| now.saturating_duration_since(at) >= time;
        if tuned.ended_at().is_some_and(|at| has_passed(at, END_TIME)) {
            channel.push(chain.finish(now)?, now);
            return Ok(CloseReason::Ended);
        }
        if has_passed(heard_at, SILENCE) {
            return Ok(CloseReason::Silent);
        }
    }
}

async fn station_as_mp3(
    streams: &Arc<Streams>,
    station: &Station,
    name: &str,
    channel: &Channel,
) -> anyhow::Result<CloseReason> {
    let Ok(_place) = streams.ffmpegs.try_acquire() else {
        bail!("too many stations are played as MP3 on this host: take .ogg");
    };
    let ffmpeg = tokio::process::Command::new(streams.ffmpeg)
        .args(FFMPEG.split_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    let mut ffmpeg = match ffmpeg {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            bail!(
                "MP3 needs ffmpeg, which is not on this host: install the package ffmpeg, or take .ogg"
            )
        }
        other => other.context("ffmpeg")?,
    };
    let mut stdin = ffmpeg.stdin.take().context("ffmpeg's input")?;
    let mut stdout = ffmpeg.stdout.take().context("ffmpeg's output")?;
    let wanted = Wanted::Ogg(station.clone(), name.to_owned());
    let source = streams.enter(&wanted, Arc::new(Notify::new()));
    // ends ffmpeg's input with the station
    let write = async move {
        let beginning = match source.begun().await {
            Ok(beginning) => beginning,
            Err((reason, _)) => return reason,
        };
        let mut next = beginning.head.unwrap_or_default();
        loop {
            if stdin.write_all(&next).await.is_err() {
                return CloseReason::Failed;
            }
            next = match source.next().await {
                Ok(piece) => piece,
                Err(reason) => return reason,
            };
        }
    };
    let read = async {
        let mut buffer = vec![0; MAX_PIECE];
        loop {
            let read = tokio::time::timeout(TICK, stdout.read(&mut buffer)).await;
            let now = Instant::now();
            match read {
                Ok(Ok(0)) => return Ok::<_, io::Error>(()),
                Ok(Ok(len)) => {
                    channel.begin("audio/mpeg", None);
                    channel.push(buffer[..len].to_vec().into(), now);
                }
                Ok(Err(e)) => return Err(e),
                Err(_) => {}
            }
            channel.handle_timeout(now);
        }
    };
    let (reason, read) = tokio::join!(write, read);
    read.context("ffmpeg's output")?;
    match reason {
        CloseReason::Failed => bail!("ffmpeg has ended, or the station cannot be received"),
        reason => Ok(reason),
    }
}
