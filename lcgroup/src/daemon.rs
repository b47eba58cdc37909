//! `lcgroup run`: sockets, files and the clock around the groups of this host.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use lcgroup_core::outside::mailboxes;
use lcgroup_core::{DEVICE_PREFIX, DeviceInvitation, Founding, Invitation, InvitationError, Terms};
use librecast::cert::GroupPrefix;
use librecast::id::SecretKey;
use librecast::local;
use librecast::reach::Base58;
use librecast::text::{TextKind, encode};
use librecast::time::{UnixTime, utc};
use librecast_log_host::{Network, seed};
use librecast_program::cli::{Exit, ExitError};
use librecast_program::interrupt::on_signals;
use librecast_program::service::{self, Service};
use librecast_program::state_lock::StateLock;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::Signal;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::time::TimeSpec;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::board::Board;
use crate::carrier::{Carrier, Plan, Way};
use crate::desktop::Desktop;
use crate::giver::{Giver, Wanted};
use crate::held::Held;
use crate::holding_key::HoldingKey;
use crate::hub::Lc0;
use crate::logs::{DEFAULT_KEEP, LEAST_KEEP, LONGEST_KEEP};
use crate::names::chosen;
use crate::outside::{self, Kept, MAX_NETWORKS, MAX_OPEN, Networks, Outside};
use crate::request::is_name;
use crate::request::{GroupStatus, HeldStatus, MAX_TEXT, Request, Status, Tail};
use crate::room::{FileAnswer, Room, SUSPENDED, clock_step, invitation_id, label};
use crate::server::{Answer, Asked, serve};

mod boards;

/// Interval between two checks of the interfaces.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Pause before a failed write is tried again.
const DISK_AGAIN: Duration = Duration::from_secs(1);

/// Interval between two checks for files that consist mostly of expired entries.
const COMPACT_INTERVAL: Duration = Duration::from_secs(3_600);

/// Interval between two plans for files. Chosen: people wait for a file for a second or more.
const CARRY_INTERVAL: Duration = Duration::from_secs(1);

/// Groups, held ones included: each may store 64 MiB.
const MAX_GROUPS: usize = 64;

/// Unix group whose members may use the socket.
const GROUP: &str = "lcgroup";

/// Options of the command line.
#[derive(Debug)]
pub struct Options {
    /// The folder of groups.
    pub state_dir: PathBuf,
    pub control: PathBuf,
    /// Interfaces; none: all that can carry multicast.
    pub interfaces: Vec<String>,
    /// Show new messages on the user's desktop.
    pub notify: bool,
}

/// Runs until a signal stops it.
pub fn run(options: &Options) -> anyhow::Result<Exit> {
    // keys and messages are in memory
    nix::sys::prctl::set_dumpable(false).context("no core dumps")?;
    let stop = Arc::new(AtomicBool::new(false));
    let wake = Arc::new(EventFd::from_flags(
        EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC,
    )?);
    let (flag, woken) = (Arc::clone(&stop), Arc::clone(&wake));
    on_signals(&[Signal::SIGINT, Signal::SIGTERM], move |_| {
        flag.store(true, Ordering::Relaxed);
        // a full counter wakes the daemon as well
        let _ = woken.write(1);
    })?;
    let state = &options.state_dir;
    for folder in [
        state.clone(),
        state.join("groups"),
        state.join("held"),
        state.join(boards::FOLDER),
    ] {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .with_context(|| folder.display().to_string())?;
    }
    let _lock = StateLock::take(state, "lcgroup")?;
    let now = Instant::now();
    let mut daemon = Daemon {
        state: state.clone(),
        network: Network::open(&options.interfaces, now).context("multicast sockets")?,
        giver: Giver::start().context("a thread for lcroute")?,
        carrier: Carrier::start(
            state,
            Way::Interfaces(options.interfaces.clone()),
            Arc::clone(&wake),
        )
        .context("a thread for files")?,
        wake: Arc::clone(&wake),
        carry_at: now,
        desktop: options
            .notify
            .then(Desktop::start)
            .transpose()
            .context("a thread for the desktop")?,
        rooms: BTreeMap::new(),
        held: BTreeMap::new(),
        boards: BTreeMap::new(),
        networks: Networks::new(),
        held_networks: Networks::new(),
        disk_again: None,
        compact_at: now + COMPACT_INTERVAL,
        due: true,
        turned: None,
    };
    daemon.open_all(now)?;
    let socket = bind(&options.control)?;
    let requests = serve(socket, Arc::clone(&wake))?;
    service::ready();
    tracing::info!(
        "ready: {} groups, {} held, on {}",
        daemon.rooms.len(),
        daemon.held.len(),
        daemon.network.interface_names().join(", ")
    );
    let ended = daemon.run(&requests, &stop, &wake);
    service::stopping();
    let networks = daemon.networks.into_values();
    outside::end(networks.chain(daemon.held_networks.into_values()));
    // another process may have removed it already
    let _ = fs::remove_file(&options.control);
    ended?;
    Ok(Exit::Ok)
}

struct Daemon {
    state: PathBuf,
    network: Network,
    giver: Giver,
    carrier: Carrier,
    wake: Arc<EventFd>,
    /// When files are planned again.
    carry_at: Instant,
    /// Where new messages are shown.
    desktop: Option<Desktop>,
    rooms: BTreeMap<String, Room>,
    held: BTreeMap<String, Held>,
    boards: BTreeMap<String, Board>,
    /// Networks of groups that have one of their own, by the groups' names.
    networks: Networks,
    /// The same for groups that are held.
    held_networks: Networks,
    /// A write failed: nothing is sent until it succeeds.
    disk_again: Option<Instant>,
    compact_at: Instant,
    /// A packet or request for a room is pending.
    due: bool,
    /// The clocks at the last turn.
    turned: Option<(UnixTime, Instant)>,
}

impl Daemon {
    fn open_all(&mut self, now: Instant) -> anyhow::Result<()> {
        for (name, folder) in folders(&self.state.join("groups"))? {
            // a group that cannot be opened does not stop the rest
            match Room::open(&folder, &name, now) {
                Ok(room) => match Kept::read(&folder) {
                    Ok(kept) => self.add(name, room, kept, now)?,
                    // without it the group would leave its network
                    Err(e) => tracing::error!("group {name}: {e}"),
                },
                Err(e) => tracing::error!("group {name}: {e:#}"),
            }
        }
        for (name, folder) in folders(&self.state.join("held"))? {
            match Held::open(&folder, &name, now) {
                Ok(held) => match Kept::read(&folder) {
                    Ok(kept) => self.add_held(name, held, kept, now)?,
                    Err(e) => tracing::error!("held group {name}: {e}"),
                },
                Err(e) => tracing::error!("held group {name}: {e}"),
            }
        }
        self.open_boards(now)
    }

    fn run(
        &mut self,
        requests: &Receiver<Asked>,
        stop: &AtomicBool,
        wake: &EventFd,
    ) -> io::Result<()> {
        let mut service = Service::of_environment();
        while !stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            service.alive(now);
            if self.network.look_at_interfaces(now)? {
                for room in self.rooms.values_mut() {
                    room.come_back(now);
                }
                for board in self.boards.values_mut() {
                    board.come_back(now);
                }
                self.due = true;
            }
            let mut asked = Vec::new();
            while let Ok(Asked { request, answer }) = requests.try_recv() {
                let changed = request.changes().map(str::to_owned);
                let saves = changed.as_ref().and_then(|group| self.saves(group));
                let answered = match changed.is_some() && self.is_disk_full() {
                    true => Err(disk_full("the disk takes nothing")),
                    false => Ok(self.answer(request)),
                };
                let answered = answered.unwrap_or_else(|refused| refused);
                asked.push((answer, answered, changed.zip(saves)));
                self.due = true;
            }
            self.receive()?;
            if let Err(e) = self.turn() {
                for (_, answer, changed) in &mut asked {
                    if let (Answer::Ok(_), Some((group, saves))) = (&answer, changed)
                        && self.saves(group) == Some(*saves)
                    {
                        self.forget_changes(group, now);
                        *answer = disk_full(&e.to_string());
                    }
                }
            }
            if !asked.is_empty() {
                self.carry_at = now;
            }
            self.carry();
            for (to, answer, _) in asked {
                // the client may have disconnected
                let _ = to.send(answer);
            }
            self.wait(wake, &service)?;
        }
        Ok(())
    }

    /// The number of writes of a group's state.
    fn saves(&self, group: &str) -> Option<u64> {
        self.rooms.get(group).map(Room::saves)
    }

    /// Whether a write failed earlier and fails again.
    fn is_disk_full(&mut self) -> bool {
        if self.disk_again.is_some() {
            self.disk_again = Some(Instant::now());
            return self.turn().is_err();
        }
        false
    }

    /// Restores the group from its files: a request that could not be written has no effect.
    fn forget_changes(&mut self, group: &str, now: Instant) {
        let Some(room) = self.rooms.get_mut(group) else {
            return;
        };
        if let Err(e) = room.reopen(now) {
            tracing::error!("group {group}: {e:#}");
        }
    }

    fn receive(&mut self) -> io::Result<()> {
        let (time, now) = (UnixTime::now(), Instant::now());
        let (rooms, held) = (&mut self.rooms, &mut self.held);
        let boards = &mut self.boards;
        let (networks, held_networks) = (&mut self.networks, &mut self.held_networks);
        let mut any = false;
        let more = self.network.receive(|group, source, bytes| {
            any = true;
            let source = IpAddr::from(source);
            let rooms = rooms.iter_mut();
            // nothing crosses into a network of its own
            let rooms = rooms.filter(|(name, _)| !networks.contains_key(*name));
            for (_, room) in rooms.filter(|(_, room)| room.address() == group) {
                room.handle_packet(source, bytes, time, now);
            }
            let held = held.iter_mut();
            let held = held.filter(|(name, _)| !held_networks.contains_key(*name));
            for (_, held) in held.filter(|(_, held)| held.address() == group) {
                held.handle_packet(source, bytes, time, now);
            }
            let boards = boards.values_mut();
            for board in boards.filter(|board| board.address() == group) {
                board.handle_packet(source, bytes, time, now);
            }
        })?;
        self.due |= any || more;
        for (name, outside) in networks {
            let Some(room) = rooms.get_mut(name) else {
                continue;
            };
            let key = room.group().text_owner();
            let key = key.map(|key| SecretKey::from_seed(&key.seed()));
            self.due |= outside.receive(key.as_ref(), now, |source, bytes| {
                any = true;
                room.handle_packet(source.into(), bytes, time, now);
            });
            if outside.take_back() {
                room.come_back(now);
                any = true;
            }
        }
        for (name, outside) in held_networks {
            let Some(held) = held.get_mut(name) else {
                continue;
            };
            self.due |= outside.receive(None, now, |source, bytes| {
                any = true;
                held.handle_packet(source.into(), bytes, time, now);
            });
        }
        self.due |= any;
        Ok(())
    }

    /// Starts networks that groups have of their own where that is due, and tells them what owners and
    /// deputies want.
    fn review_networks(&mut self, time: UnixTime, now: Instant) {
        for (name, outside) in &mut self.networks {
            if let Some(room) = self.rooms.get_mut(name)
                && outside.is_old(room.saves(), time)
            {
                // the next turn writes it
                self.due |= room.state_network(time);
            }
            let room = self.rooms.get(name);
            outside.review(room.map(|room| (room.group(), room.saves())), time, now);
        }
        for outside in self.held_networks.values_mut() {
            outside.review(None, time, now);
        }
    }

    /// Runs a turn of all groups with work, and sends packets whose state is on disk.
    fn turn(&mut self) -> io::Result<()> {
        let (time, now) = (UnixTime::now(), Instant::now());
        let before = self.turned.replace((time, now));
        if before.is_some_and(|before| clock_step(before, (time, now)).unsigned_abs() > SUSPENDED) {
            self.due = true;
        }
        if self.disk_again.is_some_and(|at| at > now) {
            return Err(io::Error::other("the disk takes nothing"));
        }
        let was_full = self.disk_again.take().is_some();
        let all = std::mem::take(&mut self.due) || was_full;
        let mut failed = None;
        for (name, room) in &mut self.rooms {
            if !all && room.next_timeout(time, now) > now {
                continue;
            }
            match room.turn(time, now) {
                Ok(()) => {
                    if let Some(desktop) = &self.desktop
                        && let Some(notification) = room.take_notification()
                    {
                        desktop.show(name, notification);
                    }
                    for (group, bytes) in room.take_transmits() {
                        match self.networks.get_mut(name) {
                            Some(outside) => outside.send(&bytes),
                            None => self.network.send(group, &bytes),
                        }
                    }
                }
                Err(e) => failed = Some((name, e)),
            }
        }
        for (name, held) in &mut self.held {
            if !all && held.next_timeout() > now {
                continue;
            }
            match held.turn(time, now) {
                Ok(()) => {
                    for (group, bytes) in held.take_transmits() {
                        match self.held_networks.get_mut(name) {
                            Some(outside) => outside.send(&bytes),
                            None => self.network.send(group, &bytes),
                        }
                    }
                }
                Err(e) => failed = Some((name, e)),
            }
        }
        for (name, board) in &mut self.boards {
            if !all && board.next_timeout() > now {
                continue;
            }
            match board.turn(time, now) {
                Ok(()) => {
                    for (group, bytes) in board.take_transmits() {
                        self.network.send(group, &bytes);
                    }
                }
                Err(e) => failed = Some((name, e)),
            }
        }
        if let Some((name, e)) = failed {
            if !was_full {
                tracing::error!("{name}: nothing is sent until the disk takes it: {e}");
            }
            self.disk_again = Some(now + DISK_AGAIN);
            return Err(e);
        }
        if was_full {
            tracing::info!("the disk takes everything again");
        }
        self.give(now);
        self.review_networks(time, now);
        if self.compact_at <= now {
            self.compact_at = now + COMPACT_INTERVAL;
            for room in self.rooms.values_mut() {
                room.compact()?;
                room.tidy_files();
            }
            for held in self.held.values_mut() {
                held.compact()?;
                held.tidy_files();
            }
            for board in self.boards.values_mut() {
                board.compact()?;
            }
        }
        Ok(())
    }

    /// Plans which files are served and fetched.
    fn carry(&mut self) {
        let (time, now) = (UnixTime::now(), Instant::now());
        let all = self.networks.values().chain(self.held_networks.values());
        let all = all.map(Outside::carrier).chain([&self.carrier]);
        let changed: Vec<_> = all.flat_map(Carrier::take_changed).collect();
        if changed.is_empty() && self.carry_at > now {
            return;
        }
        self.carry_at = now + CARRY_INTERVAL;
        for (folder, id) in changed {
            let of_rooms = self.rooms.values_mut();
            for room in of_rooms.filter(|room| room.file_folder() == folder) {
                room.look_at_file(id);
            }
            let of_held = self.held.values_mut();
            for held in of_held.filter(|held| held.file_folder() == folder) {
                held.look_at_file(id);
            }
        }
        let mut common = Plan::default();
        for (name, room) in &mut self.rooms {
            match self.networks.get(name) {
                None => room.plan_files(&mut common, time, now),
                Some(network) => {
                    let mut plan = Plan::default();
                    room.plan_files(&mut plan, time, now);
                    network.carrier().set(plan);
                }
            }
        }
        for (name, held) in &mut self.held {
            match self.held_networks.get(name) {
                None => held.plan_files(&mut common, &self.carrier, now),
                Some(network) => {
                    let mut plan = Plan::default();
                    held.plan_files(&mut plan, network.carrier(), now);
                    network.carrier().set(plan);
                }
            }
        }
        self.carrier.set(common);
    }

    /// The carrier of a group's files.
    fn carrier_of(&self, group: &str) -> &Carrier {
        self.networks
            .get(group)
            .map_or(&self.carrier, Outside::carrier)
    }

    /// Returns lc0 of a group's own network.
    fn lc0(&mut self, group: &str) -> anyhow::Result<Lc0> {
        self.room(group)?;
        let network = self.networks.get(group).ok_or_else(|| {
            let text = format!("{group} has no network of its own");
            ExitError::new(Exit::Usage, text)
        })?;
        Ok(network.lc0()?)
    }

    /// Passes the keys of all protected prefixes to lcroute.
    fn give(&self, now: Instant) {
        let mut wanted = Wanted::new();
        for room in self.rooms.values() {
            let secrets = room.secrets(now);
            if !secrets.is_empty() {
                let prefixes = room.prefixes().iter();
                wanted.extend(prefixes.map(|prefix| (*prefix, secrets.clone())));
            }
        }
        self.giver.set(wanted);
    }

    fn wait(&self, wake: &EventFd, service: &Service) -> io::Result<()> {
        let (time, now) = (UnixTime::now(), Instant::now());
        let rooms = self.rooms.values().map(|room| room.next_timeout(time, now));
        let held = self.held.values().map(Held::next_timeout);
        let boards = self.boards.values().map(Board::next_timeout);
        let first = match self.disk_again {
            Some(at) => Some(at),
            None => rooms.chain(held).chain(boards).min(),
        };
        let first = first.into_iter().chain(service.next_timeout()).min();
        let until = first.map_or(POLL_INTERVAL, |at| {
            at.saturating_duration_since(now).min(POLL_INTERVAL)
        });
        let mut fds: Vec<PollFd<'_>> = self
            .network
            .fds()
            .chain(outside::fds(
                self.networks.values().chain(self.held_networks.values()),
            ))
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        fds.push(PollFd::new(wake.as_fd(), PollFlags::POLLIN));
        match ppoll(&mut fds, Some(TimeSpec::from_duration(until)), None) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
        let _ = wake.read();
        Ok(())
    }

    fn answer(&mut self, request: Request) -> Answer {
        if let Request::Tail(Tail {
            group,
            after,
            last,
            follow,
            new,
        }) = request
        {
            return match self.room(&group) {
                Ok(room) => {
                    let (conversation, messages) = room.conversation();
                    let before_last = last.map(|last| messages.saturating_sub(last));
                    let first = room.first_unread().map_or(messages, |first| first - 1);
                    let after = after.or(before_last).or(new.then_some(first)).unwrap_or(0);
                    Answer::Tail(conversation, after, follow)
                }
                Err(e) => refused(&e),
            };
        }
        let now = Instant::now();
        match request {
            Request::SendFile {
                group,
                name,
                length,
            } => {
                let room = self.room(&group);
                let stage = room.and_then(|room| room.stage_file(&name, length));
                return match stage {
                    Ok(stage) => {
                        let serving = self.carrier_of(&group).serving();
                        Answer::Stage(stage, serving, self.state.clone())
                    }
                    Err(e) => refused(&e),
                };
            }
            Request::Get { group, which } => {
                let room = self.room(&group);
                return match room.and_then(|room| room.answer_file(&which, now)) {
                    Ok(FileAnswer::Here(here)) => Answer::File(here, group, self.state.clone()),
                    Ok(FileAnswer::Waits(listed)) => {
                        let room = self.rooms.get(&group);
                        let waits =
                            room.and_then(|r| r.waits_for(&listed, self.carrier_of(&group)));
                        Answer::Ok(
                            json!({ "waits": waits, "name": listed.name, "length": listed.length, "n": listed.n }),
                        )
                    }
                    Err(e) => refused(&e),
                };
            }
            Request::Enter { group } => {
                return match self.lc0(&group) {
                    Ok(lc0) => Answer::Enter(lc0),
                    Err(e) => refused(&e),
                };
            }
            _ => {}
        }
        match self.perform(request) {
            Ok(value) => Answer::Ok(value),
            Err(e) => refused(&e),
        }
    }

    fn perform(&mut self, request: Request) -> anyhow::Result<Value> {
        let (time, now) = (UnixTime::now(), Instant::now());
        match request {
            Request::Status {} => Ok(serde_json::to_value(self.status(now))?),
            Request::Create {
                group,
                name,
                topic,
                keep_s,
                history_s,
                outside,
                places,
            } => {
                let kept = outside.then(|| Kept {
                    places: places.clone(),
                    ..Kept::default()
                });
                if !outside && !places.is_empty() {
                    let text = "a place is for a group with a network of its own: --outside";
                    return Err(ExitError::new(Exit::Usage, text).into());
                }
                let terms = (keep_s, history_s);
                self.create(group, &name, (topic, kept), terms, (time, now))
            }
            Request::Await { group } => self.ask_soon(&group, time, now),
            Request::Join {
                invitation,
                group,
                name,
            } => self.join(&invitation, group, &name, time, now),
            Request::Invite {
                group,
                uses,
                expires_s,
            } => {
                let expires = time
                    .as_millis()
                    .saturating_add(expires_s.saturating_mul(1_000));
                let network = self.networks.get(&group).map(Outside::kept);
                let places = network.map(|kept| kept.places.clone());
                let room = self.room(&group)?;
                if places.is_some() {
                    check_open(room, time)?;
                }
                let invitation = room.invite(uses, expires, places.is_some(), time)?;
                let line = outside::at_place(invitation.encode(), &places.unwrap_or_default());
                Ok(json!({ "invitation": *line, "id": invitation_id(invitation.id) }))
            }
            Request::Invitations { group } => {
                Ok(json!({ "invitations": self.room(&group)?.invitations(time)? }))
            }
            Request::Withdraw { group, invitation } => {
                let id = self.room(&group)?.withdraw(&invitation, time)?;
                Ok(json!({ "id": id }))
            }
            Request::Send { group, text, bytes } => {
                let content = content(text, bytes)?;
                self.send(&group, &content, time, now)
            }
            Request::Set {
                group,
                key,
                text,
                bytes,
            } => {
                let value = match (text, bytes) {
                    (None, None) => None,
                    (text, bytes) => Some(decoded(text, bytes)?),
                };
                let id = self.room(&group)?.set(&key, value, time)?;
                self.said(&group, id, now)
            }
            Request::Value { group, key } => {
                Ok(serde_json::to_value(self.room(&group)?.value(&key)?)?)
            }
            Request::Keys { group } => Ok(json!({ "keys": self.room(&group)?.keys() })),
            Request::Changes { group, after } => {
                let (last, changes) = self.room(&group)?.changes_after(after);
                Ok(json!({ "last": last, "changes": changes }))
            }
            Request::Call { group } => {
                let (id, text) = self.room(&group)?.call(time, now)?;
                let mut answer = self.said(&group, id, now)?;
                answer["call"] = json!(*text);
                Ok(answer)
            }
            Request::ServeFile { group, id } => {
                self.room(&group)?.serve_file(id, now);
                Ok(json!({}))
            }
            Request::LookAtFile { group, id } => {
                self.room(&group)?.look_at_file(id);
                Ok(json!({}))
            }
            Request::SayFile { group, file } => {
                let id = self.room(&group)?.say_file(&file, time, now)?;
                self.said(&group, id, now)
            }
            Request::Members { group } => Ok(json!({ "members": self.room(&group)?.members() })),
            Request::Remove {
                group,
                member,
                device,
                tell,
            } => {
                let room = self.room(&group)?;
                let epoch = room.epoch();
                let author = room.remove(&member, device.as_deref(), tell, time)?;
                Ok(json!({ "author": author, "epoch": epoch }))
            }
            Request::Deputies { group } => Ok(json!({ "deputies": self.room(&group)?.deputies() })),
            Request::AddDeputy {
                group,
                member,
                after_s,
            } => {
                let author = self.room(&group)?.add_deputy(&member, after_s, time)?;
                Ok(json!({ "author": author, "after_s": after_s }))
            }
            Request::RemoveDeputy { group, member } => {
                let author = self.room(&group)?.remove_deputy(&member, time)?;
                Ok(json!({ "author": author }))
            }
            Request::HandOver { group, member } => {
                let author = self.room(&group)?.hand_over(&member, time)?;
                Ok(json!({ "author": author }))
            }
            Request::DeviceAdd { group, expires_s } => {
                let network = self.networks.get(&group).map(Outside::kept);
                let places = network.map(|kept| kept.places.clone());
                let room = self.room(&group)?;
                let line = room.add_device(expires_s, places.is_some(), time)?;
                let line = outside::at_place(line, &places.unwrap_or_default());
                Ok(json!({ "invitation": *line }))
            }
            Request::Devices { group } => {
                Ok(serde_json::to_value(self.room(&group)?.own_member()?)?)
            }
            Request::DeviceRemove { group, device } => {
                let room = self.room(&group)?;
                let epoch = room.epoch();
                let author = room.remove_device(&device, time)?;
                Ok(json!({ "author": author, "epoch": epoch }))
            }
            Request::Read { group, n } => {
                self.room(&group)?.read_up_to(n, time);
                Ok(json!({}))
            }
            Request::Offer { group, name } => {
                let (key, signer) = self.room(&group)?.offer(&name, time)?;
                let signer = encode(TextKind::SharedKey, &*signer.seed());
                Ok(json!({ "key": *key, "signer": *signer }))
            }
            Request::Offered { group, name, by } => {
                let offer = self.room(&group)?.offered(&name, by.as_deref())?;
                Ok(json!({ "key": *offer.key, "signer": offer.signer }))
            }
            Request::Protect { group, prefix, end } => self.protect(&group, &prefix, end),
            Request::Refresh { group } => {
                self.room(&group)?.refresh(time)?;
                Ok(json!({}))
            }
            Request::Leave { group, forget } => self.leave(&group, forget),
            Request::Outbox { group } => {
                let outbox = self.room(&group)?.outbox().into_iter();
                let outbox = outbox.map(|(id, text)| json!({ "id": id, "text": text }));
                Ok(json!({ "outbox": outbox.collect::<Vec<_>>() }))
            }
            Request::Resend { group, id } => {
                self.room(&group)?.decide(&id, true, time)?;
                Ok(json!({}))
            }
            Request::Discard { group, id } => {
                self.room(&group)?.decide(&id, false, time)?;
                Ok(json!({}))
            }
            Request::HoldingKey { group } => {
                let room = self.room(&group)?;
                let own = room.group().group_key().map(mailboxes);
                let Some(network) = self.networks.get_mut(&group) else {
                    let key = self.room(&group)?.holding_key(None);
                    return Ok(json!({ "key": *key }));
                };
                let Some(own) = own else {
                    let text = "the group has a network of its own: its owner's host alone prints this line";
                    return Err(ExitError::new(Exit::NotPermitted, text).into());
                };
                network.serve_mailboxes()?;
                let places = network.kept().places.clone();
                let key = self.room(&group)?.holding_key(Some(own));
                Ok(json!({ "key": *outside::at_place(key, &places) }))
            }
            Request::Hold { key, name, space } => self.hold(&key, name, space, now),
            Request::Wake { group, line } => {
                self.room(&group)?.leave_line(line)?;
                Ok(json!({}))
            }
            Request::NextCall { name } => {
                let held = self.held.get_mut(&name).ok_or_else(|| none_held(&name))?;
                Ok(json!({ "line": held.call(time)? }))
            }
            Request::Unhold { name } => self.unhold(&name),
            Request::BoardCreate { .. }
            | Request::BoardPost { .. }
            | Request::BoardWriter { .. }
            | Request::BoardRead { .. }
            | Request::BoardFeed { .. }
            | Request::Follow { .. }
            | Request::Unfollow { .. } => self.serve_board(request, time, now),
            // answered earlier
            Request::Tail(_)
            | Request::SendFile { .. }
            | Request::Get { .. }
            | Request::Enter { .. } => Ok(json!({})),
        }
    }

    fn status(&self, now: Instant) -> Status {
        let outcome = |prefix: &GroupPrefix| self.giver.outcome(prefix);
        let interfaces = self.network.interface_names().into_iter();
        Status {
            groups: self
                .rooms
                .iter()
                .map(|(name, room)| {
                    let status = GroupStatus {
                        files: room.file_status(self.carrier_of(name)),
                        ..room.status(now, outcome)
                    };
                    self.with_network(name, status)
                })
                .collect(),
            held: self
                .held
                .iter()
                .map(|(name, held)| {
                    let network = self.held_networks.get(name);
                    let carrier = network.map_or(&self.carrier, Outside::carrier);
                    HeldStatus {
                        network: network.map(Outside::status),
                        files: held.file_status(carrier),
                        ..held.status()
                    }
                })
                .collect(),
            boards: self.boards.values().map(Board::status).collect(),
            interfaces: interfaces.map(str::to_owned).collect(),
        }
    }

    /// Adds the state of a group's own network: who is not in it, waits for it.
    fn with_network(&self, name: &str, mut status: GroupStatus) -> GroupStatus {
        status.network = self.networks.get(name).map(Outside::status);
        let network = status.network.as_ref();
        if status.waits.is_some() {
            let waits = network.and_then(|network| network.waits.clone());
            status.waits = waits.or(status.waits);
        }
        status
    }

    fn create(
        &mut self,
        group: String,
        name: &str,
        (topic, kept): (String, Option<Kept>),
        (keep, history): (Option<u64>, Option<u64>),
        (time, now): (UnixTime, Instant),
    ) -> anyhow::Result<Value> {
        if keep.is_some_and(|keep| keep != 0 && !(LEAST_KEEP..=LONGEST_KEEP).contains(&keep)) {
            let text = "a group keeps what was said for a day to 1000 years, or for ever";
            return Err(ExitError::new(Exit::Usage, text).into());
        }
        let name = chosen(name)?;
        let folder = self.new_folder("groups", &group)?;
        let founding = Founding {
            key: SecretKey::generate(),
            read_key: seed()?,
            topic,
            name,
        };
        let terms = (keep.is_some() || history.is_some()).then(|| Terms {
            keep: keep.unwrap_or(DEFAULT_KEEP),
            history: history.unwrap_or(0),
        });
        self.check_network(kept.as_ref())?;
        let room = Room::create(&folder, &group, founding, terms, (time, now))?;
        let room = with_file(room, &folder, kept.as_ref())?;
        let key = room.id();
        self.add(group, room, kept, now)?;
        Ok(json!({ "group": key }))
    }

    /// Asks members for an admission soon; returns the group's status.
    fn ask_soon(&mut self, group: &str, time: UnixTime, now: Instant) -> anyhow::Result<Value> {
        self.room(group)?.ask_soon(time);
        let names = self.network.interface_names().join(", ");
        let outcome = |prefix: &GroupPrefix| self.giver.outcome(prefix);
        let status = self.rooms.get(group).map(|room| room.status(now, outcome));
        let status = status.map(|status| self.with_network(group, status));
        Ok(json!({ "group": status, "interfaces": names }))
    }

    fn join(
        &mut self,
        invitation: &str,
        group: Option<String>,
        name: &str,
        time: UnixTime,
        now: Instant,
    ) -> anyhow::Result<Value> {
        let usage = |e: InvitationError| ExitError::new(Exit::Usage, format!("{e}"));
        let (invitation, place) = outside::with_place(invitation)?;
        let device = match invitation.trim().starts_with(DEVICE_PREFIX) {
            true => Some(invitation.parse::<DeviceInvitation>().map_err(usage)?),
            false => None,
        };
        let invitation: Invitation = match &device {
            Some(device) => device.invitation.clone(),
            None => invitation.parse().map_err(usage)?,
        };
        if place.is_some() && !invitation.outside {
            let text = "this group has no network of its own: its line ends before the @";
            return Err(ExitError::new(Exit::Usage, text).into());
        }
        let kept = invitation.outside.then(|| Kept {
            places: place.into_iter().collect(),
            secret: Some(Base58(*invitation.secret)),
            by: Some(invitation.to).filter(|to| *to != invitation.group),
            ..Kept::default()
        });
        if invitation.expires <= time.as_millis() {
            let text = format!(
                "the invitation has expired by this host's clock, which says {}: ask for another, or set the clock",
                utc(time.as_secs())
            );
            return Err(ExitError::new(Exit::Failed, text).into());
        }
        let group = group.unwrap_or_else(|| folder_name(&invitation.topic));
        let mut rooms = self.rooms.iter_mut();
        let same = rooms.find(|(_, room)| room.id() == invitation.group);
        if let Some((known, room)) = same {
            let waits = match device {
                Some(device) => room.ask_by_device(device, time)?,
                None => room.ask_by(invitation, time)?,
            };
            // a member that its network has expelled, as it came by a deputy whose right has ended
            let is_out = self.networks.get(known).is_some_and(Outside::is_expelled);
            if waits || (is_out && kept.is_some()) {
                let (key, known, waits) = (room.id(), known.clone(), room.waits());
                if let Some(kept) = kept {
                    self.enter_by(&known, kept, now)?;
                }
                return Ok(json!({ "name": known, "group": key, "waits": waits }));
            }
            let text = format!(
                "this host is in that group already: {known} (to join anew: lcgroup leave --forget {known})"
            );
            return Err(ExitError::new(Exit::Failed, text).into());
        }
        if let Some(device) = device {
            let (label, member) = (label(name)?, device.name.clone());
            let folder = self.new_folder("groups", &group)?;
            self.check_network(kept.as_ref())?;
            let room = Room::join_device(&folder, &group, device, &label, time, now)?;
            let room = with_file(room, &folder, kept.as_ref())?;
            let key = room.id();
            self.add(group.clone(), room, kept, now)?;
            return Ok(json!({ "name": group, "group": key, "device_of": member }));
        }
        let name = chosen(name)?;
        let folder = self.new_folder("groups", &group)?;
        self.check_network(kept.as_ref())?;
        let room = Room::join(&folder, &group, invitation, &name, time, now)?;
        let room = with_file(room, &folder, kept.as_ref())?;
        let key = room.id();
        self.add(group.clone(), room, kept, now)?;
        Ok(json!({ "name": group, "group": key }))
    }

    fn send(
        &mut self,
        group: &str,
        content: &[u8],
        time: UnixTime,
        now: Instant,
    ) -> anyhow::Result<Value> {
        let id = self.room(group)?.say(content, time, now)?;
        self.said(group, id, now)
    }

    /// The answer to a user who said something.
    fn said(&mut self, group: &str, id: u64, now: Instant) -> anyhow::Result<Value> {
        let room = self.room(group)?;
        let mut answer = json!({ "id": format!("{id:016x}") });
        for (key, said) in [("waits", room.waits()), ("clock", room.own_clock())] {
            if let Some(said) = said {
                answer[key] = said.into();
            }
        }
        if room.waits_shortly(now) {
            answer["shortly"] = true.into();
        }
        Ok(answer)
    }

    fn protect(&mut self, group: &str, prefix: &str, end: bool) -> anyhow::Result<Value> {
        let parsed: GroupPrefix = prefix
            .parse()
            .map_err(|e| ExitError::new(Exit::Usage, format!("`{prefix}`: {e}")))?;
        self.room(group)?;
        let others = self.rooms.iter().filter(|(name, _)| *name != group);
        let mut others = others.filter(|(_, room)| room.prefixes().contains(&parsed));
        if let Some((other, _)) = others.next() {
            let text = format!("{other} protects {parsed} already");
            return Err(ExitError::new(Exit::Usage, text).into());
        }
        self.room(group)?.protect(parsed, end)?;
        Ok(json!({ "prefix": parsed.to_string() }))
    }

    fn leave(&mut self, group: &str, forget: bool) -> anyhow::Result<Value> {
        let room = self.room(group)?;
        if !forget {
            room.leave()?;
        } else if let Some(room) = self.rooms.remove(group) {
            match self.networks.remove(group) {
                // it writes into the folder
                Some(network) => network.end(),
                None => self.part(room.address()),
            }
            room.delete()?;
        }
        Ok(json!({}))
    }

    fn hold(
        &mut self,
        key: &str,
        name: String,
        space: Option<u64>,
        now: Instant,
    ) -> anyhow::Result<Value> {
        let (key, place) = outside::with_place(key)?;
        let key =
            HoldingKey::decode(key).map_err(|e| ExitError::new(Exit::Usage, e.to_string()))?;
        if let (Some(held), Some(space)) = (self.held.get_mut(&name), space)
            && held.id() == key.group
        {
            held.set_space(space)?;
            return Ok(json!({ "group": key.group, "space": space }));
        }
        let kept = key.network.as_ref().map(|network| Kept {
            places: place.into_iter().collect(),
            secret: Some(Base58(*network.0)),
            node: Some(Base58(*SecretKey::generate().seed())),
            ..Kept::default()
        });
        let folder = self.new_folder("held", &name)?;
        self.check_network(kept.as_ref())?;
        let mut held = Held::create(&folder, &name, &key, now)?;
        if let Some(kept) = &kept
            && let Err(e) = kept.write(&folder)
        {
            held.delete()?;
            return Err(e.into());
        }
        if let Some(space) = space {
            held.set_space(space)?;
        }
        let space = held.space();
        self.add_held(name, held, kept, now)?;
        Ok(json!({ "group": key.group, "space": space }))
    }

    fn unhold(&mut self, name: &str) -> anyhow::Result<Value> {
        let held = self.held.remove(name).ok_or_else(|| none_held(name))?;
        match self.held_networks.remove(name) {
            Some(network) => network.end(),
            None => self.part(held.address()),
        }
        held.delete()?;
        Ok(json!({}))
    }

    fn room(&mut self, name: &str) -> anyhow::Result<&mut Room> {
        let none = || {
            ExitError::new(
                Exit::Usage,
                format!("no group is called {name:?}: lcgroup status lists them"),
            )
        };
        Ok(self.rooms.get_mut(name).ok_or_else(none)?)
    }

    fn add(
        &mut self,
        name: String,
        room: Room,
        kept: Option<Kept>,
        now: Instant,
    ) -> io::Result<()> {
        match kept {
            Some(kept) => {
                let at = (room.address(), outside::role(room.group(), &kept));
                let folder = self.state.join("groups").join(&name);
                let wake = Arc::clone(&self.wake);
                let network = Outside::new((&name, &folder), kept, at, wake, now)?;
                self.networks.insert(name.clone(), network);
            }
            None => self.network.join(room.address()),
        }
        self.rooms.insert(name, room);
        Ok(())
    }

    fn add_held(
        &mut self,
        name: String,
        held: Held,
        kept: Option<Kept>,
        now: Instant,
    ) -> io::Result<()> {
        match kept {
            Some(kept) => {
                let at = (held.address(), outside::mailbox(held.id(), &kept));
                let folder = self.state.join("held").join(&name);
                let wake = Arc::clone(&self.wake);
                let network = Outside::new((&name, &folder), kept, at, wake, now)?;
                self.held_networks.insert(name.clone(), network);
            }
            None => self.network.join(held.address()),
        }
        self.held.insert(name, held);
        Ok(())
    }

    /// Enters the network of a group by another invitation.
    fn enter_by(&mut self, name: &str, kept: Kept, now: Instant) -> anyhow::Result<()> {
        let Some(room) = self.rooms.get(name) else {
            return Ok(());
        };
        let role = outside::role(room.group(), &kept);
        let network = self.networks.get_mut(name);
        let network = network.context("the group had no network of its own")?;
        Ok(network.enter_by(kept, role, now)?)
    }

    /// Refuses another network beyond the bounds.
    fn check_network(&self, kept: Option<&Kept>) -> Result<(), ExitError> {
        let Some(kept) = kept else { return Ok(()) };
        outside::check_places(&kept.places)?;
        outside::check_service()?;
        match self.networks.len() + self.held_networks.len() < MAX_NETWORKS {
            true => Ok(()),
            false => {
                let text = format!("this host is in {MAX_NETWORKS} networks of groups already");
                Err(ExitError::new(Exit::Usage, text))
            }
        }
    }

    /// Leaves a multicast group, unless another group on this host uses it.
    fn part(&mut self, address: Ipv6Addr) {
        let rooms = self.rooms.iter();
        let rooms = rooms.filter(|(name, _)| !self.networks.contains_key(*name));
        let held = self.held.iter();
        let held = held.filter(|(name, _)| !self.held_networks.contains_key(*name));
        let held = held.map(|(_, held)| held.address());
        let boards = self.boards.values().map(Board::address);
        let rooms = rooms.map(|(_, room)| room.address());
        let mut wanted = rooms.chain(held).chain(boards);
        if !wanted.any(|other| other == address) {
            self.network.leave(address);
        }
    }

    fn new_folder(&self, kind: &str, name: &str) -> anyhow::Result<PathBuf> {
        let usage = |text: String| Err(ExitError::new(Exit::Usage, text).into());
        if !is_name(name) {
            return usage(format!(
                "{name:?}: a group is called by 1 to 64 letters, digits, '-', '_' and '.', not first"
            ));
        }
        if self.rooms.len() + self.held.len() + self.boards.len() >= MAX_GROUPS {
            return usage(format!("this host has {MAX_GROUPS} groups already"));
        }
        let folder = self.state.join(kind).join(name);
        if folder.symlink_metadata().is_ok() {
            return usage(format!("{name:?} is there already"));
        }
        Ok(folder)
    }
}

fn none_held(name: &str) -> ExitError {
    let text = format!("nothing that is held is called {name:?}");
    ExitError::new(Exit::Usage, text)
}

/// Writes what this host keeps of the network of a new group.
fn with_file(room: Room, folder: &Path, kept: Option<&Kept>) -> anyhow::Result<Room> {
    if let Some(kept) = kept
        && let Err(e) = kept.write(folder)
    {
        // half a group would block the next attempt
        room.delete()?;
        return Err(e.into());
    }
    Ok(room)
}

/// Refuses more invitations than lead into the network of a group at a time.
fn check_open(room: &Room, time: UnixTime) -> Result<(), ExitError> {
    if room.group().open_invitations(time).len() < MAX_OPEN {
        return Ok(());
    }
    let text = format!(
        "{MAX_OPEN} invitations are open already, as many as lead into the group's network at a time: `lcgroup withdraw` ends one of `lcgroup invitations`"
    );
    Err(ExitError::new(Exit::Failed, text))
}

fn disk_full(why: &str) -> Answer {
    let text = format!("nothing was done, as it could not be written to disk: {why}");
    Answer::Error(text, Exit::Failed as i32)
}

/// Returns the content of a message, from one of two forms.
fn content(
    text: Option<Zeroizing<String>>,
    bytes: Option<Zeroizing<String>>,
) -> anyhow::Result<Vec<u8>> {
    let content = decoded(text, bytes)?;
    if content.is_empty() || content.len() > MAX_TEXT {
        let text = format!("a message has 1 to {MAX_TEXT} bytes");
        anyhow::bail!(ExitError::new(Exit::Usage, text));
    }
    Ok(content)
}

/// Returns the bytes of a text, or of base64.
fn decoded(
    text: Option<Zeroizing<String>>,
    bytes: Option<Zeroizing<String>>,
) -> anyhow::Result<Vec<u8>> {
    Ok(match (text, bytes) {
        (Some(text), None) => text.as_bytes().to_vec(),
        (None, Some(bytes)) => BASE64
            .decode(bytes.as_bytes())
            .map_err(|e| ExitError::new(Exit::Usage, format!("bytes: {e}")))?,
        _ => anyhow::bail!(ExitError::new(Exit::Usage, "either text or bytes")),
    })
}

fn refused(e: &anyhow::Error) -> Answer {
    let mut causes = e.chain().filter_map(|e| e.downcast_ref::<ExitError>());
    let exit = causes.next().map_or(Exit::Failed, |e| e.exit);
    Answer::Error(format!("{e:#}"), exit as i32)
}

/// Derives a group's name from its topic.
fn folder_name(topic: &str) -> String {
    let kept = topic.chars().map(|c| match c {
        c if c.is_ascii_alphanumeric() || "-_.".contains(c) => c,
        _ => '-',
    });
    let name: String = kept.collect();
    match name.trim_start_matches('.') {
        "" => "group".to_owned(),
        name => name.chars().take(64).collect(),
    }
}

fn folders(all: &Path) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(all).with_context(|| all.display().to_string())? {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string()
            && is_name(&name)
            && entry.file_type()?.is_dir()
        {
            found.push((name, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

fn bind(path: &Path) -> anyhow::Result<UnixListener> {
    local::bind(path, GROUP, true).map_err(|e| {
        let shown = path.display();
        match e.kind() {
            io::ErrorKind::AddrInUse => {
                let other = UnixStream::connect(path);
                let peer = other.and_then(|other| Ok(getsockopt(&other, PeerCredentials)?));
                let pid =
                    peer.map_or_else(|_| String::new(), |peer| format!(" (pid {})", peer.pid()));
                anyhow!("lcgroup runs already{pid}; it answers at {shown}")
            }
            io::ErrorKind::AlreadyExists => anyhow!("{shown}: {e}; choose another --control"),
            _ => anyhow::Error::new(e).context(shown.to_string()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_gives_a_name_that_is_one() {
        for topic in [
            "",
            ".",
            "..",
            "Über uns / 2026",
            "team",
            &"x".repeat(64),
            "../../etc",
        ] {
            assert!(
                is_name(&folder_name(topic)),
                "{topic}: {}",
                folder_name(topic)
            );
        }
        assert!(!is_name("") && !is_name(".x") && !is_name("a/b") && !is_name(&"x".repeat(65)));
    }
}
