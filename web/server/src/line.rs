//! A line of the stream to a page.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lcroute_control::status::{Group, Lan, Look, Peer, Status};
use lcroute_node::view::Network;
use serde::Serialize;

use crate::names::{Name, is_own};

/// The state that a page gets once a second.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    /// Unix seconds.
    at: f64,
    status: &'a Status,
    /// Explanations of the drop reasons.
    meanings: BTreeMap<&'a str, &'a str>,
    peers: &'a [Peer],
    groups: Vec<&'a Group>,
    lans: &'a [Lan],
    /// Names of groups that this host knows.
    names: BTreeMap<IpAddr, Name>,
    #[serde(flatten)]
    network: Network,
}

impl<'a> Line<'a> {
    /// Builds a line from the daemon's state and the network.
    pub fn new(
        look: &'a Look,
        mut network: Network,
        names: BTreeMap<IpAddr, Name>,
        meanings: &'a BTreeMap<String, String>,
        at: f64,
    ) -> Self {
        let reasons = look.status.counters.drops.keys();
        let meaning = |reason: &'a String| Some((reason.as_str(), meanings.get(reason)?.as_str()));
        network.flows.retain(|flow| !is_own(flow.group));
        Self {
            at,
            status: &look.status,
            meanings: reasons.filter_map(meaning).collect(),
            peers: &look.peers,
            groups: look.groups.iter().filter(|g| !is_own(g.group)).collect(),
            lans: &look.lans,
            names,
            network,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::Ipv6Addr;

    use lcradio_core::SAP_GROUP;
    use lcroute_node::view::View;
    use librecast::channel::report_group;
    use librecast::id::SecretKey;
    use serde_json::json;

    use super::*;

    /// Two nodes with a link; the state of the first.
    pub(crate) fn look() -> Look {
        let [id, other] = [1, 2].map(|n| SecretKey::from_seed(&[n; 32]).peer_id().to_string());
        let counters = json!({
            "tun_rx_packets": 0, "tun_rx_bytes": 0, "tun_tx_packets": 0, "tun_tx_bytes": 0, "link_rx_packets": 0,
            "link_rx_bytes": 0, "link_tx_packets": 0, "link_tx_bytes": 0, "drops": {"no_listener": 3, "unheard_of": 1},
        });
        let group = |group: Ipv6Addr| json!({"group": group, "local": true, "links": [], "sources": [], "packets": 0, "bytes": 0, "refused": null});
        let router = |n: u64| json!({"origin": n, "peer_id": null, "name": format!("n{n}"), "address": format!("fd00::{n}"), "stub": false});
        let look = json!({
            "status": {"peer_id": id, "name": "n1", "address": "fd00::1", "network": id, "tun": "lc0", "inbound": "open",
                "state": "connected", "uptime_s": 1, "peers": 1, "groups": 0, "counters": counters},
            "peers": [{"peer_id": other, "name": "n2", "address": "fd00::2", "state": "connected", "rtt_ms": null, "loss": null,
                "lane": "data", "path_mtu": null, "congested_packets": 0, "media_resent": 0, "media_symbols": 0, "media_repaired": 0,
                "tx_bytes": 0, "rx_bytes": 0, "carrier": null, "since_s": 1, "reason": null}],
            "groups": [group("ff1e::7".parse().unwrap()), group(report_group()), group(SAP_GROUP)],
            "lans": [],
            "routers": [router(1), router(2)],
            "links": [[0, 1, 10]],
            "flows": [],
        });
        serde_json::from_value(look).unwrap()
    }

    /// The network of [`look`], for pages.
    pub(crate) fn network() -> Network {
        View::default().show(&look().network, std::time::Instant::now())
    }

    #[test]
    fn a_line_has_meanings_of_drops_and_not_the_groups_of_pages() {
        let look = look();
        let meanings = BTreeMap::from([("no_listener".into(), "nobody listens".into())]);
        let line =
            serde_json::to_value(Line::new(&look, network(), BTreeMap::new(), &meanings, 1.5))
                .unwrap();
        assert_eq!(line["meanings"], json!({"no_listener": "nobody listens"}));
        assert_eq!(line["groups"].as_array().unwrap().len(), 1);
        assert_eq!(line["nodes"][0]["name"], "n1");
    }
}
