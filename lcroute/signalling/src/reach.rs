//! A DHT and a Matrix room as carriers, through `lcroute-reach`: an unprivileged program beside the
//! daemon, which alone parses input from strangers on the Internet.
//!
//! The daemon listens on `reach.sock`, and sends the items to hold and the keys to look up
//! ([`librecast::reach`]). It signs the items, and handles replies as presence records of unknown
//! origin. Without the program, its doors show that.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use lcroute_overlay::{CarrierId, CarrierKind, Published, Rendezvous, RendezvousEpochs, Sought};
use librecast::id::{NetworkId, PeerId, SecretKey};
use librecast::reach::{
    AccessToken, Base58, Keep, Key, MAX_LINE, Meeting, Plan, Room, RoomState, State, ToReach, Value,
};
use librecast::time::UnixTime;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep_until, timeout};

use crate::carrier::{Carrier, CarrierEvent, Pace, PathChange};
use crate::reach_line::{self, Said};

/// Interval at which names are checked, which change daily.
const NAMES: Duration = Duration::from_secs(60);
/// First pause before a new node signs its record again, doubled each time: a mailbox holds only
/// the last one. Chosen: an issuer looks again after 4 and 8 s if it has just found a node.
const SIGN_AGAIN: Duration = Duration::from_secs(8);
/// Longest such pause: an issuer that is away for days costs some 40 kB an hour.
const LAST_SIGN_AGAIN: Duration = Duration::from_secs(3_600);
/// Seconds of a day: names change with it.
const DAY: u64 = 86_400;
/// Maximum number of keys that are looked up. Chosen: twice those of eight nodes.
const SOUGHT_KEYS: usize = 32;
/// Number of former epochs for look-ups, the latest ones. Chosen: with the newest one they give
/// eight nodes as many keys as a plan may have.
const FORMER: usize = 3;
/// Time limit for the program to accept a line. Chosen: a thousand times its usual time.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after a failed accept, most likely for want of file descriptors.
const RETRY: Duration = Duration::from_millis(100);
/// Text of doors without a connected program.
const ABSENT: &str = "lcroute-reach does not run: systemctl enable --now lcroute-reach";

/// The way to the program.
#[derive(Debug)]
pub enum ReachProgram {
    /// A service, which connects to this socket.
    Service(ReachSocket),
    /// A child, which has the other end.
    Child(StdStream),
}

/// The socket for the program; dropping it removes the file.
#[derive(Debug)]
pub struct ReachSocket {
    /// The bound socket, with rights for the program alone.
    pub listener: StdListener,
    /// Its path.
    pub path: PathBuf,
}

impl Drop for ReachSocket {
    fn drop(&mut self) {
        // the file may be removed already
        let _ = std::fs::remove_file(&self.path);
    }
}

/// An account of Matrix, and the room where its nodes meet other nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// `https://HOST` of its server.
    pub homeserver: String,
    /// The room.
    pub room: Room,
    /// Its name, if it is to be verified.
    pub user: Option<String>,
    /// The token with which lcroute-reach acts for it.
    pub token: AccessToken,
}

/// The ids of the program's carriers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReachIds {
    pub(crate) dht: CarrierId,
    pub(crate) matrix: CarrierId,
}

/// The inputs of a plan.
#[derive(Debug, Clone, Default)]
struct Wish {
    /// Entry nodes of the DHT, if it is used.
    dht: Option<Vec<String>>,
    account: Option<Account>,
    record: Option<Published>,
    seeking: Sought,
    /// Nodes that this node has searched for in vain for a while.
    in_vain: BTreeSet<PeerId>,
    round: u64,
}

/// The state of both carriers, as the program reports it.
#[derive(Debug, Default)]
struct Standing {
    dht: State,
    room: RoomState,
}

/// The DHT and the room, through the program.
#[derive(Debug)]
pub struct Reach {
    wish: watch::Sender<Wish>,
    state: Arc<RwLock<Option<Standing>>>,
    task: JoinHandle<()>,
}

impl Drop for Reach {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Reach {
    /// Speaks with the program; to be called within a tokio runtime.
    pub(crate) fn start(
        ids: ReachIds,
        program: ReachProgram,
        (key, network): (Arc<SecretKey>, NetworkId),
        events: mpsc::Sender<CarrierEvent>,
    ) -> Self {
        let (wish, wishes) = watch::channel(Wish::default());
        let state = Arc::new(RwLock::new(None));
        let mut service = Service {
            ids,
            key,
            network,
            wishes,
            state: state.clone(),
            events,
        };
        let task = tokio::spawn(async move {
            match program {
                ReachProgram::Service(socket) => {
                    if let Err(e) = service.serve(&socket).await {
                        tracing::error!("{}: {e}", socket.path.display());
                    }
                }
                ReachProgram::Child(stream) => match UnixStream::from_std(stream) {
                    Ok(stream) => service.attend(stream).await,
                    Err(e) => tracing::error!("lcroute-reach: {e}"),
                },
            }
        });
        Self { wish, state, task }
    }

    /// Sets the entry nodes of the DHT, or none, and the account of the room, or none.
    pub(crate) fn set(&self, dht: Option<&[String]>, account: Option<&Account>) {
        self.wish.send_if_modified(|wish| {
            let is_new = wish.dht.as_deref() != dht || wish.account.as_ref() != account;
            wish.dht = dht.map(<[String]>::to_vec);
            wish.account = account.cloned();
            is_new
        });
    }

    pub(crate) fn uses_dht(&self) -> bool {
        self.wish.borrow().dht.is_some()
    }

    pub(crate) fn room(&self) -> Option<Room> {
        let wish = self.wish.borrow();
        wish.account.as_ref().map(|account| account.room.clone())
    }

    pub(crate) fn seek(&self, seeking: &Sought) {
        let seeking = seeking.clone();
        self.wish.send_modify(|wish| wish.seeking = seeking);
    }

    /// Returns whether nodes of the DHT answer, with a note.
    pub(crate) fn dht_standing(&self) -> (bool, String) {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let Some(Standing { dht: state, .. }) = &*state else {
            return (false, ABSENT.into());
        };
        if state.nodes == 0 {
            return (false, "no node of it answers".into());
        }
        let mut note = format!("{} nodes, {} records held", state.nodes, state.held);
        add_dropped(&mut note, &state.dropped);
        (true, note)
    }

    /// Returns this host's address as nodes of the DHT see it, if its NAT keeps ports.
    pub(crate) fn outer_address(&self) -> Option<Ipv4Addr> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.as_ref()?.dht.outer
    }

    /// Returns whether other nodes find this node in the room, with a note.
    pub(crate) fn room_standing(&self) -> (bool, String) {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let Some(Standing { room: state, .. }) = &*state else {
            return (false, ABSENT.into());
        };
        let mut note = match (&state.problem, state.open) {
            (Some(problem), _) => problem.clone(),
            (None, false) => "it is being entered".into(),
            (None, true) => format!("records of others: {}", state.values),
        };
        add_dropped(&mut note, &state.dropped);
        (state.open, note)
    }
}

fn add_dropped(note: &mut String, dropped: &BTreeMap<String, u64>) {
    for (reason, count) in dropped {
        *note += &format!(", dropped {count} {reason}");
    }
}

impl Carrier for Reach {
    fn pace(&self) -> Pace {
        Pace::Slow
    }

    fn publish(&self, record: &Published) {
        let record = record.clone();
        self.wish.send_modify(|wish| wish.record = Some(record));
    }

    fn path_changed(&self, change: PathChange) {
        // members that are lost with a link are sought anyway
        if change == PathChange::Addresses {
            self.wish.send_modify(|wish| wish.round += 1);
        }
    }
}

fn meeting(wish: &Wish) -> Option<Meeting> {
    let account = wish.account.clone()?;
    let keep = wish.record.as_ref().map(|record| Keep {
        name: Base58(record.name),
        value: Value(record.sealed.to_vec()),
        until: record.until,
    });
    Some(Meeting {
        homeserver: account.homeserver,
        room: account.room,
        user: account.user,
        token: account.token,
        keep,
        round: wish.round,
    })
}

/// The signatures of a new node's record for a mailbox: the last one, and the time of the next.
#[derive(Debug)]
struct Newcomer {
    issuer: Option<PeerId>,
    signed: u64,
    pause: Duration,
    next: Instant,
}

impl Newcomer {
    fn new(issuer: Option<PeerId>, time: UnixTime, now: Instant) -> Self {
        Self {
            issuer,
            signed: time.as_secs(),
            pause: SIGN_AGAIN,
            next: now + SIGN_AGAIN,
        }
    }

    fn signed(&mut self, issuer: Option<PeerId>, time: UnixTime, now: Instant) -> u64 {
        if self.issuer != issuer {
            *self = Self::new(issuer, time, now);
        } else if self.next <= now {
            self.signed = time.as_secs().max(self.signed + 1);
            self.pause = (self.pause * 2).min(LAST_SIGN_AGAIN);
            self.next = now + self.pause;
        }
        self.signed
    }

    /// Completes when the next signature is due.
    async fn is_due(&self) {
        match self.issuer {
            Some(_) => sleep_until(self.next).await,
            None => std::future::pending().await,
        }
    }
}

/// Returns the plan for the DHT at the time `time`; items for a mailbox have the time `signed`.
fn plan(
    wish: &Wish,
    (network, key): (&NetworkId, &SecretKey),
    (time, signed): (UnixTime, u64),
) -> Option<Plan> {
    let bootstrap = wish.dht.clone()?;
    let seeking = &wish.seeking;
    let mut hold = Vec::new();
    if let Some(record) = &wish.record {
        hold.extend(record.epoch.items(key, record, time));
        let mailbox = seeking.issuer.as_ref();
        hold.extend(mailbox.into_iter().flat_map(|of| {
            let items = record.epoch.mailbox_items(of, (record, signed), time);
            items.into_iter()
        }));
    }
    let epochs = seeking.epochs.clone();
    let epochs = epochs.unwrap_or(RendezvousEpochs::new(*network));
    // members that were away since an expulsion are under former names
    let former = epochs.former().iter().take(FORMER);
    let newest = epochs.newest();
    let epochs: Vec<&Rendezvous> = [newest].into_iter().chain(former).collect();
    let keys_of = |peer: &PeerId| {
        let peer = *peer;
        epochs.iter().map(move |epoch| epoch.key_of(&peer, time))
    };
    // a clock that is wrong by half a day or more gives other days: nodes found there learn of it
    let in_vain = seeking.peers.iter().filter(|p| wish.in_vain.contains(p));
    let seconds = time.as_secs();
    let days = [seconds.saturating_sub(DAY), seconds.saturating_add(DAY)];
    let other_days =
        in_vain.flat_map(|peer| days.map(|day| newest.key_of(peer, UnixTime::from_secs(day))));
    let seek = seeking
        .peers
        .iter()
        .flat_map(keys_of)
        .chain(other_days)
        .take(SOUGHT_KEYS);
    let own = key.peer_id();
    let watch = epochs.iter().filter(|_| seeking.invites);
    Some(Plan {
        bootstrap,
        hold,
        seek: seek.collect(),
        watch: watch.map(|epoch| epoch.mailbox_of(&own, time)).collect(),
        round: wish.round,
    })
}

struct Service {
    ids: ReachIds,
    key: Arc<SecretKey>,
    network: NetworkId,
    wishes: watch::Receiver<Wish>,
    state: Arc<RwLock<Option<Standing>>>,
    events: mpsc::Sender<CarrierEvent>,
}

impl Service {
    async fn serve(&mut self, socket: &ReachSocket) -> io::Result<()> {
        let listener = UnixListener::from_std(socket.listener.try_clone()?)?;
        loop {
            let stream = accept(&listener).await;
            tokio::select! {
                () = self.attend(stream) => {}
                () = refuse(&listener) => {}
            }
        }
    }

    /// Returns when the program has gone.
    async fn attend(&mut self, stream: UnixStream) {
        tracing::info!("lcroute-reach has connected");
        let ended = self.converse(stream).await;
        let why = ended.err().map(|e| format!(": {e}")).unwrap_or_default();
        tracing::warn!("lcroute-reach has gone{why}");
        self.change(|state| *state = None).await;
    }

    /// Returns when the program has gone, or sent an invalid line.
    async fn converse(&mut self, stream: UnixStream) -> io::Result<()> {
        let (read, mut write) = stream.into_split();
        let mut lines = Lines::new(read);
        let mut names = interval(NAMES);
        let mut newcomer = Newcomer::new(None, UnixTime::now(), Instant::now());
        let (mut sought, mut in_vain) = (BTreeSet::new(), BTreeSet::new());
        let (mut said, mut asked) = ((None, None), BTreeSet::new());
        self.change(|state| *state = Some(Standing::default()))
            .await;
        self.wishes.mark_changed();
        loop {
            let line = tokio::select! {
                line = lines.next() => Some(line?),
                changed = self.wishes.changed() => match changed {
                    Ok(()) => None,
                    Err(_) => return Ok(()),
                },
                _ = names.tick() => {
                    // nodes of the last round that are still sought
                    let now: BTreeSet<_> = self.wishes.borrow().seeking.peers.iter().copied().collect();
                    in_vain = now.intersection(&sought).copied().collect();
                    sought = now;
                    None
                }
                () = newcomer.is_due() => None,
            };
            if let Some(line) = line {
                if line.is_empty() {
                    return Ok(());
                }
                self.handle(&line, &asked).await?;
                continue;
            }
            let mut wish = self.wishes.borrow_and_update().clone();
            wish.in_vain.clone_from(&in_vain);
            let time = UnixTime::now();
            let signed = newcomer.signed(wish.seeking.issuer, time, Instant::now());
            let plan = plan(&wish, (&self.network, &self.key), (time, signed));
            if said.0 != plan {
                let keys = plan
                    .iter()
                    .flat_map(|plan| plan.seek.iter().chain(&plan.watch));
                asked = keys.copied().collect();
                send(&mut write, &ToReach::Plan(plan.clone())).await?;
                said.0 = plan;
            }
            let meeting = meeting(&wish);
            if said.1 != meeting {
                let line = ToReach::Matrix(meeting.clone().map(Box::new));
                send(&mut write, &line).await?;
                said.1 = meeting;
            }
        }
    }

    async fn handle(&self, line: &[u8], asked: &BTreeSet<Key>) -> io::Result<()> {
        let has_room = self.wishes.borrow().account.is_some();
        match reach_line::read(line, asked, has_room)? {
            None => tracing::debug!("lcroute-reach: nobody asked for this"),
            Some(Said::Record { kind, name, sealed }) => {
                let carrier = match kind {
                    CarrierKind::Matrix => self.ids.matrix,
                    _ => self.ids.dht,
                };
                let record = CarrierEvent::Record {
                    carrier,
                    kind,
                    name,
                    sealed,
                };
                self.tell(record).await;
            }
            Some(Said::Dht(state)) => {
                self.change(|standing| standing.get_or_insert_default().dht = state)
                    .await;
            }
            Some(Said::Room(state)) => {
                self.change(|standing| standing.get_or_insert_default().room = state)
                    .await;
            }
        }
        Ok(())
    }

    async fn change(&self, change: impl FnOnce(&mut Option<Standing>)) {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner));
        self.tell(CarrierEvent::Doors).await;
    }

    async fn tell(&self, event: CarrierEvent) {
        // fails only while the daemon ends, and this task with it
        let _ = self.events.send(event).await;
    }
}

async fn accept(listener: &UnixListener) -> UnixStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(e) => {
                tracing::warn!("socket of lcroute-reach: {e}");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Refuses further programs while one is connected.
async fn refuse(listener: &UnixListener) {
    loop {
        let (_, mut write) = accept(listener).await.into_split();
        let error = ToReach::Error("another lcroute-reach is connected".into());
        // the program may have gone
        let _ = send(&mut write, &error).await;
    }
}

async fn send(write: &mut OwnedWriteHalf, line: &ToReach) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    timeout(WRITE_TIMEOUT, write.write_all(&text)).await?
}

/// Lines of bounded length; a partial line is kept while other events are handled.
pub(crate) struct Lines {
    read: BufReader<OwnedReadHalf>,
    line: Vec<u8>,
}

impl Lines {
    pub(crate) fn new(read: OwnedReadHalf) -> Self {
        Self {
            read: BufReader::new(read),
            line: Vec::new(),
        }
    }

    /// Returns the next line; an empty one at the end. Cancel-safe.
    pub(crate) async fn next(&mut self) -> io::Result<Vec<u8>> {
        let room = (MAX_LINE + 1).saturating_sub(self.line.len()) as u64;
        let mut limited = (&mut self.read).take(room);
        limited.read_until(b'\n', &mut self.line).await?;
        if self.line.len() > MAX_LINE {
            return Err(io::Error::other("a line that is too long"));
        }
        Ok(std::mem::take(&mut self.line))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileTypeExt;

    use librecast::epoch::EpochSecret;
    use librecast::reach::{Base58, FromReach, Item, Value};

    use super::*;
    use crate::reach_line::MAX_TEXT;

    const NOON: u64 = 1_800_000_000 / 86_400 * 86_400 + 43_200;

    fn key(n: u8) -> SecretKey {
        SecretKey::from_seed(&[n; 32])
    }

    fn wish() -> Wish {
        let record = Published {
            name: [1; 32],
            sealed: vec![1; 256].into(),
            until: NOON,
            epoch: Rendezvous::new(key(9).peer_id()),
        };
        Wish {
            dht: Some(Vec::new()),
            record: Some(record),
            ..Wish::default()
        }
    }

    #[test]
    fn a_newcomer_signs_anew_more_and_more_rarely_as_long_as_it_is_one() {
        let (begin, issuer) = (Instant::now(), Some(key(1).peer_id()));
        let mut newcomer = Newcomer::new(None, UnixTime::from_secs(NOON), begin);
        assert_eq!(
            newcomer.signed(issuer, UnixTime::from_secs(NOON), begin),
            NOON
        );
        let mut last = NOON;
        let times: Vec<_> = (0..12)
            .map(|_| {
                let now = newcomer.next;
                // even if the clock was set back
                let signed = newcomer.signed(issuer, UnixTime::from_secs(NOON), now);
                assert!(signed > last);
                last = signed;
                (now - begin).as_secs()
            })
            .collect();
        assert_eq!(
            (&times[..4], times[11] - times[10]),
            (&[8, 24, 56, 120][..], 3_600)
        );
        // linked, and alone again
        let now = Instant::now();
        assert_eq!(
            newcomer.signed(None, UnixTime::from_secs(NOON + 9), now),
            NOON + 9
        );
        assert_eq!(
            newcomer.signed(issuer, UnixTime::from_secs(NOON + 99), now),
            NOON + 99
        );
        assert_eq!(newcomer.next, now + SIGN_AGAIN);
    }

    #[test]
    fn a_newcomer_is_held_in_the_mailbox_that_its_issuer_watches() {
        let network = key(9).peer_id();
        let (issuer, newcomer) = (key(1), key(2));
        let mut wish = wish();
        wish.seeking.peers = vec![issuer.peer_id()];
        let linked = plan(
            &wish,
            (&network, &newcomer),
            (UnixTime::from_secs(NOON), NOON),
        )
        .unwrap();
        assert_eq!((linked.hold.len(), linked.seek.len()), (2, 1));
        wish.seeking.issuer = Some(issuer.peer_id());
        let alone = plan(
            &wish,
            (&network, &newcomer),
            (UnixTime::from_secs(NOON), NOON),
        )
        .unwrap();
        assert!(alone.is_bounded() && alone.hold.len() == 4);
        wish.seeking = Sought {
            invites: true,
            ..Sought::default()
        };
        let inviting = plan(
            &wish,
            (&network, &issuer),
            (UnixTime::from_secs(NOON), NOON),
        )
        .unwrap();
        let holds = |key: &Key, item: &Item| item.key == *key;
        let mailbox = &inviting.watch[0];
        assert!(alone.hold.iter().any(|item| holds(mailbox, item)));
        assert!(!linked.hold.iter().any(|item| holds(mailbox, item)));
        let own = &alone.seek[0];
        assert!(inviting.hold.iter().any(|item| holds(own, item)));
    }

    #[test]
    fn who_is_looked_for_in_vain_is_found_by_a_clock_that_is_a_day_and_a_half_off() {
        let network = key(9).peer_id();
        let own = key(2);
        let mut wish = wish();
        wish.seeking.peers = (10..20).map(|n| key(n).peer_id()).collect();
        let plan_of = |wish: &Wish, time| {
            let at = UnixTime::from_secs(time);
            plan(wish, (&network, &own), (at, time)).unwrap()
        };
        let of_today = plan_of(&wish, NOON);
        wish.in_vain = [key(10).peer_id(), key(1).peer_id()].into();
        let of_three_days = plan_of(&wish, NOON);
        let (today, others) = of_three_days.seek.split_at(10);
        assert_eq!((today, others.len()), (&of_today.seek[..], 2));
        let mut sought = wish.clone();
        sought.seeking.peers = vec![own.peer_id()];
        sought.in_vain = [own.peer_id()].into();
        for ahead in [26 * 3_600, 36 * 3_600 - 1] {
            let held = plan_of(&wish, NOON + ahead).hold;
            let looks = plan_of(&sought, NOON).seek;
            assert!(held.iter().any(|item| looks.contains(&item.key)));
            let (held, looks) = (
                plan_of(&wish, NOON).hold,
                plan_of(&sought, NOON + ahead).seek,
            );
            assert!(held.iter().any(|item| looks.contains(&item.key)));
        }
        wish.in_vain = wish.seeking.peers.iter().copied().collect();
        wish.seeking.peers = (10..30).map(|n| key(n).peer_id()).collect();
        assert!(plan_of(&wish, NOON).is_bounded());
    }

    #[test]
    fn an_expelled_node_finds_no_name_and_who_was_away_is_found_by_a_former_one() {
        let network = key(9).peer_id();
        let with = |secrets: &[u8]| {
            let secrets = secrets.iter().map(|b| EpochSecret::new([*b; 32]));
            RendezvousEpochs::with(network, secrets)
        };
        let plan_of = |own: u8, other: u8, epochs: &RendezvousEpochs, invites: bool| {
            let mut wish = wish();
            wish.record.as_mut().unwrap().epoch = epochs.newest().clone();
            wish.seeking = Sought {
                issuer: (!invites).then(|| key(other).peer_id()),
                peers: vec![key(other).peer_id()],
                invites,
                epochs: Some(epochs.clone()),
            };
            plan(
                &wish,
                (&network, &key(own)),
                (UnixTime::from_secs(NOON), NOON),
            )
            .unwrap()
        };
        let meets = |plan: &Plan, other: &Plan| {
            let mut looked_up = plan.seek.iter().chain(&plan.watch);
            looked_up.any(|key| other.hold.iter().any(|item| item.key == *key))
        };
        let (before, now) = (with(&[1]), with(&[3, 2, 1]));
        let issuer = plan_of(1, 2, &now, true);
        assert!(issuer.is_bounded());
        // both have the same keys, and know different epochs
        let (member, expelled) = (plan_of(2, 1, &now, false), plan_of(2, 1, &before, false));
        assert!(meets(&issuer, &member) && meets(&member, &issuer));
        assert!(
            !meets(&expelled, &issuer),
            "nothing that it looks up is there"
        );
        assert!(meets(&issuer, &expelled), "a former name is looked up");
        let old = plan_of(2, 1, &with(&[]), false);
        assert!(
            !meets(&old, &issuer) && meets(&issuer, &old),
            "epoch 0 is the last"
        );
        // the maximum number of nodes, each under four names
        let many = with(&[9, 8, 7, 6, 5, 4, 3, 2, 1]);
        let mut wish = wish();
        wish.seeking.peers = (10..18).map(|n| key(n).peer_id()).collect();
        wish.seeking.epochs = Some(many);
        let plan = plan(
            &wish,
            (&network, &key(1)),
            (UnixTime::from_secs(NOON), NOON),
        )
        .unwrap();
        assert!(plan.is_bounded() && plan.seek.len() == SOUGHT_KEYS);
    }

    struct World {
        folder: tempfile::TempDir,
        reach: Reach,
        events: mpsc::Receiver<CarrierEvent>,
    }

    impl World {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("reach.sock");
            let listener = StdListener::bind(&path).unwrap();
            listener.set_nonblocking(true).unwrap();
            let (sender, events) = mpsc::channel(64);
            let me = (Arc::new(key(1)), key(9).peer_id());
            let reach = {
                let ids = ReachIds {
                    dht: CarrierId(1),
                    matrix: CarrierId(2),
                };
                let program = ReachProgram::Service(ReachSocket { listener, path });
                Reach::start(ids, program, me, sender)
            };
            reach.set(Some(&[]), None);
            Self {
                folder,
                reach,
                events,
            }
        }

        async fn connect(&self) -> BufReader<UnixStream> {
            let path = self.folder.path().join("reach.sock");
            BufReader::new(UnixStream::connect(path).await.unwrap())
        }

        async fn record(&mut self) -> (String, Vec<u8>) {
            loop {
                match self.events.recv().await.unwrap() {
                    CarrierEvent::Doors => {}
                    CarrierEvent::Record { name, sealed, .. } => return (name, sealed),
                    other => panic!("{other:?}"),
                }
            }
        }

        async fn wait_note(&mut self, part: &str) {
            while !self.reach.dht_standing().1.contains(part) {
                assert!(matches!(
                    self.events.recv().await,
                    Some(CarrierEvent::Doors)
                ));
            }
        }
    }

    async fn line(stream: &mut BufReader<UnixStream>) -> Option<ToReach> {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        serde_json::from_str(&line).ok()
    }

    async fn write(stream: &mut BufReader<UnixStream>, line: &[u8]) {
        stream.get_mut().write_all(line).await.unwrap();
    }

    async fn say(stream: &mut BufReader<UnixStream>, line: &FromReach) {
        let text = serde_json::to_string(line).unwrap() + "\n";
        write(stream, text.as_bytes()).await;
    }

    #[tokio::test]
    async fn only_what_was_asked_for_comes_through() {
        let mut world = World::new();
        world.reach.seek(&Sought {
            peers: vec![key(2).peer_id()],
            ..Sought::default()
        });
        let mut program = world.connect().await;
        let Some(ToReach::Plan(Some(plan))) = line(&mut program).await else {
            panic!("no plan");
        };
        let seen = |key, byte| FromReach::Seen {
            key,
            value: Value(vec![byte; 256]),
        };
        say(&mut program, &seen(Base58([3; 32]), 1)).await;
        say(&mut program, &seen(plan.seek[0], 2)).await;
        let (name, sealed) = world.record().await;
        assert_eq!((name, sealed[0]), (plan.seek[0].to_string(), 2));
        // no node is sought any more: a new plan
        world.reach.seek(&Sought::default());
        let Some(ToReach::Plan(Some(next))) = line(&mut program).await else {
            panic!("no plan");
        };
        assert!(next.seek.is_empty());
    }

    #[tokio::test]
    async fn garbage_ends_the_connection_and_the_next_program_is_served() {
        let mut world = World::new();
        let long = vec![b'x'; MAX_LINE + 2];
        let garbage: [&[u8]; 4] = [b"nonsense\n", b"{\"seen\":{}}\n", b"\xff\n", &long];
        for bytes in garbage {
            let mut program = world.connect().await;
            assert!(matches!(line(&mut program).await, Some(ToReach::Plan(_))));
            // the program may have gone before it has sent all
            let _ = program.get_mut().write_all(bytes).await;
            let mut rest = Vec::new();
            // a reset means the same
            let _ = program.read_to_end(&mut rest).await;
            assert_eq!(rest, b"");
        }
        world.wait_note(ABSENT).await;
        let mut program = world.connect().await;
        assert!(line(&mut program).await.is_some());
        let state = State {
            nodes: 3,
            ..State::default()
        };
        say(&mut program, &FromReach::State(state)).await;
        world.wait_note("3 nodes").await;
        assert!(world.reach.dht_standing().0);
    }

    #[tokio::test]
    async fn a_second_program_is_sent_away_and_the_file_goes_with_the_carrier() {
        let world = World::new();
        let mut first = world.connect().await;
        assert!(matches!(line(&mut first).await, Some(ToReach::Plan(_))));
        let mut second = world.connect().await;
        let Some(ToReach::Error(error)) = line(&mut second).await else {
            panic!("no error");
        };
        assert!(error.contains("another"), "{error}");
        // the first one continues
        world.reach.path_changed(PathChange::Addresses);
        assert!(matches!(line(&mut first).await, Some(ToReach::Plan(_))));
        let path = world.folder.path().join("reach.sock");
        let is_socket = |path: &PathBuf| {
            let status = std::fs::symlink_metadata(path);
            status.is_ok_and(|status| status.file_type().is_socket())
        };
        assert!(is_socket(&path));
        drop(world.reach);
        while is_socket(&path) {
            tokio::task::yield_now().await;
        }
    }

    fn account(room: &str) -> Account {
        Account {
            homeserver: "https://a.example".into(),
            room: room.parse().unwrap(),
            user: None,
            token: "syt_secret".parse().unwrap(),
        }
    }

    #[tokio::test]
    async fn a_room_is_used_beside_a_dht_and_without_one() {
        let mut world = World::new();
        let account = account("#lc:a.example");
        world.reach.publish(&wish().record.unwrap());
        world.reach.set(None, Some(&account));
        let mut program = world.connect().await;
        let Some(ToReach::Matrix(Some(meeting))) = line(&mut program).await else {
            panic!("no meeting, or a plan");
        };
        assert_eq!(
            (&meeting.room, &meeting.token),
            (&account.room, &account.token)
        );
        assert_eq!(meeting.keep.unwrap().name, Base58([1; 32]));
        let kept = |name, byte| FromReach::Kept {
            account: "@b:a.example".into(),
            name: Base58([name; 32]),
            value: Value(vec![byte; 256]),
        };
        say(&mut program, &kept(7, 3)).await;
        let (name, sealed) = world.record().await;
        assert_eq!(name, format!("@b:a.example {}", Base58([7; 32])));
        assert_eq!(sealed[0], 3);
        // text of a compromised program is bounded, and without terminal control
        let state = RoomState {
            problem: Some("\x1b[2Jbad ".repeat(1_000)),
            ..RoomState::default()
        };
        say(&mut program, &FromReach::Room(state)).await;
        while !world.reach.room_standing().1.contains("bad") {
            world.events.recv().await.unwrap();
        }
        let (open, note) = world.reach.room_standing();
        assert!(!open && note.chars().count() <= MAX_TEXT && !note.contains('\x1b'));
        // beside a DHT, then neither
        world.reach.set(Some(&[]), Some(&account));
        assert!(matches!(
            line(&mut program).await,
            Some(ToReach::Plan(Some(_)))
        ));
        world.reach.set(Some(&[]), None);
        assert!(matches!(
            line(&mut program).await,
            Some(ToReach::Matrix(None))
        ));
        say(&mut program, &kept(8, 4)).await;
        world.reach.set(None, None);
        assert!(matches!(
            line(&mut program).await,
            Some(ToReach::Plan(None))
        ));
        // values that come after the room was left are not accepted
        say(&mut program, &FromReach::State(State::default())).await;
        assert!(matches!(
            world.events.recv().await,
            Some(CarrierEvent::Doors)
        ));
    }
}
