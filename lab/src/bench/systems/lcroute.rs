//! lcroute: a signalling server of its own, everybody linked with everybody.

use anyhow::Result;

use super::super::system::{Node, System};
use crate::lab::{Host, Lab};

pub fn start(lab: &Lab, hosts: Vec<Host>, config: &str) -> Result<System> {
    for host in &hosts {
        host.configure(config)?;
    }
    let mut network = lab.network(hosts)?;
    network.start()?;
    let nodes = network.members.iter_mut().map(|member| {
        Ok(Node {
            host: member.host.clone(),
            interface: "lc0",
            daemon: Some(member.daemon()?.pid()),
        })
    });
    Ok(System {
        nodes: nodes.collect::<Result<_>>()?,
        network: Some(network),
        processes: Vec::new(),
    })
}
