//! Asks the daemon of this host, on the socket that is for this program: who is a member, and for signatures of the node's key.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lcroute::control::client::Client;
use lcroute::control::{Answer, Request};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::identity::Sign;

/// The daemon answers within so long.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer, in bytes: a status has a few kB.
const MAX_ANSWER: u64 = 256 * 1024;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AskError {
    /// The daemon says why.
    Refused(String),
    /// No daemon answers.
    NoDaemon(String),
}

/// The daemon of this host.
#[derive(Debug, Clone)]
pub struct Daemon {
    path: PathBuf,
}

impl Daemon {
    /// The one with this socket.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Its socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Asks once.
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
        match answer {
            Answer::Ok(value) => {
                serde_json::from_value(value).map_err(|e| no_daemon(format!("its answer: {e}")))
            }
            Answer::Error(why) => Err(AskError::Refused(why)),
        }
    }

    /// From now on streams are carried for this host, until the connection is dropped.
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

impl Sign for Daemon {
    /// Waits for the daemon, some tenths of a millisecond: TLS asks for signatures in the midst of a handshake.
    fn sign(&self, message: &[u8]) -> Result<[u8; 64], String> {
        let request = Request::Sign {
            message: bs58::encode(message).into_string(),
        };
        let mut client = Client::connect(&self.path).map_err(|e| e.to_string())?;
        let text: String = client.ask(&request).map_err(|e| format!("{e:#}"))?;
        let signature = bs58::decode(text).into_vec().unwrap_or_default();
        signature
            .try_into()
            .map_err(|_| "the daemon's signature".into())
    }
}
