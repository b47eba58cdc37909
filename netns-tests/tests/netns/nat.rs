//! NAT: hosts without a public address.

use crate::prelude::*;

#[test]
fn two_hosts_behind_different_nats_connect_directly() {
    world("two-nats", |lab| {
        let hosts = ["a", "b"].map(|name| lab.host_behind_nat(name));
        let [a, b] = hosts;
        let (a, b) = (a?, b?);
        a.close_uplink()?;
        b.close_uplink()?;
        let mut network = lab.network(vec![a, b])?;
        network.start()?;
        let [a, b] = network.nodes()?;
        let (at_a, at_b) = (
            a.host.receive("ff1e::a", &[])?,
            b.host.receive("ff1e::b", &[])?,
        );
        a.wait_wanted("ff1e::b", b)?;
        b.wait_wanted("ff1e::a", a)?;
        network.wait_probed()?;
        let before = network.signalling.host.uplink_data()?;
        a.host.send("ff1e::b", 300, &[])?;
        b.host.send("ff1e::a", 300, &[])?;
        at_a.expect_exactly(300)?;
        at_b.expect_exactly(300)?;
        holds!(network.signalling.host.uplink_data()? == before)
    });
}

#[test]
fn a_host_behind_nat_and_a_closed_public_host_connect() {
    world("one-nat", |lab| {
        let mut hosts = lab.closed_hosts(&["a"])?;
        hosts.push(lab.host_behind_nat("b")?);
        let mut network = lab.network(hosts)?;
        network.start()?;
        let [a, b] = network.nodes()?;
        a.reaches(b, "ff1e::42", 300)
    });
}
