//! The signalling server: needed to link, not to stay linked.

use crate::prelude::*;

#[test]
fn links_outlive_the_signalling_server_and_new_ones_come_when_it_is_back() {
    world("signalling", |lab| {
        let mut network = lab.closed_network(["a", "b"])?;
        let receiver = network.members[1].host.receive("ff1e::42", &[])?;
        let sender = network.members[0].host.send_for_ever("ff1e::42")?;
        receiver.expect_more("the receiver hears the sender")?;
        network.signalling.kill()?;
        receiver.expect_more("the dead signalling server stops nothing")?;
        drop(sender);

        // A third one starts without a signalling server, and waits.
        let third = lab.closed_hosts(&["c"])?.remove(0);
        third
            .run("lcroute", &["join", &network.token, "--name", "c"])?
            .success()?;
        let mut third = Member::new(third);
        third.start()?;
        ensure!(third.status()?["state"] == "connecting");
        network.wait_linked()?;

        network.signalling.start()?;
        network.members.push(third);
        network.wait_linked()?;
        let [a, b, c] = network.nodes()?;
        let at_c = a.known_receiver(c, "ff1e::42", &[])?;
        a.wait_wanted("ff1e::42", b)?;
        let before = receiver.packets()?;
        a.host.send("ff1e::42", 100, &[])?;
        at_c.expect_exactly(100)?;
        receiver.expect(before + 100)
    });
}

#[test]
fn the_signalling_server_carries_no_data() {
    with_members("no-data", ["a", "b"], |network, [a, b]| {
        let receiver = a.known_receiver(b, "ff1e::42", &[])?;
        network.wait_probed()?;
        let before = network.signalling.host.uplink_data()?;
        a.host.send("ff1e::42", 500, &[])?;
        receiver.expect_exactly(500)?;
        holds!(network.signalling.host.uplink_data()? == before)
    });
}

#[test]
fn a_daemon_can_be_the_signalling_server_itself() {
    world("signal-listen", |lab| {
        let alpha = lab.host("alpha")?;
        let beta = lab.closed_hosts(&["beta"])?.remove(0);
        alpha.configure("[signal]\nlisten = \"[::]:7117\"\n")?;
        alpha.call("lcroute init --name alpha")?;
        let url = format!("ws://{}:7117", alpha.v4()?);
        let token = alpha
            .call(&format!("lcroute invite --signal {url}"))?
            .stdout;
        beta.run("lcroute", &["join", token.trim(), "--name", "beta"])?
            .success()?;
        let (mut alpha, mut beta) = (Member::new(alpha), Member::new(beta));
        alpha.start()?;
        beta.start()?;
        alpha.wait_links(1)?;
        let server = json!({ "kind": "server", "at": url, "open": true });
        let doors = &beta.status()?["doors"];
        ensure!(doors[0] == server, "{doors}");
        alpha.reaches(&beta, "ff1e::42", 100)
    });
}

#[test]
fn one_address_takes_no_more_than_its_share_of_a_signalling_server_and_is_told_so() {
    world("per-address", |lab| {
        let alpha = lab.host("alpha")?;
        let hosts = lab.closed_hosts(&["beta", "gamma"])?;
        alpha.configure("[signal]\nlisten = \"[::]:7117\"\nper_address = 1\n")?;
        alpha.call("lcroute init --name alpha")?;
        let url = format!("ws://{}:7117", alpha.v4()?);
        let token = alpha
            .call(&format!("lcroute invite --signal {url}"))?
            .stdout;
        let mut alpha = Member::new(alpha);
        alpha.start()?;
        let mut members = Vec::new();
        for (n, host) in (1..).zip(hosts) {
            let name = format!("node{n}");
            host.run("lcroute", &["join", token.trim(), "--name", &name])?
                .success()?;
            let mut member = Member::new(host);
            member.start()?;
            alpha.wait_links(n)?;
            members.push(member);
        }
        // one more connection from that address
        let said = members[0].host.run("lcroute", &["doctor"])?.stdout;
        shows_all(&said, &["too many connections from your address"])
    });
}

#[test]
fn a_stopped_signalling_server_ends_with_0() {
    world("signalling-stop", |lab| {
        let host = lab.host("signalling")?;
        let mut server = host.spawn("lcroute", &["signal", "--listen", "[::]:7117"])?;
        eventually("the server listens", || {
            let open = open_sockets(server.pid())?;
            let protocols: Vec<&str> = open.iter().map(|socket| socket.protocol).collect();
            holds!(protocols == ["tcp6", "udp6"], "{protocols:?}")
        })?;
        let code = server.stop()?;
        holds!(code == 0, "exit code {code}")
    });
}

#[test]
fn a_server_that_is_not_reached_is_named_once() {
    world("unreached", |lab| {
        let mut network = lab.network(lab.closed_hosts(&["a"])?)?;
        network.signalling.kill()?;
        let a = &mut network.members[0];
        a.run_args.extend(["--log", "debug"].map(str::to_owned));
        a.start()?;
        let url = network.signalling.url()?;
        eventually("it has been tried several times", || {
            let log = network.members[0].daemon()?.stderr();
            let quiet = log.matches(&format!("{url}: ")).count();
            ensure!(quiet >= 3, "{log}");
            let named = format!("signalling server {url} is not reached");
            holds!(log.matches(&named).count() == 1, "{log}")
        })?;
        network.signalling.start()?;
        eventually("it is found", || {
            let log = network.members[0].daemon()?.stderr();
            holds!(log.contains(&format!("signalling by {url}")), "{log}")
        })
    });
}
