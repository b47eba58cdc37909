//! Groups with a network of their own: an `lcroute guest` for each, which carries this group alone.
//!
//! ```text
//! lcgroup run ── packets ── lcgroup carry ── lc0 ── lcroute guest ── links ── other members
//!      │ lcsync, lcradio ────────┘                        │
//!      └───────────────── texts, members, expelled keys ──┘
//! ```
//! The guest ends with the program inside, and that with the socket of its packets, so nothing is left
//! behind after `kill -9`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::Ipv6Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use lcgroup_core::outside::{
    Expelled, MAX_OPEN_DEVICES, NetworkSecret, OpenInvitation, attestation, mailboxes, network_seed,
};
use lcgroup_core::{Group, Standing};
use librecast::code::CodeKeys;
use librecast::durable;
use librecast::id::{PeerId, SecretKey};
use librecast::outside::Place;
use librecast::reach::{Base58, Value};
use librecast::time::UnixTime;
use librecast_program::cli::{Exit, ExitError, MDNS_RULE};
use librecast_program::group_network::{
    FromGuest, GroupEntry, GroupRole, GroupState, GroupText, MAX_MESSAGE, MAX_TEXTS, ToGuest,
    Wanted, keep_open, own_program, pipe_of,
};
use librecast_program::guest::{self, MAX_TEXT_PLACES};
use nix::errno::Errno;
use nix::sys::eventfd::EventFd;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socket};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::carrier::{Access, Carrier, Way};
use crate::carry::{ADDRESSES, SOURCE};
use crate::hub::{self, Lc0, MAX_PACKET};
use crate::request::NetworkStatus;

/// The file in the folder of a group.
const FILE: &str = "outside";
/// The folder of the node in it.
const NETWORK: &str = "network";
/// Bytes of the file: some places and keys.
const MAX_FILE: u64 = 8 * 1_024;
/// Most networks of a host. Chosen: each has a node of some 12 MB.
pub const MAX_NETWORKS: usize = 16;
/// Most invitations that lead into the network at a time; other texts are for mailboxes and devices.
pub const MAX_OPEN: usize = MAX_TEXTS - MAX_OPEN_DEVICES - 1;
/// Bounds of the pause before a guest that has ended is started again.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Time after which a guest counts as running, so that the next pause is the shortest.
const RUNS: Duration = Duration::from_secs(30);
/// Time for guests to say goodbye before they are killed. Below the service manager's.
const GOODBYE: Duration = Duration::from_secs(2);
/// Interval of looks at ending guests.
const LOOK: Duration = Duration::from_millis(20);
/// Packets read in one turn. Chosen.
const AT_ONCE: usize = 256;
/// Interval in seconds at which the owner's wishes are looked at, as invitations expire.
const WISH_EVERY: u64 = 60;
/// Seconds around the present day for which the guest may have records signed.
const DAY: u64 = 86_400;

/// What a host keeps of the network of a group.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// Where the group meets; none: on LANs, and where the configuration says.
    pub places: Vec<Place>,
    /// The secret by which this host enters, unless it is the owner's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Base58<32>>,
    /// The deputy whose invitation it is; none: the owner's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<PeerId>,
    /// Seed of a mailbox's node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Base58<32>>,
    /// The owner has printed a line for mailboxes.
    pub mailboxes: bool,
}

impl Drop for Kept {
    fn drop(&mut self) {
        for secret in [&mut self.secret, &mut self.node].into_iter().flatten() {
            secret.0.zeroize();
        }
    }
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kept at {:?}", self.places)
    }
}

impl Kept {
    /// Reads it from the folder of a group; none: the group has no network of its own.
    ///
    /// # Errors
    /// The file is damaged, or the system fails.
    pub fn read(folder: &Path) -> io::Result<Option<Self>> {
        use std::io::Read;
        let mut json = Zeroizing::new(Vec::new());
        match fs::File::open(folder.join(FILE)) {
            Ok(file) => file.take(MAX_FILE).read_to_end(&mut json)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let damaged = |e| io::Error::new(io::ErrorKind::InvalidData, format!("{FILE}: {e}"));
        serde_json::from_slice(&json).map(Some).map_err(damaged)
    }

    /// Writes it into the folder of a group, which is for its user alone.
    ///
    /// # Errors
    /// Those of the system.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        let json = Zeroizing::new(serde_json::to_vec(self)?);
        durable::replace(&folder.join(FILE), &json)
    }
}

/// Splits a line into its text and the place behind it.
///
/// # Errors
/// The place is none.
pub fn with_place(line: &str) -> anyhow::Result<(&str, Option<Place>)> {
    let Some((text, place)) = line.trim().split_once('@') else {
        return Ok((line.trim(), None));
    };
    let place = place.parse();
    let place = place.map_err(|e| ExitError::new(Exit::Usage, format!("{e}")))?;
    Ok((text, Some(place)))
}

/// Returns a line with the first of these places.
#[must_use]
pub fn at_place(line: Zeroizing<String>, places: &[Place]) -> Zeroizing<String> {
    match places.first() {
        Some(place) => Zeroizing::new(format!("{}@{place}", *line)),
        None => line,
    }
}

/// Refuses a network where the system's service manager lets this program have no guest.
///
/// # Errors
/// [`Exit::NotPermitted`].
pub fn check_service() -> Result<(), ExitError> {
    check_families(|family| {
        socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).map(drop)
    })
}

fn check_families(open: impl Fn(AddressFamily) -> nix::Result<()>) -> Result<(), ExitError> {
    // other failures pass
    let is_refused = |family| matches!(open(family), Err(Errno::EAFNOSUPPORT | Errno::EPERM));
    let needed = [AddressFamily::Inet, AddressFamily::Netlink];
    match needed.into_iter().any(is_refused) {
        false => Ok(()),
        true => {
            let text = "nothing was changed: a group with a network of its own needs a guest of lcroute, and the service of lcgroup may not open the sockets that the guest needs: `systemctl edit lcgroup`, with `RestrictAddressFamilies=AF_INET AF_NETLINK` under [Service], then `systemctl restart lcgroup`; or run `lcgroup run` as your own user for such groups";
            Err(ExitError::new(Exit::NotPermitted, text))
        }
    }
}

/// Refuses more places than a text has.
///
/// # Errors
/// [`Exit::Usage`].
pub fn check_places(places: &[Place]) -> Result<(), ExitError> {
    match places.len() <= MAX_TEXT_PLACES {
        true => Ok(()),
        false => Err(ExitError::new(
            Exit::Usage,
            format!("a group has {MAX_TEXT_PLACES} places at most"),
        )),
    }
}

/// What this participant of a group is in its network; none: it is removed, or knows no way.
#[must_use]
pub fn role(group: &Group, kept: &Kept) -> Option<GroupRole> {
    if let Some(key) = group.group_key() {
        return Some(GroupRole::Owner(Base58(*network_seed(key))));
    }
    if matches!(group.standing(), Standing::Removed) {
        return None;
    }
    match group.network_office() {
        Some(office) => Some(GroupRole::Deputy {
            key: Base58(*office.key.seed()),
            certificate: Value(office.certificate.as_bytes().to_vec()),
        }),
        None => as_member(group, kept),
    }
}

/// The part of this participant in the network when it has no office there.
fn as_member(group: &Group, kept: &Kept) -> Option<GroupRole> {
    let key = Base58(*group.author_key().seed());
    member(group.id(), key, kept)
}

/// What a mailbox is in the network of a group.
#[must_use]
pub fn mailbox(group: PeerId, kept: &Kept) -> Option<GroupRole> {
    member(group, kept.node?, kept)
}

fn member(group: PeerId, key: Base58<32>, kept: &Kept) -> Option<GroupRole> {
    let secret = NetworkSecret(Zeroizing::new(kept.secret?.0));
    let group = kept.by.unwrap_or(group);
    Some(GroupRole::Member {
        key,
        group,
        secret: Base58(*secret.text(group).secret()),
    })
}

/// Returns what the owner, or a deputy in office, wants of the network; nothing from others.
fn wanted(group: &Group, kept: &Kept, time: UnixTime) -> Wanted {
    let network = match (group.group_key(), group.network_office()) {
        (Some(key), _) => CodeKeys::of_random(&network_seed(key)).network().peer_id(),
        (None, Some(office)) => office.certificate.network(),
        (None, None) => return Wanted::default(),
    };
    let Some(owner) = group.text_owner() else {
        return Wanted::default();
    };
    let text = |secret: &NetworkSecret, until| {
        let text = secret.text(owner.peer_id());
        GroupText {
            key: owner.peer_id(),
            secret: Base58(*text.secret()),
            attestation: Base58(attestation(owner, &text, &network)),
            invitation: Base58(*secret.invitation().seed()),
            until,
        }
    };
    let open = |open: OpenInvitation| text(&open.secret, Some(open.expires / 1_000));
    let lines = group.open_invitations(time).into_iter().take(MAX_OPEN);
    let devices = group.open_device_texts(time).into_iter();
    let mut texts: Vec<_> = lines.chain(devices).map(open).collect();
    let mailboxes = group.group_key().map(mailboxes).filter(|_| kept.mailboxes);
    texts.extend(mailboxes.map(|secret| text(&secret, None)));
    let members = group.members().into_iter();
    let Expelled {
        now: expelled,
        ended,
    } = group.expelled_from_network();
    Wanted {
        texts,
        members: members.map(|member| member.author).collect(),
        expelled,
        ended,
    }
}

/// A guest that runs.
#[derive(Debug)]
struct Link {
    child: Child,
    packets: Arc<OwnedFd>,
    control: UnixDatagram,
    since: Instant,
    /// The program inside has ended, and soon the guest.
    is_closed: bool,
}

/// The network of one group on this host.
#[derive(Debug)]
pub struct Outside {
    name: String,
    folder: PathBuf,
    kept: Kept,
    address: Ipv6Addr,
    role: Option<GroupRole>,
    /// The role of a deputy that the owner has ended, and this host has not read it yet.
    refused: Option<GroupRole>,
    link: Option<Link>,
    /// A guest that ends, and until when it may take for that: it writes into the folder.
    leaving: Option<(Child, Instant)>,
    /// The network has expelled this host.
    is_expelled: bool,
    /// The number of the last start.
    runs: u64,
    access: Arc<Mutex<Access>>,
    carrier: Carrier,
    state: GroupState,
    /// Why no guest runs.
    problem: Option<String>,
    /// Since when no member is linked.
    alone: Instant,
    retry: Instant,
    pause: Duration,
    wanted: Wanted,
    /// The guest was told what is wanted.
    is_told: bool,
    /// The writes of the group and the minute for which `wanted` was made.
    made_for: Option<(u64, u64)>,
    /// A link came up after none.
    is_back: bool,
    /// Packets that found no room.
    lost: u64,
}

impl Outside {
    /// Returns the network of a group, which the next review starts.
    ///
    /// # Errors
    /// There is no thread for files.
    pub fn new(
        (name, folder): (&str, &Path),
        kept: Kept,
        (address, role): (Ipv6Addr, Option<GroupRole>),
        wake: Arc<EventFd>,
        now: Instant,
    ) -> io::Result<Self> {
        let access = Arc::new(Mutex::new(Access::default()));
        let way = Way::Own(Arc::clone(&access));
        Ok(Self {
            carrier: Carrier::start(folder, way, wake)?,
            access,
            refused: None,
            leaving: None,
            is_expelled: false,
            runs: 0,
            name: name.to_owned(),
            folder: folder.to_owned(),
            kept,
            address,
            role,
            link: None,
            state: GroupState::default(),
            problem: None,
            alone: now,
            retry: now,
            pause: PAUSE.0,
            wanted: Wanted::default(),
            is_told: false,
            made_for: None,
            is_back: false,
            lost: 0,
        })
    }

    /// Returns the carrier of its files.
    #[must_use]
    pub fn carrier(&self) -> &Carrier {
        &self.carrier
    }

    /// Whether the network has expelled this host.
    #[must_use]
    pub fn is_expelled(&self) -> bool {
        self.is_expelled
    }

    /// Returns what this host keeps of it.
    #[must_use]
    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    /// Enters by another invitation, as a new node.
    ///
    /// # Errors
    /// The system fails: the former invitation is used again.
    pub fn enter_by(
        &mut self,
        kept: Kept,
        role: Option<GroupRole>,
        now: Instant,
    ) -> io::Result<()> {
        if kept.secret == self.kept.secret && kept.places == self.kept.places {
            return Ok(());
        }
        // it writes into the folder of the node
        end_all(self.let_go());
        match fs::remove_dir_all(self.folder.join(NETWORK)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        kept.write(&self.folder)?;
        (self.kept, self.role) = (kept, role);
        self.is_expelled = false;
        (self.retry, self.pause) = (now, PAUSE.0);
        (self.state, self.problem) = (GroupState::default(), None);
        Ok(())
    }

    /// Notes that the owner has printed a line for mailboxes.
    ///
    /// # Errors
    /// Those of the system.
    pub fn serve_mailboxes(&mut self) -> io::Result<()> {
        if !self.kept.mailboxes {
            self.kept.mailboxes = true;
            self.kept.write(&self.folder)?;
            self.made_for = None;
        }
        Ok(())
    }

    /// Whether the next review looks at the group anew.
    #[must_use]
    pub fn is_old(&self, saves: u64, time: UnixTime) -> bool {
        self.made_for != Some((saves, time.as_secs() / WISH_EVERY))
    }

    /// Starts or restarts the guest where that is due, and tells it what the owner wants.
    pub fn review(&mut self, group: Option<(&Group, u64)>, time: UnixTime, now: Instant) {
        if let Some((group, saves)) = group
            && self.is_old(saves, time)
        {
            let wanted = wanted(group, &self.kept, time);
            self.made_for = Some((saves, time.as_secs() / WISH_EVERY));
            self.is_told &= wanted == self.wanted;
            self.wanted = wanted;
            let role = match role(group, &self.kept) {
                role if role.is_some() && role == self.refused => as_member(group, &self.kept),
                role => role,
            };
            if role != self.role {
                tracing::info!("{}: in its network as {role:?}", self.name);
                self.role = role;
                (self.state, self.problem) = (GroupState::default(), None);
                (self.retry, self.pause) = (now, PAUSE.0);
                self.part(now);
            }
        }
        self.look_at_guest(now);
        let is_due = self.link.is_none() && self.leaving.is_none() && self.retry <= now;
        if is_due && self.role.is_some() {
            match self.start(now) {
                Ok(link) => {
                    self.runs += 1;
                    (self.link, self.problem, self.is_told) = (Some(link), None, false);
                    // servers and LANs of the last run say nothing about this one
                    self.state = GroupState::default();
                    self.alone = now;
                }
                Err(e) => {
                    tracing::error!("{}: lcroute guest: {e:#}", self.name);
                    self.problem = Some(match e.downcast_ref::<io::Error>() {
                        // PATH may have folders that this user may not search
                        Some(e)
                            if matches!(
                                e.kind(),
                                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
                            ) =>
                        {
                            "lcroute must be installed: its package has `lcroute guest`".to_owned()
                        }
                        _ => format!("lcroute guest: {e:#}"),
                    });
                    self.try_later(now);
                }
            }
        }
        self.set_problem();
        if let Some(link) = &self.link
            && !self.is_told
            && self.is_issuer()
        {
            let wanted = ToGuest::Wanted(self.wanted.clone());
            let json = serde_json::to_vec(&wanted).unwrap_or_default();
            // no room, or it ends: the next review tries again
            self.is_told = link.control.send(&json).is_ok();
        }
    }

    /// Whether this host's node issues certificates.
    fn is_issuer(&self) -> bool {
        let role = self.role.as_ref();
        matches!(role, Some(GroupRole::Owner(_) | GroupRole::Deputy { .. }))
    }

    /// Tells programs for files why there is no lc0.
    fn set_problem(&self) {
        let mut access = self.access.lock().unwrap_or_else(PoisonError::into_inner);
        if access.problem != self.problem {
            access.problem.clone_from(&self.problem);
        }
    }

    /// Returns lc0 of the guest, for a program of the user.
    pub fn lc0(&self) -> Result<Lc0, ExitError> {
        let access = self.access.lock().unwrap_or_else(PoisonError::into_inner);
        let why = match (&access.problem, &self.role) {
            (Some(problem), _) => problem.as_str(),
            (None, None) => "this host is not a member",
            (None, Some(_)) => "it starts: try again in a few seconds",
        };
        let none = || {
            let text = format!("the group's network does not run: {why}");
            ExitError::new(Exit::Failed, text)
        };
        access.lc0.clone().ok_or_else(none)
    }

    fn set_lc0(&self, lc0: Option<Lc0>) {
        let mut access = self.access.lock().unwrap_or_else(PoisonError::into_inner);
        access.lc0 = lc0;
    }

    fn try_later(&mut self, now: Instant) {
        self.retry = now + self.pause;
        self.pause = (self.pause * 2).min(PAUSE.1);
    }

    /// Notices that the guest has ended.
    fn look_at_guest(&mut self, now: Instant) {
        if let Some((child, until)) = &mut self.leaving {
            if *until <= now {
                // it may have ended
                let _ = child.kill();
            }
            if !matches!(child.try_wait(), Ok(None)) {
                self.leaving = None;
            }
        }
        let Some(link) = &mut self.link else {
            return;
        };
        let Ok(Some(status)) = link.child.try_wait() else {
            return;
        };
        if link.since + RUNS <= now {
            self.pause = PAUSE.0;
        }
        self.link = None;
        self.set_lc0(None);
        let ended = self.state.ended.take();
        if ended.is_some() {
            self.is_expelled = true;
            if matches!(self.role, Some(GroupRole::Deputy { .. })) {
                // its right has ended, and it is a member
                (self.refused, self.made_for) = (self.role.clone(), None);
            }
        }
        tracing::warn!("{}: lcroute guest ended: {status}", self.name);
        self.problem = Some(ended.unwrap_or_else(|| {
            format!("lcroute guest ended ({status}): its reason is in the log of `lcgroup run`")
        }));
        self.state = GroupState::default();
        self.try_later(now);
    }

    fn start(&self, now: Instant) -> anyhow::Result<Link> {
        let Some(role) = self.role.clone() else {
            anyhow::bail!("no way into the network");
        };
        let (control, their_control) = UnixDatagram::pair()?;
        control.set_nonblocking(true)?;
        let (packets, their_packets) = hub::pair()?;
        let entry = GroupEntry {
            control: their_control.as_raw_fd(),
            packets: their_packets.as_raw_fd(),
            state: std::path::absolute(self.folder.join(NETWORK))?,
            places: self.kept.places.clone(),
            role,
        };
        let pipe = pipe_of(&entry)?;
        let theirs = [
            their_control.as_raw_fd(),
            their_packets.as_raw_fd(),
            pipe.as_raw_fd(),
        ];
        let mut command = guest::lcroute();
        command
            .args(["guest", "--group-fd"])
            .arg(pipe.as_raw_fd().to_string())
            .arg("--")
            .arg(own_program()?)
            .args(["carry", "--packets"])
            .arg(their_packets.as_raw_fd().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        // in the child alone: programs that other threads start meanwhile have none of them
        let open = move || {
            for fd in theirs {
                // SAFETY: the parent keeps them open until the child has executed its program
                keep_open(unsafe { BorrowedFd::borrow_raw(fd) }, true)?;
            }
            Ok(())
        };
        // SAFETY: between fork and exec; makes system calls only, and allocates nothing
        unsafe { command.pre_exec(open) };
        let child = command.spawn()?;
        let address = self.address.octets();
        send(packets.as_raw_fd(), &address, MsgFlags::MSG_DONTWAIT)?;
        Ok(Link {
            child,
            packets: Arc::new(packets),
            control,
            since: now,
            is_closed: false,
        })
    }

    /// Sends a packet to the other members. A lost one is repaired.
    pub fn send(&mut self, packet: &[u8]) {
        let Some(link) = self.link.as_ref().filter(|_| self.state.found) else {
            return;
        };
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        if send(link.packets.as_raw_fd(), packet, flags).is_err() {
            self.lost += 1;
        }
    }

    /// Passes on packets of other members, and reads what the guest says. `key` is that of its texts,
    /// for an issuer. Returns whether there may be more.
    pub fn receive(
        &mut self,
        key: Option<&SecretKey>,
        now: Instant,
        mut each: impl FnMut(Ipv6Addr, &[u8]),
    ) -> bool {
        let Some(link) = &mut self.link else {
            return false;
        };
        let mut buffer = vec![0; MAX_MESSAGE];
        let (mut said, mut lc0) = (Vec::new(), None);
        while let Ok(length) = link.control.recv(&mut buffer) {
            match serde_json::from_slice(buffer.get(..length).unwrap_or_default()) {
                Ok(message) => said.push(message),
                Err(e) => tracing::warn!("{}: lcroute guest: {e}", self.name),
            }
        }
        for _ in 0..AT_ONCE {
            let flags = MsgFlags::MSG_DONTWAIT;
            match recv(
                link.packets.as_raw_fd(),
                &mut buffer[..SOURCE + MAX_PACKET],
                flags,
            ) {
                Ok(length) if length > SOURCE => {
                    let (source, packet) = buffer[..length].split_at(SOURCE);
                    let source = address_of(source);
                    if source.is_unspecified() && length == ADDRESSES {
                        let (address, link_local) = packet.split_at(SOURCE);
                        lc0 = Some(Lc0 {
                            packets: Arc::clone(&link.packets),
                            addresses: (address_of(address), address_of(link_local)),
                            run: self.runs,
                        });
                    } else {
                        each(source, packet);
                    }
                }
                Err(Errno::EINTR) => {}
                ended => {
                    link.is_closed = ended == Ok(0);
                    self.hear_all(said, lc0, key, now);
                    return false;
                }
            }
        }
        self.hear_all(said, lc0, key, now);
        true
    }

    fn hear_all(
        &mut self,
        said: Vec<FromGuest>,
        lc0: Option<Lc0>,
        key: Option<&SecretKey>,
        now: Instant,
    ) {
        if lc0.is_some() {
            self.set_lc0(lc0);
        }
        said.into_iter()
            .for_each(|message| self.hear(message, key, now));
    }

    fn hear(&mut self, message: FromGuest, key: Option<&SecretKey>, now: Instant) {
        match message {
            FromGuest::State(state) => {
                if state.links > 0 && self.state.links == 0 {
                    (self.is_back, self.is_expelled) = (true, false);
                }
                if state.links == 0 && self.state.links > 0 {
                    self.alone = now;
                }
                self.state = state;
            }
            FromGuest::Sign {
                text,
                time,
                sequence,
                value,
            } => {
                let signature = self.sign(&text, (time, sequence, &value.0), key);
                let signature = signature.unwrap_or([0; 64]);
                let answer = ToGuest::Signed {
                    text,
                    signature: Base58(signature),
                };
                if let (Some(link), Ok(json)) = (&self.link, serde_json::to_vec(&answer)) {
                    // the guest asks anew with the next record
                    let _ = link.control.send(&json);
                }
            }
        }
    }

    /// Signs the record of an open text for a DHT. The guest reads what strangers send, so the key
    /// stays here.
    fn sign(
        &self,
        text: &Base58<32>,
        (time, sequence, value): (u64, u64, &[u8]),
        key: Option<&SecretKey>,
    ) -> Option<[u8; 64]> {
        let mut texts = self.wanted.texts.iter();
        let text = texts.find(|wanted| wanted.secret == *text)?.text_key();
        let item = (i64::try_from(sequence).ok()?, value);
        if time.abs_diff(UnixTime::now().as_secs()) > DAY {
            return None;
        }
        Some(text.sign_item(key?, item, UnixTime::from_secs(time)))
    }

    /// Returns whether the first link came up since the last call.
    pub fn take_back(&mut self) -> bool {
        std::mem::take(&mut self.is_back)
    }

    /// Why this host does not reach other members, and what to check; none: it does.
    #[must_use]
    pub fn waits(&self) -> Option<String> {
        let state = &self.state;
        if let Some(why) = self.problem.as_ref().or(state.ended.as_ref()) {
            return Some(format!("waits for the group's network: {why}"));
        }
        if self.role.is_none() || state.links > 0 {
            let depends = state.links > 0 && !state.lasting;
            return depends.then(|| {
                "waits for a certificate of the group's network that outlasts the invitation: the owner's host, or a deputy's in office, sends it within seconds".to_owned()
            });
        }
        let places = self.places();
        let is_owner = self.is_issuer();
        let firewalls = match state.servers.is_empty() && self.kept.places.is_empty() {
            true => {
                format!(", and do the firewalls of both hosts let in UDP port 5353 (`{MDNS_RULE}`)")
            }
            false => String::new(),
        };
        let server = match (state.servers.is_empty(), state.answering) {
            (false, 0) if state.found => {
                let servers = state.servers.join(", ");
                format!("{servers} does not answer: does it run, and does this host reach it?")
            }
            (true, _) if is_owner => format!(
                "nobody is linked yet: others find this host {places}, where its firewall lets in UDP ports {} and 5353",
                state.port
            ),
            _ if is_owner => return None,
            _ if state.found => {
                format!(
                    "nobody of it is reached {places}: does `lcgroup run` run at another member{firewalls}?"
                )
            }
            _ => format!(
                "it is looked for {places}: does `lcgroup run` run on the owner's host, is the line whole, and does the server behind the @ run{firewalls}?"
            ),
        };
        Some(match state.stale {
            true => "waits for the group's network: what is found of it is of another day: is the clock of this host right (`timedatectl`)?".to_owned(),
            false => format!("waits for the group's network: {server}"),
        })
    }

    /// Where others are looked for.
    fn places(&self) -> String {
        let state = &self.state;
        let servers = match state.servers.is_empty() {
            true => self.kept.places.iter().map(Place::to_string).collect(),
            false => state.servers.clone(),
        };
        let mut all = Vec::new();
        if !servers.is_empty() {
            all.push(format!("at {}", servers.join(", ")));
        }
        if state.on_lans || servers.is_empty() {
            all.push("on the LANs of this host".to_owned());
        }
        if state.dht {
            all.push("by a DHT".to_owned());
        }
        all.join(" and ")
    }

    /// Returns it for `status`.
    #[must_use]
    pub fn status(&self) -> NetworkStatus {
        NetworkStatus {
            places: self.kept.places.iter().map(Place::to_string).collect(),
            links: self.state.links,
            present: self.state.present,
            port: self.state.port,
            mapped: self.state.mapped,
            lasting: self.state.lasting,
            waits: self.waits(),
        }
    }

    /// Begins the end of the guest, which [`Self::look_at_guest`] waits for.
    fn part(&mut self, now: Instant) {
        self.set_lc0(None);
        // the program inside ends with its socket
        if let Some(link) = self.link.take() {
            self.leaving = Some((link.child, now + GOODBYE));
        }
    }

    /// Begins the end of all guests; returns them, to be waited for.
    fn let_go(&mut self) -> Vec<Child> {
        self.set_lc0(None);
        let link = self.link.take().map(|link| link.child);
        let leaving = self.leaving.take().map(|(child, _)| child);
        link.into_iter().chain(leaving).collect()
    }

    /// Ends the guest.
    pub fn end(mut self) {
        end_all(self.let_go());
    }
}

fn address_of(bytes: &[u8]) -> Ipv6Addr {
    let bytes: [u8; SOURCE] = bytes.try_into().unwrap_or_default();
    bytes.into()
}

/// The descriptors to wait for.
pub fn fds<'a>(all: impl Iterator<Item = &'a Outside>) -> impl Iterator<Item = BorrowedFd<'a>> {
    let links = all.filter_map(|outside| outside.link.as_ref());
    links.flat_map(|link| {
        let packets = (!link.is_closed).then(|| link.packets.as_fd());
        packets.into_iter().chain([link.control.as_fd()])
    })
}

/// Ends the guests of all groups.
pub fn end(all: impl Iterator<Item = Outside>) {
    let mut all: Vec<_> = all.collect();
    end_all(all.iter_mut().flat_map(Outside::let_go).collect());
}

/// Waits for guests that say goodbye, and kills those that do not.
fn end_all(mut children: Vec<Child>) {
    let until = Instant::now() + GOODBYE;
    loop {
        children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        if children.is_empty() {
            return;
        }
        if Instant::now() >= until {
            break;
        }
        thread::sleep(LOOK);
    }
    for mut child in children {
        // it may have ended
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// The networks of a host, by the name of the group.
pub type Networks = BTreeMap<String, Outside>;

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        text.parse().unwrap()
    }

    #[test]
    fn a_service_without_what_a_guest_needs_says_what_to_do() {
        check_families(|_| Ok(())).unwrap();
        check_families(|_| Err(Errno::EMFILE)).unwrap();
        check_service().unwrap();
        for refused in [AddressFamily::Inet, AddressFamily::Netlink] {
            let open = |family| match family == refused {
                true => Err(Errno::EAFNOSUPPORT),
                false => Ok(()),
            };
            let e = check_families(open).unwrap_err();
            let text = e.to_string();
            assert!(
                text.contains("RestrictAddressFamilies=") && text.contains("as your own user"),
                "{text}"
            );
            assert_eq!(e.exit, Exit::NotPermitted);
        }
    }

    #[test]
    fn a_file_comes_back_and_a_group_without_one_has_no_network() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Kept::read(folder.path()).unwrap().is_none());
        let kept = Kept {
            places: vec![place("meet.example"), place("ws://10.0.0.1:7117")],
            secret: Some(Base58([7; 32])),
            by: Some(SecretKey::from_seed(&[8; 32]).peer_id()),
            node: None,
            mailboxes: true,
        };
        kept.write(folder.path()).unwrap();
        let back = Kept::read(folder.path()).unwrap().unwrap();
        assert_eq!((&back.places, back.secret), (&kept.places, kept.secret));
        assert_eq!(back.by, kept.by);
        assert!(back.mailboxes && back.node.is_none());
        assert!(!format!("{back:?}").contains(&Base58([7; 32]).to_string()));
        fs::write(folder.path().join(FILE), b"{\"places\":[").unwrap();
        let e = Kept::read(folder.path()).unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_line_has_a_place_behind_it() {
        let line = Zeroizing::new("lcg1abc".to_owned());
        let with = at_place(line.clone(), &[place("meet.example"), place("b.example")]);
        assert_eq!(*with, "lcg1abc@meet.example");
        assert_eq!(at_place(line.clone(), &[]), line);
        let (text, found) = with_place(&with).unwrap();
        assert_eq!((text, found), ("lcg1abc", Some(place("meet.example"))));
        assert_eq!(with_place(" lcg1abc\n").unwrap(), ("lcg1abc", None));
        for wrong in ["lcg1abc@", "lcg1abc@a b", "lcg1abc@a@b"] {
            let e = with_place(wrong).unwrap_err();
            let e = e.downcast_ref::<ExitError>().unwrap();
            assert_eq!(e.exit, Exit::Usage, "{wrong}");
        }
        assert!(check_places(&vec![place("a"); 3]).is_ok());
        assert!(check_places(&vec![place("a"); 4]).is_err());
    }

    /// The network of a member that meets others at these places.
    fn of_member(folder: &Path, places: Vec<Place>, now: Instant) -> Outside {
        let kept = Kept {
            places,
            ..Kept::default()
        };
        let role = GroupRole::Member {
            key: Base58([1; 32]),
            group: SecretKey::from_seed(&[2; 32]).peer_id(),
            secret: Base58([3; 32]),
        };
        let at = (Ipv6Addr::LOCALHOST, Some(role));
        let wake = Arc::new(EventFd::new().unwrap());
        Outside::new(("team", folder), kept, at, wake, now).unwrap()
    }

    #[test]
    fn a_program_finds_no_lc0_before_the_guest_has_one_and_is_told_why() {
        let folder = tempfile::tempdir().unwrap();
        let mut outside = of_member(folder.path(), Vec::new(), Instant::now());
        let why = |outside: &Outside| outside.lc0().unwrap_err().to_string();
        assert!(why(&outside).contains("it starts"), "{}", why(&outside));
        outside.problem = Some("lcroute must be installed".into());
        outside.set_problem();
        let told = why(&outside);
        assert!(told.contains("lcroute must be installed"), "{told}");
        let (packets, _theirs) = hub::pair().unwrap();
        outside.set_lc0(Some(Lc0 {
            packets: Arc::new(packets),
            addresses: (Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST),
            run: 7,
        }));
        assert_eq!(outside.lc0().unwrap().run, 7);
    }

    #[test]
    fn who_looks_on_lans_alone_is_told_of_firewalls() {
        let folder = tempfile::tempdir().unwrap();
        let now = Instant::now();
        let mut outside = of_member(folder.path(), Vec::new(), now);
        for found in [false, true] {
            let state = GroupState {
                found,
                on_lans: true,
                ..GroupState::default()
            };
            outside.hear(FromGuest::State(state), None, now);
            let told = outside.waits().unwrap_or_default();
            assert!(told.contains(MDNS_RULE), "{told}");
        }
    }

    #[test]
    fn who_waits_is_told_where_others_are_looked_for() {
        let folder = tempfile::tempdir().unwrap();
        let now = Instant::now();
        let mut outside = of_member(folder.path(), vec![place("meet.example")], now);
        let told = |outside: &Outside| outside.waits().unwrap_or_default();
        assert!(
            told(&outside).contains("at meet.example"),
            "{}",
            told(&outside)
        );
        let mut state = GroupState {
            servers: vec!["wss://meet.example".into()],
            ..GroupState::default()
        };
        let hear = |outside: &mut Outside, state: &GroupState| {
            outside.hear(FromGuest::State(state.clone()), None, now);
        };
        state.stale = true;
        hear(&mut outside, &state);
        assert!(told(&outside).contains("clock"), "{}", told(&outside));
        (state.stale, state.found) = (false, true);
        hear(&mut outside, &state);
        assert!(
            told(&outside).contains("does not answer"),
            "{}",
            told(&outside)
        );
        assert!(!outside.take_back());
        state.links = 1;
        hear(&mut outside, &state);
        assert!(told(&outside).contains("outlasts"), "{}", told(&outside));
        assert!(!outside.status().lasting);
        state.lasting = true;
        hear(&mut outside, &state);
        assert_eq!(outside.waits(), None);
        assert!(outside.status().lasting);
        assert!(outside.take_back() && !outside.take_back());
        (state.links, state.ended) = (0, Some("removed".into()));
        hear(&mut outside, &state);
        assert!(told(&outside).contains("removed"), "{}", told(&outside));
    }
}
