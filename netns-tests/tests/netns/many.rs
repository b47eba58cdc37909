//! More daemons than the 64 up to which LSAs use all links: beyond, LSAs go along a tree, and are
//! advertised on other links (ADR 0018).

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lcroute_lab::lab::{Member, Network, Receiver, within};

use crate::world;

const GROUP: &str = "ff1e::42";
/// Nodes per listener.
const LISTENS: usize = 6;
/// Timeout for the start of many processes on a small machine.
const LONG: Duration = Duration::from_secs(400);

/// Waits until `members` reach `others` except themselves, and not `gone`; returns the time.
fn wait_known(
    what: &str,
    members: &[&Member],
    others: &[String],
    gone: &[String],
) -> Result<Duration> {
    let begin = Instant::now();
    let mut left: Vec<&Member> = members.to_vec();
    within(LONG, what, || {
        while let Some(member) = left.last() {
            let routes = member.routes()?;
            let own = member.peer_id()?;
            let reaches = |id: &String| *id == own || routes.iter().any(|r| r["peer_id"] == **id);
            let missing = others.iter().filter(|id| !reaches(id)).count();
            let name = member.host.name();
            ensure!(missing == 0, "{name} does not reach {missing}");
            let still = gone.iter().filter(|id| reaches(id)).count();
            ensure!(still == 0, "{name} reaches {still} that are gone");
            left.pop();
        }
        Ok(())
    })?;
    Ok(begin.elapsed())
}

fn but(network: &Network, one: usize) -> Vec<&Member> {
    let others = network.members.iter().enumerate();
    let others = others.filter(|(at, _)| *at != one);
    others.map(|(_, member)| member).collect()
}

/// Figures for docs/routing-measured.md, on a release build: `NODES` daemons with four links each. All learn of a
/// later node; a killed node is forgotten and routed around; no packet is duplicated.
#[test]
#[ignore = "a measurement: minutes, and gigabytes"]
fn many_routers_measured() {
    world("many", |lab| {
        let nodes = std::env::var("NODES").unwrap_or_default();
        let nodes: usize = nodes.parse().unwrap_or(72);
        ensure!(nodes > 66, "up to 64 nothing is offered");
        let names: Vec<String> = (0..nodes).map(|n| format!("n{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let hosts = lab.closed_hosts(&names)?;
        for host in &hosts {
            host.configure("[topology]\npolicy = \"regular\"\ndegree = 4\n")?;
        }
        let mut network = lab.network(hosts)?;
        let (last, early) = (nodes - 1, nodes - 2);
        let begin = Instant::now();
        for member in &mut network.members[..last] {
            member.launch()?;
        }
        for member in &mut network.members[..last] {
            member.wait_ready()?;
        }
        let members: Vec<&Member> = network.members[..last].iter().collect();
        let ids: Vec<String> = members.iter().map(|m| m.peer_id()).collect::<Result<_>>()?;
        wait_known("all reach all", &members, &ids, &[])?;
        let took = begin.elapsed();
        println!("{last} daemons, started one after the other, reach one another after {took:.1?}");
        let at: Vec<usize> = (1..early).step_by(LISTENS).collect();
        let listen = |at: &usize| network.members[*at].host.receive(GROUP, &[]);
        let mut listeners: Vec<Receiver> = at.iter().map(listen).collect::<Result<_>>()?;
        let forever = "1000000000";
        let args = [GROUP, "--count", forever, "--rate", "50", "--size", "200"];
        let _sender = network.members[0].host.spawn("mc-send", &args)?;
        for listener in &listeners {
            listener.expect_more("it hears the sender")?;
        }

        // a later node, which listens
        network.members[last].start()?;
        let id = [network.members[last].peer_id()?];
        let all: Vec<&Member> = network.members.iter().collect();
        let took = wait_known("all know who came late", &all[..last], &id, &[])?;
        let back = wait_known("who came late knows all", &all[last..], &ids, &[])?;
        println!("who came late is known to all after {took:.1?}, and knows all {back:.1?} later");
        let late = network.members[last].host.receive(GROUP, &[])?;
        late.expect_more("who came late hears the sender")?;
        listeners.push(late);

        // a router on some listeners' path fails silently
        let pauses = |listeners: &[Receiver]| -> Result<Vec<usize>> {
            listeners.iter().map(|l| Ok(l.pauses()?.len())).collect()
        };
        let mut gaps = Vec::new();
        for victim in (2..early).step_by(LISTENS).take(4) {
            let before = pauses(&listeners)?;
            let gone = [network.members[victim].peer_id()?];
            network.members[victim].daemon()?.kill()?;
            let took = wait_known(
                "nobody reaches who died",
                &but(&network, victim),
                &[],
                &gone,
            )?;
            for (listener, before) in listeners.iter().zip(before) {
                listener.expect_more("it hears the sender after the death")?;
                let pauses = listener.pauses()?;
                gaps.push(pauses[before..].iter().copied().fold(0.0, f64::max));
            }
            println!("n{victim} died: forgotten by all after {took:.1?}");
            network.members[victim].start()?;
            let others = but(&network, victim);
            let back = wait_known("all know who came back", &others, &gone, &[])?;
            println!("n{victim} came back: known to all after {back:.1?}");
        }
        println!("healing: {}", crate::routing::summary(&mut gaps));
        for listener in &listeners {
            listener.expect_no_duplicates()?;
        }
        println!("{} listeners heard nothing twice", listeners.len());
        Ok(())
    });
}
