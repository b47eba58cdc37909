//! lcroute with its own signalling server and a mesh of links.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result};

use super::super::system::{Node, System};
use lcroute_demo::lab::{Host, Lab};

pub fn start(lab: &Lab, hosts: Vec<Host>, config: &str) -> Result<System> {
    for host in &hosts {
        host.configure(config)?;
    }
    start_configured(lab, hosts)
}

fn start_configured(lab: &Lab, hosts: Vec<Host>) -> Result<System> {
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

/// Does the same, with all groups of the bench private.
pub fn start_private(lab: &Lab, hosts: Vec<Host>, config: &str) -> Result<System> {
    const KEY: &str = "bench.key";
    let first = hosts.first().context("hosts")?;
    first.run("lcroute", &["keygen", KEY])?.success()?;
    let key = fs::read(first.path(KEY))?;
    for host in &hosts[1..] {
        let file = host.write(KEY, &key)?;
        fs::set_permissions(file, Permissions::from_mode(0o600))?;
    }
    for host in &hosts {
        let file = host.path(KEY);
        let private = format!(
            "[[private]]\nprefix = \"ff1e::/16\"\nkeyfile = \"{}\"\n",
            file.display()
        );
        host.configure(&format!("{config}\n{private}"))?;
    }
    start_configured(lab, hosts)
}
