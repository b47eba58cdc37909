//! A host with `[ice] policy = "relay"`: only members in `disclose` learn its addresses.

use std::net::IpAddr;

use crate::guest::as_nobody;
use crate::prelude::*;
use crate::tor::{PATIENCE, SOCKS, TorNetwork};

/// Captures all packets of a host's own interface, except LAN protocols.
fn capture(host: &Host) -> Result<(Process, PathBuf)> {
    dump(host, "seen.pcap", &["udp or tcp or icmp or sctp"])
}

/// Captures all packets that a host sends on its own interface.
fn capture_sent(host: &Host, file: &str) -> Result<(Process, PathBuf)> {
    dump(host, file, &["-Q", "out"])
}

fn dump(host: &Host, file: &str, args: &[&str]) -> Result<(Process, PathBuf)> {
    dump_at(host, "eth0", file, args)
}

fn dump_at(host: &Host, at: &str, file: &str, args: &[&str]) -> Result<(Process, PathBuf)> {
    let file = host.path(file);
    let shown = file.display().to_string();
    let whole = ["-i", at, "-U", "-w", &shown];
    let dump = host.spawn("tcpdump", &[&whole, args].concat())?;
    dump.says("listening on")?;
    Ok((dump, file))
}

/// Returns how often an address of `of` occurs in a capture, in headers or unsealed content.
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

/// Checks that packets of each member reach every other one.
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

/// Starts a relaying server, and open hosts `hidden` (with `setup`), `stranger`, `friend`.
fn three(lab: &Lab, setup: impl Fn(&str) -> String) -> Result<Network> {
    let names = ["hidden", "stranger", "friend"].into_iter();
    let hosts: Result<Vec<_>> = names.map(|name| lab.host(name)).collect();
    let mut network = lab.network(hosts?)?;
    network.signalling.restart_with_relay()?;
    let [hidden, _, friend] = network.nodes()?;
    let id = friend.host.call("lcroute id --json")?;
    let id: Value = serde_json::from_str(&id.stdout)?;
    let id = id["peer_id"].as_str().context("no PeerId")?;
    let setup = setup(id);
    hidden.host.configure(&setup)?;
    Ok(network)
}

fn policy(friend: &str) -> String {
    format!("[ice]\npolicy = \"relay\"\ndisclose = [\"{friend}\"]\n")
}

/// Returns how often the stranger saw an address of the hidden host, and both paths to it.
fn seen_by_stranger(network: &mut Network) -> Result<(usize, [String; 2])> {
    let [_, stranger, _] = network.nodes()?;
    let (mut dump, file) = capture(&stranger.host)?;
    network.start_each()?;
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
    let captured = fs::read(&file)?;
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
        holds!(count == 0, "{count} times")
    });
}

/// A server can link two sessions of a hidden host only by its key: without a disk it changes.
#[test]
fn a_hidden_host_that_keeps_nothing_comes_back_under_another_key_and_is_linked_again() {
    world("hidden-anew", |lab| {
        let hosts = vec![lab.host("stranger")?, lab.host("hidden")?];
        let mut network = lab.network_invited(hosts, &["--ephemeral"])?;
        network.signalling.restart_with_relay()?;
        network.members[1]
            .host
            .configure("[ice]\npolicy = \"relay\"\n")?;
        network.start_each()?;
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
            fs::remove_dir_all(host.state_dir())?;
            host.run("lcroute", &["join", &network.token, "--name", "hidden"])?
                .success()?;
            network.members[1].start()?;
        }
        holds!(keys[0] != keys[1], "{keys:?}")
    });
}

#[test]
fn without_the_policy_the_same_member_sees_the_same_host() {
    world("not-hidden", |lab| {
        let mut network = three(lab, |_| String::new())?;
        let (count, paths) = seen_by_stranger(&mut network)?;
        ensure!(paths == ["connected host", "connected host"], "{paths:?}");
        holds!(count > 300, "{count} times")
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
        network.start_each()?;
        let [hidden, _] = network.nodes()?;
        tells("no relay answers", || Ok(format!("{:?}", hidden.peers()?)))?;
        let status = hidden.host.run("lcroute", &["status"])?.stdout;
        ensure!(status.contains("no relay is known"), "{status}");
        let relay = crate::doctor::check(&hidden.host, "relay")?;
        ensure!(relay["state"] == "fail", "{relay}");
        hidden.host.ask("lcroute", &["meet"])?.says("policy")?;
        // it links once a relay exists, and stops hiding once the file changes
        network.signalling.restart_with_relay()?;
        network.wait_linked()?;
        let [hidden, stranger] = network.nodes()?;
        ensure!(path(stranger, hidden)? == "connected relay");
        hidden.host.reconfigure("")?;
        becomes("connected host", || path(stranger, hidden))
    });
}

/// Returns the number of a host's TCP packets with `allowed`, and all others, a line for each.
fn strays(host: &Host, file: &Path, allowed: &[Host]) -> Result<(usize, String)> {
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

/// ARP and neighbour discovery: packets of the kernel.
const OF_THE_KERNEL: &str = "arp or (icmp6 and ip6[40] >= 133 and ip6[40] <= 136)";
/// Group reports of the kernel, also about programs.
const REPORTS: &str = "igmp or ip6 dst host ff02::16";

fn read(host: &Host, file: &Path, filter: &str) -> Result<String> {
    let file = file.display().to_string();
    let read = host.run("tcpdump", &["-nn", "-t", "-vvv", "-r", &file, filter])?;
    Ok(read.success()?.stdout)
}

/// Returns all packets of a host except those to the server, the kernel's own, and group reports.
fn told_others(host: &Host, file: &Path, server: &Host) -> Result<String> {
    let server = format!("host {} and port 7117", server.v4()?);
    let to_server = read(host, file, &server)?;
    ensure!(!to_server.is_empty(), "nothing was captured");
    let others = format!("not ({OF_THE_KERNEL} or {REPORTS} or ({server}))");
    read(host, file, &others)
}

/// Returns reported groups other than those of addresses: a link learns programs' groups from them.
fn groups_told(host: &Host, file: &Path) -> Result<Vec<String>> {
    let reports = read(host, file, REPORTS)?;
    let groups = reports.split("[gaddr ").skip(1);
    let foreign = groups.filter(|group| !group.starts_with("ff02::1:ff"));
    Ok(foreign.map(str::to_owned).collect())
}

/// Starts a host behind a home router, which is to hide, and an open one; the server relays.
fn behind_a_router(lab: &Lab) -> Result<(Network, Host)> {
    let hosts = vec![lab.host("stranger")?, lab.host_behind_nat("hidden")?];
    let router = lab.find("hidden-nat").context("the router")?;
    let mut network = lab.network(hosts)?;
    network.signalling.restart_with_relay()?;
    Ok((network, router))
}

/// Returns a configuration with all carriers: LANs and router by default, folder, DHT, room.
fn outspoken(folder: &Path, stranger: &Host, ice: &str) -> Result<String> {
    let stranger = stranger.v4()?;
    let token = folder.with_file_name("matrix.token").display().to_string();
    let folder = folder.display();
    Ok(format!(
        "[signal]\nspool = \"{folder}\"\ndht = true\ndht_bootstrap = [\"{stranger}:6881\"]\n\
         [matrix]\nhomeserver = \"http://{stranger}:8008\"\nroom = \"!r:a.example\"\ntoken-file = \"{token}\"\n\
         [ice]\n{ice}\n"
    ))
}

/// Programs of a user that others would see, by their arguments.
fn of_user(folder: &str) -> Vec<Vec<&str>> {
    let words = "abandon-abandon-abandon-zoo";
    vec![
        vec!["lcroute", "guest", "--found", "--", "sleep", "1000"],
        vec!["lcroute", "guest", words, "--", "sleep", "1000"],
        vec!["lcsync", "send", folder],
        vec!["lcsync", "receive", words, folder],
    ]
}

/// Each program reads the host's file, which permits all, and the user's own.
#[test]
fn programs_of_a_user_heed_the_stricter_of_both_files() {
    guests("hidden-user", |lab| {
        let hosts = lab.lan(&["hidden", "stranger"])?;
        let hidden = &hosts[0];
        let home = hidden.path("home");
        let own = home.join(".config/lcroute");
        let share = home.join("share");
        for folder in [&own, &share] {
            fs::create_dir_all(folder)?;
        }
        let anybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(&share, anybody)?;
        fs::write(share.join("file"), b"content")?;
        let (home, share) = (home.display().to_string(), share.display().to_string());
        let home = format!("HOME={home}");
        let hides = "[ice]\npolicy = \"relay\"\n";
        let no_way = "[signal]\nlan = false\n";
        for (n, (text, code)) in [(hides, 4), (no_way, 2), ("", 0)].into_iter().enumerate() {
            fs::write(own.join("lcroute.toml"), text)?;
            for (m, program) in of_user(&share).iter().enumerate() {
                let file = format!("user-{n}-{m}.pcap");
                let (mut dump, file) = dump_at(hidden, LAN, &file, &["-Q", "out", "udp or tcp"])?;
                let env = format!("env -u LCROUTE_CONFIG -u XDG_CONFIG_HOME {home}");
                let env = crate::words(&env);
                let args = [&env[..], program].concat();
                let mut runs = hidden.spawn("setpriv", &as_nobody(&args))?;
                let seen = || read(hidden, &file, "udp or tcp");
                if code == 0 {
                    exceeds(0, || Ok(seen()?.len()))?;
                    continue;
                }
                let ended = runs.wait(PATIENCE)?;
                ensure!(ended == code, "{program:?}: {ended}: {}", runs.stderr());
                dump.stop()?;
                let seen = seen()?;
                ensure!(seen.is_empty(), "{program:?}: {seen}");
            }
        }
        let leaf = ["lcroute", "leaf", "ff3e::1", "--token", "-"];
        fs::write(own.join("lcroute.toml"), hides)?;
        let env = format!("env -u LCROUTE_CONFIG -u XDG_CONFIG_HOME {home}");
        let env = crate::words(&env);
        hidden
            .run("setpriv", &as_nobody(&[&env[..], &leaf].concat()))?
            .exits(4)
    });
}

/// Over the whole run of a daemon, with all carriers on, whatever it discloses.
#[test]
fn nothing_leaves_a_hidden_host_but_what_goes_to_its_server() {
    world("hidden-silent", |lab| {
        let (mut network, _) = behind_a_router(lab)?;
        network.members[0].start()?;
        let hidden = network.members[1].host.clone();
        let folder = hidden.path("spool");
        fs::create_dir(&folder)?;
        let stranger = network.members[0].host.clone();
        let stun = format!("stun = [\"{}:3478\"]", stranger.v4()?);
        let cases = ["disclose = [\"label:friend=yes\"]", &stun];
        for (n, more) in cases.into_iter().enumerate() {
            let ice = format!("policy = \"relay\"\n{more}");
            hidden.configure(&outspoken(&folder, &stranger, &ice)?)?;
            let (mut dump, file) = capture_sent(&hidden, &format!("sent{n}.pcap"))?;
            network.members[1].start()?;
            network.wait_linked()?;
            let by = path(&network.members[0], &network.members[1])?;
            ensure!(by == "connected relay", "{by}");
            let receiver = stranger.receive("ff1e::7", &[])?;
            network.members[1].wait_wanted("ff1e::7", &network.members[0])?;
            hidden.send("ff1e::7", 10, &[])?;
            receiver.expect_exactly(10)?;
            // an administrator's commands ask no other host either
            hidden.call("lcroute reload")?;
            hidden.ask("lcroute", &["doctor"])?;
            let leaf = ["leaf", "ff1e::7", "--token", &network.token];
            hidden.ask("lcroute", &leaf)?.says("policy")?;
            network.members[1].stop()?;
            dump.stop()?;
            let told = told_others(&hidden, &file, &network.signalling.host)?;
            ensure!(told.is_empty(), "{more}:\n{told}");
            let groups = groups_told(&hidden, &file)?;
            ensure!(groups.is_empty(), "{more}: {groups:?}");
            let files = fs::read_dir(&folder)?.count();
            ensure!(files == 0, "{files} files in the folder");
        }
        // control: without the policy the same host contacts the router and the LAN
        hidden.configure("")?;
        let (_dump, file) = capture_sent(&hidden, "open.pcap")?;
        network.members[1].start()?;
        eventually("the router and the LAN are spoken to", || {
            let told = told_others(&hidden, &file, &network.signalling.host)?;
            let lan = told.contains("224.0.0.251.5353");
            ensure!(told.contains("192.168.1.1.5351") && lan, "{told}");
            let groups = groups_told(&hidden, &file)?;
            holds!(!groups.is_empty(), "no report of the group of mDNS")
        })
    });
}

/// A router that maps ports by PCP, and prints the lifetimes.
const ROUTER: &str = r#"
import socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("192.168.1.1", 5351))
print("ready", flush=True)
while True:
    data, peer = s.recvfrom(2000)
    if len(data) < 60 or data[:2] != b"\x02\x01":
        continue
    lifetime = struct.unpack("!I", data[4:8])[0]
    print("mapped for", lifetime, flush=True)
    external = bytes(10) + b"\xff\xff" + socket.inet_aton("44.1.2.3")
    head = struct.pack("!BBBBII", 2, 0x81, 0, 0, lifetime, 1) + bytes(12)
    s.sendto(head + data[24:44] + external, peer)
"#;

#[test]
fn a_host_that_hides_from_now_on_takes_back_what_it_has_told() {
    world("hidden-reload", |lab| {
        let (mut network, router) = behind_a_router(lab)?;
        let hidden = network.members[1].host.clone();
        let server = network.signalling.host.clone();
        let folder = hidden.path("spool");
        fs::create_dir(&folder)?;
        let spool = format!("[signal]\nspool = \"{}\"\n", folder.display());
        let relay =
            format!("{spool}[ice]\npolicy = \"relay\"\ndisclose = [\"label:friend=yes\"]\n");
        let maps = router.spawn("python3", &["-c", ROUTER])?;
        let taken_back = || maps.stdout().matches("mapped for 0").count();
        hidden.configure(&spool)?;
        maps.prints("ready")?;
        let (mut dump, file) = capture_sent(&hidden, "open.pcap")?;
        network.start_each()?;
        network.wait_linked()?;
        let has_record = || -> Result<bool> { Ok(fs::read_dir(&folder)?.count() > 0) };
        let [stranger, member] = network.nodes()?;
        eventually("the router, the LAN and the folder know", || {
            let mapping = member.status()?["mapping"].clone();
            ensure!(mapping["by"] == "pcp", "{mapping}");
            ensure!(has_record()?, "no file in the folder");
            let told = told_others(&hidden, &file, &server)?;
            ensure!(told.contains("] TXT \"r0="), "{told}");
            let by = path(stranger, member)?;
            holds!(
                by == "connected host" || by == "connected mapped" || by == "connected reflexive",
                "{by}"
            )
        })?;
        hidden.reconfigure(&relay)?;
        eventually("all is taken back", || {
            ensure!(taken_back() == 1, "{}", maps.stdout());
            ensure!(!has_record()?, "a file in the folder");
            let told = told_others(&hidden, &file, &server)?;
            ensure!(told.contains("_lcroute._udp.local. [0s] PTR"), "{told}");
            let by = path(stranger, member)?;
            holds!(by == "connected relay", "{by}")
        })?;
        dump.stop()?;
        let (mut dump, file) = capture_sent(&hidden, "hidden.pcap")?;
        hidden.ip("addr add 192.168.1.3/24 dev eth0")?;
        hidden.call("lcroute reload")?;
        expect_carries(&[stranger, member])?;
        network.members[1].stop()?;
        dump.stop()?;
        let told = told_others(&hidden, &file, &server)?;
        ensure!(told.is_empty(), "{told}");

        // if the next image hides, this one deletes the mapping
        hidden.configure(&spool)?;
        network.members[1].start()?;
        let member = &network.members[1];
        becomes("pcp", || Ok(member.status()?["mapping"]["by"].clone()))?;
        hidden.configure(&relay)?;
        hidden.call("lcroute reload --exec")?;
        becomes(2, || Ok(taken_back()))
    });
}

/// Checks packets both ways through Tor, which stalls at times: some may be lost.
fn expect_passes(members: [&Member; 2]) -> Result<()> {
    let [a, b] = members;
    for (from, to) in [(a, b), (b, a)] {
        let receiver = from.known_receiver(to, "ff1e::7", &[])?;
        let args = ["ff1e::7", "--size", "1200", "--rate", "100", "--count"];
        let sender = from
            .host
            .spawn("mc-send", &[&args[..], &["100000"]].concat())?;
        within(PATIENCE, "300 packets pass", || {
            let packets = receiver.packets()?;
            holds!(packets >= 300, "{packets} packets")
        })?;
        drop(sender);
        receiver.expect_no_duplicates()?;
        drop(receiver);
        from.wait_unwanted("ff1e::7", to)?;
    }
    Ok(())
}

/// Waits until both are linked and show it; prints the time.
fn wait_link(hidden: &Member, stranger: &Member) -> Result<()> {
    let begun = Instant::now();
    within(PATIENCE, "a link through Tor is there", || {
        let paths = [path(hidden, stranger)?, path(stranger, hidden)?];
        let expected = ["connected tcp", "connected relay"];
        holds!(paths == expected, "{paths:?}: {:?}", hidden.status()?)
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
        network.start_each()?;
        let [stranger, hidden] = network.nodes()?;
        wait_link(hidden, stranger)?;
        expect_passes([hidden, stranger])?;
        let rtt = hidden.peers()?[0]["rtt_ms"].clone();
        println!("{}: round trip {rtt} ms", tor.version()?);
        let doctor = hidden.host.ask("lcroute", &["doctor"])?.stdout;
        ensure!(doctor.contains("TCP works"), "{doctor}");
        // without Tor the link ends, and no other path is tried
        client.kill()?;
        within(PATIENCE, "the link ends with Tor", || {
            let linked = hidden.linked_with()?;
            holds!(linked.is_empty(), "{linked:?}")
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
            let captured = fs::read(&file)?;
            ensure!(captured.len() > 300 * 1_200, "{} bytes", captured.len());
            let count = mentions(&captured, hidden)?;
            ensure!(count == 0, "{}: {count} times", file.display());
            for relay in &tor.relays {
                exits += mentions(&captured, relay)?;
            }
        }
        // the server exchanged packets with exits instead
        holds!(exits > 1_000, "{exits} times")
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
        // the hidden host's only server
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
        network.start_each()?;
        let [stranger, hidden] = network.nodes()?;
        wait_link(hidden, stranger)?;
        let relay = &hidden.status()?["relay"];
        ensure!(relay["url"] == url.as_str(), "{relay}");
        expect_passes([hidden, stranger])?;
        own.stop()?;
        let (to_tor, stray) = strays(&hidden.host, &file, &tor.relays)?;
        ensure!(stray.is_empty(), "{stray}");
        holds!(to_tor > 1_000, "{to_tor} packets")
    });
}
