//! `lcroute doctor`: a healthy host, and broken ones.

use crate::prelude::*;

#[test]
fn a_healthy_host_has_nothing_that_fails() {
    world("doctor-healthy", |lab| {
        let network = lab.closed_network(["a", "b"])?;
        // its token names the servers
        let [_, b] = network.nodes()?;
        eventually("nothing fails", || {
            let (code, checks) = examine(&b.host)?;
            for name in [
                "configuration",
                "daemon",
                "kernel",
                "ipv6",
                "tun device",
                "capabilities",
                "state directory",
                "identity",
                "certificate",
                "interface",
                "routes",
                "inbound firewall",
                "network managers",
                "signalling",
                "nat",
                "links",
            ] {
                let check = find(&checks, name)?;
                ensure!(check["state"] == "ok", "{check}");
            }
            holds!(code == 0, "exit code {code}: {checks:?}")
        })?;
        let shown = b.host.call("lcroute doctor")?.stdout;
        ensure!(shown.contains("ok       kernel "), "{shown}");
        holds!(shown.contains("signalling"), "{shown}")
    });
}

/// As when founding a network: neither file nor token names the server.
#[test]
fn a_server_that_the_command_line_of_run_alone_names_is_looked_at() {
    world("doctor-run-signal", |lab| {
        let mut network = lab.network(vec![lab.host("founder")?])?;
        network.signalling.restart_with_relay()?;
        let host = &network.members[0].host;
        host.configure("[ice]\npolicy = \"relay\"\n")?;
        let (_, checks) = examine(host)?;
        fails(&checks, "relay", "[relay] turn")?;
        network.members[0].start()?;
        let (host, url) = (&network.members[0].host, network.signalling.url()?);
        eventually("it is asked", || {
            let (_, checks) = examine(host)?;
            for name in ["signalling", "relay"] {
                let check = find(&checks, name)?;
                let detail = check["detail"].as_str().unwrap_or_default();
                ensure!(check["state"] == "ok" && detail.contains(&url), "{check}");
            }
            // no member may learn a STUN server's answer
            holds!(find(&checks, "nat")?["state"] == "skipped", "{checks:?}")
        })
    });
}

#[test]
fn what_is_broken_is_named_with_what_to_do() {
    world("doctor-broken", |lab| {
        let host = lab.detached_host("alone")?;
        let (code, checks) = examine(&host)?;
        ensure!(code == 1, "exit code {code}");
        fails(&checks, "identity", "lcroute join")?;
        fails(&checks, "daemon", "lcroute up TOKEN")?;
        host.configure("[tun]\nmtu = 7\noffload = true\n")?;
        let (code, checks) = examine(&host)?;
        ensure!(code == 1, "exit code {code}");
        let said = fails(&checks, "configuration", "correct the file")?;
        ensure!(said.contains("lcroute.toml:2: mtu"), "{said}");

        let mut network = lab.closed_network(["a", "b"])?;
        network.members[1].host.close_everywhere()?;
        network.signalling.kill()?;
        let b = &network.members[1];
        // another program takes a group's route
        b.host
            .ip("route add multicast ff1e::/17 dev eth0 table local metric 1")?;
        eventually("all of it is named", || {
            let (code, checks) = examine(&b.host)?;
            ensure!(code == 1, "exit code {code}");
            fails(&checks, "inbound firewall", "iifname \"lc0\"")?;
            fails(&checks, "signalling", "lcroute signal")?;
            let said = fails(&checks, "routes", "ip -6 route show")?;
            ensure!(said.contains("ff1e::/16 goes to eth0"), "{said}");
            fails(&checks, "nat", "UDP")?;
            Ok(())
        })?;
        let told = b.host.ask("lcroute", &["doctor"])?.stdout;
        let last = told.lines().last().unwrap_or_default();
        ensure!(last.starts_with("fix this: routes: "), "{told}");
        network.members[1].stop()?;
        let (code, checks) = examine(&network.members[1].host)?;
        ensure!(code == 1, "exit code {code}");
        fails(&checks, "daemon", "systemctl start lcroute")?;
        holds!(find(&checks, "routes")?["state"] == "skipped")
    });
}

fn examine(host: &Host) -> Result<(i32, Vec<Value>)> {
    let done = host.ask("lcroute", &["doctor", "--json"])?;
    let answer: Value = serde_json::from_str(&done.stdout).context(done.stderr)?;
    let checks = answer["checks"].as_array().context("no checks")?.clone();
    for check in &checks {
        let broken = check["state"] == "fail" || check["state"] == "warn";
        ensure!(broken == check["remedy"].is_string(), "{check}");
        ensure!(
            check["detail"].as_str().is_some_and(|d| !d.is_empty()),
            "{check}"
        );
    }
    ensure!(answer["ok"] == (done.code == 0), "{}: {answer}", done.code);
    Ok((done.code, checks))
}

/// Returns a check of `lcroute doctor` on this host.
pub(crate) fn check(host: &Host, name: &str) -> Result<Value> {
    let done = host.ask("lcroute", &["doctor", "--json"])?;
    let answer: Value = serde_json::from_str(&done.stdout).context(done.stderr)?;
    let mut checks = answer["checks"].as_array().into_iter().flatten();
    let check = checks.find(|check| check["name"] == name);
    Ok(check.with_context(|| format!("no {name}"))?.clone())
}

fn find<'a>(checks: &'a [Value], name: &str) -> Result<&'a Value> {
    let mut found = checks.iter().filter(|c| c["name"] == name);
    let check = found.next().with_context(|| format!("no {name}"))?;
    ensure!(found.next().is_none(), "twice: {name}");
    Ok(check)
}

/// Checks a failed check's remedy; returns its detail.
fn fails(checks: &[Value], name: &str, remedy: &str) -> Result<String> {
    let check = find(checks, name)?;
    ensure!(check["state"] == "fail", "{check}");
    let told = check["remedy"].as_str().unwrap_or_default();
    ensure!(told.contains(remedy), "{check}");
    Ok(check["detail"].as_str().unwrap_or_default().to_owned())
}
