//! The server's HTTP: WebSockets are for clients; other requests get a small web server's answers.

use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;

/// Time limit for a request's head. Chosen: shorter than a connection's total time.
const HEAD: Duration = Duration::from_secs(8);
/// Maximum number of header fields. Chosen: browsers send about twenty.
const MAX_FIELDS: usize = 64;
/// Maximum length of a head in bytes. Chosen.
const MAX_HEAD: usize = 16 << 10;

type Answer = Response<Full<Bytes>>;

/// A stream of WebSocket frames.
pub(crate) type WebSocketIo = TokioIo<Upgraded>;

/// Answers requests of HTTP/1 until one is for a WebSocket; none if the connection ends first.
///
/// # Errors
/// The connection broke, or the request was no HTTP, which was answered.
pub(crate) async fn until_websocket<S>(stream: S) -> hyper::Result<Option<WebSocketIo>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let upgrade = Mutex::new(None);
    let service = service_fn(|request| {
        let (answer, upgraded) = answer(request);
        if upgraded.is_some() {
            *upgrade.lock().unwrap_or_else(PoisonError::into_inner) = upgraded;
        }
        async { Ok::<_, Infallible>(answer) }
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_headers(MAX_FIELDS)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await?;
    let upgrade = upgrade.into_inner().unwrap_or_else(PoisonError::into_inner);
    match upgrade {
        Some(upgrade) => Ok(Some(TokioIo::new(upgrade.await?))),
        None => Ok(None),
    }
}

fn answer(mut request: Request<Incoming>) -> (Answer, Option<OnUpgrade>) {
    if let Ok(switching) = create_response_with_body(&request, Full::default) {
        return (switching, Some(hyper::upgrade::on(&mut request)));
    }
    let readable = matches!(*request.method(), Method::GET | Method::HEAD);
    let mut answer = match (readable, request.uri().path()) {
        (true, "/") => page(StatusCode::OK, "Welcome"),
        (true, _) => page(StatusCode::NOT_FOUND, "404 Not Found"),
        (false, _) => page(StatusCode::METHOD_NOT_ALLOWED, "405 Method Not Allowed"),
    };
    let headers = answer.headers_mut();
    if !readable {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    // one request per connection: places are for clients
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    (answer, None)
}

fn page(status: StatusCode, title: &str) -> Answer {
    let page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><title>{title}</title></head>\n<body><h1>{title}</h1></body></html>\n"
    );
    let mut answer = Response::new(Full::from(page));
    *answer.status_mut() = status;
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, html);
    answer
}
