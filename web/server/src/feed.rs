//! Asks the daemon once a second, and hears reports of other nodes, as long as a page is open; else now and then, for the history.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use bytes::Bytes;
use lcradio_core::{SAP_GROUP, SAP_PORT};
use lcroute::control::Request;
use lcroute::control::client::to_look;
use lcroute::status::{Look, Peer, Status};
use lcroute_node::view::View;
use librecast::channel::{REPORT_PORT, look_group, report_group};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UdpSocket, UnixStream};
use tokio::sync::{Notify, broadcast};

use crate::groups::Groups;
use crate::history::{Event, History, INTERVAL};
use crate::line::Line;
use crate::names::{Known, Names};

/// Lines that a slow page may be behind.
const BEHIND: usize = 4;
/// How long until the daemon is asked again that did not answer.
const RETRY: Duration = Duration::from_secs(1);
/// The daemon speaks once a second.
const SILENCE: Duration = Duration::from_secs(10);
/// Longest line of the daemon, in bytes: some thousand nodes.
const MAX_LINE: u64 = 16 << 20;
/// Longest report that is looked at, in bytes.
const MAX_DATAGRAM: usize = 2_048;
/// Longest announcement of a station, in bytes: a description of 4,096 with its head.
const MAX_ANNOUNCEMENT: usize = 4_608;
/// What a report has around it on a link, in bytes: data header, IPv6 and UDP.
const HEADERS: usize = 32 + 40 + 8;

/// Lines for pages.
#[derive(Debug)]
pub struct Feed {
    control: PathBuf,
    lines: broadcast::Sender<Bytes>,
    opened: Notify,
    history: Mutex<History>,
    /// Whether pages may ask for invitations.
    invites: bool,
    /// Groups of people that pages may show, which have names.
    groups: Option<Arc<Groups>>,
    /// What pages cause themselves.
    own: Mutex<OwnTraffic>,
}

/// Reports of other nodes: they come because somebody looks, and are no traffic of anybody's programs.
#[derive(Debug, Default)]
struct OwnTraffic {
    /// Bytes of reports, as links carry them.
    reports: u64,
    /// What the daemon has counted, and what was left of it, at the last look.
    counted: u64,
    left: u64,
}

impl OwnTraffic {
    /// Of all bytes that links have brought, those of others. It never falls: a report may be here before it is counted.
    fn leave_out(&mut self, counted: u64) -> u64 {
        if counted < self.counted {
            // the daemon has started anew
            *self = Self::default();
        }
        self.counted = counted;
        self.left = self.left.max(counted.saturating_sub(self.reports));
        self.left
    }
}

impl Feed {
    /// Of the daemon behind this control socket.
    pub fn new(control: &Path, invites: bool, groups: Option<Arc<Groups>>) -> Self {
        Self {
            control: control.to_owned(),
            lines: broadcast::Sender::new(BEHIND),
            opened: Notify::new(),
            history: Mutex::default(),
            invites,
            groups,
            own: Mutex::default(),
        }
    }

    /// What was before, and lines from now on.
    pub fn subscribe(&self) -> (Bytes, broadcast::Receiver<Bytes>) {
        // an event is in the one or among the others
        let history = self.history();
        let lines = self.lines.subscribe();
        self.opened.notify_one();
        (line(&history.beginning(self.invites)), lines)
    }

    /// No panic leaves it half changed.
    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers, and tells pages what has happened.
    fn note(&self, change: impl FnOnce(&mut History) -> Vec<Event>) {
        let mut history = self.history();
        let events = change(&mut history);
        if !events.is_empty() {
            // nobody may be there
            let _ = self
                .lines
                .send(line(&serde_json::json!({ "events": events })));
        }
    }

    /// Feeds for ever.
    pub async fn run(&self) {
        loop {
            let asked = match self.lines.receiver_count() {
                0 => self.remember().await,
                _ => self.follow().await,
            };
            if let Err(e) = asked {
                tracing::debug!("{e:#}");
                self.note(|history| history.note_silence(now()));
                let error = serde_json::json!({ "error": format!("{e:#}") });
                // the last page may have gone
                let _ = self.lines.send(line(&error));
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// While no page is open: looks how links do, and counts nothing.
    async fn remember(&self) -> anyhow::Result<()> {
        let mut status: Status = self.answer(&Request::Status).await?;
        self.leave_out_own(&mut status);
        let peers: Vec<Peer> = self.answer(&Request::Peers).await?;
        self.note(|history| history.note(&status, &peers, None, now()));
        // a page that opens waits for nothing
        let pause = Duration::from_secs(INTERVAL);
        let _ = tokio::time::timeout(pause, self.opened.notified()).await;
        Ok(())
    }

    fn own(&self) -> MutexGuard<'_, OwnTraffic> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave_out_own(&self, status: &mut Status) {
        let received = &mut status.counters.link_rx_bytes;
        *received = self.own().leave_out(*received);
    }

    /// A token for a page.
    pub async fn invite(&self, request: &Request) -> anyhow::Result<Invitation> {
        self.answer(request).await
    }

    /// The daemon's answer to one request.
    async fn answer<T: serde::de::DeserializeOwned>(&self, request: &Request) -> anyhow::Result<T> {
        let mut connection = self.ask(request).await?;
        let mut line = Vec::new();
        let read = tokio::time::timeout(SILENCE, next_line(&mut connection, &mut line));
        read.await.context("the daemon is silent")??;
        read_answer(&line)
    }

    /// Passes on what the daemon says, until no page is open.
    async fn follow(&self) -> anyhow::Result<()> {
        let mut looks = self.ask(&Request::Watch).await?;
        let _announced = self.announce().await;
        let meanings: BTreeMap<_, _> = lcroute::drops::reasons().into_iter().collect();
        let (mut view, mut reports, mut announcements) = (View::default(), None, None);
        let (mut answer, mut datagram) = (Vec::new(), [0; MAX_DATAGRAM]);
        let mut announced = [0; MAX_ANNOUNCEMENT];
        let mut names = Names::new(Instant::now());
        let groups = self.groups.as_deref();
        let mut known: Pin<Box<dyn Future<Output = Known> + Send + '_>> =
            Box::pin(Known::after(Duration::ZERO, groups));
        let mut address = None;
        while self.lines.receiver_count() > 0 {
            tokio::select! {
                read = tokio::time::timeout(SILENCE, next_line(&mut looks, &mut answer)) => {
                    read.context("the daemon is silent")??;
                    let now = Instant::now();
                    let mut look: Look = read_answer(&answer)?;
                    answer.clear();
                    let listen = |group, port| {
                        hear(&look.status.tun, group, port)
                            .inspect_err(|e| tracing::debug!("nothing of {group}: {e:#}"))
                            .ok()
                    };
                    reports = reports.or_else(|| listen(report_group(), REPORT_PORT));
                    announcements = announcements.or_else(|| listen(SAP_GROUP, SAP_PORT));
                    names.stations.handle_timeout(now);
                    address = Some(look.status.address);
                    self.leave_out_own(&mut look.status);
                    let at = self::now();
                    let mut network = view.show(&look.network, now);
                    names.rename(&mut look, &mut network);
                    let named = names.of(&look, &network);
                    self.note(|history| history.note(&look.status, &look.peers, Some(&network), at));
                    // the last page may have gone
                    let _ = self.lines.send(line(&Line::new(&look, network, named, &meanings, at)));
                }
                Some((from, len)) = receive(reports.as_ref(), &mut datagram) => {
                    if address != Some(from) {
                        self.own().reports += (len + HEADERS) as u64;
                    }
                    view.take_report(from, &datagram[..len], Instant::now());
                }
                Some((from, len)) = receive(announcements.as_ref(), &mut announced) => {
                    let unix_ms = (self::now() * 1_000.0) as u64;
                    let datagram = &announced[..len];
                    names.stations.handle_datagram(from, datagram, Instant::now(), unix_ms);
                }
                found = &mut known => {
                    names.known = found;
                    known = Box::pin(Known::later(groups));
                }
            }
        }
        Ok(())
    }

    /// Others report while this is announced; without the right to do so there are no reports.
    async fn announce(&self) -> Option<BufReader<UnixStream>> {
        let prefix = format!("{}/128", look_group());
        let mut connection = self.ask(&Request::Announce { prefix }).await.ok()?;
        let mut answer = Vec::new();
        next_line(&mut connection, &mut answer).await.ok()?;
        match read_answer::<serde::de::IgnoredAny>(&answer) {
            Ok(_) => Some(connection),
            Err(e) => {
                tracing::info!("no reports of other nodes: {e:#}");
                None
            }
        }
    }

    async fn ask(&self, request: &Request) -> anyhow::Result<BufReader<UnixStream>> {
        let control = to_look(&self.control);
        let shown = control.display();
        let stream = UnixStream::connect(&control).await;
        let mut stream = stream.with_context(|| format!("{shown}: is `lcroute run` running?"))?;
        let mut text = serde_json::to_vec(request)?;
        text.push(b'\n');
        stream.write_all(&text).await?;
        Ok(BufReader::new(stream))
    }
}

/// A token, and until when hosts can join by it, in Unix seconds.
#[derive(Debug, serde::Deserialize)]
pub struct Invitation {
    pub token: String,
    pub not_after: u64,
}

/// Unix seconds.
fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}

/// A line for pages.
fn line(of: &impl serde::Serialize) -> Bytes {
    // maps have texts as keys: it cannot fail
    let mut text = serde_json::to_vec(of).unwrap_or_default();
    text.push(b'\n');
    text.into()
}

/// Appends up to the end of the line; what was read stays when it is interrupted.
async fn next_line(from: &mut BufReader<UnixStream>, line: &mut Vec<u8>) -> anyhow::Result<()> {
    let left = MAX_LINE.saturating_sub(line.len() as u64);
    let _ = from.take(left).read_until(b'\n', line).await?;
    match line.last() {
        Some(b'\n') => Ok(()),
        _ if line.len() as u64 >= MAX_LINE => bail!("the daemon's answer is too long"),
        _ => bail!("the daemon has closed the connection"),
    }
}

/// [`lcroute::control::Answer`], read without a tree of values: that would take ten times the memory of a long line.
#[derive(serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer<T> {
    Ok(T),
    Error(String),
}

fn read_answer<T: serde::de::DeserializeOwned>(line: &[u8]) -> anyhow::Result<T> {
    match serde_json::from_slice(line).context("the daemon's answer")? {
        Answer::Ok(answer) => Ok(answer),
        Answer::Error(message) => bail!("the daemon refused: {message}"),
    }
}

/// A socket that has joined a group on the interface.
fn hear(interface: &str, group: Ipv6Addr, port: u16) -> anyhow::Result<UdpSocket> {
    let index = nix::net::if_::if_nametoindex(interface)?;
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    // datagrams to other groups of this port are not for this socket
    let address = SocketAddrV6::new(group, port, 0, index);
    socket.bind(&SocketAddr::from(address).into())?;
    socket.join_multicast_v6(&group, index)?;
    Ok(UdpSocket::from_std(socket.into())?)
}

async fn receive(socket: Option<&UdpSocket>, buffer: &mut [u8]) -> Option<(Ipv6Addr, usize)> {
    let Some(socket) = socket else {
        return std::future::pending().await;
    };
    match socket.recv_from(buffer).await {
        Ok((len, from)) => match from.ip() {
            IpAddr::V6(from) => Some((from, len)),
            IpAddr::V4(_) => None,
        },
        // the interface has gone, most likely: the daemon will say so
        Err(_) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_left_out_and_what_is_left_never_falls() {
        let mut own = OwnTraffic::default();
        assert_eq!(own.leave_out(1_000), 1_000);
        own.reports = 200;
        // it is here, and not counted yet
        assert_eq!(own.leave_out(1_000), 1_000);
        assert_eq!(own.leave_out(1_200), 1_000);
        assert_eq!(own.leave_out(1_250), 1_050);
        assert_eq!(own.leave_out(10), 10, "a daemon that has started anew");
    }
}
