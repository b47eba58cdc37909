//! `up` and `down`: join and start with one command, and stop.

use std::io::{IsTerminal, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use lcroute_control::Request;
use lcroute_control::client::Client;
use lcroute_control::config::{Config, Reread, Silent};
use lcroute_control::settings::{Common, Overrides};
use lcroute_control::status::{Clocks, Peer, State, Status, clocks};
use lcroute_node::KnownMember;
use librecast::cert::{MAX_TOKEN, Token};
use librecast::id::PeerId;
use librecast::time::UnixTime;
use librecast_program::cli::{Exit, ExitError, MDNS_RULE};
use librecast_program::units::parse_duration;
use serde_json::json;
use zeroize::Zeroizing;

use super::membership;
use super::{hint, print_line};
use crate::relays::NO_RELAY;
use crate::state::StateDir;

const UNIT: &str = "lcroute.service";
/// Unit that starts the daemon once a membership exists; it would start it again at once.
const PATH_UNIT: &str = "lcroute.path";
/// Unit that closes private prefixes before the network is up, even if the daemon does not start.
const CLOSE_UNIT: &str = "lcroute-close.service";
/// Timeout for the daemon's first answer.
const START: Duration = Duration::from_secs(20);
/// Time between attempts to reach the daemon. Chosen.
const LOOK: Duration = Duration::from_millis(100);
/// Time without output after which a message names the reason.
const QUIET: Duration = Duration::from_secs(2);
/// Environment variable with the token.
pub(super) const TOKEN: &str = "LCROUTE_TOKEN";
/// Environment variable with the token's file: a secret of compose, Kubernetes or systemd.
pub(super) const TOKEN_FILE: &str = "LCROUTE_TOKEN_FILE";

/// Options of `up`.
#[derive(Debug, Args)]
pub struct UpOptions {
    /// The token of an invitation, or its four words, or - to read it from standard input [default: found a network, if
    /// there is none]
    token: Option<String>,
    #[arg(hide = true)]
    more: Vec<String>,
    /// This node's name [default: the host's]
    #[arg(long, env = "LCROUTE_NAME")]
    name: Option<String>,
    /// lc0 is as open as a LAN card: writes [network] profile = "lan"
    #[arg(long)]
    lan: bool,
    /// Print neither a token nor the pages' address: for a standard output that others read, too. As the daemon, into a
    /// log, only the start that founds a network prints a token
    #[arg(long, env = "LCROUTE_NO_TOKEN", value_parser = clap::builder::FalseyValueParser::new())]
    no_token: bool,
    /// How long to wait for the first link
    #[arg(long, default_value = "20s", value_parser = parse_duration)]
    timeout: Duration,
}

/// Options of the final output.
#[derive(Debug, Clone, Copy)]
struct Told {
    /// Whether this node has just founded its network.
    founded: bool,
    /// Whether it includes a token, if this node may invite, and the pages' address with their key.
    secrets: bool,
    /// Timeout for the first link.
    timeout: Duration,
}

/// Founds or joins, starts the daemon, waits for the first link.
pub fn up(common: &Common, mut config: Config, mut options: UpOptions) -> anyhow::Result<Exit> {
    if let Some(token) = &mut options.token {
        *token = membership::one_argument(token, &options.more)?;
    }
    let state = StateDir::of(common, &config);
    let service = Service::find(common, &config);
    if service.is_some() && !nix::unistd::geteuid().is_root() {
        let message = "lcroute is a service of this host: sudo lcroute up (or use --state-dir for a node of your own)";
        return Err(ExitError::new(Exit::NotPermitted, message).into());
    }
    if options.lan {
        use_lan_profile(common, &mut config)?;
    }
    let founded = become_member(common, &config, &state, &options)?;
    let mut told = Told {
        founded,
        secrets: !options.no_token,
        timeout: options.timeout,
    };
    let control = common.control_to_ask(&config);
    if let Some(mut daemon) = Client::connect_if_running(&control)? {
        // if the daemon refuses the file, nothing changes
        let reread: Reread = daemon.ask(&Request::Reload { exec: false })?;
        hint(format_args!("the daemon runs already; {reread}"));
        return tell(common, &config, &control, told);
    }
    match service {
        Some(service) => {
            service.start()?;
            tell(common, &config, &control, told)
        }
        None => {
            hint("no systemd here: the daemon runs in the foreground; Ctrl-C ends it");
            // the daemon's output may go to a log, and each start would add a token to it
            told.secrets &= founded || std::io::stdout().is_terminal();
            let (teller, conf) = (common.clone(), config.clone());
            std::thread::spawn(move || {
                if let Err(e) = tell(&teller, &conf, &control, told) {
                    hint(format_args!("{e:#}"));
                }
            });
            crate::daemon::run(common, config, Overrides::default())
        }
    }
}

/// Ends the daemon until the next `up`, even over a restart; the host stays a member.
pub fn down(common: &Common, config: &Config) -> anyhow::Result<Exit> {
    if let Some(service) = Service::find(common, config) {
        if !nix::unistd::geteuid().is_root() {
            let message = "lcroute is a service of this host: sudo lcroute down";
            return Err(ExitError::new(Exit::NotPermitted, message).into());
        }
        service.stop()?;
    }
    let control = common.control_to_ask(config);
    let was_running = match Client::connect_if_running(&control)? {
        Some(client) => {
            membership::stop(&client, &control)?;
            true
        }
        None => false,
    };
    let said = match was_running {
        true => {
            "down; still a member: `lcroute up` brings it back, `lcroute leave` forgets the network"
        }
        false => "nothing runs; still a member, if it was one",
    };
    hint(said);
    Ok(Exit::Ok)
}

/// The unit of a systemd that runs this host.
#[derive(Debug)]
struct Service;

impl Service {
    /// Returns the service; `None` without systemd or unit, or for another node than the host's.
    fn find(common: &Common, config: &Config) -> Option<Self> {
        let systemd = Path::new("/run/systemd/system").is_dir();
        if !systemd || !common.is_hosts_state(config) {
            return None;
        }
        let known = Command::new("systemctl")
            .args(["cat", UNIT])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        known.is_ok_and(|status| status.success()).then_some(Self)
    }

    fn start(&self) -> anyhow::Result<()> {
        // enabled by the package, unless `down` disabled it
        self.systemctl(&["enable", "--quiet", PATH_UNIT, UNIT, CLOSE_UNIT])?;
        self.systemctl(&["start", PATH_UNIT, UNIT])
    }

    fn stop(&self) -> anyhow::Result<()> {
        self.systemctl(&["disable", "--now", "--quiet", PATH_UNIT, UNIT])
    }

    fn systemctl(&self, args: &[&str]) -> anyhow::Result<()> {
        let shown = || format!("systemctl {}", args.join(" "));
        let status = Command::new("systemctl").args(args).status();
        let status = status.with_context(shown)?;
        anyhow::ensure!(
            status.success(),
            "{} failed; see `journalctl -u {UNIT}`",
            shown()
        );
        Ok(())
    }
}

/// Makes this node a member; returns whether it has just founded its network.
fn become_member(
    common: &Common,
    config: &Config,
    state: &StateDir,
    options: &UpOptions,
) -> anyhow::Result<bool> {
    let given = match &options.token {
        Some(_) => None,
        None => token_of_environment()?,
    };
    if let Some(token) = options.token.as_deref() {
        membership::accept(common, state, config, token, options.name.clone())?;
    } else if let Some(token) = given {
        join_once(common, state, config, &token, options.name.clone())?;
    } else if state.membership()?.is_none() {
        membership::found(state, config, options.name.clone())?;
        return Ok(true);
    }
    Ok(false)
}

/// Joins by a token that is present at every start: once, and again after the membership's end.
fn join_once(
    common: &Common,
    state: &StateDir,
    config: &Config,
    text: &str,
    name: Option<String>,
) -> anyhow::Result<()> {
    let token: Token = text
        .parse()
        .map_err(|e| ExitError::new(Exit::Usage, format!("{TOKEN} or {TOKEN_FILE}: {e}")))?;
    let membership = state.membership()?;
    let joined = membership.is_some_and(|m| m.network == token.network());
    if !joined || state.identity(UnixTime::now()).is_err() {
        membership::accept(common, state, config, text, name)?;
    }
    Ok(())
}

/// Returns the token for an unattended host: from the environment, or from a file that it names. An
/// empty variable counts as unset, as compose files leave it.
pub(super) fn token_of_environment() -> anyhow::Result<Option<Zeroizing<String>>> {
    let given = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let text = match (given(TOKEN), given(TOKEN_FILE)) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => {
            let message = format!("{TOKEN} and {TOKEN_FILE} are both set: which one counts?");
            return Err(ExitError::new(Exit::Usage, message).into());
        }
        (Some(token), None) => Zeroizing::new(token.into_string().unwrap_or_default()),
        (None, Some(path)) => {
            let shown = || format!("{TOKEN_FILE}: {}", path.display());
            let mut text = Zeroizing::new(String::new());
            let mut file = std::fs::File::open(&path).with_context(shown)?;
            file.by_ref()
                .take(MAX_TOKEN as u64 + 1)
                .read_to_string(&mut text)
                .with_context(shown)?;
            text
        }
    };
    Ok(Some(Zeroizing::new(text.trim().to_owned())))
}

/// Waits for the first link, and prints the result.
fn tell(common: &Common, config: &Config, control: &Path, told: Told) -> anyhow::Result<Exit> {
    let timeout = told.timeout;
    let identity = StateDir::of(common, config).identity(UnixTime::now())?;
    let mut status = ask_daemon(control)?;
    let begun = Instant::now();
    let is_alone = members(control)?.len() <= 1;
    let alone = told.founded || is_alone && identity.member.is_issuer();
    let mut peers = peers(control)?;
    let mut linked = linked_with(&peers);
    let mut is_quiet = !common.json;
    while awaits_link(&linked, alone, status.state) && begun.elapsed() < timeout {
        std::thread::sleep(LOOK);
        peers = self::peers(control)?;
        linked = linked_with(&peers);
        status = ask_daemon(control)?;
        let left = timeout.saturating_sub(begun.elapsed()).as_secs();
        if linked.is_empty() && is_quiet && begun.elapsed() > QUIET {
            is_quiet = false;
            let missing = missing(&status, &peers, config);
            hint(format_args!(
                "waiting {left} s more for the first link: {missing}"
            ));
        }
    }
    let took = begun.elapsed();
    if status.state == State::Expelled {
        let message = format!(
            "{}: `lcroute leave`, then `lcroute up` with a new token",
            missing(&status, &peers, config)
        );
        return Err(ExitError::new(Exit::NotPermitted, message).into());
    }
    let members = members(control)?;
    let token = match told.secrets {
        true => membership::plain_token(config, &identity)?,
        false if identity.member.is_issuer() => {
            hint("`lcroute invite` prints a token for other hosts");
            None
        }
        false => None,
    };
    // a user without access to the pages gets no address
    let pages = lcroute_control::pages::served(control).ok().flatten();
    let pages = pages.filter(|_| told.secrets);
    if common.json {
        print_line(json!({
            "name": status.name, "address": identity.member.addresses.address, "ipv4": status.ipv4,
            "network": identity.membership.network, "linked": linked,
            "token": token.as_ref().map(|token| token.as_str()), "pages": pages,
        }))?;
    } else {
        print_line(format_args!("name     {}", status.name))?;
        if is_name_taken(&status.peer_id, &status.name, &members) {
            hint(
                "another member has this name, too: an issuer gives this node a number behind it, which `lcroute id` shows then",
            );
        }
        print_line(format_args!(
            "address  {}",
            identity.member.addresses.address
        ))?;
        match status.ipv4 {
            Some(ipv4) => print_line(format_args!("ipv4     {ipv4}"))?,
            None if config.carries_ipv4() => {
                hint("IPv4 is carried as well; `lcroute status` has the address in a few seconds");
            }
            None => {}
        }
        if !linked.is_empty() {
            let seconds = took.as_secs_f64();
            print_line(format_args!(
                "linked   {} ({seconds:.1} s)",
                linked.join(", ")
            ))?;
        }
        if let Some(token) = &token {
            print_line(format_args!("token    {}", token.as_str()))?;
            hint(
                "anyone with the token can become a member within a week: on another host, lcroute up TOKEN",
            );
        }
        if let Some(pages) = &pages {
            print_line(format_args!("pages    {pages}"))?;
        }
    }
    if !linked.is_empty() || alone {
        return Ok(Exit::Ok);
    }
    let missing = missing(&status, &peers, config);
    Err(ExitError::new(
        Exit::Unreachable,
        format!("no link within {timeout:?}: {missing}"),
    )
    .into())
}

/// Whether a link is missing that may still come.
fn awaits_link(linked: &[String], is_alone: bool, state: State) -> bool {
    linked.is_empty() && !is_alone && state != State::Expelled
}

/// Whether another member than `own` has this name.
fn is_name_taken(own: &PeerId, name: &str, members: &[KnownMember]) -> bool {
    let mut others = members.iter().filter(|member| member.peer_id != *own);
    others.any(|other| other.name.eq_ignore_ascii_case(name))
}

/// Returns possible reasons for a missing link.
fn missing(status: &Status, peers: &[Peer], config: &Config) -> String {
    if status.state == State::Expelled {
        let why = status.token_uses.map(lcroute_node::spent);
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        return format!("this node has been expelled from the network{why}");
    }
    if let Clocks::ThisDiffers(detail) = clocks(peers, UnixTime::now()) {
        return format!("{detail}: if it is wrong, `timedatectl set-ntp true`");
    }
    let mut doors = vec![match status.signal_servers {
        0 => "no signalling server answers",
        _ => "a signalling server answers, and no other node can be reached",
    }];
    if status.relay.only && status.relay.offered == 0 {
        doors.push(NO_RELAY);
    }
    let firewall = format!(
        "no node of the network is on a LAN of this host, or a firewall of either host drops UDP port 5353 (`{MDNS_RULE}`)"
    );
    doors.push(match config.exposure().lans() {
        Ok(()) if lcroute_signalling::is_mdns_taken() => {
            "no node of the network is found on a LAN of this host, where another program has UDP port 5353 for itself"
        }
        Ok(()) => firewall.as_str(),
        Err(Silent::Off) => "LANs are not looked at ([signal] lan = false)",
        Err(Silent::Hidden) => "LANs are not looked at ([ice] policy = \"relay\")",
    });
    format!(
        "{}. `lcroute doctor` looks closer; `lcroute meet` links two hosts by pasted text",
        doors.join("; ")
    )
}

fn ask_daemon(control: &Path) -> anyhow::Result<Status> {
    let begun = Instant::now();
    let mut is_quiet = true;
    loop {
        let asked = Client::connect(control).and_then(|mut client| client.ask(&Request::Status));
        match asked {
            Err(e) if begun.elapsed() < START && !is_refused(&e) => std::thread::sleep(LOOK),
            asked => return asked,
        }
        if is_quiet && begun.elapsed() > QUIET {
            is_quiet = false;
            hint(format_args!(
                "waiting up to {} s for the daemon to answer at {}; its log says more (journalctl -u {UNIT})",
                START.as_secs(),
                control.display()
            ));
        }
    }
}

fn is_refused(e: &anyhow::Error) -> bool {
    let exit = e.downcast_ref::<ExitError>().map(|e| e.exit);
    exit == Some(Exit::NotPermitted)
}

fn members(control: &Path) -> anyhow::Result<Vec<KnownMember>> {
    Client::connect(control)?.ask(&Request::Members)
}

fn peers(control: &Path) -> anyhow::Result<Vec<Peer>> {
    Client::connect(control)?.ask(&Request::Peers)
}

fn linked_with(peers: &[Peer]) -> Vec<String> {
    let connected = peers.iter().filter(|peer| peer.state == "connected");
    connected.map(Peer::shown).collect()
}

/// Writes `profile = "lan"` into the configuration.
fn use_lan_profile(common: &Common, config: &mut Config) -> anyhow::Result<()> {
    use lcroute_control::config::{DEFAULT_PATH, Profile};
    if config.network.profile == Some(Profile::Lan) {
        return Ok(());
    }
    let path = common.config_path().unwrap_or(Path::new(DEFAULT_PATH));
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(e).with_context(|| path.display().to_string()),
    };
    let mut document: toml_edit::DocumentMut =
        text.parse().with_context(|| path.display().to_string())?;
    document["network"]["profile"] = toml_edit::value("lan");
    librecast::durable::replace(path, document.to_string().as_bytes())
        .with_context(|| path.display().to_string())?;
    hint(format_args!(
        "{}: [network] profile = \"lan\"",
        path.display()
    ));
    *config = Config::load(Some(path))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::Ipv6Addr;

    use librecast::id::SecretKey;

    use super::*;

    #[test]
    fn an_expelled_node_awaits_no_link() {
        let linked = ["beta".to_owned()];
        assert!(awaits_link(&[], false, State::Connecting));
        assert!(!awaits_link(&[], false, State::Expelled));
        assert!(!awaits_link(&[], true, State::Connecting));
        assert!(!awaits_link(&linked, false, State::Connected));
    }

    #[test]
    fn a_name_is_taken_by_another_member_alone() {
        let peer = |n: u8| SecretKey::from_seed(&[n; 32]).peer_id();
        let member = |n: u8, name: &str| KnownMember {
            peer_id: peer(n),
            name: name.to_owned(),
            address: Ipv6Addr::UNSPECIFIED,
            labels: BTreeMap::new(),
            present: true,
            last_seen: 0,
            not_after: 0,
        };
        let own = member(1, "beta");
        let free = [own.clone(), member(2, "alpha"), member(3, "beta-2")];
        assert!(!is_name_taken(&peer(1), "beta", &free));
        let taken = [own, member(2, "Beta")];
        assert!(is_name_taken(&peer(1), "beta", &taken));
    }
}
