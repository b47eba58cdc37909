//! A host with `[ice] policy = "relay"`: members learn nothing of where it is, but those that `disclose` names.

use std::net::IpAddr;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use lcroute_lab::lab::{Host, Lab, Member, Network, Process, eventually, wait_reach, within};

use crate::tor::{PATIENCE, SOCKS, TorNetwork};
use crate::world;

/// All that a host sends and receives over its own interface, LAN protocols apart.
fn capture(host: &Host) -> Result<(Process, std::path::PathBuf)> {
    let file = host.path("seen.pcap");
    let shown = file.display().to_string();
    let filter = "udp or tcp or icmp or sctp";
    let dump = host.spawn("tcpdump", &["-i", "eth0", "-U", "-w", &shown, filter])?;
    eventually("tcpdump listens", || {
        ensure!(dump.stderr().contains("listening on"), "not yet");
        Ok(())
    })?;
    Ok((dump, file))
}

/// How often an address of `of` stands in what was captured, in headers or in what is not sealed.
fn mentions(captured: &[u8], of: &Host) -> Result<usize> {
    let addresses: [IpAddr; 2] = [of.v4()?.into(), of.v6()?.into()];
    let count = |address: IpAddr| {
        let bytes = match address {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let windows = captured.windows(bytes.len());
        let text = address.to_string();
        let texts = captured.windows(text.len());
        windows.filter(|window| *window == bytes).count()
            + texts.filter(|window| *window == text.as_bytes()).count()
    };
    Ok(addresses.into_iter().map(count).sum())
}

fn path(of: &Member, with: &Member) -> Result<String> {
    let (peers, id) = (of.peers()?, with.peer_id()?);
    let row = peers.iter().find(|row| row["peer_id"] == id.as_str());
    let row = row.with_context(|| format!("no row of {}: {peers:?}", with.host.name()))?;
    Ok(format!("{} {}", row["state"], row["path"]).replace('"', ""))
}

/// Packets reach every other member from each.
fn expect_carries(members: &[&Member]) -> Result<()> {
    for (n, from) in members.iter().enumerate() {
        let group = format!("ff1e::{n}");
        let others: Vec<_> = members
            .iter()
            .filter(|m| m.host.name() != from.host.name())
            .collect();
        let mut receivers = Vec::new();
        for to in &others {
            receivers.push(to.host.receive(&group, &[])?);
        }
        for to in &others {
            from.wait_wanted(&group, to)?;
        }
        from.host.send(&group, 300, &["--size", "1200"])?;
        for receiver in receivers {
            receiver.expect_exactly(300)?;
        }
    }
    Ok(())
}

/// A relaying server, and open hosts: `hidden`, `stranger`, `friend`; `hidden` is set up by what is given.
fn three(lab: &Lab, setup: impl Fn(&str) -> String) -> Result<Network> {
    let names = ["hidden", "stranger", "friend"].into_iter();
    let hosts: Result<Vec<_>> = names.map(|name| lab.host(name)).collect();
    let mut network = lab.network(hosts?)?;
    network.signalling.restart_with_relay()?;
    let [hidden, _, friend] = network.nodes()?;
    let id = friend.host.run("lcroute", &["id", "--json"])?.success()?;
    let id: serde_json::Value = serde_json::from_str(&id.stdout)?;
    let id = id["peer_id"].as_str().context("no PeerId")?;
    let setup = setup(id);
    hidden.host.configure(&setup)?;
    Ok(network)
}

fn policy(friend: &str) -> String {
    format!("[ice]\npolicy = \"relay\"\ndisclose = [\"{friend}\"]\n")
}

/// Runs the network, and says how often the stranger saw an address of the hidden host, and the two paths to it.
fn seen_by_stranger(network: &mut Network) -> Result<(usize, [String; 2])> {
    let [_, stranger, _] = network.nodes()?;
    let (mut dump, file) = capture(&stranger.host)?;
    for member in &mut network.members {
        member.start()?;
    }
    network.wait_linked()?;
    let [hidden, stranger, friend] = network.nodes()?;
    let paths = [path(stranger, hidden)?, path(friend, hidden)?];
    expect_carries(&[hidden, stranger, friend])?;
    // another look at all peers, and the goodbye of the last run
    for member in [stranger, friend] {
        let shown = format!("{:?} {}", member.peers()?, member.status()?);
        let address = hidden.host.v4()?.to_string();
        ensure!(!shown.contains(&address), "{shown}");
    }
    network.members[0].stop()?;
    dump.stop()?;
    let captured = std::fs::read(&file)?;
    ensure!(captured.len() > 300 * 1_200, "{} bytes", captured.len());
    let count = mentions(&captured, &network.members[0].host)?;
    println!(
        "{count} addresses of the hidden host in {} bytes",
        captured.len()
    );
    Ok((count, paths))
}

#[test]
fn a_member_exchanges_no_packet_with_a_hidden_host_and_a_friend_is_linked_directly() {
    world("hidden", |lab| {
        let mut network = three(lab, policy)?;
        let (count, paths) = seen_by_stranger(&mut network)?;
        ensure!(paths == ["connected relay", "connected host"], "{paths:?}");
        ensure!(count == 0, "{count} times");
        Ok(())
    });
}

/// What a signalling server can connect two days of a hidden host by is its key: without a disk it has another each time.
#[test]
fn a_hidden_host_that_keeps_nothing_comes_back_under_another_key_and_is_linked_again() {
    world("hidden-anew", |lab| {
        let hosts = vec![lab.host("stranger")?, lab.host("hidden")?];
        let mut network = lab.network_invited(hosts, &["--ephemeral"])?;
        network.signalling.restart_with_relay()?;
        network.members[1]
            .host
            .configure("[ice]\npolicy = \"relay\"\n")?;
        for member in &mut network.members {
            member.start()?;
        }
        let mut keys = Vec::new();
        for _day in 0..2 {
            network.wait_linked()?;
            let [stranger, hidden] = network.nodes()?;
            let by = path(stranger, hidden)?;
            ensure!(by == "connected relay", "{by}");
            expect_carries(&[stranger, hidden])?;
            keys.push(hidden.peer_id()?);

            network.members[1].stop()?;
            let host = &network.members[1].host;
            std::fs::remove_dir_all(host.state_dir())?;
            host.run("lcroute", &["join", &network.token, "--name", "hidden"])?
                .success()?;
            network.members[1].start()?;
        }
        ensure!(keys[0] != keys[1], "{keys:?}");
        Ok(())
    });
}

#[test]
fn without_the_policy_the_same_member_sees_the_same_host() {
    world("not-hidden", |lab| {
        let mut network = three(lab, |_| String::new())?;
        let (count, paths) = seen_by_stranger(&mut network)?;
        ensure!(paths == ["connected host", "connected host"], "{paths:?}");
        ensure!(count > 300, "{count} times");
        Ok(())
    });
}

#[test]
fn without_any_relay_a_hidden_host_says_that_nobody_can_be_linked() {
    world("hidden-alone", |lab| {
        let hosts = vec![lab.host("hidden")?, lab.host("stranger")?];
        let mut network = lab.network(hosts)?;
        let [hidden, _] = network.nodes()?;
        let setup = "[ice]\npolicy = \"relay\"\n";
        hidden.host.configure(setup)?;
        for member in &mut network.members {
            member.start()?;
        }
        let [hidden, _] = network.nodes()?;
        eventually("the reason is shown", || {
            let peers = format!("{:?}", hidden.peers()?);
            ensure!(peers.contains("no relay answers"), "{peers}");
            Ok(())
        })?;
        let status = hidden.host.run("lcroute", &["status"])?.stdout;
        ensure!(status.contains("no relay is known"), "{status}");
        let doctor = hidden.host.ask("lcroute", &["doctor", "--json"])?.stdout;
        let doctor: serde_json::Value = serde_json::from_str(&doctor)?;
        let mut checks = doctor["checks"].as_array().into_iter().flatten();
        let relay = checks.find(|check| check["name"] == "relay");
        let relay = relay.context("no such check")?;
        ensure!(relay["state"] == "fail", "{relay}");
        let meet = hidden.host.ask("lcroute", &["meet"])?;
        ensure!(meet.stderr.contains("policy"), "{}", meet.stderr);
        // it comes about as soon as there is one, and ends being hidden as soon as the file says so
        network.signalling.restart_with_relay()?;
        network.wait_linked()?;
        let [hidden, stranger] = network.nodes()?;
        ensure!(path(stranger, hidden)? == "connected relay");
        hidden.host.configure("")?;
        hidden.host.run("lcroute", &["reload"])?.success()?;
        eventually("the link is direct", || {
            let now = path(stranger, hidden)?;
            ensure!(now == "connected host", "{now}");
            Ok(())
        })
    });
}

/// How many packets a host exchanged with these by TCP; and all others, a line for each.
fn strays(host: &Host, file: &std::path::Path, allowed: &[Host]) -> Result<(usize, String)> {
    let allowed: Result<Vec<_>> = allowed.iter().map(Host::v4).collect();
    let allowed: Vec<_> = allowed?.iter().map(|ip| format!("host {ip}")).collect();
    let allowed = format!("tcp and ({})", allowed.join(" or "));
    let (file, stray) = (file.display().to_string(), format!("not ({allowed})"));
    let read = |filter: &str| -> Result<String> {
        let read = host.run("tcpdump", &["-n", "-r", &file, filter])?;
        Ok(read.success()?.stdout)
    };
    Ok((read(&allowed)?.lines().count(), read(&stray)?))
}

/// Packets pass both ways through Tor. It stalls at times, and lcroute drops what waits too long: so some may be lost.
fn expect_passes(members: [&Member; 2]) -> Result<()> {
    let [a, b] = members;
    for (from, to) in [(a, b), (b, a)] {
        let receiver = to.host.receive("ff1e::7", &[])?;
        from.wait_wanted("ff1e::7", to)?;
        let args = ["ff1e::7", "--size", "1200", "--rate", "100", "--count"];
        let sender = from
            .host
            .spawn("mc-send", &[&args[..], &["100000"]].concat())?;
        within(PATIENCE, "300 packets pass", || {
            let packets = receiver.packets()?;
            ensure!(packets >= 300, "{packets} packets");
            Ok(())
        })?;
        drop(sender);
        receiver.expect_no_duplicates()?;
        drop(receiver);
        from.wait_unwanted("ff1e::7", to)?;
    }
    Ok(())
}

/// Waits until both are linked and know it; says how long that took.
fn wait_link(hidden: &Member, stranger: &Member) -> Result<()> {
    let begun = Instant::now();
    within(PATIENCE, "a link through Tor is there", || {
        let paths = [path(hidden, stranger)?, path(stranger, hidden)?];
        let expected = ["connected tcp", "connected relay"];
        ensure!(paths == expected, "{paths:?}: {:?}", hidden.status()?);
        Ok(())
    })?;
    println!("linked after {:?}", begun.elapsed());
    wait_reach(&[hidden, stranger])
}

#[test]
#[ignore = "`make test-all`: programs of others"]
fn a_host_is_linked_through_a_private_tor_network() {
    world("hidden-tor", |lab| {
        let tor = TorNetwork::start(lab)?;
        let hosts = ["stranger", "hidden"].into_iter();
        let hosts: Result<Vec<_>> = hosts.map(|name| lab.host(name)).collect();
        let mut network = lab.network(hosts?)?;
        network.signalling.restart_with_relay()?;
        let [stranger, hidden] = network.nodes()?;
        let setup = format!("[ice]\npolicy = \"relay\"\n\n[signal]\nsocks = \"{SOCKS}\"\n");
        hidden.host.configure(&setup)?;
        let (mut own, own_file) = capture(&hidden.host)?;
        let watched = [&stranger.host, &network.signalling.host];
        let watched = watched.map(capture);
        let mut client = tor.client(&hidden.host)?;
        for member in &mut network.members {
            member.start()?;
        }
        let [stranger, hidden] = network.nodes()?;
        wait_link(hidden, stranger)?;
        expect_passes([hidden, stranger])?;
        let rtt = hidden.peers()?[0]["rtt_ms"].clone();
        println!("{}: round trip {rtt} ms", tor.version()?);
        let doctor = hidden.host.ask("lcroute", &["doctor"])?.stdout;
        ensure!(doctor.contains("TCP works"), "{doctor}");
        // without Tor there is no link, and no other way is tried
        client.kill()?;
        within(PATIENCE, "the link ends with Tor", || {
            let linked = hidden.linked_with()?;
            ensure!(linked.is_empty(), "{linked:?}");
            Ok(())
        })?;
        let again = tor.client(&hidden.host)?;
        wait_link(hidden, stranger)?;
        expect_passes([hidden, stranger])?;
        network.members[1].stop()?;
        drop(again);
        own.stop()?;
        let hidden = &network.members[1].host;
        let (to_tor, stray) = strays(hidden, &own_file, &tor.relays)?;
        ensure!(stray.is_empty(), "{stray}");
        ensure!(to_tor > 1_000, "{to_tor} packets");
        println!("{to_tor} packets between the hidden host and relays of Tor, and no others");
        let mut exits = 0;
        for watch in watched {
            let (mut dump, file) = watch?;
            dump.stop()?;
            let captured = std::fs::read(&file)?;
            ensure!(captured.len() > 300 * 1_200, "{} bytes", captured.len());
            let count = mentions(&captured, hidden)?;
            ensure!(count == 0, "{}: {count} times", file.display());
            for relay in &tor.relays {
                exits += mentions(&captured, relay)?;
            }
        }
        // the server speaks with exits in its place
        ensure!(exits > 1_000, "{exits} times");
        Ok(())
    });
}

#[test]
#[ignore = "`make test-all`: programs of others"]
fn a_signalling_server_that_is_an_onion_service_relays_for_a_hidden_host() {
    world("hidden-onion", |lab| {
        let tor = TorNetwork::start(lab)?;
        let mut network = lab.network(vec![lab.host("stranger")?])?;
        network.signalling.restart_with_relay()?;
        let (_service, name) = tor.service(&network.signalling.host, 7117)?;
        let (stranger, hidden) = (&network.members[0].host, lab.host("hidden")?);
        // the only server that the hidden host knows
        let url = format!("ws://{name}:7117");
        let token = stranger.run("lcroute", &["invite", "--signal", &url])?;
        let token = token.success()?.stdout;
        let join = ["join", token.trim(), "--name", "hidden"];
        hidden.run("lcroute", &join)?.success()?;
        let setup = format!("[ice]\npolicy = \"relay\"\n\n[signal]\nsocks = \"{SOCKS}\"\n");
        hidden.configure(&setup)?;
        let (mut own, file) = capture(&hidden)?;
        let _client = tor.client(&hidden)?;
        network.members.push(Member::new(hidden));
        for member in &mut network.members {
            member.start()?;
        }
        let [stranger, hidden] = network.nodes()?;
        wait_link(hidden, stranger)?;
        let relay = &hidden.status()?["relay"];
        ensure!(relay["url"] == url.as_str(), "{relay}");
        expect_passes([hidden, stranger])?;
        own.stop()?;
        let (to_tor, stray) = strays(&hidden.host, &file, &tor.relays)?;
        ensure!(stray.is_empty(), "{stray}");
        ensure!(to_tor > 1_000, "{to_tor} packets");
        Ok(())
    });
}
