//! A file over a wire: lcsync, and uftp if it is installed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use lcroute_demo::lab::{self, Host, Lab, noise, within};

const FILE_BYTES: usize = 100 << 20;

/// 100 MiB from a server to one receiver on the same Ethernet: lcsync, and uftp if it is installed.
pub fn files(lab: &Lab) -> Result<Value> {
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

/// Measures uftp, which takes an interface's first address, the IPv4 one: so it runs over IPv4.
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
