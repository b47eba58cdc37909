//! `init`, `invite`, `join`, `id`: verbs on the state directory, with or without a daemon.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use lcroute_control::Request;
use lcroute_control::client::{Client, owner_other_than, to_look};
use lcroute_control::config::Config;
use lcroute_control::pages;
use lcroute_control::settings::Common;
use lcroute_control::status::{Peer, Route, Status};
use lcroute_engine::Ipv4Network;
use lcroute_node::KnownMember;
use librecast::cert::{
    CertError, Chain, EPHEMERAL, Grant, GroupPrefix, MAX_URLS, Member, SourcePrefix, Token,
    is_ephemeral, is_node_name,
};
use librecast::code::{Code, CodeError};
use librecast::id::{NetworkId, NodeAddresses, PeerId, SecretKey};
use librecast::outside::ContactText;
use librecast::reach::Room;
use librecast::text::{self, TextKind};
use librecast::time::UnixTime;
use librecast_program::arguments;
use librecast_program::cli::{Exit, ExitError};
use librecast_program::page_link;
use librecast_program::units::duration;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use serde::Serialize;
use serde_json::json;
use zeroize::Zeroizing;

use super::book::{book_name, book_of_user, name_by_book};
use super::meet::{print_code, write_code};
use super::query::column;
use super::{hint, names, print_line, words};
use crate::netlink::Connection;
use crate::servers::room;
use crate::state::{EARLIEST, Identity, Membership, StateDir};
use crate::{netlink, private, tun};

/// Validity of an issuer's and the founding node's certificate, in seconds: ten years.
pub const FOUNDER_TTL: u64 = 10 * 365 * 86_400;

/// Timeout for a daemon's end, in which it notifies peers and removes lc0.
const STOPPING: Duration = Duration::from_secs(10);

/// Keys of a new network that are tried. Chosen: with half of all blocks in use, all fail once in
/// 10^9 networks.
const KEYS_TRIED: usize = 32;

/// Bytes of a session of Studio: a public key and a read key (lcstudio-core).
const STUDIO_SESSION: usize = 32 + 32;

/// Longest file with the text of a session, in bytes. Chosen: twice such a text.
const MAX_SESSION_FILE: u64 = 256;

/// Founds a network, and prints the identity.
pub fn init(common: &Common, config: &Config, name: Option<String>) -> anyhow::Result<Exit> {
    let state = StateDir::of(common, config);
    show_identity(&found(&state, config, name)?, common.json)?;
    if !common.json {
        tell_next_step(common, config, &state, "init");
    }
    Ok(Exit::Ok)
}

/// Refuses a verb about a node of this user's own where another user's daemon runs and this user has
/// no node: it would found or seek another network.
pub fn refuse_beside(
    common: &Common,
    config: &Config,
    control: &Path,
    verb: &str,
) -> anyhow::Result<()> {
    if !common.is_users_own_state(config) {
        return Ok(());
    }
    let state = StateDir::of(common, config);
    let owner = owner_other_than(Uid::effective(), control);
    match owner.and_then(|owner| beside(&owner, control, &state, verb)) {
        Some(refusal) => Err(refusal.into()),
        None => Ok(()),
    }
}

/// Returns the refusal; `None` if the folder has a node, or one that the verb itself refuses.
fn beside(owner: &str, control: &Path, state: &StateDir, verb: &str) -> Option<ExitError> {
    let message = format!(
        "user {owner} runs the daemon of this host ({}), and {} has no node: sudo lcroute {verb} (or use --state-dir for a node of your own)",
        control.display(),
        state.path().display()
    );
    let has_none = matches!(state.membership(), Ok(None));
    has_none.then(|| ExitError::new(Exit::NotPermitted, message))
}

/// Founds a network, and prints the path of its key.
pub fn found(state: &StateDir, config: &Config, name: Option<String>) -> anyhow::Result<Identity> {
    if state.membership()?.is_some() {
        anyhow::bail!(
            "{} belongs to a network already; use another --state-dir",
            state.path().display()
        );
    }
    if UnixTime::now() < EARLIEST {
        anyhow::bail!(
            "the clock stands before 2025: set it first (timedatectl set-ntp true), or the network's certificates are over as soon as it is right"
        );
    }
    let node = state.node_key_or_new()?;
    // an interrupted init left its network key: reuse it
    let network = match state.network_key()? {
        Some(key) => key,
        None => state.store_network_key(network_key())?,
    };
    let now = UnixTime::now();
    let issuer = Grant {
        renew_for: FOUNDER_TTL,
        core: true,
        ..Grant::new("", (now.as_secs(), now.as_secs() + FOUNDER_TTL))
    };
    let member = Grant {
        name: node_name(name, config)?,
        // it could grant that to itself
        gateway: vec![SourcePrefix::ANY],
        ..issuer.clone()
    };
    let chain = Chain::sign(&network, (&node, issuer), (node.peer_id(), member)).map_err(usage)?;
    state.store_membership(&Membership::new(network.peer_id(), Vec::new(), &chain))?;
    hint(format_args!(
        "the network's key is {}: keep a copy offline; anyone with it owns the network",
        state.path().join("network.key").display()
    ));
    state.identity(now)
}

/// Makes the key of a new network, from which its IPv4 addresses follow: if possible, of addresses
/// to which this host has no other route.
fn network_key() -> SecretKey {
    let Ok(mut kernel) = Connection::open() else {
        return SecretKey::generate();
    };
    let keys = (0..KEYS_TRIED).map(|_| SecretKey::generate());
    let mut free = keys.filter(|key| {
        let network = Ipv4Network::of(&key.peer_id());
        let overlap = tun::overlap(&mut kernel, 0, network);
        matches!(overlap, Ok(None))
    });
    free.next().unwrap_or_else(SecretKey::generate)
}

/// Properties of an invitation.
#[derive(Debug)]
pub struct InviteOptions {
    /// Validity of the token.
    pub ttl: Duration,
    /// Validity of a renewed certificate of its nodes.
    pub member_ttl: Duration,
    /// Whether its nodes are forgotten five minutes after they disappear.
    pub ephemeral: bool,
    /// Labels of its nodes.
    pub labels: Vec<(String, String)>,
    /// Their signalling servers.
    pub signal: Vec<String>,
    /// Their Matrix room.
    pub matrix: Option<Room>,
    /// Groups they may send to; empty for all.
    pub prefixes: Vec<GroupPrefix>,
    /// Whether they may be roots of shared trees.
    pub core: bool,
    /// Source prefixes of LAN hosts for which they may be gateways.
    pub gateway: Vec<SourcePrefix>,
    /// Number of nodes that can join by it; `None`: any number.
    pub uses: Option<u32>,
    /// Whether its nodes are leaves, which only listen to `prefixes`.
    pub leaf: bool,
    /// Whether its leaves may send to asking groups.
    pub uplink: bool,
}

/// Validity of the token of [`plain_token`], equal to the default of `invite`.
pub const TOKEN_TTL: Duration = Duration::from_secs(7 * 86_400);
/// Validity of its nodes' certificates without contact to an issuer, equal to that default.
pub const MEMBER_TTL: Duration = Duration::from_secs(365 * 86_400);

/// The text around the token.
#[derive(Debug, Clone, Copy)]
pub struct InviteLink<'a> {
    /// Address of a page that accepts it.
    pub page: Option<&'a str>,
    /// A session of Studio to attend, or a file with it.
    pub session: Option<&'a str>,
}

impl InviteLink<'_> {
    /// Returns the page's link, or token and session for programs; none: the token alone.
    fn around(&self, token: &str) -> anyhow::Result<Option<Zeroizing<String>>> {
        let session = self.session.map(studio_session).transpose()?;
        let session = session.as_ref().map(|text| text.as_str());
        let link = match (self.page, session) {
            (Some(page), session) => page_link::link(page, token, session).map_err(usage)?,
            (None, Some(session)) => format!("{token},{session}"),
            (None, None) => return Ok(None),
        };
        Ok(Some(Zeroizing::new(link)))
    }
}

/// Prints a token, or the link of a page that accepts it; as text or as a QR code.
pub fn invite(
    common: &Common,
    config: &Config,
    options: InviteOptions,
    link: InviteLink<'_>,
    qr: Option<Option<PathBuf>>,
) -> anyhow::Result<Exit> {
    let identity = StateDir::of(common, config).identity(UnixTime::now())?;
    let member_ttl = options.member_ttl.as_secs();
    let uses = options.uses;
    let (token, not_after) = sign_token(config, &identity, options)?;
    let text = token.encode();
    let (page, link) = (link.page, link.around(&text)?);
    if page.is_some_and(|page| page.starts_with("https:"))
        && token.signal.iter().any(|url| url.starts_with("ws:"))
    {
        hint(
            "a page that comes by https: reaches signalling servers at wss:// alone, and this token names others",
        );
    }
    if page.is_some_and(pages::is_own_host) {
        let address = netlink::host_addresses(&[&config.tun.name], None)?;
        let address = address.into_iter().find(|ip| !ip.is_loopback());
        let port = config.web.listen.port();
        let other = address.map(|ip| SocketAddr::new(ip, port).to_string());
        let other = other.unwrap_or_else(|| format!("HOST:{port}"));
        hint(format_args!(
            "only this host can open that page; for others: [web] listen = \"[::]:{port}\", and --page http://{other} (by https, with [web] tls_cert, it can be kept and casts sound)"
        ));
    }
    let shown = link.as_ref().unwrap_or(&text);
    let labels = &token.invitation().grant().labels;
    if common.json {
        let mut line = json!({ "token": text.as_str(), "not_after": not_after, "member_ttl": member_ttl, "uses": uses, "ephemeral": is_ephemeral(labels), "leaf": token.invitation().grant().leaf, "uplink": token.invitation().grant().uplink, "signal": token.signal });
        if let Some(link) = &link {
            line["link"] = link.as_str().into();
        }
        print_line(line)?;
    } else if qr != Some(None) {
        print_line(shown.as_str())?;
    }
    match qr {
        Some(None) if !common.json => print_code(shown)?,
        Some(Some(file)) => write_code(&file, shown)?,
        _ => {}
    }
    Ok(Exit::Ok)
}

/// Prints four words, and hands the token to the first host that says them within `time`.
pub fn invite_by_code(
    common: &Common,
    config: &Config,
    options: InviteOptions,
    time: Duration,
) -> anyhow::Result<Exit> {
    let identity = StateDir::of(common, config).identity(UnixTime::now())?;
    let server = options.signal.first().cloned();
    let (token, _) = sign_token(config, &identity, options)?;
    words::offer(common, &token.encode(), server.as_deref(), time)
}

/// Returns a token for a page, and the end of its validity.
pub fn token_for_page(
    config: &Config,
    identity: &Identity,
    ttl: Duration,
    uses: Option<u32>,
) -> anyhow::Result<(Zeroizing<String>, u64)> {
    let options = InviteOptions {
        ttl,
        uses,
        ..plain(config, identity)
    };
    let (token, not_after) = sign_token(config, identity, options)?;
    Ok((token.encode(), not_after))
}

/// Returns a token as of `invite` without options; `None` if this node may not invite.
pub fn plain_token(
    config: &Config,
    identity: &Identity,
) -> anyhow::Result<Option<Zeroizing<String>>> {
    if identity.chain.issuer().subject() != identity.key.peer_id() {
        return Ok(None);
    }
    let (token, _) = sign_token(config, identity, plain(config, identity))?;
    Ok(Some(token.encode()))
}

/// Returns the options of `invite` without arguments.
fn plain(config: &Config, identity: &Identity) -> InviteOptions {
    InviteOptions {
        ttl: TOKEN_TTL,
        member_ttl: MEMBER_TTL,
        ephemeral: false,
        labels: Vec::new(),
        signal: configured_urls(config, identity),
        matrix: None,
        prefixes: Vec::new(),
        core: false,
        gateway: Vec::new(),
        uses: None,
        leaf: false,
        uplink: false,
    }
}

/// Returns a token, and the end of its validity.
fn sign_token(
    config: &Config,
    identity: &Identity,
    options: InviteOptions,
) -> anyhow::Result<(Token, u64)> {
    let issuer = identity.chain.issuer();
    if issuer.subject() != identity.key.peer_id() {
        let message = "this node may not invite: only a node that holds an issuer certificate can (the one that ran `lcroute init`)";
        return Err(ExitError::new(Exit::NotPermitted, message).into());
    }
    let own = configured_urls(config, identity);
    let mut signal = match options.signal.is_empty() {
        true => own,
        false => {
            if own.is_empty() {
                hint(format_args!(
                    "this node itself meets nobody yet: servers = [{:?}] under [signal] in its configuration",
                    options.signal[0]
                ));
            }
            options.signal
        }
    };
    let room = options
        .matrix
        .or_else(|| room(config, &identity.membership.signal));
    // leaves find routers only by servers
    if let Some(room) = room.filter(|_| !options.leaf) {
        if signal.len() >= MAX_URLS.into() {
            let message = format!("a token has room for {MAX_URLS} URLs, and a Matrix room is one");
            return Err(usage(message).into());
        }
        if config.matrix.token_file.is_none() {
            hint(format_args!(
                "this node itself does not meet in {room} yet: homeserver and token-file under [matrix] in its configuration"
            ));
        }
        signal.push(room.to_uri());
    }
    if signal.is_empty() {
        hint(
            "the token names no signalling server: nodes meet on a LAN, and by `lcroute meet`; elsewhere --signal URL is needed",
        );
    }
    let now = UnixTime::now().as_secs();
    if options.ttl.as_secs() == 0 {
        return Err(usage("--ttl: a token that nobody can use: at least 1s").into());
    }
    if options.member_ttl.as_secs() == 0 {
        return Err(usage("--member-ttl: a membership that is over at once: at least 1s").into());
    }
    let mut labels: BTreeMap<_, _> = options.labels.into_iter().collect();
    if options.ephemeral {
        let (label, value) = EPHEMERAL;
        let before = labels.insert(label.into(), value.into());
        if let Some(before) = before.filter(|before| before != value) {
            let message = format!(
                "--ephemeral is the label {label}={value}; --label {label}={before} says otherwise"
            );
            return Err(usage(message).into());
        }
    }
    // it must be within the issuer's validity
    let not_before = now.max(issuer.grant().not_before);
    let not_after = now
        .saturating_add(options.ttl.as_secs())
        .min(issuer.grant().not_after);
    let grant = Grant {
        not_before,
        not_after,
        renew_for: options.member_ttl.as_secs(),
        core: options.core,
        name: String::new(),
        uses: options.uses,
        labels,
        prefixes: if options.prefixes.is_empty() {
            issuer.grant().prefixes.clone()
        } else {
            options.prefixes
        },
        gateway: options.gateway,
        leaf: options.leaf,
        uplink: options.uplink,
    };
    let asks = |prefix: &GroupPrefix| {
        let asking = GroupPrefix::asking();
        prefix.covers(&asking) || asking.covers(prefix)
    };
    if options.uplink && !grant.prefixes.iter().any(asks) {
        hint(
            "--uplink: none of --groups is in ff1e:7570::/32, so its nodes have nowhere to ask; `lcstudio invite` names the groups of a lecture",
        );
    }
    let mut token = Token::invite(issuer, &identity.key, grant, signal).map_err(|e| match e {
        CertError::Widened(_) => ExitError::new(Exit::NotPermitted, e.to_string()),
        e => ExitError::new(Exit::Usage, e.to_string()),
    })?;
    // leaves find routers only by servers
    token.epoch = identity.epoch.clone().filter(|_| !options.leaf);
    Ok((token, not_after))
}

/// Returns signalling servers of file, membership and this daemon; a room is separate.
fn configured_urls(config: &Config, identity: &Identity) -> Vec<String> {
    let mut urls = config.signal.servers.clone();
    if let Some(listen) = config.signal.listen {
        if listen.ip().is_unspecified() {
            let addresses =
                crate::netlink::host_addresses(&[&config.tun.name], None).unwrap_or_default();
            urls.extend(
                addresses
                    .into_iter()
                    .filter(|ip| !ip.is_loopback())
                    .map(|ip| format!("ws://{}", std::net::SocketAddr::new(ip, listen.port()))),
            );
        } else {
            urls.push(format!("ws://{listen}"));
        }
    }
    let of_token = identity.membership.signal.iter();
    urls.extend(of_token.filter(|url| Room::of_uri(url).is_none()).cloned());
    let mut seen = std::collections::BTreeSet::new();
    urls.retain(|url| seen.insert(url.clone()));
    let room = room(config, &identity.membership.signal);
    urls.truncate(usize::from(MAX_URLS) - usize::from(room.is_some()));
    urls
}

/// Returns the token or the words of a code, which may be several arguments.
///
/// # Errors
/// Several arguments are not the words of a code.
pub fn one_argument(token: &str, more: &[String]) -> Result<String, ExitError> {
    let given = [&[token.to_owned()][..], more].concat().join(" ");
    match given.parse::<Code>() {
        Err(e) if !more.is_empty() => Err(match given.contains(TextKind::Token.prefix()) {
            true => usage("one TOKEN, in quotes if it has blanks"),
            false => usage(e),
        }),
        _ => Ok(given),
    }
}

/// Joins a network by a token, and prints the identity.
pub fn join(
    common: &Common,
    config: &Config,
    token: &str,
    name: Option<String>,
) -> anyhow::Result<Exit> {
    let state = StateDir::of(common, config);
    show_identity(&accept(common, &state, config, token, name)?, common.json)?;
    if !common.json {
        tell_next_step(common, config, &state, "join TOKEN");
    }
    Ok(Exit::Ok)
}

/// Joins a network by a token, or by the words that bring one.
pub fn accept(
    common: &Common,
    state: &StateDir,
    config: &Config,
    token: &str,
    name: Option<String>,
) -> anyhow::Result<Identity> {
    let mut text = read_token(token)?;
    if let Ok(code) = text.parse::<Code>() {
        // words are good once: they are not used up for nothing
        if state.identity(UnixTime::now()).is_ok() {
            return Err(of_another_network(state));
        }
        text = words::fetch(common, &code, name.as_deref())?;
    }
    let token: Token = text
        .parse()
        .map_err(|e: CertError| match text.parse::<Code>() {
            Err(mistyped @ CodeError::Unknown { .. })
                if !text.contains(TextKind::Token.prefix()) =>
            {
                usage(mistyped)
            }
            _ => usage(e),
        })?;
    if token.invitation().grant().leaf {
        let message =
            "the token is for leaves, which listen and do not route: `lcroute leaf GROUP` takes it";
        return Err(usage(message).into());
    }
    let now = UnixTime::now();
    let old = state.membership()?;
    if old.as_ref().is_some_and(|m| m.network != token.network()) {
        return Err(of_another_network(state));
    }
    let founded = state.network_key()?.map(|key| key.peer_id());
    if founded == Some(token.network()) {
        anyhow::bail!(
            "{} founded this network and needs no token",
            state.path().display()
        );
    }
    let name = match (name, &old) {
        (None, Some(old)) => known_name(state, old, config)?,
        (name, _) => node_name(name, config)?,
    };
    let key = state.node_key_or_new()?;
    if is_expelled(state, &token, &key.peer_id(), now)? {
        let uses = token.invitation().grant().uses;
        let why = uses.map(lcroute_node::spent);
        let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
        let message = format!(
            "this node, or the token, has been expelled from the network{why}: `lcroute leave`, then join with a new token"
        );
        return Err(ExitError::new(Exit::NotPermitted, message).into());
    }
    let chain = token.join(key.peer_id(), &name, now).map_err(|e| match e {
        CertError::Malformed(_) => ExitError::new(Exit::Usage, e.to_string()),
        CertError::Expired(_) => ExitError::new(
            Exit::NotPermitted,
            "the token has expired: ask for a new one (`lcroute invite` prints it)",
        ),
        e => ExitError::new(
            Exit::NotPermitted,
            format!("the token is not accepted: {e}"),
        ),
    })?;
    if let Some((number, secret)) = &token.epoch {
        let mut epochs = state.epochs(&token.network(), now)?;
        epochs.set_of_token(*number, secret.clone());
        state.store_epochs(&epochs.text())?;
    }
    state.store_membership(&Membership::new(
        token.network(),
        token.signal.clone(),
        &chain,
    ))?;
    if let Some(room) = token.signal.iter().find_map(|url| Room::of_uri(url))
        && config.matrix.token_file.is_none()
    {
        hint(format_args!(
            "its nodes meet in the Matrix room {room}: set homeserver and token-file of an account there under [matrix] in the configuration, and have lcroute-reach run"
        ));
    }
    state.identity(now)
}

/// Whether a known revocation concerns this node's key or the token.
fn is_expelled(
    state: &StateDir,
    token: &Token,
    node: &PeerId,
    now: UnixTime,
) -> anyhow::Result<bool> {
    let revocations = state.revocations(&token.network(), now)?;
    let invitation = token.invitation().subject();
    Ok(revocations
        .iter()
        .any(|r| r.key() == *node || r.key() == invitation))
}

/// Prints path and next step: a forgotten sudo must not found a network of no use to the service.
fn tell_next_step(common: &Common, config: &Config, state: &StateDir, verb: &str) {
    let path = state.path().display();
    if common.is_users_own_state(config) {
        hint(format_args!(
            "written to {path}, for `lcroute run` as this user; the host's service uses /var/lib/lcroute: sudo lcroute {verb}"
        ));
    } else {
        hint(format_args!(
            "written to {path}; next: `lcroute run` (with the package the service starts by itself)"
        ));
    }
}

/// Leaves the network: stops the daemon, deletes membership and key.
pub fn leave(common: &Common, config: &Config, force: bool) -> anyhow::Result<Exit> {
    let state = StateDir::of(common, config);
    let Some(membership) = state.membership()? else {
        let message = format!("{}: member of no network", state.path().display());
        return Err(ExitError::new(Exit::NotPermitted, message).into());
    };
    let founded = state.network_key()?.map(|key| key.peer_id()) == Some(membership.network);
    let own = state.node_key()?.map(|key| key.peer_id());
    let issues = membership
        .chain()
        .is_ok_and(|c| Some(c.issuer().subject()) == own);
    if (founded || issues) && !force {
        let message = "this node is an issuer: without it members are neither renewed nor expelled, unless there is another one; --force leaves all the same";
        return Err(ExitError::new(Exit::NotPermitted, message).into());
    }
    let control = common.control_to_ask(config);
    // first, so that a service manager does not start the daemon again
    state.forget_membership()?;
    match Client::connect_if_running(&control)? {
        Some(client) => stop(&client, &control)?,
        None => {
            if let Ok(member) = membership
                .chain()
                .and_then(|c| Ok(c.verify(&membership.network, UnixTime::now())?))
            {
                let name = member.name;
                hint(format_args!(
                    "no daemon runs that could say goodbye: other nodes keep the name {name}, and this host would come back as {name}-2; on an issuer, `lcroute revoke {name}` frees it"
                ));
            }
        }
    }
    // a running daemon did this at its end; this is for a host without one
    if common.is_hosts_state(config)
        && let Err(e) = private::open(config)
    {
        hint(format_args!("private prefixes stay closed: {e}"));
    }
    state.forget()?;
    if state.node_key()?.is_some() {
        hint(
            "the node's key is a credential of the service: replace it, if the node shall come back as another one",
        );
    }
    if common.json {
        print_line(json!({ "left": membership.network }))?;
    } else {
        print_line(format_args!("left network {}", membership.network))?;
    }
    Ok(Exit::Ok)
}

/// Ends the daemon and waits for its end.
pub fn stop(client: &Client, control: &Path) -> anyhow::Result<()> {
    let pid = client
        .pid()
        .context("the daemon runs where its process is not seen: stop it first")?;
    kill(Pid::from_raw(pid), Signal::SIGTERM).map_err(|e| match e {
        Errno::EPERM => {
            let message = format!("may not stop the daemon (process {pid}): be root");
            ExitError::new(Exit::NotPermitted, message)
        }
        e => ExitError::new(
            Exit::Failed,
            format!("stop the daemon (process {pid}): {}", e.desc()),
        ),
    })?;
    let deadline = Instant::now() + STOPPING;
    while Client::connect_if_running(control)?.is_some() {
        if Instant::now() > deadline {
            let message = format!("the daemon (process {pid}) does not stop");
            return Err(ExitError::new(Exit::Unreachable, message).into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Prints all known members, absent ones too.
pub fn members(common: &Common, config: &Config, verbose: bool) -> anyhow::Result<Exit> {
    let near = distances(common, config)?;
    let row = |member: KnownMember| {
        let (hops, rtt_ms) = near.get(&member.peer_id).copied().unwrap_or_default();
        MemberRow {
            member,
            hops,
            rtt_ms,
        }
    };
    let mut rows: Vec<_> = known_members(common, config)?
        .into_iter()
        .map(row)
        .collect();
    let book = book_of_user();
    if common.json {
        let mut rows = serde_json::to_value(&rows)?;
        name_by_book(&mut rows, &book);
        print_line(rows)?;
    } else {
        for row in &mut rows {
            let member = &mut row.member;
            member.name = book_name(&book, &member.peer_id, &member.name);
        }
        print_line(members_text(&rows, verbose, UnixTime::now()).trim_end())?;
    }
    Ok(Exit::Ok)
}

/// A member, and its distance.
#[derive(Debug, Serialize)]
struct MemberRow {
    #[serde(flatten)]
    member: KnownMember,
    /// Number of links on the path.
    #[serde(skip_serializing_if = "Option::is_none")]
    hops: Option<u16>,
    /// Round trip of the link, for linked nodes; `lcroute ping` measures others.
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt_ms: Option<f64>,
}

/// Number of links on the path to a node, and the round trip in milliseconds if it is one link.
type Distance = (Option<u16>, Option<f64>);

/// Returns the distance of each reachable node.
fn distances(common: &Common, config: &Config) -> anyhow::Result<BTreeMap<PeerId, Distance>> {
    let Some(mut client) = Client::connect_if_running(&common.control_to_ask(config))? else {
        return Ok(BTreeMap::new());
    };
    let routes: Vec<Route> = client.ask(&Request::Routes)?;
    let peers: Vec<Peer> = client.ask(&Request::Peers)?;
    let rtt_of = |id: &PeerId| peers.iter().find(|p| p.peer_id == *id)?.link.rtt_ms;
    let distance = |route: Route| {
        let id = route.peer_id;
        let rtt = (route.hops == 1).then(|| rtt_of(&id)).flatten();
        (id, (Some(route.hops), rtt))
    };
    Ok(routes.into_iter().map(distance).collect())
}

/// Returns the members that the daemon knows, or without a daemon those on disk.
pub fn known_members(common: &Common, config: &Config) -> anyhow::Result<Vec<KnownMember>> {
    match Client::connect_if_running(&common.control_to_ask(config))? {
        Some(mut client) => client.ask(&Request::Members),
        None => {
            let state = StateDir::of(common, config);
            let identity = state.identity(UnixTime::now())?;
            let mut members = state.members();
            members.note(&identity.member, UnixTime::now());
            Ok(members.rows(&identity.membership.network, |_| false, UnixTime::now()))
        }
    }
}

fn members_text(rows: &[MemberRow], verbose: bool, now: UnixTime) -> String {
    let nodes = rows
        .iter()
        .map(|row| (Some(row.member.name.as_str()), row.member.peer_id));
    let names = names::distinct(nodes);
    let width = column("NAME", &names);
    let mut text = format!(
        "{:<width$} {:<14} {:<14} {:>4} {:>9} ",
        "NAME", "LAST SEEN", "EXPIRES", "HOPS", "RTT"
    );
    if verbose {
        text += &format!("{:<40} {:<53} ", "ADDRESS", "PEER");
    }
    text += "LABELS\n";
    for (row, name) in rows.iter().zip(&names) {
        let r = &row.member;
        let hops = row.hops.map(|hops| hops.to_string());
        let rtt = row.rtt_ms.map(|ms| format!("{ms:.1} ms"));
        let seen = match r.present {
            true => "now".to_owned(),
            false => format!(
                "{} ago",
                duration(now.as_secs().saturating_sub(r.last_seen))
            ),
        };
        let expires = match r.not_after.checked_sub(now.as_secs()) {
            Some(left) => format!("in {}", duration(left)),
            None => "expired".to_owned(),
        };
        let labels: Vec<_> = r.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let mut line = format!(
            "{name:<width$} {seen:<14} {expires:<14} {:>4} {:>9} ",
            hops.as_deref().unwrap_or("-"),
            rtt.as_deref().unwrap_or("-"),
        );
        if verbose {
            line += &format!(
                "{:<40} {:<53} ",
                r.address.to_string(),
                r.peer_id.to_string()
            );
        }
        line += &labels.join(" ");
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// Returns the name that a rejoining node keeps.
fn known_name(state: &StateDir, old: &Membership, config: &Config) -> anyhow::Result<String> {
    let known = old
        .chain()
        .ok()
        .and_then(|chain| chain.verify(&old.network, UnixTime::now()).ok());
    let own = state.node_key()?.map(|key| key.peer_id());
    match known {
        Some(member) if Some(member.peer) == own => Ok(member.name),
        _ => node_name(None, config),
    }
}

/// Reads a token: the argument, or for `-` a line of standard input.
pub fn read_token(token: &str) -> anyhow::Result<Zeroizing<String>> {
    arguments::secret(token).context("standard input")
}

/// Reads a session of Studio, or a file with it, as `lcstudio` does.
fn studio_session(text: &str) -> anyhow::Result<Zeroizing<String>> {
    let mut session = Zeroizing::new(String::new());
    if TextKind::of(text).is_some() {
        session.push_str(text);
    } else {
        let file = File::open(text).map_err(|e| {
            usage(format!(
                "{text}: neither a session of Studio (lcs1...) nor a file with one: {e}"
            ))
        })?;
        let read = file.take(MAX_SESSION_FILE).read_to_string(&mut session);
        read.with_context(|| text.to_owned())?;
    }
    text::decode(TextKind::StudioSession, &session, STUDIO_SESSION).map_err(usage)?;
    Ok(Zeroizing::new(session.trim().to_owned()))
}

/// Prints this host's key with the place where it waits: the node's where a daemon answers, else
/// the user's own, which is made if there is none.
pub fn contact(common: &Common, config: &Config) -> anyhow::Result<Exit> {
    let control = common.control_to_ask(config);
    let running = Client::connect_if_running(&to_look(&control))?;
    let (key, config) = match running {
        Some(mut daemon) => (
            daemon.ask::<Status>(&Request::Status)?.peer_id,
            config.clone(),
        ),
        None => (
            StateDir::of(common, config).node_key_or_new()?.peer_id(),
            common.load_config_of_user()?,
        ),
    };
    let outside = config.exposure().outside().ok();
    let place = outside.and_then(|outside| outside.meet.first().cloned());
    let contact = ContactText { key, place };
    print_line(match common.json {
        true => json!({ "contact": contact.to_string(), "peer_id": key }).to_string(),
        false => contact.to_string(),
    })?;
    Ok(Exit::Ok)
}

/// Prints this node's identity.
pub fn id(common: &Common, config: &Config) -> anyhow::Result<Exit> {
    let state = StateDir::of(common, config);
    let now = UnixTime::now();
    let Some(key) = state.node_key()? else {
        // the key may exist only as a credential of the service
        if let Some(membership) = state.membership()? {
            let member = membership.chain()?.verify(&membership.network, now);
            return show(&member?, membership.network, common.json).map(|()| Exit::Ok);
        }
        let message = format!(
            "{}: no node key; run `lcroute init` or `lcroute join TOKEN`",
            state.path().display()
        );
        return Err(ExitError::new(Exit::NotPermitted, message).into());
    };
    match state.membership()? {
        Some(_) => show_identity(&state.identity(now)?, common.json)?,
        None if common.json => print_line(json!({ "peer_id": key.peer_id() }))?,
        None => print_line(format_args!(
            "PeerId   {}\nnetwork  none: run `lcroute join TOKEN`",
            key.peer_id()
        ))?,
    }
    Ok(Exit::Ok)
}

fn show_identity(identity: &Identity, json: bool) -> anyhow::Result<()> {
    show(&identity.member, identity.membership.network, json)
}

fn show(member: &Member, network: NetworkId, json: bool) -> anyhow::Result<()> {
    let NodeAddresses {
        address,
        link_local,
        ..
    } = member.addresses;
    let printed = if json {
        print_line(json!({
            "peer_id": member.peer,
            "name": member.name,
            "address": address,
            "link_local": link_local,
            "network": network,
            "labels": member.labels,
            "prefixes": member.prefixes.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "gateway": member.gateway.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "core": member.core,
            "not_after": member.not_after,
        }))
    } else {
        print_line(format_args!(
            "name     {}\nPeerId   {}\naddress  {address}\nnetwork  {network}",
            member.name, member.peer
        ))
    };
    Ok(printed?)
}

fn node_name(name: Option<String>, config: &Config) -> anyhow::Result<String> {
    let name = match name.or_else(|| config.name.clone()) {
        Some(name) => name,
        None => nix::unistd::gethostname()
            .context("host name")?
            .to_string_lossy()
            .into_owned(),
    };
    if is_node_name(&name) {
        return Ok(name);
    }
    let message = format!(
        "{name:?} cannot be a node's name: up to 63 letters, digits and `-` (not at either end), with dots between; --name NAME"
    );
    Err(usage(message).into())
}

fn of_another_network(state: &StateDir) -> anyhow::Error {
    anyhow::anyhow!(
        "{} belongs to another network already: `lcroute leave` first, or use another --state-dir",
        state.path().display()
    )
}

fn usage(e: impl std::fmt::Display) -> ExitError {
    ExitError::new(Exit::Usage, e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beside_the_daemon_of_another_user_only_an_existing_node_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::new(folder.path().join("lcroute"));
        let control = Path::new("/run/lcroute/control.sock");
        let refused = beside("root", control, &state, "up").unwrap();
        assert_eq!(refused.exit, Exit::NotPermitted);
        let told = refused.to_string();
        assert!(
            told.contains("user root") && told.contains("sudo lcroute up"),
            "{told}"
        );
        assert!(!state.path().exists(), "nothing is founded");
        found(&state, &Config::default(), Some("own".into())).unwrap();
        assert!(beside("root", control, &state, "up").is_none());
    }

    #[test]
    fn four_words_may_be_one_argument_or_four_and_a_token_is_one() {
        let of = |arguments: &[&str]| {
            let more: Vec<String> = arguments[1..].iter().map(|&m| m.to_owned()).collect();
            one_argument(arguments[0], &more).map_err(|e| e.to_string())
        };
        let code = |text: Result<String, String>| text.unwrap().parse::<Code>().unwrap();
        let right: Code = "abandon-zoo-quality-lemon@meet.example".parse().unwrap();
        assert!(code(of(&["abandon-zoo-quality-lemon@meet.example"])) == right);
        assert!(code(of(&["Aban", "zoo", "quality", "lemon@meet.example"])) == right);
        assert_eq!(of(&["lct1abc"]), Ok("lct1abc".to_owned()));
        assert_eq!(of(&["-"]), Ok("-".to_owned()));
        let wrong = of(&["abandon", "zoo", "quallity", "lemon"]).unwrap_err();
        assert!(wrong.contains("is it \"quality\"?"), "{wrong}");
        let wrong = of(&["lct1abc", "lemon"]).unwrap_err();
        assert!(wrong.starts_with("one TOKEN"), "{wrong}");
    }

    #[test]
    fn a_member_uses_up_no_words_and_mistyped_ones_are_named() {
        use clap::Parser;
        #[derive(Debug, Parser)]
        struct Line {
            #[command(flatten)]
            common: Common,
        }
        let common = Line::parse_from(["lcroute"]).common;
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::new(folder.path().join("lcroute"));
        let config = Config::default();
        let refused = |words: &str| {
            let refused = accept(&common, &state, &config, words, None).unwrap_err();
            refused.to_string()
        };
        let mistyped = refused("abandon-zoo-quallity-lemon");
        assert!(mistyped.contains("is it \"quality\"?"), "{mistyped}");
        found(&state, &config, Some("own".into())).unwrap();
        let member = refused("abandon-zoo-quality-lemon");
        assert!(member.contains("another network already"), "{member}");
    }
}
