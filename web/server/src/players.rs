//! Groups and stations over HTTP, for players that know nothing of lcroute (`[players]`).
//!
//! A server of its own: nothing else of the pages is reachable here, and nothing needs a key. Only
//! offers of the configuration are served.
//!
//! ```text
//! group -> Payloads ─┐
//! station -> Chain ──┼─> Channel (FanOut) -> Client -> the body of an answer
//! ffmpeg ────────────┘
//! ```

mod carry;
mod chain;
mod fan_out;
pub mod metrics;
mod offers;
mod payloads;
mod places;
mod reasons;
mod streams;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::Authority;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use lcroute_control::config::Config;
use librecast_program::metrics::Page;
use percent_encoding::percent_decode_str;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::guard::Guard;
use offers::Offers;
use places::{Entry, Places};
use reasons::CloseReason;
use streams::{Client, Streams, Wanted};

/// Time limit of a request's head.
const HEAD: Duration = Duration::from_secs(10);
/// Wait for the first bytes of a stream. Chosen: a sender that waits for listeners has begun by then.
const FIRST: Duration = Duration::from_secs(10);
/// Unsent bytes that the kernel takes for a client: the rest waits in the ring, where lag is seen.
const UNSENT: u32 = 16 << 10;
/// Time after which the kernel gives up a client that acknowledges, or reads, nothing.
const DEAD: Duration = Duration::from_secs(20);
/// Content policy: the list plays streams of this host, and nothing else.
const POLICY: &str = "default-src 'none'; media-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const TEXT: &str = "text/plain; charset=utf-8";

type Answer = Response<BoxBody<Bytes, Infallible>>;

/// The server.
#[derive(Debug)]
pub struct Players {
    offers: Offers,
    streams: Arc<Streams>,
    guard: Guard,
    places: Mutex<Places>,
    most: u16,
}

/// A connection's place, until it is dropped.
#[derive(Debug)]
struct Seat {
    players: Arc<Players>,
    from: IpAddr,
    entry: Entry,
    /// The connection has to end, although its client reads nothing.
    closed: Arc<Notify>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.players.places().leave(self.from, self.entry);
    }
}

/// The meaning of a path.
#[derive(Debug, PartialEq, Eq)]
enum Route<'a> {
    Page,
    M3u,
    Group(SocketAddr),
    Ogg(&'a str),
    Mp3(&'a str),
    Unknown,
}

fn route(path: &str) -> Route<'_> {
    match path {
        "/" | "/list" | "/list/" => return Route::Page,
        "/list.m3u" => return Route::M3u,
        _ => {}
    }
    let group = path.strip_prefix("/udp/").or(path.strip_prefix("/rtp/"));
    if let Some(group) = group {
        let group = group
            .strip_suffix('/')
            .unwrap_or(group)
            .parse::<SocketAddr>();
        return group.map_or(Route::Unknown, Route::Group);
    }
    let Some(station) = path.strip_prefix("/station/") else {
        return Route::Unknown;
    };
    match (station.strip_suffix(".ogg"), station.strip_suffix(".mp3")) {
        (Some(name), _) => Route::Ogg(name),
        (_, Some(name)) => Route::Mp3(name),
        _ => Route::Unknown,
    }
}

impl Players {
    /// Makes the server of a configuration.
    ///
    /// # Errors
    /// The text of a station is damaged; the system gives no random bytes.
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        let offers = Offers::new(&config.players, Instant::now())?;
        let host = nix::unistd::gethostname().ok();
        let host = host.and_then(|name| name.into_string().ok());
        let mut names = config.web.names.clone();
        names.extend(host.iter().map(|name| format!("{name}.local")));
        names.extend(host);
        let (most, per_address) = (config.players.clients, config.players.per_address);
        let groups = config.players.groups.len();
        Ok(Self {
            streams: Arc::new(Streams::new(&config.tun.name, groups, carry::begin)),
            offers,
            guard: Guard::new(&names, false)?,
            places: Mutex::new(Places::new(most.get().into(), per_address.get().into())),
            most: most.get(),
        })
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the present metrics.
    pub fn metrics(&self) -> Page {
        metrics::page(self.places().clients(), &self.streams.closed.by_name())
    }

    fn enter(self: &Arc<Self>, from: IpAddr) -> Seat {
        let from = from.to_canonical();
        let entry = self.places().enter(from);
        if let Entry::Answered(reason) | Entry::Refused(reason) = entry {
            self.streams.closed.count(reason);
        }
        Seat {
            players: Arc::clone(self),
            from,
            entry,
            closed: Arc::default(),
        }
    }

    /// Serves until the future is dropped.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        let hearing = Arc::clone(&self);
        tokio::spawn(async move {
            let tun = hearing.streams.tun.clone();
            hearing.offers.hear_announcements(&tun).await;
        });
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
            let seat = Arc::new(self.enter(from.ip()));
            if !matches!(seat.entry, Entry::Refused(_)) {
                tokio::spawn(converse(stream, seat));
            }
        }
    }

    async fn answer(&self, request: Request<Incoming>, seat: &Seat) -> Answer {
        let (request, _) = request.into_parts();
        let mut answer = self.find(&request, seat).await;
        let headers = answer.headers_mut();
        for (name, value) in [
            (CONTENT_SECURITY_POLICY.as_str(), POLICY),
            (CACHE_CONTROL.as_str(), "no-store"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        answer
    }

    async fn find(&self, request: &Parts, seat: &Seat) -> Answer {
        let full = StatusCode::SERVICE_UNAVAILABLE;
        match seat.entry {
            Entry::Answered(CloseReason::TooManyOfAddress) => {
                return text(full, "too many clients of this address\n");
            }
            Entry::Answered(CloseReason::TooManyOfPrefix) => {
                return text(full, "too many clients of this /64\n");
            }
            Entry::Answered(_) | Entry::Refused(_) => return text(full, "too many clients\n"),
            Entry::Admitted => {}
        }
        // browsers always name the host; old players may not
        if request.headers.contains_key(HOST) && self.guard.admit(&request.headers).is_err() {
            let why = "this host has another name, or a page of another site asks: use its address, its name, or one of [web] names\n";
            return text(StatusCode::FORBIDDEN, why);
        }
        if request.method != Method::GET && request.method != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        }
        let path = percent_decode_str(request.uri.path()).decode_utf8_lossy();
        let wanted = match route(&path) {
            Route::Page => return self.page(),
            Route::M3u => return self.m3u(request),
            Route::Group(at) => self.offers.group(at),
            Route::Ogg(name) => self.of_station(name, Wanted::Ogg),
            Route::Mp3(name) => self.of_station(name, Wanted::Mp3),
            Route::Unknown => None,
        };
        match wanted {
            Some(wanted) => self.stream(&wanted, &request.method, seat).await,
            None => self.not_offered(),
        }
    }

    fn of_station(
        &self,
        name: &str,
        form: fn(lcradio_core::Station, String) -> Wanted,
    ) -> Option<Wanted> {
        let (station, name) = self.offers.station(name)?;
        Some(form(station, name))
    }

    fn page(&self) -> Answer {
        let mut foot = format!("{} of {} clients", self.places().clients(), self.most);
        for (reason, count) in self.streams.closed.by_name() {
            foot += &format!(", {reason} {count}");
        }
        let page = offers::page(
            &self.offers.list(),
            |group| self.streams.state(group),
            &foot,
        );
        body(
            StatusCode::OK,
            "text/html; charset=utf-8",
            Full::new(page.into()),
        )
    }

    fn m3u(&self, request: &Parts) -> Answer {
        let host = request.headers.get(HOST);
        let host = host.and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
        let host = host.as_ref().map_or("localhost", Authority::as_str);
        let list = offers::m3u(&self.offers.list(), host);
        body(
            StatusCode::OK,
            "audio/x-mpegurl; charset=utf-8",
            Full::new(list.into()),
        )
    }

    fn not_offered(&self) -> Answer {
        self.streams.closed.count(CloseReason::NotOffered);
        let mut told = "not offered here; these are:\n".to_owned();
        for path in self.offers.list().iter().flat_map(|offer| &offer.paths) {
            told += path;
            told += "\n";
        }
        text(StatusCode::NOT_FOUND, told)
    }

    async fn stream(&self, wanted: &Wanted, method: &Method, seat: &Seat) -> Answer {
        if method == Method::HEAD {
            // a question costs no join
            return named(body(StatusCode::OK, TEXT, Unread), wanted, None);
        }
        let client = self.streams.enter(wanted, Arc::clone(&seat.closed));
        let begun = tokio::time::timeout(FIRST, client.begun()).await;
        let (reason, told) = match begun {
            Ok(Ok(beginning)) => {
                let stream = Stream {
                    client,
                    head: beginning.head,
                };
                let answer = body(StatusCode::OK, beginning.media_type, stream);
                return named(answer, wanted, Some(beginning.media_type));
            }
            Ok(Err(why)) => why,
            Err(_) => (CloseReason::Silent, "nothing comes from it".to_owned()),
        };
        self.streams.closed.count(reason);
        text(StatusCode::SERVICE_UNAVAILABLE, format!("{told}\n"))
    }
}

/// Adds the name of a station, and the media type, if it is known.
fn named(mut answer: Answer, wanted: &Wanted, media_type: Option<&'static str>) -> Answer {
    let (media_type, name) = match wanted {
        Wanted::Group(_) => (media_type, None),
        Wanted::Ogg(_, name) => (Some("audio/ogg"), Some(name)),
        Wanted::Mp3(_, name) => (Some("audio/mpeg"), Some(name)),
    };
    let headers = answer.headers_mut();
    match media_type {
        Some(media_type) => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        }
        None => drop(headers.remove(CONTENT_TYPE)),
    }
    // a name that no header can have is left out
    if let Some(name) = name.and_then(|name| HeaderValue::from_bytes(name.as_bytes()).ok()) {
        headers.insert("icy-name", name);
    }
    answer
}

/// Answers the requests of a connection, until it has to end.
async fn converse(stream: TcpStream, seat: Arc<Seat>) {
    let socket = SockRef::from(&stream);
    let keepalive = TcpKeepalive::new().with_time(DEAD);
    let set = stream
        .set_nodelay(true)
        .and_then(|()| socket.set_tcp_notsent_lowat(UNSENT))
        .and_then(|()| socket.set_tcp_user_timeout(Some(DEAD)))
        .and_then(|()| socket.set_tcp_keepalive(&keepalive));
    if let Err(e) = set {
        tracing::debug!("connection: {e}");
        return;
    }
    let answer = service_fn(|request| {
        let seat = Arc::clone(&seat);
        async move { Ok::<_, Infallible>(seat.players.answer(request, &seat).await) }
    });
    let conversation = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_headers(64)
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(stream), answer);
    let result = tokio::select! {
        result = conversation => result,
        () = seat.closed.notified() => return,
    };
    if let Err(e) = result {
        tracing::debug!("connection: {e}");
        if e.is_timeout() || e.is_parse() {
            seat.players.streams.closed.count(CloseReason::BadRequest);
        }
    }
}

/// The body of an answer: pieces until the stream ends.
struct Stream {
    client: Client,
    head: Option<Bytes>,
}

impl Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(head) = self.head.take() {
            return Poll::Ready(Some(Ok(Frame::data(head))));
        }
        self.client.poll_piece(cx).map(|piece| match piece {
            Ok(piece) => Some(Ok(Frame::data(piece))),
            Err(reason) => {
                // one that is behind was counted when it was closed
                if reason != CloseReason::Behind {
                    self.client.count(reason);
                }
                None
            }
        })
    }
}

/// The body of an answer to HEAD: of no known length, as streams have none.
struct Unread;

impl Body for Unread {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    body(status, TEXT, Full::new(text.into()))
}

fn body(
    status: StatusCode,
    kind: &'static str,
    body: impl Body<Data = Bytes, Error = Infallible> + Send + Sync + 'static,
) -> Answer {
    let mut answer = Response::new(BodyExt::boxed(body));
    *answer.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

#[cfg(test)]
mod tests;
