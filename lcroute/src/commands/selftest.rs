//! `listen` and `say`: plain sockets that know nothing of lcroute, to try a network with.

use std::io::{BufRead, Write};
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::AsFd;

use anyhow::Context;
use librecast::cli::{Exit, ExitError};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};

/// A group, a port and an interface.
#[derive(Debug)]
pub struct Target {
    /// The group.
    pub group: Ipv6Addr,
    /// UDP port.
    pub port: u16,
    /// As the user says.
    pub interface: Option<String>,
    /// Used when it exists and the user says nothing.
    pub default_interface: String,
}

impl Target {
    /// 0 lets the system's routes choose.
    fn index(&self) -> anyhow::Result<u32> {
        let index = |name: &str| nix::net::if_::if_nametoindex(name);
        match &self.interface {
            Some(name) => index(name).map_err(|e| {
                ExitError::new(Exit::Failed, format!("interface {name}: {}", e.desc())).into()
            }),
            None => Ok(index(self.default_interface.as_str()).unwrap_or(0)),
        }
    }

    fn address(&self) -> SocketAddr {
        SocketAddrV6::new(self.group, self.port, 0, 0).into()
    }
}

/// Prints every datagram that comes to the group until told to stop.
pub fn listen(target: &Target, json: bool) -> anyhow::Result<Exit> {
    let index = target.index()?;
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_only_v6(true)?;
    // several may listen to one group on one host
    socket.set_reuse_address(true)?;
    // bound to the group, not to ::, so that other groups of this port stay out
    socket
        .bind(&target.address().into())
        .with_context(|| format!("port {}", target.port))?;
    socket
        .join_multicast_v6(&target.group, index)
        .with_context(|| format!("join {}", target.group))?;
    let socket = UdpSocket::from(socket);
    let stop = stop_fd()?;
    let mut buffer = vec![0; 65_536];
    if !json {
        super::hint(format_args!(
            "listening to {} port {}; Ctrl-C ends",
            target.group, target.port
        ));
    }
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
            print(target, &buffer[..n], from, json)?;
        }
    }
}

fn print(target: &Target, bytes: &[u8], from: SocketAddr, json: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let text = String::from_utf8_lossy(bytes);
    if json {
        let line = json!({
            "group": target.group, "from": from.ip(), "port": from.port(), "bytes": bytes.len(), "text": text,
        });
        writeln!(out, "{line}")?;
    } else {
        // what comes from the network must not steer the terminal
        let shown: String = text
            .trim_end()
            .chars()
            .map(|c| if c.is_control() { '\u{fffd}' } else { c })
            .collect();
        writeln!(out, "{}  {shown}", from.ip())?;
    }
    out.flush()
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
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    if index != 0 {
        socket.set_multicast_if_v6(index)?;
    }
    let send = |line: &[u8]| {
        socket
            .send_to(line, &target.address().into())
            .with_context(|| format!("send to {}", target.group))
    };
    if let Some(text) = text {
        send(text.as_bytes())?;
        return Ok(Exit::Ok);
    }
    // whatever the lines are made of
    for line in std::io::stdin().lock().split(b'\n') {
        send(&line?)?;
    }
    Ok(Exit::Ok)
}
