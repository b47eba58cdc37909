//! Third-party programs, as Debian installs them, between plain hosts of two LANs.
//!
//! `netns-tests/setup all` fetches the programs of ignored tests.

use crate::foreign::{foreign, libraries, said, start};
use crate::lan::{Sites, lan};
use crate::ordinary_programs::{
    IPERF_CLIENT, IPERF_SERVER, PYTHON_RECEIVER, PYTHON_SENDER, iperf_got_all,
};
use crate::prelude::*;
use crate::recipes::blocks;
use crate::{lan_ipv4, words};

const PAGE: &str = include_str!("../../../docs/guide/lan.md");

#[test]
fn iperf_python_and_socat_work_between_lans() {
    two_lans("lan-iperf", 1, "", |sites, [a, b]| {
        let text = a.hosts[0].write("text", "hello from socat\n")?;
        let from = format!("OPEN:{}", text.display());
        // iperf connects its socket to the sender, which requires a route
        b.hosts[0].ip("route add ::/0 via 2001:db8:a002::1")?;
        let server = b.hosts[0].spawn("iperf", &IPERF_SERVER)?;
        let python = b.hosts[0].spawn("python3", &["-c", PYTHON_RECEIVER])?;
        let join = "UDP6-RECV:5008,ipv6-join-group=[ff1e::8]:0";
        let socat = b.hosts[1].spawn("socat", &["-u", join, "STDOUT"])?;
        sites.wait_reported(0, 3)?;
        let from = ["-u", &from, "UDP6-SENDTO:[ff1e::8]:5008"];
        a.hosts[0].run("socat", &from)?.success()?;
        let sender = ["-c", PYTHON_SENDER];
        a.hosts[1].run("python3", &sender)?.success()?;
        let expected = "hello from python from 2001:db8:a001::3";
        eventually("socat and python print what came", || {
            let [socat, python] = [&socat, &python].map(Process::stdout);
            ensure!(socat == "hello from socat\n", "{socat:?}");
            holds!(python.contains(expected), "{python:?}")
        })?;
        a.hosts[0].run("iperf", &IPERF_CLIENT)?.success()?;
        iperf_got_all(&server)
    });
}

#[test]
#[ignore = "`make test-all`: programs of others"]
fn a_film_by_rtp_arrives_frame_by_frame() {
    const STREAM: &str = "rtp://[ff1e::50]:5004";
    two_lans("lan-film", 1, "", |sites, [a, b]| {
        // 8 s
        let make = "-nostdin -f lavfi -i testsrc2=size=640x360:rate=25 -frames:v 200 -c:v mpeg2video -g 10 -b:v 4M film.ts";
        run_ffmpeg(&a.hosts[0], make)?;
        let all = "-nostdin -i film.ts -f framemd5 -";
        let all = frames(&run_ffmpeg(&a.hosts[0], all)?);
        ensure!(all.len() == 200, "{} frames", all.len());
        // ends before the film does
        let watch = format!("-nostdin -i {STREAM} -frames:v 100 -f framemd5 -");
        let mut viewers = Vec::new();
        for viewer in &b.hosts {
            viewers.push(start(viewer, "ffmpeg", &words(&watch))?);
        }
        sites.wait_reported(0, 1)?;
        let play = format!("-nostdin -re -i film.ts -c copy -f rtp_mpegts {STREAM}");
        run_ffmpeg(&a.hosts[0], &play)?;
        for mut viewer in viewers {
            let code = viewer.wait(Duration::from_secs(40))?;
            let seen = frames(&viewer.stdout());
            ensure!(code == 0 && seen.len() == 100, "{}", viewer.stderr());
            let at = all.iter().position(|frame| *frame == seen[0]);
            let at = at.context("a frame that was never sent")?;
            ensure!(seen == all[at..at + 100], "frames are missing");
            println!("100 frames from number {at} on, all as they were sent");
        }
        Ok(())
    });
}

#[test]
#[ignore = "`make test-all`: programs of others"]
fn a_film_that_is_announced_by_ipv4_is_found_and_arrives_frame_by_frame() {
    world("lan-film-ipv4", |lab| {
        let sites = lan_ipv4::sites(lab, 1)?;
        let [a, b] = &sites.sites;
        let make = "-nostdin -f lavfi -i testsrc2=size=640x360:rate=25 -frames:v 400 -c:v mpeg2video -g 10 -b:v 4M film.ts";
        run_ffmpeg(&a.hosts[0], make)?;
        let all = "-nostdin -i film.ts -f framemd5 -";
        let all = frames(&run_ffmpeg(&a.hosts[0], all)?);
        ensure!(all.len() == 400, "{} frames", all.len());
        // it gets the announcement on 224.2.127.254, and joins the announced group
        let watch = "-nostdin -i sap:// -frames:v 100 -f framemd5 -";
        let mut viewer = start(&b.hosts[0], "ffmpeg", &words(watch))?;
        sites.wait_reported(0, 1)?;
        let play = "-nostdin -re -i film.ts -c copy -f sap sap://239.69.1.2:5004";
        let mut player = start(
            &a.hosts[1],
            "ffmpeg",
            &words(&play.replace("film.ts", &a.hosts[0].path("film.ts").display().to_string())),
        )?;
        let code = viewer.wait(Duration::from_secs(40))?;
        player.kill()?;
        let seen = frames(&viewer.stdout());
        ensure!(code == 0 && seen.len() == 100, "{}", viewer.stderr());
        // it starts in mid-film: frames that depend on earlier ones differ
        let known = seen.iter().position(|frame| all.contains(frame));
        let known = known.filter(|known| *known <= 25);
        let seen = &seen[known.context("no frame as it was sent")?..];
        let at = all.iter().position(|frame| *frame == seen[0]);
        let at = at.context("a frame that was never sent")?;
        ensure!(*seen == all[at..at + seen.len()], "frames are missing");
        println!(
            "{} frames from number {at} on, all as they were sent",
            seen.len()
        );
        Ok(())
    });
}

/// Runs ffmpeg; returns its output.
fn run_ffmpeg(host: &Host, args: &str) -> Result<String> {
    let mut process = start(host, "ffmpeg", &words(args))?;
    let code = process.wait(Duration::from_secs(40))?;
    ensure!(code == 0, "{args}: {}", process.stderr());
    Ok(process.stdout())
}

/// Returns the checksums of a film's frames.
fn frames(sums: &str) -> Vec<String> {
    let lines = sums.lines().filter(|line| !line.starts_with('#'));
    let sum = |line: &str| Some(line.split(',').nth(5)?.trim().to_owned());
    lines.filter_map(sum).collect()
}

#[test]
#[ignore = "`make test-all`: programs of others"]
fn channels_of_the_librecast_library_work_between_lans() {
    const PEER: &str = r#"
import ctypes, sys, time
lc = ctypes.CDLL("liblibrecast.so.0.5")
pointer, text, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
for name, result, arguments in [
    ("lc_ctx_new", pointer, []), ("lc_socket_new", pointer, [pointer]), ("lc_channel_new", pointer, [pointer, text]),
    ("lc_channel_bind", ctypes.c_int, [pointer, pointer]), ("lc_channel_join", ctypes.c_int, [pointer]),
    ("lc_socket_recv", ctypes.c_ssize_t, [pointer, text, size, ctypes.c_int]),
    ("lc_channel_send", ctypes.c_ssize_t, [pointer, text, size, ctypes.c_int]),
]:
    getattr(lc, name).restype, getattr(lc, name).argtypes = result, arguments
context = lc.lc_ctx_new()
socket = lc.lc_socket_new(context)
channel = lc.lc_channel_new(context, b"weather")
assert lc.lc_channel_bind(socket, channel) == 0
if sys.argv[1] == "hears":
    assert lc.lc_channel_join(channel) == 0
    buffer = ctypes.create_string_buffer(2000)
    while True:
        length = lc.lc_socket_recv(socket, buffer, 2000, 0)
        print(buffer.raw[:length].decode(), flush=True)
for number in range(10):
    message = b"rain %d" % number
    assert lc.lc_channel_send(channel, message, len(message), 0) == len(message)
    time.sleep(0.02)
"#;
    two_lans("lan-librecast", 1, "", |sites, [a, b]| {
        let libraries = libraries()?;
        let peer = |verb| [&libraries, "python3", "-c", PEER, verb].map(str::to_owned);
        let args = peer("hears");
        let listener = b.hosts[0].spawn("env", &args.each_ref().map(String::as_str))?;
        sites.wait_reported(0, 1)?;
        let args = peer("says");
        let sender = a.hosts[0].run("env", &args.each_ref().map(String::as_str))?;
        sender.success()?;
        let expected: String = (0..10).map(|n| format!("rain {n}\n")).collect();
        becomes(expected, || Ok(listener.stdout()))
    });
}

#[test]
#[ignore = "`make test-all`: programs of others"]
fn cyclonedds_of_the_recipe_works_between_lans() {
    world("lan-dds", |lab| {
        let sites = Sites::new(lab, 1)?;
        let [a, b] = &sites.sites;
        let perf = |host: &Host, args: &str| ddsperf(host, "lan0", args);
        // only multicast: they find each other, but cannot connect
        let mut listener = perf(&b.hosts[0], "-D 8 -Q minmatch:1 sub")?;
        let mut speaker = perf(&a.hosts[0], "-D 8 -Q minmatch:1 pub 50Hz size 1000")?;
        for process in [&mut listener, &mut speaker] {
            let code = process.wait(Duration::from_secs(40))?;
            let said = said(process);
            // itself and the peer
            ensure!(said.matches(": new").count() == 2, "{said}");
            ensure!(
                code == 1 && said.contains("failed to match"),
                "{code}: {said}"
            );
        }
        // with a path for answers
        route(lab, &sites)?;
        let carried =
            || Ok::<_, anyhow::Error>(lan(&sites.members(1)[0])?["counters"]["tx"].as_u64());
        let before = carried()?.unwrap_or_default();
        let listeners = [&a.hosts[1], &b.hosts[0], &b.hosts[1]];
        let mut peers = Vec::new();
        for host in listeners {
            peers.push(perf(host, "-D 15 -Q minmatch:3 -Q samples:250 sub")?);
        }
        peers.push(perf(&a.hosts[0], "-D 15 -Q minmatch:3 pub 50Hz size 1000")?);
        for process in &mut peers {
            let code = process.wait(Duration::from_secs(40))?;
            let said = said(process);
            ensure!(code == 0, "{code}: {said}");
            println!(
                "{}",
                said.lines()
                    .rfind(|l| l.contains("total"))
                    .unwrap_or_default()
            );
        }
        let carried = carried()?.unwrap_or_default() - before;
        ensure!(
            (250..2_000).contains(&carried),
            "{carried} packets by multicast"
        );
        println!("{carried} packets came into the second LAN by multicast");
        Ok(())
    });
}

/// Starts CycloneDDS's own program with the recipe.
pub(crate) fn ddsperf(host: &Host, interface: &str, args: &str) -> Result<Process> {
    let recipe = blocks(PAGE).into_iter().find(|b| b.language == "xml");
    let recipe = recipe.context("no recipe")?.lines.join("\n");
    ensure!(recipe.contains("\"eth0\""), "{recipe}");
    let recipe = recipe.replace("\"eth0\"", &format!("\"{interface}\""));
    let file = host.write("cyclonedds.xml", recipe)?;
    let set = format!("CYCLONEDDS_URI=file://{}", file.display());
    let program = foreign("ddsperf", &words(args))?;
    let all = [set].into_iter().chain(program).collect::<Vec<_>>();
    host.spawn("env", &all.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Routes unicast between hosts of both LANs, as providers and VPNs do.
fn route(lab: &Lab, sites: &Sites) -> Result<()> {
    for (at, n) in [(0, 1), (1, 2)] {
        let gateway = &sites.members(at)[0].host;
        gateway
            .namespace()
            .sysctl("net/ipv6/conf/all/forwarding", "1")?;
        lab.internet().ip(&format!(
            "route add 2001:db8:a00{n}::/64 via {}",
            gateway.v6()?
        ))?;
        for host in &sites.sites[at].hosts {
            host.ip(&format!("route add ::/0 via 2001:db8:a00{n}::1"))?;
        }
    }
    let there = sites.sites[1].hosts[0].clone();
    let [a, _] = &sites.sites;
    eventually("the route works", || {
        let ping = a.hosts[0].ask("ping", &["-c", "1", "-W", "1", "2001:db8:a002::2"])?;
        holds!(ping.code == 0, "{}: {}", there.name(), ping.stdout)
    })
}
