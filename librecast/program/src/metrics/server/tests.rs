use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::metrics::Description;

const ASKED: Description = Description::counter("lctest_asked_total", &[], "Pages made");

fn serve(listen: &Listen) -> (Server, Arc<AtomicU64>) {
    let asked = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&asked);
    let source = move || {
        let mut page = Page::default();
        page.put(&ASKED, count.fetch_add(1, Ordering::SeqCst) + 1);
        Ok(page)
    };
    let server = Server::start(listen, "no-such-group", source).unwrap();
    (server, asked)
}

fn socket() -> (tempfile::TempDir, Listen, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run/metrics.sock");
    (dir, Listen::Unix(path.clone()), path)
}

fn ask(path: &Path, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    // it may be refused before all is written
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

const GET: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";

#[test]
fn a_page_is_served_whole_with_its_type_and_length() {
    let (_dir, listen, path) = socket();
    let (server, _) = serve(&listen);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let answer = ask(&path, GET);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains(&format!("Content-Type: {CONTENT_TYPE}\r\n")));
    assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
    assert!(body.contains("lctest_asked_total 1\n") && body.ends_with("# EOF\n"));
    let bare = ask(&path, b"HEAD /metrics?x=1 HTTP/1.0\r\n\r\n");
    assert!(bare.starts_with("HTTP/1.1 200") && bare.ends_with("\r\n\r\n"));
    drop(server);
    assert!(!path.exists(), "the socket stays behind");
}

#[test]
fn tcp_serves_the_same() {
    // the system chooses the port, which then is free again
    let probe = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = probe.local_addr().unwrap();
    drop(probe);
    let (_server, _) = serve(&Listen::Tcp(address));
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(GET).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("# EOF\n"), "{answer}");
}

#[test]
fn what_is_not_a_request_for_metrics_is_told_so() {
    let (_dir, listen, path) = socket();
    let (_server, asked) = serve(&listen);
    let mut long = b"GET /metrics HTTP/1.1\r\nX: ".to_vec();
    long.resize(MAX_HEAD, b'a');
    let many = "A: b\r\n".repeat(MAX_HEADERS + 1);
    let many = format!("GET /metrics HTTP/1.1\r\n{many}\r\n");
    for (request, status) in [
        (b"GET / HTTP/1.1\r\n\r\n".as_slice(), "404"),
        (b"GET /metricsx HTTP/1.1\r\n\r\n", "404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", "405"),
        (b"\x16\x03\x01\x02\x00\x01", "400"),
        (b"hello\r\n\r\n", "400"),
        (b"GET /metrics\0 HTTP/1.1\r\n\r\n", "400"),
        (&long, "431"),
        (many.as_bytes(), "431"),
    ] {
        let answer = ask(&path, request);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    assert!(ask(&path, GET).contains(" 200 "));
}

#[test]
fn slow_and_silent_clients_keep_nobody_out() {
    let (_dir, listen, path) = socket();
    let (_server, _) = serve(&listen);
    let mut silent = Vec::new();
    for _ in 0..MAX_CONNECTIONS * 4 {
        let mut stream = UnixStream::connect(&path).unwrap();
        // the first ones have lost their places by now
        let _ = stream.write_all(b"GET /met");
        silent.push(stream);
        assert!(ask(&path, GET).ends_with("# EOF\n"));
    }
    // the last one is closed by timeout
    let mut last = silent.pop().unwrap();
    last.set_read_timeout(Some(CONNECTION_TIMEOUT * 3)).unwrap();
    assert_eq!(last.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn a_page_is_made_once_however_many_ask_at_a_time() {
    let (_dir, listen, path) = socket();
    let (_server, asked) = serve(&listen);
    let begun = Instant::now();
    let mut asks = 0;
    while begun.elapsed() < FRESH * 3 {
        assert!(ask(&path, GET).ends_with("# EOF\n"));
        asks += 1;
    }
    let made = asked.load(Ordering::SeqCst);
    let most = begun.elapsed().as_millis() / FRESH.as_millis() + 1;
    assert!(u128::from(made) <= most && asks > made, "{made} of {asks}");
}

#[test]
fn a_living_server_and_other_files_are_left_alone_and_a_dead_one_is_replaced() {
    let (dir, listen, path) = socket();
    let (server, _) = serve(&listen);
    let again = Server::start(&listen, "g", || Err(Unavailable));
    assert_eq!(again.unwrap_err().kind(), ErrorKind::AddrInUse);
    drop(server);
    drop(UnixListener::bind(&path).unwrap());
    let (_server, _) = serve(&listen);
    let file = dir.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    let listen = Listen::Unix(file.clone());
    assert!(Server::start(&listen, "g", || Err(Unavailable)).is_err());
    assert_eq!(std::fs::read_to_string(file).unwrap(), "mine");
}

#[test]
fn where_it_listens_can_change_and_who_has_nothing_to_tell_says_so() {
    let (dir, listen, path) = socket();
    let other = dir.path().join("other");
    let mut running = None;
    let none = || Err(Unavailable);
    Server::change(&mut running, Some(&listen), "g", none).unwrap();
    assert!(ask(&path, GET).contains(" 503 "));
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&path.metadata().unwrap());
    let before = inode(&path);
    Server::change(&mut running, Some(&listen), "g", none).unwrap();
    assert_eq!(inode(&path), before, "what stays is not touched");
    Server::change(&mut running, Some(&Listen::Unix(other.clone())), "g", none).unwrap();
    assert!(!path.exists() && ask(&other, GET).contains(" 503 "));
    Server::change(&mut running, None, "g", none).unwrap();
    assert!(!other.exists() && running.is_none());
}
