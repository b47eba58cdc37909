//! Groups of people on this host, if the configuration lets pages show them, from `lcgroup run`.

use std::io::ErrorKind;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use crate::code;
use librecast::time::UnixTime;

/// Longest wait for an answer of lcgroup.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait until a sent file is in its message: lcgroup seals it, and lcsync serves it.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of a message line: 64 KiB in JSON, where each character may take six.
const MAX_LINE: u64 = 512 * 1024;
/// Bytes of an answer. Chosen: some 500 for each of 1,000 members, 10,000 for each of 64 groups,
/// and a reserve.
const MAX_ANSWER: u64 = 1024 * 1024;
/// Bytes of a file: as in lcgroup.
const MAX_FILE: u64 = 64 << 20;
/// Bytes of a file that go to a page at once. Chosen: few system calls, and little memory.
const PIECE: usize = 64 * 1024;
/// Last notices of a group on a page.
const NOTICES: usize = 3;
/// Bytes of names and topics: as in lcgroup.
const MAX_NAME: usize = 64;
/// Lifetime of an invitation from a page, in seconds: a week. Chosen: a key that was stolen for a
/// moment gives no lasting access.
const MAX_EXPIRES: u64 = 7 * 24 * 3600;
/// First messages on a page.
const FIRST_MESSAGES: u64 = 200;
/// Interval of empty lines to an idle page, which so detects a lost server.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// Time without reading after which a page counts as gone.
const STUCK: Duration = Duration::from_secs(20);

/// A page's request for a group.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Wanted {
    /// A new group, with this host as its owner.
    Create {
        group: String,
        name: String,
        topic: String,
    },
    /// An existing group; `group` is its name on this host.
    Join {
        invitation: Zeroizing<String>,
        group: Option<String>,
        name: String,
    },
}

/// A page's request for an invitation.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedInvitation {
    uses: u32,
    expires_s: u64,
}

/// A refused request, with the reason.
#[derive(Debug)]
pub struct Refused(String);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// The file of a message.
#[derive(Debug)]
pub enum Fetched {
    /// The reason for which it is not here yet, as JSON.
    Waits(Bytes),
    /// Its length, and the source of its bytes.
    Here(u64, BufReader<UnixStream>),
}

/// The groups of this host.
#[derive(Debug)]
pub struct Groups {
    socket: PathBuf,
}

impl Groups {
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// The groups, with the fields that pages show.
    pub async fn list(&self) -> anyhow::Result<Bytes> {
        let status = self.ask(&json!({ "cmd": "status" })).await?;
        let groups = status["groups"].as_array().into_iter().flatten();
        Ok(Value::Array(groups.map(shown).collect()).to_string().into())
    }

    /// A group while a user waits to become its member, and the interfaces in use.
    pub async fn wait_for(&self, group: &str) -> anyhow::Result<Bytes> {
        let request = json!({ "cmd": "await", "group": group });
        let answer = self.ask(&request).await?;
        let shown = json!({ "group": shown(&answer["group"]), "interfaces": answer["interfaces"] });
        Ok(shown.to_string().into())
    }

    /// The members of a group.
    pub async fn members(&self, group: &str) -> anyhow::Result<Bytes> {
        let request = json!({ "cmd": "members", "group": group });
        Ok(self.ask(&request).await?["members"].to_string().into())
    }

    /// Creates a group, or requests to join one; returns its name on this host.
    pub async fn add(&self, wanted: &[u8]) -> anyhow::Result<Bytes> {
        let wanted = serde_json::from_slice(wanted).map_err(|e| Refused(e.to_string()))?;
        let (group, what) = match wanted {
            Wanted::Create { group, name, topic } => {
                let topic = if topic.is_empty() { &group } else { &topic };
                for (what, text) in [("group", &group), ("topic", topic), ("own name", &name)] {
                    check_length(what, text)?;
                }
                let request =
                    json!({ "cmd": "create", "group": group, "name": name, "topic": topic });
                self.ask(&request).await?;
                (group, "made")
            }
            Wanted::Join {
                invitation,
                group,
                name,
            } => {
                check_length("own name", &name)?;
                check_length("group", group.as_deref().unwrap_or_default())?;
                let request = json!({
                    "cmd": "join", "invitation": invitation.trim(), "group": group, "name": name,
                });
                let answer = self.ask(&request).await?;
                let group = answer["name"].as_str().unwrap_or_default().to_owned();
                (group, "asks to join")
            }
        };
        tracing::info!("a page {what} group {group}");
        Ok(json!({ "name": group }).to_string().into())
    }

    /// Creates an invitation; returns its text, id, QR code, and expiry (ms since 1970).
    pub async fn invite(&self, group: &str, wanted: &[u8]) -> anyhow::Result<Bytes> {
        let wanted = serde_json::from_slice(wanted).map_err(|e| Refused(e.to_string()))?;
        let WantedInvitation { uses, expires_s } = wanted;
        if expires_s > MAX_EXPIRES {
            return Err(Refused("a page invites for a week at most".to_owned()).into());
        }
        let request = json!({
            "cmd": "invite", "group": group, "uses": uses, "expires_s": expires_s,
        });
        let mut answer = self.ask(&request).await?;
        let Value::String(line) = answer["invitation"].take() else {
            return Err(anyhow!("lcgroup gives no invitation"));
        };
        let line = Zeroizing::new(line);
        let code = code::rows(&line)?;
        tracing::info!("a page invites {uses} to group {group} for {expires_s} s");
        let until = UnixTime::now()
            .as_millis()
            .saturating_add(expires_s * 1_000);
        let made = json!({
            "invitation": &*line, "id": answer["id"], "qr": code, "until": until,
        });
        Ok(made.to_string().into())
    }

    /// The invitations of this host that others may use.
    pub async fn invitations(&self, group: &str) -> anyhow::Result<Bytes> {
        let request = json!({ "cmd": "invitations", "group": group });
        Ok(self.ask(&request).await?["invitations"].to_string().into())
    }

    /// Withdraws an invitation, by its id.
    pub async fn withdraw(&self, group: &str, id: &[u8]) -> anyhow::Result<Bytes> {
        let id = std::str::from_utf8(id).context("an id is text")?;
        let request = json!({ "cmd": "withdraw", "group": group, "invitation": id });
        let answer = self.ask(&request).await?;
        tracing::info!(
            "a page withdraws invitation {} of group {group}",
            answer["id"]
        );
        Ok(answer.to_string().into())
    }

    /// Addresses and names of all groups, held ones included.
    pub async fn addresses(&self) -> anyhow::Result<Vec<(Ipv6Addr, String)>> {
        let status = self.ask(&json!({ "cmd": "status" })).await?;
        let all = ["groups", "held"].map(|of| status[of].as_array());
        let all = all.into_iter().flatten().flatten();
        let named = |group: &Value| {
            let address = group["log"]["address"].as_str()?.parse().ok()?;
            Some((address, group["name"].as_str()?.to_owned()))
        };
        Ok(all.filter_map(named).collect())
    }

    /// Sends a message to a group.
    pub async fn say(&self, group: &str, words: &[u8]) -> anyhow::Result<Bytes> {
        let words = std::str::from_utf8(words).context("words are text")?;
        let request = json!({ "cmd": "send", "group": group, "text": words });
        Ok(self.ask(&request).await?.to_string().into())
    }

    /// Sends a file to a group while its bytes come.
    pub async fn send_file<B>(&self, group: &str, name: &str, mut from: B) -> anyhow::Result<Bytes>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let length = from.size_hint().exact();
        let length = length.filter(|length| *length <= MAX_FILE).ok_or_else(|| {
            let most = MAX_FILE / 1_000_000;
            Refused(format!("a message carries a file of at most {most} MB"))
        })?;
        let request = json!({
            "cmd": "send_file", "group": group, "name": name, "length": length,
        });
        let mut lcgroup = self.connect(&request).await?;
        answered(ANSWER_TIMEOUT, &mut lcgroup).await?;
        let silent = "the file does not come";
        while let Some(frame) = tokio::time::timeout(STUCK, from.frame())
            .await
            .context(silent)?
        {
            if let Ok(data) = frame?.into_data() {
                let taken = tokio::time::timeout(STUCK, lcgroup.write_all(&data)).await;
                taken.context("lcgroup takes no more of the file")??;
            }
        }
        let answer = answered(PUBLISH_TIMEOUT, &mut lcgroup).await?;
        Ok(answer.to_string().into())
    }

    /// Requests the file of a message.
    pub async fn file(&self, group: &str, number: &str) -> anyhow::Result<Fetched> {
        let n = number_of(number.as_bytes())?;
        let request = json!({ "cmd": "get", "group": group, "which": { "number": n } });
        let mut lcgroup = self.connect(&request).await?;
        let answer = answered(ANSWER_TIMEOUT, &mut lcgroup).await?;
        if let Some(waits) = answer.get("waits") {
            return Ok(Fetched::Waits(waits.to_string().into()));
        }
        let length = answer["length"].as_u64();
        Ok(Fetched::Here(
            length.context("lcgroup gives no length")?,
            lcgroup,
        ))
    }

    /// Begins a call with a group; returns its text.
    pub async fn call(&self, group: &str) -> anyhow::Result<Bytes> {
        let request = json!({ "cmd": "call", "group": group });
        let call = self.ask(&request).await?["call"].take();
        Ok(json!({ "call": call }).to_string().into())
    }

    /// Notes that a user has read all messages up to a number.
    pub async fn read(&self, group: &str, number: &[u8]) -> anyhow::Result<Bytes> {
        let n = number_of(number)?;
        let request = json!({ "cmd": "read", "group": group, "n": n });
        Ok(self.ask(&request).await?.to_string().into())
    }

    /// Forwards recent and new messages until the page has gone; the last line may be an error.
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
                    // the buffer keeps the part of a line that came
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

    /// Returns a board's posts as an Atom feed.
    pub async fn board(&self, name: &str) -> anyhow::Result<Bytes> {
        let request = json!({ "cmd": "board_feed", "name": name });
        let answer = self.ask(&request).await?;
        let feed = answer["feed"].as_str().context("lcgroup has no boards")?;
        Ok(feed.to_owned().into())
    }

    async fn connect(&self, request: &Value) -> anyhow::Result<BufReader<UnixStream>> {
        let mut stream = UnixStream::connect(&self.socket).await.map_err(|e| {
            let socket = self.socket.display();
            match e.kind() {
                ErrorKind::PermissionDenied => anyhow!(
                    "The server of these pages may not ask lcgroup ({socket}): add it to the Unix group `lcgroup`, by `SupplementaryGroups=lcgroup` below `[Service]` in `systemctl edit lcroute-web`"
                ),
                _ => anyhow!(
                    "lcgroup does not run here ({socket}: {e}): start it by `systemctl start lcgroup`, or by `lcgroup run`"
                ),
            }
        })?;
        stream.write_all(format!("{request}\n").as_bytes()).await?;
        Ok(BufReader::new(stream))
    }

    async fn ask(&self, request: &Value) -> anyhow::Result<Value> {
        let mut lines = self.connect(request).await?;
        answered(ANSWER_TIMEOUT, &mut lines).await
    }
}

/// Waits for an answer of lcgroup.
async fn answered(limit: Duration, from: &mut BufReader<UnixStream>) -> anyhow::Result<Value> {
    let answer = async {
        let mut line = Vec::new();
        let mut limited = from.take(MAX_ANSWER);
        limited.read_until(b'\n', &mut line).await?;
        let mut answer: Value = serde_json::from_slice(&line).context("lcgroup has ended")?;
        match answer["error"].as_str() {
            Some(error) => Err(Refused(error.to_owned()).into()),
            None => Ok(answer["ok"].take()),
        }
    };
    let answer = tokio::time::timeout(limit, answer).await;
    answer.unwrap_or_else(|_| {
        Err(anyhow!(
            "lcgroup does not answer, and may still do what was asked: is it stopped, or its disk slow?"
        ))
    })
}

/// Forwards a file to a page until the page has gone. A damaged copy ends early.
pub async fn pass_file(from: BufReader<UnixStream>, length: u64, to: mpsc::Sender<Bytes>) {
    let mut from = from.take(length);
    loop {
        let mut piece = BytesMut::with_capacity(PIECE);
        match tokio::time::timeout(STUCK, from.read_buf(&mut piece)).await {
            Ok(Ok(1..)) => {}
            _ => return,
        }
        match tokio::time::timeout(STUCK, to.send(piece.freeze())).await {
            Ok(Ok(())) => {}
            _ => return,
        }
    }
}

fn number_of(text: &[u8]) -> Result<u64, Refused> {
    let number = std::str::from_utf8(text).ok();
    let number = number.and_then(|number| number.parse().ok());
    number.ok_or_else(|| Refused("not the number of a message".to_owned()))
}

/// The fields of a group that pages show.
fn shown(group: &Value) -> Value {
    let facts = [
        "name", "topic", "author", "state", "epoch", "members", "messages", "read", "waits",
        "problem", "clock", "outbox", "missing",
    ];
    let facts = facts.map(|fact| (fact.to_owned(), group[fact].clone()));
    let notices = group["notices"].as_array().map_or(&[][..], Vec::as_slice);
    let last = &notices[notices.len().saturating_sub(NOTICES)..];
    let notices = ("notices".to_owned(), json!(last));
    let outside = ("outside".to_owned(), json!(group["network"].is_object()));
    let facts = facts.into_iter().chain([notices, outside]);
    Value::Object(facts.collect())
}

/// lcgroup checks this too, but its error repeats the whole text.
fn check_length(what: &str, text: &str) -> Result<(), Refused> {
    match text.len() {
        0..=MAX_NAME => Ok(()),
        len => Err(Refused(format!(
            "the {what} has {len} bytes, and may have {MAX_NAME}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;
    use tokio::net::UnixListener;

    use super::*;

    /// Answers one request of a page as lcgroup does; returns the request, and the next bytes of
    /// the page.
    async fn lcgroup(at: UnixListener, answers: &[&str], bytes: usize) -> (Value, Vec<u8>) {
        let (stream, _) = at.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        stream.write_all(answers[0].as_bytes()).await.unwrap();
        let mut came = vec![0; bytes];
        stream.read_exact(&mut came).await.unwrap();
        for answer in &answers[1..] {
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        (serde_json::from_str(&line).unwrap(), came)
    }

    #[tokio::test]
    async fn a_file_of_a_page_goes_to_lcgroup_and_is_sent_once_that_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("control.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let answers = ["{\"ok\":{\"ready\":true}}\n", "{\"ok\":{\"id\":\"x\"}}\n"];
        let groups = Groups::new(socket);
        let body = Full::new(Bytes::from_static(b"abc"));
        let (asked, sent) = tokio::join!(
            lcgroup(listener, &answers, 3),
            groups.send_file("team", "plan", body)
        );
        assert_eq!(sent.unwrap(), "{\"id\":\"x\"}");
        let wanted = json!({ "cmd": "send_file", "group": "team", "name": "plan", "length": 3 });
        assert_eq!(asked, (wanted, b"abc".to_vec()));
    }

    #[tokio::test]
    async fn a_feed_reader_gets_the_feed_that_lcgroup_writes() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("control.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let groups = Groups::new(socket);
        let answers = ["{\"ok\":{\"feed\":\"<feed/>\"}}\n"];
        let ((asked, _), feed) = tokio::join!(lcgroup(listener, &answers, 0), groups.board("news"));
        assert_eq!(asked, json!({ "cmd": "board_feed", "name": "news" }));
        assert_eq!(feed.unwrap(), "<feed/>");
    }

    #[test]
    fn a_page_learns_which_groups_have_a_network_of_their_own() {
        let outside = |group| shown(&group)["outside"].clone();
        assert_eq!(outside(json!({ "network": { "links": 0 } })), true);
        assert_eq!(outside(json!({ "name": "team" })), false);
    }

    #[tokio::test]
    async fn a_page_gets_the_file_of_a_message_or_the_reason_for_a_wait() {
        for (answer, is_here) in [
            ("{\"ok\":{\"length\":3,\"name\":\"plan\"}}\nabcd", true),
            (
                "{\"ok\":{\"waits\":{\"why\":\"ann\"},\"length\":3}}\n",
                false,
            ),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let socket = folder.path().join("control.sock");
            let listener = UnixListener::bind(&socket).unwrap();
            let groups = Groups::new(socket);
            let answers = [answer];
            let (_, file) = tokio::join!(lcgroup(listener, &answers, 0), groups.file("team", "7"));
            match file.unwrap() {
                Fetched::Here(length, from) => {
                    let (to, mut pieces) = mpsc::channel(4);
                    pass_file(from, length, to).await;
                    let piece = pieces.recv().await.unwrap();
                    assert!(is_here && length == 3 && piece == "abc", "{piece:?}");
                }
                Fetched::Waits(why) => assert!(!is_here && why == "{\"why\":\"ann\"}"),
            }
        }
        let error = Groups::new("nowhere".into()).file("team", "x").await;
        assert!(error.unwrap_err().is::<Refused>());
    }
}
