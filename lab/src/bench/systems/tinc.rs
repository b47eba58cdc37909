//! tinc in switch mode: all hosts connect to the sending one. Multicast is flooded.

use std::fs;

use anyhow::{Context, Result};

use super::super::system::{System, bring_up, numbered, system, wait_interface};
use lcroute_demo::lab::Host;

const TAP: &str = "tap0";

pub fn start(hosts: Vec<Host>) -> Result<System> {
    let numbered = numbered(&hosts)?;
    let mut cards = Vec::new();
    for (number, host, address) in &numbered {
        let name = format!("n{number}");
        let connect = if *number == 1 { "" } else { "ConnectTo = n1\n" };
        host.write(
            "tinc/tinc.conf",
            format!("Name = {name}\nMode = switch\nInterface = {TAP}\n{connect}"),
        )?;
        let card = host.write(
            &format!("tinc/hosts/{name}"),
            format!("Address = {address}\n"),
        )?;
        let folder = host.path("tinc");
        host.run("tincd", &["-c", &folder.to_string_lossy(), "-K", "2048"])?
            .success()
            .context("tincd -K")?;
        cards.push((name, fs::read_to_string(card)?));
    }
    let mut processes = Vec::new();
    for (number, host, _) in &numbered {
        for (name, card) in &cards {
            host.write(&format!("tinc/hosts/{name}"), card)?;
        }
        let (folder, pid) = (host.path("tinc"), host.path("tinc/pid"));
        let pid = format!("--pidfile={}", pid.display());
        let mut process = host.spawn("tincd", &["-D", "-c", &folder.to_string_lossy(), &pid])?;
        wait_interface(host, TAP, &mut process)?;
        bring_up(host, *number, TAP)?;
        processes.push(process);
    }
    Ok(system(hosts, TAP, processes))
}
