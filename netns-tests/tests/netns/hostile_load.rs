//! Garbage at the daemon's UDP port: links stay, live traffic continues, and drops have names.

use std::net::SocketAddrV4;

use anyhow::{Context, Result, ensure};
use lcroute_demo::lab::{Host, Lab, Member, Network, Process, eventually};

use crate::world;

pub const PORT: u16 = 7201;

/// Starts two open hosts, `a` and `b`, linked over IPv4, and an attacker.
pub fn besieged(lab: &Lab) -> Result<(Network, Host)> {
    let hosts = vec![lab.host("a")?, lab.host("b")?];
    hosts[0].cut_towards(hosts[1].v6()?.into())?;
    for host in &hosts {
        host.configure(&format!("[ice]\nport = {PORT}\n"))?;
    }
    let mallory = lab.host("mallory")?;
    let mut network = lab.network(hosts)?;
    network.start()?;
    Ok((network, mallory))
}

/// Floods `to`: from random sources, and with a second stream from the forged source `known`.
fn flood(mallory: &Host, to: &Member, known: &Member, rate: &str) -> Result<[Process; 2]> {
    let target = SocketAddrV4::new(to.host.v4()?, PORT).to_string();
    let known = SocketAddrV4::new(known.host.v4()?, PORT).to_string();
    let args = [target.as_str(), "--seconds", "600", "--rate", rate];
    Ok([
        mallory.spawn("udp-flood", &args)?,
        mallory.spawn("udp-flood", &[&args[..], &["--source", &known]].concat())?,
    ])
}

/// The drop reasons of garbage.
const GARBAGE: [&str; 7] = [
    "stun_malformed",
    "stun_no_link",
    "stun_unasked",
    "udp_no_link",
    "udp_no_protocol",
    "dtls_plaintext",
    "media_no_link",
];

#[test]
fn garbage_stops_neither_links_nor_live_traffic_and_is_counted() {
    world("garbage", |lab| {
        let (network, mallory) = besieged(lab)?;
        let [a, b] = network.nodes()?;
        let receiver = b.host.receive("ff1e::42", &[])?;
        a.wait_wanted("ff1e::42", b)?;
        let _floods = [
            flood(&mallory, b, a, "2000")?,
            flood(&mallory, a, b, "2000")?,
        ];
        eventually("each kind of garbage is counted", || {
            for name in GARBAGE {
                for node in [a, b] {
                    let counted = node.counter(&format!("drops/{name}"))?;
                    ensure!(counted > 100, "{name}: {counted}");
                }
            }
            Ok(())
        })?;
        a.host.send("ff1e::42", 1_000, &[])?;
        receiver.expect_exactly(1_000)?;
        // a join passes as well
        let other = b.host.receive("ff1e::43", &[])?;
        a.wait_wanted("ff1e::43", b)?;
        a.host.send("ff1e::43", 100, &[])?;
        other.expect_exactly(100)?;
        // it was one link all the time
        let peer = a.peers()?.first().cloned().context("no peer")?;
        holds!(
            peer["state"] == "connected" && peer["lane"] == "media",
            "{peer}"
        )
    });
}

/// Measures delivery under a flood at the machine's limit, by hand:
/// `FLOOD=0 FLOW=20000 cargo test -p netns-tests --test netns full_blast -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn full_blast() {
    world("full-blast", |lab| {
        let (mut network, mallory) = besieged(lab)?;
        let setting = |name: &str, or: &str| std::env::var(name).unwrap_or_else(|_| or.to_owned());
        let (rate, flow) = (setting("FLOOD", "0"), setting("FLOW", "1000"));
        let kind = setting("KIND", "");
        let pid = network.members[1].daemon()?.pid();
        let [a, b] = network.nodes()?;
        let receiver = b.host.receive("ff1e::42", &[])?;
        a.wait_wanted("ff1e::42", b)?;
        let target = SocketAddrV4::new(b.host.v4()?, PORT).to_string();
        let mut args = vec![target.as_str(), "--seconds", "8", "--rate", &rate];
        if !kind.is_empty() {
            args.extend(["--kind", &kind]);
        }
        let known = SocketAddrV4::new(a.host.v4()?, PORT).to_string();
        if setting("KNOWN", "") == "1" {
            args.extend(["--source", &known]);
        }
        drop(mallory);
        let flood = lab.internet().spawn("udp-flood", &args)?;
        std::thread::sleep(std::time::Duration::from_secs(1));
        let count = flow.parse::<u64>()? * 5;
        let sent = a.host.send("ff1e::42", count, &["--rate", &flow])?;
        std::thread::sleep(std::time::Duration::from_millis(500));
        let flooded = flood.output()?.success()?.stdout;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let memory = status.lines().find(|line| line.starts_with("VmRSS"));
        println!(
            "flood {} flow {flow}/s in {:.2} s: delivered {} of {count}; {memory:?}\n{}\n{}\n{}",
            flooded.trim(),
            sent.seconds,
            receiver.packets()?,
            serde_json::Value::from(a.peers()?),
            a.status()?["counters"],
            b.status()?["counters"]
        );
        Ok(())
    });
}
