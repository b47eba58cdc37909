//! Streams between keys of no common network.

use crate::clocks::spawn_skewed_with;
use crate::outside_dht::with_dht;
use crate::prelude::*;
use crate::reach::{closed_lan, swarm};

/// Documented exit codes.
const FAILED: i32 = 1;
const USAGE: i32 = 2;
const UNREACHABLE: i32 = 3;
/// Time within which who is removed has lost link and streams.
const REVOKED_WITHIN: Duration = Duration::from_secs(2);

/// The kind of `udp-flood` that calls open keys.
const CALLS: &str = "10";

/// Time within which a stream without a link ends. Before, it was five minutes.
const CUT_WITHIN: Duration = Duration::from_secs(30);

/// Returns `KEY` or `KEY@PLACE` of a host, as its user passes it on.
pub(crate) fn contact(host: &Host) -> Result<String> {
    let printed = host.call("lcroute id --contact")?;
    Ok(printed.stdout.trim().to_owned())
}

/// Serves by a command to this key, and waits until it is ready.
fn serve(host: &Host, to: &str, command: &[&str]) -> Result<Process> {
    serve_as(host, &["/chat/1", "--allow", to], command)
}

/// Serves by a command to any key, and waits until it is ready.
pub(crate) fn serve_anyone(host: &Host, command: &[&str]) -> Result<Process> {
    serve_as(host, &["/open/1", "--anyone"], command)
}

fn serve_as(host: &Host, how: &[&str], command: &[&str]) -> Result<Process> {
    let args = [&["serve", "--outside"], how, &["--"], command];
    let serving = host.spawn("lcroute-streams", &args.concat())?;
    serving.says("serving")?;
    Ok(serving)
}

fn connect(host: &Host, input: &str, to: &str) -> Result<Output> {
    connect_by(host, input, to, "/chat/1")
}

pub(crate) fn connect_by(host: &Host, input: &str, to: &str, protocol: &str) -> Result<Output> {
    let line = format!("{input} | lcroute-streams connect {to} {protocol}");
    host.sh(&line)
}

/// Returns what `lcroute outside --json` shows.
pub(crate) fn look(host: &Host) -> Result<Value> {
    let shown = host.ask("lcroute-streams", &["outside", "--json"])?;
    Ok(serde_json::from_str(&shown.success()?.stdout)?)
}

/// A signalling server that belongs to neither of two hosts, and names it in their configuration.
fn meet(lab: &Lab, hosts: &[Host]) -> Result<(SignallingServer, String)> {
    let server = lab.signalling_server()?;
    let url = server.url()?;
    crate::configure(
        hosts,
        &format!("[signal]\nlan = false\n[outside]\nmeet = [\"{url}\"]\n"),
    )?;
    Ok((server, url))
}

/// The same with a public server, which has metrics.
fn meet_in_public(lab: &Lab, hosts: &[Host]) -> Result<(SignallingServer, String)> {
    let (mut server, url) = meet(lab, hosts)?;
    server.kill()?;
    server.args = ["--no-relay", "--public", "--metrics", "127.0.0.1:9100"]
        .map(str::to_owned)
        .to_vec();
    server.start()?;
    Ok((server, url))
}

#[test]
fn two_keys_without_network_or_daemon_meet_at_a_server_that_belongs_to_neither() {
    world("outside-server", |lab| {
        let hosts = lab.closed_hosts(&["ann", "bob", "cy"])?;
        let (_server, url) = meet(lab, &hosts)?;
        let [ann, bob, cy] = crate::each(&hosts)?;
        let (to_ann, to_bob) = (contact(ann)?, contact(bob)?);
        ensure!(to_bob.ends_with(&format!("@{url}")), "{to_bob}");
        bob.call(&format!("lcroute book add ann {to_ann} --for voice"))?;
        let command = ["sh", "-c", "cat; echo $LC_NAME $LC_FROM $LC_PEER"];
        let _serving = serve(bob, "book:ann", &command)?;
        let begun = Instant::now();
        let said = connect(ann, "echo hello", &to_bob)?.success()?;
        println!("first stream after {} ms", begun.elapsed().as_millis());
        let (ann_key, bob_key) = (key(&to_ann), key(&to_bob));
        ensure!(
            said.stdout == format!("hello\nann outside {ann_key}\n"),
            "{said:?}"
        );
        let shown = look(bob)?;
        ensure!(
            shown["pairs"][0]["state"] == "linked" && shown["pairs"][0]["name"] == "ann",
            "{shown}"
        );
        ensure!(shown["pairs"][0]["found_by"] == "server", "{shown}");
        // a third key learns nothing, and is told what was tried
        let third = connect(cy, "true", &to_bob)?;
        third.exits(UNREACHABLE)?;
        for part in [bob_key, url.as_str(), "[outside] dht", "--outside to"] {
            ensure!(third.stderr.contains(part), "{part} in {third:?}");
        }
        bob.run(
            "lcroute-streams",
            &["serve", "/x", "--outside", "--allow", "ann", "--", "cat"],
        )?
        .exits(USAGE)?;
        // who is removed loses a running stream
        // itself, not a shell's child: it ends with the test
        let line = format!("exec lcroute-streams connect {to_bob} /chat/1 < <(sleep 60)");
        let mut running = ann.spawn("bash", &["-c", &line])?;
        becomes(true, || Ok(look(ann)?["pairs"][0]["sought"].clone()))?;
        sleep(Duration::from_millis(300));
        bob.call("lcroute book remove ann")?;
        let begun = Instant::now();
        within(REVOKED_WITHIN, "nothing is left", || {
            let left = look(bob)?;
            ensure!(left["pairs"] == json!([]), "{left}");
            let sought = look(ann)?;
            holds!(sought["pairs"][0]["state"] != "linked", "{sought}")
        })?;
        println!("revoked after {} ms", begun.elapsed().as_millis());
        // it is told, and does not wait for a link that never comes back
        running.expect_exit(5 * REVOKED_WITHIN, 1)
    });
}

pub(crate) fn key(contact: &str) -> &str {
    contact.split('@').next().unwrap_or_default()
}

#[test]
#[ignore = "long: `make test-all`"]
fn two_keys_on_one_lan_need_nothing_else() {
    world("outside-lan", |lab| {
        let hosts = closed_lan(lab, &["ann", "bob"])?;
        crate::configure(&hosts, "")?;
        let (to_ann, to_bob) = (contact(&hosts[0])?, contact(&hosts[1])?);
        ensure!(!to_bob.contains('@'), "{to_bob}");
        let _serving = serve(&hosts[1], &to_ann, &["cat"])?;
        let begun = Instant::now();
        let said = connect(&hosts[0], "echo hello", &to_bob)?.success()?;
        println!("first stream after {} ms", begun.elapsed().as_millis());
        ensure!(said.stdout == "hello\n", "{said:?}");
        holds!(look(&hosts[1])?["pairs"][0]["found_by"] == "lan")
    });
}

/// Lets two hosts without any server find each other by a DHT.
fn meet_by_a_dht(lab: &Lab, hosts: &[Host]) -> Result<()> {
    let (_swarm, enters) = swarm(lab)?;
    hosts.iter().try_for_each(|host| with_dht(host, &enters))?;
    let (to_ann, to_bob) = (contact(&hosts[0])?, contact(&hosts[1])?);
    let _serving = serve(&hosts[1], &to_ann, &["cat"])?;
    let begun = Instant::now();
    let said = connect(&hosts[0], "echo hello", &to_bob)?.success()?;
    println!("first stream after {} ms", begun.elapsed().as_millis());
    holds!(said.stdout == "hello\n", "{said:?}")
}

#[test]
#[ignore = "long: `make test-all`"]
fn two_keys_behind_closed_firewalls_meet_by_a_dht_alone() {
    world("outside-dht", |lab| {
        meet_by_a_dht(lab, &lab.closed_hosts(&["ann", "bob"])?)
    });
}

#[test]
#[ignore = "long: `make test-all`"]
fn two_keys_behind_nats_that_keep_ports_meet_by_a_dht_alone() {
    world("outside-nats", |lab| {
        let hosts = [lab.host_behind_nat("ann")?, lab.host_behind_nat("bob")?];
        meet_by_a_dht(lab, &hosts)
    });
}

#[test]
#[ignore = "long: `make test-all`"]
fn clocks_eleven_hours_apart_delay_it_by_seconds() {
    world("outside-clocks", |lab| {
        let hosts = lab.closed_hosts(&["ann", "bob"])?;
        let (_server, _) = meet(lab, &hosts)?;
        let (to_ann, to_bob) = (contact(&hosts[0])?, contact(&hosts[1])?);
        let _serving = spawn_skewed_with(
            &hosts[1],
            11 * 3_600,
            "lcroute-streams",
            &[
                "serve",
                "/chat/1",
                "--outside",
                "--allow",
                &to_ann,
                "--",
                "cat",
            ],
        )?;
        let begun = Instant::now();
        let said = connect(&hosts[0], "sleep 1; echo hello", &to_bob)?.success()?;
        println!("first stream after {} ms", begun.elapsed().as_millis());
        holds!(said.stdout == "hello\n", "{said:?}")
    });
}

#[test]
#[ignore = "long: `make test-all`"]
fn each_program_may_be_killed_and_strangers_flood_in_vain() {
    world("outside-killed", |lab| {
        let hosts = lab.closed_hosts(&["ann", "bob"])?;
        let (_server, _) = meet(lab, &hosts)?;
        let [ann, bob] = crate::each(&hosts)?;
        let flooder = lab.host("flooder")?;
        let (to_ann, to_bob) = (contact(ann)?, contact(bob)?);
        let serving = serve(bob, &to_ann, &["cat"])?;
        connect(ann, "echo one", &to_bob)?.success()?;
        // datagrams with hints of no pair, to all ports of its program
        bob.nft("flush ruleset")?;
        let ports = ports_of(bob)?;
        ensure!(!ports.is_empty(), "no port of lcroute-outside");
        let to = bob.v4()?;
        let flood = format!(
            "import os, socket, time\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
             end = time.time() + 6\nn = 0\nwhile time.time() < end:\n  for p in {ports:?}:\n    \
             for _ in range(20):\n      s.sendto(bytes([0xc1]) + os.urandom(60), ('{to}', p)); n += 1\n  \
             time.sleep(0.001)\nprint(n)"
        );
        let mut flooding = flooder.spawn("python3", &["-c", &flood])?;
        sleep(Duration::from_secs(1));
        let begun = Instant::now();
        connect(ann, "echo two", &to_bob)?.success()?;
        println!("in a flood: {} ms", begun.elapsed().as_millis());
        flooding.wait(Duration::from_secs(20))?;
        println!("flooded with {} datagrams", flooding.stdout().trim());
        let dropped = eventually("they are counted", || {
            let dropped = look(bob)?["drops"]["outside_unknown"].as_u64();
            dropped.context("no drops")
        })?;
        println!("outside_unknown {dropped}");
        // the program of each side is started again by that for streams
        for host in [bob, ann] {
            kill_in(host, "lcroute-outside")?;
            let begun = Instant::now();
            let said = connect(ann, "echo three", &to_bob)?.success()?;
            ensure!(said.stdout == "three\n", "{said:?}");
            println!(
                "after a kill -9 on {}: {} ms",
                host.name(),
                begun.elapsed().as_millis()
            );
        }
        // without the program for streams nobody serves
        kill_in(bob, "streams --idle")?;
        drop(serving);
        Ok(())
    });
}

/// Returns the UDP ports of a host's lcroute-outside.
pub(crate) fn ports_of(host: &Host) -> Result<Vec<u16>> {
    let shown = host.ask("ss", &["-Hlunp4"])?.success()?;
    let lines = shown
        .stdout
        .lines()
        .filter(|line| line.contains("lcroute-outside"));
    let ports = lines.filter_map(|line| {
        let local = line.split_whitespace().nth(3)?;
        local.rsplit_once(':')?.1.parse().ok()
    });
    Ok(ports.collect())
}

/// Kills the processes of one host whose command line has this text.
pub(crate) fn kill_in(host: &Host, pattern: &str) -> Result<()> {
    let found = host.ask("pgrep", &["-f", pattern])?;
    let pids = found.stdout.lines().filter_map(|pid| pid.parse().ok());
    // all its programs work in its folder
    let is_its = |pid: &i32| {
        let folder = fs::read_link(format!("/proc/{pid}/cwd"));
        folder.is_ok_and(|folder| folder.as_path() == host.path("").as_path())
    };
    let pids: Vec<i32> = pids.filter(is_its).collect();
    ensure!(!pids.is_empty(), "{pattern}: {}", found.stdout);
    for pid in pids {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL)?;
    }
    Ok(())
}

#[test]
#[ignore = "long: `make test-all`"]
fn both_dial_at_once_and_a_network_of_their_own_does_not_notice() {
    world("outside-both", |lab| {
        // ann has a network and a daemon of her own
        let mut network = lab.closed_network(["ann", "other"])?;
        let url = network.signalling.url()?;
        let ann = network.members.remove(0);
        ann.host.configure(&format!(
            "[signal]\nlan = false\n[outside]\nmeet = [\"{url}\"]\n"
        ))?;
        let bob = &lab.closed_hosts(&["bob"])?[0];
        bob.configure(&format!(
            "[signal]\nlan = false\n[outside]\nmeet = [\"{url}\"]\n"
        ))?;
        let (to_ann, to_bob) = (contact(&ann.host)?, contact(bob)?);
        ensure!(key(&to_ann) == ann.peer_id()?, "the node's key: {to_ann}");
        let _ann_serves = serve(&ann.host, &to_bob, &["cat"])?;
        let _bob_serves = serve(bob, &to_ann, &["cat"])?;
        for turn in 0..50 {
            let line = |to: &str| format!("echo {turn} | lcroute-streams connect {to} /chat/1");
            let one = ann.host.spawn("sh", &["-c", &line(&to_bob)])?;
            let two = bob.spawn("sh", &["-c", &line(&to_ann)])?;
            for said in [one.output()?, two.output()?] {
                ensure!(said.success()?.stdout == format!("{turn}\n"), "turn {turn}");
            }
        }
        // the network knows nothing of it
        let members = ann.host.ask("lcroute", &["members", "--json"])?.success()?;
        holds!(!members.stdout.contains(key(&to_bob)), "{}", members.stdout)
    });
}

/// Returns keys that nobody has.
fn nobodies(count: usize) -> Vec<String> {
    let keys = (0..count).map(|_| librecast::id::SecretKey::generate().peer_id().to_string());
    keys.collect()
}

/// Returns the number of connections to a server's port from a host.
fn connections(server: &Host, from: &Host) -> Result<usize> {
    let shown = server.ask(
        "ss",
        &["-Htn", "state", "established", "sport", "=", ":7117"],
    )?;
    let from = from.v4()?.to_string();
    let shown = shown.success()?.stdout;
    Ok(shown.lines().filter(|line| line.contains(&from)).count())
}

#[test]
fn friends_wait_in_rooms_of_one_connection_at_a_public_place() {
    world("outside-public", |lab| {
        let hosts = lab.closed_hosts(&["ann", "bob"])?;
        let [ann, bob] = crate::each(&hosts)?;
        let (mut server, _) = meet_in_public(lab, &hosts)?;
        let (to_ann, to_bob) = (contact(ann)?, contact(bob)?);
        let mut args = vec!["serve", "/chat/1", "--outside", "--allow", &to_ann];
        let others = nobodies(19);
        args.extend(others.iter().flat_map(|key| ["--allow", key.as_str()]));
        args.extend(["--", "cat"]);
        let _serving = bob.spawn("lcroute-streams", &args)?;
        let metrics = || Exposition::at_address(&server.host, "127.0.0.1:9100");
        eventually("all wait", || {
            let entered = metrics()?.value("lcroute_signal_entered_rooms", &[])?;
            // around the change of their period pairs have two
            holds!((20.0..=40.0).contains(&entered), "{entered} rooms")
        })?;
        ensure!(connections(&server.host, bob)? == 1, "one connection");
        let said = connect(ann, "echo hello", &to_bob)?.success()?;
        ensure!(said.stdout == "hello\n", "{said:?}");
        ensure!(connections(&server.host, bob)? == 1, "one connection");
        ensure!(metrics()?.value("lcroute_signal_messages_total", &[])? > 0.0);
        // the log names nobody
        server.kill()?;
        let logs = lab.logs();
        let of_server = logs
            .split("--- ")
            .filter(|log| log.starts_with("signalling"));
        let of_server = of_server.collect::<String>();
        ensure!(of_server.contains("ready: ws://"), "{logs}");
        for name in [key(&to_ann), key(&to_bob), &bob.v4()?.to_string()] {
            ensure!(!of_server.contains(name), "{name} in {of_server}");
        }
        Ok(())
    });
}

#[test]
#[ignore = "long: `make test-all`"]
fn without_udp_and_behind_two_symmetric_nats_the_place_relays() {
    world("outside-relay", |lab| {
        let mut server = lab.signalling_server()?;
        server.args.push("--public".to_owned());
        server.restart_with_relay()?;
        let url = server.url()?;
        let configured = format!("[signal]\nlan = false\n[outside]\nmeet = [\"{url}\"]\n");
        let closed = lab.closed_hosts(&["ann", "bob"])?;
        for host in &closed {
            host.drop_udp()?;
        }
        let nats = [
            lab.host_behind_symmetric_nat("cy")?,
            lab.host_behind_symmetric_nat("dan")?,
        ];
        for (hosts, path) in [(&closed[..], "tcp"), (&nats[..], "relay")] {
            crate::configure(hosts, &configured)?;
            let (to_one, to_two) = (contact(&hosts[0])?, contact(&hosts[1])?);
            let _serving = serve(&hosts[1], &to_one, &["cat"])?;
            let begun = Instant::now();
            let said = connect(&hosts[0], "echo hello; sleep 3", &to_two)?.success()?;
            println!(
                "{path}: stream ended after {} ms",
                begun.elapsed().as_millis()
            );
            ensure!(said.stdout == "hello\n", "{said:?}");
            let shown = look(&hosts[1])?;
            ensure!(shown["pairs"][0]["path"] == path, "{shown}");
        }
        Ok(())
    });
}

#[test]
#[ignore = "long: `make test-all`"]
fn a_stream_whose_link_is_cut_ends_soon_on_both_sides() {
    world("outside-cut", |lab| {
        let hosts = lab.closed_hosts(&["ann", "bob"])?;
        let (_server, _) = meet(lab, &hosts)?;
        let [ann, bob] = crate::each(&hosts)?;
        let (to_ann, to_bob) = (contact(ann)?, contact(bob)?);
        let command = ["sh", "-c", "echo ready; cat; echo ended > ended"];
        let _serving = serve(bob, &to_ann, &command)?;
        let line = format!("exec lcroute-streams connect {to_bob} /chat/1 < <(sleep 300)");
        let mut running = ann.spawn("bash", &["-c", &line])?;
        running.prints("ready")?;
        // a link that is back in time carries it on
        ann.cut_uplink()?;
        sleep(Duration::from_secs(2));
        ann.heal_uplink()?;
        becomes("linked", || Ok(look(ann)?["pairs"][0]["state"].clone()))?;
        running.must_run()?;
        ann.cut_uplink()?;
        let begun = Instant::now();
        let code = running.wait(CUT_WITHIN)?;
        println!("the caller ended after {} ms", begun.elapsed().as_millis());
        ensure!(code == 1, "exit code {code}: {}", running.stderr());
        within(CUT_WITHIN, "the served command ends", || {
            holds!(bob.path("ended").exists(), "not yet")
        })?;
        println!("the other side after {} ms", begun.elapsed().as_millis());
        Ok(())
    });
}

#[test]
fn a_stranger_calls_an_open_key_by_a_public_server() {
    world("outside-open", |lab| {
        let hosts = lab.closed_hosts(&["bob", "stranger"])?;
        let (_server, url) = meet_in_public(lab, &hosts)?;
        let [bob, stranger] = crate::each(&hosts)?;
        let to_bob = contact(bob)?;
        let _named = serve(bob, &nobodies(1)[0], &["cat"])?;
        let command = ["sh", "-c", "cat; echo $LC_FROM $LC_PEER"];
        let mut serving = serve_anyone(bob, &command)?;
        serving.says("anyone may")?;
        a_stranger_is_served(stranger, &to_bob)?;
        // a service that names another key is not listed to it
        connect_by(stranger, "true", &to_bob, "/chat/1")?
            .fails(FAILED, "speaks /open/1, this program")?;
        let open = &look(bob)?["open"];
        ensure!(
            open["protocols"] == json!(["/open/1"]) && open["callers"].as_u64() >= Some(1),
            "{open}"
        );
        ensure!(
            open["by"].to_string().contains(&url),
            "found by {url}: {open}"
        );
        let line = format!("exec lcroute-streams connect {to_bob} /open/1 < <(echo up; sleep 60)");
        let mut running = stranger.spawn("bash", &["-c", &line])?;
        running.prints("up")?;
        serving.signal(Signal::SIGINT)?;
        serving.expect_exit(CUT_WITHIN, 0)?;
        running.expect_exit(CUT_WITHIN, FAILED)?;
        becomes(Value::Null, || Ok(look(bob)?["open"].clone()))
    });
}

/// A host of no name at the other calls its open service.
pub(crate) fn a_stranger_is_served(stranger: &Host, to: &str) -> Result<()> {
    let begun = Instant::now();
    let said = connect_by(stranger, "echo hello", to, "/open/1")?.success()?;
    println!("first stream after {} ms", begun.elapsed().as_millis());
    let own = contact(stranger)?;
    let expected = format!("hello\noutside {}\n", key(&own));
    holds!(said.stdout == expected, "{said:?}")
}

#[test]
#[ignore = "long: `make test-all`"]
fn calls_of_an_open_key_with_wrong_cookies_flood_in_vain() {
    world("outside-open-flood", |lab| {
        let hosts = lab.closed_hosts(&["ann", "bob"])?;
        let (_server, _) = meet_in_public(lab, &hosts)?;
        let [ann, bob] = crate::each(&hosts)?;
        let flooder = lab.host("flooder")?;
        let (to_ann, to_bob) = (contact(ann)?, contact(bob)?);
        let _named = serve(bob, &to_ann, &["cat"])?;
        let _open = serve_anyone(bob, &["cat"])?;
        exceeds(0, || Ok(ports_of(bob)?.len()))?;
        bob.nft("flush ruleset")?;
        // its answers arrive somewhere
        let source = format!("{}:7", flooder.v4()?);
        let mut floods = Vec::new();
        for port in ports_of(bob)? {
            let to = format!("{}:{port}", bob.v4()?);
            let args = [to.as_str(), "--kind", CALLS, "--source", &source];
            let rate = ["--rate", "20000", "--seconds", "600"];
            floods.push(flooder.spawn("udp-flood", &[&args[..], &rate[..]].concat())?);
        }
        let dropped = |reason: &str| -> Result<u64> {
            Ok(look(bob)?["drops"][reason].as_u64().unwrap_or_default())
        };
        eventually("calls without the key's tag are dropped", || {
            let (answered, unknown) = (dropped("outside_cookie")?, dropped("outside_unknown")?);
            holds!(answered == 0 && unknown > 10_000, "{answered}, {unknown}")
        })?;
        let before = dropped("outside_unknown")?;
        let begun = Instant::now();
        let said = connect(ann, "echo hello", &to_bob)?.success()?;
        println!("in a flood: {} ms", begun.elapsed().as_millis());
        ensure!(said.stdout == "hello\n", "{said:?}");
        exceeds(before, || dropped("outside_unknown"))?;
        floods.iter_mut().try_for_each(Process::must_run)?;
        // nobody has become a caller
        let shown = look(bob)?;
        ensure!(shown["open"]["callers"] == 0, "{shown}");
        println!("{}", shown["drops"]);
        Ok(())
    });
}

#[test]
#[ignore = "long: `make test-all`"]
fn a_stranger_calls_an_open_key_on_one_lan() {
    world("outside-open-lan", |lab| {
        // a closed firewall would drop calls of strangers
        let hosts = lab.lan(&["bob", "stranger"])?;
        crate::configure(&hosts, "")?;
        let [bob, stranger] = crate::each(&hosts)?;
        let to_bob = contact(bob)?;
        ensure!(!to_bob.contains('@'), "{to_bob}");
        let command = ["sh", "-c", "cat; echo $LC_FROM $LC_PEER"];
        let _serving = serve_anyone(bob, &command)?;
        a_stranger_is_served(stranger, &to_bob)
    });
}
