//! `lcroute doctor`: checks for obstacles to multicast on this host, each with a remedy.
//!
//! It changes nothing and sends no report. It runs with the user's permissions: it skips checks
//! that these do not allow, and reports that.

mod firewall;
mod host;
mod interface;
mod ipv4;
mod lan;
mod membership;
mod network;
mod outside;
mod ports;
mod private;
mod reach;
mod relay;
mod streams;
mod uplink;
mod web;

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use lcroute_control::Request;
use lcroute_control::client::{Client, to_look};
use lcroute_control::config::Config;
use lcroute_control::settings::Common;
use lcroute_control::status::{Lan, Peer, Status};
use librecast::plain::escape;
use librecast_program::cli::{Exit, print_line};
use nix::errno::Errno;
use nix::unistd::{AccessFlags, Group, User, access};
use serde::Serialize;

use crate::servers::servers;
use crate::state::Identity;

/// Makes a table, with a line for each row.
macro_rules! rows {
    ($($name:literal, $meaning:literal;)*) => {
        &[$(($name, $meaning),)*]
    };
}

/// The names of all checks, with descriptions.
pub const CHECKS: &[(&str, &str)] = rows! {
    "configuration", "Whether the file can be read and is valid.";
    "daemon", "Whether it answers on the control socket, and what it is doing.";
    "kernel", "Its release.";
    "ipv6", "Whether the kernel has it, and new interfaces get it.";
    "tun device", "Whether /dev/net/tun can be opened.";
    "capabilities", "Whether the daemon, or who runs this, has CAP_NET_ADMIN.";
    "clock", "Whether somebody keeps it in time (adjtimex).";
    "mld", "Version, memberships and sources that the kernel allows.";
    "state directory", "That it exists, and that other users cannot read the keys.";
    "identity", "That there is a key and a membership.";
    "certificate", "Until when the membership is good.";
    "interface", "That lc0 is up, with its address.";
    "routes", "Where the kernel sends groups of programs that name no interface.";
    "source address", "Whether programs that choose no source send from the node's address, and whether packets from others are dropped (`foreign_source`).";
    "inbound firewall", "Whether what arrives on lc0 reaches programs, as the daemon has tried it.";
    "opened to members", "What members can reach of this host over lc0 beside the groups that its programs join, and how to narrow that.";
    "reverse path filter", "Whether nftables drops what has no way back, and whether the network's addresses have one.";
    "network managers", "Whether systemd-networkd and NetworkManager leave lc0 alone.";
    "ipv4", "Whether lc0 has an IPv4 address where IPv4 is on, whether nftables lets its groups in, which route of the host overlaps the network's, which routes take groups away from lc0, which groups other interfaces hold that lc0 has the route for, and whether programs send broadcasts, which are not carried.";
    "lans", "Whether each [[lan]] is served, and what is wrong there.";
    "private prefixes", "Whether this host has the key of each [[private]], and where its groups are in clear.";
    "signalling", "Whether each signalling server answers, and how soon.";
    "nat", "How STUN servers see this host over IPv4: no NAT, one that keeps the port, or one that does not.";
    "links", "How many are up, and why nodes were refused.";
    "uplink", "Whether copies of own multicast need more than the uplink, and which nodes carry them.";
    "discovery", "On which LANs nodes are looked for without a server, and how many were found there.";
    "spool", "Whether the folder that nodes share can be read, and how many were found by it.";
    "dht", "Whether lcroute-reach runs where it is wanted, how many nodes of the DHT answer, what they see, and how many were found by it.";
    "matrix", "Whether this node's account is in the Matrix room, may keep its record there, and how many were found by it.";
    "relay", "Whether relays answer, and by what: UDP, TCP or TLS.";
    "ports", "Whether the router maps the UDP port of the links, by what and to which address, or why not.";
    "streams", "Whether the program for streams runs where it is wanted, and whether nftables lets in UDP port 14247 on lc0.";
    "outside", "Whether keys outside of the network can meet this host: by which ways, and which servers of `[outside] meet` answer.";
    "web", "Whether `lcroute web` has what it needs, and who reaches its pages.";
};

/// Result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// No fault.
    Ok,
    /// It works, or may work, but with a fault.
    Warn,
    /// Something does not work.
    Fail,
    /// It could not be checked, or does not apply.
    Skipped,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Its name; names are stable.
    pub name: &'static str,
    /// Its result.
    pub state: State,
    /// The finding.
    pub detail: String,
    /// The remedy.
    pub remedy: Option<String>,
}

impl Check {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self::new(name, State::Ok, detail, None)
    }

    fn warn(name: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(name, State::Warn, detail, Some(remedy.into()))
    }

    fn fail(name: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(name, State::Fail, detail, Some(remedy.into()))
    }

    fn skipped(name: &'static str, why: impl Into<String>) -> Self {
        Self::new(name, State::Skipped, why, None)
    }

    fn new(
        name: &'static str,
        state: State,
        detail: impl Into<String>,
        remedy: Option<String>,
    ) -> Self {
        Self {
            name,
            state,
            detail: detail.into(),
            remedy,
        }
    }
}

/// The host under examination.
struct Patient {
    config: Config,
    /// The command line's settings.
    common: Common,
    identity: Option<Identity>,
    /// The daemon's answers, if it runs and answers.
    daemon: Option<Daemon>,
    /// Reason for their absence.
    without: &'static str,
}

impl Patient {
    /// Returns the signalling servers of file, token and daemon.
    fn servers(&self) -> Vec<String> {
        let token = self.identity.as_ref().map(|i| i.membership.signal.clone());
        let mut urls = servers(&self.config, &token.unwrap_or_default());
        let doors = self.daemon.iter().flat_map(|daemon| &daemon.status.doors);
        for door in doors.filter(|door| door.kind == "server") {
            if !urls.contains(&door.at) {
                urls.push(door.at.clone());
            }
        }
        urls
    }
}

struct Daemon {
    status: Status,
    peers: Vec<Peer>,
    lans: Vec<Lan>,
    /// Its process, if the kernel reports it.
    pid: Option<i32>,
    client: Client,
}

/// Runs and prints all checks; exit code 1 if one fails.
pub fn run(common: Common) -> anyhow::Result<Exit> {
    let json = common.json;
    let (checks, may_see_more) = examine(common);
    let failed = checks.iter().any(|c| c.state == State::Fail);
    if json {
        let answer = serde_json::json!({ "ok": !failed, "checks": checks, "fix": fix(&checks) });
        print_line(answer)?;
    } else {
        let mut out = librecast_program::standard::output();
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        out.write_all(text(&checks, colour).as_bytes())?;
        if may_see_more {
            let user = User::from_uid(nix::unistd::geteuid()).ok().flatten();
            let user = user.map_or_else(|| "USER".into(), |user| user.name);
            let group = Group::from_name("lcroute").ok().flatten();
            let joins = group.map_or_else(String::new, |group| {
                format!(
                    ", or `sudo usermod -aG {} {user}` and log in again",
                    group.name
                )
            });
            writeln!(
                out,
                "this user cannot see everything: `sudo lcroute doctor`{joins}"
            )?;
        }
        out.flush()?;
    }
    Ok(if failed { Exit::Failed } else { Exit::Ok })
}

/// Returns the checks, and whether another user could check more.
fn examine(common: Common) -> (Vec<Check>, bool) {
    let (config, configuration) = match common.load_config() {
        Ok(config) => {
            let at = common.config_path();
            let at = at.unwrap_or(Path::new(lcroute_control::config::DEFAULT_PATH));
            let detail = match at.exists() {
                true => format!("{} is valid", at.display()),
                false => format!("no {}: everything is as by default", at.display()),
            };
            (config, Check::ok("configuration", detail))
        }
        Err(e) => {
            let remedy = "correct the file: `man lcroute` and docs/reference.md have every key";
            let check = Check::fail("configuration", format!("{e:#}"), remedy);
            (Config::default(), check)
        }
    };
    let mut patient = Patient {
        config,
        common,
        identity: None,
        daemon: None,
        without: NOT_RUNNING,
    };
    let mut checks = vec![configuration];
    // first: later checks use its answers
    checks.push(ask_daemon(&mut patient));
    checks.extend(host::checks(&patient));
    checks.extend(membership::checks(&mut patient));
    checks.extend(interface::checks(&mut patient));
    checks.push(ipv4::check(&patient));
    checks.push(lan::check(&patient));
    checks.push(private::check(&patient));
    checks.extend(network::checks(&patient));
    checks.push(uplink::check(&patient));
    checks.extend(reach::checks(&patient));
    checks.push(relay::check(&patient));
    checks.push(ports::check(&patient));
    checks.push(streams::check(&patient));
    checks.push(outside::check(&patient));
    checks.push(web::check(&patient));
    debug_assert!(
        checks
            .iter()
            .all(|c| CHECKS.iter().any(|(name, _)| *name == c.name))
    );
    (checks, patient.without == NOT_TO_ASK)
}

const DAEMON: &str = "daemon";
const NOT_RUNNING: &str = "the daemon does not run";
const NOT_TO_ASK: &str = "the daemon does not answer this user";
/// Paths of a daemon that the system started.
const SYSTEM_CONTROL: &str = "/run/lcroute/control.sock";
const SYSTEM_STATE: &str = "/var/lib/lcroute";

fn ask_daemon(patient: &mut Patient) -> Check {
    let mut path = patient.common.control(&patient.config);
    // a user without a daemon means the system's
    if !is_root() && !path.exists() && Path::new(SYSTEM_CONTROL).exists() {
        path = SYSTEM_CONTROL.into();
    }
    let path = to_look(&path);
    let shown = path.display();
    let mut client = match Client::connect_if_running(&path) {
        Ok(Some(client)) => client,
        Ok(None) => {
            return not_running(&path);
        }
        Err(_) if is_hidden(&path) => {
            patient.without = NOT_TO_ASK;
            return Check::skipped(DAEMON, format!("{NOT_TO_ASK} at {shown}"));
        }
        Err(e) => return Check::skipped(DAEMON, format!("{e:#}")),
    };
    let pid = client.pid();
    let answers = || -> anyhow::Result<Daemon> {
        Ok(Daemon {
            status: client.probe()?,
            peers: client.ask(&Request::Peers)?,
            lans: client.ask(&Request::Lan)?,
            pid,
            client,
        })
    };
    match answers() {
        Ok(daemon) => {
            let status = &daemon.status;
            let detail = format!("{} runs, {}", status.name, status.state.name());
            patient.daemon = Some(daemon);
            Check::ok(DAEMON, detail)
        }
        Err(e) => {
            let remedy = "look at its log (journalctl -u lcroute); systemctl restart lcroute";
            Check::fail(DAEMON, format!("{shown}: {e:#}"), remedy)
        }
    }
}

fn not_running(control: &Path) -> Check {
    let remedy = "systemctl start lcroute, or `lcroute run` in a terminal; where this host is not a member yet, first `lcroute up TOKEN`";
    let shown = control.display();
    Check::fail(
        DAEMON,
        format!("{NOT_RUNNING}: nothing answers at {shown}"),
        remedy,
    )
}

fn text(checks: &[Check], colour: bool) -> String {
    let mut text = String::new();
    let width = checks.iter().map(|c| c.name.len()).max().unwrap_or(0);
    for check in checks {
        let (word, code) = match check.state {
            State::Ok => ("ok", "32"),
            State::Warn => ("WARN", "33"),
            State::Fail => ("FAIL", "31"),
            State::Skipped => ("skipped", "2"),
        };
        let padded = format!("{word:<7}");
        text += &match colour {
            true => format!("\x1b[{code}m{padded}\x1b[0m"),
            false => padded,
        };
        text += &format!("  {:<width$}  {}\n", check.name, escape(&check.detail));
        for line in check.remedy.iter().flat_map(|r| r.lines()) {
            let line = escape(line);
            text += &format!("{:9}{:<width$}  -> {line}\n", "", "");
        }
    }
    let count = |state| checks.iter().filter(|c| c.state == state).count();
    let (failed, warned) = (count(State::Fail), count(State::Warn));
    text += &match (failed, warned) {
        (0, 0) => "nothing is wrong\n".to_owned(),
        (0, 1) => "nothing fails, 1 warning\n".to_owned(),
        (0, n) => format!("nothing fails, {n} warnings\n"),
        (n, _) => format!("{n} failed, {warned} warnings\n"),
    };
    if let Some(fix) = fix(checks) {
        text += &format!("fix this: {}\n", escape(&fix));
    }
    text
}

/// Returns the first remedy: a failed check precedes those that fail because of it.
fn fix(checks: &[Check]) -> Option<String> {
    let first = checks.iter().find(|check| check.state == State::Fail)?;
    let remedy = first.remedy.as_deref().unwrap_or_default();
    let remedy = remedy.lines().collect::<Vec<_>>().join(" ");
    Some(format!("{}: {}; {remedy}", first.name, first.detail))
}

/// Whether a daemon exists that refuses this user.
fn is_hidden(control: &Path) -> bool {
    access(control, AccessFlags::W_OK) == Err(Errno::EACCES)
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Returns the output of `nft list ruleset`; `None` if nft is missing or needs root.
fn nft_ruleset() -> Option<String> {
    let listed = Command::new("nft")
        .args(["list", "ruleset"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let rules = String::from_utf8_lossy(&listed.stdout);
    listed.status.success().then(|| rules.into_owned())
}

/// Returns a file's content without the final line break.
fn read(path: impl AsRef<Path>) -> std::io::Result<String> {
    Ok(std::fs::read_to_string(path)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_does_not_run_is_the_failure_to_fix() {
        let checks = [
            Check::ok("kernel", "Linux 6.18"),
            not_running(Path::new("/run/none")),
            Check::fail("identity", "there is none", "another remedy"),
        ];
        assert_eq!(checks[1].state, State::Fail);
        let shown = text(&checks, false);
        assert!(
            shown.contains("2 failed")
                && shown.contains("fix this: daemon: the daemon does not run"),
            "{shown}"
        );
        assert!(shown.contains("systemctl start lcroute"), "{shown}");
    }

    #[test]
    fn a_remedy_stands_below_its_check() {
        let checks = [
            Check::ok("kernel", "Linux 6.18"),
            Check::fail("inbound firewall", "it drops", "do this\nthen that"),
            Check::skipped("clock", "hidden"),
        ];
        let expected = "\
ok       kernel            Linux 6.18
FAIL     inbound firewall  it drops
                           -> do this
                           -> then that
skipped  clock             hidden
1 failed, 0 warnings
fix this: inbound firewall: it drops; do this then that
";
        assert_eq!(text(&checks, false), expected);
        assert!(text(&checks, true).contains("\x1b[31mFAIL   \x1b[0m  inbound"));
        assert!(text(&checks[..1], false).ends_with("nothing is wrong\n"));
    }
}
