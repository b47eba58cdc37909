//! Private prefixes: a member on the path without the key, and changes of keys.

use std::io::{Read, Seek, SeekFrom};

use crate::offload::execute_anew;
use crate::prelude::*;

const GROUP: &str = "ff1e:7::42";
const PLAIN: &str = "ff1e::42";

/// Writes a key file as `lcroute keygen` does; the first host makes it for all.
pub(crate) fn share_key(name: &str, hosts: &[&Host]) -> Result<()> {
    let [first, others @ ..] = hosts else {
        return Ok(());
    };
    first.run("lcroute", &["keygen", name])?.success()?;
    let key = fs::read(first.path(name))?;
    for host in others {
        let file = host.write(name, &key)?;
        fs::set_permissions(file, fs::Permissions::from_mode(0o600))?;
    }
    Ok(())
}

/// Adds `private` to the section `[[private]]`.
fn make_private(host: &Host, private: &str) -> Result<()> {
    let folder = host.path("");
    let private = private.replace("KEYS", &folder.display().to_string());
    host.configure(&format!("[[private]]\nprefix = \"ff1e:7::/32\"\n{private}"))
}

fn reload(member: &Member) -> Result<()> {
    member.host.call("lcroute reload").map(drop)
}

/// Alpha and beta have the key; the router between them does not.
///
/// ```text
///   alpha ── router ── beta
/// ```
fn line(lab: &Lab) -> Result<Network> {
    let hosts = lab.hosts_in_a_row(&["alpha", "router", "beta"])?;
    share_key("team.key", &[&hosts[0], &hosts[2]])?;
    for host in [&hosts[0], &hosts[2]] {
        make_private(host, "keyfile = \"KEYSteam.key\"\n")?;
    }
    let mut network = lab.network(hosts)?;
    network.start_routed()?;
    Ok(network)
}

/// Whether the memory of a process contains these bytes, as a core dump would.
pub(crate) fn remembers(pid: u32, bytes: &[u8]) -> Result<bool> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let mut memory = fs::File::open(format!("/proc/{pid}/mem"))?;
    for line in maps.lines().filter(|line| line.contains(" rw-p ")) {
        let (from, to) = line
            .split_once(' ')
            .and_then(|(range, _)| range.split_once('-'))
            .context("maps")?;
        let [from, to] = [from, to].map(|at| u64::from_str_radix(at, 16));
        let (from, to) = (from?, to?);
        let mut read = Vec::new();
        memory.seek(SeekFrom::Start(from))?;
        // a mapping may have gone since
        let _ = (&mut memory).take(to - from).read_to_end(&mut read);
        if read.windows(bytes.len()).any(|w| w == bytes) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Sends words to a group until a listener has them.
fn say_until_heard(from: &Host, to: &Host, group: &str, words: &str) -> Result<()> {
    let listener = to.spawn("lcroute", &["listen", group])?;
    eventually("words are heard", || {
        from.run("lcroute", &["say", group, words])?.success()?;
        holds!(listener.stdout().contains(words), "not yet")
    })
}

#[test]
fn a_member_on_the_path_carries_what_it_cannot_read() {
    world("private-path", |lab| {
        let mut network = line(lab)?;
        let pid = network.members[1].daemon()?.pid();
        let [alpha, router, beta] = network.nodes()?;
        // the router joins, and captures on lc0
        let receiver = router.host.receive(GROUP, &[])?;
        let args = [
            "-l",
            "-n",
            "-i",
            "lc0",
            "-v",
            "-A",
            "ip6 multicast and not icmp6",
        ];
        let dump = router.host.spawn("tcpdump", &args)?;
        dump.says("listening on")?;
        let (secret, open) = ("meet at the old mill", "anybody may read this");
        say_until_heard(&alpha.host, &beta.host, GROUP, secret)?;
        eventually("the router sees sealed packets", || {
            holds!(
                dump.stdout().contains("unknown (253)") || dump.stdout().contains("Unknown (253)"),
                "{}",
                dump.stdout()
            )
        })?;
        ensure!(!dump.stdout().contains("old mill"), "{}", dump.stdout());
        ensure!(receiver.packets()? == 0, "{}", receiver.state()?);
        ensure!(!remembers(pid, secret.as_bytes())?);
        // the same search finds public text
        eventually("the router's memory has what is not private", || {
            say_until_heard(&alpha.host, &beta.host, PLAIN, open)?;
            holds!(remembers(pid, open.as_bytes())?, "not found")
        })?;
        let state = |member: &Member| -> Result<Value> {
            let groups = member.groups()?;
            let group = groups.iter().find(|g| g["group"] == GROUP);
            Ok(group.map(|g| g["private"].clone()).unwrap_or_default())
        };
        let _listener = beta.host.receive(GROUP, &[])?;
        eventually("the group is sealed for who has its key", || {
            ensure!(state(beta)? == "sealed", "{}", state(beta)?);
            holds!(state(router)?.is_null(), "{}", state(router)?)
        })
    });
}

#[test]
fn plain_packets_of_a_private_prefix_are_refused() {
    world("private-plain", |lab| {
        let network = line(lab)?;
        let [_, router, beta] = network.nodes()?;
        let receiver = router.known_receiver(beta, GROUP, &[])?;
        router.host.send(GROUP, 50, &["--rate", "50"])?;
        becomes(50, || beta.counter("drops/not_sealed"))?;
        holds!(receiver.packets()? == 0, "{}", receiver.state()?)
    });
}

#[test]
fn without_its_key_nothing_of_a_prefix_leaves_or_enters() {
    world("private-closed", |lab| {
        let network = line(lab)?;
        let [alpha, router, beta] = network.nodes()?;
        let receiver = beta.host.receive(GROUP, &[])?;
        let at_router = alpha.known_receiver(router, GROUP, &[])?;
        alpha.host.send(GROUP, 20, &["--rate", "50"])?;
        receiver.expect(20)?;

        fs::remove_file(beta.host.path("team.key"))?;
        reload(beta)?;
        alpha.host.send(GROUP, 20, &["--rate", "50"])?;
        becomes(20, || beta.counter("drops/no_group_key"))?;
        ensure!(receiver.packets()? == 20, "{}", receiver.state()?);
        let check = doctor(&beta.host)?;
        ensure!(check["state"] == "fail", "{check}");
        ensure!(check["detail"].to_string().contains("team.key"), "{check}");

        fs::remove_file(alpha.host.path("team.key"))?;
        reload(alpha)?;
        let sent = alpha.counter("link_tx_packets")?;
        alpha.host.send(GROUP, 20, &["--rate", "50"])?;
        becomes(20, || alpha.counter("drops/no_group_key"))?;
        ensure!(alpha.counter("link_tx_packets")? == sent, "something left");
        holds!(at_router.packets()? == 0, "{}", at_router.state()?)
    });
}

#[test]
fn a_key_changes_without_loss() {
    world("private-rotation", |lab| {
        let hosts = lab.closed_hosts(&["alpha", "beta"])?;
        share_key("one.key", &[&hosts[0], &hosts[1]])?;
        share_key("two.key", &[&hosts[0], &hosts[1]])?;
        for host in &hosts {
            make_private(host, "keyfile = \"KEYSone.key\"\n")?;
        }
        let mut network = lab.network(hosts)?;
        network.start()?;
        let [alpha, beta] = network.nodes()?;
        let receiver = alpha.known_receiver(beta, GROUP, &[])?;
        let count = 6_000;
        let args = [GROUP, "--count", "6000", "--rate", "2000", "--size", "200"];
        let sender = alpha.host.spawn("mc-send", &args)?;
        receiver.expect_more("the first key seals")?;
        for keys in [
            "keyfile = \"KEYSone.key\"\nnext = \"KEYStwo.key\"\n",
            "keyfile = \"KEYStwo.key\"\nnext = \"KEYSone.key\"\n",
            "keyfile = \"KEYStwo.key\"\n",
        ] {
            for member in [alpha, beta] {
                make_private(&member.host, keys)?;
                reload(member)?;
            }
            receiver.expect_more("packets go on")?;
        }
        sender.output()?.success()?;
        receiver.expect_exactly(count)
    });
}

/// Counts packets of the private prefix that leave by another interface than lc0.
fn watch_leaks(host: &Host) -> Result<()> {
    host.nft(
        "table inet leaks {\n counter leaks {}\n chain out { type filter hook output priority 0\n \
         oifname != \"lc0\" ip6 daddr ff1e:7::/32 counter name \"leaks\"\n }\n}\n",
    )
}

fn leaks(host: &Host) -> Result<u64> {
    Ok(host.counter("leaks", "leaks")?.packets)
}

/// Sends 25 datagrams to the private group in 0.5 s; returns the number accepted.
fn try_to_send(host: &Host) -> Result<u64> {
    let args = [GROUP, "--count", "25", "--rate", "50"];
    let said = host.run("mc-send", &args)?.success()?;
    let said: Value = serde_json::from_str(&said.stdout)?;
    said["sent"].as_u64().context("sent")
}

/// Returns the check of private prefixes by `lcroute doctor`.
fn doctor(host: &Host) -> Result<Value> {
    crate::doctor::check(host, "private prefixes")
}

fn routes(host: &Host) -> Result<String> {
    let shown = host.ask("ip", &["-6", "route", "show", "table", "all"])?;
    Ok(shown.success()?.stdout)
}

fn closed(host: &Host) -> Result<bool> {
    Ok(routes(host)?.contains("unreachable ff1e:7::/32"))
}

#[test]
fn nothing_of_a_private_prefix_leaves_in_clear_however_the_daemon_ends() {
    world("private-stopped", |lab| {
        let host = lab.host("alpha")?;
        watch_leaks(&host)?;
        share_key("team.key", &[&host])?;
        make_private(&host, "keyfile = \"KEYSteam.key\"\n")?;
        host.call("lcroute init")?;
        let mut member = Member::new(host);
        // as the unit does before the network is up
        member.host.call("lcroute close")?;
        let _sender = member.host.send_for_ever(GROUP)?;
        ensure!(try_to_send(&member.host)? == 0, "sent before the start");

        member.start()?;
        let sees_all = |member: &Member| {
            eventually("lc0 has the sender's packets", || {
                let before = member.counter("tun_rx_packets")?;
                ensure!(try_to_send(&member.host)? == 25);
                holds!(member.counter("tun_rx_packets")? >= before + 25)
            })
        };
        sees_all(&member)?;
        execute_anew(&mut member)?;
        sees_all(&member)?;

        member.stop()?;
        ensure!(!member.host.has_interface("lc0"), "lc0 is left");
        ensure!(try_to_send(&member.host)? == 0, "sent after SIGTERM");
        member.start()?;
        sees_all(&member)?;

        member.daemon()?.kill()?;
        ensure!(try_to_send(&member.host)? == 25, "lc0 is left");
        member.start()?;
        sees_all(&member)?;

        // another program removes foreign routes
        let route = crate::words("-6 route flush table local type unreachable");
        member.host.run("ip", &route)?.success()?;
        eventually("the daemon closes it again", || {
            holds!(closed(&member.host)?, "{}", routes(&member.host)?)
        })?;

        member.host.call("lcroute down")?;
        eventually("lc0 is gone", || holds!(!member.host.has_interface("lc0")))?;
        ensure!(try_to_send(&member.host)? == 0, "sent after `down`");
        ensure!(leaks(&member.host)? == 0, "{} left", leaks(&member.host)?);
        let check = doctor(&member.host)?;
        ensure!(check["state"] == "ok", "{check}");
        // control: the same packets are counted once the prefix is open
        member.host.call("lcroute close --end")?;
        ensure!(try_to_send(&member.host)? == 25, "still closed");
        ensure!(leaks(&member.host)? >= 25, "{}", leaks(&member.host)?);
        let check = doctor(&member.host)?;
        ensure!(check["state"] == "fail", "{check}");
        holds!(check["detail"].to_string().contains("in clear"), "{check}")
    });
}

#[test]
fn a_prefix_that_is_private_no_more_is_open_and_without_one_nothing_is_left_behind() {
    world("private-opened", |lab| {
        let host = lab.host("alpha")?;
        host.call("lcroute init")?;
        let mut member = Member::new(host);
        let nothing_is_left = |member: &Member| -> Result<()> {
            let routes = routes(&member.host)?;
            ensure!(!routes.contains("unreachable"), "{routes}");
            holds!(!routes.contains("lc0"), "{routes}")
        };
        member.start()?;
        member.stop()?;
        nothing_is_left(&member)?;

        // a prefix without a route of lc0 is closed while the daemon runs as well
        let elsewhere = "[[private]]\nprefix = \"ff15:7::/32\"\n\n";
        member.host.configure(elsewhere)?;
        member.start()?;
        let sent = member
            .host
            .run("mc-send", &["ff15:7::42", "--count", "5"])?;
        let sent: Value = serde_json::from_str(&sent.success()?.stdout)?;
        ensure!(sent["sent"] == 0, "{sent}");
        let named = ["ff15:7::42", "--count", "5", "--interface", "lc0"];
        let sent: Value =
            serde_json::from_str(&member.host.run("mc-send", &named)?.success()?.stdout)?;
        ensure!(sent["sent"] == 5, "{sent}");

        make_private(&member.host, "")?;
        reload(&member)?;
        eventually("the new prefix is closed, the old one open", || {
            let routes = routes(&member.host)?;
            ensure!(routes.contains("unreachable ff1e:7::/32"), "{routes}");
            holds!(!routes.contains("unreachable ff15:7::/32"), "{routes}")
        })?;
        member.host.configure("")?;
        reload(&member)?;
        becomes(false, || closed(&member.host))?;

        // a section removed while no daemon runs
        make_private(&member.host, "")?;
        reload(&member)?;
        member.stop()?;
        ensure!(closed(&member.host)?, "{}", routes(&member.host)?);
        member.host.configure("")?;
        member.start()?;
        ensure!(!closed(&member.host)?, "{}", routes(&member.host)?);

        make_private(&member.host, "")?;
        reload(&member)?;
        member.host.call("lcroute leave --force")?;
        eventually("nothing is left behind", || nothing_is_left(&member))
    });
}
