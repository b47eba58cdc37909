//! `listen` and `say`: plain sockets without lcroute, to test a network. A running daemon supplies
//! facts that sockets lack: names, listeners, the state of this host's firewall.

use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use lcroute_control::Request;
use lcroute_control::client::Client;
use lcroute_control::status::{Group, Inbound, Status};
use librecast::mapped;
use librecast::plain::clean;
use librecast_program::cli::{Exit, ExitError, print_line};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::json;
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};

use super::{hint, names, query};

/// Time in which a JOIN becomes known to a new sender.
const DISCOVERY: Duration = Duration::from_secs(1);
/// Time between two queries of the daemon.
const LOOK: Duration = Duration::from_millis(100);

/// A group, a port and an interface.
#[derive(Debug)]
pub struct Target {
    /// The group.
    pub group: IpAddr,
    /// UDP port.
    pub port: u16,
    /// The interface that the user names.
    pub interface: Option<String>,
    /// The default, if it exists.
    pub default_interface: String,
    /// Control socket of its daemon.
    pub control: PathBuf,
    /// Groups of link scope that are carried.
    pub link_scope_groups: Vec<Ipv6Addr>,
}

impl Target {
    /// Returns the interface's index; 0 lets the system's routes choose.
    fn index(&self) -> anyhow::Result<u32> {
        let index = |name: &str| nix::net::if_::if_nametoindex(name);
        match &self.interface {
            Some(name) => index(name).map_err(|e| {
                ExitError::new(Exit::Failed, format!("interface {name}: {}", e.desc())).into()
            }),
            None => {
                let tun = self.tun_of_daemon();
                let name = tun.as_deref().unwrap_or(&self.default_interface);
                Ok(index(name).unwrap_or(0))
            }
        }
    }

    /// Returns the daemon's interface: that of a host's second node is not the configured one.
    fn tun_of_daemon(&self) -> Option<String> {
        let mut daemon = Client::connect_if_running(&self.control).ok().flatten()?;
        let status: Status = daemon.ask(&Request::Status).ok()?;
        Some(status.tun)
    }

    /// Warns about a group that stays on its link, and so reaches no other node.
    fn tell_if_not_carried(&self, index: u32) {
        let tun = self.tun_of_daemon();
        let tun = tun.as_deref().unwrap_or(&self.default_interface);
        let is_lc0 = nix::net::if_::if_nametoindex(tun).is_ok_and(|lc0| lc0 == index);
        let name = mapped::name_of(self.group);
        let stays = match self.group {
            IpAddr::V4(group) => group.octets()[..3] == [224, 0, 0],
            IpAddr::V6(group) => group.octets()[1] & 0xf <= 4,
        };
        if is_lc0 && stays && !self.link_scope_groups.contains(&name) {
            hint(format_args!(
                "{}: a group of this scope stays on its link: lcroute carries it to no other node, unless it is of scope 2 and [network] link_scope_groups names it",
                self.group
            ));
        }
    }

    /// Returns the group's address, on the link of `index` if it has link scope.
    fn address(&self, index: u32) -> anyhow::Result<SocketAddr> {
        let of_link = match self.group {
            IpAddr::V4(group) => group.octets()[..3] == [224, 0, 0],
            IpAddr::V6(group) => group.octets()[1] & 0xf <= 2,
        };
        if of_link && index == 0 {
            let message = format!(
                "{}: a group of one link: name the interface with -i",
                self.group
            );
            return Err(ExitError::new(Exit::Usage, message).into());
        }
        let scope = if of_link { index } else { 0 };
        Ok(match self.group {
            IpAddr::V4(group) => SocketAddrV4::new(group, self.port).into(),
            IpAddr::V6(group) => SocketAddrV6::new(group, self.port, 0, scope).into(),
        })
    }

    /// Makes a socket of the group's family.
    fn socket(&self) -> std::io::Result<Socket> {
        let domain = match self.group {
            IpAddr::V4(_) => Domain::IPV4,
            IpAddr::V6(_) => Domain::IPV6,
        };
        Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))
    }

    /// Returns the IPv4 address of an interface, which identifies it to the kernel.
    fn ipv4_of(index: u32) -> anyhow::Result<Ipv4Addr> {
        let name = nix::net::if_::if_indextoname(index)?;
        let name = name.to_string_lossy();
        let of_interface = |a: nix::ifaddrs::InterfaceAddress| {
            let is_it = a.interface_name == name;
            a.address
                .filter(|_| is_it)?
                .as_sockaddr_in()
                .map(|a| a.ip())
        };
        let address = nix::ifaddrs::getifaddrs()?.find_map(of_interface);
        address.ok_or_else(|| {
            let message = format!(
                "{name} has no IPv4 address: [tun] ipv4 = true switches IPv4 on; `lcroute doctor` says what is missing"
            );
            ExitError::new(Exit::Failed, message).into()
        })
    }

    /// Returns the daemon of the interface; prints a hint if there is none.
    fn daemon(&self) -> Option<Client> {
        if self
            .interface
            .as_ref()
            .is_some_and(|name| *name != self.default_interface)
        {
            return None;
        }
        match Client::connect_if_running(&self.control) {
            Ok(Some(client)) => Some(client),
            Ok(None) => {
                hint(format_args!(
                    "no daemon answers at {}: only this host and its LANs are reached",
                    self.control.display()
                ));
                None
            }
            Err(e) => {
                hint(format_args!("the daemon is not asked: {e:#}"));
                None
            }
        }
    }
}

/// Names of nodes by their addresses, as the daemon knows them.
#[derive(Default)]
struct Names {
    known: BTreeMap<IpAddr, String>,
    asked: Option<Instant>,
}

impl Names {
    /// Returns the node's name at `address`; asks the daemon at most once a second.
    fn of(&mut self, address: IpAddr, target: &Target) -> Option<&str> {
        let is_due = self.asked.is_none_or(|at| at.elapsed() > DISCOVERY);
        if !self.known.contains_key(&address) && is_due {
            self.asked = Some(Instant::now());
            self.known = names::by_address(&target.control);
        }
        self.known.get(&address).map(String::as_str)
    }
}

/// Prints every datagram of the group until SIGINT or SIGTERM.
pub fn listen(target: &Target, json: bool) -> anyhow::Result<Exit> {
    let index = target.index()?;
    let socket = target.socket()?;
    if target.group.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if target.group.is_ipv4() && index != 0 {
        // without an address the kernel would join, but nothing would arrive
        Target::ipv4_of(index)?;
    }
    target.tell_if_not_carried(index);
    // several programs of a host may listen to one group
    socket.set_reuse_address(true)?;
    // bound to the group, not to ::, so that other groups of this port are excluded
    socket
        .bind(&target.address(index)?.into())
        .with_context(|| format!("port {}", target.port))?;
    let joined = match target.group {
        IpAddr::V6(group) => socket.join_multicast_v6(&group, index),
        IpAddr::V4(group) => {
            socket.join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(index))
        }
    };
    joined.with_context(|| format!("join {}", target.group))?;
    let socket = UdpSocket::from(socket);
    let stop = stop_fd()?;
    let mut buffer = vec![0; 65_536];
    if !json {
        hint(format_args!(
            "listening to {} port {}; Ctrl-C ends",
            target.group, target.port
        ));
    }
    if let Some(mut daemon) = target.daemon()
        && let Ok(status) = daemon.probe()
    {
        match status.inbound {
            Inbound::Blocked => hint(query::firewall(&status.tun)),
            Inbound::NoRoute => hint(query::no_route(&status.tun)),
            Inbound::Open | Inbound::Unknown => {}
        }
    }
    let mut names = Names::default();
    loop {
        let mut fds = [
            PollFd::new(socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(stop.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
        let ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|r| !r.is_empty());
        if ready(&fds[1]) {
            return Ok(Exit::Ok);
        }
        if ready(&fds[0]) {
            let (n, from) = socket.recv_from(&mut buffer)?;
            let name = names.of(from.ip(), target);
            print(target, &buffer[..n], (from, name), json)?;
        }
    }
}

fn print(
    target: &Target,
    bytes: &[u8],
    (from, name): (SocketAddr, Option<&str>),
    json: bool,
) -> std::io::Result<()> {
    let text = String::from_utf8_lossy(bytes);
    if json {
        return print_line(json!({
            "group": target.group, "from": from.ip(), "name": name, "port": from.port(), "bytes": bytes.len(), "text": text,
        }));
    }
    let shown = clean(text.trim_end());
    match name {
        // an address fills half of a terminal's line; programs parse it
        Some(name) if std::io::stdout().is_terminal() => {
            print_line(format_args!("{name}  {shown}"))
        }
        Some(name) => print_line(format_args!("{} ({name})  {shown}", from.ip())),
        None => print_line(format_args!("{}  {shown}", from.ip())),
    }
}

/// SIGINT and SIGTERM as a descriptor that becomes readable.
fn stop_fd() -> anyhow::Result<nix::sys::signalfd::SignalFd> {
    use nix::sys::signal::{SigSet, Signal};
    let mut set = SigSet::empty();
    set.add(Signal::SIGINT);
    set.add(Signal::SIGTERM);
    set.thread_block()?;
    Ok(nix::sys::signalfd::SignalFd::with_flags(
        &set,
        nix::sys::signalfd::SfdFlags::SFD_CLOEXEC,
    )?)
}

/// Sends `text`, or each line of standard input, as one datagram.
pub fn say(target: &Target, text: Option<&str>) -> anyhow::Result<Exit> {
    let index = target.index()?;
    let socket = target.socket()?;
    if index != 0 {
        match target.group {
            IpAddr::V4(_) => socket.set_multicast_if_v4(&Target::ipv4_of(index)?)?,
            IpAddr::V6(_) => socket.set_multicast_if_v6(index)?,
        }
    }
    target.tell_if_not_carried(index);
    let address = target.address(index)?.into();
    let send = |line: &[u8]| {
        socket
            .send_to(line, &address)
            .with_context(|| format!("send to {}", target.group))
    };
    if let Some(text) = text {
        send(text.as_bytes())?;
        tell_if_nobody_listens(target);
        return Ok(Exit::Ok);
    }
    librecast_program::cli::note_of_input("lines, each sent at once,");
    // lines may have any bytes
    for (n, line) in librecast_program::standard::input()
        .split(b'\n')
        .enumerate()
    {
        send(&line?)?;
        if n == 0 {
            tell_if_nobody_listens(target);
        }
    }
    Ok(Exit::Ok)
}

/// Warns if no listener is known: a packet without a listener is not an error.
fn tell_if_nobody_listens(target: &Target) {
    let Some(mut daemon) = target.daemon() else {
        return;
    };
    let until = Instant::now() + DISCOVERY;
    loop {
        let groups = match daemon.ask::<Vec<Group>>(&Request::Groups) {
            Ok(groups) => groups,
            Err(e) => return hint(format_args!("who listens is not known: {e:#}")),
        };
        let mut wanted = groups.iter().filter(|g| g.group == target.group);
        if wanted.any(|g| g.local || !g.links.is_empty()) {
            return;
        }
        if Instant::now() >= until {
            hint(format_args!("nobody listens to {}", target.group));
            return;
        }
        std::thread::sleep(LOOK);
    }
}
