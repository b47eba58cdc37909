//! Packets arrive unchanged.

use crate::prelude::*;

#[test]
fn the_hop_limit_is_what_the_sender_set() {
    with_members("hop-limit", ["a", "b"], |_, [a, b]| {
        let receiver = a.known_receiver(b, "ff1e::42", &[])?;
        // By default programs send with hop limit 1.
        a.host.send("ff1e::42", 50, &[])?;
        receiver.expect_exactly(50)?;
        a.host.send("ff1e::42", 50, &["--hops", "37"])?;
        receiver.expect_exactly(100)?;
        let state = receiver.state()?;
        holds!(state["hop_limits"] == json!([1, 37]), "{state}")
    });
}

#[test]
fn a_datagram_larger_than_the_mtu_arrives_whole() {
    with_members("fragments", ["a", "b"], |_, [a, b]| {
        let receiver = a.known_receiver(b, "ff1e::42", &[])?;
        a.host
            .send("ff1e::42", 100, &["--size", "3000", "--rate", "200"])?;
        receiver.expect_exactly(100)?;
        let state = receiver.state()?;
        holds!(
            state["largest"] == 3_000 && state["bytes"] == 300_000,
            "{state}"
        )
    });
}

#[test]
fn packets_come_from_the_address_that_status_shows() {
    with_members("source", ["a", "b"], |_, [a, b]| {
        let receiver = a.known_receiver(b, "ff1e::42", &[])?;
        a.host.send("ff1e::42", 50, &[])?;
        receiver.expect_exactly(50)?;
        let state = receiver.state()?;
        holds!(state["senders"][a.address()?.to_string()] == 50, "{state}")
    });
}
