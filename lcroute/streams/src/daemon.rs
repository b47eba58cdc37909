//! Client of this host's daemon, for memberships and signatures of the node's key.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use lcroute_control::{Answer, Request};
use librecast::local::Connection;
use serde::de::DeserializeOwned;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::identity::Sign;

/// Time limit for the daemon's answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit for a signature; open streams wait meanwhile. Chosen: a thousand times the usual.
const SIGN_TIMEOUT: Duration = Duration::from_millis(500);
/// Maximum length of an answer in bytes: a status has a few kB.
const MAX_ANSWER: u64 = 256 * 1024;

/// The reason for which there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AskError {
    /// The daemon refused, for this reason.
    Refused(String),
    /// No daemon answers.
    NoDaemon(String),
}

/// The daemon of this host.
#[derive(Debug, Clone)]
pub struct Daemon {
    path: PathBuf,
    /// Whether it let a handshake wait: no further one waits until the daemon answers again.
    is_silent: Arc<AtomicBool>,
}

impl Daemon {
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            is_silent: Arc::default(),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sends one request, and returns the answer.
    pub async fn ask<T: DeserializeOwned>(&self, request: &Request) -> Result<T, AskError> {
        let asked = async {
            let mut stream = UnixStream::connect(&self.path).await?;
            ask_on(&mut stream, request).await
        };
        let no_daemon = |e: String| AskError::NoDaemon(format!("{}: {e}", self.path.display()));
        let answer = match timeout(ANSWER_TIMEOUT, asked).await {
            Ok(answer) => answer.map_err(|e| no_daemon(e.to_string()))?,
            Err(_) => return Err(no_daemon("no answer".into())),
        };
        self.is_silent.store(false, Relaxed);
        match answer {
            Answer::Ok(value) => {
                serde_json::from_value(value).map_err(|e| no_daemon(format!("its answer: {e}")))
            }
            Answer::Error(why) => Err(AskError::Refused(why)),
        }
    }

    /// Registers this program as the carrier of streams, until the connection is dropped.
    pub async fn register(&self) -> io::Result<UnixStream> {
        let mut stream = UnixStream::connect(&self.path).await?;
        let answer = timeout(ANSWER_TIMEOUT, ask_on(&mut stream, &Request::Streams)).await??;
        match answer {
            Answer::Ok(_) => Ok(stream),
            Answer::Error(why) => Err(io::Error::other(why)),
        }
    }
}

async fn ask_on(stream: &mut UnixStream, request: &Request) -> io::Result<Answer> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    let mut answer = Vec::new();
    let mut reader = BufReader::new(stream.take(MAX_ANSWER));
    reader.read_until(b'\n', &mut answer).await?;
    Ok(serde_json::from_slice(&answer)?)
}

/// Sends a request at once, with the limit [`SIGN_TIMEOUT`] for each step.
fn ask_now(path: &Path, request: &Request) -> io::Result<Answer> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.connect_timeout(&SockAddr::unix(path)?, SIGN_TIMEOUT)?;
    let stream = OwnedFd::from(socket).into();
    let mut daemon = Connection::over(stream, SIGN_TIMEOUT, MAX_ANSWER)?;
    Ok(serde_json::from_slice(&daemon.ask(request)?)?)
}

impl Sign for Daemon {
    /// Waits for the daemon, some tenths of a millisecond: TLS needs signatures within handshakes.
    fn sign(&self, message: &[u8]) -> Result<[u8; 64], String> {
        if self.is_silent.load(Relaxed) {
            return Err("the daemon does not answer".into());
        }
        let request = Request::Sign {
            message: bs58::encode(message).into_string(),
        };
        let answer = ask_now(&self.path, &request).map_err(|e| {
            // also if its queue of connections is full
            if matches!(
                e.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
            ) {
                self.is_silent.store(true, Relaxed);
            }
            format!("the daemon does not sign: {e}")
        })?;
        let signature = match answer {
            Answer::Ok(serde_json::Value::String(text)) => bs58::decode(text).into_vec(),
            Answer::Ok(_) => Ok(Vec::new()),
            Answer::Error(why) => return Err(why),
        };
        let signature = signature.unwrap_or_default().try_into();
        signature.map_err(|_| "the daemon's signature".into())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, Write};
    use std::os::unix::net::UnixListener;

    use super::*;

    fn answer(listener: &UnixListener, answer: &str) {
        let (mut stream, _) = listener.accept().unwrap();
        io::BufReader::new(&stream)
            .read_line(&mut String::new())
            .unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
    }

    #[test]
    fn of_all_handshakes_one_waits_for_a_daemon_that_hangs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sign.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let daemon = Daemon::new(path);
        // it accepts the request without an answer
        assert!(daemon.sign(b"x").unwrap_err().contains("does not sign"));
        for _ in 0..1_000 {
            assert!(daemon.sign(b"x").unwrap_err().contains("does not answer"));
        }
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_ok(), "the one that waited");
        assert!(listener.accept().is_err(), "nobody else has asked");
        listener.set_nonblocking(false).unwrap();
        // with any answer it counts as present
        let answers = std::thread::spawn(move || {
            answer(&listener, "{\"error\":\"no\"}\n");
            let signature = bs58::encode([7; 64]).into_string();
            answer(&listener, &format!("{{\"ok\":\"{signature}\"}}\n"));
        });
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        let asked = runtime.block_on(daemon.ask::<String>(&Request::Status));
        assert_eq!(asked, Err(AskError::Refused("no".into())));
        assert_eq!(daemon.sign(b"x"), Ok([7; 64]));
        answers.join().unwrap();
    }
}
