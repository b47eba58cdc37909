//! The bare relay: only the sending host knows other hosts, the listening ones.

use anyhow::Result;

use super::super::system::{QUEUE, System, numbered, system, wait_interface};
use lcroute_demo::lab::Host;

const TUN: &str = "relay0";
const PORT: u16 = 7000;

pub fn start(hosts: Vec<Host>) -> Result<System> {
    let numbered = numbered(&hosts)?;
    let mut processes = Vec::new();
    for (number, host, address) in &numbered {
        let listening = &numbered[1..numbered.len() - 1];
        let peers = listening.iter().filter(|_| *number == 1);
        let peers: Vec<String> = peers
            .map(|(_, _, address)| format!("--peer={address}:{PORT}"))
            .collect();
        let bind = format!("{address}:{PORT}");
        let mut args = vec!["--tun", TUN, "--bind", &bind];
        args.extend(peers.iter().map(String::as_str));
        let mut process = host.spawn("bare-relay", &args)?;
        wait_interface(host, TUN, &mut process)?;
        host.ip(&format!(
            "link set {TUN} mtu 1280 txqueuelen {QUEUE} up\n\
             addr add fd00:5::{number}/64 dev {TUN} nodad"
        ))?;
        processes.push(process);
    }
    Ok(system(hosts, TUN, processes))
}
