//! IPv4 multicast on lc0, with programs without IPv6.

use std::net::Ipv4Addr;

use crate::prelude::*;

/// Joins a group on the kernel's default interface, from any source or from one. Prints source and
/// length of datagrams.
const HEAR: &str = r#"
import socket, sys
group, port, source = sys.argv[1], int(sys.argv[2]), sys.argv[3]
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind((group, port))
any = socket.inet_aton("0.0.0.0")
if source == "any":
    s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + any)
else:
    s.setsockopt(socket.IPPROTO_IP, 39, socket.inet_aton(group) + any + socket.inet_aton(source))
print("joined", flush=True)
while True:
    data, (source, port) = s.recvfrom(65536)
    print(source, len(data), data[:16].decode(), flush=True)
"#;

/// Sends datagrams of a size to a group, without an interface.
const SAY: &str = r#"
import socket, sys
group, port, size, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for n in range(count):
    s.sendto((b"stream " + b"." * size)[:size], (group, port))
"#;

/// The same with another node's address as the source, by a raw socket.
const FORGE: &str = r#"
import socket, struct, sys
source, group, interface = sys.argv[1:4]
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 0, 0, 0, 1, 17, 0, socket.inet_aton(source), socket.inet_aton(group))
udp = struct.pack("!HHHH", 5004, 5004, 14, 0) + b"forged"
s.sendto(header + udp, (group, 0))
"#;

/// A super-packet: one call, many datagrams (UDP_SEGMENT).
const SEGMENTS: &str = r#"
import socket, sys
group = sys.argv[1]
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_UDP, 103, 1000)
s.sendto(b"segment" + b"." * 9993, (group, 5004))
"#;

/// Echoes a connection's data; or sends data and prints the echo.
const ECHO: &str = r#"
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
s.bind((sys.argv[1], 7007))
s.listen()
print("listening", flush=True)
c, _ = s.accept()
while data := c.recv(65536):
    c.sendall(data)
"#;
const CALL: &str = r#"
import socket, sys, threading
s = socket.create_connection((sys.argv[1], 7007), timeout=20)
whole = bytes(range(256)) * 4096
threading.Thread(target=lambda: (s.sendall(whole), s.shutdown(socket.SHUT_WR))).start()
got = b""
while data := s.recv(65536):
    got += data
print("echoed", got == whole, flush=True)
"#;

const ON: &str = "[tun]\nipv4 = true\n";

/// Starts closed hosts whose nodes carry IPv4, and have addresses.
fn network(lab: &Lab, names: &[&str], config: &str) -> Result<Network> {
    let mut network = lab.network(lab.configured_hosts(names, config)?)?;
    network.start()?;
    for member in &network.members {
        address(member)?;
    }
    Ok(network)
}

/// Returns a node's address, once lc0 has it.
pub(crate) fn address(member: &Member) -> Result<String> {
    eventually("lc0 has an IPv4 address", || {
        let status = member.status()?;
        let address = status["ipv4"].as_str().context("none")?.to_owned();
        member
            .host
            .run("ip", &["-4", "-o", "addr", "show", "lc0"])?
            .prints(&format!("{address}/16"))?;
        Ok(address)
    })
}

/// Waits until a node knows the owner of an address: it refuses packets from it before.
pub(crate) fn wait_known(at: &Member, address: &str) -> Result<()> {
    eventually("others know the address", || {
        let routes = at.routes()?;
        holds!(routes.iter().any(|r| r["ipv4"] == address), "{routes:?}")
    })
}

fn hear(host: &Host, group: &str, source: &str) -> Result<Process> {
    let heard = host.spawn("python3", &["-c", HEAR, group, "5004", source])?;
    heard.prints("joined")?;
    Ok(heard)
}

fn say(host: &Host, group: &str, size: usize, count: usize) -> Result<()> {
    let (size, count) = (size.to_string(), count.to_string());
    let done = host.run("python3", &["-c", SAY, group, "5004", &size, &count])?;
    holds!(done.code == 0, "{done:?}")
}

fn expect(heard: &Process, line: &str, count: usize) -> Result<()> {
    eventually("all is heard", || {
        let said = heard.stdout();
        let lines = said.lines().filter(|l| l.starts_with(line)).count();
        holds!(lines == count, "{lines} of {count} {line:?}: {said}")
    })
}

#[test]
fn an_ipv4_stream_comes_through_and_its_end_is_silent() {
    world("ipv4", |lab| {
        let mut network = network(lab, &["a", "b"], ON)?;
        let [a, b] = network.nodes()?;
        // the LAN's route covers all groups, and strict hosts check the reverse path
        for member in [a, b] {
            member.host.ip("route add 224.0.0.0/4 dev eth0")?;
            for interface in ["all", "lc0"] {
                let key = format!("net/ipv4/conf/{interface}/rp_filter");
                member.host.namespace().sysctl(&key, "1")?;
            }
        }
        let from = address(a)?;
        wait_known(b, &from)?;
        let mut heard = hear(&b.host, "239.1.2.3", "any")?;
        a.wait_wanted("239.1.2.3", b)?;
        say(&a.host, "239.1.2.3", 1_200, 50)?;
        expect(&heard, &format!("{from} 1200 stream"), 50)?;
        // fragments
        say(&a.host, "239.1.2.3", 20_000, 3)?;
        expect(&heard, &format!("{from} 20000 stream"), 3)?;
        let done = a.host.run("python3", &["-c", SEGMENTS, "239.1.2.3"])?;
        ensure!(done.code == 0, "{done:?}");
        expect(&heard, &format!("{from} 1000 "), 10)?;
        let ping = ["ping", &from, "--count", "1", "--json"];
        b.host
            .run("lcroute", &ping)?
            .success()?
            .prints("\"name\":\"a\"")?;
        // the display
        let groups = b.groups()?;
        let group = groups.iter().find(|g| g["group"] == "239.1.2.3");
        let group = group.context("not shown")?;
        ensure!(
            group["local"] == true && group["sources"][0] == from,
            "{group}"
        );
        // the self-test knows the owners of addresses
        let listener = b
            .host
            .spawn("lcroute", &["listen", "239.7.7.7", "--json"])?;
        a.wait_wanted("239.7.7.7", b)?;
        let said = a.host.run("lcroute", &["say", "239.7.7.7", "hello"])?;
        ensure!(said.code == 0 && said.stderr.is_empty(), "{said:?}");
        eventually("it is printed, with the sender's name", || {
            let line = listener.stdout();
            let line: Value = serde_json::from_str(line.trim()).context(line)?;
            holds!(line["from"] == from && line["name"] == "a", "{line}")
        })?;
        // SSDP stays on the LAN
        a.host
            .run("ip", &["route", "get", "239.255.255.250"])?
            .prints("dev eth0")?;
        // after a PART packets do not leave the sender's host
        heard.kill()?;
        a.wait_unwanted("239.1.2.3", b)?;
        let before = a.counter("link_tx_packets")?;
        say(&a.host, "239.1.2.3", 1_200, 100)?;
        at_least(100, || a.counter("drops/no_listener"))?;
        ensure!(a.counter("link_tx_packets")? == before, "{}", a.status()?);
        let own = address(b)?;
        network.members[1].stop()?;
        network.members[1].start()?;
        holds!(address(&network.members[1])? == own, "it is kept")
    });
}

#[test]
fn ipv4_joins_of_a_source_bring_it_alone_and_old_hosts_are_understood() {
    world("ipv4-ssm", |lab| {
        // raw IP, besides the Ethernet of the other tests
        let config = format!("{ON}mode = \"tun\"\n");
        let network = network(lab, &["a", "b", "c"], &config)?;
        let [a, b, c] = network.nodes()?;
        let (from_a, from_b) = (address(a)?, address(b)?);
        for at in [a, b, c] {
            for known in [&from_a, &from_b] {
                if address(at)? != *known {
                    wait_known(at, known)?;
                }
            }
        }
        // no route of lcroute: the LAN's IPTV stays; programs name lc0
        let own = address(c)?;
        let join = HEAR.replace("inet_aton(\"0.0.0.0\")", &format!("inet_aton(\"{own}\")"));
        let heard = c
            .host
            .spawn("python3", &["-c", &join, "232.1.2.3", "5004", &from_a])?;
        a.wait_wanted("232.1.2.3", c)?;
        for member in [b, a] {
            let own = address(member)?;
            let send = SAY.replace(
                "for n",
                &format!("s.setsockopt(0, 32, socket.inet_aton(\"{own}\"))\nfor n"),
            );
            let done = member
                .host
                .run("python3", &["-c", &send, "232.1.2.3", "5004", "100", "20"])?;
            ensure!(done.code == 0, "{done:?}");
        }
        expect(&heard, &format!("{from_a} 100"), 20)?;
        ensure!(!heard.stdout().contains(&from_b), "{}", heard.stdout());
        // a host that is forced to version 2
        b.host
            .namespace()
            .sysctl("net/ipv4/conf/all/force_igmp_version", "2")?;
        let mut old = hear(&b.host, "239.9.9.9", "any")?;
        a.wait_wanted("239.9.9.9", b)?;
        say(&a.host, "239.9.9.9", 100, 10)?;
        expect(&old, &format!("{from_a} 100"), 10)?;
        old.kill()?;
        a.wait_unwanted("239.9.9.9", b)?;
        // the address of another node
        let dropped = b.counter("drops/foreign_source").unwrap_or(0);
        let done = b
            .host
            .run("python3", &["-c", FORGE, &from_a, "239.9.9.8", "lc0"])?;
        ensure!(done.code == 0, "{done:?}");
        exceeds(dropped, || b.counter("drops/foreign_source"))
    });
}

#[test]
fn tcp_goes_between_ipv4_addresses_where_unicast_is_on() {
    world("ipv4-unicast", |lab| {
        let config = "[network]\nprofile = \"lan\"\n";
        let network = network(lab, &["a", "b"], config)?;
        let [a, b] = network.nodes()?;
        let (at_a, at_b) = (address(a)?, address(b)?);
        wait_known(a, &at_b)?;
        wait_known(b, &at_a)?;
        let server = b.host.spawn("python3", &["-c", ECHO, &at_b])?;
        server.prints("listening")?;
        a.host
            .run("python3", &["-c", CALL, &at_b])?
            .prints("echoed True")?;
        // an address without a node
        let [x, y, _, _] = at_b.parse::<Ipv4Addr>()?.octets();
        let nobody = format!("{x}.{y}.0.9");
        a.host
            .run("ping", &["-c", "1", "-W", "2", &nobody])?
            .prints("Unreachable")
    });
}

#[test]
fn a_new_network_is_ready_with_ipv4_addresses_beside_the_routes_of_its_founder() {
    world("ipv4-ready", |lab| {
        let hosts = lab.closed_hosts(&["a", "b"])?;
        for host in &hosts {
            host.configure(ON)?;
            // two thirds of all blocks
            host.ip("route add 10.64.0.0/10 dev eth0")?;
            host.ip("route add 10.128.0.0/10 dev eth0")?;
        }
        let mut network = lab.network(hosts)?;
        for member in &mut network.members {
            member.start()?;
            // at once: programs that start after it rely on the address
            let shown = member
                .host
                .run("ip", &["-4", "-o", "addr", "show", "lc0"])?
                .stdout;
            let status = member.status()?;
            let own = status["ipv4"].as_str().context("no address")?;
            ensure!(shown.contains(&format!("{own}/16")), "{own}: {shown}");
        }
        let [a, b] = network.nodes()?;
        let first = address(a)?;
        wait_known(b, &first)?;
        let mut heard = hear(&b.host, "239.1.2.3", "any")?;
        a.wait_wanted("239.1.2.3", b)?;
        say(&a.host, "239.1.2.3", 100, 5)?;
        expect(&heard, &format!("{first} 100"), 5)?;
        heard.kill()?;
        holds!(address(a)? == first, "it has changed")
    });
}

#[test]
fn programs_that_broadcast_are_named() {
    world("ipv4-broadcast", |lab| {
        let network = network(lab, &["a"], ON)?;
        let [a] = network.nodes()?;
        let own: Ipv4Addr = address(a)?.parse()?;
        let [x, y, ..] = own.octets();
        let to = format!("{x}.{y}.255.255");
        let send = format!(
            "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
             s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)\n\
             for n in range(3): s.sendto(b'all', ('{to}', 9000))"
        );
        a.host.run("python3", &["-c", &send])?.success()?;
        eventually("doctor names it", || {
            let check = crate::doctor::check(&a.host, "ipv4")?;
            let named = check.to_string().contains("sent 3 IPv4 broadcasts");
            holds!(check["state"] == "warn" && named, "{check}")
        })
    });
}

#[test]
fn a_host_whose_routes_overlap_has_no_ipv4_and_doctor_says_why() {
    world("ipv4-overlap", |lab| {
        let hosts = lab.configured_hosts(&["a", "b"], "[tun]\nipv4 = \"10.77.0.0/16\"\n")?;
        let [a, b] = [hosts[0].clone(), hosts[1].clone()];
        a.ip("route add 10.0.0.0/8 dev eth0")?;
        let mut network = lab.network(hosts)?;
        network.start()?;
        let [at_a, at_b] = network.nodes()?;
        ensure!(address(at_b)?.starts_with("10.77."), "of the configuration");
        let shown = a.run("ip", &["-4", "-o", "addr", "show", "lc0"])?;
        ensure!(!shown.stdout.contains("inet "), "{shown:?}");
        ensure!(at_a.status()?["ipv4"].is_null(), "{}", at_a.status()?);
        let check = |member: &Member| crate::doctor::check(&member.host, "ipv4");
        let said = check(at_a)?;
        ensure!(said["state"] == "fail", "{said}");
        ensure!(said.to_string().contains("10.0.0.0/8"), "{said}");
        let said = check(at_b)?;
        ensure!(said["state"] == "ok", "{said}");
        ensure!(said.to_string().contains("igmp_max_memberships"), "{said}");
        // a longer route takes some of the groups
        b.ip("route add 239.5.0.0/16 dev eth0")?;
        let said = check(at_b)?;
        let named = said.to_string().contains("239.5.0.0/16 goes to eth0");
        ensure!(said["state"] == "warn" && named, "{said}");
        b.ip("route del 239.5.0.0/16 dev eth0")?;
        // a program that had joined on the LAN
        let on_lan = HEAR.replace("0.0.0.0", &b.v4()?.to_string());
        let _early = b.spawn("python3", &["-c", &on_lan, "239.5.5.5", "5004", "any"])?;
        eventually("it is named", || {
            let said = check(at_b)?;
            let named = said.to_string().contains("239.5.5.5 on eth0");
            holds!(said["state"] == "warn" && named, "{said}")
        })?;
        Ok(())
    });
}
