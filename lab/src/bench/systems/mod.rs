//! How each system is set up, with what its own manual says.

pub mod fastd;
pub mod lcroute;
pub mod openvpn;
pub mod relay;
pub mod tinc;

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};

use super::system::{Node, System};
use crate::lab::{Host, Process, eventually};

/// Packets that an interface may hold: as many as `lc0` may, so that no system loses to another
/// by a default.
const QUEUE: u32 = 10_000;

/// Waits for an interface that a program makes.
fn wait_interface(host: &Host, interface: &str, process: &mut Process) -> Result<()> {
    eventually(&format!("{interface} is there"), || {
        process.must_run()?;
        ensure!(host.has_interface(interface), "not yet");
        Ok(())
    })
}

/// Hosts with a daemon and an interface each.
fn system(hosts: Vec<Host>, interface: &'static str, processes: Vec<Process>) -> System {
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
fn bring_up(host: &Host, number: usize, tap: &str) -> Result<()> {
    host.ip(&format!(
        "link set {tap} mtu 1400 txqueuelen {QUEUE} up\n\
         addr add fd00:5::{number}/64 dev {tap} nodad"
    ))
}

/// The hosts with their numbers and addresses.
fn numbered(hosts: &[Host]) -> Result<Vec<(usize, &Host, Ipv4Addr)>> {
    let number = |(at, host): (usize, _)| Ok((at + 1, host, Host::v4(host)?));
    hosts.iter().enumerate().map(number).collect()
}
