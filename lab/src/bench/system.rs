//! A system under test: what is up, and what most of them are set up with.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};

use crate::lab::{Host, Network, Process, eventually};

/// A host of a system.
#[derive(Clone, Debug)]
pub struct Node {
    /// The host.
    pub host: Host,
    /// The interface that programs are to use.
    pub interface: &'static str,
    /// The process id of its daemon.
    pub daemon: Option<u32>,
}

/// A system that is up.
#[derive(Debug)]
pub struct System {
    /// The sender, the listeners, and the one that does not listen.
    pub nodes: Vec<Node>,
    /// lcroute's own handles.
    pub network: Option<Network>,
    /// Daemons that end with the system.
    #[expect(dead_code, reason = "held, not read")]
    pub processes: Vec<Process>,
}

impl System {
    /// Where the sending program runs.
    #[must_use]
    pub fn sender(&self) -> &Node {
        &self.nodes[0]
    }

    /// Where receiving programs run.
    #[must_use]
    pub fn listeners(&self) -> &[Node] {
        &self.nodes[1..self.nodes.len() - 1]
    }

    /// Where nobody listens.
    #[must_use]
    pub fn idle(&self) -> &Node {
        &self.nodes[self.nodes.len() - 1]
    }

    /// The process ids of all daemons, the sender's first.
    pub fn daemons(&self) -> impl Iterator<Item = u32> {
        self.nodes.iter().filter_map(|node| node.daemon)
    }
}

/// Packets that an interface may hold: as many as `lc0` may, so that no system loses to another
/// by a default.
pub const QUEUE: u32 = 10_000;

/// Waits for an interface that a program makes.
pub fn wait_interface(host: &Host, interface: &str, process: &mut Process) -> Result<()> {
    eventually(&format!("{interface} is there"), || {
        process.must_run()?;
        ensure!(host.has_interface(interface), "not yet");
        Ok(())
    })
}

/// Hosts with a daemon and an interface each.
pub fn system(hosts: Vec<Host>, interface: &'static str, processes: Vec<Process>) -> System {
    let nodes = hosts.into_iter().enumerate().map(|(at, host)| Node {
        host,
        interface,
        daemon: processes.get(at).map(Process::pid),
    });
    System {
        nodes: nodes.collect(),
        network: None,
        processes,
    }
}

/// A TAP that a program has made, with an address and up.
pub fn bring_up(host: &Host, number: usize, tap: &str) -> Result<()> {
    host.ip(&format!(
        "link set {tap} mtu 1400 txqueuelen {QUEUE} up\n\
         addr add fd00:5::{number}/64 dev {tap} nodad"
    ))
}

/// The hosts with their numbers and addresses.
pub fn numbered(hosts: &[Host]) -> Result<Vec<(usize, &Host, Ipv4Addr)>> {
    let number = |(at, host): (usize, _)| Ok((at + 1, host, Host::v4(host)?));
    hosts.iter().enumerate().map(number).collect()
}
