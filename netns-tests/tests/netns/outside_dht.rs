//! Open keys that a DHT alone leads to.

use crate::outside::{a_stranger_is_served, connect_by, contact, key, kill_in, look, serve_anyone};
use crate::prelude::*;
use crate::reach::swarm;

/// Documented exit code.
const UNREACHABLE: i32 = 3;

pub(crate) fn with_dht(host: &Host, enters: &str) -> Result<()> {
    host.configure(&format!(
        "[signal]\nlan = false\ndht_bootstrap = [\"{enters}\"]\n[outside]\ndht = true\n"
    ))
}

/// Returns where callers reach the open key, or what to do, as `lcroute outside` says it.
pub(crate) fn reached(host: &Host) -> Result<String> {
    let open = look(host)?;
    let reached = open["open"]["reached"].as_str();
    Ok(reached.with_context(|| open.to_string())?.to_owned())
}

/// Waits until it names its UDP port.
fn port_of(host: &Host) -> Result<String> {
    eventually("it names its port", || {
        let reached = reached(host)?;
        let port = reached.split("UDP port ").nth(1);
        let port = port.with_context(|| reached.clone())?;
        Ok(port.split(',').next().unwrap_or_default().to_owned())
    })
}

/// Waits until the DHT holds the record.
pub(crate) fn is_held(host: &Host) -> Result<()> {
    becomes(json!(["dht"]), || Ok(look(host)?["open"]["by"].clone()))
}

#[test]
#[ignore = "long: `make test-all`"]
fn a_stranger_calls_an_open_key_whose_port_is_open_by_a_dht_alone() {
    world("outside-open-dht", |lab| {
        let (_swarm, enters) = swarm(lab)?;
        let [bob, stranger, offline] =
            &crate::all(lab.closed_hosts(&["bob", "stranger", "offline"])?)?;
        with_dht(bob, &enters)?;
        with_dht(stranger, &enters)?;
        offline.configure("[signal]\nlan = false\n")?;
        let to_bob = contact(bob)?;
        ensure!(!to_bob.contains('@'), "{to_bob}");
        let command = ["sh", "-c", "cat; echo $LC_FROM $LC_PEER"];
        let _serving = serve_anyone(bob, &command)?;
        let port = port_of(bob)?;
        is_held(bob)?;
        bob.nft(&format!(
            "insert rule inet closed input udp dport {port} accept"
        ))?;
        a_stranger_is_served(stranger, &to_bob)?;
        ensure!(look(stranger)?["pairs"][0]["found_by"] == "dht", "by a DHT");
        eventually("it knows that callers arrive", || {
            let reached = reached(bob)?;
            let is_known = reached.starts_with("reached at ") && reached.ends_with(&port);
            holds!(is_known, "{reached}")
        })?;
        // who asks no DHT is told so
        connect_by(offline, "true", &to_bob, "/open/1")?.fails(UNREACHABLE, "not asked: DHT")?;
        // a program that was killed has another key of the day, and the same port; that of the
        // stranger has ended by itself
        kill_in(bob, "lcroute-outside")?;
        ensure!(port_of_process(bob)? == port, "the same port");
        is_held(bob)?;
        a_stranger_is_served(stranger, &to_bob)
    });
}

/// Waits for the UDP port of a host's lcroute-outside.
fn port_of_process(host: &Host) -> Result<String> {
    eventually("its program has a port", || {
        let ports = crate::outside::ports_of(host)?;
        let port = ports.first().context("not yet")?;
        Ok(port.to_string())
    })
}

#[test]
#[ignore = "long: `make test-all`"]
fn an_open_key_behind_a_nat_names_the_port_that_is_enough_to_forward() {
    world("outside-open-nat", |lab| {
        let (_swarm, enters) = swarm(lab)?;
        let bob = lab.host_behind_nat("bob")?;
        let stranger = &lab.closed_hosts(&["stranger"])?[0];
        with_dht(&bob, &enters)?;
        with_dht(stranger, &enters)?;
        let to_bob = contact(&bob)?;
        let command = ["sh", "-c", "cat; echo $LC_FROM $LC_PEER"];
        let _serving = serve_anyone(&bob, &command)?;
        let port = port_of(&bob)?;
        let said = reached(&bob)?;
        ensure!(
            said == format!("closed: forward UDP port {port}, or name a place"),
            "{said}"
        );
        let router = lab.find("bob-nat").context("the router")?;
        router.nft(&format!(
            "insert rule inet closed forward udp dport {port} accept
             table ip forwarded {{
               chain prerouting {{
                 type nat hook prerouting priority -100;
                 iifname \"eth0\" udp dport {port} dnat to 192.168.1.2
               }}
             }}"
        ))?;
        is_held(&bob)?;
        let begun = Instant::now();
        a_stranger_is_served(stranger, &to_bob)?;
        println!("through the NAT after {} ms", begun.elapsed().as_millis());
        eventually("it knows that callers arrive", || {
            let reached = reached(&bob)?;
            holds!(reached.starts_with("reached at "), "{reached}")
        })
    });
}

#[test]
#[ignore = "long: `make test-all`"]
fn the_node_of_a_network_is_an_open_key_by_its_daemon() {
    world("outside-open-daemon", |lab| {
        let (_swarm, enters) = swarm(lab)?;
        let network = lab.closed_network(["bob", "other"])?;
        let bob = &network.members[0];
        let stranger = &lab.closed_hosts(&["stranger"])?[0];
        with_dht(&bob.host, &enters)?;
        with_dht(stranger, &enters)?;
        let to_bob = contact(&bob.host)?;
        ensure!(key(&to_bob) == bob.peer_id()?, "the node's key: {to_bob}");
        let command = ["sh", "-c", "cat; echo $LC_FROM $LC_PEER"];
        let _serving = serve_anyone(&bob.host, &command)?;
        let port = port_of(&bob.host)?;
        is_held(&bob.host)?;
        bob.host.nft(&format!(
            "insert rule inet closed input udp dport {port} accept"
        ))?;
        a_stranger_is_served(stranger, &to_bob)
    });
}
