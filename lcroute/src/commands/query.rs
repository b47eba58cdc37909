//! `status`, `peers`, `groups`, `routes`, `reload`: questions to a running daemon.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use lcroute_control::Request;
use lcroute_control::client::Client;
use lcroute_control::config::Reread;
use lcroute_control::status::{
    Door, Group, Inbound, Lan, LanSegment, Peer, Route, State, Status, key_conflict,
};
use librecast::stream;
use librecast_program::cli::{Exit, print};
use librecast_program::screen;
use librecast_program::units::{count, duration, short};
use serde_json::Value;

use super::book::{book_name, book_of_user, name_by_book};
use super::{hint, names, print_line};
use lcroute_engine::topology::PolicyKind;
use lcroute_node::{LanRole, Privacy};
use lcroute_overlay::PathKind;

/// Time between two queries with `--watch`.
const INTERVAL: Duration = Duration::from_secs(1);

/// The subject of a query.
#[derive(Debug, Clone, Copy)]
pub enum What {
    /// `status`
    Status,
    /// `peers`
    Peers,
    /// `groups`
    Groups,
    /// `lan`
    Lan,
    /// `routes`
    Routes,
}

/// Format of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Names, sized for a screen.
    Short,
    /// PeerIds and addresses as well.
    All,
    /// One JSON document.
    Json,
}

/// Asks once, or with `watch` once a second.
pub fn run(control: &Path, what: What, shape: Shape, watch: bool) -> anyhow::Result<Exit> {
    if watch {
        let is_screen = shape != Shape::Json;
        return screen::watch("lcroute", is_screen, INTERVAL, || {
            Ok(ask(control, what, shape)?.0)
        });
    }
    let (text, exit) = ask(control, what, shape)?;
    print(&text)?;
    Ok(exit)
}

/// Returns the answer and its exit code.
fn ask(control: &Path, what: What, shape: Shape) -> anyhow::Result<(String, Exit)> {
    let (json, all) = (shape == Shape::Json, shape == Shape::All);
    let request = match what {
        What::Status => Request::Status,
        What::Peers => Request::Peers,
        What::Groups => Request::Groups,
        What::Lan => Request::Lan,
        What::Routes => Request::Routes,
    };
    let client = match what {
        What::Routes => Client::connect(control),
        _ => Client::connect_to_look(control),
    };
    let mut answer: Value = client?.ask(&request)?;
    let book = matches!(what, What::Peers).then(book_of_user);
    if let Some(book) = &book
        && json
    {
        name_by_book(&mut answer, book);
    }
    // health checks use the exit code
    let exit = match what {
        What::Status if answer["state"] == State::Expelled.name() => Exit::NotPermitted,
        _ => Exit::Ok,
    };
    let streams = matches!(what, What::Status)
        .then(|| streams_of(control))
        .flatten();
    if json {
        if let Some(streams) = streams {
            answer["streams"] = serde_json::to_value(streams)?;
        }
        return Ok((format!("{answer}\n"), exit));
    }
    let text = match what {
        What::Status => {
            let streams = streams.as_ref().map(streams_line);
            status(&serde_json::from_value(answer)?, all) + &streams.unwrap_or_default()
        }
        What::Peers => {
            let mut list = serde_json::from_value::<Vec<Peer>>(answer)?;
            for peer in &mut list {
                let name = peer.name.as_deref().unwrap_or("?");
                let book = book.as_ref();
                peer.name = book.map(|book| book_name(book, &peer.peer_id, name));
            }
            peers(&list, all)
        }
        What::Groups => {
            let names = match all {
                true => BTreeMap::new(),
                false => names::by_address(control),
            };
            groups(&serde_json::from_value::<Vec<Group>>(answer)?, &names)
        }
        What::Lan => lans(&serde_json::from_value::<Vec<Lan>>(answer)?),
        What::Routes => routes(&serde_json::from_value::<Vec<Route>>(answer)?, all),
    };
    Ok((text, exit))
}

/// Returns the counters of the program for streams, if it runs and this user may ask it.
fn streams_of(control: &Path) -> Option<stream::Status> {
    stream::status(&stream::socket_of(control)).ok()
}

fn streams_line(s: &stream::Status) -> String {
    let serving: Vec<_> = s.serving.iter().map(ToString::to_string).collect();
    let serving = match serving.is_empty() {
        true => "nothing served".to_owned(),
        false => format!("serving {}", serving.join(", ")),
    };
    let refused = match s.refused.values().sum::<u64>() {
        0 => String::new(),
        n => format!(", {n} refused"),
    };
    format!(
        "  streams   {} open with {}, {serving}{refused}\n",
        s.streams,
        count(s.connections, "node"),
    )
}

/// Makes the daemon read its configuration again, or execute its binary anew.
pub fn reload(control: &Path, exec: bool, json: bool) -> anyhow::Result<Exit> {
    let reread: Reread = Client::connect(control)?.ask(&Request::Reload { exec })?;
    match (json, exec) {
        (true, _) => print_line(serde_json::to_string(&reread)?)?,
        (false, true) => hint("the daemon executes its binary anew; lc0 and its joins stay"),
        (false, false) => hint(reread),
    }
    Ok(Exit::Ok)
}

fn status(s: &Status, all: bool) -> String {
    let c = &s.counters;
    let mut text = format!(
        "{} ({})\n  address   {} on {}\n  network   {}\n  state     {}, up {}, {}, {}\n",
        s.name,
        s.peer_id,
        s.address,
        s.tun,
        s.network,
        s.state.name(),
        duration(s.uptime_s),
        count(s.peers, "peer"),
        count(s.groups, "group"),
    );
    if let Some(version) = &s.version {
        text += &format!("  version   {version}\n");
    }
    if let Some(ipv4) = s.ipv4 {
        text += &format!("  ipv4      {ipv4}\n");
    }
    if s.epoch > 0 {
        text += &format!("  epoch     {} (one more with each expulsion)\n", s.epoch);
    }
    if s.state == State::Expelled {
        if let Some(uses) = s.token_uses {
            text += &format!("  token     {}\n", lcroute_node::spent(uses));
        }
        text += "  expelled  nobody makes links with this node any more: `lcroute leave`, then `lcroute join` with a new token\n";
    }
    if let Some(conflict) = &s.key_conflict {
        text += &format!("  key       {}\n", key_conflict(conflict));
    }
    if s.leaves.linked > 0 {
        text += &format!(
            "  leaves    {} of {} links\n",
            s.leaves.linked, s.leaves.max
        );
    }
    if let Some(uplink) = s.uplink.text() {
        text += &format!("  upload    {uplink}\n");
    }
    if s.topology == PolicyKind::Tree {
        text += "  topology  tree: each link or node that fails parts the network for a second or more; [topology] policy = \"auto\" has other paths\n";
    }
    text += &found_by(&s.doors);
    if let Some((url, address)) = s.relay.url.as_ref().zip(s.relay.address) {
        let stream = if s.relay.stream { ", by TCP" } else { "" };
        text += &format!("  relay     {url} as {address}{stream}\n");
    }
    if s.relay.only {
        text += match s.relay.offered {
            0 => {
                "  hidden    nobody can be linked but members of [ice] disclose: no relay is known, and [ice] policy = \"relay\" allows no other path\n"
            }
            _ => {
                "  hidden    members that [ice] disclose does not name are linked over relays alone\n"
            }
        };
    }
    if let Some((address, by)) = s.mapping.address.zip(s.mapping.by) {
        text += &format!("  ports     the router maps {address}, by {}\n", by.name());
    }
    match s.inbound {
        Inbound::Blocked => text += &format!("  firewall  {}\n", firewall(&s.tun)),
        Inbound::NoRoute => text += &format!("  routes    {}\n", no_route(&s.tun)),
        Inbound::Open | Inbound::Unknown => {}
    }
    let mut line = |what: &str, packets, bytes: u64| {
        text += &format!("  {what:<9} {packets} packets, {}B\n", short(bytes as f64));
    };
    line(&format!("from {}", s.tun), c.tun_rx_packets, c.tun_rx_bytes);
    line(&format!("to {}", s.tun), c.tun_tx_packets, c.tun_tx_bytes);
    line("sent", c.link_tx_packets, c.link_tx_bytes);
    line("received", c.link_rx_packets, c.link_rx_bytes);
    let meanings = crate::drops::reasons();
    let (notable, usual): (Vec<_>, Vec<_>) = c
        .drops
        .iter()
        .partition(|(reason, _)| all || crate::drops::is_notable(reason));
    for (reason, n) in notable {
        let meaning = meanings.iter().find(|(name, _)| name == reason);
        let meaning = meaning.map_or("", |(_, meaning)| meaning);
        text += &format!("  dropped   {n} {reason}: {meaning}\n");
    }
    match usual.iter().map(|(_, n)| **n).sum::<u64>() {
        0 => {}
        n => text += &format!("  dropped   {n} as in any network (-v names the reasons)\n"),
    }
    text
}

/// Returns where other nodes find this one; a text always works.
fn found_by(doors: &[Door]) -> String {
    let door = |door: &Door| match door.kind.as_str() {
        "server" if !door.open => format!("{} (not connected)", door.at),
        "server" => door.at.clone(),
        // the note identifies the DHT
        kind @ "dht" => match &door.note {
            Some(note) => format!("{kind} ({note})"),
            None => kind.to_owned(),
        },
        kind => match door.note.as_ref().filter(|_| !door.open) {
            Some(note) => format!("{kind} {} ({note})", door.at),
            None => format!("{kind} {}", door.at),
        },
    };
    let doors: Vec<_> = doors.iter().map(door).collect();
    match doors.is_empty() {
        true => "  found by  nothing but a text: lcroute meet\n".into(),
        false => format!("  found by  {}\n", doors.join(", ")),
    }
}

/// Returns the remedy for a firewall that drops packets from `tun`.
pub(super) fn firewall(tun: &str) -> String {
    format!(
        "this host drops UDP that arrives on {tun}: programs here receive nothing. Let it in, for example:\n            \
         nft insert rule inet filter input iifname \"{tun}\" accept"
    )
}

/// Returns the remedy for a missing route for groups on `tun`.
pub(super) fn no_route(tun: &str) -> String {
    format!(
        "the kernel has no route for groups on {tun}: programs here neither send nor receive; see the log, then: lcroute reload"
    )
}

fn peers(list: &[Peer], all: bool) -> String {
    if list.is_empty() {
        return "no peers\n".into();
    }
    let names = names::distinct(list.iter().map(|p| (p.name.as_deref(), p.peer_id)));
    let width = column("NAME", &names);
    let mut text = format!(
        "{:<width$} {:<11} {:<9} {:>9} {:>6}  {:<8}{}\n",
        "NAME",
        "STATE",
        "PATH",
        "RTT",
        "LOSS",
        "FOUND BY",
        if all { " PEER" } else { "" }
    );
    for (p, name) in list.iter().zip(&names) {
        let path = p.link.path.map_or("-", PathKind::name);
        let rtt = p.link.rtt_ms.map_or("-".into(), |ms| format!("{ms:.1} ms"));
        let loss = p
            .link
            .loss
            .map_or("-".into(), |loss| format!("{:.1}%", loss * 100.0));
        let found_by = p.carrier.as_deref().unwrap_or("-");
        let id = all.then(|| p.peer_id.to_string());
        let leaf = p.leaf.then(|| " leaf".to_owned());
        let reason = p.reason.as_ref().map(|reason| format!(" {reason}"));
        let rest: Vec<_> = [id, leaf, reason].into_iter().flatten().collect();
        text += format!(
            "{name:<width$} {:<11} {path:<9} {rtt:>9} {loss:>6}  {found_by:<8} {}",
            p.state,
            rest.join(" ")
        )
        .trim_end();
        text.push('\n');
    }
    text
}

fn routes(list: &[Route], all: bool) -> String {
    if list.is_empty() {
        return "no routes\n".into();
    }
    let names = names::distinct(list.iter().map(|r| (Some(r.name.as_str()), r.peer_id)));
    let width = column("NAME", &names);
    let mut text = format!("{:<width$} {:>4} {:>6}  ", "NAME", "HOPS", "COST");
    text += &match all {
        true => format!("{:<width$} {:<40} PEER\n", "VIA", "ADDRESS"),
        false => "VIA\n".to_owned(),
    };
    for (r, name) in list.iter().zip(&names) {
        let via = list.iter().position(|other| other.peer_id == r.via);
        let via = match via {
            _ if r.via == r.peer_id => "-".into(),
            Some(neighbor) => names[neighbor].clone(),
            None => r.via.to_string(),
        };
        text += &format!("{name:<width$} {:>4} {:>6}  ", r.hops, r.cost);
        text += &match all {
            true => format!(
                "{via:<width$} {:<40} {}\n",
                r.address.to_string(),
                r.peer_id
            ),
            false => format!("{via}\n"),
        };
    }
    text
}

/// Returns the width of a column with these cells.
pub(super) fn column(heading: &str, cells: &[String]) -> usize {
    let widths = cells.iter().map(|cell| cell.chars().count());
    widths.chain([heading.len()]).max().unwrap_or_default()
}

fn groups(list: &[Group], names: &BTreeMap<IpAddr, String>) -> String {
    if list.is_empty() {
        return "no groups\n".into();
    }
    let shown: Vec<_> = list.iter().map(|g| g.group.to_string()).collect();
    let width = column("GROUP", &shown);
    let mut text = format!(
        "{:<width$} {:<5} {:>5} {:>6} {:>10}  {}\n",
        "GROUP", "LOCAL", "LINKS", "LEAVES", "PACKETS", "SOURCES"
    );
    for (g, group) in list.iter().zip(&shown) {
        let name = |source: &IpAddr| names.get(source).cloned().unwrap_or(source.to_string());
        let sources: Vec<_> = g.sources.iter().map(name).collect();
        let local = if g.local { "yes" } else { "no" };
        let refused = g
            .refused
            .as_ref()
            .map_or(String::new(), |r| format!("  refused: {r}"));
        let private = match g.private {
            None => "",
            Some(Privacy::Sealed) => "  sealed",
            Some(Privacy::NoKey) => "  sealed: no key here",
        };
        text += &format!(
            "{group:<width$} {local:<5} {:>5} {:>6} {:>10}  {}{private}{refused}{carried}\n",
            g.links.len(),
            g.leaves,
            g.packets,
            sources.join(" "),
            carried = g
                .carried_by
                .as_ref()
                .map_or(String::new(), |name| format!("  carried by {name}")),
        );
    }
    text
}

fn lans(list: &[Lan]) -> String {
    if list.is_empty() {
        return "no LANs: [[lan]] in the configuration\n".into();
    }
    let mut text = String::new();
    for lan in list {
        let segment = lan.segment.as_ref().map(segment_head).unwrap_or_default();
        text += &format!("{} ({}){segment}\n", lan.interface, lan.role);
        let mut line = |what: &str, value: &str| {
            if !value.is_empty() {
                text += &format!("  {what:<10} {value}\n");
            }
        };
        line("problem", lan.problem.as_deref().unwrap_or_default());
        line("remedy", lan.remedy.as_deref().unwrap_or_default());
        line("forwarder", lan.forwarder.as_deref().unwrap_or_default());
        line("querier", lan.querier.as_deref().unwrap_or_default());
        let ipv4 = lan.querier_ipv4.as_deref().unwrap_or_default();
        line("IPv4 asks", ipv4);
        line("note", lan.note.as_deref().unwrap_or_default());
        for (what, value) in lan.segment.iter().flat_map(segment_lines) {
            line(what, &value);
        }
        line("prefixes", &lan.prefixes.join(" "));
        line("in clear", &lan.in_clear.join(" "));
        if lan.role != LanRole::Off.name() {
            line("reported", &count(lan.groups, "group"));
        }
        for l in &lan.listeners {
            line(
                "listeners",
                &format!("{}: {}", l.group, count(l.hosts, "host")),
            );
        }
        for s in &lan.sources {
            let sent = format!("{} packets, {}B", s.packets, short(s.bytes as f64));
            line("source", &format!("{} ({}): {sent}", s.address, s.mac));
        }
        for (name, n) in &lan.counters {
            line("count", &format!("{name} {n}"));
        }
    }
    text
}

/// Returns the text after an interface with a segment.
fn segment_head(segment: &LanSegment) -> String {
    format!(
        ", {}segment {}: {}, {} heard here, {} elsewhere in use",
        if segment.sealed { "sealed " } else { "" },
        segment.name,
        count(segment.lans.len() + 1, "LAN"),
        count(segment.here, "host"),
        segment.elsewhere
    )
}

/// Returns the lines of a segment, each with its heading.
fn segment_lines(segment: &LanSegment) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    if let Some(problem) = &segment.problem {
        lines.push(("problem", problem.clone()));
        lines.push(("remedy", segment.remedy.clone().unwrap_or_default()));
    }
    for lan in &segment.lans {
        let mut parts = vec![lan.node.clone()];
        parts.extend(lan.prefixes.iter().cloned());
        parts.extend(lan.rtt_ms.map(|rtt| format!("{rtt} ms")));
        lines.push(("elsewhere", parts.join(", ")));
    }
    for router in &segment.routers {
        let text = format!(
            "{router} is the router of this LAN, and another LAN has it: each keeps its own"
        );
        lines.push(("routers", text));
    }
    for conflict in &segment.conflicts {
        let text = format!(
            "{} is here and behind {}: each LAN sees its own; give one of them another address",
            conflict.address, conflict.node
        );
        lines.push(("conflict", text));
    }
    let programs = match (segment.programs, &segment.programs_problem) {
        (true, _) => "this host's are in the segment".into(),
        (false, None) => "this host's are not in the segment".into(),
        (false, Some(why)) => format!("this host's are not in the segment: {why}"),
    };
    lines.push(("programs", programs));
    lines
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;

    use super::*;
    use lcroute_control::status::Counters;

    #[test]
    fn routes_show_the_way() {
        let id = |seed: u8| SecretKey::from_seed(&[seed; 32]).peer_id();
        let route = |seed, name: &str, via, hops| Route {
            ipv4: None,
            peer_id: id(seed),
            name: name.into(),
            address: std::net::Ipv6Addr::LOCALHOST,
            via: id(via),
            hops,
            cost: 10 * u32::from(hops),
            links: 2,
        };
        let known = [route(1, "near", 1, 1), route(2, "far", 1, 2)];
        let text = routes(&known, true);
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|l| l.split_whitespace().collect())
            .collect();
        let far = id(2).to_string();
        assert_eq!(lines[1][..5], ["near", "1", "10", "-", "::1"]);
        assert_eq!(lines[2], ["far", "2", "20", "near", "::1", far.as_str()]);
        let short = "NAME HOPS   COST  VIA\nnear    1     10  -\nfar     2     20  near\n";
        assert_eq!(routes(&known, false), short);
        assert_eq!(routes(&[], true), "no routes\n");
    }

    #[test]
    fn status_is_readable() {
        let mut counters = Counters {
            tun_rx_packets: 7,
            ..Counters::default()
        };
        counters.drops.insert("no_listener".into(), 3);
        let node = Status {
            name: "Connector".into(),
            tun: "lc7".into(),
            inbound: Inbound::Blocked,
            version: Some("1.2.3".into()),
            uptime_s: 3_700,
            doors: [
                ("server", "ws://one", true, None),
                ("server", "ws://two", false, None),
                ("lan", "eth0", true, None),
                ("dht", "mainline", true, Some("9 nodes")),
                ("matrix", "#lc:a", false, Some("no answer")),
            ]
            .map(|(kind, at, open, note)| Door {
                kind: kind.into(),
                at: at.into(),
                open,
                note: note.map(Into::into),
            })
            .into(),
            mapping: lcroute_control::status::Mapping {
                address: "203.0.113.5:7000".parse().ok(),
                by: Some(lcroute_control::status::Protocol::NatPmp),
                failure: None,
            },
            topology: PolicyKind::Tree,
            groups: 2,
            counters,
            ..crate::testing::status()
        };
        let short = status(&node, false);
        assert!(short.contains("dropped   3 as in any network") && !short.contains("no_listener"));
        let text = status(&node, true);
        for part in [
            "Connector (",
            "on lc7",
            "iifname \"lc7\" accept",
            "state     connected, up 1 h 1 min, 1 peer, 2 groups",
            "version   1.2.3\n",
            "topology  tree: each link",
            "ports     the router maps 203.0.113.5:7000, by NAT-PMP",
            "found by  ws://one, ws://two (not connected), lan eth0, dht (9 nodes), matrix #lc:a (no answer)\n",
            "from lc7  7 packets, 0 B",
            "dropped   3 no_listener: ",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }
}
