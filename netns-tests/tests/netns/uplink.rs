//! One upload: other nodes carry the packets of a node with a slow uplink.

use crate::lcsync_lan::share;
use crate::prelude::*;

const GROUP: &str = "ff1e::42";
/// The other group of its /127, as the copy group of a station is.
const COPY_GROUP: &str = "ff1e::43";
/// Names of a sender and five listeners.
const NAMES: [&str; 6] = ["n1", "n2", "n3", "n4", "n5", "n6"];
/// A carrier is asked within seconds, and a dead one is noticed within ten.
const SOON: Duration = Duration::from_secs(60);

/// A full mesh of closed hosts, the first of which has `upload` in its configuration.
fn mesh(lab: &Lab, upload: Option<&str>) -> Result<Network> {
    let hosts = lab.closed_hosts(&NAMES)?;
    let upload = upload.map_or(String::new(), |rate| format!("upload = \"{rate}\"\n"));
    let carry = std::env::var("CARRY").map_or(String::new(), |c| format!("carry = \"{c}\"\n"));
    for host in &hosts {
        let uplink = if host.name() == NAMES[0] { &upload } else { "" };
        host.configure(&format!(
            "[topology]\npolicy = \"mesh\"\n[network]\n{carry}{uplink}"
        ))?;
    }
    let mut network = lab.network(hosts)?;
    network.start()?;
    for member in &network.members {
        member.wait_links(NAMES.len() - 1)?;
    }
    wait_reach(&network.members.iter().collect::<Vec<_>>())?;
    Ok(network)
}

/// Limits what leaves a host.
pub(crate) fn limit(host: &Host, mbit: u32) -> Result<()> {
    // a queue of 80 ms
    let queue = mbit * 10_000;
    let limit =
        format!("qdisc replace dev {UPLINK} root tbf rate {mbit}mbit burst 8000 limit {queue}");
    let args: Vec<&str> = limit.split(' ').collect();
    host.run("tc", &args)?.success()?;
    Ok(())
}

/// The node that carries all that the sender sends.
fn carrier(sender: &Member) -> Result<String> {
    let status = sender.status()?;
    let uplink = &status["uplink"];
    let carried = uplink["carried"].as_array().context("carried")?;
    let [carried] = carried.as_slice() else {
        bail!("carried by {carried:?}: {uplink}");
    };
    Ok(carried["name"].as_str().context("name")?.to_owned())
}

/// Waits until one copy of each packet leaves the sender: it stays on its own tree for a second.
fn one_copy(sender: &Member) -> Result<()> {
    let count = |name| sender.counter(name);
    let mut before = (count("tun_rx_packets")?, count("link_tx_packets")?);
    within(SOON, "one copy of each packet leaves", || {
        let now = (count("tun_rx_packets")?, count("link_tx_packets")?);
        let sent = now.0 - before.0;
        ensure!(sent >= 200, "{sent} packets");
        let copies = (now.1 - before.1) as f64 / sent as f64;
        before = now;
        holds!(copies < 1.1, "{copies} copies")
    })
}

/// Lets all nodes but the first listen, which knows it.
fn listeners(network: &Network) -> Result<Vec<Receiver>> {
    let (sender, others) = network.members.split_first().context("members")?;
    let receive = |member: &Member| member.host.receive(GROUP, &[]);
    let listeners = others.iter().map(receive).collect::<Result<_>>()?;
    for member in others {
        sender.wait_wanted(GROUP, member)?;
    }
    Ok(listeners)
}

#[test]
fn one_copy_leaves_a_short_uplink_and_another_node_takes_over_from_a_dead_carrier() {
    world("uplink", |lab| {
        let mut network = mesh(lab, Some("400k"))?;
        let listeners = listeners(&network)?;
        let sender = &network.members[0];
        let args = format!("{GROUP} --count 1000000000 --rate 100 --size 125");
        let args = crate::words(&args);
        let _stream = sender.host.spawn("mc-send", &args)?;
        let first = within(SOON, "a node carries", || carrier(sender))?;
        one_copy(sender)?;
        for listener in &listeners {
            listener.expect_no_duplicates()?;
            let pauses = listener.pauses()?;
            println!(
                "change over: longest pause {:.0} ms",
                pauses.iter().copied().fold(0.0, f64::max)
            );
        }
        let shown = sender.host.call("lcroute status")?.stdout;
        ensure!(shown.contains(&format!("carried by {first}")), "{shown}");
        let shown = sender.host.call("lcroute groups")?.stdout;
        ensure!(shown.contains(&format!("carried by {first}")), "{shown}");
        let uplink = crate::doctor::check(&sender.host, "uplink")?;
        ensure!(uplink["state"] == "ok", "{uplink}");
        let at = NAMES
            .iter()
            .position(|name| *name == first)
            .context("its place")?;
        let status = network.members[at].status()?;
        ensure!(status["uplink"]["carries"][0]["name"] == NAMES[0]);

        let before: Vec<usize> = listeners
            .iter()
            .map(|l| Ok(l.pauses()?.len()))
            .collect::<Result<_>>()?;
        network.members[at].daemon()?.kill()?;
        let sender = &network.members[0];
        within(SOON, "another node carries", || {
            holds!(carrier(sender)? != first, "still {first}")
        })?;
        one_copy(sender)?;
        for (n, (listener, before)) in listeners.iter().zip(before).enumerate() {
            if n + 1 == at {
                continue;
            }
            listener.expect_more("a listener hears on")?;
            listener.expect_no_duplicates()?;
            let longest = listener.pauses()?[before..]
                .iter()
                .copied()
                .fold(0.0, f64::max);
            println!("death: longest pause {longest:.0} ms");
        }
        Ok(())
    });
}

#[test]
#[ignore = "long: `make test-all`"]
fn a_short_uplink_is_found_and_nobody_carries_who_does_not_want_to() {
    world("uplink-found", |lab| {
        let mut network = mesh(lab, None)?;
        // five copies of 1 Mbit/s
        limit(&network.members[0].host, 3)?;
        for member in &mut network.members[1..] {
            member
                .host
                .reconfigure("[topology]\npolicy = \"mesh\"\n[network]\ncarry = \"no\"\n")?;
        }
        let _listeners = listeners(&network)?;
        let sender = &network.members[0];
        let args = format!("{GROUP} --count 1000000000 --rate 125 --size 1000");
        let args = crate::words(&args);
        let _stream = sender.host.spawn("mc-send", &args)?;
        within(SOON, "all refuse", || {
            let status = sender.status()?;
            let refusals = status["uplink"]["refusals"]
                .as_array()
                .context("refusals")?;
            ensure!(refusals.len() == 5, "{status}");
            holds!(refusals.iter().all(|r| r["why"] == "says no"), "{status}")
        })?;
        let doctor = sender.host.ask("lcroute", &["doctor"])?.stdout;
        shows_all(&doctor, &["nobody carries: n2 says no, n3 says no"])?;
        // a certain node is asked again after a minute
        let member = &network.members[3];
        member
            .host
            .reconfigure("[topology]\npolicy = \"mesh\"\n[network]\ncarry = \"any\"\n")?;
        let by = within(2 * SOON, "the one that wants to carries", || {
            carrier(sender)
        })?;
        ensure!(by == NAMES[3], "{by}");
        one_copy(sender)?;
        Ok(())
    });
}

/// Returns the part of a node's packets that its links dropped, as they had waited too long.
fn dropped(node: &Member) -> Result<f64> {
    let mut dropped = 0;
    for reason in ["queue_delay", "queue_codel", "queue_full"] {
        dropped += node.counter(&format!("drops/{reason}"))?;
    }
    Ok(dropped as f64 / node.counter("link_tx_packets")? as f64)
}

#[test]
fn a_server_behind_a_short_uplink_waits_instead_of_having_its_symbols_dropped() {
    world("uplink-waits", |lab| {
        let network = mesh(lab, None)?;
        let (sender, receivers) = network.members.split_first().context("members")?;
        limit(&sender.host, 30)?;
        make_folder(&sender.host.path("folder"), 6_000_000)?;
        let (_share, _) = share(&sender.host, &["folder"])?;
        let mut fetches = Vec::new();
        for receiver in &receivers[..3] {
            let fetch = receiver.host.spawn("lcsync", &["lc:folder", "copy"])?;
            fetches.push((receiver, fetch));
        }
        for (receiver, fetch) in &mut fetches {
            fetch.expect_exit(SOON, 0)?;
            same_content(&sender.host.path("folder"), &receiver.host.path("copy"))?;
        }
        let dropped = dropped(sender)?;
        println!("{:.1} % dropped", dropped * 100.0);
        holds!(dropped < 0.2, "{dropped:.2} of all packets dropped")
    });
}

/// Receivers behind short uplinks pass blocks on to each other; one is killed.
#[test]
fn receivers_divide_a_file_and_one_is_killed() {
    world("uplink-divide", |lab| {
        let network = mesh(lab, None)?;
        for member in &network.members {
            limit(&member.host, 30)?;
        }
        let (sender, receivers) = network.members.split_first().context("members")?;
        make_folder(&sender.host.path("folder"), 12_000_000)?;
        let (_share, _) = share(&sender.host, &["folder"])?;
        let mut fetches = Vec::new();
        for receiver in &receivers[..4] {
            let args = ["lc:folder", "copy", "--json"];
            fetches.push((receiver, receiver.host.spawn("lcsync", &args)?));
        }
        let (killed, rest) = fetches.split_first_mut().context("receivers")?;
        within(SOON, "it has begun", || {
            holds!(
                killed.1.stdout().contains("\"start\""),
                "{}",
                killed.1.stderr()
            )
        })?;
        killed.1.kill()?;
        for (receiver, fetch) in rest {
            fetch.expect_exit(Duration::from_secs(100), 0)?;
            same_content(&sender.host.path("folder"), &receiver.host.path("copy"))?;
            let last = fetch.stdout();
            let last = last.lines().next_back().context("a last document")?;
            let last: serde_json::Value = serde_json::from_str(last)?;
            let others = last["stats"]["others_bytes"].as_u64();
            ensure!(others > Some(1_000_000), "{last}");
        }
        Ok(())
    });
}

/// Five receivers of one share behind 30 Mbit/s each, at once: `MB` in megabytes, `UPLOAD` and
/// `CARRY` as in the configuration, `BWLIMIT` as of `lcsync share`, `APART` in seconds.
#[test]
#[ignore = "a measurement"]
fn five_receivers_at_once_measured() {
    world("uplink-files", |lab| {
        let megabytes: usize = std::env::var("MB").map_or(Ok(30), |mb| mb.parse())?;
        let upload = std::env::var("UPLOAD").ok();
        let network = mesh(lab, upload.as_deref())?;
        for member in &network.members {
            limit(&member.host, 30)?;
        }
        let bytes = megabytes * 1_000_000;
        let (sender, receivers) = network.members.split_first().context("members")?;
        make_folder(&sender.host.path("folder"), bytes)?;
        let bwlimit = std::env::var("BWLIMIT").ok();
        let limit = bwlimit.iter().flat_map(|rate| ["--bwlimit", rate]);
        let args: Vec<&str> = std::iter::once("folder").chain(limit).collect();
        let (_share, _) = share(&sender.host, &args)?;
        let apart: f64 = std::env::var("APART").map_or(Ok(0.0), |apart| apart.parse())?;
        let before: Vec<u64> = network
            .members
            .iter()
            .map(|member| Ok(member.host.uplink_traffic()?.1.bytes))
            .collect::<Result<_>>()?;
        let start = Instant::now();
        let mut fetches = Vec::new();
        for receiver in receivers {
            let args = ["lc:folder", "copy", "--stats"];
            fetches.push((receiver, receiver.host.spawn("lcsync", &args)?));
            sleep(Duration::from_secs_f64(apart));
        }
        for (receiver, fetch) in &mut fetches {
            fetch.expect_exit(Duration::from_secs(600), 0)?;
            println!(
                "{}: {:.1} s",
                receiver.host.name(),
                start.elapsed().as_secs_f64()
            );
            println!("{}", fetch.stderr());
            same_content(&sender.host.path("folder"), &receiver.host.path("copy"))?;
        }
        for (member, before) in network.members.iter().zip(before) {
            let sent = member.host.uplink_traffic()?.1.bytes - before;
            println!(
                "{}: {:.2} files sent",
                member.host.name(),
                sent as f64 / bytes as f64
            );
        }
        for member in &network.members {
            println!("{:.1} % dropped", dropped(member)? * 100.0);
        }
        let uplink = &sender.status()?["uplink"];
        println!("{uplink}");
        let alone = Instant::now();
        let first = &receivers[0].host;
        let mut fetch = first.spawn("lcsync", &["lc:folder", "again"])?;
        fetch.expect_exit(Duration::from_secs(600), 0)?;
        println!("one alone: {:.1} s", alone.elapsed().as_secs_f64());
        Ok(())
    });
}

/// `NODES` nodes under `POLICY`, the first of which casts, with its copy group: bytes that leave
/// the caster for one listener and for all others, alone and with carriers; and the longest gap at
/// a listener while a carrier is killed, paused or cut off.
#[test]
#[ignore = "a measurement"]
fn a_caster_with_many_listeners_measured() {
    world("uplink-caster", |lab| {
        let nodes: usize = std::env::var("NODES").map_or(Ok(10), |n| n.parse())?;
        let policy = std::env::var("POLICY").unwrap_or_else(|_| "auto".to_owned());
        let names: Vec<String> = (1..=nodes).map(|n| format!("n{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let hosts = lab.closed_hosts(&names)?;
        let topology = format!("[topology]\npolicy = \"{policy}\"\n");
        crate::configure(&hosts, &topology)?;
        let mut network = lab.network(hosts)?;
        network.start_routed()?;
        let caster = &network.members[0];
        let cast = |group: &str| {
            let args = "--count 1000000000 --rate 50 --size 160".split(' ');
            let args: Vec<&str> = std::iter::once(group).chain(args).collect();
            caster.host.spawn("mc-send", &args)
        };
        let _streams = [cast(GROUP)?, cast(COPY_GROUP)?];
        let mut listeners: Vec<(usize, Receiver)> = Vec::new();
        let join = |n: usize| -> Result<[Receiver; 2]> {
            let host = &network.members[n].host;
            let both = [host.receive(GROUP, &[])?, host.receive(COPY_GROUP, &[])?];
            for group in [GROUP, COPY_GROUP] {
                caster.wait_wanted(group, &network.members[n])?;
            }
            Ok(both)
        };
        let bytes_a_second = |member: &Member| -> Result<f64> {
            let sent = || Ok::<_, anyhow::Error>(member.host.uplink_traffic()?.1.bytes);
            let (before, start) = (sent()?, Instant::now());
            sleep(Duration::from_secs(10));
            Ok((sent()? - before) as f64 / start.elapsed().as_secs_f64())
        };
        let idle_links = caster.linked_with()?.len();
        let mut copies = Vec::new();
        for n in 1..nodes {
            let [stream, copy] = join(n)?;
            listeners.push((n, stream));
            copies.push(copy);
            if n == 1 {
                let one = bytes_a_second(caster)?;
                println!(
                    "{idle_links} links; one listener: {:.1} kbit/s",
                    one / 125.0
                );
            }
        }
        let all = bytes_a_second(caster)?;
        println!("all listeners: {:.1} kbit/s", all / 125.0);
        caster
            .host
            .reconfigure(&format!("{topology}[network]\nupload = \"100k\"\n"))?;
        let settled = |network: &Network| {
            within(SOON, "a node carries, one copy leaves", || {
                let caster = &network.members[0];
                let by = carrier(caster)?;
                let copies = caster.status()?["uplink"]["copies"].as_f64();
                ensure!(copies.is_some_and(|copies| copies < 1.05), "{copies:?}");
                Ok(by)
            })
        };
        settled(&network)?;
        let carried = bytes_a_second(&network.members[0])?;
        println!("carried: {:.1} kbit/s", carried / 125.0);
        for fault in ["kill", "pause", "cut"] {
            let by = settled(&network)?;
            let at = names
                .iter()
                .position(|name| *name == by)
                .context("its place")?;
            listeners.retain(|(n, _)| *n != at);
            let before: Vec<_> = listeners
                .iter()
                .map(|(_, l)| Ok((l.pauses()?.len(), l.packets()?)))
                .collect::<Result<_>>()?;
            let start = Instant::now();
            match fault {
                "kill" => network.members[at].daemon()?.kill()?,
                "pause" => network.members[at].daemon()?.signal(Signal::SIGSTOP)?,
                _ => network.members[at].host.cut_uplink()?,
            }
            within(SOON, "another node carries", || {
                holds!(carrier(&network.members[0])? != by, "still {by}")
            })?;
            let again = start.elapsed().as_secs_f64();
            settled(&network)?;
            let mut longest: f64 = 0.0;
            for ((_, listener), (pauses, packets)) in listeners.iter().zip(before) {
                within(SOON, "a listener hears on", || {
                    holds!(listener.packets()? > packets + 50, "no more")
                })?;
                listener.expect_no_duplicates()?;
                longest = listener.pauses()?[pauses..]
                    .iter()
                    .copied()
                    .fold(longest, f64::max);
            }
            println!("{fault}: longest gap {longest:.0} ms, another carrier after {again:.1} s");
            if fault == "pause" {
                network.members[at].daemon()?.signal(Signal::SIGCONT)?;
            }
        }
        Ok(())
    });
}

/// Four nodes, the first and the last of which have no link: `n1 - {n2, n3} - n4`.
fn diamond(lab: &Lab) -> Result<Network> {
    let hosts = lab.closed_hosts(&NAMES[..4])?;
    let carry = std::env::var("CARRY").map_or(String::new(), |c| format!("carry = \"{c}\"\n"));
    crate::configure(
        &hosts,
        &format!("[topology]\npolicy = \"mesh\"\n[network]\n{carry}"),
    )?;
    let mut network = lab.network(hosts)?;
    let [first, .., last] = &network.members[..] else {
        bail!("four members");
    };
    first.host.cut_from([&last.host])?;
    last.host.cut_from([&first.host])?;
    network.members.iter_mut().try_for_each(Member::start)?;
    for (member, links) in network.members.iter().zip([2, 3, 3, 2]) {
        member.wait_links(links)?;
    }
    wait_reach(&network.members.iter().collect::<Vec<_>>())?;
    Ok(network)
}

/// A fetch of `MB` megabytes by one receiver over lc0, and what lc0 itself carries in the same run:
/// processor time of each process shows where the time goes.
#[test]
#[ignore = "a measurement"]
fn one_receiver_over_lc0_measured() {
    world("uplink-lc0", |lab| {
        let megabytes: usize = std::env::var("MB").map_or(Ok(100), |mb| mb.parse())?;
        let mut network = lab.closed_network(["n1", "n2"])?;
        let bytes = megabytes * 1_000_000;
        let (first, second) = network.members.split_at_mut(1);
        let (sender, receiver) = (&mut first[0], &mut second[0]);
        make_folder(&sender.host.path("folder"), bytes)?;
        let (server, _) = share(&sender.host, &["folder"])?;
        // the most that arrives, whatever is offered
        let mut lc0: f64 = 0.0;
        for rate in [5_000, 10_000, 20_000, 40_000, 80_000, 160_000] {
            let listener = sender.known_receiver(receiver, GROUP, &[])?;
            let (count, each) = (rate * 2, rate.to_string());
            let args = ["--rate", &each, "--size", "1200"];
            let sent = sender.host.send(GROUP, count, &args)?;
            sleep(Duration::from_millis(500));
            let arrived = listener.packets()? as f64 / sent.seconds * 1_200.0 * 8e-6;
            println!("{rate} packets/s: {arrived:.0} Mbit/s");
            if arrived < lc0 {
                break;
            }
            lc0 = arrived;
        }
        for round in 0..3 {
            let times = |sender: &mut Member, receiver: &mut Member| -> Result<[f64; 3]> {
                let (at_sender, at_receiver) = (sender.daemon()?, receiver.daemon()?);
                Ok([
                    server.processor_time()?,
                    at_sender.processor_time()?,
                    at_receiver.processor_time()?,
                ])
            };
            let before = times(sender, receiver)?;
            let start = Instant::now();
            let name = format!("copy{round}");
            let args = ["lc:folder", &name, "--stats"];
            let mut fetch = receiver.host.spawn("lcsync", &args)?;
            let mut own = 0.0;
            while fetch.is_running() {
                own = fetch.processor_time().unwrap_or(own);
                sleep(Duration::from_millis(50));
            }
            fetch.expect_exit(SOON, 0)?;
            let seconds = start.elapsed().as_secs_f64();
            let after = times(sender, receiver)?;
            let rate = bytes as f64 * 8e-6 / seconds;
            let used: Vec<_> = after.iter().zip(before).map(|(a, b)| a - b).collect();
            println!(
                "{seconds:.2} s, {rate:.0} Mbit/s, {:.2} of lc0's {lc0:.0}; processor: server {:.2}, daemons {:.2} and {:.2}, \
                 receiver {own:.2} s",
                rate / lc0,
                used[0],
                used[1],
                used[2],
            );
        }
        Ok(())
    });
}

/// A fetch of `MB` megabytes over two paths of 20 Mbit/s, and the same over one, in one run.
#[test]
#[ignore = "a measurement"]
fn two_paths_measured() {
    world("uplink-paths", |lab| {
        let megabytes: usize = std::env::var("MB").map_or(Ok(60), |mb| mb.parse())?;
        let network = diamond(lab)?;
        let [sender, left, right, receiver] = crate::each(&network.members)?;
        // between the two routers nothing passes: each path is its own
        for member in [left, right] {
            limit(&member.host, 20)?;
        }
        let bytes = megabytes * 1_000_000;
        make_folder(&sender.host.path("folder"), bytes)?;
        let (_share, _) = share(&sender.host, &["folder"])?;
        let fetch = |name: &str| -> Result<f64> {
            let sent = || -> Result<[u64; 2]> {
                let sent = |m: &Member| Ok::<_, anyhow::Error>(m.host.uplink_traffic()?.1.bytes);
                Ok([sent(left)?, sent(right)?])
            };
            let before = sent()?;
            let start = Instant::now();
            let mut fetch = receiver
                .host
                .spawn("lcsync", &["lc:folder", name, "--stats"])?;
            while fetch.is_running() {
                sleep(Duration::from_secs(2));
                let now = sent()?;
                let parts = sender.status()?["uplink"]["carried"].clone();
                let moved = [now[0] - before[0], now[1] - before[1]];
                println!("{:.0} s: {moved:?} {parts}", start.elapsed().as_secs_f64());
            }
            fetch.expect_exit(Duration::from_secs(1), 0)?;
            let seconds = start.elapsed().as_secs_f64();
            same_content(&sender.host.path("folder"), &receiver.host.path(name))?;
            let rate = bytes as f64 * 8e-6 / seconds;
            println!("{name}: {seconds:.1} s, {rate:.1} Mbit/s");
            Ok(rate)
        };
        let both = fetch("both")?;
        println!("{}", sender.host.call("lcroute status")?.stdout);
        // the receiver would carry as well
        for member in [left, right, receiver] {
            let no = "[topology]\npolicy = \"mesh\"\n[network]\ncarry = \"no\"\n";
            member.host.reconfigure(no)?;
        }
        let one = fetch("one")?;
        println!("two paths: {:.2} times one", both / one);
        Ok(())
    });
}
