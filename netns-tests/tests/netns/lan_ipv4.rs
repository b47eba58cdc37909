//! IPv4 of hosts behind gateways: one prefix on two LANs, snooping, old hosts, foreign queriers.

use std::net::Ipv4Addr;

use lcroute_demo::lab;

use crate::ipv4::{address, wait_known};
use crate::lan::{Sites, lan};
use crate::prelude::*;

/// Groups of IPv6 and IPv4.
const BOTH: &str = "groups = [\"ff1e::/16\", \"239.0.0.0/8\", \"224.2.0.0/16\", \"232.0.0.0/8\"]\n[tun]\nipv4 = true\n";

/// Joins a group on the only interface. Prints source, port, TTL and length of packets.
const HEAR: &str = r#"
import socket, struct, sys
group, port = sys.argv[1], int(sys.argv[2])
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
s.setsockopt(socket.IPPROTO_IP, 12, 1)  # IP_RECVTTL
s.bind((group, port))
s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + socket.inet_aton("0.0.0.0"))
print("joined", flush=True)
while True:
    data, ancillary, _, (source, port) = s.recvmsg(65536, 100)
    ttl = struct.unpack("i", ancillary[0][2])[0]
    print(source, port, "ttl", ttl, len(data), data[:40].decode("latin1").replace("\n", " "), flush=True)
"#;

/// Universe 7 of sACN (ANSI E1.31), as consoles send it: packets of 638 bytes from port 6454.
const SACN: &str = r#"
import socket, struct, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 6454))
s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 20)
for n in range(int(sys.argv[1])):
    framing = struct.pack("!HI64sBHBBH", 0x7258, 2, b"console", 100, 0, n & 255, 0, 7)
    dmp = struct.pack("!HBBHHH", 0x720b, 2, 0xa1, 0, 1, 513) + bytes(513)
    root = struct.pack("!HH12sHI16s", 16, 0, b"ASC-E1.17\0\0\0", 0x726e, 4, bytes(16))
    s.sendto(root + framing + dmp, ("239.255.0.7", 5568))
"#;

/// Announces a session (RFC 2974) and sends its RTP: 100 packets of 1,316 bytes of MPEG-TS.
const SAP_RTP: &str = r#"
import socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 15)
sdp = b"v=0\r\ns=film\r\nc=IN IP4 239.69.1.2/15\r\nm=video 5004 RTP/AVP 33\r\n"
sap = b"\x20\0\x12\x34" + socket.inet_aton("192.168.1.11") + b"application/sdp\0" + sdp
s.sendto(sap, ("224.2.127.254", 9875))
for n in range(100):
    s.sendto(struct.pack("!BBHII", 0x80, 33, n, n * 90, 0x5eed) + b"G" * 1316, ("239.69.1.2", 5004))
"#;

/// Sends datagrams of a size in one system call (UDP_SEGMENT), and a super-packet that is cut.
const TRAINS: &str = r#"
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_UDP, 103, 1000)
for _ in range(20):
    s.sendto(b"train " + b"." * 39_994, ("239.7.7.7", 7007))
    time.sleep(0.05)  # a LAN may send 100 Mbit/s
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.sendto(b"whole " + b"." * 1_466, ("239.7.7.7", 7007))
s.sendto(b"parts " + b"." * 2_000, ("239.7.7.7", 7007))
"#;

/// Sends a numbered text 100 times a second; without a number endlessly.
const SAY: &str = r#"
import itertools, socket, sys, time
group, count = sys.argv[1], int(sys.argv[2])
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for n in range(count) if count else itertools.count():
    s.sendto(b"number %d." % n, (group, 5004))
    time.sleep(0.01)
"#;

/// Sends a general query of version 3 or 2; the former has an interval of one second.
const ASK: &str = r#"
import socket, struct, sys
source, version = sys.argv[1], int(sys.argv[2])
message = b"\x11\x05\0\0\0\0\0\0" + (b"\x02\x01\0\0" if version == 3 else b"")
def checksum(b):
    s = sum(struct.unpack("!%dH" % (len(b) // 2), b))
    return ~((s & 0xffff) + (s >> 16)) & 0xffff
message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lan0")
header = struct.pack("!BBHHHBBH4s4s4s", 0x46, 0xc0, 24 + len(message), 0, 0, 1, 2, 0, socket.inet_aton(source),
                     socket.inet_aton("224.0.0.1"), b"\x94\x04\0\0")
s.sendto(header + message, ("224.0.0.1", 0))
"#;

/// Starts both LANs with 192.168.1.0/24 and a default route; gateways come first.
pub(crate) fn sites(lab: &Lab, gateways: usize) -> Result<Sites> {
    sites_with(lab, gateways, "self", |_| Ok(()))
}

/// The same after a preparation, with this querier on the second LAN.
fn sites_with(
    lab: &Lab,
    gateways: usize,
    querier: &str,
    prepare: impl Fn(&Sites) -> Result<()>,
) -> Result<Sites> {
    let sites = Sites::with(lab, gateways, BOTH)?;
    prepare(&sites)?;
    for (at, site) in sites.sites.iter().enumerate() {
        let gateways = sites.members(at).iter().map(|member| &member.host);
        for (n, host) in (10..).zip(gateways) {
            host.ip(&format!("addr add 192.168.1.{n}/24 dev {}", lab::LAN))?;
        }
        for (n, host) in (20..).zip(&site.hosts) {
            host.ip(&format!("addr add 192.168.1.{n}/24 dev {}", lab::LAN))?;
            host.ip(&format!(
                "route add default via 192.168.1.254 dev {}",
                lab::LAN
            ))?;
            for interface in ["all", lab::LAN] {
                let key = format!("net/ipv4/conf/{interface}/rp_filter");
                host.namespace().sysctl(&key, "1")?;
            }
        }
    }
    let addresses: Result<Vec<_>> = sites.network.members.iter().map(address).collect();
    for (address, at) in addresses?.iter().zip(0..) {
        for (other, member) in sites.network.members.iter().enumerate() {
            if other != at {
                wait_known(member, address)?;
            }
        }
    }
    for (site, querier) in ["self", querier].into_iter().enumerate() {
        eventually("nothing is missing", || {
            let said = lan(&sites.network.members[sites.wait_forwarder(site)?])?;
            holds!(
                said["problem"].is_null() && said["querier_ipv4"] == querier,
                "{said}"
            )
        })?;
    }
    Ok(sites)
}

/// Returns the source address of forwarded packets on a LAN.
fn forwarder_address(sites: &Sites, site: usize) -> Result<String> {
    address(&sites.network.members[sites.wait_forwarder(site)?])
}

fn hear(host: &Host, group: &str, port: u16) -> Result<Process> {
    let heard = host.spawn("python3", &["-c", HEAR, group, &port.to_string()])?;
    heard.prints("joined")?;
    Ok(heard)
}

fn run(host: &Host, script: &str, args: &[&str]) -> Result<()> {
    let args = [&["-c", script], args].concat();
    host.run("python3", &args)?.success()?;
    Ok(())
}

fn expect(heard: &Process, with: &[&str], count: usize) -> Result<()> {
    eventually("all is heard once", || {
        let said = heard.stdout();
        let fits = |line: &&str| with.iter().all(|part| line.contains(part));
        let lines = said.lines().filter(fits).count();
        holds!(lines == count, "{lines} of {count} {with:?}: {said}")
    })
}

/// Waits until this number of a group's hosts is listed, or none.
fn wait_listed(gateway: &Member, group: &str, hosts: Option<u64>) -> Result<()> {
    eventually("the hosts of the group are known", || {
        let said = lan(gateway)?;
        let listeners = said["listeners"].as_array().context("no list")?;
        let found = listeners.iter().find(|l| l["group"] == group);
        let found = found.and_then(|l| l["hosts"].as_u64());
        holds!(found == hosts, "{said}")
    })
}

#[test]
fn lights_and_film_cross_between_lans_of_one_prefix_and_nothing_else_does() {
    world("lan-ipv4", |lab| {
        let sites = sites(lab, 1)?;
        let [a, b] = &sites.sites;
        let from = forwarder_address(&sites, 0)?;
        let light = hear(&b.hosts[0], "239.255.0.7", 5568)?;
        let guide = hear(&b.hosts[0], "224.2.127.254", 9875)?;
        let film = hear(&b.hosts[0], "239.69.1.2", 5004)?;
        // on lc0 of the first gateway
        let gateway = &sites.members(0)[0];
        let program = hear(&gateway.host, "239.69.1.2", 5004)?;
        sites.wait_reported(0, 3)?;
        let (_, before) = b.hosts[1].interface_traffic(lab::LAN)?;
        run(&a.hosts[0], SACN, &["200"])?;
        run(&a.hosts[1], SAP_RTP, &[])?;
        // the port stays, the TTL on the LAN is one
        expect(
            &light,
            &[&format!("{from} 6454 ttl 1 638 "), "ASC-E1.17"],
            200,
        )?;
        expect(&guide, &[&from, "application/sdp"], 1)?;
        expect(&film, &[&from, "ttl 1 1328"], 100)?;
        let network: Ipv4Addr = from.parse()?;
        let [x, y, ..] = network.octets();
        expect(&program, &[&format!("{x}.{y}.0.1 "), " 1328 "], 100)?;
        let (_, after) = b.hosts[1].interface_traffic(lab::LAN)?;
        let bytes = (after - before).bytes;
        ensure!(bytes < 50_000, "{bytes} bytes for a port without listeners");
        // programs of the gateway send to the LAN
        let hosts = hear(&a.hosts[1], "239.9.9.9", 5004)?;
        wait_listed(gateway, "239.9.9.9", Some(1))?;
        run(&gateway.host, SAY, &["239.9.9.9", "10"])?;
        expect(&hosts, &[&from, "ttl 1", "number"], 10)?;
        // the display
        let said = lan(gateway)?;
        let senders = said["sources"].as_array().context("none")?;
        let shown = |address: &str| senders.iter().any(|s| s["address"] == address);
        ensure!(shown("192.168.1.20") && shown("192.168.1.21"), "{said}");
        // all listeners are gone
        drop((light, guide, film, program));
        sites.wait_reported(0, 0)?;
        let (_, before) = gateway.host.interface_traffic(UPLINK)?;
        run(&a.hosts[0], SACN, &["500"])?;
        let (_, after) = gateway.host.interface_traffic(UPLINK)?;
        let bytes = (after - before).bytes;
        holds!(bytes < 100_000, "{bytes} bytes for nobody")
    });
}

#[test]
fn trains_of_ipv4_datagrams_arrive_and_parts_are_dropped_by_name() {
    world("lan-ipv4-trains", |lab| {
        let sites = sites(lab, 1)?;
        let [a, b] = &sites.sites;
        let from = forwarder_address(&sites, 0)?;
        let heard = hear(&b.hosts[0], "239.7.7.7", 7007)?;
        sites.wait_reported(0, 1)?;
        run(&a.hosts[0], TRAINS, &[])?;
        expect(&heard, &[&from, " ttl 1 1000 "], 800)?;
        expect(&heard, &[&from, " ttl 1 1472 whole"], 1)?;
        let gateway = &sites.members(0)[0];
        becomes(2, || Ok(lan(gateway)?["counters"]["lan_fragment"].clone()))?;
        expect(&heard, &["parts"], 0)
    });
}

#[test]
fn two_gateways_on_both_lans_carry_ipv4_once_and_replace_each_other() {
    world("lan-ipv4-two", |lab| {
        let mut sites = sites(lab, 2)?;
        let listener = hear(&sites.sites[1].hosts[0], "239.5.5.5", 5004)?;
        sites.wait_reported(0, 1)?;
        let from = forwarder_address(&sites, 0)?;
        run(&sites.sites[0].hosts[0], SAY, &["239.5.5.5", "200"])?;
        expect(&listener, &["ttl 1"], 200)?;
        expect(&listener, &[&from], 200)?;
        let _sender = sites.sites[0].hosts[0].spawn("python3", &["-c", SAY, "239.5.5.5", "0"])?;
        let sender = |site: &Sites, what: &str| -> Result<()> {
            let from = forwarder_address(site, 0)?;
            let before = listener.stdout().lines().count();
            eventually(what, || {
                let said = listener.stdout();
                let new = said.lines().skip(before).filter(|l| l.starts_with(&from));
                holds!(new.count() > 20, "{from}")
            })
        };
        for site in [1, 0] {
            let forwarder = sites.wait_forwarder(site)?;
            sites.network.members[forwarder].daemon()?.kill()?;
            ensure!(sites.wait_forwarder(site)? != forwarder);
            sender(&sites, "after the death of a forwarder")?;
            sites.network.members[forwarder].start()?;
            sender(&sites, "with both again")?;
        }
        // the endless sender's packets: each number once
        let said = listener.stdout();
        let endless = said.lines().filter(|l| l.contains("number ")).skip(200);
        let mut numbers: Vec<_> = endless.filter_map(|l| l.split("number ").nth(1)).collect();
        let all = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        holds!(
            numbers.len() == all,
            "{} of {all} were there twice",
            all - numbers.len()
        )
    });
}

#[test]
fn hosts_that_know_igmp_version_2_alone_hear_and_leave() {
    world("lan-ipv4-old", |lab| {
        let sites = sites(lab, 1)?;
        let [a, b] = &sites.sites;
        for host in a.hosts.iter().chain(&b.hosts) {
            let key = format!("net/ipv4/conf/{}/force_igmp_version", lab::LAN);
            host.namespace().sysctl(&key, "2")?;
        }
        let gateway = &sites.members(1)[0];
        let [first, second] = [0, 1].map(|n| hear(&b.hosts[n], "239.6.6.6", 5004));
        let (first, second) = (first?, second?);
        sites.wait_reported(0, 1)?;
        run(&a.hosts[0], SAY, &["239.6.6.6", "50"])?;
        expect(&first, &["number"], 50)?;
        expect(&second, &["number"], 50)?;
        // the second may never have reported; it answers a query
        drop(first);
        run(&a.hosts[0], SAY, &["239.6.6.6", "300"])?;
        expect(&second, &["number"], 350)?;
        wait_listed(gateway, "239.6.6.6", Some(1))?;
        drop(second);
        wait_listed(gateway, "239.6.6.6", None)?;
        sites.wait_reported(0, 0)
    });
}

#[test]
fn an_ipv4_querier_that_is_no_gateway_is_named_and_comes_and_goes() {
    world("lan-ipv4-querier", |lab| {
        let sites = sites(lab, 1)?;
        let [a, b] = &sites.sites;
        let gateway = &sites.members(1)[0];
        let wait_querier = |querier: &str| {
            eventually("this one asks", || {
                let said = lan(gateway)?;
                ensure!(said["querier_ipv4"] == querier, "{said}");
                ensure!(said["note"].is_null() == (querier == "self"), "{said}");
                holds!(said["querier"] == "self", "IPv6 is apart: {said}")
            })
        };
        let asks = |source: &str| -> Result<()> {
            let before = lan(gateway)?["counters"]["mld"].as_u64().unwrap_or(0);
            run(&b.hosts[1], ASK, &[source, "3"])?;
            eventually("the query has come", || {
                let said = lan(gateway)?;
                holds!(said["counters"]["mld"].as_u64() > Some(before), "{said}")
            })
        };
        let come_and_go = |group: &str| -> Result<()> {
            let mut heard = hear(&b.hosts[0], group, 5004)?;
            sites.wait_reported(0, 1)?;
            run(&a.hosts[0], SAY, &[group, "5"])?;
            expect(&heard, &["number"], 5)?;
            heard.kill()?;
            sites.wait_reported(0, 0)
        };
        // from a switch that is not a querier, and from an address without a host
        for source in ["0.0.0.0", "192.168.1.200"] {
            asks(source)?;
            wait_querier("self")?;
        }
        come_and_go("239.8.8.1")?;
        asks("192.168.1.1")?;
        wait_querier("192.168.1.1")?;
        let said = gateway.host.call("lcroute lan")?.stdout;
        shows_all(&said, &["IPv4 queries come from 192.168.1.1"])?;
        let lans = crate::doctor::check(&gateway.host, "lans")?;
        let named = lans.to_string().contains("192.168.1.1");
        // it may have expired by now
        ensure!(lans["state"] != "warn" || named, "{lans}");
        asks("192.168.1.1")?;
        come_and_go("239.8.8.2")?;
        // its interval is one second
        wait_querier("self")?;
        come_and_go("239.8.8.3")
    });
}

#[test]
fn a_switch_that_asks_itself_by_version_2_keeps_no_join_from_us() {
    world("lan-ipv4-switch", |lab| {
        // it is the LAN's first host, queries, and snoops
        let prepare = |sites: &Sites| {
            sites.sites[1].switch.ip(
                "addr add 192.168.1.1/24 dev bridge\n\
                 link set bridge type bridge mcast_igmp_version 2 mcast_query_use_ifaddr 1 mcast_querier 1",
            )
        };
        let sites = sites_with(lab, 1, "192.168.1.1", prepare)?;
        let [a, b] = &sites.sites;
        // both ways: hosts behind it receive, and joins are reported in its version
        let heard = hear(&b.hosts[0], "239.4.4.4", 5004)?;
        sites.wait_reported(0, 1)?;
        run(&a.hosts[0], SAY, &["239.4.4.4", "20"])?;
        expect(&heard, &["number"], 20)?;
        let back = hear(&a.hosts[0], "239.4.4.5", 5004)?;
        sites.wait_reported(1, 1)?;
        eventually("the switch knows our port", || {
            let said = b.switch.run("bridge", &["mdb", "show"])?.stdout;
            holds!(said.contains("grp 239.4.4.5"), "{said}")
        })?;
        run(&b.hosts[0], SAY, &["239.4.4.5", "20"])?;
        expect(&back, &["number"], 20)
    });
}

#[test]
fn a_lan_whose_interface_has_no_ipv4_address_says_so() {
    world("lan-ipv4-none", |lab| {
        let sites = Sites::with(lab, 1, BOTH)?;
        let gateway = &sites.members(0)[0];
        address(gateway)?;
        let problem = |what: &str| {
            eventually("it is said", || {
                let said = lan(gateway)?;
                let problem = said["problem"].as_str().unwrap_or_default();
                holds!(
                    problem.contains(what) && problem.is_empty() == what.is_empty(),
                    "{said}"
                )
            })
        };
        problem("no IPv4 address")?;
        gateway.host.ip("addr add 192.168.1.10/24 dev lan0")?;
        problem("")?;
        gateway.host.ip("addr del 192.168.1.10/24 dev lan0")?;
        problem("no IPv4 address")
    });
}
