//! An lcroute network in a world: the signalling server, the members, their daemons and reports.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lcroute_control::Request;
use lcroute_control::client::Client;
use serde_json::Value;

use super::{Host, Lab, Process, Receiver, eventually, wait, within};

/// The daemon's control socket, in the folder of its host.
const SOCKET: &str = "run/control.sock";

/// The signalling server on its own public host.
#[derive(Debug)]
pub struct SignallingServer {
    /// Its host.
    pub host: Host,
    /// More arguments for `lcroute signal`; by default it does not relay: cut paths stay cut.
    pub args: Vec<String>,
    process: Option<Process>,
}

/// A node: a host with a membership, with or without its daemon running.
#[derive(Debug)]
pub struct Member {
    /// Its host.
    pub host: Host,
    /// More arguments for `lcroute run`.
    pub run_args: Vec<String>,
    /// The daemon's program: `lcroute`, or a variant with a wrong clock.
    pub program: &'static str,
    daemon: Option<Process>,
}

/// A signalling server and members.
#[derive(Debug)]
pub struct Network {
    /// The signalling server.
    pub signalling: SignallingServer,
    /// The nodes; the first one founded the network.
    pub members: Vec<Member>,
    /// The output of `lcroute invite`.
    pub token: String,
}

impl Lab {
    /// Starts a signalling server on a public host.
    pub fn signalling_server(&self) -> Result<SignallingServer> {
        let mut server = SignallingServer {
            host: self.host("signalling")?,
            args: vec!["--no-relay".to_owned()],
            process: None,
        };
        server.start()?;
        Ok(server)
    }

    /// Starts public hosts with closed firewalls as members of one network, linked in full mesh.
    ///
    /// ```text
    ///                internet
    ///     ┌─────────────┼─────────┬──────── ...
    ///  signalling    a (closed)  b (closed)
    /// ```
    ///
    /// # Errors
    /// The first step that fails.
    pub fn closed_network<const N: usize>(&self, names: [&str; N]) -> Result<Network> {
        let mut network = self.network(self.closed_hosts(&names)?)?;
        network.start()?;
        Ok(network)
    }

    /// Makes public hosts whose uplink admits only answers and ICMPv6.
    pub fn closed_hosts(&self, names: &[&str]) -> Result<Vec<Host>> {
        let closed = |name: &&str| {
            let host = self.host(name)?;
            host.close_uplink()?;
            Ok(host)
        };
        names.iter().map(closed).collect()
    }

    /// Makes closed hosts whose daemons have this configuration.
    pub fn configured_hosts(&self, names: &[&str], content: &str) -> Result<Vec<Host>> {
        let hosts = self.closed_hosts(names)?;
        hosts.iter().try_for_each(|host| host.configure(content))?;
        Ok(hosts)
    }

    /// Makes closed hosts in a row: each reaches only its neighbours (and the signalling server).
    ///
    /// ```text
    ///   first ── second ── third ── ...
    /// ```
    pub fn hosts_in_a_row(&self, names: &[&str]) -> Result<Vec<Host>> {
        let hosts = self.closed_hosts(names)?;
        for (at, host) in hosts.iter().enumerate() {
            let others = hosts.iter().enumerate();
            let far = others.filter(|(other, _)| other.abs_diff(at) > 1);
            let far: Vec<&Host> = far.map(|(_, host)| host).collect();
            if !far.is_empty() {
                host.cut_from(far)?;
            }
        }
        Ok(hosts)
    }

    /// Makes these hosts members of one network; their daemons are not started yet.
    pub fn network(&self, hosts: Vec<Host>) -> Result<Network> {
        self.network_invited(hosts, &[])
    }

    /// Does the same, with more arguments for `lcroute invite`.
    pub fn network_invited(&self, hosts: Vec<Host>, invite: &[&str]) -> Result<Network> {
        let signalling = self.signalling_server()?;
        let founder = hosts.first().context("a network needs a host")?;
        founder
            .run("lcroute", &["init", "--name", founder.name()])?
            .success()
            .context("lcroute init")?;
        let url = signalling.url()?;
        let args = ["invite", "--label", "world=lab", "--signal", &url];
        let invited = founder.run("lcroute", &[&args[..], invite].concat())?;
        let token = invited
            .success()
            .context("lcroute invite")?
            .stdout
            .trim()
            .to_owned();
        for host in &hosts[1..] {
            let joined = host.run("lcroute", &["join", &token, "--name", host.name()])?;
            joined.success().context("lcroute join")?;
        }
        let mut members: Vec<Member> = hosts.into_iter().map(Member::new).collect();
        // Only members that joined have the signalling server's address, from the token.
        members[0].run_args = vec!["--signal".to_owned(), signalling.url()?];
        Ok(Network {
            signalling,
            members,
            token,
        })
    }
}

impl SignallingServer {
    /// Returns the URL of the server.
    pub fn url(&self) -> Result<String> {
        Ok(format!("ws://{}:7117", self.host.v4()?))
    }

    /// Starts the server and waits until it listens.
    pub fn start(&mut self) -> Result<()> {
        let more = self.args.iter().map(String::as_str);
        let args: Vec<&str> = ["signal", "--listen", "[::]:7117"]
            .into_iter()
            .chain(more)
            .collect();
        let process = self.process.insert(self.host.spawn("lcroute", &args)?);
        eventually("the signalling server listens", || {
            process.must_run()?;
            let open = super::open_sockets(process.pid())?;
            let listens = open.iter().any(|socket| socket.protocol.starts_with("tcp"));
            ensure!(listens, "no listening socket yet");
            Ok(())
        })
    }

    /// Makes it a relay from its next start on, also to test addresses (198.18.0.0/15), which are
    /// the Internet of this world.
    pub fn set_relay(&mut self) -> Result<()> {
        self.args.retain(|arg| arg != "--no-relay");
        self.host.configure("[relay]\nprivate = true\n")
    }

    /// Restarts it as a relay.
    pub fn restart_with_relay(&mut self) -> Result<()> {
        self.kill()?;
        self.set_relay()?;
        self.start()
    }

    /// Kills the server.
    pub fn kill(&mut self) -> Result<()> {
        self.process
            .take()
            .context("the signalling server does not run")?
            .kill()
    }
}

impl Network {
    /// Starts all daemons and waits until each is linked with each.
    pub fn start(&mut self) -> Result<()> {
        self.start_each()?;
        self.wait_linked()
    }

    /// Starts one daemon after the other, each when the one before is ready.
    pub fn start_each(&mut self) -> Result<()> {
        self.members.iter_mut().try_for_each(Member::start)
    }

    /// Starts all daemons at once and waits until each reaches each, over links of their choice.
    pub fn start_routed(&mut self) -> Result<()> {
        self.start_at_once()?;
        wait_reach(&self.members.iter().collect::<Vec<_>>())
    }

    /// Starts all daemons at once, and waits until each is ready.
    pub fn start_at_once(&mut self) -> Result<()> {
        self.members.iter_mut().try_for_each(Member::launch)?;
        self.members.iter_mut().try_for_each(Member::wait_ready)
    }

    /// Waits until each member is linked with each other one.
    pub fn wait_linked(&self) -> Result<()> {
        let members: Vec<&Member> = self.members.iter().collect();
        members
            .iter()
            .try_for_each(|member| member.wait_links(members.len() - 1))?;
        wait_reach(&members)
    }

    /// Waits until each link knows that its path has Ethernet's MTU: path MTU probes are as long as
    /// data, and would be counted as such.
    pub fn wait_probed(&self) -> Result<()> {
        eventually("all paths have been probed", || {
            for member in &self.members {
                for peer in member.peers()? {
                    let linked = peer["state"] == "connected" && peer["lane"] == "media";
                    ensure!(!linked || peer["path_mtu"] == 1_452, "{peer}");
                }
            }
            Ok(())
        })
    }

    /// Returns the members by position, for `let [a, b, c] = network.hosts()?`.
    pub fn nodes<const N: usize>(&self) -> Result<[&Member; N]> {
        let nodes: Vec<&Member> = self.members.iter().collect();
        <[&Member; N]>::try_from(nodes).map_err(|nodes| anyhow::anyhow!("{} members", nodes.len()))
    }
}

/// Waits until each of these members reaches exactly the other ones over any links, and all know
/// all these links: while trees change, a packet can be lost.
pub fn wait_reach(members: &[&Member]) -> Result<()> {
    eventually("all reach all others and agree about their links", || {
        let mut links = BTreeMap::new();
        for member in members {
            links.insert(member.peer_id()?, member.linked_with()?.len() as u64);
        }
        for member in members {
            let own = member.peer_id()?;
            let mut known = BTreeMap::from([(own.clone(), links[&own])]);
            for route in member.routes()? {
                let count = route["links"].as_u64().context("links")?;
                known.insert(text(&route, "peer_id")?, count);
            }
            let name = member.host.name();
            let missing = links.keys().filter(|id| !known.contains_key(*id)).count();
            ensure!(missing == 0, "{name} does not reach {missing} of them");
            ensure!(
                known == links,
                "{name} knows {known:?}, there are {links:?}"
            );
        }
        Ok(())
    })
}

impl Member {
    /// Returns a member for a host with a membership.
    #[must_use]
    pub fn new(host: Host) -> Member {
        Member {
            host,
            run_args: Vec::new(),
            program: "lcroute",
            daemon: None,
        }
    }

    /// Starts the daemon and waits until it is ready.
    pub fn start(&mut self) -> Result<()> {
        self.launch()?;
        self.wait_ready()
    }

    /// Starts the daemon.
    pub fn launch(&mut self) -> Result<()> {
        let args: Vec<&str> = self.run_args.iter().map(String::as_str).collect();
        let program = self.program;
        self.daemon = Some(self.host.spawn(program, &[&["run"], &args[..]].concat())?);
        Ok(())
    }

    /// Waits until the daemon answers.
    pub fn wait_ready(&mut self) -> Result<()> {
        let daemon = self.daemon.as_mut().context("no daemon was started")?;
        let host = &self.host;
        eventually(&format!("lcroute on {} is ready", host.name()), || {
            daemon.must_run()?;
            ask(host, &Request::Status).map(drop)
        })
    }

    /// Returns the daemon.
    pub fn daemon(&mut self) -> Result<&mut Process> {
        self.daemon
            .as_mut()
            .with_context(|| format!("{} has no daemon", self.host.name()))
    }

    /// Sends SIGTERM to the daemon, which must end with exit code 0.
    pub fn stop(&mut self) -> Result<()> {
        let code = self.daemon()?.stop()?;
        ensure!(
            code == 0,
            "lcroute on {} ended with exit code {code}",
            self.host.name()
        );
        Ok(())
    }

    /// Returns the status that `lcroute status --json` prints, without streams.
    pub fn status(&self) -> Result<Value> {
        ask(&self.host, &Request::Status)
    }

    /// Returns the list that `lcroute peers --json` prints, without names of an address book.
    pub fn peers(&self) -> Result<Vec<Value>> {
        list(ask(&self.host, &Request::Peers)?)
    }

    /// Returns the list that `lcroute groups --json` prints.
    pub fn groups(&self) -> Result<Vec<Value>> {
        list(ask(&self.host, &Request::Groups)?)
    }

    /// Returns the list that `lcroute routes --json` prints.
    pub fn routes(&self) -> Result<Vec<Value>> {
        list(ask(&self.host, &Request::Routes)?)
    }

    /// Returns the number of links on the path to `other`, if there is one.
    pub fn hops(&self, other: &Member) -> Result<Option<u64>> {
        let id = other.peer_id()?;
        let routes = self.routes()?;
        let route = routes.iter().find(|route| route["peer_id"] == *id);
        Ok(route.and_then(|route| route["hops"].as_u64()))
    }

    /// Returns a counter of `status`, such as `link_tx_packets` or `drops/no_listener`.
    ///
    /// # Errors
    /// There is no such counter. A drop reason that never occurred counts as 0.
    pub fn counter(&self, name: &str) -> Result<u64> {
        let status = self.status()?;
        match status
            .pointer(&format!("/counters/{name}"))
            .and_then(Value::as_u64)
        {
            Some(value) => Ok(value),
            None if name.starts_with("drops/") => Ok(0),
            None => bail!("no counter {name} in {status}"),
        }
    }

    /// Returns this node's address on the network.
    pub fn address(&self) -> Result<Ipv6Addr> {
        Ok(text(&self.status()?, "address")?.parse()?)
    }

    /// Returns this node's PeerId.
    pub fn peer_id(&self) -> Result<String> {
        text(&self.status()?, "peer_id")
    }

    /// Returns the PeerIds of peers with a link that is up.
    pub fn linked_with(&self) -> Result<Vec<String>> {
        let peers = self.peers()?;
        let up = peers.iter().filter(|peer| peer["state"] == "connected");
        up.map(|peer| text(peer, "peer_id")).collect()
    }

    /// Waits until exactly `count` links are up.
    pub fn wait_links(&self, count: usize) -> Result<()> {
        eventually(&format!("{} has {count} links", self.host.name()), || {
            let peers = self.peers()?;
            let up = peers
                .iter()
                .filter(|peer| peer["state"] == "connected")
                .count();
            ensure!(up == count, "{up} links up: {}", Value::from(peers));
            Ok(())
        })
    }

    /// Waits until this node knows that `by` wants `group`, over any links.
    pub fn wait_wanted(&self, group: &str, by: &Member) -> Result<()> {
        let (want, peer) = (group.parse::<IpAddr>()?, by.peer_id()?);
        let what = format!(
            "{} knows that {} wants {group}",
            self.host.name(),
            by.host.name()
        );
        eventually(&what, || {
            let way = self.way_to_listener(want, &peer)?;
            ensure!(way, "groups: {}", Value::from(self.groups()?));
            Ok(())
        })
    }

    /// Starts `mc-recv GROUP ARGS...` at `by`, and waits until this node knows of it.
    pub fn known_receiver(&self, by: &Member, group: &str, args: &[&str]) -> Result<Receiver> {
        let receiver = by.host.receive(group, args)?;
        self.wait_wanted(group, by)?;
        Ok(receiver)
    }

    /// Checks that `count` datagrams to `group` reach a program at `other`, each once.
    pub fn reaches(&self, other: &Member, group: &str, count: u64) -> Result<()> {
        let receiver = self.known_receiver(other, group, &[])?;
        self.host.send(group, count, &[])?;
        receiver.expect_exactly(count)
    }

    /// Waits until this node knows that `by` no longer wants `group`.
    ///
    /// # Errors
    /// It still counts as wanted.
    pub fn wait_unwanted(&self, group: &str, by: &Member) -> Result<()> {
        let (want, peer) = (group.parse::<IpAddr>()?, by.peer_id()?);
        let what = format!(
            "{} knows that {} left {group}",
            self.host.name(),
            by.host.name()
        );
        within(Duration::from_secs(60), &what, || {
            let way = self.way_to_listener(want, &peer)?;
            ensure!(!way, "groups: {}", Value::from(self.groups()?));
            Ok(())
        })
    }

    /// Returns whether links with joins of `group` lead from this node to `peer`. Each node reports
    /// only its own links, so the nodes on the path are asked in turn.
    fn way_to_listener(&self, group: IpAddr, peer: &str) -> Result<bool> {
        let mut seen = BTreeSet::new();
        let mut ways = vec![self.host.name().to_owned()];
        while let Some(name) = ways.pop() {
            let socket = self.host.path("..").join(&name).join(SOCKET);
            let asked = |request: &Request| list(ask_at(&socket, request)?);
            let links = wanted_over(&asked(&Request::Groups)?, group);
            if links.iter().any(|link| link == peer) {
                return Ok(true);
            }
            if !seen.insert(name.clone()) || links.is_empty() {
                continue;
            }
            for known in asked(&Request::Peers)? {
                if links.iter().any(|link| known["peer_id"] == **link) {
                    let next = text(&known, "name")?;
                    if !seen.contains(&next) {
                        ways.push(next);
                    }
                }
            }
        }
        Ok(false)
    }
}

/// Returns the neighbours with joins of a group on their links.
fn wanted_over(groups: &[Value], group: IpAddr) -> Vec<String> {
    let is_group =
        |entry: &&Value| entry["group"].as_str().and_then(|text| text.parse().ok()) == Some(group);
    let entries = groups.iter().filter(is_group);
    let links = entries.filter_map(|entry| entry["links"].as_array());
    let peers = links.flatten().filter_map(Value::as_str);
    peers.map(str::to_owned).collect()
}

impl Drop for Member {
    /// Writes this node's counters and its kernel's for a failed test.
    fn drop(&mut self) {
        if !wait::has_given_up() || self.daemon.is_none() {
            return;
        }
        let counted = self.status();
        let counted = counted.map(|status| format!("{:#}", status["counters"]));
        let of_sockets = r"grep -hE '^Udp6?(:|InErrors|RcvbufErrors)' /proc/net/snmp /proc/net/snmp6
            echo 'packets, lost, late of each processor:'; cut -d' ' -f1-3 /proc/net/softnet_stat";
        let kernel = self.host.ask("sh", &["-c", of_sockets]);
        let said = format!(
            "{}\n{}",
            counted.unwrap_or_else(|error| format!("{error:#}")),
            kernel.map_or_else(|error| format!("{error:#}"), |said| said.stdout),
        );
        // an error has no recipient
        let _ = fs::write(self.host.path("logs/last-counters"), said);
    }
}

/// Asks the daemon of a host itself: waits ask often, and starting a program costs more than the rest.
fn ask(host: &Host, request: &Request) -> Result<Value> {
    ask_at(&host.path(SOCKET), request)
}

fn ask_at(socket: &Path, request: &Request) -> Result<Value> {
    Client::connect_to_look(socket)?.ask(request)
}

fn list(value: Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(list) => Ok(list),
        other => bail!("a JSON list was expected: {other}"),
    }
}

fn text(value: &Value, key: &str) -> Result<String> {
    Ok(value[key]
        .as_str()
        .with_context(|| format!("no {key} in {value}"))?
        .to_owned())
}
