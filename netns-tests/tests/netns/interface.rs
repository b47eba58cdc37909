//! `lc0` as programs see it: TUN and TAP, MLD watchers, names, capabilities.

use crate::prelude::*;

#[test]
fn an_mld_watcher_on_a_raw_socket_sees_a_remote_join_and_part() {
    world("mld-raw", |lab| watcher_sees_join_and_part(lab, "tap", &[]));
    world("mld-raw-tun", |lab| {
        watcher_sees_join_and_part(lab, "tun", &[])
    });
}

#[test]
fn an_mld_watcher_that_sniffs_ethernet_frames_sees_a_remote_join_and_part() {
    world("mld-packet", |lab| {
        watcher_sees_join_and_part(lab, "tap", &["--packet"])
    });
}

#[test]
fn a_node_in_tap_mode_and_one_in_tun_mode_understand_each_other() {
    world("tap", |lab| {
        let network = network_with_mode(lab, "tun")?;
        let [a, b] = network.nodes()?;
        ensure!(link_kind(&a.host)? == ("tun".to_owned(), true));
        ensure!(link_kind(&b.host)? == ("tap".to_owned(), true));
        let (at_a, at_b) = (
            a.host.receive("ff1e::a", &[])?,
            b.host.receive("ff1e::b", &[])?,
        );
        a.wait_wanted("ff1e::b", b)?;
        b.wait_wanted("ff1e::a", a)?;
        a.host.send("ff1e::b", 200, &[])?;
        b.host.send("ff1e::a", 200, &["--size", "3000"])?;
        at_b.expect_exactly(200)?;
        at_a.expect_exactly(200)
    });
}

#[test]
fn lc0_has_the_address_that_status_shows_and_one_link_local() {
    with_members("addresses", ["a", "b"], |_, [a, _]| {
        let shown = a.host.call("ip -j -6 addr show dev lc0")?;
        let shown: Value = serde_json::from_str(&shown.stdout)?;
        let addresses = shown[0]["addr_info"].as_array().context("addr_info")?;
        let mut found: Vec<&str> = addresses
            .iter()
            .filter_map(|address| address["local"].as_str())
            .collect();
        found.sort_unstable();
        let address = a.address()?;
        let [_, _, _, _, e, f, g, h] = address.segments();
        let link_local = std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, e, f, g, h).to_string();
        let mut expected = [address.to_string(), link_local];
        expected.sort_unstable();
        holds!(found == expected, "{found:?}, expected {expected:?}")
    });
}

#[test]
fn a_host_firewall_that_drops_what_arrives_on_lc0_is_noticed_and_the_rule_shown() {
    with_members("inbound", ["a", "b"], |_, [a, _]| {
        wait_inbound(a, "open")?;
        a.host.close_everywhere()?;
        a.host.call("lcroute reload")?;
        wait_inbound(a, "blocked")?;
        let shown = a.host.call("lcroute status")?.stdout;
        holds!(shown.contains("iifname \"lc0\""), "no rule: {shown}")
    });
}

fn wait_inbound(member: &Member, verdict: &str) -> Result<()> {
    becomes(verdict, || Ok(member.status()?["inbound"].clone()))
}

#[test]
fn a_taken_interface_name_is_said_and_the_interface_left_alone() {
    world("taken", |lab| {
        let host = lab.host("a")?;
        host.ip("link add lc0 type veth peer name other")?;
        host.call("lcroute init")?;
        let refused = host.run("lcroute", &["run"])?;
        refused.exits(1)?;
        refused.says("lc0")?;
        holds!(host.has_interface("lc0"), "a foreign interface was removed")
    });
}

#[test]
fn another_name_for_the_interface_works() {
    world("name", |lab| {
        let mut network = lab.network(lab.closed_hosts(&["a", "b"])?)?;
        network.members[0]
            .run_args
            .extend(["--tun".to_owned(), "mc7".to_owned()]);
        network.start()?;
        let [a, b] = network.nodes()?;
        ensure!(a.host.has_interface("mc7") && !a.host.has_interface("lc0"));
        ensure!(a.status()?["tun"] == "mc7", "{}", a.status()?);
        a.reaches(b, "ff1e::42", 50)
    });
}

#[test]
fn without_the_capability_it_says_which_one_is_missing() {
    world("capability", |lab| {
        let host = lab.host("a")?;
        host.call("lcroute init")?;
        let program = crate::PROGRAM;
        let drop = format!("--bounding-set=-net_admin --inh-caps=-all {program} lcroute run");
        let drop = crate::words(&drop);
        host.run("setpriv", &drop)?.fails(4, "CAP_NET_ADMIN")
    });
}

#[test]
fn programs_that_name_no_interface_keep_their_lan_for_other_groups() {
    with_members("routes", ["a", "b"], |_, [a, _]| {
        for (group, expected) in [
            ("ff1e::1", "lc0"),
            ("ff08::1", "lc0"),
            ("ff18::1", "lc0"),
            ("ff38::1", "lc0"),
            ("ff0e::1", "lc0"),
            ("ff3e::1", "lc0"),
            ("ff02::1234", "eth0"),
            ("ff05::1234", "eth0"),
        ] {
            let route = a.host.call(&format!("ip -6 route get {group}"))?.stdout;
            ensure!(
                route.contains(&format!("dev {expected} ")),
                "{group}: {route}"
            );
        }
        Ok(())
    });
}

/// Returns tcpdump's output on lc0 for three datagrams, with one to another port between.
fn captured(lab: &Lab, mode: &str) -> Result<String> {
    let network = network_with_mode(lab, mode)?;
    let [a, b] = network.nodes()?;
    let wanted = a.host.receive("ff1e::42", &[])?;
    let _other = b.known_receiver(a, "ff1e::42", &["--port", "6000"])?;
    let args = "-i lc0 -n -l --immediate-mode -c 3 udp and dst port 5001 and ip6 dst ff1e::42";
    let dump = a
        .host
        .spawn("tcpdump", &args.split(' ').collect::<Vec<_>>())?;
    dump.says("listening on lc0")?;
    for port in ["5001", "6000", "5001", "5001"] {
        b.host.send("ff1e::42", 1, &["--port", port])?;
    }
    wanted.expect(3)?;
    let done = dump.output()?;
    ensure!(done.code == 0, "{}", done.stderr);
    Ok(done.stdout)
}

#[test]
fn tcpdump_shows_and_filters_what_passes_in_both_modes() {
    for mode in ["tap", "tun"] {
        world(&format!("tcpdump-{mode}"), |lab| {
            let shown = captured(lab, mode)?;
            let good = |line: &&str| line.contains("> ff1e::42.5001: UDP, length");
            ensure!(shown.lines().filter(good).count() == 3, "{shown}");
            holds!(shown.lines().count() == 3, "{shown}")
        });
    }
}

#[test]
fn each_lc0_has_an_ethernet_address_of_its_own_and_is_in_no_bridge() {
    world("mac", |lab| {
        let mut network = lab.closed_network(["a", "b"])?;
        let mac = |member: &Member| -> Result<String> {
            let shown = member
                .host
                .run("ip", &["-j", "link", "show", "dev", "lc0"])?;
            let shown: Value = serde_json::from_str(&shown.success()?.stdout)?;
            ensure!(shown[0]["link_type"] == "ether", "{shown}");
            let flags = shown[0]["flags"].as_array().context("flags")?;
            let has = |flag: &str| flags.iter().any(|f| f == flag);
            ensure!(
                has("NOARP") && has("MULTICAST") && has("BROADCAST"),
                "{shown}"
            );
            ensure!(
                shown[0]["master"].is_null(),
                "a port of {}",
                shown[0]["master"]
            );
            Ok(shown[0]["address"].as_str().context("address")?.to_owned())
        };
        let [a, b] = network.nodes()?;
        let (at_a, at_b) = (mac(a)?, mac(b)?);
        ensure!(at_a != at_b && at_a.starts_with("02:"), "{at_a}, {at_b}");
        a.host
            .ip("link add br0 type bridge\nlink set br0 up\nlink set lc0 master br0")?;
        eventually("it is taken out of the bridge", || mac(a))?;
        let log = network.members[0].daemon()?.stderr();
        ensure!(log.contains("made a port of a bridge"), "{log}");
        network.wait_linked()
    });
}

#[test]
fn among_friends_udp_to_all_nodes_is_carried_and_unicast_as_far_as_a_rule_lets_it() {
    world("all-nodes", |lab| {
        let mut network =
            lab.network(lab.configured_hosts(&["a", "b"], "[network]\nprofile = \"lan\"\n")?)?;
        network.start()?;
        let [a, b] = network.nodes()?;
        let lc0 = ["--interface", "lc0"];
        let receiver = a.known_receiver(b, "ff02::1", &lc0)?;
        a.host.send("ff02::1", 50, &lc0)?;
        receiver.expect_exactly(50)?;
        let pinged = a.host.run("ping", &["-c2", "-W2", "ff02::1%lc0"])?;
        let [_, _, _, _, e, f, g, h] = b.address()?.segments();
        let other = std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, e, f, g, h).to_string();
        ensure!(!pinged.stdout.contains(&other), "{}", pinged.stdout);
        // unicast is carried
        let at_b = b.address()?.to_string();
        let pinged = a.host.run("ping", &["-c2", "-W5", &at_b])?;
        pinged.success()?;

        let _servers = [22, 2222].map(|port| {
            let listen = format!("TCP6-LISTEN:{port},reuseaddr,fork");
            b.host.spawn("socat", &[&listen, "EXEC:echo open"])
        });
        let connect = |port: u16| -> Result<bool> {
            let to = format!("TCP6:[{at_b}]:{port},connect-timeout=2");
            let answer = a.host.run("socat", &["-u", &to, "STDOUT"])?;
            Ok(answer.stdout == "open\n")
        };
        eventually("both ports are open", || {
            holds!(connect(22)? && connect(2222)?, "one is not")
        })?;
        // the rule of doctor, with the lab's names of table and chain
        let shown = b.host.run("lcroute", &["doctor"])?.stdout;
        let mut lines = shown.lines();
        let rule = lines.find_map(|line| line.split_once("only these ports: nft "));
        let (_, rule) = rule.with_context(|| shown.clone())?;
        b.host
            .nft(&rule.replace("inet filter input", "inet closed input"))?;
        ensure!(connect(22)? && !connect(2222)?, "{rule}");
        a.reaches(b, "ff1e::42", 50)
    });
}

#[test]
fn addresses_of_other_programs_on_lc0_are_left_alone() {
    world("vip", |lab| {
        let mut network = lab.closed_network(["a", "b"])?;
        let others = ["fe80::5e:1/64", "fd00:7e57::5/64"];
        let host = network.members[0].host.clone();
        let has = || -> Result<()> {
            let shown = host.call("ip -6 addr show dev lc0")?;
            for other in others {
                shown.prints(other)?;
            }
            Ok(())
        };
        for other in others {
            host.ip(&format!("addr add {other} dev lc0 nodad"))?;
        }
        // the daemon checks lc0 after a change, and again after a removal
        host.ip("link set lc0 txqueuelen 77")?;
        eventually("the daemon has repaired its own", || {
            host.call("ip link show dev lc0")?.prints("qlen 10000")
        })?;
        has()?;
        network.members[0].daemon()?.kill()?;
        network.members[0].start()?;
        has()
    });
}

/// Starts two closed nodes; the first one's `lc0` has the given mode, the second one's is a TAP.
fn network_with_mode(lab: &Lab, mode: &str) -> Result<Network> {
    let hosts = lab.closed_hosts(&["a", "b"])?;
    hosts[0].configure(&format!("[tun]\nmode = \"{mode}\"\n"))?;
    let mut network = lab.network(hosts)?;
    network.start()?;
    Ok(network)
}

fn watcher_sees_join_and_part(lab: &Lab, mode: &str, watcher: &[&str]) -> Result<()> {
    let network = network_with_mode(lab, mode)?;
    let [a, b] = network.nodes()?;
    let watch = a.host.watch_mld(watcher)?;
    let mut receiver = b.host.receive("ff1e::42", &[])?;
    exceeds(0, || watch.seen("JOIN", "ff1e::42"))?;
    ensure!(watch.seen("PART", "ff1e::42")? == 0);
    receiver.process().kill()?;
    exceeds(0, || watch.seen("PART", "ff1e::42"))
}

/// Returns `tun` or `tap`, and whether it is persistent.
fn link_kind(host: &Host) -> Result<(String, bool)> {
    let shown = host.call("ip -j -d link show dev lc0")?;
    let shown: Value = serde_json::from_str(&shown.stdout)?;
    let data = &shown[0]["linkinfo"]["info_data"];
    let kind = data["type"]
        .as_str()
        .with_context(|| format!("no tun type in {shown}"))?;
    Ok((kind.to_owned(), data["persist"] == true))
}

/// Two nodes of one network on a host; the second has the interface `lc1`.
#[test]
fn a_second_node_on_a_host_carries_what_names_its_interface() {
    with_members("second-node", ["a", "b"], |network, [a, b]| {
        let url = network.signalling.url()?;
        let invited = a.host.run("lcroute", &["invite", "--signal", &url])?;
        let token = invited.success()?.stdout;
        let (state, control) = (b.host.path("second"), b.host.path("second.sock"));
        let place = [
            "--state-dir",
            state.to_str().context("path")?,
            "--control",
            control.to_str().context("path")?,
        ];
        let of_second = |verb: &[&'static str]| -> Vec<&str> {
            let verb = verb.iter().copied();
            verb.chain(place).collect()
        };
        let join = [&["join", token.trim(), "--name", "second"][..], &place].concat();
        b.host.run("lcroute", &join)?.success()?;
        let mut daemon = b
            .host
            .spawn("lcroute", &of_second(&["run", "--tun", "lc1"]))?;
        let status = || -> Result<Value> {
            let done = b.host.run("lcroute", &of_second(&["status", "--json"]))?;
            Ok(serde_json::from_str(&done.success()?.stdout)?)
        };
        eventually("the second node has both links", || {
            daemon.must_run()?;
            let status = status()?;
            holds!(
                status["peers"] == 2 && status["inbound"] == "open",
                "{status}"
            )
        })?;
        let receiver = b.known_receiver(a, "ff1e::42", &[])?;
        // programs that name no interface use that of the lower number, in any start order
        a.host.send("ff1e::99", 1, &[])?;
        b.host.send("ff1e::42", 50, &[])?;
        receiver.expect_exactly(50)?;
        let before = b.counter("tun_rx_packets")?;
        b.host.send("ff1e::42", 50, &["--interface", "lc1"])?;
        receiver.expect_exactly(100)?;
        ensure!(b.counter("tun_rx_packets")? < before + 50);
        let done = b.host.ask("lcroute", &of_second(&["doctor", "--json"]))?;
        let checks: Value = serde_json::from_str(&done.stdout)?;
        let checks = checks["checks"].as_array().context("checks")?;
        let routes = checks.iter().find(|check| check["name"] == "routes");
        let routes = routes.context("routes")?;
        holds!(
            routes["state"] == "ok" && routes["detail"].to_string().contains("lc0"),
            "{routes}"
        )
    });
}

#[test]
fn a_second_address_on_lc0_does_not_change_what_programs_send_from() {
    with_members("second-address", ["a", "b"], |_, [a, b]| {
        let own = b.address()?.to_string();
        let receiver = a.host.receive("ff1e::42", &[])?;
        let named = a.host.receive("ff15::42", &["--interface", "lc0"])?;
        b.wait_wanted("ff1e::42", a)?;
        b.wait_wanted("ff15::42", a)?;
        b.host.ip("addr add fd99::1/128 dev lc0 nodad")?;
        b.host.ip("addr add 2001:db8:99::1/64 dev lc0 nodad")?;
        let source = |group: &str| -> Result<String> {
            let done = b
                .host
                .run("ip", &["-j", "-6", "route", "get", group, "oif", "lc0"])?;
            let shown: Value = serde_json::from_str(&done.success()?.stdout)?;
            Ok(shown[0]["prefsrc"].as_str().context("prefsrc")?.to_owned())
        };
        for group in ["ff1e::42", "ff15::42", "ff05::1"] {
            ensure!(source(group)? == own, "{group} from {}", source(group)?);
        }
        ensure!(
            source("ff02::42")?.starts_with("fe80:"),
            "{}",
            source("ff02::42")?
        );
        b.host.send("ff1e::42", 50, &[])?;
        receiver.expect_exactly(50)?;
        b.host.send("ff15::42", 50, &["--interface", "lc0"])?;
        named.expect_exactly(50)?;
        // a removed or deprecated address is restored
        for change in [
            format!("addr change {own}/48 dev lc0 preferred_lft 0 valid_lft 900"),
            format!("addr del {own}/48 dev lc0"),
        ] {
            b.host.ip(&change)?;
            becomes(&*own, || source("ff1e::42"))?;
        }
        b.host.send("ff1e::42", 50, &[])?;
        receiver.expect_exactly(100)
    });
}
