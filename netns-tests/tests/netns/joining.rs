//! Joins, PARTs, later listeners, many groups.

use crate::prelude::*;

#[test]
fn a_joined_program_receives_each_packet_once_and_nobody_else_gets_any() {
    with_members("join", ["a", "b", "c"], |network, [a, b, c]| {
        let receiver = a.known_receiver(b, "ff1e::42", &[])?;
        network.wait_probed()?;
        let (c_before, _) = c.host.uplink_data()?;
        a.host.send("ff1e::42", 500, &[])?;
        receiver.expect_exactly(500)?;
        let (c_after, _) = c.host.uplink_data()?;
        ensure!(c_after == c_before);
        holds!(c.counter("link_rx_packets")? == 0, "c: {}", c.status()?)
    });
}

#[test]
fn after_a_leave_nothing_is_sent_any_more() {
    with_members("leave", ["a", "b"], |network, [a, b]| {
        network.wait_probed()?;
        let mut receiver = a.known_receiver(b, "ff1e::42", &[])?;
        a.host.send("ff1e::42", 100, &[])?;
        receiver.expect_exactly(100)?;
        receiver.process().kill()?;
        a.wait_unwanted("ff1e::42", b)?;
        sent_into_the_void(a, "ff1e::42", 200)?;
        holds!(b.counter("link_rx_packets")? == 100, "b: {}", b.status()?)
    });
}

#[test]
fn without_a_listener_no_data_byte_leaves_the_host() {
    with_members("silence", ["a", "b", "c"], |network, [a, b, _]| {
        network.wait_probed()?;
        // A listener of another group must not open this one.
        let other = a.known_receiver(b, "ff1e::43", &[])?;
        sent_into_the_void(a, "ff1e::42", 500)?;
        ensure!(other.packets()? == 0);
        // The same counter shows data of the joined group.
        let (_, before) = a.host.uplink_data()?;
        a.host.send("ff1e::43", 500, &[])?;
        other.expect_exactly(500)?;
        let (_, after) = a.host.uplink_data()?;
        holds!((after - before).bytes >= 500 * 1_200)
    });
}

#[test]
fn two_groups_reach_their_own_listeners_only() {
    with_members("two-groups", ["a", "b", "c"], |_, [a, b, c]| {
        let (at_b, at_c) = (
            b.host.receive("ff1e::b", &[])?,
            c.host.receive("ff1e::c", &[])?,
        );
        a.wait_wanted("ff1e::b", b)?;
        a.wait_wanted("ff1e::c", c)?;
        a.host.send("ff1e::b", 200, &[])?;
        a.host.send("ff1e::c", 300, &[])?;
        at_b.expect_exactly(200)?;
        at_c.expect_exactly(300)?;
        for (member, count) in [(b, 200), (c, 300)] {
            ensure!(
                member.counter("link_rx_packets")? == count,
                "{}",
                member.status()?
            );
        }
        Ok(())
    });
}

#[test]
fn who_joins_while_others_send_receives_from_then_on() {
    with_members("late", ["a", "b", "c"], |_, [a, b, c]| {
        let _sender = a.host.send_for_ever("ff1e::42")?;
        exceeds(20, || a.counter("drops/no_listener"))?;
        let first = b.host.receive("ff1e::42", &[])?;
        first.expect_more("the first listener receives from a running sender")?;
        let second = c.host.receive("ff1e::42", &[])?;
        second.expect_more("the second listener receives from a running sender")?;
        let also = b.host.receive("ff1e::42", &[])?;
        also.expect_more("a second program on one host receives as well")?;
        for receiver in [first, second, also] {
            receiver.expect_no_duplicates()?;
        }
        Ok(())
    });
}

#[test]
fn when_one_of_two_programs_of_a_host_leaves_the_other_goes_on() {
    with_members("shared", ["a", "b"], |_, [a, b]| {
        let stays = b.host.receive("ff1e::42", &[])?;
        let mut leaves = a.known_receiver(b, "ff1e::42", &[])?;
        a.host.send("ff1e::42", 100, &[])?;
        leaves.expect_exactly(100)?;
        leaves.process().kill()?;
        a.host.send("ff1e::42", 300, &[])?;
        stays.expect_exactly(400)
    });
}

#[test]
fn everybody_may_send_and_receive_at_once() {
    world("conference", |lab| {
        let network = lab.closed_network(["a", "b", "c"])?;
        let members = network.nodes::<3>()?;
        let receivers: Vec<_> = members
            .iter()
            .map(|member| member.host.receive("ff1e::42", &[]))
            .collect::<Result<_>>()?;
        for (listener, speaker) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
            members[speaker].wait_wanted("ff1e::42", members[listener])?;
        }
        for member in members {
            member.host.send("ff1e::42", 100, &[])?;
        }
        // The kernel loops a host's own packets back to its own listeners: 3 x 100 everywhere.
        receivers
            .iter()
            .try_for_each(|receiver| receiver.expect_exactly(300))?;
        for receiver in &receivers {
            let state = receiver.state()?;
            ensure!(state["senders"].as_object().map(serde_json::Map::len) == Some(3));
        }
        Ok(())
    });
}

#[test]
fn a_sender_that_is_a_member_hears_no_echo() {
    with_members("echo", ["a", "b"], |_, [a, b]| {
        let receiver = a.known_receiver(b, "ff1e::42", &[])?;
        let sent = a.host.send("ff1e::42", 200, &["--member"])?;
        receiver.expect_exactly(200)?;
        holds!(sent.received == 0)
    });
}

#[test]
fn one_host_joins_two_thousand_groups_and_leaves_them() {
    const GROUPS: usize = 2_000;
    with_members("many-groups", ["a", "b"], |network, [a, b]| {
        let mut receiver = b.host.receive("ff1e::1:0", &["--groups", "2000"])?;
        wait_wanted_groups(network, GROUPS)?;
        a.host.send(
            "ff1e::1:0",
            2_000,
            &["--groups", "2000", "--rate", "1000", "--size", "100"],
        )?;
        receiver.expect_exactly(2_000)?;
        ensure!(receiver.number("groups")? == 2_000, "{}", receiver.state()?);
        receiver.process().kill()?;
        wait_wanted_groups(network, 0)?;
        becomes(0, || Ok(b.groups()?.len()))
    });
}

/// Waits until the first member knows exactly `count` groups that the second wants.
fn wait_wanted_groups(network: &Network, count: usize) -> Result<()> {
    let [a, b] = network.nodes()?;
    let peer = b.peer_id()?;
    eventually(&format!("{count} groups are wanted"), || {
        let groups = a.groups()?;
        let is_wanted = |group: &&Value| {
            group["links"]
                .as_array()
                .is_some_and(|links| links.iter().any(|link| *link == *peer))
        };
        let wanted = groups.iter().filter(is_wanted).count();
        holds!(wanted == count, "{wanted} groups are wanted")
    })
}

/// Sends packets without a listener, waits until all are dropped, and checks that the sender's
/// uplink carried none.
fn sent_into_the_void(from: &Member, group: &str, count: u64) -> Result<()> {
    let dropped_before = from.counter("drops/no_listener")?;
    let sent_before = from.counter("link_tx_packets")?;
    let (_, before) = from.host.uplink_data()?;
    from.host.send(group, count, &[])?;
    eventually("packets that nobody wants are dropped", || {
        let dropped = from.counter("drops/no_listener")? - dropped_before;
        holds!(dropped == count, "{dropped} of {count} were dropped")
    })?;
    let (_, after) = from.host.uplink_data()?;
    ensure!(after == before, "data left the host: {:?}", after - before);
    holds!(
        from.counter("link_tx_packets")? == sent_before,
        "{}",
        from.status()?
    )
}
