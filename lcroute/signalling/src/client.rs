//! The node's side of signalling servers: a task for each, which reconnects without end.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{SinkExt, StreamExt};
use lcroute_overlay::proof::{RelayReply, RelayRequest, prove};
use lcroute_overlay::server::{MAX_MESSAGE, Role, Room, ToNode, ToServer};
use lcroute_overlay::{CarrierId, MAX_SIGNAL, Presence, Random};
use lcroute_tls::HTTP_1;
use librecast::cert::Chain;
use librecast::events::LogLimit;
use librecast::id::{PeerId, SecretKey};
use librecast::signalling;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config};

use crate::beside::{Beside, Change, Closed};
use crate::carrier::{Carrier, CarrierEvent, Pace, PathChange};
use crate::proxy::{CONNECT, Proxy, dial, no_answer};
use crate::ranking::Rank;

/// Age after which a change of the path restarts an attempt. Chosen: TCP's first repetition.
const STALE: Duration = Duration::from_secs(1);
/// Interval of pings to a server; the server ends a silent client after 25 s.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// Silence after which a server counts as gone.
const SILENCE: Duration = Duration::from_secs(25);
/// Time limit for its answer after a change of the path.
const PROBE: Duration = Duration::from_secs(2);
/// Interval at which an unreachable server is logged again. Chosen.
const REMINDER: Duration = Duration::from_secs(3_600);
/// Time for which one URL of a server is tried before the next one is tried beside it. Chosen:
/// twice the delay of RFC 8305 §5, as TLS takes more turns.
const HEAD_START: Duration = Duration::from_millis(500);
/// First and longest pause between attempts: a server that comes back is found within seconds.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));
/// Maximum number of sealed messages that wait for one server.
const QUEUE: usize = 256;

/// A signalling server, as a carrier. Dropping it closes the connection.
#[derive(Debug)]
pub struct WebSocket {
    queue: mpsc::Sender<(PeerId, Bytes)>,
    path: watch::Sender<Path>,
    task: JoinHandle<()>,
}

/// The state of the paths from this host: each change of the value causes a check.
#[derive(Debug, Clone, Copy, Default)]
struct Path {
    addresses: u64,
}

/// This node's identity for a server.
#[derive(Debug, Clone)]
pub(crate) struct Me {
    pub(crate) key: Arc<SecretKey>,
    pub(crate) room: Room,
    pub(crate) role: Role,
    /// Its proof of membership, for a relay; none: it asks for no relay.
    pub(crate) chain: watch::Receiver<Option<Chain>>,
}

impl Drop for WebSocket {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl WebSocket {
    /// Connects without end, through a proxy if given; to be called within a tokio runtime.
    pub(crate) fn start(
        (url, proxy): (&str, Option<Proxy>),
        carrier: CarrierId,
        rank: Rank,
        me: Me,
        events: mpsc::Sender<CarrierEvent>,
    ) -> Self {
        Self::start_with((url, proxy), carrier, rank, me, events, None)
    }

    /// Does the same, and enters other rooms beside that of the registration.
    pub(crate) fn start_with(
        (url, proxy): (&str, Option<Proxy>),
        carrier: CarrierId,
        rank: Rank,
        me: Me,
        events: mpsc::Sender<CarrierEvent>,
        beside: Option<Beside>,
    ) -> Self {
        let (queue, messages) = mpsc::channel(QUEUE);
        let path = watch::Sender::default();
        let session = Session {
            url: url.to_owned(),
            proxy,
            carrier,
            me,
            no_relay: None,
            events,
            messages,
            path: path.subscribe(),
            beside,
        };
        let task = tokio::spawn(session.run(rank));
        Self { queue, path, task }
    }
}

impl Carrier for WebSocket {
    fn pace(&self) -> Pace {
        Pace::Live
    }

    fn longest(&self) -> usize {
        MAX_SIGNAL
    }

    fn send(&self, to: PeerId, sealed: &Bytes) -> bool {
        self.queue.try_send((to, sealed.clone())).is_ok()
    }

    /// After an address change, makes a connection from a lost address again at once, long before
    /// TCP would notice. After a change of links, makes a connection without an answer again, and
    /// tries an unreachable server at once.
    fn path_changed(&self, change: PathChange) {
        self.path.send_modify(|path| {
            path.addresses += u64::from(change == PathChange::Addresses);
        });
    }
}

/// Connects to a server, through a proxy if given, and waits for its challenge without
/// registering; returns the time that this took.
///
/// # Errors
/// The cause of the failure at each of the server's URLs.
pub async fn probe(server: &str, proxy: Option<&Proxy>) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let mut socket = open(server, proxy).await?;
    let first = async {
        while let Some(message) = socket.next().await {
            let Message::Binary(bytes) = message? else {
                continue;
            };
            match ToNode::decode(&bytes)? {
                ToNode::Challenge(_) => return Ok(begun.elapsed()),
                ToNode::Refused(reason) => return Err(refused(&reason)),
                _ => {}
            }
        }
        anyhow::bail!("it says nothing: is it a signalling server?")
    };
    timeout(CONNECT, first).await.map_err(|_| no_answer())?
}

/// Opens a connection at the first of a server's URLs that lets it in; an error names each.
async fn open(
    server: &str,
    proxy: Option<&Proxy>,
) -> anyhow::Result<WebSocketStream<MaybeTlsStream<TcpStream>>> {
    let urls = signalling::urls(server);
    if let [url] = &*urls {
        return open_url(url, proxy).await;
    }
    let mut waiting = urls.iter();
    let mut attempts = FuturesUnordered::new();
    let mut failed = Vec::new();
    loop {
        if let Some(url) = waiting.next() {
            attempts.push(async move { (url, open_url(url, proxy).await) });
        }
        match timeout(HEAD_START, attempts.next()).await {
            Ok(Some((_, Ok(socket)))) => return Ok(socket),
            Ok(Some((url, Err(e)))) => failed.push(format!("{url}: {e:#}")),
            Ok(None) => anyhow::bail!(failed.join("; ")),
            // the next one is tried beside it
            Err(_) => {}
        }
    }
}

async fn open_url(
    url: &str,
    proxy: Option<&Proxy>,
) -> anyhow::Result<WebSocketStream<MaybeTlsStream<TcpStream>>> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    let tls = url.starts_with("wss:");
    let connector = match tls {
        true => Connector::Rustls(lcroute_tls::client(&[HTTP_1])?),
        false => Connector::Plain,
    };
    let request = url.into_client_request()?;
    let uri = request.uri();
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let tcp = dial((host, port), tls, proxy).await?;
    let connecting = client_async_tls_with_config(request, tcp, Some(config), Some(connector));
    let connected = timeout(CONNECT, connecting)
        .await
        .map_err(|_| no_answer())?;
    let (socket, _) = connected.map_err(explained)?;
    Ok(socket)
}

/// Says in users' words why a server's certificate is refused.
fn explained(error: tungstenite::Error) -> anyhow::Error {
    let refusal = match &error {
        tungstenite::Error::Io(e) => lcroute_tls::refusal(e),
        _ => None,
    };
    refusal.map_or_else(|| error.into(), anyhow::Error::msg)
}

/// A connection on which this node is registered, and its challenge.
type Registered = (WebSocketStream<MaybeTlsStream<TcpStream>>, [u8; 32]);

async fn registered(url: &str, proxy: Option<&Proxy>, me: &Me) -> anyhow::Result<Registered> {
    let mut socket = open(url, proxy).await?;
    let silent = |_| no_answer();
    let challenge = timeout(CONNECT, register(&mut socket, me))
        .await
        .map_err(silent)??;
    Ok((socket, challenge))
}

/// Registers; returns the server's challenge.
async fn register<S>(socket: &mut WebSocketStream<S>, me: &Me) -> anyhow::Result<[u8; 32]>
where
    WebSocketStream<S>: Socket,
{
    while let Some(message) = socket.next().await {
        let Message::Binary(bytes) = message? else {
            continue;
        };
        let challenge = match ToNode::decode(&bytes)? {
            ToNode::Challenge(challenge) => challenge,
            ToNode::Refused(reason) => return Err(refused(&reason)),
            _ => anyhow::bail!("no challenge: is it a signalling server?"),
        };
        let register = ToServer::register(&me.key, me.room, me.role, &challenge);
        socket.send(Message::binary(register.encode())).await?;
        return Ok(challenge);
    }
    Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
}

fn refused(reason: &str) -> anyhow::Error {
    anyhow::anyhow!("refused by the server: {reason}")
}

struct Session {
    url: String,
    proxy: Option<Proxy>,
    carrier: CarrierId,
    me: Me,
    events: mpsc::Sender<CarrierEvent>,
    messages: mpsc::Receiver<(PeerId, Bytes)>,
    path: watch::Receiver<Path>,
    /// The last logged reason for which the server gave no relay.
    no_relay: Option<String>,
    /// Rooms beside that of the registration.
    beside: Option<Beside>,
}

/// Waits for changes of rooms; none: their owner has gone.
async fn changes(beside: &mut Option<Beside>) -> Option<Vec<Change>> {
    match beside {
        Some(beside) => beside.changes().await,
        None => std::future::pending().await,
    }
}

/// The end of a conversation, except errors.
enum Ended {
    Closed,
    /// Enough better servers answer.
    NotNeeded,
    /// The connection did not survive a change of the path.
    Moved(&'static str),
}

/// Pauses between connections, which double.
struct Backoff {
    next: Duration,
}

impl Backoff {
    fn new() -> Self {
        Self { next: BACKOFF.0 }
    }

    /// Returns the pause after a connection or attempt of `lived`; after an address change, none.
    fn after(&mut self, lived: Duration, moved: bool) -> Duration {
        if moved || lived > BACKOFF.1 {
            self.next = BACKOFF.0;
        }
        if moved { Duration::ZERO } else { self.next }
    }

    /// Notes the end of the pause; `moved`: by an address change.
    fn passed(&mut self, moved: bool) {
        self.next = if moved {
            BACKOFF.0
        } else {
            (self.next * 2).min(BACKOFF.1)
        };
    }
}

impl Session {
    async fn run(mut self, mut rank: Rank) {
        let mut backoff = Backoff::new();
        let mut warned_at: Option<Instant> = None;
        // a server that accepts and then closes connections cannot fill the log
        let mut log_limit = LogLimit::default();
        loop {
            rank.come().await;
            let connected = Instant::now();
            let mut moved = false;
            let error = match self.connect().await {
                Ok(mut socket) => {
                    if log_limit.admit(connected.into_std()).is_some() {
                        tracing::info!("signalling by {}", self.url);
                        warned_at = None;
                    }
                    rank.answers(true);
                    let result = self.converse(&mut socket, &mut rank).await;
                    if let Some(beside) = &mut self.beside
                        && beside.end(self.carrier).await.is_err()
                    {
                        return;
                    }
                    if self.report(Presence::CarrierDown).await.is_err() {
                        return;
                    }
                    match result {
                        Ok(Ended::Closed) => return,
                        Ok(Ended::NotNeeded) => {
                            tracing::info!("{}: better servers answer again", self.url);
                            continue;
                        }
                        Ok(Ended::Moved(why)) => {
                            moved = true;
                            anyhow::anyhow!(why)
                        }
                        Err(e) => e,
                    }
                }
                Err(e) => {
                    rank.answers(false);
                    e
                }
            };
            let pause = backoff.after(connected.elapsed(), moved);
            // a warning first, then at intervals: a server may be unreachable for days
            if warned_at.is_some_and(|at| at.elapsed() < REMINDER) {
                tracing::debug!("{}: {error}; next try in {pause:?}", self.url);
            } else {
                tracing::warn!(
                    "signalling server {} is not reached: {error}; trying again",
                    self.url
                );
                warned_at = Some(Instant::now());
            }
            // a change of the path may end the pause
            match timeout(with_jitter(pause), self.path.changed()).await {
                Err(_) => backoff.passed(false),
                Ok(Ok(())) => backoff.passed(true),
                Ok(Err(_)) => return,
            }
        }
    }

    async fn connect(&mut self) -> anyhow::Result<WebSocketStream<MaybeTlsStream<TcpStream>>> {
        let mut attempt = Box::pin(registered(&self.url, self.proxy.as_ref(), &self.me));
        let mut begun = (Instant::now(), self.path.borrow().addresses);
        let (socket, challenge) = loop {
            tokio::select! {
                registered = &mut attempt => break registered?,
                changed = self.path.changed() => changed?,
            }
            // starts again: packets from an address that is no longer this host's, or not yet, get
            // no answer, and TCP repeats them for many seconds
            let now = (Instant::now(), self.path.borrow_and_update().addresses);
            if now.1 != begun.1 || now.0 > begun.0 + STALE {
                begun = now;
                attempt.set(registered(&self.url, self.proxy.as_ref(), &self.me));
            }
        };
        drop(attempt);
        // messages for the old connection are stale
        while self.messages.try_recv().is_ok() {}
        if let Some(beside) = &mut self.beside {
            beside.begin(challenge);
        }
        Ok(socket)
    }

    async fn converse<S>(
        &mut self,
        socket: &mut WebSocketStream<S>,
        rank: &mut Rank,
    ) -> anyhow::Result<Ended>
    where
        WebSocketStream<S>: Socket,
    {
        let mut over = pin!(rank.over());
        if self.report(Presence::CarrierUp).await.is_err() {
            return Ok(Ended::Closed);
        }
        let mut ping = tokio::time::interval(PING_INTERVAL);
        let mut received_at = Instant::now();
        let mut answer_by = None;
        self.ask_for_relay(socket).await?;
        loop {
            tokio::select! {
                changes = changes(&mut self.beside) => {
                    let Some(changes) = changes else { return Ok(Ended::Closed) };
                    for change in changes {
                        let message = match change {
                            Change::Send(message) => message,
                            Change::Tell(own, presence) => {
                                if self.tell(own, presence).await.is_err() {
                                    return Ok(Ended::Closed);
                                }
                                continue;
                            }
                        };
                        let message = Message::binary(message.encode());
                        timeout(CONNECT, socket.send(message)).await??;
                    }
                }
                // refused certificates may have been renewed
                Ok(()) = self.me.chain.changed() => self.ask_for_relay(socket).await?,
                changed = self.path.changed() => {
                    if changed.is_err() {
                        return Ok(Ended::Closed);
                    }
                    if !socket.address_is_ours() {
                        return Ok(Ended::Moved("this host lost the address of the connection"));
                    }
                    if answer_by.is_some() {
                        continue;
                    }
                    answer_by = Some(Instant::now() + PROBE);
                    let sent = timeout(PROBE, socket.send(Message::Ping(Bytes::new()))).await;
                    if !matches!(sent, Ok(Ok(()))) {
                        return Ok(Ended::Moved("cut by a change of the path"));
                    }
                }
                () = &mut over => return Ok(Ended::NotNeeded),
                () = until(answer_by) => {
                    return Ok(Ended::Moved("no answer after a change of the path"));
                }
                waiting = self.messages.recv() => {
                    let Some((to, bytes)) = waiting else { return Ok(Ended::Closed) };
                    let message = ToServer::Send { to, bytes: bytes.to_vec() };
                    timeout(CONNECT, socket.send(Message::binary(message.encode()))).await??;
                }
                message = socket.next() => {
                    let Some(message) = message.transpose()? else { anyhow::bail!("closed by the server") };
                    received_at = Instant::now();
                    answer_by = None;
                    match message {
                        Message::Binary(bytes) => {
                            let handled = self.handle(ToNode::decode(&bytes)?).await?;
                            if handled.is_err() {
                                return Ok(Ended::Closed);
                            }
                        }
                        Message::Text(text) => {
                            let proof = RelayReply::decode(&text).and_then(|r| self.prove(r));
                            if let Some(proof) = proof {
                                let proof = Message::text(proof.encode());
                                timeout(CONNECT, socket.send(proof)).await??;
                            }
                        }
                        _ => {}
                    }
                }
                _ = ping.tick() => {
                    if received_at.elapsed() > SILENCE {
                        anyhow::bail!("silent for {SILENCE:?}");
                    }
                    timeout(CONNECT, socket.send(Message::Ping(Bytes::new()))).await??;
                }
            }
        }
    }

    async fn handle(&mut self, message: ToNode) -> anyhow::Result<Result<(), Closed>> {
        let event = match message {
            ToNode::Present(peer) => CarrierEvent::Presence(self.carrier, Presence::Online(peer)),
            ToNode::Gone(peer) => CarrierEvent::Presence(self.carrier, Presence::Offline(peer)),
            ToNode::Deliver { from, bytes } => CarrierEvent::Signal {
                carrier: self.carrier,
                from,
                bytes,
            },
            // the server sends new credentials before these end
            ToNode::Relay { credentials, .. } => {
                self.no_relay = None;
                CarrierEvent::Relay(self.url.clone(), credentials)
            }
            ToNode::Refused(reason) => return Err(refused(&reason)),
            ToNode::Challenge(_) => anyhow::bail!("challenged twice"),
            ToNode::In { own, message } => {
                let event = match *message {
                    ToNode::Refused(reason) => {
                        tracing::debug!("{}: not in a room: {reason}", self.url);
                        if let Some(beside) = &mut self.beside {
                            beside.refused(&own);
                        }
                        CarrierEvent::Presence(self.carrier, Presence::CarrierDown)
                    }
                    ToNode::Present(peer) => {
                        CarrierEvent::Presence(self.carrier, Presence::Online(peer))
                    }
                    ToNode::Gone(peer) => {
                        CarrierEvent::Presence(self.carrier, Presence::Offline(peer))
                    }
                    ToNode::Deliver { from, bytes } => CarrierEvent::Signal {
                        carrier: self.carrier,
                        from,
                        bytes,
                    },
                    _ => anyhow::bail!("a message that is for no room"),
                };
                return Ok(match &self.beside {
                    Some(beside) => beside.tell(own, event).await,
                    None => Ok(()),
                });
            }
        };
        Ok(self.events.send(event).await.map_err(|_| Closed))
    }

    /// Tells the owner of rooms about one of them.
    async fn tell(&self, own: PeerId, presence: Presence) -> Result<(), Closed> {
        match &self.beside {
            Some(beside) => {
                let event = CarrierEvent::Presence(self.carrier, presence);
                beside.tell(own, event).await
            }
            None => Ok(()),
        }
    }

    async fn ask_for_relay<S>(&mut self, socket: &mut WebSocketStream<S>) -> anyhow::Result<()>
    where
        WebSocketStream<S>: Socket,
    {
        let has_proof = self.me.chain.borrow_and_update().is_some();
        if has_proof {
            let ask = Message::text(RelayRequest::Ask.encode());
            timeout(CONNECT, socket.send(ask)).await??;
        }
        Ok(())
    }

    /// Returns the proof of membership for servers that relay for members only.
    fn prove(&mut self, reply: RelayReply) -> Option<RelayRequest> {
        match reply {
            RelayReply::Prove(key) => {
                let mut seed = [0; 32];
                getrandom::fill(&mut seed).ok()?;
                let chain = self.me.chain.borrow();
                prove(chain.as_ref()?, &key, &mut Random::new(seed))
            }
            RelayReply::Refused(reason) => {
                if self.no_relay.as_ref() != Some(&reason) {
                    tracing::warn!("signalling server {} gives no relay: {reason}", self.url);
                    self.no_relay = Some(reason);
                }
                None
            }
        }
    }

    async fn report(&self, presence: Presence) -> Result<(), Closed> {
        self.events
            .send(CarrierEvent::Presence(self.carrier, presence))
            .await
            .map_err(|_| Closed)
    }
}

/// Adds up to a quarter, so that the clients of a restarted server do not come all at once.
fn with_jitter(pause: Duration) -> Duration {
    let mut random = [0];
    // without randomness the pause is sufficient too
    let _ = getrandom::fill(&mut random);
    pause + pause.mul_f64(f64::from(random[0]) / 1_024.0)
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// A WebSocket over any stream.
trait Socket:
    StreamExt<Item = Result<Message, tokio_tungstenite::tungstenite::Error>>
    + SinkExt<Message, Error = tokio_tungstenite::tungstenite::Error>
    + Unpin
{
    /// Returns whether this host still has the connection's local address.
    fn address_is_ours(&self) -> bool;
}

impl Socket for WebSocketStream<MaybeTlsStream<TcpStream>> {
    fn address_is_ours(&self) -> bool {
        let tcp = match self.get_ref() {
            MaybeTlsStream::Plain(tcp) => tcp,
            MaybeTlsStream::Rustls(tls) => tls.get_ref().0,
            _ => return true,
        };
        let Ok(mut local) = tcp.local_addr() else {
            return false;
        };
        // only an address of this host can be bound
        local.set_port(0);
        std::net::UdpSocket::bind(local).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_an_old_address_do_not_delay_a_new_one() {
        let (mut backoff, soon) = (Backoff::new(), Duration::from_secs(1));
        let mut pauses = Vec::new();
        for _ in 0..6 {
            pauses.push(backoff.after(soon, false).as_millis());
            backoff.passed(false);
        }
        assert_eq!(pauses, [500, 1_000, 2_000, 4_000, 5_000, 5_000]);
        // the server came back, and the address changed at once
        assert_eq!(backoff.after(soon, true), Duration::ZERO);
        backoff.passed(false);
        assert_eq!(backoff.after(soon, false), Duration::from_secs(1));
    }

    #[test]
    fn a_change_of_addresses_during_a_pause_ends_it_and_what_it_grew_to() {
        let mut backoff = Backoff::new();
        (0..4).for_each(|_| backoff.passed(false));
        backoff.passed(true);
        assert_eq!(backoff.after(Duration::ZERO, false), BACKOFF.0);
    }

    #[test]
    fn a_connection_that_held_for_long_was_a_good_one() {
        let mut backoff = Backoff::new();
        (0..4).for_each(|_| backoff.passed(false));
        assert_eq!(backoff.after(BACKOFF.1 * 2, false), BACKOFF.0);
    }
}
