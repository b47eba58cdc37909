//! `lcroute-demo bench`: the first figures, all from one run on one machine, as JSON.
//!
//! Build with `--release`; compare with another run on the same machine only.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde_json::{Value, json};

use crate::lab::{self, Host, Lab, Network, Receiver, noise, within};

const GROUP: &str = "ff1e::42";
const SIZE: u64 = 1_200;
/// How long one rate is tried.
const TRIAL: f64 = 2.0;
const FILE_BYTES: usize = 100 << 20;

/// Measures multicast through lc0 (1 to 2), JOIN to first packet, and lcsync over a wire.
#[derive(Debug, Parser)]
#[command(name = "lcroute-demo bench")]
struct Args {
    /// Only lcsync.
    #[arg(long, conflicts_with = "only_multicast")]
    only_lcsync: bool,
    /// Only multicast through lc0.
    #[arg(long)]
    only_multicast: bool,
}

/// The program.
pub fn main() -> ExitCode {
    match measure(&Args::parse()) {
        Ok(figures) => {
            println!("{figures:#}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &Args) -> Result<Value> {
    lab::isolate()?;
    let program = std::fs::read_link("/proc/self/exe").context("/proc/self/exe")?;
    let mut figures = json!({"optimized": !cfg!(debug_assertions)});
    if !args.only_lcsync {
        let lab = Lab::new("bench-multicast", &program)?;
        let network = lab.closed_network(["a", "b", "c"])?;
        figures["multicast_1_to_2"] = multicast(&network)?;
        figures["join_to_first_packet_ms"] = join(&network)?;
    }
    if !args.only_multicast {
        let lab = Lab::new("bench-lcsync", &program)?;
        figures["file_over_veth"] = files(&lab)?;
    }
    Ok(figures)
}

/// The highest rate at which both receivers get every packet: doubled until it fails, then five
/// times halved in between.
fn multicast(network: &Network) -> Result<Value> {
    let (mut good, mut bad) = (None::<Trial>, None::<u64>);
    let mut rate = 2_000;
    for _ in 0..14 {
        let trial = Trial::run(network, rate)?;
        eprintln!("{rate:>7} packets/s: {} lost", trial.lost);
        if trial.lost == 0 {
            good = Some(trial);
        } else {
            bad = Some(rate);
        }
        let reached = good.as_ref().map_or(0, |trial| trial.rate);
        rate = match bad {
            None => rate * 2,
            Some(bad) if bad - reached <= reached / 20 + 100 => break,
            Some(bad) => (reached + bad) / 2,
        };
    }
    let best = good.context("even the lowest rate lost packets")?;
    Ok(json!({
        "payload_bytes": SIZE,
        "packets_per_s": best.rate,
        "mbit_per_s": best.rate as f64 * SIZE as f64 * 8.0 / 1e6,
        "latency_us": best.latency,
    }))
}

struct Trial {
    rate: u64,
    lost: u64,
    latency: Value,
}

impl Trial {
    /// Sends for two seconds to two receivers that joined anew.
    fn run(network: &Network, wanted: u64) -> Result<Trial> {
        let [a, b, c] = network.nodes()?;
        let receivers = [b.host.receive(GROUP, &[])?, c.host.receive(GROUP, &[])?];
        a.wait_wanted(GROUP, b)?;
        a.wait_wanted(GROUP, c)?;
        let count = (wanted as f64 * TRIAL) as u64;
        let (size, rate) = (SIZE.to_string(), wanted.to_string());
        let sent = a
            .host
            .send(GROUP, count, &["--rate", &rate, "--size", &size])?;
        let got = [settled(&receivers[0])?, settled(&receivers[1])?];
        let lost = got.iter().map(|got| count.saturating_sub(*got)).sum();
        let latency = receivers[0].state()?["latency_us"].clone();
        drop(receivers);
        a.wait_unwanted(GROUP, b)?;
        a.wait_unwanted(GROUP, c)?;
        // A sender that could not keep up has measured itself: its own rate counts.
        let reached = (sent.packets as f64 / sent.seconds).round() as u64;
        Ok(Trial {
            rate: reached.min(wanted),
            lost,
            latency,
        })
    }
}

/// How many packets have come when nothing more has come for a while.
fn settled(receiver: &Receiver) -> Result<u64> {
    let (mut got, mut since) = (receiver.packets()?, Instant::now());
    while since.elapsed() < Duration::from_secs(1) {
        std::thread::sleep(Duration::from_millis(50));
        let now = receiver.packets()?;
        if now > got {
            (got, since) = (now, Instant::now());
        }
    }
    Ok(got)
}

/// How long after its join a program gets the first packet of a running flow (1,000 packets/s).
fn join(network: &Network) -> Result<Value> {
    let [a, b, _] = network.nodes()?;
    let group = "ff1e::43";
    let _sender = a.host.spawn(
        "mc-send",
        &[
            group, "--count", "1000000", "--rate", "1000", "--size", "200",
        ],
    )?;
    let mut times = Vec::new();
    for _ in 0..11 {
        let mut receiver = b.host.receive(group, &["--count", "1"])?;
        let code = receiver.process().wait(Duration::from_secs(20))?;
        ensure!(code == 0, "mc-recv ended with {code}");
        times.push(
            receiver.state()?["join_to_first_ms"]
                .as_f64()
                .context("join_to_first_ms")?,
        );
        a.wait_unwanted(group, b)?;
    }
    times.sort_by(f64::total_cmp);
    Ok(json!({"median": times[times.len() / 2], "max": times.last(), "trials": times.len()}))
}

/// 100 MiB from a server to one receiver on the same Ethernet: lcsync, and uftp where installed.
fn files(lab: &Lab) -> Result<Value> {
    let hosts = lab.lan(&["server", "receiver"])?;
    let file = hosts[0].write("file", noise(1, FILE_BYTES))?;
    let mut share = hosts[0].spawn("lcsync", &["share", "file", "-i", lab::LAN])?;
    within(Duration::from_secs(60), "the share is ready", || {
        share.must_run()?;
        ensure!(share.stdout().starts_with("lc:file"), "not yet");
        Ok(())
    })?;
    let lcsync = timed(&hosts, || {
        hosts[1]
            .run("lcsync", &["lc:file", "copy", "-i", lab::LAN])?
            .success()?;
        ensure!(
            std::fs::read(&file)? == std::fs::read(hosts[1].path("copy"))?,
            "the copy differs"
        );
        Ok(())
    })?;
    drop(share);
    let mut figures = json!({"bytes": FILE_BYTES, "lcsync": lcsync});
    if lab::find_program("uftpd").is_some() {
        let uftp = uftp(&hosts)?;
        figures["lcsync_faster_than_uftp"] = json!(
            uftp["seconds"].as_f64().context("seconds")?
                / figures["lcsync"]["seconds"].as_f64().context("seconds")?
        );
        figures["uftp"] = uftp;
    }
    Ok(figures)
}

/// uftp takes the first address of an interface, which is its IPv4 one: so it runs over IPv4.
fn uftp(hosts: &[Host]) -> Result<Value> {
    let target = hosts[1].path("uftp");
    std::fs::create_dir_all(&target)?;
    let mut client = hosts[1].spawn(
        "uftpd",
        &["-d", "-D", &target.to_string_lossy(), "-I", lab::LAN],
    )?;
    within(Duration::from_secs(10), "uftpd has joined", || {
        client.must_run()?;
        let memberships = hosts[1].namespace().read("/proc/thread-self/net/igmp")?;
        ensure!(
            memberships.contains("010404E6"),
            "not 230.4.4.1 yet: {memberships}"
        );
        Ok(())
    })?;
    timed(hosts, || {
        let sent = hosts[0].run("uftp", &["-R", "-1", "-I", lab::LAN, "file"])?;
        sent.success()?;
        let got = std::fs::metadata(target.join("file"))?.len();
        ensure!(got == FILE_BYTES as u64, "uftp delivered {got} bytes");
        Ok(())
    })
}

fn timed(hosts: &[Host], transfer: impl FnOnce() -> Result<()>) -> Result<Value> {
    let (_, before) = hosts[0].interface_traffic(lab::LAN)?;
    let begin = Instant::now();
    transfer()?;
    let seconds = begin.elapsed().as_secs_f64();
    let (_, after) = hosts[0].interface_traffic(lab::LAN)?;
    Ok(json!({
        "seconds": seconds,
        "mbit_per_s": FILE_BYTES as f64 * 8.0 / 1e6 / seconds,
        "server_bytes_per_byte": (after - before).bytes as f64 / FILE_BYTES as f64,
    }))
}
