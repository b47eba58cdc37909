//! `[metrics] listen`, read like a scraper.

use std::io::Write;
use std::os::unix::net::UnixStream;

use crate::prelude::*;

const DROPS: &str = "lcroute_drops_total";

#[test]
fn lcroute_tells_its_figures_and_changes_where_it_listens() {
    world("metrics", |lab| {
        let hosts = lab.closed_hosts(&["a", "b"])?;
        let socket = hosts[0].path("run/metrics.sock");
        let listen = |at: &str| format!("[metrics]\nlisten = \"{at}\"\n");
        let lan = "[[lan]]\ninterface = \"nowhere\"\n";
        hosts[0].configure(&(listen(&socket.display().to_string()) + lan))?;
        let mut network = lab.network(hosts)?;
        network.start()?;
        let [a, b] = network.nodes()?;
        let seen = Exposition::at_socket(&socket)?;
        ensure!(seen.value("lcroute_state", &[("state", "connected")])? == 1.0);
        ensure!(seen.value("lcroute_peers", &[("state", "connected")])? == 1.0);
        ensure!(seen.value("lcroute_peer_up", &[("name", "b")])? == 1.0);
        ensure!(seen.value("lcroute_signal_servers_connected", &[])? == 1.0);
        ensure!(seen.value("lcroute_nodes_reachable", &[])? == 1.0);
        drops_rise(a, || Exposition::at_socket(&socket))?;

        // hostile clients harm neither the daemon nor a scraper
        let mut idle = Vec::new();
        for n in 0..100 {
            let mut stream = UnixStream::connect(&socket)?;
            let garbage: &[u8] = if n % 2 == 0 {
                b"GET /metri"
            } else {
                b"\0\xff\r\n\r\n"
            };
            // few places: some connections are closed by now
            let _ = stream.write_all(garbage);
            idle.push(stream);
        }
        Exposition::at_socket(&socket)?;
        let receiver = a.known_receiver(b, "ff1e::42", &[])?;
        a.host.send("ff1e::42", 20, &[])?;
        receiver.expect_exactly(20)?;
        eventually("a page that knows of it", || {
            let seen = Exposition::at_socket(&socket)?;
            ensure!(seen.value("lcroute_groups_remote", &[])? == 1.0);
            ensure!(seen.value("lcroute_link_tx_packets_total", &[])? >= 20.0);
            let role = [("interface", "nowhere"), ("role", "off")];
            ensure!(seen.value("lcroute_lan_role", &role)? == 1.0);
            ensure!(seen.value("lcroute_lan_problem", &role[..1])? == 1.0);
            // a missing LAN has no drops and no segment
            let is_of_lan = |name: &str| {
                name == "lcroute_lan_drops_total" || name.starts_with("lcroute_lan_segment_")
            };
            let is_there = |name: &str| seen.has(name) || is_of_lan(name);
            for metric in lcroute::metrics::TABLE.iter().filter(|m| !is_there(m.name)) {
                ensure!(seen.has(metric.name), "no {}", metric.name);
            }
            Ok(())
        })?;

        // the next image serves metrics like this one
        a.host.call("lcroute reload --exec")?;
        eventually("a page of the new image", || {
            let seen = Exposition::at_socket(&socket)?;
            ensure!(seen.value("lcroute_link_tx_packets_total", &[])? == 0.0);
            holds!(seen.value("lcroute_state", &[("state", "connected")])? == 1.0)
        })?;

        a.host.reconfigure(&listen("[::1]:9117"))?;
        let there = || Exposition::at_address(&a.host, "[::1]:9117");
        drops_rise(a, there)?;
        ensure!(!socket.exists(), "the socket stays behind");
        a.host.reconfigure("")?;
        eventually("nobody listens", || holds!(there().is_err()))
    });
}

fn drops_rise(a: &Member, look: impl Fn() -> Result<Exposition>) -> Result<()> {
    let before = look()?.value(DROPS, &[("reason", "no_listener")])?;
    a.host.send("ff1e::99", 5, &[])?;
    eventually("the drops are counted", || {
        let seen = look()?;
        let now = seen.value(DROPS, &[("reason", "no_listener")])?;
        holds!(now >= before + 5.0, "{before} -> {now}")
    })
}
