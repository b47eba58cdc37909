//! `lcroute guest --group-fd N`: a node in the network of a group, as lcgroup starts it.
//!
//! ```text
//! no membership ── looks for the record of the text ── stores the membership ── executes itself anew
//! a membership ─── the node, and the program inside
//! ```
//! The address of lc0 follows from the network, which must be known before lc0 is made.

use std::env;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use lcroute_control::config::Config;
use lcroute_overlay::TextRecord;
use librecast::code::CodeKeys;
use librecast::id::SecretKey;
use librecast::text_network::TextKey;
use librecast::time::UnixTime;
use librecast_program::cli::{Exit, ExitError};
use librecast_program::group_network::{
    FromGuest, GroupEntry, GroupRole, GroupState, inherited, keep_open, pipe_of, with_number,
};
use librecast_program::state_lock::StateLock;

use super::hint;
use super::meeting_places::meeting_places;
use crate::guest::group::{IssuerKeys, first_epochs, found, node_name, take_office};
use crate::guest::member::{Identity, Start};
use crate::guest::text::{Finder, Places};
use crate::guest::{Role, group, member};
use crate::port_mapping;
use crate::state::{Membership, StateDir};

/// The option with the descriptor.
pub const OPTION: &str = "--group-fd";
/// Interval of looks at LANs and of messages to lcgroup.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Name of the owner's node, which members alone see.
const OWNER: &str = "owner";
/// Name of the lock's owner in messages.
const LOCK: &str = "lcroute guest";
/// Most servers of a group: those of its text and of its record.
const MAX_SERVERS: usize = 8;

/// Returns the role of a guest in the network of a group. A member that does not know the network
/// looks for it first, and does not return.
pub fn role((fd, json): (RawFd, &str), config: Config) -> anyhow::Result<Role> {
    let wrong =
        |e: &dyn std::fmt::Display| ExitError::new(Exit::Usage, format!("{OPTION} {fd}: {e}"));
    let entry: GroupEntry = serde_json::from_str(json).map_err(|e| wrong(&e))?;
    let control = UnixDatagram::from(inherited(entry.control).map_err(|e| wrong(&e))?);
    let packets = inherited(entry.packets).map_err(|e| wrong(&e))?;
    let (places, _) = meeting_places(&entry.places, &config)?;
    let state = StateDir::new(entry.state.clone());
    std::fs::create_dir_all(state.path()).with_context(|| state.path().display().to_string())?;
    let lock = StateLock::take(state.path(), LOCK)?;
    let (key, membership, issuer) = match &entry.role {
        GroupRole::Owner(seed) => {
            let keys = CodeKeys::of_random(&seed.0);
            let membership = found(&state, &keys, OWNER)?;
            let key = SecretKey::from_seed(&keys.issuer().seed());
            let epochs = state.epochs(&membership.network, UnixTime::now())?;
            if epochs.newest().is_none() {
                state.store_epochs(&first_epochs(&keys).text())?;
            }
            let issuer = IssuerKeys {
                issuer: SecretKey::from_seed(&keys.issuer().seed()),
                network: Some(SecretKey::from_seed(&keys.network().seed())),
            };
            (key, membership, Some(issuer))
        }
        GroupRole::Deputy { key, certificate } => {
            let (key, issuer) = (SecretKey::from_seed(&key.0), SecretKey::from_seed(&key.0));
            let membership = take_office(&state, &key, &certificate.0)?;
            let network = None;
            (key, membership, Some(IssuerKeys { issuer, network }))
        }
        GroupRole::Member { key, group, secret } => {
            let key = SecretKey::from_seed(&key.0);
            let Some(membership) = membership(&state, &key)? else {
                let text = TextKey::new(*group, secret.0);
                find(&text, &places, (&control, &state), &key)?;
                keep_open(control.as_fd(), true)?;
                keep_open(packets.as_fd(), true)?;
                return Err(enter_anew(&entry).into());
            };
            (key, membership, None)
        }
    };
    let (network, now) = (membership.network, UnixTime::now());
    let chain = membership.chain()?;
    let incarnation = state.next_incarnation()?.number;
    let identity = Identity::of_state(key, (&network, chain), incarnation, lock)?;
    let mut signal = membership.signal.clone();
    add_servers(&mut signal, &places.servers);
    Ok(Role::Member(Box::new(Start {
        network,
        signal,
        epochs: state.epochs(&network, now)?,
        identity,
        code: None,
        owner: None,
        group: Some(group::Start {
            revocations: state.revocations(&network, now)?,
            members: state.members(),
            state,
            membership,
            control,
            packets: Some(packets),
            issuer,
            places,
        }),
        mapping: Some(port_mapping::settings(&config)),
        config,
    })))
}

fn add_servers(all: &mut Vec<String>, more: &[String]) {
    for url in more {
        if !all.contains(url) {
            all.push(url.clone());
        }
    }
    all.truncate(MAX_SERVERS);
}

/// Returns the membership of an earlier run, if it is good for this key now.
fn membership(state: &StateDir, key: &SecretKey) -> anyhow::Result<Option<Membership>> {
    let Some(known) = state.membership()? else {
        return Ok(None);
    };
    let (chain, now) = (known.chain()?, UnixTime::now());
    let member = chain.verify(&known.network, now);
    let is_good =
        member.is_ok_and(|own| own.peer == key.peer_id() && own.not_after > now.as_secs());
    Ok(is_good.then_some(known))
}

/// Looks for the network of a text until it is found, and stores the membership.
fn find(
    text: &TextKey,
    places: &Places,
    (control, state): (&UnixDatagram, &StateDir),
    key: &SecretKey,
) -> anyhow::Result<()> {
    control.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut finder = Finder::of_members(text.clone(), places);
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                found = finder.wait() => {
                    let Some(record) = found else { continue };
                    match enter(record, places, state, key) {
                        Ok(()) => return Ok(()),
                        // the owner makes another one with its next start
                        Err(e) => hint(format_args!("the network of the group: {e:#}")),
                    }
                }
                _ = look.tick() => {
                    finder.review();
                    let message = FromGuest::State(GroupState {
                        servers: places.servers.clone(),
                        on_lans: places.on_lans,
                        dht: places.dht.is_some(),
                        stale: finder.has_stale(),
                        ..GroupState::default()
                    });
                    let sent = control.send(&serde_json::to_vec(&message)?);
                    if let Err(e) = sent && e.kind() != std::io::ErrorKind::WouldBlock {
                        return Err(anyhow::Error::new(e).context("lcgroup has ended"));
                    }
                }
            }
        }
    })
}

/// Becomes a member by this record.
fn enter(
    record: TextRecord,
    places: &Places,
    state: &StateDir,
    key: &SecretKey,
) -> anyhow::Result<()> {
    let (token, now) = (record.token, UnixTime::now());
    let (peer, network) = (key.peer_id(), token.network());
    let chain = token.join(peer, &node_name(&peer), now)?;
    chain.verify(&network, now)?;
    let mut signal = token.signal.clone();
    add_servers(&mut signal, &places.servers);
    state.store_epochs(&member::epochs_of(&token).text())?;
    state.store_membership(&Membership::new(network, signal, &chain))
}

/// Executes this command again, with the entry in another pipe. Returns only on failure.
fn enter_anew(entry: &GroupEntry) -> std::io::Error {
    let again = || {
        let fd = pipe_of(entry)?;
        keep_open(fd.as_fd(), true)?;
        let given: Vec<_> = env::args_os().collect();
        let arguments = with_number(&given, OPTION, fd.as_raw_fd());
        let mut command = Command::new(env::current_exe()?);
        if let Some((name, arguments)) = arguments.split_first() {
            command.arg0(name).args(arguments);
        }
        Ok(command.exec())
    };
    again().unwrap_or_else(|e| e)
}
