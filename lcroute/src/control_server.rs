//! The server of the control socket. File permissions decide who may connect.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use lcroute_control::{Access, Answer, Code, GivenSecret, Request};
use librecast::cert::GroupPrefix;
use librecast::id::{PeerId, SecretKey};
use librecast::local;
use librecast::open::Statement;
use librecast::open_item::{ItemAsk, ItemSigner};
use librecast::pair::PairSecret;
use librecast::time::{Instant, UnixTime};
use librecast_program::cli::{Exit, ExitError};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Interval, MissedTickBehavior, timeout};
use zeroize::Zeroizing;

use crate::inbox::{End, Inbox, Message};
use crate::inviter::Inviter;

/// Most secrets of a prefix from a program. Chosen: each opens packets of one epoch of a group, and
/// epochs expire a minute after their end.
const MAX_SECRETS: usize = 16;
/// Longest request line in bytes.
const MAX_REQUEST: usize = 64 * 1024;
/// Most connections at a time that hold nothing.
const MAX_CONNECTIONS: usize = 64;
/// Most connections at a time that announce something or give secrets.
const MAX_ANNOUNCERS: usize = lcroute_node::MAX_ANNOUNCED;
/// Most connections at a time that watch.
const MAX_WATCHERS: usize = 8;
/// Time between answers to a watching connection.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Least time between two answers on the view socket: each costs time of the packet thread.
const VIEW_GAP: Duration = Duration::from_millis(50);
/// Timeout for a complete request, and for taking its answer.
const IDLE: Duration = Duration::from_secs(30);
/// Refusal of invitations where the configuration does not permit them.
const NO_INVITATIONS: &str =
    "this daemon makes no invitations for pages: [web] invite = true in its configuration lets it";

/// Binds `path` as [`local::bind`], with advice if that fails; a running daemon is an error.
pub fn bind(path: &Path, group: &str, is_for_group: bool) -> anyhow::Result<StdListener> {
    let listener = local::bind(path, group, is_for_group).map_err(|e| {
        let (exit, text) = match e.kind() {
            io::ErrorKind::AddrInUse => (Exit::Failed, "another lcroute is running".to_owned()),
            io::ErrorKind::AlreadyExists => {
                (Exit::Failed, format!("{e}; choose another --control"))
            }
            io::ErrorKind::PermissionDenied => (
                Exit::NotPermitted,
                format!("{e}: run as root, or choose another place with --control"),
            ),
            _ => (Exit::Failed, e.to_string()),
        };
        ExitError::new(exit, format!("{}: {text}", path.display()))
    })?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The bound socket; removed when dropped.
#[derive(Debug)]
pub struct ControlSocket {
    listener: StdListener,
    path: PathBuf,
    access: Access,
    inviter: Option<Arc<Inviter>>,
    key: Option<Arc<SecretKey>>,
    signer: Signer,
    given: Given,
}

/// Prefixes whose secrets come from a connection: each has at most one.
type Given = Arc<std::sync::Mutex<BTreeSet<GroupPrefix>>>;

/// All connections together have one rate.
type Signer = Arc<std::sync::Mutex<ItemSigner>>;

impl ControlSocket {
    /// Binds a socket for `access`; see [`bind`].
    pub fn bind(path: &Path, access: Access) -> anyhow::Result<Self> {
        // the daemon's own group must not act as another program
        let is_for_group = matches!(access, Access::Streams | Access::Keys);
        let listener = bind(path, access.group(), is_for_group)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            access,
            inviter: None,
            key: None,
            signer: Arc::new(std::sync::Mutex::new(ItemSigner::new(Instant::now()))),
            given: Given::default(),
        })
    }

    /// Enables invitations for pages.
    #[must_use]
    pub fn inviting(mut self, inviter: Option<Arc<Inviter>>) -> Self {
        self.inviter = inviter;
        self
    }

    /// Enables signatures of stream handshakes by this key.
    #[must_use]
    pub fn signing(mut self, key: Arc<SecretKey>) -> Self {
        self.key = Some(key);
        self
    }

    /// Serves until the future is dropped; returns only if it cannot start.
    pub async fn serve(&self, inbox: Inbox) -> io::Result<()> {
        let listener = UnixListener::from_std(self.listener.try_clone()?)?;
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let announcers = Arc::new(Semaphore::new(MAX_ANNOUNCERS));
        let watchers = Arc::new(Semaphore::new(MAX_WATCHERS));
        let mut gap = tokio::time::interval(VIEW_GAP);
        gap.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let gap = (self.access == Access::View).then(|| Arc::new(Mutex::new(gap)));
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(e) => {
                    // most likely no descriptor is free: other connections may end meanwhile
                    tracing::warn!("control socket: {e}");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            };
            // above the bound a new connection is closed at once, and its client reports that
            if let Ok(place) = places.clone().try_acquire_owned() {
                let mut conversation = Conversation {
                    inbox: inbox.clone(),
                    access: self.access,
                    inviter: self.inviter.clone(),
                    key: self.key.clone(),
                    signer: self.signer.clone(),
                    gap: gap.clone(),
                    place,
                    announcers: announcers.clone(),
                    watchers: watchers.clone(),
                    announced: Vec::new(),
                    has_streams: false,
                    given: self.given.clone(),
                    gives: Vec::new(),
                };
                tokio::spawn(async move {
                    if let Err(e) = conversation.run(stream).await {
                        tracing::debug!("control connection: {e}");
                    }
                    conversation.end().await;
                });
            }
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // another program may have removed it already
        let _ = std::fs::remove_file(&self.path);
    }
}

/// One connection.
struct Conversation {
    inbox: Inbox,
    access: Access,
    inviter: Option<Arc<Inviter>>,
    key: Option<Arc<SecretKey>>,
    signer: Signer,
    /// Rate limit of the view socket.
    gap: Option<Arc<Mutex<Interval>>>,
    /// Its place among the connections, or among the announcers while something depends on it.
    place: OwnedSemaphorePermit,
    announcers: Arc<Semaphore>,
    watchers: Arc<Semaphore>,
    /// Prefixes announced while this connection lasts.
    announced: Vec<GroupPrefix>,
    /// Whether it belongs to the program for streams.
    has_streams: bool,
    given: Given,
    /// Prefixes whose secrets last as long as this connection.
    gives: Vec<GroupPrefix>,
}

impl Conversation {
    async fn run(&mut self, stream: UnixStream) -> io::Result<()> {
        let (read, mut write) = stream.into_split();
        let mut read = BufReader::new(read);
        loop {
            let mut line = Zeroizing::new(Vec::new());
            let mut limited = (&mut read).take(MAX_REQUEST as u64 + 1);
            let next = limited.read_until(b'\n', &mut line);
            if !self.is_held() {
                // an idle connection must not keep other programs out
                timeout(IDLE, next).await??;
            } else {
                next.await?;
            }
            if line.is_empty() {
                return Ok(());
            }
            let too_long = line.len() > MAX_REQUEST;
            let request = serde_json::from_slice::<Request>(&line);
            let request = request.map_err(|e| format!("not a request: {e}"));
            let request = request.and_then(|request| match self.access.permits(&request) {
                true => Ok(request),
                false => Err(self.access.refusal(&request).into()),
            });
            if matches!(request, Ok(Request::Watch)) {
                return self.watch((read, write)).await;
            }
            let exec = matches!(request, Ok(Request::Reload { exec: true }));
            let answer = match request {
                _ if too_long => Answer::Error("request too long".into()),
                Ok(Request::Announce { prefix }) => self.announce(&prefix).await,
                Ok(Request::Private { prefix, secrets }) => self.give(&prefix, secrets).await,
                Ok(Request::Streams) => self.begin_streams().await,
                Ok(Request::Sign { message }) => self.sign(&message),
                Ok(Request::Pair { node }) => self.pair(&node),
                Ok(Request::Open { day_key, until }) => self.open(day_key, until),
                Ok(Request::OpenItem { item }) => self.open_item(&item),
                Ok(Request::Code) => match &self.inviter {
                    Some(inviter) => Answer::Ok(inviter.code().into()),
                    None => Answer::Error(NO_INVITATIONS.into()),
                },
                Ok(Request::Invite { code, ttl_s, uses }) => self.invite(&code, ttl_s, uses).await,
                Ok(request) => self.ask(request).await,
                Err(e) => Answer::Error(e),
            };
            let exec = exec && matches!(answer, Answer::Ok(_));
            let mut text = serde_json::to_vec(&answer)?;
            text.push(b'\n');
            let written = timeout(IDLE, write.write_all(&text)).await;
            if exec {
                // only now: the answer must leave before the new process starts
                self.inbox.send(Message::Stop(End::Exec)).await;
            }
            written??;
            if too_long {
                return Ok(());
            }
        }
    }

    /// Answers once a second until the client closes or stops reading.
    async fn watch(
        &mut self,
        (mut read, mut write): (BufReader<OwnedReadHalf>, OwnedWriteHalf),
    ) -> io::Result<()> {
        let mut tick = tokio::time::interval(WATCH_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let place = self.watchers.clone().try_acquire_owned();
        let mut rest = [0; 64];
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                // only the end of the connection is expected
                n = read.read(&mut rest) => match n? {
                    0 => return Ok(()),
                    _ => continue,
                },
            }
            let answer = match &place {
                Ok(_) => self.ask(Request::Watch).await,
                Err(_) => Answer::Error("too many programs watch".into()),
            };
            let mut text = serde_json::to_vec(&answer)?;
            text.push(b'\n');
            timeout(IDLE, write.write_all(&text)).await??;
            if place.is_err() {
                return Ok(());
            }
        }
    }

    async fn ask(&self, request: Request) -> Answer {
        if let Some(gap) = &self.gap {
            gap.lock().await.tick().await;
        }
        self.inbox.ask(request).await
    }

    /// Makes an invitation; the rate limit also bounds guesses of the code.
    async fn invite(&self, code: &Code, ttl_s: u64, uses: Option<u32>) -> Answer {
        if let Some(gap) = &self.gap {
            gap.lock().await.tick().await;
        }
        let inviter = self.inviter.as_ref().ok_or_else(|| NO_INVITATIONS.into());
        let made = inviter.and_then(|inviter| {
            let made = inviter.invite(code, ttl_s, uses);
            made.map_err(|e| format!("{e:#}"))
        });
        made.map_or_else(Answer::Error, Answer::Ok)
    }

    /// Whether something depends on this connection.
    fn is_held(&self) -> bool {
        self.has_streams || !self.announced.is_empty() || !self.gives.is_empty()
    }

    /// Moves this connection to the announcers, as something is about to depend on it.
    fn hold(&mut self) -> Result<(), Answer> {
        if !self.is_held() {
            let place = self.announcers.clone().try_acquire_owned();
            self.place = place.map_err(|_| {
                Answer::Error("too many programs announce, or give secrets, already".into())
            })?;
        }
        Ok(())
    }

    async fn begin_streams(&mut self) -> Answer {
        if !self.has_streams {
            if let Err(full) = self.hold() {
                return full;
            }
            self.has_streams = true;
            self.inbox.send(Message::Streams(true)).await;
        }
        Answer::Ok(serde_json::json!({}))
    }

    /// Signs a message that can only be the handshake of a stream.
    fn sign(&self, message: &str) -> Answer {
        let message = bs58::decode(message).into_vec().unwrap_or_default();
        let key = self.key.as_ref();
        match key.and_then(|key| key.sign_tls13(&message)) {
            Some(signature) => Answer::Ok(bs58::encode(signature).into_string().into()),
            None => Answer::Error("this is not what TLS 1.3 has a key sign".into()),
        }
    }

    /// Derives the secret with another key. The agreed value itself does not leave this process.
    fn pair(&self, other: &PeerId) -> Answer {
        let key = self.key.as_ref();
        match key.and_then(|key| PairSecret::agree(key, other).ok()) {
            Some(secret) => Answer::Ok(bs58::encode(secret.bytes()).into_string().into()),
            None => Answer::Error("no secret with this key: is it this node's own?".into()),
        }
    }

    /// Signs a key of the day, by which anybody may call this node.
    fn open(&self, day_key: PeerId, until: u64) -> Answer {
        let statement = self.key.as_ref().and_then(|key| {
            let open = key.peer_id();
            let statement = Statement {
                open,
                day_key,
                until,
            };
            statement.sign(key, UnixTime::now())
        });
        match statement {
            Some(statement) => Answer::Ok(bs58::encode(statement).into_string().into()),
            None => Answer::Error("a key of the day is valid for some days".into()),
        }
    }

    /// Signs the record of this open node for a DHT.
    fn open_item(&self, asked: &ItemAsk) -> Answer {
        let Some(key) = &self.key else {
            return Answer::Error("no key".into());
        };
        let mut signer = self.signer.lock().unwrap_or_else(PoisonError::into_inner);
        let signed = signer.sign(key, asked, UnixTime::now(), Instant::now());
        match signed.map(serde_json::to_value) {
            Ok(Ok(item)) => Answer::Ok(item),
            Ok(Err(e)) => Answer::Error(e.to_string()),
            Err(e) => Answer::Error(e.to_string()),
        }
    }

    async fn announce(&mut self, text: &str) -> Answer {
        let prefix: GroupPrefix = match text.parse() {
            Ok(prefix) => prefix,
            Err(e) => return Answer::Error(format!("`{text}`: {e}")),
        };
        if self.announced.contains(&prefix) {
            return Answer::Ok(serde_json::json!({ "prefix": text }));
        }
        if let Err(full) = self.hold() {
            return full;
        }
        let request = Request::Announce {
            prefix: prefix.to_string(),
        };
        let answer = self.ask(request).await;
        if matches!(answer, Answer::Ok(_)) {
            self.announced.push(prefix);
        }
        answer
    }

    /// Takes secrets of a private prefix, which only one connection may give.
    async fn give(&mut self, text: &str, secrets: Vec<GivenSecret>) -> Answer {
        let prefix: GroupPrefix = match text.parse() {
            Ok(prefix) => prefix,
            Err(e) => return Answer::Error(format!("`{text}`: {e}")),
        };
        if secrets.len() > MAX_SECRETS {
            return Answer::Error(format!("a prefix has at most {MAX_SECRETS} secrets"));
        }
        let is_ours = self.gives.contains(&prefix);
        if !is_ours {
            if secrets.is_empty() {
                return Answer::Ok(serde_json::json!({ "prefix": text }));
            }
            if let Err(full) = self.hold() {
                return full;
            }
            let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
            if !given.insert(prefix) {
                return Answer::Error(format!("another program gives the secrets of {prefix}"));
            }
            self.gives.push(prefix);
        }
        let takes_back = secrets.is_empty();
        let request = Request::Private {
            prefix: prefix.to_string(),
            secrets,
        };
        let answer = self.ask(request).await;
        // a refused request holds nothing
        if takes_back || matches!(answer, Answer::Error(_)) && !is_ours {
            self.release(prefix);
        }
        answer
    }

    fn release(&mut self, prefix: GroupPrefix) {
        self.gives.retain(|other| *other != prefix);
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.remove(&prefix);
    }

    /// Withdraws all announcements and secrets of this connection.
    async fn end(mut self) {
        for prefix in self.gives.clone() {
            self.inbox.send(Message::TakeBackSecrets(prefix)).await;
            // only now: secrets of the next connection come after this message
            self.release(prefix);
        }
        for prefix in self.announced {
            self.inbox.send(Message::Withdraw(prefix)).await;
        }
        if self.has_streams {
            self.inbox.send(Message::Streams(false)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::waker::Waker;
    use lcroute_control::config::Reread;

    async fn ask(path: &Path, request: &[u8]) -> io::Result<String> {
        let mut stream = UnixStream::connect(path).await?;
        stream.write_all(request).await?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn hostile_clients_keep_nobody_out_for_long() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c");
        let socket = ControlSocket::bind(&path, Access::Control).unwrap();
        let (inbox, mut messages, _reloads) = Inbox::new(Waker::new().unwrap());
        tokio::spawn(async move { socket.serve(inbox).await });
        tokio::spawn(async move {
            while let Some(message) = messages.recv().await {
                if let Message::Ask(_, answer) = message {
                    let _ = answer.send(Answer::Ok(serde_json::json!("answered")));
                }
            }
        });
        let status = b"{\"cmd\":\"status\"}\n";
        assert!(ask(&path, status).await.unwrap().contains("answered"));
        for garbage in [
            b"\n".as_slice(),
            b"{}\n",
            b"\xff\n",
            b"{\"cmd\":\"nope\"}\n",
        ] {
            assert!(ask(&path, garbage).await.unwrap().contains("not a request"));
        }
        let long = vec![b'a'; MAX_REQUEST + 1];
        assert!(ask(&path, &long).await.unwrap().contains("too long"));
        let mut idle = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            idle.push(UnixStream::connect(&path).await.unwrap());
        }
        // all places are taken: closed without an answer
        assert_eq!(ask(&path, status).await.unwrap_or_default(), "");
        drop(idle);
        while !matches!(ask(&path, status).await, Ok(answer) if answer.contains("answered")) {}
    }

    #[tokio::test]
    async fn only_the_program_for_streams_has_handshakes_signed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (inbox, mut messages, _reloads) = Inbox::new(Waker::new().unwrap());
        let key = Arc::new(SecretKey::from_seed(&[7; 32]));
        let serve = |name: &str, access| {
            let path = dir.path().join(name);
            let socket = ControlSocket::bind(&path, access).unwrap();
            let socket = socket.signing(key.clone());
            let inbox = inbox.clone();
            tokio::spawn(async move { socket.serve(inbox).await });
            path
        };
        let control = serve("c", Access::Control);
        let sign = serve("s", Access::Streams);
        let mode = std::fs::metadata(&sign).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "no group of the program is there");
        let request = |message: &[u8]| {
            let message = bs58::encode(message).into_string();
            format!("{{\"cmd\":\"sign\",\"message\":\"{message}\"}}\n")
        };
        let message = [&[b' '; 64][..], b"TLS 1.3, client CertificateVerify\0hash"].concat();
        let good = request(&message);
        let answer = ask(&sign, good.as_bytes()).await.unwrap();
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        let signature = bs58::decode(answer["ok"].as_str().unwrap()).into_vec();
        assert_eq!(signature.unwrap(), key.sign_tls13(&message).unwrap());
        for other in [&message[1..], b"lcroute 2026 certificate\0", b""] {
            let answer = ask(&sign, request(other).as_bytes()).await.unwrap();
            assert!(answer.contains("not what TLS"), "{answer}");
        }
        // both owners of keys get one secret, and it is not the agreed value itself
        let other = SecretKey::from_seed(&[9; 32]);
        let pair = format!("{{\"cmd\":\"pair\",\"node\":\"{}\"}}\n", other.peer_id());
        let answer = ask(&sign, pair.as_bytes()).await.unwrap();
        let secret = PairSecret::agree(&other, &key.peer_id()).unwrap();
        let secret = bs58::encode(secret.bytes()).into_string();
        assert!(answer.contains(&secret), "{answer}");
        let own = format!("{{\"cmd\":\"pair\",\"node\":\"{}\"}}\n", key.peer_id());
        let refused = ask(&sign, own.as_bytes()).await.unwrap();
        assert!(refused.contains("no secret"), "{refused}");
        let refused = ask(&control, pair.as_bytes()).await.unwrap();
        assert!(
            refused.contains("only the program for streams"),
            "{refused}"
        );
        let refused = ask(&control, good.as_bytes()).await.unwrap();
        assert!(
            refused.contains("only the program for streams"),
            "{refused}"
        );
        let refused = ask(&sign, b"{\"cmd\":\"reload\"}\n").await.unwrap();
        assert!(
            refused.contains("only the program for streams"),
            "{refused}"
        );
        // the record of its open key, of a present period alone
        let period = librecast::open::periods(&key.peer_id()).at(UnixTime::now());
        let record = bs58::encode([7; librecast::open_item::RECORD_LEN]).into_string();
        let item = |period: u64, record: &str| {
            format!(
                "{{\"cmd\":\"openitem\",\"item\":{{\"period\":{period},\"record\":\"{record}\"}}}}\n"
            )
        };
        let answer = ask(&sign, item(period, &record).as_bytes()).await.unwrap();
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        let signed: librecast::reach::Item = serde_json::from_value(answer["ok"].clone()).unwrap();
        let expected = librecast::open_item::key_of(&key.peer_id(), period);
        assert_eq!(signed.key, expected);
        let short = item(period, &bs58::encode([7; 511]).into_string());
        for refused in [item(period + 2, &record), short] {
            let answer = ask(&sign, refused.as_bytes()).await.unwrap();
            assert!(answer.contains("error"), "{answer}");
        }
        // registration ends with its connection
        let mut held = UnixStream::connect(&sign).await.unwrap();
        held.write_all(b"{\"cmd\":\"streams\"}\n").await.unwrap();
        assert!(matches!(
            messages.recv().await,
            Some(Message::Streams(true))
        ));
        drop(held);
        assert!(matches!(
            messages.recv().await,
            Some(Message::Streams(false))
        ));
    }

    #[tokio::test]
    async fn each_command_is_taken_on_its_sockets_alone() {
        let look = librecast::channel::look_group();
        let secret = librecast::text::encode(librecast::text::TextKind::SharedKey, &[7; 32]);
        let other = SecretKey::from_seed(&[9; 32]).peer_id();
        let pair = format!(r#"{{"cmd":"pair","node":"{other}"}}"#);
        let open = format!(r#"{{"cmd":"open","day_key":"{other}","until":9}}"#);
        let record = bs58::encode([7; librecast::open_item::RECORD_LEN]).into_string();
        let item = format!(r#"{{"cmd":"openitem","item":{{"period":9,"record":"{record}"}}}}"#);
        let private = format!(
            r#"{{"cmd":"private","prefix":"ff1e:7::/32","secrets":["{}"]}}"#,
            *secret
        );
        let table = [
            (r#"{"cmd":"status"}"#, "control view sign"),
            (r#"{"cmd":"drops"}"#, "control view"),
            (r#"{"cmd":"peers"}"#, "control view"),
            (r#"{"cmd":"probe"}"#, "control view"),
            (r#"{"cmd":"groups"}"#, "control view"),
            (r#"{"cmd":"lan"}"#, "control view"),
            (r#"{"cmd":"lanhost","address":"192.168.1.20"}"#, "control"),
            (r#"{"cmd":"watch"}"#, "control view"),
            (r#"{"cmd":"routes"}"#, "control"),
            (r#"{"cmd":"members"}"#, "control"),
            (r#"{"cmd":"member","node":"beta"}"#, "control sign"),
            (r#"{"cmd":"streams"}"#, "sign"),
            (r#"{"cmd":"sign","message":"x"}"#, "sign"),
            (&pair, "sign"),
            (&open, "sign"),
            (&item, "sign"),
            (r#"{"cmd":"ping","node":"beta"}"#, "control"),
            (r#"{"cmd":"announce","prefix":"ff1e:1::/32"}"#, "control"),
            (
                &format!(r#"{{"cmd":"announce","prefix":"{look}/128"}}"#),
                "control view",
            ),
            (&private, "keys"),
            (r#"{"cmd":"meet"}"#, "control"),
            (r#"{"cmd":"take","record":"x"}"#, "control"),
            (r#"{"cmd":"revoke","revocation":"x"}"#, "control"),
            (r#"{"cmd":"code"}"#, "control"),
            (
                r#"{"cmd":"invite","code":"x","ttl_s":1,"uses":null}"#,
                "control view",
            ),
            (r#"{"cmd":"reload"}"#, "control"),
            (r#"{"cmd":"reload","exec":true}"#, "control"),
        ];
        // the table is complete
        let unknown = serde_json::from_str::<Request>(r#"{"cmd":"?"}"#).unwrap_err();
        let unknown = unknown.to_string();
        let known: BTreeSet<_> = unknown.split('`').skip(3).step_by(2).collect();
        let command = |line: &&str| line.split('"').nth(3).unwrap().to_owned();
        let asked: BTreeSet<_> = table.iter().map(|(line, _)| command(line)).collect();
        assert_eq!(asked, known.into_iter().map(str::to_owned).collect());

        let dir = tempfile::tempdir().unwrap();
        let (inbox, mut messages, mut reloads) = Inbox::new(Waker::new().unwrap());
        tokio::spawn(async move {
            while let Some(message) = messages.recv().await {
                if let Message::Ask(_, answer) = message {
                    let _ = answer.send(Answer::Ok(serde_json::json!("answered")));
                }
            }
        });
        tokio::spawn(async move {
            while let Some(reload) = reloads.recv().await {
                let _ = reload.done.send(Ok(Reread::default()));
            }
        });
        for (name, access) in [
            ("control", Access::Control),
            ("view", Access::View),
            ("sign", Access::Streams),
            ("keys", Access::Keys),
        ] {
            let path = dir.path().join(name);
            let socket = ControlSocket::bind(&path, access).unwrap();
            let inbox = inbox.clone();
            tokio::spawn(async move { socket.serve(inbox).await });
            for (line, sockets) in &table {
                let answer = ask(&path, format!("{line}\n").as_bytes()).await.unwrap();
                let refusals = [
                    "not on this socket",
                    "only the program",
                    "takes secrets",
                    "keys.sock alone",
                ];
                let is_refused = refusals.iter().any(|refusal| answer.contains(refusal));
                assert!(!answer.contains("not a request"), "{line}: {answer}");
                assert_eq!(
                    !is_refused,
                    sockets.contains(name),
                    "{name}: {line}: {answer}"
                );
            }
        }
    }

    #[tokio::test]
    async fn secrets_hold_as_long_as_the_one_connection_that_gives_them() {
        let dir = tempfile::tempdir().unwrap();
        let (inbox, mut messages, _reloads) = Inbox::new(Waker::new().unwrap());
        let keys = dir.path().join("k");
        let socket = ControlSocket::bind(&keys, Access::Keys).unwrap();
        let given = socket.given.clone();
        tokio::spawn(async move { socket.serve(inbox).await });
        let (told, mut seen) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(message) = messages.recv().await {
                match message {
                    Message::Ask(Request::Private { prefix, secrets }, answer) => {
                        let _ = answer.send(match prefix.as_str() {
                            "ff1e:bad::/32" => Answer::Error("not private".into()),
                            _ => Answer::Ok(serde_json::json!({})),
                        });
                        told.send(format!("{prefix} {}", secrets.len())).unwrap();
                    }
                    Message::TakeBackSecrets(prefix) => told.send(format!("-{prefix}")).unwrap(),
                    _ => {}
                }
            }
        });
        let secret = librecast::text::encode(librecast::text::TextKind::SharedKey, &[7; 32]);
        let give = |prefix: &str, count| {
            let secrets = vec![&*secret; count];
            let request =
                serde_json::json!({"cmd": "private", "prefix": prefix, "secrets": secrets});
            format!("{request}\n")
        };
        let team = give("ff1e:7::/32", 2);
        for bad in [
            team.replace("lck1", "lct1"),
            give("x", 1),
            give("ff1e:7::/32", MAX_SECRETS + 1),
        ] {
            let refused = ask(&keys, bad.as_bytes()).await.unwrap();
            assert!(refused.contains("error"), "{refused}");
            assert!(!refused.contains(&secret[4..]), "a secret is told");
        }
        let mut holder = BufReader::new(UnixStream::connect(&keys).await.unwrap());
        let mut answer = String::new();
        for line in [&team, &give("ff1e:bad::/32", 1), &give("ff1e:7::/32", 1)] {
            holder.write_all(line.as_bytes()).await.unwrap();
            holder.read_line(&mut answer).await.unwrap();
        }
        assert!(answer.contains("not private"), "{answer}");
        // no other connection may give them now; refused prefixes are free
        let refused = ask(&keys, team.as_bytes()).await.unwrap();
        assert!(refused.contains("another program gives"), "{refused}");
        assert_eq!(given.lock().unwrap().len(), 1);
        drop(holder);
        let mut all = Vec::new();
        while all
            .last()
            .is_none_or(|last: &String| !last.starts_with('-'))
        {
            all.push(seen.recv().await.unwrap());
        }
        let expected = [
            "ff1e:7::/32 2",
            "ff1e:bad::/32 1",
            "ff1e:7::/32 1",
            "-ff1e:7::/32",
        ];
        assert_eq!(all, expected);
        while ask(&keys, team.as_bytes()).await.unwrap().contains("error") {}
    }

    #[tokio::test]
    async fn an_announcement_holds_as_long_as_its_connection_and_takes_nobodys_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c");
        let socket = ControlSocket::bind(&path, Access::Control).unwrap();
        let (inbox, mut messages, _reloads) = Inbox::new(Waker::new().unwrap());
        tokio::spawn(async move { socket.serve(inbox).await });
        let (told, mut seen) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(message) = messages.recv().await {
                match message {
                    Message::Ask(Request::Announce { prefix }, answer) => {
                        let _ = answer.send(match prefix.as_str() {
                            "ff1e:bad::/32" => Answer::Error("not permitted".into()),
                            _ => Answer::Ok(serde_json::json!({})),
                        });
                        told.send(format!("+{prefix}")).unwrap();
                    }
                    Message::Withdraw(prefix) => told.send(format!("-{prefix}")).unwrap(),
                    Message::Ask(_, answer) => {
                        let _ = answer.send(Answer::Ok(serde_json::json!("answered")));
                    }
                    _ => {}
                }
            }
        });
        let mut announcers = Vec::new();
        for n in 0..MAX_ANNOUNCERS {
            let mut stream = BufReader::new(UnixStream::connect(&path).await.unwrap());
            for prefix in [
                format!("ff1e:{n:x}::/32"),
                "ff1e:bad::/32".into(),
                "x".into(),
            ] {
                let line = format!("{{\"cmd\":\"announce\",\"prefix\":\"{prefix}\"}}\n");
                stream.write_all(line.as_bytes()).await.unwrap();
                let mut answer = String::new();
                stream.read_line(&mut answer).await.unwrap();
                assert_eq!(
                    answer.contains("ok"),
                    prefix != "ff1e:bad::/32" && prefix != "x"
                );
            }
            announcers.push(stream);
        }
        let more = b"{\"cmd\":\"announce\",\"prefix\":\"ff1e::/32\"}\n";
        assert!(
            ask(&path, more)
                .await
                .unwrap()
                .contains("too many programs")
        );
        let mut idle = Vec::new();
        for _ in 0..MAX_CONNECTIONS - 1 {
            idle.push(UnixStream::connect(&path).await.unwrap());
        }
        assert!(
            ask(&path, b"{\"cmd\":\"status\"}\n")
                .await
                .unwrap()
                .contains("answered")
        );
        drop(announcers.remove(3));
        loop {
            // refused prefixes are not withdrawn
            let seen = seen.recv().await.unwrap();
            if seen.starts_with('-') {
                assert_eq!(seen, "-ff1e:3::/32");
                break;
            }
        }
    }

    #[tokio::test]
    async fn the_view_socket_shows_and_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = lcroute_control::view_of(&dir.path().join("control.sock"));
        let socket = ControlSocket::bind(&path, Access::View).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!((mode & 0o777, path.ends_with("view.sock")), (0o660, true));
        let (inbox, mut messages, mut reloads) = Inbox::new(Waker::new().unwrap());
        tokio::spawn(async move { socket.serve(inbox).await });
        tokio::spawn(async move {
            while let Some(message) = messages.recv().await {
                if let Message::Ask(_, answer) = message {
                    let _ = answer.send(Answer::Ok(serde_json::json!("answered")));
                }
            }
        });
        let look = librecast::channel::look_group();
        let announce = |prefix: &str| format!(r#"{{"cmd":"announce","prefix":"{prefix}"}}"#);
        let shown = ["status", "peers", "groups", "lan", "watch"]
            .map(|cmd| format!(r#"{{"cmd":"{cmd}"}}"#));
        for line in shown.into_iter().chain([announce(&format!("{look}/128"))]) {
            let answer = ask(&path, format!("{line}\n").as_bytes()).await.unwrap();
            assert!(answer.contains("answered"), "{line}: {answer}");
        }
        let changing = [
            r#"{"cmd":"routes"}"#,
            r#"{"cmd":"members"}"#,
            r#"{"cmd":"ping","node":"beta"}"#,
            r#"{"cmd":"meet"}"#,
            r#"{"cmd":"take","record":"x"}"#,
            r#"{"cmd":"revoke","revocation":"x"}"#,
            r#"{"cmd":"reload"}"#,
            r#"{"cmd":"reload","exec":true}"#,
            &announce("ff1e:1::/32"),
            &announce("::/0"),
            &announce(&format!("{look}/127")),
            &announce("x"),
        ];
        for line in changing {
            let answer = ask(&path, format!("{line}\n").as_bytes()).await.unwrap();
            assert!(answer.contains("not on this socket"), "{line}: {answer}");
        }
        assert!(reloads.try_recv().is_err(), "nothing was reloaded");
    }

    #[tokio::test]
    async fn viewers_take_turns() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("view.sock");
        let socket = ControlSocket::bind(&path, Access::View).unwrap();
        let (inbox, mut messages, _reloads) = Inbox::new(Waker::new().unwrap());
        let start = tokio::time::Instant::now();
        tokio::spawn(async move { socket.serve(inbox).await });
        let (asked, mut times) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(message) = messages.recv().await {
                if let Message::Ask(_, answer) = message {
                    asked.send(tokio::time::Instant::now()).unwrap();
                    let _ = answer.send(Answer::Ok(serde_json::json!("answered")));
                }
            }
        });
        let mut viewers = Vec::new();
        for _ in 0..8 {
            let path = path.clone();
            viewers.push(tokio::spawn(async move {
                ask(&path, b"{\"cmd\":\"groups\"}\n").await
            }));
        }
        for viewer in viewers {
            assert!(viewer.await.unwrap().unwrap().contains("answered"));
        }
        let last = std::iter::from_fn(|| times.try_recv().ok()).last().unwrap();
        assert!(last - start >= 7 * VIEW_GAP, "{:?}", last - start);
    }

    #[tokio::test]
    async fn the_binary_is_executed_anew_only_when_it_may_and_the_answer_is_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c");
        let socket = ControlSocket::bind(&path, Access::Control).unwrap();
        let (inbox, mut messages, mut reloads) = Inbox::new(Waker::new().unwrap());
        tokio::spawn(async move { socket.serve(inbox).await });
        let request = b"{\"cmd\":\"reload\",\"exec\":true}\n";
        for verdict in [Err("bad file".to_owned()), Ok(Reread::default())] {
            let may = verdict.is_ok();
            let decide = async { reloads.recv().await.unwrap().done.send(verdict) };
            let (answer, decided) = tokio::join!(ask(&path, request), decide);
            decided.unwrap();
            assert_eq!(answer.unwrap().contains("ok"), may);
            if may {
                let stop = messages.recv().await;
                assert!(matches!(stop, Some(Message::Stop(End::Exec))), "{stop:?}");
            } else {
                assert!(messages.try_recv().is_err(), "refused, and yet executed");
            }
        }
    }
}
