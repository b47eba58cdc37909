//! HTTP: pages for everybody who may reach this address by a name of ours, data for those who have the key.

use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, broadcast, mpsc};
use tokio_rustls::TlsAcceptor;

use crate::feed::Feed;
use crate::files::Files;
use crate::guard::{Guard, Refusal};

/// Connections at a time.
const MAX_CONNECTIONS: usize = 64;
/// Pages that get lines at a time.
const MAX_PAGES: usize = 16;
/// A request's head is here within this time, a TLS handshake done.
const HEAD: Duration = Duration::from_secs(10);
/// A page that takes nothing for this long has gone.
const STUCK: Duration = Duration::from_secs(20);
/// How long the checks of the host may take.
const DOCTOR: Duration = Duration::from_secs(60);
/// Nothing from elsewhere, no text as program, in nobody's frame.
macro_rules! policy {
    ($servers:literal) => {
        concat!(
            "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' data:; ",
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; connect-src 'self'",
            $servers
        )
    };
}
const POLICY: &str = policy!("");
/// The node page meets others by the signalling servers of its token.
const NODE_POLICY: &str = policy!(" ws: wss:");
const NODE: &str = "/node/";

type Answer = Response<BoxBody<Bytes, Infallible>>;

/// What all connections share.
#[derive(Debug)]
pub struct Pages {
    pub guard: Guard,
    pub files: Files,
    pub feed: Feed,
    /// The program whose `doctor` checks this host, and its arguments.
    pub doctor: (PathBuf, Vec<String>),
    places: Arc<Semaphore>,
    /// One check at a time.
    checking: Mutex<()>,
}

impl Pages {
    pub fn new(guard: Guard, files: Files, feed: Feed, doctor: (PathBuf, Vec<String>)) -> Self {
        Self {
            guard,
            files,
            feed,
            doctor,
            places: Arc::new(Semaphore::new(MAX_PAGES)),
            checking: Mutex::new(()),
        }
    }

    /// Serves until the future is dropped.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, tls: Option<TlsAcceptor>) {
        let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let feeding = Arc::clone(&self);
        tokio::spawn(async move { feeding.feed.run().await });
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(e) => {
                    // out of descriptors, most likely: others may end meanwhile
                    tracing::warn!("connection: {e}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            // above the bound new ones are closed at once
            let Ok(place) = Arc::clone(&connections).try_acquire_owned() else {
                continue;
            };
            let (pages, tls) = (Arc::clone(&self), tls.clone());
            tokio::spawn(async move {
                let _place = place;
                let result = match tls {
                    None => pages.converse(TokioIo::new(stream)).await,
                    Some(tls) => match tokio::time::timeout(HEAD, tls.accept(stream)).await {
                        Ok(Ok(stream)) => pages.converse(TokioIo::new(stream)).await,
                        _ => return,
                    },
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
    ) -> hyper::Result<()> {
        let answer = service_fn(|request| {
            let pages = Arc::clone(&self);
            async move { Ok::<_, Infallible>(pages.answer(request).await) }
        });
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_headers(64)
            .max_buf_size(16 << 10)
            .serve_connection(io, answer)
            .await
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let mut answer = self.find(&request).await;
        let is_node = request.uri().path().starts_with(NODE);
        let policy = if is_node { NODE_POLICY } else { POLICY };
        let headers = answer.headers_mut();
        for (name, value) in [
            (CONTENT_SECURITY_POLICY.as_str(), policy),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        // files change with the package, data all the time
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        answer
    }

    async fn find(&self, request: &Request<Incoming>) -> Answer {
        if let Err(refusal) = self.guard.admit(request.headers()) {
            return refused(refusal);
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        }
        let path = request.uri().path();
        if let Some(what) = path.strip_prefix("/api/") {
            if let Err(refusal) = self.guard.unlock(request.headers()) {
                return refused(refusal);
            }
            return match what {
                "watch" => self.watch(),
                "doctor" => self.check_host().await,
                _ => text(StatusCode::NOT_FOUND, "no such thing\n"),
            };
        }
        match self.files.get(path) {
            Some(file) => body(StatusCode::OK, file.kind, Full::new(file.content.clone())),
            None => text(StatusCode::NOT_FOUND, "no such page\n"),
        }
    }

    fn watch(&self) -> Answer {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return text(StatusCode::SERVICE_UNAVAILABLE, "too many pages are open\n");
        };
        let (to, lines) = mpsc::channel(1);
        tokio::spawn(pass_on(self.feed.subscribe(), to));
        let lines = Lines {
            lines,
            _place: place,
        };
        body(StatusCode::OK, "application/x-ndjson", lines)
    }

    /// What `lcroute doctor` says.
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

/// Passes lines on to a page. One that is slow gets the newest; one that takes none for a while is let go.
async fn pass_on(mut from: broadcast::Receiver<Bytes>, to: mpsc::Sender<Bytes>) {
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

/// The body of an answer that goes on as long as the page is open.
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

/// Why the address cannot be served.
pub async fn bind(listen: std::net::SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(listen).await
}
