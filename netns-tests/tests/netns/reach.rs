//! Nodes that find each other without a signalling server: on a LAN, by a folder, by text.

use lcroute_overlay::{PresenceRecord, Random, RendezvousEpochs};
use librecast::cert::Token;

use crate::prelude::*;
use crate::web::serve;

/// A host firewall that is closed but for multicast DNS, like Debian's ufw and the zones home and
/// internal of firewalld.
const MDNS_ONLY: &str = "table inet closed {
  counter refused { }
  chain input {
    type filter hook input priority 0; policy drop;
    iifname \"lo\" accept
    iifname \"lc0\" accept
    ct state established,related accept
    meta l4proto ipv6-icmp accept
    ip daddr 224.0.0.251 udp dport 5353 accept
    ip6 daddr ff02::fb udp dport 5353 accept
    counter name refused drop
  }
}";

/// Founds a network on the first host; the rest join by a token without a server.
pub(crate) fn members_without_server(hosts: Vec<Host>) -> Result<Vec<Member>> {
    let (founder, others) = hosts.split_first().context("hosts")?;
    let init = founder.run("lcroute", &["init", "--name", founder.name()])?;
    init.success()?;
    let token = founder.call("lcroute invite")?.stdout;
    for host in others {
        let joined = host.run("lcroute", &["join", token.trim(), "--name", host.name()])?;
        joined.success()?;
    }
    Ok(hosts.into_iter().map(Member::new).collect())
}

/// Returns the carriers of this member's links.
pub(crate) fn met_by(member: &Member) -> Result<Vec<String>> {
    let peers = member.peers()?.into_iter();
    let connected = peers.filter(|peer| peer["state"] == "connected");
    Ok(connected
        .map(|peer| peer["carrier"].as_str().unwrap_or("none").to_owned())
        .collect())
}

/// Whether it listens for multicast DNS.
fn looks_on_lans(member: &mut Member) -> Result<bool> {
    let sockets = open_sockets(member.daemon()?.pid())?;
    let port = format!(":{:04X}", 5_353);
    Ok(sockets.iter().any(|socket| socket.local.ends_with(&port)))
}

pub(crate) fn closed_lan(lab: &Lab, names: &[&str]) -> Result<Vec<Host>> {
    let hosts = lab.lan(names)?;
    hosts.iter().try_for_each(|host| host.nft(MDNS_ONLY))?;
    Ok(hosts)
}

#[test]
fn closed_hosts_of_a_lan_link_without_server_and_without_route() {
    world("reach-lan", |lab| {
        let mut hosts = closed_lan(lab, &["a", "b", "c", "stranger"])?;
        let stranger = hosts.split_off(3);
        let mut members = members_without_server(hosts)?;
        let mut strangers = members_without_server(stranger)?;
        for member in members.iter_mut().chain(&mut strangers) {
            member.start()?;
        }
        let began = Instant::now();
        for member in &members {
            member.wait_links(2)?;
        }
        println!(
            "linked {} ms after the last was ready",
            began.elapsed().as_millis()
        );
        for member in &members {
            ensure!(
                met_by(member)?.iter().any(|by| by == "lan"),
                "{:?}",
                member.peers()?
            );
        }
        let lan = json!([{ "kind": "lan", "at": LAN, "open": true }]);
        ensure!(members[0].status()?["doors"] == lan, "{lan}");
        members[0].reaches(&members[1], "ff1e::42", 100)?;
        // a killed node is found again after its restart; a stopped node is gone
        members[2].daemon()?.kill()?;
        members[0].wait_links(1)?;
        members[2].start()?;
        members[0].wait_links(2)?;
        members[2].stop()?;
        members[0].wait_links(1)?;
        strangers[0].wait_links(0)?;
        // another network's records are only counted
        exceeds(0, || strangers[0].counter("drops/presence_not_opened"))
    });
}

#[test]
fn a_lan_that_comes_later_is_used_and_one_that_goes_is_left() {
    world("reach-lan-later", |lab| {
        let hosts = closed_lan(lab, &["a", "b"])?;
        let mut members = members_without_server(hosts)?;
        members[1].host.ip(&format!("link set {LAN} down"))?;
        members.iter_mut().try_for_each(Member::start)?;
        members[0].wait_links(0)?;
        let up = format!("link set {LAN} up\naddr replace fd00:1::2/64 dev {LAN} nodad");
        members[1].host.ip(&up)?;
        members[0].wait_links(1)?;
        members[1].host.ip(&format!("link set {LAN} down"))?;
        members[0].wait_links(0)?;
        members[1].host.ip(&up)?;
        members[0].wait_links(1)
    });
}

#[test]
fn without_lan_nobody_is_looked_for_there() {
    world("reach-no-lan", |lab| {
        let hosts = closed_lan(lab, &["a", "b"])?;
        hosts[0].configure("[signal]\nlan = false\n")?;
        let mut members = members_without_server(hosts)?;
        members.iter_mut().try_for_each(Member::start)?;
        ensure!(!looks_on_lans(&mut members[0])?, "mDNS though it is off");
        eventually("the other one looks", || {
            holds!(looks_on_lans(&mut members[1])?, "not yet")
        })?;
        members[0].host.reconfigure("")?;
        members[0].wait_links(1)?;
        members[0].host.reconfigure("[signal]\nlan = false\n")?;
        becomes(false, || looks_on_lans(&mut members[0]))?;
        members[0].wait_links(1)
    });
}

/// Makes closed hosts that find each other by a folder, which does not exist yet.
fn with_a_spool(lab: &Lab, names: &[&str]) -> Result<(Vec<Host>, PathBuf)> {
    let hosts = lab.closed_hosts(names)?;
    let folder = hosts[0].path("spool");
    let shown = folder.display();
    crate::configure(
        &hosts,
        &format!("[signal]\nspool = \"{shown}\"\nlan = false\n"),
    )?;
    Ok((hosts, folder))
}

#[test]
fn hosts_that_share_a_folder_link_without_server() {
    world("reach-spool", |lab| {
        let (hosts, folder) = with_a_spool(lab, &["a", "b"])?;
        let mut members = members_without_server(hosts)?;
        members.iter_mut().try_for_each(Member::start)?;
        // the folder appears later, like a USB stick
        fs::create_dir(&folder)?;
        members[0].wait_links(1)?;
        for member in &members {
            ensure!(met_by(member)? == ["spool"], "{:?}", member.peers()?);
        }
        let shown = members[0]
            .host
            .ask("lcroute", &["status"])?
            .success()?
            .stdout;
        let line = format!("  found by  spool {}\n", folder.display());
        ensure!(shown.contains(&line), "{line} in {shown}");
        members[1].daemon()?.kill()?;
        members[0].wait_links(0)?;
        members[1].start()?;
        members[0].wait_links(1)
    });
}

/// In a shared folder that an expelled node still reads, with its old knowledge.
#[test]
fn an_expelled_node_finds_nobody_in_the_folder_and_who_was_away_comes_back() {
    world("reach-epoch", |lab| {
        let (mut hosts, folder) = with_a_spool(lab, &["a", "b", "c", "d", "e"])?;
        fs::create_dir(&folder)?;
        let late = hosts.pop().context("e")?;
        let mut members = members_without_server(hosts)?;
        members.iter_mut().try_for_each(Member::start)?;
        members[0].wait_links(3)?;
        members[2].daemon()?.kill()?;
        let expelled = members[3].peer_id()?;
        let revoked = members[0].host.run("lcroute", &["revoke", "d"])?;
        let told = revoked.success()?.stderr;
        ensure!(told.contains("by a new secret from now on"), "{told}");
        let epoch = |member: &Member| -> Result<Value> { Ok(member.status()?["epoch"].clone()) };
        for member in &members[..2] {
            becomes(1, || epoch(member))?;
        }

        // it forgets its expulsion, and restarts with its old state
        members[3].daemon()?.kill()?;
        let state = members[3].host.state_dir();
        for name in ["revocations", "epochs"] {
            match fs::remove_file(state.join(name)) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.into()),
                _ => {}
            }
        }
        members[3].start()?;
        eventually("it reads the records of a and b in vain", || {
            let status = members[3].status()?;
            let dropped = &status["counters"]["drops"]["presence_not_opened"];
            holds!(dropped.as_u64() >= Some(2), "{dropped}")
        })?;
        let away = members[2].host.name().to_owned();
        let tried = members[3].peers()?;
        let is_away = |peer: &Value| peer["name"].is_null() || peer["name"] == *away;
        ensure!(tried.len() <= 1 && tried.iter().all(is_away), "{tried:?}");

        // c's record is of epoch 0: a and b know that, and send it the expulsion before the secret
        members[2].start()?;
        let ids = [members[0].peer_id()?, members[1].peer_id()?];
        eventually("c is back, and d has found nobody", || {
            let linked = members[2].linked_with()?;
            ensure!(ids.iter().all(|id| linked.contains(id)), "{linked:?}");
            ensure!(!linked.contains(&expelled), "{linked:?}");
            holds!(epoch(&members[2])? == 1, "{}", epoch(&members[2])?)
        })?;
        ensure!(epoch(&members[3])? == 0, "{}", epoch(&members[3])?);
        ensure!(!state.join("epochs").exists(), "it was told a secret");
        let file = members[2].host.state_dir().join("epochs");
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(file)?.permissions());
        ensure!(mode & 0o777 == 0o600, "{mode:o}");

        // a new token leads a new member to the network, and all state outlives the daemons
        let token = members[0].host.call("lcroute invite")?;
        let joined = late.run("lcroute", &["join", token.stdout.trim(), "--name", "e"])?;
        joined.success()?;
        for member in &mut members[..3] {
            member.daemon()?.kill()?;
            member.start()?;
        }
        let mut late = Member::new(late);
        late.start()?;
        late.wait_links(3)?;
        ensure!(epoch(&late)? == 1, "{}", epoch(&late)?);
        holds!(epoch(&members[3])? == 0, "{}", epoch(&members[3])?)
    });
}

/// Strangers have such a token, and can read the folder.
#[test]
fn a_token_for_leaves_opens_no_record_and_who_was_away_comes_back() {
    world("reach-leaf-token", |lab| {
        let (hosts, folder) = with_a_spool(lab, &["a", "b", "c"])?;
        fs::create_dir(&folder)?;
        let mut members = members_without_server(hosts)?;
        members.iter_mut().try_for_each(Member::start)?;
        members[0].wait_links(2)?;
        let ids: Vec<_> = members.iter().map(Member::peer_id).collect::<Result<_>>()?;
        members[2].daemon()?.kill()?;

        let invite = ["invite", "--leaf", "--groups", "ff1e:5::/32", "--signal"];
        let invite = [&invite[..], &["ws://meet.example:7117"]].concat();
        let token = members[0].host.run("lcroute", &invite)?.success()?;
        token.says("by a new secret")?;
        let token: Token = token.stdout.trim().parse()?;
        ensure!(token.epoch.is_none(), "it has the secret");
        let stranger = RendezvousEpochs::new(token.network());
        let time = UnixTime::now();
        eventually(
            "a stranger opens the record of who is away, and no other",
            || {
                let mut opened = Vec::new();
                for file in fs::read_dir(&folder)? {
                    let record = stranger.open(&fs::read(file?.path())?, time);
                    opened.extend(record.map(|(record, _)| record.node.to_string()));
                }
                holds!(opened == ids[2..], "{opened:?}")
            },
        )?;

        // a leaf's own record causes no requests to its addresses
        let key = SecretKey::generate();
        let record = PresenceRecord {
            node: key.peer_id(),
            made: time.as_secs(),
            until: time.as_secs() + 3_600,
            candidates: Vec::new(),
        };
        let random = &mut Random::new([7; 32]);
        let sealed = stranger.newest().seal(&record, &key, random);
        fs::write(folder.join(format!("{}.lcroute", "0".repeat(64))), sealed)?;
        for member in &members[..2] {
            exceeds(0, || member.counter("drops/presence_unknown"))?;
        }

        // the next token makes no further secret
        members[0].host.run("lcroute", &invite)?.success()?;
        for member in &mut members[..2] {
            member.stop()?;
            member.start()?;
        }
        members[2].start()?;
        for member in &members {
            member.wait_links(2)?;
            becomes(1, || Ok(member.status()?["epoch"].clone()))?;
        }
        Ok(())
    });
}

#[test]
fn an_epoch_that_a_full_disk_lost_comes_again_with_the_next_link() {
    world("reach-epoch-full", |lab| {
        let (hosts, folder) = with_a_spool(lab, &["a", "b"])?;
        fs::create_dir(&folder)?;
        let mut members = members_without_server(hosts)?;
        // b's state on a disk of its own, which is full
        let host = &members[1].host;
        let (state, copy) = (host.state_dir(), host.path("copy"));
        let (state_arg, copy_arg) = (state.display().to_string(), copy.display().to_string());
        host.run("cp", &["-a", &state_arg, &copy_arg])?.success()?;
        let mount = ["-t", "tmpfs", "-o", "size=64k,mode=700", "none", &state_arg];
        host.run("mount", &mount)?.success()?;
        let all = format!("{copy_arg}/.");
        host.run("cp", &["-a", &all, &state_arg])?.success()?;
        members.iter_mut().try_for_each(Member::start)?;
        members[0].wait_links(1)?;
        let fill = "head -c 100000 /dev/zero > fill";
        let filled = members[1].host.sh(&format!("cd {state_arg} && {fill}"))?;
        ensure!(filled.code != 0, "the disk is not full");

        let stranger = SecretKey::generate().peer_id().to_string();
        let revoked = members[0].host.run("lcroute", &["revoke", &stranger])?;
        revoked.success()?;
        let knows = |member: &Member| becomes(1, || Ok(member.status()?["epoch"].clone()));
        knows(&members[1])?;
        members[1].daemon()?.says("not kept, tried again in")?;
        ensure!(!state.join("epochs").exists(), "there was room");

        // it starts with the old epoch, in which a searches as well
        members[1].daemon()?.kill()?;
        members[0].wait_links(0)?;
        members[1].start()?;
        members[0].wait_links(1)?;
        knows(&members[1])?;
        members[1].daemon()?.kill()?;
        members[0].wait_links(0)?;
        fs::remove_file(state.join("fill"))?;
        members[1].start()?;
        exceeds(0, || Ok(fs::read_to_string(state.join("epochs"))?.len()))
    });
}

/// Waits for a line of `lcroute up` with this first word; returns the rest.
pub(crate) fn said(process: &Process, word: &str) -> Result<String> {
    let mut found = String::new();
    eventually(&format!("`up` says {word}"), || {
        let stdout = process.stdout();
        let line = stdout.lines().find_map(|line| line.strip_prefix(word));
        found = line.context("not yet")?.trim().to_owned();
        Ok(())
    })?;
    Ok(found)
}

#[test]
fn one_command_is_enough_on_each_host() {
    world("reach-up", |lab| {
        let hosts = closed_lan(lab, &["a", "b"])?;
        let mut a = hosts[0].spawn("lcroute", &["up", "--name", "a"])?;
        let token = said(&a, "token ")?;
        let mut b = hosts[1].spawn("lcroute", &["up", &token, "--name", "b"])?;
        ensure!(said(&b, "linked ")?.starts_with("a ("), "{}", b.stdout());
        ensure!(!b.stdout().contains("token "), "b may not invite");
        let (_pages, address) = serve(&hosts[0])?;
        let again = hosts[0].call("lcroute up --json")?;
        let again: Value = serde_json::from_str(&again.stdout)?;
        ensure!(again["linked"] == json!(["b"]), "{again}");
        ensure!(again["pages"] == address, "{again}, {address}");
        let down = hosts[1].call("lcroute down")?;
        down.says("still a member")?;
        b.expect_exit(DEADLINE, 0)?;
        hosts[1].call("lcroute down")?;
        // a member without a reachable network
        a.stop()?;
        let lonely = hosts[1].spawn("lcroute", &["up", "--timeout", "2s"])?;
        eventually("it says what is missing", || {
            let stderr = lonely.stderr();
            let names = ["no signalling server answers", "on a LAN", "lcroute meet"];
            holds!(names.iter().all(|name| stderr.contains(name)), "{stderr}")
        })?;
        // and links once another member starts
        let again = hosts[0].spawn("lcroute", &["up"])?;
        Member::new(hosts[1].clone()).wait_links(1)?;
        // with a log as its standard output, a later start prints no token
        said(&again, "linked ")?;
        again.says("lcroute invite")?;
        holds!(!again.stdout().contains("token "), "{}", again.stdout())
    });
}

/// As in a container without a token, with its standard output as the log.
#[test]
fn a_founder_that_is_told_so_prints_no_token() {
    world("reach-no-token", |lab| {
        let host = lab.host("a")?;
        let args = ["LCROUTE_NO_TOKEN=1", "lcroute", "up", "--name", "a"];
        let up = host.spawn("env", &args)?;
        up.says("lcroute invite")?;
        ensure!(!said(&up, "address ")?.is_empty());
        ensure!(!up.stdout().contains("token "), "{}", up.stdout());
        holds!(!up.stderr().contains("lct1"), "{}", up.stderr())
    });
}

#[test]
fn a_host_without_a_hand_on_it_joins_by_its_environment_and_starts_so_again() {
    world("reach-environment", |lab| {
        let hosts = closed_lan(lab, &["a", "b"])?;
        let a = hosts[0].spawn("lcroute", &["up", "--name", "a"])?;
        let token = said(&a, "token ")?;
        let file = hosts[1].write("token", format!("{token}\n"))?;
        let file = format!("LCROUTE_TOKEN_FILE={}", file.display());
        fn env<'a>(settings: &[&'a str]) -> Vec<&'a str> {
            [settings, &["lcroute", "up"]].concat()
        }
        let both = format!("LCROUTE_TOKEN={token}");
        hosts[1]
            .run("env", &env(&[&file, &both]))?
            .fails(2, "both set")?;
        hosts[1]
            .run("env", &env(&["LCROUTE_TOKEN=lct1nonsense"]))?
            .fails(2, "LCROUTE_TOKEN")?;
        hosts[1]
            .run("env", &env(&["LCROUTE_TOKEN_FILE=/nowhere"]))?
            .fails(1, "/nowhere")?;

        let started = [&*file, "LCROUTE_NAME=beta", "LCROUTE_TOKEN="];
        let id = || Member::new(hosts[1].clone()).peer_id();
        let mut b = hosts[1].spawn("env", &env(&started))?;
        ensure!(said(&b, "linked ")?.starts_with("a ("), "{}", b.stdout());
        ensure!(said(&b, "name ")? == "beta", "{}", b.stdout());
        let first = id()?;
        b.stop()?;
        let again = hosts[1].spawn("env", &env(&started))?;
        said(&again, "linked ")?;
        ensure!(id()? == first, "another key");
        // a token of another network does not remove a member from its own
        let other = hosts[0].run("lcroute", &["--state-dir", "other", "init", "--name", "c"]);
        other?.success()?;
        let other = hosts[0].run("lcroute", &["--state-dir", "other", "invite"])?;
        let other = format!("LCROUTE_TOKEN={}", other.success()?.stdout.trim());
        let refused = hosts[1].run("env", &env(&[&other]))?;
        let told = refused.stderr.contains("another network already");
        holds!(refused.code == 1 && told, "{refused:?}")
    });
}

/// Returns a text as mail changes it: quoted, with words around it, and other line ends.
fn mangled(text: &str) -> String {
    let quoted: String = text
        .lines()
        .map(|line| format!("> > {line} \r\n"))
        .collect();
    format!("From: b\r\n\r\nHi,\r\nyou wrote:\r\n{quoted}\r\n-- \r\nb\r\n")
}

#[test]
fn two_closed_hosts_link_by_pasted_texts() {
    world("reach-text", |lab| {
        let mut members = members_without_server(lab.closed_hosts(&["a", "b"])?)?;
        members.iter_mut().try_for_each(Member::start)?;
        let text = |host: &Host| -> Result<String> { Ok(host.call("lcroute meet")?.stdout) };
        let (of_a, of_b) = (text(&members[0].host)?, text(&members[1].host)?);
        let take = |host: &Host, text: &str| {
            let file = host.write("text", text)?;
            host.run("lcroute", &["meet", "--with", &file.to_string_lossy()])
        };
        // a text that lacks one character, and a node's own text
        let at = of_a.find("LCR1:").context("a line")? + 40;
        take(&members[1].host, &[&of_a[..at], &of_a[at + 1..]].concat())?.exits(2)?;
        let refused = take(&members[0].host, &of_a)?;
        let own = refused.stderr.contains("own");
        ensure!(refused.code == 1 && own, "{refused:?}");

        let taken = take(&members[1].host, &mangled(&of_a))?.success()?.stdout;
        ensure!(taken.contains("is looked for until"), "{taken}");
        members[0].wait_links(0)?;
        // daemons restart before the second text: both keep their records
        for member in &mut members {
            member.daemon()?.kill()?;
            member.start()?;
        }
        take(&members[0].host, &mangled(&of_b))?.success()?;
        members[0].wait_links(1)?;
        for member in &members {
            ensure!(met_by(member)? == ["text"], "{:?}", member.peers()?);
        }
        Ok(())
    });
}

#[test]
fn a_proxy_leads_to_the_signalling_server_and_looks_up_its_name() {
    world("reach-socks", |lab| {
        let mut network = lab.network(lab.closed_hosts(&["a", "b"])?)?;
        let proxy = lab.host("proxy")?;
        let url = network.signalling.url()?;
        // only the proxy resolves this name
        let server = url.trim_start_matches("ws://").trim_end_matches(":7117");
        let hosts = proxy.write("hosts", format!("{server} meet.onion\n"))?;
        let mount = format!(
            "mount --bind {} /etc/hosts && exec microsocks",
            hosts.display()
        );
        let _proxy = proxy.spawn("unshare", &["-m", "sh", "-c", &mount])?;
        for member in &mut network.members {
            let address = proxy.v4()?;
            member.host.configure(&format!(
                "[signal]\nsocks = \"{address}:1080\"\nservers = [\"ws://meet.onion:7117\"]\n"
            ))?;
            member.run_args.clear();
            // it can reach the proxy and the other member, and not the server
            member.host.cut_towards(server.parse()?)?;
            member.start()?;
        }
        network.members[0].wait_links(1)?;
        for member in &network.members {
            ensure!(met_by(member)? == ["server"], "{:?}", member.peers()?);
        }
        Ok(())
    });
}

#[test]
fn of_many_signalling_servers_members_use_the_same_three_and_others_when_those_go() {
    world("reach-servers", |lab| {
        let meeting = lab.host("meeting")?;
        let at = meeting.v4()?;
        let ports = 7001..7006;
        let serve = |port| -> Result<(u16, Process)> {
            let listen = format!("0.0.0.0:{port}");
            Ok((
                port,
                meeting.spawn("lcroute", &["signal", "--no-relay", "--listen", &listen])?,
            ))
        };
        let mut servers = ports.clone().map(serve).collect::<Result<Vec<_>>>()?;
        let hosts = lab.closed_hosts(&["a", "b", "c"])?;
        for (n, host) in hosts.iter().enumerate() {
            let mut urls: Vec<_> = ports
                .clone()
                .map(|port| format!("ws://{at}:{port}"))
                .collect();
            // each has them in another order
            urls.rotate_left(n);
            host.configure(&format!("[signal]\nlan = false\nservers = {urls:?}\n"))?;
        }
        let mut members = members_without_server(hosts)?;
        let used = |member: &Member| -> Result<Vec<u16>> {
            let args = ["-Htn", "state", "established", "dst", &at.to_string()];
            let shown = member.host.run("ss", &args)?.success()?.stdout;
            let peer = shown
                .lines()
                .filter_map(|line| line.split_whitespace().nth(3));
            let mut ports: Vec<u16> = peer
                .filter_map(|p| p.rsplit_once(':')?.1.parse().ok())
                .collect();
            ports.sort_unstable();
            Ok(ports)
        };
        members[..2].iter_mut().try_for_each(Member::start)?;
        members[0].wait_links(1)?;
        let mut first = Vec::new();
        eventually("both use three", || {
            first = used(&members[0])?;
            holds!(first.len() == 3 && used(&members[1])? == first, "{first:?}")
        })?;
        for (_, server) in servers.iter_mut().filter(|(port, _)| first.contains(port)) {
            server.kill()?;
        }
        eventually("the other two are used", || {
            let now = used(&members[0])?;
            holds!(now.len() == 2 && used(&members[1])? == now, "{now:?}")
        })?;
        members[2].start()?;
        members[2].wait_links(2)
    });
}

/// Returns a configuration by which nodes find each other in a DHT alone.
pub(crate) fn by_a_dht(enters: &str) -> String {
    format!("[signal]\nlan = false\ndht = true\ndht_bootstrap = [\"{enters}\"]\n")
}

/// Starts nodes of a DHT on a host of their own; returns the address of the first.
pub(crate) fn swarm(lab: &Lab) -> Result<(Process, String)> {
    let host = lab.host("swarm")?;
    let address = host.v4()?.to_string();
    let nodes = host.spawn("dht-swarm", &["--address", &address])?;
    nodes.prints("nodes")?;
    Ok((nodes, format!("{address}:6881")))
}

/// Returns a node's state of its DHT: whether it is open, and the note.
fn dht_of(member: &Member) -> Result<(bool, String)> {
    let status = member.status()?;
    let doors = status["doors"].as_array().context("doors")?;
    let door = doors.iter().find(|door| door["kind"] == "dht");
    let door = door.context("no DHT")?;
    let note = door["note"].as_str().unwrap_or_default();
    Ok((door["open"] == true, note.to_owned()))
}

fn reach_programs(members: &[Member]) -> Result<Vec<Process>> {
    let programs = members.iter();
    programs
        .map(|member| member.host.spawn("lcroute-reach", &[]))
        .collect()
}

#[test]
fn two_closed_hosts_that_share_a_token_link_by_a_dht() {
    world("reach-dht", |lab| {
        let (_swarm, enters) = swarm(lab)?;
        let hosts = lab.configured_hosts(&["a", "b"], &by_a_dht(&enters))?;
        let mut members = members_without_server(hosts)?;
        members.iter_mut().try_for_each(Member::start)?;
        let (open, note) = dht_of(&members[0])?;
        ensure!(!open && note.contains("does not run"), "{note}");
        let began = Instant::now();
        let mut programs = reach_programs(&members)?;
        members[0].wait_links(1)?;
        println!("linked after {} ms", began.elapsed().as_millis());
        for member in &members {
            ensure!(met_by(member)? == ["dht"], "{:?}", member.peers()?);
        }
        let shown = members[1].host.ask("lcroute", &["status"])?.success()?;
        let line = "  found by  dht (";
        ensure!(shown.stdout.contains(line), "{line} in {}", shown.stdout);

        // a second program is refused; the first continues
        let second = members[0].host.run("lcroute-reach", &[])?;
        let why = second.stderr.contains("another lcroute-reach");
        ensure!(second.code == 1 && why, "{second:?}");
        // a dead program is reported, and costs no link; the daemon refuses another's nonsense
        programs[0].kill()?;
        eventually("the daemon misses it", || {
            let (open, note) = dht_of(&members[0])?;
            holds!(!open && note.contains("does not run"), "{note}")
        })?;
        let socket = members[0].host.path("run/reach.sock");
        let nonsense = format!(
            "import socket; s = socket.socket(socket.AF_UNIX); s.connect({socket:?}); s.recv(9)\n\
             try:\n  s.sendall(b'x' * 100000); s.recv(1)\nexcept OSError: pass"
        );
        let sent = members[0].host.run("python3", &["-c", &nonsense])?;
        sent.success()?;
        programs[0] = members[0].host.spawn("lcroute-reach", &[])?;
        eventually("the daemon has another", || {
            let (open, note) = dht_of(&members[0])?;
            holds!(open && note.contains("2 records held"), "{note}")
        })?;
        members[0].wait_links(1)?;

        // switched off at run time: the program stays connected, and stores no more records
        members[0].host.reconfigure("[signal]\nlan = false\n")?;
        ensure!(dht_of(&members[0]).is_err(), "still on");
        members[0].wait_links(1)
    });
}

/// Nodes of the DHT are the only ones that see the NATs' outer addresses.
#[test]
fn two_hosts_behind_nats_that_keep_ports_link_by_a_dht_alone() {
    world("reach-dht-nat", |lab| {
        let (_swarm, enters) = swarm(lab)?;
        let hosts = [lab.host_behind_nat("a")?, lab.host_behind_nat("b")?];
        crate::configure(&hosts, &by_a_dht(&enters))?;
        let mut members = members_without_server(hosts.into())?;
        members.iter_mut().try_for_each(Member::start)?;
        let began = Instant::now();
        let _programs = reach_programs(&members)?;
        members[0].wait_links(1)?;
        println!("linked after {} ms", began.elapsed().as_millis());
        let peers = members[0].peers()?;
        ensure!(peers[0]["path"] == "reflexive", "{peers:?}");
        members[0].reaches(&members[1], "ff1e::42", 100)
    });
}
