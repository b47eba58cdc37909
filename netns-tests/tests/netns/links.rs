//! Links: effects of a cut, and the network's response.

use crate::prelude::*;

#[test]
fn a_cut_uplink_is_noticed_and_heals() {
    with_members("cut", ["a", "b", "c"], |network, [a, b, c]| {
        let (at_b, at_c) = (
            b.host.receive("ff1e::42", &[])?,
            c.host.receive("ff1e::42", &[])?,
        );
        let _sender = a.host.send_for_ever("ff1e::42")?;
        at_b.expect_more("b hears a")?;
        at_c.expect_more("c hears a")?;
        b.host.cut_uplink()?;
        a.wait_links(1)?;
        b.wait_links(0)?;
        ensure!(b.status()?["state"] == "connecting", "{}", b.status()?);
        at_c.expect_more("the others do not notice")?;
        b.host.heal_uplink()?;
        network.wait_linked()?;
        at_b.expect_more("b hears a again")?;
        for receiver in [at_b, at_c] {
            receiver.expect_no_duplicates()?;
        }
        Ok(())
    });
}

#[test]
fn a_join_made_while_the_link_is_down_counts_when_it_is_back() {
    with_members("cut-join", ["a", "b"], |_, [a, b]| {
        b.host.cut_uplink()?;
        a.wait_links(0)?;
        let receiver = b.host.receive("ff1e::42", &[])?;
        b.host.heal_uplink()?;
        a.wait_wanted("ff1e::42", b)?;
        a.host.send("ff1e::42", 100, &[])?;
        receiver.expect_exactly(100)
    });
}

#[test]
fn joins_of_a_lost_neighbour_are_forgotten() {
    with_members("cut-forget", ["a", "b"], |_, [a, b]| {
        let _receiver = a.known_receiver(b, "ff1e::42", &[])?;
        b.host.cut_uplink()?;
        becomes(0, || Ok(a.groups()?.len()))
    });
}

#[test]
fn links_use_ipv6_where_ipv4_is_cut() {
    world("only-v6", |lab| {
        let hosts = lab.closed_hosts(&["a", "b"])?;
        hosts[0].cut_towards(hosts[1].v4()?.into())?;
        let mut network = lab.network(hosts)?;
        network.start()?;
        let [a, b] = network.nodes()?;
        a.reaches(b, "ff1e::42", 100)
    });
}

#[test]
fn a_host_that_changes_its_addresses_is_found_again() {
    with_members("renumber", ["a", "b"], |network, [a, b]| {
        let receiver = b.host.receive("ff1e::42", &[])?;
        let _sender = a.host.send_for_ever("ff1e::42")?;
        receiver.expect_more("b hears a")?;
        let (v4, v6) = (b.host.v4()?.octets(), b.host.v6()?.segments());
        let n = v4[2];
        b.host.ip(&format!(
            "addr flush dev {UPLINK} scope global\n\
             addr add 198.18.{n}.77/24 dev {UPLINK}\n\
             addr add 2001:db8:{:x}::77/64 dev {UPLINK} nodad\n\
             route replace default via 198.18.{n}.1\n\
             route replace ::/0 via 2001:db8:{:x}::1",
            v6[2], v6[2]
        ))?;
        eventually("b reaches the Internet from its new addresses", || {
            let pinged = b
                .host
                .ask("ping", &["-c1", "-w1", &a.host.v6()?.to_string()])?;
            pinged.success().map(drop)
        })?;
        receiver.expect_more("b hears a at its new addresses")?;
        network.wait_linked()
    });
}

#[test]
fn a_new_link_shows_no_loss_where_nothing_gets_lost() {
    world("links-new", |lab| {
        let network = lab.closed_network(["a", "b", "c"])?;
        // media has flowed, and loss is known, once the paths are measured
        network.wait_probed()?;
        for member in &network.members {
            for peer in member.peers()? {
                let loss = peer["loss"].as_f64().context("a share")?;
                ensure!(loss < 0.02, "{peer}");
            }
        }
        Ok(())
    });
}
