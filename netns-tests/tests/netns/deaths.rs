//! How a neighbour's failure is detected, and events that are none.

use crate::hostile_load::{PORT, besieged};
use crate::prelude::*;

/// Reason in the log for a link that the peer's host refused.
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
        // a silent host sends no errors
        network.members[1].start()?;
        network.wait_linked()?;
        network.members[1].host.cut_uplink()?;
        network.members[0].wait_links(0)?;
        let log = network.members[0].daemon()?.stderr();
        let last = log.lines().rfind(|l| l.contains("link down"));
        holds!(last.is_some_and(|l| l.contains("silent")), "{last:?}")
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
        eventually("the errors come", || holds!(count()? > 100, "{}", count()?))?;
        let before = count()?;
        let [a, b] = network.nodes()?;
        // a flood with losses has some in each round; beside the whole suite one round lost one
        let round = || -> Result<()> {
            let receiver = a.known_receiver(b, "ff1e::42", &[])?;
            a.host.send("ff1e::42", 2_000, &["--rate", "500"])?;
            receiver.expect_exactly(2_000).map(drop)
        };
        round().or_else(|_| round()).or_else(|_| round())?;
        exceeds(before + 5_000, &count)?;
        for member in &mut network.members {
            let log = member.daemon()?.stderr();
            ensure!(!log.contains("link down"), "a link went down");
        }
        Ok(())
    });
}

/// Time without CPU for a daemon: its peers give it up after seconds; half a minute more passes.
const AWAY: Duration = Duration::from_secs(45);

/// Stops `b` for a while; with `asleep` its monotonic clock stops as well, as on a suspended host.
fn goes_on_after_a_while(lab: &Lab, asleep: bool) -> Result<()> {
    let mut network = lab.network(lab.closed_hosts(&["a", "b"])?)?;
    network.members[1].host.write("clock-offset", "0")?;
    network.members[1]
        .host
        .write("clock-slept", 0_i64.to_ne_bytes())?;
    network.members[1].program = env!("CARGO_BIN_EXE_lcroute-skewed");
    network.start()?;
    let receiver = network.members[1].host.receive("ff1e::42", &[])?;
    let _sender = network.members[0].host.send_for_ever("ff1e::42")?;
    receiver.expect_more("b hears a")?;
    let uptime = network.members[1].status()?["uptime_s"].clone();

    network.members[1].daemon()?.signal(Signal::SIGSTOP)?;
    let stopped = Instant::now();
    network.members[0].wait_links(0)?;
    sleep(AWAY.saturating_sub(stopped.elapsed()));
    if asleep {
        let slept = i64::try_from(stopped.elapsed().as_nanos())?;
        // in place, because the file is mapped
        let path = network.members[1].host.path("clock-slept");
        let file = fs::File::options().write(true).open(path)?;
        std::os::unix::fs::FileExt::write_all_at(&file, &slept.to_ne_bytes(), 0)?;
    }
    network.members[1].daemon()?.signal(Signal::SIGCONT)?;
    let woke = Instant::now();
    network.wait_linked()?;
    receiver.expect_more("b hears a again, without another join")?;
    println!("hears again {:.1?} after it goes on", woke.elapsed());

    let known = |value: &Value| value.as_u64().unwrap_or_default();
    let grown = known(&network.members[1].status()?["uptime_s"]) - known(&uptime);
    holds!((grown < AWAY.as_secs()) == asleep, "it is {grown} s older")
}

#[test]
#[ignore = "long: `make test-all`"]
fn a_daemon_that_got_no_time_for_a_while_goes_on() {
    world("stopped", |lab| goes_on_after_a_while(lab, false));
}

#[test]
#[ignore = "long: `make test-all`"]
fn a_host_that_was_suspended_finds_its_links_again() {
    world("suspended", |lab| goes_on_after_a_while(lab, true));
}
