//! The background program between the daemon, the DHT and the room.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use librecast::reach::{FromReach, MAX_LINE, Meeting, Plan, State, ToReach};
use librecast_program::cli::{Exit, ExitError};
use librecast_program::service;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, sleep_until, timeout};

use crate::dht::Dht;
use crate::matrix;
use crate::schedule::{Done, Schedule, Task};

/// Interval between attempts to reach the daemon. Chosen: a restart takes some tenths of a second.
const RETRY: Duration = Duration::from_millis(500);
/// Absence of the daemon after which the program leaves the DHT. Chosen: a restarted daemon is back
/// sooner, and finds the DHT entered.
const AWAY: Duration = Duration::from_secs(10);
/// Interval at which answering nodes are counted.
const COUNT: Duration = Duration::from_secs(2);
/// Interval at which the DHT is entered again if no node answers: names may resolve by then.
const ENTER_AGAIN: Duration = Duration::from_secs(30);
/// Time limit for the daemon to accept a line.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of lines about the room that wait for the daemon; then the room's reader waits.
const ROOM_LINES: usize = 64;

/// Runs with the daemon's socket, or with standard input as the only connection.
pub(crate) fn run(socket: Option<&Path>) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        service::ready();
        let mut entered = Entered::default();
        let ended = tokio::select! {
            ended = async {
                match socket {
                    Some(socket) => serve(socket, &mut entered, AWAY).await,
                    None => serve_once(&mut entered).await,
                }
            } => ended,
            _ = interrupt.recv() => Ok(Exit::Ok),
            _ = terminate.recv() => Ok(Exit::Ok),
        };
        service::stopping();
        ended
    })
}

/// Serves the program that started this one, to its end.
async fn serve_once(entered: &mut Entered) -> anyhow::Result<Exit> {
    let stream = std::os::unix::net::UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    stream.set_nonblocking(true)?;
    let stream = UnixStream::from_std(stream)?;
    match Conversation::new(stream, entered).run().await {
        Ok(()) => Ok(Exit::Ok),
        Err(Ended::Refused(why)) => Err(ExitError::new(Exit::Failed, why).into()),
        Err(Ended::Io(e)) => Err(e.into()),
    }
}

/// Serves the daemon across its restarts; leaves the DHT if the daemon is absent for `away`.
async fn serve(socket: &Path, entered: &mut Entered, away: Duration) -> anyhow::Result<Exit> {
    let mut said = String::new();
    let mut seen = Instant::now();
    loop {
        match UnixStream::connect(socket).await {
            Ok(stream) => {
                tracing::info!("connected with the daemon at {}", socket.display());
                said.clear();
                let ended = Conversation::new(stream, entered).run().await;
                seen = Instant::now();
                match ended {
                    Ok(()) => tracing::info!("the daemon has gone"),
                    Err(Ended::Refused(why)) => {
                        return Err(ExitError::new(Exit::Failed, why).into());
                    }
                    Err(Ended::Io(e)) => tracing::warn!("the daemon: {e}"),
                }
            }
            Err(e) => {
                let problem = format!(
                    "{}: {e}: waiting for `lcroute run` with [signal] dht = true or [matrix]",
                    socket.display()
                );
                if said != problem {
                    tracing::info!("{problem}");
                    said = problem;
                }
                if seen.elapsed() >= away {
                    entered.leave();
                }
            }
        }
        sleep(RETRY).await;
    }
}

/// The DHT, across restarts of the daemon: its nodes see this host while it is entered.
#[derive(Debug, Default)]
struct Entered {
    by: Vec<String>,
    dht: Option<Dht>,
    at: Option<Instant>,
}

impl Entered {
    /// Enters the DHT by these nodes, unless it is entered.
    async fn enter(&mut self, bootstrap: &[String]) {
        if self.dht.is_none() || self.by != bootstrap {
            self.by = bootstrap.to_vec();
            self.enter_anew().await;
        }
    }

    async fn enter_anew(&mut self) {
        self.at = Some(Instant::now());
        self.dht = match Dht::enter(&self.by).await {
            Ok(dht) => Some(dht),
            Err(e) => {
                tracing::warn!("UDP socket: {e}");
                None
            }
        };
    }

    fn leave(&mut self) {
        self.dht = None;
    }

    async fn standing(&self) -> (usize, Option<Ipv4Addr>) {
        match &self.dht {
            Some(dht) => dht.standing().await,
            None => (0, None),
        }
    }
}

/// The reason for which a conversation ends before the daemon does.
enum Ended {
    /// The daemon refused this program.
    Refused(String),
    Io(io::Error),
}

impl From<io::Error> for Ended {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

struct Conversation<'a> {
    read: BufReader<OwnedReadHalf>,
    line: Vec<u8>,
    write: OwnedWriteHalf,
    entered: &'a mut Entered,
    schedule: Schedule,
    has_plan: bool,
    tasks: JoinSet<Done>,
    nodes: usize,
    outer: Option<Ipv4Addr>,
    said: Option<State>,
    meetings: watch::Sender<Option<Box<Meeting>>>,
    room_lines: mpsc::Receiver<FromReach>,
    /// The room's task, which ends with the conversation.
    _room: JoinSet<()>,
    begun: Instant,
}

impl<'a> Conversation<'a> {
    fn new(stream: UnixStream, entered: &'a mut Entered) -> Self {
        let (read, write) = stream.into_split();
        let (meetings, wanted) = watch::channel(None);
        let (lines, room_lines) = mpsc::channel(ROOM_LINES);
        let mut room = JoinSet::new();
        room.spawn(matrix::run(wanted, lines));
        Self {
            read: BufReader::new(read),
            line: Vec::new(),
            write,
            entered,
            schedule: Schedule::default(),
            has_plan: false,
            tasks: JoinSet::new(),
            nodes: 0,
            outer: None,
            said: None,
            meetings,
            room_lines,
            _room: room,
            begun: Instant::now(),
        }
    }

    async fn run(mut self) -> Result<(), Ended> {
        let mut count = interval(COUNT);
        loop {
            let room = (MAX_LINE + 1).saturating_sub(self.line.len()) as u64;
            let mut limited = (&mut self.read).take(room);
            let due = self.schedule.next_timeout();
            let due = due.filter(|_| self.entered.dht.is_some());
            let due = due.unwrap_or_else(|| Instant::now() + COUNT);
            // at the maximum of tasks, waits for one to end
            let idle = self.tasks.is_empty() || due > Instant::now();
            tokio::select! {
                read = limited.read_until(b'\n', &mut self.line) => {
                    read?;
                    let line = std::mem::take(&mut self.line);
                    match line.as_slice() {
                        [] => return Ok(()),
                        [.., b'\n'] => self.handle(&line).await?,
                        _ => return Err(io::Error::other("a line that is too long").into()),
                    }
                }
                Some(done) = self.tasks.join_next() => {
                    // a panicked task would be awaited for ever
                    let done = done.map_err(io::Error::other)?;
                    let found = self.schedule.handle(done, Instant::now());
                    for (key, value) in found {
                        self.say(&FromReach::Seen { key, value }).await?;
                    }
                    self.say_state().await?;
                }
                line = self.room_lines.recv() => match line {
                    Some(line) => self.say(&line).await?,
                    None => return Err(io::Error::other("meeting in a room has ended").into()),
                },
                _ = count.tick(), if self.has_plan => self.count().await?,
                () = sleep_until(due.into()), if idle => {}
            }
            // a restarted daemon that sends no plan does not use the DHT
            if !self.has_plan && self.begun.elapsed() >= AWAY {
                self.entered.leave();
            }
            self.work();
        }
    }

    async fn handle(&mut self, line: &[u8]) -> Result<(), Ended> {
        let line: ToReach = serde_json::from_slice(line).map_err(io::Error::from)?;
        let unbounded = || io::Error::other("a plan beyond all bounds");
        match line {
            ToReach::Plan(Some(plan)) if plan.is_bounded() => self.set_plan(&plan).await,
            ToReach::Plan(None) => self.leave_dht(),
            ToReach::Matrix(None) => drop(self.meetings.send_replace(None)),
            ToReach::Matrix(Some(meeting)) if meeting.is_bounded() => {
                self.meetings.send_replace(Some(meeting));
            }
            ToReach::Plan(Some(_)) | ToReach::Matrix(Some(_)) => return Err(unbounded().into()),
            ToReach::Error(why) => return Err(Ended::Refused(why)),
        }
        Ok(())
    }

    async fn set_plan(&mut self, plan: &Plan) {
        self.entered.enter(&plan.bootstrap).await;
        self.schedule.set_plan(plan, Instant::now());
        self.has_plan = true;
    }

    fn leave_dht(&mut self) {
        self.tasks.abort_all();
        self.tasks = JoinSet::new();
        self.schedule = Schedule::default();
        self.entered.leave();
        (self.has_plan, self.nodes, self.outer, self.said) = (false, 0, None, None);
    }

    fn work(&mut self) {
        let Some(dht) = &self.entered.dht else {
            return;
        };
        while let Some(task) = self.schedule.poll_task(Instant::now()) {
            let dht = dht.clone();
            self.tasks.spawn(async move {
                match task {
                    Task::Put(item) => Done::Put(item.key, dht.put(item).await),
                    Task::Get(key) => Done::Got(key, dht.get(key).await),
                }
            });
        }
    }

    /// Counts the nodes; enters the DHT again at intervals if none answers.
    async fn count(&mut self) -> Result<(), Ended> {
        let before = self.nodes;
        (self.nodes, self.outer) = self.entered.standing().await;
        let entered = self.entered.at;
        if self.nodes == 0 && entered.is_none_or(|at| at.elapsed() >= ENTER_AGAIN) {
            self.entered.enter_anew().await;
        }
        if before == 0 && self.nodes > 0 {
            self.schedule.try_again(Instant::now());
        }
        self.say_state().await
    }

    async fn say_state(&mut self) -> Result<(), Ended> {
        let state = State {
            nodes: self.nodes,
            held: self.schedule.stored(),
            outer: self.outer,
            dropped: self.schedule.dropped(),
        };
        if self.said.as_ref() != Some(&state) {
            self.say(&FromReach::State(state.clone())).await?;
            self.said = Some(state);
        }
        Ok(())
    }

    async fn say(&mut self, line: &FromReach) -> Result<(), Ended> {
        let mut text = serde_json::to_vec(line).map_err(io::Error::from)?;
        text.push(b'\n');
        let written = timeout(WRITE_TIMEOUT, self.write.write_all(&text)).await;
        written.map_err(io::Error::from)??;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Future, poll_fn};
    use std::task::Poll;

    use librecast::reach::{Base58, MAX_KEYS};
    use n0_mainline::Testnet;
    use tokio::net::UnixListener;

    use super::*;

    async fn line(stream: &mut BufReader<UnixStream>) -> String {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        line
    }

    #[tokio::test]
    async fn a_daemon_that_talks_nonsense_is_left_and_one_that_sends_away_ends_the_program() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reach.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let served = tokio::spawn(async move { serve(&path, &mut Entered::default(), AWAY).await });
        let long = vec![b'x'; MAX_LINE + 2];
        let plan = Plan {
            seek: vec![Base58([1; 32]); MAX_KEYS + 1],
            ..Plan::default()
        };
        let plan = serde_json::to_vec(&ToReach::Plan(Some(plan))).unwrap();
        let plan = [plan, b"\n".to_vec()].concat();
        for nonsense in [&b"nonsense\n"[..], b"\xff\n", &long, &plan] {
            let (mut stream, _) = listener.accept().await.unwrap();
            // the program may have gone before it has received all
            let _ = stream.write_all(nonsense).await;
            let mut rest = Vec::new();
            // a reset means the same
            let _ = stream.read_to_end(&mut rest).await;
        }
        let (mut stream, _) = listener.accept().await.unwrap();
        stream
            .write_all(b"{\"error\":\"another\"}\n")
            .await
            .unwrap();
        let ended = served.await.unwrap().unwrap_err();
        assert_eq!(ended.to_string(), "another");
    }

    /// A daemon that hides this host has no socket here, and sends nothing.
    #[tokio::test]
    async fn without_a_daemon_no_node_of_the_dht_sees_this_host() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reach.sock");
        let mut entered = Entered::default();
        entered.enter(&["127.0.0.1:1".into()]).await;
        for (away, stays) in [(AWAY, true), (Duration::ZERO, false)] {
            let mut served = Box::pin(serve(&path, &mut entered, away));
            // one attempt to reach the daemon
            let attempt = poll_fn(|cx| Poll::Ready(served.as_mut().poll(cx).is_pending()));
            assert!(attempt.await);
            drop(served);
            assert_eq!(entered.dht.is_some(), stays);
        }
    }

    #[tokio::test]
    async fn the_daemon_learns_how_it_stands() {
        let swarm = Testnet::new(3).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reach.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let served = tokio::spawn(async move { serve(&path, &mut Entered::default(), AWAY).await });
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        let plan = Plan {
            bootstrap: swarm.bootstrap.clone(),
            seek: vec![Base58([1; 32])],
            ..Plan::default()
        };
        let text = serde_json::to_string(&ToReach::Plan(Some(plan))).unwrap() + "\n";
        stream.get_mut().write_all(text.as_bytes()).await.unwrap();
        loop {
            let line: FromReach = serde_json::from_str(&line(&mut stream).await).unwrap();
            match line {
                FromReach::State(state) if state.nodes > 0 => break,
                FromReach::State(_) => {}
                other => panic!("{other:?}"),
            }
        }
        served.abort();
    }
}
