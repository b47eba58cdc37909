//! `top`: present traffic of groups and peers of a running daemon.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use lcroute_control::Request;
use lcroute_control::client::Client;
use lcroute_control::status::{Group, Peer, Status};
use librecast::id::PeerId;
use librecast_program::cli::{Exit, print};
use librecast_program::screen;
use librecast_program::units::{count, duration, short};
use serde::Serialize;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// Rows of each table on a terminal.
const ROWS: usize = 20;

/// The traffic between two looks.
#[derive(Debug, Serialize)]
struct Top {
    /// A headline for users.
    #[serde(skip)]
    head: String,
    interval_s: f64,
    groups: Vec<GroupRate>,
    peers: Vec<PeerRate>,
}

#[derive(Debug, Serialize)]
struct GroupRate {
    group: IpAddr,
    local: bool,
    links: usize,
    sources: usize,
    packets_s: f64,
    bits_s: f64,
}

#[derive(Debug, Serialize)]
struct PeerRate {
    peer_id: PeerId,
    name: Option<String>,
    state: String,
    tx_bits_s: f64,
    rx_bits_s: f64,
    rtt_ms: Option<f64>,
    loss: Option<f64>,
}

struct Look {
    at: Instant,
    status: Status,
    groups: Vec<Group>,
    peers: Vec<Peer>,
}

impl Look {
    fn take(client: &mut Client) -> anyhow::Result<Self> {
        Ok(Self {
            status: client.ask(&Request::Status)?,
            groups: client.ask(&Request::Groups)?,
            peers: client.ask(&Request::Peers)?,
            at: Instant::now(),
        })
    }
}

/// Measures for a second and prints the traffic; on a terminal, or with `watch`, repeatedly.
pub fn run(control: &Path, json: bool, watch: bool) -> anyhow::Result<Exit> {
    let mut before = Look::take(&mut Client::connect_to_look(control)?)?;
    let mut show = || -> anyhow::Result<String> {
        let after = Look::take(&mut Client::connect_to_look(control)?)?;
        let top = Top::between(&before, &after);
        before = after;
        match json {
            true => Ok(serde_json::to_string(&top)? + "\n"),
            false => Ok(top.text()),
        }
    };
    std::thread::sleep(INTERVAL);
    if watch || (!json && std::io::stdout().is_terminal()) {
        return screen::watch("lcroute", !json, INTERVAL, show);
    }
    print(&show()?)?;
    Ok(Exit::Ok)
}

impl Top {
    fn between(before: &Look, after: &Look) -> Self {
        let seconds = (after.at - before.at).as_secs_f64().max(0.001);
        let rate = |old: u64, new: u64| new.saturating_sub(old) as f64 / seconds;
        let old: BTreeMap<_, _> = before.groups.iter().map(|g| (g.group, g)).collect();
        let group = |g: &Group| {
            // counters of a new entry began at 0
            let (packets, bytes) = old.get(&g.group).map_or((0, 0), |o| (o.packets, o.bytes));
            GroupRate {
                group: g.group,
                local: g.local,
                links: g.links.len(),
                sources: g.sources.len(),
                packets_s: rate(packets, g.packets),
                bits_s: rate(bytes, g.bytes) * 8.0,
            }
        };
        let known: BTreeMap<_, _> = before.peers.iter().map(|p| (p.peer_id, p)).collect();
        let peer = |p: &Peer| {
            let (tx, rx) = known
                .get(&p.peer_id)
                .map_or((0, 0), |o| (o.tx_bytes, o.rx_bytes));
            PeerRate {
                peer_id: p.peer_id,
                name: p.name.clone(),
                state: p.state.clone(),
                tx_bits_s: rate(tx, p.tx_bytes) * 8.0,
                rx_bits_s: rate(rx, p.rx_bytes) * 8.0,
                rtt_ms: p.link.rtt_ms,
                loss: p.link.loss,
            }
        };
        let own = &after.status;
        let mut top = Self {
            head: format!(
                "{} on {}: {}, up {}, {}, {}",
                own.name,
                own.tun,
                own.state.name(),
                duration(own.uptime_s),
                count(own.peers, "peer"),
                count(own.groups, "group")
            ),
            interval_s: seconds,
            groups: after.groups.iter().map(group).collect(),
            peers: after.peers.iter().map(peer).collect(),
        };
        top.groups.sort_by(|a, b| b.bits_s.total_cmp(&a.bits_s));
        let both = |p: &PeerRate| p.tx_bits_s + p.rx_bits_s;
        top.peers.sort_by(|a, b| both(b).total_cmp(&both(a)));
        top
    }

    fn text(&self) -> String {
        let mut text = format!(
            "{}\n\n{:<40} {:>5} {:>5} {:>7} {:>9} {:>9}\n",
            self.head, "GROUP", "LOCAL", "LINKS", "SOURCES", "PACKETS/s", "BIT/s"
        );
        for g in self.groups.iter().take(ROWS) {
            let local = if g.local { "yes" } else { "no" };
            text += &format!(
                "{:<40} {local:>5} {:>5} {:>7} {:>9.0} {:>9}\n",
                g.group.to_string(),
                g.links,
                g.sources,
                g.packets_s,
                short(g.bits_s)
            );
        }
        text += &format!(
            "\n{:<16} {:<11} {:>9} {:>9} {:>9} {:>6}  {}\n",
            "NAME", "STATE", "OUT BIT/s", "IN BIT/s", "RTT", "LOSS", "PEER"
        );
        for p in self.peers.iter().take(ROWS) {
            let rtt = p.rtt_ms.map_or("-".into(), |ms| format!("{ms:.1} ms"));
            let loss = p.loss.map_or("-".into(), |l| format!("{:.1}%", l * 100.0));
            text += &format!(
                "{:<16} {:<11} {:>9} {:>9} {rtt:>9} {loss:>6}  {}\n",
                p.name.as_deref().unwrap_or("?"),
                p.state,
                short(p.tx_bits_s),
                short(p.rx_bits_s),
                p.peer_id
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(at: Instant, groups: &[(&str, u64, u64)]) -> Look {
        let group = |(group, packets, bytes): &(&str, u64, u64)| Group {
            group: group.parse().unwrap(),
            local: true,
            links: Vec::new(),
            leaves: 0,
            carried_by: None,
            sources: Vec::new(),
            packets: *packets,
            bytes: *bytes,
            private: None,
            refused: None,
        };
        Look {
            at,
            status: Status {
                name: "alpha".into(),
                uptime_s: 61,
                ..crate::testing::status()
            },
            groups: groups.iter().map(group).collect(),
            peers: Vec::new(),
        }
    }

    #[test]
    fn the_busiest_group_comes_first() {
        let now = Instant::now();
        let before = look(now, &[("ff1e::1", 100, 1_000), ("ff1e::2", 5, 50)]);
        let later = [
            ("ff1e::1", 110, 2_000),
            ("ff1e::2", 5, 50),
            ("ff1e::3", 9, 500_000),
        ];
        let top = Top::between(&before, &look(now + INTERVAL * 2, &later));
        let rates: Vec<_> = top.groups.iter().map(|g| (g.packets_s, g.bits_s)).collect();
        assert_eq!(rates, [(4.5, 2e6), (5.0, 4_000.0), (0.0, 0.0)]);
        let text = top.text();
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|l| l.split_whitespace().collect())
            .collect();
        assert!(text.starts_with("alpha on lc0: connected, up 1 min 1 s, 1 peer, 3 groups\n"));
        assert_eq!(lines[3], ["ff1e::3", "yes", "0", "0", "4", "2.00", "M"]);
    }
}
