//! The steps of the demo. Each step checks its statements: a wrong number fails the demo.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::narrator::{Narrator, Step, grouped};
use super::web::{self, Ports};
use crate::lab::{
    Host, Lab, Member, Network, Process, Receiver, Traffic, eventually, make_folder, open_sockets,
    same_content, within,
};

const NAMES: [&str; 16] = [
    "alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliett",
    "kilo", "lima", "mike", "november", "oscar", "papa",
];
const GROUP: &str = "ff1e::42";
const PACKETS: u64 = 500;
/// UDP payload of a packet.
const SIZE: u64 = 1_200;
/// Packets a second of a permanent sender.
const RATE: &str = "500";
const MANY: [&str; 7] = [GROUP, "--count", "1000000", "--rate", RATE, "--size", "200"];
const FOLDER_BYTES: usize = 4_000_000;

/// Runs the whole demo; with `ports` it does not end.
pub fn run(lab: &Lab, nodes: usize, ports: Option<Ports>, narrator: &mut Narrator) -> Result<()> {
    let names = &NAMES[..nodes.clamp(2, NAMES.len())];
    narrator.introduce(
        "lcroute: IPv6 multicast between hosts that let nobody in",
        &picture(names),
    );

    let mut hosts = Vec::new();
    narrator.step("Hosts, each behind a closed firewall", |step| {
        hosts = build(lab, names, ports.is_some())?;
        step.say(
            "Each host is a network namespace; nftables drops whatever is not an answer or ICMPv6.",
        );
        probe(lab, &hosts, step)
    })?;
    let mut network = None;
    narrator.step("One network: a token is all it takes", |step| {
        network = Some(found(lab, hosts, step)?);
        Ok(())
    })?;
    let mut network = network.context("the network of the step before")?;
    if ports.is_some() {
        // from its next start on, since a browser outside has no path of its own
        network.signalling.set_relay()?;
    }
    narrator.step(
        "lcroute runs: each host has lc0, and a link to each other one",
        |step| {
            let begin = Instant::now();
            network.start()?;
            links(&network, begin, step)
        },
    )?;
    narrator.step(
        "alpha sends, nobody has joined: nothing leaves the host",
        |step| send_unheard(&network, step),
    )?;
    let mut first = None;
    narrator.step(
        &format!(
            "A program on {} joins: it, and nobody else, receives",
            names[1]
        ),
        |step| {
            first = Some(join_first(&network, step)?);
            Ok(())
        },
    )?;
    let first = first.context("the receiver of the step before")?;
    narrator.step("All join, then one leaves", |step| {
        join_and_leave(&network, first, step)
    })?;
    if names.len() > 2 {
        narrator.step(
            "A path breaks, a router dies: packets find their way",
            |step| heal(lab, &mut network, step),
        )?;
    }
    narrator.step("The signalling server dies: links stay", |step| {
        without_signalling(&mut network, step)
    })?;
    let mut summary = Vec::new();
    narrator.step(
        "lcsync: a folder from a server without an open port",
        |step| {
            summary = sync(&network, step)?;
            Ok(())
        },
    )?;
    if let Some(ports) = ports {
        return web::run(lab, &mut network, ports, narrator);
    }
    narrator.step("Everybody stops: lc0 is gone", |step| {
        stop(&mut network, step)
    })?;
    summary.insert(0, format!(
        "{} nodes met through closed firewalls and NAT; packets went to who had joined, and nowhere else.",
        names.len()
    ));
    summary.push("Next, on a host of your own: sudo lcroute up. On another: sudo lcroute up TOKEN, with the token that the first one prints.".into());
    summary
        .push("In a checkout, sudo make install comes first; README.md goes on from there.".into());
    narrator.summarize(&summary);
    Ok(())
}

/// ```text
///   ───┬────────────┬────────────┬─────── the Internet
///      │           ═╪═         [NAT]
///   signalling    alpha        bravo
/// ```
fn picture(names: &[&str]) -> String {
    const WIDTH: usize = 12;
    const SHOWN: usize = 5;
    let shown = &names[..names.len().min(SHOWN)];
    let hidden = names.len() - shown.len();
    let mut columns = vec![("│", "signalling".to_owned())];
    for (at, name) in shown.iter().enumerate() {
        let is_last = at + 1 == names.len();
        columns.push((if is_last { "[NAT]" } else { "═╪═" }, (*name).to_owned()));
    }
    let row = |cells: Vec<&str>| {
        cells
            .iter()
            .map(|cell| format!("{cell:^WIDTH$}"))
            .collect::<String>()
    };
    let wire: String = columns
        .iter()
        .map(|_| format!("{:─^WIDTH$}", "┬"))
        .collect();
    let more = match hidden {
        0 => String::new(),
        hidden => format!("\n    ... and {hidden} more, the last of them behind NAT"),
    };
    format!(
        "    {wire}  the Internet\n    {}  ═╪═ firewall: lets in only answers\n    {}  [NAT] home router{more}",
        row(columns.iter().map(|(mark, _)| *mark).collect()),
        row(columns.iter().map(|(_, name)| name.as_str()).collect())
    )
}

/// Makes public, firewalled hosts, the last behind a home router; `is_watched`: they report flows.
fn build(lab: &Lab, names: &[&str], is_watched: bool) -> Result<Vec<Host>> {
    let (last, public) = names.split_last().context("no names")?;
    let mut hosts = lab.closed_hosts(public)?;
    let behind_nat = lab.host_behind_nat(last)?;
    behind_nat.close_uplink()?;
    hosts.push(behind_nat);
    let is_large = hosts.len() > 8;
    for (at, host) in hosts.iter().enumerate() {
        let mut config = String::new();
        if is_watched {
            config += "[web]\nreport = true\n";
        }
        if is_large {
            // by default a large network has fewer links, and any node may be the root of the tree
            config += "[topology]\npolicy = \"mesh\"\n";
        }
        if is_large && at == 0 {
            config += &format!("[network]\nannounce = [\"{GROUP}/128\"]\n");
        }
        host.configure(&config)?;
    }
    Ok(hosts)
}

/// Sends probes from the Internet, and counts the drops of the firewalls.
fn probe(lab: &Lab, hosts: &[Host], step: &mut Step) -> Result<()> {
    let outsider = lab.host("outsider")?;
    let (mut sent, mut dropped) = (0, 0);
    for host in hosts {
        // A host behind NAT has no public address: its router is probed.
        let wall = wall(lab, host);
        let before = wall.refused()?.packets;
        let address = wall.v4()?;
        outsider.namespace().run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.send_to(b"anybody there?", (address, 7117))?;
            let tcp = TcpStream::connect_timeout(
                &SocketAddr::from((address, 22)),
                Duration::from_millis(50),
            );
            ensure!(tcp.is_err(), "somebody answered at {address}");
            Ok(())
        })?;
        sent += 2;
        // on a busy machine they are still on their way
        dropped += eventually("the probes were dropped", || {
            let dropped = wall.refused()?.packets - before;
            ensure!(dropped >= 2, "{dropped} of 2");
            Ok(dropped)
        })?;
    }
    ensure!(dropped == sent, "{dropped} of {sent} probes were dropped");
    step.say(&format!("An outsider probes each (UDP and TCP): {sent} packets sent, {dropped} dropped, none answered."));
    step.fact("probes", sent);
    step.fact("dropped", dropped);
    step.event("probed", json!({"packets": sent, "dropped": dropped}));
    Ok(())
}

/// Returns the host with the public address of `host`: its router, if it is behind NAT.
fn wall(lab: &Lab, host: &Host) -> Host {
    let router = lab.find(&format!("{}-nat", host.name()));
    router.unwrap_or_else(|| host.clone())
}

fn found(lab: &Lab, hosts: Vec<Host>, step: &mut Step) -> Result<Network> {
    let founder = hosts[0].name().to_owned();
    let others: Vec<String> = hosts[1..]
        .iter()
        .map(|host| host.name().to_owned())
        .collect();
    let network = lab.network(hosts)?;
    step.command("signalling", "lcroute signal --listen [::]:7117");
    step.command(&founder, "lcroute init");
    step.command(
        &founder,
        &format!("lcroute invite --signal {}", network.signalling.url()?),
    );
    step.say(&format!(
        "            {}...",
        network.token.chars().take(40).collect::<String>()
    ));
    for name in &others {
        step.command(name, "lcroute join TOKEN");
    }
    step.fact("members", network.members.len());
    Ok(network)
}

fn links(network: &Network, begin: Instant, step: &mut Step) -> Result<()> {
    step.event("linked", json!({"took_ms": milliseconds(begin)}));
    let mut shown = Vec::new();
    for (at, member) in network.members.iter().enumerate() {
        for peer in member.peers()? {
            let name = peer["name"].as_str().unwrap_or_default();
            let is_later = network.members[at + 1..]
                .iter()
                .any(|other| other.host.name() == name);
            if is_later {
                shown.push(
                    json!({"from": member.host.name(), "to": name, "rtt_ms": peer["rtt_ms"]}),
                );
            }
        }
    }
    let line = |link: &Value| {
        let ends = format!("{} - {}", link["from"].as_str()?, link["to"].as_str()?);
        let rtt = link["rtt_ms"]
            .as_f64()
            .map_or(String::new(), |rtt| format!(" ({rtt:.1} ms)"));
        Some(ends + &rtt)
    };
    let lines: Vec<String> = shown.iter().filter_map(line).collect();
    const SHOWN: usize = 15;
    for row in lines[..lines.len().min(SHOWN)].chunks(3) {
        step.say(&row.join("    "));
    }
    if lines.len() > SHOWN {
        step.say(&format!("and {} more", lines.len() - SHOWN));
    }
    let count = network.members.len() * (network.members.len() - 1) / 2;
    ensure!(
        lines.len() == count,
        "{} links instead of {count}",
        lines.len()
    );
    step.say("All went out through the firewalls and met: encrypted WebRTC, no port forwarded, no relay.");
    step.fact("links", shown);
    Ok(())
}

fn send_unheard(network: &Network, step: &mut Step) -> Result<()> {
    let alpha = &network.members[0];
    let before = alpha.counter("drops/no_listener")?;
    let measured = Measured::begin(network)?;
    send(alpha, step)?;
    let dropped = eventually("all packets are accounted for", || {
        let dropped = alpha.counter("drops/no_listener")? - before;
        ensure!(
            dropped == PACKETS,
            "{dropped} of {PACKETS} dropped for want of a listener"
        );
        Ok(dropped)
    })?;
    let table = measured.end(network)?;
    step.say(&format!(
        "alpha's lcroute dropped all {dropped}: no listener. Data on its uplink: {} bytes.",
        table[0].sent.bytes
    ));
    ensure!(
        table[0].sent == Traffic::default(),
        "data left alpha: {:?}",
        table[0].sent
    );
    step.event(
        "unheard",
        json!({"packets": PACKETS, "dropped": dropped, "uplink_out_bytes": table[0].sent.bytes}),
    );
    step.fact("dropped_at_source", dropped);
    step.fact("uplink_data_bytes", table[0].sent.bytes);
    Ok(())
}

fn join_first(network: &Network, step: &mut Step) -> Result<Receiver> {
    let (alpha, bravo) = (&network.members[0], &network.members[1]);
    step.command(
        bravo.host.name(),
        &format!("mc-recv {GROUP}        (a plain socket: bind, join, recv)"),
    );
    let receiver = bravo.host.receive(GROUP, &[])?;
    alpha.wait_wanted(GROUP, bravo)?;
    step.event("joined", json!({"node": bravo.host.name()}));
    let measured = Measured::begin(network)?;
    send(alpha, step)?;
    receiver.expect_exactly(PACKETS)?;
    let table = measured.end(network)?;
    let got: Vec<u64> = (0..table.len())
        .map(|at| if at == 1 { PACKETS } else { 0 })
        .collect();
    show_table(network, &table, &got, step);
    for (row, member) in table.iter().zip(&network.members).skip(2) {
        let name = member.host.name();
        ensure!(
            row.received == Traffic::default(),
            "data reached {name}, which did not join"
        );
    }
    Ok(receiver)
}

fn join_and_leave(network: &Network, first: Receiver, step: &mut Step) -> Result<()> {
    let alpha = &network.members[0];
    let mut receivers = vec![first];
    for member in &network.members[2..] {
        receivers.push(member.host.receive(GROUP, &[])?);
        alpha.wait_wanted(GROUP, member)?;
        step.event("joined", json!({"node": member.host.name()}));
    }
    let expected: Vec<u64> = receivers
        .iter()
        .map(Receiver::packets)
        .collect::<Result<_>>()?;
    send(alpha, step)?;
    for (receiver, before) in receivers.iter().zip(&expected) {
        receiver.expect_exactly(before + PACKETS)?;
    }
    step.event(
        "delivered_to_all",
        json!({"packets": PACKETS, "listeners": receivers.len()}),
    );
    step.say(&format!(
        "{} programs on {} hosts got all {PACKETS}.",
        receivers.len(),
        receivers.len()
    ));
    let bravo = &network.members[1];
    receivers.remove(0).process().kill()?;
    alpha.wait_unwanted(GROUP, bravo)?;
    step.event("left", json!({"node": bravo.host.name()}));
    let measured = Measured::begin(network)?;
    step.say(&format!(
        "The program on {} is killed: the kernel says PART for it.",
        bravo.host.name()
    ));
    send(alpha, step)?;
    for receiver in &receivers {
        receiver.expect_exactly(2 * PACKETS)?;
    }
    if receivers.is_empty() {
        eventually("the packets are dropped at home", || {
            ensure!(
                alpha.counter("drops/no_listener")? >= 2 * PACKETS,
                "not yet"
            );
            Ok(())
        })?;
    }
    let table = measured.end(network)?;
    let got: Vec<u64> = (0..table.len())
        .map(|at| if at > 1 { PACKETS } else { 0 })
        .collect();
    show_table(network, &table, &got, step);
    ensure!(
        table[1].received == Traffic::default(),
        "data reached {} after its PART",
        bravo.host.name()
    );
    Ok(())
}

/// Cuts alpha off from all but bravo, then kills bravo's router, while the last member listens.
fn heal(lab: &Lab, network: &mut Network, step: &mut Step) -> Result<()> {
    let sender = network.members[0].host.spawn("mc-send", &MANY)?;
    let [alpha, bravo, others @ ..] = &mut network.members[..] else {
        bail!("two members have one path");
    };
    let listener = others.last().context("no third member")?;
    let name = listener.host.name();
    step.command(name, &format!("mc-recv {GROUP}"));
    let receiver = listener.host.receive(GROUP, &[])?;
    receiver.expect(1)?;
    let first = receiver.state()?["join_to_first_ms"]
        .as_f64()
        .context("no packet")?;
    step.say(&format!(
        "alpha sends {RATE} packets a second: {name} has the first {first:.1} ms after it joined."
    ));
    step.event("first_packet", json!({"node": name, "after_ms": first}));

    let walls: Vec<Host> = others
        .iter()
        .map(|member| wall(lab, &member.host))
        .collect();
    step.event("cut", json!({"between": ["alpha", name]}));
    let around = silence(&receiver, || alpha.host.cut_from(&walls))?;
    step.say(&format!(
        "The path between them is cut: after {around:.0} ms the packets come by {}.",
        bravo.host.name()
    ));
    step.event(
        "healed",
        json!({"silence_ms": around, "by": bravo.host.name()}),
    );
    step.fact("cut_silence_ms", around);

    step.command(bravo.host.name(), "kill -9 $(pidof lcroute)");
    step.event("killed", json!({"node": bravo.host.name()}));
    let killed = silence(&receiver, || {
        bravo.daemon()?.kill()?;
        bravo.launch()
    })?;
    step.say(&format!("Its router is killed, and started at once: {name} hears nothing for {killed:.0} ms, then all."));
    step.event(
        "healed",
        json!({"silence_ms": killed, "by": bravo.host.name()}),
    );
    step.fact("killed_silence_ms", killed);

    drop(sender);
    alpha.host.heal_uplink()
}

/// Returns a listener's time without packets after `blow`, in milliseconds.
fn silence(receiver: &Receiver, blow: impl FnOnce() -> Result<()>) -> Result<f64> {
    // earlier pauses are possible on a busy machine
    let before = receiver.pauses()?.len();
    blow()?;
    eventually("packets come again", || {
        let pauses = receiver.pauses()?;
        pauses.get(before).copied().context("no pause yet")
    })
}

fn without_signalling(network: &mut Network, step: &mut Step) -> Result<()> {
    network.signalling.kill()?;
    step.say("kill -9: it was needed to meet, not to stay together.");
    let (alpha, bravo) = (&network.members[0], &network.members[1]);
    let receiver = bravo.host.receive(GROUP, &[])?;
    alpha.wait_wanted(GROUP, bravo)?;
    send(alpha, step)?;
    receiver.expect_exactly(PACKETS)?;
    let state = receiver.state()?;
    let latency = state["latency_us"]["p50"].as_u64().unwrap_or_default();
    step.say(&format!(
        "{} got all {PACKETS}; half of them within {latency} us.",
        bravo.host.name()
    ));
    step.fact("received", PACKETS);
    step.fact("latency_us_p50", latency);
    network.signalling.start()
}

/// Shares a folder from alpha to all other members, with a firewall that accepts no TCP and no UDP.
fn sync(network: &Network, step: &mut Step) -> Result<Vec<String>> {
    let (alpha, others) = network.members.split_first().context("no members")?;
    alpha.host.nft("delete table inet closed")?;
    alpha.host.close_everywhere()?;
    step.say("alpha's firewall now accepts no TCP and no UDP on any interface, lc0 included.");
    let folder = alpha.host.path("photos");
    make_folder(&folder, FOLDER_BYTES)?;
    step.command("alpha", "lcsync share photos");
    let (share, root) = share(&alpha.host)?;
    let open = open_sockets(share.pid())?;
    ensure!(open.is_empty(), "the server has open sockets: {open:?}");
    let listed = alpha.host.run("ss", &["-Hlntup"])?.success()?.stdout;
    ensure!(
        !listed.contains(&format!("pid={},", share.pid())),
        "ss lists lcsync: {listed}"
    );
    step.say("ss -lntup lists no socket of it: nobody can send it TCP or UDP.");
    let into_lc0 = alpha.counter("tun_rx_bytes")?;
    let receivers: Vec<(&Member, Process)> = others
        .iter()
        .map(|member| Ok((member, member.host.spawn("lcsync", &["lc:photos", "copy"])?)))
        .collect::<Result<_>>()?;
    step.command("others", "lcsync lc:photos copy");
    let count = receivers.len();
    for (member, mut process) in receivers {
        let code = process.wait(Duration::from_secs(60))?;
        ensure!(
            code == 0,
            "lcsync on {} ended with {code}: {}",
            member.host.name(),
            process.stderr()
        );
        same_content(&folder, &member.host.path("copy"))?;
        let hash = member
            .host
            .run("lcsync", &["hash", "copy"])?
            .success()?
            .stdout;
        ensure!(
            hash.contains(&root),
            "the hash on {} is {hash}, not {root}",
            member.host.name()
        );
    }
    let sent = alpha.counter("tun_rx_bytes")? - into_lc0;
    let ratio = sent as f64 / FOLDER_BYTES as f64;
    let open = open_sockets(share.pid())?;
    ensure!(open.is_empty(), "the server has opened sockets: {open:?}");
    step.say(&format!(
        "{count} receivers have all {} bytes, root hash {}... on each.",
        grouped(FOLDER_BYTES as u64),
        root.chars().take(12).collect::<String>()
    ));
    step.say(&format!(
        "The server sent {} bytes in all: {ratio:.2} per byte of the folder, for {count}.",
        grouped(sent)
    ));
    step.fact("receivers", count);
    step.fact("folder_bytes", FOLDER_BYTES);
    step.fact("sent_bytes", sent);
    step.fact("open_ports", 0);
    step.fact("root", root);
    Ok(vec![format!(
        "lcsync served {count} with {ratio:.2} times the folder's bytes, from a host without an open port."
    )])
}

/// Starts `lcsync share photos` and waits for its line `lc:NAME ROOTHASH`.
fn share(host: &Host) -> Result<(Process, String)> {
    let mut process = host.spawn("lcsync", &["share", "photos"])?;
    let root = within(Duration::from_secs(30), "lcsync share is ready", || {
        process.must_run()?;
        let said = process.stdout();
        let line = said
            .lines()
            .find_map(|line| line.strip_prefix("lc:photos "));
        Ok(line.context("no line lc:photos yet")?.trim().to_owned())
    })?;
    Ok((process, root))
}

fn stop(network: &mut Network, step: &mut Step) -> Result<()> {
    for member in &mut network.members {
        member.stop()?;
        ensure!(
            !member.host.has_interface("lc0"),
            "lc0 is left on {}",
            member.host.name()
        );
    }
    step.say("SIGTERM: each daemon says PART, takes lc0 away and ends with 0.");
    step.fact("stopped", network.members.len());
    Ok(())
}

fn send(from: &Member, step: &Step) -> Result<()> {
    step.command(
        from.host.name(),
        &format!("mc-send {GROUP} --count {PACKETS} --size {SIZE}"),
    );
    from.host
        .send(GROUP, PACKETS, &["--rate", "1000"])
        .map(drop)
}

/// Data on each uplink during a step.
struct Measured(Vec<(Traffic, Traffic)>);

/// Data of one uplink: packets of 900 bytes and more.
struct Row {
    received: Traffic,
    sent: Traffic,
}

impl Measured {
    fn begin(network: &Network) -> Result<Measured> {
        network.wait_probed()?;
        network
            .members
            .iter()
            .map(|member| member.host.uplink_data())
            .collect::<Result<_>>()
            .map(Measured)
    }

    fn end(self, network: &Network) -> Result<Vec<Row>> {
        let after = Measured::begin(network)?.0;
        let difference =
            |((old_in, old_out), (new_in, new_out)): (&(Traffic, Traffic), &(Traffic, Traffic))| {
                Row {
                    received: *new_in - *old_in,
                    sent: *new_out - *old_out,
                }
            };
        Ok(self.0.iter().zip(&after).map(difference).collect())
    }
}

fn show_table(network: &Network, table: &[Row], got: &[u64], step: &mut Step) {
    step.say(&format!(
        "{:<10}{:>14}{:>20}{:>20}",
        "", "program got", "data in, bytes", "data out, bytes"
    ));
    let mut rows = Vec::new();
    for ((row, member), got) in table.iter().zip(&network.members).zip(got) {
        let (name, sent, received) = (member.host.name(), row.sent.bytes, row.received.bytes);
        step.say(&format!(
            "{name:<10}{got:>14}{:>20}{:>20}",
            grouped(received),
            grouped(sent)
        ));
        rows.push(json!({"node": name, "got": got, "uplink_in_bytes": received, "uplink_out_bytes": sent}));
    }
    step.event("delivered", json!({"packets": PACKETS, "nodes": rows}));
    step.fact("nodes", rows);
}

fn milliseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
