//! The server with streams that tests fill.

use std::sync::atomic::{AtomicUsize, Ordering};

use lcradio_core::StationKey;
use lcroute_control::config::StationText;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::streams::{Channel, Key};
use super::*;

const CAMERA: &str = "[ff1e::42]:5004";

fn players(clients: &str) -> Players {
    let text = format!("[players]\ngroups = {{ camera = \"{CAMERA}\" }}\n{clients}");
    let mut config = Config::parse("f", &text).unwrap();
    let station = StationKey::from_seed(&[7; 32]).station(false);
    let news = StationText(station.encode().to_string());
    config.players.stations.insert("news".into(), news);
    Players::new(&config).unwrap()
}

async fn serve(clients: &str) -> (SocketAddr, Arc<Players>) {
    serve_these(players(clients)).await
}

async fn serve_these(players: Players) -> (SocketAddr, Arc<Players>) {
    let players = Arc::new(players);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(Arc::clone(&players).serve(listener));
    (at, players)
}

fn camera() -> Key {
    Key::Group(CAMERA.parse().unwrap())
}

/// Sends a request; returns the connection.
async fn ask(at: SocketAddr, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
}

/// Returns all of a short answer.
async fn whole(at: SocketAddr, request: &str) -> String {
    let mut text = String::new();
    let mut stream = ask(at, request).await;
    stream.read_to_string(&mut text).await.unwrap();
    text
}

/// Reads until the text has come.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        text.push(char::from(stream.read_u8().await.unwrap()));
    }
    text
}

/// Waits until a condition holds.
async fn eventually(holds: impl Fn() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn begin(channel: &Channel) {
    channel.begin("video/mp2t", Some(Bytes::from_static(b"head,")));
}

#[test]
fn paths_are_those_of_udpxy() {
    let camera = CAMERA.parse().unwrap();
    let ipv4 = "239.1.2.3:5004".parse().unwrap();
    for (path, expected) in [
        ("/", Route::Page),
        ("/list/", Route::Page),
        ("/list.m3u", Route::M3u),
        ("/udp/[ff1e::42]:5004", Route::Group(camera)),
        ("/rtp/[ff1e::42]:5004/", Route::Group(camera)),
        ("/udp/239.1.2.3:5004", Route::Group(ipv4)),
        ("/udp/camera", Route::Unknown),
        ("/station/my news.ogg", Route::Ogg("my news")),
        ("/station/news.mp3", Route::Mp3("news")),
        ("/station/news", Route::Unknown),
        ("/api/watch", Route::Unknown),
        ("/dashboard/index.html", Route::Unknown),
    ] {
        assert_eq!(route(path), expected, "{path}");
    }
}

#[tokio::test]
async fn clients_of_one_group_share_its_stream_and_without_any_it_ends() {
    let (at, players) = serve("").await;
    let channel = players.streams.insert(camera());
    let mut clients = Vec::new();
    // the second one as an old player asks
    for request in [
        get("/udp/%5Bff1e::42%5D:5004"),
        format!("GET /rtp/{CAMERA} HTTP/1.0\r\n\r\n"),
    ] {
        clients.push(ask(at, &request).await);
    }
    eventually(|| channel.clients() == 2).await;
    begin(&channel);
    channel.push(Bytes::from_static(b"first,"), Instant::now());
    for (client, end) in clients.iter_mut().zip(["first,\r\n", "first,"]) {
        let head = read_until(client, "\r\n\r\n").await;
        assert!(
            head.starts_with("HTTP/1.") && head.contains("200 OK"),
            "{head}"
        );
        assert!(head.contains("content-type: video/mp2t"), "{head}");
        let body = read_until(client, end).await;
        assert!(body.contains("head,"), "{body}");
    }
    assert!(players.streams.has(camera()));
    drop(clients);
    eventually(|| !players.streams.has(camera())).await;
}

#[tokio::test]
async fn a_client_that_never_reads_is_closed_and_others_go_on() {
    let (at, players) = serve("").await;
    let channel = players.streams.insert(camera());
    let request = get(&format!("/udp/{CAMERA}"));
    let _stuck = ask(at, &request).await;
    let mut reads = ask(at, &request).await;
    eventually(|| channel.clients() == 2).await;
    begin(&channel);
    read_until(&mut reads, "head,\r\n").await;
    let got = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&got);
    let reading = tokio::spawn(async move {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(len @ 1..) = reads.read(&mut buffer).await {
            counts.fetch_add(len, Ordering::Relaxed);
        }
    });
    let (piece, mut now, mut pushed) = (Bytes::from(vec![7; 1 << 16]), Instant::now(), 0);
    while channel.clients() == 2 {
        now += Duration::from_millis(100);
        channel.push(piece.clone(), now);
        pushed += piece.len();
        eventually(|| got.load(Ordering::Relaxed) >= pushed).await;
    }
    assert_eq!(players.streams.closed.by_name()["behind"], 1);
    channel.push(piece, now);
    channel.end(CloseReason::Ended, String::new());
    reading.await.unwrap();
    assert!(got.load(Ordering::Relaxed) > pushed, "the last piece came");
    eventually(|| players.streams.closed.by_name().contains_key("ended")).await;
}

#[tokio::test]
async fn nothing_but_offers_is_reachable() {
    let (at, players) = serve("").await;
    for path in [
        "/udp/[ff1e::43]:5004",
        "/udp/[ff1e::42]:5005",
        "/station/lcr1x.ogg",
        "/api/watch",
        "/dashboard/index.html",
        "/../etc/passwd",
    ] {
        let answer = whole(at, &get(path)).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
        assert!(answer.contains("/udp/%5Bff1e::42%5D:5004\n"), "{answer}");
    }
    assert_eq!(players.streams.closed.by_name()["not_offered"], 6);
    let list = whole(at, &get("/list.m3u")).await;
    assert!(
        list.ends_with("http://localhost/station/news.ogg\n"),
        "{list}"
    );
    let foreign = "GET /list/ HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert!(whole(at, foreign).await.starts_with("HTTP/1.1 403"));
    let posted =
        "POST /list/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    assert!(whole(at, posted).await.starts_with("HTTP/1.1 405"));
}

#[tokio::test]
async fn a_head_request_joins_nothing() {
    let (at, players) = serve("").await;
    let head = get("/station/news.ogg").replace("GET", "HEAD");
    let answer = whole(at, &head).await;
    assert!(answer.contains("content-type: audio/ogg"), "{answer}");
    assert!(answer.contains("icy-name: news"), "{answer}");
    let station = StationKey::from_seed(&[7; 32]).station(false);
    assert!(!players.streams.has(Key::Ogg(station.group())));
}

#[tokio::test]
async fn clients_beyond_the_bound_are_told_and_counted() {
    let (at, players) = serve("clients = 2\nper_address = 2").await;
    let channel = players.streams.insert(camera());
    let request = get(&format!("/udp/{CAMERA}"));
    let first = ask(at, &request).await;
    let _second = ask(at, &request).await;
    eventually(|| channel.clients() == 2).await;
    let answer = whole(at, &request).await;
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.contains("too many"),
        "{answer}"
    );
    assert_eq!(players.streams.closed.by_name()["too_many_of_address"], 1);
    let metrics = players.metrics().render().unwrap();
    for line in [
        "lcroute_players_clients 2",
        "lcroute_players_closed_total{reason=\"too_many_of_address\"} 1",
        "lcroute_players_closed_total{reason=\"behind\"} 0",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line}: {metrics}");
    }
    drop(first);
    eventually(|| channel.clients() == 1).await;
    let _third = ask(at, &request).await;
    eventually(|| channel.clients() == 2).await;
}

#[tokio::test]
async fn a_head_without_end_is_cut_off_at_its_bound() {
    let (at, players) = serve("").await;
    let mut stream = ask(at, "GET / HTTP/1.1\r\nX: ").await;
    let more = [b'x'; 1 << 10];
    while stream.write_all(&more).await.is_ok() {}
    eventually(|| players.streams.closed.by_name().contains_key("bad_request")).await;
    eventually(|| players.places().clients() == 0).await;
}

#[tokio::test]
async fn a_stream_that_cannot_be_received_says_so() {
    let (at, players) = serve("[tun]\nname = \"nothing-here\"").await;
    let answer = whole(at, &get(&format!("/udp/{CAMERA}"))).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(
        answer.contains("nothing-here: is `lcroute run` running?"),
        "{answer}"
    );
    assert_eq!(players.streams.closed.by_name()["failed"], 1);
    assert!(!players.streams.has(camera()));
}

#[tokio::test]
async fn without_ffmpeg_the_mp3_of_a_station_names_the_package() {
    let mut players = players("");
    let streams = Arc::get_mut(&mut players.streams).unwrap();
    streams.ffmpeg = "/nowhere/ffmpeg";
    let (at, players) = serve_these(players).await;
    let answer = whole(at, &get("/station/news.mp3")).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("install the package ffmpeg"), "{answer}");
    assert_eq!(players.streams.closed.by_name()["failed"], 1);
}
