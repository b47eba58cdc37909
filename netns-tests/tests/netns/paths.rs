//! What the path between two nodes does to datagrams: marks.

use anyhow::{Context, ensure};
use netns_tests::lab::{Member, eventually};

use crate::world;

/// Packets to the other node that met a filling queue, as `peers` says.
fn congested(node: &Member) -> anyhow::Result<u64> {
    let peers = node.peers()?;
    let peer = peers.first().context("no peer")?;
    peer["congested_packets"]
        .as_u64()
        .with_context(|| format!("{peer}"))
}

#[test]
fn a_router_that_marks_congestion_is_heard_by_the_sender() {
    for family in ["v4", "v6"] {
        world(&format!("ecn-{family}"), |lab| {
            let hosts = lab.closed_hosts(&["a", "b"])?;
            match family {
                "v4" => hosts[0].cut_towards(hosts[1].v6()?.into())?,
                _ => hosts[0].cut_towards(hosts[1].v4()?.into())?,
            }
            lab.internet().nft(
                "table inet congestion {
                   chain forward {
                     type filter hook forward priority 0
                     udp length > 800 ip ecn ect0 ip ecn set ce
                     udp length > 800 ip6 ecn ect0 ip6 ecn set ce
                   }
                 }",
            )?;
            let mut network = lab.network(hosts)?;
            network.start()?;
            let [a, b] = network.nodes()?;
            let receiver = b.host.receive("ff1e::42", &[])?;
            a.wait_wanted("ff1e::42", b)?;
            ensure!(congested(a)? == 0, "{:?}", a.peers()?);
            a.host.send("ff1e::42", 100, &[])?;
            receiver.expect_exactly(100)?;
            eventually("a knows that all packets were marked", || {
                let marked = congested(a)?;
                ensure!(marked >= 100, "{marked} marked");
                Ok(())
            })?;
            ensure!(congested(b)? == 0, "{:?}", b.peers()?);
            Ok(())
        });
    }
}
