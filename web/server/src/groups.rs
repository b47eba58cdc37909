//! Groups of people on this host, where the configuration lets pages show them: what `lcgroup run` says on its socket.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

/// lcgroup answers within so long.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest line of lcgroup, in bytes: a message of 64 KiB in JSON, where each character may take six.
const MAX_LINE: u64 = 512 * 1024;
/// Messages that a page begins with.
const FIRST_MESSAGES: u64 = 200;
/// An open page gets an empty line this often where nothing is said, so that it sees whether the server is there.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// A page that takes nothing for this long has gone.
const STUCK: Duration = Duration::from_secs(20);

/// The groups of this host.
#[derive(Debug)]
pub struct Groups {
    socket: PathBuf,
}

impl Groups {
    /// What answers at this socket.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// All of them: `[{name, topic, author, state, members, messages, notices}]`.
    pub async fn list(&self) -> anyhow::Result<Bytes> {
        let status = self.ask(&json!({ "cmd": "status" })).await?;
        let shown = [
            "name", "topic", "author", "state", "members", "messages", "notices",
        ];
        let groups = status["groups"].as_array().into_iter().flatten();
        let groups = groups.map(|group| {
            let facts = shown.map(|fact| (fact.to_owned(), group[fact].clone()));
            Value::Object(facts.into_iter().collect())
        });
        Ok(Value::Array(groups.collect()).to_string().into())
    }

    /// Says something in one.
    pub async fn say(&self, group: &str, words: &[u8]) -> anyhow::Result<Bytes> {
        let words = std::str::from_utf8(words).context("words are text")?;
        let request = json!({ "cmd": "send", "group": group, "text": words });
        Ok(self.ask(&request).await?.to_string().into())
    }

    /// Passes on what was said lately, and what is said, until the page has gone; the last line says why there are no more.
    pub async fn follow(&self, group: &str, to: &mpsc::Sender<Bytes>) {
        if let Err(e) = self.pass_on(group, to).await {
            let line = format!("{}\n", json!({ "error": format!("{e:#}") }));
            // the page may have gone
            let _ = tokio::time::timeout(STUCK, to.send(line.into())).await;
        }
    }

    async fn pass_on(&self, group: &str, to: &mpsc::Sender<Bytes>) -> anyhow::Result<()> {
        let request = json!({
            "cmd": "tail", "group": group, "last": FIRST_MESSAGES, "follow": true,
        });
        let mut lines = self.connect(&request).await?;
        let mut line = Vec::new();
        loop {
            let mut limited = (&mut lines).take(MAX_LINE);
            let next = limited.read_until(b'\n', &mut line);
            let send = tokio::select! {
                read = tokio::time::timeout(KEEP_ALIVE_INTERVAL, next) => match read {
                    Ok(read) => {
                        ensure!(read? > 0 && line.ends_with(b"\n"), "lcgroup has ended");
                        Bytes::from(std::mem::take(&mut line))
                    }
                    // what came of a line stays in it
                    Err(_) => Bytes::from_static(b"\n"),
                },
                () = to.closed() => return Ok(()),
            };
            match tokio::time::timeout(STUCK, to.send(send)).await {
                Ok(Ok(())) => {}
                _ => return Ok(()),
            }
        }
    }

    async fn connect(&self, request: &Value) -> anyhow::Result<BufReader<UnixStream>> {
        let shown = || format!("{}: does `lcgroup run` run?", self.socket.display());
        let mut stream = UnixStream::connect(&self.socket)
            .await
            .with_context(shown)?;
        stream.write_all(format!("{request}\n").as_bytes()).await?;
        Ok(BufReader::new(stream))
    }

    async fn ask(&self, request: &Value) -> anyhow::Result<Value> {
        let answer = async {
            let mut line = Vec::new();
            let mut lines = self.connect(request).await?.take(MAX_LINE);
            lines.read_until(b'\n', &mut line).await?;
            let mut answer: Value = serde_json::from_slice(&line).context("lcgroup has ended")?;
            match answer["error"].as_str() {
                Some(error) => Err(anyhow::anyhow!("{error}")),
                None => Ok(answer["ok"].take()),
            }
        };
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, answer).await;
        answer.context("lcgroup is silent")?
    }
}
