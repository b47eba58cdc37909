//! lcsync with lost, forged, excessive or old JOINs and PARTs, and with other queriers.

use lcroute_demo::lab::MldWatch;

use crate::lcsync_failures::has_received;
use crate::lcsync_lan::{Lan, share};
use crate::prelude::*;

const MEGABYTE: usize = 1_000_000;
const FETCH: [&str; 4] = ["lc:folder", "copy", "-i", "lan0"];

#[test]
fn a_fifth_of_all_reports_and_queries_lost_stops_nobody() {
    const SIZE: usize = 4 * MEGABYTE;
    world("mld-loss", |lab| {
        let args = ["--bwlimit", "30M"];
        let lan = Lan::with_args(lab, &["first", "second"], SIZE, &args)?;
        lan.server.nft(
            "table inet lossy {
               counter lost { }
               chain in {
                 type filter hook input priority 0;
                 icmpv6 type { mld2-listener-report, mld-listener-done } numgen random mod 100 < 20 counter name lost drop
               }
               chain out {
                 type filter hook output priority 0;
                 icmpv6 type mld-listener-query numgen random mod 100 < 20 counter name lost drop
               }
             }",
        )?;
        let before = sent(&lan.server)?;
        let mut fetches = lan.fetch_all(&["lc:folder", "copy"])?;
        lan.arrive(&mut fetches)?;
        let cost = (sent(&lan.server)? - before) as f64 / SIZE as f64;
        ensure!(cost < 2.5, "the server sent {cost:.2} bytes per byte");
        let lost = lan
            .server
            .ask("nft", &["list", "counter", "inet", "lossy", "lost"])?;
        holds!(
            !lost.stdout.contains("packets 0 "),
            "nothing was lost: {}",
            lost.stdout
        )
    });
}

#[test]
fn a_receiver_that_dies_without_a_part_costs_its_budget_and_no_more() {
    world("mld-dead", |lab| {
        let args = ["--bwlimit", "30M"];
        let lan = Lan::with_args(lab, &["receiver"], 20 * MEGABYTE, &args)?;
        let _fetch = lan.receivers[0].spawn("lcsync", &FETCH)?;
        has_received(&lan.receivers[0], 2 * MEGABYTE)?;
        let switch = lab.find("switch").context("no switch")?;
        switch.ip("link set port2 down")?;
        let before = sent(&lan.server)?;
        falls_silent(&lan.server)?;
        let spent = sent(&lan.server)? - before;
        // ten channels at this rate, each with 1.25 K + 2 symbols of 1,114 bytes
        let budget = 10 * (258 + 64) * 1_114 + 100_000;
        holds!(spent < budget, "{spent} bytes, {budget} at most")
    });
}

#[test]
fn a_flood_of_joins_for_random_groups_is_counted_and_costs_no_memory() {
    world("mld-random", |lab| {
        let lan = Lan::new(lab, &["receiver", "flooder"], MEGABYTE)?;
        let more = grown_by_a_flood(&lan, "join", "500", "30000")?;
        ensure!(more < 32 << 20, "{more} bytes more");
        lan.share.says("unknown_channel")
    });
}

#[test]
fn thousands_who_join_one_share_leave_half_of_the_server_to_another() {
    const SIZE: usize = 6 * MEGABYTE;
    world("mld-starve", |lab| {
        let mut hosts = lab.lan(&["server", "receiver", "flooder"])?;
        let receivers = hosts.split_off(1);
        let server = hosts.remove(0);
        let folder = server.path("folder");
        make_folder(&folder, SIZE)?;
        make_folder(&server.path("other"), SIZE)?;
        let args = ["folder", "other", "-i", LAN, "--bwlimit", "40M"];
        let (share, _) = share(&server, &args)?;
        let lan = Lan {
            server,
            receivers,
            folder,
            share,
        };
        let (groups, _watch) = learn(&lan)?;
        let flooder = &lan.receivers[1];
        let groups: Vec<String> = groups.into_iter().collect();
        flooder.write("groups", groups.join("\n"))?;
        let joins = ["join", "--groups", "groups", "--sources", "5000"];
        let mut flood = mld_flood(
            flooder,
            &[&joins[..], &["--rate", "1000", "--count", "1000000"]].concat(),
        )?;
        eventually("the flood has begun to be served", || {
            let before = sent(&lan.server)?;
            sleep(Duration::from_millis(200));
            let more = sent(&lan.server)? - before;
            holds!(more > 500_000, "{more} bytes in 0.2 s")
        })?;
        let before = sent(&lan.server)?;
        fetch(&lan.receivers[0], "lc:other", "beside")?;
        let all = sent(&lan.server)? - before;
        ensure!(flood.is_running(), "the flood has ended");
        flood.kill()?;
        same_content(&lan.folder, &lan.receivers[0].path("beside"))?;
        // its share is half of the sent bytes, except before its first request
        let fair = 3 * SIZE as u64 + 10_000_000;
        holds!(all < fair, "{all} bytes sent for {SIZE} of them")
    });
}

#[test]
fn malformed_mld_is_counted_and_changes_nothing() {
    world("mld-malformed", |lab| {
        let lan = Lan::new(lab, &["receiver", "flooder"], MEGABYTE)?;
        grown_by_a_flood(&lan, "malformed", "50", "20000")?;
        lan.share.says("malformed")
    });
}

#[test]
fn joins_lost_by_a_full_queue_are_asked_for() {
    world("mld-queue", |lab| {
        let mut lan = Lan::new(lab, &["receiver", "flooder"], MEGABYTE)?;
        let watch = lan.receivers[1].watch_mld(&["--interface", LAN])?;
        lan.share.signal(Signal::SIGSTOP)?;
        let flood = ["join", "--sources", "50", "--count", "20000"];
        ends_well(&mut mld_flood(&lan.receivers[1], &flood)?)?;
        let mut fetch = lan.receivers[0].spawn("lcsync", &FETCH)?;
        reported_for_good(&watch)?;
        lan.share.signal(Signal::SIGCONT)?;
        ends_well(&mut fetch)?;
        same_content(&lan.folder, &lan.receivers[0].path("copy"))?;
        lan.share.must_run()?;
        lan.share.says("MLD reports lost, asking everybody")
    });
}

#[test]
fn hosts_that_speak_version_1_only_are_served_and_the_server_falls_silent_after_them() {
    world("mld-v1", |lab| {
        let mut hosts = lab.lan(&["server", "old", "older", "new"])?;
        // the switch then forwards reports only to queriers
        let switch = lab.find("switch").context("no switch")?;
        switch.ip("link set bridge type bridge mcast_snooping 1")?;
        // before the first query, which they would still answer by version 2
        for old in &hosts[1..3] {
            let namespace = old.namespace();
            namespace.sysctl("net/ipv6/conf/lan0/force_mld_version", "1")?;
        }
        let new = hosts.pop().context("four hosts")?;
        let receivers = hosts.split_off(1);
        let server = hosts.remove(0);
        let folder = server.path("folder");
        make_folder(&folder, 4 * MEGABYTE)?;
        let (share, _) = share(&server, &["folder", "-i", LAN])?;
        let lan = Lan {
            server,
            receivers,
            folder,
            share,
        };
        let watch = new.watch_mld(&["--interface", LAN])?;
        for dest in ["copy", "again"] {
            let mut fetches = lan.fetch_all(&["lc:folder", dest])?;
            for fetch in &mut fetches {
                ends_well(fetch)?;
            }
            for old in &lan.receivers {
                same_content(&lan.folder, &old.path(dest))?;
            }
            falls_silent(&lan.server)?;
        }
        let joined = lcsync_groups(&watch)?;
        ensure!(joined.is_empty(), "not version 1 only: {joined:?}");
        fetch(&new, "lc:folder", "copy")?;
        same_content(&lan.folder, &new.path("copy"))
    });
}

#[test]
fn a_receiver_that_joined_before_the_server_started_is_found() {
    on_a_lan("mld-early", ["server", "receiver"], |[server, receiver]| {
        make_folder(&server.path("folder"), MEGABYTE)?;
        let watch = server.watch_mld(&["--interface", LAN])?;
        let mut fetch = receiver.spawn("lcsync", &FETCH)?;
        reported_for_good(&watch)?;
        drop(watch);
        let _share = share(server, &["folder", "-i", "lan0"])?;
        ends_well(&mut fetch)?;
        same_content(&server.path("folder"), &receiver.path("copy"))
    });
}

#[test]
fn where_nobody_asks_the_server_is_a_querier() {
    world("mld-querier", |lab| {
        let hosts = lab.lan(&["server", "watcher"])?;
        let watch = hosts[1].watch_mld(&["--interface", LAN, "--packet"])?;
        hosts[0].write("folder/f", "words")?;
        let _share = share(&hosts[0], &["folder", "-i", "lan0"])?;
        at_least(3, || Ok(watch.queries()?.len()))?;
        for query in watch.queries()? {
            let source = query["source"].as_str().unwrap_or_default();
            ensure!(
                query["query"] == "::"
                    && query["robustness"] == 5
                    && query["interval"] == 10
                    && query["hop_limit"] == 1
                    && source.starts_with("fe80:"),
                "{query}"
            );
        }
        Ok(())
    });
}

#[test]
fn a_querier_with_a_lower_address_silences_the_server_until_it_is_gone() {
    world("mld-silent", |lab| {
        let hosts = lab.lan(&["server", "querier"])?;
        let watch = hosts[1].watch_mld(&["--interface", LAN, "--packet"])?;
        let mut other = mld_flood(&hosts[1], &["query", "--rate", "2", "--count", "1000"])?;
        let asked = |by_server: bool| -> Result<usize> {
            let all = watch.queries()?.into_iter();
            Ok(all
                .filter(|q| (q["source"] != "fe80::1") == by_server)
                .count())
        };
        eventually("the querier asks", || holds!(asked(false)? > 0, "not yet"))?;
        hosts[0].write("folder/f", "words")?;
        let _share = share(&hosts[0], &["folder", "-i", "lan0"])?;
        let begin = asked(false)?;
        // seven seconds: alone the server asks at 0, 2 and 4
        at_least(begin + 14, || asked(false))?;
        let before = asked(true)?;
        ensure!(before <= 2, "the server has asked {before} times");
        other.kill()?;
        exceeds(before, || asked(true))
    });
}

#[test]
fn a_receiver_with_the_option_memory_of_an_old_kernel_takes_further_sockets() {
    world("mld-optmem", |lab| {
        let args = ["--bwlimit", "400M"];
        let lan = Lan::with_args(lab, &["receiver"], 50 * MEGABYTE, &args)?;
        // old kernels have 20,480, enough for 365 groups: this is fewer than a window
        lan.receivers[0]
            .namespace()
            .sysctl("net/core/optmem_max", "1500")?;
        let mut fetch = lan.receivers[0].spawn("lcsync", &FETCH)?;
        let mut most = 0;
        eventually("it has finished", || {
            most = most.max(open_sockets(fetch.pid()).map_or(0, |open| open.len()));
            holds!(!fetch.is_running(), "not yet")
        })?;
        fetch.expect_exit(Duration::ZERO, 0)?;
        same_content(&lan.folder, &lan.receivers[0].path("copy"))?;
        holds!(most > 1, "it had {most} sockets")
    });
}

/// Returns the groups of a first fetch, as the last host observes them.
fn learn(lan: &Lan) -> Result<(BTreeSet<String>, MldWatch)> {
    let last = lan.receivers.last().context("no hosts")?;
    let watch = last.watch_mld(&["--interface", LAN])?;
    fetch(&lan.receivers[0], "lc:folder", "copy")?;
    Ok((lcsync_groups(&watch)?, watch))
}

fn lcsync_groups(watch: &MldWatch) -> Result<BTreeSet<String>> {
    let mut groups = watch.groups("JOIN")?;
    groups.retain(|g| g.starts_with("ff1e:"));
    Ok(groups)
}

/// Waits until a receiver's kernel has repeated its report (twice in all).
fn reported_for_good(watch: &MldWatch) -> Result<()> {
    eventually("the receiver's kernel has said all it says", || {
        let groups = lcsync_groups(watch)?;
        let root = groups
            .iter()
            .find(|g| g.ends_with("::"))
            .context("no root channel yet")?;
        holds!(watch.seen("JOIN", root)? >= 2, "not yet")
    })
}

/// Fetches a share on the LAN.
fn fetch(host: &Host, share: &str, dest: &str) -> Result<()> {
    let mut fetch = host.spawn("lcsync", &[share, dest, "-i", LAN])?;
    ends_well(&mut fetch)
}

/// Serves a receiver during a flood for the root channel; returns the growth of peak memory in bytes.
fn grown_by_a_flood(lan: &Lan, kind: &str, sources: &str, count: &str) -> Result<u64> {
    let (groups, _watch) = learn(lan)?;
    let prefix = groups.iter().find(|g| g.ends_with("::"));
    let prefix = prefix.context("no root channel")?;
    let before = lan.share.peak_memory()?;
    let args = format!("{kind} --prefix {prefix} --sources {sources} --count {count}");
    let args = crate::words(&args);
    let mut flood = mld_flood(&lan.receivers[1], &args)?;
    fetch(&lan.receivers[0], "lc:folder", "again")?;
    same_content(&lan.folder, &lan.receivers[0].path("again"))?;
    ends_well(&mut flood)?;
    Ok(lan.share.peak_memory()? - before)
}

fn mld_flood(host: &Host, args: &[&str]) -> Result<Process> {
    host.spawn("mld-flood", args)
}

fn ends_well(process: &mut Process) -> Result<()> {
    process.expect_exit(Duration::from_secs(60), 0)
}

/// Waits until a server sends no more symbols; records may still leave.
fn falls_silent(server: &Host) -> Result<()> {
    eventually("the server has fallen silent", || {
        let before = sent(server)?;
        sleep(Duration::from_millis(700));
        let more = sent(server)? - before;
        holds!(more < 3_000, "it sent {more} bytes in 0.7 s")
    })
}

/// Returns the bytes that a host has sent on the LAN.
fn sent(host: &Host) -> Result<u64> {
    Ok(host.interface_traffic(LAN)?.1.bytes)
}
