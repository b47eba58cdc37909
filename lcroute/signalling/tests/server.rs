//! A real server and real clients over loopback.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lcroute_overlay::Presence;
use lcroute_signalling::server::Server;
use lcroute_signalling::{CarrierEvent, Carriers, PathChange};
use librecast::id::{PeerId, SecretKey};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(30);

struct Node {
    key: Arc<SecretKey>,
    carriers: Carriers,
    events: mpsc::Receiver<CarrierEvent>,
}

impl Node {
    fn new(network: PeerId, url: &str) -> Self {
        Self::with_urls(network, &[url.to_owned()])
    }

    fn with_urls(network: PeerId, urls: &[String]) -> Self {
        let key = Arc::new(SecretKey::generate());
        let (sender, events) = mpsc::channel(64);
        let mut carriers = Carriers::new(key.clone(), network, sender);
        carriers.set_servers(urls, None);
        Self {
            key,
            carriers,
            events,
        }
    }

    fn id(&self) -> PeerId {
        self.key.peer_id()
    }

    async fn until(
        &mut self,
        what: &str,
        mut found: impl FnMut(&CarrierEvent) -> bool,
    ) -> CarrierEvent {
        let wait = async {
            loop {
                let event = self.events.recv().await.expect("the client lives");
                if found(&event) {
                    return event;
                }
            }
        };
        timeout(DEADLINE, wait)
            .await
            .unwrap_or_else(|_| panic!("waited for: {what}"))
    }

    async fn until_presence(&mut self, presence: Presence) {
        let wanted = |e: &CarrierEvent| matches!(e, CarrierEvent::Presence(_, p) if *p == presence);
        self.until(&format!("{presence:?}"), wanted).await;
    }
}

async fn start(
    listen: SocketAddr,
) -> (SocketAddr, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    let server = Server::bind(listen, None).await.unwrap();
    let addr = server.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(server.run(async {
        let _ = stopped.await;
    }));
    (addr, stop, task)
}

#[tokio::test]
async fn nodes_meet_talk_and_survive_a_restart_of_the_server() {
    let any = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));
    let (addr, stop, task) = start(any).await;
    let url = format!("ws://{addr}");
    let network = SecretKey::generate().peer_id();
    let (mut a, mut b) = (Node::new(network, &url), Node::new(network, &url));
    let mut stranger = Node::new(SecretKey::generate().peer_id(), &url);
    a.until_presence(Presence::Online(b.id())).await;
    b.until_presence(Presence::Online(a.id())).await;

    a.carriers.send(b.id(), &Bytes::from_static(b"hello"));
    let is_signal = |e: &CarrierEvent| matches!(e, CarrierEvent::Signal { .. });
    let CarrierEvent::Signal { from, bytes, .. } = b.until("a message", is_signal).await else {
        unreachable!()
    };
    assert_eq!((from, bytes.as_slice()), (a.id(), b"hello".as_slice()));

    let _ = stop.send(());
    task.await.unwrap();
    a.until_presence(Presence::CarrierDown).await;
    let (_, _stop, _task) = start(addr).await;
    a.until_presence(Presence::Online(b.id())).await;

    // without the network's key a client learns of no node
    stranger.until_presence(Presence::CarrierUp).await;
    stranger
        .carriers
        .send(a.id(), &Bytes::from_static(b"let me in"));
    while let Ok(event) = stranger.events.try_recv() {
        assert!(
            !matches!(event, CarrierEvent::Presence(_, Presence::Online(_))),
            "{event:?}"
        );
    }
    drop(b);
    a.until("b to leave", |e| {
        matches!(e, CarrierEvent::Presence(_, Presence::Offline(_)))
    })
    .await;
    while let Ok(event) = a.events.try_recv() {
        assert!(!is_signal(&event), "a stranger's message came through");
    }
}

/// Two URLs of one server, such as its IPv4 and its IPv6 address.
#[tokio::test]
async fn connections_by_several_urls_live_side_by_side() {
    let any = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));
    let (addr, _stop, _task) = start(any).await;
    let network = SecretKey::generate().peer_id();
    let urls = [format!("ws://{addr}"), format!("ws://{addr}/")];
    let mut b = Node::with_urls(network, &urls);
    b.until_presence(Presence::CarrierUp).await;
    b.until_presence(Presence::CarrierUp).await;
    let mut a = Node::new(network, &urls[0]);
    a.until_presence(Presence::Online(b.id())).await;
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 2 {
        a.carriers.send(b.id(), &Bytes::from_static(b"hello"));
        let event = b.until("a message", |e| {
            assert!(
                !matches!(e, CarrierEvent::Presence(_, Presence::CarrierDown)),
                "one connection has cut the other"
            );
            matches!(e, CarrierEvent::Signal { .. })
        });
        let CarrierEvent::Signal { carrier, .. } = event.await else {
            unreachable!()
        };
        seen.insert(carrier);
    }
}

/// Returns a pipe to `server` that stops carrying data, without an end, on request.
async fn pipe(server: SocketAddr) -> (SocketAddr, oneshot::Sender<()>) {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let addr = listener.local_addr().unwrap();
    let (deaf, deafened) = oneshot::channel::<()>();
    tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = tokio::net::TcpStream::connect(server).await.unwrap();
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
            _ = deafened => std::future::pending().await,
        }
    });
    (addr, deaf)
}

#[tokio::test]
async fn a_change_of_addresses_finds_dead_connections_and_spares_living_ones() {
    // far below the permitted silence of a connection
    const SOON: Duration = Duration::from_secs(12);
    let any = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));
    let (server, _stop, _task) = start(any).await;
    let (through, deaf) = pipe(server).await;
    let network = SecretKey::generate().peer_id();
    let mut a = Node::new(network, &format!("ws://{through}"));
    let mut b = Node::new(network, &format!("ws://{server}"));
    a.until_presence(Presence::Online(b.id())).await;
    a.carriers.path_changed(PathChange::Addresses);
    tokio::time::sleep(Duration::from_secs(3)).await;
    while let Ok(event) = a.events.try_recv() {
        let down = matches!(event, CarrierEvent::Presence(_, Presence::CarrierDown));
        assert!(!down, "cut although the server answers");
    }
    let _ = deaf.send(());
    a.carriers.path_changed(PathChange::Addresses);
    let down = a.until_presence(Presence::CarrierDown);
    timeout(SOON, down).await.expect("noticed");
    b.until_presence(Presence::Online(a.id())).await;
}

#[tokio::test]
async fn a_change_of_addresses_begins_an_unanswered_connection_anew() {
    // an attempt takes ten seconds to end by itself
    const SOON: Duration = Duration::from_secs(5);
    let silent = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let silent = silent.await.unwrap();
    let url = format!("ws://{}", silent.local_addr().unwrap());
    let a = Node::new(SecretKey::generate().peer_id(), &url);
    let _first = silent.accept().await.unwrap();
    a.carriers.path_changed(PathChange::Addresses);
    let second = timeout(SOON, silent.accept()).await;
    assert!(second.is_ok(), "it waits for the first");
}

/// Returns the server's answer, until it closes the connection.
async fn ask(server: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    timeout(DEADLINE, read).await.expect("it closes").unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn who_speaks_http_gets_what_a_web_server_says() {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let (server, _stop, _task) = start(any).await;
    let page = ask(server, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    for line in [
        "content-type: text/html; charset=utf-8",
        "connection: close",
        "date: ",
    ] {
        assert!(page.contains(&format!("\r\n{line}")), "{page}");
    }
    assert!(page.ends_with("</html>\n"), "{page}");
    // without its key it is no client's request
    let almost = b"GET /x HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    let none = ask(server, almost).await;
    assert!(none.starts_with("HTTP/1.1 404 Not Found\r\n"), "{none}");
    let head = ask(server, b"HEAD / HTTP/1.0\r\n\r\n").await;
    assert!(
        head.starts_with("HTTP/1.0 200 OK\r\n") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    let post = ask(
        server,
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    )
    .await;
    assert!(
        post.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"),
        "{post}"
    );
    assert!(post.contains("\r\nallow: GET, HEAD\r\n"), "{post}");
    let noise = ask(server, b"\x80\x7f no request\r\n\r\n").await;
    assert!(noise.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{noise}");
    let fields = "A: b\r\n".repeat(100);
    let many = ask(server, format!("GET / HTTP/1.1\r\n{fields}\r\n").as_bytes()).await;
    assert!(many.starts_with("HTTP/1.1 431 "), "{many}");
    let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(15 << 10));
    let long = ask(server, format!("{long}\r\n").as_bytes()).await;
    assert!(long.starts_with("HTTP/1.1 404 "), "{long}");
}
