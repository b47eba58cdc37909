//! Nodes on loopback addresses, each with a daemon that knows the members, and signs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, UdpSocket};
use std::os::unix::net::UnixListener;
use std::thread;

use lcroute_control::{Answer as DaemonAnswer, Request};
use librecast::id::SecretKey;

use super::*;

/// Maximum wait; only failing tests reach it.
const LONG: Duration = Duration::from_secs(60);
/// The first byte of a Retry packet, except its last four bits (RFC 9000 §17.2.5).
const RETRY: u8 = 0xf0;

/// The members, for all daemons of a test.
type Members = Arc<Mutex<Vec<Contact>>>;

struct Node {
    network: Arc<Network>,
    key: SecretKey,
    contact: Contact,
    _folder: tempfile::TempDir,
}

/// Returns an address of this host that no other test uses.
fn address() -> Ipv6Addr {
    let random = SecretKey::generate().peer_id();
    let [a, b, c, ..] = *random.public_key();
    Ipv4Addr::new(127, a | 1, b, c | 1).to_ipv6_mapped()
}

fn contact(key: &SecretKey, name: &str, address: Ipv6Addr) -> Contact {
    Contact {
        peer_id: key.peer_id(),
        name: name.into(),
        address,
        labels: BTreeMap::from([("role".to_owned(), "admin".to_owned())]),
        present: true,
        not_after: 0,
        streams: true,
    }
}

fn bind(address: Ipv6Addr, port: u16) -> UdpSocket {
    let socket = UdpSocket::bind((address, port)).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

/// Answers requests of `daemon` until the test ends.
fn answer(listener: UnixListener, key: SecretKey, members: Members) {
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            if line.is_empty() {
                // the program has ended the handshake before it asked
                continue;
            }
            let answer = match serde_json::from_str(&line).unwrap() {
                Request::Sign { message } => {
                    let message = bs58::decode(message).into_vec().unwrap();
                    let signature = key.sign_tls13(&message).unwrap();
                    DaemonAnswer::Ok(bs58::encode(signature).into_string().into())
                }
                Request::Member { node } => {
                    let is = |contact: &&Contact| {
                        let address = contact.address.to_string();
                        [&contact.name, &contact.peer_id.to_string(), &address].contains(&&node)
                    };
                    match lock(&members).iter().find(is) {
                        Some(contact) => DaemonAnswer::Ok(serde_json::to_value(contact).unwrap()),
                        None => DaemonAnswer::Error("nobody".into()),
                    }
                }
                other => panic!("{other:?}"),
            };
            let mut line = serde_json::to_vec(&answer).unwrap();
            line.push(b'\n');
            // the program may have gone
            let _ = (&stream).write_all(&line);
        }
    });
}

fn node(seed: u8, name: &str, members: &Members) -> Node {
    let key = SecretKey::from_seed(&[seed; 32]);
    let address = address();
    let contact = contact(&key, name, address);
    lock(members).push(contact.clone());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sign.sock");
    let listener = UnixListener::bind(&path).unwrap();
    answer(
        listener,
        SecretKey::from_seed(&[seed; 32]),
        Arc::clone(members),
    );
    let own = Own {
        peer: key.peer_id(),
        name: name.into(),
        address,
        interface: "lo".into(),
    };
    let socket = bind(address, STREAM_PORT);
    let socket = TokioRuntime.wrap_udp_socket(socket).unwrap();
    let directory = Directory::Daemon(Daemon::new(path));
    let network = Network::over(socket, own, directory, 1_280).unwrap();
    let accepting = Arc::clone(&network);
    tokio::spawn(async move { accepting.accept().await });
    Node {
        network,
        key,
        contact,
        _folder: folder,
    }
}

/// Serves a protocol by a silent server, for `allowed`, until the result is dropped.
fn serve(node: &Node, protocol: &str, allowed: &str) -> watch::Sender<()> {
    let server = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let alive = serve_by(&server, node, protocol, allowed);
    thread::spawn(move || server.incoming().map_while(Result::ok).collect::<Vec<_>>());
    alive
}

fn serve_by(server: &TcpListener, node: &Node, protocol: &str, allowed: &str) -> watch::Sender<()> {
    let to = server.local_addr().unwrap().to_string().parse().unwrap();
    let (alive, ended) = watch::channel(());
    let added = node.network.registry().add(Service {
        protocols: vec![protocol.parse().unwrap()],
        datagrams: false,
        access: Arc::new(watch::Sender::new(Access {
            all: false,
            nodes: vec![allowed.parse().unwrap()],
        })),
        destination: Destination::Server(to, false),
        shares: Arc::default(),
        ended,
    });
    added.unwrap();
    alive
}

fn hello(protocol: &str) -> Hello {
    Hello {
        datagrams: false,
        protocols: vec![protocol.parse().unwrap()],
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    runtime.block_on(async { timeout(LONG, test).await.unwrap() });
}

/// Forwards handshakes of `client` from an address of its own. Withholds the node's answers, so
/// that no handshake ends, except address validations.
async fn keep_unfinished(from: UdpSocket, to: SocketAddr) {
    let socket = tokio::net::UdpSocket::from_std(from).unwrap();
    let mut buffer = [0; 2_048];
    let mut client = None;
    loop {
        let (length, address) = socket.recv_from(&mut buffer).await.unwrap();
        let goes_to = match address == to {
            true if buffer[0] & RETRY == RETRY => client,
            true => None,
            false => {
                client = Some(address);
                Some(to)
            }
        };
        if let Some(goes_to) = goes_to {
            // a full queue loses it
            let _ = socket.send_to(&buffer[..length], goes_to).await;
        }
    }
}

/// Begins handshakes with `node` from these addresses in turn, and ends none.
async fn begin_and_never_end(node: &Node, from: &[Ipv6Addr]) {
    let to = SocketAddrV6::new(node.contact.address, STREAM_PORT, 0, 0).into();
    let mut doors = Vec::new();
    for address in from {
        let socket = bind(*address, 0);
        doors.push(socket.local_addr().unwrap());
        tokio::spawn(keep_unfinished(socket, to));
    }
    let key = SecretKey::from_seed(&[99; 32]);
    let tls = Identity::new(key.peer_id(), Arc::new(NoKey));
    let tls = tls.client(node.key.peer_id()).unwrap();
    let tls = QuicClientConfig::try_from(tls).unwrap();
    let mut config = ClientConfig::new(Arc::new(tls));
    config.transport_config(Arc::new(transport(1_280)));
    let runtime = Arc::new(TokioRuntime);
    let socket = bind(address(), 0);
    let endpoint = Endpoint::new(EndpointConfig::default(), None, socket, runtime).unwrap();
    let mut begun = Vec::new();
    loop {
        for door in &doors {
            let connecting = endpoint.connect_with(config.clone(), *door, "x").unwrap();
            begun.push(tokio::spawn(connecting.into_future()));
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// Signs nothing: its handshakes never get that far.
#[derive(Debug)]
struct NoKey;

impl crate::identity::Sign for NoKey {
    fn sign(&self, _: &[u8]) -> Result<[u8; 64], String> {
        Err("no key".into())
    }
}

async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn handshakes_that_nobody_ends_keep_no_permitted_node_out() {
    run(async {
        let members = Members::default();
        let beta = node(1, "beta", &members);
        let alpha = node(2, "alpha", &members);
        let _alive = serve(&beta, "/x/1", "alpha");
        let others: Vec<Ipv6Addr> = (0..8).map(|_| address()).collect();
        for (n, other) in (10..).zip(&others) {
            let key = SecretKey::from_seed(&[n; 32]);
            lock(&members).push(contact(&key, &format!("other{n}"), *other));
        }
        let flood = async {
            begin_and_never_end(&beta, &others).await;
        };
        let opening = async {
            // in turn: the first refusal shows that the maximum is reached
            until(|| !beta.network.status().refused.is_empty()).await;
            for n in 0..5 {
                let opened = alpha.network.open("beta", &hello("/x/1")).await;
                let opened = opened.unwrap_or_else(|e| panic!("the stream {n}: {e:?}"));
                assert_eq!(opened.peer.name, "beta");
                // the next one makes its own connection
                opened.link.connection.close(close::GONE, b"test");
            }
        };
        tokio::select! {
            () = flood => {}
            () = opening => {}
        }
    });
}

#[test]
fn streams_end_with_the_permission_and_others_on_the_connection_do_not() {
    run(async {
        let members = Members::default();
        let beta = node(1, "beta", &members);
        let alpha = node(2, "alpha", &members);
        let _alive = serve(&beta, "/x/1", "label:role=admin");
        let _here = serve(&alpha, "/y/1", "beta");
        let open = async |from: &Node, to: &str, protocol: &str| {
            from.network.open(to, &hello(protocol)).await
        };
        let mut running = open(&alpha, "beta", "/x/1").await.unwrap();
        let back = open(&beta, "alpha", "/y/1").await.unwrap();
        assert_eq!(
            beta.network.endpoint.open_connections(),
            1,
            "both streams go over one connection"
        );
        let label = |value: &str| {
            for contact in lock(&members).iter_mut().filter(|c| c.name == "alpha") {
                contact.labels.insert("role".into(), value.into());
            }
        };
        label("guest");
        // no data came, and the stream broke off
        running.quic.1.read_chunk(1, true).await.unwrap_err();
        let Err(Refusal(Reason::Refused, _)) = open(&alpha, "beta", "/x/1").await else {
            panic!("a stream without permission");
        };
        assert!(back.link.connection.close_reason().is_none());
        // with the permission restored, the same connection serves again
        label("admin");
        let again = async || {
            while open(&alpha, "beta", "/x/1").await.is_err() {
                sleep(Duration::from_millis(50)).await;
            }
        };
        again().await;
        assert!(back.link.connection.close_reason().is_none());
        drop(back);
        label("guest");
        running.link.connection.closed().await;
        let Some(ConnectionError::ApplicationClosed(closed)) =
            running.link.connection.close_reason()
        else {
            panic!("{:?}", running.link.connection.close_reason());
        };
        assert_eq!(closed.error_code, close::REFUSED);
    });
}

/// The program that opens the stream waits for its end, as `lcroute connect` does.
#[test]
fn a_server_that_ends_its_sending_first_gets_all_that_is_sent_later() {
    const SENT: usize = 200_000;
    run(async {
        let members = Members::default();
        let beta = node(1, "beta", &members);
        let alpha = node(2, "alpha", &members);
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let _alive = serve_by(&listener, &beta, "/x/1", "alpha");
        let server = thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            socket.shutdown(Shutdown::Write).unwrap();
            let mut read = Vec::new();
            let end = socket.read_to_end(&mut read);
            (end.map_err(|e| e.kind()), read.len())
        });
        let Opened { quic, link, .. } = alpha.network.open("beta", &hello("/x/1")).await.unwrap();
        let (local, mut program) = std::os::unix::net::UnixStream::pair().unwrap();
        local.set_nonblocking(true).unwrap();
        let local = Local::Unix(UnixStream::from_std(local).unwrap());
        let program = thread::spawn(move || {
            // the server's end comes first
            assert_eq!(program.read(&mut [0]).unwrap(), 0);
            program.write_all(&vec![7; SENT]).unwrap();
            program.shutdown(Shutdown::Write).unwrap();
            program
        });
        let (traffic, waits) = (Traffic::default(), AtomicBool::new(true));
        let carriage = link.carriage(&traffic);
        let teller = Teller::Waits(&waits);
        let never = std::future::pending();
        let end = pump(&local, Vec::new(), quic, &carriage, teller, never).await;
        assert_eq!(end, End::Finished);
        let _open = program.join().unwrap();
        let read = tokio::task::spawn_blocking(|| server.join().unwrap()).await;
        assert_eq!(read.unwrap(), (Ok(SENT), SENT));
    });
}

#[test]
fn streams_that_have_ended_are_forgotten_in_time_and_others_are_not() {
    let mut ends = Ends::default();
    let (goes_on, known) = watch::channel(None);
    let first = ends.add(known);
    for _ in 0..2 * MAX_ENDS {
        ends.add(watch::channel(Some(End::Finished)).1);
    }
    assert_eq!(ends.known.len(), MAX_ENDS);
    goes_on.send_replace(Some(End::Finished));
    assert!(ends.known.contains_key(&first));
    ends.add(watch::channel(Some(End::Reset)).1);
    assert!(!ends.known.contains_key(&first), "it has ended meanwhile");
}
