//! A stream to a relay: TCP or TLS, and the messages in it.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use lcroute_webrtc::relay::{Framer, StreamEvent, is_relay_answer, relay_probe};
use librecast::signalling;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::MaybeTlsStream;
use tokio_tungstenite::tungstenite::http::Uri;

use crate::proxy::{Proxy, dial};

/// Maximum number of messages in one write.
const WRITE_BATCH: usize = 64;
/// Time limit for the TLS handshake, and for the relay to accept data.
const STREAM_TIMEOUT: Duration = Duration::from_secs(10);

/// The target of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayTarget {
    /// Name or address; IPv6 addresses in brackets or without.
    pub host: String,
    /// Its ports, of which the first one that lets a stream in is used.
    pub ports: Vec<StreamPort>,
    /// The proxy to use.
    pub proxy: Option<Proxy>,
}

/// A port of a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamPort {
    /// TCP port.
    pub port: u16,
    /// Whether to use TLS, with the same trust as for signalling servers.
    pub tls: bool,
}

impl RelayTarget {
    /// Returns the target of a signalling server's relay, which has the same address.
    pub fn of_signalling(server: &str, proxy: Option<Proxy>) -> Option<Self> {
        let urls = signalling::urls(server);
        let uris: Vec<Uri> = urls.iter().filter_map(|url| url.parse().ok()).collect();
        let ports = uris.iter().map(|uri| {
            let tls = uri.scheme_str() == Some("wss");
            let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
            StreamPort { port, tls }
        });
        Some(Self {
            host: uris.first()?.host()?.to_owned(),
            ports: ports.collect(),
            proxy,
        })
    }
}

/// Capacity of the channels of a stream, in messages. Chosen.
pub(crate) const STREAM_QUEUE: usize = 128;

/// Carries messages until either end closes. `events` receives the opening, then each message.
///
/// # Errors
/// The reason for which the stream could not be opened, or ended.
pub(crate) async fn carry(
    target: &RelayTarget,
    messages: &mut mpsc::Receiver<Bytes>,
    events: &mpsc::Sender<StreamEvent>,
) -> anyhow::Result<()> {
    let mut error = anyhow::anyhow!("it has no port");
    for port in &target.ports {
        match open(target, *port).await {
            Ok(stream) => return exchange(stream, messages, events).await,
            Err(e) => error = e,
        }
    }
    Err(error)
}

async fn open(target: &RelayTarget, at: StreamPort) -> anyhow::Result<MaybeTlsStream<TcpStream>> {
    let StreamPort { port, tls } = at;
    let host = target.host.trim_matches(['[', ']']);
    let tcp = dial((host, port), tls, target.proxy.as_ref()).await?;
    if !tls {
        return Ok(MaybeTlsStream::Plain(tcp));
    }
    let name = ServerName::try_from(host.to_owned())?;
    let connector = TlsConnector::from(Arc::clone(&lcroute_tls::client(&[])?));
    let stream = timeout(STREAM_TIMEOUT, connector.connect(name, tcp)).await??;
    Ok(MaybeTlsStream::Rustls(stream))
}

async fn exchange<S: AsyncRead + AsyncWrite>(
    stream: S,
    messages: &mut mpsc::Receiver<Bytes>,
    events: &mpsc::Sender<StreamEvent>,
) -> anyhow::Result<()> {
    events.send(StreamEvent::Opened).await?;
    let (mut read, mut write) = tokio::io::split(stream);
    let (mut framer, mut received) = (Framer::default(), BytesMut::with_capacity(16 << 10));
    let mut waiting = Vec::with_capacity(WRITE_BATCH);
    loop {
        tokio::select! {
            n = read.read_buf(&mut received) => {
                anyhow::ensure!(n? > 0, "closed by the relay");
                framer.push(&received);
                received.clear();
                while let Some(frame) = framer.poll_frame()? {
                    events.send(StreamEvent::Received(frame)).await?;
                }
            }
            n = messages.recv_many(&mut waiting, WRITE_BATCH) => {
                if n == 0 {
                    return Ok(());
                }
                let all = waiting.concat();
                waiting.clear();
                timeout(STREAM_TIMEOUT, write.write_all(&all)).await??;
                timeout(STREAM_TIMEOUT, write.flush()).await??;
            }
        }
    }
}

/// Checks that a relay answers at the target; returns the time that this took.
///
/// # Errors
/// The cause of the failure.
pub async fn probe(target: &RelayTarget) -> anyhow::Result<Duration> {
    let begun = tokio::time::Instant::now();
    let mut id = [0; 12];
    getrandom::fill(&mut id).map_err(|e| anyhow::anyhow!("random numbers: {e}"))?;
    let (messages, mut waiting) = mpsc::channel(1);
    let (events, mut happened) = mpsc::channel(4);
    let request = relay_probe(id).ok_or_else(|| anyhow::anyhow!("no request"))?;
    messages.send(request.into()).await?;
    let answered = async {
        while let Some(event) = happened.recv().await {
            match event {
                StreamEvent::Received(m) if is_relay_answer(&m, id) => return Ok(begun.elapsed()),
                _ => {}
            }
        }
        anyhow::bail!("no relay answers")
    };
    let asked = async {
        tokio::select! {
            answered = answered => answered,
            ended = carry(target, &mut waiting, &events) => {
                ended?;
                anyhow::bail!("no relay answers")
            }
        }
    };
    timeout(STREAM_TIMEOUT, asked).await?
}
