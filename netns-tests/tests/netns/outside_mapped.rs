//! Hosts at home whose router maps the port: a key or a text alone leads to them.

use crate::foreign;
use crate::guest::as_nobody;
use crate::outside::{a_stranger_is_served, contact, look, ports_of, serve_anyone};
use crate::outside_dht::{is_held, reached, with_dht};
use crate::ports::{PUBLIC, miniupnpd, router, rules};
use crate::prelude::*;
use crate::radio::RADIO;
use crate::reach::swarm;
use crate::stations::{cast, hears, station, text_of};

/// Time for all protocols that a router does not speak.
const ASKED_WITHIN: Duration = Duration::from_secs(20);

/// Returns a host behind a symmetric NAT, its router that maps ports by this protocol, and a closed
/// host.
fn home(lab: &Lab, protocol: &str, enters: &str) -> Result<(Host, Host, Host, Process)> {
    let home = lab.host_behind_symmetric_nat("home")?;
    let router = router(lab, &home)?;
    let upnpd = miniupnpd(&router, protocol)?;
    tells("istening", || Ok(foreign::said(&upnpd)))?;
    let mut far = lab.closed_hosts(&["far"])?;
    let far = far.pop().context("a host")?;
    for host in [&home, &far] {
        with_dht(host, enters)?;
    }
    Ok((home, router, far, upnpd))
}

/// Waits until the router maps as many ports.
fn maps(router: &Host, count: usize) -> Result<()> {
    within(ASKED_WITHIN, "the router maps as many ports", || {
        let rules = rules(router)?;
        holds!(rules.matches("dnat").count() == count, "{count}: {rules}")
    })
}

#[test]
#[ignore = "long: `make test-all`"]
fn a_key_alone_leads_to_a_host_whose_router_maps_its_port() {
    world("outside-mapped-key", |lab| {
        let (_swarm, enters) = swarm(lab)?;
        let (bob, router, stranger, _upnpd) = home(lab, "pcp", &enters)?;
        let to_bob = contact(&bob)?;
        ensure!(!to_bob.contains('@'), "{to_bob}");
        let command = ["sh", "-c", "cat; echo $LC_FROM $LC_PEER"];
        let begun = Instant::now();
        let mut serving = serve_anyone(&bob, &command)?;
        within(ASKED_WITHIN, "it says where it is reached", || {
            let reached = reached(&bob)?;
            let at = reached.strip_prefix(&format!("reached at {PUBLIC}:"));
            let port = at.and_then(|at| at.strip_suffix(" (mapped)"));
            let port: u16 = port.with_context(|| reached.clone())?.parse()?;
            // the router gives the port that it is asked for
            holds!(ports_of(&bob)?.contains(&port), "{reached}")
        })?;
        println!("mapped after {} ms", begun.elapsed().as_millis());
        maps(&router, 1)?;
        is_held(&bob)?;
        a_stranger_is_served(&stranger, &to_bob)?;
        let seen = look(&stranger)?;
        ensure!(seen["pairs"][0]["path"] == "mapped", "{seen}");
        serving.signal(Signal::SIGINT)?;
        serving.wait(DEADLINE)?;
        // nobody waits for strangers any more
        maps(&router, 0)
    });
}

#[test]
#[ignore = "long: `make test-all`"]
fn a_station_and_an_open_key_at_home_have_a_port_each() {
    guests("outside-mapped-station", |lab| {
        let (_swarm, enters) = swarm(lab)?;
        let (home, router, listener, _upnpd) = home(lab, "upnp", &enters)?;
        let _serving = serve_anyone(&home, &["cat"])?;
        maps(&router, 1)?;
        let (path, key) = station(&home, "station.key")?;
        let text = key.station(false).encode().to_string();
        let mut casts = cast(&home, &path, "")?;
        ensure!(text_of(&casts)? == text, "{}", casts.stdout());
        within(ASKED_WITHIN, "it says where it is reached", || {
            let told = casts.stderr();
            let reached = format!("reached at {PUBLIC}:");
            ensure!(told.contains(&reached), "{told}");
            holds!(!told.contains("closed"), "{told}")
        })?;
        maps(&router, 2)?;
        let args = [RADIO, "--json", "listen", "--outside", &text, "-"];
        let hearing = listener.spawn("setpriv", &as_nobody(&args))?;
        hears(&hearing, 2)?;
        casts.signal(Signal::SIGINT)?;
        casts.wait(DEADLINE)?;
        maps(&router, 1)?;
        let reached = reached(&home)?;
        holds!(
            reached.ends_with("(mapped)"),
            "the other one stays: {reached}"
        )
    });
}

#[test]
#[ignore = "long: `make test-all`"]
fn whoever_switches_it_off_asks_no_router() {
    world("outside-mapped-off", |lab| {
        let (_swarm, enters) = swarm(lab)?;
        let (bob, router, _far, _upnpd) = home(lab, "pcp", &enters)?;
        router.nft(
            "table inet ask {
               counter asked { }
               chain input {
                 type filter hook input priority 0;
                 udp dport { 1900, 5351 } counter name asked;
               }
             }",
        )?;
        bob.configure(&format!(
            "[signal]\nlan = false\ndht_bootstrap = [\"{enters}\"]\n[outside]\ndht = true\n[ice]\nmap_port = false\n"
        ))?;
        let _serving = serve_anyone(&bob, &["cat"])?;
        eventually("it is closed", || {
            let reached = reached(&bob)?;
            holds!(reached.starts_with("closed: forward UDP port"), "{reached}")
        })?;
        let counter = router.run("nft", &["list", "counter", "inet", "ask", "asked"])?;
        let counter = counter.success()?.stdout;
        holds!(counter.contains("packets 0 "), "{counter}")
    });
}
