//! A Matrix room as a meeting place: an account's nodes store their records, and see all others at
//! once.
//!
//! `session` decides about requests, `answers` parses their answers; both are without I/O. `trust`
//! checks certificates. This file has the HTTP client and the task.

mod answers;
mod session;
mod trust;

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, DATE, HeaderValue, RETRY_AFTER};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use librecast::reach::{FromReach, Meeting, RoomState};
use librecast::time::UnixTime;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

use session::{Answer, Request, Session};
use trust::Trust;

/// Maximum length of an answer in bytes. Chosen: a hundred messages to a device, 64 KiB each.
const MAX_ANSWER: usize = 8 * 1024 * 1024;
/// Maximum length of an answer's head in bytes. Chosen: twice the bound of servers for requests.
const MAX_HEAD: usize = 32 * 1024;
/// Step of the host's clock after which all is read again. Chosen: far above drift.
const CLOCK_STEP: Duration = Duration::from_secs(3_600);
/// Maximum wait of the loop.
const IDLE: std::time::Duration = std::time::Duration::from_secs(60);

/// Meets in the daemon's room, until the daemon's channel closes.
pub(crate) async fn run(
    mut meetings: watch::Receiver<Option<Box<Meeting>>>,
    lines: mpsc::Sender<FromReach>,
) {
    loop {
        let meeting = meetings.borrow_and_update().clone();
        let ended = match meeting {
            Some(meeting) => meet(*meeting, &mut meetings, &lines).await,
            None => meetings.changed().await.ok(),
        };
        if ended.is_none() {
            return;
        }
    }
}

/// Returns when the account or room has changed; None: the channel is closed.
async fn meet(
    meeting: Meeting,
    meetings: &mut watch::Receiver<Option<Box<Meeting>>>,
    lines: &mpsc::Sender<FromReach>,
) -> Option<()> {
    let mut http = match Http::new(&meeting) {
        Ok(http) => http,
        Err(why) => {
            let state = RoomState {
                problem: Some(why),
                ..RoomState::default()
            };
            lines.send(FromReach::Room(state)).await.ok()?;
            return meetings.changed().await.ok();
        }
    };
    let begun = (Instant::now(), UnixTime::now());
    let mut round = meeting.round;
    let mut session = Session::new(meeting.clone(), Instant::now());
    let mut calls = JoinSet::new();
    let mut said = None;
    loop {
        // records that were expired by the old clock may be valid by the new one
        if UnixTime::now().abs_diff(begun.1 + begun.0.elapsed()) > CLOCK_STEP {
            meetings.mark_changed();
            return Some(());
        }
        while let Some(request) = session.poll_request(Instant::now(), UnixTime::now()) {
            let http = http.clone();
            calls.spawn(async move {
                let answer = http.call(&request).await;
                (request, answer)
            });
        }
        let state = session.state(UnixTime::now());
        if said.as_ref() != Some(&state) {
            lines.send(FromReach::Room(state.clone())).await.ok()?;
            said = Some(state);
        }
        let due = session.next_timeout(UnixTime::now());
        let due = due.unwrap_or_else(|| Instant::now() + IDLE);
        tokio::select! {
            changed = meetings.changed() => {
                changed.ok()?;
                let Some(meeting) = meetings.borrow_and_update().clone() else {
                    return Some(());
                };
                if !session.go_on(&meeting) {
                    meetings.mark_changed();
                    return Some(());
                }
                if std::mem::replace(&mut round, meeting.round) != meeting.round {
                    calls.abort_all();
                    while calls.join_next().await.is_some() {}
                    // existing connections may be dead too
                    if let Ok(new) = Http::new(&meeting) {
                        http = new;
                    }
                    session.try_again(Instant::now());
                }
            }
            Some(done) = calls.join_next() => {
                // a panicked call would be awaited for ever
                let (request, answer) = done.ok()?;
                // an authority may have been missing, and been added since
                if answer.is_err()
                    && let Ok(new) = Http::new(&meeting)
                {
                    http = new;
                }
                for line in session.handle(&request, answer, Instant::now(), UnixTime::now()) {
                    lines.send(line).await.ok()?;
                }
            }
            () = sleep_until(due.into()) => {}
        }
    }
}

/// A client of one homeserver. It follows no redirects, which would send the token elsewhere.
#[derive(Debug, Clone)]
struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    trust: Arc<Trust>,
    homeserver: String,
    authorization: HeaderValue,
}

impl Http {
    fn new(meeting: &Meeting) -> Result<Self, String> {
        let trust = Trust::load().map_err(|e| format!("TLS: {e}"))?;
        let tls = HttpsConnectorBuilder::new().with_tls_config(trust.config.clone());
        let tls = tls.https_or_http().enable_http1().build();
        let bearer = format!("Bearer {}", meeting.token.secret());
        let mut authorization = HeaderValue::try_from(bearer).map_err(|e| e.to_string())?;
        authorization.set_sensitive(true);
        let client = Client::builder(TokioExecutor::new())
            .http1_max_buf_size(MAX_HEAD)
            .build(tls);
        Ok(Self {
            client,
            trust: Arc::new(trust),
            homeserver: meeting.homeserver.trim_end_matches('/').to_owned(),
            authorization,
        })
    }

    /// Returns the answer, or the reason for which there is none.
    async fn call(&self, request: &Request) -> Result<Answer, String> {
        let answer = timeout(request.timeout, self.exchange(request)).await;
        answer.map_err(|_| "the homeserver does not answer in time".to_owned())?
    }

    async fn exchange(&self, request: &Request) -> Result<Answer, String> {
        let body = request.body.clone().unwrap_or_default();
        let message = hyper::Request::builder()
            .method(request.method)
            .uri(format!("{}{}", self.homeserver, request.path))
            .header(AUTHORIZATION, &self.authorization)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)));
        let message = message.map_err(|e| format!("[matrix] homeserver: {e}"))?;
        let answer = self.client.request(message).await;
        let answer = answer.map_err(|e| {
            let refusal = self.trust.refusal(&e, &self.homeserver);
            refusal.unwrap_or_else(|| format!("the homeserver cannot be reached: {}", cause(&e)))
        })?;
        let (head, body) = answer.into_parts();
        let retry_after = head.headers.get(RETRY_AFTER);
        let retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
        let date = head.headers.get(DATE);
        let date = date.and_then(|value| httpdate::parse_http_date(value.to_str().ok()?).ok());
        let date = date.and_then(|date| date.duration_since(UNIX_EPOCH).ok());
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body = body.map_err(|e| format!("the homeserver's answer: {e}"))?;
        Ok(Answer {
            status: head.status.as_u16(),
            retry_after,
            date: date.map(|date| date.as_secs()),
            body: body.to_bytes().into(),
        })
    }
}

/// Returns the innermost reason, which is the specific one.
fn cause(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use session::Call;

    fn listener() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        (listener, url)
    }

    /// Answers the first request with this head, and this body, repeated without end.
    fn serve(listener: TcpListener, head: String, body: Vec<u8>) {
        tokio::spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let (mut stream, _): (TcpStream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4_096];
            let _ = stream.read(&mut request).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            while !body.is_empty() && stream.write_all(&body).await.is_ok() {}
        });
    }

    async fn call(homeserver: String) -> Result<Answer, String> {
        let meeting = Meeting {
            homeserver,
            room: "!r:a.example".parse().unwrap(),
            user: None,
            token: "syt_secret".parse().unwrap(),
            keep: None,
            round: 0,
        };
        let request = Request {
            call: Call::WhoAmI,
            method: "GET",
            path: "/_matrix/client/v3/account/whoami".into(),
            body: None,
            timeout: Duration::from_secs(60),
        };
        Http::new(&meeting)?.call(&request).await
    }

    #[tokio::test]
    async fn an_answer_without_an_end_is_left_at_its_bound() {
        let (server, url) = listener();
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n";
        serve(server, head.into(), vec![b' '; 65_536]);
        let refused = call(url).await.unwrap_err();
        assert!(refused.contains("limit"), "{refused}");
        // headers are bounded too
        let (server, url) = listener();
        serve(server, "HTTP/1.1 200 OK\r\nX: ".into(), vec![b'x'; 65_536]);
        assert!(call(url).await.is_err());
    }

    #[tokio::test]
    async fn a_redirect_takes_the_access_token_nowhere() {
        let ((server, url), (elsewhere, target)) = (listener(), listener());
        let head = format!("HTTP/1.1 307 Go\r\nLocation: {target}/\r\nContent-Length: 0\r\n\r\n");
        serve(server, head, Vec::new());
        assert_eq!(call(url).await.unwrap().status, 307);
        let nobody = elsewhere.accept().unwrap_err();
        assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock);
    }
}
