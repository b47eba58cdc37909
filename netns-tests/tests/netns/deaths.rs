//! How a neighbour's end is noticed, and what is no end.

use anyhow::{Result, ensure};
use netns_tests::lab::eventually;

use crate::hostile_load::{PORT, besieged};
use crate::world;

/// What a daemon logs of a link that its peer's host has refused.
const REFUSED: &str = "unreachable";

#[test]
fn a_killed_daemon_has_gone_as_soon_as_its_host_says_so() {
    world("refused", |lab| {
        let mut network = lab.closed_network(["a", "b"])?;
        let receiver = network.members[1].host.receive("ff1e::42", &[])?;
        let [a, b] = network.nodes()?;
        a.wait_wanted("ff1e::42", b)?;
        let _sender = a.host.send_for_ever("ff1e::42")?;
        receiver.expect_more("b hears a")?;
        network.members[1].daemon()?.kill()?;
        network.members[0].wait_links(0)?;
        let log = network.members[0].daemon()?.stderr();
        let ends: Vec<&str> = log.lines().filter(|l| l.contains("link down")).collect();
        ensure!(ends.len() == 1 && ends[0].contains(REFUSED), "{ends:?}");
        // and of a host that is silent nobody says so
        network.members[1].start()?;
        network.wait_linked()?;
        network.members[1].host.cut_uplink()?;
        network.members[0].wait_links(0)?;
        let log = network.members[0].daemon()?.stderr();
        let last = log.lines().rfind(|l| l.contains("link down"));
        ensure!(last.is_some_and(|l| l.contains("silent")), "{last:?}");
        Ok(())
    });
}

#[test]
fn forged_icmp_errors_end_no_link_and_cost_no_packet() {
    world("forged-icmp", |lab| {
        let (mut network, mallory) = besieged(lab)?;
        let addresses = network.nodes::<2>()?.map(|node| node.host.v4());
        let [a, b] = addresses.map(|v4| v4.map(|v4| format!("{v4}:{PORT}")));
        let (a, b) = (a?, b?);
        let flood = |to: &str, from: &str| {
            let args = [to, "--source", from, "--unreachable", "--rate", "1000"];
            mallory.spawn("udp-flood", &[&args[..], &["--seconds", "600"]].concat())
        };
        let _floods = [flood(&a, &b)?, flood(&b, &a)?];
        let count = || -> Result<u64> {
            let nodes = network.nodes::<2>()?;
            let counts = nodes.map(|node| node.counter("drops/udp_icmp_error"));
            Ok(counts
                .into_iter()
                .collect::<Result<Vec<_>>>()?
                .into_iter()
                .min()
                .unwrap_or(0))
        };
        eventually("the errors come", || {
            ensure!(count()? > 100, "{}", count()?);
            Ok(())
        })?;
        let before = count()?;
        let [a, b] = network.nodes()?;
        // a flood that costs packets costs some in each round; beside the whole suite one was lost in one round
        let round = || -> Result<()> {
            let receiver = b.host.receive("ff1e::42", &[])?;
            a.wait_wanted("ff1e::42", b)?;
            a.host.send("ff1e::42", 2_000, &["--rate", "500"])?;
            receiver.expect_exactly(2_000).map(drop)
        };
        round().or_else(|_| round()).or_else(|_| round())?;
        eventually("as many as suspicions for five seconds need", || {
            ensure!(count()? > before + 5_000, "{}", count()?);
            Ok(())
        })?;
        for member in &mut network.members {
            let log = member.daemon()?.stderr();
            ensure!(!log.contains("link down"), "a link went down");
        }
        Ok(())
    });
}
