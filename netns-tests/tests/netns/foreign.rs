//! Debian programs that expect a LAN, over lc0 with `profile = "lan"`: docs/guide/programs.md.
//!
//! `netns-tests/setup all` fetches them; nothing is installed.

use crate::ipv4::{address, wait_known};
use crate::lan::ASK;
use crate::lan_programs::ddsperf;
use crate::prelude::*;

/// Returns the folder of `netns-tests/setup all` with the packages' files.
pub(crate) fn root() -> Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let here = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target"));
    let root = target.unwrap_or_else(here).join("foreign");
    let root = root.canonicalize().context("netns-tests/setup all")?;
    Ok(root)
}

/// Returns a foreign program with its libraries, as arguments of `env`.
pub(crate) fn foreign<'a>(program: &'a str, args: &[&'a str]) -> Result<Vec<String>> {
    let root = root()?;
    let folder = ["usr/sbin", "usr/bin", "bin"];
    let paths = folder.map(|folder| root.join(folder).join(program));
    let path = paths.iter().find(|path| path.exists());
    let path = path.with_context(|| format!("{program}: netns-tests/setup all"))?;
    let all = [libraries()?, path.display().to_string()].into_iter();
    Ok(all
        .chain(args.iter().map(|arg| (*arg).to_owned()))
        .collect())
}

/// Returns the path of the libraries, for `env`.
pub(crate) fn libraries() -> Result<String> {
    let root = root()?;
    let usr = "usr/lib/x86_64-linux-gnu";
    let folders = [usr, "lib/x86_64-linux-gnu"].map(|folder| root.join(folder));
    // libraries with folders of their own
    let own = ["blas", "lapack", "pulseaudio"].map(|folder| root.join(usr).join(folder));
    let all = folders.iter().chain(&own);
    let all: Vec<_> = all.map(|folder| folder.display().to_string()).collect();
    Ok(format!("LD_LIBRARY_PATH={}", all.join(":")))
}

pub(crate) fn start(host: &Host, program: &str, args: &[&str]) -> Result<Process> {
    let args = foreign(program, args)?;
    host.spawn("env", &args.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Returns the program's output on both streams.
fn ask(host: &Host, program: &str, args: &[&str]) -> Result<String> {
    let args = foreign(program, args)?;
    let done = host.run("env", &args.iter().map(String::as_str).collect::<Vec<_>>())?;
    Ok(done.stdout + &done.stderr)
}

pub(crate) fn said(process: &Process) -> String {
    process.stdout() + &process.stderr()
}

/// Starts two closed hosts with the profile `lan`.
fn friends(lab: &Lab) -> Result<Network> {
    let mut network =
        lab.network(lab.configured_hosts(&["a", "b"], "[network]\nprofile = \"lan\"\n")?)?;
    network.start()?;
    Ok(network)
}

/// Runs a test of two such members.
fn with_friends(name: &str, test: impl FnOnce(&Network, [&Member; 2]) -> Result<()>) {
    world(name, |lab| {
        let network = friends(lab)?;
        test(&network, network.nodes()?)
    });
}

/// Starts Avahi on one interface, as "printer".
fn avahi(host: &Host, interface: &str) -> Result<Process> {
    avahi_by(host, interface, "IPv6")
}

/// The same, only by IPv4 or IPv6.
pub(crate) fn avahi_by(host: &Host, interface: &str, family: &str) -> Result<Process> {
    let [ipv4, ipv6] = match family {
        "IPv4" => ["yes", "no"],
        _ => ["no", "yes"],
    };
    let server =
        format!("[server]\nhost-name=printer\nuse-ipv4={ipv4}\nuse-ipv6={ipv6}\nenable-dbus=no");
    let config = format!("{server}\nallow-interfaces={interface}\n");
    let config = host.write("avahi.conf", config)?.display().to_string();
    // the package would have made the user
    let user = "root:x:0:0::/:/bin/sh\navahi:x:0:0::/:/bin/sh\n";
    let user = host.write("passwd", user)?;
    let group = host.write("group", "root:x:0:\navahi:x:0:\n")?;
    let args = "--no-drop-root --no-chroot --no-rlimits -f";
    let avahi = foreign("avahi-daemon", &[args, &config])?.join(" ");
    let (user, group) = (user.display(), group.display());
    let script = format!(
        "mount --bind {user} /etc/passwd && mount --bind {group} /etc/group && exec env {avahi}"
    );
    let avahi = host.spawn("unshare", &["-m", "sh", "-c", &script])?;
    tells(&format!("{interface}.{family}"), || Ok(said(&avahi)))?;
    Ok(avahi)
}

#[test]
#[ignore = "`make test-all`: programs of others"]
fn avahi_answers_over_lc0() {
    with_friends("avahi", |_, [a, b]| {
        let avahi = avahi(&a.host, "lc0")?;
        let address = a.address()?.to_string();
        let args = ["-c", ASK, "lc0", "printer", &address];
        let done = b.host.run("python3", &args)?;
        holds!(done.code == 0, "{done:?}: {}", said(&avahi))
    });
}

/// Asks for a name on an interface with this IPv4 address, until an answer has the address.
pub(crate) const ASK_IPV4: &str = r#"
import socket, struct, sys
own, name, address = socket.inet_aton(sys.argv[1]), sys.argv[2], socket.inet_aton(sys.argv[3])
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("", 5353))
s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton("224.0.0.251") + own)
s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, own)
s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
s.settimeout(1.5)
name = b"".join(bytes([len(l)]) + l for l in [name.encode(), b"local", b""])
for _ in range(20):
    s.sendto(struct.pack(">6H", 0, 0, 1, 0, 0, 0) + name + struct.pack(">2H", 1, 1), ("224.0.0.251", 5353))
    try:
        while True:
            answer, source = s.recvfrom(9000)
            if answer[2] & 0x80 and address in answer:
                print(source[0]); sys.exit(0)
    except socket.timeout:
        pass
sys.exit(1)
"#;

#[test]
#[ignore = "`make test-all`: programs of others"]
fn avahi_answers_over_lc0_by_ipv4_alone() {
    with_friends("avahi-ipv4", |_, [a, b]| {
        let (at_a, at_b) = (address(a)?, address(b)?);
        wait_known(a, &at_b)?;
        wait_known(b, &at_a)?;
        let avahi = avahi_by(&a.host, "lc0", "IPv4")?;
        let args = ["-c", ASK_IPV4, &at_b, "printer", &at_a];
        let done = b.host.run("python3", &args)?;
        ensure!(done.code == 0, "{done:?}: {}", said(&avahi));
        holds!(done.stdout.trim() == at_a, "{done:?}")
    });
}

#[test]
#[ignore = "`make test-all`: programs of others"]
fn avahi_of_a_lan_host_is_found_on_another_lan_and_over_lc0() {
    two_lans("avahi-lan", 1, "reflect = [\"mdns\"]\n", |sites, [a, b]| {
        let avahi = avahi(&b.hosts[0], "lan0")?;
        let near = &sites.network.members[0].host;
        for (host, interface) in [(&a.hosts[0], "lan0"), (near, "lc0")] {
            let args = ["-c", ASK, interface, "printer", "2001:db8:a002::2"];
            let done = host.run("python3", &args)?;
            ensure!(done.code == 0, "{done:?}: {}", said(&avahi));
        }
        Ok(())
    });
}

#[test]
#[ignore = "`make test-all`: programs of others"]
fn libcoap_is_found_by_its_group() {
    with_friends("coap", |_, [a, b]| {
        let server = start(
            &a.host,
            "coap-server-notls",
            &["-A", "::", "-g", "ff02::fd", "-G", "lc0", "-v", "6"],
        )?;
        eventually("the server has joined", || {
            let joined = a.host.run("ip", &["-6", "maddr", "show", "dev", "lc0"])?;
            holds!(joined.stdout.contains("ff02::fd"), "{}", said(&server))
        })?;
        b.wait_wanted("ff02::fd", a)?;
        let args = crate::words("-N -B 5 -m get coap://[ff02::fd%lc0]/.well-known/core");
        tells("</time>", || ask(&b.host, "coap-client-notls", &args))
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
    with_friends("ptp", |_, [a, b]| {
        let args = ["-i", "lc0", "-6", "-S", "-E", "-m", "--free_running=1"];
        let clocks = [&a.host, &b.host].map(|host| start(host, "ptp4l", &args));
        let [first, second] = clocks;
        let clocks = [first?, second?];
        eventually("one follows the other", || {
            let said = [said(&clocks[0]), said(&clocks[1])];
            let follows = |said: &String| said.contains("master offset");
            holds!(said.iter().any(follows), "{}\n{}", said[0], said[1])
        })
    });
}

#[test]
#[ignore = "`make test-all`: programs of others"]
fn corosync_makes_a_cluster() {
    world("corosync", |lab| {
        let network = friends(lab)?;
        let members = network.nodes::<2>()?;
        let [a, b] = [members[0].address()?, members[1].address()?];
        let mut nodes = Vec::new();
        for member in members {
            let state = member.host.path("corosync");
            fs::create_dir_all(&state)?;
            let config = format!(
                "totem {{\n version: 2\n transport: udp\n ip_version: ipv6\n crypto_cipher: none\n crypto_hash: none\n \
                 interface {{\n ringnumber: 0\n mcastaddr: ff1e::c0:5405\n mcastport: 5405\n }}\n}}\n\
                 nodelist {{\n node {{\n ring0_addr: {a}\n nodeid: 1\n }}\n node {{\n ring0_addr: {b}\n nodeid: 2\n }}\n}}\n\
                 quorum {{\n provider: corosync_votequorum\n expected_votes: 2\n}}\n\
                 system {{\n state_dir: {}\n sched_rr: no\n move_to_root_cgroup: no\n}}\n\
                 logging {{\n to_stderr: yes\n to_syslog: no\n}}\n",
                state.display()
            );
            let config = member
                .host
                .write("corosync.conf", config)?
                .display()
                .to_string();
            // it resolves its own name
            let names = member.host.write("resolv.conf", "nameserver 127.0.0.1\n")?;
            let corosync = foreign("corosync", &["-f", "-c", &config])?.join(" ");
            let names = names.display();
            let pid = member.host.write("corosync/pid", "")?;
            // a host runs only one instance
            let script = format!(
                "touch /run/corosync.pid; mount --bind {} /run/corosync.pid && \
                 mount --bind {names} /etc/resolv.conf && exec env {corosync}",
                pid.display()
            );
            nodes.push(member.host.spawn("unshare", &["-m", "sh", "-c", &script])?);
        }
        eventually("each sees both", || {
            for node in &nodes {
                let said = said(node);
                ensure!(said.contains("Members[2]: 1 2"), "{said}");
            }
            Ok(())
        })
    });
}

#[test]
#[ignore = "`make test-all`: programs of others"]
fn syncthing_discovers_its_like() {
    const ASK: &str = r#"
import re, sys, urllib.request
key = re.search("<apikey>(.*?)</apikey>", open(sys.argv[1]).read()).group(1)
request = urllib.request.Request("http://127.0.0.1:8384/rest/system/discovery", headers={"X-API-Key": key})
print(urllib.request.urlopen(request, timeout=5).read().decode())
"#;
    world("syncthing", |lab| {
        let network = friends(lab)?;
        let members = network.nodes::<2>()?;
        let mut nodes = Vec::new();
        for member in members {
            let home = member.host.path("syncthing");
            let flag = format!("--home={}", home.display());
            let made = ask(
                &member.host,
                "syncthing",
                &[
                    "generate",
                    &flag,
                    "--no-default-folder",
                    "--skip-port-probing",
                ],
            )?;
            let file = home.join("config.xml");
            let config = fs::read_to_string(&file).with_context(|| made.clone())?;
            let config = ["globalAnnounceEnabled", "relaysEnabled", "natEnabled"]
                .iter()
                .fold(config, |config, key| {
                    config.replace(&format!("<{key}>true"), &format!("<{key}>false"))
                });
            fs::write(&file, config)?;
            let id = ask(&member.host, "syncthing", &["--device-id", &flag])?;
            let args = format!("serve {flag} --no-browser --no-restart --no-upgrade");
            let args = crate::words(&args);
            let process = start(&member.host, "syncthing", &args)?;
            nodes.push((process, file.display().to_string(), id.trim().to_owned()));
        }
        eventually("each has discovered the other", || {
            for (at, other) in [(0, 1), (1, 0)] {
                let (process, config, _) = &nodes[at];
                let seen = members[at].host.run("python3", &["-c", ASK, config])?;
                let other = &nodes[other].2;
                ensure!(
                    seen.stdout.contains(other),
                    "{seen:?}, {other}: {}",
                    said(process)
                );
            }
            Ok(())
        })
    });
}

#[test]
#[ignore = "`make test-all`: programs of others"]
fn zenoh_scouts_and_delivers() {
    const PEER: &str = r#"
import json, sys, time
sys.path.insert(0, sys.argv[1])
import zenoh
address = sys.argv[2]
config = zenoh.Config()
config.insert_json5("listen/endpoints", json.dumps([f"tcp/[{address}]:0"]))
config.insert_json5("scouting/multicast/address", json.dumps("[ff0e::224]:7446"))
config.insert_json5("scouting/multicast/interface", json.dumps(address))
session = zenoh.open(config)
if sys.argv[3] == "hears":
    heard = session.declare_subscriber("greeting", lambda sample: print(sample.payload.to_string(), flush=True))
while True:
    if sys.argv[3] == "says":
        session.put("greeting", "hello over lc0")
    time.sleep(0.2)
"#;
    world("zenoh", |lab| {
        let network = friends(lab)?;
        let python = root()?.join("python").display().to_string();
        let [a, b] = network.nodes()?;
        let (at_a, at_b) = (a.address()?.to_string(), b.address()?.to_string());
        let listener = a
            .host
            .spawn("python3", &["-c", PEER, &python, &at_a, "hears"])?;
        let _speaker = b
            .host
            .spawn("python3", &["-c", PEER, &python, &at_b, "says"])?;
        listener.prints("hello over lc0")
    });
}

#[test]
#[ignore = "`make test-all`: programs of others"]
fn cyclonedds_works_over_lc0() {
    with_friends("dds", |_, [a, b]| {
        let mut peers = [
            ddsperf(&b.host, "lc0", "-D 10 -Q minmatch:1 -Q samples:150 sub")?,
            ddsperf(&a.host, "lc0", "-D 10 -Q minmatch:1 pub 50Hz size 1000")?,
        ];
        for process in &mut peers {
            let code = process.wait(Duration::from_secs(40))?;
            ensure!(code == 0, "{code}: {}", said(process));
        }
        Ok(())
    });
}

/// As installed: default discovery, and lc0 as the interface.
const STOCK: &str = "<CycloneDDS><Domain><General><Interfaces><NetworkInterface name=\"lc0\"/></Interfaces></General></Domain></CycloneDDS>";

#[test]
#[ignore = "`make test-all`: programs of others"]
fn cyclonedds_works_over_lc0_by_ipv4() {
    with_friends("dds-ipv4", |_, [a, b]| {
        for (at, other) in [(a, b), (b, a)] {
            wait_known(at, &address(other)?)?;
        }
        let perf = |host: &Host, args: &str| {
            let file = host.write("stock.xml", STOCK)?;
            let set = format!("CYCLONEDDS_URI=file://{}", file.display());
            let args: Vec<_> = args.split_whitespace().collect();
            let program = foreign("ddsperf", &args)?;
            let all = [set].into_iter().chain(program).collect::<Vec<_>>();
            host.spawn("env", &all.iter().map(String::as_str).collect::<Vec<_>>())
        };
        for (speaks, listens) in [(a, b), (b, a)] {
            let mut peers = [
                perf(&listens.host, "-D 10 -Q minmatch:1 -Q samples:150 sub")?,
                perf(&speaks.host, "-D 10 -Q minmatch:1 pub 50Hz size 1000")?,
            ];
            for process in &mut peers {
                let code = process.wait(Duration::from_secs(40))?;
                ensure!(code == 0, "{code}: {}", said(process));
            }
        }
        Ok(())
    });
}
