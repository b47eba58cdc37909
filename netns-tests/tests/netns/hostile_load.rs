//! Garbage at the daemon's UDP port: links stay, live traffic continues, and drops have names.

use std::net::SocketAddrV4;

use crate::prelude::*;

pub const PORT: u16 = 7201;

/// Starts two open hosts, `a` and `b`, linked over IPv4, and an attacker.
pub fn besieged(lab: &Lab) -> Result<(Network, Host)> {
    let hosts = vec![lab.host("a")?, lab.host("b")?];
    hosts[0].cut_towards(hosts[1].v6()?.into())?;
    crate::configure(&hosts, &format!("[ice]\nport = {PORT}\n"))?;
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
        let receiver = a.known_receiver(b, "ff1e::42", &[])?;
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
        a.reaches(b, "ff1e::43", 100)?;
        // it was one link all the time
        let peer = a.peers()?.first().cloned().context("no peer")?;
        holds!(
            peer["state"] == "connected" && peer["lane"] == "media",
            "{peer}"
        )
    });
}
