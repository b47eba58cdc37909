//! Routers that map a port: miniupnpd by each of its protocols, and hostile ones.

use crate::foreign;
use crate::prelude::*;

/// A public address in this world: miniupnpd maps none of the test and documentation ranges.
pub(crate) const PUBLIC: &str = "44.1.2.3";

/// Gives the router of a symmetric NAT [`PUBLIC`], and its filter to miniupnpd.
pub(crate) fn router(lab: &Lab, host: &Host) -> Result<Host> {
    let router = lab.find(&format!("{}-nat", host.name()));
    let router = router.context("the router")?;
    let [_, _, n, _] = router.v4()?.octets();
    router.ip(&format!("addr add {PUBLIC}/32 dev eth0"))?;
    lab.internet()
        .ip(&format!("route add {PUBLIC}/32 via 198.18.{n}.2"))?;
    router.nft(&format!(
        "flush chain ip nat postrouting
         add rule ip nat postrouting oifname \"eth0\" snat to {PUBLIC} fully-random
         flush chain inet closed forward
         table inet filter {{
           chain miniupnpd {{ }}
           chain prerouting_miniupnpd {{ }}
           chain postrouting_miniupnpd {{ }}
           chain forward {{
             type filter hook forward priority 0; policy drop;
             ct state established,related accept
             iifname \"lan\" accept
             jump miniupnpd
           }}
           chain prerouting {{ type nat hook prerouting priority -100; jump prerouting_miniupnpd; }}
           chain postrouting {{ type nat hook postrouting priority 90; jump postrouting_miniupnpd; }}
         }}"
    ))?;
    Ok(router)
}

/// Starts miniupnpd on a router with one of its protocols.
pub(crate) fn miniupnpd(router: &Host, protocol: &str) -> Result<Process> {
    let on = |yes| if yes { "yes" } else { "no" };
    let config = format!(
        "ext_ifname=eth0\next_ip={PUBLIC}\nlistening_ip=lan\nhttp_port=0\nenable_upnp={}\nenable_natpmp={}\n\
         secure_mode=yes\nipv6_disable=yes\nuuid=00000000-0000-0000-0000-000000000001\nsystem_uptime=yes\n\
         upnp_table_name=filter\nupnp_nat_table_name=filter\nupnp_forward_chain=miniupnpd\n\
         upnp_nat_chain=prerouting_miniupnpd\nupnp_nat_postrouting_chain=postrouting_miniupnpd\n\
         allow 1024-65535 192.168.1.0/24 1024-65535\ndeny 0-65535 0.0.0.0/0 0-65535\n",
        on(protocol == "upnp"),
        on(protocol != "upnp"),
    );
    let config = router.write("miniupnpd.conf", config)?;
    let (config, pid) = (config.display().to_string(), router.path("miniupnpd.pid"));
    let pid = pid.display().to_string();
    foreign::start(
        router,
        "miniupnpd",
        &["-d", "-f", &config, "-P", &pid, "-i", "eth0", "-a", "lan"],
    )
}

/// Returns a host behind a symmetric NAT, a closed one, and the router; no daemon runs yet.
fn network(lab: &Lab) -> Result<(Network, Host)> {
    let natted = lab.host_behind_symmetric_nat("a")?;
    let router = router(lab, &natted)?;
    let far = lab.host("b")?;
    far.close_uplink()?;
    Ok((lab.network(vec![natted, far])?, router))
}

fn mapping(member: &Member) -> Result<Value> {
    Ok(member.status()?["mapping"].clone())
}

pub(crate) fn path(from: &Member) -> Result<String> {
    let peers = from.peers()?;
    let path = peers.first().context("no peer")?["path"].as_str();
    Ok(path.unwrap_or("none").to_owned())
}

pub(crate) fn rules(router: &Host) -> Result<String> {
    let listed = router.run(
        "nft",
        &["list", "chain", "inet", "filter", "prerouting_miniupnpd"],
    )?;
    Ok(listed.success()?.stdout)
}

#[test]
#[ignore = "`make test-all`: programs of others"]
fn a_router_maps_the_port_by_each_protocol_and_gets_it_back() {
    for protocol in ["pcp", "nat-pmp", "upnp"] {
        world(&format!("ports-{protocol}"), |lab| {
            let (mut network, router) = network(lab)?;
            if protocol == "nat-pmp" {
                // the first byte is the version: 2 is PCP
                router.nft(
                    "table inet old {
                       chain input {
                         type filter hook input priority 0;
                         udp dport 5351 @th,64,8 2 drop;
                       }
                     }",
                )?;
            }
            let upnpd = miniupnpd(&router, protocol)?;
            tells("istening", || Ok(foreign::said(&upnpd)))?;
            network.members[0].start()?;
            within(Duration::from_secs(20), "the port is mapped", || {
                let mapping = mapping(&network.members[0])?;
                ensure!(
                    mapping["by"] == protocol,
                    "{mapping}: {}",
                    foreign::said(&upnpd)
                );
                let address = mapping["address"].as_str().unwrap_or_default();
                holds!(address.starts_with(PUBLIC), "{mapping}")
            })?;
            ensure!(rules(&router)?.contains("dnat"), "{}", rules(&router)?);
            network.members[1].start()?;
            network.wait_linked()?;
            let [a, b] = network.nodes()?;
            becomes("mapped", || path(b))?;
            a.host
                .ask("lcroute", &["doctor"])?
                .prints("the router maps 44.1.2.3:")?;
            network.members[0].stop()?;
            holds!(!rules(&router)?.contains("dnat"), "{}", rules(&router)?)
        });
    }
}

/// Answers PCP, NAT-PMP and SSDP with mutated copies of requests, and HTTP without end.
const GARBAGE: &str = r#"
import os, select, socket, threading, time
def flood():
    web = socket.socket()
    web.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    web.bind(("192.168.1.1", 5000))
    web.listen(5)
    while True:
        c, _ = web.accept()
        print("http", flush=True)
        try:
            c.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + b"<service>" * 100)
            while True:
                c.sendall(b"<a>" * 10000)
        except OSError:
            pass
threading.Thread(target=flood, daemon=True).start()
sockets = []
for port in (5351, 1900):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("192.168.1.1", port))
    sockets.append(s)
print("ready", flush=True)
n = 0
while True:
    for s in select.select(sockets, [], [])[0]:
        data, peer = s.recvfrom(2000)
        n += 1
        print("asked", s.getsockname()[1], flush=True)
        if s.getsockname()[1] == 1900:
            s.sendto(b"HTTP/1.1 200 OK\r\nLOCATION: http://198.18.1.2:80/x\r\n\r\n", peer)
            s.sendto(b"HTTP/1.1 200 OK\r\nLOCATION: http://192.168.1.1:5000/x\r\n\r\n", peer)
            continue
        for answer in (os.urandom(n % 70), data[:1] + bytes([data[1] | 128, 0, 0]) + os.urandom(56)):
            s.sendto(answer, peer)
"#;

#[test]
fn a_router_that_answers_nonsense_costs_nothing() {
    world("ports-garbage", |lab| {
        let natted = lab.host_behind_nat("a")?;
        let router = lab.find("a-nat").context("the router")?;
        let garbage = router.spawn("python3", &["-c", GARBAGE])?;
        garbage.prints("ready")?;
        let far = lab.host("b")?;
        far.close_uplink()?;
        let mut network = lab.network(vec![natted, far])?;
        network.start()?;
        let [a, _] = network.nodes()?;
        within(Duration::from_secs(30), "the router was asked", || {
            let said = garbage.stdout();
            shows_all(&said, &["asked 5351", "http"])?;
            let mapping = mapping(a)?;
            ensure!(
                mapping["failure"]
                    .as_str()
                    .is_some_and(|why| why.contains("UPnP")),
                "{mapping}"
            );
            holds!(mapping["address"].is_null(), "{mapping}")
        })?;
        network.wait_linked()?;
        // and it is not asked for a minute
        let asked = garbage.stdout().lines().count();
        sleep(Duration::from_secs(5));
        ensure!(garbage.stdout().lines().count() == asked);
        network.members[0].stop()
    });
}

#[test]
fn without_a_router_or_when_switched_off_nobody_is_asked() {
    world("ports-off", |lab| {
        let natted = lab.host_behind_nat("a")?;
        natted.configure("[ice]\nmap_port = false\n")?;
        let router = lab.find("a-nat").context("the router")?;
        router.nft(
            "table inet ask {
               counter asked { }
               chain input {
                 type filter hook input priority 0;
                 udp dport { 1900, 5351 } counter name asked;
               }
             }",
        )?;
        let asked = || -> Result<bool> {
            let counter = router.run("nft", &["list", "counter", "inet", "ask", "asked"])?;
            Ok(!counter.success()?.stdout.contains("packets 0 "))
        };
        let mut network = lab.network(vec![natted, lab.host("b")?])?;
        network.start()?;
        let [a, b] = network.nodes()?;
        for (member, why) in [(a, "map_port = false"), (b, "public IPv4 address")] {
            let mapping = mapping(member)?;
            let failure = mapping["failure"].as_str().unwrap_or_default();
            // the ranges for tests are not private
            ensure!(failure.contains(why), "{mapping}");
        }
        ensure!(!asked()?, "asked though it is switched off");
        a.host.reconfigure("")?;
        eventually("it is asked now", || holds!(asked()?, "not yet"))
    });
}
