//! Keys of no common network: who may call from there, who is sought, and the program that links
//! with them ([`librecast::outside`]).
//!
//! QUIC runs over packets to and from keys. Each key has an address that never leaves this process,
//! so connections are as those over `lc0`: the address belongs to the key that TLS proves.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use lcroute_control::Request;
use lcroute_control::status::Contact;
use librecast::channel::STREAM_PORT;
use librecast::id::{PeerId, SecretKey, derive};
use librecast::open::{STATEMENT_LEN, Statement, periods, until};
use librecast::open_item::{ItemAsk, ItemSigner, Record};
use librecast::outside::{
    Caller, Frame, FromOutside, OpenDay, OpenPlan, PairPlan, PairState, Place, Plan, Status,
    ToOutside, line_frame, packet_frame, read_frame,
};
use librecast::pair::PairSecret;
use librecast::reach::{Base58, Item};
use librecast::time::UnixTime;
use librecast_program::executable::start_on_socket;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, interval, sleep, timeout};

use crate::daemon::{AskError, Daemon};
use crate::identity::Sign;

/// Most keys that are named or sought: the length of a list of permitted nodes.
const MAX_KEYS: usize = 1_024;
/// Most callers of the open key: as many as the program admits.
const MAX_CALLERS: usize = 64;
/// Most periods whose records are signed at once: the present one, and its neighbours.
const MAX_PERIODS: usize = 3;
/// Interval of looks at the days of the open key.
const DAYS_INTERVAL: Duration = Duration::from_secs(30);
/// Packets that wait for the program, and for QUIC. Chosen: 10 ms of 100 Mbit/s each.
const PACKETS: usize = 1_024;
/// Time for which a key is sought. Chosen: what a user waits.
const SOUGHT_FOR: Duration = Duration::from_secs(30);
/// The same by a DHT.
const SOUGHT_BY_DHT: Duration = Duration::from_secs(130);
/// Time for which a link is kept after its last stream: as long as the connection of QUIC.
const LINGER: Duration = Duration::from_secs(60);
/// Time for which a link outlasts its last name: closed connections say so. Chosen.
const FAREWELL: Duration = Duration::from_millis(500);
/// Pause after a program that has ended at once.
const RETRY: Duration = Duration::from_secs(1);
/// Time limit for the program to accept frames.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Name of the program.
const PROGRAM: &str = "lcroute-outside";

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The key that this host has outside.
#[derive(Debug, Clone)]
pub enum Keys {
    /// The node's, in its daemon, which derives secrets and signs.
    Daemon(Daemon),
    /// The user's own.
    Own(Arc<SecretKey>),
}

impl Keys {
    async fn pair(&self, own: PeerId, other: PeerId) -> Result<PairSecret, String> {
        match self {
            Self::Own(key) => PairSecret::agree(key, &other).map_err(|e| e.to_string()),
            Self::Daemon(daemon) => {
                let secret = daemon
                    .ask::<Base58<32>>(&Request::Pair { node: other })
                    .await;
                let secret = secret.map_err(|e| match e {
                    AskError::Refused(why) | AskError::NoDaemon(why) => why,
                })?;
                Ok(PairSecret::of_bytes(secret.0.into(), own, other))
            }
        }
    }
}

impl Keys {
    /// Returns this host's statement about a key of the day.
    async fn open(&self, own: PeerId, day: PeerId, until: u64) -> Result<OpenStatement, String> {
        match self {
            Self::Own(key) => {
                let statement = Statement {
                    open: own,
                    day_key: day,
                    until,
                };
                let signed = statement.sign(key, UnixTime::now());
                signed
                    .map(Base58)
                    .ok_or_else(|| "a day that is too long".into())
            }
            Self::Daemon(daemon) => {
                let day_key = day;
                let signed = daemon.ask(&Request::Open { day_key, until }).await;
                signed.map_err(|e| match e {
                    AskError::Refused(why) | AskError::NoDaemon(why) => why,
                })
            }
        }
    }
}

impl Keys {
    /// Signs the record of this open key for a DHT.
    async fn item(&self, signer: &Mutex<ItemSigner>, item: ItemAsk) -> Result<Item, String> {
        let now = librecast::time::Instant::now();
        match self {
            Self::Own(key) => {
                let signed = lock(signer).sign(key, &item, UnixTime::now(), now);
                signed.map_err(|e| e.to_string())
            }
            // the daemon has bounds, too; this one spares it
            Self::Daemon(_) if !lock(signer).permits(now) => Err("too many".into()),
            Self::Daemon(daemon) => {
                let item = Box::new(item);
                let signed = daemon.ask(&Request::OpenItem { item }).await;
                signed.map_err(|e| match e {
                    AskError::Refused(why) | AskError::NoDaemon(why) => why,
                })
            }
        }
    }
}

type OpenStatement = Base58<STATEMENT_LEN>;

impl Sign for Keys {
    fn sign(&self, message: &[u8]) -> Result<[u8; 64], String> {
        match self {
            Self::Daemon(daemon) => daemon.sign(message),
            Self::Own(key) => {
                let signed = key.sign_tls13(message);
                signed.ok_or_else(|| "this is not what TLS 1.3 has a key sign".into())
            }
        }
    }
}

/// What this host wants of a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Want {
    /// Number of services that name it.
    named: usize,
    /// Streams to it that are wanted, or open.
    seeks: usize,
    places: Vec<Place>,
}

impl Want {
    fn is_wanted(&self) -> bool {
        self.named + self.seeks > 0
    }
}

#[derive(Debug, Default)]
struct State {
    /// Those that are not wanted any more keep their links for [`FAREWELL`].
    wants: BTreeMap<PeerId, Want>,
    /// Their addresses within this process.
    addresses: BTreeMap<Ipv6Addr, PeerId>,
    /// Names of keys in address books.
    names: BTreeMap<PeerId, String>,
    states: BTreeMap<PeerId, PairState>,
    status: Option<Status>,
    /// Number of services that anyone may use.
    open: usize,
    /// Callers of the open key by addresses within this process, with the keys they have proven.
    guests: BTreeMap<Ipv6Addr, OpenCaller>,
    /// Records of the open key that are to be signed, by their periods.
    records: BTreeMap<u64, Record>,
    /// Why no program is connected.
    absent: Option<String>,
}

impl State {
    fn is_used(&self) -> bool {
        !self.wants.is_empty() || self.open > 0
    }

    /// Returns what is wanted of a key; none if there is no room for another one.
    fn want(&mut self, key: PeerId) -> Option<&mut Want> {
        if !self.wants.contains_key(&key) && self.wants.len() >= MAX_KEYS {
            return None;
        }
        self.addresses.insert(address_of(&key), key);
        Some(self.wants.entry(key).or_default())
    }
}

/// Keys of no common network.
#[derive(Debug)]
pub struct Outside {
    own: PeerId,
    keys: Keys,
    path: PathBuf,
    /// Whether this program may start the other one.
    starts: bool,
    state: Mutex<State>,
    plan: watch::Sender<Plan>,
    /// Something is wanted, or not any more.
    changed: Notify,
    /// A pair's state has changed.
    told: watch::Sender<u64>,
    to_program: mpsc::Sender<Vec<u8>>,
    frames: tokio::sync::Mutex<mpsc::Receiver<Vec<u8>>>,
    inbox: Arc<Inbox>,
    signer: Mutex<ItemSigner>,
}

/// Returns the address of a key within this process.
pub fn address_of(key: &PeerId) -> Ipv6Addr {
    let hash = derive("lcroute 2026 outside address", &[key.public_key()]);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    // unique local, as those of lc0
    bytes[0] = 0xfd;
    bytes.into()
}

impl Outside {
    /// Returns the keys outside of this host's networks, none so far. The socket of the service is
    /// `path`; with `starts` a program is started where there is no service.
    pub fn new(own: PeerId, keys: Keys, path: PathBuf, plan: Plan, starts: bool) -> Arc<Self> {
        let (to_program, frames) = mpsc::channel(PACKETS);
        Arc::new(Self {
            own,
            keys,
            path,
            starts,
            state: Mutex::default(),
            plan: watch::Sender::new(plan),
            changed: Notify::new(),
            told: watch::Sender::new(0),
            to_program,
            frames: tokio::sync::Mutex::new(frames),
            inbox: Arc::default(),
            signer: Mutex::new(ItemSigner::new(librecast::time::Instant::now())),
        })
    }

    pub fn own(&self) -> PeerId {
        self.own
    }

    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    pub fn set_plan(&self, plan: Plan) {
        self.plan.send_if_modified(|known| {
            let is_new = *known != plan;
            *known = plan;
            is_new
        });
    }

    #[must_use]
    pub fn socket(self: &Arc<Self>) -> Arc<dyn AsyncUdpSocket> {
        Arc::new(KeySocket(Arc::clone(self)))
    }

    /// Names keys that may call, and no longer those before; returns keys that nobody names or
    /// seeks any more. `before` is the earlier list of the same service.
    pub fn rename(
        self: &Arc<Self>,
        before: &[PeerId],
        now: &[(PeerId, Option<Place>)],
    ) -> Vec<PeerId> {
        let mut state = lock(&self.state);
        for (key, place) in now {
            let Some(want) = state.want(*key) else {
                tracing::warn!("{key}: too many keys are named");
                continue;
            };
            want.named += 1;
            add_place(want, place.as_ref());
        }
        let mut gone = Vec::new();
        for key in before {
            if let Some(want) = state.wants.get_mut(key) {
                want.named = want.named.saturating_sub(1);
                if want.named == 0 {
                    gone.push(*key);
                }
            }
        }
        drop(state);
        self.changed.notify_one();
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) if !gone.is_empty() => {
                let outside = Arc::clone(self);
                runtime.spawn(async move {
                    sleep(FAREWELL).await;
                    outside.tidy();
                });
            }
            _ => self.tidy(),
        }
        gone
    }

    /// Notes one more service that anyone may use.
    pub fn open(&self) {
        lock(&self.state).open += 1;
        self.changed.notify_one();
    }

    /// Notes the end of such a service.
    pub fn close(self: &Arc<Self>) {
        let mut state = lock(&self.state);
        state.open = state.open.saturating_sub(1);
        drop(state);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let outside = Arc::clone(self);
            runtime.spawn(async move {
                // closed streams say so
                sleep(FAREWELL).await;
                outside.changed.notify_one();
            });
        }
    }

    /// Returns the prefix of a caller of the open key with this address.
    pub fn prefix_of(&self, address: &IpAddr) -> Option<String> {
        let IpAddr::V6(address) = address else {
            return None;
        };
        let state = lock(&self.state);
        Some(state.guests.get(address)?.prefix.clone())
    }

    /// Notes the key that a caller has proven; none for a second one.
    pub fn prove(&self, address: &IpAddr, peer: PeerId) -> Option<Contact> {
        let IpAddr::V6(address) = address else {
            return None;
        };
        let mut state = lock(&self.state);
        let caller = state.guests.get_mut(address)?;
        if *caller.proven.get_or_insert(peer) != peer {
            return None;
        }
        Some(guest(&state, *address, peer))
    }

    pub fn set_names(&self, names: impl Iterator<Item = (PeerId, String)>) {
        lock(&self.state).names.extend(names);
    }

    /// Returns whether somebody names or seeks this key.
    pub fn names(&self, key: &PeerId) -> bool {
        let state = lock(&self.state);
        state.wants.get(key).is_some_and(Want::is_wanted)
    }

    /// Seeks a key until the result is dropped; none if there is no room.
    pub fn seek(self: &Arc<Self>, key: PeerId, place: Option<&Place>) -> Option<Seek> {
        let mut state = lock(&self.state);
        let want = state.want(key)?;
        want.seeks += 1;
        add_place(want, place);
        drop(state);
        self.changed.notify_one();
        Some(Seek {
            outside: Arc::clone(self),
            key,
        })
    }

    /// Forgets keys that nobody wants.
    fn tidy(&self) {
        let mut state = lock(&self.state);
        state.wants.retain(|_, want| want.is_wanted());
        let State {
            wants,
            addresses,
            states,
            ..
        } = &mut *state;
        addresses.retain(|_, key| wants.contains_key(key));
        states.retain(|key, _| wants.contains_key(key));
        drop(state);
        self.changed.notify_one();
    }

    /// Returns a key as a node; an error for one that nobody names or seeks.
    pub fn contact(&self, node: &str) -> Result<Contact, AskError> {
        let state = lock(&self.state);
        let address = node.parse::<Ipv6Addr>();
        let known = address.as_ref().ok().and_then(|at| state.guests.get(at));
        if let (Some(known), Ok(address)) = (known, &address) {
            return Ok(guest(&state, *address, known.proven.unwrap_or(known.key)));
        }
        let key = match address {
            Ok(address) => state.addresses.get(&address).copied(),
            Err(_) => node.parse().ok(),
        };
        let is_wanted = |key: &PeerId| state.wants.get(key).is_some_and(Want::is_wanted);
        let Some(key) = key.filter(is_wanted) else {
            return Err(AskError::Refused(format!("{node} is not named here")));
        };
        let name = state.names.get(&key).cloned();
        Ok(Contact {
            peer_id: key,
            name: name.unwrap_or_else(|| key.to_string()),
            address: address_of(&key),
            labels: BTreeMap::new(),
            present: state.states.get(&key).is_some_and(is_linked),
            not_after: u64::MAX,
            // whether it has a program for streams only the streams tell
            streams: true,
        })
    }

    /// Returns the time for which a key is sought: what a user waits. By a DHT, who waits behind a
    /// closed firewall looks every two minutes.
    pub fn sought_for(&self) -> Duration {
        match self.plan.borrow().dht {
            Some(_) => SOUGHT_BY_DHT,
            None => SOUGHT_FOR,
        }
    }

    /// Waits until this key is linked; the error says how it was sought.
    pub async fn linked(&self, key: PeerId, within: Duration) -> Result<(), String> {
        let mut told = self.told.subscribe();
        let until = Instant::now() + within;
        loop {
            told.mark_unchanged();
            if lock(&self.state).states.get(&key).is_some_and(is_linked) {
                return Ok(());
            }
            let left = until.saturating_duration_since(Instant::now());
            match timeout(left, told.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Err(self.sought(&key, within)),
            }
        }
    }

    /// Says how a key was sought in vain.
    fn sought(&self, key: &PeerId, within: Duration) -> String {
        let state = lock(&self.state);
        let by = state.states.get(key).map(|state| state.by.join(", "));
        let by = by.filter(|by| !by.is_empty());
        let by = match (&by, &state.absent) {
            (Some(by), _) => format!("asked {by} for {} s", within.as_secs()),
            (None, Some(why)) => why.clone(),
            (None, None) => "nothing was asked".into(),
        };
        let plan = self.plan.borrow();
        let mut left = Vec::new();
        if plan.dht.is_none() {
            left.push("DHT ([outside] dht)");
        }
        let want = state.wants.get(key);
        match &plan.meet {
            None => left.push("a server ([signal] socks: it would see this host)"),
            Some(meet) if meet.is_empty() && want.is_none_or(|want| want.places.is_empty()) => {
                left.push("a server (KEY@PLACE, or [outside] meet)");
            }
            Some(_) => {}
        }
        let left = match left.is_empty() {
            true => String::new(),
            false => format!("; not asked: {}", left.join(", ")),
        };
        format!(
            "not found outside: {by}{left}. There it must be served with --outside to {}, or with --anyone",
            self.own
        )
    }

    /// Returns all pairs with their names, as `lcroute outside` shows them.
    pub fn look(&self) -> librecast::stream::OutsideLook {
        let state = lock(&self.state);
        let row = |(key, want): (&PeerId, &Want)| {
            let known = state.states.get(key);
            librecast::stream::OutsidePair {
                key: *key,
                name: state.names.get(key).cloned(),
                state: known.map_or_else(|| "waits".into(), |known| known.state.clone()),
                path: known.and_then(|known| known.path.clone()),
                rtt_ms: known.and_then(|known| known.rtt_ms),
                found_by: known.and_then(|known| known.found_by.clone()),
                by: known.map(|known| known.by.clone()).unwrap_or_default(),
                named: want.named > 0,
                sought: want.seeks > 0,
            }
        };
        let status = state.status.clone().unwrap_or_default();
        librecast::stream::OutsideLook {
            own: self.own,
            pairs: state.wants.iter().map(row).collect(),
            open: (state.open > 0).then(|| librecast::stream::OutsideOpen {
                // the registry has them
                protocols: Vec::new(),
                callers: state.guests.len(),
                most: MAX_CALLERS,
                by: status.open_by,
                reached: status.reached,
            }),
            drops: status.drops,
            absent: state.absent.clone().filter(|_| state.is_used()),
        }
    }

    /// Talks with the program while anything is wanted, until the future is dropped.
    pub async fn serve(self: &Arc<Self>) {
        loop {
            while !lock(&self.state).is_used() {
                self.changed.notified().await;
            }
            let Some(stream) = self.reach().await else {
                sleep(RETRY).await;
                continue;
            };
            lock(&self.state).absent = None;
            let begun = Instant::now();
            let ended = self.converse(stream).await;
            let why = ended.err().map(|e| format!(": {e}")).unwrap_or_default();
            tracing::warn!("{PROGRAM} has gone{why}");
            self.forget_links();
            self.told.send_modify(|n| *n += 1);
            if begun.elapsed() < RETRY {
                sleep(RETRY).await;
            }
        }
    }

    fn forget_links(&self) {
        let mut state = lock(&self.state);
        state.states.clear();
        state.guests.clear();
    }

    /// Reaches the service of the system, or starts a program of this one's own.
    async fn reach(&self) -> Option<UnixStream> {
        let reached = match UnixStream::connect(&self.path).await {
            Ok(stream) => Ok(stream),
            Err(_) if self.starts => start_on_socket(PROGRAM).and_then(UnixStream::from_std),
            Err(e) => Err(io::Error::new(
                e.kind(),
                format!("{e}: systemctl enable --now {PROGRAM}.socket"),
            )),
        };
        reached
            .map_err(|e| {
                let absent = format!("{PROGRAM} does not run: {e}");
                let mut state = lock(&self.state);
                if state.absent.as_ref() != Some(&absent) {
                    tracing::warn!("{absent}");
                    state.absent = Some(absent);
                }
            })
            .ok()
    }

    async fn converse(&self, mut stream: UnixStream) -> io::Result<()> {
        let mut frames = self.frames.lock().await;
        while frames.try_recv().is_ok() {}
        let mut plans = self.plan.subscribe();
        // before all others: it has the port
        let plan = plans.borrow_and_update().clone();
        say(&mut stream, &ToOutside::Plan(plan)).await?;
        let mut said: BTreeMap<PeerId, PairPlan> = BTreeMap::new();
        let mut buffer = BytesMut::with_capacity(64 * 1024);
        let mut opened = OpenPlan {
            own: self.own,
            days: Vec::new(),
            items: false,
        };
        let mut days = interval(DAYS_INTERVAL);
        self.changed.notify_one();
        loop {
            tokio::select! {
                read = stream.read_buf(&mut buffer) => {
                    if read? == 0 {
                        return Ok(());
                    }
                    while let Some(length) = self.handle_frame(&buffer)? {
                        drop(buffer.split_to(length));
                    }
                    self.sign_items(&mut stream).await?;
                }
                Some(frame) = frames.recv() => {
                    let mut batch = frame;
                    while batch.len() < 64 * 1024 && let Ok(frame) = frames.try_recv() {
                        batch.extend_from_slice(&frame);
                    }
                    write(&mut stream, &batch).await?;
                }
                _ = plans.changed() => {
                    let plan = plans.borrow_and_update().clone();
                    say(&mut stream, &ToOutside::Plan(plan)).await?;
                    self.say_open(&mut stream, &mut opened).await?;
                }
                () = self.changed.notified() => {
                    self.say_pairs(&mut stream, &mut said).await?;
                    self.say_open(&mut stream, &mut opened).await?;
                }
                _ = days.tick() => self.say_open(&mut stream, &mut opened).await?,
            }
        }
    }

    /// Tells the program of all that has changed.
    async fn say_pairs(
        &self,
        stream: &mut UnixStream,
        said: &mut BTreeMap<PeerId, PairPlan>,
    ) -> io::Result<()> {
        let wants = lock(&self.state).wants.clone();
        let gone: Vec<_> = said
            .keys()
            .filter(|key| !wants.contains_key(key))
            .copied()
            .collect();
        for key in gone {
            said.remove(&key);
            say(stream, &ToOutside::Gone(key)).await?;
        }
        for (key, want) in wants.into_iter().filter(|(_, want)| want.is_wanted()) {
            let known = said.get(&key).map(|pair| pair.secret);
            let secret = match known {
                Some(secret) => secret,
                None => match self.keys.pair(self.own, key).await {
                    Ok(secret) => Base58(*secret.bytes()),
                    Err(why) => {
                        tracing::warn!("{key}: no secret with it: {why}");
                        continue;
                    }
                },
            };
            let pair = PairPlan {
                own: self.own,
                key,
                secret,
                waits: want.named > 0,
                seeks: want.seeks > 0,
                places: want.places,
            };
            if said.get(&key) != Some(&pair) {
                say(stream, &ToOutside::Pair(pair.clone())).await?;
                said.insert(key, pair);
            }
        }
        Ok(())
    }

    /// Tells the program of the days of the open key, if they have changed.
    async fn say_open(&self, stream: &mut UnixStream, said: &mut OpenPlan) -> io::Result<()> {
        let is_open = lock(&self.state).open > 0;
        let held = match is_open {
            true => periods(&self.own).held(UnixTime::now()),
            false => Vec::new(),
        };
        let known: Vec<_> = said.days.iter().map(|day| day.period).collect();
        let items = is_open && self.plan.borrow().dht.is_some();
        if known == held && said.items == items {
            return Ok(());
        }
        let mut days = Vec::new();
        for period in held {
            if let Some(day) = said.days.iter().find(|day| day.period == period) {
                days.push(day.clone());
                continue;
            }
            let key = SecretKey::generate();
            let ends = until(&self.own, period);
            match self.keys.open(self.own, key.peer_id(), ends).await {
                Ok(statement) => days.push(OpenDay {
                    period,
                    seed: Base58(*key.seed()),
                    statement,
                }),
                // asked again soon
                Err(why) => {
                    tracing::warn!("no key of the day: {why}");
                    return Ok(());
                }
            }
        }
        (said.days, said.items) = (days, items);
        if !is_open {
            lock(&self.state).guests.clear();
        }
        say(stream, &ToOutside::Open(said.clone())).await
    }

    /// Has records of the open key signed, and hands the items to the program.
    async fn sign_items(&self, stream: &mut UnixStream) -> io::Result<()> {
        let records = std::mem::take(&mut lock(&self.state).records);
        for (period, record) in records {
            let asked = ItemAsk { period, record };
            match self.keys.item(&self.signer, asked).await {
                Ok(item) => say(stream, &ToOutside::Item(item)).await?,
                // it asks again
                Err(why) => tracing::warn!("no record of the open key for the DHT: {why}"),
            }
        }
        Ok(())
    }

    /// Handles the first frame; returns its length. None: it is incomplete.
    fn handle_frame(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        let bad = |e: librecast::wire::WireError| io::Error::other(e.to_string());
        let Some((frame, length)) = read_frame(bytes).map_err(bad)? else {
            return Ok(None);
        };
        match frame {
            Frame::Packet(key, packet) => {
                let state = lock(&self.state);
                let is_guest = state.guests.contains_key(&address_of(&key));
                if is_guest || state.wants.contains_key(&key) {
                    drop(state);
                    self.inbox.push(key, packet);
                }
            }
            Frame::Line(line) => match serde_json::from_slice(line)? {
                FromOutside::State(pair) => {
                    let mut state = lock(&self.state);
                    if state.wants.contains_key(&pair.key) {
                        state.states.insert(pair.key, pair);
                        drop(state);
                        self.told.send_modify(|n| *n += 1);
                    }
                }
                FromOutside::Guests(callers) => {
                    let mut state = lock(&self.state);
                    if state.open > 0 {
                        let before = std::mem::take(&mut state.guests);
                        let guest = |Caller { key, prefix }| {
                            let address = address_of(&key);
                            let known: Option<&OpenCaller> = before.get(&address);
                            let proven = known.and_then(|known| known.proven);
                            let caller = OpenCaller {
                                key,
                                proven,
                                prefix,
                            };
                            (address, caller)
                        };
                        let callers = callers.into_iter().take(MAX_CALLERS);
                        state.guests = callers.map(guest).collect();
                    }
                }
                FromOutside::Item(asked) => {
                    let mut state = lock(&self.state);
                    let is_known = state.records.contains_key(&asked.period);
                    let is_asked = self.plan.borrow().dht.is_some() && state.open > 0;
                    if is_asked && (is_known || state.records.len() < MAX_PERIODS) {
                        state.records.insert(asked.period, asked.record);
                    }
                }
                FromOutside::Status(status) => lock(&self.state).status = Some(status),
            },
        }
        Ok(Some(length))
    }
}

/// A caller of the open key.
#[derive(Debug)]
struct OpenCaller {
    /// Its key of this call.
    key: PeerId,
    /// The key that it has proven.
    proven: Option<PeerId>,
    prefix: String,
}

/// Returns a caller of the open key as a node.
fn guest(state: &State, address: Ipv6Addr, peer: PeerId) -> Contact {
    let name = state.names.get(&peer).cloned();
    Contact {
        peer_id: peer,
        name: name.unwrap_or_else(|| peer.to_string()),
        address,
        labels: BTreeMap::new(),
        // without its link it is none
        present: true,
        not_after: u64::MAX,
        streams: true,
    }
}

fn is_linked(state: &PairState) -> bool {
    state.state == "linked"
}

fn add_place(want: &mut Want, place: Option<&Place>) {
    let is_new = |place: &&Place| !want.places.contains(place);
    if let Some(place) = place.filter(is_new) {
        want.places.insert(0, place.clone());
        want.places.truncate(librecast::outside::MAX_PLACES);
    }
}

/// A key that is sought, until a minute after this is dropped.
#[derive(Debug)]
pub struct Seek {
    outside: Arc<Outside>,
    key: PeerId,
}

impl Drop for Seek {
    fn drop(&mut self) {
        let (outside, key) = (Arc::clone(&self.outside), self.key);
        // the next stream finds the link; at the program's end there is no runtime, and no link
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let linked = lock(&outside.state).states.get(&key).is_some_and(is_linked);
                if linked {
                    sleep(LINGER).await;
                }
                if let Some(want) = lock(&outside.state).wants.get_mut(&key) {
                    want.seeks = want.seeks.saturating_sub(1);
                }
                outside.tidy();
            });
        }
    }
}

async fn say(stream: &mut UnixStream, line: &ToOutside) -> io::Result<()> {
    let frame = line_frame(line).ok_or(io::ErrorKind::InvalidData)?;
    write(stream, &frame).await
}

async fn write(stream: &mut UnixStream, bytes: &[u8]) -> io::Result<()> {
    timeout(WRITE_TIMEOUT, stream.write_all(bytes)).await?
}

/// Packets for QUIC.
#[derive(Debug, Default)]
struct Inbox(Mutex<Waiting>);

/// Packets of keys, and their receivers.
type Waiting = (VecDeque<(PeerId, Bytes)>, Option<Waker>);

impl Inbox {
    fn push(&self, key: PeerId, packet: &[u8]) {
        let mut inbox = lock(&self.0);
        // QUIC sends again what finds no room
        if inbox.0.len() < PACKETS {
            inbox.0.push_back((key, Bytes::copy_from_slice(packet)));
        }
        if let Some(waker) = inbox.1.take() {
            waker.wake();
        }
    }
}

/// The socket of QUIC: packets to and from keys.
#[derive(Debug)]
struct KeySocket(Arc<Outside>);

/// Packets are dropped where they find no room, as on a network.
#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncUdpSocket for KeySocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let key = match transmit.destination.ip() {
            IpAddr::V6(to) => {
                let state = lock(&self.0.state);
                let guest = state.guests.get(&to).map(|guest| guest.key);
                guest.or_else(|| state.addresses.get(&to).copied())
            }
            IpAddr::V4(_) => None,
        };
        if let Some(frame) = key.and_then(|key| packet_frame(&key, transmit.contents)) {
            // QUIC sends again what finds no room
            let _ = self.0.to_program.try_send(frame);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut inbox = lock(&self.0.inbox.0);
        let mut count = 0;
        while count < bufs.len().min(meta.len()) {
            let Some((key, packet)) = inbox.0.pop_front() else {
                break;
            };
            let length = packet.len().min(bufs[count].len());
            bufs[count][..length].copy_from_slice(&packet[..length]);
            let addr = SocketAddr::from((address_of(&key), STREAM_PORT));
            meta[count] = RecvMeta {
                addr,
                len: length,
                stride: length,
                ecn: None,
                dst_ip: None,
            };
            count += 1;
        }
        if count > 0 {
            return Poll::Ready(Ok(count));
        }
        inbox.1 = Some(cx.waker().clone());
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::from((address_of(&self.0.own), STREAM_PORT)))
    }

    fn may_fragment(&self) -> bool {
        false
    }
}
