//! lcsync over lc0: the receivers are anywhere, the server has no port open to anybody.

use std::time::Duration;

use anyhow::{Result, ensure};
use lcroute_lab::lab::{Host, Lab, make_folder, open_sockets, same_content};

use crate::lcsync_lan::share;
use crate::world;

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
            let hash = receiver
                .host
                .run("lcsync", &["hash", "copy"])?
                .success()?
                .stdout;
            ensure!(hash.contains(&root), "hash {hash} is not {root}");
        }
        let open = open_sockets(process.pid())?;
        ensure!(open.is_empty(), "the server has opened sockets: {open:?}");
        let sent = (server.counter("tun_rx_bytes")? - before) as f64 / (3 * MEGABYTE) as f64;
        ensure!(
            sent < 2.5,
            "{sent:.2} bytes per byte for two receivers: {}",
            server.status()?
        );
        Ok(())
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
        lcroute_lab::lab::eventually("the receiver has joined", || {
            let groups = server.groups()?;
            ensure!(!groups.is_empty(), "nothing is wanted at the server");
            Ok(())
        })?;
        make_folder(&server.host.path("folder"), MEGABYTE)?;
        let _share = share(&server.host, &["folder"])?;
        let code = fetch.wait(Duration::from_secs(120))?;
        ensure!(code == 0, "exit code {code}: {}", fetch.stderr());
        same_content(&server.host.path("folder"), &first.host.path("copy"))
    });
}

/// The server accepts nothing but ICMPv6 and answers, on no interface; receivers are closed.
fn sealed_server_and_receivers(lab: &Lab) -> Result<Vec<Host>> {
    let server = lab.host("server")?;
    server.close_everywhere()?;
    let mut hosts = vec![server];
    hosts.extend(lab.closed_hosts(&["first", "second"])?);
    Ok(hosts)
}
