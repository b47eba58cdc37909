//! A line of the stream to a page.

use std::collections::BTreeMap;

use lcroute::status::{Group, Lan, Look, Peer, Status};
use lcroute_node::view::Network;
use librecast::channel::report_group;
use serde::Serialize;

/// What a page gets once a second.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    /// Unix seconds.
    at: f64,
    status: &'a Status,
    /// What the reasons of drops mean.
    meanings: BTreeMap<&'a str, &'a str>,
    peers: &'a [Peer],
    groups: Vec<&'a Group>,
    lans: &'a [Lan],
    #[serde(flatten)]
    network: Network,
}

impl<'a> Line<'a> {
    /// Of what the daemon says, and the network around it.
    pub fn new(
        look: &'a Look,
        network: Network,
        meanings: &BTreeMap<&'static str, &'static str>,
        at: f64,
    ) -> Self {
        let reasons = look.status.counters.drops.keys();
        let meaning = |reason: &'a String| Some((reason.as_str(), *meanings.get(reason.as_str())?));
        let hidden = report_group();
        Self {
            at,
            status: &look.status,
            meanings: reasons.filter_map(meaning).collect(),
            peers: &look.peers,
            groups: look.groups.iter().filter(|g| g.group != hidden).collect(),
            lans: &look.lans,
            network,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use lcroute_node::view::View;
    use librecast::id::SecretKey;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_has_meanings_of_drops_and_not_the_group_of_reports() {
        let id = SecretKey::from_seed(&[1; 32]).peer_id().to_string();
        let counters = json!({
            "tun_rx_packets": 0, "tun_rx_bytes": 0, "tun_tx_packets": 0, "tun_tx_bytes": 0, "link_rx_packets": 0,
            "link_rx_bytes": 0, "link_tx_packets": 0, "link_tx_bytes": 0, "drops": {"no_listener": 3, "unheard_of": 1},
        });
        let group = |group: Ipv6Addr| json!({"group": group, "local": true, "links": [], "sources": [], "packets": 0, "bytes": 0, "refused": null});
        let look: Look = serde_json::from_value(json!({
            "status": {"peer_id": id, "name": "n1", "address": "fd00::1", "network": id, "tun": "lc0", "inbound": "open",
                "state": "connected", "uptime_s": 1, "peers": 2, "groups": 0, "counters": counters},
            "peers": [],
            "groups": [group("ff1e::7".parse().unwrap()), group(report_group())],
            "lans": [],
            "routers": [{"origin": 1, "peer_id": null, "name": "n1", "address": "fd00::1", "stub": false}],
            "links": [],
            "flows": [],
        }))
        .unwrap();
        let network = View::default().show(&look.network, std::time::Instant::now());
        let meanings = BTreeMap::from([("no_listener", "nobody listens")]);
        let line = serde_json::to_value(Line::new(&look, network, &meanings, 1.5)).unwrap();
        assert_eq!(line["meanings"], json!({"no_listener": "nobody listens"}));
        assert_eq!(line["groups"].as_array().unwrap().len(), 1);
        assert_eq!(line["nodes"][0]["name"], "n1");
    }
}
