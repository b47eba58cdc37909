//! LANs behind gateways: plain hosts without lcroute, real kernels, snooping bridges.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lcroute_lab::lab::{
    Host, Lab, Member, Network, Receiver, Site, UPLINK, eventually, make_folder, same_content,
    within,
};
use serde_json::Value;

use crate::lcsync_lan::share;
use crate::world;

const GROUP: &str = "ff1e::42";
const LAN: &str = "[[lan]]\ninterface = \"lan0\"\n";
/// Listening, election, links.
const SETTLED: Duration = Duration::from_secs(30);

/// Two LANs, each with so many gateways and two plain hosts.
struct Sites {
    network: Network,
    gateways: usize,
    sites: [Site; 2],
}

impl Sites {
    fn new(lab: &Lab, gateways: usize) -> Result<Sites> {
        Self::with(lab, gateways, "")
    }

    /// With more settings of the LANs.
    fn with(lab: &Lab, gateways: usize, settings: &str) -> Result<Sites> {
        let names: Vec<String> = (0..gateways * 2).map(|n| format!("gw{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let hosts = lab.closed_hosts(&names)?;
        let (a, b) = hosts.split_at(gateways);
        let site = |n, gateways: &[Host], names: [&str; 2]| {
            let gateways: Vec<&Host> = gateways.iter().collect();
            lab.site(n, &gateways, &names)
        };
        let sites = [site(1, a, ["a1", "a2"])?, site(2, b, ["b1", "b2"])?];
        for host in &hosts {
            host.configure(&format!("{LAN}{settings}"))?;
        }
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

    fn members(&self, site: usize) -> &[Member] {
        let at = site * self.gateways;
        &self.network.members[at..at + self.gateways]
    }

    /// Where in the network the forwarder of a LAN is, once there is one.
    fn wait_forwarder(&self, site: usize) -> Result<usize> {
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

    /// Until the hosts of the other LAN are heard on this one.
    fn wait_reported(&self, site: usize, groups: u64) -> Result<()> {
        let forwarder = &self.network.members[self.wait_forwarder(site)?];
        eventually("joins are reported on the LAN", || {
            let lan = lan(forwarder)?;
            ensure!(lan["groups"] == groups, "{lan}");
            Ok(())
        })
    }
}

/// `lcroute lan --json` of a gateway with one LAN.
fn lan(member: &Member) -> Result<Value> {
    let said = member.host.ask("lcroute", &["lan", "--json"])?.success()?;
    let all: Vec<Value> = serde_json::from_str(&said.stdout)?;
    all.into_iter().next().context("no LAN")
}

#[test]
fn plain_hosts_of_two_lans_hear_each_other_and_nothing_flows_unheard() {
    world("two-lans", |lab| {
        let sites = Sites::new(lab, 1)?;
        let [a, b] = &sites.sites;
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
        ensure!(bytes < 100_000, "{bytes} bytes for nobody");
        Ok(())
    });
}

#[test]
fn one_source_of_a_lan_is_heard_and_programs_of_the_gateways_too() {
    world("lan-sources", |lab| {
        let sites = Sites::new(lab, 1)?;
        let [a, b] = &sites.sites;
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
                ensure!(links.is_some_and(|l| !l.is_empty()), "{groups:?}");
                Ok(())
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
    world("lan-share", |lab| {
        let sites = Sites::new(lab, 1)?;
        let [a, b] = &sites.sites;
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

#[test]
#[ignore = "a measurement"]
fn rate_between_lans_beside_rate_between_programs() {
    world("lan-rate", |lab| {
        let sites = Sites::with(lab, 1, "rate = \"10G\"\nrate_out = \"10G\"\n")?;
        let [a, b] = &sites.sites;
        let [near, far] = sites.network.nodes()?;
        let listener = b.hosts[0].receive(GROUP, &[])?;
        sites.wait_reported(0, 1)?;
        let on_lan = highest(&a.hosts[0], GROUP, &listener)?;
        for member in [near, far] {
            let drops = &member.status()?["counters"]["drops"];
            println!(
                "{}: {} {drops}",
                member.host.name(),
                lan(member)?["counters"]
            );
        }
        drop(listener);
        let listener = far.host.receive("ff1e::43", &[])?;
        near.wait_wanted("ff1e::43", far)?;
        let on_lc0 = highest(&near.host, "ff1e::43", &listener)?;
        println!(
            "1,200 bytes, less than 0.1 % lost: {on_lan} packets/s between LANs, {on_lc0} between programs: {:.2}",
            on_lan as f64 / on_lc0 as f64
        );
        Ok(())
    });
}

/// The highest of some rates at which less than 0.1 % is lost.
fn highest(from: &Host, group: &str, listener: &Receiver) -> Result<u64> {
    let mut best = 0;
    for step in 1..=20 {
        let rate = step * 10_000;
        let before = listener.packets()?;
        let wanted = rate.to_string();
        let sent = from.send(group, rate * 2, &["--rate", &wanted, "--size", "1200"])?;
        std::thread::sleep(Duration::from_millis(500));
        let received = listener.packets()? - before;
        println!(
            "{group}: {rate} wanted, {} sent in {:.2} s, {received} received",
            sent.packets, sent.seconds
        );
        if received * 1_000 < sent.packets * 999 || sent.seconds > 2.1 {
            break;
        }
        best = rate;
    }
    Ok(best)
}

#[test]
fn a_node_that_may_not_says_so() {
    world("lan-forbidden", |lab| {
        let hosts = lab.closed_hosts(&["founder", "other"])?;
        let _site = lab.site(1, &[&hosts[1]], &["plain"])?;
        hosts[1].configure(LAN)?;
        let mut network = lab.network(hosts)?;
        network.start()?;
        let said = lan(&network.members[1])?;
        ensure!(said["role"] == "off", "{said}");
        let problem = said["problem"].as_str().unwrap_or_default();
        ensure!(problem.contains("certificate"), "{said}");
        Ok(())
    });
}
