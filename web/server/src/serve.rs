//! HTTP: pages for every client that uses a name of this host, data for clients with the key.

use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    HeaderMap, HeaderValue, IF_NONE_MATCH, VARY,
};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, broadcast, mpsc};
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use crate::connections::{Connections, Place};
use crate::feed::Feed;
use crate::files::{File, Files};
use crate::groups::{Fetched, Groups, Refused, pass_file};
use crate::guard::{Guard, Refusal};
use crate::wanted::Wanted;

/// Pages that receive lines simultaneously.
const MAX_PAGES: usize = 16;
/// Time limit of a TLS handshake and a request's head.
const HEAD: Duration = Duration::from_secs(10);
/// Time without reading after which a page counts as gone.
const STUCK: Duration = Duration::from_secs(20);
/// Time limit of the host's checks.
const DOCTOR: Duration = Duration::from_secs(60);
/// Content policy: no foreign sources, no inline programs, no frames.
macro_rules! policy {
    ($servers:literal, $pictures:literal) => {
        concat!(
            "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' data:",
            $pictures,
            "; ",
            "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; connect-src 'self'",
            $servers
        )
    };
}
const POLICY: &str = policy!("", "");
/// The policy of pages with a member: any signalling server, and pictures made of received data.
const MEMBER_POLICY: &str = policy!(" ws: wss:", " blob:");
const MEMBERS: [&str; 6] = ["/node/", "/radio/", "/call/", "/studio/", "/get/", "/send/"];
/// The page of groups, whose files may be pictures.
const PEOPLE: &str = "/groups/";
const PEOPLE_POLICY: &str = policy!("", " blob:");
/// Sensors and devices of pages: a microphone to cast, a screen and a camera to show, the clipboard,
/// a whole screen for slides.
const PERMISSIONS: &str = "microphone=(self), clipboard-write=(self), fullscreen=(self), screen-wake-lock=(self), \
     autoplay=(self), camera=(self), display-capture=(self), geolocation=(), usb=(), serial=(), hid=(), bluetooth=(), midi=(), payment=()";
/// Files change with the package: a browser keeps them, and revalidates them each time.
const FILE: &str = "no-cache";
/// Data changes permanently, and is not for disks.
const DATA: &str = "no-store";

/// The path of requests for invitations.
const INVITE: &str = "/api/invite";
/// Bytes of a request for an invitation. Chosen: names, groups and times of one.
const MAX_INVITE_BYTES: usize = 4_096;

/// The path of requests for groups of people.
const GROUPS: &str = "/api/groups";
/// Bytes of a message: as in lcgroup.
const MAX_MESSAGE_BYTES: usize = 64 * 1024;
/// The header with the name of a file that a page sends, as a string of JSON.
const FILE_NAME: &str = "x-file-name";

type Answer = Response<BoxBody<Bytes, Infallible>>;

/// The state of all connections.
#[derive(Debug)]
pub struct Pages {
    pub guard: Guard,
    pub files: Files,
    pub feed: Feed,
    /// The program whose `doctor` checks this host, and its arguments.
    pub doctor: (PathBuf, Vec<String>),
    /// Groups of people, if pages may show them.
    pub groups: Option<Arc<Groups>>,
    places: Arc<Semaphore>,
    /// Permits one check at a time.
    checking: Mutex<()>,
}

impl Pages {
    pub fn new(
        guard: Guard,
        files: Files,
        feed: Feed,
        doctor: (PathBuf, Vec<String>),
        groups: Option<Arc<Groups>>,
    ) -> Self {
        Self {
            guard,
            files,
            feed,
            doctor,
            groups,
            places: Arc::new(Semaphore::new(MAX_PAGES)),
            checking: Mutex::new(()),
        }
    }

    /// Serves until the future is dropped.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, tls: Option<TlsAcceptor>) {
        let connections = Arc::new(Connections::default());
        let feeding = Arc::clone(&self);
        tokio::spawn(async move { feeding.feed.run().await });
        loop {
            let (stream, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(e) => {
                    // probably out of descriptors: another connection may end meanwhile
                    tracing::warn!("connection: {e}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let place = Arc::new(connections.enter(from.ip()));
            let (pages, tls) = (Arc::clone(&self), tls.clone());
            tokio::spawn(async move {
                let stream = place.pace(stream);
                let converse = async {
                    match tls {
                        None => pages.converse(TokioIo::new(stream), &place).await,
                        Some(tls) => match tokio::time::timeout(HEAD, tls.accept(stream)).await {
                            Ok(Ok(stream)) => pages.converse(TokioIo::new(stream), &place).await,
                            _ => Ok(()),
                        },
                    }
                };
                let result = tokio::select! {
                    result = converse => result,
                    () = place.ended() => return,
                };
                if let Err(e) = result {
                    tracing::debug!("connection: {e}");
                }
            });
        }
    }

    async fn converse<I: hyper::rt::Read + hyper::rt::Write + Unpin + 'static>(
        self: Arc<Self>,
        io: I,
        place: &Arc<Place>,
    ) -> hyper::Result<()> {
        let answer = service_fn(|request| {
            let (pages, place) = (Arc::clone(&self), Arc::clone(place));
            async move { Ok::<_, Infallible>(pages.answer(request, &place).await) }
        });
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_headers(64)
            .max_buf_size(16 << 10)
            .serve_connection(io, answer)
            .await
    }

    async fn answer(&self, request: Request<Incoming>, place: &Place) -> Answer {
        let path = request.uri().path();
        let policy = if MEMBERS.iter().any(|page| path.starts_with(page)) {
            MEMBER_POLICY
        } else if path.starts_with(PEOPLE) {
            PEOPLE_POLICY
        } else {
            POLICY
        };
        let (mut answer, caching) = self.find(request, place).await;
        let headers = answer.headers_mut();
        for (name, value) in [
            (CONTENT_SECURITY_POLICY.as_str(), policy),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("permissions-policy", PERMISSIONS),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(caching));
        answer
    }

    /// Returns the answer, and its cache policy.
    async fn find(&self, request: Request<Incoming>, place: &Place) -> (Answer, &'static str) {
        if let Err(refusal) = self.guard.admit(request.headers()) {
            return (refused(refusal), DATA);
        }
        if request.uri().path() == INVITE {
            return (self.invite(request, place).await, DATA);
        }
        let group = request.uri().path().strip_prefix(GROUPS).map(str::to_owned);
        if let Some(group) = group {
            return (self.converse_in(&group, request, place).await, DATA);
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let answer = text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
            return (answer, DATA);
        }
        let path = request.uri().path();
        if let Some(what) = path.strip_prefix("/api/") {
            return (self.tell(what, request.headers(), place).await, DATA);
        }
        if let Some(name) = board_of(path) {
            return (self.show_board(name).await, DATA);
        }
        match self.files.get(path) {
            Some(file) => (show(file, request.headers()), FILE),
            None => (text(StatusCode::NOT_FOUND, "no such page\n"), DATA),
        }
    }

    /// Returns data, for clients with the key.
    async fn tell(&self, what: &str, headers: &HeaderMap, place: &Place) -> Answer {
        if let Some(refusal) = self.refusal(headers, place) {
            return refusal;
        }
        match what {
            "watch" => self.watch(),
            "doctor" => self.check_host().await,
            _ => text(StatusCode::NOT_FOUND, "no such thing\n"),
        }
    }

    /// Returns a board's feed. A board is public, and feed readers have no key.
    async fn show_board(&self, name: &str) -> Answer {
        let Some(groups) = &self.groups else {
            let why =
                "these pages show no boards: [web] groups = true in the configuration lets them\n";
            return text(StatusCode::NOT_FOUND, why);
        };
        let Ok(_place) = self.places.try_acquire() else {
            return text(StatusCode::SERVICE_UNAVAILABLE, "too many pages are open\n");
        };
        match groups.board(name).await {
            Ok(feed) => body(StatusCode::OK, "application/atom+xml", Full::new(feed)),
            Err(e) if e.is::<Refused>() => text(StatusCode::NOT_FOUND, format!("{e}\n")),
            Err(e) => text(StatusCode::BAD_GATEWAY, format!("{e:#}\n")),
        }
    }

    /// Returns the refusal of a request: its key is wrong, or there are too many connections.
    fn refusal(&self, headers: &HeaderMap, place: &Place) -> Option<Answer> {
        if let Err(refusal) = self.guard.unlock(headers) {
            return Some(refused(refusal));
        }
        let why = "too many connections\n";
        (!place.trust()).then(|| text(StatusCode::SERVICE_UNAVAILABLE, why))
    }

    /// Creates a token, for clients with the daemon's code and the key.
    async fn invite(&self, request: Request<Incoming>, place: &Place) -> Answer {
        if let Some(refusal) = self.refusal(request.headers(), place) {
            return refusal;
        }
        if request.method() != Method::POST {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only POST\n");
        }
        let whole = Limited::new(request.into_body(), MAX_INVITE_BYTES).collect();
        let wanted = match tokio::time::timeout(HEAD, whole).await {
            Ok(Ok(whole)) => Wanted::read(&whole.to_bytes()),
            _ => return text(StatusCode::BAD_REQUEST, "too long, or too late\n"),
        };
        let made = match wanted {
            Ok(wanted) => self.make(&wanted).await,
            Err(e) => Err(e),
        };
        match made {
            Ok(made) => body(StatusCode::OK, "application/json", Full::new(made)),
            Err(e) => text(StatusCode::FORBIDDEN, format!("{e:#}\n")),
        }
    }

    /// Groups of people: their list and a new one (POST); messages of a group and a new one (POST);
    /// its members, its open invitations, and the reason for a wait; a call, an invitation, and the
    /// end of one (POST); files.
    async fn converse_in(&self, group: &str, request: Request<Incoming>, place: &Place) -> Answer {
        if let Some(refusal) = self.refusal(request.headers(), place) {
            return refusal;
        }
        let Some(groups) = &self.groups else {
            let why = "these pages show no groups of people: [web] groups = true in the configuration lets them\n";
            return text(StatusCode::NOT_FOUND, why);
        };
        let parts: Vec<_> = group.split('/').collect();
        if let ["", name, "files", number @ ..] = &parts[..] {
            return self.carry(groups, name, number, request).await;
        }
        let method = request.method().clone();
        let posted = match method {
            Method::GET => Bytes::new(),
            Method::POST => {
                let whole = Limited::new(request.into_body(), MAX_MESSAGE_BYTES).collect();
                match tokio::time::timeout(HEAD, whole).await {
                    Ok(Ok(whole)) => whole.to_bytes(),
                    _ => return text(StatusCode::BAD_REQUEST, "too long, or too late\n"),
                }
            }
            _ => return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and POST\n"),
        };
        let answer = match (&parts[..], method == Method::POST) {
            ([""], false) => groups.list().await,
            ([""], true) => groups.add(&posted).await,
            (["", name], false) => {
                let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
                    return text(StatusCode::SERVICE_UNAVAILABLE, "too many pages are open\n");
                };
                let (to, lines) = mpsc::channel(1);
                let (groups, name) = (Arc::clone(groups), (*name).to_owned());
                tokio::spawn(async move { groups.follow(&name, &to).await });
                let lines = Lines {
                    lines,
                    _place: place,
                };
                return body(StatusCode::OK, "application/x-ndjson", lines);
            }
            (["", name], true) => groups.say(name, &posted).await,
            (["", name, "members"], false) => groups.members(name).await,
            (["", name, "call"], true) => groups.call(name).await,
            (["", name, "read"], true) => groups.read(name, &posted).await,
            (["", name, "wait"], false) => groups.wait_for(name).await,
            (["", name, "invitation"], true) => groups.invite(name, &posted).await,
            (["", name, "invitations"], false) => groups.invitations(name).await,
            (["", name, "withdraw"], true) => groups.withdraw(name, &posted).await,
            _ => return text(StatusCode::NOT_FOUND, "no such thing\n"),
        };
        told(answer)
    }

    /// A new file of a group (POST), or the file of one message.
    async fn carry(
        &self,
        groups: &Groups,
        group: &str,
        number: &[&str],
        request: Request<Incoming>,
    ) -> Answer {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return text(StatusCode::SERVICE_UNAVAILABLE, "too many pages are open\n");
        };
        let method = request.method().clone();
        match (&method, number) {
            (&Method::POST, []) => {
                let name = request.headers().get(FILE_NAME);
                match name.and_then(|name| serde_json::from_slice::<String>(name.as_bytes()).ok()) {
                    Some(name) => told(groups.send_file(group, &name, request.into_body()).await),
                    None => text(StatusCode::BAD_REQUEST, "a file has a name\n"),
                }
            }
            (&Method::GET, [number]) => match groups.file(group, number).await {
                Ok(Fetched::Here(length, from)) => {
                    let (to, lines) = mpsc::channel(1);
                    tokio::spawn(pass_file(from, length, to));
                    let lines = Lines {
                        lines,
                        _place: place,
                    };
                    let mut answer = body(StatusCode::OK, "application/octet-stream", lines);
                    let length = HeaderValue::from(length);
                    answer.headers_mut().insert(CONTENT_LENGTH, length);
                    answer
                }
                Ok(Fetched::Waits(why)) => {
                    body(StatusCode::ACCEPTED, "application/json", Full::new(why))
                }
                Err(e) => told(Err(e)),
            },
            _ => text(StatusCode::NOT_FOUND, "no such thing\n"),
        }
    }

    async fn make(&self, wanted: &Wanted) -> anyhow::Result<Bytes> {
        let asked = self.feed.invite(&wanted.request()).await?;
        let link = Zeroizing::new(wanted.link(&asked.token)?);
        let made = serde_json::json!({
            "token": asked.token, "link": link.as_str(), "not_after": asked.not_after,
        });
        Ok(made.to_string().into())
    }

    fn watch(&self) -> Answer {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return text(StatusCode::SERVICE_UNAVAILABLE, "too many pages are open\n");
        };
        let (to, lines) = mpsc::channel(1);
        let (beginning, next) = self.feed.subscribe();
        tokio::spawn(pass_on(beginning, next, to));
        let lines = Lines {
            lines,
            _place: place,
        };
        body(StatusCode::OK, "application/x-ndjson", lines)
    }

    /// Runs `lcroute doctor`.
    async fn check_host(&self) -> Answer {
        let Ok(_checking) = self.checking.try_lock() else {
            return text(StatusCode::SERVICE_UNAVAILABLE, "a check is under way\n");
        };
        let (program, args) = &self.doctor;
        let output = tokio::process::Command::new(program)
            .args(args)
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true)
            .output();
        match tokio::time::timeout(DOCTOR, output).await {
            Ok(Ok(output)) if !output.stdout.is_empty() => body(
                StatusCode::OK,
                "application/json",
                Full::new(output.stdout.into()),
            ),
            Ok(Ok(output)) => {
                let why = String::from_utf8_lossy(&output.stderr).into_owned();
                text(StatusCode::BAD_GATEWAY, why)
            }
            Ok(Err(e)) => text(
                StatusCode::BAD_GATEWAY,
                format!("{}: {e}\n", program.display()),
            ),
            Err(_) => text(StatusCode::GATEWAY_TIMEOUT, "the checks take too long\n"),
        }
    }
}

/// Forwards lines to a page. A slow one gets the newest; one that takes none is disconnected.
async fn pass_on(first: Bytes, mut from: broadcast::Receiver<Bytes>, to: mpsc::Sender<Bytes>) {
    if to.send(first).await.is_err() {
        return;
    }
    loop {
        let line = tokio::select! {
            line = from.recv() => line,
            () = to.closed() => return,
        };
        match line {
            Ok(line) => match tokio::time::timeout(STUCK, to.send(line)).await {
                Ok(Ok(())) => {}
                _ => return,
            },
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

/// The body of an answer, open as long as the page.
struct Lines {
    lines: mpsc::Receiver<Bytes>,
    _place: OwnedSemaphorePermit,
}

impl Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.lines
            .poll_recv(cx)
            .map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}

/// Returns a file, unless the browser has it.
fn show(file: &File, headers: &HeaderMap) -> Answer {
    let content = file.content(headers);
    let known = headers.get_all(IF_NONE_MATCH).iter();
    let known = known.filter_map(|value| value.to_str().ok());
    let mut known = known.flat_map(|list| list.split(',')).map(str::trim);
    // weak tags suffice here (RFC 9110 §13.1.2)
    let is_known = |tag: &str| tag == "*" || content.tag == *tag.trim_start_matches("W/");
    let mut answer = if known.any(is_known) {
        let mut answer = Response::new(BodyExt::boxed(Full::default()));
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
        answer
    } else {
        let bytes = Full::new(content.bytes.clone());
        let mut answer = body(StatusCode::OK, file.kind, bytes);
        if file
            .packed
            .as_ref()
            .is_some_and(|packed| packed.tag == content.tag)
        {
            let gzip = HeaderValue::from_static("gzip");
            answer.headers_mut().insert(CONTENT_ENCODING, gzip);
        }
        answer
    };
    let headers = answer.headers_mut();
    headers.insert(ETAG, content.tag.clone());
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    answer
}

/// Returns lcgroup's answer, or its refusal.
/// Returns the board whose feed has this path: `/board/NAME.atom`.
fn board_of(path: &str) -> Option<&str> {
    path.strip_prefix("/board/")?.strip_suffix(".atom")
}

fn told(answer: anyhow::Result<Bytes>) -> Answer {
    match answer {
        Ok(json) => body(StatusCode::OK, "application/json", Full::new(json)),
        Err(e) if e.is::<Refused>() => text(StatusCode::BAD_REQUEST, format!("{e}\n")),
        Err(e) => text(StatusCode::BAD_GATEWAY, format!("{e:#}\n")),
    }
}

fn refused(refusal: Refusal) -> Answer {
    match refusal {
        Refusal::Host => text(
            StatusCode::MISDIRECTED_REQUEST,
            "this host has another name: use its address, localhost, or one of [web] names\n",
        ),
        Refusal::Origin => text(StatusCode::FORBIDDEN, "a page of another site asks\n"),
        Refusal::Key => text(
            StatusCode::UNAUTHORIZED,
            "no key, or an old one: open the address that `lcroute web --open` prints\n",
        ),
    }
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    body(status, "text/plain; charset=utf-8", Full::new(text.into()))
}

fn body(
    status: StatusCode,
    kind: &'static str,
    body: impl Body<Data = Bytes, Error = Infallible> + Send + Sync + 'static,
) -> Answer {
    let mut answer = Response::new(BodyExt::boxed(body));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

/// Binds the address.
pub async fn bind(listen: std::net::SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(listen).await
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    /// Serves the pages of the checkout, and a file too large for kernel buffers.
    async fn serve() -> (SocketAddr, String) {
        let folder = tempfile::tempdir().unwrap();
        let big = vec![0; 64 << 20];
        let files = [
            ("big.wasm", &big[..]),
            ("small.js", b"plain"),
            ("small.js.gz", b"packed"),
        ];
        let files = Files::of_folder(folder.path(), &files);
        let guard = Guard::new(&[], false).unwrap();
        let key = guard.key().to_owned();
        let feed = Feed::new(&folder.path().join("control.sock"), false, None);
        let pages = Pages::new(guard, files, feed, ("false".into(), Vec::new()), None);
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(Arc::new(pages).serve(listener, None));
        (at, key)
    }

    async fn ask(at: SocketAddr, path: &str, headers: &str) -> TcpStream {
        let mut stream = TcpStream::connect(at).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {at}\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    async fn begin(stream: &mut TcpStream) -> String {
        let mut bytes = [0; 15];
        stream.read_exact(&mut bytes).await.unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    #[tokio::test]
    async fn who_does_not_read_keeps_nobody_out() {
        let (at, key) = serve().await;
        let mut page = ask(
            at,
            "/api/watch",
            &format!("Authorization: Bearer {key}\r\n"),
        )
        .await;
        assert_eq!(begin(&mut page).await, "HTTP/1.1 200 OK");
        let mut stuck = Vec::new();
        for _ in 0..200 {
            let mut stream = ask(at, "/big.wasm", "").await;
            assert_eq!(begin(&mut stream).await, "HTTP/1.1 200 OK");
            stuck.push(stream);
        }
        let mut other = ask(at, "/nothing", "").await;
        assert_eq!(begin(&mut other).await, "HTTP/1.1 404 No");
        // the open page goes on
        page.read_u8().await.unwrap();
    }

    /// Returns head and body of a short answer.
    async fn whole(at: SocketAddr, path: &str, headers: &str) -> (String, Vec<u8>) {
        let mut stream = ask(at, path, &format!("Connection: close\r\n{headers}")).await;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        (head, bytes[end + 4..].to_vec())
    }

    #[tokio::test]
    async fn files_are_kept_by_browsers_and_data_is_not() {
        let (at, key) = serve().await;
        let (head, body) = whole(at, "/small.js", "Accept-Encoding: gzip\r\n").await;
        assert!(head.contains("content-encoding: gzip"), "{head}");
        assert!(head.contains("cache-control: no-cache"), "{head}");
        assert!(head.contains("manifest-src 'self'"), "{head}");
        assert_eq!(body, b"packed");
        let (head, body) = whole(at, "/small.js", "").await;
        assert!(!head.contains("content-encoding"), "{head}");
        assert_eq!(body, b"plain");
        let tag = head
            .lines()
            .find_map(|line| line.strip_prefix("etag: "))
            .unwrap();
        for known in [tag.to_owned(), format!("\"x\", W/{tag}"), "*".into()] {
            let (head, body) = whole(at, "/small.js", &format!("If-None-Match: {known}\r\n")).await;
            assert!(
                head.starts_with("HTTP/1.1 304") && body.is_empty(),
                "{known}: {head}"
            );
            assert!(
                head.contains("etag") && head.contains("content-security-policy"),
                "{head}"
            );
        }
        let (head, _) = whole(at, "/small.js", "If-None-Match: \"x\"\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let key = format!("Authorization: Bearer {key}\r\n");
        for (path, headers) in [
            ("/api/nothing", key.as_str()),
            ("/api/watch", ""),
            ("/nothing", ""),
        ] {
            let (head, _) = whole(at, path, headers).await;
            assert!(
                head.contains("cache-control: no-store") && !head.contains("etag"),
                "{path}: {head}"
            );
        }
    }
}
