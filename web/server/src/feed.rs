//! Requests the daemon's state, and receives reports while a page is open; else fills the history.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use lcradio_core::{SAP_GROUP, SAP_PORT};
use lcroute_control::Request;
use lcroute_control::client::to_look;
use lcroute_control::status::{Look, Peer, Status};
use lcroute_node::view::View;
use librecast::channel::{REPORT_PORT, look_group, report_group};
use librecast::time::UnixTime;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{Notify, broadcast};

use crate::groups::Groups;
use crate::hear::{hear, receive};
use crate::history::{Event, History, INTERVAL};
use crate::line::Line;
use crate::names::{Known, Names};

/// Lines of delay for a slow page.
const BEHIND: usize = 4;
/// Pause before a daemon that did not answer is asked again.
const RETRY: Duration = Duration::from_secs(1);
/// Longest silence of the daemon, which sends once a second.
const SILENCE: Duration = Duration::from_secs(10);
/// Bytes of a line of the daemon: some thousand nodes.
const MAX_LINE: u64 = 16 << 20;
/// Bytes of a report.
const MAX_DATAGRAM: usize = 2_048;
/// Bytes of a station's announcement: a description of 4,096 with its head.
const MAX_ANNOUNCEMENT: usize = 4_608;
/// Bytes of a report's headers on a link: data header, IPv6 and UDP.
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
    /// Groups of people that pages may show; their names are shown too.
    groups: Option<Arc<Groups>>,
    /// Traffic that pages cause.
    own: Mutex<OwnTraffic>,
}

/// Reports of other nodes: pages cause this traffic, and no user's program.
#[derive(Debug, Default)]
struct OwnTraffic {
    /// Bytes of reports, as links carry them.
    reports: u64,
    /// The daemon's count at the last look, and the rest of it without reports.
    counted: u64,
    left: u64,
}

impl OwnTraffic {
    /// Subtracts reports from all received bytes. Never falls: a report may precede its count.
    fn leave_out(&mut self, counted: u64) -> u64 {
        if counted < self.counted {
            // the daemon has restarted
            *self = Self::default();
        }
        self.counted = counted;
        self.left = self.left.max(counted.saturating_sub(self.reports));
        self.left
    }
}

impl Feed {
    /// Creates the feed of the daemon at this control socket.
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

    /// Returns the first message to a page, and the later lines.
    pub fn subscribe(&self) -> (Bytes, broadcast::Receiver<Bytes>) {
        // each event is in exactly one of the two
        let history = self.history();
        let lines = self.lines.subscribe();
        self.opened.notify_one();
        (line(&history.beginning(self.invites)), lines)
    }

    /// Ignores poisoning: no panic leaves it half changed.
    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the history, and sends its events to pages.
    fn note(&self, change: impl FnOnce(&mut History) -> Vec<Event>) {
        let mut history = self.history();
        let events = change(&mut history);
        if !events.is_empty() {
            // no page may be open
            let _ = self
                .lines
                .send(line(&serde_json::json!({ "events": events })));
        }
    }

    /// Runs forever.
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
                // the last page may have closed
                let _ = self.lines.send(line(&error));
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// Records links while no page is open; counts no reports.
    async fn remember(&self) -> anyhow::Result<()> {
        let mut status: Status = self.answer(&Request::Status).await?;
        self.leave_out_own(&mut status);
        let peers: Vec<Peer> = self.answer(&Request::Peers).await?;
        self.note(|history| history.note(&status, &peers, None, now()));
        // an opened page ends the pause
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

    /// Requests a token for a page.
    pub async fn invite(&self, request: &Request) -> anyhow::Result<Invitation> {
        self.answer(request).await
    }

    /// Returns the daemon's answer to one request.
    async fn answer<T: serde::de::DeserializeOwned>(&self, request: &Request) -> anyhow::Result<T> {
        let mut connection = self.ask(request).await?;
        let mut line = Vec::new();
        let read = tokio::time::timeout(SILENCE, next_line(&mut connection, &mut line));
        read.await.context("the daemon is silent")??;
        read_answer(&line)
    }

    /// Forwards the daemon's state until no page is open.
    async fn follow(&self) -> anyhow::Result<()> {
        let mut looks = self.ask(&Request::Watch).await?;
        let _announced = self.announce().await;
        let meanings = self.answer(&Request::Drops).await?;
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
                    let listen = |group: Ipv6Addr, port: u16| {
                        hear(&look.status.tun, SocketAddr::from((group, port)))
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
                    // the last page may have closed
                    let _ = self.lines.send(line(&Line::new(&look, network, named, &meanings, at)));
                }
                Some((from, len)) = receive(reports.as_ref(), &mut datagram) => {
                    if address != Some(from) {
                        self.own().reports += (len + HEADERS) as u64;
                    }
                    view.take_report(from, &datagram[..len], Instant::now());
                }
                Some((from, len)) = receive(announcements.as_ref(), &mut announced) => {
                    let datagram = &announced[..len];
                    names.stations.handle_datagram(from, datagram, Instant::now(), UnixTime::now());
                }
                found = &mut known => {
                    names.known = found;
                    known = Box::pin(Known::later(groups));
                }
            }
        }
        Ok(())
    }

    /// Announces the group that makes other nodes report; without that right there are no reports.
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

/// A token, and when it expires, in Unix seconds.
#[derive(Debug, serde::Deserialize)]
pub struct Invitation {
    pub token: String,
    pub not_after: u64,
}

/// Unix seconds.
fn now() -> f64 {
    UnixTime::now().since_1970().as_secs_f64()
}

/// A line for pages.
fn line(of: &impl serde::Serialize) -> Bytes {
    // maps have texts as keys, so it cannot fail
    let mut text = serde_json::to_vec(of).unwrap_or_default();
    text.push(b'\n');
    text.into()
}

/// Reads up to the end of the line; an interrupted call keeps the bytes read.
async fn next_line(from: &mut BufReader<UnixStream>, line: &mut Vec<u8>) -> anyhow::Result<()> {
    let left = MAX_LINE.saturating_sub(line.len() as u64);
    let _ = from.take(left).read_until(b'\n', line).await?;
    match line.last() {
        Some(b'\n') => Ok(()),
        _ if line.len() as u64 >= MAX_LINE => bail!("the daemon's answer is too long"),
        _ => bail!("the daemon has closed the connection"),
    }
}

/// [`lcroute_control::Answer`], without a tree of values, which would take ten times the memory.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_left_out_and_what_is_left_never_falls() {
        let mut own = OwnTraffic::default();
        assert_eq!(own.leave_out(1_000), 1_000);
        own.reports = 200;
        // received, and not counted yet
        assert_eq!(own.leave_out(1_000), 1_000);
        assert_eq!(own.leave_out(1_200), 1_000);
        assert_eq!(own.leave_out(1_250), 1_050);
        assert_eq!(own.leave_out(10), 10, "a daemon that has started anew");
    }
}
