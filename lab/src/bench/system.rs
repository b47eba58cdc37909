//! A running system under test, and the common parts of its setup.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};

use lcroute_demo::lab::{Host, Network, Process, eventually};

/// A host of a system.
#[derive(Clone, Debug)]
pub struct Node {
    /// The host.
    pub host: Host,
    /// The interface for programs.
    pub interface: &'static str,
    /// The process id of its daemon.
    pub daemon: Option<u32>,
}

/// A running system.
#[derive(Debug)]
pub struct System {
    /// The sender, the listeners, and a host without a listener.
    pub nodes: Vec<Node>,
    /// lcroute's own handles.
    pub network: Option<Network>,
    /// Daemons that end with the system.
    #[expect(dead_code, reason = "held, not read")]
    pub processes: Vec<Process>,
}

impl System {
    /// Returns the host of the sending program.
    pub fn sender(&self) -> &Node {
        &self.nodes[0]
    }

    /// Returns the hosts of the receiving programs.
    pub fn listeners(&self) -> &[Node] {
        &self.nodes[1..self.nodes.len() - 1]
    }

    /// Returns the host without a listener.
    pub fn idle(&self) -> &Node {
        &self.nodes[self.nodes.len() - 1]
    }

    /// Returns the process ids of all daemons, the sender's first.
    pub fn daemons(&self) -> impl Iterator<Item = u32> {
        self.nodes.iter().filter_map(|node| node.daemon)
    }
}

/// Transmit queue of an interface in packets, that of `lc0`, to give no system a disadvantage.
pub const QUEUE: u32 = 10_000;

/// Waits for an interface that a program makes.
pub fn wait_interface(host: &Host, interface: &str, process: &mut Process) -> Result<()> {
    eventually(&format!("{interface} is there"), || {
        process.must_run()?;
        ensure!(host.has_interface(interface), "not yet");
        Ok(())
    })
}

/// Returns a system of hosts with a daemon and an interface each.
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

/// Brings up a TAP that a program has made, with an address.
pub fn bring_up(host: &Host, number: usize, tap: &str) -> Result<()> {
    host.ip(&format!(
        "link set {tap} mtu 1400 txqueuelen {QUEUE} up\n\
         addr add fd00:5::{number}/64 dev {tap} nodad"
    ))
}

/// Returns the hosts with their numbers and addresses.
pub fn numbered(hosts: &[Host]) -> Result<Vec<(usize, &Host, Ipv4Addr)>> {
    let number = |(at, host): (usize, _)| Ok((at + 1, host, Host::v4(host)?));
    hosts.iter().enumerate().map(number).collect()
}
