//! LANs behind gateways: plain hosts without lcroute, real kernels, snooping bridges.

use crate::lcsync_lan::share;
use crate::prelude::*;

pub(crate) const GROUP: &str = "ff1e::42";
pub(crate) const LAN: &str = "[[lan]]\ninterface = \"lan0\"\n";
/// Timeout for listening, election, links.
const SETTLED: Duration = Duration::from_secs(30);

/// Two LANs, each with `gateways` gateways and two plain hosts.
pub(crate) struct Sites {
    pub(crate) network: Network,
    pub(crate) gateways: usize,
    pub(crate) sites: [Site; 2],
}

impl Sites {
    pub(crate) fn new(lab: &Lab, gateways: usize) -> Result<Sites> {
        Self::with(lab, gateways, "")
    }

    /// Starts them with more settings of the LANs.
    pub(crate) fn with(lab: &Lab, gateways: usize, settings: &str) -> Result<Sites> {
        let names: Vec<String> = (0..gateways * 2).map(|n| format!("gw{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let hosts = lab.closed_hosts(&names)?;
        let (a, b) = hosts.split_at(gateways);
        let site = |n, gateways: &[Host], names: [&str; 2]| {
            let gateways: Vec<&Host> = gateways.iter().collect();
            lab.site(n, &gateways, &names)
        };
        let sites = [site(1, a, ["a1", "a2"])?, site(2, b, ["b1", "b2"])?];
        crate::configure(&hosts, &format!("{LAN}{settings}"))?;
        let mut network = lab.network_invited(hosts, &["--gateway", "any"])?;
        network.start()?;
        let sites = Sites {
            network,
            gateways,
            sites,
        };
        for site in 0..2 {
            sites.wait_forwarder(site)?;
        }
        Ok(sites)
    }

    pub(crate) fn members(&self, site: usize) -> &[Member] {
        let at = site * self.gateways;
        &self.network.members[at..at + self.gateways]
    }

    /// Waits for the forwarder of a LAN; returns its position in the network.
    pub(crate) fn wait_forwarder(&self, site: usize) -> Result<usize> {
        within(SETTLED, "a LAN has a forwarder", || {
            let mut forwarders = Vec::new();
            for (at, member) in self.members(site).iter().enumerate() {
                match lan(member) {
                    Ok(lan) if lan["role"] == "forwarder" => forwarders.push(at),
                    _ => {}
                }
            }
            match forwarders[..] {
                [at] => Ok(site * self.gateways + at),
                _ => bail!("forwarders: {forwarders:?}"),
            }
        })
    }

    /// Waits until this number of groups is reported on a LAN.
    pub(crate) fn wait_reported(&self, site: usize, groups: u64) -> Result<()> {
        let forwarder = &self.network.members[self.wait_forwarder(site)?];
        becomes(groups, || Ok(lan(forwarder)?["groups"].clone()))
    }
}

/// Runs a test of two LANs with these settings.
pub(crate) fn two_lans(
    name: &str,
    gateways: usize,
    settings: &str,
    test: impl FnOnce(&Sites, &[Site; 2]) -> Result<()>,
) {
    world(name, |lab| {
        let sites = Sites::with(lab, gateways, settings)?;
        test(&sites, &sites.sites)
    });
}

/// `lcroute lan --json` of a gateway with one LAN.
pub(crate) fn lan(member: &Member) -> Result<Value> {
    let said = member.host.ask("lcroute", &["lan", "--json"])?.success()?;
    let all: Vec<Value> = serde_json::from_str(&said.stdout)?;
    all.into_iter().next().context("no LAN")
}

#[test]
fn plain_hosts_of_two_lans_hear_each_other_and_nothing_flows_unheard() {
    two_lans("two-lans", 1, "", |sites, [a, b]| {
        let uplink = &sites.network.members[0].host;
        let (_, before) = uplink.interface_traffic(UPLINK)?;
        // another group: its first packets would wait for a listener
        a.hosts[0].send("ff1e::43", 500, &["--rate", "1000", "--size", "1200"])?;
        let (_, after) = uplink.interface_traffic(UPLINK)?;
        let bytes = (after - before).bytes;
        ensure!(bytes < 100_000, "{bytes} bytes for nobody");
        let listener = b.hosts[0].receive(GROUP, &[])?;
        sites.wait_reported(0, 1)?;
        a.hosts[0].send(GROUP, 500, &["--rate", "500", "--size", "1200"])?;
        listener.expect_exactly(500)?;
        listener.expect_no_duplicates()?;
        drop(listener);
        sites.wait_reported(0, 0)?;
        let (_, before) = uplink.interface_traffic(UPLINK)?;
        a.hosts[0].send(GROUP, 500, &["--rate", "1000", "--size", "1200"])?;
        let (_, after) = uplink.interface_traffic(UPLINK)?;
        let bytes = (after - before).bytes;
        holds!(bytes < 100_000, "{bytes} bytes for nobody")
    });
}

#[test]
fn one_source_of_a_lan_is_heard_and_programs_of_the_gateways_too() {
    two_lans("lan-sources", 1, "", |sites, [a, b]| {
        let group = "ff3e::8000:42";
        let only = ["--source", "2001:db8:a001::2"];
        let listener = b.hosts[0].receive(group, &only)?;
        // on lc0 of the first gateway
        let program = sites.network.members[0].host.receive(GROUP, &[])?;
        sites.wait_reported(0, 2)?;
        a.hosts[1].send(group, 50, &["--rate", "100"])?;
        a.hosts[0].send(group, 100, &["--rate", "100"])?;
        listener.expect_exactly(100)?;
        b.hosts[1].send(GROUP, 100, &["--rate", "100"])?;
        program.expect_exactly(100)?;
        let answer = b.hosts[0].receive(GROUP, &[])?;
        eventually(
            "the join of a LAN host reaches the gateway's program",
            || {
                let groups = sites.network.members[0].groups()?;
                let links = groups.iter().find(|g| g["group"] == GROUP);
                let links = links.and_then(|g| g["links"].as_array());
                holds!(links.is_some_and(|l| !l.is_empty()), "{groups:?}")
            },
        )?;
        sites.network.members[0]
            .host
            .send(GROUP, 100, &["--rate", "100"])?;
        answer.expect(100)?;
        answer.expect_no_duplicates()
    });
}

#[test]
fn two_gateways_on_both_lans_carry_everything_once_and_replace_each_other() {
    world("four-gateways", |lab| {
        let mut sites = Sites::new(lab, 2)?;
        let listener = sites.sites[1].hosts[0].receive(GROUP, &[])?;
        sites.wait_reported(0, 1)?;
        let _sender = sites.sites[0].hosts[0].send_for_ever(GROUP)?;
        listener.expect_more("a host of the other LAN")?;
        for site in [1, 0] {
            let forwarder = sites.wait_forwarder(site)?;
            let member = &mut sites.network.members[forwarder];
            member.daemon()?.kill()?;
            listener.expect_more("after the death of a forwarder")?;
            let successor = sites.wait_forwarder(site)?;
            ensure!(successor != forwarder);
            sites.network.members[forwarder].start()?;
            listener.expect_more("with both again")?;
        }
        listener.expect_no_duplicates()?;
        let pauses = listener.pauses()?;
        let longest = pauses.iter().copied().fold(0.0, f64::max);
        println!("four gateways: the longest pause was {longest:.0} ms");
        Ok(())
    });
}

#[test]
fn a_closed_server_without_lcroute_serves_another_lan() {
    two_lans("lan-share", 1, "", |_, [a, b]| {
        let folder = a.hosts[0].path("folder");
        make_folder(&folder, 3_000_000)?;
        let path = folder.display().to_string();
        let (_share, _root) = share(&a.hosts[0], &[&path])?;
        a.hosts[0].close_everywhere()?;
        let fetched = b.hosts[0].run("lcsync", &["lc:folder", "copy"])?;
        fetched.success()?;
        same_content(&folder, &b.hosts[0].path("copy"))
    });
}

/// Answers for a name (RFC 6762): by unicast if the question requests it, else by multicast.
const ANSWER: &str = r#"
import socket, struct, sys
index = socket.if_nametoindex("lan0")
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.bind(("::", 5353))
s.setsockopt(41, socket.IPV6_JOIN_GROUP, socket.inet_pton(10, "ff02::fb") + struct.pack("@I", index))
s.setsockopt(41, socket.IPV6_MULTICAST_IF, index)
s.setsockopt(41, socket.IPV6_MULTICAST_HOPS, 255)
name = b"".join(bytes([len(l)]) + l for l in [sys.argv[1].encode(), b"local", b""])
print("answers", flush=True)
while True:
    question, source = s.recvfrom(9000)
    if not question[2] & 0x80 and name in question:
        at = question.index(name) + len(name)
        by_unicast = question[at + 2] & 0x80
        head = struct.pack(">6H", 0, 0x8400, 0, 1, 0, 0)
        answer = head + name + struct.pack(">2HIH", 28, 0x8001, 120, 16) + socket.inet_pton(10, sys.argv[2])
        s.sendto(answer, source if by_unicast else ("ff02::fb", 5353, 0, index))
"#;

/// Asks for a name on an interface, requesting unicast, until an answer has the address.
pub(crate) const ASK: &str = r#"
import socket, struct, sys
index = socket.if_nametoindex(sys.argv[1])
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("::", 5353))
s.setsockopt(41, socket.IPV6_JOIN_GROUP, socket.inet_pton(10, "ff02::fb") + struct.pack("@I", index))
s.setsockopt(41, socket.IPV6_MULTICAST_IF, index)
s.setsockopt(41, socket.IPV6_MULTICAST_HOPS, 255)
s.settimeout(1.5)
name = b"".join(bytes([len(l)]) + l for l in [sys.argv[2].encode(), b"local", b""])
address = socket.inet_pton(10, sys.argv[3])
for _ in range(20):
    s.sendto(struct.pack(">6H", 0, 0, 1, 0, 0, 0) + name + struct.pack(">2H", 28, 0x8001), ("ff02::fb", 5353, 0, index))
    try:
        while True:
            answer, source = s.recvfrom(9000)
            if answer[2] & 0x80 and address in answer:
                print(source[0].split("%")[0]); sys.exit(0)
    except socket.timeout:
        pass
sys.exit(1)
"#;

#[test]
fn services_of_another_lan_are_found_by_hosts_and_programs() {
    two_lans("lan-mdns", 1, "reflect = [\"mdns\"]\n", |sites, [a, b]| {
        let [near, far] = sites.network.nodes()?;
        let address = "2001:db8:a002::2";
        let args = ["-c", ANSWER, "printer", address];
        let responder = b.hosts[0].spawn("python3", &args)?;
        responder.prints("answers")?;
        let ask = |host: &Host, interface| -> Result<String> {
            let done = host.run("python3", &["-c", ASK, interface, "printer", address])?;
            Ok(done.success()?.stdout.trim().to_owned())
        };
        // the answer comes from the gateway
        let from = ask(&a.hosts[0], "lan0")?;
        let args = ["-6", "addr", "show", "dev", "lan0", "scope", "link"];
        let gateway = near.host.run("ip", &args)?.success()?.stdout;
        ensure!(gateway.contains(&format!("{from}/64")), "{from}: {gateway}");
        ask(&near.host, "lc0")?;
        ask(&far.host, "lc0")?;
        Ok(())
    });
}

#[test]
fn hosts_of_a_lan_without_a_router_are_given_addresses() {
    world("lan-advertise", |lab| {
        let hosts = lab.closed_hosts(&["gw0", "gw1"])?;
        let site = |n, gateway, name| lab.site(n, &[gateway], &[name]);
        let [a, b] = [site(1, &hosts[0], "a1")?, site(2, &hosts[1], "b1")?];
        hosts[0].configure(&format!("{LAN}advertise = true\n"))?;
        hosts[1].configure(LAN)?;
        hosts[0].ip("addr del 2001:db8:a001::1/64 dev lan0")?;
        a.hosts[0].ip("addr del 2001:db8:a001::2/64 dev lan0")?;
        let mut network = lab.network_invited(hosts, &["--gateway", "any"])?;
        network.start()?;
        let listener = b.hosts[0].receive(GROUP, &[])?;
        eventually(
            "the gateway names a prefix, and the host has an address",
            || {
                let lan = lan(&network.members[0])?;
                ensure!(lan["role"] == "forwarder" && lan["groups"] == 1, "{lan}");
                let prefix = lan["prefixes"][0].as_str().context("no prefix")?;
                let prefix = prefix.trim_end_matches("::/64");
                let addresses = a.hosts[0]
                    .call("ip -6 addr show dev lan0 scope global -tentative")?
                    .stdout;
                holds!(addresses.contains(prefix), "{prefix}: {addresses}")
            },
        )?;
        a.hosts[0].send(GROUP, 100, &["--rate", "100"])?;
        listener.expect_exactly(100)
    });
}

#[test]
fn a_node_that_may_not_says_so() {
    world("lan-forbidden", |lab| {
        let hosts = lab.closed_hosts(&["founder", "other"])?;
        let _site = lab.site(1, &[&hosts[1]], &["plain"])?;
        hosts[1].configure(LAN)?;
        let mut network = lab.network(hosts)?;
        network.start()?;
        // once the interface has its address
        eventually("its certificate is the problem", || {
            let said = lan(&network.members[1])?;
            let problem = said["problem"].as_str().unwrap_or_default();
            holds!(
                said["role"] == "off" && problem.contains("certificate"),
                "{said}"
            )
        })?;
        let lans = crate::doctor::check(&network.members[1].host, "lans")?;
        let remedy = lans["remedy"].as_str().unwrap_or_default();
        holds!(
            lans["state"] == "fail" && remedy.contains("--gateway"),
            "{lans}"
        )
    });
}
