//! The lab itself: a firewall or a loss without effect would make every other test worthless.

use lcroute_demo::lab::MldWatch;

use crate::prelude::*;

#[test]
fn a_closed_host_drops_what_is_new_and_lets_in_answers_and_icmpv6() {
    world("closed", |lab| {
        let (open, closed) = (lab.host("open")?, lab.host("closed")?);
        closed.close_uplink()?;
        let (to_v4, to_v6) = (closed.v4()?.to_string(), closed.v6()?.to_string());
        ensure!(open.run("ping", &["-c1", "-w1", &to_v4])?.code != 0);
        ensure!(closed.refused()?.packets >= 1, "{:?}", closed.refused()?);
        open.run("ping", &["-c1", "-w10", &to_v6])?.success()?;
        closed
            .run("ping", &["-c1", "-w10", &open.v4()?.to_string()])?
            .success()?;
        Ok(())
    });
}

#[test]
fn a_host_behind_nat_gets_out_and_nobody_gets_in() {
    world("nat", |lab| {
        let (open, hidden) = (lab.host("open")?, lab.host_behind_nat("hidden")?);
        hidden
            .run("ping", &["-c1", "-w10", &open.v4()?.to_string()])?
            .success()?;
        let unreachable = open.run("ping", &["-c1", "-w1", &hidden.v4()?.to_string()])?;
        holds!(unreachable.code != 0)
    });
}

#[test]
fn a_cut_uplink_carries_nothing_until_it_is_healed() {
    world("cutting", |lab| {
        let (a, b) = (lab.host("a")?, lab.host("b")?);
        let to_b = b.v4()?.to_string();
        b.cut_uplink()?;
        ensure!(a.run("ping", &["-c1", "-w1", &to_b])?.code != 0);
        b.heal_uplink()?;
        a.run("ping", &["-c1", "-w10", &to_b])?.success().map(drop)
    });
}

#[test]
fn loss_loses_and_its_absence_does_not() {
    world("loss", |lab| {
        let hosts = lab.lan(&["a", "b"])?;
        let whole = hosts[1].receive("ff1e::1", &["--interface", LAN])?;
        hosts[0].send("ff1e::1", 300, &["--interface", LAN])?;
        whole.expect_exactly(300)?;
        hosts[1].set_loss(LAN, 50)?;
        let halved = hosts[1].receive("ff1e::2", &["--interface", LAN])?;
        hosts[0].send("ff1e::2", 1_000, &["--interface", LAN, "--rate", "2000"])?;
        halved.expect(300)?;
        holds!(halved.packets()? < 700, "{}", halved.state()?)
    });
}

#[test]
fn the_mld_watchers_hear_what_a_kernel_says_on_a_lan() {
    world("watchers", |lab| {
        let hosts = lab.lan(&["a", "b"])?;
        let raw = hosts[0].watch_mld(&["--interface", LAN])?;
        let sniffer = hosts[0].watch_mld(&["--interface", LAN, "--packet"])?;
        let source = ["--interface", LAN, "--source", "fd00:1::1"];
        for (group, args) in [("ff1e::3", &source[..2]), ("ff3e::4", &source[..])] {
            let mut receiver = hosts[1].receive(group, args)?;
            hosts[0].send(group, 20, &["--interface", LAN])?;
            receiver.expect_exactly(20)?;
            hears(&[&raw, &sniffer], "JOIN", group)?;
            receiver.process().kill()?;
            hears(&[&raw, &sniffer], "PART", group)?;
        }
        Ok(())
    });
}

#[test]
fn an_open_socket_is_found_and_a_connected_one_is_not_counted() {
    world("sockets", |lab| {
        let host = lab.host("a")?;
        host.ip(&format!("route add ff1e::/16 dev {UPLINK} table local"))?;
        for (args, expected) in [
            (["-u", "UDP6-RECV:9999", "STDOUT"], Some("udp6")),
            (["-u", "TCP6-LISTEN:9999", "STDOUT"], Some("tcp6")),
            (["PIPE", "UDP6-CONNECT:[ff1e::1]:9999", ""], None),
        ] {
            let args: Vec<&str> = args.into_iter().filter(|arg| !arg.is_empty()).collect();
            let process = host.spawn("socat", &args)?;
            eventually("socat has its socket", || {
                let table = format!("/proc/{}/net", process.pid());
                let tables: Result<Vec<String>, _> = ["udp6", "tcp6"]
                    .map(|name| fs::read_to_string(format!("{table}/{name}")))
                    .into_iter()
                    .collect();
                holds!(tables?.concat().contains(":270F "))
            })?;
            let open: Vec<&str> = open_sockets(process.pid())?
                .iter()
                .map(|socket| socket.protocol)
                .collect();
            ensure!(
                open == expected.into_iter().collect::<Vec<_>>(),
                "{args:?}: {open:?}"
            );
        }
        Ok(())
    });
}

/// Waits until all watchers have received a change.
fn hears(watchers: &[&MldWatch], change: &str, group: &str) -> Result<()> {
    eventually(&format!("watchers hear the {change} of {group}"), || {
        for watch in watchers {
            ensure!(watch.seen(change, group)? > 0, "one has not");
        }
        Ok(())
    })
}
