//! A guest in the network of a group: its state on disk, the texts that lead in, and what lcgroup
//! says. The owner's node is an issuer, and that of a deputy in office: it renews the members that
//! lcgroup lists, and expels others.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lcroute_node::{Epochs, Keep, Members, Node, Revocations};
use lcroute_overlay::{Connections, TEXT_LIFETIME, TextRecord};
use lcroute_signalling::dht::PROGRAM;
use lcroute_signalling::{Carriers, ReachProgram};
use lcroute_webrtc::WebRtc;
use librecast::cert::{CLOCK_SKEW, Certificate, Chain, Grant, Token};
use librecast::code::CodeKeys;
use librecast::epoch::EpochSecret;
use librecast::id::{PeerId, SecretKey, derive};
use librecast::reach::{Base58, MAX_VALUE, Value};
use librecast::revocation::Revocation;
use librecast::time::UnixTime;
use librecast::wire::Reader;
use librecast_program::executable::start_on_socket;
use librecast_program::group_network::{
    FromGuest, GroupState, GroupText, MAX_MESSAGE, MAX_TEXTS, ToGuest, Wanted,
};
use tokio::sync::mpsc;

use super::text::{Owner, OwnerStart, Places, port_of};
use crate::commands::hint;
use crate::commands::membership::FOUNDER_TTL;
use crate::keeper::{Keeper, Kept};
use crate::state::{Membership, StateDir, Texts};

/// Why a node leaves the network of its group: an issuer has expelled it.
pub const EXPELLED: &str = "the owner has removed this member, or the invitation or the deputy that let it in: another line (`lcgroup join`) leads in who is a member";
/// Why a node leaves the network of its group: it was not let in in time.
pub const EXPIRED: &str = "the invitation has expired, and the owner has not let this member in";
/// Longest wait for nodes that depend on an issuer whose right has ended: they ask this one for other
/// certificates within seconds. Chosen.
const ENDED_WAIT: Duration = Duration::from_secs(120);

/// The parts of a start.
#[derive(Debug)]
pub struct Start {
    /// Where the node's state is.
    pub state: StateDir,
    /// Its membership.
    pub membership: Membership,
    /// Its revocations.
    pub revocations: Revocations,
    /// The members that it knows.
    pub members: Members,
    /// The socket to lcgroup.
    pub control: UnixDatagram,
    /// Descriptor of packets, for the program inside.
    pub packets: Option<OwnedFd>,
    /// The keys of an issuer.
    pub issuer: Option<IssuerKeys>,
    /// Where the group meets.
    pub places: Places,
}

/// The keys by which a node issues certificates of the network.
#[derive(Debug)]
pub struct IssuerKeys {
    /// The issuer's key.
    pub issuer: SecretKey,
    /// The network's, which its owner alone has.
    pub network: Option<SecretKey>,
}

impl IssuerKeys {
    /// Returns the key that signs records of texts.
    fn signs(&self) -> &SecretKey {
        self.network.as_ref().unwrap_or(&self.issuer)
    }
}

/// A text at its meeting point.
#[derive(Debug)]
struct Text {
    wanted: GroupText,
    owner: Owner,
    /// Its questions for signatures.
    questions: Option<tokio::net::UnixDatagram>,
}

/// The part of an issuer.
#[derive(Debug)]
struct Issuer {
    keys: IssuerKeys,
    certificate: Certificate,
    /// By the texts' secrets.
    texts: BTreeMap<[u8; 32], Text>,
    wanted: Wanted,
    /// Keys that are expelled already.
    revoked: BTreeSet<PeerId>,
    /// Since when issuers are to be expelled on whom no node should depend.
    ended: BTreeMap<PeerId, Instant>,
    own: (PeerId, u16),
}

/// The part of a node that is in the network of a group.
#[derive(Debug)]
pub struct Group {
    control: tokio::net::UnixDatagram,
    keep: mpsc::UnboundedSender<Kept>,
    keeper: JoinHandle<()>,
    /// Whether the membership on disk lasts.
    is_lasting: Arc<AtomicBool>,
    epochs: Epochs,
    issuer: Option<Issuer>,
    places: Places,
    state: GroupState,
    /// Whether lcgroup was told the state.
    is_told: bool,
    /// Messages that found no room.
    unsent: VecDeque<FromGuest>,
    /// Room for a message of lcgroup.
    buffer: Vec<u8>,
}

/// What [`Group::wait`] has brought.
#[derive(Debug)]
pub enum Event {
    /// A message of lcgroup.
    Message(ToGuest),
    /// A record of this text is to be signed.
    Question([u8; 32], Vec<u8>),
    /// Nothing that concerns others.
    Nothing,
}

impl Start {
    /// Returns the port of links that the node had before, or that follows from the owner's network;
    /// 0: any.
    pub fn port(&self) -> u16 {
        let known = self.state.port();
        let is_owner = { self.issuer.as_ref() }.is_some_and(|keys| keys.network.is_some());
        known.unwrap_or_else(|| match is_owner {
            true => port_of(&self.membership.network),
            false => 0,
        })
    }
}

impl Group {
    /// Starts it, for this node; to be called within a tokio runtime.
    pub fn start(start: Start, epochs: &Epochs, own: (PeerId, u16)) -> anyhow::Result<Self> {
        let Start {
            state,
            membership,
            revocations,
            control,
            issuer,
            places,
            ..
        } = start;
        control.set_nonblocking(true)?;
        let certificate = membership.chain()?.issuer().clone();
        // those of a deputy end with its certificate, and the network's do not
        let counts = |revocation: &&Revocation| {
            let is_owner = { issuer.as_ref() }.is_some_and(|keys| keys.network.is_some());
            !is_owner || revocation.is_by_network()
        };
        let revoked = revocations.iter().filter(counts).map(Revocation::key);
        let revoked = revoked.collect();
        let issuer = issuer.map(|keys| Issuer {
            keys,
            certificate,
            texts: BTreeMap::new(),
            wanted: Wanted::default(),
            revoked,
            ended: BTreeMap::new(),
            own,
        });
        let (keep, queue) = mpsc::unbounded_channel();
        let mut writer = Keeper::new(state, membership, revocations, Texts::default(), queue);
        let is_lasting = Arc::new(AtomicBool::new(writer.is_lasting()));
        let written = Arc::clone(&is_lasting);
        let runtime = tokio::runtime::Handle::current();
        // a disk may be slow
        let keeper = std::thread::Builder::new().name("keeper".into());
        let keeper = keeper.spawn(move || {
            runtime.block_on(async { while write_next(&mut writer, &written).await {} });
        })?;
        Ok(Self {
            control: tokio::net::UnixDatagram::from_std(control)?,
            keep,
            keeper,
            is_lasting,
            epochs: epochs.clone(),
            issuer,
            state: GroupState {
                found: true,
                port: own.1,
                servers: places.servers.clone(),
                on_lans: places.on_lans,
                dht: places.dht.is_some(),
                ..GroupState::default()
            },
            places,
            is_told: false,
            unsent: VecDeque::new(),
            buffer: vec![0; MAX_MESSAGE],
        })
    }

    /// Has other members found by a DHT, if one is used.
    pub fn use_dht(&self, carriers: &mut Carriers) {
        let Some(bootstrap) = &self.places.dht else {
            return;
        };
        let child = || start_on_socket(PROGRAM).map(ReachProgram::Child);
        if let Err(e) = carriers.set_reach(Some(bootstrap), None, child) {
            hint(format_args!("{PROGRAM}: {e}: the DHT is not used"));
        }
    }

    /// Stores what must survive this run.
    pub fn keep(&mut self, keep: Keep) {
        if let (Keep::Epochs(text), Some(issuer)) = (&keep, &mut self.issuer) {
            self.epochs = Epochs::parse(&text.0, issuer.certificate.network()).0;
            issuer.renew_tokens(&self.epochs, &self.places);
        }
        // the writer ends after this one
        let _ = self.keep.send(Kept::Node(keep));
    }

    /// Waits for lcgroup and for those who look for the network. Cancellation loses none.
    pub async fn wait(&mut self) -> Event {
        let buffer = &mut self.buffer;
        let texts = self.issuer.as_mut().map(|issuer| &mut issuer.texts);
        tokio::select! {
            received = self.control.recv(buffer) => {
                let Ok(length) = received else {
                    // lcgroup has ended, and the program inside ends with it
                    return std::future::pending().await;
                };
                match serde_json::from_slice(self.buffer.get(..length).unwrap_or_default()) {
                    Ok(message) => Event::Message(message),
                    Err(e) => {
                        tracing::warn!("lcgroup: {e}");
                        Event::Nothing
                    }
                }
            }
            question = wait_for_texts(texts) => match question {
                Some((text, question)) => Event::Question(text, question),
                None => Event::Nothing,
            },
        }
    }

    /// Handles an event of [`Self::wait`].
    pub fn handle(&mut self, event: Event, node: &mut Node<WebRtc>, now: Instant) {
        match event {
            Event::Nothing => {}
            Event::Question(text, question) => {
                let mut question = Reader::new(&question);
                // its own text has sent it
                if let (Ok(time), Ok(sequence)) = (question.u64(), question.u64()) {
                    self.tell(FromGuest::Sign {
                        text: Base58(text),
                        time,
                        sequence,
                        value: Value(question.rest().to_vec()),
                    });
                }
            }
            Event::Message(ToGuest::Signed { text, signature }) => {
                let issuer = self.issuer.as_ref();
                let text = issuer.and_then(|issuer| issuer.texts.get(&text.0));
                if let Some(questions) = text.and_then(|text| text.questions.as_ref()) {
                    // a lost one is asked anew with the next record
                    let _ = questions.try_send(&signature.0);
                }
            }
            Event::Message(ToGuest::Wanted(wanted)) => {
                if let Some(issuer) = &mut self.issuer {
                    issuer.want(wanted, &self.epochs, &self.places, (node, now));
                }
            }
        }
    }

    /// Makes records anew that are old or have other addresses, and tells lcgroup of changes.
    pub fn review(&mut self, node: &mut Node<WebRtc>, now: Instant) {
        if let Some(issuer) = &mut self.issuer {
            issuer.expel_ended(node, now);
        }
        let candidates = node.connections().candidates();
        for text in self
            .issuer
            .iter_mut()
            .flat_map(|issuer| issuer.texts.values_mut())
        {
            text.owner.review(candidates.clone(), Vec::new(), now);
        }
        let own = node.member().peer;
        let others = node.members().into_iter();
        let others = others.filter(|member| member.present && member.peer_id != own);
        let state = GroupState {
            links: node.links().len(),
            present: others.count(),
            answering: node.servers(),
            lasting: self.is_lasting.load(Ordering::Acquire),
            ..self.state.clone()
        };
        self.set_state(state);
        while let Some(message) = self.unsent.pop_front() {
            if let Some(message) = self.try_tell(message) {
                self.unsent.push_front(message);
                break;
            }
        }
    }

    /// Tells lcgroup why this node ends.
    pub fn tell_end(&mut self, why: &str) {
        let state = GroupState {
            ended: Some(why.to_owned()),
            ..self.state.clone()
        };
        self.set_state(state);
    }

    /// Tells lcgroup the address at which the Internet reaches this host.
    pub fn set_mapped(&mut self, mapped: Option<SocketAddrV4>) {
        let state = GroupState {
            mapped,
            ..self.state.clone()
        };
        self.set_state(state);
    }

    fn set_state(&mut self, state: GroupState) {
        if !std::mem::replace(&mut self.is_told, true) || state != self.state {
            self.state = state.clone();
            self.unsent
                .retain(|message| !matches!(message, FromGuest::State(_)));
            self.tell(FromGuest::State(state));
        }
    }

    fn tell(&mut self, message: FromGuest) {
        if let Some(message) = self.try_tell(message)
            && self.unsent.len() < 4 * MAX_TEXTS
        {
            self.unsent.push_back(message);
        }
    }

    /// Sends a message; returns it if there is no room.
    fn try_tell(&self, message: FromGuest) -> Option<FromGuest> {
        let json = serde_json::to_vec(&message).unwrap_or_default();
        match self.control.try_send(&json) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Some(message),
            _ => None,
        }
    }

    /// Ends it, with all on disk and a goodbye on LANs.
    pub async fn end(self) {
        drop(self.keep);
        let texts = self.issuer.map(|issuer| issuer.texts).unwrap_or_default();
        for text in texts.into_values() {
            text.owner.end().await;
        }
        // it writes what waits; the network has forgotten this node by then
        let _ = self.keeper.join();
    }
}

/// Waits for the events of a group; for ever without one.
pub async fn wait(group: &mut Option<Group>) -> Event {
    match group {
        Some(group) => group.wait().await,
        None => std::future::pending().await,
    }
}

/// Writes what has come; returns whether there may be more.
async fn write_next(writer: &mut Keeper, is_lasting: &AtomicBool) -> bool {
    let more = writer.next().await;
    writer.write();
    is_lasting.store(writer.is_lasting(), Ordering::Release);
    more
}

/// Waits for the first of all texts; returns its question.
async fn wait_for_texts(
    texts: Option<&mut BTreeMap<[u8; 32], Text>>,
) -> Option<([u8; 32], Vec<u8>)> {
    let texts = texts.into_iter().flatten();
    let mut waits: Vec<_> = texts
        .map(|(secret, text)| (*secret, Box::pin(text.wait())))
        .collect();
    poll_fn(|context| {
        for (secret, wait) in &mut waits {
            if let std::task::Poll::Ready(question) = Pin::new(wait).poll(context) {
                return std::task::Poll::Ready(question.map(|question| (*secret, question)));
            }
        }
        std::task::Poll::Pending
    })
    .await
}

impl Text {
    /// Waits for those who look for the network; returns a question for a signature.
    async fn wait(&mut self) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 16 + MAX_VALUE];
        let question = async {
            match &self.questions {
                Some(questions) => questions.recv(&mut buffer).await.ok(),
                None => std::future::pending().await,
            }
        };
        let length = tokio::select! {
            () = self.owner.wait() => None,
            length = question => length,
        };
        buffer.truncate(length?);
        Some(buffer)
    }
}

impl Issuer {
    /// Follows what lcgroup wants.
    fn want(
        &mut self,
        mut wanted: Wanted,
        epochs: &Epochs,
        places: &Places,
        (node, now): (&mut Node<WebRtc>, Instant),
    ) {
        wanted.texts.truncate(MAX_TEXTS);
        let own = self.own.0;
        node.set_listed(wanted.members.iter().copied().chain([own]).collect());
        // first, so that the expelled have no new secret
        for key in wanted.expelled.clone() {
            if !self.revoked.contains(&key) && key != own {
                self.expel(key, node, now);
            }
        }
        for key in &wanted.ended {
            if !self.revoked.contains(key) {
                self.ended.entry(*key).or_insert(now);
            }
        }
        let secrets: BTreeSet<[u8; 32]> = wanted.texts.iter().map(|text| text.secret.0).collect();
        // dropping one ends its carriers
        self.texts.retain(|secret, _| secrets.contains(secret));
        for text in &wanted.texts {
            if self.texts.contains_key(&text.secret.0) {
                continue;
            }
            match self.open(text, epochs, places) {
                Ok(opened) => drop(self.texts.insert(text.secret.0, opened)),
                Err(e) => tracing::error!("a text of the group: {e:#}"),
            }
        }
        self.wanted = wanted;
    }

    /// Expels issuers whose right has ended, once those that depend on them have other certificates.
    fn expel_ended(&mut self, node: &mut Node<WebRtc>, now: Instant) {
        let is_due = |(key, since): &(&PeerId, &Instant)| {
            **since + ENDED_WAIT <= now || !node.has_dependents(key)
        };
        let due = self.ended.iter().filter(is_due).map(|(key, _)| *key);
        for key in due.collect::<Vec<_>>() {
            self.ended.remove(&key);
            self.expel(key, node, now);
        }
    }

    /// Expels a key from the network, whose members then meet by a new secret.
    fn expel(&mut self, key: PeerId, node: &mut Node<WebRtc>, now: Instant) {
        match self.try_expel(key, node, now) {
            Ok(()) => {
                self.revoked.insert(key);
                tracing::info!("expelled {key}");
            }
            Err(e) => tracing::error!("{key} is not expelled: {e:#}"),
        }
    }

    fn try_expel(&self, key: PeerId, node: &mut Node<WebRtc>, now: Instant) -> anyhow::Result<()> {
        let (time, keys) = (UnixTime::now(), &self.keys);
        let revocation = match &keys.network {
            Some(network) => {
                let until = time.as_secs() + FOUNDER_TTL + CLOCK_SKEW;
                Revocation::by_network(network, key, time, until)?
            }
            None => {
                let until = self.certificate.grant().not_after + CLOCK_SKEW;
                Revocation::by_issuer(&self.certificate, &keys.issuer, key, time, until)?
            }
        };
        let text = lcroute_node::revocations::text(&revocation);
        let revocation = node.revoke(&text, now)?;
        anyhow::ensure!(node.make_epoch(revocation), "no new secret");
        Ok(())
    }

    /// Returns an invitation of the network by this text.
    fn token(&self, text: &GroupText, epochs: &Epochs, places: &Places) -> anyhow::Result<Token> {
        let now = UnixTime::now().as_secs();
        let end = self.certificate.grant().not_after;
        let begin = now.max(self.certificate.grant().not_before);
        let grant = Grant {
            core: true,
            renew_for: FOUNDER_TTL,
            ..Grant::new("", (begin, text.until.unwrap_or(end).clamp(begin, end)))
        };
        let key = SecretKey::from_seed(&text.invitation.0);
        let servers = places.servers.clone();
        let issuer = &self.keys.issuer;
        let mut token = Token::invite_with(&self.certificate, issuer, key, grant, servers)?;
        token.epoch = epochs.newest();
        Ok(token)
    }

    /// Begins to answer those who have a text.
    fn open(&self, text: &GroupText, epochs: &Epochs, places: &Places) -> anyhow::Result<Text> {
        let now = UnixTime::now().as_secs();
        let record = TextRecord {
            made: now,
            until: now + TEXT_LIFETIME,
            attestation: text.attestation.0,
            token: self.token(text, epochs, places)?,
            routers: Vec::new(),
        };
        let (mut questions, mut signer) = (None, None);
        if places.dht.is_some() {
            let (ours, theirs) = UnixDatagram::pair()?;
            ours.set_nonblocking(true)?;
            questions = Some(tokio::net::UnixDatagram::from_std(ours)?);
            signer = Some(theirs);
        }
        let start = OwnerStart {
            text: text.text_key(),
            signs: SecretKey::from_seed(&self.keys.signs().seed()),
            record,
            dht: places.dht.clone(),
            signer,
            withdrawn: Vec::new(),
        };
        Ok(Text {
            wanted: text.clone(),
            owner: Owner::start(start, self.own, places)?,
            questions,
        })
    }

    /// Makes the tokens of all records anew: the network has a new secret.
    fn renew_tokens(&mut self, epochs: &Epochs, places: &Places) {
        for secret in self.texts.keys().copied().collect::<Vec<_>>() {
            let Some(text) = self.texts.get(&secret) else {
                continue;
            };
            match self.token(&text.wanted, epochs, places) {
                Ok(token) => {
                    if let Some(text) = self.texts.get_mut(&secret) {
                        text.owner.set_token(token);
                    }
                }
                Err(e) => tracing::error!("a text of the group: {e:#}"),
            }
        }
    }
}

/// Returns the epochs of a new network: its members have a secret from the start, so strangers that
/// know its key find no presence records.
pub fn first_epochs(keys: &CodeKeys) -> Epochs {
    let mut epochs = Epochs::new(keys.network().peer_id());
    let secret = derive(
        "lcroute 2026 group epoch",
        &[keys.network().seed().as_slice()],
    );
    epochs.set_of_token(1, EpochSecret::new(secret));
    epochs
}

/// Makes the owner's node a member and the issuer of its network.
pub fn found(state: &StateDir, keys: &CodeKeys, name: &str) -> anyhow::Result<Membership> {
    let now = UnixTime::now();
    anyhow::ensure!(
        now >= crate::state::EARLIEST,
        "the clock stands before 2025: set it first (timedatectl set-ntp true)"
    );
    let network = keys.network();
    if let Some(known) = state.membership()?
        && known.network == network.peer_id()
        && let Ok(chain) = known.chain()
        && chain
            .verify(&known.network, now)
            .is_ok_and(|own| own.peer == keys.issuer().peer_id())
    {
        return Ok(known);
    }
    let issuer = Grant {
        renew_for: FOUNDER_TTL,
        core: true,
        ..Grant::new("", (now.as_secs(), now.as_secs() + FOUNDER_TTL))
    };
    let member = Grant {
        name: name.to_owned(),
        ..issuer.clone()
    };
    let own = keys.issuer();
    let chain = Chain::sign(network, (own, issuer), (own.peer_id(), member))?;
    let membership = Membership::new(network.peer_id(), Vec::new(), &chain);
    state.store_membership(&membership)?;
    Ok(membership)
}

/// Makes the node of a deputy in office a member and an issuer of the network. The membership of its
/// author key stays on disk.
pub fn take_office(
    state: &StateDir,
    key: &SecretKey,
    certificate: &[u8],
) -> anyhow::Result<Membership> {
    let certificate = Certificate::decode(certificate)?;
    let grant = Grant {
        name: node_name(&key.peer_id()),
        renew_for: 0,
        ..certificate.grant().clone()
    };
    let network = certificate.network();
    let chain = Chain::of_issuer(certificate, key, grant)?;
    chain.verify(&network, UnixTime::now())?;
    let known = state.membership()?.filter(|known| known.network == network);
    let signal = known.map(|known| known.signal).unwrap_or_default();
    Ok(Membership::new(network, signal, &chain))
}

/// Returns the name of a member's node, which members alone see.
pub fn node_name(peer: &PeerId) -> String {
    let [a, b, c, d, ..] = derive("lcroute 2026 group node", &[peer.public_key()]);
    format!("m{:08x}", u32::from_be_bytes([a, b, c, d]))
}
