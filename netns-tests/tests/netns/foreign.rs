//! Programs that expect a LAN, from Debian and as they are, over lc0 with `profile = "lan"`: docs/guide/programs.md.
//!
//! `netns-tests/setup all` fetches them; nothing is installed.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use netns_tests::lab::{Host, Lab, Network, Process, eventually};

use crate::world;

/// Where `netns-tests/setup all` puts what is in the packages.
fn root() -> Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let here = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target"));
    let root = target.unwrap_or_else(here).join("foreign");
    let root = root.canonicalize().context("netns-tests/setup all")?;
    Ok(root)
}

/// A program of theirs, with its libraries, as arguments of `env`.
fn foreign<'a>(program: &'a str, args: &[&'a str]) -> Result<Vec<String>> {
    let root = root()?;
    let folder = ["usr/sbin", "usr/bin"];
    let paths = folder.map(|folder| root.join(folder).join(program));
    let path = paths.iter().find(|path| path.exists());
    let path = path.with_context(|| format!("{program}: netns-tests/setup all"))?;
    let libraries = root.join("usr/lib/x86_64-linux-gnu");
    let set = format!("LD_LIBRARY_PATH={}", libraries.display());
    let all = [set, path.display().to_string()].into_iter();
    Ok(all
        .chain(args.iter().map(|arg| (*arg).to_owned()))
        .collect())
}

fn start(host: &Host, program: &str, args: &[&str]) -> Result<Process> {
    let args = foreign(program, args)?;
    host.spawn("env", &args.iter().map(String::as_str).collect::<Vec<_>>())
}

/// What it prints on both outputs.
fn ask(host: &Host, program: &str, args: &[&str]) -> Result<String> {
    let args = foreign(program, args)?;
    let done = host.run("env", &args.iter().map(String::as_str).collect::<Vec<_>>())?;
    Ok(done.stdout + &done.stderr)
}

fn said(process: &Process) -> String {
    process.stdout() + &process.stderr()
}

/// Two closed hosts that are friends.
fn friends(lab: &Lab) -> Result<Network> {
    let hosts = lab.closed_hosts(&["a", "b"])?;
    for host in &hosts {
        host.configure("[network]\nprofile = \"lan\"\n")?;
    }
    let mut network = lab.network(hosts)?;
    network.start()?;
    Ok(network)
}

#[test]
#[ignore = "`make test-all`: programs of others"]
fn avahi_answers_over_lc0() {
    const ASK: &str = r#"
import socket, struct, sys
index = socket.if_nametoindex("lc0")
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("ff02::fb", 5353, 0, index))
s.setsockopt(41, socket.IPV6_JOIN_GROUP, socket.inet_pton(10, "ff02::fb") + struct.pack("@I", index))
s.setsockopt(41, socket.IPV6_MULTICAST_IF, index)
s.settimeout(1)
name = b"".join(bytes([len(l)]) + l for l in [sys.argv[1].encode(), b"local", b""])
address = socket.inet_pton(10, sys.argv[2])
for _ in range(20):
    s.sendto(struct.pack(">6H", 0, 0, 1, 0, 0, 0) + name + struct.pack(">2H", 28, 1), ("ff02::fb", 5353, 0, index))
    try:
        while True:
            answer, source = s.recvfrom(9000)
            if answer[2] & 0x80 and address in answer:
                print("answered"); sys.exit(0)
    except socket.timeout:
        pass
sys.exit(1)
"#;
    world("avahi", |lab| {
        let network = friends(lab)?;
        let [a, b] = network.nodes()?;
        let config = a.host.write(
            "avahi.conf",
            "[server]\nhost-name=printer\nuse-ipv4=no\nuse-ipv6=yes\nallow-interfaces=lc0\nenable-dbus=no\n",
        )?;
        let config = config.display().to_string();
        // the package would have made the user
        let user = "root:x:0:0::/:/bin/sh\navahi:x:0:0::/:/bin/sh\n";
        let user = a.host.write("passwd", user)?;
        let group = a.host.write("group", "root:x:0:\navahi:x:0:\n")?;
        let args = "--no-drop-root --no-chroot --no-rlimits -f";
        let avahi = foreign("avahi-daemon", &[args, &config])?.join(" ");
        let (user, group) = (user.display(), group.display());
        let script = format!(
            "mount --bind {user} /etc/passwd && mount --bind {group} /etc/group && exec env {avahi}"
        );
        let avahi = a.host.spawn("unshare", &["-m", "sh", "-c", &script])?;
        eventually("avahi uses lc0", || {
            let said = said(&avahi);
            ensure!(said.contains("lc0.IPv6"), "{said}");
            Ok(())
        })?;
        let address = a.address()?.to_string();
        let done = b.host.run("python3", &["-c", ASK, "printer", &address])?;
        ensure!(done.stdout == "answered\n", "{done:?}: {}", said(&avahi));
        Ok(())
    });
}

#[test]
#[ignore = "`make test-all`: programs of others"]
fn libcoap_is_found_by_its_group() {
    world("coap", |lab| {
        let network = friends(lab)?;
        let [a, b] = network.nodes()?;
        let server = start(
            &a.host,
            "coap-server-notls",
            &["-A", "::", "-g", "ff02::fd", "-G", "lc0", "-v", "6"],
        )?;
        eventually("the server has joined", || {
            let joined = a.host.run("ip", &["-6", "maddr", "show", "dev", "lc0"])?;
            ensure!(joined.stdout.contains("ff02::fd"), "{}", said(&server));
            Ok(())
        })?;
        b.wait_wanted("ff02::fd", a)?;
        let args = [
            "-N",
            "-B",
            "5",
            "-m",
            "get",
            "coap://[ff02::fd%lc0]/.well-known/core",
        ];
        eventually("a resource is listed", || {
            let listed = ask(&b.host, "coap-client-notls", &args)?;
            ensure!(listed.contains("</time>"), "{listed}: {}", said(&server));
            Ok(())
        })
    });
}

#[test]
#[ignore = "`make test-all`: programs of others"]
fn bird_makes_an_adjacency_by_ospf() {
    world("bird", |lab| {
        let network = friends(lab)?;
        let mut routers = Vec::new();
        for (number, member) in network.nodes::<2>()?.into_iter().enumerate() {
            let config = member.host.write(
                "bird.conf",
                format!(
                    "router id 10.0.0.{};\nprotocol device {{ }}\n\
                     protocol ospf v3 {{ ipv6 {{ }}; area 0 {{ interface \"lc0\" {{ hello 1; }}; }}; }}\n",
                    number + 1
                ),
            )?;
            let control = member.host.path("bird.ctl").display().to_string();
            let args = ["-f", "-c", &config.display().to_string(), "-s", &control];
            routers.push((start(&member.host, "bird", &args)?, member, control));
        }
        eventually("both are adjacent", || {
            for (router, member, control) in &routers {
                let shown = ask(
                    &member.host,
                    "birdc",
                    &["-s", control, "show", "ospf", "neighbors"],
                )?;
                ensure!(shown.contains("Full/"), "{shown}{}", said(router));
            }
            Ok(())
        })
    });
}

#[test]
#[ignore = "`make test-all`: programs of others"]
fn ptp4l_finds_a_master_clock() {
    world("ptp", |lab| {
        let network = friends(lab)?;
        let [a, b] = network.nodes()?;
        let args = ["-i", "lc0", "-6", "-S", "-E", "-m", "--free_running=1"];
        let clocks = [&a.host, &b.host].map(|host| start(host, "ptp4l", &args));
        let [first, second] = clocks;
        let clocks = [first?, second?];
        eventually("one follows the other", || {
            let said = [said(&clocks[0]), said(&clocks[1])];
            let follows = |said: &String| said.contains("master offset");
            ensure!(said.iter().any(follows), "{}\n{}", said[0], said[1]);
            Ok(())
        })
    });
}
