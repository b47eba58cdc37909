//! More daemons than the 64 up to which LSAs use all links: beyond, LSAs go along a tree, and are
//! advertised on other links (docs/adr/routing.md).

use crate::lcsync_lan::share;
use crate::prelude::*;

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

/// Nodes of the mesh that does nothing, starts of a daemon in it, and the time before and between
/// readings of idle processes.
const IDLE_NODES: usize = 9;
const STARTS: usize = 10;
const SETTLE: Duration = Duration::from_secs(30);
const IDLE_TIME: Duration = Duration::from_secs(60);

/// Figures for docs/benchmarks.md, on a release build: memory and processor time of daemons with
/// eight links and of a shared folder, while nothing happens; the time of a start.
#[test]
#[ignore = "a measurement"]
fn idle_programs_measured() {
    world("idle", |lab| {
        let names: Vec<String> = (0..IDLE_NODES).map(|n| format!("n{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut network = lab.network(lab.closed_hosts(&names)?)?;
        network.start_each()?;
        for member in &network.members {
            member.wait_links(IDLE_NODES - 1)?;
        }
        let host = &network.members[0].host;
        for n in 0..100_u8 {
            host.write(&format!("folder/{n}"), [n; 10_000])?;
        }
        let (share, _) = share(host, &["folder"])?;
        sleep(SETTLE);
        let mut daemons = Vec::new();
        for member in &mut network.members {
            daemons.push(&*member.daemon()?);
        }
        for (name, processes) in [("lcroute", daemons), ("lcsync share", vec![&share])] {
            let spent = |process: &&Process| process.processor_time();
            let before: Vec<f64> = processes.iter().map(spent).collect::<Result<_>>()?;
            sleep(IDLE_TIME);
            let (mut memory, mut load) = (0, 0.0_f64);
            for (process, before) in processes.iter().zip(before) {
                memory = memory.max(process.peak_memory()?);
                load = load.max((process.processor_time()? - before) / IDLE_TIME.as_secs_f64());
            }
            let (mib, percent) = (memory as f64 / f64::from(1 << 20), load * 100.0);
            println!("{name}: at most {mib:.1} MiB, {percent:.3} % of a processor");
        }
        let member = &mut network.members[1];
        let mut took = Vec::new();
        for _ in 0..STARTS {
            member.stop()?;
            let begin = Instant::now();
            member.start()?;
            took.push(begin.elapsed());
        }
        took.sort();
        println!(
            "start until it answers: median {:.0?}, longest {:.0?}",
            took[STARTS / 2],
            took[STARTS - 1]
        );
        Ok(())
    });
}

fn but(network: &Network, one: usize) -> Vec<&Member> {
    let others = network.members.iter().enumerate();
    let others = others.filter(|(at, _)| *at != one);
    others.map(|(_, member)| member).collect()
}

/// Figures for docs/routing-measured.md, on a release build: `NODES` daemons with four links each.
/// All learn of a later node; a killed node is forgotten and routed around; no packet is
/// duplicated.
#[test]
#[ignore = "a measurement: minutes, and gigabytes"]
fn many_routers_measured() {
    world("many", |lab| {
        let nodes = std::env::var("NODES").unwrap_or_default();
        let nodes: usize = nodes.parse().unwrap_or(72);
        ensure!(nodes > 66, "up to 64 nothing is offered");
        let names: Vec<String> = (0..nodes).map(|n| format!("n{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut network = lab.network(
            lab.configured_hosts(&names, "[topology]\npolicy = \"regular\"\ndegree = 4\n")?,
        )?;
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
