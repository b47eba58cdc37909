//! `lcroute bench` as users run it.

use std::process::{Command, Output};

use crate::prelude::*;

fn bench(args: &[&str]) -> Result<Output> {
    let _turn = Turn::wait();
    Ok(Command::new(crate::PROGRAM)
        .arg("bench")
        .args(args)
        .output()?)
}

fn figures(args: &[&str]) -> Result<Value> {
    let done = bench(args)?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{:?}\n{said}", done.status);
    serde_json::from_slice(&done.stdout).context("the output is JSON")
}

#[test]
fn a_modest_rate_goes_through_whole_and_its_cost_is_told() -> Result<()> {
    let told = figures(&crate::words("--seconds 1 --rate 500 --listeners 2 --json"))?;
    let rate = &told["systems"]["lcroute"]["rate"];
    let number = |pointer: &str| {
        let found = rate.pointer(pointer).and_then(Value::as_f64);
        found.with_context(|| format!("no {pointer} in {told:#}"))
    };
    ensure!(number("/loss_percent")? == 0.0, "{rate:#}");
    ensure!(
        (1.0..=500.0).contains(&number("/packets_per_s")?),
        "{rate:#}"
    );
    ensure!(number("/cpu_s_per_gb/sender")? > 0.0, "{rate:#}");
    ensure!(number("/cpu_s_per_gb/receiver")? > 0.0, "{rate:#}");
    let [p50, p99, max] = ["p50", "p99", "max"].map(|name| number(&format!("/latency_us/{name}")));
    ensure!(
        p50? <= p99? && number("/latency_us/p99")? <= max?,
        "{rate:#}"
    );
    // Twice the payload leaves the sender, and none of it reaches nodes without listeners.
    ensure!(
        (2.0..3.0).contains(&number("/sender_wire_bytes_per_byte")?),
        "{rate:#}"
    );
    ensure!(number("/idle_node_bytes_per_byte")? < 0.5, "{rate:#}");
    let resident = rate["resident_bytes"]
        .as_array()
        .context("resident_bytes")?;
    holds!(
        resident.len() == 4,
        "a daemon on each of four hosts: {rate:#}"
    )
}

#[test]
fn links_that_lose_show_in_the_figures() -> Result<()> {
    let told = figures(&crate::words(
        "--seconds 1 --rate 1000 --loss 50 --through relay --json",
    ))?;
    let lost = told["systems"]["relay"]["rate"]["loss_percent"].as_f64();
    holds!(
        lost.is_some_and(|lost| (40.0..60.0).contains(&lost)),
        "{told:#}"
    )
}

/// Super-packets pass the relay undamaged: a damaged datagram would not count as one of the
/// sender's.
#[test]
fn trains_pass_the_relay_whole() -> Result<()> {
    let told = figures(&crate::words(
        "--seconds 1 --rate 2000 --gso --gro --through relay --json",
    ))?;
    let rate = &told["systems"]["relay"]["rate"];
    holds!(rate["loss_percent"] == 0.0, "{told:#}")
}

#[test]
fn wrong_arguments_and_wrong_settings_are_explained() -> Result<()> {
    let refused = bench(&["--size", "9000"])?;
    ensure!(refused.status.code() == Some(2), "{refused:?}");
    let refused = bench(&["--set", "live.nonsense=1", "--rate", "500"])?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(refused.status.code() == Some(1), "{refused:?}");
    holds!(said.contains("nonsense"), "{said}")
}

#[test]
fn help_shows_what_can_be_measured() -> Result<()> {
    let help = bench(&["--help"])?;
    let said = String::from_utf8_lossy(&help.stdout);
    ensure!(help.status.success(), "{help:?}");
    for word in ["--through", "fastd-multitap", "--loss", "--set"] {
        ensure!(said.contains(word), "no {word} in {said}");
    }
    Ok(())
}
