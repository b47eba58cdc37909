//! Live traffic over a lossy path: repair replaces lost packets, unless it is off.

use crate::prelude::*;

const MESSAGES: u64 = 5_000;

/// Receptions by b of [`MESSAGES`] from a at 5 % loss both ways, and the number that a sent.
struct Outcome {
    receiver: Receiver,
    let_out: f64,
    resent: u64,
    repaired: u64,
}

impl Outcome {
    fn share(&self) -> Result<f64> {
        Ok(self.receiver.packets()? as f64 / self.let_out)
    }
}

fn run(lab: &Lab, config: &str) -> Result<Outcome> {
    let mut network = lab.network(lab.configured_hosts(&["a", "b"], config)?)?;
    network.start()?;
    let [a, b] = network.nodes()?;
    let receiver = a.known_receiver(b, "ff1e::42", &[])?;
    b.host.set_loss(UPLINK, 5)?;
    a.host.send("ff1e::42", MESSAGES, &["--rate", "1000"])?;
    // later packets, which are not counted
    exceeds(MESSAGES / 2, || receiver.packets())?;
    let waited =
        ["queue_delay", "queue_codel", "queue_full"].map(|why| a.counter(&format!("drops/{why}")));
    let waited = waited.into_iter().sum::<Result<u64>>()?;
    // random loss must not reduce the rate to a tenth, as in loss-based congestion control; a
    // process without CPU time drops some
    ensure!(
        waited < MESSAGES / 10,
        "{waited} never left: {}",
        a.status()?
    );
    Ok(Outcome {
        let_out: (MESSAGES - waited) as f64,
        resent: repair(a, "media_resent")?,
        repaired: repair(b, "media_repaired")?,
        receiver,
    })
}

fn repair(node: &Member, what: &str) -> Result<u64> {
    let peers = node.peers()?;
    let peer = peers.first().context("no peer")?;
    peer[what].as_u64().with_context(|| format!("{peer}"))
}

#[test]
fn lost_packets_come_again() {
    world("repair", |lab| {
        let outcome = run(lab, "")?;
        eventually("all but a few have come", || {
            // 0.999 on a quiet machine: packets of a delayed process are late
            let share = outcome.share()?;
            holds!(share >= 0.995, "{share}")
        })?;
        let Outcome {
            resent, repaired, ..
        } = outcome;
        ensure!(resent > 100 && repaired > 100, "{resent}, {repaired}");
        holds!(outcome.receiver.number("duplicates")? == 0)
    });
}

#[test]
fn without_repair_the_path_takes_its_share() {
    world("no-repair", |lab| {
        let outcome = run(lab, "[live]\nrepair_ms = 0\n")?;
        eventually("what the path delivers has come", || {
            let share = outcome.share()?;
            holds!((0.92..0.98).contains(&share), "{share}")
        })?;
        holds!((outcome.resent, outcome.repaired) == (0, 0))
    });
}

/// Packets and bytes in both directions for each packet of a thin flow, 50 a second, with its
/// latency.
#[test]
#[ignore = "a measurement"]
fn thin_flows_measured() {
    with_members("thin", ["a", "b"], |_, [a, b]| {
        let count = 1_000;
        for (size, loss) in [("160", 0), ("400", 0), ("160", 5)] {
            if loss > 0 {
                b.host.set_loss(UPLINK, loss)?;
            }
            let receiver = a.known_receiver(b, "ff1e::42", &[])?;
            let before = a.host.uplink_traffic()?;
            a.host
                .send("ff1e::42", count, &["--rate", "50", "--size", size])?;
            let after = a.host.uplink_traffic()?;
            let each = |n: u64| n as f64 / count as f64;
            println!(
                "{size} bytes, {loss} % lost: out {:.2} packets, {:.0} bytes; back {:.2}, {:.0}; {} unique, {} resent, latency {}",
                each(after.1.packets - before.1.packets),
                each(after.1.bytes - before.1.bytes),
                each(after.0.packets - before.0.packets),
                each(after.0.bytes - before.0.bytes),
                receiver.number("unique")?,
                repair(a, "media_resent")?,
                receiver.state()?["latency_us"],
            );
        }
        Ok(())
    });
}
