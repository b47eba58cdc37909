//! The node's side of signalling servers: a task for each, which connects for ever.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use lcroute_overlay::proof::{RelayReply, RelayRequest, prove};
use lcroute_overlay::server::{MAX_MESSAGE, Role, Room, ToNode, ToServer};
use lcroute_overlay::{CarrierId, MAX_SIGNAL, Presence, Random};
use librecast::cert::Chain;
use librecast::events::LogLimit;
use librecast::id::{PeerId, SecretKey};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_socks::tcp::Socks5Stream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config};

use crate::carrier::{Carrier, CarrierEvent, Pace, PathChange};
use crate::ranking::Rank;
use crate::tls::HTTP_1;

/// How long each step of a connection to a server may take. Chosen.
const CONNECT: Duration = Duration::from_secs(10);
/// TCP takes no longer to reach an address, one repetition included: later ones come ever more seldom, however soon the
/// path is back.
const DIAL: Duration = Duration::from_millis(2_500);
/// An attempt that is older begins anew where the path may have changed. Chosen: the first repetition of TCP.
const STALE: Duration = Duration::from_secs(1);
/// Between two pings of a server; the server ends a silent client after 25 s.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// A server that is silent for this long is gone.
const SILENCE: Duration = Duration::from_secs(25);
/// Where the path may have changed it must answer within this time.
const PROBE: Duration = Duration::from_secs(2);
/// A server that stays away is named again this often (chosen).
const REMINDER: Duration = Duration::from_secs(3_600);
/// First and longest pause between attempts: a server that comes back is found within seconds.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));
/// Sealed messages that may wait for one server.
const QUEUE: usize = 256;

/// A signalling server, as a carrier. Dropping it closes the connection.
#[derive(Debug)]
pub struct WebSocket {
    queue: mpsc::Sender<(PeerId, Bytes)>,
    path: watch::Sender<Path>,
    task: JoinHandle<()>,
}

/// What is known of the paths from this host: each change of the value is a reason to look.
#[derive(Debug, Clone, Copy, Default)]
struct Path {
    /// How often addresses have changed.
    addresses: u64,
}

/// What a server is told of this node.
#[derive(Debug, Clone)]
pub(crate) struct Me {
    pub(crate) key: Arc<SecretKey>,
    pub(crate) room: Room,
    /// As what it registers.
    pub(crate) role: Role,
    /// What proves its membership, for a relay; none: it asks for no relay.
    pub(crate) chain: watch::Receiver<Option<Chain>>,
}

impl Drop for WebSocket {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl WebSocket {
    /// Connects to a server, through a SOCKS5 proxy if there is one, over and over; to be called within a tokio runtime.
    pub(crate) fn start(
        (url, socks): (&str, Option<SocketAddr>),
        carrier: CarrierId,
        rank: Rank,
        me: Me,
        events: mpsc::Sender<CarrierEvent>,
    ) -> Self {
        let (queue, messages) = mpsc::channel(QUEUE);
        let path = watch::Sender::default();
        let session = Session {
            url: url.to_owned(),
            socks,
            carrier,
            me,
            no_relay: None,
            events,
            messages,
            path: path.subscribe(),
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

    /// Where addresses have changed a connection that this has cut is made anew at once, long before TCP would notice.
    /// Where links say that a path may have changed a server that does not answer is connected to anew, and one that
    /// was away is tried at once.
    fn path_changed(&self, change: PathChange) {
        self.path.send_modify(|path| {
            path.addresses += u64::from(change == PathChange::Addresses);
        });
    }
}

/// Connects to a server, through a SOCKS5 proxy if there is one, and waits for its first words, without becoming a client of it; how long that took.
pub async fn probe(url: &str, socks: Option<SocketAddr>) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let mut socket = open(url, socks).await?;
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

async fn open(
    url: &str,
    socks: Option<SocketAddr>,
) -> anyhow::Result<WebSocketStream<MaybeTlsStream<TcpStream>>> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    let connector = match url.starts_with("wss:") {
        true => Connector::Rustls(crate::tls::client(&[HTTP_1])?),
        false => Connector::Plain,
    };
    let request = url.into_client_request()?;
    let uri = request.uri();
    let default_port = if uri.scheme_str() == Some("wss") {
        443
    } else {
        80
    };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let tcp = dial(host, uri.port_u16().unwrap_or(default_port), socks).await?;
    let connecting = client_async_tls_with_config(request, tcp, Some(config), Some(connector));
    let (socket, _) = timeout(CONNECT, connecting)
        .await
        .map_err(|_| no_answer())??;
    Ok(socket)
}

/// Connects to the first address of the server's that answers; or through a SOCKS5 proxy, which looks the name up itself.
pub(crate) async fn dial(
    host: &str,
    port: u16,
    socks: Option<SocketAddr>,
) -> anyhow::Result<TcpStream> {
    if let Some(proxy) = socks {
        let connecting = timeout(CONNECT, Socks5Stream::connect(proxy, (host, port)));
        let connected = connecting.await.map_err(|_| no_answer())?;
        let stream = connected.with_context(|| format!("[signal] socks = \"{proxy}\""))?;
        let tcp = stream.into_inner();
        tcp.set_nodelay(true)?;
        return Ok(tcp);
    }
    let addresses = timeout(CONNECT, tokio::net::lookup_host((host, port)));
    let mut error = anyhow::anyhow!("{host} has no address");
    for address in addresses.await.map_err(|_| no_answer())?? {
        error = match timeout(DIAL, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => {
                tcp.set_nodelay(true)?;
                return Ok(tcp);
            }
            Ok(Err(e)) => e.into(),
            Err(_) => anyhow::anyhow!("{address}: no answer within {DIAL:?}"),
        };
    }
    Err(error)
}

/// A connection of which the server knows whose it is.
async fn registered(
    url: &str,
    socks: Option<SocketAddr>,
    me: &Me,
) -> anyhow::Result<WebSocketStream<MaybeTlsStream<TcpStream>>> {
    let mut socket = open(url, socks).await?;
    let silent = |_| no_answer();
    timeout(CONNECT, register(&mut socket, me))
        .await
        .map_err(silent)??;
    Ok(socket)
}

async fn register<S>(socket: &mut WebSocketStream<S>, me: &Me) -> anyhow::Result<()>
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
        return Ok(());
    }
    Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
}

fn refused(reason: &str) -> anyhow::Error {
    anyhow::anyhow!("refused by the server: {reason}")
}

fn no_answer() -> anyhow::Error {
    anyhow::anyhow!("no answer within {CONNECT:?}")
}

struct Session {
    url: String,
    socks: Option<SocketAddr>,
    carrier: CarrierId,
    me: Me,
    events: mpsc::Sender<CarrierEvent>,
    messages: mpsc::Receiver<(PeerId, Bytes)>,
    path: watch::Receiver<Path>,
    /// Why the server gave no relay, as it was logged.
    no_relay: Option<String>,
}

/// The owner of the events has gone: the session ends.
struct Closed;

/// How a conversation ends, errors apart.
enum Ended {
    Closed,
    /// Enough better servers answer.
    NotNeeded,
    /// The connection did not survive a change of the path.
    Moved(&'static str),
}

/// Pauses between connections, doubling.
struct Backoff {
    next: Duration,
}

impl Backoff {
    fn new() -> Self {
        Self { next: BACKOFF.0 }
    }

    /// The pause after a connection that was tried or held for so long. A new address owes nothing to the failures of the
    /// one before.
    fn after(&mut self, lived: Duration, moved: bool) -> Duration {
        if moved || lived > BACKOFF.1 {
            self.next = BACKOFF.0;
        }
        if moved { Duration::ZERO } else { self.next }
    }

    /// The pause has passed, or a change of addresses has ended it.
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
        // a server that takes us in and throws us out again cannot fill the log
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
            // loud at first, then once in a while: a server may be away for days
            if warned_at.is_some_and(|at| at.elapsed() < REMINDER) {
                tracing::debug!("{}: {error}; next try in {pause:?}", self.url);
            } else {
                tracing::warn!(
                    "signalling server {} is not reached: {error}; trying again",
                    self.url
                );
                warned_at = Some(Instant::now());
            }
            // it may be the path that was missing
            match timeout(with_jitter(pause), self.path.changed()).await {
                Err(_) => backoff.passed(false),
                Ok(Ok(())) => backoff.passed(true),
                Ok(Err(_)) => return,
            }
        }
    }

    async fn connect(&mut self) -> anyhow::Result<WebSocketStream<MaybeTlsStream<TcpStream>>> {
        let mut attempt = Box::pin(registered(&self.url, self.socks, &self.me));
        let mut begun = (Instant::now(), self.path.borrow().addresses);
        let socket = loop {
            tokio::select! {
                socket = &mut attempt => break socket?,
                changed = self.path.changed() => changed?,
            }
            // from the beginning: what was sent from an address that is no longer ours, or not yet, gets no answer, and
            // TCP tries it for many seconds
            let now = (Instant::now(), self.path.borrow_and_update().addresses);
            if now.1 != begun.1 || now.0 > begun.0 + STALE {
                begun = now;
                attempt.set(registered(&self.url, self.socks, &self.me));
            }
        };
        drop(attempt);
        // what waited for the old connection is stale
        while self.messages.try_recv().is_ok() {}
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
                // certificates that were refused may have been renewed
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
            // it sends others before they end
            ToNode::Relay { credentials, .. } => {
                self.no_relay = None;
                CarrierEvent::Relay(self.url.clone(), credentials)
            }
            ToNode::Refused(reason) => return Err(refused(&reason)),
            ToNode::Challenge(_) => anyhow::bail!("challenged twice"),
        };
        Ok(self.events.send(event).await.map_err(|_| Closed))
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

    /// This node's certificates go to servers that relay for members, and to no others.
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

/// Up to a quarter more: the clients of a server that restarts do not come all at once.
fn with_jitter(pause: Duration) -> Duration {
    let mut random = [0];
    // without randomness the pause is as good
    let _ = getrandom::fill(&mut random);
    pause + pause.mul_f64(f64::from(random[0]) / 1_024.0)
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// A WebSocket over whatever carries it.
trait Socket:
    StreamExt<Item = Result<Message, tokio_tungstenite::tungstenite::Error>>
    + SinkExt<Message, Error = tokio_tungstenite::tungstenite::Error>
    + Unpin
{
    /// Whether this host still has the address that the connection was made from.
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
        // it came back, and the address changed at once
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
