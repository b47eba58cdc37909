//! Paths that mark datagrams (ECN), or are too narrow for them.

use crate::prelude::*;

/// Returns the number of packets to the other node that met a filling queue, from `peers`.
fn congested(node: &Member) -> Result<u64> {
    let peers = node.peers()?;
    let peer = peers.first().context("no peer")?;
    peer["congested_packets"]
        .as_u64()
        .with_context(|| format!("{peer}"))
}

#[test]
fn a_router_that_marks_congestion_is_heard_by_the_sender() {
    for family in ["v4", "v6"] {
        world(&format!("ecn-{family}"), |lab| {
            let hosts = lab.closed_hosts(&["a", "b"])?;
            match family {
                "v4" => hosts[0].cut_towards(hosts[1].v6()?.into())?,
                _ => hosts[0].cut_towards(hosts[1].v4()?.into())?,
            }
            lab.internet().nft(
                "table inet congestion {
                   chain forward {
                     type filter hook forward priority 0
                     udp length > 800 ip ecn ect0 ip ecn set ce
                     udp length > 800 ip6 ecn ect0 ip6 ecn set ce
                   }
                 }",
            )?;
            let mut network = lab.network(hosts)?;
            network.start()?;
            let [a, b] = network.nodes()?;
            let receiver = a.known_receiver(b, "ff1e::42", &[])?;
            let before = congested(a)?;
            a.host.send("ff1e::42", 100, &[])?;
            receiver.expect_exactly(100)?;
            at_least(100, || Ok(congested(a)? - before))?;
            Ok(())
        });
    }
}

/// Returns two hosts that reach each other by one family only, over a router that fragments if
/// permitted and sends no ICMP errors.
fn narrow_hosts(lab: &Lab, v4: bool) -> Result<Vec<Host>> {
    let hosts = lab.closed_hosts(&["a", "b"])?;
    if v4 {
        hosts[0].cut_towards(hosts[1].v6()?.into())?;
    } else {
        hosts[0].cut_towards(hosts[1].v4()?.into())?;
    }
    hosts.iter().try_for_each(Host::count_fragments)?;
    lab.internet().hush()?;
    Ok(hosts)
}

/// Sets the router's MTU towards this host.
fn narrow(lab: &Lab, host: &Host, mtu: u32) -> Result<()> {
    let port = host.v4()?.octets()[2];
    lab.internet().ip(&format!("link set to{port} mtu {mtu}"))
}

/// Checks that full packets of lc0 arrive once on paths of several MTUs, without IP fragments.
fn full_packets_pass(lab: &Lab, v4: bool, config: &str) -> Result<()> {
    let hosts = narrow_hosts(lab, v4)?;
    crate::configure(&hosts, config)?;
    let mut network = lab.network(hosts.clone())?;
    for mtu in [1_500, 1_400, 1_300, 1_280] {
        narrow(lab, &hosts[1], mtu)?;
        network.start()?;
        let [a, b] = network.nodes()?;
        let receiver = a.known_receiver(b, "ff1e::42", &[])?;
        // the first while the path MTU is still being probed
        a.host
            .send("ff1e::42", 400, &["--size", "1232", "--rate", "200"])?;
        receiver.expect_exactly(400)?;
        for host in &hosts {
            let fragments = host.fragments()?.packets;
            ensure!(fragments == 0, "{fragments} fragments at an MTU of {mtu}");
        }
        network.members.iter_mut().try_for_each(Member::stop)?;
    }
    // control: fragments are visible
    let to = if v4 {
        hosts[1].v4()?.to_string()
    } else {
        hosts[1].v6()?.to_string()
    };
    hosts[0].ask("ping", &["-c1", "-W1", "-s2000", &to])?;
    holds!(hosts[1].fragments()?.packets > 0, "fragments are not seen")
}

#[test]
fn full_packets_pass_narrow_paths_of_ipv4() {
    world("narrow-v4", |lab| full_packets_pass(lab, true, ""));
}

#[test]
fn full_packets_pass_narrow_paths_of_ipv6() {
    world("narrow-v6", |lab| full_packets_pass(lab, false, ""));
}

#[test]
fn full_packets_pass_narrow_paths_in_the_data_channel() {
    for v4 in [true, false] {
        world(&format!("narrow-data-{v4}"), |lab| {
            full_packets_pass(lab, v4, "[live]\nmedia = false\n")
        });
    }
}

#[test]
fn a_path_that_becomes_narrow_is_noticed() {
    world("narrower", |lab| becomes_narrow(lab, 1));
}

/// A packet that leaves a container by a veth with a narrower peer is refused on this host.
#[test]
fn an_interface_that_refuses_long_packets_is_noticed() {
    world("refuses", |lab| becomes_narrow(lab, 0));
}

/// Host 0 sends to host 1; the wire of host `at` becomes narrow.
fn becomes_narrow(lab: &Lab, at: usize) -> Result<()> {
    let hosts = narrow_hosts(lab, false)?;
    let mut network = lab.network(hosts.clone())?;
    network.start()?;
    let [a, b] = network.nodes()?;
    let receiver = a.known_receiver(b, "ff1e::42", &[])?;
    let limit = || -> Result<u64> {
        let peer = a.peers()?.remove(0);
        peer["path_mtu"].as_u64().with_context(|| format!("{peer}"))
    };
    becomes(1_452, &limit)?;
    narrow(lab, &hosts[at], 1_300)?;
    let size = ["--size", "1232"];
    eventually("a knows that the path is narrow", || {
        a.host.send("ff1e::42", 20, &size)?;
        holds!(limit()? == 1_200, "{}", limit()?)
    })?;
    let before = receiver.packets()?;
    a.host.send("ff1e::42", 100, &size)?;
    receiver.expect(before + 100)?;
    a.wait_links(1)
}
