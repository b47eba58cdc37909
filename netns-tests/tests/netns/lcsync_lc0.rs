//! lcsync over lc0: receivers anywhere, a server without an open port.

use crate::lcsync_lan::share;
use crate::prelude::*;

const MEGABYTE: usize = 1_000_000;

#[test]
fn a_folder_comes_from_a_server_that_accepts_no_tcp_and_no_udp_on_any_interface() {
    world("sync-lc0", |lab| {
        let hosts = sealed_server_and_receivers(lab)?;
        let mut network = lab.network(hosts)?;
        network.start()?;
        let [server, first, second] = network.nodes()?;
        make_folder(&server.host.path("folder"), 3 * MEGABYTE)?;
        let (process, root) = share(&server.host, &["folder", "--bwlimit", "15M"])?;
        let open = open_sockets(process.pid())?;
        ensure!(open.is_empty(), "the server has open sockets: {open:?}");
        let before = server.counter("tun_rx_bytes")?;
        let mut fetches = Vec::new();
        for receiver in [first, second] {
            fetches.push((
                receiver,
                receiver.host.spawn("lcsync", &["lc:folder", "copy"])?,
            ));
        }
        for (receiver, fetch) in &mut fetches {
            let code = fetch.wait(Duration::from_secs(120))?;
            ensure!(
                code == 0,
                "{}: exit code {code}: {}",
                receiver.host.name(),
                fetch.stderr()
            );
            same_content(&server.host.path("folder"), &receiver.host.path("copy"))?;
            let hash = receiver.host.call("lcsync hash copy")?.stdout;
            ensure!(hash.contains(&root), "hash {hash} is not {root}");
        }
        let open = open_sockets(process.pid())?;
        ensure!(open.is_empty(), "the server has opened sockets: {open:?}");
        let sent = (server.counter("tun_rx_bytes")? - before) as f64 / (3 * MEGABYTE) as f64;
        holds!(
            sent < 2.5,
            "{sent:.2} bytes per byte for two receivers: {}",
            server.status()?
        )
    });
}

#[test]
fn a_receiver_that_starts_before_the_server_gets_the_folder_when_it_comes() {
    world("sync-early", |lab| {
        let hosts = sealed_server_and_receivers(lab)?;
        let mut network = lab.network(hosts)?;
        network.start()?;
        let [server, first, _] = network.nodes()?;
        let mut fetch = first
            .host
            .spawn("lcsync", &["lc:folder", "copy", "--timeout", "100s"])?;
        exceeds(0, || Ok(server.groups()?.len()))?;
        make_folder(&server.host.path("folder"), MEGABYTE)?;
        let _share = share(&server.host, &["folder"])?;
        fetch.expect_exit(Duration::from_secs(120), 0)?;
        same_content(&server.host.path("folder"), &first.host.path("copy"))
    });
}

/// Returns a server that accepts only ICMPv6 and answers, on all interfaces, and closed receivers.
fn sealed_server_and_receivers(lab: &Lab) -> Result<Vec<Host>> {
    let server = lab.host("server")?;
    server.close_everywhere()?;
    let mut hosts = vec![server];
    hosts.extend(lab.closed_hosts(&["first", "second"])?);
    Ok(hosts)
}

/// Measures the share of the links' rate that a receiver behind several links gets, each with loss
/// both ways: `HOPS`, `LOSS` in percent, `MBIT`.
#[test]
#[ignore = "a measurement"]
fn lossy_hops_measured() {
    world("lossy-hops", |lab| {
        let var = |name, default| -> Result<u32> {
            std::env::var(name).map_or(Ok(default), |set| Ok(set.parse()?))
        };
        let (hops, loss, mbit) = (var("HOPS", 3)?, var("LOSS", 5)?, var("MBIT", 20)?);
        let names: Vec<String> = (0..=hops).map(|n| format!("n{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut network = lab.network(lab.hosts_in_a_row(&names)?)?;
        network.start_routed()?;
        let nodes = &network.members;
        for node in nodes {
            // a queue of 40 ms at 20 Mbit/s
            let limit = format!("root tbf rate {mbit}mbit burst 4000 limit 100000");
            let args = ["qdisc", "replace", "dev", UPLINK].into_iter();
            let args: Vec<&str> = args.chain(limit.split(' ')).collect();
            node.host.run("tc", &args)?.success()?;
            if loss > 0 {
                node.host.lose_incoming(u8::try_from(loss)?)?;
            }
        }
        let (server, receiver) = (&nodes[0].host, &nodes[nodes.len() - 1].host);
        // 20 s of such a link
        let bytes = mbit as usize * 125_000 * 20;
        make_folder(&server.path("folder"), bytes)?;
        let (_share, _) = share(server, &["folder"])?;
        let start = Instant::now();
        let mut fetch = receiver.spawn("lcsync", &["lc:folder", "copy", "--stats"])?;
        fetch.expect_exit(Duration::from_secs(300), 0)?;
        let mbit_s = bytes as f64 * 8.0 / 1e6 / start.elapsed().as_secs_f64();
        let share = mbit_s / f64::from(mbit);
        println!("{hops} hops, {loss} % each way: {mbit_s:.1} Mbit/s of {mbit}, {share:.3}");
        println!("{}", fetch.stderr());
        for node in &nodes[1..] {
            let (received, _) = node.host.uplink_traffic()?;
            let received = received.bytes as f64 / bytes as f64;
            println!(
                "{}: {received:.3} bytes received per byte",
                node.host.name()
            );
        }
        same_content(&server.path("folder"), &receiver.path("copy"))
    });
}
