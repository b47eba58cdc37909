//! A crowd of waiting clients at a public server in a process of its own.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures_util::SinkExt;
use futures_util::stream::{self, StreamExt};
use lcroute_overlay::server::{Role, Room, ToNode, ToServer};
use lcroute_signalling::server::Server;
use librecast::id::{PeerId, SecretKey};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

const DEADLINE: Duration = Duration::from_secs(120);
/// Clients that wait.
const CROWD: usize = 5_000;
/// Rooms that each of the first hundred enters.
const ENTERED: usize = 20;
/// Descriptors of either process.
const FILES: u64 = 16_384;
/// Longest memory of a waiting client in the server, in bytes. Measured: some 17,000.
const MEMORY: u64 = 40_000;
/// Set for the process that is the server.
const IS_SERVER: &str = "LCROUTE_CROWD_SERVER";
const NAME: &str = "thousands_of_waiting_clients_cost_little_and_are_found";

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// The server's process, until it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// Returns its resident memory in bytes.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let number = line.unwrap().split_whitespace().nth(1).unwrap();
        number.parse::<u64>().unwrap() * 1_024
    }
}

fn seed(n: usize) -> SecretKey {
    let mut seed = [3; 32];
    seed[..8].copy_from_slice(&n.to_be_bytes());
    SecretKey::from_seed(&seed)
}

/// Returns the room of a number: each client is alone in its own.
fn room(n: usize) -> Room {
    Room::of(&seed(1_000_000 + n).peer_id())
}

/// Connects as the client of this number, and enters rooms beside its own.
async fn connect(at: SocketAddr, n: usize, own: Room, entered: usize) -> Socket {
    let config = WebSocketConfig::default().read_buffer_size(1_024);
    let url = format!("ws://{at}");
    let connecting = tokio_tungstenite::connect_async_with_config(url, Some(config), false);
    let (mut socket, _) = timeout(DEADLINE, connecting).await.unwrap().unwrap();
    loop {
        let message = timeout(DEADLINE, socket.next()).await.unwrap();
        let Message::Binary(bytes) = message.unwrap().unwrap() else {
            continue;
        };
        let ToNode::Challenge(challenge) = ToNode::decode(&bytes).unwrap() else {
            panic!("no challenge")
        };
        let register = ToServer::register(&seed(n), own, Role::Router, &challenge);
        let enter = (0..entered).map(|k| {
            let number = 2_000_000 + n * ENTERED + k;
            ToServer::enter(&seed(number), room(number), &challenge)
        });
        for message in [register].into_iter().chain(enter) {
            socket
                .send(Message::binary(message.encode()))
                .await
                .unwrap();
        }
        return socket;
    }
}

async fn until_present(socket: &mut Socket, peer: PeerId) {
    loop {
        let message = timeout(DEADLINE, socket.next()).await.unwrap();
        if let Message::Binary(bytes) = message.unwrap().unwrap()
            && ToNode::decode(&bytes) == Ok(ToNode::Present(peer))
        {
            return;
        }
    }
}

/// Serves until standard input ends; prints its port.
async fn serve() {
    let server = Server::bind(SocketAddr::from(([127, 0, 0, 1], 0)), None).await;
    let server = server.unwrap().public();
    println!("port {}", server.local_addr().unwrap().port());
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0]));
    server.run(async { drop(ended.await) }).await;
}

#[tokio::test]
#[ignore = "long: `make test-all`"]
async fn thousands_of_waiting_clients_cost_little_and_are_found() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, FILES.min(hard), hard).unwrap();
    if std::env::var_os(IS_SERVER).is_some() {
        return serve().await;
    }
    let mut server = Command::new(std::env::current_exe().unwrap());
    server.args([NAME, "--exact", "--ignored", "--nocapture"]);
    server
        .env(IS_SERVER, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut running = Running(server.spawn().unwrap());
    let out = running.0.stdout.take().unwrap();
    // behind the harness's own words
    let port = BufReader::new(out).lines().find_map(|line| {
        let line = line.unwrap();
        line.split_once("port ").map(|(_, port)| port.to_owned())
    });
    let port = port.expect("the server's port").trim().parse().unwrap();
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    let first = connect(at, CROWD, room(CROWD), 0).await;
    let before = running.memory();
    let entered = |n: usize| if n < 100 { ENTERED } else { 0 };
    let crowd: Vec<Socket> = stream::iter(0..CROWD)
        .map(|n| connect(at, n, room(n), entered(n)))
        .buffer_unordered(64)
        .collect()
        .await;
    // a newcomer to its room finds each of them, in an entered one, too
    for n in [0, CROWD / 2, CROWD - 1] {
        let mut friend = connect(at, 3_000_000 + n, room(n), 0).await;
        until_present(&mut friend, seed(n).peer_id()).await;
    }
    let number = 2_000_000 + 99 * ENTERED + ENTERED - 1;
    let mut friend = connect(at, 4_000_000, room(number), 0).await;
    until_present(&mut friend, seed(number).peer_id()).await;
    let each = (running.memory() - before) / CROWD as u64;
    println!("{each} bytes for each of {} waiting clients", crowd.len());
    assert!(each < MEMORY, "{each} bytes for each waiting client");
    drop((crowd, first));
}
