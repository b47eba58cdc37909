//! Source-specific multicast (RFC 4607): a join names its sender.

use crate::prelude::*;

#[test]
fn a_join_of_one_of_two_senders_brings_this_one_only() {
    with_members("ssm", ["a", "b", "c"], |network, [a, b, c]| {
        let wanted = a.address()?.to_string();
        let receiver = a.known_receiver(c, "ff3e::8000:1", &["--source", &wanted])?;
        network.wait_probed()?;
        let (_, before) = b.host.uplink_data()?;
        b.host.send("ff3e::8000:1", 200, &[])?;
        at_least(200, || b.counter("drops/no_listener"))?;
        a.host.send("ff3e::8000:1", 200, &[])?;
        receiver.expect_exactly(200)?;
        let state = receiver.state()?;
        ensure!(state["senders"][&wanted] == 200, "from whom: {state}");
        let (_, after) = b.host.uplink_data()?;
        holds!(
            after == before,
            "the unwanted sender's data left its host: {:?}",
            after - before
        )
    });
}

#[test]
fn the_second_source_can_be_joined_later_and_the_first_left() {
    with_members("ssm-change", ["a", "b", "c"], |_, [a, b, c]| {
        let (from_a, from_b) = (a.address()?.to_string(), b.address()?.to_string());
        let mut first = c.host.receive("ff3e::8000:2", &["--source", &from_a])?;
        let second = a.known_receiver(c, "ff3e::8000:2", &["--source", &from_b])?;
        b.wait_wanted("ff3e::8000:2", c)?;
        first.process().kill()?;
        a.wait_unwanted("ff3e::8000:2", c)?;
        a.host.send("ff3e::8000:2", 50, &[])?;
        b.host.send("ff3e::8000:2", 200, &[])?;
        second.expect_exactly(200)?;
        holds!(a.counter("link_tx_packets")? == 0, "{}", a.status()?)
    });
}
