//! The duration of a JOIN.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use lcroute_demo::lab::Network;

/// Measures the time from a program's join to its first packet of a running flow (1,000 packets/s).
pub fn join(network: &Network) -> Result<Value> {
    let [a, b, ..] = &network.members[..] else {
        bail!("two members are needed");
    };
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
